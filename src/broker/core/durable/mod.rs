//! What must survive a restart: the changes that a store has to hear of, and what waits for it.
//!
//! A session that outlives its connection is *stored*, as soon as the core has a store; each change of it and of retained
//! messages becomes an [`Op`] in the open batch. The shell takes a batch with [`Effect::Persist`] after each event, so
//! what one event brings is written together or not at all. An answer that promises something waits for its batch; so does
//! a QoS 2 message to a stored session, because sent before it is safe it would be sent twice after a restart.
//!
//! A store may fail. Then what must be stored is refused, what was under way is refused too, and whatever changes is
//! *stale*: written as a whole when the store is back. Until all of it is, nothing new is promised.
//!
//! Invariants: without a store nothing here costs more than a branch; what is under way is bounded by
//! [`UNDER_WAY_BYTES_MAX`], beyond which publishers that wait for the store are not read, and by four times as much, beyond
//! which nobody is whose session is stored.

mod records;
mod emit;
mod mend;
mod restore;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Effect, SessionId};
use crate::mqtt::QoS;
use crate::store::{Batch, Handed, Op, SessionKey, Token};

pub use restore::RestoreError;

/// How many bytes of changes the store may be behind before publishers that wait for it are no longer read. At 1 µs a
/// record that is some tens of milliseconds of its work.
const UNDER_WAY_BYTES_MAX: usize = 16 << 20;
/// How many until nobody is read whose session is stored: acknowledgements from clients are changes, too, and nothing of
/// theirs waits for the store.
const FLOOD_BYTES: usize = 4 * UNDER_WAY_BYTES_MAX;
/// How many bytes of topics may wait for the store to hear of their retained messages; changes of more are refused.
const STALE_TOPICS_BYTES_MAX: usize = 64 << 20;
/// What such a topic costs besides its text.
const STALE_TOPIC_BYTES: usize = 64;
/// What waits for a store that is not there.
const NEVER: Token = Token(u64::MAX);

/// How it is with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none: memory is all there is.
    Off,
    /// It takes what it is given.
    Up,
    /// It failed.
    Down,
    /// It is back, and does not know everything yet.
    Mending,
}

/// A QoS 2 message, or a PUBREL, that may be sent once its batch is safe.
struct Held {
    token: Token,
    session: SessionId,
    serial: u32,
    /// Messages before this ordinal may be sent then.
    until: u64,
    is_release: bool,
}

/// The open batch, what is under way, and what waits for it.
pub(super) struct Ledger {
    state: State,
    ops: Vec<Op>,
    bytes: usize,
    /// Sessions whose progress goes into the open batch.
    touched: Vec<(SessionId, u32)>,
    /// Grows with every change, so that an event can tell whether it brought any.
    changes: u64,
    /// The open batch's.
    token: Token,
    under_way: VecDeque<(Token, usize)>,
    under_way_bytes: usize,
    held: VecDeque<Held>,
    /// The number of the next stored session.
    next_number: u64,
    /// A moment by both clocks; wall time in milliseconds since 1970.
    moment: (Instant, u64),
    /// What is not on disk as it is here.
    stale: Stale,
    /// Somebody waits for the open batch, even if it is empty.
    must_close: bool,
}

#[derive(Default)]
struct Stale {
    sessions: Vec<(SessionId, u32)>,
    ended: Vec<SessionKey>,
    topics: HashSet<Arc<str>>,
    /// What they cost, about.
    topics_bytes: usize,
}

impl Stale {
    fn add_topic(&mut self, topic: &Arc<str>) {
        if self.topics.insert(Arc::clone(topic)) {
            self.topics_bytes += topic_bytes(topic);
        }
    }

    fn remove_topic(&mut self, topic: &str) {
        if self.topics.remove(topic) {
            self.topics_bytes -= topic_bytes(topic);
        }
    }
}

fn topic_bytes(topic: &str) -> usize {
    topic.len() + STALE_TOPIC_BYTES
}

impl Ledger {
    pub(super) fn new(now: Instant) -> Ledger {
        Ledger {
            state: State::Off,
            ops: Vec::new(),
            bytes: 0,
            touched: Vec::new(),
            changes: 0,
            token: Token(1),
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            held: VecDeque::new(),
            next_number: 1,
            moment: (now, 0),
            stale: Stale::default(),
            must_close: false,
        }
    }

    /// True if sessions are stored at all.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.state != State::Off
    }

    /// True if what must be stored has to be refused.
    #[inline]
    pub(super) fn refuses(&self) -> bool {
        matches!(self.state, State::Down | State::Mending)
    }

    /// True if the store is so far behind that more must not come.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.under_way_bytes + self.bytes > UNDER_WAY_BYTES_MAX
    }

    /// True if it is so far behind that who can add to that must not.
    pub(super) fn is_flooded(&self) -> bool {
        self.under_way_bytes + self.bytes > FLOOD_BYTES
    }

    /// True if a change of a retained message by one of this QoS is told the store some time later.
    fn tells_later(&self, qos: QoS) -> bool {
        match self.state {
            State::Off => false,
            // One that nobody waits for can wait itself: it goes when the store has caught up.
            State::Up => qos == QoS::AtMostOnce && self.is_full(),
            State::Down | State::Mending => true,
        }
    }

    /// True if too much is to be told the store later for a change of this topic's retained message.
    pub(super) fn cannot_note(&self, topic: &str, qos: QoS) -> bool {
        let is_full = self.stale.topics_bytes > STALE_TOPICS_BYTES_MAX;
        is_full && self.tells_later(qos) && !self.stale.topics.contains(topic)
    }

    /// Compared with an earlier one it tells whether anything has to be stored since.
    #[inline]
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// What an answer has to wait for that hangs on the changes so far.
    pub(super) fn token(&self) -> Token {
        if self.state == State::Up { self.token } else { NEVER }
    }

    /// What an answer has to wait for that hangs on what came before, and changes nothing itself.
    pub(super) fn token_so_far(&self) -> Token {
        let is_open = !self.ops.is_empty() || !self.touched.is_empty() || self.must_close;
        match self.token() {
            NEVER => NEVER,
            open => Token(open.0 - u64::from(!is_open)),
        }
    }

    /// The open batch is to be written even if there is nothing in it. One that fails is not: all is told again later.
    pub(super) fn ask_anyway(&mut self) {
        self.must_close |= self.state == State::Up;
    }

    fn push(&mut self, op: Op) {
        self.changes += 1;
        self.bytes += op.bytes();
        self.ops.push(op);
    }

    /// Closes the open batch if there is anything in it.
    fn close(&mut self, gave: Vec<Handed>, took: Vec<Handed>) -> Option<Effect> {
        if self.ops.is_empty() && !std::mem::take(&mut self.must_close) {
            return None;
        }
        self.must_close = false;
        let token = self.token;
        self.token.0 += 1;
        let bytes = std::mem::take(&mut self.bytes);
        self.under_way.push_back((token, bytes));
        self.under_way_bytes += bytes;
        Some(Effect::Persist(token, Batch { ops: std::mem::take(&mut self.ops), gave, took }))
    }

    fn landed(&mut self, token: Token) {
        while self.under_way.front().is_some_and(|&(one, _)| one <= token) {
            self.under_way_bytes -= self.under_way.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// The last moment that it was told of.
    pub(super) fn now(&self) -> Instant {
        self.moment.0
    }

    /// The wall time of a moment.
    fn wall_ms(&self, at: Instant) -> u64 {
        let (then, wall_ms) = self.moment;
        match at.checked_duration_since(then) {
            Some(after) => wall_ms.saturating_add(millis(after)),
            None => wall_ms.saturating_sub(millis(then - at)),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
