//! How fast, how often and how much: what goes to nodes and what comes back, by the clock, against a real API server.
//!
//! A time is taken several times, and the one in the middle counts: a timer in the way would be in each of them. What a busy
//! machine adds is allowed for by what the plainest request takes on it meanwhile: there are about ten steps of that kind in
//! each way, and each gets one more such time.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::Request;
use kube::client::Body;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::nodes::{cluster, connects, external, free_port, is, link, people, until_connects};
use super::scene::{Operator, Scene, condition, play, play_on};
use crate::admin::{self, Applied, Command, NodeName, Pass, Trust, Vitals};
use crate::operator::build::Kind;
use crate::operator::lease::Fence;
use crate::operator::nodes::{NodeId, Nodes, Order, Rendering, Sight};
use crate::pki::{Authority, LeafRequest, Role, Usage};
use crate::plan::Key;
use crate::settings::report::{LinkReport, ListenerReport, NodeReport, Verdict, VerdictStatus};
use crate::settings::{Link, Pieces, Settings, User};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Times taken of each way.
const ROUNDS: usize = 5;
/// Steps in a way, each as long as a plain request.
const STEPS: u32 = 10;

/// Times of one way, and of plain requests meanwhile.
#[derive(Default)]
struct Times {
    ways: Vec<Duration>,
    steps: Vec<Duration>,
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

impl Times {
    /// Takes the time of one way.
    async fn take(&mut self, scene: &Scene, way: impl Future<Output = ()>) {
        let begun = Instant::now();
        way.await;
        self.ways.push(begun.elapsed());
        let begun = Instant::now();
        scene.get(Kind::MqttCluster, "us").await;
        self.steps.push(begun.elapsed());
    }

    #[track_caller]
    fn check(&self, what: &str, most: Duration) {
        let (way, step) = (median(&self.ways), median(&self.steps));
        eprintln!("{what}: {way:?} of {:?}; a request takes {step:?}", self.ways);
        assert!(
            way < most + STEPS * step,
            "{what} takes {way:?} of {:?}; a request takes {step:?}",
            self.ways
        );
    }
}

#[test]
fn a_change_reaches_running_nodes_within_two_seconds() {
    play(async |scene| {
        let mut us = cluster("us");
        us["spec"]["authentication"] = json!({"usersSecretRef": {"name": "people"}});
        let port = port_of(&us, 0);
        scene.create(Kind::Secret, people("ann:plain:one")).await;
        scene.create(Kind::MqttCluster, us).await;
        scene.create(Kind::MqttCluster, cluster("eu")).await;
        scene.create(Kind::ClusterLink, link(&["a/#"])).await;
        let _operator = scene.operator();
        let _nodes = (scene.start("us").await, scene.start("eu").await);
        scene.link_is("Ready", ("True", "Ready")).await;
        let (mut users, mut links) = (Times::default(), Times::default());
        for round in 0..ROUNDS {
            let name = format!("user{round}");
            let change = json!({"stringData": {"users": format!("{name}:plain:{name}")}});
            scene.merge(Kind::Secret, "people", change).await;
            users.take(&scene, until_connects(port, &name, &name)).await;
            scene
                .merge(Kind::ClusterLink, "us-eu", json!({"spec": {"topics": [format!("a/{round}")]}}))
                .await;
            let is_confirmed = |object: Option<&Value>| {
                let conditions = object.and_then(|it| it["status"]["conditions"].as_array());
                let mut programmed = conditions.into_iter().flatten().filter(|it| it["type"] == "Programmed");
                object.is_some_and(|link| {
                    programmed.any(|it| {
                        it["status"] == "True" && it["observedGeneration"] == link["metadata"]["generation"]
                    })
                })
            };
            links.take(&scene, scene.until(Kind::ClusterLink, "us-eu", is_confirmed)).await;
        }
        users.check("a password, from its Secret to a login", Duration::from_secs(2));
        links.check("topics, from a spec to Programmed", Duration::from_secs(2));
    });
}

/// The port of one of a cluster's listeners.
fn port_of(cluster: &Value, listener: usize) -> u16 {
    let port = cluster["spec"]["listeners"][listener]["port"].as_u64();
    port.and_then(|port| u16::try_from(port).ok()).expect("a port")
}

/// Waits until something holds, for as long as [`until_connects`] does.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let mut tries = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tries.tick().await;
    }
    panic!("not in time: {what}");
}

/// Whether a client that nobody knows may subscribe: the return code of its SUBACK in MQTT 3.1.1. `None`: it was closed before
/// that, as happens to who is in the midst of it when a rule comes that forbids it.
async fn subscribes(port: u16, filter: &str) -> Option<bool> {
    let length = u8::try_from(filter.len()).expect("short");
    let connect = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04test";
    let subscribe = [&[0x82, length + 5, 0, 1, 0, length], filter.as_bytes(), &[0]].concat();
    let mut socket = TcpStream::connect((HERE, port)).await.expect("it listens");
    let mut answer = [0; 9];
    let asked = async {
        socket.write_all(&[&connect[..], &subscribe].concat()).await?;
        socket.read_exact(&mut answer).await
    };
    asked.await.ok()?;
    assert_eq!(answer[..8], [0x20, 2, 0, 0, 0x90, 3, 0, 1]);
    Some(answer[8] == 0)
}

/// Whether who trusts this authority alone comes through TLS to a port.
async fn is_trusted(port: u16, authority: &Authority) -> bool {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(authority.certificate_pem.as_bytes()).expect("PEM");
    roots.add(ca).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let Ok(socket) = TcpStream::connect((HERE, port)).await else { return false };
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.is_ok()
}

/// An authority, and what the Secret of a listener holds of it.
fn papers() -> (Authority, Value) {
    let now = jiff::Timestamp::now();
    let authority = Authority::mint("somebody", now, &mut random);
    let request =
        LeafRequest { role: None, usage: Usage::Server, dns: vec!["localhost".to_owned()], ips: vec![] };
    let leaf = authority.issue(&request, now, &mut random).expect("a leaf");
    (authority, json!({"tls.crt": leaf.certificate_pem, "tls.key": leaf.key_pem}))
}

#[test]
fn rules_and_certificates_reach_running_nodes_within_two_seconds() {
    play(async |scene| {
        let mut us = cluster("us");
        let plain = port_of(&us, 0);
        let secure = json!({
            "name": "mqtts", "protocol": "MQTTS", "port": free_port(), "tls": {"secretRef": {"name": "papers"}},
        });
        us["spec"]["listeners"].as_array_mut().expect("a list").push(secure);
        let secure = port_of(&us, 1);
        let (mut first, data) = papers();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "papers"},
            "type": "kubernetes.io/tls", "stringData": data,
        });
        scene.create(Kind::Secret, secret).await;
        scene.create(Kind::MqttCluster, us).await;
        let _operator = scene.operator();
        let _us = scene.start("us").await;
        scene.until(Kind::MqttCluster, "us", is("Ready", ("True", "Ready"))).await;
        assert!(is_trusted(secure, &first).await);
        let (mut rules, mut certificates) = (Times::default(), Times::default());
        for round in 0..ROUNDS {
            let forbidden = format!("forbidden/{round}");
            assert_eq!(subscribes(plain, &forbidden).await, Some(true));
            let rule = json!({"action": "Subscribe", "filters": [forbidden], "effect": "Deny"});
            let change = json!({"spec": {"authorization": {"default": "Allow", "rules": [rule]}}});
            scene.merge(Kind::MqttCluster, "us", change).await;
            let unanswered = Cell::new(0);
            let is_forbidden = async || match subscribes(plain, &forbidden).await {
                Some(granted) => !granted,
                None => {
                    unanswered.update(|count| count + 1);
                    false
                }
            };
            rules.take(&scene, until("forbidden", is_forbidden)).await;
            assert!(unanswered.get() < 2, "a rule comes once, and closes one at most");
            let (next, data) = papers();
            scene.merge(Kind::Secret, "papers", json!({"stringData": data})).await;
            certificates.take(&scene, until("trusted", async || is_trusted(secure, &next).await)).await;
            assert!(!is_trusted(secure, &first).await, "the old certificate is shown as well");
            first = next;
        }
        rules.check("a rule, from the spec to a refusal", Duration::from_secs(2));
        certificates.check("a certificate, from its Secret to a handshake", Duration::from_secs(2));
    });
}

/// What a node says of a link with which all is well.
fn content(link: &Link) -> LinkReport {
    let good = || Verdict::new(VerdictStatus::True, "Good", "");
    LinkReport {
        id: link.id.clone(),
        revision: link.revision.clone(),
        resync: link.resync.clone(),
        connected: good(),
        peer_agrees: good(),
        routes_synced: good(),
        ..LinkReport::default()
    }
}

/// A node of which the test says how it is. It takes all settings, and is content with its links.
pub(super) struct Puppet {
    port: u16,
    says: watch::Sender<Arc<NodeReport>>,
    task: JoinHandle<()>,
    /// Documents that it was given.
    given: Arc<Mutex<usize>>,
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Puppet {
    /// A node with the certificates in a folder.
    fn start(folder: TempDir, node: &str, beat: Duration) -> Puppet {
        let listener = admin::bind_tcp(SocketAddr::from((HERE, 0))).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let trust = Trust::read(folder.path()).expect("certificates");
        let report = NodeReport { node: node.to_owned(), version: "0".to_owned(), ..NodeReport::default() };
        let says = watch::Sender::new(Arc::new(report));
        let (commands, mut taken) = mpsc::channel(8);
        let routes = admin::routes(says.subscribe(), commands, Arc::new(Vitals::new()), beat);
        let given = Arc::new(Mutex::new(0));
        let (own, count) = (says.clone(), Arc::clone(&given));
        let task = tokio::spawn(async move {
            let _kept = folder;
            let obeys = async {
                while let Some(command) = taken.recv().await {
                    match command {
                        Command::Apply(document, reply) => {
                            let settings: Settings = serde_json::from_slice(&document).expect("settings");
                            let applied =
                                Applied { settings_hash: settings.hash(), unknown_fields: Vec::new() };
                            own.send_modify(|report| {
                                let report = Arc::make_mut(report);
                                report.settings_hash.clone_from(&applied.settings_hash);
                                report.links = settings.links.iter().map(content).collect();
                            });
                            *count.lock().expect("no panic") += 1;
                            let _ = reply.send(Ok(applied));
                        }
                        Command::Refresh(reply) => drop(reply.send(())),
                        Command::Ask(..) => {}
                    }
                }
            };
            tokio::join!(admin::serve_tls(listener, trust, routes, Duration::from_secs(3_600)), obeys);
        });
        Puppet { port, says, task, given }
    }

    fn say(&self, change: impl FnOnce(&mut NodeReport)) {
        self.says.send_modify(|report| change(Arc::make_mut(report)));
    }

    fn listener_fails(&self, fails: bool) {
        let error = fails.then(|| "it is broken".to_owned());
        self.say(|report| {
            report.listeners = vec![ListenerReport { name: "mqtt".to_owned(), port: 1, error }]
        });
    }
}

impl Scene {
    pub(super) async fn puppet(&self, cluster: &str) -> Puppet {
        let folder = TempDir::new().expect("a folder");
        self.mount(&format!("mqlink-{cluster}-admin"), folder.path()).await;
        let puppet = Puppet::start(folder, &format!("{cluster}-0"), admin::BEAT);
        self.announce(cluster, puppet.port).await;
        puppet
    }
}

/// What a link's conditions are, where its one node has something to say against it, or nothing.
fn follows(object: Option<&Value>, fails: bool) -> bool {
    let status = if fails { "False" } else { "True" };
    let of_nodes = ["Programmed", "Connected", "PeerAgrees", "RoutesSynced", "Ready"];
    of_nodes.iter().all(|type_| condition(object, type_).is_some_and(|it| it.0 == status))
        && condition(object, "Reconciling").is_some() == fails
}

#[test]
fn what_a_node_says_is_in_the_status_within_a_second() {
    play(async |scene| {
        scene.create(Kind::MqttCluster, cluster("us")).await;
        let dialled = external("us-eu", "us", json!({"clusterName": "eu", "dial": "In"}));
        scene.create(Kind::ClusterLink, dialled).await;
        let mut operator = scene.operator();
        let puppet = scene.puppet("us").await;
        scene.until(Kind::ClusterLink, "us-eu", is("Ready", ("True", "Ready"))).await;
        let good = puppet.says.borrow().links[0].clone();
        let bad = || Verdict::new(VerdictStatus::False, "DialFailed", "");
        let spoilt = LinkReport {
            revision: "older".to_owned(),
            connected: bad(),
            peer_agrees: bad(),
            routes_synced: bad(),
            ..good.clone()
        };
        let (mut cluster, mut link) = (Times::default(), Times::default());
        for round in 0..ROUNDS {
            // A status that was just written is not written again at once.
            operator.rests(&scene).await;
            let fails = round % 2 == 0;
            let expected = if fails { ("False", "ListenerFailed") } else { ("True", "Available") };
            puppet.say(|report| report.links = vec![if fails { &spoilt } else { &good }.clone()]);
            puppet.listener_fails(fails);
            tokio::join!(
                cluster.take(&scene, scene.until(Kind::MqttCluster, "us", is("Available", expected))),
                link.take(&scene, scene.until(Kind::ClusterLink, "us-eu", |it| follows(it, fails))),
            );
        }
        let most = Duration::from_secs(1);
        cluster.check("a node's word, from the node to the status of its cluster", most);
        link.check("a node's word, from the node to the status of a link", most);
    });
}

#[test]
fn a_status_is_written_at_most_once_a_second() {
    play_on(async |server, scene| {
        scene.create(Kind::MqttCluster, cluster("us")).await;
        scene.create(Kind::MqttCluster, cluster("eu")).await;
        scene.create(Kind::ClusterLink, link(&["a/#"])).await;
        let writes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&writes);
        let client = server.client_through(move |request: Request<Body>| {
            let path = request.uri().path();
            if path.ends_with("/status") {
                seen.lock().expect("no panic").push((path.to_owned(), Instant::now()));
            }
            request
        });
        let _operator = Operator::start(client, scene.options());
        let puppet = scene.puppet("us").await;
        scene.until(Kind::MqttCluster, "us", is("Available", ("True", "Available"))).await;
        let count = |part: &str| {
            let writes = writes.lock().expect("no panic");
            writes.iter().filter(|(path, _)| path.contains(part)).count()
        };
        let links = count("clusterlinks");
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        // It says something else fifty times a second, and each time a status would say it too.
        for round in 0u32.. {
            if count("clusterlinks") > links + 3 {
                break;
            }
            assert!(round < 3_000, "statuses are written all the same: {:?}", writes.lock());
            ticks.tick().await;
            puppet.listener_fails(round % 2 == 0);
            let reason = if round % 2 == 0 { "DialFailed" } else { "ProbeTimeout" };
            let connected = Verdict::new(VerdictStatus::False, reason, "");
            let id = format!("{}/us-eu", scene.namespace);
            puppet.say(|report| report.links = vec![LinkReport { id, connected, ..LinkReport::default() }]);
        }
        let writes = writes.lock().expect("no panic").clone();
        let paths: std::collections::BTreeSet<&String> = writes.iter().map(|(path, _)| path).collect();
        for path in paths {
            let times: Vec<Instant> = writes.iter().filter(|(it, _)| it == path).map(|(_, at)| *at).collect();
            for pair in times.windows(2) {
                assert!(pair[1] - pair[0] >= Duration::from_secs(1), "{path}: {:?}", pair[1] - pair[0]);
            }
        }
    });
}

/// Users whose settings fill a Secret to the last kilobyte; the last of them has a short password.
fn many_users(bytes_max: usize) -> String {
    let mut settings = Settings::new("us");
    let secret = format!("plain:{}", "x".repeat(900));
    let last = User { name: "last".to_owned(), secret: "plain:one".to_owned() };
    let mut text = String::new();
    while Pieces::of(&settings).users.len() < bytes_max - 2_048 {
        for _ in 0..if settings.authentication.users.len() < 1_000 { 100 } else { 1 } {
            let user =
                User { name: format!("u{:05}", settings.authentication.users.len()), secret: secret.clone() };
            text += &format!("{}:{}\n", user.name, user.secret);
            settings.authentication.users.push(user);
        }
    }
    settings.authentication.users.push(last);
    text + "last:plain:one\n"
}

#[test]
fn settings_that_fill_their_secret_are_pushed_and_larger_ones_are_refused() {
    play(async |scene| {
        let mut us = cluster("us");
        us["spec"]["authentication"] = json!({"usersSecretRef": {"name": "people"}});
        let port = port_of(&us, 0);
        scene.create(Kind::Secret, people("ann:plain:one")).await;
        scene.create(Kind::MqttCluster, us).await;
        let _operator = scene.operator();
        let _us = scene.start("us").await;
        until_connects(port, "ann", "one").await;
        let users = many_users(1_024 * 1_024);
        scene.merge(Kind::Secret, "people", json!({"stringData": {"users": users}})).await;
        until_connects(port, "last", "one").await;
        scene.until(Kind::MqttCluster, "us", is("ConfigApplied", ("True", "Applied"))).await;
        // Source and settings are not of one size: these still fit into the user's own Secret.
        let larger: String = (0..100).map(|number| format!("more{number}:plain:two\n")).collect();
        scene.merge(Kind::Secret, "people", json!({"stringData": {"users": users + &larger}})).await;
        scene.until(Kind::MqttCluster, "us", is("ResolvedRefs", ("False", "SettingsTooLarge"))).await;
        assert!(connects(port, "last", "one").await, "what runs runs on");
        assert!(!connects(port, "more0", "two").await);
        let us = scene.get(Kind::MqttCluster, "us").await;
        assert_eq!(condition(Some(&us), "ConfigApplied"), Some(("True", "Applied")));
    });
}

/// Random enough for a test.
fn random(bytes: &mut [u8]) {
    crate::operator::run::random(bytes);
}

#[tokio::test]
async fn who_does_not_lead_gives_no_settings_to_nodes() {
    let now = jiff::Timestamp::now();
    let authority = Authority::mint("us", now, &mut random);
    let leaf = |role, usage| {
        let request = LeafRequest { role: Some(role), usage, dns: Vec::new(), ips: Vec::new() };
        authority.issue(&request, now, &mut random).expect("a leaf")
    };
    let NodeName { namespace, cluster, node } =
        NodeName { namespace: "mqtt".to_owned(), cluster: "us".to_owned(), node: "us-0".to_owned() };
    let role = Role::Node { namespace: namespace.clone(), cluster: cluster.clone(), node: node.clone() };
    let (server, client) = (leaf(role, Usage::Server), leaf(Role::Operator, Usage::Client));
    let folder = TempDir::new().expect("a folder");
    for (file, text) in [
        ("tls.crt", &server.certificate_pem),
        ("tls.key", &server.key_pem),
        ("ca.crt", &authority.certificate_pem),
    ] {
        std::fs::write(folder.path().join(file), text).expect("writable");
    }
    let puppet = Puppet::start(folder, &node, Duration::from_millis(20));
    let settings = Settings::new("us");
    let order = Order {
        address: SocketAddr::from((HERE, puppet.port)),
        pass: Arc::new(Pass {
            ca_pem: authority.certificate_pem.clone(),
            certificate_pem: client.certificate_pem,
            key_pem: client.key_pem,
        }),
        rendering: Arc::new(Rendering {
            hash: settings.hash(),
            json: serde_json::to_vec(&settings).expect("plain data").into(),
            links: 0,
        }),
    };
    let id = NodeId { cluster: Key::new(namespace, cluster), node, uid: "u".to_owned() };
    let fence = Fence::closed();
    let (mut nodes, mut said) = Nodes::new(fence.clone());
    nodes.keep(&[(id, order)].into());
    let mut hear =
        async || tokio::time::timeout(Duration::from_secs(60), said.recv()).await.expect("in time");
    for _ in 0..10 {
        let heard = hear().await;
        assert!(matches!(heard, Some((_, Sight::Line(_)))), "{heard:?}");
    }
    assert_eq!(*puppet.given.lock().expect("no panic"), 0);
    fence.open_until(Instant::now() + Duration::from_secs(60));
    while !matches!(hear().await, Some((_, Sight::Pushed(_)))) {}
    assert_eq!(*puppet.given.lock().expect("no panic"), 1);
}
