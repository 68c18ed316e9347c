//! Subscription options and identifiers, overlapping subscriptions.

use super::world::{World, handling, options, v3, v5};
use crate::mqtt::{RetainHandling, SubscribeOptions};

#[test]
fn no_local_keeps_a_clients_own_messages_away_from_it() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe_with(a, "t", SubscribeOptions { no_local: true, ..options(0) }, None);
    w.heard(a);
    w.publish(a, "t", 0, "own");
    w.publish(b, "t", 0, "other");
    assert_eq!(w.heard(a), ["t=other"]); // [MQTT-3.8.3-3]
}

#[test]
fn no_local_counts_per_subscription() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe_with(a, "t", SubscribeOptions { no_local: true, ..options(2) }, Some(1));
    w.subscribe_with(a, "+", options(0), Some(2));
    w.heard(a);
    w.publish(a, "t", 1, "own");
    w.publish(b, "t", 1, "other");
    let heard = w.heard(a);
    assert_eq!(heard[..2], ["t=own SubscriptionIdentifier(2)", "PUBACK 1"]);
    assert!(heard[2].starts_with("t=other q1 #1 SubscriptionIdentifier("), "{heard:?}");
    assert_eq!(heard[2].matches("SubscriptionIdentifier").count(), 2);
}

// [MQTT-3.3.4-3] [MQTT-3.3.4-4]
#[test]
fn overlapping_subscriptions_bring_one_copy_at_the_highest_qos_with_all_identifiers() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe_with(b, "t/#", options(0), Some(7));
    w.subscribe_with(b, "t/+", options(2), Some(8));
    w.subscribe_with(b, "t/1", options(1), None);
    w.heard(b);
    w.publish(a, "t/1", 2, "x");
    let heard = w.heard(b);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].starts_with("t/1=x q2 #1"), "{heard:?}"); // [MQTT-3.3.4-2]
    assert!(heard[0].contains("SubscriptionIdentifier(7)") && heard[0].contains("SubscriptionIdentifier(8)"));
}

#[test]
fn identifiers_come_at_each_qos_and_with_retained_messages() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.publish_with(a, "t", 0, "kept", true, &[]);
    w.subscribe_with(a, "t", options(1), Some(268_435_455));
    assert_eq!(w.heard(a), ["SUBACK [1]", "t=kept retain SubscriptionIdentifier(268435455)"]);
    w.publish(a, "t", 0, "x");
    assert_eq!(w.heard(a), ["t=x SubscriptionIdentifier(268435455)"]);
}

#[test]
fn subscribing_again_replaces_the_subscription() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.subscribe_with(a, "t", options(2), Some(1));
    w.subscribe_with(a, "t", options(0), None);
    w.heard(a);
    w.publish(a, "t", 0, "x");
    assert_eq!(w.heard(a), ["t=x"]); // [MQTT-3.8.4-3]
    assert_eq!(w.core.levels().subscriptions, 1);
}

#[test]
fn retain_as_published_keeps_the_flag() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe_with(a, "t", SubscribeOptions { retain_as_published: true, ..options(1) }, None);
    w.subscribe_with(b, "t", options(1), None);
    w.heard(a);
    w.heard(b);
    w.publish_with(a, "t", 0, "x", true, &[]);
    w.publish_with(a, "t", 0, "y", false, &[]);
    assert_eq!(w.heard(a), ["t=x retain", "t=y"]); // [MQTT-3.3.1-13]
    assert_eq!(w.heard(b), ["t=x", "t=y"]); // [MQTT-3.3.1-12]
}

// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
#[test]
fn retain_handling_says_when_retained_messages_are_shown() {
    let cases = [
        (RetainHandling::Send, true, true),
        (RetainHandling::SendIfNew, true, false),
        (RetainHandling::DoNotSend, false, false),
    ];
    for (retain_handling, at_first, again) in cases {
        let mut w = World::new();
        let a = w.connect(v5("a"));
        w.publish_with(a, "t", 0, "kept", true, &[]);
        for expected in [at_first, again] {
            w.subscribe_with(a, "t", handling(0, retain_handling), None);
            assert_eq!(w.heard(a).len() == 2, expected, "{retain_handling:?}");
        }
    }
}

#[test]
fn unsubscribing_says_whether_there_was_anything() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v3("b")));
    w.subscribe(a, "t", 0);
    w.unsubscribe(a, "t");
    w.unsubscribe(a, "t");
    w.unsubscribe(b, "t");
    w.publish(b, "t", 0, "x");
    assert_eq!(w.heard(a), ["UNSUBACK [0]", "UNSUBACK [17]"]);
    assert_eq!(w.heard(b), ["UNSUBACK []"]);
}
