//! The operator, a real API server, and real nodes on this machine: a folder and a thread stand for each pod.
//!
//! What a kubelet does is done here: a pod gets an address, its node the files of its Secrets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::real::{Scene, condition, exists, play};
use crate::node::{self, AdminPort};
use crate::operator::build::Kind;
use crate::operator::watch::api;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind(SocketAddr::from((HERE, 0))).expect("a port");
    listener.local_addr().expect("bound").port()
}

/// A node in a thread, in place of a pod; it ends with the value.
struct Pod {
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _folder: TempDir,
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the node ends in order");
        }
    }
}

/// A cluster whose ports are free here.
fn cluster(name: &str) -> Value {
    let link = free_port();
    json!({
        "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": name},
        "spec": {
            "authentication": {"anonymous": true},
            "listeners": [{"name": "mqtt", "protocol": "MQTT", "port": free_port()}],
            "linkListener": {"port": link, "advertisedAddress": format!("127.0.0.1:{link}")},
        },
    })
}

fn link(topics: &[&str]) -> Value {
    json!({
        "apiVersion": "mqlink.dev/v1alpha1", "kind": "ClusterLink", "metadata": {"name": "us-eu"},
        "spec": {"clusterRef": {"name": "us"}, "topics": topics, "remote": {"clusterRef": {"name": "eu"}, "topics": ["b/#"]}},
    })
}

fn is(type_: &'static str, expected: (&'static str, &'static str)) -> impl Fn(Option<&Value>) -> bool + Send {
    move |object: Option<&Value>| condition(object, type_) == Some(expected)
}

impl Scene {
    async fn get(&self, kind: Kind, name: &str) -> Value {
        let object = api(&self.client, kind, Some(&self.namespace)).get(name).await.expect("it is there");
        serde_json::to_value(object).expect("plain data")
    }

    /// Mounts a Secret.
    async fn mount(&self, secret: &str, folder: &Path) {
        self.until(Kind::Secret, secret, exists).await;
        let secret = self.get(Kind::Secret, secret).await;
        std::fs::create_dir_all(folder).expect("writable");
        for (name, value) in secret["data"].as_object().expect("it has data") {
            let bytes = STANDARD.decode(value.as_str().expect("text")).expect("base64");
            std::fs::write(folder.join(name), bytes).expect("writable");
        }
    }

    /// Makes the object of a cluster's pod, reached at a port of this machine.
    async fn announce(&self, cluster: &str, port: u16) {
        self.until(Kind::StatefulSet, cluster, exists).await;
        let set = self.get(Kind::StatefulSet, cluster).await;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{cluster}-0"), "labels": set["spec"]["template"]["metadata"]["labels"],
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "StatefulSet", "name": cluster, "uid": set["metadata"]["uid"], "controller": true,
                }],
            },
            "spec": {"containers": [{
                "name": "broker", "image": "none", "ports": [{"name": "admin", "containerPort": port}],
            }]},
        });
        self.create(Kind::Pod, pod).await;
        self.pod_is(cluster, "True").await;
    }

    async fn pod_is(&self, cluster: &str, ready: &str) {
        let status = json!({"status": {
            "phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": ready}],
        }});
        let api = api(&self.client, Kind::Pod, Some(&self.namespace));
        let patched =
            api.patch_status(&format!("{cluster}-0"), &PatchParams::default(), &Patch::Merge(status)).await;
        patched.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts the node of a cluster as its pod would, and makes the pod.
    async fn start(&self, cluster: &str) -> Pod {
        let (pod, port) = self.start_alone(cluster).await;
        self.announce(cluster, port).await;
        pod
    }

    async fn start_alone(&self, cluster: &str) -> (Pod, u16) {
        let folder = TempDir::new().expect("a folder");
        let (settings, tls) = (folder.path().join("settings"), folder.path().join("admin"));
        self.mount(&format!("mqlink-{cluster}-settings"), &settings).await;
        self.mount(&format!("mqlink-{cluster}-admin"), &tls).await;
        let port = free_port();
        let options = node::Options {
            config: vec![settings],
            node: format!("{cluster}-0"),
            admin_socket: None,
            admin_port: Some(AdminPort { address: SocketAddr::from((HERE, port)), tls_dir: tls }),
            probes: None,
            end_with_stdin: false,
        };
        let (end, ended) = oneshot::channel();
        let wait = async move {
            // It ends by being dropped.
            let _ = ended.await;
            Ok("the test is over")
        };
        let run = move || node::run_until(&options, wait).unwrap_or_else(|error| panic!("{error}"));
        let thread = std::thread::spawn(run);
        (Pod { end: Some(end), thread: Some(thread), _folder: folder }, port)
    }

    async fn create_two(&self) {
        self.create(Kind::MqttCluster, cluster("us")).await;
        self.create(Kind::MqttCluster, cluster("eu")).await;
        self.create(Kind::ClusterLink, link(&["a/#"])).await;
    }

    async fn link_is(&self, type_: &'static str, expected: (&'static str, &'static str)) {
        self.until(Kind::ClusterLink, "us-eu", is(type_, expected)).await;
    }
}

#[test]
fn a_link_between_two_nodes_turns_ready() {
    play(async |scene| {
        scene.create_two().await;
        let _operator = scene.operator();
        let _us = scene.start("us").await;
        let _eu = scene.start("eu").await;
        scene.link_is("Ready", ("True", "Ready")).await;
        for cluster in ["us", "eu"] {
            scene.until(Kind::MqttCluster, cluster, is("Ready", ("True", "Ready"))).await;
        }
        let link = scene.get(Kind::ClusterLink, "us-eu").await;
        assert_eq!(link["status"]["local"]["connections"], "1/1");
        assert_eq!(link["status"]["remote"]["topics"], json!(["b/#"]));
        scene.merge(Kind::ClusterLink, "us-eu", json!({"spec": {"remote": {"topics": ["c"]}}})).await;
        let follows = |object: Option<&Value>| {
            object.is_some_and(|it| it["status"]["remote"]["topics"] == json!(["c"]))
        };
        scene.until(Kind::ClusterLink, "us-eu", follows).await;
        scene.link_is("Ready", ("True", "Ready")).await;
    });
}
