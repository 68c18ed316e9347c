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
    let ids = [old, new].map(|hello| w.connect(hello));
    for id in ids {
        w.publish(id, "t", 2, "1");
        assert_eq!((w.heard(id), w.closed(id)), (vec![], None));
    }
    w.store_up();
    w.persist();
    for id in ids {
        assert_eq!(w.heard(id), ["PUBREC 1"]);
        w.publish(id, "t", 2, "2");
        w.persist();
        assert_eq!(w.heard(id), ["PUBREC 1"]);
    }
}

/// To refuse it would make it two: it is with those who subscribed, and would be published again.
#[test]
fn a_message_at_qos_2_comes_once_though_the_store_failed_with_it() {
    for (publisher, dies) in [v3("a").resume(), v5("a").resume().expiry(600), v5("a").resume()]
        .into_iter()
        .flat_map(|publisher| [(publisher.clone(), false), (publisher, true)])
    {
        let mut w = World::durable();
        let kept = v5("kept").resume().expiry(600);
        let (at, present) = (w.connect(kept.clone()), w.connect(v5("present")));
        w.subscribe(at, "t", 2);
        w.subscribe(present, "t", 2);
        w.lose(at);
        let mut a = w.connect(publisher.clone());
        w.unpersisted = Some(Vec::new());
        w.publish(a, "t", 2, "1");
        w.store_down();
        assert_eq!((w.heard(a), w.closed(a)), (vec![], None));
        assert_eq!(w.heard(present), ["t=1 q2 #1"]);
        w.store_down();
        w.store_up();
        if dies {
            w.crash(1.0);
            a = w.connect(publisher);
            w.publish(a, "t", 2, "1");
        }
        w.persist();
        assert_eq!(w.heard(a), ["PUBREC 1"]);
        w.pubrel(a, 1);
        w.persist();
        assert_eq!(w.heard(a), ["PUBCOMP 1"]);
        let at = w.hello(&kept);
        w.persist();
        assert_eq!(w.heard(at)[1..], ["t=1 q2 #1"], "it dies: {dies}");
    }
}

/// At QoS 1 it may come twice, so who can be told that it was not taken is told.
#[test]
fn a_message_at_qos_1_is_refused_if_the_store_fails_with_it() {
    let (mut w, _) = slow_store();
    let (old, new) = (w.connect(v3("old")), w.connect(v5("new")));
    for id in [old, new] {
        w.publish(id, "t", 1, "1");
    }
    w.store_down();
    assert_eq!((w.heard(old), w.closed(old)), (vec![], Some(Fault::QuotaExceeded)));
    assert_eq!(w.heard(new), ["PUBACK 1 QuotaExceeded"]);
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
