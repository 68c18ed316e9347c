//! Those who wait for their password to be hashed, and what is remembered of where they come from. One for all shards.
//!
//! Turns go round by address: who comes with many waits for his own. When all places are taken, the address with the most
//! gives up its last, so somebody from elsewhere always finds one. Refusals take their time, the longer the more of them an
//! address had, but no place: whoever guesses costs others nothing, and who is right never waits for who was not.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::oneshot;

/// How many passwords are hashed at once.
pub(super) const HASHING_MAX: usize = 2;
/// How many clients wait for that.
pub(super) const WAITING_MAX: usize = 1_000;
/// How long the first refusal of an address takes; each further one doubles it.
pub(super) const DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest that a refusal takes.
const DELAY_MAX: Duration = Duration::from_secs(3);
/// After so long without another, an address's refusals are forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// How many addresses are remembered.
const ADDRESSES_MAX: usize = 10_000;

/// All who wait.
#[derive(Default)]
pub(super) struct Crowd {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hashing: usize,
    waiting: usize,
    /// The addresses that somebody waits from, each once, in the order of their turns.
    turns: VecDeque<IpAddr>,
    addresses: HashMap<IpAddr, Address>,
}

#[derive(Default)]
struct Address {
    waiting: VecDeque<oneshot::Sender<Turn>>,
    refusals: u32,
    refused_at: Option<Instant>,
}

/// The right to hash; the next one's when dropped.
pub(super) struct Turn {
    crowd: Option<Arc<Crowd>>,
}

/// A place among those who wait.
pub(super) struct Place(oneshot::Receiver<Turn>);

impl Place {
    /// Waits for one's turn; `None`: the place was given up for somebody else's.
    pub(super) async fn turn(self) -> Option<Turn> {
        self.0.await.ok()
    }
}

impl Crowd {
    /// Lines up; `None`: all places are taken, and no address has more of them than this one would.
    pub(super) fn line_up(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut state = self.state();
        let address = neighbourhood(peer);
        if state.waiting >= WAITING_MAX && !state.make_room(address) {
            return None;
        }
        let (sender, place) = oneshot::channel();
        state.address(address).waiting.push_back(sender);
        state.waiting += 1;
        if state.addresses[&address].waiting.len() == 1 {
            state.turns.push_back(address);
        }
        self.go_on(&mut state);
        Some(Place(place))
    }

    /// Notes a refusal. The answer is how long it should take.
    pub(super) fn refuse(&self, peer: IpAddr, now: Instant) -> Duration {
        let mut state = self.state();
        let here = state.address(neighbourhood(peer));
        here.refusals = if here.is_forgiven(now) { 1 } else { here.refusals.saturating_add(1) };
        here.refused_at = Some(now);
        (DELAY_MIN * (1_u32 << (here.refusals - 1).min(10))).min(DELAY_MAX)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// Gives turns as long as there are any.
    fn go_on(self: &Arc<Self>, state: &mut State) {
        while state.hashing < HASHING_MAX {
            let Some(sender) = state.next() else { return };
            match sender.send(Turn { crowd: Some(Arc::clone(self)) }) {
                Ok(()) => state.hashing += 1,
                Err(mut turn) => turn.crowd = None, // nobody waits for it any more
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(crowd) = self.crowd.take() else { return };
        let mut state = crowd.state();
        state.hashing -= 1;
        crowd.go_on(&mut state);
    }
}

impl State {
    /// What is remembered of an address.
    fn address(&mut self, address: IpAddr) -> &mut Address {
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            let now = Instant::now();
            self.addresses.retain(|_, one| !one.waiting.is_empty() || !one.is_forgiven(now));
            if self.addresses.len() >= ADDRESSES_MAX {
                self.addresses.retain(|_, one| !one.waiting.is_empty());
            }
        }
        self.addresses.entry(address).or_default()
    }

    /// Who is next, by address.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let address = self.turns.pop_front()?;
        let here = self.addresses.get_mut(&address)?;
        let sender = here.waiting.pop_front();
        self.waiting -= usize::from(sender.is_some());
        if !here.waiting.is_empty() {
            self.turns.push_back(address);
        } else if here.refused_at.is_none() {
            self.addresses.remove(&address);
        }
        sender
    }

    /// Sends away the last of the address with the most, if that has more than the newcomer's would have.
    fn make_room(&mut self, newcomer: IpAddr) -> bool {
        let here = self.addresses.get(&newcomer).map_or(0, |one| one.waiting.len());
        let count = |address: &IpAddr| self.addresses.get(address).map_or(0, |one| one.waiting.len());
        let Some(most) = self.turns.iter().copied().max_by_key(count).filter(|most| count(most) > here + 1)
        else {
            return false;
        };
        let sent_away = self.addresses.get_mut(&most).and_then(|one| one.waiting.pop_back());
        self.waiting -= usize::from(sent_away.is_some());
        true
    }
}

impl Address {
    fn is_forgiven(&self, now: Instant) -> bool {
        self.refused_at.is_none_or(|at| now.saturating_duration_since(at) > FORGIVEN_AFTER)
    }
}

/// An address, or the network that one owner of IPv6 addresses has at least.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    /// The turn, if it is there.
    fn take(place: &mut Place) -> Option<Turn> {
        place.0.try_recv().ok()
    }

    fn is_sent_away(place: &mut Place) -> bool {
        matches!(place.0.try_recv(), Err(oneshot::error::TryRecvError::Closed))
    }

    #[test]
    fn turns_go_round_by_address() {
        let crowd = Arc::<Crowd>::default();
        let mut busy: Vec<Place> = (0..10).map(|_| crowd.line_up(peer(1)).expect("there is room")).collect();
        let mut at_work: Vec<Turn> = busy.iter_mut().filter_map(take).collect();
        assert_eq!((at_work.len(), crowd.waiting()), (HASHING_MAX, 8));
        let mut other = crowd.line_up(peer(2)).expect("there is room");
        // One of the busy address was next already; then it is the other's turn, though eight were there before.
        for _ in 0..2 {
            at_work.remove(0);
            at_work.extend(busy.iter_mut().filter_map(take));
        }
        at_work.push(take(&mut other).expect("its turn"));
        assert_eq!(crowd.waiting(), 7);
        while crowd.waiting() > 0 {
            at_work.clear();
            at_work.extend(busy.iter_mut().filter_map(take));
        }
        drop((at_work, busy));
        assert!(crowd.state().addresses.is_empty());
        assert_eq!(crowd.state().hashing, 0);
    }

    #[test]
    fn who_fills_all_places_keeps_nobody_else_out() {
        let crowd = Arc::<Crowd>::default();
        let mut flood: Vec<Place> = Vec::new();
        while crowd.waiting() < WAITING_MAX {
            flood.push(crowd.line_up(peer(1)).expect("there is room"));
        }
        assert!(crowd.line_up(peer(1)).is_none(), "it gives up none of its places for itself");
        let mut other = crowd.line_up(peer(2)).expect("a place is given up");
        assert_eq!(crowd.waiting(), WAITING_MAX);
        assert_eq!(flood.iter_mut().filter_map(|place| is_sent_away(place).then_some(())).count(), 1);
        // It comes next, though a thousand were there before.
        let mut flood = flood.into_iter();
        drop(flood.next());
        assert!(take(&mut other).is_some());
        // Many addresses with one place each take none from each other.
        let crowd = Arc::<Crowd>::default();
        let v4 = |n: u32| IpAddr::from(n.to_be_bytes());
        let _all: Vec<Place> =
            (0..(WAITING_MAX + HASHING_MAX) as u32).map(|n| crowd.line_up(v4(n)).expect("room")).collect();
        assert!(crowd.line_up(peer(1)).is_none());
    }

    #[test]
    fn who_left_costs_no_turn() {
        let crowd = Arc::<Crowd>::default();
        let places: Vec<Place> = (0..5).map(|_| crowd.line_up(peer(1)).expect("there is room")).collect();
        drop(places);
        let mut here = crowd.line_up(peer(1)).expect("there is room");
        assert!(take(&mut here).is_some());
        assert_eq!(crowd.state().hashing, 0);
    }

    #[test]
    fn refusals_take_longer_the_more_there_were() {
        let crowd = Crowd::default();
        let start = Instant::now();
        let delays: Vec<u64> = (0..7).map(|_| crowd.refuse(peer(1), start).as_millis() as u64).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3000, 3000]);
        assert_eq!(crowd.refuse(peer(2), start), DELAY_MIN, "others do not pay for it");
        assert_eq!(crowd.refuse(peer(1), start + FORGIVEN_AFTER + DELAY_MIN), DELAY_MIN);
        assert_eq!(crowd.refuse(peer(1), start + FORGIVEN_AFTER + DELAY_MIN * 2), DELAY_MIN * 2);
    }

    #[test]
    fn addresses_are_remembered_within_bounds() {
        let crowd = Crowd::default();
        for n in 0..ADDRESSES_MAX as u32 + 100 {
            crowd.refuse(IpAddr::from(n.to_be_bytes()), Instant::now());
        }
        assert!(crowd.state().addresses.len() <= ADDRESSES_MAX);
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let v6 = |text: &str| neighbourhood(text.parse().expect("an address"));
        assert_eq!(v6("2001:db8:1:2::1"), v6("2001:db8:1:2:ffff::"));
        assert_ne!(v6("2001:db8:1:2::1"), v6("2001:db8:1:3::1"));
        assert_eq!(v6("::ffff:10.0.0.1"), peer(1));
    }
}
