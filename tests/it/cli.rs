//! The commands as a person uses them: output, errors, exit codes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use crate::clients::{Kind, Paho, Post};
use crate::harness::{MQLINK, Node, free_port, settings};

/// Runs `mqlink` with these arguments and this standard input.
fn mqlink(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(MQLINK)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    // A command that fails at once does not read its input.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is text")
}

#[test]
fn pub_and_sub_need_nothing_else() {
    let node = Node::start(settings());
    let port = node.who().port.to_string();
    let mut sub = Command::new(MQLINK)
        .args(["sub", "-p", &port, "-t", "a/#", "-q", "1", "--count", "4", "--format", "%t=%p", "--ready"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let mut ready = String::new();
    let mut errors = BufReader::new(sub.stderr.take().expect("stderr is piped"));
    errors.read_line(&mut ready).expect("a line");
    assert_eq!(ready, "ready\n");

    assert!(mqlink(&["pub", "-p", &port, "-t", "a/1", "-q", "1", "-m", "argument"], "").status.success());
    assert!(mqlink(&["pub", "-p", &port, "-t", "a/2", "-q", "1", "-l"], "one\ntwo\n").status.success());
    assert!(mqlink(&["pub", "-p", &port, "-t", "a/3", "-q", "1", "-f", "-"], "whole").status.success());
    let output = sub.wait_with_output().expect("it ends after four messages");
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "a/1=argument\na/2=one\na/2=two\na/3=whole\n");
}

#[test]
fn count_publishes_as_often() {
    let node = Node::start(settings());
    let port = node.who().port.to_string();
    let mut subscriber = Paho.listen(&node.who(), "counted");
    assert!(
        mqlink(&["pub", "-p", &port, "-t", "counted", "-m", "x", "-q", "1", "-C", "3"], "").status.success()
    );
    Paho.publish(&node.who(), &[Post::new("counted", "marker", 1)]);
    assert_eq!(subscriber.payloads_until("marker"), ["x"; 3]);
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let port = free_port().to_string();
    let output = mqlink(&["pub", "-p", &port, "-t", "a", "-m", "b"], "");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&port) && said.lines().count() == 1, "{said}");
}

#[test]
fn a_time_that_is_up_has_its_own_exit_code() {
    let node = Node::start(settings());
    let port = node.who().port.to_string();
    let output = mqlink(&["sub", "-p", &port, "-t", "silence", "-C", "1", "-W", "200ms"], "");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[test]
fn wrong_usage_says_what_is_expected() {
    let output = mqlink(&["pub", "-t", "a/#", "-m", "x"], "");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("a/#"), "{}", text(&output.stderr));
}

#[test]
fn crds_prints_what_crds_holds() {
    let printed = text(&mqlink(&["crds"], "").stdout);
    for kind in ["mqttclusters", "clusterlinks"] {
        let path = format!("{}/crds/mqlink.dev_{kind}.yaml", env!("CARGO_MANIFEST_DIR"));
        let held = std::fs::read_to_string(&path).expect("crds/ holds it");
        assert!(
            printed.contains(held.trim_start_matches("---\n").trim_end()),
            "{path} is not what `crds` prints"
        );
    }
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let mut crds = Command::new(MQLINK)
        .arg("crds")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    drop(crds.stdout.take());
    let output = crds.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_payload_without_end_is_refused() {
    let output = mqlink(&["pub", "-t", "a", "-f", "/dev/zero"], "");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("failed to read /dev/zero: it is larger than an MQTT packet can be"), "{said}");
}

#[test]
fn what_is_no_mqtt_or_no_tls_is_told_apart() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(3) {
            let _ = stream.expect("a connection").write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let ca = tempfile::NamedTempFile::new().expect("a temporary file");
    let key = rcgen::generate_simple_self_signed(["ca".to_owned()]).expect("a certificate");
    std::fs::write(ca.path(), key.cert.pem()).expect("writable");
    let ca = ca.path().to_str().expect("a path of letters");
    for (more, expected) in [
        (["-V", "5"], "what answers is not MQTT; if the port speaks TLS, add --cafile or --tls"),
        (["-V", "3.1.1"], "what answers is not MQTT; if the port speaks TLS, add --cafile or --tls"),
        (["--cafile", ca], "the port seems to speak no TLS"),
    ] {
        let output = mqlink(&[&["pub", "-p", &port, "-t", "a", "-m", "b"], &more[..]].concat(), "");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_packet_that_the_broker_does_not_take_is_named() {
    let mut settings = settings();
    settings.limits.packet_bytes_max = 2_048;
    let node = Node::start(settings);
    let port = node.who().port.to_string();
    let output = mqlink(&["pub", "-p", &port, "-t", "a", "-f", "-"], &"x".repeat(4_000));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("bytes, the broker takes 2048; send less"), "{said}");
}
