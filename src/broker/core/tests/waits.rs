//! Answers that wait for a store that is slow, fails, or lies between two shards.

use super::node::Node;
use super::world::{World, v3, v5};
use crate::broker::core::{ConnectionId, Fault};

/// A world with a stored subscriber of `t` whose store takes its time.
fn slow_store() -> (World, ConnectionId) {
    let mut w = World::durable();
    let b = w.connect(v5("b").expiry(600));
    w.subscribe(b, "t", 1);
    w.lose(b);
    w.unpersisted = Some(Vec::new());
    (w, b)
}

#[test]
fn after_disconnect_there_are_no_answers() {
    let (mut w, _) = slow_store();
    let a = w.connect(v5("a"));
    w.publish(a, "t", 1, "1");
    w.connect(v5("a"));
    w.persist();
    assert_eq!(w.heard(a), ["DISCONNECT SessionTakenOver"]);
}

#[test]
fn a_client_that_is_not_read_may_be_silent() {
    let (mut w, _) = slow_store();
    let a = w.connect(v5("a").keep_alive(10));
    let large = "x".repeat(1 << 20);
    while w.core.reads(a) {
        w.publish(a, "t", 1, &large);
    }
    w.run_for(100.0);
    assert_eq!(w.closed(a), None);
    w.persist();
    w.run_for(40.0);
    assert_eq!(w.closed(a), Some(Fault::KeepAliveTimeout));
}

#[test]
fn a_message_that_came_before_the_store_failed_is_not_acknowledged_before_it_is_back() {
    let (mut w, _) = slow_store();
    let (old, new) = (v3("old").resume(), v5("new").resume().expiry(600));
    let ids = [w.connect(old.clone()), w.connect(new.clone())];
    w.persist();
    for id in ids {
        w.publish(id, "t", 2, "1");
        assert!(w.heard(id).is_empty());
        w.lose(id);
    }
    w.store_down();
    let a = w.connect(old.clone());
    w.publish(a, "t", 2, "1");
    assert_eq!((w.heard(a), w.closed(a)), (vec![], Some(Fault::QuotaExceeded)));
    let b = w.connect(new);
    w.publish(b, "t", 2, "1");
    assert_eq!(w.heard(b), ["PUBREC 1 QuotaExceeded"]);
    w.store_up();
    w.persist();
    let a = w.connect(old);
    w.publish(a, "t", 2, "1");
    w.persist();
    assert_eq!(w.heard(a), ["PUBREC 1"]);
    w.publish(b, "t", 2, "2");
    w.persist();
    assert_eq!(w.heard(b), ["PUBREC 1"]);
}

/// Version 3 has no word for a refusal: the message is sent again, and its id must still say that it came.
#[test]
fn a_message_of_an_older_client_comes_once_though_the_store_failed_with_it() {
    for dies in [false, true] {
        let mut w = World::durable();
        let b = v5("b").resume().expiry(600);
        let at = w.connect(b.clone());
        w.subscribe(at, "t", 2);
        w.lose(at);
        let a = w.connect(v3("a").resume());
        w.unpersisted = Some(Vec::new());
        w.publish(a, "t", 2, "1");
        w.store_down();
        assert_eq!((w.heard(a), w.closed(a)), (vec![], Some(Fault::QuotaExceeded)));
        match dies {
            true => w.crash(1.0),
            false => w.store_up(),
        }
        w.persist();
        let a = w.connect(v3("a").resume());
        w.publish(a, "t", 2, "1");
        w.persist();
        assert_eq!(w.heard(a), ["PUBREC 1"]);
        let at = w.hello(&b);
        w.persist();
        assert_eq!(w.heard(at)[1..], ["t=1 q2 #1"], "it dies: {dies}");
    }
}

#[test]
fn half_a_message_does_not_reach_the_disk_while_the_other_shard_has_to_mend() {
    for seed in 1..=20 {
        let mut node = Node::durable(2, seed);
        let (publisher, subscriber) = (node.connect_on(0, "client-"), node.connect_on(1, "client-"));
        node.settle();
        node.subscribe(subscriber, "t", 2);
        node.settle();
        let now = node.now;
        node.cores[1].handle_store_down(&[], now);
        node.publish(publisher, "t", "once", 2, false);
        for _ in 0..10 {
            node.stir(2);
            node.write();
        }
        assert_eq!(node.clients[publisher].answers.len(), 0, "seed {seed}");
        node.crash(2);
        node.settle();
        assert_eq!(node.clients[subscriber].got, ["t=once"], "seed {seed}");
        assert!(node.clients[publisher].sending.is_empty(), "seed {seed}");
    }
}
