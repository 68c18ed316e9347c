//! Four kinds of MQTT clients behind one interface: mosquitto's programs, paho in Python, rumqttc, and our own commands.
//!
//! A test says what is published and what is expected; which client does it is a parameter. Subscribing returns
//! when the broker has answered, publishing when every acknowledgement is in: no test needs to wait for time to pass.

mod mosquitto;
mod ours;
mod paho;
mod rumq;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

pub(crate) use mosquitto::{Mosquitto, refused_publish};
pub(crate) use ours::Ours;
pub(crate) use paho::Paho;
pub(crate) use rumq::Rumqttc;

/// How long anything may take on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Who connects where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Who {
    pub(crate) port: u16,
    /// MQTT 5.0 rather than 3.1.1.
    pub(crate) v5: bool,
    pub(crate) client_id: String,
    pub(crate) login: Option<(String, String)>,
    /// Speak TLS, and trust this CA file.
    pub(crate) ca: Option<PathBuf>,
    /// Present this certificate with this key (files); only paho and mosquitto do.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    /// Speak WebSocket, at this path; only paho does.
    pub(crate) path: Option<String>,
    pub(crate) will: Option<Post>,
    /// Subscriptions keep the RETAIN flag as it was published; only mosquitto's client does this here.
    pub(crate) retain_as_published: bool,
}

impl Who {
    pub(crate) fn at(port: u16) -> Who {
        Who { port, v5: true, ..Who::default() }
    }

    pub(crate) fn v3(self) -> Who {
        Who { v5: false, ..self }
    }

    pub(crate) fn version(self, v5: bool) -> Who {
        Who { v5, ..self }
    }

    pub(crate) fn named(self, client_id: &str) -> Who {
        Who { client_id: client_id.to_owned(), ..self }
    }

    pub(crate) fn login(self, user: &str, password: &str) -> Who {
        Who { login: Some((user.to_owned(), password.to_owned())), ..self }
    }

    pub(crate) fn trusting(self, ca: &std::path::Path) -> Who {
        Who { ca: Some(ca.to_owned()), ..self }
    }

    pub(crate) fn presenting(self, certificate: (PathBuf, PathBuf)) -> Who {
        Who { certificate: Some(certificate), ..self }
    }

    pub(crate) fn path(self, path: &str) -> Who {
        Who { path: Some(path.to_owned()), ..self }
    }

    pub(crate) fn retain_as_published(self) -> Who {
        Who { retain_as_published: true, ..self }
    }

    pub(crate) fn will(self, will: Post) -> Who {
        Who { will: Some(will), ..self }
    }
}

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Post {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Properties,
}

impl Post {
    pub(crate) fn new(topic: &str, payload: &str, qos: u8) -> Post {
        Post { topic: topic.to_owned(), payload: payload.to_owned(), qos, ..Post::default() }
    }

    pub(crate) fn retained(self) -> Post {
        Post { retain: true, ..self }
    }

    pub(crate) fn with(self, properties: Properties) -> Post {
        Post { properties, ..self }
    }
}

/// A message as a subscriber got it: what was published, with the QoS and flags of the delivery.
pub(crate) type Heard = Post;

/// The MQTT 5 properties of a message that belong to the application.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Properties {
    pub(crate) user: Vec<(String, String)>,
    pub(crate) content_type: Option<String>,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation_data: Option<String>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) payload_format: Option<u8>,
}

/// What a connection reports.
#[derive(Debug)]
pub(crate) enum Event {
    /// SUBACK, by its reason code.
    Subscribed(u8),
    Unsubscribed,
    Message(Heard),
    /// CONNACK, by its reason code (in 3.1.1 its return code).
    Connected(u8),
    /// The connection is gone, with what the client says of it.
    Gone(String),
}

/// A subscriber. Dropping it ends its connection.
pub(crate) struct Subscriber {
    events: Receiver<Event>,
    control: Box<dyn Control>,
    /// Messages that came before an answer that was waited for.
    early: VecDeque<Heard>,
}

/// What can be asked of a connected subscriber.
pub(crate) trait Control {
    fn subscribe(&mut self, filter: &str, qos: u8);
    fn unsubscribe(&mut self, filter: &str);
}

impl Subscriber {
    fn new(events: Receiver<Event>, control: Box<dyn Control>) -> Subscriber {
        Subscriber { events, control, early: VecDeque::new() }
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Heard {
        if let Some(heard) = self.early.pop_front() {
            return heard;
        }
        match self.event() {
            Event::Message(heard) => heard,
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// The next `count` messages' payloads.
    #[track_caller]
    pub(crate) fn payloads(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next().payload).collect()
    }

    /// All payloads before the one that is `marker`.
    #[track_caller]
    pub(crate) fn payloads_until(&mut self, marker: &str) -> Vec<String> {
        let mut payloads = Vec::new();
        loop {
            let payload = self.next().payload;
            if payload == marker {
                return payloads;
            }
            payloads.push(payload);
        }
    }

    /// Whether a message has come by now; it is gone with this answer.
    #[track_caller]
    pub(crate) fn has_heard(&mut self) -> bool {
        if self.early.pop_front().is_some() {
            return true;
        }
        match self.events.try_recv() {
            Ok(Event::Message(_)) => true,
            Ok(other) => panic!("expected a message, got {other:?}"),
            Err(_) => false,
        }
    }

    /// Adds a subscription and waits for SUBACK; returns its reason code.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        self.control.subscribe(filter, qos);
        match self.answer() {
            Event::Subscribed(code) => code,
            other => panic!("expected SUBACK, got {other:?}"),
        }
    }

    /// Takes a subscription back and waits for UNSUBACK.
    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        self.control.unsubscribe(filter);
        match self.answer() {
            Event::Unsubscribed => {}
            other => panic!("expected UNSUBACK, got {other:?}"),
        }
    }

    /// Waits until the connection is gone; says why.
    #[track_caller]
    pub(crate) fn gone(&mut self) -> String {
        match self.answer() {
            Event::Gone(why) => why,
            other => panic!("expected the end, got {other:?}"),
        }
    }

    /// The next event that is no message; messages before it wait for `next`.
    #[track_caller]
    fn answer(&mut self) -> Event {
        loop {
            match self.event() {
                Event::Message(heard) => self.early.push_back(heard),
                answer => return answer,
            }
        }
    }

    #[track_caller]
    fn event(&mut self) -> Event {
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => panic!("nothing came within {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the client has ended"),
        }
    }
}

/// One kind of client.
pub(crate) trait Kind {
    /// As failures name it.
    fn name(&self) -> &'static str;

    /// Connects and reports events from CONNACK on.
    fn open(&self, who: &Who) -> Subscriber;

    /// Publishes all, in order on one connection, and waits for their acknowledgements.
    fn publish(&self, who: &Who, posts: &[Post]);

    /// Connects; returns the reason code of CONNACK and the connection.
    #[track_caller]
    fn connect(&self, who: &Who) -> (u8, Subscriber) {
        let mut subscriber = self.open(who);
        match subscriber.event() {
            Event::Connected(code) => (code, subscriber),
            other => panic!("{}: expected CONNACK, got {other:?}", self.name()),
        }
    }

    /// Connects, and subscribes to `filter`.
    #[track_caller]
    fn subscribe(&self, who: &Who, filter: &str, qos: u8) -> Subscriber {
        let (code, mut subscriber) = self.connect(who);
        assert_eq!(code, 0, "{}: {who:?} was refused", self.name());
        let granted = subscriber.subscribe(filter, qos);
        assert_eq!(granted, qos, "{}: {filter} was granted otherwise", self.name());
        subscriber
    }

    /// Connects, and subscribes to `filter` with QoS 1.
    #[track_caller]
    fn listen(&self, who: &Who, filter: &str) -> Subscriber {
        self.subscribe(who, filter, 1)
    }
}

/// Every kind that takes part in a test "with all clients".
pub(crate) fn kinds() -> [&'static dyn Kind; 4] {
    [&Mosquitto, &Paho, &Rumqttc, &Ours]
}
