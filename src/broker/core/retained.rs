//! Retained messages by topic, found by filter.
//!
//! A [`Walk`] gives matches one by one, so that who can take no more stops the search.
//!
//! Invariants: `count` and `bytes` are the sums over the tree; what has expired is never given out, and goes when it is
//! met or when room is needed.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::tree::{NodeId, ROOT, Tree};
use crate::mqtt::Message;

/// The retained messages of a shard.
pub(super) struct Retained {
    tree: Tree<Option<Rc<Message>>>,
    count: usize,
    bytes: usize,
    /// When it was last searched for what has expired.
    swept_at: Option<Instant>,
}

/// How long a search for expired messages is good for: it looks at all, and a full store must not search at each message.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// What a level of a topic costs besides its text: a node, its edge, and a share of the message.
const LEVEL_BYTES: usize = 128;

/// There is no room for one more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Retained {
    pub(super) fn new() -> Retained {
        Retained { tree: Tree::new(), count: 0, bytes: 0, swept_at: None }
    }

    /// The message of a topic.
    pub(super) fn get(&self, topic: &str, now: Instant) -> Option<Rc<Message>> {
        let node = self.tree.find_path(topic.split('/'))?;
        self.tree.value(node).clone().filter(|message| !is_over(message, now))
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Keeps a message instead of the one its topic had. An empty one only removes.
    /// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7]
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
        if is_full(self) && self.swept_at.is_none_or(|at| now >= at + SWEEP_EVERY) {
            self.swept_at = Some(now);
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

/// A search for the messages whose topic matches a filter. Its memory grows with the filter's levels only.
pub(super) struct Walk<'f> {
    open: Vec<(NodeId, Wanted<'f>)>,
}

/// What is looked for at a node, with the rest of the filter below it; no rest: the node itself.
enum Wanted<'f> {
    Here(Option<&'f str>),
    /// `+`: here, and at the parent's further children.
    Siblings(Option<&'f str>),
    /// `#`: everything here and below, and at the parent's further children.
    All,
}

impl<'f> Walk<'f> {
    pub(super) fn new(filter: &'f str) -> Walk<'f> {
        Walk { open: vec![(ROOT, Wanted::Here(Some(filter)))] }
    }

    /// The next match. Between two calls nothing may be retained or removed.
    pub(super) fn next(&mut self, retained: &Retained, now: Instant) -> Option<Rc<Message>> {
        let tree = &retained.tree;
        while let Some((node, wanted)) = self.open.pop() {
            let is_match = match wanted {
                Wanted::Here(None) => true,
                Wanted::Here(Some(rest)) => self.descend(tree, node, rest),
                Wanted::Siblings(rest) => {
                    self.open.extend(tree.next(node).map(|next| (next, Wanted::Siblings(rest))));
                    self.open.extend(is_visible(tree, node).then_some((node, Wanted::Here(rest))));
                    false
                }
                Wanted::All => {
                    self.open.extend(tree.next(node).map(|next| (next, Wanted::All)));
                    let is_visible = is_visible(tree, node);
                    let below = tree.first_child(node).filter(|_| is_visible);
                    self.open.extend(below.map(|child| (child, Wanted::All)));
                    is_visible
                }
            };
            let message = tree.value(node).as_ref().filter(|message| is_match && !is_over(message, now));
            if let Some(message) = message {
                return Some(Rc::clone(message));
            }
        }
        None
    }

    /// Goes one level down. True if the node itself matches: `#` takes the level above it as well (4.7.1.2).
    fn descend(&mut self, tree: &Tree<Option<Rc<Message>>>, node: NodeId, rest: &'f str) -> bool {
        let (label, rest) = match rest.split_once('/') {
            Some((label, rest)) => (label, Some(rest)),
            None => (rest, None),
        };
        let (child, wanted) = match label {
            "#" => (tree.first_child(node), Wanted::All),
            "+" => (tree.first_child(node), Wanted::Siblings(rest)),
            label => (tree.child(node, label), Wanted::Here(rest)),
        };
        self.open.extend(child.map(|child| (child, wanted)));
        label == "#"
    }
}

/// Whether a wildcard sees a node: at the first level none that begins with `$`. [MQTT-4.7.2-1]
fn is_visible(tree: &Tree<Option<Rc<Message>>>, node: NodeId) -> bool {
    tree.parent(node) != Some(ROOT) || !tree.label(node).starts_with('$')
}

fn is_over(message: &Message, now: Instant) -> bool {
    message.expires_at.is_some_and(|at| at <= now)
}

/// A topic of 64 KiB may have as many levels: they count.
fn size(message: &Message) -> usize {
    let levels = message.topic.split('/').count();
    levels * LEVEL_BYTES
        + message.topic.len()
        + message.payload.len()
        + message.properties.as_properties().as_bytes().len()
}
