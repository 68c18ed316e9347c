//! What clients send: bytes to packets, each to the function that holds its meaning, and who is not read for a while.

use std::time::Instant;

use super::connection::{Connection, State};
use super::pressure::{PART_BYTES, Pressure};
use super::{ConnectionId, Core, Fault, SessionId};
use crate::mqtt::{self, Packet, PacketType, Violation};

/// How many bytes of a client may cost more than others, and how many times as much.
const FEW_BYTES: usize = 8 * 1024;
const FEW_MAY_COST: u64 = 8;
/// How many SUBSCRIBEs of a client may wait for other shards before the next one is not read: each may hold as many filters as a
/// packet has room for.
const SUBSCRIBING_MAX: u32 = 16;

impl Core {
    /// Bytes came. Returns how many of them were used; the rest must come again, with more behind it. Nothing is used
    /// while the connection does not [read](Core::reads).
    pub fn handle_bytes(&mut self, id: ConnectionId, bytes: &[u8], now: Instant) -> usize {
        self.handle_some(id, bytes, u64::MAX, now)
    }

    /// The same, but no more once what they brought cost this shard so many bytes of [work](Core::routed); a few bytes may cost
    /// more, for what goes to very many goes out better together.
    pub fn handle_some(&mut self, id: ConnectionId, bytes: &[u8], work_max: u64, now: Instant) -> usize {
        let (mut used, mut before) = (0, None);
        let work_end =
            [1, FEW_MAY_COST].map(|times| self.routed.saturating_add(work_max.saturating_mul(times)));
        if let Some(connection) = self.wires.get_mut(id) {
            connection.last_seen = now;
            if let Some(last) = &mut connection.last_topic {
                last.is_apart = false;
            }
            before = connection.last_topic();
        }
        let before = before.as_deref().unwrap_or_default();
        self.mesh.shows.renew();
        while let Some(connection) = self.wires.get(id).filter(|connection| self.reads_from(connection))
            && !self.mesh.is_congested()
            && self.routed < work_end[usize::from(used < FEW_BYTES)]
        {
            if (connection.subscribing > 0 || connection.awaits_shows)
                && waits_for_others(connection, &bytes[used..])
            {
                self.hold_back(id);
                break;
            }
            if let State::Open(session) = connection.state {
                if let Some(first) = mqtt::plain_puback(&bytes[used..]) {
                    match self.handle_pubacks(session, first, &bytes[used..], now) {
                        Ok(length) => used += length,
                        Err(fault) => self.close(id, fault, now),
                    }
                    continue;
                }
                if connection.may_begin_row(&bytes[used..])
                    && let Some(length) = self.handle_row(id, &bytes[used..])
                {
                    used += length;
                    continue;
                }
            }
            let Some(connection) = self.wires.get(id) else { break };
            let terms = &connection.terms.packets;
            match mqtt::decode_after(&bytes[used..], connection.version, terms, before) {
                Ok(Some((packet, length))) => {
                    let whole = &bytes[used..used + length];
                    used += length;
                    if let Err(fault) = self.handle_packet(id, packet, whole, now) {
                        self.close(id, fault, now);
                    }
                }
                Ok(None) => {
                    if bytes.len() - used > PART_BYTES {
                        self.handle_part(id, now);
                    }
                    break;
                }
                // [MQTT-4.13.1-1] [MQTT-3.1.4-1]
                Err(violation) => {
                    if let Some(version) = mqtt::connack_version(&bytes[used..]) {
                        self.introduce(id, version);
                    }
                    self.close(id, Fault::Violation(violation), now);
                }
            }
        }
        used
    }

    /// Holds back what a client sent behind a SUBSCRIBE that waits for other shards.
    fn hold_back(&mut self, id: ConnectionId) {
        if let Some(connection) = self.wires.get_mut(id) {
            connection.is_held_back = true;
        }
    }

    /// More than [`PART_BYTES`] came of a packet that is not whole. While nothing is taken in, its connection ends.
    pub fn handle_part(&mut self, id: ConnectionId, now: Instant) {
        if self.pressure == Pressure::Closed {
            self.close(id, Fault::MemoryShort, now);
        }
    }

    /// True while bytes from this connection may be handled; false while it waits for a [`Verdict`](super::Verdict), leaves
    /// answers unread, has too many unanswered, or is closed, and while other shards are behind. It turns true again no later
    /// than something was sent to it, or with [`Effect::Resume`](super::Effect::Resume) or [`Effect::Read`](super::Effect::Read).
    pub fn reads(&self, id: ConnectionId) -> bool {
        !self.mesh.is_congested() && self.wires.get(id).is_some_and(|connection| self.reads_from(connection))
    }

    #[inline]
    fn reads_from(&self, connection: &Connection) -> bool {
        connection.reads() && !self.keeps_waiting(connection)
    }

    /// True if a connection is not read for the store's or other shards' sake: so much of it waits for them, or they are behind
    /// and this one has something to do with it.
    pub(super) fn keeps_waiting(&self, connection: &Connection) -> bool {
        let (waits, is_most) = connection.waits();
        is_most
            || connection.is_held_back
            || waits && (self.ledger.is_full() || self.unanswered.is_full())
            || self.ledger.is_flooded() && self.is_stored(connection)
    }

    fn is_stored(&self, connection: &Connection) -> bool {
        let session = connection.session().and_then(|session| self.sessions.get(session as usize));
        session.is_some_and(|session| session.number.is_some())
    }

    /// Handles a packet, whose bytes are `whole`.
    #[inline]
    fn handle_packet(
        &mut self,
        id: ConnectionId,
        packet: Packet,
        whole: &[u8],
        now: Instant,
    ) -> Result<(), Fault> {
        let connection = self.wires.get(id).ok_or(Fault::ClientLeft)?;
        match (&connection.state, packet) {
            (State::Open(session), Packet::Publish(publish)) => {
                let came_in = connection.version;
                self.handle_publish(id, *session, publish, (came_in, whole), now)
            }
            (State::Open(session), packet) => self.handle_open(id, *session, packet, now),
            (State::AwaitConnect, Packet::Connect(connect)) => self.handle_connect(id, &connect, now),
            (State::AwaitConnect, _) => Err(Violation::FirstPacketNotConnect.into()), // [MQTT-3.1.0-1]
            (State::AwaitAuth(_), Packet::Auth(auth)) => self.handle_early_auth(id, &auth),
            (State::AwaitAuth(_), Packet::Disconnect(_)) => Err(Fault::ClientLeft),
            (State::AwaitAuth(_), _) => Err(Violation::UnexpectedPacket.into()), // [MQTT-3.1.2-30]
            // [MQTT-3.1.4-6]
            (State::AwaitVerdict(_) | State::AwaitStore(_) | State::Closed, _) => Ok(()),
        }
    }

    fn handle_open(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        packet: Packet,
        now: Instant,
    ) -> Result<(), Fault> {
        match packet {
            Packet::PubAck(ack) => self.handle_pubacks(session, ack.packet_id, &[], now).map(drop),
            Packet::PubRec(ack) => self.handle_pubrec(id, session, &ack, now),
            Packet::PubRel(ack) => self.handle_pubrel(id, session, &ack),
            Packet::PubComp(ack) => self.handle_pubcomp(session, &ack, now),
            Packet::Subscribe(subscribe) => self.handle_subscribe(id, session, &subscribe, now),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(id, session, &unsubscribe, now),
            Packet::PingReq => {
                self.reply(id, &Packet::PingResp) // [MQTT-3.12.4-1]
            }
            Packet::Disconnect(disconnect) => self.handle_disconnect(id, session, &disconnect, now),
            Packet::Connect(_) => Err(Violation::SecondConnect.into()), // [MQTT-3.1.0-2]
            Packet::Auth(auth) => self.handle_auth(id, &auth),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Violation::UnexpectedPacket.into())
            }
            Packet::Publish(_) => unreachable!("PUBLISH was handled before"),
        }
    }

    /// Sends a packet that is not a PUBLISH.
    pub(super) fn reply(&mut self, id: ConnectionId, packet: &Packet) -> Result<(), Fault> {
        let version = self.wires.get(id).map(|connection| connection.version).ok_or(Fault::ClientLeft)?;
        let is_sent = self.wires.answer(id, |out| packet.encode(version, out));
        if is_sent { Ok(()) } else { Err(Fault::AnswerTooLarge) }
    }
}

/// True if what comes next waits: until SUBACK, as its answer would come before that, and a PUBLISH until searches have begun, as
/// what it brings would. (Those of a connection with neither are not asked about.)
fn waits_for_others(connection: &Connection, next: &[u8]) -> bool {
    let is_next = |kind| next.first().is_some_and(|first| first >> 4 == kind as u8);
    match is_next(PacketType::Subscribe) {
        true => connection.subscribing >= SUBSCRIBING_MAX,
        false => connection.subscribing > 0 && !next.is_empty() || is_next(PacketType::Publish),
    }
}
