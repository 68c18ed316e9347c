//! A virtual broker with clients that are lines of a script.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::backlog::check_levels;
use crate::broker::core::{ConnectionId, Core, Effect, Fault, Origin, Place, PortEvent, Verdict};
use crate::mqtt::{
    Ack, Connect, Disconnect, Packet, PacketId, Properties, PropertiesBuf, Property, Publish, QoS,
    ReasonCode, RetainHandling, Subscribe, SubscribeFiltersBuf, SubscribeOptions, Unsubscribe,
    UnsubscribeFiltersBuf, Version, Will, decode,
};
use crate::settings::Limits;
use crate::store::{Batch, Op, Shelf, Token};

/// A core, a clock, and what came out.
pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Instant,
    pub(super) asked: Vec<(ConnectionId, String, Vec<u8>)>,
    /// What a store has; only of a world that has one.
    pub(super) shelf: Shelf,
    /// If set, batches wait here.
    pub(super) unpersisted: Option<Vec<(Token, Vec<Op>)>>,
    start: Instant,
    /// What the wall clock said then.
    pub(super) clock_ms: u64,
    pub(super) limits: Limits,
    /// How often the broker has started.
    lives: u64,
    pub(super) exchanged: Vec<(ConnectionId, String)>,
    closed: HashMap<ConnectionId, Fault>,
    /// What the log heard of.
    pub(super) denied: Vec<(ConnectionId, String)>,
    versions: HashMap<ConnectionId, Version>,
}

/// What a CONNECT says.
#[derive(Clone)]
pub(super) struct Hello {
    version: Version,
    is_mqisdp: bool,
    client_id: &'static str,
    clean_start: bool,
    keep_alive_s: u16,
    properties: PropertiesBuf,
    will: Option<(&'static str, &'static str, QoS, bool, PropertiesBuf)>,
    user: Option<(&'static str, &'static str)>,
}

pub(super) fn v5(client_id: &'static str) -> Hello {
    Hello {
        version: Version::V5,
        is_mqisdp: false,
        client_id,
        clean_start: true,
        keep_alive_s: 0,
        properties: PropertiesBuf::new(),
        will: None,
        user: None,
    }
}

/// MQTT 3.1.
pub(super) fn mqisdp(client_id: &'static str) -> Hello {
    Hello { is_mqisdp: true, ..v3(client_id) }
}

pub(super) fn v3(client_id: &'static str) -> Hello {
    Hello { version: Version::V3, ..v5(client_id) }
}

impl Hello {
    pub(super) fn resume(self) -> Hello {
        Hello { clean_start: false, ..self }
    }

    pub(super) fn keep_alive(self, keep_alive_s: u16) -> Hello {
        Hello { keep_alive_s, ..self }
    }

    pub(super) fn with(mut self, property: Property) -> Hello {
        self.properties.push(property);
        self
    }

    pub(super) fn expiry(self, seconds: u32) -> Hello {
        self.with(Property::SessionExpiryInterval(seconds))
    }

    pub(super) fn user(self, name: &'static str, password: &'static str) -> Hello {
        Hello { user: Some((name, password)), ..self }
    }

    pub(super) fn will(self, topic: &'static str, payload: &'static str, delay_s: u32) -> Hello {
        let mut properties = PropertiesBuf::new();
        if delay_s > 0 {
            properties.push(Property::WillDelayInterval(delay_s));
        }
        Hello { will: Some((topic, payload, QoS::AtLeastOnce, false, properties)), ..self }
    }

    /// The QoS, RETAIN and further properties of the will.
    pub(super) fn will_as(mut self, qos: u8, retain: bool, properties: &[Property]) -> Hello {
        if let Some((_, _, of_will, is_retained, list)) = &mut self.will {
            *of_will = QoS::from_u8(qos).expect("0 to 2");
            *is_retained = retain;
            properties.iter().for_each(|&property| list.push(property));
        }
        self
    }

    pub(super) fn is_v3(&self) -> bool {
        self.version == Version::V3
    }

    fn encode(&self) -> Vec<u8> {
        let will = self.will.as_ref().map(|(topic, payload, qos, retain, properties)| Will {
            qos: *qos,
            retain: *retain,
            properties: properties.as_properties(),
            topic,
            payload: payload.as_bytes(),
        });
        let connect = Connect {
            version: self.version,
            is_mqisdp: self.is_mqisdp,
            clean_start: self.clean_start,
            keep_alive_s: self.keep_alive_s,
            properties: self.properties.as_properties(),
            client_id: self.client_id,
            will,
            username: self.user.map(|(name, _)| name),
            password: self.user.map(|(_, password)| password.as_bytes()),
        };
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(self.version, &mut bytes);
        bytes
    }
}

impl World {
    pub(super) fn new() -> World {
        World::with_limits(Limits::default())
    }

    pub(super) fn with_limits(limits: Limits) -> World {
        World::one_of(Place::ALONE, limits, Instant::now())
    }

    /// One shard of several.
    pub(super) fn one_of(place: Place, limits: Limits, now: Instant) -> World {
        World {
            core: Core::one_of(place, limits, true, 7, now),
            now,
            asked: Vec::new(),
            shelf: Shelf::default(),
            exchanged: Vec::new(),
            unpersisted: None,
            start: now,
            clock_ms: 1_700_000_000_000,
            limits,
            lives: 0,
            closed: HashMap::new(),
            denied: Vec::new(),
            versions: HashMap::new(),
        }
    }

    /// A world with a store that is fast, unless `unpersisted` is set.
    pub(super) fn durable() -> World {
        World::new().with_store()
    }

    pub(super) fn with_store(mut self) -> World {
        self.core.use_store(1, self.now, self.wall_ms());
        self
    }

    fn wall_ms(&self) -> u64 {
        self.clock_ms + (self.now - self.start).as_millis() as u64
    }

    /// The broker dies, with all that waits to be written, and starts again after a while.
    pub(super) fn crash(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.unpersisted = self.unpersisted.as_ref().map(|_| Vec::new());
        (self.closed, self.versions) = (HashMap::new(), HashMap::new());
        let access = std::mem::take(&mut self.core.access);
        self.core = Core::new(self.limits, true, 7, self.now);
        self.core.set_access(access.settings.as_ref(), access.takes_tokens);
        self.lives += 1;
        self.core.use_store(self.lives * 1_000_000, self.now, self.wall_ms());
        let stored = self.shelf.read();
        for session in &stored.sessions {
            self.core.restore_session(session, self.now).expect("it was written by us");
        }
        for (topic, value) in &stored.retained {
            self.core.restore_retained(topic, value, self.now).expect("it was written by us");
        }
        self.settle();
    }

    /// The store takes what waits first.
    pub(super) fn persist_one(&mut self) -> bool {
        let waits = self.unpersisted.as_mut().filter(|waits| !waits.is_empty());
        let Some((token, ops)) = waits.map(|waits| waits.remove(0)) else { return false };
        self.shelf.apply(&ops);
        self.core.handle_persisted(token, self.now);
        self.settle();
        true
    }

    /// The store takes all that waits.
    pub(super) fn persist(&mut self) {
        while self.persist_one() {}
    }

    /// The store fails with what waits.
    pub(super) fn store_down(&mut self) {
        let lost: Vec<Op> =
            self.unpersisted.iter_mut().flatten().flat_map(|(_, ops)| std::mem::take(ops)).collect();
        self.unpersisted = self.unpersisted.as_ref().map(|_| Vec::new());
        self.core.handle_store_down(&lost, self.now);
        self.settle();
    }

    pub(super) fn store_up(&mut self) {
        self.core.handle_store_up();
        self.settle();
    }

    /// Connects, and checks nothing.
    pub(super) fn hello(&mut self, hello: &Hello) -> ConnectionId {
        self.hello_from(Origin::default(), hello)
    }

    /// Connects from somewhere.
    pub(super) fn hello_from(&mut self, origin: Origin, hello: &Hello) -> ConnectionId {
        let id = self.core.open_from(origin, self.now);
        self.versions.insert(id, hello.version);
        self.send_bytes(id, &hello.encode());
        id
    }

    /// Connects, and takes the CONNACK off.
    pub(super) fn connect(&mut self, hello: Hello) -> ConnectionId {
        let id = self.hello(&hello);
        let heard = self.heard(id);
        assert!(heard.first().is_some_and(|first| first.starts_with("CONNACK Success")), "{heard:?}");
        id
    }

    pub(super) fn raw(&mut self, version: Version) -> ConnectionId {
        let id = self.core.open(self.now);
        self.versions.insert(id, version);
        id
    }

    pub(super) fn send_bytes(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        let used = self.core.handle_bytes(id, bytes, self.now);
        self.settle();
        used
    }

    pub(super) fn send(&mut self, id: ConnectionId, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(self.versions[&id], &mut bytes);
        self.send_bytes(id, &bytes);
    }

    pub(super) fn subscribe(&mut self, id: ConnectionId, filter: &str, qos: u8) {
        let options = SubscribeOptions::at(QoS::from_u8(qos).expect("0 to 2"));
        self.subscribe_with(id, filter, options, None);
        let heard = self.heard(id);
        assert_eq!(heard.first().map(String::as_str), Some(format!("SUBACK [{qos}]").as_str()), "{heard:?}");
        assert_eq!(heard.len(), 1, "it got more than its SUBACK: {heard:?}");
    }

    pub(super) fn subscribe_with(
        &mut self,
        id: ConnectionId,
        filter: &str,
        options: SubscribeOptions,
        identifier: Option<u32>,
    ) {
        let mut filters = SubscribeFiltersBuf::default();
        filters.push(filter, options).expect("the filter is valid");
        let mut properties = PropertiesBuf::new();
        identifier.into_iter().for_each(|id| properties.push(Property::SubscriptionIdentifier(id)));
        let packet_id = PacketId::MIN;
        let properties = properties.as_properties();
        self.send(id, &Packet::Subscribe(Subscribe { packet_id, properties, filters: filters.as_filters() }));
    }

    pub(super) fn unsubscribe(&mut self, id: ConnectionId, filter: &str) {
        let mut filters = UnsubscribeFiltersBuf::default();
        filters.push(filter).expect("the filter is valid");
        let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
        self.send(
            id,
            &Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: filters.as_filters() }),
        );
    }

    /// Publishes with packet id 1, and says nothing about the answer.
    pub(super) fn publish(&mut self, id: ConnectionId, topic: &str, qos: u8, payload: &str) {
        self.publish_with(id, topic, qos, payload, false, &[]);
    }

    pub(super) fn publish_with(
        &mut self,
        id: ConnectionId,
        topic: &str,
        qos: u8,
        payload: &str,
        retain: bool,
        properties: &[Property],
    ) {
        let properties: PropertiesBuf = properties.iter().copied().collect();
        let properties = properties.as_properties();
        let publish = Publish { retain, properties, ..message(topic, qos, payload) };
        self.send(id, &Packet::Publish(publish));
    }

    pub(super) fn publish_as(
        &mut self,
        id: ConnectionId,
        packet_id: u16,
        topic: &str,
        qos: u8,
        payload: &str,
    ) {
        self.publish_kept(id, packet_id, topic, qos, payload, false);
    }

    /// The same, retained or not.
    pub(super) fn publish_kept(
        &mut self,
        id: ConnectionId,
        packet_id: u16,
        topic: &str,
        qos: u8,
        payload: &str,
        retain: bool,
    ) {
        let packet_id = Some(packet(packet_id));
        let publish = Publish { packet_id, retain, ..message(topic, qos, payload) };
        self.send(id, &Packet::Publish(publish));
    }

    pub(super) fn puback(&mut self, id: ConnectionId, packet_id: u16) {
        self.send(id, &Packet::PubAck(Ack::success(packet(packet_id))));
    }

    pub(super) fn pubrec(&mut self, id: ConnectionId, packet_id: u16) {
        self.send(id, &Packet::PubRec(Ack::success(packet(packet_id))));
    }

    pub(super) fn pubrel(&mut self, id: ConnectionId, packet_id: u16) {
        self.send(id, &Packet::PubRel(Ack::success(packet(packet_id))));
    }

    pub(super) fn pubcomp(&mut self, id: ConnectionId, packet_id: u16) {
        self.send(id, &Packet::PubComp(Ack::success(packet(packet_id))));
    }

    pub(super) fn disconnect(&mut self, id: ConnectionId, reason: ReasonCode) {
        self.send(id, &Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY }));
        self.lose(id);
    }

    /// The socket breaks.
    pub(super) fn lose(&mut self, id: ConnectionId) {
        self.core.handle_closed(id, self.now);
        self.settle();
    }

    pub(super) fn verdict(&mut self, id: ConnectionId, verdict: Verdict) {
        self.core.handle_verdict(id, verdict, self.now);
        self.settle();
    }

    /// Lets time pass, timer by timer.
    pub(super) fn run_for(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while let Some(next) = self.core.poll_timeout().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.core.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
        self.core.set_clock(self.now, self.wall_ms());
    }

    /// What a client got since the last time, one line a packet.
    pub(super) fn heard(&mut self, id: ConnectionId) -> Vec<String> {
        let bytes = self.heard_bytes(id);
        render_all(&bytes, self.versions[&id])
    }

    /// As [`World::heard`], with the properties of packets that are no PUBLISH.
    pub(super) fn heard_in_full(&mut self, id: ConnectionId) -> Vec<String> {
        let bytes = self.heard_bytes(id);
        render_each(&bytes, self.versions[&id], |packet| render(packet) + &render_properties(packet))
    }

    /// The bytes that a client got since the last time.
    pub(super) fn heard_bytes(&mut self, id: ConnectionId) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = self.core.outgoing(id).to_vec();
            if bytes.is_empty() {
                return all;
            }
            self.core.handle_written(id, bytes.len(), self.now);
            self.settle();
            all.extend(bytes);
        }
    }

    pub(super) fn closed(&self, id: ConnectionId) -> Option<Fault> {
        self.closed.get(&id).copied()
    }

    pub(super) fn port_events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.core.poll_port_event()).map(|event| render_event(&event)).collect()
    }

    pub(super) fn settle(&mut self) {
        loop {
            while self.core.has_work() {
                self.core.handle_work(self.now);
            }
            check_levels(&self.core);
            let Some(effect) = self.core.poll_effect() else { return };
            match effect {
                Effect::Authenticate { connection, username, password } => {
                    self.asked.push((connection, username.to_string(), password.to_vec()));
                }
                Effect::Exchange { connection, method, context, data } => {
                    let data = String::from_utf8_lossy(&data).into_owned();
                    self.exchanged.push((connection, format!("{method} [{context}] {data}")));
                }
                Effect::Close { connection, fault } => {
                    self.closed.insert(connection, fault);
                }
                Effect::Denied { connection, deed, at } => {
                    self.denied.push((connection, format!("{deed:?} {at}")));
                }
                Effect::Resume | Effect::Read { .. } => {}
                Effect::Persist(token, Batch { ops, .. }) => match &mut self.unpersisted {
                    Some(waits) => waits.push((token, ops)),
                    None => {
                        self.shelf.apply(&ops);
                        self.core.handle_persisted(token, self.now);
                    }
                },
            }
        }
    }
}

/// With packet id 1, if it has one.
fn message<'a>(topic: &'a str, qos: u8, payload: &'a str) -> Publish<'a> {
    Publish {
        dup: false,
        qos: QoS::from_u8(qos).expect("0 to 2"),
        retain: false,
        topic,
        packet_id: (qos > 0).then_some(PacketId::MIN),
        properties: Properties::EMPTY,
        payload: payload.as_bytes(),
    }
}

pub(super) fn packet(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}

pub(super) fn options(qos: u8) -> SubscribeOptions {
    SubscribeOptions::at(QoS::from_u8(qos).expect("0 to 2"))
}

pub(super) fn handling(qos: u8, retain_handling: RetainHandling) -> SubscribeOptions {
    SubscribeOptions { retain_handling, ..options(qos) }
}

/// Packets as lines.
pub(in crate::broker) fn render_all(bytes: &[u8], version: Version) -> Vec<String> {
    render_each(bytes, version, render)
}

fn render_each(mut bytes: &[u8], version: Version, render: impl Fn(&Packet) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let decoded = decode(bytes, version, &crate::mqtt::Limits::default());
        let (packet, length) = decoded.expect("the core sends valid packets").expect("and whole ones");
        lines.push(render(&packet));
        bytes = &bytes[length..];
    }
    lines
}

/// The properties of a packet that is no PUBLISH, each after a space.
fn render_properties(packet: &Packet) -> String {
    let properties = match packet {
        Packet::ConnAck(ack) => ack.properties,
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.properties
        }
        Packet::SubAck(ack) | Packet::UnsubAck(ack) => ack.properties,
        Packet::Disconnect(disconnect) => disconnect.properties,
        Packet::Auth(auth) => auth.properties,
        _ => Properties::EMPTY,
    };
    properties.iter().map(|property| format!(" {property:?}")).collect()
}

fn render(packet: &Packet) -> String {
    match packet {
        Packet::ConnAck(ack) => {
            format!("CONNACK {:?}{}", ack.reason, if ack.session_present { " present" } else { "" })
        }
        Packet::Publish(publish) => render_publish(publish),
        Packet::PubAck(ack) => render_ack("PUBACK", ack),
        Packet::PubRec(ack) => render_ack("PUBREC", ack),
        Packet::PubRel(ack) => render_ack("PUBREL", ack),
        Packet::PubComp(ack) => render_ack("PUBCOMP", ack),
        Packet::SubAck(ack) => format!("SUBACK {:?}", ack.reasons),
        Packet::UnsubAck(ack) => format!("UNSUBACK {:?}", ack.reasons),
        Packet::Disconnect(disconnect) => format!("DISCONNECT {:?}", disconnect.reason),
        other => format!("{other:?}"),
    }
}

fn render_ack(name: &str, ack: &Ack) -> String {
    match ack.reason {
        ReasonCode::Success => format!("{name} {}", ack.packet_id),
        reason => format!("{name} {} {reason:?}", ack.packet_id),
    }
}

/// `topic=payload`, then whatever is not the default.
fn render_publish(publish: &Publish) -> String {
    let mut line = format!("{}={}", publish.topic, String::from_utf8_lossy(publish.payload));
    if let Some(id) = publish.packet_id {
        line += &format!(" q{} #{id}", publish.qos as u8);
    }
    line += if publish.dup { " dup" } else { "" };
    line += if publish.retain { " retain" } else { "" };
    publish.properties.iter().for_each(|property| line += &format!(" {property:?}"));
    line
}

fn render_event(event: &PortEvent) -> String {
    match event {
        PortEvent::Interest { interest, wanted } => {
            let group = interest.group.as_ref().map(|group| format!("{group}:")).unwrap_or_default();
            format!("{}{group}{}", if *wanted { "+" } else { "-" }, interest.filter.as_str())
        }
        PortEvent::Settled { peer, number } => format!("settled {} {number}", peer.0),
        PortEvent::Forward { peer, message } => {
            let payload = String::from_utf8_lossy(&message.payload);
            let retain = if message.retain { " retain" } else { "" };
            format!("->{} {}={payload} q{}{retain}", peer.0, message.topic, message.qos as u8)
        }
    }
}
