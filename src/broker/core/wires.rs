//! The connections' outgoing bytes: a buffer each, a list of those that have something to send, effects for the shell.
//!
//! Nothing is written here. The first bytes of a tick put a connection on the dirty list, and the shell flushes the list
//! once per tick: what counts for speed is messages per system call.

use std::collections::VecDeque;
use std::time::Instant;

use slab::Slab;

use super::connection::{Connection, State, Terms};
use super::{ConnectionId, Effect};
use crate::mqtt::{ALIAS_BYTES_MAX, Frame, PacketId, TopicAlias, topic_of};

/// How many unused buffers are kept, of 64 KiB at most.
const BUFFERS_KEPT: usize = 64;

/// All connections and what they have to send.
pub(super) struct Wires {
    connections: Slab<Connection>,
    serial: u32,
    dirty: Vec<ConnectionId>,
    /// Buffers that nobody uses: who has nothing to send has none, and who has takes the one that was used last.
    buffers: Vec<Vec<u8>>,
    pub(super) effects: VecDeque<Effect>,
}

impl Wires {
    pub(super) fn new() -> Wires {
        Wires { connections: Slab::new(), serial: 0, dirty: Vec::new(), buffers: Vec::new(), effects: VecDeque::new() }
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

    /// Lets `write` append to a connection's buffer.
    #[inline]
    pub(super) fn send(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(id.slot as usize) else { return };
        if connection.serial != id.serial {
            return;
        }
        if connection.out.capacity() == 0 {
            connection.out = self.buffers.pop().unwrap_or_default();
        }
        write(&mut connection.out);
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Notes that the first `count` waiting bytes of a connection are sent.
    pub(super) fn written(&mut self, id: ConnectionId, count: usize) {
        let Some(connection) = self.get_mut(id) else { return };
        if let Some(buffer) = connection.written(count)
            && self.buffers.len() < BUFFERS_KEPT
        {
            self.buffers.push(buffer);
        }
    }

    /// Appends an encoded PUBLISH of QoS 0, its topic shortened where the client takes aliases.
    #[inline]
    pub(super) fn send_publish(&mut self, id: ConnectionId, bytes: &[u8]) {
        match self.alias(id, bytes.len(), || topic_of(bytes)) {
            None => self.send(id, |out| out.extend_from_slice(bytes)),
            Some(alias) => self.send(id, |out| alias.append(bytes, out)),
        }
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
        match self.alias(id, frame.len(), || frame.topic()) {
            None => self.send(id, |out| frame.append_to(out, packet_id, dup)),
            Some(alias) => self.send(id, |out| frame.append_aliased(alias, out, packet_id, dup)),
        }
    }

    /// The alias for a PUBLISH of so many bytes. [MQTT-3.1.2-27]
    #[inline]
    fn alias<'a>(
        &mut self,
        id: ConnectionId,
        len: usize,
        topic: impl FnOnce() -> &'a str,
    ) -> Option<TopicAlias> {
        let connection = self.get_mut(id)?;
        let aliases = connection.own_aliases.as_mut()?;
        // The first packet with an alias is longer than without, and must fit too. [MQTT-3.1.2-24]
        (len + ALIAS_BYTES_MAX <= connection.packet_bytes_max).then(|| aliases.get(topic())).flatten()
    }

    /// Lets `write` append an answer to what the client sent. False, and nothing is appended, if it is larger than the
    /// client takes. [MQTT-3.1.2-24] After the last words to a client there are none. [MQTT-3.14.4-1]
    #[must_use]
    pub(super) fn answer(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(connection) = self.get_mut(id) else { return true };
        if matches!(connection.state, State::Closed) {
            return true;
        }
        let (before, max) = (connection.out.len(), connection.packet_bytes_max);
        let mut length = 0;
        self.send(id, |out| {
            write(out);
            length = out.len() - before;
            if length > max {
                out.truncate(before);
            }
        });
        if length > max {
            return false;
        }
        if let Some(connection) = self.get_mut(id) {
            connection.owed += length;
        }
        true
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
