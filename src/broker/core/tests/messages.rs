//! PUBLISH in both directions at each QoS, retained messages, expiry, aliases.

use super::world::{World, options, packet, v3, v5};
use crate::broker::core::Fault;
use crate::mqtt::{
    Ack, Packet, Properties, Property, Publish, QoS, ReasonCode, SubscribeOptions, Version, Violation,
};
use crate::settings::Limits;

// [MQTT-3.8.4-8] [MQTT-2.2.1-2] [MQTT-4.3.1-1]
#[test]
fn qos_is_the_lesser_of_published_and_granted() {
    for published in 0..=2 {
        for granted in 0..=2 {
            let mut w = World::new();
            let (a, b) = (w.connect(v3("a")), w.connect(v5("b")));
            w.subscribe(b, "t", granted);
            w.publish(a, "t", published, "x");
            let expected = match published.min(granted) {
                0 => "t=x".to_owned(),
                qos => format!("t=x q{qos} #1"),
            };
            assert_eq!(w.heard(b), [expected], "published {published}, granted {granted}");
        }
    }
}

#[test]
fn qos_1_is_acknowledged_both_ways() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.publish(a, "t", 1, "x");
    assert_eq!(w.heard(a), ["PUBACK 1 NoMatchingSubscribers"]);
    w.subscribe(b, "t", 1);
    w.publish(a, "t", 1, "y");
    assert_eq!(w.heard(a), ["PUBACK 1"]);
    assert_eq!(w.heard(b), ["t=y q1 #1"]);
    w.puback(b, 1);
    w.puback(b, 1); // twice does no harm
    w.publish(a, "t", 1, "z");
    assert_eq!(w.heard(b), ["t=z q1 #2"]);
}

// [MQTT-4.3.3-4] [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12] [MQTT-4.3.3-2] v3
#[test]
fn qos_2_is_delivered_once_even_if_it_comes_twice() {
    for (make, unknown) in [(v3 as fn(_) -> _, ""), (v5, " PacketIdentifierNotFound")] {
        let mut w = World::new();
        let (a, b) = (w.connect(make("a")), w.connect(make("b")));
        w.subscribe(b, "t", 2);
        w.publish(a, "t", 2, "x");
        w.publish(a, "t", 2, "x"); // our PUBREC was lost
        assert_eq!(w.heard(a), ["PUBREC 1", "PUBREC 1"]);
        w.pubrel(a, 1);
        w.pubrel(a, 1);
        assert_eq!(w.heard(a), ["PUBCOMP 1".to_owned(), format!("PUBCOMP 1{unknown}")]);
        assert_eq!(w.heard(b), ["t=x q2 #1"]);
        w.pubrec(b, 1);
        w.pubrec(b, 1);
        assert_eq!(w.heard(b), ["PUBREL 1", "PUBREL 1"]);
        w.pubcomp(b, 1);
        w.publish(a, "t", 2, "y"); // id 1 is free again
        assert_eq!(w.heard(b), ["t=y q2 #2"]);
    }
}

#[test]
fn a_pubrec_that_refuses_ends_the_message() {
    let mut w = World::new();
    let a = w.connect(v5("a").with(Property::ReceiveMaximum(1)));
    w.subscribe(a, "t", 2);
    w.publish(a, "t", 2, "x");
    w.publish_as(a, 2, "t", 2, "next");
    assert_eq!(w.heard(a), ["t=x q2 #1", "PUBREC 1", "PUBREC 2"]);
    let reason = ReasonCode::QuotaExceeded;
    w.send(a, &Packet::PubRec(Ack { packet_id: packet(1), reason, properties: Properties::EMPTY }));
    assert_eq!(w.heard(a), ["t=next q2 #2"]);
    w.send(a, &Packet::PubRec(Ack::success(packet(7))));
    assert_eq!(w.heard(a), ["PUBREL 7 PacketIdentifierNotFound"]);
}

// [MQTT-2.2.1-4] [MQTT-4.3.2-1]
#[test]
fn a_client_gets_no_more_at_once_than_it_takes_and_the_rest_in_order() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b").with(Property::ReceiveMaximum(2))));
    w.subscribe(b, "t", 1);
    for payload in ["1", "2", "3", "4"] {
        w.publish(a, "t", 1, payload);
    }
    assert_eq!(w.heard(b), ["t=1 q1 #1", "t=2 q1 #2"]); // [MQTT-3.3.4-9]
    w.puback(b, 2); // out of order: room for one
    assert_eq!(w.heard(b), ["t=3 q1 #3"]);
    w.puback(b, 1);
    assert_eq!(w.heard(b), ["t=4 q1 #4"]);
}

// [MQTT-3.3.4-7]
#[test]
fn more_than_our_receive_maximum_ends_the_connection() {
    let mut w = World::with_limits(Limits { inflight_max: 2, ..Limits::default() });
    let a = w.connect(v5("a"));
    for id in 1..=3 {
        let publish = Publish {
            dup: false,
            qos: QoS::ExactlyOnce,
            retain: false,
            topic: "t",
            packet_id: Some(packet(id)),
            properties: Properties::EMPTY,
            payload: b"x",
        };
        w.send(a, &Packet::Publish(publish));
    }
    assert_eq!(w.closed(a), Some(Fault::Violation(Violation::ReceiveMaximumExceeded)));
}

#[test]
fn retained_messages_are_shown_to_who_comes_later() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.publish_with(a, "r/1", 1, "one", true, &[]);
    w.publish_with(a, "r/2", 0, "two", true, &[]);
    w.publish_with(a, "r/2/deep", 0, "three", true, &[]);
    w.heard(a);
    let shown = |w: &mut World, filter| {
        let b = w.connect(v3("b"));
        w.subscribe_with(b, filter, options(1), None);
        let mut heard = w.heard(b);
        heard.sort();
        heard
    };
    assert_eq!(shown(&mut w, "r/+"), ["SUBACK [1]", "r/1=one q1 #1 retain", "r/2=two retain"]);
    assert_eq!(shown(&mut w, "r/2/#"), ["SUBACK [1]", "r/2/deep=three retain", "r/2=two retain"]);
    assert_eq!(shown(&mut w, "#").len(), 4);
    assert_eq!(shown(&mut w, "r"), ["SUBACK [1]"]);
    w.publish_with(a, "r/1", 0, "", true, &[]); // [MQTT-3.3.1-6]
    assert_eq!(shown(&mut w, "r/1"), ["SUBACK [1]"]);
    assert_eq!(w.core.levels().retained, 2);
}

#[test]
fn a_new_message_has_no_retain_flag_for_who_is_there_already() {
    let mut w = World::new();
    let a = w.connect(v3("a"));
    w.subscribe(a, "r", 0);
    w.publish_with(a, "r", 0, "x", true, &[]);
    assert_eq!(w.heard(a), ["r=x"]); // [MQTT-3.3.1-12]
}

#[test]
fn dollar_topics_are_hidden_from_leading_wildcards() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.publish_with(a, "$own/x", 0, "1", true, &[]);
    for filter in ["#", "+/x", "+/#"] {
        w.subscribe(a, filter, 0); // [MQTT-4.7.2-1]
        w.publish(a, "$own/x", 0, "2");
        assert!(w.heard(a).is_empty(), "{filter}");
    }
    w.subscribe_with(a, "$own/#", options(0), None);
    assert_eq!(w.heard(a), ["SUBACK [0]", "$own/x=1 retain"]);
}

// [MQTT-3.3.5-2] v3
#[test]
fn topics_of_the_broker_and_of_links_are_not_for_clients() {
    for topic in ["$LINK/x", "$LINK", "$SYS/broker", "$share/g/t"] {
        let mut w = World::new();
        let (a, b) = (w.connect(v5("a")), w.connect(v3("b")));
        w.publish(a, topic, 0, "x");
        w.publish(a, topic, 1, "x");
        w.publish(a, topic, 2, "x");
        assert_eq!(w.heard(a), ["PUBACK 1 NotAuthorized", "PUBREC 1 NotAuthorized"], "{topic}");
        w.publish(b, topic, 1, "x");
        assert_eq!(w.heard(b), ["PUBACK 1"], "{topic}");
        assert_eq!(w.core.counters().dropped_not_authorized, 4);
        let c = w.hello(&v5("c").will(topic_static(topic), "x", 0));
        assert_eq!(w.heard(c), ["CONNACK NotAuthorized"]);
    }
    let mut w = World::new();
    let a = w.connect(v5("a"));
    for filter in ["$LINK/#", "$LINK/+/x", "$share/g/$LINK/#"] {
        w.subscribe_with(a, filter, options(1), None);
        assert_eq!(w.heard(a), ["SUBACK [135]"], "{filter}");
    }
}

fn topic_static(topic: &str) -> &'static str {
    ["$LINK/x", "$LINK", "$SYS/broker", "$share/g/t"]
        .into_iter()
        .find(|&known| known == topic)
        .expect("a known one")
}

#[test]
fn expiry_counts_down_and_ends() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(100));
    w.subscribe(b, "t", 1);
    w.lose(b);
    w.publish_with(a, "t", 1, "short", true, &[Property::MessageExpiryInterval(5)]);
    w.publish_with(a, "t", 1, "long", true, &[Property::MessageExpiryInterval(20)]);
    w.run_for(10.0);
    let b = w.hello(&v5("b").resume().expiry(100));
    let heard = w.heard(b);
    assert_eq!(heard[1..], ["t=long q1 #2 MessageExpiryInterval(10)"]); // [MQTT-3.3.2-5], [MQTT-3.3.2-6]
    assert_eq!(w.core.counters().dropped_expired, 1);
    let c = w.connect(v5("c"));
    w.subscribe_with(c, "t", options(0), None);
    assert_eq!(w.heard(c), ["SUBACK [0]", "t=long retain MessageExpiryInterval(10)"]);
    w.run_for(11.0);
    let d = w.connect(v5("d"));
    w.subscribe(d, "t", 0);
}

#[test]
fn properties_travel_and_those_of_the_connection_do_not() {
    let mut w = World::new();
    let (a, b, c) = (w.connect(v5("a")), w.connect(v5("b")), w.connect(v3("c")));
    w.subscribe(b, "t", 1);
    w.subscribe(c, "t", 1);
    let properties = [
        Property::ContentType("text"),
        Property::TopicAlias(3),
        Property::UserProperty(("k", "v")),
        Property::UserProperty(("k", "w")),
    ];
    w.publish_with(a, "t", 1, "x", false, &properties);
    assert_eq!(
        w.heard(b),
        ["t=x q1 #1 ContentType(\"text\") UserProperty((\"k\", \"v\")) UserProperty((\"k\", \"w\"))"]
    );
    assert_eq!(w.heard(c), ["t=x q1 #1"]);
}

#[test]
fn a_topic_alias_stands_for_its_topic_until_it_gets_another() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.subscribe(a, "#", 0);
    let alias = [Property::TopicAlias(1)];
    w.publish_with(a, "one", 0, "1", false, &alias);
    w.publish_with(a, "", 0, "2", false, &alias);
    w.publish_with(a, "two", 0, "3", false, &alias);
    w.publish_with(a, "", 0, "4", false, &alias);
    assert_eq!(w.heard(a), ["one=1", "one=2", "two=3", "two=4"]);
}

#[test]
fn wrong_topic_aliases_end_the_connection() {
    let cases = [
        ("", 1, Violation::TopicAliasUnknown),
        ("t", 1_001, Violation::TopicAliasTooLarge), // [MQTT-3.3.2-9]
    ];
    for (topic, alias, violation) in cases {
        let mut w = World::new();
        let a = w.connect(v5("a"));
        w.publish_with(a, topic, 0, "x", false, &[Property::TopicAlias(alias)]);
        assert_eq!(w.closed(a), Some(Fault::Violation(violation)));
    }
}

#[test]
fn a_clients_publish_carries_no_subscription_identifier() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.publish_with(a, "t", 0, "x", false, &[Property::SubscriptionIdentifier(1)]);
    assert_eq!(w.closed(a), Some(Fault::Violation(Violation::SubscriptionIdFromClient))); // [MQTT-3.3.4-6]
}

#[test]
fn what_a_client_cannot_take_is_not_sent() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b").with(Property::MaximumPacketSize(30))));
    w.subscribe(b, "t", 1);
    w.publish(a, "t", 0, "this is longer than thirty bytes, surely");
    w.publish(a, "t", 1, "this is longer than thirty bytes, surely");
    w.publish(a, "t", 1, "short");
    assert_eq!(w.heard(b), ["t=short q1 #2"]); // [MQTT-3.1.2-25]
    assert_eq!(w.core.counters().dropped_oversize, 2);
}

// [MQTT-3.2.2-15]
#[test]
fn what_we_cannot_take_ends_the_connection() {
    let mut w = World::with_limits(Limits { packet_bytes_max: 100, ..Limits::default() });
    let a = w.connect(v5("a"));
    w.publish(a, "t", 0, &"x".repeat(200));
    assert_eq!(w.heard(a), ["DISCONNECT PacketTooLarge"]);
}

#[test]
fn packets_may_come_byte_by_byte() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.subscribe(a, "t", 0);
    let mut bytes = Vec::new();
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"slow",
    };
    Packet::Publish(publish).encode(Version::V5, &mut bytes);
    for end in 1..bytes.len() {
        assert_eq!(w.send_bytes(a, &bytes[..end]), 0);
    }
    assert_eq!(w.send_bytes(a, &bytes), bytes.len());
    assert_eq!(w.heard(a), ["t=slow"]);
}

#[test]
fn acknowledgements_wait_for_the_store_and_keep_their_order() {
    let mut w = World::durable();
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(60));
    w.subscribe(b, "kept", 1);
    w.unpersisted = Some(Vec::new());
    w.publish(a, "free", 1, "0");
    assert_eq!(w.heard(a), ["PUBACK 1 NoMatchingSubscribers"]); // nothing that must survive
    w.publish(a, "kept", 1, "1");
    w.publish(a, "free", 1, "2");
    w.publish_with(a, "free", 2, "3", true, &[]);
    assert!(w.heard(a).is_empty());
    assert_eq!(w.unpersisted.as_ref().map(Vec::len), Some(2));
    assert!(w.persist_one());
    assert_eq!(w.heard(a), ["PUBACK 1", "PUBACK 1 NoMatchingSubscribers"]); // [MQTT-4.6.0-2]
    w.persist();
    assert_eq!(w.heard(a), ["PUBREC 1 NoMatchingSubscribers"]);
}

#[test]
fn a_message_of_no_life_at_all_reaches_who_can_take_it_now() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b").with(Property::ReceiveMaximum(1))));
    w.subscribe(b, "t", 1);
    let moment = [Property::MessageExpiryInterval(0)];
    w.publish_with(a, "t", 0, "1", false, &moment);
    w.publish_with(a, "t", 1, "2", false, &moment);
    w.publish_with(a, "t", 1, "3", false, &moment); // has to wait
    assert_eq!(w.heard(b), ["t=1 MessageExpiryInterval(0)", "t=2 q1 #1 MessageExpiryInterval(0)"]);
    w.puback(b, 1);
    assert!(w.heard(b).is_empty());
    assert_eq!(w.core.counters().dropped_expired, 1);
}

/// What goes out as it came must not carry what was between its publisher and us.
// [MQTT-3.3.1-3] [MQTT-3.3.1-12] [MQTT-3.3.1-13]
#[test]
fn a_message_leaves_without_the_dup_and_retain_that_it_came_with() {
    for (published, version) in (0..=2).flat_map(|qos| [(qos, v3("b")), (qos, v5("b"))]) {
        let mut w = World::new();
        let (a, b, c) = (w.connect(v5("a")), w.connect(version), w.connect(v5("c")));
        w.subscribe(b, "t", 2);
        w.subscribe_with(c, "t", SubscribeOptions { retain_as_published: true, ..options(2) }, None);
        w.heard(c);
        let publish = Publish {
            dup: published > 0,
            qos: QoS::from_u8(published).expect("0 to 2"),
            retain: true,
            topic: "t",
            packet_id: (published > 0).then_some(packet(77)),
            properties: Properties::EMPTY,
            payload: b"x",
        };
        w.send(a, &Packet::Publish(publish));
        let id = if published > 0 { format!(" q{published} #1") } else { String::new() };
        assert_eq!(w.heard(b), [format!("t=x{id}")]);
        assert_eq!(w.heard(c), [format!("t=x{id} retain")]);
    }
}

/// Messages of all lengths come and are acknowledged in any order: what one leaves in memory is no part of another.
#[test]
fn messages_keep_their_content_while_others_come_and_go() {
    let mut w = World::new();
    let (a, b, late) = (w.connect(v5("a")), w.connect(v5("b")), w.connect(v3("late").resume()));
    w.subscribe(b, "t", 1);
    w.subscribe(late, "t", 1);
    w.lose(late);
    let mut expected = Vec::new();
    for n in 0..300_usize {
        let payload = n.to_string().repeat(1 + n * 29 % 90);
        w.publish(a, "t", 1, &payload);
        expected.push(format!("t={payload} q1 #{}", n + 1));
        let heard = w.heard(b);
        assert_eq!(heard, expected[n..]);
        if n % 3 > 0 {
            w.puback(b, (n / 2 + 1) as u16);
        }
    }
    let late = w.hello(&v3("late").resume());
    assert_eq!(w.heard(late)[1..], expected);
}

#[test]
fn who_has_nothing_to_read_holds_no_buffer() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe(b, "t", 1);
    for _ in 0..100 {
        w.publish(a, "t", 1, &"x".repeat(500));
    }
    let room = |w: &World, id| w.core.wires.get(id).expect("it is open").out.open.capacity();
    assert!(room(&w, a) > 0 && room(&w, b) > 0);
    for id in [a, b] {
        w.heard(id);
        assert_eq!(room(&w, id), 0);
    }
}

#[test]
fn a_slow_client_is_not_asked_again_for_what_it_does_not_get() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe(b, "t", 0);
    w.heard(b);
    while w.core.counters().dropped_slow == 0 {
        w.publish(a, "t", 0, &"x".repeat(60_000));
    }
    w.core.take_dirty(&mut Vec::new());
    w.publish(a, "t", 0, &"x".repeat(60_000));
    assert!(!w.core.has_dirty(), "nothing was added to its buffer");
}
