//! One connection, whichever version of the protocol it speaks. An event loop runs as a task and says what comes.

use std::time::Duration;

use rumqttc::{QoS, TlsConfiguration, Transport, v5};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub const WAIT: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
pub struct Options {
    pub keep: bool,
    pub via: &'static str,
    pub will: Option<(String, &'static str)>,
    pub password: Option<&'static str>,
    pub receive_maximum: Option<u16>,
    pub alias_maximum: Option<u16>,
    pub hold: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    pub alias: Option<u16>,
    pub user: Vec<(String, String)>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation: Option<Vec<u8>>,
}

pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub properties: Properties,
    /// What has to be acknowledged, when that was asked for.
    ack: Option<v5::mqttbytes::v5::Publish>,
}

impl Message {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

enum Answer {
    Connected(bool),
    /// What the library makes of the reason code.
    Granted(String),
    /// Likewise, for a publish.
    Published(String),
}

enum Client {
    Four(rumqttc::AsyncClient),
    Five(v5::AsyncClient),
}

pub struct Wire {
    client: Client,
    task: JoinHandle<()>,
    messages: mpsc::UnboundedReceiver<Message>,
    answers: mpsc::UnboundedReceiver<Result<Answer, String>>,
    pub present: bool,
}

struct Ears {
    messages: mpsc::UnboundedSender<Message>,
    answers: mpsc::UnboundedSender<Result<Answer, String>>,
}

fn env(name: &str) -> String {
    std::env::var(name).expect("run.py sets it")
}

/// Address (a URL for WebSocket), port and transport.
fn server(via: &str) -> (String, u16, Transport) {
    let port = |name| env(name).parse().expect("a port");
    let tls = || TlsConfiguration::Simple {
        ca: std::fs::read(env("MQ_CA")).expect("the CA"),
        alpn: None,
        client_auth: None,
    };
    let url = |scheme, name| format!("{scheme}://{}:{}/mqtt", env("MQ_HOST"), env(name));
    match via {
        "tls" => (env("MQ_HOST"), port("MQ_TLS_PORT"), Transport::Tls(tls())),
        "ws" => (url("ws", "MQ_WS_PORT"), port("MQ_WS_PORT"), Transport::Ws),
        "wss" => (url("wss", "MQ_WSS_PORT"), port("MQ_WSS_PORT"), Transport::Wss(tls())),
        _ => (env("MQ_HOST"), port("MQ_PORT"), Transport::Tcp),
    }
}

fn level(qos: u8) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)]
}

fn level5(qos: u8) -> v5::mqttbytes::QoS {
    use v5::mqttbytes::QoS;
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)]
}

impl Wire {
    pub async fn open(version: u8, id: &str, options: &Options) -> Result<Wire, String> {
        let (to_messages, messages) = mpsc::unbounded_channel();
        let (to_answers, answers) = mpsc::unbounded_channel();
        let ears = Ears { messages: to_messages, answers: to_answers };
        let (client, task) = match version {
            5 => five(id, options, ears),
            _ => four(id, options, ears),
        };
        let mut wire = Wire { client, task, messages, answers, present: false };
        match wire.answer().await? {
            Answer::Connected(present) => wire.present = present,
            _ => return Err("something else than CONNACK".to_owned()),
        }
        Ok(wire)
    }

    async fn answer(&mut self) -> Result<Answer, String> {
        timeout(WAIT, self.answers.recv())
            .await
            .map_err(|_| "no answer in time")?
            .ok_or("the connection is gone")?
    }

    pub async fn subscribe(&mut self, filter: &str, qos: u8) -> Result<String, String> {
        let gone = "the event loop is gone";
        match &self.client {
            Client::Four(client) => client.subscribe(filter, level(qos)).await.map_err(|_| gone)?,
            Client::Five(client) => client.subscribe(filter, level5(qos)).await.map_err(|_| gone)?,
        }
        loop {
            if let Answer::Granted(granted) = self.answer().await? {
                return Ok(granted);
            }
        }
    }

    pub async fn publish(
        &mut self,
        topic: &str,
        payload: Vec<u8>,
        qos: u8,
        retain: bool,
        properties: Properties,
    ) -> Result<String, String> {
        match &self.client {
            Client::Four(client) => {
                client.publish(topic, level(qos), retain, payload).await.map_err(|error| error.to_string())?
            }
            Client::Five(client) => {
                let given = v5::mqttbytes::v5::PublishProperties {
                    topic_alias: properties.alias,
                    response_topic: properties.response_topic,
                    correlation_data: properties.correlation.map(Into::into),
                    user_properties: properties.user,
                    content_type: properties.content_type,
                    ..Default::default()
                };
                client
                    .publish_with_properties(topic, level5(qos), retain, payload, given)
                    .await
                    .map_err(|error| error.to_string())?;
            }
        }
        loop {
            // Nobody answers QoS 0.
            if qos == 0 {
                return Ok(String::new());
            }
            if let Answer::Published(reason) = self.answer().await? {
                return Ok(reason);
            }
        }
    }

    pub async fn poll(&mut self, patience: Duration) -> Option<Message> {
        timeout(patience, self.messages.recv()).await.ok().flatten()
    }

    pub async fn ack(&mut self, message: &Message) {
        if let (Client::Five(client), Some(publish)) = (&self.client, &message.ack) {
            let _ = client.ack(publish).await;
        }
    }

    pub async fn leave(self) {
        let _ = match &self.client {
            Client::Four(client) => client.disconnect().await.map_err(drop),
            Client::Five(client) => client.disconnect().await.map_err(drop),
        };
        // The event loop ends with an error when the broker has closed.
        let _ = timeout(WAIT, self.task).await;
    }

    /// As a cable that is cut.
    pub fn drop_dead(self) {
        self.task.abort();
    }
}

fn four(id: &str, options: &Options, ears: Ears) -> (Client, JoinHandle<()>) {
    use rumqttc::{Event, Incoming, MqttOptions};
    let (host, port, transport) = server(options.via);
    let mut config = MqttOptions::new(id, host, port);
    config.set_transport(transport).set_clean_session(!options.keep).set_keep_alive(Duration::from_secs(30));
    config.set_max_packet_size(2 * 1024 * 1024, 2 * 1024 * 1024);
    config
        .set_credentials(env("MQ_USER"), options.password.map_or_else(|| env("MQ_PASSWORD"), str::to_owned));
    if let Some((topic, payload)) = &options.will {
        config.set_last_will(rumqttc::LastWill::new(topic, *payload, level(1), false));
    }
    let (client, mut events) = rumqttc::AsyncClient::new(config, 100);
    let task = tokio::task::spawn_local(async move {
        loop {
            let answer = match events.poll().await {
                Err(error) => {
                    let why = match error {
                        rumqttc::ConnectionError::ConnectionRefused(code) => format!("{code:?}"),
                        other => other.to_string(),
                    };
                    let _ = ears.answers.send(Err(why));
                    return;
                }
                Ok(Event::Incoming(Incoming::ConnAck(connack))) => Answer::Connected(connack.session_present),
                Ok(Event::Incoming(Incoming::SubAck(suback))) => {
                    Answer::Granted(format!("{:?}", suback.return_codes[0]))
                }
                Ok(Event::Incoming(Incoming::PubAck(_) | Incoming::PubComp(_))) => {
                    Answer::Published("Success".to_owned())
                }
                Ok(Event::Incoming(Incoming::Publish(publish))) => {
                    let _ = ears.messages.send(Message {
                        topic: publish.topic,
                        payload: publish.payload.to_vec(),
                        qos: publish.qos as u8,
                        retain: publish.retain,
                        properties: Properties::default(),
                        ack: None,
                    });
                    continue;
                }
                Ok(_) => continue,
            };
            let _ = ears.answers.send(Ok(answer));
        }
    });
    (Client::Four(client), task)
}

fn five(id: &str, options: &Options, ears: Ears) -> (Client, JoinHandle<()>) {
    use v5::mqttbytes::v5::{ConnectProperties, LastWill, Packet};
    let (host, port, transport) = server(options.via);
    let mut config = v5::MqttOptions::new(id, host, port);
    config.set_transport(transport).set_clean_start(!options.keep).set_keep_alive(Duration::from_secs(30));
    config
        .set_credentials(env("MQ_USER"), options.password.map_or_else(|| env("MQ_PASSWORD"), str::to_owned));
    config.set_manual_acks(options.hold).set_connect_properties(ConnectProperties {
        session_expiry_interval: options.keep.then_some(60),
        receive_maximum: options.receive_maximum,
        topic_alias_max: options.alias_maximum,
        max_packet_size: Some(2 * 1024 * 1024),
        ..ConnectProperties::new()
    });
    if let Some((topic, payload)) = &options.will {
        config.set_last_will(LastWill::new(topic, *payload, level5(1), false, None));
    }
    let (client, mut events) = v5::AsyncClient::new(config, 100);
    let task = tokio::task::spawn_local(async move {
        loop {
            let answer = match events.poll().await {
                Err(error) => {
                    let why = match error {
                        v5::ConnectionError::ConnectionRefused(code) => format!("{code:?}"),
                        other => other.to_string(),
                    };
                    let _ = ears.answers.send(Err(why));
                    return;
                }
                Ok(v5::Event::Incoming(Packet::ConnAck(connack))) => {
                    Answer::Connected(connack.session_present)
                }
                Ok(v5::Event::Incoming(Packet::SubAck(suback))) => {
                    Answer::Granted(format!("{:?}", suback.return_codes[0]))
                }
                Ok(v5::Event::Incoming(Packet::PubAck(puback))) => {
                    Answer::Published(format!("{:?}", puback.reason))
                }
                Ok(v5::Event::Incoming(Packet::PubComp(pubcomp))) => {
                    Answer::Published(format!("{:?}", pubcomp.reason))
                }
                Ok(v5::Event::Incoming(Packet::Publish(publish))) => {
                    let _ = ears.messages.send(message(publish));
                    continue;
                }
                Ok(_) => continue,
            };
            let _ = ears.answers.send(Ok(answer));
        }
    });
    (Client::Five(client), task)
}

fn message(publish: v5::mqttbytes::v5::Publish) -> Message {
    let given = publish.properties.clone().unwrap_or_default();
    Message {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.to_vec(),
        qos: publish.qos as u8,
        retain: publish.retain,
        properties: Properties {
            alias: given.topic_alias,
            user: given.user_properties,
            content_type: given.content_type,
            response_topic: given.response_topic,
            correlation: given.correlation_data.map(|data| data.to_vec()),
        },
        ack: Some(publish),
    }
}
