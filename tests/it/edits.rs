//! `up` follows its manifest: what changes takes effect without a restart of any node.

use std::collections::BTreeSet;

use crate::clients::{Kind, Paho, Post, Rumqttc};
use crate::harness::{Clusters, Up};

fn pids(up: &Up) -> BTreeSet<u32> {
    up.nodes().iter().map(|node| node.pid).collect()
}

const ALL: &str = r##"["#"]"##;

#[test]
fn changed_topics_take_effect() {
    let mut up = Up::start(Clusters::linked(ALL, "[]"));
    let nodes = pids(&up);
    let mut there = Paho.listen(&up.at("eu-west"), "linked/#");
    up.edit(|clusters| clusters.unlinked().link("us-eu", "us-east", ALL, "eu-west", ALL));
    up.status("us-east").until("the peer's new topics", |report| {
        report.links.iter().any(|link| link.peer.as_ref().is_some_and(|half| half.topics == ["#"]))
    });
    up.interest_is_known("eu-west", "us-east");
    Rumqttc.publish(&up.at("us-east"), &[Post::new("linked/42", "now", 1)]);
    assert_eq!(there.next().payload, "now");
    assert_eq!(pids(&up), nodes);
}

#[test]
fn a_link_can_go_and_come() {
    let mut up = Up::start(Clusters::linked(ALL, ALL));
    let nodes = pids(&up);
    let mut there = up.subscribed(&Paho, &up.at("eu-west"), "linked/#", "us-east");
    up.edit(Clusters::unlinked);
    up.ready();
    Rumqttc.publish(&up.at("us-east"), &[Post::new("linked/1", "lost", 1)]);
    Rumqttc.publish(&up.at("eu-west"), &[Post::new("linked/2", "marker", 1)]);
    assert_eq!(there.payloads_until("marker"), Vec::<String>::new());
    up.edit(|clusters| clusters.link("us-eu", "us-east", ALL, "eu-west", ALL));
    up.ready();
    up.interest_is_known("eu-west", "us-east");
    Rumqttc.publish(&up.at("us-east"), &[Post::new("linked/1", "again", 1)]);
    assert_eq!(there.next().payload, "again");
    assert_eq!(pids(&up), nodes);
}
