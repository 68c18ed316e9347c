//! MQTT 3.1, 3.1.1 and 5.0 on the wire, and topic filters.
//!
//! Owns: packets and their bytes, what is malformed and why ([`Violation`]), frames that are encoded once and sent
//! often ([`Frame`]), the algebra of topic filters ([`Filter`]), and the [`Message`] that travels between sessions.
//! Knows nothing of sockets, time, sessions or brokers: what only a session can judge (a second CONNECT, an unknown
//! topic alias) is named in [`Violation`] but raised above.
//!
//! Invariants: [`decode`] allocates nothing and borrows everything from its input; what it returns has been checked
//! down to the last property, so reading it cannot fail; no length from the wire is believed before it is compared
//! with what is there; whatever `decode` returns, `encode` turns into bytes that decode to the same again.

mod text;
mod reason;
mod violation;
mod wire;
mod property;
mod packet;
mod filters;
mod decode;
mod encode;
mod frame;
mod filter;
mod message;
#[cfg(test)]
mod tests;

pub use decode::{
    PLAIN_ACK_BYTES, PlainPublish, connack_version, decode, decode_after, plain_puback, plain_publish,
};
pub use encode::{encode_publish, plain_ack};
pub use filter::{Filter, FilterError, SharedFilter, filter_matches, parse_subscription, union};
pub use filters::{
    RetainHandling, SubscribeFilters, SubscribeFiltersBuf, SubscribeOptions, UnsubscribeFilters,
    UnsubscribeFiltersBuf,
};
pub use frame::{ALIAS_BYTES_MAX, Blocks, Frame, TopicAlias, topic_of};
pub use message::Message;
pub use packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, PacketType, Publish, QoS, SubAck, Subscribe,
    Unsubscribe, Version, Will,
};
pub use property::{Properties, PropertiesBuf, Property};
pub use reason::ReasonCode;
pub use text::check_topic_name;
pub use violation::Violation;

/// What a receiver accepts at most; compared with the announced length before anything is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest packet, fixed header included, in bytes (MQTT 5's Maximum Packet Size).
    pub packet_bytes_max: usize,
    /// Lets PUBREL, SUBSCRIBE and UNSUBSCRIBE come with the DUP flag: MQTT 3.1 sends them so again.
    pub dup_requests: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { packet_bytes_max: PACKET_BYTES_MAX, dup_requests: false }
    }
}

/// The largest packet that MQTT can express: one byte of type, four of length, 268,435,455 of body.
pub const PACKET_BYTES_MAX: usize = 1 + 4 + wire::VARINT_MAX as usize;
