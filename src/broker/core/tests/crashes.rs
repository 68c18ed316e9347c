//! Clients that count, and a broker that dies at any moment, many times, under any timing of its store.
//!
//! A publisher and a subscriber with stored sessions do what the specification asks of clients: repeat what is not
//! answered, with the packet ids it had; know what came once. Nothing acknowledged may be lost, nothing at QoS 2 may come
//! twice, and retained messages are what they were.

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
    payload: String,
    qos: u8,
    is_received: bool,
}

struct Run {
    w: World,
    dice: Dice,
    publisher: Option<ConnectionId>,
    subscriber: Option<ConnectionId>,
    next: u32,
    sending: BTreeMap<u16, Sending>,
    acknowledged: BTreeSet<String>,
    retained: Vec<String>,
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
            w,
            dice: Dice(seed),
            publisher: None,
            subscriber: Some(subscriber),
            next: 0,
            sending: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            retained: Vec::new(),
            held: BTreeSet::new(),
            heard: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.dice.roll(20) {
            0..=4 => self.publish_new(),
            5..=8 => self.listen_publisher(),
            9..=12 => self.listen_subscriber(),
            13..=15 => {
                self.w.persist_one();
            }
            16 => self.lose(true),
            17 => self.lose(false),
            18 => self.connect(),
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
        self.next += 1;
        let qos = 1 + self.dice.roll(2) as u8;
        let sending = Sending { payload: format!("{qos}-{}", self.next), qos, is_received: false };
        self.sending.insert(packet_id, sending.clone());
        self.send(id, packet_id, &sending);
    }

    fn send(&mut self, id: ConnectionId, packet_id: u16, sending: &Sending) {
        self.w.publish_as(id, packet_id, "t", sending.qos, &sending.payload);
    }

    fn listen_publisher(&mut self) {
        let Some(id) = self.publisher else { return };
        for line in self.w.heard(id) {
            let mut words = line.split(' ');
            let (kind, packet_id) =
                (words.next().expect("a word"), words.next().and_then(|id| id.parse().ok()));
            let Some(packet_id) = packet_id else { continue };
            match kind {
                "PUBACK" | "PUBCOMP" => {
                    let done = self.sending.remove(&packet_id).expect("it was being sent");
                    self.acknowledged.insert(done.payload);
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
            let topic = format!("{}", self.retained.len());
            self.retained.push(topic.clone());
            self.w.publish_with(id, "kept", 0, &topic, true, &[]);
        }
    }

    fn crash(&mut self) {
        (self.publisher, self.subscriber) = (None, None);
        self.w.crash(0.5);
    }

    /// Lets everything come to its end.
    fn settle(&mut self) {
        self.connect();
        for _ in 0..200 {
            self.w.persist();
            self.listen_publisher();
            self.listen_subscriber();
        }
    }

    fn check(&mut self, seed: u64) {
        self.settle();
        assert!(self.sending.is_empty(), "seed {seed}: without an end: {:?}", self.sending);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.heard.iter().for_each(|payload| *counts.entry(payload).or_default() += 1);
        for payload in &self.acknowledged {
            assert!(counts.contains_key(payload.as_str()), "seed {seed}: {payload} is lost");
        }
        let twice: Vec<_> =
            counts.iter().filter(|(payload, count)| payload.starts_with("2-") && **count > 1).collect();
        assert!(twice.is_empty(), "seed {seed}: more than once: {twice:?}");
        let last = self.retained.last().cloned().unwrap_or_default();
        self.crash();
        let watcher = self.w.connect(v5("watcher"));
        self.w.subscribe_with(watcher, "kept", super::world::options(0), None);
        let heard = self.w.heard(watcher);
        assert!(
            last.is_empty() || heard.contains(&format!("kept={last} retain")),
            "seed {seed}: {heard:?}, not {last}"
        );
    }
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice() {
    for seed in 1..=400 {
        let mut run = Run::new(seed);
        (0..400).for_each(|_| run.step());
        run.check(seed);
    }
}
