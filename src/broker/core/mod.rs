//! The broker's heart: sessions, subscriptions, retained messages and routing of one shard, pure.
//!
//! Events go in (`open`, `handle_*`), with `now` as an argument; what to do comes out: bytes in each connection's buffer,
//! [`Effect`]s, and [`PortEvent`]s for the links. After each `handle_*`, drain them. There is no socket, no task, no file
//! and no clock in here, so a test needs neither.
//!
//! Reading order: [`Core::handle_bytes`] decodes and branches; `connect`, `publish`, `acks`, `subscribe` and `leave` hold the
//! packets' meaning; `answers` leave once they may; `deliver` brings a message to a session, `pump` what waited there;
//! `peers` is the links' side door.
//!
//! What holds: a fault of one client ends that client's connection and touches nobody else; nothing that a client sends
//! makes the core panic or take memory beyond the settings' limits; between two events, every session with a backlog is
//! waiting for its client (to acknowledge, to read or to come back), for the store, or in line for its turn.

mod blocks;
mod table;
mod tree;
mod recipients;
mod members;
mod subscribers;
mod takers;
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
mod queue;
mod session;
mod clients;
mod outbox;
mod connection;
mod wires;
mod wheel;
mod reading;
mod connect;
mod exchange;
mod leave;
mod subscribe;
mod publish;
mod row;
mod answers;
mod acks;
mod deliver;
mod pump;
mod peers;
mod telling;
mod mesh;
mod export;
mod counters;
mod inspect;
mod durable;
#[cfg(test)]
pub(super) mod tests;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use slab::Slab;

use self::access::Access;
pub use self::access::{Grants, Origin, Proof, Traits};
use self::admission::Review;
use self::answers::Waiting;
use self::clients::Clients;
use self::connection::{Connection, Stranger, Terms};
pub use self::counters::{Counters, Levels};
use self::deliver::Swept;
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
pub use self::outbox::PIECE_FULL;
use self::peers::Peers;
pub use self::peers::{Interest, PeerId, PortEvent};
pub use self::pressure::{PART_BYTES, Pressure};
use self::pump::Pumps;
use self::queue::Backlog;
use self::retained::Retained;
pub use self::room::Room;
use self::routes::Routes;
use self::session::Session;
pub use self::telling::Redirect;
use self::topics::Topics;
use self::wheel::Wheel;
use self::wires::Wires;
use crate::mqtt::PlainPublish;
use crate::settings::{Action, Limits};
use crate::store::{Batch, Token};

/// What a delivery costs besides the bytes of its message, as so many of them.
const DELIVERY_BYTES: usize = 64;

/// How many bytes of [work](Core::routed) are done in a turn of what is due at one moment, one session excepted.
const DUE_WORK_MAX: u64 = 1 << 20;
/// What it costs to look at whom a timer is for.
const DUE_COST: u64 = 512;

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
    /// Tell the log that a client may not do what it tried: of what comes in a row the first.
    Denied {
        /// Whose it is.
        connection: ConnectionId,
        /// What it tried.
        deed: Action,
        /// Where: a topic, or the text of a filter.
        at: Box<str>,
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
    /// A connection that was not read is read again.
    Read {
        /// Which one.
        connection: ConnectionId,
    },
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
    backlog: Rc<Backlog>,
    /// How many messages were sent to clients and are not answered: the sum over all rings.
    in_flight: usize,
    peers: Peers,
    encoder: Encoder,
    /// Where the messages of a row begin, while there is one.
    row: Vec<(usize, PlainPublish)>,
    pumps: Pumps,
    routed: u64,
    swept: Swept,
    wheel: Wheel<Timer>,
    /// What the wheel gave and no turn had room for.
    due: VecDeque<Timer>,
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
            backlog: Rc::new(Backlog::new(Arc::clone(&room))),
            room,
            in_flight: 0,
            peers: Peers::default(),
            encoder: Encoder::default(),
            row: Vec::new(),
            pumps: Pumps::default(),
            routed: 0,
            swept: Swept::new(now),
            wheel: Wheel::new(now),
            due: VecDeque::new(),
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

    /// Reserves room for so many connections and sessions, which takes address space and no memory until they come: to move all
    /// that are here when there is one more takes milliseconds.
    pub fn expect_clients(&mut self, connections: usize, sessions: usize) {
        self.wires.make_room(connections);
        self.sessions.reserve(sessions);
    }

    /// Counts with the others of its node from now on; a shard that holds nothing yet.
    pub fn share_room(&mut self, room: Arc<Room>) {
        self.retained = Retained::new(Arc::clone(&room));
        self.backlog = Rc::new(Backlog::new(Arc::clone(&room)));
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
            connection.stranger = Some(Box::new(Stranger { origin, client_id: None }));
        }
        self.arm_connection(id, now);
        id
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

    /// How many bytes of messages this shard ever had to bring to its recipients, whatever came of it, and 64 more
    /// for each: what goes into a queue or is dropped costs as well.
    #[inline]
    pub fn routed(&self) -> u64 {
        self.routed
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

    /// Does what is due; what is too much for a turn is [work](Core::handle_work).
    pub fn handle_timeout(&mut self, now: Instant) {
        self.due.extend(self.wheel.fire(now));
        self.handle_due(now);
    }

    /// A turn of what is due.
    fn handle_due(&mut self, now: Instant) {
        let work_end = self.routed + DUE_WORK_MAX;
        while self.routed < work_end
            && let Some(timer) = self.due.pop_front()
        {
            self.routed += DUE_COST;
            match timer {
                Timer::Connection(id) => self.connection_due(id, now),
                Timer::Session(id, serial) => self.session_due(id, serial, now),
            }
        }
    }
}
