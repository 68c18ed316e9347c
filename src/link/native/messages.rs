//! The Messages frame: many messages, topics and properties encoded once.
//!
//! A topic or a property list that a frame already has is referred to by its number, in order of appearance.
//! A reader's tables grow only with what it has already read. Topics and properties are validated by the caller
//! when they first appear, so a repeated one costs a table look-up.

use crate::link::violation::Violation;

use super::MESSAGES;
use super::wire::{Head, HeadWriter, Reader, put_bytes, put_varint};

/// Messages of one frame.
pub const MESSAGES_MAX: usize = 32_768;

const QOS_MASK: u8 = 0b0000_0011;
const RETAIN: u8 = 0b0000_0100;
const PROPERTIES: u8 = 0b0000_1000;
const EXPIRY: u8 = 0b0001_0000;
const RESERVED: u8 = 0b1110_0000;

/// A batch of messages of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Messages<'a> {
    /// The position of the first message above QoS 0; the others follow without a gap.
    pub first: u64,
    /// Which of several streams of the actor.
    pub stream: u64,
    body: &'a [u8],
}

/// One message as it stands in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Whether it is acknowledged by its position (QoS 1) or not at all (QoS 0).
    pub acknowledged: bool,
    /// The RETAIN flag, for Retain As Published.
    pub retain: bool,
    /// Its topic.
    pub topic: Entry<'a>,
    /// Its properties, when it has any.
    pub properties: Option<Entry<'a>>,
    /// What is left of its expiry interval, in seconds.
    pub expiry_s: Option<u32>,
    /// Its payload.
    pub payload: &'a [u8],
}

/// An entry of one of the frame's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Appears here, and is the table's next entry.
    New(&'a [u8]),
    /// The entry of this number, from 0.
    Known(usize),
}

impl<'a> Messages<'a> {
    pub(super) fn decode(mut head: Head<'a>) -> Result<Messages<'a>, Violation> {
        let (mut first, mut stream) = (None, None);
        while let Some(field) = head.next_field()? {
            match field.tag {
                1 => field.once(&mut first, field.number()?)?,
                2 => field.once(&mut stream, field.number()?)?,
                _ => field.skip()?,
            }
        }
        Ok(Messages { first: first.unwrap_or(0), stream: stream.unwrap_or(0), body: head.body })
    }

    /// The messages, in order. Ends after the first error.
    pub fn records(&self) -> Records<'a> {
        Records { reader: Reader::new(self.body), topics: 0, properties: 0 }
    }
}

/// Walks through the messages of a frame.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    reader: Reader<'a>,
    topics: usize,
    properties: usize,
}

impl<'a> Records<'a> {
    fn read(&mut self) -> Result<Record<'a>, Violation> {
        let flags = self.reader.u8()?;
        if flags & RESERVED != 0 || flags & QOS_MASK > 1 {
            return Err(Violation::ReservedFlags);
        }
        let topic = entry(&mut self.reader, &mut self.topics)?;
        let properties = match flags & PROPERTIES != 0 {
            true => Some(entry(&mut self.reader, &mut self.properties)?),
            false => None,
        };
        let expiry_s = match flags & EXPIRY != 0 {
            true => Some(u32::try_from(self.reader.varint()?).map_err(|_| Violation::BadVarint)?),
            false => None,
        };
        let payload = self.reader.bytes()?;
        let (acknowledged, retain) = (flags & QOS_MASK == 1, flags & RETAIN != 0);
        Ok(Record { acknowledged, retain, topic, properties, expiry_s, payload })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Violation>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(record)
    }
}

/// Reads a reference: 0 and the bytes of a new entry, or the number of a known one plus one.
fn entry<'a>(reader: &mut Reader<'a>, known: &mut usize) -> Result<Entry<'a>, Violation> {
    match reader.varint()? {
        0 => {
            *known += 1;
            reader.bytes().map(Entry::New)
        }
        number if number <= *known as u64 => Ok(Entry::Known(number as usize - 1)),
        _ => Err(Violation::BadReference),
    }
}

/// Writes one Messages frame message by message.
#[derive(Debug)]
pub struct MessagesWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> MessagesWriter<'o> {
    /// Begins a frame at the end of `out`. `first` is 0 when nothing in it is above QoS 0.
    pub fn new(first: u64, stream: u64, out: &'o mut Vec<u8>) -> MessagesWriter<'o> {
        HeadWriter::new(MESSAGES).number_or_default(1, first).number_or_default(2, stream).finish(out);
        MessagesWriter { out }
    }

    /// The bytes of the frame so far, and of what stood before it.
    pub fn frame_len(&self) -> usize {
        self.out.len()
    }

    /// Appends one message.
    pub fn push(&mut self, record: &Record<'_>) {
        let qos = u8::from(record.acknowledged);
        let retain = if record.retain { RETAIN } else { 0 };
        let properties = if record.properties.is_some() { PROPERTIES } else { 0 };
        let expiry = if record.expiry_s.is_some() { EXPIRY } else { 0 };
        self.out.push(qos | retain | properties | expiry);
        self.entry(record.topic);
        if let Some(entry) = record.properties {
            self.entry(entry);
        }
        if let Some(expiry_s) = record.expiry_s {
            put_varint(self.out, u64::from(expiry_s));
        }
        put_bytes(self.out, record.payload);
    }

    fn entry(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::New(bytes) => {
                self.out.push(0);
                put_bytes(self.out, bytes);
            }
            Entry::Known(number) => put_varint(self.out, number as u64 + 1),
        }
    }
}

/// What a message alone in a frame costs beside its topic, properties and payload, at most: the frame's type, length
/// and two numbers, flags, two references with lengths, an expiry and a length.
pub const MESSAGE_OVERHEAD_MAX: usize = 2 + 2 * 12 + 1 + 2 * 11 + 5 + 10;
