//! Bytes that no client would send: the core answers with a reason, never with a panic, and serves the others on.

use proptest::prelude::*;

use super::world::{World, v3, v5};
use crate::mqtt::Version;

/// A stream of valid packets of a connection, to be damaged.
const TALK: &[u8] = &[
    0x82, 0x0a, 0, 1, 0, 0, 4, b't', b'/', b'+', b'x', 1, // SUBSCRIBE with a bad filter
    0x82, 0x09, 0, 1, 0, 0, 3, b't', b'/', b'+', 2, // SUBSCRIBE
    0x32, 0x09, 0, 3, b't', b'/', b'1', 0, 7, 0, b'x', // PUBLISH QoS 1
    0x34, 0x09, 0, 3, b't', b'/', b'1', 0, 8, 0, b'x', // PUBLISH QoS 2
    0x62, 0x02, 0, 8, // PUBREL
    0x40, 0x02, 0, 1, // PUBACK
    0x50, 0x02, 0, 2, // PUBREC
    0x70, 0x02, 0, 2, // PUBCOMP
    0xa2, 0x08, 0, 1, 0, 0, 3, b't', b'/', b'+', // UNSUBSCRIBE
    0xc0, 0x00, // PINGREQ
    0xe0, 0x00, // DISCONNECT
];

fn serves_on(w: &mut World) {
    let good = w.connect(v5("bystander"));
    w.subscribe(good, "t", 0);
    w.publish(good, "t", 0, "fine");
    assert_eq!(w.heard(good), ["t=fine"]);
}

proptest! {
    #[test]
    fn random_bytes_before_connect(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        version in prop::sample::select(vec![Version::V3, Version::V5]),
    ) {
        let mut w = World::new();
        let id = w.raw(version);
        w.send_bytes(id, &bytes);
        w.run_for(20.0);
        w.lose(id);
        serves_on(&mut w);
    }

    #[test]
    fn random_bytes_after_connect(bytes in prop::collection::vec(any::<u8>(), 0..200), is_v5 in any::<bool>()) {
        let mut w = World::new();
        let id = w.connect(if is_v5 { v5("evil") } else { v3("evil") });
        w.send_bytes(id, &bytes);
        w.lose(id);
        serves_on(&mut w);
    }

    #[test]
    fn damaged_talk(
        damage in prop::collection::vec((0..TALK.len(), any::<u8>()), 0..6),
        skip in 0..TALK.len(),
        is_v5 in any::<bool>(),
    ) {
        let mut bytes = TALK.to_vec();
        for (at, value) in damage {
            bytes[at] = value;
        }
        let mut w = World::new();
        let id = w.connect(if is_v5 { v5("evil").expiry(9) } else { v3("evil").resume() });
        w.send_bytes(id, &bytes[skip..]);
        w.lose(id);
        let again = w.hello(&v5("evil").resume());
        w.send_bytes(again, &bytes[12..]);
        w.heard(again);
        w.lose(again);
        serves_on(&mut w);
        w.run_for(20.0);
    }
}
