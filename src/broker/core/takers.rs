//! Who takes the messages of one filter: sessions, shared groups and peers here, and other shards.
//!
//! Nearly every filter has one taker, and that needs no memory of its own: 200,000 of them are a matter of megabytes. Whoever
//! comes second makes it [`Takers::Many`]; [`Takers::shrink`] makes it one again.
//!
//! Invariant: a session is at most once among the subscribers.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use smallvec::SmallVec;

use super::mesh::{ShardMask, ShardNumber};
use super::recipients::Subscriber;
use super::routes::GroupId;
use super::subscribers::Subscribers;
use super::{PeerId, SessionId};

/// The takers of one filter.
#[derive(Default)]
pub(super) enum Takers {
    #[default]
    Nobody,
    /// One session by itself.
    Session {
        who: Subscriber,
        is_kept: bool,
    },
    /// Sessions of one other shard, by themselves.
    Shard {
        number: ShardNumber,
        is_kept: bool,
    },
    /// One peer.
    Peer(PeerId),
    Many(Box<Many>),
}

/// Several, or of a rarer kind.
#[derive(Default)]
pub(super) struct Many {
    pub(super) subscribers: Subscribers,
    /// Since the first subscriber came there was one for whom messages may have to be stored.
    is_kept: bool,
    /// What most filters of several sessions have none of.
    others: Option<Box<Others>>,
}

/// Takers besides sessions here by themselves.
#[derive(Default)]
pub(super) struct Others {
    pub(super) groups: SmallVec<[GroupId; 1]>,
    pub(super) peers: SmallVec<[PeerId; 1]>,
    pub(super) marks: Marks,
}

/// Which other shards want a filter.
#[derive(Default)]
pub(super) struct Marks {
    /// Those with sessions that want it by themselves.
    pub(super) plain: ShardMask,
    /// Those of all that want it which may have to store what they get.
    pub(super) kept: ShardMask,
    /// The names of shared groups that another shard owns.
    pub(super) groups: HashSet<Arc<str>, RandomState>,
    /// Which: all groups of a filter have the same home.
    pub(super) owner: ShardNumber,
}

impl Marks {
    pub(super) fn mask(&self) -> ShardMask {
        if self.groups.is_empty() { self.plain } else { self.plain | 1 << self.owner }
    }
}

impl Others {
    /// The only one of these, if there is only one, of a kind that may stand alone.
    fn alone(&self) -> Option<Takers> {
        let Others { groups, peers, marks } = self;
        match (peers[..].first(), marks.mask()) {
            _ if !groups.is_empty() || !marks.groups.is_empty() || peers.len() > 1 => None,
            (None, 0) => Some(Takers::Nobody),
            (Some(&peer), 0) => Some(Takers::Peer(peer)),
            (None, one) if one.is_power_of_two() => Some(Takers::Shard {
                number: one.trailing_zeros() as ShardNumber,
                is_kept: marks.kept == one,
            }),
            _ => None,
        }
    }
}

impl Many {
    fn of(takers: Takers) -> Box<Many> {
        let mut many = match takers {
            Takers::Many(many) => return many,
            Takers::Session { is_kept, .. } => Box::new(Many { is_kept, ..Many::default() }),
            _ => Box::<Many>::default(),
        };
        match takers {
            Takers::Session { who, .. } => many.subscribers.put(who),
            Takers::Shard { number, is_kept } => {
                let marks = &mut many.others().marks;
                marks.plain = 1 << number;
                marks.kept = u64::from(is_kept) << number;
            }
            Takers::Peer(peer) => many.others().peers.push(peer),
            Takers::Nobody | Takers::Many(_) => {}
        }
        many
    }

    fn others(&mut self) -> &mut Others {
        self.others.get_or_insert_default()
    }
}

impl Takers {
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Takers::Nobody)
    }

    #[inline]
    pub(super) fn subscribers(&self) -> &[Subscriber] {
        match self {
            Takers::Session { who, .. } => std::slice::from_ref(who),
            Takers::Many(many) => &many.subscribers,
            _ => &[],
        }
    }

    /// How a session takes it.
    pub(super) fn subscriber(&self, session: SessionId) -> Option<&Subscriber> {
        match self {
            Takers::Many(many) => many.subscribers.get(session),
            _ => self.subscribers().first().filter(|who| who.session == session),
        }
    }

    pub(super) fn groups(&self) -> &[GroupId] {
        self.others().map_or(&[], |others| &others.groups)
    }

    #[inline]
    pub(super) fn peers(&self) -> &[PeerId] {
        match self {
            Takers::Peer(peer) => std::slice::from_ref(peer),
            _ => self.others().map_or(&[], |others| &others.peers),
        }
    }

    /// The other shards that want it, and those of them that may have to store what they get.
    #[inline]
    pub(super) fn shards(&self) -> (ShardMask, ShardMask) {
        match self {
            Takers::Shard { number, is_kept } => (1 << number, u64::from(*is_kept) << number),
            _ => self.others().map_or((0, 0), |others| (others.marks.mask(), others.marks.kept)),
        }
    }

    /// True if sessions of other shards want it by themselves.
    pub(super) fn is_marked(&self) -> bool {
        matches!(self, Takers::Shard { .. }) || self.others().is_some_and(|others| others.marks.plain != 0)
    }

    /// The names of its groups that another shard owns.
    pub(super) fn groups_elsewhere(&self) -> Option<&HashSet<Arc<str>, RandomState>> {
        self.others().map(|others| &others.marks.groups)
    }

    /// Adds or replaces a subscriber. True if it is the first.
    pub(super) fn put(&mut self, who: Subscriber) -> bool {
        match self {
            Takers::Nobody => *self = Takers::Session { who, is_kept: false },
            Takers::Session { who: known, .. } if known.session == who.session => {
                *known = who;
                return false;
            }
            _ => {
                let subscribers = &mut self.many().subscribers;
                let is_first = subscribers.is_empty();
                subscribers.put(who);
                return is_first;
            }
        }
        true
    }

    /// Takes a subscriber away. True if it was the last.
    pub(super) fn take(&mut self, session: SessionId) -> bool {
        match self {
            Takers::Session { who, .. } if who.session == session => *self = Takers::Nobody,
            Takers::Many(many) => {
                let was_last = many.subscribers.take(session) && many.subscribers.is_empty();
                many.is_kept &= !was_last;
                return was_last;
            }
            _ => return false,
        }
        true
    }

    /// Notes that a subscriber's messages may have to be stored. True if that is news.
    pub(super) fn note_kept(&mut self) -> bool {
        match self {
            Takers::Session { is_kept, .. } => !std::mem::replace(is_kept, true),
            Takers::Many(many) => !std::mem::replace(&mut many.is_kept, true),
            _ => false,
        }
    }

    /// The same of another shard that wants it.
    pub(super) fn mark_kept(&mut self, shard: ShardNumber) {
        match self {
            Takers::Shard { number, is_kept } => *is_kept |= *number == shard,
            Takers::Many(many) => {
                if let Some(others) = &mut many.others {
                    others.marks.kept |= 1 << shard & others.marks.mask();
                }
            }
            _ => {}
        }
    }

    /// Makes room for several.
    pub(super) fn many(&mut self) -> &mut Many {
        *self = Takers::Many(Many::of(std::mem::take(self)));
        match self {
            Takers::Many(many) => many,
            _ => unreachable!("it was made so just now"),
        }
    }

    /// Makes room for groups, peers and marks.
    pub(super) fn others_mut(&mut self) -> &mut Others {
        self.many().others()
    }

    /// Makes one of several that have become one.
    pub(super) fn shrink(&mut self) {
        let Takers::Many(many) = self else { return };
        let others = many.others.as_ref().map_or(Some(Takers::Nobody), |others| others.alone());
        if let Some(Takers::Nobody) = others {
            many.others = None;
        }
        *self = match (&many.subscribers[..], others) {
            ([], Some(one)) => one,
            (&[who], Some(Takers::Nobody)) => Takers::Session { who, is_kept: many.is_kept },
            _ => return,
        };
    }

    fn others(&self) -> Option<&Others> {
        match self {
            Takers::Many(many) => many.others.as_deref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::core::routes::Routes;
    use crate::mqtt::{Filter, QoS};

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Subscribe(SessionId),
        Unsubscribe(SessionId),
        Keep,
        Mark(ShardNumber, bool),
        MarkGroup(bool),
        MarkKept(ShardNumber),
        AddPeer(u32),
        RemovePeer(u32),
    }

    const STEPS: [Step; 14] = [
        Step::Subscribe(1),
        Step::Subscribe(2),
        Step::Unsubscribe(1),
        Step::Unsubscribe(2),
        Step::Keep,
        Step::Mark(3, true),
        Step::Mark(3, false),
        Step::Mark(4, true),
        Step::MarkGroup(true),
        Step::MarkGroup(false),
        Step::MarkKept(3),
        Step::AddPeer(5),
        Step::AddPeer(6),
        Step::RemovePeer(5),
    ];

    /// What a filter's takers are, put plainly.
    #[derive(Default)]
    struct Model {
        sessions: Vec<SessionId>,
        is_kept: bool,
        plain: ShardMask,
        group: bool,
        kept: ShardMask,
        peers: Vec<PeerId>,
    }

    impl Model {
        fn shards(&self) -> ShardMask {
            self.plain | u64::from(self.group) << 3
        }

        /// Does a step here and there; what is answered must be the same. Nothing if it makes no sense now.
        fn go(&mut self, routes: &mut Routes, filter: &Filter, step: Step) -> Option<()> {
            let had = (self.sessions.len(), self.plain, self.peers.len());
            let (answer, expected) = match step {
                Step::Subscribe(session) => {
                    self.sessions.retain(|&other| other != session);
                    self.sessions.push(session);
                    (routes.subscribe(filter, who(session)).1, had.0 == 0)
                }
                Step::Unsubscribe(session) => {
                    let at = self.sessions.iter().position(|&other| other == session)?;
                    self.sessions.remove(at);
                    self.is_kept &= !self.sessions.is_empty();
                    (routes.unsubscribe(filter, session).1, self.sessions.is_empty())
                }
                Step::Keep => {
                    let one = *self.sessions.first()?;
                    let (route, _) = routes.subscribe(filter, who(one));
                    (routes.note_kept(route), !std::mem::replace(&mut self.is_kept, true))
                }
                Step::Mark(shard, wanted) => {
                    self.plain = if wanted { had.1 | 1 << shard } else { had.1 & !(1 << shard) };
                    self.kept &= self.shards();
                    let is_change = had.0 == 0 && (had.1 == 0) != (self.plain == 0);
                    (routes.mark(filter, None, shard, wanted), is_change)
                }
                Step::MarkGroup(wanted) => {
                    let is_there = self.shards() != 0 || !self.peers.is_empty() || had.0 > 0;
                    self.group = wanted;
                    self.kept &= self.shards();
                    (routes.mark(filter, Some(&"g".into()), 3, wanted), wanted || is_there)
                }
                Step::MarkKept(shard) => {
                    self.kept |= 1 << shard & self.shards();
                    routes.mark_kept(filter, shard);
                    return Some(());
                }
                Step::AddPeer(peer) => {
                    self.peers.retain(|&other| other != PeerId(peer));
                    self.peers.push(PeerId(peer));
                    (routes.add_peer(filter, PeerId(peer)), self.peers.len() == 1)
                }
                Step::RemovePeer(peer) => {
                    self.peers.retain(|&other| other != PeerId(peer));
                    (routes.remove_peer(filter.as_str(), PeerId(peer)), had.2 > 0 && self.peers.is_empty())
                }
            };
            assert_eq!(answer, expected, "what {step:?} answers");
            Some(())
        }

        /// True if there is one taker, of a kind that needs no memory of its own.
        fn is_alone(&self) -> bool {
            self.sessions.len() + self.plain.count_ones() as usize + self.peers.len() == 1 && !self.group
        }
    }

    fn who(session: SessionId) -> Subscriber {
        Subscriber {
            session,
            identifier: None,
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
        }
    }

    fn sorted<T: Ord>(all: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_unstable();
        all
    }

    /// Every order in which takers may come and go, as far as four steps lead.
    #[test]
    fn takers_are_who_came_and_did_not_go_and_one_alone_takes_no_memory() {
        let filter = Filter::parse("t/+").expect("it is valid");
        let mut met = 0;
        for script in 0..STEPS.len().pow(4) {
            let (mut routes, mut model) = (Routes::new(), Model::default());
            let steps: Vec<_> = (0..4).map(|at| STEPS[script / STEPS.len().pow(at) % STEPS.len()]).collect();
            if steps.iter().any(|&step| model.go(&mut routes, &filter, step).is_none()) {
                continue;
            }
            met += 1;
            let found = routes.matches("t/1");
            assert_eq!(
                (sorted(found.sessions.iter().map(|one| one.session)), sorted(found.peers.clone())),
                (sorted(model.sessions.clone()), sorted(model.peers.clone())),
                "{steps:?}"
            );
            assert_eq!((found.shards, found.keepers), (model.shards(), model.kept), "{steps:?}");
            assert_eq!(routes.is_marked(&filter, None), model.plain != 0, "{steps:?}");
            assert_eq!(routes.has_peers(&filter), !model.peers.is_empty(), "{steps:?}");
            assert_eq!(routes.has_subscribers("t/+"), !model.sessions.is_empty(), "{steps:?}");
            let is_wanted = model.shards() != 0 || !model.peers.is_empty() || !model.sessions.is_empty();
            let takers = routes.takers("t/+");
            assert_eq!(takers.is_some(), is_wanted, "{steps:?}");
            if model.is_alone() {
                assert!(takers.is_some_and(|takers| !matches!(takers, Takers::Many(_))), "{steps:?}");
            }
        }
        assert!(met > 10_000, "{met} of all orders make sense");
    }
}
