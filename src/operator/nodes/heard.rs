//! What is known of the nodes, and for how long it counts.
//!
//! Pure but for what it remembers: times are arguments, and who waits asks for the next turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gist::Gist;
use super::{NodeId, Pod, Sight};
use crate::plan::{NodeView, Pushed, REPORT_AGE_MAX};

/// Links beyond twice as many as a node should have, and these, are not heard of: a node has those of before and of now.
const LINKS_SPARE: usize = 64;

/// What is known of the nodes.
#[derive(Debug)]
pub(in crate::operator) struct Heard {
    nodes: BTreeMap<NodeId, Seen>,
    age_max: Duration,
}

#[derive(Debug, Default)]
struct Seen {
    gist: Option<Gist>,
    /// When it was last heard.
    heard: Option<Instant>,
    /// Why it cannot be asked.
    unreachable: Option<String>,
    pushed: Option<Pushed>,
    links_max: usize,
}

impl Default for Heard {
    fn default() -> Heard {
        Heard::with_age_max(REPORT_AGE_MAX)
    }
}

impl Heard {
    /// Nothing is known; what will be counts for so long.
    pub(in crate::operator) fn with_age_max(age_max: Duration) -> Heard {
        Heard { nodes: BTreeMap::new(), age_max }
    }

    /// Listens to these nodes, each with so many links, and forgets all others.
    pub(in crate::operator) fn expect(&mut self, nodes: &BTreeMap<NodeId, usize>) {
        self.nodes.retain(|id, _| nodes.contains_key(id));
        for (id, links) in nodes {
            self.nodes.entry(id.clone()).or_default().links_max = links * 2 + LINKS_SPARE;
        }
    }

    /// Takes in what a task saw; tells whether a plan could depend on it.
    pub(in crate::operator) fn hear(&mut self, id: &NodeId, sight: Sight, now: Instant) -> bool {
        let age_max = self.age_max;
        let Some(seen) = self.nodes.get_mut(id) else { return false };
        match sight {
            Sight::Line(line) => {
                let is_news = !seen.is_fresh(age_max, now);
                seen.heard = Some(now);
                seen.unreachable = None;
                let changes = seen.gist.get_or_insert_default().take(line, seen.links_max, now);
                changes || is_news
            }
            Sight::Unreachable(why) => {
                let is_news = seen.unreachable.as_ref() != Some(&why);
                seen.unreachable = Some(why);
                // As long as what it said last counts, nothing depends on it.
                is_news && !seen.is_fresh(age_max, now)
            }
            Sight::Pushed(pushed) => {
                let is_news = seen.pushed.as_ref() != Some(&pushed);
                seen.pushed = Some(pushed);
                is_news
            }
        }
    }

    /// When a report that counts now will count no more.
    pub(in crate::operator) fn next_turn(&self, now: Instant) -> Option<Instant> {
        let ends = self.nodes.values().filter_map(|seen| seen.ends(self.age_max));
        ends.filter(|end| *end > now).min()
    }

    /// Whether a report counted then that counts no more.
    pub(in crate::operator) fn has_turned(&self, then: Instant, now: Instant) -> bool {
        let mut ends = self.nodes.values().filter_map(|seen| seen.ends(self.age_max));
        ends.any(|end| then < end && end <= now)
    }

    /// Whether each node has been heard, or is known to be out of reach.
    pub(in crate::operator) fn is_acquainted(&self) -> bool {
        self.nodes.values().all(|seen| seen.gist.is_some() || seen.unreachable.is_some())
    }

    /// What a plan is made from, for one pod.
    pub(in crate::operator) fn view(&self, id: &NodeId, pod: &Pod, now: Instant) -> NodeView {
        let (trouble, pending, is_lost) = (pod.trouble.clone(), pod.pending(), pod.is_lost());
        let view = NodeView { trouble, pending, is_lost, ..NodeView::default() };
        let Some(seen) = self.nodes.get(id) else { return view };
        let age = match seen.is_fresh(self.age_max, now) {
            true => Duration::ZERO,
            false => REPORT_AGE_MAX + Duration::from_millis(1),
        };
        NodeView {
            report: seen.gist.as_ref().map(|gist| Arc::clone(&gist.report)),
            age,
            unreachable: seen.unreachable.clone(),
            pushed: seen.pushed.clone(),
            ..view
        }
    }
}

impl Seen {
    fn ends(&self, age_max: Duration) -> Option<Instant> {
        self.heard.map(|heard| heard + age_max)
    }

    fn is_fresh(&self, age_max: Duration, now: Instant) -> bool {
        self.ends(age_max).is_some_and(|end| now < end)
    }
}
