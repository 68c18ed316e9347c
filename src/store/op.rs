//! What the core has to say to a store, and what a store says back at the next start.
//!
//! Values are opaque here: who writes them reads them. A session is named by its partition and a number that is used
//! once; its messages by ordinals that only grow.

use std::sync::Arc;

use super::Partition;

/// No session number and no ordinal gets as large: who finds a larger one has found damage, and may reckon with smaller ones.
pub const NUMBER_MAX: u64 = u64::MAX >> 1;

/// Names a stored session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The home of its client id.
    pub partition: Partition,
    /// Used once in its partition.
    pub number: u64,
}

/// One change of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Who a session is: written anew whenever that changes.
    Session {
        /// Which one.
        key: SessionKey,
        /// Client id, expiry, will.
        value: Vec<u8>,
    },
    /// A subscription comes, changes or goes.
    Subscription {
        /// Whose.
        key: SessionKey,
        /// As the client wrote it.
        filter: String,
        /// `None`: it goes.
        value: Option<Vec<u8>>,
    },
    /// A message at the end of a session's queue.
    Append {
        /// Whose.
        key: SessionKey,
        /// Greater than those before.
        ordinal: u64,
        /// The message.
        value: Vec<u8>,
    },
    /// How far a session is: everything before `head` is over and may go.
    Progress {
        /// Whose.
        key: SessionKey,
        /// The ordinal of the oldest message that is still of use.
        head: u64,
        /// What is half way in and half way out.
        value: Vec<u8>,
    },
    /// A session goes with all that is its.
    End {
        /// Which one.
        key: SessionKey,
    },
    /// The retained message of a topic comes, changes or goes.
    Retain {
        /// The topic.
        topic: Arc<str>,
        /// `None`: it goes.
        value: Option<Vec<u8>>,
    },
}

impl Op {
    /// About what it costs to keep it waiting.
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 64;
        OVERHEAD
            + match self {
                Op::Session { value, .. } | Op::Append { value, .. } | Op::Progress { value, .. } => {
                    value.len()
                }
                Op::Subscription { filter, value, .. } => filter.len() + value.as_ref().map_or(0, Vec::len),
                Op::End { .. } => 0,
                Op::Retain { topic, value } => topic.len() + value.as_ref().map_or(0, Vec::len),
            }
    }
}

/// A session as it was found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Its name.
    pub key: SessionKey,
    /// The last value of [`Op::Session`].
    pub session: Vec<u8>,
    /// Its filters, and the last value of each.
    pub subscriptions: Vec<(String, Vec<u8>)>,
    /// The last value of [`Op::Progress`], if there was any.
    pub progress: Option<Vec<u8>>,
    /// Its messages with their ordinals, oldest first; some may be over already.
    pub messages: Vec<(u64, Vec<u8>)>,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Sessions, by partition and number.
    pub sessions: Vec<StoredSession>,
    /// Retained messages by topic.
    pub retained: Vec<(String, Vec<u8>)>,
}
