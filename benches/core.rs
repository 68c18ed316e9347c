//! What the pure core costs per message: no socket, no task, one thread. `benches/run.sh` runs it; by hand
//! `cargo run --release --manifest-path benches/counts/Cargo.toml --bin core`, which builds in half a minute.
//!
//! Packets come in as a connection reads them (16 KiB at a time), and what goes out is taken as if a socket took it.
//! What is shown is the CPU time of the best of several rounds; a quiet machine still measures best.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use mqlink::broker::core::{ConnectionId, Core};
use mqlink::mqtt::{
    Connect, Limits, Packet, PacketId, Properties, Publish, QoS, Subscribe, SubscribeFiltersBuf,
    SubscribeOptions, Version, decode,
};
use mqlink::settings::{self, AccessRule, Action, Authorization, Effect, Principals};
use nix::sys::resource::{UsageWho, getrusage};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VERSION: Version = Version::V5;
const TOPIC: &str = "plant/7/line/3/sensor/42/temp";
const PAYLOAD: [u8; 64] = [b'x'; 64];
const READ: usize = 16 * 1024;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(150);

/// How many subscriptions there are where there are many, and to how many of them messages go in turn.
const MANY: usize = 200_000;
const IN_TURN: usize = 4_096;

fn main() {
    subscriptions(MANY); // first: later ones would find memory that others gave back
    report("1:1 QoS 0", 1, bench(QoS::AtMostOnce, 1, 0));
    report("1:1 QoS 0, each to one of 200,000", 1, {
        let mut world = World::new(QoS::AtMostOnce, 0, MANY);
        world.batches = batches((0..IN_TURN).map(|n| met_topic(n * (MANY / IN_TURN) + n % 48)));
        let before = world.core.counters().sent;
        world.batches.iter().for_each(|(batch, _)| {
            world.core.handle_bytes(world.publisher, batch, world.now);
        });
        assert_eq!(world.core.counters().sent - before, IN_TURN as u64, "each meets one subscription");
        world.drain();
        world.best()
    });
    report("1:1 QoS 1, both acknowledgements included", 1, bench(QoS::AtLeastOnce, 1, 0));
    report("fan-out to 100, QoS 0", 100, bench(QoS::AtMostOnce, 100, 0));
    report("fan-out to 100, QoS 1", 100, bench(QoS::AtLeastOnce, 100, 0));
    report("1:1 QoS 0, ten rules to pass", 1, {
        let mut world = World::new(QoS::AtMostOnce, 1, 0);
        world.core.set_access(Some(&ten_rules()), false);
        world.best()
    });
}

/// Rules of which the last is the one that lets the topic through.
fn ten_rules() -> Authorization {
    let rule = |filter: String| AccessRule {
        principals: Principals::default(),
        action: Action::All,
        filters: vec![filter],
        effect: Effect::Allow,
    };
    let mut rules: Vec<_> = (0..9).map(|n| rule(format!("plant/{n}/${{username}}/#"))).collect();
    rules.push(rule("plant/+/line/#".to_owned()));
    Authorization { default_effect: Effect::Deny, rules }
}

/// How fast mixed subscriptions come, and what one takes.
fn subscriptions(count: usize) {
    let now = Instant::now();
    let mut core = Core::new(settings::Limits::default(), true, 1, now);
    let before = resident_bytes();
    let mut spent = Duration::ZERO;
    for chunk in (0..count).collect::<Vec<_>>().chunks(1_000) {
        let owner = connect(&mut core, &format!("owner-{}", chunk[0]), now);
        let packets: Vec<Vec<u8>> =
            chunk.iter().map(|&n| subscribe_packet(&other_filter(n), QoS::AtLeastOnce)).collect();
        let start = cpu_time();
        for packet in packets {
            assert_eq!(core.handle_bytes(owner, &packet, now), packet.len());
            let length = core.outgoing(owner).len();
            core.handle_written(owner, length, now);
        }
        spent += cpu_time() - start;
    }
    // What is free is given back a moment later, when something else is asked for.
    std::thread::sleep(Duration::from_millis(100));
    drop(std::hint::black_box(vec![1_u8; 1 << 20]));
    let bytes = (resident_bytes() - before) / count;
    let rate = count as f64 / spent.as_secs_f64();
    println!("{count} mixed subscriptions: {rate:.0} a second, {bytes} bytes each");
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it names what is resident");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

fn report(name: &str, deliveries: usize, per_message: f64) {
    println!("{name:45} {:8.1} ns per delivery", per_message / deliveries as f64);
}

/// Nanoseconds per published message.
fn bench(qos: QoS, subscribers: usize, others: usize) -> f64 {
    let mut world = World::new(qos, subscribers, others);
    world.best()
}

struct World {
    core: Core,
    now: Instant,
    publisher: ConnectionId,
    subscribers: Vec<ConnectionId>,
    qos: QoS,
    /// What is read at a time, in turn, and how many messages it is.
    batches: Vec<(Vec<u8>, u32)>,
    dirty: Vec<ConnectionId>,
    acks: Vec<u8>,
}

impl World {
    fn new(qos: QoS, subscribers: usize, others: usize) -> World {
        let now = Instant::now();
        let mut core = Core::new(settings::Limits::default(), true, 1, now);
        let publisher = connect(&mut core, "publisher", now);
        let idle = connect(&mut core, "idle", now);
        for chunk in (0..others).collect::<Vec<_>>().chunks(9_000) {
            let owner = connect(&mut core, &format!("idle-{}", chunk[0]), now);
            chunk.iter().for_each(|n| subscribe(&mut core, owner, &other_filter(*n), qos, now));
        }
        subscribe(&mut core, idle, "another/topic", qos, now);
        let subscribers =
            (0..subscribers).map(|n| connect(&mut core, &format!("s{n}"), now)).collect::<Vec<_>>();
        subscribers.iter().for_each(|&id| subscribe(&mut core, id, TOPIC, qos, now));
        let batches = vec![batch(qos, subscribers.len())];
        let mut world =
            World { core, now, publisher, subscribers, qos, batches, dirty: Vec::new(), acks: Vec::new() };
        world.drain();
        world
    }

    fn best(&mut self) -> f64 {
        (0..ROUNDS).map(|_| self.round()).fold(f64::INFINITY, f64::min)
    }

    fn round(&mut self) -> f64 {
        let start = cpu_time();
        let mut messages = 0_u64;
        while cpu_time() - start < ROUND {
            for turn in 0..64.max(self.batches.len()) {
                let (batch, count) = &self.batches[turn % self.batches.len()];
                let used = self.core.handle_bytes(self.publisher, batch, self.now);
                assert_eq!(used, batch.len());
                messages += u64::from(*count);
                self.drain();
            }
        }
        (cpu_time() - start).as_nanos() as f64 / messages as f64
    }

    /// Takes what goes out, and answers QoS 1.
    fn drain(&mut self) {
        while self.core.has_dirty() {
            let mut dirty = std::mem::take(&mut self.dirty);
            self.core.take_dirty(&mut dirty);
            for &id in &dirty {
                while self.core.waiting(id) > 0 {
                    let bytes = self.core.outgoing(id);
                    let length = bytes.len();
                    self.acks.clear();
                    if self.qos != QoS::AtMostOnce && self.subscribers.contains(&id) {
                        acknowledge(bytes, &mut self.acks);
                    }
                    self.core.handle_written(id, length, self.now);
                    self.core.handle_bytes(id, &self.acks, self.now);
                }
            }
            self.dirty = dirty;
        }
    }
}

fn cpu_time() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_THREAD).expect("it is always there");
    [used.user_time(), used.system_time()]
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .into_iter()
        .sum()
}

fn other_filter(n: usize) -> String {
    match n % 10 {
        0 | 1 => format!("site/{}/+/value/{n}", n % 100),
        2 => format!("site/{}/{n}/#", n % 100),
        _ => format!("site/{}/device/{n}/value", n % 100),
    }
}

/// A topic that the other filter of this number is the only one to match.
fn met_topic(n: usize) -> String {
    match n % 10 {
        0 | 1 => format!("site/{}/room-{n}/value/{n}", n % 100),
        2 => format!("site/{}/{n}/alarm", n % 100),
        _ => other_filter(n),
    }
}

fn batch(qos: QoS, subscribers: usize) -> (Vec<u8>, u32) {
    let mut bytes = Vec::new();
    let mut count = 0;
    // A fan-out of many fills buffers fast: take less at once.
    while bytes.len() < READ / (1 + subscribers / 20) {
        count += 1;
        append_publish(&mut bytes, qos, TOPIC);
    }
    (bytes, count)
}

/// Messages to these topics at QoS 0, as they are read.
fn batches(topics: impl Iterator<Item = String>) -> Vec<(Vec<u8>, u32)> {
    let mut batches = vec![(Vec::new(), 0)];
    for topic in topics {
        if batches.last().is_some_and(|(bytes, _)| bytes.len() >= READ) {
            batches.push((Vec::new(), 0));
        }
        let (bytes, count) = batches.last_mut().expect("there is one");
        append_publish(bytes, QoS::AtMostOnce, &topic);
        *count += 1;
    }
    batches
}

fn append_publish(bytes: &mut Vec<u8>, qos: QoS, topic: &str) {
    let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
    let properties = Properties::EMPTY;
    let publish = Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload: &PAYLOAD };
    Packet::Publish(publish).encode(VERSION, bytes);
}

/// Finds the packet ids at their fixed place, as cheaply as a client could.
fn acknowledge(bytes: &[u8], acks: &mut Vec<u8>) {
    let Ok(Some((_, length))) = decode(bytes, VERSION, &Limits::default()) else { return };
    let id_at = 2 + 2 + TOPIC.len();
    for frame in bytes.chunks(length).filter(|frame| frame[0] >> 4 == 3) {
        acks.extend_from_slice(&[0x40, 2, frame[id_at], frame[id_at + 1]]);
    }
}

fn connect(core: &mut Core, client_id: &str, now: Instant) -> ConnectionId {
    let id = core.open(now);
    let connect = Connect::new(client_id);
    send(core, id, &Packet::Connect(connect), now);
    id
}

fn subscribe_packet(filter: &str, qos: QoS) -> Vec<u8> {
    let mut filters = SubscribeFiltersBuf::default();
    filters.push(filter, SubscribeOptions::at(qos)).expect("the filter is valid");
    let packet_id = NonZeroU16::MIN;
    let subscribe = Subscribe { packet_id, properties: Properties::EMPTY, filters: filters.as_filters() };
    let mut bytes = Vec::new();
    Packet::Subscribe(subscribe).encode(VERSION, &mut bytes);
    bytes
}

fn subscribe(core: &mut Core, id: ConnectionId, filter: &str, qos: QoS, now: Instant) {
    let packet = subscribe_packet(filter, qos);
    assert_eq!(core.handle_bytes(id, &packet, now), packet.len());
    let length = core.outgoing(id).len();
    core.handle_written(id, length, now);
}

fn send(core: &mut Core, id: ConnectionId, packet: &Packet, now: Instant) {
    let mut bytes = Vec::new();
    packet.encode(VERSION, &mut bytes);
    assert_eq!(core.handle_bytes(id, &bytes, now), bytes.len());
}
