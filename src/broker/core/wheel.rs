//! A coarse wheel of timers: one for the whole shard, a vector per slot.
//!
//! Timers are never cancelled and never moved. Who fires looks at its own deadline, and sets itself again if that has
//! moved on: keep alive then costs one store per read, not one timer operation per packet.
//!
//! Invariant: an entry fires in the first tick that ends at or after its deadline, never before it. What lies beyond one
//! turn of the wheel fires at the end of the turn, and its owner sets it again.

use std::time::{Duration, Instant};

/// The length of a tick: MQTT counts in seconds, and the shortest keep alive ends after one and a half.
const TICK_MS: u128 = 100;
/// How many ticks a turn has: 102.4 s.
const SLOTS: usize = 1024;

/// Timers with keys of type `K`.
pub(super) struct Wheel<K> {
    origin: Instant,
    slots: Vec<Vec<K>>,
    /// The tick up to which (inclusive) everything has fired.
    done: u64,
    len: usize,
}

impl<K> Wheel<K> {
    pub(super) fn new(now: Instant) -> Wheel<K> {
        Wheel { origin: now, slots: std::iter::repeat_with(Vec::new).take(SLOTS).collect(), done: 0, len: 0 }
    }

    /// Sets a timer and tells when it fires.
    pub(super) fn set(&mut self, key: K, deadline: Instant, now: Instant) -> Instant {
        if self.len == 0 {
            // Nothing was due for a while, so nobody came by: begin at this tick.
            self.done = self.done.max(self.tick_of(now));
        }
        let since = deadline.saturating_duration_since(self.origin).as_millis();
        let tick = since.div_ceil(TICK_MS) as u64;
        let tick = tick.clamp(self.done + 1, self.done + SLOTS as u64 - 1);
        self.slots[tick as usize % SLOTS].push(key);
        self.len += 1;
        self.time_of(tick)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When [`Wheel::fire`] should be called next.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        let tick = (self.done + 1..).find(|&tick| !self.slots[tick as usize % SLOTS].is_empty())?;
        Some(self.time_of(tick))
    }

    /// Takes out what is due.
    pub(super) fn fire(&mut self, now: Instant) -> Vec<K> {
        let mut fired = Vec::new();
        let tick = self.tick_of(now);
        // After a long pause one turn is enough: it empties every slot.
        for at in (self.done + 1..=tick).take(SLOTS) {
            fired.append(&mut self.slots[at as usize % SLOTS]);
        }
        self.done = self.done.max(tick);
        self.len -= fired.len();
        fired
    }

    /// The last tick that has ended.
    fn tick_of(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.origin).as_millis() / TICK_MS) as u64
    }

    fn time_of(&self, tick: u64) -> Instant {
        self.origin + Duration::from_millis(tick * TICK_MS as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_and_never_early() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut wheel = Wheel::new(start);
        wheel.set("a", at(1500), start);
        wheel.set("b", at(1501), start);
        assert_eq!(wheel.next(), Some(at(1500)));
        assert!(wheel.fire(at(1499)).is_empty());
        assert_eq!(wheel.fire(at(1500)), ["a"]);
        assert_eq!(wheel.next(), Some(at(1600)));
        assert_eq!(wheel.fire(at(9_000)), ["b"]);
        assert!(wheel.fire(at(900_000)).is_empty());
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_far_timer_fires_within_a_turn_so_that_its_owner_can_set_it_again() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let deadline = start + Duration::from_secs(3600);
        wheel.set((), deadline, start);
        let mut turns = 0;
        let mut now = wheel.next().expect("it is set");
        while now < deadline {
            for () in wheel.fire(now) {
                wheel.set((), deadline, now);
            }
            turns += 1;
            now = wheel.next().expect("it is set again");
        }
        assert_eq!(turns, 35);
    }
}
