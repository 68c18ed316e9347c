//! The rights in `config/`, held to what the operator does with them: an API server that grants them, and writes down what was
//! asked, sees a life of a cluster from its making to its end.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::scene::{Operator, Scene, exists, is_gone};
use crate::operator::build::Kind;
use crate::operator::run::operate;
use crate::operator::{Lease, Options, Scope, Vitals, own_image};
use crate::testing::{Server, send};

const OWN: &str = include_str!("../../../config/manager/rights.yaml");
const CLUSTER: &str = include_str!("../../../config/rbac/cluster/rights.yaml");
const NAMESPACE: &str = include_str!("../../../config/rbac/namespace/rights.yaml");
/// Where the operator runs.
const HOME: &str = "mqlink-system";
/// Where its clusters are.
const PLACE: &str = "mqtt";

/// A verb and a kind of object, in the operator's own namespace or where it works.
type Right = (&'static str, String, String);

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).expect("the rights are YAML")
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn granted(place: &'static str, yaml: &str) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for role in documents(yaml) {
        for rule in role["rules"].as_array().into_iter().flatten() {
            for (group, resource) in texts(&rule["apiGroups"])
                .flat_map(|group| texts(&rule["resources"]).map(move |it| (group, it)))
            {
                let object = format!("{resource}.{group}");
                rights.extend(texts(&rule["verbs"]).map(|verb| (place, verb.to_owned(), object.clone())));
            }
        }
    }
    rights
}

/// What was asked for, whatever the answer.
fn used(requests: &[Value]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for request in requests.iter().filter(|request| request["objectRef"].is_object()) {
        let of = |field: &str| request["objectRef"][field].as_str().unwrap_or_default();
        let place = if of("namespace") == HOME { "at home" } else { "at work" };
        let slash = if of("subresource").is_empty() { "" } else { "/" };
        let object = format!("{}{slash}{}.{}", of("resource"), of("subresource"), of("apiGroup"));
        let verb = request["verb"].as_str().unwrap_or_default();
        rights.insert((place, verb.to_owned(), object.clone()));
        // An apply that makes an object needs the right to create one.
        if verb == "patch" && request["responseStatus"]["code"] == 201 {
            rights.insert((place, "create".to_owned(), object));
        }
    }
    rights
}

async fn create(client: &Client, namespace: &str, mut manifest: Value) {
    manifest["metadata"]["namespace"] = json!(namespace);
    let core = format!("/api/v1/namespaces/{namespace}");
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let kind = manifest["kind"].as_str().unwrap_or_default().to_owned();
    let url = match kind.as_str() {
        "ServiceAccount" => format!("{core}/serviceaccounts"),
        "Pod" => format!("{core}/pods"),
        "Role" => format!("{rbac}/namespaces/{namespace}/roles"),
        "RoleBinding" => format!("{rbac}/namespaces/{namespace}/rolebindings"),
        kind => {
            manifest["metadata"].as_object_mut().expect("an object").remove("namespace");
            format!("{rbac}/{}s", kind.to_lowercase())
        }
    };
    send(client, "POST", &url, &manifest).await.unwrap_or_else(|error| panic!("{url}: {error}"));
}

/// A cluster comes, changes, and goes; so does a link.
async fn live(scene: &Scene) {
    scene.create_sample().await;
    scene.until(Kind::StatefulSet, "us-east", exists).await;
    scene.until(Kind::Service, "us-east-mqtt", exists).await;
    scene.until(Kind::Secret, "mqlink-us-eu-link", exists).await;
    // The second time is told as a series of the event that is there.
    for _ in 0..2 {
        let wrong = json!({"spec": {"ports": [{"name": "mqtt", "port": 1999}]}});
        scene.merge(Kind::Service, "us-east-mqtt", wrong).await;
        let mended = |it: Option<&Value>| it.is_some_and(|it| it["spec"]["ports"][0]["port"] == 1883);
        scene.until(Kind::Service, "us-east-mqtt", mended).await;
    }
    let change = json!({"spec": {
        "image": "example.org/mqlink:2", "listeners": [{"name": "other", "protocol": "MQTT", "port": 1884}],
    }});
    scene.merge(Kind::MqttCluster, "us-east", change).await;
    scene.until(Kind::Service, "us-east-other", exists).await;
    for (kind, name) in
        [(Kind::ClusterLink, "us-eu"), (Kind::MqttCluster, "us-east"), (Kind::MqttCluster, "eu-west")]
    {
        scene.delete(kind, name).await;
    }
    for kind in Kind::CHILDREN {
        let name = match kind {
            Kind::Secret => "mqlink-us-east-minted",
            Kind::Service => "us-east-nodes",
            Kind::ServiceAccount => "mqlink-us-east",
            _ => "us-east",
        };
        scene.until(kind, name, is_gone).await;
    }
    scene.until(Kind::Secret, "mqlink-us-eu-link", is_gone).await;
}

#[track_caller]
fn check(scope: Scope, rights: &str) {
    let Some(server) = Server::own() else { return };
    server.block_on(async |client| {
        for name in [HOME, PLACE] {
            let namespace = json!({"metadata": {"name": name}});
            send(&client, "POST", "/api/v1/namespaces", &namespace).await.expect("the namespace is new");
        }
        for (namespace, yaml) in [(HOME, OWN), (PLACE, rights)] {
            for manifest in documents(yaml) {
                create(&client, namespace, manifest).await;
            }
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator-0"},
            "spec": {"containers": [{"name": "operator", "image": "example.org/mqlink:1"}]},
        });
        create(&client, HOME, pod).await;

        let account = server.client_of_account();
        let image = own_image(&account, HOME, "operator-0").await.expect("it may read its own pod");
        assert_eq!(image, "example.org/mqlink:1");
        let lease = Some(Lease::new(HOME.to_owned(), "operator-0"));
        let (end, ends) = oneshot::channel::<()>();
        let options = Options { scope, image, lease, vitals: Vitals::default() };
        let work = operate(account, options, watch::Sender::default(), async move { drop(ends.await) });
        let operator = tokio::spawn(work);
        live(&Scene { client, namespace: PLACE.to_owned() }).await;
        end.send(()).expect("it is still at work");
        operator.await.expect("it does not crash").expect("it ends well");
    });
    let used = used(&server.requests_of_account());
    let granted: BTreeSet<Right> =
        granted("at home", OWN).into_iter().chain(granted("at work", rights)).collect();
    assert_eq!(used.difference(&granted).collect::<Vec<_>>(), Vec::<&Right>::new(), "missing in config/");
    assert_eq!(granted.difference(&used).collect::<Vec<_>>(), Vec::<&Right>::new(), "needless in config/");
}

#[test]
fn the_rights_for_all_namespaces_are_those_that_it_uses() {
    check(Scope::All, CLUSTER);
}

#[test]
fn the_rights_for_a_list_of_namespaces_are_those_that_it_uses() {
    check(Scope::Namespaces(vec![PLACE.to_owned()]), NAMESPACE);
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics with it")).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_namespace_without_the_role_is_left_alone_and_the_log_names_the_role() {
    const BARE: &str = "bare";
    let Some(server) = Server::own() else { return };
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    server.block_on(async |client| {
        for name in [HOME, PLACE, BARE] {
            let namespace = json!({"metadata": {"name": name}});
            send(&client, "POST", "/api/v1/namespaces", &namespace).await.expect("the namespace is new");
        }
        let bind = async |namespace: &str, yaml: &str| {
            for manifest in documents(yaml) {
                create(&client, namespace, manifest).await;
            }
        };
        bind(HOME, OWN).await;
        bind(PLACE, NAMESPACE).await;
        let [place, bare] =
            [PLACE, BARE].map(|name| Scene { client: client.clone(), namespace: name.to_owned() });
        place.create_sample().await;
        bare.create_sample().await;
        let scope = Scope::Namespaces(vec![PLACE.to_owned(), BARE.to_owned()]);
        let options = Options { scope, ..place.options() };
        let _operator = Operator::start(server.client_of_account(), options);
        place.until(Kind::StatefulSet, "us-east", exists).await;
        let text = log.text();
        let line = text.lines().find(|line| line.contains("is left alone")).expect("it says so");
        let role = documents(NAMESPACE)[0]["metadata"]["name"].as_str().expect("a name").to_owned();
        assert!(line.contains("ERROR") && line.contains(&format!("bind the Role {role} there")), "{line}");
        assert!(line.contains("namespace=\"bare\""), "{line}");
        bind(BARE, NAMESPACE).await;
        bare.until(Kind::StatefulSet, "us-east", exists).await;
    });
}
