//! PUBLISH from a client, and the acknowledgements of both directions.
//!
//! A QoS 1 or 2 message is acknowledged once whatever must survive has it: at once when no stored session and no
//! retained message is concerned, else when the store says `Persisted`. The acknowledgements of a connection leave in the
//! order in which the messages came [MQTT-4.6.0-2], so one that need not wait for the store waits for those before it.
//!
//! The second half of QoS 2 waits as well, in both directions. A PUBREL that left before it is safe that PUBREC came would let
//! the client forget the packet id, and after a restart the message would come again as a new one; a PUBCOMP that left
//! before it is safe that PUBREL came would let the client use the packet id again, and the next message would pass for the
//! last one.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::LastTopic;
use super::delivery::{Outgoing, pass_on};
use super::mesh::Need;
use super::pressure::Pressure;
use super::recipients::Recipients;
use super::{ConnectionId, Core, Fault, SessionId};
use crate::mqtt::{
    self, Ack, Message, Packet, PacketId, PacketType, Properties, PropertiesBuf, Publish, QoS, ReasonCode,
    Version, Violation,
};
use crate::store::Token;

/// How much the topics behind one connection's aliases may take together.
const ALIASES_BYTES_MAX: usize = 1 << 20;

/// How many recipients a connection remembers: for more, looking them up costs little beside serving them, and each of
/// many publishers would hold all of many subscribers.
const REMEMBERED_MAX: usize = 256;

/// How many bytes of messages may wait for other shards before publishers that wait are no longer read. Mail has bounds of
/// its own, but not where it goes on: a shard takes what it is sent even if it cannot get rid of it.
const AWAITED_BYTES_MAX: usize = 4 << 20;

/// What a message costs there besides its bytes, about: its answer here and its places in mail.
const AWAITED_BYTES: usize = 256;

/// An answer that waits for the store, for other shards, or for those before it.
pub(super) struct Unanswered {
    token: Token,
    need: Need,
    connection: ConnectionId,
    answer: Answer,
    /// What waits with it on its way through other shards.
    bytes: usize,
}

/// The answers that wait, oldest first.
#[derive(Default)]
pub(super) struct Waiting {
    queue: VecDeque<Unanswered>,
    /// The sum over the queue.
    bytes: usize,
}

impl Waiting {
    /// True if so much waits for other shards that who waits must not bring more.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.bytes > AWAITED_BYTES_MAX
    }

    fn push(&mut self, one: Unanswered) {
        self.bytes += one.bytes;
        self.queue.push_back(one);
    }

    fn pop(&mut self) -> Option<Unanswered> {
        let one = self.queue.pop_front()?;
        self.bytes -= one.bytes;
        Some(one)
    }
}

enum Answer {
    /// PUBACK or PUBREC.
    Acknowledge(PacketId, QoS, ReasonCode),
    /// SUBACK or UNSUBACK, encoded.
    Packet(Vec<u8>),
    /// Whatever comes of a CONNECT.
    Enter,
}

/// A PUBREL or PUBCOMP that waits for the store; and a PUBREC, of a message that came again while there is none.
pub(super) struct Uncompleted {
    pub(super) token: Token,
    packet: PacketType,
    packet_id: PacketId,
    reason: ReasonCode,
}

/// A QoS 2 message that the store failed with. It is with its recipients, so to refuse it would make it two.
pub(super) struct Unsafe {
    pub(super) connection: ConnectionId,
    packet_id: PacketId,
    reason: ReasonCode,
}

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
        let old = aliases.topics[at].replace(Arc::clone(&topic));
        aliases.bytes += topic.len();
        aliases.bytes -= old.map_or(0, |old| old.len());
        if aliases.bytes > ALIASES_BYTES_MAX {
            return Err(Fault::QuotaExceeded);
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

    /// A message no longer counts against our Receive Maximum.
    fn make_room(&mut self, id: ConnectionId) {
        if let Some(connection) = self.wires.get_mut(id) {
            // What an earlier connection left half way in was not counted here.
            connection.receiving = connection.receiving.saturating_sub(1);
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
        if recipients.sessions.len() > REMEMBERED_MAX {
            connection.last_topic = None;
            return recipients;
        }
        connection.last_topic =
            Some(LastTopic { topic: topic.into(), generation, recipients: Rc::clone(&recipients) });
        recipients
    }

    /// Who gets a topic that no connection here published: remembered for some topics.
    pub(super) fn recipients_of(&mut self, topic: &str) -> Rc<Recipients> {
        self.topics.recipients(topic, &self.routes)
    }

    /// Acknowledges a QoS 1 or 2 message, once it may be.
    fn answer(
        &mut self,
        id: ConnectionId,
        packet_id: PacketId,
        qos: QoS,
        reason: ReasonCode,
        token: Token,
        bytes: usize,
    ) {
        let need = self.mesh.take_need();
        if token <= self.safe && need.is_empty() && !self.has_unanswered(id) {
            self.acknowledge(id, packet_id, qos, reason);
        } else {
            let bytes = if need.is_empty() { 0 } else { bytes };
            self.answer_later(id, token, need, Answer::Acknowledge(packet_id, qos, reason), bytes);
        }
    }

    /// Sends an answer, once what was changed since `before` is safe.
    pub(super) fn reply_once_safe(
        &mut self,
        id: ConnectionId,
        packet: &Packet,
        before: u64,
    ) -> Result<(), Fault> {
        let token = self.token_if(self.ledger.changes() != before);
        if token == Token(0) && !self.has_unanswered(id) {
            return self.reply(id, packet);
        }
        let connection = self.wires.get(id).ok_or(Fault::ClientLeft)?;
        let mut bytes = Vec::new();
        packet.encode(connection.version, &mut bytes);
        if bytes.len() > connection.packet_bytes_max {
            return Err(Fault::AnswerTooLarge); // [MQTT-3.1.2-24]
        }
        self.answer_later(id, token, Need::new(), Answer::Packet(bytes), 0);
        Ok(())
    }

    /// What has to be waited for after a change that the store has to hear of; 0 for none.
    pub(super) fn token_if(&self, must_wait: bool) -> Token {
        let waits = must_wait && self.ledger.is_on() && !self.ledger.refuses();
        if waits { self.ledger.token() } else { Token(0) }
    }

    /// True if answers to this client wait: the next one leaves behind them.
    fn has_unanswered(&self, id: ConnectionId) -> bool {
        self.wires.get(id).is_some_and(|connection| connection.unanswered > 0)
    }

    /// Lets a client in once all that came so far is safe.
    pub(super) fn enter_once_safe(&mut self, id: ConnectionId) {
        self.answer_later(id, self.ledger.token(), Need::new(), Answer::Enter, 0);
    }

    fn answer_later(&mut self, id: ConnectionId, token: Token, need: Need, answer: Answer, bytes: usize) {
        let Some(connection) = self.wires.get_mut(id) else { return };
        connection.unanswered += 1;
        self.unanswered.push(Unanswered { token, need, connection: id, answer, bytes });
    }

    /// Answers whom nothing keeps waiting any more.
    pub(super) fn settle_answers(&mut self, now: Instant) {
        while let Some(one) = self.unanswered.queue.front()
            && one.token <= self.safe
            && self.mesh.is_met(&one.need)
            && let Some(one) = self.unanswered.pop()
        {
            self.answer_now(one.connection, one.answer, now);
        }
    }

    // [MQTT-3.3.4-1] [MQTT-2.2.1-5] [MQTT-4.6.0-3]
    fn answer_now(&mut self, id: ConnectionId, answer: Answer, now: Instant) {
        if let Some(connection) = self.wires.get_mut(id) {
            connection.unanswered -= 1;
        }
        match answer {
            Answer::Acknowledge(packet_id, qos, reason) => self.acknowledge(id, packet_id, qos, reason),
            Answer::Packet(bytes) => {
                // Its length was looked at when it was encoded.
                let _ = self.wires.answer(id, |out| out.extend_from_slice(&bytes));
            }
            Answer::Enter => self.enter_at_last(id, now),
        }
    }

    /// Refuses the messages whose answer waits for a store that failed: at QoS 1 one may come twice. At QoS 2 it may not, so
    /// the answer waits until the store is back; refusals of what comes later overtake it. A subscription holds: it is in
    /// memory, and is stored when the store is back.
    pub(super) fn refuse_unanswered(&mut self, now: Instant) {
        for one in std::mem::take(&mut self.unanswered).queue {
            let id = one.connection;
            let Some(connection) = self.wires.get_mut(id) else { continue };
            match one.answer {
                Answer::Acknowledge(packet_id, QoS::ExactlyOnce, reason) if !reason.is_error() => {
                    connection.unanswered -= 1;
                    let token = if one.token > self.safe { self.ledger.token() } else { one.token };
                    self.mesh.hold(token, one.need, Unsafe { connection: id, packet_id, reason });
                }
                Answer::Acknowledge(_, _, reason)
                    if !reason.is_error() && connection.version == Version::V3 =>
                {
                    self.close(id, Fault::QuotaExceeded, now);
                }
                Answer::Acknowledge(packet_id, qos, reason) if !reason.is_error() => {
                    self.answer_now(id, Answer::Acknowledge(packet_id, qos, ReasonCode::QuotaExceeded), now);
                }
                other => self.answer_now(id, other, now),
            }
        }
    }

    /// Acknowledges a message that the store failed with and now has.
    pub(super) fn acknowledge_at_last(&mut self, one: &Unsafe) {
        self.acknowledge(one.connection, one.packet_id, QoS::ExactlyOnce, one.reason);
    }

    /// Sends PUBREL or PUBCOMP; to the client of a stored session once all is safe that it hangs on.
    fn complete(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        packet: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
    ) {
        let is_stored = self.sessions[session as usize].number.is_some();
        let token = if is_stored { self.ledger.token_so_far() } else { Token(0) };
        let one = Uncompleted { token, packet, packet_id, reason };
        if token <= self.safe {
            return self.complete_now(id, &one);
        }
        let Some(connection) = self.wires.get_mut(id) else { return };
        let queue = connection.uncompleted.get_or_insert_default();
        if queue.back().is_none_or(|last| last.token != token) && !self.ledger.refuses() {
            self.uncompleted.push_back((token, id));
        }
        queue.push_back(one);
    }

    /// Everything up to this token is safe: goes on with QoS 2 where that was waited for.
    pub(super) fn complete_up_to(&mut self, token: Token) {
        while let Some(&(_, id)) = self.uncompleted.front().filter(|(waits, _)| *waits <= token) {
            self.uncompleted.pop_front();
            while let Some(one) = self.next_completed(id, token) {
                self.complete_now(id, &one);
            }
        }
    }

    fn next_completed(&mut self, id: ConnectionId, token: Token) -> Option<Uncompleted> {
        let queue = self.wires.get_mut(id)?.uncompleted.as_mut()?;
        queue.front().is_some_and(|one| one.token <= token).then(|| queue.pop_front()).flatten()
    }

    fn complete_now(&mut self, id: ConnectionId, one: &Uncompleted) {
        let ack = Ack { packet_id: one.packet_id, reason: one.reason, properties: Properties::EMPTY };
        // A few bytes: who takes fewer got no PUBLISH.
        let _ = match one.packet {
            PacketType::PubRec => self.reply(id, &Packet::PubRec(ack)),
            PacketType::PubRel => self.reply(id, &Packet::PubRel(ack)), // [MQTT-4.3.3-4]
            _ => self.reply(id, &Packet::PubComp(ack)),                 // [MQTT-4.3.3-11]
        };
    }

    fn acknowledge(&mut self, id: ConnectionId, packet_id: PacketId, qos: QoS, reason: ReasonCode) {
        let ack = Ack { packet_id, reason, properties: Properties::EMPTY };
        if qos == QoS::AtLeastOnce || reason.is_error() {
            self.make_room(id);
        }
        if reason.is_error() {
            return self.reply_refusal(id, ack, qos);
        }
        // Four or five bytes: who takes fewer gets none.
        let (plain, packet) = match qos {
            QoS::ExactlyOnce => (PacketType::PubRec, Packet::PubRec(ack)), // [MQTT-4.3.3-8]
            _ => (PacketType::PubAck, Packet::PubAck(ack)),                // [MQTT-4.3.2-4]
        };
        if reason == ReasonCode::Success {
            let bytes = mqtt::plain_ack(plain, packet_id);
            let _ = self.wires.answer(id, |out| out.extend_from_slice(&bytes));
        } else {
            let _ = self.reply(id, &packet);
        }
    }

    /// Handles a PUBACK and, if `bytes` begin with it and without a reason, those that follow. Returns how many bytes they are.
    /// They come in numbers, and bring nothing that would keep the next from being read.
    pub(super) fn handle_pubacks(
        &mut self,
        session: SessionId,
        first: PacketId,
        bytes: &[u8],
        now: Instant,
    ) -> Result<usize, Fault> {
        let (mut next, mut used, mut is_news) = (Some(first), 0, false);
        let mut outcome = Ok(());
        while let Some(packet_id) = next.filter(|_| outcome.is_ok()) {
            outcome = self.take_puback(session, packet_id).map(|is_one| is_news |= is_one);
            used += mqtt::PLAIN_ACK_BYTES;
            next = bytes.get(used..).and_then(mqtt::plain_puback);
        }
        if is_news {
            self.touch(session);
            match self.sessions[session as usize].has_backlog() {
                true => self.pump(session, now),
                false => self.look_at(session),
            }
        }
        outcome.map(|()| used)
    }

    /// True if a message is acknowledged that was not before.
    #[inline]
    fn take_puback(&mut self, session: SessionId, packet_id: PacketId) -> Result<bool, Fault> {
        let ring = &mut self.sessions[session as usize].ring;
        // An unknown id is an echo of an earlier connection: nothing to do.
        // [MQTT-4.3.2-3] [MQTT-4.4.0-2] [MQTT-4.8.2-6]
        if let Some(delivery) = ring.acknowledge(packet_id) {
            self.encoder.take_back(delivery);
            return Ok(true);
        }
        match ring.get(packet_id) {
            Some(_) => Err(Violation::UnexpectedPacket.into()), // what is in flight with this id is of QoS 2
            None => Ok(false),
        }
    }

    pub(super) fn handle_pubrec(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        ack: &Ack,
        now: Instant,
    ) -> Result<(), Fault> {
        let ring = &mut self.sessions[session as usize].ring;
        if ring.awaits(ack.packet_id, Some(QoS::AtLeastOnce)) {
            return Err(Violation::UnexpectedPacket.into());
        }
        if ack.reason.is_error() {
            // [MQTT-4.4.0-2] [MQTT-4.8.2-6]
            if ring.refuse(ack.packet_id) {
                self.touch(session);
            }
            self.pump(session, now);
            return Ok(());
        }
        // [MQTT-4.3.3-6] [MQTT-4.6.0-4]
        match ring.receive(ack.packet_id) {
            None => return self.reply(id, &Packet::PubRel(unknown(ack))),
            Some(false) => {} // it said so before
            Some(true) => {
                self.touch(session);
                self.note_release(session);
            }
        }
        self.complete(id, session, PacketType::PubRel, ack.packet_id, ReasonCode::Success); // [MQTT-4.3.3-4]
        Ok(())
    }

    pub(super) fn handle_pubrel(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        ack: &Ack,
    ) -> Result<(), Fault> {
        // [MQTT-4.3.3-12] [MQTT-4.3.3-13]
        let reason = match self.sessions[session as usize].release(ack.packet_id) {
            true => {
                self.make_room(id);
                self.touch(session);
                ReasonCode::Success
            }
            // That it was released before may not be safe yet, and then it must not be said.
            false => ReasonCode::PacketIdentifierNotFound,
        };
        self.complete(id, session, PacketType::PubComp, ack.packet_id, reason); // [MQTT-4.3.3-11]
        Ok(())
    }

    pub(super) fn handle_pubcomp(
        &mut self,
        session: SessionId,
        ack: &Ack,
        now: Instant,
    ) -> Result<(), Fault> {
        let ring = &mut self.sessions[session as usize].ring;
        // [MQTT-4.3.3-5]
        if ring.complete(ack.packet_id) {
            self.touch(session);
            self.pump(session, now);
        } else if ring.get(ack.packet_id).is_some() {
            return Err(Violation::UnexpectedPacket.into());
        }
        Ok(())
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

fn unknown(ack: &Ack) -> Ack<'static> {
    let reason = ReasonCode::PacketIdentifierNotFound;
    Ack { packet_id: ack.packet_id, reason, properties: Properties::EMPTY }
}
