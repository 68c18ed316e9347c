//! What waits for a session, sent as far as its client takes it, and in turn.
//!
//! A client that comes back, reads or acknowledges makes room for much, and where a crowd does so at the same moment, all of it
//! would be put into buffers before anybody else is heard. So each session gets a part at a time, and all together no more than a
//! turn has: who finds nothing left, or has more, stands in line, first come first served, and [`Core::handle_work`] goes on with
//! them. Nobody overtakes who stands there.
//!
//! A session in line has something that waits, as far as this shard knew when it came; who left since costs nothing.

use std::collections::VecDeque;
use std::time::Instant;

use super::deliver::OUT_BYTES_MAX;
use super::ring::Slot;
use super::{Core, SessionId};
use crate::mqtt::{Ack, Packet, QoS};

/// How many bytes of what waits are sent in a turn, for all sessions together, …
const TURN_BYTES: u64 = 1 << 20;
/// … and for one, before others have their part.
const PART_BYTES: u64 = 64 * 1024;
/// What a message costs besides its bytes: many may be too old to be sent.
const MESSAGE_BYTES: u64 = 64;

/// Who waits to be sent more.
#[derive(Default)]
pub(super) struct Pumps {
    line: VecDeque<SessionId>,
    /// How many bytes were sent since [`Core::pump_on`].
    sent: u64,
}

impl Pumps {
    #[inline]
    pub(super) fn has_line(&self) -> bool {
        !self.line.is_empty()
    }
}

impl Core {
    /// Sends what waits, as far as the client takes it: first what an earlier connection left unanswered, then the queue; or has
    /// it stand in line for that.
    // [MQTT-4.9.0-2] [MQTT-4.9.0-3] [MQTT-3.3.4-10]
    pub(super) fn pump(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let waits = session.has_backlog() && session.connection.is_some();
        if waits && !session.is_in_line {
            let is_next = !self.pumps.has_line() && self.pumps.sent < TURN_BYTES;
            if !is_next || self.send_part(id, now) {
                self.sessions[id as usize].is_in_line = true;
                self.pumps.line.push_back(id);
            }
        }
        self.look_at(id);
    }

    /// A turn of those who stand in line.
    pub(super) fn pump_on(&mut self, now: Instant) {
        self.pumps.sent = 0;
        while self.pumps.sent < TURN_BYTES
            && let Some(id) = self.pumps.line.pop_front()
        {
            let Some(session) = self.sessions.get_mut(id as usize) else { continue };
            session.is_in_line = false;
            if self.send_part(id, now) {
                self.sessions[id as usize].is_in_line = true;
                self.pumps.line.push_back(id);
            }
            self.look_at(id);
        }
    }

    /// Sends a part of what waits. True if it would send more.
    fn send_part(&mut self, id: SessionId, now: Instant) -> bool {
        let (before, mut count) = (self.wires.appended, 0);
        let mut cost = 0;
        while cost < PART_BYTES && self.send_next(id, now) {
            count += 1;
            cost = self.wires.appended - before + count * MESSAGE_BYTES;
        }
        self.pumps.sent += cost;
        cost >= PART_BYTES
    }

    /// Sends the next packet of what waits, or drops it. False if there is none, or the client takes none now: who wakes it is the
    /// client or the store.
    fn send_next(&mut self, id: SessionId, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(id as usize) else { return false };
        let connection = session.connection.and_then(|id| self.wires.get(id));
        if connection.is_none_or(|connection| connection.waiting() > OUT_BYTES_MAX / 2) {
            return false;
        }
        if let Some(unsent) = &session.unsent {
            let next = unsent.front().and_then(|&next| session.ring.get(next));
            let is_release = matches!(next, Some(Slot::Released));
            let has_room = session.ring.open().saturating_sub(unsent.len()) < session.window;
            let may_go = if is_release { session.unsafe_releases == 0 } else { has_room };
            if may_go {
                self.repeat_next(id);
            }
            return may_go;
        }
        let Some(front) = session.queue.front() else { return false };
        let qos = front.frame.qos();
        if qos != QoS::AtMostOnce && !session.ring.has_room(session.window) {
            return false;
        }
        if session.holds(qos) && session.ring.end() >= session.safe_until {
            return false;
        }
        if let Some(delivery) = session.dequeue() {
            self.send_aged(id, delivery, now);
        }
        true
    }

    /// Sends the next unanswered packet of an earlier connection again. [MQTT-4.4.0-1]
    // [MQTT-4.6.0-1] [MQTT-4.3.3-7] [MQTT-4.8.2-4]
    fn repeat_next(&mut self, id: SessionId) {
        let session = &mut self.sessions[id as usize];
        let (Some(packet_id), Some(connection)) = (session.next_unsent(), session.connection) else {
            return;
        };
        let limit = self.wires.get(connection).map_or(0, |connection| connection.packet_bytes_max);
        let version = session.version;
        match session.ring.get(packet_id) {
            Some(Slot::Sent(delivery)) if delivery.frame.len() > limit => {
                session.ring.refuse(packet_id);
                self.in_flight -= 1;
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
