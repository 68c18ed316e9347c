//! What costs more than its bytes is counted as work, and done in parts.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::access::{allow, rules, world};
use super::world::{World, options, v5};
use crate::broker::core::ConnectionId;
use crate::broker::core::recipients::{Recipients, Subscriber};
use crate::mqtt::QoS;

/// What a turn has, about.
const WORK: u64 = 1 << 20;

fn name(text: String) -> &'static str {
    text.leak()
}

/// Lets a client publish so many times to changing topics, and tells the most that were handled in one part.
fn publish_in_parts(
    w: &mut World,
    publisher: ConnectionId,
    topic: impl Fn(usize) -> String,
    count: usize,
) -> u64 {
    let mut bytes = Vec::new();
    for n in 0..count {
        let topic = topic(n);
        bytes.extend([0x30, (topic.len() + 3) as u8, 0, topic.len() as u8]);
        bytes.extend(topic.as_bytes());
        bytes.push(0);
    }
    let (mut used, mut most) = (0, 0);
    while used < bytes.len() {
        let before = w.core.counters().received;
        used += w.core.handle_some(publisher, &bytes[used..], WORK, w.now);
        most = most.max(w.core.counters().received - before);
        w.settle();
    }
    most
}

#[test]
fn a_topic_that_many_filters_match_is_work() {
    let mut w = World::new();
    let (reader, publisher) = (w.connect(v5("reader")), w.connect(v5("publisher")));
    for n in 0..1_024_u32 {
        let levels = (0..10).map(|at| if n >> at & 1 == 1 { "+/" } else { "a/" });
        w.subscribe_with(reader, &(levels.collect::<String>() + "#"), options(0), Some(n + 1));
    }
    w.heard(reader);
    // Some 4,000 nodes, filters and subscriptions, and 5 kB of identifiers.
    let most = publish_in_parts(&mut w, publisher, |n| format!("{}{n}", "a/".repeat(10)), 100);
    assert!(most <= 9, "{most} in one part");
    let heard = w.heard(reader);
    assert_eq!(heard.len(), 100);
    assert_eq!(heard[99].matches("SubscriptionIdentifier").count(), 1_024);
    // What few filters match is none.
    let few = publish_in_parts(&mut w, publisher, |n| format!("b/{n}"), 100);
    assert_eq!(few, 100);
}

#[test]
fn very_many_subscriptions_of_one_session_are_made_one_without_delay() {
    let mut recipients = Recipients::default();
    for n in 1..=200_000 {
        let identifier = NonZeroU32::new(n);
        let (qos, no_local, retain_as_published) = (QoS::AtMostOnce, n % 2 == 0, false);
        recipients.add(&[Subscriber { session: 1, identifier, qos, no_local, retain_as_published }], &[]);
    }
    let start = Instant::now();
    recipients.merge();
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(3), "{taken:?}"); // minutes, if each were joined with all before it
    let count = |publisher| {
        let grant = recipients.sessions[0].grant(publisher).expect("it gets it");
        grant.identifiers.as_ref().map(|all| all.len())
    };
    assert_eq!((recipients.sessions.len(), count(None), count(Some(1))), (1, Some(200_000), Some(100_000)));
}

#[test]
fn rules_that_are_asked_for_a_topic_or_a_filter_are_work() {
    let filters: Vec<_> = (0..10).map(|n| name(format!("x{n}/${{clientid}}/#"))).collect();
    let mut all = vec![allow(crate::settings::Action::All, &filters); 60];
    all.push(allow(crate::settings::Action::All, &["t/#"]));
    let mut w = world(&rules(all));
    let publisher = w.connect(v5("publisher"));
    let most = publish_in_parts(&mut w, publisher, |n| format!("t/{n}"), 200);
    assert!(most <= 60, "{most} in one part");
    assert_eq!(w.core.counters().received, 200);

    let routed = w.core.routed();
    w.subscribe(publisher, "t/#", 0);
    assert!(w.core.routed() - routed > 150_000);
}

#[test]
fn the_levels_of_a_retained_topic_are_work() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let routed = w.core.routed();
    w.publish_with(a, &"/".repeat(10_000), 0, "x", true, &[]);
    assert!(w.core.routed() - routed > 1_000_000);
}

#[test]
fn long_topics_are_not_remembered() {
    let mut w = world(&rules(vec![allow(crate::settings::Action::All, &["#"])]));
    for (bytes, is_remembered) in [(1_024, true), (1_025, false)] {
        let id = w.connect(v5(name(format!("c{bytes}"))));
        w.publish(id, &"x".repeat(bytes), 0, "");
        let connection = w.core.wires.get(id).expect("it is open");
        let has = (connection.last_topic.is_some(), connection.granted.is_some());
        assert_eq!(has, (is_remembered, is_remembered), "{bytes}");
    }
}

#[test]
fn what_ends_with_a_connection_is_known_before() {
    let mut w = World::new();
    for (hello, ends) in [(v5("a"), 3), (v5("b").expiry(10), 0)] {
        let id = w.connect(hello);
        for filter in ["t/1", "t/+", "$share/g/t"] {
            w.subscribe(id, filter, 0);
        }
        assert_eq!(w.core.subscriptions_that_end_with(id), ends);
    }
}

#[test]
fn sessions_that_end_at_the_same_moment_do_so_in_parts() {
    const EACH: usize = 200;
    let mut w = World::new();
    for n in 0..40 {
        let id = w.connect(v5(name(format!("c{n}"))).expiry(10));
        for n in 0..EACH {
            w.subscribe(id, &format!("t/{n}"), 0);
        }
        w.lose(id);
    }
    let left = |w: &World| w.core.levels().subscriptions;
    assert_eq!(left(&w), 40 * EACH);
    w.now += Duration::from_secs(11);
    w.core.handle_timeout(w.now);
    let mut before = left(&w);
    assert!((30 * EACH..40 * EACH).contains(&before), "{before} are left");
    while w.core.has_work() {
        w.core.handle_work(w.now);
        let gone = before - left(&w);
        assert!(gone <= 7 * EACH, "{gone} in one part");
        before = left(&w);
    }
    assert_eq!((before, w.core.levels().sessions), (0, 0));
}

#[test]
fn wills_that_are_due_at_the_same_moment_go_out_in_parts() {
    let mut w = World::new();
    for n in 0..100 {
        let reader = w.connect(v5(name(format!("r{n}"))));
        w.subscribe(reader, "will", 0);
    }
    for n in 0..500 {
        let id = w.connect(v5(name(format!("w{n}"))).expiry(100).will("will", "gone", 5));
        w.lose(id);
    }
    let sent = w.core.counters().sent;
    w.now += Duration::from_secs(6);
    w.core.handle_timeout(w.now);
    let first = w.core.counters().sent - sent;
    assert!((1..20_000).contains(&first), "{first} in one part");
    w.settle();
    assert_eq!(w.core.counters().sent - sent, 50_000);
}
