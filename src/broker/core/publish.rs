//! PUBLISH from a client: who may, what is told of it, and who gets it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::LastTopic;
use super::delivery::{Outgoing, pass_on};
use super::pressure::{Pressure, SMALL_BYTES};
use super::recipients::Recipients;
use super::retained::is_own;
use super::{ConnectionId, Core, Fault, SessionId};
use crate::mqtt::{
    Message, PacketId, PacketType, Properties, PropertiesBuf, Publish, QoS, ReasonCode, Version, Violation,
};
use crate::settings::Action;
use crate::store::Token;

/// How much the topics behind one connection's aliases may take together.
const ALIASES_BYTES_MAX: usize = 1 << 20;

/// How many recipients a connection remembers: for more, looking them up costs little beside serving them, and each of
/// many publishers would hold all of many subscribers.
const REMEMBERED_MAX: usize = 256;

/// How long a topic a connection remembers: all of them may hold one.
pub(super) const REMEMBERED_BYTES_MAX: usize = 1024;

/// What it costs to look at a level or a route, as bytes of [work](Core::routed).
const LOOK_COST: u64 = 256;

/// What a message costs there besides its bytes, about: its answer here and its places in mail.
pub(super) const AWAITED_BYTES: usize = 256;

impl Core {
    pub(super) fn handle_publish(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: Publish,
        packet: (Version, &[u8]),
        now: Instant,
    ) -> Result<(), Fault> {
        self.counters.received += 1;
        if publish.properties.is_empty() {
            let outgoing = Outgoing { publish, expires_at: None, packet: Some(packet) };
            return self.accept(id, session, &outgoing, now);
        }
        if publish.properties.subscription_identifiers().next().is_some() {
            return Err(Violation::SubscriptionIdFromClient.into()); // [MQTT-3.3.4-6]
        }
        let alias = self.resolve_alias(id, &publish)?;
        if !keeps_its_format(publish.properties, publish.payload) {
            self.counters.dropped_payload_format += 1;
            return self.turn_down(id, session, &publish, ReasonCode::PayloadFormatInvalid);
        }
        let expiry_s = publish.properties.message_expiry_interval();
        let mut properties = PropertiesBuf::new();
        pass_on(publish.properties, expiry_s, &mut properties);
        let topic = alias.as_deref().unwrap_or(publish.topic);
        let publish = Publish { topic, properties: properties.as_properties(), ..publish };
        let expires_at = expiry_s.and_then(|s| now.checked_add(Duration::from_secs(s.into())));
        self.accept(id, session, &Outgoing { publish, expires_at, packet: None }, now)
    }

    /// The topic behind an alias, or the alias's new topic. `None` if the packet has no alias.
    fn resolve_alias(&mut self, id: ConnectionId, publish: &Publish) -> Result<Option<Arc<str>>, Fault> {
        let Some(alias) = publish.properties.topic_alias() else { return Ok(None) };
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        // [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-12]
        if alias > connection.terms.alias_max {
            return Err(Violation::TopicAliasTooLarge.into()); // [MQTT-3.3.2-9]
        }
        let at = usize::from(alias).saturating_sub(1);
        if publish.topic.is_empty() {
            let known = connection.aliases.as_ref().and_then(|aliases| aliases.topics.get(at)?.clone());
            return known.map(Some).ok_or(Violation::TopicAliasUnknown.into());
        }
        let aliases = connection.aliases.get_or_insert_default();
        if aliases.topics.len() <= at {
            aliases.topics.resize(at + 1, None);
        }
        let topic: Arc<str> = publish.topic.into();
        let (old, before) = (aliases.topics[at].replace(Arc::clone(&topic)), aliases.bytes);
        aliases.bytes += topic.len();
        aliases.bytes -= old.map_or(0, |old| old.len());
        if aliases.bytes > ALIASES_BYTES_MAX {
            return Err(Fault::QuotaExceeded);
        }
        if self.pressure == Pressure::Closed && aliases.bytes > before.max(SMALL_BYTES) {
            return Err(Fault::MemoryShort);
        }
        Ok(Some(topic))
    }

    fn accept(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        outgoing: &Outgoing,
        now: Instant,
    ) -> Result<(), Fault> {
        let publish = &outgoing.publish;
        if !may_publish(publish.topic) || !self.is_granted(id, publish.topic) {
            self.counters.dropped_not_authorized += 1;
            self.wires.tell_denied(id, Action::Publish, publish.topic);
            return self.turn_down(id, session, publish, ReasonCode::NotAuthorized);
        }
        let Some(packet_id) = publish.packet_id else {
            self.publish(id, session, outgoing, now);
            return Ok(());
        };
        if self.is_sent_again(session, publish) {
            return self.answer_again(id, session, packet_id);
        }
        self.check_receive_maximum(id)?;
        if self.ledger.refuses() && self.must_store(id, session, publish) {
            self.counters.dropped_store_down += 1;
            return self.refuse(id, packet_id, publish.qos);
        }
        let before = self.ledger.changes();
        if publish.qos == QoS::ExactlyOnce {
            self.sessions[session as usize].received.get_or_insert_default().insert(packet_id);
            self.touch(session);
            // What it brings others must not be stored without this, nor this without that.
            self.mesh.tie(self.sessions[session as usize].number.is_some());
        }
        // [MQTT-4.3.2-5]
        let nobody = self.publish(id, session, outgoing, now) == 0;
        self.mesh.tie(false);
        let reason = if nobody { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        let token = self.token_if(self.ledger.changes() != before);
        let bytes = publish.topic.len() + publish.payload.len() + AWAITED_BYTES;
        self.answer(id, packet_id, publish.qos, reason, token, bytes);
        Ok(())
    }

    /// True if a QoS 1 or 2 message may not be acknowledged before the store has something of it.
    fn must_store(&mut self, id: ConnectionId, session: SessionId, publish: &Publish) -> bool {
        if publish.retain || self.sessions[session as usize].holds(publish.qos) {
            return true;
        }
        let recipients = self.recipients(id, publish.topic);
        let keeps = |session: SessionId, qos: QoS| {
            qos != QoS::AtMostOnce && self.sessions[session as usize].number.is_some()
        };
        recipients
            .sessions
            .iter()
            .any(|one| one.grant(None).is_some_and(|grant| keeps(one.session, grant.qos)))
            || recipients.keepers != 0 // all shards have one store
            || recipients.groups.iter().any(|&group| self.routes.members(group).any(|member| member.is_kept))
    }

    /// Says that a message is not taken. Version 3 has no word for it: the connection ends, and its client knows that
    /// nothing was acknowledged.
    fn refuse(&mut self, id: ConnectionId, packet_id: PacketId, qos: QoS) -> Result<(), Fault> {
        if self.wires.get(id).is_some_and(|connection| connection.version == Version::V3) {
            return Err(Fault::QuotaExceeded);
        }
        self.answer(id, packet_id, qos, ReasonCode::QuotaExceeded, Token(0), 0);
        Ok(())
    }

    /// A QoS 2 message that comes again because our PUBREC was lost: it is with us already. [MQTT-4.3.3-10]
    fn is_sent_again(&self, session: SessionId, publish: &Publish) -> bool {
        let has = |id| self.sessions[session as usize].has_received(id);
        publish.qos == QoS::ExactlyOnce && publish.packet_id.is_some_and(has)
    }

    /// Answers a QoS 2 message that came before. Its own answer may still wait.
    fn answer_again(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        packet_id: PacketId,
    ) -> Result<(), Fault> {
        let is_stored = self.sessions[session as usize].number.is_some();
        if is_stored && self.ledger.refuses() {
            // It is with its recipients, but that it came is not safe before the store is back.
            self.complete(id, session, PacketType::PubRec, packet_id, ReasonCode::Success);
            return Ok(());
        }
        let token = if is_stored { self.ledger.token_so_far() } else { Token(0) };
        self.answer(id, packet_id, QoS::ExactlyOnce, ReasonCode::Success, token, 0);
        Ok(())
    }

    /// Drops a message and says so, as far as QoS and version have a place for it. A 3.1.1 client hears that all is well: it
    /// would send the message again and again if its connection were closed for it. [MQTT-3.3.5-2] v3
    fn turn_down(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish,
        reason: ReasonCode,
    ) -> Result<(), Fault> {
        let Some(packet_id) = publish.packet_id else { return Ok(()) };
        if self.is_sent_again(session, publish) {
            return self.answer_again(id, session, packet_id);
        }
        self.check_receive_maximum(id)?;
        self.answer(id, packet_id, publish.qos, reason, Token(0), 0); // [MQTT-4.3.3-9]
        Ok(())
    }

    /// Counts a message against our Receive Maximum, of which only version 5 clients are told.
    fn check_receive_maximum(&mut self, id: ConnectionId) -> Result<(), Fault> {
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        let is_told = connection.version == Version::V5;
        if is_told && connection.receiving >= u32::from(connection.terms.receive_max) {
            // [MQTT-3.3.4-7]
            return Err(Violation::ReceiveMaximumExceeded.into());
        }
        connection.receiving += 1;
        Ok(())
    }

    /// So many messages no longer count against our Receive Maximum.
    pub(super) fn make_room(&mut self, id: ConnectionId, messages: u32) {
        if let Some(connection) = self.wires.get_mut(id) {
            // What an earlier connection left half way in was not counted here.
            connection.receiving = connection.receiving.saturating_sub(messages);
        }
    }

    /// Retains, routes and forwards a message of a client. Returns how many sessions and peers it was for.
    fn publish(&mut self, id: ConnectionId, session: SessionId, outgoing: &Outgoing, now: Instant) -> usize {
        let recipients = self.recipients(id, outgoing.publish.topic);
        self.distribute(&recipients, outgoing, Some(session), now)
    }

    /// Retains, routes and forwards a message that came into being in this cluster.
    pub(super) fn distribute(
        &mut self,
        recipients: &Recipients,
        outgoing: &Outgoing,
        publisher: Option<SessionId>,
        now: Instant,
    ) -> usize {
        let mut keeper = None;
        // [MQTT-3.3.1-5] [MQTT-3.3.1-8]
        if outgoing.publish.retain {
            self.mesh.note_retained(outgoing.publish.topic);
            keeper = self.mesh.elsewhere(outgoing.publish.topic);
            if keeper.is_none() {
                self.retain(outgoing, now);
            }
        }
        let mut count = self.route(recipients, outgoing, publisher);
        if !recipients.peers.is_empty() {
            count += self.forward(recipients, outgoing, now);
        }
        if recipients.shards != 0 || keeper.is_some() {
            self.mesh.publish(recipients.shards, keeper, outgoing);
            count += recipients.shards.count_ones() as usize;
        }
        count
    }

    pub(super) fn retain(&mut self, outgoing: &Outgoing, now: Instant) {
        if is_own(outgoing.publish.topic) {
            self.retained.put(to_message(outgoing, now), usize::MAX, usize::MAX, now);
            return;
        }
        self.routed += LOOK_COST * outgoing.publish.topic.split('/').count() as u64; // a node each
        let is_refused = self.pressure == Pressure::Closed && !outgoing.publish.payload.is_empty();
        if is_refused && !self.retained.has(outgoing.publish.topic) {
            self.counters.shed_retained += 1;
            return;
        }
        let (max, bytes_max) = (self.limits.retained_messages_max, self.limits.retained_bytes_max);
        let message = to_message(outgoing, now);
        let topic = Arc::clone(&message.topic);
        if self.ledger.cannot_note(&topic, outgoing.publish.qos) {
            self.counters.dropped_store_down += 1;
            return;
        }
        let put = self.retained.put(message, max, bytes_max, now);
        self.counters.dropped_retained_full += u64::from(put.is_full);
        if put.has_changed || outgoing.publish.qos > QoS::AtMostOnce {
            self.note_retained(&topic, outgoing.publish.qos, now);
        }
    }

    /// Who gets this topic: remembered per connection, because most publish to one topic many times.
    fn recipients(&mut self, id: ConnectionId, topic: &str) -> Rc<Recipients> {
        let generation = self.routes.generation();
        let Some(connection) = self.wires.get_mut(id) else { return Rc::default() };
        if let Some(last) = &connection.last_topic
            && last.generation == generation
            && (std::ptr::eq(&*last.topic, topic) || *last.topic == *topic)
        {
            return Rc::clone(&last.recipients);
        }
        let recipients = Rc::new(self.routes.matches(topic));
        self.routed += recipients.looked_at as u64 * LOOK_COST;
        if recipients.extent() > REMEMBERED_MAX || topic.len() > REMEMBERED_BYTES_MAX {
            connection.last_topic = None;
            return recipients;
        }
        let (topic, is_apart) = (topic.into(), false);
        connection.last_topic =
            Some(LastTopic { topic, generation, recipients: Rc::clone(&recipients), is_apart });
        recipients
    }

    /// Who gets a topic that no connection here published: remembered for some topics.
    pub(super) fn recipients_of(&mut self, topic: &str) -> Rc<Recipients> {
        let mut looked_at = 0;
        let recipients = self.topics.recipients(topic, &self.routes, &mut looked_at);
        self.routed += looked_at as u64 * LOOK_COST;
        recipients
    }
}

/// Topics of the broker's own, and those that nobody can subscribe to: clients do not publish there.
pub(super) fn may_publish(topic: &str) -> bool {
    // The first byte decides for nearly all.
    !topic.starts_with('$') || !matches!(topic.split('/').next(), Some("$LINK" | "$SYS" | "$share"))
}

/// False for a payload that is said to be UTF-8 and is not.
pub(super) fn keeps_its_format(properties: Properties, payload: &[u8]) -> bool {
    properties.payload_format_indicator() != Some(1) || std::str::from_utf8(payload).is_ok()
}

/// The message of a PUBLISH, on its own.
pub(super) fn to_message(outgoing: &Outgoing, now: Instant) -> Message {
    let message = Message::from_publish(&outgoing.publish, outgoing.publish.topic.into(), now);
    Message { expires_at: outgoing.expires_at, ..message }
}
