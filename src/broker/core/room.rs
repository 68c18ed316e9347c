//! What all shards of a node hold together, where the settings bound it for the node.
//!
//! Each shard counts what it takes in and lets go; whether there is room for more is the node's affair, for what has its home
//! by a hash is never spread evenly, least of all what is few or large. Two shards that look at the same moment may
//! both take the last place: the bound is exceeded by no more than one for each other shard.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Sessions, retained messages and what waits for sessions, of a node.
#[derive(Debug, Default)]
pub struct Room {
    pub(super) sessions: Gauge,
    pub(super) retained: Gauge,
    pub(super) retained_bytes: Gauge,
    /// As far as shards told: see [`Backlog`](super::queue::Backlog).
    pub(super) queued: Gauge,
    pub(super) queued_bytes: Gauge,
}

/// How much there is of something.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicUsize);

impl Gauge {
    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, count: usize) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
