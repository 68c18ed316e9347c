//! What the writer wants of a disk, and how it fails.

use std::path::PathBuf;

use super::layout::{Space, Writes};

/// Why a store cannot be used, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Written by a later version.
    #[error(
        "failed to open {dir}: it was written in format {found}, and this version reads {known}; run the version that wrote it, \
         or name another directory"
    )]
    Newer {
        /// Where.
        dir: PathBuf,
        /// Its format.
        found: String,
        /// Ours.
        known: u32,
    },
    /// Something else lies there.
    #[error(
        "failed to open {0}: it holds files that are not ours; name a directory of its own, it need not exist"
    )]
    Foreign(PathBuf),
    /// Another process has it.
    #[error("failed to open {0}: another process uses it; stop that one, or name another directory")]
    InUse(PathBuf),
    /// The disk has no room.
    #[error("failed to {verb} {dir}: no space is left; make room, and it goes on by itself")]
    Full {
        /// What was tried.
        verb: &'static str,
        /// Where.
        dir: PathBuf,
    },
    /// What lies there is damaged.
    #[error("failed to {verb} {dir}: it is damaged: {cause}")]
    Damaged {
        /// What was tried.
        verb: &'static str,
        /// Where.
        dir: PathBuf,
        /// What exactly.
        cause: String,
    },
    /// The system refuses, or the engine.
    #[error("failed to {verb} {dir}: {cause}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Where.
        dir: PathBuf,
        /// Why not.
        cause: String,
    },
}

/// A disk with keys and values. After an error it is of no use any more, and is opened again.
pub(super) trait Engine: Send {
    /// Writes all or nothing, up to the operating system.
    fn commit(&mut self, writes: Writes) -> Result<(), StoreError>;

    /// Has everything so far reach the disk.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// Has everything so far reach the disk soon, without waiting for it.
    fn sync_soon(&mut self);

    /// True if nothing is on its way to the disk any more.
    fn is_synced(&mut self) -> Result<bool, StoreError>;

    /// Writes something that means nothing, to see whether that works.
    fn try_out(&mut self) -> Result<(), StoreError>;

    /// The keys that begin with a prefix.
    fn keys_below(&mut self, space: Space, prefix: &[u8]) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Every key and value, in order.
    fn read(&mut self, space: Space, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError>;
}

/// Opens the disk, again and again.
pub(super) type Opener = Box<dyn FnMut() -> Result<Box<dyn Engine>, StoreError> + Send>;
