//! Packets in, bytes out.
//!
//! Lengths are computed first, so that every packet is written in one pass. The caller keeps packets within
//! [`PACKET_BYTES_MAX`](super::PACKET_BYTES_MAX) and strings within 65,535 bytes.

use super::wire::{varint_len, write_data, write_varint};
use super::{
    Ack, Auth, ConnAck, Connect, Disconnect, PLAIN_ACK_BYTES, Packet, PacketId, PacketType, Properties,
    Publish, QoS, ReasonCode, SubAck, Subscribe, Unsubscribe, Version,
};

impl Packet<'_> {
    /// Appends the packet to `out`.
    ///
    /// In 3.1.1 properties and reasons that have no place are left out, and an AUTH is nothing at all. A CONNECT is
    /// encoded in the version that it names.
    ///
    /// # Panics
    /// If the packet exceeds what MQTT can express, or a string exceeds 65,535 bytes.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Packet::Connect(packet) => connect(packet, out),
            Packet::ConnAck(packet) => connack(packet, version, out),
            Packet::Publish(packet) => encode_publish(packet, version, out),
            Packet::PubAck(packet)
            | Packet::PubRec(packet)
            | Packet::PubRel(packet)
            | Packet::PubComp(packet) => {
                ack(self.packet_type(), packet, version, out);
            }
            Packet::Subscribe(packet) => subscribe(packet, version, out),
            Packet::SubAck(packet) => suback(packet, version, out),
            Packet::Unsubscribe(packet) => unsubscribe(packet, version, out),
            Packet::UnsubAck(packet) => unsuback(packet, version, out),
            Packet::PingReq => header(PacketType::PingReq, 0, out),
            Packet::PingResp => header(PacketType::PingResp, 0, out),
            Packet::Disconnect(packet) => disconnect(packet, version, out),
            Packet::Auth(packet) => auth(packet, version, out),
        }
    }
}

/// Appends a PUBLISH to `out`.
///
/// # Panics
/// If the packet exceeds what MQTT can express, the topic exceeds 65,535 bytes, or a packet id is missing at QoS 1 or 2.
pub fn encode_publish(packet: &Publish<'_>, version: Version, out: &mut Vec<u8>) {
    write_publish(packet, version, out);
}

/// Appends a PUBLISH and tells where its packet id lies, counted from where the PUBLISH begins.
pub(super) fn write_publish(packet: &Publish<'_>, version: Version, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let id_len = if packet.qos == QoS::AtMostOnce { 0 } else { 2 };
    let len =
        2 + packet.topic.len() + id_len + properties_len(packet.properties, version) + packet.payload.len();
    // Exactly: a frame made of it then needs no second allocation.
    out.reserve(1 + varint_len(remaining(len)) + len);
    let flags = (packet.dup as u8) << 3 | (packet.qos as u8) << 1 | packet.retain as u8;
    out.push((PacketType::Publish as u8) << 4 | flags);
    write_varint(out, remaining(len));
    write_data(out, packet.topic.as_bytes());
    let id_at = out.len() - start;
    if packet.qos != QoS::AtMostOnce {
        let id = packet.packet_id.expect("a PUBLISH of QoS 1 or 2 has a packet id");
        out.extend_from_slice(&id.get().to_be_bytes());
    }
    write_properties(packet.properties, version, out);
    out.extend_from_slice(packet.payload);
    id_at
}

fn remaining(len: usize) -> u32 {
    u32::try_from(len).expect("a packet is within PACKET_BYTES_MAX")
}

fn first_byte(packet_type: PacketType) -> u8 {
    let flags = match packet_type {
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 2,
        _ => 0,
    };
    (packet_type as u8) << 4 | flags
}

fn header(packet_type: PacketType, len: usize, out: &mut Vec<u8>) {
    out.push(first_byte(packet_type));
    write_varint(out, remaining(len));
}

fn properties_len(properties: Properties<'_>, version: Version) -> usize {
    match version {
        Version::V3 => 0,
        Version::V5 => {
            let len = properties.as_bytes().len();
            varint_len(remaining(len)) + len
        }
    }
}

// [MQTT-2.2.2-1]
fn write_properties(properties: Properties<'_>, version: Version, out: &mut Vec<u8>) {
    if version == Version::V5 {
        write_varint(out, remaining(properties.as_bytes().len()));
        out.extend_from_slice(properties.as_bytes());
    }
}

fn connect(packet: &Connect<'_>, out: &mut Vec<u8>) {
    let version = packet.version;
    let (name, level): (&[u8], u8) = match version {
        Version::V3 if packet.is_mqisdp => (b"MQIsdp", 3),
        Version::V3 => (b"MQTT", 4),
        Version::V5 => (b"MQTT", 5),
    };
    let mut len = 6 + name.len() + properties_len(packet.properties, version) + 2 + packet.client_id.len();
    let mut flags = (packet.clean_start as u8) << 1;
    if let Some(will) = &packet.will {
        len += properties_len(will.properties, version) + 2 + will.topic.len() + 2 + will.payload.len();
        flags |= 0b100 | (will.qos as u8) << 3 | (will.retain as u8) << 5;
    }
    if let Some(username) = packet.username {
        len += 2 + username.len();
        flags |= 0x80;
    }
    if let Some(password) = packet.password {
        len += 2 + password.len();
        flags |= 0x40;
    }
    header(PacketType::Connect, len, out);
    write_data(out, name);
    out.push(level);
    out.push(flags);
    out.extend_from_slice(&packet.keep_alive_s.to_be_bytes());
    write_properties(packet.properties, version, out);
    write_data(out, packet.client_id.as_bytes());
    if let Some(will) = &packet.will {
        write_properties(will.properties, version, out);
        write_data(out, will.topic.as_bytes());
        write_data(out, will.payload);
    }
    if let Some(username) = packet.username {
        write_data(out, username.as_bytes());
    }
    if let Some(password) = packet.password {
        write_data(out, password);
    }
}

fn connack(packet: &ConnAck<'_>, version: Version, out: &mut Vec<u8>) {
    const SERVER_UNAVAILABLE: u8 = 3;
    header(PacketType::ConnAck, 2 + properties_len(packet.properties, version), out);
    out.push(packet.session_present as u8);
    out.push(match version {
        Version::V3 => packet.reason.connack_v3().unwrap_or(SERVER_UNAVAILABLE),
        Version::V5 => packet.reason as u8,
    });
    write_properties(packet.properties, version, out);
}

/// An acknowledgement without a reason, of whatever version: nearly all that are sent.
#[inline]
pub fn plain_ack(packet_type: PacketType, packet_id: PacketId) -> [u8; PLAIN_ACK_BYTES] {
    let [high, low] = packet_id.get().to_be_bytes();
    [first_byte(packet_type), 2, high, low]
}

fn ack(packet_type: PacketType, packet: &Ack<'_>, version: Version, out: &mut Vec<u8>) {
    if packet.reason == ReasonCode::Success && packet.properties.is_empty() {
        return out.extend_from_slice(&plain_ack(packet_type, packet.packet_id));
    }
    let tail = Tail::of(packet.reason, packet.properties, version);
    header(packet_type, 2 + tail.len(), out);
    out.extend_from_slice(&packet.packet_id.get().to_be_bytes());
    tail.write(out);
}

fn disconnect(packet: &Disconnect<'_>, version: Version, out: &mut Vec<u8>) {
    let tail = Tail::of(packet.reason, packet.properties, version);
    header(PacketType::Disconnect, tail.len(), out);
    tail.write(out);
}

fn auth(packet: &Auth<'_>, version: Version, out: &mut Vec<u8>) {
    if version == Version::V3 {
        return;
    }
    let tail = match Tail::of(packet.reason, packet.properties, version) {
        Tail::Reason(reason) => Tail::Both(reason, Properties::EMPTY), // AUTH may leave out both or nothing
        other => other,
    };
    header(PacketType::Auth, tail.len(), out);
    tail.write(out);
}

/// A reason code and properties, as far as they have to be written.
enum Tail<'a> {
    Nothing,
    Reason(ReasonCode),
    Both(ReasonCode, Properties<'a>),
}

impl<'a> Tail<'a> {
    fn of(reason: ReasonCode, properties: Properties<'a>, version: Version) -> Tail<'a> {
        match version {
            Version::V3 => Tail::Nothing,
            Version::V5 if !properties.is_empty() => Tail::Both(reason, properties),
            Version::V5 if reason != ReasonCode::Success => Tail::Reason(reason),
            Version::V5 => Tail::Nothing,
        }
    }

    fn len(&self) -> usize {
        match self {
            Tail::Nothing => 0,
            Tail::Reason(_) => 1,
            Tail::Both(_, properties) => 1 + properties_len(*properties, Version::V5),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Tail::Nothing => {}
            Tail::Reason(reason) => out.push(reason as u8),
            Tail::Both(reason, properties) => {
                out.push(reason as u8);
                write_properties(properties, Version::V5, out);
            }
        }
    }
}

fn subscribe(packet: &Subscribe<'_>, version: Version, out: &mut Vec<u8>) {
    let filters = packet.filters.as_bytes();
    header(PacketType::Subscribe, 2 + properties_len(packet.properties, version) + filters.len(), out);
    out.extend_from_slice(&packet.packet_id.get().to_be_bytes());
    write_properties(packet.properties, version, out);
    for (filter, options) in packet.filters.iter() {
        write_data(out, filter.as_bytes());
        out.push(options.to_byte(version));
    }
}

fn unsubscribe(packet: &Unsubscribe<'_>, version: Version, out: &mut Vec<u8>) {
    let filters = packet.filters.as_bytes();
    header(PacketType::Unsubscribe, 2 + properties_len(packet.properties, version) + filters.len(), out);
    out.extend_from_slice(&packet.packet_id.get().to_be_bytes());
    write_properties(packet.properties, version, out);
    out.extend_from_slice(filters);
}

fn suback(packet: &SubAck<'_>, version: Version, out: &mut Vec<u8>) {
    header(PacketType::SubAck, 2 + properties_len(packet.properties, version) + packet.reasons.len(), out);
    out.extend_from_slice(&packet.packet_id.get().to_be_bytes());
    write_properties(packet.properties, version, out);
    out.extend(packet.reasons.iter().map(|&code| match version {
        Version::V3 if code >= 0x80 => 0x80, // 3.1.1 knows one failure only
        _ => code,
    }));
}

fn unsuback(packet: &SubAck<'_>, version: Version, out: &mut Vec<u8>) {
    let reasons = match version {
        Version::V3 => &[],
        Version::V5 => packet.reasons,
    };
    header(PacketType::UnsubAck, 2 + properties_len(packet.properties, version) + reasons.len(), out);
    out.extend_from_slice(&packet.packet_id.get().to_be_bytes());
    write_properties(packet.properties, version, out);
    out.extend_from_slice(reasons);
}
