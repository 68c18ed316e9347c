//! Shared groups whose members are on several shards.
//!
//! A group is owned by the home of its filter: all messages for it go there, and the owner chooses the member. A shard with
//! members of a group that another owns keeps them in its own routes as well, marked so that it does not choose among
//! them; what the owner sends names session and group, and comes back when the session is gone, for another to have it.

use super::bag::{Away, GroupRef, Item, Member, Rare};
use super::{Core, Lane, Pending, ShardNumber};
use crate::broker::core::SessionId;
use crate::broker::core::delivery::Outgoing;
use crate::broker::core::recipients::{Grant, Subscriber};
use crate::broker::core::routes::GroupId;
use crate::broker::core::session::SubscriptionKey;
use crate::mqtt::{QoS, SharedFilter};
use crate::store::Token;

impl Core {
    /// A session here joins a group that another shard owns.
    pub(in super::super) fn join(&mut self, owner: ShardNumber, shared: SharedFilter, who: &Subscriber) {
        let Some(group) = self.routes.find_group(&shared) else { return };
        let is_connected = self.sessions[who.session as usize].connection.is_some();
        let away = Away::of(self.mesh.place.own, who, group, is_connected);
        self.mesh.say(owner, Rare::Join { shared, away });
        self.mesh.count(owner, Lane::Joined);
    }

    /// A session here leaves a group that another shard owns.
    pub(in super::super) fn part(&mut self, owner: ShardNumber, shared: SharedFilter, session: SessionId) {
        self.mesh.say(owner, Rare::Leave { shared, session });
    }

    /// Tells the owners of a session's groups that its client came or went.
    pub(in super::super) fn tell_presence(&mut self, id: SessionId) {
        if self.mesh.is_alone() {
            return;
        }
        let session = &self.sessions[id as usize];
        let is_connected = session.connection.is_some();
        for shared in session.subscriptions.keys().filter_map(SubscriptionKey::shared) {
            if let Some(owner) = self.mesh.elsewhere(shared.filter.as_str()) {
                self.mesh.say(owner, Rare::Presence { shared, session: id, is_connected });
            }
        }
    }

    pub(super) fn handle_join(&mut self, from: ShardNumber, shared: &SharedFilter, away: Away) {
        if self.routes.join_away(shared, away) {
            self.interest_changed(&shared.filter, Some(&shared.group), true);
        }
        let number = self.mesh.received(from, Lane::Joined);
        // What counts is that all others hold the group's interest; the memberships of this shard's own are not its matter.
        let mut need = self.mesh.unconfirmed();
        need.retain(|(_, lane, _)| *lane == Lane::Held);
        self.mesh.joined.push_back(Pending { token: Token(0), need, what: (from, number) });
    }

    pub(super) fn handle_leave(&mut self, from: ShardNumber, shared: &SharedFilter, session: SessionId) {
        if self.routes.leave_away(shared, from, session) {
            self.interest_changed(&shared.filter, Some(&shared.group), false);
        }
    }

    /// Sends a message of a group to a member on another shard.
    pub(in super::super) fn assign(&mut self, away: &Away, group: GroupId, outgoing: &Outgoing) {
        let bag = &mut self.mesh.out[usize::from(away.shard)];
        let parcel = bag.pack(outgoing, self.mesh.is_tied);
        bag.items.push(Item::Assign { to: away.member, group, parcel });
        self.mesh.sent(away.shard, Lane::Assigned, outgoing.publish.qos);
    }

    /// The owner of a group chose a session here.
    pub(super) fn handle_assigned(
        &mut self,
        from: ShardNumber,
        to: Member,
        group: GroupId,
        outgoing: &Outgoing,
    ) {
        let before = self.ledger.changes();
        if let Some(member) = self.routes.member(to.group, to.session) {
            self.encoder.begin();
            let grant = Grant::of(&member);
            let retain = outgoing.publish.retain && grant.retain_as_published;
            self.deliver(member.session, &grant, outgoing, retain, Some(to.group));
        } else {
            self.send_back(from, GroupRef::Id(group), outgoing);
        }
        if outgoing.publish.qos != QoS::AtMostOnce {
            let token = self.token_of_others(before);
            let number = self.received(from, Lane::Assigned);
            self.mesh.assigned.push_back(Pending { token, need: Default::default(), what: (from, number) });
        }
    }

    /// Gives a message of a group back to its owner.
    pub(in super::super) fn give_back(&mut self, shared: SharedFilter, outgoing: &Outgoing) {
        if let Some(owner) = self.mesh.elsewhere(shared.filter.as_str()) {
            self.send_back(owner, GroupRef::Named(Box::new(shared)), outgoing);
        }
    }

    fn send_back(&mut self, owner: ShardNumber, to: GroupRef, outgoing: &Outgoing) {
        let bag = &mut self.mesh.out[usize::from(owner)];
        let parcel = bag.pack(outgoing, false);
        bag.items.push(Item::Return { to, parcel });
    }

    pub(super) fn handle_returned(&mut self, group: GroupRef, outgoing: &Outgoing) {
        let group = match group {
            GroupRef::Id(id) => Some(id),
            GroupRef::Named(shared) => self.routes.find_group(&shared),
        };
        if let Some(group) = group {
            self.route_again(group, outgoing);
            self.mesh.take_need(); // nobody waits for an answer
        }
    }
}
