//! Numbers of things, found by a hash of what they name; a table that grows by a few of them at a time.
//!
//! A hash table that is full moves all it has to a larger one, and asks each for its hash: for 200,000 filters that is 30 ms in which
//! nobody is served. Here the larger one is filled while it is used: each number that comes brings some of the former's
//! along. Until that is done a look-up may have to try both.
//!
//! Invariants: a number is in one of the two; the former is empty before the other is full (see [`Table::make_room`]).

use hashbrown::HashTable;

/// How many places of the former table are moved whenever a number comes.
const STEP: usize = 8;

#[derive(Default)]
pub(super) struct Table {
    table: HashTable<u32>,
    former: HashTable<u32>,
    /// The first place of the former table that was not moved yet.
    next: usize,
}

impl Table {
    /// The number with this hash for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(&u32) -> bool) -> Option<u32> {
        let found = self.table.find(hash, &is_it);
        if self.former.is_empty() {
            return found.copied();
        }
        found.or_else(|| self.former.find(hash, is_it)).copied()
    }

    /// Puts in a number that is not here; `hash_of` tells anew what hash one came with.
    pub(super) fn insert(&mut self, hash: u64, number: u32, hash_of: impl Fn(&u32) -> u64) {
        if self.table.len() == self.table.capacity() {
            self.make_room();
        }
        self.move_some(&hash_of);
        self.table.insert_unique(hash, number, hash_of);
    }

    /// Takes out the number with this hash for which `is_it` holds.
    pub(super) fn remove(&mut self, hash: u64, is_it: impl Fn(&u32) -> bool) {
        for table in [&mut self.table, &mut self.former] {
            if let Ok(entry) = table.find_entry(hash, &is_it) {
                entry.remove();
                return;
            }
        }
    }

    /// Begins another table, with room for twice as many. A place that was left counts as taken, so it need not be larger; but so
    /// large that it has room for an eighth of the former's places, moved or not, and as many numbers: then that is empty.
    fn make_room(&mut self) {
        let room = (2 * self.table.len()).max(self.table.num_buckets() / 4);
        self.former = std::mem::replace(&mut self.table, HashTable::with_capacity(room));
        self.next = 0;
    }

    fn move_some(&mut self, hash_of: impl Fn(&u32) -> u64) {
        if self.former.is_empty() {
            self.former = HashTable::new(); // what it took is given back
            return;
        }
        let end = self.former.num_buckets().min(self.next + STEP);
        for place in self.next..end {
            if let Ok(entry) = self.former.get_bucket_entry(place) {
                let number = entry.remove().0;
                self.table.insert_unique(hash_of(&number), number, &hash_of);
            }
        }
        self.next = end;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_that_grows_asks_for_few_hashes_at_once() {
        const FULL: u32 = 7 << 14;
        let (hasher, asked) = (foldhash::fast::RandomState::default(), Cell::new(0));
        let hash = |number: &u32| hasher.hash_one(number);
        let mut table = Table::default();
        let insert = |table: &mut Table, number| {
            asked.set(0);
            table.insert(hash(&number), number, |number| {
                asked.set(asked.get() + 1);
                hash(number)
            });
            assert!(asked.get() <= STEP, "{} at {number}", asked.get());
        };
        let has = |table: &Table, number: u32| table.find(hash(&number), |&other| other == number).is_some();
        (0..FULL).for_each(|number| insert(&mut table, number));
        assert_eq!(table.table.len(), table.table.capacity());
        assert!((0..FULL).all(|number| has(&table, number)));
        // Few are left, and others come and go for a long time.
        (10..FULL).for_each(|number| table.remove(hash(&number), |&other| other == number));
        for number in FULL..2 * FULL {
            insert(&mut table, number);
            table.remove(hash(&number), |&other| other == number);
        }
        assert_eq!(table.table.len() + table.former.len(), 10);
        assert!((0..10).all(|number| has(&table, number)));
    }

    proptest! {
        #[test]
        fn what_goes_in_is_found_until_it_goes_out(steps in prop::collection::vec((0u32..300, any::<bool>()), 0..2_000)) {
            // Few hashes: many look alike.
            let hash = |number: &u32| u64::from(number % 64) * 0x0123_4567_89ab_cdef;
            let (mut table, mut model) = (Table::default(), HashSet::new());
            for (number, comes) in steps {
                match comes {
                    true if model.insert(number) => table.insert(hash(&number), number, hash),
                    true => {}
                    false => {
                        model.remove(&number);
                        table.remove(hash(&number), |&other| other == number);
                    }
                }
                prop_assert_eq!(table.table.len() + table.former.len(), model.len());
            }
            for number in 0..300 {
                let found = table.find(hash(&number), |&other| other == number);
                prop_assert_eq!(found, model.contains(&number).then_some(number));
            }
        }
    }
}
