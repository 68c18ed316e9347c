//! A message to its recipients: routing, each session's window, queue and buffer, and what waits there.

use std::time::Instant;

use super::delivery::{Delivery, Outgoing};
use super::mesh::Away;
use super::pressure::{Pressure, SHORT_QUEUE_BYTES, SLOW_BYTES};
use super::recipients::{Grant, Recipients, Subscriber};
use super::ring::Slot;
use super::routes::GroupId;
use super::session::Session;
use super::wires::Wires;
use super::{Core, SessionId};
use crate::mqtt::{Ack, Frame, Packet, QoS};

/// How many bytes may wait in a connection's buffer before QoS 0 is dropped and the rest queued. A subscriber that is
/// slower than its publishers for a moment needs room for that moment; one that is slower for good must not cost memory.
pub(super) const OUT_BYTES_MAX: usize = 4 << 20;

/// The member of a shared group whose turn it is.
enum Chosen {
    Here(Subscriber),
    There(Away),
}

impl Core {
    // [MQTT-4.5.0-1] [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.3.2-3]
    /// Hands a message to local sessions and to one member of each local shared group. Returns how many it was for.
    pub(super) fn route(
        &mut self,
        recipients: &Recipients,
        outgoing: &Outgoing,
        publisher: Option<SessionId>,
    ) -> usize {
        let mut count = 0;
        self.encoder.begin();
        for recipient in &recipients.sessions {
            let Some(grant) = recipient.grant(publisher) else { continue };
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            let retain = outgoing.publish.retain && grant.retain_as_published;
            self.deliver(recipient.session, grant, outgoing, retain, None);
            count += 1;
        }
        for &group in &recipients.groups {
            count += usize::from(self.route_to_group(group, outgoing));
        }
        count
    }

    /// Hands a message of a shared group to another of its members.
    pub(super) fn route_again(&mut self, group: GroupId, outgoing: &Outgoing) {
        self.encoder.begin();
        self.route_to_group(group, outgoing);
    }

    /// False if nobody of the group can take it.
    fn route_to_group(&mut self, group: GroupId, outgoing: &Outgoing) -> bool {
        let member = match self.choose(group, outgoing.publish.qos) {
            Some(Chosen::Here(member)) => member,
            Some(Chosen::There(away)) => {
                self.assign(&away, group, outgoing);
                return true;
            }
            None => return false,
        };
        let grant = Grant::of(&member);
        let retain = outgoing.publish.retain && grant.retain_as_published;
        self.deliver(member.session, &grant, outgoing, retain, Some(group));
        true
    }

    /// The member whose turn it is: one that can take it now, else one that is connected, else one that comes back.
    /// Of a member on another shard only that is known whether it is connected.
    fn choose(&mut self, group: GroupId, qos: QoS) -> Option<Chosen> {
        let group = self.routes.group_mut(group)?;
        let here = group.members.len();
        let count = here + group.away.len();
        let turn = |step: usize| (group.cursor + step) % count;
        let find = |fits: &dyn Fn(&Session) -> bool| {
            (0..count).map(turn).find(|&at| match group.members.get(at) {
                Some(member) => fits(&self.sessions[member.session as usize]),
                None => group.away[at - here].is_connected,
            })
        };
        let qos_of = |at: usize| match group.members.get(at) {
            Some(member) => member.qos,
            None => group.away[at - here].qos,
        };
        let at = find(&|session| is_ready(session, &self.wires))
            .or_else(|| find(&|session| session.connection.is_some()))
            .or_else(|| (0..count).map(turn).find(|&at| qos.min(qos_of(at)) > QoS::AtMostOnce))?;
        group.cursor = at + 1;
        Some(match group.members.get(at) {
            Some(member) => Chosen::Here(*member),
            None => Chosen::There(group.away[at - here]),
        })
    }

    /// Hands a message to one session.
    pub(super) fn deliver(
        &mut self,
        to: SessionId,
        grant: &Grant,
        outgoing: &Outgoing,
        retain: bool,
        group: Option<GroupId>,
    ) {
        // [MQTT-3.8.4-8] [MQTT-4.8.2-3]
        let qos = outgoing.publish.qos.min(grant.qos);
        if qos == QoS::AtMostOnce {
            return self.deliver_once(to, grant, outgoing, retain);
        }
        let session = &self.sessions[to as usize];
        let frame = self.encoder.frame(outgoing, session.version, qos, retain, grant);
        let delivery = Delivery { frame, expires_at: outgoing.expires_at, group };
        self.keep(to, delivery);
    }

    /// Hands a retained message to a session that asked for it. What its buffer has no room for waits in its queue: a
    /// wide filter brings many messages at once, and the client did nothing wrong. False if that has no room either.
    pub(super) fn deliver_patiently(&mut self, to: SessionId, grant: &Grant, outgoing: &Outgoing) -> bool {
        let session = &self.sessions[to as usize];
        let qos = outgoing.publish.qos.min(grant.qos);
        if qos == QoS::AtMostOnce && is_ready(session, &self.wires) {
            self.deliver_once(to, grant, outgoing, true);
            return true;
        }
        let frame = self.encoder.frame(outgoing, session.version, qos, true, grant);
        self.keep(to, Delivery { frame, expires_at: outgoing.expires_at, group: None })
    }

    /// QoS 0: into the connection's buffer, or nowhere.
    // [MQTT-4.3.1-1]
    fn deliver_once(&mut self, to: SessionId, grant: &Grant, outgoing: &Outgoing, retain: bool) {
        let session = &self.sessions[to as usize];
        let Some(id) = session.connection else { return };
        let Some(connection) = self.wires.get(id) else { return };
        let own_frame;
        let bytes = match &grant.identifiers {
            None => self.encoder.bytes(outgoing, session.version, retain),
            Some(_) => {
                own_frame =
                    own_bytes(&self.encoder.frame(outgoing, session.version, QoS::AtMostOnce, retain, grant));
                &own_frame
            }
        };
        if bytes.len() > connection.packet_bytes_max {
            self.counters.dropped_oversize += 1; // [MQTT-3.1.2-25]
        } else if connection.waiting() > OUT_BYTES_MAX {
            self.counters.dropped_slow += 1;
        } else if self.pressure >= Pressure::Slow && connection.waiting() > SLOW_BYTES {
            self.counters.shed_slow += 1;
        } else {
            self.wires.send_publish(id, bytes);
            self.counters.sent += 1;
        }
    }

    /// Sends a message at once if the session can take it, else puts it into its queue. False if that has no room.
    fn keep(&mut self, to: SessionId, delivery: Delivery) -> bool {
        let session = &self.sessions[to as usize];
        let qos = delivery.frame.qos();
        let is_ready = is_ready(session, &self.wires) && !session.holds(qos);
        let is_short = self.pressure >= Pressure::Queues;
        if !is_ready && is_short && session.queue_bytes + delivery.frame.len() > SHORT_QUEUE_BYTES {
            self.counters.shed_queued += 1;
            return false;
        }
        let (max, bytes_max) = (self.limits.queued_messages_max, self.limits.queued_bytes_max);
        if !is_ready && !session.has_room(&delivery, max, bytes_max) {
            self.counters.dropped_queue_full += 1;
            return false;
        }
        if qos != QoS::AtMostOnce {
            self.note_message(to, &delivery);
        }
        match is_ready {
            true => self.send(to, delivery),
            false => self.sessions[to as usize].enqueue(delivery),
        }
        true
    }

    /// A message that has an ordinal is not sent.
    fn pass_over(&mut self, to: SessionId, qos: QoS) {
        if qos != QoS::AtMostOnce {
            self.sessions[to as usize].ring.skip();
            self.touch(to);
        }
    }

    /// Sends a message that waited, unless its time is over.
    fn send_aged(&mut self, to: SessionId, delivery: Delivery, now: Instant) {
        match delivery.aged(self.sessions[to as usize].version, now) {
            Some(frame) => self.send(to, Delivery { frame, ..delivery }),
            None => {
                self.counters.dropped_expired += 1; // [MQTT-3.3.2-5]
                self.pass_over(to, delivery.frame.qos());
            }
        }
    }

    /// Sends a message to a connected session and, if its QoS wants that, keeps it until it is answered.
    fn send(&mut self, to: SessionId, delivery: Delivery) {
        let session = &mut self.sessions[to as usize];
        let Some(id) = session.connection else { return };
        let frame = delivery.frame.clone();
        if self.wires.get(id).is_none_or(|connection| frame.len() > connection.packet_bytes_max) {
            self.counters.dropped_oversize += 1; // [MQTT-3.1.2-25]
            return self.pass_over(to, frame.qos());
        }
        // [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-3] [MQTT-3.3.1-3] [MQTT-2.2.1-4]
        let packet_id = (frame.qos() != QoS::AtMostOnce).then(|| session.ring.push(delivery));
        self.wires.send_frame(id, &frame, packet_id, false);
        self.counters.sent += 1;
    }

    /// Sends what waits, as far as the client takes it: first what an earlier connection left unanswered, then the queue.
    // [MQTT-4.9.0-2] [MQTT-4.9.0-3] [MQTT-3.3.4-10]
    pub(super) fn pump(&mut self, id: SessionId, now: Instant) {
        while let Some(session) = self.sessions.get_mut(id as usize) {
            let connection = session.connection.and_then(|id| self.wires.get(id));
            if connection.is_none_or(|connection| connection.waiting() > OUT_BYTES_MAX / 2) {
                return;
            }
            if !session.unsent.is_empty() {
                if session.ring.open().saturating_sub(session.unsent.len()) >= session.window {
                    return;
                }
                let next = session.unsent.front().and_then(|&next| session.ring.get(next));
                if session.unsafe_releases > 0 && matches!(next, Some(Slot::Released)) {
                    return; // the store wakes it
                }
                self.repeat_next(id);
                continue;
            }
            let Some(front) = session.queue.front() else { return };
            let qos = front.frame.qos();
            if qos != QoS::AtMostOnce && !session.ring.has_room(session.window) {
                return;
            }
            if session.holds(qos) && session.ring.end() >= session.safe_until {
                return; // the store wakes it
            }
            if let Some(delivery) = session.dequeue() {
                self.send_aged(id, delivery, now);
            }
        }
    }

    /// Sends the next unanswered packet of an earlier connection again. [MQTT-4.4.0-1]
    // [MQTT-4.6.0-1] [MQTT-4.3.3-7] [MQTT-4.8.2-4]
    fn repeat_next(&mut self, id: SessionId) {
        let session = &mut self.sessions[id as usize];
        let (Some(packet_id), Some(connection)) = (session.unsent.pop_front(), session.connection) else {
            return;
        };
        let limit = self.wires.get(connection).map_or(0, |connection| connection.packet_bytes_max);
        let version = session.version;
        match session.ring.get(packet_id) {
            Some(Slot::Sent(delivery)) if delivery.frame.len() > limit => {
                session.ring.refuse(packet_id);
                self.counters.dropped_oversize += 1;
                self.touch(id);
            }
            Some(Slot::Sent(delivery)) => {
                self.wires.send_frame(connection, &delivery.frame, Some(packet_id), true); // [MQTT-3.3.1-1]
                self.counters.sent += 1;
            }
            Some(Slot::Released) => {
                let packet = Packet::PubRel(Ack::success(packet_id));
                self.wires.send(connection, |out| packet.encode(version, out));
            }
            Some(Slot::Done) | None => {}
        }
    }
}

/// True if the session's client can be sent a QoS 1 or 2 message now.
fn is_ready(session: &Session, wires: &Wires) -> bool {
    let connection = session.connection.and_then(|id| wires.get(id));
    !session.has_backlog()
        && session.ring.has_room(session.window)
        && connection.is_some_and(|connection| connection.waiting() <= OUT_BYTES_MAX)
}

fn own_bytes(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.append_to(&mut bytes, None, false);
    bytes
}
