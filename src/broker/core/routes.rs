//! Who wants which topics: sessions, shared groups and peers by filter.
//!
//! All filters lie in one hash table by their text, so a topic finds an equal filter with one look-up; filters with
//! wildcards hang in a tree besides. Each change of who wants what raises [`Routes::generation`], by which caches of
//! matches know that they are old.
//!
//! Invariants: a route has at least one subscriber, group or peer; a group has at least one member; a session is at
//! most once among a route's subscribers and at most once in a group.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

use super::recipients::{Recipients, Subscriber};
use super::tree::{NodeId, ROOT, Tree};
use super::{PeerId, SessionId};
use crate::mqtt::{Filter, SharedFilter};

/// The route of one filter.
struct Route {
    filter: Filter,
    subscribers: Vec<Subscriber>,
    groups: SmallVec<[GroupId; 1]>,
    peers: SmallVec<[PeerId; 1]>,
}

/// Names a shared group. The serial tells it from a later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupId {
    slot: u32,
    serial: u32,
}

/// A shared group: of its members one gets each message.
pub(super) struct Group {
    name: Arc<str>,
    filter: Filter,
    serial: u32,
    pub(super) members: Vec<Subscriber>,
    /// Where the choice begins next: round robin.
    pub(super) cursor: usize,
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
            hasher: RandomState::default(),
            generation: 0,
            serial: 0,
        }
    }

    /// Changes whenever a match might give another result.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds or replaces a subscription. True if it is the first of its filter and group.
    pub(super) fn subscribe(&mut self, filter: &Filter, group: Option<&Arc<str>>, who: Subscriber) -> bool {
        self.generation += 1;
        let route = self.route_or_insert(filter);
        let Some(name) = group else {
            return put(&mut self.routes[route as usize].subscribers, who);
        };
        let known = self.group_of(route, name);
        let group = known.unwrap_or_else(|| self.add_group(route, name));
        put(&mut self.groups[group.slot as usize].members, who);
        known.is_none()
    }

    /// Takes a subscription away. True if it was the last of its filter and group.
    pub(super) fn unsubscribe(&mut self, filter: &str, group: Option<&str>, session: SessionId) -> bool {
        self.generation += 1;
        let Some(route) = self.find(filter) else { return false };
        let was_last = match group {
            None => {
                let subscribers = &mut self.routes[route as usize].subscribers;
                take(subscribers, session) && subscribers.is_empty()
            }
            Some(name) => self.leave_group(route, name, session),
        };
        self.drop_if_unused(route);
        was_last
    }

    /// Adds a peer's route.
    pub(super) fn add_peer(&mut self, filter: &Filter, peer: PeerId) {
        self.generation += 1;
        let route = self.route_or_insert(filter);
        let peers = &mut self.routes[route as usize].peers;
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }

    /// Takes a peer's route away.
    pub(super) fn remove_peer(&mut self, filter: &str, peer: PeerId) {
        self.generation += 1;
        let Some(route) = self.find(filter) else { return };
        self.routes[route as usize].peers.retain(|&mut other| other != peer);
        self.drop_if_unused(route);
    }

    /// Takes all of a peer's routes away.
    pub(super) fn remove_peer_everywhere(&mut self, peer: PeerId) {
        let of_peer = |(_, route): &(usize, &Route)| route.peers.contains(&peer);
        let filters: Vec<Filter> =
            self.routes.iter().filter(of_peer).map(|(_, r)| r.filter.clone()).collect();
        for filter in filters {
            self.remove_peer(filter.as_str(), peer);
        }
    }

    /// A group, if it still stands.
    pub(super) fn group_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(id.slot as usize).filter(|group| group.serial == id.serial)
    }

    /// The members of a group; nobody if it is gone.
    pub(super) fn members(&self, id: GroupId) -> &[Subscriber] {
        let group = self.groups.get(id.slot as usize).filter(|group| group.serial == id.serial);
        group.map_or(&[], |group| &group.members)
    }

    /// The group of a filter by its name, if it has members.
    pub(super) fn find_group(&self, shared: &SharedFilter) -> Option<GroupId> {
        self.group_of(self.find(shared.filter.as_str())?, &shared.group)
    }

    /// What a group shares, if it still stands.
    pub(super) fn shared_filter(&self, id: GroupId) -> Option<SharedFilter> {
        let group = self.groups.get(id.slot as usize).filter(|group| group.serial == id.serial)?;
        Some(SharedFilter { group: Arc::clone(&group.name), filter: group.filter.clone() })
    }

    /// Every filter and group that local subscribers want.
    pub(super) fn interests(&self) -> impl Iterator<Item = (&Filter, Option<&Arc<str>>)> {
        self.routes.iter().flat_map(|(_, route)| {
            let own = (!route.subscribers.is_empty()).then_some((&route.filter, None));
            let named = |id: &GroupId| (&route.filter, Some(&self.groups[id.slot as usize].name));
            own.into_iter().chain(route.groups.iter().map(named))
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
            recipients.add(&route.subscribers, &route.groups, &route.peers);
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
            subscribers: Vec::new(),
            groups: SmallVec::new(),
            peers: SmallVec::new(),
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
        let here = &self.routes[route as usize];
        if !(here.subscribers.is_empty() && here.groups.is_empty() && here.peers.is_empty()) {
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

    fn group_of(&self, route: u32, name: &str) -> Option<GroupId> {
        let groups = &self.routes[route as usize].groups;
        groups.iter().copied().find(|id| &*self.groups[id.slot as usize].name == name)
    }

    fn add_group(&mut self, route: u32, name: &Arc<str>) -> GroupId {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let filter = self.routes[route as usize].filter.clone();
        let group = Group { name: Arc::clone(name), filter, serial, members: Vec::new(), cursor: 0 };
        let id = GroupId { slot: self.groups.insert(group) as u32, serial };
        self.routes[route as usize].groups.push(id);
        id
    }

    fn leave_group(&mut self, route: u32, name: &str, session: SessionId) -> bool {
        let Some(id) = self.group_of(route, name) else { return false };
        let members = &mut self.groups[id.slot as usize].members;
        if !take(members, session) || !members.is_empty() {
            return false;
        }
        self.groups.remove(id.slot as usize);
        self.routes[route as usize].groups.retain(|&mut other| other != id);
        true
    }
}

/// Adds or replaces. True if the list was empty.
fn put(list: &mut Vec<Subscriber>, who: Subscriber) -> bool {
    if let Some(other) = list.iter_mut().find(|other| other.session == who.session) {
        *other = who;
        return false;
    }
    list.push(who);
    list.len() == 1
}

/// Removes. True if it was there.
fn take(list: &mut Vec<Subscriber>, session: SessionId) -> bool {
    let at = list.iter().position(|other| other.session == session);
    at.map(|at| list.swap_remove(at)).is_some()
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
