//! How short memory is, and what is given up for that.
//!
//! The shell knows how much the process holds, and says so; the core sheds load in a stated order, and counts what it sheds.
//! What was acknowledged is never given up: queues stop growing, they are not emptied.

/// The waiting bytes above which a connection counts as slow while memory is short.
pub(super) const SLOW_BYTES: usize = 64 * 1024;
/// What may wait in the queue of one session while queues are kept short, and be in flight before more goes there.
pub(super) const SHORT_QUEUE_BYTES: usize = 64 * 1024;
/// The bytes of a packet that is not whole yet above which its connection ends while nothing is taken in.
pub const PART_BYTES: usize = 64 * 1024;
/// How large the topics behind a connection's aliases, or a will, may be while nothing is taken in.
pub(super) const SMALL_BYTES: usize = 4 * 1024;

/// How short memory is. Each step gives up what those before it do, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is enough.
    #[default]
    None,
    /// From 80 % of the mark on: QoS 0 messages for clients that leave more than 64 KiB unread are dropped.
    Slow,
    /// From 90 % on: the queue of a session grows no further than to 64 KiB.
    Queues,
    /// From the mark on: no client, subscription, retained message or large packet is taken in that was not there before, nor a
    /// large will or many aliases. Clients whose session is here may come back: nobody else can take away what waits for them.
    Closed,
}

/// Where the steps begin, in percent of the mark.
const STEPS: [(Pressure, u128); 3] = [(Pressure::Closed, 100), (Pressure::Queues, 90), (Pressure::Slow, 80)];
/// How far below its beginning a step ends: memory that goes up and down must not open and close doors all the time.
const SLACK: u128 = 5;

impl Pressure {
    /// True if queues grow no further than they must.
    pub(super) fn keeps_queues_short(self) -> bool {
        self >= Pressure::Queues
    }

    /// The step for so many bytes, after another one. A mark of 0 is none.
    pub fn of(used: usize, mark: usize, before: Pressure) -> Pressure {
        let percent = (used as u128 * 100).checked_div(mark as u128).unwrap_or(0);
        let begins = |at: u128, step: Pressure| if step <= before { at - SLACK } else { at };
        let holds = |&&(step, at): &&(Pressure, u128)| percent >= begins(at, step);
        STEPS.iter().find(holds).map_or(Pressure::None, |(step, _)| *step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_begin_at_their_share_and_end_a_little_below() {
        let of = |percent, before| Pressure::of(percent, 100, before);
        assert_eq!(of(79, Pressure::None), Pressure::None);
        assert_eq!(of(80, Pressure::None), Pressure::Slow);
        assert_eq!(of(100, Pressure::None), Pressure::Closed);
        assert_eq!(of(96, Pressure::Closed), Pressure::Closed);
        assert_eq!(of(94, Pressure::Closed), Pressure::Queues);
        assert_eq!(of(76, Pressure::Queues), Pressure::Slow);
        assert_eq!(of(76, Pressure::None), Pressure::None);
        assert_eq!(Pressure::of(usize::MAX, 0, Pressure::Closed), Pressure::None);
    }
}
