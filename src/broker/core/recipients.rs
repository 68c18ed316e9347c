//! Who gets a message, worked out once per topic and kept until the routes change.
//!
//! A session that matches by several subscriptions is one recipient: it gets one copy at the highest of their QoS, with
//! all their identifiers. No Local makes the answer depend on who publishes: a recipient therefore carries
//! what it gets of its own messages apart, where that differs.

use std::num::NonZeroU32;
use std::rc::Rc;

use smallvec::SmallVec;

use super::mesh::ShardMask;
use super::routes::GroupId;
use super::{PeerId, SessionId};
use crate::mqtt::QoS;

/// A subscription as routing sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) session: SessionId,
    pub(super) identifier: Option<NonZeroU32>,
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
}

/// How a recipient gets a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) qos: QoS,
    pub(super) retain_as_published: bool,
    pub(super) identifiers: Option<Rc<[u32]>>,
}

/// What a recipient gets of the messages that it published itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Own {
    Same,
    Nothing,
    Other(Box<Grant>),
}

/// One session that gets a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipient {
    pub(super) session: SessionId,
    grant: Grant,
    own: Own,
}

/// All who get messages with one topic.
#[derive(Default, Debug)]
pub(super) struct Recipients {
    pub(super) sessions: Vec<Recipient>,
    pub(super) groups: Vec<GroupId>,
    pub(super) peers: SmallVec<[PeerId; 2]>,
    /// Other shards.
    pub(super) shards: ShardMask,
    /// Those of them that may have to store it.
    pub(super) keepers: ShardMask,
    routes: u32,
    /// What it took to find them, beyond what is free: levels, routes, and subscriptions of one session that were made one.
    pub(super) looked_at: usize,
    /// How many subscription identifiers go out with a message.
    pub(super) identifiers: usize,
}

impl Grant {
    pub(super) fn of(subscriber: &Subscriber) -> Grant {
        Grant {
            qos: subscriber.qos,
            retain_as_published: subscriber.retain_as_published,
            identifiers: subscriber.identifier.map(|id| Rc::from([id.get()])),
        }
    }

    fn join<'a>(all: impl Iterator<Item = &'a Grant> + Clone) -> Grant {
        // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
        let identifiers: Vec<u32> =
            all.clone().flat_map(|one| one.identifiers.as_deref().unwrap_or_default()).copied().collect();
        Grant {
            qos: all.clone().map(|one| one.qos).fold(QoS::AtMostOnce, QoS::max), // [MQTT-3.3.4-2]
            retain_as_published: all.clone().any(|one| one.retain_as_published),
            identifiers: (!identifiers.is_empty()).then(|| identifiers.into()),
        }
    }
}

impl Recipient {
    fn of(subscriber: &Subscriber) -> Recipient {
        let own = if subscriber.no_local { Own::Nothing } else { Own::Same };
        Recipient { session: subscriber.session, grant: Grant::of(subscriber), own }
    }

    /// How this recipient gets a message of that publisher, if it gets it.
    #[inline]
    pub(super) fn grant(&self, publisher: Option<SessionId>) -> Option<&Grant> {
        match &self.own {
            Own::Same => Some(&self.grant),
            _ if publisher != Some(self.session) => Some(&self.grant),
            Own::Nothing => None, // [MQTT-3.8.3-3]
            Own::Other(grant) => Some(grant),
        }
    }

    /// The one that a session is by several subscriptions: all at once, for there may be thousands.
    fn join(all: &[Recipient]) -> Recipient {
        let own: Vec<_> = all.iter().filter_map(|one| one.grant(Some(one.session))).collect();
        let own = match own.len() {
            0 => Own::Nothing,
            count if count == all.len() => Own::Same,
            _ => Own::Other(Box::new(Grant::join(own.into_iter()))),
        };
        Recipient { session: all[0].session, grant: Grant::join(all.iter().map(|one| &one.grant)), own }
    }
}

impl Recipients {
    /// How much there is to remember, of whatever there is most.
    pub(super) fn extent(&self) -> usize {
        self.sessions.len().max(self.groups.len()).max(self.identifiers)
    }

    /// Adds those of one matching route.
    pub(super) fn add(&mut self, subscribers: &[Subscriber], peers: &[PeerId]) {
        self.sessions.extend(subscribers.iter().map(Recipient::of));
        self.peers.extend_from_slice(peers);
        self.routes += 1;
    }

    /// True if there are any, and all are sessions with subscriptions of their own; of other shards none that at this QoS may
    /// have to be stored for.
    #[inline]
    pub(super) fn are_sessions(&self, qos: QoS) -> bool {
        let is_any = !self.sessions.is_empty() || self.shards != 0;
        let is_stored = self.keepers != 0 && qos != QoS::AtMostOnce;
        is_any && !is_stored && self.groups.is_empty() && self.peers.is_empty()
    }

    /// Makes one of those that came by several routes.
    pub(super) fn merge(&mut self) {
        let identifiers = |one: &Recipient| one.grant.identifiers.as_ref().map_or(0, |all| all.len());
        self.identifiers = self.sessions.iter().map(identifiers).sum();
        if self.routes < 2 {
            return;
        }
        self.sessions.sort_by_key(|recipient| recipient.session);
        if self.sessions.windows(2).any(|two| two[0].session == two[1].session) {
            let runs = self.sessions.chunk_by(|one, next| one.session == next.session);
            self.sessions = runs.map(Recipient::join).collect();
        }
        self.peers.sort_unstable();
        self.peers.dedup();
    }
}
