//! A running node seen by who runs it: sessions, kick, retained messages, log, metrics, `$SYS`; and no secret in any of it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Output};

use tempfile::TempDir;

use crate::clients::{Kind, Mosquitto, Paho, Post, Rumqttc, Who};
use crate::harness::{MQLINK, SettingsExt, settings, until};

/// A node that logs everything into a file.
struct Node {
    child: Child,
    folder: TempDir,
    port: u16,
}

const PASSWORD: &str = "s3cret-of-alice";
const WRONG: &str = "s3cret-of-mallory";
const PAYLOAD: &str = "s3cret-in-a-message";

impl Node {
    fn start() -> Node {
        let folder = TempDir::new().expect("a temporary folder");
        let settings = settings().users(&[("alice", &format!("plain:{PASSWORD}"))]);
        let port = settings.listeners[0].port;
        let config = folder.path().join("settings.json");
        std::fs::write(&config, serde_json::to_vec(&settings).expect("settings are JSON")).expect("writable");
        let log = File::create(folder.path().join("log")).expect("writable");
        let child = Command::new(MQLINK)
            .args(["--log", "trace", "--log-json", "broker", "--config"])
            .arg(&config)
            .arg("--admin-socket")
            .arg(folder.path().join("admin.sock"))
            .stderr(log)
            .spawn()
            .expect("the binary is built");
        let node = Node { child, folder, port };
        until("the listener", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        node
    }

    fn who(&self, client_id: &str) -> Who {
        Who::at(self.port).named(client_id).login("alice", PASSWORD)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(MQLINK);
        command.arg("admin").arg("--socket").arg(self.socket()).args(arguments);
        command.output().expect("the binary is built")
    }

    #[track_caller]
    fn answer(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("output is text")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("it is there")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn clients_are_listed_and_kicked() {
    let node = Node::start();
    let mut sub = Paho.subscribe(&node.who("watcher"), "plant/#", 1);
    let table = node.answer(&["clients"]);
    let line = table.lines().find(|line| line.starts_with("watcher ")).expect("the client is listed");
    assert!(line.contains("alice") && line.contains("5.0"), "{line}");

    assert_eq!(
        node.answer(&["kick", "watcher"]),
        "the connection ends; the session stays as long as its client asked for\n"
    );
    let why = sub.gone();
    assert!(why.contains("Administrative action"), "{why}");
    until("an empty list", || (node.answer(&["clients"]).lines().count() == 1).then_some(()));

    let output = node.ask(&["kick", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no client `nobody` is known"));
}

#[test]
fn a_drained_node_sends_its_clients_elsewhere() {
    let node = Node::start();
    let mut sub = Paho.subscribe(&node.who("watcher"), "plant/#", 1);
    node.answer(&["drain", "--server", "other.example:1883"]);
    let why = sub.gone();
    assert!(why.contains("Use another server"), "{why}");
    until("closed listeners", || std::net::TcpStream::connect(("127.0.0.1", node.port)).err());
}

#[test]
fn retained_messages_are_listed_by_topic() {
    let node = Node::start();
    Mosquitto.publish(&node.who("p"), &[Post::new("plant/1", PAYLOAD, 1).retained()]);
    let table = node.answer(&["retained", "plant/#"]);
    assert!(table.lines().any(|line| line.split_whitespace().take(3).eq(["plant/1", "1", "19"])), "{table}");
    assert_eq!(node.answer(&["retained", "other/#"]).lines().count(), 1);
}

#[test]
fn sys_topics_are_there_for_who_names_them() {
    let node = Node::start();
    let mut sub = Rumqttc.subscribe(&node.who("s"), "$SYS/broker/version", 0);
    let heard = sub.next();
    assert_eq!((heard.topic.as_str(), heard.retain), ("$SYS/broker/version", true));
    assert!(heard.payload.starts_with("mqlink "), "{}", heard.payload);
}

#[test]
fn nothing_that_a_node_says_of_itself_holds_a_secret() {
    let node = Node::start();
    let mut sub = Paho.subscribe(&node.who("watcher"), "plant/#", 1);
    Paho.publish(&node.who("p"), &[Post::new("plant/1", PAYLOAD, 1).retained()]);
    assert_eq!(sub.next().payload, PAYLOAD);
    let mut intruder = Command::new("mosquitto_pub");
    let port = node.port.to_string();
    let refused =
        intruder.args(["-p", &port, "-V", "5", "-u", "alice", "-P", WRONG, "-t", "t", "-m", "x"]).output();
    assert!(!refused.expect("it is installed").status.success());

    assert_eq!(node.answer(&["log"]), "trace\n");
    let mut said = String::new();
    for question in [
        &["sessions", "-o", "json"][..],
        &["retained"],
        &["metrics"],
        &["log", "debug"],
        &["kick", "watcher"],
    ] {
        said += &node.answer(question);
    }
    assert!(node.ask(&["log", "=!"]).status.code() == Some(1), "that is no filter");
    let log = until("the kick in the log", || {
        Some(node.log()).filter(|log| log.contains("an administrator kicks"))
    });
    for secret in [PASSWORD, WRONG, PAYLOAD] {
        assert!(!said.contains(secret), "an answer holds {secret}");
        assert!(!log.contains(secret), "the log holds {secret}");
    }
    assert!(log.contains("watcher"), "the log names clients");
}
