//! What this node wants of a peer: its own subscriptions, cut to the half's topics, as a minimal union.
//!
//! One subscription can meet several topics, and several subscriptions can meet in one filter; each resulting
//! filter is counted by how many pairs make it. Only filters that no other one covers are wanted. A shared
//! subscription counts as its filter: the peer sends one copy, and the core picks the group's member.
//! Subscriptions that begin with `$` want nothing from elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::mqtt::Filter;

use super::filter_tree::FilterTree;

/// A filter that has come to be wanted, or has ceased to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which filter.
    pub filter: Filter,
    /// Whether it is wanted now.
    pub wanted: bool,
}

/// The local subscriptions and what follows from them.
#[derive(Debug, Default)]
pub struct Wanted {
    topics: Vec<Filter>,
    subscriptions: HashSet<(Filter, Option<Arc<str>>)>,
    counts: HashMap<Filter, u32>,
    tree: FilterTree,
    minimal: BTreeSet<Filter>,
}

impl Wanted {
    /// The minimal union, in ascending order.
    pub fn filters(&self) -> &BTreeSet<Filter> {
        &self.minimal
    }

    /// A subscription came or went; tells what follows. Saying it twice changes nothing.
    pub fn handle_subscription(
        &mut self,
        filter: Filter,
        group: Option<Arc<str>>,
        present: bool,
        changes: &mut Vec<Change>,
    ) {
        if filter.as_str().starts_with('$') {
            return;
        }
        let topics = std::mem::take(&mut self.topics);
        if present {
            if self.subscriptions.insert((filter.clone(), group)) {
                topics.iter().filter_map(|t| filter.intersect(t)).for_each(|f| self.count_up(f, changes));
            }
        } else if self.subscriptions.remove(&(filter.clone(), group)) {
            topics.iter().filter_map(|t| filter.intersect(t)).for_each(|f| self.count_down(&f, changes));
        }
        self.topics = topics;
    }

    /// The half's topics changed; what comes is told before what goes.
    pub fn handle_topics(&mut self, topics: Vec<Filter>, changes: &mut Vec<Change>) {
        if self.topics == topics {
            return;
        }
        let mut next = Wanted { topics, ..Wanted::default() };
        let mut silent = Vec::new();
        for (filter, group) in std::mem::take(&mut self.subscriptions) {
            next.handle_subscription(filter, group, true, &mut silent);
            silent.clear();
        }
        let gone =
            self.minimal.difference(&next.minimal).map(|f| Change { filter: f.clone(), wanted: false });
        let come = next.minimal.difference(&self.minimal).map(|f| Change { filter: f.clone(), wanted: true });
        changes.extend(come);
        changes.extend(gone);
        *self = next;
    }

    fn count_up(&mut self, filter: Filter, changes: &mut Vec<Change>) {
        let count = self.counts.entry(filter.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            return;
        }
        self.tree.insert(&filter);
        if self.tree.is_covered(&filter) {
            return;
        }
        self.minimal.insert(filter.clone());
        changes.push(Change { filter: filter.clone(), wanted: true });
        for covered in self.tree.covered_by(&filter) {
            if self.minimal.remove(&covered) {
                changes.push(Change { filter: covered, wanted: false });
            }
        }
    }

    fn count_down(&mut self, filter: &Filter, changes: &mut Vec<Change>) {
        let Some(count) = self.counts.get_mut(filter) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.counts.remove(filter);
        self.tree.remove(filter);
        if !self.minimal.remove(filter) {
            return;
        }
        for covered in self.tree.covered_by(filter) {
            if !self.tree.is_covered(&covered) && self.minimal.insert(covered.clone()) {
                changes.push(Change { filter: covered, wanted: true });
            }
        }
        changes.push(Change { filter: filter.clone(), wanted: false });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).expect("a valid filter")
    }

    fn wanted(topics: &[&str], subscriptions: &[&str]) -> Wanted {
        let mut wanted = Wanted::default();
        wanted.handle_topics(topics.iter().map(|t| filter(t)).collect(), &mut Vec::new());
        for subscription in subscriptions {
            wanted.handle_subscription(filter(subscription), None, true, &mut Vec::new());
        }
        wanted
    }

    #[track_caller]
    fn check(topics: &[&str], subscriptions: &[&str], expected: &[&str]) {
        let wanted = wanted(topics, subscriptions);
        let found: Vec<_> = wanted.filters().iter().map(Filter::as_str).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn wants_the_minimal_union_of_intersections() {
        check(&["#"], &["a", "b/+", "b/1"], &["a", "b/+"]);
        check(&["t/1", "t/#"], &["t/+"], &["t/+"]);
        check(&["t/1", "u/#"], &["t/+", "u/2"], &["t/1", "u/2"]);
        check(&[], &["#"], &[]);
        check(&["#"], &["$SYS/#", "$LINK/x"], &[]);
        check(&["fleet/#"], &["other/1"], &[]);
    }

    #[test]
    fn a_covering_subscription_hides_others_until_it_goes() {
        let mut wanted = wanted(&["#"], &["t/1", "t/2"]);
        let mut changes = Vec::new();
        wanted.handle_subscription(filter("t/#"), None, true, &mut changes);
        assert_eq!(changes.remove(0), Change { filter: filter("t/#"), wanted: true }, "first what comes");
        assert_eq!(changes.len(), 2);
        changes.clear();
        wanted.handle_subscription(filter("t/#"), None, false, &mut changes);
        assert_eq!(changes.pop(), Some(Change { filter: filter("t/#"), wanted: false }), "last what goes");
        assert_eq!(wanted.filters().len(), 2);
    }

    #[test]
    fn a_group_and_a_plain_subscription_share_a_filter() {
        let mut wanted = wanted(&["#"], &["jobs/#"]);
        let mut changes = Vec::new();
        wanted.handle_subscription(filter("jobs/#"), Some("g".into()), true, &mut changes);
        wanted.handle_subscription(filter("jobs/#"), None, false, &mut changes);
        assert!(changes.is_empty());
        wanted.handle_subscription(filter("jobs/#"), Some("g".into()), false, &mut changes);
        assert_eq!(changes, [Change { filter: filter("jobs/#"), wanted: false }]);
    }

    fn any_filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("+")];
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, many)| {
            if many {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    fn any_topic() -> impl Strategy<Value = String> {
        prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..5).prop_map(|l| l.join("/"))
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_the_union_says_the_same_as_the_subscriptions(
            topics in prop::collection::vec(any_filter(), 0..4),
            script in prop::collection::vec((any_filter(), any::<bool>()), 0..40),
            names in prop::collection::vec(any_topic(), 1..30),
        ) {
            let topic_refs: Vec<&str> = topics.iter().map(String::as_str).collect();
            let mut wanted = wanted(&topic_refs, &[]);
            let mut followed = BTreeSet::new();
            let mut present = BTreeSet::new();
            for (text, come) in &script {
                let mut changes = Vec::new();
                wanted.handle_subscription(filter(text), None, *come, &mut changes);
                if *come { present.insert(text.clone()); } else { present.remove(text); }
                for change in changes {
                    let fresh = if change.wanted {
                        followed.insert(change.filter)
                    } else {
                        followed.remove(&change.filter)
                    };
                    prop_assert!(fresh, "no change is told twice");
                }
            }
            prop_assert_eq!(&followed, wanted.filters());
            for name in &names {
                let expected = topics.iter().any(|t| filter(t).matches(name))
                    && present.iter().any(|s| filter(s).matches(name));
                let found = followed.iter().any(|f| f.matches(name));
                prop_assert_eq!(found, expected, "{}", name);
            }
            for one in &followed {
                prop_assert!(!wanted.tree.is_covered(one));
            }
        }
    }
}
