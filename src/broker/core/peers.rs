//! The links' side door: linked clusters as recipients and as origins of messages.
//!
//! A peer has routes like a session has subscriptions, but no queue: what matches is handed out as an event at once, and
//! the link sees to the rest. What came from a peer goes to local subscribers only, so a message never travels on
//! (no loops). Events are drained after each `handle_*`; what one `handle_*` can bring is bounded by what was read.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::Core;
use super::connection::PUBLISH_BYTES_MAX;
use super::delivery::{Outgoing, with_outgoing};
use super::mesh::Need;
use super::publish::to_message;
use super::recipients::Recipients;
use crate::mqtt::{Filter, Message, QoS};
use crate::store::Token;

/// A linked cluster as a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// What local subscribers want: a filter, and the group if they share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interest {
    /// Which topics.
    pub filter: Filter,
    /// The share group.
    pub group: Option<Arc<str>>,
}

/// What the links have to hear.
#[derive(Clone, Debug)]
pub enum PortEvent {
    /// The first local subscriber came, or the last one left.
    Interest {
        /// Of what.
        interest: Interest,
        /// It came.
        wanted: bool,
    },
    /// All that the peer had delivered when it asked by this number is as safe as what clients publish.
    Settled {
        /// Who asked.
        peer: PeerId,
        /// By which number.
        number: u64,
    },
    /// A message that a peer wants: once per peer, however many of its routes match.
    Forward {
        /// Who wants it.
        peer: PeerId,
        /// As it was published.
        message: Rc<Message>,
    },
}

/// The open peers and what they have to hear.
#[derive(Default)]
pub(super) struct Peers {
    names: Slab<String>,
    events: VecDeque<PortEvent>,
    /// What everything that peers delivered so far waits for.
    unsettled: Unsettled,
    /// Who asked, and what for, oldest first.
    settling: VecDeque<(PeerId, u64, Unsettled)>,
}

/// The store's and other shards' part in what peers delivered.
#[derive(Clone, Default)]
struct Unsettled {
    token: Token,
    need: Need,
}

impl Unsettled {
    fn add(&mut self, token: Token, need: Need) {
        self.token = self.token.max(token);
        for (shard, lane, number) in need {
            let known = self.need.iter_mut().find(|(other, on, _)| (*other, *on) == (shard, lane));
            match known {
                Some((_, _, last)) => *last = number,
                None => self.need.push((shard, lane, number)),
            }
        }
    }
}

impl Peers {
    /// Tells the links that interest came or went. Topics that begin with `$` never cross. Without a peer nobody listens:
    /// who opens one asks for all [`Core::interests`] with it.
    pub(super) fn interest(&mut self, filter: &Filter, group: Option<&Arc<str>>, wanted: bool) {
        if is_linkable(filter) && !self.names.is_empty() {
            let interest = Interest { filter: filter.clone(), group: group.cloned() };
            self.events.push_back(PortEvent::Interest { interest, wanted });
        }
    }

    pub(super) fn forward(&mut self, peers: &[PeerId], message: Message) {
        let message = Rc::new(message);
        let to = |&peer: &PeerId| PortEvent::Forward { peer, message: Rc::clone(&message) };
        self.events.extend(peers.iter().map(to));
    }
}

impl Core {
    /// Opens a peer as a recipient, without routes.
    pub fn peer_open(&mut self, name: &str) -> PeerId {
        PeerId(self.peers.names.insert(name.to_owned()) as u32)
    }

    /// Closes a peer; its routes go with it.
    pub fn peer_close(&mut self, peer: PeerId) {
        if self.peers.names.try_remove(peer.0 as usize).is_some() {
            for filter in self.routes.filters_of(peer) {
                self.peer_route_delete(peer, &filter);
            }
            // The next one that is opened may get its number.
            let is_its = |event: &PortEvent| match event {
                PortEvent::Forward { peer: other, .. } | PortEvent::Settled { peer: other, .. } => {
                    *other == peer
                }
                PortEvent::Interest { .. } => false,
            };
            self.peers.events.retain(|event| !is_its(event));
            self.peers.settling.retain(|(other, ..)| *other != peer);
        }
    }

    /// The peer wants messages that match. Adding twice is adding once.
    pub fn peer_route_add(&mut self, peer: PeerId, filter: &Filter) {
        if self.peers.names.contains(peer.0 as usize) {
            let is_first = self.routes.add_peer(filter, peer);
            if is_first && !self.routes.has_subscribers(filter.as_str()) {
                self.mesh.announce(filter, None, true);
            }
        }
    }

    /// The peer no longer wants messages for this filter's sake.
    pub fn peer_route_delete(&mut self, peer: PeerId, filter: &Filter) {
        let was_last = self.routes.remove_peer(filter.as_str(), peer);
        if was_last && !self.routes.has_subscribers(filter.as_str()) {
            self.mesh.announce(filter, None, false);
        }
    }

    /// Brings a message from a peer to local subscribers: one member of each shared group, RETAIN passed on and never
    /// stored. Returns how many recipients it had.
    pub fn peer_deliver(&mut self, _origin: PeerId, message: Message, now: Instant) -> usize {
        if message.topic.starts_with('$') || message.is_expired(now) {
            return 0;
        }
        let properties = message.properties.as_properties().as_bytes();
        if message.topic.len() + properties.len() + message.payload.len() > PUBLISH_BYTES_MAX {
            self.counters.dropped_oversize += 1;
            return 0;
        }
        let before = self.ledger.changes();
        let recipients = self.recipients_of(&message.topic);
        with_outgoing(&message, now, |outgoing| {
            let count = self.route(&recipients, outgoing, None);
            let mut shards = recipients.shards;
            if outgoing.publish.qos == QoS::AtMostOnce {
                // Nobody waits for these, and links are read on.
                let behind = self.mesh.behind(shards);
                self.counters.dropped_slow += u64::from(behind.count_ones());
                shards &= !behind;
            }
            self.mesh.publish(shards, None, outgoing);
            let (token, need) = (self.token_of_others(before), self.mesh.take_need());
            self.peers.unsettled.add(token, need);
            count + recipients.shards.count_ones() as usize
        })
    }

    /// Asks when all that this peer delivered so far is as safe as what clients publish: true if it is now, else
    /// [`PortEvent::Settled`] says so. A store that is down is waited for.
    pub fn peer_settle(&mut self, peer: PeerId, number: u64) -> bool {
        let is_settled = self.is_settled(&self.peers.unsettled);
        if !is_settled {
            let all = self.peers.unsettled.clone();
            self.peers.settling.push_back((peer, number, all));
        }
        is_settled
    }

    fn is_settled(&self, unsettled: &Unsettled) -> bool {
        unsettled.token <= self.safe && self.mesh.is_met(&unsettled.need)
    }

    /// Tells peers what is safe by now.
    pub(super) fn settle_peers(&mut self) {
        while let Some((peer, number, all)) = self.peers.settling.front()
            && self.is_settled(all)
        {
            let (peer, number) = (*peer, *number);
            self.peers.settling.pop_front();
            self.peers.events.push_back(PortEvent::Settled { peer, number });
        }
    }

    /// The store failed, or is back: what was not safe has another token to wait for.
    pub(super) fn peers_wait_again(&mut self, token: Token) {
        let safe = self.safe;
        let waiting = self.peers.settling.iter_mut().map(|(.., all)| all);
        let waiting = waiting.chain(std::iter::once(&mut self.peers.unsettled));
        waiting.filter(|all| all.token > safe).for_each(|all| all.token = token);
    }

    /// Hands a message of this node to the links. Returns how many peers get it.
    pub(super) fn forward(&mut self, recipients: &Recipients, outgoing: &Outgoing, now: Instant) -> usize {
        if recipients.peers.is_empty() || outgoing.publish.topic.starts_with('$') {
            return 0;
        }
        self.count_work(recipients.peers.len(), outgoing);
        self.peers.forward(&recipients.peers, to_message(outgoing, now));
        recipients.peers.len()
    }

    /// Everything that local subscribers want, for a bootstrap.
    pub fn interests(&self) -> impl Iterator<Item = Interest> {
        let linkable = self.routes.interests().filter(|(filter, _)| is_linkable(filter));
        linkable.map(|(filter, group)| Interest { filter: filter.clone(), group: group.cloned() })
    }

    /// What the links have to hear next.
    pub fn poll_port_event(&mut self) -> Option<PortEvent> {
        self.peers.events.pop_front()
    }

    /// True if [`Core::poll_port_event`] would give any.
    pub fn has_port_events(&self) -> bool {
        !self.peers.events.is_empty()
    }
}

fn is_linkable(filter: &Filter) -> bool {
    !filter.as_str().starts_with('$')
}
