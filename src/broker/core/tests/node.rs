//! Several shards in one virtual world: a random schedule decides who exchanges mail when.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::backlog::check_levels;
use crate::broker::core::{ConnectionId, Core, Desk, Effect, Office, Place, Room, shards_in};
use crate::mqtt::{
    Ack, Connect, Limits, Packet, PacketId, Properties, Publish, QoS, Subscribe, SubscribeFiltersBuf,
    SubscribeOptions, Unsubscribe, UnsubscribeFiltersBuf, Version, decode,
};
use crate::settings;
use crate::store::{Op, Shelf, Waiting, Waitings};

/// Numbers that look random: xorshift.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// A client: it answers what must be answered, and remembers what it got.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) shard: usize,
    pub(super) id: ConnectionId,
    last_id: u16,
    /// PUBLISH packets, `topic=payload`, with `r` behind if RETAIN is set.
    pub(super) got: Vec<String>,
    /// Answers to its own packets: `ack 1`, `sub 2`.
    pub(super) answers: Vec<String>,
    /// QoS 2 messages that it has not seen the end of, as `topic=payload`, and whether they were received.
    pub(super) sending: BTreeMap<PacketId, (String, bool)>,
    /// QoS 2 messages of which it waits for PUBREL.
    held: BTreeSet<PacketId>,
    /// It acknowledges no QoS 1 message.
    is_silent: bool,
    unacknowledged: Vec<PacketId>,
    /// What it sent and the broker has not read.
    unread: Vec<u8>,
    /// It is not read until the broker says so, or has sent it something.
    is_paused: bool,
}

/// What outlives cores, and what is on its way there.
#[derive(Default)]
struct Disk {
    shelf: Shelf,
    waitings: Waitings,
    lives: u64,
}

/// Shards, their office, and clients.
pub(super) struct Node {
    pub(super) cores: Vec<Core>,
    office: Office,
    desks: Vec<Desk>,
    pub(super) now: Instant,
    pub(super) clients: Vec<Client>,
    by_name: HashMap<String, usize>,
    pub(super) random: Random,
    limits: settings::Limits,
    disk: Option<Disk>,
}

impl Node {
    pub(super) fn new(shards: usize, seed: u64) -> Node {
        Node::with_limits(shards, seed, settings::Limits::default())
    }

    pub(super) fn with_limits(shards: usize, seed: u64, limits: settings::Limits) -> Node {
        let now = Instant::now();
        let room = Arc::<Room>::default();
        let core = |own| {
            let mut core = Core::one_of(Place::new(own, shards), limits, true, 7, now);
            core.share_room(Arc::clone(&room));
            core
        };
        Node {
            cores: (0..shards).map(core).collect(),
            office: Office::new(shards),
            desks: (0..shards).map(|_| Desk::default()).collect(),
            now,
            clients: Vec::new(),
            by_name: HashMap::new(),
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            limits,
            disk: None,
        }
    }

    /// One with a store.
    pub(super) fn durable(shards: usize, seed: u64) -> Node {
        Node::new(shards, seed).with_store()
    }

    pub(super) fn with_store(self) -> Node {
        let shards = self.cores.len();
        let mut node = Node { disk: Some(Disk::default()), ..self };
        node.crash(shards);
        node
    }

    /// The node dies with all that is not written, and starts again with so many shards.
    pub(super) fn crash(&mut self, shards: usize) {
        let fresh = Node::with_limits(shards, self.random.0, self.limits);
        (self.cores, self.office, self.desks) = (fresh.cores, fresh.office, fresh.desks);
        let disk = self.disk.as_mut().expect("it has a store");
        disk.waitings = Waitings::default();
        disk.lives += 1;
        let (stored, place) = (disk.shelf.read(), self.cores[0].place());
        for core in &mut self.cores {
            core.use_store(disk.lives * 1_000_000, self.now, 0);
        }
        for session in &stored.sessions {
            let home = usize::from(place.home(session.key.partition));
            self.cores[home].restore_session(session, self.now).expect("it was written by us");
        }
        self.settle();
        for name in self.clients.iter().map(|client| client.name.clone()).collect::<Vec<_>>() {
            self.connect(&name);
        }
    }

    /// How many sessions the batches end that wait for the store.
    pub(super) fn ends_waiting(&self) -> usize {
        let all = self.disk.iter().flat_map(|disk| disk.waitings.waiting());
        all.flat_map(|one| &one.batch.ops).filter(|op| matches!(op, Op::End { .. })).count()
    }

    /// The store fails with all that waits.
    pub(super) fn store_down(&mut self) {
        let lost = self.disk.as_mut().map(|disk| disk.waitings.take_all()).unwrap_or_default();
        for shard in 0..self.cores.len() {
            let ops: Vec<_> =
                lost.iter().filter(|one| one.client == shard).flat_map(|one| one.batch.ops.clone()).collect();
            self.cores[shard].handle_store_down(&ops, self.now);
            self.do_effects(shard);
        }
    }

    pub(super) fn store_up(&mut self) {
        for shard in 0..self.cores.len() {
            self.cores[shard].handle_store_up();
            self.do_effects(shard);
        }
    }

    /// True if the broker has ended a client's connection.
    pub(super) fn is_closed(&self, client: usize) -> bool {
        let Client { shard, id, .. } = self.clients[client];
        !self.cores[shard].reads(id)
    }

    /// The store writes what it can. False if there was nothing.
    pub(super) fn write(&mut self) -> bool {
        let Some(disk) = &mut self.disk else { return false };
        let whole = disk.waitings.take_whole();
        whole.iter().for_each(|one| disk.shelf.apply(&one.batch.ops));
        for one in &whole {
            self.cores[one.client].handle_persisted(one.token, self.now);
            self.do_effects(one.client);
        }
        !whole.is_empty()
    }

    /// Connects a client, with a session that outlives its connection; again if it is there already.
    pub(super) fn connect(&mut self, name: &str) -> usize {
        self.connect_as(name, false)
    }

    /// Connects a client that is at home on a shard, under a name that begins like this.
    pub(super) fn connect_on(&mut self, shard: u8, stem: &str) -> usize {
        let name = self.name_on(shard, stem);
        self.connect(&name)
    }

    /// A name that is at home on a shard, of those that begin like this.
    pub(super) fn name_on(&self, shard: u8, stem: &str) -> String {
        let place = self.cores[0].place();
        let mut names = (0..).map(|n| format!("{stem}{n}"));
        names.find(|name| place.home_of(name) == shard).expect("some name is at home there")
    }

    /// Connects a client anew: what it was before is gone.
    pub(super) fn connect_clean(&mut self, name: &str) -> usize {
        self.connect_as(name, true)
    }

    fn connect_as(&mut self, name: &str, clean_start: bool) -> usize {
        let shard = usize::from(self.cores[0].place().home_of(name));
        let id = self.cores[shard].open(self.now);
        let connect = Connect { version: Version::V3, clean_start, ..Connect::new(name) };
        let at = *self.by_name.entry(name.to_owned()).or_insert(self.clients.len());
        match self.clients.get_mut(at) {
            Some(client) => {
                (client.shard, client.id) = (shard, id);
                client.unacknowledged.clear();
                client.unread.clear();
                client.is_paused = false;
            }
            None => self.clients.push(Client {
                name: name.to_owned(),
                shard,
                id,
                last_id: 0,
                got: Vec::new(),
                answers: Vec::new(),
                sending: BTreeMap::new(),
                held: BTreeSet::new(),
                is_silent: false,
                unacknowledged: Vec::new(),
                unread: Vec::new(),
                is_paused: false,
            }),
        }
        self.send(at, &Packet::Connect(connect));
        // Who begins anew waits for the disk; who is refused is told at once, and never read.
        while !self.cores[shard].reads(id) && self.cores[shard].outgoing(id).is_empty() {
            self.write();
            self.stir(1);
        }
        for (packet_id, (line, is_received)) in self.clients[at].sending.clone() {
            let (topic, payload) = line.split_once('=').expect("it was made like that");
            match is_received {
                true => self.send(at, &Packet::PubRel(Ack::success(packet_id))),
                false => self.send_publish(at, topic, payload, QoS::ExactlyOnce, Some(packet_id), false),
            }
        }
        at
    }

    /// From now on it acknowledges no QoS 1 message, or all.
    pub(super) fn silence(&mut self, client: usize, is_silent: bool) {
        self.clients[client].is_silent = is_silent;
        if !is_silent {
            for id in std::mem::take(&mut self.clients[client].unacknowledged) {
                self.send(client, &Packet::PubAck(Ack::success(id)));
            }
        }
    }

    pub(super) fn lose(&mut self, client: usize) {
        let Client { shard, id, .. } = self.clients[client];
        self.cores[shard].handle_closed(id, self.now);
    }

    /// Subscribes; the answer will be `sub` with the returned id.
    pub(super) fn subscribe(&mut self, client: usize, filter: &str, qos: u8) -> u16 {
        self.subscribe_all(client, &[filter], qos)
    }

    pub(super) fn subscribe_all(&mut self, client: usize, all: &[&str], qos: u8) -> u16 {
        let mut filters = SubscribeFiltersBuf::default();
        let options = SubscribeOptions::at(QoS::from_u8(qos).expect("0 to 2"));
        all.iter().for_each(|filter| filters.push(filter, options).expect("the filter is valid"));
        let packet_id = self.next_id(client);
        let (properties, filters) = (Properties::EMPTY, filters.as_filters());
        self.send(client, &Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        packet_id.get()
    }

    pub(super) fn unsubscribe(&mut self, client: usize, filter: &str) {
        self.unsubscribe_all(client, &[filter]);
    }

    pub(super) fn unsubscribe_all(&mut self, client: usize, all: &[&str]) {
        let mut filters = UnsubscribeFiltersBuf::default();
        all.iter().for_each(|filter| filters.push(filter).expect("the filter is valid"));
        let packet_id = self.next_id(client);
        let (properties, filters) = (Properties::EMPTY, filters.as_filters());
        self.send(client, &Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }));
    }

    /// Publishes; above QoS 0 the answer will be `ack` with the returned id.
    pub(super) fn publish(
        &mut self,
        client: usize,
        topic: &str,
        payload: &str,
        qos: u8,
        retain: bool,
    ) -> u16 {
        let packet_id = (qos > 0).then(|| self.next_id(client));
        if let Some(packet_id) = packet_id.filter(|_| qos == 2) {
            self.clients[client].sending.insert(packet_id, (format!("{topic}={payload}"), false));
        }
        let qos = QoS::from_u8(qos).expect("0 to 2");
        self.send_publish(client, topic, payload, qos, packet_id, retain);
        packet_id.map_or(0, PacketId::get)
    }

    fn send_publish(
        &mut self,
        client: usize,
        topic: &str,
        payload: &str,
        qos: QoS,
        packet_id: Option<PacketId>,
        retain: bool,
    ) {
        self.write_publish(client, topic, payload, qos, packet_id, retain);
        self.feed(client);
    }

    /// Publishes at QoS 0 or 1, and lets the broker read all at once.
    pub(super) fn publish_at_once(&mut self, client: usize, messages: &[(&str, String, u8, bool)]) {
        for (topic, payload, qos, retain) in messages {
            let packet_id = (*qos > 0).then(|| self.next_id(client));
            let qos = QoS::from_u8(*qos).expect("0 or 1");
            self.write_publish(client, topic, payload, qos, packet_id, *retain);
        }
        self.feed(client);
    }

    fn write_publish(
        &mut self,
        client: usize,
        topic: &str,
        payload: &str,
        qos: QoS,
        packet_id: Option<PacketId>,
        retain: bool,
    ) {
        let (properties, payload) = (Properties::EMPTY, payload.as_bytes());
        let publish = Publish { dup: false, qos, retain, topic, packet_id, properties, payload };
        Packet::Publish(publish).encode(Version::V3, &mut self.clients[client].unread);
    }

    fn next_id(&mut self, client: usize) -> PacketId {
        let client = &mut self.clients[client];
        client.last_id = client.last_id % u16::MAX + 1;
        PacketId::new(client.last_id).expect("it is not 0")
    }

    fn send(&mut self, client: usize, packet: &Packet) {
        packet.encode(Version::V3, &mut self.clients[client].unread);
        self.feed(client);
    }

    /// Has the broker read what a client sent, as far as it does now. True if it did.
    fn feed(&mut self, client: usize) -> bool {
        let Client { shard, id, unread, is_paused, .. } = &mut self.clients[client];
        if *is_paused {
            return false;
        }
        let (shard, used) = (*shard, self.cores[*shard].handle_bytes(*id, unread, self.now));
        unread.drain(..used);
        *is_paused = !self.cores[shard].reads(*id);
        self.do_effects(shard);
        used > 0
    }

    /// Asks whether the broker is there; the answer will be `pong`.
    pub(super) fn ping(&mut self, client: usize) {
        self.send(client, &Packet::PingReq);
    }

    fn do_effects(&mut self, shard: usize) {
        while let Some(effect) = self.cores[shard].poll_effect() {
            match (effect, &mut self.disk) {
                (Effect::Persist(token, batch), Some(disk)) => {
                    disk.waitings.add(Waiting { client: shard, token, batch });
                }
                (Effect::Persist(token, _), None) => self.cores[shard].handle_persisted(token, self.now),
                (Effect::Read { connection }, _) => self.read_on(shard, Some(connection)),
                (Effect::Resume, _) => self.read_on(shard, None),
                _ => {}
            }
        }
    }

    /// One connection of a shard, or all, is read again.
    fn read_on(&mut self, shard: usize, which: Option<ConnectionId>) {
        let here = self.clients.iter_mut().filter(|client| client.shard == shard);
        here.filter(|client| which.is_none_or(|id| id == client.id))
            .for_each(|client| client.is_paused = false);
    }

    /// One shard's turn: mail, work, and what its clients read and answer. True if anything happened.
    pub(super) fn turn(&mut self, shard: usize) -> bool {
        let core = &mut self.cores[shard];
        let mut did = self.office.has_mail(shard as u8) || core.has_mail() || core.has_work();
        if core.place().count() > 1 {
            let done = core.exchange(&self.office, &mut self.desks[shard]);
            assert!(shards_in(done.wake).all(|other| usize::from(other) != shard), "it wakes itself");
            core.handle_mail(&mut self.desks[shard], self.now);
        }
        core.handle_work(self.now);
        check_levels(core);
        self.do_effects(shard);
        for at in 0..self.clients.len() {
            if self.clients[at].shard == shard {
                did |= self.feed(at) | self.read(at);
            }
        }
        did
    }

    /// Some turns, of random shards.
    pub(super) fn stir(&mut self, turns: usize) {
        for _ in 0..turns {
            let shard = self.random.below(self.cores.len());
            self.turn(shard);
        }
    }

    /// Turns until nothing happens any more.
    pub(super) fn settle(&mut self) {
        loop {
            self.stir(3 * self.cores.len());
            if !(0..self.cores.len()).fold(self.write(), |did, shard| self.turn(shard) | did) {
                return;
            }
        }
    }

    fn read(&mut self, at: usize) -> bool {
        let Client { shard, id, .. } = self.clients[at];
        let bytes = self.cores[shard].outgoing(id).to_vec();
        if bytes.is_empty() {
            return false;
        }
        self.cores[shard].handle_written(id, bytes.len(), self.now);
        self.clients[at].is_paused = false;
        let mut rest = &bytes[..];
        let limits = Limits { packet_bytes_max: usize::MAX, ..Limits::default() };
        while !rest.is_empty() {
            let decoded = decode(rest, Version::V3, &limits).expect("shards send what is valid");
            let (packet, length) = decoded.expect("and whole");
            rest = &rest[length..];
            self.hear(at, &packet);
        }
        true
    }

    fn hear(&mut self, at: usize, packet: &Packet) {
        let client = &mut self.clients[at];
        let success = Ack::success;
        match packet {
            Packet::Publish(publish) => {
                let is_again = publish.qos == QoS::ExactlyOnce
                    && publish.packet_id.is_some_and(|id| !client.held.insert(id));
                if is_again {
                    return self.send(at, &Packet::PubRec(success(publish.packet_id.expect("it is QoS 2"))));
                }
                let payload = String::from_utf8_lossy(publish.payload);
                let retain = if publish.retain { "r" } else { "" };
                client.got.push(format!("{}={payload}{retain}", publish.topic));
                match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) if client.is_silent => client.unacknowledged.push(id),
                    (QoS::AtLeastOnce, Some(id)) => self.send(at, &Packet::PubAck(success(id))),
                    (QoS::ExactlyOnce, Some(id)) => self.send(at, &Packet::PubRec(success(id))),
                    _ => {}
                }
            }
            Packet::PubAck(ack) => client.answers.push(format!("ack {}", ack.packet_id)),
            Packet::PubRec(ack) => {
                client.answers.push(format!("ack {}", ack.packet_id));
                client.sending.entry(ack.packet_id).and_modify(|(_, is_received)| *is_received = true);
                self.send(at, &Packet::PubRel(success(ack.packet_id)));
            }
            Packet::PubRel(ack) => {
                client.held.remove(&ack.packet_id);
                self.send(at, &Packet::PubComp(success(ack.packet_id)));
            }
            Packet::PubComp(ack) => {
                client.sending.remove(&ack.packet_id);
            }
            Packet::SubAck(ack) => client.answers.push(format!("sub {}", ack.packet_id)),
            Packet::PingResp => client.answers.push("pong".to_owned()),
            _ => {}
        }
    }
}
