//! The answers to what clients send, each once it may leave.
//!
//! A QoS 1 or 2 message is acknowledged once whatever must survive has it: at once when no stored session and no
//! retained message is concerned, else when the store says `Persisted`. The acknowledgements of a connection leave in the
//! order in which the messages came, so one that need not wait for the store waits for those before it; and
//! so do SUBACK and UNSUBACK.

use std::collections::VecDeque;
use std::time::Instant;

use super::mesh::Need;
use super::{ConnectionId, Core, Fault};
use crate::mqtt::{self, Ack, Packet, PacketId, PacketType, Properties, QoS, ReasonCode, Version};
use crate::store::Token;

/// How many bytes of messages may wait for other shards before publishers that wait are no longer read. Mail has bounds of
/// its own, but not where it goes on: a shard takes what it is sent even if it cannot get rid of it.
const AWAITED_BYTES_MAX: usize = 4 << 20;

/// An answer that waits for the store, for other shards, or for those before it.
pub(super) struct Unanswered {
    token: Token,
    need: Need,
    connection: ConnectionId,
    answer: Answer,
    /// What waits with it on its way through other shards.
    bytes: usize,
}

/// The answers that wait, oldest first.
#[derive(Default)]
pub(super) struct Waiting {
    queue: VecDeque<Unanswered>,
    /// The sum over the queue.
    bytes: usize,
}

impl Waiting {
    /// True if so much waits for other shards that who waits must not bring more.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.bytes > AWAITED_BYTES_MAX
    }

    fn push(&mut self, one: Unanswered) {
        self.bytes += one.bytes;
        self.queue.push_back(one);
    }

    fn pop(&mut self) -> Option<Unanswered> {
        let one = self.queue.pop_front()?;
        self.bytes -= one.bytes;
        Some(one)
    }
}

enum Answer {
    /// PUBACK or PUBREC.
    Acknowledge(PacketId, QoS, ReasonCode),
    /// The PUBACKs of a row.
    Row(Box<[PacketId]>),
    /// SUBACK or UNSUBACK, encoded.
    Packet(Vec<u8>),
    /// Whatever comes of a CONNECT.
    Enter,
}

/// A QoS 2 message that the store failed with. It is with its recipients, so to refuse it would make it two.
pub(super) struct Unsafe {
    pub(super) connection: ConnectionId,
    packet_id: PacketId,
    reason: ReasonCode,
}

impl Answer {
    /// How many packets it is.
    fn count(&self) -> u32 {
        match self {
            Answer::Row(packet_ids) => packet_ids.len() as u32,
            _ => 1,
        }
    }
}

impl Core {
    // [MQTT-4.6.0-2]
    /// Acknowledges a QoS 1 or 2 message, once it may be.
    pub(super) fn answer(
        &mut self,
        id: ConnectionId,
        packet_id: PacketId,
        qos: QoS,
        reason: ReasonCode,
        token: Token,
        bytes: usize,
    ) {
        let need = self.mesh.take_need();
        if token <= self.safe && need.is_empty() && !self.has_unanswered(id) {
            self.acknowledge(id, packet_id, qos, reason);
        } else {
            let bytes = if need.is_empty() { 0 } else { bytes };
            self.answer_later(id, token, need, Answer::Acknowledge(packet_id, qos, reason), bytes);
        }
    }

    /// Acknowledges the messages of a row, of so many bytes, once others have them: all together.
    pub(super) fn answer_row(
        &mut self,
        id: ConnectionId,
        packet_ids: impl Iterator<Item = PacketId>,
        bytes: usize,
    ) {
        let need = self.mesh.take_need();
        if need.is_empty() && !self.has_unanswered(id) {
            return self.wires.acknowledge(id, packet_ids);
        }
        let packet_ids: Box<[_]> = packet_ids.collect();
        if let Some(connection) = self.wires.get_mut(id) {
            connection.receiving += packet_ids.len() as u32;
        }
        let bytes = if need.is_empty() { 0 } else { bytes };
        self.answer_later(id, Token(0), need, Answer::Row(packet_ids), bytes);
    }

    /// Sends an answer, once what was changed since `before` is safe.
    pub(super) fn reply_once_safe(
        &mut self,
        id: ConnectionId,
        packet: &Packet,
        before: u64,
    ) -> Result<(), Fault> {
        let token = self.token_if(self.ledger.changes() != before);
        if token == Token(0) && !self.has_unanswered(id) {
            return self.reply(id, packet);
        }
        let connection = self.wires.get(id).ok_or(Fault::ClientLeft)?;
        let mut bytes = Vec::new();
        packet.encode(connection.version, &mut bytes);
        if bytes.len() > connection.packet_bytes_max {
            return Err(Fault::AnswerTooLarge); // [MQTT-3.1.2-24]
        }
        self.answer_later(id, token, Need::new(), Answer::Packet(bytes), 0);
        Ok(())
    }

    /// What has to be waited for after a change that the store has to hear of; 0 for none.
    pub(super) fn token_if(&self, must_wait: bool) -> Token {
        let waits = must_wait && self.ledger.is_on() && !self.ledger.refuses();
        if waits { self.ledger.token() } else { Token(0) }
    }

    /// True if answers to this client wait: the next one leaves behind them.
    fn has_unanswered(&self, id: ConnectionId) -> bool {
        self.wires.get(id).is_some_and(|connection| connection.unanswered > 0)
    }

    /// Lets a client in once all that came so far is safe.
    pub(super) fn enter_once_safe(&mut self, id: ConnectionId) {
        self.answer_later(id, self.ledger.token(), Need::new(), Answer::Enter, 0);
    }

    fn answer_later(&mut self, id: ConnectionId, token: Token, need: Need, answer: Answer, bytes: usize) {
        let Some(connection) = self.wires.get_mut(id) else { return };
        connection.unanswered += answer.count();
        self.unanswered.push(Unanswered { token, need, connection: id, answer, bytes });
    }

    /// Answers whom nothing keeps waiting any more.
    pub(super) fn settle_answers(&mut self, now: Instant) {
        while let Some(one) = self.unanswered.queue.front()
            && one.token <= self.safe
            && self.mesh.is_met(&one.need)
            && let Some(one) = self.unanswered.pop()
        {
            self.answer_now(one.connection, one.answer, now);
        }
    }

    // [MQTT-3.3.4-1] [MQTT-2.2.1-5] [MQTT-4.6.0-3]
    fn answer_now(&mut self, id: ConnectionId, answer: Answer, now: Instant) {
        if let Some(connection) = self.wires.get_mut(id) {
            connection.unanswered -= answer.count();
        }
        match answer {
            Answer::Acknowledge(packet_id, qos, reason) => self.acknowledge(id, packet_id, qos, reason),
            Answer::Row(packet_ids) => {
                self.make_room(id, packet_ids.len() as u32);
                self.wires.acknowledge(id, packet_ids.iter().copied());
            }
            Answer::Packet(bytes) => {
                // Its length was looked at when it was encoded.
                let _ = self.wires.answer(id, |out| out.extend_from_slice(&bytes));
            }
            Answer::Enter => self.enter_at_last(id, now),
        }
    }

    /// Refuses the messages whose answer waits for a store that failed: at QoS 1 one may come twice. At QoS 2 it may not, so
    /// the answer waits until the store is back; refusals of what comes later overtake it. A subscription holds: it is in
    /// memory, and is stored when the store is back.
    pub(super) fn refuse_unanswered(&mut self, now: Instant) {
        for one in std::mem::take(&mut self.unanswered).queue {
            let id = one.connection;
            let Some(connection) = self.wires.get_mut(id) else { continue };
            match one.answer {
                Answer::Acknowledge(packet_id, QoS::ExactlyOnce, reason) if !reason.is_error() => {
                    connection.unanswered -= 1;
                    let token = if one.token > self.safe { self.ledger.token() } else { one.token };
                    self.mesh.hold(token, one.need, Unsafe { connection: id, packet_id, reason });
                }
                Answer::Acknowledge(_, _, reason) if reason.is_error() => {
                    self.answer_now(id, one.answer, now);
                }
                Answer::Acknowledge(..) | Answer::Row(_) if connection.version == Version::V3 => {
                    self.close(id, Fault::QuotaExceeded, now);
                }
                Answer::Acknowledge(packet_id, qos, _) => {
                    self.answer_now(id, Answer::Acknowledge(packet_id, qos, ReasonCode::QuotaExceeded), now);
                }
                Answer::Row(packet_ids) => {
                    connection.unanswered -= packet_ids.len() as u32;
                    for packet_id in packet_ids {
                        self.acknowledge(id, packet_id, QoS::AtLeastOnce, ReasonCode::QuotaExceeded);
                    }
                }
                other => self.answer_now(id, other, now),
            }
        }
    }

    /// Acknowledges a message that the store failed with and now has.
    pub(super) fn acknowledge_at_last(&mut self, one: &Unsafe) {
        self.acknowledge(one.connection, one.packet_id, QoS::ExactlyOnce, one.reason);
    }

    fn acknowledge(&mut self, id: ConnectionId, packet_id: PacketId, qos: QoS, reason: ReasonCode) {
        let ack = Ack { packet_id, reason, properties: Properties::EMPTY };
        if qos == QoS::AtLeastOnce || reason.is_error() {
            self.make_room(id, 1);
        }
        if reason.is_error() {
            return self.reply_refusal(id, ack, qos);
        }
        // Four or five bytes: who takes fewer gets none.
        let (plain, packet) = match qos {
            QoS::ExactlyOnce => (PacketType::PubRec, Packet::PubRec(ack)), // [MQTT-4.3.3-8]
            _ => (PacketType::PubAck, Packet::PubAck(ack)),                // [MQTT-4.3.2-4]
        };
        if reason == ReasonCode::Success {
            let bytes = mqtt::plain_ack(plain, packet_id);
            let _ = self.wires.answer(id, |out| out.extend_from_slice(&bytes));
        } else {
            let _ = self.reply(id, &packet);
        }
    }
}
