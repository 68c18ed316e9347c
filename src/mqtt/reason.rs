//! Reason codes: one list for all packets, and which packet may carry which.

use super::PacketType;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal in $($packet:ident)|+;)*) => {
        /// Why something was done or refused; MQTT 5, table 2-6. 3.1.1's CONNACK codes are mapped to these.
        #[repr(u8)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ReasonCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl ReasonCode {
            /// Every reason code, ascending.
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode::$name),*];

            /// The reason code of a byte, if MQTT 5 names one.
            pub const fn from_u8(code: u8) -> Option<ReasonCode> {
                match code {
                    $($code => Some(ReasonCode::$name),)*
                    _ => None,
                }
            }

            /// Tells whether MQTT 5 lets a packet of this type carry the code.
            pub const fn is_allowed_in(self, packet: PacketType) -> bool {
                match self {
                    $(ReasonCode::$name => matches!(packet, $(PacketType::$packet)|+),)*
                }
            }
        }
    };
}

reason_codes! {
    /// Done; in SUBACK: granted QoS 0; in DISCONNECT: normal disconnection.
    Success = 0x00 in ConnAck | PubAck | PubRec | PubRel | PubComp | SubAck | UnsubAck | Disconnect | Auth;
    /// QoS 1 is granted.
    GrantedQoS1 = 0x01 in SubAck;
    /// QoS 2 is granted.
    GrantedQoS2 = 0x02 in SubAck;
    /// The client leaves and wants its Will published.
    DisconnectWithWill = 0x04 in Disconnect;
    /// Accepted, but nobody subscribes to it.
    NoMatchingSubscribers = 0x10 in PubAck | PubRec;
    /// There was no such subscription.
    NoSubscriptionExisted = 0x11 in UnsubAck;
    /// Authentication takes another step.
    ContinueAuthentication = 0x18 in Auth;
    /// The client starts authenticating anew.
    ReAuthenticate = 0x19 in Auth;
    /// Refused for a reason that is not told.
    UnspecifiedError = 0x80 in ConnAck | PubAck | PubRec | SubAck | UnsubAck | Disconnect;
    /// The bytes are not a packet of MQTT.
    MalformedPacket = 0x81 in ConnAck | Disconnect;
    /// A packet that is well-formed and not allowed here.
    ProtocolError = 0x82 in ConnAck | Disconnect;
    /// Allowed by MQTT, refused by this implementation.
    ImplementationSpecificError = 0x83 in ConnAck | PubAck | PubRec | SubAck | UnsubAck | Disconnect;
    /// The version of MQTT is not served.
    UnsupportedProtocolVersion = 0x84 in ConnAck;
    /// The client identifier is not accepted.
    ClientIdentifierNotValid = 0x85 in ConnAck;
    /// User name or password are wrong.
    BadUserNameOrPassword = 0x86 in ConnAck;
    /// The client may not do this.
    NotAuthorized = 0x87 in ConnAck | PubAck | PubRec | SubAck | UnsubAck | Disconnect;
    /// The server is not available.
    ServerUnavailable = 0x88 in ConnAck;
    /// The server is busy; try again later.
    ServerBusy = 0x89 in ConnAck | Disconnect;
    /// The client is banned.
    Banned = 0x8A in ConnAck;
    /// The server is shutting down.
    ServerShuttingDown = 0x8B in Disconnect;
    /// The authentication method is not supported or not the one in use.
    BadAuthenticationMethod = 0x8C in ConnAck | Disconnect;
    /// Nothing came for one and a half times the keep alive.
    KeepAliveTimeout = 0x8D in Disconnect;
    /// Another connection took the session over.
    SessionTakenOver = 0x8E in Disconnect;
    /// The filter is well-formed but not accepted.
    TopicFilterInvalid = 0x8F in SubAck | UnsubAck | Disconnect;
    /// The topic is well-formed but not accepted.
    TopicNameInvalid = 0x90 in ConnAck | PubAck | PubRec | Disconnect;
    /// The packet identifier is in use.
    PacketIdentifierInUse = 0x91 in PubAck | PubRec | SubAck | UnsubAck;
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92 in PubRel | PubComp;
    /// More unacknowledged messages than Receive Maximum.
    ReceiveMaximumExceeded = 0x93 in Disconnect;
    /// The topic alias is zero, too large or not set.
    TopicAliasInvalid = 0x94 in Disconnect;
    /// The packet is larger than the receiver accepts.
    PacketTooLarge = 0x95 in ConnAck | Disconnect;
    /// The rate of messages is too high.
    MessageRateTooHigh = 0x96 in Disconnect;
    /// A limit of the implementation or of its operator is reached.
    QuotaExceeded = 0x97 in ConnAck | PubAck | PubRec | SubAck | Disconnect;
    /// The connection is closed by an operator.
    AdministrativeAction = 0x98 in Disconnect;
    /// The payload is not of the announced format.
    PayloadFormatInvalid = 0x99 in ConnAck | PubAck | PubRec | Disconnect;
    /// Retained messages are not supported.
    RetainNotSupported = 0x9A in ConnAck | Disconnect;
    /// The QoS is not supported.
    QoSNotSupported = 0x9B in ConnAck | Disconnect;
    /// Use another server for now.
    UseAnotherServer = 0x9C in ConnAck | Disconnect;
    /// Use another server from now on.
    ServerMoved = 0x9D in ConnAck | Disconnect;
    /// Shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9E in SubAck | Disconnect;
    /// Too many connections in this time.
    ConnectionRateExceeded = 0x9F in ConnAck | Disconnect;
    /// The connection has lasted as long as it may.
    MaximumConnectTime = 0xA0 in Disconnect;
    /// Subscription identifiers are not supported.
    SubscriptionIdentifiersNotSupported = 0xA1 in SubAck | Disconnect;
    /// Wildcard subscriptions are not supported.
    WildcardSubscriptionsNotSupported = 0xA2 in SubAck | Disconnect;
}

impl ReasonCode {
    /// Tells whether something was refused.
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The CONNACK return code of 3.1.1, if it has one for this; close without a CONNACK otherwise. [MQTT-3.2.2-6]
    // [MQTT-3.1.3-9] v3
    pub const fn connack_v3(self) -> Option<u8> {
        match self {
            ReasonCode::Success => Some(0),
            ReasonCode::UnsupportedProtocolVersion => Some(1),
            ReasonCode::ClientIdentifierNotValid => Some(2),
            ReasonCode::ServerUnavailable | ReasonCode::ServerBusy => Some(3),
            ReasonCode::UseAnotherServer | ReasonCode::ServerMoved => Some(3),
            ReasonCode::QuotaExceeded | ReasonCode::ConnectionRateExceeded => Some(3),
            ReasonCode::BadUserNameOrPassword => Some(4),
            ReasonCode::NotAuthorized | ReasonCode::Banned | ReasonCode::BadAuthenticationMethod => Some(5),
            _ => None,
        }
    }

    /// The meaning of a 3.1.1 CONNACK return code.
    pub const fn from_connack_v3(code: u8) -> Option<ReasonCode> {
        Some(match code {
            0 => ReasonCode::Success,
            1 => ReasonCode::UnsupportedProtocolVersion,
            2 => ReasonCode::ClientIdentifierNotValid,
            3 => ReasonCode::ServerUnavailable,
            4 => ReasonCode::BadUserNameOrPassword,
            5 => ReasonCode::NotAuthorized,
            _ => return None,
        })
    }
}
