//! Frames: encoded once, then patched, they are what the packet itself would have been.

use super::super::*;
use super::arbitrary;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

proptest! {
    #[test]
    fn a_frame_is_the_packet_with_another_id(
        (version, publish) in arbitrary::version().prop_flat_map(|version| (Just(version), arbitrary::publish(version))),
        id in 1..=u16::MAX,
        dup in any::<bool>(),
    ) {
        let frame = Frame::publish(&publish, version);
        let later = publish.qos != QoS::AtMostOnce;
        let id = PacketId::new(id).filter(|_| later);
        let mut expected = b"before".to_vec();
        encode_publish(&Publish { packet_id: id, dup: dup && later, ..publish }, version, &mut expected);

        let mut out = b"before".to_vec();
        frame.append_to(&mut out, id, dup);
        prop_assert_eq!(&out, &expected);
        prop_assert_eq!(frame.len(), out.len() - b"before".len());
        prop_assert_eq!(frame.qos(), publish.qos);
    }

    #[test]
    fn a_packet_that_is_copied_is_the_one_that_would_be_encoded(
        (version, publish) in arbitrary::version().prop_flat_map(|version| (Just(version), arbitrary::publish(version))),
        id in 1..=u16::MAX,
        (dup, retain) in any::<(bool, bool)>(),
    ) {
        let mut came = Vec::new();
        encode_publish(&publish, version, &mut came);
        let later = publish.qos != QoS::AtMostOnce;
        let length = came[1..].iter().take_while(|&&byte| byte & 0x80 != 0).count() + 1;
        let topic_end = 1 + length + 2 + publish.topic.len();
        let frame = Blocks::default().copy(&came, topic_end, retain);
        let id = PacketId::new(id).filter(|_| later);
        let (mut expected, mut out) = (Vec::new(), Vec::new());
        encode_publish(&Publish { packet_id: id, dup: dup && later, retain, ..publish }, version, &mut expected);
        frame.append_to(&mut out, id, dup);
        prop_assert_eq!(out, expected);
        prop_assert_eq!(frame.topic(), publish.topic);
    }

    #[test]
    fn a_plain_publish_is_what_it_seems_to_be(
        (version, publish) in arbitrary::version().prop_flat_map(|version| (Just(version), arbitrary::publish(version))),
        topic in arbitrary::topic(),
        is_plain in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        length in any::<prop::sample::Index>(),
        first in prop::sample::select(vec![0x30_u8, 0x32]),
    ) {
        let publish = match is_plain {
            true => {
                let qos = publish.qos.min(QoS::AtLeastOnce);
                let packet_id = publish.packet_id.filter(|_| qos == QoS::AtLeastOnce);
                let (dup, retain, properties) = (false, false, Properties::EMPTY);
                Publish { dup, retain, topic, qos, packet_id, properties, ..publish }
            }
            false => publish,
        };
        let mut bytes = Vec::new();
        encode_publish(&publish, version, &mut bytes);
        if damage.is_empty() {
            bytes.extend_from_slice(b"more");
        }
        for (at, byte) in damage {
            let at = at.index(bytes.len().min(12));
            bytes[at] = byte;
            bytes.truncate(bytes.len() / 2 + length.index(bytes.len() / 2 + 1));
        }
        let plain = plain_publish(&bytes, first, version, topic);
        let expected = match decode(&bytes, version, &Limits::default()) {
            Ok(Some((Packet::Publish(found), len)))
                if bytes[0] == first && found.topic == topic && found.properties.is_empty() =>
            {
                let rest = len - found.payload.len() - usize::from(version == Version::V5);
                let topic_end = rest - if found.packet_id.is_some() { 2 } else { 0 };
                Some(PlainPublish { len, topic_end, packet_id: found.packet_id })
            }
            _ => None,
        };
        prop_assert_eq!(plain, expected);
    }

    #[test]
    fn what_came_before_makes_no_difference(
        (version, publish) in arbitrary::version().prop_flat_map(|version| (Just(version), arbitrary::publish(version))),
        before in arbitrary::topic(),
        is_same in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        encode_publish(&publish, version, &mut bytes);
        let before = if is_same { publish.topic } else { before };
        let limits = Limits::default();
        prop_assert_eq!(decode_after(&bytes, version, &limits, before), decode(&bytes, version, &limits));
    }
}

#[test]
fn a_message_keeps_what_is_to_be_passed_on() {
    let mut list = PropertiesBuf::new();
    let passed_on = [
        Property::PayloadFormatIndicator(1),
        Property::UserProperty(("b", "1")),
        Property::ContentType("text"),
        Property::UserProperty(("a", "2")),
        Property::ResponseTopic("answers"),
        Property::CorrelationData(b"7"),
    ];
    let own =
        [Property::TopicAlias(3), Property::SubscriptionIdentifier(9), Property::MessageExpiryInterval(10)];
    passed_on.into_iter().chain(own).for_each(|property| list.push(property));
    let packet = Publish {
        dup: true,
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "",
        packet_id: Some(PacketId::MIN),
        properties: list.as_properties(),
        payload: b"x",
    };
    let now = Instant::now();
    let message = Message::from_publish(&packet, Arc::from("t"), now);

    assert!(message.properties.as_properties().iter().eq(passed_on));
    assert_eq!((&*message.topic, message.qos, message.retain), ("t", QoS::AtLeastOnce, true));
    assert_eq!(message.expiry_s(now), Some(10));
    assert_eq!(message.expiry_s(now + Duration::from_millis(9_001)), Some(1));
    assert!(!message.is_expired(now + Duration::from_millis(9_999)));
    assert!(message.is_expired(now + Duration::from_secs(10)));
}

#[test]
fn a_list_off_its_packet_holds_what_is_to_be_passed_on_and_nothing_else() {
    let list = |property| [property].into_iter().collect::<PropertiesBuf>();
    let parse =
        |list: &PropertiesBuf| Properties::parse_forwardable(list.as_properties().as_bytes()).map(|_| ());
    assert_eq!(parse(&PropertiesBuf::new()), Ok(()));
    assert_eq!(parse(&list(Property::ContentType("text"))), Ok(()));
    assert_eq!(parse(&list(Property::TopicAlias(3))), Err(Violation::PropertyNotAllowed(0x23)));
    assert_eq!(parse(&list(Property::SubscriptionIdentifier(3))), Err(Violation::PropertyNotAllowed(0x0b)));
    assert_eq!(parse(&list(Property::MessageExpiryInterval(3))), Err(Violation::PropertyNotAllowed(2)));
    assert_eq!(parse(&list(Property::ReceiveMaximum(3))), Err(Violation::PropertyNotAllowed(0x21)));
    assert_eq!(parse(&list(Property::ResponseTopic("+"))), Err(Violation::ResponseTopicWildcard));
    assert_eq!(Properties::parse_forwardable(&[3, 0, 9]), Err(Violation::PropertyTruncated));
}
