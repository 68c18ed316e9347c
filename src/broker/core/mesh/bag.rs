//! What travels from one shard to another in one go: a list of items, and the bytes of the messages among them.
//!
//! Messages are copied into one buffer, as the packets that brought them where these may go out again, and read where they
//! lie: a bag that goes back and forth allocates nothing. Messages of one shape behind one another, as most publishers send
//! them, are one item. Rare items own what they need. Order in a bag is the order in which things happened.

use std::sync::Arc;
use std::time::Instant;

use super::super::SessionId;
use super::super::delivery::Outgoing;
use super::super::members::{Member, Presence, Seat};
use super::super::row::Row;
use crate::mqtt::{Filter, PlainPublish, Properties, Publish, QoS, SharedFilter, Version};

/// A message's place in the bytes of a bag, and what is not in them.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Parcel {
    start: usize,
    shape: Shape,
    expires_at: Option<Instant>,
}

impl Parcel {
    pub(in super::super) fn is_tied(&self) -> bool {
        self.shape.is_tied
    }

    /// The place of the message of the same shape that lies so many behind it.
    pub(super) fn behind(self, count: usize) -> Parcel {
        Parcel { start: self.start + count * self.shape.length(), ..self }
    }

    /// The bytes of so many messages of one shape.
    pub(super) fn bytes_of(self, bytes: &[u8], count: usize) -> &[u8] {
        &bytes[self.start..][..count * self.shape.length()]
    }
}

/// What many messages in a row have in common.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// The version of the packet that lies here, if the message travels as it came.
    packet: Option<Version>,
    /// How many bytes lie before the topic, …
    header: u8,
    topic: u16,
    /// … and how many behind it, before properties and payload.
    middle: u8,
    properties: u32,
    payload: u32,
    qos: QoS,
    retain: bool,
    /// What is stored of it goes to disk together with what its publisher's shard notes.
    is_tied: bool,
}

impl Shape {
    #[inline]
    fn length(&self) -> usize {
        let texts = usize::from(self.header) + usize::from(self.topic) + usize::from(self.middle);
        texts + self.properties as usize + self.payload as usize
    }

    /// True if a packet that may go out as it came is of this shape: there is one way to be as long with as long a payload.
    #[inline]
    fn is_of(&self, publish: &Publish, version: Version, packet: &[u8], is_tied: bool) -> bool {
        self.packet == Some(version)
            && self.length() == packet.len()
            && self.payload as usize == publish.payload.len()
            && usize::from(self.topic) == publish.topic.len()
            && self.qos == publish.qos
            && self.retain == publish.retain
            && self.is_tied == is_tied
    }
}

/// One thing that a shard says to another.
#[derive(Debug)]
pub(in super::super) enum Item {
    /// A message that the other's subscribers want, and more of its shape behind it; `keeps` if the other is to retain them,
    /// `is_row` if they were a row.
    Publish { parcel: Parcel, more: u32, keeps: bool, is_row: bool },
    /// How far the sender is with what it got.
    Confirm(Confirm),
    /// A message of a shared group for one of its members.
    Assign { to: Seat, shared: Arc<SharedFilter>, attempt: Try, parcel: Parcel },
    /// A message of a shared group, for its owner to place anew: the assigned one of this number, or one from the queue of a
    /// session that is no member any more; if that is still there, the giver, it gets back what nobody takes. So many members
    /// had no room for it.
    Return {
        shared: Arc<SharedFilter>,
        instead_of: Option<u64>,
        giver: Option<Seat>,
        tried: u8,
        parcel: Parcel,
    },
    /// A retained message that was asked for.
    Shown { show: ShowId, parcel: Parcel },
    /// Everything else is rare.
    Rare(Box<Rare>),
}

/// How many members that have no room are asked to take a message, besides those of whom that was not known before.
pub(in super::super) const TRIES_MAX: u8 = 8;

/// What happens to an assigned message that does not find room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Try {
    /// It goes back, for another member to have it; so many had no room before.
    After(u8),
    /// It is dropped: nobody is known to have room.
    Last,
    /// The session gave it itself, when it was a member: as before.
    Back,
}

/// What shards say seldom.
#[derive(Debug)]
pub(in super::super) enum Rare {
    /// The sender has a first subscriber, or lost its last one.
    Interest { filter: Filter, group: Option<Arc<str>>, wanted: bool },
    /// What the sender wants of a filter may have to be stored there.
    Kept { filter: Filter },
    /// A session of the sender becomes a member of a group that the other owns.
    Join { shared: SharedFilter, member: Member },
    /// It is no member any more.
    Leave { shared: SharedFilter, session: SessionId },
    /// It is more ready, or less, than it was.
    Presence { shared: SharedFilter, session: SessionId, presence: Presence },
    /// The sender wants to see what the other retains.
    Show { show: ShowId, filter: Filter },
    /// The first part of that is behind, and there may be more.
    ShownFirst { show: ShowId },
    /// That was all.
    ShownAll { show: ShowId },
    /// The sender wants no more of it.
    ShowNoMore { show: ShowId },
}

impl Rare {
    /// The filter that it owns, or shares with the sender until that lets go of it.
    fn text(&self) -> Option<&Filter> {
        match self {
            Rare::Interest { filter, .. } | Rare::Kept { filter } | Rare::Show { filter, .. } => Some(filter),
            Rare::Join { shared, .. } | Rare::Leave { shared, .. } | Rare::Presence { shared, .. } => {
                Some(&shared.filter)
            }
            Rare::ShownFirst { .. } | Rare::ShownAll { .. } | Rare::ShowNoMore { .. } => None,
        }
    }
}

/// How much of what came is done, by [`Lane`](super::Lane).
pub(in super::super) type Confirm = [u64; super::LANES];

/// A search for retained messages, as the shard that asks names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct ShowId(pub(in super::super) u64);

/// Items and bytes, from one shard to one other.
#[derive(Debug, Default)]
pub struct Bag {
    pub(in super::super) items: Vec<Item>,
    pub(in super::super) bytes: Vec<u8>,
    /// What the rare items own, about, and what messages that are one item would weigh as one each: a bag is to be
    /// no more work than its weight says.
    owned: usize,
}

/// What an item costs besides its bytes.
const ITEM_BYTES: usize = size_of::<Item>();
/// How much memory an empty bag may keep.
const KEPT_BYTES: usize = 256 * 1024;

impl Bag {
    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How much memory what is in it takes, about.
    pub fn weight(&self) -> usize {
        self.items.len() * ITEM_BYTES + self.bytes.len() + self.owned
    }

    /// Forgets what is in it and keeps the memory, if it is not too much.
    pub fn clear(&mut self) {
        self.items.clear();
        self.bytes.clear();
        self.owned = 0;
        self.bytes.shrink_to(KEPT_BYTES);
        self.items.shrink_to(KEPT_BYTES / ITEM_BYTES);
    }

    /// Adds what is said seldom.
    pub(super) fn say(&mut self, rare: Rare) {
        self.owned += size_of::<Rare>() + rare.text().map_or(0, |filter| filter.as_str().len());
        self.items.push(Item::Rare(Box::new(rare)));
    }

    /// Adds a message that the other's subscribers want.
    #[inline]
    pub(super) fn publish(&mut self, outgoing: &Outgoing, is_tied: bool, keeps: bool) {
        if let (Some(Item::Publish { parcel, more, keeps: others, is_row: false }), Some((version, packet))) =
            (self.items.last_mut(), outgoing.packet)
            && *others == keeps
            && parcel.shape.is_of(&outgoing.publish, version, packet, is_tied)
        {
            *more += 1;
            self.owned += ITEM_BYTES;
            return self.bytes.extend_from_slice(packet);
        }
        let parcel = self.pack(outgoing, is_tied);
        self.items.push(Item::Publish { parcel, more: 0, keeps, is_row: false });
    }

    /// Adds messages in a row, as they came, to a topic of so many bytes.
    pub(super) fn publish_row(&mut self, version: Version, topic: usize, row: &Row) {
        let (start, mut last) = (self.bytes.len(), 0);
        self.bytes.extend_from_slice(row.bytes);
        for &(at, PlainPublish { len, topic_end, packet_id }) in row.messages {
            if len == last
                && let Some(Item::Publish { more, .. }) = self.items.last_mut()
            {
                *more += 1;
                self.owned += ITEM_BYTES;
                continue;
            }
            last = len;
            let middle = 2 * usize::from(packet_id.is_some()) + usize::from(version == Version::V5);
            let shape = Shape {
                packet: Some(version),
                header: (topic_end - topic) as u8,
                topic: topic as u16,
                middle: middle as u8,
                properties: 0,
                payload: (len - topic_end - middle) as u32,
                qos: row.qos,
                retain: false,
                is_tied: false,
            };
            let parcel = Parcel { start: start + at, shape, expires_at: None };
            self.items.push(Item::Publish { parcel, more: 0, keeps: false, is_row: true });
        }
    }

    /// Copies a message in.
    #[inline]
    pub(in super::super) fn pack(&mut self, outgoing: &Outgoing, is_tied: bool) -> Parcel {
        let Publish { topic, properties, payload, qos, retain, .. } = &outgoing.publish;
        let start = self.bytes.len();
        let (mut header, mut middle) = (0, 0);
        match outgoing.packet {
            Some((version, packet)) => {
                self.bytes.extend_from_slice(packet);
                let topic_end = outgoing.topic_end(version, packet);
                (header, middle) = (topic_end - topic.len(), packet.len() - payload.len() - topic_end);
            }
            None => {
                self.bytes.extend_from_slice(topic.as_bytes());
                self.bytes.extend_from_slice(properties.as_bytes());
                self.bytes.extend_from_slice(payload);
            }
        }
        let shape = Shape {
            packet: outgoing.packet.map(|(version, _)| version),
            // The fixed header and the topic's length; the packet id and an empty list of properties.
            header: header as u8,
            middle: middle as u8,
            topic: topic.len() as u16, // MQTT's own limit
            properties: properties.as_bytes().len() as u32,
            payload: payload.len() as u32,
            qos: *qos,
            retain: *retain,
            is_tied,
        };
        Parcel { start, shape, expires_at: outgoing.expires_at }
    }

    /// Reads a message where it lies. `before` may be the topic of the message before it: most come many at a time.
    #[inline]
    pub(in super::super) fn unpack<'a>(bytes: &'a [u8], parcel: Parcel, before: &'a str) -> Outgoing<'a> {
        let Parcel { start, shape, expires_at } = parcel;
        let all = &bytes[start..start + shape.length()];
        let (head, payload) = all.split_at(all.len() - shape.payload as usize);
        let (head, properties) = head.split_at(head.len() - shape.properties as usize);
        let topic = &head[usize::from(shape.header)..head.len() - usize::from(shape.middle)];
        let topic = match topic == before.as_bytes() {
            true => before,
            false => std::str::from_utf8(topic).expect("a topic was packed as text"),
        };
        let publish = Publish {
            dup: false,
            qos: shape.qos,
            retain: shape.retain,
            topic,
            packet_id: None,
            properties: Properties::parse_publish(properties).expect("properties were packed valid"),
            payload,
        };
        let packet = shape.packet.map(|version| (version, all));
        Outgoing { publish, expires_at, packet }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{Limits, Packet, PacketId, PropertiesBuf, Property, decode, encode_publish};

    /// A message as a client sends it.
    #[derive(Clone, Debug, PartialEq)]
    struct Sent {
        topic: &'static str,
        payload: &'static str,
        qos: QoS,
        retain: bool,
        version: Version,
        has_properties: bool,
    }

    fn pack(bag: &mut Bag, sent: &Sent, is_tied: bool, keeps: bool) {
        let mut properties = PropertiesBuf::default();
        if sent.has_properties {
            properties.push(Property::ContentType("text"));
        }
        let publish = Publish {
            dup: false,
            qos: sent.qos,
            retain: sent.retain,
            topic: sent.topic,
            packet_id: (sent.qos > QoS::AtMostOnce).then_some(PacketId::MIN),
            properties: properties.as_properties(),
            payload: sent.payload.as_bytes(),
        };
        let mut packet = Vec::new();
        encode_publish(&publish, sent.version, &mut packet);
        let packet = (!sent.has_properties).then_some((sent.version, &*packet));
        bag.publish(&Outgoing { publish, expires_at: None, packet }, is_tied, keeps);
    }

    /// What comes out of a bag, as it went in; and what is noted of it.
    fn unpack(bag: &mut Bag) -> Vec<(Sent, bool, bool)> {
        let Bag { items, bytes, .. } = bag;
        let mut all = Vec::new();
        for item in items.drain(..) {
            let Item::Publish { parcel, more, keeps, .. } = item else { panic!("there are only messages") };
            for parcel in (0..=more as usize).map(|n| parcel.behind(n)) {
                let outgoing = Bag::unpack(bytes, parcel, "a/b");
                let Publish { topic, payload, qos, retain, properties, .. } = outgoing.publish;
                let has_properties = !properties.is_empty();
                let version = outgoing.packet.map_or(Version::V5, |(version, packet)| {
                    let read =
                        decode(packet, version, &Limits::default()).expect("it is one").expect("whole");
                    assert!(
                        matches!(read, (Packet::Publish(it), _) if it.topic == topic && it.payload == payload)
                    );
                    version
                });
                let topic =
                    ["a/b", "a/c", "a/bc"].into_iter().find(|known| *known == topic).expect("one of these");
                let payload =
                    ["one", "two", "three"].into_iter().find(|it| it.as_bytes() == payload).expect("one");
                all.push((
                    Sent { topic, payload, qos, retain, version, has_properties },
                    parcel.is_tied(),
                    keeps,
                ));
            }
        }
        all
    }

    #[test]
    fn messages_come_out_as_they_went_in_whatever_was_before_them() {
        let first = Sent {
            topic: "a/b",
            payload: "one",
            qos: QoS::AtMostOnce,
            retain: false,
            version: Version::V5,
            has_properties: false,
        };
        let mut kinds =
            vec![(first.clone(), false, false), (first.clone(), true, false), (first.clone(), false, true)];
        let others = [
            Sent { topic: "a/c", ..first.clone() },
            Sent { topic: "a/bc", payload: "one", ..first.clone() },
            Sent { payload: "two", ..first.clone() },
            Sent { payload: "three", ..first.clone() },
            Sent { qos: QoS::AtLeastOnce, ..first.clone() },
            Sent { qos: QoS::ExactlyOnce, ..first.clone() },
            Sent { retain: true, ..first.clone() },
            Sent { version: Version::V3, ..first.clone() },
            Sent { has_properties: true, ..first.clone() },
            // As long as the first, with another payload's length.
            Sent { version: Version::V3, topic: "a/bc", ..first },
        ];
        kinds.extend(others.map(|sent| (sent, false, false)));
        let mut bag = Bag::default();
        for one in &kinds {
            for other in &kinds {
                let all = [one, one, other, other, one, other].map(Clone::clone);
                all.iter().for_each(|(sent, is_tied, keeps)| pack(&mut bag, sent, *is_tied, *keeps));
                assert_eq!(unpack(&mut bag), all);
                bag.clear();
            }
        }
    }

    #[test]
    fn messages_of_one_shape_are_one_item_and_weigh_what_they_are() {
        let mut bag = Bag::default();
        let sent = Sent {
            topic: "a/b",
            payload: "one",
            qos: QoS::AtLeastOnce,
            retain: false,
            version: Version::V5,
            has_properties: false,
        };
        (0..100).for_each(|_| pack(&mut bag, &sent, false, false));
        assert_eq!(bag.items.len(), 1);
        assert_eq!(bag.weight(), bag.bytes.len() + 100 * ITEM_BYTES);
        let mut row = Bag::default();
        let message = PlainPublish { len: 8, topic_end: 7, packet_id: None };
        let places: Vec<_> = (0..100).map(|n| (n * 8, message)).collect();
        let bytes = [0; 800];
        row.publish_row(
            Version::V3,
            4,
            &Row { bytes: &bytes, qos: QoS::AtMostOnce, count: 100, messages: &places },
        );
        assert_eq!((row.items.len(), row.weight()), (1, 800 + 100 * ITEM_BYTES));
        assert_eq!(unpack(&mut bag).len(), 100);
    }
}
