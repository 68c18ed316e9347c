//! The route sender: tells one peer which messages this node wants, and knows whether the peer has it right.
//!
//! Disconnected → Handshaking → Bootstrapping → Online. Changes while it cannot send are kept as the difference
//! from what the peer was told: a filter that comes and goes leaves nothing, so memory is bounded by the two sets.
//! After a reconnect it goes on only if the peer's answer equals what was told; otherwise everything goes again.
//! Each answer is compared with the digest *at its number*. It knows neither frames nor connections: batches come
//! out, answers go in.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mqtt::Filter;

use super::digest::Digest;
use super::interest::{Change, Wanted};
use super::violation::Violation;

/// Filters and bytes of one batch: small enough to mix with messages, large enough to cost nothing.
const BATCH_FILTERS_MAX: usize = 2048;
const BATCH_BYTES_MAX: usize = 32 * 1024;
/// Batches without an answer: bounds what lies in buffers, covers 100 ms round trips at full speed.
const UNANSWERED_MAX: usize = 32;
/// How long a change waits for others when the peer is busy answering.
const GATHER: Duration = Duration::from_millis(10);
/// How long an answer may take before the direction is behind, which is when `RoutesSynced` may say so. Where a round trip takes
/// half a second, a change that has to wait for room is answered within one.
const ANSWER: Duration = Duration::from_secs(2);

/// Some filters to add and to delete, in ascending order.
#[derive(Debug, PartialEq, Eq)]
pub struct RouteBatch {
    /// One more than the last.
    pub number: u64,
    /// The first of a bootstrap.
    pub begin: bool,
    /// The last of a bootstrap.
    pub end: bool,
    /// What to add.
    pub add: Vec<Filter>,
    /// What to delete, after adding.
    pub delete: Vec<Filter>,
}

/// What the peer holds, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteAnswer {
    /// After which batch; 0 for none.
    pub number: u64,
    /// How much, and its digest.
    pub digest: Digest,
    /// Whether the peer asks for everything again.
    pub need_bootstrap: bool,
}

/// Where replication stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// No connection, or the peer has not said what it holds.
    PeerUnknown,
    /// The set is on its way.
    Bootstrapping,
    /// An answer is overdue, or was not what it should be.
    Behind,
    /// The last answer was right and none is overdue.
    Yes,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Disconnected,
    Handshaking,
    Bootstrapping { rest: VecDeque<Filter>, begun: bool },
    Online,
}

#[derive(Debug)]
struct Unanswered {
    number: u64,
    digest: Digest,
    at: Instant,
}

/// One node's route sender for one peer.
#[derive(Debug)]
pub struct RouteSender {
    wanted: Wanted,
    phase: Phase,
    /// Told = wanted − add + delete, once the bootstrap's rest is sent.
    add: BTreeSet<Filter>,
    delete: BTreeSet<Filter>,
    changed_at: Option<Instant>,
    number: u64,
    told: Digest,
    /// Whether what was told is complete: false inside a bootstrap.
    told_all: bool,
    unanswered: VecDeque<Unanswered>,
    /// Whether the last answer since the bootstrap's end was right.
    confirmed: bool,
}

impl Default for RouteSender {
    fn default() -> Self {
        RouteSender {
            wanted: Wanted::default(),
            phase: Phase::Disconnected,
            add: BTreeSet::new(),
            delete: BTreeSet::new(),
            changed_at: None,
            number: 0,
            told: Digest::default(),
            told_all: false,
            unanswered: VecDeque::new(),
            confirmed: false,
        }
    }
}

impl RouteSender {
    /// A local subscription came or went.
    pub fn handle_subscription(
        &mut self,
        filter: Filter,
        group: Option<Arc<str>>,
        present: bool,
        now: Instant,
    ) {
        let mut changes = Vec::new();
        self.wanted.handle_subscription(filter, group, present, &mut changes);
        self.note(changes, now);
    }

    /// The half's topics changed.
    pub fn handle_topics(&mut self, topics: Vec<Filter>, now: Instant) {
        let mut changes = Vec::new();
        self.wanted.handle_topics(topics, &mut changes);
        self.note(changes, now);
    }

    /// A connection is open; the peer will say what it holds.
    pub fn handle_connected(&mut self) {
        self.phase = Phase::Handshaking;
        self.unanswered.clear();
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self) {
        self.phase = Phase::Disconnected;
        self.unanswered.clear();
        self.confirmed = false;
    }

    /// Somebody wants everything told again.
    pub fn handle_resync(&mut self, now: Instant) {
        match &self.phase {
            // The peer's first word does not count as an answer to what was told before.
            Phase::Disconnected | Phase::Handshaking => self.told_all = false,
            Phase::Bootstrapping { .. } | Phase::Online => self.begin_bootstrap(now),
        }
    }

    /// The peer says what it holds: first of all, and after each batch.
    ///
    /// # Errors
    /// [`Violation::RoutesAckAhead`] when it answers what was not sent.
    pub fn handle_answer(&mut self, answer: RouteAnswer, now: Instant) -> Result<(), Violation> {
        match &self.phase {
            Phase::Disconnected => Ok(()),
            Phase::Handshaking => {
                self.resume(answer, now);
                Ok(())
            }
            Phase::Bootstrapping { .. } | Phase::Online => self.compare(answer, now),
        }
    }

    fn resume(&mut self, answer: RouteAnswer, now: Instant) {
        let holds_all = self.told_all && answer.number == self.number && answer.digest == self.told;
        if answer.need_bootstrap || !holds_all {
            return self.begin_bootstrap(now);
        }
        self.phase = Phase::Online;
        self.confirmed = true;
    }

    fn compare(&mut self, answer: RouteAnswer, now: Instant) -> Result<(), Violation> {
        if answer.number > self.number {
            return Err(Violation::RoutesAckAhead);
        }
        // Beyond a confirmed bootstrap every answer is one to what was told since, asked for or not.
        let differs = answer.number == self.number && answer.digest != self.told;
        if self.confirmed && (answer.need_bootstrap || differs) {
            self.begin_bootstrap(now);
            return Ok(());
        }
        while let Some(front) = self.unanswered.front() {
            if front.number > answer.number {
                break;
            }
            let front = self.unanswered.pop_front().expect("it was just looked at");
            if front.number < answer.number {
                continue;
            }
            if answer.need_bootstrap || front.digest != answer.digest {
                self.begin_bootstrap(now);
                return Ok(());
            }
            self.confirmed = self.phase == Phase::Online;
        }
        Ok(())
    }

    /// What stood in `add` and `delete` is contained in the snapshot that the bootstrap sends.
    fn begin_bootstrap(&mut self, now: Instant) {
        let rest = self.wanted.filters().iter().cloned().collect();
        self.phase = Phase::Bootstrapping { rest, begun: false };
        self.add.clear();
        self.delete.clear();
        self.told = Digest::default();
        self.told_all = false;
        self.unanswered.clear();
        self.confirmed = false;
        self.changed_at = Some(now);
    }

    fn note(&mut self, changes: Vec<Change>, now: Instant) {
        if changes.is_empty() {
            return;
        }
        self.changed_at.get_or_insert(now);
        for Change { filter, wanted } in changes {
            let (cancels, joins) = match wanted {
                true => (&mut self.delete, &mut self.add),
                false => (&mut self.add, &mut self.delete),
            };
            if !cancels.remove(&filter) {
                joins.insert(filter);
            }
        }
    }

    /// The next batch that may leave now.
    pub fn poll_batch(&mut self, now: Instant) -> Option<RouteBatch> {
        if self.unanswered.len() >= UNANSWERED_MAX {
            return None;
        }
        let batch = match &mut self.phase {
            Phase::Disconnected | Phase::Handshaking => return None,
            Phase::Bootstrapping { rest, begun } => {
                let begin = !std::mem::replace(begun, true);
                let mut room = BATCH_BYTES_MAX;
                let add = take_batch(&mut room, || rest.pop_front());
                let end = rest.is_empty();
                RouteBatch { number: self.number + 1, begin, end, add, delete: Vec::new() }
            }
            Phase::Online => self.take_delta(now)?,
        };
        if batch.end {
            self.phase = Phase::Online;
            self.told_all = true;
        }
        self.number = batch.number;
        batch.add.iter().for_each(|filter| self.told.add(filter.as_str()));
        batch.delete.iter().for_each(|filter| self.told.remove(filter.as_str()));
        self.unanswered.push_back(Unanswered { number: self.number, digest: self.told, at: now });
        Some(batch)
    }

    /// At once when nothing waits for an answer, otherwise once the changes have gathered. What is new leaves
    /// before what is stale.
    fn take_delta(&mut self, now: Instant) -> Option<RouteBatch> {
        if self.add.is_empty() && self.delete.is_empty() {
            self.changed_at = None;
            return None;
        }
        if now < self.delta_at()? {
            return None;
        }
        let mut room = BATCH_BYTES_MAX;
        let add = take_batch(&mut room, || self.add.pop_first());
        let delete = match self.add.is_empty() {
            true => take_batch(&mut room, || self.delete.pop_first()),
            false => Vec::new(),
        };
        if self.add.is_empty() && self.delete.is_empty() {
            self.changed_at = None;
        }
        Some(RouteBatch { number: self.number + 1, begin: false, end: false, add, delete })
    }

    fn delta_at(&self) -> Option<Instant> {
        let since = self.changed_at?;
        Some(if self.unanswered.is_empty() { since } else { since + GATHER })
    }

    /// When to poll again without an input.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.phase != Phase::Online {
            return None;
        }
        let overdue = self.unanswered.front().map(|front| front.at + ANSWER).filter(|at| *at > now);
        let full = self.unanswered.len() >= UNANSWERED_MAX;
        let delta = if full { None } else { self.delta_at() };
        [overdue, delta].into_iter().flatten().min()
    }

    /// Where replication stands.
    pub fn synced(&self, now: Instant) -> Synced {
        let unsent = self.changed_at.filter(|_| !self.add.is_empty() || !self.delete.is_empty());
        let oldest = self.unanswered.front().map(|front| front.at).into_iter().chain(unsent).min();
        let overdue = oldest.is_some_and(|at| at + ANSWER <= now);
        match &self.phase {
            Phase::Disconnected | Phase::Handshaking => Synced::PeerUnknown,
            Phase::Bootstrapping { .. } => Synced::Bootstrapping,
            Phase::Online if overdue => Synced::Behind,
            Phase::Online if !self.confirmed => Synced::Bootstrapping,
            Phase::Online => Synced::Yes,
        }
    }

    /// What is wanted.
    #[cfg(test)]
    pub(crate) fn wanted(&self) -> &BTreeSet<Filter> {
        self.wanted.filters()
    }
}

/// Takes filters while there is room; the last one may exceed it, so no filter is too long to be told.
fn take_batch(room: &mut usize, mut next: impl FnMut() -> Option<Filter>) -> Vec<Filter> {
    let mut batch = Vec::new();
    while batch.len() < BATCH_FILTERS_MAX && *room > 0 {
        let Some(filter) = next() else { break };
        *room = room.saturating_sub(filter.as_str().len());
        batch.push(filter);
    }
    batch
}

#[cfg(test)]
mod tests;
