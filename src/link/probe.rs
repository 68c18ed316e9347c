//! Whether a connection carries data: a question now and then that must come back in time.
//!
//! One question is out at a time. The first goes at once, the next a period after the last one went; a question
//! without an answer when the next is due means that the connection is dead. So a network that drops silently is
//! noticed within two periods. The questions double as the heartbeat of this side's actor.

use std::time::{Duration, Instant};

/// The time between two probes, and the time that an answer may take.
pub const PERIOD: Duration = Duration::from_secs(5);
/// How long a silence this side asks for before its actor may be collected: three periods.
pub const TTL: Duration = Duration::from_secs(15);

/// The probes of one connection.
#[derive(Debug)]
pub struct Prober {
    next_at: Instant,
    last_id: u64,
    waiting_since: Option<Instant>,
    rtt: Option<Duration>,
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
        Prober { next_at: now, last_id: 0, waiting_since: None, rtt: None }
    }

    /// What is due now.
    pub fn handle_timeout(&mut self, now: Instant) -> Due {
        if now < self.next_at {
            return Due::Nothing;
        }
        if self.waiting_since.is_some() {
            return Due::Lost;
        }
        self.last_id += 1;
        self.waiting_since = Some(now);
        self.next_at = now + PERIOD;
        Due::Send(self.last_id)
    }

    /// Takes an answer; true when it is the one that was waited for.
    pub fn handle_answer(&mut self, id: u64, now: Instant) -> bool {
        if id != self.last_id {
            return false;
        }
        match self.waiting_since.take() {
            Some(sent) => {
                self.rtt = Some(now.saturating_duration_since(sent));
                true
            }
            None => false,
        }
    }

    /// The last round trip; None until one came back.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
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
        assert_eq!(prober.handle_timeout(start), Due::Send(1));
        assert!(prober.handle_answer(1, start + Duration::from_millis(20)));
        assert_eq!(prober.rtt(), Some(Duration::from_millis(20)));
        assert_eq!(prober.handle_timeout(start + PERIOD), Due::Send(2));
    }

    #[test]
    fn silence_is_noticed_when_the_next_probe_is_due() {
        let start = Instant::now();
        let mut prober = Prober::new(start);
        prober.handle_timeout(start);
        assert_eq!(prober.handle_timeout(start + PERIOD - Duration::from_millis(1)), Due::Nothing);
        assert!(!prober.handle_answer(7, start), "an answer to another question counts for nothing");
        assert_eq!(prober.handle_timeout(start + PERIOD), Due::Lost);
    }
}
