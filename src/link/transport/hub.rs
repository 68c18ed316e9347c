//! The links of one node and their connections: between the machines, the core and the sockets.
//!
//! Everything lives on the shard's thread behind one `RefCell` that is never borrowed across an await. Whoever
//! brings an input (a socket, a timer, the core's bell) calls `pump`, which does what the machines ask for until
//! they ask for nothing more. Only links that had an input, or whose time has come, are looked at: a message costs
//! the same however many other links there are.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use crate::broker::Broker;
use crate::broker::port::{Core, Interest, PeerId, PortEvent};
use crate::link::backoff::Random;
use crate::link::machine::{ConnId, Identity, Link, Output};
use crate::link::native::FRAME_BYTES_MIN;
use crate::link::refusal::{Reason, Refusal};
use crate::link::room::{self, Room};
use crate::settings::report::LinkReport;
use crate::settings::{Link as Half, Settings};

use super::clock::{self, Incarnations};
use super::dial;
use super::outgoing::Outgoing;
use super::resolve::{LOOKUPS_MAX, Resolver};

/// How often what telling interest took passes before it is told again.
const REST: u32 = 4;
/// Bytes of filters that wait to be told; beyond that they are told at once.
const UNTOLD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What each costs besides.
const UNTOLD_BYTES: usize = 64;

pub(super) type SharedHub = Rc<RefCell<Hub>>;

/// All links of a node.
pub(super) struct Hub {
    pub(super) broker: Broker,
    pub(super) own: Identity,
    /// The largest frame that this node takes.
    pub(super) frame_bytes_max: usize,
    slots: BTreeMap<Rc<str>, Slot>,
    by_peer: HashMap<PeerId, Rc<str>>,
    /// Links that had an input since the last pump.
    touched: Vec<Rc<str>>,
    /// When each link is to be looked at without one.
    timeouts: BTreeSet<(Instant, Rc<str>)>,
    /// What all links hold for their peers, in bytes.
    held: usize,
    room: Room,
    /// How much memory the routes of all peers take.
    pub(super) routes: usize,
    connections: BTreeMap<ConnId, Outgoing>,
    /// Places for look-ups of names.
    lookups: Arc<Semaphore>,
    last_conn: u64,
    /// How many links pumps have looked at, for tests.
    #[cfg(test)]
    pub(super) looked_at: u64,
    /// How many changes of interest the links were told, for tests.
    #[cfg(test)]
    pub(super) told: u64,
    /// Interest that came or went since the links were told last: of each the last word. It may concern every filter of
    /// every link, and a client changes its mind thousands of times in one read.
    interests: HashMap<Interest, bool>,
    untold_bytes: usize,
    /// When the links may be told again.
    pub(super) tell_at: Instant,
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
    id: Rc<str>,
    link: Link,
    peer: PeerId,
    dial: Option<AbortHandle>,
    resolver: Rc<Resolver>,
    /// Whether it is among the touched.
    touched: bool,
    /// Its place among the timeouts.
    due: Option<Instant>,
    /// Its part of what all links hold.
    held: usize,
    /// And of what all routes take.
    routes: usize,
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
                by_peer: HashMap::new(),
                touched: Vec::new(),
                timeouts: BTreeSet::new(),
                held: 0,
                room: Room::default(),
                routes: 0,
                connections: BTreeMap::new(),
                lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
                last_conn: 0,
                #[cfg(test)]
                looked_at: 0,
                #[cfg(test)]
                told: 0,
                interests: HashMap::new(),
                untold_bytes: 0,
                tell_at: Instant::now(),
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
        let gone: Vec<Rc<str>> =
            self.slots.iter().filter(|(_, slot)| !stays(slot)).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.remove_link(id, Reason::UnknownCluster, "the half is gone", now));
        for half in &settings.links {
            let frame_bytes_max = self.frame_bytes_max;
            match self.touch(&half.id) {
                Some(slot) => {
                    slot.link.handle_frame_bytes_max(frame_bytes_max);
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
        let id: Rc<str> = half.id.as_str().into();
        let mut link = Link::new(half, own, self.frame_bytes_max, self.random.next_u64(), now);
        let peer = self.broker.with_core(|core| {
            for Interest { filter, group } in core.interests() {
                link.handle_interest(filter, group, true, now);
            }
            core.peer_open(&link.half().peer)
        });
        self.by_peer.insert(peer, id.clone());
        let resolver = Resolver::new(self.lookups.clone());
        let slot = Slot {
            id: id.clone(),
            link,
            peer,
            dial: None,
            resolver,
            touched: false,
            due: None,
            held: 0,
            routes: 0,
        };
        self.slots.insert(id.clone(), slot);
        self.touch(&id);
    }

    fn remove_link(&mut self, id: &str, reason: Reason, text: &str, now: Instant) {
        let Some(slot) = self.touch(id) else { return };
        slot.link.handle_shutdown(reason, text, now);
        self.pump(now);
        let Some(slot) = self.slots.remove(id) else { return };
        self.by_peer.remove(&slot.peer);
        self.held -= slot.held;
        self.routes -= slot.routes;
        if let Some(due) = slot.due {
            self.timeouts.remove(&(due, slot.id));
        }
        if let Some(dial) = slot.dial {
            dial.abort();
        }
        self.broker.with_core(|core| core.peer_close(slot.peer));
    }

    /// Ends all links; what was said last is still written.
    pub(super) fn shutdown(&mut self, now: Instant) {
        let ids: Vec<Rc<str>> = self.slots.keys().cloned().collect();
        ids.iter().for_each(|id| self.remove_link(id, Reason::ShuttingDown, "the node stops", now));
    }

    /// Whether no peer that is there has messages to come.
    pub(super) fn is_drained(&self, now: Instant) -> bool {
        self.slots.values().all(|slot| slot.link.is_drained(now))
    }

    /// Whether everything said was written.
    pub(super) fn is_silent(&self) -> bool {
        self.connections.is_empty()
    }

    /// The halves for one peer.
    pub(super) fn halves_of(&self, peer: &str) -> Vec<Half> {
        self.slots.values().map(|slot| slot.link.half()).filter(|half| half.peer == peer).cloned().collect()
    }

    /// A link that is given an input: the next pump looks at it.
    fn touch(&mut self, id: &str) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id)?;
        if !std::mem::replace(&mut slot.touched, true) {
            self.touched.push(slot.id.clone());
        }
        Some(slot)
    }

    pub(super) fn reports(&self, now: Instant) -> Vec<LinkReport> {
        self.slots.values().map(|slot| slot.link.report(now)).collect()
    }

    /// A connection is past CONNACK: gives it its number, or None when its link is gone.
    pub(super) fn open(&mut self, id: &str, dialled: bool, now: Instant) -> Option<ConnId> {
        let conn = ConnId(self.last_conn + 1);
        let slot = self.touch(id)?;
        if dialled {
            slot.dial = None;
        }
        let outgoing = Outgoing::new(slot.id.clone());
        slot.link.handle_opened(conn, dialled, now);
        self.last_conn = conn.0;
        self.connections.insert(conn, outgoing);
        self.pump(now);
        Some(conn)
    }

    pub(super) fn dial_failed(&mut self, id: &str, reason: &str, message: &str, now: Instant) {
        let Some(slot) = self.touch(id) else { return };
        slot.dial = None;
        slot.link.handle_dial_failed(reason, message, now);
        self.pump(now);
    }

    /// Somebody was refused at the listener; the half whose peer it says it is may show that.
    pub(super) fn stranger(&mut self, cluster: &str, refusal: &Refusal, now: Instant) {
        let slot = self.slots.values().find(|slot| slot.link.half().peer == cluster);
        let Some(id) = slot.map(|slot| slot.id.clone()) else { return };
        if let Some(slot) = self.touch(&id) {
            slot.link.handle_stranger(refusal, now);
            self.pump(now);
        }
    }

    /// Bytes of a connection came in.
    pub(super) fn heard(&mut self, conn: ConnId, now: Instant) {
        let Some(link) = self.connections.get(&conn).map(|outgoing| outgoing.link.clone()) else { return };
        if let Some(slot) = self.touch(&link) {
            slot.link.handle_heard(conn, now);
        }
    }

    /// A frame of a connection. The caller pumps when it has read enough.
    pub(super) fn frame(&mut self, conn: ConnId, frame: &[u8], now: Instant) {
        let Some(link) = self.connections.get(&conn).map(|outgoing| outgoing.link.clone()) else { return };
        let room = room::of_routes(self.broker.memory_mark(), self.routes);
        if let Some(slot) = self.touch(&link) {
            slot.link.handle_route_room(room.saturating_add(slot.routes));
            slot.link.handle_frame(conn, frame, now);
        }
    }

    pub(super) fn outgoing(&mut self, conn: ConnId) -> Option<&mut Outgoing> {
        self.connections.get_mut(&conn)
    }

    /// Bytes were written: the connection can take messages again.
    pub(super) fn relieve(&mut self, conn: ConnId) {
        let Some(link) = self.connections.get(&conn).map(|outgoing| outgoing.link.clone()) else { return };
        if let Some(slot) = self.touch(&link) {
            slot.link.handle_congestion(conn, false);
        }
    }

    /// The socket of a connection is over.
    pub(super) fn closed(&mut self, conn: ConnId, why: &str, now: Instant) {
        let Some(outgoing) = self.connections.remove(&conn) else { return };
        if let Some(slot) = self.touch(&outgoing.link) {
            slot.link.handle_closed(conn, why, now);
        }
        self.ended.notify_one();
        self.pump(now);
    }

    /// When `pump` is to be called without an input.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let tell_at = (!self.interests.is_empty()).then_some(self.tell_at);
        self.timeouts.first().map(|timeout| timeout.0).into_iter().chain(tell_at).min()
    }

    /// Brings everything that happened to the machines, and does what they ask for.
    pub(super) fn pump(&mut self, now: Instant) {
        let broker = self.broker.clone();
        broker.with_core(|core| {
            self.drain_core(core, now);
            self.touch_due(now);
            let mut touched = std::mem::take(&mut self.touched);
            let mut slots = std::mem::take(&mut self.slots);
            for id in touched.drain(..) {
                if let Some(slot) = slots.get_mut(&id) {
                    self.pump_slot(slot, core, now);
                }
            }
            (self.slots, self.touched) = (slots, touched);
            self.make_room(core);
        });
        let next = self.poll_timeout();
        if next.is_some_and(|next| self.sleeps_until.is_none_or(|until| next < until)) {
            self.wake.notify_one();
        }
    }

    /// Where all links hold more than they may, the longest queue gives way.
    fn make_room(&mut self, core: &Core) {
        let mut excess = self.room.excess(self.held, self.broker.memory_mark(), core.is_memory_short());
        while excess > 0 {
            let Some(slot) = self.slots.values_mut().max_by_key(|slot| slot.link.queued_bytes()) else {
                return;
            };
            let shed = slot.link.shed(excess);
            if shed == 0 {
                return;
            }
            slot.held -= shed;
            self.held -= shed;
            excess = excess.saturating_sub(shed);
        }
    }

    fn touch_due(&mut self, now: Instant) {
        while self.timeouts.first().is_some_and(|timeout| timeout.0 <= now) {
            let Some((_, id)) = self.timeouts.pop_first() else { return };
            if let Some(slot) = self.touch(&id) {
                slot.due = None;
            }
        }
    }

    fn pump_slot(&mut self, slot: &mut Slot, core: &mut Core, now: Instant) {
        slot.touched = false;
        #[cfg(test)]
        {
            self.looked_at += 1;
        }
        if slot.link.poll_timeout(now).is_some_and(|at| at <= now) {
            slot.link.handle_timeout(now);
        }
        while let Some(output) = slot.link.poll_output(now) {
            self.perform(slot, output, core, now);
        }
        if slot.link.take_changed() {
            self.changed.notify_one();
        }
        let routes = slot.link.route_memory();
        self.routes = self.routes + routes - std::mem::replace(&mut slot.routes, routes);
        let held = slot.link.held_bytes();
        self.held = self.held + held - std::mem::replace(&mut slot.held, held);
        let due = slot.link.poll_timeout(now);
        if due != slot.due {
            let before = std::mem::replace(&mut slot.due, due);
            before.map(|at| self.timeouts.remove(&(at, slot.id.clone())));
            due.map(|at| self.timeouts.insert((at, slot.id.clone())));
        }
    }

    fn drain_core(&mut self, core: &mut Core, now: Instant) {
        while let Some(event) = core.poll_port_event() {
            match event {
                PortEvent::Interest { interest, wanted } => {
                    let bytes = interest.filter.as_str().len() + UNTOLD_BYTES;
                    let is_new = self.interests.insert(interest, wanted).is_none();
                    self.untold_bytes += if is_new { bytes } else { 0 };
                }
                PortEvent::Settled { peer, number } => {
                    let Some(id) = self.by_peer.get(&peer).cloned() else { continue };
                    if let Some(slot) = self.touch(&id) {
                        slot.link.handle_settled(number);
                    }
                }
                PortEvent::Forward { peer, message } => {
                    let Some(id) = self.by_peer.get(&peer).cloned() else { continue };
                    if let Some(slot) = self.touch(&id) {
                        slot.link.handle_message(message, now);
                    }
                }
            }
        }
        let is_time = self.tell_at <= now || self.untold_bytes > UNTOLD_BYTES_MAX;
        if !self.interests.is_empty() && is_time {
            self.tell_interests(now);
        }
    }

    /// Then rests four times as long as it took: others want their turn.
    fn tell_interests(&mut self, now: Instant) {
        let begun = Instant::now();
        self.untold_bytes = 0;
        for (Interest { filter, group }, wanted) in std::mem::take(&mut self.interests) {
            #[cfg(test)]
            {
                self.told += 1;
            }
            for slot in self.slots.values_mut() {
                slot.link.handle_interest(filter.clone(), group.clone(), wanted, now);
                if !std::mem::replace(&mut slot.touched, true) {
                    self.touched.push(slot.id.clone());
                }
            }
        }
        self.tell_at = Instant::now() + begun.elapsed() * REST;
    }

    fn perform(&mut self, slot: &mut Slot, output: Output, core: &mut Core, now: Instant) {
        match output {
            Output::Send { conn, frame } => self.send(slot, conn, &frame),
            Output::Deliver(message) => {
                let recipients = core.peer_deliver(slot.peer, message, now);
                slot.link.handle_delivered(recipients);
            }
            Output::Settle { number } => {
                if core.peer_settle(slot.peer, number) {
                    slot.link.handle_settled(number);
                }
            }
            Output::RouteAdd(filter) => core.peer_route_add(slot.peer, &filter),
            Output::RouteDelete(filter) => core.peer_route_delete(slot.peer, &filter),
            Output::Close { conn } => {
                if let Some(outgoing) = self.connections.get_mut(&conn) {
                    outgoing.close();
                }
            }
            Output::Dial => {
                let (hub, id) = (self.this.clone(), slot.id.to_string());
                let resolver = slot.resolver.clone();
                let task = dial::spawn(hub, &self.broker, id, slot.link.half(), &self.own, resolver);
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
        if outgoing.say(frame) {
            slot.link.handle_congestion(conn, true);
        }
    }
}
