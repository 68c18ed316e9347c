//! What status says of a link: three verdicts, each a pure look at the machine.
//!
//! A refusal shows in both `connected` and `peer_agrees`; trouble with the network in `connected` alone.

use std::time::Instant;

use crate::link::refusal::Reason;
use crate::link::route_sender::Synced;
use crate::settings::Dial;
use crate::settings::report::{LinkConnections, LinkCounters, LinkReport, Verdict, VerdictStatus as Status};

use super::Link;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The API's word for it.
    reason: String,
    message: String,
}

impl Trouble {
    pub(super) fn new(reason: &str, message: &str) -> Trouble {
        Trouble { reason: reason.to_owned(), message: message.to_owned() }
    }

    /// The peer's or this side's decision. A peer that stops or changes is only out of reach.
    pub(super) fn refused(reason: Reason, message: &str) -> Trouble {
        match reason {
            Reason::ShuttingDown | Reason::Reconfigured => Trouble::new("ConnectionLost", message),
            reason => Trouble::new(reason.name(), message),
        }
    }

    /// Whether it says that the two halves do not fit each other.
    fn is_disagreement(&self) -> bool {
        const DISAGREEMENTS: [&str; 5] =
            ["UnknownCluster", "BadClusterName", "SelfDialled", "LinkDisabled", "ProtocolMismatch"];
        DISAGREEMENTS.contains(&self.reason.as_str())
    }
}

impl Link {
    /// What status says now.
    pub fn report(&self, now: Instant) -> LinkReport {
        let wanted = u32::from(self.half.enabled && self.half.dial != Dial::In);
        let routes_synced = self.routes_synced(now);
        LinkReport {
            id: self.half.id.clone(),
            revision: self.half.revision.clone(),
            // A new one begins a bootstrap each way, so synced is synced since.
            resync: self.half.resync.clone().filter(|_| routes_synced.status == Status::True),
            connected: self.connected(now),
            peer_agrees: self.peer_agrees(),
            routes_synced,
            peer: self.peer.clone(),
            connections: LinkConnections {
                wanted: wanted.max(u32::from(self.open().is_some())),
                open: u32::from(self.open().is_some()),
            },
            rtt_ms: self.rtt_ms(),
            counters: self.counters(),
        }
    }

    /// What crossed so far.
    pub fn counters(&self) -> LinkCounters {
        LinkCounters {
            epoch: self.epoch,
            sent: self.forwarder.counters(),
            received: self.acceptor.counters(),
        }
    }

    /// Whether the peer has taken over all that it will: without a connection, or when it is stuck, that is nothing.
    pub fn is_drained(&self, now: Instant) -> bool {
        let sent = self.forwarder.counters();
        let takes = self.open().is_some_and(|(_, open)| !open.is_stuck(&self.forwarder, now));
        !takes || sent.queued + sent.in_flight == 0
    }

    /// What this side met itself comes first: strangers can cause the other.
    fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.dialled_trouble.iter().chain(&self.accepted_trouble)
    }

    fn rtt_ms(&self) -> Option<u32> {
        let rtt = self.open()?.1.prober.rtt()?;
        Some(u32::try_from(rtt.as_micros().div_ceil(1000)).unwrap_or(u32::MAX))
    }

    fn connected(&self, now: Instant) -> Verdict {
        if !self.half.enabled {
            return Verdict::new(Status::False, "Disabled", "this half is disabled");
        }
        match (self.open(), self.troubles().next()) {
            (Some((_, open)), _) if open.is_stuck(&self.forwarder, now) => {
                let message =
                    "the peer answers, but does not take over what it was sent; look at its storage";
                Verdict::new(Status::False, "NotAcknowledged", message)
            }
            (Some((_, open)), _) if open.prober.rtt().is_some() => {
                Verdict::new(Status::True, "Connected", "probes cross in both directions")
            }
            (Some(_), _) => Verdict::new(Status::Unknown, "Connecting", "the first probe is on its way"),
            (None, Some(trouble)) => Verdict::new(Status::False, &trouble.reason, &trouble.message),
            (None, None) if self.half.dial == Dial::In => {
                Verdict::new(Status::Unknown, "Connecting", "waits for the peer to dial")
            }
            (None, None) => Verdict::new(Status::Unknown, "Connecting", "dials the peer"),
        }
    }

    fn peer_agrees(&self) -> Verdict {
        if !self.half.enabled {
            return Verdict::new(Status::Unknown, "Disabled", "this half is disabled");
        }
        match (self.open(), self.troubles().find(|trouble| trouble.is_disagreement()), &self.peer) {
            (Some(_), _, Some(peer)) if peer.enabled => {
                Verdict::new(Status::True, "Agreed", self.agreement())
            }
            (Some(_), _, Some(_)) => {
                Verdict::new(Status::False, "LinkDisabled", "the peer has disabled its half")
            }
            (None, Some(trouble), _) => Verdict::new(Status::False, &trouble.reason, &trouble.message),
            _ => Verdict::new(Status::Unknown, "PeerUnknown", "no connection to ask the peer"),
        }
    }

    fn agreement(&self) -> String {
        match self.receiver.narrowed() {
            0 => "the peer has an enabled half".to_owned(),
            n => format!("the peer has an enabled half; {n} of its routes are narrowed by acl.send"),
        }
    }

    fn routes_synced(&self, now: Instant) -> Verdict {
        if !self.half.enabled {
            return Verdict::new(Status::Unknown, "Disabled", "this half is disabled");
        }
        let Some((_, open)) = self.open() else {
            return Verdict::new(Status::Unknown, "PeerUnknown", "no connection to the peer");
        };
        match self.sender.synced(now) {
            Synced::PeerUnknown => {
                Verdict::new(Status::Unknown, "PeerUnknown", "the peer has not said what it holds")
            }
            Synced::Bootstrapping => {
                Verdict::new(Status::False, "Bootstrapping", "this side's routes are on their way")
            }
            Synced::Behind => Verdict::new(Status::False, "Behind", "an answer of the peer is overdue"),
            Synced::Yes if !self.receiver.is_complete(&open.node) => {
                Verdict::new(Status::False, "Bootstrapping", "the peer's routes are on their way")
            }
            Synced::Yes => Verdict::new(Status::True, "Synced", "both directions are equal by digest"),
        }
    }
}
