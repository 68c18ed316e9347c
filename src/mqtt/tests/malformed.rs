//! The table of malformed packets: each is refused, for its own reason.
//!
//! A case is one line: what is wrong, the version, the bytes, the violation. Bytes are put together by verbs that
//! write what they are told to, right or wrong. `differential` asks two other codecs about the same table.

mod properties;

use self::properties::{properties, values};
use super::super::Version::{V3, V5};
use super::super::Violation as Bad;
use super::super::*;
use std::collections::BTreeSet;

/// A malformed packet.
pub(super) struct Case {
    pub(super) what: &'static str,
    pub(super) version: Version,
    pub(super) bytes: Vec<u8>,
    pub(super) violation: Violation,
}

fn case(what: &'static str, version: Version, bytes: impl Into<Vec<u8>>, violation: Violation) -> Case {
    Case { what, version, bytes: bytes.into(), violation }
}

/// A packet: its first byte, its length, its body.
fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    assert!(body.len() < 128, "one byte of length is enough for these");
    [&[first, body.len() as u8], &*body].concat()
}

/// A string or binary data with its length.
fn data(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// A property list with its length.
fn list(properties: &[&[u8]]) -> Vec<u8> {
    let properties = properties.concat();
    [&[properties.len() as u8], &*properties].concat()
}

/// A PUBLISH of QoS 0 to topic `t`, with these properties.
fn publish_with(properties: &[&[u8]]) -> Vec<u8> {
    packet(0x30, &[&data("t"), &list(properties), b"payload"])
}

/// A PUBLISH of QoS 0 to this topic.
fn publish_to(topic: impl AsRef<[u8]>) -> Vec<u8> {
    packet(0x30, &[&data(topic), &[0], b"payload"])
}

/// A CONNECT of 5.0 with these flags, these properties and what follows them.
fn connect(flags: u8, properties: &[&[u8]], payload: &[&[u8]]) -> Vec<u8> {
    packet(0x10, &[&data("MQTT"), &[5, flags, 0, 60], &list(properties), &payload.concat()])
}

/// A CONNECT of 3.1.1 with these flags and what follows.
fn connect_v3(flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    packet(0x10, &[&data("MQTT"), &[4, flags, 0, 60], &payload.concat()])
}

/// A CONNECT of 5.0 that is in order but for its properties.
fn connect_with(properties: &[&[u8]]) -> Vec<u8> {
    connect(0x02, properties, &[&data("c")])
}

/// A CONNECT of 5.0 with a Will that has these properties and this topic.
fn connect_with_will(properties: &[&[u8]], topic: &str) -> Vec<u8> {
    connect(0x06, &[], &[&data("c"), &list(properties), &data(topic), &data("bye")])
}

/// A SUBSCRIBE of 5.0 for this filter, with these options.
fn subscribe(filter: impl AsRef<[u8]>, options: u8) -> Vec<u8> {
    packet(0x82, &[&[0, 1, 0], &data(filter), &[options]])
}

/// An UNSUBSCRIBE of 5.0 for this filter.
fn unsubscribe(filter: impl AsRef<[u8]>) -> Vec<u8> {
    packet(0xa2, &[&[0, 1, 0], &data(filter)])
}

/// A CONNACK of 5.0 that is in order but for its properties.
fn connack_with(properties: &[&[u8]]) -> Vec<u8> {
    packet(0x20, &[&[0, 0], &list(properties)])
}

/// The whole table.
pub(super) fn cases() -> Vec<Case> {
    [framing(), strings(), properties(), values(), connecting(), publishing(), subscribing(), answering()]
        .into_iter()
        .flatten()
        .collect()
}

// [MQTT-2.1.3-1] [MQTT-1.5.5-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1] [MQTT-3.6.1-1]
// [MQTT-2.2.2-2] v3
fn framing() -> Vec<Case> {
    use PacketType::*;
    vec![
        case("type 0", V5, [0x00, 0], Bad::ReservedPacketType),
        case("type 15 in 3.1.1", V3, [0xf0, 0], Bad::ReservedPacketType),
        case(
            "CONNECT with flags",
            V5,
            packet(0x11, &[&data("MQTT"), &[5, 2, 0, 60, 0], &data("a")]),
            Bad::ReservedFlags(Connect),
        ),
        case("CONNACK with flags", V5, [0x21, 0], Bad::ReservedFlags(ConnAck)),
        case("PUBACK with flags", V5, packet(0x42, &[&[0, 1]]), Bad::ReservedFlags(PubAck)),
        case("PUBREC with flags", V5, packet(0x52, &[&[0, 1]]), Bad::ReservedFlags(PubRec)),
        case("PUBREL without its flags", V5, packet(0x60, &[&[0, 1]]), Bad::ReservedFlags(PubRel)),
        case("PUBREL with QoS 2's flags", V3, packet(0x64, &[&[0, 1]]), Bad::ReservedFlags(PubRel)),
        case("PUBCOMP with flags", V5, packet(0x72, &[&[0, 1]]), Bad::ReservedFlags(PubComp)),
        case("SUBSCRIBE without its flags", V5, [0x80, 0], Bad::ReservedFlags(Subscribe)),
        case("SUBACK with flags", V5, packet(0x92, &[&[0, 1, 0, 0]]), Bad::ReservedFlags(SubAck)),
        case("UNSUBSCRIBE without its flags", V5, [0xa0, 0], Bad::ReservedFlags(Unsubscribe)),
        case("UNSUBACK with flags", V5, packet(0xb2, &[&[0, 1, 0, 0]]), Bad::ReservedFlags(UnsubAck)),
        case("PINGREQ with flags", V5, [0xc1, 0], Bad::ReservedFlags(PingReq)),
        case("PINGRESP with flags", V5, [0xd8, 0], Bad::ReservedFlags(PingResp)),
        case("DISCONNECT with flags", V5, [0xe1, 0], Bad::ReservedFlags(Disconnect)),
        case("AUTH with flags", V5, [0xf1, 0], Bad::ReservedFlags(Auth)),
        case(
            "remaining length of five bytes",
            V5,
            [0xc0, 0x80, 0x80, 0x80, 0x80, 0],
            Bad::RemainingLengthTooLong,
        ),
        case("remaining length not minimal", V5, [0xc0, 0x80, 0], Bad::RemainingLengthNotMinimal),
        case("remaining length not minimal, v3", V3, [0xe0, 0x80, 0x80, 0], Bad::RemainingLengthNotMinimal),
        case("PINGREQ with a body", V5, packet(0xc0, &[b"x"]), Bad::TrailingBytes),
        case("PINGRESP with a body", V3, packet(0xd0, &[b"x"]), Bad::TrailingBytes),
        case("DISCONNECT of 3.1.1 with a body", V3, packet(0xe0, &[&[0]]), Bad::TrailingBytes),
        case("PUBACK of 3.1.1 with a reason", V3, packet(0x40, &[&[0, 1, 0]]), Bad::TrailingBytes),
        case(
            "PUBACK with bytes after its properties",
            V5,
            packet(0x40, &[&[0, 1, 0, 0, 9]]),
            Bad::TrailingBytes,
        ),
        case(
            "DISCONNECT with bytes after its properties",
            V5,
            packet(0xe0, &[&[0, 0, 9]]),
            Bad::TrailingBytes,
        ),
        case("UNSUBACK of 3.1.1 with a reason", V3, packet(0xb0, &[&[0, 1, 0]]), Bad::TrailingBytes),
        case("an empty PUBLISH", V5, [0x30, 0], Bad::Truncated),
        case("a PUBLISH whose topic runs past its end", V5, packet(0x30, &[&[0, 9], b"top"]), Bad::Truncated),
        case("a PUBLISH without its packet id", V5, packet(0x32, &[&data("t"), &[1]]), Bad::Truncated),
        case("an empty PUBACK", V5, [0x40, 0], Bad::Truncated),
        case("a PUBREL with half a packet id", V3, packet(0x62, &[&[0]]), Bad::Truncated),
        case("a SUBSCRIBE without options", V5, packet(0x82, &[&[0, 1, 0], &data("t")]), Bad::Truncated),
        case("an empty CONNACK", V5, [0x20, 0], Bad::Truncated),
        case("an empty CONNECT", V5, [0x10, 0], Bad::Truncated),
    ]
}

// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.1.3-4] [MQTT-3.1.3-12] [MQTT-3.3.2-1] [MQTT-3.3.2-19]
// [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2]
fn strings() -> Vec<Case> {
    vec![
        case("a topic that is not UTF-8", V5, publish_to(b"t\xff"), Bad::StringNotUtf8),
        case("a topic with an overlong slash", V5, publish_to(b"t\xc0\xaf"), Bad::StringNotUtf8),
        case("a topic with a surrogate", V5, publish_to(b"t\xed\xa0\x80"), Bad::StringNotUtf8),
        case("a topic cut inside a character", V3, publish_to(b"t\xe2\x82"), Bad::StringNotUtf8),
        case("a topic beyond U+10FFFF", V5, publish_to(b"t\xf4\x90\x80\x80"), Bad::StringNotUtf8),
        case("a topic with NUL", V5, publish_to("t\0"), Bad::StringWithNul),
        case("a filter that is not UTF-8", V5, subscribe(b"t\xff", 0), Bad::StringNotUtf8),
        case("a filter with NUL", V5, subscribe("t\0", 0), Bad::StringWithNul),
        case("an unsubscribed filter with NUL", V5, unsubscribe("t\0"), Bad::StringWithNul),
        case("a client id that is not UTF-8", V5, connect(2, &[], &[&data(b"\xff")]), Bad::StringNotUtf8),
        case("a client id with NUL", V3, connect_v3(2, &[&data("\0")]), Bad::StringWithNul),
        case(
            "a user name that is not UTF-8",
            V5,
            connect(0x82, &[], &[&data("c"), &data(b"\xff")]),
            Bad::StringNotUtf8,
        ),
        case("a content type not UTF-8", V5, publish_with(&[&[3], &data(b"\xff")]), Bad::StringNotUtf8),
        case(
            "a user property with NUL",
            V5,
            publish_with(&[&[0x26], &data("a"), &data("\0")]),
            Bad::StringWithNul,
        ),
        case(
            "a user property that is not UTF-8",
            V5,
            publish_with(&[&[0x26], &data(b"\xff"), &data("a")]),
            Bad::StringNotUtf8,
        ),
        case(
            "a reason string with NUL",
            V5,
            packet(0xe0, &[&[0], &list(&[&[0x1f], &data("\0")])]),
            Bad::StringWithNul,
        ),
    ]
}

// [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT-3.1.2-3] [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13]
// [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.3-11]
// [MQTT-3.1.2-22] v3 [MQTT-3.2.2-1]
fn connecting() -> Vec<Case> {
    let named = |name: &str, level: u8| packet(0x10, &[&data(name), &[level, 2, 0, 60, 0], &data("c")]);
    let id = data("c");
    vec![
        case("protocol name HTTP", V5, named("HTTP", 5), Bad::ProtocolNameInvalid),
        case("protocol name mqtt", V5, named("mqtt", 5), Bad::ProtocolNameInvalid),
        case("no protocol name", V5, named("", 4), Bad::ProtocolNameInvalid),
        case("the old name with level 4", V5, named("MQIsdp", 4), Bad::UnsupportedProtocolVersion(4)),
        case("protocol level 6", V5, named("MQTT", 6), Bad::UnsupportedProtocolVersion(6)),
        case("protocol level 4 of a bridge", V5, named("MQTT", 0x84), Bad::UnsupportedProtocolVersion(0x84)),
        case("the old name with a new level", V5, named("MQIsdp", 5), Bad::UnsupportedProtocolVersion(5)),
        case("the reserved connect flag", V5, connect(0x03, &[], &[&id]), Bad::ConnectReservedFlag),
        case("the reserved connect flag, v3", V3, connect_v3(0x03, &[&id]), Bad::ConnectReservedFlag),
        case("Will QoS 3", V5, connect(0x1e, &[], &[&id, &[0], &data("t"), &data("")]), Bad::WillQoS3),
        case("Will QoS without Will", V5, connect(0x0a, &[], &[&id]), Bad::WillQoSWithoutWill),
        case("Will Retain without Will", V5, connect(0x22, &[], &[&id]), Bad::WillRetainWithoutWill),
        case("a Will topic with wildcard", V5, connect_with_will(&[], "a/+"), Bad::WildcardInTopicName),
        case("an empty Will topic", V5, connect_with_will(&[], ""), Bad::WillTopicEmpty),
        case(
            "a Will that is announced and missing",
            V5,
            connect(0x06, &[], &[&id]),
            Bad::PropertyLengthMissing,
        ),
        case("a Will that is announced and missing, v3", V3, connect_v3(0x06, &[&id]), Bad::Truncated),
        case("a user name that is announced and missing", V5, connect(0x82, &[], &[&id]), Bad::Truncated),
        case("a password that is announced and missing", V5, connect(0x42, &[], &[&id]), Bad::Truncated),
        case(
            "a password alone in 3.1.1",
            V3,
            connect_v3(0x42, &[&id, &data("secret")]),
            Bad::PasswordWithoutUsername,
        ),
        case(
            "no client id and no clean session in 3.1.1",
            V3,
            connect_v3(0, &[&data("")]),
            Bad::ClientIdEmpty,
        ),
        case("CONNECT without client id", V5, connect(0x02, &[], &[]), Bad::Truncated),
        case(
            "CONNECT with bytes after its last field",
            V5,
            connect(0x02, &[], &[&id, b"x"]),
            Bad::TrailingBytes,
        ),
        case("CONNACK with reserved flags", V5, packet(0x20, &[&[2, 0, 0]]), Bad::ConnAckReservedFlags),
        case("CONNACK with reserved flags, v3", V3, packet(0x20, &[&[0x80, 0]]), Bad::ConnAckReservedFlags),
        case("a session present on refusal", V5, packet(0x20, &[&[1, 0x87, 0]]), Bad::SessionPresentOnError),
        case("a session present on refusal, v3", V3, packet(0x20, &[&[1, 5]]), Bad::SessionPresentOnError),
    ]
}

// [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-3.3.2-2] [MQTT-2.2.1-3] [MQTT-4.7.0-1]
fn publishing() -> Vec<Case> {
    let of = |first: u8, id: &[u8]| packet(first, &[&data("t"), id, &[0], b"payload"]);
    vec![
        case("QoS 3", V5, of(0x36, &[0, 1]), Bad::QoS3),
        case("QoS 3, v3", V3, packet(0x3f, &[&data("t"), &[0, 1]]), Bad::QoS3),
        case("DUP with QoS 0", V5, of(0x38, &[]), Bad::DupWithQoS0),
        case("DUP with QoS 0, v3", V3, packet(0x38, &[&data("t")]), Bad::DupWithQoS0),
        case("packet id 0 at QoS 1", V5, of(0x32, &[0, 0]), Bad::PacketIdZero),
        case("packet id 0 at QoS 2, v3", V3, packet(0x34, &[&data("t"), &[0, 0]]), Bad::PacketIdZero),
        case("an empty topic without alias", V5, publish_to(""), Bad::EmptyTopicName),
        case("an empty topic in 3.1.1", V3, packet(0x30, &[&data(""), b"payload"]), Bad::EmptyTopicName),
        case("a topic with +", V5, publish_to("a/+"), Bad::WildcardInTopicName),
        case("a topic with # inside", V5, publish_to("a/b#c/d/e/f/g/h"), Bad::WildcardInTopicName),
        case("a topic with #, v3", V3, publish_to("#"), Bad::WildcardInTopicName),
    ]
}

// [MQTT-3.8.3-2] [MQTT-3.8.3-4] [MQTT-3.8.3-5] [MQTT-3.10.3-2] [MQTT-3.8.3-4] v3 [MQTT-2.2.1-3]
fn subscribing() -> Vec<Case> {
    vec![
        case(
            "SUBSCRIBE with packet id 0",
            V5,
            packet(0x82, &[&[0, 0, 0], &data("t"), &[0]]),
            Bad::PacketIdZero,
        ),
        case("UNSUBSCRIBE with packet id 0", V5, packet(0xa2, &[&[0, 0, 0], &data("t")]), Bad::PacketIdZero),
        case("SUBSCRIBE without filters", V5, packet(0x82, &[&[0, 1, 0]]), Bad::SubscribeEmpty),
        case("SUBSCRIBE without filters, v3", V3, packet(0x82, &[&[0, 1]]), Bad::SubscribeEmpty),
        case("UNSUBSCRIBE without filters", V5, packet(0xa2, &[&[0, 1, 0]]), Bad::UnsubscribeEmpty),
        case("UNSUBSCRIBE without filters, v3", V3, packet(0xa2, &[&[0, 1]]), Bad::UnsubscribeEmpty),
        case("reserved subscription options", V5, subscribe("t", 0x40), Bad::SubscribeReservedOptions),
        case(
            "the other reserved subscription option",
            V5,
            subscribe("t", 0x80),
            Bad::SubscribeReservedOptions,
        ),
        case(
            "options of 5.0 in 3.1.1",
            V3,
            packet(0x82, &[&[0, 1], &data("t"), &[4]]),
            Bad::SubscribeReservedOptions,
        ),
        case("a subscription of QoS 3", V5, subscribe("t", 3), Bad::SubscribeQoS3),
        case(
            "a subscription of QoS 3, v3",
            V3,
            packet(0x82, &[&[0, 1], &data("t"), &[3]]),
            Bad::SubscribeQoS3,
        ),
        case("retain handling 3", V5, subscribe("t", 0x30), Bad::RetainHandling3),
        case("no local on a shared subscription", V5, subscribe("$share/g/t", 4), Bad::NoLocalShared),
        case("an empty filter", V5, subscribe("", 0), Bad::FilterEmpty),
        case("an empty filter to unsubscribe", V5, unsubscribe(""), Bad::FilterEmpty),
        case("a filter with # inside", V5, subscribe("a/#/b", 0), Bad::FilterHashMisplaced),
        case("a filter with # after text", V5, subscribe("a#", 0), Bad::FilterHashMisplaced),
        case("a filter with + after text", V5, subscribe("a+/b", 0), Bad::FilterPlusMisplaced),
        case("a filter with + to unsubscribe", V5, unsubscribe("a+"), Bad::FilterPlusMisplaced),
        case("a share with a malformed filter", V5, subscribe("$share/g/a#", 0), Bad::FilterHashMisplaced),
        case(
            "a SUBSCRIBE whose second filter is malformed",
            V5,
            packet(0x82, &[&[0, 1, 0], &data("t"), &[0], &data("a#"), &[0]]),
            Bad::FilterHashMisplaced,
        ),
    ]
}

// [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.14.2-1] [MQTT-3.15.2-1]
fn answering() -> Vec<Case> {
    use PacketType::*;
    let reason = |packet, code| Bad::ReasonCodeInvalid(packet, code);
    vec![
        case("PUBACK with packet id 0", V5, packet(0x40, &[&[0, 0]]), Bad::PacketIdZero),
        case("PUBREC with packet id 0", V3, packet(0x50, &[&[0, 0]]), Bad::PacketIdZero),
        case("PUBREL with packet id 0", V5, packet(0x62, &[&[0, 0]]), Bad::PacketIdZero),
        case("PUBCOMP with packet id 0", V5, packet(0x70, &[&[0, 0]]), Bad::PacketIdZero),
        case("SUBACK with packet id 0", V5, packet(0x90, &[&[0, 0, 0, 0]]), Bad::PacketIdZero),
        case("UNSUBACK with packet id 0", V3, packet(0xb0, &[&[0, 0]]), Bad::PacketIdZero),
        case("CONNACK with an unknown reason", V5, packet(0x20, &[&[0, 0xff, 0]]), reason(ConnAck, 0xff)),
        case("CONNACK with a reason of others", V5, packet(0x20, &[&[0, 0x8e, 0]]), reason(ConnAck, 0x8e)),
        case("CONNACK of 3.1.1 with return code 6", V3, packet(0x20, &[&[0, 6]]), reason(ConnAck, 6)),
        case("PUBACK with a reason of others", V5, packet(0x40, &[&[0, 1, 0x92]]), reason(PubAck, 0x92)),
        case("PUBREC with a reason of others", V5, packet(0x50, &[&[0, 1, 0x8e]]), reason(PubRec, 0x8e)),
        case("PUBREL with a reason of others", V5, packet(0x62, &[&[0, 1, 0x10]]), reason(PubRel, 0x10)),
        case("PUBCOMP with a reason of others", V5, packet(0x70, &[&[0, 1, 0x97]]), reason(PubComp, 0x97)),
        case("SUBACK with a reason of others", V5, packet(0x90, &[&[0, 1, 0, 3]]), reason(SubAck, 3)),
        case(
            "SUBACK of 3.1.1 with a reason of 5.0",
            V3,
            packet(0x90, &[&[0, 1, 0x87]]),
            reason(SubAck, 0x87),
        ),
        case("UNSUBACK with a reason of others", V5, packet(0xb0, &[&[0, 1, 0, 1]]), reason(UnsubAck, 1)),
        case("DISCONNECT with a reason of others", V5, packet(0xe0, &[&[0x85]]), reason(Disconnect, 0x85)),
        case("AUTH with a reason of others", V5, packet(0xf0, &[&[0x87, 0]]), reason(Auth, 0x87)),
        case("SUBACK without reasons", V5, packet(0x90, &[&[0, 1, 0]]), Bad::SubAckEmpty),
        case("SUBACK without reasons, v3", V3, packet(0x90, &[&[0, 1]]), Bad::SubAckEmpty),
        case("UNSUBACK without reasons", V5, packet(0xb0, &[&[0, 1, 0]]), Bad::SubAckEmpty),
    ]
}

#[track_caller]
fn check(case: &Case) {
    let Case { what, version, bytes, violation } = case;
    let limits = Limits::default();
    assert_eq!(decode(bytes, *version, &limits), Err(*violation), "{what}");
    for len in 0..bytes.len() {
        let early = decode(&bytes[..len], *version, &limits);
        assert!(matches!(early, Ok(None)) || early == Err(*violation), "{what}: {early:?} after {len} bytes");
    }
}

#[test]
fn each_is_refused_for_its_own_reason() {
    for case in &cases() {
        check(case);
    }
}

#[test]
fn no_two_cases_have_the_same_name() {
    let names: BTreeSet<_> = cases().iter().map(|case| case.what).collect();
    assert_eq!(names.len(), cases().len());
}

/// Raised above the codec, or needing more bytes than a case has: tested there.
const NOT_IN_THE_TABLE: &[&str] = &[
    "PacketTooLarge",
    "TopicNameTooLong",
    "FilterTooLong",
    "FirstPacketNotConnect",
    "SecondConnect",
    "UnexpectedPacket",
    "TopicAliasTooLarge",
    "TopicAliasUnknown",
    "ReceiveMaximumExceeded",
    "SubscriptionIdFromClient",
    "SessionExpiryRaised",
];

#[test]
fn every_violation_has_a_case() {
    let shown: BTreeSet<_> = cases().iter().map(|case| case.violation.name()).collect();
    let missing = |name: &&str| !shown.contains(*name) && !NOT_IN_THE_TABLE.contains(name);
    let missing: Vec<_> = Violation::NAMES.iter().copied().filter(missing).collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
    assert!(NOT_IN_THE_TABLE.iter().all(|name| Violation::NAMES.contains(name) && !shown.contains(name)));
}

#[test]
fn a_violation_says_what_is_wrong_and_which_rule_that_breaks() {
    assert_eq!(
        Bad::PropertyNotAllowed(0x23).to_string(),
        "the property is not allowed in this packet (0x23, TopicAlias)"
    );
    assert_eq!(
        Bad::ReservedFlags(PacketType::PubRel).to_string(),
        "the flags of the first byte are reserved: send the value of table 2-2 (PubRel) [MQTT-3.6.1-1]"
    );
    assert_eq!(Bad::TopicAliasZero.reason_code(), ReasonCode::TopicAliasInvalid);
    assert_eq!(Bad::PacketTooLarge.reason_code(), ReasonCode::PacketTooLarge);
    for case in cases() {
        assert!(case.violation.reason_code().is_error(), "{}", case.what);
    }
}

#[test]
fn a_refused_connect_is_answered_in_its_own_version() {
    let connect = |level: u8| packet(0x10, &[&data("MQTT"), &[level, 2, 0, 60]]);
    for level in [3, 4, 0x83, 0x84] {
        assert_eq!(connack_version(&connect(level)), Some(V3));
    }
    for level in [5, 6, 0x7f] {
        assert_eq!(connack_version(&connect(level)), Some(V5));
    }
    // A level of which nothing is known: as its CONNECT is written.
    let written = |rest: &[&[u8]]| {
        [&packet(0x10, &[&data("MQTT"), &[99, 2, 0, 60], &rest.concat()]), &b"\xc0\0"[..]].concat()
    };
    assert_eq!(connack_version(&written(&[&data("a")])), Some(V3));
    assert_eq!(connack_version(&written(&[&[0], &data("a")])), Some(V5));
    assert_eq!(connack_version(&packet(0x10, &[&data("MQIsdp"), &[5, 2, 0, 60]])), Some(V3));
    for len in 1..8 {
        assert_eq!(connack_version(&connect(4)[..len]), None, "the level is not there");
    }
    for name in ["", "mqtt", "XQTT", "MQTTT"] {
        assert_eq!(connack_version(&packet(0x10, &[&data(name), &[5, 2, 0, 60]])), None, "{name}");
    }
    let level_5 = *b"\x04MQTT\x05\x02\0\x3c";
    for start in [&b"\x10\xff\xff\xff\xff\x7f\0"[..], b"\x10\x8d\0\0"] {
        assert_eq!(connack_version(&[start, &level_5].concat()), None, "a length that is none");
    }
    for other in [&b""[..], b"GET / HTTP/1.1", b"\xf0", b"\x30\x03"] {
        assert_eq!(connack_version(other), None, "{other:?} is no CONNECT");
    }
}
