//! Clients that count, and a broker that dies at any moment, many times, under any timing of its store.
//!
//! A publisher and a subscriber with stored sessions do what the specification asks of clients: repeat what is not
//! answered, with the packet ids it had; know what came once; publish anew what was refused. Nothing acknowledged may be
//! lost, nothing at QoS 2 may come twice, and retained messages are what they were. The store fails in between.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{World, v5};
use crate::broker::core::ConnectionId;
use crate::mqtt::Property;

/// A small generator of numbers, so that a failing run can be run again by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What the publisher has not seen the end of.
#[derive(Clone, Debug)]
struct Sending {
    topic: String,
    payload: String,
    qos: u8,
    is_received: bool,
}

/// What a topic's retained message may be: nothing, if empty.
#[derive(Clone, Debug, Default)]
struct Kept {
    acknowledged: String,
    /// Another may be there already.
    sent: Option<String>,
}

struct Run {
    seed: u64,
    w: World,
    dice: Dice,
    publisher: Option<ConnectionId>,
    subscriber: Option<ConnectionId>,
    next: u32,
    sending: BTreeMap<u16, Sending>,
    /// What was not taken.
    refused: Vec<Sending>,
    acknowledged: BTreeSet<String>,
    kept: BTreeMap<String, Kept>,
    /// QoS 2 packet ids that the subscriber holds.
    held: BTreeSet<u16>,
    heard: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut w = World::durable();
        let subscriber = w.connect(v5("subscriber").expiry(100_000));
        w.subscribe(subscriber, "t", 2);
        w.unpersisted = Some(Vec::new());
        Run {
            seed,
            w,
            dice: Dice(seed),
            publisher: None,
            subscriber: Some(subscriber),
            next: 0,
            sending: BTreeMap::new(),
            refused: Vec::new(),
            acknowledged: BTreeSet::new(),
            kept: (0..3).map(|n| (format!("kept/{n}"), Kept::default())).collect(),
            held: BTreeSet::new(),
            heard: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.dice.roll(24) {
            0..=4 => self.publish_new(),
            5..=8 => self.listen_publisher(),
            9..=12 => self.listen_subscriber(),
            13..=15 => {
                self.w.persist_one();
            }
            16 => self.lose(true),
            17 => self.lose(false),
            18 => self.connect(),
            19 => {
                if self.dice.roll(4) == 0 {
                    self.w.store_down();
                }
            }
            20 => self.w.store_up(),
            21 | 22 => self.retain_new(),
            _ => {
                if self.dice.roll(4) == 0 {
                    self.crash();
                }
            }
        }
    }

    fn publish_new(&mut self) {
        let Some(id) = self.publisher else { return };
        let free = (1..=5).find(|packet_id| !self.sending.contains_key(packet_id));
        let Some(packet_id) = free else { return };
        let sending = self.refused.pop().unwrap_or_else(|| {
            self.next += 1;
            let qos = 1 + self.dice.roll(2) as u8;
            let payload = format!("{qos}-{}", self.next);
            Sending { topic: "t".into(), payload, qos, is_received: false }
        });
        self.sending.insert(packet_id, sending.clone());
        self.send(id, packet_id, &sending);
    }

    /// Publishes or removes a retained message, one of a topic at a time.
    fn retain_new(&mut self) {
        let topic = format!("kept/{}", self.dice.roll(3));
        let kept = self.kept.get_mut(&topic).expect("it is one of three");
        if kept.sent.is_none() {
            self.next += 1;
            let payload = if self.dice.roll(3) == 0 { String::new() } else { self.next.to_string() };
            kept.sent = Some(payload.clone());
            self.refused.push(Sending { topic, payload, qos: 1, is_received: false });
            self.publish_new();
        }
    }

    fn send(&mut self, id: ConnectionId, packet_id: u16, sending: &Sending) {
        let Sending { topic, payload, qos, .. } = sending;
        self.w.publish_kept(id, packet_id, topic, *qos, payload, topic != "t");
    }

    fn listen_publisher(&mut self) {
        let Some(id) = self.publisher else { return };
        for line in self.w.heard(id) {
            let mut words = line.split(' ');
            let (kind, packet_id) =
                (words.next().expect("a word"), words.next().and_then(|id| id.parse().ok()));
            let Some(packet_id) = packet_id else { continue };
            match kind {
                "PUBACK" | "PUBREC" if words.next() == Some("QuotaExceeded") => {
                    self.refused.extend(self.sending.remove(&packet_id));
                }
                "PUBACK" | "PUBCOMP" => {
                    let done = self.sending.remove(&packet_id).expect("it was being sent");
                    if let Some(kept) = self.kept.get_mut(&done.topic) {
                        *kept = Kept { acknowledged: done.payload, sent: None };
                    } else {
                        self.acknowledged.insert(done.payload);
                    }
                }
                "PUBREC" => {
                    self.sending.get_mut(&packet_id).expect("it was being sent").is_received = true;
                    self.w.pubrel(id, packet_id);
                }
                other => panic!("{other}"),
            }
        }
    }

    fn listen_subscriber(&mut self) {
        let Some(id) = self.subscriber else { return };
        for line in self.w.heard(id) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [message, qos, packet_id, ..] if message.starts_with("t=") => {
                    let packet_id: u16 = packet_id[1..].parse().expect("a packet id");
                    let payload = message[2..].to_owned();
                    if qos == "q1" {
                        self.heard.push(payload);
                        self.answer(id, packet_id, World::puback);
                    } else {
                        if self.held.insert(packet_id) {
                            self.heard.push(payload);
                        }
                        self.answer(id, packet_id, World::pubrec);
                    }
                }
                ["PUBREL", packet_id, ..] => {
                    let packet_id: u16 = packet_id.parse().expect("a packet id");
                    self.held.remove(&packet_id);
                    self.answer(id, packet_id, World::pubcomp);
                }
                ["CONNACK", ..] => {}
                _ => panic!("{line}"),
            }
        }
    }

    fn answer(&mut self, id: ConnectionId, packet_id: u16, with: fn(&mut World, ConnectionId, u16)) {
        with(&mut self.w, id, packet_id);
    }

    fn lose(&mut self, is_publisher: bool) {
        let whose = if is_publisher { &mut self.publisher } else { &mut self.subscriber };
        if let Some(id) = whose.take() {
            self.w.lose(id);
        }
    }

    fn connect(&mut self) {
        if self.subscriber.is_none() {
            let window = [1, 2, 5, 20][self.dice.roll(4) as usize];
            let subscriber = v5("subscriber").resume().expiry(100_000);
            let id = self.w.hello(&subscriber.with(Property::ReceiveMaximum(window)));
            self.subscriber = Some(id);
        }
        if self.publisher.is_none() {
            let id = self.w.hello(&v5("publisher").resume().expiry(100_000));
            self.publisher = Some(id);
            let first = self.w.heard(id);
            if !first.iter().any(|line| line.ends_with("present")) {
                // The broker knows nothing of us: what was half way begins anew.
                self.sending.values_mut().for_each(|sending| sending.is_received = false);
            }
            for (packet_id, sending) in self.sending.clone() {
                match sending.is_received {
                    true => self.w.pubrel(id, packet_id),
                    false => self.send(id, packet_id, &sending),
                }
            }
        }
    }

    fn crash(&mut self) {
        (self.publisher, self.subscriber) = (None, None);
        self.w.crash(0.5);
        let watcher = self.w.connect(v5("watcher"));
        self.w.subscribe_with(watcher, "kept/+", super::world::options(0), None);
        let heard = self.w.heard(watcher);
        for (topic, kept) in &self.kept {
            let head = format!("{topic}=");
            let line = heard.iter().find_map(|line| line.strip_prefix(&head)?.strip_suffix(" retain"));
            let is = line.unwrap_or_default();
            let may_be = is == kept.acknowledged || kept.sent.as_deref() == Some(is);
            assert!(may_be, "seed {}: {topic} is {is:?}, {kept:?}", self.seed);
        }
        self.w.lose(watcher);
    }

    /// Lets everything come to its end.
    fn settle(&mut self) {
        self.w.store_up();
        self.connect();
        for _ in 0..200 {
            self.w.persist();
            self.listen_publisher();
            self.listen_subscriber();
            if !self.refused.is_empty() {
                self.publish_new();
            }
        }
    }

    fn check(&mut self) {
        let seed = self.seed;
        self.settle();
        let open = (&self.sending, &self.refused);
        assert!(open.0.is_empty() && open.1.is_empty(), "seed {seed}: without an end: {open:?}");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.heard.iter().for_each(|payload| *counts.entry(payload).or_default() += 1);
        for payload in &self.acknowledged {
            assert!(counts.contains_key(payload.as_str()), "seed {seed}: {payload} is lost");
        }
        let twice: Vec<_> =
            counts.iter().filter(|(payload, count)| payload.starts_with("2-") && **count > 1).collect();
        assert!(twice.is_empty(), "seed {seed}: more than once: {twice:?}");
        self.crash();
    }
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice() {
    for seed in 1..=400 {
        let mut run = Run::new(seed);
        (0..400).for_each(|_| run.step());
        run.check();
    }
}
