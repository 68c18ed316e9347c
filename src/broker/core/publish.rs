//! PUBLISH from a client, and the acknowledgements of both directions.
//!
//! A QoS 1 or 2 message is acknowledged once whatever must survive has it: at once when no persistent session and no
//! retained message is concerned, else when the store says `Persisted`. Acknowledgements leave in the order in
//! which the messages came [MQTT-4.6.0-2], so one that need not wait for the store waits for those before it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::LastTopic;
use super::deliver::Routed;
use super::delivery::{Outgoing, pass_on};
use super::recipients::Recipients;
use super::{ConnectionId, Core, Effect, Fault, SessionId};
use crate::mqtt::{
    Ack, Message, Packet, PacketId, Properties, PropertiesBuf, Publish, QoS, ReasonCode, Version, Violation,
};
use crate::store::Token;

/// How much the topics behind one connection's aliases may take together.
const ALIASES_BYTES_MAX: usize = 1 << 20;

/// How many recipients a connection remembers: for more, looking them up costs little beside serving them, and each of
/// many publishers would hold all of many subscribers.
const REMEMBERED_MAX: usize = 256;

/// An acknowledgement that waits for the store.
pub(super) struct Unanswered {
    token: Token,
    connection: ConnectionId,
    packet_id: PacketId,
    qos: QoS,
    reason: ReasonCode,
}

impl Core {
    pub(super) fn handle_publish(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: Publish,
        now: Instant,
    ) -> Result<(), Fault> {
        self.counters.received += 1;
        if publish.properties.is_empty() {
            return self.accept(id, session, &publish, None, now);
        }
        if publish.properties.subscription_identifiers().next().is_some() {
            return Err(Violation::SubscriptionIdFromClient.into()); // [MQTT-3.3.4-6]
        }
        let alias = self.resolve_alias(id, &publish)?;
        let expiry_s = publish.properties.message_expiry_interval();
        let mut properties = PropertiesBuf::new();
        pass_on(publish.properties, expiry_s, &mut properties);
        let topic = alias.as_deref().unwrap_or(publish.topic);
        let publish = Publish { topic, properties: properties.as_properties(), ..publish };
        let expires_at = expiry_s.and_then(|s| now.checked_add(Duration::from_secs(s.into())));
        self.accept(id, session, &publish, expires_at, now)
    }

    /// The topic behind an alias, or the alias's new topic. `None` if the packet has no alias.
    fn resolve_alias(&mut self, id: ConnectionId, publish: &Publish) -> Result<Option<Arc<str>>, Fault> {
        let Some(alias) = publish.properties.topic_alias() else { return Ok(None) };
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        if alias > connection.terms.alias_max {
            return Err(Violation::TopicAliasTooLarge.into()); // [MQTT-3.3.2-9]
        }
        let at = usize::from(alias).saturating_sub(1);
        if publish.topic.is_empty() {
            let known = connection.aliases.get(at).cloned().flatten();
            return known.map(Some).ok_or(Violation::TopicAliasUnknown.into());
        }
        if connection.aliases.len() <= at {
            connection.aliases.resize(at + 1, None);
        }
        let topic: Arc<str> = publish.topic.into();
        let old = connection.aliases[at].replace(Arc::clone(&topic));
        connection.aliases_bytes += topic.len();
        connection.aliases_bytes -= old.map_or(0, |old| old.len());
        if connection.aliases_bytes > ALIASES_BYTES_MAX {
            return Err(Fault::QuotaExceeded);
        }
        Ok(Some(topic))
    }

    fn accept(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish,
        expires_at: Option<Instant>,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(packet_id) = publish.packet_id else {
            if may_publish(publish.topic) && self.is_granted(id, publish.topic) {
                self.publish(id, session, publish, expires_at, now);
            } else {
                self.counters.dropped_not_authorized += 1;
            }
            return Ok(());
        };
        if publish.qos == QoS::ExactlyOnce && self.sessions[session as usize].received.contains(&packet_id) {
            // Sent again because our PUBREC was lost: it is with us already. [MQTT-4.3.3-10]
            self.answer(id, packet_id, publish.qos, ReasonCode::Success, false);
            return Ok(());
        }
        self.check_receive_maximum(id)?;
        if !may_publish(publish.topic) || !self.is_granted(id, publish.topic) {
            self.counters.dropped_not_authorized += 1;
            self.answer(id, packet_id, publish.qos, ReasonCode::NotAuthorized, false);
            return Ok(());
        }
        if publish.qos == QoS::ExactlyOnce {
            self.sessions[session as usize].received.insert(packet_id);
        }
        let routed = self.publish(id, session, publish, expires_at, now);
        let nobody = routed.recipients == 0;
        let reason = if nobody { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        let must_persist = routed.must_persist || publish.retain;
        self.answer(id, packet_id, publish.qos, reason, must_persist);
        Ok(())
    }

    /// Counts a message against our Receive Maximum, of which only version 5 clients are told. [MQTT-3.3.4-9]
    fn check_receive_maximum(&mut self, id: ConnectionId) -> Result<(), Fault> {
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        let is_told = connection.version == Version::V5;
        if is_told && connection.receiving >= usize::from(connection.terms.receive_max) {
            return Err(Violation::ReceiveMaximumExceeded.into());
        }
        connection.receiving += 1;
        Ok(())
    }

    /// A message no longer counts against our Receive Maximum.
    fn make_room(&mut self, id: ConnectionId) {
        if let Some(connection) = self.wires.get_mut(id) {
            // What an earlier connection left half way in was not counted here.
            connection.receiving = connection.receiving.saturating_sub(1);
        }
    }

    /// Retains, routes and forwards a message of a client.
    fn publish(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish,
        expires_at: Option<Instant>,
        now: Instant,
    ) -> Routed {
        let outgoing = Outgoing { publish: *publish, expires_at };
        let recipients = self.recipients(id, publish.topic);
        self.distribute(&recipients, &outgoing, Some(session), now)
    }

    /// Retains, routes and forwards a message that came into being in this cluster.
    pub(super) fn distribute(
        &mut self,
        recipients: &Recipients,
        outgoing: &Outgoing,
        publisher: Option<SessionId>,
        now: Instant,
    ) -> Routed {
        if outgoing.publish.retain {
            self.retain(outgoing, now);
        }
        let mut routed = self.route(recipients, outgoing, publisher);
        if !recipients.peers.is_empty() && !outgoing.publish.topic.starts_with('$') {
            routed.recipients += recipients.peers.len();
            self.peers.forward(&recipients.peers, to_message(outgoing, now));
        }
        routed
    }

    fn retain(&mut self, outgoing: &Outgoing, now: Instant) {
        let (max, bytes_max) = (self.limits.retained_messages_max, self.limits.retained_bytes_max);
        if self.retained.put(to_message(outgoing, now), max, bytes_max, now).is_err() {
            self.counters.dropped_retained_full += 1;
        }
    }

    /// Who gets this topic: remembered per connection, because most publish to one topic many times.
    fn recipients(&mut self, id: ConnectionId, topic: &str) -> Rc<Recipients> {
        let generation = self.routes.generation();
        let Some(connection) = self.wires.get_mut(id) else { return Rc::default() };
        if let Some(last) = &connection.last_topic
            && last.generation == generation
            && last.topic == topic
        {
            return Rc::clone(&last.recipients);
        }
        let recipients = Rc::new(self.routes.matches(topic));
        if recipients.sessions.len() > REMEMBERED_MAX {
            connection.last_topic = None;
            return recipients;
        }
        let mut text = connection.last_topic.take().map(|last| last.topic).unwrap_or_default();
        text.clear();
        text.push_str(topic);
        connection.last_topic =
            Some(LastTopic { topic: text, generation, recipients: Rc::clone(&recipients) });
        recipients
    }

    /// Acknowledges a QoS 1 or 2 message, once it may be.
    fn answer(
        &mut self,
        id: ConnectionId,
        packet_id: PacketId,
        qos: QoS,
        reason: ReasonCode,
        must_persist: bool,
    ) {
        if must_persist {
            self.token.0 += 1;
            self.wires.effects.push_back(Effect::Persist(self.token));
        } else if self.unanswered.is_empty() {
            return self.acknowledge(id, packet_id, qos, reason);
        }
        if let Some(connection) = self.wires.get_mut(id) {
            connection.unanswered += 1;
        }
        self.unanswered.push_back(Unanswered { token: self.token, connection: id, packet_id, qos, reason });
    }

    /// Everything up to this token is safe.
    pub fn handle_persisted(&mut self, token: Token) {
        while self.unanswered.front().is_some_and(|one| one.token <= token) {
            if let Some(one) = self.unanswered.pop_front() {
                if let Some(connection) = self.wires.get_mut(one.connection) {
                    connection.unanswered -= 1;
                }
                self.acknowledge(one.connection, one.packet_id, one.qos, one.reason);
            }
        }
    }

    fn acknowledge(&mut self, id: ConnectionId, packet_id: PacketId, qos: QoS, reason: ReasonCode) {
        let ack = Ack { packet_id, reason, properties: Properties::EMPTY };
        if qos == QoS::AtLeastOnce || reason.is_error() {
            self.make_room(id);
        }
        match qos {
            QoS::ExactlyOnce => self.reply(id, &Packet::PubRec(ack)), // [MQTT-4.3.3-8]
            _ => self.reply(id, &Packet::PubAck(ack)),                // [MQTT-4.3.2-4]
        }
    }

    pub(super) fn handle_puback(&mut self, session: SessionId, ack: &Ack, now: Instant) -> Result<(), Fault> {
        let state = &mut self.sessions[session as usize];
        // An unknown id is an echo of an earlier connection: nothing to do.
        if state.ring.acknowledge(ack.packet_id) && state.has_backlog() {
            self.pump(session, now);
        }
        Ok(())
    }

    pub(super) fn handle_pubrec(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        ack: &Ack,
        now: Instant,
    ) -> Result<(), Fault> {
        let ring = &mut self.sessions[session as usize].ring;
        if ack.reason.is_error() {
            ring.refuse(ack.packet_id);
            self.pump(session, now);
            return Ok(());
        }
        let is_known = ring.receive(ack.packet_id);
        self.reply(id, &Packet::PubRel(reply_to(ack, is_known))); // [MQTT-4.3.3-4]
        Ok(())
    }

    pub(super) fn handle_pubrel(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        ack: &Ack,
    ) -> Result<(), Fault> {
        let is_known = self.sessions[session as usize].received.remove(&ack.packet_id);
        if is_known {
            self.make_room(id);
        }
        self.reply(id, &Packet::PubComp(reply_to(ack, is_known))); // [MQTT-4.3.3-11]
        Ok(())
    }

    pub(super) fn handle_pubcomp(
        &mut self,
        session: SessionId,
        ack: &Ack,
        now: Instant,
    ) -> Result<(), Fault> {
        if self.sessions[session as usize].ring.complete(ack.packet_id) {
            self.pump(session, now);
        }
        Ok(())
    }
}

/// Topics of the broker's own: clients do not publish there.
pub(super) fn may_publish(topic: &str) -> bool {
    // The first byte decides for nearly all.
    !topic.starts_with('$') || !matches!(topic.split('/').next(), Some("$LINK" | "$SYS"))
}

/// The message of a PUBLISH, on its own.
pub(super) fn to_message(outgoing: &Outgoing, now: Instant) -> Message {
    let message = Message::from_publish(&outgoing.publish, outgoing.publish.topic.into(), now);
    Message { expires_at: outgoing.expires_at, ..message }
}

fn reply_to(ack: &Ack, is_known: bool) -> Ack<'static> {
    let reason = if is_known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
    Ack { packet_id: ack.packet_id, reason, properties: Properties::EMPTY }
}
