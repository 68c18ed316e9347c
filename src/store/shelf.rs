//! A disk without a disk: what a store would have after some batches. For tests and fuzzers of those who fill it.

use std::collections::BTreeMap;

use super::layout::{Layout, Reading, SPACES, Space};
use super::{Op, Stored};

/// What a store would have on disk after some batches: for tests of those who fill it.
#[derive(Debug, Default)]
pub struct Shelf {
    layout: Layout,
    keys: BTreeMap<(Space, Vec<u8>), Vec<u8>>,
}

impl Shelf {
    /// Writes a batch.
    pub fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            let below = |space: Space, prefix: &[u8]| {
                let keys = self.keys.keys().filter(|(of, key)| *of == space && key.starts_with(prefix));
                Ok::<_, ()>(keys.map(|(_, key)| key.clone()).collect())
            };
            self.layout.take(op, below).expect("it has no errors");
        }
        for (key, value) in self.layout.finish() {
            match value {
                Some(value) => drop(self.keys.insert(key, value)),
                None => drop(self.keys.remove(&key)),
            }
        }
    }

    /// Puts a key and its value there as if it had lain there, whatever it is: in one of three spaces.
    pub fn put(&mut self, space: u8, key: &[u8], value: &[u8]) {
        let space = SPACES[usize::from(space) % SPACES.len()];
        self.keys.insert((space, key.to_vec()), value.to_vec());
    }

    /// What a start finds there, which is all of use; from now on it is written as after a start.
    pub fn read(&mut self) -> Stored {
        let (stored, strange) = self.read_any();
        assert!(strange.is_empty(), "{strange:?}");
        stored
    }

    /// What a start finds there, and what is none of ours.
    pub fn read_any(&mut self) -> (Stored, Vec<String>) {
        let mut reading = Reading::default();
        self.keys.iter().for_each(|((space, key), value)| reading.take(*space, key, value));
        self.layout = reading.layout;
        (reading.stored, reading.strange)
    }

    /// How many keys it has.
    #[cfg(test)]
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }
}
