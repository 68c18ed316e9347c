//! The specification to the letter: what conformance suites look at, statement by statement.

use super::world::{World, options, packet, v3, v5};
use crate::broker::core::{ConnectionId, Fault};
use crate::mqtt::{
    Ack, Packet, Properties, Property, Publish, QoS, ReasonCode, Subscribe, SubscribeFiltersBuf, Unsubscribe,
    UnsubscribeFiltersBuf, Version, Violation,
};
use crate::settings::Limits;

/// Publishes with a packet id and a DUP flag.
fn publish(w: &mut World, from: ConnectionId, qos: u8, id: u16, dup: bool, payload: &str) {
    let publish = Publish {
        dup,
        qos: QoS::from_u8(qos).expect("0 to 2"),
        retain: false,
        topic: "t",
        packet_id: (qos > 0).then(|| packet(id)),
        properties: Properties::EMPTY,
        payload: payload.as_bytes(),
    };
    w.send(from, &Packet::Publish(publish));
}

fn subscribe_all(w: &mut World, id: ConnectionId, packet_id: u16, filters: &[(&str, u8)]) {
    let mut list = SubscribeFiltersBuf::default();
    filters.iter().for_each(|&(filter, qos)| list.push(filter, options(qos)).expect("the filter is valid"));
    let (packet_id, properties) = (packet(packet_id), Properties::EMPTY);
    w.send(id, &Packet::Subscribe(Subscribe { packet_id, properties, filters: list.as_filters() }));
}

fn unsubscribe_all(w: &mut World, id: ConnectionId, packet_id: u16, filters: &[&str]) {
    let mut list = UnsubscribeFiltersBuf::default();
    filters.iter().for_each(|filter| list.push(filter).expect("the filter is valid"));
    let (packet_id, properties) = (packet(packet_id), Properties::EMPTY);
    w.send(id, &Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: list.as_filters() }));
}

// [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.4-4] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
// [MQTT-3.1.2-4] v3 [MQTT-3.1.2-6] v3
#[test]
fn a_session_goes_on_unless_the_start_is_clean() {
    for hello in [v3("a"), v5("a").expiry(60)] {
        let mut w = World::new();
        let line = |w: &mut World, clean: bool| {
            let hello = hello.clone();
            let id = w.hello(&if clean { hello } else { hello.resume() });
            let line = w.heard(id).concat();
            subscribe_all(w, id, 1, &[("t", 1)]);
            w.lose(id);
            line
        };
        assert_eq!(line(&mut w, false), "CONNACK Success");
        assert_eq!(line(&mut w, false), "CONNACK Success present");
        assert_eq!(line(&mut w, true), "CONNACK Success");
        if hello.clone().is_v3() {
            assert_eq!(line(&mut w, false), "CONNACK Success", "a clean session leaves nothing behind");
        }
    }
}

// [MQTT-3.1.3-8] v3 [MQTT-3.1.3-9] v3 [MQTT-3.2.2-6] [MQTT-3.2.2-7]
#[test]
fn an_empty_client_id_needs_a_clean_session_in_3_1_1_only() {
    let mut w = World::new();
    let id = w.hello(&v3("").resume());
    assert_eq!(w.heard(id), ["CONNACK ClientIdentifierNotValid"]);
    assert!(w.closed(id).is_some());
    w.connect(v3(""));
    w.connect(v5("").resume()); // [MQTT-3.1.3-6]
    assert_eq!(w.core.levels().sessions, 2);
}

// [MQTT-1.5.4-3] [MQTT-3.1.3-2] [MQTT-3.1.3-5] [MQTT-4.7.3-4]
#[test]
fn ids_and_topics_are_taken_as_they_are() {
    let mut w = World::new();
    w.connect(v5("0123456789abcdefghijklm"));
    w.connect(v3("nopqrstuvwxyzABCDEFGHIJ"));
    w.connect(v3("KLMNOPQRSTUVWXYZ"));
    let (a, marked) = (w.connect(v5("a")), w.connect(v5("\u{feff}a")));
    assert_eq!((w.closed(a), w.closed(marked)), (None, None));
    let e = ["caf\u{e9}", "cafe\u{301}", "\u{feff}caf\u{e9}", "/caf\u{e9}", "caf\u{e9}/", "CAF\u{c9}"];
    w.subscribe(a, e[0], 0);
    e.iter().for_each(|topic| w.publish(marked, topic, 0, "x"));
    assert_eq!(w.heard(a), [format!("{}=x", e[0])]);
}

// [MQTT-3.1.2-7] [MQTT-3.1.2-10] [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.3-10]
// [MQTT-3.1.2-16] v3 [MQTT-3.1.2-17] v3
#[test]
fn a_will_is_retained_if_it_says_so_and_keeps_its_properties() {
    for retain in [false, true] {
        let mut w = World::new();
        let watcher = w.connect(v5("watcher"));
        w.subscribe(watcher, "gone", 2);
        let properties = [("b", "1"), ("a", "2"), ("b", "3")].map(Property::UserProperty);
        let a = w.connect(v5("a").will("gone", "a", 0).will_as(2, retain, &properties));
        w.lose(a);
        let told = "UserProperty((\"b\", \"1\")) UserProperty((\"a\", \"2\")) UserProperty((\"b\", \"3\"))";
        assert_eq!(w.heard(watcher), [format!("gone=a q2 #1 {told}")]);
        assert_eq!(w.core.levels().retained, usize::from(retain));
        let old = w.connect(v3("old").will("old", "a", 0).will_as(1, retain, &[]));
        w.lose(old);
        assert_eq!(w.core.levels().retained, 2 * usize::from(retain));
    }
}

// [MQTT-3.1.2-12] v3
#[test]
fn without_a_will_none_is_published() {
    let mut w = World::new();
    let (watcher, a) = (w.connect(v5("watcher")), w.connect(v3("a")));
    w.subscribe(watcher, "#", 0);
    w.lose(a);
    assert_eq!(w.heard(watcher), [""; 0]);
}

// [MQTT-3.1.4-2] [MQTT-3.1.4-6] [MQTT-3.14.0-1]
#[test]
fn after_a_refused_connect_nothing_is_processed_and_there_is_no_disconnect() {
    let mut w = World::new();
    w.core.set_policy(Limits::default(), false);
    let watcher = w.hello(&v5("watcher").user("ann", ""));
    w.verdict(watcher, crate::broker::core::Verdict::Accepted);
    w.subscribe_with(watcher, "#", options(0), None);
    w.heard(watcher);
    let id = w.raw(Version::V5);
    let mut bytes = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01a".to_vec();
    bytes.extend_from_slice(b"\x30\x05\x00\x01t\x00x");
    w.send_bytes(id, &bytes);
    assert_eq!(w.heard(id), ["CONNACK NotAuthorized"]);
    assert_eq!(w.heard(watcher), [""; 0]);
}

// [MQTT-3.1.2-28]
#[test]
fn there_is_no_response_information() {
    let mut w = World::new();
    for asked in [0, 1] {
        let id = w.hello(&v5("a").with(Property::RequestResponseInformation(asked)));
        assert!(!w.heard_in_full(id).concat().contains("ResponseInformation"));
    }
}

// [MQTT-3.3.1-1] [MQTT-3.3.1-3] [MQTT-4.3.2-2] [MQTT-4.3.2-5] [MQTT-4.3.1-1]
// [MQTT-3.3.1-1] v3 [MQTT-4.3.2-1] v3 [MQTT-4.3.2-2] v3 [MQTT-4.6.0-1] v3
#[test]
fn dup_says_nothing_of_what_goes_on_and_an_answered_id_is_free() {
    for (make, kept) in [(v3 as fn(_) -> _, v3("b").resume()), (v5, v5("b").resume().expiry(60))] {
        let mut w = World::new();
        let (a, b) = (w.connect(make("a")), w.connect(kept.clone()));
        w.subscribe(b, "t", 1);
        publish(&mut w, a, 1, 7, true, "x");
        publish(&mut w, a, 1, 7, true, "y");
        publish(&mut w, a, 0, 0, false, "z");
        assert_eq!(w.heard(a), ["PUBACK 7", "PUBACK 7"]); // [MQTT-4.3.2-4] [MQTT-2.2.1-5]
        assert_eq!(w.heard(b), ["t=x q1 #1", "t=y q1 #2", "t=z"]);
        w.lose(b);
        let b = w.hello(&kept);
        assert_eq!(w.heard(b)[1..], ["t=x q1 #1 dup", "t=y q1 #2 dup"]); // [MQTT-4.3.2-3] [MQTT-4.6.0-1]
    }
}

// [MQTT-3.3.1-5] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT-3.1.2-7] v3 [MQTT-3.3.1-8] v3
#[test]
fn the_last_retained_message_counts_and_outlives_its_session() {
    let mut w = World::new();
    let a = w.connect(v3("a"));
    w.publish_with(a, "t", 1, "first", true, &[]);
    w.publish_with(a, "t", 0, "second", true, &[]);
    w.publish_with(a, "t", 0, "not retained", false, &[]);
    w.publish_with(a, "t", 0, "", false, &[]);
    w.lose(a);
    let b = w.connect(v3("b"));
    w.subscribe_with(b, "t", options(1), None);
    assert_eq!(w.heard(b), ["SUBACK [1]", "t=second retain"]);
    w.publish_with(b, "t", 1, "", true, &[]);
    assert_eq!(w.heard(b), ["t= q1 #1", "PUBACK 1"], "an empty one is passed on");
    assert_eq!(w.core.levels().retained, 0);
}

// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-2.2.1-6]
// [MQTT-3.9.3-2] [MQTT-3.9.3-2] v3
#[test]
fn a_subscribe_of_several_filters_has_one_answer_in_their_order() {
    let filters = [("a", 2), ("$LINK/x", 1), ("a", 0), ("b/#", 1)];
    let mut w = World::new();
    let (new, old) =
        (w.connect(v5("new").with(Property::RequestProblemInformation(0))), w.connect(v3("old")));
    subscribe_all(&mut w, new, 0x102, &filters);
    assert_eq!(w.heard_bytes(new), [0x90, 7, 1, 2, 0, 2, 0x87, 0, 1]);
    subscribe_all(&mut w, old, 0x102, &filters);
    assert_eq!(w.heard_bytes(old), [0x90, 6, 1, 2, 2, 0x80, 0, 1]);
    w.publish(old, "a", 2, "x"); // the later one of the same filter holds
    assert_eq!(w.heard(new), ["a=x"]);
}

// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]
#[test]
fn an_unsubscribe_of_several_filters_has_one_answer_and_takes_equal_ones_only() {
    let mut w = World::new();
    let (new, old) = (w.connect(v5("new")), w.connect(v3("old")));
    for id in [new, old] {
        subscribe_all(&mut w, id, 1, &[("a/1", 0), ("a/+", 0), ("a/#", 0)]);
        w.heard(id);
        unsubscribe_all(&mut w, id, 0x103, &["a/2", "a/+", "A/#"]);
    }
    assert_eq!(w.heard_bytes(new), [0xb0, 6, 1, 3, 0, 0x11, 0, 0x11]);
    assert_eq!(w.heard_bytes(old), [0xb0, 2, 1, 3]);
    unsubscribe_all(&mut w, new, 2, &["a/#"]);
    w.heard(new);
    w.publish(old, "a/2", 0, "x");
    w.publish(old, "a/1", 0, "x");
    assert_eq!(w.heard(new), ["a/1=x"]);
}

// [MQTT-3.10.4-3] [MQTT-3.10.4-3] v3
#[test]
fn what_was_begun_is_completed_after_an_unsubscribe() {
    for make in [v3, v5] {
        let mut w = World::new();
        let a = w.connect(make("a"));
        w.subscribe(a, "t", 2);
        publish(&mut w, a, 2, 1, false, "x");
        unsubscribe_all(&mut w, a, 1, &["t"]);
        w.heard(a);
        w.pubrec(a, 1);
        assert_eq!(w.heard(a), ["PUBREL 1"]);
        w.pubcomp(a, 1);
    }
}

// [MQTT-3.3.4-10] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3]
#[test]
fn without_quota_everything_but_qos_1_and_2_goes_on() {
    let mut w = World::new();
    let a = w.connect(v5("a").with(Property::ReceiveMaximum(1)));
    w.subscribe(a, "t", 2);
    publish(&mut w, a, 1, 1, false, "1");
    publish(&mut w, a, 2, 2, false, "2");
    assert_eq!(w.heard(a), ["t=1 q1 #1", "PUBACK 1", "PUBREC 2"]);
    w.publish(a, "t", 0, "0");
    assert_eq!(w.heard(a), ["t=0"]);
    w.send(a, &Packet::PingReq);
    w.pubrel(a, 2);
    subscribe_all(&mut w, a, 9, &[("u", 0)]);
    assert_eq!(w.heard(a), ["PingResp", "PUBCOMP 2", "SUBACK [0]"]);
    w.puback(a, 1);
    assert_eq!(w.heard(a), ["t=2 q2 #2"]);
    publish(&mut w, a, 1, 3, false, "3");
    w.pubrec(a, 2);
    assert_eq!(w.heard(a), ["PUBACK 3", "PUBREL 2"], "a message at QoS 2 counts until PUBCOMP");
    w.pubcomp(a, 2);
    assert_eq!(w.heard(a), ["t=3 q1 #3"]);
}

// [MQTT-4.3.3-7] [MQTT-4.3.3-13]
#[test]
fn what_was_sent_does_not_expire() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b").expiry(600)));
    w.subscribe(b, "t", 2);
    w.publish_with(a, "t", 2, "x", false, &[Property::MessageExpiryInterval(5)]);
    w.lose(b);
    w.run_for(60.0);
    let b = w.hello(&v5("b").resume().expiry(600));
    assert_eq!(w.heard(b)[1..], ["t=x q2 #1 dup MessageExpiryInterval(5)"]);
    w.heard(a);
    w.pubrel(a, 1);
    assert_eq!(w.heard(a), ["PUBCOMP 1"]);
}

// [MQTT-4.4.0-2]
#[test]
fn what_was_refused_does_not_come_again() {
    let mut w = World::new();
    let a = w.connect(v5("a").expiry(60));
    w.subscribe(a, "t", 2);
    publish(&mut w, a, 1, 1, false, "1");
    publish(&mut w, a, 2, 2, false, "2");
    w.heard(a);
    let reason = ReasonCode::QuotaExceeded;
    let refusal = |id| Ack { packet_id: packet(id), reason, properties: Properties::EMPTY };
    w.send(a, &Packet::PubAck(refusal(1)));
    w.send(a, &Packet::PubRec(refusal(2)));
    w.lose(a);
    let a = w.hello(&v5("a").resume().expiry(60));
    assert_eq!(w.heard(a), ["CONNACK Success present"]);
}

// [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.3.3-6] [MQTT-4.4.0-1]
// [MQTT-4.3.3-1] v3 [MQTT-4.4.0-1] v3
#[test]
fn a_qos_2_message_comes_again_until_pubrec_and_its_pubrel_until_pubcomp() {
    for hello in [v3("b").resume(), v5("b").resume().expiry(60)] {
        let mut w = World::new();
        let (a, mut b) = (w.connect(v5("a")), w.connect(hello.clone()));
        w.subscribe(b, "t", 2);
        publish(&mut w, a, 2, 1, false, "x");
        assert_eq!(w.heard(b), ["t=x q2 #1"]);
        let back = |w: &mut World, b: ConnectionId| {
            w.lose(b);
            let b = w.hello(&hello);
            (b, w.heard(b)[1..].to_vec())
        };
        let (again, lines) = back(&mut w, b);
        assert_eq!(lines, ["t=x q2 #1 dup"]);
        w.pubrec(again, 1);
        assert_eq!(w.heard(again), ["PUBREL 1"]);
        (b, _) = back(&mut w, again);
        let (b2, lines) = back(&mut w, b);
        assert_eq!(lines, ["PUBREL 1"]);
        w.pubcomp(b2, 1);
        let (_, lines) = back(&mut w, b2);
        assert_eq!(lines, [""; 0]);
    }
}

// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4] [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.3.4-1]
// [MQTT-4.6.0-2] v3 [MQTT-4.6.0-3] v3 [MQTT-4.6.0-4] v3 [MQTT-4.6.0-5] v3 [MQTT-4.6.0-6] v3
#[test]
fn answers_and_messages_keep_their_order() {
    for make in [v3, v5] {
        let mut w = World::new();
        let (a, b) = (w.connect(make("a")), w.connect(make("b")));
        w.subscribe(b, "t", 2);
        for (qos, id) in [(2, 1), (1, 2), (2, 3), (1, 4)] {
            publish(&mut w, a, qos, id, false, &id.to_string());
        }
        assert_eq!(w.heard(a), ["PUBREC 1", "PUBACK 2", "PUBREC 3", "PUBACK 4"]);
        assert_eq!(w.heard(b), ["t=1 q2 #1", "t=2 q1 #2", "t=3 q2 #3", "t=4 q1 #4"]);
        w.pubrec(b, 3);
        w.pubrec(b, 1);
        assert_eq!(w.heard(b), ["PUBREL 3", "PUBREL 1"]);
    }
}

// [MQTT-4.8.2-3] [MQTT-4.8.2-4] [MQTT-4.8.2-5]
#[test]
fn a_shared_message_begun_at_qos_2_stays_with_its_member() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a").expiry(60)), w.connect(v5("b").expiry(60)));
    let p = w.connect(v5("p"));
    w.subscribe(a, "$share/g/t", 2);
    w.subscribe(b, "$share/g/t", 1);
    publish(&mut w, p, 2, 1, false, "x");
    publish(&mut w, p, 2, 2, false, "y");
    assert_eq!(w.heard(a), ["t=x q2 #1"]);
    assert_eq!(w.heard(b), ["t=y q1 #1"]);
    w.lose(a);
    let a = w.hello(&v5("a").resume().expiry(60));
    assert_eq!(w.heard(a)[1..], ["t=x q2 #1 dup"]);
    w.lose(a);
    w.run_for(61.0); // its session ends
    assert_eq!(w.heard(b), [""; 0]);
}

// [MQTT-4.8.2-6]
#[test]
fn a_shared_message_that_a_member_refuses_goes_to_no_other() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe(a, "$share/g/t", 1);
    w.subscribe(b, "$share/g/t", 1);
    let p = w.connect(v5("p"));
    publish(&mut w, p, 1, 1, false, "x");
    assert_eq!(w.heard(a), ["t=x q1 #1"]);
    let reason = ReasonCode::QuotaExceeded;
    w.send(a, &Packet::PubAck(Ack { packet_id: packet(1), reason, properties: Properties::EMPTY }));
    w.lose(a);
    assert_eq!(w.heard(b), [""; 0]);
}

// [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-12]
#[test]
fn aliases_up_to_our_maximum_are_taken_and_no_others() {
    for max in [0, 1, 7] {
        let mut w = World::with_limits(Limits { topic_alias_max: max, ..Limits::default() });
        let a = w.connect(v5("a"));
        w.subscribe(a, "t", 0);
        for alias in 1..=max {
            w.publish_with(a, "t", 0, "x", false, &[Property::TopicAlias(alias)]);
        }
        assert_eq!(w.heard(a).len(), usize::from(max));
        w.publish_with(a, "t", 0, "x", false, &[Property::TopicAlias(max + 1)]);
        assert_eq!(w.closed(a), Some(Fault::Violation(Violation::TopicAliasTooLarge)));
    }
}

// [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-3.3.2-4]
#[test]
fn a_request_arrives_as_it_was_sent() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe(b, "t", 0);
    let properties = [
        Property::UserProperty(("z", "1")),
        Property::PayloadFormatIndicator(1),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("answers/a"),
        Property::CorrelationData(b"7"),
        Property::UserProperty(("a", "2")),
        Property::UserProperty(("z", "0")),
    ];
    w.publish_with(a, "t", 0, "x", false, &properties);
    let expected = properties.iter().map(|property| format!(" {property:?}")).collect::<String>();
    assert_eq!(w.heard(b), [format!("t=x{expected}")]);
}

// [MQTT-3.1.2-2] v3
#[test]
fn a_level_that_is_not_served_is_answered_as_it_is_written_and_without_properties() {
    let cases: [(&[u8], &[u8]); 4] = [
        (b"\x10\x0d\x00\x04MQTT\x02\x02\x00\x00\x00\x01a", &[0x20, 2, 0, 1]),
        (b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x01a", &[0x20, 2, 0, 1]),
        (b"\x10\x0d\x00\x04MQTT\xff\x02\x00\x00\x00\x01a", &[0x20, 2, 0, 1]),
        (b"\x10\x0e\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x01a", &[0x20, 3, 0, 0x84, 0]),
    ];
    for (connect, connack) in cases {
        let mut w = World::new();
        let id = w.raw(Version::V5);
        w.send_bytes(id, connect);
        assert_eq!(w.heard_bytes(id), connack);
        assert!(w.closed(id).is_some());
    }
}

// [MQTT-3.8.4-4]
#[test]
fn subscribing_again_loses_nothing_and_shows_what_is_retained() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b").expiry(60).with(Property::ReceiveMaximum(1))));
    w.publish_with(a, "t", 0, "kept", true, &[]);
    w.subscribe_with(b, "t", options(1), None);
    publish(&mut w, a, 1, 1, false, "1");
    publish(&mut w, a, 1, 2, false, "2");
    w.subscribe_with(b, "t", options(1), None);
    w.puback(b, 1);
    let heard = w.heard(b);
    let count = |text: &str| heard.iter().filter(|line| line.starts_with(text)).count();
    assert_eq!((count("t=kept"), count("t=1"), count("t=2")), (2, 1, 1), "{heard:?}");
}
