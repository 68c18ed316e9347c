//! A message to its recipients: routing, each session's window, queue and buffer. What waits there is `pump`'s.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashSet;

use super::delivery::{Delivery, Outgoing};
use super::members::{Member, Presence, Seat};
use super::mesh::{TRIES_MAX, Try};
use super::pressure::{Pressure, SHORT_QUEUE_BYTES, SLOW_BYTES};
use super::recipients::{Grant, Recipients};
use super::routes::GroupId;
use super::session::Session;
use super::wires::{Offered, Wires};
use super::{Core, DELIVERY_BYTES, SessionId};
use crate::mqtt::{Frame, Publish, QoS, SharedFilter, Version};

/// How many bytes may wait in a connection's buffer before QoS 0 is dropped and the rest queued. A subscriber that is
/// slower than its publishers for a moment needs room for that moment; one that is slower for good must not cost memory.
pub(super) const OUT_BYTES_MAX: usize = 4 << 20;

/// How long a search of a full queue for what has expired is good for: it looks at all, and must not at each message.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Of how many messages one must have expired: what is stored of a session is written anew for it.
const SWEPT_PART: usize = 8;
/// How many messages are looked at for that at one moment of the clock, in all queues, until no further queue is.
const LOOKS_MAX: usize = 32_768;

/// Whose full queues were searched for what has expired.
pub(super) struct Swept {
    since: Instant,
    sessions: HashSet<SessionId>,
    now: Instant,
    looks: usize,
}

impl Swept {
    pub(super) fn new(now: Instant) -> Swept {
        Swept { since: now, sessions: HashSet::new(), now, looks: 0 }
    }

    /// True if the queue of a session, of so many messages, is to be searched now.
    fn takes(&mut self, id: SessionId, messages: usize, now: Instant) -> bool {
        if now >= self.since + SWEEP_EVERY {
            (self.since, self.sessions) = (now, HashSet::new());
        }
        if now != self.now {
            (self.now, self.looks) = (now, 0);
        }
        let is_to_be = self.looks < LOOKS_MAX && self.sessions.insert(id);
        self.looks += if is_to_be { messages } else { 0 };
        is_to_be
    }
}

/// Why a session's queue does not take a message.
#[derive(Clone, Copy)]
pub(super) enum Refusal {
    Full,
    /// As much waits on the node as may.
    NodeFull,
    /// Memory is short.
    Short,
}

/// A subscription identifier in a message, at most.
const IDENTIFIER_BYTES: usize = 5;

impl Core {
    // [MQTT-4.5.0-1] [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.3.2-3]
    /// Hands a message to local sessions and to one member of each local shared group. Returns how many it was for.
    pub(super) fn route(
        &mut self,
        recipients: &Recipients,
        outgoing: &Outgoing,
        publisher: Option<SessionId>,
    ) -> usize {
        if recipients.sessions.is_empty() && recipients.groups.is_empty() {
            return 0; // other shards' or peers' alone
        }
        self.count_work(recipients.sessions.len() + recipients.groups.len(), outgoing);
        self.routed += (recipients.identifiers * IDENTIFIER_BYTES) as u64;
        let mut count = 0;
        // 3.1.1 has no options, so those of a session that 5.0 made rest meanwhile. [MQTT-4.5.0-1] v3
        let publisher = publisher.filter(|&it| self.sessions[it as usize].version == Version::V5);
        self.encoder.begin(recipients.sessions.len() == 1 && recipients.groups.is_empty());
        for recipient in &recipients.sessions {
            let Some(grant) = recipient.grant(publisher) else { continue };
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            let retain = outgoing.publish.retain && grant.retain_as_published;
            if let Err(refusal) = self.deliver(recipient.session, grant, outgoing, retain, None) {
                self.count_refusal(refusal);
            }
            count += 1;
        }
        for &group in &recipients.groups {
            count += usize::from(self.offer(group, 0, outgoing).is_some());
        }
        count
    }

    #[inline]
    pub(super) fn count_work(&mut self, recipients: usize, outgoing: &Outgoing) {
        let bytes = outgoing.publish.topic.len() + outgoing.publish.payload.len() + DELIVERY_BYTES;
        self.routed += (recipients * bytes) as u64;
    }

    /// Hands a message to the member of a group that is owned here whose turn it is, or to the next, as long as they turn out
    /// to have no room; `tried` had none before. None if there is nobody, false if there is no room.
    pub(super) fn offer(&mut self, group: GroupId, mut tried: u8, outgoing: &Outgoing) -> Option<bool> {
        loop {
            let (shared, member) = self.routes.choose(group, outgoing.publish.qos)?;
            let is_last = tried >= TRIES_MAX;
            if member.shard != self.mesh.place().number() {
                let attempt = if is_last || member.is_full() { Try::Last } else { Try::After(tried) };
                self.assign(&member, shared, attempt, outgoing);
                return Some(true);
            }
            let grant = Grant::of(&member.who);
            let retain = outgoing.publish.retain && grant.retain_as_published;
            let session = member.who.session;
            let Err(refusal) = self.deliver(session, &grant, outgoing, retain, Some(&shared)) else {
                return Some(true);
            };
            if is_last || self.is_in_vain(refusal, session) {
                self.count_refusal(refusal);
                return Some(false);
            }
            // Who is known to be full from now on is not asked again before all the others.
            tried += u8::from(self.sessions[session as usize].presence == member.presence);
        }
    }

    /// True if nobody else of a group needs to be asked: on a full node all who are away are refused, and who is there was
    /// asked before.
    pub(super) fn is_in_vain(&self, refusal: Refusal, session: SessionId) -> bool {
        matches!(refusal, Refusal::NodeFull) && self.sessions[session as usize].connection.is_none()
    }

    fn assign(&mut self, member: &Member, shared: Arc<SharedFilter>, attempt: Try, outgoing: &Outgoing) {
        // Publishers on a third shard do not feel that this one is behind: what nobody answers for has no other bound.
        if outgoing.publish.qos == QoS::AtMostOnce && self.mesh.is_behind(member.shard) {
            self.counters.dropped_slow += 1;
            return;
        }
        self.mesh.assign(member.shard, member.seat(), shared, attempt, outgoing);
    }

    /// Hands a message to one session.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        to: SessionId,
        grant: &Grant,
        outgoing: &Outgoing,
        retain: bool,
        group: Option<&Arc<SharedFilter>>,
    ) -> Result<(), Refusal> {
        let session = &self.sessions[to as usize];
        let retain = retain && session.version == Version::V5; // [MQTT-3.3.1-9] v3
        // [MQTT-3.8.4-8] [MQTT-4.8.2-3]
        let qos = outgoing.publish.qos.min(grant.qos);
        if qos == QoS::AtMostOnce {
            self.deliver_once(to, grant, outgoing, retain);
            return Ok(());
        }
        let frame = self.encoder.frame(outgoing, session.version, qos, retain, grant);
        let delivery = Delivery { frame, expires_at: outgoing.expires_at, group: group.cloned() };
        self.keep(to, delivery)
    }

    pub(super) fn count_refusal(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Full => self.counters.dropped_queue_full += 1,
            Refusal::NodeFull => self.counters.dropped_node_queue_full += 1,
            Refusal::Short => self.counters.shed_queued += 1,
        }
    }

    /// Hands a retained message to a session that asked for it. What its buffer has no room for waits in its queue: a
    /// wide filter brings many messages at once, and the client did nothing wrong. False if that has no room either.
    pub(super) fn deliver_patiently(&mut self, to: SessionId, grant: &Grant, outgoing: &Outgoing) -> bool {
        let session = &self.sessions[to as usize];
        let qos = outgoing.publish.qos.min(grant.qos);
        if qos == QoS::AtMostOnce && is_ready(session, &self.wires, self.pressure) {
            self.deliver_once(to, grant, outgoing, true);
            return true;
        }
        let frame = self.encoder.frame(outgoing, session.version, qos, true, grant);
        let taken = self.keep(to, Delivery { frame, expires_at: outgoing.expires_at, group: None });
        taken.map_err(|refusal| self.count_refusal(refusal)).is_ok()
    }

    /// QoS 0: into the connection's buffer, or nowhere.
    // [MQTT-4.3.1-1]
    #[inline]
    fn deliver_once(&mut self, to: SessionId, grant: &Grant, outgoing: &Outgoing, retain: bool) {
        let session = &self.sessions[to as usize];
        let Some(id) = session.connection else { return };
        let own_frame;
        let bytes = match &grant.identifiers {
            None => self.encoder.bytes(outgoing, session.version, retain),
            Some(_) => {
                own_frame =
                    own_bytes(&self.encoder.frame(outgoing, session.version, QoS::AtMostOnce, retain, grant));
                &own_frame
            }
        };
        match self.wires.offer(id, bytes, waiting_max(QoS::AtMostOnce, self.pressure)) {
            Offered::Sent(waiting) => {
                self.counters.sent += 1;
                if waiting > OUT_BYTES_MAX {
                    self.look_at(to);
                }
            }
            Offered::Slow(waiting) if waiting > OUT_BYTES_MAX => {
                self.counters.dropped_slow += 1;
                self.look_at(to);
            }
            Offered::Slow(_) => self.counters.shed_slow += 1,
            Offered::TooLarge => self.counters.dropped_oversize += 1,
            Offered::Gone => {}
        }
    }

    /// Sends a message at once if the session can take it, else puts it into its queue, if that has room.
    #[inline]
    fn keep(&mut self, to: SessionId, delivery: Delivery) -> Result<(), Refusal> {
        let is_ready = self.can_send(to, delivery.frame.qos());
        if !is_ready && let Some(refusal) = self.refusal_without_expired(to, &delivery) {
            // A node that is full says nothing of who would have room.
            self.sessions[to as usize].is_full |= !matches!(refusal, Refusal::NodeFull);
            self.look_at(to);
            return Err(refusal);
        }
        self.take(to, delivery, is_ready);
        Ok(())
    }

    /// Takes back a message that a session gave away and nobody else took: it was within the bounds of the queue before it
    /// left, and something else may be there now. False if the session is gone.
    pub(super) fn take_back(&mut self, to: Seat, outgoing: &Outgoing, group: &Arc<SharedFilter>) -> bool {
        let session = self.sessions.get(to.session as usize).filter(|session| session.serial == to.serial);
        let Some(version) = session.map(|session| session.version) else { return false };
        let Outgoing { publish, expires_at, .. } = *outgoing;
        let frame = Frame::publish(&Publish { dup: false, packet_id: None, ..publish }, version);
        let is_ready = self.can_send(to.session, publish.qos);
        self.take(to.session, Delivery { frame, expires_at, group: Some(Arc::clone(group)) }, is_ready);
        true
    }

    fn can_send(&self, to: SessionId, qos: QoS) -> bool {
        let session = &self.sessions[to as usize];
        is_ready(session, &self.wires, self.pressure) && !session.holds(qos)
    }

    /// Why a session's queue has no room for a message, if it has none.
    fn refusal(&self, to: SessionId, delivery: &Delivery) -> Option<Refusal> {
        let session = &self.sessions[to as usize];
        let is_short = self.pressure.keeps_queues_short();
        if is_short && session.queue.bytes() + delivery.frame.len() > SHORT_QUEUE_BYTES {
            return Some(Refusal::Short);
        }
        let (max, bytes_max) = (self.limits.queued_messages_max, self.limits.queued_bytes_max);
        if !session.has_room(delivery, max, bytes_max) {
            return Some(Refusal::Full);
        }
        let is_there = session.connection.is_some();
        let has_room = self.backlog.has_room(delivery.frame.len(), is_there, &self.limits);
        (!has_room).then_some(Refusal::NodeFull)
    }

    /// The same, when of those that have expired as many have gone as it takes; nobody gets them in any case.
    fn refusal_without_expired(&mut self, to: SessionId, delivery: &Delivery) -> Option<Refusal> {
        let now = self.ledger.now();
        let is_over = |one: &Delivery| one.expires_at.is_some_and(|at| at <= now);
        let refusal = loop {
            let refusal = self.refusal(to, delivery)?;
            // In their turn, as far as there is room in flight, they cost no more than to be sent.
            let session = &mut self.sessions[to as usize];
            let is_next = session.queue.front().is_some_and(is_over) && session.ring.has_room(session.window);
            let Some(one) = is_next.then(|| session.dequeue()).flatten() else { break refusal };
            self.counters.dropped_expired += 1;
            self.pass_over(to, one.frame.qos());
        };
        let session = &mut self.sessions[to as usize];
        let (all, mortal) = (session.queue.len(), session.queue.mortal());
        let may_pay = mortal > 0 && mortal * SWEPT_PART >= all;
        // Who is passed over now is looked at with a later message.
        let is_behind = session.number.is_some() && self.ledger.is_full();
        if !may_pay || is_behind || !self.swept.takes(to, all, now) {
            return Some(refusal);
        }
        let over = session.queue.iter().filter(|one| is_over(one)).count();
        if over == 0 || over * SWEPT_PART < all {
            return Some(refusal);
        }
        let (gone, kept): (Vec<_>, Vec<_>) = session.queue.take().into_iter().partition(is_over);
        kept.into_iter().for_each(|one| session.queue.push(one));
        session.tail -= gone.iter().filter(|one| one.frame.qos() > QoS::AtMostOnce).count() as u64;
        self.counters.dropped_expired += gone.len() as u64;
        self.note_rewritten(to);
        self.refusal(to, delivery)
    }

    #[inline]
    fn take(&mut self, to: SessionId, delivery: Delivery, is_ready: bool) {
        let qos = delivery.frame.qos();
        if qos != QoS::AtMostOnce {
            self.note_message(to, &delivery);
        }
        match is_ready {
            true => self.send(to, delivery),
            false => self.sessions[to as usize].enqueue(delivery),
        }
        self.look_at(to);
    }

    /// A message that has an ordinal is not sent.
    fn pass_over(&mut self, to: SessionId, qos: QoS) {
        if qos != QoS::AtMostOnce {
            self.sessions[to as usize].ring.skip();
            self.touch(to);
        }
    }

    /// Sends a message that waited, unless its time is over.
    pub(super) fn send_aged(&mut self, to: SessionId, delivery: Delivery, now: Instant) {
        match delivery.aged(self.sessions[to as usize].version, now) {
            Some(frame) => self.send(to, Delivery { frame, ..delivery }),
            None => {
                self.counters.dropped_expired += 1; // [MQTT-3.3.2-5]
                self.pass_over(to, delivery.frame.qos());
            }
        }
    }

    /// Sends a message to a connected session and, if its QoS wants that, keeps it until it is answered.
    #[inline]
    fn send(&mut self, to: SessionId, delivery: Delivery) {
        let session = &mut self.sessions[to as usize];
        let Some(id) = session.connection else { return };
        let (frame, qos) = (&delivery.frame, delivery.frame.qos());
        if self.wires.get(id).is_none_or(|connection| frame.len() > connection.packet_bytes_max) {
            self.counters.dropped_oversize += 1; // [MQTT-3.1.2-25]
            return self.pass_over(to, qos);
        }
        // [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-3] [MQTT-3.3.1-3] [MQTT-2.2.1-4]
        match qos {
            QoS::AtMostOnce => self.wires.send_frame(id, frame, None, false),
            _ => {
                self.wires.send_frame(id, frame, Some(session.ring.next_id()), false);
                session.ring.push(delivery);
                self.in_flight += 1;
            }
        }
        self.counters.sent += 1;
    }
}

/// How many bytes may wait for a client that is sent one more.
#[inline]
pub(super) fn waiting_max(qos: QoS, pressure: Pressure) -> usize {
    if qos == QoS::AtMostOnce && pressure >= Pressure::Slow { SLOW_BYTES } else { OUT_BYTES_MAX }
}

/// How ready a session is for a shared group's messages.
pub(super) fn presence_of(session: &Session, wires: &Wires, pressure: Pressure) -> Presence {
    match session.connection {
        None if session.is_full => Presence::FullAndGone,
        None => Presence::Gone,
        Some(_) if is_ready(session, wires, pressure) => Presence::Ready,
        Some(_) if session.is_full => Presence::Full,
        Some(_) if session.has_many_shares() => Presence::Ready,
        Some(_) => Presence::Busy,
    }
}

/// True if the session's client can be sent a QoS 1 or 2 message now.
fn is_ready(session: &Session, wires: &Wires, pressure: Pressure) -> bool {
    let connection = session.connection.and_then(|id| wires.get(id));
    !session.has_backlog()
        && session.ring.has_room(session.window)
        && !(pressure.keeps_queues_short() && session.ring.bytes() > SHORT_QUEUE_BYTES)
        && connection.is_some_and(|connection| connection.waiting() <= OUT_BYTES_MAX)
}

fn own_bytes(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.append_to(&mut bytes, None, false);
    bytes
}
