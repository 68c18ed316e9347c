//! One connection as the core sees it: where it is in its life, and the bytes that wait to be sent.

use core::net::IpAddr;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::SessionId;
use super::access::{Origin, Principal, Proof, Rules};
use super::acks::Uncompleted;
use super::aliases::Aliases;
use super::exchange::Exchange;
use super::outbox::Outbox;
use super::recipients::Recipients;
use super::session::Will;
use crate::mqtt::{self, ALIAS_BYTES_MAX, PropertiesBuf, QoS, TopicAlias, Version};
use crate::settings;

/// What a connection waits for.
pub(super) enum State {
    /// CONNECT.
    AwaitConnect,
    /// The shell's word on user name and password; nothing is read meanwhile.
    AwaitVerdict(Box<Opening>),
    /// AUTH, or DISCONNECT: an authentication goes on.
    AwaitAuth(Box<Opening>),
    /// The store: the client begins anew, and what it leaves behind must be gone for good. Nothing is read meanwhile.
    AwaitStore(Box<Entering>),
    /// Anything: CONNECT was accepted.
    Open(SessionId),
    /// The shell: it sends what is left and closes the socket.
    Closed,
}

/// Who is not let in yet.
pub(super) struct Stranger {
    pub(super) origin: Origin,
    /// The client id that its CONNECT asks for.
    pub(super) client_id: Option<Arc<str>>,
}

/// A CONNECT that is valid and waits to be accepted.
pub(super) struct Opening {
    pub(super) client_id: Arc<str>,
    /// We chose the client id, and a version 5 client has to be told.
    pub(super) is_id_assigned: bool,
    pub(super) clean_start: bool,
    pub(super) keep_alive_s: u16,
    /// The keep alive is ours, not what the client asked for.
    pub(super) is_keep_alive_ours: bool,
    pub(super) expiry_s: u32,
    /// What the client asked for, if it is not what it gets.
    pub(super) is_expiry_cut: bool,
    pub(super) receive_max: u16,
    pub(super) will: Option<Box<Will>>,
    /// The last message of its authentication method.
    pub(super) proof: Bytes,
    /// The rules of its token.
    pub(super) own: Option<Rc<Rules>>,
}

/// A CONNECT that is accepted, but for its session.
pub(super) struct Entering {
    pub(super) opening: Opening,
    pub(super) who: Rc<Principal>,
    pub(super) connack: PropertiesBuf,
}

/// The last topic that a connection published to, and who gets it.
pub(super) struct LastTopic {
    pub(super) topic: Rc<str>,
    pub(super) generation: u64,
    pub(super) recipients: Rc<Recipients>,
    /// One of them gets no [row](super::row) as it came: none is tried again in this read.
    pub(super) is_apart: bool,
}

/// A topic that the rules let a client publish to.
pub(super) struct Granted {
    pub(super) topic: String,
    /// The rules that were asked, by their generation.
    pub(super) generation: u32,
}

/// The aliases that a client set.
#[derive(Default)]
pub(super) struct TheirAliases {
    /// The topics behind them, by alias less one.
    pub(super) topics: Vec<Option<Arc<str>>>,
    pub(super) bytes: usize,
}

/// What a client was told that we take; new settings do not change it for those who are here.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) packets: mqtt::Limits,
    pub(super) receive_max: u16,
    pub(super) alias_max: u16,
}

impl Terms {
    /// Before CONNECT, from whoever it may be: room for all that a CONNECT reasonably holds.
    pub(super) fn of_stranger(limits: &settings::Limits) -> Terms {
        let packet_bytes_max = limits.packet_bytes_max.min(CONNECT_BYTES_MAX);
        let packets = mqtt::Limits { packet_bytes_max, ..mqtt::Limits::default() };
        Terms { packets, ..Terms::of_client(limits) }
    }

    /// What CONNACK says.
    pub(super) fn of_client(limits: &settings::Limits) -> Terms {
        Terms {
            packets: mqtt::Limits {
                packet_bytes_max: limits.packet_bytes_max.min(PUBLISH_BYTES_MAX),
                ..mqtt::Limits::default()
            },
            receive_max: limits.inflight_max,
            alias_max: limits.topic_alias_max,
        }
    }
}

/// The largest PUBLISH that is taken from anybody: it leaves as a larger one when its topic was an alias, and with a
/// recipient's subscription identifiers, and then must not exceed what MQTT can express.
pub(super) const PUBLISH_BYTES_MAX: usize = mqtt::PACKET_BYTES_MAX - (1 << 20);
/// The largest CONNECT: five strings of 64 KiB, and as much again for properties.
const CONNECT_BYTES_MAX: usize = 640 * 1024;
/// How many bytes of answers a client may leave unread before we no longer read what it asks.
const OWED_BYTES_MAX: usize = 256 * 1024;
/// How many answers may wait for the store or other shards before we no longer read what would bring more: all packet ids.
const UNANSWERED_MAX: usize = 65_535;

/// One client connection.
pub(super) struct Connection {
    pub(super) serial: u32,
    pub(super) version: Version,
    pub(super) state: State,
    pub(super) is_dirty: bool,
    /// Bytes to send.
    pub(super) out: Outbox,
    /// Bytes of answers that went into `out`, less all bytes that were sent since: `out` exceeds what deliveries may fill
    /// by no more than this.
    pub(super) owed: usize,
    /// Acknowledgements that wait for the store or other shards.
    pub(super) unanswered: u32,
    /// How many of these are SUBACKs that wait for other shards.
    pub(super) subscribing: u32,
    /// What it publishes waits for searches on other shards.
    pub(super) awaits_shows: bool,
    /// Something came that waits for either.
    pub(super) is_held_back: bool,
    /// PUBREL and PUBCOMP that wait for it; they go with the connection.
    #[expect(clippy::box_collection, reason = "most have none, and one is four words")]
    pub(super) uncompleted: Option<Box<VecDeque<Uncompleted>>>,
    /// QoS 1 and 2 messages of this connection that its Receive Maximum counts.
    pub(super) receiving: u32,
    pub(super) terms: Terms,
    /// The largest packet that the client takes.
    pub(super) packet_bytes_max: usize,
    pub(super) opened_at: Instant,
    pub(super) last_seen: Instant,
    /// One and a half times the keep alive.
    pub(super) patience: Option<Duration>,
    pub(super) username: Option<Arc<str>>,
    pub(super) proof: Proof,
    /// What is known of its other end, until it is let in.
    pub(super) stranger: Option<Box<Stranger>>,
    /// Who it is to the rules, from then on.
    pub(super) who: Option<Rc<Principal>>,
    /// When it ends whatever it does.
    pub(super) until: Option<Instant>,
    /// The last topic that the rules let it publish to, if there are any.
    pub(super) granted: Option<Box<Granted>>,
    /// What its authentication method remembers, if CONNECT named one.
    pub(super) exchange: Option<Box<Exchange>>,
    /// The aliases that the client set, if it did.
    pub(super) aliases: Option<Box<TheirAliases>>,
    /// The aliases that we give, if the client takes any.
    pub(super) own_aliases: Option<Box<Aliases>>,
    pub(super) last_topic: Option<LastTopic>,
    /// When its timer fires, if one is set.
    pub(super) armed: Option<Instant>,
    /// CONNECT came, so `version` is the client's.
    pub(super) is_introduced: bool,
    /// It speaks MQTT 3.1.
    pub(super) is_mqisdp: bool,
    /// It does not want to read reasons, but for those of CONNACK and DISCONNECT.
    pub(super) is_incurious: bool,
}

impl Connection {
    pub(super) fn new(serial: u32, terms: Terms, now: Instant) -> Connection {
        Connection {
            serial,
            version: Version::V3,
            state: State::AwaitConnect,
            is_dirty: false,
            out: Outbox::default(),
            owed: 0,
            unanswered: 0,
            subscribing: 0,
            awaits_shows: false,
            is_held_back: false,
            uncompleted: None,
            receiving: 0,
            terms,
            packet_bytes_max: usize::MAX,
            opened_at: now,
            last_seen: now,
            patience: None,
            username: None,
            proof: Proof::Nothing,
            stranger: None,
            who: None,
            until: None,
            granted: None,
            exchange: None,
            aliases: None,
            own_aliases: None,
            last_topic: None,
            armed: None,
            is_introduced: false,
            is_mqisdp: false,
            is_incurious: false,
        }
    }

    /// Where it comes from, if that is known.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let of_stranger = || self.stranger.as_ref().and_then(|stranger| stranger.origin.address);
        self.who.as_ref().map_or_else(of_stranger, |who| who.address())
    }

    /// True from CONNECT on until it closes.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::AwaitConnect | State::Closed)
    }

    /// The session, once CONNECT is accepted and until the connection closes.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self.state {
            State::Open(session) => Some(session),
            _ => None,
        }
    }

    /// True if it said who it is and is not closed.
    pub(super) fn is_in(&self) -> bool {
        matches!(self.state, State::AwaitVerdict(_) | State::AwaitStore(_) | State::Open(_))
    }

    /// True if bytes from the client may be handled now: not while it leaves our answers unread.
    pub(super) fn reads(&self) -> bool {
        let is_in_turn = matches!(self.state, State::AwaitConnect | State::AwaitAuth(_) | State::Open(_));
        is_in_turn && self.owed <= OWED_BYTES_MAX
    }

    /// True if something of it waits for the store or other shards, and whether that is as much as may.
    pub(super) fn waits(&self) -> (bool, bool) {
        let count = self.unanswered as usize + self.uncompleted.as_ref().map_or(0, |queue| queue.len());
        (count > 0, count >= UNANSWERED_MAX)
    }

    /// True if these bytes may be a row of PUBLISHes of QoS 0 or 1 that go where the last one went.
    #[inline]
    pub(super) fn may_begin_row(&self, bytes: &[u8]) -> bool {
        let qos = match bytes.first() {
            Some(0x30) => QoS::AtMostOnce,
            Some(0x32) => QoS::AtLeastOnce,
            _ => return false,
        };
        self.last_topic.as_ref().is_some_and(|last| !last.is_apart && last.recipients.are_sessions(qos))
    }

    /// How many messages of QoS 1 may come that are acknowledged together; `waits` if that is not at once.
    #[inline]
    pub(super) fn room_for_acks(&self, waits: bool) -> usize {
        let may_come = match self.version {
            Version::V3 => usize::MAX,
            Version::V5 => usize::from(self.terms.receive_max).saturating_sub(self.receiving as usize),
        };
        let takes = self.packet_bytes_max >= mqtt::PLAIN_ACK_BYTES;
        match waits || self.unanswered > 0 {
            _ if may_come == 0 || !takes => 0,
            true => may_come,
            false => OWED_BYTES_MAX.saturating_sub(self.owed) / mqtt::PLAIN_ACK_BYTES,
        }
    }

    /// The topic that it published to last, if that is remembered.
    pub(super) fn last_topic(&self) -> Option<Rc<str>> {
        self.last_topic.as_ref().map(|last| Rc::clone(&last.topic))
    }

    /// The alias for a PUBLISH of so many bytes. [MQTT-3.1.2-27]
    #[inline]
    pub(super) fn alias<'a>(&mut self, len: usize, topic: impl FnOnce() -> &'a str) -> Option<TopicAlias> {
        let aliases = self.own_aliases.as_mut()?;
        // The first packet with an alias is longer than without, and must fit too. [MQTT-3.1.2-24]
        (len + ALIAS_BYTES_MAX <= self.packet_bytes_max).then(|| aliases.get(topic())).flatten()
    }

    /// How many bytes wait to be sent.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.out.waiting()
    }

    /// Notes that the first `count` waiting bytes are gone, and gives up a buffer that this leaves empty.
    pub(super) fn written(&mut self, count: usize) -> Option<Vec<u8>> {
        let buffer = self.out.remove(count);
        self.owed = if self.waiting() == 0 { 0 } else { self.owed.saturating_sub(count) };
        buffer
    }
}
