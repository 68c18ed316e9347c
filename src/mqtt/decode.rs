//! Bytes in, packets out; strict, borrowed, without allocating.

use super::property::Place;
use super::text::check_topic_bytes;
use super::wire::{Reader, Varint, read_varint};
use super::{
    Ack, Auth, ConnAck, Connect, Disconnect, Limits, Packet, PacketId, PacketType, Properties, Publish, QoS,
    ReasonCode, SubAck, Subscribe, SubscribeFilters, Unsubscribe, UnsubscribeFilters, Version, Violation,
    Will,
};

/// Decodes the packet at the start of `input` and tells how many bytes it took; nothing if more bytes are needed.
///
/// The version is ignored for CONNECT, which names its own. After an error the input is not to be used further.
///
/// # Errors
/// The first violation, as soon as the bytes that show it are there.
pub fn decode<'a>(
    input: &'a [u8],
    version: Version,
    limits: &Limits,
) -> Result<Option<(Packet<'a>, usize)>, Violation> {
    decode_after(input, version, limits, "")
}

/// As [`decode`], for one whose sender published to a topic `before`, or to none if that is empty: most publish to one topic
/// many times, and it need not be checked again.
///
/// # Errors
/// As [`decode`].
#[inline]
pub fn decode_after<'a>(
    input: &'a [u8],
    version: Version,
    limits: &Limits,
    before: &'a str,
) -> Result<Option<(Packet<'a>, usize)>, Violation> {
    let Some((&first, rest)) = input.split_first() else { return Ok(None) };
    let packet_type = check_first_byte(first, version, limits)?;
    let (remaining, header_len) = match read_varint(rest) {
        Varint::Whole(value, len) => (value as usize, 1 + len),
        Varint::Incomplete => return Ok(None),
        Varint::TooLong => return Err(Violation::RemainingLengthTooLong),
        Varint::NotMinimal => return Err(Violation::RemainingLengthNotMinimal), // [MQTT-1.5.5-1]
    };
    let packet_len = header_len + remaining;
    if packet_len > limits.packet_bytes_max {
        // [MQTT-3.2.2-15]
        return Err(Violation::PacketTooLarge);
    }
    let Some(body) = input.get(header_len..packet_len) else { return Ok(None) };
    let body = Reader::new(body);
    let packet = match packet_type {
        PacketType::Publish => Packet::Publish(publish(first, body, version, before)?),
        PacketType::Connect => Packet::Connect(connect(first, body)?),
        _ => rare(packet_type, body, version)?,
    };
    Ok(Some((packet, packet_len)))
}

/// The id of a PUBACK without a reason at the start of `input`: most of what subscribers send, and worth no more than a look.
/// Whatever it is not, [`decode`] knows.
#[inline]
pub fn plain_puback(input: &[u8]) -> Option<PacketId> {
    match *input {
        [0x40, 2, high, low, ..] => PacketId::new(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// Where what differs lies in a PUBLISH without properties, to a topic that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainPublish {
    /// How many bytes the packet has.
    pub len: usize,
    /// Where the topic ends; at QoS 1 the packet id follows.
    pub topic_end: usize,
    /// At QoS 1.
    pub packet_id: Option<PacketId>,
}

/// The PUBLISH at the start of `input`, if it is whole, begins with this byte, goes to this topic, which is a valid one, and has
/// no properties. Most publish many times alike, and then it is worth no more than a look. The first byte is one of a first
/// PUBLISH of QoS 0 or 1 that is not to be retained. Whatever it is not, [`decode`] knows.
#[inline]
pub fn plain_publish(input: &[u8], first: u8, version: Version, topic: &str) -> Option<PlainPublish> {
    let (&byte, rest) = input.split_first()?;
    if byte != first {
        return None;
    }
    let Varint::Whole(remaining, header) = read_varint(rest) else { return None };
    let body = rest.get(header..header + remaining as usize)?;
    let (named, body) = body.split_at_checked(2 + topic.len())?;
    if named[..2] != (topic.len() as u16).to_be_bytes() || named[2..] != *topic.as_bytes() {
        return None;
    }
    let (packet_id, body) = match (first & 0b110, body) {
        (0, _) => (None, body),
        (_, [high, low, body @ ..]) => (Some(PacketId::new(u16::from_be_bytes([*high, *low]))?), body),
        _ => return None,
    };
    if version == Version::V5 && body.first() != Some(&0) {
        return None;
    }
    let (len, topic_end) = (1 + header + remaining as usize, 1 + header + named.len());
    Some(PlainPublish { len, topic_end, packet_id })
}

/// How long a [`plain_puback`] is.
pub const PLAIN_ACK_BYTES: usize = 4;

/// The version whose CONNACK the sender of this CONNECT understands best, also if the packet is malformed. None if it does not
/// get as far as a protocol that we know: who sends that is not a client of ours, or takes any CONNACK for malformed.
///
/// A level below 5, and the name of 3.1, get the two-byte CONNACK of 3.1.1, and so does one above 5 whose CONNECT is written as
/// 3.1.1 has it; everything else that of 5.0. Bit 7 of the level, with which bridges present themselves, does not count.
pub fn connack_version(input: &[u8]) -> Option<Version> {
    if input.first().map(|first| first >> 4) != Some(PacketType::Connect as u8) {
        return None;
    }
    let Varint::Whole(remaining, len) = read_varint(input.get(1..)?) else { return None };
    let body = input.get(1 + len..)?;
    let mut reader = Reader::new(&body[..body.len().min(remaining as usize)]);
    match (reader.data().ok()?, reader.byte().ok()?) {
        (MQISDP, _) => Some(Version::V3),
        (MQTT, level) if level & 0x7f < 5 => Some(Version::V3),
        // [MQTT-3.1.2-2] v3
        (MQTT, level) if level & 0x7f > 5 && connect_as(Version::V3, false, reader).is_ok() => {
            Some(Version::V3)
        }
        (MQTT, _) => Some(Version::V5),
        _ => None, // [MQTT-3.1.2-1] [MQTT-3.1.4-1] v3
    }
}

/// Checks the type and the flags of the fixed header. [MQTT-2.1.3-1]
#[inline]
fn check_first_byte(first: u8, version: Version, limits: &Limits) -> Result<PacketType, Violation> {
    if first >> 4 == PacketType::Publish as u8 {
        return Ok(PacketType::Publish);
    }
    let (packet_type, flags) = match first >> 4 {
        1 => return Ok(PacketType::Connect), // its version says what its flags are
        2 => (PacketType::ConnAck, 0),
        4 => (PacketType::PubAck, 0),
        5 => (PacketType::PubRec, 0),
        6 => (PacketType::PubRel, 2), // [MQTT-3.6.1-1]
        7 => (PacketType::PubComp, 0),
        8 => (PacketType::Subscribe, 2), // [MQTT-3.8.1-1]
        9 => (PacketType::SubAck, 0),
        10 => (PacketType::Unsubscribe, 2), // [MQTT-3.10.1-1]
        11 => (PacketType::UnsubAck, 0),
        12 => (PacketType::PingReq, 0),
        13 => (PacketType::PingResp, 0),
        14 => (PacketType::Disconnect, 0), // [MQTT-3.14.1-1]
        15 if version == Version::V5 => (PacketType::Auth, 0), // [MQTT-3.15.1-1]
        _ => return Err(Violation::ReservedPacketType),
    };
    // PUBLISH left above: what else has flags is a request.
    let is_again = limits.dup_requests && flags == 2 && first & 0x0f == 0b1010;
    if first & 0x0f != flags && !is_again {
        return Err(Violation::ReservedFlags(packet_type)); // [MQTT-2.2.2-2] v3
    }
    Ok(packet_type)
}

#[inline]
// [MQTT-3.3.2-1]
fn publish<'a>(
    first: u8,
    mut body: Reader<'a>,
    version: Version,
    before: &'a str,
) -> Result<Publish<'a>, Violation> {
    let qos = QoS::from_u8(first >> 1 & 0b11).ok_or(Violation::QoS3)?; // [MQTT-3.3.1-4]
    let (dup, retain) = (first & 0b1000 != 0, first & 0b1 != 0);
    if dup && qos == QoS::AtMostOnce {
        return Err(Violation::DupWithQoS0); // [MQTT-3.3.1-2]
    }
    let topic = body.data()?;
    let topic = if topic == before.as_bytes() { before } else { check_topic_bytes(topic)? };
    let packet_id = match qos {
        // [MQTT-2.2.1-2]
        QoS::AtMostOnce => None,
        _ => Some(body.packet_id()?),
    };
    let properties = properties(&mut body, version, PacketType::Publish)?;
    if topic.is_empty() && properties.topic_alias().is_none() {
        return Err(Violation::EmptyTopicName);
    }
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload: body.rest() })
}

/// Every packet but CONNECT and PUBLISH.
fn rare<'a>(packet_type: PacketType, body: Reader<'a>, version: Version) -> Result<Packet<'a>, Violation> {
    Ok(match packet_type {
        PacketType::ConnAck => Packet::ConnAck(connack(body, version)?),
        PacketType::Connect | PacketType::Publish => unreachable!("it is decoded by its own function"),
        PacketType::PubAck => Packet::PubAck(ack(packet_type, body, version)?),
        PacketType::PubRec => Packet::PubRec(ack(packet_type, body, version)?),
        PacketType::PubRel => Packet::PubRel(ack(packet_type, body, version)?),
        PacketType::PubComp => Packet::PubComp(ack(packet_type, body, version)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe(body, version)?),
        PacketType::SubAck => Packet::SubAck(suback(packet_type, body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe(body, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(suback(packet_type, body, version)?),
        PacketType::PingReq => body.end().map(|()| Packet::PingReq)?,
        PacketType::PingResp => body.end().map(|()| Packet::PingResp)?,
        PacketType::Disconnect => Packet::Disconnect(disconnect(body, version)?),
        PacketType::Auth => Packet::Auth(auth(body)?),
    })
}

#[inline]
fn properties<'a>(
    body: &mut Reader<'a>,
    version: Version,
    packet_type: PacketType,
) -> Result<Properties<'a>, Violation> {
    match version {
        Version::V3 => Ok(Properties::EMPTY),
        Version::V5 => Properties::read(body, Place::of(packet_type)),
    }
}

fn reason(code: u8, packet_type: PacketType) -> Result<ReasonCode, Violation> {
    ReasonCode::from_u8(code)
        // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
        .filter(|reason| reason.is_allowed_in(packet_type))
        .ok_or(Violation::ReasonCodeInvalid(packet_type, code))
}

/// The name of MQTT 3.1.
const MQISDP: &[u8] = b"MQIsdp";
const MQTT: &[u8] = b"MQTT";

fn connect(first: u8, mut body: Reader<'_>) -> Result<Connect<'_>, Violation> {
    let name = body.data()?;
    let level = body.byte()?;
    let is_mqisdp = (name, level) == (MQISDP, 3);
    let version = match (name, level) {
        (MQTT, 4) => Version::V3,
        (MQTT, 5) => Version::V5,
        _ if is_mqisdp => Version::V3,
        // [MQTT-3.1.2-2] [MQTT-3.1.2-2] v3
        (MQTT | MQISDP, level) => return Err(Violation::UnsupportedProtocolVersion(level)),
        _ => return Err(Violation::ProtocolNameInvalid), // [MQTT-3.1.2-1]
    };
    // 3.1 does not use them.
    if first & 0x0f != 0 && !is_mqisdp {
        return Err(Violation::ReservedFlags(PacketType::Connect));
    }
    connect_as(version, is_mqisdp, body)
}

/// What follows the level.
fn connect_as(version: Version, is_mqisdp: bool, mut body: Reader<'_>) -> Result<Connect<'_>, Violation> {
    let flags = body.byte()?;
    let has = |bit: u8| flags & bit != 0;
    if has(0b1) {
        return Err(Violation::ConnectReservedFlag); // [MQTT-3.1.2-3]
    }
    let will_qos = QoS::from_u8(flags >> 3 & 0b11).ok_or(Violation::WillQoS3)?; // [MQTT-3.1.2-12]
    if !has(0b100) && will_qos != QoS::AtMostOnce {
        return Err(Violation::WillQoSWithoutWill); // [MQTT-3.1.2-11]
    }
    if !has(0b100) && has(0b10_0000) {
        return Err(Violation::WillRetainWithoutWill); // [MQTT-3.1.2-13]
    }
    if version == Version::V3 && has(0x40) && !has(0x80) {
        // [MQTT-3.1.2-22] v3
        return Err(Violation::PasswordWithoutUsername);
    }
    let (clean_start, keep_alive_s) = (has(0b10), body.u16()?);
    let properties = properties(&mut body, version, PacketType::Connect)?;
    // [MQTT-3.1.3-3] [MQTT-3.1.3-4]
    let client_id = body.text()?;
    if version == Version::V3 && client_id.is_empty() && (!clean_start || is_mqisdp) {
        // [MQTT-3.1.3-8] v3; 3.1 knows no empty identifier.
        return Err(Violation::ClientIdEmpty);
    }
    // [MQTT-3.1.2-9] [MQTT-3.1.3-1]
    let will = if has(0b100) { Some(will(&mut body, version, will_qos, has(0b10_0000))?) } else { None };
    // Its flag stands and it is not there: 3.1 allows that.
    let is_over = |body: &Reader| is_mqisdp && body.is_empty();
    // [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.3-12]
    let username = if has(0x80) && !is_over(&body) { Some(body.text()?) } else { None };
    // [MQTT-3.1.2-18] [MQTT-3.1.2-19]
    let password = if has(0x40) && !is_over(&body) { Some(body.data()?) } else { None };
    body.end()?;
    Ok(Connect {
        version,
        is_mqisdp,
        clean_start,
        keep_alive_s,
        properties,
        client_id,
        will,
        username,
        password,
    })
}

fn will<'a>(body: &mut Reader<'a>, version: Version, qos: QoS, retain: bool) -> Result<Will<'a>, Violation> {
    let properties = match version {
        Version::V3 => Properties::EMPTY,
        Version::V5 => Properties::read(body, Place::WILL)?,
    };
    let topic = check_topic_bytes(body.data()?)?;
    if topic.is_empty() {
        // [MQTT-3.1.3-11]
        return Err(Violation::WillTopicEmpty);
    }
    Ok(Will { qos, retain, properties, topic, payload: body.data()? })
}

fn connack(mut body: Reader<'_>, version: Version) -> Result<ConnAck<'_>, Violation> {
    let (flags, code) = (body.byte()?, body.byte()?);
    if flags > 1 {
        return Err(Violation::ConnAckReservedFlags); // [MQTT-3.2.2-1]
    }
    let reason = match version {
        Version::V3 => ReasonCode::from_connack_v3(code)
            .ok_or(Violation::ReasonCodeInvalid(PacketType::ConnAck, code))?,
        Version::V5 => reason(code, PacketType::ConnAck)?, // [MQTT-3.2.2-8]
    };
    let session_present = flags == 1;
    if session_present && reason != ReasonCode::Success {
        return Err(Violation::SessionPresentOnError); // [MQTT-3.2.2-6]
    }
    let properties = properties(&mut body, version, PacketType::ConnAck)?;
    body.end()?;
    Ok(ConnAck { session_present, reason, properties })
}

fn ack(packet_type: PacketType, mut body: Reader<'_>, version: Version) -> Result<Ack<'_>, Violation> {
    let packet_id = body.packet_id()?;
    let (reason, properties) = match version {
        Version::V3 => (ReasonCode::Success, Properties::EMPTY),
        Version::V5 => reason_and_properties(&mut body, packet_type)?,
    };
    body.end()?;
    Ok(Ack { packet_id, reason, properties })
}

/// A reason code and properties that may be left out from the end.
fn reason_and_properties<'a>(
    body: &mut Reader<'a>,
    packet_type: PacketType,
) -> Result<(ReasonCode, Properties<'a>), Violation> {
    if body.is_empty() {
        return Ok((ReasonCode::Success, Properties::EMPTY));
    }
    let reason = reason(body.byte()?, packet_type)?;
    if body.is_empty() {
        return Ok((reason, Properties::EMPTY));
    }
    Ok((reason, Properties::read(body, Place::of(packet_type))?))
}

fn subscribe(mut body: Reader<'_>, version: Version) -> Result<Subscribe<'_>, Violation> {
    let packet_id = body.packet_id()?;
    let properties = properties(&mut body, version, PacketType::Subscribe)?;
    Ok(Subscribe { packet_id, properties, filters: SubscribeFilters::read(body, version)? })
}

fn unsubscribe(mut body: Reader<'_>, version: Version) -> Result<Unsubscribe<'_>, Violation> {
    let packet_id = body.packet_id()?;
    let properties = properties(&mut body, version, PacketType::Unsubscribe)?;
    Ok(Unsubscribe { packet_id, properties, filters: UnsubscribeFilters::read(body)? })
}

fn suback(packet_type: PacketType, mut body: Reader<'_>, version: Version) -> Result<SubAck<'_>, Violation> {
    let packet_id = body.packet_id()?;
    let properties = properties(&mut body, version, packet_type)?;
    let reasons = body.rest();
    if version == Version::V3 && packet_type == PacketType::UnsubAck {
        body.end()?;
    } else if reasons.is_empty() {
        return Err(Violation::SubAckEmpty);
    }
    for &code in reasons {
        match version {
            Version::V3 if matches!(code, 0..=2 | 0x80) => {} // [MQTT-3.9.3-2] v3
            Version::V3 => return Err(Violation::ReasonCodeInvalid(packet_type, code)),
            Version::V5 => reason(code, packet_type).map(|_| ())?, // [MQTT-3.9.3-2] [MQTT-3.11.3-2]
        }
    }
    Ok(SubAck { packet_id, properties, reasons })
}

fn disconnect(mut body: Reader<'_>, version: Version) -> Result<Disconnect<'_>, Violation> {
    let (reason, properties) = match version {
        Version::V3 => (ReasonCode::Success, Properties::EMPTY),
        Version::V5 => reason_and_properties(&mut body, PacketType::Disconnect)?, // [MQTT-3.14.2-1]
    };
    body.end()?;
    Ok(Disconnect { reason, properties })
}

fn auth(mut body: Reader<'_>) -> Result<Auth<'_>, Violation> {
    if body.is_empty() {
        return Ok(Auth { reason: ReasonCode::Success, properties: Properties::EMPTY });
    }
    let reason = reason(body.byte()?, PacketType::Auth)?; // [MQTT-3.15.2-1]
    let properties = Properties::read(&mut body, Place::of(PacketType::Auth))?;
    body.end()?;
    if properties.authentication_method().is_none() {
        return Err(Violation::AuthenticationMethodMissing);
    }
    Ok(Auth { reason, properties })
}
