//! The acknowledgements of clients: what they say of our messages, and how QoS 2 goes on in both directions.
//!
//! The second half of QoS 2 waits for the store. A PUBREL that left before it is safe that PUBREC came would let
//! the client forget the packet id, and after a restart the message would come again as a new one; a PUBCOMP that left
//! before it is safe that PUBREL came would let the client use the packet id again, and the next message would pass for the
//! last one.

use std::time::Instant;

use super::delivery::Encoder;
use super::ring::Ring;
use super::{ConnectionId, Core, Fault, SessionId};
use crate::mqtt::{self, Ack, Packet, PacketId, PacketType, Properties, QoS, ReasonCode, Violation};
use crate::store::Token;

/// A PUBREL or PUBCOMP that waits for the store; and a PUBREC, of a message that came again while there is none.
pub(super) struct Uncompleted {
    pub(super) token: Token,
    packet: PacketType,
    packet_id: PacketId,
    reason: ReasonCode,
}

impl Core {
    /// Handles a PUBACK and, if `bytes` begin with it and without a reason, those that follow. Returns how many bytes they are.
    /// They come in numbers, and bring nothing that would keep the next from being read.
    pub(super) fn handle_pubacks(
        &mut self,
        session: SessionId,
        first: PacketId,
        bytes: &[u8],
        now: Instant,
    ) -> Result<usize, Fault> {
        let Core { sessions, encoder, in_flight, .. } = self;
        let ring = &mut sessions[session as usize].ring;
        let (mut next, mut used, mut ended) = (Some(first), 0, 0);
        let mut outcome = Ok(());
        while let Some(packet_id) = next.filter(|_| outcome.is_ok()) {
            outcome = take_puback(ring, encoder, packet_id).map(|is_one| ended += usize::from(is_one));
            used += mqtt::PLAIN_ACK_BYTES;
            next = bytes.get(used..).and_then(mqtt::plain_puback);
        }
        *in_flight -= ended;
        if ended > 0 {
            self.touch(session);
            match self.sessions[session as usize].has_backlog() {
                true => self.pump(session, now),
                false => self.look_at(session),
            }
        }
        outcome.map(|()| used)
    }

    pub(super) fn handle_pubrec(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        ack: &Ack,
        now: Instant,
    ) -> Result<(), Fault> {
        let ring = &mut self.sessions[session as usize].ring;
        if ring.awaits(ack.packet_id, Some(QoS::AtLeastOnce)) {
            return Err(Violation::UnexpectedPacket.into());
        }
        if ack.reason.is_error() {
            // [MQTT-4.4.0-2] [MQTT-4.8.2-6]
            if ring.refuse(ack.packet_id) {
                self.in_flight -= 1;
                self.touch(session);
            }
            self.pump(session, now);
            return Ok(());
        }
        // [MQTT-4.3.3-6] [MQTT-4.6.0-4]
        match ring.receive(ack.packet_id) {
            None => return self.reply(id, &Packet::PubRel(unknown(ack))),
            Some(false) => {} // it said so before
            Some(true) => {
                self.touch(session);
                self.note_release(session);
            }
        }
        self.complete(id, session, PacketType::PubRel, ack.packet_id, ReasonCode::Success); // [MQTT-4.3.3-4]
        Ok(())
    }

    pub(super) fn handle_pubrel(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        ack: &Ack,
    ) -> Result<(), Fault> {
        // [MQTT-4.3.3-12] [MQTT-4.3.3-13]
        let reason = match self.sessions[session as usize].release(ack.packet_id) {
            true => {
                self.make_room(id, 1);
                self.touch(session);
                ReasonCode::Success
            }
            // That it was released before may not be safe yet, and then it must not be said.
            false => ReasonCode::PacketIdentifierNotFound,
        };
        self.complete(id, session, PacketType::PubComp, ack.packet_id, reason); // [MQTT-4.3.3-11]
        Ok(())
    }

    pub(super) fn handle_pubcomp(
        &mut self,
        session: SessionId,
        ack: &Ack,
        now: Instant,
    ) -> Result<(), Fault> {
        let ring = &mut self.sessions[session as usize].ring;
        // [MQTT-4.3.3-5]
        if ring.complete(ack.packet_id) {
            self.in_flight -= 1;
            self.touch(session);
            self.pump(session, now);
        } else if ring.get(ack.packet_id).is_some() {
            return Err(Violation::UnexpectedPacket.into());
        }
        Ok(())
    }

    /// Sends PUBREL or PUBCOMP; to the client of a stored session once all is safe that it hangs on.
    pub(super) fn complete(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        packet: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
    ) {
        let is_stored = self.sessions[session as usize].number.is_some();
        let token = if is_stored { self.ledger.token_so_far() } else { Token(0) };
        let one = Uncompleted { token, packet, packet_id, reason };
        if token <= self.safe {
            return self.complete_now(id, &one);
        }
        let Some(connection) = self.wires.get_mut(id) else { return };
        let queue = connection.uncompleted.get_or_insert_default();
        if queue.back().is_none_or(|last| last.token != token) && !self.ledger.refuses() {
            self.uncompleted.push_back((token, id));
        }
        queue.push_back(one);
    }

    /// Everything up to this token is safe: goes on with QoS 2 where that was waited for.
    pub(super) fn complete_up_to(&mut self, token: Token) {
        while let Some(&(_, id)) = self.uncompleted.front().filter(|(waits, _)| *waits <= token) {
            self.uncompleted.pop_front();
            while let Some(one) = self.next_completed(id, token) {
                self.complete_now(id, &one);
            }
        }
    }

    fn next_completed(&mut self, id: ConnectionId, token: Token) -> Option<Uncompleted> {
        let queue = self.wires.get_mut(id)?.uncompleted.as_mut()?;
        queue.front().is_some_and(|one| one.token <= token).then(|| queue.pop_front()).flatten()
    }

    fn complete_now(&mut self, id: ConnectionId, one: &Uncompleted) {
        let ack = Ack { packet_id: one.packet_id, reason: one.reason, properties: Properties::EMPTY };
        // A few bytes: who takes fewer got no PUBLISH.
        let _ = match one.packet {
            PacketType::PubRec => self.reply(id, &Packet::PubRec(ack)),
            PacketType::PubRel => self.reply(id, &Packet::PubRel(ack)), // [MQTT-4.3.3-4]
            _ => self.reply(id, &Packet::PubComp(ack)),                 // [MQTT-4.3.3-11]
        };
    }
}

/// True if a message is acknowledged that was not before.
#[inline]
fn take_puback(ring: &mut Ring, encoder: &mut Encoder, packet_id: PacketId) -> Result<bool, Fault> {
    // An unknown id is an echo of an earlier connection: nothing to do.
    // [MQTT-4.3.2-3] [MQTT-4.4.0-2] [MQTT-4.8.2-6]
    if let Some(delivery) = ring.acknowledge(packet_id) {
        encoder.take_back(delivery);
        return Ok(true);
    }
    match ring.get(packet_id) {
        Some(_) => Err(Violation::UnexpectedPacket.into()), // what is in flight with this id is of QoS 2
        None => Ok(false),
    }
}

fn unknown(ack: &Ack) -> Ack<'static> {
    let reason = ReasonCode::PacketIdentifierNotFound;
    Ack { packet_id: ack.packet_id, reason, properties: Properties::EMPTY }
}
