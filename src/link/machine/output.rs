//! What a link asks its surroundings to do.

use crate::mqtt::{Filter, Message};

/// A connection, as its carrier names it; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Who this side is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The own cluster's name.
    pub cluster: String,
    /// The own node's name: the actor.
    pub node: String,
    /// Greater after each start of the node, and each time that a link is made anew.
    pub incarnation: u64,
}

/// Something to do, in the order given.
#[derive(Debug)]
pub enum Output {
    /// Open a connection; the answer is `handle_opened` or `handle_dial_failed`.
    Dial,
    /// Give up the attempt; no answer is expected any more.
    CancelDial,
    /// Write a frame to a connection.
    Send {
        /// Where to.
        conn: ConnId,
        /// The frame's bytes.
        frame: Vec<u8>,
    },
    /// Close a connection after what was sent on it; no input of it counts any more.
    Close {
        /// Which one.
        conn: ConnId,
    },
    /// The peer wants messages that match.
    RouteAdd(Filter),
    /// The peer does not want them any more.
    RouteDelete(Filter),
    /// Hand a message to local subscribers; the answer is `handle_delivered`.
    Deliver(Message),
    /// Say `handle_settled` with this number once all that was delivered before is safe.
    Settle {
        /// Which question this is.
        number: u64,
    },
}
