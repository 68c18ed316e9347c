//! The port for links: interest out, messages out, messages in.

use super::world::{World, v5};
use crate::broker::core::Interest;
use crate::mqtt::{Filter, Message, PropertiesBuf, Property, QoS};

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("valid")
}

fn message(topic: &str, payload: &str, qos: QoS, retain: bool) -> Message {
    Message {
        topic: topic.into(),
        payload: payload.to_owned().into(),
        qos,
        retain,
        properties: PropertiesBuf::new(),
        expires_at: None,
    }
}

#[test]
fn interest_is_told_with_the_first_subscriber_and_the_last() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.connect(v5("b")));
    w.subscribe(b, "early", 0);
    assert!(w.port_events().is_empty()); // nobody listens yet
    assert_eq!(w.core.interests().count(), 1);
    w.core.peer_open("eu");
    w.unsubscribe(b, "early");
    w.heard(b);
    assert_eq!(w.port_events(), ["-early"]);
    w.subscribe(a, "t/+", 0);
    w.subscribe(a, "t/+", 1);
    w.subscribe(b, "t/+", 0);
    w.subscribe(b, "$share/g/t/+", 0);
    w.subscribe(b, "$own/#", 0); // never crosses
    assert_eq!(w.port_events(), ["+t/+", "+g:t/+"]);
    let all: Vec<Interest> = w.core.interests().collect();
    assert_eq!(all.len(), 2);
    w.unsubscribe(a, "t/+");
    assert!(w.port_events().is_empty());
    w.lose(b); // its session ends
    let mut events = w.port_events();
    events.sort();
    assert_eq!(events, ["-g:t/+", "-t/+"]);
    assert_eq!(w.core.interests().count(), 0);
}

#[test]
fn a_message_is_forwarded_once_per_peer() {
    let mut w = World::new();
    let (eu, us) = (w.core.peer_open("eu"), w.core.peer_open("us"));
    for text in ["t/#", "t/+", "t/1"] {
        w.core.peer_route_add(eu, &filter(text));
    }
    w.core.peer_route_add(us, &filter("t/1"));
    let a = w.connect(v5("a"));
    w.publish(a, "t/1", 1, "x");
    w.publish(a, "t/2", 2, "y");
    w.publish(a, "u", 1, "z");
    assert_eq!(w.heard(a), ["PUBACK 1", "PUBREC 1", "PUBACK 1 NoMatchingSubscribers"]);
    assert_eq!(w.port_events(), ["->0 t/1=x q1", "->1 t/1=x q1", "->0 t/2=y q2"]);
    w.core.peer_route_delete(eu, &filter("t/+"));
    w.core.peer_route_delete(eu, &filter("t/#"));
    w.core.peer_close(us);
    w.publish(a, "t/1", 0, "1");
    w.publish(a, "t/2", 0, "2");
    assert_eq!(w.port_events(), ["->0 t/1=1 q0"]);
    w.core.peer_close(eu);
    w.publish(a, "t/1", 0, "3");
    assert!(w.port_events().is_empty());
}

#[test]
fn retained_messages_and_wills_are_forwarded_and_dollar_topics_are_not() {
    let mut w = World::new();
    let eu = w.core.peer_open("eu");
    w.core.peer_route_add(eu, &filter("#"));
    w.core.peer_route_add(eu, &filter("$own/#"));
    let a = w.connect(v5("a").will("gone", "a", 0));
    w.publish_with(a, "r", 0, "x", true, &[]);
    w.publish(a, "$own/x", 0, "x");
    w.lose(a);
    assert_eq!(w.port_events(), ["->0 r=x q0 retain", "->0 gone=a q1"]);
}

#[test]
fn a_message_from_a_peer_goes_to_local_subscribers_and_no_further() {
    let mut w = World::new();
    let (eu, us) = (w.core.peer_open("eu"), w.core.peer_open("us"));
    w.core.peer_route_add(us, &filter("#"));
    w.core.peer_route_add(eu, &filter("#"));
    let (a, b, c) = (w.connect(v5("a")), w.connect(v5("b")), w.connect(v5("c")));
    w.subscribe(a, "t", 1);
    w.subscribe(b, "$share/g/t", 0);
    w.subscribe(c, "$share/g/t", 0);
    w.port_events();
    assert_eq!(w.core.peer_deliver(eu, message("t", "x", QoS::AtLeastOnce, true), w.now), 2);
    assert_eq!(w.core.peer_deliver(eu, message("u", "x", QoS::AtLeastOnce, false), w.now), 0);
    assert_eq!(w.core.peer_deliver(eu, message("$SYS/x", "x", QoS::AtLeastOnce, false), w.now), 0);
    assert_eq!(w.heard(a), ["t=x q1 #1"]);
    assert_eq!(w.heard(b).len() + w.heard(c).len(), 1);
    assert!(w.port_events().is_empty());
    assert_eq!(w.core.levels().retained, 0);
}

#[test]
fn a_linked_message_keeps_its_retain_flag_properties_and_expiry() {
    let mut w = World::new();
    let eu = w.core.peer_open("eu");
    let a = w.connect(v5("a"));
    let options = crate::mqtt::SubscribeOptions { retain_as_published: true, ..super::world::options(0) };
    w.subscribe_with(a, "t", options, None);
    w.heard(a);
    let mut linked = message("t", "x", QoS::AtMostOnce, true);
    linked.properties.push(Property::ContentType("text"));
    linked.expires_at = Some(w.now + std::time::Duration::from_secs(30));
    w.core.peer_deliver(eu, linked.clone(), w.now);
    assert_eq!(w.heard(a), ["t=x retain ContentType(\"text\") MessageExpiryInterval(30)"]);
    w.run_for(31.0);
    assert_eq!(w.core.peer_deliver(eu, linked, w.now), 0);
}

#[test]
fn a_peer_hears_nothing_that_was_meant_for_one_before_it() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let eu = w.core.peer_open("eu");
    w.core.peer_route_add(eu, &Filter::parse("#").expect("valid"));
    w.publish(a, "t", 0, "x");
    w.core.peer_close(eu);
    assert_eq!(w.core.peer_open("ap"), eu);
    assert!(w.port_events().is_empty());
}

#[test]
fn a_peer_hears_when_what_it_delivered_is_safe() {
    let mut w = World::durable();
    let a = w.connect(v5("a").expiry(100));
    w.subscribe(a, "t/#", 1);
    let eu = w.core.peer_open("eu");
    assert!(w.core.peer_settle(eu, 1), "nothing came yet");
    w.unpersisted = Some(Vec::new());
    w.core.peer_deliver(eu, message("t/1", "x", QoS::AtMostOnce, false), w.now);
    assert!(w.core.peer_settle(eu, 2), "nobody waits for the store at QoS 0");
    w.core.peer_deliver(eu, message("t/1", "x", QoS::AtLeastOnce, false), w.now);
    w.heard(a);
    assert!(!w.core.peer_settle(eu, 3));
    assert!(w.port_events().is_empty());
    w.persist();
    assert_eq!(w.port_events(), ["settled 0 3"]);
    assert!(w.core.peer_settle(eu, 4));
}

#[test]
fn what_a_peer_delivered_waits_for_a_store_that_fails_until_it_is_back() {
    let mut w = World::durable();
    let a = w.connect(v5("a").expiry(100));
    w.subscribe(a, "t/#", 1);
    let eu = w.core.peer_open("eu");
    w.unpersisted = Some(Vec::new());
    w.core.peer_deliver(eu, message("t/1", "x", QoS::AtLeastOnce, false), w.now);
    w.heard(a);
    assert!(!w.core.peer_settle(eu, 1));
    w.store_down();
    w.core.peer_deliver(eu, message("t/1", "y", QoS::AtLeastOnce, false), w.now);
    assert!(!w.core.peer_settle(eu, 2));
    assert!(w.port_events().is_empty());
    w.store_up();
    assert!(w.port_events().is_empty());
    w.persist();
    assert_eq!(w.port_events(), ["settled 0 1", "settled 0 2"]);
    w.crash(1.0);
    let a = w.hello(&v5("a").resume().expiry(100));
    assert_eq!(w.heard(a)[1..].len(), 2);
}
