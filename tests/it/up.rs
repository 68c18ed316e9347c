//! `mqlink up` as a person and as a script use it: what it says, what it waits for, what it leaves behind.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::clients::{Kind, Paho, Post, Rumqttc, Who};
use crate::harness::{MQLINK, alive, children, free_port, signal, until};

/// A manifest of two linked clusters, in a folder of its own.
struct Manifest {
    folder: TempDir,
    text: String,
    ports: [u16; 4],
}

const USERS: &str = "  authentication: {anonymous: true}\n";

impl Manifest {
    fn new() -> Manifest {
        let ports = [free_port(), free_port(), free_port(), free_port()];
        let cluster = |name: &str, port: u16, link_port: u16| {
            format!(
                "apiVersion: mqlink.dev/v1alpha1\nkind: MqttCluster\nmetadata: {{name: {name}}}\nspec:\n  \
                 listeners:\n  - {{name: mqtt, protocol: MQTT, port: {port}}}\n  linkListener: {{port: {link_port}}}\n{USERS}---\n"
            )
        };
        let link = "apiVersion: mqlink.dev/v1alpha1\nkind: ClusterLink\nmetadata: {name: us-eu}\nspec:\n  \
                    enabled: true\n  clusterRef: {name: us}\n  topics: [\"#\"]\n  \
                    remote: {clusterRef: {name: eu}, topics: [\"#\"]}\n";
        let text = cluster("us", ports[0], ports[1]) + &cluster("eu", ports[2], ports[3]) + link;
        let manifest = Manifest { folder: TempDir::new().expect("a temporary folder"), text, ports };
        manifest.write(&manifest.text);
        manifest
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("x.yaml")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("writable");
    }

    /// Replaces a part that is there.
    fn edit(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "the case names a part of the manifest");
        self.text = self.text.replacen(from, to, 1);
        self.write(&self.text);
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(MQLINK);
        command.args(["up", "-f"]).arg(self.path()).args(more).stdin(Stdio::null());
        command
    }

    /// Runs `up` to its end.
    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().expect("the binary is built")
    }

    /// Starts `up` and waits until everything is Ready.
    fn up(&self, more: &[&str]) -> Running {
        let mut child = self.command(more).stdout(Stdio::piped()).spawn().expect("the binary is built");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut running = Running { child, lines, said: String::new() };
        running.says("clusterlink/us-eu Ready=True");
        running
    }
}

/// A running `up`.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    said: String,
}

impl Running {
    /// Reads on until a line has this in it.
    #[track_caller]
    fn says(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).expect("lines");
            assert!(read > 0, "`up` ended without saying `{part}`:\n{}", self.said);
            self.said.push_str(&line);
            if line.contains(part) {
                return line;
            }
        }
    }

    fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = children(self.child.id()).iter().map(|node| node.pid).collect();
        pids.sort_unstable();
        pids
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal(self.child.id(), Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn wait_ends_once_everything_is_ready() {
    let output = Manifest::new().run(&["--wait", "60s"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    assert!(said.contains("Everything is ephemeral"), "{said}");
    assert!(said.contains("clusterlink/us-eu   us"), "{said}");
}

#[test]
fn wait_names_what_is_not_ready() {
    let mut manifest = Manifest::new();
    manifest.edit("remote: {clusterRef: {name: eu}", "remote: {clusterRef: {name: nowhere}");
    let output = manifest.run(&["--wait", "1s"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3));
    assert!(said.contains("clusterlink/us-eu Ready=False ClusterNotFound"), "{said}");
}

#[test]
fn a_command_finds_everything_and_gives_its_exit_code() {
    let manifest = Manifest::new();
    let script = format!("'{MQLINK}' status -o json; echo $MQLINK_US_MQTT $MQLINK_EU_MQTT; exit 7");
    let output = manifest.run(&["--run", &script]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(7), "{said}\n{}", text(&output.stderr));
    let [us, _, eu, _] = manifest.ports;
    assert!(said.contains(&format!("127.0.0.1:{us} 127.0.0.1:{eu}")), "{said}");
    assert!(said.contains("\"routesSynced\""), "{said}");
}

#[test]
fn a_command_that_cannot_begin_in_time_does_not_begin() {
    let mut manifest = Manifest::new();
    manifest.edit("remote: {clusterRef: {name: eu}", "remote: {clusterRef: {name: nowhere}");
    let output = manifest.run(&["--run", "echo begun", "--wait", "1s"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(!text(&output.stdout).contains("begun"));
}

#[test]
fn mistakes_name_file_line_and_field() {
    let mut manifest = Manifest::new();
    manifest.edit("enabled: true", "enabled: maybe");
    let output = manifest.run(&[]);
    let expected = format!(
        "{}:23:3: ClusterLink default/us-eu spec.enabled must be true or false",
        manifest.path().display()
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&expected), "{}", text(&output.stderr));

    let output =
        Command::new(MQLINK).args(["up", "-f", "/nowhere.yaml"]).output().expect("the binary is built");
    assert!(text(&output.stderr).contains("failed to read /nowhere.yaml"), "{}", text(&output.stderr));
}

#[test]
fn a_port_in_use_is_named_or_replaced() {
    let manifest = Manifest::new();
    let port = manifest.ports[0];
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port was free");
    let output = manifest.run(&["--wait", "60s"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains(&format!("port {port}, wanted by listener mqtt of MqttCluster default/us, is in use")),
        "{said}"
    );
    assert!(said.contains("--ports free"), "{said}");

    let output = manifest.run(&["--wait", "60s", "--ports", "free"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    assert!(
        said.contains(&format!("Port {port} is in use: listener mqtt of MqttCluster default/us has ")),
        "{said}"
    );
}

#[test]
fn storage_that_is_asked_for_later_keeps() {
    let mut manifest = Manifest::new();
    manifest.edit(USERS, &format!("{USERS}  storage: {{size: 1Gi, durability: None}}\n"));
    let up = manifest.up(&[]);
    let before = up.pids();
    manifest.edit("durability: None", "durability: Interval");
    let kept = |not: u32| {
        let nodes = children(up.child.id());
        nodes.into_iter().find(|node| node.pid != not && node.option("--data").is_some()).map(|node| node.pid)
    };
    let first = until("a node that keeps its state", || kept(0));
    assert_eq!(up.pids().iter().filter(|pid| !before.contains(pid)).count(), 1, "the other runs on");

    let us = Who::at(manifest.ports[0]);
    let reachable = || std::net::TcpStream::connect(("127.0.0.1", us.port)).ok();
    until("its listener", reachable);
    Rumqttc.publish(&us, &[Post::new("kept", "on disk", 1).retained()]);
    signal(first, Signal::SIGKILL);
    until("its successor", || kept(first));
    until("its listener", reachable);
    assert_eq!(Paho.listen(&us, "kept").next().payload, "on disk");
}

#[test]
fn an_edit_with_mistakes_changes_nothing() {
    let mut manifest = Manifest::new();
    let mut up = manifest.up(&[]);
    let pids = up.pids();
    manifest.edit("enabled: true", "enabled: maybe");
    let line = up.says("must be true or false");
    assert!(line.starts_with(&format!("{}:23:3: ", manifest.path().display())), "{line}");
    up.says("what is in force stays");
    let mut there = Paho.listen(&Who::at(manifest.ports[2]), "after");
    Rumqttc.publish(&Who::at(manifest.ports[2]), &[Post::new("after", "the edit", 1)]);
    assert_eq!(there.next().payload, "the edit");
    manifest.edit("enabled: maybe", "enabled: false");
    up.says("clusterlink/us-eu Ready=False");
    assert_eq!(up.pids(), pids);
}

#[test]
fn a_manifest_that_is_emptied_ends_nothing() {
    let mut manifest = Manifest::new();
    let mut up = manifest.up(&[]);
    let pids = up.pids();
    manifest.write("");
    up.says("the manifests hold no MqttCluster");
    up.says("what is in force stays");
    manifest.edit("enabled: true", "enabled: false");
    up.says("clusterlink/us-eu Ready=False Disabled");
    assert_eq!(up.pids(), pids);
}

#[test]
fn an_edit_that_is_refused_can_be_taken_back() {
    let mut manifest = Manifest::new();
    let mut up = manifest.up(&[]);
    let pids = up.pids();
    let good = manifest.text.clone();
    let before = up.said.len();
    let (port, other) = (format!("linkListener: {{port: {}}}", manifest.ports[1]), free_port());
    manifest.edit(&port, &format!("replicas: 3\n  linkListener: {{port: {other}}}"));
    up.says("mqttcluster/us Ready=False ReplicasUnsupported");
    // The node still has the port of before.
    manifest.write(&good);
    up.says("mqttcluster/us Ready=True");
    let said = &up.said[before..];
    assert!(!said.contains("clusterlink/us-eu Ready="), "the link stays as it is: {said}");
    assert_eq!(up.pids(), pids);
}

#[test]
fn a_disabled_link_is_not_waited_for() {
    let mut manifest = Manifest::new();
    manifest.edit("enabled: true", "enabled: false");
    let output = manifest.run(&["--wait", "60s"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_directory_of_others_is_left_alone() {
    let manifest = Manifest::new();
    let theirs = manifest.folder.path().to_str().expect("a path of letters");
    let output = manifest.run(&["--data", theirs]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("it holds files that are not ours"), "{}", text(&output.stderr));
}

#[test]
fn a_directory_that_is_deleted_is_missed() {
    let manifest = Manifest::new();
    let mut up = manifest.up(&["--data", manifest.data().to_str().expect("a path of letters")]);
    let pids = up.pids();
    std::fs::remove_dir_all(manifest.data()).expect("it is there");
    up.says("is gone: a node that dies cannot start again");
    assert_eq!(up.pids(), pids);
}

#[test]
fn what_a_cluster_with_storage_keeps_survives_a_restart() {
    let mut manifest = Manifest::new();
    manifest.edit("  linkListener", "  storage: {size: 1Gi}\n  linkListener");
    let who = Who::at(manifest.ports[0]).named("sensor");
    let data = manifest.data().display().to_string();
    let options = ["--data", data.as_str()];
    let first = manifest.up(&options);
    assert!(!first.said.contains("us: everything is ephemeral"), "{}", first.said);
    Rumqttc.publish(&who, &[Post::new("kept/a", "a", 1).retained()]);
    drop(first);
    let _second = manifest.up(&options);
    assert_eq!(Paho.listen(&who, "kept/#").payloads(1), ["a"]);
}

#[test]
fn users_and_links_change_without_a_restart() {
    let mut manifest = Manifest::new();
    let mut up = manifest.up(&[]);
    let pids = up.pids();
    let mut barred = Paho.listen(&Who::at(manifest.ports[0]), "any");
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: users}\nstringData: {users: \"ann:plain:secret\"}\n";
    manifest.text.push_str(secret);
    manifest.edit(USERS, "  authentication: {usersSecretRef: {name: users}}\n");
    barred.gone();
    let mut named = Paho.listen(&Who::at(manifest.ports[0]).named("ann-1").login("ann", "secret"), "any");
    Rumqttc.publish(&Who::at(manifest.ports[0]).login("ann", "secret"), &[Post::new("any", "hello", 1)]);
    assert_eq!(named.next().payload, "hello");

    manifest.edit("enabled: true", "enabled: false");
    up.says("clusterlink/us-eu Ready=False Disabled");
    manifest.edit("enabled: false", "enabled: true");
    up.says("clusterlink/us-eu Ready=True");
    assert_eq!(up.pids(), pids);
}

#[test]
fn a_resync_is_asked_for_in_the_manifest_and_told_in_the_status() {
    let mut manifest = Manifest::new();
    let data = manifest.data().display().to_string();
    let up = manifest.up(&["--data", &data]);
    let pids = up.pids();
    manifest.edit("{name: us-eu}", "{name: us-eu, annotations: {mqlink.dev/resync: monday}}");
    let done = || {
        let asked = Command::new(MQLINK).args(["status", "-o", "json", "--data", &data]).output();
        let status: Value = serde_json::from_slice(&asked.expect("the binary is built").stdout).ok()?;
        (status["links"][0]["status"]["lastHandledResync"] == "monday").then_some(())
    };
    until("a resync that is done", done);
    assert_eq!(up.pids(), pids);
}

#[test]
fn a_deleted_cluster_ends_its_node_and_no_other() {
    let mut manifest = Manifest::new();
    let data = manifest.data();
    let mut up = manifest.up(&["--data", data.to_str().expect("a path of letters")]);
    let nodes = children(up.child.id());
    let pid_of =
        |name: &str| nodes.iter().find(|node| node.option("--node") == Some(name)).expect("it runs").pid;
    let (us, eu) = (pid_of("us-0"), pid_of("eu-0"));
    let (start, end) =
        (manifest.text.find("---").expect("documents"), manifest.text.rfind("---").expect("documents"));
    let without_eu = format!("{}{}", &manifest.text[..start], &manifest.text[end..]);
    manifest.text = without_eu;
    manifest.write(&manifest.text);
    up.says("mqttcluster/eu is gone");
    until("the end of eu's node", || (!alive(eu)).then_some(()));
    assert!(alive(us));
    until("the end of eu's settings", || (!data.join("default.eu-0.json").exists()).then_some(()));
    assert!(data.join("default.us-0.json").exists());
}

#[test]
fn a_directory_keeps_credentials_and_serves_one_at_a_time() {
    let manifest = Manifest::new();
    let data = manifest.data();
    let data_text = data.to_str().expect("a path of letters").to_owned();
    let minted = |data: &Path| -> Value {
        let text = std::fs::read(data.join("minted.json")).expect("it is there");
        serde_json::from_slice(&text).expect("it is JSON")
    };
    let up = manifest.up(&["--data", &data_text]);
    let first = minted(&data);
    let second = manifest.run(&["--data", &data_text]);
    assert!(text(&second.stderr).contains("another mqlink up uses it"), "{}", text(&second.stderr));
    let status =
        Command::new(MQLINK).args(["status", "--data", &data_text]).output().expect("the binary is built");
    assert!(text(&status.stdout).contains("clusterlink/us-eu"), "{}", text(&status.stderr));
    drop(up);

    let status =
        Command::new(MQLINK).args(["status", "--data", &data_text]).output().expect("the binary is built");
    assert_eq!(status.status.code(), Some(1));
    let up = manifest.up(&["--data", &data_text]);
    assert_eq!(minted(&data), first);
    drop(up);
    for entry in std::fs::read_dir(&data).expect("a directory") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("metadata").permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{} is open to others", entry.path().display());
    }
    assert_eq!(std::fs::metadata(&data).expect("metadata").permissions().mode() & 0o777, 0o700);
}
