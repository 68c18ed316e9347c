//! What waits for a session, and how much waits for all sessions: of the shard, and of the node.
//!
//! A queue counts what comes and goes where all queues of its shard do, and takes off what it has when it is dropped: whoever
//! moves messages or ends sessions has nothing to count. A shard counts in plain numbers, and has the node's [`Room`] know them
//! when they are a step off: so the node's bound is exceeded by no more than a step for each other shard, and no message touches what
//! shards share.
//!
//! Invariants: `bytes` and `mortal` are the sums over `messages`; the backlog's counts are the sums over all queues of the shard.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::delivery::Delivery;
use super::room::{Gauge, Room};
use crate::mqtt::Version;
use crate::settings::Limits;

/// How many messages a shard may have more or fewer than the node knows of, …
const STEP: usize = 16;
/// … and how many bytes.
const STEP_BYTES: usize = 16 * 1024;
/// What a message takes in a queue besides its bytes, which several may share: its entry, and as much that is vacant where the queue
/// has just grown.
const ENTRY_BYTES: usize = 2 * size_of::<Delivery>();
/// How many places a queue keeps that is empty. A longer one that has been emptied by three quarters gives half of its back.
const PLACES_KEPT: usize = 64;
/// The part of what the node may have that only sessions get whose client is there: who takes what comes must not lose it
/// because others are away.
const RESERVE: usize = 8;

/// The messages that wait for a session.
pub(super) struct Queue {
    messages: VecDeque<Delivery>,
    bytes: usize,
    /// How many of them expire one day.
    mortal: usize,
    backlog: Rc<Backlog>,
}

impl Queue {
    pub(super) fn new(backlog: Rc<Backlog>) -> Queue {
        Queue { messages: VecDeque::new(), bytes: 0, mortal: 0, backlog }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// How many bytes they have, what they share with others included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of them expire one day, or have.
    pub(super) fn mortal(&self) -> usize {
        self.mortal
    }

    pub(super) fn front(&self) -> Option<&Delivery> {
        self.messages.front()
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.messages.iter()
    }

    #[inline]
    pub(super) fn push(&mut self, delivery: Delivery) {
        self.recount(1, 0, self.bytes + delivery.frame.len());
        self.mortal += usize::from(delivery.expires_at.is_some());
        self.messages.push_back(delivery);
    }

    /// Takes the oldest.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.messages.pop_front()?;
        let (len, places) = (self.messages.len(), self.messages.capacity());
        if places > PLACES_KEPT && len <= places / 4 {
            self.messages.shrink_to(places / 2);
        }
        self.recount(0, 1, self.bytes - delivery.frame.len());
        self.mortal -= usize::from(delivery.expires_at.is_some());
        Some(delivery)
    }

    /// Takes all.
    pub(super) fn take(&mut self) -> VecDeque<Delivery> {
        let messages = std::mem::take(&mut self.messages);
        self.mortal = 0;
        self.recount(0, messages.len(), 0);
        messages
    }

    /// Encodes everything again, for a client that came back with another version.
    pub(super) fn translate(&mut self, from: Version, to: Version) {
        self.messages.iter_mut().for_each(|delivery| delivery.translate(from, to));
        self.recount(0, 0, self.messages.iter().map(|delivery| delivery.frame.len()).sum());
    }

    /// So many messages came and went, and so many bytes are there now.
    #[inline]
    fn recount(&mut self, came: usize, went: usize, bytes: usize) {
        let backlog = &*self.backlog;
        backlog.messages.change(came, went, &backlog.room.queued, STEP);
        backlog.bytes.change(bytes, self.bytes, &backlog.room.queued_bytes, STEP_BYTES);
        self.bytes = bytes;
    }
}

impl Drop for Queue {
    #[inline]
    fn drop(&mut self) {
        if !self.is_empty() {
            self.take();
        }
    }
}

/// What waits for all sessions of a shard.
#[derive(Default)]
pub(super) struct Backlog {
    room: Arc<Room>,
    messages: Tally,
    bytes: Tally,
}

impl Backlog {
    pub(super) fn new(room: Arc<Room>) -> Backlog {
        Backlog { room, ..Backlog::default() }
    }

    pub(super) fn messages(&self) -> usize {
        self.messages.own.get()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.own.get()
    }

    /// True if one more message of so many bytes may wait on this node, for a client that is there or not.
    #[inline]
    pub(super) fn has_room(&self, bytes: usize, is_there: bool, limits: &Limits) -> bool {
        let part = |max: usize| if is_there { max } else { max - max / RESERVE };
        let messages = self.messages.of_node(&self.room.queued) + 1;
        let bytes = self.bytes.of_node(&self.room.queued_bytes) + bytes;
        messages <= part(messages_max(limits)) && bytes <= part(bytes_max(limits))
    }
}

/// How many messages may wait on a node; if the settings do not say, as many as take all of its memory at least, up to the mark.
fn messages_max(limits: &Limits) -> usize {
    match (limits.total_queued_messages_max, limits.memory_bytes_max) {
        (0, 0) => usize::MAX,
        (0, mark) => mark / ENTRY_BYTES,
        (max, _) => max,
    }
}

/// How many bytes. If the settings do not say, memory alone bounds them, where what a thousand sessions wait for may lie once.
fn bytes_max(limits: &Limits) -> usize {
    match limits.total_queued_bytes_max {
        0 => usize::MAX,
        max => max,
    }
}

/// How much of something a shard has, and of how much of that the node knows.
#[derive(Default)]
struct Tally {
    own: Cell<usize>,
    told: Cell<usize>,
}

impl Tally {
    #[inline]
    fn change(&self, came: usize, went: usize, node: &Gauge, step: usize) {
        let own = self.own.get() + came - went;
        self.own.set(own);
        if own.abs_diff(self.told.get()) >= step {
            self.tell(node);
        }
    }

    #[cold]
    fn tell(&self, node: &Gauge) {
        node.add(self.own.get());
        node.remove(self.told.replace(self.own.get()));
    }

    /// How much the node has, as far as it is known here.
    #[inline]
    fn of_node(&self, node: &Gauge) -> usize {
        node.get() - self.told.get() + self.own.get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::mqtt::{Frame, Properties, Publish, QoS};

    fn delivery(bytes: usize) -> Delivery {
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties: Properties::EMPTY,
            payload: &vec![0; bytes],
        };
        let expires_at = bytes.is_multiple_of(2).then(Instant::now);
        Delivery { frame: Frame::publish(&publish, Version::V3), expires_at, group: None }
    }

    #[test]
    fn a_queue_counts_itself_whatever_becomes_of_it() {
        let room = Arc::<Room>::default();
        let backlog = Rc::new(Backlog::new(Arc::clone(&room)));
        let mut queues: Vec<_> = (0..3).map(|_| Queue::new(Rc::clone(&backlog))).collect();
        let (mut random, mut most) = (1_u32, (0, 0));
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (which, what) = ((random >> 16) as usize % 3, (random >> 20) % 512);
            let queue = &mut queues[which];
            match what {
                0 => *queue = Queue::new(Rc::clone(&backlog)),
                1 => drop(queue.take()),
                2 => {
                    queue.translate(Version::V3, Version::V5);
                    queue.translate(Version::V5, Version::V3);
                }
                3..210 => drop(queue.pop()),
                _ => queue.push(delivery((random >> 8) as usize % 3_000)),
            }
            let sums: Vec<usize> =
                queues.iter().map(|one| one.iter().map(|one| one.frame.len()).sum()).collect();
            most = (most.0.max(backlog.messages()), most.1.max(backlog.bytes()));
            let places = |queue: &Queue| queue.messages.capacity();
            assert!(queues.iter().all(|queue| places(queue) <= PLACES_KEPT.max(4 * (queue.len() + 1))));
            assert!(queues.iter().zip(&sums).all(|(queue, sum)| queue.bytes() == *sum));
            let mortal = |queue: &Queue| queue.iter().filter(|one| one.expires_at.is_some()).count();
            assert!(queues.iter().all(|queue| queue.mortal() == mortal(queue)));
            assert_eq!(backlog.messages(), queues.iter().map(Queue::len).sum::<usize>());
            assert_eq!(backlog.bytes(), sums.iter().sum::<usize>());
            assert!(room.queued.get().abs_diff(backlog.messages()) < STEP);
            assert!(room.queued_bytes.get().abs_diff(backlog.bytes()) < STEP_BYTES);
            assert_eq!(backlog.messages.of_node(&room.queued), backlog.messages());
        }
        assert!(most.0 > 3 * STEP && most.1 > 3 * STEP_BYTES, "it had something to tell: {most:?}");
        queues.clear();
        assert_eq!((backlog.messages(), backlog.bytes()), (0, 0));
        assert!(room.queued.get() < STEP && room.queued_bytes.get() < STEP_BYTES);
    }

    #[test]
    fn what_may_wait_without_a_word_of_the_settings_follows_from_memory() {
        let limits = |mark| Limits { memory_bytes_max: mark, ..Limits::default() };
        assert_eq!((messages_max(&limits(0)), bytes_max(&limits(0))), (usize::MAX, usize::MAX));
        assert_eq!(messages_max(&limits(3 << 30)), 28_760_941); // at 56 bytes, and as much again
        let limits = Limits { total_queued_messages_max: 7, total_queued_bytes_max: 8, ..limits(3 << 30) };
        assert_eq!((messages_max(&limits), bytes_max(&limits)), (7, 8));
    }
}
