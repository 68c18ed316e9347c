//! Retained messages by topic, found by filter.
//!
//! A [`Walk`] gives matches one by one, so that who can take no more stops the search; and it stops by itself after so many
//! topic levels, to be taken up again. While one rests, [`Retained::hold`] keeps the levels that it stands on.
//!
//! Invariants: `count` is the sum over the tree but for the broker's own, and the node's room has it too; what has expired is never given out, and goes when it is
//! met or when room is needed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::room::Room;
use super::tree::{NodeId, ROOT, Tree};
use crate::mqtt::{Filter, Message};

/// The retained messages of a shard.
pub(super) struct Retained {
    tree: Tree<Option<Rc<Message>>>,
    count: usize,
    /// What all shards of the node retain.
    room: Arc<Room>,
    /// When it was last searched for what has expired.
    swept_at: Option<Instant>,
    /// A walk rests: nodes stay.
    is_held: bool,
    /// Nodes that may go when none does.
    vacant: Vec<NodeId>,
}

/// How many nodes may wait for a resting walk before no further one may rest.
const VACANT_MAX: usize = 100_000;
/// How long a search for expired messages is good for: it looks at all, and a full store must not search at each message.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// What a level of a topic costs besides its text: a node, its edge, and a share of the message.
const LEVEL_BYTES: usize = 128;

/// What came of keeping a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Put {
    /// There is no room for one more.
    pub(super) is_full: bool,
    /// The topic has another message than before, or none any more.
    pub(super) has_changed: bool,
}

impl Retained {
    pub(super) fn new(room: Arc<Room>) -> Retained {
        Retained { tree: Tree::new(), count: 0, room, swept_at: None, is_held: false, vacant: Vec::new() }
    }

    /// True if the topic has a message.
    pub(super) fn has(&self, topic: &str) -> bool {
        self.tree.find_path(topic.split('/')).is_some_and(|node| self.tree.value(node).is_some())
    }

    /// The message of a topic.
    pub(super) fn get(&self, topic: &str, now: Instant) -> Option<Rc<Message>> {
        let node = self.tree.find_path(topic.split('/'))?;
        self.tree.value(node).clone().filter(|message| !is_over(message, now))
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// One more than the last place that a message can have.
    pub(super) fn places(&self) -> usize {
        self.tree.places()
    }

    /// The message at a place. It stays there as long as its topic has one.
    pub(super) fn at(&self, place: usize, now: Instant) -> Option<&Rc<Message>> {
        self.tree.value_at(place)?.as_ref().filter(|message| !is_over(message, now))
    }

    /// Keeps a message instead of the one its topic had. An empty one only removes.
    /// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7]
    pub(super) fn put(&mut self, message: Message, max: usize, bytes_max: usize, now: Instant) -> Put {
        let was_there = self.remove(&message.topic);
        if message.payload.is_empty() {
            return Put { is_full: false, has_changed: was_there };
        }
        let size = size(&message);
        let is_full = |all: &Retained| {
            all.room.retained.get() >= max || all.room.retained_bytes.get() + size > bytes_max
        };
        if is_full(self) && self.swept_at.is_none_or(|at| now >= at + SWEEP_EVERY) {
            self.swept_at = Some(now);
            self.sweep(now);
        }
        if is_full(self) {
            return Put { is_full: true, has_changed: was_there };
        }
        if !is_own(&message.topic) {
            self.count += 1;
            self.room.retained.add(1);
            self.room.retained_bytes.add(size);
        }
        let node = self.tree.insert_path(message.topic.split('/'));
        *self.tree.value_mut(node) = Some(Rc::new(message));
        Put { is_full: false, has_changed: true }
    }

    /// False if there was nothing.
    fn remove(&mut self, topic: &str) -> bool {
        let Some(node) = self.tree.find_path(topic.split('/')) else { return false };
        let Some(message) = self.tree.value_mut(node).take() else { return false };
        if !is_own(topic) {
            self.count -= 1;
            self.room.retained.remove(1);
            self.room.retained_bytes.remove(size(&message));
        }
        if self.is_held {
            self.vacant.push(node);
        } else {
            self.tree.prune(node, Option::is_none);
        }
        true
    }

    /// Keeps all nodes where they are, for a walk that rests. False if too many were kept already.
    pub(super) fn hold(&mut self) -> bool {
        let may = self.vacant.len() < VACANT_MAX;
        self.is_held |= may;
        may
    }

    /// No walk rests any more.
    pub(super) fn let_go(&mut self) {
        self.is_held = false;
        for node in std::mem::take(&mut self.vacant) {
            if self.tree.has(node) {
                self.tree.prune(node, Option::is_none);
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        let mut all = Vec::new();
        let mut open = vec![ROOT];
        while let Some(node) = open.pop() {
            all.extend(self.tree.value(node).clone());
            open.extend(self.tree.children(node).map(|(child, _)| child));
        }
        for message in all.iter().filter(|message| is_over(message, now)) {
            self.remove(&message.topic);
        }
    }
}

/// A search for the messages whose topic matches a filter. Its memory grows with the filter's levels only.
pub(super) struct Walk {
    filter: Filter,
    open: Vec<(NodeId, Wanted)>,
}

/// Where the rest of a filter begins.
type Rest = u32;

/// What is looked for at a node, with the rest of the filter below it; no rest: the node itself.
#[derive(Clone, Copy)]
enum Wanted {
    Here(Option<Rest>),
    /// `+`: here, and at the parent's further children.
    Siblings(Option<Rest>),
    /// `#`: everything here and below, and at the parent's further children.
    All,
}

/// What a step of a walk brings.
pub(super) enum Step {
    Found(Rc<Message>),
    /// So many nodes were looked at as it might; there may be more.
    Paused,
    Over,
}

impl Walk {
    pub(super) fn new(filter: Filter) -> Walk {
        Walk { filter, open: vec![(ROOT, Wanted::Here(Some(0)))] }
    }

    /// The next match, within `nodes` nodes, which are counted down. From one step to the next of the same event nothing may
    /// be retained or removed; to one of another event, only while it is [held](Retained::hold).
    pub(super) fn next(&mut self, retained: &Retained, nodes: &mut usize, now: Instant) -> Step {
        let tree = &retained.tree;
        while let Some((node, wanted)) = self.open.pop() {
            if *nodes == 0 {
                self.open.push((node, wanted));
                return Step::Paused;
            }
            *nodes -= 1;
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
                return Step::Found(Rc::clone(message));
            }
        }
        Step::Over
    }

    /// Goes one level down. True if the node itself matches: `#` takes the level above it as well (4.7.1.2).
    fn descend(&mut self, tree: &Tree<Option<Rc<Message>>>, node: NodeId, rest: Rest) -> bool {
        let text = &self.filter.as_str()[rest as usize..];
        let (label, rest) = match text.split_once('/') {
            Some((label, _)) => (label, Some(rest + label.len() as Rest + 1)),
            None => (text, None),
        };
        let (child, wanted) = match label {
            "#" => (tree.first_child(node), Wanted::All),
            "+" => (tree.first_child(node), Wanted::Siblings(rest)),
            label => (tree.child(node, label), Wanted::Here(rest)),
        };
        let is_tail = label == "#";
        self.open.extend(child.map(|child| (child, wanted)));
        is_tail
    }
}

/// Whether a wildcard sees a node: at the first level none that begins with `$`. [MQTT-4.7.2-1]
fn is_visible(tree: &Tree<Option<Rc<Message>>>, node: NodeId) -> bool {
    tree.parent(node) != Some(ROOT) || !tree.label(node).starts_with('$')
}

/// A topic of the broker's own: what is there takes nobody's room, and ends with this life.
pub(super) fn is_own(topic: &str) -> bool {
    topic.starts_with("$SYS/")
}

fn is_over(message: &Message, now: Instant) -> bool {
    message.expires_at.is_some_and(|at| at <= now)
}

/// A topic of 64 KiB may have as many levels: they count.
pub(super) fn size(message: &Message) -> usize {
    let levels = message.topic.split('/').count();
    levels * LEVEL_BYTES
        + message.topic.len()
        + message.payload.len()
        + message.properties.as_properties().as_bytes().len()
}
