//! One broker, and what any MQTT client may expect of it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::clients::{Kind, Mosquitto, Ours, Paho, Post, Properties, Rumqttc, Subscriber, kinds};
use crate::harness::SettingsExt;
use crate::harness::{Certificates, Node, settings};

/// Every property that belongs to the application.
pub(crate) fn all_properties() -> Properties {
    Properties {
        user: vec![("colour".to_owned(), "green".to_owned())],
        content_type: Some("text/plain".to_owned()),
        response_topic: Some("answers/7".to_owned()),
        correlation_data: Some("seven".to_owned()),
        expiry_s: Some(3600),
        payload_format: Some(1),
    }
}

/// One message of each QoS, with all properties where the version has them.
pub(crate) fn one_of_each_qos(topic: &str, v5: bool) -> Vec<Post> {
    let properties = if v5 { all_properties() } else { Properties::default() };
    (0..=2).map(|qos| Post::new(&format!("{topic}/{qos}"), "hello", qos).with(properties.clone())).collect()
}

/// The expiry interval counts down by whole seconds on the way.
fn with_whole_expiry(mut heard: Post, sent: &Post) -> Post {
    if let (Some(left), Some(given)) = (heard.properties.expiry_s, sent.properties.expiry_s) {
        assert!(left <= given && left + 30 > given, "{left} of {given} s");
        heard.properties.expiry_s = sent.properties.expiry_s;
    }
    heard
}

/// Hears as many as were sent, in the order of their topics: some publishers send each on a connection of its own, and what
/// comes by several connections has no order.
pub(crate) fn hear_each(subscriber: &mut Subscriber, sent: &[Post]) -> Vec<Post> {
    let mut heard: Vec<Post> = sent.iter().map(|_| subscriber.next()).collect();
    heard.sort_by(|one, other| one.topic.cmp(&other.topic));
    heard.into_iter().zip(sent).map(|(heard, sent)| with_whole_expiry(heard, sent)).collect()
}

#[test]
fn every_client_hears_every_client() {
    let node = Node::start(settings());
    for v5 in [false, true] {
        let who = node.who().version(v5);
        for listener in kinds() {
            let name = listener.name();
            let mut subscriber = listener.subscribe(&who, &format!("{name}/{v5}/#"), 2);
            for publisher in kinds() {
                let posts = one_of_each_qos(&format!("{name}/{v5}/+").replace('+', publisher.name()), v5);
                publisher.publish(&who, &posts);
                let heard = hear_each(&mut subscriber, &posts);
                assert_eq!(heard, posts, "{} to {name}, MQTT 5: {v5}", publisher.name());
            }
        }
    }
}

#[test]
fn versions_understand_each_other() {
    let node = Node::start(settings());
    let mut old = Paho.subscribe(&node.who().v3(), "mixed/#", 2);
    let mut new = Paho.subscribe(&node.who(), "mixed/#", 2);
    let posts = one_of_each_qos("mixed", true);
    Rumqttc.publish(&node.who(), &posts);
    for post in posts {
        assert_eq!(with_whole_expiry(new.next(), &post), post);
        assert_eq!(old.next(), post.with(Properties::default()));
    }
}

#[test]
fn a_thousand_messages_stay_in_order() {
    let node = Node::start(settings());
    for qos in 0..=2 {
        let mut subscriber = Rumqttc.subscribe(&node.who(), "order", qos);
        let payloads: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let posts: Vec<Post> = payloads.iter().map(|payload| Post::new("order", payload, qos)).collect();
        Paho.publish(&node.who(), &posts);
        assert_eq!(subscriber.payloads(1000), payloads, "QoS {qos}");
    }
}

#[test]
fn a_large_payload_arrives_whole() {
    let node = Node::start(settings());
    let payload = "0123456789abcdef".repeat(1024 * 1024 / 16);
    for kind in kinds() {
        let mut subscriber = kind.subscribe(&node.who(), "large/#", 1);
        kind.publish(&node.who(), &[Post::new("large/one", &payload, 1)]);
        assert!(subscriber.next().payload == payload, "{}", kind.name());
    }
}

#[test]
fn retained_messages_wait_for_subscribers() {
    let node = Node::start(settings());
    Mosquitto.publish(
        &node.who(),
        &[Post::new("kept/a", "1", 1).retained(), Post::new("kept/b", "2", 0).retained()],
    );
    for kind in kinds() {
        let mut subscriber = kind.subscribe(&node.who(), "kept/#", 1);
        let heard = [subscriber.next(), subscriber.next()];
        assert!(heard.iter().all(|message| message.retain), "{}: {heard:?}", kind.name());
        let payloads: BTreeSet<String> = heard.into_iter().map(|message| message.payload).collect();
        assert_eq!(payloads, BTreeSet::from(["1".to_owned(), "2".to_owned()]));
    }
    Mosquitto.publish(&node.who(), &[Post::new("kept/a", "", 1).retained()]);
    let mut subscriber = Paho.listen(&node.who(), "kept/#");
    Mosquitto.publish(&node.who(), &[Post::new("kept/marker", "marker", 1)]);
    assert_eq!(subscriber.payloads_until("marker"), ["2"]);
}

#[test]
fn a_will_speaks_for_who_died_and_not_for_who_left() {
    let node = Node::start(settings());
    let mut listener = Paho.listen(&node.who(), "wills/#");
    for v5 in [false, true] {
        let who = node.who().version(v5);
        let dying = who.clone().will(Post::new("wills/dead", "died", 1));
        drop(Mosquitto.subscribe(&dying, "any", 0)); // killed
        assert_eq!(listener.next().payload, "died");
        let leaving = who.clone().will(Post::new("wills/left", "left", 1));
        drop(Paho.listen(&leaving, "any")); // says DISCONNECT
        Mosquitto.publish(&who, &[Post::new("wills/marker", "marker", 1)]);
        assert_eq!(listener.payloads_until("marker"), Vec::<String>::new());
    }
}

#[test]
fn a_second_client_of_a_name_takes_over() {
    let node = Node::start(settings());
    for v5 in [false, true] {
        let who = node.who().version(v5).named("the-one");
        let mut first = Paho.listen(&who, "take/#");
        let mut second = Rumqttc.subscribe(&who, "take/#", 1);
        let why = first.gone();
        assert!(!v5 || why.contains("taken over"), "{why}");
        Mosquitto.publish(&node.who(), &[Post::new("take/1", "yours", 1)]);
        assert_eq!(second.next().payload, "yours");
    }
}

#[test]
fn one_member_of_a_group_gets_each_message() {
    let node = Node::start(settings());
    let mut members =
        [Paho.listen(&node.who(), "$share/group/work/#"), Paho.listen(&node.who(), "$share/group/work/#")];
    let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let posts: Vec<Post> = numbers.iter().map(|number| Post::new("work/1", number, 1)).collect();
    Rumqttc.publish(&node.who(), &posts);
    // Each member also subscribes for itself: that marker comes after its share.
    let shares = members.each_mut().map(|member| {
        member.subscribe("marker", 1);
        Mosquitto.publish(&node.who(), &[Post::new("marker", "marker", 1)]);
        member.payloads_until("marker")
    });
    assert!(shares.iter().all(|share| !share.is_empty()), "{shares:?}");
    let mut all = shares.concat();
    all.retain(|payload| payload != "marker");
    all.sort_by_key(|number| number.parse::<u32>().expect("a number"));
    assert_eq!(all, numbers);
}

#[test]
fn filters_choose() {
    let node = Node::start(settings());
    let mut plus = Paho.listen(&node.who(), "a/+/c");
    let mut hash = Rumqttc.subscribe(&node.who(), "a/#", 1);
    let posts = ["a", "a/b", "a/b/c", "a/b/c/d", "b/b/c", "a/x/c"].map(|topic| Post::new(topic, topic, 1));
    Mosquitto.publish(&node.who(), &posts);
    assert_eq!(plus.payloads_until("a/x/c"), ["a/b/c"]);
    assert_eq!(hash.payloads_until("a/x/c"), ["a", "a/b", "a/b/c", "a/b/c/d"]);
}

#[test]
fn a_broken_client_hurts_nobody_else() {
    let node = Node::start(settings());
    let mut subscriber = Paho.listen(&node.who(), "fine/#");
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0x30, 0x02, 0x00, 0x00],
        &[0; 64],
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", node.who().port)).expect("the listener is open");
        stream.write_all(garbage).expect("written");
        let mut answer = Vec::new();
        // The broker may reset the connection; that closes it too.
        let _ = stream.read_to_end(&mut answer);
    }
    Mosquitto.publish(&node.who(), &[Post::new("fine/1", "still here", 2)]);
    assert_eq!(subscriber.next().payload, "still here");
}

#[test]
fn clients_speak_tls() {
    let certificates = Certificates::new();
    let node = Node::start(settings().tls(certificates.server()));
    let who = node.at("mqtts").trusting(&certificates.ca());
    let clients: [&dyn Kind; 3] = [&Mosquitto, &Paho, &Ours];
    for kind in clients {
        for v5 in [false, true] {
            let who = who.clone().version(v5);
            let mut subscriber = kind.subscribe(&who, "secret/#", 2);
            kind.publish(&who, &[Post::new("secret/1", "hush", 2)]);
            assert_eq!(subscriber.next().payload, "hush", "{}", kind.name());
        }
    }
}
