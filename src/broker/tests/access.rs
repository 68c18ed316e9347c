//! Who gets in and what that allows, on real sockets: every form of secret, every kind of token, every name of a certificate,
//! every kind of principal, and rules that change under those who are here.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use rcgen::{DnType, SanType};
use serde_json::json;
use sha2::{Digest, Sha256, Sha512};

use super::*;
use crate::broker::tokens::tests::tokens_of_each_kind;
use crate::settings::{AccessRule, Action, Authorization, CertificateName, Effect, Jwt, Principals};

const PASSWORD: &str = "correct horse";
const SALT: &[u8] = b"0123456789abcdef";

fn user(name: &str, secret: &str) -> User {
    User { name: name.to_owned(), secret: secret.to_owned() }
}

fn closed_settings() -> Settings {
    let mut settings = plain_settings();
    settings.authentication.anonymous = false;
    settings
}

async fn login(broker: &Broker, id: &str, name: &str, password: &str) -> (Client, String) {
    let mut client = Client::open(broker).await;
    client.hello(id, Some((name, password))).await;
    let heard = client.hear().await;
    (client, heard)
}

/// A secret of each form for [`PASSWORD`].
fn secrets() -> Vec<User> {
    let (mut hash32, mut hash64) = ([0; 32], [0; 64]);
    pbkdf2::pbkdf2_hmac::<Sha256>(PASSWORD.as_bytes(), SALT, 10, &mut hash32);
    pbkdf2::pbkdf2_hmac::<Sha512>(PASSWORD.as_bytes(), SALT, 10, &mut hash64);
    let bare = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
    let once = Sha512::new().chain_update(PASSWORD).chain_update(SALT).finalize();
    vec![
        user("plain", &format!("plain:{PASSWORD}")),
        user(
            "argon2",
            "$argon2id$v=19$m=64,t=1,p=1$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM",
        ),
        user("bcrypt", &bcrypt::hash(PASSWORD, 4).expect("a hash")),
        user("pbkdf2-sha256", &format!("$pbkdf2-sha256$i=10,l=32${}${}", bare(SALT), bare(&hash32))),
        user(
            "pbkdf2-sha512",
            &format!("$pbkdf2-sha512$10${}${}", bare(SALT), bare(&hash64)).replace('+', "."),
        ),
        user("mosquitto 7", &format!("$7$10${}${}", STANDARD.encode(SALT), STANDARD.encode(hash64))),
        user("mosquitto 6", &format!("$6${}${}", STANDARD.encode(SALT), STANDARD.encode(once))),
    ]
}

#[test]
fn each_form_of_secret_opens_to_its_password_alone() {
    run(|| async {
        let mut settings = closed_settings();
        settings.authentication.users = secrets();
        let broker = Broker::start(&settings);
        for user in secrets() {
            let (_in, heard) = login(&broker, &user.name, &user.name, PASSWORD).await;
            assert_eq!(heard, "CONNACK Success", "{}", user.name);
        }
        // Refusals take longer the more there were: all at once.
        let wrong = secrets().into_iter().map(|user| {
            let broker = broker.clone();
            async move { login(&broker, "wrong", &user.name, "correct horsf").await.1 }
        });
        for heard in futures::future::join_all(wrong).await {
            assert_eq!(heard, "CONNACK BadUserNameOrPassword");
        }
    });
}

#[test]
fn each_kind_of_token_opens_to_its_own_key_alone() {
    run(|| async {
        let kinds = tokens_of_each_kind(&json!({"sub": "ann", "exp": 4_102_444_800_u64}));
        let mut settings = closed_settings();
        let broker = Broker::start(&settings);
        for (at, (_, jwk)) in kinds.iter().enumerate() {
            settings.authentication.jwt = Some(Jwt {
                jwks: json!({ "keys": [jwk] }).to_string(),
                username_claim: "sub".to_owned(),
                issuer: None,
                audience: None,
                acl_claim: None,
            });
            broker.apply_settings(&settings);
            let (_in, heard) = login(&broker, "c", "ann", &kinds[at].0).await;
            assert_eq!(heard, "CONNACK Success", "{jwk}");
            let other = &kinds[(at + 2) % kinds.len()].0;
            assert_eq!(login(&broker, "c", "ann", other).await.1, "CONNACK BadUserNameOrPassword", "{jwk}");
        }
    });
}

/// Whoever hashes, the shard goes on: a client that is in has two hundred answers before the slow one has one.
#[test]
fn a_slow_hash_holds_up_nobody() {
    run(|| async {
        let mut settings = closed_settings();
        let mut hash = [0; 64];
        pbkdf2::pbkdf2_hmac::<Sha512>(PASSWORD.as_bytes(), SALT, 1, &mut hash);
        // No password belongs to it; to find that out takes long.
        let slow = format!("$7$150000${}${}", STANDARD.encode(SALT), STANDARD.encode(hash));
        settings.authentication.users = vec![user("ann", "plain:a"), user("slow", &slow)];
        let broker = Broker::start(&settings);
        let (mut ann, heard) = login(&broker, "ann", "ann", "a").await;
        assert_eq!(heard, "CONNACK Success");
        let mut slow = Client::open(&broker).await;
        slow.hello("slow", Some(("slow", PASSWORD))).await;
        for _ in 0..200 {
            ann.send(&[Packet::PingReq]).await;
            let heard = tokio::select! {
                biased;
                heard = slow.hear() => panic!("it was fast: {heard}"),
                heard = ann.hear() => heard,
            };
            assert_eq!(heard, "PingResp");
        }
    });
}

/// A client certificate with one name of each kind, by an authority of its own.
fn papers_with_names() -> Papers {
    let mut params = CertificateParams::new(Vec::new()).expect("valid");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    let sign = |params: CertificateParams| {
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &ca).expect("a leaf").pem(), key.serialize_pem())
    };
    let server = sign(CertificateParams::new(vec!["localhost".to_owned()]).expect("valid"));
    let mut client = CertificateParams::new(Vec::new()).expect("valid");
    client.distinguished_name = rcgen::DistinguishedName::new();
    client.distinguished_name.push(DnType::CommonName, "by-common-name");
    let text = |text: &str| text.try_into().expect("ASCII");
    client.subject_alt_names = vec![
        SanType::DnsName(text("by-dns")),
        SanType::Rfc822Name(text("by@email")),
        SanType::URI(text("by:uri")),
    ];
    Papers { ca_pem: ca.pem(), server, client: sign(client) }
}

#[test]
fn each_name_of_a_certificate_can_be_the_user_name() {
    run(|| async {
        let papers = papers_with_names();
        let mut tls = papers.server_tls(ClientAuth::Require);
        let mut settings = closed_settings();
        settings.listeners.push(listener("mqtts", Some(tls.clone())));
        settings.authorization = Some(rules(vec![allow(Principals::default(), "${username}")]));
        let broker = Broker::start(&settings);
        for (name, user) in [
            (CertificateName::CommonName, "by-common-name"),
            (CertificateName::Dns, "by-dns"),
            (CertificateName::Email, "by@email"),
            (CertificateName::Uri, "by:uri"),
        ] {
            tls.username_from = Some(name);
            settings.listeners[1].tls = Some(tls.clone());
            broker.apply_settings(&settings);
            let mut client = papers.open(&broker, true).await;
            client.hello(user, Some(("somebody-else", ""))).await;
            assert_eq!(client.hear().await, "CONNACK Success", "{name:?}");
            client.subscribe(user, QoS::AtMostOnce).await;
            client.send(&[publish("somebody-else", QoS::AtLeastOnce, b"")]).await;
            assert_eq!(client.hear().await, "PUBACK 1 NotAuthorized", "{name:?}");
        }
        // Without that, a certificate opens nothing.
        tls.username_from = None;
        settings.listeners[1].tls = Some(tls);
        broker.apply_settings(&settings);
        let mut client = papers.open(&broker, true).await;
        client.hello("c", None).await;
        assert_eq!(client.hear().await, "CONNACK NotAuthorized");
    });
}

fn rules(rules: Vec<AccessRule>) -> Authorization {
    Authorization { rules, ..Authorization::default() }
}

fn allow(principals: Principals, filter: &str) -> AccessRule {
    let filters = vec![filter.to_owned()];
    AccessRule { principals, action: Action::All, filters, effect: Effect::Allow }
}

async fn answer(client: &mut Client, topic: &str) -> String {
    client.send(&[publish(topic, QoS::AtLeastOnce, b"")]).await;
    client.hear().await
}

const ALLOWED: &str = "PUBACK 1 NoMatchingSubscribers";
const DENIED: &str = "PUBACK 1 NotAuthorized";

#[test]
fn rules_are_for_users_client_ids_certificates_and_addresses() {
    run(|| async {
        let papers = papers_with_names();
        let mut settings = plain_settings();
        settings.authentication.users = vec![user("ann", "plain:a")];
        settings.listeners.push(listener("mqtts", Some(papers.server_tls(ClientAuth::Request))));
        let one = |name: &str| vec![name.to_owned()];
        settings.authorization = Some(rules(vec![
            allow(Principals { users: one("ann"), ..Principals::default() }, "user"),
            allow(Principals { client_ids: one("c1"), ..Principals::default() }, "id"),
            allow(Principals { certificate_names: one("by-dns"), ..Principals::default() }, "certificate"),
            allow(Principals { cidrs: one("127.0.0.2/32"), ..Principals::default() }, "address"),
            allow(Principals::default(), "of/${clientid}"),
            allow(Principals::default(), "of/user/${username}"),
        ]));
        let broker = Broker::start(&settings);
        let mut ann = login(&broker, "c2", "ann", "a").await.0;
        let mut first = Client::connect(&broker, "c1").await;
        let mut certified = papers.open(&broker, true).await;
        certified.hello("c3", None).await;
        assert_eq!(certified.hear().await, "CONNACK Success");
        let mut near = logins::from([127, 0, 0, 2].into(), &broker).await;
        near.hello("c4", None).await;
        assert_eq!(near.hear().await, "CONNACK Success");
        let topics = ["user", "id", "certificate", "address"];
        for (own, client) in [&mut ann, &mut first, &mut certified, &mut near].into_iter().enumerate() {
            for (at, topic) in topics.into_iter().enumerate() {
                let expected = if at == own { ALLOWED } else { DENIED };
                assert_eq!(answer(client, topic).await, expected, "{topic}, {own}");
            }
        }
        assert_eq!(answer(&mut ann, "of/c2").await, ALLOWED);
        assert_eq!(answer(&mut ann, "of/c1").await, DENIED);
        assert_eq!(answer(&mut ann, "of/user/ann").await, ALLOWED);
        assert_eq!(answer(&mut first, "of/user/ann").await, DENIED);
        assert_eq!(answer(&mut first, "of/user/").await, DENIED, "no name fits no level");
        assert_eq!(answer(&mut first, "what no rule names").await, DENIED);
    });
}

#[test]
fn changed_rules_hold_for_those_who_are_here() {
    run(|| async {
        let mut settings = plain_settings();
        let everything = || allow(Principals::default(), "#");
        settings.authorization = Some(rules(vec![everything()]));
        let broker = Broker::start(&settings);
        let mut listens = Client::connect(&broker, "listens").await;
        listens.subscribe("secret/+", QoS::AtMostOnce).await;
        let mut speaks = Client::connect(&broker, "speaks").await;
        assert_eq!(answer(&mut speaks, "secret").await, ALLOWED);

        let denied = AccessRule { effect: Effect::Deny, ..allow(Principals::default(), "secret/#") };
        settings.authorization = Some(rules(vec![denied, everything()]));
        broker.apply_settings(&settings);
        assert_eq!(answer(&mut speaks, "secret").await, DENIED);
        assert_eq!(answer(&mut speaks, "open").await, ALLOWED);
        assert_eq!(listens.hear().await, "DISCONNECT NotAuthorized");
        assert_eq!(listens.hear().await, "the end");
    });
}
