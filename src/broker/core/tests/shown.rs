//! What a subscriber is shown of what is retained on other shards, and what of its own waits for that.

use super::node::{Client, Node};
use crate::settings::Limits;

const SEEDS: u64 = 80;

/// A topic of those that begin like this, at home on a shard.
fn topic_on(node: &Node, shard: u8, stem: &str) -> String {
    node.name_on(shard, stem)
}

fn retain(node: &mut Node, client: usize, topics: impl Iterator<Item = String>) {
    for (n, topic) in topics.enumerate() {
        node.publish(client, &topic, "old", 1, true);
        if n % 500 == 499 {
            node.settle();
        }
    }
    node.settle();
}

#[track_caller]
fn assert_acknowledged(node: &Node, client: usize, packet_id: u16) {
    let answers = &node.clients[client].answers;
    assert!(answers.contains(&format!("ack {packet_id}")), "it is not read: {answers:?}");
}

/// Subscribes to a topic in one of several ways, with others.
fn subscribe(node: &mut Node, client: usize, way: usize, topic: &str) {
    let four = ["a/+", "b/+", "c/+", "d/+"];
    match way {
        0 => _ = node.subscribe(client, topic, 1),
        1 => _ = node.subscribe(client, "r/+", 1),
        2 => _ = node.subscribe_all(client, &[&four[..], &[topic]].concat(), 1),
        3 => four.into_iter().chain([topic]).for_each(|filter| _ = node.subscribe(client, filter, 1)),
        _ => {
            let exact: Vec<_> = (0..40).map(|n| format!("none/{n}")).collect();
            let all: Vec<_> = exact.iter().map(|filter| &**filter).chain([topic]).collect();
            node.subscribe_all(client, &all, 1);
        }
    }
}

// [MQTT-4.6.0-6] v3
#[test]
fn what_was_retained_comes_before_what_the_subscriber_itself_publishes() {
    for seed in 1..=SEEDS {
        for way in 0..5 {
            let mut node = Node::new(2 + seed as usize % 3, seed);
            let (publisher, subscriber) = (node.connect_on(0, "publisher"), node.connect_on(0, "subscriber"));
            let topic = topic_on(&node, 1, "r/");
            retain(&mut node, publisher, [topic.clone(), "r/x".to_owned()].into_iter());
            subscribe(&mut node, subscriber, way, &topic);
            if seed % 2 == 0 {
                while !node.clients[subscriber].answers.iter().any(|answer| answer.starts_with("sub")) {
                    node.stir(1);
                }
            }
            let ack = node.publish(subscriber, &topic, "new", seed as u8 % 2, false);
            node.ping(subscriber);
            node.settle();
            let got = node.clients[subscriber].got.iter().filter(|line| line.starts_with(&topic));
            let (first, second) = (format!("{topic}=oldr"), format!("{topic}=new"));
            assert_eq!(got.collect::<Vec<_>>(), [&first, &second], "seed {seed}, way {way}");
            if seed % 2 == 1 {
                assert_acknowledged(&node, subscriber, ack);
            }
        }
    }
}

/// A search whose session has others under way, and behind many of others.
#[test]
fn who_begins_goes_before_those_who_have() {
    let mut node = Node::new(2, 3);
    let (publisher, subscriber) = (node.connect_on(0, "publisher"), node.connect_on(0, "subscriber"));
    retain(&mut node, publisher, (0..6_000).map(|n| format!("many/{n}")));
    let crowd: Vec<_> = (0..30).map(|n| node.connect_on(0, &format!("crowd-{n}-"))).collect();
    for &one in &crowd {
        (0..4).for_each(|n| _ = node.subscribe(one, &format!("many/+/{n}"), 0));
    }
    // Each has made its first step, on either shard.
    (0..600).for_each(|n| _ = node.turn(n % 2));
    assert!(node.cores[1].has_work());
    let topic = topic_on(&node, 1, "r/");
    node.subscribe(subscriber, &topic, 0);
    let ack = node.publish(subscriber, &topic, "new", 1, false);
    let mut turns = 0;
    while !node.clients[subscriber].answers.contains(&format!("ack {ack}")) {
        node.turn(turns % 2);
        turns += 1;
        assert!(turns < 30, "it waits for those who were there before");
    }
    assert!(node.cores[1].has_work(), "they are not over");
}

/// Only the first part is waited for, and of so many searches as may be under way.
#[test]
fn large_searches_hold_nobody_back_until_they_are_over() {
    for shards in [1, 2] {
        let mut node = Node::new(shards, 3);
        let (publisher, subscriber) = (node.connect_on(0, "publisher"), node.connect_on(0, "subscriber"));
        retain(&mut node, publisher, (0..9_000).map(|n| format!("{n}/x")));
        for n in 0..6 {
            node.subscribe(subscriber, &format!("+/none-{n}"), 0);
        }
        let ack = node.publish(subscriber, "t", "new", 1, false);
        (0..40).for_each(|n| _ = node.turn(n % shards));
        assert_acknowledged(&node, subscriber, ack);
        assert!(node.cores.iter().any(|core| core.has_work()), "they are over");
        node.settle();
    }
}

#[test]
fn what_was_found_late_for_another_shards_sake_is_waited_for() {
    let mut node = Node::new(3, 3);
    let names = [(0, "subscriber"), (1, "publisher"), (2, "slow")];
    let [subscriber, publisher, slow] = names.map(|(shard, name)| node.connect_on(shard, name));
    let topic = topic_on(&node, 1, "r/");
    retain(&mut node, publisher, [topic.clone()].into_iter());
    node.subscribe(slow, "flood", 0);
    node.subscribe(subscriber, &topic, 0); // the interest is held from here on
    node.settle();
    node.clients[subscriber].got.clear();
    while !node.cores[1].is_congested() {
        node.publish(publisher, "flood", &"x".repeat(100_000), 0, false);
        node.turn(1);
    }
    node.subscribe(subscriber, &topic, 0);
    let ack = node.publish(subscriber, &topic, "new", 1, false);
    (0..20).for_each(|n| _ = node.turn(n % 2));
    let Client { got, answers, .. } = &node.clients[subscriber];
    assert!(got.is_empty() && answers.len() == 2, "SUBACK came, and no more: {got:?} {answers:?}");
    node.settle();
    assert_eq!(node.clients[subscriber].got, [format!("{topic}=oldr"), format!("{topic}=new")]);
    assert_acknowledged(&node, subscriber, ack);
}

/// The connection that asked is no more; the next one of its session asks, too.
#[test]
fn who_comes_back_amid_a_search_is_read() {
    for seed in 1..=SEEDS {
        let mut node = Node::new(2, seed);
        let (publisher, name) = (node.connect_on(0, "publisher"), node.name_on(0, "subscriber"));
        let mut topics = vec![topic_on(&node, 1, "r/")];
        topics.extend((0..3_000).map(|n| format!("many/{n}")).filter(|_| seed % 8 == 0));
        retain(&mut node, publisher, topics.iter().cloned());
        let mut subscriber = node.connect(&name);
        for round in 0..6 {
            for filter in [&topics[0], "many/+", "+/none"] {
                node.subscribe(subscriber, filter, 1);
            }
            node.publish(subscriber, "t", "held back", 1, false);
            let turns = node.random.below(12);
            node.stir(turns);
            if (seed + round) % 2 == 0 {
                node.lose(subscriber);
                let turns = node.random.below(4);
                node.stir(turns);
            }
            subscriber = match (seed + round) % 3 {
                0 => node.connect_clean(&name),
                _ => node.connect(&name),
            };
        }
        node.subscribe(subscriber, &topics[0], 1);
        let ack = node.publish(subscriber, "t", "last", 1, false);
        node.settle();
        assert_acknowledged(&node, subscriber, ack);
    }
}

/// It has no room, acknowledges nothing and may be sent one message at a time.
#[test]
fn who_has_no_room_for_what_is_found_is_read() {
    let all = ["r/+", "#", "+/1", "+/2", "r/3", "r/4", "r/5"];
    for (shards, filters) in [(1, &all[..]), (2, &all), (2, &all[..1]), (3, &all[..5])] {
        let limits = Limits { inflight_max: 1, queued_messages_max: 3, ..Limits::default() };
        let mut node = Node::with_limits(shards, 5, limits);
        let (publisher, subscriber) = (node.connect_on(0, "publisher"), node.connect_on(0, "subscriber"));
        node.silence(subscriber, true);
        let home = shards as u8 - 1;
        let topics: Vec<_> = (0..2_000).map(|n| topic_on(&node, home, &format!("r/{n}-"))).collect();
        retain(&mut node, publisher, topics.into_iter());
        node.subscribe_all(subscriber, filters, 1);
        let ack = node.publish(subscriber, "t", "new", 1, false);
        node.settle();
        assert_acknowledged(&node, subscriber, ack);
        assert_eq!(node.clients[subscriber].got.len(), 1, "it acknowledged none");
        node.silence(subscriber, false);
        node.settle();
    }
}

/// Searches that find no place on the other shard are cut short.
#[test]
fn who_is_cut_short_is_read() {
    let mut node = Node::new(2, 5);
    let publisher = node.connect_on(0, "publisher");
    retain(&mut node, publisher, (0..2_600).map(|n| format!("{n}/x")));
    let crowd: Vec<_> = (0..2_600).map(|n| node.connect_on(0, &format!("crowd-{n}-"))).collect();
    node.subscribe(crowd[0], "+/none", 0);
    node.settle();
    let mut acks = crowd.iter().map(|&one| {
        (0..4).for_each(|_| _ = node.subscribe(one, "+/none", 0));
        node.publish(one, "t", "new", 1, false)
    });
    let last = acks.by_ref().last().expect("there are many");
    (0..20).for_each(|n| _ = node.turn(n % 2));
    assert_acknowledged(&node, crowd[2_599], last);
    assert_eq!(node.clients[crowd[2_000]].answers.len(), 4, "who has a place waits for its turn");
}

/// Each has a part of a step for itself, whatever those before it left.
#[test]
fn a_crowd_that_begins_at_once_is_shown_what_is_retained_first() {
    let mut node = Node::new(2, 7);
    let publisher = node.connect_on(0, "publisher");
    let topics: Vec<_> = (0..700).map(|n| topic_on(&node, 1, &format!("r/{n}-"))).collect();
    retain(&mut node, publisher, topics.iter().cloned());
    let crowd: Vec<_> = (0..700).map(|n| node.connect_on(0, &format!("crowd-{n}-"))).collect();
    for (&one, topic) in crowd.iter().zip(&topics) {
        node.subscribe(one, topic, 0);
        node.publish(one, topic, "new", 0, false);
    }
    node.settle();
    for (&one, topic) in crowd.iter().zip(&topics) {
        assert_eq!(node.clients[one].got, [format!("{topic}=oldr"), format!("{topic}=new")]);
    }
}

#[test]
fn those_who_begin_do_not_keep_others_from_coming_to_an_end() {
    let mut node = Node::new(2, 7);
    let (publisher, patient) = (node.connect_on(0, "publisher"), node.connect_on(0, "patient"));
    retain(&mut node, publisher, (0..3_000).map(|n| format!("many/{n}")));
    node.subscribe(patient, "many/+", 0);
    for n in 0.. {
        assert!(n < 200, "{} came", node.clients[patient].got.len());
        if node.clients[patient].got.len() == 3_000 {
            break;
        }
        let one = node.connect_on(0, &format!("one-{n}-"));
        (0..2).for_each(|_| _ = node.subscribe(one, "many/+/none", 0));
        (0..2).for_each(|shard| _ = node.turn(shard));
    }
}

/// Its filters are many, and at home where it is.
#[test]
fn one_who_has_much_to_begin_lets_others_begin() {
    let mut node = Node::new(2, 7);
    let (modest, greedy) = (node.connect_on(0, "modest"), node.connect_on(0, "greedy"));
    let elsewhere: Vec<_> = (0..6).map(|n| topic_on(&node, 1, &format!("r/{n}/"))).collect();
    let here: Vec<_> = (0..8_000).map(|n| topic_on(&node, 0, &format!("r/{n}/"))).collect();
    let mut all: Vec<_> = elsewhere.iter().map(|topic| &**topic).collect();
    node.settle();
    for _ in 0..2 {
        // With the second the interest is held, and so both ask at once.
        node.subscribe_all(modest, &all, 0);
        all.truncate(5);
        all.extend(here.iter().map(|topic| &**topic));
        node.subscribe_all(greedy, &all, 0);
        all.truncate(5);
        all.push(&elsewhere[5]);
        if node.clients[modest].answers.is_empty() {
            node.settle();
        }
    }
    let ack = node.publish(modest, "t", "new", 1, false);
    (0..30).for_each(|n| _ = node.turn((n + 1) % 2));
    assert_acknowledged(&node, modest, ack);
    assert!(node.cores[0].has_work(), "greedy's are over");
}

/// Beyond so many the client goes on without: it would wait long.
#[test]
fn very_many_searches_are_not_waited_for() {
    let mut node = Node::new(2, 5);
    let subscriber = node.connect_on(0, "subscriber");
    node.settle();
    let filters: Vec<_> = (0..1_000).map(|n| format!("none/{n}")).collect();
    node.subscribe_all(subscriber, &filters.iter().map(|filter| &**filter).collect::<Vec<_>>(), 0);
    let ack = node.publish(subscriber, "t", "new", 1, false);
    let mut turns = 0;
    while !node.clients[subscriber].answers.contains(&format!("ack {ack}")) {
        node.turn(turns % 2);
        turns += 1;
        assert!(turns < 20, "it waits for all of them");
    }
}

/// What waits for SUBACKs is bounded by their number, not by packet ids alone.
#[test]
fn few_subscribes_are_read_while_they_wait() {
    let mut node = Node::new(2, 5);
    let subscriber = node.connect_on(0, "subscriber");
    node.settle();
    for n in 0..100 {
        node.subscribe(subscriber, &format!("t/{n}"), 0);
    }
    let id = node.clients[subscriber].id;
    assert_eq!(node.cores[0].wires.get(id).map(|connection| connection.subscribing), Some(16));
    node.settle();
    assert_eq!(node.clients[subscriber].answers.len(), 100);
}

/// What a SUBSCRIBE asks for is not all looked for in the event that brings it, and others are not kept from theirs.
#[test]
fn a_subscribe_of_many_wide_filters_goes_in_parts() {
    let mut node = Node::new(1, 7);
    let [publisher, greedy, modest] = ["publisher", "greedy", "modest"].map(|name| node.connect(name));
    retain(&mut node, publisher, (0..100).map(|n| format!("{n}/y")));
    node.subscribe_all(greedy, &["+/y"; 200], 0);
    node.turn(0);
    let came = node.clients[greedy].got.len();
    assert!((500..6_000).contains(&came), "{came}");
    assert_eq!(node.clients[greedy].answers.len(), 1);
    node.subscribe(modest, "5/y", 0);
    node.publish(modest, "5/y", "new", 0, false);
    (0..2).for_each(|_| _ = node.turn(0));
    assert_eq!(node.clients[modest].got, ["5/y=oldr", "5/y=new"]);
    assert!(node.clients[greedy].got.len() < 12_000, "each turn has a part");
    node.settle();
    assert_eq!(node.clients[greedy].got.iter().filter(|line| line.ends_with('r')).count(), 20_000);
}

/// Each session stands in line once, whatever it has to begin.
#[test]
fn a_crowd_that_has_much_to_begin_lets_others_begin() {
    let mut node = Node::new(2, 7);
    let modest = node.connect_on(0, "modest");
    let crowd: Vec<_> = (0..50).map(|n| node.connect_on(0, &format!("crowd-{n}-"))).collect();
    let elsewhere: Vec<_> = (0..600).map(|n| topic_on(&node, 1, &format!("none/{n}/"))).collect();
    let all: Vec<_> = elsewhere.iter().map(|topic| &**topic).collect();
    crowd.iter().for_each(|&one| _ = node.subscribe_all(one, &all, 0));
    (0..60).for_each(|n| _ = node.turn(n % 2));
    node.subscribe_all(modest, &all[..6], 0);
    let ack = node.publish(modest, "t", "new", 1, false);
    let mut turns = 0;
    while !node.clients[modest].answers.contains(&format!("ack {ack}")) {
        node.turn(turns % 2);
        turns += 1;
        assert!(turns < 40, "it waits for the crowd");
    }
    assert!((0..60).filter(|n| node.turn(n % 2)).count() > 30, "the crowd is over");
}
