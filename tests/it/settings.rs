//! One node and its settings: taken, changed, refused, while it runs; and how it ends.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use mqlink::admin::{Client, ClientError, StatusLine};
use mqlink::settings::report::NodeReport;
use mqlink::settings::{Listener, Protocol, ServerTls, Settings};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clients::{Kind, Paho, Post, Rumqttc, Who};
use crate::harness::{Certificates, MQLINK, SettingsExt, free_port, settings, signal, until};

/// A node that is managed by hand.
struct Managed {
    child: Child,
    client: Client,
    runtime: tokio::runtime::Runtime,
    folder: TempDir,
}

impl Managed {
    fn start(document: &Value, more: &[&str]) -> Managed {
        let folder = TempDir::new().expect("a temporary folder");
        let (config, socket) = (folder.path().join("settings.json"), folder.path().join("admin.sock"));
        std::fs::write(&config, document.to_string()).expect("writable");
        let child = Command::new(MQLINK)
            .args(["broker", "--node", "solo-0", "--log", "warn", "--config"])
            .arg(&config)
            .arg("--admin-socket")
            .arg(&socket)
            .args(more)
            .stdin(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = Client::new(socket);
        until("the admin socket", || runtime.block_on(client.healthz()).ok());
        let node = Managed { child, client, runtime, folder };
        until("its listeners", || {
            let listeners = node.report().listeners;
            (!listeners.is_empty() && listeners.iter().all(|one| one.error.is_none())).then_some(())
        });
        node
    }

    fn put(&self, document: &Value) -> Result<Vec<String>, String> {
        let put = self.client.put_document(document.to_string().into());
        match self.runtime.block_on(put) {
            Ok(applied) => Ok(applied.unknown_fields),
            Err(ClientError::Refused(why)) => Err(why),
            Err(error) => panic!("{error}"),
        }
    }

    fn report(&self) -> NodeReport {
        self.runtime.block_on(async {
            let mut stream = self.client.status().await.expect("a stream");
            match stream.next().await {
                Ok(Some(StatusLine::Snapshot(report))) => *report,
                other => panic!("expected a snapshot, got {other:?}"),
            }
        })
    }

    fn ends(&mut self) -> std::process::ExitStatus {
        until("the node's end", || self.child.try_wait().expect("our child"))
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn document(settings: &Settings) -> Value {
    serde_json::to_value(settings).expect("settings are JSON")
}

#[test]
fn listeners_users_and_limits_change_while_clients_stay() {
    let before = settings();
    let node = Managed::start(&document(&before), &[]);
    let old = Who::at(before.listeners[0].port);
    let mut stays = Paho.listen(&old, "any");

    let mut after = before.clone();
    after.limits.packet_bytes_max = 2_048;
    let new_port = free_port();
    after.listeners.push(Listener::new("more", Protocol::Mqtt, new_port));
    assert_eq!(node.put(&document(&after)), Ok(Vec::new()));
    Rumqttc.publish(&Who::at(new_port), &[Post::new("any", "through the new one", 1)]);
    assert_eq!(stays.next().payload, "through the new one");
    let report = node.report();
    assert_eq!(report.settings_hash, after.hash());
    assert_eq!(report.listeners.len(), 2);

    let closed = after.users(&[("ann", "plain:secret")]);
    assert_eq!(node.put(&document(&closed)), Ok(Vec::new()));
    stays.gone();
}

#[test]
fn a_hangup_makes_a_node_read_its_files_anew() {
    let before = settings();
    let node = Managed::start(&document(&before), &[]);
    let mut stays = Paho.listen(&Who::at(before.listeners[0].port), "any");
    let hang_up = |text: &str| {
        std::fs::write(node.folder.path().join("settings.json"), text).expect("writable");
        signal(node.child.id(), Signal::SIGHUP);
    };
    let mut after = before.clone();
    let new_port = free_port();
    after.listeners.push(Listener::new("more", Protocol::Mqtt, new_port));
    hang_up(&document(&after).to_string());
    until("the new settings", || (node.report().settings_hash == after.hash()).then_some(()));
    Rumqttc.publish(&Who::at(new_port), &[Post::new("any", "through the new one", 1)]);
    assert_eq!(stays.next().payload, "through the new one");

    hang_up("{");
    let why = until("the refusal", || node.report().refused);
    assert!(why.contains("failed to parse"), "{why}");
    assert_eq!(node.report().settings_hash, after.hash());
    hang_up(&document(&before).to_string());
    until("the old settings", || (node.report().settings_hash == before.hash()).then_some(()));
}

#[test]
fn a_hangup_during_the_start_ends_no_node() {
    let folder = TempDir::new().expect("a temporary folder");
    let (config, settings) = (folder.path().join("settings.json"), settings());
    // It is read as slowly as it is written.
    assert!(Command::new("mkfifo").arg(&config).status().expect("it is there").success());
    let mut node =
        Command::new(MQLINK).args(["broker", "--config"]).arg(&config).spawn().expect("the binary is built");
    let mut read = std::fs::OpenOptions::new().write(true).open(&config).expect("writable");
    signal(node.id(), Signal::SIGHUP);
    read.write_all(document(&settings).to_string().as_bytes()).expect("the node reads it");
    drop(read);
    until("its listener", || std::net::TcpStream::connect(("127.0.0.1", settings.listeners[0].port)).ok());
    node.kill().and_then(|()| node.wait()).expect("our child");
}

#[test]
fn what_is_refused_changes_nothing_and_is_reported() {
    let before = settings();
    let node = Managed::start(&document(&before), &[]);
    let mut bad = document(&before);
    bad["listeners"][0]["port"] = json!(0);
    let why = node.put(&bad).expect_err("port 0 is no port");
    assert!(why.contains("listeners[0].port: is 0"), "{why}");
    let report = node.report();
    assert_eq!((report.settings_hash, report.refused), (before.hash(), Some(why)));

    let why = node.put(&json!({"cluster": "another"})).expect_err("a node does not change its cluster");
    assert!(why.contains("start another node"), "{why}");
    assert_eq!(node.put(&document(&before)), Ok(Vec::new()));
    assert_eq!(node.report().refused, None);
}

#[test]
fn unknown_fields_are_named_at_the_start_and_later() {
    let mut newer = document(&settings());
    newer["colour"] = json!("blue");
    let node = Managed::start(&newer, &[]);
    assert_eq!(node.report().unknown_fields, ["colour"]);
    newer["limits"]["hopsMax"] = json!(3);
    assert_eq!(node.put(&newer), Ok(vec!["colour".to_owned(), "limits.hopsMax".to_owned()]));
    assert_eq!(node.report().unknown_fields, ["colour", "limits.hopsMax"]);
}

#[test]
fn a_node_ends_in_order_on_signals() {
    for kind in [Signal::SIGTERM, Signal::SIGINT] {
        let settings = settings();
        let mut node = Managed::start(&document(&settings), &[]);
        let mut client = Paho.listen(&Who::at(settings.listeners[0].port), "any");
        signal(node.child.id(), kind);
        assert_eq!(node.ends().code(), Some(0), "{kind}");
        client.gone();
    }
}

#[test]
fn a_node_ends_with_its_standard_input_if_told_to() {
    let mut heeds = Managed::start(&document(&settings()), &["--end-with-stdin"]);
    drop(heeds.child.stdin.take());
    assert_eq!(heeds.ends().code(), Some(0));
    let mut ignores = Managed::start(&document(&settings()), &[]);
    drop(ignores.child.stdin.take());
    assert_eq!(ignores.report().node, "solo-0");
    assert!(ignores.child.try_wait().expect("our child").is_none());
}

fn check(text: &str) -> (Output, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder");
    let config = folder.path().join("settings.json");
    std::fs::write(&config, text).expect("writable");
    let output = Command::new(MQLINK).args(["broker", "--check", "--config"]).arg(&config).output();
    (output.expect("the binary is built"), config)
}

#[test]
fn a_document_can_be_checked_without_running_it() {
    let (good, path) = check(r#"{"cluster": "solo"}"#);
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    assert_eq!((good.status.code(), said), (Some(0), format!("{}: ok, cluster solo\n", path.display())));
    let (unknown, path) = check(r#"{"cluster": "solo", "colour": 1, "limits": {"size": 1}}"#);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said.contains(&format!("{}: colour, limits.size: not known", path.display())), "{said}");
    let (bad, _) = check(r#"{"cluster": "solo", "links": [{"id": "a", "peer": "solo", "dial": "In"}]}"#);
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert_eq!(bad.status.code(), Some(1));
    assert!(said.contains("links[0].peer: is this cluster itself"), "{said}");

    let mut several = serde_json::to_value(settings()).expect("settings are JSON");
    several["schema"] = json!(2);
    several["links"] = json!([{"id": "a", "peer": "eu", "dial": "In", "topics": ["a/#/b"]}]);
    several["authentication"]["jwt"] = json!({"jwks": "{}"});
    let (bad, _) = check(&several.to_string());
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert_eq!(bad.status.code(), Some(1));
    for mistake in ["schema: is 2", "links[0].topics[0]: `a/#/b`", "authentication.jwt.jwks: "] {
        assert!(said.contains(mistake), "{mistake}: {said}");
    }

    let own = Certificates::new();
    let mixed = ServerTls { key_pem: Certificates::new().key_pem, ..own.server() };
    for (tls, code) in [(own.server(), 0), (mixed, 1)] {
        let (output, _) = check(&serde_json::to_string(&settings().tls(tls)).expect("settings are JSON"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("listeners[1].tls: is of no use: "), code == 1, "{said}");
    }
}
