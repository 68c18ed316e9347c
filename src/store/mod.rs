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

mod partition;
mod op;
mod batch;
mod layout;
mod engine;
mod writer;
mod journal;
mod tables;
mod disk;
mod salvage;
#[cfg(any(test, fuzzing))]
mod shelf;
#[cfg(test)]
mod twin;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use batch::{Batch, Handed};
#[cfg(test)]
pub(crate) use batch::{Waiting, Waitings};
pub use engine::StoreError;
#[cfg(fuzzing)]
pub use journal::{Scan, scan};
pub use op::{NUMBER_MAX, Op, SessionKey, Stored, StoredSession};
pub use partition::{PARTITIONS, Partition, Token};
#[cfg(any(test, fuzzing))]
pub use shelf::Shelf;
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
        let start = || Store::start(disk::opener(dir.to_owned()), durability);
        let mut begun = start();
        // Several times: behind a marker or a journal that is damaged there may be more.
        for _ in 0..3 {
            if let Err(damaged @ StoreError::Damaged { .. }) = &begun {
                disk::set_aside(dir, damaged)?;
                begun = start();
            }
        }
        let (store, stored, strange) = begun?;
        Ok((store, Found { stored, strange }))
    }
}
