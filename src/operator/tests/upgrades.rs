//! A new version of the operator over several clusters, on a real API server. The test is the StatefulSet controller, and says
//! which pods come back.
//!
//! What counts is what the server saw: a watch of all StatefulSets, from the first one on, tells it in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use kube::api::{DynamicObject, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::nodes::cluster;
use super::pushes::Puppet;
use super::scene::{Operator, Scene, condition, exists, message, play};
use crate::operator::Options;
use crate::operator::build::Kind;
use crate::operator::watch::api;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn image_of(set: &Value) -> &str {
    set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}

fn version(number: u32) -> String {
    format!("example.org/mqlink:{number}")
}

/// Whether its pods run what it says.
fn is_complete(set: &Value) -> bool {
    let status = &set["status"];
    status["observedGeneration"] == set["metadata"]["generation"]
        && status["currentRevision"] == status["updateRevision"]
}

/// What the server saw of StatefulSets: each time how many of them were restarting.
struct Witness {
    task: JoinHandle<()>,
    restarting: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Witness {
    /// Watches from now on.
    async fn begin(scene: &Scene) -> Witness {
        let api = api(&scene.client, Kind::StatefulSet, Some(&scene.namespace));
        let list = api.list(&Default::default()).await.expect("it can be listed");
        let from = list.metadata.resource_version.expect("a list has one");
        let mut events = api.watch(&WatchParams::default(), &from).await.expect("it can be watched").boxed();
        let restarting = Arc::<Mutex<Vec<_>>>::default();
        let seen = Arc::clone(&restarting);
        let task = tokio::spawn(async move {
            let mut sets = BTreeMap::new();
            while let Some(event) = events.next().await {
                let Ok(WatchEvent::Added(set) | WatchEvent::Modified(set)) = event else { continue };
                let name = set.metadata.name.clone().unwrap_or_default();
                sets.insert(name, serde_json::to_value::<DynamicObject>(set).expect("plain data"));
                let under_way =
                    sets.iter().filter(|(_, set)| !is_complete(set)).map(|(name, _)| name.clone());
                seen.lock().expect("no panic").push(under_way.collect());
            }
        });
        Witness { task, restarting }
    }

    /// Fails if there were ever two; gives the order in which they went.
    fn order(&self) -> Vec<String> {
        let all = self.restarting.lock().expect("no panic");
        assert!(all.iter().all(|those| those.len() < 2), "two at a time: {all:?}");
        let mut order: Vec<String> = all.iter().flatten().cloned().collect();
        order.dedup();
        order
    }
}

impl Scene {
    /// What Kubernetes makes of a StatefulSet that changed: its pod comes back, or does not.
    async fn roll(&self, name: &str, comes_back: bool) {
        let set = self.get(Kind::StatefulSet, name).await;
        let revision = format!("{name}-{}", image_of(&set).rsplit(':').next().expect("a version"));
        let before = set["status"]["currentRevision"].clone();
        let status = json!({"status": {
            "observedGeneration": set["metadata"]["generation"],
            "replicas": 1,
            "readyReplicas": i32::from(comes_back),
            "currentRevision": if comes_back { json!(revision) } else { before },
            "updateRevision": revision,
        }});
        let api = api(&self.client, Kind::StatefulSet, Some(&self.namespace));
        let patched = api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
        patched.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn runs(&self, name: &str, number: u32) {
        let wanted = version(number);
        self.until(Kind::StatefulSet, name, |set| set.is_some_and(|set| image_of(set) == wanted)).await;
    }

    /// These wait, and say for whom; none of them was touched.
    async fn wait_for(&self, names: &[&str], before: &str, images: &str) {
        let why = format!("MqttCluster {}/{before} is", self.namespace);
        for name in names {
            let waits = |object: Option<&Value>| {
                condition(object, "Progressing") == Some(("True", "UpdateWaiting"))
                    && object.is_some_and(|it| message(it, "Progressing").contains(&why))
            };
            self.until(Kind::MqttCluster, name, waits).await;
            assert_eq!(image_of(&self.get(Kind::StatefulSet, name).await), images);
        }
    }

    /// An operator of another version; the one before is gone.
    fn upgrade(&self, number: u32) -> Operator {
        Operator::start(self.client.clone(), Options { image: version(number), ..self.options() })
    }

    async fn three(&self) -> Vec<Puppet> {
        let mut puppets = Vec::new();
        let operator = self.upgrade(1);
        for name in NAMES {
            self.create(Kind::MqttCluster, cluster(name)).await;
            self.until(Kind::StatefulSet, name, exists).await;
            self.roll(name, true).await;
            puppets.push(self.puppet(name).await);
        }
        drop(operator);
        puppets
    }
}

#[test]
fn a_new_version_restarts_one_cluster_after_the_other_though_operators_die_meanwhile() {
    play(async |scene| {
        let _puppets = scene.three().await;
        let witness = Witness::begin(&scene).await;
        for (at, name) in NAMES.iter().enumerate() {
            // Each is begun by one operator; another one has to know that, and a third what follows.
            let operator = scene.upgrade(2);
            scene.runs(name, 2).await;
            drop(operator);
            let mut operator = scene.upgrade(2);
            scene.wait_for(&NAMES[at + 1..], name, &version(1)).await;
            operator.rests(&scene).await;
            drop(operator);
            scene.roll(name, true).await;
        }
        let mut operator = scene.upgrade(2);
        operator.rests(&scene).await;
        for name in NAMES {
            let us = scene.get(Kind::MqttCluster, name).await;
            assert_eq!(condition(Some(&us), "Progressing"), Some(("True", "Complete")));
        }
        assert_eq!(witness.order(), NAMES);
    });
}

#[test]
fn a_cluster_that_does_not_come_back_stops_the_rest_until_it_does() {
    play(async |scene| {
        let _puppets = scene.three().await;
        let witness = Witness::begin(&scene).await;
        let operator = scene.upgrade(2);
        scene.runs("a", 2).await;
        scene.roll("a", false).await;
        scene.wait_for(&["b", "c"], "a", &version(1)).await;
        drop(operator);
        // Nor does an operator that starts anew take it for done; and a spec that is of no use now is no end of it either.
        let operator = scene.upgrade(2);
        scene.merge(Kind::MqttCluster, "a", json!({"spec": {"replicas": 3}})).await;
        let is_refused =
            |object: Option<&Value>| condition(object, "Accepted") == Some(("False", "ReplicasUnsupported"));
        scene.until(Kind::MqttCluster, "a", is_refused).await;
        scene.wait_for(&["b", "c"], "a", &version(1)).await;
        scene.merge(Kind::MqttCluster, "a", json!({"spec": {"replicas": 1}})).await;
        drop(operator);
        // The version after that may mend it, and goes on with the others.
        let mut operator = scene.upgrade(3);
        scene.runs("a", 3).await;
        scene.wait_for(&["b", "c"], "a", &version(1)).await;
        operator.rests(&scene).await;
        scene.wait_for(&["b", "c"], "a", &version(1)).await;
        for (name, next) in [("a", Some("b")), ("b", Some("c")), ("c", None)] {
            scene.roll(name, true).await;
            if let Some(next) = next {
                scene.runs(next, 3).await;
            }
        }
        operator.rests(&scene).await;
        assert_eq!(witness.order(), NAMES);
    });
}
