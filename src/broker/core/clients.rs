//! Sessions by client id: a table of their places, and not of the ids once more, which the sessions have.
//!
//! Invariant: it has each session of the slab that it is asked with, once.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use slab::Slab;

use super::SessionId;
use super::session::Session;
use super::table::Table;

/// Where the session of a client is.
#[derive(Default)]
pub(super) struct Clients {
    table: Table,
    hasher: RandomState,
}

impl Clients {
    pub(super) fn get(&self, client_id: &str, sessions: &Slab<Session>) -> Option<SessionId> {
        let is_it = |&id: &SessionId| *sessions[id as usize].client_id == *client_id;
        self.table.find(self.hasher.hash_one(client_id), is_it)
    }

    /// Adds a session whose client has no other.
    pub(super) fn insert(&mut self, id: SessionId, sessions: &Slab<Session>) {
        let hash = |&id: &SessionId| self.hasher.hash_one(&*sessions[id as usize].client_id);
        self.table.insert(hash(&id), id, hash);
    }

    /// Takes a session out that was at this place.
    pub(super) fn remove(&mut self, client_id: &str, id: SessionId) {
        self.table.remove(self.hasher.hash_one(client_id), |&other| other == id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Connection;
    use super::super::routes::ROUTE_BYTES;
    use super::*;

    #[test]
    fn who_is_there_and_does_nothing_costs_little() {
        let sizes = [size_of::<Session>(), size_of::<Connection>(), ROUTE_BYTES];
        assert!(sizes.iter().zip([344, 328, 32]).all(|(size, most)| *size <= most), "{sizes:?}");
    }
}
