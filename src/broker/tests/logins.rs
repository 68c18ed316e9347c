//! Logins on real sockets: floods of wrong ones, long ones, tokens whose keys change, SCRAM, certificates that change.

use std::net::Ipv4Addr;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpSocket;

use super::*;
use crate::mqtt::{Auth, PropertiesBuf, Property, ReasonCode};
use crate::settings::{CertificatePem, Jwt};

/// "correct horse", with so many rounds that it takes some milliseconds.
fn slow_secret() -> String {
    let mut hash = [0; 64];
    pbkdf2::pbkdf2_hmac::<sha2::Sha512>(b"correct horse", b"salt", 2_000, &mut hash);
    format!("$7$2000${}${}", STANDARD.encode(b"salt"), STANDARD.encode(hash))
}

fn user(name: &str, secret: &str) -> User {
    User { name: name.to_owned(), secret: secret.to_owned() }
}

fn users(users: Vec<User>) -> Settings {
    let mut settings = plain_settings();
    settings.authentication.anonymous = false;
    settings.authentication.users = users;
    settings
}

pub(super) async fn from(address: Ipv4Addr, broker: &Broker) -> Client {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((address, 0).into()).expect("an address of the loopback");
    let stream = socket.connect(([127, 0, 0, 1], port(broker, "mqtt")).into()).await.expect("it listens");
    Client { stream: Box::new(stream), unread: Vec::new() }
}

#[test]
fn a_flood_of_wrong_passwords_locks_nobody_out() {
    run(|| async {
        let broker = Broker::start(&users(vec![user("ann", &slow_secret())]));
        let mut flood = Vec::new();
        for n in 0..80 {
            let mut client = from(Ipv4Addr::new(127, 0, 0, 2), &broker).await;
            let name = if n % 2 == 0 { "ann" } else { "nobody" };
            client.hello(&format!("f{n}"), Some((name, "wrong"))).await;
            flood.push(tokio::task::spawn_local(async move { (client.hear().await, Instant::now()) }));
        }
        let start = Instant::now();
        let mut ann = from(Ipv4Addr::LOCALHOST, &broker).await;
        ann.hello("ann", Some(("ann", "correct horse"))).await;
        assert_eq!(ann.hear().await, "CONNACK Success");
        let done = Instant::now();
        // The next one has waited as long, from an address that has failed often by now; being right, it does not wait for that.
        let mut answers = Vec::new();
        for one in flood {
            answers.push(one.await.expect("it is answered"));
        }
        assert!(answers.iter().all(|(heard, _)| heard == "CONNACK BadUserNameOrPassword"));
        let later = answers.iter().filter(|(_, at)| *at > done).count();
        assert!(later > 40, "she came after {} of 80, in {:?}", 80 - later, done - start);
        let again = Instant::now();
        let mut right = from(Ipv4Addr::new(127, 0, 0, 2), &broker).await;
        right.hello("right", Some(("ann", "correct horse"))).await;
        assert_eq!(right.hear().await, "CONNACK Success");
        let mut wrong = from(Ipv4Addr::new(127, 0, 0, 2), &broker).await;
        let right_took = again.elapsed();
        wrong.hello("wrong", Some(("ann", "wrong"))).await;
        assert_eq!(wrong.hear().await, "CONNACK BadUserNameOrPassword");
        assert!(
            again.elapsed() - right_took >= Duration::from_secs(3) && right_took < Duration::from_secs(2)
        );
    });
}

#[test]
fn the_longest_password_is_a_password_like_others() {
    run(|| async {
        let longest = "x".repeat(65_535);
        let scram = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                     AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let broker = Broker::start(&users(vec![
            user("plain", &format!("plain:{longest}")),
            user(
                "argon2",
                "$argon2id$v=19$m=64,t=1,p=1$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM",
            ),
            user("bcrypt", "$2b$04$abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK"),
            user("mosquitto", &slow_secret()),
            user("scram", scram),
        ]));
        for name in ["plain", "argon2", "bcrypt", "mosquitto", "scram", "nobody"] {
            let mut client = Client::open(&broker).await;
            client.hello(name, Some((name, &longest))).await;
            let expected = if name == "plain" { "Success" } else { "BadUserNameOrPassword" };
            assert_eq!(client.hear().await, format!("CONNACK {expected}"), "{name}");
        }
    });
}

fn key(secret: &[u8; 32]) -> Value {
    json!({"kty": "oct", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(secret)})
}

fn token(secret: &[u8; 32]) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"sub": "ann", "exp": 4_102_444_800_u64, "acl": {"sub": ["news"]}});
    let message = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any key");
    mac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[test]
fn keys_of_tokens_come_and_go() {
    run(|| async {
        let (old, new) = ([b'o'; 32], [b'n'; 32]);
        let jwks = |keys: &[Value]| json!({ "keys": keys }).to_string();
        let jwt = |keys: &[Value]| Jwt {
            jwks: jwks(keys),
            username_claim: "sub".to_owned(),
            issuer: None,
            audience: None,
            acl_claim: Some("acl".to_owned()),
        };
        let mut settings = users(Vec::new());
        settings.authentication.jwt = Some(jwt(&[key(&old)]));
        let broker = Broker::start(&settings);
        let login = async |secret: &[u8; 32], id: &str| {
            let mut client = Client::open(&broker).await;
            client.hello(id, Some(("", &token(secret)))).await;
            let heard = client.hear().await;
            (client, heard)
        };
        let (mut first, heard) = login(&old, "first").await;
        assert_eq!(heard, "CONNACK Success");
        first.subscribe("news", QoS::AtMostOnce).await;
        assert_eq!(login(&new, "second").await.1, "CONNACK BadUserNameOrPassword");

        // A key more ends nobody's connection; a key less those that came by it.
        settings.authentication.jwt = Some(jwt(&[key(&old), key(&new)]));
        broker.apply_settings(&settings);
        let (mut second, heard) = login(&new, "second").await;
        assert_eq!(heard, "CONNACK Success");
        first.subscribe("news", QoS::AtMostOnce).await;
        settings.authentication.jwt = Some(jwt(&[key(&new)]));
        broker.apply_settings(&settings);
        assert_eq!(first.hear().await, "DISCONNECT NotAuthorized");
        second.send(&[publish("news", QoS::AtLeastOnce, b"")]).await;
        assert_eq!(second.hear().await, "PUBACK 1 NotAuthorized", "its token lists what it may do");
        settings.authentication.jwt = Some(Jwt { issuer: Some("other".to_owned()), ..jwt(&[key(&new)]) });
        broker.apply_settings(&settings);
        assert_eq!(second.hear().await, "DISCONNECT NotAuthorized");
    });
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// A client of SCRAM up to its last message, and the answer to that.
async fn scram(broker: &Broker, name: &str, password: &str) -> String {
    let mut client = Client::open(broker).await;
    let bare = format!("n={name},r=nonce");
    let mut properties = PropertiesBuf::new();
    properties.push(Property::AuthenticationMethod("SCRAM-SHA-256"));
    properties.push(Property::AuthenticationData(format!("n,,{bare}").leak().as_bytes()));
    let Packet::Connect(hello) = connect("scram", None) else { unreachable!() };
    client.send(&[Packet::Connect(Connect { properties: properties.as_properties(), ..hello })]).await;
    let mut bytes = Vec::new();
    let challenge = loop {
        client.stream.read_buf(&mut bytes).await.expect("it is open");
        if let Ok(Some((Packet::Auth(auth), _))) = decode(&bytes, Version::V5, &Limits::default()) {
            break String::from_utf8(auth.properties.authentication_data().expect("data").to_vec())
                .expect("text");
        }
    };
    let parts: Vec<&str> = challenge.split(',').map(|part| &part[2..]).collect();
    let &[nonce, salt, rounds] = &parts[..] else { panic!("{challenge}") };
    let mut salted = [0; 32];
    let salt = STANDARD.decode(salt).expect("Base64");
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, rounds.parse().expect("a number"), &mut salted);
    let client_key = mac(&salted, b"Client Key");
    let last = format!("c=biws,r={nonce}");
    let signature = mac(&Sha256::digest(&client_key), format!("{bare},{challenge},{last}").as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
    let last = format!("{last},p={}", STANDARD.encode(proof));
    let mut properties = PropertiesBuf::new();
    properties.push(Property::AuthenticationMethod("SCRAM-SHA-256"));
    properties.push(Property::AuthenticationData(last.as_bytes()));
    let (reason, properties) = (ReasonCode::ContinueAuthentication, properties.as_properties());
    client.send(&[Packet::Auth(Auth { reason, properties })]).await;
    client.hear().await
}

#[test]
fn scram_lets_in_who_has_the_password_and_refuses_others_slowly() {
    run(|| async {
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(b"pencil", b"0123456789abcdef", 1_000, &mut salted);
        let stored = STANDARD.encode(Sha256::digest(mac(&salted, b"Client Key")));
        let server = STANDARD.encode(mac(&salted, b"Server Key"));
        let secret = format!("SCRAM-SHA-256$1000:{}${stored}:{server}", STANDARD.encode(b"0123456789abcdef"));
        let broker = Broker::start(&users(vec![user("ann", &secret)]));
        let start = Instant::now();
        assert_eq!(scram(&broker, "ann", "pencil").await, "CONNACK Success");
        let (right, start) = (start.elapsed(), Instant::now());
        for (name, password) in [("ann", "pen"), ("nobody", "pencil"), ("ann", "")] {
            assert_eq!(scram(&broker, name, password).await, "CONNACK NotAuthorized");
        }
        assert!(start.elapsed() >= Duration::from_millis(100 + 200 + 400), "{right:?} {:?}", start.elapsed());
    });
}

impl Papers {
    /// What a client that trusts this authority gets as certificate, asking for a name.
    async fn look(&self, broker: &Broker, listener: &str, name: &str) -> Option<CertificateDer<'static>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).expect("PEM")).expect("a CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(("127.0.0.1", port(broker, listener))).await.expect("it listens");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
        Some(chain[0].clone().into_owned())
    }
}

#[test]
fn certificates_change_under_living_connections_on_every_listener_over_tls() {
    run(|| async {
        let (old, new) = (Papers::new(), Papers::new());
        let mut settings = plain_settings();
        settings.listeners.push(listener("mqtts", Some(old.server_tls(ClientAuth::None))));
        settings
            .listeners
            .push(Listener::new("wss", Protocol::Wss, 0).with_tls(old.server_tls(ClientAuth::None)));
        let broker = Broker::start(&settings);
        let mut stays = old.open(&broker, false).await;
        stays.hello("stays", None).await;
        assert_eq!(stays.hear().await, "CONNACK Success");
        let ports = ["mqtts", "wss"].map(|name| port(&broker, name));
        for listener in &mut settings.listeners[1..] {
            listener.tls = Some(new.server_tls(ClientAuth::None));
        }
        broker.apply_settings(&settings);
        for name in ["mqtts", "wss"] {
            assert!(old.look(&broker, name, "localhost").await.is_none(), "{name}");
            assert!(new.look(&broker, name, "localhost").await.is_some(), "{name}");
        }
        assert_eq!(["mqtts", "wss"].map(|name| port(&broker, name)), ports);
        stays.send(&[Packet::PingReq]).await;
        assert_eq!(stays.hear().await, "PingResp");
    });
}

#[test]
fn who_asks_for_a_server_name_gets_its_certificate() {
    run(|| async {
        let (first, second) = (Papers::new(), Papers::of("b.example"));
        let mut tls = first.server_tls(ClientAuth::None);
        let (certificate_pem, key_pem) = second.server.clone();
        tls.more = vec![CertificatePem { certificate_pem, key_pem }];
        let mut settings = plain_settings();
        settings.listeners.push(listener("mqtts", Some(tls)));
        let broker = Broker::start(&settings);
        assert!(first.look(&broker, "mqtts", "localhost").await.is_some());
        assert!(second.look(&broker, "mqtts", "b.example").await.is_some());
        assert!(second.look(&broker, "mqtts", "localhost").await.is_none());
        assert!(first.look(&broker, "mqtts", "b.example").await.is_none());
    });
}
