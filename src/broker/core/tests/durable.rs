//! What survives the broker, and what waits until it does.

use std::collections::HashSet;

use super::world::{World, v3, v5};
use crate::broker::core::{ConnectionId, Fault, Verdict};
use crate::mqtt::{Property, ReasonCode};
use crate::settings::Limits;
use crate::store::Op;

/// A world with a publisher, and a subscriber of `t` at this QoS whose session is stored.
fn subscribed(qos: u8) -> (World, ConnectionId, ConnectionId) {
    let mut w = World::durable();
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(600));
    w.subscribe(b, "t", qos);
    (w, a, b)
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let (mut w, a, b) = subscribed(1);
    w.lose(b);
    for payload in ["1", "2", "3"] {
        w.publish(a, "t", 1, payload);
    }
    assert_eq!(w.heard(a), ["PUBACK 1", "PUBACK 1", "PUBACK 1"]);
    w.crash(1.0);
    let b = w.hello(&v3("b").resume());
    assert_eq!(w.heard(b), ["CONNACK Success present", "t=1 q1 #1", "t=2 q1 #2", "t=3 q1 #3"]);
    w.puback(b, 1);
    w.puback(b, 2);
    w.crash(1.0);
    let a = w.connect(v5("a"));
    w.publish(a, "t", 1, "4");
    let b = w.hello(&v5("b").resume().expiry(600));
    assert_eq!(w.heard(b), ["CONNACK Success present", "t=3 q1 #3 dup", "t=4 q1 #4"]);
}

#[test]
fn a_clock_that_is_put_back_makes_nothing_last_longer_than_it_was_to() {
    let mut w = World::durable();
    let b = w.connect(v5("b").expiry(100).will("gone", "x", 30));
    w.subscribe(b, "t", 1);
    w.lose(b);
    let a = w.connect(v5("a"));
    let expiry = [Property::MessageExpiryInterval(60)];
    w.publish_with(a, "t", 1, "1", false, &expiry);
    w.publish_with(a, "kept", 1, "1", true, &expiry);
    w.clock_ms -= 864_000_000;
    w.crash(1.0);
    let exported = w.core.export_session("b", w.now).expect("it is there");
    let will = exported.will.expect("it has one");
    assert_eq!(
        (exported.ends_in_ms, will.due_in_ms, exported.queue[0].expires_in_ms),
        (Some(100_000), Some(30_000), Some(60_000))
    );
    assert_eq!(w.core.levels().retained, 1);
    w.run_for(59.0);
    let c = w.connect(v5("c"));
    w.subscribe_with(c, "kept", super::world::options(1), None);
    assert_eq!(w.heard(c), ["SUBACK [1]", "kept=1 q1 #1 retain MessageExpiryInterval(1)"]);
    w.run_for(2.0);
    let d = w.connect(v5("d"));
    w.subscribe(d, "kept", 1);
    assert_eq!(w.heard(d), [""; 0]);
    w.run_for(40.0);
    assert!(w.core.export_session("b", w.now).is_none());
}

#[test]
fn nothing_is_acknowledged_before_it_is_safe() {
    let (mut w, a, b) = subscribed(1);
    w.lose(b);
    w.unpersisted = Some(Vec::new());
    w.publish(a, "t", 1, "1");
    assert!(w.heard(a).is_empty());
    w.crash(1.0);
    let b = w.hello(&v5("b").resume().expiry(600));
    assert_eq!(w.heard(b), ["CONNACK Success present"]);
}

#[test]
fn sessions_that_end_with_their_connection_leave_the_store_alone() {
    let mut w = World::durable();
    let keys = w.shelf.key_count();
    let (a, b) = (w.connect(v5("a").will("gone", "x", 0)), w.connect(v3("b")));
    w.subscribe(b, "#", 2);
    w.unpersisted = Some(Vec::new());
    w.publish(a, "t", 1, "1");
    w.publish(a, "t", 2, "2");
    w.pubrel(a, 1);
    w.puback(b, 1);
    w.pubrec(b, 2);
    w.pubcomp(b, 2);
    assert_eq!(w.heard(a), ["PUBACK 1", "PUBREC 1", "PUBCOMP 1"]);
    assert_eq!(w.heard(b), ["t=1 q1 #1", "t=2 q2 #2", "PUBREL 2"]);
    w.lose(a);
    assert_eq!((w.unpersisted.as_ref().map(Vec::len), w.shelf.key_count()), (Some(0), keys));
}

#[test]
fn a_subscription_is_acknowledged_once_it_is_safe() {
    let mut w = World::durable();
    let b = w.connect(v5("b").expiry(600));
    w.unpersisted = Some(Vec::new());
    w.subscribe_with(b, "t/+", super::world::options(1), Some(7));
    assert!(w.heard(b).is_empty());
    w.persist();
    assert_eq!(w.heard(b), ["SUBACK [1]"]);
    w.subscribe_with(b, "u", super::world::options(1), None);
    w.crash(1.0);
    let exported = w.core.export_session("b", w.now).expect("it is there");
    assert_eq!(exported.subscriptions.len(), 1);
    assert_eq!(
        (&*exported.subscriptions[0].filter, exported.subscriptions[0].identifier.map(|id| id.get())),
        ("t/+", Some(7))
    );
    let b = w.connect(v5("b").resume().expiry(600));
    w.unsubscribe(b, "t/+");
    assert!(w.heard(b).is_empty());
    w.persist();
    assert_eq!(w.heard(b), ["UNSUBACK [0]"]);
    w.crash(1.0);
    assert_eq!(w.core.levels().subscriptions, 0);
}

#[test]
fn an_exactly_once_message_is_sent_once_it_is_safe_and_with_the_same_id_after_a_crash() {
    let (mut w, a, b) = subscribed(2);
    w.unpersisted = Some(Vec::new());
    w.publish(a, "t", 2, "1");
    w.publish_with(a, "t", 1, "2", false, &[]);
    assert!(w.heard(b).is_empty()); // the second keeps its place
    w.persist();
    assert_eq!(w.heard(b), ["t=1 q2 #1", "t=2 q1 #2"]);
    w.crash(1.0);
    let b = w.hello(&v5("b").resume().expiry(600));
    assert_eq!(w.heard(b)[1..], ["t=1 q2 #1 dup", "t=2 q1 #2 dup"]);
}

#[test]
fn a_release_waits_until_it_is_safe_that_the_client_has_the_message() {
    let (mut w, a, b) = subscribed(2);
    w.publish(a, "t", 2, "1");
    assert_eq!(w.heard(b), ["t=1 q2 #1"]);
    w.unpersisted = Some(Vec::new());
    w.pubrec(b, 1);
    assert!(w.heard(b).is_empty());
    w.persist();
    assert_eq!(w.heard(b), ["PUBREL 1"]);
    w.pubcomp(b, 1); // not written any more
    w.crash(1.0);
    let b = w.hello(&v5("b").resume().expiry(600));
    assert_eq!(w.heard(b), ["CONNACK Success present", "PUBREL 1"]);
}

#[test]
fn a_message_that_came_once_is_known_after_a_crash_until_it_is_released() {
    let mut w = World::durable();
    let b = w.connect(v5("b").expiry(600));
    w.subscribe(b, "t", 1);
    let a = w.connect(v5("a").expiry(600));
    w.publish(a, "t", 2, "1");
    assert_eq!(w.heard(a), ["PUBREC 1"]);
    w.crash(1.0);
    let a = w.connect(v5("a").resume().expiry(600));
    w.publish(a, "t", 2, "1");
    assert_eq!(w.heard(a), ["PUBREC 1"]);
    w.unpersisted = Some(Vec::new());
    w.pubrel(a, 1);
    assert!(w.heard(a).is_empty()); // or the next message with this id would pass for the same
    w.persist();
    assert_eq!(w.heard(a), ["PUBCOMP 1"]);
    let b = w.hello(&v5("b").resume().expiry(600));
    assert_eq!(w.heard(b)[1..], ["t=1 q1 #1 dup"]);
}

#[test]
fn messages_answered_out_of_order_do_not_come_again() {
    let (mut w, a, b) = subscribed(2);
    for (qos, payload) in [(1, "1"), (2, "2"), (1, "3")] {
        w.publish(a, "t", qos, payload);
    }
    assert_eq!(w.heard(b).len(), 3);
    w.pubrec(b, 2);
    w.pubcomp(b, 2);
    w.puback(b, 3);
    w.crash(1.0);
    let a = w.connect(v5("a"));
    w.publish(a, "t", 1, "4");
    let b = w.hello(&v5("b").resume().expiry(600));
    assert_eq!(w.heard(b)[1..], ["t=1 q1 #1 dup", "t=4 q1 #4"]);
}

#[test]
fn a_client_that_takes_fewer_than_before_hears_nothing_twice_and_misses_nothing() {
    let mut w = World::durable();
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(600));
    w.subscribe(b, "t", 2);
    let narrow = v5("b").resume().expiry(600).with(Property::ReceiveMaximum(2));
    (1..=9).for_each(|n| w.publish_as(a, n, "t", 1 + (n % 2) as u8, &n.to_string()));
    assert_eq!(w.heard(b).len(), 9);
    w.pubrec(b, 7);
    w.pubcomp(b, 7);
    w.pubrec(b, 9);
    w.lose(b);
    for _ in 0..2 {
        let b = w.hello(&narrow);
        assert_eq!(w.heard(b)[1..], ["PUBREL 9", "t=1 q2 #1 dup"]);
        w.crash(1.0); // it was connected
    }
    let a = w.connect(v5("a"));
    w.publish(a, "t", 1, "10");
    let b = w.hello(&v5("b").resume().expiry(600));
    let heard = w.heard(b);
    assert_eq!(heard[1], "PUBREL 9");
    assert_eq!(heard[7..], ["t=6 q1 #6 dup", "t=8 q1 #8 dup", "t=10 q1 #10"], "{heard:?}");
}

#[test]
fn a_client_may_take_as_many_at_once_as_there_are_packet_ids() {
    let limits = Limits { inflight_max: u16::MAX, ..Limits::default() };
    let mut w = World::with_limits(limits).with_store();
    let a = w.connect(v5("a"));
    let b = w.connect(v3("b").resume());
    w.subscribe(b, "t", 1);
    w.lose(b);
    (0..66_000).for_each(|_| w.publish(a, "t", 1, ""));
    w.hello(&v3("b").resume()); // it is connected, and answers nothing
    w.crash(1.0);
    let b = w.hello(&v3("b").resume());
    let heard = w.heard(b);
    assert_eq!(heard[..2], ["CONNACK Success present", "t= q1 #1 dup"]);
    assert_eq!((heard.len(), &*heard[65_535]), (65_536, "t= q1 #65535 dup"));
    w.puback(b, 1);
    assert_eq!(w.heard(b), ["t= q1 #1"]);
}

#[test]
fn the_place_of_what_was_answered_is_not_given_again() {
    let (mut w, a, b) = subscribed(2);
    w.publish(a, "t", 2, "1");
    w.publish(a, "t", 1, "2");
    assert_eq!(w.heard(b).len(), 2);
    w.unpersisted = Some(Vec::new());
    w.pubrec(b, 1);
    w.puback(b, 2);
    w.store_down(); // it is written as a whole, without the two messages
    w.store_up();
    w.persist();
    w.crash(1.0);
    let (a, b) = (w.connect(v5("a")), w.hello(&v5("b").resume().expiry(600)));
    w.publish(a, "t", 1, "3");
    w.persist();
    assert_eq!(w.heard(b)[1..], ["PUBREL 1", "t=3 q1 #3"]);
    w.crash(1.0);
    let b = w.hello(&v5("b").resume().expiry(600));
    assert_eq!(w.heard(b)[1..], ["PUBREL 1", "t=3 q1 #3 dup"]);
}

#[test]
fn retained_messages_are_what_they_were() {
    let mut w = World::durable();
    let a = w.connect(v5("a"));
    w.publish_with(a, "r/1", 1, "old", true, &[]);
    w.publish_with(a, "r/1", 0, "new", true, &[Property::ContentType("x")]);
    w.publish_with(a, "r/2", 1, "gone", true, &[]);
    w.publish_with(a, "r/2", 1, "", true, &[]);
    w.publish_with(a, "r/3", 1, "brief", true, &[Property::MessageExpiryInterval(10)]);
    w.publish_with(a, "r/4", 1, "longer", true, &[Property::MessageExpiryInterval(100)]);
    w.crash(50.0);
    assert_eq!(w.core.levels().retained, 2);
    let b = w.connect(v5("b"));
    w.subscribe_with(b, "r/+", super::world::options(1), None);
    let mut heard = w.heard(b);
    heard.sort();
    assert_eq!(
        heard,
        [
            "SUBACK [1]",
            "r/1=new retain ContentType(\"x\")",
            "r/4=longer q1 #1 retain MessageExpiryInterval(50)"
        ]
    );
}

#[test]
fn times_are_honoured_against_the_clock_on_the_wall() {
    let mut w = World::durable();
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(100).will("gone", "b", 40));
    w.subscribe(b, "t", 1);
    let c = w.connect(v5("c").expiry(100).will("gone", "c", 40));
    w.lose(b);
    w.publish_with(a, "t", 1, "brief", false, &[Property::MessageExpiryInterval(10)]);
    w.publish_with(a, "t", 1, "longer", false, &[Property::MessageExpiryInterval(90)]);
    let _ = c; // still connected when the broker dies
    w.crash(30.0);
    let watcher = w.connect(v5("watcher"));
    w.subscribe(watcher, "gone", 0);
    w.run_for(11.0);
    assert_eq!(w.heard(watcher), ["gone=b"]);
    w.run_for(30.0);
    assert_eq!(w.heard(watcher), ["gone=c"]);
    let b = w.hello(&v5("b").resume().expiry(100));
    assert_eq!(w.heard(b)[1..], ["t=longer q1 #2 MessageExpiryInterval(19)"]);
    w.lose(b);
    w.crash(101.0);
    w.run_for(0.3);
    assert_eq!(w.core.levels().sessions, 0);
    w.crash(1.0);
    assert_eq!(w.core.levels().sessions, 0);
}

#[test]
fn a_session_that_ends_is_gone_after_a_crash() {
    let (mut w, a, b) = subscribed(1);
    w.publish(a, "t", 1, "1");
    w.lose(b);
    let b = w.connect(v5("b").expiry(600)); // begins anew
    w.crash(1.0);
    assert_eq!(w.core.levels().subscriptions, 0);
    let _ = b;
    let b = w.connect(v5("b").resume()); // ends with its connection from now on
    w.crash(1.0);
    let _ = b;
    assert_eq!((w.core.levels().sessions, w.shelf.key_count()), (0, 0));
}

#[test]
fn who_begins_anew_hears_so_once_the_old_session_is_gone_for_good() {
    let mut w = World::durable();
    let a = w.connect(v5("a").expiry(600));
    w.publish(a, "t", 2, "1");
    assert_eq!(w.heard(a), ["PUBREC 1 NoMatchingSubscribers"]);
    w.unpersisted = Some(Vec::new());
    let again = w.hello(&v5("a").expiry(600));
    assert_eq!(w.closed(a), Some(Fault::SessionTakenOver));
    assert!(w.heard(again).is_empty() && !w.core.reads(again));
    w.persist();
    assert_eq!(w.heard(again), ["CONNACK Success"]);
    let third = w.hello(&v5("a"));
    assert!(w.heard(third).is_empty());
    w.store_down(); // nobody waits for that
    assert_eq!(w.heard(third), ["CONNACK Success"]);
    w.publish(third, "t", 2, "2");
    assert_eq!(w.heard(third), ["PUBREC 1 NoMatchingSubscribers"]);
}

#[test]
fn a_store_that_is_down_is_said_so_and_nothing_else_suffers() {
    let (mut w, a, b) = subscribed(1);
    let c = w.connect(v5("c"));
    w.subscribe(c, "t/free", 1);
    w.lose(b);
    w.unpersisted = Some(Vec::new());
    w.publish(a, "t", 1, "in doubt");
    w.store_down();
    assert_eq!(w.heard(a), ["PUBACK 1 QuotaExceeded"]);
    w.publish(a, "t", 1, "refused");
    w.publish_with(a, "r", 1, "refused", true, &[]);
    w.publish(a, "t/free", 1, "served");
    w.publish_with(a, "r", 0, "taken", true, &[]);
    assert_eq!(w.heard(a), ["PUBACK 1 QuotaExceeded", "PUBACK 1 QuotaExceeded", "PUBACK 1"]);
    assert_eq!(w.heard(c), ["t/free=served q1 #1"]);
    let old = w.connect(v3("old"));
    w.publish(old, "t", 1, "no word for it");
    assert!(w.closed(old).is_some());
    let b = w.connect(v5("b").resume().expiry(600)); // comes and goes as ever
    w.subscribe_with(b, "more", super::world::options(1), None);
    assert_eq!(w.heard(b).last().map(String::as_str), Some("SUBACK [151]"));
    w.lose(b);

    w.store_up();
    w.persist();
    w.publish(a, "t", 1, "again");
    w.persist();
    assert_eq!(w.heard(a), ["PUBACK 1"]);
    w.crash(1.0);
    assert_eq!(w.core.levels().retained, 1);
    let b = w.hello(&v5("b").resume().expiry(600));
    let heard = w.heard(b);
    assert_eq!(heard.last().map(String::as_str), Some("t=again q1 #2"), "{heard:?}");
}

#[test]
fn what_waits_for_a_store_that_failed_goes_on_when_it_is_back() {
    let (mut w, a, b) = subscribed(2);
    w.publish(a, "t", 2, "1");
    w.heard(b);
    w.unpersisted = Some(Vec::new());
    w.pubrec(b, 1);
    w.store_down();
    assert!(w.heard(b).is_empty());
    w.store_up();
    assert!(w.heard(b).is_empty());
    w.persist();
    assert_eq!(w.heard(b), ["PUBREL 1"]);
    w.crash(1.0);
    let b = w.hello(&v5("b").resume().expiry(600));
    assert_eq!(w.heard(b)[1..], ["PUBREL 1"]);
}

#[test]
fn what_a_store_missed_is_written_in_parts() {
    let mut w = World::durable();
    let a = w.connect(v5("a"));
    let names = ["1", "2", "3", "4", "5", "6"];
    let large = "x".repeat(1 << 20);
    for name in names {
        let b = w.connect(v5(name).expiry(600));
        w.subscribe(b, "t", 1);
        w.lose(b);
    }
    (0..8).for_each(|_| w.publish(a, "t", 1, &large));
    w.unpersisted = Some(Vec::new());
    w.store_down();
    for name in names {
        let b = w.hello(&v5(name).resume().expiry(600).with(Property::ReceiveMaximum(1)));
        w.lose(b);
    }
    w.store_up();
    let mut batches = 0;
    while let Some((_, ops)) = w.unpersisted.as_ref().and_then(|waits| waits.first()) {
        let mib = ops.iter().map(Op::bytes).sum::<usize>() >> 20;
        assert!(mib <= 16 + 8, "{mib} MiB at once");
        batches += 1;
        w.persist_one();
    }
    assert!(batches > 1 && !w.core.is_store_down());
    w.crash(1.0);
    let b = w.hello(&v5("6").resume().expiry(600));
    assert_eq!(w.heard(b).len(), 1 + 8);
}

#[test]
fn a_session_that_ends_while_the_store_is_down_stays_there_until_all_else_is_written() {
    let mut w = World::durable();
    let members = ["m0", "m1"].map(|name| {
        let id = w.connect(v5(name).expiry(600));
        w.subscribe(id, "$share/g/t", 1);
        id
    });
    let old = w.connect(v5("b").expiry(600));
    w.subscribe(old, "old", 1);
    members.into_iter().for_each(|id| w.lose(id));
    let a = w.connect(v5("a"));
    (0..10).for_each(|n| w.publish(a, "t", 1, &n.to_string()));
    w.unpersisted = Some(Vec::new());
    w.store_down();
    // One leaves its share to the other, which is written late; one client begins anew.
    w.connect(v5("m0"));
    for n in 0..80 {
        let id = w.connect(v5(format!("many-{n}").leak()).expiry(600));
        w.lose(id);
    }
    w.connect(v5("b").expiry(600));
    w.store_up();
    w.persist_one();
    assert!(w.unpersisted.as_ref().is_some_and(|waits| !waits.is_empty()), "all is written");
    w.crash(1.0);
    let shares = ["m0", "m1"].map(|name| {
        let id = w.hello(&v5(name).resume().expiry(600));
        w.heard(id).into_iter().filter(|line| line.starts_with("t=")).collect::<Vec<_>>()
    });
    let all: HashSet<_> = shares.iter().flatten().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(all.len(), 10, "{shares:?}");
    assert!(w.core.export_session("b", w.now).expect("it is there").subscriptions.is_empty());
}

#[test]
fn a_store_that_is_slow_keeps_publishers_waiting() {
    let (mut w, a, b) = subscribed(1);
    w.lose(b);
    w.unpersisted = Some(Vec::new());
    let large = "x".repeat(1 << 20);
    for _ in 0..16 {
        w.publish(a, "t", 1, &large);
    }
    assert!(!w.core.reads(a));
    let c = w.connect(v5("c"));
    assert!(w.core.reads(c)); // who does not wait for it is served
    w.persist();
    assert!(w.core.reads(a));
    assert_eq!(w.heard(a).len(), 16);
}

#[test]
fn a_session_stays_with_its_user() {
    let mut w = World::durable();
    let a = w.hello(&v5("a").expiry(600).user("ann", "secret"));
    w.verdict(a, Verdict::Accepted);
    w.crash(1.0);
    let a = w.hello(&v5("a").resume().expiry(600));
    assert_eq!(w.closed(a), Some(Fault::ClientIdTaken));
    let exported = w.core.export_session("a", w.now).expect("it is there");
    assert_eq!(exported.owner.as_deref(), Some("ann"));
}

#[test]
fn an_orderly_goodbye_is_stored() {
    let (mut w, a, b) = subscribed(1);
    w.disconnect(b, ReasonCode::Success);
    w.publish(a, "t", 1, "1");
    w.crash(500.0);
    assert_eq!(w.core.levels().sessions, 1);
    w.run_for(101.0);
    assert_eq!((w.core.levels().sessions, w.shelf.key_count()), (0, 0));
}
