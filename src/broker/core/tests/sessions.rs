//! Sessions that outlive their connections.

use super::world::{World, v3, v5};
use crate::broker::core::{ExportedSession, Fault, ImportError};
use crate::mqtt::{Disconnect, Packet, PropertiesBuf, Property, ReasonCode};
use crate::settings::Limits;
use crate::store::Partition;

// [MQTT-3.1.2-23] [MQTT-3.1.2-5] v3
#[test]
fn what_came_meanwhile_is_there_after_a_reconnect() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v3("b").resume()));
    w.subscribe(b, "t/#", 2);
    w.lose(b);
    w.publish(a, "t/1", 0, "lost");
    w.publish(a, "t/1", 1, "1");
    w.publish(a, "t/2", 1, "2");
    let b = w.hello(&v3("b").resume());
    assert_eq!(w.heard(b), ["CONNACK Success present", "t/1=1 q1 #1", "t/2=2 q1 #2"]);
}

// [MQTT-4.6.0-1]
#[test]
fn what_was_not_answered_comes_again_before_anything_else() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let hello = v5("b").resume().expiry(60).with(Property::ReceiveMaximum(2));
    let b = w.connect(hello.clone());
    w.subscribe(b, "t", 2);
    w.publish(a, "t", 1, "1");
    w.publish(a, "t", 2, "2");
    w.publish(a, "t", 1, "3");
    assert_eq!(w.heard(b), ["t=1 q1 #1", "t=2 q2 #2"]);
    w.pubrec(b, 2);
    w.lose(b);
    let b = w.hello(&hello);
    assert_eq!(w.heard(b), ["CONNACK Success present", "PUBREL 2", "t=1 q1 #1 dup"]); // [MQTT-4.4.0-1]
    w.pubcomp(b, 2);
    assert_eq!(w.heard(b), ["t=3 q1 #3"]);
}

/// A PUBREL needs no quota, so it waits for nothing that does. [MQTT-3.3.4-10]
#[test]
fn a_release_comes_again_however_little_its_client_takes() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b").expiry(60)));
    w.subscribe(b, "t", 2);
    for (id, qos) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        w.publish_as(a, id, "t", qos, &id.to_string());
    }
    w.pubrec(b, 3);
    w.pubrec(b, 4);
    w.lose(b);
    let b = w.hello(&v5("b").resume().expiry(60).with(Property::ReceiveMaximum(1)));
    assert_eq!(w.heard(b)[1..], ["PUBREL 3", "PUBREL 4"]);
    w.pubcomp(b, 3);
    w.pubcomp(b, 4);
    assert_eq!(w.heard(b), ["t=1 q1 #1 dup"]);
    w.puback(b, 1);
    assert_eq!(w.heard(b), ["t=2 q1 #2 dup"]);
}

#[test]
fn a_reconnect_with_a_smaller_window_is_respected() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(60));
    w.subscribe(b, "t", 1);
    for payload in ["1", "2", "3"] {
        w.publish(a, "t", 1, payload);
    }
    assert_eq!(w.heard(b).len(), 3);
    w.lose(b);
    let b = w.hello(&v5("b").resume().expiry(60).with(Property::ReceiveMaximum(1)));
    assert_eq!(w.heard(b)[1..], ["t=1 q1 #1 dup"]);
    w.puback(b, 1);
    assert_eq!(w.heard(b), ["t=2 q1 #2 dup"]);
    w.puback(b, 2);
    assert_eq!(w.heard(b), ["t=3 q1 #3 dup"]);
}

#[test]
fn a_client_may_come_back_with_another_version() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(60));
    w.subscribe(b, "t", 1);
    w.publish_with(a, "t", 1, "in flight", false, &[Property::ContentType("x")]);
    w.heard(b);
    w.lose(b);
    w.publish_with(a, "t", 1, "queued", false, &[Property::ContentType("y")]);
    let b = w.hello(&v3("b").resume());
    assert_eq!(w.heard(b)[1..], ["t=in flight q1 #1 dup", "t=queued q1 #2"]);
}

// [MQTT-3.1.2-23] [MQTT-4.1.0-2]
#[test]
fn a_session_ends_when_its_time_is_over() {
    let mut w = World::new();
    let b = w.connect(v5("b").expiry(10));
    w.subscribe(b, "t", 1);
    w.lose(b);
    w.run_for(9.9);
    assert_eq!(w.core.levels().sessions, 1);
    w.run_for(0.3);
    assert_eq!(w.core.levels(), Default::default());
    let b = w.hello(&v5("b").resume());
    assert_eq!(w.heard(b), ["CONNACK Success"]);
}

// [MQTT-4.1.0-1]
#[test]
fn coming_and_going_piles_up_no_timers_and_ends_nothing_early() {
    let mut w = World::new();
    for _ in 0..50 {
        let b = w.hello(&v5("b").resume().expiry(10));
        w.run_for(7.0);
        w.lose(b);
        w.run_for(7.0);
    }
    assert_eq!(w.core.levels().sessions, 1);
    w.run_for(3.2);
    assert_eq!(w.core.levels().sessions, 0);
}

#[test]
fn disconnect_may_change_the_expiry_but_not_raise_it_from_nothing() {
    let mut w = World::new();
    let mut properties = PropertiesBuf::new();
    properties.push(Property::SessionExpiryInterval(5));
    let goodbye = Packet::Disconnect(Disconnect {
        reason: ReasonCode::Success,
        properties: properties.as_properties(),
    });
    let a = w.connect(v5("a").expiry(60));
    w.send(a, &goodbye);
    w.run_for(4.0);
    assert_eq!(w.core.levels().sessions, 1);
    w.run_for(1.5);
    assert_eq!(w.core.levels().sessions, 0);
    let b = w.connect(v5("b"));
    w.send(b, &goodbye);
    assert_eq!(w.heard(b), ["DISCONNECT ProtocolError"]);
    // What the limit took from it is not nothing by its own word, and a goodbye takes its will back.
    let mut w = World::with_limits(Limits { session_expiry_s_max: 0, ..Limits::default() });
    let watcher = w.connect(v5("watcher"));
    w.subscribe(watcher, "gone", 0);
    let c = w.connect(v5("c").expiry(60).will("gone", "c", 0));
    w.send(c, &goodbye);
    assert_eq!(w.closed(c), Some(Fault::ClientLeft));
    assert_eq!(w.heard(watcher), [""; 0]);
}

/// A world with one session that has some of everything, and nobody connected to it.
fn world_with_a_rich_session() -> World {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(600).with(Property::ReceiveMaximum(3)).will("gone", "b", 300));
    w.subscribe(b, "t/+", 2);
    w.subscribe(b, "$share/g/s", 1);
    w.publish(a, "t/1", 1, "answered");
    w.puback(b, 1);
    w.publish(a, "t/1", 1, "sent");
    w.publish(a, "t/1", 2, "received");
    w.pubrec(b, 3);
    w.publish(b, "x", 2, "half way in");
    w.heard(b);
    w.lose(b);
    w.publish_with(a, "t/2", 1, "queued", false, &[Property::MessageExpiryInterval(100)]);
    w.publish(a, "t/2", 1, "also queued");
    w
}

#[test]
fn an_exported_session_goes_on_elsewhere_as_if_nothing_happened() {
    let mut here = world_with_a_rich_session();
    let exported = here.core.export_session("b", here.now).expect("it is there");
    let json = serde_json::to_string(&exported).expect("it is plain data");
    let read: ExportedSession = serde_json::from_str(&json).expect("it comes back");
    assert_eq!(read, exported);

    let mut there = World::new();
    there.core.import_session(&read, there.now).expect("it is new there");
    assert_eq!(there.core.export_session("b", there.now).as_ref(), Some(&exported));
    assert_eq!(there.core.import_session(&read, there.now), Err(ImportError::Exists));

    let script = |w: &mut World| {
        w.run_for(50.0);
        let b = w.hello(&v5("b").resume().expiry(600).with(Property::ReceiveMaximum(3)));
        let mut heard = w.heard(b);
        w.pubcomp(b, 3);
        w.publish(b, "x", 2, "half way in");
        w.pubrel(b, 1);
        w.publish(b, "t/9", 0, "routed");
        heard.extend(w.heard(b));
        heard
    };
    let (expected, found) = (script(&mut here), script(&mut there));
    assert_eq!(found, expected);
    assert_eq!(
        found,
        [
            "CONNACK Success present",
            "PUBREL 3",
            "t/1=sent q1 #2 dup",
            "t/2=queued q1 #4 MessageExpiryInterval(50)",
            "t/2=also queued q1 #5",
            "PUBREC 1",
            "PUBCOMP 1",
            "t/9=routed",
        ]
    );
}

#[test]
fn an_imported_session_ends_and_publishes_its_will_when_it_would_have() {
    let exported = {
        let w = world_with_a_rich_session();
        w.core.export_session("b", w.now).expect("it is there")
    };
    let mut w = World::new();
    let watcher = w.connect(v5("watcher"));
    w.subscribe(watcher, "gone", 0);
    w.core.import_session(&exported, w.now).expect("it is new there");
    w.run_for(299.0);
    assert!(w.heard(watcher).is_empty());
    w.run_for(1.5);
    assert_eq!(w.heard(watcher), ["gone=b"]);
    w.run_for(300.0);
    assert_eq!(w.core.levels().sessions, 1);
}

#[test]
fn a_damaged_export_is_refused_whole() {
    let w = world_with_a_rich_session();
    let exported = w.core.export_session("b", w.now).expect("it is there");
    let damage: [fn(&mut ExportedSession); 5] = [
        |session| session.queue[0].packet.truncate(3),
        |session| session.in_flight.push(session.in_flight[0].clone()),
        |session| session.subscriptions[0].filter = "a/#/b".to_owned(),
        |session| session.subscriptions[0].qos = 3,
        |session| session.will.as_mut().expect("it has one").packet.push(0),
    ];
    for damage in damage {
        let mut damaged = exported.clone();
        damage(&mut damaged);
        let mut there = World::new();
        assert_eq!(there.core.import_session(&damaged, there.now), Err(ImportError::Invalid));
        assert_eq!(there.core.levels(), Default::default());
    }
}

#[test]
fn sessions_are_found_by_their_partition() {
    let w = world_with_a_rich_session();
    assert_eq!(w.core.clients_of(Partition::of("b")).collect::<Vec<_>>(), ["b"]);
    assert_ne!(Partition::of("a"), Partition::of("b"));
}
