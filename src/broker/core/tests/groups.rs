//! Shared groups, the same on a node of one shard and of several, wherever their members are.

use std::collections::{BTreeMap, BTreeSet};

use super::node::Node;
use crate::broker::core::Pressure;
use crate::settings::Limits;

const SEEDS: u64 = 40;
const GROUP: &str = "$share/g/t/+";

/// Runs a story on nodes of one, two and four shards, each with many clients' names, so that they are at home anywhere.
fn everywhere(limits: Limits, story: impl Fn(Node, &dyn Fn(&str) -> String, &str)) {
    for shards in [1, 2, 4] {
        for seed in 1..=SEEDS {
            let name = |of: &str| format!("{of}-{seed}");
            story(Node::with_limits(shards, seed, limits), &name, &format!("{shards} shards, seed {seed}"));
        }
    }
}

fn one_at_a_time() -> Limits {
    Limits { inflight_max: 1, ..Limits::default() }
}

impl Node {
    /// A member of the group.
    fn member(&mut self, name: &str, qos: u8, is_silent: bool) -> usize {
        let at = self.connect(name);
        self.silence(at, is_silent);
        self.subscribe(at, GROUP, qos);
        self.settle();
        at
    }

    /// A member leaves the group, and speaks again.
    fn leave(&mut self, member: usize) {
        self.unsubscribe(member, GROUP);
        self.settle();
        self.silence(member, false);
        self.settle();
    }

    /// Publishes to the group and lets it arrive.
    fn tell(&mut self, publisher: usize, payload: &str) {
        self.publish(publisher, "t/x", payload, 1, false);
        self.settle();
    }
}

#[test]
fn the_last_member_of_a_group_keeps_what_waits_for_it() {
    everywhere(one_at_a_time(), |mut node, name, which| {
        let p = node.connect(&name("p"));
        let a = node.member(&name("a"), 1, true);
        node.tell(p, "1");
        node.tell(p, "2");
        node.leave(a);
        assert_eq!(node.clients[a].got, ["t/x=1", "t/x=2"], "{which}");
    });
}

#[test]
fn what_nobody_else_may_have_stays_with_who_leaves() {
    everywhere(one_at_a_time(), |mut node, name, which| {
        let p = node.connect(&name("p"));
        let (a, b) = (node.member(&name("a"), 1, true), node.member(&name("b"), 0, false));
        node.lose(b);
        node.settle();
        node.tell(p, "1");
        node.tell(p, "2");
        node.leave(a);
        assert_eq!(node.clients[a].got, ["t/x=1", "t/x=2"], "{which}");
    });
}

#[test]
fn what_waits_for_a_member_that_leaves_goes_to_the_others() {
    for ends in [false, true] {
        everywhere(one_at_a_time(), |mut node, name, which| {
            let p = node.connect(&name("p"));
            let a = node.member(&name("a"), 1, true);
            ["1", "2", "3"].into_iter().for_each(|payload| node.tell(p, payload));
            let b = node.member(&name("b"), 1, false);
            match ends {
                true => drop(node.connect_clean(&name("a"))),
                false => node.unsubscribe(a, GROUP),
            }
            node.settle();
            let expected: &[&str] = if ends { &["t/x=1", "t/x=2", "t/x=3"] } else { &["t/x=2", "t/x=3"] };
            assert_eq!(node.clients[a].got, ["t/x=1"], "{which}");
            assert_eq!(node.clients[b].got, expected, "{which}, it ends: {ends}");
        });
    }
}

#[test]
fn a_member_that_does_not_acknowledge_takes_no_share() {
    everywhere(one_at_a_time(), |mut node, name, which| {
        let p = node.connect(&name("p"));
        let (a, b) = (node.member(&name("a"), 1, false), node.member(&name("b"), 1, true));
        (0..20).for_each(|n| node.tell(p, &n.to_string()));
        assert_eq!(node.clients[b].got.len(), 1, "{which}");
        assert_eq!(node.clients[a].got.len(), 19, "{which}");
        node.silence(b, false);
        (0..20).for_each(|n| node.tell(p, &n.to_string()));
        assert!(node.clients[b].got.len() > 5, "{which}: it is ready again");
    });
}

#[test]
fn a_message_that_its_member_has_no_room_for_goes_to_another() {
    let limits = Limits { inflight_max: 4, queued_messages_max: 4, ..Limits::default() };
    everywhere(limits, |mut node, name, which| {
        let p = node.connect(&name("p"));
        let (a, b) = (node.member(&name("a"), 1, true), node.member(&name("b"), 1, true));
        node.subscribe(b, "own", 1);
        node.settle();
        for (count, topic) in [(8, "own"), (2, "t/x")] {
            for n in 0..count {
                node.publish(p, topic, &n.to_string(), 1, false);
            }
        }
        node.settle();
        assert_eq!(node.clients[a].got, ["t/x=0", "t/x=1"], "{which}");
        assert_eq!(
            node.clients[p].answers.iter().filter(|one| one.starts_with("ack")).count(),
            10,
            "{which}"
        );
    });
}

#[test]
fn a_member_without_room_takes_nothing_that_another_has_room_for() {
    let limits = Limits { inflight_max: 1, queued_messages_max: 6, ..Limits::default() };
    for is_away in [false, true] {
        everywhere(limits, |mut node, name, which| {
            let p = node.connect(&name("p"));
            let members = ["a", "b"].map(|of| node.member(&name(of), 1, true));
            for (&at, topic) in members.iter().zip(["a", "b"]) {
                node.subscribe(at, topic, 1);
            }
            node.settle();
            for _ in 0..7 {
                node.publish(p, "a", "full", 1, false);
            }
            node.publish(p, "b", "waits", 1, false);
            node.settle();
            if is_away {
                members.iter().for_each(|&at| node.lose(at));
                node.settle();
            }
            (0..6).for_each(|n| node.tell(p, &n.to_string()));
            for &at in &members {
                if is_away {
                    let name = node.clients[at].name.clone();
                    node.connect(&name);
                }
                node.silence(at, false);
            }
            node.settle();
            let got = node.clients.iter().flat_map(|client| &client.got);
            let shared: BTreeSet<_> = got.filter(|line| line.starts_with("t/x")).collect();
            assert_eq!(shared.len(), 6, "{which}, they are away: {is_away}");
        });
    }
}

/// Members with a backlog, of which all but one have no room left, and nobody knows it yet.
fn all_but_one_are_full(
    mut node: Node,
    name: &dyn Fn(&str) -> String,
    which: &str,
    full: usize,
    further: usize,
) {
    let p = node.connect(&name("p"));
    let members: Vec<_> = (0..=full).map(|n| node.member(&name(&format!("member-{n}")), 1, true)).collect();
    for (n, &at) in members.iter().enumerate() {
        node.subscribe(at, &format!("own/{n}"), 1);
        for n in 0..further {
            node.subscribe(at, &format!("$share/{n}/none/{n}"), 1);
        }
    }
    node.settle();
    for n in 0..=full {
        for _ in 0..if n < full { 5 } else { 2 } {
            node.publish(p, &format!("own/{n}"), "fills", 1, false);
        }
    }
    node.settle();
    (0..3).for_each(|n| node.tell(p, &n.to_string()));
    members.iter().for_each(|&at| node.silence(at, false));
    node.settle();
    let shared = node.clients[members[full]].got.iter().filter(|line| line.starts_with("t/x")).count();
    assert_eq!(shared, 3, "{which}");
}

#[test]
fn a_message_is_dropped_only_if_nobody_has_room() {
    let limits = Limits { inflight_max: 1, queued_messages_max: 4, ..Limits::default() };
    everywhere(limits, |node, name, which| all_but_one_are_full(node, name, which, 2, 0));
    // Who is in very many groups is not looked at as closely.
    for shards in [1, 2, 4] {
        let node = Node::with_limits(shards, 7, limits);
        all_but_one_are_full(node, &str::to_owned, &format!("{shards} shards, many groups"), 20, 65);
    }
}

#[test]
fn what_comes_back_to_who_left_is_kept_however_full_its_queue_is() {
    everywhere(one_at_a_time(), |mut node, name, which| {
        let p = node.connect(&name("p"));
        let a = node.member(&name("a"), 1, true);
        (0..5).for_each(|n| node.tell(p, &format!("{n}{}", "x".repeat(30_000))));
        node.cores.iter_mut().for_each(|core| core.set_pressure(Pressure::Queues));
        node.leave(a);
        assert_eq!(node.clients[a].got.len(), 5, "{which}");
    });
}

#[test]
fn a_member_with_much_in_flight_takes_no_share_while_memory_is_short() {
    everywhere(Limits::default(), |mut node, name, which| {
        let p = node.connect(&name("p"));
        let (a, b) = (node.member(&name("a"), 1, false), node.member(&name("b"), 1, true));
        node.subscribe(b, "own", 1);
        node.settle();
        node.publish(p, "own", &"x".repeat(100_000), 1, false);
        node.settle();
        node.cores.iter_mut().for_each(|core| core.set_pressure(Pressure::Queues));
        node.settle();
        (0..10).for_each(|n| node.tell(p, &n.to_string()));
        assert_eq!(node.clients[a].got.len(), 10, "{which}");
        node.cores.iter_mut().for_each(|core| core.set_pressure(Pressure::None));
        node.settle();
        (0..10).for_each(|n| node.tell(p, &n.to_string()));
        assert_eq!(node.clients[a].got.len(), 15, "{which}: both are ready again");
    });
}

#[test]
fn groups_of_one_filter_come_and_go_in_any_order() {
    for shards in [1, 2, 4] {
        let mut node = Node::new(shards, 7);
        let (p, a) = (node.connect("p"), node.connect("a"));
        let group = |n: usize| format!("$share/g{n}/t/+");
        let mut there = BTreeSet::new();
        for _ in 0..300 {
            let n = node.random.below(40);
            match there.remove(&n) {
                true => node.unsubscribe(a, &group(n)),
                false => {
                    node.subscribe(a, &group(n), 1);
                    there.insert(n);
                }
            }
            if node.random.below(4) == 0 {
                node.settle();
                node.clients[a].got.clear();
                node.tell(p, "x");
                assert_eq!(node.clients[a].got.len(), there.len(), "{shards} shards: {there:?}");
            }
        }
    }
}

#[test]
fn leaving_many_groups_writes_the_session_once() {
    for shards in [1, 2, 4] {
        let mut node = Node::with_limits(shards, 7, one_at_a_time()).with_store();
        let (p, a, b) = (node.connect("p"), node.connect("a"), node.connect("b"));
        node.silence(a, true);
        node.subscribe(a, "own", 1);
        let groups: Vec<_> = (0..10).map(|n| format!("$share/g{n}/t/{n}")).collect();
        for group in &groups {
            node.subscribe(a, group, 1);
        }
        node.settle();
        node.publish(p, "own", "", 1, false);
        for n in 0..10 {
            node.publish(p, &format!("t/{n}"), &n.to_string(), 1, false);
        }
        node.settle();
        for group in &groups {
            node.subscribe(b, group, 1);
        }
        node.settle();
        let all: Vec<_> = groups.iter().map(String::as_str).collect();
        node.unsubscribe_all(a, &all);
        assert_eq!(node.ends_waiting(), 1, "{shards} shards");
        node.settle();
        assert_eq!(node.clients[b].got.len(), 10, "{shards} shards");
    }
}

/// Members come, go, fall silent, end; the store fails and is back; the node dies whenever it likes, and returns with however many shards.
fn turmoil(seed: u64, qos: u8) {
    let mut node = Node::with_limits(3, seed, Limits { inflight_max: 2, ..Limits::default() }).with_store();
    let publishers: Vec<_> = (0..2).map(|n| node.connect(&format!("publisher-{n}"))).collect();
    let members: Vec<_> = (0..4).map(|n| node.member(&format!("member-{n}"), qos, false)).collect();
    let (mut payloads, mut is_down) = (BTreeMap::new(), false);
    for _ in 0..400 {
        let at = members[node.random.below(4)];
        // The first stays, so that there is always somebody.
        let is_first = at == members[0];
        match node.random.below(40) {
            0 => {
                let shards = 1 + node.random.below(4);
                node.crash(shards);
                is_down = false;
            }
            1 if !is_first => node.unsubscribe(at, GROUP),
            2 | 3 => drop(node.subscribe(at, GROUP, qos)),
            4 | 5 => node.silence(at, true),
            6 => node.silence(at, false),
            39 if !is_down => {
                is_down = true;
                node.store_down();
                // Version 3 has no word for a refusal.
                let closed: Vec<_> = (0..node.clients.len()).filter(|&at| node.is_closed(at)).collect();
                for at in closed {
                    node.lose(at);
                    let name = node.clients[at].name.clone();
                    node.connect(&name);
                }
            }
            38 if is_down => {
                is_down = false;
                node.store_up();
                // Killed while it mends, it may lose what went from member to member.
                node.settle();
            }
            7 if !is_first && qos == 1 && !is_down => {
                let name = node.clients[at].name.clone();
                node.connect_clean(&name);
                node.connect(&name);
            }
            8..=16 => drop(node.write()),
            17..=26 if !is_down => {
                let at = publishers[node.random.below(2)];
                if node.clients[at].sending.len() < 5 {
                    let payload = format!("{}", payloads.len());
                    let id = node.publish(at, "t/x", &payload, qos, false);
                    payloads.insert((at, id), payload);
                }
            }
            _ => node.stir(1),
        }
    }
    if is_down {
        node.store_up();
    }
    node.settle();
    for &at in &members {
        node.subscribe(at, GROUP, qos);
        node.silence(at, false);
    }
    node.settle();
    let got: Vec<_> = members.iter().flat_map(|&at| &node.clients[at].got).collect();
    let known: BTreeSet<_> = got.iter().collect();
    for ((at, id), payload) in &payloads {
        let line = format!("t/x={payload}");
        let is_acknowledged = node.clients[*at].answers.contains(&format!("ack {id}"));
        assert!(!is_acknowledged || known.contains(&&line), "seed {seed}: {payload} is lost");
        let count = got.iter().filter(|other| ***other == line).count();
        assert!(qos == 1 || count == 1, "seed {seed}: {payload} came {count} times");
    }
}

#[test]
fn nothing_acknowledged_is_lost_whoever_leaves_and_whenever_the_node_dies() {
    (1..=4 * SEEDS).for_each(|seed| turmoil(seed, 1));
}

#[test]
fn at_qos_2_once_means_once_whoever_leaves_and_whenever_the_node_dies() {
    (1..=4 * SEEDS).for_each(|seed| turmoil(seed, 2));
}
