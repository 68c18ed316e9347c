//! What waits for all sessions of a node together: counted wherever it goes, and bounded.

use super::node::Node;
use super::world::{World, v3, v5};
use crate::broker::core::{ConnectionId, Core, Levels};
use crate::mqtt::Property;
use crate::settings::Limits;

/// More sessions, and more messages, are not counted at every step: it would take too long.
const SESSIONS_MAX: usize = 50;
const MESSAGES_MAX: usize = 500;

/// What a shard says that it holds is the sum over its sessions.
pub(super) fn check_levels(core: &Core) {
    let queued = || core.sessions.iter().map(|(_, session)| session.queue.len()).sum::<usize>();
    if core.sessions.len() > SESSIONS_MAX || queued() > MESSAGES_MAX {
        return;
    }
    let (mut queued, mut queued_bytes, mut in_flight) = (0, 0, 0);
    for (_, session) in &core.sessions {
        queued += session.queue.iter().count();
        queued_bytes += session.queue.iter().map(|one| one.frame.len()).sum::<usize>();
        in_flight += session.ring.iter().count();
    }
    let levels = core.levels();
    assert_eq!(levels, Levels { queued, queued_bytes, in_flight, ..levels });
}

impl Core {
    /// How much memory its node may hold.
    pub(in crate::broker) fn memory_mark(&self) -> usize {
        self.limits.memory_bytes_max
    }
}

fn total(messages: usize) -> Limits {
    Limits { total_queued_messages_max: messages, ..Limits::default() }
}

/// A client that was there, subscribed to this, and went.
fn away(w: &mut World, name: &'static str, filter: &str) {
    let id = w.connect(v5(name).expiry(100));
    w.subscribe(id, filter, 1);
    w.lose(id);
}

fn publish(w: &mut World, from: ConnectionId, topic: &str, count: usize) {
    for n in 0..count {
        w.publish(from, topic, 1, &n.to_string());
        assert_eq!(w.heard(from), ["PUBACK 1"]);
    }
}

#[test]
fn what_waits_for_all_sessions_is_bounded() {
    let mut w = World::with_limits(total(16));
    let p = w.connect(v5("p"));
    ["a", "b"].into_iter().for_each(|name| away(&mut w, name, "t"));
    publish(&mut w, p, "t", 10);
    let dropped =
        |w: &World| (w.core.counters().dropped_node_queue_full, w.core.counters().dropped_queue_full);
    // An eighth is for those who are there.
    assert_eq!((w.core.levels().queued, dropped(&w)), (14, (6, 0)));
    let a = w.hello(&v5("a").resume());
    let heard = w.heard(a);
    assert_eq!(
        (heard.len(), heard.last().map(String::as_str)),
        (1 + 7, Some("t=6 q1 #7")),
        "the newest went"
    );
    assert_eq!((w.core.levels().queued, w.core.levels().in_flight), (7, 7));
    publish(&mut w, p, "t", 10);
    assert_eq!((w.core.levels().queued, dropped(&w)), (14, (9, 0)), "there was room for as many again");
    let b = w.hello(&v5("b"));
    w.lose(a);
    w.lose(b);
    w.run_for(101.0);
    assert_eq!(w.core.levels(), Levels { connections: 1, sessions: 1, ..Levels::default() });
}

#[test]
fn what_waits_for_all_sessions_is_bounded_in_bytes_of_which_each_session_has_its_own() {
    let mut w = World::with_limits(Limits { total_queued_bytes_max: 10_000, ..Limits::default() });
    let p = w.connect(v5("p"));
    ["a", "b", "c"].into_iter().for_each(|name| away(&mut w, name, "t"));
    for _ in 0..4 {
        w.publish(p, "t", 1, &"x".repeat(1_000));
    }
    // Of 1,009 bytes each; an eighth is for those who are there.
    let levels = w.core.levels();
    assert_eq!((levels.queued, w.core.counters().dropped_node_queue_full), (8, 4), "{levels:?}");
    assert_eq!(levels.queued_bytes, 8 * 1_009);
}

#[test]
fn who_is_there_loses_nothing_because_others_are_away() {
    let mut w = World::with_limits(total(80));
    let p = w.connect(v5("p"));
    away(&mut w, "away", "t");
    publish(&mut w, p, "t", 100);
    assert_eq!((w.core.levels().queued, w.core.counters().dropped_node_queue_full), (70, 30));
    // It takes one at a time, and acknowledges the first when ten are there.
    let here = w.connect(v5("here").with(Property::ReceiveMaximum(1)));
    w.subscribe(here, "own", 1);
    publish(&mut w, p, "own", 10);
    let mut heard = w.heard(here);
    for id in 1..10 {
        w.puback(here, id);
        heard.extend(w.heard(here));
    }
    assert_eq!((heard.len(), w.core.counters().dropped_node_queue_full), (10, 30));
}

#[test]
fn what_a_session_leaves_to_its_group_has_room_where_it_was() {
    let hold = |name| v5(name).expiry(100).with(Property::ReceiveMaximum(1));
    for ends in [true, false] {
        let mut w = World::with_limits(total(9));
        let p = w.connect(v5("p"));
        let (a, b) = (w.connect(hold("a")), w.connect(hold("b")));
        [a, b].into_iter().for_each(|member| w.subscribe(member, "$share/g/t", 1));
        publish(&mut w, p, "t", 11);
        assert_eq!((w.core.levels().queued, w.core.counters().dropped_node_queue_full), (9, 0));
        if ends {
            w.connect(hold("a")); // anew, and a member of nothing
        } else {
            w.unsubscribe(a, "$share/g/t");
        }
        let dropped = w.core.counters().dropped_node_queue_full;
        // What was in flight was not in the queue.
        assert_eq!((w.core.levels().queued, dropped), (9, u64::from(ends)), "it ends: {ends}");
        let b = w.core.session_of("b").expect("it is there");
        assert_eq!(w.core.sessions[b as usize].queue.len(), 9, "it ends: {ends}");
    }
}

#[test]
fn what_was_stored_is_there_again_whatever_the_bound_is_and_no_more_is_taken() {
    let mut w = World::with_limits(total(8)).with_store();
    let p = w.connect(v5("p"));
    away(&mut w, "a", "t");
    publish(&mut w, p, "t", 9);
    assert_eq!((w.core.levels().queued, w.core.counters().dropped_node_queue_full), (7, 2));
    w.limits = total(2);
    w.crash(1.0);
    assert_eq!(w.core.levels().queued, 7);
    let p = w.connect(v3("p"));
    w.publish(p, "t", 1, "more");
    assert_eq!((w.core.levels().queued, w.core.counters().dropped_node_queue_full), (7, 1));
    let a = w.hello(&v5("a").resume());
    assert_eq!(w.heard(a).len(), 1 + 7);
    (1..=7).for_each(|id| w.puback(a, id));
    assert_eq!((w.core.levels().queued, w.core.levels().queued_bytes, w.core.levels().in_flight), (0, 0, 0));
}

#[test]
fn shards_count_what_waits_together() {
    const MAX: usize = 800;
    const SHARDS: usize = 4;
    let mut node = Node::with_limits(SHARDS, 7, total(MAX));
    let p = node.connect("p");
    for shard in 0..SHARDS {
        let at = node.connect_on(shard as u8, "away");
        node.subscribe(at, "t", 1);
        node.settle();
        node.lose(at);
    }
    for n in 0..400 {
        node.publish(p, "t", &n.to_string(), 1, false);
        node.stir(2);
    }
    node.settle();
    let levels =
        |node: &Node| node.cores.iter().map(Core::levels).fold(Levels::default(), |sum, one| sum + one);
    let queued = levels(&node).queued;
    let away_max = MAX - MAX / 8;
    // Sixteen more or less for each other shard.
    assert!(queued.abs_diff(away_max) < 16 * (SHARDS - 1), "{queued}");
    let dropped: u64 = node.cores.iter().map(|core| core.counters().dropped_node_queue_full).sum();
    assert_eq!(queued as u64 + dropped, 1_600);
    for at in 1..=SHARDS {
        let name = node.clients[at].name.clone();
        node.connect(&name);
        node.settle();
    }
    let got: usize = node.clients.iter().map(|client| client.got.len()).sum();
    assert_eq!(got, queued);
    assert_eq!((levels(&node).queued, levels(&node).queued_bytes, levels(&node).in_flight), (0, 0, 0));
}

#[test]
fn a_node_that_was_full_for_a_moment_leaves_nobody_marked_as_full() {
    let mut w = World::with_limits(total(9)); // 8 of them for those who are away
    let p = w.connect(v5("p"));
    ["a", "b", "c"].into_iter().for_each(|name| away(&mut w, name, "$share/g/t"));
    away(&mut w, "filler", "f");
    publish(&mut w, p, "f", 8);
    publish(&mut w, p, "t", 1);
    assert_eq!(w.core.counters().dropped_node_queue_full, 1);
    let filler = w.hello(&v5("filler").resume().expiry(100));
    assert_eq!((w.heard(filler).len(), w.core.levels().queued), (9, 0));
    // One was asked in vain, `c`, and the turn is the next one's.
    publish(&mut w, p, "t", 2);
    let queued = |w: &World| {
        let all = w.core.sessions.iter().map(|(_, one)| (one.client_id.to_string(), one.queue.len()));
        let mut all: Vec<_> = all.filter(|(name, _)| name.len() == 1 && name != "p").collect();
        all.sort();
        all.into_iter().map(|(_, count)| count).collect::<Vec<_>>()
    };
    assert_eq!(queued(&w), [1, 1, 0]);
    publish(&mut w, p, "t", 4);
    assert_eq!(queued(&w), [2, 2, 2]);
    assert_eq!(w.core.counters().dropped_node_queue_full, 1);
}

fn queues_of(messages: usize) -> Limits {
    Limits { queued_messages_max: messages, ..Limits::default() }
}

/// Has a message that lives wait in front of so many that expire after a second, and of so many that live.
fn queue(w: &mut World, from: ConnectionId, topic: &str, [dies, lives]: [usize; 2], payload: &str) {
    w.publish(from, topic, 1, payload);
    for _ in 0..dies {
        w.publish_with(from, topic, 1, payload, false, &[Property::MessageExpiryInterval(1)]);
    }
    (0..lives).for_each(|_| w.publish(from, topic, 1, payload));
    w.heard(from);
    assert_eq!(w.core.counters().dropped_queue_full, 0);
}

#[test]
fn full_queues_are_searched_for_what_has_expired_a_part_at_a_time() {
    let mut w = World::with_limits(queues_of(1_000));
    let p = w.connect(v5("p"));
    (0..40).for_each(|n| away(&mut w, format!("c{n}").leak(), "t"));
    queue(&mut w, p, "t", [999, 0], "");
    w.run_for(2.0);
    w.publish(p, "t", 1, "");
    w.publish(p, "t", 1, "");
    assert_eq!(w.core.counters().dropped_queue_full, 2 * (40 - 33), "33 have 32,768");
    w.run_for(0.1);
    w.publish(p, "t", 1, "");
    assert_eq!(w.core.counters().dropped_queue_full, 2 * (40 - 33), "it was the turn of the others");
}

#[test]
fn queues_are_written_anew_as_far_as_the_store_keeps_up() {
    let mut w = World::with_limits(queues_of(16)).with_store();
    let p = w.connect(v5("p"));
    (0..60).for_each(|n| away(&mut w, format!("c{n}").leak(), "t"));
    queue(&mut w, p, "t", [8, 7], &"x".repeat(64 << 10));
    w.run_for(2.0);
    w.unpersisted = Some(Vec::new());
    w.publish(p, "t", 1, "");
    let ops = w.unpersisted.iter().flatten().flat_map(|(_, ops)| ops);
    let bytes: usize = ops.map(crate::store::Op::bytes).sum();
    assert!((16 << 20..17 << 20).contains(&bytes), "{bytes}");
    let refused = w.core.counters().dropped_queue_full;
    assert!((20..40).contains(&refused), "{refused}");
    while w.persist_one() {}
    w.publish(p, "t", 1, "");
    assert_eq!(w.core.counters().dropped_queue_full, refused, "it was the turn of the others");
}

#[test]
fn a_queue_in_which_too_little_can_expire_is_not_searched() {
    let mut w = World::with_limits(queues_of(16));
    let p = w.connect(v5("p"));
    away(&mut w, "away", "t");
    queue(&mut w, p, "t", [1, 14], "");
    w.run_for(2.0);
    w.publish(p, "t", 1, "");
    assert_eq!(w.core.counters().dropped_queue_full, 1);
    let id = w.hello(&v5("away").resume().expiry(100));
    assert_eq!(w.heard(id).len(), 16);
    (1..16).for_each(|n| w.puback(id, n));
    w.lose(id);
    w.publish(p, "t", 1, "");
    for _ in 0..15 {
        w.publish_with(p, "t", 1, "", false, &[Property::MessageExpiryInterval(1)]);
    }
    w.run_for(2.0);
    w.publish(p, "t", 1, "");
    assert_eq!(w.core.counters().dropped_queue_full, 1, "nobody had searched it in the last 10 s");
}
