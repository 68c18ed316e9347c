//! The lines of a status stream: how a report becomes lines, and lines a report again.

use serde::{Deserialize, Serialize};

use crate::settings::report::{LinkReport, NodeReport};

/// One line of a status stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StatusLine {
    /// Everything; the first line.
    Snapshot(Box<NodeReport>),
    /// Everything but the links, which stay as they were.
    Node(Box<NodeReport>),
    /// One link, new or changed.
    Link(Box<LinkReport>),
    /// The id of a link that is gone.
    Unlinked(String),
    /// Nothing changed; the number of beats so far.
    Beat(u64),
}

impl StatusLine {
    /// The lines that lead from one report to a later one; none when they are equal.
    pub fn between(before: &NodeReport, after: &NodeReport) -> Vec<StatusLine> {
        let mut lines = Vec::new();
        let (node_before, node_after) = (without_links(before), without_links(after));
        if node_before != node_after {
            lines.push(StatusLine::Node(Box::new(node_after)));
        }
        for link in &before.links {
            if after.links.iter().all(|other| other.id != link.id) {
                lines.push(StatusLine::Unlinked(link.id.clone()));
            }
        }
        for link in &after.links {
            if before.links.iter().all(|other| other != link) {
                lines.push(StatusLine::Link(Box::new(link.clone())));
            }
        }
        lines
    }

    /// Brings a report to what the line says.
    pub fn apply_to(self, report: &mut NodeReport) {
        match self {
            StatusLine::Snapshot(snapshot) => *report = *snapshot,
            StatusLine::Node(node) => {
                *report = NodeReport { links: std::mem::take(&mut report.links), ..*node }
            }
            StatusLine::Unlinked(id) => report.links.retain(|link| link.id != id),
            StatusLine::Link(link) => match report.links.binary_search_by(|other| other.id.cmp(&link.id)) {
                Ok(index) => report.links[index] = *link,
                Err(index) => report.links.insert(index, *link),
            },
            StatusLine::Beat(_) => {}
        }
    }
}

fn without_links(report: &NodeReport) -> NodeReport {
    let mut node = report.clone();
    node.links.clear();
    node
}
