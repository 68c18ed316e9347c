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
}

impl Grant {
    pub(super) fn of(subscriber: &Subscriber) -> Grant {
        Grant {
            qos: subscriber.qos,
            retain_as_published: subscriber.retain_as_published,
            identifiers: subscriber.identifier.map(|id| Rc::from([id.get()])),
        }
    }

    fn join(&mut self, other: &Grant) {
        // [MQTT-3.3.4-2]
        self.qos = self.qos.max(other.qos);
        self.retain_as_published |= other.retain_as_published;
        if let Some(more) = &other.identifiers {
            // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
            let mine = self.identifiers.as_deref().unwrap_or_default();
            self.identifiers = Some(mine.iter().chain(more.iter()).copied().collect());
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

    fn own_grant(&self) -> Option<&Grant> {
        self.grant(Some(self.session))
    }

    fn join(&mut self, other: &Recipient) {
        let own = match (self.own_grant(), other.own_grant()) {
            (None, None) => Own::Nothing,
            (Some(one), None) | (None, Some(one)) => Own::Other(Box::new(one.clone())),
            (Some(one), Some(two)) if self.own != Own::Same || other.own != Own::Same => {
                let mut both = one.clone();
                both.join(two);
                Own::Other(Box::new(both))
            }
            (Some(_), Some(_)) => Own::Same,
        };
        self.grant.join(&other.grant);
        self.own = own;
    }
}

impl Recipients {
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
        if self.routes < 2 {
            return;
        }
        self.sessions.sort_by_key(|recipient| recipient.session);
        self.sessions.dedup_by(|next, kept| {
            let is_same = next.session == kept.session;
            if is_same {
                kept.join(next);
            }
            is_same
        });
        self.peers.sort_unstable();
        self.peers.dedup();
    }
}
