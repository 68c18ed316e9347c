//! Where the shards of a node leave bags for each other.
//!
//! An [`exchange`](Office::exchange) is one step for all: what a shard says to the others since its last one becomes theirs
//! at once, and what lies there for it is taken, in the order in which it was left. So whoever hears of a message can
//! say nothing about it that a third hears first, and "everywhere" has a moment. One lock for all, held for a few moves of
//! pointers, once a tick.
//!
//! What lies here is bounded: a shard leaves nothing while something waits for one of its recipients that it left there and
//! that has [`LEFT_BYTES_MAX`] already; it keeps it, and reads no more from its clients until it is rid of it. Taking is never
//! refused, and needs nobody, so nobody waits in a circle.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::bag::Bag;
use super::{ShardMask, ShardNumber};

/// How much one shard may have left for another that did not take it yet, in bytes; one bag more is let in on top.
const LEFT_BYTES_MAX: usize = 1 << 20;
/// How many empty bags are kept for the next words. They lie with all others, as a shard that only hears would keep them from
/// one that only speaks.
const SPARE_MAX: usize = 16;

/// The exchange between the shards of one node.
#[derive(Debug)]
pub struct Office {
    inner: Mutex<Inner>,
    /// For each shard whether something lies there for it; a look at it needs no lock.
    has_mail: Vec<AtomicBool>,
}

#[derive(Debug)]
struct Inner {
    boxes: Vec<Inbox>,
    spare: Vec<Bag>,
}

#[derive(Debug, Default)]
struct Inbox {
    bags: Vec<(ShardNumber, Bag)>,
    /// How much lies here, by sender.
    weights: Vec<usize>,
    /// Those who wait until this is emptied.
    waiting: ShardMask,
}

/// What came of an exchange.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Exchanged {
    /// The shards that have mail now and had none before, and those that wait no longer: they must be woken.
    pub wake: ShardMask,
    /// Nothing was left, because somebody has too much already; this shard is woken when that has changed.
    pub must_wait: bool,
}

/// A shard's own end of the office: what it takes, and bags that it has emptied since its last exchange.
#[derive(Debug, Default)]
pub struct Desk {
    /// What was taken, in order.
    pub taken: Vec<(ShardNumber, Bag)>,
    emptied: Vec<Bag>,
}

impl Desk {
    /// Takes an emptied bag back.
    pub fn recycle(&mut self, mut bag: Bag) {
        if self.emptied.len() < SPARE_MAX {
            bag.clear();
            self.emptied.push(bag);
        }
    }
}

impl Office {
    /// An office for this many shards.
    pub fn new(shards: usize) -> Office {
        let inbox = || Inbox { bags: Vec::new(), weights: vec![0; shards], waiting: 0 };
        Office {
            inner: Mutex::new(Inner { boxes: (0..shards).map(|_| inbox()).collect(), spare: Vec::new() }),
            has_mail: (0..shards).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// True if an exchange would bring something.
    pub fn has_mail(&self, own: ShardNumber) -> bool {
        self.has_mail[usize::from(own)].load(Ordering::Acquire)
    }

    /// Leaves what is in `out` (by shard; what is left is replaced by an empty bag) and takes what lies here for `own`, if
    /// it `takes` any.
    pub fn exchange(&self, own: ShardNumber, out: &mut [Bag], desk: &mut Desk, takes: bool) -> Exchanged {
        // A shard that panicked in here ends the process; until then the state is whole between any two moves.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let room = SPARE_MAX.saturating_sub(inner.spare.len()).min(desk.emptied.len());
        inner.spare.extend(desk.emptied.drain(..room));
        let mut done = Exchanged { must_wait: inner.must_wait(own, out), wake: 0 };
        if !done.must_wait {
            for (to, bag) in out.iter_mut().enumerate().filter(|(_, bag)| !bag.is_empty()) {
                let full = mem::replace(bag, inner.spare.pop().unwrap_or_default());
                let inbox = &mut inner.boxes[to];
                inbox.weights[usize::from(own)] += full.weight();
                inbox.bags.push((own, full));
                if !self.has_mail[to].swap(true, Ordering::AcqRel) {
                    done.wake |= 1 << to;
                }
            }
        }
        if takes && self.has_mail[usize::from(own)].swap(false, Ordering::AcqRel) {
            let inbox = &mut inner.boxes[usize::from(own)];
            desk.taken.append(&mut inbox.bags);
            inbox.weights.fill(0);
            done.wake |= mem::take(&mut inbox.waiting);
        }
        done
    }
}

impl Inner {
    /// All or nothing: leaving a part would let some hear what others do not.
    fn must_wait(&mut self, own: ShardNumber, out: &[Bag]) -> bool {
        let mut must_wait = false;
        for (to, _) in out.iter().enumerate().filter(|(_, bag)| !bag.is_empty()) {
            let inbox = &mut self.boxes[to];
            if inbox.weights[usize::from(own)] > LEFT_BYTES_MAX {
                inbox.waiting |= 1 << own;
                must_wait = true;
            }
        }
        must_wait
    }
}

#[cfg(test)]
mod tests {
    use super::super::bag::Rare;
    use super::super::bag::ShowId;
    use super::*;

    #[test]
    fn bags_that_go_one_way_come_back_empty() {
        let (office, mut speaks, mut hears) = (Office::new(2), Desk::default(), Desk::default());
        let mut out = [Bag::default(), Bag::default()];
        for round in 0..40 {
            out[1].say(Rare::ShownAll { show: ShowId(round) });
            office.exchange(0, &mut out, &mut speaks, true);
            assert!(out[1].is_empty());
            assert_eq!(out[1].items.capacity() > 0, round > 1, "round {round}: it was somebody's before");
            office.exchange(1, &mut [Bag::default(), Bag::default()], &mut hears, true);
            let taken = mem::take(&mut hears.taken);
            assert_eq!(taken.len(), 1);
            taken.into_iter().for_each(|(_, bag)| hears.recycle(bag));
        }
    }
}
