//! One connection as the machine sees it: whether it was dialled, who is at its other end, whether it lives.

use std::time::{Duration, Instant};

use crate::link::forwarder::Forwarder;
use crate::link::probe::{self, Prober};

use super::output::ConnId;

/// How long a connection may take to its Hello.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long a peer that answers probes may take over nothing of what it has read.
const TAKEOVER: Duration = probe::PERIOD.saturating_mul(2);

/// A connection that the machine knows.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    /// By this side.
    pub(super) dialled: bool,
    /// The largest frame that this side takes on it, as its Hello says; a change counts for connections to come.
    pub(super) frame_bytes_max: usize,
    /// The peer said something last.
    pub(super) heard_at: Instant,
    pub(super) state: State,
}

/// Named for what a connection waits for.
#[derive(Debug)]
pub(super) enum State {
    AwaitHello { until: Instant },
    Open(Box<Open>),
}

/// A connection past both Hellos. There is one at most.
#[derive(Debug)]
pub(super) struct Open {
    /// The peer's actor.
    pub(super) node: String,
    pub(super) incarnation: u64,
    /// The largest message that the peer takes.
    pub(super) message_bytes_max: usize,
    pub(super) prober: Prober,
    /// Whether the peer has said up to where it holds our messages.
    pub(super) resumed: bool,
    /// The position that the peer is to take over next, and since when probes come back without that.
    pub(super) owed: Option<(u64, Instant)>,
    /// Too much waits to be written: nothing but control frames until that is over.
    pub(super) congested: bool,
    pub(super) routes_ack_due: bool,
    pub(super) messages_ack_due: bool,
    /// The position that is acknowledged once what it brought is safe, by the number of that question.
    pub(super) settling: Option<(u64, u64)>,
    /// The position that may be acknowledged.
    pub(super) settled: Option<u64>,
}

impl Open {
    /// The position that the peer has not taken over, though it was sent; 0 if it has not said what it holds.
    pub(super) fn owes(&self, forwarder: &Forwarder) -> Option<u64> {
        if self.resumed { forwarder.first_sent() } else { Some(0) }
    }

    /// Whether the peer answers, and takes nothing over.
    pub(super) fn is_stuck(&self, forwarder: &Forwarder, now: Instant) -> bool {
        let still = |(position, since): (u64, Instant)| {
            since + TAKEOVER <= now && self.owes(forwarder) == Some(position)
        };
        self.owed.is_some_and(still)
    }
}

impl Connection {
    pub(super) fn new(id: ConnId, dialled: bool, frame_bytes_max: usize, now: Instant) -> Connection {
        let state = State::AwaitHello { until: now + HANDSHAKE };
        Connection { id, dialled, frame_bytes_max, heard_at: now, state }
    }

    pub(super) fn open(&self) -> Option<&Open> {
        match &self.state {
            State::Open(open) => Some(open),
            State::AwaitHello { .. } => None,
        }
    }

    pub(super) fn open_mut(&mut self) -> Option<&mut Open> {
        match &mut self.state {
            State::Open(open) => Some(open),
            State::AwaitHello { .. } => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        match &self.state {
            State::AwaitHello { until } => *until,
            State::Open(open) => open.prober.next_at(),
        }
    }
}
