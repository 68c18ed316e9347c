//! A disk in memory that fails on demand: at once, or in the middle of a commit, before or after it counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::engine::{Engine, Opener, StoreError};
use super::layout::{Space, Writes};

/// How commits go from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// They work.
    #[default]
    Good,
    /// There is no room, also not to open it.
    Full,
    /// There is room to open it, once, and for nothing else; then they work.
    Tight,
    /// The next one counts, but says that it failed; then there is no room.
    FailsAfter,
    /// They work, and what is to reach the disk soon does not, which is heard once.
    FailsToSync,
}

/// A disk that several engines see, one after the other.
#[derive(Clone, Default)]
pub(super) struct Twin {
    disk: Arc<Mutex<Disk>>,
}

type Keys = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

#[derive(Default)]
struct Disk {
    keys: Keys,
    /// What would be left without power.
    synced: Keys,
    mood: Mood,
    syncs: usize,
    /// What was read of it.
    reads: Vec<Space>,
}

impl Twin {
    pub(super) fn set(&self, mood: Mood) {
        self.disk.lock().expect("nobody panics with it").mood = mood;
    }

    pub(super) fn syncs(&self) -> usize {
        self.disk.lock().expect("nobody panics with it").syncs
    }

    pub(super) fn reads(&self) -> Vec<Space> {
        self.disk.lock().expect("nobody panics with it").reads.clone()
    }

    /// Whatever was not synced is gone.
    pub(super) fn lose_power(&self) {
        let mut disk = self.disk.lock().expect("nobody panics with it");
        disk.keys = disk.synced.clone();
    }

    pub(super) fn opener(&self) -> Opener {
        let twin = self.clone();
        Box::new(move || {
            let mood = twin.disk.lock().expect("nobody panics with it").mood;
            if matches!(mood, Mood::Good | Mood::Tight) { Ok(Box::new(twin.clone())) } else { Err(full()) }
        })
    }
}

fn full() -> StoreError {
    StoreError::Full { verb: "write to", dir: "the twin".into() }
}

impl Engine for Twin {
    fn commit(&mut self, writes: Writes) -> Result<(), StoreError> {
        let mut disk = self.disk.lock().expect("nobody panics with it");
        if matches!(disk.mood, Mood::Full | Mood::Tight) {
            return Err(full());
        }
        for (key, value) in writes {
            match value {
                Some(value) => drop(disk.keys.insert(key, value)),
                None => drop(disk.keys.remove(&key)),
            }
        }
        if disk.mood == Mood::FailsAfter {
            disk.mood = Mood::Full;
            return Err(full());
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let mut disk = self.disk.lock().expect("nobody panics with it");
        disk.syncs += 1;
        disk.synced = disk.keys.clone();
        Ok(())
    }

    fn sync_soon(&mut self) {}

    fn is_synced(&mut self) -> Result<bool, StoreError> {
        let mut disk = self.disk.lock().expect("nobody panics with it");
        match std::mem::take(&mut disk.mood) {
            Mood::FailsToSync => Err(full()),
            mood => {
                disk.mood = mood;
                Ok(true)
            }
        }
    }

    fn try_out(&mut self) -> Result<(), StoreError> {
        let mut disk = self.disk.lock().expect("nobody panics with it");
        match std::mem::take(&mut disk.mood) {
            Mood::Tight => Err(full()),
            mood => {
                disk.mood = mood;
                Ok(())
            }
        }
    }

    fn keys_below(&mut self, space: Space, prefix: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
        let disk = self.disk.lock().expect("nobody panics with it");
        let below = disk.keys.keys().filter(|(of, key)| *of == space && key.starts_with(prefix));
        Ok(below.map(|(_, key)| key.clone()).collect())
    }

    fn read(&mut self, space: Space, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let mut disk = self.disk.lock().expect("nobody panics with it");
        disk.reads.push(space);
        disk.keys.iter().filter(|((of, _), _)| *of == space).for_each(|((_, key), value)| each(key, value));
        Ok(())
    }
}
