//! What nodes say, and for how long it counts.
//!
//! A node that was never heard, or is silent for too long, gives no answer: it gives the reason why there is none.
//! What nodes say is theirs, and some of it their peers': it is cut to what an object can hold.

use super::world::{Key, NodeView, Placement, Pushed, REPORT_AGE_MAX, World};
use crate::api::conditions::{State, Status};
use crate::settings::report::{LinkReport, NodeReport, Verdict, VerdictStatus};

/// The longest word that is taken for a reason.
const REASON_BYTES_MAX: usize = 64;

/// One node of a cluster: its report, or why there is none that counts.
pub(super) struct Node<'a> {
    pub(super) name: String,
    pub(super) report: Result<&'a NodeReport, State>,
    /// Whether it does not run, and will not before a person does something about it.
    pub(super) is_refused: bool,
    /// Why it is not ready, where somebody else than itself says so.
    pending: Option<&'a str>,
    /// What became of the settings that it was last given.
    pushed: Option<&'a Pushed>,
}

/// The nodes that a cluster should have; those that report, where nobody says how many there should be.
pub(super) fn nodes<'a>(world: &'a World, cluster: &Key) -> Vec<Node<'a>> {
    let views = world.reports.get(cluster);
    let placement = world.placements.get(cluster);
    let placed = placement.map(|placement| placement.nodes.clone()).unwrap_or_default();
    let no_view = |name: &str| match placement {
        Some(Placement { selector: Some(_), has_set, .. }) => {
            State::no("PodsPending", no_pod(name, cluster, *has_set))
        }
        _ => not_yet(name),
    };
    let names = match placed.is_empty() {
        true => views.into_iter().flat_map(|views| views.keys().cloned()).collect(),
        false => placed,
    };
    let view = |name: &String| views.and_then(|views| views.get(name));
    names.into_iter().map(|name| node(view(&name), name, no_view)).collect()
}

fn node(view: Option<&NodeView>, name: String, no_view: impl Fn(&str) -> State) -> Node<'_> {
    let report = match view {
        Some(view) => report_of(&name, view),
        None => Err(no_view(&name)),
    };
    let pending = view.and_then(|view| view.pending.as_deref());
    let is_refused = view.and_then(|view| view.trouble.as_ref()).is_some_and(|trouble| trouble.is_refused);
    Node { name, report, is_refused, pending, pushed: view.and_then(|view| view.pushed.as_ref()) }
}

/// What keeps Kubernetes from making a pod, such as a quota or a priority class that does not exist, it tells in events alone.
fn no_pod(name: &str, cluster: &Key, has_set: bool) -> String {
    let Key { namespace, name: set } = cluster;
    if !has_set {
        return format!("Node {name} has no pod: its StatefulSet is not made yet.");
    }
    format!(
        "Node {name} has no pod yet; should none come, `kubectl -n {namespace} describe statefulset {set}` says why."
    )
}

fn not_yet(name: &str) -> State {
    State::unknown("NoReport", format!("Node {name} has not reported yet."))
}

fn report_of<'a>(name: &str, view: &'a NodeView) -> Result<&'a NodeReport, State> {
    if let Some(trouble) = &view.trouble {
        return Err(State::no("NodeFailing", format!("Node {name} does not run: {}", trouble.message)));
    }
    let why = view.unreachable.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    match (&view.report, &view.pending) {
        (Some(report), _) if view.age <= REPORT_AGE_MAX => Ok(report.as_ref()),
        (_, Some(pending)) => {
            let message = format!("Node {name} is not ready: {pending}{why}.");
            Err(match view.is_lost {
                true => State::unknown("NoReport", message),
                false => State::no("PodsPending", message),
            })
        }
        (Some(_), None) => {
            let seconds = REPORT_AGE_MAX.as_secs();
            let message = format!("Node {name} has been silent for more than {seconds} s{why}.");
            Err(State::unknown("NoReport", message))
        }
        (None, None) if why.is_empty() => Err(not_yet(name)),
        (None, None) => Err(State::unknown("NoReport", format!("Node {name} does not report{why}."))),
    }
}

impl Node<'_> {
    /// What this node says of a link, or why it says nothing.
    pub(super) fn link(&self, id: &str) -> Result<&LinkReport, State> {
        let report =
            self.report.as_ref().map_err(|state| State { status: Status::Unknown, ..state.clone() })?;
        if let Some(state) = self.not_ready() {
            return Err(State { status: Status::Unknown, ..state });
        }
        let waiting =
            || State::unknown("PodsPending", format!("Node {} does not run the link yet.", self.name));
        report.links.iter().find(|link| link.id == id).ok_or_else(waiting)
    }

    /// Why it does not count as ready, where somebody else than itself says so.
    pub(super) fn not_ready(&self) -> Option<State> {
        let pending = self.pending?;
        Some(State::no("PodsPending", format!("Node {} is not ready: {pending}.", self.name)))
    }

    /// Why it does not run the settings of this hash, where it was told to.
    pub(super) fn push_failure(&self, hash: Option<&str>) -> Option<State> {
        let own = self.report.as_ref().ok().and_then(|report| report.refused.clone());
        let pushed = self.pushed.filter(|pushed| hash.is_none_or(|hash| pushed.settings_hash == hash));
        let answer = pushed.and_then(|pushed| pushed.outcome.clone().err());
        let problem = answer.or(own)?;
        let message = format!("Node {} did not take its settings: {problem}", self.name);
        Some(State::no("PushFailed", message))
    }

    /// Whether the settings of this hash are those it calls by another.
    pub(super) fn runs(&self, report: &NodeReport, hash: &str) -> bool {
        let confirms = |pushed: &Pushed| {
            pushed.settings_hash == hash && pushed.outcome.as_ref() == Ok(&report.settings_hash)
        };
        report.settings_hash == hash || self.pushed.is_some_and(confirms)
    }
}

/// A part of a status, if it says anything: where one loses its last field, server-side apply would leave a null, which the
/// definition refuses with all of the status.
pub(super) fn telling<T: Default + PartialEq>(part: T) -> Option<T> {
    (part != T::default()).then_some(part)
}

/// A node's verdict, as a state.
pub(super) fn state_of(verdict: &Verdict) -> State {
    let status = match verdict.status {
        VerdictStatus::True => Status::True,
        VerdictStatus::False => Status::False,
        VerdictStatus::Unknown => Status::Unknown,
    };
    let reason = match is_reason(&verdict.reason) {
        true => verdict.reason.clone(),
        false if verdict.reason.is_empty() => "Pending".to_owned(),
        // An object with such a reason would be refused as a whole.
        false => "Other".to_owned(),
    };
    State { status, reason, message: verdict.message.clone() }
}

fn is_reason(word: &str) -> bool {
    word.len() <= REASON_BYTES_MAX
        && word.starts_with(|first: char| first.is_ascii_alphabetic())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
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
