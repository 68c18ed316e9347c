//! Who may connect: the users of the settings and the bearers of tokens, asked on threads of their own.
//!
//! A password that is a valid token is one; any other belongs to the user whose name it came with, or to nobody.
//!
//! Hashing takes milliseconds, a shard serves thousands of messages in that time: it is done elsewhere, by turns
//! ([`Crowd`]), and a refusal takes its time. An unknown user is checked against the secret of another one, always the same, and
//! is challenged by SCRAM as if it were one: neither time nor answer tells who exists.
//! Turns, refusals and what stands for unknown users are the node's, whichever shard is asked.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hashbrown::HashMap;

use super::core::{Answer, Proof, Verdict};
use super::crowd::{Crowd, Place};
use super::passwords;
use super::scram::{self, Challenge, Proved};
use super::tokens::{Claims, Tokens, looks_like_token};
use crate::settings;

/// Those who may connect, by one version of the settings.
#[derive(Clone, Default)]
struct Users {
    is_anonymous_allowed: bool,
    secrets: HashMap<String, Arc<str>>,
    /// All secrets, for those who name no user.
    decoys: Vec<Arc<str>>,
    /// What a challenge shows of those that are for SCRAM.
    faces: Vec<scram::Face>,
    jwt: Option<settings::Jwt>,
    tokens: Option<Arc<Tokens>>,
}

/// What all authenticators of a node share.
pub(super) struct Gate {
    crowd: Arc<Crowd>,
    seed: RandomState,
    /// Makes the salts of SCRAM users who do not exist.
    salt_key: [u8; 32],
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { crowd: Arc::default(), seed: RandomState::new(), salt_key: random() }
    }
}

/// Checks user names and passwords.
pub(super) struct Authenticator {
    users: Rc<Users>,
    gate: Arc<Gate>,
}

impl Authenticator {
    pub(super) fn new(gate: Arc<Gate>) -> Authenticator {
        Authenticator { users: Rc::default(), gate }
    }

    /// Takes over new users. The answer, if they are not those from before, tells whom that bars: users who are gone or have
    /// another secret, anonymous ones if those may no longer connect, and bearers of tokens whose key is gone or that are asked for
    /// something else now.
    pub(super) fn apply(
        &mut self,
        settings: &settings::Authentication,
    ) -> Option<impl Fn(Proof, Option<&str>) -> bool + use<>> {
        let new = Rc::new(Users::new(settings));
        let old = std::mem::replace(&mut self.users, Rc::clone(&new));
        let is_same = old.is_like(&new);
        (!is_same).then_some(move |proof, username: Option<&str>| match (proof, username) {
            (Proof::Nothing, _) | (_, None) => !new.is_anonymous_allowed,
            (Proof::Certificate, _) => false,
            (Proof::Token { key }, _) => !new.takes_tokens_like(&old) || !new.has_key(key),
            (Proof::Password, Some(name)) => {
                new.secrets.get(name).is_none_or(|secret| old.secrets.get(name) != Some(secret))
            }
        })
    }

    /// Lets an authentication method look at a client's message.
    pub(super) fn exchange(&self, method: &str, context: &str, message: &[u8]) -> Answer {
        if method != scram::METHOD {
            return Answer::Unsupported;
        }
        let secret_of = |name: &str| self.users.secrets.get(name).map(|secret| secret.to_string());
        if context.is_empty() {
            let nonce = random();
            let face_of = |name: &str| self.pick(&self.users.faces, name).copied().unwrap_or_default();
            return match scram::begin(message, &nonce, &self.gate.salt_key, secret_of, face_of) {
                Some(Challenge { message, context }) => {
                    Answer::Continue { data: message.into(), context: context.into() }
                }
                None => Answer::Refused,
            };
        }
        match scram::finish(message, context, secret_of) {
            Some(Proved { username, message }) => {
                Answer::Accepted { username: username.into(), data: message.into() }
            }
            None => Answer::Refused,
        }
    }

    /// Begins to check a user name and a password.
    pub(super) fn check(&self, username: &Arc<str>, password: Bytes, peer: IpAddr) -> Check {
        if self.users.is_open() {
            return Check::Done(Verdict::Anonymous);
        }
        let known = self.users.secrets.get(&**username);
        let token = self.users.tokens.clone().filter(|_| looks_like_token(&password));
        let trial = Trial {
            secret: known.or_else(|| self.pick(&self.users.decoys, username)).cloned(),
            is_known: known.is_some(),
            tokens: token,
            username: Arc::clone(username),
            password,
        };
        if trial.is_cheap() {
            return Check::Done(trial.judge());
        }
        match self.gate.crowd.line_up(peer) {
            Some(place) => Check::Wait(Waiting { trial, place }),
            None => Check::Done(Verdict::Busy),
        }
    }

    /// How many wait for their password to be hashed.
    pub(super) fn waiting(&self) -> usize {
        self.gate.crowd.waiting()
    }

    /// Notes that a client was refused. The answer is how long that should take.
    pub(super) fn refuse(&self, peer: IpAddr) -> Duration {
        self.gate.crowd.refuse(peer, Instant::now())
    }

    /// What stands for an unknown user: always the same, else two tries would tell.
    fn pick<'a, T>(&self, from: &'a [T], username: &str) -> Option<&'a T> {
        from.get((self.gate.seed.hash_one(username) % from.len().max(1) as u64) as usize)
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut bytes).expect("the system gives random numbers");
    bytes
}

impl Users {
    fn new(settings: &settings::Authentication) -> Users {
        let mut decoys: Vec<Arc<str>> = Vec::new();
        let faces = settings.users.iter().filter_map(|user| scram::Face::of(&user.secret)).collect();
        let secrets = settings.users.iter().map(|user| {
            let secret: Arc<str> = user.secret.as_str().into();
            decoys.push(Arc::clone(&secret));
            (user.name.clone(), secret)
        });
        Users {
            secrets: secrets.collect(),
            decoys,
            faces,
            is_anonymous_allowed: settings.anonymous,
            // The settings are checked; of keys that are of no use no token can be valid.
            tokens: settings.jwt.as_ref().and_then(|jwt| Tokens::new(jwt).ok()).map(Arc::new),
            jwt: settings.jwt.clone(),
        }
    }

    fn is_like(&self, other: &Users) -> bool {
        self.is_anonymous_allowed == other.is_anonymous_allowed
            && self.secrets == other.secrets
            && self.jwt == other.jwt
    }

    /// True if other keys are all that changed for tokens.
    fn takes_tokens_like(&self, old: &Users) -> bool {
        let without_keys = |jwt: &settings::Jwt| settings::Jwt { jwks: String::new(), ..jwt.clone() };
        self.jwt.as_ref().map(without_keys) == old.jwt.as_ref().map(without_keys)
    }

    fn has_key(&self, key: u64) -> bool {
        self.tokens.as_ref().is_some_and(|tokens| tokens.has_key(key))
    }

    /// True if there is nothing to hold a user name against, and no need to: many clients send one wherever they connect.
    fn is_open(&self) -> bool {
        self.is_anonymous_allowed && self.secrets.is_empty() && self.jwt.is_none()
    }
}

/// An answer, or what leads to it.
pub(super) enum Check {
    Done(Verdict),
    Wait(Waiting),
}

/// A password that has to be hashed.
pub(super) struct Waiting {
    trial: Trial,
    place: Place,
}

impl Waiting {
    /// Hashes on another thread, when it is its turn, if its client is still there then.
    pub(super) async fn run(self, is_here: impl FnOnce() -> bool) -> Verdict {
        let Some(turn) = self.place.turn().await.filter(|_| is_here()) else { return Verdict::Busy };
        let judge = move || {
            let verdict = self.trial.judge();
            drop(turn);
            verdict
        };
        tokio::task::spawn_blocking(judge).await.unwrap_or(Verdict::Busy)
    }
}

/// What a client showed, and what it is held against.
struct Trial {
    secret: Option<Arc<str>>,
    is_known: bool,
    tokens: Option<Arc<Tokens>>,
    username: Arc<str>,
    password: Bytes,
}

impl Trial {
    fn is_cheap(&self) -> bool {
        self.tokens.is_none() && self.secret.as_deref().is_none_or(passwords::is_cheap)
    }

    fn judge(&self) -> Verdict {
        if let Some(claims) = self.tokens.as_ref().and_then(|tokens| tokens.verify(&self.password, now_s()))
            && (self.username.is_empty() || *self.username == *claims.username)
        {
            return accept(claims);
        }
        let is_right = self.secret.as_deref().is_some_and(|secret| passwords::verify(secret, &self.password));
        if is_right && self.is_known { Verdict::Accepted } else { Verdict::Refused }
    }
}

fn accept(claims: Claims) -> Verdict {
    let left = Duration::from_secs(claims.expires_s.saturating_sub(now_s()));
    let Claims { username, key, grants, .. } = claims;
    let until = Instant::now().checked_add(left);
    Verdict::Token { username: username.into(), until, key, grants }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Authentication, User};

    fn authenticator(users: &[(&str, &str)]) -> Authenticator {
        let user =
            |(name, secret): &(&str, &str)| User { name: (*name).to_owned(), secret: (*secret).to_owned() };
        let mut authenticator = Authenticator::new(Arc::default());
        let users = users.iter().map(user).collect();
        let _ = authenticator.apply(&Authentication { users, ..Authentication::default() });
        authenticator
    }

    fn check(authenticator: &Authenticator, name: &str, password: &'static str) -> Check {
        authenticator.check(&name.into(), Bytes::from_static(password.as_bytes()), peer(1))
    }

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn an_unknown_user_costs_what_a_known_one_costs() {
        let slow = authenticator(&[("ann", "$6$AAAA$AAAA"), ("bob", "$7$1$AAAA$AAAA")]);
        for name in ["ann", "bob", "cyd", "dan", ""] {
            let check = check(&slow, name, "x");
            assert!(
                matches!(check, Check::Wait(Waiting { trial: Trial { secret: Some(_), .. }, .. })),
                "{name}"
            );
        }
        let of = |name: &str| slow.pick(&slow.users.decoys, name).cloned();
        assert_eq!(of("cyd"), of("cyd"), "the same again: else two tries would tell");
        let both = (0..64).map(|n| of(&format!("user {n}"))).collect::<std::collections::HashSet<_>>();
        assert_eq!(both.len(), 2);

        let cheap = authenticator(&[("ann", "plain:x")]);
        assert!(matches!(check(&cheap, "ann", "x"), Check::Done(Verdict::Accepted)));
        for (name, password) in [("ann", "y"), ("cyd", "x"), ("", "")] {
            assert!(matches!(check(&cheap, name, password), Check::Done(Verdict::Refused)));
        }
        assert!(matches!(check(&authenticator(&[]), "ann", "x"), Check::Done(Verdict::Refused)));
    }

    #[test]
    fn a_name_counts_for_nothing_only_where_nobody_is_known_and_nobody_needs_one() {
        let judged = |users: &[(&str, &str)], anonymous| {
            let user = |&(name, secret): &(&str, &str)| User { name: name.into(), secret: secret.into() };
            let users = users.iter().map(user).collect();
            let mut authenticator = Authenticator::new(Arc::default());
            let _ = authenticator.apply(&Authentication { users, anonymous, ..Authentication::default() });
            matches!(check(&authenticator, "cyd", "x"), Check::Done(Verdict::Anonymous))
        };
        assert!(judged(&[], true));
        assert!(!judged(&[], false));
        assert!(!judged(&[("ann", "plain:x")], true));
    }

    #[test]
    fn a_challenge_does_not_tell_who_exists() {
        let one = |n: u32, salt: &str| {
            format!(
                "SCRAM-SHA-256${n}:{salt}$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
            )
        };
        let (ann, bob) = (one(10_000, "MDEyMzQ1Njc4OWFiY2RlZg=="), one(10_000, "ZmVkY2JhOTg3NjU0MzIxMA=="));
        let all = authenticator(&[("ann", &ann), ("bob", &bob), ("cyd", "plain:x")]);
        let face = |name: &str| match all.exchange("SCRAM-SHA-256", "", format!("n,,n={name},r=x").as_bytes())
        {
            Answer::Continue { data, .. } => {
                let text = String::from_utf8(data.to_vec()).expect("text");
                let (salt, rounds) =
                    text.split_once(",s=").expect("a salt").1.split_once(",i=").expect("rounds");
                (salt.len(), rounds.to_owned())
            }
            other => panic!("{other:?}"),
        };
        for name in ["bob", "cyd", "nobody", "somebody"] {
            assert_eq!(face(name), face("ann"), "{name}");
        }
    }

    #[test]
    fn settings_that_say_the_same_bar_nobody() {
        let settings = Authentication { anonymous: true, ..Authentication::default() };
        let mut authenticator = Authenticator::new(Arc::default());
        assert!(authenticator.apply(&settings).is_some());
        assert!(authenticator.apply(&settings).is_none());
    }
}
