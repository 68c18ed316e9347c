//! Messages in a row: PUBLISHes of one client to one topic that lie behind one another in what was read, taken as one.
//!
//! Most publish so, and most of what a message costs by itself is to find out again what was true of the one before. A row has no
//! meaning of its own: what goes out, is kept and is counted is what its messages would bring one by one (`tests/rows` holds
//! it to that). So it is only for what is plain: QoS 0 or 1, not retained, without properties; recipients that get it as it
//! came, with room for all of it, and nothing to wait for. Anything else is left to [`Core::handle_publish`].
//!
//! The messages of a row lie in one block as long as one of them is kept, so what a client holds back is more than what it
//! has not acknowledged, which the ring bounds: by its places there times [`MESSAGE_BYTES_MAX`], 32 MiB.

use std::rc::Rc;

use super::connection::{Connection, LastTopic};
use super::deliver::waiting_max;
use super::delivery::{Delivery, Outgoing};
use super::recipients::{Recipient, Recipients};
use super::{ConnectionId, Core, SessionId};
use crate::mqtt::{self, Frame, PacketType, PlainPublish, Publish, QoS, Version, plain_publish};

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
    fn narrow(&mut self, messages: usize, bytes: usize, packet_bytes: usize) {
        self.messages = self.messages.min(messages);
        self.bytes = self.bytes.min(bytes);
        self.packet_bytes = self.packet_bytes.min(packet_bytes);
    }
}

/// What a row has in common.
struct Row<'a> {
    bytes: &'a [u8],
    qos: QoS,
    count: usize,
    /// Where its messages begin; at QoS 1.
    messages: &'a [(usize, PlainPublish)],
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
            self.distribute_row(id, &recipients, &row);
            if recipients.shards != 0 {
                self.mesh.publish_row(recipients.shards, version, topic, row.bytes, &messages);
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
    /// it came.
    fn row_room(&self, id: ConnectionId, from: &Connection, last: &LastTopic, qos: QoS) -> Option<Room> {
        let packet_bytes = MESSAGE_BYTES_MAX.min(from.terms.packets.packet_bytes_max);
        let mut room = Room { messages: ROW_MAX, bytes: ROW_BYTES_MAX, packet_bytes };
        if qos == QoS::AtLeastOnce {
            room.messages = room.messages.min(from.room_for_acks());
        }
        for recipient in &last.recipients.sessions {
            if room.messages < 2 || room.bytes == 0 {
                break;
            }
            self.narrow_to(&mut room, recipient, Some(id), from.version, qos)?;
        }
        Some(room)
    }

    /// Handles as many of these messages of another shard as are a row, of which this is the first and the others are of its
    /// shape. Returns how many they are.
    pub(super) fn handle_relayed_row(&mut self, first: &Outgoing, bytes: &[u8]) -> usize {
        let Some((version, packet)) = first.packet else { return 0 };
        let Publish { topic, qos: QoS::AtMostOnce, retain: false, .. } = first.publish else { return 0 };
        let recipients = self.recipients_of(topic);
        let is_plain = recipients.groups.is_empty() && recipients.peers.is_empty();
        if !is_plain || packet.len() > MESSAGE_BYTES_MAX {
            return 0;
        }
        let mut room = Room { messages: ROW_MAX, bytes: ROW_BYTES_MAX, packet_bytes: MESSAGE_BYTES_MAX };
        for recipient in &recipients.sessions {
            if self.narrow_to(&mut room, recipient, None, version, QoS::AtMostOnce).is_none() {
                return 0;
            }
        }
        if packet.len() > room.packet_bytes {
            return 0;
        }
        let end = first.topic_end(version, packet);
        let is_same = |other: &&[u8]| other[end - topic.len()..end] == *topic.as_bytes();
        let all = bytes.chunks_exact(packet.len()).take(room.messages.min(room.bytes / packet.len()));
        let count = all.take_while(is_same).count();
        if count < 2 {
            return 0;
        }
        let row = Row { bytes: &bytes[..count * packet.len()], qos: QoS::AtMostOnce, count, messages: &[] };
        for recipient in &recipients.sessions {
            self.deliver_row(recipient.session, &row, None);
        }
        count
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

    fn distribute_row(&mut self, from: ConnectionId, recipients: &Recipients, row: &Row) {
        self.counters.received += row.count as u64;
        self.routed += (recipients.sessions.len() * row.bytes.len()) as u64;
        let block = (row.qos > QoS::AtMostOnce).then(|| Rc::from(row.bytes));
        for recipient in &recipients.sessions {
            self.deliver_row(recipient.session, row, block.as_ref());
        }
        if block.is_some() {
            self.wires.acknowledge(from, |out| {
                for id in row.messages.iter().filter_map(|(_, publish)| publish.packet_id) {
                    out.extend_from_slice(&mqtt::plain_ack(PacketType::PubAck, id));
                }
            });
        }
    }

    /// Sends a row to a session that is connected, which keeps it as a block if it has one.
    fn deliver_row(&mut self, to: SessionId, row: &Row, block: Option<&Rc<[u8]>>) {
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
        }
        self.counters.sent += row.count as u64;
        self.look_at(to);
    }
}
