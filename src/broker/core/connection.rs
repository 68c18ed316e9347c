//! One connection as the core sees it: where it is in its life, and the bytes that wait to be sent.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SessionId;
use super::recipients::Recipients;
use super::session::Will;
use crate::mqtt::Version;

/// What a connection waits for.
pub(super) enum State {
    /// CONNECT.
    AwaitConnect,
    /// The shell's word on user name and password; nothing is read meanwhile.
    AwaitVerdict(Box<Opening>),
    /// Anything: CONNECT was accepted.
    Open(SessionId),
    /// The shell: it sends what is left and closes the socket.
    Closed,
}

/// A CONNECT that is valid and waits to be accepted.
pub(super) struct Opening {
    pub(super) client_id: Arc<str>,
    /// We chose the client id, and a version 5 client has to be told.
    pub(super) is_id_assigned: bool,
    pub(super) clean_start: bool,
    pub(super) keep_alive_s: u16,
    pub(super) expiry_s: u32,
    /// What the client asked for, if it is not what it gets.
    pub(super) is_expiry_cut: bool,
    pub(super) receive_max: u16,
    pub(super) will: Option<Box<Will>>,
}

/// The last topic that a connection published to, and who gets it.
pub(super) struct LastTopic {
    pub(super) topic: String,
    pub(super) generation: u64,
    pub(super) recipients: Rc<Recipients>,
}

/// One client connection.
pub(super) struct Connection {
    pub(super) serial: u32,
    pub(super) version: Version,
    pub(super) state: State,
    pub(super) is_dirty: bool,
    /// Bytes to send; `sent` of them are gone already.
    pub(super) out: Vec<u8>,
    pub(super) sent: usize,
    /// The largest packet that the client takes.
    pub(super) packet_bytes_max: usize,
    pub(super) opened_at: Instant,
    pub(super) last_seen: Instant,
    /// One and a half times the keep alive.
    pub(super) patience: Option<Duration>,
    pub(super) username: Option<Arc<str>>,
    /// The topics behind the aliases that the client set, by alias less one.
    pub(super) aliases: Vec<Option<Arc<str>>>,
    pub(super) aliases_bytes: usize,
    pub(super) last_topic: Option<LastTopic>,
    /// When its timer fires, if one is set.
    pub(super) armed: Option<Instant>,
    /// CONNECT came, so `version` is the client's.
    pub(super) is_introduced: bool,
}

impl Connection {
    pub(super) fn new(serial: u32, now: Instant) -> Connection {
        Connection {
            serial,
            version: Version::V3,
            state: State::AwaitConnect,
            is_dirty: false,
            out: Vec::new(),
            sent: 0,
            packet_bytes_max: usize::MAX,
            opened_at: now,
            last_seen: now,
            patience: None,
            username: None,
            aliases: Vec::new(),
            aliases_bytes: 0,
            last_topic: None,
            armed: None,
            is_introduced: false,
        }
    }

    /// The session, once CONNECT is accepted and until the connection closes.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self.state {
            State::Open(session) => Some(session),
            State::AwaitConnect | State::AwaitVerdict(_) | State::Closed => None,
        }
    }

    /// True if bytes from the client may be handled now.
    pub(super) fn reads(&self) -> bool {
        matches!(self.state, State::AwaitConnect | State::Open(_))
    }

    /// How many bytes wait to be sent.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Notes that the first `count` waiting bytes are gone.
    pub(super) fn written(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.out.len() {
            self.out.clear();
            self.sent = 0;
            if self.out.capacity() > OUT_KEPT {
                self.out = Vec::new();
            }
        } else if self.sent > OUT_KEPT {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// The capacity that an empty buffer keeps, and how many sent bytes may lie before the waiting ones.
const OUT_KEPT: usize = 64 * 1024;
