//! Everything that `mqlink up` knows at a moment, and the plan that follows from it.
//!
//! The picture remembers what a plan needs of the past: when an object was first seen, what was minted, what ran, and the
//! statuses, for the times of their conditions. It starts nothing and reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::manifest::Manifests;
use super::ports::{Ports, Socket};
use crate::admin::StatusLine;
use crate::api::cluster::MqttClusterStatus;
use crate::api::link::ClusterLinkStatus;
use crate::api::{ClusterLink, MqttCluster};
use crate::plan::{self, Key, Minted, NodeView, Placement, Plan, Random, Sealed, Trouble, World};
use crate::settings::report::{LinkReport, NodeReport};

/// The link listener among the ports of a cluster; with a capital letter it is no name of another listener.
const LINK: &str = "linkListener";
/// Where everything listens.
const HOST: &str = "127.0.0.1";

/// What is seen of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Its process, while it lives.
    pub(super) pid: Option<u32>,
    /// Its last report.
    pub(super) report: Option<NodeReport>,
    /// When it was last heard.
    pub(super) heard: Option<Instant>,
    /// Why it does not run.
    pub(super) trouble: Option<String>,
}

/// Everything known.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) manifests: Manifests,
    pub(super) ports: Ports,
    /// By cluster: `mqlink up` runs one node of each.
    pub(super) nodes: BTreeMap<Key, Seen>,
    /// Where each node serves the admin protocol.
    pub(super) sockets: BTreeMap<Key, PathBuf>,
    pub(super) minted: Minted,
    pub(super) running: BTreeMap<Key, Sealed>,
    pub(super) clusters: BTreeMap<Key, MqttClusterStatus>,
    pub(super) links: BTreeMap<Key, ClusterLinkStatus>,
    born: BTreeMap<(&'static str, Key), Timestamp>,
}

/// The name of a cluster's one node.
pub(super) fn node_name(cluster: &Key) -> String {
    format!("{}-0", cluster.name)
}

/// The ports that the clusters of manifests want.
pub(super) fn wanted_ports(manifests: &Manifests) -> Vec<(Socket, u16)> {
    let mut wanted = Vec::new();
    for cluster in &manifests.clusters {
        let key = Key::of(cluster).to_string();
        let mut want = |listener: &str, port: i32| {
            let socket = Socket { cluster: key.clone(), listener: listener.to_owned() };
            wanted.extend(u16::try_from(port).ok().map(|port| (socket, port)));
        };
        cluster.spec.client_listeners().iter().for_each(|listener| want(&listener.name, listener.port));
        cluster.spec.link_port().into_iter().for_each(|port| want(LINK, port));
    }
    wanted
}

impl Picture {
    /// Takes over manifests and the ports for them.
    pub(super) fn take(&mut self, manifests: Manifests, ports: Ports) {
        self.manifests = manifests;
        self.ports = ports;
    }

    /// Notes a line of a node's status stream.
    pub(super) fn hear(&mut self, cluster: &Key, line: StatusLine, now: Instant) {
        let seen = self.nodes.entry(cluster.clone()).or_default();
        line.apply_to(seen.report.get_or_insert_default());
        seen.heard = Some(now);
        seen.trouble = None;
    }

    /// Notes that a node's process lives; its reports of before do not count any more.
    pub(super) fn started(&mut self, cluster: &Key, pid: u32) {
        let seen = self.nodes.entry(cluster.clone()).or_default();
        (seen.pid, seen.report) = (Some(pid), None);
    }

    /// Notes that a node's process is dead.
    pub(super) fn died(&mut self, cluster: &Key, why: String) {
        *self.nodes.entry(cluster.clone()).or_default() = Seen { trouble: Some(why), ..Seen::default() };
    }

    /// Makes the plan for what is known, and remembers it.
    pub(super) fn plan(&mut self, now: Timestamp, instant: Instant, random: Random<'_>) -> Plan {
        let world = self.world(now, instant);
        let plan = plan::plan(&world, now, random);
        self.nodes.retain(|key, _| plan.clusters.contains_key(key));
        self.minted = plan.minted.clone();
        self.running = plan.settings.clone();
        self.clusters = plan.clusters.clone();
        self.links = plan.links.clone();
        plan
    }

    fn world(&mut self, now: Timestamp, instant: Instant) -> World {
        let mut clusters = self.manifests.clusters.clone();
        for cluster in &mut clusters {
            let key = Key::of(cluster);
            self.date("cluster", &key, &mut cluster.metadata, now);
            cluster.status = self.clusters.get(&key).cloned();
        }
        let mut links = self.manifests.links.clone();
        for link in &mut links {
            let key = Key::of(link);
            self.date("link", &key, &mut link.metadata, now);
            link.status = self.links.get(&key).cloned();
        }
        self.forget_the_gone(&clusters, &links);
        World {
            placements: clusters.iter().map(|cluster| (Key::of(cluster), self.placement(cluster))).collect(),
            reports: self.nodes.iter().map(|(key, seen)| (key.clone(), views(key, seen, instant))).collect(),
            running: self.running.clone(),
            minted: self.minted.clone(),
            secrets: self.manifests.secrets.iter().map(|own| (own.key(), own.clone())).collect(),
            clusters,
            links,
            ..World::default()
        }
    }

    fn date(&mut self, kind: &'static str, key: &Key, metadata: &mut ObjectMeta, now: Timestamp) {
        let born = *self.born.entry((kind, key.clone())).or_insert(now);
        metadata.creation_timestamp = Some(Time(born));
    }

    fn forget_the_gone(&mut self, clusters: &[MqttCluster], links: &[ClusterLink]) {
        self.born.retain(|(kind, key), _| match *kind {
            "cluster" => clusters.iter().any(|cluster| Key::of(cluster) == *key),
            _ => links.iter().any(|link| Key::of(link) == *key),
        });
        self.running.retain(|key, _| clusters.iter().any(|cluster| Key::of(cluster) == *key));
    }

    fn placement(&self, cluster: &MqttCluster) -> Placement {
        let key = Key::of(cluster);
        let port = |listener: &str| self.ports.get(&key.to_string(), listener);
        let names = cluster.spec.client_listeners();
        let listeners =
            names.iter().filter_map(|listener| Some((listener.name.clone(), port(&listener.name)?)));
        let listener_ports: BTreeMap<String, u16> = listeners.collect();
        let address = |port: &u16| format!("{HOST}:{port}");
        Placement {
            bind: HOST.to_owned(),
            listener_addresses: listener_ports
                .iter()
                .map(|(name, port)| (name.clone(), address(port)))
                .collect(),
            listener_ports,
            link_port: port(LINK),
            link_address: port(LINK).as_ref().map(address),
            nodes: vec![node_name(&key)],
            ..Placement::default()
        }
    }

    /// The ports that nodes have by the settings that they run.
    pub(super) fn ports_in_use(&self) -> BTreeSet<u16> {
        let listeners = self.running.values().flat_map(|settings| &settings.listeners);
        let links = self.running.values().filter_map(|settings| settings.link_listener.as_ref());
        listeners.map(|listener| listener.port).chain(links.map(|listener| listener.port)).collect()
    }

    /// When an object was first seen.
    pub(super) fn born(&self, kind: &'static str, key: &Key) -> Option<Timestamp> {
        self.born.get(&(kind, key.clone())).copied()
    }

    /// What all nodes say of the halves of a link, with their cluster.
    pub(super) fn link_reports<'a>(&'a self, link: &Key) -> impl Iterator<Item = (&'a Key, &'a LinkReport)> {
        let id = link.to_string();
        let of_link = move |report: &&LinkReport| report.id.split('.').next() == Some(&id);
        let reports = self.nodes.iter().filter_map(|(key, seen)| Some((key, seen.report.as_ref()?)));
        reports.flat_map(move |(key, report)| {
            let of_link = of_link.clone();
            report.links.iter().filter(of_link).map(move |link| (key, link))
        })
    }
}

fn views(cluster: &Key, seen: &Seen, now: Instant) -> BTreeMap<String, NodeView> {
    let view = NodeView {
        report: seen.report.clone().map(Arc::new),
        age: seen.heard.map(|heard| now.saturating_duration_since(heard)).unwrap_or_default(),
        trouble: seen.trouble.clone().map(|message| Trouble { message, is_refused: false }),
        ..NodeView::default()
    };
    BTreeMap::from([(node_name(cluster), view)])
}
