//! A node that drains: clients leave and hear why, then links; sessions stay, and so do the answers to who manages it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use mqlink::mqtt::{Connect, Limits, Packet, PropertiesBuf, Property, ReasonCode, Version, decode};
use mqlink::settings::{Credentials, Dial, Link, LinkListener, Settings};

use crate::admin;
use crate::clients::PATIENCE;
use crate::harness::{Node, free_port, get, settings, until};

/// A client without a library: what it hears is compared packet by packet.
struct Bare {
    stream: TcpStream,
    version: Version,
    unread: Vec<u8>,
}

impl Bare {
    fn open(port: u16, version: Version) -> Bare {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is open");
        Bare { stream, version, unread: Vec::new() }
    }

    /// CONNECT, with a session that outlives the connection.
    fn hello(&mut self, client_id: &str) {
        let mut properties = PropertiesBuf::new();
        if self.version == Version::V5 {
            properties.push(Property::SessionExpiryInterval(3_600));
        }
        let connect = Connect {
            version: self.version,
            clean_start: false,
            properties: properties.as_properties(),
            ..Connect::new(client_id)
        };
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(self.version, &mut bytes);
        self.stream.write_all(&bytes).expect("it is open");
    }

    /// The next packet: what it is, its reason, and the server that it names. None at the end.
    fn hear(&mut self) -> Option<(&'static str, ReasonCode, Option<String>)> {
        loop {
            if let Some((packet, length)) =
                decode(&self.unread, self.version, &Limits::default()).expect("it speaks MQTT")
            {
                let reference = |property| match property {
                    Property::ServerReference(server) => Some(server.to_owned()),
                    _ => None,
                };
                let heard = match packet {
                    Packet::ConnAck(ack) => {
                        ("CONNACK", ack.reason, ack.properties.iter().find_map(reference))
                    }
                    Packet::Disconnect(end) => {
                        ("DISCONNECT", end.reason, end.properties.iter().find_map(reference))
                    }
                    other => panic!("{other:?}"),
                };
                self.unread.drain(..length);
                return Some(heard);
            }
            let mut piece = [0; 1_024];
            match self.stream.read(&mut piece).expect("an end in order") {
                0 => return None,
                count => self.unread.extend_from_slice(&piece[..count]),
            }
        }
    }
}

fn credentials() -> Credentials {
    Credentials { username: "peer".to_owned(), password: "for-links".to_owned() }
}

/// Settings of two clusters with a link between them, which `eu` dials.
fn linked() -> (Settings, Settings) {
    let (mut us, mut eu) = (settings(), settings());
    (us.cluster, eu.cluster) = ("us".to_owned(), "eu".to_owned());
    let port = free_port();
    us.link_listener = Some(LinkListener { port, tls: None });
    let mut link = Link { dial: Dial::In, ..Link::new("mqtt/us-eu", "eu") };
    link.inbound.credentials = Some(credentials());
    us.links = vec![link];
    let link = Link::new("mqtt/us-eu", "us");
    let server = Some(format!("127.0.0.1:{port}"));
    eu.links = vec![Link { dial: Dial::Out, server, credentials: Some(credentials()), ..link }];
    (us, eu)
}

#[test]
fn all_leave_a_node_that_drains_and_their_sessions_stay() {
    for (shards, permanent) in [(1, false), (2, true)] {
        let (us, eu) = linked();
        let mut settings = serde_json::to_value(&us).expect("settings are JSON");
        let link_port = us.link_listener.as_ref().expect("there is one").port;
        let node = admin::Node::start_with(Settings { shards: Some(shards), ..us });
        let peer = Node::start(eu);
        peer.status().until("a link", |report| report.links.iter().any(crate::harness::is_up));
        let probes = SocketAddr::from(([127, 0, 0, 1], node.probes));
        let is_ready = || get(probes, "/readyz").expect("an answer").starts_with("HTTP/1.1 200 ");
        until("a node that is ready", || is_ready().then_some(()));

        let versions = [Version::V5, Version::V3];
        let mut clients: Vec<Bare> = (0..40).map(|n| Bare::open(node.port, versions[n % 2])).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.hello(&format!("c{n}"));
            assert_eq!(client.hear(), Some(("CONNACK", ReasonCode::Success, None)));
        }
        let mut late = versions.map(|version| Bare::open(node.port, version));
        // What was accepted after these is in, so they are.
        Bare::open(node.port, Version::V5).hello("last");

        let mut words = vec!["drain", "--server", "other.example:1883"];
        words.extend(permanent.then_some("--permanent"));
        node.answer(&words);
        assert!(!is_ready());
        let reason = if permanent { ReasonCode::ServerMoved } else { ReasonCode::UseAnotherServer };
        let server = Some("other.example:1883".to_owned());
        for client in &mut clients {
            if client.version == Version::V5 {
                assert_eq!(client.hear(), Some(("DISCONNECT", reason, server.clone())));
            }
            assert_eq!(client.hear(), None, "3.1.1 has no words for it");
        }
        for client in &mut late {
            client.hello("late");
            let expected = match client.version {
                Version::V5 => ("CONNACK", reason, server.clone()),
                Version::V3 => ("CONNACK", ReasonCode::ServerUnavailable, None),
            };
            assert_eq!(client.hear(), Some(expected));
            assert_eq!(client.hear(), None);
        }
        until("closed listeners", || TcpStream::connect(("127.0.0.1", node.port)).err());

        let held = node.answer(&["sessions"]);
        for n in 0..clients.len() {
            assert!(held.lines().any(|line| line.starts_with(&format!("c{n} "))), "c{n}: {held}");
        }
        assert_eq!(node.answer(&["clients"]).lines().count(), 1, "only the head");
        peer.status().until("the end of the link", |report| {
            report.links.iter().all(|link| !crate::harness::is_up(link) && link.connections.open == 0)
        });
        assert!(get(probes, "/livez").expect("an answer").starts_with("HTTP/1.1 200 "));
        assert!(node.scrape().contains("mqlink_connections 0\n"));
        // Nor do new settings bring anyone back.
        let other = free_port();
        settings["listeners"][0]["port"] = other.into();
        settings["links"][0]["topics"] = serde_json::json!(["other/#"]);
        let answer = admin::put(&node, &settings);
        assert!(answer.contains("200 OK"), "{answer}");
        for port in [node.port, other, link_port] {
            assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "port {port}");
        }
    }
}
