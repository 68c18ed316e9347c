//! Bounds: what is full refuses or drops, counts it, and goes on.

use super::world::{World, options, v3, v5};
use crate::mqtt::Property;
use crate::settings::Limits;

#[test]
fn a_full_queue_drops_the_newest_and_counts() {
    let mut w = World::with_limits(Limits { queued_messages_max: 2, ..Limits::default() });
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(60));
    w.subscribe(b, "t", 1);
    w.lose(b);
    for payload in ["1", "2", "3", "4"] {
        w.publish(a, "t", 1, payload);
    }
    let b = w.hello(&v5("b").resume().expiry(60));
    assert_eq!(w.heard(b)[1..], ["t=1 q1 #1", "t=2 q1 #2"]);
    assert_eq!(w.core.counters().dropped_queue_full, 2);
}

#[test]
fn a_queue_is_bounded_in_bytes() {
    let mut w = World::with_limits(Limits { queued_bytes_max: 1_000, ..Limits::default() });
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(60));
    w.subscribe(b, "t", 1);
    w.lose(b);
    for _ in 0..10 {
        w.publish(a, "t", 1, &"x".repeat(300));
    }
    assert_eq!(w.core.counters().dropped_queue_full, 7);
}

#[test]
fn a_client_that_does_not_read_costs_no_more_than_its_buffer_and_its_queue() {
    let mut w = World::with_limits(Limits { queued_bytes_max: 1 << 20, ..Limits::default() });
    let a = w.connect(v5("a"));
    let slow = w.connect(v5("slow"));
    w.subscribe(slow, "t", 1);
    let payload = "x".repeat(100_000);
    for _ in 0..100 {
        w.publish(a, "t", 0, &payload);
        w.publish(a, "t", 1, &payload);
    }
    assert!(w.core.outgoing(slow).len() < 5 << 20);
    let counters = w.core.counters();
    assert!(counters.dropped_slow > 50, "{counters:?}");
    assert!(counters.dropped_queue_full > 50, "{counters:?}");
    let heard = w.heard(slow).len() as u64; // it reads at last: what was kept comes
    assert_eq!(heard + counters.dropped_slow + counters.dropped_queue_full, 200);
}

#[test]
fn many_retained_messages_all_come_though_they_exceed_the_buffer() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let payload = "x".repeat(100_000);
    for n in 0..100 {
        w.publish_with(a, &format!("r/{n}"), 0, &payload, true, &[]);
    }
    let b = w.connect(v3("b"));
    w.subscribe_with(b, "r/#", options(0), None);
    assert!(w.core.outgoing(b).len() < 5 << 20);
    assert_eq!(w.heard(b).len(), 101);
}

#[test]
fn retained_messages_are_bounded_and_old_ones_may_still_change() {
    let mut w = World::with_limits(Limits { retained_messages_max: 2, ..Limits::default() });
    let a = w.connect(v5("a"));
    for topic in ["1", "2", "3"] {
        w.publish_with(a, topic, 0, "x", true, &[Property::MessageExpiryInterval(10)]);
    }
    assert_eq!(w.core.counters().dropped_retained_full, 1);
    w.publish_with(a, "1", 0, "y", true, &[]);
    w.run_for(11.0);
    w.publish_with(a, "4", 0, "z", true, &[]); // "2" expired: there is room
    assert_eq!(w.core.counters().dropped_retained_full, 1);
    w.subscribe_with(a, "+", options(0), None);
    let mut heard = w.heard(a);
    heard.sort();
    assert_eq!(heard, ["1=y retain", "4=z retain", "SUBACK [0]"]);
}

#[test]
fn subscriptions_and_sessions_are_bounded() {
    let mut w = World::with_limits(Limits { subscriptions_max: 1, sessions_max: 1, ..Limits::default() });
    let a = w.connect(v5("a"));
    w.subscribe(a, "one", 0);
    w.subscribe(a, "one", 1); // replacing is not adding
    w.subscribe_with(a, "two", options(0), None);
    assert_eq!(w.heard(a), ["SUBACK [151]"]);
    let b = w.hello(&v5("b"));
    assert_eq!(w.heard(b), ["CONNACK QuotaExceeded"]);
    let c = w.hello(&v3("c"));
    assert_eq!(w.heard(c), ["CONNACK ServerUnavailable"]);
}

#[test]
fn filters_of_absurd_depth_are_refused_and_topics_of_it_are_served() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.subscribe_with(a, &"a/".repeat(200), options(0), None);
    assert_eq!(w.heard(a), ["SUBACK [143]"]);
    w.subscribe(a, "a/#", 0);
    w.publish(a, &"a/".repeat(30_000), 0, "deep");
    assert_eq!(w.heard(a).len(), 1);
}
