//! The frames of the steady state, made once and patched, and a scanner for what comes back.
//!
//! Every payload begins with a stamp: when it was sent (ns since the run began, 8 bytes) and by which flow (4 bytes).
//! The codec makes and reads everything else; here a message costs a copy and a few bytes.

use crate::mqtt::{self, PacketId, Publish, QoS, Version};

/// Room for the stamp.
const STAMP_BYTES: usize = 12;

/// What a payload begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) sent_ns: u64,
    pub(super) flow: u32,
}

/// A PUBLISH to one topic, ready to be copied.
pub(super) struct Template {
    frame: Vec<u8>,
    packet_id_at: Option<usize>,
    payload_at: usize,
}

impl Template {
    pub(super) fn new(topic: &str, qos: QoS, payload_bytes: usize) -> Template {
        let payload = vec![b'x'; payload_bytes];
        let acknowledged = qos != QoS::AtMostOnce;
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: acknowledged.then_some(PacketId::MIN),
            properties: Default::default(),
            payload: &payload,
        };
        let mut frame = Vec::new();
        mqtt::encode_publish(&publish, Version::V5, &mut frame);
        let payload_at = frame.len() - payload_bytes;
        // Before the payload stand the packet id and one byte: the length of no properties.
        Template { frame, packet_id_at: acknowledged.then_some(payload_at - 3), payload_at }
    }

    pub(super) fn append_to(&self, out: &mut Vec<u8>, packet_id: u16, stamp: Stamp) {
        let from = out.len();
        out.extend_from_slice(&self.frame);
        if let Some(at) = self.packet_id_at {
            out[from + at..][..2].copy_from_slice(&packet_id.to_be_bytes());
        }
        let payload = &mut out[from + self.payload_at..];
        payload[..8].copy_from_slice(&stamp.sent_ns.to_le_bytes());
        payload[8..STAMP_BYTES].copy_from_slice(&stamp.flow.to_le_bytes());
    }
}

/// What a client of the benchmark hears in the steady state.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Message {
        /// What it is to be answered, above QoS 0.
        answer: Option<Answer>,
        stamp: Stamp,
    },
    /// A step of QoS 2 in either direction, which has a next one.
    Step(Answer),
    /// PUBACK or PUBCOMP: the last word on a message.
    Acknowledged,
    /// Anything else, by its type byte.
    Other(u8),
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP, that says Success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    first: u8,
    pub(super) packet_id: u16,
}

impl Answer {
    /// What a PUBLISH is to be answered that begins with this byte.
    pub(super) fn to_publish(first: u8, packet_id: u16) -> Answer {
        Answer { first: if first & 0b100 == 0 { 0x40 } else { 0x50 }, packet_id }
    }

    /// What PUBREC and PUBREL are to be answered; nothing if it is neither, or says that something is wrong.
    pub(super) fn to_step(first: u8, body: &[u8]) -> Option<Answer> {
        let first = match first >> 4 {
            5 => 0x62,
            6 => 0x70,
            _ => return None,
        };
        match *body {
            [high, low] | [high, low, 0, ..] => {
                Some(Answer { first, packet_id: u16::from_be_bytes([high, low]) })
            }
            _ => None,
        }
    }

    pub(super) fn append_to(self, out: &mut Vec<u8>) {
        let [high, low] = self.packet_id.to_be_bytes();
        out.extend_from_slice(&[self.first, 2, high, low]);
    }
}

/// Takes one packet off the front of `input`: what it is, and its length. None: more bytes are needed.
pub(super) fn scan(input: &[u8], payload_bytes: usize) -> Option<(Heard, usize)> {
    let (body_at, total) = packet_at(input)?;
    let body = &input[body_at..total];
    let heard = match input[0] >> 4 {
        3 => message(input[0], body, payload_bytes).unwrap_or(Heard::Other(input[0])),
        4 | 7 => Heard::Acknowledged,
        _ => Answer::to_step(input[0], body).map_or(Heard::Other(input[0]), Heard::Step),
    };
    Some((heard, total))
}

fn message(first: u8, body: &[u8], payload_bytes: usize) -> Option<Heard> {
    let payload = &body[body.len().checked_sub(payload_bytes)?..];
    let sent_ns = u64::from_le_bytes(payload.get(..8)?.try_into().ok()?);
    let flow = u32::from_le_bytes(payload.get(8..STAMP_BYTES)?.try_into().ok()?);
    let answer = if first & 0b110 == 0 { None } else { Some(Answer::to_publish(first, packet_id(body)?)) };
    Some(Heard::Message { answer, stamp: Stamp { sent_ns, flow } })
}

fn packet_id(body: &[u8]) -> Option<u16> {
    let topic_bytes = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let id = body.get(2 + topic_bytes..4 + topic_bytes)?;
    Some(u16::from_be_bytes([id[0], id[1]]))
}

/// Where the body of the packet at the front begins and where it ends. None: more bytes are needed.
pub(super) fn packet_at(input: &[u8]) -> Option<(usize, usize)> {
    let (body_at, body_bytes) = remaining_length(input)?;
    (input.len() >= body_at + body_bytes).then_some((body_at, body_at + body_bytes))
}

/// Where the body begins and how long it is.
fn remaining_length(input: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (at, byte) in input.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Some((at + 1, length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_template_writes_is_what_scan_hears() {
        let answers = [None, Some((0x40, 513)), Some((0x50, 513))];
        for (qos, answer) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().zip(answers) {
            let answer = answer.map(|(first, packet_id)| Answer { first, packet_id });
            let template = Template::new("a/b", qos, 64);
            let stamp = Stamp { sent_ns: 42, flow: 7 };
            let mut out = Vec::new();
            template.append_to(&mut out, 513, stamp);
            assert_eq!(scan(&out, 64), Some((Heard::Message { answer, stamp }, out.len())));
            assert_eq!(scan(&out[..out.len() - 1], 64), None);
            let limits = mqtt::Limits { packet_bytes_max: 1000, ..mqtt::Limits::default() };
            let (packet, _) = mqtt::decode(&out, Version::V5, &limits).expect("valid").expect("whole");
            let mqtt::Packet::Publish(publish) = packet else { panic!("a PUBLISH") };
            assert_eq!(publish.packet_id.map(PacketId::get), answer.map(|answer| answer.packet_id));
        }
    }

    #[test]
    fn acknowledgements_are_heard() {
        let mut out = Vec::new();
        Answer::to_publish(0x32, 9).append_to(&mut out);
        assert_eq!(scan(&out, 64), Some((Heard::Acknowledged, 4)));
    }

    #[test]
    fn at_qos_2_each_step_has_the_next_until_the_last() {
        let mut packet = Vec::new();
        Answer::to_publish(0x34, 9).append_to(&mut packet);
        let mut firsts = vec![packet[0]];
        while let Some((Heard::Step(answer), 4)) = scan(&packet, 64) {
            packet.clear();
            answer.append_to(&mut packet);
            firsts.push(packet[0]);
            assert_eq!(packet[2..], [0, 9]);
        }
        assert_eq!(firsts, [0x50, 0x62, 0x70]);
        assert_eq!(scan(&packet, 64), Some((Heard::Acknowledged, 4)));
        let quota_exceeded = [0x50, 3, 0, 9, 0x97];
        assert_eq!(scan(&quota_exceeded, 64), Some((Heard::Other(0x50), 5)));
    }
}
