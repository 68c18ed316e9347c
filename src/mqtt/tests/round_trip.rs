//! What is encoded decodes to the same, however the bytes arrive; and nothing that arrives does harm.

use super::super::*;
use super::arbitrary;
use proptest::collection::vec;
use proptest::prelude::*;

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

fn packet() -> impl Strategy<Value = (Version, Packet<'static>)> {
    arbitrary::version().prop_flat_map(|version| (Just(version), arbitrary::packet(version)))
}

fn packets() -> impl Strategy<Value = (Version, Vec<Packet<'static>>)> {
    arbitrary::version().prop_flat_map(|version| (Just(version), vec(arbitrary::packet(version), 1..6)))
}

/// Bytes that look like a packet to some degree: a valid one with a few bytes changed, cut out or put in.
pub(super) fn damaged(version: Version) -> impl Strategy<Value = Vec<u8>> {
    let damage = (any::<proptest::sample::Index>(), 0..4u8, any::<u8>());
    (arbitrary::packet(version), vec(damage, 1..3)).prop_map(move |(packet, damages)| {
        let mut bytes = encoded(&packet, version);
        for (at, kind, value) in damages {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = value,
                1 => bytes[at] ^= 1 << (value % 8),
                2 => bytes.insert(at, value),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        fix_length(bytes)
    })
}

/// Corrects the remaining length where it has one byte, so that damage gets past the framing.
fn fix_length(mut bytes: Vec<u8>) -> Vec<u8> {
    if (2..=129).contains(&bytes.len()) {
        bytes[1] = (bytes.len() - 2) as u8;
    }
    bytes
}

proptest! {
    #[test]
    fn every_packet_comes_back_as_it_was((version, packet) in packet(), follows in vec(any::<u8>(), 0..4)) {
        let mut bytes = encoded(&packet, version);
        let len = bytes.len();
        bytes.extend(follows);
        prop_assert_eq!(decode(&bytes, version, &Limits::default()), Ok(Some((packet, len))));
    }

    #[test]
    fn a_packet_is_not_there_before_its_last_byte((version, packet) in packet()) {
        let bytes = encoded(&packet, version);
        for len in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..len], version, &Limits::default()), Ok(None));
        }
    }

    #[test]
    fn a_stream_may_be_cut_anywhere((version, packets) in packets(), cuts in vec(1..60usize, 1..200)) {
        let mut stream = Vec::new();
        packets.iter().for_each(|packet| packet.encode(version, &mut stream));
        let mut cuts = cuts.into_iter().cycle();
        let (mut buffer, mut count) = (Vec::new(), 0);
        while !stream.is_empty() {
            let cut = cuts.next().unwrap().min(stream.len());
            buffer.extend(stream.drain(..cut));
            while let Some((packet, len)) = decode(&buffer, version, &Limits::default()).unwrap() {
                prop_assert_eq!(packet, packets[count]);
                count += 1;
                drop(buffer.drain(..len));
            }
        }
        prop_assert_eq!((count, buffer.len()), (packets.len(), 0));
    }

    #[test]
    fn what_is_accepted_can_be_sent_on(version in arbitrary::version(), bytes in vec(any::<u8>(), 0..300)) {
        check_stable(&fix_length(bytes), version)?;
    }

    #[test]
    fn what_is_accepted_though_damaged_can_be_sent_on(
        (version, bytes) in arbitrary::version().prop_flat_map(|version| (Just(version), damaged(version)))
    ) {
        check_stable(&bytes, version)?;
    }

    #[test]
    fn a_limit_counts_the_whole_packet((version, packet) in packet()) {
        let bytes = encoded(&packet, version);
        let below = Limits { packet_bytes_max: bytes.len() - 1, ..Limits::default() };
        let exact = Limits { packet_bytes_max: bytes.len(), ..Limits::default() };
        prop_assert_eq!(decode(&bytes, version, &below), Err(Violation::PacketTooLarge));
        prop_assert_eq!(decode(&bytes, version, &exact), Ok(Some((packet, bytes.len()))));
    }

    #[test]
    fn direct_encoding_and_packets_agree((version, publish) in publish()) {
        let mut bytes = Vec::new();
        encode_publish(&publish, version, &mut bytes);
        prop_assert_eq!(bytes, encoded(&Packet::Publish(publish), version));
    }
}

fn publish() -> impl Strategy<Value = (Version, Publish<'static>)> {
    arbitrary::version().prop_flat_map(|version| (Just(version), arbitrary::publish(version)))
}

/// If the bytes are a packet, it survives being encoded.
fn check_stable(bytes: &[u8], version: Version) -> Result<(), TestCaseError> {
    if let Ok(Some((packet, len))) = decode(bytes, version, &Limits::default()) {
        let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
        let again = encoded(&packet, version);
        prop_assert!(again.len() <= len, "the canonical form is not longer");
        prop_assert_eq!(decode(&again, version, &Limits::default()), Ok(Some((packet, again.len()))));
    }
    Ok(())
}

#[test]
fn the_limit_is_told_from_the_length_alone() {
    let limits = Limits { packet_bytes_max: 1000, ..Limits::default() };
    // 268,435,455 bytes are announced; none of them has come.
    let header = [0x30, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(decode(&header, Version::V5, &limits), Err(Violation::PacketTooLarge));
    assert_eq!(decode(&header[..4], Version::V5, &limits), Ok(None));
}

#[test]
fn reasons_that_3_1_1_does_not_know_find_their_nearest_code() {
    let connack =
        |reason| Packet::ConnAck(ConnAck { session_present: false, reason, properties: Properties::EMPTY });
    assert_eq!(encoded(&connack(ReasonCode::Banned), Version::V3), [0x20, 2, 0, 5]);
    assert_eq!(encoded(&connack(ReasonCode::ServerBusy), Version::V3), [0x20, 2, 0, 3]);
    assert_eq!(encoded(&connack(ReasonCode::UnspecifiedError), Version::V3), [0x20, 2, 0, 3]);
    let reasons = &[1, ReasonCode::QuotaExceeded as u8];
    let suback = SubAck { packet_id: PacketId::MIN, properties: Properties::EMPTY, reasons };
    assert_eq!(encoded(&Packet::SubAck(suback), Version::V3), [0x90, 4, 0, 1, 1, 0x80]);
    assert_eq!(encoded(&Packet::UnsubAck(suback), Version::V3), [0xb0, 2, 0, 1]);
}

#[test]
fn nothing_of_5_0_is_written_in_3_1_1() {
    let mut list = PropertiesBuf::new();
    list.push(Property::ReasonString("full"));
    let (reason, properties) = (ReasonCode::QuotaExceeded, list.as_properties());
    let ack = Ack { packet_id: PacketId::MIN, reason, properties };
    assert_eq!(encoded(&Packet::PubAck(ack), Version::V3), [0x40, 2, 0, 1]);
    assert_eq!(encoded(&Packet::Disconnect(Disconnect { reason, properties }), Version::V3), [0xe0, 0]);
    assert!(encoded(&Packet::Auth(Auth { reason, properties }), Version::V3).is_empty());
}
