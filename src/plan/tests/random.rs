//! Any world makes a plan: nothing panics, and every plan keeps the promises that hold always.
//!
//! Worlds are drawn from small sets, so that names collide, references dangle and halves meet. proptest prints
//! the world that breaks a promise, shrunk.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::api::conditions::{OF_CLUSTER, OF_LINK};

fn cluster() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["us", "eu", "as"]);
    let spec = prop::sample::select(vec![
        "{}",
        "{clusterName: us}",
        "{replicas: 2}",
        "{linkListener: {enabled: false}}",
        "{linkListener: {tls: {mode: Plaintext}}}",
        "{linkListener: {tls: {mode: Secret, secretRef: {name: s}}}}",
        "{linkListener: {port: 1883}}",
        "{allowedLinks: {namespaces: All}}",
        "{authentication: {usersSecretRef: {name: s}}}",
        "{listeners: [{name: a, protocol: WS, port: 1}]}",
        "{limits: {maxQueuedBytes: 999999999999Ti, maxSessionExpiry: 99999h}}",
    ]);
    let namespace = prop::sample::select(vec!["default", "far"]);
    (name, namespace, spec).prop_map(|(name, namespace, spec)| {
        format!("kind: MqttCluster\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n")
    })
}

fn remote() -> impl Strategy<Value = String> {
    let managed = (prop::sample::select(vec!["us", "eu", "as"]), any::<bool>()).prop_map(|(name, far)| {
        let namespace = if far { ", namespace: far" } else { "" };
        format!("{{clusterRef: {{name: {name}{namespace}}}, topics: ['#', a/b]}}")
    });
    let external = prop::sample::select(vec![
        "server: 'h:1'",
        "dial: In",
        "server: 'mqtts://h:1', credentialsRef: {name: s}",
        "server: 'h:1', dial: Out, inbound: {credentialsRef: {name: s}}",
        "server: 'h:1', dialect: Emqx",
        "server: 'h'",
    ]);
    let external = (prop::sample::select(vec!["us", "x"]), external)
        .prop_map(|(name, rest)| format!("{{external: {{clusterName: {name}, {rest}}}}}"));
    prop_oneof![3 => managed, 1 => external]
}

fn link() -> impl Strategy<Value = String> {
    let local = prop::sample::select(vec!["us", "eu", "as"]);
    let topics = prop::sample::select(vec!["", "'#'", "a, b/+", "'a#'"]);
    (prop::sample::select(vec!["l", "m", "o"]), local, topics, remote(), any::<bool>()).prop_map(
        |(name, local, topics, remote, enabled)| {
            format!(
                "kind: ClusterLink\nmetadata: {{name: {name}}}\n\
                 spec: {{clusterRef: {{name: {local}}}, topics: [{topics}], remote: {remote}, enabled: {enabled}}}\n"
            )
        },
    )
}

fn manifests() -> impl Strategy<Value = String> {
    let secret =
        prop::sample::select(vec!["{username: a, password: b}", "{users: 'a:plain:b'}", "{users: 'a'}"])
            .prop_map(|data| format!("kind: Secret\nmetadata: {{name: s}}\nstringData: {data}\n"));
    let objects = (
        prop::collection::vec(cluster(), 0..5),
        prop::collection::vec(link(), 0..5),
        prop::collection::vec(secret, 0..2),
    );
    objects.prop_map(|(clusters, links, secrets)| [clusters, links, secrets].concat().join("---\n"))
}

/// Objects have names of their own: of two with the same one, only the first is there.
fn distinct(manifests: &str) -> World {
    let mut world = match manifests.is_empty() {
        true => World::default(),
        false => world(manifests),
    };
    let mut seen = BTreeSet::new();
    world.clusters.retain(|cluster| seen.insert(Key::of(cluster)));
    seen.clear();
    world.links.retain(|link| seen.insert(Key::of(link)));
    world
}

fn check_promises(world: &World) {
    let plan = planned(world);
    for (key, settings) in &plan.settings {
        let peers: BTreeSet<&str> = settings.links.iter().map(|link| link.peer.as_str()).collect();
        assert_eq!(peers.len(), settings.links.len(), "{key} is linked twice with one peer");
        assert!(settings.links.iter().all(|link| link.revision == link.compute_revision()));
    }
    assert_eq!((plan.clusters.len(), plan.links.len()), (world.clusters.len(), world.links.len()));
    for status in plan.links.values() {
        let types = status.conditions.iter().flatten().map(|condition| condition.type_.as_str());
        assert!(types.take(OF_LINK.len()).eq(OF_LINK));
    }
    for status in plan.clusters.values() {
        let types = status.conditions.iter().flatten().map(|condition| condition.type_.as_str());
        assert!(types.take(OF_CLUSTER.len()).eq(OF_CLUSTER));
    }
    let mut again = world.clone();
    publish(&mut again, plan.clone());
    again.running.clone_from(&world.running);
    let second = super::super::plan(&again, at(60), &mut random(99));
    assert_eq!(
        (second.settings, second.minted),
        (plan.settings, plan.minted),
        "a second plan changes nothing"
    );
    assert_eq!((second.links, second.clusters), (plan.links, plan.clusters));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_world_makes_a_plan_that_keeps_its_promises(manifests in manifests()) {
        check_promises(&distinct(&manifests));
        let world = distinct(&manifests);
        check_promises(&later(world));
    }
}
