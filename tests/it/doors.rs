//! The doors of a broker, with clients that people have: WebSocket, client certificates, hashed passwords, tokens, rules.

use std::io::{Read, Write};
use std::net::TcpStream;

use mqlink::settings::{
    AccessRule, Action, Authorization, CertificateName, ClientAuth, Effect, Jwt, Listener, Principals,
    Protocol, Settings,
};

use crate::clients::{Kind, Mosquitto, Paho, Post, refused_publish};
use crate::harness::{Certificates, Node, SettingsExt, free_port, settings};

fn web(mut settings: Settings) -> Settings {
    settings.listeners.push(Listener::new("ws", Protocol::Ws, free_port()));
    settings
}

fn rule(users: &[&str], action: Action, filter: &str) -> AccessRule {
    let users = users.iter().map(|&user| user.to_owned()).collect();
    let principals = Principals { users, ..Principals::default() };
    AccessRule { principals, action, filters: vec![filter.to_owned()], effect: Effect::Allow }
}

#[test]
fn clients_speak_web_socket_in_the_clear_and_over_tls() {
    let certificates = Certificates::new();
    let mut settings = web(settings());
    settings.listeners.push(Listener::new("wss", Protocol::Wss, free_port()).with_tls(certificates.server()));
    settings.listeners[2].path = "/elsewhere".to_owned();
    let node = Node::start(settings);
    let secure = node.at("wss").trusting(&certificates.ca()).path("/elsewhere");
    for who in [node.at("ws").path("/mqtt"), secure] {
        for v5 in [false, true] {
            let who = who.clone().version(v5);
            let mut subscriber = Paho.subscribe(&who, "web/#", 2);
            for payload in ["hush", &"long".repeat(100_000)] {
                Paho.publish(&who, &[Post::new("web/1", payload, 2)]);
                assert!(subscriber.next().payload == payload);
                Mosquitto.publish(&node.who(), &[Post::new("web/2", payload, 1)]);
                assert!(subscriber.next().payload == payload);
            }
        }
    }
}

#[test]
fn what_is_no_web_socket_is_told_so_and_hurts_nobody() {
    let node = Node::start(web(settings()));
    let who = node.at("ws").path("/mqtt");
    let mut subscriber = Paho.listen(&who, "fine/#");
    let request = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let opened = |frames: &[u8]| [request.as_bytes(), frames].concat();
    for (bytes, expected) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "HTTP/1.1 404 "),
        (b"GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "HTTP/1.1 426 "),
        (b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01a\r\n\r\n".to_vec(), "HTTP/1.1 400 "),
        (format!("GET /mqtt HTTP/1.1\r\nA: {}", "a".repeat(10_000)).into_bytes(), "HTTP/1.1 431 "),
        (opened(b"\x82\x02no mask"), "HTTP/1.1 101 "),
        (opened(b"\x81\x82\0\0\0\0hi"), "HTTP/1.1 101 "),
        (opened(b"\x09\x80\0\0\0\0"), "HTTP/1.1 101 "),
        (opened(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"), "HTTP/1.1 101 "),
        (opened(b"\x82\x84\0\0\0\0\xff\xff\xff\xff"), "HTTP/1.1 101 "),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", who.port)).expect("the listener is open");
        // The answer may come, and the end with it, before all is written.
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            answer.extend_from_slice(&piece[..count]);
        }
        let shown = answer.escape_ascii().to_string();
        // What is closed with unread bytes may be reset, and its last words lost with that.
        assert!(
            answer.starts_with(expected.as_bytes()) || (answer.is_empty() && bytes.len() > 8_192),
            "{shown}"
        );
    }
    Mosquitto.publish(&node.who(), &[Post::new("fine/1", "still here", 2)]);
    assert_eq!(subscriber.next().payload, "still here");
}

#[test]
fn a_certificate_is_as_good_as_a_password() {
    let certificates = Certificates::new();
    let mut settings = settings().users(&[]).tls(certificates.server());
    let tls = settings.listeners[1].tls.as_mut().expect("it is over TLS");
    tls.client_auth = ClientAuth::Require;
    tls.client_ca_pem = Some(certificates.ca_pem());
    tls.username_from = Some(CertificateName::CommonName);
    let rules = vec![rule(&[], Action::All, "${username}/#")];
    settings.authorization = Some(Authorization { rules, ..Authorization::default() });
    let node = Node::start(settings);
    let who = node.at("mqtts").trusting(&certificates.ca()).presenting(certificates.client("device-7"));
    let mut subscriber = Paho.listen(&who, "device-7/#");
    Paho.publish(&who, &[Post::new("device-7/up", "by name", 1)]);
    assert_eq!(subscriber.next().payload, "by name");
    assert_eq!(subscriber.subscribe("device-8/#", 1), 0x87);
    let (code, _stranger) = Paho.connect(&node.who());
    assert_ne!(code, 0);
}

#[test]
fn secrets_of_other_programs_are_understood() {
    let node = Node::start(settings().users(&[
        ("bcrypt", "$2b$04$abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK"),
        ("passlib", "$pbkdf2-sha512$1000$MDEyMzQ1Njc4OWFiY2RlZg$OM0FAoIqCVK1sWtxDiffVlBejtLa.ks4TP71JiecwuSZCG8iLbnlIEPOMoVX.i2B2wkSxjQ8CRGR9OkNGuIPMQ"),
    ]));
    let (code, _connection) = Paho.connect(&node.who().login("passlib", "correct horse"));
    assert_eq!(code, 0);
    for (user, password) in [("passlib", "wrong"), ("bcrypt", "wrong"), ("nobody", "correct horse")] {
        assert_ne!(Paho.connect(&node.who().login(user, password)).0, 0, "{user}");
    }
}

#[test]
fn a_token_is_a_password_with_a_name_and_an_end() {
    let mut settings = settings().users(&[]);
    // The secret is 32 times the letter k.
    let jwks =
        r#"{"keys": [{"kty": "oct", "alg": "HS256", "k": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s"}]}"#;
    settings.authentication.jwt = Some(Jwt {
        jwks: jwks.to_owned(),
        username_claim: "sub".to_owned(),
        issuer: None,
        audience: None,
        acl_claim: None,
    });
    settings.authorization = Some(Authorization {
        rules: vec![rule(&["ann"], Action::Subscribe, "news"), rule(&["ann"], Action::Publish, "news")],
        ..Authorization::default()
    });
    let node = Node::start(settings);
    // {"sub": "ann", "exp": 4102444800}, the first second of 2100; and one that ended in 2001.
    let (good, late) = (
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiAiYW5uIiwgImV4cCI6IDQxMDI0NDQ4MDB9.7fKG5_aSwr7CH9co8Zu3tJVUT287YUo_aQ7x5EGzFus",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiAiYW5uIiwgImV4cCI6IDEwMDAwMDAwMDB9.iZxpBoKvkd1po7ibOJepbGglafdc0dENMxED-eIB0Oc",
    );
    for name in ["ann", ""] {
        let who = node.who().login(name, good);
        let mut subscriber = Paho.listen(&who, "news");
        Paho.publish(&who, &[Post::new("news", "mine", 1)]);
        assert_eq!(subscriber.next().payload, "mine");
        assert_eq!(subscriber.subscribe("other", 1), 0x87);
    }
    for (name, token) in [("bob", good), ("ann", late), ("ann", "a.b.c"), ("ann", "")] {
        assert_ne!(Paho.connect(&node.who().login(name, token)).0, 0, "{name} {token}");
    }
}

#[test]
fn rules_hold_for_all_clients() {
    let mut settings = settings().users(&[("ann", "plain:a"), ("bob", "plain:b")]);
    settings.authorization = Some(Authorization {
        rules: vec![
            rule(&[], Action::Publish, "from/${username}"),
            rule(&["bob"], Action::Subscribe, "from/#"),
        ],
        ..Authorization::default()
    });
    let node = Node::start(settings);
    let (ann, bob) = (node.who().login("ann", "a"), node.who().login("bob", "b"));
    let mut listener = Paho.listen(&bob, "from/+");
    Mosquitto.publish(&ann, &[Post::new("from/ann", "mine", 1)]);
    assert_eq!(listener.next().payload, "mine");
    let said = refused_publish(&ann, &Post::new("from/bob", "not mine", 1));
    assert!(!said.is_empty(), "mosquitto_pub was not told");
    let (_, mut nosy) = Paho.connect(&ann);
    assert_eq!(nosy.subscribe("from/ann", 1), 0x87);
    Mosquitto.publish(&bob, &[Post::new("from/bob", "marker", 1)]);
    assert_eq!(listener.next().payload, "marker");
    let refused = Paho.connect(&ann.will(Post::new("from/bob", "as bob", 1))).0;
    assert_eq!(refused, 0x87);
}
