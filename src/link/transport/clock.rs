//! The clocks and the numbers that come of them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 while the clock is before that.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Incarnations of links: each is greater than the one before, and the first is the node's own.
#[derive(Debug)]
pub(super) struct Incarnations {
    next: u64,
}

impl Incarnations {
    pub(super) fn new(first: u64) -> Incarnations {
        Incarnations { next: first }
    }

    /// A link that is made anew remembers nothing of the one before, so it must be newer.
    pub(super) fn next(&mut self, wall_ms: u64) -> u64 {
        let incarnation = self.next;
        self.next = wall_ms.max(incarnation + 1);
        incarnation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incarnations_grow_whatever_the_clock_does() {
        let mut incarnations = Incarnations::new(100);
        let all: Vec<u64> = [500, 400, 600].iter().map(|&now| incarnations.next(now)).collect();
        assert_eq!(all, [100, 500, 501]);
    }
}
