//! What `benches/counts/run` counts the instructions of: `counts SCENARIO N` does a thing N times.
//!
//! Without arguments it names the scenarios. What is set up before costs the same for every N, so the difference between two
//! runs is the thing itself. Each looks at the end whether it was done: who drops messages is no cheaper.

use std::hint::black_box;
use std::time::Instant;

use mqlink::broker::core::{ConnectionId, Core, Desk, Effect, Office, Place};
use mqlink::mqtt::{
    Connect, Filter, Frame, Limits, Packet, PacketId, Properties, PropertiesBuf, Property, Publish, QoS,
    Subscribe, SubscribeFiltersBuf, SubscribeOptions, Version, decode, encode_publish,
};
use mqlink::settings;

const VERSION: Version = Version::V5;
const TOPIC: &str = "plant/7/line/3/sensor/42/temp";
const PAYLOAD: [u8; 64] = [b'x'; 64];
/// How many messages a read brings, but for those that come in a read each.
const BATCH: usize = 100;

/// A name, and what does the thing so many times.
type Scenario = (&'static str, fn(usize));

const SCENARIOS: &[Scenario] = &[
    ("decode-publish-qos0", |n| decode_publish(QoS::AtMostOnce, &PropertiesBuf::new(), n)),
    ("decode-publish-qos1", |n| decode_publish(QoS::AtLeastOnce, &PropertiesBuf::new(), n)),
    ("decode-publish-properties", decode_properties),
    ("encode-publish", encode),
    ("append-frame", append),
    ("filter-matches", filter_matches),
    ("subscribe", subscribe_many),
    ("match-among-20000", |n| message(QoS::AtMostOnce, 0, 20_000, 1, n)),
    ("message-1:1-qos0", |n| message(QoS::AtMostOnce, 1, 0, 1, n)),
    ("message-1:1-qos1", |n| message(QoS::AtLeastOnce, 1, 0, 1, n)),
    ("message-1:1-qos0-each-read", |n| message(QoS::AtMostOnce, 1, 0, BATCH, n)),
    ("message-1:1-qos1-each-read", |n| message(QoS::AtLeastOnce, 1, 0, BATCH, n)),
    ("message-1:1-qos2-in", |n| message(QoS::ExactlyOnce, 0, 0, 1, n)),
    ("message-1:100-qos0", |n| message(QoS::AtMostOnce, 100, 0, 1, n)),
    ("message-1:100-qos1", |n| message(QoS::AtLeastOnce, 100, 0, 1, n)),
    ("message-1:100-qos0-one-of-3.1.1", |n| one_of_another_version(QoS::AtMostOnce, 0, n)),
    ("message-1:100-qos1-one-of-3.1.1", |n| one_of_another_version(QoS::AtLeastOnce, 0, n)),
    ("message-to-another-shard-qos0", |n| crossing(QoS::AtMostOnce, n)),
    ("message-to-another-shard-qos1", |n| crossing(QoS::AtLeastOnce, n)),
    ("message-1:100-to-another-shard-qos0-one-of-3.1.1", |n| one_of_another_version(QoS::AtMostOnce, 1, n)),
    ("message-1:0-kept-qos1", kept),
    ("connect", connect_many),
    ("resume-with-ten", resume),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, count] = &args[..] else {
        return SCENARIOS.iter().for_each(|(name, _)| println!("{name}"));
    };
    let scenario = SCENARIOS.iter().find(|(other, _)| other == name).expect("a scenario's name");
    (scenario.1)(count.parse().expect("a number"));
}

fn publish(qos: QoS, topic: &str) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::MIN),
        properties: Properties::EMPTY,
        payload: &PAYLOAD,
    }
}

fn decode_publish(qos: QoS, properties: &PropertiesBuf, count: usize) {
    let mut bytes = Vec::new();
    let packet = Publish { properties: properties.as_properties(), ..publish(qos, TOPIC) };
    encode_publish(&packet, VERSION, &mut bytes);
    for _ in 0..count {
        let decoded = decode(black_box(&bytes), VERSION, &Limits::default()).expect("it is valid");
        assert!(black_box(decoded).is_some());
    }
}

fn decode_properties(count: usize) {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::MessageExpiryInterval(60));
    properties.push(Property::ContentType("application/json"));
    properties.push(Property::ResponseTopic("plant/7/answers"));
    properties.push(Property::CorrelationData(&[7; 16]));
    properties.push(Property::UserProperty(("trace", "0af7651916cd43dd8448eb211c80319c")));
    decode_publish(QoS::AtLeastOnce, &properties, count);
}

fn encode(count: usize) {
    let mut out = Vec::with_capacity(1024);
    for _ in 0..count {
        out.clear();
        encode_publish(black_box(&publish(QoS::AtLeastOnce, TOPIC)), VERSION, &mut out);
    }
}

fn append(count: usize) {
    let frame = Frame::publish(&publish(QoS::AtLeastOnce, TOPIC), VERSION);
    let mut out = Vec::with_capacity(1024);
    for _ in 0..count {
        out.clear();
        black_box(&frame).append_to(&mut out, Some(PacketId::MIN), false);
    }
}

fn filter_matches(count: usize) {
    let filter = Filter::parse("plant/+/line/+/sensor/#").expect("valid");
    for _ in 0..count {
        assert!(black_box(black_box(&filter).matches(TOPIC)));
    }
}

/// A core, or several, and clients that answer.
struct World {
    cores: Vec<Core>,
    office: Office,
    desks: Vec<Desk>,
    now: Instant,
    subscribers: Vec<(usize, ConnectionId)>,
    dirty: Vec<ConnectionId>,
    acks: Vec<u8>,
    /// It has a store.
    keeps: bool,
}

impl World {
    fn new(shards: usize) -> World {
        let now = Instant::now();
        let limits = settings::Limits { inflight_max: u16::MAX, ..settings::Limits::default() };
        World {
            cores: (0..shards)
                .map(|own| Core::one_of(Place::new(own, shards), limits, true, 1, now))
                .collect(),
            office: Office::new(shards),
            desks: (0..shards).map(|_| Desk::default()).collect(),
            now,
            subscribers: Vec::new(),
            dirty: Vec::new(),
            acks: Vec::new(),
            keeps: false,
        }
    }

    fn send(&mut self, shard: usize, id: ConnectionId, packet: &Packet) {
        self.send_as(VERSION, shard, id, packet);
    }

    fn send_as(&mut self, version: Version, shard: usize, id: ConnectionId, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes);
        assert_eq!(self.cores[shard].handle_bytes(id, &bytes, self.now), bytes.len());
    }

    fn connect(&mut self, shard: usize, client_id: &str) -> ConnectionId {
        self.connect_as(shard, Connect::new(client_id))
    }

    fn connect_as(&mut self, shard: usize, connect: Connect) -> ConnectionId {
        let id = self.cores[shard].open(self.now);
        self.send(shard, id, &Packet::Connect(Connect { keep_alive_s: 60, ..connect }));
        id
    }

    /// A client whose session is kept.
    fn connect_kept(&mut self, client_id: &str) -> ConnectionId {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(3_600));
        let properties = properties.as_properties();
        self.connect_as(0, Connect { clean_start: false, properties, ..Connect::new(client_id) })
    }

    /// Reads messages, and does all that comes of them.
    fn read(&mut self, publisher: ConnectionId, bytes: &[u8]) {
        assert_eq!(self.cores[0].handle_bytes(publisher, bytes, self.now), bytes.len());
        self.settle();
    }

    /// What came in and what went out is what there was to be.
    fn check(&self, received: usize, sent: usize) {
        let all = self.cores.iter().map(|core| core.counters());
        let all = all.fold((0, 0), |sum, one| (sum.0 + one.received, sum.1 + one.sent));
        assert_eq!(all, (received as u64, sent as u64), "received and sent");
    }

    fn subscribe(&mut self, shard: usize, id: ConnectionId, filter: &str, qos: QoS) {
        let mut filters = SubscribeFiltersBuf::default();
        filters.push(filter, SubscribeOptions::at(qos)).expect("the filter is valid");
        let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
        self.send(
            shard,
            id,
            &Packet::Subscribe(Subscribe { packet_id, properties, filters: filters.as_filters() }),
        );
    }

    /// Takes what goes out, answers QoS 1, and lets shards talk, until all is quiet.
    fn settle(&mut self) {
        loop {
            (0..self.cores.len()).for_each(|shard| self.drain(shard));
            if !self.cores.iter().any(|core| core.has_mail() || core.has_dirty())
                && !(0..self.cores.len()).any(|shard| self.office.has_mail(shard as u8))
            {
                return;
            }
        }
    }

    fn drain(&mut self, shard: usize) {
        let core = &mut self.cores[shard];
        while self.keeps
            && let Some(effect) = core.poll_effect()
        {
            if let Effect::Persist(token, batch) = effect {
                black_box(batch);
                core.handle_persisted(token, self.now);
            }
        }
        if core.has_mail() || self.office.has_mail(shard as u8) {
            core.exchange(&self.office, &mut self.desks[shard]);
            core.handle_mail(&mut self.desks[shard], self.now);
        }
        while core.has_dirty() {
            core.take_dirty(&mut self.dirty);
            for &id in &self.dirty {
                while core.waiting(id) > 0 {
                    let bytes = core.outgoing(id);
                    let length = bytes.len();
                    self.acks.clear();
                    if self.subscribers.contains(&(shard, id)) {
                        acknowledge(bytes, &mut self.acks);
                    }
                    core.handle_written(id, length, self.now);
                    core.handle_bytes(id, &self.acks, self.now);
                }
            }
        }
    }
}

/// Finds the packet ids at their fixed place, as cheaply as a client could.
fn acknowledge(mut bytes: &[u8], acks: &mut Vec<u8>) {
    let id_at = 2 + 2 + TOPIC.len();
    if bytes[0] >> 4 == 2 {
        bytes = &bytes[2 + usize::from(bytes[1])..]; // a CONNACK before them
    }
    if bytes.len() > 1 && bytes[0] >> 4 == 3 && bytes[0] & 6 == 2 {
        let length = 2 + usize::from(bytes[1]); // all alike, and short
        for frame in bytes.chunks_exact(length) {
            acks.extend_from_slice(&[0x40, 2, frame[id_at], frame[id_at + 1]]);
        }
    }
}

fn other_filter(n: usize) -> String {
    match n % 10 {
        0 | 1 => format!("site/{}/+/value/{n}", n % 100),
        2 => format!("site/{}/{n}/#", n % 100),
        _ => format!("site/{}/device/{n}/value", n % 100),
    }
}

fn batch(qos: QoS, topics: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..BATCH {
        let packet_id = PacketId::new(n as u16 + 1).filter(|_| qos != QoS::AtMostOnce);
        let packet = Publish { packet_id, ..publish(qos, &topics[n % topics.len()]) };
        Packet::Publish(packet).encode(VERSION, &mut bytes);
    }
    bytes
}

/// A topic that the other filter of this number is the only one to match.
fn met_topic(n: usize) -> String {
    match n % 10 {
        0 | 1 => format!("site/{}/room-{n}/value/{n}", n % 100),
        2 => format!("site/{}/{n}/alarm", n % 100),
        _ => other_filter(n),
    }
}

/// Messages, `count` hundred of them in `reads` each; if there are others than subscribers, each to another of these than the
/// one before.
fn message(qos: QoS, subscribers: usize, others: usize, reads: usize, count: usize) {
    let mut world = World::new(1);
    let publisher = world.connect(0, "publisher");
    for chunk in (0..others).collect::<Vec<_>>().chunks(5_000) {
        let owner = world.connect(0, &format!("idle-{}", chunk[0]));
        chunk.iter().for_each(|n| world.subscribe(0, owner, &other_filter(*n), qos));
        world.settle();
    }
    for n in 0..subscribers {
        let id = world.connect(0, &format!("subscriber-{n}"));
        world.subscribe(0, id, "plant/7/line/3/sensor/+/temp", qos);
        world.settle();
        world.subscribers.push((0, id));
    }
    let topics: Vec<_> = match others {
        0 => vec![TOPIC.to_owned()],
        _ => (0..BATCH).map(|n| met_topic(n * (others / BATCH) + n)).collect(),
    };
    let bytes = batch(qos, &topics);
    for _ in 0..count {
        for read in bytes.chunks(bytes.len() / reads) {
            assert_eq!(world.cores[0].handle_bytes(publisher, read, world.now), read.len());
        }
        world.settle();
    }
    let recipients = if others > 0 { 1 } else { subscribers };
    world.check(count * BATCH, count * BATCH * recipients);
}

/// Messages to a hundred of a shard, `count` hundred of them; the last of those speaks 3.1.1, and publisher and all others 5.0.
fn one_of_another_version(qos: QoS, shard: usize, count: usize) {
    let mut world = World::new(shard + 1);
    let publisher = world.connect(0, "publisher");
    for n in 0..99 {
        let id = world.connect(shard, &format!("subscriber-{n}"));
        world.subscribe(shard, id, TOPIC, qos);
        world.settle();
        world.subscribers.push((shard, id));
    }
    let old = world.cores[shard].open(world.now);
    let connect = Connect { version: Version::V3, keep_alive_s: 60, ..Connect::new("old") };
    world.send_as(Version::V3, shard, old, &Packet::Connect(connect));
    let mut filters = SubscribeFiltersBuf::default();
    filters.push(TOPIC, SubscribeOptions::at(qos)).expect("the filter is valid");
    let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
    let subscribe = Subscribe { packet_id, properties, filters: filters.as_filters() };
    world.send_as(Version::V3, shard, old, &Packet::Subscribe(subscribe));
    world.settle();
    world.subscribers.push((shard, old));
    let bytes = batch(qos, &[TOPIC.to_owned()]);
    for _ in 0..count {
        world.read(publisher, &bytes);
    }
    world.check(count * BATCH, count * BATCH * 100);
}

/// Messages from a client of one shard to a client of another, `count` hundred of them.
fn crossing(qos: QoS, count: usize) {
    let mut world = World::new(2);
    let publisher = world.connect(0, "publisher");
    let subscriber = world.connect(1, "subscriber");
    world.subscribe(1, subscriber, TOPIC, qos);
    world.settle();
    world.subscribers.push((1, subscriber));
    let bytes = batch(qos, &[TOPIC.to_owned()]);
    for _ in 0..count {
        world.read(publisher, &bytes);
    }
    world.check(count * BATCH, count * BATCH);
}

/// A world with a store that takes all at once, and a kept session that subscribes to all messages.
fn keeping() -> (World, ConnectionId, ConnectionId) {
    let mut world = World::new(1);
    world.cores[0].use_store(1, world.now, 0);
    world.keeps = true;
    let publisher = world.connect(0, "publisher");
    let subscriber = world.connect_kept("kept");
    world.subscribe(0, subscriber, TOPIC, QoS::AtLeastOnce);
    world.settle();
    (world, publisher, subscriber)
}

/// Messages that are stored for a session whose client is away, `count` hundred of them.
fn kept(count: usize) {
    let (mut world, publisher, subscriber) = keeping();
    world.cores[0].handle_closed(subscriber, world.now);
    let bytes = batch(QoS::AtLeastOnce, &[TOPIC.to_owned()]);
    (0..count).for_each(|_| world.read(publisher, &bytes));
    world.check(count * BATCH, 0);
}

/// A client goes, ten messages come, it comes back, takes them and answers, `count` times.
fn resume(count: usize) {
    let (mut world, publisher, mut subscriber) = keeping();
    let bytes = batch(QoS::AtLeastOnce, &[TOPIC.to_owned()]);
    for _ in 0..count {
        world.cores[0].handle_closed(subscriber, world.now);
        world.read(publisher, &bytes[..bytes.len() / 10]);
        subscriber = world.connect_kept("kept");
        world.subscribers = vec![(0, subscriber)];
        world.settle();
    }
    world.check(count * 10, count * 10);
}

fn subscribe_many(count: usize) {
    let mut world = World::new(1);
    let mut owner = world.connect(0, "owner");
    for n in 0..count {
        if n % 5_000 == 4_999 {
            world.settle();
            owner = world.connect(0, &format!("owner-{n}"));
        }
        world.subscribe(0, owner, &other_filter(n), QoS::AtLeastOnce);
    }
}

fn connect_many(count: usize) {
    let mut world = World::new(1);
    for n in 0..count {
        let id = world.connect(0, &format!("client-{n}"));
        if n % 2 == 0 {
            world.cores[0].handle_closed(id, world.now);
        }
    }
}
