//! Which links are in force.
//!
//! A table of refusals with their reasons, conflicts, consent, and who dials whom.
//! A link that is refused leaves no trace in any settings.

use std::collections::BTreeSet;

use super::*;
use crate::settings::Dial;

fn link(spec: &str) -> String {
    format!("{TWO}\n---\nkind: ClusterLink\nmetadata: {{name: l}}\nspec: {spec}\n").replacen(
        "kind: ClusterLink\nmetadata: {name: us-eu}",
        "kind: ClusterLink\nmetadata: {name: zz}",
        1,
    )
}

/// Only the given link, beside the two clusters.
fn alone(spec: &str) -> World {
    let mut world = world(&link(spec));
    world.links.remove(0);
    world
}

#[test]
fn refusals_have_reasons() {
    for (spec, type_, expected) in [
        (
            "{clusterRef: {name: us}, topics: ['a#'], remote: {clusterRef: {name: eu}, topics: []}}",
            "Accepted",
            "False/InvalidTopicFilter",
        ),
        ("{clusterRef: {name: us}, topics: [], remote: {}}", "Accepted", "False/InvalidSpec"),
        (
            "{clusterRef: {name: us}, topics: [], remote: {clusterRef: {name: us}, topics: []}}",
            "Accepted",
            "False/SameCluster",
        ),
        (
            "{clusterRef: {name: us}, topics: [], remote: {external: {clusterName: us, server: 'h:1'}}}",
            "Accepted",
            "False/SameCluster",
        ),
        (
            "{clusterRef: {name: us}, topics: [], remote: {external: {clusterName: x, server: 'h:1', dialect: Emqx}}}",
            "Accepted",
            "False/DialectUnsupported",
        ),
        (
            "{clusterRef: {name: as}, topics: [], remote: {clusterRef: {name: eu}, topics: []}}",
            "ResolvedRefs",
            "False/ClusterNotFound",
        ),
        (
            "{clusterRef: {name: us}, topics: [], remote: {clusterRef: {name: as}, topics: []}}",
            "ResolvedRefs",
            "False/ClusterNotFound",
        ),
        (
            "{clusterRef: {name: us}, topics: [], remote: {clusterRef: {name: eu, namespace: other}, topics: []}}",
            "ResolvedRefs",
            "False/RefNotPermitted",
        ),
        (
            "{clusterRef: {name: us}, topics: [], remote: {external: {clusterName: x, server: 'h:1', credentialsRef: {name: none}}}}",
            "ResolvedRefs",
            "False/SecretNotFound",
        ),
        (
            "{clusterRef: {name: us}, topics: [], remote: {external: {clusterName: x, server: '[a:::b]:1'}}}",
            "ResolvedRefs",
            "False/SettingsInvalid",
        ),
        (
            "{clusterRef: {name: us}, topics: [], remote: {external: {clusterName: x, server: 'mqtts://h:1'}}}",
            "ResolvedRefs",
            "False/CaRequired",
        ),
    ] {
        let plan = planned(&alone(spec));
        check_link(&plan, "l", type_, expected);
        check_link(&plan, "l", "Ready", expected);
        assert!(plan.settings.values().all(|settings| settings.links.is_empty()), "{spec}");
    }
}

#[test]
fn of_two_links_between_the_same_clusters_the_older_stays() {
    let second = "{clusterRef: {name: eu}, topics: [], remote: {clusterRef: {name: us}, topics: []}}";
    let mut world = world(&link(second));
    let check = |world: &World, in_force: &str, refused: &str| {
        let plan = planned(world);
        check_link(&plan, in_force, "Accepted", "True/Accepted");
        check_link(&plan, refused, "Ready", "False/DuplicatePeer");
        let message = link_condition(&plan, refused, "Ready").message;
        assert!(message.contains(&format!("ClusterLink default/{in_force}")), "{message}");
        assert!(plan.settings.values().all(|settings| settings.links.len() == 1));
    };
    check(&world, "zz", "l");
    world.links.reverse();
    check(&world, "l", "zz");
    let created = |second| Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(second)));
    world.links[0].metadata.creation_timestamp = created(20);
    world.links[1].metadata.creation_timestamp = created(10);
    check(&world, "zz", "l");
    // Of those of one second, what runs came first.
    world.links[0].metadata.creation_timestamp = created(10);
    check(&world, "l", "zz");
    let zz = world.links.remove(1);
    let alone = planned(&world);
    publish(&mut world, alone);
    world.links.insert(0, zz);
    check(&world, "l", "zz");
    world.links.reverse();
    check(&world, "l", "zz");
    world.links[0].spec.topics = vec!["a#".into()];
    let plan = planned(&world);
    check_link(&plan, "zz", "Accepted", "True/Accepted");
}

#[test]
fn a_cluster_that_cannot_run_is_named() {
    let mut world = world(TWO);
    world.clusters[1].spec.replicas = Some(2);
    let plan = planned(&world);
    check_link(&plan, "us-eu", "Ready", "False/ClusterNotAccepted");
}

#[test]
fn other_namespaces_have_to_consent() {
    let mut world = world(TWO);
    world.clusters[1].metadata.namespace = Some("far".into());
    let placement = world.placements.remove(&key("eu")).unwrap();
    world.placements.insert(key("far/eu"), placement);
    world.links[0].spec.remote.cluster_ref.as_mut().unwrap().namespace = Some("far".into());
    world.namespaces.insert("default".into(), BTreeMap::from([("team".into(), "a".into())]));
    for (allowed, permitted) in [
        ("{}", false),
        ("{namespaces: Same}", false),
        ("{namespaces: All}", true),
        ("{namespaces: Selector, selector: {matchLabels: {team: a}}}", true),
        ("{namespaces: Selector, selector: {matchLabels: {team: b}}}", false),
        ("{namespaces: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: default}}}", true),
        (
            "{namespaces: Selector, selector: {matchExpressions: [{key: team, operator: In, values: [a, b]}]}}",
            true,
        ),
        (
            "{namespaces: Selector, selector: {matchExpressions: [{key: team, operator: NotIn, values: [a]}]}}",
            false,
        ),
        ("{namespaces: Selector, selector: {matchExpressions: [{key: x, operator: DoesNotExist}]}}", true),
        ("{namespaces: Selector, selector: {matchExpressions: [{key: x, operator: Exists}]}}", false),
        ("{namespaces: Selector, selector: {matchExpressions: [{key: team, operator: Like}]}}", false),
    ] {
        world.clusters[1].spec.allowed_links = Some(serde_saphyr::from_str(allowed).unwrap());
        let plan = planned(&world);
        let expected = if permitted { "True/Resolved" } else { "False/RefNotPermitted" };
        check_link(&plan, "us-eu", "ResolvedRefs", expected);
        assert_eq!(plan.settings[&key("far/eu")].links.len(), usize::from(permitted), "{allowed}");
        let remote = plan.links[&key("us-eu")].remote.as_ref();
        assert_eq!(remote.is_some(), permitted, "who may not link learns no name");
    }
}

/// No `allowedLinks` would help.
#[test]
fn a_link_to_a_namespace_that_is_not_operated_is_told_so() {
    let mut world = world(TWO);
    world.links[0].spec.remote.cluster_ref.as_mut().unwrap().namespace = Some("far".into());
    let check = |world: &World, reason: &str| {
        let plan = planned(world);
        check_link(&plan, "us-eu", "ResolvedRefs", reason);
        check_link(&plan, "us-eu", "Ready", reason);
    };
    check(&world, "False/RefNotPermitted");
    world.operated = Some(BTreeSet::from(["default".into()]));
    check(&world, "False/NamespaceNotOperated");
    world.operated = Some(BTreeSet::from(["default".into(), "far".into()]));
    check(&world, "False/RefNotPermitted");
    world.unreadable.namespaces.insert("far".into());
    check(&world, "False/NamespaceNotOperated");
}

/// As for an operator of listed namespaces.
#[test]
fn a_namespace_of_which_no_label_is_known_is_selected_by_its_name_alone() {
    let mut world = world(TWO);
    world.clusters[1].metadata.namespace = Some("far".into());
    world.links[0].spec.remote.cluster_ref.as_mut().unwrap().namespace = Some("far".into());
    for (selector, permitted) in [
        ("{matchLabels: {kubernetes.io/metadata.name: default}}", true),
        ("{matchLabels: {team: a}}", false),
        ("{matchExpressions: [{key: team, operator: DoesNotExist}]}", false),
        ("{matchExpressions: [{key: team, operator: NotIn, values: [a]}]}", false),
    ] {
        let allowed = format!("{{namespaces: Selector, selector: {selector}}}");
        world.clusters[1].spec.allowed_links = Some(serde_saphyr::from_str(&allowed).unwrap());
        let plan = planned(&world);
        let expected = if permitted { "True/Resolved" } else { "False/RefNotPermitted" };
        check_link(&plan, "us-eu", "ResolvedRefs", expected);
        let said = link_condition(&plan, "us-eu", "ResolvedRefs").message;
        assert_eq!(said.contains("no other label of the namespace is known here"), !permitted, "{said}");
    }
}

#[test]
fn a_link_to_a_cluster_elsewhere_that_cannot_be_read_runs_on_and_none_begins() {
    let mut world = world(TWO);
    world.clusters[1].metadata.namespace = Some("far".into());
    world.links[0].spec.remote.cluster_ref.as_mut().unwrap().namespace = Some("far".into());
    world.clusters[1].spec.allowed_links = Some(serde_saphyr::from_str("{namespaces: All}").unwrap());
    let mut world = later(world);
    world.clusters.remove(1);
    world.running.remove(&key("far/eu"));
    world.unreadable.clusters.insert(key("far/eu"));
    let plan = planned(&world);
    check_link(&plan, "us-eu", "ResolvedRefs", "False/ClusterUnreadable");
    assert_eq!(plan.settings[&key("us")], world.running[&key("us")], "it runs on");
    world.running.clear();
    let plan = planned(&world);
    check_link(&plan, "us-eu", "ResolvedRefs", "False/RefNotPermitted");
    assert!(plan.settings[&key("us")].links.is_empty());
}

#[test]
fn revoked_consent_tears_the_link_down() {
    let mut world = world(TWO);
    world.clusters[1].metadata.namespace = Some("far".into());
    world.links[0].spec.remote.cluster_ref.as_mut().unwrap().namespace = Some("far".into());
    world.clusters[1].spec.allowed_links = Some(serde_saphyr::from_str("{namespaces: All}").unwrap());
    let mut world = later(world);
    assert_eq!(planned(&world).settings[&key("us")].links.len(), 1);
    world.clusters[1].spec.allowed_links = None;
    let plan = planned(&world);
    assert!(plan.settings.values().all(|settings| settings.links.is_empty()));
    check_link(&plan, "us-eu", "Ready", "False/RefNotPermitted");
}

#[test]
fn who_can_be_dialled_is() {
    for (us_listens, eu_listens, dials) in [
        (true, true, Some((Dial::Both, Dial::Both))),
        (true, false, Some((Dial::In, Dial::Out))),
        (false, true, Some((Dial::Out, Dial::In))),
        (false, false, None),
    ] {
        let mut world = world(TWO);
        for (index, listens) in [us_listens, eu_listens].into_iter().enumerate() {
            let cluster = &mut world.clusters[index];
            cluster.spec.link_listener.get_or_insert_default().enabled = Some(listens);
            if !listens {
                world.placements.get_mut(&Key::of(&world.clusters[index])).unwrap().link_address = None;
            }
        }
        let plan = planned(&world);
        let dial = |cluster: &str| plan.settings[&key(cluster)].links.first().map(|link| link.dial);
        assert_eq!(dial("us").zip(dial("eu")), dials);
        if dials.is_none() {
            check_link(&plan, "us-eu", "Ready", "False/NoLinkListener");
        }
    }
}

#[test]
fn an_advertised_address_counts_where_no_placement_says_otherwise() {
    let mut world = world(TWO);
    world.placements.clear();
    let listener = world.clusters[1].spec.link_listener.as_mut().unwrap();
    listener.advertised_address = Some("eu.example.net".into());
    let plan = planned(&world);
    let us = &plan.settings[&key("us")].links[0];
    assert_eq!((us.server.as_deref(), us.dial), (Some("eu.example.net:12883"), Dial::Out));
}

#[test]
fn both_halves_come_from_one_object() {
    let plan = planned(&world(TWO));
    let (us, eu) = (&plan.settings[&key("us")].links[0], &plan.settings[&key("eu")].links[0]);
    assert_eq!(
        (us.id.as_str(), us.peer.as_str(), &us.topics[..]),
        ("default/us-eu", "eu", &["a/#".to_owned()][..])
    );
    assert_eq!(
        (eu.id.as_str(), eu.peer.as_str(), &eu.topics[..]),
        ("default/us-eu.remote", "us", &["b".to_owned()][..])
    );
    let message = link_condition(&plan, "us-eu", "Accepted").message;
    assert_eq!(message, "The spec is valid. In spec.topics, `a/#` covers `a/b`.");
}

#[test]
fn what_has_no_effect_is_said() {
    let mut world = world(TWO);
    world.links[0].spec.client_id_prefix = Some("x".into());
    world.links[0].spec.forwarding = Some(
        serde_saphyr::from_str("{poolSize: 4, compression: Auto, queue: {maxAge: 90s, maxBytes: 1Ki}}")
            .unwrap(),
    );
    let plan = planned(&world);
    let message = link_condition(&plan, "us-eu", "Accepted").message;
    for field in ["poolSize", "compression Auto", "clientIdPrefix"] {
        assert!(message.contains(&format!("{field} has no effect")), "{message}");
    }
    let effective = serde_json::to_value(&plan.links[&key("us-eu")].effective).unwrap();
    assert_eq!(effective["clientIdPrefix"], "us");
    let (queue, only) = (serde_json::json!({"maxBytes": "1Ki", "maxAge": "90s"}), "None");
    let expected =
        serde_json::json!({"poolSize": 1, "maxInflight": 1000, "queue": queue, "compression": only});
    assert_eq!(effective["forwarding"], expected);
    let forwarding = plan.settings[&key("us")].links[0].forwarding;
    assert_eq!(
        (forwarding.queue_age_s_max, forwarding.queue_bytes_max, forwarding.max_inflight),
        (90, 1024, 1000)
    );
}

#[test]
fn what_is_named_for_a_direction_that_is_not_dialled_is_said() {
    const NAMED: &str =
        "server: 'h:1', credentialsRef: {name: none}, tls: {}, inbound: {credentialsRef: {name: none}}";
    let listening = |dial: &str| {
        alone(&format!(
            "{{clusterRef: {{name: us}}, topics: [], remote: {{external: {{clusterName: x, {dial}, {NAMED}}}}}}}"
        ))
    };
    let mut deaf = listening("dial: Both");
    deaf.clusters[0].spec.link_listener.get_or_insert_default().enabled = Some(false);
    let only_out = ["inbound"];
    for (world, in_vain, why) in [
        (listening("dial: In"), &["server", "credentialsRef", "tls"][..], "only the peer dials (dial: In)"),
        (listening("dial: Out"), &only_out, "only this side dials (dial: Out)"),
        (deaf, &only_out, "the local cluster has no link listener"),
    ] {
        let message = link_condition(&planned(&world), "l", "Accepted").message;
        let notes =
            in_vain.iter().map(|field| format!(" spec.remote.external.{field} has no effect: {why}."));
        assert_eq!(message, format!("The spec is valid.{}", notes.collect::<String>()));
        // What it does use is looked for.
        check_link(&planned(&world), "l", "ResolvedRefs", "False/SecretNotFound");
    }
    let message = link_condition(&planned(&listening("dial: Both")), "l", "Accepted").message;
    assert_eq!(message, "The spec is valid.");
}

#[test]
fn what_is_in_force_is_shown_and_not_what_is_wished() {
    let mut world = world(&link(
        "{clusterRef: {name: us}, topics: [old], remote: {external: {clusterName: x, dial: In, inbound: {credentialsRef: {name: s}}}}}",
    ));
    world.links.remove(0);
    world.put_secret(secret(
        &serde_json::json!({"metadata": {"name": "s"}, "stringData": {"username": "a", "password": "b"}}),
    ));
    let mut world = later(world);
    world.links[0].spec.topics = vec!["new".into()];
    world.secrets.clear();
    world.unreadable_secrets.insert(key("s"), "forbidden".into());
    let plan = planned(&world);
    check_link(&plan, "l", "ResolvedRefs", "False/SecretUnreadable");
    assert_eq!(plan.links[&key("l")].effective.as_ref().unwrap().topics, Some(vec!["old".to_owned()]));
}

#[test]
fn a_link_that_is_gone_leaves_the_settings() {
    let mut world = later(world(TWO));
    world.links.clear();
    let plan = planned(&world);
    assert!(plan.settings.values().all(|settings| settings.links.is_empty()));
    assert!(plan.minted.links.is_empty() && plan.links.is_empty());
}

#[test]
fn what_no_secret_can_hold_stays_as_it_runs() {
    let large: Vec<String> = (0..32).map(|number| format!("{number}/{}", "x".repeat(1_000))).collect();
    let mut manifests = "kind: MqttCluster\nmetadata: {name: us}\nspec: {}\n".to_owned();
    for number in 0..40 {
        let topics = if number == 0 { vec!["small".to_owned()] } else { large.clone() };
        manifests += &format!(
            "---\nkind: ClusterLink\nmetadata: {{name: to-{number:02}}}\nspec:\n  clusterRef: {{name: us}}\n  topics: {topics:?}\n  \
             remote: {{external: {{clusterName: peer-{number}, dial: In}}}}\n"
        );
    }
    let mut world = world(&manifests);
    world.placements.get_mut(&key("us")).unwrap().selector = Some("a=b".into());
    let first = planned(&world);
    let bytes = |plan: &Plan| crate::settings::Pieces::of(&plan.settings[&key("us")]).links.len();
    assert!((1_000_000..=1_048_576).contains(&bytes(&first)), "{}", bytes(&first));
    let count = first.settings[&key("us")].links.len();
    assert!((25..40).contains(&count), "{count}");
    check_link(&first, "to-01", "Programmed", "False/PodsPending");
    check_link(&first, "to-39", "Ready", "False/SettingsTooLarge");
    check_link(&first, "to-39", "Stalled", "True/SettingsTooLarge");
    let message = link_condition(&first, "to-39", "Ready").message;
    assert!(message.contains("default/us would have 10") && message.contains("delete links"), "{message}");

    publish(&mut world, first.clone());
    world.links[0].spec.topics = large;
    let second = planned(&world);
    check_link(&second, "to-00", "Ready", "False/SettingsTooLarge");
    assert_eq!(second.settings, first.settings, "what runs runs on");
    world.links.truncate(20);
    let third = planned(&world);
    check_link(&third, "to-00", "Programmed", "False/PodsPending");
    assert_eq!(third.settings[&key("us")].links[0].topics.len(), 32);
}

/// A cluster is often called alike in every stage.
#[test]
fn two_clusters_of_one_name_are_told_from_one_that_is_named_twice() {
    let message = |namespace: &str| {
        let world = world(&format!(
            "{{kind: MqttCluster, metadata: {{name: main}}, spec: {{}}}}\n---\n\
             {{kind: MqttCluster, metadata: {{name: main, namespace: stage}}, spec: {{allowedLinks: {{namespaces: All}}}}}}\n---\n\
             {{kind: ClusterLink, metadata: {{name: l}}, spec: {{clusterRef: {{name: main}}, topics: [],\
             remote: {{clusterRef: {{name: main, namespace: {namespace}}}, topics: []}}}}}}\n"
        ));
        let plan = planned(&world);
        check_link(&plan, "l", "Accepted", "False/SameCluster");
        link_condition(&plan, "l", "Accepted").message
    };
    assert!(message("default").contains("names the local cluster itself"), "{}", message("default"));
    let other = message("stage");
    assert!(other.contains("is known to links as `main`, as the local cluster is"), "{other}");
}
