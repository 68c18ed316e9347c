//! What waited for clients goes out in turn: a bounded part of it before others are heard.

use super::world::{World, v5};
use crate::broker::core::ConnectionId;
use crate::mqtt::{Packet, Property};

const CLIENTS: usize = 64;
const PAYLOAD: usize = 10_000;
const MESSAGES: usize = 300;
/// How many of them a client takes at once: less than what may wait in its buffer.
const WINDOW: u16 = 100;
/// What a turn sends of what waited, and the last part that began in it.
const TURN: u64 = (1 << 20) + (80 << 10);

fn id_of(n: usize) -> &'static str {
    format!("c{n}").leak()
}

/// Clients that were away, each with messages that wait, and a crowd that is back and was sent as many as it takes.
fn crowd(w: &mut World) -> Vec<ConnectionId> {
    let hello = |n| v5(id_of(n)).expiry(1_000).with(Property::ReceiveMaximum(WINDOW));
    for n in 0..CLIENTS {
        let away = w.connect(hello(n));
        w.subscribe(away, "t", 1);
        w.lose(away);
    }
    let publisher = w.connect(v5("publisher"));
    for _ in 0..MESSAGES {
        w.publish(publisher, "t", 1, &"x".repeat(PAYLOAD));
    }
    (0..CLIENTS).map(|n| w.hello(&hello(n).resume())).collect()
}

/// Takes what lies there for a client, and tells the answers.
fn take(w: &mut World, id: ConnectionId) -> Vec<u8> {
    let mut acks = Vec::new();
    while w.core.waiting(id) > 0 {
        let bytes = w.core.outgoing(id).to_vec();
        w.core.handle_written(id, bytes.len(), w.now);
        let mut rest = &bytes[..];
        while let Ok(Some((packet, length))) =
            crate::mqtt::decode(rest, crate::mqtt::Version::V5, &Default::default())
        {
            if let Packet::Publish(publish) = packet
                && let Some(packet_id) = publish.packet_id
            {
                acks.extend([0x40, 2]);
                acks.extend(packet_id.get().to_be_bytes());
            }
            rest = &rest[length..];
        }
    }
    acks
}

#[test]
fn a_crowd_that_acknowledges_is_sent_the_next_in_turn() {
    let mut w = World::new();
    let crowd = crowd(&mut w);
    let mut acks: Vec<_> = crowd.iter().map(|&id| take(&mut w, id)).collect();
    let mut heard = 0;
    while acks.iter().any(|acks| !acks.is_empty()) {
        heard += acks.iter().map(|acks| acks.len() / 4).sum::<usize>();
        let before = w.core.appended();
        for (&id, acks) in crowd.iter().zip(&acks) {
            assert_eq!(w.core.handle_bytes(id, acks, w.now), acks.len());
        }
        let made = w.core.appended() - before;
        assert!(made <= TURN, "{made} bytes at once");
        while w.core.has_work() {
            let before = w.core.appended();
            w.core.handle_work(w.now);
            let made = w.core.appended() - before;
            assert!(made <= TURN, "{made} bytes in one turn");
        }
        acks = crowd.iter().map(|&id| take(&mut w, id)).collect();
    }
    assert_eq!(heard, CLIENTS * MESSAGES);
}

#[test]
fn who_stands_in_line_may_go() {
    let mut w = World::new();
    let crowd = crowd(&mut w);
    let acks: Vec<_> = crowd.iter().map(|&id| take(&mut w, id)).collect();
    for (&id, acks) in crowd.iter().zip(&acks) {
        w.core.handle_bytes(id, acks, w.now);
    }
    assert!(w.core.has_work());
    // All but the last leave, and somebody else has the first one's place.
    crowd[..CLIENTS - 1].iter().for_each(|&id| w.core.handle_closed(id, w.now));
    let again = w.connect(v5(id_of(0)));
    assert!(!w.core.has_work());
    assert!(!take(&mut w, crowd[CLIENTS - 1]).is_empty());
    assert_eq!(w.core.waiting(again), 0);
}

#[test]
fn what_is_too_old_to_be_sent_holds_up_nobody_either() {
    let mut w = World::new();
    let away = w.connect(v5("away").expiry(1_000));
    w.subscribe(away, "t", 1);
    w.lose(away);
    let publisher = w.connect(v5("publisher"));
    for _ in 0..20_000 {
        w.publish_with(publisher, "t", 1, "x", false, &[Property::MessageExpiryInterval(1)]);
    }
    w.publish(publisher, "t", 1, "fresh");
    w.run_for(5.0);
    w.heard(publisher);
    let id = w.core.open(w.now);
    let before = w.core.counters().dropped_expired;
    let mut hello = Vec::new();
    let connect = crate::mqtt::Connect { clean_start: false, ..crate::mqtt::Connect::new("away") };
    Packet::Connect(connect).encode(crate::mqtt::Version::V5, &mut hello);
    w.core.handle_bytes(id, &hello, w.now);
    let dropped = |w: &World| w.core.counters().dropped_expired - before;
    assert!((1..=1_100).contains(&dropped(&w)), "{} in one turn", dropped(&w));
    while w.core.has_work() {
        w.core.handle_work(w.now);
    }
    assert_eq!(dropped(&w), 20_000);
    assert!(w.core.waiting(id) > 0);
}

#[test]
fn what_a_read_brings_for_many_is_handled_in_parts_whatever_comes_of_it() {
    const WORK: u64 = 1 << 20;
    let mut w = World::new();
    for n in 0..200 {
        let away = w.connect(v5(id_of(n)).expiry(1_000));
        w.subscribe(away, "t", 1);
        w.lose(away);
    }
    let publisher = w.connect(v5("publisher"));
    let mut bytes = Vec::new();
    for _ in 0..4_000 {
        bytes.extend(b"\x32\x06\x00\x01t\x00\x01\x00"); // each would be for 200, and goes into a queue
    }
    let (mut used, mut parts, before) = (0, 0, w.core.counters().received);
    while used < bytes.len() {
        let routed = w.core.routed();
        used += w.core.handle_some(publisher, &bytes[used..], WORK, w.now);
        let cost = w.core.routed() - routed;
        assert!(cost <= 8 * WORK + 20_000, "{cost}");
        parts += 1;
    }
    assert_eq!((parts, w.core.counters().received - before), (7, 4_000));
}
