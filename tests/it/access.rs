//! Who may connect, and what nobody may touch.

use std::io::{Read, Write};
use std::net::TcpStream;

use mqlink::settings::{Credentials, Dial, Link, LinkListener};

use crate::clients::{Kind, Mosquitto, Paho, Post, Rumqttc, Who, refused_publish};
use crate::harness::{Node, SettingsExt, free_port, settings};

/// CONNACK's codes for a bad user name or password, and for not authorised: 4 and 5 in 3.1.1, which paho translates
/// to those of 5.0.
fn is_refusal(code: u8) -> bool {
    matches!(code, 4 | 5 | 0x86 | 0x87)
}

#[test]
fn only_users_with_their_password_get_in() {
    let node = Node::start(settings().users(&[("ada", "plain:engine")]));
    let clients: [&dyn Kind; 2] = [&Paho, &Rumqttc];
    for kind in clients {
        for v5 in [false, true] {
            let who = node.who().version(v5).named("visitor");
            let connect = |who: &Who| kind.connect(who).0;
            assert_eq!(connect(&who.clone().login("ada", "engine")), 0, "{}", kind.name());
            let strangers = [who.clone(), who.clone().login("ada", "motor"), who.login("eve", "engine")];
            for stranger in strangers {
                let code = connect(&stranger);
                assert!(is_refusal(code), "{}: {stranger:?} got {code}", kind.name());
            }
        }
    }
    Mosquitto.publish(&node.who().login("ada", "engine"), &[Post::new("a", "b", 1)]);
}

#[test]
fn nobody_gets_in_unless_somebody_may() {
    let node = Node::start(settings().users(&[]));
    let (code, _connection) = Paho.connect(&node.who());
    assert!(is_refusal(code), "{code}");
}

#[test]
fn link_topics_are_for_links() {
    let node = Node::start(settings());
    for v5 in [false, true] {
        let who = node.who().version(v5);
        let (_, mut client) = Paho.connect(&who);
        for filter in ["$LINK/#", "$LINK/cluster/msg/us", "$share/g/$LINK/#"] {
            let code = client.subscribe(filter, 1);
            assert!(code >= 0x80, "{filter} was granted: {code}");
        }
        let said = refused_publish(&who, &Post::new("$LINK/cluster/msg/us", "", 1));
        assert!(!said.is_empty() || !v5, "mosquitto_pub was not told");
        // 3.1.1 has no words for it; either way the broker goes on.
        let mut client = Paho.listen(&who, "fine");
        Mosquitto.publish(&who, &[Post::new("fine", "yes", 1)]);
        assert_eq!(client.next().payload, "yes");
    }
}

/// What a listener answers to a CONNECT of MQTT 5 with this user: the reason, or nothing if it closes.
fn knock(port: u16, client_id: &str, user: &str, password: &str) -> Option<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let body = [&b"\0\x04MQTT\x05\xc2\0\x3c\0"[..], &text(client_id), &text(user), &text(password)].concat();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.write_all(&[&[0x10, body.len() as u8][..], &body].concat()).expect("it is open");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).ok().map(|()| answer[3])
}

#[test]
fn clients_and_links_have_doors_of_their_own() {
    let mut settings = settings().users(&[("alice", "plain:for-clients")]);
    settings.link_listener = Some(LinkListener { port: free_port(), tls: None });
    let mut link = Link { dial: Dial::In, ..Link::new("mqtt/us-eu", "eu") };
    link.inbound.credentials =
        Some(Credentials { username: "peer".to_owned(), password: "for-links".to_owned() });
    settings.links = vec![link];
    let (clients, links) =
        (settings.listeners[0].port, settings.link_listener.as_ref().expect("set above").port);
    let _node = Node::start(settings);
    assert_eq!(knock(clients, "c", "alice", "for-clients"), Some(0));
    for (user, password) in [("peer", "for-links"), ("alice", "for-links"), ("peer", "for-clients")] {
        assert_eq!(knock(clients, "c", user, password), Some(0x86), "{user} {password}");
    }
    for client_id in ["c", "eu", "mqlink/eu/node-0"] {
        for (user, password) in
            [("alice", "for-clients"), ("alice", "for-links"), ("peer", "for-clients"), ("", "")]
        {
            assert_ne!(knock(links, client_id, user, password), Some(0), "{client_id} {user} {password}");
        }
    }
}
