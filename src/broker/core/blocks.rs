//! Things by number, in blocks of a thousand.
//!
//! Like a slab, but what lies here is never moved: it grows by a block at a time, without a pause to copy what there is, and
//! leaves no smaller copies behind.
//!
//! Invariant: all blocks but the last are full, counting vacant places; these are a list that begins at `vacant`.

use std::ops::{Index, IndexMut};

/// How many lie in a block. The first begins small.
const BLOCK: usize = 1_024;
const NONE: u32 = u32::MAX;

pub(super) enum Slot<T> {
    /// The next vacant place, or `NONE`.
    Vacant(u32),
    Taken(T),
}

/// Things, each with a number of its own for as long as it is here.
pub(super) struct Blocks<T> {
    blocks: Vec<Vec<Slot<T>>>,
    vacant: u32,
}

impl<T> Default for Blocks<T> {
    fn default() -> Blocks<T> {
        Blocks { blocks: vec![Vec::new()], vacant: NONE }
    }
}

impl<T> Blocks<T> {
    /// Puts a thing in, and gives its number.
    pub(super) fn insert(&mut self, thing: T) -> u32 {
        if self.vacant != NONE {
            let at = self.vacant;
            if let Slot::Vacant(next) = std::mem::replace(self.slot_mut(at), Slot::Taken(thing)) {
                self.vacant = next;
            }
            return at;
        }
        let at = self.places();
        if at == self.blocks.len() * BLOCK {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        self.blocks[at / BLOCK].push(Slot::Taken(thing));
        at as u32
    }

    /// Takes a thing out that is there.
    pub(super) fn remove(&mut self, at: u32) -> T {
        let vacant = Slot::Vacant(std::mem::replace(&mut self.vacant, at));
        match std::mem::replace(self.slot_mut(at), vacant) {
            Slot::Taken(thing) => thing,
            Slot::Vacant(_) => unreachable!("nothing is at {at}"),
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        match self.blocks.get(at / BLOCK)?.get(at % BLOCK)? {
            Slot::Taken(thing) => Some(thing),
            Slot::Vacant(_) => None,
        }
    }

    /// One more than the last place that a thing may have.
    pub(super) fn places(&self) -> usize {
        let last = self.blocks.len() - 1;
        last * BLOCK + self.blocks[last].len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten().filter_map(|slot| match slot {
            Slot::Taken(thing) => Some(thing),
            Slot::Vacant(_) => None,
        })
    }

    fn slot_mut(&mut self, at: u32) -> &mut Slot<T> {
        &mut self.blocks[at as usize / BLOCK][at as usize % BLOCK]
    }
}

impl<T> Index<u32> for Blocks<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: u32) -> &T {
        self.get(at as usize).expect("it is there as long as its number is known")
    }
}

impl<T> IndexMut<u32> for Blocks<T> {
    #[inline]
    fn index_mut(&mut self, at: u32) -> &mut T {
        match self.slot_mut(at) {
            Slot::Taken(thing) => thing,
            Slot::Vacant(_) => unreachable!("nothing is at {at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_before_it_grows() {
        let mut blocks = Blocks::default();
        let count = 2 * BLOCK as u32 + 1;
        let numbers: Vec<_> = (0..count).map(|n| blocks.insert(n)).collect();
        assert!(numbers.iter().copied().eq(0..count));
        let gone = [5, BLOCK as u32, count - 1];
        assert_eq!(gone.map(|at| blocks.remove(at)), gone);
        assert!(gone.iter().all(|&at| blocks.get(at as usize).is_none()));
        assert_eq!(blocks.iter().count(), count as usize - 3);
        let again: Vec<_> = (0..4).map(|n| blocks.insert(1_000_000 + n)).collect();
        assert_eq!(again, [count - 1, BLOCK as u32, 5, count]);
        assert_eq!((blocks[5], blocks[count], blocks.places()), (1_000_002, 1_000_003, count as usize + 1));
        assert_eq!(blocks.iter().count(), count as usize + 1);
    }

    #[test]
    fn the_first_block_is_no_larger_than_it_must() {
        let mut blocks = Blocks::default();
        (0..3).for_each(|n| _ = blocks.insert(n));
        assert!(blocks.blocks[0].capacity() < 10);
    }
}
