//! What survives `kill -9`: a broker with `--data` dies again and again, and clients count what they were promised.
//!
//! The clients are a few lines on the codec: they answer and repeat as the specification asks, and know what came once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use mqlink::mqtt::{
    Ack, Connect, Limits, Packet, PacketId, Properties, PropertiesBuf, Property, Publish, QoS, Subscribe,
    SubscribeFiltersBuf, SubscribeOptions, Version, decode,
};
use mqlink::settings::{Durability, Settings};
use tempfile::TempDir;

use crate::clients::{Kind, PATIENCE, Paho, Post, Rumqttc};
use crate::harness::{MQLINK, Node, settings, until};

/// A connection with a stored session.
pub(crate) struct Wire {
    stream: TcpStream,
    bytes: Vec<u8>,
    pub(crate) is_present: bool,
}

/// What a client hears, as far as it counts here.
#[derive(Debug)]
pub(crate) enum Heard {
    Message {
        packet_id: Option<PacketId>,
        qos: QoS,
        payload: String,
    },
    Ack(PacketId),
    /// With this reason.
    Refused(u8),
    Received(PacketId),
    Release(PacketId),
    Complete(PacketId),
    Other,
}

impl Wire {
    pub(crate) fn connect(port: u16, client_id: &str) -> Wire {
        Wire::connect_for(port, client_id, 3_600)
    }

    /// With a session that ends with its connection.
    pub(crate) fn connect_clean(port: u16, client_id: &str) -> Wire {
        Wire::connect_for(port, client_id, 0)
    }

    fn connect_for(port: u16, client_id: &str, expiry_s: u32) -> Wire {
        let stream = until("the listener", || TcpStream::connect(("127.0.0.1", port)).ok());
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
        stream.set_nodelay(true).expect("a socket has this option");
        let mut wire = Wire { stream, bytes: Vec::new(), is_present: false };
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(expiry_s));
        let connect =
            Connect { clean_start: false, properties: properties.as_properties(), ..Connect::new(client_id) };
        assert!(wire.send(&Packet::Connect(connect)));
        wire.is_present = wire.next_with(|packet| match packet {
            Packet::ConnAck(ack) => ack.session_present,
            other => panic!("{other:?}"),
        }) == Some(true);
        wire
    }

    pub(crate) fn subscribe(&mut self, filter: &str) {
        let mut filters = SubscribeFiltersBuf::default();
        filters.push(filter, SubscribeOptions::at(QoS::ExactlyOnce)).expect("the filter is valid");
        let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters: filters.as_filters() }));
        let is_granted = self.next_with(|packet| matches!(packet, Packet::SubAck(ack) if ack.reasons == [2]));
        assert_eq!(is_granted, Some(true));
    }

    fn publish(&mut self, packet_id: PacketId, qos: QoS, payload: &str) -> bool {
        self.publish_to("kept/1", Some(packet_id), qos, payload)
    }

    pub(crate) fn publish_to(
        &mut self,
        topic: &str,
        packet_id: Option<PacketId>,
        qos: QoS,
        payload: &str,
    ) -> bool {
        self.publish_kept(topic, packet_id, qos, payload, false)
    }

    fn publish_kept(
        &mut self,
        topic: &str,
        packet_id: Option<PacketId>,
        qos: QoS,
        payload: &str,
        retain: bool,
    ) -> bool {
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_id,
            properties: Properties::EMPTY,
            payload: payload.as_bytes(),
        }))
    }

    /// False if the broker is gone.
    fn send(&mut self, packet: &Packet) -> bool {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        self.stream.write_all(&bytes).is_ok()
    }

    /// The next packet; none if the broker is gone.
    pub(crate) fn next(&mut self) -> Option<Heard> {
        self.next_with(|packet| match packet {
            Packet::Publish(publish) => Heard::Message {
                packet_id: publish.packet_id,
                qos: publish.qos,
                payload: String::from_utf8_lossy(publish.payload).into_owned(),
            },
            Packet::PubAck(ack) if ack.reason.is_error() => Heard::Refused(ack.reason as u8),
            Packet::PubAck(ack) => Heard::Ack(ack.packet_id),
            Packet::PubRec(ack) => Heard::Received(ack.packet_id),
            Packet::PubRel(ack) => Heard::Release(ack.packet_id),
            Packet::PubComp(ack) => Heard::Complete(ack.packet_id),
            _ => Heard::Other,
        })
    }

    fn next_with<T>(&mut self, then: impl Fn(&Packet) -> T) -> Option<T> {
        loop {
            if let Some((packet, length)) =
                decode(&self.bytes, Version::V5, &Limits::default()).expect("valid")
            {
                let result = then(&packet);
                self.bytes.drain(..length);
                return Some(result);
            }
            let mut more = [0; 4_096];
            match self.stream.read(&mut more) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.bytes.extend_from_slice(&more[..count]),
            }
        }
    }
}

/// Publishes at QoS 1 and 2 in turns, as many at once as its window has, until `acknowledged` has grown by `goal`.
#[derive(Default)]
pub(crate) struct Publisher {
    next: u32,
    /// How much longer its messages are than their numbers.
    padding: usize,
    sending: BTreeMap<PacketId, (QoS, String, bool)>,
    pub(crate) acknowledged: BTreeSet<String>,
}

const WINDOW: u16 = 20;

impl Publisher {
    pub(crate) fn run(&mut self, wire: &mut Wire, goal: usize) {
        for (&packet_id, (qos, payload, is_received)) in &self.sending {
            match is_received {
                true => wire.send(&Packet::PubRel(Ack::success(packet_id))),
                false => wire.publish(packet_id, *qos, payload),
            };
        }
        let goal = self.acknowledged.len() + goal;
        while self.acknowledged.len() < goal {
            self.fill(wire);
            match wire.next() {
                None => return,
                Some(Heard::Ack(id) | Heard::Complete(id)) => {
                    let (_, payload, _) = self.sending.remove(&id).expect("it was being sent");
                    self.acknowledged.insert(payload);
                }
                Some(Heard::Received(id)) => {
                    self.sending.get_mut(&id).expect("it was being sent").2 = true;
                    wire.send(&Packet::PubRel(Ack::success(id)));
                }
                Some(other) => panic!("{other:?}"),
            }
        }
    }

    fn fill(&mut self, wire: &mut Wire) {
        for id in (1..=WINDOW).filter_map(PacketId::new) {
            if !self.sending.contains_key(&id) {
                self.next += 1;
                let qos = if self.next.is_multiple_of(2) { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                let payload = format!("{}-{}-{}", qos as u8, self.next, "x".repeat(self.padding));
                wire.publish(id, qos, &payload);
                self.sending.insert(id, (qos, payload, false));
            }
        }
    }
}

/// Retains one number after the other under one topic, and removes it in between.
#[derive(Default)]
struct Keeper {
    sent: u32,
    acknowledged: u32,
}

impl Keeper {
    fn payload(number: u32) -> String {
        if number.is_multiple_of(3) { String::new() } else { number.to_string() }
    }

    /// Goes on until the broker is gone.
    fn run(&mut self, wire: &mut Wire) {
        loop {
            self.sent += 1;
            let payload = Keeper::payload(self.sent);
            wire.publish_kept("number", Some(PacketId::MIN), QoS::AtLeastOnce, &payload, true);
            match wire.next() {
                None => return,
                Some(Heard::Ack(_)) => self.acknowledged = self.sent,
                Some(other) => panic!("{other:?}"),
            }
        }
    }

    /// What is retained is what was acknowledged last, or what was sent after it.
    fn check(&self, wire: &mut Wire) {
        wire.subscribe("number");
        wire.publish_to("number", None, QoS::AtMostOnce, "end");
        let Some(Heard::Message { payload, .. }) = wire.next() else { panic!("the broker is gone") };
        let found = if payload == "end" { String::new() } else { payload };
        let numbers = self.acknowledged..=self.sent;
        assert!(numbers.clone().any(|number| Keeper::payload(number) == found), "{found:?} of {numbers:?}");
    }
}

#[derive(Default)]
pub(crate) struct Subscriber {
    held: BTreeSet<PacketId>,
    pub(crate) heard: Vec<String>,
}

impl Subscriber {
    /// Listens until the broker is gone, or until everything that is `wanted` was heard.
    pub(crate) fn run(&mut self, wire: &mut Wire, wanted: Option<&BTreeSet<String>>) {
        let mut missing = wanted.cloned();
        if let Some(missing) = &mut missing {
            missing.retain(|payload| !self.heard.contains(payload));
        }
        let mut seen = self.heard.len();
        while missing.as_ref().is_none_or(|missing| !missing.is_empty()) {
            match wire.next() {
                None => return,
                Some(Heard::Message { packet_id: Some(id), qos: QoS::AtLeastOnce, payload }) => {
                    self.heard.push(payload);
                    wire.send(&Packet::PubAck(Ack::success(id)));
                }
                Some(Heard::Message { packet_id: Some(id), qos: QoS::ExactlyOnce, payload }) => {
                    if self.held.insert(id) {
                        self.heard.push(payload);
                    }
                    wire.send(&Packet::PubRec(Ack::success(id)));
                }
                Some(Heard::Release(id)) => {
                    self.held.remove(&id);
                    wire.send(&Packet::PubComp(Ack::success(id)));
                }
                Some(other) => panic!("{other:?}"),
            }
            if let Some(missing) = &mut missing {
                for payload in &self.heard[seen..] {
                    missing.remove(payload);
                }
                seen = self.heard.len();
            }
        }
    }

    #[track_caller]
    pub(crate) fn check(&self, name: &str, acknowledged: &BTreeSet<String>) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.heard.iter().for_each(|payload| *counts.entry(payload).or_default() += 1);
        let lost: Vec<_> = acknowledged.iter().filter(|one| !counts.contains_key(one.as_str())).collect();
        let twice: Vec<_> =
            counts.iter().filter(|(payload, count)| payload.starts_with("2-") && **count > 1).collect();
        assert!(lost.is_empty(), "{name} misses {lost:.40?}");
        assert!(twice.is_empty(), "{name} heard more than once {twice:.40?}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_at_any_moment() {
    let folder = TempDir::new().expect("a temporary folder");
    let settings = settings();
    let port = settings.listeners[0].port;
    let start = |shards| {
        let settings = Settings { shards: Some(shards), ..settings.clone() };
        Node::start_kept(settings, &folder.path().join("store"))
    };
    let (mut publisher, mut present, mut absent) =
        (Publisher::default(), Subscriber::default(), Subscriber::default());
    let (mut keeper, mut node) = (Keeper::default(), start(3));
    for name in ["present", "absent"] {
        Wire::connect(port, name).subscribe("kept/#");
    }
    for round in 0..12 {
        let mut sends = Wire::connect(port, "publisher");
        let mut hears = Wire::connect(port, "present");
        assert!(hears.is_present && (round == 0 || sends.is_present), "round {round}: a session is gone");
        let mut keeps = Wire::connect_clean(port, "keeper");
        std::thread::scope(|scope| {
            scope.spawn(|| present.run(&mut hears, None));
            scope.spawn(|| keeper.run(&mut keeps));
            // Another number each time: it dies in another moment; some are so long that the store turns memory into tables.
            publisher.padding = if round % 3 == 2 { 40_000 } else { 0 };
            publisher.run(&mut sends, 37 * (round + 1));
            node.kill();
        });
        node = start(1 + round as u8 % 4);
        keeper.check(&mut Wire::connect_clean(port, "looker"));
    }
    assert!(keeper.acknowledged > 12);
    let mut wire = Wire::connect(port, "publisher");
    publisher.run(&mut wire, usize::from(WINDOW) * 4);
    for (name, subscriber) in [("present", &mut present), ("absent", &mut absent)] {
        subscriber.run(&mut Wire::connect(port, name), Some(&publisher.acknowledged));
        subscriber.check(name, &publisher.acknowledged);
    }
    let entries = |dir: PathBuf| std::fs::read_dir(dir).expect("a folder of the store").flatten();
    let keyspaces = entries(folder.path().join("store/data/keyspaces"));
    assert_ne!(keyspaces.flat_map(|one| entries(one.path().join("tables"))).count(), 0, "there are tables");
    assert!(publisher.acknowledged.len() > 2_000);
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let folder = TempDir::new().expect("a temporary folder");
    let (store, config) = (folder.path().join("store"), folder.path().join("settings.json"));
    let settings = settings();
    Node::start_kept(settings.clone(), &store).kill();
    let marker = store.join("mqlink-store");
    std::fs::write(&marker, "3\n").expect("writable");
    std::fs::write(&config, serde_json::to_vec(&settings).expect("settings are JSON")).expect("writable");
    let mut command = Command::new(MQLINK);
    command.args(["broker", "--node", "solo-0", "--config"]).arg(&config).arg("--data").arg(&store);
    let output = command.output().expect("the binary is built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("it was written in format 3"), "{said}");
    assert!(said.contains("run the version that wrote it"), "{said}");
    assert_eq!(std::fs::read_to_string(&marker).expect("it is there"), "3\n");
}

#[test]
fn none_keeps_nothing_and_touches_no_disk() {
    let folder = TempDir::new().expect("a temporary folder");
    let store = folder.path().join("store");
    let mut settings = settings();
    settings.storage.durability = Durability::None;
    let port = settings.listeners[0].port;
    let node = Node::start_kept(settings.clone(), &store);
    let mut wire = Wire::connect(port, "absent");
    wire.subscribe("kept/#");
    assert!(wire.publish(PacketId::MIN, QoS::AtLeastOnce, "1"));
    drop(wire);
    assert!(Wire::connect(port, "absent").is_present, "it is in memory");
    node.kill();
    assert!(!store.exists());
    let _node = Node::start_kept(settings, &store);
    assert!(!Wire::connect(port, "absent").is_present, "it was nowhere else");
}

#[test]
fn retained_messages_survive_a_kill() {
    let folder = TempDir::new().expect("a temporary folder");
    let settings = settings();
    let start = || Node::start_kept(settings.clone(), &folder.path().join("store"));
    let node = start();
    let posts = ["a", "b", "c"].map(|name| Post::new(&format!("kept/{name}"), name, 1).retained());
    Rumqttc.publish(&node.who(), &posts);
    Rumqttc.publish(&node.who(), &[Post::new("kept/b", "", 1).retained()]);
    node.kill();
    let node = start();
    let mut subscriber = Paho.listen(&node.who(), "kept/#");
    Rumqttc.publish(&node.who(), &[Post::new("kept/marker", "marker", 1)]);
    let heard: BTreeSet<String> = subscriber.payloads_until("marker").into_iter().collect();
    assert_eq!(heard, BTreeSet::from(["a".to_owned(), "c".to_owned()]));
}
