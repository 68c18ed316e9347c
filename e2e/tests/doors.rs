//! The sample with doors of all kinds, as a user completes it, and who comes in at each of them.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use mqlink::mqtt::{Connect, Packet, Version};

use crate::clients::Door;
use crate::hostile::secured;
use crate::process::WAIT_MAX;
use crate::scene::{Kind, Scene, own_cluster, play};

const SAMPLE: &str = include_str!("../../config/samples/doors.yaml");
/// What the server's certificate is for.
const NAME: &str = "us-east.example";

/// An authority with a certificate of the server and one of the device `sensor-1`, as files.
struct Certificates {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    fn make() -> Certificates {
        let key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("no names");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = ca.self_signed(&key).expect("an authority");
        let folder = TempDir::new().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.crt"), certificate.pem()).expect("writable");
        let made = Certificates { folder, issuer: Issuer::new(ca, key) };
        made.issue("server", vec![NAME.to_owned()]);
        made.issue("sensor-1", Vec::new());
        made
    }

    fn issue(&self, name: &str, dns: Vec<String>) {
        let key = KeyPair::generate().expect("a key");
        let mut leaf = CertificateParams::new(dns).expect("names");
        leaf.distinguished_name.push(DnType::CommonName, name);
        let certificate = leaf.signed_by(&key, &self.issuer).expect("a leaf");
        std::fs::write(self.folder.path().join(format!("{name}.crt")), certificate.pem()).expect("writable");
        std::fs::write(self.folder.path().join(format!("{name}.key")), key.serialize_pem())
            .expect("writable");
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn pem(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("it was written")
    }

    /// The Secrets that the sample leaves to the user.
    fn secrets(&self) -> String {
        let secret = |name: &str, type_: &str, data| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": type_, "stringData": data});
        let pair = json!({"tls.crt": self.pem("server.crt"), "tls.key": self.pem("server.key")});
        let items = [
            secret("us-east-tls", "kubernetes.io/tls", pair),
            secret("devices-ca", "Opaque", json!({"ca.crt": self.pem("ca.crt")})),
        ];
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    }

    /// A way to the door for devices, over TLS.
    fn trusted(&self, door: Door) -> Door {
        door.with(&["--cafile", &self.file("ca.crt"), "--server-name", NAME])
    }
}

/// A way to a listener; where the network is ours, without kubectl between, whose address no rule knows.
async fn way(scene: &Scene, listener: &str, port: u16) -> Door {
    match own_cluster() {
        Some(_) => Door::at(&scene.address("us-east").await, port),
        None => Door::open(scene, &format!("service/us-east-{listener}"), port).await,
    }
}

/// What a script of a web page is told: the answer to its request, and where that opens the WebSocket, the one to its CONNECT.
async fn web(door: &Door, ca_pem: &str, origin: &str, login: (&str, &str)) -> (String, Option<u8>) {
    let address = format!("{}:{}", door.host, door.port);
    let mut stream = secured(&address, NAME, ca_pem, None).await.expect("TLS");
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {NAME}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = timeout(WAIT_MAX, stream.read_u8()).await.expect("an answer in time");
        answer.push(byte.expect("a whole answer"));
    }
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned();
    if status != "101" {
        return (status, None);
    }
    let (user, password) = login;
    let mut connect = Vec::new();
    Packet::Connect(Connect {
        keep_alive_s: 60,
        username: Some(user),
        password: Some(password.as_bytes()),
        ..Connect::new("page")
    })
    .encode(Version::V5, &mut connect);
    // One binary message; the mask is four zeros.
    let length = u8::try_from(connect.len()).ok().filter(|length| *length < 126).expect("a short packet");
    let frame = [&[0x82, 0x80 | length, 0, 0, 0, 0][..], &connect].concat();
    stream.write_all(&frame).await.expect("it is sent");
    // Two bytes of the frame, two of the packet, its flags, and the reason.
    let mut connack = [0; 6];
    let read = timeout(WAIT_MAX, stream.read_exact(&mut connack)).await.expect("an answer in time");
    read.expect("a whole answer");
    assert_eq!((connack[0], connack[2]), (0x82, 0x20), "{connack:?}");
    (status, Some(connack[5]))
}

#[test]
fn each_door_of_the_sample_lets_in_whom_it_should() {
    play("doors", async |scene| {
        scene.apply(SAMPLE).await;
        let refs = scene.condition(Kind::Cluster, "us-east", "ResolvedRefs", "False").await;
        let message = refs["message"].as_str().unwrap_or_default();
        assert!(message.contains("us-east-tls"), "what is left to the user is said: {message}");
        let certificates = Certificates::make();
        scene.apply(&certificates.secrets()).await;
        scene.ready(Kind::Cluster, "us-east").await;

        let door = async || certificates.trusted(way(scene, "devices", 8883).await);
        let (certificate, key) = (certificates.file("sensor-1.crt"), certificates.file("sensor-1.key"));
        let device = door().await.with(&["--cert", &certificate, "--key", &key]);
        let admin = door().await.of("admin", "change me");
        for (door, topic, is_allowed) in [
            (&device, "devices/sensor-1/up", true),
            (&device, "devices/sensor-2/up", false),
            (&admin, "devices/admin/up", true),
            (&door().await, "devices/sensor-1/up", false),
            (&door().await.of("admin", "changed"), "devices/admin/up", false),
            (&way(scene, "devices", 8883).await, "devices/sensor-1/up", false),
        ] {
            let published = door.publish(topic, "1").await;
            assert_eq!(published.is_ok(), is_allowed, "{topic}: {}", published.stderr);
        }
        if own_cluster().is_some() {
            // Here the administrator comes from where the rule wants it.
            let mut listener = admin.listen(&["devices/#"]).await;
            assert!(device.publish("devices/sensor-1/up", "heard").await.is_ok());
            assert_eq!(listener.line().await, "devices/sensor-1/up heard");
        }

        let page = way(scene, "web", 8443).await;
        let (ca, ours) = (certificates.pem("ca.crt"), "https://app.example");
        let opened = |reason: u8| ("101".to_owned(), Some(reason));
        assert_eq!(web(&page, &ca, ours, ("admin", "change me")).await, opened(0));
        let (status, reason) = web(&page, &ca, ours, ("admin", "changed")).await;
        assert!(status == "101" && reason.is_some_and(|reason| reason >= 0x80), "{status} {reason:?}");
        let stranger = web(&page, &ca, "https://elsewhere.example", ("admin", "change me")).await;
        assert_eq!(stranger, ("403".to_owned(), None));
    });
}
