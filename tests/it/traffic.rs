//! Only what is wanted crosses: read off the link's own counters after a marker that went the same way.

use crate::clients::{Kind, Mosquitto, Paho, Post, Rumqttc};
use crate::harness::{Clusters, Up};

fn posts(topic: &str, count: usize) -> Vec<Post> {
    (0..count).map(|number| Post::new(topic, &number.to_string(), 1)).collect()
}

/// How many messages from there have matched a route of the peer.
fn matched(up: &Up, cluster: &str) -> u64 {
    up.link(cluster).counters.sent.matched
}

/// How many have arrived there, and how many of them found somebody.
fn arrived(up: &Up, cluster: &str) -> (u64, u64) {
    let received = up.link(cluster).counters.received;
    assert_eq!(received.received, received.delivered + received.dropped.total());
    (received.received, received.delivered)
}

#[test]
fn what_nobody_wants_crosses_no_time() {
    let up = Up::start(Clusters::linked(r##"["#"]"##, r##"["#"]"##));
    let mut subscriber = up.subscribed(&Paho, &up.at("eu-west"), "wanted/#", "us-east");
    let (before, (received, delivered)) = (matched(&up, "us-east"), arrived(&up, "eu-west"));
    Rumqttc.publish(&up.at("us-east"), &posts("unwanted/1", 500));
    Rumqttc.publish(&up.at("us-east"), &[Post::new("wanted/1", "marker", 1)]);
    assert_eq!(subscriber.next().payload, "marker");
    assert_eq!(matched(&up, "us-east"), before + 1);
    assert_eq!(arrived(&up, "eu-west"), (received + 1, delivered + 1));
}

#[test]
fn unsubscribing_stops_the_traffic() {
    let up = Up::start(Clusters::linked(r##"["#"]"##, r##"["#"]"##));
    let mut marker = up.subscribed(&Paho, &up.at("eu-west"), "marker", "us-east");
    let mut subscriber = up.subscribed(&Paho, &up.at("eu-west"), "data/#", "us-east");
    let before = matched(&up, "us-east");
    Rumqttc.publish(&up.at("us-east"), &posts("data/1", 50));
    assert_eq!(subscriber.payloads(50).len(), 50);
    assert_eq!(matched(&up, "us-east"), before + 50);

    subscriber.unsubscribe("data/#");
    up.interest_is_known("eu-west", "us-east");
    let before = matched(&up, "us-east");
    Rumqttc.publish(&up.at("us-east"), &posts("data/1", 500));
    Rumqttc.publish(&up.at("us-east"), &[Post::new("marker", "marker", 1)]);
    assert_eq!(marker.next().payload, "marker");
    assert_eq!(matched(&up, "us-east"), before + 1);
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
    assert_eq!(matched(&up, "us-east"), 0);
    assert_eq!(arrived(&up, "eu-west"), (0, 0));
    assert!(matched(&up, "eu-west") > 0);
}

#[test]
fn a_link_carries_only_its_topics() {
    let up = Up::start(Clusters::linked(r##"["#"]"##, r##"["fleet/#", "interest/#"]"##));
    let mut subscriber = up.subscribed(&Paho, &up.at("eu-west"), "#", "us-east");
    let before = matched(&up, "us-east");
    Rumqttc.publish(&up.at("us-east"), &posts("other/1", 100));
    Rumqttc.publish(&up.at("us-east"), &[Post::new("fleet/1", "marker", 1)]);
    assert_eq!(subscriber.payloads_until("marker").iter().filter(|payload| *payload != "known?").count(), 0);
    assert_eq!(matched(&up, "us-east"), before + 1);
}

#[test]
fn counters_balance_on_both_sides() {
    let up = Up::start(Clusters::linked(r##"["#"]"##, r##"["#"]"##));
    let mut subscriber = up.subscribed(&Paho, &up.at("eu-west"), "count/#", "us-east");
    let (before, (received, delivered)) = (matched(&up, "us-east"), arrived(&up, "eu-west"));
    for qos in 0..=2 {
        let posts: Vec<Post> =
            (0..200).map(|number| Post::new("count/1", &number.to_string(), qos)).collect();
        Rumqttc.publish(&up.at("us-east"), &posts);
        assert_eq!(subscriber.payloads(200).len(), 200, "QoS {qos}");
    }
    let sent = up.link("us-east").counters.sent;
    assert_eq!(sent.matched, before + 600);
    assert_eq!(sent.matched, sent.acknowledged + sent.queued + sent.in_flight + sent.dropped.total());
    assert_eq!((sent.in_flight, sent.dropped.total()), (0, 0));
    assert_eq!(arrived(&up, "eu-west"), (received + 600, delivered + 600));
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
