//! What the suites of other brokers look at and ours did not: facts of theirs, in scripts of our own. Where we answer otherwise,
//! docs/conformance.md says why.

use super::world::{Hello, World, mqisdp, options, packet, v3, v5};
use crate::broker::core::Fault;
use crate::mqtt::{
    Packet, PacketId, Properties, Property, Publish, QoS, SubscribeOptions, Version, Violation,
};

fn publish_dup(w: &mut World, id: crate::broker::core::ConnectionId, packet_id: PacketId, topic: &str) {
    let (properties, payload) = (Properties::EMPTY, &b"x"[..]);
    let packet_id = Some(packet_id);
    let qos = QoS::ExactlyOnce;
    w.send(
        id,
        &Packet::Publish(Publish { dup: true, qos, retain: false, topic, packet_id, properties, payload }),
    );
}

/// The will of a connection that is taken over goes out, once, before anything that the newcomer says. mosquitto keeps it
/// back between two sessions that are kept; section 3.1.4 does not.
#[test]
fn a_will_goes_out_once_whatever_takes_over() {
    let kept = |hello: Hello, is_kept: bool| match (is_kept, hello.is_v3()) {
        (false, _) => hello,
        (true, true) => hello.resume(),
        (true, false) => hello.resume().expiry(60),
    };
    for make in [v3, v5] {
        for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut w = World::new();
            let watcher = w.connect(v5("watcher"));
            w.subscribe(watcher, "will", 0);
            w.connect(kept(make("a"), first).will("will", "gone", 0));
            let heir = w.hello(&kept(make("a"), second));
            w.publish(heir, "will", 0, "ready");
            assert_eq!(w.heard(watcher), ["will=gone", "will=ready"], "{first} {second}");
            w.lose(heir);
            assert_eq!(w.heard(watcher), [""; 0]);
        }
    }
}

/// An id of QoS 2 stands for its first message until PUBREL, however often and with whatever topic it comes.
#[test]
fn an_id_at_qos_2_is_one_message_until_it_is_released() {
    for make in [v3, v5] {
        let mut w = World::new();
        let (a, b) = (w.connect(make("a")), w.connect(make("b")));
        w.subscribe(b, "#", 2);
        w.publish_as(a, 312, "first", 2, "x");
        for topic in ["first", "first", "second"] {
            publish_dup(&mut w, a, packet(312), topic);
        }
        assert_eq!(w.heard(a), ["PUBREC 312"; 4]);
        w.pubrel(a, 312);
        w.publish_as(a, 312, "second", 2, "x");
        assert_eq!(w.heard(a), ["PUBCOMP 312", "PUBREC 312"]);
        assert_eq!(w.heard(b), ["first=x q2 #1", "second=x q2 #2"]);
    }
}

#[test]
fn subscription_identifiers_come_change_and_go() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    for (filter, identifiers) in
        [("t", [Some(1), None]), ("+/u", [Some(14), Some(19)]), ("v", [None, Some(21)])]
    {
        for identifier in identifiers {
            w.subscribe_with(a, filter, options(0), identifier);
            w.heard(a);
            let topic = filter.replace('+', "x");
            w.publish(a, &topic, 0, "m");
            let told = identifier.map_or(String::new(), |id| format!(" SubscriptionIdentifier({id})"));
            assert_eq!(w.heard(a), [format!("{topic}=m{told}")]);
        }
    }
}

/// The same identifier at two subscriptions comes twice. [MQTT 5.0, 3.3.4]
#[test]
fn an_identifier_that_was_named_twice_comes_twice() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    for filter in ["t/+", "+/u"] {
        w.subscribe_with(a, filter, options(0), Some(7));
    }
    w.heard(a);
    w.publish(a, "t/u", 0, "m");
    assert_eq!(w.heard(a), ["t/u=m SubscriptionIdentifier(7) SubscriptionIdentifier(7)"]);
}

#[test]
fn client_ids_may_be_longer_than_3_1_allows() {
    let mut w = World::new();
    for make in [mqisdp, v3, v5] {
        w.connect(make("a-client-identifier-of-more-than-23-characters"));
    }
}

#[test]
fn mqtt_3_1_wants_a_client_id() {
    let mut w = World::new();
    let a = w.hello(&mqisdp(""));
    assert_eq!(w.heard(a), ["CONNACK ClientIdentifierNotValid"]);
    assert_eq!(w.closed(a), Some(Fault::Violation(Violation::ClientIdEmpty)));
}

/// 5.0 lets a password stand alone; nobody is known by it.
#[test]
fn a_password_may_stand_alone_in_5_0() {
    let connect = |level: u8, flags: u8| {
        let properties: &[u8] = if level == 5 { &[0] } else { &[] };
        let body = [b"\x00\x04MQTT", &[level, flags, 0, 0][..], properties, b"\x00\x01a\x00\x01p"].concat();
        [&[0x10, body.len() as u8][..], &body].concat()
    };
    let mut w = World::new();
    let a = w.raw(Version::V5);
    w.send_bytes(a, &connect(5, 0x42));
    assert_eq!(w.heard(a), ["CONNACK Success"]);
    let b = w.raw(Version::V3);
    w.send_bytes(b, &connect(4, 0x42));
    assert_eq!(
        (w.heard(b), w.closed(b)),
        (vec![], Some(Fault::Violation(Violation::PasswordWithoutUsername)))
    );
}

/// A client that pings without end and reads nothing is not read any more; one that reads is served.
#[test]
fn a_flood_of_pings_is_answered_as_far_as_it_is_read() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let pings = [0xc0, 0].repeat(1 << 20);
    let used = w.send_bytes(a, &pings);
    assert!((1..pings.len()).contains(&used) && !w.core.reads(a));
    assert_eq!(w.heard_bytes(a).len(), used);
    assert!(w.core.reads(a));
}

/// A DISCONNECT that says 0 ends a session that would have been kept; a later one finds none.
#[test]
fn a_disconnect_may_end_the_session() {
    let mut w = World::new();
    let a = w.connect(v5("a").resume().expiry(60));
    w.send_bytes(a, b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00");
    w.lose(a);
    let a = w.hello(&v5("a").resume().expiry(60));
    assert_eq!(w.heard(a), ["CONNACK Success"]);
}

/// Of a retained message that expires, who subscribes late hears nothing, and who subscribes in time what is left.
#[test]
fn retained_messages_expire() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.publish_with(a, "t", 1, "x", true, &[Property::MessageExpiryInterval(10)]);
    w.run_for(4.0);
    w.subscribe_with(b, "t", options(0), None);
    assert_eq!(w.heard(b), ["SUBACK [0]", "t=x retain MessageExpiryInterval(6)"]);
    w.run_for(7.0);
    w.subscribe_with(b, "t", options(0), None);
    assert_eq!(w.heard(b), ["SUBACK [0]"]);
}

/// Options are 5.0's: while the session's client speaks 3.1.1, its subscriptions have none, and then they have them again.
// [MQTT-4.5.0-1] v3 [MQTT-3.3.1-9] v3
#[test]
fn options_of_5_0_rest_while_the_client_speaks_3_1_1() {
    let mut w = World::new();
    let (a, other) = (w.connect(v5("a").expiry(60)), w.connect(v5("other")));
    let options = SubscribeOptions { no_local: true, retain_as_published: true, ..options(1) };
    w.subscribe_with(a, "t", options, None);
    w.lose(a);
    for (hello, own, flag) in [(v3("a").resume(), true, ""), (v5("a").resume().expiry(60), false, " retain")]
    {
        let a = w.connect(hello);
        w.publish(a, "t", 0, "own");
        assert_eq!(w.heard(a).concat(), if own { "t=own" } else { "" });
        for qos in 0..2 {
            w.publish_with(other, "t", qos, "x", true, &[]);
            let id = if qos == 0 {
                ""
            } else if own {
                " q1 #1"
            } else {
                " q1 #2"
            };
            assert_eq!(w.heard(a), [format!("t=x{id}{flag}")]);
        }
        w.lose(a);
    }
}

/// 3.1 does not use the flags of CONNECT's first byte, and lets user name and password be missing whose flags stand.
#[test]
fn mqtt_3_1_is_taken_with_what_it_leaves_open() {
    let connect = |first: u8, name: &[u8], level: u8, flags: u8| {
        let length = [0, name.len() as u8];
        let body = [&length, name, &[level, flags, 0, 0], b"\x00\x01a"].concat();
        [&[first, body.len() as u8][..], &body].concat()
    };
    for (first, flags) in [(0x1f, 2), (0x10, 0x82), (0x10, 0xc2)] {
        for (name, level, is_old) in [(&b"MQIsdp"[..], 3, true), (b"MQTT", 4, false)] {
            let mut w = World::new();
            let a = w.raw(Version::V3);
            w.send_bytes(a, &connect(first, name, level, flags));
            if flags != 2 && is_old {
                w.verdict(a, crate::broker::core::Verdict::Anonymous);
            }
            assert_eq!(w.heard(a) == ["CONNACK Success"], is_old, "{first} {flags}");
        }
    }
}

/// What is in flight is answered by its own packets; another one with its id is a mistake, where none is none.
// [MQTT-4.3.2-4] [MQTT-4.3.3-8]
#[test]
fn an_answer_of_another_kind_ends_the_connection() {
    type Answer = fn(&mut World, crate::broker::core::ConnectionId, u16);
    let answers: [(&str, Answer); 3] =
        [("puback", World::puback), ("pubrec", World::pubrec), ("pubcomp", World::pubcomp)];
    for make in [v3, v5] {
        for (qos, is_received, right) in
            [(1, false, &["puback"][..]), (2, false, &["pubrec"]), (2, true, &["pubrec", "pubcomp"])]
        {
            for (name, answer) in answers {
                let mut w = World::new();
                let a = w.connect(make("a"));
                w.subscribe(a, "t", 2);
                w.publish(a, "t", qos, "x");
                if is_received {
                    w.pubrec(a, 1);
                }
                answer(&mut w, a, 2); // of nothing
                assert_eq!(w.closed(a), None);
                answer(&mut w, a, 1);
                let is_right = right.contains(&name);
                assert_eq!(w.closed(a).is_none(), is_right, "{name} at QoS {qos}, received: {is_received}");
            }
        }
    }
}

/// A client that takes very little is let in if it can be told what it must know.
#[test]
fn a_connack_that_fits_is_sent() {
    let mut w = World::new();
    let b = w.hello(&v5("b"));
    let length = w.heard_bytes(b).len() as u32;
    for (takes, is_in) in [(length, true), (length - 1, false)] {
        let c = w.hello(&v5("c").with(Property::MaximumPacketSize(takes)));
        assert_eq!(w.closed(c).is_none(), is_in, "{takes} of {length}");
    }
}
