//! A store that fails, and that comes back.
//!
//! What was under way when it failed may be on disk or not. So all that it touched is stale, with all that changes while
//! the store is gone, and is written as a whole when it is back: first gone, then there, in one batch. What is too much for one
//! batch goes in several, and sessions that ended go with the last: what they left to others is there by then.

use std::collections::HashSet;
use std::time::Instant;

use super::{NEVER, State};
use crate::broker::core::{Core, SessionId};
use crate::store::{Op, Token};

/// How many stale sessions, and how many topics, go into one batch at most: it takes no more bytes than the store does.
const MENDED_AT_ONCE: usize = 64;

impl Core {
    /// The store failed, and `lost` may be on disk or not. Until it is back, what must be stored is refused.
    pub fn handle_store_down(&mut self, lost: &[Op], now: Instant) {
        if !self.ledger.is_on() {
            return;
        }
        let was_flooded = self.ledger.is_flooded();
        self.write_touched();
        let open = std::mem::take(&mut self.ledger.ops);
        let is_news = std::mem::replace(&mut self.ledger.state, State::Down) != State::Down;
        self.note_lost(lost.iter().chain(&open));
        if is_news {
            self.ledger.bytes = 0;
            self.ledger.under_way.clear();
            self.ledger.under_way_bytes = 0;
            self.resume_after(was_flooded);
            self.ledger.held.iter_mut().for_each(|held| held.token = NEVER);
            self.uncompleted_wait_for(NEVER);
            self.mesh.wait_again(self.safe, NEVER);
            self.peers_wait_again(NEVER);
            self.refuse_unanswered(now);
            self.settle_mesh(now);
        }
    }

    /// The store is back. It is told what it missed; then all is as before.
    pub fn handle_store_up(&mut self) {
        if self.ledger.state == State::Down {
            self.ledger.state = State::Mending;
        }
    }

    /// True while what must be stored is refused.
    pub fn is_store_down(&self) -> bool {
        self.ledger.refuses()
    }

    fn note_lost<'a>(&mut self, lost: impl Iterator<Item = &'a Op>) {
        let mut keys = HashSet::new();
        for op in lost {
            match op {
                Op::Session { key, .. }
                | Op::Subscription { key, .. }
                | Op::Append { key, .. }
                | Op::Progress { key, .. }
                | Op::End { key } => {
                    keys.insert(*key);
                }
                Op::Retain { topic, .. } => {
                    self.ledger.stale.add_topic(topic);
                }
            }
        }
        if keys.is_empty() {
            return;
        }
        for (id, session) in &mut self.sessions {
            let is_lost = session.key().is_some_and(|key| keys.remove(&key));
            if is_lost && !session.is_stale {
                session.is_stale = true;
                self.ledger.stale.sessions.push((id as SessionId, session.serial));
            }
        }
        self.ledger.stale.ended.extend(keys); // nobody has them any more
    }

    /// Writes some of what is stale, as much as the store takes now.
    pub(super) fn mend(&mut self) {
        if self.ledger.state == State::Down {
            return;
        }
        self.mend_topics();
        if self.ledger.state != State::Mending {
            return;
        }
        for _ in 0..MENDED_AT_ONCE {
            if self.ledger.is_full() {
                return;
            }
            let Some((id, serial)) = self.ledger.stale.sessions.pop() else { break };
            self.mend_session(id, serial);
        }
        if self.ledger.stale.sessions.is_empty() && self.ledger.stale.topics.is_empty() {
            let ended = std::mem::take(&mut self.ledger.stale.ended);
            ended.into_iter().for_each(|key| self.ledger.push(Op::End { key }));
            self.ledger.state = State::Up;
            let token = self.ledger.token;
            self.ledger
                .held
                .iter_mut()
                .filter(|held| held.token == NEVER)
                .for_each(|held| held.token = token);
            self.uncompleted_wait_for(token);
            self.mesh.wait_again(self.safe, token);
            self.peers_wait_again(token);
            self.ledger.must_close = true;
        }
    }

    fn mend_topics(&mut self) {
        if self.ledger.stale.topics.is_empty() {
            return;
        }
        let now = self.ledger.moment.0;
        let some: Vec<_> = self.ledger.stale.topics.iter().take(MENDED_AT_ONCE).cloned().collect();
        for topic in some {
            if self.ledger.is_full() {
                return;
            }
            self.ledger.stale.remove_topic(&topic);
            self.write_retained(&topic, now);
        }
    }

    fn mend_session(&mut self, id: SessionId, serial: u32) {
        let session = self.sessions.get_mut(id as usize);
        let Some(session) = session.filter(|session| session.serial == serial) else { return };
        session.is_stale = false;
        if let Some(key) = session.key() {
            self.ledger.push(Op::End { key });
            self.note_whole(id);
        }
    }

    /// Gives each PUBREL and PUBCOMP that waits for the store another token.
    fn uncompleted_wait_for(&mut self, token: Token) {
        self.uncompleted.clear();
        for (id, connection) in self.wires.iter_mut() {
            let Some(queue) = connection.uncompleted.as_mut() else { continue };
            queue.iter_mut().for_each(|one| one.token = token);
            if token != NEVER && !queue.is_empty() {
                self.uncompleted.push_back((token, id));
            }
        }
    }
}
