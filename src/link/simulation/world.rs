//! A virtual network and clock: clusters of one node, links between them, time a number.
//!
//! A cluster has subscribers of its own and a record of what they got. The network carries frames in order per
//! connection, can be cut (both ends notice), silenced (nobody notices) and mended. After each step every link's
//! counters must balance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::link::backoff::Random;
use crate::link::machine::{ConnId, Identity, Link, Output};
use crate::mqtt::{Filter, Message, PropertiesBuf, QoS};
use crate::settings::report::VerdictStatus;
use crate::settings::{Dial, Link as Half};

/// One way through the network takes this long, unless a script says otherwise.
const LATENCY: Duration = Duration::from_millis(5);
/// How long a dialler waits for an answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster of one node.
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) incarnation: u64,
    /// What the node's clock says instead of the time, if it is wrong.
    pub(super) wrong_clock: Option<u64>,
    pub(super) subscriptions: BTreeSet<(String, Option<String>)>,
    pub(super) links: BTreeMap<String, Link>,
    /// What each peer asked this cluster's core for.
    pub(super) served: BTreeMap<String, BTreeSet<Filter>>,
    /// Payloads that local subscribers got from peers, in order.
    pub(super) got: Vec<String>,
    pub(super) up: bool,
}

struct Wire {
    ends: [(String, String); 2],
    /// In flight: to which end, when it arrives, what.
    frames: VecDeque<(usize, Instant, Option<Vec<u8>>)>,
    open: [bool; 2],
}

/// What the network does to two clusters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    Open,
    /// Refuses and resets.
    Cut,
    /// Swallows everything; a connection that lives until the mend brings it then, as TCP does.
    Silent,
}

pub(super) struct World {
    pub(super) now: Instant,
    start: Instant,
    pub(super) clusters: BTreeMap<String, Cluster>,
    wires: BTreeMap<ConnId, Wire>,
    next_conn: u64,
    paths: BTreeMap<(String, String), Path>,
    /// Dials under way: from, to, when it ends.
    dials: Vec<(String, String, Instant)>,
    pub(super) random: Random,
    /// How long one way through the network takes.
    pub(super) latency: Duration,
    /// How many attempts to dial there were.
    pub(super) dialled: u64,
    /// How much reached its end.
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

fn pair(a: &str, b: &str) -> (String, String) {
    if a < b { (a.to_owned(), b.to_owned()) } else { (b.to_owned(), a.to_owned()) }
}

/// A half with short bounds, that wants `topics` from `peer`.
pub(super) fn half(peer: &str, topics: &[&str]) -> Half {
    let mut half = Half::new(format!("default/{peer}"), peer);
    half.topics = topics.iter().map(|&t| t.to_owned()).collect();
    half.server = Some(format!("{peer}:11883"));
    half.forwarding.queue_age_s_max = 60;
    half
}

pub(super) fn message(topic: &str, payload: &str, qos: QoS) -> Message {
    Message {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        properties: PropertiesBuf::new(),
        expires_at: None,
    }
}

/// The host that a half dials; in this world a cluster's name.
fn host(half: &Half) -> &str {
    let server = half.server.as_deref().expect("a half that dials has an address");
    server.split(':').next().expect("a split has a first part")
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        println!("seed {seed}");
        let now = Instant::now();
        World {
            now,
            start: now,
            clusters: BTreeMap::new(),
            wires: BTreeMap::new(),
            next_conn: 0,
            paths: BTreeMap::new(),
            dials: Vec::new(),
            random: Random(seed),
            latency: LATENCY,
            dialled: 0,
            frames: 0,
            bytes: 0,
        }
    }

    /// `us` and `eu`, linked both ways for everything.
    pub(super) fn two(seed: u64) -> World {
        let mut world = World::new(seed);
        world.cluster("us");
        world.cluster("eu");
        world.link("us", half("eu", &["#"]));
        world.link("eu", half("us", &["#"]));
        world
    }

    pub(super) fn cluster(&mut self, name: &str) {
        let cluster = Cluster {
            name: name.to_owned(),
            incarnation: 0,
            wrong_clock: None,
            subscriptions: BTreeSet::new(),
            links: BTreeMap::new(),
            served: BTreeMap::new(),
            got: Vec::new(),
            up: true,
        };
        self.clusters.insert(name.to_owned(), cluster);
    }

    fn ms(&self) -> u64 {
        self.now.duration_since(self.start).as_millis() as u64
    }

    pub(super) fn at(&mut self, name: &str) -> &mut Cluster {
        self.clusters.get_mut(name).expect("the test made this cluster")
    }

    pub(super) fn the_link(&self, name: &str, peer: &str) -> &Link {
        &self.clusters[name].links[peer]
    }

    /// Adds a half to a running cluster.
    pub(super) fn link(&mut self, name: &str, half: Half) {
        let (seed, now, ms) = (self.random.next_u64(), self.now, self.ms());
        let cluster = self.at(name);
        cluster.incarnation = cluster.wrong_clock.unwrap_or(1_000_000 + ms).max(cluster.incarnation + 1);
        let own = Identity {
            cluster: name.to_owned(),
            node: format!("{name}-0"),
            incarnation: cluster.incarnation,
        };
        let peer = half.peer.clone();
        let mut link = Link::new(half, own, 16 * 1024 * 1024, seed, now);
        for (filter, group) in &cluster.subscriptions {
            let filter = Filter::parse(filter).expect("a valid filter");
            link.handle_interest(filter, group.as_deref().map(Into::into), true, now);
        }
        cluster.served.insert(peer.clone(), BTreeSet::new());
        cluster.links.insert(peer, link);
        self.pump();
    }

    /// Changes a half.
    pub(super) fn configure(&mut self, name: &str, peer: &str, change: impl FnOnce(&mut Half)) {
        let now = self.now;
        let link = self.at(name).links.get_mut(peer).expect("the test made this link");
        let mut half = link.half().clone();
        change(&mut half);
        link.handle_settings(half, now);
        self.pump();
    }

    pub(super) fn subscribe(&mut self, name: &str, filter: &str) {
        self.interest(name, filter, None, true);
    }

    pub(super) fn unsubscribe(&mut self, name: &str, filter: &str) {
        self.interest(name, filter, None, false);
    }

    pub(super) fn subscribe_shared(&mut self, name: &str, group: &str, filter: &str) {
        self.interest(name, filter, Some(group), true);
    }

    pub(super) fn unsubscribe_shared(&mut self, name: &str, group: &str, filter: &str) {
        self.interest(name, filter, Some(group), false);
    }

    pub(super) fn dials_under_way(&self) -> usize {
        self.dials.len()
    }

    fn interest(&mut self, name: &str, filter: &str, group: Option<&str>, wanted: bool) {
        let now = self.now;
        let cluster = self.at(name);
        let key = (filter.to_owned(), group.map(str::to_owned));
        if wanted {
            cluster.subscriptions.insert(key);
        } else {
            cluster.subscriptions.remove(&key);
        }
        for link in cluster.links.values_mut() {
            let filter = Filter::parse(filter).expect("a valid filter");
            link.handle_interest(filter, group.map(Into::into), wanted, now);
        }
        self.pump();
    }

    /// A local client publishes; each peer with a matching route gets it once.
    pub(super) fn publish(&mut self, name: &str, topic: &str, payload: &str, qos: QoS) {
        self.publish_message(name, message(topic, payload, qos));
    }

    pub(super) fn publish_message(&mut self, name: &str, message: Message) {
        let now = self.now;
        let cluster = self.at(name);
        let message = Rc::new(message);
        for (peer, link) in &mut cluster.links {
            if cluster.served[peer].iter().any(|filter| filter.matches(&message.topic)) {
                link.handle_message(message.clone(), now);
            }
        }
        self.pump();
    }

    /// The node stops without a word and comes back with nothing remembered.
    pub(super) fn restart(&mut self, name: &str) {
        let halves: Vec<Half> = self.at(name).links.values().map(|link| link.half().clone()).collect();
        self.kill(name);
        self.at(name).up = true;
        let subscriptions = std::mem::take(&mut self.at(name).subscriptions);
        halves.into_iter().for_each(|half| self.link(name, half));
        for (filter, group) in subscriptions {
            self.interest(name, &filter, group.as_deref(), true);
        }
    }

    /// The node stops without a word.
    pub(super) fn kill(&mut self, name: &str) {
        let cluster = self.at(name);
        cluster.up = false;
        cluster.incarnation = 0;
        cluster.links.clear();
        cluster.served.clear();
        self.dials.retain(|(from, _, _)| from != name);
        let wires: Vec<ConnId> = self.wires.keys().copied().collect();
        for conn in wires {
            for end in 0..2 {
                if self.wires.get(&conn).is_some_and(|wire| wire.ends[end].0 == name) {
                    self.close_from(conn, end);
                }
            }
        }
    }

    /// Takes the half away, saying Bye.
    pub(super) fn unlink(&mut self, name: &str, peer: &str) {
        use crate::link::refusal::Reason;
        let now = self.now;
        let link = self.at(name).links.get_mut(peer).expect("the test made this link");
        link.handle_shutdown(Reason::UnknownCluster, "the half is gone", now);
        self.pump();
        self.at(name).links.remove(peer);
        self.at(name).served.remove(peer);
    }

    pub(super) fn set_path(&mut self, a: &str, b: &str, path: Path) {
        self.paths.insert(pair(a, b), path);
        if path == Path::Cut {
            self.reset(a, b);
        }
    }

    /// Ends every connection between two clusters; both ends notice.
    pub(super) fn reset(&mut self, a: &str, b: &str) {
        let between = |wire: &Wire| pair(&wire.ends[0].0, &wire.ends[1].0) == pair(a, b);
        let conns: Vec<ConnId> = self.wires.iter().filter(|(_, w)| between(w)).map(|(c, _)| *c).collect();
        for conn in conns {
            let wire = self.wires.remove(&conn).expect("it was just found");
            for end in 0..2 {
                if wire.open[end] {
                    self.tell_closed(&wire.ends[end], conn);
                }
            }
        }
        self.pump();
    }

    fn tell_closed(&mut self, (name, peer): &(String, String), conn: ConnId) {
        let now = self.now;
        if let Some(link) = self.at(name).links.get_mut(peer) {
            link.handle_closed(conn, "the connection was reset", now);
        }
    }

    fn path(&self, a: &str, b: &str) -> Path {
        self.paths.get(&pair(a, b)).copied().unwrap_or(Path::Open)
    }

    fn is_silent(&self, wire: &Wire) -> bool {
        self.path(&wire.ends[0].0, &wire.ends[1].0) == Path::Silent
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.pump();
        while let Some(next) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    /// Runs until both sides of every link that is enabled say that all is well, and fails if that takes long.
    #[track_caller]
    pub(super) fn settle(&mut self) {
        // A verdict does not wait for the last answer, so it must hold for longer than an answer takes.
        let mut settled = 0;
        for _ in 0..600 {
            self.run_for(Duration::from_millis(50));
            settled = if self.is_settled() { settled + 1 } else { 0 };
            if settled == 3 {
                return;
            }
        }
        let now = self.now;
        let links = self.clusters.values().flat_map(|c| c.links.values().map(move |l| (&c.name, l)));
        let reports: Vec<_> = links.map(|(name, link)| (name, link.report(now))).collect();
        panic!("not settled after 30 s: {reports:#?}");
    }

    fn is_settled(&self) -> bool {
        let links = self.clusters.values().filter(|c| c.up).flat_map(|c| c.links.values());
        links.filter(|l| l.half().enabled).all(|link| {
            let report = link.report(self.now);
            [report.connected, report.peer_agrees, report.routes_synced]
                .iter()
                .all(|verdict| verdict.status == VerdictStatus::True)
                && report.counters.sent.queued + report.counters.sent.in_flight == 0
        })
    }

    fn next_event(&self) -> Option<Instant> {
        let links = self.clusters.values().flat_map(|c| c.links.values());
        let timeouts = links.filter_map(|link| link.poll_timeout(self.now));
        let carrying = self.wires.values().filter(|wire| !self.is_silent(wire));
        let frames = carrying.filter_map(|wire| wire.frames.front().map(|frame| frame.1));
        let dials = self.dials.iter().map(|dial| dial.2);
        timeouts.chain(frames).chain(dials).min()
    }

    fn step(&mut self) {
        let now = self.now;
        self.end_dials();
        self.deliver_frames();
        for cluster in self.clusters.values_mut() {
            for link in cluster.links.values_mut() {
                if link.poll_timeout(now).is_some_and(|at| at <= now) {
                    link.handle_timeout(now);
                }
            }
        }
        self.pump();
    }

    fn end_dials(&mut self) {
        let now = self.now;
        let (over, under_way) = std::mem::take(&mut self.dials).into_iter().partition(|d| d.2 <= now);
        self.dials = under_way;
        let over: Vec<(String, String, Instant)> = over;
        for (from, to, _) in over {
            self.end_dial(&from, &to);
        }
    }

    /// `link` is the dialler's name for the peer; who answers is a matter of the address.
    fn end_dial(&mut self, from: &str, link: &str) {
        let now = self.now;
        let half = self.clusters[from].links[link].half();
        debug_assert_ne!(half.dial, Dial::In);
        let to = host(half).to_owned();
        let answers = self.path(from, &to) == Path::Open && self.clusters[&to].up;
        let known = answers && self.clusters[&to].links.contains_key(from);
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let dialled = self.at(from).links.get_mut(link).expect("a dial belongs to a link");
        if !answers {
            dialled.handle_dial_failed("DialFailed", "no answer", now);
        } else if !known {
            dialled.handle_dial_failed("UnknownCluster", "no half", now);
        } else {
            dialled.handle_opened(conn, true, now);
            let ends = [(from.to_owned(), link.to_owned()), (to.clone(), from.to_owned())];
            self.wires.insert(conn, Wire { ends, frames: VecDeque::new(), open: [true, true] });
            let accepted = self.at(&to).links.get_mut(from).expect("it was just looked for");
            accepted.handle_opened(conn, false, now);
        }
    }

    fn deliver_frames(&mut self) {
        let now = self.now;
        let carrying = self.wires.iter().filter(|(_, wire)| !self.is_silent(wire));
        for conn in carrying.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            while let Some(wire) = self.wires.get_mut(&conn) {
                if wire.frames.front().is_none_or(|frame| frame.1 > now) {
                    break;
                }
                let (end, _, frame) = wire.frames.pop_front().expect("it was just looked at");
                let (name, peer) = wire.ends[end].clone();
                match frame {
                    Some(frame) => self.deliver(&name, &peer, conn, &frame),
                    None => {
                        self.wires.remove(&conn);
                        self.tell_closed(&(name, peer), conn);
                    }
                }
            }
        }
    }

    fn deliver(&mut self, name: &str, peer: &str, conn: ConnId, frame: &[u8]) {
        let now = self.now;
        self.frames += 1;
        self.bytes += frame.len() as u64;
        if let Some(link) = self.at(name).links.get_mut(peer) {
            link.handle_frame(conn, frame, now);
        }
        self.pump();
    }

    /// Does what the links ask for until they ask for nothing more.
    fn pump(&mut self) {
        loop {
            let mut todo = Vec::new();
            for cluster in self.clusters.values_mut() {
                for (peer, link) in &mut cluster.links {
                    while let Some(output) = link.poll_output(self.now) {
                        todo.push((cluster.name.clone(), peer.clone(), output));
                    }
                }
            }
            if todo.is_empty() {
                break;
            }
            todo.into_iter().for_each(|(name, peer, output)| self.perform(&name, &peer, output));
        }
        self.check_balance();
    }

    fn perform(&mut self, name: &str, peer: &str, output: Output) {
        match output {
            Output::Dial => {
                self.dialled += 1;
                let to = host(self.clusters[name].links[peer].half()).to_owned();
                let takes = match self.path(name, &to) {
                    Path::Silent => DIAL_TIMEOUT,
                    Path::Open | Path::Cut => self.latency * 2,
                };
                self.dials.push((name.to_owned(), peer.to_owned(), self.now + takes));
            }
            Output::CancelDial => {
                self.dials.retain(|(from, to, _)| (from, to) != (&name.to_owned(), &peer.to_owned()))
            }
            Output::Send { conn, frame } => self.send(name, conn, Some(frame)),
            Output::Close { conn } => self.close(name, conn),
            Output::RouteAdd(filter) => {
                let fresh = self.served(name, peer).insert(filter);
                assert!(fresh, "a route is added once");
            }
            Output::RouteDelete(filter) => {
                let there = self.served(name, peer).remove(&filter);
                assert!(there, "a route that is deleted was there");
            }
            Output::Deliver(message) => self.hand_over(name, peer, &message),
            Output::Settle { number } => {
                let link = self.at(name).links.get_mut(peer).expect("a question comes from a link");
                link.handle_settled(number);
            }
        }
    }

    fn served(&mut self, name: &str, peer: &str) -> &mut BTreeSet<Filter> {
        self.at(name).served.entry(peer.to_owned()).or_default()
    }

    fn send(&mut self, name: &str, conn: ConnId, frame: Option<Vec<u8>>) {
        let at = self.now + self.latency;
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        let from = usize::from(wire.ends[0].0 != name);
        wire.frames.push_back((1 - from, at, frame));
    }

    fn close(&mut self, name: &str, conn: ConnId) {
        let Some(wire) = self.wires.get(&conn) else { return };
        let from = usize::from(wire.ends[0].0 != name);
        self.close_from(conn, from);
    }

    fn close_from(&mut self, conn: ConnId, end: usize) {
        let at = self.now + self.latency;
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        wire.open[end] = false;
        wire.frames.retain(|frame| frame.0 != end);
        if wire.open[1 - end] {
            wire.frames.push_back((1 - end, at, None));
        } else {
            self.wires.remove(&conn);
        }
    }

    fn hand_over(&mut self, name: &str, peer: &str, message: &Message) {
        let cluster = self.at(name);
        let matching = |(filter, _): &&(String, Option<String>)| {
            Filter::parse(filter).expect("a valid filter").matches(&message.topic)
        };
        let recipients = cluster.subscriptions.iter().filter(matching).count();
        if recipients > 0 {
            cluster.got.push(String::from_utf8_lossy(&message.payload).into_owned());
        }
        cluster.links.get_mut(peer).expect("a delivery comes from a link").handle_delivered(recipients);
    }

    #[track_caller]
    fn check_balance(&self) {
        for cluster in self.clusters.values() {
            for link in cluster.links.values() {
                let counters = link.counters();
                let (sent, received) = (counters.sent, counters.received);
                let drops = sent.dropped;
                let dropped =
                    drops.expired + drops.overflow + drops.refused + drops.oversize + drops.disconnected;
                let accounted = sent.acknowledged + sent.queued + sent.in_flight + dropped;
                assert_eq!(sent.matched, accounted, "{}: {sent:?}", cluster.name);
                let drops = received.dropped;
                let dropped = drops.not_wanted + drops.disabled + drops.no_route + drops.duplicate;
                assert_eq!(received.received, received.delivered + dropped, "{}: {received:?}", cluster.name);
            }
        }
    }
}
