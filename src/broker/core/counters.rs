//! What a shard counts, and how much it holds.

use std::ops::Add;

use super::Core;
use super::fault::Endings;

/// What a shard counts. Everything only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// PUBLISH packets that came in from clients.
    pub received: u64,
    /// PUBLISH packets handed to connections.
    pub sent: u64,
    /// QoS 0 messages that a slow connection missed.
    pub dropped_slow: u64,
    /// Messages that a full queue refused.
    pub dropped_queue_full: u64,
    /// Messages that no queue took, because as much waits on the node as may.
    pub dropped_node_queue_full: u64,
    /// Messages larger than their recipient takes.
    pub dropped_oversize: u64,
    /// Messages whose time ran out in a queue.
    pub dropped_expired: u64,
    /// Messages to topics that clients may not publish to.
    pub dropped_not_authorized: u64,
    /// Messages whose payload is not what its format indicator says.
    pub dropped_payload_format: u64,
    /// Retained messages that found no room.
    pub dropped_retained_full: u64,
    /// Messages refused because they must be stored and the store failed.
    pub dropped_store_down: u64,
    /// QoS 0 messages that a slow connection missed because memory is short.
    pub shed_slow: u64,
    /// Messages that a queue refused because memory is short.
    pub shed_queued: u64,
    /// Messages not retained because memory is short.
    pub shed_retained: u64,
    /// Subscriptions refused because a client has too many.
    pub subscriptions_over_quota: u64,
    /// Subscriptions refused by the rules.
    pub subscriptions_not_authorized: u64,
    /// Subscriptions refused because memory is short.
    pub subscriptions_shed: u64,
    /// Connections let in: CONNECT was accepted.
    pub opened: u64,
    /// Connections that ended.
    pub ended: Endings,
}

impl Add for Counters {
    type Output = Counters;

    fn add(self, other: Counters) -> Counters {
        Counters {
            received: self.received + other.received,
            sent: self.sent + other.sent,
            dropped_slow: self.dropped_slow + other.dropped_slow,
            dropped_queue_full: self.dropped_queue_full + other.dropped_queue_full,
            dropped_node_queue_full: self.dropped_node_queue_full + other.dropped_node_queue_full,
            dropped_oversize: self.dropped_oversize + other.dropped_oversize,
            dropped_expired: self.dropped_expired + other.dropped_expired,
            dropped_not_authorized: self.dropped_not_authorized + other.dropped_not_authorized,
            dropped_retained_full: self.dropped_retained_full + other.dropped_retained_full,
            dropped_store_down: self.dropped_store_down + other.dropped_store_down,
            dropped_payload_format: self.dropped_payload_format + other.dropped_payload_format,
            shed_slow: self.shed_slow + other.shed_slow,
            shed_queued: self.shed_queued + other.shed_queued,
            shed_retained: self.shed_retained + other.shed_retained,
            subscriptions_over_quota: self.subscriptions_over_quota + other.subscriptions_over_quota,
            subscriptions_not_authorized: self.subscriptions_not_authorized
                + other.subscriptions_not_authorized,
            subscriptions_shed: self.subscriptions_shed + other.subscriptions_shed,
            opened: self.opened + other.opened,
            ended: self.ended + other.ended,
        }
    }
}

/// How much a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Connections, those before their CONNECT included.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages that wait for all sessions.
    pub queued: usize,
    /// Their bytes, those that several share counted for each.
    pub queued_bytes: usize,
    /// Messages sent and not answered, at QoS 1 and 2.
    pub in_flight: usize,
}

impl Add for Levels {
    type Output = Levels;

    fn add(self, other: Levels) -> Levels {
        Levels {
            connections: self.connections + other.connections,
            sessions: self.sessions + other.sessions,
            subscriptions: self.subscriptions + other.subscriptions,
            retained: self.retained + other.retained,
            queued: self.queued + other.queued,
            queued_bytes: self.queued_bytes + other.queued_bytes,
            in_flight: self.in_flight + other.in_flight,
        }
    }
}

impl Core {
    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How much it holds now.
    pub fn levels(&self) -> Levels {
        Levels {
            connections: self.wires.len(),
            sessions: self.sessions.len(),
            subscriptions: self.subscriptions,
            retained: self.retained.len(),
            queued: self.backlog.messages(),
            queued_bytes: self.backlog.bytes(),
            in_flight: self.in_flight,
        }
    }
}
