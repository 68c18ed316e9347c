//! `mqlink operator` as a process: how it begins, answers and ends; on a real API server where one is at hand.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{MQLINK, free_port, get, signal, until};
use crate::server::{Server, TOKEN, send};

/// Longer than this nobody waits for an operator's end.
const END_MAX: Duration = Duration::from_secs(10);

fn command() -> Command {
    let mut command = Command::new(MQLINK);
    for name in ["POD_NAME", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        command.env_remove(name);
    }
    command.args(["--log", "warn", "operator"]);
    command
}

/// Where Kubernetes is, in a file.
fn kubeconfig(folder: &TempDir, url: &str) -> std::path::PathBuf {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "own",
        "clusters": [{"name": "own", "cluster": {"server": url, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "own", "user": {"token": TOKEN}}],
        "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own"}}],
    });
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, config.to_string()).expect("writable");
    path
}

/// What is said by an operator that ends by itself.
#[track_caller]
fn check(command: &mut Command, code: i32, says: &str) {
    let Output { status, stderr, .. } = command.output().expect("the binary is built");
    let said = String::from_utf8_lossy(&stderr);
    assert!(said.contains(says), "{said}");
    assert_eq!(status.code(), Some(code), "{said}");
}

#[test]
fn what_is_wrong_with_a_call_is_said() {
    let folder = TempDir::new().expect("a folder");
    let nowhere = kubeconfig(&folder, "https://127.0.0.1:1");
    check(command().args(["--probe-listen", "8080"]), 2, "--probe-listen");
    check(command().args(["--no-lease", "--lease-namespace", "a"]), 2, "--no-lease");
    check(command().env("KUBECONFIG", &nowhere), 2, "give --image");
    let none = folder.path().join("none");
    check(command().env("KUBECONFIG", &none).env("HOME", folder.path()), 1, "set KUBECONFIG");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut busy = command();
    busy.env("KUBECONFIG", &nowhere).args(["--image", "i", "--probe-listen", &address]);
    check(&mut busy, 1, "choose another --probe-listen");
}

#[test]
fn without_definitions_it_says_what_to_do() {
    let Some(server) = Server::shared() else { return };
    let folder = TempDir::new().expect("a folder");
    // Below a path that the server does not know there is no kind at all.
    let config = kubeconfig(&folder, &format!("https://127.0.0.1:{}/nowhere", server.port()));
    check(command().env("KUBECONFIG", config).args(["--image", "i"]), 1, "mqlink crds | kubectl apply");
}

/// An operator at work; it is killed with the value.
struct Operator {
    child: Child,
    probes: SocketAddr,
    _folder: TempDir,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Operator {
    fn start(url: &str, namespace: &str) -> Operator {
        let lease = ["--lease-namespace", namespace];
        Operator::start_as(command().args(["--image", "example.org/mqlink:1"]).args(lease), url, namespace)
    }

    fn start_as(command: &mut Command, url: &str, namespace: &str) -> Operator {
        let folder = TempDir::new().expect("a folder");
        let probes = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let child = command
            .env("KUBECONFIG", kubeconfig(&folder, url))
            .args(["--namespace", namespace])
            .args(["--probe-listen", &probes.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary is built");
        Operator { child, probes, _folder: folder }
    }

    /// Waits until it answers so.
    fn answers(&self, path: &str, says: &str) {
        until(&format!("{path} with {says}"), || get(self.probes, path).filter(|text| text.contains(says)));
    }

    /// Ends it by SIGTERM; how long that took.
    fn end(&mut self) -> Duration {
        let begun = Instant::now();
        signal(self.child.id(), Signal::SIGTERM);
        let status = until("its end", || self.child.try_wait().expect("it is ours"));
        assert_eq!(status.code(), Some(0));
        begun.elapsed()
    }
}

#[test]
fn it_operates_answers_and_gives_the_lease_back() {
    let Some(server) = Server::shared() else { return };
    let namespace = server.block_on(async |_| server.namespace().await);
    let holder = || {
        server.block_on(async |client| {
            let leases: Api<Lease> = Api::namespaced(client, &namespace);
            let lease = leases.get_opt("mqlink-operator").await.expect("the server answers")?;
            lease.spec?.holder_identity
        })
    };
    let mut operator = Operator::start(&format!("https://127.0.0.1:{}", server.port()), &namespace);
    operator.answers("/readyz", "ok: leads");
    operator.answers("/livez", "ok");
    assert!(holder().is_some());
    server.block_on(async |client| {
        let cluster = json!({
            "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": "us"}, "spec": {},
        });
        let url = format!("/apis/mqlink.dev/v1alpha1/namespaces/{namespace}/mqttclusters");
        send(&client, "POST", &url, &cluster).await.expect("it is valid");
    });
    operator.answers("/metrics", "mqlink_operator_writes_total{kind=\"StatefulSet\",result=\"done\"} 1");
    let set: Value = server.block_on(async |client| {
        let url = format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/us");
        send(&client, "GET", &url, &Value::Null).await.expect("it is there")
    });
    assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], "example.org/mqlink:1");
    let time = operator.end();
    assert!(time < END_MAX, "{time:?}");
    assert_eq!(holder(), None, "the next one need not wait");
}

#[test]
fn one_that_finds_no_server_waits_and_can_be_ended() {
    let nowhere = format!("https://127.0.0.1:{}", free_port());
    // In a pod it reads its image first.
    for command in [command().args(["--image", "i"]), command().env("POD_NAME", "operator-0")] {
        let mut operator = Operator::start_as(command, &nowhere, "mqtt");
        operator.answers("/livez", "ok");
        operator.answers("/readyz", "not there yet");
        let time = operator.end();
        assert!(time < END_MAX, "{time:?}");
    }
}

#[test]
fn one_that_cannot_have_the_lease_is_not_ready() {
    let Some(server) = Server::shared() else { return };
    let namespace = server.block_on(async |_| server.namespace().await);
    let mut with_lease = command();
    with_lease.args(["--image", "i", "--lease-namespace", "no-such-namespace"]);
    let operator =
        Operator::start_as(&mut with_lease, &format!("https://127.0.0.1:{}", server.port()), &namespace);
    operator.answers("/readyz", "the Lease cannot be had");
    assert!(get(operator.probes, "/readyz").is_some_and(|answer| answer.contains(" 503 ")));
}
