//! How many connections a node has, whichever of its shards they are on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All places that there are.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: AtomicUsize,
    max: AtomicUsize,
}

/// A place among the connections that are allowed at once in the node and in its listener, handshakes included; free again
/// when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    taken: [Arc<Seats>; 2],
}

impl Seats {
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn enter(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let next = |taken: usize| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    /// A place, if one is free in both.
    pub(super) fn take(node: &Arc<Seats>, listener: &Arc<Seats>) -> Option<Seat> {
        if !node.enter() {
            return None;
        }
        if !listener.enter() {
            node.leave();
            return None;
        }
        Some(Seat { taken: [Arc::clone(node), Arc::clone(listener)] })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.iter().for_each(|seats| seats.leave());
    }
}
