//! Who is let in as whom, and what that means for its session: ownership, rules, and what happens when rules change.
//!
//! A session belongs to the user who made it, as long as it lives: others are refused its client id. One that nobody in
//! particular made (an anonymous client) is anyone's to take over.
//!
//! When rules change, PUBLISH and SUBSCRIBE keep them from then on. What was subscribed before is looked at a part at a time
//! ([`Core::handle_work`]): what is no longer allowed is removed, connected or not. A connected client is told by the end of its
//! connection; when it comes back and subscribes again, SUBACK says what it may have. What was queued before stays.

use std::rc::Rc;
use std::time::Instant;

use super::access::{Principal, Proof, RULE_COST, Rules};
use super::connection::{Connection, Granted, Opening};
use super::publish::REMEMBERED_BYTES_MAX;
use super::session::SubscriptionKey;
use super::{ConnectionId, Core, Fault, SessionId};
use crate::settings;

/// How much a part of a review may cost, in comparisons of two filters: about a millisecond.
const REVIEW_COST: usize = 10_000;
/// What a subscription costs that is removed.
const REMOVAL_COST: usize = 20;

/// Where a look at all subscriptions is.
#[derive(Default)]
pub(super) struct Review {
    /// The session to look at next, by place.
    next: usize,
    /// The one that is looked at, by place and serial, …
    session: Option<(SessionId, u32)>,
    /// … and what is left of it.
    keys: Vec<SubscriptionKey>,
}

impl Core {
    /// Changes what clients may do. What was subscribed before is [work](Core::handle_work).
    pub fn set_access(&mut self, authorization: Option<&settings::Authorization>, takes_tokens: bool) {
        self.access.takes_tokens = takes_tokens;
        if self.access.settings.as_ref() == authorization {
            return;
        }
        let generation = self.access.generation.wrapping_add(1).max(1);
        self.access.generation = generation;
        self.access.rules = authorization.map(|settings| Rules::new(settings, generation));
        self.access.settings = authorization.cloned();
        self.review = Some(Review::default());
    }

    /// True while subscriptions from before the last change are looked at.
    #[inline]
    pub(super) fn is_in_review(&self) -> bool {
        self.review.is_some()
    }

    /// Looks at a part of what was subscribed under other rules.
    pub(super) fn review(&mut self, now: Instant) {
        let Some(mut review) = self.review.take().filter(|_| !self.access.is_open()) else { return };
        let mut cost = 0;
        while cost < REVIEW_COST {
            cost += match review.session {
                Some((id, serial)) => self.review_session(&mut review, id, serial, now),
                None if review.next >= self.sessions.capacity() => return,
                None => self.begin_review(&mut review),
            };
        }
        self.review = Some(review);
    }

    /// Takes up the next session.
    fn begin_review(&self, review: &mut Review) -> usize {
        let id = review.next;
        review.next += 1;
        let is_new = |who: &Rc<Principal>| who.checked.get() != self.access.generation;
        let Some(session) = self.sessions.get(id).filter(|one| one.who.as_ref().is_some_and(is_new)) else {
            return 1;
        };
        review.session = Some((id as SessionId, session.serial));
        review.keys = self.subscriptions_of(id as SessionId).map(|(key, _)| key).collect();
        1 + review.keys.len()
    }

    /// Looks at one subscription.
    fn review_session(&mut self, review: &mut Review, id: SessionId, serial: u32, now: Instant) -> usize {
        let session = self.sessions.get(id as usize).filter(|session| session.serial == serial);
        let Some((session, who)) = session.and_then(|one| Some((one, one.who.clone()?))) else {
            (review.session, review.keys) = (None, Vec::new());
            return 1;
        };
        let Some(key) = review.keys.pop() else {
            who.checked.set(self.access.generation);
            review.session = None;
            return 1;
        };
        let cost = self.access.weight(&who);
        if self.subscription(id, &key).is_none() || self.access.may_subscribe(&who, &key.filter) {
            return cost;
        }
        let connection = session.connection;
        self.remove_subscription(id, &key);
        if let Some(connection) = connection {
            self.close(connection, Fault::NotAuthorized, now);
        }
        cost + REMOVAL_COST
    }

    /// Removes the subscriptions that a client may not have, where they were not checked as hers before.
    pub(super) fn drop_denied(&mut self, id: SessionId, who: &Rc<Principal>) {
        let generation = self.access.generation;
        let before = self.sessions[id as usize].who.as_ref();
        let is_checked = before.is_some_and(|one| one.checked.get() == generation && one.is_like(who));
        who.checked.set(generation);
        if is_checked || self.access.is_open() {
            return;
        }
        let all = self.subscriptions_of(id).map(|(key, _)| key);
        let denied: Vec<_> = all.filter(|key| !self.access.may_subscribe(who, &key.filter)).collect();
        for key in &denied {
            self.remove_subscription(id, key);
        }
    }

    /// Checks whether a client that showed who it is may come in under this client id, with this will.
    pub(super) fn admit(&mut self, id: ConnectionId, opening: &Opening) -> Result<Rc<Principal>, Fault> {
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        let username = connection.username.clone();
        let origin = connection.stranger.as_mut().map(|stranger| std::mem::take(&mut stranger.origin));
        if let Some(session) = self.session_of(&opening.client_id)
            && let Some(owner) = &self.sessions[session as usize].owner
            && username.as_ref() != Some(owner)
        {
            return Err(Fault::ClientIdTaken);
        }
        self.access.has_grants |= opening.own.is_some();
        let who = Principal::new(
            username,
            opening.client_id.clone(),
            origin.unwrap_or_default(),
            opening.own.clone(),
        );
        match &opening.will {
            Some(will) if !self.access.may_publish(&who, &will.message.topic) => Err(Fault::NotAuthorized),
            _ => Ok(Rc::new(who)),
        }
    }

    /// Gives connection and session their owner. What the session was subscribed to may be more than this one may have: it
    /// came from another address, say.
    pub(super) fn settle_in(&mut self, session: SessionId, id: ConnectionId, who: Rc<Principal>) {
        self.drop_denied(session, &who);
        if let Some(connection) = self.wires.get_mut(id) {
            connection.who = Some(Rc::clone(&who));
            connection.stranger = None;
        }
        let session = &mut self.sessions[session as usize];
        session.owner.clone_from(&who.username);
        session.who = Some(who);
    }

    /// True if a client may publish to a topic. Nearly every message asks, most for the same topic as the one before.
    #[inline]
    pub(super) fn is_granted(&mut self, id: ConnectionId, topic: &str) -> bool {
        if self.wires.get(id).is_some_and(|connection| self.was_granted(connection, topic)) {
            return true;
        }
        let Some(connection) = self.wires.get_mut(id) else { return false };
        let generation = self.access.generation;
        let is_allowed = connection.who.as_ref().is_some_and(|who| {
            self.routed += self.access.weight(who) as u64 * RULE_COST;
            self.access.may_publish(who, topic)
        });
        if is_allowed && topic.len() <= REMEMBERED_BYTES_MAX {
            let empty = || Box::new(Granted { topic: String::new(), generation });
            let last = connection.granted.get_or_insert_with(empty);
            last.topic.clear();
            last.topic.push_str(topic);
            last.generation = generation;
        }
        is_allowed
    }

    /// True if the rules as they are let a client publish to this topic last time, or there are none.
    #[inline]
    pub(super) fn was_granted(&self, connection: &Connection, topic: &str) -> bool {
        let is_same = |last: &Granted| last.generation == self.access.generation && last.topic == topic;
        self.access.is_open() || connection.granted.as_deref().is_some_and(is_same)
    }

    /// True if a session's will may still be published.
    pub(super) fn is_will_granted(&self, id: SessionId, topic: &str) -> bool {
        self.sessions[id as usize].who.as_ref().is_none_or(|who| self.access.may_publish(who, topic))
    }

    /// Ends all connections that a rule no longer allows; the rule gets the user name, and how the client showed that it is
    /// its own. Who waits for a verdict is among them: it would be one by the old rules.
    pub fn close_where(
        &mut self,
        is_barred: impl Fn(Proof, Option<&str>) -> bool,
        fault: Fault,
        now: Instant,
    ) {
        let ids: Vec<_> = self.wires.ids().collect();
        for id in ids {
            let Some(connection) = self.wires.get(id).filter(|connection| connection.is_in()) else {
                continue;
            };
            if is_barred(connection.proof, connection.username.as_deref()) {
                self.close(id, fault, now);
            }
        }
    }
}
