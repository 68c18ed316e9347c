//! The broker: a pure [`core`] that knows MQTT, and the sockets, timers and passwords around it.
//!
//! A [`Broker`] lives on one thread: a `current_thread` runtime with a `LocalSet`. Its connections are tasks there; they
//! share the core through `Rc` and `RefCell`, without a lock. Links reach it through [`port`] and nothing else; it knows
//! nothing of how they speak, and nothing of Kubernetes.
//!
//! What holds: settings change without a restart, and a connection ends by that only if its user is barred; a listener
//! that is set up for TLS never serves in the clear; nobody gets in whom the settings do not name, unless they allow
//! anonymous clients.

pub mod core;
pub mod port;
mod scram;
mod passwords;
mod tokens;
mod authentication;
mod tls;
mod proxy;
mod websocket;
mod entry;
mod wire;
mod shard;
mod kept;
mod socket;
mod listeners;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use self::core::{Core, Counters, Fault, Levels, Redirect};
use self::listeners::Listeners;
use self::shard::Shard;
use crate::settings::report::ListenerReport;
use crate::settings::{Invalid, Problem, Settings};
use crate::store::{Found, Store};

/// How often timers are looked at while there are any: keep alive and expiry count in seconds.
const TICK: Duration = Duration::from_millis(100);
/// How many clients are sent away at a time when the broker drains, and the pause after that: 1,000 a second do not storm
/// whoever takes them in.
const DRAINED_AT_ONCE: usize = 100;
const DRAIN_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to hear that the broker stops.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// A handle to the broker of this thread. Clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    inner: Rc<Inner>,
}

struct Inner {
    shard: Rc<Shard>,
    listeners: RefCell<Listeners>,
    /// Listeners stay closed.
    drains: Cell<bool>,
    tasks: [AbortHandle; 2],
    store: RefCell<Option<AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.listeners.get_mut().close();
        self.tasks.iter().chain(self.store.get_mut().iter()).for_each(AbortHandle::abort);
    }
}

impl Broker {
    /// Starts a broker with these settings.
    ///
    /// # Panics
    /// Outside of a `LocalSet`.
    pub fn start(settings: &Settings) -> Broker {
        // Not a secret: it only keeps the client ids we assign apart from those of other starts.
        let seed = RandomState::new().hash_one(std::process::id());
        let core = Core::new(settings.limits, settings.authentication.anonymous, seed, Instant::now());
        let shard = Rc::new(Shard::new(core));
        let flusher = Rc::clone(&shard);
        let tasks = [
            tokio::task::spawn_local(poll_fn(move |cx| flusher.poll_flush(cx))).abort_handle(),
            tokio::task::spawn_local(keep_time(Rc::clone(&shard))).abort_handle(),
        ];
        let broker = Broker {
            inner: Rc::new(Inner {
                shard,
                listeners: RefCell::default(),
                drains: Cell::new(false),
                tasks,
                store: RefCell::default(),
            }),
        };
        broker.apply_settings(settings);
        broker
    }

    /// Takes over new settings: listeners, users and limits. Connections whose user is barred end.
    pub fn apply_settings(&self, settings: &Settings) {
        let shard = &self.inner.shard;
        shard.connections_max.set(settings.limits.connections_max);
        shard.connect_timeout_s.set(settings.limits.connect_timeout_s);
        let is_barred = shard.authenticator.borrow_mut().apply(&settings.authentication);
        shard.with_core(|core| {
            core.set_policy(settings.limits, settings.authentication.anonymous);
            let takes_tokens = settings.authentication.jwt.is_some();
            core.set_access(settings.authorization.as_ref(), takes_tokens, Instant::now());
            core.close_where(is_barred, Fault::NotAuthorized, Instant::now());
        });
        if self.inner.drains.get() {
            return;
        }
        self.inner.listeners.borrow_mut().apply(shard, &settings.bind, &settings.listeners);
    }

    /// Keeps sessions and retained messages in a store from now on, and takes back what was found there. To be called before
    /// anybody can have connected: in the same breath as [`Broker::start`].
    pub fn use_store(&self, store: &mut Store, found: Found) {
        let follower = kept::begin(&self.inner.shard, store, found);
        if let Some(before) = self.inner.store.borrow_mut().replace(follower) {
            before.abort();
        }
    }

    /// Lets `f` at the core, for what [`port`] offers, and does what the core then asks for.
    pub fn with_core<T>(&self, f: impl FnOnce(&mut Core) -> T) -> T {
        self.inner.shard.with_core(f)
    }

    /// Waits until there are events for the links, to be taken by [`Core::poll_port_event`] until there are no more.
    ///
    /// # Cancel safety
    /// Cancel safe: a wake-up that was missed is there for the next call. One waiter at a time.
    pub async fn port_events(&self) {
        self.inner.shard.port_ready.notified().await;
    }

    /// The listeners and how they are.
    pub fn listeners(&self) -> Vec<ListenerReport> {
        self.inner.listeners.borrow().reports()
    }

    /// Waits until a listener that could not bind has bound.
    ///
    /// # Cancel safety
    /// Cancel safe: a change that was missed is there for the next call. One waiter at a time.
    pub async fn listener_bound(&self) {
        self.inner.shard.listener_bound.notified().await;
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.inner.shard.core.borrow().counters()
    }

    /// How much it holds now.
    pub fn levels(&self) -> Levels {
        self.inner.shard.core.borrow().levels()
    }

    /// Takes no more clients, until the end of the process, and sends those that are here to another server, some at a time.
    pub fn drain(&self, server: Option<String>) {
        self.inner.drains.set(true);
        self.inner.listeners.borrow_mut().close();
        let redirect = Redirect { server, is_permanent: false };
        self.with_core(|core| core.set_redirect(Some(redirect)));
        let shard = Rc::clone(&self.inner.shard);
        tokio::task::spawn_local(async move {
            while shard.with_core(|core| core.drain(DRAINED_AT_ONCE, Instant::now())) > 0 {
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
        });
    }

    /// Closes the listeners, tells the clients, and waits until they know, though not for long.
    pub async fn shutdown(&self) {
        self.inner.listeners.borrow_mut().close();
        self.with_core(|core| core.close_all(Fault::ServerShuttingDown, Instant::now()));
        let all_gone = async {
            while self.levels().connections > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL_MAX, all_gone).await;
    }
}

/// Checks what only a broker can tell of settings: whether the keys of tokens are of use.
///
/// # Errors
/// What is wrong with them, and where.
pub fn check(settings: &Settings) -> Result<(), Invalid> {
    let Some(Err(error)) = settings.authentication.jwt.as_ref().map(tokens::Tokens::new) else {
        return Ok(());
    };
    let (path, message) = ("authentication.jwt.jwks".to_owned(), error.to_string());
    Err(Invalid(vec![Problem { path, message }]))
}

/// Tells the core the time while it has timers.
async fn keep_time(shard: Rc<Shard>) {
    loop {
        let has_timers = shard.core.borrow().has_timers();
        shard.keeps_time.set(has_timers);
        if has_timers {
            tokio::time::sleep(TICK).await;
        } else {
            shard.timer_set.notified().await;
        }
        let now = Instant::now();
        shard.with_core(|core| {
            core.set_clock(now, kept::wall_ms());
            core.handle_timeout(now);
        });
    }
}
