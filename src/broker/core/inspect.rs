//! What who runs the broker sees and does: sessions, retained messages, a connection that has to end, `$SYS`.
//!
//! Invariants: a page looks at no more than [`SCAN_MAX`] sessions or topic levels and gives no more than [`PAGE_MAX`] entries; a
//! session keeps its place while it lives, and a topic while it retains something, so a listing that goes by place meets each
//! once.

use std::time::Instant;

use super::connection::Connection;
use super::delivery::with_outgoing;
use super::session::Session;
use super::{ConnectionId, Core, Fault};
use crate::mqtt::{Message, PropertiesBuf, QoS, Version, filter_matches};
use crate::settings::inventory::{PAGE_MAX, RetainedEntry, RetainedQuery, SessionEntry, SessionQuery};

/// How many places one page may look at: about a millisecond.
const SCAN_MAX: usize = 10_000;

/// What came of wanting a client gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kicked {
    /// Nobody has this client id.
    Unknown,
    /// There is a session, and nobody was connected.
    Away,
    /// The connection ends.
    Ends,
}

impl Core {
    /// The sessions from a place on, and the place where the next page begins.
    pub fn sessions_from(
        &self,
        place: usize,
        query: &SessionQuery,
        now: Instant,
    ) -> (Vec<SessionEntry>, Option<usize>) {
        if let Some(client_id) = &query.client_id {
            let found = self.session_of(client_id).map(|id| &self.sessions[id as usize]);
            let wanted = found.filter(|session| session.connection.is_some() || !query.connected);
            return (wanted.map(|session| self.show_session(session, now)).into_iter().collect(), None);
        }
        let mut entries = Vec::new();
        let limit = query.limit.clamp(1, PAGE_MAX);
        let end = self.sessions.capacity();
        let mut at = place;
        while at < end && at - place < SCAN_MAX && entries.len() < limit {
            let session = self.sessions.get(at);
            let wanted = session.filter(|session| session.connection.is_some() || !query.connected);
            entries.extend(wanted.map(|session| self.show_session(session, now)));
            at += 1;
        }
        (entries, (at < end).then_some(at))
    }

    fn show_session(&self, session: &Session, now: Instant) -> SessionEntry {
        let connection = session.connection.and_then(|id| self.wires.get(id));
        let since = |at: Instant| now.saturating_duration_since(at).as_secs();
        SessionEntry {
            client_id: session.client_id.to_string(),
            connected: connection.is_some(),
            username: connection.and_then(|connection| connection.username.as_deref().map(str::to_owned)),
            address: connection.and_then(Connection::address).map(|address| address.to_string()),
            protocol: match session.version {
                Version::V5 => "5.0",
                Version::V3 => "3.1.1",
            }
            .to_owned(),
            connected_s: connection.map(|connection| since(connection.opened_at)),
            idle_s: connection.map(|connection| since(connection.last_seen)),
            expiry_s: session.expiry_s,
            ends_in_s: session.ends_at.map(|at| at.saturating_duration_since(now).as_secs()),
            subscriptions: session.subscription_count(),
            queued: session.queue.len(),
            queued_bytes: session.queue.bytes(),
            in_flight: session.ring.open(),
        }
    }

    /// The retained messages that match from a place on, and the place where the next page begins. Expects a valid filter.
    pub fn retained_from(
        &self,
        place: usize,
        query: &RetainedQuery,
        now: Instant,
    ) -> (Vec<RetainedEntry>, Option<usize>) {
        let show = |message: &Message| RetainedEntry {
            topic: message.topic.to_string(),
            qos: message.qos as u8,
            bytes: message.payload.len(),
            expires_in_s: message.expiry_s(now),
        };
        let filter = query.filter.as_str();
        if !filter.contains(['+', '#']) {
            return (self.retained.get(filter, now).iter().map(|message| show(message)).collect(), None);
        }
        let mut entries = Vec::new();
        let limit = query.limit.clamp(1, PAGE_MAX);
        let end = self.retained.places();
        let mut at = place;
        while at < end && at - place < SCAN_MAX && entries.len() < limit {
            let message = self.retained.at(at, now);
            entries.extend(message.filter(|one| filter_matches(filter, &one.topic)).map(|one| show(one)));
            at += 1;
        }
        (entries, (at < end).then_some(at))
    }

    /// The user that a connection is, or wants to be.
    pub fn user_of(&self, id: ConnectionId) -> Option<&str> {
        self.wires.get(id)?.username.as_deref()
    }

    /// Whose connection it is, once that is known.
    pub fn client_of(&self, id: ConnectionId) -> Option<&str> {
        Some(self.wires.get(id)?.who.as_deref()?.client_id())
    }

    /// The client id of a connection, also of one that only asked for it.
    pub fn client_id_of(&self, id: ConnectionId) -> Option<&str> {
        let asked_for = || self.wires.get(id)?.stranger.as_deref()?.client_id.as_deref();
        self.client_of(id).or_else(asked_for)
    }

    /// Ends a client's connection, and its session if that is to be forgotten.
    pub fn kick(&mut self, client_id: &str, forget: bool, now: Instant) -> Kicked {
        let Some(id) = self.session_of(client_id) else { return Kicked::Unknown };
        let session = &mut self.sessions[id as usize];
        if forget {
            session.expiry_s = 0;
        }
        match session.connection {
            Some(connection) => {
                self.close(connection, Fault::Kicked, now);
                Kicked::Ends
            }
            None => {
                if forget {
                    self.end_session(id, now);
                }
                Kicked::Away
            }
        }
    }

    /// Publishes and retains a message of the broker's own, below `$SYS`. It does not cross links: nothing below `$` does.
    pub fn publish_own(&mut self, topic: &str, payload: String, now: Instant) {
        let message = Message {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: true,
            properties: PropertiesBuf::new(),
            expires_at: None,
        };
        let recipients = self.recipients_of(topic);
        with_outgoing(&message, now, |outgoing| self.distribute(&recipients, outgoing, None, now));
    }
}
