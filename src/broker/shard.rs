//! The thread's shared state: the core, and what stands between it and the sockets.
//!
//! Everything here lives on one thread. A borrow of the core never outlives a call, and never crosses an `await`.
//! After each event, [`Shard::settle`] does what the core asks for, and wakes the flusher if there is something to send:
//! bytes leave once per tick, after all connections that are ready were heard.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use hashbrown::HashMap;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::authentication::{Authenticator, Check, Gate};
use super::core::{Answer, ConnectionId, Core, Desk, Effect, Fault, PIECE_FULL, Pressure, Room, Verdict};
use super::memory;
use super::seats::Seats;
use super::siblings::Mesh;
use super::socket::PIECE;
use super::turnstile::{LOAD, STEP, TAKE, Ticket, Turnstile};
use super::wire::Wire;
use crate::settings::{Action, Limits, Settings};
use crate::store::{Batch, Client, Token};

/// How many bytes a connection may bring before the next one is heard: what counts is messages per system call, and that what
/// they make to send for one other goes out in one as well, as a piece of its buffer; …
pub(super) const READ_BUDGET: usize = 60 * 1024;
/// … but when many bring much, each waits for all others: beyond so many bytes in a tick …
const TICK_BUDGET: usize = 256 * 1024;
/// … a connection may bring no more than this.
const READ_BUDGET_MIN: usize = 8 * 1024;
/// How much more than that a connection may make the shard do before the next one is heard, one message or row excepted: what goes
/// to many waits.
const WORK_PER_BYTE: usize = 16;
/// How many pieces may be taken in a turn besides the usual ones, however much was made: 4 MiB.
const MORE_PIECES_MAX: u64 = 64;
const _: () = assert!(READ_BUDGET <= PIECE_FULL);
/// The buffer that all connections read into.
pub(super) const READ_BUFFER: usize = 2 * READ_BUDGET;

/// Has a task run again, but not before the sockets were looked at: who is ready by then comes first.
pub(super) fn run_again(cx: &mut Context) {
    let _ = pin!(tokio::task::yield_now()).poll(cx); // it wakes the task though nobody polls it again
}

/// What all shards of a node share.
#[derive(Clone, Default)]
pub(super) struct Common {
    pub(super) seats: Arc<Seats>,
    pub(super) gate: Arc<Gate>,
    pub(super) room: Arc<Room>,
    pub(super) pressure: Arc<watch::Sender<Pressure>>,
}

/// One shard: a core, its connections, its store.
pub(super) struct Shard {
    pub(super) core: RefCell<Core>,
    pub(super) wires: RefCell<HashMap<ConnectionId, Rc<Wire>, foldhash::fast::RandomState>>,
    pub(super) authenticator: RefCell<Authenticator>,
    pub(super) buffer: RefCell<Box<[u8]>>,
    /// Somebody set the first timer.
    pub(super) timer_set: Notify,
    /// Timers are being looked at.
    pub(super) keeps_time: Cell<bool>,
    /// There is something for the links.
    pub(super) port_ready: Notify,
    /// A listener that could not bind has bound.
    pub(super) listener_bound: Notify,
    /// A task panicked.
    pub(super) lost: Notify,
    /// Where what must survive goes; none: nothing outlives the process.
    pub(super) store: RefCell<Option<Client>>,
    /// How many bytes came in this tick, and how many more they made of that for others.
    tick_bytes: Cell<usize>,
    /// What those who come and go wait at.
    turnstile: Turnstile,
    /// What those wait at who bring much.
    loads: Turnstile,
    /// What those wait at who take much.
    takes: Turnstile,
    /// Somebody waits at one of them, or the core has something that takes long.
    crowd: Notify,
    flusher: RefCell<Option<Waker>>,
    dirty: RefCell<Vec<ConnectionId>>,
    /// The other shards, if there are any.
    pub(super) mesh: Option<Mesh>,
    desk: RefCell<Desk>,
    /// Others have too much mail already; they ring when they took it.
    must_wait: Cell<bool>,
    pub(super) seats: Arc<Seats>,
    pub(super) connect_timeout_s: Cell<u16>,
    /// Above how many bytes of memory the process takes nothing in.
    pub(super) memory_mark: Cell<usize>,
    /// How short memory is.
    pub(super) pressure: Arc<watch::Sender<Pressure>>,
    /// The flusher, the keeper of time and others that run as long as the shard.
    pub(super) tasks: RefCell<Vec<AbortHandle>>,
}

impl Shard {
    pub(super) fn new(mut core: Core, mesh: Option<Mesh>, common: Common) -> Shard {
        let Common { seats, gate, room, pressure } = common;
        core.share_room(room);
        Shard {
            core: RefCell::new(core),
            wires: RefCell::default(),
            authenticator: RefCell::new(Authenticator::new(gate)),
            buffer: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
            timer_set: Notify::new(),
            keeps_time: Cell::new(false),
            port_ready: Notify::new(),
            listener_bound: Notify::new(),
            lost: Notify::new(),
            store: RefCell::new(None),
            tick_bytes: Cell::new(0),
            turnstile: Turnstile::new(),
            loads: Turnstile::new(),
            takes: Turnstile::new(),
            crowd: Notify::new(),
            flusher: RefCell::new(None),
            dirty: RefCell::default(),
            mesh,
            desk: RefCell::default(),
            must_wait: Cell::new(false),
            seats,
            connect_timeout_s: Cell::new(0),
            memory_mark: Cell::new(0),
            pressure,
            tasks: RefCell::default(),
        }
    }

    /// Runs a task beside the others of this thread. A panic in one is the end of the shard: nobody knows what it left half
    /// done, and a shard without its flusher would look well and serve nobody.
    pub(super) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) -> AbortHandle {
        let shard = Rc::clone(self);
        // No async block: it would hold the task twice, before and after it begins, for as long as that lasts.
        let task = AssertUnwindSafe(task).catch_unwind().map(move |result| {
            if result.is_err() {
                let number = shard.core.try_borrow().map_or(0, |core| core.place().number());
                tracing::error!(shard = number, "a task of a shard panicked, and the shard ends");
                shard.lost.notify_one();
            }
        });
        tokio::task::spawn_local(task).abort_handle()
    }

    /// Takes over new settings: users and limits. Connections whose user is barred end.
    pub(super) fn apply(self: &Rc<Self>, settings: &Settings) {
        let limits = Limits { memory_bytes_max: memory::mark(&settings.limits), ..settings.limits };
        self.connect_timeout_s.set(limits.connect_timeout_s);
        self.memory_mark.set(limits.memory_bytes_max);
        let is_barred = self.authenticator.borrow_mut().apply(&settings.authentication);
        self.with_core(|core| {
            core.set_policy(limits, settings.authentication.anonymous);
            core.set_access(settings.authorization.as_ref(), settings.authentication.jwt.is_some());
            if let Some(is_barred) = is_barred {
                core.close_where(is_barred, Fault::NotAuthorized, Instant::now());
            }
        });
    }

    /// Waits until every shard knows what all want.
    pub(super) async fn ready(&self) {
        if let Some(mesh) = &self.mesh {
            mesh.clients_may_come().await;
        }
    }

    /// How many bytes the next connection may bring.
    pub(super) fn read_budget(&self) -> usize {
        if self.tick_bytes.get() < TICK_BUDGET { READ_BUDGET } else { READ_BUDGET_MIN }
    }

    /// How many bytes of work that may make.
    pub(super) fn work_budget(&self) -> u64 {
        (self.read_budget() * WORK_PER_BYTE) as u64
    }

    /// Notes that a connection brought so many bytes, or others so many more to send.
    pub(super) fn count_work(&self, bytes: usize) {
        let before = self.tick_bytes.replace(self.tick_bytes.get().saturating_add(bytes));
        if before < TICK_BUDGET && self.tick_bytes.get() >= TICK_BUDGET {
            self.wake_flusher(); // the tick ends though nothing may be to be sent
        }
    }

    /// Memory is as short as this now. Large packets that are not whole end at once: their clients may never send the rest.
    pub(super) fn set_pressure(self: &Rc<Self>, pressure: Pressure) {
        self.with_core(|core| {
            core.set_pressure(pressure);
            // What lies here of one that is not read may be whole packets: that is looked at when it is.
            let has_part = |(_, wire): &(_, &Rc<Wire>)| wire.has_part.get() && !wire.is_paused.get();
            let parts = self.wires.borrow();
            parts.iter().filter(has_part).for_each(|(&id, _)| core.handle_part(id, Instant::now()));
        });
    }

    /// Ready when a step of someone who comes or goes fits into this turn.
    pub(super) fn poll_pass(&self, ticket: &mut Ticket, cost: u32, cx: &Context) -> Poll<()> {
        let passed = self.turnstile.poll_pass(ticket, cost, cx);
        self.note_crowd(passed)
    }

    /// Ready when a step of someone who brings much fits into this turn: they do not wait for those who come and go.
    pub(super) fn poll_load(&self, ticket: &mut Ticket, cx: &Context) -> Poll<()> {
        let passed = self.loads.poll_pass(ticket, LOAD, cx);
        self.note_crowd(passed)
    }

    /// Ready when a piece for someone who takes much fits into this turn: they wait for none of the others.
    pub(super) fn poll_take(&self, ticket: &mut Ticket, cx: &Context) -> Poll<()> {
        let passed = self.takes.poll_pass(ticket, TAKE, cx);
        self.note_crowd(passed)
    }

    fn note_crowd(&self, passed: Poll<()>) -> Poll<()> {
        if passed.is_pending() {
            self.crowd.notify_one();
        }
        passed
    }

    /// Begins a turn for those who wait after each look at the sockets: who is here has been heard by then. As much as was made
    /// in the last one may be taken in addition, within [`MORE_PIECES_MAX`], or who was behind once would stay so while others
    /// make more. (What a queue has for whom a piece was taken from counts as made as well.) What takes long goes on by a part.
    pub(super) async fn take_turns(self: Rc<Self>) {
        let lines = [&self.turnstile, &self.loads, &self.takes];
        loop {
            self.crowd.notified().await;
            while lines.iter().any(|line| line.has_crowd()) || self.has_work() {
                let before = self.core.borrow().appended();
                tokio::task::yield_now().await; // until the sockets were looked at
                let pieces = (self.core.borrow().appended() - before).div_ceil(PIECE as u64);
                self.turnstile.turn(0);
                self.loads.turn(0);
                self.takes.turn(TAKE * pieces.min(MORE_PIECES_MAX) as u32);
                if self.has_work() {
                    self.with_core(|core| core.handle_work(Instant::now()));
                    self.wake_flusher(); // there may be more mail to take
                }
            }
        }
    }

    fn has_work(&self) -> bool {
        self.core.borrow().has_work()
    }

    /// Has what takes long go on in the turns to come.
    pub(super) fn note_work(&self, core: &Core) {
        if core.has_work() {
            self.crowd.notify_one();
        }
    }

    /// Waits until a step of someone who comes or goes fits into a turn.
    pub(super) async fn pass(&self) {
        let mut ticket = Ticket::default();
        poll_fn(|cx| self.poll_pass(&mut ticket, STEP, cx)).await;
    }

    /// Lets `f` at the core, and does what the core then asks for.
    pub(super) fn with_core<T>(self: &Rc<Self>, f: impl FnOnce(&mut Core) -> T) -> T {
        let result = f(&mut self.core.borrow_mut());
        self.settle();
        result
    }

    /// Does what the core asks for.
    pub(super) fn settle(self: &Rc<Self>) {
        loop {
            let effect = self.core.borrow_mut().poll_effect();
            match effect {
                None => break,
                Some(Effect::Persist(token, batch)) => self.persist(token, batch),
                Some(Effect::Resume) => self.resume(),
                Some(Effect::Read { connection }) => {
                    if let Some(wire) = self.wires.borrow().get(&connection) {
                        wire.wake();
                    }
                }
                Some(Effect::Close { connection, fault }) => self.close(connection, fault),
                Some(Effect::Denied { connection, deed, at }) => self.tell_denied(connection, deed, &at),
                Some(Effect::Exchange { connection, method, context, data }) => {
                    let answer = self.authenticator.borrow().exchange(&method, &context, &data);
                    self.answer(connection, answer);
                }
                Some(Effect::Authenticate { connection, username, password }) => {
                    self.authenticate(connection, &username, password);
                }
            }
        }
        let core = self.core.borrow();
        let has_mail = core.has_mail() && !self.must_wait.get();
        if core.has_dirty() || has_mail {
            self.wake_flusher();
        }
        self.note_work(&core);
        if core.has_timers() && !self.keeps_time.get() {
            self.keeps_time.set(true);
            self.timer_set.notify_one();
        }
        if core.has_port_events() {
            self.port_ready.notify_one();
        }
    }

    /// Exchanges mail with other shards and writes what all dirty connections have to send. Runs once per tick, as a task
    /// of its own.
    pub(super) fn poll_flush(self: &Rc<Self>, cx: &mut Context) -> Poll<()> {
        *self.flusher.borrow_mut() = Some(cx.waker().clone());
        let now = Instant::now();
        self.tick_bytes.set(0);
        self.exchange(cx, now);
        self.write_dirty(now);
        // What was said just now is confirmed at once.
        self.exchange(cx, now);
        let core = self.core.borrow();
        self.note_work(&core);
        if core.has_dirty() {
            run_again(cx);
        }
        Poll::Pending
    }

    fn write_dirty(&self, now: Instant) {
        let mut dirty = self.dirty.borrow_mut();
        self.core.borrow_mut().take_dirty(&mut dirty);
        let wires = self.wires.borrow();
        for &id in &*dirty {
            if let Some(wire) = wires.get(&id) {
                self.flush(id, wire, now);
            }
        }
    }

    fn exchange(self: &Rc<Self>, cx: &Context, now: Instant) {
        let Some(mesh) = &self.mesh else { return };
        mesh.listen(cx); // before looking
        if !mesh.has_mail() && !self.core.borrow().has_mail() {
            return;
        }
        let mut desk = self.desk.borrow_mut();
        let done = self.core.borrow_mut().exchange(&mesh.office, &mut desk);
        self.must_wait.set(done.must_wait);
        mesh.ring(done.wake);
        self.core.borrow_mut().handle_mail(&mut desk, now);
        self.settle();
    }

    /// Goes on with connections that were not read because other shards were behind.
    fn resume(&self) {
        let wires = self.wires.borrow();
        wires.values().filter(|wire| wire.is_paused.get()).for_each(|wire| wire.wake());
    }

    fn flush(&self, id: ConnectionId, wire: &Wire, now: Instant) {
        let Some(plain) = wire.plain.as_ref().filter(|_| !wire.must_write.get()) else {
            wire.must_write.set(true);
            return wire.wake();
        };
        let mut core = self.core.borrow_mut();
        let mut waiting = core.waiting(id);
        if waiting == 0 {
            return; // its task was faster, and may have said goodbye: to write nothing would be an error now
        }
        // No more than there was: what was sent may bring more, which is for the next tick.
        while waiting > 0 {
            let piece = core.outgoing(id);
            let length = piece.len();
            match plain.try_write(piece) {
                Ok(count) => {
                    core.handle_written(id, count, now);
                    waiting = waiting.saturating_sub(count);
                    if wire.is_paused.get() {
                        wire.wake();
                    }
                    if count < length {
                        break;
                    }
                }
                Err(error) => {
                    wire.is_broken.set(error.kind() != ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        if waiting == 0 && !wire.is_closing.get() {
            return;
        }
        wire.must_write.set(true);
        wire.wake();
    }

    fn wake_flusher(&self) {
        if let Some(waker) = &*self.flusher.borrow() {
            waker.wake_by_ref();
        }
    }

    fn persist(&self, token: Token, batch: Batch) {
        if let Some(store) = &*self.store.borrow() {
            store.persist(token, batch); // it reports the token
        }
    }

    fn close(&self, id: ConnectionId, fault: Fault) {
        if let Some(wire) = self.wires.borrow().get(&id) {
            let core = self.core.borrow();
            let (client, user) = (core.client_id_of(id), core.user_of(id));
            tracing::debug!(client, user, peer = %wire.peer, reason = %fault, "a connection ends");
            wire.is_closing.set(true);
            wire.lingers
                .set(matches!(fault, Fault::Violation(_) | Fault::QuotaExceeded | Fault::MemoryShort));
            wire.must_write.set(true);
            wire.wake();
        }
    }

    fn tell_denied(&self, id: ConnectionId, deed: Action, at: &str) {
        if let Some(wire) = self.wires.borrow().get(&id) {
            let core = self.core.borrow();
            let (client, user) = (core.client_of(id), core.user_of(id));
            tracing::debug!(client, user, peer = %wire.peer, ?deed, at, "not authorized");
        }
    }

    /// Tells the log who came in, once.
    pub(super) fn name(&self, id: ConnectionId, wire: &Wire) {
        let core = self.core.borrow();
        let Some(client) = core.client_of(id) else { return };
        wire.is_named.set(true);
        tracing::debug!(client, user = core.user_of(id), peer = %wire.peer, "a client is in");
    }

    fn authenticate(self: &Rc<Self>, id: ConnectionId, username: &Arc<str>, password: Bytes) {
        // Who is not here any more needs no answer.
        let Some(peer) = self.peer_of(id) else { return };
        let check = self.authenticator.borrow().check(username, password, peer);
        let shard = Rc::clone(self);
        match check {
            Check::Done(Verdict::Refused) => {
                self.spawn(async move { shard.refuse(id, peer).await });
            }
            Check::Done(verdict) => self.core.borrow_mut().handle_verdict(id, verdict, Instant::now()),
            Check::Wait(waiting) => {
                self.spawn(async move {
                    match waiting.run(|| shard.peer_of(id).is_some()).await {
                        Verdict::Refused => shard.refuse(id, peer).await,
                        verdict => shard.with_core(|core| core.handle_verdict(id, verdict, Instant::now())),
                    }
                });
            }
        }
    }

    /// Brings an authentication method's answer; a refusal takes its time.
    fn answer(self: &Rc<Self>, id: ConnectionId, answer: Answer) {
        match (&answer, self.peer_of(id)) {
            (Answer::Refused, Some(peer)) => {
                let shard = Rc::clone(self);
                self.spawn(async move {
                    tokio::time::sleep(shard.delay(peer)).await;
                    shard.with_core(|core| core.handle_exchange(id, answer, Instant::now()));
                });
            }
            _ => self.core.borrow_mut().handle_exchange(id, answer, Instant::now()),
        }
    }

    async fn refuse(self: Rc<Self>, id: ConnectionId, peer: IpAddr) {
        tokio::time::sleep(self.delay(peer)).await;
        self.with_core(|core| core.handle_verdict(id, Verdict::Refused, Instant::now()));
    }

    fn delay(&self, peer: IpAddr) -> Duration {
        self.authenticator.borrow().refuse(peer)
    }

    fn peer_of(&self, id: ConnectionId) -> Option<IpAddr> {
        self.wires.borrow().get(&id).map(|wire| wire.peer.ip())
    }
}
