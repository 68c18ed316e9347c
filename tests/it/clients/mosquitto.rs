//! mosquitto_pub and mosquitto_sub of Debian's mosquitto-clients.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use serde_json::Value;

use super::{Control, Event, Heard, Kind, Post, Properties, Subscriber, Who};

/// mosquitto's command line clients.
pub(crate) struct Mosquitto;

impl Kind for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    /// mosquitto_sub connects and subscribes in one: it starts with the first `subscribe`.
    fn open(&self, who: &Who) -> Subscriber {
        let (sender, events) = channel();
        sender.send(Event::Connected(0)).expect("the receiver is here");
        Subscriber::new(events, Box::new(Sub { who: who.clone(), sender, child: None }))
    }

    fn publish(&self, who: &Who, posts: &[Post]) {
        for post in posts {
            let mut child = Mosquitto::publish_command(who, post)
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("mosquitto_pub is there (`make setup`)");
            let mut input = child.stdin.take().expect("stdin is piped");
            input.write_all(post.payload.as_bytes()).expect("mosquitto_pub reads its input");
            drop(input);
            let output = child.wait_with_output().expect("mosquitto_pub ends");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "mosquitto_pub {post:?}: {said}");
        }
    }
}

impl Mosquitto {
    fn publish_command(who: &Who, post: &Post) -> Command {
        let mut command = Command::new("mosquitto_pub");
        connect_args(&mut command, who);
        command.args(["-t", &post.topic, "-q", &post.qos.to_string()]);
        command.arg(if post.payload.is_empty() { "-n" } else { "-s" });
        command.args(post.retain.then_some("-r"));
        let mut property = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                command.args(["-D", "publish", name, value]);
            }
        };
        let given = &post.properties;
        property("content-type", given.content_type.as_deref());
        property("response-topic", given.response_topic.as_deref());
        property("correlation-data", given.correlation_data.as_deref());
        property("message-expiry-interval", given.expiry_s.map(|seconds| seconds.to_string()).as_deref());
        property(
            "payload-format-indicator",
            given.payload_format.map(|format| format.to_string()).as_deref(),
        );
        for (key, value) in &given.user {
            command.args(["-D", "publish", "user-property", key, value]);
        }
        command
    }
}

fn connect_args(command: &mut Command, who: &Who) {
    command.args(["-V", if who.v5 { "mqttv5" } else { "mqttv311" }, "-p", &who.port.to_string()]);
    match &who.ca {
        Some(ca) => command.args(["-h", "localhost", "--cafile"]).arg(ca),
        None => command.args(["-h", "127.0.0.1"]),
    };
    if !who.client_id.is_empty() {
        command.args(["-i", &who.client_id]);
    }
    if let Some((user, password)) = &who.login {
        command.args(["-u", user, "-P", password]);
    }
}

/// mosquitto_sub, killed when dropped.
struct Sub {
    who: Who,
    sender: Sender<Event>,
    child: Option<Child>,
}

impl Control for Sub {
    fn subscribe(&mut self, filter: &str, qos: u8) {
        assert!(self.child.is_none(), "mosquitto_sub subscribes once");
        // Line by line: into a pipe it would keep the news of its SUBACK to itself.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub", "-d", "-F", "%j", "-t", filter, "-q", &qos.to_string()]);
        connect_args(&mut command, &self.who);
        command.args(self.who.retain_as_published.then_some("--retain-as-published"));
        if let Some(will) = &self.who.will {
            let qos = will.qos.to_string();
            command.args(["--will-topic", &will.topic, "--will-payload", &will.payload, "--will-qos", &qos]);
            command.args(will.retain.then_some("--will-retain"));
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto_sub is there (`make setup`)");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let sender = self.sender.clone();
        std::thread::spawn(move || forward(output, &sender));
        self.child = Some(child);
    }

    fn unsubscribe(&mut self, filter: &str) {
        unreachable!("mosquitto_sub cannot unsubscribe from {filter}");
    }
}

impl Drop for Sub {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn forward(output: impl BufRead, events: &Sender<Event>) {
    for line in output.lines().map_while(Result::ok) {
        let event = if let Some(codes) = line.strip_prefix("Subscribed (mid: 1): ") {
            Event::Subscribed(codes.trim().parse().expect("mosquitto_sub names one code"))
        } else if line.starts_with('{') {
            Event::Message(heard(&line))
        } else {
            continue; // its log of packets
        };
        if events.send(event).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Gone("mosquitto_sub ended".to_owned()));
}

fn heard(line: &str) -> Heard {
    let message: Value = serde_json::from_str(line).expect("mosquitto_sub writes JSON");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let given = &message["properties"];
    let pairs = given["user-properties"].as_object().into_iter().flatten();
    Heard {
        topic: text(&message["topic"]).expect("a message has a topic"),
        payload: text(&message["payload"]).expect("a message has a payload"),
        qos: u8::try_from(message["qos"].as_u64().expect("a message has a QoS")).expect("QoS is small"),
        retain: message["retain"] == 1,
        properties: Properties {
            user: pairs.map(|(key, value)| (key.clone(), text(value).unwrap_or_default())).collect(),
            content_type: text(&given["content-type"]),
            response_topic: text(&given["response-topic"]),
            correlation_data: text(&given["correlation-data"]),
            expiry_s: given["message-expiry-interval"]
                .as_u64()
                .and_then(|seconds| u32::try_from(seconds).ok()),
            payload_format: given["payload-format-indicator"].as_u64().and_then(|one| u8::try_from(one).ok()),
        },
    }
}

/// Runs mosquitto_pub where refusal is expected; returns what it says.
pub(crate) fn refused_publish(who: &Who, post: &Post) -> String {
    let output = Mosquitto::publish_command(who, post).stdin(Stdio::null()).output();
    let output = output.expect("mosquitto_pub is there (`make setup`)");
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}
