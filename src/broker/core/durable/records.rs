//! The values that a store keeps, as bytes.
//!
//! Numbers are little-endian; texts and byte strings carry their length. Points in time are wall time. Reading trusts
//! nothing: a value that ends early, or that goes on, is none. A value is written for good, so fields are only ever added
//! at the end, and the store as a whole has a format number beside them.

use crate::broker::core::access::Traits;
use crate::mqtt::{PacketId, QoS, Version};
use crate::store::NUMBER_MAX;

/// Who a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionRecord {
    pub(super) client_id: String,
    /// The user whose it is; none: anyone's.
    pub(super) owner: Option<String>,
    pub(super) expiry_s: u32,
    /// When it ends; none while somebody is connected.
    pub(super) ends_at_ms: Option<u64>,
    /// How many unanswered messages its client takes: twice as many of the oldest may have been sent while it was connected.
    pub(super) window: u32,
    /// Messages before this ordinal were sent when this was written.
    pub(super) sent: u64,
    pub(super) will: Option<WillRecord>,
    /// What rules go by besides the owner. Format 1 had none.
    pub(super) traits: Option<Traits>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WillRecord {
    /// A PUBLISH of version 5.
    pub(super) packet: Vec<u8>,
    pub(super) delay_s: u32,
    pub(super) expiry_s: Option<u32>,
    pub(super) due_at_ms: Option<u64>,
}

/// How a session subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubscriptionRecord {
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) identifier: u32,
}

/// A message in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MessageRecord {
    /// The version that the packet is encoded for.
    pub(super) version: Version,
    pub(super) expires_at_ms: Option<u64>,
    /// The shared subscription that chose its session.
    pub(super) shared: Option<String>,
    /// A PUBLISH.
    pub(super) packet: Vec<u8>,
}

/// What is half way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgressRecord {
    /// The ordinal of the oldest message that is still of use, or of the next one.
    pub(super) head: u64,
    /// Messages behind that which the client has, by ordinal.
    pub(super) answered: Vec<(u64, Answered)>,
    /// Incoming QoS 2 messages that the client did not release.
    pub(super) received: Vec<PacketId>,
}

/// How far a message is with its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// PUBREC came: PUBREL is due.
    Released,
    /// It is over.
    Done,
}

#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Writer {
        Writer(Vec::with_capacity(bytes))
    }

    pub(super) fn u8(mut self, value: u8) -> Writer {
        self.0.push(value);
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Writer {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Writer {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn time(self, value: Option<u64>) -> Writer {
        match value {
            Some(ms) => self.u8(1).u64(ms),
            None => self.u8(0),
        }
    }

    pub(super) fn text(self, value: Option<&str>) -> Writer {
        match value {
            Some(text) => self.u8(1).bytes(text.as_bytes()),
            None => self.u8(0),
        }
    }

    pub(super) fn bytes(self, value: &[u8]) -> Writer {
        let mut writer = self.u32(value.len() as u32);
        writer.0.extend_from_slice(value);
        writer
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn flag(&mut self) -> Option<bool> {
        self.u8().and_then(|byte| (byte < 2).then_some(byte == 1))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Option<u64>> {
        if self.flag()? { self.u64().map(Some) } else { Some(None) }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

impl SessionRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let writer = Writer::default()
            .bytes(self.client_id.as_bytes())
            .text(self.owner.as_deref())
            .u32(self.expiry_s)
            .time(self.ends_at_ms)
            .u32(self.window)
            .u64(self.sent);
        let writer = match &self.will {
            None => writer.u8(0),
            Some(will) => {
                let writer = writer.u8(1).bytes(&will.packet).u32(will.delay_s);
                writer.time(will.expiry_s.map(u64::from)).time(will.due_at_ms)
            }
        };
        let json = |traits| serde_json::to_string(traits).expect("addresses, names and rules are JSON");
        writer.text(self.traits.as_ref().map(json).as_deref()).0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<SessionRecord> {
        let mut reader = Reader(bytes);
        let record = SessionRecord {
            client_id: reader.text()?,
            owner: if reader.flag()? { Some(reader.text()?) } else { None },
            expiry_s: reader.u32()?,
            ends_at_ms: reader.time()?,
            window: reader.u32()?,
            sent: reader.u64()?,
            will: if reader.flag()? { Some(WillRecord::decode(&mut reader)?) } else { None },
            traits: match reader.0.is_empty() || !reader.flag()? {
                true => None,
                false => Some(serde_json::from_slice(reader.bytes()?).ok()?),
            },
        };
        reader.end(record)
    }
}

impl WillRecord {
    fn decode(reader: &mut Reader) -> Option<WillRecord> {
        Some(WillRecord {
            packet: reader.bytes()?.to_vec(),
            delay_s: reader.u32()?,
            expiry_s: reader.time()?.and_then(|s| u32::try_from(s).ok()),
            due_at_ms: reader.time()?,
        })
    }
}

impl SubscriptionRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let flags = u8::from(self.no_local) | u8::from(self.retain_as_published) << 1;
        Writer::default().u8(self.qos as u8).u8(flags).u32(self.identifier).0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<SubscriptionRecord> {
        let mut reader = Reader(bytes);
        let qos = QoS::from_u8(reader.u8()?)?;
        let flags = reader.u8()?;
        let identifier = reader.u32()?;
        let (no_local, retain_as_published) = (flags & 1 != 0, flags & 2 != 0);
        reader.end(SubscriptionRecord { qos, no_local, retain_as_published, identifier })
    }
}

impl MessageRecord {
    /// What comes before the packet, which is the rest.
    pub(super) fn begin(
        version: Version,
        expires_at_ms: Option<u64>,
        shared: Option<&str>,
        room: usize,
    ) -> Vec<u8> {
        let writer = Writer::with_capacity(32 + shared.map_or(0, str::len) + room)
            .u8(u8::from(version == Version::V5))
            .time(expires_at_ms);
        writer.text(shared).0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<MessageRecord> {
        let mut reader = Reader(bytes);
        Some(MessageRecord {
            version: if reader.flag()? { Version::V5 } else { Version::V3 },
            expires_at_ms: reader.time()?,
            shared: if reader.flag()? { Some(reader.text()?) } else { None },
            packet: reader.0.to_vec(),
        })
    }
}

impl ProgressRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(16 + self.answered.len() * 8 + self.received.len() * 2)
            .u64(self.head)
            .u32(self.answered.len() as u32);
        for &(ordinal, how) in &self.answered {
            writer = writer.u64(ordinal << 1 | u64::from(how == Answered::Done));
        }
        self.received.iter().for_each(|id| writer.0.extend_from_slice(&id.get().to_le_bytes()));
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<ProgressRecord> {
        let mut reader = Reader(bytes);
        let head = reader.u64().filter(|&head| head <= NUMBER_MAX)?;
        let count = reader.u32()? as usize;
        let (answered, _) = reader.take(count.checked_mul(8)?)?.as_chunks::<8>();
        let answered = answered.iter().map(|word| {
            let word = u64::from_le_bytes(*word);
            (word >> 1, if word & 1 == 1 { Answered::Done } else { Answered::Released })
        });
        let answered = answered.collect();
        let (received, rest) = reader.0.as_chunks::<2>();
        let received =
            received.iter().map(|id| PacketId::new(u16::from_le_bytes(*id))).collect::<Option<_>>()?;
        rest.is_empty().then_some(ProgressRecord { head, answered, received })
    }
}
