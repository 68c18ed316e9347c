//! What a node says of itself: which settings it runs, and how its links are.
//!
//! A report is a value of one moment. Counters only grow within one incarnation of a node (`queued` and `in_flight`
//! are levels); they are for metrics and tests, conditions come from the verdicts.

use serde::{Deserialize, Serialize};

/// One broker node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeReport {
    /// The node's name, unique in its cluster.
    pub node: String,
    /// The version of its binary.
    pub version: String,
    /// Greater after each start of the node.
    pub incarnation: u64,
    /// [`super::Settings::hash`] of the settings it runs; empty before the first.
    pub settings_hash: String,
    /// Paths of the settings' fields that it does not know.
    pub unknown_fields: Vec<String>,
    /// Sessions and retained messages outlive it.
    pub keeps_state: bool,
    /// Why what must be stored is refused at present, if it is.
    pub store_trouble: Option<String>,
    /// Why the last settings pushed are not the ones it runs.
    pub refused: Option<String>,
    /// The listeners it has, the link listener (named `link`) included.
    pub listeners: Vec<ListenerReport>,
    /// Client connections open.
    pub connections: u64,
    /// Sessions held, connected or not.
    pub sessions: u64,
    /// Subscriptions held.
    pub subscriptions: u64,
    /// Retained messages held.
    pub retained: u64,
    /// Its links, sorted by id.
    pub links: Vec<LinkReport>,
}

/// One listener at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerReport {
    /// The name in the settings; `link` for the link listener.
    pub name: String,
    /// The TCP port.
    pub port: u16,
    /// Why it does not accept connections, when it does not.
    pub error: Option<String>,
}

/// One link at one moment, as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinkReport {
    /// The link's id in the settings.
    pub id: String,
    /// The revision that the node runs.
    pub revision: String,
    /// The half's `resync`, where routes are synced since it was asked for.
    pub resync: Option<String>,
    /// Probes cross in both directions.
    pub connected: Verdict,
    /// The peer has an enabled half for us under the right names.
    pub peer_agrees: Verdict,
    /// Both directions are synced by digest.
    pub routes_synced: Verdict,
    /// What the peer says of its half.
    pub peer: Option<PeerHalf>,
    /// Connections to the peer.
    pub connections: LinkConnections,
    /// The round trip time of the last probe.
    pub rtt_ms: Option<u32>,
    /// What crossed.
    pub counters: LinkCounters,
}

/// An answer to one question about a link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Verdict {
    /// The answer.
    pub status: VerdictStatus,
    /// A CamelCase word for the situation, one of the API's reasons.
    pub reason: String,
    /// What a person should know.
    pub message: String,
}

impl Verdict {
    /// A verdict of any status.
    pub fn new(status: VerdictStatus, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), message: message.into() }
    }
}

/// Yes, no, or not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerdictStatus {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Nobody can say yet.
    #[default]
    Unknown,
}

/// The peer's half of a link, in the peer's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerHalf {
    /// Its cluster name.
    pub cluster: String,
    /// Its half is enabled.
    pub enabled: bool,
    /// What it wants to receive.
    pub topics: Vec<String>,
    /// How many nodes it has.
    pub nodes: u32,
}

/// Connections of one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinkConnections {
    /// How many there should be.
    pub wanted: u32,
    /// How many are open and past the handshake.
    pub open: u32,
}

/// What crossed a link. They balance: `matched = acknowledged + queued + in_flight + dropped`, and
/// `received = delivered + dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinkCounters {
    /// The incarnation that they count within.
    pub epoch: u64,
    /// From here to the peer.
    pub sent: SentCounters,
    /// From the peer to here.
    pub received: ReceivedCounters,
}

/// Messages from here to the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SentCounters {
    /// Matched a route of the peer.
    pub matched: u64,
    /// Written to a connection, repetitions included.
    pub sent: u64,
    /// Acknowledged by the peer; at QoS 0 written once.
    pub acknowledged: u64,
    /// Waiting for a connection or for room in flight, now.
    pub queued: u64,
    /// Sent and not acknowledged, now.
    pub in_flight: u64,
    /// Given up.
    pub dropped: SentDrops,
}

/// Why messages to the peer were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SentDrops {
    /// The message or its time in the queue expired.
    pub expired: u64,
    /// The queue was full.
    pub overflow: u64,
    /// The peer refused it.
    pub refused: u64,
    /// Larger than the peer takes.
    pub oversize: u64,
    /// QoS 0 while no connection was open.
    pub disconnected: u64,
}

impl SentDrops {
    /// For whatever reason.
    pub fn total(&self) -> u64 {
        self.expired + self.overflow + self.refused + self.oversize + self.disconnected
    }
}

/// Messages from the peer to here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceivedCounters {
    /// Arrived.
    pub received: u64,
    /// Handed to at least one subscriber.
    pub delivered: u64,
    /// Given up.
    pub dropped: ReceivedDrops,
}

/// Why messages from the peer were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceivedDrops {
    /// Outside of what the link wants or accepts.
    pub not_wanted: u64,
    /// The link is disabled.
    pub disabled: u64,
    /// Nobody here wanted it (any more).
    pub no_route: u64,
    /// It had arrived before.
    pub duplicate: u64,
}

impl ReceivedDrops {
    /// For whatever reason.
    pub fn total(&self) -> u64 {
        self.not_wanted + self.disabled + self.no_route + self.duplicate
    }
}
