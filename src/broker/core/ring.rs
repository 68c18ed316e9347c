//! Packet ids of one session's outgoing QoS 1 and 2 messages: a ring with a base, no hash map.
//!
//! Ids are given in order, so an id's place is its distance from the oldest open one. A client that never answers the
//! oldest holds the ring back: its length is bounded by twice the window.
//!
//! Invariants: the front is never `Done`; `open` counts what is not `Done`.

use std::collections::VecDeque;

use super::delivery::Delivery;
use crate::mqtt::{PacketId, QoS};

/// Ids run from 1 to 65,535 and begin again.
const IDS: usize = 65_535;

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
    /// The id of the front, less one.
    base: usize,
    slots: VecDeque<Slot>,
    open: usize,
}

impl Ring {
    pub(super) fn new() -> Ring {
        Ring { base: 0, slots: VecDeque::new(), open: 0 }
    }

    /// True if one more may be sent to a client that takes `window` at a time.
    pub(super) fn has_room(&self, window: usize) -> bool {
        self.open < window && self.slots.len() < (2 * window).min(IDS)
    }

    /// How many are not answered.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Takes a message and gives it the next id.
    pub(super) fn push(&mut self, delivery: Delivery) -> PacketId {
        self.push_slot(Slot::Sent(delivery))
    }

    /// Takes back what an export gave out, under the id it had.
    pub(super) fn restore(&mut self, id: PacketId, slot: Slot) {
        if self.slots.is_empty() {
            self.base = usize::from(id.get()) - 1;
        }
        while self.next_id() != id && self.slots.len() < IDS {
            self.slots.push_back(Slot::Done);
        }
        self.push_slot(slot);
    }

    /// PUBACK: ends a QoS 1 message. False if there is none with this id.
    pub(super) fn acknowledge(&mut self, id: PacketId) -> bool {
        match self.slot(id) {
            Some(slot @ Slot::Sent(_)) if slot.qos() == Some(QoS::AtLeastOnce) => *slot = Slot::Done,
            _ => return false,
        }
        self.finish();
        true
    }

    /// PUBREC: the message is with the client. False if there is none with this id.
    pub(super) fn receive(&mut self, id: PacketId) -> bool {
        match self.slot(id) {
            Some(slot @ Slot::Sent(_)) if slot.qos() == Some(QoS::ExactlyOnce) => *slot = Slot::Released,
            Some(Slot::Released) => {}
            _ => return false,
        }
        true
    }

    /// PUBREC with an error: the client will not have it.
    pub(super) fn refuse(&mut self, id: PacketId) -> bool {
        match self.slot(id) {
            Some(slot @ Slot::Sent(_)) => *slot = Slot::Done,
            _ => return false,
        }
        self.finish();
        true
    }

    /// PUBCOMP: ends a QoS 2 message. False if there is none with this id.
    pub(super) fn complete(&mut self, id: PacketId) -> bool {
        match self.slot(id) {
            Some(slot @ Slot::Released) => *slot = Slot::Done,
            _ => return false,
        }
        self.finish();
        true
    }

    /// What is not answered, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PacketId, &Slot)> {
        let ids = (0..).map(|at| id_at(self.base, at));
        ids.zip(&self.slots).filter(|(_, slot)| !matches!(slot, Slot::Done))
    }

    /// What an id stands for, if it is not answered.
    pub(super) fn get(&self, id: PacketId) -> Option<&Slot> {
        self.slots.get(self.place(id)).filter(|slot| !matches!(slot, Slot::Done))
    }

    /// What is not answered, oldest first, to be changed in place.
    pub(super) fn sent_mut(&mut self) -> impl Iterator<Item = &mut Delivery> {
        self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Sent(delivery) => Some(delivery),
            Slot::Done | Slot::Released => None,
        })
    }

    fn push_slot(&mut self, slot: Slot) -> PacketId {
        let id = self.next_id();
        self.slots.push_back(slot);
        self.open += 1;
        id
    }

    fn next_id(&self) -> PacketId {
        id_at(self.base, self.slots.len())
    }

    fn slot(&mut self, id: PacketId) -> Option<&mut Slot> {
        let at = self.place(id);
        self.slots.get_mut(at)
    }

    fn place(&self, id: PacketId) -> usize {
        (usize::from(id.get()) - 1 + IDS - self.base) % IDS
    }

    fn finish(&mut self) {
        self.open -= 1;
        while let Some(Slot::Done) = self.slots.front() {
            self.slots.pop_front();
            self.base = (self.base + 1) % IDS;
        }
    }
}

impl Slot {
    fn qos(&self) -> Option<QoS> {
        match self {
            Slot::Sent(delivery) => Some(delivery.frame.qos()),
            Slot::Done | Slot::Released => None,
        }
    }
}

fn id_at(base: usize, at: usize) -> PacketId {
    let id = ((base + at) % IDS + 1) as u16;
    PacketId::new(id).expect("an id is one more than a remainder")
}
