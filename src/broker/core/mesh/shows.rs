//! Retained messages for new subscriptions: found here and on all other shards, a part at a time.
//!
//! A search looks at [`STEP_NODES`] topic levels at once; what is left waits in a queue and goes on when the shell calls
//! [`Core::handle_work`], so that `#` over a million topics stalls nobody. Other shards are asked after SUBACK, when all of
//! them hold the interest: whatever is retained later reaches the subscriber as it is published.
//!
//! While a search is under way, newer messages overtake it: topics of retained messages that pass by are noted, and what a
//! search brings for them is dropped. The note is bounded by [`SEEN_MAX`]; beyond it a client may see an old message late.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Instant;

use hashbrown::HashMap;

use super::bag::{Item, Rare, ShowId};
use super::{Core, ShardMask, ShardNumber};
use crate::broker::core::SessionId;
use crate::broker::core::delivery::{Outgoing, with_outgoing};
use crate::broker::core::recipients::Grant;
use crate::broker::core::retained::{Step, Walk};
use crate::mqtt::{Filter, QoS, SubscribeOptions};

/// How many topic levels one step of a search looks at.
const STEP_NODES: usize = 1_000;
/// How many searches may wait for their next step; one more is not begun.
const WAITING_MAX: usize = 1_000;
/// How many topics are noted.
const SEEN_MAX: usize = 65_536;

/// A session's search.
struct Asked {
    session: SessionId,
    serial: u32,
    grant: Grant,
    /// Notes from here on are newer than what it brings.
    since: u64,
    /// Who is not done.
    awaited: ShardMask,
}

/// A search in what this shard retains, for itself or for another.
struct Running {
    asker: ShardNumber,
    show: ShowId,
    walk: Walk,
}

/// All searches.
#[derive(Default)]
pub(in super::super) struct Shows {
    last: u64,
    /// The last whose session had no room.
    last_refused: Option<ShowId>,
    asked: HashMap<ShowId, Asked>,
    running: VecDeque<Running>,
    seen: HashMap<Box<str>, u64, foldhash::fast::RandomState>,
    moment: u64,
}

impl Shows {
    /// A retained message passes by.
    #[inline]
    pub(in super::super) fn note(&mut self, topic: &str) {
        if self.asked.is_empty() || self.seen.len() >= SEEN_MAX {
            return;
        }
        self.moment += 1;
        self.seen.insert(topic.into(), self.moment);
    }

    /// A shard has no more for a search.
    pub(super) fn ended(&mut self, show: ShowId, by: ShardNumber) {
        let Some(asked) = self.asked.get_mut(&show) else { return };
        asked.awaited &= !(1 << by);
        if asked.awaited == 0 {
            self.forget(show);
        }
    }

    fn forget(&mut self, show: ShowId) {
        self.asked.remove(&show);
        if self.asked.is_empty() {
            self.seen.clear();
        }
    }
}

impl Core {
    /// True if [`Core::handle_work`] has something to do.
    #[inline]
    pub fn has_work(&self) -> bool {
        !self.mesh.shows.running.is_empty() || self.is_in_review()
    }

    /// Does a part of what takes long; called again and again, it comes to an end.
    pub fn handle_work(&mut self, now: Instant) {
        if self.mesh.is_congested() {
            return; // what is found has nowhere to go
        }
        self.review(now);
        let Some(mut running) = self.mesh.shows.running.pop_front() else { return };
        if self.step(&mut running, now) {
            self.mesh.shows.running.push_front(running);
        } else if self.mesh.shows.running.is_empty() {
            self.retained.let_go();
        }
    }

    /// Sends a session what is retained, here and elsewhere. False if it has no room for all that is here: a search that
    /// brings nothing any more must not go on, for a filter costs its client nothing and us all that is retained.
    pub(in super::super) fn show_retained(
        &mut self,
        session: SessionId,
        filter: &Filter,
        options: SubscribeOptions,
        identifier: Option<NonZeroU32>,
        now: Instant,
    ) -> bool {
        let grant = Grant {
            qos: options.qos,
            retain_as_published: true,
            identifiers: identifier.map(|id| Rc::from([id.get()])),
        };
        let shows = &mut self.mesh.shows;
        shows.last += 1;
        let (show, since) = (ShowId(shows.last), shows.moment);
        let serial = self.sessions[session as usize].serial;
        let place = self.mesh.place;
        let awaited = match filter.has_wildcard() {
            true => u64::MAX >> (64 - place.count()),
            false => 1 << place.home_of(filter.as_str()),
        };
        self.mesh.shows.asked.insert(show, Asked { session, serial, grant, since, awaited });
        for shard in super::shards_in(awaited).filter(|&shard| shard != place.own) {
            self.mesh.say(shard, Rare::Show { show, filter: filter.clone() });
        }
        if awaited & (1 << place.own) != 0 {
            self.begin_show(place.own, show, filter, now);
        }
        self.mesh.shows.last_refused != Some(show)
    }

    pub(super) fn begin_show(&mut self, asker: ShardNumber, show: ShowId, filter: &Filter, now: Instant) {
        let mut running = Running { asker, show, walk: Walk::new(filter.clone()) };
        if !self.step(&mut running, now) {
            return;
        }
        if self.mesh.shows.running.len() >= WAITING_MAX || !self.retained.hold() {
            tracing::warn!(
                filter = filter.as_str(),
                "too many searches for retained messages; one is cut short"
            );
            return self.end_show(asker, show);
        }
        self.mesh.shows.running.push_back(running);
    }

    /// Goes on with a search. False if it is over.
    fn step(&mut self, running: &mut Running, now: Instant) -> bool {
        let mut nodes = STEP_NODES;
        loop {
            match running.walk.next(&self.retained, &mut nodes, now) {
                Step::Found(message) => {
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
    }

    fn show_one(&mut self, running: &Running, outgoing: &Outgoing) -> bool {
        let (asker, show) = (running.asker, running.show);
        if asker == self.mesh.place.own {
            return self.bring(show, outgoing);
        }
        let bag = &mut self.mesh.out[usize::from(asker)];
        let parcel = bag.pack(outgoing, false);
        bag.items.push(Item::Shown { show, parcel });
        self.mesh.sent(asker, super::Lane::Published, QoS::AtMostOnce);
        true
    }

    fn end_show(&mut self, asker: ShardNumber, show: ShowId) {
        if asker == self.mesh.place.own {
            self.mesh.shows.ended(show, asker);
        } else {
            self.mesh.say(asker, Rare::ShownAll { show });
        }
    }

    /// Brings a retained message to the session that asked, with RETAIN set. False if it wants no more. [MQTT-3.3.1-8] v3
    fn bring(&mut self, show: ShowId, outgoing: &Outgoing) -> bool {
        let Some(asked) = self.mesh.shows.asked.get(&show) else { return false };
        let topic = outgoing.publish.topic;
        if self.mesh.shows.seen.get(topic).is_some_and(|&moment| moment > asked.since) {
            return true; // it has a newer one
        }
        let (session, serial, grant) = (asked.session, asked.serial, asked.grant.clone());
        let is_here = self.sessions.get(session as usize).is_some_and(|session| session.serial == serial);
        self.encoder.begin();
        if is_here && self.deliver_patiently(session, &grant, outgoing) {
            return true;
        }
        self.mesh.shows.last_refused = Some(show);
        self.mesh.shows.forget(show);
        false
    }

    pub(super) fn handle_shown(&mut self, show: ShowId, outgoing: &Outgoing) {
        if self.mesh.shows.asked.contains_key(&show) && !self.bring(show, outgoing) {
            for shard in self.mesh.others() {
                self.mesh.say(shard, Rare::ShowNoMore { show });
            }
        }
    }

    pub(super) fn stop_showing(&mut self, asker: ShardNumber, show: ShowId) {
        self.mesh.shows.running.retain(|running| !(running.asker == asker && running.show == show));
        if self.mesh.shows.running.is_empty() {
            self.retained.let_go();
        }
    }
}
