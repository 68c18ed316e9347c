//! Bounds: what is full refuses or drops, counts it, and goes on.

use super::world::{World, options, packet, v3, v5};
use crate::broker::core::{Fault, Pressure, Verdict};
use crate::mqtt::{
    Packet, PacketId, Properties, Property, Publish, QoS, Subscribe, SubscribeFiltersBuf, Unsubscribe,
    UnsubscribeFiltersBuf, Version, Violation, decode,
};
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
fn what_has_expired_makes_room_in_a_full_queue_and_on_disk() {
    let until = |s| [Property::MessageExpiryInterval(s)];
    for (stored, first) in [(false, false), (false, true), (true, false), (true, true)] {
        let w = World::with_limits(Limits { queued_messages_max: 5, ..Limits::default() });
        let mut w = if stored { w.with_store() } else { w };
        let a = w.connect(v5("a"));
        let b = w.connect(v5("b").expiry(1_000));
        w.subscribe(b, "t", 1);
        w.lose(b);
        if first {
            w.publish(a, "t", 1, "first");
        }
        (usize::from(first)..4).for_each(|_| w.publish_with(a, "t", 1, "old", false, &until(1)));
        w.publish(a, "t", 1, "0");
        w.run_for(2.0);
        ["1", "2", "3"].iter().for_each(|payload| w.publish(a, "t", 1, payload));
        assert_eq!(w.core.counters().dropped_queue_full, 0);
        for is_answered in [false, true] {
            if stored {
                w.crash(1.0);
            }
            let b = w.hello(&v5("b").resume().expiry(1_000));
            let heard = w.heard(b);
            if !is_answered {
                let payloads: Vec<_> = heard[1..].iter().filter_map(|one| one.split(' ').next()).collect();
                assert_eq!(payloads[usize::from(first)..], ["t=0", "t=1", "t=2", "t=3"], "{stored} {first}");
                let ids = heard[1..].iter().filter_map(|one| one.rsplit('#').next()?.parse().ok());
                ids.for_each(|id| w.puback(b, id));
            } else {
                assert_eq!(heard.len(), 1, "all were answered: {heard:?}");
            }
            w.lose(b);
        }
    }
}

#[test]
fn what_has_expired_in_front_makes_room_without_a_search() {
    let mut w = World::with_limits(Limits { queued_messages_max: 2, ..Limits::default() });
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(1_000));
    w.subscribe(b, "t", 1);
    w.lose(b);
    let publish = |w: &mut World| w.publish_with(a, "t", 1, "", false, &[Property::MessageExpiryInterval(1)]);
    (0..2).for_each(|_| publish(&mut w));
    for _ in 0..3 {
        w.run_for(2.0);
        (0..2).for_each(|_| publish(&mut w));
        assert_eq!(w.core.counters().dropped_queue_full, 0);
    }
}

#[test]
fn a_full_queue_is_not_searched_at_each_message() {
    let mut w = World::with_limits(Limits { queued_messages_max: 2, ..Limits::default() });
    let a = w.connect(v5("a"));
    let b = w.connect(v5("b").expiry(1_000));
    w.subscribe(b, "t", 1);
    w.lose(b);
    w.publish(a, "t", 1, "first");
    let publish = |w: &mut World| w.publish_with(a, "t", 1, "", false, &[Property::MessageExpiryInterval(1)]);
    publish(&mut w);
    for (seconds, refused) in [(2.0, 0), (2.0, 1), (10.0, 1)] {
        w.run_for(seconds);
        publish(&mut w);
        assert_eq!(w.core.counters().dropped_queue_full, refused, "after {seconds} s more");
    }
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
    assert!(w.core.waiting(slow) < 5 << 20);
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
    assert!(w.core.waiting(b) < 5 << 20);
    assert_eq!(w.heard(b).len(), 101);
}

#[test]
fn retained_messages_are_bounded_and_old_ones_may_still_change() {
    let mut w = World::with_limits(Limits { retained_messages_max: 2, ..Limits::default() });
    for own in ["$SYS/1", "$SYS/2", "$SYS/3"] {
        w.core.publish_own(own, "x".to_owned(), w.now);
    }
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
fn a_packet_has_no_more_filters_looked_at_than_a_session_may_have() {
    let mut w = World::with_limits(Limits { subscriptions_max: 2, ..Limits::default() });
    for hello in [v5("a"), v3("b")] {
        let (is_v3, a) = (hello.is_v3(), w.connect(hello));
        let (mut filters, mut gone) = (SubscribeFiltersBuf::default(), UnsubscribeFiltersBuf::default());
        (0..4).for_each(|_| filters.push("t", options(0)).expect("it is valid"));
        (0..3).for_each(|_| gone.push("t").expect("it is valid"));
        let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
        w.send(a, &Packet::Subscribe(Subscribe { packet_id, properties, filters: filters.as_filters() }));
        let suback = if is_v3 { "SUBACK [0, 0, 128, 128]" } else { "SUBACK [0, 0, 151, 151]" };
        assert_eq!(w.heard(a), [suback]);
        w.send(a, &Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: gone.as_filters() }));
        assert_eq!(w.closed(a), Some(Fault::QuotaExceeded));
    }
    assert_eq!(w.core.counters().subscriptions_over_quota, 4);
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

#[test]
fn a_client_that_leaves_our_answers_unread_is_not_read() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let pings = [0xc0, 0x00].repeat(1 << 20);
    let used = w.send_bytes(a, &pings);
    assert!(used < pings.len() && !w.core.reads(a));
    assert!(w.core.waiting(a) < 300 << 10);
    assert_eq!(w.heard(a).len(), used / 2);
    assert!(w.core.reads(a)); // and goes on where it stopped
    assert!(w.send_bytes(a, &pings[used..]) > 0);
}

#[test]
fn a_client_that_never_acknowledges_holds_few_bytes_in_flight() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe(b, "t", 1);
    let payload = "x".repeat(1 << 20);
    let mut heard = 0;
    for _ in 0..100 {
        w.publish(a, "t", 1, &payload);
        w.heard(a);
        heard += w.heard(b).len();
    }
    assert_eq!(heard, 32);
    assert!(w.core.counters().dropped_queue_full > 0);
    for id in 1..=32 {
        w.puback(b, id);
    }
    assert_eq!(w.heard(b).len(), 32);
}

#[test]
fn retained_messages_are_not_searched_on_for_who_has_no_room() {
    let mut w = World::with_limits(Limits { queued_messages_max: 10, ..Limits::default() });
    let a = w.connect(v5("a"));
    for n in 0..100 {
        w.publish_with(a, &format!("r/{n}"), 1, "x", true, &[]);
    }
    let b = w.connect(v5("b").with(Property::ReceiveMaximum(1)));
    let mut filters = SubscribeFiltersBuf::default();
    for _ in 0..1_000 {
        filters.push("#", options(1)).expect("the filter is valid");
    }
    let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
    w.send(b, &Packet::Subscribe(Subscribe { packet_id, properties, filters: filters.as_filters() }));
    assert_eq!(w.heard(b).len(), 2); // the rest of the ten waits for its acknowledgement
    assert_eq!(w.core.counters().dropped_queue_full, 1);
}

#[test]
fn the_levels_of_a_retained_topic_count() {
    let mut w = World::with_limits(Limits { retained_bytes_max: 100_000, ..Limits::default() });
    let a = w.connect(v5("a"));
    w.publish_with(a, &"a/".repeat(10_000), 0, "x", true, &[]);
    assert_eq!(w.core.counters().dropped_retained_full, 1);
    w.publish_with(a, "a/a", 0, "x", true, &[]);
    assert_eq!(w.core.levels().retained, 1);
}

#[test]
fn a_full_store_of_retained_messages_is_searched_now_and_then_only() {
    let mut w = World::with_limits(Limits { retained_messages_max: 1, ..Limits::default() });
    let a = w.connect(v5("a"));
    w.publish_with(a, "1", 0, "x", true, &[Property::MessageExpiryInterval(1)]);
    w.publish_with(a, "2", 0, "x", true, &[]);
    w.run_for(2.0);
    w.publish_with(a, "2", 0, "x", true, &[]);
    assert_eq!(w.core.counters().dropped_retained_full, 2);
    w.run_for(9.0);
    w.publish_with(a, "2", 0, "x", true, &[]);
    assert_eq!(w.core.counters().dropped_retained_full, 2);
}

#[test]
fn no_client_may_send_what_could_not_be_passed_on() {
    let mut w = World::with_limits(Limits { packet_bytes_max: 256 << 20, ..Limits::default() });
    let id = w.hello(&v5("a"));
    let bytes = w.core.outgoing(id).to_vec();
    let Ok(Some((Packet::ConnAck(ack), _))) = decode(&bytes, Version::V5, &crate::mqtt::Limits::default())
    else {
        panic!("no CONNACK")
    };
    assert!(ack.properties.maximum_packet_size().is_some_and(|max| max < 256 << 20));
    let mut header = vec![0x30];
    header.extend_from_slice(b"\xff\xff\xff\x7f"); // all that MQTT can express
    w.send_bytes(id, &header);
    assert_eq!(w.closed(id), Some(Fault::Violation(Violation::PacketTooLarge)));
}

#[test]
fn a_stranger_may_send_a_connect_of_bounded_length() {
    let mut w = World::new();
    let a = w.raw(Version::V5);
    w.send_bytes(a, b"\x10\x80\x80\x40\x00\x04MQTT\x05");
    assert_eq!(w.heard(a), ["CONNACK PacketTooLarge"]);
}

#[test]
fn sessions_are_bounded_also_if_many_wait_for_their_verdict() {
    let mut w = World::with_limits(Limits { sessions_max: 1, ..Limits::default() });
    let a = w.hello(&v5("a").user("ann", "secret"));
    let b = w.hello(&v5("b").user("ann", "secret"));
    w.verdict(a, Verdict::Accepted);
    w.verdict(b, Verdict::Accepted);
    assert_eq!(w.heard(a), ["CONNACK Success"]);
    assert_eq!(w.heard(b), ["CONNACK QuotaExceeded"]);
    assert_eq!(w.closed(b), Some(Fault::QuotaExceeded));
}

#[test]
fn subscriptions_are_bounded_in_bytes() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let long = "x".repeat(60_000);
    let mut refused = 0;
    for n in 0..200 {
        w.subscribe_with(a, &format!("{n}/{long}"), options(0), None);
        refused += w.heard(a).iter().filter(|line| **line == "SUBACK [151]").count();
    }
    assert!((50..70).contains(&refused), "{refused}");
    w.unsubscribe(a, &format!("0/{long}"));
    w.heard(a);
    w.subscribe(a, &format!("new/{}", &long[..50_000]), 0);
}

fn publish(id: u16, properties: Properties) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::ExactlyOnce,
        retain: false,
        topic: "t",
        packet_id: Some(packet(id)),
        properties,
        payload: &[b'x'; 100],
    })
}

#[test]
fn who_is_here_keeps_the_limits_that_it_was_told() {
    let mut w = World::new();
    let old = w.connect(v5("old"));
    let limits = Limits { inflight_max: 1, topic_alias_max: 0, packet_bytes_max: 64, ..Limits::default() };
    w.core.set_policy(limits, true);
    let properties = [Property::TopicAlias(7)].into_iter().collect::<crate::mqtt::PropertiesBuf>();
    w.send(old, &publish(1, properties.as_properties()));
    w.send(old, &publish(2, properties.as_properties()));
    assert_eq!(w.heard(old).len(), 2);
    assert_eq!(w.closed(old), None);
    let new = w.connect(v5("new"));
    w.send(new, &publish(1, Properties::EMPTY));
    assert_eq!(w.closed(new), Some(Fault::Violation(Violation::PacketTooLarge)));
}

#[test]
fn the_receive_maximum_counts_what_came_on_this_connection() {
    let mut w = World::with_limits(Limits { inflight_max: 1, ..Limits::default() });
    let a = w.connect(v5("a").expiry(60));
    w.send(a, &publish(1, Properties::EMPTY));
    w.lose(a);
    let a = w.connect(v5("a").resume().expiry(60));
    w.send(a, &publish(2, Properties::EMPTY)); // [4.9]: the quota begins anew
    assert_eq!(w.heard(a), ["PUBREC 2 NoMatchingSubscribers"]);
    w.send(a, &publish(3, Properties::EMPTY));
    assert_eq!(w.closed(a), Some(Fault::Violation(Violation::ReceiveMaximumExceeded)));
}

#[test]
fn a_client_without_a_receive_maximum_waits_while_the_store_is_slow() {
    let mut w = World::durable();
    let a = w.connect(v3("a").keep_alive(10));
    let keeper = w.connect(v5("keeper").expiry(60));
    w.subscribe(keeper, "t", 1);
    w.unpersisted = Some(Vec::new());
    let talk = b"\x32\x05\x00\x01t\x00\x01".repeat(70_000);
    let used = w.send_bytes(a, &talk);
    assert_eq!(used, 65_535 * 7);
    assert!(!w.core.reads(a));
    w.run_for(60.0);
    assert_eq!(w.closed(a), None); // it cannot be heard, and that is not its fault
    w.persist();
    assert!(w.core.reads(a));
    w.run_for(31.0);
    assert_eq!(w.closed(a), Some(Fault::KeepAliveTimeout));
}

/// How many connections ended by this.
fn ended(world: &World, reason: &str) -> u64 {
    let counters = world.core.counters();
    let mut all = counters.ended.iter();
    all.find(|(word, _)| *word == reason).map(|(_, count)| count).unwrap_or_else(|| panic!("no {reason}"))
}

/// How it begins.
const PUBLISH_OF_A_MEGABYTE: &[u8] = b"\x30\x80\x80\x40\0\x01t\0";

#[test]
fn short_memory_costs_slow_consumers_first_then_queues_then_what_is_new() {
    let mut world = World::new();
    let publisher = world.connect(v5("publisher"));
    let slow = world.connect(v5("slow"));
    world.subscribe(slow, "t", 0);
    let away = world.connect(v5("away").expiry(60));
    world.subscribe(away, "t", 1);
    world.lose(away);
    let payload = "x".repeat(10_000);
    let publish = |world: &mut World, count: usize| {
        (0..count).for_each(|_| world.publish(publisher, "t", 1, &payload));
        world.heard(publisher);
    };

    publish(&mut world, 10);
    assert_eq!(world.core.counters().shed_slow, 0);
    world.core.set_pressure(Pressure::Slow);
    publish(&mut world, 10);
    assert_eq!((world.core.counters().shed_slow, world.core.counters().shed_queued), (10, 0));

    world.core.set_pressure(Pressure::Queues);
    publish(&mut world, 10);
    assert_eq!((world.core.counters().shed_slow, world.core.counters().shed_queued), (20, 10));

    world.core.set_pressure(Pressure::Closed);
    let late = world.hello(&v5("late"));
    assert_eq!(world.heard(late), ["CONNACK ServerBusy"]);
    world.subscribe_with(publisher, "new", options(0), None);
    assert_eq!(world.heard(publisher), ["SUBACK [151]"]);
    world.publish_with(publisher, "retained", 0, "x", true, &[]);
    let counters = world.core.counters();
    assert_eq!(
        (world.core.levels().retained, counters.shed_retained, counters.subscriptions_shed),
        (0, 1, 1)
    );
    assert_eq!(ended(&world, "memory"), 1);

    // A packet that is not whole yet: half of a megabyte, of thousands of clients, is memory too.
    let sender = PUBLISH_OF_A_MEGABYTE;
    let (small, large) = ([sender, &[0; 60_000]].concat(), [sender, &[0; 70_000]].concat());
    assert_eq!(world.send_bytes(publisher, &small), 0);
    assert!(world.heard(publisher).is_empty());
    world.send_bytes(publisher, &large);
    assert_eq!(world.heard(publisher), ["DISCONNECT ServerBusy"]);
    assert_eq!(ended(&world, "memory"), 2);

    // What is there stays, and comes when the client does.
    world.core.set_pressure(Pressure::None);
    let away = world.hello(&v5("away").resume().expiry(60));
    assert_eq!(world.heard(away).len(), 1 + 20);
}

#[test]
fn when_nothing_is_taken_in_who_has_a_session_still_comes_and_takes_what_waits() {
    let mut world = World::new();
    let publisher = world.connect(v5("publisher"));
    for name in ["away", "anew"] {
        let client = world.connect(v5(name).expiry(60));
        world.subscribe(client, "t", 1);
        world.lose(client);
    }
    let living = world.connect(v5("living"));
    (0..10).for_each(|n| world.publish(publisher, "t", 1, &n.to_string()));
    world.core.set_pressure(Pressure::Closed);

    let away = world.hello(&v5("away").resume().expiry(60));
    assert_eq!(world.heard(away).len(), 1 + 10);
    world.subscribe(away, "t", 1); // it may have that again
    let anew = world.hello(&v5("anew"));
    assert_eq!(world.heard(anew), ["CONNACK Success"]);
    let again = world.hello(&v5("living"));
    assert_eq!(world.heard(again), ["CONNACK Success"]);
    assert_eq!(world.closed(living), Some(Fault::SessionTakenOver));

    for stranger in ["stranger", ""] {
        let stranger = world.hello(&v5(stranger).resume().expiry(60));
        assert_eq!(world.heard(stranger), ["CONNACK ServerBusy"]);
    }
    assert_eq!(ended(&world, "memory"), 2);
}

#[test]
fn when_nothing_is_taken_in_neither_are_aliases_nor_large_wills() {
    let mut world = World::new();
    let alias = |n| [Property::TopicAlias(n)];
    let topic = |n: u16| format!("{n}{}", "x".repeat(5_000));
    let (many, few) = (world.connect(v5("many")), world.connect(v5("few")));
    world.publish_with(many, &topic(1), 0, "", false, &alias(1));
    let large = &*topic(7).leak();
    for name in ["had", "had none"] {
        let had = world.hello(&v5(name).expiry(60).will("t", if name == "had" { large } else { "" }, 0));
        world.heard(had);
    }
    world.core.set_pressure(Pressure::Closed);

    world.publish_with(many, &topic(2), 0, "", false, &alias(1)); // it takes no more than before
    world.publish_with(few, "short", 0, "", false, &alias(1));
    assert!(world.heard(many).is_empty() && world.heard(few).is_empty());
    world.publish_with(many, &topic(3), 0, "", false, &alias(2));
    world.publish_with(few, &topic(3), 0, "", false, &alias(2));
    for id in [many, few] {
        assert_eq!(world.heard(id), ["DISCONNECT ServerBusy"]);
        assert_eq!(world.closed(id), Some(Fault::MemoryShort));
    }

    for (name, will, answer) in [
        ("had", large, "CONNACK Success present"),
        ("had none", "small", "CONNACK Success present"),
        ("had none", large, "CONNACK ServerBusy"),
    ] {
        let id = world.hello(&v5(name).resume().expiry(60).will("t", will, 0));
        assert_eq!(world.heard(id), [answer], "{name}");
    }
    assert_eq!(ended(&world, "memory"), 3);
}

/// Every bound of `limits` that a client can reach, reached once by a client of one's own, and what counts it.
#[test]
fn every_bound_that_is_reached_is_counted() {
    let limits = Limits {
        packet_bytes_max: 2_000,
        inflight_max: 2,
        queued_messages_max: 1,
        sessions_max: 6,
        subscriptions_max: 1,
        retained_messages_max: 1,
        topic_alias_max: 1,
        connect_timeout_s: 1,
        keep_alive_s_max: 60,
        session_expiry_s_max: 3_600,
        ..Limits::default()
    };
    let mut w = World::with_limits(limits);
    let large = w.connect(v5("large"));
    w.publish(large, "t", 0, &"x".repeat(3_000));
    assert_eq!(ended(&w, "packet_too_large"), 1);
    let eager = w.connect(v5("eager"));
    for id in 1..=3 {
        w.send(eager, &publish(id, Properties::EMPTY));
    }
    assert_eq!(ended(&w, "receive_maximum"), 1);
    let aliases = w.connect(v5("aliases"));
    w.publish_with(aliases, "t", 0, "", false, &[Property::TopicAlias(2)]);
    assert_eq!(ended(&w, "protocol_error"), 1);
    let stranger = w.raw(Version::V5);
    w.run_for(1.5);
    assert_eq!((w.closed(stranger), ended(&w, "connect_timeout")), (Some(Fault::ConnectTimeout), 1));
    let a = w.connect(v5("a"));
    w.subscribe(a, "t", 1);
    w.subscribe_with(a, "u", options(1), None);
    assert_eq!(w.core.counters().subscriptions_over_quota, 1);
    for topic in ["r/1", "r/2"] {
        w.publish_with(a, topic, 0, "x", true, &[]);
    }
    assert_eq!(w.core.counters().dropped_retained_full, 1);
    let away = w.connect(v5("away").expiry(60));
    w.subscribe(away, "t", 1);
    w.lose(away);
    assert_eq!(ended(&w, "lost"), 1);
    for _ in 0..4 {
        w.publish(a, "t", 1, "x");
    }
    assert!(w.core.counters().dropped_queue_full >= 1);
    let before = w.core.counters().opened;
    for name in ["s1", "s2", "s3", "s4", "s5", "s6", "s7"] {
        w.hello(&v5(name).expiry(60));
    }
    assert!(ended(&w, "quota") >= 1 && w.core.counters().opened > before);
    w.core.close(a, Fault::Kicked, w.now);
    assert_eq!(ended(&w, "kicked"), 1);
}
