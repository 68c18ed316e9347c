//! Whether a connection carries data: a question now and then that must come back in time.
//!
//! The first question goes at once, the next a period after the last one went. When one is due, none came back and
//! nothing at all was heard for a period, the connection is dead: a network that drops silently is noticed within two
//! periods. An answer may wait behind a large message on a slow line; what the peer says meanwhile shows that it
//! lives, for a minute at most. The questions double as the heartbeat of this side's actor.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time between two probes, and the time that an answer may take.
pub const PERIOD: Duration = Duration::from_secs(5);
/// Of how many round trips the shortest counts: those of a minute.
const RTTS: usize = 12;
/// How long a peer that speaks may leave questions without an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a silence this side asks for before its actor may be collected: three periods.
pub const TTL: Duration = Duration::from_secs(15);

/// The probes of one connection.
#[derive(Debug)]
pub struct Prober {
    next_at: Instant,
    last_id: u64,
    /// Number and time of the questions that are out; as many as fit into the patience.
    asked: VecDeque<(u64, Instant)>,
    /// The last round trips.
    rtts: VecDeque<Duration>,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// A probe with this number.
    Send(u64),
    /// The end: the last probe did not come back.
    Lost,
}

impl Prober {
    /// Asks the first question at once.
    pub fn new(now: Instant) -> Prober {
        Prober { next_at: now, last_id: 0, asked: VecDeque::new(), rtts: VecDeque::new() }
    }

    /// What is due now, when the peer was last heard at `heard_at`.
    pub fn handle_timeout(&mut self, now: Instant, heard_at: Instant) -> Due {
        if now < self.next_at {
            return Due::Nothing;
        }
        let is_over = |&(_, sent): &(u64, Instant)| sent + PATIENCE <= now || heard_at + PERIOD <= now;
        if self.asked.front().is_some_and(is_over) {
            return Due::Lost;
        }
        self.last_id += 1;
        self.asked.push_back((self.last_id, now));
        self.next_at = now + PERIOD;
        Due::Send(self.last_id)
    }

    /// Takes an answer; true when it is one that was waited for.
    pub fn handle_answer(&mut self, id: u64, now: Instant) -> bool {
        let Some(index) = self.asked.iter().position(|asked| asked.0 == id) else { return false };
        self.rtts.truncate(RTTS - 1);
        self.rtts.push_front(now.saturating_duration_since(self.asked[index].1));
        self.asked.drain(..=index);
        true
    }

    /// The shortest of the last round trips: what a busy moment at either end adds says nothing of the way. None until one came back.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtts.iter().min().copied()
    }

    /// When to call `handle_timeout` next.
    pub fn next_at(&self) -> Instant {
        self.next_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_comes_back_gives_the_round_trip() {
        let start = Instant::now();
        let mut prober = Prober::new(start);
        assert_eq!(prober.handle_timeout(start, start), Due::Send(1));
        assert!(prober.handle_answer(1, start + Duration::from_millis(20)));
        assert_eq!(prober.rtt(), Some(Duration::from_millis(20)));
        assert_eq!(prober.handle_timeout(start + PERIOD, start), Due::Send(2));
        // What a busy moment adds is forgotten, and so is a way that was shorter.
        let mut at = start + PERIOD;
        for round in 2..=RTTS as u64 + 1 {
            assert_eq!(prober.rtt(), Some(Duration::from_millis(20)));
            assert!(prober.handle_answer(round, at + Duration::from_millis(50)));
            at += PERIOD;
            assert_eq!(prober.handle_timeout(at, at), Due::Send(round + 1));
        }
        assert_eq!(prober.rtt(), Some(Duration::from_millis(50)));
    }

    #[test]
    fn silence_is_noticed_when_the_next_probe_is_due() {
        let start = Instant::now();
        let mut prober = Prober::new(start);
        prober.handle_timeout(start, start);
        assert_eq!(prober.handle_timeout(start + PERIOD - Duration::from_millis(1), start), Due::Nothing);
        assert!(!prober.handle_answer(7, start), "an answer to another question counts for nothing");
        assert_eq!(prober.handle_timeout(start + PERIOD, start), Due::Lost);
    }

    #[test]
    fn an_answer_may_wait_behind_what_a_slow_line_carries_but_not_for_ever() {
        let start = Instant::now();
        let mut prober = Prober::new(start);
        for period in 0..12 {
            let now = start + PERIOD * period;
            assert_eq!(prober.handle_timeout(now, now - PERIOD / 2), Due::Send(u64::from(period) + 1));
        }
        let mut patient = Prober::new(start);
        for period in 0..3 {
            patient.handle_timeout(start + PERIOD * period, start + PERIOD * period);
        }
        let now = start + PATIENCE;
        assert_eq!(prober.handle_timeout(now, now), Due::Lost, "it speaks and never answers");
        assert!(patient.handle_answer(2, start + PERIOD * 3));
        assert_eq!(patient.rtt(), Some(PERIOD * 2));
        assert!(!patient.handle_answer(1, start + PERIOD * 3), "a later answer settles the earlier ones");
    }
}
