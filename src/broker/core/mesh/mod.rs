//! This shard among the others of its node: interest goes out, matching messages come in.
//!
//! Every shard knows which others want which filters ([`Routes`](super::routes::Routes) marks them), and sends each message
//! once to each of those; who gets it there is their business. A client id, a retained topic and a shared group have one
//! home each, by the hash of the client id, the topic, the group's filter. What one shard says to another lies in a [`Bag`]
//! until [`Core::exchange`], once a tick.
//!
//! Answers wait for others: each kind of word that is answered for is counted in a [`Lane`], and the other confirms how far
//! it is. SUBACK waits until all others hold the interest, PUBACK and PUBREC until they have the message (and their store
//! has it, where it must). A QoS 2 message of a stored session is *tied*: what the shards store of it goes to disk together
//! ([`Batch`](crate::store::Batch)). Lanes wait for lanes in one direction only (published → assigned, joined → held), so never in a
//! circle. Shards of one node live and die together: there is no incarnation and no catching up.
//!
//! What holds: a shard that cannot get rid of its words reads no more from clients, but goes on to take those of others.

mod bag;
mod groups;
mod mail;
mod office;
mod shows;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

pub use self::bag::Bag;
use self::bag::{Confirm, Item, Rare};
pub(super) use self::bag::{TRIES_MAX, Try};
pub use self::office::{Desk, Exchanged, Office};
pub(super) use self::shows::{Shows, Wanted};
use super::answers::Unsafe;
use super::delivery::Outgoing;
use super::row::Row;
use super::subscribe::Subscribed;
use super::{Core, Fault};
use crate::mqtt::{Filter, QoS, Version};
use crate::store::{Handed, PARTITIONS, Partition, Token};

/// A shard's number on its node.
pub type ShardNumber = u8;
/// A set of shards.
pub type ShardMask = u64;
/// How many shards a node may have.
pub const SHARDS_MAX: usize = 64;

/// How much may wait to be left for one other shard before clients are no longer read.
const OUT_BYTES_MAX: usize = 1 << 20;

/// The shards in a mask, in order.
pub fn shards_in(mask: ShardMask) -> impl Iterator<Item = ShardNumber> {
    std::iter::successors(Some(mask), |&left| Some(left & left.wrapping_sub(1)))
        .take_while(|&left| left != 0)
        .map(|left| left.trailing_zeros() as ShardNumber)
}

/// Which shard this is, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    own: ShardNumber,
    count: ShardNumber,
}

impl Place {
    /// The only shard.
    pub const ALONE: Place = Place { own: 0, count: 1 };

    /// One of several.
    ///
    /// # Panics
    /// If `own` is not below `count`, or `count` is above [`SHARDS_MAX`].
    pub fn new(own: usize, count: usize) -> Place {
        assert!(own < count && count <= SHARDS_MAX, "shard {own} of {count}");
        Place { own: own as ShardNumber, count: count as ShardNumber }
    }

    /// Its number.
    pub fn number(self) -> ShardNumber {
        self.own
    }

    /// How many there are.
    pub fn count(self) -> usize {
        usize::from(self.count)
    }

    /// The shard where a partition is at home.
    pub fn home(self, partition: Partition) -> ShardNumber {
        (usize::from(partition.number()) * self.count() / PARTITIONS) as ShardNumber
    }

    /// The shard where a client id, a retained topic or a shared filter is at home.
    pub fn home_of(self, text: &str) -> ShardNumber {
        if self.count == 1 { 0 } else { self.home(Partition::of(text)) }
    }
}

/// Kinds of words that are answered for, each numbered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Messages of QoS 1 and 2.
    Published,
    /// Such messages for a member of a shared group.
    Assigned,
    /// Interest that came or went.
    Held,
    /// Sessions that joined a shared group.
    Joined,
    /// Messages that were assigned and came back. Nobody waits for these: see [`Mesh::moved`].
    Returned,
}

/// How many lanes there are.
pub(super) const LANES: usize = 5;

/// What others must have confirmed.
pub(super) type Need = SmallVec<[(ShardNumber, Lane, u64); 2]>;

/// Something that is done once others have confirmed and the store has what it must.
struct Pending<T> {
    token: Token,
    need: Need,
    what: T,
}

/// Another shard, as this one sees it.
#[derive(Clone, Debug, Default)]
struct Sibling {
    /// How many words were said to it, by lane.
    sent: Confirm,
    /// How many of these it has confirmed.
    confirmed: Confirm,
    /// How many came from it.
    received: Confirm,
    /// How many of these are done …
    done: Confirm,
    /// … and how many it knows to be.
    told: Confirm,
}

/// The others.
pub(super) struct Mesh {
    place: Place,
    out: Vec<Bag>,
    siblings: Vec<Sibling>,
    is_congested: bool,
    /// What the message at hand waits for.
    need: Need,
    /// What others store of the message at hand goes to disk together with what this shard does.
    is_tied: bool,
    /// Tied messages that the open batch gave and took.
    gave: Vec<Handed>,
    took: Vec<Handed>,
    /// Messages of others that are not done, by lane.
    relayed: VecDeque<Pending<(ShardNumber, u64)>>,
    assigned: VecDeque<Pending<(ShardNumber, u64)>>,
    joined: VecDeque<Pending<(ShardNumber, u64)>>,
    /// Assigned messages that came back, and what has to be waited for in their place.
    moved: BTreeMap<(ShardNumber, u64), Pending<()>>,
    subscribed: VecDeque<Pending<Subscribed>>,
    /// Messages of clients here that the store failed with, until it has them.
    held: VecDeque<Pending<Unsafe>>,
    pub(super) shows: Shows,
    /// What others said and was not done yet, the items of each bag backwards.
    unread: VecDeque<(ShardNumber, Bag)>,
    /// Bags that are to go back.
    emptied: Vec<Bag>,
}

impl Mesh {
    pub(super) fn new(place: Place) -> Mesh {
        let others = if place.count == 1 { 0 } else { place.count() };
        Mesh {
            place,
            out: (0..others).map(|_| Bag::default()).collect(),
            siblings: vec![Sibling::default(); others],
            is_congested: false,
            need: Need::new(),
            is_tied: false,
            gave: Vec::new(),
            took: Vec::new(),
            relayed: VecDeque::new(),
            assigned: VecDeque::new(),
            joined: VecDeque::new(),
            moved: BTreeMap::new(),
            subscribed: VecDeque::new(),
            held: VecDeque::new(),
            shows: Shows::default(),
            unread: VecDeque::new(),
            emptied: Vec::new(),
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.siblings.is_empty()
    }

    /// The numbers of the others.
    fn others(&self) -> impl Iterator<Item = ShardNumber> + use<> {
        let Place { own, count } = self.place;
        (0..count).filter(move |&shard| shard != own)
    }

    /// True if no more may be read from clients until the others took what waits for them.
    #[inline]
    pub(super) fn is_congested(&self) -> bool {
        self.is_congested
    }

    /// The other shard where this is at home, if it is not here.
    pub(super) fn elsewhere(&self, text: &str) -> Option<ShardNumber> {
        let home = self.place.home_of(text);
        (home != self.place.own).then_some(home)
    }

    /// What the message at hand waits for.
    pub(super) fn take_need(&mut self) -> Need {
        std::mem::take(&mut self.need)
    }

    /// True if others have confirmed all that is needed.
    pub(super) fn is_met(&self, need: &Need) -> bool {
        need.iter().all(|&(shard, lane, number)| {
            let is_moving = || self.moved.range((shard, 0)..=(shard, number)).next().is_some();
            self.is_confirmed(shard, lane, number) && (lane != Lane::Assigned || !is_moving())
        })
    }

    fn is_confirmed(&self, shard: ShardNumber, lane: Lane, number: u64) -> bool {
        self.siblings[usize::from(shard)].confirmed[lane as usize] >= number
    }

    /// Sends a message to other shards; `keeper` is to retain it.
    #[inline]
    pub(super) fn publish(&mut self, to: ShardMask, keeper: Option<ShardNumber>, outgoing: &Outgoing) {
        let all = to | keeper.map_or(0, |keeper| 1 << keeper);
        for shard in shards_in(all) {
            self.out[usize::from(shard)].publish(outgoing, self.is_tied, keeper == Some(shard));
            self.sent(shard, Lane::Published, outgoing.publish.qos, 1);
        }
    }

    /// Sends messages in a row, to a topic of so many bytes, to other shards.
    pub(super) fn publish_row(&mut self, to: ShardMask, version: Version, topic: usize, row: &Row) {
        for shard in shards_in(to) {
            self.out[usize::from(shard)].publish_row(version, topic, row);
            self.sent(shard, Lane::Published, row.qos, row.count);
        }
    }

    /// Counts messages that must be confirmed.
    #[inline]
    fn sent(&mut self, shard: ShardNumber, lane: Lane, qos: QoS, messages: usize) {
        self.is_congested |= self.is_behind(shard);
        if qos != QoS::AtMostOnce {
            let number = self.count(shard, lane, messages);
            self.need.push((shard, lane, number));
            if self.is_tied {
                self.gave.push(Handed { with: usize::from(shard), lane: lane as u8, number });
            }
        }
    }

    fn count(&mut self, shard: ShardNumber, lane: Lane, words: usize) -> u64 {
        let sent = &mut self.siblings[usize::from(shard)].sent[lane as usize];
        *sent += words as u64;
        *sent
    }

    fn say(&mut self, to: ShardNumber, rare: Rare) {
        self.out[usize::from(to)].say(rare);
        self.is_congested |= self.is_behind(to);
    }

    /// True if more waits to be left for another shard than should.
    pub(super) fn is_behind(&self, shard: ShardNumber) -> bool {
        self.out[usize::from(shard)].weight() > OUT_BYTES_MAX
    }

    /// Those of some shards that are behind.
    pub(super) fn behind(&self, shards: ShardMask) -> ShardMask {
        if !self.is_congested {
            return 0;
        }
        shards_in(shards).filter(|&shard| self.is_behind(shard)).fold(0, |mask, shard| mask | 1 << shard)
    }

    /// Tells all others that interest began or ended here.
    pub(super) fn announce(&mut self, filter: &Filter, group: Option<&Arc<str>>, wanted: bool) {
        for shard in self.others() {
            self.say(shard, Rare::Interest { filter: filter.clone(), group: group.cloned(), wanted });
            self.count(shard, Lane::Held, 1);
        }
    }

    /// Tells all others that what is wanted of a filter here may have to be stored: while the store is down they refuse it.
    /// Nobody waits for that: what comes meanwhile is not acknowledged before it is safe.
    pub(super) fn announce_kept(&mut self, filter: &Filter) {
        self.others().for_each(|shard| self.say(shard, Rare::Kept { filter: filter.clone() }));
    }

    /// All interest and all memberships that others have not confirmed.
    fn unconfirmed(&self) -> Need {
        let open = |(shard, lane): (usize, Lane)| {
            let sibling = &self.siblings[shard];
            let number = sibling.sent[lane as usize];
            (sibling.confirmed[lane as usize] < number).then_some((shard as ShardNumber, lane, number))
        };
        let all = (0..self.siblings.len()).flat_map(|shard| [(shard, Lane::Held), (shard, Lane::Joined)]);
        all.filter_map(open).collect()
    }

    fn received(&mut self, from: ShardNumber, lane: Lane, words: usize) -> u64 {
        let received = &mut self.siblings[usize::from(from)].received[lane as usize];
        *received += words as u64;
        *received
    }

    /// Notes that the open batch has what is to be stored of a tied message.
    fn took(&mut self, from: ShardNumber, lane: Lane, number: u64) {
        self.took.push(Handed { with: usize::from(from), lane: lane as u8, number });
    }

    /// Ties the message at hand, or what comes after it no more.
    pub(super) fn tie(&mut self, is_tied: bool) {
        self.is_tied = is_tied && !self.is_alone();
    }

    /// What the open batch gave and took.
    pub(super) fn take_handed(&mut self) -> (Vec<Handed>, Vec<Handed>) {
        (std::mem::take(&mut self.gave), std::mem::take(&mut self.took))
    }

    fn done(&mut self, from: ShardNumber, lane: Lane, number: u64) {
        self.siblings[usize::from(from)].done[lane as usize] = number;
    }

    /// Says how far this shard is, where that has changed.
    fn confirm(&mut self) {
        for (sibling, bag) in self.siblings.iter_mut().zip(&mut self.out) {
            if sibling.done != sibling.told {
                sibling.told = sibling.done;
                bag.items.push(Item::Confirm(sibling.done));
            }
        }
    }

    /// The store failed, or is back: what was not safe has another token to wait for. A subscription holds without.
    pub(super) fn wait_again(&mut self, safe: Token, token: Token) {
        let queues = [&mut self.relayed, &mut self.assigned];
        let tokens = queues.into_iter().flatten().map(|pending| &mut pending.token);
        let tokens = tokens.chain(self.moved.values_mut().map(|pending| &mut pending.token));
        let tokens = tokens.chain(self.held.iter_mut().map(|pending| &mut pending.token));
        tokens.filter(|waits| **waits > safe).for_each(|waits| *waits = token);
        self.subscribed.iter_mut().for_each(|pending| pending.token = pending.token.min(safe));
    }

    /// Keeps a message that the store failed with.
    pub(super) fn hold(&mut self, token: Token, need: Need, what: Unsafe) {
        self.held.push_back(Pending { token, need, what });
    }

    fn is_settled(&self) -> bool {
        self.siblings.iter().all(|sibling| sibling.done == sibling.told)
    }

    /// Takes the first of a queue if it is done.
    fn pop<T>(
        &mut self,
        queue: impl Fn(&mut Mesh) -> &mut VecDeque<Pending<T>>,
        safe: Token,
    ) -> Option<Pending<T>> {
        let first = queue(self).pop_front()?;
        if first.token <= safe && self.is_met(&first.need) {
            return Some(first);
        }
        queue(self).push_front(first);
        None
    }
}

impl Core {
    /// Which shard this is.
    pub fn place(&self) -> Place {
        self.mesh.place
    }

    /// True if [`Core::exchange`] has something to leave.
    #[inline]
    pub fn has_mail(&self) -> bool {
        !self.mesh.is_alone() && (self.mesh.out.iter().any(|bag| !bag.is_empty()) || !self.mesh.is_settled())
    }

    /// True if no client is read because other shards are behind.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.mesh.is_congested
    }

    /// Tells links and other shards that interest began or ended here.
    pub(super) fn interest_changed(&mut self, filter: &Filter, group: Option<&Arc<str>>, wanted: bool) {
        if !self.routes.is_marked(filter, group) {
            self.peers.interest(filter, group, wanted);
        }
        // What links want of this filter was announced for their sake, and stays so.
        let is_for_links = group.is_none() && self.routes.has_peers(filter);
        if !is_for_links {
            self.mesh.announce(filter, group, wanted);
        }
    }

    /// Counts messages of another shard, after what they brought.
    fn received(&mut self, from: ShardNumber, lane: Lane, messages: usize) -> u64 {
        let number = self.mesh.received(from, lane, messages);
        if self.mesh.is_tied {
            self.mesh.took(from, lane, number);
            self.ledger.ask_anyway();
        }
        number
    }

    /// What a message of another shard waits for here. A store that is down is waited for, too: nothing was refused yet.
    pub(super) fn token_of_others(&self, before: u64) -> Token {
        let has_changed = self.ledger.is_on() && self.ledger.changes() != before;
        if has_changed { self.ledger.token() } else { Token(0) }
    }

    /// True if all other shards hold all interest of this one.
    pub fn is_held(&self) -> bool {
        self.mesh.unconfirmed().is_empty()
    }

    /// Does what waited for others or for the store. In this order: what is done first may be what the next waits for.
    pub(super) fn settle_mesh(&mut self, now: Instant) {
        let safe = self.safe;
        self.mesh.settle_moved(safe);
        self.settle_peers();
        while let Some(Pending { what, .. }) = self.mesh.pop(|mesh| &mut mesh.held, safe) {
            self.acknowledge_at_last(&what);
        }
        if self.mesh.is_alone() {
            return;
        }
        while let Some(Pending { what: (from, number), .. }) = self.mesh.pop(|mesh| &mut mesh.assigned, safe)
        {
            self.mesh.done(from, Lane::Assigned, number);
        }
        while let Some(Pending { what: (from, number), .. }) = self.mesh.pop(|mesh| &mut mesh.relayed, safe) {
            self.mesh.done(from, Lane::Published, number);
        }
        while let Some(Pending { what: (from, number), .. }) = self.mesh.pop(|mesh| &mut mesh.joined, safe) {
            self.mesh.done(from, Lane::Joined, number);
        }
        while let Some(Pending { mut what, .. }) = self.mesh.pop(|mesh| &mut mesh.subscribed, safe) {
            if let Some(connection) = self.wires.get_mut(what.connection) {
                connection.unanswered -= 1;
                connection.subscribing -= 1;
                connection.is_held_back &= connection.subscribing > 0;
            }
            let id = what.connection;
            what.before = self.ledger.changes(); // what it changed is safe
            if let Err(fault) = self.finish_subscribe(what, now) {
                self.close(id, fault, now);
            }
        }
        self.settle_answers(now);
    }

    /// Finishes a SUBSCRIBE once every shard holds its interest.
    pub(super) fn subscribed(&mut self, subscribed: Subscribed, now: Instant) -> Result<(), Fault> {
        let need = self.mesh.unconfirmed();
        if need.is_empty() && self.mesh.subscribed.is_empty() {
            return self.finish_subscribe(subscribed, now);
        }
        if let Some(connection) = self.wires.get_mut(subscribed.connection) {
            connection.unanswered += 1;
            connection.subscribing += 1;
        }
        let token = self.token_if(self.ledger.changes() != subscribed.before);
        self.mesh.subscribed.push_back(Pending { token, need, what: subscribed });
        Ok(())
    }
}
