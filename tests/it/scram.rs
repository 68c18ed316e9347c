//! SCRAM-SHA-256 over a real socket: CONNECT, AUTH to and fro, and once more while connected.
//!
//! The client's half is written from RFC 5802 here, so that both halves would have to share a mistake.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use mqlink::mqtt::{Auth, Connect, Limits, Packet, PropertiesBuf, Property, ReasonCode, Version, decode};
use mqlink::settings::{Authentication, Settings};
use sha2::{Digest, Sha256};

use crate::clients::PATIENCE;
use crate::harness::{Node, SettingsExt, settings, until};

const METHOD: &str = "SCRAM-SHA-256";
const ITERATIONS: u32 = 4_096;
const SALT: &[u8] = b"a salt of sixtee";

fn keyed(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length will do");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn salted(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut salted);
    salted
}

/// What the settings keep of a password.
fn secret(password: &str) -> String {
    let salted = salted(password, SALT, ITERATIONS);
    let stored = STANDARD.encode(Sha256::digest(keyed(&salted, b"Client Key")));
    let server = STANDARD.encode(keyed(&salted, b"Server Key"));
    format!("{METHOD}${ITERATIONS}:{}${stored}:{server}", STANDARD.encode(SALT))
}

fn with_users() -> Settings {
    let settings = settings().users(&[("ann", &secret("right"))]);
    Settings {
        authentication: Authentication { anonymous: false, ..settings.authentication.clone() },
        ..settings
    }
}

/// What the server says in CONNACK, AUTH or DISCONNECT.
#[derive(Debug)]
struct Said {
    what: &'static str,
    reason: u8,
    data: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    fn open(port: u16) -> Client {
        let stream = until("the listener", || TcpStream::connect(("127.0.0.1", port)).ok());
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
        Client { stream, bytes: Vec::new() }
    }

    fn send(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        self.stream.write_all(&bytes).expect("the server reads");
    }

    fn connect(&mut self, data: &[u8]) {
        self.connect_as("ann-1", data);
    }

    fn connect_as(&mut self, client_id: &str, data: &[u8]) {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::AuthenticationMethod(METHOD));
        properties.push(Property::AuthenticationData(data));
        self.send(&Packet::Connect(Connect {
            properties: properties.as_properties(),
            ..Connect::new(client_id)
        }));
    }

    fn auth(&mut self, reason: ReasonCode, data: &[u8]) {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::AuthenticationMethod(METHOD));
        properties.push(Property::AuthenticationData(data));
        self.send(&Packet::Auth(Auth { reason, properties: properties.as_properties() }));
    }

    fn hear(&mut self) -> Said {
        loop {
            if let Some((packet, length)) =
                decode(&self.bytes, Version::V5, &Limits::default()).expect("valid")
            {
                let data = |properties: mqlink::mqtt::Properties| {
                    properties.authentication_data().unwrap_or_default().to_vec()
                };
                let said = match packet {
                    Packet::ConnAck(ack) => {
                        Said { what: "CONNACK", reason: ack.reason as u8, data: data(ack.properties) }
                    }
                    Packet::Auth(auth) => {
                        Said { what: "AUTH", reason: auth.reason as u8, data: data(auth.properties) }
                    }
                    Packet::Disconnect(bye) => {
                        Said { what: "DISCONNECT", reason: bye.reason as u8, data: Vec::new() }
                    }
                    other => panic!("{other:?}"),
                };
                self.bytes.drain(..length);
                return said;
            }
            let mut more = [0; 4_096];
            let count = self.stream.read(&mut more).expect("in time");
            assert!(count > 0, "the server closed without a word");
            self.bytes.extend_from_slice(&more[..count]);
        }
    }

    /// The challenge and the proof of a password: the client's last message, and what the server has to prove in turn.
    fn prove(&mut self, nonce: &str, password: &str) -> (String, String) {
        self.prove_as("ann", nonce, password)
    }

    fn prove_as(&mut self, name: &str, nonce: &str, password: &str) -> (String, String) {
        let said = self.hear();
        assert_eq!((said.what, said.reason), ("AUTH", 0x18));
        let challenge = String::from_utf8(said.data).expect("it is text");
        let part = |name: &str| {
            let found = challenge.split(',').find_map(|part| part.strip_prefix(name));
            found.expect("a challenge has it").to_owned()
        };
        let (all, salt, iterations) = (part("r="), part("s="), part("i="));
        assert!(all.len() > nonce.len() && all.starts_with(nonce), "{challenge}");
        let salt = STANDARD.decode(salt).expect("it is Base64");
        let salted = salted(password, &salt, iterations.parse().expect("a number"));
        let bare = format!("c=biws,r={all}");
        let signed = format!("n={name},r={nonce},{challenge},{bare}");
        let client_key = keyed(&salted, b"Client Key");
        let signature = keyed(&Sha256::digest(client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, bit)| key ^ bit).collect();
        let server = keyed(&keyed(&salted, b"Server Key"), signed.as_bytes());
        (format!("{bare},p={}", STANDARD.encode(proof)), format!("v={}", STANDARD.encode(server)))
    }
}

/// Logs in, and gives the proofs that went each way, in Base64, and what the server's last answer says.
pub(crate) fn login(port: u16, name: &str, password: &str) -> (String, String, u8) {
    let mut client = Client::open(port);
    client.connect_as(&format!("{name}-by-scram"), format!("n,,n={name},r=nonce").as_bytes());
    let (last, expected) = client.prove_as(name, "nonce", password);
    client.auth(ReasonCode::ContinueAuthentication, last.as_bytes());
    let (_, proof) = last.split_once(",p=").expect("a proof");
    (proof.to_owned(), expected[2..].to_owned(), client.hear().reason)
}

#[test]
fn who_proves_a_password_is_in_hears_the_servers_proof_and_may_prove_it_again() {
    let settings = with_users();
    let port = settings.listeners[0].port;
    let _node = Node::start(settings);
    let mut client = Client::open(port);
    client.connect(b"n,,n=ann,r=first");
    let (proof, expected) = client.prove("first", "right");
    client.auth(ReasonCode::ContinueAuthentication, proof.as_bytes());
    let said = client.hear();
    assert_eq!(
        (said.what, said.reason, String::from_utf8_lossy(&said.data).into_owned()),
        ("CONNACK", 0, expected)
    );

    client.auth(ReasonCode::ReAuthenticate, b"n,,n=ann,r=second");
    let (proof, expected) = client.prove("second", "right");
    client.auth(ReasonCode::ContinueAuthentication, proof.as_bytes());
    let said = client.hear();
    assert_eq!(
        (said.what, said.reason, String::from_utf8_lossy(&said.data).into_owned()),
        ("AUTH", 0, expected)
    );

    client.auth(ReasonCode::ReAuthenticate, b"n,,n=ann,r=third");
    let (proof, _) = client.prove("third", "wrong");
    client.auth(ReasonCode::ContinueAuthentication, proof.as_bytes());
    let said = client.hear();
    assert_eq!((said.what, said.reason), ("DISCONNECT", 0x87));
}

#[test]
fn who_does_not_or_does_not_exist_is_refused_alike() {
    let settings = with_users();
    let port = settings.listeners[0].port;
    let _node = Node::start(settings);
    for (first, password) in [("n,,n=ann,r=x", "wrong"), ("n,,n=bob,r=x", "right")] {
        let mut client = Client::open(port);
        client.connect(first.as_bytes());
        let (proof, _) = client.prove("x", password);
        client.auth(ReasonCode::ContinueAuthentication, proof.as_bytes());
        let said = client.hear();
        assert_eq!((said.what, said.reason), ("CONNACK", 0x87), "{first}");
    }
}
