//! Who is let in as whom, and what that means for its session: ownership, rules, and what happens when rules change.
//!
//! A session belongs to the user who made it, as long as it lives: others are refused its client id. One that nobody in
//! particular made (an anonymous client) is anyone's to take over.
//!
//! When rules change, subscriptions that they no longer allow are removed, connected or not. A connected client is told by the
//! end of its connection; when it comes back and subscribes again, SUBACK says what it may have. What was queued before stays.

use std::rc::Rc;
use std::time::Instant;

use super::access::{Access, Principal, Proof, Rules};
use super::connection::Opening;
use super::{ConnectionId, Core, Fault, SessionId};
use crate::settings;

impl Core {
    /// Changes what clients may do. Those who did what they no longer may do hear of it.
    pub fn set_access(
        &mut self,
        authorization: Option<&settings::Authorization>,
        takes_tokens: bool,
        now: Instant,
    ) {
        self.access.takes_tokens = takes_tokens;
        if self.access.settings.as_ref() == authorization {
            return;
        }
        let (rules, settings) = (authorization.map(Rules::new), authorization.cloned());
        self.access = Access { rules, settings, takes_tokens };
        let ids: Vec<_> = self.wires.ids().collect();
        for id in ids {
            if let Some(connection) = self.wires.get_mut(id) {
                connection.granted.clear();
            }
        }
        let sessions: Vec<_> = self.sessions.iter().map(|(id, _)| id as SessionId).collect();
        for session in sessions {
            self.apply_rules(session, now);
        }
    }

    fn apply_rules(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let (connection, Some(who)) = (session.connection, session.who.clone()) else { return };
        self.access.concern(&who);
        if self.drop_denied(id, &who)
            && let Some(connection) = connection
        {
            self.close(connection, Fault::NotAuthorized, now);
        }
    }

    /// Removes the subscriptions that a client may not have. True if there were any.
    fn drop_denied(&mut self, id: SessionId, who: &Principal) -> bool {
        if self.access.rules.is_none() {
            return false;
        }
        let access = &self.access;
        let all = self.sessions[id as usize].subscriptions.keys();
        let denied: Vec<_> = all.filter(|key| !access.may_subscribe(who, &key.filter)).cloned().collect();
        for key in &denied {
            self.remove_subscription(id, key);
        }
        !denied.is_empty()
    }

    /// Checks whether a client that showed who it is may come in under this client id, with this will.
    pub(super) fn admit(&mut self, id: ConnectionId, opening: &Opening) -> Result<Rc<Principal>, Fault> {
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        let username = connection.username.clone();
        let origin = std::mem::take(&mut connection.origin);
        if let Some(&session) = self.by_client.get(&opening.client_id)
            && let Some(owner) = &self.sessions[session as usize].owner
            && username.as_ref() != Some(owner)
        {
            return Err(Fault::ClientIdTaken);
        }
        let who = Principal::new(username, opening.client_id.clone(), origin);
        self.access.concern(&who);
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
        }
        let session = &mut self.sessions[session as usize];
        session.owner.clone_from(&who.username);
        session.who = Some(who);
    }

    /// True if a client may publish to a topic. Nearly every message asks, most for the same topic as the one before.
    #[inline]
    pub(super) fn is_granted(&mut self, id: ConnectionId, topic: &str) -> bool {
        if self.access.rules.is_none() {
            return true;
        }
        let Some(connection) = self.wires.get_mut(id) else { return false };
        if connection.granted == topic {
            return true;
        }
        let is_allowed = connection.who.as_ref().is_some_and(|who| self.access.may_publish(who, topic));
        if is_allowed {
            connection.granted.clear();
            connection.granted.push_str(topic);
        }
        is_allowed
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
