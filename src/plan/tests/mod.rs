//! Worlds made from manifests, and the plans that follow.
//!
//! Times are numbers and randomness is a counter, so every plan can be told beforehand.
//! Manifests are YAML as users write it; what nodes report is made from the settings that they were planned to run.

mod clusters;
mod conditions;
mod credentials;
mod links;
mod random;
mod requests;
mod samples;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::*;
use crate::api::conditions::find;
use crate::settings::report::{
    LinkConnections, LinkReport, ListenerReport, NodeReport, PeerHalf, Verdict, VerdictStatus,
};

/// Two clusters, and a link that nothing is wrong with.
const TWO: &str = "
kind: MqttCluster
metadata: {name: us}
spec: {authentication: {anonymous: true}}
---
kind: MqttCluster
metadata: {name: eu}
spec: {authentication: {anonymous: true}, listeners: [{name: mqtt, protocol: MQTT, port: 2883}], linkListener: {port: 12883}}
---
kind: ClusterLink
metadata: {name: us-eu}
spec: {clusterRef: {name: us}, topics: ['a/#', 'a/b'], remote: {clusterRef: {name: eu}, topics: [b]}}
";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn random(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut state = seed;
    move |buffer| {
        for byte in buffer {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 33) as u8;
        }
    }
}

/// A world of manifests, each cluster placed on this machine with one node that has not reported.
fn world(manifests: &str) -> World {
    let mut world = World::default();
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
    for document in documents {
        match document["kind"].as_str().unwrap() {
            "MqttCluster" => world.clusters.push(serde_json::from_value(whole(document)).unwrap()),
            "ClusterLink" => world.links.push(serde_json::from_value(whole(document)).unwrap()),
            "Secret" => world.put_secret(secret(&document)),
            other => panic!("{other}"),
        }
    }
    for cluster in &world.clusters {
        let name = cluster.metadata.name.clone().unwrap();
        let port = cluster.spec.link_port().unwrap_or_default();
        let placement = Placement {
            bind: "127.0.0.1".into(),
            link_address: cluster.spec.link_port().is_some().then(|| format!("127.0.0.1:{port}")),
            nodes: vec![format!("{name}-0")],
            ..Placement::default()
        };
        world.placements.insert(Key::of(cluster), placement);
    }
    world
}

fn whole(mut document: Value) -> Value {
    document["apiVersion"] = "mqlink.dev/v1alpha1".into();
    document["metadata"]["generation"] = 1.into();
    document
}

fn secret(document: &Value) -> Secret {
    let data = document["stringData"].as_object().unwrap();
    let bytes = |value: &Value| value.as_str().unwrap().as_bytes().to_vec();
    Secret {
        namespace: document["metadata"]["namespace"].as_str().unwrap_or("default").to_owned(),
        name: document["metadata"]["name"].as_str().unwrap().to_owned(),
        data: data.iter().map(|(key, value)| (key.clone(), bytes(value))).collect(),
        ..Secret::default()
    }
}

fn key(name: &str) -> Key {
    match name.split_once('/') {
        Some((namespace, name)) => Key::new(namespace, name),
        None => Key::new("default", name),
    }
}

fn planned(world: &World) -> Plan {
    let plan = plan(world, at(0), &mut random(1));
    for settings in plan.settings.values() {
        settings.check().unwrap_or_else(|invalid| panic!("{invalid}"));
    }
    plan
}

fn verdict(reason: &str) -> Verdict {
    Verdict::new(VerdictStatus::True, reason, "")
}

/// The world a moment later: what was planned runs, everyone is content, and statuses are as published.
fn later(mut world: World) -> World {
    let plan = planned(&world);
    for (cluster, settings) in &plan.settings {
        let links = settings.links.iter().map(|link| LinkReport {
            id: link.id.clone(),
            revision: link.revision.clone(),
            resync: link.resync.clone(),
            connected: verdict("Connected"),
            peer_agrees: verdict("Agreed"),
            routes_synced: verdict("Synced"),
            peer: Some(PeerHalf {
                cluster: link.peer.clone(),
                enabled: true,
                topics: vec!["b".into()],
                nodes: 1,
            }),
            connections: LinkConnections { wanted: 1, open: 1 },
            rtt_ms: Some(1),
            ..LinkReport::default()
        });
        let node = format!("{}-0", cluster.name);
        let report = NodeReport {
            node: node.clone(),
            version: "0.1.0".into(),
            settings_hash: settings.hash(),
            listeners: vec![ListenerReport { name: "mqtt".into(), port: 1883, error: None }],
            links: links.collect(),
            ..NodeReport::default()
        };
        let view = NodeView { report: Some(report.into()), ..NodeView::default() };
        world.reports.insert(cluster.clone(), BTreeMap::from([(node, view)]));
    }
    publish(&mut world, plan);
    world
}

/// Keeps of a plan what its applier keeps.
fn publish(world: &mut World, plan: Plan) {
    for cluster in &mut world.clusters {
        cluster.status = plan.clusters.get(&Key::of(cluster)).cloned();
    }
    for link in &mut world.links {
        link.status = plan.links.get(&Key::of(link)).cloned();
    }
    world.running = plan.settings;
    world.minted = plan.minted;
}

/// The report of a cluster's one node.
fn report<'a>(world: &'a mut World, cluster: &str) -> &'a mut NodeReport {
    let views = world.reports.get_mut(&key(cluster)).unwrap();
    Arc::make_mut(views.values_mut().next().unwrap().report.as_mut().unwrap())
}

fn view<'a>(world: &'a mut World, cluster: &str) -> &'a mut NodeView {
    world.reports.get_mut(&key(cluster)).unwrap().values_mut().next().unwrap()
}

fn link_condition(plan: &Plan, link: &str, type_: &str) -> Condition {
    let status = plan.links.get(&key(link)).unwrap_or_else(|| panic!("no link {link}"));
    find(status.conditions.as_deref(), type_).unwrap_or_else(|| panic!("no {type_}")).clone()
}

fn cluster_condition(plan: &Plan, cluster: &str, type_: &str) -> Condition {
    let status = plan.clusters.get(&key(cluster)).unwrap_or_else(|| panic!("no cluster {cluster}"));
    find(status.conditions.as_deref(), type_).unwrap_or_else(|| panic!("no {type_}")).clone()
}

/// `True/Ready` and the like.
fn short(condition: &Condition) -> String {
    format!("{}/{}", condition.status, condition.reason)
}

#[track_caller]
fn check_link(plan: &Plan, link: &str, type_: &str, expected: &str) {
    let condition = link_condition(plan, link, type_);
    assert_eq!(short(&condition), expected, "{type_} of {link}: {}", condition.message);
}

#[track_caller]
fn check_cluster(plan: &Plan, cluster: &str, type_: &str, expected: &str) {
    let condition = cluster_condition(plan, cluster, type_);
    assert_eq!(short(&condition), expected, "{type_} of {cluster}: {}", condition.message);
}

/// All conditions of all objects, one a line, for snapshots.
fn table(plan: &Plan) -> String {
    let line = |key: &Key, c: &Condition| format!("{key} {}={} {}", c.type_, short(c), c.message);
    let links = plan.links.iter().flat_map(|(key, status)| {
        status.conditions.iter().flatten().map(move |condition| line(key, condition))
    });
    let clusters = plan.clusters.iter().flat_map(|(key, status)| {
        status.conditions.iter().flatten().map(move |condition| line(key, condition))
    });
    clusters.chain(links).collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_makes_an_empty_plan() {
    let plan = planned(&World::default());
    assert!(plan.settings.is_empty() && plan.clusters.is_empty() && plan.links.is_empty());
}
