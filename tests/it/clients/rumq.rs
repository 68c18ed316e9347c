//! rumqttc, the Rust client, in both its versions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rumqttc::v5;

use super::{Control, Event, Heard, Kind, Post, Properties, Subscriber, Who};

/// rumqttc, in this process.
pub(crate) struct Rumqttc;

/// The largest packet that rumqttc should take: a payload of 1 MiB and its topic.
const PACKET_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Requests that wait in rumqttc.
const QUEUE: usize = 100;

impl Kind for Rumqttc {
    fn name(&self) -> &'static str {
        "rumqttc"
    }

    fn open(&self, who: &Who) -> Subscriber {
        let (sender, events) = channel();
        let control: Box<dyn Control> = if who.v5 {
            let (client, connection) = v5::Client::new(options_v5(who), QUEUE);
            std::thread::spawn(move || forward_v5(connection, &sender));
            Box::new(V5(client))
        } else {
            let (client, connection) = rumqttc::Client::new(options_v3(who), QUEUE);
            std::thread::spawn(move || forward_v3(connection, &sender));
            Box::new(V3(client))
        };
        Subscriber::new(events, control)
    }

    fn publish(&self, who: &Who, posts: &[Post]) {
        if who.v5 { publish_v5(who, posts) } else { publish_v3(who, posts) }
    }
}

/// The given id, or one of its own: a second connection of a name would take over from the first.
fn client_id(who: &Who) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    match who.client_id.as_str() {
        "" => format!("rumqttc-{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        given => given.to_owned(),
    }
}

// MQTT 5.0

struct V5(v5::Client);

impl Control for V5 {
    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.0.subscribe(filter, qos_v5(qos)).expect("rumqttc takes requests");
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.0.unsubscribe(filter).expect("rumqttc takes requests");
    }
}

impl Drop for V5 {
    fn drop(&mut self) {
        let _ = self.0.try_disconnect();
    }
}

fn options_v5(who: &Who) -> v5::MqttOptions {
    assert!(who.ca.is_none(), "rumqttc is built without TLS here");
    let mut options = v5::MqttOptions::new(client_id(who), "127.0.0.1", who.port);
    options.set_max_packet_size(Some(u32::try_from(PACKET_BYTES_MAX).expect("small enough")));
    options.set_keep_alive(Duration::from_secs(30));
    if let Some((user, password)) = &who.login {
        options.set_credentials(user, password);
    }
    if let Some(will) = &who.will {
        let (topic, payload) = (will.topic.clone(), will.payload.clone());
        options.set_last_will(v5::mqttbytes::v5::LastWill::new(
            topic,
            payload,
            qos_v5(will.qos),
            will.retain,
            None,
        ));
    }
    options
}

fn publish_v5(who: &Who, posts: &[Post]) {
    let (client, mut connection) = v5::Client::new(options_v5(who), posts.len() + 1);
    for post in posts {
        let properties = to_v5(&post.properties);
        let published = client.publish_with_properties(
            &post.topic,
            qos_v5(post.qos),
            post.retain,
            post.payload.clone(),
            properties,
        );
        published.expect("rumqttc takes requests");
    }
    let mut open = posts.len();
    for event in connection.iter() {
        use v5::mqttbytes::v5::Packet;
        match event.unwrap_or_else(|error| panic!("rumqttc: {error}")) {
            v5::Event::Outgoing(rumqttc::Outgoing::Publish(0)) => open -= 1,
            v5::Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => open -= 1,
            v5::Event::Outgoing(rumqttc::Outgoing::Disconnect) => return,
            _ => {}
        }
        if open == 0 {
            let _ = client.try_disconnect();
        }
    }
}

fn forward_v5(mut connection: v5::Connection, events: &Sender<Event>) {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    for event in connection.iter() {
        let event = match event {
            Ok(v5::Event::Incoming(Packet::ConnAck(_))) => Event::Connected(0),
            Ok(v5::Event::Incoming(Packet::SubAck(ack))) => Event::Subscribed(match ack.return_codes[0] {
                SubscribeReasonCode::Success(qos) => qos as u8,
                SubscribeReasonCode::NotAuthorized => 0x87,
                _ => 0x80,
            }),
            Ok(v5::Event::Incoming(Packet::UnsubAck(_))) => Event::Unsubscribed,
            Ok(v5::Event::Incoming(Packet::Publish(publish))) => Event::Message(heard_v5(&publish)),
            Ok(_) => continue,
            Err(v5::ConnectionError::ConnectionRefused(code)) => Event::Connected(refused_v5(code)),
            Err(error) => Event::Gone(error.to_string()),
        };
        let over = matches!(event, Event::Gone(_) | Event::Connected(1..));
        // Going on after an error would reconnect.
        if events.send(event).is_err() || over {
            return;
        }
    }
}

fn refused_v5(code: v5::mqttbytes::v5::ConnectReturnCode) -> u8 {
    use v5::mqttbytes::v5::ConnectReturnCode;
    match code {
        ConnectReturnCode::BadUserNamePassword => 0x86,
        ConnectReturnCode::NotAuthorized => 0x87,
        _ => 0x80,
    }
}

fn qos_v5(qos: u8) -> v5::mqttbytes::QoS {
    v5::mqttbytes::qos(qos).expect("0, 1 or 2")
}

fn to_v5(given: &Properties) -> v5::mqttbytes::v5::PublishProperties {
    v5::mqttbytes::v5::PublishProperties {
        payload_format_indicator: given.payload_format,
        message_expiry_interval: given.expiry_s,
        response_topic: given.response_topic.clone(),
        correlation_data: given.correlation_data.clone().map(Into::into),
        user_properties: given.user.clone(),
        content_type: given.content_type.clone(),
        ..Default::default()
    }
}

fn heard_v5(publish: &v5::mqttbytes::v5::Publish) -> Heard {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the tests publish text");
    let given = publish.properties.clone().unwrap_or_default();
    Heard {
        topic: text(&publish.topic),
        payload: text(&publish.payload),
        qos: publish.qos as u8,
        retain: publish.retain,
        properties: Properties {
            user: given.user_properties,
            content_type: given.content_type,
            response_topic: given.response_topic,
            correlation_data: given.correlation_data.map(|bytes| text(&bytes)),
            expiry_s: given.message_expiry_interval,
            payload_format: given.payload_format_indicator,
        },
    }
}

// MQTT 3.1.1

struct V3(rumqttc::Client);

impl Control for V3 {
    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.0.subscribe(filter, qos_v3(qos)).expect("rumqttc takes requests");
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.0.unsubscribe(filter).expect("rumqttc takes requests");
    }
}

impl Drop for V3 {
    fn drop(&mut self) {
        let _ = self.0.try_disconnect();
    }
}

fn options_v3(who: &Who) -> rumqttc::MqttOptions {
    assert!(who.ca.is_none(), "rumqttc is built without TLS here");
    let mut options = rumqttc::MqttOptions::new(client_id(who), "127.0.0.1", who.port);
    options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
    options.set_keep_alive(Duration::from_secs(30));
    if let Some((user, password)) = &who.login {
        options.set_credentials(user, password);
    }
    if let Some(will) = &who.will {
        let (topic, payload) = (will.topic.clone(), will.payload.clone());
        options.set_last_will(rumqttc::LastWill::new(topic, payload, qos_v3(will.qos), will.retain));
    }
    options
}

fn publish_v3(who: &Who, posts: &[Post]) {
    let (client, mut connection) = rumqttc::Client::new(options_v3(who), posts.len() + 1);
    for post in posts {
        let published = client.publish(&post.topic, qos_v3(post.qos), post.retain, post.payload.clone());
        published.expect("rumqttc takes requests");
    }
    let mut open = posts.len();
    for event in connection.iter() {
        use rumqttc::{Outgoing, Packet};
        match event.unwrap_or_else(|error| panic!("rumqttc: {error}")) {
            rumqttc::Event::Outgoing(Outgoing::Publish(0)) => open -= 1,
            rumqttc::Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => open -= 1,
            rumqttc::Event::Outgoing(Outgoing::Disconnect) => return,
            _ => {}
        }
        if open == 0 {
            let _ = client.try_disconnect();
        }
    }
}

fn forward_v3(mut connection: rumqttc::Connection, events: &Sender<Event>) {
    use rumqttc::{Packet, SubscribeReasonCode};
    for event in connection.iter() {
        let event = match event {
            Ok(rumqttc::Event::Incoming(Packet::ConnAck(_))) => Event::Connected(0),
            Ok(rumqttc::Event::Incoming(Packet::SubAck(ack))) => {
                Event::Subscribed(match ack.return_codes[0] {
                    SubscribeReasonCode::Success(qos) => qos as u8,
                    SubscribeReasonCode::Failure => 0x80,
                })
            }
            Ok(rumqttc::Event::Incoming(Packet::UnsubAck(_))) => Event::Unsubscribed,
            Ok(rumqttc::Event::Incoming(Packet::Publish(publish))) => Event::Message(heard_v3(&publish)),
            Ok(_) => continue,
            Err(rumqttc::ConnectionError::ConnectionRefused(code)) => Event::Connected(code as u8),
            Err(error) => Event::Gone(error.to_string()),
        };
        let over = matches!(event, Event::Gone(_) | Event::Connected(1..));
        // Going on after an error would reconnect.
        if events.send(event).is_err() || over {
            return;
        }
    }
}

fn qos_v3(qos: u8) -> rumqttc::QoS {
    rumqttc::qos(qos).expect("0, 1 or 2")
}

fn heard_v3(publish: &rumqttc::Publish) -> Heard {
    Heard {
        topic: publish.topic.clone(),
        payload: String::from_utf8(publish.payload.to_vec()).expect("the tests publish text"),
        qos: publish.qos as u8,
        retain: publish.retain,
        properties: Properties::default(),
    }
}
