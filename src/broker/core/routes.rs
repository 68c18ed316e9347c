//! Who wants which topics: sessions, shared groups and peers by filter.
//!
//! All filters lie in one hash table by their text, so a topic finds an equal filter with one look-up; filters with
//! wildcards hang in a tree besides. Each change of who wants what raises [`Routes::generation`], by which caches of
//! matches know that they are old.
//!
//! Invariants: a route has at least one subscriber, group, peer or mark; a group is only where it is owned and has at least
//! one member; a session is at most once among a route's subscribers and at most once in a group.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet, HashTable};
use slab::Slab;
use smallvec::SmallVec;

use super::members::{Member, Members, Presence};
use super::mesh::{ShardMask, ShardNumber};
use super::recipients::{Recipients, Subscriber};
use super::subscribers::Subscribers;
use super::tree::{NodeId, ROOT, Tree};
use super::{PeerId, SessionId};
use crate::mqtt::{Filter, QoS, SharedFilter};

/// The route of one filter.
struct Route {
    filter: Filter,
    subscribers: Subscribers,
    /// Since the first subscriber came there was one for whom messages may have to be stored.
    is_kept: bool,
    /// What most routes have none of.
    others: Option<Box<Others>>,
}

/// What each filter that somebody wants takes here.
#[cfg(test)]
pub(super) const ROUTE_BYTES: usize = size_of::<Route>();

/// Who wants a filter besides sessions here by themselves.
#[derive(Default)]
struct Others {
    groups: SmallVec<[GroupId; 1]>,
    peers: SmallVec<[PeerId; 1]>,
    /// What other shards want, if any does.
    marks: Option<Marks>,
}

impl Route {
    fn groups(&self) -> &[GroupId] {
        self.others.as_ref().map_or(&[], |others| &others.groups)
    }

    fn peers(&self) -> &[PeerId] {
        self.others.as_ref().map_or(&[], |others| &others.peers)
    }

    fn marks(&self) -> Option<&Marks> {
        self.others.as_ref()?.marks.as_ref()
    }

    fn others_mut(&mut self) -> &mut Others {
        self.others.get_or_insert_default()
    }

    /// True if nobody wants its filter.
    fn is_unused(&mut self) -> bool {
        let is_vacant = |others: &mut Box<Others>| {
            others.groups.is_empty() && others.peers.is_empty() && others.marks.is_none()
        };
        self.others.take_if(is_vacant);
        self.subscribers.is_empty() && self.others.is_none()
    }
}

/// Which other shards want a filter.
#[derive(Default)]
struct Marks {
    plain: ShardMask,
    /// Those of all that want it which may have to store what they get.
    kept: ShardMask,
    /// The names of shared groups that another shard owns.
    groups: HashSet<Arc<str>, RandomState>,
    /// Which: all groups of a filter have the same home.
    owner: ShardNumber,
}

impl Marks {
    fn mask(&self) -> ShardMask {
        if self.groups.is_empty() { self.plain } else { self.plain | 1 << self.owner }
    }
}

/// Names a shared group. The serial tells it from a later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupId {
    slot: u32,
    serial: u32,
}

/// A shared group: of its members one gets each message.
struct Group {
    shared: Arc<SharedFilter>,
    serial: u32,
    /// Its place among the groups of its filter.
    place: usize,
    /// Since the first member came there was one for whom messages may have to be stored.
    is_kept: bool,
    members: Members,
}

/// What hangs at a node of the tree: the route of the filter that ends here, and of the one that ends in `/#` here.
#[derive(Default)]
struct Ends {
    here: Option<u32>,
    tail: Option<u32>,
}

/// The table of routes.
pub(super) struct Routes {
    routes: Slab<Route>,
    by_filter: HashTable<u32>,
    wild: Tree<Ends>,
    /// How many routes hang in the tree.
    wild_count: usize,
    groups: Slab<Group>,
    by_share: HashMap<SharedFilter, GroupId, RandomState>,
    hasher: RandomState,
    generation: u64,
    serial: u32,
}

impl Routes {
    pub(super) fn new() -> Routes {
        Routes {
            routes: Slab::new(),
            by_filter: HashTable::new(),
            wild: Tree::new(),
            wild_count: 0,
            groups: Slab::new(),
            by_share: HashMap::default(),
            hasher: RandomState::default(),
            generation: 0,
            serial: 0,
        }
    }

    /// Changes whenever a match might give another result.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds or replaces a session's own subscription. True if it is the first of its filter.
    pub(super) fn subscribe(&mut self, filter: &Filter, who: Subscriber) -> bool {
        self.generation += 1;
        let route = self.route_or_insert(filter);
        let subscribers = &mut self.routes[route as usize].subscribers;
        let is_first = subscribers.is_empty();
        subscribers.put(who);
        is_first
    }

    /// Notes that what a session gets by a filter may have to be stored. True if that is news.
    pub(super) fn note_kept(&mut self, filter: &Filter) -> bool {
        let route = self.find(filter.as_str()).map(|route| &mut self.routes[route as usize]);
        route.is_some_and(|route| !std::mem::replace(&mut route.is_kept, true))
    }

    /// The same of a group.
    pub(super) fn note_kept_group(&mut self, shared: &SharedFilter) -> bool {
        let group = self.find_group(shared).map(|id| &mut self.groups[id.slot as usize]);
        group.is_some_and(|group| !std::mem::replace(&mut group.is_kept, true))
    }

    /// The same of another shard that wants a filter, until it does no more.
    pub(super) fn mark_kept(&mut self, filter: &Filter, shard: ShardNumber) {
        self.generation += 1;
        let route = self.find(filter.as_str()).map(|route| &mut self.routes[route as usize]);
        if let Some(marks) = route.and_then(|route| route.others.as_mut()?.marks.as_mut()) {
            marks.kept |= 1 << shard;
        }
    }

    /// Adds or replaces a member of a group. True if it is the group's first.
    pub(super) fn join(&mut self, shared: &SharedFilter, member: Member) -> bool {
        self.generation += 1;
        let known = self.find_group(shared);
        let group = known.unwrap_or_else(|| self.add_group(shared));
        self.groups[group.slot as usize].members.put(member);
        known.is_none()
    }

    /// Takes a member out of a group. True if it was the last.
    pub(super) fn leave(&mut self, shared: &SharedFilter, shard: ShardNumber, session: SessionId) -> bool {
        self.generation += 1;
        let Some(id) = self.find_group(shared) else { return false };
        let members = &mut self.groups[id.slot as usize].members;
        members.take(shard, session);
        let was_last = members.is_empty();
        if was_last {
            self.remove_group(shared, id);
        }
        was_last
    }

    /// Notes how ready a member is.
    pub(super) fn set_presence(
        &mut self,
        shared: &SharedFilter,
        shard: ShardNumber,
        session: SessionId,
        presence: Presence,
    ) {
        if let Some(id) = self.find_group(shared) {
            self.groups[id.slot as usize].members.set(shard, session, presence);
        }
    }

    /// The member of a group whose turn it is, if the group still stands and anybody may have it.
    pub(super) fn choose(&mut self, id: GroupId, qos: QoS) -> Option<(Arc<SharedFilter>, Member)> {
        let group = self.groups.get_mut(id.slot as usize).filter(|group| group.serial == id.serial)?;
        Some((Arc::clone(&group.shared), group.members.choose(qos)?))
    }

    /// Notes that another shard wants a filter, or no longer does. True if that makes it the first or the last of all who
    /// do, this shard included.
    pub(super) fn mark(
        &mut self,
        filter: &Filter,
        group: Option<&Arc<str>>,
        shard: ShardNumber,
        wanted: bool,
    ) -> bool {
        self.generation += 1;
        let known = self.find(filter.as_str());
        let route = match known {
            Some(route) => route,
            None if wanted => self.route_or_insert(filter),
            None => return false,
        };
        let here = &mut self.routes[route as usize];
        let has_subscribers = !here.subscribers.is_empty();
        let others = here.others_mut();
        let marks = others.marks.get_or_insert_default();
        let is_change = match group {
            None => {
                let before = marks.plain;
                marks.plain = if wanted { before | 1 << shard } else { before & !(1 << shard) };
                !has_subscribers && (before == 0) != (marks.plain == 0)
            }
            Some(name) => {
                match wanted {
                    true => drop(marks.groups.insert(name.clone())),
                    false => drop(marks.groups.remove(name)),
                }
                marks.owner = shard;
                true // a group has one owner
            }
        };
        marks.kept &= marks.mask();
        if marks.mask() == 0 {
            others.marks = None;
        }
        self.drop_if_unused(route);
        is_change
    }

    /// True if another shard wants this.
    pub(super) fn is_marked(&self, filter: &Filter, group: Option<&Arc<str>>) -> bool {
        let route = self.find(filter.as_str()).map(|route| &self.routes[route as usize]);
        let Some(marks) = route.and_then(Route::marks) else { return false };
        match group {
            None => marks.plain != 0,
            Some(name) => marks.groups.contains(name),
        }
    }

    /// True if a peer wants this filter.
    pub(super) fn has_peers(&self, filter: &Filter) -> bool {
        self.find(filter.as_str()).is_some_and(|route| !self.routes[route as usize].peers().is_empty())
    }

    /// True if sessions here want this filter, by themselves.
    pub(super) fn has_subscribers(&self, filter: &str) -> bool {
        self.find(filter).is_some_and(|route| !self.routes[route as usize].subscribers.is_empty())
    }

    /// Takes a session's own subscription away. True if it was the last of its filter.
    pub(super) fn unsubscribe(&mut self, filter: &str, session: SessionId) -> bool {
        self.generation += 1;
        let Some(route) = self.find(filter) else { return false };
        let here = &mut self.routes[route as usize];
        let was_last = here.subscribers.take(session) && here.subscribers.is_empty();
        here.is_kept &= !was_last;
        self.drop_if_unused(route);
        was_last
    }

    /// Adds a peer's route. True if it is the first for its filter.
    pub(super) fn add_peer(&mut self, filter: &Filter, peer: PeerId) -> bool {
        self.generation += 1;
        let route = self.route_or_insert(filter);
        let peers = &mut self.routes[route as usize].others_mut().peers;
        if !peers.contains(&peer) {
            peers.push(peer);
        }
        peers.len() == 1
    }

    /// Takes a peer's route away. True if it was the last for its filter.
    pub(super) fn remove_peer(&mut self, filter: &str, peer: PeerId) -> bool {
        self.generation += 1;
        let Some(route) = self.find(filter) else { return false };
        let peers = &mut self.routes[route as usize].others_mut().peers;
        let before = peers.len();
        peers.retain(|&mut other| other != peer);
        let was_last = before > 0 && peers.is_empty();
        self.drop_if_unused(route);
        was_last
    }

    /// The filters that a peer wants.
    pub(super) fn filters_of(&self, peer: PeerId) -> Vec<Filter> {
        let of_peer = |(_, route): &(usize, &Route)| route.peers().contains(&peer);
        self.routes.iter().filter(of_peer).map(|(_, route)| route.filter.clone()).collect()
    }

    /// The members of a group; nobody if it is gone.
    pub(super) fn members(&self, id: GroupId) -> impl Iterator<Item = &Member> {
        let group = self.groups.get(id.slot as usize).filter(|group| group.serial == id.serial);
        group.into_iter().flat_map(|group| group.members.iter())
    }

    /// A group that is owned here, if it has members.
    pub(super) fn find_group(&self, shared: &SharedFilter) -> Option<GroupId> {
        self.by_share.get(shared).copied()
    }

    /// Every filter and group that subscribers want, those of other shards included.
    pub(super) fn interests(&self) -> impl Iterator<Item = (&Filter, Option<&Arc<str>>)> {
        self.routes.iter().flat_map(|(_, route)| {
            let is_marked = route.marks().is_some_and(|marks| marks.plain != 0);
            let plain = (is_marked || !route.subscribers.is_empty()).then_some((&route.filter, None));
            let named = |id: &GroupId| (&route.filter, Some(&self.groups[id.slot as usize].shared.group));
            let marks = route.marks().into_iter().flat_map(|marks| &marks.groups);
            let others = marks.map(|name| (&route.filter, Some(name)));
            plain.into_iter().chain(route.groups().iter().map(named)).chain(others)
        })
    }

    /// Who gets a message with this topic.
    pub(super) fn matches(&self, topic: &str) -> Recipients {
        let mut hits = SmallVec::<[u32; 8]>::new();
        hits.extend(self.find(topic));
        if self.wild_count > 0 {
            self.walk(topic, &mut hits);
        }
        let mut recipients = Recipients::default();
        for &hit in &hits {
            let route = &self.routes[hit as usize];
            recipients.add(&route.subscribers, route.peers());
            if let Some(marks) = route.marks() {
                recipients.shards |= marks.mask();
                recipients.keepers |= marks.kept;
            }
            recipients.groups.extend_from_slice(route.groups());
        }
        recipients.merge();
        recipients
    }

    /// Finds the wildcard filters that match. No recursion: the peer chooses how deep a topic is.
    fn walk(&self, topic: &str, hits: &mut SmallVec<[u32; 8]>) {
        let mut open = SmallVec::<[(NodeId, Option<&str>); 16]>::new();
        open.push((ROOT, Some(topic)));
        while let Some((node, rest)) = open.pop() {
            let ends = self.wild.value(node);
            // A leading wildcard does not match a topic that begins with `$` [MQTT-4.7.2-1].
            let wild_allowed = node != ROOT || !topic.starts_with('$');
            hits.extend(ends.tail.filter(|_| wild_allowed));
            let Some(rest) = rest else {
                hits.extend(ends.here);
                continue;
            };
            let (label, rest) = match rest.split_once('/') {
                Some((label, rest)) => (label, Some(rest)),
                None => (rest, None),
            };
            open.extend(self.wild.child(node, label).map(|child| (child, rest)));
            open.extend(self.wild.plus(node).filter(|_| wild_allowed).map(|child| (child, rest)));
        }
    }

    // [MQTT-4.7.3-4]
    fn find(&self, filter: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(filter);
        self.by_filter.find(hash, |&id| self.routes[id as usize].filter.as_str() == filter).copied()
    }

    fn route_or_insert(&mut self, filter: &Filter) -> u32 {
        if let Some(route) = self.find(filter.as_str()) {
            return route;
        }
        let id = self.routes.insert(Route {
            filter: filter.clone(),
            subscribers: Subscribers::default(),
            is_kept: false,
            others: None,
        }) as u32;
        let (routes, hasher) = (&self.routes, &self.hasher);
        let rehash = |&id: &u32| hasher.hash_one(routes[id as usize].filter.as_str());
        self.by_filter.insert_unique(hasher.hash_one(filter.as_str()), id, rehash);
        if filter.has_wildcard() {
            let (labels, is_tail) = split_tail(filter.as_str());
            let node = self.wild.insert_path(labels);
            *end_mut(self.wild.value_mut(node), is_tail) = Some(id);
            self.wild_count += 1;
        }
        id
    }

    fn drop_if_unused(&mut self, route: u32) {
        if !self.routes[route as usize].is_unused() {
            return;
        }
        let filter = self.routes.remove(route as usize).filter;
        let hash = self.hasher.hash_one(filter.as_str());
        if let Ok(entry) = self.by_filter.find_entry(hash, |&id| id == route) {
            entry.remove();
        }
        if filter.has_wildcard() {
            let (labels, is_tail) = split_tail(filter.as_str());
            let node = self.wild.find_path(labels).expect("a wildcard route hangs in the tree");
            *end_mut(self.wild.value_mut(node), is_tail) = None;
            self.wild_count -= 1;
            self.wild.prune(node, |ends| ends.here.is_none() && ends.tail.is_none());
        }
    }

    fn add_group(&mut self, shared: &SharedFilter) -> GroupId {
        let route = self.route_or_insert(&shared.filter);
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let filter = self.routes[route as usize].filter.clone();
        let shared = Arc::new(SharedFilter { group: Arc::clone(&shared.group), filter });
        let place = self.routes[route as usize].groups().len();
        let group =
            Group { shared: Arc::clone(&shared), serial, place, is_kept: false, members: Members::default() };
        let id = GroupId { slot: self.groups.insert(group) as u32, serial };
        self.routes[route as usize].others_mut().groups.push(id);
        self.by_share.insert(SharedFilter::clone(&shared), id);
        id
    }

    fn remove_group(&mut self, shared: &SharedFilter, id: GroupId) {
        let place = self.groups.remove(id.slot as usize).place;
        self.by_share.remove(shared);
        let route = self.find(shared.filter.as_str()).expect("a group has a route");
        let groups = &mut self.routes[route as usize].others_mut().groups;
        groups.swap_remove(place);
        if let Some(moved) = groups.get(place) {
            self.groups[moved.slot as usize].place = place;
        }
        self.drop_if_unused(route);
    }
}

/// The levels of a filter without its trailing `#`, and whether it had one.
fn split_tail(filter: &str) -> (impl Iterator<Item = &str>, bool) {
    let stem = filter.strip_suffix("/#").or((filter == "#").then_some(""));
    let levels = match (stem, filter) {
        (Some(_), "#") => None,
        (Some(stem), _) => Some(stem.split('/')),
        (None, filter) => Some(filter.split('/')),
    };
    (levels.into_iter().flatten(), stem.is_some())
}

fn end_mut(ends: &mut Ends, is_tail: bool) -> &mut Option<u32> {
    if is_tail { &mut ends.tail } else { &mut ends.here }
}
