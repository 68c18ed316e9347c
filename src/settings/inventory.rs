//! What a node holds, asked for a page at a time: sessions and retained messages; and what it counted.
//!
//! A page costs the node a bounded amount of work, whatever it holds. So a listing is no picture of one moment; but a session,
//! or a topic's message, that is there from its first page to its last is in it exactly once.
//!
//! No payloads, no passwords: who may ask is who runs the broker, and that is no right to read messages.

use serde::{Deserialize, Serialize};

/// The most entries of one page.
pub const PAGE_MAX: usize = 1_000;

/// Which sessions to list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SessionQuery {
    /// Where the last page ended; none: from the beginning.
    pub cursor: Option<String>,
    /// Entries of a page, at most [`PAGE_MAX`].
    pub limit: usize,
    /// Only those that somebody is connected to.
    pub connected: bool,
    /// Only the one of this client.
    pub client_id: Option<String>,
}

impl Default for SessionQuery {
    fn default() -> Self {
        Self { cursor: None, limit: 100, connected: false, client_id: None }
    }
}

/// Which retained messages to list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RetainedQuery {
    /// The topic filter that they match.
    pub filter: String,
    /// Where the last page ended; none: from the beginning.
    pub cursor: Option<String>,
    /// Entries of a page, at most [`PAGE_MAX`].
    pub limit: usize,
}

impl Default for RetainedQuery {
    fn default() -> Self {
        Self { filter: "#".to_owned(), cursor: None, limit: 100 }
    }
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing<T> {
    /// In no particular order.
    pub items: Vec<T>,
    /// Where the next page begins; none: this was the last.
    pub next: Option<String>,
}

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionEntry {
    /// Whose it is.
    pub client_id: String,
    /// Whether the client is connected.
    pub connected: bool,
    /// The user name it gave, while connected.
    pub username: Option<String>,
    /// Where it connects from, while connected.
    pub address: Option<String>,
    /// The version of MQTT that it spoke last.
    pub protocol: String,
    /// For how long it has been connected.
    pub connected_s: Option<u64>,
    /// When it was last heard, so many seconds ago.
    pub idle_s: Option<u64>,
    /// How long the session outlives the connection.
    pub expiry_s: u32,
    /// When the session ends, if nobody comes back.
    pub ends_in_s: Option<u64>,
    /// Its subscriptions.
    pub subscriptions: usize,
    /// Messages that wait for it.
    pub queued: usize,
    /// Bytes that wait for it.
    pub queued_bytes: usize,
    /// Messages sent that it did not acknowledge.
    pub in_flight: usize,
}

/// One retained message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetainedEntry {
    /// Its topic.
    pub topic: String,
    /// The QoS it was published with.
    pub qos: u8,
    /// The size of its payload.
    pub bytes: usize,
    /// When it expires, if it does.
    pub expires_in_s: Option<u32>,
}

/// What a node counted since it started; everything only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// PUBLISH packets that came in from clients.
    pub received: u64,
    /// PUBLISH packets handed to connections.
    pub sent: u64,
    /// Messages given up, by the reason, a word as `queue_full`.
    pub dropped: Vec<(&'static str, u64)>,
    /// Connections let in.
    pub opened: u64,
    /// Connections that ended, by the reason.
    pub ended: Vec<(&'static str, u64)>,
    /// Subscriptions refused, by the reason.
    pub subscriptions_refused: Vec<(&'static str, u64)>,
    /// Messages that wait for sessions, now.
    pub queued: u64,
    /// Their bytes, now.
    pub queued_bytes: u64,
    /// Messages sent and not acknowledged, now.
    pub in_flight: u64,
    /// Clients that wait for their password to be hashed, now.
    pub logins_waiting: u64,
    /// What each listener counted.
    pub listeners: Vec<ListenerFigures>,
}

/// What a listener counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerFigures {
    /// The name in the settings.
    pub name: String,
    /// Connections that came in there and are open, handshakes included.
    pub connections: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed before MQTT, by the reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Times that the next connection had to wait for the rate.
    pub paced: u64,
}
