//! Messages into frames and out of them, with the tables that let topics and properties stand once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;

use crate::link::acceptor::{Acceptor, Verdict};
use crate::link::forwarder::Forwarder;
use crate::link::native::{EXPANDED_BYTES_MAX, Entry, MESSAGES_MAX, Messages, MessagesWriter, Record};
use crate::link::violation::Violation;
use crate::mqtt::{Message, Properties, PropertiesBuf, QoS, check_topic_name};

/// A frame is closed once it has so many bytes: enough to make its head cost nothing, little enough to let
/// probes pass.
const FRAME_BYTES: usize = 64 * 1024;

/// The tables of the frame that is written now; kept for their memory.
#[derive(Debug, Default)]
pub(super) struct Batcher {
    topics: HashMap<Arc<str>, usize>,
    properties: HashMap<Vec<u8>, usize>,
}

impl Batcher {
    /// The next frame of messages, if any may be sent.
    pub(super) fn write(&mut self, forwarder: &mut Forwarder, now: Instant) -> Option<Vec<u8>> {
        let first_size = forwarder.next_size(now)?;
        self.topics.clear();
        self.properties.clear();
        let mut frame = Vec::with_capacity(first_size.max(4096));
        let mut body = MessagesWriter::new(forwarder.next_position(), 0, &mut frame);
        let (mut messages, mut expanded) = (0, first_size);
        while let Some(next) = forwarder.take_next() {
            self.push(&mut body, &next.message, next.position.is_some(), now);
            messages += 1;
            let Some(size) = forwarder.next_size(now) else { break };
            expanded += size;
            if body.frame_len() + size > FRAME_BYTES
                || expanded > EXPANDED_BYTES_MAX
                || messages == MESSAGES_MAX
            {
                break;
            }
        }
        Some(frame)
    }

    fn push(&mut self, body: &mut MessagesWriter<'_>, message: &Message, acknowledged: bool, now: Instant) {
        let topic = match self.topics.get(&message.topic) {
            Some(&number) => Entry::Known(number),
            None => {
                self.topics.insert(message.topic.clone(), self.topics.len());
                Entry::New(message.topic.as_bytes())
            }
        };
        let properties = match message.properties.as_properties().as_bytes() {
            [] => None,
            list => Some(match self.properties.get(list) {
                Some(&number) => Entry::Known(number),
                None => {
                    self.properties.insert(list.to_vec(), self.properties.len());
                    Entry::New(list)
                }
            }),
        };
        let expiry_s = message.expiry_s(now);
        let payload = &message.payload;
        body.push(&Record { acknowledged, retain: message.retain, topic, properties, expiry_s, payload });
    }
}

/// Reads a frame of messages of one actor; `deliver` gets what the core is to have. Tells whether any is to be
/// acknowledged. `bytes_max` bounds the messages as they are written out: references make few bytes stand for many.
pub(super) fn read(
    acceptor: &mut Acceptor,
    node: &str,
    messages: Messages<'_>,
    bytes_max: usize,
    now: Instant,
    mut deliver: impl FnMut(Message),
) -> Result<bool, Violation> {
    let held = acceptor.stream(node, messages.stream)?;
    if held.is_some_and(|held| messages.first > held.saturating_add(1)) {
        return Err(Violation::MessagesGap);
    }
    let mut tables = Tables::default();
    let mut next = messages.first;
    let mut room = bytes_max.max(EXPANDED_BYTES_MAX);
    for (index, record) in messages.records().enumerate() {
        let record = record?;
        if index == MESSAGES_MAX {
            return Err(Violation::TooMany);
        }
        let topic = tables.topic(record.topic)?;
        let properties = tables.properties(record.properties)?;
        let size = topic.len() + properties.as_properties().as_bytes().len() + record.payload.len();
        room = room.checked_sub(size).ok_or(Violation::TooMany)?;
        if record.acknowledged {
            let position = next;
            if position == 0 {
                return Err(Violation::MessagesGap);
            }
            next = position.checked_add(1).ok_or(Violation::MessagesGap)?;
            if held.is_some_and(|held| position <= held) {
                acceptor.handle_duplicate();
                continue;
            }
            acceptor.take_over(node, messages.stream, position);
        }
        if acceptor.handle_message(&topic) == Verdict::Deliver {
            deliver(message(&record, topic, properties, now));
        }
    }
    Ok(next != messages.first)
}

fn message(record: &Record<'_>, topic: Arc<str>, properties: PropertiesBuf, now: Instant) -> Message {
    Message {
        topic,
        payload: Bytes::copy_from_slice(record.payload),
        qos: if record.acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce },
        retain: record.retain,
        properties,
        expires_at: record.expiry_s.map(|seconds| now + Duration::from_secs(u64::from(seconds))),
    }
}

/// The topics and property lists that a frame has shown so far, validated once each.
#[derive(Debug, Default)]
struct Tables {
    topics: Vec<Arc<str>>,
    properties: Vec<PropertiesBuf>,
}

impl Tables {
    fn topic(&mut self, entry: Entry<'_>) -> Result<Arc<str>, Violation> {
        match entry {
            Entry::Known(number) => Ok(self.topics[number].clone()),
            Entry::New(bytes) => {
                let topic = std::str::from_utf8(bytes).map_err(|_| Violation::NotUtf8)?;
                if topic.starts_with('$') || check_topic_name(topic).is_err() {
                    return Err(Violation::BadTopic);
                }
                let topic: Arc<str> = topic.into();
                self.topics.push(topic.clone());
                Ok(topic)
            }
        }
    }

    fn properties(&mut self, entry: Option<Entry<'_>>) -> Result<PropertiesBuf, Violation> {
        match entry {
            None => Ok(PropertiesBuf::default()),
            Some(Entry::Known(number)) => Ok(self.properties[number].clone()),
            Some(Entry::New(bytes)) => {
                let list = Properties::parse_forwardable(bytes).map_err(|_| Violation::BadProperties)?;
                let list: PropertiesBuf = list.iter().collect();
                self.properties.push(list.clone());
                Ok(list)
            }
        }
    }
}
