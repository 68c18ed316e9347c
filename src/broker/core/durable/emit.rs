//! From changes of sessions and retained messages to the ops that a store gets.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use super::records::{
    Answered, MessageRecord, ProgressRecord, SessionRecord, SubscriptionRecord, WillRecord,
};
use super::{Held, State};
use crate::broker::core::delivery::{Delivery, with_outgoing};
use crate::broker::core::ring::Slot;
use crate::broker::core::session::{Session, Subscription, SubscriptionKey, Will};
use crate::broker::core::{Core, Effect, SessionId};
use crate::mqtt::{Message, PacketId, QoS, SharedFilter, Version, encode_publish};
use crate::store::{Op, SessionKey, Token};

impl Core {
    /// Has sessions and retained messages stored from now on. Numbers of sessions begin at `first_number`: greater than all
    /// that the store has seen.
    pub fn use_store(&mut self, first_number: u64, now: Instant, wall_ms: u64) {
        self.ledger.state = State::Up;
        self.ledger.next_number = self.ledger.next_number.max(first_number);
        self.ledger.moment = (now, wall_ms);
        let ids: Vec<_> = self.sessions.iter().map(|(id, _)| id as SessionId).collect();
        ids.into_iter().for_each(|id| self.note_session(id));
    }

    /// Tells the wall time, in milliseconds since 1970: what is stored counts by it.
    pub fn set_clock(&mut self, now: Instant, wall_ms: u64) {
        self.ledger.moment = (now, wall_ms);
    }

    /// Who a session is has changed, or whether it outlives its connection.
    pub(in crate::broker::core) fn note_session(&mut self, id: SessionId) {
        if !self.ledger.is_on() {
            return;
        }
        let session = &mut self.sessions[id as usize];
        match (session.is_persistent(), session.key()) {
            (true, Some(key)) => {
                let value = session_record(session, &self.ledger).encode();
                self.record(id, Op::Session { key, value });
            }
            (true, None) => {
                session.number = NonZeroU64::new(self.ledger.next_number);
                session.safe_until = session.tail;
                self.ledger.next_number += 1;
                self.note_whole(id);
            }
            (false, Some(key)) => {
                session.number = None;
                self.note_gone(key);
            }
            (false, None) => {}
        }
    }

    /// A subscription came, changed or went.
    pub(in crate::broker::core) fn note_subscription(
        &mut self,
        id: SessionId,
        key: &SubscriptionKey,
        subscription: Option<&Subscription>,
    ) {
        let Some(session) = self.sessions[id as usize].key() else { return };
        let op = subscription_op(session, key, subscription);
        self.record(id, op);
    }

    /// A QoS 1 or 2 message joins a session's queue or goes in flight.
    #[inline]
    pub(in crate::broker::core) fn note_message(&mut self, id: SessionId, delivery: &Delivery) {
        let session = &mut self.sessions[id as usize];
        let ordinal = session.tail;
        session.tail += 1;
        if session.number.is_some() {
            self.note_stored_message(id, ordinal, delivery);
        }
    }

    fn note_stored_message(&mut self, id: SessionId, ordinal: u64, delivery: &Delivery) {
        let session = &self.sessions[id as usize];
        let Some(key) = session.key() else { return };
        let (serial, version) = (session.serial, session.version);
        if delivery.frame.qos() == QoS::ExactlyOnce {
            let token = self.ledger.token();
            match self.ledger.held.back_mut() {
                Some(last)
                    if !last.is_release && (last.token, last.session, last.serial) == (token, id, serial) =>
                {
                    last.until = ordinal + 1;
                }
                _ => self.ledger.held.push_back(Held {
                    token,
                    session: id,
                    serial,
                    until: ordinal + 1,
                    is_release: false,
                }),
            }
        }
        if session.is_stale {
            self.ledger.changes += 1;
            return;
        }
        let value = self.message_value(delivery, version);
        self.record(id, Op::Append { key, ordinal, value });
    }

    /// What is in flight has changed.
    #[inline]
    pub(in crate::broker::core) fn touch(&mut self, id: SessionId) {
        let session = &mut self.sessions[id as usize];
        if session.number.is_some() {
            self.ledger.changes += 1;
            if !session.is_touched {
                session.is_touched = true;
                self.ledger.touched.push((id, session.serial));
            }
        }
    }

    /// A stored session's client has a QoS 2 message: on no connection may PUBREL go out before that is safe.
    pub(in crate::broker::core) fn note_release(&mut self, id: SessionId) {
        let session = &mut self.sessions[id as usize];
        if session.number.is_some() {
            session.unsafe_releases += 1;
            let (token, serial) = (self.ledger.token(), session.serial);
            self.ledger.held.push_back(Held { token, session: id, serial, until: 0, is_release: true });
        }
    }

    /// A stored session is gone.
    pub(in crate::broker::core) fn note_gone(&mut self, key: SessionKey) {
        match self.ledger.state {
            State::Off => {}
            State::Up => self.ledger.push(Op::End { key }),
            State::Down | State::Mending => {
                self.ledger.changes += 1;
                self.ledger.stale.ended.push(key);
            }
        }
    }

    /// The retained message of a topic came, changed or went.
    pub(in crate::broker::core) fn note_retained(&mut self, topic: &Arc<str>, qos: QoS, now: Instant) {
        if self.ledger.tells_later(qos) {
            self.ledger.changes += 1;
            self.ledger.stale.add_topic(topic);
        } else if self.ledger.is_on() {
            self.write_retained(topic, now);
        }
    }

    pub(super) fn write_retained(&mut self, topic: &Arc<str>, now: Instant) {
        let message = self.retained.get(topic, now);
        let value = message.map(|message| self.retained_value(&message, now));
        self.ledger.push(Op::Retain { topic: Arc::clone(topic), value });
    }

    /// Writes a change of a session down, unless the whole session is to be written anyway.
    fn record(&mut self, id: SessionId, op: Op) {
        let session = &mut self.sessions[id as usize];
        if self.ledger.state == State::Down && !session.is_stale {
            session.is_stale = true;
            self.ledger.stale.sessions.push((id, session.serial));
        }
        match session.is_stale {
            true => self.ledger.changes += 1,
            false => self.ledger.push(op),
        }
    }

    /// Messages were taken out of a session's queue: those behind them have other ordinals now.
    pub(in crate::broker::core) fn note_rewritten(&mut self, id: SessionId) {
        let session = &mut self.sessions[id as usize];
        let Some(key) = session.key() else { return };
        session.safe_until = session.safe_until.min(session.ring.end());
        let (serial, until) = (session.serial, session.tail);
        let is_whole = self.ledger.state != State::Down && !session.is_stale;
        let others = self.ledger.held.iter_mut().filter(|held| (held.session, held.serial) == (id, serial));
        others.for_each(|held| held.until = 0);
        let token = self.ledger.token();
        self.ledger.held.push_back(Held { token, session: id, serial, until, is_release: false });
        if is_whole {
            self.ledger.push(Op::End { key });
            self.note_whole(id);
        } else {
            self.record(id, Op::End { key }); // it is written as a whole later
        }
    }

    /// Writes all of a session down.
    pub(super) fn note_whole(&mut self, id: SessionId) {
        let session = &self.sessions[id as usize];
        let Some(key) = session.key() else { return };
        let version = session.version;
        let mut ops = vec![Op::Session { key, value: session_record(session, &self.ledger).encode() }];
        ops.extend(self.subscriptions_of(id).map(|(of, how)| subscription_op(key, &of, Some(&how))));
        ops.push(progress_op(session, key));
        let in_flight = session.ring.numbered().filter_map(|(ordinal, slot)| match slot {
            Slot::Sent(delivery) => Some((ordinal, delivery)),
            Slot::Released | Slot::Done => None,
        });
        let queued = session.queue.iter().filter(|delivery| delivery.frame.qos() > QoS::AtMostOnce);
        let queued = (session.ring.end()..).zip(queued);
        let append =
            |(ordinal, delivery)| Op::Append { key, ordinal, value: self.message_value(delivery, version) };
        ops.extend(in_flight.chain(queued).map(append));
        ops.into_iter().for_each(|op| self.record(id, op));
    }

    /// The open batch, if there is anything in it.
    pub(in crate::broker::core) fn close_batch(&mut self) -> Option<Effect> {
        if !self.ledger.is_on() {
            return None;
        }
        self.mend();
        self.write_touched();
        // What a session took that is written as a whole later goes to disk with that, and not before.
        let (gave, took) = if self.ledger.refuses() { Default::default() } else { self.mesh.take_handed() };
        self.ledger.close(gave, took)
    }

    pub(super) fn write_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.ledger.touched);
        for (id, serial) in touched.drain(..) {
            let Some(session) = self.sessions.get_mut(id as usize).filter(|one| one.serial == serial) else {
                continue;
            };
            session.is_touched = false;
            if let Some(key) = session.key() {
                let op = progress_op(session, key);
                self.record(id, op);
            }
        }
        self.ledger.touched = touched; // with its room
    }

    /// Everything up to this token is safe.
    pub fn handle_persisted(&mut self, token: Token, now: Instant) {
        let was_flooded = self.ledger.is_flooded();
        self.ledger.landed(token);
        self.resume_after(was_flooded);
        self.safe = self.safe.max(token);
        self.settle_answers(now);
        self.settle_mesh(now);
        self.complete_up_to(token);
        while self.ledger.held.front().is_some_and(|held| held.token <= token) {
            let Some(held) = self.ledger.held.pop_front() else { break };
            let session = self.sessions.get_mut(held.session as usize);
            if let Some(session) = session.filter(|session| session.serial == held.serial) {
                session.safe_until = session.safe_until.max(held.until);
                session.unsafe_releases -= u32::from(held.is_release);
                self.pump(held.session, now);
            }
        }
    }

    /// Has those read again who were not while the store was far behind.
    pub(super) fn resume_after(&mut self, was_flooded: bool) {
        if was_flooded && !self.ledger.is_flooded() {
            self.wires.effects.push_back(Effect::Resume);
        }
    }

    fn message_value(&self, delivery: &Delivery, version: Version) -> Vec<u8> {
        let shared = delivery.group.as_ref().map(|shared| shared.to_string());
        let expires_at_ms = delivery.expires_at.map(|at| self.ledger.wall_ms(at));
        let frame = &delivery.frame;
        let mut value = MessageRecord::begin(version, expires_at_ms, shared.as_deref(), frame.len());
        frame.append_to(&mut value, Some(PacketId::MIN), false);
        value
    }

    fn retained_value(&self, message: &Message, now: Instant) -> Vec<u8> {
        let expires_at_ms = message.expires_at.map(|at| self.ledger.wall_ms(at));
        let mut value = MessageRecord::begin(Version::V5, expires_at_ms, None, message.payload.len() + 64);
        value.extend_from_slice(&packet_of(message, now));
        value
    }
}

impl Session {
    /// Its name on disk, if it is stored.
    pub(in crate::broker::core) fn key(&self) -> Option<SessionKey> {
        self.number.map(|number| SessionKey { partition: self.partition, number: number.get() })
    }
}

/// A message as a PUBLISH of version 5.
pub(super) fn packet_of(message: &Message, now: Instant) -> Vec<u8> {
    let mut packet = Vec::new();
    with_outgoing(message, now, |outgoing| {
        let publish = crate::mqtt::Publish {
            packet_id: (message.qos > QoS::AtMostOnce).then_some(PacketId::MIN),
            ..outgoing.publish
        };
        encode_publish(&publish, Version::V5, &mut packet);
    });
    packet
}

fn session_record(session: &Session, ledger: &super::Ledger) -> SessionRecord {
    SessionRecord {
        client_id: session.client_id.to_string(),
        owner: session.owner.as_deref().map(str::to_owned),
        expiry_s: session.expiry_s,
        ends_at_ms: session.ends_at.map(|at| ledger.wall_ms(at)),
        window: u32::try_from(session.window).unwrap_or(u32::MAX),
        sent: session.ring.end(),
        will: session.will.as_deref().map(|will| will_record(will, session.will_at, ledger)),
        traits: session.who.as_ref().map(|who| who.traits()),
    }
}

fn will_record(will: &Will, due: Option<Instant>, ledger: &super::Ledger) -> WillRecord {
    WillRecord {
        packet: packet_of(&will.message, ledger.moment.0),
        delay_s: will.delay_s,
        expiry_s: will.expiry_s,
        due_at_ms: due.map(|at| ledger.wall_ms(at)),
    }
}

fn subscription_op(session: SessionKey, key: &SubscriptionKey, subscription: Option<&Subscription>) -> Op {
    let filter = match &key.group {
        Some(group) => SharedFilter { group: group.clone(), filter: key.filter.clone() }.to_string(),
        None => key.filter.as_str().to_owned(),
    };
    let value = subscription.map(|subscription| {
        let Subscription { qos, no_local, retain_as_published, identifier } = *subscription;
        let identifier = identifier.map_or(0, |id| id.get());
        SubscriptionRecord { qos, no_local, retain_as_published, identifier }.encode()
    });
    Op::Subscription { key: session, filter, value }
}

/// What is half way. Nothing else has to be known of what is in flight: a QoS 1 message may come again, and a QoS 2
/// message that was not received has its packet id by its ordinal.
fn progress_op(session: &Session, key: SessionKey) -> Op {
    let answer_of = |(ordinal, slot): (u64, &Slot)| match slot {
        Slot::Sent(_) => None,
        Slot::Released => Some((ordinal, Answered::Released)),
        Slot::Done => Some((ordinal, Answered::Done)),
    };
    let head = session.ring.first();
    let answered = session.ring.numbered().filter_map(answer_of).collect();
    let mut received: Vec<_> = session.received.iter().flat_map(|all| all.iter().copied()).collect();
    received.sort_unstable();
    Op::Progress { key, head, value: ProgressRecord { head, answered, received }.encode() }
}
