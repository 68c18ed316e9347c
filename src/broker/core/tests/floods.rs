//! What one client can make a shard, and the shards beside it, hold or do.

use super::node::Node;
use super::world::{World, v5};
use crate::broker::core::{Effect, Fault, Pressure};
use crate::mqtt::{Ack, Message, Packet, PacketId, PropertiesBuf, QoS, Version};
use crate::settings::Limits;
use crate::store::Op;

/// Three shards: a publisher on one, the owner of a group on another, its member on the third.
fn around_the_owner(qos: u8) -> (Node, usize, usize, String) {
    let mut node = Node::new(3, 1);
    let publisher = node.connect_on(1, "publisher-");
    let member = node.connect_on(2, "member-");
    let topic = node.name_on(0, "t-");
    node.settle();
    node.subscribe(member, &format!("$share/g/{topic}"), qos);
    node.settle();
    (node, publisher, member, topic)
}

#[test]
fn an_answer_to_another_shard_is_no_larger_than_what_goes_in_at_once() {
    let mut node = Node::new(2, 5);
    let publisher = node.connect("publisher");
    let subscriber = node.connect_on(0, "subscriber-");
    let payload = "x".repeat(10_000);
    for n in 0..500 {
        node.publish(publisher, &format!("r/{n}"), &payload, 0, true);
        if n % 50 == 0 {
            node.settle();
        }
    }
    node.settle();
    node.subscribe(subscriber, "#", 0);
    for shard in [0, 1].repeat(6) {
        node.turn(shard);
        assert!(!node.cores[1].is_congested());
    }
    assert!(!node.cores[1].is_congested());
    node.settle();
    assert_eq!(node.clients[subscriber].got.len(), 500);
}

#[test]
fn a_search_that_finds_no_room_ends_on_all_shards() {
    let limits = Limits { queued_messages_max: 10, ..Limits::default() };
    let mut node = Node::with_limits(2, 5, limits);
    let publisher = node.connect("publisher");
    let subscriber = node.connect_on(0, "subscriber-");
    for n in 0..16_000 {
        node.publish(publisher, &format!("r/{n}"), "x", 0, true);
        if n % 500 == 0 {
            node.settle();
        }
    }
    node.settle();
    node.subscribe(subscriber, "#", 1);
    for shard in [0, 1, 0, 1, 0, 1] {
        node.turn(shard);
    }
    node.lose(subscriber);
    // Each of its messages finds no room now, and nobody looks for more.
    for shard in [0, 1, 0, 1, 0, 1, 0, 1] {
        node.turn(shard);
    }
    assert!(!node.cores.iter().any(|core| core.has_work()));
}

#[test]
fn each_of_many_filters_brings_what_is_retained() {
    for shards in [1, 3] {
        let mut node = Node::new(shards, 9);
        let (publisher, subscriber) = (node.connect("publisher"), node.connect("subscriber"));
        for n in 0..500 {
            node.publish(publisher, &format!("r/{n}/x"), "x", 0, true);
        }
        node.settle();
        for n in 0..500 {
            node.subscribe(subscriber, &format!("r/{n}/{}", if n % 2 == 0 { "x" } else { "+" }), 0);
        }
        node.settle();
        assert_eq!(node.clients[subscriber].got.len(), 500, "{shards} shards");
    }
}

#[test]
fn what_passes_by_a_search_overtakes_it_however_much_passed_before() {
    let mut node = Node::new(1, 5);
    let (publisher, subscriber) = (node.connect("publisher"), node.connect("subscriber"));
    (0..2_000).for_each(|n| {
        node.publish(publisher, &format!("r/{n}"), "old", 0, true);
    });
    node.subscribe(subscriber, "r/+", 0);
    (0..66_000).for_each(|n| {
        node.publish(publisher, &format!("f/{n}"), "x", 0, true);
    });
    (0..2_000).for_each(|n| {
        node.publish(publisher, &format!("r/{n}"), "new", 0, true);
    });
    node.settle();
    let got = &node.clients[subscriber].got;
    assert!(got.iter().any(|line| line.ends_with("=oldr")), "a part was brought before");
    assert_eq!(got.iter().filter(|line| line.ends_with("=new")).count(), 2_000);
    assert_eq!(got.iter().filter(|line| line.ends_with("=newr")).count(), 0);
}

#[test]
fn what_goes_on_to_a_third_shard_that_does_not_listen_is_bounded() {
    let (mut node, publisher, member, topic) = around_the_owner(0);
    let payload = "x".repeat(10_000);
    for _ in 0..1_000 {
        node.publish(publisher, &topic, &payload, 0, false);
        node.turn(1);
        node.turn(0);
    }
    let dropped = node.cores[0].counters().dropped_slow as usize;
    assert!((500..1_000).contains(&dropped), "{dropped}");
    node.settle();
    assert_eq!(node.clients[member].got.len() + dropped, 1_000);
}

#[test]
fn what_waits_for_a_third_shard_that_does_not_listen_keeps_its_publishers_waiting() {
    let (mut node, publisher, member, topic) = around_the_owner(1);
    let other = node.connect_on(1, "other-");
    node.settle();
    for (payload, max) in [("x".repeat(10_000), 1_000), (String::new(), 20_000)] {
        let mut count = 0;
        while node.cores[1].reads(node.clients[publisher].id) {
            node.publish(publisher, &topic, &payload, 1, false);
            count += 1;
            assert!(count < max, "it goes on for ever");
            node.turn(1);
            node.turn(0);
        }
        assert!(node.cores[1].reads(node.clients[other].id), "it waits for nobody");
        node.settle();
        assert!(node.cores[1].reads(node.clients[publisher].id));
        assert_eq!(std::mem::take(&mut node.clients[member].got).len(), count);
    }
}

#[test]
fn what_links_bring_for_a_shard_that_does_not_listen_is_bounded() {
    let mut node = Node::new(2, 1);
    let subscriber = node.connect_on(1, "subscriber-");
    node.subscribe(subscriber, "t", 1);
    node.settle();
    let peer = node.cores[0].peer_open("eu");
    let mut message = Message {
        topic: "t".into(),
        payload: vec![b'x'; 10_000].into(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: PropertiesBuf::new(),
        expires_at: None,
    };
    for _ in 0..1_000 {
        node.cores[0].peer_deliver(peer, message.clone(), node.now);
        node.turn(0);
    }
    let dropped = node.cores[0].counters().dropped_slow as usize;
    assert!((500..1_000).contains(&dropped), "{dropped}");
    message.qos = QoS::AtLeastOnce;
    node.cores[0].peer_deliver(peer, message, node.now);
    node.settle();
    assert_eq!(node.clients[subscriber].got.len() + dropped, 1_001);
}

#[test]
fn what_is_said_seldom_is_weighed_when_it_is_said_often() {
    let mut node = Node::new(2, 1);
    let subscriber = node.connect_on(0, "subscriber-");
    node.settle();
    let long = "x".repeat(10_000);
    let mut count = 0;
    while node.cores[0].reads(node.clients[subscriber].id) {
        node.subscribe(subscriber, &format!("{count}/{long}"), 0);
        count += 1;
        assert!(count < 400, "it goes on for ever");
    }
    node.settle();
    assert!(node.cores[0].reads(node.clients[subscriber].id));
}

#[test]
fn what_is_in_flight_is_kept_short_as_well_while_memory_is() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe(b, "t", 1);
    w.core.set_pressure(Pressure::Queues);
    for _ in 0..100 {
        w.publish(a, "t", 1, &"x".repeat(10_000));
        w.heard(b);
    }
    assert_eq!(w.core.counters().shed_queued, 100 - 7 - 6);
    (1..=13).for_each(|id| w.puback(b, id));
    w.publish(a, "t", 1, "small");
    assert_eq!(w.heard(b).last().map(String::as_str), Some("t=small q1 #14"));
}

fn retained_ops(w: &World) -> usize {
    let all = w.unpersisted.iter().flatten().flat_map(|(_, ops)| ops);
    all.filter(|op| matches!(op, Op::Retain { .. })).count()
}

#[test]
fn what_changes_nothing_is_not_kept_for_a_store_that_is_down() {
    let mut w = World::durable();
    let a = w.connect(v5("a"));
    w.publish_with(a, "there", 0, "x", true, &[]);
    w.unpersisted = Some(Vec::new());
    w.store_down();
    w.publish_with(a, "there", 0, "", true, &[]);
    for n in 0..100 {
        w.publish_with(a, &format!("r/{n}"), 0, "", true, &[]);
    }
    w.store_up();
    assert_eq!(retained_ops(&w), 1);
}

#[test]
fn what_is_kept_for_a_store_that_is_down_is_bounded() {
    let mut w = World::durable();
    let a = w.connect(v5("a"));
    w.unpersisted = Some(Vec::new());
    w.store_down();
    let long = "x".repeat(60_000);
    for n in 0..1_300 {
        w.publish_with(a, &format!("{n}/{long}"), 0, "x", true, &[]);
        w.publish_with(a, &format!("{n}/{long}"), 0, "", true, &[]);
    }
    let dropped = w.core.counters().dropped_store_down;
    assert!((200..600).contains(&dropped), "{dropped}");
    w.publish_with(a, &format!("0/{long}"), 0, "known", true, &[]);
    assert_eq!(w.core.levels().retained, 1);
}

#[test]
fn what_is_bounded_for_the_node_may_all_be_on_one_shard() {
    let limits = Limits { sessions_max: 10, retained_bytes_max: 1 << 20, ..Limits::default() };
    let mut node = Node::with_limits(4, 1, limits);
    for n in 0..12 {
        node.connect_on(3, &format!("client-{n}-"));
    }
    assert_eq!(node.cores[3].levels().sessions, 10);
    node.publish(0, "large", &"x".repeat(700_000), 0, true);
    node.settle();
    node.publish(0, "larger", &"x".repeat(700_000), 0, true);
    node.settle();
    let counters = node.cores.iter().map(|core| core.counters().dropped_retained_full);
    assert_eq!(counters.sum::<u64>(), 1);
    node.publish(0, "large", "", 0, true);
    node.settle();
    node.publish(0, "larger", &"x".repeat(700_000), 0, true);
    node.settle();
    assert_eq!(node.cores.iter().map(|core| core.levels().retained).sum::<usize>(), 1);
}

fn releases(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..count {
        let id = PacketId::new((n % 65_535 + 1) as u16).expect("not 0");
        Packet::PubRel(Ack::success(id)).encode(Version::V5, &mut bytes);
    }
    bytes
}

#[test]
fn what_a_client_releases_while_the_store_is_down_is_bounded_and_goes_with_its_connection() {
    let mut w = World::durable();
    w.unpersisted = Some(Vec::new());
    w.store_down();
    for _ in 0..2 {
        let a = w.connect(v5("a").resume().expiry(600));
        assert_eq!(w.send_bytes(a, &releases(65_540)), releases(65_535).len());
        assert!(!w.core.reads(a));
        w.lose(a);
    }
    assert_eq!(w.unpersisted.as_ref().map(Vec::len), Some(0), "a store that is down is asked for nothing");
    assert!(w.core.uncompleted.is_empty());
    let a = w.connect(v5("a").resume().expiry(600));
    w.pubrel(a, 7);
    assert!(w.heard(a).is_empty());
    w.store_up();
    w.persist();
    assert_eq!(w.heard(a), ["PUBCOMP 7 PacketIdentifierNotFound"]);
}

#[test]
fn what_a_client_said_before_is_not_written_again() {
    let mut w = World::durable();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b").expiry(600)));
    w.subscribe(b, "t", 2);
    w.publish(a, "t", 2, "x");
    w.heard(b);
    w.unpersisted = Some(Vec::new());
    for _ in 0..10 {
        w.pubrec(b, 1);
        w.pubrel(b, 9);
    }
    assert_eq!(w.unpersisted.as_ref().map(Vec::len), Some(1));
    assert!(w.heard(b).is_empty(), "it is not safe yet");
    w.persist();
    assert_eq!(w.heard(b).len(), 20);
    w.pubrec(b, 1);
    w.pubrel(b, 9);
    assert_eq!(w.heard(b), ["PUBREL 1", "PUBCOMP 9 PacketIdentifierNotFound"]);
    assert_eq!(w.unpersisted.as_ref().map(Vec::len), Some(0));
}

#[test]
fn who_has_a_stored_session_waits_for_a_store_that_is_far_behind() {
    let mut w = World::durable();
    let stored = ["b", "c"].map(|name| w.connect(v5(name).expiry(600)));
    stored.iter().for_each(|&id| w.subscribe(id, "t", 1));
    let other = w.connect(v5("other"));
    w.unpersisted = Some(Vec::new());
    for name in ["p", "q", "r", "s", "u"] {
        let id = w.connect(v5(name));
        w.publish(id, "t", 1, &"x".repeat(8 << 20));
    }
    assert!(!w.core.reads(stored[0]) && w.core.reads(other));
    let newcomer = w.hello(&v5("newcomer").expiry(600));
    assert_eq!(w.closed(newcomer), Some(Fault::ServerBusy));
    w.connect(v5("brief"));
    let (last, _) = w.unpersisted.iter().flatten().next_back().expect("it waits");
    w.core.handle_persisted(*last, w.now);
    assert!(w.core.reads(stored[0]));
    assert!(std::iter::from_fn(|| w.core.poll_effect()).any(|effect| effect == Effect::Resume));
}

#[test]
fn who_is_here_is_not_moved_when_many_come() {
    let mut w = World::new();
    w.core.expect_clients(1_000, 1_000);
    let first = w.connect(v5("first"));
    let places = |w: &World| {
        let connection = w.core.wires.get(first).expect("it is here");
        (std::ptr::from_ref(connection), std::ptr::from_ref(&w.core.sessions[0]))
    };
    let before = places(&w);
    for n in 1..1_000 {
        w.connect(v5(format!("c{n}").leak()));
    }
    assert_eq!(places(&w), before);
}

/// A client may subscribe so that one message is looked up in thousands of places, and goes out with thousands of identifiers.
#[test]
fn a_lookup_costs_what_is_looked_at_and_identifiers_what_they_are() {
    const LEVELS: usize = 7; // with more of them they are not remembered
    const ALL: usize = 1 << LEVELS;
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    for n in 0..ALL {
        let level = |bit: usize| if n >> bit & 1 == 1 { "a/" } else { "+/" };
        let filter = (0..LEVELS).map(level).collect::<String>() + "#";
        w.subscribe_with(a, &filter, super::world::options(0), Some(n as u32 + 1));
    }
    w.heard(a);
    let topic = "a/".repeat(LEVELS) + "x";
    let cost = |w: &mut World| {
        let before = w.core.routed();
        w.publish(b, &topic, 0, "x");
        let heard = w.heard_in_full(a);
        assert_eq!(heard[0].matches("SubscriptionIdentifier").count(), ALL);
        w.core.routed() - before
    };
    let (first, second) = (cost(&mut w), cost(&mut w));
    assert!(first - second > 2 * ALL as u64 * 64, "{first} {second}");
    assert!(second > 5 * ALL as u64, "{second}");
}
