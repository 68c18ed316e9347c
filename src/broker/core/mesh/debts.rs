//! SUBACKs that wait for what other shards retain.
//!
//! A client that has read SUBACK may publish at once, and that must not reach it before what it published to the same topic before
//! and is retained. So what the searches of a SUBSCRIBE find is gathered until each shard has brought its first part; then SUBACK
//! goes, and what was found right behind it. Nothing else of its client is read until then; the SUBSCRIBEs behind it are next,
//! all at once.
//!
//! What is gathered is bounded: beyond [`FOUND_BYTES_MAX`] SUBACK goes at once. One shard alone has nothing to wait for.

use std::time::Instant;

use bytes::Bytes;
use hashbrown::HashMap;

use super::shows::Asker;
use crate::broker::core::delivery::{Outgoing, with_outgoing};
use crate::broker::core::recipients::Grant;
use crate::broker::core::subscribe::Subscribed;
use crate::broker::core::{ConnectionId, Core, Fault};
use crate::mqtt::{Filter, Message};

/// How much may be found before SUBACK.
const FOUND_BYTES_MAX: usize = 256 * 1024;

/// Names what a client is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Ticket {
    connection: ConnectionId,
    number: u64,
}

/// A retained message, for whom, and how.
struct Found {
    asker: Asker,
    grant: Grant,
    since: u64,
    message: Message,
}

/// What a client is owed.
#[derive(Default)]
struct Owed {
    number: u64,
    now: Vec<Subscribed>,
    /// Searches that have not begun everywhere.
    searches: usize,
    found: Vec<Found>,
    found_bytes: usize,
    /// SUBSCRIBEs that came behind.
    next: Vec<Subscribed>,
}

/// What all clients are owed.
#[derive(Default)]
pub(in super::super) struct Debts {
    owed: HashMap<ConnectionId, Owed>,
    last: u64,
    /// A search for these has begun everywhere, or is over.
    begun: Vec<Ticket>,
}

impl Debts {
    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    fn get(&mut self, ticket: Ticket) -> Option<&mut Owed> {
        self.owed.get_mut(&ticket.connection).filter(|owed| owed.number == ticket.number)
    }

    /// A search begins.
    pub(super) fn add(&mut self, ticket: Ticket) {
        if let Some(owed) = self.get(ticket) {
            owed.searches += 1;
        }
    }

    /// It has begun everywhere, or is over.
    pub(super) fn begun(&mut self, ticket: Ticket) {
        self.begun.push(ticket);
    }

    /// Keeps a retained message until SUBACK. False if that is not waited for any more.
    pub(super) fn gather(
        &mut self,
        ticket: Ticket,
        (asker, since): (Asker, u64),
        grant: &Grant,
        outgoing: &Outgoing,
    ) -> bool {
        let Some(owed) = self.get(ticket) else { return false };
        let publish = &outgoing.publish;
        let message = Message {
            topic: publish.topic.into(),
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties.forwardable(),
            expires_at: outgoing.expires_at,
        };
        let was_within = owed.found_bytes <= FOUND_BYTES_MAX;
        owed.found_bytes += publish.topic.len() + publish.payload.len();
        owed.found.push(Found { asker, grant: grant.clone(), since, message });
        if was_within && owed.found_bytes > FOUND_BYTES_MAX {
            owed.searches += 1;
            self.begun.push(ticket);
        }
        true
    }

    /// A client is gone.
    pub(in super::super) fn forgive(&mut self, connection: ConnectionId) {
        self.owed.remove(&connection);
    }
}

impl Core {
    /// Answers a SUBSCRIBE whose interest is held everywhere, and sends what is retained; [`Core::settle_debts`] goes with it.
    pub(super) fn answer_subscribe(&mut self, subscribed: Subscribed, now: Instant) -> Result<(), Fault> {
        let id = subscribed.connection;
        if let Some(owed) = self.mesh.debts.owed.get_mut(&id) {
            owed.next.push(subscribed);
            self.count_subscribing(id, true);
            return Ok(());
        }
        let is_elsewhere =
            |filter: &Filter| filter.has_wildcard() || self.mesh.elsewhere(filter.as_str()).is_some();
        let waits =
            !self.mesh.is_alone() && subscribed.to_show.iter().any(|(filter, _)| is_elsewhere(filter));
        if !waits || self.wires.get(id).is_none() {
            return self.finish_subscribe(subscribed, now);
        }
        self.owe(id, vec![subscribed], now);
        Ok(())
    }

    /// Begins the searches of some SUBSCRIBEs of a client.
    fn owe(&mut self, id: ConnectionId, mut all: Vec<Subscribed>, now: Instant) {
        let debts = &mut self.mesh.debts;
        debts.last += 1;
        let ticket = Ticket { connection: id, number: debts.last };
        // These here count as a search, until all of theirs are under way.
        debts.owed.insert(id, Owed { number: ticket.number, searches: 1, ..Owed::default() });
        debts.begun(ticket);
        for subscribed in &mut all {
            self.count_subscribing(id, true);
            self.show_filters(subscribed, Some(ticket), now);
        }
        if let Some(owed) = self.mesh.debts.get(ticket) {
            owed.now = all;
        }
    }

    /// Pays what is due.
    pub(super) fn settle_debts(&mut self, now: Instant) {
        while let Some(ticket) = self.mesh.debts.begun.pop() {
            let Some(owed) = self.mesh.debts.get(ticket) else { continue };
            owed.searches -= 1;
            if (owed.searches == 0 || owed.found_bytes > FOUND_BYTES_MAX)
                && let Some(owed) = self.mesh.debts.owed.remove(&ticket.connection)
            {
                self.pay(ticket.connection, owed, now);
            }
        }
    }

    fn pay(&mut self, id: ConnectionId, owed: Owed, now: Instant) {
        for _ in owed.now.iter().chain(&owed.next) {
            self.count_subscribing(id, false);
        }
        for subscribed in &owed.now {
            if let Err(fault) = self.send_suback(subscribed) {
                return self.close(id, fault, now);
            }
        }
        for Found { asker, grant, since, message } in owed.found {
            with_outgoing(&message, now, |outgoing| self.show_to(asker, &grant, since, outgoing));
        }
        if !owed.next.is_empty() {
            self.owe(id, owed.next, now);
        }
    }

    /// One more SUBSCRIBE of a client waits, or one less.
    pub(super) fn count_subscribing(&mut self, id: ConnectionId, waits: bool) {
        let Some(connection) = self.wires.get_mut(id) else { return };
        match waits {
            true => {
                connection.unanswered += 1;
                connection.subscribing += 1;
            }
            false => {
                connection.unanswered -= 1;
                connection.subscribing -= 1;
                connection.is_held_back &= connection.subscribing > 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{Properties, Publish, QoS};

    #[test]
    fn what_is_gathered_is_bounded() {
        let connection = ConnectionId { slot: 0, serial: 0 };
        let ticket = Ticket { connection, number: 7 };
        let mut debts = Debts::default();
        debts.owed.insert(connection, Owed { number: 7, searches: 1, ..Owed::default() });
        let payload = vec![0; FOUND_BYTES_MAX / 2];
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: true,
            topic: "t",
            packet_id: None,
            properties: Properties::EMPTY,
            payload: &payload,
        };
        let outgoing = Outgoing { publish, expires_at: None, packet: None };
        let grant = Grant { qos: QoS::AtMostOnce, retain_as_published: true, identifiers: None };
        for begun in [0, 1, 1] {
            assert!(debts.gather(ticket, ((0, 0), 0), &grant, &outgoing));
            assert_eq!(debts.begun.len(), begun);
        }
        assert!(!debts.gather(Ticket { number: 8, ..ticket }, ((0, 0), 0), &grant, &outgoing));
    }
}
