//! When to dial again, and the little randomness that a link needs.
//!
//! Delays double up to a bound and are spread, so that many links do not knock together. The seed comes in: a
//! test repeats a run by its seed.

use std::time::Duration;

/// The first delay; short, because most interruptions are.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// The last delay: a corrected mistake shows within one probe period.
const DELAY_MAX: Duration = Duration::from_millis(4000);

/// The delays between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    delay: Duration,
    random: Random,
}

impl Backoff {
    /// Starts with the shortest delay.
    pub fn new(seed: u64) -> Backoff {
        Backoff { delay: DELAY_MIN, random: Random(seed) }
    }

    /// The next delay: half of it certain, half of it random.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).min(DELAY_MAX);
        let half = delay / 2;
        half + Duration::from_micros(self.random.below(half.as_micros() as u64 + 1))
    }

    /// Goes on with the longest delay: another attempt soon would do harm.
    pub fn exhaust(&mut self) {
        self.delay = DELAY_MAX;
    }

    /// Begins anew, after an attempt that led to something.
    pub fn reset(&mut self) {
        self.delay = DELAY_MIN;
    }
}

/// SplitMix64: small, seeded, good enough to spread things.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_bound_and_start_again() {
        let mut backoff = Backoff::new(7);
        let delays: Vec<_> = (0..12).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= DELAY_MIN && delays[0] >= DELAY_MIN / 2, "{delays:?}");
        assert!(delays[11] <= DELAY_MAX && delays[11] >= DELAY_MAX / 2, "{delays:?}");
        backoff.reset();
        assert!(backoff.next_delay() <= DELAY_MIN);
    }

    #[test]
    fn two_seeds_spread() {
        assert_ne!(Backoff::new(1).next_delay(), Backoff::new(2).next_delay());
    }
}
