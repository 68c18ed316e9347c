//! When to dial. It does not know whether a connection is wanted, or how one is opened.

use std::time::Instant;

use crate::link::backoff::Backoff;

/// The attempts to open one connection.
#[derive(Debug)]
pub(super) struct Dialer {
    state: State,
    backoff: Backoff,
    /// Whether a hint was followed since the last success.
    hinted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Waiting { until: Instant },
    Dialling,
}

/// What to do with the attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Dial,
    Cancel,
}

impl Dialer {
    pub(super) fn new(seed: u64) -> Dialer {
        Dialer { state: State::Idle, backoff: Backoff::new(seed), hinted: false }
    }

    /// Brings the attempts in line with whether one is wanted.
    pub(super) fn drive(&mut self, wanted: bool, now: Instant) -> Step {
        match (self.state, wanted) {
            (State::Dialling, false) => {
                self.state = State::Idle;
                Step::Cancel
            }
            (_, false) => {
                self.state = State::Idle;
                Step::Nothing
            }
            (State::Idle, true) => self.dial(),
            (State::Waiting { until }, true) if until <= now => self.dial(),
            (State::Waiting { .. } | State::Dialling, true) => Step::Nothing,
        }
    }

    fn dial(&mut self) -> Step {
        self.state = State::Dialling;
        Step::Dial
    }

    /// The attempt led to a connection.
    pub(super) fn handle_opened(&mut self) {
        self.state = State::Idle;
    }

    /// An attempt failed, or its connection ended: wait before the next one.
    pub(super) fn handle_failed(&mut self, now: Instant) {
        self.state = State::Waiting { until: now + self.backoff.next_delay() };
    }

    /// The next connection would end as this one did, however well it began: somebody else takes it over, or a side
    /// breaks the protocol.
    pub(super) fn handle_hopeless(&mut self, now: Instant) {
        self.backoff.exhaust();
        self.handle_failed(now);
    }

    /// A connection carries data: the next loss is a new one.
    pub(super) fn handle_success(&mut self) {
        self.backoff.reset();
        self.hinted = false;
    }

    /// The peer said what to do better: the next attempt goes at once, unless such a hint led to nothing before.
    pub(super) fn handle_hint(&mut self) {
        if !std::mem::replace(&mut self.hinted, true) {
            self.handle_hope();
        }
    }

    /// What an attempt was made of has changed. Whether one was under way, which is to be given up.
    pub(super) fn give_up(&mut self) -> bool {
        let dialling = self.state == State::Dialling;
        if dialling {
            self.state = State::Idle;
        }
        dialling
    }

    /// What made attempts fail has changed: the next one goes at once.
    pub(super) fn handle_hope(&mut self) {
        self.backoff.reset();
        if self.state != State::Dialling {
            self.state = State::Idle;
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Idle | State::Dialling => None,
        }
    }
}
