//! SUBSCRIBE and UNSUBSCRIBE: subscriptions, the retained messages they bring, and the interest that peers hear of.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Instant;

use smallvec::SmallVec;

use super::access::RULE_COST;
use super::mesh::Wanted;
use super::pressure::Pressure;
use super::recipients::Subscriber;
use super::session::{Session, Subscription, SubscriptionKey};
use super::{ConnectionId, Core, Fault, SessionId};
use crate::mqtt::{
    Filter, Packet, PacketId, Properties, QoS, ReasonCode, RetainHandling, SharedFilter, SubAck, Subscribe,
    SubscribeOptions, Unsubscribe, parse_subscription,
};
use crate::settings::Action;

/// How many levels a filter may have: each costs a node in the tree, and nobody needs more.
const LEVELS_MAX: usize = 128;
/// What it costs to take a filter in or out, as bytes of [work](Core::routed).
pub(super) const FILTER_COST: u64 = 1024;
/// What all subscriptions of a session may cost: room for 10,000 of a usual length, not for 10,000 of 64 KiB.
const SUBSCRIPTION_BYTES_MAX: usize = 16 << 20;

type Reasons = SmallVec<[u8; 16]>;

/// A SUBSCRIBE that is done but for its answer.
pub(super) struct Subscribed {
    pub(super) connection: ConnectionId,
    session: SessionId,
    serial: u32,
    packet_id: PacketId,
    reasons: Reasons,
    /// The filters whose retained messages it brings.
    to_show: Vec<(Filter, SubscribeOptions)>,
    identifier: Option<NonZeroU32>,
    /// The store's count of changes before it.
    pub(super) before: u64,
    /// The searches' moment before it.
    since: u64,
}

impl Core {
    pub(super) fn handle_subscribe(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        subscribe: &Subscribe,
        now: Instant,
    ) -> Result<(), Fault> {
        let identifier = subscribe.properties.subscription_identifiers().next().and_then(NonZeroU32::new);
        let (before, since) = (self.ledger.changes(), self.mesh.shows.moment());
        let mut reasons = Reasons::new();
        let mut to_show = Vec::new();
        let filters_max = self.filters_max(session);
        // [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1]
        for (text, options) in subscribe.filters.iter() {
            if reasons.len() >= filters_max {
                self.counters.subscriptions_over_quota += 1;
                reasons.push(ReasonCode::QuotaExceeded as u8);
                continue;
            }
            self.routed += FILTER_COST;
            reasons.push(match self.subscribe(session, text, options, identifier) {
                Ok(show) => {
                    to_show.extend(show.map(|filter| (filter, options)));
                    options.qos as u8
                }
                Err(reason) => reason as u8,
            });
        }
        let serial = self.sessions[session as usize].serial;
        let packet_id = subscribe.packet_id;
        let connection = id;
        self.subscribed(
            Subscribed {
                connection,
                session,
                serial,
                packet_id,
                reasons,
                to_show,
                identifier,
                before,
                since,
            },
            now,
        )
    }

    /// Answers a SUBSCRIBE, now that its interest is held everywhere, and sends what is retained.
    pub(super) fn finish_subscribe(&mut self, subscribed: Subscribed, now: Instant) -> Result<(), Fault> {
        let Subscribed {
            connection,
            session,
            serial,
            packet_id,
            reasons,
            to_show,
            identifier,
            before,
            since,
        } = subscribed;
        // [MQTT-3.8.4-2] [MQTT-2.2.1-6]
        let ack = SubAck { packet_id, properties: Properties::EMPTY, reasons: &reasons };
        self.reply_suback(connection, ack, before)?; // [MQTT-3.8.4-1]
        for (filter, options) in to_show {
            let session_now = self.sessions.get(session as usize).filter(|session| session.serial == serial);
            let is_there =
                session_now.is_some() && self.routes.subscriber(filter.as_str(), session).is_some();
            let wanted = Wanted { filter, options, identifier, since };
            if is_there && !self.show_retained(session, wanted, now) {
                break;
            }
        }
        if let Some(connection) = self.wires.get_mut(connection) {
            connection.awaits_shows = self.mesh.shows.is_awaited((session, serial));
        }
        Ok(())
    }

    /// How many filters of a packet are looked at: no session has more.
    fn filters_max(&self, id: SessionId) -> usize {
        self.limits.subscriptions_max.max(self.sessions[id as usize].subscription_count())
    }

    /// Subscribes a session. The answer is the filter whose retained messages it is to see, if it is.
    fn subscribe(
        &mut self,
        id: SessionId,
        text: &str,
        options: SubscribeOptions,
        identifier: Option<NonZeroU32>,
    ) -> Result<Option<Filter>, ReasonCode> {
        let (group, filter) = parse_subscription(text).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        check_filter(&filter)?;
        let who = self.sessions[id as usize].who.as_ref();
        self.routed += who.map_or(0, |who| self.access.weight(who)) as u64 * RULE_COST;
        if !who.is_none_or(|who| self.access.may_subscribe(who, &filter)) {
            self.counters.subscriptions_not_authorized += 1;
            if let Some(connection) = self.sessions[id as usize].connection {
                self.wires.tell_denied(connection, Action::Subscribe, text);
            }
            return Err(ReasonCode::NotAuthorized);
        }
        let key = SubscriptionKey { filter, group };
        let known = self.subscription(id, &key);
        let is_new = known.is_none();
        let session = &self.sessions[id as usize];
        let is_full = session.subscription_count() >= self.limits.subscriptions_max
            || session.subscription_bytes + key.bytes() > SUBSCRIPTION_BYTES_MAX;
        if is_new && self.pressure == Pressure::Closed {
            self.counters.subscriptions_shed += 1;
            return Err(ReasonCode::QuotaExceeded);
        }
        if is_new && is_full {
            self.counters.subscriptions_over_quota += 1;
            return Err(ReasonCode::QuotaExceeded);
        }
        let SubscribeOptions { qos, no_local, retain_as_published, retain_handling } = options;
        let subscription = Subscription { qos, no_local, retain_as_published, identifier };
        if known != Some(subscription) {
            if session.number.is_some() && self.ledger.refuses() {
                return Err(ReasonCode::QuotaExceeded);
            }
            self.note_subscription(id, &key, Some(&subscription));
        }
        let (is_shared, filter) = (key.group.is_some(), key.filter.clone());
        self.put_subscription(id, key, subscription, is_new);
        let shows = match retain_handling {
            _ if is_shared => false, // not for shared subscriptions: 4.8.2
            // [MQTT-3.8.4-4]
            RetainHandling::Send => true,        // [MQTT-3.3.1-9]
            RetainHandling::SendIfNew => is_new, // [MQTT-3.3.1-10]
            RetainHandling::DoNotSend => false,  // [MQTT-3.3.1-11]
        };
        Ok(shows.then_some(filter))
    }

    /// Adds or replaces a subscription in the session and in the routes. [MQTT-3.8.4-3]
    pub(super) fn put_subscription(
        &mut self,
        id: SessionId,
        key: SubscriptionKey,
        subscription: Subscription,
        is_new: bool,
    ) {
        let Subscription { qos, no_local, retain_as_published, identifier } = subscription;
        let who = Subscriber { session: id, identifier, qos, no_local, retain_as_published };
        let is_kept =
            qos > QoS::AtMostOnce && self.ledger.is_on() && self.sessions[id as usize].is_persistent();
        match key.shared() {
            Some(shared) => self.join(shared, subscription, who, is_kept),
            None => {
                let (route, is_first) = self.routes.subscribe(&key.filter, who);
                self.sessions[id as usize].routes.insert(route);
                if is_first {
                    self.interest_changed(&key.filter, None, true);
                }
                if is_kept && self.routes.note_kept(route) {
                    self.mesh.announce_kept(&key.filter);
                }
            }
        }
        if is_new {
            self.sessions[id as usize].subscription_bytes += key.bytes();
            self.subscriptions += 1;
        }
    }

    /// How a session is subscribed, if it is.
    pub(super) fn subscription(&self, id: SessionId, key: &SubscriptionKey) -> Option<Subscription> {
        match key.shared() {
            Some(shared) => Some(self.sessions[id as usize].shares.as_ref()?.get(&shared)?.how),
            None => self.routes.subscriber(key.filter.as_str(), id).map(Subscription::from),
        }
    }

    /// What a session is subscribed to, and how.
    pub(super) fn subscriptions_of(
        &self,
        id: SessionId,
    ) -> impl Iterator<Item = (SubscriptionKey, Subscription)> {
        let Session { routes, shares, .. } = &self.sessions[id as usize];
        let plain = routes.iter().map(move |&route| {
            let (filter, who) = self.routes.subscribed(route, id);
            (SubscriptionKey { filter: filter.clone(), group: None }, Subscription::from(who))
        });
        let shared = shares.iter().flat_map(|all| all.iter()).map(|(shared, share)| {
            let SharedFilter { group, filter } = shared.clone();
            (SubscriptionKey { filter, group: Some(group) }, share.how)
        });
        plain.chain(shared)
    }

    pub(super) fn handle_unsubscribe(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        unsubscribe: &Unsubscribe,
        now: Instant,
    ) -> Result<(), Fault> {
        let filters_max = self.filters_max(session);
        if unsubscribe.filters.iter().nth(filters_max).is_some() {
            return Err(Fault::QuotaExceeded); // UNSUBACK has no such reason, and in 3.1.1 none at all
        }
        let before = self.ledger.changes();
        let mut reasons = Reasons::new();
        // [MQTT-3.10.4-6] [MQTT-3.11.3-1]
        let mut left = HashSet::new();
        for text in unsubscribe.filters.iter() {
            self.routed += FILTER_COST;
            reasons.push(self.unsubscribe(session, text, &mut left) as u8);
        }
        self.hand_on(session, &left, now);
        let ack =
            // [MQTT-3.10.4-5]
            SubAck { packet_id: unsubscribe.packet_id, properties: Properties::EMPTY, reasons: &reasons };
        self.reply_once_safe(id, &Packet::UnsubAck(ack), before) // [MQTT-3.10.4-4]
    }

    /// Ends a subscription; `left` gathers the shared groups that the session is no longer in.
    fn unsubscribe(&mut self, id: SessionId, text: &str, left: &mut HashSet<SharedFilter>) -> ReasonCode {
        let Ok((group, filter)) = parse_subscription(text) else { return ReasonCode::TopicFilterInvalid };
        let key = SubscriptionKey { filter, group };
        // [MQTT-3.10.4-1]
        if !self.remove_subscription(id, &key) {
            return ReasonCode::NoSubscriptionExisted;
        }
        left.extend(key.shared());
        ReasonCode::Success
    }

    /// Takes a subscription out of its session and the routes. False if there is none.
    pub(super) fn remove_subscription(&mut self, id: SessionId, key: &SubscriptionKey) -> bool {
        if self.subscription(id, key).is_none() {
            return false;
        }
        // [MQTT-3.10.4-2] [MQTT-3.10.4-3]
        self.note_subscription(id, key, None);
        self.drop_subscription(id, key);
        true
    }

    /// Takes a subscription that there is out of its session and the routes.
    pub(super) fn drop_subscription(&mut self, id: SessionId, key: &SubscriptionKey) {
        self.subscriptions -= 1;
        self.sessions[id as usize].subscription_bytes -= key.bytes();
        match key.shared() {
            Some(shared) => self.part(&shared, id),
            None => {
                let (route, was_last) = self.routes.unsubscribe(&key.filter, id);
                self.sessions[id as usize].routes.remove(&route);
                if was_last {
                    self.interest_changed(&key.filter, None, false);
                }
            }
        }
    }
}

fn check_filter(filter: &Filter) -> Result<(), ReasonCode> {
    let mut levels = filter.as_str().split('/');
    if levels.next() == Some("$LINK") {
        return Err(ReasonCode::NotAuthorized);
    }
    if levels.count() >= LEVELS_MAX {
        return Err(ReasonCode::TopicFilterInvalid);
    }
    Ok(())
}
