//! An arena of topic levels: one node a level, all nodes in blocks, all edges in one hash table.
//!
//! It serves two masters: wildcard filters (walked with a topic) and retained topics (walked with a filter). The edge
//! for the label `+` lies in the node itself, because a topic is tried against it at each level.
//!
//! Invariants: node 0 is the root and is never removed; every other node is in its parent's list of children, and in
//! the edge table unless its label is `+`.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::blocks::Blocks;
use super::table::Table;

/// A node's place in the arena.
pub(super) type NodeId = u32;

/// The node above all first levels.
pub(super) const ROOT: NodeId = 0;

const NONE: u32 = u32::MAX;

struct Node<V> {
    label: Box<str>,
    parent: NodeId,
    /// The child for `+`, or `NONE`.
    plus: u32,
    /// The list of children: the first of them, and this node's own neighbours in its parent's list.
    first_child: u32,
    next: u32,
    previous: u32,
    value: V,
}

/// Topic levels as a tree; `V` hangs at each node.
pub(super) struct Tree<V> {
    nodes: Blocks<Node<V>>,
    edges: Table,
    hasher: RandomState,
}

impl<V: Default> Tree<V> {
    pub(super) fn new() -> Tree<V> {
        let mut nodes = Blocks::default();
        nodes.insert(Node {
            label: "".into(),
            parent: NONE,
            plus: NONE,
            first_child: NONE,
            next: NONE,
            previous: NONE,
            value: V::default(),
        });
        Tree { nodes, edges: Table::default(), hasher: RandomState::default() }
    }

    pub(super) fn value(&self, node: NodeId) -> &V {
        &self.nodes[node].value
    }

    /// One more than the last place that a node can have.
    pub(super) fn places(&self) -> usize {
        self.nodes.places()
    }

    /// The value at a place, if a node is there.
    pub(super) fn value_at(&self, place: usize) -> Option<&V> {
        self.nodes.get(place).map(|node| &node.value)
    }

    pub(super) fn value_mut(&mut self, node: NodeId) -> &mut V {
        &mut self.nodes[node].value
    }

    /// True if there is such a node.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.nodes.get(node as usize).is_some()
    }

    /// The child for `+`.
    pub(super) fn plus(&self, node: NodeId) -> Option<NodeId> {
        some(self.nodes[node].plus)
    }

    /// The child with this label.
    pub(super) fn child(&self, parent: NodeId, label: &str) -> Option<NodeId> {
        if label == "+" {
            return self.plus(parent);
        }
        let hash = self.hasher.hash_one((parent, label));
        self.edges.find(hash, |&id| self.is_edge(id, parent, label))
    }

    /// The node above; the root has none.
    pub(super) fn parent(&self, node: NodeId) -> Option<NodeId> {
        some(self.nodes[node].parent)
    }

    /// The label of a node.
    pub(super) fn label(&self, node: NodeId) -> &str {
        &self.nodes[node].label
    }

    /// The first of the children.
    pub(super) fn first_child(&self, node: NodeId) -> Option<NodeId> {
        some(self.nodes[node].first_child)
    }

    /// The next of the parent's children.
    pub(super) fn next(&self, node: NodeId) -> Option<NodeId> {
        some(self.nodes[node].next)
    }

    /// All children.
    pub(super) fn children(&self, node: NodeId) -> impl Iterator<Item = (NodeId, &str)> {
        let mut at = self.nodes[node].first_child;
        std::iter::from_fn(move || {
            let id = some(at)?;
            let child = &self.nodes[id];
            at = child.next;
            Some((id, &*child.label))
        })
    }

    /// The node at the end of these labels, made if it is not there.
    pub(super) fn insert_path<'a>(&mut self, labels: impl Iterator<Item = &'a str>) -> NodeId {
        labels.fold(ROOT, |node, label| match self.child(node, label) {
            Some(child) => child,
            None => self.add(node, label),
        })
    }

    /// The node at the end of these labels.
    pub(super) fn find_path<'a>(&self, mut labels: impl Iterator<Item = &'a str>) -> Option<NodeId> {
        labels.try_fold(ROOT, |node, label| self.child(node, label))
    }

    /// Removes a node and its ancestors as long as they have neither children nor a value worth keeping.
    pub(super) fn prune(&mut self, node: NodeId, is_vacant: impl Fn(&V) -> bool) {
        let mut at = node;
        while at != ROOT {
            let here = &self.nodes[at];
            if here.first_child != NONE || !is_vacant(&here.value) {
                return;
            }
            let parent = here.parent;
            self.remove(at);
            at = parent;
        }
    }

    fn is_edge(&self, id: NodeId, parent: NodeId, label: &str) -> bool {
        let node = &self.nodes[id];
        node.parent == parent && *node.label == *label
    }

    fn add(&mut self, parent: NodeId, label: &str) -> NodeId {
        let next = self.nodes[parent].first_child;
        let id = self.nodes.insert(Node {
            label: label.into(),
            parent,
            plus: NONE,
            first_child: NONE,
            next,
            previous: NONE,
            value: V::default(),
        });
        self.nodes[parent].first_child = id;
        if next != NONE {
            self.nodes[next].previous = id;
        }
        if label == "+" {
            self.nodes[parent].plus = id;
        } else {
            let (nodes, hasher) = (&self.nodes, &self.hasher);
            let rehash = |&id: &NodeId| {
                let node = &nodes[id];
                hasher.hash_one((node.parent, &*node.label))
            };
            self.edges.insert(hasher.hash_one((parent, label)), id, rehash);
        }
        id
    }

    fn remove(&mut self, id: NodeId) {
        let node = self.nodes.remove(id);
        match some(node.previous) {
            Some(previous) => self.nodes[previous].next = node.next,
            None => self.nodes[node.parent].first_child = node.next,
        }
        if let Some(next) = some(node.next) {
            self.nodes[next].previous = node.previous;
        }
        if *node.label == *"+" {
            self.nodes[node.parent].plus = NONE;
            return;
        }
        let hash = self.hasher.hash_one((node.parent, &*node.label));
        self.edges.remove(hash, |&edge| edge == id);
    }
}

fn some(id: u32) -> Option<u32> {
    (id != NONE).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruning_takes_empty_branches_and_nothing_else() {
        let mut tree = Tree::<u32>::new();
        let deep = tree.insert_path("a/b/c".split('/'));
        let side = tree.insert_path("a/+/d".split('/'));
        *tree.value_mut(deep) = 1;
        *tree.value_mut(side) = 2;
        assert_eq!(tree.children(tree.find_path("a".split('/')).expect("a")).count(), 2);

        *tree.value_mut(side) = 0;
        tree.prune(side, |value| *value == 0);
        assert_eq!(tree.find_path("a/+".split('/')), None);
        assert_eq!(tree.find_path("a/b/c".split('/')), Some(deep));

        *tree.value_mut(deep) = 0;
        tree.prune(deep, |value| *value == 0);
        assert_eq!(tree.nodes.iter().count(), 1);
    }
}
