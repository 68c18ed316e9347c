//! What nodes say, and for how long it counts.
//!
//! A node that was never heard, or is silent for too long, gives no answer: it gives the reason why there is none.

use super::world::{Key, NodeView, REPORT_AGE_MAX, World};
use crate::api::conditions::{State, Status};
use crate::settings::report::{LinkReport, NodeReport, Verdict, VerdictStatus};

/// One node of a cluster: its report, or why there is none that counts.
pub(super) struct Node<'a> {
    pub(super) name: String,
    pub(super) report: Result<&'a NodeReport, State>,
}

/// The nodes that a cluster should have; those that report, where nobody says how many there should be.
pub(super) fn nodes<'a>(world: &'a World, cluster: &Key) -> Vec<Node<'a>> {
    let views = world.reports.get(cluster);
    let placed = world.placements.get(cluster).map(|placement| placement.nodes.clone()).unwrap_or_default();
    let names = match placed.is_empty() {
        true => views.into_iter().flat_map(|views| views.keys().cloned()).collect(),
        false => placed,
    };
    let view = |name: &String| views.and_then(|views| views.get(name));
    names.into_iter().map(|name| Node { report: report_of(&name, view(&name)), name }).collect()
}

fn report_of<'a>(name: &str, view: Option<&'a NodeView>) -> Result<&'a NodeReport, State> {
    let not_yet = || State::unknown("NoReport", format!("Node {name} has not reported yet."));
    let view = view.ok_or_else(not_yet)?;
    if let Some(trouble) = &view.trouble {
        return Err(State::no("NodeFailing", format!("Node {name} does not run: {trouble}")));
    }
    let report = view.report.as_ref().ok_or_else(not_yet)?;
    match view.age > REPORT_AGE_MAX {
        true => {
            let seconds = REPORT_AGE_MAX.as_secs();
            Err(State::unknown("NoReport", format!("Node {name} has been silent for more than {seconds} s.")))
        }
        false => Ok(report),
    }
}

impl Node<'_> {
    /// What this node says of a link, or why it says nothing.
    pub(super) fn link(&self, id: &str) -> Result<&LinkReport, State> {
        let report =
            self.report.as_ref().map_err(|state| State { status: Status::Unknown, ..state.clone() })?;
        let waiting =
            || State::unknown("PodsPending", format!("Node {} does not run the link yet.", self.name));
        report.links.iter().find(|link| link.id == id).ok_or_else(waiting)
    }
}

/// A node's verdict, as a state.
pub(super) fn state_of(verdict: &Verdict) -> State {
    let status = match verdict.status {
        VerdictStatus::True => Status::True,
        VerdictStatus::False => Status::False,
        VerdictStatus::Unknown => Status::Unknown,
    };
    let reason = match verdict.reason.is_empty() {
        true => "Pending".to_owned(),
        false => verdict.reason.clone(),
    };
    State { status, reason, message: verdict.message.clone() }
}

/// The reason that is Unknown for good and stands in nobody's way: the peer's dialect has no answer to it.
pub(super) const NOT_SUPPORTED: &str = "NotSupportedByPeer";

/// The state that decides among several: the first that is False, else the first that is Unknown, else the first.
pub(super) fn decisive<'a>(states: impl IntoIterator<Item = &'a State> + Clone) -> Option<&'a State> {
    let first = |wanted: fn(&State) -> bool| states.clone().into_iter().find(|state| wanted(state));
    first(|state| state.status == Status::False)
        .or_else(|| first(|state| state.status == Status::Unknown && state.reason != NOT_SUPPORTED))
        .or_else(|| first(|state| state.status == Status::Unknown))
        .or_else(|| states.clone().into_iter().next())
}

/// `Ready`: the first condition that is False, else the first that is Unknown, else True.
pub(super) fn ready(states: &[State], otherwise: State) -> State {
    match decisive(states) {
        Some(state) if state.status == Status::True || state.reason == NOT_SUPPORTED => otherwise,
        Some(state) => state.clone(),
        None => otherwise,
    }
}
