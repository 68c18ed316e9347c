//! Whatever bytes arrive: decoding neither panics nor believes them, and what it accepts can be sent on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqlink_fuzz::mqtt::{Frame, Limits, Packet, PacketId, Publish, QoS, Version, connack_version, decode};

const LIMITS: Limits = Limits { packet_bytes_max: 1 << 17, dup_requests: false };

fuzz_target!(|input: &[u8]| {
    let Some((first, mut rest)) = input.split_first() else { return };
    let mut version = if first & 1 == 0 { Version::V3 } else { Version::V5 };
    connack_version(rest);
    loop {
        match decode(rest, version, &LIMITS) {
            Ok(None) => break,
            Err(violation) => {
                assert!(violation.reason_code().is_error());
                assert!(!violation.to_string().is_empty());
                break;
            }
            Ok(Some((packet, len))) => {
                assert!(len <= rest.len() && len <= LIMITS.packet_bytes_max);
                assert_eq!(decode(&rest[..len - 1], version, &LIMITS), Ok(None), "not before its last byte");
                if let Packet::Connect(connect) = packet {
                    version = connect.version;
                }
                check(packet, len, version);
                rest = &rest[len..];
            }
        }
    }
});

fn check(packet: Packet<'_>, len: usize, version: Version) {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    assert!(bytes.len() <= len, "the canonical form is not longer");
    assert_eq!(decode(&bytes, version, &LIMITS), Ok(Some((packet, bytes.len()))));
    assert!(!format!("{packet:?}").is_empty());
    if let Packet::Publish(publish) = packet {
        check_frame(&publish, version);
    }
}

fn check_frame(publish: &Publish<'_>, version: Version) {
    let id = (publish.qos != QoS::AtMostOnce).then_some(PacketId::MAX);
    let mut bytes = Vec::new();
    Frame::publish(publish, version).append_to(&mut bytes, id, publish.dup);
    let expected = Packet::Publish(Publish { packet_id: id, ..*publish });
    assert_eq!(decode(&bytes, version, &LIMITS), Ok(Some((expected, bytes.len()))));
    let forwarded = publish.properties.forwardable();
    assert!(forwarded.as_properties().as_bytes().len() <= publish.properties.as_bytes().len());
}
