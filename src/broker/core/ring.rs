//! Packet ids of one session's outgoing QoS 1 and 2 messages: a ring with a base, no hash map.
//!
//! Messages have ordinals, counted from the session's first on, and an ordinal gives the packet id: so what is on disk needs
//! no packet id, and a message that was sent before a restart is sent with the same one after it. An id's place is its
//! distance from the oldest open one. A client that never answers the oldest holds the ring back: its length is bounded
//! by twice the window, and what it holds by [`BYTES_MAX`], besides what came in a row with it (`row.rs`).
//!
//! Invariants: the front is never `Done`; `open` counts what is not `Done`; `bytes` is the sum over what is `Sent`.

use std::collections::VecDeque;

use super::delivery::Delivery;
use crate::mqtt::{PacketId, QoS, Version};

/// Ids run from 1 to 65,535 and begin again.
pub(super) const IDS: usize = 65_535;
/// How many bytes may be in flight before no more is sent, however many messages the client takes at once: one that never
/// answers must not hold more. A single message may exceed it.
pub(super) const BYTES_MAX: usize = 32 << 20;

/// What an id stands for.
pub(super) enum Slot {
    /// Answered; its place waits for the older ones.
    Done,
    /// PUBLISH sent; waits for PUBACK or PUBREC.
    Sent(Delivery),
    /// PUBREL sent; waits for PUBCOMP.
    Released,
}

/// The outgoing messages in flight.
pub(super) struct Ring {
    /// The ordinal of the front.
    first: u64,
    /// What is left of it when divided by [`IDS`], which is asked for with every message and answer.
    first_id: u16,
    open: u32,
    slots: VecDeque<Slot>,
    bytes: usize,
}

impl Ring {
    pub(super) fn new() -> Ring {
        Ring { first: 0, first_id: 0, open: 0, slots: VecDeque::new(), bytes: 0 }
    }

    /// True if one more may be sent to a client that takes `window` at a time.
    pub(super) fn has_room(&self, window: usize) -> bool {
        let (messages, bytes) = self.room(window);
        messages > 0 && bytes > 0
    }

    /// How many more may be sent to such a client, and of how many bytes; the last may have more.
    pub(super) fn room(&self, window: usize) -> (usize, usize) {
        let places = longest(window).saturating_sub(self.slots.len());
        (places.min(window.saturating_sub(self.open())), BYTES_MAX.saturating_sub(self.bytes))
    }

    /// How many bytes are in flight.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many are not answered.
    pub(super) fn open(&self) -> usize {
        self.open as usize
    }

    /// Takes a message; it has the next id.
    #[inline]
    pub(super) fn push(&mut self, delivery: Delivery) {
        self.push_slot(Slot::Sent(delivery));
    }

    /// The ordinal of the oldest that is not answered; the next one's if all are.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The ordinal that the next message gets.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Counts a message that is not sent: its ordinal is used up.
    pub(super) fn skip(&mut self) {
        self.slots.push_back(Slot::Done);
        self.trim();
    }

    /// Begins at another ordinal; only while nothing is in flight.
    pub(super) fn begin_at(&mut self, ordinal: u64) {
        debug_assert!(self.slots.is_empty());
        self.set_first(ordinal);
    }

    /// Takes back what an export gave out, under the id it had.
    pub(super) fn restore(&mut self, id: PacketId, slot: Slot) {
        if self.slots.is_empty() {
            self.set_first(self.first + self.place(id) as u64);
        }
        while self.next_id() != id && self.slots.len() < IDS {
            self.slots.push_back(Slot::Done);
        }
        self.push_slot(slot);
    }

    /// PUBACK: ends a QoS 1 message, and gives it out. Nothing if there is none with this id.
    #[inline]
    pub(super) fn acknowledge(&mut self, id: PacketId) -> Option<Delivery> {
        let at = self.place(id);
        let slot = self.slots.get_mut(at)?;
        if slot.qos() != Some(QoS::AtLeastOnce) {
            return None;
        }
        // Nearly always it is the oldest.
        let slot = match at {
            0 => {
                self.advance();
                self.slots.pop_front()?
            }
            _ => std::mem::replace(slot, Slot::Done),
        };
        self.bytes -= slot.bytes();
        self.open -= 1;
        self.trim();
        match slot {
            Slot::Sent(delivery) => Some(delivery),
            Slot::Done | Slot::Released => None,
        }
    }

    /// PUBREC: the message is with the client. Tells whether that is new; nothing if there is none with this id.
    pub(super) fn receive(&mut self, id: PacketId) -> Option<bool> {
        match self.get(id) {
            Some(slot) if slot.qos() == Some(QoS::ExactlyOnce) => {
                self.replace(id, Slot::Released);
                Some(true)
            }
            Some(Slot::Released) => Some(false),
            _ => None,
        }
    }

    /// PUBREC with an error: the client will not have it.
    pub(super) fn refuse(&mut self, id: PacketId) -> bool {
        let is_right = matches!(self.get(id), Some(Slot::Sent(_)));
        if is_right {
            self.finish(id);
        }
        is_right
    }

    /// PUBCOMP: ends a QoS 2 message. False if there is none with this id.
    pub(super) fn complete(&mut self, id: PacketId) -> bool {
        let is_right = matches!(self.get(id), Some(Slot::Released));
        if is_right {
            self.finish(id);
        }
        is_right
    }

    /// What is not answered, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PacketId, &Slot)> {
        let open = self.numbered().filter(|(_, slot)| !matches!(slot, Slot::Done));
        open.map(|(ordinal, slot)| (id_of(ordinal), slot))
    }

    /// The ids of what is not answered, for a client that came back: PUBREL first, which needs no quota. [MQTT-3.3.4-10]
    pub(super) fn unanswered(&self) -> VecDeque<PacketId> {
        let is_release = |(_, slot): &(PacketId, &Slot)| matches!(slot, Slot::Released);
        let (releases, messages): (Vec<_>, Vec<_>) = self.iter().partition(is_release);
        releases.into_iter().chain(messages).map(|(id, _)| id).collect()
    }

    /// True if an id stands for a message of this QoS that waits for its first answer, or for one that waits for PUBCOMP if
    /// there is no QoS.
    pub(super) fn awaits(&self, id: PacketId, qos: Option<QoS>) -> bool {
        self.get(id).is_some_and(|slot| slot.qos() == qos)
    }

    /// Everything from the oldest that is not answered on, by ordinal.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u64, &Slot)> {
        (self.first..).zip(&self.slots)
    }

    /// What an id stands for, if it is not answered.
    pub(super) fn get(&self, id: PacketId) -> Option<&Slot> {
        self.slots.get(self.place(id)).filter(|slot| !matches!(slot, Slot::Done))
    }

    /// Encodes everything again, for a client that came back with another version.
    pub(super) fn translate(&mut self, from: Version, to: Version) {
        let mut bytes = 0;
        for slot in &mut self.slots {
            if let Slot::Sent(delivery) = slot {
                delivery.translate(from, to);
                bytes += delivery.frame.len();
            }
        }
        self.bytes = bytes;
    }

    #[inline]
    fn push_slot(&mut self, slot: Slot) {
        self.bytes += slot.bytes();
        self.slots.push_back(slot);
        self.open += 1;
    }

    /// The id that the next message gets.
    #[inline]
    pub(super) fn next_id(&self) -> PacketId {
        let at = usize::from(self.first_id) + self.slots.len();
        PacketId::new((if at < IDS { at } else { at - IDS }) as u16 + 1)
            .expect("it is one more than a remainder")
    }

    fn replace(&mut self, id: PacketId, with: Slot) {
        let at = self.place(id);
        self.bytes -= self.slots[at].bytes();
        self.slots[at] = with;
    }

    fn place(&self, id: PacketId) -> usize {
        match (id.get() - 1).checked_sub(self.first_id) {
            Some(at) => usize::from(at),
            None => usize::from(id.get()) - 1 + IDS - usize::from(self.first_id),
        }
    }

    fn finish(&mut self, id: PacketId) {
        self.replace(id, Slot::Done);
        self.open -= 1;
        self.trim();
    }

    #[inline]
    fn trim(&mut self) {
        while let Some(Slot::Done) = self.slots.front() {
            self.slots.pop_front();
            self.advance();
        }
    }

    /// The front is gone.
    #[inline]
    fn advance(&mut self) {
        self.first += 1;
        self.first_id = if usize::from(self.first_id) == IDS - 1 { 0 } else { self.first_id + 1 };
    }

    fn set_first(&mut self, ordinal: u64) {
        self.first = ordinal;
        self.first_id = (ordinal % IDS as u64) as u16;
    }
}

impl Slot {
    fn qos(&self) -> Option<QoS> {
        match self {
            Slot::Sent(delivery) => Some(delivery.frame.qos()),
            Slot::Done | Slot::Released => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Slot::Sent(delivery) => delivery.frame.len(),
            Slot::Done | Slot::Released => 0,
        }
    }
}

/// How many places a ring has at most, for a client that takes `window` at a time.
#[inline]
pub(super) fn longest(window: usize) -> usize {
    (2 * window).min(IDS)
}

/// The packet id of a message.
pub(super) fn id_of(ordinal: u64) -> PacketId {
    let id = (ordinal % IDS as u64 + 1) as u16;
    PacketId::new(id).expect("an id is one more than a remainder")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{Frame, Properties, Publish};

    fn delivery() -> Delivery {
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties: Properties::EMPTY,
            payload: b"",
        };
        Delivery { frame: Frame::publish(&publish, Version::V5), expires_at: None, group: None }
    }

    #[test]
    fn ids_follow_from_ordinals_wherever_the_ring_is() {
        let ids = IDS as u64;
        for first in [0, 1, ids - 2, ids - 1, ids, 7 * ids - 3] {
            let mut ring = Ring::new();
            ring.begin_at(first);
            for ordinal in first..first + 6 {
                assert_eq!(ring.next_id(), id_of(ordinal));
                ring.push(delivery());
            }
            // The oldest goes last of these.
            for ordinal in [first + 2, first + 1, first, first + 3] {
                assert!(ring.acknowledge(id_of(ordinal)).is_some() && ring.get(id_of(ordinal)).is_none());
            }
            assert!(ring.acknowledge(id_of(first)).is_none() && ring.acknowledge(id_of(first + 6)).is_none());
            assert_eq!((ring.first(), ring.open(), ring.next_id()), (first + 4, 2, id_of(first + 6)));
            assert!(ring.get(id_of(first + 5)).is_some());
        }
    }
}
