//! Random scripts: whatever happens in whatever order, what a link promises holds.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::mqtt::QoS;

use super::world::{Path, World};

const FILTERS: [&str; 7] = ["#", "a/#", "a/+", "a/b", "+/b", "b", "a/b/c"];
const TOPICS: [&str; 5] = ["a", "a/b", "a/b/c", "b", "c/b"];

/// Runs steps drawn from a seed. `restarts`: nodes may forget everything.
fn run(seed: u64, restarts: bool) -> (World, Vec<(String, String)>) {
    let mut net = World::two(seed);
    let mut published = Vec::new();
    for (name, peer) in [("us", "eu"), ("eu", "us")] {
        net.configure(name, peer, |half| half.forwarding.queue_age_s_max = 24 * 3600);
    }
    net.settle();
    for step in 0..150 {
        let name = ["us", "eu"][net.random.below(2) as usize];
        let peer = if name == "us" { "eu" } else { "us" };
        let filter = FILTERS[net.random.below(FILTERS.len() as u64) as usize];
        match net.random.below(20) {
            0..=2 => net.subscribe(name, filter),
            3..=4 => net.unsubscribe(name, filter),
            5..=11 => {
                let topic = TOPICS[net.random.below(TOPICS.len() as u64) as usize];
                let payload = format!("{name} {step}");
                net.publish(name, topic, &payload, QoS::AtLeastOnce);
                published.push((name.to_owned(), payload));
            }
            12 => net.set_path(name, peer, Path::Cut),
            13 => net.set_path(name, peer, Path::Silent),
            14..=15 => net.set_path(name, peer, Path::Open),
            16 => net.reset(name, peer),
            17 if restarts => net.restart(name),
            17 => net.configure(name, peer, |half| half.enabled = !half.enabled),
            18 => net.configure(name, peer, |half| half.topics = vec![filter.to_owned()]),
            _ => net.configure(name, peer, |half| half.topics = vec!["#".to_owned()]),
        }
        let pause = [0, 1, 12, 800, 6_000][net.random.below(5) as usize];
        net.run_for(Duration::from_millis(pause));
    }
    net.set_path("us", "eu", Path::Open);
    for (name, peer) in [("us", "eu"), ("eu", "us")] {
        net.configure(name, peer, |half| half.enabled = true);
    }
    net.settle();
    (net, published)
}

/// Each side serves what the other wants.
#[track_caller]
fn assert_synced(net: &World, seed: u64) {
    for (name, peer) in [("us", "eu"), ("eu", "us")] {
        let wanted: Vec<_> = net.the_link(name, peer).wanted().cloned().collect();
        let served: Vec<_> = net.clusters[peer].served[name].iter().cloned().collect();
        assert_eq!(wanted, served, "seed {seed}: {peer} serves what {name} wants");
    }
}

#[test]
fn nothing_is_lost_repeated_or_reordered_without_being_counted() {
    for seed in 100..160 {
        let (net, published) = run(seed, false);
        assert_synced(&net, seed);
        let order: BTreeMap<&String, usize> = published.iter().enumerate().map(|(i, p)| (&p.1, i)).collect();
        for (name, peer) in [("us", "eu"), ("eu", "us")] {
            let places: Vec<usize> = net.clusters[peer].got.iter().map(|payload| order[payload]).collect();
            assert!(places.is_sorted_by(|a, b| a < b), "seed {seed}: in order and once: {places:?}");
            let sent = net.the_link(name, peer).counters().sent;
            let received = net.the_link(peer, name).counters().received;
            assert_eq!(sent.matched, sent.acknowledged, "seed {seed}: nothing was dropped: {sent:?}");
            let unique = received.received - received.dropped.duplicate;
            assert_eq!(unique, sent.matched, "seed {seed}: all arrived: {received:?}");
        }
    }
}

#[test]
fn nodes_that_restart_end_up_synced_and_balanced() {
    for seed in 200..260 {
        let (mut net, _) = run(seed, true);
        assert_synced(&net, seed);
        net.configure("eu", "us", |half| half.topics = vec!["#".to_owned()]);
        net.subscribe("eu", "the/end");
        net.settle();
        net.publish("us", "the/end", "the end", QoS::AtLeastOnce);
        net.settle();
        let got = &net.at("eu").got;
        assert!(got.contains(&"the end".to_owned()), "seed {seed}");
    }
}
