//! One node as it runs in a pod: settings from several files, the operator's port over TLS, the probes in the clear.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command};

use jiff::Timestamp;
use mqlink::admin::{Client, ClientError, NodeName, Pass};
use mqlink::pki::{Authority, LeafRequest, Role, Usage};
use mqlink::settings::inventory::SessionQuery;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::clients::{Kind, Paho, Post, Rumqttc, Who};
use crate::harness::{MQLINK, SettingsExt, free_port, get, settings, signal, until};

struct Pod {
    child: Child,
    admin: SocketAddr,
    probes: SocketAddr,
    authority: Authority,
    _folder: TempDir,
}

fn seed() -> impl FnMut(&mut [u8]) {
    let mut next = 0_u8;
    move |buffer| {
        buffer.fill_with(|| {
            next = next.wrapping_mul(5).wrapping_add(3);
            next
        });
    }
}

fn node_role() -> Role {
    Role::Node { namespace: "mqtt".into(), cluster: "solo".into(), node: "*".into() }
}

impl Pod {
    fn start(pieces: &[(&str, String)]) -> Pod {
        let folder = TempDir::new().expect("a temporary folder");
        let (config, tls) = (folder.path().join("config"), folder.path().join("tls"));
        let authority = Authority::mint("solo", Timestamp::now(), &mut seed());
        let [admin, probes] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        std::fs::create_dir(&config).expect("writable");
        std::fs::create_dir(&tls).expect("writable");
        for (name, text) in pieces {
            std::fs::write(config.join(name), text).expect("writable");
        }
        let leaf = issue(&authority, node_role());
        let files = [("tls.crt", leaf.certificate_pem), ("tls.key", leaf.key_pem), ("ca.crt", leaf.ca_pem)];
        for (name, text) in files {
            std::fs::write(tls.join(name), text).expect("writable");
        }
        let child = Command::new(MQLINK)
            .args(["broker", "--node", "solo-0", "--log", "warn", "--config"])
            .arg(&config)
            .args(["--admin-listen", &admin.to_string(), "--admin-tls"])
            .arg(&tls)
            .args(["--probe-listen", &probes.to_string()])
            .spawn()
            .expect("the binary is built");
        Pod { child, admin, probes, authority, _folder: folder }
    }

    fn client(&self, role: Role) -> Client {
        let node = NodeName { namespace: "mqtt".into(), cluster: "solo".into(), node: "solo-0".into() };
        Client::over_tls(self.admin, node, &issue(&self.authority, role)).expect("a pass")
    }

    /// The first line of the answer to a probe, if there is one.
    fn probe(&self, path: &str) -> Option<String> {
        get(self.probes, path)?.lines().next().map(str::to_owned)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn issue(authority: &Authority, role: Role) -> Pass {
    let request = LeafRequest { role: Some(role), usage: Usage::Both, dns: vec![], ips: vec![] };
    let leaf = authority.issue(&request, Timestamp::now(), &mut seed()).expect("a leaf");
    Pass {
        ca_pem: authority.certificate_pem.clone(),
        certificate_pem: leaf.certificate_pem,
        key_pem: leaf.key_pem,
    }
}

#[test]
fn a_pod_serves_its_operator_and_its_kubelet() {
    let settings = settings().users(&[("ann", "plain:secret")]);
    let mut base = serde_json::to_value(&settings).expect("settings are JSON");
    let users = serde_json::json!({ "authentication": base["authentication"].take() });
    base.as_object_mut().expect("an object").remove("authentication");
    let mut pod = Pod::start(&[("base.json", base.to_string()), ("users.json", users.to_string())]);
    until("readiness", || pod.probe("/readyz").filter(|line| line == "HTTP/1.1 200 OK"));
    assert_eq!(pod.probe("/livez").as_deref(), Some("HTTP/1.1 200 OK"));
    assert_eq!(pod.probe("/v1/settings").as_deref(), Some("HTTP/1.1 404 Not Found"));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let refused = runtime.block_on(pod.client(node_role()).put_settings(&settings)).expect_err("no operator");
    assert!(matches!(refused, ClientError::Forbidden(_)), "{refused}");

    let mut open = settings.clone();
    open.authentication.users.clear();
    open.authentication.anonymous = true;
    let applied = runtime.block_on(pod.client(Role::Operator).put_settings(&open)).expect("the operator");
    assert_eq!(applied.settings_hash, open.hash());
    let who = Who::at(settings.listeners[0].port);
    let mut listens = Paho.listen(&who, "any");
    Rumqttc.publish(&who, &[Post::new("any", "through", 1)]);
    assert_eq!(listens.next().payload, "through");
    let query = || SessionQuery { connected: true, ..SessionQuery::default() };
    let listed = runtime.block_on(pod.client(Role::Operator).sessions(query())).expect("the operator");
    assert!(!listed.items.is_empty() || listed.next.is_some(), "a page of one shard may be empty");
    let refused = runtime.block_on(pod.client(node_role()).sessions(query())).expect_err("no operator");
    assert!(matches!(refused, ClientError::Forbidden(_)), "{refused}");

    signal(pod.child.id(), Signal::SIGTERM);
    assert_eq!(pod.child.wait().expect("our child").code(), Some(0));
}

#[test]
fn a_pod_whose_settings_no_node_takes_waits_for_its_operator() {
    let settings = settings().users(&[("ann", "plain:secret")]);
    let mut weak = serde_json::to_value(&settings).expect("settings are JSON");
    let jwks = r#"{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}"#;
    weak["authentication"]["jwt"] = serde_json::json!({ "jwks": jwks });
    let mut pod = Pod::start(&[("base.json", weak.to_string())]);
    until("a node that lives", || pod.probe("/livez").filter(|line| line == "HTTP/1.1 200 OK"));
    assert_eq!(pod.probe("/readyz").as_deref(), Some("HTTP/1.1 503 Service Unavailable"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let applied = runtime.block_on(pod.client(Role::Operator).put_settings(&settings)).expect("the operator");
    assert_eq!(applied.settings_hash, settings.hash());
    until("readiness", || pod.probe("/readyz").filter(|line| line == "HTTP/1.1 200 OK"));
    signal(pod.child.id(), Signal::SIGTERM);
    assert_eq!(pod.child.wait().expect("our child").code(), Some(0));
}
