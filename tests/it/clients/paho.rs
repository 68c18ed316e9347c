//! paho-mqtt, one Python process per connection, driven by JSON lines.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use serde_json::{Value, json};

use super::{Control, Event, Heard, Kind, Post, Properties, Subscriber, Who};

/// paho-mqtt for Python.
pub(crate) struct Paho;

const DRIVER: &str = include_str!("paho_driver.py");

impl Kind for Paho {
    fn name(&self) -> &'static str {
        "paho"
    }

    fn open(&self, who: &Who) -> Subscriber {
        let (control, lines) = Python::start(who);
        let (sender, events) = channel();
        std::thread::spawn(move || forward(lines, &sender));
        Subscriber::new(events, Box::new(control))
    }

    fn publish(&self, who: &Who, posts: &[Post]) {
        let (mut python, mut lines) = Python::start(who);
        for post in posts {
            python.tell(&publish_command(post));
        }
        let mut open = posts.len();
        while open > 0 {
            let event =
                lines.next().expect("paho ended before it had published all").expect("paho writes lines");
            let event: Value = serde_json::from_str(&event).expect("paho writes JSON");
            match event["event"].as_str() {
                Some("published") => open -= 1,
                Some("connected") => assert_eq!(event["code"], 0, "paho was refused: {who:?}"),
                _ => panic!("paho: {event}"),
            }
        }
    }
}

type Lines = std::io::Lines<BufReader<std::process::ChildStdout>>;

/// The process; dropping it disconnects cleanly by ending its input.
struct Python {
    child: Child,
    input: Option<ChildStdin>,
}

impl Python {
    fn start(who: &Who) -> (Python, Lines) {
        let mut child = Command::new(interpreter())
            .args(["-c", DRIVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python with paho-mqtt is there (`make setup`)");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut python = Python { input: child.stdin.take(), child };
        python.tell(&json!({
            "port": who.port, "v5": who.v5, "clientId": who.client_id, "login": who.login,
            "ca": who.ca, "certificate": who.certificate, "path": who.path, "will": who.will.as_ref().map(publish_command),
        }));
        (python, lines)
    }

    fn tell(&mut self, command: &Value) {
        let input = self.input.as_mut().expect("open until dropped");
        // A refused connection ends the process; what it said of that is in its events.
        let _ = writeln!(input, "{command}");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

impl Control for Python {
    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.tell(&json!({"do": "subscribe", "filter": filter, "qos": qos}));
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.tell(&json!({"do": "unsubscribe", "filter": filter}));
    }
}

/// The virtual environment that tests/setup.sh makes.
fn interpreter() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set"));
    cache.unwrap_or_else(|| home().join(".cache")).join("mqlink/venv/bin/python3")
}

fn publish_command(post: &Post) -> Value {
    let mut properties = serde_json::Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        properties.extend(value.map(|value| (name.to_owned(), value)));
    };
    let given = &post.properties;
    put("user", (!given.user.is_empty()).then(|| json!(given.user)));
    put("contentType", given.content_type.as_ref().map(|text| json!(text)));
    put("responseTopic", given.response_topic.as_ref().map(|text| json!(text)));
    put("correlationData", given.correlation_data.as_ref().map(|text| json!(text)));
    put("expiryS", given.expiry_s.map(|seconds| json!(seconds)));
    put("payloadFormat", given.payload_format.map(|format| json!(format)));
    json!({
        "do": "publish", "topic": post.topic, "payload": post.payload, "qos": post.qos, "retain": post.retain,
        "properties": properties,
    })
}

fn forward(lines: Lines, events: &Sender<Event>) {
    for line in lines.map_while(Result::ok) {
        let event: Value = serde_json::from_str(&line).expect("paho writes JSON");
        let code = u8::try_from(event["code"].as_u64().unwrap_or(0)).expect("codes are bytes");
        let event = match event["event"].as_str() {
            Some("connected") => Event::Connected(code),
            Some("subscribed") => Event::Subscribed(code),
            Some("unsubscribed") => Event::Unsubscribed,
            Some("message") => Event::Message(heard(&event)),
            Some("gone") => Event::Gone(event["why"].to_string()),
            _ => panic!("paho: {event}"),
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

fn heard(event: &Value) -> Heard {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let given = &event["properties"];
    let pairs = given["user"].as_array().into_iter().flatten();
    Heard {
        topic: text(&event["topic"]).expect("a message has a topic"),
        payload: text(&event["payload"]).expect("a message has a payload"),
        qos: u8::try_from(event["qos"].as_u64().expect("a message has a QoS")).expect("QoS is small"),
        retain: event["retain"].as_bool().expect("a message has a flag"),
        properties: Properties {
            user: pairs
                .map(|pair| (text(&pair[0]).unwrap_or_default(), text(&pair[1]).unwrap_or_default()))
                .collect(),
            content_type: text(&given["contentType"]),
            response_topic: text(&given["responseTopic"]),
            correlation_data: text(&given["correlationData"]),
            expiry_s: given["expiryS"].as_u64().and_then(|seconds| u32::try_from(seconds).ok()),
            payload_format: given["payloadFormat"].as_u64().and_then(|format| u8::try_from(format).ok()),
        },
    }
}
