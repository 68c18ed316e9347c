//! Why the broker ends a connection: a closed list, each with the reason code that the client is told.
//!
//! What breaks the specification is a [`Violation`]; the rest is what this broker's settings, users and life bring about.

use std::ops::Add;

use crate::mqtt::{ReasonCode, Violation};

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The client went: DISCONNECT or the end of the stream.
    #[error("the client left")]
    ClientLeft,
    /// The client breaks the specification.
    #[error("{0}")]
    Violation(Violation),
    /// No CONNECT in time.
    #[error("no CONNECT in time: send it at once")]
    ConnectTimeout,
    /// [MQTT-3.1.2-22]
    #[error("nothing came within one and a half keep alive intervals: send PINGREQ when idle")]
    KeepAliveTimeout,
    /// User name or password are not right.
    #[error("the user name or the password is wrong")]
    BadUserNameOrPassword,
    /// The client may not do that, or may no longer be here.
    #[error("not authorized")]
    NotAuthorized,
    /// The client id is that of another user's session.
    #[error("the client id belongs to another user: use one of your own")]
    ClientIdTaken,
    /// What let the client in has ended.
    #[error("the token has expired: connect with a new one")]
    TokenExpired,
    /// There is no such authentication method, or not on this connection.
    #[error(
        "the authentication method is not supported or was another before: use SCRAM-SHA-256, or a password"
    )]
    BadAuthenticationMethod,
    /// [MQTT-3.1.4-3]
    #[error("another connection took the session over: use one client id per client")]
    SessionTakenOver,
    /// A limit of this broker is reached.
    #[error("a limit of this broker is reached")]
    QuotaExceeded,
    /// Too many wait to be let in.
    #[error("too many clients wait to be authenticated: try again later")]
    ServerBusy,
    /// Memory is short, and nothing new is taken in.
    #[error("the broker is short of memory: try again later")]
    MemoryShort,
    /// Who runs the broker wants it so.
    #[error("an administrator ended the connection")]
    Kicked,
    /// An answer that must be given is larger than the client takes. [MQTT-3.1.2-24]
    #[error("the answer is larger than the client's maximum packet size: raise that")]
    AnswerTooLarge,
    /// A Will whose payload is not what its format indicator says.
    #[error("the payload of the Will is not UTF-8, though its format indicator says so")]
    PayloadFormatInvalid,
    /// Clients are to use another server for now.
    #[error("this broker is being drained: connect to another one")]
    UseAnotherServer,
    /// Clients are to use another server from now on.
    #[error("the broker has moved: connect to the new one")]
    ServerMoved,
    /// The broker stops.
    #[error("the broker is shutting down")]
    ServerShuttingDown,
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Fault {
        Fault::Violation(violation)
    }
}

/// What connections ended by, as counted: a word each, and in this order.
const ENDINGS: [&str; 22] = [
    "client_left",
    "protocol_error",
    "packet_too_large",
    "receive_maximum",
    "connect_timeout",
    "keep_alive",
    "bad_credentials",
    "not_authorized",
    "client_id_taken",
    "token_expired",
    "bad_authentication_method",
    "taken_over",
    "quota",
    "busy",
    "memory",
    "kicked",
    "answer_too_large",
    "payload_format",
    "use_another_server",
    "server_moved",
    "shutting_down",
    "lost",
];

/// The place of a word; where there is none, nothing compiles.
const fn at(word: &str) -> usize {
    let mut place = 0;
    while !is_same(ENDINGS[place].as_bytes(), word.as_bytes()) {
        place += 1;
    }
    place
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    match (one.split_first(), other.split_first()) {
        (Some((a, one)), Some((b, other))) => *a == *b && is_same(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// How many connections ended, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endings([u64; ENDINGS.len()]);

impl Endings {
    pub(super) fn count(&mut self, fault: Fault) {
        self.0[fault.ending()] += 1;
    }

    /// The socket went, and nobody said why.
    pub(super) fn count_lost(&mut self) {
        self.0[const { at("lost") }] += 1;
    }

    /// All of them, by a word.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ENDINGS.into_iter().zip(self.0)
    }
}

impl Add for Endings {
    type Output = Endings;

    fn add(self, other: Endings) -> Endings {
        let mut sum = self;
        sum.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
        sum
    }
}

impl Fault {
    fn ending(self) -> usize {
        match self {
            Fault::ClientLeft => const { at("client_left") },
            Fault::Violation(Violation::PacketTooLarge) => const { at("packet_too_large") },
            Fault::Violation(Violation::ReceiveMaximumExceeded) => const { at("receive_maximum") },
            Fault::Violation(_) => const { at("protocol_error") },
            Fault::ConnectTimeout => const { at("connect_timeout") },
            Fault::KeepAliveTimeout => const { at("keep_alive") },
            Fault::BadUserNameOrPassword => const { at("bad_credentials") },
            Fault::NotAuthorized => const { at("not_authorized") },
            Fault::ClientIdTaken => const { at("client_id_taken") },
            Fault::TokenExpired => const { at("token_expired") },
            Fault::BadAuthenticationMethod => const { at("bad_authentication_method") },
            Fault::SessionTakenOver => const { at("taken_over") },
            Fault::QuotaExceeded => const { at("quota") },
            Fault::ServerBusy => const { at("busy") },
            Fault::MemoryShort => const { at("memory") },
            Fault::Kicked => const { at("kicked") },
            Fault::AnswerTooLarge => const { at("answer_too_large") },
            Fault::PayloadFormatInvalid => const { at("payload_format") },
            Fault::UseAnotherServer => const { at("use_another_server") },
            Fault::ServerMoved => const { at("server_moved") },
            Fault::ServerShuttingDown => const { at("shutting_down") },
        }
    }

    /// What the client is told.
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Fault::ClientLeft => ReasonCode::Success,
            Fault::Violation(violation) => violation.reason_code(),
            Fault::ConnectTimeout => ReasonCode::UnspecifiedError,
            Fault::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
            Fault::BadUserNameOrPassword => ReasonCode::BadUserNameOrPassword,
            Fault::NotAuthorized => ReasonCode::NotAuthorized,
            Fault::ClientIdTaken => ReasonCode::ClientIdentifierNotValid,
            Fault::TokenExpired => ReasonCode::MaximumConnectTime,
            Fault::BadAuthenticationMethod => ReasonCode::BadAuthenticationMethod,
            Fault::SessionTakenOver => ReasonCode::SessionTakenOver,
            Fault::QuotaExceeded => ReasonCode::QuotaExceeded,
            Fault::ServerBusy | Fault::MemoryShort => ReasonCode::ServerBusy,
            Fault::Kicked => ReasonCode::AdministrativeAction,
            Fault::AnswerTooLarge => ReasonCode::PacketTooLarge,
            Fault::PayloadFormatInvalid => ReasonCode::PayloadFormatInvalid,
            Fault::UseAnotherServer => ReasonCode::UseAnotherServer,
            Fault::ServerMoved => ReasonCode::ServerMoved,
            Fault::ServerShuttingDown => ReasonCode::ServerShuttingDown,
        }
    }
}
