//! What is said to be true, and from when on.
//!
//! Everything is there from the first visit on, nothing is True without a node that says so,
//! and Ready is the first that is False, else the first that is Unknown.

use super::*;
use crate::api::conditions::{OF_CLUSTER, OF_LINK, RECONCILING, STALLED, SUSPENDED};

#[test]
fn from_the_first_visit_on_all_conditions_are_there_in_order() {
    let plan = planned(&world(TWO));
    let types = |conditions: &Option<Vec<Condition>>| -> Vec<String> {
        conditions.iter().flatten().map(|condition| condition.type_.clone()).collect()
    };
    assert_eq!(types(&plan.links[&key("us-eu")].conditions), [&OF_LINK[..], &[RECONCILING]].concat());
    assert_eq!(types(&plan.clusters[&key("us")].conditions), [&OF_CLUSTER[..], &[RECONCILING]].concat());
    let settled = planned(&later(world(TWO)));
    assert_eq!(types(&settled.links[&key("us-eu")].conditions), OF_LINK);
    assert_eq!(types(&settled.clusters[&key("us")].conditions), OF_CLUSTER);
    insta::assert_snapshot!(table(&plan));
    for status in plan.links.values() {
        assert!(status.conditions.iter().flatten().all(|condition| condition.observed_generation == Some(1)));
    }
}

#[test]
fn nothing_is_true_without_a_report_but_what_needs_none() {
    let needs_none = ["Accepted", "ResolvedRefs"];
    let mut silent = later(world(TWO));
    for views in silent.reports.values_mut() {
        views.values_mut().for_each(|view| view.age = REPORT_AGE_MAX + Duration::from_millis(1));
    }
    for world in [world(TWO), silent] {
        let plan = planned(&world);
        let links = plan.links.values().flat_map(|status| status.conditions.iter().flatten());
        let clusters = plan.clusters.values().flat_map(|status| status.conditions.iter().flatten());
        let passing = [RECONCILING, STALLED];
        let claims = links.chain(clusters).filter(|c| !passing.contains(&c.type_.as_str()));
        for condition in claims.filter(|c| !needs_none.contains(&c.type_.as_str())) {
            assert_eq!(condition.status, "Unknown", "{condition:?}");
            assert!(!condition.reason.is_empty());
        }
    }
}

#[test]
fn a_report_counts_for_fifteen_seconds() {
    let mut world = later(world(TWO));
    view(&mut world, "eu").age = REPORT_AGE_MAX;
    check_link(&planned(&world), "us-eu", "Ready", "True/Ready");
    view(&mut world, "eu").age += Duration::from_millis(1);
    check_link(&planned(&world), "us-eu", "Ready", "Unknown/NoReport");
    check_cluster(&planned(&world), "eu", "Ready", "Unknown/NoReport");
    check_cluster(&planned(&world), "us", "Ready", "True/Ready");
}

#[test]
fn ready_is_the_first_false_else_the_first_unknown() {
    let set = |world: &mut World, cluster: &str, at: usize, status, reason: &str| {
        let link = &mut report(world, cluster).links[0];
        let verdicts = [&mut link.connected, &mut link.peer_agrees, &mut link.routes_synced];
        *verdicts.into_iter().nth(at).unwrap() = Verdict::new(status, reason, "Why.");
    };
    let mut world = later(world(TWO));
    set(&mut world, "eu", 0, VerdictStatus::Unknown, "ProbeTimeout");
    check_link(&planned(&world), "us-eu", "Ready", "Unknown/ProbeTimeout");
    set(&mut world, "us", 2, VerdictStatus::False, "Behind");
    check_link(&planned(&world), "us-eu", "Ready", "False/Behind");
    set(&mut world, "eu", 1, VerdictStatus::False, "LinkDisabled");
    let plan = planned(&world);
    check_link(&plan, "us-eu", "Ready", "False/LinkDisabled");
    check_link(&plan, "us-eu", "Connected", "Unknown/ProbeTimeout");
    assert_eq!(link_condition(&plan, "us-eu", "Ready").message, "eu: Why.");
}

#[test]
fn what_the_peer_cannot_answer_does_not_stand_in_the_way() {
    let mut world = later(world(TWO));
    for cluster in ["us", "eu"] {
        report(&mut world, cluster).links[0].routes_synced =
            Verdict::new(VerdictStatus::Unknown, "NotSupportedByPeer", "The peer has no digest.");
    }
    let plan = planned(&world);
    check_link(&plan, "us-eu", "RoutesSynced", "Unknown/NotSupportedByPeer");
    check_link(&plan, "us-eu", "Ready", "True/Ready");
    assert!(link_condition(&plan, "us-eu", "Ready").message.contains("no digest"));
}

#[test]
fn programmed_means_this_revision_on_every_node() {
    let mut world = later(world(TWO));
    check_link(&planned(&world), "us-eu", "Programmed", "True/Programmed");
    report(&mut world, "eu").links[0].revision = "other".into();
    check_link(&planned(&world), "us-eu", "Programmed", "False/PodsPending");
    report(&mut world, "eu").refused = Some("links[0] is odd".into());
    check_link(&planned(&world), "us-eu", "Ready", "False/PushFailed");
    report(&mut world, "eu").links.clear();
    check_link(&planned(&world), "us-eu", "Connected", "Unknown/PodsPending");
}

#[test]
fn a_disabled_link_is_not_ready_and_says_why() {
    let mut world = world(TWO);
    world.links[0].spec.enabled = Some(false);
    let plan = planned(&world);
    check_link(&plan, "us-eu", "Ready", "False/Disabled");
    assert!(
        plan.settings.values().all(|settings| !settings.links[0].enabled),
        "it holds its place on both sides"
    );
    check_link(&planned(&later(world)), "us-eu", "Ready", "False/Disabled");
}

#[test]
fn times_move_only_when_a_status_flips() {
    let mut world = later(world(TWO));
    let first = plan(&world, at(100), &mut random(1));
    let since = |plan: &Plan| link_condition(plan, "us-eu", "Ready").last_transition_time.0;
    assert_eq!(since(&first), at(100), "it was Unknown before");
    publish(&mut world, first);
    let second = plan(&world, at(200), &mut random(1));
    assert_eq!(since(&second), at(100));
    report(&mut world, "us").links[0].connected = Verdict::new(VerdictStatus::False, "DialFailed", "");
    let third = plan(&world, at(300), &mut random(1));
    assert_eq!(since(&third), at(300));
    publish(&mut world, third);
    report(&mut world, "us").links[0].connected = Verdict::new(VerdictStatus::False, "TLSFailed", "");
    let fourth = plan(&world, at(400), &mut random(1));
    assert_eq!(
        (since(&fourth), short(&link_condition(&fourth, "us-eu", "Ready"))),
        (at(300), "False/TLSFailed".into())
    );
}

#[test]
fn the_same_world_gives_the_same_status() {
    let mut world = later(world(TWO));
    let first = plan(&world, at(10), &mut random(1));
    publish(&mut world, first.clone());
    let second = plan(&world, at(20), &mut random(2));
    assert_eq!(
        (first.links, first.clusters, first.settings),
        (second.links, second.clusters, second.settings)
    );
}

#[test]
fn a_rotated_secret_shows_once_nodes_confirm_it() {
    let mut world = later(world(
        "
kind: MqttCluster
metadata: {name: us}
spec: {authentication: {usersSecretRef: {name: people}}, linkListener: {enabled: false}}
---
kind: ClusterLink
metadata: {name: us-eu}
spec:
  clusterRef: {name: us}
  topics: [a]
  remote: {external: {clusterName: eu, server: 'h:1', credentialsRef: {name: shown}}}
---
kind: Secret
metadata: {name: people}
stringData: {users: 'ann:plain:one'}
---
kind: Secret
metadata: {name: shown}
stringData: {username: us, password: one}
",
    ));
    let says = |world: &World| {
        let plan = planned(world);
        check_cluster(&plan, "us", "ConfigApplied", "True/Applied");
        check_link(&plan, "us-eu", "Programmed", "True/Programmed");
        let cluster = cluster_condition(&plan, "us", "ConfigApplied").message;
        (cluster, link_condition(&plan, "us-eu", "Programmed").message)
    };
    let rotate = |world: &mut World, secret: &str| {
        let data = &mut world.secrets.get_mut(&key(secret)).unwrap().data;
        data.values_mut().for_each(|value| value.push(b'2'));
    };
    let first = says(&world);
    rotate(&mut world, "people");
    check_cluster(&planned(&world), "us", "ConfigApplied", "False/PodsPending");
    world = later(world);
    let second = says(&world);
    assert!(second.0 != first.0 && second.1 == first.1, "the link runs as before: {first:?}, {second:?}");
    rotate(&mut world, "shown");
    check_link(&planned(&world), "us-eu", "Programmed", "False/PodsPending");
    world = later(world);
    let third = says(&world);
    assert!(third.0 != second.0 && third.1 != second.1, "{second:?}, {third:?}");
    // Who guesses all that Secrets hold must not see it confirmed.
    let settings = &planned(&world).settings[&key("us")];
    assert!(!third.0.contains(&settings.hash[..8]) && !third.1.contains(&settings.links[0].revision[..8]));
    assert_eq!(says(&later(world)), third);
}

#[test]
fn clusters_say_what_keeps_them() {
    let mut world = later(world(TWO));
    check_cluster(&planned(&world), "us", "Ready", "True/Ready");
    report(&mut world, "us").settings_hash = "other".into();
    check_cluster(&planned(&world), "us", "Ready", "False/PodsPending");
    report(&mut world, "us").refused = Some("bind is odd".into());
    check_cluster(&planned(&world), "us", "ConfigApplied", "False/PushFailed");
    report(&mut world, "us").listeners[0].error = Some("address in use".into());
    let plan = planned(&world);
    check_cluster(&plan, "us", "Ready", "False/ListenerFailed");
    let message = cluster_condition(&plan, "us", "Available").message;
    assert_eq!(message, "Node us-0: listener mqtt on port 1883: address in use.");
    view(&mut world, "us").trouble =
        Some(Trouble { message: "exit status 2, 4 times".into(), is_refused: false });
    let plan = planned(&world);
    check_cluster(&plan, "us", "Ready", "False/NodeFailing");
    check_link(&plan, "us-eu", "Ready", "Unknown/NodeFailing");
    check_cluster(&plan, "us", "Reconciling", "True/NodeFailing");
    // What only a person can put right.
    view(&mut world, "us").trouble =
        Some(Trouble { message: "InvalidImageName: x".into(), is_refused: true });
    check_cluster(&planned(&world), "us", "Stalled", "True/NodeFailing");
}

#[test]
fn a_pod_is_looked_for_where_something_makes_pods() {
    let mut world = world(TWO);
    world.reports.clear();
    let us = world.placements.get_mut(&key("us")).unwrap();
    (us.selector, us.nodes) = (Some("a=b".into()), vec!["us-0".into()]);
    let says = |world: &World| cluster_condition(&planned(world), "us", "Available").message;
    assert_eq!(says(&world), "Node us-0 has no pod: its StatefulSet is not made yet.");
    world.placements.get_mut(&key("us")).unwrap().has_set = true;
    assert!(says(&world).contains("describe statefulset us"));
}

#[test]
fn statuses_tell_the_rest() {
    let plan = planned(&later(world(TWO)));
    let link = serde_json::to_value(&plan.links[&key("us-eu")]).unwrap();
    assert_eq!(link["local"], serde_json::json!({"clusterName": "us", "connections": "1/1", "rtt": "<5ms"}));
    assert_eq!(
        link["remote"],
        serde_json::json!({"clusterName": "eu", "enabled": true, "topics": ["b"], "nodes": 1})
    );
    assert_eq!(link["effective"]["topics"], serde_json::json!(["a/#"]));
    assert_eq!(
        link["effective"]["forwarding"]["queue"],
        serde_json::json!({"maxBytes": "1Gi", "maxAge": "1h"})
    );
    let cluster = serde_json::to_value(&plan.clusters[&key("eu")]).unwrap();
    assert_eq!(cluster["links"], serde_json::json!({"total": 1, "ready": 1}));
    assert_eq!((cluster["replicas"].as_i64(), cluster["readyReplicas"].as_i64()), (Some(1), Some(1)));
    assert_eq!(cluster["linkListener"]["address"], "127.0.0.1:12883");
    assert_eq!(cluster["linkListener"]["caFingerprint"].as_str().map(str::len), Some(64));
}

#[test]
fn general_tools_see_who_has_to_act() {
    let has =
        |plan: &Plan, type_: &str| find(plan.links[&key("us-eu")].conditions.as_deref(), type_).is_some();
    let mut world = world(TWO);
    let seen = |world: &World| [STALLED, RECONCILING, SUSPENDED].map(|type_| has(&planned(world), type_));
    assert_eq!(seen(&world), [false, true, false]);
    world = later(world);
    assert_eq!(seen(&world), [false, false, false]);
    report(&mut world, "us").links[0].connected = Verdict::new(VerdictStatus::False, "DialFailed", "");
    assert_eq!(seen(&world), [false, false, false], "a peer that is down is nobody's mistake");
    world.links[0].spec.enabled = Some(false);
    assert_eq!(seen(&later(world.clone())), [false, false, true]);
    world.links[0].spec.topics = vec!["a#".into()];
    check_link(&planned(&world), "us-eu", STALLED, "True/InvalidTopicFilter");
}

#[test]
fn a_cluster_that_waits_for_its_upgrade_says_so_and_is_ready() {
    let mut waiting = later(world(TWO));
    waiting.waits.insert(key("us"), "eu goes first".into());
    let plan = planned(&waiting);
    check_cluster(&plan, "us", "Progressing", "True/UpdateWaiting");
    check_cluster(&plan, "us", "Ready", "True/Ready");
    check_cluster(&plan, "eu", "Progressing", "True/Complete");
}

#[test]
fn a_link_whose_secret_cannot_be_written_is_not_programmed() {
    let mut troubled = later(world(TWO));
    let trouble = |is_refused| Trouble { message: "failed to apply Secret: forbidden".into(), is_refused };
    troubled.link_troubles.insert(key("us-eu"), trouble(false));
    let plan = planned(&troubled);
    check_link(&plan, "us-eu", "Programmed", "False/ApplyFailed");
    check_link(&plan, "us-eu", "Connected", "True/Connected");
    check_link(&plan, "us-eu", "Ready", "False/ApplyFailed");
    check_link(&plan, "us-eu", RECONCILING, "True/ApplyFailed");
    troubled.link_troubles.insert(key("us-eu"), trouble(true));
    check_link(&planned(&troubled), "us-eu", STALLED, "True/ApplyRefused");
}

#[test]
fn what_the_server_refuses_for_good_is_a_persons_to_put_right() {
    let mut troubled = later(world(TWO));
    let trouble = |is_refused| Trouble { message: "StatefulSet us: no".into(), is_refused };
    troubled.troubles.insert(key("us"), trouble(false));
    check_cluster(&planned(&troubled), "us", RECONCILING, "True/ApplyFailed");
    troubled.troubles.insert(key("us"), trouble(true));
    let plan = planned(&troubled);
    check_cluster(&plan, "us", STALLED, "True/ApplyRefused");
    check_cluster(&plan, "us", "Ready", "False/ApplyRefused");
    let message = cluster_condition(&plan, "us", "Progressing").message;
    assert!(message.starts_with("StatefulSet us: no; correct the part of the spec"), "{message}");
    check_cluster(&plan, "us", "ConfigApplied", "True/Applied");
}

#[test]
fn a_secret_that_cannot_be_read_is_not_one_that_is_not_there() {
    let mut blind = world(
        "
kind: MqttCluster
metadata: {name: us}
spec: {authentication: {usersSecretRef: {name: people}}}
",
    );
    check_cluster(&planned(&blind), "us", "ResolvedRefs", "False/SecretNotFound");
    blind.unreadable_secrets.insert(key("people"), "forbidden".into());
    check_cluster(&planned(&blind), "us", "ResolvedRefs", "False/SecretUnreadable");
}

#[test]
fn no_part_of_a_status_is_empty() {
    let mut lonely = later(world(TWO));
    lonely.clusters.clear();
    for world in [world(TWO), later(world(TWO)), lonely] {
        let plan = planned(&world);
        for status in plan.links.values() {
            let text = serde_json::to_string(status).expect("a status is plain data");
            assert!(!text.contains("{}"), "{text}");
        }
        for status in plan.clusters.values() {
            let text = serde_json::to_string(status).expect("a status is plain data");
            assert!(!text.contains("{}"), "{text}");
        }
    }
}

/// Nodes serve what they are given, but no client takes it: nobody could connect, and everything would be True.
#[test]
fn a_certificate_whose_time_is_over_or_to_come_is_told() {
    let key_pair = rcgen::KeyPair::generate().expect("a key");
    let planned_with = |from: i32, to: i32| {
        let mut own = rcgen::CertificateParams::new(vec!["mqtt.example".to_owned()]).expect("a name");
        (own.not_before, own.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
        let certificate = own.self_signed(&key_pair).expect("a certificate").pem();
        let quoted = |pem: &str| serde_json::to_string(pem).expect("JSON");
        let manifests = format!(
            "{TWO}---\n{{kind: Secret, metadata: {{name: s}}, stringData: {{tls.crt: {}, tls.key: {}}}}}\n",
            quoted(&certificate),
            quoted(&key_pair.serialize_pem())
        );
        let tls = "{name: mqtts, protocol: MQTTS, port: 8883, tls: {secretRef: {name: s}}}";
        let mut world = world(&manifests);
        world.clusters[0].spec.listeners = Some(vec![serde_saphyr::from_str(tls).expect("a listener")]);
        planned(&later(world))
    };
    // Now is the year 2027.
    check_cluster(&planned_with(2026, 2028), "us", "Ready", "True/Ready");
    for (from, to) in [(2020, 2021), (2040, 2041)] {
        let plan = planned_with(from, to);
        check_cluster(&plan, "us", "Ready", "False/CertificateNotValid");
        check_cluster(&plan, "us", "Available", "False/CertificateNotValid");
        check_cluster(&plan, "us", STALLED, "True/CertificateNotValid");
        check_cluster(&plan, "us", "ConfigApplied", "True/Applied");
        let message = cluster_condition(&plan, "us", "Available").message;
        let says =
            format!("Listener mqtts: the certificate of mqtt.example is valid from {from}-01-01T00:00:00Z");
        assert!(message.starts_with(&says), "{message}");
    }
}
