//! Who may connect: the users of the settings, asked on threads of their own.
//!
//! Hashing takes milliseconds, a shard serves thousands of messages in that time: at most [`HASHING_MAX`] passwords are
//! hashed at once and at most [`WAITING_MAX`] wait for it; beyond that a client hears that the server is busy.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::sync::Semaphore;

use super::core::{Proof, Verdict};
use super::passwords;
use crate::settings;

/// How many passwords are hashed at once.
const HASHING_MAX: usize = 2;
/// How many clients wait for that.
const WAITING_MAX: usize = 1_000;

/// The users of one version of the settings.
#[derive(Clone, Default)]
struct Users {
    is_anonymous_allowed: bool,
    secrets: HashMap<String, Arc<str>>,
}

/// Checks user names and passwords.
pub(super) struct Authenticator {
    users: Rc<Users>,
    hashing: Arc<Semaphore>,
    waiting: Rc<()>,
}

impl Authenticator {
    pub(super) fn new() -> Authenticator {
        Authenticator {
            users: Rc::default(),
            hashing: Arc::new(Semaphore::new(HASHING_MAX)),
            waiting: Rc::new(()),
        }
    }

    /// Takes over new users. The answer tells whom that bars: users who are gone or have another secret, and anonymous
    /// ones if those may no longer connect.
    pub(super) fn apply(
        &mut self,
        settings: &settings::Authentication,
    ) -> impl Fn(Proof, Option<&str>) -> bool + use<> {
        let secrets =
            settings.users.iter().map(|user| (user.name.clone(), user.secret.as_str().into())).collect();
        let new = Rc::new(Users { is_anonymous_allowed: settings.anonymous, secrets });
        let old = std::mem::replace(&mut self.users, Rc::clone(&new));
        move |proof, username| match (proof, username) {
            (Proof::Nothing, _) | (_, None) => !new.is_anonymous_allowed,
            (Proof::Certificate | Proof::Token, _) => false,
            (Proof::Password, Some(name)) => {
                new.secrets.get(name).is_none_or(|secret| old.secrets.get(name) != Some(secret))
            }
        }
    }

    /// Starts to check a user name and a password.
    pub(super) fn check(&self, username: &str, password: Bytes) -> Check {
        let known = self.users.secrets.get(username);
        // An unknown user costs as much time as a known one, so that the time does not tell who exists.
        let Some(secret) = known.or_else(|| self.users.secrets.values().next()) else {
            return Check::Done(Verdict::Refused);
        };
        if passwords::is_cheap(secret) {
            let is_right = passwords::verify(secret, &password) && known.is_some();
            return Check::Done(verdict(is_right));
        }
        if Rc::strong_count(&self.waiting) > WAITING_MAX {
            return Check::Done(Verdict::Busy);
        }
        Check::Hash(Hashing {
            secret: Arc::clone(secret),
            password,
            is_known: known.is_some(),
            hashing: Arc::clone(&self.hashing),
            _waiting: Rc::clone(&self.waiting),
        })
    }
}

/// An answer, or the work that leads to it.
pub(super) enum Check {
    Done(Verdict),
    Hash(Hashing),
}

/// A password that has to be hashed.
pub(super) struct Hashing {
    secret: Arc<str>,
    password: Bytes,
    is_known: bool,
    hashing: Arc<Semaphore>,
    /// Counts those that wait.
    _waiting: Rc<()>,
}

impl Hashing {
    /// Hashes on another thread, when it is its turn.
    pub(super) async fn run(self) -> Verdict {
        let Ok(_turn) = self.hashing.acquire().await else { return Verdict::Busy };
        let (secret, password) = (self.secret, self.password);
        let hashed = tokio::task::spawn_blocking(move || passwords::verify(&secret, &password)).await;
        verdict(hashed.unwrap_or(false) && self.is_known)
    }
}

fn verdict(is_right: bool) -> Verdict {
    if is_right { Verdict::Accepted } else { Verdict::Refused }
}
