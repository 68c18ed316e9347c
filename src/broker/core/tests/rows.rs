//! However many packets a read brings, what comes of them is the same: everything happens to two brokers, one of which reads
//! packet by packet. So it is for several shards whose mail comes when it may.

use std::time::Instant;

use proptest::prelude::*;

use super::backlog::check_levels;
use super::world::{Hello, World, options, packet, v3, v5};
use crate::broker::core::{ConnectionId, Counters, Desk, ExportedSession, Fault, Office, Place, Pressure};
use crate::mqtt::{
    Limits, Packet, PacketId, PacketType, PropertiesBuf, Property, Publish, QoS, SubscribeOptions, Version,
    Violation, decode, plain_ack,
};
use crate::settings::{self, AccessRule, Action, Authorization, Effect, Principals};

const TOPICS: [&str; 3] = ["house/a", "house/b", "garden"];
const FILTERS: [&str; 6] = ["house/a", "house/b", "garden", "house/+", "$share/g/garden", "$share/h/house/a"];
/// How many unacknowledged messages brokers and most clients take.
const WINDOW: u16 = 40;

#[derive(Clone, Debug)]
struct Message {
    topic: usize,
    qos: u8,
    size: usize,
    flaw: Flaw,
}

/// What keeps a message from being plain.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    Retain,
    Dup,
    Expiry,
    /// Packet id 0: it ends the connection.
    NoId,
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, Vec<Message>),
    Subscribe(usize, usize, u8, bool, Option<u32>),
    /// Reads what waits, and acknowledges each for which there is true, those of earlier reads included.
    Read(usize, Vec<bool>),
    Return(usize),
    Rules(bool),
    Pressure(Pressure),
    /// One shard exchanges mail.
    Exchange(usize),
    /// The store fails, if there is one, or is back.
    Store(bool),
}

/// Publishers and subscribers in one: all may do both.
const CLIENTS: [&str; 7] = ["brief", "short", "plain", "narrow", "old", "small", "aliased"];

fn hello(client: usize) -> Hello {
    let hello = match CLIENTS[client] {
        "old" => return v3("old").resume(),
        "brief" => return v5("brief"),
        "short" => return v5("short").with(Property::ReceiveMaximum(30)),
        "small" => v5("small").with(Property::MaximumPacketSize(40)),
        "narrow" => v5("narrow").with(Property::ReceiveMaximum(5)),
        "aliased" => v5("aliased").with(Property::TopicAliasMaximum(3)),
        name => v5(name),
    };
    hello.resume().expiry(100)
}

fn message() -> impl Strategy<Value = Message> {
    let size = prop_oneof![8 => 0..40_usize, 1 => 400..600_usize];
    let flaw = prop_oneof![
        40 => Just(Flaw::None),
        1 => Just(Flaw::Retain),
        1 => Just(Flaw::Dup),
        1 => Just(Flaw::Expiry),
        1 => Just(Flaw::NoId),
    ];
    let qos = prop_oneof![6 => Just(1_u8), 1 => Just(2)];
    (0..TOPICS.len(), qos, size, flaw).prop_map(|(topic, qos, size, flaw)| Message { topic, qos, size, flaw })
}

/// Messages that are mostly alike.
fn messages() -> impl Strategy<Value = Vec<Message>> {
    let row = (message(), 1..60_usize, 0..2_u8).prop_map(|(one, count, less)| {
        let qos = one.qos - less.min(one.qos);
        let plain = Message { flaw: Flaw::None, qos, ..one.clone() };
        let mut all: Vec<_> =
            (0..count).map(|n| Message { size: plain.size + n % 3, ..plain.clone() }).collect();
        all.push(one);
        all
    });
    prop::collection::vec(row, 1..4).prop_map(|rows| rows.concat())
}

fn step() -> impl Strategy<Value = Step> {
    // The first are plain.
    let client = || prop_oneof![3 => 0..3_usize, 2 => 0..CLIENTS.len()];
    let pressure = prop_oneof![4 => Just(Pressure::None), 1 => Just(Pressure::Slow), 1 => Just(Pressure::Queues), 1 => Just(Pressure::Closed)];
    let id = prop::option::weighted(0.1, 1..9_u32);
    let acks = prop_oneof![Just(vec![true; 200]), prop::collection::vec(prop::bool::weighted(0.8), 0..200),];
    prop_oneof![
        16 => (client(), messages()).prop_map(|(c, m)| Step::Publish(c, m)),
        5 => (client(), 0..FILTERS.len(), 0..3_u8, prop::bool::weighted(0.2), id)
            .prop_map(|(c, f, q, own, id)| Step::Subscribe(c, f, q, own, id)),
        12 => (client(), acks).prop_map(|(c, acks)| Step::Read(c, acks)),
        1 => client().prop_map(Step::Return),
        1 => any::<bool>().prop_map(Step::Rules),
        1 => pressure.prop_map(Step::Pressure),
        10 => (0..3_usize).prop_map(Step::Exchange),
        1 => any::<bool>().prop_map(Step::Store),
    ]
}

/// What can be seen of a broker, besides what it sends.
#[derive(Debug, PartialEq)]
struct State {
    counters: Vec<Counters>,
    sessions: Vec<Option<ExportedSession>>,
    closed: Vec<Option<Fault>>,
    /// How many messages of a client wait to be acknowledged, and count against our Receive Maximum.
    waiting: Vec<Option<(u32, u32)>>,
    stored: String,
}

impl State {
    fn sum(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(count).sum()
    }
}

/// What a broker is like.
#[derive(Clone, Copy, Debug)]
struct Kind {
    shards: usize,
    is_stored: bool,
    inflight_max: u16,
}

const PLAIN: Kind = Kind { shards: 1, is_stored: false, inflight_max: WINDOW };

/// A broker, and whom it serves.
struct Side {
    /// Its shards.
    w: Vec<World>,
    office: Office,
    desks: Vec<Desk>,
    is_apart: bool,
    clients: Vec<ConnectionId>,
    /// What each has not acknowledged.
    open: Vec<Vec<PacketId>>,
}

impl Side {
    fn new(is_apart: bool, Kind { shards, is_stored, inflight_max }: Kind) -> Side {
        let (limits, now) = (settings::Limits::default(), Instant::now());
        let limits = settings::Limits { queued_messages_max: 60, packet_bytes_max: 430, ..limits };
        let limits = settings::Limits { inflight_max, ..limits };
        let worlds = (0..shards).map(|own| World::one_of(Place::new(own, shards), limits, now));
        let mut w: Vec<_> = worlds.map(|w| if is_stored { w.with_store() } else { w }).collect();
        let clients = (0..CLIENTS.len()).map(|client| w[client % shards].connect(hello(client))).collect();
        let desks = (0..shards).map(|_| Desk::default()).collect();
        Side {
            w,
            office: Office::new(shards),
            desks,
            is_apart,
            clients,
            open: vec![Vec::new(); CLIENTS.len()],
        }
    }

    /// The shard of a client.
    fn of(&mut self, client: usize) -> &mut World {
        let shards = self.w.len();
        &mut self.w[client % shards]
    }

    fn exchange(&mut self, shard: usize) {
        if self.w.len() > 1 {
            let (w, desk) = (&mut self.w[shard], &mut self.desks[shard]);
            w.core.exchange(&self.office, desk);
            w.core.handle_mail(desk, w.now);
            w.settle();
        }
    }

    /// All mail is read.
    fn rest(&mut self) {
        let has_mail = |side: &Side, shard: usize| {
            side.w.len() > 1 && (side.w[shard].core.has_mail() || side.office.has_mail(shard as u8))
        };
        while let Some(shard) = (0..self.w.len()).find(|&shard| has_mail(self, shard)) {
            self.exchange(shard);
        }
    }

    /// What the store is asked for comes behind all packets on either side.
    fn send(&mut self, client: usize, packets: &[Vec<u8>]) {
        let (all, id, is_apart) = ([packets.concat()], self.clients[client], self.is_apart);
        let w = self.of(client);
        for bytes in if is_apart { packets } else { &all } {
            w.core.handle_bytes(id, bytes, w.now);
        }
        w.settle();
    }

    fn step(&mut self, step: &Step) -> Vec<u8> {
        match step {
            Step::Publish(client, messages) => {
                let version = version(*client);
                let packets: Vec<_> =
                    messages.iter().enumerate().map(|(n, one)| encode(n, one, version)).collect();
                self.send(*client, &packets);
                Vec::new()
            }
            Step::Subscribe(client, filter, qos, no_local, id) => {
                let is_v5 = version(*client) == Version::V5;
                let no_local = *no_local && is_v5 && !FILTERS[*filter].starts_with('$');
                let options = SubscribeOptions { no_local, ..options(*qos) };
                let connection = self.clients[*client];
                self.of(*client).subscribe_with(connection, FILTERS[*filter], options, id.filter(|_| is_v5));
                self.rest(); // nothing is read behind it before
                Vec::new()
            }
            Step::Read(client, acks) => {
                let connection = self.clients[*client];
                let bytes = self.of(*client).heard_bytes(connection);
                self.open[*client].extend(ids_in(&bytes, version(*client)));
                let mut acks = acks.iter();
                let (taken, left) = std::mem::take(&mut self.open[*client])
                    .into_iter()
                    .partition::<Vec<_>, _>(|_| acks.next() == Some(&true));
                self.open[*client] = left;
                let packets: Vec<_> =
                    taken.into_iter().map(|id| plain_ack(PacketType::PubAck, id).to_vec()).collect();
                self.send(*client, &packets);
                bytes
            }
            Step::Return(client) => {
                let connection = self.clients[*client];
                self.of(*client).lose(connection);
                self.open[*client].clear();
                self.clients[*client] = self.of(*client).hello(&hello(*client));
                Vec::new()
            }
            Step::Rules(are_there) => {
                let no = AccessRule {
                    principals: Principals::default(),
                    action: Action::Publish,
                    filters: vec!["house/a".to_owned()],
                    effect: Effect::Deny,
                };
                let rules = Authorization { default_effect: Effect::Allow, rules: vec![no] };
                for w in &mut self.w {
                    w.core.set_access(Some(&rules).filter(|_| *are_there), false);
                    w.settle();
                }
                Vec::new()
            }
            Step::Pressure(pressure) => {
                for w in &mut self.w {
                    w.core.set_pressure(*pressure);
                    w.settle();
                }
                Vec::new()
            }
            Step::Exchange(shard) => {
                self.exchange(shard % self.w.len());
                Vec::new()
            }
            Step::Store(is_down) => {
                for w in &mut self.w {
                    match is_down {
                        true => w.store_down(),
                        false => w.store_up(),
                    }
                }
                Vec::new()
            }
        }
    }

    fn state(&mut self) -> State {
        for (_, session) in self.w.iter().flat_map(|w| &w.core.sessions) {
            let queued = session.queue.iter().filter(|one| one.frame.qos() > QoS::AtMostOnce).count();
            assert_eq!(session.tail, session.ring.end() + queued as u64, "{}", session.client_id);
        }
        self.w.iter().for_each(|w| check_levels(&w.core));
        let (mut sessions, mut closed, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for (client, name) in CLIENTS.iter().enumerate() {
            let id = self.clients[client];
            let w = self.of(client);
            sessions.push(w.core.export_session(name, w.now));
            closed.push(w.closed(id));
            waiting.push(w.core.wires.get(id).map(|one| (one.unanswered, one.receiving)));
        }
        let counters = self.w.iter().map(|w| w.core.counters()).collect();
        let stored = self.w.iter_mut().map(|w| format!("{:?}", w.shelf.read())).collect();
        State { counters, sessions, closed, waiting, stored }
    }
}

fn version(client: usize) -> Version {
    if CLIENTS[client] == "old" { Version::V3 } else { Version::V5 }
}

fn encode(n: usize, message: &Message, version: Version) -> Vec<u8> {
    let mut properties = PropertiesBuf::new();
    if message.flaw == Flaw::Expiry && version == Version::V5 {
        properties.push(Property::MessageExpiryInterval(100));
    }
    let publish = Publish {
        dup: message.flaw == Flaw::Dup && message.qos > 0,
        qos: QoS::from_u8(message.qos).expect("0 to 2"),
        retain: message.flaw == Flaw::Retain,
        topic: TOPICS[message.topic],
        packet_id: (message.qos > 0).then(|| packet(n as u16 + 1)),
        properties: properties.as_properties(),
        payload: &vec![b'0' + (n % 10) as u8; message.size],
    };
    let mut bytes = Vec::new();
    Packet::Publish(publish).encode(version, &mut bytes);
    if message.flaw == Flaw::NoId && message.qos > 0 && bytes[1] < 0x80 {
        let id_at = 4 + publish.topic.len();
        bytes[id_at..id_at + 2].fill(0);
    }
    bytes
}

/// The packet ids of the QoS 1 messages among these packets.
pub(super) fn ids_in(mut bytes: &[u8], version: Version) -> Vec<PacketId> {
    let mut ids = Vec::new();
    while let Some((packet, length)) = decode(bytes, version, &Limits::default()).expect("all is valid") {
        if let Packet::Publish(Publish { qos: QoS::AtLeastOnce, packet_id: Some(id), .. }) = packet {
            ids.push(id);
        }
        bytes = &bytes[length..];
    }
    ids
}

/// Lets both brokers do the same, and compares all that can be seen of them.
#[track_caller]
fn check(kind: Kind, steps: &[Step]) -> State {
    let mut sides = [false, true].map(|is_apart| Side::new(is_apart, kind));
    let ends = (0..CLIENTS.len()).map(|client| Step::Read(client, Vec::new()));
    for (n, step) in steps.iter().cloned().chain([Step::Store(false)]).chain(ends).enumerate() {
        if n > steps.len() {
            sides.iter_mut().for_each(Side::rest);
        }
        let [together, apart] = sides.each_mut().map(|side| (side.step(&step), side.state()));
        assert_eq!(together, apart, "step {n}");
    }
    let state = sides[0].state();
    for (closed, waiting) in state.closed.iter().zip(&state.waiting) {
        assert!(closed.is_some() || waiting.is_none_or(|(unanswered, _)| unanswered == 0), "{state:?}");
    }
    state
}

fn plain(count: usize, topic: usize, qos: u8) -> Vec<Message> {
    vec![Message { topic, qos, size: 9, flaw: Flaw::None }; count]
}

fn subscribe(client: usize, topic: usize, qos: u8) -> Step {
    Step::Subscribe(client, topic, qos, false, None)
}

proptest! {
    #[test]
    fn how_many_packets_a_read_brings_makes_no_difference(
        shards in 1..4_usize,
        is_stored in prop::bool::weighted(0.3),
        inflight_max in prop_oneof![Just(WINDOW), Just(200)],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        check(Kind { shards, is_stored, inflight_max }, &steps);
    }
}

#[test]
fn sessions_that_are_kept_hear_of_their_subscriptions_beside_others() {
    let kind = Kind { shards: 3, is_stored: true, ..PLAIN };
    check(kind, &[subscribe(1, 0, 0), subscribe(4, 0, 0)]);
}

#[test]
fn rules_that_changed_hold_for_a_row() {
    let publish = || Step::Publish(0, plain(20, 0, 1));
    let steps = [subscribe(1, 0, 1), publish(), Step::Rules(true), publish()];
    assert_eq!(check(PLAIN, &steps).sum(|counted| counted.dropped_not_authorized), 20);
}

#[test]
fn a_row_counts_against_our_receive_maximum() {
    let all = Step::Publish(0, plain(usize::from(WINDOW), 0, 2));
    let read = || Step::Read(1, vec![true; 40]);
    let state = check(PLAIN, &[subscribe(1, 0, 1), all, read(), read(), Step::Publish(0, plain(5, 0, 1))]);
    assert_eq!(state.closed[0], Some(Fault::Violation(Violation::ReceiveMaximumExceeded)));
}

#[test]
fn a_row_behind_an_answer_that_waits_for_the_store_is_answered_behind_it() {
    // Of the two subscribers the first is stored.
    let messages = [plain(1, 2, 1), plain(5, 0, 1)].concat();
    check(
        Kind { is_stored: true, ..PLAIN },
        &[subscribe(2, 2, 1), subscribe(1, 0, 1), Step::Publish(0, messages), Step::Read(0, Vec::new())],
    );
}

/// Where another shard owns the group it hears of that between two messages.
#[test]
fn a_member_that_a_row_fills_is_passed_over_from_the_same_message_on() {
    let steps =
        [subscribe(1, 5, 0), subscribe(1, 0, 1), subscribe(2, 5, 0), Step::Publish(5, plain(31, 0, 1))];
    let exchanges = [0, 1, 0, 1].map(Step::Exchange);
    check(Kind { shards: 2, ..PLAIN }, &[&steps[..], &exchanges].concat());
}

/// A subscriber that does not read until its buffer is full, and a publisher that does not read its acknowledgements.
#[test]
fn many_messages_in_one_read_keep_to_the_bounds_of_few() {
    use Pressure::{None, Queues, Slow};
    let cases = [
        (0, 400, true, None),
        (1, 400, true, None),
        (0, 400, true, Slow),
        (1, 400, true, Slow),
        (1, 400, true, Queues),
    ];
    let cases = cases.into_iter().chain([(1, 0, false, None)]);
    // With three the reader is on another one.
    for (shards, (qos, size, reads, pressure)) in cases.flat_map(|case| [(1, case), (3, case)]) {
        let state_of = |is_apart| {
            let mut side = Side::new(is_apart, Kind { shards, inflight_max: u16::MAX, ..PLAIN });
            let reader = side.clients[2];
            side.step(&subscribe(2, 2, qos));
            side.step(&Step::Pressure(pressure));
            let publish = Step::Publish(0, vec![Message { topic: 2, qos, size, flaw: Flaw::None }; 200]);
            for _ in 0..if reads { 60 } else { 350 } {
                side.step(&publish);
                side.rest();
                side.step(&if reads { Step::Read(0, Vec::new()) } else { Step::Read(2, vec![true; 200]) });
            }
            let publisher = side.clients[0];
            assert_eq!(side.of(0).core.reads(publisher), reads);
            // What waits besides goes first, though there is room again.
            let w = side.of(2);
            w.core.handle_written(reader, 50_000, w.now);
            side.step(&publish);
            side.rest();
            side.state()
        };
        let (together, apart) = (state_of(false), state_of(true));
        assert_eq!(together, apart);
        let missed = together.sum(|counted| match (qos, pressure) {
            (0, None) => counted.dropped_slow,
            (0, _) => counted.shed_slow,
            (_, Queues) => counted.shed_queued + counted.dropped_queue_full,
            _ => counted.dropped_queue_full,
        });
        assert!(!reads || missed > 1_000, "{missed}");
    }
}

/// A member of a group that has no room left for what it gets besides is passed over.
#[test]
fn a_row_takes_a_members_room_as_its_messages_would() {
    let mut w = World::new();
    let publisher = w.connect(v5("publisher"));
    let narrow = w.connect(v5("narrow").with(Property::ReceiveMaximum(5)));
    let other = w.connect(v5("other"));
    w.subscribe(narrow, "garden", 1);
    [narrow, other].into_iter().for_each(|member| w.subscribe(member, "$share/g/house/a", 1));
    let send = |w: &mut World, topic, count| {
        let one = Message { topic, qos: 1, size: 2, flaw: Flaw::None };
        let bytes: Vec<_> = (0..count).flat_map(|n| encode(n, &one, Version::V5)).collect();
        w.send_bytes(publisher, &bytes);
    };
    send(&mut w, 2, 5);
    send(&mut w, 0, 4);
    assert_eq!((w.heard(narrow).len(), w.heard(other).len()), (5, 4));
}

#[test]
fn what_came_in_a_row_comes_again_to_who_did_not_acknowledge() {
    let mut w = World::new();
    let (publisher, reader) = (w.connect(v5("publisher")), w.connect(v5("reader").expiry(100)));
    w.subscribe(reader, "garden", 1);
    let one = Message { topic: 2, qos: 1, size: 2, flaw: Flaw::None };
    let bytes: Vec<_> = (0..6).flat_map(|n| encode(n, &one, Version::V5)).collect();
    w.send_bytes(publisher, &bytes);
    let sent = [0, 1, 2, 3, 4, 5].map(|n| format!("garden={n}{n} q1 #{}", n + 1));
    assert_eq!(w.heard(reader), sent);
    [1, 4].into_iter().for_each(|id| w.puback(reader, id));
    w.lose(reader);
    let reader = w.hello(&v5("reader").resume());
    assert_eq!(w.heard(reader)[1..], [1, 2, 4, 5].map(|n| format!("{} dup", sent[n])));
}
