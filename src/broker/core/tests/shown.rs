//! What a subscriber is shown of what is retained on several shards, and when.

use super::node::Node;

const SEEDS: u64 = 60;

fn is_subscribed(node: &Node, client: usize) -> bool {
    node.clients[client].answers.iter().any(|answer| answer.starts_with("sub"))
}

// [MQTT-4.6.0-6] v3
#[test]
fn what_was_retained_comes_before_what_is_published_after_suback() {
    for seed in 1..=SEEDS {
        let mut node = Node::new(1 + seed as usize % 4, seed);
        let (publisher, subscriber, lost) =
            (node.connect("publisher"), node.connect("subscriber"), node.connect("lost"));
        for n in 0..8 {
            node.publish(publisher, &format!("r/{n}"), "kept", 1, true);
        }
        node.settle();
        node.subscribe(lost, "#", 1);
        let (filter, is_own) = (["r/5", "r/+"][seed as usize % 2], seed % 3 == 0);
        node.subscribe(subscriber, filter, 1);
        node.subscribe(subscriber, "other/+", 1);
        match is_own {
            true => node.publish(subscriber, "r/5", "new", 1, false),
            false => {
                while !is_subscribed(&node, subscriber) {
                    node.stir(1);
                }
                node.publish(publisher, "r/5", "new", 1, false)
            }
        };
        node.lose(lost);
        node.settle();
        let client = &node.clients[subscriber];
        let got: Vec<_> = client.got.iter().filter(|line| line.starts_with("r/5")).collect();
        assert_eq!(got, ["r/5=keptr", "r/5=new"], "seed {seed}");
        let subscribed = client.answers.iter().filter(|answer| answer.starts_with("sub")).collect::<Vec<_>>();
        assert!(subscribed.len() == 2 && subscribed.is_sorted(), "seed {seed}: {subscribed:?}");
    }
}

#[test]
fn suback_waits_for_no_more_than_the_first_part() {
    let mut node = Node::new(2, 5);
    let (publisher, subscriber) = (node.connect("publisher"), node.connect("subscriber"));
    for n in 0..6_000 {
        node.publish(publisher, &format!("{n}/x"), "x", 0, true);
        if n % 500 == 0 {
            node.settle();
        }
    }
    let large = "x".repeat(100_000);
    for n in 0..9 {
        node.publish(publisher, &format!("large/{n}"), &large, 0, true);
    }
    node.settle();
    for (filter, count) in [("+/none", 0), ("large/+", 9)] {
        node.subscribe(subscriber, filter, 0);
        while !is_subscribed(&node, subscriber) {
            node.stir(1);
        }
        assert!(filter != "+/none" || node.cores.iter().any(|core| core.has_work()), "it is over");
        node.settle();
        assert_eq!(node.clients[subscriber].got.len(), count, "{filter}");
        node.clients[subscriber].answers.clear();
    }
}
