//! The thread's shared state: the core, and what stands between it and the sockets.
//!
//! Everything here lives on one thread. A borrow of the core never outlives a call, and never crosses an `await`.
//! After each event, [`Shard::settle`] does what the core asks for, and wakes the flusher if there is something to send:
//! bytes leave once per tick, after all connections that are ready were heard.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::sync::Notify;

use super::authentication::{Authenticator, Check};
use super::core::{ConnectionId, Core, Effect, Fault};
use super::wire::Wire;
use crate::store::{Client, Op, Token};

/// How many bytes a connection may bring before the next one is heard.
pub(super) const READ_BUDGET: usize = 16 * 1024;
/// The buffer that all connections read into.
pub(super) const READ_BUFFER: usize = 64 * 1024;

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
    /// Where what must survive goes; none: nothing outlives the process.
    pub(super) store: RefCell<Option<Client>>,
    flusher: RefCell<Option<Waker>>,
    dirty: RefCell<Vec<ConnectionId>>,
    /// Sockets accepted and not closed, handshakes included.
    pub(super) sockets: Cell<usize>,
    pub(super) connections_max: Cell<usize>,
    pub(super) connect_timeout_s: Cell<u16>,
}

impl Shard {
    pub(super) fn new(core: Core) -> Shard {
        Shard {
            core: RefCell::new(core),
            wires: RefCell::default(),
            authenticator: RefCell::new(Authenticator::new()),
            buffer: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
            timer_set: Notify::new(),
            keeps_time: Cell::new(false),
            port_ready: Notify::new(),
            listener_bound: Notify::new(),
            store: RefCell::new(None),
            flusher: RefCell::new(None),
            dirty: RefCell::default(),
            sockets: Cell::new(0),
            connections_max: Cell::new(0),
            connect_timeout_s: Cell::new(0),
        }
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
                Some(Effect::Persist(token, ops)) => self.persist(token, ops),
                Some(Effect::Close { connection, fault }) => self.close(connection, fault),
                Some(Effect::Exchange { connection, method, context, data }) => {
                    let answer = self.authenticator.borrow().exchange(&method, &context, &data);
                    self.core.borrow_mut().handle_exchange(connection, answer, Instant::now());
                }
                Some(Effect::Authenticate { connection, username, password }) => {
                    self.authenticate(connection, &username, password);
                }
            }
        }
        let core = self.core.borrow();
        if core.has_dirty() {
            self.wake_flusher();
        }
        if core.has_timers() && !self.keeps_time.get() {
            self.keeps_time.set(true);
            self.timer_set.notify_one();
        }
        if core.has_port_events() {
            self.port_ready.notify_one();
        }
    }

    /// Writes what all dirty connections have to send. Runs once per tick, as a task of its own.
    pub(super) fn poll_flush(self: &Rc<Self>, cx: &Context) -> Poll<()> {
        *self.flusher.borrow_mut() = Some(cx.waker().clone());
        let now = Instant::now();
        let mut dirty = self.dirty.borrow_mut();
        self.core.borrow_mut().take_dirty(&mut dirty);
        let wires = self.wires.borrow();
        for &id in &*dirty {
            if let Some(wire) = wires.get(&id) {
                self.flush(id, wire, now);
            }
        }
        if self.core.borrow().has_dirty() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn flush(&self, id: ConnectionId, wire: &Wire, now: Instant) {
        let Some(plain) = wire.plain.as_ref().filter(|_| !wire.must_write.get()) else {
            wire.must_write.set(true);
            return wire.wake();
        };
        let mut core = self.core.borrow_mut();
        let waiting = core.outgoing(id).len();
        if waiting == 0 && !wire.is_closing.get() {
            return; // its task was faster
        }
        match plain.try_write(core.outgoing(id)) {
            Ok(count) => {
                core.handle_written(id, count, now);
                if wire.is_paused.get() {
                    wire.wake();
                }
                if count == waiting && !wire.is_closing.get() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => wire.is_broken.set(true),
        }
        wire.must_write.set(true);
        wire.wake();
    }

    fn wake_flusher(&self) {
        if let Some(waker) = &*self.flusher.borrow() {
            waker.wake_by_ref();
        }
    }

    fn persist(&self, token: Token, ops: Vec<Op>) {
        if let Some(store) = &*self.store.borrow() {
            store.persist(token, ops); // it reports the token
        }
    }

    fn close(&self, id: ConnectionId, fault: Fault) {
        if let Some(wire) = self.wires.borrow().get(&id) {
            let core = self.core.borrow();
            let client = core.client_of(id);
            tracing::debug!(client, peer = %wire.peer, reason = %fault, "closing a connection");
            wire.is_closing.set(true);
            wire.lingers.set(matches!(fault, Fault::Violation(_) | Fault::QuotaExceeded));
            wire.must_write.set(true);
            wire.wake();
        }
    }

    fn authenticate(self: &Rc<Self>, id: ConnectionId, username: &Arc<str>, password: Bytes) {
        // Who is not here any more needs no answer.
        let Some(peer) = self.wires.borrow().get(&id).map(|wire| wire.peer.ip()) else { return };
        let check = self.authenticator.borrow().check(username, password, peer);
        match check {
            Check::Done(verdict) => self.core.borrow_mut().handle_verdict(id, verdict, Instant::now()),
            Check::Wait(waiting) => {
                let shard = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    let verdict = waiting.run().await;
                    shard.with_core(|core| core.handle_verdict(id, verdict, Instant::now()));
                });
            }
        }
    }
}
