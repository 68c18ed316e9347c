//! What the pure core costs per message: no socket, no task, one thread. `cargo bench --bench core`
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

fn main() {
    report("1:1 QoS 0", 1, bench(QoS::AtMostOnce, 1, 0));
    report("1:1 QoS 0 among 200,000 other filters", 1, bench(QoS::AtMostOnce, 1, 200_000));
    report("1:1 QoS 1, both acknowledgements included", 1, bench(QoS::AtLeastOnce, 1, 0));
    report("fan-out to 100, QoS 0", 100, bench(QoS::AtMostOnce, 100, 0));
    report("fan-out to 100, QoS 1", 100, bench(QoS::AtLeastOnce, 100, 0));
    report("1:1 QoS 0, ten rules to pass", 1, {
        let mut world = World::new(QoS::AtMostOnce, 1, 0);
        world.core.set_access(Some(&ten_rules()), false);
        world.best()
    });
    subscriptions(200_000);
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
    batch: Vec<u8>,
    count: u32,
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
        let (batch, count) = batch(qos, subscribers.len());
        let mut world = World {
            core,
            now,
            publisher,
            subscribers,
            qos,
            batch,
            count,
            dirty: Vec::new(),
            acks: Vec::new(),
        };
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
            for _ in 0..64 {
                let used = self.core.handle_bytes(self.publisher, &self.batch, self.now);
                assert_eq!(used, self.batch.len());
                self.drain();
                messages += u64::from(self.count);
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

fn batch(qos: QoS, subscribers: usize) -> (Vec<u8>, u32) {
    let mut bytes = Vec::new();
    let mut count = 0;
    // A fan-out of many fills buffers fast: take less at once.
    while bytes.len() < READ / (1 + subscribers / 20) {
        count += 1;
        let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: TOPIC,
            packet_id,
            properties: Properties::EMPTY,
            payload: &PAYLOAD,
        };
        Packet::Publish(publish).encode(VERSION, &mut bytes);
    }
    (bytes, count)
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
