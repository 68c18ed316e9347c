//! Shared subscriptions: one member of each group, whoever can take it.

use super::world::{World, options, v3, v5};
use crate::broker::core::ConnectionId;
use crate::mqtt::{
    Packet, PacketId, Properties, Property, Subscribe, SubscribeFiltersBuf, Unsubscribe,
    UnsubscribeFiltersBuf,
};

fn member(w: &mut World, client_id: &'static str, window: u16) -> ConnectionId {
    let id = w.connect(v5(client_id).expiry(60).with(Property::ReceiveMaximum(window)));
    w.subscribe(id, "$share/g/t/+", 1);
    id
}

#[test]
fn members_take_turns() {
    let mut w = World::new();
    let (a, b) = (member(&mut w, "a", 100), member(&mut w, "b", 100));
    let p = w.connect(v5("p"));
    for payload in ["1", "2", "3", "4"] {
        w.publish(p, "t/x", 0, payload);
    }
    assert_eq!(w.heard(a), ["t/x=1", "t/x=3"]);
    assert_eq!(w.heard(b), ["t/x=2", "t/x=4"]);
}

#[test]
fn each_group_and_each_plain_subscriber_gets_its_copy() {
    let mut w = World::new();
    let (a, b, c) = (w.connect(v5("a")), w.connect(v5("b")), w.connect(v5("c")));
    w.subscribe(a, "$share/one/t", 0);
    w.subscribe(b, "$share/two/t", 0);
    w.subscribe(b, "t", 0);
    w.publish(c, "t", 0, "x");
    assert_eq!(w.heard(a), ["t=x"]);
    assert_eq!(w.heard(b), ["t=x", "t=x"]);
}

#[test]
fn a_member_that_can_take_no_more_is_passed_over() {
    let mut w = World::new();
    let (a, b) = (member(&mut w, "a", 1), member(&mut w, "b", 100));
    let p = w.connect(v5("p"));
    for payload in ["1", "2", "3", "4"] {
        w.publish(p, "t/x", 1, payload);
    }
    assert_eq!(w.heard(a), ["t/x=1 q1 #1"]);
    assert_eq!(w.heard(b), ["t/x=2 q1 #1", "t/x=3 q1 #2", "t/x=4 q1 #3"]);
}

#[test]
fn a_member_that_is_away_is_passed_over_while_another_is_here() {
    let mut w = World::new();
    let (a, b) = (member(&mut w, "a", 100), member(&mut w, "b", 100));
    let p = w.connect(v5("p"));
    w.lose(a);
    w.publish(p, "t/x", 1, "1");
    w.publish(p, "t/x", 1, "2");
    assert_eq!(w.heard(b), ["t/x=1 q1 #1", "t/x=2 q1 #2"]);
    w.lose(b);
    w.publish(p, "t/x", 1, "3"); // nobody is here: it waits for one of them
    let a = w.hello(&v5("a").resume().expiry(60));
    let b = w.hello(&v5("b").resume().expiry(60));
    let got = w.heard(a).into_iter().chain(w.heard(b)).filter(|line| line.contains("=3")).count();
    assert_eq!(got, 1);
}

#[test]
fn what_a_member_leaves_behind_goes_to_the_others() {
    let mut w = World::new();
    let (a, b) = (member(&mut w, "a", 1), member(&mut w, "b", 1));
    let p = w.connect(v5("p"));
    for payload in ["1", "2", "3", "4"] {
        w.publish(p, "t/x", 1, payload); // 1 to a, 2 to b, 3 and 4 wait at one each
    }
    assert_eq!(w.heard(a), ["t/x=1 q1 #1"]);
    assert_eq!(w.heard(b), ["t/x=2 q1 #1"]);
    w.lose(a);
    w.run_for(61.0); // its session ends
    let mut heard = Vec::new();
    for id in 1..=4 {
        w.puback(b, id);
        heard.extend(w.heard(b));
    }
    heard.sort();
    assert_eq!(heard.iter().map(|line| &line[..5]).collect::<Vec<_>>(), ["t/x=1", "t/x=3", "t/x=4"]);
}

#[test]
fn what_waits_for_a_member_that_unsubscribes_goes_to_the_others() {
    for is_kept in [false, true] {
        let mut w = if is_kept { World::durable() } else { World::new() };
        let (a, b) = (member(&mut w, "a", 1), member(&mut w, "b", 1));
        w.subscribe(a, "own", 1);
        let p = w.connect(v5("p"));
        for payload in ["1", "2", "3", "4"] {
            w.publish(p, "t/x", 1, payload); // 1 to a, 2 to b, 3 and 4 wait at one each
        }
        w.publish(p, "own", 1, "mine");
        assert_eq!(w.heard(a), ["t/x=1 q1 #1"]);
        assert_eq!(w.heard(b), ["t/x=2 q1 #1"]);
        w.unsubscribe(a, "$share/g/t/+");
        assert_eq!(w.heard(a), ["UNSUBACK [0]"]);
        w.puback(a, 1); // what was sent stays with it
        assert_eq!(w.heard(a), ["own=mine q1 #2"], "and so does what it waits for by itself");
        if is_kept {
            w.crash(1.0);
            let a = w.hello(&v5("a").resume().expiry(60));
            assert_eq!(w.heard(a)[1..], ["own=mine q1 #2 dup"]);
        }
        let b = if is_kept { w.hello(&v5("b").resume().expiry(60)) } else { b };
        let mut heard = w.heard(b);
        for id in 1..=3 {
            w.puback(b, id);
            heard.extend(w.heard(b));
        }
        let mut payloads: Vec<_> =
            heard.iter().filter(|line| line.starts_with("t/")).map(|line| &line[..5]).collect();
        payloads.sort_unstable();
        payloads.dedup();
        let before: &[&str] = if is_kept { &["t/x=2"] } else { &[] };
        assert_eq!(payloads, [before, &["t/x=3", "t/x=4"]].concat());
    }
}

#[test]
fn the_last_member_of_a_group_keeps_what_waits_for_it() {
    let mut w = World::new();
    let a = member(&mut w, "a", 1);
    let p = w.connect(v5("p"));
    w.publish(p, "t/x", 1, "1");
    w.publish(p, "t/x", 1, "2");
    w.unsubscribe(a, "$share/g/t/+");
    w.puback(a, 1);
    assert_eq!(w.heard(a), ["t/x=1 q1 #1", "UNSUBACK [0]", "t/x=2 q1 #2"]);
}

#[test]
fn retained_messages_are_not_shown_to_groups() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.publish_with(a, "t/x", 0, "kept", true, &[]);
    w.subscribe_with(a, "$share/g/t/x", options(0), None);
    assert_eq!(w.heard(a), ["SUBACK [0]"]);
}

#[test]
fn leaving_a_group_leaves_other_subscriptions_alone() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    w.subscribe(a, "$share/g/t", 0);
    w.subscribe(a, "t", 0);
    w.unsubscribe(a, "$share/g/t");
    w.publish(a, "t", 0, "x");
    assert_eq!(w.heard(a), ["UNSUBACK [0]", "t=x"]);
    w.unsubscribe(a, "t");
    assert_eq!(w.core.levels().subscriptions, 0);
}

#[test]
fn a_message_waits_for_a_member_that_it_may_wait_for() {
    let mut w = World::new();
    let a = w.connect(v5("a").expiry(60));
    w.subscribe(a, "$share/g/t/+", 0);
    let b = member(&mut w, "b", 100);
    let p = w.connect(v5("p"));
    w.lose(a);
    w.lose(b);
    w.publish(p, "t/x", 1, "1");
    w.publish(p, "t/x", 1, "2");
    let b = w.hello(&v5("b").resume().expiry(60));
    assert_eq!(w.heard(b)[1..], ["t/x=1 q1 #1", "t/x=2 q1 #2"]);
}

#[test]
fn what_a_member_leaves_behind_goes_to_the_others_also_where_it_was_moved_to() {
    let mut here = World::new();
    let (a, p) = (member(&mut here, "a", 1), here.connect(v5("p")));
    here.publish(p, "t/x", 1, "in flight");
    here.publish(p, "t/x", 1, "queued");
    here.lose(a);
    let moved = here.core.export_session("a", here.now).expect("it is there");

    let mut there = World::new();
    let b = member(&mut there, "b", 100);
    there.core.import_session(&moved, there.now).expect("it is new there");
    there.run_for(61.0); // it ends
    assert_eq!(there.heard(b), ["t/x=in flight q1 #1", "t/x=queued q1 #2"]);
}

// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn a_share_without_a_proper_name_or_filter_is_refused_alone() {
    let wrong = ["$share/", "$share//t", "$share/g", "$share/g/", "$share/g+/t", "$share/#/t"];
    for (hello, refused, unsubscribed) in
        [(v5("a"), "143", "UNSUBACK [143, 143, 143, 143, 143, 143, 0]"), (v3("a"), "128", "UNSUBACK []")]
    {
        let mut w = World::new();
        let (a, b) = (w.connect(hello), w.connect(v5("b")));
        let mut filters = SubscribeFiltersBuf::default();
        let mut to_leave = UnsubscribeFiltersBuf::default();
        for filter in wrong.into_iter().chain(["t"]) {
            filters.push(filter, options(1)).expect("the packet may name it");
            to_leave.push(filter).expect("the packet may name it");
        }
        let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
        let filters = filters.as_filters();
        w.send(a, &Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        let refused = [refused; 6].join(", ");
        assert_eq!(w.heard(a), [format!("SUBACK [{refused}, 1]")]);
        w.publish(b, "t", 0, "x");
        assert_eq!(w.heard(a), ["t=x"]);
        let filters = to_leave.as_filters();
        w.send(a, &Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }));
        assert_eq!(w.heard(a), [unsubscribed]);
    }
}
