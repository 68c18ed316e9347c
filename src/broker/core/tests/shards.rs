//! What several shards do together, beside what one does alone.

use super::node::{Node, Random};

const SEEDS: u64 = 60;

/// What happens to a node, the same for one shard and for several.
fn steps(seed: u64) -> Vec<Step> {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    let filters = ["t/a", "t/b", "t/+", "#", "u/#", "t/a/x", "+/b"];
    let topics = ["t/a", "t/b", "t/a/x", "u", "u/b"];
    (0..80)
        .map(|n| {
            let client = random.below(6);
            match random.below(10) {
                0 | 1 => Step::Subscribe(client, filters[random.below(filters.len())], random.below(3) as u8),
                2 => Step::Unsubscribe(client, filters[random.below(filters.len())]),
                3 => Step::Lose(client),
                4 => Step::Connect(client),
                5 => Step::Publish(client, topics[random.below(topics.len())], String::new(), 1, true),
                kind => {
                    let topic = topics[random.below(topics.len())];
                    Step::Publish(client, topic, n.to_string(), random.below(3) as u8, kind == 6)
                }
            }
        })
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(usize, &'static str, u8),
    Unsubscribe(usize, &'static str),
    Publish(usize, &'static str, String, u8, bool),
    Lose(usize),
    Connect(usize),
}

impl Step {
    fn client(&self) -> usize {
        match *self {
            Step::Subscribe(client, ..)
            | Step::Unsubscribe(client, ..)
            | Step::Publish(client, ..)
            | Step::Lose(client)
            | Step::Connect(client) => client,
        }
    }

    fn run(&self, node: &mut Node) {
        match self {
            Step::Subscribe(client, filter, qos) => {
                node.subscribe(*client, filter, *qos);
            }
            Step::Unsubscribe(client, filter) => node.unsubscribe(*client, filter),
            Step::Publish(client, topic, payload, qos, retain) => {
                node.publish(*client, topic, payload, *qos, *retain);
            }
            Step::Lose(client) => node.lose(*client),
            Step::Connect(client) => {
                let name = node.clients[*client].name.clone();
                node.connect(&name);
            }
        }
    }
}

fn crowd(shards: usize, seed: u64) -> Node {
    let mut node = Node::new(shards, seed);
    for n in 0..6 {
        node.connect(&format!("client-{n}"));
    }
    node.settle();
    node
}

/// Runs the steps, each once the one before has come to rest. What a client gets by one step has no order between shards.
fn story(shards: usize, seed: u64) -> Vec<String> {
    let mut node = crowd(shards, seed);
    let mut is_there = [true; 6];
    let mut lines = Vec::new();
    for step in steps(seed) {
        let client = step.client();
        match step {
            Step::Lose(_) if is_there[client] => is_there[client] = false,
            Step::Connect(_) if !is_there[client] => is_there[client] = true,
            Step::Lose(_) | Step::Connect(_) => continue,
            _ if !is_there[client] => continue,
            _ => {}
        }
        step.run(&mut node);
        node.settle();
        for client in &mut node.clients {
            client.got.sort();
            lines.push(format!("{step:?}: {} {:?} {:?}", client.name, client.got, client.answers));
            client.got.clear();
            client.answers.clear();
        }
    }
    lines
}

#[test]
fn several_shards_tell_the_same_story_as_one() {
    for seed in 1..=SEEDS {
        let alone = story(1, seed);
        for shards in 2..=4 {
            for (line, expected) in story(shards, seed).iter().zip(&alone) {
                assert_eq!(line, expected, "seed {seed}, {shards} shards");
            }
        }
    }
}

#[test]
fn what_is_published_after_suback_arrives_in_order_and_once() {
    for seed in 1..=SEEDS {
        let mut node = Node::new(2 + seed as usize % 3, seed);
        let publishers: Vec<_> = (0..4).map(|n| node.connect(&format!("publisher-{n}"))).collect();
        let subscribers: Vec<_> = (0..4).map(|n| node.connect(&format!("subscriber-{n}"))).collect();
        node.settle();
        let mut counts = [0; 4];
        let mut seen_from = vec![None; subscribers.len()];
        let asked: Vec<_> = subscribers.iter().map(|&at| node.subscribe(at, "t/+", 2)).collect();
        for _ in 0..120 {
            let who = node.random.below(4);
            let qos = 1 + node.random.below(2) as u8;
            node.publish(publishers[who], &format!("t/{who}"), &counts[who].to_string(), qos, false);
            counts[who] += 1;
            let turns = node.random.below(3);
            node.stir(turns);
            for (n, &at) in subscribers.iter().enumerate() {
                let answer = format!("sub {}", asked[n]);
                if seen_from[n].is_none() && node.clients[at].answers.contains(&answer) {
                    seen_from[n] = Some(counts);
                }
            }
        }
        node.settle();
        for (n, &at) in subscribers.iter().enumerate() {
            let from = seen_from[n].expect("SUBACK came in the midst of it");
            for who in 0..4 {
                let prefix = format!("t/{who}=");
                let got = node.clients[at].got.iter().filter_map(|line| line.strip_prefix(&prefix));
                let got: Vec<i32> = got.map(|number| number.parse().expect("a number")).collect();
                let first = got.first().copied().unwrap_or(counts[who]);
                assert!(
                    first <= from[who],
                    "seed {seed}: {first} is the first after SUBACK at {}",
                    from[who]
                );
                assert_eq!(got, (first..counts[who]).collect::<Vec<_>>(), "seed {seed}");
            }
        }
        for (who, &at) in publishers.iter().enumerate() {
            let acks = node.clients[at].answers.iter().filter(|answer| answer.starts_with("ack")).count();
            assert_eq!(acks as i32, counts[who], "seed {seed}: all is acknowledged");
        }
    }
}

#[test]
fn whoever_subscribes_ends_up_with_the_last_retained_message() {
    for seed in 1..=SEEDS {
        let mut node = Node::new(2 + seed as usize % 3, seed);
        let publisher = node.connect("publisher");
        let subscribers: Vec<_> = (0..5).map(|n| node.connect(&format!("subscriber-{n}"))).collect();
        node.settle();
        let mut last = [0; 4];
        let mut left = subscribers.clone();
        for n in 0..80 {
            let topic = node.random.below(4);
            node.publish(publisher, &format!("r/{topic}"), &n.to_string(), 1, true);
            last[topic] = n;
            if n % 10 == 5
                && let Some(at) = left.pop()
            {
                node.subscribe(at, "r/#", 1);
            }
            let turns = node.random.below(3);
            node.stir(turns);
        }
        node.settle();
        for &at in &subscribers {
            for (topic, last) in last.iter().enumerate() {
                let prefix = format!("r/{topic}=");
                let got = node.clients[at].got.iter().filter_map(|line| line.strip_prefix(&prefix));
                let got: Vec<&str> = got.map(|line| line.trim_end_matches('r')).collect();
                if *last > 0 {
                    assert_eq!(got.last(), Some(&last.to_string().as_str()), "seed {seed}: {got:?}");
                }
                let got: Vec<i32> = got.iter().map(|text| text.parse().expect("a number")).collect();
                assert!(got.is_sorted_by(|one, next| one < next), "seed {seed}: twice or too late: {got:?}");
            }
        }
    }
}

#[test]
fn a_shared_group_over_shards_gets_each_message_once() {
    for seed in 1..=SEEDS {
        let mut node = Node::new(2 + seed as usize % 3, seed);
        let publisher = node.connect("publisher");
        let members: Vec<_> = (0..5).map(|n| node.connect(&format!("member-{n}"))).collect();
        for &at in &members {
            node.subscribe(at, "$share/g/s/#", 1);
        }
        node.settle();
        for n in 0..100 {
            node.publish(publisher, "s/x", &n.to_string(), 1, false);
            let turns = node.random.below(3);
            node.stir(turns);
            if n == 50 {
                node.unsubscribe(members[0], "$share/g/s/#");
            }
        }
        node.settle();
        let mut got: Vec<i32> = members
            .iter()
            .flat_map(|&at| node.clients[at].got.iter())
            .map(|line| line.trim_start_matches("s/x=").parse().expect("a number"))
            .collect();
        got.sort_unstable();
        assert_eq!(got, (0..100).collect::<Vec<_>>(), "seed {seed}");
        let shares: Vec<_> = members.iter().map(|&at| node.clients[at].got.len()).collect();
        assert!(shares.iter().all(|&share| share > 5), "seed {seed}: {shares:?}");
        let acks = node.clients[publisher].answers.len();
        assert_eq!(acks, 100, "seed {seed}: all is acknowledged");
    }
}

#[test]
fn a_shard_that_does_not_listen_stops_publishers_and_nothing_is_lost() {
    let mut node = Node::new(2, 1);
    let (publisher, subscriber) = (node.connect_on(0, "client-"), node.connect_on(1, "client-"));
    node.settle();
    node.subscribe(subscriber, "#", 0);
    node.settle();
    let payload = "x".repeat(10_000);
    let mut sent = 0;
    while node.cores[0].reads(node.clients[publisher].id) {
        node.publish(publisher, "t", &payload, 0, false);
        sent += 1;
        if sent % 10 == 0 {
            node.turn(0);
        }
        assert!(sent < 1_000, "it goes on for ever");
    }
    assert!(sent > 100, "it stops early");
    node.settle();
    assert!(node.cores[0].reads(node.clients[publisher].id));
    assert_eq!(node.clients[subscriber].got.len(), sent);
}

#[test]
fn a_wide_filter_over_many_retained_messages_is_served_in_parts() {
    for shards in [1, 2] {
        let mut node = Node::new(shards, 3);
        let (publisher, subscriber) = (node.connect("publisher"), node.connect("subscriber"));
        for n in 0..6_000 {
            node.publish(publisher, &format!("r/{n}"), "x", 0, true);
            if n % 500 == 0 {
                node.settle();
            }
        }
        node.settle();
        node.subscribe(subscriber, "r/+", 0);
        let shard = node.clients[subscriber].shard;
        node.turn(shard);
        let first = node.clients[subscriber].got.len();
        assert!(first < 3_000, "{first} at once");
        // What changes meanwhile must not break the search, nor come twice.
        (0..6_000).step_by(7).for_each(|n| {
            node.publish(publisher, &format!("r/{n}"), "", 0, true);
            node.publish(publisher, &format!("q/{n}"), "y", 0, true);
        });
        node.settle();
        let got = &node.clients[subscriber].got;
        let shown = got.iter().filter(|line| line.ends_with("=xr")).count();
        assert!((6_000 - 6_000 / 7 - 1..=6_000).contains(&shown), "{shown} shown");
        assert_eq!(node.cores.iter().map(|core| core.levels().retained).sum::<usize>(), 6_000);
    }
}

#[test]
fn one_sessions_many_searches_wait_for_each_other_and_not_others_for_them() {
    for shards in [1, 2] {
        let mut node = Node::new(shards, 3);
        let (publisher, greedy, modest) =
            (node.connect("publisher"), node.connect("greedy"), node.connect("modest"));
        for n in 0..6_000 {
            node.publish(publisher, &format!("r/{}/{n}", n % 3), "x", 0, true);
            if n % 500 == 0 {
                node.settle();
            }
        }
        node.settle();
        for n in 0..500 {
            node.subscribe(greedy, &format!("+/+/none-{n}"), 0);
            node.subscribe(greedy, &format!("r/0/{}", n * 3), 0);
        }
        node.subscribe(modest, "r/1/#", 0);
        let mut turns = 0;
        while node.clients[modest].got.len() < 2_000 {
            node.stir(1);
            turns += 1;
            assert!(turns < 2_000, "it waits for all of the others");
        }
        node.settle();
        assert_eq!(node.clients[greedy].got.len(), 500, "each of its own comes, too");
    }
}

#[test]
fn at_qos_2_once_means_once_whenever_the_node_dies_and_with_however_many_shards_it_returns() {
    for seed in 1..=2 * SEEDS {
        let mut node = Node::durable(3, seed);
        let publishers: Vec<_> = (0..2).map(|n| node.connect(&format!("publisher-{n}"))).collect();
        let subscribers: Vec<_> = (0..3).map(|n| node.connect(&format!("subscriber-{n}"))).collect();
        for &at in &subscribers {
            node.subscribe(at, "t", 2);
            node.subscribe(at, "$share/g/t", 2);
        }
        node.settle();
        let mut count = 0;
        for _ in 0..300 {
            match node.random.below(40) {
                0 => {
                    let shards = 1 + node.random.below(4);
                    node.crash(shards);
                }
                1..=9 => {
                    node.write();
                }
                10..=19 if count < 100 => {
                    let at = publishers[node.random.below(2)];
                    if node.clients[at].sending.len() < 5 {
                        node.publish(at, "t", &count.to_string(), 2, false);
                        count += 1;
                    }
                }
                _ => node.stir(1),
            }
        }
        node.settle();
        assert!(publishers.iter().all(|&at| node.clients[at].sending.is_empty()), "seed {seed}");
        let mut all = Vec::new();
        for &at in &subscribers {
            all.extend(node.clients[at].got.iter().map(|line| line.trim_start_matches("t=").to_owned()));
        }
        // Each of three has its own, and one of them the group's.
        for n in 0..count {
            let times = all.iter().filter(|payload| **payload == n.to_string()).count();
            assert_eq!(times, 4, "seed {seed}: message {n}");
        }
    }
}

#[test]
fn while_the_store_is_down_shards_serve_each_other_what_nobody_keeps() {
    for shards in 1..=4 {
        for filter in ["t", "$share/g/t"] {
            let mut node = Node::durable(shards, 5);
            let clean: Vec<_> = (0..6).map(|n| node.connect_clean(&format!("clean-{n}"))).collect();
            let keeps = node.connect("keeps");
            node.subscribe(clean[0], filter, 1);
            node.subscribe(keeps, "$share/g/elsewhere", 1);
            node.subscribe(keeps, "t", 0);
            node.settle();
            node.store_down();
            for &at in &clean[1..] {
                node.publish(at, "t", "served", 1, false);
            }
            node.settle();
            assert_eq!(node.clients[clean[0]].got.len(), 5, "{shards} shards, {filter}");
            assert!(clean[1..].iter().all(|&at| node.clients[at].answers == ["ack 1"]), "{shards} shards");
            node.store_up();
            node.settle();
            node.subscribe(keeps, filter, 1);
            node.settle();
            node.store_down();
            for &at in &clean[1..] {
                node.publish(at, "t", "refused", 1, false);
            }
            node.settle();
            assert!(clean[1..].iter().all(|&at| node.is_closed(at)), "{shards} shards, {filter}");
            assert_eq!(node.clients[clean[0]].got.len(), 5, "{shards} shards, {filter}");
        }
    }
}

/// Who asks behind a SUBSCRIBE whether the broker is there is answered when all before is done.
#[test]
fn nothing_overtakes_a_suback() {
    for seed in 1..=20 {
        let mut node = Node::new(3, seed);
        let a = node.connect("a");
        node.settle();
        for filter in ["t/1", "t/2", "t/#"] {
            node.subscribe(a, filter, 0);
        }
        node.ping(a);
        node.subscribe(a, "u", 0);
        node.settle();
        assert_eq!(node.clients[a].answers, ["sub 1", "sub 2", "sub 3", "pong", "sub 4"], "seed {seed}");
    }
}

#[test]
fn messages_that_are_read_at_once_cross_as_one_by_one() {
    for seed in 0..SEEDS {
        let run = |at_once: bool| {
            let mut node = Node::new(2, seed);
            let publisher = node.connect_on(0, "publisher");
            let all = [(0, "t/+", 0), (1, "t/a", 0), (1, "t/+", 1), (1, "$share/g/t/c", 0)];
            for (n, (shard, filter, qos)) in all.into_iter().enumerate() {
                let client = node.connect_on(shard, &format!("subscriber-{n}-"));
                node.subscribe(client, filter, qos);
            }
            node.settle();
            let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
            for part in 0..12 {
                let usual = ["t/a", "t/b", "t/c"][random.below(3)];
                let qos = random.below(2) as u8;
                let messages: Vec<_> = (0..random.below(200))
                    .map(|n| {
                        let topic = if random.below(20) == 0 { "t/b" } else { usual };
                        let long =
                            if random.below(30) == 0 { "x".repeat(random.below(600)) } else { String::new() };
                        let payload = format!("{part}-{n:03}{long}");
                        (topic, payload, qos ^ u8::from(random.below(40) == 0), random.below(40) == 0)
                    })
                    .collect();
                match at_once {
                    true => node.publish_at_once(publisher, &messages),
                    false => messages.iter().for_each(|(topic, payload, qos, retain)| {
                        node.publish(publisher, topic, payload, *qos, *retain);
                    }),
                }
                node.stir(part % 4);
            }
            node.settle();
            let counted = node.cores.iter().map(|core| core.counters()).collect::<Vec<_>>();
            let heard = node.clients.into_iter().map(|client| (client.got, client.answers));
            (heard.collect::<Vec<_>>(), counted)
        };
        let (at_once, one_by_one) = (run(true), run(false));
        assert_eq!(at_once, one_by_one, "seed {seed}");
        assert!(at_once.0[3].0.len() > 100, "seed {seed}: much crosses");
    }
}

#[test]
fn what_others_send_for_many_is_done_in_parts_and_in_order() {
    const WORK: u64 = 4 << 20;
    let mut node = Node::new(2, 1);
    let publisher = node.connect_on(1, "publisher-");
    let readers: Vec<_> = (0..100).map(|n| node.connect_on(0, &format!("reader-{n}-"))).collect();
    readers.iter().for_each(|&reader| _ = node.subscribe(reader, "t", 0));
    node.settle();
    let said: Vec<_> = (0..800).map(|n| format!("{n}{}", "x".repeat(900))).collect();
    said.iter().for_each(|payload| _ = node.publish(publisher, "t", payload, 0, false));
    let (mut parts, mut before) = (0, node.cores[0].routed());
    for _ in 0..100 {
        [1, 0].iter().for_each(|&shard| _ = node.turn(shard));
        let cost = node.cores[0].routed() - std::mem::replace(&mut before, node.cores[0].routed());
        assert!(cost <= 2 * (WORK + 100_000), "{cost}: mail that comes, and what was left of that before");
        parts += usize::from(cost > 0);
    }
    assert!(parts > 8, "{parts}");
    node.settle();
    for reader in readers {
        let got = &node.clients[reader].got;
        assert!(
            got.len() == 800 && got.iter().zip(&said).all(|(got, said)| got.contains(said)),
            "{}",
            got.len()
        );
    }
}
