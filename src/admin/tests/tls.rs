//! The port with TLS, and who is kept from it: each way in that a hostile pod could try, and each way to pose as a node.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::pki::{Authority, LEAF_LIFE, Leaf, LeafRequest, Role, Usage};

const BEAT: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_secs(3_600);

/// Randomness for tests: a counter.
fn random(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut state = seed;
    move |buffer| {
        for byte in buffer {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 33) as u8;
        }
    }
}

fn authority(seed: u64) -> Authority {
    Authority::mint("eu", Timestamp::now(), &mut random(seed))
}

fn issue_at(by: &Authority, role: Option<Role>, usage: Usage, now: Timestamp) -> Leaf {
    by.issue(&LeafRequest { role, usage, dns: vec![], ips: vec![] }, now, &mut random(9)).unwrap()
}

fn issue(by: &Authority, role: Role) -> Leaf {
    issue_at(by, Some(role), Usage::Both, Timestamp::now())
}

fn node_role(cluster: &str, node: &str) -> Role {
    Role::Node { namespace: "mqtt".into(), cluster: cluster.into(), node: node.into() }
}

fn link_role() -> Role {
    Role::Link {
        namespace: "mqtt".into(),
        link: "us-eu".into(),
        from: "us".into(),
        to: "eu".into(),
        nonce: "1".into(),
    }
}

fn eu_0() -> NodeName {
    NodeName { namespace: "mqtt".into(), cluster: "eu".into(), node: "eu-0".into() }
}

fn pass(ca: &Authority, leaf: &Leaf) -> Pass {
    Pass {
        ca_pem: ca.certificate_pem.clone(),
        certificate_pem: leaf.certificate_pem.clone(),
        key_pem: leaf.key_pem.clone(),
    }
}

fn write(dir: &Path, leaf: &Leaf, ca: &Authority) {
    std::fs::write(dir.join("tls.crt"), &leaf.certificate_pem).unwrap();
    std::fs::write(dir.join("tls.key"), &leaf.key_pem).unwrap();
    std::fs::write(dir.join("ca.crt"), &ca.certificate_pem).unwrap();
}

/// A node behind a port, that shows a leaf and trusts an authority.
struct Pod {
    address: SocketAddr,
    fake: Fake,
    files: TempDir,
}

impl Pod {
    async fn start(leaf: &Leaf, ca: &Authority, beat: Duration) -> Self {
        let files = tempfile::tempdir().unwrap();
        write(files.path(), leaf, ca);
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Fake::new(beat);
        let trust = Trust::read(files.path()).unwrap();
        tokio::spawn(serve_tls(listener, trust, fake.routes.clone(), Duration::from_millis(10)));
        Self { address, fake, files }
    }

    /// As its cluster's authority makes it.
    async fn of(ca: &Authority) -> Self {
        Self::start(&issue(ca, node_role("eu", "*")), ca, BEAT).await
    }

    fn client(&self, pass: &Pass) -> Client {
        Client::over_tls(self.address, eu_0(), pass).unwrap()
    }

    fn commands(&self) -> usize {
        self.fake.commands.load(Relaxed)
    }
}

/// A node with a good certificate whose first line has no end.
#[tokio::test]
async fn a_line_without_end_is_hung_up_on() {
    const LINE_MAX: usize = 128 * 1_024;
    let (ca, chunks) = (authority(1), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&chunks);
    let endless = move || {
        let count = Arc::clone(&count);
        let chunk = move || {
            count.fetch_add(1, Relaxed);
            Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 65_536]))
        };
        std::future::ready(Body::from_stream(futures::stream::repeat_with(chunk)))
    };
    let files = tempfile::tempdir().unwrap();
    write(files.path(), &issue(&ca, node_role("eu", "*")), &ca);
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Routes(Router::new().route("/v1/status", get(endless)));
    let task = tokio::spawn(serve_tls(listener, Trust::read(files.path()).unwrap(), routes, BEAT));
    let client = Client::over_tls(address, eu_0(), &pass(&ca, &issue(&ca, Role::Operator))).unwrap();
    let mut stream = client.with_answer_max(LINE_MAX).status().await.unwrap();
    let error = stream.next().await.unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
    drop(stream);
    // What the node got rid of: a line, and what lies in buffers on the way.
    let sent = chunks.load(Relaxed) * 65_536;
    assert!(sent < 32 * 1_024 * 1_024, "{sent} bytes");
    task.abort();
}

#[tokio::test]
async fn the_operator_manages_a_node() {
    let ca = authority(1);
    let pod = Pod::of(&ca).await;
    let client = pod.client(&pass(&ca, &issue(&ca, Role::Operator)));
    client.healthz().await.unwrap();
    let settings = Settings::new("eu");
    assert_eq!(client.put_settings(&settings).await.unwrap().settings_hash, settings.hash());
    let refused = client.put_document(Bytes::from_static(b"{}")).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(error) if error.contains("cluster")), "{refused}");
    let mut stream = client.status().await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Some(StatusLine::Snapshot(report(1, &[]).into())));
    assert_eq!(stream.next().await.unwrap(), Some(StatusLine::Beat(1)));
}

/// Tries everything, and must fail in the same way with everything.
async fn check_refused(shown: Leaf, is_expected: impl Fn(&ClientError) -> bool) {
    let ca = authority(1);
    let pod = Pod::of(&ca).await;
    let client = pod.client(&pass(&ca, &shown));
    let errors = [
        client.put_settings(&Settings::new("eu")).await.unwrap_err(),
        client.status().await.unwrap_err(),
        client.healthz().await.unwrap_err(),
        client.get::<serde_json::Value>("/metrics").await.unwrap_err(),
    ];
    for error in errors {
        assert!(is_expected(&error), "{error}");
    }
    assert_eq!(pod.commands(), 0);
}

#[tokio::test]
async fn other_roles_are_told_so_and_kept_out() {
    let forbidden = |why: &'static str| move |error: &ClientError| matches!(error, ClientError::Forbidden(said) if said.contains(why));
    let ca = authority(1);
    let why = "is for mqlink://node/mqtt/eu/eu-0; only mqlink://operator may manage a node";
    check_refused(issue(&ca, node_role("eu", "eu-0")), forbidden(why)).await;
    check_refused(issue(&ca, link_role()), forbidden("is for mqlink://link/mqtt/us-eu/us/eu/1; only")).await;
    let without = issue_at(&ca, None, Usage::Client, Timestamp::now());
    check_refused(without, forbidden("states no role")).await;
}

#[tokio::test]
async fn other_authorities_old_leaves_and_servers_are_no_clients() {
    let broken = |error: &ClientError| {
        let text = error.to_string();
        matches!(error, ClientError::Broken(_)) && text.contains("fatal alert")
    };
    check_refused(issue(&authority(2), Role::Operator), broken).await;
    let ca = authority(1);
    let past = Timestamp::now() - LEAF_LIFE - Duration::from_secs(60);
    check_refused(issue_at(&ca, Some(Role::Operator), Usage::Client, past), broken).await;
    let future = Timestamp::now() + LEAF_LIFE;
    check_refused(issue_at(&ca, Some(Role::Operator), Usage::Client, future), broken).await;
    check_refused(issue_at(&ca, Some(Role::Operator), Usage::Server, Timestamp::now()), broken).await;
}

/// What a stranger gets who sends a request after a handshake without certificate.
async fn ask_without_certificate(address: SocketAddr) -> Vec<u8> {
    let roots = trust::roots(authority(1).certificate_pem.as_bytes(), "ca").unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("eu.internal").unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    if let Ok(mut stream) = connector.connect(name, tcp).await {
        let request = b"GET /v1/status HTTP/1.1\r\nhost: node\r\n\r\n";
        if stream.write_all(request).await.is_ok() {
            // What came before it broke is what counts.
            let _ = stream.read_to_end(&mut answer).await;
        }
    }
    answer
}

#[tokio::test]
async fn without_a_certificate_nobody_hears_anything() {
    let ca = authority(1);
    let request = LeafRequest {
        role: Some(node_role("eu", "*")),
        usage: Usage::Server,
        dns: vec!["eu.internal".into()],
        ips: vec![],
    };
    let leaf = ca.issue(&request, Timestamp::now(), &mut random(3)).unwrap();
    let pod = Pod::start(&leaf, &ca, BEAT).await;
    assert_eq!(ask_without_certificate(pod.address).await, b"");
    let mut plain = TcpStream::connect(pod.address).await.unwrap();
    plain.write_all(b"GET /v1/status HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(pod.commands(), 0);
    pod.client(&pass(&ca, &issue(&ca, Role::Operator))).healthz().await.unwrap();
}

/// Dials what shows a leaf as `mqtt/eu/eu-0`.
async fn dial(shown: Leaf) -> Result<(), ClientError> {
    let ca = authority(1);
    let pod = Pod::start(&shown, &ca, BEAT).await;
    let client = pod.client(&pass(&ca, &issue(&ca, Role::Operator)));
    let done = client.put_settings(&Settings::new("eu")).await.map(drop);
    assert_eq!(pod.commands(), usize::from(done.is_ok()));
    done
}

#[tokio::test]
async fn settings_go_to_the_node_that_is_meant() {
    let ca = authority(1);
    dial(issue(&ca, node_role("eu", "eu-0"))).await.unwrap();
    dial(issue(&ca, node_role("eu", "*"))).await.unwrap();
    let impostors = [
        (
            issue(&ca, node_role("eu", "eu-1")),
            "is for mqlink://node/mqtt/eu/eu-1, not for mqlink://node/mqtt/eu/eu-0",
        ),
        (issue(&ca, node_role("us", "eu-0")), "is for mqlink://node/mqtt/us/eu-0, not for"),
        (issue(&ca, link_role()), "is for mqlink://link/mqtt/us-eu/us/eu/1, not for"),
        (issue(&ca, Role::Operator), "is for mqlink://operator, not for"),
        (issue_at(&ca, None, Usage::Both, Timestamp::now()), "states no role"),
        (issue_at(&ca, Some(node_role("eu", "*")), Usage::Client, Timestamp::now()), "certificate"),
        (issue(&authority(2), node_role("eu", "eu-0")), "certificate"),
        (issue_at(&ca, Some(node_role("eu", "*")), Usage::Both, Timestamp::now() - LEAF_LIFE * 2), "expired"),
    ];
    for (leaf, why) in impostors {
        let error = dial(leaf).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ClientError::Unreachable(..)) && text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn another_authority_is_taken_up_and_ends_what_the_old_one_opened() {
    let (old, new) = (authority(1), authority(2));
    let pod = Pod::of(&old).await;
    let old_pass = pass(&old, &issue(&old, Role::Operator));
    let mut stream = pod.client(&old_pass).status().await.unwrap();
    stream.next().await.unwrap().unwrap();
    write(pod.files.path(), &issue(&new, node_role("eu", "eu-0")), &new);
    while let Ok(Some(_)) = stream.next().await {}
    pod.client(&pass(&new, &issue(&new, Role::Operator))).healthz().await.unwrap();
    pod.client(&old_pass).healthz().await.unwrap_err();
    let of_old_to_new = Pass { ca_pem: new.certificate_pem.clone(), ..old_pass };
    pod.client(&of_old_to_new).healthz().await.unwrap_err();
}

#[test]
fn files_of_no_use_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(1);
    let [first, second] = [1, 2].map(|node| issue(&ca, node_role("eu", &format!("eu-{node}"))));
    write(dir.path(), &first, &ca);
    let mut trust = Trust::read(dir.path()).unwrap();
    let watched = trust.watch();
    let before = Arc::clone(&watched.borrow());
    let other_key = Authority::mint("eu", Timestamp::now(), &mut random(7)).key_pem;
    let bad = [("tls.crt", ""), ("tls.key", "no key"), ("tls.key", &other_key), ("ca.crt", "-----BEGIN")];
    for (name, text) in bad {
        std::fs::write(dir.path().join(name), text).unwrap();
        trust.look();
        assert!(Arc::ptr_eq(&before, &watched.borrow()), "{name}");
        let error = Trust::read(dir.path()).err().expect("it cannot begin so").to_string();
        assert!(error.contains("failed to"), "{error}");
        write(dir.path(), &first, &ca);
    }
    std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
    assert!(Trust::read(dir.path()).err().expect("a file is missing").to_string().contains("ca.crt"));
    write(dir.path(), &second, &ca);
    trust.look();
    assert!(!Arc::ptr_eq(&before, &watched.borrow()));
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let ca = authority(1);
    let pod = Pod::of(&ca).await;
    // Long enough for a slow machine to shake hands.
    let made = Timestamp::now() - LEAF_LIFE + Duration::from_secs(4);
    let leaf = issue_at(&ca, Some(Role::Operator), Usage::Client, made);
    let mut stream = pod.client(&pass(&ca, &leaf)).status().await.unwrap();
    stream.next().await.unwrap().unwrap();
    while let Ok(Some(_)) = stream.next().await {}
    assert!(Timestamp::now() >= made + LEAF_LIFE - Duration::from_secs(1));
}

#[tokio::test]
async fn a_crowd_of_silent_sockets_does_not_keep_the_operator_out() {
    let ca = authority(1);
    let pod = Pod::of(&ca).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(pod.address).await.unwrap());
    }
    pod.client(&pass(&ca, &issue(&ca, Role::Operator))).healthz().await.unwrap();
    // The oldest gave way.
    assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn nobody_is_waited_for_without_end() {
    let ca = authority(1);
    let pass = pass(&ca, &issue(&ca, Role::Operator));
    let short = Duration::from_millis(50);
    let patience = Patience { connect: short, ..Patience::default() };
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::over_tls(mute.local_addr().unwrap(), eu_0(), &pass).unwrap();
    let error = client.with_patience(patience).healthz().await.unwrap_err();
    assert!(matches!(error, ClientError::Silent("connection", _)), "{error}");

    let pod = Pod::start(&issue(&ca, node_role("eu", "*")), &ca, NEVER).await;
    let patience = Patience { silence: short, ..Patience::default() };
    let mut stream = pod.client(&pass).with_patience(patience).status().await.unwrap();
    stream.next().await.unwrap().unwrap();
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, ClientError::Silent("sign of life", _)), "{error}");
}
