//! The frames of the native dialect, version 1, as docs/link-protocol.md specifies them byte by byte.
//!
//! A frame is a type, a head of tagged fields and, for two types, a body. A type or tag with the high bit set
//! may be skipped by whoever does not know it; without it, it must be refused. Decoding borrows from its input,
//! takes no memory that the input does not pay for, and never panics. It knows no connection and no state:
//! whether a frame is in place is judged by the machine.

mod wire;
mod control;
mod routes;
mod messages;
#[cfg(test)]
mod tests;

pub use control::{Bye, Half, Hello, MessagesAck, Probe, Refuse, RoutesAck, TOPIC_LEN_MAX, TOPICS_MAX};
pub use messages::{Entry, MESSAGE_OVERHEAD_MAX, MESSAGES_MAX, Messages, MessagesWriter, Record, Records};
pub use routes::{EXPANDED_BYTES_MAX, FILTERS_MAX, FilterList, Routes, encode_routes};

use crate::link::violation::Violation;

/// The version that this code speaks.
pub const VERSION: u64 = 1;
/// The features that this code has. None is defined yet.
pub const FEATURES: u64 = 0;
/// The least that everybody takes as one frame.
pub const FRAME_BYTES_MIN: usize = 128 * 1024;
/// The topic of every frame; its publisher gives it alias 1 with the first one.
pub const TOPIC: &str = "$LINK/native";

const HELLO: u8 = 0x01;
const REFUSE: u8 = 0x02;
const HALF: u8 = 0x03;
const ROUTES: u8 = 0x04;
const ROUTES_ACK: u8 = 0x05;
const MESSAGES: u8 = 0x06;
const MESSAGES_ACK: u8 = 0x07;
const PROBE: u8 = 0x08;
const PROBE_ACK: u8 = 0x09;
const BYE: u8 = 0x0a;

/// A frame, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Who speaks.
    Hello(Hello<'a>),
    /// This connection is refused.
    Refuse(Refuse<'a>),
    /// The speaker's half as it is now.
    Half(Half<'a>),
    /// Route replication.
    Routes(Routes<'a>),
    /// Its answer.
    RoutesAck(RoutesAck),
    /// Forwarded messages.
    Messages(Messages<'a>),
    /// Their acknowledgement.
    MessagesAck(MessagesAck),
    /// A question.
    Probe(Probe),
    /// Its answer.
    ProbeAck(Probe),
    /// The end.
    Bye(Bye<'a>),
}

/// Reads one frame; None when it is one that may be skipped.
///
/// # Errors
/// A [`Violation`] of the peer's; the connection cannot go on.
pub fn decode(input: &[u8]) -> Result<Option<Frame<'_>>, Violation> {
    let head = wire::Head::parse(input)?;
    Ok(Some(match head.frame {
        HELLO => Frame::Hello(Hello::decode(head)?),
        REFUSE => Frame::Refuse(Refuse::decode(head)?),
        HALF => Frame::Half(Half::decode(head)?),
        ROUTES => Frame::Routes(Routes::decode(head)?),
        ROUTES_ACK => Frame::RoutesAck(RoutesAck::decode(head)?),
        MESSAGES => Frame::Messages(Messages::decode(head)?),
        MESSAGES_ACK => Frame::MessagesAck(MessagesAck::decode(head)?),
        PROBE => Frame::Probe(Probe::decode(head)?),
        PROBE_ACK => Frame::ProbeAck(Probe::decode(head)?),
        BYE => Frame::Bye(Bye::decode(head)?),
        unknown if unknown & wire::OPTIONAL != 0 => return Ok(None),
        unknown => return Err(Violation::UnknownFrame(unknown)),
    }))
}

impl Frame<'_> {
    /// Appends a frame that has no body; those that have one are written by [`encode_routes`] and [`MessagesWriter`].
    pub fn encode_control(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Hello(hello) => hello.encode(out),
            Frame::Refuse(refuse) => refuse.encode(out),
            Frame::Half(half) => half.encode(out),
            Frame::RoutesAck(ack) => ack.encode(out),
            Frame::MessagesAck(ack) => ack.encode(out),
            Frame::Probe(probe) => probe.encode(PROBE, out),
            Frame::ProbeAck(probe) => probe.encode(PROBE_ACK, out),
            Frame::Bye(bye) => bye.encode(out),
            Frame::Routes(_) | Frame::Messages(_) => {
                debug_assert!(false, "Routes and Messages have writers of their own");
            }
        }
    }
}
