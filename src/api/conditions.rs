//! Condition types, their order, and how a list of conditions is written.
//!
//! Invariants: all conditions of a kind are present from the first visit on, in the order given here;
//! `lastTransitionTime` moves only when `status` flips.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The spec is valid and conflicts with nothing.
pub const ACCEPTED: &str = "Accepted";
/// Every cluster, Secret and grant that is named exists and may be used.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Every ready node runs this revision of the link.
pub const PROGRAMMED: &str = "Programmed";
/// Probes cross in both directions.
pub const CONNECTED: &str = "Connected";
/// The peer has an enabled half for us under the right names.
pub const PEER_AGREES: &str = "PeerAgrees";
/// Both directions are synced by digest.
pub const ROUTES_SYNCED: &str = "RoutesSynced";
/// Nodes are being brought to the spec.
pub const PROGRESSING: &str = "Progressing";
/// Clients can connect.
pub const AVAILABLE: &str = "Available";
/// Every node reports the hash of the settings it should run.
pub const CONFIG_APPLIED: &str = "ConfigApplied";
/// The first condition that is False, else the first that is Unknown, else True.
pub const READY: &str = "Ready";

/// The spec is being brought about; only there while it is (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// A person has to act; only there while one has to (kstatus).
pub const STALLED: &str = "Stalled";
/// The link is disabled; only there while it is (Argo CD).
pub const SUSPENDED: &str = "Suspended";

/// The conditions of a ClusterLink, in order.
pub const OF_LINK: [&str; 7] =
    [ACCEPTED, RESOLVED_REFS, PROGRAMMED, CONNECTED, PEER_AGREES, ROUTES_SYNCED, READY];
/// The conditions of an MqttCluster, in order.
pub const OF_CLUSTER: [&str; 6] = [ACCEPTED, RESOLVED_REFS, PROGRESSING, AVAILABLE, CONFIG_APPLIED, READY];

/// Bytes of a condition's message that the Kubernetes API takes.
const MESSAGE_BYTES_MAX: usize = 32_768;

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It does.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unknown,
}

impl Status {
    /// The status as it stands in an object.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::True => "True",
            Status::False => "False",
            Status::Unknown => "Unknown",
        }
    }
}

/// What is found out about one condition, before it has a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether it holds.
    pub status: Status,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence for people: what, and what to do.
    pub message: String,
}

impl State {
    /// It holds.
    pub fn yes(reason: impl Into<String>, message: impl Into<String>) -> State {
        State { status: Status::True, reason: reason.into(), message: message.into() }
    }

    /// It does not hold.
    pub fn no(reason: impl Into<String>, message: impl Into<String>) -> State {
        State { status: Status::False, reason: reason.into(), message: message.into() }
    }

    /// It cannot be told.
    pub fn unknown(reason: impl Into<String>, message: impl Into<String>) -> State {
        State { status: Status::Unknown, reason: reason.into(), message: message.into() }
    }
}

/// Gives a condition its history: the transition time of `previous` stands unless the status flipped.
pub fn condition(
    type_: &str,
    state: State,
    generation: Option<i64>,
    previous: Option<&[Condition]>,
    now: Timestamp,
) -> Condition {
    let before = previous.into_iter().flatten().find(|condition| condition.type_ == type_);
    let since = before
        .filter(|condition| condition.status == state.status.as_str())
        .map_or_else(|| Time(whole_seconds(now)), |condition| condition.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: state.status.as_str().to_owned(),
        reason: state.reason,
        message: bounded(state.message),
        observed_generation: generation,
        last_transition_time: since,
    }
}

/// The conditions of an object: those of its kind in their order, then those that are only there while they hold.
pub fn list(
    types: &[&str],
    states: Vec<State>,
    passing: Vec<(&str, State)>,
    generation: Option<i64>,
    previous: Option<&[Condition]>,
    now: Timestamp,
) -> Vec<Condition> {
    let lasting = types.iter().copied().zip(states);
    let all = lasting.chain(passing);
    all.map(|(type_, state)| condition(type_, state, generation, previous, now)).collect()
}

/// What general tools look at: `Stalled` where a person has to act, else `Reconciling` while something is brought about.
///
/// `mistakes` are conditions that only a person can put right, `work` those that nodes put right by themselves.
pub fn kstatus(mistakes: &[State], work: &[State]) -> Vec<(&'static str, State)> {
    let first =
        |states: &[State], holds: fn(&State) -> bool| states.iter().find(|state| holds(state)).cloned();
    if let Some(mistake) = first(mistakes, |state| state.status == Status::False) {
        return vec![(STALLED, State { status: Status::True, ..mistake })];
    }
    let pending = first(work, |state| state.status != Status::True);
    pending.map(|state| (RECONCILING, State { status: Status::True, ..state })).into_iter().collect()
}

/// The condition of this type in a list.
pub fn find<'a>(conditions: Option<&'a [Condition]>, type_: &str) -> Option<&'a Condition> {
    conditions?.iter().find(|condition| condition.type_ == type_)
}

/// The API server keeps whole seconds: anything finer would make each write a change.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).expect("a timestamp's seconds are in range")
}

fn bounded(mut message: String) -> String {
    let end = (0..=MESSAGE_BYTES_MAX.min(message.len())).rev().find(|&end| message.is_char_boundary(end));
    message.truncate(end.unwrap_or_default());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_time_moves_only_when_the_status_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = condition(READY, State::no("A", "a"), Some(1), None, at(100));
        let second =
            condition(READY, State::no("B", "b"), Some(2), Some(std::slice::from_ref(&first)), at(200));
        assert_eq!((second.reason.as_str(), second.last_transition_time.0), ("B", at(100)));
        let third =
            condition(READY, State::yes("C", ""), Some(2), Some(std::slice::from_ref(&second)), at(300));
        assert_eq!(third.last_transition_time.0, at(300));
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        assert_eq!(bounded("é".repeat(20_000)).len(), MESSAGE_BYTES_MAX);
        assert_eq!(bounded("short".to_owned()), "short");
    }
}
