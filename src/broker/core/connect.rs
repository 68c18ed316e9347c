//! CONNECT: checked, authenticated, and a session found or made for it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::access::Rules;
use super::aliases::Aliases;
use super::connection::{Entering, Opening, State, Terms};
use super::delivery::pass_on;
use super::pressure::{Pressure, SMALL_BYTES};
use super::publish::{keeps_its_format, may_publish};
use super::retained::size;
use super::session::{Session, Will};
use super::{ConnectionId, Core, Effect, Fault, Proof, SessionId, Verdict};
use crate::mqtt::{
    self, ConnAck, Connect, Message, Packet, PropertiesBuf, Property, ReasonCode, Version, Violation,
};
use crate::store::Token;

impl Core {
    /// Notes what version the client speaks, so that it can be answered.
    pub(super) fn introduce(&mut self, id: ConnectionId, version: Version) {
        let Some(connection) = self.wires.get_mut(id) else { return };
        if matches!(connection.state, State::AwaitConnect) {
            connection.version = version;
            connection.is_introduced = true;
        }
    }

    // [MQTT-3.2.0-2]
    pub(super) fn handle_connect(
        &mut self,
        id: ConnectionId,
        connect: &Connect,
        now: Instant,
    ) -> Result<(), Fault> {
        self.introduce(id, connect.version);
        self.note_wishes(id, connect);
        let opening = Box::new(self.read_connect(connect));
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        if let Some(stranger) = connection.stranger.as_mut().filter(|_| !opening.is_id_assigned) {
            stranger.client_id = Some(Arc::clone(&opening.client_id));
        }
        self.check_redirect()?;
        // [MQTT-3.1.4-2]
        if connect.will.as_ref().is_some_and(|will| !may_publish(will.topic)) {
            return Err(Fault::NotAuthorized);
        }
        if connect.will.as_ref().is_some_and(|will| !keeps_its_format(will.properties, will.payload)) {
            return Err(Fault::PayloadFormatInvalid);
        }
        let Some(opening) = self.begin_exchange(id, connect, opening) else { return Ok(()) };
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        let stranger = connection.stranger.as_mut();
        if let Some(username) = stranger.and_then(|stranger| stranger.origin.certificate_user.take()) {
            // Whatever CONNECT says besides: the certificate is checked already.
            connection.username = Some(username);
            connection.proof = Proof::Certificate;
            return self.accept_connection(id, *opening, now);
        }
        let shows_token = self.access.takes_tokens && connect.password.is_some();
        if connect.username.is_none() && !shows_token {
            if !self.is_anonymous_allowed {
                return Err(Fault::NotAuthorized);
            }
            return self.accept_connection(id, *opening, now);
        }
        let username: Arc<str> = connect.username.unwrap_or_default().into();
        connection.username = Some(Arc::clone(&username));
        connection.proof = Proof::Password;
        connection.state = State::AwaitVerdict(opening);
        let password = Bytes::copy_from_slice(connect.password.unwrap_or_default());
        self.wires.effects.push_back(Effect::Authenticate { connection: id, username, password });
        Ok(())
    }

    /// Notes what the client takes. It holds for the CONNACK already.
    fn note_wishes(&mut self, id: ConnectionId, connect: &Connect) {
        let Some(connection) = self.wires.get_mut(id) else { return };
        let properties = connect.properties;
        connection.packet_bytes_max =
            properties.maximum_packet_size().map_or(usize::MAX, |bytes| bytes as usize);
        connection.is_mqisdp = connect.is_mqisdp;
        connection.is_incurious = properties.request_problem_information() == Some(0);
        let aliases = properties.topic_alias_maximum().unwrap_or(0).min(self.limits.topic_alias_max);
        connection.own_aliases = (aliases > 0).then(|| Box::new(Aliases::new(aliases)));
    }

    /// The shell's answer to [`Effect::Authenticate`].
    pub fn handle_verdict(&mut self, id: ConnectionId, verdict: Verdict, now: Instant) {
        let Some(connection) = self.wires.get_mut(id) else { return };
        if !matches!(connection.state, State::AwaitVerdict(_)) {
            return;
        }
        let mut own = None;
        match verdict {
            Verdict::Refused => return self.close(id, Fault::BadUserNameOrPassword, now),
            // [MQTT-4.8.0-2] v3
            Verdict::Busy => return self.close(id, Fault::ServerBusy, now),
            Verdict::Accepted => {}
            // The name is not shown to be the client's: no rule may go by it.
            Verdict::Anonymous => {
                connection.username = None;
                connection.proof = Proof::Nothing;
            }
            Verdict::Token { username, until, key, grants } => {
                connection.username = Some(username);
                connection.proof = Proof::Token { key };
                connection.until = until;
                own = grants.map(|grants| Rc::new(Rules::of_token(grants)));
            }
        }
        if let State::AwaitVerdict(opening) = std::mem::replace(&mut connection.state, State::AwaitConnect)
            && let Err(fault) = self.accept_connection(id, Opening { own, ..*opening }, now)
        {
            self.close(id, fault, now);
        }
    }

    fn read_connect(&mut self, connect: &Connect) -> Opening {
        let wanted_s = match connect.version {
            Version::V5 => connect.properties.session_expiry_interval().unwrap_or(0),
            Version::V3 if connect.clean_start => 0,
            Version::V3 => u32::MAX,
        };
        let expiry_s = wanted_s.min(self.limits.session_expiry_s_max);
        // Clients of older versions cannot be told: theirs stands. [MQTT-3.1.2-21] [MQTT-3.2.2-22]
        let keep_alive_s_max = self.limits.keep_alive_s_max;
        let is_keep_alive_ours = connect.version == Version::V5
            && keep_alive_s_max < u16::MAX
            && !(1..=keep_alive_s_max).contains(&connect.keep_alive_s);
        let is_id_assigned = connect.client_id.is_empty();
        Opening {
            // [MQTT-3.1.3-5] [MQTT-3.1.3-6]
            client_id: if is_id_assigned { self.assign_id() } else { connect.client_id.into() },
            is_id_assigned,
            clean_start: connect.clean_start,
            keep_alive_s: if is_keep_alive_ours { keep_alive_s_max } else { connect.keep_alive_s },
            is_keep_alive_ours,
            expiry_s,
            is_expiry_cut: expiry_s != wanted_s,
            receive_max: connect.properties.receive_maximum().unwrap_or(u16::MAX),
            will: connect.will.as_ref().map(|will| Box::new(read_will(will))),
            proof: Bytes::new(),
            own: None,
        }
    }

    /// A client id that nobody has. [MQTT-3.1.3-6]
    fn assign_id(&mut self) -> Arc<str> {
        loop {
            self.serial = self.serial.wrapping_add(1);
            let id: Arc<str> = format!("mqlink-{:016x}-{}", self.seed, self.serial).into();
            // One that is at home here, so that the client need not move.
            if self.mesh.elsewhere(&id).is_none() && self.session_of(&id).is_none() {
                return id;
            }
        }
    }

    /// Lets a client in, if it may.
    pub(super) fn accept_connection(
        &mut self,
        id: ConnectionId,
        opening: Opening,
        now: Instant,
    ) -> Result<(), Fault> {
        // Who has a session here takes away what fills memory, or more than that; but it may bring no large will.
        if self.pressure == Pressure::Closed {
            let session = self.session_of(&opening.client_id).ok_or(Fault::MemoryShort)?;
            let bytes = |will: &Option<Box<Will>>| will.as_ref().map_or(0, |will| size(&will.message));
            let known = bytes(&self.sessions[session as usize].will);
            if bytes(&opening.will) > known.max(SMALL_BYTES) {
                return Err(Fault::MemoryShort);
            }
        }
        if opening.expiry_s > 0 && self.ledger.is_flooded() {
            return Err(Fault::ServerBusy);
        }
        let who = self.admit(id, &opening)?;
        let connack = self.connack_properties(id, &opening);
        self.check_connack(id, &connack)?;
        self.enter(id, Entering { opening, who, connack }, now)
    }

    /// Takes over, resumes or makes a client's session, and answers. One that begins anew must not find the old session again
    /// after a crash: it is let in when that has ended for good.
    fn enter(&mut self, id: ConnectionId, entering: Entering, now: Instant) -> Result<(), Fault> {
        if entering.opening.clean_start && self.end_former(id, &entering.opening.client_id, now) {
            self.wires.get_mut(id).ok_or(Fault::ClientLeft)?.state = State::AwaitStore(Box::new(entering));
            self.enter_once_safe(id);
            return Ok(());
        }
        let Entering { opening, who, connack } = entering;
        let is_new = self.session_of(&opening.client_id).is_none();
        if is_new && self.room.sessions.get() >= self.limits.sessions_max {
            return Err(Fault::QuotaExceeded);
        }
        let (session, is_present) = self.session_for(id, &opening.client_id, now);
        let connection = self.wires.get_mut(id).expect("who is let in has a connection");
        let version = connection.version;
        connection.state = State::Open(session);
        connection.terms = Terms::of_client(&self.limits);
        connection.terms.packets.dup_requests = connection.is_mqisdp;
        // [MQTT-3.1.2-22]
        let keep_alive = Duration::from_millis(u64::from(opening.keep_alive_s) * 1500);
        connection.patience = (!keep_alive.is_zero()).then_some(keep_alive);
        self.attach(session, id, version, &opening);
        self.settle_in(session, id, who);
        self.counters.opened += 1;
        self.note_session(session);
        self.arm_connection(id, now);
        // [MQTT-3.2.0-1] [MQTT-3.1.4-5]
        self.send_connack(id, &connack, is_present)?;
        let state = &mut self.sessions[session as usize];
        let unsent = state.ring.unanswered(); // [MQTT-4.4.0-1]
        state.unsent = Some(unsent).filter(|unsent| !unsent.is_empty()).map(Box::new);
        self.pump(session, now);
        Ok(())
    }

    /// Lets a client in that waited for it.
    pub(super) fn enter_at_last(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.wires.get_mut(id) else { return };
        match std::mem::replace(&mut connection.state, State::AwaitConnect) {
            State::AwaitStore(entering) => {
                if let Err(fault) = self.enter(id, *entering, now) {
                    self.close(id, fault, now);
                }
            }
            other => connection.state = other,
        }
    }

    /// Ends the session that a client leaves behind. True if the store has yet to hear so.
    fn end_former(&mut self, id: ConnectionId, client_id: &str, now: Instant) -> bool {
        let Some(known) = self.session_of(client_id) else { return false };
        let session = &mut self.sessions[known as usize];
        let is_stored = session.number.is_some();
        if let Some(other) = session.connection.filter(|&other| other != id) {
            session.expiry_s = 0; // its will goes out with it, and so does the session
            self.close(other, Fault::SessionTakenOver, now); // [MQTT-3.1.4-3]
        }
        if let Some(session) = self.session_of(client_id) {
            // [MQTT-3.2.2-2] [MQTT-3.1.2-6] v3
            self.end_session(session, now); // [MQTT-3.1.2-4]
        }
        self.token_if(is_stored) > Token(0)
    }

    /// The session for a client id, and whether it was there before.
    // [MQTT-3.1.4-4] [MQTT-3.1.3-2]
    fn session_for(&mut self, id: ConnectionId, client_id: &Arc<str>, now: Instant) -> (SessionId, bool) {
        if let Some(known) = self.session_of(client_id)
            && let Some(other) = self.sessions[known as usize].connection.filter(|&other| other != id)
        {
            self.close(other, Fault::SessionTakenOver, now); // [MQTT-3.1.4-3]
        }
        // It may have ended with the connection that it was taken from.
        match self.session_of(client_id) {
            // [MQTT-3.2.2-3] [MQTT-3.1.2-4] v3
            Some(session) => (session, true), // [MQTT-3.1.2-5]
            // [MQTT-3.2.2-3] [MQTT-3.1.2-6]
            None => (self.new_session(client_id, Version::V5), false),
        }
    }

    pub(super) fn new_session(&mut self, client_id: &Arc<str>, version: Version) -> SessionId {
        self.serial = self.serial.wrapping_add(1);
        let session = Session::new(self.serial, Arc::clone(client_id), version, &self.backlog);
        let id = self.sessions.insert(session) as SessionId;
        self.room.sessions.add(1);
        self.by_client.insert(id, &self.sessions);
        id
    }

    fn attach(&mut self, id: SessionId, connection: ConnectionId, version: Version, opening: &Opening) {
        let session = &mut self.sessions[id as usize];
        session.translate(version);
        session.connection = Some(connection);
        session.expiry_s = opening.expiry_s;
        session.ends_at = None;
        // [MQTT-3.1.2-7]
        session.will = opening.will.clone();
        session.will_at = None; // [MQTT-3.1.3-9]
        // [MQTT-4.9.0-1]
        session.window = usize::from(opening.receive_max.min(self.limits.inflight_max)); // [MQTT-3.3.4-9]
    }

    // [MQTT-3.1.2-28]
    fn connack_properties(&self, id: ConnectionId, opening: &Opening) -> PropertiesBuf {
        let limits = &self.limits;
        let mut properties = PropertiesBuf::new();
        if opening.is_expiry_cut {
            properties.push(Property::SessionExpiryInterval(opening.expiry_s));
        }
        if limits.inflight_max < u16::MAX {
            properties.push(Property::ReceiveMaximum(limits.inflight_max));
        }
        let packet_bytes_max = Terms::of_client(limits).packets.packet_bytes_max;
        properties.push(Property::MaximumPacketSize(packet_bytes_max as u32)); // it is below MQTT's own
        if opening.is_id_assigned {
            // [MQTT-3.1.3-7]
            properties.push(Property::AssignedClientIdentifier(&opening.client_id)); // [MQTT-3.2.2-16]
        }
        if limits.topic_alias_max > 0 {
            properties.push(Property::TopicAliasMaximum(limits.topic_alias_max));
        }
        if opening.is_keep_alive_ours {
            properties.push(Property::ServerKeepAlive(opening.keep_alive_s));
        }
        self.push_exchange(id, &opening.proof, &mut properties);
        properties
    }

    /// Refuses a client that takes so little that it cannot be told what it has to know. [MQTT-3.1.2-24]
    fn check_connack(&self, id: ConnectionId, properties: &PropertiesBuf) -> Result<(), Fault> {
        let takes = self.wires.get(id).map_or(0, |connection| connection.packet_bytes_max);
        if takes == usize::MAX {
            return Ok(());
        }
        let (session_present, reason) = (true, ReasonCode::Success);
        let ack = ConnAck { session_present, reason, properties: properties.as_properties() };
        let mut bytes = Vec::new();
        Packet::ConnAck(ack).encode(Version::V5, &mut bytes);
        if bytes.len() <= takes { Ok(()) } else { Err(Fault::AnswerTooLarge) }
    }

    fn send_connack(
        &mut self,
        id: ConnectionId,
        properties: &PropertiesBuf,
        is_present: bool,
    ) -> Result<(), Fault> {
        // In MQTT 3.1 the flag is a reserved bit.
        let session_present = is_present && self.wires.get(id).is_some_and(|one| !one.is_mqisdp);
        let properties = properties.as_properties();
        let ack = ConnAck { session_present, reason: ReasonCode::Success, properties };
        self.reply(id, &Packet::ConnAck(ack))
    }

    /// Answers a CONNECT with a refusal, as far as the client's version can say it. [MQTT-3.1.4-2]
    pub(super) fn refuse_connection(&mut self, id: ConnectionId, fault: Fault) {
        let Some(connection) = self.wires.get(id).filter(|connection| connection.is_introduced) else {
            return;
        };
        let reason = fault.reason_code();
        // [MQTT-3.1.4-1] v3 [MQTT-3.2.2-6] v3 [MQTT-3.2.2-8]
        let can_say = match connection.version {
            Version::V5 => reason.is_allowed_in(mqtt::PacketType::ConnAck),
            Version::V3 => reason.connack_v3().is_some(),
        };
        // Who leaves by itself is not refused.
        if can_say && reason.is_error() && fault != Fault::Violation(Violation::FirstPacketNotConnect) {
            const BARE: usize = 5;
            let told = match fault {
                // The properties of another version are not known to be those of 5.0.
                Fault::Violation(Violation::UnsupportedProtocolVersion(_)) => PropertiesBuf::new(),
                _ => self.farewell(id, fault, BARE),
            };
            let properties = told.as_properties();
            // Who has no room for it finds the connection closed.
            // [MQTT-3.2.2-6]
            let _ = self.reply(id, &Packet::ConnAck(ConnAck { session_present: false, reason, properties }));
        }
    }
}

fn read_will(will: &mqtt::Will) -> Will {
    let mut properties = PropertiesBuf::new();
    // [MQTT-3.1.3-10]
    pass_on(will.properties, None, &mut properties);
    Will {
        message: Message {
            topic: will.topic.into(),
            payload: Bytes::copy_from_slice(will.payload),
            // [MQTT-3.1.2-14] [MQTT-3.1.2-15]
            qos: will.qos,
            retain: will.retain,
            properties,
            expires_at: None,
        },
        delay_s: will.properties.will_delay_interval().unwrap_or(0),
        expiry_s: will.properties.message_expiry_interval(),
    }
}
