//! What a peer can do wrong: one name per malformed case, with the rule it breaks.
//!
//! Each is one line of a table: name, reason code, tag, what it is and what to do. Tags are those of MQTT 5.0; where only 3.1.1 has the rule, its tag stands, marked `v3`. A rule that the
//! specification states without a tag has none here.

use super::{PacketType, ReasonCode};
use std::fmt;

macro_rules! violations {
    ($($(#[$attribute:meta])* $name:ident $(($($detail:ty),+))? => $reason:ident, $tag:literal, $text:literal;)*) => {
        /// What the peer did wrong. The connection ends with [`reason_code`](Violation::reason_code).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Violation {
            $(#[doc = concat!($text, ". ", $tag)] $(#[$attribute])* $name $(($($detail),+))?,)*
        }

        impl Violation {
            /// The reason code to end the connection with.
            pub const fn reason_code(self) -> ReasonCode {
                match self {
                    $(Violation::$name { .. } => ReasonCode::$reason,)*
                }
            }

            /// How the violation is called in code, logs and metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Violation::$name { .. } => stringify!($name),)*
                }
            }

            /// The names of all violations.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            const fn general_tag(self) -> &'static str {
                match self {
                    $(Violation::$name { .. } => $tag,)*
                }
            }

            const fn text(self) -> &'static str {
                match self {
                    $(Violation::$name { .. } => $text,)*
                }
            }
        }
    };
}

violations! {
    // Fixed header and framing.
    ReservedPacketType => MalformedPacket, "",
        "the packet type is reserved in this version of MQTT: send one of its types";
    ReservedFlags(PacketType) => MalformedPacket, "[MQTT-2.1.3-1]",
        "the flags of the first byte are reserved: send the value of table 2-2";
    RemainingLengthTooLong => MalformedPacket, "[MQTT-1.5.5-1]",
        "the remaining length has more than four bytes";
    RemainingLengthNotMinimal => MalformedPacket, "[MQTT-1.5.5-1]",
        "the remaining length is not encoded in as few bytes as possible";
    PacketTooLarge => PacketTooLarge, "[MQTT-3.2.2-15]",
        "the packet is larger than the receiver accepts: send smaller ones";
    Truncated => MalformedPacket, "",
        "a field runs past the end of the packet";
    TrailingBytes => MalformedPacket, "",
        "bytes follow the last field of the packet";
    VarintTooLong => MalformedPacket, "[MQTT-1.5.5-1]",
        "a variable byte integer has more than four bytes";
    VarintNotMinimal => MalformedPacket, "[MQTT-1.5.5-1]",
        "a variable byte integer is not encoded in as few bytes as possible";
    StringNotUtf8 => MalformedPacket, "[MQTT-1.5.4-1]",
        "a string is not well-formed UTF-8";
    StringWithNul => MalformedPacket, "[MQTT-1.5.4-2]",
        "a string contains U+0000";
    PacketIdZero => MalformedPacket, "[MQTT-2.2.1-3]",
        "the packet identifier is 0: use 1 to 65,535";
    ReasonCodeInvalid(PacketType, u8) => MalformedPacket, "",
        "the reason code is not one that this packet may carry";

    // Properties.
    PropertyLengthMissing => MalformedPacket, "[MQTT-2.2.2-1]",
        "the packet ends before its property length: send a zero if there are no properties";
    PropertyLengthTooLong => MalformedPacket, "",
        "the property length runs past the end of the packet";
    PropertyTruncated => MalformedPacket, "",
        "a property runs past the property length";
    PropertyUnknown(u8) => MalformedPacket, "",
        "there is no property with this identifier";
    PropertyNotAllowed(u8) => MalformedPacket, "",
        "the property is not allowed in this packet";
    PropertyDuplicate(u8) => ProtocolError, "",
        "the property is included more than once";
    PropertyValueInvalid(u8) => ProtocolError, "",
        "the value of the property is not one that it may have";
    TopicAliasZero => TopicAliasInvalid, "[MQTT-3.3.2-8]",
        "the topic alias is 0: use 1 up to the receiver's maximum";
    SubscriptionIdZero => ProtocolError, "",
        "the subscription identifier is 0: use 1 to 268,435,455";
    ReceiveMaximumZero => ProtocolError, "",
        "the receive maximum is 0: use 1 to 65,535";
    MaximumPacketSizeZero => ProtocolError, "",
        "the maximum packet size is 0: leave it out for no limit";
    ResponseTopicWildcard => MalformedPacket, "[MQTT-3.3.2-14]",
        "the response topic contains a wildcard";
    AuthenticationDataWithoutMethod => ProtocolError, "",
        "there is authentication data without an authentication method";
    AuthenticationMethodMissing => ProtocolError, "",
        "an AUTH packet names no authentication method";

    // CONNECT and CONNACK.
    ProtocolNameInvalid => UnsupportedProtocolVersion, "[MQTT-3.1.2-1]",
        "the protocol name is not MQTT: this is not a client of MQTT 3.1, 3.1.1 or 5.0";
    UnsupportedProtocolVersion(u8) => UnsupportedProtocolVersion, "[MQTT-3.1.2-2]",
        "the protocol version is not served: use MQTT 3.1.1 (4) or 5.0 (5)";
    ConnectReservedFlag => MalformedPacket, "[MQTT-3.1.2-3]",
        "the reserved flag of CONNECT is set";
    WillQoSWithoutWill => MalformedPacket, "[MQTT-3.1.2-11]",
        "Will QoS is set without the Will flag";
    WillRetainWithoutWill => MalformedPacket, "[MQTT-3.1.2-13]",
        "Will Retain is set without the Will flag";
    WillQoS3 => MalformedPacket, "[MQTT-3.1.2-12]",
        "the QoS of the Will is 3";
    WillTopicEmpty => MalformedPacket, "[MQTT-4.7.3-1]",
        "the topic of the Will is empty";
    PasswordWithoutUsername => MalformedPacket, "[MQTT-3.1.2-22] v3",
        "there is a password without a user name, which only MQTT 5.0 allows";
    ClientIdEmpty => ClientIdentifierNotValid, "[MQTT-3.1.3-8] v3",
        "the client identifier is empty and the session is not clean, or this is MQTT 3.1: give an identifier or set Clean Session";
    ConnAckReservedFlags => MalformedPacket, "[MQTT-3.2.2-1]",
        "the reserved acknowledge flags of CONNACK are set";
    SessionPresentOnError => ProtocolError, "[MQTT-3.2.2-6]",
        "a CONNACK that refuses the connection says that a session is present";

    // PUBLISH.
    QoS3 => MalformedPacket, "[MQTT-3.3.1-4]",
        "the QoS is 3";
    DupWithQoS0 => MalformedPacket, "[MQTT-3.3.1-2]",
        "the DUP flag is set at QoS 0";
    EmptyTopicName => ProtocolError, "[MQTT-4.7.3-1]",
        "the topic is empty and there is no topic alias";
    TopicNameTooLong => MalformedPacket, "[MQTT-4.7.3-3]",
        "the topic has more than 65,535 bytes";
    WildcardInTopicName => MalformedPacket, "[MQTT-3.3.2-2]",
        "the topic contains a wildcard: publish to a topic without + and #";

    // SUBSCRIBE and UNSUBSCRIBE.
    SubscribeEmpty => ProtocolError, "[MQTT-3.8.3-2]",
        "a SUBSCRIBE names no topic filter";
    UnsubscribeEmpty => ProtocolError, "[MQTT-3.10.3-2]",
        "an UNSUBSCRIBE names no topic filter";
    SubscribeReservedOptions => MalformedPacket, "[MQTT-3.8.3-5]",
        "reserved bits of the subscription options are set";
    SubscribeQoS3 => ProtocolError, "",
        "the maximum QoS of the subscription is 3";
    RetainHandling3 => ProtocolError, "",
        "the retain handling of the subscription is 3";
    NoLocalShared => ProtocolError, "[MQTT-3.8.3-4]",
        "No Local is set on a shared subscription";
    FilterEmpty => MalformedPacket, "[MQTT-4.7.3-1]",
        "a topic filter is empty";
    FilterTooLong => MalformedPacket, "[MQTT-4.7.3-3]",
        "a topic filter has more than 65,535 bytes";
    FilterHashMisplaced => MalformedPacket, "[MQTT-4.7.1-1]",
        "a # in a topic filter is not a level of its own at the end";
    FilterPlusMisplaced => MalformedPacket, "[MQTT-4.7.1-2]",
        "a + in a topic filter is not a level of its own";
    SubAckEmpty => ProtocolError, "",
        "the packet carries no reason code";

    // What one packet alone cannot show: raised by the session.
    FirstPacketNotConnect => ProtocolError, "[MQTT-3.1.0-1]",
        "the first packet is not CONNECT";
    SecondConnect => ProtocolError, "[MQTT-3.1.0-2]",
        "there is a second CONNECT on this connection";
    UnexpectedPacket => ProtocolError, "",
        "this side may not send this packet, or not now";
    TopicAliasTooLarge => TopicAliasInvalid, "[MQTT-3.3.2-9]",
        "the topic alias is larger than the receiver's maximum";
    TopicAliasUnknown => ProtocolError, "",
        "the topic alias has not been set on this connection";
    ReceiveMaximumExceeded => ReceiveMaximumExceeded, "[MQTT-3.3.4-7]",
        "more QoS 1 and 2 messages are unacknowledged than the receive maximum";
    SubscriptionIdFromClient => ProtocolError, "[MQTT-3.3.4-6]",
        "a client publishes with a subscription identifier";
    SessionExpiryRaised => ProtocolError, "",
        "the session expiry interval was 0 at CONNECT and is raised at DISCONNECT";
}

impl Violation {
    /// The tag of the specification's statement, or nothing where the rule has no tag.
    pub const fn tag(self) -> &'static str {
        match self {
            Violation::ReservedFlags(PacketType::PubRel) => "[MQTT-3.6.1-1]",
            Violation::ReservedFlags(PacketType::Subscribe) => "[MQTT-3.8.1-1]",
            Violation::ReservedFlags(PacketType::Unsubscribe) => "[MQTT-3.10.1-1]",
            Violation::ReservedFlags(PacketType::Disconnect) => "[MQTT-3.14.1-1]",
            Violation::ReservedFlags(PacketType::Auth) => "[MQTT-3.15.1-1]",
            Violation::ReasonCodeInvalid(packet, _) => reason_code_tag(packet),
            _ => self.general_tag(),
        }
    }
}

const fn reason_code_tag(packet: PacketType) -> &'static str {
    match packet {
        PacketType::ConnAck => "[MQTT-3.2.2-8]",
        PacketType::PubAck => "[MQTT-3.4.2-1]",
        PacketType::PubRec => "[MQTT-3.5.2-1]",
        PacketType::PubRel => "[MQTT-3.6.2-1]",
        PacketType::PubComp => "[MQTT-3.7.2-1]",
        PacketType::SubAck => "[MQTT-3.9.3-2]",
        PacketType::UnsubAck => "[MQTT-3.11.3-2]",
        PacketType::Disconnect => "[MQTT-3.14.2-1]",
        PacketType::Auth => "[MQTT-3.15.2-1]",
        _ => "",
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        match *self {
            Violation::ReasonCodeInvalid(packet, code) => write!(f, " (0x{code:02x} in {packet:?})")?,
            Violation::ReservedFlags(packet) => write!(f, " ({packet:?})")?,
            Violation::UnsupportedProtocolVersion(level) => write!(f, " (it names {level})")?,
            Violation::PropertyUnknown(id)
            | Violation::PropertyNotAllowed(id)
            | Violation::PropertyDuplicate(id)
            | Violation::PropertyValueInvalid(id) => {
                let name = super::property::name_of(id).unwrap_or("unknown");
                write!(f, " (0x{id:02x}, {name})")?;
            }
            _ => {}
        }
        match self.tag() {
            "" => Ok(()),
            tag => write!(f, " {tag}"),
        }
    }
}

impl std::error::Error for Violation {}
