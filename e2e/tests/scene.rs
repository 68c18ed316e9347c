//! A namespace of its own for each test, what a user does in it, and waiting for what follows.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, Location};

use futures::{FutureExt, StreamExt, pin_mut};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use mqlink::api::{ClusterLink, MqttCluster};
use serde_json::Value;
use tokio::sync::RwLock;
use tokio::time::timeout;

use crate::process::{Ended, WAIT_MAX, run};
use crate::report;

/// Where `config/` installs the operator, and what it is called there.
pub(crate) const HOME: &str = "mqlink-system";
pub(crate) const OPERATOR: &str = "mqlink-operator";

/// Held by every test as a reader, and as a writer by one that takes the operator away.
static OPERATOR_IN_USE: RwLock<()> = RwLock::const_new(());

/// A kind of object that the tests look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cluster,
    Link,
    Pod,
    StatefulSet,
    Secret,
    Service,
    ServiceAccount,
    DisruptionBudget,
    Namespace,
}

impl Kind {
    /// Everything that the operator writes.
    pub(crate) const WRITTEN: [Kind; 7] = [
        Kind::Cluster,
        Kind::Link,
        Kind::StatefulSet,
        Kind::Secret,
        Kind::Service,
        Kind::ServiceAccount,
        Kind::DisruptionBudget,
    ];

    fn resource(self) -> ApiResource {
        match self {
            Kind::Cluster => ApiResource::erase::<MqttCluster>(&()),
            Kind::Link => ApiResource::erase::<ClusterLink>(&()),
            Kind::Pod => ApiResource::erase::<Pod>(&()),
            Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Kind::Secret => ApiResource::erase::<Secret>(&()),
            Kind::Service => ApiResource::erase::<Service>(&()),
            Kind::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Kind::DisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Kind::Namespace => ApiResource::erase::<Namespace>(&()),
        }
    }
}

/// A namespace that admits only pods of the level `restricted`.
pub(crate) struct Scene {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// What operators said that were taken away since.
    pub(crate) said: RefCell<String>,
    /// The image of operator and brokers.
    pub(crate) image: String,
}

/// Plays a scene beside others.
pub(crate) fn play(name: &str, scene: impl AsyncFnOnce(&Scene)) {
    on_a_runtime(async {
        let _operator = OPERATOR_IN_USE.read().await;
        play_now(name, scene).await;
    });
}

/// Plays a scene while no other is played: one in which the operator is away. It is back afterwards.
pub(crate) fn play_alone(name: &str, scene: impl AsyncFnOnce(&Scene)) {
    on_a_runtime(async {
        let _operator = OPERATOR_IN_USE.write().await;
        let done = AssertUnwindSafe(play_now(name, scene)).catch_unwind().await;
        start_operator().await;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn on_a_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work);
}

async fn play_now(name: &str, scene: impl AsyncFnOnce(&Scene)) {
    let here = Scene::open(name).await;
    let played = async {
        scene(&here).await;
        nobody_crashed(&here).await;
    };
    let done = AssertUnwindSafe(played).catch_unwind().await;
    if done.is_err() {
        report::leave(&here).await;
    }
    here.close().await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Neither the operator nor a broker of the scene ended by itself: a pod of theirs whose container was started again did.
async fn nobody_crashed(scene: &Scene) {
    let operator = format!("app.kubernetes.io/name={OPERATOR}");
    let brokers = format!("app.kubernetes.io/managed-by={OPERATOR}");
    let beside = scene.beside();
    for (namespace, selector) in [(HOME, &operator), (&*scene.namespace, &brokers), (&*beside, &brokers)] {
        let pods: Api<Pod> = Api::namespaced(scene.client.clone(), namespace);
        for pod in pods.list(&ListParams::default().labels(selector)).await.expect("pods can be listed") {
            let name = pod.metadata.name.unwrap_or_default();
            for container in pod.status.and_then(|it| it.container_statuses).into_iter().flatten() {
                let why = container.last_state;
                assert_eq!(container.restart_count, 0, "{name} in {namespace} was started again: {why:?}");
            }
        }
    }
}

/// The name of the cluster where it is one of this repository, whose network the tests can reach and cut. For another one
/// e2e/run.sh gives an empty name. In CI it has to say.
pub(crate) fn own_cluster() -> Option<String> {
    let name = std::env::var("MQLINK_E2E_CLUSTER");
    assert!(name.is_ok() || std::env::var_os("CI").is_none(), "e2e/run.sh says whose cluster this is");
    name.ok().filter(|name| !name.is_empty())
}

/// The same, for the few tests that need it: with another cluster they say that they abstain.
pub(crate) fn needs_own_cluster() -> Option<String> {
    let name = own_cluster();
    if name.is_none() {
        eprintln!("abstains: this needs a cluster of this repository (docs/e2e.md)");
    }
    name
}

/// Takes the operator away: its pod is gone when this returns, and its log is kept for the report.
pub(crate) async fn stop_operator(scene: &Scene) {
    nobody_crashed(scene).await;
    let deployment = format!("deployment/{OPERATOR}");
    let said = kubectl(&["-n", HOME, "logs", &deployment]).await;
    scene.said.borrow_mut().push_str(&said);
    kubectl(&["-n", HOME, "scale", &deployment, "--replicas=0"]).await;
    let selector = format!("app.kubernetes.io/name={OPERATOR}");
    scene.kubectl(&["-n", HOME, "wait", "--for=delete", "pod", "-l", &selector, "--timeout=60s"]).await;
}

/// Brings the operator back, and waits until it runs.
pub(crate) async fn start_operator() {
    let deployment = format!("deployment/{OPERATOR}");
    kubectl(&["-n", HOME, "scale", &deployment, "--replicas=1"]).await;
    kubectl(&["-n", HOME, "rollout", "status", &deployment, "--timeout=60s"]).await;
}

/// Runs kubectl, which must succeed; what it printed.
#[track_caller]
pub(crate) fn kubectl(arguments: &[&str]) -> impl Future<Output = String> {
    let caller = Location::caller();
    async move {
        let ended = run("kubectl", arguments, "").await;
        assert!(ended.is_ok(), "kubectl {}: {}, {caller}", arguments.join(" "), ended.stderr);
        ended.stdout
    }
}

impl Scene {
    async fn open(name: &str) -> Scene {
        let client = Client::try_default().await.unwrap_or_else(|error| {
            panic!("these tests need a Kubernetes with mqlink on it: use `make e2e`, or see docs/e2e.md ({error})")
        });
        let operators: Api<Deployment> = Api::namespaced(client.clone(), HOME);
        let operator = operators.get(OPERATOR).await.unwrap_or_else(|error| {
            panic!("install mqlink first: kubectl apply --server-side -k config/default ({error})")
        });
        let pod = operator.spec.and_then(|spec| spec.template.spec).expect("a Deployment has a pod");
        let image = pod.containers.into_iter().find_map(|it| it.image).expect("a container has an image");
        let said = RefCell::default();
        let scene = Scene { client, namespace: format!("e2e-{name}-{}", tag()), said, image };
        scene.create_namespace().await;
        scene
    }

    async fn create_namespace(&self) {
        let namespace = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {}, \
             labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}",
            self.namespace
        );
        self.apply(&namespace).await;
    }

    /// Removes the namespace, and the one beside it.
    async fn close(&self) {
        if std::env::var_os("MQLINK_E2E_KEEP").is_none() {
            let beside = self.beside();
            let both =
                ["delete", "namespace", "--ignore-not-found", "--wait=false", &self.namespace, &beside];
            run("kubectl", &both, "").await;
        }
    }

    pub(crate) fn beside(&self) -> String {
        format!("{}-2", self.namespace)
    }

    /// Another namespace of this scene, which goes with it.
    pub(crate) async fn neighbour(&self) -> Scene {
        let scene = Scene {
            client: self.client.clone(),
            namespace: self.beside(),
            said: RefCell::default(),
            image: self.image.clone(),
        };
        scene.create_namespace().await;
        scene
    }

    /// Runs kubectl in the namespace, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn kubectl<'a>(&'a self, arguments: &'a [&'a str]) -> impl Future<Output = String> + 'a {
        let caller = Location::caller();
        async move {
            let ended = self.try_kubectl(arguments, "").await;
            assert!(ended.is_ok(), "kubectl {}: {}, {caller}", arguments.join(" "), ended.stderr);
            ended.stdout
        }
    }

    /// Runs kubectl in the namespace.
    pub(crate) async fn try_kubectl(&self, arguments: &[&str], input: &str) -> Ended {
        let all: Vec<&str> = ["-n", &self.namespace].into_iter().chain(arguments.iter().copied()).collect();
        run("kubectl", &all, input).await
    }

    /// What a user does with a manifest; what kubectl says to it.
    #[track_caller]
    pub(crate) fn apply<'a>(&'a self, manifest: &'a str) -> impl Future<Output = String> + 'a {
        let caller = Location::caller();
        async move {
            let ended = self.try_kubectl(&["apply", "-f", "-"], manifest).await;
            assert!(ended.is_ok(), "kubectl apply: {}, {caller}", ended.stderr);
            ended.stdout
        }
    }

    /// Applies a manifest that must be refused; what the user is told.
    #[track_caller]
    pub(crate) fn refused<'a>(&'a self, manifest: &'a str) -> impl Future<Output = String> + 'a {
        let caller = Location::caller();
        async move {
            let ended = self.try_kubectl(&["apply", "-f", "-"], manifest).await;
            assert!(!ended.is_ok(), "kubectl apply: {}, {caller}", ended.stdout);
            ended.stderr
        }
    }

    /// Merges a patch into an object, as a user who edits it.
    pub(crate) async fn edit(&self, object: &str, patch: &str) {
        self.kubectl(&["patch", object, "--type=merge", "-p", patch]).await;
    }

    /// Access to a kind of object.
    pub(crate) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        match kind {
            Kind::Namespace => Api::all_with(self.client.clone(), &kind.resource()),
            _ => Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource()),
        }
    }

    /// Waits until an object is as it should be, `None` when there is none; returns what it was then.
    #[track_caller]
    pub(crate) fn until<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        what: &'a str,
        holds: impl Fn(Option<&Value>) -> bool + 'a,
    ) -> impl Future<Output = Value> + 'a {
        let caller = Location::caller();
        async move {
            let seen = watch_object(self.api(kind), name);
            pin_mut!(seen);
            let mut last = Value::Null;
            let found = timeout(WAIT_MAX, async {
                while let Some(next) = seen.next().await {
                    // An interrupted watch begins again by itself.
                    let Ok(object) = next else { continue };
                    let object = object.map(|object| serde_json::to_value(object).expect("plain data"));
                    let is_found = holds(object.as_ref());
                    last = object.unwrap_or_default();
                    if is_found {
                        return;
                    }
                }
            });
            if found.await.is_err() {
                let status = serde_json::to_string_pretty(&last["status"]).expect("plain data");
                panic!("{kind:?} {name} in {}: not {what} in time, {caller}\n{status}", self.namespace);
            }
            last
        }
    }

    /// Waits until a condition has a status, for the generation that is there now or a later one; the condition.
    #[track_caller]
    pub(crate) fn condition<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        type_: &'a str,
        status: &'a str,
    ) -> impl Future<Output = Value> + 'a {
        let caller = Location::caller();
        async move {
            let what = format!("{type_}={status} ({caller})");
            let holds = |object: Option<&Value>| {
                condition(object, type_).is_some_and(|it| it["status"] == status && is_current(object, it))
            };
            let object = self.until(kind, name, &what, holds).await;
            condition(Some(&object), type_).cloned().expect("it was there")
        }
    }

    /// Waits until a condition has a status for a reason; the condition.
    #[track_caller]
    pub(crate) fn says<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        type_: &'a str,
        status: &'a str,
        reason: &'a str,
    ) -> impl Future<Output = Value> + 'a {
        let caller = Location::caller();
        async move {
            let what = format!("{type_}={status}/{reason} ({caller})");
            let holds = |object: Option<&Value>| {
                condition(object, type_).is_some_and(|it| {
                    it["status"] == status && it["reason"] == reason && is_current(object, it)
                })
            };
            let object = self.until(kind, name, &what, holds).await;
            condition(Some(&object), type_).cloned().expect("it was there")
        }
    }

    /// Waits until a cluster and a link are what one can use.
    #[track_caller]
    pub(crate) fn ready<'a>(&'a self, kind: Kind, name: &'a str) -> impl Future<Output = Value> + 'a {
        self.condition(kind, name, "Ready", "True")
    }

    /// The pod of a cluster, once it is ready.
    pub(crate) async fn pod(&self, cluster: &str) -> Value {
        let is_ready =
            |pod: Option<&Value>| condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True");
        self.until(Kind::Pod, &format!("{cluster}-0"), "ready", is_ready).await
    }

    /// The address of that pod.
    pub(crate) async fn address(&self, cluster: &str) -> String {
        self.pod(cluster).await["status"]["podIP"].as_str().expect("a ready pod has one").to_owned()
    }
}

/// A condition of an object.
pub(crate) fn condition<'a>(object: Option<&'a Value>, type_: &str) -> Option<&'a Value> {
    let conditions = object?["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == type_)
}

/// Whether a condition speaks of the object's present generation.
fn is_current(object: Option<&Value>, condition: &Value) -> bool {
    let generation = object.map(|object| &object["metadata"]["generation"]);
    condition["observedGeneration"].is_null() || generation == Some(&condition["observedGeneration"])
}

/// Four characters that no run before had.
fn tag() -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("{:04x}", nanos.as_micros() & 0xffff)
}
