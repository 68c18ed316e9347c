//! What nodes say, and what becomes of it in statuses: without sockets, at any time.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::world::{World, id, two_regions};
use crate::admin::StatusLine;
use crate::operator::build::Kind;
use crate::operator::nodes::{NodeId, Sight};
use crate::operator::shelf::Fetched;
use crate::operator::write::Write;
use crate::plan::{Key, Pushed};
use crate::settings::Settings;
use crate::settings::report::{
    LinkConnections, LinkCounters, LinkReport, NodeReport, SentCounters, Verdict, VerdictStatus,
};

const NO_POD: &str = "Node us-east-0 has no pod yet; should none come, `kubectl -n mqtt describe statefulset us-east` says why.";

impl World {
    /// What a kubelet would make of a cluster.
    fn pod(&mut self, cluster: &str, ip: Option<&str>, is_ready: bool) {
        let set = self.objects[&id(Kind::StatefulSet, cluster)]["metadata"]["uid"].clone();
        let ready = if is_ready { "True" } else { "False" };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{cluster}-0"), "namespace": "mqtt",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": cluster, "uid": set, "controller": true}],
            },
            "spec": {"containers": [{"name": "broker", "ports": [{"name": "admin", "containerPort": 11884}]}]},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
        });
        self.put(id(Kind::Pod, &format!("{cluster}-0")), pod);
    }

    fn pods(&mut self) {
        self.pod("us-east", Some("10.0.0.1"), true);
        self.pod("eu-west", Some("10.0.0.2"), true);
    }

    fn node(&self, cluster: &str) -> NodeId {
        let uid = &self.objects[&id(Kind::Pod, &format!("{cluster}-0"))]["metadata"]["uid"];
        NodeId {
            cluster: Key::new("mqtt", cluster),
            node: format!("{cluster}-0"),
            uid: uid.as_str().expect("a uid").to_owned(),
        }
    }

    /// Whether it is worth a decision.
    fn hear(&mut self, cluster: &str, sight: Sight) -> bool {
        let node = self.node(cluster);
        self.decider.heard.hear(&node, sight, self.now)
    }

    /// What a node says that runs what it was ordered to, and is content.
    fn report(&self, cluster: &str) -> NodeReport {
        let order = &self.decider.orders[&self.node(cluster)];
        let settings: Settings = serde_json::from_slice(&order.rendering.json).expect("a document");
        let verdict = || Verdict::new(VerdictStatus::True, "Good", "");
        NodeReport {
            node: format!("{cluster}-0"),
            version: "0.1.0".to_owned(),
            settings_hash: order.rendering.hash.clone(),
            links: settings
                .links
                .iter()
                .map(|link| LinkReport {
                    id: link.id.clone(),
                    revision: link.revision.clone(),
                    connected: verdict(),
                    peer_agrees: verdict(),
                    routes_synced: verdict(),
                    connections: LinkConnections { wanted: 1, open: 1 },
                    rtt_ms: Some(1),
                    ..LinkReport::default()
                })
                .collect(),
            ..NodeReport::default()
        }
    }

    fn snapshot(&mut self, cluster: &str) -> bool {
        let report = self.report(cluster);
        self.hear(cluster, Sight::Line(StatusLine::Snapshot(report.into())))
    }

    fn beat(&mut self) -> bool {
        let one = self.hear("us-east", Sight::Line(StatusLine::Beat(1)));
        self.hear("eu-west", Sight::Line(StatusLine::Beat(1))) || one
    }

    fn status(&self, kind: Kind, name: &str) -> &Value {
        &self.objects[&id(kind, name)]["status"]
    }

    /// As `True/Ready: message`.
    fn said(&self, kind: Kind, name: &str, type_: &str) -> String {
        let conditions = self.status(kind, name)["conditions"].as_array().expect("conditions");
        let found = conditions.iter().find(|it| it["type"] == type_).unwrap_or_else(|| panic!("no {type_}"));
        let word = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        format!("{}/{}: {}", word("status"), word("reason"), word("message"))
    }

    #[track_caller]
    fn check(&self, kind: Kind, name: &str, type_: &str, expected: &str) {
        let said = self.said(kind, name, type_);
        assert!(said.starts_with(expected), "{type_} of {name} is {said}, not {expected}");
    }

    #[track_caller]
    fn check_link(&self, type_: &str, expected: &str) {
        self.check(Kind::ClusterLink, "us-eu", type_, expected);
    }

    /// Two clusters and a link, all of it running.
    fn running() -> World {
        let mut world = two_regions();
        world.settle();
        world.pods();
        world.settle();
        world.snapshot("us-east");
        world.snapshot("eu-west");
        world.settle();
        world
    }
}

#[test]
fn a_link_is_ready_when_both_nodes_say_so() {
    let mut world = two_regions();
    world.settle();
    world.check_link("Ready", &format!("False/PodsPending: {NO_POD}"));
    world.pod("us-east", None, false);
    world.pod("eu-west", Some("10.0.0.2"), false);
    world.settle();
    world.check_link("Ready", "False/PodsPending: Node us-east-0 is not ready: its pod has no address yet.");
    assert_eq!(world.decider.orders.len(), 1, "a pod is dialled, ready or not, once it has an address");
    world.pods();
    world.settle();
    world.check_link("Ready", "Unknown/NoReport: Node us-east-0 has not reported yet.");
    assert!(world.snapshot("us-east"));
    assert!(world.snapshot("eu-west"));
    world.settle();
    world.check_link("Ready", "True/Ready");
    for cluster in ["us-east", "eu-west"] {
        world.check(Kind::MqttCluster, cluster, "Ready", "True/Ready");
        world.check(Kind::MqttCluster, cluster, "ConfigApplied", "True/Applied");
    }
    let status = world.status(Kind::MqttCluster, "us-east");
    assert_eq!(
        (&status["replicas"], &status["readyReplicas"], &status["version"]),
        (&json!(1), &json!(1), &json!("0.1.0"))
    );
    assert_eq!(status["selector"], "app.kubernetes.io/name=mqlink,mqlink.dev/cluster=us-east");
    assert_eq!(status["links"], json!({"total": 1, "ready": 1}));
}

#[test]
fn silence_makes_unknown_after_fifteen_seconds() {
    let mut world = World::running();
    world.check_link("Ready", "True/Ready");
    let heard = world.now;
    for _ in 0..3 {
        world.now += Duration::from_secs(5);
        assert!(!world.beat(), "a beat is no news");
    }
    assert!(!world.decider.heard.has_turned(heard, world.now));
    assert_eq!(world.settle(), 0, "and changes nothing");
    world.beat();
    let last = world.now;
    world.now += Duration::from_millis(14_999);
    assert!(!world.decider.heard.has_turned(last, world.now));
    assert_eq!(world.decider.heard.next_turn(world.now), Some(last + Duration::from_secs(15)));
    world.now += Duration::from_millis(1);
    assert!(world.decider.heard.has_turned(last, world.now));
    assert!(world.hear("eu-west", Sight::Line(StatusLine::Beat(9))), "a beat after silence is news");
    world.settle();
    world.check_link("Ready", "Unknown/NoReport: Node us-east-0 has been silent for more than 15 s.");
    world.check_link("Connected", "Unknown/NoReport");
    world.check(Kind::MqttCluster, "us-east", "Available", "Unknown/NoReport");
    world.check(Kind::MqttCluster, "eu-west", "Ready", "True/Ready");
    assert!(world.snapshot("us-east"));
    world.settle();
    world.check_link("Ready", "True/Ready");
}

#[test]
fn why_nobody_answers_is_said() {
    let mut world = World::running();
    let why = || Sight::Unreachable("failed to reach 10.0.0.1:11884: no route to host".to_owned());
    assert!(!world.hear("us-east", why()), "its last word still counts");
    assert_eq!(world.settle(), 0);
    world.now += Duration::from_secs(20);
    world.settle();
    world.check_link("Ready", "Unknown/NoReport: Node us-east-0 has been silent for more than 15 s (failed to reach 10.0.0.1:11884: no route");
    world.now += Duration::from_secs(1);
    assert!(!world.hear("us-east", why()), "the same again is no news");
    let pod = id(Kind::Pod, "us-east-0");
    world.delete(&pod);
    world.settle();
    world.check_link("Programmed", &format!("False/PodsPending: {NO_POD}"));
    world.check_link("Connected", "Unknown/PodsPending");
    world.check(Kind::MqttCluster, "us-east", "Available", "False/PodsPending");
    assert_eq!(world.status(Kind::MqttCluster, "us-east")["replicas"], 0);
}

/// Kubernetes takes back that a pod is ready when it hears nothing of its Kubernetes node, and deletes it minutes later; it is
/// there until somebody says that it is not.
#[test]
fn a_pod_that_kubernetes_lost_is_unknown_until_somebody_gives_it_up() {
    let mut world = World::running();
    let pod = id(Kind::Pod, "us-east-0");
    world.change(&pod, |pod| {
        pod["spec"]["nodeName"] = json!("node2");
        pod["status"]["conditions"] = json!([
            {"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"},
        ]);
    });
    world.settle();
    let lost =
        "Node us-east-0 is not ready: Kubernetes hears nothing of its node node2, and makes no other pod";
    // It reports all the same: clients have no way to it.
    world.check(Kind::MqttCluster, "us-east", "Available", &format!("False/PodsPending: {lost}"));
    world.now += Duration::from_secs(16);
    world.settle();
    let is_unknown = |world: &World| {
        for type_ in ["Progressing", "Available", "Ready"] {
            world.check(Kind::MqttCluster, "us-east", type_, &format!("Unknown/NoReport: {lost}"));
        }
        for type_ in ["Programmed", "Connected", "Ready"] {
            world.check_link(type_, &format!("Unknown/NoReport: {lost}"));
        }
    };
    is_unknown(&world);
    world.change(&pod, |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    world.settle();
    is_unknown(&world);
    // Its kubelet is back, and ends it.
    world.change(&pod, |pod| pod["status"]["conditions"][1]["status"] = json!("False"));
    world.settle();
    world.check_link("Ready", &format!("False/PodsPending: {NO_POD}"));
}

#[test]
fn a_pod_whose_readiness_gate_is_not_met_is_not_lost() {
    let mut world = World::running();
    world.change(&id(Kind::Pod, "us-east-0"), |pod| {
        pod["spec"]["nodeName"] = json!("node2");
        pod["status"]["conditions"] = json!([
            {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"},
            {"type": "ContainersReady", "status": "True"},
        ]);
    });
    world.settle();
    let pending = "False/PodsPending: Node us-east-0 is not ready: its pod is not ready.";
    world.check(Kind::MqttCluster, "us-east", "Available", pending);
}

#[test]
fn what_a_pod_of_before_says_is_not_heard() {
    let mut world = World::running();
    let (before, report) = (world.node("us-east"), world.report("us-east"));
    world.delete(&id(Kind::Pod, "us-east-0"));
    world.pod("us-east", Some("10.0.0.3"), true);
    world.settle();
    let snapshot = Sight::Line(StatusLine::Snapshot(report.into()));
    assert!(!world.decider.heard.hear(&before, snapshot, world.now));
    world.settle();
    world.check_link("Ready", "Unknown/NoReport: Node us-east-0 has not reported yet.");
}

#[test]
fn a_pod_that_nobody_of_ours_made_is_not_dialled() {
    let mut world = two_regions();
    world.settle();
    world.pod("us-east", Some("10.0.0.1"), true);
    let pod = id(Kind::Pod, "us-east-0");
    world.change(&pod, |pod| pod["metadata"]["ownerReferences"][0]["uid"] = json!("somebody"));
    world.settle();
    assert!(world.decider.orders.is_empty());
    world.check_link("Ready", &format!("False/PodsPending: {NO_POD}"));
}

#[test]
fn why_a_pod_does_not_run_is_said() {
    let mut world = two_regions();
    world.settle();
    world.pod("us-east", None, false);
    let pod = id(Kind::Pod, "us-east-0");
    let mut check = |status: Value, expected: &str| {
        world.change(&pod, |pod| pod["status"] = status);
        world.settle();
        world.check(Kind::MqttCluster, "us-east", "Ready", expected);
    };
    let waiting = |reason: &str, message: &str| {
        json!({"containerStatuses": [{"name": "broker", "image": "a/b:1", "imageID": "", "ready": false, "restartCount": 1,
            "state": {"waiting": {"reason": reason, "message": message}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "one\nfailed to read it\n"}}}]})
    };
    check(
        waiting("ErrImagePull", "rpc error: 17"),
        "False/NodeFailing: Node us-east-0 does not run: its image a/b:1 cannot be pulled",
    );
    check(
        waiting("CrashLoopBackOff", "back-off 10s"),
        "False/NodeFailing: Node us-east-0 does not run: it ends again and again (CrashLoopBackOff); the last time Error, \
         exit code 1: failed to read it",
    );
    check(waiting("ContainerCreating", ""), "False/PodsPending");
    let why = "Node us-east-0 does not run: CreateContainerConfigError: configmap \"a\" not found";
    check(
        waiting("CreateContainerConfigError", "configmap \"a\" not found"),
        &format!("False/NodeFailing: {why}"),
    );
    check(
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}),
        "False/NodeFailing: Node us-east-0 does not run: it cannot be scheduled (Unschedulable): 0/1 nodes",
    );
    // Nobody but a person puts an `env` right that leads nowhere.
    for (reason, is_stalled) in [("CreateContainerConfigError", true), ("ErrImagePull", false)] {
        world.change(&pod, |pod| pod["status"] = waiting(reason, ""));
        world.settle();
        assert_eq!(!world.condition("us-east", "Stalled").is_empty(), is_stalled, "{reason}");
    }
}

#[test]
fn what_ticks_is_no_news() {
    let mut world = World::running();
    let mut report = world.report("us-east");
    report.connections = 7;
    report.sessions = 9;
    assert!(!world.hear("us-east", Sight::Line(StatusLine::Node(report.clone().into()))));
    let mut link = report.links[0].clone();
    link.counters = LinkCounters {
        sent: SentCounters { sent: 12, ..SentCounters::default() },
        ..LinkCounters::default()
    };
    link.rtt_ms = Some(3);
    assert!(!world.hear("us-east", Sight::Line(StatusLine::Link(link.clone().into()))));
    link.rtt_ms = Some(30);
    assert!(!world.hear("us-east", Sight::Line(StatusLine::Link(link.clone().into()))), "it may jitter");
    for _ in 0..5 {
        world.now += Duration::from_secs(10);
        assert!(!world.beat());
    }
    world.now += Duration::from_secs(10);
    assert!(world.hear("us-east", Sight::Line(StatusLine::Beat(2))), "it stayed for a minute");
    world.beat();
    world.settle();
    assert_eq!(world.status(Kind::ClusterLink, "us-eu")["local"]["rtt"], "20-50ms");
    link.connected = Verdict::new(VerdictStatus::False, "DialFailed", "no route");
    assert!(world.hear("us-east", Sight::Line(StatusLine::Link(link.into()))));
    world.settle();
    world.check_link("Ready", "False/DialFailed: us-east: no route");
}

#[test]
fn a_rotated_secret_is_one_write_of_a_status() {
    let mut world = World::new();
    world.own(
        Kind::MqttCluster,
        "us-east",
        json!({"authentication": {"usersSecretRef": {"name": "people"}}}),
    );
    let rotate = |world: &mut World, password: &str| {
        let data = json!({"users": STANDARD.encode(format!("ann:plain:{password}"))});
        let secret = serde_json::from_value(json!({"data": data})).expect("a Secret");
        let fetched = Fetched { key: Key::new("mqtt", "people"), object: Ok(Some(secret)) };
        world.decider.picture.refer(world.now);
        assert!(world.decider.picture.shelf.take(fetched, world.now));
    };
    rotate(&mut world, "one");
    world.settle();
    world.pod("us-east", Some("10.0.0.1"), true);
    world.settle();
    world.snapshot("us-east");
    world.settle();
    world.check(Kind::MqttCluster, "us-east", "Ready", "True/Ready");
    let before = world.said(Kind::MqttCluster, "us-east", "ConfigApplied");
    rotate(&mut world, "two");
    let mut statuses = 0;
    for _ in 0..3 {
        for write in world.decide() {
            statuses += usize::from(matches!(write, Write::Status { .. }));
            world.perform(write);
        }
        world.snapshot("us-east");
    }
    assert_eq!(statuses, 1);
    let after = world.said(Kind::MqttCluster, "us-east", "ConfigApplied");
    assert!(after.starts_with("True/Applied: ") && after != before, "{before}, then {after}");
}

#[test]
fn settings_that_were_not_taken_are_said() {
    let mut world = World::running();
    world.change(&id(Kind::ClusterLink, "us-eu"), |link| link["spec"]["topics"] = json!(["other"]));
    world.settle();
    world.check_link("Programmed", "False/PodsPending");
    let hash = world.decider.orders[&world.node("us-east")].rendering.hash.clone();
    let outcome = Err("the node refuses: out of luck".to_owned());
    let failed = || Sight::Pushed(Pushed { settings_hash: hash.clone(), outcome: outcome.clone() });
    assert!(world.hear("us-east", failed()));
    assert!(!world.hear("us-east", failed()));
    world.settle();
    world.check_link(
        "Ready",
        "False/PushFailed: Node us-east-0 did not take its settings: the node refuses: out of luck",
    );
    world.check(Kind::MqttCluster, "us-east", "ConfigApplied", "False/PushFailed");
    // A node of another version calls the same settings differently.
    let mut report = world.report("us-east");
    report.settings_hash = "as it sees it".to_owned();
    world.hear("us-east", Sight::Line(StatusLine::Snapshot(report.into())));
    let outcome = Ok("as it sees it".to_owned());
    assert!(world.hear("us-east", Sight::Pushed(Pushed { settings_hash: hash.clone(), outcome })));
    world.settle();
    world.check(Kind::MqttCluster, "us-east", "ConfigApplied", "True/Applied");
}

#[test]
fn an_operator_that_starts_over_asks_before_it_writes() {
    let mut world = World::running();
    world.restart();
    let writes = world.decide();
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(world.decider.orders.len(), 2);
    world.snapshot("us-east");
    world.snapshot("eu-west");
    assert_eq!(world.settle(), 0, "all is as it was");
    world.restart();
    world.decide();
    world.now += Duration::from_secs(3);
    let writes = world.decide();
    assert!(
        writes.iter().all(|write| matches!(write, Write::Status { .. })) && writes.len() == 3,
        "nobody answers: {writes:?}"
    );
}

#[test]
fn a_node_cannot_say_what_an_object_cannot_hold() {
    let mut world = World::running();
    let mut report = world.report("us-east");
    let long = "x".repeat(100_000);
    report.version = long.clone();
    report.links[0].connected = Verdict::new(VerdictStatus::False, "not a reason!", &long);
    let many = (0..10_000).map(|number| LinkReport { id: format!("z{number}"), ..LinkReport::default() });
    report.links.extend(many);
    world.hear("us-east", Sight::Line(StatusLine::Snapshot(report.into())));
    for number in 0..1_000 {
        let link = LinkReport { id: format!("y{number}"), ..LinkReport::default() };
        world.hear("us-east", Sight::Line(StatusLine::Link(link.into())));
    }
    world.settle();
    world.check_link("Connected", "False/Other: us-east: xxx");
    assert!(world.said(Kind::ClusterLink, "us-eu", "Connected").len() < 33_000);
    let version = &world.status(Kind::MqttCluster, "us-east")["version"];
    assert_eq!(version.as_str().map(str::len), Some(64));
}

#[test]
fn an_idle_operator_writes_nothing_for_five_minutes() {
    let mut world = World::running();
    let begun = world.now;
    for _ in 0..60 {
        world.now += Duration::from_secs(5);
        assert!(!world.beat());
        assert!(!world.decider.heard.has_turned(begun, world.now), "no report grows old");
    }
    let (now, until) = (world.now, world.decider.next(world.now));
    assert!(until.is_none(), "nothing waits to be tried again: {:?}", until.map(|until| until - now));
    assert_eq!(world.settle(), 0);
}
