//! What of a report counts: whatever a status says. The rest is for metrics, and would wake the operator each second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admin::StatusLine;
use crate::plan::rtt_bucket;
use crate::settings::report::{LinkCounters, LinkReport, NodeReport};

/// A round trip time has to stay outside of what a status says for so long: it jitters, and each change is a write.
const RTT_CALM: Duration = Duration::from_secs(60);

/// The report of one node, without what does not count.
#[derive(Debug, Default)]
pub(super) struct Gist {
    pub(super) report: Arc<NodeReport>,
    /// Round trip times that wait to be believed, with when the first of them came.
    restless: BTreeMap<String, (u32, Instant)>,
}

impl Gist {
    /// Takes in a line of the status stream; tells whether it changed anything. More links than `links_max` are not heard.
    pub(super) fn take(&mut self, line: StatusLine, links_max: usize, now: Instant) -> bool {
        match line {
            StatusLine::Snapshot(snapshot) => {
                let mut next = *snapshot;
                let mut links = std::mem::take(&mut next.links);
                links.sort_by(|one, two| one.id.cmp(&two.id));
                links.dedup_by(|one, two| one.id == two.id);
                links.truncate(links_max);
                next.links = links.into_iter().map(|link| self.calmed(link, now)).collect();
                self.replace(next)
            }
            StatusLine::Node(node) => {
                let links = self.report.links.clone();
                self.replace(NodeReport { links, ..*node })
            }
            StatusLine::Link(link) => {
                let link = self.calmed(*link, now);
                self.put(link, links_max)
            }
            StatusLine::Unlinked(id) => {
                self.restless.remove(&id);
                let is_there = self.report.links.iter().any(|link| link.id == id);
                if is_there {
                    Arc::make_mut(&mut self.report).links.retain(|link| link.id != id);
                }
                is_there
            }
            StatusLine::Beat(_) => self.believe(now),
        }
    }

    fn replace(&mut self, next: NodeReport) -> bool {
        let next = without_levels(next);
        let changes = *self.report != next;
        self.report = Arc::new(next);
        self.restless.retain(|id, _| self.report.links.iter().any(|link| link.id == *id));
        changes
    }

    fn put(&mut self, link: LinkReport, links_max: usize) -> bool {
        let links = &self.report.links;
        let at = links.binary_search_by(|other| other.id.cmp(&link.id));
        let changes = match at {
            Ok(at) => links[at] != link,
            Err(_) => links.len() < links_max,
        };
        if changes {
            let links = &mut Arc::make_mut(&mut self.report).links;
            match at {
                Ok(at) => links[at] = link,
                Err(at) => links.insert(at, link),
            }
        }
        changes
    }

    /// The link without counters, and with the round trip time that is believed.
    fn calmed(&mut self, link: LinkReport, now: Instant) -> LinkReport {
        let links = &self.report.links;
        let before =
            links.binary_search_by(|other| other.id.cmp(&link.id)).ok().and_then(|at| links[at].rtt_ms);
        let rtt_ms = match (before, link.rtt_ms) {
            (Some(before), Some(next)) if rtt_bucket(before) == rtt_bucket(next) => {
                self.restless.remove(&link.id);
                Some(before)
            }
            (Some(before), Some(next)) => {
                let waits = self.restless.entry(link.id.clone()).or_insert((next, now));
                waits.0 = next;
                Some(before)
            }
            (_, next) => {
                self.restless.remove(&link.id);
                next
            }
        };
        LinkReport { rtt_ms, counters: LinkCounters::default(), ..link }
    }

    /// Believes round trip times that have stayed.
    fn believe(&mut self, now: Instant) -> bool {
        let stays = |since: &Instant| now.saturating_duration_since(*since) >= RTT_CALM;
        if !self.restless.values().any(|(_, since)| stays(since)) {
            return false;
        }
        for link in &mut Arc::make_mut(&mut self.report).links {
            if let Some((rtt_ms, _)) = self.restless.get(&link.id).filter(|(_, since)| stays(since)) {
                link.rtt_ms = Some(*rtt_ms);
            }
        }
        self.restless.retain(|_, (_, since)| !stays(since));
        true
    }
}

fn without_levels(report: NodeReport) -> NodeReport {
    NodeReport { connections: 0, sessions: 0, subscriptions: 0, retained: 0, ..report }
}
