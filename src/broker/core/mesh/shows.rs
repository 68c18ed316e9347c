//! Retained messages for new subscriptions: found here and on all other shards, a part at a time.
//!
//! A search looks at [`STEP_NODES`] topic levels and brings [`STEP_BYTES`] at once; what is left waits in a queue and goes on
//! when the shell calls [`Core::handle_work`], so that `#` over a million topics stalls nobody. What others ask for only
//! queues: who takes mail cannot refuse it, and an answer is larger than the question. Other shards are asked after SUBACK, when all of
//! them hold the interest: whatever is retained later reaches the subscriber as it is published.
//!
//! A client's own messages do not overtake what it asked for a moment before: what it publishes is not read until the searches
//! of its session that could begin have each made a step everywhere, or are over. Those that have not begun go first for that. What
//! larger ones bring later, and what others publish meanwhile, has no order.
//!
//! From SUBSCRIBE until its search is over, newer messages overtake it: topics of retained messages that pass by are noted,
//! and what a search brings for them is dropped. What is noted is bounded ([`Seen`]); a client whose search takes longer than that
//! lasts may see an old message late.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::bag::{Item, Rare, ShowId};
use super::{Core, Lane, Mesh, ShardMask, ShardNumber};
use crate::broker::core::delivery::{Outgoing, with_outgoing};
use crate::broker::core::recipients::Grant;
use crate::broker::core::retained::{Step, Walk};
use crate::broker::core::{Effect, SessionId};
use crate::mqtt::{Filter, QoS, SubscribeOptions};

/// How many topic levels searches look at in one step …
const STEP_NODES: usize = 1_000;
/// … and how many bytes they bring, about.
const STEP_BYTES: usize = 256 * 1024;
/// How often it is said that searches are cut short.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How many searches may wait for their next step; one more is not begun.
const WAITING_MAX: usize = 10_000;
/// How many searches one session may have under way: its further ones wait, not those of others.
const UNDER_WAY_MAX: usize = 4;
/// How many may wait for their turn, or as many as the session may have subscriptions; one more is not made.
const LATER_MAX: usize = 10_000;
/// And how many bytes their filters may have: as many as a session's subscriptions.
const LATER_BYTES_MAX: usize = 16 << 20;
/// How many of a session begin before others have their turn, …
const BEGIN_MAX: usize = 8;
/// … and what those may cost that begin in a turn, or for what a connection brings at once, as topic levels.
const BEGIN_NODES: usize = 4 * STEP_NODES;
/// What a search costs besides the levels that it looks at.
const SEARCH_NODES: usize = 8;
/// A client publishes on without them if more than so many wait.
const AWAITED_MAX: usize = 100;
/// How many bytes of topics are noted.
const SEEN_BYTES_MAX: usize = 4 << 20;
/// What a note costs besides its topic.
const NOTE_BYTES: usize = 64;

/// A session, and its serial number.
type Asker = (SessionId, u32);

/// A search to be made.
pub(in super::super) struct Wanted {
    pub(in super::super) filter: Filter,
    pub(in super::super) options: SubscribeOptions,
    pub(in super::super) identifier: Option<NonZeroU32>,
    /// Notes from here on are newer than what it brings.
    pub(in super::super) since: u64,
}

/// What a session has under way, and what waits for that.
#[derive(Default)]
struct Turn {
    under_way: usize,
    /// How many of these have not made their first step everywhere.
    unbegun: usize,
    later: VecDeque<Wanted>,
    /// What the filters of these take.
    later_bytes: usize,
    /// It stands in line to begin these.
    is_in_line: bool,
}

impl Turn {
    /// True if a search has not begun that could.
    fn is_beginning(&self) -> bool {
        self.unbegun > 0 || self.under_way < UNDER_WAY_MAX && !self.later.is_empty()
    }
}

/// A session's search.
struct Asked {
    asker: Asker,
    grant: Grant,
    since: u64,
    /// Who is not done, …
    awaited: ShardMask,
    /// … and who has not made the first step.
    unbegun: ShardMask,
    /// It is in its session's [`Turn`]; most are over before that.
    is_under_way: bool,
}

/// A search in what this shard retains, for itself or for another.
struct Running {
    asker: ShardNumber,
    show: ShowId,
    walk: Walk,
    /// What is left of its first step.
    first: Budget,
}

/// What searches may cost in one step.
#[derive(Clone, Copy)]
struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Budget {
    const STEP: Budget = Budget { nodes: STEP_NODES, bytes: STEP_BYTES };

    fn is_spent(&self) -> bool {
        self.nodes == 0 || self.bytes == 0
    }

    /// What was spent of a whole one, as topic levels.
    fn cost(&self) -> usize {
        STEP_NODES - self.nodes + (STEP_BYTES - self.bytes) / (STEP_BYTES / STEP_NODES)
    }

    /// Takes off what another was spent of.
    fn spend(&mut self, before: Budget, after: Budget) {
        self.nodes = self.nodes.saturating_sub(before.nodes - after.nodes);
        self.bytes = self.bytes.saturating_sub(before.bytes - after.bytes);
    }
}

/// All searches.
#[derive(Default)]
pub(in super::super) struct Shows {
    last: u64,
    /// The last whose session had no room.
    last_refused: Option<ShowId>,
    asked: HashMap<ShowId, Asked>,
    /// Those that have not made their first step …
    beginning: VecDeque<Running>,
    /// … and those that have.
    running: VecDeque<Running>,
    /// Whose turn it is: who only begins must not keep others from coming to an end.
    is_turn_of_running: bool,
    turns: HashMap<Asker, Turn, foldhash::fast::RandomState>,
    /// Sessions that have something to begin, each once.
    line: VecDeque<Asker>,
    /// What those cost that began in this turn, or for what a connection brought.
    spent: usize,
    /// When it was last said that a search is cut short.
    said_at: Option<Instant>,
    seen: Seen,
    moment: u64,
}

type Notes = HashMap<Box<str>, u64, foldhash::fast::RandomState>;

/// When messages of which topics passed by, in two halves: when the newer is full, the older is forgotten.
#[derive(Default)]
struct Seen {
    newer: Notes,
    /// What the newer half takes.
    bytes: usize,
    older: Notes,
}

impl Seen {
    fn note(&mut self, topic: &str, moment: u64) {
        if let Some(known) = self.newer.get_mut(topic) {
            *known = moment;
            return;
        }
        let bytes = topic.len() + NOTE_BYTES;
        if self.bytes + bytes > SEEN_BYTES_MAX / 2 {
            self.older = std::mem::take(&mut self.newer);
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.newer.insert(topic.into(), moment);
    }

    fn last(&self, topic: &str) -> Option<u64> {
        self.newer.get(topic).or_else(|| self.older.get(topic)).copied()
    }

    fn is_empty(&self) -> bool {
        self.newer.is_empty() // or the older would be
    }
}

impl Shows {
    fn note(&mut self, topic: &str) {
        self.moment += 1;
        self.seen.note(topic, self.moment);
    }

    /// Searches may begin again.
    pub(in super::super) fn renew(&mut self) {
        self.spent = 0;
    }

    /// What passes by from now on is newer than what a search brings that is begun for a SUBSCRIBE of now.
    pub(in super::super) fn moment(&self) -> u64 {
        self.moment
    }

    /// Shards have made the first step of a search. The answer is whose it is, if that was the last of them.
    fn begun(&mut self, show: ShowId, by: ShardMask) -> Option<Asker> {
        let asked = self.asked.get_mut(&show)?;
        let was_begun = asked.unbegun == 0;
        asked.unbegun &= !by;
        if was_begun || asked.unbegun != 0 || !asked.is_under_way {
            return None;
        }
        self.turns.get_mut(&asked.asker)?.unbegun -= 1;
        Some(asked.asker)
    }

    /// A shard has no more for a search, which is a first step too.
    fn ended(&mut self, show: ShowId, by: ShardNumber) -> Option<Asker> {
        let asker = self.begun(show, 1 << by);
        let asked = self.asked.get_mut(&show)?;
        asked.awaited &= !(1 << by);
        if asked.awaited == 0 {
            self.forget(show);
        }
        asker
    }

    /// True if what a session's client publishes is to wait for its searches.
    pub(in super::super) fn is_awaited(&self, asker: Asker) -> bool {
        self.turns.get(&asker).is_some_and(|turn| turn.is_beginning() && turn.later.len() <= AWAITED_MAX)
    }

    /// How many searches wait for their next step.
    fn waiting(&self) -> usize {
        self.beginning.len() + self.running.len()
    }

    /// The search that goes on next.
    fn pop(&mut self) -> Option<Running> {
        let (one, other) = match self.is_turn_of_running {
            true => (&mut self.running, &mut self.beginning),
            false => (&mut self.beginning, &mut self.running),
        };
        one.pop_front().or_else(|| other.pop_front())
    }

    fn forget(&mut self, show: ShowId) {
        let Some(asked) = self.asked.remove(&show).filter(|asked| asked.is_under_way) else { return };
        let Some(turn) = self.turns.get_mut(&asked.asker) else { return };
        turn.under_way -= 1;
        self.line_up(asked.asker);
    }

    /// A session that may begin a search stands in line for that; one that wants none is forgotten.
    fn line_up(&mut self, asker: Asker) {
        let Some(turn) = self.turns.get_mut(&asker) else { return };
        if turn.later.is_empty() && turn.under_way == 0 {
            self.turns.remove(&asker);
        } else if !turn.is_in_line && !turn.later.is_empty() && turn.under_way < UNDER_WAY_MAX {
            turn.is_in_line = true;
            self.line.push_back(asker);
        }
    }

    /// The session whose turn it is to begin, as long as this turn of all lasts.
    fn next_in_line(&mut self) -> Option<Asker> {
        let asker = self.line.pop_front_if(|_| self.spent < BEGIN_NODES)?;
        if let Some(turn) = self.turns.get_mut(&asker) {
            turn.is_in_line = false;
        }
        Some(asker)
    }

    /// The next search that a session may begin.
    fn next(&mut self, asker: Asker) -> Option<Wanted> {
        let turn = self.turns.get_mut(&asker).filter(|turn| turn.under_way < UNDER_WAY_MAX)?;
        let next = turn.later.pop_front()?;
        turn.later_bytes -= next.filter.as_str().len();
        self.spent += SEARCH_NODES;
        Some(next)
    }

    /// A session wants no more than what it has under way.
    fn drop_later(&mut self, asker: Asker) {
        if let Some(turn) = self.turns.get_mut(&asker) {
            self.spent += std::mem::take(&mut turn.later).len();
            turn.later_bytes = 0;
        }
    }
}

impl Mesh {
    /// A retained message passes by.
    #[inline]
    pub(in super::super) fn note_retained(&mut self, topic: &str) {
        if !self.subscribed.is_empty() || !self.shows.asked.is_empty() {
            self.shows.note(topic);
        } else if !self.shows.seen.is_empty() {
            self.shows.seen = Seen::default();
        }
    }
}

impl Core {
    /// True if [`Core::handle_work`] has something to do.
    #[inline]
    pub fn has_work(&self) -> bool {
        let shows = &self.mesh.shows;
        let has_shows = shows.waiting() > 0 || !shows.line.is_empty();
        self.has_unread_mail()
            || self.pumps.has_line()
            || !self.due.is_empty()
            || !self.mesh.is_congested() && (has_shows || self.is_in_review())
    }

    /// Does a part of what takes long; called again and again, it comes to an end.
    pub fn handle_work(&mut self, now: Instant) {
        if self.has_unread_mail() {
            self.read_mail(now);
        }
        self.pump_on(now);
        self.handle_due(now);
        if self.mesh.is_congested() {
            return; // what is found has nowhere to go
        }
        self.review(now);
        self.mesh.shows.renew();
        while !self.mesh.is_congested()
            && let Some(asker) = self.mesh.shows.next_in_line()
        {
            self.begin_later(asker, now);
        }
        let mut budget = Budget::STEP;
        self.mesh.shows.is_turn_of_running ^= true;
        while !budget.is_spent()
            && !self.mesh.is_congested()
            && let Some(running) = self.mesh.shows.pop()
        {
            self.go_on(running, &mut budget, now);
        }
        if self.mesh.shows.waiting() == 0 {
            self.retained.let_go();
        }
    }

    /// Sends a session what is retained, here and elsewhere, now or when its searches before are over and others had their
    /// turn. False if it has no room for all that is here: a search that brings nothing any more must not go on, for a filter
    /// costs its client nothing and us all that is retained.
    pub(in super::super) fn show_retained(
        &mut self,
        session: SessionId,
        wanted: Wanted,
        now: Instant,
    ) -> bool {
        let asker = (session, self.sessions[session as usize].serial);
        let later_max = LATER_MAX.max(self.limits.subscriptions_max);
        let shows = &mut self.mesh.shows;
        let before = shows.turns.get(&asker);
        let is_next = before.is_none_or(|turn| turn.under_way < UNDER_WAY_MAX && turn.later.is_empty());
        if is_next && shows.spent < BEGIN_NODES {
            shows.spent += SEARCH_NODES;
            return self.search(asker, &wanted, now);
        }
        let turn = shows.turns.entry(asker).or_default();
        let bytes = turn.later_bytes + wanted.filter.as_str().len();
        if turn.later.len() < later_max && bytes <= LATER_BYTES_MAX {
            turn.later_bytes = bytes;
            turn.later.push_back(wanted);
        }
        shows.line_up(asker);
        true
    }

    /// Begins some of what waited for a session's turn.
    fn begin_later(&mut self, asker: Asker, now: Instant) {
        for _ in 0..BEGIN_MAX {
            let Some(wanted) = self.mesh.shows.next(asker) else { break };
            let session = self.sessions.get(asker.0 as usize).filter(|session| session.serial == asker.1);
            let goes_on = session.is_some()
                && (self.routes.subscriber(wanted.filter.as_str(), asker.0).is_none()
                    || self.search(asker, &wanted, now));
            if !goes_on {
                self.mesh.shows.drop_later(asker);
            }
        }
        self.mesh.shows.line_up(asker);
        self.read_on(Some(asker));
    }

    /// Reads on from a client whose searches have begun.
    fn read_on(&mut self, asker: Option<Asker>) {
        let Some((session, serial)) =
            asker.filter(|asker| !self.mesh.shows.turns.get(asker).is_some_and(Turn::is_beginning))
        else {
            return;
        };
        let session = self.sessions.get(session as usize).filter(|session| session.serial == serial);
        let Some(id) = session.and_then(|session| session.connection) else { return };
        let Some(connection) = self.wires.get_mut(id) else { return };
        connection.awaits_shows = false;
        if connection.is_held_back && connection.subscribing == 0 {
            connection.is_held_back = false;
            self.wires.effects.push_back(Effect::Read { connection: id });
        }
    }

    fn search(&mut self, asker: Asker, wanted: &Wanted, now: Instant) -> bool {
        let Wanted { filter, options, identifier, since } = wanted;
        let grant = Grant {
            qos: options.qos,
            retain_as_published: true,
            identifiers: identifier.map(|id| Rc::from([id.get()])),
        };
        let shows = &mut self.mesh.shows;
        shows.last += 1;
        let show = ShowId(shows.last);
        let place = self.mesh.place;
        let awaited = match filter.has_wildcard() {
            true => u64::MAX >> (64 - place.count()),
            false => 1 << place.home_of(filter.as_str()),
        };
        let asked = Asked { asker, grant, since: *since, awaited, unbegun: awaited, is_under_way: false };
        self.mesh.shows.asked.insert(show, asked);
        for shard in super::shards_in(awaited).filter(|&shard| shard != place.own) {
            self.mesh.say(shard, Rare::Show { show, filter: filter.clone() });
        }
        if awaited & (1 << place.own) != 0 {
            self.begin_show(place.own, show, filter, now);
        }
        let shows = &mut self.mesh.shows;
        if let Some(asked) = shows.asked.get_mut(&show) {
            asked.is_under_way = true;
            let turn = shows.turns.entry(asker).or_default();
            turn.under_way += 1;
            turn.unbegun += usize::from(asked.unbegun != 0);
        }
        shows.last_refused != Some(show)
    }

    /// Begins a search: at once if it is this shard's own.
    pub(super) fn begin_show(&mut self, asker: ShardNumber, show: ShowId, filter: &Filter, now: Instant) {
        let running = Running { asker, show, walk: Walk::new(filter.clone()), first: Budget::STEP };
        match asker == self.mesh.place.own {
            true => {
                let mut budget = Budget::STEP;
                self.go_on(running, &mut budget, now);
                self.mesh.shows.spent += budget.cost();
            }
            false => self.rest(running, now),
        }
    }

    /// Makes a step of a search, and has it wait for the next.
    fn go_on(&mut self, mut running: Running, budget: &mut Budget, now: Instant) {
        let (had_begun, before) = (running.first.is_spent(), *budget);
        if !self.step(&mut running, budget, now) {
            return;
        }
        running.first.spend(before, *budget);
        if running.first.is_spent() && !had_begun {
            self.begin_to_show(running.asker, running.show);
        }
        self.rest(running, now); // others have their turn
    }

    /// Has a search wait until it goes on.
    fn rest(&mut self, running: Running, now: Instant) {
        if self.mesh.shows.waiting() < WAITING_MAX && self.retained.hold() {
            let Shows { beginning, running: begun, .. } = &mut self.mesh.shows;
            return if running.first.is_spent() { begun } else { beginning }.push_back(running);
        }
        let said_at = &mut self.mesh.shows.said_at;
        if said_at.is_none_or(|at| now >= at + SAY_EVERY) {
            *said_at = Some(now);
            tracing::warn!("too many searches for retained messages; some are cut short");
        }
        self.end_show(running.asker, running.show);
    }

    /// Goes on with a search. False if it is over.
    fn step(&mut self, running: &mut Running, budget: &mut Budget, now: Instant) -> bool {
        while budget.bytes > 0 && !self.mesh.is_congested() {
            match running.walk.next(&self.retained, &mut budget.nodes, now) {
                Step::Found(message) => {
                    budget.bytes = budget.bytes.saturating_sub(message.topic.len() + message.payload.len());
                    let goes_on = with_outgoing(&message, now, |outgoing| self.show_one(running, outgoing));
                    if !goes_on {
                        return false;
                    }
                }
                Step::Paused => return true,
                Step::Over => {
                    self.end_show(running.asker, running.show);
                    return false;
                }
            }
        }
        true
    }

    fn show_one(&mut self, running: &Running, outgoing: &Outgoing) -> bool {
        let (asker, show) = (running.asker, running.show);
        if asker == self.mesh.place.own {
            return self.bring(show, outgoing);
        }
        let bag = &mut self.mesh.out[usize::from(asker)];
        let parcel = bag.pack(outgoing, false);
        bag.items.push(Item::Shown { show, parcel });
        self.mesh.sent(asker, Lane::Published, QoS::AtMostOnce, 1);
        true
    }

    /// Says that a search has made its first step, and is not over.
    fn begin_to_show(&mut self, asker: ShardNumber, show: ShowId) {
        if asker == self.mesh.place.own {
            self.shown_first(show, asker);
        } else {
            self.mesh.say(asker, Rare::ShownFirst { show });
        }
    }

    fn end_show(&mut self, asker: ShardNumber, show: ShowId) {
        if asker == self.mesh.place.own {
            self.shown_all(show, asker);
        } else {
            self.mesh.say(asker, Rare::ShownAll { show });
        }
    }

    /// A shard has brought the first part of a search.
    pub(super) fn shown_first(&mut self, show: ShowId, by: ShardNumber) {
        let begun = self.mesh.shows.begun(show, 1 << by);
        self.read_on(begun);
    }

    /// A shard has no more for a search.
    pub(super) fn shown_all(&mut self, show: ShowId, by: ShardNumber) {
        let begun = self.mesh.shows.ended(show, by);
        self.read_on(begun);
    }

    /// Brings a retained message to the session that asked, with RETAIN set. False if it wants no more. [MQTT-3.3.1-8] v3
    pub(super) fn bring(&mut self, show: ShowId, outgoing: &Outgoing) -> bool {
        let Some(asked) = self.mesh.shows.asked.get(&show) else { return false };
        let topic = outgoing.publish.topic;
        if self.mesh.shows.seen.last(topic).is_some_and(|moment| moment > asked.since) {
            return true; // it has a newer one
        }
        let ((session, serial), grant, awaited) = (asked.asker, asked.grant.clone(), asked.awaited);
        let is_here = self.sessions.get(session as usize).is_some_and(|session| session.serial == serial);
        self.encoder.begin(true);
        if is_here && self.deliver_patiently(session, &grant, outgoing) {
            return true;
        }
        let own = self.mesh.place.own;
        self.mesh.shows.last_refused = Some(show);
        let begun = self.mesh.shows.begun(show, ShardMask::MAX);
        self.mesh.shows.forget(show);
        self.read_on(begun);
        for shard in super::shards_in(awaited).filter(|&shard| shard != own) {
            self.mesh.say(shard, Rare::ShowNoMore { show });
        }
        false
    }

    pub(super) fn stop_showing(&mut self, asker: ShardNumber, show: ShowId) {
        let Shows { beginning, running, .. } = &mut self.mesh.shows;
        for all in [beginning, running] {
            all.retain(|one| !(one.asker == asker && one.show == show));
        }
        if self.mesh.shows.waiting() == 0 {
            self.retained.let_go();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stands_in_line_once() {
        let (mut shows, asker) = (Shows::default(), (7, 1));
        let filter = Filter::parse("t").expect("it is valid");
        let wanted =
            Wanted { filter, options: SubscribeOptions::at(QoS::AtMostOnce), identifier: None, since: 0 };
        let turn = shows.turns.entry(asker).or_default();
        (turn.later_bytes, turn.later) = (1, VecDeque::from([wanted]));
        (0..4).for_each(|_| shows.line_up(asker));
        assert_eq!((shows.next_in_line(), shows.next_in_line()), (Some(asker), None));
        shows.line_up(asker);
        assert!(shows.next(asker).is_some() && shows.next_in_line() == Some(asker));
        shows.line_up(asker);
        assert!(shows.turns.is_empty() && shows.line.is_empty(), "it wants no more");
    }

    #[test]
    fn what_is_noted_is_bounded_in_bytes_and_the_latest_is_known() {
        let mut shows = Shows::default();
        let long = "x".repeat(60_000);
        for n in 0..500 {
            shows.note(&format!("{n}/{long}"));
            shows.note("again");
        }
        let Seen { newer, older, .. } = &shows.seen;
        let bytes: usize = newer.keys().chain(older.keys()).map(|topic| topic.len()).sum();
        assert!((SEEN_BYTES_MAX / 4..=SEEN_BYTES_MAX).contains(&bytes), "{bytes}");
        let known = |n: usize| shows.seen.last(&format!("{n}/{long}"));
        assert_eq!((known(0), known(499), shows.seen.last("again")), (None, Some(999), Some(1_000)));
    }
}
