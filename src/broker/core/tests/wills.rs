//! Wills: when they are published, and when not.

use super::world::{World, v3, v5};
use crate::mqtt::{Property, ReasonCode};

/// A world with a watcher of `gone`.
fn watched() -> (World, crate::broker::core::ConnectionId) {
    let mut w = World::new();
    let watcher = w.connect(v5("watcher"));
    w.subscribe(watcher, "gone", 1);
    (w, watcher)
}

// [MQTT-3.1.2-10]
#[test]
fn a_lost_client_has_its_will_published() {
    for hello in [v3("a"), v5("a"), v5("a").expiry(60)] {
        let (mut w, watcher) = watched();
        let a = w.connect(hello.will("gone", "a", 0));
        w.lose(a);
        assert_eq!(w.heard(watcher), ["gone=a q1 #1"]); // [MQTT-3.1.2-8]
        w.run_for(120.0);
        assert!(w.heard(watcher).is_empty());
    }
}

#[test]
fn a_client_that_breaks_the_rules_or_falls_silent_has_its_will_published() {
    for make in [v3, v5] {
        let (mut w, watcher) = watched();
        let a = w.connect(make("a").will("gone", "a", 0));
        w.send_bytes(a, b"\xff\x00");
        assert_eq!(w.heard(watcher), ["gone=a q1 #1"]);
        w.lose(a);
        let _silent = w.connect(make("b").will("gone", "b", 0).keep_alive(1));
        w.run_for(2.0);
        assert_eq!(w.heard(watcher), ["gone=b q1 #2"]);
    }
}

// [MQTT-3.14.4-3] v3
#[test]
fn a_client_that_says_goodbye_has_not_unless_it_asks_for_it() {
    for make in [v3, v5] {
        let (mut w, watcher) = watched();
        let a = w.connect(make("a").will("gone", "a", 0));
        w.disconnect(a, ReasonCode::Success);
        assert!(w.heard(watcher).is_empty()); // [MQTT-3.14.4-3]
        let b = w.connect(v5("b").will("gone", "b", 0));
        w.disconnect(b, ReasonCode::DisconnectWithWill);
        assert_eq!(w.heard(watcher), ["gone=b q1 #1"]);
    }
}

#[test]
fn a_delayed_will_waits_and_goes_if_the_client_comes_back() {
    let (mut w, watcher) = watched();
    let a = w.connect(v5("a").expiry(60).will("gone", "1", 10));
    w.lose(a);
    w.run_for(9.0);
    let a = w.hello(&v5("a").resume().expiry(60).will("gone", "2", 10));
    w.run_for(20.0);
    assert!(w.heard(watcher).is_empty()); // [MQTT-3.1.3-9]
    w.lose(a);
    w.run_for(10.2);
    assert_eq!(w.heard(watcher), ["gone=2 q1 #1"]);
}

#[test]
fn a_session_that_ends_before_the_delay_publishes_its_will() {
    let (mut w, watcher) = watched();
    let a = w.connect(v5("a").expiry(5).will("gone", "a", 600));
    w.lose(a);
    w.run_for(5.2);
    assert_eq!(w.heard(watcher), ["gone=a q1 #1"]);
    let b = w.connect(v5("b").will("gone", "b", 600));
    w.lose(b); // no expiry: its session ends now
    assert_eq!(w.heard(watcher), ["gone=b q1 #2"]);
}

#[test]
fn a_take_over_publishes_the_will_of_the_connection_that_went() {
    let (mut w, watcher) = watched();
    let _first = w.connect(v5("a").expiry(60).will("gone", "first", 0));
    let _second = w.hello(&v5("a").resume().expiry(60));
    assert_eq!(w.heard(watcher), ["gone=first q1 #1"]);
}

/// What a will may be late counts from when it is published, also over a restart, and whoever comes later than that misses it.
#[test]
fn a_will_expires_counted_from_its_publication() {
    for crashes in [false, true] {
        for (after, left) in [(3.0, Some(7)), (20.0, None)] {
            let mut w = World::durable();
            let absent = v5("absent").resume().expiry(600);
            let watcher = w.connect(absent.clone());
            w.subscribe(watcher, "gone", 1);
            w.lose(watcher);
            let expires = Property::MessageExpiryInterval(10);
            let a = w.connect(v5("a").expiry(600).will("gone", "a", 5).will_as(1, false, &[expires]));
            w.run_for(60.0);
            w.lose(a);
            match crashes {
                true => w.crash(2.0),
                false => w.run_for(2.0),
            }
            w.run_for(3.1 + after);
            let watcher = w.hello(&absent);
            let told = left.map(|left| format!("gone=a q1 #1 MessageExpiryInterval({left})"));
            assert_eq!(w.heard(watcher).get(1), told.as_ref(), "crashes: {crashes}");
        }
    }
}
