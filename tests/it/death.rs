//! What dies, and what goes on.

use nix::sys::signal::Signal;

use crate::clients::{Kind, Paho, Post, Rumqttc};
use crate::harness::{Clusters, Process, Up, alive, signal, until};

fn linked() -> Up {
    Up::start(Clusters::linked(r##"["#"]"##, r##"["#"]"##))
}

#[test]
fn a_killed_node_comes_back_and_so_does_its_link() {
    let mut up = linked();
    for (killed, other) in [("eu-west", "us-east"), ("us-east", "eu-west")] {
        let mut gone = Paho.listen(&up.at(killed), "back/#");
        let mut stays = up.subscribed(&Paho, &up.at(other), "back/#", killed);
        let before = up.node(killed).pid;
        signal(before, Signal::SIGKILL);
        gone.gone();
        until("a new node", || up.nodes().iter().any(|node| is_new(node, killed, before)).then_some(()));
        up.ready();

        let mut again = up.subscribed(&Paho, &up.at(killed), "back/#", other);
        up.interest_is_known(other, killed);
        Rumqttc.publish(&up.at(other), &[Post::new("back/1", "to the new", 1)]);
        assert_eq!(
            (again.next().payload, stays.next().payload),
            ("to the new".to_owned(), "to the new".to_owned())
        );
        Rumqttc.publish(&up.at(killed), &[Post::new("back/2", "from the new", 1)]);
        assert_eq!(
            (again.next().payload, stays.next().payload),
            ("from the new".to_owned(), "from the new".to_owned())
        );
    }
    assert!(up.end(Signal::SIGTERM).success());
}

fn is_new(node: &Process, cluster: &str, before: u32) -> bool {
    node.pid != before && node.option("--node").is_some_and(|name| name.contains(cluster))
}

#[test]
fn a_peer_that_pauses_misses_nothing() {
    let up = linked();
    let mut subscriber = up.subscribed(&Paho, &up.at("eu-west"), "pause/#", "us-east");
    let peer = up.node("eu-west").pid;
    signal(peer, Signal::SIGSTOP);
    let numbers: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let posts: Vec<Post> = numbers.iter().map(|number| Post::new("pause/1", number, 1)).collect();
    Rumqttc.publish(&up.at("us-east"), &posts); // acknowledged, though nobody has them yet
    signal(peer, Signal::SIGCONT);
    assert_eq!(subscriber.payloads(500), numbers);
}

#[test]
fn a_node_that_stops_hands_over_what_it_acknowledged() {
    let up = linked();
    let mut subscriber = up.subscribed(&Paho, &up.at("eu-west"), "stop/#", "us-east");
    let (stops, peer) = (up.node("us-east").pid, up.node("eu-west").pid);
    signal(peer, Signal::SIGSTOP);
    // More than the link has on its way at once.
    let numbers: Vec<String> = (0..3_000).map(|number| number.to_string()).collect();
    let posts: Vec<Post> = numbers.iter().map(|number| Post::new("stop/1", number, 1)).collect();
    Rumqttc.publish(&up.at("us-east"), &posts);
    signal(stops, Signal::SIGTERM);
    signal(peer, Signal::SIGCONT);
    assert_eq!(subscriber.payloads(numbers.len()), numbers);
}

#[test]
fn no_node_outlives_a_killed_up() {
    let mut up = linked();
    let nodes: Vec<u32> = up.nodes().iter().map(|node| node.pid).collect();
    assert_eq!(nodes.len(), 2);
    up.end(Signal::SIGKILL);
    until("the nodes' end", || nodes.iter().all(|pid| !alive(*pid)).then_some(()));
}

#[test]
fn up_ends_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut up = linked();
        let nodes: Vec<u32> = up.nodes().iter().map(|node| node.pid).collect();
        let mut subscriber = Paho.listen(&up.at("us-east"), "any");
        let status = up.end(signal);
        assert!(status.success(), "{signal}: {status}; {}", up.said());
        assert!(nodes.iter().all(|pid| !alive(*pid)), "{signal} left a node behind");
        subscriber.gone();
    }
}
