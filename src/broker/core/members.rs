//! The members of one shared group, and whose turn it is.
//!
//! A group has one owner, the home of its filter: there its members are listed, wherever their sessions are, and each says
//! there how ready it is. They lie in one list, in order of how ready they are, so the choice looks at nobody whose turn it
//! is not: choosing, joining, leaving and a change of presence take the same time in a group of ten thousand.
//!
//! Invariants: `ends` bounds the classes, and all members of a class lie between its bounds; `places` has each member's place.

use hashbrown::HashMap;

use super::SessionId;
use super::mesh::ShardNumber;
use super::recipients::Subscriber;
use crate::mqtt::QoS;

/// How ready a session is for a group's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It can be sent one now.
    Ready,
    /// Its client is there, but others wait before it.
    Busy,
    /// Its client is not there.
    Gone,
    /// Its client is there, and its queue had no room for the last message.
    Full,
    /// Its queue had none, and its client is not there.
    FullAndGone,
}

/// A session as other shards name it: the serial tells it from a later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) session: SessionId,
    pub(super) serial: u32,
}

/// A member of a shared group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) shard: ShardNumber,
    pub(super) serial: u32,
    pub(super) who: Subscriber,
    pub(super) presence: Presence,
    /// What it gets may have to be stored.
    pub(super) is_kept: bool,
}

type Key = (ShardNumber, SessionId);

impl Member {
    pub(super) fn seat(&self) -> Seat {
        Seat { session: self.who.session, serial: self.serial }
    }

    /// True if its queue had no room when it was last heard of.
    pub(super) fn is_full(&self) -> bool {
        matches!(self.presence, Presence::Full | Presence::FullAndGone)
    }

    fn key(&self) -> Key {
        (self.shard, self.who.session)
    }

    fn class(&self) -> usize {
        match self.presence {
            Presence::Ready => READY,
            Presence::Busy => BUSY,
            Presence::Full => FULL,
            Presence::Gone | Presence::FullAndGone if self.who.qos == QoS::AtMostOnce => NEVER,
            Presence::Gone => COMES_BACK,
            Presence::FullAndGone => FULL_AND_GONE,
        }
    }
}

const READY: usize = 0;
const BUSY: usize = 1;
/// Gone, but what is kept for it reaches it one day.
const COMES_BACK: usize = 2;
const FULL: usize = 3;
const FULL_AND_GONE: usize = 4;
const NEVER: usize = 5;

/// All members of a group.
#[derive(Default)]
pub(super) struct Members {
    list: Vec<Member>,
    places: HashMap<Key, usize, foldhash::fast::RandomState>,
    /// Where each class ends in the list.
    ends: [usize; NEVER + 1],
    /// Where the choice begins next: round robin.
    cursor: usize,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.list.iter()
    }

    /// Adds or replaces one.
    pub(super) fn put(&mut self, member: Member) {
        self.take(member.shard, member.who.session);
        let at = self.list.len();
        self.places.insert(member.key(), at);
        self.list.push(member);
        self.ends[NEVER] += 1;
        self.shift(at, NEVER, member.class());
    }

    /// Takes one out.
    pub(super) fn take(&mut self, shard: ShardNumber, session: SessionId) {
        let Some(&at) = self.places.get(&(shard, session)) else { return };
        self.shift(at, self.list[at].class(), NEVER);
        let at = self.places.remove(&(shard, session)).expect("it was there before it was shifted");
        self.swap(at, self.list.len() - 1);
        self.list.pop();
        self.ends[NEVER] -= 1;
    }

    /// Notes how ready one is.
    pub(super) fn set(&mut self, shard: ShardNumber, session: SessionId, presence: Presence) {
        let Some(&at) = self.places.get(&(shard, session)) else { return };
        let before = self.list[at].class();
        self.list[at].presence = presence;
        self.shift(at, before, self.list[at].class());
    }

    /// Whose turn it is: one that can take it now, else one that is connected, else one that comes back; those without room
    /// last.
    pub(super) fn choose(&mut self, qos: QoS) -> Option<Member> {
        let classes: &[usize] = match qos {
            QoS::AtMostOnce => &[READY, BUSY, FULL],
            _ => &[READY, BUSY, COMES_BACK, FULL, FULL_AND_GONE],
        };
        let class =
            |class: usize| (class.checked_sub(1).map_or(0, |before| self.ends[before]), self.ends[class]);
        let (start, end) = classes.iter().copied().map(class).find(|(start, end)| start < end)?;
        let at = self.cursor % (end - start);
        self.cursor = at + 1;
        Some(self.list[start + at])
    }

    /// Moves one from the class that it lies in to another, by way of those between.
    fn shift(&mut self, mut at: usize, from: usize, to: usize) {
        for class in from..to {
            self.ends[class] -= 1;
            at = self.swap(at, self.ends[class]);
        }
        for class in (to..from).rev() {
            at = self.swap(at, self.ends[class]);
            self.ends[class] += 1;
        }
    }

    /// Has two change places. Returns where the first is now.
    fn swap(&mut self, at: usize, with: usize) -> usize {
        self.list.swap(at, with);
        for place in [at, with] {
            // One that is being taken out has no place any more.
            if let Some(known) = self.places.get_mut(&self.list[place].key()) {
                *known = place;
            }
        }
        with
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENCES: [Presence; 5] =
        [Presence::Ready, Presence::Busy, Presence::Gone, Presence::Full, Presence::FullAndGone];

    fn member(session: SessionId, qos: QoS, presence: Presence) -> Member {
        let who = Subscriber { session, identifier: None, qos, no_local: false, retain_as_published: false };
        Member { shard: (session % 3) as ShardNumber, serial: 0, who, presence, is_kept: false }
    }

    #[test]
    fn the_readiest_take_turns() {
        let mut members = Members::default();
        for session in 0..6 {
            let presence = PRESENCES[session as usize % 3];
            members.put(member(session, QoS::AtLeastOnce, presence));
        }
        let chosen = |members: &mut Members| {
            let mut two =
                [(); 2].map(|()| members.choose(QoS::AtLeastOnce).expect("some are there").who.session);
            two.sort_unstable();
            two
        };
        assert_eq!(chosen(&mut members), [0, 3]);
        members.set(0, 0, Presence::Busy);
        members.take(0, 3);
        let mut three =
            [(); 3].map(|()| members.choose(QoS::AtMostOnce).expect("some are there").who.session);
        three.sort_unstable();
        assert_eq!(three, [0, 1, 4]);
        [(0, 0), (1, 1), (1, 4)]
            .into_iter()
            .for_each(|(shard, session)| members.set(shard, session, Presence::Gone));
        assert!(members.choose(QoS::AtMostOnce).is_none(), "nobody waits for QoS 0");
        members.set(1, 1, Presence::FullAndGone);
        members.set(1, 4, Presence::Full);
        assert_eq!(members.choose(QoS::AtMostOnce).expect("it is there").who.session, 4);
        assert_ne!(members.choose(QoS::AtLeastOnce).expect("some come back").who.session, 4);
    }

    #[test]
    fn all_stay_where_they_belong_whatever_happens() {
        let mut members = Members::default();
        let mut random = 1_u32;
        let mut roll = |sides: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 16) % sides
        };
        for _ in 0..5_000 {
            let session = roll(20);
            let shard = (session % 3) as ShardNumber;
            let presence = PRESENCES[roll(5) as usize];
            let qos = if roll(2) == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            match roll(4) {
                0 => members.put(member(session, qos, presence)),
                1 => members.take(shard, session),
                _ => members.set(shard, session, presence),
            }
            assert_eq!(members.places.len(), members.list.len());
            assert_eq!(members.ends[NEVER], members.list.len());
            for (at, one) in members.list.iter().enumerate() {
                assert_eq!(members.places[&one.key()], at);
                let start = one.class().checked_sub(1).map_or(0, |before| members.ends[before]);
                assert!((start..members.ends[one.class()]).contains(&at), "{one:?} at {at}");
            }
        }
    }
}
