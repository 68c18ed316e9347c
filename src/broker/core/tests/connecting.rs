//! CONNECT and the ways out.

use super::world::{World, v3, v5};
use crate::broker::core::{Fault, Proof, Verdict};
use crate::mqtt::{
    Packet, PacketId, Properties, QoS, ReasonCode, SubAck, Subscribe, SubscribeFiltersBuf, SubscribeOptions,
    Version, Violation,
};
use crate::settings::Limits;

// [MQTT-3.1.4-5]
#[test]
fn both_versions_are_let_in() {
    let mut w = World::new();
    let a = w.hello(&v3("a"));
    let b = w.hello(&v5("b"));
    assert_eq!(w.heard(a), ["CONNACK Success"]);
    assert_eq!(w.heard(b), ["CONNACK Success"]);
    assert_eq!(w.core.levels().sessions, 2);
}

// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
#[test]
fn a_client_without_an_id_is_given_one_and_told() {
    let mut w = World::new();
    let id = w.hello(&v5(""));
    let bytes = w.core.outgoing(id).to_vec();
    let limits = crate::mqtt::Limits::default();
    let Ok(Some((Packet::ConnAck(ack), _))) = crate::mqtt::decode(&bytes, Version::V5, &limits) else {
        panic!("no CONNACK")
    };
    assert!(ack.properties.assigned_client_identifier().is_some_and(|id| id.starts_with("mqlink-")));
    assert_eq!(ack.properties.receive_maximum(), Some(1_000));
    assert_eq!(ack.properties.maximum_packet_size(), Some(16 << 20));
    assert_eq!(ack.properties.topic_alias_maximum(), Some(1_000));
    let other = w.connect(v3(""));
    assert_ne!(id, other);
    assert_eq!(w.core.levels().sessions, 2);
}

#[test]
fn a_session_that_wants_to_live_too_long_is_told_how_long_it_lives() {
    let mut w = World::with_limits(Limits { session_expiry_s_max: 60, ..Limits::default() });
    let id = w.hello(&v5("a").expiry(u32::MAX));
    let bytes = w.core.outgoing(id).to_vec();
    let limits = crate::mqtt::Limits::default();
    let Ok(Some((Packet::ConnAck(ack), _))) = crate::mqtt::decode(&bytes, Version::V5, &limits) else {
        panic!("no CONNACK")
    };
    assert_eq!(ack.properties.session_expiry_interval(), Some(60));
}

#[test]
fn the_first_packet_is_connect_and_there_is_one() {
    let mut w = World::new();
    for version in [Version::V3, Version::V5] {
        let early = w.raw(version);
        w.send(early, &Packet::PingReq);
        // [MQTT-3.1.0-1] [MQTT-3.1.0-1] v3
        assert_eq!(w.closed(early), Some(Fault::Violation(Violation::FirstPacketNotConnect)));
        assert!(w.heard(early).is_empty());
    }
    let again = [
        (v3("old"), &b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"[..], ""),
        (v5("new"), b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00", "DISCONNECT ProtocolError"),
    ];
    for (hello, connect, told) in again {
        let twice = w.connect(hello);
        w.send_bytes(twice, connect);
        assert_eq!(w.heard(twice).concat(), told);
        // [MQTT-3.1.0-2] [MQTT-3.1.0-2] v3
        assert_eq!(w.closed(twice), Some(Fault::Violation(Violation::SecondConnect)));
    }
}

// [MQTT-3.1.4-1] [MQTT-3.1.4-1] v3 [MQTT-3.2.2-6] v3 [MQTT-4.13.1-1]
#[test]
fn a_malformed_connect_is_answered_in_the_version_it_names() {
    let cases: [(&[u8], Version, &[&str]); 11] = [
        // Who begins with anything else, or with another protocol, is no client, and hears nothing.
        (b"\xf0\x00", Version::V5, &[]),
        (b"\xf1", Version::V5, &[]),
        (b"GET / HTTP/1.1\r\n\r\n", Version::V5, &[]),
        (b"\x10\x0d\x00\x04XQTT\x05\x02\x00\x00\x00\x00\x00", Version::V5, &[]),
        (b"\x10\x0c\x00\x04XQTT\x04\x02\x00\x00\x00\x00", Version::V3, &[]),
        (b"\x10\x00", Version::V5, &[]),
        (
            b"\x10\x0c\x00\x04MQTT\x09\x02\x00\x00\x00\x00",
            Version::V3,
            &["CONNACK UnsupportedProtocolVersion"],
        ),
        (
            b"\x10\x0d\x00\x04MQTT\x09\x02\x00\x00\x00\x00\x00",
            Version::V5,
            &["CONNACK UnsupportedProtocolVersion"],
        ),
        (
            b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x00\x00\x00",
            Version::V3,
            &["CONNACK UnsupportedProtocolVersion"],
        ),
        (b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x00", Version::V5, &["CONNACK MalformedPacket"]),
        (b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x00\x00\x00", Version::V3, &[]),
    ];
    for (bytes, version, expected) in cases {
        let mut w = World::new();
        let id = w.raw(version);
        w.send_bytes(id, bytes);
        assert_eq!(w.heard(id), expected, "{bytes:?}");
        assert!(matches!(w.closed(id), Some(Fault::Violation(_))), "{bytes:?}");
    }
}

#[test]
fn packets_that_only_servers_send_end_the_connection() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.send(
        a,
        &Packet::SubAck(SubAck { packet_id: PacketId::MIN, properties: Properties::EMPTY, reasons: &[0] }),
    );
    assert_eq!(w.heard(a), ["DISCONNECT ProtocolError"]);
}

// [MQTT-3.1.4-2] [MQTT-4.8.0-2] v3
#[test]
fn a_user_is_let_in_or_not_by_the_verdict() {
    let verdicts = [
        (Verdict::Accepted, "CONNACK Success", "CONNACK Success"),
        (Verdict::Refused, "CONNACK BadUserNameOrPassword", "CONNACK BadUserNameOrPassword"),
        (Verdict::Busy, "CONNACK ServerUnavailable", "CONNACK ServerBusy"),
    ];
    for (verdict, in_v3, in_v5) in verdicts {
        for (hello, expected) in [(v3("a"), in_v3), (v5("a"), in_v5)] {
            let mut w = World::new();
            let id = w.hello(&hello.user("ann", "secret"));
            assert_eq!(w.asked, [(id, "ann".to_owned(), b"secret".to_vec())]);
            assert!(!w.core.reads(id));
            w.verdict(id, verdict.clone());
            assert_eq!(w.heard(id), [expected]);
            assert_eq!(w.core.reads(id), verdict == Verdict::Accepted);
        }
    }
}

#[test]
fn where_no_user_is_known_a_name_shows_nothing() {
    let mut w = World::new();
    let id = w.hello(&v5("a").user("ann", "secret"));
    w.verdict(id, Verdict::Anonymous);
    assert_eq!(w.heard(id), ["CONNACK Success"]);
    w.core.close_where(|proof, name| proof != Proof::Nothing || name.is_some(), Fault::NotAuthorized, w.now);
    assert!(w.heard(id).is_empty());
}

// [MQTT-3.12.4-1]
#[test]
fn nothing_is_read_before_the_verdict_and_nothing_is_lost() {
    let mut w = World::new();
    let id = w.hello(&v5("a").user("ann", "secret"));
    let mut bytes = Vec::new();
    Packet::PingReq.encode(Version::V5, &mut bytes);
    assert_eq!(w.send_bytes(id, &bytes), 0);
    w.verdict(id, Verdict::Accepted);
    assert_eq!(w.send_bytes(id, &bytes), bytes.len());
    assert_eq!(w.heard(id), ["CONNACK Success", "PingResp"]);
}

#[test]
fn anonymous_clients_come_in_only_where_they_may() {
    let mut w = World::new();
    w.core.set_policy(Limits::default(), false);
    let (a, b) = (w.hello(&v3("a")), w.hello(&v5("b")));
    assert_eq!(w.heard(a), ["CONNACK NotAuthorized"]);
    assert_eq!(w.heard(b), ["CONNACK NotAuthorized"]);
}

#[test]
fn clients_of_a_barred_user_are_sent_away() {
    let mut w = World::new();
    let ann = w.hello(&v5("a").user("ann", "secret"));
    w.verdict(ann, Verdict::Accepted);
    let anonymous = w.connect(v5("b"));
    w.core.close_where(|_, name| name == Some("ann"), Fault::NotAuthorized, w.now);
    assert_eq!(w.heard(ann), ["CONNACK Success", "DISCONNECT NotAuthorized"]);
    assert!(w.heard(anonymous).is_empty());
}

#[test]
fn a_silent_client_is_let_go_after_one_and_a_half_keep_alives() {
    for (hello, told) in [(v3("a"), ""), (v5("a"), "DISCONNECT KeepAliveTimeout")] {
        let mut w = World::new();
        let id = w.connect(hello.keep_alive(10));
        w.run_for(14.0);
        w.send(id, &Packet::PingReq);
        assert_eq!(w.heard(id), ["PingResp"]); // [MQTT-3.12.4-1] v3
        w.run_for(14.8);
        assert_eq!(w.closed(id), None);
        w.run_for(0.4);
        assert_eq!(w.heard(id).concat(), told);
        assert_eq!(w.closed(id), Some(Fault::KeepAliveTimeout)); // [MQTT-3.1.2-22] [MQTT-3.1.2-24] v3
    }
}

#[test]
fn without_keep_alive_silence_is_fine() {
    let mut w = World::new();
    let id = w.connect(v5("a"));
    w.run_for(100_000.0);
    assert_eq!(w.closed(id), None);
}

#[test]
fn a_socket_without_connect_is_closed() {
    let mut w = World::new();
    let id = w.raw(Version::V5);
    w.run_for(9.0);
    w.send_bytes(id, b"\x10"); // a byte now and then does not help
    w.run_for(0.9);
    assert_eq!(w.closed(id), None);
    w.run_for(0.3);
    assert_eq!(w.closed(id), Some(Fault::ConnectTimeout));
}

#[test]
fn a_second_connection_takes_the_session_over() {
    for (hello, told) in
        [(v3("a").resume(), ""), (v5("a").resume().expiry(60), "DISCONNECT SessionTakenOver")]
    {
        let mut w = World::new();
        let first = w.connect(hello.clone());
        w.subscribe(first, "t", 1);
        let second = w.hello(&hello);
        assert_eq!(w.heard(first).concat(), told); // [MQTT-3.1.4-3]
        assert_eq!(w.closed(first), Some(Fault::SessionTakenOver)); // [MQTT-3.1.4-2] v3
        assert_eq!(w.heard(second), ["CONNACK Success present"]);
        w.lose(first);
        w.publish(second, "t", 0, "x");
        assert_eq!(w.heard(second), ["t=x"]);
        assert_eq!(w.core.levels().connections, 1);
    }
}

// [MQTT-3.1.2-4]
#[test]
fn a_take_over_with_clean_start_begins_anew() {
    let mut w = World::new();
    let first = w.connect(v5("a").expiry(60).will("gone", "a", 5));
    let watcher = w.connect(v5("watcher"));
    w.subscribe(watcher, "gone", 0);
    w.subscribe(first, "t", 1);
    let second = w.hello(&v5("a"));
    assert_eq!(w.heard(second), ["CONNACK Success"]);
    assert_eq!(w.heard(watcher), ["gone=a"]); // its session ended: the delay is over
    w.publish(second, "t", 0, "x");
    assert!(w.heard(second).is_empty());
    assert_eq!(w.core.levels().sessions, 2);
}

// [MQTT-4.13.1-1]
#[test]
fn one_clients_fault_touches_nobody_else() {
    let mut w = World::new();
    let (bad, good) = (w.connect(v5("bad")), w.connect(v5("good")));
    w.subscribe(good, "t", 0);
    w.send_bytes(bad, b"\xff\xff\xff\xff\xff");
    assert_eq!(w.heard(bad), ["DISCONNECT MalformedPacket"]);
    w.publish(good, "t", 0, "still here");
    assert_eq!(w.heard(good), ["t=still here"]);
}

#[test]
fn after_a_fault_nothing_more_is_read() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let mut bytes = b"\xff\x00".to_vec();
    let mut filters = SubscribeFiltersBuf::default();
    filters.push("t", SubscribeOptions::at(QoS::AtMostOnce)).expect("valid");
    let subscribe =
        Subscribe { packet_id: PacketId::MIN, properties: Properties::EMPTY, filters: filters.as_filters() };
    Packet::Subscribe(subscribe).encode(Version::V5, &mut bytes);
    w.send_bytes(a, &bytes);
    assert_eq!(w.heard(a), ["DISCONNECT MalformedPacket"]);
    assert_eq!(w.core.levels().subscriptions, 0);
}

#[test]
fn disconnect_ends_a_session_without_expiry() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.subscribe(a, "t", 0);
    w.disconnect(a, ReasonCode::Success);
    assert_eq!(w.core.levels(), crate::broker::core::Levels::default());
}

#[test]
fn a_user_who_is_barred_before_the_verdict_is_not_let_in() {
    let mut w = World::new();
    let ann = w.hello(&v5("a").user("ann", "secret"));
    w.core.close_where(|_, name| name == Some("ann"), Fault::NotAuthorized, w.now);
    w.verdict(ann, Verdict::Accepted); // by the old rules
    assert_eq!(w.heard(ann), ["CONNACK NotAuthorized"]);
    assert_eq!(w.core.levels().sessions, 0);
}

/// What is not said in a packet's own words, or in none, would be malformed: the decoder of these lines is as strict as ours.
// [MQTT-3.2.2-8] [MQTT-3.14.2-1] [MQTT-3.2.2-6] [MQTT-3.2.2-6] v3
#[test]
fn every_fault_has_a_reason_that_its_packet_may_carry() {
    use Violation as Bad;
    let violations = [
        Bad::StringNotUtf8,
        Bad::UnexpectedPacket,
        Bad::PacketTooLarge,
        Bad::ReceiveMaximumExceeded,
        Bad::TopicAliasTooLarge,
        Bad::UnsupportedProtocolVersion(9),
        Bad::ClientIdEmpty,
        Bad::SubscriptionIdFromClient,
    ];
    let faults = [
        Fault::ConnectTimeout,
        Fault::KeepAliveTimeout,
        Fault::BadUserNameOrPassword,
        Fault::NotAuthorized,
        Fault::ClientIdTaken,
        Fault::TokenExpired,
        Fault::BadAuthenticationMethod,
        Fault::SessionTakenOver,
        Fault::QuotaExceeded,
        Fault::ServerBusy,
        Fault::Kicked,
        Fault::AnswerTooLarge,
        Fault::PayloadFormatInvalid,
        Fault::UseAnotherServer,
        Fault::ServerMoved,
        Fault::ServerShuttingDown,
    ];
    for fault in faults.into_iter().chain(violations.map(Fault::Violation)) {
        for hello in [v3("a"), v5("a")] {
            let mut w = World::new();
            let outside = w.hello(&hello.clone().user("ann", "secret"));
            w.core.close(outside, fault, w.now);
            let refused = w.heard(outside).concat();
            let is_refused = refused.starts_with("CONNACK ") && !refused.contains("Success");
            assert!(is_refused || refused.is_empty(), "{fault:?}: {refused}");
            let inside = w.connect(hello.clone());
            w.core.close(inside, fault, w.now);
            let sent_away = w.heard(inside).concat();
            match hello.is_v3() {
                true => assert_eq!(sent_away, "", "{fault:?}"),
                false => assert!(sent_away.starts_with("DISCONNECT ") && !sent_away.contains("Success")),
            }
        }
    }
}
