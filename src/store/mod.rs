//! What must survive a restart, behind one small interface.
//!
//! The broker's core never waits for a disk. It hands out what has changed as [`Op`]s under a [`Token`], and acknowledges
//! what hangs on them when it hears that the token is safe. Without a store there are no ops: the core's own state is then
//! the only copy, and a restart begins empty.
//!
//! Everything kept is laid out by [`Partition`], never by thread or core, so that a session can be moved to another
//! shard or another node without rewriting anything.
//!
//! This module knows nothing of MQTT packets, sockets or tasks.

mod op;
mod layout;
mod engine;
mod writer;
mod disk;
#[cfg(test)]
mod twin;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use engine::StoreError;
pub use op::{Op, SessionKey, Stored, StoredSession};
#[cfg(test)]
pub(crate) use twin::Shelf;
pub use writer::{Client, Event, Listener, Store};

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The write reached the operating system: it survives the death of the process. The disk follows in groups.
    Interval,
    /// The write reached the disk: it survives the loss of power.
    Always,
}

/// What a store had in it when it was opened.
#[derive(Debug)]
pub struct Found {
    /// What is of use.
    pub stored: Stored,
    /// What is not, in words.
    pub strange: Vec<String>,
}

impl Store {
    /// Opens the store in a directory, or makes one there.
    ///
    /// # Errors
    /// When the directory is not ours, in use or of a later version, or when the disk does not take it. What is damaged is
    /// set aside, and is no error.
    pub fn open(dir: &Path, durability: Durability) -> Result<(Store, Found), StoreError> {
        let start = || {
            let dir = dir.to_owned();
            Store::start(Box::new(move || disk::open(&dir)), durability)
        };
        let (store, stored, strange) = match start() {
            Err(StoreError::Damaged { cause, .. }) => {
                disk::set_aside(dir, &cause)?;
                start()?
            }
            result => result?,
        };
        Ok((store, Found { stored, strange }))
    }
}

/// How many partitions there are. Part of the layout of stored data: it never changes.
pub const PARTITIONS: usize = 256;

/// The home of a client id: one of [`PARTITIONS`], the same in every process and release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u8);

impl Partition {
    /// The partition that a client id belongs to.
    pub fn of(client_id: &str) -> Partition {
        // FNV-1a, folded: fixed by its definition and never seeded, because stored data depends on it.
        let hash = client_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let folded = hash ^ (hash >> 32);
        let folded = folded ^ (folded >> 16);
        Partition((folded ^ (folded >> 8)) as u8)
    }

    /// Its number, below [`PARTITIONS`].
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Names a batch of changes; greater than those before. That it is safe means that all before it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);
