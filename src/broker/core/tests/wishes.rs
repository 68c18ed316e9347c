//! What clients say in CONNECT of what they take, and what they are told: sizes, aliases, reasons, keep alive, redirects,
//! and MQTT 3.1.

use super::world::{World, mqisdp, packet, v3, v5};
use crate::broker::core::{Fault, Redirect};
use crate::mqtt::{Ack, Disconnect, Packet, PacketId, Properties, PropertiesBuf, Property, Publish, QoS};
use crate::mqtt::{ReasonCode, Subscribe, SubscribeFiltersBuf, Violation};
use crate::settings::Limits;

const TOPIC: &str = "plant/7/line/3";

#[test]
fn a_client_that_takes_aliases_gets_a_topic_once_and_then_its_alias() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b").with(Property::TopicAliasMaximum(2))));
    w.subscribe(b, "#", 2);
    for qos in 0..=2 {
        w.publish_with(a, TOPIC, qos, "x", false, &[Property::ContentType("text")]);
    }
    let expected = [
        format!("{TOPIC}=x TopicAlias(1) ContentType(\"text\")"), // [MQTT-3.3.2-8]
        "=x q1 #1 TopicAlias(1) ContentType(\"text\")".to_owned(),
        "=x q2 #2 TopicAlias(1) ContentType(\"text\")".to_owned(),
    ];
    assert_eq!(w.heard(b), expected);
    for topic in ["plant/8", "plant/9", "plant/8", "t"] {
        w.publish(a, topic, 0, "x");
    }
    // [MQTT-3.1.2-26] [MQTT-3.3.2-11]
    assert_eq!(w.heard(b), ["plant/8=x TopicAlias(2)", "plant/9=x", "=x TopicAlias(2)", "t=x"]);
}

#[test]
fn aliases_belong_to_a_connection_and_to_those_who_ask_for_them() {
    let mut w = World::new();
    let hello = v5("b").resume().expiry(60).with(Property::TopicAliasMaximum(9));
    let (a, b) = (w.connect(v5("a")), w.connect(hello.clone()));
    w.subscribe(b, "#", 1);
    w.publish(a, TOPIC, 1, "x");
    assert_eq!(w.heard(b), [format!("{TOPIC}=x q1 #1 TopicAlias(1)")]);
    w.lose(b);
    w.publish(a, TOPIC, 1, "y");
    let b = w.hello(&hello);
    let again = [
        "CONNACK Success present".to_owned(),
        format!("{TOPIC}=x q1 #1 dup TopicAlias(1)"), // [MQTT-3.3.2-7]
        "=y q1 #2 TopicAlias(1)".to_owned(),
    ];
    assert_eq!(w.heard(b), again);
    w.lose(b);
    let b = w.hello(&v5("b").resume().expiry(60)); // [MQTT-3.1.2-27]
    assert_eq!(w.heard(b)[1..], [format!("{TOPIC}=x q1 #1 dup"), format!("{TOPIC}=y q1 #2 dup")]);
}

#[test]
fn an_alias_does_not_make_a_packet_larger_than_its_client_takes() {
    let mut w = World::new();
    let bare = 2 + 2 + TOPIC.len() + 1 + 1;
    let hello = v5("b").with(Property::TopicAliasMaximum(9)).with(Property::MaximumPacketSize(bare as u32));
    let (a, b) = (w.connect(v5("a")), w.connect(hello));
    w.subscribe(b, "#", 0);
    w.publish(a, TOPIC, 0, "x");
    w.publish(a, TOPIC, 0, "xx");
    assert_eq!(w.heard(b), [format!("{TOPIC}=x")]); // [MQTT-3.1.2-24]
}

#[test]
fn no_answer_is_larger_than_its_client_takes() {
    let mut w = World::new();
    let b = w.connect(v5("b").with(Property::MaximumPacketSize(20)));
    let mut filters = SubscribeFiltersBuf::default();
    for n in 0..20 {
        filters.push(&format!("t/{n}"), super::world::options(0)).expect("the filter is valid");
    }
    let filters = filters.as_filters();
    w.send(
        b,
        &Packet::Subscribe(Subscribe { packet_id: PacketId::MIN, properties: Properties::EMPTY, filters }),
    );
    assert_eq!(w.closed(b), Some(Fault::AnswerTooLarge)); // [MQTT-3.1.2-24]
    assert_eq!(w.heard_in_full(b), ["DISCONNECT PacketTooLarge"]); // [MQTT-3.14.2-3]
    let small = w.hello(&v5("small").with(Property::MaximumPacketSize(8)));
    assert_eq!(w.heard_in_full(small), ["CONNACK PacketTooLarge"]); // [MQTT-3.2.2-19]
    let tiny = w.hello(&v5("tiny").with(Property::MaximumPacketSize(4)));
    assert_eq!(w.heard_in_full(tiny), [""; 0]);
    assert_eq!(w.closed(tiny), Some(Fault::AnswerTooLarge));
}

// [MQTT-3.14.2-2]
#[test]
fn who_is_refused_or_sent_away_hears_why_in_words() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.publish(a, "$SYS/x", 1, "x");
    w.subscribe_with(a, "$LINK/x", super::world::options(0), None);
    let lines = w.heard_in_full(a);
    assert!(lines[0].starts_with("PUBACK 1 NotAuthorized ReasonString(\"not allowed"), "{lines:?}");
    assert!(lines[1].starts_with("SUBACK [135] ReasonString(\"not allowed"), "{lines:?}");
    w.send(a, &Packet::PingResp);
    let why = "ReasonString(\"this side may not send this packet, or not now\")";
    assert_eq!(w.heard_in_full(a), [format!("DISCONNECT ProtocolError {why}")]);
}

#[test]
fn who_does_not_want_words_gets_none_but_in_the_packets_that_always_may() {
    let mut w = World::new();
    let a = w.connect(v5("a").with(Property::RequestProblemInformation(0)));
    w.publish(a, "$SYS/x", 1, "x");
    w.publish(a, "$SYS/x", 2, "x");
    w.subscribe_with(a, "$LINK/x", super::world::options(0), None);
    let expected = ["PUBACK 1 NotAuthorized", "PUBREC 1 NotAuthorized", "SUBACK [135]"];
    assert_eq!(w.heard_in_full(a), expected); // [MQTT-3.1.2-29]
    w.send(a, &Packet::PingResp);
    assert!(w.heard_in_full(a)[0].contains("ReasonString"));
}

#[test]
fn words_that_do_not_fit_are_left_out() {
    let mut w = World::new();
    let a = w.connect(v5("a").with(Property::MaximumPacketSize(40)));
    w.publish(a, "$SYS/x", 1, "x");
    w.publish(a, "$SYS/x", 2, "x");
    w.subscribe_with(a, "$LINK/x", super::world::options(0), None);
    let expected = ["PUBACK 1 NotAuthorized", "PUBREC 1 NotAuthorized", "SUBACK [135]"];
    // [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.9.2-1]
    assert_eq!(w.heard_in_full(a), expected);
}

#[test]
fn a_payload_that_is_not_what_it_says_is_refused() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe(b, "t", 2);
    let mut properties = PropertiesBuf::new();
    properties.push(Property::PayloadFormatIndicator(1));
    for qos in 0..=2 {
        let publish = Publish {
            dup: false,
            qos: QoS::from_u8(qos).expect("0 to 2"),
            retain: false,
            topic: "t",
            packet_id: (qos > 0).then_some(PacketId::MIN),
            properties: properties.as_properties(),
            payload: &[0xff],
        };
        w.send(a, &Packet::Publish(publish));
    }
    assert_eq!(w.heard(a), ["PUBACK 1 PayloadFormatInvalid", "PUBREC 1 PayloadFormatInvalid"]);
    assert_eq!(w.heard(b), [""; 0]);
    assert_eq!(w.core.counters().dropped_payload_format, 3);
    w.publish_with(a, "t", 2, "x", false, &[Property::PayloadFormatIndicator(1)]); // [MQTT-4.3.3-9]
    assert_eq!(w.heard(b), ["t=x q2 #1 PayloadFormatIndicator(1)"]); // [MQTT-3.3.2-4]
}

#[test]
fn a_keep_alive_beyond_the_limit_is_replaced_and_kept() {
    let limits = Limits { keep_alive_s_max: 60, ..Limits::default() };
    for (wanted, told) in [(120, true), (0, true), (60, false), (7, false)] {
        let mut w = World::with_limits(limits);
        let a = w.hello(&v5("a").keep_alive(wanted));
        let line = w.heard_in_full(a).concat();
        assert_eq!(line.contains("ServerKeepAlive(60)"), told, "{wanted}: {line}"); // [MQTT-3.1.2-21]
        let patience = if told { 90.0 } else { f64::from(wanted) * 1.5 };
        w.run_for(patience - 1.0);
        assert_eq!(w.closed(a), None, "{wanted}");
        w.run_for(2.0);
        assert_eq!(w.closed(a), Some(Fault::KeepAliveTimeout), "{wanted}"); // [MQTT-3.2.2-22]
    }
    let mut w = World::with_limits(limits);
    let old = w.connect(v3("old").keep_alive(1_000)); // it cannot be told
    w.run_for(1_499.0);
    assert_eq!(w.closed(old), None);
}

#[test]
fn a_drained_broker_sends_clients_elsewhere() {
    let mut w = World::new();
    let (a, old) = (w.connect(v5("a").will("gone", "a", 0)), w.connect(v3("old")));
    let server = Some("other:1883".to_owned());
    w.core.set_redirect(Some(Redirect { server, is_permanent: false }));
    let late = w.hello(&v5("late"));
    let line = w.heard_in_full(late).concat();
    assert!(line.starts_with("CONNACK UseAnotherServer ServerReference(\"other:1883\")"), "{line}");
    let late = w.hello(&v3("late")); // [MQTT-3.2.2-5] v3
    assert_eq!(w.heard(late), ["CONNACK ServerUnavailable"]);
    let now = w.now;
    assert_eq!(w.core.drain(1, now), 1);
    assert_eq!(w.core.drain(1, now), 0);
    w.settle();
    let line = w.heard_in_full(a).concat();
    assert!(line.starts_with("DISCONNECT UseAnotherServer ServerReference(\"other:1883\")"), "{line}");
    assert_eq!(w.closed(old), Some(Fault::UseAnotherServer));
    w.core.set_redirect(Some(Redirect { server: None, is_permanent: true }));
    let moved = w.hello(&v5("moved"));
    assert_eq!(w.heard(moved), ["CONNACK ServerMoved"]);
    w.core.set_redirect(None);
    w.connect(v5("late"));
}

#[test]
fn mqtt_3_1_is_spoken() {
    let mut w = World::new();
    let a = w.connect(mqisdp("a").resume());
    w.subscribe(a, "t", 2);
    w.publish(a, "t", 2, "x");
    assert_eq!(w.heard(a), ["t=x q2 #1", "PUBREC 1"]);
    w.lose(a);
    let a = w.hello(&mqisdp("a").resume());
    let bytes = w.heard_bytes(a);
    assert_eq!(bytes[..4], [0x20, 2, 0, 0], "what is Session Present in 3.1.1 is reserved in 3.1");
    // It sends requests again with DUP, as 3.1 wants it.
    let mut pubrel = Vec::new();
    Packet::PubRel(Ack::success(packet(1))).encode(crate::mqtt::Version::V3, &mut pubrel);
    pubrel[0] |= 0b1000;
    w.send_bytes(a, &pubrel);
    assert_eq!(w.heard(a), ["PUBCOMP 1"]);
    let newer = w.connect(v3("newer"));
    w.send_bytes(newer, &pubrel); // [MQTT-3.6.1-1]
    assert!(matches!(w.closed(newer), Some(Fault::Violation(Violation::ReservedFlags(_)))));
}

#[test]
fn a_will_that_is_not_what_it_says_is_refused() {
    let mut w = World::new();
    let a = w.raw(crate::mqtt::Version::V5);
    let connect = b"\x10\x19\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01a\x02\x01\x01\x00\x01t\x00\x01\xff";
    let mut connect = connect.to_vec();
    connect[1] = connect.len() as u8 - 2;
    w.send_bytes(a, &connect);
    assert_eq!(w.heard(a), ["CONNACK PayloadFormatInvalid"]);
}

#[test]
fn after_a_disconnect_nothing_more_comes() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let properties = Properties::EMPTY;
    w.send(a, &Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties }));
    w.send(a, &Packet::PingReq);
    assert_eq!(w.heard(a), [""; 0]); // [MQTT-3.14.4-1] [MQTT-3.14.4-2]
    assert_eq!(w.closed(a), Some(Fault::ClientLeft));
}
