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
use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use super::blocks::Blocks;
use super::members::{Member, Members, Presence};
use super::mesh::ShardNumber;
use super::recipients::{Recipients, Subscriber};
use super::table::Table;
use super::takers::Takers;
use super::tree::{NodeId, ROOT, Tree};
use super::{PeerId, SessionId};
use crate::mqtt::{Filter, QoS, SharedFilter};

/// How many looks a lookup has free: what nearly all have to pay needs no count.
const LOOKS_FREE: usize = 16;

/// A route's place, for as long as anybody wants its filter.
pub(super) type RouteId = u32;

/// The route of one filter.
struct Route {
    filter: Filter,
    takers: Takers,
}

/// What each filter that somebody wants takes here.
#[cfg(test)]
pub(super) const ROUTE_BYTES: usize = size_of::<super::blocks::Slot<Route>>();

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
struct Ends {
    here: RouteId,
    tail: RouteId,
}

/// Where no route ends.
const NONE: RouteId = RouteId::MAX;

impl Default for Ends {
    fn default() -> Ends {
        Ends { here: NONE, tail: NONE }
    }
}

/// The table of routes.
pub(super) struct Routes {
    routes: Blocks<Route>,
    by_filter: Table,
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
            routes: Blocks::default(),
            by_filter: Table::default(),
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

    /// Adds or replaces a session's own subscription. Gives the route, and whether it is the first of its filter.
    pub(super) fn subscribe(&mut self, filter: &Filter, who: Subscriber) -> (RouteId, bool) {
        self.generation += 1;
        let route = self.route_or_insert(filter);
        (route, self.routes[route].takers.put(who))
    }

    /// How a session subscribed to a filter by itself.
    pub(super) fn subscriber(&self, filter: &str, session: SessionId) -> Option<&Subscriber> {
        self.routes[self.find(filter)?].takers.subscriber(session)
    }

    /// The filter of a route that a session has, and how it subscribed.
    pub(super) fn subscribed(&self, route: RouteId, session: SessionId) -> (&Filter, &Subscriber) {
        let Route { filter, takers } = &self.routes[route];
        (filter, takers.subscriber(session).expect("a session's routes have it"))
    }

    /// Notes that what a session gets by a route may have to be stored. True if that is news.
    pub(super) fn note_kept(&mut self, route: RouteId) -> bool {
        self.routes[route].takers.note_kept()
    }

    /// The same of a group.
    pub(super) fn note_kept_group(&mut self, shared: &SharedFilter) -> bool {
        let group = self.find_group(shared).map(|id| &mut self.groups[id.slot as usize]);
        group.is_some_and(|group| !std::mem::replace(&mut group.is_kept, true))
    }

    /// The same of another shard that wants a filter, until it does no more.
    pub(super) fn mark_kept(&mut self, filter: &Filter, shard: ShardNumber) {
        self.generation += 1;
        if let Some(route) = self.find(filter.as_str()) {
            self.routes[route].takers.mark_kept(shard);
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
        let takers = &mut self.routes[route].takers;
        if takers.is_nobody() && group.is_none() {
            *takers = Takers::Shard { number: shard, is_kept: false };
            return true;
        }
        let has_subscribers = !takers.subscribers().is_empty();
        let marks = &mut takers.others_mut().marks;
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
        self.shrink(route);
        is_change
    }

    /// True if another shard wants this.
    pub(super) fn is_marked(&self, filter: &Filter, group: Option<&Arc<str>>) -> bool {
        let Some(route) = self.find(filter.as_str()) else { return false };
        let takers = &self.routes[route].takers;
        match group {
            None => takers.is_marked(),
            Some(name) => takers.groups_elsewhere().is_some_and(|groups| groups.contains(name)),
        }
    }

    /// True if a peer wants this filter.
    pub(super) fn has_peers(&self, filter: &Filter) -> bool {
        self.find(filter.as_str()).is_some_and(|route| !self.routes[route].takers.peers().is_empty())
    }

    /// True if sessions here want this filter, by themselves.
    pub(super) fn has_subscribers(&self, filter: &str) -> bool {
        self.find(filter).is_some_and(|route| !self.routes[route].takers.subscribers().is_empty())
    }

    /// Takes a session's own subscription away. Gives the route that it had, and whether it was the last of its filter.
    pub(super) fn unsubscribe(&mut self, filter: &Filter, session: SessionId) -> (RouteId, bool) {
        self.generation += 1;
        let route = self.find(filter.as_str()).expect("what is subscribed to has a route");
        let was_last = self.routes[route].takers.take(session);
        self.shrink(route);
        (route, was_last)
    }

    /// Adds a peer's route. True if it is the first for its filter.
    pub(super) fn add_peer(&mut self, filter: &Filter, peer: PeerId) -> bool {
        self.generation += 1;
        let route = self.route_or_insert(filter);
        let takers = &mut self.routes[route].takers;
        if takers.is_nobody() {
            *takers = Takers::Peer(peer);
            return true;
        }
        let peers = &mut takers.others_mut().peers;
        if !peers.contains(&peer) {
            peers.push(peer);
        }
        let is_only = peers.len() == 1;
        self.shrink(route);
        is_only
    }

    /// Takes a peer's route away. True if it was the last for its filter.
    pub(super) fn remove_peer(&mut self, filter: &str, peer: PeerId) -> bool {
        self.generation += 1;
        let Some(route) = self.find(filter) else { return false };
        let peers = &mut self.routes[route].takers.others_mut().peers;
        let before = peers.len();
        peers.retain(|&mut other| other != peer);
        let was_last = before > 0 && peers.is_empty();
        self.shrink(route);
        was_last
    }

    /// The filters that a peer wants.
    pub(super) fn filters_of(&self, peer: PeerId) -> Vec<Filter> {
        let of_peer = |route: &&Route| route.takers.peers().contains(&peer);
        self.routes.iter().filter(of_peer).map(|route| route.filter.clone()).collect()
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
        self.routes.iter().flat_map(move |Route { filter, takers }| {
            let is_plain = takers.is_marked() || !takers.subscribers().is_empty();
            let named = move |id: &GroupId| (filter, Some(&self.groups[id.slot as usize].shared.group));
            let others =
                takers.groups_elsewhere().into_iter().flatten().map(move |name| (filter, Some(name)));
            let plain = is_plain.then_some((filter, None));
            plain.into_iter().chain(takers.groups().iter().map(named)).chain(others)
        })
    }

    #[cfg(test)]
    pub(super) fn takers(&self, filter: &str) -> Option<&Takers> {
        self.find(filter).map(|route| &self.routes[route].takers)
    }

    /// Who gets a message with this topic.
    pub(super) fn matches(&self, topic: &str) -> Recipients {
        let mut hits = SmallVec::<[RouteId; 8]>::new();
        hits.extend(self.find(topic));
        let mut levels = 0;
        if self.wild_count > 0 {
            levels = self.walk(topic, &mut hits);
        }
        let mut recipients = Recipients::default();
        for &hit in &hits {
            let takers = &self.routes[hit].takers;
            recipients.add(takers.subscribers(), takers.peers());
            let (shards, keepers) = takers.shards();
            recipients.shards |= shards;
            recipients.keepers |= keepers;
            recipients.groups.extend_from_slice(takers.groups());
        }
        let found = recipients.sessions.len();
        recipients.merge();
        let merged = found - recipients.sessions.len();
        recipients.looked_at = (levels + hits.len() + merged).saturating_sub(LOOKS_FREE);
        recipients
    }

    /// Finds the wildcard filters that match, and says how many levels it looked at. No recursion: the peer chooses how deep a
    /// topic is.
    fn walk(&self, topic: &str, hits: &mut SmallVec<[RouteId; 8]>) -> usize {
        let mut levels = 0;
        let mut open = SmallVec::<[(NodeId, Option<&str>); 16]>::new();
        open.push((ROOT, Some(topic)));
        while let Some((node, rest)) = open.pop() {
            levels += 1;
            let ends = self.wild.value(node);
            // A leading wildcard does not match a topic that begins with `$` [MQTT-4.7.2-1].
            let wild_allowed = node != ROOT || !topic.starts_with('$');
            hits.extend(Some(ends.tail).filter(|&tail| tail != NONE && wild_allowed));
            let Some(rest) = rest else {
                hits.extend(Some(ends.here).filter(|&here| here != NONE));
                continue;
            };
            let (label, rest) = match rest.split_once('/') {
                Some((label, rest)) => (label, Some(rest)),
                None => (rest, None),
            };
            open.extend(self.wild.child(node, label).map(|child| (child, rest)));
            open.extend(self.wild.plus(node).filter(|_| wild_allowed).map(|child| (child, rest)));
        }
        levels
    }

    // [MQTT-4.7.3-4]
    fn find(&self, filter: &str) -> Option<RouteId> {
        let hash = self.hasher.hash_one(filter);
        self.by_filter.find(hash, |&id| self.routes[id].filter.as_str() == filter)
    }

    fn route_or_insert(&mut self, filter: &Filter) -> RouteId {
        if let Some(route) = self.find(filter.as_str()) {
            return route;
        }
        let id = self.routes.insert(Route { filter: filter.clone(), takers: Takers::Nobody });
        let (routes, hasher) = (&self.routes, &self.hasher);
        let rehash = |&id: &RouteId| hasher.hash_one(routes[id].filter.as_str());
        self.by_filter.insert(hasher.hash_one(filter.as_str()), id, rehash);
        if filter.has_wildcard() {
            let (labels, is_tail) = split_tail(filter.as_str());
            let node = self.wild.insert_path(labels);
            *end_mut(self.wild.value_mut(node), is_tail) = id;
            self.wild_count += 1;
        }
        id
    }

    /// Gives back what a route that fewer want takes, and the route if nobody does.
    fn shrink(&mut self, route: RouteId) {
        let takers = &mut self.routes[route].takers;
        takers.shrink();
        if !takers.is_nobody() {
            return;
        }
        let filter = self.routes.remove(route).filter;
        let hash = self.hasher.hash_one(filter.as_str());
        self.by_filter.remove(hash, |&id| id == route);
        if filter.has_wildcard() {
            let (labels, is_tail) = split_tail(filter.as_str());
            let node = self.wild.find_path(labels).expect("a wildcard route hangs in the tree");
            *end_mut(self.wild.value_mut(node), is_tail) = NONE;
            self.wild_count -= 1;
            self.wild.prune(node, |ends| ends.here == NONE && ends.tail == NONE);
        }
    }

    fn add_group(&mut self, shared: &SharedFilter) -> GroupId {
        let route = self.route_or_insert(&shared.filter);
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let filter = self.routes[route].filter.clone();
        let shared = Arc::new(SharedFilter { group: Arc::clone(&shared.group), filter });
        let place = self.routes[route].takers.groups().len();
        let group =
            Group { shared: Arc::clone(&shared), serial, place, is_kept: false, members: Members::default() };
        let id = GroupId { slot: self.groups.insert(group) as u32, serial };
        self.routes[route].takers.others_mut().groups.push(id);
        self.by_share.insert(SharedFilter::clone(&shared), id);
        id
    }

    fn remove_group(&mut self, shared: &SharedFilter, id: GroupId) {
        let place = self.groups.remove(id.slot as usize).place;
        self.by_share.remove(shared);
        let route = self.find(shared.filter.as_str()).expect("a group has a route");
        let groups = &mut self.routes[route].takers.others_mut().groups;
        groups.swap_remove(place);
        if let Some(moved) = groups.get(place) {
            self.groups[moved.slot as usize].place = place;
        }
        self.shrink(route);
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

fn end_mut(ends: &mut Ends, is_tail: bool) -> &mut RouteId {
    if is_tail { &mut ends.tail } else { &mut ends.here }
}
