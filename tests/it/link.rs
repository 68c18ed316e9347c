//! Two linked clusters, and what any client may expect of a message that crosses.

use crate::broker::{hear_each, one_of_each_qos};
use crate::clients::{Kind, Mosquitto, Ours, Paho, Post, Properties, Rumqttc, kinds};
use crate::harness::{Certificates, Clusters, Up};

const BOTH: [(&str, &str); 2] = [("us-east", "eu-west"), ("eu-west", "us-east")];

fn linked() -> Up {
    Up::start(Clusters::linked(r##"["#"]"##, r##"["#"]"##))
}

/// What was published, as it arrives over a link: QoS 2 travels as 1.
fn over_link(post: Post) -> Post {
    Post { qos: post.qos.min(1), ..post }
}

#[test]
fn every_client_hears_every_client_across() {
    let up = linked();
    for (from, to) in BOTH {
        for v5 in [false, true] {
            for listener in kinds() {
                let topic = format!("across/{to}/{v5}/{}", listener.name());
                let mut subscriber =
                    up.subscribed(listener, &up.at(to).version(v5), &format!("{topic}/#"), from);
                for publisher in kinds() {
                    let posts = one_of_each_qos(&format!("{topic}/{}", publisher.name()), v5);
                    publisher.publish(&up.at(from).version(v5), &posts);
                    let heard: Vec<Post> =
                        hear_each(&mut subscriber, &posts).into_iter().map(over_link).collect();
                    let sent: Vec<Post> = posts.into_iter().map(over_link).collect();
                    let names = (publisher.name(), listener.name());
                    assert_eq!(heard, sent, "{names:?} {from} to {to}, MQTT 5: {v5}");
                }
            }
        }
    }
}

#[test]
fn versions_understand_each_other_across() {
    let up = linked();
    let mut old = up.subscribed(&Paho, &up.at("eu-west").v3(), "mixed/#", "us-east");
    Rumqttc.publish(&up.at("us-east"), &one_of_each_qos("mixed", true));
    assert_eq!(old.payloads(3), ["hello"; 3]);
    let mut new = up.subscribed(&Paho, &up.at("us-east"), "mixed/#", "eu-west");
    Rumqttc.publish(&up.at("eu-west").v3(), &one_of_each_qos("mixed", false));
    for _ in 0..3 {
        assert_eq!(new.next().properties, Properties::default());
    }
}

#[test]
fn order_holds_across() {
    let up = linked();
    for qos in 0..=2 {
        let topic = format!("order/{qos}");
        let mut subscriber = up.subscribed(&Rumqttc, &up.at("eu-west"), &topic, "us-east");
        let payloads: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let posts: Vec<Post> = payloads.iter().map(|payload| Post::new(&topic, payload, qos)).collect();
        Rumqttc.publish(&up.at("us-east"), &posts);
        assert_eq!(subscriber.payloads(1000), payloads, "QoS {qos}");
    }
}

#[test]
fn a_large_payload_crosses_whole() {
    let up = linked();
    let payload = "0123456789abcdef".repeat(1024 * 1024 / 16);
    for (from, to) in BOTH {
        let mut subscriber = up.subscribed(&Mosquitto, &up.at(to), "large/#", from);
        Mosquitto.publish(&up.at(from), &[Post::new("large/one", &payload, 1)]);
        assert!(subscriber.next().payload == payload, "{from} to {to}");
    }
}

#[test]
fn the_retained_flag_crosses_and_the_copy_stays() {
    let up = linked();
    let mut live = up.subscribed(&Mosquitto, &up.at("eu-west").retain_as_published(), "kept/#", "us-east");
    Paho.publish(&up.at("us-east"), &[Post::new("kept/1", "first", 1).retained()]);
    let heard = live.next();
    assert_eq!((heard.payload.as_str(), heard.retain), ("first", true));
    // At home it is stored.
    let home = Paho.listen(&up.at("us-east"), "kept/#").next();
    assert_eq!((home.payload.as_str(), home.retain), ("first", true));
    // At the peer it is not: the marker is all that a newcomer hears.
    let mut late = Paho.listen(&up.at("eu-west"), "kept/#");
    Paho.publish(&up.at("eu-west"), &[Post::new("kept/marker", "marker", 1)]);
    assert_eq!(late.payloads_until("marker"), Vec::<String>::new());
}

#[test]
fn filters_choose_across() {
    let up = linked();
    let mut plus = up.subscribed(&Paho, &up.at("eu-west"), "a/+/c", "us-east");
    let mut hash = up.subscribed(&Rumqttc, &up.at("eu-west"), "a/#", "us-east");
    let posts = ["a", "a/b", "a/b/c", "a/b/c/d", "b/b/c", "a/x/c"].map(|topic| Post::new(topic, topic, 1));
    Mosquitto.publish(&up.at("us-east"), &posts);
    assert_eq!(plus.payloads_until("a/x/c"), ["a/b/c"]);
    assert_eq!(hash.payloads_until("a/x/c"), ["a", "a/b", "a/b/c", "a/b/c/d"]);
}

#[test]
fn overlapping_subscriptions_get_one_crossing() {
    let up = linked();
    let mut one = up.subscribed(&Paho, &up.at("eu-west"), "over/#", "us-east");
    let mut two = up.subscribed(&Paho, &up.at("eu-west"), "over/+", "us-east");
    let before = up.link("us-east").counters.sent.matched;
    Mosquitto.publish(&up.at("us-east"), &[Post::new("over/1", "x", 1)]);
    assert_eq!((one.next().payload, two.next().payload), ("x".to_owned(), "x".to_owned()));
    assert_eq!(up.link("us-east").counters.sent.matched, before + 1);
}

#[test]
fn one_member_of_a_group_gets_each_message_that_crosses() {
    let up = linked();
    let mut members =
        [0, 1].map(|_| up.subscribed(&Paho, &up.at("eu-west"), "$share/group/work/#", "us-east"));
    let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let posts: Vec<Post> = numbers.iter().map(|number| Post::new("work/1", number, 1)).collect();
    Rumqttc.publish(&up.at("us-east"), &posts);
    // A later message to each member itself shows that its share is complete.
    for member in &mut members {
        assert_eq!(member.subscribe("marker", 1), 1);
    }
    up.interest_is_known("eu-west", "us-east");
    Mosquitto.publish(&up.at("us-east"), &[Post::new("marker", "end", 1)]);
    let mut all = members.each_mut().map(|member| member.payloads_until("end")).concat();
    all.sort_by_key(|number| number.parse::<u32>().expect("a number"));
    assert_eq!(all, numbers);
}

#[test]
fn a_will_is_heard_across() {
    let up = linked();
    let mut listener = up.subscribed(&Paho, &up.at("eu-west"), "wills/#", "us-east");
    let dying = up.at("us-east").will(Post::new("wills/dead", "died", 1));
    drop(Mosquitto.subscribe(&dying, "any", 0)); // killed
    assert_eq!(listener.next().payload, "died");
}

#[test]
fn clients_speak_tls_on_both_sides_of_a_link() {
    let certificates = Certificates::new();
    let clusters =
        Clusters::linked(r##"["#"]"##, r##"["#"]"##).tls("tls", certificates.secret("mqtt", "tls"));
    let up = Up::start(clusters);
    let at = |cluster| up.over_tls_at(cluster).trusting(&certificates.ca());
    let clients: [&dyn Kind; 3] = [&Mosquitto, &Paho, &Ours];
    for (from, to) in BOTH {
        for kind in clients {
            let topic = format!("secret/{to}/{}", kind.name());
            let mut subscriber = up.subscribed(kind, &at(to), &topic, from);
            kind.publish(&at(from), &[Post::new(&topic, "hush", 2)]);
            assert_eq!(subscriber.next().payload, "hush", "{}", kind.name());
        }
    }
}

#[test]
fn a_link_without_tls_works_too() {
    let up = Up::start(Clusters::linked(r##"["#"]"##, r##"["#"]"##).plaintext_links());
    for (from, to) in BOTH {
        let mut subscriber = up.subscribed(&Paho, &up.at(to), "plain/#", from);
        Paho.publish(&up.at(from), &[Post::new("plain/1", "x", 1)]);
        assert_eq!(subscriber.next().payload, "x");
    }
}
