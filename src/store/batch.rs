//! What is written together: the changes of one batch, and batches of several shards that make one change.
//!
//! A QoS 2 message that goes from one shard to another is noted by the one that took it from its publisher and stored by the
//! one that has the subscriber. Either without the other would lose it or bring it twice. So the first says in its batch what
//! it *gave*, the second what it *took*, and the writer keeps back whichever is there without the other.
//!
//! Invariants: a shard's batches are written in order; what a batch gave arrives here before it is taken (the batch is sent
//! before the message is), so what is kept back is only ever waiting for batches that come.

use std::collections::{HashMap, HashSet};

use super::{Op, Token};

/// Changes that are written together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes, in order.
    pub ops: Vec<Op>,
    /// Messages that others have to take with this batch.
    pub gave: Vec<Handed>,
    /// Messages of others that this batch took.
    pub took: Vec<Handed>,
}

impl From<Vec<Op>> for Batch {
    fn from(ops: Vec<Op>) -> Batch {
        Batch { ops, ..Batch::default() }
    }
}

/// A message that went from one client of the store to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// The other, by the order in which they joined.
    pub with: usize,
    /// Numbers of one lane are apart from those of others.
    pub lane: u8,
    /// Greater than those before from the same to the same.
    pub number: u64,
}

/// A batch on its way to disk.
pub(crate) struct Waiting {
    pub(crate) client: usize,
    pub(crate) token: Token,
    pub(crate) batch: Batch,
}

impl Waiting {
    /// What was given or taken.
    fn handed(&self) -> impl Iterator<Item = (Route, u64)> {
        let gave = |one: &Handed| ((self.client, one.with, one.lane), one.number);
        let took = |one: &Handed| ((one.with, self.client, one.lane), one.number);
        self.batch.gave.iter().map(gave).chain(self.batch.took.iter().map(took))
    }
}

/// From whom, to whom, on which lane.
type Route = (usize, usize, u8);

/// Batches that are not written yet.
#[derive(Default)]
pub(crate) struct Waitings {
    list: Vec<Waiting>,
    /// The last message that was taken.
    taken: HashMap<Route, u64>,
    /// How many in the list gave something.
    givers: usize,
}

impl Waitings {
    pub(crate) fn add(&mut self, waiting: Waiting) {
        for took in &waiting.batch.took {
            self.taken.insert((took.with, waiting.client, took.lane), took.number);
        }
        self.givers += usize::from(!waiting.batch.gave.is_empty());
        self.list.push(waiting);
    }

    /// All there are, for a look.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.list.iter()
    }

    /// All there are.
    pub(crate) fn take_all(&mut self) -> Vec<Waiting> {
        self.givers = 0;
        std::mem::take(&mut self.list)
    }

    /// All that can be written now: with nothing given that was not taken, nothing taken that was not given.
    pub(crate) fn take_whole(&mut self) -> Vec<Waiting> {
        if self.givers == 0 {
            return self.take_all();
        }
        let mut kept = Kept::default();
        // What is kept back may keep back others, before it or behind it.
        let mut before = None;
        while before.replace(kept.places.len()) != Some(kept.places.len()) {
            for at in 0..self.list.len() {
                if !kept.places.contains(&at) && self.must_wait(at, &kept) {
                    kept.note(at, &self.list[at]);
                }
            }
        }
        let (mut whole, mut left) = (Vec::new(), Vec::new());
        for (at, waiting) in self.take_all().into_iter().enumerate() {
            if kept.places.contains(&at) { &mut left } else { &mut whole }.push(waiting);
        }
        self.givers = left.iter().filter(|one| !one.batch.gave.is_empty()).count();
        self.list = left;
        whole
    }

    fn must_wait(&self, at: usize, kept: &Kept) -> bool {
        let Waiting { client, batch, .. } = &self.list[at];
        let is_not_taken = |gave: &Handed| {
            self.taken.get(&(*client, gave.with, gave.lane)).is_none_or(|&taken| taken < gave.number)
        };
        kept.clients.get(client).is_some_and(|&first| first < at)
            || batch.gave.iter().any(is_not_taken)
            || self.list[at].handed().any(|one| kept.handed.contains(&one))
    }
}

/// What is kept back.
#[derive(Default)]
struct Kept {
    places: HashSet<usize>,
    /// The first place, by client: what comes behind it waits, too.
    clients: HashMap<usize, usize>,
    /// What is given or taken there: its other half waits, too.
    handed: HashSet<(Route, u64)>,
}

impl Kept {
    fn note(&mut self, at: usize, waiting: &Waiting) {
        self.places.insert(at);
        let first = self.clients.entry(waiting.client).or_insert(at);
        *first = at.min(*first);
        self.handed.extend(waiting.handed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(with: usize, number: u64) -> Handed {
        Handed { with, lane: 0, number }
    }

    /// A batch by its client, with what it gave and what it took as (other, number).
    type Came<'a> = (usize, &'a [(usize, u64)], &'a [(usize, u64)]);

    /// Checks which are written when some have come, by their clients.
    #[track_caller]
    fn check(waitings: &mut Waitings, came: &[Came], written: &[usize]) {
        let all = |list: &[(usize, u64)]| list.iter().map(|&(with, number)| handed(with, number)).collect();
        for (client, gave, took) in came {
            let batch = Batch { ops: Vec::new(), gave: all(gave), took: all(took) };
            waitings.add(Waiting { client: *client, token: Token(1), batch });
        }
        let got: Vec<_> = waitings.take_whole().iter().map(|one| one.client).collect();
        assert_eq!(got, written);
    }

    #[test]
    fn a_batch_waits_until_what_it_gave_is_taken() {
        let waitings = &mut Waitings::default();
        check(waitings, &[(0, &[(1, 1)], &[]), (1, &[], &[])], &[1]);
        check(waitings, &[(0, &[], &[])], &[]); // behind its own
        check(waitings, &[(1, &[], &[(0, 1)]), (2, &[], &[])], &[0, 0, 1, 2]);
    }

    #[test]
    fn what_is_taken_waits_for_all_others_that_must_take_it() {
        let waitings = &mut Waitings::default();
        check(waitings, &[(0, &[(1, 1), (2, 1)], &[]), (1, &[], &[(0, 1)]), (1, &[], &[])], &[]);
        check(waitings, &[(2, &[(0, 5)], &[(0, 1)])], &[]); // it gave something itself
        check(waitings, &[(0, &[], &[(2, 5)])], &[0, 1, 1, 2, 0]);
        check(waitings, &[(1, &[], &[])], &[1]);
    }

    #[test]
    fn what_was_taken_before_is_whole_and_may_be_written() {
        let waitings = &mut Waitings::default();
        check(waitings, &[(0, &[(1, 1)], &[]), (1, &[], &[(0, 1)]), (0, &[(1, 2)], &[])], &[0, 1]);
        check(waitings, &[(1, &[], &[(0, 2)])], &[0, 1]);
    }
}
