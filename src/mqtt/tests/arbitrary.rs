//! Strategies for packets: every valid one has a chance.
//!
//! Strings and lists are leaked, so that a packet is one `Copy` value without an owner; a test run leaks a few MB.

use super::super::property::{Place, is_allowed, may_repeat};
use super::super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

fn leak_text(text: String) -> &'static str {
    text.leak()
}

fn leak_bytes(bytes: Vec<u8>) -> &'static [u8] {
    bytes.leak()
}

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof!["[a-z0-9]{0,12}", "[^\0]{0,20}", "[a-z\u{1}-\u{1f}\u{feff}é€😀]{0,40}"].prop_map(leak_text)
}

fn data() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 100..400)].prop_map(leak_bytes)
}

/// A topic name that is not empty.
pub(super) fn topic() -> impl Strategy<Value = &'static str> {
    prop_oneof!["[a-z/]{1,40}", "[$]?[^\0+#]{1,24}", "[é€😀/]{1,12}"].prop_map(leak_text)
}

fn filter() -> impl Strategy<Value = &'static str> {
    let level = prop_oneof![3 => "[a-zé€]{0,5}", 1 => Just("+".to_owned())];
    let plain = (vec(level, 1..5), any::<bool>())
        .prop_map(|(levels, open)| levels.join("/") + if open { "/#" } else { "" })
        .prop_map(|filter| if filter.is_empty() { "#".to_owned() } else { filter });
    (option::weighted(0.2, "[a-z$]{1,5}"), plain).prop_map(|(group, filter)| {
        leak_text(match group {
            Some(group) => format!("$share/{group}/{filter}"),
            None => filter,
        })
    })
}

pub(super) fn version() -> impl Strategy<Value = Version> {
    select(&[Version::V3, Version::V5])
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    prop_oneof![1..=u16::MAX, Just(1), Just(u16::MAX)].prop_map(|id| PacketId::new(id).unwrap())
}

fn flag() -> impl Strategy<Value = u8> {
    0..=1u8
}

/// The 27 properties with the values that they may have.
fn each_property() -> Vec<(u8, BoxedStrategy<Property<'static>>)> {
    use Property::*;
    let id = prop_oneof![1..=127u32, 1..=268_435_455u32];
    vec![
        (0x01, flag().prop_map(PayloadFormatIndicator).boxed()),
        (0x02, any::<u32>().prop_map(MessageExpiryInterval).boxed()),
        (0x03, text().prop_map(ContentType).boxed()),
        (0x08, topic().prop_map(ResponseTopic).boxed()),
        (0x09, data().prop_map(CorrelationData).boxed()),
        (0x0b, id.prop_map(SubscriptionIdentifier).boxed()),
        (0x11, any::<u32>().prop_map(SessionExpiryInterval).boxed()),
        (0x12, text().prop_map(AssignedClientIdentifier).boxed()),
        (0x13, any::<u16>().prop_map(ServerKeepAlive).boxed()),
        (0x15, text().prop_map(AuthenticationMethod).boxed()),
        (0x16, data().prop_map(AuthenticationData).boxed()),
        (0x17, flag().prop_map(RequestProblemInformation).boxed()),
        (0x18, any::<u32>().prop_map(WillDelayInterval).boxed()),
        (0x19, flag().prop_map(RequestResponseInformation).boxed()),
        (0x1a, text().prop_map(ResponseInformation).boxed()),
        (0x1c, text().prop_map(ServerReference).boxed()),
        (0x1f, text().prop_map(ReasonString).boxed()),
        (0x21, (1..=u16::MAX).prop_map(ReceiveMaximum).boxed()),
        (0x22, any::<u16>().prop_map(TopicAliasMaximum).boxed()),
        (0x23, (1..=u16::MAX).prop_map(TopicAlias).boxed()),
        (0x24, flag().prop_map(MaximumQoS).boxed()),
        (0x25, flag().prop_map(RetainAvailable).boxed()),
        (0x26, (text(), text()).prop_map(UserProperty).boxed()),
        (0x27, (1..=u32::MAX).prop_map(MaximumPacketSize).boxed()),
        (0x28, flag().prop_map(WildcardSubscriptionAvailable).boxed()),
        (0x29, flag().prop_map(SubscriptionIdentifierAvailable).boxed()),
        (0x2a, flag().prop_map(SharedSubscriptionAvailable).boxed()),
    ]
}

/// A property list that is valid there; empty in 3.1.1.
fn properties(version: Version, place: Place) -> BoxedStrategy<Properties<'static>> {
    if version == Version::V3 {
        return Just(Properties::EMPTY).boxed();
    }
    let allowed = each_property().into_iter().filter(|(id, _)| is_allowed(*id, place));
    vec(Union::new(allowed.map(|(_, property)| property)), 0..8)
        .prop_map(move |list| leak_properties(list, place))
        .boxed()
}

fn leak_properties(mut list: Vec<Property<'static>>, place: Place) -> Properties<'static> {
    let mut seen = Vec::new();
    list.retain(|property| {
        let first = !seen.contains(&property.id());
        seen.push(property.id());
        first || may_repeat(property.id(), place)
    });
    if !list.iter().any(|property| matches!(property, Property::AuthenticationMethod(_))) {
        list.retain(|property| !matches!(property, Property::AuthenticationData(_)));
    }
    let list: PropertiesBuf = list.into_iter().collect();
    Box::leak(Box::new(list)).as_properties()
}

fn reason(packet: PacketType, version: Version) -> BoxedStrategy<ReasonCode> {
    let codes: Vec<ReasonCode> = match (packet, version) {
        (_, Version::V5) => {
            ReasonCode::ALL.iter().copied().filter(|code| code.is_allowed_in(packet)).collect()
        }
        (PacketType::ConnAck, Version::V3) => (0..=5).filter_map(ReasonCode::from_connack_v3).collect(),
        (_, Version::V3) => vec![ReasonCode::Success],
    };
    select(codes).boxed()
}

/// Any packet that is valid in the version.
pub(super) fn packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    let common = prop_oneof![
        2 => connect(version).prop_map(Packet::Connect),
        1 => connack(version).prop_map(Packet::ConnAck),
        4 => publish(version).prop_map(Packet::Publish),
        1 => ack(version, PacketType::PubAck).prop_map(Packet::PubAck),
        1 => ack(version, PacketType::PubRec).prop_map(Packet::PubRec),
        1 => ack(version, PacketType::PubRel).prop_map(Packet::PubRel),
        1 => ack(version, PacketType::PubComp).prop_map(Packet::PubComp),
        2 => subscribe(version).prop_map(Packet::Subscribe),
        2 => unsubscribe(version).prop_map(Packet::Unsubscribe),
        1 => suback(version, PacketType::SubAck).prop_map(Packet::SubAck),
        1 => suback(version, PacketType::UnsubAck).prop_map(Packet::UnsubAck),
    ];
    let last = prop_oneof![
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        disconnect(version).prop_map(Packet::Disconnect),
    ];
    match version {
        Version::V3 => prop_oneof![8 => common, 1 => last].boxed(),
        Version::V5 => prop_oneof![8 => common, 1 => last, 1 => auth().prop_map(Packet::Auth)].boxed(),
    }
}

prop_compose! {
    fn connect(version: Version)(
        clean_start in any::<bool>(),
        keep_alive_s in any::<u16>(),
        properties in properties(version, Place::of(PacketType::Connect)),
        client_id in text(),
        will in option::of(will(version)),
        username in option::of(text()),
        password in option::of(data()),
    ) -> Connect<'static> {
        let v5 = version == Version::V5;
        Connect {
            is_mqisdp: false,
version,
            clean_start: clean_start || (!v5 && client_id.is_empty()),
            keep_alive_s,
            properties,
            client_id,
            will,
            username,
            password: password.filter(|_| v5 || username.is_some()),
        }
    }
}

prop_compose! {
    fn will(version: Version)(
        qos in qos(),
        retain in any::<bool>(),
        properties in properties(version, Place::WILL),
        topic in topic(),
        payload in data(),
    ) -> Will<'static> {
        Will { qos, retain, properties, topic, payload }
    }
}

prop_compose! {
    fn connack(version: Version)(
        session_present in any::<bool>(),
        reason in reason(PacketType::ConnAck, version),
        properties in properties(version, Place::of(PacketType::ConnAck)),
    ) -> ConnAck<'static> {
        ConnAck { session_present: session_present && !reason.is_error(), reason, properties }
    }
}

prop_compose! {
    /// Any valid PUBLISH.
    pub(super) fn publish(version: Version)(
        dup in any::<bool>(),
        qos in qos(),
        retain in any::<bool>(),
        topic in topic(),
        by_alias in proptest::bool::weighted(0.3),
        id in packet_id(),
        properties in properties(version, Place::of(PacketType::Publish)),
        payload in data(),
    ) -> Publish<'static> {
        let at_least_once = qos != QoS::AtMostOnce;
        Publish {
            dup: dup && at_least_once,
            qos,
            retain,
            topic: if by_alias && properties.topic_alias().is_some() { "" } else { topic },
            packet_id: at_least_once.then_some(id),
            properties,
            payload,
        }
    }
}

prop_compose! {
    fn ack(version: Version, packet: PacketType)(
        packet_id in packet_id(),
        reason in reason(packet, version),
        properties in properties(version, Place::of(packet)),
    ) -> Ack<'static> {
        Ack { packet_id, reason, properties }
    }
}

fn options(version: Version) -> impl Strategy<Value = SubscribeOptions> {
    let handling = select(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]);
    (qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(qos, no_local, retain_as_published, handling)| match version {
            Version::V3 => SubscribeOptions::at(qos),
            Version::V5 => SubscribeOptions { qos, no_local, retain_as_published, retain_handling: handling },
        },
    )
}

prop_compose! {
    fn subscribe(version: Version)(
        packet_id in packet_id(),
        properties in properties(version, Place::of(PacketType::Subscribe)),
        filters in vec((filter(), options(version)), 1..5),
    ) -> Subscribe<'static> {
        let list = Box::leak(Box::new(SubscribeFiltersBuf::default()));
        for (filter, mut options) in filters {
            options.no_local &= !filter.starts_with("$share/");
            list.push(filter, options).unwrap();
        }
        Subscribe { packet_id, properties, filters: list.as_filters() }
    }
}

prop_compose! {
    fn unsubscribe(version: Version)(
        packet_id in packet_id(),
        properties in properties(version, Place::of(PacketType::Unsubscribe)),
        filters in vec(filter(), 1..5),
    ) -> Unsubscribe<'static> {
        let list = Box::leak(Box::new(UnsubscribeFiltersBuf::default()));
        for filter in filters {
            list.push(filter).unwrap();
        }
        Unsubscribe { packet_id, properties, filters: list.as_filters() }
    }
}

fn granted(version: Version, packet: PacketType) -> BoxedStrategy<Vec<u8>> {
    match (version, packet) {
        (Version::V3, PacketType::UnsubAck) => Just(Vec::new()).boxed(),
        (Version::V3, _) => vec(select(&[0u8, 1, 2, 0x80]), 1..6).boxed(),
        (Version::V5, _) => vec(reason(packet, version).prop_map(|reason| reason as u8), 1..6).boxed(),
    }
}

prop_compose! {
    fn suback(version: Version, packet: PacketType)(
        packet_id in packet_id(),
        properties in properties(version, Place::of(packet)),
        reasons in granted(version, packet),
    ) -> SubAck<'static> {
        SubAck { packet_id, properties, reasons: leak_bytes(reasons) }
    }
}

prop_compose! {
    fn disconnect(version: Version)(
        reason in reason(PacketType::Disconnect, version),
        properties in properties(version, Place::of(PacketType::Disconnect)),
    ) -> Disconnect<'static> {
        Disconnect { reason, properties }
    }
}

prop_compose! {
    fn auth()(
        reason in reason(PacketType::Auth, Version::V5),
        method in text(),
        properties in properties(Version::V5, Place::of(PacketType::Auth)),
    ) -> Auth<'static> {
        let alone = properties.is_empty() && reason == ReasonCode::Success;
        if alone || properties.authentication_method().is_some() {
            return Auth { reason, properties };
        }
        let named = properties.iter().chain([Property::AuthenticationMethod(method)]).collect::<PropertiesBuf>();
        Auth { reason, properties: Box::leak(Box::new(named)).as_properties() }
    }
}
