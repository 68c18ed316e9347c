//! An operator and a namespace of its own on a real API server, where one is at hand.

use std::time::Duration;

use kube::Client;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::operator::build::Kind;
use crate::operator::run::{Progress, operate};
use crate::operator::watch::api;
use crate::operator::{Lease, OperatorError, Options, Pace, Scope, Vitals};
use crate::testing::Server;

pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);
const SAMPLE: &str = include_str!("../../../config/samples/two-regions.yaml");

/// A namespace, and who works in it.
pub(super) struct Scene {
    pub(super) client: Client,
    pub(super) namespace: String,
}

/// An operator at work; it ends with the value.
pub(super) struct Operator {
    pub(super) task: JoinHandle<Result<(), OperatorError>>,
    pub(super) progress: watch::Receiver<Progress>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Operator {
    pub(super) fn start(client: Client, options: Options) -> Operator {
        Operator::start_until(client, options, std::future::pending())
    }

    /// An operator that is told to end.
    pub(super) fn start_until(
        client: Client,
        options: Options,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Operator {
        let (tell, progress) = watch::channel(Progress::default());
        Operator { task: tokio::spawn(operate(client, options, tell, end)), progress }
    }

    /// Waits for a decision that leaves nothing to write.
    pub(super) async fn settles(&mut self) {
        self.progress.mark_unchanged();
        let settled = tokio::time::timeout(WAIT_MAX, self.progress.changed()).await;
        settled.expect("it settles in time").expect("it goes on");
    }

    /// The same, after something was done that it gets to see.
    pub(super) async fn settles_after<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.progress.mark_unchanged();
        let done = work.await;
        let settled = tokio::time::timeout(WAIT_MAX, self.progress.changed()).await;
        settled.expect("it settles in time").expect("it goes on");
        done
    }

    /// Whether it decides nothing for so long.
    pub(super) async fn is_quiet(&mut self, time: Duration) -> bool {
        self.progress.mark_unchanged();
        tokio::time::timeout(time, self.progress.changed()).await.is_err()
    }
}

impl Operator {
    /// Waits until it writes nothing more; what is there then.
    pub(super) async fn rests(&mut self, scene: &Scene) -> Vec<String> {
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

    pub(super) fn operator_with(&self, lease: Option<Lease>) -> Operator {
        Operator::start(self.client.clone(), Options { lease, ..self.options() })
    }

    pub(super) fn options(&self) -> Options {
        Options {
            scope: Scope::Namespaces(vec![self.namespace.clone()]),
            image: "example.org/mqlink:1".to_owned(),
            lease: None,
            vitals: Vitals::default(),
        }
    }

    /// A Lease that goes as fast as a busy machine can follow.
    pub(super) fn lease(&self, holder: &str) -> Option<Lease> {
        let pace = Pace { life: Duration::from_secs(6), beat: Duration::from_millis(500) };
        Some(Lease { namespace: self.namespace.clone(), holder: holder.to_owned(), pace })
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
    pub(super) async fn names(&self) -> Vec<String> {
        let versions = self.versions().await;
        versions.iter().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect()
    }

    /// What is said of clusters and links.
    pub(super) async fn statuses(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for kind in [Kind::MqttCluster, Kind::ClusterLink] {
            let list = api(&self.client, kind, Some(&self.namespace)).list(&ListParams::default()).await;
            all.extend(
                list.expect("it can be listed").into_iter().map(|object| object.data["status"].clone()),
            );
        }
        all
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
    play_on(async |_, it| scene(it).await);
}

/// The same, with the server beside it.
pub(super) fn play_on(scene: impl AsyncFnOnce(&'static Server, Scene)) {
    let Some(server) = Server::shared() else { return };
    server.block_on(async |client| {
        let namespace = server.namespace().await;
        scene(server, Scene { client, namespace }).await;
    });
}

pub(super) fn condition<'a>(object: Option<&'a Value>, type_: &str) -> Option<(&'a str, &'a str)> {
    let conditions = object?["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == type_)?;
    Some((found["status"].as_str()?, found["reason"].as_str()?))
}

pub(super) fn message(object: &Value, type_: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().expect("conditions");
    let found = conditions.iter().find(|condition| condition["type"] == type_);
    found.and_then(|it| it["message"].as_str()).expect("a message").to_owned()
}

pub(super) fn exists(object: Option<&Value>) -> bool {
    object.is_some()
}

pub(super) fn is_gone(object: Option<&Value>) -> bool {
    object.is_none()
}
