//! Where rows begin and end: what is one, and what becomes of one where packet ids begin again, where its reader comes back as
//! another client, and on several shards.

use std::collections::HashMap;
use std::rc::Rc;

use super::node::Node;
use super::rows::ids_in;
use super::world::{World, v3, v5};
use crate::broker::core::ring::{Ring, Slot};
use crate::broker::core::{ConnectionId, Pressure, SessionId};
use crate::mqtt::{Frame, Packet, PacketId, Properties, Property, Publish, QoS, Version};

/// Messages to `a` of so many bytes of payload each.
fn messages(qos: u8, sizes: &[usize]) -> Vec<u8> {
    let qos = QoS::from_u8(qos).expect("0 or 1");
    let mut bytes = Vec::new();
    for (n, &size) in sizes.iter().enumerate() {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: "a",
            packet_id: PacketId::new(n as u16 + 1).filter(|_| qos > QoS::AtMostOnce),
            properties: Properties::EMPTY,
            payload: &vec![b'0' + (n % 10) as u8; size],
        };
        Packet::Publish(publish).encode(Version::V5, &mut bytes);
    }
    bytes
}

/// A publisher whose last topic is `a`, and two who want it.
fn world() -> (World, ConnectionId, [ConnectionId; 2]) {
    let mut w = World::new();
    let publisher = w.connect(v5("publisher"));
    let readers = ["one", "other"].map(|name| w.connect(v5(name).expiry(100)));
    readers.into_iter().for_each(|reader| w.subscribe(reader, "a", 1));
    w.send_bytes(publisher, &messages(0, &[1]));
    (w, publisher, readers)
}

fn session_of(w: &World, name: &str) -> SessionId {
    let found = w.core.sessions.iter().find(|(_, session)| &*session.client_id == name);
    found.expect("it is there").0 as SessionId
}

/// The blocks in which a ring's messages lie.
pub(super) fn blocks(ring: &Ring) -> Vec<&Rc<[u8]>> {
    let sent =
        ring.iter().filter_map(|(_, slot)| if let Slot::Sent(it) = slot { Some(&it.frame) } else { None });
    sent.map(Frame::block).collect()
}

/// How many bytes of these are a row.
fn row(w: &mut World, publisher: ConnectionId, qos: u8, sizes: &[usize]) -> Option<usize> {
    w.core.handle_row(publisher, &messages(qos, sizes))
}

#[test]
fn a_row_has_several_messages_that_are_small() {
    let (mut w, publisher, _) = world();
    for qos in [0, 1] {
        assert_eq!(row(&mut w, publisher, qos, &[9; 3]), Some(messages(qos, &[9; 3]).len()));
        assert_eq!(row(&mut w, publisher, qos, &[9]), None);
        assert_eq!(row(&mut w, publisher, qos, &[600, 9, 9]), None);
        assert_eq!(row(&mut w, publisher, qos, &[9, 600]), None);
        assert_eq!(row(&mut w, publisher, qos, &[9, 9, 600]), Some(messages(qos, &[9; 2]).len()));
    }
}

#[test]
fn a_row_has_no_more_messages_than_it_may() {
    let (mut w, publisher, readers) = world();
    readers.into_iter().for_each(|reader| drop(w.heard(reader)));
    for qos in [0, 1] {
        assert_eq!(row(&mut w, publisher, qos, &[1; 300]), Some(messages(qos, &[1; 256]).len()));
        assert_eq!(readers.map(|reader| w.heard(reader).len()), [256; 2]);
    }
}

/// The worst that it can do is to acknowledge all but one message of each block.
#[test]
fn what_a_reader_holds_back_is_bounded_by_the_places_in_its_ring() {
    let window = 500;
    let (mut w, publisher, [one, other]) = world();
    let reader = w.connect(v5("holds").with(Property::ReceiveMaximum(window)));
    w.subscribe(reader, "a", 1);
    w.send_bytes(publisher, &messages(0, &[1]));
    let session = session_of(&w, "holds") as usize;
    while row(&mut w, publisher, 1, &[490; 16]).is_some() {
        for (id, keeps) in [(one, 0), (other, 0), (reader, 1)] {
            let sent = ids_in(&w.heard_bytes(id), Version::V5);
            let all_but_some = sent.into_iter().filter(|id| id.get() % 16 != keeps || keeps == 0);
            all_but_some.for_each(|packet_id| w.puback(id, packet_id.get()));
        }
    }
    let ring = &w.core.sessions[session].ring;
    let held: usize = blocks(ring)
        .iter()
        .map(|block| (block.as_ptr(), block.len()))
        .collect::<HashMap<_, _>>()
        .values()
        .sum();
    let most = 2 * usize::from(window) * 512;
    assert!((most / 2..=most).contains(&held), "{held} of {most}");
}

#[test]
fn short_memory_ends_rows_where_it_changes_what_one_message_meets() {
    use Pressure::{Closed, None, Queues, Slow};
    let (mut w, publisher, _) = world();
    for (pressure, qos, is_one) in [
        (None, 1, true),
        (Slow, 0, true),
        (Slow, 1, true),
        (Queues, 0, true),
        (Queues, 1, false),
        (Closed, 0, true),
        (Closed, 1, false),
    ] {
        w.core.set_pressure(pressure);
        assert_eq!(row(&mut w, publisher, qos, &[9; 3]).is_some(), is_one, "{pressure:?} {qos}");
    }
}

#[test]
fn who_is_away_misses_a_row_and_takes_it_from_nobody() {
    let (mut w, publisher, [one, other]) = world();
    w.heard(other);
    w.lose(one);
    let sent = w.core.counters().sent;
    assert!(row(&mut w, publisher, 0, &[9; 3]).is_some());
    assert_eq!((w.core.counters().sent - sent, w.heard(other).len()), (3, 3));
    assert!(row(&mut w, publisher, 1, &[9; 3]).is_none());
}

#[test]
fn who_gets_no_row_is_looked_for_once_a_read() {
    let (mut w, publisher, _) = world();
    let old = w.connect(v3("old").resume());
    w.subscribe(old, "a", 1);
    w.send_bytes(publisher, &messages(0, &[1]));
    let bytes = messages(0, &[9; 3]);
    let may = |w: &World| w.core.wires.get(publisher).expect("it is here").may_begin_row(&bytes);
    assert!(may(&w));
    assert_eq!(w.core.handle_row(publisher, &bytes), None);
    assert!(!may(&w));
    w.lose(old);
    w.send_bytes(publisher, b"");
    assert!(may(&w));
    assert!(w.core.handle_row(publisher, &bytes).is_some());
}

#[test]
fn who_is_full_is_looked_for_once_a_read() {
    let (mut w, publisher, _) = world();
    let full = w.connect(v5("full").with(Property::ReceiveMaximum(1)));
    w.subscribe(full, "a", 1);
    w.send_bytes(publisher, &messages(1, &[1]));
    let bytes = messages(1, &[9; 3]);
    let may = |w: &World| w.core.wires.get(publisher).expect("it is here").may_begin_row(&bytes);
    assert!(may(&w));
    assert_eq!(w.core.handle_row(publisher, &bytes), None);
    assert!(!may(&w));
}

#[test]
fn packet_ids_begin_again_in_the_midst_of_a_row() {
    let (mut w, publisher, [one, _]) = world();
    w.heard(one);
    let session = session_of(&w, "one") as usize;
    let before = 65_535 - 2;
    w.core.sessions[session].ring.begin_at(before);
    w.core.sessions[session].tail = before;
    assert!(row(&mut w, publisher, 1, &[1; 5]).is_some());
    let ids = [65_534, 65_535, 1, 2, 3];
    let sent: Vec<_> = ids.iter().enumerate().map(|(n, id)| format!("a={n} q1 #{id}")).collect();
    assert_eq!(w.heard(one), sent);
    ids.into_iter().for_each(|id| w.puback(one, id));
    let session = &w.core.sessions[session];
    assert_eq!((session.ring.open(), session.ring.first(), session.tail), (0, before + 5, before + 5));
}

#[test]
fn a_row_comes_again_to_who_returns_with_another_version() {
    let (mut w, publisher, [one, _]) = world();
    w.heard(one);
    assert!(row(&mut w, publisher, 1, &[1; 4]).is_some());
    w.heard(one);
    w.puback(one, 2);
    w.lose(one);
    let again = [(0, 1), (2, 3), (3, 4)].map(|(n, id)| format!("a={n} q1 #{id} dup"));
    let old = w.hello(&v3("one").resume());
    assert_eq!(w.heard(old)[1..], again);
    w.lose(old);
    let new = w.hello(&v5("one").resume().with(Property::TopicAliasMaximum(3)));
    assert_eq!(w.heard(new).len(), 4);
}

#[test]
fn of_a_row_who_returns_with_a_smaller_packet_size_gets_what_fits() {
    let (mut w, publisher, [one, _]) = world();
    w.heard(one);
    assert!(row(&mut w, publisher, 1, &[1, 60, 1, 60, 1]).is_some());
    w.lose(one);
    let one = w.hello(&v5("one").resume().with(Property::MaximumPacketSize(40)));
    assert_eq!(w.heard(one)[1..], [(0, 1), (2, 3), (4, 5)].map(|(n, id)| format!("a={n} q1 #{id} dup")));
    assert_eq!(w.core.counters().dropped_oversize, 2);
}

/// Rows cross to other shards, whose interest and disinterest comes between two reads.
#[test]
fn rows_on_several_shards_bring_each_what_it_wants_in_order() {
    let mut node = Node::new(3, 1);
    let publisher = node.connect_on(0, "publisher");
    let readers: Vec<_> = (0..3).map(|shard| node.connect_on(shard, "reader")).collect();
    node.settle();
    let mut expected = vec![Vec::new(); 3];
    for round in 0..6 {
        for (n, &reader) in readers.iter().enumerate() {
            match (round, n) {
                (1, _) if n < 2 => drop(node.subscribe(reader, "a", 1)),
                (2, 2) => drop(node.subscribe(reader, "+", 0)),
                (4, 1) => node.unsubscribe(reader, "a"),
                _ => {}
            }
        }
        node.settle();
        for qos in [0, 1] {
            let all: Vec<_> = (0..30).map(|n| ("a", format!("{round}.{qos}.{n}"), qos, false)).collect();
            for (n, got) in expected.iter_mut().enumerate() {
                let wants = match n {
                    0 => round >= 1,
                    1 => (1..4).contains(&round),
                    _ => round >= 2,
                };
                got.extend(
                    all.iter().filter(|_| wants).map(|(topic, payload, ..)| format!("{topic}={payload}")),
                );
            }
            node.publish_at_once(publisher, &all);
            node.settle();
        }
    }
    for (reader, expected) in readers.into_iter().zip(expected) {
        assert_eq!(node.clients[reader].got, expected);
    }
}
