//! Messages in a row: PUBLISHes of one client to one topic that lie behind one another in what was read, taken as one.
//!
//! Most publish so, and most of what a message costs by itself is to find out again what was true of the one before. A row has no
//! meaning of its own: what goes out, is kept and is counted is what its messages would bring one by one (`tests/rows` holds
//! it to that). So it is only for what is plain: QoS 0 or 1, not retained, without properties; recipients that get it as it
//! came, with room for all of it, and no store to wait for. Anything else is left to [`Core::handle_publish`]. It crosses to other
//! shards as one, is one there if it can, and its PUBACKs wait for them together.
//!
//! The messages of a row lie in one block as long as one of them is kept, so what a client holds back is more than what it
//! has not acknowledged, which the ring bounds: by its places there times [`MESSAGE_BYTES_MAX`], 32 MiB.

use std::rc::Rc;

use super::connection::{Connection, LastTopic};
use super::deliver::waiting_max;
use super::delivery::{Delivery, Outgoing};
use super::mesh::ShardNumber;
use super::publish::AWAITED_BYTES;
use super::recipients::{Recipient, Recipients};
use super::{ConnectionId, Core, SessionId};
use crate::mqtt::{Frame, PacketType, PlainPublish, Publish, QoS, Version, plain_publish};

/// The largest message of a row: what larger ones cost is mostly to copy them.
const MESSAGE_BYTES_MAX: usize = 512;
/// How many bytes and messages a row has at most.
const ROW_BYTES_MAX: usize = 8 * 1024;
const ROW_MAX: usize = 256;

/// How much of a row there is room for.
struct Room {
    messages: usize,
    bytes: usize,
    /// In one message.
    packet_bytes: usize,
}

impl Room {
    fn is_none(&self) -> bool {
        self.messages < 2 || self.bytes == 0
    }

    fn narrow(&mut self, messages: usize, bytes: usize, packet_bytes: usize) {
        self.messages = self.messages.min(messages);
        self.bytes = self.bytes.min(bytes);
        self.packet_bytes = self.packet_bytes.min(packet_bytes);
    }
}

/// What a row has in common.
pub(super) struct Row<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) qos: QoS,
    pub(super) count: usize,
    /// Where its messages begin; of one of another shard at QoS 1 only.
    pub(super) messages: &'a [(usize, PlainPublish)],
}

impl Core {
    /// Handles the row of messages that `bytes` begin with. Returns how many bytes it has; nothing if there is none.
    pub(super) fn handle_row(&mut self, id: ConnectionId, bytes: &[u8]) -> Option<usize> {
        let (first, qos) = match *bytes.first()? {
            first @ 0x30 => (first, QoS::AtMostOnce),
            first @ 0x32 => (first, QoS::AtLeastOnce),
            _ => return None,
        };
        let connection = self.wires.get(id)?;
        let (version, last) = (connection.version, connection.last_topic.as_ref()?);
        let one = plain_publish(bytes, first, version, &last.topic)?;
        if one.len > MESSAGE_BYTES_MAX || bytes.get(one.len) != Some(&first) {
            return None; // it is too large, or alone
        }
        let is_as_before =
            last.generation == self.routes.generation() && self.was_granted(connection, &last.topic);
        if !is_as_before || !self.has_rows(qos) {
            return None;
        }
        let Some(room) = self.row_room(id, connection, last, qos) else {
            self.wires.get_mut(id)?.last_topic.as_mut()?.is_apart = true;
            return None;
        };
        let topic = last.topic.len();
        let recipients = Rc::clone(&last.recipients);

        let mut messages = std::mem::take(&mut self.row);
        let mut end = 0;
        while messages.len() < room.messages
            && let Some(publish) = plain_publish(&bytes[end..], first, version, &last.topic)
            && publish.len <= room.packet_bytes
            && end + publish.len <= room.bytes
        {
            messages.push((end, publish));
            end += publish.len;
        }
        let is_row = messages.len() > 1;
        if is_row {
            let row = Row { bytes: &bytes[..end], qos, count: messages.len(), messages: &messages };
            self.counters.received += row.count as u64;
            self.deliver_row(&recipients, &row);
            if recipients.shards != 0 {
                self.mesh.publish_row(recipients.shards, version, topic, &row);
            }
            if qos == QoS::AtLeastOnce {
                let packet_id = |(_, publish): &(usize, PlainPublish)| publish.packet_id;
                let packet_ids = messages.iter().map(|one| packet_id(one).expect("it is of QoS 1"));
                self.answer_row(id, packet_ids, end + row.count * AWAITED_BYTES);
            }
        }
        messages.clear();
        self.row = messages;
        is_row.then_some(end)
    }

    /// While queues are kept short, what is in flight at QoS 1 is, too, and blocks hold more than is counted.
    fn has_rows(&self, qos: QoS) -> bool {
        qos == QoS::AtMostOnce || !self.pressure.keeps_queues_short()
    }

    /// How much of a row may come from a connection to the topic that it published to last; nothing if a recipient gets none as
    /// it came, or somebody has no room, as none will be before the next read.
    fn row_room(&self, id: ConnectionId, from: &Connection, last: &LastTopic, qos: QoS) -> Option<Room> {
        let packet_bytes = MESSAGE_BYTES_MAX.min(from.terms.packets.packet_bytes_max);
        let mut room = Room { messages: ROW_MAX, bytes: ROW_BYTES_MAX, packet_bytes };
        if qos == QoS::AtLeastOnce {
            let crosses = last.recipients.shards != 0;
            // Who is full tells the groups that it is a member of, between the same two messages as ever.
            let tells = |one: &Recipient| self.sessions[one.session as usize].shares.is_some();
            if crosses && last.recipients.sessions.iter().any(tells) {
                return None;
            }
            room.messages = room.messages.min(from.room_for_acks(crosses));
        }
        self.narrow_to_all(&mut room, &last.recipients, Some(id), from.version, qos)?;
        Some(room)
    }

    /// Narrows a row to what all recipients take; nothing if one takes none as it came, or no two messages.
    fn narrow_to_all(
        &self,
        room: &mut Room,
        recipients: &Recipients,
        from: Option<ConnectionId>,
        version: Version,
        qos: QoS,
    ) -> Option<()> {
        for recipient in &recipients.sessions {
            self.narrow_to(room, recipient, from, version, qos)?;
            if room.is_none() {
                break;
            }
        }
        (!room.is_none()).then_some(())
    }

    /// Handles as many of these messages of another shard as are a row, of which this is the first and the others are of its
    /// shape; they were one there, or else are looked at. Returns how many they are, or of how many nothing else has to be asked.
    pub(super) fn handle_relayed_row(
        &mut self,
        from: ShardNumber,
        first: &Outgoing,
        bytes: &[u8],
        was_row: bool,
    ) -> Result<usize, usize> {
        let (Some((version, packet)), Publish { topic, qos, retain: false, .. }) =
            (first.packet, first.publish)
        else {
            return Err(usize::MAX);
        };
        if qos == QoS::ExactlyOnce || packet.len() > MESSAGE_BYTES_MAX {
            return Err(usize::MAX);
        }
        let (len, topic_end) = (packet.len(), first.topic_end(version, packet));
        // The first byte says whether it is sent again.
        let is_same = |other: &&[u8]| {
            other[0] == packet[0] && other[topic_end - topic.len()..topic_end] == *topic.as_bytes()
        };
        let alike = match was_row {
            true => bytes.len() / len,
            false => bytes.chunks_exact(len).take(ROW_MAX).take_while(is_same).count(),
        };
        let is_again = packet[0] != (PacketType::Publish as u8) << 4 | (qos as u8) << 1;
        if alike < 2 || is_again || !self.has_rows(qos) {
            return Err(alike);
        }
        let recipients = self.recipients_of(topic);
        let is_plain = recipients.groups.is_empty() && recipients.peers.is_empty();
        let mut room = Room { messages: alike, bytes: ROW_BYTES_MAX, packet_bytes: MESSAGE_BYTES_MAX };
        let has_room = is_plain && self.narrow_to_all(&mut room, &recipients, None, version, qos).is_some();
        let count = room.messages.min(room.bytes / len);
        if !has_room || len > room.packet_bytes || count < 2 {
            return Err(alike);
        }
        let mut messages = std::mem::take(&mut self.row);
        if qos == QoS::AtLeastOnce {
            let publish = PlainPublish { len, topic_end, packet_id: None };
            messages.extend((0..count).map(|n| (n * len, publish)));
        }
        self.deliver_row(&recipients, &Row { bytes: &bytes[..count * len], qos, count, messages: &messages });
        if qos == QoS::AtLeastOnce {
            self.confirm_relayed(from, count, self.ledger.changes());
        }
        messages.clear();
        self.row = messages;
        Ok(count)
    }

    /// Narrows a row to what one recipient takes; nothing if it takes none as it came.
    fn narrow_to(
        &self,
        room: &mut Room,
        recipient: &Recipient,
        from: Option<ConnectionId>,
        version: Version,
        qos: QoS,
    ) -> Option<()> {
        let grant = recipient.grant(None)?; // it is not the publisher's
        let session = &self.sessions[recipient.session as usize];
        if qos == QoS::AtMostOnce && session.connection.is_none() {
            return Some(()); // it misses this
        }
        let to = session.connection.filter(|&to| Some(to) != from).and_then(|to| self.wires.get(to))?;
        let is_as_it_came = grant.qos >= qos
            && grant.identifiers.is_none()
            && session.version == version
            && to.own_aliases.is_none();
        if !is_as_it_came {
            return None;
        }
        let waiting = waiting_max(qos, self.pressure).saturating_sub(to.waiting());
        room.narrow(ROW_MAX, waiting.min(to.out.room()), to.packet_bytes_max);
        if qos == QoS::AtLeastOnce {
            if session.number.is_some() || session.has_backlog() {
                return None;
            }
            let (messages, bytes) = session.ring.room(session.window);
            room.narrow(messages, bytes, usize::MAX);
        }
        Some(())
    }

    /// Sends a row to all sessions here, which at QoS 1 keep it as one block.
    fn deliver_row(&mut self, recipients: &Recipients, row: &Row) {
        self.routed += (recipients.sessions.len() * row.bytes.len()) as u64;
        let has_block = row.qos > QoS::AtMostOnce && !recipients.sessions.is_empty();
        let block = has_block.then(|| Rc::from(row.bytes));
        for recipient in &recipients.sessions {
            self.deliver_row_to(recipient.session, row, block.as_ref());
        }
    }

    /// Sends a row to a session that is connected.
    fn deliver_row_to(&mut self, to: SessionId, row: &Row, block: Option<&Rc<[u8]>>) {
        let session = &mut self.sessions[to as usize];
        let Some(connection) = session.connection else { return };
        let ring = &mut session.ring;
        self.wires.send(connection, |out| {
            let base = out.len();
            out.extend_from_slice(row.bytes);
            let Some(block) = block else { return };
            for &(start, publish) in row.messages {
                let id = ring.next_id().get().to_be_bytes();
                out[base + start + publish.topic_end..][..2].copy_from_slice(&id);
                let frame = Frame::of_row(block, start, publish);
                ring.push(Delivery { frame, expires_at: None, group: None });
            }
        });
        if block.is_some() {
            session.tail += row.count as u64;
            self.in_flight += row.count;
        }
        self.counters.sent += row.count as u64;
        self.look_at(to);
    }
}
