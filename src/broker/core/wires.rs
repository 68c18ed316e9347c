//! The connections' outgoing bytes: a buffer each, a list of those that have something to send, effects for the shell.
//!
//! Nothing is written here. The first bytes of a tick put a connection on the dirty list, and the shell flushes the list
//! once per tick: what counts for speed is messages per system call.

use std::collections::VecDeque;
use std::time::Instant;

use slab::Slab;

use super::connection::{Connection, Terms};
use super::{ConnectionId, Effect};

/// All connections and what they have to send.
pub(super) struct Wires {
    connections: Slab<Connection>,
    serial: u32,
    dirty: Vec<ConnectionId>,
    pub(super) effects: VecDeque<Effect>,
}

impl Wires {
    pub(super) fn new() -> Wires {
        Wires { connections: Slab::new(), serial: 0, dirty: Vec::new(), effects: VecDeque::new() }
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
        write(&mut connection.out);
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Lets `write` append an answer to what the client sent.
    pub(super) fn answer(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.get(id).map_or(0, |connection| connection.out.len());
        self.send(id, write);
        if let Some(connection) = self.get_mut(id) {
            connection.owed += connection.out.len() - before;
        }
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
