//! What other shards said, taken and done in its order.
//!
//! What makes much work is done in parts, one a turn: nothing more is taken until all of it is done, and what waits meanwhile is
//! bounded by what may lie in an [`Office`]. Taking needs neither room nor other shards.

use std::sync::Arc;
use std::time::Instant;

use super::bag::{Item, Rare};
use super::{Bag, Desk, Exchanged, Lane, OUT_BYTES_MAX, Office, Pending, ShardNumber};
use crate::broker::core::delivery::Outgoing;
use crate::broker::core::subscribe::FILTER_COST;
use crate::broker::core::{Core, Effect};
use crate::mqtt::{Filter, QoS};

/// How many bytes of [work](Core::routed) what others said may make in a turn, one row excepted.
const MAIL_WORK_MAX: u64 = 4 << 20;

impl Core {
    /// Leaves what this shard has to say to others and takes what they said, unless it has not done all that they said before;
    /// [`Core::handle_mail`] reads it.
    pub fn exchange(&mut self, office: &Office, desk: &mut Desk) -> Exchanged {
        self.mesh.confirm();
        let takes = !self.has_unread_mail();
        let done = office.exchange(self.mesh.place.own, &mut self.mesh.out, desk, takes);
        let is_congested = self.mesh.out.iter().any(|bag| bag.weight() > OUT_BYTES_MAX);
        if std::mem::replace(&mut self.mesh.is_congested, is_congested) && !is_congested {
            self.wires.effects.push_back(Effect::Resume);
        }
        done
    }

    /// Does what others said; what makes much work is left for [`Core::handle_work`], and all behind it.
    pub fn handle_mail(&mut self, desk: &mut Desk, now: Instant) {
        self.mesh.emptied.drain(..).for_each(|bag| desk.recycle(bag));
        let is_first = !self.has_unread_mail();
        for (from, mut bag) in desk.taken.drain(..) {
            bag.items.reverse(); // the first is at hand
            self.mesh.unread.push_back((from, bag));
        }
        if is_first {
            self.read_mail(now);
            self.mesh.emptied.drain(..).for_each(|bag| desk.recycle(bag));
        }
    }

    /// True if something lies here that others said.
    #[inline]
    pub(super) fn has_unread_mail(&self) -> bool {
        !self.mesh.unread.is_empty()
    }

    /// Does a part of what others said.
    pub(super) fn read_mail(&mut self, now: Instant) {
        let work_end = self.routed + MAIL_WORK_MAX;
        while let Some((from, mut bag)) = self.mesh.unread.pop_front() {
            while let Some(item) = bag.items.pop() {
                let rest = self.handle_item(from, item, &bag.bytes, work_end, now);
                bag.items.extend(rest);
                if self.routed >= work_end {
                    self.mesh.unread.push_front((from, bag));
                    return self.settle_mesh(now);
                }
            }
            self.mesh.emptied.push(bag);
        }
        self.settle_mesh(now);
    }

    /// Does what an item says, and gives back what is left of it when the work is enough.
    fn handle_item(
        &mut self,
        from: ShardNumber,
        item: Item,
        bytes: &[u8],
        work_end: u64,
        now: Instant,
    ) -> Option<Item> {
        match item {
            Item::Publish { parcel, more, keeps, is_row } => {
                self.mesh.tie(parcel.is_tied());
                // Of the next so many it is known that they are no row.
                let mut single = if keeps { usize::MAX } else { 0 };
                let (mut done, count) = (0, more as usize + 1);
                while done < count && self.routed < work_end {
                    let before = self.topics.last();
                    let before = before.as_deref().unwrap_or_default();
                    let (parcel, left) = (parcel.behind(done), count - done);
                    let outgoing = Bag::unpack(bytes, parcel, before);
                    if single == 0 && left > 1 {
                        let bytes = parcel.bytes_of(bytes, left);
                        match self.handle_relayed_row(from, &outgoing, bytes, is_row) {
                            Ok(in_row) => {
                                done += in_row;
                                continue;
                            }
                            Err(messages) => single = messages,
                        }
                    }
                    self.handle_relayed(from, &outgoing, keeps, now);
                    (done, single) = (done + 1, single.saturating_sub(1));
                }
                self.mesh.tie(false);
                let more = (count - done).checked_sub(1)? as u32;
                return Some(Item::Publish { parcel: parcel.behind(done), more, keeps, is_row });
            }
            Item::Confirm(confirmed) => self.mesh.siblings[usize::from(from)].confirmed = confirmed,
            Item::Assign { to, shared, attempt, parcel } => {
                self.mesh.tie(parcel.is_tied());
                self.handle_assigned(from, to, shared, attempt, &Bag::unpack(bytes, parcel, ""));
                self.mesh.tie(false);
            }
            Item::Return { shared, instead_of, giver, tried, parcel } => {
                self.mesh.tie(parcel.is_tied());
                self.handle_returned(from, shared, instead_of, giver, tried, &Bag::unpack(bytes, parcel, ""));
                self.mesh.tie(false);
            }
            Item::Shown { show, parcel } => {
                self.bring(show, &Bag::unpack(bytes, parcel, ""));
            }
            Item::Rare(rare) => self.handle_rare(from, *rare, now),
        }
        None
    }

    fn handle_rare(&mut self, from: ShardNumber, rare: Rare, now: Instant) {
        match rare {
            Rare::Interest { filter, group, wanted } => {
                self.handle_interest(from, &filter, group.as_ref(), wanted);
            }
            Rare::Kept { filter } => self.routes.mark_kept(&filter, from),
            Rare::Join { shared, member } => self.handle_join(from, &shared, member),
            Rare::Leave { shared, session } => self.remove_member(&shared, from, session),
            Rare::Presence { shared, session, presence } => {
                self.routes.set_presence(&shared, from, session, presence);
            }
            Rare::Show { show, filter } => self.begin_show(from, show, &filter, now),
            Rare::ShownFirst { show } => self.shown_first(show, from),
            Rare::ShownAll { show } => self.shown_all(show, from),
            Rare::ShowNoMore { show } => self.stop_showing(from, show),
        }
    }

    /// A message that another shard's client published.
    fn handle_relayed(&mut self, from: ShardNumber, outgoing: &Outgoing, keeps: bool, now: Instant) {
        let before = self.ledger.changes();
        let recipients = self.recipients_of(outgoing.publish.topic);
        if outgoing.publish.retain {
            self.mesh.note_retained(outgoing.publish.topic);
        }
        if keeps {
            self.retain(outgoing, now);
        }
        self.route(&recipients, outgoing, None);
        if !recipients.peers.is_empty() {
            self.forward(&recipients, outgoing, now);
        }
        if outgoing.publish.qos != QoS::AtMostOnce {
            self.confirm_relayed(from, 1, before);
        }
    }

    /// Confirms so many messages that another shard's client published, once all is safe that they changed since `before`.
    pub(in super::super) fn confirm_relayed(&mut self, from: ShardNumber, messages: usize, before: u64) {
        let token = self.token_of_others(before);
        let number = self.received(from, Lane::Published, messages);
        let need = self.mesh.take_need();
        if self.mesh.relayed.is_empty() && need.is_empty() && token <= self.safe {
            return self.mesh.done(from, Lane::Published, number);
        }
        self.mesh.relayed.push_back(Pending { token, need, what: (from, number) });
    }

    /// Another shard wants a filter, or no longer does.
    fn handle_interest(
        &mut self,
        from: ShardNumber,
        filter: &Filter,
        group: Option<&Arc<str>>,
        wanted: bool,
    ) {
        self.routed += FILTER_COST;
        if self.routes.mark(filter, group, from, wanted) {
            self.peers.interest(filter, group, wanted);
        }
        let number = self.mesh.received(from, Lane::Held, 1);
        self.mesh.done(from, Lane::Held, number);
    }
}
