//! A set of filters that answers who covers whom.
//!
//! A tree by level in an arena, walked without recursion: a filter of 65,535 bytes can have as many levels.
//! Covering is structural, level by level, so two filters never cover each other and a minimal union is unique.
//! It knows nothing of links. Filters that begin with `$` do not belong here: a leading wildcard does not cover
//! them.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::mqtt::Filter;

const ROOT: usize = 0;

/// The set.
#[derive(Debug)]
pub struct FilterTree {
    nodes: Vec<Node>,
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Node {
    parent: usize,
    level: Arc<str>,
    here: Option<Filter>,
    children: HashMap<Arc<str>, usize>,
}

impl Default for FilterTree {
    fn default() -> Self {
        FilterTree { nodes: vec![Node::default()], free: Vec::new() }
    }
}

impl FilterTree {
    /// Takes a filter in.
    pub fn insert(&mut self, filter: &Filter) {
        let mut at = ROOT;
        for level in filter.as_str().split('/') {
            at = match self.nodes[at].children.get(level) {
                Some(&child) => child,
                None => self.grow(at, level),
            };
        }
        self.nodes[at].here = Some(filter.clone());
    }

    /// Takes a filter out, with the branches that nothing else needs.
    pub fn remove(&mut self, filter: &Filter) {
        let mut at = ROOT;
        for level in filter.as_str().split('/') {
            match self.nodes[at].children.get(level) {
                Some(&child) => at = child,
                None => return,
            }
        }
        self.nodes[at].here = None;
        while at != ROOT && self.nodes[at].here.is_none() && self.nodes[at].children.is_empty() {
            let Node { parent, level, .. } = std::mem::take(&mut self.nodes[at]);
            self.nodes[parent].children.remove(&level);
            self.free.push(at);
            at = parent;
        }
    }

    /// Whether another filter of the set covers this one.
    pub fn is_covered(&self, filter: &Filter) -> bool {
        let levels: Vec<&str> = filter.as_str().split('/').collect();
        let mut open = vec![(ROOT, 0)];
        while let Some((at, depth)) = open.pop() {
            let node = &self.nodes[at];
            let level = levels.get(depth).copied();
            if self.is_other(node.children.get("#"), filter) {
                return true;
            }
            let Some(level) = level else {
                if node.here.as_ref().is_some_and(|here| here != filter) {
                    return true;
                }
                continue;
            };
            if level == "#" {
                continue;
            }
            open.extend(node.children.get("+").map(|&child| (child, depth + 1)));
            if level != "+" {
                open.extend(node.children.get(level).map(|&child| (child, depth + 1)));
            }
        }
        false
    }

    /// The other filters of the set that this one covers.
    pub fn covered_by(&self, filter: &Filter) -> Vec<Filter> {
        let levels: Vec<&str> = filter.as_str().split('/').collect();
        let mut found = Vec::new();
        let mut open = vec![(ROOT, 0)];
        while let Some((at, depth)) = open.pop() {
            let node = &self.nodes[at];
            match levels.get(depth).copied() {
                Some("#") => self.collect(at, filter, &mut found),
                Some("+") => {
                    let matching = node.children.iter().filter(|(level, _)| level.as_ref() != "#");
                    open.extend(matching.map(|(_, &child)| (child, depth + 1)));
                }
                Some(level) => open.extend(node.children.get(level).map(|&child| (child, depth + 1))),
                None => found.extend(node.here.iter().filter(|here| *here != filter).cloned()),
            }
        }
        found
    }

    fn is_other(&self, child: Option<&usize>, filter: &Filter) -> bool {
        child.is_some_and(|&child| self.nodes[child].here.as_ref().is_some_and(|here| here != filter))
    }

    fn collect(&self, from: usize, but: &Filter, found: &mut Vec<Filter>) {
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            let node = &self.nodes[at];
            found.extend(node.here.iter().filter(|here| *here != but).cloned());
            open.extend(node.children.values());
        }
    }

    fn grow(&mut self, parent: usize, level: &str) -> usize {
        let level: Arc<str> = level.into();
        let node = Node { parent, level: level.clone(), ..Node::default() };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.nodes[parent].children.insert(level, at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).expect("a valid filter")
    }

    fn tree(filters: &[&str]) -> FilterTree {
        let mut tree = FilterTree::default();
        filters.iter().for_each(|text| tree.insert(&filter(text)));
        tree
    }

    #[track_caller]
    fn check(set: &[&str], asked: &str, covered: bool, covers: &[&str]) {
        let tree = tree(set);
        assert_eq!(tree.is_covered(&filter(asked)), covered, "{set:?} covers {asked}");
        let mut found = tree.covered_by(&filter(asked));
        found.sort();
        let found: Vec<_> = found.iter().map(Filter::as_str).collect();
        assert_eq!(found, covers, "covered by {asked}");
    }

    #[test]
    fn covering_goes_level_by_level() {
        check(&["t/+", "t/1", "t/#", "u"], "t/1", true, &[]);
        check(&["t/+", "t/1", "t/#", "u"], "t/+", true, &["t/1"]);
        check(&["t", "t/+", "t/1", "t/#", "u"], "t/#", false, &["t", "t/+", "t/1"]);
        check(&["t/+", "#"], "#", false, &["t/+"]);
        check(&["+/+", "a/b", "a/b/c", "+/b", "#"], "+/+", true, &["+/b", "a/b"]);
        check(&["a/#"], "a", true, &[]);
        check(&["a/+"], "a", false, &[]);
        check(&["+"], "/", false, &[]);
        check(&["+/+"], "/", true, &[]);
    }

    #[test]
    fn removal_leaves_nothing_behind() {
        let mut tree = tree(&["a/b/c", "a/b", "a/+"]);
        ["a/b/c", "a/b", "a/+", "not/there"].iter().for_each(|text| tree.remove(&filter(text)));
        assert!(tree.covered_by(&filter("#")).is_empty());
        assert_eq!(tree.free.len() + 1, tree.nodes.len());
        tree.insert(&filter("x"));
        assert!(!tree.is_covered(&filter("y")));
        assert_eq!(tree.covered_by(&filter("+")).len(), 1);
    }

    #[test]
    fn a_filter_of_very_many_levels_is_no_danger() {
        let deep = filter(&"/".repeat(65_535));
        let mut tree = tree(&["#"]);
        tree.insert(&deep);
        assert!(tree.is_covered(&deep));
        assert_eq!(tree.covered_by(&filter("#")).len(), 1);
        tree.remove(&deep);
        assert_eq!(tree.free.len(), 65_536);
    }
}
