//! One MQTT session, the same for both versions: requests in, events out.
//!
//! A task of its own drives rumqttc and hands on what matters through a bounded channel; a slow reader slows the
//! broker down, nothing piles up here.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5 as v5packet;
use tokio::sync::mpsc;

use super::args::{ConnectArgs, Target, Version};
use super::tls::Bridge;
use crate::cli::Failure;

/// Requests and events that may wait.
const CHANNEL_MAX: usize = 64;
const RECONNECT_S_MAX: u64 = 10;

/// What a session is made with, besides where it goes.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Go on with the session that the broker has of this client id.
    pub(super) persistent: bool,
    /// MQTT 5: how long the broker keeps the session afterwards.
    pub(super) session_expiry_s: u32,
    /// Connect again when a connection is lost.
    pub(super) reconnect: bool,
    /// What the broker publishes when this client dies.
    pub(super) will: Option<Outgoing>,
}

/// A message to send.
#[derive(Clone, Debug, Default)]
pub(super) struct Outgoing {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) properties: v5packet::PublishProperties,
}

/// A message that came.
#[derive(Clone, Debug, Default)]
pub(super) struct Incoming {
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) properties: v5packet::PublishProperties,
}

#[derive(Debug)]
pub(super) enum Event {
    Connected,
    Message(Incoming),
    /// One answer per filter: the granted QoS or the reason.
    Subscribed(Vec<Result<u8, String>>),
    /// A message is done: at QoS 0 written, else acknowledged.
    Published(Result<(), String>),
    /// DISCONNECT is written.
    Disconnected,
    /// The connection is lost and will be tried again.
    Lost(String),
}

pub(super) struct Session {
    client: Client,
    events: mpsc::Receiver<Result<Event, String>>,
    driver: tokio::task::JoinHandle<Option<Bridge>>,
    address: String,
}

enum Client {
    V5(v5::AsyncClient),
    V3(rumqttc::AsyncClient),
}

enum Loop {
    V5(Box<v5::EventLoop>),
    V3(Box<rumqttc::EventLoop>),
}

impl Session {
    /// Begins to connect; the first event says whether it came to that.
    pub(super) fn start(args: &ConnectArgs, wishes: &Wishes) -> Result<Self, Failure> {
        let target = args.target()?;
        let bridge = match &target.server_name {
            Some(name) => Some(Bridge::start(args, &target, name)?),
            None => None,
        };
        let id = args.id.clone().unwrap_or_else(made_up_id);
        let (client, eventloop) = match args.mqtt_version {
            Version::V5 => open_v5(id, args, &target, wishes, bridge.as_ref()),
            Version::V3 => open_v3(id, args, &target, wishes, bridge.as_ref()),
        };
        let (sender, events) = mpsc::channel(CHANNEL_MAX);
        let driver = tokio::spawn(drive(eventloop, sender, bridge, wishes.reconnect));
        Ok(Self { client, events, driver, address: format!("{}:{}", target.host, target.port) })
    }

    /// The next event.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn next(&mut self) -> Result<Event, Failure> {
        match self.events.recv().await {
            Some(Ok(event)) => Ok(event),
            Some(Err(cause)) => Err(Failure::new(format!("failed to talk to {}: {cause}", self.address))),
            None => {
                Err(Failure::new(format!("failed to talk to {}: the connection is closed", self.address)))
            }
        }
    }

    /// Takes a message when there is room.
    ///
    /// # Cancel safety
    /// Safe: a message is taken whole or not at all.
    pub(super) async fn publish(&self, message: Outgoing) -> Result<(), Failure> {
        let Outgoing { topic, payload, qos, retain, properties } = message;
        let taken = match &self.client {
            Client::V5(client) => {
                let qos = qos_v5(qos);
                client.publish_with_properties(topic, qos, retain, payload, properties).await.is_ok()
            }
            Client::V3(client) => client.publish_bytes(topic, qos_v3(qos), retain, payload).await.is_ok(),
        };
        if taken { Ok(()) } else { Err(closed()) }
    }

    pub(super) async fn subscribe(&self, filters: &[v5packet::Filter]) -> Result<(), Failure> {
        let taken = match &self.client {
            Client::V5(client) => client.subscribe_many(filters.iter().cloned()).await.is_ok(),
            Client::V3(client) => {
                let filters = filters.iter().map(|filter| {
                    rumqttc::SubscribeFilter::new(filter.path.clone(), qos_v3(filter.qos as u8))
                });
                client.subscribe_many(filters).await.is_ok()
            }
        };
        if taken { Ok(()) } else { Err(closed()) }
    }

    /// Says DISCONNECT and waits until everything is written.
    pub(super) async fn finish(mut self) -> Result<(), Failure> {
        let asked = match &self.client {
            Client::V5(client) => client.try_disconnect().is_ok(),
            Client::V3(client) => client.try_disconnect().is_ok(),
        };
        if asked {
            let goodbye = async { while !matches!(self.next().await, Ok(Event::Disconnected) | Err(_)) {} };
            // A broker that does not read any more must not hold us.
            drop(tokio::time::timeout(Duration::from_secs(5), goodbye).await);
        }
        drop(self.events);
        if let Ok(Some(bridge)) = self.driver.await {
            bridge.finish().await;
        }
        Ok(())
    }
}

fn closed() -> Failure {
    Failure::new("failed to send: the connection is closed")
}

fn made_up_id() -> String {
    let mut bytes = [0; 6];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("the system gives random numbers");
    bytes.iter().fold("mqlink-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

fn open_v5(
    id: String,
    args: &ConnectArgs,
    target: &Target,
    wishes: &Wishes,
    bridge: Option<&Bridge>,
) -> (Client, Loop) {
    let mut options = match bridge {
        Some(bridge) => v5::MqttOptions::new(id, bridge.path().to_string_lossy(), target.port),
        None => v5::MqttOptions::new(id, bracketed(&target.host), target.port),
    };
    if bridge.is_some() {
        options.set_transport(rumqttc::Transport::Unix);
    }
    options.set_keep_alive(Duration::from_secs(args.keep_alive.into()));
    options.set_clean_start(!wishes.persistent);
    options.set_connection_timeout(target.connect_timeout.as_secs());
    options.set_max_packet_size(Some(args.packet_max));
    options.set_network_options(network(target));
    options.set_session_expiry_interval(Some(wishes.session_expiry_s));
    if let Some((user, password)) = &target.login {
        options.set_credentials(user, password);
    }
    if let Some(will) = &wishes.will {
        let (qos, payload) = (qos_v5(will.qos), will.payload.clone());
        options.set_last_will(v5packet::LastWill::new(&will.topic, payload, qos, will.retain, None));
    }
    let (client, eventloop) = v5::AsyncClient::new(options, CHANNEL_MAX);
    (Client::V5(client), Loop::V5(Box::new(eventloop)))
}

fn open_v3(
    id: String,
    args: &ConnectArgs,
    target: &Target,
    wishes: &Wishes,
    bridge: Option<&Bridge>,
) -> (Client, Loop) {
    let mut options = match bridge {
        Some(bridge) => rumqttc::MqttOptions::new(id, bridge.path().to_string_lossy(), target.port),
        None => rumqttc::MqttOptions::new(id, bracketed(&target.host), target.port),
    };
    if bridge.is_some() {
        options.set_transport(rumqttc::Transport::Unix);
    }
    options.set_keep_alive(Duration::from_secs(args.keep_alive.into()));
    options.set_clean_session(!wishes.persistent);
    options.set_max_packet_size(args.packet_max as usize, args.packet_max as usize);
    if let Some((user, password)) = &target.login {
        options.set_credentials(user, password);
    }
    if let Some(will) = &wishes.will {
        let qos = qos_v3(will.qos);
        options.set_last_will(rumqttc::LastWill::new(&will.topic, will.payload.clone(), qos, will.retain));
    }
    let (client, mut eventloop) = rumqttc::AsyncClient::new(options, CHANNEL_MAX);
    eventloop.set_network_options(network(target));
    (Client::V3(client), Loop::V3(Box::new(eventloop)))
}

fn network(target: &Target) -> rumqttc::NetworkOptions {
    let mut options = rumqttc::NetworkOptions::new();
    options.set_connection_timeout(target.connect_timeout.as_secs());
    // One write per message, none of which may wait for the acknowledgement of the one before.
    options.set_tcp_nodelay(true);
    options
}

/// rumqttc joins host and port with a colon.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Polls until the reader is gone, or the connection is lost for good.
async fn drive(
    mut eventloop: Loop,
    events: mpsc::Sender<Result<Event, String>>,
    bridge: Option<Bridge>,
    reconnect: bool,
) -> Option<Bridge> {
    let mut was_connected = false;
    let mut pause_s = 1;
    loop {
        let event = tokio::select! {
            event = eventloop.poll() => event,
            () = events.closed() => return bridge,
        };
        let event = match event {
            Ok(Some(event)) => Ok(event),
            Ok(None) => continue,
            Err(cause) => {
                let cause = bridge.as_ref().and_then(Bridge::failure).unwrap_or(cause);
                if was_connected && reconnect { Ok(Event::Lost(cause)) } else { Err(cause) }
            }
        };
        let (lost, failed) = (matches!(event, Ok(Event::Lost(_))), event.is_err());
        if matches!(event, Ok(Event::Connected)) {
            (was_connected, pause_s) = (true, 1);
        }
        if events.send(event).await.is_err() || failed {
            return bridge;
        }
        if lost {
            tokio::time::sleep(Duration::from_secs(pause_s)).await;
            pause_s = (pause_s * 2).min(RECONNECT_S_MAX);
        }
    }
}

impl Loop {
    async fn poll(&mut self) -> Result<Option<Event>, String> {
        match self {
            Loop::V5(eventloop) => match eventloop.poll().await {
                Ok(event) => Ok(from_v5(event)),
                Err(error) => Err(explain_v5(&error)),
            },
            Loop::V3(eventloop) => match eventloop.poll().await {
                Ok(event) => Ok(from_v3(event)),
                Err(error) => Err(explain_v3(&error)),
            },
        }
    }
}

fn explain_v5(error: &v5::ConnectionError) -> String {
    use v5::ConnectionError::{ConnectionRefused, Io, MqttState, Timeout};
    match error {
        ConnectionRefused(reason) => refused(&format!("{reason:?}")),
        Io(error) => error.to_string(),
        Timeout(_) => "nobody answers in time".to_owned(),
        MqttState(v5::StateError::ServerDisconnect { reason_code, reason_string }) => {
            let text = reason_string.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
            format!("the broker disconnects: {reason_code:?}{text}")
        }
        MqttState(v5::StateError::Deserialization(v5::mqttbytes::Error::OutgoingPacketTooLarge {
            pkt_size,
            max,
        })) => format!("the packet has {pkt_size} bytes, the broker takes {max}; send less"),
        MqttState(v5::StateError::Deserialization(_)) => no_mqtt(),
        MqttState(v5::StateError::ConnectionAborted) => "the broker closed the connection".to_owned(),
        other => other.to_string(),
    }
}

fn explain_v3(error: &rumqttc::ConnectionError) -> String {
    use rumqttc::ConnectionError::{ConnectionRefused, Io, MqttState, NetworkTimeout};
    match error {
        ConnectionRefused(reason) => refused(&format!("{reason:?}")),
        Io(error) => error.to_string(),
        NetworkTimeout => "nobody answers in time".to_owned(),
        MqttState(rumqttc::StateError::Deserialization(_)) => no_mqtt(),
        MqttState(rumqttc::StateError::ConnectionAborted) => "the broker closed the connection".to_owned(),
        other => other.to_string(),
    }
}

fn no_mqtt() -> String {
    "what answers is not MQTT; if the port speaks TLS, add --cafile or --tls".to_owned()
}

fn refused(reason: &str) -> String {
    let advice = match reason {
        "BadUserNamePassword" | "NotAuthorized" => "; check --user and the password",
        "UnsupportedProtocolVersion" | "RefusedProtocolVersion" => "; try --mqtt-version 3.1.1",
        _ => "",
    };
    format!("the broker refuses: {reason}{advice}")
}

fn from_v5(event: v5::Event) -> Option<Event> {
    use v5::mqttbytes::v5::{Packet, PubAckReason, PubCompReason, PubRecReason, SubscribeReasonCode};
    let packet = match event {
        v5::Event::Outgoing(outgoing) => return from_outgoing(&outgoing),
        v5::Event::Incoming(packet) => packet,
    };
    Some(match packet {
        Packet::ConnAck(_) => Event::Connected,
        Packet::Publish(publish) => Event::Message(Incoming {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos as u8,
            retain: publish.retain,
            properties: publish.properties.unwrap_or_default(),
        }),
        Packet::SubAck(ack) => Event::Subscribed(
            ack.return_codes
                .iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(qos) => Ok(*qos as u8),
                    other => Err(format!("{other:?}")),
                })
                .collect(),
        ),
        Packet::PubAck(ack) => Event::Published(match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
            other => Err(format!("{other:?}")),
        }),
        Packet::PubRec(ack) => match ack.reason {
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers => return None,
            other => Event::Published(Err(format!("{other:?}"))),
        },
        Packet::PubComp(ack) => Event::Published(match ack.reason {
            PubCompReason::Success => Ok(()),
            other => Err(format!("{other:?}")),
        }),
        _ => return None,
    })
}

fn from_v3(event: rumqttc::Event) -> Option<Event> {
    use rumqttc::{Packet, SubscribeReasonCode};
    let packet = match event {
        rumqttc::Event::Outgoing(outgoing) => return from_outgoing(&outgoing),
        rumqttc::Event::Incoming(packet) => packet,
    };
    Some(match packet {
        Packet::ConnAck(_) => Event::Connected,
        Packet::Publish(publish) => Event::Message(Incoming {
            topic: publish.topic.into_bytes().into(),
            payload: publish.payload,
            qos: publish.qos as u8,
            retain: publish.retain,
            properties: v5packet::PublishProperties::default(),
        }),
        Packet::SubAck(ack) => Event::Subscribed(
            ack.return_codes
                .iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(qos) => Ok(*qos as u8),
                    SubscribeReasonCode::Failure => Err("Failure".to_owned()),
                })
                .collect(),
        ),
        Packet::PubAck(_) | Packet::PubComp(_) => Event::Published(Ok(())),
        _ => return None,
    })
}

fn from_outgoing(outgoing: &rumqttc::Outgoing) -> Option<Event> {
    match outgoing {
        rumqttc::Outgoing::Publish(0) => Some(Event::Published(Ok(()))),
        rumqttc::Outgoing::Disconnect => Some(Event::Disconnected),
        _ => None,
    }
}

pub(super) fn qos_v5(qos: u8) -> v5::mqttbytes::QoS {
    match qos {
        0 => v5::mqttbytes::QoS::AtMostOnce,
        1 => v5::mqttbytes::QoS::AtLeastOnce,
        _ => v5::mqttbytes::QoS::ExactlyOnce,
    }
}

fn qos_v3(qos: u8) -> rumqttc::QoS {
    match qos {
        0 => rumqttc::QoS::AtMostOnce,
        1 => rumqttc::QoS::AtLeastOnce,
        _ => rumqttc::QoS::ExactlyOnce,
    }
}
