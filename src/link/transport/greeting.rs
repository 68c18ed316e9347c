//! CONNECT and CONNACK of a link: written and judged here, sent by others. Pure.

use crate::link::gate::Presented;
use crate::link::machine::Identity;
use crate::link::refusal::{Reason, Refusal};
use crate::mqtt::{
    ConnAck, Connect, Limits, Packet, PropertiesBuf, Property, ReasonCode, Version, Violation, decode,
};
use crate::settings::Credentials;

/// The longest silence that this side promises; a probe goes three times as often.
const KEEP_ALIVE_S: u16 = 15;
/// The largest packet before a connection is authenticated.
pub(super) const GREETING_BYTES_MAX: usize = 16 * 1024;
/// The first byte of a CONNACK.
const CONNACK: u8 = 0x20;
/// The first byte of what a TLS server says to those who do not speak TLS.
const TLS_ALERT: u8 = 0x15;
/// The user property that names the cluster that dials.
const CLUSTER: &str = "mqlink-cluster";

fn limits() -> Limits {
    Limits { packet_bytes_max: GREETING_BYTES_MAX, ..Limits::default() }
}

/// The CONNECT of a dialling node.
pub(super) fn connect(own: &Identity, credentials: Option<&Credentials>) -> Vec<u8> {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::TopicAliasMaximum(1));
    properties.push(Property::UserProperty((CLUSTER, &own.cluster)));
    let client_id = format!("{}:{}:link", own.cluster, own.node);
    let packet = Packet::Connect(Connect {
        keep_alive_s: KEEP_ALIVE_S,
        properties: properties.as_properties(),
        username: credentials.map(|c| c.username.as_str()),
        password: credentials.map(|c| c.password.as_bytes()),
        ..Connect::new(&client_id)
    });
    let mut bytes = Vec::new();
    packet.encode(Version::V5, &mut bytes);
    bytes
}

/// Reads a CONNECT: what it presents but for the certificate, and its length. None when more bytes are needed.
pub(super) fn read_connect(input: &[u8]) -> Result<Option<(Presented, usize)>, Violation> {
    let Some((packet, len)) = decode(input, Version::V5, &limits())? else { return Ok(None) };
    let Packet::Connect(connect) = packet else { return Err(Violation::FirstPacketNotConnect) };
    let cluster = connect.properties.user_properties().find(|(name, _)| *name == CLUSTER);
    let presented = Presented {
        cluster: cluster.map(|(_, value)| value.to_owned()).unwrap_or_default(),
        uris: Vec::new(),
        username: connect.username.map(str::to_owned),
        password: connect.password.map(<[u8]>::to_vec),
    };
    Ok(Some((presented, len)))
}

/// The CONNACK of an accepting node.
pub(super) fn connack(verdict: Result<(), &Refusal>) -> Vec<u8> {
    let mut properties = PropertiesBuf::new();
    let text = verdict.err().map(ToString::to_string).unwrap_or_default();
    let reason = match verdict {
        Ok(()) => {
            properties.push(Property::TopicAliasMaximum(1));
            ReasonCode::Success
        }
        Err(refusal) => {
            properties.push(Property::ReasonString(&text));
            match refusal.reason {
                Reason::BadCredentials => ReasonCode::BadUserNameOrPassword,
                _ => ReasonCode::NotAuthorized,
            }
        }
    };
    let mut bytes = Vec::new();
    let properties = properties.as_properties();
    Packet::ConnAck(ConnAck { session_present: false, reason, properties }).encode(Version::V5, &mut bytes);
    bytes
}

/// What a CONNACK says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Come in; the rest of the bytes begins there.
    Accepted(usize),
    /// The API's word for the refusal, and the peer's words.
    Refused(&'static str, String),
}

/// Reads a CONNACK; None when more bytes are needed.
pub(super) fn read_connack(input: &[u8]) -> Result<Option<Answer>, Violation> {
    // Whoever speaks something else shows it at once, and may never say as much as the packet would have that this looks like.
    match input.first() {
        Some(&TLS_ALERT) => {
            let text = "speaks TLS, and is dialled without: use mqtts://";
            return Ok(Some(Answer::Refused("ProtocolMismatch", text.into())));
        }
        Some(&first) if first != CONNACK => return Ok(Some(not_mqtt())),
        _ => {}
    }
    let Some((packet, len)) = decode(input, Version::V5, &limits())? else { return Ok(None) };
    let Packet::ConnAck(connack) = packet else { return Ok(Some(not_mqtt())) };
    if connack.reason == ReasonCode::Success {
        return Ok(Some(Answer::Accepted(len)));
    }
    let text = connack.properties.reason_string().unwrap_or_default();
    let words = text.split_once(": ").map_or(text, |(_, words)| words);
    let name = match (Reason::from_text(text), connack.reason) {
        (Some(reason), _) => reason.name(),
        (None, ReasonCode::BadUserNameOrPassword) => "BadCredentials",
        (None, ReasonCode::NotAuthorized | ReasonCode::Banned) => "NotAuthorized",
        (None, ReasonCode::UnsupportedProtocolVersion) => "ProtocolMismatch",
        (None, _) => "DialFailed",
    };
    let message = if words.is_empty() { format!("CONNACK {:?}", connack.reason) } else { words.to_owned() };
    Ok(Some(Answer::Refused(name, message)))
}

fn not_mqtt() -> Answer {
    Answer::Refused("ProtocolMismatch", "the answer to CONNECT is no CONNACK: this is no MQTT server".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_presents_who_it_is() {
        let own = Identity { cluster: "us".into(), node: "us-0".into(), incarnation: 1 };
        let credentials = Credentials { username: "u".into(), password: "p".into() };
        let bytes = connect(&own, Some(&credentials));
        let (presented, len) = read_connect(&bytes).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        assert_eq!(presented.cluster, "us");
        assert_eq!((presented.username, presented.password), (Some("u".into()), Some(b"p".to_vec())));
        assert_eq!(read_connect(&bytes[..10]), Ok(None));
    }

    #[test]
    fn who_does_not_speak_mqtt_is_known_by_the_first_byte() {
        for (input, word) in [(&b"H"[..], "no CONNACK"), (b"\x15\x03\x03\0\x02", "mqtts://")] {
            let answer = read_connack(input);
            let Ok(Some(Answer::Refused("ProtocolMismatch", text))) = answer else { panic!("{answer:?}") };
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(read_connack(b""), Ok(None));
        assert_eq!(read_connack(b"\x20"), Ok(None));
    }

    #[test]
    fn a_refusal_survives_a_connack() {
        let refusal = Refusal::new(Reason::UnknownCluster, "no link to you");
        let bytes = connack(Err(&refusal));
        let expected = Answer::Refused("UnknownCluster", "no link to you".into());
        assert_eq!(read_connack(&bytes), Ok(Some(expected)));
        let bytes = connack(Ok(()));
        assert_eq!(read_connack(&bytes), Ok(Some(Answer::Accepted(bytes.len()))));
    }
}
