//! The broker's heart: sessions, subscriptions, retained messages and routing of one shard, pure.
//!
//! Events go in (`open`, `handle_*`), with `now` as an argument; what to do comes out: bytes in each connection's buffer,
//! [`Effect`]s, and [`PortEvent`]s for the links. After each `handle_*`, drain them. There is no socket, no task, no file
//! and no clock in here, so a test needs neither.
//!
//! Reading order: [`Core::handle_bytes`] decodes and branches; `connect`, `publish`, `subscribe` and `leave` hold the
//! packets' meaning; `deliver` brings a message to a session; `peers` is the links' side door.
//!
//! What holds: a fault of one client ends that client's connection and touches nobody else; nothing that a client sends
//! makes the core panic or take memory beyond the settings' limits; between two events, every session with a backlog is
//! waiting for its client (to acknowledge, to read or to come back), never for the core.

mod tree;
mod recipients;
mod members;
mod subscribers;
mod routes;
mod topics;
mod pressure;
mod room;
mod retained;
mod fault;
mod access;
mod admission;
mod aliases;
mod delivery;
mod ring;
mod session;
mod clients;
mod outbox;
mod connection;
mod wires;
mod wheel;
mod connect;
mod exchange;
mod leave;
mod subscribe;
mod publish;
mod deliver;
mod peers;
mod telling;
mod mesh;
mod export;
mod inspect;
mod durable;
#[cfg(test)]
pub(super) mod tests;

use std::collections::VecDeque;
use std::ops::Add;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use slab::Slab;

use self::access::Access;
pub use self::access::{Grants, Origin, Proof};
use self::admission::Review;
use self::clients::Clients;
use self::connection::{Connection, State, Terms};
use self::delivery::Encoder;
use self::durable::Ledger;
pub use self::durable::RestoreError;
pub use self::exchange::Answer;
pub use self::export::{
    ExportedInFlight, ExportedMessage, ExportedSession, ExportedSubscription, ExportedWill, ImportError,
};
pub use self::fault::{Endings, Fault};
pub use self::inspect::Kicked;
use self::mesh::Mesh;
pub use self::mesh::{Bag, Desk, Exchanged, Office, Place, SHARDS_MAX, ShardMask, ShardNumber, shards_in};
use self::peers::Peers;
pub use self::peers::{Interest, PeerId, PortEvent};
pub use self::pressure::{PART_BYTES, Pressure};
use self::publish::Waiting;
use self::retained::Retained;
pub use self::room::Room;
use self::routes::Routes;
use self::session::Session;
pub use self::telling::Redirect;
use self::topics::Topics;
use self::wheel::Wheel;
use self::wires::Wires;
use crate::mqtt::{self, Packet, PacketType, Violation};
use crate::settings::Limits;
use crate::store::{Batch, Token};

/// A session's place in the shard.
type SessionId = u32;

/// Names one connection for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    slot: u32,
    serial: u32,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Check a user name and password, and answer with [`Core::handle_verdict`]. Nothing is read meanwhile.
    Authenticate {
        /// Whose they are.
        connection: ConnectionId,
        /// The user name.
        username: Arc<str>,
        /// The password, empty if there was none.
        password: Bytes,
    },
    /// Let an authentication method look at a client's message, and answer with [`Core::handle_exchange`].
    Exchange {
        /// Whose it is.
        connection: ConnectionId,
        /// Which method.
        method: Arc<str>,
        /// What the method said to remember; empty with the first message.
        context: Arc<str>,
        /// The message.
        data: Bytes,
    },
    /// Send what is in the buffer, close the socket, and say [`Core::handle_closed`].
    Close {
        /// Which one.
        connection: ConnectionId,
        /// Why.
        fault: Fault,
    },
    /// Make these changes safe, in this order and together, and answer with [`Core::handle_persisted`].
    Persist(Token, Batch),
    /// All connections that were not read because others could not take what they brought are read again.
    Resume,
}

/// What the shell found out about a user name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They belong together.
    Accepted,
    /// The password is a token, and says who the client is.
    Token {
        /// The user that it names.
        username: Arc<str>,
        /// When it ends, and the connection with it.
        until: Option<Instant>,
        /// What tells the key that signed it from others.
        key: u64,
        /// What it says that its bearer may do.
        grants: Option<Grants>,
    },
    /// Nobody can tell, and nobody needs to: no user is known, and clients without a name may connect.
    Anonymous,
    /// They do not.
    Refused,
    /// Too many wait for an answer.
    Busy,
}

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
}

impl Add for Levels {
    type Output = Levels;

    fn add(self, other: Levels) -> Levels {
        Levels {
            connections: self.connections + other.connections,
            sessions: self.sessions + other.sessions,
            subscriptions: self.subscriptions + other.subscriptions,
            retained: self.retained + other.retained,
        }
    }
}

/// What a timer is for. Who fires looks at its own deadline.
#[derive(Clone, Copy)]
enum Timer {
    Connection(ConnectionId),
    Session(SessionId, u32),
}

/// One shard of the broker.
pub struct Core {
    limits: Limits,
    is_anonymous_allowed: bool,
    access: Access,
    review: Option<Review>,
    redirect: Option<Redirect>,
    wires: Wires,
    sessions: Slab<Session>,
    by_client: Clients,
    subscriptions: usize,
    routes: Routes,
    retained: Retained,
    room: Arc<Room>,
    peers: Peers,
    encoder: Encoder,
    wheel: Wheel<Timer>,
    unanswered: Waiting,
    /// Whose PUBREL and PUBCOMP wait for which batch.
    uncompleted: VecDeque<(Token, ConnectionId)>,
    ledger: Ledger,
    /// Everything up to here is safe.
    safe: Token,
    topics: Topics,
    mesh: Mesh,
    pressure: Pressure,
    serial: u32,
    seed: u64,
    counters: Counters,
}

impl Core {
    /// An empty shard. `seed` makes the client ids that it gives away unlike those of other shards and other times.
    pub fn new(limits: Limits, is_anonymous_allowed: bool, seed: u64, now: Instant) -> Core {
        Core::one_of(Place::ALONE, limits, is_anonymous_allowed, seed, now)
    }

    /// An empty shard among others.
    pub fn one_of(place: Place, limits: Limits, is_anonymous_allowed: bool, seed: u64, now: Instant) -> Core {
        let room = Arc::<Room>::default();
        Core {
            limits,
            is_anonymous_allowed,
            access: Access::default(),
            review: None,
            redirect: None,
            wires: Wires::new(),
            sessions: Slab::new(),
            by_client: Clients::default(),
            subscriptions: 0,
            routes: Routes::new(),
            retained: Retained::new(Arc::clone(&room)),
            room,
            peers: Peers::default(),
            encoder: Encoder::default(),
            wheel: Wheel::new(now),
            unanswered: Waiting::default(),
            uncompleted: VecDeque::new(),
            ledger: Ledger::new(now),
            safe: Token(0),
            topics: Topics::default(),
            mesh: Mesh::new(place),
            pressure: Pressure::None,
            serial: 0,
            seed,
            counters: Counters::default(),
        }
    }

    /// Counts with the others of its node from now on; a shard that holds nothing yet.
    pub fn share_room(&mut self, room: Arc<Room>) {
        self.retained = Retained::new(Arc::clone(&room));
        self.room = room;
    }

    /// Where the session of a client is, if it has one.
    fn session_of(&self, client_id: &str) -> Option<SessionId> {
        self.by_client.get(client_id, &self.sessions)
    }

    /// Changes what clients may cost and whether they need a name. What is open stays open.
    pub fn set_policy(&mut self, limits: Limits, is_anonymous_allowed: bool) {
        self.limits = limits;
        self.is_anonymous_allowed = is_anonymous_allowed;
    }

    /// Says how short memory is; what is shed for that follows at once.
    pub fn set_pressure(&mut self, pressure: Pressure) {
        let was_short = self.pressure.keeps_queues_short();
        self.pressure = pressure;
        if pressure.keeps_queues_short() != was_short {
            // Members of shared groups with much in flight are as ready as the step lets them be.
            let ids: Vec<_> = self.sessions.iter().map(|(id, _)| id as SessionId).collect();
            for id in ids {
                self.sessions[id as usize].is_full = false; // it is another bound now
                self.look_at(id);
            }
        }
    }

    /// Tells whether memory is so short that queues grow no further.
    pub fn is_memory_short(&self) -> bool {
        self.pressure.keeps_queues_short()
    }

    /// A socket was accepted.
    pub fn open(&mut self, now: Instant) -> ConnectionId {
        self.open_from(Origin::default(), now)
    }

    /// A socket was accepted, and something is known of its other end.
    pub fn open_from(&mut self, origin: Origin, now: Instant) -> ConnectionId {
        let id = self.wires.open(Terms::of_stranger(&self.limits), now);
        if let Some(connection) = self.wires.get_mut(id) {
            connection.origin = Some(Box::new(origin));
        }
        self.arm_connection(id, now);
        id
    }

    /// Bytes came. Returns how many of them were used; the rest must come again, with more behind it. Nothing is used
    /// while the connection does not [read](Core::reads).
    pub fn handle_bytes(&mut self, id: ConnectionId, bytes: &[u8], now: Instant) -> usize {
        let (mut used, mut before) = (0, None);
        if let Some(connection) = self.wires.get_mut(id) {
            connection.last_seen = now;
            before = connection.last_topic();
        }
        let before = before.as_deref().unwrap_or_default();
        while let Some(connection) = self.wires.get(id).filter(|connection| self.reads_from(connection))
            && !self.mesh.is_congested()
        {
            if connection.subscribing > 0 && !is_subscribe(&bytes[used..]) {
                self.hold_back(id);
                break;
            }
            if let State::Open(session) = connection.state
                && let Some(first) = mqtt::plain_puback(&bytes[used..])
            {
                match self.handle_pubacks(session, first, &bytes[used..], now) {
                    Ok(length) => used += length,
                    Err(fault) => self.close(id, fault, now),
                }
                continue;
            }
            let terms = &connection.terms.packets;
            match mqtt::decode_after(&bytes[used..], connection.version, terms, before) {
                Ok(Some((packet, length))) => {
                    let whole = &bytes[used..used + length];
                    used += length;
                    if let Err(fault) = self.handle_packet(id, packet, whole, now) {
                        self.close(id, fault, now);
                    }
                }
                Ok(None) => {
                    if bytes.len() - used > PART_BYTES {
                        self.handle_part(id, now);
                    }
                    break;
                }
                // [MQTT-4.13.1-1] [MQTT-3.1.4-1]
                Err(violation) => {
                    if let Some(version) = mqtt::connack_version(&bytes[used..]) {
                        self.introduce(id, version);
                    }
                    self.close(id, Fault::Violation(violation), now);
                }
            }
        }
        used
    }

    /// Holds back what a client sent behind a SUBSCRIBE that waits for other shards: its answer would come before the SUBACK.
    fn hold_back(&mut self, id: ConnectionId) {
        if let Some(connection) = self.wires.get_mut(id) {
            connection.is_held_back = true;
        }
    }

    /// More than [`PART_BYTES`] came of a packet that is not whole. While nothing is taken in, its connection ends.
    pub fn handle_part(&mut self, id: ConnectionId, now: Instant) {
        if self.pressure == Pressure::Closed {
            self.close(id, Fault::MemoryShort, now);
        }
    }

    /// True while bytes from this connection may be handled; false while it waits for a [`Verdict`], leaves answers unread,
    /// has too many unanswered, or is closed, and while other shards are behind. It turns true again no later than something
    /// was sent to it, or with [`Effect::Resume`].
    pub fn reads(&self, id: ConnectionId) -> bool {
        !self.mesh.is_congested() && self.wires.get(id).is_some_and(|connection| self.reads_from(connection))
    }

    #[inline]
    fn reads_from(&self, connection: &Connection) -> bool {
        connection.reads() && !self.keeps_waiting(connection)
    }

    /// True if a connection is not read for the store's or other shards' sake: so much of it waits for them, or they are behind
    /// and this one has something to do with it.
    fn keeps_waiting(&self, connection: &Connection) -> bool {
        let (waits, is_most) = connection.waits();
        is_most
            || connection.is_held_back
            || waits && (self.ledger.is_full() || self.unanswered.is_full())
            || self.ledger.is_flooded() && self.is_stored(connection)
    }

    fn is_stored(&self, connection: &Connection) -> bool {
        let session = connection.session().and_then(|session| self.sessions.get(session as usize));
        session.is_some_and(|session| session.number.is_some())
    }

    /// What to do next, besides sending.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.wires.effects.pop_front().or_else(|| self.close_batch())
    }

    /// The connections that have bytes to send since the last call.
    pub fn take_dirty(&mut self, into: &mut Vec<ConnectionId>) {
        self.wires.take_dirty(into);
    }

    /// How many bytes this shard ever had to send, to all connections together.
    #[inline]
    pub fn appended(&self) -> u64 {
        self.wires.appended
    }

    /// True if [`Core::take_dirty`] would give any.
    #[inline]
    pub fn has_dirty(&self) -> bool {
        self.wires.has_dirty()
    }

    /// The first bytes that a connection has to send: whole packets, and none only if it has none to send.
    pub fn outgoing(&self, id: ConnectionId) -> &[u8] {
        self.wires.get(id).map_or(&[], |connection| connection.out.first())
    }

    /// How many bytes a connection has to send.
    pub fn waiting(&self, id: ConnectionId) -> usize {
        self.wires.get(id).map_or(0, |connection| connection.waiting())
    }

    /// The first `count` outgoing bytes are sent.
    pub fn handle_written(&mut self, id: ConnectionId, count: usize, now: Instant) {
        self.wires.written(id, count);
        let Some(session) = self.wires.get(id).and_then(Connection::session) else { return };
        match self.sessions[session as usize].has_backlog() {
            true => self.pump(session, now),
            false => self.look_at(session),
        }
    }

    /// When to call [`Core::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wheel.next()
    }

    /// True if [`Core::poll_timeout`] would give any time.
    #[inline]
    pub fn has_timers(&self) -> bool {
        !self.wheel.is_empty()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for timer in self.wheel.fire(now) {
            match timer {
                Timer::Connection(id) => self.connection_due(id, now),
                Timer::Session(id, serial) => self.session_due(id, serial, now),
            }
        }
    }

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
        }
    }

    /// Handles a packet, whose bytes are `whole`.
    #[inline]
    fn handle_packet(
        &mut self,
        id: ConnectionId,
        packet: Packet,
        whole: &[u8],
        now: Instant,
    ) -> Result<(), Fault> {
        let connection = self.wires.get(id).ok_or(Fault::ClientLeft)?;
        match (&connection.state, packet) {
            (State::Open(session), Packet::Publish(publish)) => {
                let came_in = connection.version;
                self.handle_publish(id, *session, publish, (came_in, whole), now)
            }
            (State::Open(session), packet) => self.handle_open(id, *session, packet, now),
            (State::AwaitConnect, Packet::Connect(connect)) => self.handle_connect(id, &connect, now),
            (State::AwaitConnect, _) => Err(Violation::FirstPacketNotConnect.into()), // [MQTT-3.1.0-1]
            (State::AwaitAuth(_), Packet::Auth(auth)) => self.handle_early_auth(id, &auth),
            (State::AwaitAuth(_), Packet::Disconnect(_)) => Err(Fault::ClientLeft),
            (State::AwaitAuth(_), _) => Err(Violation::UnexpectedPacket.into()), // [MQTT-3.1.2-30]
            // [MQTT-3.1.4-6]
            (State::AwaitVerdict(_) | State::AwaitStore(_) | State::Closed, _) => Ok(()),
        }
    }

    fn handle_open(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        packet: Packet,
        now: Instant,
    ) -> Result<(), Fault> {
        match packet {
            Packet::PubAck(ack) => self.handle_pubacks(session, ack.packet_id, &[], now).map(drop),
            Packet::PubRec(ack) => self.handle_pubrec(id, session, &ack, now),
            Packet::PubRel(ack) => self.handle_pubrel(id, session, &ack),
            Packet::PubComp(ack) => self.handle_pubcomp(session, &ack, now),
            Packet::Subscribe(subscribe) => self.handle_subscribe(id, session, &subscribe, now),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(id, session, &unsubscribe, now),
            Packet::PingReq => {
                self.reply(id, &Packet::PingResp) // [MQTT-3.12.4-1]
            }
            Packet::Disconnect(disconnect) => self.handle_disconnect(id, session, &disconnect, now),
            Packet::Connect(_) => Err(Violation::SecondConnect.into()), // [MQTT-3.1.0-2]
            Packet::Auth(auth) => self.handle_auth(id, &auth),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Violation::UnexpectedPacket.into())
            }
            Packet::Publish(_) => unreachable!("PUBLISH was handled before"),
        }
    }

    /// Sends a packet that is not a PUBLISH.
    fn reply(&mut self, id: ConnectionId, packet: &Packet) -> Result<(), Fault> {
        let version = self.wires.get(id).map(|connection| connection.version).ok_or(Fault::ClientLeft)?;
        let is_sent = self.wires.answer(id, |out| packet.encode(version, out));
        if is_sent { Ok(()) } else { Err(Fault::AnswerTooLarge) }
    }
}

/// True if a SUBSCRIBE comes next, or nothing.
fn is_subscribe(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| first >> 4 == PacketType::Subscribe as u8)
}
