//! MQTT clients: in pods, where they find brokers by name, and outside, through `kubectl port-forward`. All are `mqlink pub` and
//! `mqlink sub`; what must *not* arrive is shown by a marker that was published after it and did.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::process::{Ended, Running, WAIT_MAX, run};
use crate::scene::{Kind, Scene};

const MQLINK: &str = env!("CARGO_BIN_EXE_mqlink");
/// After so long without an echo a message is sent again: it came before the other side's wish for it.
const AGAIN: Duration = Duration::from_millis(500);

/// A client in a pod of its own. A node lets nobody through a Service before it has heard of the Service's pods, which may
/// be after the cluster is Ready: a client that fails is started again, as any workload is.
pub(crate) struct PodClient<'a> {
    scene: &'a Scene,
    name: String,
}

impl<'a> PodClient<'a> {
    /// Runs `mqlink` with these arguments in a pod.
    pub(crate) async fn start(scene: &'a Scene, name: &str, arguments: &[&str]) -> PodClient<'a> {
        let container = json!({
            "name": "mqlink", "image": scene.image, "args": arguments,
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false, "containers": [container],
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            },
        });
        scene.apply(&pod.to_string()).await;
        PodClient { scene, name: name.to_owned() }
    }

    /// Waits until it says something.
    pub(crate) async fn says(&self, words: &str) {
        let said = timeout(WAIT_MAX, async {
            for restarts in 0.. {
                let has_begun = |pod: Option<&Value>| pod.is_some_and(|pod| has_begun(pod, restarts));
                self.scene.until(Kind::Pod, &self.name, "begun", has_begun).await;
                let log = Running::start("kubectl", &["-n", &self.scene.namespace, "logs", "-f", &self.name]);
                if log.says(words).await {
                    return;
                }
            }
        });
        assert!(said.await.is_ok(), "pod {} does not say: {words}", self.name);
    }

    /// Waits for its good end: all that it said.
    pub(crate) async fn succeeds(self) -> String {
        let has_succeeded =
            |pod: Option<&Value>| pod.is_some_and(|pod| pod["status"]["phase"] == "Succeeded");
        self.scene.until(Kind::Pod, &self.name, "done", has_succeeded).await;
        let said = self.scene.kubectl(&["logs", &self.name]).await;
        self.scene.kubectl(&["delete", "pod", &self.name, "--wait=false"]).await;
        said
    }
}

/// Whether its client was started again so often, and has something to say.
fn has_begun(pod: &Value, restarts: u64) -> bool {
    let client = &pod["status"]["containerStatuses"][0];
    match client["restartCount"].as_u64() {
        Some(count) if count == restarts => client["state"]["waiting"].is_null(),
        Some(count) => count > restarts,
        None => false,
    }
}

/// A way from outside to a cluster's listener.
pub(crate) struct Door {
    _forward: Option<Running>,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What clients say more when they connect.
    more: Vec<String>,
}

impl Door {
    /// Opens a way to a port of an object, as `service/us-east-mqtt`.
    pub(crate) async fn open(scene: &Scene, object: &str, port: u16) -> Door {
        let wanted = format!(":{port}");
        let arguments = ["-n", &scene.namespace, "port-forward", "--address=127.0.0.1", object, &wanted];
        let mut forward = Running::start("kubectl", &arguments);
        let line = forward.line().await;
        let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{line}"));
        Door { _forward: Some(forward), ..Door::at("127.0.0.1", port) }
    }

    /// The way to an address that can be reached from here.
    pub(crate) fn at(host: &str, port: u16) -> Door {
        Door { _forward: None, host: host.to_owned(), port, more: Vec::new() }
    }

    /// The same, for a user.
    pub(crate) fn of(self, user: &str, password: &str) -> Door {
        self.with(&["-u", user, "-P", password])
    }

    /// The same, with options of `mqlink pub` and `mqlink sub`.
    pub(crate) fn with(mut self, options: &[&str]) -> Door {
        self.more.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    fn arguments<'a>(&'a self, verb: &'a str, port: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let own = self.more.iter().map(String::as_str);
        [verb, "-h", &self.host, "-p", port].into_iter().chain(own).chain(more.iter().copied()).collect()
    }

    /// Publishes a message and waits for the broker's word.
    pub(crate) async fn publish(&self, topic: &str, message: &str) -> Ended {
        let port = self.port.to_string();
        run(MQLINK, &self.arguments("pub", &port, &["-t", topic, "-m", message, "-q", "1", "-W", "20s"]), "")
            .await
    }

    /// Subscribes to filters; the broker has granted them when this returns.
    pub(crate) async fn listen(&self, filters: &[&str]) -> Running {
        let port = self.port.to_string();
        let filters = filters.iter().flat_map(|filter| ["-t", filter]);
        let more: Vec<&str> = filters.chain(["-q", "1", "--ready"]).collect();
        let mut listener = Running::start(MQLINK, &self.arguments("sub", &port, &more));
        listener.ready().await;
        listener
    }
}

/// Shows that a message crosses from one cluster to another.
pub(crate) async fn crosses(from: &Door, to: &Door, topic: &str) {
    let mut listener = to.listen(&[topic]).await;
    let line = publish_until_heard(from, &mut listener, topic).await;
    assert!(line.starts_with(&format!("{topic} ")), "{line}");
}

/// Shows that a message does not cross, where one of another topic does.
pub(crate) async fn stays(from: &Door, to: &Door, topic: &str, other: &str) {
    let mut listener = to.listen(&[topic, other]).await;
    publish_until_heard(from, &mut listener, other).await;
    let published = from.publish(topic, "stays").await;
    assert!(published.is_ok(), "{}", published.stderr);
    let published = from.publish(other, "marker").await;
    assert!(published.is_ok(), "{}", published.stderr);
    loop {
        let line = listener.line().await;
        assert!(line.starts_with(other), "{line} has crossed");
        if line == format!("{other} marker") {
            return;
        }
    }
}

async fn publish_until_heard(from: &Door, listener: &mut Running, topic: &str) -> String {
    let deadline = Instant::now() + WAIT_MAX;
    let mut number = 0;
    while Instant::now() < deadline {
        number += 1;
        let published = from.publish(topic, &number.to_string()).await;
        assert!(published.is_ok(), "{}", published.stderr);
        if let Some(line) = listener.line_within(AGAIN).await {
            return line;
        }
    }
    panic!("{topic} was published {number} times and not heard");
}
