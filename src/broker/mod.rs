//! The broker: a pure [`core`] that knows MQTT, and the sockets, timers and passwords around it.
//!
//! A node has one or several shards, a thread each: a `current_thread` runtime with a `LocalSet`. A shard's connections are
//! tasks there; they share its core through `Rc` and `RefCell`, without a lock. The [`Broker`] lives on the first, which
//! accepts all clients and hands them to the shard where their client id is at home. Links reach it through [`port`] and
//! nothing else, on the first shard; it knows nothing of how they speak, and nothing of Kubernetes.
//!
//! What holds: settings change without a restart, and a connection ends by that only if its user is barred; a listener
//! that is set up for TLS never serves in the clear; nobody gets in whom the settings do not name, unless they allow
//! anonymous clients.

pub mod core;
pub mod port;
mod scram;
mod passwords;
mod crowd;
mod tokens;
mod authentication;
mod tls;
mod memory;
mod files;
mod carrier;
mod seats;
mod turnstile;
mod proxy;
mod websocket;
mod entry;
mod wire;
mod shard;
mod kept;
mod socket;
mod handover;
mod siblings;
mod listeners;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZero;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use self::core::{Core, Counters, Fault, Levels, Place, Pressure, Redirect, SHARDS_MAX, ShardNumber};
use self::listeners::Listeners;
use self::shard::{Common, Shard};
use self::siblings::{Mesh, Siblings};
use crate::settings::inventory::ListenerFigures;
use crate::settings::report::ListenerReport;
use crate::settings::{Invalid, Problem, Settings};
use crate::store::{Found, Store};

/// How often the process's memory is looked at: as much as comes meanwhile must not be too much.
const LOOK: Duration = Duration::from_millis(100);
/// How often is looked, at the start, whether the interest of stored sessions is held everywhere.
const HELD_LOOK: Duration = Duration::from_millis(1);
/// How often timers are looked at while there are any: keep alive and expiry count in seconds.
const TICK: Duration = Duration::from_millis(100);
/// How many clients are sent away at a time when the broker drains, and the pause after that: 1,000 a second do not storm
/// whoever takes them in.
const DRAINED_AT_ONCE: usize = 100;
const DRAIN_PAUSE: Duration = Duration::from_millis(100);
/// For how many connections and sessions there is room from the beginning; more are moved to where there is more.
const ROOM_MAX: usize = 1 << 18;
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
    siblings: RefCell<Option<Siblings>>,
    /// How many connections the process has files for.
    files: usize,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.listeners.get_mut().close();
        self.shard.tasks.borrow().iter().for_each(AbortHandle::abort);
    }
}

/// How many shards a node gets: as many as the settings say, else one for each core that the process may use.
fn shard_count(settings: &Settings) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    settings.shards.map_or_else(cores, usize::from).clamp(1, SHARDS_MAX)
}

/// Makes a shard on this thread, with its tasks.
fn open_shard(settings: &Settings, mesh: Option<Mesh>, common: Common) -> Rc<Shard> {
    // Not a secret: it only keeps the client ids we assign apart from those of other starts.
    let seed = RandomState::new().hash_one(std::process::id());
    let place = mesh.as_ref().map_or(Place::ALONE, |mesh| mesh.place);
    let limits = settings.limits;
    let mut core = Core::one_of(place, limits, settings.authentication.anonymous, seed, Instant::now());
    let share = |all: usize| all.min(ROOM_MAX).div_ceil(place.count()) * 9 / 8; // they are not quite even
    core.expect_clients(share(limits.connections_max), share(limits.sessions_max));
    let shard = Rc::new(Shard::new(core, mesh, common));
    let flusher = Rc::clone(&shard);
    *shard.tasks.borrow_mut() = vec![
        shard.spawn(poll_fn(move |cx| flusher.poll_flush(cx))),
        shard.spawn(keep_time(Rc::clone(&shard))),
        shard.spawn(heed_memory(Rc::clone(&shard))),
        shard.spawn(Rc::clone(&shard).take_turns()),
    ];
    shard.apply(settings);
    shard
}

impl Broker {
    /// Starts a broker with these settings, and with as many shards as they say; that number stays.
    ///
    /// # Panics
    /// Outside of a `LocalSet`.
    pub fn start(settings: &Settings) -> Broker {
        memory::take_small_pages();
        let common = Common::default();
        let (mesh, siblings) = siblings::start(shard_count(settings), settings, &common)
            .unwrap_or_else(|error| {
                tracing::error!(%error, "failed to start further shards; the node runs with one");
                None
            })
            .unzip();
        let shard = open_shard(settings, mesh, common);
        let watcher = shard.spawn(watch_memory(Rc::clone(&shard)));
        shard.tasks.borrow_mut().push(watcher);
        let inner = Inner {
            shard,
            listeners: RefCell::default(),
            drains: Cell::new(false),
            siblings: RefCell::new(siblings),
            files: files::allow(),
        };
        let broker = Broker { inner: Rc::new(inner) };
        broker.apply_settings(settings);
        broker
    }

    /// Takes over new settings: listeners, users and limits. Connections whose user is barred end.
    pub fn apply_settings(&self, settings: &Settings) {
        let shard = &self.inner.shard;
        let connections_max = settings.limits.connections_max.min(self.inner.files);
        shard.seats.set_max(connections_max);
        files::make_room(connections_max);
        shard.apply(settings);
        if let Some(mesh) = &shard.mesh {
            mesh.apply(settings);
        }
        if self.inner.drains.get() {
            return;
        }
        self.inner.listeners.borrow_mut().apply(shard, &settings.bind, &settings.listeners);
    }

    /// Keeps sessions and retained messages in a store from now on, and takes back what was found there. To be called before
    /// anybody can have connected: in the same breath as [`Broker::start`]. With several shards, clients wait until all
    /// know what all want.
    pub fn use_store(&self, store: &mut Store, found: Found) {
        for one in &found.strange {
            tracing::error!(key = one, "the store holds something that is none of ours; it is left alone");
        }
        let Some(mesh) = &self.inner.shard.mesh else {
            return kept::begin(&self.inner.shard, kept::Kept::join(store, found.stored));
        };
        mesh.hold_clients();
        let parts = kept::split(found.stored, mesh.place);
        for (shard, stored) in parts.into_iter().enumerate() {
            let kept = kept::Kept::join(store, stored);
            if shard == usize::from(mesh.place.number()) {
                kept::begin(&self.inner.shard, kept);
                self.inner.shard.spawn(let_clients_in(Rc::clone(&self.inner.shard)));
            } else {
                mesh.restore(shard, kept);
            }
        }
    }

    /// Runs a task of the links on the broker's thread. A panic in it ends the node, as one in the broker's own tasks does: see
    /// [`Broker::shard_lost`].
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> AbortHandle {
        self.inner.shard.spawn(task)
    }

    /// Lets `f` at the core, for what [`port`] offers, and does what the core then asks for.
    pub fn with_core<T>(&self, f: impl FnOnce(&mut Core) -> T) -> T {
        self.inner.shard.with_core(f)
    }

    /// Waits until all shards have taken back what was stored and know what all want: before that, a message could miss
    /// somebody.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ready(&self) {
        self.inner.shard.ready().await;
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

    /// What was counted so far, by other shards when they were last [asked](Broker::refresh).
    pub fn counters(&self) -> Counters {
        let own = self.inner.shard.core.borrow().counters();
        self.noted().fold(own, |sum, (counters, _)| sum + counters)
    }

    /// What it counted at its doors so far.
    pub fn door_figures(&self) -> (Vec<ListenerFigures>, usize) {
        let waiting = self.inner.shard.authenticator.borrow().waiting();
        (self.inner.listeners.borrow().figures(), waiting)
    }

    /// How much it holds now, other shards as of when they were last [asked](Broker::refresh).
    pub fn levels(&self) -> Levels {
        let own = self.inner.shard.core.borrow().levels();
        self.noted().fold(own, |sum, (_, levels)| sum + levels)
    }

    fn noted(&self) -> impl Iterator<Item = (Counters, Levels)> {
        self.inner.shard.mesh.iter().flat_map(Mesh::noted)
    }

    /// Asks all shards what they counted and hold.
    pub async fn refresh(&self) {
        let Some(mesh) = &self.inner.shard.mesh else { return };
        mesh.on_others(|shard| {
            let core = shard.core.borrow();
            shard.mesh.iter().for_each(|mesh| mesh.note((core.counters(), core.levels())));
        })
        .await;
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.inner.shard.mesh.as_ref().map_or(1, |mesh| mesh.place.count())
    }

    /// Lets `f` at the core of each shard, in order, and waits until all are done.
    pub async fn with_each_core<T: Send + 'static>(
        &self,
        f: impl Fn(&mut Core) -> T + Send + Clone + 'static,
    ) -> Vec<T> {
        let mut answers = vec![self.with_core(&f)];
        if let Some(mesh) = &self.inner.shard.mesh {
            answers.extend(mesh.on_others(move |shard| shard.with_core(&f)).await);
        }
        answers
    }

    /// The shard where a client id is at home.
    pub fn home_of(&self, client_id: &str) -> ShardNumber {
        self.inner.shard.mesh.as_ref().map_or(0, |mesh| mesh.place.home_of(client_id))
    }

    /// Lets `f` at the core of one shard; `None` if that is gone.
    pub async fn with_core_of<T: Send + 'static>(
        &self,
        shard: ShardNumber,
        f: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Option<T> {
        match &self.inner.shard.mesh {
            Some(mesh) if shard != mesh.place.number() => {
                mesh.on_one(shard, move |other| other.with_core(f)).await
            }
            _ => Some(self.with_core(f)),
        }
    }

    /// Resolves when a shard has ended by itself, which none ever should.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn shard_lost(&self) {
        let ended = |cx: &mut Context| match &mut *self.inner.siblings.borrow_mut() {
            Some(siblings) => siblings.poll_one_ended(cx),
            None => Poll::Pending,
        };
        tokio::select! {
            () = self.inner.shard.lost.notified() => {}
            () = poll_fn(ended) => {}
        }
    }

    /// How much memory the process may hold before load is shed, in bytes; 0 if nothing says.
    pub fn memory_mark(&self) -> usize {
        self.inner.shard.memory_mark.get()
    }

    /// Takes no more clients, until the end of the process, and sends those that are here to another server, some at a time.
    pub fn drain(&self, server: Option<String>, is_permanent: bool) {
        self.inner.drains.set(true);
        self.inner.listeners.borrow_mut().close();
        let redirect = Redirect { server, is_permanent };
        drain_shard(&self.inner.shard, redirect.clone());
        if let Some(mesh) = &self.inner.shard.mesh {
            mesh.tell_others(move |shard| drain_shard(shard, redirect.clone()));
        }
    }

    /// Closes the listeners, tells the clients, and waits until they know, though not for long.
    pub async fn shutdown(&self) {
        self.inner.listeners.borrow_mut().close();
        let all_gone = async {
            self.with_each_core(|core| core.close_all(Fault::ServerShuttingDown, Instant::now())).await;
            self.refresh().await;
            while self.levels().connections > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                self.refresh().await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL_MAX, all_gone).await;
    }
}

/// Checks the certificates of all listeners. A running node keeps what it served where new ones are of no use, and reports it;
/// who only checks wants to know.
///
/// # Errors
/// Every listener whose certificate, key or client CAs are of no use.
pub fn check_certificates(settings: &Settings) -> Result<(), Invalid> {
    let listeners = settings.listeners.iter().enumerate();
    let problems = listeners.filter_map(|(index, listener)| {
        let error = tls::acceptor(listener.tls.as_ref()?).err()?;
        let message = format!("is of no use: {error}; give a chain and its own private key, both PEM");
        Some(Problem { path: format!("listeners[{index}].tls"), message })
    });
    let problems: Vec<_> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(Invalid(problems)) }
}

/// Lets clients in as far as this shard goes: when all others hold the interest of what it took back.
async fn let_clients_in(shard: Rc<Shard>) {
    while !shard.core.borrow().is_held() {
        tokio::time::sleep(HELD_LOOK).await;
    }
    shard.mesh.iter().for_each(Mesh::let_clients_in);
}

fn drain_shard(shard: &Rc<Shard>, redirect: Redirect) {
    shard.with_core(|core| core.set_redirect(Some(redirect)));
    let at_once = DRAINED_AT_ONCE.div_ceil(shard.mesh.as_ref().map_or(1, |mesh| mesh.place.count()));
    let own = Rc::clone(shard);
    shard.spawn(async move {
        while own.with_core(|core| core.drain(at_once, Instant::now())) > 0 {
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
    });
}

/// Says how short memory is, to all shards at once, and waits for none.
async fn watch_memory(shard: Rc<Shard>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(used) = memory::resident_bytes() else { continue };
        let (mark, before) = (shard.memory_mark.get(), *shard.pressure.borrow());
        let now = Pressure::of(used, mark, before);
        if now != before {
            tracing::warn!(used, mark, step = ?now, ?before, "memory: load shedding");
            shard.pressure.send_replace(now);
        }
    }
}

/// Sheds load as one of the shards says.
async fn heed_memory(shard: Rc<Shard>) {
    let mut pressure = shard.pressure.subscribe();
    loop {
        let now = *pressure.borrow_and_update();
        shard.set_pressure(now);
        if pressure.changed().await.is_err() {
            return;
        }
    }
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
        shard.ready().await; // a will that is due must miss nobody
        let now = Instant::now();
        shard.with_core(|core| {
            core.set_clock(now, kept::wall_ms());
            core.handle_timeout(now);
        });
    }
}
