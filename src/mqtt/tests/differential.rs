//! Two codecs that others wrote, asked about the same bytes.
//!
//! What ours accepts they must accept and understand alike; what ours refuses they must refuse. Where they do not,
//! they are wrong by the specification, and the lists here say so case by case: a new version of theirs that changes
//! its mind makes these tests fail, and a mistake of ours would have to be shared by both.

use super::super::*;
use super::malformed::cases;
use super::{arbitrary, round_trip};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder, PacketData, RawPacket};
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use proptest::prelude::*;
use rmqtt_codec::{MqttCodec, v3, v5};
use tokio_util::codec::{Decoder, Encoder};

/// Another codec's verdict: nothing if it refuses or waits for more, otherwise how it would send the packet itself.
type Verdict = Option<Vec<u8>>;

/// The verdict of mqtt-protocol-core.
fn protocol_core(bytes: &[u8], version: Version) -> Verdict {
    let mut builder = PacketBuilder::new();
    let raw = match builder.feed(&mut Cursor::new(bytes)) {
        PacketBuildResult::Complete(raw) => raw,
        PacketBuildResult::Incomplete | PacketBuildResult::Error(_) => return None,
    };
    match version {
        Version::V3 => protocol_core_v3(&raw),
        Version::V5 => protocol_core_v5(&raw),
    }
}

macro_rules! protocol_core_packets {
    ($name:ident, $module:ident, $($number:literal => $packet:ident),*) => {
        fn $name(raw: &RawPacket) -> Verdict {
            if let PacketData::Publish(body) = &raw.data {
                let (packet, _) = $module::Publish::parse(raw.flags(), body.clone()).ok()?;
                return Some(packet.to_continuous_buffer());
            }
            match raw.packet_type() {
                $($number => raw.parse_exact($module::$packet::parse).ok().map(|packet| packet.to_continuous_buffer()),)*
                _ => None,
            }
        }
    };
}

protocol_core_packets! { protocol_core_v3, v3_1_1,
    1 => Connect, 2 => Connack, 4 => Puback, 5 => Pubrec, 6 => Pubrel, 7 => Pubcomp, 8 => Subscribe, 9 => Suback,
    10 => Unsubscribe, 11 => Unsuback, 12 => Pingreq, 13 => Pingresp, 14 => Disconnect
}

protocol_core_packets! { protocol_core_v5, v5_0,
    1 => Connect, 2 => Connack, 4 => Puback, 5 => Pubrec, 6 => Pubrel, 7 => Pubcomp, 8 => Subscribe, 9 => Suback,
    10 => Unsubscribe, 11 => Unsuback, 12 => Pingreq, 13 => Pingresp, 14 => Disconnect, 15 => Auth
}

/// The verdict of rmqtt-codec.
fn rmqtt(bytes: &[u8], version: Version) -> Verdict {
    let codec = || match version {
        Version::V3 => MqttCodec::V3(v3::Codec::new(0)),
        Version::V5 => MqttCodec::V5(v5::Codec::new(0, 0)),
    };
    let (packet, _) = codec().decode(&mut bytes.into()).ok()??;
    let mut out = bytes::BytesMut::new();
    codec().encode(packet, &mut out).expect("it can encode what it decoded");
    Some(out.to_vec())
}

/// Tells whether a property says no more than its absence would; rmqtt-codec leaves these out.
fn states_the_default(property: &Property<'_>) -> bool {
    use Property::*;
    matches!(
        property,
        PayloadFormatIndicator(0)
            | RequestProblemInformation(1)
            | RequestResponseInformation(0)
            | ReceiveMaximum(u16::MAX)
            | TopicAliasMaximum(0)
            | SessionExpiryInterval(0)
            | RetainAvailable(1)
            | WildcardSubscriptionAvailable(1)
            | SubscriptionIdentifierAvailable(1)
            | SharedSubscriptionAvailable(1)
    )
}

/// A packet without its properties, and these in an order that does not depend on who wrote them.
fn parts(mut packet: Packet<'_>) -> (String, Vec<String>) {
    let mut sorted = Vec::new();
    let mut take = |properties: &mut Properties<'_>| {
        let telling = properties.iter().filter(|property| !states_the_default(property));
        sorted.extend(telling.map(|property| format!("{property:?}")));
        *properties = Properties::EMPTY;
    };
    match &mut packet {
        Packet::Connect(packet) => {
            take(&mut packet.properties);
            packet.will.iter_mut().for_each(|will| take(&mut will.properties));
        }
        Packet::ConnAck(packet) => take(&mut packet.properties),
        Packet::Publish(packet) => take(&mut packet.properties),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            take(&mut ack.properties);
        }
        Packet::Subscribe(packet) => take(&mut packet.properties),
        Packet::SubAck(packet) | Packet::UnsubAck(packet) => take(&mut packet.properties),
        Packet::Unsubscribe(packet) => take(&mut packet.properties),
        Packet::Disconnect(packet) => take(&mut packet.properties),
        Packet::Auth(packet) => take(&mut packet.properties),
        Packet::PingReq | Packet::PingResp => {}
    }
    sorted.sort();
    (format!("{packet:?}"), sorted)
}

/// Another codec, and where it is wrong by the specification.
struct Other {
    judge: fn(&[u8], Version) -> Verdict,
    /// Tells whether it refuses this packet or garbles it, wrongly.
    fails_at: fn(&Packet<'_>) -> bool,
    /// What it accepts of the table of malformed packets.
    accepts: &'static [&'static str],
}

impl Other {
    /// Tells whether it is known not to see this violation, somewhere at least.
    fn misses(&self, violation: Violation) -> bool {
        let name = violation.name();
        cases().iter().any(|case| case.violation.name() == name && self.accepts.contains(&case.what))
    }

    fn compare(&self, bytes: &[u8], version: Version) -> Result<(), TestCaseError> {
        // A CONNECT names its version; the others have a parser for each.
        let version = if bytes.first() == Some(&0x10) { connack_version(bytes) } else { version };
        let verdict = (self.judge)(bytes, version);
        match decode(bytes, version, &Limits::default()) {
            Ok(Some((ours, _))) if (self.fails_at)(&ours) => {}
            Ok(Some((ours, _))) => {
                let Some(bytes) = verdict else {
                    return Err(TestCaseError::fail(format!("it refuses {ours:?}")));
                };
                match decode(&bytes, version, &Limits::default()) {
                    Ok(Some((theirs, _))) => prop_assert_eq!(parts(ours), parts(theirs)),
                    theirs => return Err(TestCaseError::fail(format!("it makes {theirs:?} of {ours:?}"))),
                }
            }
            Ok(None) => prop_assert!(verdict.is_none(), "it makes a packet of less"),
            Err(violation) if self.misses(violation) => {}
            Err(violation) => prop_assert!(verdict.is_none(), "it accepts {:?}", violation),
        }
        Ok(())
    }
}

const PROTOCOL_CORE: Other = Other {
    judge: protocol_core,
    fails_at: |packet| match packet {
        // MQTT 5.0 allows a password without a user name (3.1.2.9).
        Packet::Connect(connect) => connect.username.is_none() && connect.password.is_some(),
        // Table 2-6 has 0x8C in DISCONNECT, and 4.12.1 needs it there; section 3.14.2.1 forgets it.
        Packet::Disconnect(packet) => packet.reason == ReasonCode::BadAuthenticationMethod,
        _ => false,
    },
    accepts: PROTOCOL_CORE_ACCEPTS,
};

const RMQTT: Other = Other {
    judge: rmqtt,
    fails_at: |packet| match packet {
        // MQTT 5.0 assigns an identifier whether the start is clean or not (3.1.3.1).
        Packet::Connect(connect) => connect.client_id.is_empty() && !connect.clean_start,
        // It sends an AUTH that says nothing with a property list but without the method that this must have.
        Packet::Auth(auth) => auth.properties.is_empty(),
        _ => false,
    },
    accepts: RMQTT_ACCEPTS,
};

fn packet() -> impl Strategy<Value = (Version, Vec<u8>)> {
    arbitrary::version().prop_flat_map(|version| {
        (Just(version), arbitrary::packet(version)).prop_map(|(version, packet)| {
            let mut bytes = Vec::new();
            packet.encode(version, &mut bytes);
            (version, bytes)
        })
    })
}

fn damaged() -> impl Strategy<Value = (Version, Vec<u8>)> {
    arbitrary::version().prop_flat_map(|version| (Just(version), round_trip::damaged(version)))
}

proptest! {
    #[test]
    fn protocol_core_understands_what_we_send((version, bytes) in packet()) {
        PROTOCOL_CORE.compare(&bytes, version)?;
    }

    #[test]
    fn rmqtt_understands_what_we_send((version, bytes) in packet()) {
        RMQTT.compare(&bytes, version)?;
    }

    #[test]
    fn protocol_core_judges_damage_as_we_do((version, bytes) in damaged()) {
        PROTOCOL_CORE.compare(&bytes, version)?;
    }

    #[test]
    fn rmqtt_judges_damage_as_we_do((version, bytes) in damaged()) {
        RMQTT.compare(&bytes, version)?;
    }
}

/// What mqtt-protocol-core 0.7.9 accepts of the table of malformed packets. It leaves flags to another layer.
const PROTOCOL_CORE_ACCEPTS: &[&str] = &[
    "PUBACK with flags",
    "PUBREC with flags",
    "PUBREL without its flags",
    "PUBREL with QoS 2's flags",
    "PUBCOMP with flags",
    "SUBACK with flags",
    "UNSUBACK with flags",
    "PINGREQ with flags",
    "PINGRESP with flags",
    "DISCONNECT with flags",
    "AUTH with flags",
    "remaining length not minimal",
    "remaining length not minimal, v3",
    "PUBACK of 3.1.1 with a reason",
    "a topic with NUL",
    "a filter with NUL",
    "an unsubscribed filter with NUL",
    "a client id with NUL",
    "a user property with NUL",
    "a reason string with NUL",
    "no property length",
    "a property length not minimal",
    "two subscription ids in SUBSCRIBE",
    "a subscription id not minimal",
    "a response topic with wildcard",
    "a response topic with NUL",
    "a response topic in the Will with wildcard",
    "authentication data alone",
    "the reserved connect flag",
    "the reserved connect flag, v3",
    "Will QoS 3",
    "Will QoS without Will",
    "Will Retain without Will",
    "a Will topic with wildcard",
    "an empty Will topic",
    "no client id and no clean session in 3.1.1",
    "CONNACK with reserved flags",
    "CONNACK with reserved flags, v3",
    "a session present on refusal",
    "a session present on refusal, v3",
    "DUP with QoS 0",
    "DUP with QoS 0, v3",
    "packet id 0 at QoS 1",
    "packet id 0 at QoS 2, v3",
    "an empty topic without alias",
    "an empty topic in 3.1.1",
    "a topic with +",
    "a topic with # inside",
    "a topic with #, v3",
    "SUBSCRIBE with packet id 0",
    "UNSUBSCRIBE with packet id 0",
    "options of 5.0 in 3.1.1",
    "no local on a shared subscription",
    "an empty filter",
    "an empty filter to unsubscribe",
    "a filter with # inside",
    "a filter with # after text",
    "a filter with + after text",
    "a filter with + to unsubscribe",
    "a share without name, v3",
    "a share name with wildcard, v3",
    "a share without filter, v3",
    "a share with an empty filter",
    "a share with a malformed filter",
    "a SUBSCRIBE whose second filter is malformed",
    "SUBACK with packet id 0",
    "UNSUBACK with packet id 0",
];

/// What rmqtt-codec 0.3.1 accepts of the table of malformed packets.
const RMQTT_ACCEPTS: &[&str] = &[
    "remaining length not minimal",
    "remaining length not minimal, v3",
    "PINGREQ with a body",
    "PINGRESP with a body",
    "DISCONNECT of 3.1.1 with a body",
    "a topic with NUL",
    "a filter with NUL",
    "an unsubscribed filter with NUL",
    "a client id with NUL",
    "a user property with NUL",
    "a reason string with NUL",
    "no property length in AUTH",
    "a property length not minimal",
    "a subscription id not minimal",
    "a response topic with wildcard",
    "a response topic with NUL",
    "a response topic in the Will with wildcard",
    "maximum QoS 2",
    "authentication data alone",
    "AUTH without method",
    "Will QoS without Will",
    "Will Retain without Will",
    "a Will topic with wildcard",
    "an empty Will topic",
    "a password alone in 3.1.1",
    "CONNECT with bytes after its last field",
    "a session present on refusal",
    "a session present on refusal, v3",
    "DUP with QoS 0",
    "DUP with QoS 0, v3",
    "an empty topic without alias",
    "a topic with +",
    "a topic with # inside",
    "a topic with #, v3",
    "options of 5.0 in 3.1.1",
    "no local on a shared subscription",
    "an empty filter",
    "an empty filter to unsubscribe",
    "a filter with # inside",
    "a filter with # after text",
    "a filter with + after text",
    "a filter with + to unsubscribe",
    "a share without name",
    "a share without name, v3",
    "a share name with wildcard, v3",
    "a share without filter, v3",
    "a share name with wildcard",
    "a share without filter",
    "a share with an empty filter",
    "a share with a malformed filter",
    "a SUBSCRIBE whose second filter is malformed",
    "CONNACK of 3.1.1 with return code 6",
    "SUBACK without reasons",
    "SUBACK without reasons, v3",
    "UNSUBACK without reasons",
];

#[track_caller]
fn check_accepted(other: &Other) {
    let accepted = cases().into_iter().filter(|case| (other.judge)(&case.bytes, case.version).is_some());
    let accepted: Vec<&str> = accepted.map(|case| case.what).collect();
    assert_eq!(accepted, other.accepts, "malformed packets that the other codec accepts");
}

#[test]
fn protocol_core_accepts_of_the_table_what_is_listed() {
    check_accepted(&PROTOCOL_CORE);
}

#[test]
fn rmqtt_accepts_of_the_table_what_is_listed() {
    check_accepted(&RMQTT);
}
