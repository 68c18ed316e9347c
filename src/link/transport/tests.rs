//! Two nodes over loopback: real sockets and TLS, a bare core instead of a broker.

mod listening;

use std::cell::RefCell;
use std::net::TcpListener;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::{Identity, Links, greeting, listen};
use crate::broker::Broker;
use crate::broker::core::{ConnectionId, Pressure};

use crate::mqtt::{
    Connect, Packet, Properties, Publish, QoS, RetainHandling, Subscribe, SubscribeFiltersBuf,
    SubscribeOptions, Unsubscribe, UnsubscribeFiltersBuf, Version,
};
use crate::settings::report::VerdictStatus;
use crate::settings::{
    ClientAuth, ClientTls, Credentials, Dial, Link as Half, LinkListener, ServerTls, Settings,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One node: its links, its broker and one client, whose socket is this test.
struct Node {
    links: Links,
    broker: Broker,
    client: ConnectionId,
    /// What the client was sent.
    got: RefCell<Vec<u8>>,
    settings: Settings,
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("a bound socket has an address").port()
}

impl Node {
    /// A node of one shard, which reads at once what its client says; several hold back what comes behind a SUBSCRIBE.
    fn start(settings: Settings, incarnation: u64) -> Node {
        let settings = Settings { shards: Some(1), ..settings };
        let broker = Broker::start(&settings);
        let own = Identity {
            cluster: settings.cluster.clone(),
            node: format!("{}-0", settings.cluster),
            incarnation,
        };
        let links = Links::start(broker.clone(), own, incarnation);
        let client = broker.with_core(|core| core.open(Instant::now()));
        let node = Node { links, broker, client, got: RefCell::default(), settings };
        node.say(&Packet::Connect(Connect::new("client")));
        node.links.apply_settings(&node.settings);
        node
    }

    /// Sends a packet of the client to the core.
    fn say(&self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        let used = self.broker.with_core(|core| core.handle_bytes(self.client, &bytes, Instant::now()));
        assert_eq!(used, bytes.len());
    }

    /// Takes what the broker has for the client.
    fn read(&self) {
        self.broker.with_core(|core| {
            loop {
                let bytes = core.outgoing(self.client).to_vec();
                if bytes.is_empty() {
                    return;
                }
                core.handle_written(self.client, bytes.len(), Instant::now());
                self.got.borrow_mut().extend(bytes);
            }
        });
    }

    fn subscribe(&self, filter: &str) {
        let mut filters = SubscribeFiltersBuf::default();
        let options = SubscribeOptions {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        filters.push(filter, options).expect("a valid filter");
        let packet_id = NonZeroU16::MIN;
        let filters = filters.as_filters();
        self.say(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters }));
    }

    fn unsubscribe(&self, filter: &str) {
        let mut filters = UnsubscribeFiltersBuf::default();
        filters.push(filter).expect("a valid filter");
        let (packet_id, filters) = (NonZeroU16::MIN, filters.as_filters());
        self.say(&Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::EMPTY, filters }));
    }

    fn publish(&self, topic: &str, payload: &[u8], qos: QoS) {
        self.say(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: (qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN),
            properties: Properties::EMPTY,
            payload,
        }));
    }

    /// Whether the client was sent these bytes.
    fn has_got(&self, payload: &[u8]) -> bool {
        self.read();
        self.got.borrow().windows(payload.len()).any(|window| window == payload)
    }

    /// Waits until it is so, and reads meanwhile.
    async fn until(&self, what: &str, so: impl Fn(&Node) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !so(self) {
                self.read();
                tokio::task::yield_now().await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {:?}", self.links.reports());
    }

    fn is_ready(&self) -> bool {
        let reports = self.links.reports();
        !reports.is_empty()
            && reports.iter().all(|report| {
                [&report.connected, &report.peer_agrees, &report.routes_synced]
                    .iter()
                    .all(|verdict| verdict.status == VerdictStatus::True)
            })
    }

    fn connected_reason(&self) -> String {
        self.links.reports()[0].connected.reason.clone()
    }
}

fn password(of: &str) -> Credentials {
    Credentials { username: format!("link-{of}"), password: format!("secret of {of}") }
}

/// Settings of one of two clusters that are linked by passwords.
fn settings(own: &str, own_port: u16, peer: &str, peer_port: u16) -> Settings {
    let mut settings = Settings::new(own);
    settings.authentication.anonymous = true;
    settings.link_listener = Some(LinkListener { port: own_port, tls: None });
    let mut half = Half::new(format!("default/{own}-{peer}"), peer);
    half.topics = vec!["#".to_owned()];
    half.server = Some(format!("127.0.0.1:{peer_port}"));
    half.credentials = Some(password(own));
    half.inbound.credentials = Some(password(peer));
    settings.links.push(half);
    settings
}

fn pair() -> (Settings, Settings) {
    let (us, eu) = (free_port(), free_port());
    (settings("us", us, "eu", eu), settings("eu", eu, "us", us))
}

async fn run<F: Future<Output = ()>>(test: F) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test(flavor = "current_thread")]
async fn messages_cross_between_two_nodes_in_both_directions() {
    run(async {
        let (us, eu) = pair();
        let (us, eu) = (Node::start(us, 1), Node::start(eu, 2));
        us.subscribe("from/eu/#");
        eu.subscribe("from/us/+");
        us.until("us is ready", Node::is_ready).await;
        eu.until("eu is ready", Node::is_ready).await;
        us.publish("from/us/1", b"hello from us", QoS::AtLeastOnce);
        us.publish("other", b"nobody wants this", QoS::AtLeastOnce);
        eu.publish("from/eu/a/b", b"hello from eu", QoS::AtMostOnce);
        eu.until("eu got it", |eu| eu.has_got(b"hello from us")).await;
        us.until("us got it", |us| us.has_got(b"hello from eu")).await;
        us.until("it was acknowledged", |us| us.links.reports()[0].counters.sent.acknowledged == 1).await;
        let report = us.links.reports().remove(0);
        assert_eq!(report.counters.sent.matched, 1);
        assert_eq!(report.connections.open, 1);
        assert!(report.rtt_ms.is_some());
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn large_and_many_messages_cross() {
    run(async {
        let (us, eu) = pair();
        let (us, eu) = (Node::start(us, 1), Node::start(eu, 2));
        eu.subscribe("#");
        us.until("us is ready", Node::is_ready).await;
        let large = vec![b'x'; 3 * 1024 * 1024];
        us.publish("large", &large, QoS::AtMostOnce);
        for number in 0..20_000 {
            us.publish("many", format!("number {number}.").as_bytes(), QoS::AtMostOnce);
        }
        let delivered = |node: &Node| node.links.reports()[0].counters.received.delivered;
        eu.until("all came", |eu| delivered(eu) == 20_001).await;
        eu.read();
        let got = eu.got.borrow();
        assert!(got.len() > large.len(), "the large one is among them");
        let last = b"number 19999.";
        assert_eq!(&got[got.len() - last.len()..], last, "order is kept");
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_wrong_password_shows_on_both_sides_and_mends_by_itself() {
    run(async {
        let (mut us, mut eu) = pair();
        us.links[0].credentials = Some(password("mallory"));
        eu.links[0].dial = Dial::In;
        us.links[0].dial = Dial::Out;
        let (mut us, eu) = (Node::start(us, 1), Node::start(eu, 2));
        us.until("us says so", |us| us.connected_reason() == "BadCredentials").await;
        eu.until("eu says so", |eu| eu.connected_reason() == "BadCredentials").await;
        us.settings.links[0].credentials = Some(password("us"));
        us.links.apply_settings(&us.settings);
        us.until("us is ready", Node::is_ready).await;
        eu.until("eu is ready", Node::is_ready).await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn strangers_and_swapped_addresses_get_their_names() {
    run(async {
        let (mut us, mut eu) = pair();
        eu.links.clear();
        us.links[0].dial = Dial::Out;
        let (mut us, mut eu) = (Node::start(us, 1), Node::start(eu, 2));
        us.until("eu has no half for us", |us| us.connected_reason() == "UnknownCluster").await;
        assert_eq!(us.links.reports()[0].peer_agrees.reason, "UnknownCluster");
        let own_port = us.settings.link_listener.as_ref().map(|listener| listener.port);
        let server = us.settings.links[0].server.replace(format!("127.0.0.1:{}", own_port.unwrap_or(0)));
        us.links.apply_settings(&us.settings);
        us.until("us dials itself", |us| us.connected_reason() == "SelfDialled").await;
        us.settings.links[0].server = server;
        eu.settings = settings("eu", eu.settings.link_listener.as_ref().map_or(0, |l| l.port), "us", 1);
        eu.settings.links[0].dial = Dial::In;
        eu.settings.links[0].enabled = false;
        eu.links.apply_settings(&eu.settings);
        us.links.apply_settings(&us.settings);
        us.until("eu's half is disabled", |us| us.connected_reason() == "LinkDisabled").await;
        eu.settings.links[0].enabled = true;
        eu.links.apply_settings(&eu.settings);
        us.until("us is ready", Node::is_ready).await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_stopped_node_says_bye_and_a_started_one_is_found() {
    run(async {
        let (us, eu) = pair();
        let us = Node::start(us, 1);
        let first = Node::start(eu.clone(), 2);
        us.until("us is ready", Node::is_ready).await;
        first.links.shutdown().await;
        us.until("the link is lost", |us| us.links.reports()[0].connections.open == 0).await;
        assert_eq!(us.links.reports()[0].connected.message, "the node stops");
        drop(first);
        let second = Node::start(eu, 3);
        second.subscribe("after");
        us.until("us is ready again", Node::is_ready).await;
        second.until("eu is ready", Node::is_ready).await;
        us.publish("after", b"welcome back", QoS::AtLeastOnce);
        second.until("eu got it", |eu| eu.has_got(b"welcome back")).await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_message_costs_the_same_however_many_idle_links_there_are() {
    run(async {
        let (mut us, eu) = pair();
        for number in 0..500 {
            let mut idle = Half::new(format!("default/idle-{number}"), format!("idle-{number}"));
            idle.dial = Dial::In;
            us.links.push(idle);
        }
        let (us, eu) = (Node::start(us, 1), Node::start(eu, 2));
        eu.subscribe("#");
        eu.until("eu is ready", Node::is_ready).await;
        let looked_at = || us.links.inner.hub.borrow().looked_at;
        let delivered = || eu.links.reports()[0].counters.received.delivered;
        let before = looked_at();
        for number in 1..=100 {
            us.publish("one", b"message", QoS::AtLeastOnce);
            eu.until("it came", |_| delivered() == number).await;
        }
        let looked_at = looked_at() - before;
        assert!(looked_at < 5_000, "{looked_at} links were looked at for 100 messages");
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_node_of_small_packets_takes_the_frames_that_everybody_takes() {
    run(async {
        let (us, mut eu) = pair();
        eu.limits.packet_bytes_max = 1024;
        let (us, eu) = (Node::start(us, 1), Node::start(eu, 2));
        eu.subscribe("#");
        us.until("us is ready", Node::is_ready).await;
        us.publish("large", &vec![b'x'; 120 * 1024], QoS::AtLeastOnce);
        us.until("it is taken", |us| us.links.reports()[0].counters.sent.acknowledged == 1).await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_client_that_changes_its_mind_is_heard_once_a_pump() {
    run(async {
        let (us, eu) = pair();
        let (us, eu) = (Node::start(us, 1), Node::start(eu, 2));
        for _ in 0..1_000 {
            eu.subscribe("#");
            eu.unsubscribe("#");
        }
        eu.subscribe("t/1");
        eu.unsubscribe("t/1");
        eu.subscribe("t/1");
        us.until("us is ready", Node::is_ready).await;
        eu.until("eu is ready", Node::is_ready).await;
        us.publish("t/1", b"the last word counts", QoS::AtLeastOnce);
        eu.until("eu got it", |eu| eu.has_got(b"the last word counts")).await;
        us.publish("t/2", b"nobody wants this", QoS::AtLeastOnce);
        assert_eq!(us.links.reports()[0].counters.sent.matched, 1);
        assert_eq!(eu.links.inner.hub.borrow().told, 2, "`#` and `t/1`");
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn interest_that_is_not_told_yet_is_told_when_its_time_comes() {
    run(async {
        let (mut us, _) = pair();
        us.links[0].dial = Dial::In;
        let us = Node::start(us, 1);
        let mut hub = us.links.inner.hub.borrow_mut();
        let now = Instant::now();
        hub.tell_at = now + Duration::from_secs(1);
        us.subscribe("t");
        hub.pump(now);
        assert_eq!((hub.told, hub.poll_timeout()), (0, Some(hub.tell_at)));
        hub.pump(now + Duration::from_secs(1));
        assert_eq!((hub.told, hub.poll_timeout()), (1, None));
        hub.tell_at = now + Duration::from_secs(9);
        for number in 0..70 {
            us.subscribe(&format!("{number}/{}", "x".repeat(65_000)));
            hub.pump(now);
        }
        assert_eq!(
            hub.told, 66,
            "the first, then 65 that have more than 4 MiB, then no more until it is time"
        );
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn while_memory_is_short_links_hold_little() {
    run(async {
        let (mut us, eu) = pair();
        us.limits.memory_bytes_max = 4 * 1024 * 1024;
        let (us, eu) = (Node::start(us, 1), Node::start(eu, 2));
        eu.subscribe("#");
        us.until("us is ready", Node::is_ready).await;
        us.broker.with_core(|core| core.set_pressure(Pressure::Closed));
        (0..30).for_each(|_| us.publish("t", &[0; 100 * 1024], QoS::AtLeastOnce));
        let sent = |us: &Node| us.links.reports()[0].counters.sent;
        us.until("all is sent or dropped", |us| {
            sent(us).matched == 30 && sent(us).acknowledged + sent(us).dropped.total() == 30
        })
        .await;
        assert!(sent(&us).dropped.overflow > 10, "{:?}", sent(&us));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn routes_of_peers_take_no_more_than_their_part_of_the_memory_mark() {
    run(async {
        let (mut us, eu) = pair();
        us.limits.memory_bytes_max = 4 * 10 * 140;
        let (us, eu) = (Node::start(us, 1), Node::start(eu, 2));
        (0..5).for_each(|n| eu.subscribe(&format!("t/{n}")));
        us.until("us is ready", Node::is_ready).await;
        (5..20).for_each(|n| eu.subscribe(&format!("t/{n}")));
        let connected = |us: &Node| us.links.reports()[0].connected.clone();
        us.until("us says why not", |us| connected(us).message.contains("a quarter of the memory mark"))
            .await;
        assert_eq!(connected(&us).reason, "ProtocolMismatch");
        let taken = us.links.inner.hub.borrow().routes;
        assert!((5 * 128..=1_400).contains(&taken), "{taken} bytes");
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_lower_limit_counts_for_connections_to_come() {
    run(async {
        let (us, eu) = pair();
        let (us, mut eu) = (Node::start(us, 1), Node::start(eu, 2));
        eu.subscribe("#");
        us.until("us is ready", Node::is_ready).await;
        eu.settings.limits.packet_bytes_max = 1024 * 1024;
        eu.links.apply_settings(&eu.settings);
        us.publish("large", &vec![b'x'; 3 * 1024 * 1024], QoS::AtLeastOnce);
        let sent = |us: &Node| us.links.reports()[0].counters.sent;
        us.until("it was sent", |us| sent(us).sent > 0 && sent(us).in_flight == 0).await;
        assert_eq!((sent(&us).acknowledged, sent(&us).sent), (1, 1), "by the Hello that it heard");
    })
    .await;
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn mint() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("a CA") }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate and its key.
    fn issue(&self, name: SanType) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("a DNS name"))
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().expect("a URI"))
}

/// Lets `own` listen with TLS, and `peer` dial it with a certificate that carries `san`.
fn secure(own: &mut Settings, peer: &mut Settings, san: &str) {
    let authority = Authority::mint();
    let (certificate_pem, key_pem) = authority.issue(dns("broker.test"));
    let listener = own.link_listener.as_mut().expect("there is a listener");
    listener.tls = Some(ServerTls {
        client_auth: ClientAuth::Request,
        client_ca_pem: Some(authority.pem()),
        ..ServerTls::new(certificate_pem, key_pem)
    });
    own.links[0].inbound.credentials = None;
    own.links[0].inbound.uri_san = Some(format!("mqlink:link:{}", peer.cluster));
    let (certificate, key) = authority.issue(uri(san));
    peer.links[0].credentials = None;
    peer.links[0].tls = Some(ClientTls {
        ca_pem: authority.pem(),
        server_name: "broker.test".to_owned(),
        certificate_pem: Some(certificate),
        key_pem: Some(key),
    });
}

#[tokio::test(flavor = "current_thread")]
async fn mutual_tls_opens_the_half_that_the_certificate_names() {
    run(async {
        let (mut us, mut eu) = pair();
        secure(&mut us, &mut eu, "mqlink:link:eu");
        secure(&mut eu, &mut us, "mqlink:link:us");
        let (us, eu) = (Node::start(us, 1), Node::start(eu, 2));
        eu.subscribe("tls/#");
        us.until("us is ready", Node::is_ready).await;
        eu.until("eu is ready", Node::is_ready).await;
        us.publish("tls/1", b"under seal", QoS::AtLeastOnce);
        eu.until("eu got it", |eu| eu.has_got(b"under seal")).await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_certificate_without_the_right_name_opens_nothing() {
    run(async {
        let (mut us, mut eu) = pair();
        secure(&mut eu, &mut us, "mqlink:link:somebody-else");
        eu.links[0].dial = Dial::In;
        let (us, _eu) = (Node::start(us, 1), Node::start(eu, 2));
        us.until("us is refused", |us| us.connected_reason() == "BadCredentials").await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_certificate_of_another_authority_is_a_matter_of_tls() {
    run(async {
        let (mut us, mut eu) = pair();
        secure(&mut eu, &mut us, "mqlink:link:us");
        let tls = us.links[0].tls.as_mut().expect("it was just made");
        let (certificate, key) = Authority::mint().issue(uri("mqlink:link:us"));
        (tls.certificate_pem, tls.key_pem) = (Some(certificate), Some(key));
        eu.links[0].dial = Dial::In;
        let (us, _eu) = (Node::start(us, 1), Node::start(eu, 2));
        us.until("us is refused", |us| us.connected_reason() == "TLSFailed").await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_of_another_authority_is_not_believed() {
    run(async {
        let (mut us, mut eu) = pair();
        secure(&mut eu, &mut us, "mqlink:link:us");
        let tls = us.links[0].tls.as_mut().expect("it was just made");
        tls.ca_pem = Authority::mint().pem();
        eu.links[0].dial = Dial::In;
        let (us, _eu) = (Node::start(us, 1), Node::start(eu, 2));
        us.until("us does not go on", |us| us.connected_reason() == "TLSFailed").await;
    })
    .await;
}

/// A node without a link, whose timers would wake its tasks.
fn lonely() -> Node {
    let (mut us, _) = pair();
    us.links.clear();
    Node::start(us, 1)
}

/// Who finds the hub taken panics; the node ends with that.
#[expect(clippy::await_holding_refcell_ref, reason = "that is what the test is about")]
async fn check_ends(node: &Node, provoke: impl Future<Output = ()>) {
    tokio::task::yield_now().await; // its tasks have begun
    let held = node.links.inner.hub.borrow_mut();
    provoke.await;
    let ended = tokio::time::timeout(PATIENCE, node.broker.shard_lost()).await;
    drop(held);
    assert!(ended.is_ok(), "a task panicked, and the node runs on");
}

#[tokio::test(flavor = "current_thread")]
async fn a_panic_in_a_task_of_the_links_ends_the_node() {
    run(async {
        let node = lonely();
        let wake = node.links.inner.hub.borrow().wake.clone();
        check_ends(&node, async { wake.notify_one() }).await;

        let node = lonely();
        let port = node.settings.link_listener.as_ref().expect("it listens").port;
        let own = Identity { cluster: "eu".into(), node: "eu-0".into(), incarnation: 1 };
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        check_ends(&node, async {
            socket.write_all(&greeting::connect(&own, None)).await.expect("it reads");
        })
        .await;
    })
    .await;
}
