//! A half that changes while it runs.
//!
//! What can stay, stays: topics, the ACL and bounds change under an open connection. A connection ends only when
//! it is not valid any more: another address or authority, other credentials of the peer, another side that dials.

use std::time::Instant;

use crate::link::native::{self, Frame};
use crate::link::refusal::Reason;
use crate::mqtt::Filter;
use crate::settings::{Dial, Link as Half};

use super::connection::Connection;
use super::{ConnId, Link, Output};

impl Link {
    /// The half changed. Its peer is the same: another peer is another link.
    pub fn handle_settings(&mut self, half: Half, now: Instant) {
        debug_assert_eq!(self.half.peer, half.peer, "another peer is another link");
        let before = std::mem::replace(&mut self.half, half);
        if before == self.half {
            return;
        }
        self.apply_half(now);
        if self.half.resync.is_some() && before.resync != self.half.resync {
            self.resync(now);
        }
        if before.enabled != self.half.enabled || before.topics != self.half.topics {
            let open = self.open().map(|(connection, _)| connection.id);
            open.into_iter().for_each(|conn| self.send_half(conn));
        }
        self.end_invalid(&before, now);
        if presents_otherwise(&before, &self.half) || before.enabled != self.half.enabled {
            self.forget_trouble();
            if self.dialer.give_up() {
                self.outputs.push_back(Output::CancelDial);
            }
            self.dialer.handle_hope();
        }
        self.changed = true;
        self.drive(now);
    }

    /// The largest frame that this side takes changed; counts for connections to come.
    pub fn handle_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max.max(native::FRAME_BYTES_MIN);
    }

    /// Brings the parts in line with the half.
    pub(super) fn apply_half(&mut self, now: Instant) {
        let topics = filters(&self.half.topics);
        self.sender.handle_topics(topics.clone(), now);
        self.acceptor.handle_wanted(topics, filters(&self.half.acl.accept), self.half.enabled);
        self.forwarder.handle_limits(self.half.forwarding);
        let allowed = self.half.enabled.then(|| filters(&self.half.acl.send));
        let mut changes = Vec::new();
        self.receiver.handle_allowed(allowed, &mut changes);
        self.apply_routes(changes);
    }

    /// Tells the peer all routes anew, and asks it for all of its. What is in force stays so until they are there.
    fn resync(&mut self, now: Instant) {
        self.sender.handle_resync(now);
        self.receiver.handle_resync();
        if let Some(open) = self.connections.iter_mut().find_map(Connection::open_mut) {
            open.routes_ack_due = true;
        }
    }

    pub(super) fn send_half(&mut self, conn: ConnId) {
        let topics = self.half.topics.clone();
        let told =
            topics.iter().filter(|topic| topic.len() <= native::TOPIC_LEN_MAX).take(native::TOPICS_MAX);
        let frame =
            native::Half { enabled: self.half.enabled, topics: told.map(String::as_str).collect(), nodes: 1 };
        self.send(conn, &Frame::Half(frame));
    }

    fn end_invalid(&mut self, before: &Half, now: Instant) {
        let ended: Vec<ConnId> =
            self.connections.iter().filter(|c| is_invalid(c, before, &self.half)).map(|c| c.id).collect();
        let (reason, text) = match self.half.enabled {
            true => (Reason::Reconfigured, "the half was configured anew".to_owned()),
            false => {
                (Reason::LinkDisabled, format!("{} has disabled its half of the link", self.own.cluster))
            }
        };
        ended.into_iter().for_each(|conn| self.say_bye(conn, reason, &text, now));
    }
}

fn is_invalid(connection: &Connection, before: &Half, half: &Half) -> bool {
    let (otherwise, wrong_way) = match connection.dialled {
        true => (dials_otherwise(before, half), half.dial == Dial::In),
        false => (before.inbound != half.inbound, half.dial == Dial::Out),
    };
    !half.enabled || otherwise || wrong_way
}

/// Whether an open connection leads to another address, or to a peer that would not be believed any more. What this
/// side presents may change under it: whether the old still counts is the peer's to judge.
fn dials_otherwise(before: &Half, half: &Half) -> bool {
    let believes = |half: &Half| half.tls.as_ref().map(|tls| (tls.ca_pem.clone(), tls.server_name.clone()));
    before.server != half.server || believes(before) != believes(half)
}

/// Whether an attempt that failed may now succeed.
fn presents_otherwise(before: &Half, half: &Half) -> bool {
    before.server != half.server
        || before.tls != half.tls
        || before.credentials != half.credentials
        || before.inbound != half.inbound
        || before.dial != half.dial
}

/// The filters of a half. Settings are checked before they come here, so none is left out.
fn filters(texts: &[String]) -> Vec<Filter> {
    texts.iter().filter_map(|text| Filter::parse(text).ok()).collect()
}
