//! Rows that cross to another shard at QoS 1: they are acknowledged together once that has them, and meanwhile count as their
//! messages do.

use std::ops::Range;
use std::time::Instant;

use super::row_edges::blocks;
use super::world::{Hello, World, options, v3, v5};
use crate::broker::core::delivery::Outgoing;
use crate::broker::core::{Bag, ConnectionId, Desk, Fault, Office, Place, Pressure};
use crate::mqtt::{Packet, PacketId, Properties, Property, Publish, QoS, Version, Violation, decode};
use crate::settings::Limits;

/// Two shards: who publishes is on the first, who reads on the second.
struct Pair {
    w: [World; 2],
    office: Office,
    desks: [Desk; 2],
}

impl Pair {
    fn new(inflight_max: u16) -> Pair {
        let (limits, now) = (Limits { inflight_max, ..Limits::default() }, Instant::now());
        let w = [0, 1].map(|own| World::one_of(Place::new(own, 2), limits, now));
        Pair { w, office: Office::new(2), desks: Default::default() }
    }

    fn exchange(&mut self, shard: usize) {
        let (w, desk) = (&mut self.w[shard], &mut self.desks[shard]);
        w.core.exchange(&self.office, desk);
        w.core.handle_mail(desk, w.now);
        w.settle();
    }

    fn rest(&mut self) {
        (0..6).for_each(|turn| self.exchange(turn % 2));
    }

    /// A client of the second shard that subscribes to `a`.
    fn reader(&mut self, hello: Hello) -> ConnectionId {
        let reader = self.w[1].connect(hello);
        self.w[1].subscribe_with(reader, "a", options(1), None);
        self.rest();
        self.w[1].heard(reader);
        reader
    }

    /// A client of the first shard that published to `a` last.
    fn publisher(&mut self, hello: Hello) -> ConnectionId {
        let version = if hello.is_v3() { Version::V3 } else { Version::V5 };
        let publisher = self.w[0].connect(hello);
        self.w[0].send_bytes(publisher, &messages(version, "a", 0, 1..2));
        self.rest();
        publisher
    }

    /// How many of these bytes are a row.
    fn row(&mut self, publisher: ConnectionId, bytes: &[u8]) -> Option<usize> {
        let length = self.w[0].core.handle_row(publisher, bytes);
        self.w[0].settle();
        length
    }
}

/// Messages with these ids, if they have any.
fn messages(version: Version, topic: &str, qos: u8, ids: Range<u16>) -> Vec<u8> {
    of_size(1, version, topic, qos, ids)
}

fn of_size(size: usize, version: Version, topic: &str, qos: u8, ids: Range<u16>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in ids {
        let qos = QoS::from_u8(qos).expect("0 or 1");
        let packet_id = PacketId::new(n).filter(|_| qos > QoS::AtMostOnce);
        let (properties, payload) = (Properties::EMPTY, &*vec![b'0' + (n % 10) as u8; size]);
        let publish = Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload };
        Packet::Publish(publish).encode(version, &mut bytes);
    }
    bytes
}

fn acks(ids: Range<u16>) -> Vec<String> {
    ids.map(|n| format!("PUBACK {n}")).collect()
}

fn received(ids: Range<u16>) -> Vec<String> {
    ids.map(|n| format!("a={} q1 #{n}", n % 10)).collect()
}

#[test]
fn a_row_is_one_there_and_acknowledged_when_it_is_there() {
    for hello in [v3, v5] {
        let mut pair = Pair::new(1_000);
        let (reader, publisher) = (pair.reader(hello("reader")), pair.publisher(hello("publisher")));
        pair.w[1].heard(reader);
        let version = if hello("").is_v3() { Version::V3 } else { Version::V5 };
        let row = messages(version, "a", 1, 1..6);
        assert_eq!(pair.row(publisher, &row), Some(row.len()));
        pair.exchange(0);
        assert!(pair.w[0].heard(publisher).is_empty() && pair.w[1].heard(reader).is_empty());
        pair.exchange(1);
        assert_eq!(pair.w[1].heard(reader), received(1..6));
        let (_, session) = pair.w[1].core.sessions.iter().next().expect("it is the only one there");
        assert_eq!(blocks(&session.ring).iter().map(|block| block.len()).collect::<Vec<_>>(), [row.len(); 5]);
        pair.exchange(0);
        assert!(pair.w[0].heard(publisher).is_empty());
        pair.rest();
        assert_eq!(pair.w[0].heard(publisher), acks(1..6));
        pair.rest();
        assert!(pair.w[0].heard(publisher).is_empty());
    }
}

#[test]
fn that_one_row_is_there_says_nothing_of_the_next() {
    let mut pair = Pair::new(1_000);
    let (_, publisher) = (pair.reader(v5("reader")), pair.publisher(v5("publisher")));
    pair.w[0].send_bytes(publisher, &messages(Version::V5, "a", 1, 1..6));
    [0, 1, 1].into_iter().for_each(|shard| pair.exchange(shard));
    pair.w[0].send_bytes(publisher, &messages(Version::V5, "a", 1, 6..9));
    pair.exchange(0);
    assert_eq!(pair.w[0].heard(publisher), acks(1..6));
    pair.rest();
    assert_eq!(pair.w[0].heard(publisher), acks(6..9));
}

#[test]
fn a_row_that_stays_here_is_acknowledged_behind_one_that_crosses() {
    let mut pair = Pair::new(1_000);
    let (_, publisher) = (pair.reader(v5("reader")), pair.publisher(v5("publisher")));
    let near = pair.w[0].connect(v5("near"));
    pair.w[0].subscribe_with(near, "b", options(1), None);
    pair.rest();
    pair.w[0].heard(near);
    for (topic, ids) in [("a", 1..6), ("b", 6..11), ("a", 11..16)] {
        pair.w[0].send_bytes(publisher, &messages(Version::V5, topic, 1, ids));
    }
    assert!(pair.w[0].heard(publisher).is_empty());
    assert_eq!(pair.w[0].heard(near).len(), 5);
    pair.rest();
    assert_eq!(pair.w[0].heard(publisher), acks(1..16));
}

#[test]
fn a_row_that_waits_counts_against_our_receive_maximum_until_it_is_acknowledged() {
    let mut pair = Pair::new(8);
    let (reader, publisher) = (pair.reader(v5("reader")), pair.publisher(v5("publisher")));
    for _ in 0..3 {
        pair.w[0].send_bytes(publisher, &messages(Version::V5, "a", 1, 1..7));
        pair.rest();
        assert_eq!(pair.w[0].heard(publisher), acks(1..7));
        (1..20).for_each(|id| pair.w[1].puback(reader, id));
    }
    assert_eq!(pair.w[0].closed(publisher), None);
    pair.w[0].send_bytes(publisher, &messages(Version::V5, "a", 1, 1..7));
    pair.w[0].send_bytes(publisher, &messages(Version::V5, "a", 1, 7..8));
    assert_eq!(pair.w[0].closed(publisher), None);
    pair.w[0].send_bytes(publisher, &messages(Version::V5, "a", 1, 8..10));
    let fault = Fault::Violation(Violation::ReceiveMaximumExceeded);
    assert_eq!(pair.w[0].closed(publisher), Some(fault));
}

#[test]
fn who_waits_for_too_much_is_not_read() {
    let mut pair = Pair::new(u16::MAX);
    let (_, publisher) = (pair.reader(v3("reader")), pair.publisher(v3("publisher")));
    let other = pair.publisher(v3("other"));
    let row = messages(Version::V3, "a", 1, 1..201);
    let mut sent = 0;
    while pair.w[0].core.reads(publisher) {
        pair.w[0].send_bytes(publisher, &row);
        sent += 200;
        assert!(sent < 20_000, "it goes on for ever");
        pair.exchange(0);
        // The other shard takes it, and says nothing.
        pair.office.exchange(1, &mut [Bag::default(), Bag::default()], &mut pair.desks[1], true);
        pair.desks[1].taken.clear();
    }
    assert!(sent > 10_000 && !pair.w[0].core.is_congested(), "{sent}");
    assert!(pair.w[0].core.reads(other), "it does not wait");
}

#[test]
fn of_a_row_that_waits_who_is_gone_hears_nothing_and_who_came_instead_neither() {
    let mut pair = Pair::new(1_000);
    let (reader, publisher) = (pair.reader(v5("reader")), pair.publisher(v5("publisher")));
    pair.w[0].send_bytes(publisher, &messages(Version::V5, "a", 1, 1..6));
    let next = pair.w[0].connect(v5("publisher"));
    pair.rest();
    assert_eq!(pair.w[0].heard(publisher), ["DISCONNECT SessionTakenOver"]);
    assert!(pair.w[0].heard(next).is_empty());
    pair.w[0].send_bytes(next, &messages(Version::V5, "a", 1, 6..11));
    pair.w[0].lose(next);
    let last = pair.w[0].connect(v5("publisher"));
    pair.rest();
    assert!(pair.w[0].heard(last).is_empty());
    assert_eq!(pair.w[1].heard(reader).len(), 1 + 10);
}

/// At QoS 1 what waits for another shard is refused like what waits for the store itself: it may come twice.
#[test]
fn a_row_that_waits_while_the_store_fails_is_refused() {
    let mut pair = Pair::new(10);
    pair.w = pair.w.map(World::with_store);
    pair.reader(v5("reader"));
    let [old, new] = [v3("old"), v5("new")].map(|hello| pair.publisher(hello));
    pair.w[0].send_bytes(old, &messages(Version::V3, "a", 1, 1..6));
    pair.w[0].send_bytes(new, &messages(Version::V5, "a", 1, 1..6));
    pair.w[0].store_down();
    let refused = acks(1..6).iter().map(|line| format!("{line} QuotaExceeded")).collect::<Vec<_>>();
    assert_eq!(pair.w[0].heard(new), refused);
    assert_eq!((pair.w[0].heard(old), pair.w[0].closed(old)), (vec![], Some(Fault::QuotaExceeded)));
    pair.rest();
    assert!(pair.w[0].heard(new).is_empty());
    // It is nobody's business that the store is not there, and there is room for as many as before.
    pair.w[0].send_bytes(new, &messages(Version::V5, "a", 1, 1..11));
    pair.rest();
    assert_eq!(pair.w[0].heard(new), acks(1..11));
}

#[test]
fn no_row_goes_where_it_may_have_to_be_stored() {
    let mut pair = Pair::new(1_000);
    pair.w = pair.w.map(World::with_store);
    let (_, publisher) = (pair.reader(v5("reader")), pair.publisher(v5("publisher")));
    let may = |pair: &Pair, qos| {
        let bytes = messages(Version::V5, "a", qos, 1..6);
        pair.w[0].core.wires.get(publisher).expect("it is here").may_begin_row(&bytes)
    };
    assert!(may(&pair, 0) && may(&pair, 1));
    pair.reader(v5("kept").expiry(600));
    pair.w[0].send_bytes(publisher, &messages(Version::V5, "a", 0, 1..2));
    assert!(may(&pair, 0) && !may(&pair, 1));
}

#[test]
fn what_looks_like_a_row_and_goes_elsewhere_is_none_of_it() {
    let mut pair = Pair::new(1_000);
    let (reader, publisher) = (pair.reader(v5("reader")), pair.publisher(v5("publisher")));
    let other = pair.w[1].connect(v5("other"));
    pair.w[1].subscribe_with(other, "b", options(1), None);
    pair.rest();
    [reader, other].into_iter().for_each(|id| drop(pair.w[1].heard(id)));
    for (topic, ids) in [("a", 1..4), ("b", 4..5), ("a", 5..6), ("b", 6..9), ("a", 9..10)] {
        pair.w[0].send_bytes(publisher, &messages(Version::V5, topic, 1, ids));
    }
    pair.rest();
    let mut got = |id| pair.w[1].heard(id).iter().map(|line| line[..3].to_owned()).collect::<Vec<_>>();
    assert_eq!(got(reader), ["a=1", "a=2", "a=3", "a=5", "a=9"]);
    assert_eq!(got(other), ["b=4", "b=6", "b=7", "b=8"]);
    assert_eq!(pair.w[0].heard(publisher), acks(1..10));
}

/// Of messages that come in a read each some are sent again, which is nobody else's business.
#[test]
fn what_is_sent_again_is_no_row_there() {
    let mut pair = Pair::new(1_000);
    let (reader, publisher) = (pair.reader(v5("reader")), pair.publisher(v5("publisher")));
    pair.w[1].heard(reader);
    for (n, is_again) in [false, true, true, false, false, true].into_iter().enumerate() {
        let id = n as u16 + 1;
        let mut bytes = messages(Version::V5, "a", 1, id..id + 1);
        bytes[0] |= u8::from(is_again) << 3;
        pair.w[0].send_bytes(publisher, &bytes);
    }
    pair.rest();
    assert_eq!(pair.w[1].heard(reader), received(1..7));
    assert_eq!(pair.w[0].heard(publisher), acks(1..7));
}

/// With so many messages nothing else has to be asked.
#[test]
fn who_takes_no_row_there_is_looked_for_once() {
    let mut pair = Pair::new(1_000);
    let bytes =
        [("a", 1..6), ("b", 6..9)].map(|(topic, ids)| of_size(40, Version::V5, topic, 1, ids)).concat();
    let row = |pair: &mut Pair| {
        let (packet, length) =
            decode(&bytes, Version::V5, &Default::default()).expect("valid").expect("whole");
        let Packet::Publish(publish) = packet else { panic!("it is one") };
        let first = Outgoing { publish, expires_at: None, packet: Some((Version::V5, &bytes[..length])) };
        pair.w[1].core.handle_relayed_row(0, &first, &bytes, false)
    };
    pair.reader(v5("reader"));
    assert_eq!(row(&mut pair), Ok(5));
    let narrow = pair.reader(v5("narrow").with(Property::ReceiveMaximum(8)));
    assert_eq!(row(&mut pair), Ok(5));
    assert_eq!(row(&mut pair), Ok(3));
    assert_eq!(row(&mut pair), Err(5));
    pair.w[1].lose(narrow);
    assert_eq!(row(&mut pair), Ok(5));
    pair.w[1].core.set_pressure(Pressure::Queues);
    assert_eq!(row(&mut pair), Err(5));
    pair.w[1].core.set_pressure(Pressure::None);
    for hello in [v3("old"), v5("small").with(Property::MaximumPacketSize(40))] {
        let other = pair.reader(hello);
        assert_eq!(row(&mut pair), Err(5));
        pair.w[1].lose(other);
        assert_eq!(row(&mut pair), Ok(5));
    }
}
