//! What is true of a link: seven conditions, of which the nodes on both sides give four.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::clusters::Cluster;
use super::half::Half;
use super::halves;
use super::links::Link;
use super::minted::{Minted, resync_token};
use super::reports::{self, NOT_SUPPORTED, Node, decisive, state_of};
use super::world::{Key, Trouble, World};
use crate::api::conditions::{self, State, Status};
use crate::api::link::{
    ClusterLinkStatus, Compression, Dial, Dialect, Effective, Forwarding, Invitation, LocalStatus, Queue,
    RemoteStatus,
};
use crate::api::values;
use crate::settings;
use crate::settings::report::{LinkReport, Verdict};

/// What of a peer's words is shown: as much as a spec of ours could say.
const NAME_CHARS_MAX: usize = 63;
const FILTERS_MAX: usize = 32;
const FILTER_BYTES_MAX: usize = 1_024;

/// One link with everything that is known of it.
struct Seen<'a> {
    link: &'a Link<'a>,
    /// What keeps its objects from being brought about.
    trouble: Option<&'a Trouble>,
    /// Both sides, each with the nodes that run it; the local side first.
    sides: Vec<Side<'a>>,
}

struct Side<'a> {
    half: &'a Half,
    /// The name of the cluster.
    cluster: &'a str,
    /// By what this revision is told from others.
    mark: String,
    nodes: Vec<Node<'a>>,
    /// The hash of the settings that these should run.
    settings_hash: Option<&'a str>,
}

/// Everything that `Ready` is computed from, in the order of the conditions.
const CHECKS: [fn(&Seen<'_>) -> State; 6] =
    [accepted, resolved_refs, programmed, connected, peer_agrees, routes_synced];

pub(super) fn status(
    world: &World,
    clusters: &BTreeMap<Key, Cluster<'_>>,
    link: &Link<'_>,
    minted: &Minted,
    now: Timestamp,
) -> ClusterLinkStatus {
    let side = |half| -> Option<Side<'_>> {
        let half: &Half = half;
        let cluster = clusters.get(&half.cluster)?;
        Some(Side {
            half,
            cluster: &cluster.name,
            mark: minted.mark(&half.cluster, &half.settings.revision, now),
            nodes: reports::nodes(world, &half.cluster),
            settings_hash: cluster.sealed.as_ref().map(|sealed| &*sealed.hash),
        })
    };
    let trouble = world.link_troubles.get(&link.key);
    let seen = Seen { link, trouble, sides: link.halves.iter().filter_map(side).collect() };
    let mut states: Vec<State> = CHECKS.iter().map(|check| check(&seen)).collect();
    states.push(reports::ready(&states, ready_message(&seen, &states)));
    let near: Vec<&LinkReport> = seen.sides.first().map(Side::reports).unwrap_or_default();
    let local_name =
        link.local.as_ref().and_then(|key| clusters.get(key)).map(|cluster| cluster.name.clone());
    ClusterLinkStatus {
        observed_generation: link.object.metadata.generation,
        conditions: Some(conditions_of(&seen, states, now)),
        local: reports::telling(LocalStatus {
            cluster_name: local_name.clone(),
            connections: connections(&near),
            rtt: near.iter().filter_map(|report| report.rtt_ms).max().map(|ms| rtt_bucket(ms).to_owned()),
        }),
        remote: remote_status(link, &near),
        effective: effective(link, local_name),
        invitation: invitation(link),
        last_handled_resync: last_handled_resync(&seen),
    }
}

/// While the link is in trouble it stays: the next operator finds by it out whether the Secret was deleted meanwhile.
fn invitation(link: &Link<'_>) -> Option<Invitation> {
    let is_in_trouble = [&link.accepted, &link.resolved].iter().any(|state| state.status == Status::False);
    match &link.invitation {
        Some(_) => Some(Invitation { secret_name: halves::invitation_name(&link.key.name) }),
        None if is_in_trouble => link.object.status.as_ref()?.invitation.clone(),
        None => None,
    }
}

/// The token that is asked for, once all ready nodes of the local side answer it; else that of before.
fn last_handled_resync(seen: &Seen<'_>) -> Option<String> {
    let is_done = |side: &&Side<'_>| {
        let half = &side.half.settings;
        let answers = |node: &&Node<'_>| node.link(&half.id).is_ok_and(|report| report.resync == half.resync);
        let nodes = side.counting();
        !nodes.is_empty() && nodes.iter().all(answers)
    };
    let done = seen.sides.first().filter(is_done).and_then(|side| side.half.settings.resync.as_deref());
    let asked = seen.link.object.resync().ok().flatten();
    let before = || seen.link.object.status.as_ref()?.last_handled_resync.clone();
    asked.filter(|token| done.map(resync_token) == Some(*token)).map(str::to_owned).or_else(before)
}

fn conditions_of(seen: &Seen<'_>, states: Vec<State>, now: Timestamp) -> Vec<Condition> {
    let link = seen.link;
    let previous = link.object.status.as_ref().and_then(|status| status.conditions.as_deref());
    // The first two are a person's to put right, the third is what nodes are working on, unless there is no room for it or it
    // was refused.
    let is_refused = seen.trouble.is_some_and(|trouble| trouble.is_refused);
    let mistakes = if link.too_large.is_some() || is_refused { 3 } else { 2 };
    let mut passing = conditions::kstatus(&states[..mistakes], &states[mistakes..3]);
    if !link.enabled() {
        let message = "The link is disabled (spec.enabled: false).";
        passing.push((conditions::SUSPENDED, State::yes("Disabled", message)));
    }
    conditions::list(&conditions::OF_LINK, states, passing, link.object.metadata.generation, previous, now)
}

fn accepted(seen: &Seen<'_>) -> State {
    seen.link.accepted.clone()
}

fn resolved_refs(seen: &Seen<'_>) -> State {
    seen.link.resolved.clone()
}

/// Every ready node on both sides runs this revision.
fn programmed(seen: &Seen<'_>) -> State {
    if let Some(state) = not_in_force(seen) {
        return state;
    }
    if let Some(finding) = &seen.link.too_large {
        return State::no(finding.reason, finding.message_with_path());
    }
    if let Some(trouble) = seen.trouble {
        return trouble.state();
    }
    let states: Vec<State> = seen
        .sides
        .iter()
        .flat_map(|side| side.counting().into_iter().map(move |node| programmed_on(side, node)))
        .collect();
    let no_nodes = || State::unknown("PodsPending", "No node of either cluster is known yet.");
    let state = decisive(&states).cloned().unwrap_or_else(no_nodes);
    if state.status != Status::True {
        return state;
    }
    let marks: Vec<String> =
        seen.sides.iter().map(|side| format!("{} {}", side.cluster, side.mark)).collect();
    State {
        message: format!("Every ready node runs this revision of the link ({}).", marks.join(", ")),
        ..state
    }
}

fn programmed_on(side: &Side<'_>, node: &Node<'_>) -> State {
    let report = match &node.report {
        Ok(report) => report,
        Err(state) if state.reason == "PodsPending" => return state.clone(),
        Err(state) => return State { status: Status::Unknown, ..state.clone() },
    };
    if let Some(state) = node.not_ready() {
        return state;
    }
    let runs = report.links.iter().find(|link| link.id == side.half.settings.id);
    if runs.is_some_and(|link| link.revision == side.half.settings.revision) {
        return State::yes("Programmed", "");
    }
    let waits = || State::no("PodsPending", format!("Node {} does not run this revision yet.", node.name));
    node.push_failure(side.settings_hash).unwrap_or_else(waits)
}

fn connected(seen: &Seen<'_>) -> State {
    if !seen.link.enabled() && not_in_force(seen).is_none() {
        return State::no("Disabled", "The link is disabled (spec.enabled: false); nothing crosses.");
    }
    verdict(seen, |report| &report.connected)
}

fn peer_agrees(seen: &Seen<'_>) -> State {
    verdict(seen, |report| &report.peer_agrees)
}

fn routes_synced(seen: &Seen<'_>) -> State {
    verdict(seen, |report| &report.routes_synced)
}

/// What the nodes on both sides say, the decisive one of them.
fn verdict(seen: &Seen<'_>, pick: fn(&LinkReport) -> &Verdict) -> State {
    if let Some(state) = not_in_force(seen) {
        return state;
    }
    if !seen.link.enabled() {
        return State::unknown("Disabled", "The link is disabled (spec.enabled: false).");
    }
    let on = |side: &Side<'_>, node: &Node<'_>| match node.link(&side.half.settings.id) {
        Ok(report) => {
            let state = state_of(pick(report));
            let message = match state.message.is_empty() {
                true => String::new(),
                false => format!("{}: {}", side.cluster, state.message),
            };
            State { message, ..state }
        }
        Err(state) => state,
    };
    let states: Vec<State> = seen
        .sides
        .iter()
        .flat_map(|side| side.counting().into_iter().map(move |node| on(side, node)))
        .collect();
    let no_nodes = || State::unknown("PodsPending", "No node of either cluster is known yet.");
    decisive(&states).cloned().unwrap_or_else(no_nodes)
}

/// Why there is nothing to ask the nodes.
fn not_in_force(seen: &Seen<'_>) -> Option<State> {
    let waits = |what: &str, state: &State| {
        State::unknown(what, format!("Nothing runs while the link is refused ({}).", state.reason))
    };
    let link = seen.link;
    if link.accepted.status != Status::True {
        return Some(waits("NotAccepted", &link.accepted));
    }
    let runs_on = |state: &State| {
        State::unknown("NotResolved", format!("The link runs on as it did before ({}).", state.reason))
    };
    (link.resolved.status != Status::True).then(|| match link.halves.is_empty() {
        true => waits("NotResolved", &link.resolved),
        false => runs_on(&link.resolved),
    })
}

fn ready_message(seen: &Seen<'_>, states: &[State]) -> State {
    let unverified = states.iter().filter(|state| state.reason == NOT_SUPPORTED);
    let notes: String = unverified.map(|state| format!(" {}", state.message)).collect();
    let local = seen.sides.first().map(|side| side.cluster).unwrap_or_default();
    let peer = seen.link.peer.as_deref().unwrap_or_default();
    State::yes("Ready", format!("{local} and {peer} are linked.{notes}"))
}

impl<'a> Side<'a> {
    /// The nodes that are ready; all of them where none is.
    fn counting(&self) -> Vec<&Node<'a>> {
        let ready: Vec<&Node<'a>> = self.nodes.iter().filter(|node| node.not_ready().is_none()).collect();
        if ready.is_empty() { self.nodes.iter().collect() } else { ready }
    }

    fn reports(&self) -> Vec<&LinkReport> {
        self.nodes.iter().filter_map(|node| node.link(&self.half.settings.id).ok()).collect()
    }
}

fn connections(reports: &[&LinkReport]) -> Option<String> {
    let open: u32 = reports.iter().map(|report| report.connections.open).sum();
    let wanted: u32 = reports.iter().map(|report| report.connections.wanted).sum();
    (!reports.is_empty()).then(|| format!("{open}/{wanted}"))
}

/// How a round trip time is shown: coarse, so that a status is not written for every probe.
pub fn rtt_bucket(ms: u32) -> &'static str {
    match ms {
        0..5 => "<5ms",
        5..20 => "5-20ms",
        20..50 => "20-50ms",
        50..100 => "50-100ms",
        100..250 => "100-250ms",
        250..1000 => "250ms-1s",
        _ => ">1s",
    }
}

/// The other side, in its own words where it has spoken.
fn remote_status(link: &Link<'_>, near: &[&LinkReport]) -> Option<RemoteStatus> {
    let said = near.iter().find_map(|report| report.peer.as_ref());
    let known = RemoteStatus { cluster_name: link.peer.clone(), ..RemoteStatus::default() };
    reports::telling(said.map_or(known, |half| RemoteStatus {
        cluster_name: Some(half.cluster.chars().take(NAME_CHARS_MAX).collect()),
        enabled: Some(half.enabled),
        topics: Some(
            half.topics.iter().filter(|it| it.len() <= FILTER_BYTES_MAX).take(FILTERS_MAX).cloned().collect(),
        ),
        nodes: i32::try_from(half.nodes).ok(),
    }))
}

/// What is in force, which is not what the spec says while that is refused: so it is read from the settings.
fn effective(link: &Link<'_>, local_name: Option<String>) -> Option<Effective> {
    let half = &link.halves.first()?.settings;
    let forwarding = &half.forwarding;
    Some(Effective {
        topics: Some(half.topics.clone()),
        dialect: Some(Dialect::Native),
        dial: Some(match half.dial {
            settings::Dial::Both => Dial::Both,
            settings::Dial::Out => Dial::Out,
            settings::Dial::In => Dial::In,
        }),
        server: half.server.clone(),
        // With the Native dialect, whatever the spec says.
        client_id_prefix: local_name,
        forwarding: Some(Forwarding {
            pool_size: Some(1),
            max_inflight: i32::try_from(forwarding.max_inflight).ok(),
            queue: Some(Queue {
                max_bytes: Some(values::bytes_text(forwarding.queue_bytes_max)),
                max_age: Some(values::seconds_text(forwarding.queue_age_s_max)),
            }),
            compression: Some(Compression::None),
        }),
    })
}
