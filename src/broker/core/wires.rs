//! The connections' outgoing bytes: a buffer each, a list of those that have something to send, effects for the shell.
//!
//! Nothing is written here. The first bytes of a tick put a connection on the dirty list, and the shell flushes the list
//! once per tick: what counts for speed is messages per system call.

use std::collections::VecDeque;
use std::time::Instant;

use slab::Slab;

use super::connection::{Connection, State, Terms};
use super::{ConnectionId, Effect};
use crate::mqtt::{Frame, PLAIN_ACK_BYTES, PacketId, PacketType, plain_ack, topic_of};
use crate::settings::Action;

/// How many bytes of unused buffers are kept.
const BUFFERS_BYTES_MAX: usize = 4 << 20;

/// What became of a QoS 0 message for a connection.
pub(super) enum Offered {
    /// It is in the buffer, where so many bytes wait now.
    Sent(usize),
    /// So many bytes wait that there is no room for it.
    Slow(usize),
    TooLarge,
    /// The connection is no more.
    Gone,
}

/// All connections and what they have to send.
pub(super) struct Wires {
    connections: Slab<Connection>,
    serial: u32,
    dirty: Vec<ConnectionId>,
    /// How many bytes were ever put into buffers.
    pub(super) appended: u64,
    /// Buffers that nobody uses: who has nothing to send has none, and who has takes the one that was used last.
    buffers: Vec<Vec<u8>>,
    buffers_bytes: usize,
    pub(super) effects: VecDeque<Effect>,
}

impl Wires {
    pub(super) fn new() -> Wires {
        Wires {
            connections: Slab::new(),
            serial: 0,
            dirty: Vec::new(),
            appended: 0,
            buffers: Vec::new(),
            buffers_bytes: 0,
            effects: VecDeque::new(),
        }
    }

    pub(super) fn make_room(&mut self, connections: usize) {
        self.connections.reserve(connections);
    }

    pub(super) fn open(&mut self, terms: Terms, now: Instant) -> ConnectionId {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let slot = self.connections.insert(Connection::new(serial, terms, now)) as u32;
        ConnectionId { slot, serial }
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        Some(self.connections.remove(id.slot as usize))
    }

    /// Has the shell tell the log what a client may not do; of what it does in a row the first, as it may do much of that at once.
    pub(super) fn tell_denied(&mut self, connection: ConnectionId, deed: Action, at: &str) {
        let is_it =
            |effect: &Effect| matches!(effect, Effect::Denied { connection: id, .. } if *id == connection);
        if !self.effects.back().is_some_and(is_it) {
            self.effects.push_back(Effect::Denied { connection, deed, at: at.into() });
        }
    }

    #[inline]
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(id.slot as usize).filter(|connection| connection.serial == id.serial)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.slot as usize).filter(|connection| connection.serial == id.serial)
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.connections.iter().map(|(slot, c)| ConnectionId { slot: slot as u32, serial: c.serial })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Connection)> {
        let all = self.connections.iter_mut();
        all.map(|(slot, c)| (ConnectionId { slot: slot as u32, serial: c.serial }, c))
    }

    /// Lets `write` append to a connection's buffer.
    #[inline]
    pub(super) fn send(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        self.append(id, |connection| write(&mut connection.out.open));
    }

    /// Lets `write` append to the buffer of a connection, which has one then.
    #[inline]
    fn append(&mut self, id: ConnectionId, write: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.connections.get_mut(id.slot as usize) else { return };
        if connection.serial != id.serial {
            return;
        }
        if connection.out.open.capacity() == 0 {
            connection.out.open = take_buffer(&mut self.buffers, &mut self.buffers_bytes);
        }
        let before = connection.out.open.len();
        write(connection);
        let more = connection.out.open.len() - before;
        let is_more = more > 0;
        self.appended += more as u64;
        connection.out.seal();
        if is_more && !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Notes that the first `count` waiting bytes of a connection are sent.
    pub(super) fn written(&mut self, id: ConnectionId, count: usize) {
        let Some(connection) = self.get_mut(id) else { return };
        if let Some(buffer) = connection.written(count)
            && self.buffers_bytes + buffer.capacity() <= BUFFERS_BYTES_MAX
        {
            self.buffers_bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }

    /// Appends an encoded PUBLISH of QoS 0, its topic shortened where the client takes aliases, unless more than
    /// `waiting_max` bytes wait already.
    #[inline]
    pub(super) fn offer(&mut self, id: ConnectionId, bytes: &[u8], waiting_max: usize) -> Offered {
        let mut done = Offered::Gone;
        self.append(id, |to| {
            done = if bytes.len() > to.packet_bytes_max {
                Offered::TooLarge // [MQTT-3.1.2-25]
            } else if to.waiting() > waiting_max {
                Offered::Slow(to.waiting())
            } else {
                match to.alias(bytes.len(), || topic_of(bytes)) {
                    None => to.out.open.extend_from_slice(bytes),
                    Some(alias) => alias.append(bytes, &mut to.out.open),
                }
                Offered::Sent(to.waiting())
            };
        });
        done
    }

    /// Appends a PUBLISH, its topic shortened where the client takes aliases.
    #[inline]
    pub(super) fn send_frame(
        &mut self,
        id: ConnectionId,
        frame: &Frame,
        packet_id: Option<PacketId>,
        dup: bool,
    ) {
        self.append(id, |to| match to.alias(frame.len(), || frame.topic()) {
            None => frame.append_to(&mut to.out.open, packet_id, dup),
            Some(alias) => frame.append_aliased(alias, &mut to.out.open, packet_id, dup),
        });
    }

    /// Lets `write` append an answer to what the client sent. False, and nothing is appended, if it is larger than the
    /// client takes. [MQTT-3.1.2-24] After the last words to a client there are none. [MQTT-3.14.4-1]
    #[must_use]
    #[inline]
    pub(super) fn answer(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut is_sent = true;
        self.append(id, |to| {
            if matches!(to.state, State::Closed) {
                return;
            }
            let before = to.out.open.len();
            write(&mut to.out.open);
            let length = to.out.open.len() - before;
            is_sent = length <= to.packet_bytes_max;
            match is_sent {
                true => to.owed += length,
                false => to.out.open.truncate(before),
            }
        });
        is_sent
    }

    /// Appends PUBACKs, each of which the client takes.
    pub(super) fn acknowledge(&mut self, id: ConnectionId, packet_ids: impl Iterator<Item = PacketId>) {
        self.append(id, |to| {
            if matches!(to.state, State::Closed) {
                return;
            }
            let before = to.out.open.len();
            to.out.open.reserve(packet_ids.size_hint().0 * PLAIN_ACK_BYTES);
            for packet_id in packet_ids {
                to.out.open.extend_from_slice(&plain_ack(PacketType::PubAck, packet_id));
            }
            to.owed += to.out.open.len() - before;
        });
    }

    /// The connections that have something to send since the last call.
    pub(super) fn take_dirty(&mut self, into: &mut Vec<ConnectionId>) {
        into.clear();
        std::mem::swap(&mut self.dirty, into);
        for &id in &*into {
            if let Some(connection) = self.get_mut(id) {
                connection.is_dirty = false;
            }
        }
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }
}

fn take_buffer(buffers: &mut Vec<Vec<u8>>, bytes: &mut usize) -> Vec<u8> {
    let buffer = buffers.pop().unwrap_or_default();
    *bytes -= buffer.capacity();
    buffer
}
