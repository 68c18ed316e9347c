//! Kubernetes nodes that are emptied, and that die. Needs several of them: `make e2e-nodes`.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::clients::{Door, crosses};
use crate::pods::is_ready_again;
use crate::regions::{doors, two_regions};
use crate::scene::{HOME, Kind, Scene, condition, kubectl, needs_own_cluster, own_cluster, play_alone};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/cluster");
/// Nothing that was true may be said of a silent broker for longer than 15 s; and what a busy machine adds.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const GIVEN_UP: &str = "node.kubernetes.io/out-of-service";

/// Runs a program, without a runtime: for what has to be put back however a test ends.
fn ran(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

async fn names(arguments: &[&str], path: &str) -> Vec<String> {
    let output = format!("-o=jsonpath={{range .items[*]}}{{{path}}}{{\"\\n\"}}{{end}}");
    let all = kubectl(&[&["get"], arguments, &[&*output]].concat()).await;
    all.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn node_of(pod: &Value) -> String {
    pod["spec"]["nodeName"].as_str().expect("it is on a node").to_owned()
}

/// Nodes that take no pods, until this is dropped.
struct Closed(Vec<String>);

impl Closed {
    async fn all(nodes: impl Iterator<Item = &String>) -> Closed {
        let closed = Closed(nodes.cloned().collect());
        for node in &closed.0 {
            kubectl(&["cordon", node]).await;
        }
        closed
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        for node in &self.0 {
            ran("kubectl", &["uncordon", node]);
        }
    }
}

/// Has the broker of a cluster run on one of these nodes.
async fn moves(scene: &Scene, cluster: &str, is_good: impl Fn(&String) -> bool) {
    let before = scene.pod(cluster).await;
    if is_good(&node_of(&before)) {
        return;
    }
    let nodes = names(&["nodes"], ".metadata.name").await;
    let _closed = Closed::all(nodes.iter().filter(|node| !is_good(node))).await;
    let pod = format!("{cluster}-0");
    scene.kubectl(&["delete", "pod", &pod]).await;
    scene.until(Kind::Pod, &pod, "moved", |pod| is_ready_again(&before, pod)).await;
}

#[test]
fn a_drained_node_gives_its_broker_to_another() {
    play_alone("drained", async |scene| {
        let Some(_) = needs_own_cluster() else { return };
        two_regions(scene).await;
        let listeners =
            r#"[{"name": "mqtt", "protocol": "MQTT", "port": 2883, "service": {"type": "NodePort"}}]"#;
        scene.edit("mqttcluster/eu-west", &format!(r#"{{"spec": {{"listeners": {listeners}}}}}"#)).await;
        let before = scene.pod("eu-west").await;
        let node = node_of(&before);
        // The one broker of a cluster may be evicted, or nobody could empty a node but by force.
        let is_allowed =
            |budget: Option<&Value>| budget.is_some_and(|budget| budget["status"]["disruptionsAllowed"] == 1);
        scene.until(Kind::DisruptionBudget, "eu-west", "evictable", is_allowed).await;
        let closed = Closed(vec![node.clone()]);
        kubectl(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"]).await;
        let after =
            scene.until(Kind::Pod, "eu-west-0", "ready again", |pod| is_ready_again(&before, pod)).await;
        assert_ne!(node_of(&after), node);
        scene.ready(Kind::Cluster, "eu-west").await;
        scene.ready(Kind::Link, "us-eu").await;
        drop(closed);
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "drained/1").await;
        crosses(&eu, &us, "drained/2").await;
        if own_cluster().is_none() {
            return; // its nodes are not reached from here
        }
        let has_port = |service: Option<&Value>| {
            service.is_some_and(|service| service["spec"]["ports"][0]["nodePort"].is_u64())
        };
        let service = scene.until(Kind::Service, "eu-west-mqtt", "open on nodes", has_port).await;
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().and_then(|port| port.try_into().ok());
        // Also at a node where no broker is.
        for host in names(&["nodes"], ".status.addresses[?(@.type==\"InternalIP\")].address").await {
            crosses(&us, &Door::at(&host, port.expect("a port")), "drained/3").await;
        }
    });
}

/// A node whose power was cut. When this is dropped it is back, with an empty disk.
struct Dead {
    cluster: String,
    node: String,
}

impl Dead {
    fn cut(cluster: &str, node: &str) -> Dead {
        let dead = Dead { cluster: cluster.to_owned(), node: node.to_owned() };
        assert!(dead.turns("stop"), "node.sh fails");
        dead
    }

    fn turns(&self, verb: &str) -> bool {
        let number = self.node.trim_start_matches("node");
        ran(&format!("{SCRIPTS}/node.sh"), &[verb, &self.cluster, number])
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        let image = std::env::var("MQLINK_E2E_IMAGE_TAR").unwrap_or_default();
        ran("kubectl", &["taint", "node", &self.node, &format!("{GIVEN_UP}-")]);
        let is_back = self.turns("start") && ran(&format!("{SCRIPTS}/load.sh"), &[&self.cluster, &image]);
        eprintln!("{} {}", self.node, if is_back { "is back" } else { "did not come back" });
    }
}

#[test]
fn a_node_that_dies_makes_conditions_unknown_and_its_broker_comes_back_when_it_is_given_up() {
    play_alone("dead", async |scene| {
        let Some(cluster) = needs_own_cluster() else { return };
        two_regions(scene).await;
        let mut needed = names(&["pods", "-n", HOME], ".spec.nodeName").await;
        needed.extend(names(&["pods", "-n", "kube-system"], ".spec.nodeName").await);
        let nodes = names(&["nodes"], ".metadata.name").await;
        let victim = nodes.iter().find(|node| !needed.contains(node));
        let victim = victim.expect("one of three has neither the operator nor DNS").clone();
        moves(scene, "us-east", |node| *node != victim).await;
        moves(scene, "eu-west", |node| *node == victim).await;
        scene.ready(Kind::Link, "us-eu").await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "dead/before").await;
        let before = scene.pod("eu-west").await;

        let begun = Instant::now();
        let dead = Dead::cut(&cluster, &victim);
        for type_ in ["Ready", "Available", "Progressing", "ConfigApplied"] {
            scene.says(Kind::Cluster, "eu-west", type_, "Unknown", "NoReport").await;
        }
        scene.says(Kind::Link, "us-eu", "Programmed", "Unknown", "NoReport").await;
        let is_not_true = |link: Option<&Value>| {
            let is_true = |type_: &&str| condition(link, type_).is_some_and(|it| it["status"] == "True");
            !["Programmed", "Connected", "PeerAgrees", "RoutesSynced", "Ready"].iter().any(is_true)
        };
        scene.until(Kind::Link, "us-eu", "true in nothing", is_not_true).await;
        let took = begun.elapsed();
        assert!(took < SILENCE_MAX, "it took {took:?}");
        scene.ready(Kind::Cluster, "us-east").await;

        // Kubernetes puts no other pod in its place by itself: what to do is said, and does it.
        let says_how = |cluster: Option<&Value>| {
            let message = condition(cluster, "Ready").and_then(|ready| ready["message"].as_str());
            message.is_some_and(|message| message.contains("kubectl taint"))
        };
        let cluster = scene.until(Kind::Cluster, "eu-west", "told how to go on", says_how).await;
        let ready = condition(Some(&cluster), "Ready").expect("it was there");
        assert_eq!(ready["status"], "Unknown", "{ready}");
        let message = ready["message"].as_str().unwrap_or_default();
        let (_, advice) = message.split_once("kubectl ").expect("it was there");
        let advice: Vec<&str> = advice.split([' ', '(']).take(4).collect();
        assert_eq!(advice[..3], ["taint", "node", &victim], "{message}");
        kubectl(&advice).await;
        let after =
            scene.until(Kind::Pod, "eu-west-0", "ready again", |pod| is_ready_again(&before, pod)).await;
        assert_ne!(node_of(&after), victim);
        scene.ready(Kind::Cluster, "eu-west").await;
        scene.ready(Kind::Link, "us-eu").await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "dead/after/1").await;
        crosses(&eu, &us, "dead/after/2").await;
        drop(dead);
    });
}
