//! Retained messages by topic, found by filter.
//!
//! Invariants: `count` and `bytes` are the sums over the tree; what has expired is never given out, and goes when it is
//! met or when room is needed.

use std::rc::Rc;
use std::time::Instant;

use super::tree::{NodeId, ROOT, Tree};
use crate::mqtt::Message;

/// The retained messages of a shard.
pub(super) struct Retained {
    tree: Tree<Option<Rc<Message>>>,
    count: usize,
    bytes: usize,
}

/// There is no room for one more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Retained {
    pub(super) fn new() -> Retained {
        Retained { tree: Tree::new(), count: 0, bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Keeps a message instead of the one its topic had. An empty one only removes. [MQTT-3.3.1-5..7]
    pub(super) fn put(
        &mut self,
        message: Message,
        max: usize,
        bytes_max: usize,
        now: Instant,
    ) -> Result<(), Full> {
        self.remove(&message.topic);
        if message.payload.is_empty() {
            return Ok(());
        }
        let size = size(&message);
        let is_full = |all: &Retained| all.count >= max || all.bytes + size > bytes_max;
        if is_full(self) {
            self.sweep(now);
        }
        if is_full(self) {
            return Err(Full);
        }
        self.count += 1;
        self.bytes += size;
        let node = self.tree.insert_path(message.topic.split('/'));
        *self.tree.value_mut(node) = Some(Rc::new(message));
        Ok(())
    }

    /// All messages whose topic matches a filter.
    pub(super) fn matching(&self, filter: &str, now: Instant) -> Vec<Rc<Message>> {
        let mut found = Vec::new();
        let mut open = vec![(ROOT, Some(filter))];
        while let Some((node, rest)) = open.pop() {
            let Some(rest) = rest else {
                found.extend(self.tree.value(node).clone());
                continue;
            };
            let (label, rest) = match rest.split_once('/') {
                Some((label, rest)) => (label, Some(rest)),
                None => (rest, None),
            };
            match label {
                // `#` takes the level above it as well. [MQTT-4.7.1.2]
                "#" => self.collect(node, &mut found),
                "+" => open.extend(self.visible(node).map(|child| (child, rest))),
                label => open.extend(self.tree.child(node, label).map(|child| (child, rest))),
            }
        }
        found.retain(|message| !is_over(message, now));
        found
    }

    fn collect(&self, from: NodeId, found: &mut Vec<Rc<Message>>) {
        let mut open = vec![from];
        while let Some(node) = open.pop() {
            found.extend(self.tree.value(node).clone());
            open.extend(self.visible(node));
        }
    }

    /// The children that a wildcard sees: at the first level none that begins with `$`. [MQTT-4.7.2-1]
    fn visible(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let children = self.tree.children(node);
        children.filter(move |(_, label)| node != ROOT || !label.starts_with('$')).map(|(child, _)| child)
    }

    fn remove(&mut self, topic: &str) {
        let Some(node) = self.tree.find_path(topic.split('/')) else { return };
        let Some(message) = self.tree.value_mut(node).take() else { return };
        self.count -= 1;
        self.bytes -= size(&message);
        self.tree.prune(node, Option::is_none);
    }

    fn sweep(&mut self, now: Instant) {
        let mut all = Vec::new();
        let mut open = vec![ROOT];
        while let Some(node) = open.pop() {
            all.extend(self.tree.value(node).clone());
            open.extend(self.tree.children(node).map(|(child, _)| child));
        }
        all.iter().filter(|message| is_over(message, now)).for_each(|message| self.remove(&message.topic));
    }
}

fn is_over(message: &Message, now: Instant) -> bool {
    message.expires_at.is_some_and(|at| at <= now)
}

fn size(message: &Message) -> usize {
    message.topic.len() + message.payload.len() + message.properties.as_properties().as_bytes().len()
}
