//! The ways out: DISCONNECT, faults, lost sockets, timers, wills, the end of a session.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Connection, State};
use super::delivery::{Delivery, with_outgoing, with_publish};
use super::members::Seat;
use super::ring::Slot;
use super::session::Session;
use super::subscribe::FILTER_COST;
use super::wheel::Wheel;
use super::{ConnectionId, Core, Effect, Fault, SessionId, Timer};
use crate::mqtt::{Disconnect, Message, Packet, QoS, ReasonCode, SharedFilter, Version, Violation};

impl Core {
    pub(super) fn handle_disconnect(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        disconnect: &Disconnect,
        now: Instant,
    ) -> Result<(), Fault> {
        let state = &mut self.sessions[session as usize];
        if let Some(wanted_s) = disconnect.properties.session_expiry_interval() {
            let max_s = self.limits.session_expiry_s_max;
            // Where the limit is 0, the client may have asked for more.
            if state.expiry_s == 0 && wanted_s > 0 && max_s > 0 {
                return Err(Violation::SessionExpiryRaised.into());
            }
            state.expiry_s = wanted_s.min(max_s);
        }
        if disconnect.reason == ReasonCode::Success {
            state.will = None; // [MQTT-3.14.4-3]
        }
        self.close(id, Fault::ClientLeft, now);
        Ok(())
    }

    /// Ends a connection: tells the client why, as far as its version can, and lets go of its session.
    pub fn close(&mut self, id: ConnectionId, fault: Fault, now: Instant) {
        let Some(connection) = self.wires.get_mut(id) else { return };
        if !matches!(connection.state, State::Closed) {
            self.counters.ended.count(fault);
        }
        match connection.state {
            State::Closed => return,
            // [MQTT-3.14.0-1]
            State::AwaitConnect | State::AwaitVerdict(_) | State::AwaitAuth(_) | State::AwaitStore(_) => {
                self.refuse_connection(id, fault);
            }
            State::Open(session) => {
                let version = connection.version;
                if version == Version::V5 && fault != Fault::ClientLeft {
                    self.say_goodbye(id, fault);
                }
                // [MQTT-3.14.4-1]
                if let Some(connection) = self.wires.get_mut(id) {
                    connection.state = State::Closed;
                }
                self.detach(session, now);
            }
        }
        if let Some(connection) = self.wires.get_mut(id) {
            connection.state = State::Closed;
        }
        // [MQTT-3.2.2-7] [MQTT-3.14.4-2] [MQTT-4.13.2-1]
        self.wires.effects.push_back(Effect::Close { connection: id, fault });
    }

    /// Sends a DISCONNECT, if the client has room for one. [MQTT-3.14.2-1] [MQTT-3.14.2-2]
    fn say_goodbye(&mut self, id: ConnectionId, fault: Fault) {
        const BARE: usize = 3;
        let told = self.farewell(id, fault, BARE);
        let packet = Disconnect { reason: in_disconnect(fault), properties: told.as_properties() };
        let _ = self.reply(id, &Packet::Disconnect(packet));
    }

    /// The socket is gone.
    pub fn handle_closed(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.wires.remove(id) else { return };
        if !matches!(connection.state, State::Closed) {
            self.counters.ended.count_lost();
        }
        if let Some(session) = connection.session() {
            self.detach(session, now);
        }
    }

    /// Notes a connection that ended before this or any shard's core saw it.
    pub fn note_ended(&mut self, fault: Fault) {
        self.counters.ended.count(fault);
    }

    /// Ends all connections.
    pub fn close_all(&mut self, fault: Fault, now: Instant) {
        let ids: Vec<_> = self.wires.ids().collect();
        ids.into_iter().for_each(|id| self.close(id, fault, now));
    }

    /// How many subscriptions end with a connection, if it is lost now.
    pub fn subscriptions_that_end_with(&self, id: ConnectionId) -> usize {
        let session = self.wires.get(id).and_then(Connection::session).map(|id| &self.sessions[id as usize]);
        session.filter(|session| session.expiry_s == 0).map_or(0, Session::subscription_count)
    }

    /// The session goes on without a connection, or ends with it.
    fn detach(&mut self, id: SessionId, now: Instant) {
        let session = &mut self.sessions[id as usize];
        session.connection = None;
        session.unsent = None;
        if session.expiry_s == 0 {
            return self.end_session(id, now); // [MQTT-3.1.2-23]
        }
        self.look_at(id);
        let session = &mut self.sessions[id as usize];
        let expiry = Duration::from_secs(session.expiry_s.into());
        // [MQTT-4.1.0-1] [MQTT-4.1.0-2]
        session.ends_at = now.checked_add(expiry);
        match &session.will {
            Some(will) if will.delay_s == 0 => self.publish_will(id, now), // [MQTT-3.1.2-8]
            Some(will) => {
                session.will_at = now.checked_add(Duration::from_secs(will.delay_s.into()).min(expiry))
            }
            None => {}
        }
        self.arm_session(id, now);
        self.note_session(id);
    }

    fn publish_will(&mut self, id: SessionId, now: Instant) {
        let session = &mut self.sessions[id as usize];
        session.will_at = None;
        // [MQTT-3.1.2-10] [MQTT-3.1.2-12] v3
        let Some(will) = session.will.take() else { return };
        if !self.is_will_granted(id, &will.message.topic) {
            self.counters.dropped_not_authorized += 1;
            return;
        }
        let expires_at = will.expiry_s.and_then(|s| now.checked_add(Duration::from_secs(s.into())));
        let message = Message { expires_at, ..will.message };
        let recipients = self.recipients_of(&message.topic);
        with_outgoing(&message, now, |outgoing| self.distribute(&recipients, outgoing, Some(id), now));
        self.mesh.take_need(); // nobody waits for an answer
    }

    /// Forgets a session that nobody is connected to; its will, if one waits, is published first. [MQTT-3.1.2-8]
    pub(super) fn end_session(&mut self, id: SessionId, now: Instant) {
        self.publish_will(id, now);
        let session = self.remove_session(id);
        self.redistribute(session, now);
    }

    /// Takes a session that nobody is connected to out of everything.
    pub(super) fn remove_session(&mut self, id: SessionId) -> Session {
        let keys: Vec<_> = self.subscriptions_of(id).map(|(key, _)| key).collect();
        self.routed += FILTER_COST * keys.len() as u64;
        for key in &keys {
            self.drop_subscription(id, key);
        }
        // [MQTT-3.1.2-7] v3 [MQTT-3.1.2-6] v3
        self.by_client.remove(&self.sessions[id as usize].client_id, id);
        let session = self.sessions.remove(id as usize);
        self.room.sessions.remove(1);
        self.in_flight -= session.ring.open();
        if let Some(key) = session.key() {
            self.note_gone(key);
        }
        session
    }

    /// Gives what a member of shared groups left unanswered to the other members. [4.8.2]
    fn redistribute(&mut self, mut session: Session, now: Instant) {
        let in_flight = session.ring.iter().filter_map(|(_, slot)| match slot {
            // At QoS 2 the client may have it already, and twice would be wrong.
            // [MQTT-4.8.2-5]
            Slot::Sent(delivery) if delivery.frame.qos() == QoS::AtLeastOnce => Some(delivery),
            Slot::Sent(_) | Slot::Released | Slot::Done => None,
        });
        self.mesh.tie(session.number.is_some());
        for delivery in in_flight {
            self.pass_on(delivery, session.version, None, now);
        }
        while let Some(delivery) = session.queue.pop() {
            self.pass_on(&delivery, session.version, None, now); // there is room for it now where it was
        }
        self.mesh.tie(false);
        self.mesh.take_need(); // nobody waits for an answer
    }

    /// Gives what waits for a session that has left shared groups to the other members. What was sent stays with it, and so
    /// does what nobody else can have. [4.8.2]
    pub(super) fn hand_on(&mut self, id: SessionId, left: &HashSet<SharedFilter>, now: Instant) {
        let session = &mut self.sessions[id as usize];
        let (version, seat, is_stored) = (session.version, session.seat(id), session.number.is_some());
        let is_left = |one: &Delivery| one.group.as_ref().is_some_and(|group| left.contains(&**group));
        if left.is_empty() || !session.queue.iter().any(is_left) {
            return;
        }
        let queue = session.queue.take();
        // What goes must not be gone here before it is there.
        self.mesh.tie(is_stored);
        let (gone, kept): (VecDeque<_>, VecDeque<_>) =
            queue.into_iter().partition(|one| is_left(one) && self.pass_on(one, version, Some(seat), now));
        self.mesh.tie(false);
        self.mesh.take_need(); // nobody waits for an answer
        let session = &mut self.sessions[id as usize];
        kept.into_iter().for_each(|one| session.queue.push(one));
        session.is_full &= gone.is_empty();
        session.tail -= gone.len() as u64;
        if !gone.is_empty() {
            self.note_rewritten(id);
            self.look_at(id);
        }
    }

    /// Gives a message of a shared group to its members; a session that is no longer one gets it back if nobody takes it.
    /// False if nobody does who could be asked.
    fn pass_on(&mut self, delivery: &Delivery, version: Version, giver: Option<Seat>, now: Instant) -> bool {
        let Some(shared) = &delivery.group else { return false };
        let Some(frame) = delivery.aged(version, now) else {
            self.counters.dropped_expired += 1;
            return true;
        };
        let message = with_publish(&frame, version, |publish| Message {
            expires_at: delivery.expires_at,
            ..Message::from_publish(&publish, publish.topic.into(), now)
        });
        with_outgoing(&message, now, |outgoing| {
            self.count_work(1, outgoing);
            match self.mesh.elsewhere(shared.filter.as_str()) {
                Some(owner) => {
                    self.mesh.give_back(owner, Arc::clone(shared), None, giver, 0, outgoing);
                    true
                }
                None => self.offer_again(shared, 0, outgoing),
            }
        })
    }

    /// Looks whether a connection came to its end, and sets its timer anew.
    pub(super) fn connection_due(&mut self, id: ConnectionId, now: Instant) {
        let is_kept = self.wires.get(id).is_some_and(|connection| self.keeps_waiting(connection));
        let is_kept = is_kept || self.mesh.is_congested();
        let Some(connection) = self.wires.get_mut(id) else { return };
        connection.armed = connection.armed.filter(|&at| at > now);
        if is_kept {
            connection.last_seen = now; // its silence is our doing: we do not read
        }
        let deadline = self.connection_deadline(id);
        match deadline {
            Some((at, fault)) if at <= now => self.close(id, fault, now),
            _ => self.arm_connection(id, now),
        }
    }

    fn connection_deadline(&self, id: ConnectionId) -> Option<(Instant, Fault)> {
        let connection = self.wires.get(id)?;
        let connect_timeout = Duration::from_secs(self.limits.connect_timeout_s.into());
        match connection.state {
            State::AwaitConnect | State::AwaitAuth(_) => {
                Some((connection.opened_at.checked_add(connect_timeout)?, Fault::ConnectTimeout))
            }
            State::Open(_) => {
                let silent =
                    connection.patience.and_then(|patience| connection.last_seen.checked_add(patience));
                let silent = silent.map(|at| (at, Fault::KeepAliveTimeout));
                let expired = connection.until.map(|at| (at, Fault::TokenExpired));
                silent.into_iter().chain(expired).min_by_key(|&(at, _)| at)
            }
            State::AwaitVerdict(_) | State::AwaitStore(_) | State::Closed => None,
        }
    }

    pub(super) fn arm_connection(&mut self, id: ConnectionId, now: Instant) {
        let Some((deadline, _)) = self.connection_deadline(id) else { return };
        if let Some(connection) = self.wires.get_mut(id) {
            arm(&mut self.wheel, &mut connection.armed, Timer::Connection(id), deadline, now);
        }
    }

    /// Looks whether a session's will or its end is due, and sets its timer anew.
    pub(super) fn session_due(&mut self, id: SessionId, serial: u32, now: Instant) {
        let Some(session) = self.sessions.get_mut(id as usize).filter(|session| session.serial == serial)
        else {
            return;
        };
        session.armed = session.armed.filter(|&at| at > now);
        if session.ends_at.is_some_and(|at| at <= now) {
            return self.end_session(id, now);
        }
        if session.will_at.is_some_and(|at| at <= now) {
            self.publish_will(id, now);
            self.note_session(id);
        }
        self.arm_session(id, now);
    }

    pub(super) fn arm_session(&mut self, id: SessionId, now: Instant) {
        let session = &mut self.sessions[id as usize];
        let Some(deadline) = session.ends_at.into_iter().chain(session.will_at).min() else { return };
        arm(&mut self.wheel, &mut session.armed, Timer::Session(id, session.serial), deadline, now);
    }
}

/// Sets a timer unless one fires early enough already: owners that come and go often do not pile up timers.
fn arm(wheel: &mut Wheel<Timer>, armed: &mut Option<Instant>, timer: Timer, deadline: Instant, now: Instant) {
    if armed.is_none_or(|at| at > deadline) {
        *armed = Some(wheel.set(timer, deadline, now));
    }
}

/// The reason code for DISCONNECT, which knows fewer than CONNACK.
fn in_disconnect(fault: Fault) -> ReasonCode {
    let reason = fault.reason_code();
    if reason.is_allowed_in(crate::mqtt::PacketType::Disconnect) {
        reason
    } else {
        ReasonCode::UnspecifiedError
    }
}
