//! Three codecs that others wrote, asked about the same bytes.
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
use rumqttc::mqttbytes::v4 as rumqttc_v3;
use rumqttc::v5::mqttbytes::v5 as rumqttc_v5;
use tokio_util::codec::{Decoder, Encoder};

mod accepted;

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

/// The verdict of rumqttc. It may panic, which is a refusal here.
fn rumqttc(bytes: &[u8], version: Version) -> Verdict {
    let (mut bytes, mut out) = (bytes::BytesMut::from(bytes), bytes::BytesMut::new());
    let judge = std::panic::AssertUnwindSafe(|| match version {
        Version::V3 => {
            let packet = rumqttc_v3::Packet::read(&mut bytes, usize::MAX).ok()?;
            packet.write(&mut out, usize::MAX).ok().map(|_| out.to_vec())
        }
        Version::V5 => {
            let packet = rumqttc_v5::Packet::read(&mut bytes, None).ok()?;
            packet.write(&mut out, None).ok().map(|_| out.to_vec())
        }
    });
    std::panic::catch_unwind(judge).ok().flatten()
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

const OTHERS: [&Other; 3] = [&PROTOCOL_CORE, &RMQTT, &RUMQTTC];

/// Another codec, and where it is wrong by the specification.
struct Other {
    name: &'static str,
    judge: fn(&[u8], Version) -> Verdict,
    /// Tells whether it refuses this packet or garbles it, wrongly.
    fails_at: fn(&Packet<'_>, Version) -> bool,
    /// The same in words, with what the specification says.
    fails: &'static [(&'static str, &'static str)],
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
        let version = connack_version(bytes).unwrap_or(version);
        let verdict = (self.judge)(bytes, version);
        match decode(bytes, version, &Limits::default()) {
            Ok(Some((ours, _))) if (self.fails_at)(&ours, version) => {}
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

/// A shared subscription whose name or filter is missing or not one: the broker refuses it alone.
fn is_badly_shared(filter: &str) -> bool {
    filter.starts_with("$share/") && SharedFilter::parse(filter).is_err()
}

const PROTOCOL_CORE: Other = Other {
    name: "mqtt-protocol-core 0.7.9",
    judge: protocol_core,
    fails_at: |packet, _| match packet {
        Packet::Connect(connect) => connect.username.is_none() && connect.password.is_some(),
        Packet::Disconnect(packet) => packet.reason == ReasonCode::BadAuthenticationMethod,
        Packet::Subscribe(packet) => packet.filters.iter().any(|(filter, _)| is_badly_shared(filter)),
        Packet::Unsubscribe(packet) => packet.filters.iter().any(is_badly_shared),
        _ => false,
    },
    fails: &[
        ("refuses a password without a user name in 5.0", "3.1.2.9 allows it"),
        (
            "refuses DISCONNECT with 0x8C",
            "table 2-6 has it and 4.12.1 needs it, though the table of 3.14.2.1 does not name it",
        ),
        (
            "refuses all of a SUBSCRIBE for the share name of one filter",
            "3.9.3: each filter has a code of its own, 0x8F for this one",
        ),
    ],
    accepts: accepted::PROTOCOL_CORE,
};

const RMQTT: Other = Other {
    name: "rmqtt-codec 0.3.1",
    judge: rmqtt,
    fails_at: |packet, _| match packet {
        Packet::Connect(connect) => connect.client_id.is_empty() && !connect.clean_start,
        Packet::Auth(auth) => auth.properties.is_empty(),
        _ => false,
    },
    fails: &[
        (
            "refuses 5.0's CONNECT without client identifier and clean start",
            "3.1.3.1 assigns an identifier either way",
        ),
        ("sends an AUTH that says nothing with properties but without a method", "3.15.2.2.2 wants one"),
    ],
    accepts: accepted::RMQTT,
};

const RUMQTTC: Other = Other {
    name: "rumqttc 0.25.1",
    judge: rumqttc,
    fails_at: |packet, version| match packet {
        Packet::Auth(_) => true,
        Packet::Connect(connect) => {
            connect.username == Some("")
                || connect
                    .password
                    .is_some_and(|bytes| bytes.is_empty() || std::str::from_utf8(bytes).is_err())
        }
        Packet::Publish(publish) => {
            let is_id = |property: &Property| matches!(property, Property::SubscriptionIdentifier(_));
            publish.properties.iter().filter(is_id).count() > 1
        }
        Packet::Disconnect(packet) => {
            version == Version::V5 && packet.properties.is_empty()
                || packet.reason == ReasonCode::BadAuthenticationMethod
        }
        _ => false,
    },
    fails: &[
        ("reads no AUTH", "3.15; it is a client's, without enhanced authentication"),
        (
            "refuses CONNECT whose password is not UTF-8, loses an empty user name or password",
            "3.1.3.6: a password is binary data",
        ),
        ("keeps one of several subscription identifiers", "3.3.2.3.8: all of them are delivered"),
        (
            "refuses 5.0's DISCONNECT without properties",
            "3.14.2.1 and 3.14.2.2.1 let reason code and properties be left out",
        ),
        (
            "refuses DISCONNECT with 0x8C",
            "table 2-6 has it and 4.12.1 needs it, though the table of 3.14.2.1 does not name it",
        ),
    ],
    accepts: accepted::RUMQTTC,
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
    #![proptest_config(ProptestConfig::with_cases(2_048))]

    #[test]
    fn protocol_core_understands_what_we_send((version, bytes) in packet()) {
        PROTOCOL_CORE.compare(&bytes, version)?;
    }

    #[test]
    fn rmqtt_understands_what_we_send((version, bytes) in packet()) {
        RMQTT.compare(&bytes, version)?;
    }

    #[test]
    fn rumqttc_understands_what_we_send((version, bytes) in packet()) {
        RUMQTTC.compare(&bytes, version)?;
    }

    #[test]
    fn protocol_core_judges_damage_as_we_do((version, bytes) in damaged()) {
        PROTOCOL_CORE.compare(&bytes, version)?;
    }

    #[test]
    fn rmqtt_judges_damage_as_we_do((version, bytes) in damaged()) {
        RMQTT.compare(&bytes, version)?;
    }

    #[test]
    fn what_we_refuse_of_damage_one_of_them_refuses((version, bytes) in damaged()) {
        let version = connack_version(&bytes).unwrap_or(version);
        if let Err(violation) = decode(&bytes, version, &Limits::default())
            && !nobody_confirms(violation.name())
        {
            let refuses = |other: &&Other| (other.judge)(&bytes, version).is_none();
            prop_assert!(JUDGES_OF_DAMAGE.iter().any(refuses), "all accept {:?}", violation);
        }
    }
}

/// Those who read no further than lengths allow.
const JUDGES_OF_DAMAGE: [&Other; 2] = [&PROTOCOL_CORE, &RMQTT];

/// Tells whether there is a packet with a violation of this name that all of them accept.
fn nobody_confirms(violation: &str) -> bool {
    let accept = |what| JUDGES_OF_DAMAGE.iter().all(|other| other.accepts.contains(&what));
    cases().iter().any(|case| case.violation.name() == violation && accept(case.what))
}

#[track_caller]
fn check_accepted(other: &Other) {
    let accepted = cases().into_iter().filter(|case| (other.judge)(&case.bytes, case.version).is_some());
    let accepted: Vec<&str> = accepted.map(|case| case.what).collect();
    assert_eq!(accepted, other.accepts, "malformed packets that the other codec accepts");
}

#[test]
fn others_accept_of_the_table_what_is_listed() {
    OTHERS.into_iter().for_each(check_accepted);
}

/// The statement that a violation breaks, or the section where it has no number.
fn statement_of(violation: Violation) -> String {
    let numbered = violation.tag().trim_start_matches("[MQTT-").replace(']', "");
    let section = match violation {
        _ if !numbered.is_empty() => return numbered,
        Violation::TrailingBytes => "2.1.4, the remaining length",
        Violation::ReceiveMaximumZero => "3.1.2.11.3",
        Violation::MaximumPacketSizeZero => "3.1.2.11.4",
        Violation::AuthenticationDataWithoutMethod => "3.1.2.11.10",
        Violation::SubAckEmpty => "3.9.3, a code for each filter",
        _ => "2.2.2.2, and the property's own section",
    };
    section.to_owned()
}

/// docs/codecs.md: where others judge otherwise, and who is right.
fn table() -> String {
    let unseen: Vec<&str> = Violation::NAMES.iter().copied().filter(|name| nobody_confirms(name)).collect();
    let mut page = format!(
        "# Where other codecs judge otherwise\n\n\
         The same bytes, valid, damaged and wrong on purpose, in both versions, for ours and for codecs that others wrote; made by\n\
         `UPDATE_CODECS=1 cargo test --lib differential`, and a test fails when one of them changes its mind. Beyond these lists all\n\
         agree on two thousand generated packets in each run, and all but rumqttc on two thousand damaged ones: where the lengths of\n\
         properties do not add up, rumqttc reads on. Damaged packets that ours accepts both others accept; those that it refuses at\n\
         least one of them refuses, but for violations of which both miss some: {}.\n\n\
         ## Malformed packets that others accept\n\n\
         Ours refuses each, by the statement or section of the specification in the second column.\n\n| packet | by |",
        unseen.join(", "),
    );
    OTHERS.iter().for_each(|other| page.push_str(&format!(" {} |", other.name)));
    page.push_str("\n|---|---|---|---|---|\n");
    for case in cases() {
        let accepts = OTHERS.map(|other| other.accepts.contains(&case.what));
        if accepts.contains(&true) {
            let tag = statement_of(case.violation);
            page.push_str(&format!("| {} | {tag} |", case.what));
            accepts.iter().for_each(|accepts| page.push_str(if *accepts { " accepts |" } else { "  |" }));
            page.push('\n');
        }
    }
    page.push_str("\n## Valid packets that others refuse or garble\n\n| codec | what it does | what the specification says |\n|---|---|---|\n");
    for other in OTHERS {
        for (what, why) in other.fails {
            page.push_str(&format!("| {} | {what} | {why} |\n", other.name));
        }
    }
    page
}

#[test]
fn the_document_says_where_others_judge_otherwise() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/codecs.md");
    if std::env::var_os("UPDATE_CODECS").is_some() {
        std::fs::write(path, table()).expect("writable");
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), table(), "UPDATE_CODECS=1 writes it anew");
}
