//! What those who come and go, or bring very much, may cost those who are there, in one turn of a shard.
//!
//! A shard's tasks run one after the other, and it looks at its sockets only now and then: thousands who connect, shake hands
//! or leave at the same moment would all have their way before who is served is heard again. So each such step asks here
//! first, and what a turn, from one look at the sockets to the next, has no room for waits for the next one, first come first
//! served. It costs nobody a place in line, and nothing where there is no crowd.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// What fits into a turn, in steps of some ten microseconds. The last step may exceed it.
const TURN: u32 = 32;
/// Reading on in a long packet: when it is whole it may go to many.
pub(super) const LOAD: u32 = 16;
/// Writing a piece of what waits for one connection.
pub(super) const TAKE: u32 = 2;
/// A step of a handshake: keys are exchanged and something is signed.
pub(super) const HANDSHAKE: u32 = 8;
/// Any other: accepting a socket, reading CONNECT, closing.
pub(super) const STEP: u32 = 1;
/// So many subscriptions that end with a session are one more.
pub(super) const FILTERS_A_STEP: u32 = 64;

/// The number of someone who waits; 0: none. Every connection has one: it is small.
#[derive(Debug, Default)]
pub(super) struct Ticket(u32);

/// Where those who come and go ask.
#[derive(Debug)]
pub(super) struct Turnstile {
    left: Cell<u32>,
    waiting: RefCell<VecDeque<(u32, Waker)>>,
    /// Tickets below this have had their turn; that of the first who waits is this.
    served: Cell<u32>,
}

impl Turnstile {
    pub(super) fn new() -> Turnstile {
        Turnstile { left: Cell::new(TURN), waiting: RefCell::default(), served: Cell::new(1) }
    }

    /// Ready when a step that costs so much may be taken; the ticket is then spent. Who drops it while waiting gives its part
    /// of one turn away.
    pub(super) fn poll_pass(&self, ticket: &mut Ticket, cost: u32, cx: &Context) -> Poll<()> {
        let mut waiting = self.waiting.borrow_mut();
        if ticket.0 == 0 {
            if waiting.is_empty() && self.left.get() > 0 {
                self.left.set(self.left.get().saturating_sub(cost));
                return Poll::Ready(());
            }
            ticket.0 = self.served.get().wrapping_add(waiting.len() as u32);
            waiting.push_back((cost, cx.waker().clone()));
            return Poll::Pending;
        }
        // Numbers begin anew some time: those far ahead are behind.
        let ahead = ticket.0.wrapping_sub(self.served.get());
        if ahead > u32::MAX / 2 {
            ticket.0 = 0;
            return Poll::Ready(());
        }
        if let Some((_, waker)) = waiting.get_mut(ahead as usize) {
            waker.clone_from(cx.waker());
        }
        Poll::Pending
    }

    /// True if somebody waits for the next turn.
    pub(super) fn has_crowd(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// A turn begins, longer by `more` than others for those who wait: as many as fit into it may pass.
    pub(super) fn turn(&self, more: u32) {
        let (mut left, mut waiting) = (TURN.saturating_add(more), self.waiting.borrow_mut());
        while left > 0
            && let Some((cost, waker)) = waiting.pop_front()
        {
            left = left.saturating_sub(cost);
            self.served.set(self.served.get().wrapping_add(1));
            waker.wake();
        }
        self.left.set(left.min(TURN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets everyone of a crowd try once.
    fn pass(turnstile: &Turnstile, crowd: &mut [Ticket], cost: u32) -> Vec<usize> {
        let cx = Context::from_waker(Waker::noop());
        let tried = crowd.iter_mut().map(|ticket| turnstile.poll_pass(ticket, cost, &cx));
        tried.enumerate().filter_map(|(who, passed)| passed.is_ready().then_some(who)).collect()
    }

    fn crowd(of: usize) -> Vec<Ticket> {
        (0..of).map(|_| Ticket::default()).collect()
    }

    #[test]
    fn a_turn_has_room_for_so_many_and_the_next_goes_on_where_it_ended() {
        let turnstile = Turnstile::new();
        let mut those = crowd(100);
        let room = TURN as usize;
        assert_eq!(pass(&turnstile, &mut those, STEP), (0..room).collect::<Vec<_>>());
        those.drain(..room);
        for _ in 0..2 {
            assert_eq!(pass(&turnstile, &mut those, STEP), [0; 0]);
            turnstile.turn(0);
            assert_eq!(pass(&turnstile, &mut those, STEP), (0..room).collect::<Vec<_>>());
            those.drain(..room);
        }
        turnstile.turn(0);
        assert_eq!(pass(&turnstile, &mut those, STEP), [0, 1, 2, 3]);
        assert!(!turnstile.has_crowd());
    }

    #[test]
    fn what_a_long_turn_leaves_is_not_there_for_the_next_crowd() {
        let turnstile = Turnstile::new();
        let mut those = crowd(TURN as usize + 1);
        pass(&turnstile, &mut those, STEP);
        turnstile.turn(1_000);
        let mut next = crowd(200);
        assert_eq!(pass(&turnstile, &mut next, STEP).len(), TURN as usize);
    }

    #[test]
    fn nobody_overtakes_and_those_who_gave_up_hold_up_nobody() {
        let turnstile = Turnstile::new();
        let mut first = crowd(TURN as usize + 2);
        pass(&turnstile, &mut first, STEP);
        let mut second = crowd(TURN as usize);
        assert_eq!(pass(&turnstile, &mut second, STEP), [0; 0]);
        drop(first); // with the places of two who wait
        turnstile.turn(0);
        let mut third = crowd(1);
        assert_eq!(pass(&turnstile, &mut third, STEP), [0; 0]);
        assert_eq!(pass(&turnstile, &mut second, STEP).len(), TURN as usize - 2);
        turnstile.turn(0);
        assert_eq!(pass(&turnstile, &mut third, STEP), [0]);
    }

    #[test]
    fn a_turn_that_is_longer_has_room_for_more() {
        let turnstile = Turnstile::new();
        let mut those = crowd(100);
        let room = (TURN / TAKE) as usize;
        assert_eq!(pass(&turnstile, &mut those, TAKE).len(), room);
        turnstile.turn(2 * TAKE);
        assert_eq!(pass(&turnstile, &mut those[room..], TAKE).len(), room + 2);
    }

    #[test]
    fn handshakes_are_few_to_a_turn() {
        let turnstile = Turnstile::new();
        let mut those = crowd(10);
        let at_once = (TURN / HANDSHAKE) as usize;
        assert_eq!(pass(&turnstile, &mut those, HANDSHAKE).len(), at_once);
        turnstile.turn(0);
        assert_eq!(pass(&turnstile, &mut those[at_once..], HANDSHAKE).len(), at_once);
    }
}
