//! The operator, a real API server, and real nodes on this machine: a folder and a thread stand for each pod.
//!
//! What a kubelet does is done here: a pod gets an address, its node the files of its Secrets.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};

use super::scene::{Scene, condition, exists, message, play};
use crate::admin::{self, Command, Trust, Vitals};
use crate::node::{self, AdminPort};
use crate::operator::build::Kind;
use crate::operator::watch::api;
use crate::settings::report::NodeReport;
use crate::testing::Relay;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The Secrets with settings.
const PIECES: [&str; 3] = ["settings", "users", "links"];

/// A port that was free a moment ago.
pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind(SocketAddr::from((HERE, 0))).expect("a port");
    listener.local_addr().expect("bound").port()
}

/// A node in a thread, in place of a pod; it ends with the value.
pub(super) struct Pod {
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
pub(super) fn cluster(name: &str) -> Value {
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

pub(super) fn link(topics: &[&str]) -> Value {
    json!({
        "apiVersion": "mqlink.dev/v1alpha1", "kind": "ClusterLink", "metadata": {"name": "us-eu"},
        "spec": {"clusterRef": {"name": "us"}, "topics": topics, "remote": {"clusterRef": {"name": "eu"}, "topics": ["b/#"]}},
    })
}

pub(super) fn is(
    type_: &'static str,
    expected: (&'static str, &'static str),
) -> impl Fn(Option<&Value>) -> bool + Send {
    move |object: Option<&Value>| condition(object, type_) == Some(expected)
}

impl Scene {
    pub(super) async fn get(&self, kind: Kind, name: &str) -> Value {
        let object = api(&self.client, kind, Some(&self.namespace)).get(name).await.expect("it is there");
        serde_json::to_value(object).expect("plain data")
    }

    /// Mounts a Secret.
    pub(super) async fn mount(&self, secret: &str, folder: &Path) {
        self.until(Kind::Secret, secret, exists).await;
        let secret = self.get(Kind::Secret, secret).await;
        std::fs::create_dir_all(folder).expect("writable");
        for (name, value) in secret["data"].as_object().expect("it has data") {
            let bytes = STANDARD.decode(value.as_str().expect("text")).expect("base64");
            std::fs::write(folder.join(name), bytes).expect("writable");
        }
    }

    /// Makes the object of a cluster's pod, reached at a port of this machine.
    pub(super) async fn announce(&self, cluster: &str, port: u16) {
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
    pub(super) async fn start(&self, cluster: &str) -> Pod {
        let (pod, port) = self.start_alone(cluster, &PIECES).await;
        self.announce(cluster, port).await;
        pod
    }

    async fn start_alone(&self, cluster: &str, pieces: &[&str]) -> (Pod, u16) {
        let folder = TempDir::new().expect("a folder");
        let (settings, tls) = (folder.path().join("settings"), folder.path().join("admin"));
        for piece in pieces {
            self.mount(&format!("mqlink-{cluster}-{piece}"), &settings).await;
        }
        self.mount(&format!("mqlink-{cluster}-admin"), &tls).await;
        let port = free_port();
        let options = node::Options {
            config: vec![settings],
            node: format!("{cluster}-0"),
            admin_socket: None,
            data: None,
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

    pub(super) async fn create_two(&self) {
        self.create(Kind::MqttCluster, cluster("us")).await;
        self.create(Kind::MqttCluster, cluster("eu")).await;
        self.create(Kind::ClusterLink, link(&["a/#"])).await;
    }

    #[track_caller]
    pub(super) fn link_is(
        &self,
        type_: &'static str,
        expected: (&'static str, &'static str),
    ) -> impl Future<Output = ()> {
        self.until(Kind::ClusterLink, "us-eu", is(type_, expected))
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

#[test]
fn a_resync_is_done_once_and_told() {
    play(async |scene| {
        scene.create_two().await;
        let mut operator = scene.operator();
        let _nodes = (scene.start("us").await, scene.start("eu").await);
        scene.link_is("Ready", ("True", "Ready")).await;
        let ask = async |token: &str| {
            let annotations = json!({"metadata": {"annotations": {"mqlink.dev/resync": token}}});
            scene.merge(Kind::ClusterLink, "us-eu", annotations).await;
        };
        let is_done = |token: &'static str| {
            move |object: Option<&Value>| object.is_some_and(|it| it["status"]["lastHandledResync"] == token)
        };
        ask("first").await;
        scene.until(Kind::ClusterLink, "us-eu", is_done("first")).await;
        scene.link_is("Ready", ("True", "Ready")).await;
        // While no operator runs, it waits for one.
        drop(operator);
        ask("second").await;
        operator = scene.operator();
        scene.until(Kind::ClusterLink, "us-eu", is_done("second")).await;
        scene.link_is("Ready", ("True", "Ready")).await;
        let link = scene.get(Kind::ClusterLink, "us-eu").await;
        assert!(message(&link, "Accepted").ends_with("is valid."), "{link}");
        // A disabled link has nobody to tell: it is done once it is enabled.
        scene.merge(Kind::ClusterLink, "us-eu", json!({"spec": {"enabled": false}})).await;
        scene.link_is("Ready", ("False", "Disabled")).await;
        ask("third").await;
        scene.link_is("Programmed", ("True", "Programmed")).await;
        operator.rests(&scene).await;
        assert!(is_done("second")(Some(&scene.get(Kind::ClusterLink, "us-eu").await)));
        scene.merge(Kind::ClusterLink, "us-eu", json!({"spec": {"enabled": true}})).await;
        scene.until(Kind::ClusterLink, "us-eu", is_done("third")).await;
    });
}

#[test]
fn a_secret_reaches_the_running_node() {
    play(async |scene| {
        let mut us = cluster("us");
        us["spec"]["authentication"] = json!({"usersSecretRef": {"name": "people"}});
        scene.create(Kind::Secret, people("ann:plain:one")).await;
        scene.create(Kind::MqttCluster, us).await;
        let _operator = scene.operator();
        let _us = scene.start("us").await;
        scene.until(Kind::MqttCluster, "us", is("ConfigApplied", ("True", "Applied"))).await;
        let port = scene.get(Kind::MqttCluster, "us").await["spec"]["listeners"][0]["port"].clone();
        let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        until_connects(port, "ann", "one").await;
        let before = message(&scene.get(Kind::MqttCluster, "us").await, "ConfigApplied");
        scene.merge(Kind::Secret, "people", json!({"stringData": {"users": "bob:plain:two"}})).await;
        let confirms_another = |object: Option<&Value>| {
            condition(object, "ConfigApplied") == Some(("True", "Applied"))
                && object.is_some_and(|it| message(it, "ConfigApplied") != before)
        };
        scene.until(Kind::MqttCluster, "us", confirms_another).await;
        assert!(connects(port, "bob", "two").await);
        assert!(!connects(port, "ann", "one").await);
        let before = message(&scene.get(Kind::MqttCluster, "us").await, "ConfigApplied");
        // A mistake in it changes nothing that runs, and is said.
        scene.merge(Kind::Secret, "people", json!({"stringData": {"users": "no colon"}})).await;
        scene.until(Kind::MqttCluster, "us", is("ResolvedRefs", ("False", "SecretInvalid"))).await;
        let us = scene.get(Kind::MqttCluster, "us").await;
        assert_eq!(condition(Some(&us), "ConfigApplied"), Some(("True", "Applied")));
        assert_eq!(message(&us, "ConfigApplied"), before);
    });
}

/// T1: each mistake is the reason of Ready, and its correction is enough.
#[test]
fn mistakes_are_named_and_their_corrections_recover() {
    play(async |scene| {
        let (us, mut eu) = (cluster("us"), cluster("eu"));
        eu["spec"]["linkListener"]["tls"] = json!({"mode": "Plaintext"});
        let server = eu["spec"]["linkListener"]["advertisedAddress"].clone();
        scene.create(Kind::MqttCluster, us).await;
        scene.create(Kind::MqttCluster, eu).await;
        for (name, password) in [("wrong", "guessed"), ("right", "s3cret-s3cret-s3cret")] {
            scene.create(Kind::Secret, credentials(name, password)).await;
        }
        let inbound = json!({
            "clusterName": "us", "dial": "In", "inbound": {"credentialsRef": {"name": "right"}},
        });
        let outward = |cluster: &str, server: &Value, secret: &str| json!({"clusterName": cluster, "server": server, "dial": "Out", "credentialsRef": {"name": secret}});
        scene.create(Kind::ClusterLink, external("eu-us", "eu", inbound)).await;
        let nowhere = json!(format!("127.0.0.1:{}", free_port()));
        scene.create(Kind::ClusterLink, external("us-eu", "us", outward("eu", &nowhere, "wrong"))).await;
        let _operator = scene.operator();
        let _nodes = (scene.start("us").await, scene.start("eu").await);
        scene.link_is("Ready", ("False", "DialFailed")).await;
        let correct = |field: &str, value: Value| json!({"spec": {"remote": {"external": {field: value}}}});
        scene.merge(Kind::ClusterLink, "us-eu", correct("server", server.clone())).await;
        scene.link_is("Ready", ("False", "BadCredentials")).await;
        scene.link_is("Programmed", ("True", "Programmed")).await;
        // A password that changes in its Secret: where it is shown, and where it is asked for.
        let password = |password: &str| json!({"stringData": {"password": password}});
        scene.merge(Kind::Secret, "wrong", password("s3cret-s3cret-s3cret")).await;
        scene.link_is("Ready", ("True", "Ready")).await;
        scene.merge(Kind::Secret, "right", password("other-other-other-other")).await;
        scene.link_is("Ready", ("False", "BadCredentials")).await;
        scene.merge(Kind::ClusterLink, "us-eu", correct("credentialsRef", json!({"name": "right"}))).await;
        scene.link_is("Ready", ("True", "Ready")).await;
        scene.until(Kind::ClusterLink, "eu-us", is("Ready", ("True", "Ready"))).await;
        scene.merge(Kind::ClusterLink, "us-eu", correct("credentialsRef", json!({"name": "gone"}))).await;
        scene.link_is("Ready", ("False", "SecretNotFound")).await;
        // A name is for good: another link takes this one's place.
        scene.delete(Kind::ClusterLink, "us-eu").await;
        scene.create(Kind::ClusterLink, external("us-eu", "us", outward("ue", &server, "right"))).await;
        scene.link_is("Ready", ("False", "BadClusterName")).await;
        scene.delete(Kind::ClusterLink, "us-eu").await;
        scene.create(Kind::ClusterLink, external("us-eu", "us", outward("eu", &server, "right"))).await;
        scene.link_is("Ready", ("True", "Ready")).await;
    });
}

/// The settings of a cluster's links, as its Secret has them.
fn links_in(secret: &Value) -> String {
    let text = secret["data"]["links.json"].as_str().unwrap_or_default();
    String::from_utf8(STANDARD.decode(text).expect("a Secret is base64")).expect("settings are text")
}

/// T2: halves are disabled, enabled and deleted in any order, the last one too, and nobody waits for a peer that is gone.
#[test]
fn halves_come_and_go_in_any_order() {
    play(async |scene| {
        scene.create_two().await;
        let _operator = scene.operator();
        let us = scene.start("us").await;
        let eu = scene.start("eu").await;
        scene.link_is("Ready", ("True", "Ready")).await;
        for _ in 0..2 {
            scene.merge(Kind::ClusterLink, "us-eu", json!({"spec": {"enabled": false}})).await;
            scene.link_is("Ready", ("False", "Disabled")).await;
            scene.link_is("Programmed", ("True", "Programmed")).await;
            scene.merge(Kind::ClusterLink, "us-eu", json!({"spec": {"enabled": true}})).await;
            scene.link_is("Ready", ("True", "Ready")).await;
        }
        let has_half = |has: bool| {
            move |object: Option<&Value>| object.is_some_and(|it| links_in(it).contains("/us-eu") == has)
        };
        scene.until(Kind::Secret, "mqlink-eu-links", has_half(true)).await;
        scene.delete(Kind::ClusterLink, "us-eu").await;
        scene.until(Kind::MqttCluster, "eu", has_links(0, 0)).await;
        scene.until(Kind::Secret, "mqlink-eu-links", has_half(false)).await;
        scene.until(Kind::MqttCluster, "eu", is("ConfigApplied", ("True", "Applied"))).await;
        scene.create(Kind::ClusterLink, link(&["a/#"])).await;
        scene.link_is("Ready", ("True", "Ready")).await;
        scene.until(Kind::MqttCluster, "us", has_links(1, 1)).await;
        // The peer is gone without a word, and so is its pod's node.
        let _hole = scene.black_hole("eu").await;
        drop(eu);
        let begun = Instant::now();
        scene.delete(Kind::ClusterLink, "us-eu").await;
        scene.until(Kind::ClusterLink, "us-eu", |object| object.is_none()).await;
        scene.until(Kind::MqttCluster, "us", has_links(0, 0)).await;
        scene.until(Kind::MqttCluster, "us", is("ConfigApplied", ("True", "Applied"))).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits for the peer");
        drop(us);
    });
}

/// T2, T6: the network between two peers swallows everything. That shows, and deleting waits for nobody.
#[test]
fn a_peer_that_is_a_black_hole_shows_and_holds_nothing_up() {
    play(async |scene| {
        let mut relays = Vec::new();
        for name in ["us", "eu"] {
            let mut behind = cluster(name);
            let port = behind["spec"]["linkListener"]["port"].as_u64().and_then(|it| u16::try_from(it).ok());
            let relay = Relay::to(port.expect("a port")).await;
            behind["spec"]["linkListener"]["advertisedAddress"] =
                json!(format!("127.0.0.1:{}", relay.port()));
            scene.create(Kind::MqttCluster, behind).await;
            relays.push(relay);
        }
        scene.create(Kind::ClusterLink, link(&["a/#"])).await;
        let _operator = scene.operator();
        let _nodes = (scene.start("us").await, scene.start("eu").await);
        scene.link_is("Ready", ("True", "Ready")).await;
        relays.iter().for_each(Relay::cut);
        let shows = |object: Option<&Value>| {
            ["Connected", "Ready"]
                .iter()
                .all(|type_| condition(object, type_) == Some(("False", "ProbeTimeout")))
        };
        scene.until(Kind::ClusterLink, "us-eu", shows).await;
        let begun = Instant::now();
        scene.delete(Kind::ClusterLink, "us-eu").await;
        for cluster in ["us", "eu"] {
            scene.until(Kind::MqttCluster, cluster, has_links(0, 0)).await;
            scene.until(Kind::MqttCluster, cluster, is("ConfigApplied", ("True", "Applied"))).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits for the peer");
        relays.iter().for_each(Relay::mend);
        scene.create(Kind::ClusterLink, link(&["a/#"])).await;
        scene.link_is("Ready", ("True", "Ready")).await;
    });
}

#[test]
fn who_is_not_the_node_gets_nothing_and_stops_nobody() {
    play(async |scene| {
        scene.create_two().await;
        let _operator = scene.operator();
        let _us = scene.start("us").await;
        // One speaks no TLS, and never ends.
        let stranger = TcpListener::bind(SocketAddr::from((HERE, 0))).expect("a port");
        let port = stranger.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            let line = [b'x'; 65_536];
            while let Ok((mut socket, _)) = stranger.accept() {
                while socket.write_all(&line).is_ok() {}
            }
        });
        scene.announce("eu", port).await;
        let said = |object: Option<&Value>| {
            let conditions =
                object.and_then(|object| object["status"]["conditions"].as_array()).into_iter().flatten();
            // The link's own Ready is False: its peer cannot be dialled either.
            conditions.filter(|it| it["type"] == "Programmed" || it["type"] == "Available").any(|it| {
                it["status"] == "Unknown"
                    && it["message"].as_str().is_some_and(|text| text.contains("failed to reach 127.0.0.1"))
            })
        };
        scene.until(Kind::MqttCluster, "eu", said).await;
        scene.until(Kind::ClusterLink, "us-eu", said).await;
        scene.until(Kind::MqttCluster, "us", is("Ready", ("True", "Ready"))).await;
        // Another is the node of another cluster, with a good certificate of that one.
        scene.delete(Kind::Pod, "eu-0").await;
        let (other, port) = scene.start_alone("us", &PIECES[..1]).await;
        scene.announce("eu", port).await;
        scene.until(Kind::ClusterLink, "us-eu", said).await;
        // The right one comes at last.
        scene.delete(Kind::Pod, "eu-0").await;
        drop(other);
        let _eu = scene.start("eu").await;
        scene.link_is("Ready", ("True", "Ready")).await;
    });
}

#[test]
fn a_node_that_starts_with_half_of_its_settings_is_healed_by_a_push() {
    play(async |scene| {
        scene.create_two().await;
        let _operator = scene.operator();
        let _us = scene.start("us").await;
        let (_eu, port) = scene.start_alone("eu", &PIECES[..2]).await;
        scene.announce("eu", port).await;
        scene.link_is("Ready", ("True", "Ready")).await;
    });
}

#[test]
fn a_node_that_hangs_is_unknown_after_fifteen_seconds() {
    play(async |scene| {
        scene.create(Kind::MqttCluster, cluster("us")).await;
        let _operator = scene.operator();
        let (hanging, port) = scene.hanging("us").await;
        scene.announce("us", port).await;
        scene.until(Kind::MqttCluster, "us", is("Available", ("True", "Available"))).await;
        let begun = Instant::now();
        scene.until(Kind::MqttCluster, "us", is("Available", ("Unknown", "NoReport"))).await;
        assert!(begun.elapsed() > Duration::from_secs(10), "its word counts for a while");
        hanging.abort();
    });
}

/// Whether a client may come in: a CONNECT of MQTT 3.1.1, and the return code of its CONNACK.
pub(super) async fn connects(port: u16, user: &str, password: &str) -> bool {
    let text = |text: &str| [&[0, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let body =
        [&text("MQTT"), &[4, 0b1100_0010, 0, 60][..], &text("test"), &text(user), &text(password)].concat();
    let packet = [&[0x10, u8::try_from(body.len()).expect("short")], &body[..]].concat();
    let Ok(mut socket) = tokio::net::TcpStream::connect((HERE, port)).await else { return false };
    let mut answer = [0; 4];
    let asked = async {
        socket.write_all(&packet).await?;
        socket.read_exact(&mut answer).await
    };
    asked.await.is_ok() && answer == [0x20, 2, 0, 0]
}

pub(super) async fn until_connects(port: u16, user: &str, password: &str) {
    let mut tries = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..600 {
        if connects(port, user, password).await {
            return;
        }
        tries.tick().await;
    }
    panic!("{user} may not connect in time");
}

pub(super) fn people(users: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "people"}, "stringData": {"users": users}})
}

pub(super) fn credentials(name: &str, password: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"username": "us", "password": password},
    })
}

pub(super) fn external(name: &str, cluster: &str, external: Value) -> Value {
    json!({
        "apiVersion": "mqlink.dev/v1alpha1", "kind": "ClusterLink", "metadata": {"name": name},
        "spec": {"clusterRef": {"name": cluster}, "topics": ["#"], "remote": {"external": external}},
    })
}

pub(super) fn has_links(total: i64, ready: i64) -> impl Fn(Option<&Value>) -> bool + Send {
    move |object: Option<&Value>| {
        object.is_some_and(|it| it["status"]["links"] == json!({"total": total, "ready": ready}))
    }
}

impl Scene {
    /// Moves a cluster's pod to an address where everybody may connect and nobody ever answers.
    async fn black_hole(&self, cluster: &str) -> TcpListener {
        let pod = self.get(Kind::Pod, &format!("{cluster}-0")).await;
        let port = pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64().expect("a port");
        let port = u16::try_from(port).expect("a port");
        let hole =
            TcpListener::bind((Ipv4Addr::new(127, 0, 0, 9), port)).expect("this address has no ports yet");
        let status = json!({"status": {"podIP": "127.0.0.9", "podIPs": [{"ip": "127.0.0.9"}]}});
        let api = api(&self.client, Kind::Pod, Some(&self.namespace));
        let patched =
            api.patch_status(&format!("{cluster}-0"), &PatchParams::default(), &Patch::Merge(status)).await;
        patched.unwrap_or_else(|error| panic!("{error}"));
        hole
    }

    /// A node that says once how it is, and then nothing.
    async fn hanging(&self, cluster: &str) -> (tokio::task::JoinHandle<()>, u16) {
        let folder = TempDir::new().expect("a folder");
        self.mount(&format!("mqlink-{cluster}-admin"), folder.path()).await;
        let listener = admin::bind_tcp(SocketAddr::from((HERE, 0))).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let trust = Trust::read(folder.path()).expect("certificates");
        let report =
            NodeReport { node: format!("{cluster}-0"), version: "0".to_owned(), ..NodeReport::default() };
        let (report, reports) = watch::channel(Arc::new(report));
        let (commands, mut taken) = mpsc::channel(1);
        let routes = admin::routes(reports, commands, Arc::new(Vitals::new()), Duration::from_secs(3_600));
        let task = tokio::spawn(async move {
            let _kept = (folder, report);
            let answer = async {
                while let Some(command) = taken.recv().await {
                    if let Command::Refresh(reply) = command {
                        let _ = reply.send(());
                    }
                }
            };
            tokio::join!(admin::serve_tls(listener, trust, routes, Duration::from_secs(3_600)), answer);
        });
        (task, port)
    }
}
