//! Rows of the table about properties: where they may be, how often, and which values they take.

use super::*;

// [MQTT-2.2.2-1]
pub(super) fn properties() -> Vec<Case> {
    vec![
        case("no property length", V5, packet(0x30, &[&data("t")]), Bad::PropertyLengthMissing),
        case("no property length in CONNACK", V5, packet(0x20, &[&[0, 0]]), Bad::PropertyLengthMissing),
        case("no property length in AUTH", V5, packet(0xf0, &[&[0x18]]), Bad::PropertyLengthMissing),
        case("no property length in AUTH of success", V5, packet(0xf0, &[&[0]]), Bad::PropertyLengthMissing),
        case("no property length in UNSUBACK", V5, packet(0xb0, &[&[0, 1]]), Bad::PropertyLengthMissing),
        case(
            "a property length past the end",
            V5,
            packet(0x30, &[&data("t"), &[9, 1]]),
            Bad::PropertyLengthTooLong,
        ),
        case("half a property length", V5, packet(0x30, &[&data("t"), &[0x80]]), Bad::Truncated),
        case(
            "a property length not minimal",
            V5,
            packet(0x30, &[&data("t"), &[0x80, 0]]),
            Bad::VarintNotMinimal,
        ),
        case(
            "a property length of five bytes",
            V5,
            packet(0x30, &[&data("t"), &[0x80, 0x80, 0x80, 0x80, 0]]),
            Bad::VarintTooLong,
        ),
        case(
            "a property id that takes two bytes",
            V5,
            publish_with(&[&[0x81, 0x00, 1]]),
            Bad::PropertyUnknown(0x81),
        ),
        case("property 0", V5, publish_with(&[&[0x00, 1]]), Bad::PropertyUnknown(0)),
        case("property 0x2b", V5, publish_with(&[&[0x2b, 1]]), Bad::PropertyUnknown(0x2b)),
        case("property 0x7f", V5, publish_with(&[&[0x7f, 1]]), Bad::PropertyUnknown(0x7f)),
        case("a property cut short", V5, publish_with(&[&[0x02, 0, 0]]), Bad::PropertyTruncated),
        case(
            "a property's string cut short",
            V5,
            publish_with(&[&[0x03, 0, 5, b'x']]),
            Bad::PropertyTruncated,
        ),
        case(
            "a user property without value",
            V5,
            publish_with(&[&[0x26], &data("name")]),
            Bad::PropertyTruncated,
        ),
        case("a property id alone", V5, publish_with(&[&[0x23]]), Bad::PropertyTruncated),
        case(
            "a receive maximum in PUBLISH",
            V5,
            publish_with(&[&[0x21, 0, 9]]),
            Bad::PropertyNotAllowed(0x21),
        ),
        case(
            "a reason string in PUBLISH",
            V5,
            publish_with(&[&[0x1f], &data("x")]),
            Bad::PropertyNotAllowed(0x1f),
        ),
        case(
            "a will delay in PUBLISH",
            V5,
            publish_with(&[&[0x18, 0, 0, 0, 1]]),
            Bad::PropertyNotAllowed(0x18),
        ),
        case(
            "a will delay in CONNECT",
            V5,
            connect_with(&[&[0x18, 0, 0, 0, 1]]),
            Bad::PropertyNotAllowed(0x18),
        ),
        case("a topic alias in CONNECT", V5, connect_with(&[&[0x23, 0, 1]]), Bad::PropertyNotAllowed(0x23)),
        case(
            "a topic alias in the Will",
            V5,
            connect_with_will(&[&[0x23, 0, 1]], "t"),
            Bad::PropertyNotAllowed(0x23),
        ),
        case(
            "a session expiry in the Will",
            V5,
            connect_with_will(&[&[0x11, 0, 0, 0, 1]], "t"),
            Bad::PropertyNotAllowed(0x11),
        ),
        case(
            "a content type in CONNACK",
            V5,
            connack_with(&[&[0x03], &data("x")]),
            Bad::PropertyNotAllowed(3),
        ),
        case(
            "a topic alias in PUBACK",
            V5,
            packet(0x40, &[&[0, 1, 0], &list(&[&[0x23, 0, 1]])]),
            Bad::PropertyNotAllowed(0x23),
        ),
        case(
            "a reason string in SUBSCRIBE",
            V5,
            packet(0x82, &[&[0, 1], &list(&[&[0x1f], &data("x")]), &data("t"), &[0]]),
            Bad::PropertyNotAllowed(0x1f),
        ),
        case(
            "a subscription id in UNSUBSCRIBE",
            V5,
            packet(0xa2, &[&[0, 1], &list(&[&[0x0b, 1]]), &data("t")]),
            Bad::PropertyNotAllowed(0x0b),
        ),
        case(
            "a topic alias in DISCONNECT",
            V5,
            packet(0xe0, &[&[0], &list(&[&[0x23, 0, 1]])]),
            Bad::PropertyNotAllowed(0x23),
        ),
        case(
            "a topic alias in AUTH",
            V5,
            packet(0xf0, &[&[0x18], &list(&[&[0x23, 0, 1]])]),
            Bad::PropertyNotAllowed(0x23),
        ),
        case(
            "two topic aliases",
            V5,
            publish_with(&[&[0x23, 0, 1, 0x23, 0, 1]]),
            Bad::PropertyDuplicate(0x23),
        ),
        case("two payload formats", V5, publish_with(&[&[1, 1, 1, 1]]), Bad::PropertyDuplicate(1)),
        case(
            "two message expiries",
            V5,
            publish_with(&[&[2, 0, 0, 0, 1], &[2, 0, 0, 0, 1]]),
            Bad::PropertyDuplicate(2),
        ),
        case(
            "two content types",
            V5,
            publish_with(&[&[3], &data("a"), &[3], &data("b")]),
            Bad::PropertyDuplicate(3),
        ),
        case(
            "two session expiries",
            V5,
            connect_with(&[&[0x11, 0, 0, 0, 1], &[0x11, 0, 0, 0, 1]]),
            Bad::PropertyDuplicate(0x11),
        ),
        case(
            "two receive maxima",
            V5,
            connack_with(&[&[0x21, 0, 1, 0x21, 0, 1]]),
            Bad::PropertyDuplicate(0x21),
        ),
        case(
            "two subscription ids in SUBSCRIBE",
            V5,
            packet(0x82, &[&[0, 1], &list(&[&[0x0b, 1, 0x0b, 2]]), &data("t"), &[0]]),
            Bad::PropertyDuplicate(0x0b),
        ),
        case(
            "two will delays",
            V5,
            connect_with_will(&[&[0x18, 0, 0, 0, 1], &[0x18, 0, 0, 0, 1]], "t"),
            Bad::PropertyDuplicate(0x18),
        ),
        case(
            "two reason strings",
            V5,
            packet(0x40, &[&[0, 1, 0], &list(&[&[0x1f], &data("a"), &[0x1f], &data("b")])]),
            Bad::PropertyDuplicate(0x1f),
        ),
    ]
}

// [MQTT-3.3.2-13] [MQTT-3.3.2-14]
pub(super) fn values() -> Vec<Case> {
    vec![
        case("payload format 2", V5, publish_with(&[&[1, 2]]), Bad::PropertyValueInvalid(1)),
        case(
            "payload format 2 in the Will",
            V5,
            connect_with_will(&[&[1, 2]], "t"),
            Bad::PropertyValueInvalid(1),
        ),
        case("topic alias 0", V5, publish_with(&[&[0x23, 0, 0]]), Bad::TopicAliasZero),
        case("subscription id 0", V5, publish_with(&[&[0x0b, 0]]), Bad::SubscriptionIdZero),
        case(
            "subscription id 0 in SUBSCRIBE",
            V5,
            packet(0x82, &[&[0, 1], &list(&[&[0x0b, 0]]), &data("t"), &[0]]),
            Bad::SubscriptionIdZero,
        ),
        case("a subscription id not minimal", V5, publish_with(&[&[0x0b, 0x81, 0]]), Bad::VarintNotMinimal),
        case(
            "a subscription id of five bytes",
            V5,
            publish_with(&[&[0x0b, 0xff, 0xff, 0xff, 0xff, 1]]),
            Bad::VarintTooLong,
        ),
        case(
            "a response topic with wildcard",
            V5,
            publish_with(&[&[8], &data("a/#")]),
            Bad::ResponseTopicWildcard,
        ),
        case("an empty response topic", V5, publish_with(&[&[8, 0, 0]]), Bad::PropertyValueInvalid(8)),
        case("a response topic with NUL", V5, publish_with(&[&[8], &data("a\0")]), Bad::StringWithNul),
        case(
            "a response topic in the Will with wildcard",
            V5,
            connect_with_will(&[&[8], &data("+")], "t"),
            Bad::ResponseTopicWildcard,
        ),
        case("receive maximum 0", V5, connect_with(&[&[0x21, 0, 0]]), Bad::ReceiveMaximumZero),
        case("receive maximum 0 in CONNACK", V5, connack_with(&[&[0x21, 0, 0]]), Bad::ReceiveMaximumZero),
        case("maximum packet size 0", V5, connect_with(&[&[0x27, 0, 0, 0, 0]]), Bad::MaximumPacketSizeZero),
        case(
            "request problem information 2",
            V5,
            connect_with(&[&[0x17, 2]]),
            Bad::PropertyValueInvalid(0x17),
        ),
        case(
            "request response information 2",
            V5,
            connect_with(&[&[0x19, 2]]),
            Bad::PropertyValueInvalid(0x19),
        ),
        case("maximum QoS 2", V5, connack_with(&[&[0x24, 2]]), Bad::PropertyValueInvalid(0x24)),
        case("retain available 2", V5, connack_with(&[&[0x25, 2]]), Bad::PropertyValueInvalid(0x25)),
        case("wildcards available 2", V5, connack_with(&[&[0x28, 2]]), Bad::PropertyValueInvalid(0x28)),
        case(
            "subscription ids available 2",
            V5,
            connack_with(&[&[0x29, 2]]),
            Bad::PropertyValueInvalid(0x29),
        ),
        case(
            "shared subscriptions available 2",
            V5,
            connack_with(&[&[0x2a, 2]]),
            Bad::PropertyValueInvalid(0x2a),
        ),
        case(
            "authentication data alone",
            V5,
            connect_with(&[&[0x16], &data("x")]),
            Bad::AuthenticationDataWithoutMethod,
        ),
        case("AUTH without method", V5, packet(0xf0, &[&[0x18, 0]]), Bad::AuthenticationMethodMissing),
    ]
}
