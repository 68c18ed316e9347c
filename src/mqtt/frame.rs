//! A PUBLISH encoded once, for all recipients of its class, and the memory that frames lie in.

use std::ops::Range;
use std::rc::Rc;

use super::encode::write_publish;
use super::wire::{Varint, read_varint, varint_len, write_varint};
use super::{PacketId, PlainPublish, Publish, QoS, Version};

/// A PUBLISH encoded once for a class (version, QoS, RETAIN, properties).
///
/// What differs from one recipient to the next, the packet id and DUP, is patched in the copy. Clones are the same bytes: one
/// allocation for all recipients, because at QoS 1 and 2 that is a good part of what a message costs.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The packet, and before and behind it others of its row, or what rounds the block up.
    block: Rc<[u8]>,
    start: u32,
    len: u32,
    /// Where the topic ends; at QoS 1 and 2 the packet id follows.
    topic_end: u32,
    /// As in the packet, which is not looked at for it.
    qos: QoS,
}

/// The blocks of memory that frames lay in and that nobody holds any more, for those to come: a message that is kept until
/// it is acknowledged then finds memory that is still in the processor's cache, and leaves the allocator alone.
#[derive(Debug, Default)]
pub struct Blocks {
    /// By size, each a [`STEP`] larger than the last.
    free: [Vec<Rc<[u8]>>; SIZES],
    free_bytes: usize,
    /// What packets are encoded in.
    room: Vec<u8>,
}

const STEP: usize = 32;
/// Larger frames than these sizes hold get a block of their own and leave it to the allocator: they cost more to copy.
const SIZES: usize = 16;
/// How many bytes of blocks are kept.
const FREE_BYTES_MAX: usize = 512 * 1024;
/// How much room for encoding is kept.
const ROOM_BYTES: usize = 64 * 1024;
const DUP: u8 = 0b1000;
const RETAIN: u8 = 1;

impl Blocks {
    /// Encodes the packet; its packet id and DUP flag do not matter.
    ///
    /// # Panics
    /// As [`encode_publish`](super::encode_publish).
    pub fn encode(&mut self, packet: &Publish<'_>, version: Version) -> Frame {
        let mut room = std::mem::take(&mut self.room);
        room.clear();
        let packet = Publish { dup: false, packet_id: Some(PacketId::MIN), ..*packet };
        let topic_end = write_publish(&packet, version, &mut room);
        let frame = Frame {
            block: self.fill(&room),
            start: 0,
            len: room.len() as u32,
            topic_end: topic_end as u32,
            qos: packet.qos,
        };
        room.shrink_to(ROOM_BYTES);
        self.room = room;
        frame
    }

    /// The frame of a PUBLISH that is encoded as it is to be sent, but for packet id, DUP and RETAIN. Its topic ends at
    /// `topic_end`.
    #[inline]
    pub fn copy(&mut self, packet: &[u8], topic_end: usize, retain: bool) -> Frame {
        let mut block = self.fill(packet);
        let first = packet[0] & !(DUP | RETAIN) | retain as u8;
        if first != packet[0] {
            Rc::get_mut(&mut block).expect("nobody else has it yet")[0] = first;
        }
        let qos = qos_of(first);
        Frame { block, start: 0, len: packet.len() as u32, topic_end: topic_end as u32, qos }
    }

    /// Takes back the block of a frame that is done with, if nobody else holds it.
    #[inline]
    pub fn take_back(&mut self, mut frame: Frame) {
        let size = frame.block.len();
        if Rc::get_mut(&mut frame.block).is_some()
            && size.is_multiple_of(STEP)
            && size <= SIZES * STEP
            && self.free_bytes + size <= FREE_BYTES_MAX
        {
            self.free_bytes += size;
            self.free[size / STEP - 1].push(frame.block);
        }
    }

    /// A block with these bytes.
    #[inline]
    fn fill(&mut self, bytes: &[u8]) -> Rc<[u8]> {
        let Some(free) = self.free.get_mut((bytes.len() - 1) / STEP) else { return Rc::from(bytes) };
        if let Some(mut block) = free.pop() {
            self.free_bytes -= block.len();
            Rc::get_mut(&mut block).expect("nobody holds a free block")[..bytes.len()].copy_from_slice(bytes);
            return block;
        }
        let mut block = [0; SIZES * STEP];
        block[..bytes.len()].copy_from_slice(bytes);
        Rc::from(&block[..bytes.len().next_multiple_of(STEP)])
    }
}

impl Frame {
    /// Encodes the packet into memory of its own; its packet id and DUP flag do not matter.
    ///
    /// # Panics
    /// As [`encode_publish`](super::encode_publish).
    pub fn publish(packet: &Publish<'_>, version: Version) -> Frame {
        Blocks::default().encode(packet, version)
    }

    /// The PUBLISH that begins here in a block of several, which is encoded as it is to be sent, but for packet id and DUP.
    /// The block is there as long as any of its frames.
    #[inline]
    pub fn of_row(block: &Rc<[u8]>, start: usize, publish: PlainPublish) -> Frame {
        let PlainPublish { len, topic_end, .. } = publish;
        let qos = qos_of(block[start]);
        Frame {
            block: Rc::clone(block),
            start: start as u32,
            len: len as u32,
            topic_end: topic_end as u32,
            qos,
        }
    }

    /// Appends the frame to `out` with this packet id, which QoS 0 ignores, and this DUP flag.
    ///
    /// # Panics
    /// If the QoS is 1 or 2 and there is no packet id.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>, id: Option<PacketId>, dup: bool) {
        let start = out.len();
        out.extend_from_slice(self.bytes());
        if self.qos() == QoS::AtMostOnce {
            return;
        }
        let id = id.expect("a PUBLISH of QoS 1 or 2 has a packet id");
        let frame = &mut out[start..];
        frame[self.topic_end as usize..][..2].copy_from_slice(&id.get().to_be_bytes());
        frame[0] |= (dup as u8) << 3;
    }

    /// As [`Frame::append_to`], with a topic alias; for version 5 only.
    ///
    /// # Panics
    /// As [`Frame::append_to`].
    pub fn append_aliased(&self, alias: TopicAlias, out: &mut Vec<u8>, id: Option<PacketId>, dup: bool) {
        let start = out.len();
        alias.append(self.bytes(), out);
        if self.qos() == QoS::AtMostOnce {
            return;
        }
        let id = id.expect("a PUBLISH of QoS 1 or 2 has a packet id");
        let frame = &mut out[start..];
        frame[0] |= (dup as u8) << 3;
        let id_at = Parts::of(frame).rest_at;
        frame[id_at..id_at + 2].copy_from_slice(&id.get().to_be_bytes());
    }

    fn bytes(&self) -> &[u8] {
        &self.block[self.start as usize..][..self.len as usize]
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        topic_of(self.bytes())
    }

    /// The number of bytes, which recipients compare with their Maximum Packet Size.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// What it shares with others of its row.
    #[cfg(test)]
    pub fn block(&self) -> &Rc<[u8]> {
        &self.block
    }

    /// The QoS that the frame is encoded for.
    #[inline]
    pub fn qos(&self) -> QoS {
        self.qos
    }
}

/// A number that stands for a topic on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicAlias {
    /// From 1 to the receiver's maximum.
    pub alias: u16,
    /// The receiver heard the topic with this alias before, so that it can be left out.
    pub is_known: bool,
}

/// How much longer an encoded PUBLISH may get by an alias that the receiver does not know: the property, and lengths that
/// need a further byte.
pub const ALIAS_BYTES_MAX: usize = ALIAS_BYTES + 2;
const ALIAS_BYTES: usize = 3;

impl TopicAlias {
    /// Appends an encoded PUBLISH of version 5, which has no alias, with this one.
    pub fn append(self, publish: &[u8], out: &mut Vec<u8>) {
        const TOPIC_ALIAS: u8 = 0x23;
        let parts = Parts::of(publish);
        let topic = if self.is_known { &[] } else { parts.topic };
        let properties = parts.properties as u32 + ALIAS_BYTES as u32;
        let id = &publish[parts.rest_at..parts.rest_at + parts.id_len];
        let tail = &publish[parts.properties_at..];
        let len = 2 + topic.len() + id.len() + varint_len(properties) + ALIAS_BYTES + tail.len();
        out.reserve(5 + len);
        out.push(publish[0]);
        write_varint(out, len as u32);
        out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        out.extend_from_slice(topic);
        out.extend_from_slice(id);
        write_varint(out, properties);
        out.push(TOPIC_ALIAS);
        out.extend_from_slice(&self.alias.to_be_bytes());
        out.extend_from_slice(tail);
    }
}

/// The QoS of an encoded PUBLISH.
#[inline]
fn qos_of(first: u8) -> QoS {
    QoS::from_u8(first >> 1 & 0b11).expect("it is one of three")
}

/// The topic of an encoded PUBLISH.
pub fn topic_of(publish: &[u8]) -> &str {
    std::str::from_utf8(&publish[topic_in(publish)]).expect("we encoded it from a string")
}

/// Where the topic of a PUBLISH lies that is known to be one; at QoS 1 and 2 the packet id follows.
#[inline]
fn topic_in(publish: &[u8]) -> Range<usize> {
    let length = publish[1..].iter().take_while(|&byte| byte & 0x80 != 0).count() + 1;
    let at = 1 + length + 2;
    at..at + usize::from(u16::from_be_bytes([publish[at - 2], publish[at - 1]]))
}

/// Where the fields of a PUBLISH of version 5 lie that we encoded ourselves.
struct Parts<'a> {
    topic: &'a [u8],
    /// Behind the topic.
    rest_at: usize,
    id_len: usize,
    /// How many bytes of properties there are, and where they begin.
    properties: usize,
    properties_at: usize,
}

impl Parts<'_> {
    fn of(publish: &[u8]) -> Parts<'_> {
        let varint = |at: usize| match read_varint(&publish[at..]) {
            Varint::Whole(value, len) => (value as usize, at + len),
            other => unreachable!("we encoded a length, not {other:?}"),
        };
        let topic = topic_in(publish);
        let rest_at = topic.end;
        let id_len = if publish[0] & 0b110 == 0 { 0 } else { 2 };
        let (properties, properties_at) = varint(rest_at + id_len);
        Parts { topic: &publish[topic], rest_at, id_len, properties, properties_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Properties;

    fn encode(blocks: &mut Blocks, payload: &[u8]) -> Frame {
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties: Properties::EMPTY,
            payload,
        };
        blocks.encode(&publish, Version::V5)
    }

    #[test]
    fn a_block_is_used_again_when_nobody_holds_it_and_not_before() {
        let mut blocks = Blocks::default();
        let mut held: Vec<(Frame, Vec<u8>)> = Vec::new();
        for n in 0..2_000_usize {
            let payload = vec![n as u8; n * 37 % 700];
            let frame = encode(&mut blocks, &payload);
            held.push((frame.clone(), payload));
            blocks.take_back(frame); // a clone of it is held
            if held.len() > 20 {
                let (frame, _) = held.swap_remove(n % 20);
                blocks.take_back(frame);
            }
            for (frame, payload) in &held {
                assert!(frame.bytes().ends_with(payload) && frame.len() == frame.bytes().len(), "{n}");
            }
        }
        let free: usize = blocks.free.iter().flatten().map(|block| block.len()).sum();
        assert!(free > 0 && free == blocks.free_bytes, "{free}");
    }

    #[test]
    fn no_more_blocks_are_kept_than_may_be() {
        let mut blocks = Blocks::default();
        let frames: Vec<_> = (0..20_000).map(|_| encode(&mut blocks, &[7; 64])).collect();
        frames.into_iter().for_each(|frame| blocks.take_back(frame));
        assert!(
            (FREE_BYTES_MAX - 512..=FREE_BYTES_MAX).contains(&blocks.free_bytes),
            "{}",
            blocks.free_bytes
        );
    }
}
