//! MQTT 5's properties: one table says what each is called, holds and may stand in.
//!
//! A [`Properties`] is a list that has been checked against that table, so reading it cannot fail; [`PropertiesBuf`]
//! is one being built.

use super::text::check_topic_bytes;
use super::wire::{Reader, write_data, write_varint};
use super::{PacketType, Violation};
use std::fmt;

/// Where a property list stands: in a packet, or in the Will of a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u16);

impl Place {
    pub(super) const WILL: Place = Place(1);

    pub(super) const fn of(packet: PacketType) -> Place {
        Place(1 << packet as u8)
    }

    const fn or(self, other: Place) -> Place {
        Place(self.0 | other.0)
    }

    const fn contains(self, other: Place) -> bool {
        self.0 & other.0 != 0
    }
}

const CONNECT: Place = Place::of(PacketType::Connect);
const CONNACK: Place = Place::of(PacketType::ConnAck);
const PUBLISH: Place = Place::of(PacketType::Publish);
const SUBSCRIBE: Place = Place::of(PacketType::Subscribe);
const UNSUBSCRIBE: Place = Place::of(PacketType::Unsubscribe);
const DISCONNECT: Place = Place::of(PacketType::Disconnect);
const AUTH: Place = Place::of(PacketType::Auth);
const WILL: Place = Place::WILL;
const MESSAGE: Place = PUBLISH.or(WILL);
const ACKS: Place = Place::of(PacketType::PubAck)
    .or(Place::of(PacketType::PubRec))
    .or(Place::of(PacketType::PubRel))
    .or(Place::of(PacketType::PubComp))
    .or(Place::of(PacketType::SubAck))
    .or(Place::of(PacketType::UnsubAck));
const ANY: Place =
    CONNECT.or(CONNACK).or(MESSAGE).or(ACKS).or(SUBSCRIBE).or(UNSUBSCRIBE).or(DISCONNECT).or(AUTH);

macro_rules! value {
    (byte $l:lifetime) => { u8 };
    (u16 $l:lifetime) => { u16 };
    (u32 $l:lifetime) => { u32 };
    (varint $l:lifetime) => { u32 };
    (text $l:lifetime) => { &$l str };
    (topic $l:lifetime) => { &$l str };
    (data $l:lifetime) => { &$l [u8] };
    (pair $l:lifetime) => { (&$l str, &$l str) };
}

macro_rules! read {
    (topic $reader:ident) => {
        read_topic($reader)
    };
    ($kind:ident $reader:ident) => {
        $reader.$kind()
    };
}

macro_rules! check {
    // [MQTT-3.3.2-19]
    (text $name:ident $reader:ident) => { $reader.skip_text() };
    // [MQTT-1.5.7-1]
    (pair $name:ident $reader:ident) => { $reader.skip_text().and_then(|()| $reader.skip_text()) };
    ($kind:ident $name:ident $reader:ident) => { Property::$name(read!($kind $reader)?).check_value() };
}

macro_rules! write {
    (byte $out:ident $value:ident) => {
        $out.push($value)
    };
    (u16 $out:ident $value:ident) => {
        $out.extend_from_slice(&$value.to_be_bytes())
    };
    (u32 $out:ident $value:ident) => {
        $out.extend_from_slice(&$value.to_be_bytes())
    };
    (varint $out:ident $value:ident) => {
        write_varint($out, $value)
    };
    (text $out:ident $value:ident) => {
        write_data($out, $value.as_bytes())
    };
    (topic $out:ident $value:ident) => {
        write_data($out, $value.as_bytes())
    };
    (data $out:ident $value:ident) => {
        write_data($out, $value)
    };
    (pair $out:ident $value:ident) => {{
        write_data($out, $value.0.as_bytes());
        write_data($out, $value.1.as_bytes());
    }};
}

macro_rules! properties {
    ($($id:literal $name:ident $getter:ident $kind:ident in $place:expr, $what:literal;)*) => {
        /// A property of a packet (MQTT 5, table 2-4).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Property<'a> {
            $(#[doc = $what] $name(value!($kind 'a)),)*
        }

        impl<'a> Property<'a> {
            /// The identifier on the wire.
            pub const fn id(&self) -> u8 {
                match self {
                    $(Property::$name(_) => $id,)*
                }
            }

            fn read(reader: &mut Reader<'a>) -> Result<Property<'a>, Violation> {
                let id = reader.byte()?;
                Ok(match id {
                    $($id => Property::$name(read!($kind reader)?),)*
                    _ => return Err(Violation::PropertyUnknown(id)),
                })
            }

            /// Checks the value of a property and goes past it.
            #[inline]
            fn check(id: u8, reader: &mut Reader<'a>) -> Result<(), Violation> {
                match id {
                    $($id => check!($kind $name reader),)*
                    _ => Err(Violation::PropertyUnknown(id)),
                }
            }

            fn write(self, out: &mut Vec<u8>) {
                out.push(self.id());
                match self {
                    $(Property::$name(value) => write!($kind out value),)*
                }
            }

            const fn places(id: u8) -> Place {
                match id {
                    $($id => $place,)*
                    _ => Place(0),
                }
            }
        }

        impl<'a> Properties<'a> {
            $(
                #[doc = $what]
                #[doc = "Nothing if it is not there; the first if there are several."]
                pub fn $getter(&self) -> Option<value!($kind 'a)> {
                    self.iter().find_map(|property| match property {
                        Property::$name(value) => Some(value),
                        _ => None,
                    })
                }
            )*
        }

        /// The name of a property.
        pub(super) fn name_of(id: u8) -> Option<&'static str> {
            match id {
                $($id => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

properties! {
    0x01 PayloadFormatIndicator payload_format_indicator byte in MESSAGE, "1 if the payload is UTF-8 text.";
    0x02 MessageExpiryInterval message_expiry_interval u32 in MESSAGE, "How long the message is of use, in seconds.";
    0x03 ContentType content_type text in MESSAGE, "What the payload is.";
    0x08 ResponseTopic response_topic topic in MESSAGE, "Where to send an answer.";
    0x09 CorrelationData correlation_data data in MESSAGE, "What the answer is to carry.";
    0x0b SubscriptionIdentifier subscription_identifier varint in PUBLISH.or(SUBSCRIBE), "Which subscription this is, or is for.";
    0x11 SessionExpiryInterval session_expiry_interval u32 in CONNECT.or(CONNACK).or(DISCONNECT), "How long the session outlives its connection, in seconds.";
    0x12 AssignedClientIdentifier assigned_client_identifier text in CONNACK, "The client identifier that the server gave.";
    0x13 ServerKeepAlive server_keep_alive u16 in CONNACK, "The keep alive that the server wants, in seconds.";
    0x15 AuthenticationMethod authentication_method text in CONNECT.or(CONNACK).or(AUTH), "How the authentication goes.";
    0x16 AuthenticationData authentication_data data in CONNECT.or(CONNACK).or(AUTH), "What the authentication method needs.";
    0x17 RequestProblemInformation request_problem_information byte in CONNECT, "0 if the client wants no reason strings.";
    0x18 WillDelayInterval will_delay_interval u32 in WILL, "How long the Will waits, in seconds.";
    0x19 RequestResponseInformation request_response_information byte in CONNECT, "1 if the client asks for response information.";
    0x1a ResponseInformation response_information text in CONNACK, "The basis for response topics.";
    0x1c ServerReference server_reference text in CONNACK.or(DISCONNECT), "Another server to use.";
    0x1f ReasonString reason_string text in CONNACK.or(ACKS).or(DISCONNECT).or(AUTH), "What happened, for people.";
    0x21 ReceiveMaximum receive_maximum u16 in CONNECT.or(CONNACK), "How many QoS 1 and 2 messages may be unacknowledged.";
    0x22 TopicAliasMaximum topic_alias_maximum u16 in CONNECT.or(CONNACK), "The largest topic alias that is accepted.";
    0x23 TopicAlias topic_alias u16 in PUBLISH, "A number for the topic.";
    0x24 MaximumQoS maximum_qos byte in CONNACK, "The highest QoS that the server takes, 0 or 1.";
    0x25 RetainAvailable retain_available byte in CONNACK, "0 if the server retains nothing.";
    0x26 UserProperty user_property pair in ANY, "A name and a value of the user's.";
    0x27 MaximumPacketSize maximum_packet_size u32 in CONNECT.or(CONNACK), "The largest packet that is accepted, in bytes.";
    0x28 WildcardSubscriptionAvailable wildcard_subscription_available byte in CONNACK, "0 if the server takes no wildcards.";
    0x29 SubscriptionIdentifierAvailable subscription_identifier_available byte in CONNACK, "0 if the server takes no subscription identifiers.";
    0x2a SharedSubscriptionAvailable shared_subscription_available byte in CONNACK, "0 if the server has no shared subscriptions.";
}

/// [MQTT-3.3.2-14]
// [MQTT-3.3.2-13]
fn read_topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Violation> {
    match check_topic_bytes(reader.data()?) {
        Ok("") => Err(Violation::PropertyValueInvalid(0x08)), // [MQTT-4.7.3-1]
        Err(Violation::WildcardInTopicName) => Err(Violation::ResponseTopicWildcard),
        other => other,
    }
}

impl Property<'_> {
    /// Checks what the type of the value leaves open.
    fn check_value(&self) -> Result<(), Violation> {
        match *self {
            Property::PayloadFormatIndicator(value)
            | Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::MaximumQoS(value)
            | Property::RetainAvailable(value)
            | Property::WildcardSubscriptionAvailable(value)
            | Property::SubscriptionIdentifierAvailable(value)
            | Property::SharedSubscriptionAvailable(value)
                if value > 1 =>
            {
                Err(Violation::PropertyValueInvalid(self.id()))
            }
            Property::TopicAlias(0) => Err(Violation::TopicAliasZero), // [MQTT-3.3.2-8]
            Property::SubscriptionIdentifier(0) => Err(Violation::SubscriptionIdZero),
            Property::ReceiveMaximum(0) => Err(Violation::ReceiveMaximumZero),
            Property::MaximumPacketSize(0) => Err(Violation::MaximumPacketSizeZero),
            _ => Ok(()),
        }
    }

    /// Tells whether a broker passes the property on unaltered with the message.
    /// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20]
    fn is_forwardable(&self) -> bool {
        matches!(
            self,
            Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(_)
        )
    }
}

/// A valid property list: the wire bytes without their length. Empty in 3.1.1.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a> {
    bytes: &'a [u8],
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties { bytes: &[] };

    /// Reads and checks a property list with its length.
    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>, place: Place) -> Result<Properties<'a>, Violation> {
        if reader.is_empty() {
            return Err(Violation::PropertyLengthMissing);
        }
        let len = reader.varint()?;
        if len == 0 {
            return Ok(Properties::EMPTY);
        }
        let bytes = reader.take(len as usize).map_err(|_| Violation::PropertyLengthTooLong)?;
        check(bytes, place)?;
        Ok(Properties { bytes })
    }

    /// Checks a list, without its length, that travels with a message off its packet: forwardable ones only.
    ///
    /// # Errors
    /// What is wrong with it; [`Violation::PropertyNotAllowed`] for one that is not forwardable.
    pub fn parse_forwardable(bytes: &'a [u8]) -> Result<Properties<'a>, Violation> {
        check(bytes, PUBLISH)?;
        let list = Properties { bytes };
        match list.iter().find(|property| !property.is_forwardable()) {
            Some(other) => Err(Violation::PropertyNotAllowed(other.id())),
            None => Ok(list),
        }
    }

    /// Checks a list, without its length, that a PUBLISH to a client may carry.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn parse_publish(bytes: &'a [u8]) -> Result<Properties<'a>, Violation> {
        if !bytes.is_empty() {
            check(bytes, PUBLISH)?;
        }
        Ok(Properties { bytes })
    }

    /// Tells whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes as on the wire, without their length.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The properties in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            (!reader.is_empty())
                .then(|| Property::read(&mut reader).expect("a property list is checked when made"))
        })
    }

    /// All subscription identifiers, in order.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }

    /// All user properties, in order.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(pair) => Some(pair),
            _ => None,
        })
    }

    /// What travels with the message to every recipient: no topic alias, no subscription identifiers, no expiry.
    pub fn forwardable(&self) -> PropertiesBuf {
        // [MQTT-3.3.2-18]
        self.iter().filter(Property::is_forwardable).collect()
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Tells whether a property may stand there.
pub(super) const fn is_allowed(id: u8, place: Place) -> bool {
    Property::places(id).contains(place)
}

/// Tells whether a property may stand there several times: subscription identifiers do, one per matching subscription.
pub(super) const fn may_repeat(id: u8, place: Place) -> bool {
    const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
    const USER_PROPERTY: u8 = 0x26;
    id == USER_PROPERTY || (id == SUBSCRIPTION_IDENTIFIER && PUBLISH.contains(place))
}

/// Checks a property list without its length.
fn check(bytes: &[u8], place: Place) -> Result<(), Violation> {
    let mut reader = Reader::new(bytes);
    let mut seen = 0u64;
    while !reader.is_empty() {
        let id = reader.byte()?;
        Property::check(id, &mut reader).map_err(|violation| match violation {
            Violation::Truncated => Violation::PropertyTruncated,
            other => other,
        })?;
        if !is_allowed(id, place) {
            return Err(Violation::PropertyNotAllowed(id));
        }
        if seen & (1 << id) != 0 && !may_repeat(id, place) {
            return Err(Violation::PropertyDuplicate(id));
        }
        seen |= 1 << id;
    }
    const METHOD: u64 = 1 << 0x15;
    const DATA: u64 = 1 << 0x16;
    if seen & (METHOD | DATA) == DATA {
        return Err(Violation::AuthenticationDataWithoutMethod);
    }
    Ok(())
}

/// A property list being built.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PropertiesBuf {
    bytes: Vec<u8>,
}

impl PropertiesBuf {
    /// No properties.
    pub const fn new() -> PropertiesBuf {
        PropertiesBuf { bytes: Vec::new() }
    }

    /// Appends a property. It is the caller's to push only what the packet allows, each once unless it may repeat.
    ///
    /// # Panics
    /// If a string or binary value has more than 65,535 bytes.
    pub fn push(&mut self, property: Property<'_>) {
        property.write(&mut self.bytes);
    }

    /// Appends a whole list.
    pub fn extend_from(&mut self, properties: Properties<'_>) {
        self.bytes.extend_from_slice(properties.bytes);
    }

    /// The list for a packet.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties { bytes: &self.bytes }
    }

    /// Tells whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets the properties and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

impl<'a> FromIterator<Property<'a>> for PropertiesBuf {
    fn from_iter<I: IntoIterator<Item = Property<'a>>>(properties: I) -> PropertiesBuf {
        let mut list = PropertiesBuf::new();
        for property in properties {
            list.push(property);
        }
        list
    }
}

impl fmt::Debug for PropertiesBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_properties().fmt(f)
    }
}
