//! Who may connect: the users of the settings and the bearers of tokens, asked on threads of their own.
//!
//! A password that is a valid token is one; any other belongs to the user whose name it came with, or to nobody.
//!
//! Hashing takes milliseconds, a shard serves thousands of messages in that time: at most [`HASHING_MAX`] passwords are
//! hashed at once, at most [`WAITING_MAX`] wait for it, and [`WAITING_HERE_MAX`] from one address; beyond that a client hears
//! that the server is busy. A refusal takes its time, the longer the more of them an address had, and waits like the others.
//! An unknown user is checked against the secret of another one, always the same: neither time nor answer tells who exists.
//! Bounds, refusals and what stands for unknown users are the node's, whichever shard is asked.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::sync::Semaphore;

use super::core::{Answer, Proof, Verdict};
use super::passwords;
use super::scram::{self, Challenge, Proved};
use super::tokens::{Claims, Tokens, looks_like_token};
use crate::settings;

/// How many passwords are hashed at once.
const HASHING_MAX: usize = 2;
/// How many clients wait for that, or for their refusal.
const WAITING_MAX: usize = 1_000;
/// How many of them may come from one address: many devices may share one.
const WAITING_HERE_MAX: usize = 250;
/// How long the first refusals of an address take; each further one doubles it.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest that a refusal takes.
const DELAY_MAX: Duration = Duration::from_secs(3);
/// After so long without another, an address's refusals are forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// How many addresses are remembered.
const ADDRESSES_MAX: usize = 10_000;

/// Those who may connect, by one version of the settings.
#[derive(Clone, Default)]
struct Users {
    is_anonymous_allowed: bool,
    secrets: HashMap<String, Arc<str>>,
    /// All secrets, for those who name no user.
    decoys: Vec<Arc<str>>,
    jwt: Option<settings::Jwt>,
    tokens: Option<Arc<Tokens>>,
}

/// What all authenticators of a node share.
pub(super) struct Gate {
    hashing: Semaphore,
    crowd: Mutex<Crowd>,
    seed: RandomState,
    /// Makes the salts of SCRAM users who do not exist.
    salt_key: [u8; 32],
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            hashing: Semaphore::new(HASHING_MAX),
            crowd: Mutex::default(),
            seed: RandomState::new(),
            salt_key: random(),
        }
    }
}

impl Gate {
    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Takes over new users. The answer tells whom that bars: users who are gone or have another secret, anonymous ones if
    /// those may no longer connect, and bearers of tokens if others count now.
    pub(super) fn apply(
        &mut self,
        settings: &settings::Authentication,
    ) -> impl Fn(Proof, Option<&str>) -> bool + use<> {
        let new = Rc::new(Users::new(settings));
        let old = std::mem::replace(&mut self.users, Rc::clone(&new));
        move |proof, username| match (proof, username) {
            (Proof::Nothing, _) | (_, None) => !new.is_anonymous_allowed,
            (Proof::Certificate, _) => false,
            (Proof::Token, _) => old.jwt != new.jwt,
            (Proof::Password, Some(name)) => {
                new.secrets.get(name).is_none_or(|secret| old.secrets.get(name) != Some(secret))
            }
        }
    }

    /// Lets an authentication method look at a client's message.
    pub(super) fn exchange(&self, method: &str, context: &str, message: &[u8]) -> Answer {
        if method != scram::METHOD {
            return Answer::Unsupported;
        }
        let secret_of = |name: &str| self.users.secrets.get(name).map(|secret| secret.to_string());
        if context.is_empty() {
            let nonce = random();
            return match scram::begin(message, &nonce, &self.gate.salt_key, secret_of) {
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
        let Some(place) = Place::take(&self.gate, peer) else { return Check::Done(Verdict::Busy) };
        let known = self.users.secrets.get(&**username);
        let token = self.users.tokens.clone().filter(|_| looks_like_token(&password));
        let trial = Trial {
            secret: known.or_else(|| self.decoy(username)).cloned(),
            is_known: known.is_some(),
            tokens: token,
            username: Arc::clone(username),
            password,
        };
        if trial.is_cheap() {
            let verdict = trial.judge();
            if verdict != Verdict::Refused {
                return Check::Done(verdict);
            }
            return Check::Wait(Waiting { trial: None, place });
        }
        Check::Wait(Waiting { trial: Some(trial), place })
    }

    /// The secret that stands for that of an unknown user.
    fn decoy(&self, username: &str) -> Option<&Arc<str>> {
        let count = self.users.decoys.len();
        self.users.decoys.get((self.gate.seed.hash_one(username) % count.max(1) as u64) as usize)
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
        let secrets = settings.users.iter().map(|user| {
            let secret: Arc<str> = user.secret.as_str().into();
            decoys.push(Arc::clone(&secret));
            (user.name.clone(), secret)
        });
        Users {
            secrets: secrets.collect(),
            decoys,
            is_anonymous_allowed: settings.anonymous,
            // The settings are checked; of keys that are of no use no token can be valid.
            tokens: settings.jwt.as_ref().and_then(|jwt| Tokens::new(jwt).ok()).map(Arc::new),
            jwt: settings.jwt.clone(),
        }
    }
}

/// An answer, or what leads to it.
pub(super) enum Check {
    Done(Verdict),
    Wait(Waiting),
}

/// A password that has to be hashed, or a refusal that takes its time.
pub(super) struct Waiting {
    /// None: it is refused already.
    trial: Option<Trial>,
    place: Place,
}

impl Waiting {
    /// Hashes on another thread, when it is its turn.
    pub(super) async fn run(self) -> Verdict {
        let verdict = match self.trial {
            Some(trial) => {
                let Ok(_turn) = self.place.gate.hashing.acquire().await else { return Verdict::Busy };
                tokio::task::spawn_blocking(move || trial.judge()).await.unwrap_or(Verdict::Busy)
            }
            None => Verdict::Refused,
        };
        if verdict == Verdict::Refused {
            tokio::time::sleep(self.place.refuse(Instant::now())).await;
        }
        verdict
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
    Verdict::Token { username: claims.username.into(), until: Instant::now().checked_add(left) }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Those who wait, and what is remembered of where they come from.
#[derive(Default)]
struct Crowd {
    waiting: usize,
    addresses: HashMap<IpAddr, Address>,
}

#[derive(Default)]
struct Address {
    waiting: usize,
    refusals: u32,
    refused_at: Option<Instant>,
}

impl Address {
    fn is_forgiven(&self, now: Instant) -> bool {
        self.refused_at.is_none_or(|at| now.saturating_duration_since(at) > FORGIVEN_AFTER)
    }
}

/// A place among those who wait.
struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Place {
    fn take(gate: &Arc<Gate>, peer: IpAddr) -> Option<Place> {
        let address = neighbourhood(peer);
        let mut crowd = gate.crowd();
        let Crowd { waiting, addresses } = &mut *crowd;
        if *waiting >= WAITING_MAX {
            return None;
        }
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&address) {
            let now = Instant::now();
            addresses.retain(|_, one| one.waiting > 0 || !one.is_forgiven(now));
            if addresses.len() >= ADDRESSES_MAX {
                addresses.retain(|_, one| one.waiting > 0);
            }
        }
        let here = addresses.entry(address).or_default();
        if here.waiting >= WAITING_HERE_MAX {
            return None;
        }
        here.waiting += 1;
        *waiting += 1;
        Some(Place { gate: Arc::clone(gate), address })
    }

    /// Notes a refusal. The answer is how long it should take.
    fn refuse(&self, now: Instant) -> Duration {
        let mut crowd = self.gate.crowd();
        let here = crowd.addresses.entry(self.address).or_default();
        here.refusals = if here.is_forgiven(now) { 1 } else { here.refusals.saturating_add(1) };
        here.refused_at = Some(now);
        (DELAY_MIN * (1_u32 << (here.refusals - 1).min(10))).min(DELAY_MAX)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut crowd = self.gate.crowd();
        let Crowd { waiting, addresses } = &mut *crowd;
        *waiting -= 1;
        if let Some(here) = addresses.get_mut(&self.address) {
            here.waiting -= 1;
            if here.waiting == 0 && here.refused_at.is_none() {
                addresses.remove(&self.address);
            }
        }
    }
}

/// An address, or the network that one owner of IPv6 addresses has at least.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
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
            assert!(matches!(check(&slow, name, "x"), Check::Wait(Waiting { trial: Some(_), .. })), "{name}");
        }
        let of = |name: &str| slow.decoy(name).cloned();
        assert_eq!(of("cyd"), of("cyd"), "the same again: else two tries would tell");
        let both = (0..64).map(|n| of(&format!("user {n}"))).collect::<std::collections::HashSet<_>>();
        assert_eq!(both.len(), 2);

        let cheap = authenticator(&[("ann", "plain:x")]);
        assert!(matches!(check(&cheap, "ann", "x"), Check::Done(Verdict::Accepted)));
        for (name, password) in [("ann", "y"), ("cyd", "x"), ("", "")] {
            assert!(matches!(check(&cheap, name, password), Check::Wait(Waiting { trial: None, .. })));
        }
        assert!(matches!(check(&authenticator(&[]), "ann", "x"), Check::Wait(Waiting { trial: None, .. })));
    }

    #[test]
    fn those_who_wait_are_counted_by_address_and_together() {
        let gate = Arc::<Gate>::default();
        let fill =
            |n| (0..WAITING_HERE_MAX).map(|_| Place::take(&gate, peer(n)).expect("there is room")).collect();
        let mut all: Vec<Vec<Place>> = vec![fill(1)];
        assert!(Place::take(&gate, peer(1)).is_none(), "the address has its share");
        all.extend([fill(2), fill(3), fill(4)]);
        assert!(Place::take(&gate, peer(5)).is_none(), "all places are taken");
        all.clear();
        assert_eq!(gate.crowd().waiting, 0);
        assert_eq!(gate.crowd().addresses.len(), 0);
        assert!(Place::take(&gate, peer(1)).is_some());
    }

    #[test]
    fn refusals_take_longer_the_more_there_were() {
        let gate = Arc::<Gate>::default();
        let place = Place::take(&gate, peer(1)).expect("there is room");
        let start = Instant::now();
        let delays: Vec<u64> = (0..7).map(|_| place.refuse(start).as_millis() as u64).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3000, 3000]);
        let other = Place::take(&gate, peer(2)).expect("there is room");
        assert_eq!(other.refuse(start), DELAY_MIN, "others do not pay for it");
        assert_eq!(place.refuse(start + FORGIVEN_AFTER + DELAY_MIN), DELAY_MIN);
        drop((place, other));
        let later = Place::take(&gate, peer(1)).expect("there is room");
        assert_eq!(later.refuse(start + FORGIVEN_AFTER + DELAY_MIN * 2), DELAY_MIN * 2, "it is remembered");
    }

    #[test]
    fn addresses_are_remembered_within_bounds() {
        let gate = Arc::<Gate>::default();
        for n in 0..ADDRESSES_MAX as u32 + 100 {
            let place = Place::take(&gate, IpAddr::from(n.to_be_bytes())).expect("there is room");
            place.refuse(Instant::now());
        }
        assert!(gate.crowd().addresses.len() <= ADDRESSES_MAX);
        let of = |text: &str| neighbourhood(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_eq!(of("::ffff:10.0.0.1"), peer(1));
    }
}
