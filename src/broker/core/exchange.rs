//! Enhanced authentication: a method that CONNECT names, AUTH packets to and fro, and the same again later.
//!
//! The core carries the messages and keeps the rules of who may send what when; the shell knows the methods
//! ([`Effect::Exchange`], [`Core::handle_exchange`]). What a method has to remember from one message to the next
//! travels with the connection.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::connection::{Opening, State};
use super::{ConnectionId, Core, Effect, Fault, Proof};
use crate::mqtt::{Auth, Connect, Packet, PropertiesBuf, Property, ReasonCode, Violation};

/// What a connection's authentication method has to remember.
pub(super) struct Exchange {
    pub(super) method: Arc<str>,
    context: Arc<str>,
    turn: Turn,
    /// The user name of CONNECT, if it had one.
    username: Option<Arc<str>>,
}

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nobody's: the client is in.
    Nobody,
    Client,
    Shell,
}

/// What an authentication method makes of a client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The client has to say more.
    Continue {
        /// The server's message.
        data: Bytes,
        /// What the method needs with the client's next one.
        context: Arc<str>,
    },
    /// The client is who it says.
    Accepted {
        /// Who that is.
        username: Arc<str>,
        /// The server's last message.
        data: Bytes,
    },
    /// It is not.
    Refused,
    /// There is no such method.
    Unsupported,
}

impl Core {
    /// Begins an exchange if CONNECT names a method; gives the opening back if it does not.
    pub(super) fn begin_exchange(
        &mut self,
        id: ConnectionId,
        connect: &Connect,
        opening: Box<Opening>,
    ) -> Option<Box<Opening>> {
        let Some(method) = connect.properties.authentication_method() else { return Some(opening) };
        let connection = self.wires.get_mut(id)?;
        connection.exchange = Some(Box::new(Exchange {
            method: method.into(),
            context: "".into(),
            turn: Turn::Shell,
            username: connect.username.map(Into::into),
        }));
        connection.state = State::AwaitVerdict(opening);
        self.ask(id, connect.properties.authentication_data().unwrap_or_default());
        None
    }

    /// AUTH from a client that is not in yet. [MQTT-4.12.0-3]
    pub(super) fn handle_early_auth(&mut self, id: ConnectionId, auth: &Auth) -> Result<(), Fault> {
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        if auth.reason != ReasonCode::ContinueAuthentication {
            return Err(Violation::UnexpectedPacket.into());
        }
        match std::mem::replace(&mut connection.state, State::AwaitConnect) {
            State::AwaitAuth(opening) => connection.state = State::AwaitVerdict(opening),
            other => connection.state = other,
        }
        self.take_turn(id, auth)
    }

    /// AUTH from a client that is in: it authenticates again. [MQTT-4.12.1-1]
    pub(super) fn handle_auth(&mut self, id: ConnectionId, auth: &Auth) -> Result<(), Fault> {
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        // Without a method in CONNECT there is none to use. [MQTT-4.12.0-7]
        let exchange = connection.exchange.as_mut().ok_or(Violation::UnexpectedPacket)?;
        let wanted = match exchange.turn {
            Turn::Nobody => ReasonCode::ReAuthenticate,
            Turn::Client => ReasonCode::ContinueAuthentication,
            Turn::Shell => return Err(Violation::UnexpectedPacket.into()),
        };
        if auth.reason != wanted {
            return Err(Violation::UnexpectedPacket.into());
        }
        self.take_turn(id, auth)
    }

    fn take_turn(&mut self, id: ConnectionId, auth: &Auth) -> Result<(), Fault> {
        let connection = self.wires.get_mut(id).ok_or(Fault::ClientLeft)?;
        let exchange = connection.exchange.as_mut().ok_or(Violation::UnexpectedPacket)?;
        if auth.properties.authentication_method() != Some(&*exchange.method) {
            return Err(Fault::BadAuthenticationMethod); // [MQTT-4.12.0-5]
        }
        exchange.turn = Turn::Shell;
        self.ask(id, auth.properties.authentication_data().unwrap_or_default());
        Ok(())
    }

    fn ask(&mut self, id: ConnectionId, data: &[u8]) {
        let connection = self.wires.get_mut(id);
        let Some(exchange) = connection.and_then(|connection| connection.exchange.as_mut()) else { return };
        let method = Arc::clone(&exchange.method);
        let context = std::mem::replace(&mut exchange.context, "".into());
        let data = Bytes::copy_from_slice(data);
        self.wires.effects.push_back(Effect::Exchange { connection: id, method, context, data });
    }

    /// The shell's answer to [`Effect::Exchange`].
    pub fn handle_exchange(&mut self, id: ConnectionId, answer: Answer, now: Instant) {
        if let Err(fault) = self.answer_exchange(id, answer, now) {
            self.close(id, fault, now); // [MQTT-4.12.0-4] [MQTT-4.12.1-2]
        }
    }

    fn answer_exchange(&mut self, id: ConnectionId, answer: Answer, now: Instant) -> Result<(), Fault> {
        let Some(connection) = self.wires.get_mut(id) else { return Ok(()) };
        let Some(exchange) = connection.exchange.as_mut().filter(|one| one.turn == Turn::Shell) else {
            return Ok(());
        };
        match answer {
            Answer::Unsupported => Err(Fault::BadAuthenticationMethod), // [MQTT-4.12.0-1]
            Answer::Refused => Err(Fault::NotAuthorized),
            Answer::Continue { data, context } => {
                exchange.context = context;
                exchange.turn = Turn::Client;
                match std::mem::replace(&mut connection.state, State::AwaitConnect) {
                    State::AwaitVerdict(opening) => connection.state = State::AwaitAuth(opening),
                    other => connection.state = other,
                }
                self.send_auth(id, ReasonCode::ContinueAuthentication, &data) // [MQTT-4.12.0-2]
            }
            Answer::Accepted { username, data } => {
                exchange.turn = Turn::Nobody;
                // Neither CONNECT nor its certificate may say that it is somebody else.
                let by_certificate =
                    connection.stranger.as_ref().and_then(|one| one.origin.certificate_user.as_ref());
                let claims = exchange.username.iter().chain(by_certificate);
                if claims.into_iter().any(|claimed| *claimed != username) {
                    return Err(Fault::NotAuthorized);
                }
                exchange.username = Some(Arc::clone(&username));
                match std::mem::replace(&mut connection.state, State::AwaitConnect) {
                    State::AwaitVerdict(mut opening) => {
                        opening.proof = data;
                        connection.username = Some(username);
                        connection.proof = Proof::Password;
                        self.accept_connection(id, *opening, now)
                    }
                    other => {
                        connection.state = other;
                        self.send_auth(id, ReasonCode::Success, &data)
                    }
                }
            }
        }
    }

    fn send_auth(&mut self, id: ConnectionId, reason: ReasonCode, data: &[u8]) -> Result<(), Fault> {
        let mut properties = PropertiesBuf::new();
        self.push_exchange(id, data, &mut properties);
        self.reply(id, &Packet::Auth(Auth { reason, properties: properties.as_properties() }))
    }

    /// Names the method, and what it says; nothing where CONNECT named none. [MQTT-4.12.0-5] [MQTT-4.12.0-6]
    pub(super) fn push_exchange(&self, id: ConnectionId, data: &[u8], into: &mut PropertiesBuf) {
        let Some(exchange) = self.wires.get(id).and_then(|connection| connection.exchange.as_ref()) else {
            return;
        };
        into.push(Property::AuthenticationMethod(&exchange.method));
        if !data.is_empty() {
            into.push(Property::AuthenticationData(data));
        }
    }
}
