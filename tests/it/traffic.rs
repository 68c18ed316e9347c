//! Only what is wanted crosses: read off the link's own counters after a marker that went the same way.

use mqlink::settings::report::LinkReport;

use crate::clients::{Kind, Mosquitto, Paho, Post, Rumqttc};
use crate::harness::{Clusters, Up};

fn posts(topic: &str, count: usize) -> Vec<Post> {
    (0..count).map(|number| Post::new(topic, &number.to_string(), 1)).collect()
}

/// Publishes the marker at `from`, waits until `subscriber` at the other side has it and `from` has counted it.
/// Returns `from`'s report and what the subscriber heard before.
fn after_marker(up: &Up, from: &str, matched_least: u64) -> LinkReport {
    let counted = |report: &LinkReport| report.counters.sent.matched >= matched_least;
    let mut report = up.status(from).until("the marker's count", |node| node.links.iter().any(counted));
    report.links.remove(0)
}

#[test]
fn what_nobody_wants_crosses_no_time() {
    let up = Up::start(Clusters::linked(r##"["#"]"##, r##"["#"]"##));
    let mut subscriber = up.subscribed(&Paho, &up.at("eu-west"), "wanted/#", "us-east");
    let before = up.link("us-east").counters.sent.matched;
    Rumqttc.publish(&up.at("us-east"), &posts("unwanted/1", 500));
    Rumqttc.publish(&up.at("us-east"), &[Post::new("wanted/1", "marker", 1)]);
    assert_eq!(subscriber.next().payload, "marker");
    let sent = after_marker(&up, "us-east", before + 1).counters.sent;
    assert_eq!(sent.matched, before + 1);
    let received = up.link("eu-west").counters.received;
    assert_eq!((received.received, received.delivered), (before + 1, before + 1));
}

#[test]
fn unsubscribing_stops_the_traffic() {
    let up = Up::start(Clusters::linked(r##"["#"]"##, r##"["#"]"##));
    let mut marker = up.subscribed(&Paho, &up.at("eu-west"), "marker", "us-east");
    let mut subscriber = up.subscribed(&Paho, &up.at("eu-west"), "data/#", "us-east");
    let before = up.link("us-east").counters.sent.matched;
    Rumqttc.publish(&up.at("us-east"), &posts("data/1", 50));
    assert_eq!(subscriber.payloads(50).len(), 50);
    assert_eq!(after_marker(&up, "us-east", before + 50).counters.sent.matched, before + 50);

    subscriber.unsubscribe("data/#");
    up.interest_is_known("eu-west", "us-east");
    let before = up.link("us-east").counters.sent.matched;
    Rumqttc.publish(&up.at("us-east"), &posts("data/1", 500));
    Rumqttc.publish(&up.at("us-east"), &[Post::new("marker", "marker", 1)]);
    assert_eq!(marker.next().payload, "marker");
    assert_eq!(after_marker(&up, "us-east", before + 1).counters.sent.matched, before + 1);
}

#[test]
fn a_one_way_link_carries_one_way() {
    let up = Up::start(Clusters::linked(r##"["#"]"##, "[]"));
    // eu-west wants nothing, whoever subscribes there.
    let mut there = Paho.listen(&up.at("eu-west"), "linked/#");
    let mut here = up.subscribed(&Paho, &up.at("us-east"), "linked/#", "eu-west");
    Rumqttc.publish(&up.at("us-east"), &posts("linked/42", 100));
    assert_eq!(here.payloads(100).len(), 100); // they are also local
    Rumqttc.publish(&up.at("eu-west"), &[Post::new("linked/1", "marker", 1)]);
    assert_eq!((there.next().payload.as_str(), here.next().payload.as_str()), ("marker", "marker"));
    assert_eq!(up.link("us-east").counters.sent.matched, 0);
    assert_eq!(up.link("eu-west").counters.received.received, 0);
    assert!(up.link("eu-west").counters.sent.matched > 0);
}

#[test]
fn a_link_carries_only_its_topics() {
    let up = Up::start(Clusters::linked(r##"["#"]"##, r##"["fleet/#", "interest/#"]"##));
    let mut subscriber = up.subscribed(&Paho, &up.at("eu-west"), "#", "us-east");
    let before = up.link("us-east").counters.sent.matched;
    Rumqttc.publish(&up.at("us-east"), &posts("other/1", 100));
    Rumqttc.publish(&up.at("us-east"), &[Post::new("fleet/1", "marker", 1)]);
    assert_eq!(subscriber.payloads_until("marker").iter().filter(|payload| *payload != "known?").count(), 0);
    assert_eq!(after_marker(&up, "us-east", before + 1).counters.sent.matched, before + 1);
}

#[test]
fn counters_balance_on_both_sides() {
    let up = Up::start(Clusters::linked(r##"["#"]"##, r##"["#"]"##));
    let mut subscriber = up.subscribed(&Paho, &up.at("eu-west"), "count/#", "us-east");
    let known = up.link("us-east").counters.sent.matched;
    for qos in 0..=2 {
        let posts: Vec<Post> =
            (0..200).map(|number| Post::new("count/1", &number.to_string(), qos)).collect();
        Rumqttc.publish(&up.at("us-east"), &posts);
        assert_eq!(subscriber.payloads(200).len(), 200, "QoS {qos}");
    }
    let settled = |link: &LinkReport| link.counters.sent.acknowledged == known + 600;
    let sent = up.status("us-east").until("600 crossings", |node| node.links.iter().all(settled)).links[0]
        .counters
        .sent;
    assert_eq!((sent.matched, sent.queued, sent.in_flight), (known + 600, 0, 0));
    let arrived = |link: &LinkReport| link.counters.received.received == known + 600;
    let report = up.status("eu-west").until("600 arrivals", |node| node.links.iter().all(arrived));
    assert_eq!(report.links[0].counters.received.delivered, known + 600);
}

#[test]
fn three_clusters_do_not_echo() {
    let clusters = Clusters::default().cluster("us-east").cluster("eu-west").cluster("ap-south");
    let clusters = clusters
        .link("us-eu", "us-east", r##"["#"]"##, "eu-west", r##"["#"]"##)
        .link("eu-ap", "eu-west", r##"["#"]"##, "ap-south", r##"["#"]"##)
        .link("ap-us", "ap-south", r##"["#"]"##, "us-east", r##"["#"]"##);
    let up = Up::start(clusters);
    let all = ["us-east", "eu-west", "ap-south"];
    let mut subscribers = all.map(|cluster| Paho.listen(&up.at(cluster), "ring/#"));
    for to in all {
        for from in all.iter().filter(|from| **from != to) {
            up.interest_is_known(to, from);
        }
    }
    let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for from in all {
        Mosquitto.publish(&up.at(from), &[Post::new("ring/1", from, 1)]);
    }
    Rumqttc.publish(&up.at("us-east"), &posts("ring/2", 20));
    for subscriber in &mut subscribers {
        let mut heard = subscriber.payloads(23);
        heard.retain(|payload| !all.contains(&payload.as_str()));
        assert_eq!(heard, numbers);
    }
    // A second time round would come before this.
    for (cluster, subscriber) in all.iter().zip(&mut subscribers) {
        Mosquitto.publish(&up.at(cluster), &[Post::new("ring/3", cluster, 1)]);
        assert_eq!(subscriber.next().topic, "ring/3");
    }
}
