//! A session: what the broker keeps for a client id, connected or not.
//!
//! Invariants: what waits in `queue` came after everything in `ring`; while `queue` is not empty, QoS 1 and 2 messages go
//! to its end, so order holds; all frames are encoded for `version`; `tail` is the
//! ring's end plus the number of QoS 1 and 2 messages in `queue`.

use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroU64};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::{HashMap, HashSet};

use super::access::Principal;
use super::delivery::Delivery;
use super::members::{Presence, Seat};
use super::mesh::ShardNumber;
use super::queue::{Backlog, Queue};
use super::recipients::Subscriber;
use super::ring::Ring;
use super::routes::RouteId;
use super::{ConnectionId, SessionId};
use crate::mqtt::{Filter, Message, PacketId, QoS, SharedFilter, Version};
use crate::store::Partition;

/// A member of more shared groups than this passes for ready while it is connected and its queue has room, and for full from
/// when that has none until it is empty: to tell them all at each of its acknowledgements would cost us more than its client.
const SHARES_TOLD_MAX: usize = 64;

/// Identifies a subscription within its session: its filter, and its share group if it has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SubscriptionKey {
    pub(super) filter: Filter,
    pub(super) group: Option<Arc<str>>,
}

impl SubscriptionKey {
    /// The same as a shared filter, if it is one.
    pub(super) fn shared(&self) -> Option<SharedFilter> {
        let group = self.group.as_ref()?;
        Some(SharedFilter { group: Arc::clone(group), filter: self.filter.clone() })
    }

    /// What a subscription costs: its text, twice, and a node for each level.
    pub(super) fn bytes(&self) -> usize {
        const LEVEL_BYTES: usize = 128;
        let levels = self.filter.as_str().split('/').count();
        let text = self.filter.as_str().len() + self.group.as_ref().map_or(0, |group| group.len());
        levels * LEVEL_BYTES + 2 * text
    }
}

/// How a session subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) identifier: Option<NonZeroU32>,
}

impl From<&Subscriber> for Subscription {
    fn from(who: &Subscriber) -> Subscription {
        let &Subscriber { qos, no_local, retain_as_published, identifier, .. } = who;
        Subscription { qos, no_local, retain_as_published, identifier }
    }
}

/// A session's part in a shared group.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) how: Subscription,
    /// The other shard that owns the group, if one does.
    pub(super) owner: Option<ShardNumber>,
}

/// What is published when the client goes without saying so.
#[derive(Clone)]
pub(super) struct Will {
    pub(super) message: Message,
    pub(super) delay_s: u32,
    /// The message's own expiry; it counts from the moment of publication.
    pub(super) expiry_s: Option<u32>,
}

/// The state behind a client id.
pub(super) struct Session {
    /// Tells it from a later one in the same place.
    pub(super) serial: u32,
    pub(super) client_id: Arc<str>,
    pub(super) partition: Partition,
    pub(super) version: Version,
    pub(super) connection: Option<ConnectionId>,
    /// The user whose session it is; none: nobody's in particular.
    pub(super) owner: Option<Arc<str>>,
    /// Who it is to the rules; none if an import does not know, until its client comes.
    pub(super) who: Option<Rc<Principal>>,
    /// How long it outlives its connection; `u32::MAX` is forever (as far as the settings let it).
    pub(super) expiry_s: u32,
    /// Set while nobody is connected: when it ends.
    pub(super) ends_at: Option<Instant>,
    pub(super) will: Option<Box<Will>>,
    /// Set while nobody is connected and a will waits.
    pub(super) will_at: Option<Instant>,
    /// The routes of the filters that it subscribed to by itself; how, they know.
    pub(super) routes: HashSet<RouteId, foldhash::fast::RandomState>,
    /// What the subscriptions cost together, by [`SubscriptionKey::bytes`].
    pub(super) subscription_bytes: usize,
    /// The shared groups that it is a member of, if of any.
    pub(super) shares: Option<Box<HashMap<SharedFilter, Share, foldhash::fast::RandomState>>>,
    /// What the owners of these know of it.
    pub(super) presence: Presence,
    pub(super) ring: Ring,
    /// What is in the ring and was not sent on this connection yet.
    #[expect(clippy::box_collection, reason = "most have none, and one is four words")]
    pub(super) unsent: Option<Box<VecDeque<PacketId>>>,
    /// When its timer fires, if one is set.
    pub(super) armed: Option<Instant>,
    /// How many unacknowledged messages its client takes.
    pub(super) window: usize,
    pub(super) queue: Queue,
    /// It stands in line to be sent more.
    pub(super) is_in_line: bool,
    /// The queue had no room for the last message, or for one since it was empty, with many shared groups.
    pub(super) is_full: bool,
    /// QoS 2 messages that came in and were not released. [MQTT-4.3.3-10]
    pub(super) received: Option<Box<HashSet<PacketId, foldhash::fast::RandomState>>>,
    /// The ordinal of the next QoS 1 or 2 message.
    pub(super) tail: u64,
    /// Its number on disk, if it is stored.
    pub(super) number: Option<NonZeroU64>,
    /// QoS 2 messages from this ordinal on wait for the store, if it is stored.
    pub(super) safe_until: u64,
    /// Changes that the store has not got yet and that a PUBREL hangs on.
    pub(super) unsafe_releases: u32,
    /// Its progress goes into the open batch.
    pub(super) is_touched: bool,
    /// It is not on disk as it is here, and is to be written as a whole.
    pub(super) is_stale: bool,
}

impl Session {
    pub(super) fn new(serial: u32, client_id: Arc<str>, version: Version, backlog: &Rc<Backlog>) -> Session {
        Session {
            serial,
            partition: Partition::of(&client_id),
            client_id,
            version,
            connection: None,
            owner: None,
            who: None,
            expiry_s: 0,
            ends_at: None,
            will: None,
            will_at: None,
            routes: HashSet::default(),
            subscription_bytes: 0,
            shares: None,
            presence: Presence::Gone,
            ring: Ring::new(),
            unsent: None,
            armed: None,
            window: 1,
            queue: Queue::new(Rc::clone(backlog)),
            is_in_line: false,
            is_full: false,
            received: None,
            tail: 0,
            number: None,
            safe_until: 0,
            unsafe_releases: 0,
            is_touched: false,
            is_stale: false,
        }
    }

    /// True if a message may be lost with it: it outlives its connection.
    // [MQTT-3.1.2-5] v3
    pub(super) fn is_persistent(&self) -> bool {
        self.expiry_s > 0
    }

    /// True if a QoS 2 message with this id came in and was not released.
    pub(super) fn has_received(&self, id: PacketId) -> bool {
        self.received.as_ref().is_some_and(|all| all.contains(&id))
    }

    /// A QoS 2 message that came in is released. False if there is none with this id.
    pub(super) fn release(&mut self, id: PacketId) -> bool {
        self.received.as_mut().is_some_and(|all| all.remove(&id))
    }

    /// Its name for other shards.
    pub(super) fn seat(&self, id: SessionId) -> Seat {
        Seat { session: id, serial: self.serial }
    }

    /// What the ring has and this connection has not been sent yet.
    pub(super) fn next_unsent(&mut self) -> Option<PacketId> {
        let unsent = self.unsent.as_mut()?;
        let next = unsent.pop_front();
        if unsent.is_empty() {
            self.unsent = None;
        }
        next
    }

    /// True if something waits for room in flight or in the connection's buffer.
    #[inline]
    pub(super) fn has_backlog(&self) -> bool {
        !self.queue.is_empty() || self.unsent.is_some()
    }

    /// Encodes everything again if the client came back with another version.
    pub(super) fn translate(&mut self, to: Version) {
        let from = std::mem::replace(&mut self.version, to);
        if from == to {
            return;
        }
        self.ring.translate(from, to);
        self.queue.translate(from, to);
    }

    /// True if the queue has room for a message.
    pub(super) fn has_room(&self, delivery: &Delivery, messages_max: usize, bytes_max: usize) -> bool {
        self.queue.len() < messages_max && self.queue.bytes() + delivery.frame.len() <= bytes_max
    }

    /// Puts a message at the end of the queue.
    pub(super) fn enqueue(&mut self, delivery: Delivery) {
        self.queue.push(delivery);
        self.is_full &= self.has_many_shares();
    }

    /// True if a message of this QoS must not be sent before the store has it.
    #[inline]
    pub(super) fn holds(&self, qos: QoS) -> bool {
        qos == QoS::ExactlyOnce && self.number.is_some()
    }

    /// How many subscriptions it has.
    pub(super) fn subscription_count(&self) -> usize {
        self.routes.len() + self.shares.as_ref().map_or(0, |all| all.len())
    }

    /// True if it is a member of so many shared groups that these are told seldom how it is.
    pub(super) fn has_many_shares(&self) -> bool {
        self.shares.as_ref().is_some_and(|all| all.len() > SHARES_TOLD_MAX)
    }

    /// Takes the oldest message from the queue.
    pub(super) fn dequeue(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop()?;
        self.is_full &= self.has_many_shares();
        Some(delivery)
    }
}
