//! What travels from one shard to another in one go: a list of items, and the bytes of the messages among them.
//!
//! Messages are copied into one buffer, as the packets that brought them where these may go out again, and read where they
//! lie: a bag that goes back and forth allocates nothing. Rare
//! items own what they need. Order in a bag is the order in which things happened.

use std::sync::Arc;
use std::time::Instant;

use super::super::SessionId;
use super::super::delivery::Outgoing;
use super::super::members::{Member, Presence, Seat};
use crate::mqtt::{Filter, Properties, Publish, QoS, SharedFilter, Version};

/// A message's place in the bytes of a bag, and what is not in them.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Parcel {
    start: usize,
    /// The version of the packet that lies here, if the message travels as it came.
    packet: Option<Version>,
    /// How many bytes lie before the topic, …
    header: u8,
    topic: u16,
    /// … and how many behind it, before properties and payload.
    middle: u8,
    properties: u32,
    payload: u32,
    pub(in super::super) qos: QoS,
    retain: bool,
    expires_at: Option<Instant>,
    /// What is stored of it goes to disk together with what its publisher's shard notes.
    pub(super) is_tied: bool,
}

/// One thing that a shard says to another.
#[derive(Debug)]
pub(in super::super) enum Item {
    /// A message that the other's subscribers want; `keeps` if the other is to retain it.
    Publish { parcel: Parcel, keeps: bool },
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
            Rare::ShownAll { .. } | Rare::ShowNoMore { .. } => None,
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
    /// What the rare items own, about.
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
        Parcel {
            start,
            packet: outgoing.packet.map(|(version, _)| version),
            // The fixed header and the topic's length; the packet id and an empty list of properties.
            header: header as u8,
            middle: middle as u8,
            topic: topic.len() as u16, // MQTT's own limit
            properties: properties.as_bytes().len() as u32,
            payload: payload.len() as u32,
            qos: *qos,
            retain: *retain,
            expires_at: outgoing.expires_at,
            is_tied,
        }
    }

    /// Reads a message where it lies. `before` may be the topic of the message before it: most come many at a time.
    #[inline]
    pub(in super::super) fn unpack<'a>(bytes: &'a [u8], parcel: Parcel, before: &'a str) -> Outgoing<'a> {
        let all = &bytes[parcel.start..];
        let (topic, rest) = all[usize::from(parcel.header)..].split_at(usize::from(parcel.topic));
        let (properties, rest) = rest[usize::from(parcel.middle)..].split_at(parcel.properties as usize);
        let length = all.len() - rest.len() + parcel.payload as usize;
        let topic = match topic == before.as_bytes() {
            true => before,
            false => std::str::from_utf8(topic).expect("a topic was packed as text"),
        };
        let publish = Publish {
            dup: false,
            qos: parcel.qos,
            retain: parcel.retain,
            topic,
            packet_id: None,
            properties: Properties::parse_publish(properties).expect("properties were packed valid"),
            payload: &rest[..parcel.payload as usize],
        };
        let packet = parcel.packet.map(|version| (version, &all[..length]));
        Outgoing { publish, expires_at: parcel.expires_at, packet }
    }
}
