//! What is true of a cluster: six conditions, and where it is reached.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::clusters::Cluster;
use super::links::Link;
use super::minted::Minted;
use super::reports::{self, Node, decisive};
use super::world::{Key, Sealed, Trouble, World};
use crate::api::cluster::{LinkCounts, LinkListenerStatus, ListenerStatus, MqttClusterStatus};
use crate::api::conditions::{self, State, Status};
use crate::api::link::ClusterLinkStatus;
use crate::api::values;
use crate::settings;
use crate::settings::report::NodeReport;

/// How far the clocks of who issues certificates and of us may be apart.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(60);
/// The longest version that is shown.
const VERSION_CHARS_MAX: usize = 64;

/// One cluster with everything that is known of it.
struct Seen<'a> {
    cluster: &'a Cluster<'a>,
    /// By what the settings that nodes should run are told from others.
    mark: Option<String>,
    nodes: Vec<Node<'a>>,
    /// What keeps its objects from being brought about.
    trouble: Option<&'a Trouble>,
    /// Why it still runs what an earlier version of us made it run.
    waits: Option<&'a String>,
    /// What clients are shown that they refuse.
    stale: Option<State>,
}

/// Everything that `Ready` is computed from, in the order of the conditions.
const CHECKS: [fn(&Seen<'_>) -> State; 5] = [accepted, resolved_refs, progressing, available, config_applied];

pub(super) fn status(
    world: &World,
    cluster: &Cluster<'_>,
    links: &[Link<'_>],
    link_statuses: &BTreeMap<Key, ClusterLinkStatus>,
    minted: &Minted,
    now: Timestamp,
) -> MqttClusterStatus {
    let trouble = world.troubles.get(&cluster.key);
    let seen = Seen {
        cluster,
        mark: cluster.sealed.as_ref().map(|sealed| minted.mark(&cluster.key, &sealed.hash, now)),
        nodes: reports::nodes(world, &cluster.key),
        trouble,
        waits: world.waits.get(&cluster.key),
        stale: cluster.sealed.as_ref().and_then(|sealed| stale(&sealed.settings.listeners, now)),
    };
    let mut states: Vec<State> = CHECKS.iter().map(|check| check(&seen)).collect();
    states.push(reports::ready(&states, ready_message(&seen)));
    let count = |nodes: usize| Some(i32::try_from(nodes).unwrap_or(i32::MAX));
    MqttClusterStatus {
        observed_generation: cluster.object.metadata.generation,
        conditions: Some(conditions_of(&seen, states, now)),
        replicas: count(world.reports.get(&cluster.key).map_or(0, BTreeMap::len)),
        ready_replicas: count(
            seen.nodes.iter().filter(|node| listening(node).status == Status::True).count(),
        ),
        selector: world.placements.get(&cluster.key).and_then(|placement| placement.selector.clone()),
        cluster_name: Some(cluster.name.clone()),
        version: seen.nodes.iter().find_map(|node| Some(bounded(&node.report.as_ref().ok()?.version))),
        listeners: Some(listeners(world, cluster)),
        link_listener: link_listener(cluster),
        links: Some(link_counts(cluster, links, link_statuses)),
    }
}

fn conditions_of(seen: &Seen<'_>, states: Vec<State>, now: Timestamp) -> Vec<Condition> {
    let object = seen.cluster.object;
    let previous = object.status.as_ref().and_then(|status| status.conditions.as_deref());
    // The first two are a person's to put right, the rest is what nodes are working on, unless that was refused.
    let is_refused = seen.trouble.is_some_and(|trouble| trouble.is_refused)
        || seen.nodes.iter().any(|node| node.is_refused);
    let mistakes = match (&seen.stale, is_refused) {
        (Some(_), _) => 4,
        (None, true) => 3,
        (None, false) => 2,
    };
    let passing = conditions::kstatus(&states[..mistakes], &states[mistakes..5]);
    let generation = object.metadata.generation;
    conditions::list(&conditions::OF_CLUSTER, states, passing, generation, previous, now)
}

fn accepted(seen: &Seen<'_>) -> State {
    seen.cluster.accepted.clone()
}

fn resolved_refs(seen: &Seen<'_>) -> State {
    seen.cluster.resolved.clone()
}

/// As for a Deployment: False when nodes cannot come up, True when they are there.
fn progressing(seen: &Seen<'_>) -> State {
    if let Some(trouble) = seen.trouble {
        return trouble.state();
    }
    let starting = || State::unknown("NodesStarting", "No node is known yet.");
    let states: Vec<State> = seen.nodes.iter().map(started).collect();
    let state = decisive(&states).cloned().unwrap_or_else(starting);
    match seen.waits.filter(|_| state.status == Status::True) {
        Some(why) => State::yes("UpdateWaiting", why),
        None => state,
    }
}

fn started(node: &Node<'_>) -> State {
    match &node.report {
        Ok(_) => node.not_ready().unwrap_or_else(|| State::yes("Complete", "Every node is up.")),
        Err(state) => state.clone(),
    }
}

/// Clients can connect: the listeners of at least one node accept connections.
fn available(seen: &Seen<'_>) -> State {
    let states: Vec<State> = seen.nodes.iter().map(listening).collect();
    let up = states.iter().find(|state| state.status == Status::True);
    let starting = || State::unknown("NoReport", "No node has reported yet.");
    match (up, &seen.stale) {
        (Some(_), Some(stale)) => stale.clone(),
        _ => up.or_else(|| decisive(&states)).cloned().unwrap_or_else(starting),
    }
}

/// The first certificate that clients refuse at this time: it has ended, or not begun.
fn stale(listeners: &[settings::Listener], now: Timestamp) -> Option<State> {
    listeners.iter().find_map(|listener| {
        let tls = listener.tls.as_ref()?;
        let all = std::iter::once(&tls.certificate_pem).chain(tls.more.iter().map(|one| &one.certificate_pem));
        let read = all.filter_map(|pem| crate::pki::inspect(pem).ok());
        // Clocks differ: one that begins within a minute has begun.
        let soon = now + CLOCKS_APART;
        let own = read.into_iter().find(|own| !own.is_valid_at(now) && !own.is_valid_at(soon))?;
        let message = format!(
            "Listener {}: the certificate of {} is valid from {} to {} only, so that clients refuse it; renew it in its Secret.",
            listener.name,
            own.dns.first().unwrap_or(&own.common_name),
            own.not_before,
            own.not_after
        );
        Some(State::no("CertificateNotValid", message))
    })
}

fn listening(node: &Node<'_>) -> State {
    let report = match &node.report {
        Ok(report) => report,
        Err(state) if state.reason == "PodsPending" => return state.clone(),
        Err(state) => return State { status: Status::Unknown, ..state.clone() },
    };
    match (&listener_errors(report)[..], node.not_ready()) {
        ([], None) => State::yes("Available", "Every listener accepts connections."),
        ([], Some(state)) => state,
        (errors, _) => State::no("ListenerFailed", format!("Node {}: {}.", node.name, errors.join("; "))),
    }
}

/// A version is short; what a node calls one may not be.
fn bounded(version: &str) -> String {
    version.chars().take(VERSION_CHARS_MAX).collect()
}

fn listener_errors(report: &NodeReport) -> Vec<String> {
    let error = |listener: &settings::report::ListenerReport| {
        let error = listener.error.as_ref()?;
        Some(format!("listener {} on port {}: {error}", listener.name, listener.port))
    };
    report.listeners.iter().filter_map(error).collect()
}

/// Every node runs the settings that follow from this spec.
fn config_applied(seen: &Seen<'_>) -> State {
    let (Some(Sealed { hash, .. }), Some(mark)) = (&seen.cluster.sealed, &seen.mark) else {
        return State::unknown("NotAccepted", "There are no settings to run; see the conditions before.");
    };
    let states: Vec<State> = seen.nodes.iter().map(|node| applied(node, hash, mark)).collect();
    let starting = || State::unknown("NoReport", "No node has reported yet.");
    decisive(&states).cloned().unwrap_or_else(starting)
}

fn applied(node: &Node<'_>, hash: &str, mark: &str) -> State {
    let report = match &node.report {
        Ok(report) => report,
        Err(state) => return State { status: Status::Unknown, ..state.clone() },
    };
    if node.runs(report, hash) {
        let message = match report.unknown_fields.is_empty() {
            true => format!("Every node runs these settings ({mark})."),
            false => {
                format!("Node {} does not know {} ({mark}).", node.name, report.unknown_fields.join(", "))
            }
        };
        return State::yes("Applied", message);
    }
    let waits = || State::no("PodsPending", format!("Node {} does not run these settings yet.", node.name));
    node.push_failure(Some(hash)).unwrap_or_else(waits)
}

/// What a person should know although nothing is wrong.
fn ready_message(seen: &Seen<'_>) -> State {
    let spec = &seen.cluster.object.spec;
    let mut notes = vec!["Clients can connect.".to_owned()];
    let authentication = spec.authentication.clone().unwrap_or_default();
    let names_users = |listener: &crate::api::doors::Listener| {
        listener.tls.as_ref().is_some_and(|tls| tls.username_from.is_some())
    };
    let lets_in = authentication.anonymous.unwrap_or(false)
        || authentication.users_secret_ref.is_some()
        || authentication.jwt.is_some()
        || spec.listeners.iter().flatten().any(names_users);
    if !lets_in {
        notes = vec!["Nobody may connect until spec.authentication says who.".to_owned()];
    }
    // Where little durability is wanted, so is the volume, its class and what becomes of it.
    let is_to_be_kept = spec.storage.as_ref().is_some_and(|storage| storage.size.is_some());
    let is_kept = |node: &Node<'_>| node.report.as_ref().is_ok_and(|report| report.keeps_state);
    if is_to_be_kept && !seen.nodes.iter().all(is_kept) {
        let note = "Sessions and retained messages are in memory: pods have no volumes in this version.";
        notes.push(note.to_owned());
    }
    let troubled = seen.nodes.iter().find_map(|node| {
        let trouble = node.report.as_ref().ok()?.store_trouble.as_ref()?;
        Some(format!("Node {} refuses what must be stored: {trouble}.", node.name))
    });
    notes.extend(troubled);
    State::yes("Ready", notes.join(" "))
}

fn listeners(world: &World, cluster: &Cluster<'_>) -> Vec<ListenerStatus> {
    let placement = world.placements.get(&cluster.key);
    let address = |listener: &settings::Listener| {
        let placement = placement?;
        let address = placement.listener_addresses.get(&listener.name)?;
        // A cluster whose spec is refused goes on listening where it did.
        match placement.listener_ports.get(&listener.name).filter(|port| **port != listener.port) {
            Some(_) => {
                let (host, _) = values::host_and_port(address)?;
                Some(values::join_host_port(&host, listener.port))
            }
            None => Some(address.clone()),
        }
    };
    let listeners = cluster.sealed.iter().flat_map(|sealed| &sealed.settings.listeners);
    listeners.map(|own| ListenerStatus { name: own.name.clone(), address: address(own) }).collect()
}

fn link_listener(cluster: &Cluster<'_>) -> Option<LinkListenerStatus> {
    let endpoint = &cluster.endpoint;
    let authority = endpoint.tls.as_ref().map(|tls| &tls.ca_pem);
    let status = endpoint.listens.then(|| LinkListenerStatus {
        address: endpoint.address.clone(),
        ca_fingerprint: authority.and_then(|pem| crate::pki::fingerprint(pem).ok()),
        not_after: endpoint.not_after.map(|time| time.to_string()),
    });
    status.and_then(reports::telling)
}

fn link_counts(
    cluster: &Cluster<'_>,
    links: &[Link<'_>],
    statuses: &BTreeMap<Key, ClusterLinkStatus>,
) -> LinkCounts {
    let is_ready = |link: &Link<'_>| {
        let conditions = statuses.get(&link.key).and_then(|status| status.conditions.as_deref());
        conditions::find(conditions, conditions::READY).is_some_and(|ready| ready.status == "True")
    };
    let own: Vec<&Link<'_>> = links.iter().filter(|link| link.joins(&cluster.key)).collect();
    let count = |links: usize| i32::try_from(links).unwrap_or(i32::MAX);
    LinkCounts { total: count(own.len()), ready: count(own.iter().filter(|link| is_ready(link)).count()) }
}
