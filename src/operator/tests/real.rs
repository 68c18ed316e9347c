//! The operator against a real API server, where one is at hand. Each test has a namespace and an operator of its own.

use std::time::Duration;

use kube::Client;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::operator::build::Kind;
use crate::operator::run::{Progress, operate};
use crate::operator::watch::api;
use crate::operator::{Lease, OperatorError, Options, Pace, Scope};
use crate::testing::Server;

const WAIT_MAX: Duration = Duration::from_secs(30);
const SAMPLE: &str = include_str!("../../../config/samples/two-regions.yaml");

/// A namespace, and who works in it.
pub(super) struct Scene {
    pub(super) client: Client,
    pub(super) namespace: String,
}

/// An operator at work; it ends with the value.
pub(super) struct Operator {
    task: JoinHandle<Result<(), OperatorError>>,
    progress: watch::Receiver<Progress>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Operator {
    /// Waits for a decision that leaves nothing to write.
    pub(super) async fn settles(&mut self) {
        self.progress.mark_unchanged();
        let settled = tokio::time::timeout(WAIT_MAX, self.progress.changed()).await;
        settled.expect("it settles in time").expect("it goes on");
    }

    /// Whether it decides nothing for so long.
    pub(super) async fn is_quiet(&mut self, time: Duration) -> bool {
        self.progress.mark_unchanged();
        tokio::time::timeout(time, self.progress.changed()).await.is_err()
    }
}

impl Operator {
    /// Waits until it writes nothing more, and ends it; what is there then.
    async fn leaves_nothing(mut self, scene: &Scene) -> Vec<String> {
        loop {
            let before = scene.versions().await;
            // A status that was just written is looked at again a second later.
            while tokio::time::timeout(Duration::from_secs(2), self.progress.changed()).await.is_ok() {}
            if scene.versions().await == before {
                return before;
            }
        }
    }
}

impl Scene {
    pub(super) fn operator(&self) -> Operator {
        self.operator_with(None)
    }

    fn operator_with(&self, lease: Option<Lease>) -> Operator {
        let options = Options {
            scope: Scope::Namespaces(vec![self.namespace.clone()]),
            image: "example.org/mqlink:1".to_owned(),
            lease,
        };
        let (tell, progress) = watch::channel(Progress::default());
        Operator {
            task: tokio::spawn(operate(self.client.clone(), options, tell, std::future::pending())),
            progress,
        }
    }

    pub(super) async fn create(&self, kind: Kind, manifest: Value) {
        let object: DynamicObject = serde_json::from_value(manifest).expect("an object");
        let created =
            api(&self.client, kind, Some(&self.namespace)).create(&PostParams::default(), &object).await;
        created.unwrap_or_else(|error| panic!("{error}"));
    }

    pub(super) async fn create_sample(&self) {
        for manifest in serde_saphyr::from_multiple::<Value>(SAMPLE).expect("the sample is YAML") {
            let kind = match manifest["kind"].as_str() {
                Some("MqttCluster") => Kind::MqttCluster,
                _ => Kind::ClusterLink,
            };
            self.create(kind, manifest).await;
        }
    }

    pub(super) async fn merge(&self, kind: Kind, name: &str, patch: Value) {
        let api = api(&self.client, kind, Some(&self.namespace));
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.unwrap_or_else(|error| panic!("{error}"));
    }

    pub(super) async fn delete(&self, kind: Kind, name: &str) {
        let deleted = api(&self.client, kind, Some(&self.namespace)).delete(name, &Default::default()).await;
        deleted.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until an object is as it should be; `None` when there is none.
    #[track_caller]
    pub(super) fn until<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        holds: impl Fn(Option<&Value>) -> bool + Send + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        let condition = move |object: Option<&DynamicObject>| {
            holds(object.map(|object| serde_json::to_value(object).expect("plain data")).as_ref())
        };
        let wait = await_condition(api(&self.client, kind, Some(&self.namespace)), name, condition);
        async move {
            let done = tokio::time::timeout(WAIT_MAX, wait).await;
            done.unwrap_or_else(|_| panic!("{kind:?} {name} is not as expected in time, {caller}"))
                .unwrap_or_else(|error| panic!("{kind:?} {name}: {error}, {caller}"));
        }
    }

    /// Everything in the namespace, as `Kind name`.
    async fn names(&self) -> Vec<String> {
        let versions = self.versions().await;
        versions.iter().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect()
    }

    /// Everything in the namespace, as `Kind name resourceVersion`.
    pub(super) async fn versions(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for kind in [Kind::MqttCluster, Kind::ClusterLink].into_iter().chain(Kind::CHILDREN) {
            let list = api(&self.client, kind, Some(&self.namespace)).list(&ListParams::default()).await;
            for object in list.expect("it can be listed") {
                let meta = object.metadata;
                let (name, version) =
                    (meta.name.unwrap_or_default(), meta.resource_version.unwrap_or_default());
                lines.push(format!("{kind:?} {name} {version}"));
            }
        }
        lines
    }
}

/// Plays a scene, where a server is at hand.
pub(super) fn play(scene: impl AsyncFnOnce(Scene)) {
    let Some(server) = Server::shared() else { return };
    server.block_on(async |client| {
        let namespace = server.namespace().await;
        scene(Scene { client, namespace }).await;
    });
}

pub(super) fn condition<'a>(object: Option<&'a Value>, type_: &str) -> Option<(&'a str, &'a str)> {
    let conditions = object?["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == type_)?;
    Some((found["status"].as_str()?, found["reason"].as_str()?))
}

pub(super) fn exists(object: Option<&Value>) -> bool {
    object.is_some()
}

pub(super) fn is_gone(object: Option<&Value>) -> bool {
    object.is_none()
}

#[test]
fn the_sample_becomes_objects_and_conditions() {
    play(async |scene| {
        scene.create_sample().await;
        let mut operator = scene.operator();
        operator.settles().await;
        let resolved =
            |object: Option<&Value>| condition(object, "ResolvedRefs") == Some(("True", "Resolved"));
        scene.until(Kind::ClusterLink, "us-eu", resolved).await;
        let pending = |object: Option<&Value>| condition(object, "Ready") == Some(("False", "PodsPending"));
        scene.until(Kind::ClusterLink, "us-eu", pending).await;
        scene
            .until(Kind::MqttCluster, "us-east", |object| {
                object.is_some_and(|object| object["status"]["linkListener"]["address"].is_string())
            })
            .await;
        operator.settles().await;
        insta::assert_snapshot!(scene.names().await.join("\n"));
    });
}

#[test]
fn a_second_operator_writes_nothing() {
    play(async |scene| {
        scene.create_sample().await;
        let first = scene.operator();
        scene.until(Kind::StatefulSet, "us-east", exists).await;
        scene.until(Kind::StatefulSet, "eu-west", exists).await;
        let before = first.leaves_nothing(&scene).await;
        scene.operator().settles().await;
        assert_eq!(scene.versions().await, before);
    });
}

#[test]
fn drift_is_repaired() {
    play(async |scene| {
        scene.create_sample().await;
        let _operator = scene.operator();
        let port = |port: i32| {
            move |object: Option<&Value>| {
                object.is_some_and(|object| object["spec"]["ports"][0]["port"] == port)
            }
        };
        scene.until(Kind::Service, "us-east-mqtt", port(1883)).await;
        let wrong = json!({"spec": {"ports": [{"name": "mqtt", "port": 1999}]}});
        scene.merge(Kind::Service, "us-east-mqtt", wrong).await;
        scene.until(Kind::Service, "us-east-mqtt", port(1883)).await;
        scene.delete(Kind::Secret, "mqlink-us-east-settings").await;
        scene.until(Kind::Secret, "mqlink-us-east-settings", exists).await;
        let strip = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}});
        scene.merge(Kind::Secret, "mqlink-us-eu-link", strip).await;
        scene
            .until(Kind::Secret, "mqlink-us-eu-link", |object| {
                object.is_some_and(|it| it["metadata"]["labels"]["app.kubernetes.io/managed-by"].is_string())
            })
            .await;
    });
}

#[test]
fn what_is_not_wanted_any_more_is_swept() {
    play(async |scene| {
        scene.create_sample().await;
        let _operator = scene.operator();
        scene.until(Kind::Service, "us-east-mqtt", exists).await;
        let other = json!({"spec": {"listeners": [{"name": "other", "protocol": "MQTT", "port": 1884}]}});
        scene.merge(Kind::MqttCluster, "us-east", other).await;
        scene.until(Kind::Service, "us-east-other", exists).await;
        scene.until(Kind::Service, "us-east-mqtt", is_gone).await;
        scene.until(Kind::Secret, "mqlink-us-eu-link", exists).await;
        scene.delete(Kind::ClusterLink, "us-eu").await;
        scene.until(Kind::Secret, "mqlink-us-eu-link", is_gone).await;
        scene.delete(Kind::MqttCluster, "us-east").await;
        scene.until(Kind::StatefulSet, "us-east", is_gone).await;
        scene.until(Kind::Secret, "mqlink-us-east-minted", is_gone).await;
        scene.until(Kind::StatefulSet, "eu-west", exists).await;
    });
}

#[test]
fn a_refused_spec_touches_nothing_that_runs() {
    play(async |scene| {
        scene.create_sample().await;
        let mut operator = scene.operator();
        scene.until(Kind::StatefulSet, "us-east", exists).await;
        let refused = json!({"spec": {"replicas": 3, "image": "example.org/other:2"}});
        scene.merge(Kind::MqttCluster, "us-east", refused).await;
        let is_refused = |object: Option<&Value>| {
            condition(object, "Accepted") == Some(("False", "ReplicasUnsupported"))
                && condition(object, "Stalled").is_some()
        };
        scene.until(Kind::MqttCluster, "us-east", is_refused).await;
        operator.settles().await;
        let as_before = |object: Option<&Value>| {
            object.is_some_and(|object| {
                object["spec"]["replicas"] == 1
                    && object["spec"]["template"]["spec"]["containers"][0]["image"] == "example.org/mqlink:1"
            })
        };
        scene.until(Kind::StatefulSet, "us-east", as_before).await;
        let mended = json!({"spec": {"replicas": 1, "image": "example.org/other:2"}});
        scene.merge(Kind::MqttCluster, "us-east", mended).await;
        scene
            .until(Kind::StatefulSet, "us-east", |object| {
                object.is_some_and(|object| {
                    object["spec"]["template"]["spec"]["containers"][0]["image"] == "example.org/other:2"
                })
            })
            .await;
    });
}

#[test]
fn an_object_of_somebody_else_is_left_alone() {
    play(async |scene| {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "us-east-mqtt"},
            "spec": {"ports": [{"port": 7}], "selector": {"app": "theirs"}},
        });
        scene.create(Kind::Service, service).await;
        let copy = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "copy", "labels": {"app.kubernetes.io/managed-by": "mqlink-operator"}},
        });
        scene.create(Kind::Secret, copy).await;
        scene.create_sample().await;
        let _operator = scene.operator();
        scene.until(Kind::StatefulSet, "us-east", exists).await;
        scene.until(Kind::Service, "us-east-link", exists).await;
        let theirs =
            |object: Option<&Value>| object.is_some_and(|it| it["spec"]["selector"]["app"] == "theirs");
        scene.until(Kind::Service, "us-east-mqtt", theirs).await;
        scene.delete(Kind::Service, "us-east-mqtt").await;
        let ours = |object: Option<&Value>| object.is_some_and(|it| it["spec"]["ports"][0]["port"] == 1883);
        scene.until(Kind::Service, "us-east-mqtt", ours).await;
        scene.until(Kind::Secret, "copy", exists).await;
    });
}

#[test]
fn a_secret_is_resolved_when_it_comes() {
    play(async |scene| {
        let cluster = json!({
            "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": "us-east"},
            "spec": {"authentication": {"usersSecretRef": {"name": "people"}}},
        });
        scene.create(Kind::MqttCluster, cluster).await;
        let _operator = scene.operator();
        let missing =
            |object: Option<&Value>| condition(object, "ResolvedRefs") == Some(("False", "SecretNotFound"));
        scene.until(Kind::MqttCluster, "us-east", missing).await;
        let people = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "people"},
            "stringData": {"users": "ann:plain:secret"},
        });
        scene.create(Kind::Secret, people).await;
        scene.until(Kind::StatefulSet, "us-east", exists).await;
    });
}

#[test]
fn without_definitions_it_says_what_to_do() {
    let Some(server) = Server::shared() else { return };
    server.block_on(async |_| {
        let client = server.client_below("/nowhere");
        let options = Options { scope: Scope::All, image: "i".to_owned(), lease: None };
        let error = crate::operator::run(client, options, std::future::pending()).await;
        let error = error.expect_err("there is nothing to operate").to_string();
        assert!(error.contains("mqlink crds | kubectl apply"), "{error}");
    });
}

#[test]
fn one_operator_works_at_a_time() {
    play(async |scene| {
        scene.create_sample().await;
        let lease = |holder: &str| {
            Some(Lease {
                namespace: scene.namespace.clone(),
                holder: holder.to_owned(),
                pace: Pace::default(),
            })
        };
        let first = scene.operator_with(lease("first"));
        scene.until(Kind::StatefulSet, "us-east", exists).await;
        let mut second = scene.operator_with(lease("second"));
        drop(first);
        second.settles().await;
        scene.delete(Kind::Service, "us-east-mqtt").await;
        scene.until(Kind::Service, "us-east-mqtt", exists).await;
    });
}
