//! The acceptor: messages that a peer's nodes forward to this one.
//!
//! It drops what arrived before (positions per actor and stream), what the half does not want and what the ACL
//! does not accept, and counts each. What remains is handed out for the core; a position is acknowledged once the
//! core has it safe. The balance `received = delivered + dropped` holds once each delivery was answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::mqtt::{Filter, filter_matches};
use crate::settings::report::ReceivedCounters;

use super::violation::Violation;

/// Streams of one actor: connections between two nodes that carry messages at the same time. Version 1 has one.
const STREAMS_MAX: u64 = 1;

/// What happens to a message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the core; the result comes back by [`Acceptor::handle_delivered`].
    Deliver,
    /// It was dropped and counted.
    Dropped,
}

/// The messages of one peer cluster.
#[derive(Debug, Default)]
pub struct Acceptor {
    topics: Vec<Filter>,
    accept: Vec<Filter>,
    enabled: bool,
    /// By actor; the incarnation and, by stream, the last position taken over.
    windows: BTreeMap<String, (u64, BTreeMap<u64, u64>)>,
    counters: ReceivedCounters,
    /// The last topic looked at: most batches repeat few topics.
    last: Option<(Arc<str>, bool)>,
}

impl Acceptor {
    /// What the half wants and accepts changed.
    pub fn handle_wanted(&mut self, topics: Vec<Filter>, accept: Vec<Filter>, enabled: bool) {
        (self.topics, self.accept, self.enabled) = (topics, accept, enabled);
        self.last = None;
    }

    /// An actor opened a connection; gives the position from which it goes on. The route receiver has already
    /// refused an outdated incarnation.
    pub fn handle_hello(&mut self, node: &str, incarnation: u64, stream: u64) -> u64 {
        let window = self.windows.entry(node.to_owned()).or_default();
        if window.0 != incarnation {
            *window = (incarnation, BTreeMap::new());
        }
        window.1.get(&stream).copied().unwrap_or(0)
    }

    /// The actor is gone for good.
    pub fn forget(&mut self, is_known: impl Fn(&str) -> bool) {
        self.windows.retain(|node, _| is_known(node));
    }

    /// Opens one batch of an actor's stream; gives the last position held, None when there was none.
    ///
    /// # Errors
    /// [`Violation::TooMany`] for a stream beyond the bound.
    pub fn stream(&mut self, node: &str, stream: u64) -> Result<Option<u64>, Violation> {
        if stream >= STREAMS_MAX {
            return Err(Violation::TooMany);
        }
        Ok(self.windows.get(node).and_then(|window| window.1.get(&stream).copied()))
    }

    /// Notes the last position of a batch that is taken over.
    pub fn take_over(&mut self, node: &str, stream: u64, position: u64) {
        let window = self.windows.get_mut(node).expect("an actor says Hello before it sends messages");
        window.1.insert(stream, position);
    }

    /// Judges a message that has no position, or a position that was not held before.
    pub fn handle_message(&mut self, topic: &Arc<str>) -> Verdict {
        self.counters.received += 1;
        if !self.enabled {
            self.counters.dropped.disabled += 1;
            return Verdict::Dropped;
        }
        if !self.is_wanted(topic) {
            self.counters.dropped.not_wanted += 1;
            return Verdict::Dropped;
        }
        Verdict::Deliver
    }

    /// Counts a message whose position was held before.
    pub fn handle_duplicate(&mut self) {
        self.counters.received += 1;
        self.counters.dropped.duplicate += 1;
    }

    /// The core took a message for so many recipients.
    pub fn handle_delivered(&mut self, recipients: usize) {
        match recipients {
            0 => self.counters.dropped.no_route += 1,
            _ => self.counters.delivered += 1,
        }
    }

    /// The counters of this moment.
    pub fn counters(&self) -> ReceivedCounters {
        self.counters
    }

    fn is_wanted(&mut self, topic: &Arc<str>) -> bool {
        if let Some((last, wanted)) = &self.last
            && (Arc::ptr_eq(last, topic) || last == topic)
        {
            return *wanted;
        }
        let any = |filters: &[Filter]| filters.iter().any(|filter| filter_matches(filter.as_str(), topic));
        let wanted = any(&self.topics) && any(&self.accept);
        self.last = Some((topic.clone(), wanted));
        wanted
    }
}
