//! The links of one node and their connections: between the machines, the core and the sockets.
//!
//! Everything lives on the shard's thread behind one `RefCell` that is never borrowed across an await. Whoever
//! brings an input (a socket, a timer, the core's bell) calls `pump`, which does what the machines ask for until
//! they ask for nothing more.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::broker::Broker;
use crate::broker::port::{Core, Interest, PeerId, PortEvent};
use crate::link::backoff::Random;
use crate::link::machine::{ConnId, Identity, Link, Output};
use crate::link::native::FRAME_BYTES_MIN;
use crate::link::refusal::{Reason, Refusal};
use crate::settings::report::LinkReport;
use crate::settings::{Link as Half, Settings};

use super::carrier::Carrier;
use super::clock::{self, Incarnations};
use super::dial;

/// From here on a connection gets no more messages until less is left.
const CONGESTED: usize = 1024 * 1024;
/// So little that the socket may soon idle.
const RELIEVED: usize = 256 * 1024;

pub(super) type SharedHub = Rc<RefCell<Hub>>;

/// All links of a node.
pub(super) struct Hub {
    broker: Broker,
    pub(super) own: Identity,
    /// The largest frame that this node takes.
    pub(super) frame_bytes_max: usize,
    slots: BTreeMap<String, Slot>,
    connections: BTreeMap<ConnId, Outgoing>,
    last_conn: u64,
    incarnations: Incarnations,
    random: Random,
    /// Wakes the task that waits for the next timeout.
    pub(super) wake: Rc<Notify>,
    /// When that task wakes by itself; None while it sleeps without end.
    pub(super) sleeps_until: Option<Instant>,
    /// Tells that a connection ended.
    pub(super) ended: Rc<Notify>,
    /// Tells that a report changed.
    pub(super) changed: Rc<Notify>,
    this: Weak<RefCell<Hub>>,
}

/// One link and what belongs to it.
struct Slot {
    link: Link,
    peer: PeerId,
    dial: Option<AbortHandle>,
}

/// What waits to be written to one connection.
pub(super) struct Outgoing {
    link: String,
    carrier: Carrier,
    pub(super) bytes: Vec<u8>,
    /// How many of `bytes` are written.
    pub(super) written: usize,
    pub(super) waker: Option<Waker>,
    pub(super) closing: bool,
    congested: bool,
}

impl Outgoing {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }
}

impl Hub {
    pub(super) fn new(broker: Broker, own: Identity, seed: u64) -> SharedHub {
        Rc::new_cyclic(|this| {
            RefCell::new(Hub {
                broker,
                incarnations: Incarnations::new(own.incarnation),
                own,
                frame_bytes_max: 0,
                slots: BTreeMap::new(),
                connections: BTreeMap::new(),
                last_conn: 0,
                random: Random(seed),
                wake: Rc::new(Notify::new()),
                sleeps_until: None,
                ended: Rc::new(Notify::new()),
                changed: Rc::new(Notify::new()),
                this: this.clone(),
            })
        })
    }

    /// Brings the links in line with the settings; what stays the same is not disturbed.
    pub(super) fn apply_settings(&mut self, settings: &Settings, now: Instant) {
        self.frame_bytes_max = settings.limits.packet_bytes_max.saturating_add(64 * 1024);
        self.frame_bytes_max = self.frame_bytes_max.max(FRAME_BYTES_MIN);
        let stays = |slot: &Slot| {
            let half = slot.link.half();
            settings.links.iter().any(|new| new.id == half.id && new.peer == half.peer)
        };
        let gone: Vec<String> =
            self.slots.iter().filter(|(_, slot)| !stays(slot)).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.remove_link(id, Reason::UnknownCluster, "the half is gone", now));
        for half in &settings.links {
            match self.slots.get_mut(&half.id) {
                Some(slot) => {
                    slot.link.handle_frame_bytes_max(self.frame_bytes_max);
                    slot.link.handle_settings(half.clone(), now);
                }
                None => self.add_link(half.clone(), now),
            }
        }
        self.pump(now);
        self.changed.notify_one();
    }

    fn add_link(&mut self, half: Half, now: Instant) {
        let own = Identity { incarnation: self.incarnations.next(clock::wall_ms()), ..self.own.clone() };
        let id = half.id.clone();
        let mut link = Link::new(half, own, self.frame_bytes_max, self.random.next_u64(), now);
        let peer = self.broker.with_core(|core| {
            for Interest { filter, group } in core.interests() {
                link.handle_interest(filter, group, true, now);
            }
            core.peer_open(&link.half().peer)
        });
        self.slots.insert(id, Slot { link, peer, dial: None });
    }

    fn remove_link(&mut self, id: &str, reason: Reason, text: &str, now: Instant) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        slot.link.handle_shutdown(reason, text, now);
        self.pump(now);
        let Some(slot) = self.slots.remove(id) else { return };
        if let Some(dial) = slot.dial {
            dial.abort();
        }
        self.broker.with_core(|core| core.peer_close(slot.peer));
    }

    /// Ends all links; what was said last is still written.
    pub(super) fn shutdown(&mut self, now: Instant) {
        let ids: Vec<String> = self.slots.keys().cloned().collect();
        ids.iter().for_each(|id| self.remove_link(id, Reason::ShuttingDown, "the node stops", now));
    }

    /// Whether everything said was written.
    pub(super) fn is_silent(&self) -> bool {
        self.connections.is_empty()
    }

    pub(super) fn halves(&self) -> Vec<Half> {
        self.slots.values().map(|slot| slot.link.half().clone()).collect()
    }

    pub(super) fn reports(&self, now: Instant) -> Vec<LinkReport> {
        self.slots.values().map(|slot| slot.link.report(now)).collect()
    }

    /// A connection is past CONNACK: gives it its number, or None when its link is gone.
    pub(super) fn open(&mut self, id: &str, dialled: bool, now: Instant) -> Option<ConnId> {
        let slot = self.slots.get_mut(id)?;
        if dialled {
            slot.dial = None;
        }
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let outgoing = Outgoing {
            link: id.to_owned(),
            carrier: Carrier::default(),
            bytes: Vec::new(),
            written: 0,
            waker: None,
            closing: false,
            congested: false,
        };
        self.connections.insert(conn, outgoing);
        slot.link.handle_opened(conn, dialled, now);
        self.pump(now);
        Some(conn)
    }

    pub(super) fn dial_failed(&mut self, id: &str, reason: &str, message: &str, now: Instant) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        slot.dial = None;
        slot.link.handle_dial_failed(reason, message, now);
        self.pump(now);
    }

    /// Somebody was refused at the listener; the half whose peer it says it is may show that.
    pub(super) fn stranger(&mut self, cluster: &str, refusal: &Refusal, now: Instant) {
        let slot = self.slots.values_mut().find(|slot| slot.link.half().peer == cluster);
        if let Some(slot) = slot {
            slot.link.handle_stranger(refusal, now);
            self.pump(now);
        }
    }

    /// A frame of a connection. The caller pumps when it has read enough.
    pub(super) fn frame(&mut self, conn: ConnId, frame: &[u8], now: Instant) {
        let Some(outgoing) = self.connections.get(&conn) else { return };
        if let Some(slot) = self.slots.get_mut(&outgoing.link) {
            slot.link.handle_frame(conn, frame, now);
        }
    }

    pub(super) fn outgoing(&mut self, conn: ConnId) -> Option<&mut Outgoing> {
        self.connections.get_mut(&conn)
    }

    /// Bytes were written: maybe the connection can take messages again.
    pub(super) fn relieve(&mut self, conn: ConnId) -> bool {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return false };
        if !outgoing.congested || outgoing.waiting() > RELIEVED {
            return false;
        }
        outgoing.congested = false;
        if let Some(slot) = self.slots.get_mut(&outgoing.link) {
            slot.link.handle_congestion(conn, false);
        }
        true
    }

    /// The socket of a connection is over.
    pub(super) fn closed(&mut self, conn: ConnId, why: &str, now: Instant) {
        let Some(outgoing) = self.connections.remove(&conn) else { return };
        if let Some(slot) = self.slots.get_mut(&outgoing.link) {
            slot.link.handle_closed(conn, why, now);
        }
        self.ended.notify_one();
        self.pump(now);
    }

    /// When `pump` is to be called without an input.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.slots.values().filter_map(|slot| slot.link.poll_timeout(now)).min()
    }

    /// Brings everything that happened to the machines, and does what they ask for.
    pub(super) fn pump(&mut self, now: Instant) {
        let broker = self.broker.clone();
        broker.with_core(|core| {
            self.drain_core(core, now);
            let mut slots = std::mem::take(&mut self.slots);
            for (id, slot) in &mut slots {
                if slot.link.poll_timeout(now).is_some_and(|at| at <= now) {
                    slot.link.handle_timeout(now);
                }
                while let Some(output) = slot.link.poll_output(now) {
                    self.perform(id, slot, output, core, now);
                }
                if slot.link.take_changed() {
                    self.changed.notify_one();
                }
            }
            self.slots = slots;
        });
        let next = self.poll_timeout(now);
        if next.is_some_and(|next| self.sleeps_until.is_none_or(|until| next < until)) {
            self.wake.notify_one();
        }
    }

    fn drain_core(&mut self, core: &mut Core, now: Instant) {
        while let Some(event) = core.poll_port_event() {
            match event {
                PortEvent::Interest { interest: Interest { filter, group }, wanted } => {
                    for slot in self.slots.values_mut() {
                        slot.link.handle_interest(filter.clone(), group.clone(), wanted, now);
                    }
                }
                PortEvent::Forward { peer, message } => {
                    if let Some(slot) = self.slots.values_mut().find(|slot| slot.peer == peer) {
                        slot.link.handle_message(message, now);
                    }
                }
            }
        }
    }

    fn perform(&mut self, id: &str, slot: &mut Slot, output: Output, core: &mut Core, now: Instant) {
        match output {
            Output::Send { conn, frame } => self.send(slot, conn, &frame),
            Output::Deliver(message) => {
                let recipients = core.peer_deliver(slot.peer, message, now);
                slot.link.handle_delivered(recipients);
            }
            Output::RouteAdd(filter) => core.peer_route_add(slot.peer, &filter),
            Output::RouteDelete(filter) => core.peer_route_delete(slot.peer, &filter),
            Output::Close { conn } => {
                if let Some(outgoing) = self.connections.get_mut(&conn) {
                    outgoing.closing = true;
                    outgoing.wake();
                }
            }
            Output::Dial => {
                let task = dial::spawn(self.this.clone(), id.to_owned(), slot.link.half(), &self.own);
                slot.dial = Some(task);
            }
            Output::CancelDial => {
                if let Some(dial) = slot.dial.take() {
                    dial.abort();
                }
            }
        }
    }

    fn send(&mut self, slot: &mut Slot, conn: ConnId, frame: &[u8]) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        outgoing.carrier.write(frame, &mut outgoing.bytes);
        outgoing.wake();
        if !outgoing.congested && outgoing.waiting() > CONGESTED {
            outgoing.congested = true;
            slot.link.handle_congestion(conn, true);
        }
    }
}
