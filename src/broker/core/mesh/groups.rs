//! Shared groups whose members are on several shards.
//!
//! A group is owned by the home of its filter: its members are listed there and nowhere else, all messages for it go there,
//! and the owner chooses the member and *assigns* it the message. What the member's shard cannot deliver it *returns*: because
//! the session is no member any more, or has no room. So does a session that leaves with what waits for it. The owner places
//! it anew, and says so if nobody takes it.
//!
//! Nothing that was acknowledged hangs in the air meanwhile: whoever waits for an assigned message waits for the one in its
//! place as well (`moved`), and what is stored of a message that changes its session goes to disk in one piece.

use std::rc::Rc;
use std::sync::Arc;

use super::bag::{Item, Rare, TRIES_MAX, Try};
use super::{Core, Lane, Mesh, Pending, ShardNumber};
use crate::broker::core::SessionId;
use crate::broker::core::deliver::presence_of;
use crate::broker::core::delivery::Outgoing;
use crate::broker::core::members::{Member, Presence, Seat};
use crate::broker::core::recipients::{Grant, Subscriber};
use crate::broker::core::session::{Session, Share, Subscription};
use crate::mqtt::{QoS, SharedFilter};
use crate::store::Token;

impl Mesh {
    /// Sends a message of a group to a session on another shard.
    pub(in super::super) fn assign(
        &mut self,
        shard: ShardNumber,
        to: Seat,
        shared: Arc<SharedFilter>,
        attempt: Try,
        outgoing: &Outgoing,
    ) {
        let bag = &mut self.out[usize::from(shard)];
        let parcel = bag.pack(outgoing, self.is_tied);
        bag.items.push(Item::Assign { to, shared, attempt, parcel });
        self.sent(shard, Lane::Assigned, outgoing.publish.qos, 1);
    }

    /// Gives a message of a group to its owner, to be placed anew; `tried` members had no room for it.
    pub(in super::super) fn give_back(
        &mut self,
        owner: ShardNumber,
        shared: Arc<SharedFilter>,
        instead_of: Option<u64>,
        giver: Option<Seat>,
        tried: u8,
        outgoing: &Outgoing,
    ) {
        let bag = &mut self.out[usize::from(owner)];
        let parcel = bag.pack(outgoing, self.is_tied);
        bag.items.push(Item::Return { shared, instead_of, giver, tried, parcel });
        self.sent(owner, Lane::Returned, outgoing.publish.qos, 1);
    }

    /// Forgets of which moved messages nobody has to wait any longer. One may have been moved several times.
    pub(super) fn settle_moved(&mut self, safe: Token) {
        loop {
            let is_done = |(_, one): &(&(ShardNumber, u64), &Pending<()>)| {
                let is_there = |&(shard, lane, number): &(ShardNumber, Lane, u64)| {
                    self.is_confirmed(shard, lane, number) && !self.moved.contains_key(&(shard, number))
                };
                one.token <= safe && one.need.iter().all(is_there)
            };
            let done: Vec<_> = self.moved.iter().filter(is_done).map(|(&key, _)| key).collect();
            if done.is_empty() {
                return;
            }
            done.iter().for_each(|key| drop(self.moved.remove(key)));
        }
    }
}

impl Core {
    /// A session joins a group.
    pub(in super::super) fn join(
        &mut self,
        shared: SharedFilter,
        how: Subscription,
        who: Subscriber,
        is_kept: bool,
    ) {
        let owner = self.mesh.elsewhere(shared.filter.as_str());
        let session = &mut self.sessions[who.session as usize];
        session.shares.get_or_insert_default().insert(shared.clone(), Share { how, owner });
        self.tell_presence(who.session);
        let Session { serial, presence, .. } = self.sessions[who.session as usize];
        let member = Member { shard: self.mesh.place.own, serial, who, presence, is_kept };
        match owner {
            Some(owner) => {
                self.mesh.say(owner, Rare::Join { shared, member });
                self.mesh.count(owner, Lane::Joined, 1);
            }
            None => self.add_member(&shared, member),
        }
    }

    /// A session leaves a group.
    pub(in super::super) fn part(&mut self, shared: &SharedFilter, session: SessionId) {
        let shares = &mut self.sessions[session as usize].shares;
        if let Some(all) = shares {
            all.remove(shared);
        }
        *shares = shares.take().filter(|all| !all.is_empty());
        match self.mesh.elsewhere(shared.filter.as_str()) {
            Some(owner) => self.mesh.say(owner, Rare::Leave { shared: shared.clone(), session }),
            None => self.remove_member(shared, self.mesh.place.own, session),
        }
    }

    /// Tells a session's groups how ready it is, if that has changed.
    #[inline]
    pub(in super::super) fn look_at(&mut self, id: SessionId) {
        if self.sessions[id as usize].shares.is_some() {
            self.tell_presence(id);
        }
    }

    fn tell_presence(&mut self, id: SessionId) {
        let session = &mut self.sessions[id as usize];
        let presence = presence_of(session, &self.wires, self.pressure);
        session.is_full &= presence != Presence::Ready;
        if std::mem::replace(&mut session.presence, presence) == presence {
            return;
        }
        let own = self.mesh.place.own;
        for (shared, share) in session.shares.iter().flat_map(|all| all.iter()) {
            match share.owner {
                Some(owner) => {
                    let shared = shared.clone();
                    self.mesh.say(owner, Rare::Presence { shared, session: id, presence });
                }
                None => self.routes.set_presence(shared, own, id, presence),
            }
        }
    }

    fn add_member(&mut self, shared: &SharedFilter, member: Member) {
        if self.routes.join(shared, member) {
            self.interest_changed(&shared.filter, Some(&shared.group), true);
        }
        if member.is_kept && self.routes.note_kept_group(shared) {
            self.mesh.announce_kept(&shared.filter);
        }
    }

    pub(super) fn remove_member(&mut self, shared: &SharedFilter, shard: ShardNumber, session: SessionId) {
        if self.routes.leave(shared, shard, session) {
            self.interest_changed(&shared.filter, Some(&shared.group), false);
        }
    }

    pub(super) fn handle_join(&mut self, from: ShardNumber, shared: &SharedFilter, member: Member) {
        self.add_member(shared, member);
        let number = self.mesh.received(from, Lane::Joined, 1);
        // What counts is that all others hold the group's interest; the memberships of this shard's own are not its matter.
        let mut need = self.mesh.unconfirmed();
        need.retain(|(_, lane, _)| *lane == Lane::Held);
        self.mesh.joined.push_back(Pending { token: Token(0), need, what: (from, number) });
    }

    /// The owner of a group chose a session here.
    pub(super) fn handle_assigned(
        &mut self,
        from: ShardNumber,
        to: Seat,
        shared: Arc<SharedFilter>,
        attempt: Try,
        outgoing: &Outgoing,
    ) {
        let before = self.ledger.changes();
        let presence = |core: &Core| core.sessions.get(to.session as usize).map(|session| session.presence);
        let was = presence(self);
        let is_counted = outgoing.publish.qos != QoS::AtMostOnce;
        let number = is_counted.then(|| self.received(from, Lane::Assigned, 1));
        let is_taken = match self.grant_of(to, &shared) {
            _ if attempt == Try::Back => self.take_back(to, outgoing, &shared),
            Some(grant) => {
                self.encoder.begin(true);
                let retain = outgoing.publish.retain && grant.retain_as_published;
                let taken = self.deliver(to.session, &grant, outgoing, retain, Some(&shared));
                match taken {
                    // Who has just gone gives it back once: its owner believed it there.
                    Err(refusal)
                        if attempt == Try::Last
                            || attempt != Try::After(0) && self.is_in_vain(refusal, to.session) =>
                    {
                        self.count_refusal(refusal);
                        true // it ends here
                    }
                    taken => taken.is_ok(),
                }
            }
            None => false,
        };
        if !is_taken {
            let tried = match attempt {
                Try::After(tried) => tried + u8::from(presence(self) == was),
                Try::Last | Try::Back => TRIES_MAX,
            };
            self.mesh.give_back(from, shared, number, None, tried, outgoing);
            self.mesh.take_need(); // whoever waits for this one waits for what comes in its place
        }
        if let Some(number) = number {
            let token = self.token_of_others(before);
            self.mesh.assigned.push_back(Pending { token, need: Default::default(), what: (from, number) });
        }
    }

    /// How a session gets a message that it was assigned, if it may still have it.
    fn grant_of(&self, to: Seat, shared: &SharedFilter) -> Option<Grant> {
        let session = self.sessions.get(to.session as usize).filter(|session| session.serial == to.serial)?;
        let Subscription { qos, retain_as_published, identifier, .. } =
            session.shares.as_ref()?.get(shared)?.how;
        Some(Grant { qos, retain_as_published, identifiers: identifier.map(|id| Rc::from([id.get()])) })
    }

    /// A message of a group that is owned here came back.
    pub(super) fn handle_returned(
        &mut self,
        from: ShardNumber,
        shared: Arc<SharedFilter>,
        instead_of: Option<u64>,
        giver: Option<Seat>,
        tried: u8,
        outgoing: &Outgoing,
    ) {
        let before = self.ledger.changes();
        if outgoing.publish.qos != QoS::AtMostOnce {
            self.received(from, Lane::Returned, 1);
        }
        if !self.offer_again(&shared, tried, outgoing)
            && let Some(giver) = giver
        {
            self.mesh.assign(from, giver, shared, Try::Back, outgoing);
        }
        let (token, need) = (self.token_of_others(before), self.mesh.take_need());
        if let Some(number) = instead_of
            && (token > self.safe || !need.is_empty())
        {
            self.mesh.moved.insert((from, number), Pending { token, need, what: () });
        }
    }

    /// Hands a message of a group that is owned here to one of its members. False if nobody takes it.
    pub(in super::super) fn offer_again(
        &mut self,
        shared: &SharedFilter,
        tried: u8,
        outgoing: &Outgoing,
    ) -> bool {
        self.encoder.begin(true);
        let group = self.routes.find_group(shared);
        group.and_then(|group| self.offer(group, tried, outgoing)) == Some(true)
    }
}
