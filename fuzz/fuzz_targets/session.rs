//! Two clients that send whatever they like, in turns, while time passes and the store is slow, fails or finds itself after a
//! crash: the core neither panics nor says what is not a packet, keeps to what each client takes, reads back all that it has
//! written, and goes on serving a third client.
#![no_main]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use mqlink_fuzz::broker::core::{Answer, ConnectionId, Core, Effect, Verdict};
use mqlink_fuzz::mqtt::{Connect, Limits, Packet, QoS, Version, connack_version, decode};
use mqlink_fuzz::settings;
use mqlink_fuzz::store::{Op, Shelf, Token};

/// What a client is to the fuzzer.
struct Client {
    id: ConnectionId,
    /// Bytes that the core did not use yet.
    unread: Vec<u8>,
    version: Version,
    receive_max: usize,
    packet_max: usize,
    /// QoS 1 and 2 messages on their way to it, by the packets that went each way.
    open: usize,
    is_new: bool,
}

struct World {
    core: Core,
    now: Instant,
    born: Instant,
    clients: [Option<Client>; 2],
    disk: Option<Disk>,
}

/// A store that does what the fuzzer says.
#[derive(Default)]
struct Disk {
    shelf: Shelf,
    /// What is not safe yet.
    under_way: VecDeque<(Token, Vec<Op>)>,
    is_slow: bool,
    is_down: bool,
}

/// Room for every mistake to show: all limits are small.
fn limits() -> settings::Limits {
    settings::Limits {
        packet_bytes_max: 2048,
        inflight_max: 4,
        queued_messages_max: 8,
        queued_bytes_max: 4096,
        subscriptions_max: 8,
        retained_messages_max: 8,
        sessions_max: SESSIONS_MAX,
        topic_alias_max: 3,
        keep_alive_s_max: 60,
        ..settings::Limits::default()
    }
}

/// Sent before what the fuzzer brings, so that it need not find a CONNECT first.
const HELLOS: [&[u8]; 4] = [
    b"",
    b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a",
    b"\x10\x13\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x00\x09\x00\x01b",
    b"\x10\x16\x00\x04MQTT\x05\x00\x00\x00\x08\x11\x00\x00\x00\x09\x22\x00\x02\x00\x01b",
];

const SESSIONS_MAX: usize = 8;
const WALL_MS: u64 = 1_800_000_000_000;

fuzz_target!(|input: &[u8]| {
    let Some((&first, mut rest)) = input.split_first() else { return };
    let mut world = World::new((first & 1 == 1).then(Disk::default));
    while let Some((&command, tail)) = rest.split_first() {
        rest = world.step(command, tail);
    }
    world.serves_a_bystander();
});

impl World {
    fn new(disk: Option<Disk>) -> World {
        let now = Instant::now();
        let core = Core::new(limits(), true, 1, now);
        let mut world = World { core, now, born: now, clients: [None, None], disk };
        world.begin();
        world
    }

    /// Has the core take back what lies on the disk.
    fn begin(&mut self) {
        let wall_ms = self.wall_ms();
        let Some(disk) = &mut self.disk else { return };
        // Numbers are used once.
        self.core.use_store(wall_ms << 16, self.now, wall_ms);
        let stored = disk.shelf.read();
        for session in stored.sessions {
            self.core.restore_session(&session, self.now).expect("what was written can be read");
        }
        for (topic, value) in stored.retained {
            self.core.restore_retained(&topic, &value, self.now).expect("what was written can be read");
        }
        self.settle();
    }

    fn wall_ms(&self) -> u64 {
        WALL_MS + (self.now - self.born).as_millis() as u64
    }

    /// One byte says who does what; the bytes behind it are what it is done with.
    fn step<'a>(&mut self, command: u8, rest: &'a [u8]) -> &'a [u8] {
        let who = usize::from(command & 1);
        let argument = command >> 4;
        match command >> 1 & 0b111 {
            0 => self.lose(who),
            1 => self.open(who, usize::from(argument) % HELLOS.len()),
            2 => self.pass(Duration::from_millis(u64::from(argument) * 700)),
            3 => self.answer(who, argument),
            4 => self.store(argument),
            _ => {
                let (bytes, rest) = rest.split_at(rest.len().min(1 + usize::from(argument) * 4));
                self.send(who, bytes);
                return rest;
            }
        }
        rest
    }

    /// What happens to the store.
    fn store(&mut self, argument: u8) {
        let Some(disk) = &mut self.disk else { return };
        match argument % 6 {
            0 => disk.is_slow = true,
            1 => disk.is_slow = false,
            2 => disk.land(&mut self.core, self.now),
            3 => disk.fail(&mut self.core, argument > 6, self.now),
            4 if disk.is_down => {
                disk.is_down = false;
                self.core.handle_store_up();
            }
            4 => {}
            _ => return self.crash(argument > 6),
        }
        self.settle();
    }

    /// Begins anew with what is on the disk; what was under way is there or not.
    fn crash(&mut self, is_there: bool) {
        let Some(disk) = &mut self.disk else { return };
        let under_way = std::mem::take(&mut disk.under_way);
        if is_there {
            under_way.iter().for_each(|(_, ops)| disk.shelf.apply(ops));
        }
        disk.is_down = false;
        self.clients = [None, None];
        self.now += Duration::from_millis(1);
        self.core = Core::new(limits(), true, 1, self.now);
        self.begin();
    }

    fn open(&mut self, who: usize, hello: usize) {
        self.lose(who);
        let id = self.core.open(self.now);
        self.clients[who] = Some(Client {
            id,
            unread: Vec::new(),
            version: Version::V3,
            receive_max: usize::MAX,
            packet_max: usize::MAX,
            open: 0,
            is_new: true,
        });
        self.send(who, HELLOS[hello]);
    }

    fn lose(&mut self, who: usize) {
        if let Some(client) = self.clients[who].take() {
            self.core.handle_closed(client.id, self.now);
            self.settle();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.core.set_clock(self.now, self.wall_ms());
        self.core.handle_timeout(self.now);
        self.settle();
    }

    fn send(&mut self, who: usize, bytes: &[u8]) {
        let Some(client) = &mut self.clients[who] else { return };
        client.unread.extend_from_slice(bytes);
        if client.is_new && !client.unread.is_empty() {
            client.meet();
        }
        let used = self.core.handle_bytes(client.id, &client.unread, self.now);
        client.note_answers(used);
        client.unread.drain(..used);
        self.settle();
    }

    /// The shell's answers, well or badly timed.
    fn answer(&mut self, who: usize, argument: u8) {
        let Some(id) = self.clients[who].as_ref().map(|client| client.id) else { return };
        let username = || "ann".into();
        match argument % 5 {
            0 => self.core.handle_verdict(id, Verdict::Accepted, self.now),
            1 => self.core.handle_verdict(id, Verdict::Refused, self.now),
            2 => {
                let more = Answer::Continue { data: b"more"[..].into(), context: "kept".into() };
                self.core.handle_exchange(id, more, self.now);
            }
            3 => {
                let done = Answer::Accepted { username: username(), data: b"done"[..].into() };
                self.core.handle_exchange(id, done, self.now);
            }
            _ => self.core.handle_exchange(id, Answer::Refused, self.now),
        }
        self.settle();
    }

    /// Does what the core asks for, and reads what it sends.
    fn settle(&mut self) {
        loop {
            let mut is_idle = true;
            while self.core.has_work() {
                self.core.handle_work(self.now);
            }
            while let Some(effect) = self.core.poll_effect() {
                is_idle = false;
                if let (Effect::Persist(token, batch), Some(disk)) = (effect, &mut self.disk) {
                    disk.take(token, batch.ops, &mut self.core, self.now);
                }
            }
            for client in self.clients.iter_mut().flatten() {
                let bytes = self.core.outgoing(client.id).to_vec();
                if !bytes.is_empty() {
                    is_idle = false;
                    client.read(&bytes);
                    self.core.handle_written(client.id, bytes.len(), self.now);
                }
            }
            if is_idle {
                return;
            }
        }
    }

    fn serves_a_bystander(&mut self) {
        self.lose(0);
        if self.core.levels().sessions >= SESSIONS_MAX {
            return;
        }
        self.open(0, 1);
        self.core.handle_bytes(
            self.clients[0].as_ref().expect("it is open").id,
            b"\x82\x0e\x00\x01\x00\x09bystander\x00",
            self.now,
        );
        self.settle();
        let id = self.clients[0].take().expect("it is open").id;
        self.core.handle_bytes(id, b"\x30\x0f\x00\x09bystanderfine", self.now);
        assert_eq!(self.core.outgoing(id), b"\x30\x0f\x00\x09bystanderfine");
    }
}

impl Disk {
    fn take(&mut self, token: Token, ops: Vec<Op>, core: &mut Core, now: Instant) {
        match self.is_down {
            true => core.handle_store_down(&ops, now),
            false => self.under_way.push_back((token, ops)),
        }
        if !self.is_slow {
            self.land(core, now);
        }
    }

    fn land(&mut self, core: &mut Core, now: Instant) {
        while let Some((token, ops)) = self.under_way.pop_front() {
            self.shelf.apply(&ops);
            core.handle_persisted(token, now);
        }
    }

    fn fail(&mut self, core: &mut Core, is_there: bool, now: Instant) {
        self.is_down = true;
        core.handle_store_down(&[], now);
        while let Some((_, ops)) = self.under_way.pop_front() {
            if is_there {
                self.shelf.apply(&ops);
            }
            core.handle_store_down(&ops, now);
        }
    }
}

impl Client {
    /// Notes what its CONNECT says, if that is whole.
    fn meet(&mut self) {
        let packets = Limits { packet_bytes_max: 2048, ..Limits::default() };
        match decode(&self.unread, Version::V5, &packets) {
            Ok(Some((Packet::Connect(Connect { version, properties, .. }), _))) => {
                self.version = version;
                self.receive_max = properties.receive_maximum().map_or(usize::MAX, usize::from);
                self.packet_max = properties.maximum_packet_size().map_or(usize::MAX, |max| max as usize);
                self.is_new = false;
            }
            Ok(None) => {}
            // Who begins with anything but a CONNECT hears nothing.
            _ => self.version = connack_version(&self.unread).unwrap_or(self.version),
        }
    }

    /// Notes the acknowledgements among the bytes that the core used.
    fn note_answers(&mut self, used: usize) {
        let mut rest = &self.unread[..used];
        while let Ok(Some((packet, length))) =
            decode(rest, self.version, &Limits { dup_requests: true, ..Limits::default() })
        {
            let closes = match packet {
                Packet::PubAck(_) | Packet::PubComp(_) => true,
                Packet::PubRec(ack) => ack.reason.is_error(),
                _ => false,
            };
            self.open = self.open.saturating_sub(usize::from(closes));
            rest = &rest[length..];
        }
    }

    /// Checks what it is sent.
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (packet, length) = decode(bytes, self.version, &Limits::default())
                .expect("the core sends valid packets")
                .expect("and whole ones");
            assert!(length <= self.packet_max, "{packet:?} is larger than its client takes");
            if let Packet::Publish(publish) = packet {
                self.open += usize::from(publish.qos != QoS::AtMostOnce);
                assert!(self.open <= self.receive_max, "{packet:?} exceeds Receive Maximum");
            }
            bytes = &bytes[length..];
        }
    }
}
