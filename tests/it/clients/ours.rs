//! `mqlink pub` and `mqlink sub`, so that they are tested as clients among others.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use serde_json::Value;

use super::{Control, Event, Heard, Kind, Post, Properties, Subscriber, Who};
use crate::harness::MQLINK;

/// The binary's own commands.
pub(crate) struct Ours;

impl Kind for Ours {
    fn name(&self) -> &'static str {
        "mqlink"
    }

    /// `sub` connects and subscribes in one: it starts with the first `subscribe`.
    fn open(&self, who: &Who) -> Subscriber {
        let (sender, events) = channel();
        sender.send(Event::Connected(0)).expect("the receiver is here");
        Subscriber::new(events, Box::new(Sub { who: who.clone(), sender, child: None }))
    }

    fn publish(&self, who: &Who, posts: &[Post]) {
        for post in posts {
            let mut child = publish_command(who, post)
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the binary is built");
            let mut input = child.stdin.take().expect("stdin is piped");
            input.write_all(post.payload.as_bytes()).expect("`pub` reads its input");
            drop(input);
            let output = child.wait_with_output().expect("`pub` ends");
            assert!(output.status.success(), "{post:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

fn publish_command(who: &Who, post: &Post) -> Command {
    let mut command = Command::new(MQLINK);
    command.args(["pub", "-t", &post.topic, "-q", &post.qos.to_string(), "-f", "-"]);
    connect_args(&mut command, who);
    command.args(post.retain.then_some("--retain"));
    let mut property = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            command.args([name, value]);
        }
    };
    let given = &post.properties;
    property("--content-type", given.content_type.as_deref());
    property("--response-topic", given.response_topic.as_deref());
    property("--correlation-data", given.correlation_data.as_deref());
    property("--expiry", given.expiry_s.map(|seconds| seconds.to_string()).as_deref());
    for (key, value) in &given.user {
        property("--user-property", Some(&format!("{key}={value}")));
    }
    command.args((given.payload_format == Some(1)).then_some("--utf8"));
    command
}

fn connect_args(command: &mut Command, who: &Who) {
    command.args(["-V", if who.v5 { "5" } else { "3.1.1" }, "-p", &who.port.to_string()]);
    if let Some(ca) = &who.ca {
        command.args(["-h", "localhost", "--cafile"]).arg(ca);
    }
    if !who.client_id.is_empty() {
        command.args(["-i", &who.client_id]);
    }
    if let Some((user, password)) = &who.login {
        command.args(["-u", user, "-P", password]);
    }
}

/// `mqlink sub`, killed when dropped.
struct Sub {
    who: Who,
    sender: Sender<Event>,
    child: Option<Child>,
}

impl Control for Sub {
    fn subscribe(&mut self, filter: &str, qos: u8) {
        assert!(self.child.is_none(), "`sub` subscribes once");
        let mut command = Command::new(MQLINK);
        command.args([
            "sub",
            "--ready",
            "--no-reconnect",
            "-F",
            "%j\\n",
            "-N",
            "-t",
            filter,
            "-q",
            &qos.to_string(),
        ]);
        connect_args(&mut command, &self.who);
        command.args(self.who.retain_as_published.then_some("--retain-as-published"));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut errors = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let mut said = String::new();
            let _ = errors.read_line(&mut said);
            let granted = if said == "ready\n" { Event::Subscribed(qos) } else { Event::Gone(said) };
            if sender.send(granted).is_err() {
                return;
            }
            for line in output.lines().map_while(Result::ok) {
                if sender.send(Event::Message(heard(&line))).is_err() {
                    return;
                }
            }
            let _ = sender.send(Event::Gone("`sub` ended".to_owned()));
        });
        self.child = Some(child);
    }

    fn unsubscribe(&mut self, filter: &str) {
        unreachable!("`sub` cannot unsubscribe from {filter}");
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

fn heard(line: &str) -> Heard {
    let message: Value = serde_json::from_str(line).expect("`sub` writes JSON");
    let text = |name: &str| message[name].as_str().map(str::to_owned);
    let pairs = message["userProperties"].as_array().into_iter().flatten();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Heard {
        topic: text("topic").expect("a message has a topic"),
        payload: text("payload").expect("a message has a payload"),
        qos: u8::try_from(message["qos"].as_u64().expect("a message has a QoS")).expect("QoS is small"),
        retain: message["retain"] == true,
        properties: Properties {
            user: pairs.map(|pair| (word(&pair[0]), word(&pair[1]))).collect(),
            content_type: text("contentType"),
            response_topic: text("responseTopic"),
            correlation_data: text("correlationData"),
            expiry_s: message["expiry"].as_u64().and_then(|seconds| u32::try_from(seconds).ok()),
            payload_format: message["utf8"].as_bool().map(u8::from),
        },
    }
}
