//! A hostile pod on the network: it reaches every port of the brokers, and gets nothing. Each door is tried with everything that a
//! stranger can have, and with what belongs to another door; that the right key opens it is shown beside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use mqlink::admin::{Client, ClientError, NodeName, Pass};
use mqlink::mqtt::{Connect, Limits, Packet, PropertiesBuf, Property, ReasonCode, Version, decode};
use mqlink::pki::{Authority, Leaf, LeafRequest, Role, Usage};
use mqlink::plan::{MintedCluster, MintedLink};
use mqlink::settings::Settings;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clients::{Door, PodClient, crosses};
use crate::process::WAIT_MAX;
use crate::regions::{doors, two_regions};
use crate::scene::{Kind, Scene, needs_own_cluster, own_cluster, play};

const ADMIN_PORT: u16 = 11_884;
const HEALTH_PORT: u16 = 11_885;
const LINK_PORT: u16 = 11_883;

/// A value of a Secret, as somebody has it who may read Secrets.
async fn secret(scene: &Scene, name: &str, key: &str) -> Vec<u8> {
    let secret = scene.api(Kind::Secret).get(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = secret.data["data"][key].as_str().unwrap_or_else(|| panic!("{name} has no {key}"));
    STANDARD.decode(text).expect("a Secret is base64")
}

async fn minted<T: DeserializeOwned>(scene: &Scene, name: &str) -> T {
    serde_json::from_slice(&secret(scene, name, "minted.json").await).expect("what was minted is JSON")
}

async fn text(scene: &Scene, name: &str, key: &str) -> String {
    String::from_utf8(secret(scene, name, key).await).expect("it is text")
}

fn random(bytes: &mut [u8]) {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(bytes).expect("the system gives random numbers");
}

fn issued(by: &Authority, role: Role) -> Leaf {
    let request = LeafRequest { role: Some(role), usage: Usage::Both, dns: vec![], ips: vec![] };
    by.issue(&request, Timestamp::now(), &mut random).expect("a leaf")
}

/// A certificate that a stranger makes.
fn forged(role: Role) -> Leaf {
    issued(&Authority::mint("us-east", Timestamp::now(), &mut random), role)
}

/// The operator's certificate for the nodes of a cluster; it keeps its own to itself.
fn operator_of(cluster: &MintedCluster) -> Leaf {
    let signer = cluster.authorities.signer(Timestamp::now()).expect("a cluster has an authority");
    issued(signer, Role::Operator)
}

/// A port of `us-east-0` as whoever is on the network has it; where its network is not ours, as kubectl has it.
struct Way {
    address: SocketAddr,
    _door: Option<Door>,
}

impl Way {
    async fn to(scene: &Scene, port: u16) -> Way {
        if own_cluster().is_some() {
            let ip: IpAddr = scene.address("us-east").await.parse().expect("an address");
            return Way { address: (ip, port).into(), _door: None };
        }
        let door = Door::open(scene, "pod/us-east-0", port).await;
        Way { address: (Ipv4Addr::LOCALHOST, door.port).into(), _door: Some(door) }
    }
}

/// Who knocks at the admin port of `us-east-0`: each time at a door of its own, since one that a pod hung up on may be shut.
struct Knock<'a> {
    scene: &'a Scene,
    node: NodeName,
    /// The authority of the node, which is no secret.
    ca_pem: String,
}

impl Knock<'_> {
    async fn with(&self, certificate_pem: &str, key_pem: &str) -> (Way, Client) {
        let way = Way::to(self.scene, ADMIN_PORT).await;
        let (certificate_pem, key_pem) = (certificate_pem.to_owned(), key_pem.to_owned());
        let pass = Pass { ca_pem: self.ca_pem.clone(), certificate_pem, key_pem };
        let client = Client::over_tls(way.address, self.node.clone(), &pass).expect("a pass");
        (way, client)
    }

    /// Neither status nor settings for this one.
    async fn is_refused(&self, who: &str, certificate_pem: String, key_pem: String) {
        let (_way, client) = self.with(&certificate_pem, &key_pem).await;
        let status = client.status().await.map(drop).expect_err(who);
        assert!(!matches!(status, ClientError::Silent(..)), "{who}: {status}");
        let mut settings = Settings::new("us-east");
        settings.authentication.anonymous = true;
        let (_way, client) = self.with(&certificate_pem, &key_pem).await;
        let pushed = client.put_settings(&settings).await.map(drop).expect_err(who);
        assert!(!matches!(pushed, ClientError::Refused(_)), "{who} was heard: {pushed}");
    }
}

#[test]
fn strangers_and_other_roles_get_nothing_at_the_admin_port() {
    play("hostile-admin", async |scene| {
        two_regions(scene).await;
        let knock = Knock {
            scene,
            node: NodeName {
                namespace: scene.namespace.clone(),
                cluster: "us-east".to_owned(),
                node: "us-east-0".to_owned(),
            },
            ca_pem: text(scene, "mqlink-us-east-admin", "ca.crt").await,
        };
        let own: MintedCluster = minted(scene, "mqlink-us-east-minted").await;
        let other: MintedCluster = minted(scene, "mqlink-eu-west-minted").await;
        let link: MintedLink = minted(scene, "mqlink-us-eu-link").await;

        let right = operator_of(&own);
        let (_way, client) = knock.with(&right.certificate_pem, &right.key_pem).await;
        let mut stream = client.status().await.expect("the operator");
        assert!(stream.next().await.expect("a line").is_some());
        drop(stream);

        let stranger = forged(Role::Operator);
        knock.is_refused("a forged operator", stranger.certificate_pem, stranger.key_pem).await;
        let right_elsewhere = operator_of(&other);
        knock
            .is_refused("the other's operator", right_elsewhere.certificate_pem, right_elsewhere.key_pem)
            .await;
        for cluster in ["us-east", "eu-west"] {
            let name = format!("mqlink-{cluster}-admin");
            let (certificate, key) =
                (text(scene, &name, "tls.crt").await, text(scene, &name, "tls.key").await);
            knock.is_refused(&format!("a node of {cluster}"), certificate, key).await;
        }
        for credential in [link.inward, link.outward] {
            let leaf = credential.leaf.expect("links speak TLS");
            knock.is_refused("a link", leaf.certificate_pem, leaf.key_pem).await;
        }
        let said = ask_plainly(&Way::to(scene, ADMIN_PORT).await, "/v1/status").await;
        assert!(!said.contains("200"), "{said}");
        let health = Way::to(scene, HEALTH_PORT).await;
        for path in ["/v1/status", "/v1/settings", "/etc/mqlink/settings/base.json"] {
            let said = ask_plainly(&health, path).await;
            assert!(said.starts_with("HTTP/1.1 404"), "{path}: {said}");
        }
        scene.condition(Kind::Cluster, "us-east", "ConfigApplied", "True").await;
        scene.ready(Kind::Link, "us-eu").await;
    });
}

/// What a port answers to a request in the clear.
async fn ask_plainly(way: &Way, path: &str) -> String {
    let mut stream = TcpStream::connect(way.address).await.expect("somebody listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    // It may be cut off.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn nobody_poses_as_a_link_peer() {
    play("hostile-link", async |scene| {
        two_regions(scene).await;
        // In the clear, from a pod.
        let listen =
            ["sub", "-h", "us-east-link", "-p", "11883", "-t", "#", "-C", "1", "-W", "10s", "--no-reconnect"];
        PodClient::start(scene, "plain", &listen).await.says("if the port speaks TLS").await;

        let own: MintedCluster = minted(scene, "mqlink-us-east-minted").await;
        let ca_pem = own.authorities.bundle_pem();
        let link: MintedLink = minted(scene, "mqlink-us-eu-link").await;
        let role = Role::Link {
            namespace: scene.namespace.clone(),
            link: "us-eu".to_owned(),
            from: "eu-west".to_owned(),
            to: "us-east".to_owned(),
            nonce: link.inward.nonce.clone().expect("its certificates end in one"),
        };
        let own = |key| text(scene, "mqlink-us-east-admin", key);
        let node = Leaf::new(own("tls.crt").await, own("tls.key").await);
        let knock = async |leaf: Option<Leaf>| {
            let way = Way::to(scene, LINK_PORT).await;
            knock_as_link(scene, &way, &ca_pem, leaf).await
        };
        let refused = Some(ReasonCode::BadUserNameOrPassword);
        let wrong = [
            ("without a certificate", None, refused),
            ("with a forged one", Some(forged(role)), None),
            ("with a node's, which is for servers", Some(node), None),
            ("with that of the other direction, by another authority", link.outward.leaf, None),
        ];
        for (how, leaf, expected) in wrong {
            match (knock(leaf).await, expected) {
                (Ok(answer), Some(expected)) => assert_eq!(answer, expected, "{how}"),
                (Err(_), None) => {}
                (answer, _) => panic!("{how}: {answer:?}"),
            }
        }
        // The right key opens the door, so it was the keys that did not.
        assert_eq!(knock(link.inward.leaf).await.expect("an answer"), ReasonCode::Success);
        scene.ready(Kind::Link, "us-eu").await;
        // Nor does a client that may publish everywhere else.
        let (us, eu) = doors(scene).await;
        for topic in ["$LINK/v1/eu-west", "$LINK/x"] {
            assert!(!us.publish(topic, "I am a peer").await.is_ok(), "{topic}");
        }
        crosses(&us, &eu, "untouched/1").await;
    });
}

/// A connection over TLS to who has this name by the word of an authority.
pub(crate) async fn secured(
    address: impl ToSocketAddrs,
    name: &str,
    ca_pem: &str,
    leaf: Option<Leaf>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("it has versions")
        .with_root_certificates(roots);
    let config = match leaf {
        Some(leaf) => {
            let chain = CertificateDer::pem_slice_iter(leaf.certificate_pem.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).expect("a key");
            config.with_client_auth_cert(chain.collect::<Result<_, _>>().expect("PEM"), key).expect("a leaf")
        }
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// What somebody is told who comes to the link listener as `eu-west`; an error where not even TLS comes about.
async fn knock_as_link(scene: &Scene, way: &Way, ca_pem: &str, leaf: Option<Leaf>) -> io::Result<ReasonCode> {
    let name = format!("us-east.{}.mqlink.internal", scene.namespace);
    let mut stream = secured(way.address, &name, ca_pem, leaf).await?;
    let mut properties = PropertiesBuf::new();
    properties.push(Property::UserProperty(("mqlink-cluster", "eu-west")));
    let connect = Packet::Connect(Connect {
        keep_alive_s: 15,
        properties: properties.as_properties(),
        username: Some("eu-west"),
        password: Some(b"guessed"),
        ..Connect::new("eu-west:eu-west-0:link")
    });
    let mut bytes = Vec::new();
    connect.encode(Version::V5, &mut bytes);
    stream.write_all(&bytes).await?;
    let mut answer = Vec::new();
    loop {
        if let Ok(Some((Packet::ConnAck(connack), _))) = decode(&answer, Version::V5, &Limits::default()) {
            return Ok(connack.reason);
        }
        if timeout(WAIT_MAX, stream.read_buf(&mut answer)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A request line, a header, a packet and a TLS record, none of which ever ends.
const ENDLESS: [(u16, &[u8]); 5] = [
    (ADMIN_PORT, b"GET /"),
    (LINK_PORT, b"\x16\x03\x01\x40\x00"),
    (HEALTH_PORT, b"GET /"),
    (HEALTH_PORT, b"GET /livez HTTP/1.1\r\nx: "),
    (1883, b"\x10\xff\xff\xff\x7f\x00\x04MQTT\x05\x02"),
];

/// Sends the same byte until the other side has had enough, of it or of the time that it takes.
async fn send_endlessly(address: &str, port: u16, begin: &[u8]) {
    let mut stream = TcpStream::connect((address, port)).await.expect("somebody listens");
    stream.write_all(begin).await.expect("it is sent");
    while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
}

#[test]
fn who_never_ends_is_cut_off() {
    play("hostile-endless", async |scene| {
        // Not through a door: kubectl may go on taking what the pod does not.
        let Some(_) = needs_own_cluster() else { return };
        two_regions(scene).await;
        let address = scene.address("us-east").await;
        for (port, begin) in ENDLESS {
            let cut_off = timeout(WAIT_MAX, send_endlessly(&address, port, begin)).await;
            assert!(cut_off.is_ok(), "port {port} listens for ever to {begin:?}");
        }
        scene.ready(Kind::Link, "us-eu").await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "untouched/2").await;
    });
}

#[test]
fn a_broker_has_no_rights_in_kubernetes() {
    play("hostile-api", async |scene| {
        two_regions(scene).await;
        let account = format!("system:serviceaccount:{}:mqlink-us-east", scene.namespace);
        let asked = scene.try_kubectl(&["auth", "can-i", "get", "secrets", "--as", &account], "").await;
        assert_eq!(asked.stdout.trim(), "no");
        let read = scene.try_kubectl(&["get", "secrets", "--as", &account], "").await;
        assert!(read.stderr.contains("Forbidden"), "{}", read.stderr);
        let pod = scene.pod("us-east").await;
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let names: Vec<&str> = volumes.filter_map(|volume| volume["name"].as_str()).collect();
        assert!(names.iter().all(|name| !name.starts_with("kube-api-access")), "{names:?}");
        assert_eq!(pod["spec"]["automountServiceAccountToken"], Value::Bool(false));
    });
}
