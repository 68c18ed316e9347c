//! Frames as MQTT: what lies between a socket's bytes and the machine's frames. Pure.
//!
//! After CONNECT and CONNACK each frame is the payload of one QoS 0 PUBLISH. The first PUBLISH each way names the
//! topic and gives it alias 1, the others carry the alias alone. PINGREQ is answered, DISCONNECT ends.

use crate::link::native::TOPIC;
use crate::mqtt::{
    Limits, Packet, Properties, PropertiesBuf, Property, Publish, QoS, Version, Violation, decode,
    encode_publish,
};

/// The alias of [`TOPIC`].
const ALIAS: u16 = 1;

/// Why a connection's bytes cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Not MQTT.
    #[error("not MQTT: {0}")]
    Malformed(Violation),
    /// MQTT, but nothing that belongs on a link.
    #[error("a packet that does not belong on a link")]
    OutOfPlace,
    /// DISCONNECT.
    #[error("the peer disconnected")]
    Disconnected,
}

/// What a packet brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'a> {
    /// A frame.
    Frame(&'a [u8]),
    /// A PINGREQ, to be answered.
    Ping,
    /// Nothing that needs anything.
    Nothing,
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub(super) struct Carrier {
    alias_sent: bool,
    alias_received: bool,
}

impl Carrier {
    /// Appends the PUBLISH that carries a frame.
    pub(super) fn write(&mut self, frame: &[u8], out: &mut Vec<u8>) {
        let mut alias = PropertiesBuf::new();
        alias.push(Property::TopicAlias(ALIAS));
        let topic = if std::mem::replace(&mut self.alias_sent, true) { "" } else { TOPIC };
        let properties = alias.as_properties();
        let packet = publish(topic, properties, frame);
        encode_publish(&packet, Version::V5, out);
    }

    /// Reads the packet at the start of `input` and tells how long it is; None when more bytes are needed.
    pub(super) fn read<'a>(
        &mut self,
        input: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<(Received<'a>, usize)>, Fault> {
        let Some((packet, len)) = decode(input, Version::V5, limits).map_err(Fault::Malformed)? else {
            return Ok(None);
        };
        let received = match packet {
            Packet::Publish(publish) => Received::Frame(self.frame(&publish)?),
            Packet::PingReq => Received::Ping,
            Packet::PingResp => Received::Nothing,
            Packet::Disconnect(_) => return Err(Fault::Disconnected),
            _ => return Err(Fault::OutOfPlace),
        };
        Ok(Some((received, len)))
    }

    fn frame<'a>(&mut self, publish: &Publish<'a>) -> Result<&'a [u8], Fault> {
        let alias = publish.properties.topic_alias();
        let in_place = match publish.topic {
            TOPIC => alias.is_none_or(|alias| alias == ALIAS),
            "" => self.alias_received && alias == Some(ALIAS),
            _ => false,
        };
        if !in_place || publish.qos != QoS::AtMostOnce {
            return Err(Fault::OutOfPlace);
        }
        self.alias_received |= alias.is_some();
        Ok(publish.payload)
    }
}

fn publish<'a>(topic: &'a str, properties: Properties<'a>, payload: &'a [u8]) -> Publish<'a> {
    Publish { dup: false, qos: QoS::AtMostOnce, retain: false, topic, packet_id: None, properties, payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frames: &[&[u8]]) -> Vec<u8> {
        let mut carrier = Carrier::default();
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| carrier.write(frame, &mut bytes));
        bytes
    }

    #[test]
    fn frames_come_out_as_they_went_in_and_the_topic_goes_once() {
        let bytes = written(&[b"one", b"two"]);
        assert_eq!(bytes.windows(TOPIC.len()).filter(|w| *w == TOPIC.as_bytes()).count(), 1);
        let mut carrier = Carrier::default();
        let limits = Limits::default();
        let (first, len) = carrier.read(&bytes, &limits).unwrap().unwrap();
        assert_eq!(first, Received::Frame(b"one"));
        let (second, rest) = carrier.read(&bytes[len..], &limits).unwrap().unwrap();
        assert_eq!(second, Received::Frame(b"two"));
        assert_eq!(len + rest, bytes.len());
        assert_eq!(carrier.read(&bytes[..3], &limits), Ok(None), "an incomplete packet waits");
    }

    #[test]
    fn an_alias_before_its_topic_does_not_count() {
        let bytes = written(&[b"one", b"two"]);
        let first_len = written(&[b"one"]).len();
        let read = Carrier::default().read(&bytes[first_len..], &Limits::default()).map(|_| ());
        assert_eq!(read, Err(Fault::OutOfPlace));
    }

    #[test]
    fn what_does_not_belong_on_a_link_ends_it() {
        let mut other = Vec::new();
        encode_publish(&publish("other", Properties::EMPTY, b"x"), Version::V5, &mut other);
        assert_eq!(Carrier::default().read(&other, &Limits::default()), Err(Fault::OutOfPlace));
        let mut bytes = Vec::new();
        Packet::PingReq.encode(Version::V5, &mut bytes);
        let read = Carrier::default().read(&bytes, &Limits::default()).unwrap().unwrap();
        assert_eq!(read.0, Received::Ping);
    }
}
