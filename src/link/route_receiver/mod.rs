//! The route receiver: what a peer cluster's nodes want of this one.
//!
//! Routes are held per actor and incarnation; a filter is served while any actor wants it. A newer incarnation
//! replaces the older one's routes, but only once its bootstrap is complete, so nothing wanted is missed; an older
//! one is refused. An actor silent beyond its time to live is collected with its own routes and nobody else's.
//! What the link's ACL or a disabled half narrows is the *use* of a route, not what is stored: digests always
//! cover what was received.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use crate::mqtt::Filter;

use super::digest::Digest;
use super::route_sender::RouteAnswer;
use super::violation::Violation;

/// Actors of one peer cluster; an authenticated peer cannot invent node names without end.
const ACTORS_MAX: usize = 64;
/// Routes of all actors of one peer cluster.
const ROUTES_MAX: usize = 4_000_000;
/// Bytes of these routes: their filters, and what the levels of those with wildcards cost.
const ROUTE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// What a route takes besides, in the tables here and in the core, about.
const ROUTE_BYTES: usize = 128;
/// What a level of a filter with wildcards costs at most: a node of its own in the tree by which the core routes.
const LEVEL_BYTES: usize = 96;

/// A filter that this cluster has to serve from now on, or not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// Which filter.
    pub filter: Filter,
    /// Whether it is to be served.
    pub served: bool,
}

/// Why an actor is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// A newer incarnation of it is held: this one.
    Outdated(u64),
    /// The peer has too many actors already.
    TooManyActors,
}

/// A batch of one actor, its filters valid and in ascending order.
#[derive(Debug, Default)]
pub struct ReceivedBatch {
    /// Its number.
    pub number: u64,
    /// The first of a bootstrap.
    pub begin: bool,
    /// The last of a bootstrap.
    pub end: bool,
    /// What to add.
    pub add: Vec<Filter>,
    /// What to delete.
    pub delete: Vec<Filter>,
}

/// How many routes, and how many bytes they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Amount {
    routes: usize,
    bytes: usize,
}

impl Amount {
    fn of<'f>(filters: impl IntoIterator<Item = &'f Filter>) -> Amount {
        let mut amount = Amount::default();
        for filter in filters {
            amount.routes += 1;
            amount.bytes += cost(filter);
        }
        amount
    }

    fn plus(self, other: Amount) -> Amount {
        Amount { routes: self.routes + other.routes, bytes: self.bytes + other.bytes }
    }

    fn minus(self, other: Amount) -> Amount {
        Amount { routes: self.routes - other.routes, bytes: self.bytes - other.bytes }
    }

    /// How much memory they take.
    fn memory(self) -> usize {
        self.routes * ROUTE_BYTES + self.bytes
    }

    fn exceeds(self, bound: Amount) -> bool {
        self.routes > bound.routes || self.bytes > bound.bytes
    }
}

fn cost(filter: &Filter) -> usize {
    let levels = if filter.has_wildcard() { filter.as_str().split('/').count() } else { 0 };
    filter.as_str().len() + levels * LEVEL_BYTES
}

/// The routes of one peer cluster.
#[derive(Debug)]
pub struct RouteReceiver {
    actors: BTreeMap<String, Actor>,
    /// What all actors have in force, and what they may have.
    held: Amount,
    bound: Amount,
    /// The memory that they may take.
    room: usize,
    /// How many routes in force are used only in part or not at all.
    narrowed: usize,
    /// How many actors' routes lead to each served filter.
    served: HashMap<Filter, u32>,
    /// Which part of each route is used; None while the half is disabled.
    allowed: Option<Vec<Filter>>,
}

impl Default for RouteReceiver {
    fn default() -> Self {
        RouteReceiver {
            actors: BTreeMap::new(),
            held: Amount::default(),
            bound: Amount { routes: ROUTES_MAX, bytes: ROUTE_BYTES_MAX },
            room: usize::MAX,
            narrowed: 0,
            served: HashMap::new(),
            allowed: None,
        }
    }
}

#[derive(Debug)]
struct Actor {
    incarnation: u64,
    ttl: Duration,
    /// None while a connection of the actor is open.
    silent_since: Option<Instant>,
    number: u64,
    /// In force. Inside a bootstrap: the old set and what was added so far.
    filters: HashSet<Filter>,
    /// Inside a bootstrap: what was added so far.
    fresh: Option<HashSet<Filter>>,
    /// Whether a bootstrap of this incarnation ended.
    complete: bool,
    /// Whether one that begins from now on is asked for: what came so far stands, and goes on, until it does.
    asked: bool,
    /// Of what the actor told since its last `begin`.
    told: Digest,
}

impl RouteReceiver {
    /// An actor says Hello; tells it what is held of it.
    ///
    /// # Errors
    /// [`Rejected`]; nothing changed then.
    pub fn handle_hello(
        &mut self,
        node: &str,
        incarnation: u64,
        ttl: Duration,
    ) -> Result<RouteAnswer, Rejected> {
        if !self.actors.contains_key(node) && self.actors.len() >= ACTORS_MAX {
            return Err(Rejected::TooManyActors);
        }
        let actor = self.actors.entry(node.to_owned()).or_insert_with(|| Actor::new(incarnation));
        if incarnation < actor.incarnation {
            return Err(Rejected::Outdated(actor.incarnation));
        }
        if incarnation > actor.incarnation {
            let filters = std::mem::take(&mut actor.filters);
            *actor = Actor { filters, ..Actor::new(incarnation) };
        }
        actor.ttl = ttl;
        Ok(actor.answer())
    }

    /// The connection of an actor that said Hello is the one that stays: while it is open the actor is not silent.
    pub fn handle_connected(&mut self, node: &str) {
        if let Some(actor) = self.actors.get_mut(node) {
            actor.silent_since = None;
        }
    }

    /// The actor's connection is gone; its time to live runs from `last_sign`.
    pub fn handle_disconnected(&mut self, node: &str, last_sign: Instant) {
        if let Some(actor) = self.actors.get_mut(node) {
            actor.silent_since = Some(last_sign);
        }
    }

    /// Applies a batch of an actor that said Hello; what comes is told before what goes.
    ///
    /// # Errors
    /// [`Violation`] when the batch is out of order or too much; nothing changed then, and the connection cannot
    /// go on.
    pub fn handle_batch(
        &mut self,
        node: &str,
        batch: ReceivedBatch,
        changes: &mut Vec<RouteChange>,
    ) -> Result<(), Violation> {
        let actor = self.actors.get_mut(node).expect("an actor says Hello before it sends routes");
        actor.check(&batch)?;
        let takes_too_much = |amount: Amount| amount.exceeds(self.bound) || amount.memory() > self.room;
        if takes_too_much(self.held.plus(Amount::of(&batch.add))) {
            let new = Amount::of(batch.add.iter().filter(|filter| !actor.filters.contains(*filter)));
            // What is there stays, also where there is less room than there was.
            if new.routes > 0 && takes_too_much(self.held.plus(new)) {
                return Err(Violation::RoutesFull);
            }
        }
        if batch.begin {
            actor.begin();
        }
        actor.number = batch.number;
        let mut come = Vec::new();
        for filter in batch.add {
            actor.add(filter, &mut come);
        }
        let gone = match batch.end {
            true => actor.end(),
            false => batch.delete.iter().filter_map(|filter| actor.delete(filter)).collect(),
        };
        self.held = self.held.plus(Amount::of(&come)).minus(Amount::of(&gone));
        come.into_iter().for_each(|filter| self.serve(&filter, changes));
        gone.iter().for_each(|filter| self.unserve(filter, changes));
        Ok(())
    }

    /// How much memory the routes take.
    pub fn memory(&self) -> usize {
        self.held.memory()
    }

    /// How much they may take from now on.
    pub fn handle_room(&mut self, bytes: usize) {
        self.room = bytes;
    }

    /// What is held of an actor, as its last batch left it.
    pub fn answer(&self, node: &str) -> Option<RouteAnswer> {
        self.actors.get(node).map(Actor::answer)
    }

    /// Whether an actor's bootstrap has ended, and no other is asked for.
    pub fn is_complete(&self, node: &str) -> bool {
        self.actors.get(node).is_some_and(|actor| actor.complete && !actor.asked)
    }

    /// Somebody wants everything told again: the next answer to each actor asks for it.
    pub fn handle_resync(&mut self) {
        self.actors.values_mut().for_each(|actor| actor.asked = true);
    }

    /// What may be used changed; None: nothing at all.
    pub fn handle_allowed(&mut self, allowed: Option<Vec<Filter>>, changes: &mut Vec<RouteChange>) {
        if self.allowed == allowed {
            return;
        }
        let before = std::mem::take(&mut self.served);
        self.allowed = allowed;
        self.narrowed = 0;
        let filters: Vec<Filter> = self.actors.values().flat_map(|a| a.filters.iter().cloned()).collect();
        let mut silent = Vec::new();
        for filter in &filters {
            self.serve(filter, &mut silent);
            silent.clear();
        }
        let change = |filter: &Filter, served| RouteChange { filter: filter.clone(), served };
        changes.extend(self.served.keys().filter(|f| !before.contains_key(*f)).map(|f| change(f, true)));
        changes.extend(before.keys().filter(|f| !self.served.contains_key(*f)).map(|f| change(f, false)));
    }

    /// How many stored routes are used only in part or not at all.
    pub fn narrowed(&self) -> usize {
        self.narrowed
    }

    /// Collects the actors whose time to live has run out.
    pub fn handle_timeout(&mut self, now: Instant, changes: &mut Vec<RouteChange>) {
        let over = |actor: &Actor| actor.collect_at().is_some_and(|at| at <= now);
        let gone: Vec<String> =
            self.actors.iter().filter(|(_, actor)| over(actor)).map(|(node, _)| node.clone()).collect();
        for node in gone {
            let actor = self.actors.remove(&node).expect("it was just found");
            self.held = self.held.minus(Amount::of(&actor.filters));
            actor.filters.iter().for_each(|filter| self.unserve(filter, changes));
        }
    }

    /// When the next actor is to be collected.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.actors.values().filter_map(Actor::collect_at).min()
    }

    /// The filters that are served.
    #[cfg(test)]
    pub(crate) fn served(&self) -> impl Iterator<Item = &Filter> {
        self.served.keys()
    }

    fn is_narrowed(&self, route: &Filter) -> bool {
        self.allowed.as_ref().is_some_and(|allowed| !allowed.iter().any(|a| a.covers(route)))
    }

    fn serve(&mut self, route: &Filter, changes: &mut Vec<RouteChange>) {
        self.narrowed += usize::from(self.is_narrowed(route));
        for filter in used(self.allowed.as_deref(), route) {
            let count = self.served.entry(filter.clone()).or_insert(0);
            *count += 1;
            if *count == 1 {
                changes.push(RouteChange { filter, served: true });
            }
        }
    }

    fn unserve(&mut self, route: &Filter, changes: &mut Vec<RouteChange>) {
        self.narrowed -= usize::from(self.is_narrowed(route));
        for filter in used(self.allowed.as_deref(), route) {
            let count = self.served.get_mut(&filter).expect("a route in force was served");
            *count -= 1;
            if *count == 0 {
                self.served.remove(&filter);
                changes.push(RouteChange { filter, served: false });
            }
        }
    }
}

impl Actor {
    fn new(incarnation: u64) -> Actor {
        Actor {
            incarnation,
            ttl: Duration::ZERO,
            silent_since: None,
            number: 0,
            filters: HashSet::new(),
            fresh: None,
            complete: false,
            asked: false,
            told: Digest::default(),
        }
    }

    fn answer(&self) -> RouteAnswer {
        let need_bootstrap = self.asked || !self.complete && self.fresh.is_none();
        RouteAnswer { number: self.number, digest: self.told, need_bootstrap }
    }

    fn collect_at(&self) -> Option<Instant> {
        self.silent_since.map(|since| since + self.ttl)
    }

    fn check(&self, batch: &ReceivedBatch) -> Result<(), Violation> {
        if batch.begin {
            return if batch.number == 0 { Err(Violation::RoutesOutOfOrder) } else { Ok(()) };
        }
        if self.number.checked_add(1) != Some(batch.number) {
            return Err(Violation::RoutesOutOfOrder);
        }
        let in_place = match self.fresh {
            Some(_) => batch.delete.is_empty(),
            None => self.complete && !batch.end,
        };
        if in_place { Ok(()) } else { Err(Violation::RoutesOutOfPlace) }
    }

    fn begin(&mut self) {
        self.fresh = Some(HashSet::new());
        self.complete = false;
        self.asked = false;
        self.told = Digest::default();
    }

    /// Adds to `come` what was not in force.
    fn add(&mut self, filter: Filter, come: &mut Vec<Filter>) {
        let held = self.filters.get(&filter).cloned();
        // One that is in force already lends its text, so a bootstrap that repeats it takes no second copy.
        let told_before = match &mut self.fresh {
            Some(fresh) => !fresh.insert(held.as_ref().unwrap_or(&filter).clone()),
            None => held.is_some(),
        };
        if !told_before {
            self.told.add(filter.as_str());
        }
        if held.is_none() {
            self.filters.insert(filter.clone());
            come.push(filter);
        }
    }

    /// The filter, when it was in force.
    fn delete(&mut self, filter: &Filter) -> Option<Filter> {
        let filter = self.filters.take(filter)?;
        self.told.remove(filter.as_str());
        Some(filter)
    }

    /// Ends the bootstrap: what it did not bring is not in force any more.
    fn end(&mut self) -> Vec<Filter> {
        self.complete = true;
        let Some(fresh) = self.fresh.take() else { return Vec::new() };
        let before = std::mem::replace(&mut self.filters, fresh);
        before.into_iter().filter(|filter| !self.filters.contains(filter)).collect()
    }
}

fn allows_all(allowed: &[Filter]) -> bool {
    allowed.iter().any(|filter| filter.as_str() == "#")
}

/// The parts of a route that may be used, none of them twice.
fn used(allowed: Option<&[Filter]>, route: &Filter) -> Vec<Filter> {
    let allowed = allowed.unwrap_or_default();
    if allows_all(allowed) {
        return vec![route.clone()];
    }
    let mut parts: Vec<Filter> = allowed.iter().filter_map(|a| a.intersect(route)).collect();
    parts.sort();
    parts.dedup();
    parts
}

#[cfg(test)]
mod tests;
