//! The operator against a real API server, where one is at hand. Each test has a namespace and an operator of its own.

use std::sync::mpsc;

use axum::http::Method;
use serde_json::{Value, json};

use super::scene::{Operator, condition, exists, is_gone, play, play_on};
use crate::operator::build::Kind;
use crate::operator::{Options, Scope, Vitals};
use crate::testing::Server;

#[test]
fn the_sample_becomes_objects_and_conditions() {
    play(async |scene| {
        scene.create_sample().await;
        let mut operator = scene.operator();
        operator.settles().await;
        let resolved =
            |object: Option<&Value>| condition(object, "ResolvedRefs") == Some(("True", "Resolved"));
        scene.until(Kind::ClusterLink, "us-eu", resolved).await;
        let pending = |object: Option<&Value>| condition(object, "Ready") == Some(("False", "PodsPending"));
        scene.until(Kind::ClusterLink, "us-eu", pending).await;
        scene
            .until(Kind::MqttCluster, "us-east", |object| {
                object.is_some_and(|object| object["status"]["linkListener"]["address"].is_string())
            })
            .await;
        insta::assert_snapshot!(scene.names().await.join("\n"));
    });
}

#[test]
fn a_second_operator_writes_nothing() {
    play_on(async |server, scene| {
        scene.create_sample().await;
        let mut first = scene.operator();
        scene.until(Kind::StatefulSet, "us-east", exists).await;
        scene.until(Kind::StatefulSet, "eu-west", exists).await;
        let before = first.rests(&scene).await;
        drop(first);
        // A write that changes nothing leaves every version as it was: what counts is what was asked of the server.
        let (writes, seen) = mpsc::channel();
        let client = server.client_through(move |request| {
            if request.method() != Method::GET {
                let _ = writes.send(format!("{} {}", request.method(), request.uri().path()));
            }
            request
        });
        Operator::start(client, scene.options()).rests(&scene).await;
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), Vec::<String>::new());
        assert_eq!(scene.versions().await, before);
    });
}

#[test]
fn drift_is_repaired() {
    play(async |scene| {
        scene.create_sample().await;
        let _operator = scene.operator();
        let port = |port: i32| {
            move |object: Option<&Value>| {
                object.is_some_and(|object| object["spec"]["ports"][0]["port"] == port)
            }
        };
        scene.until(Kind::Service, "us-east-mqtt", port(1883)).await;
        let wrong = json!({"spec": {"ports": [{"name": "mqtt", "port": 1999}]}});
        scene.merge(Kind::Service, "us-east-mqtt", wrong).await;
        scene.until(Kind::Service, "us-east-mqtt", port(1883)).await;
        // With one label more it would lead nowhere.
        let ours = json!({"app.kubernetes.io/name": "mqlink", "mqlink.dev/cluster": "us-east"});
        let selects = |selector: Value| {
            move |it: Option<&Value>| it.is_some_and(|it| it["spec"]["selector"] == selector)
        };
        let astray = json!({"spec": {"selector": {"app": "theirs"}}});
        // Beside ours, another port of the same name is invalid.
        let both =
            json!({"spec": {"selector": {"app": "theirs"}, "ports": [{"name": "mqtt", "port": 1999}]}});
        for wrong in [astray, both] {
            scene.merge(Kind::Service, "us-east-mqtt", wrong).await;
            scene.until(Kind::Service, "us-east-mqtt", selects(ours.clone())).await;
        }
        scene
            .merge(
                Kind::PodDisruptionBudget,
                "us-east",
                json!({"spec": {"selector": {"matchLabels": {"app": "theirs"}}}}),
            )
            .await;
        scene.until(Kind::PodDisruptionBudget, "us-east", selects(json!({"matchLabels": ours}))).await;
        // Nodes read every file of these.
        let has = |file: &'static str| {
            move |object: Option<&Value>| object.is_some_and(|it| it["data"][file].is_string())
        };
        let more = json!({"data": {"zz.json": "YnJva2Vu"}});
        scene.merge(Kind::Secret, "mqlink-us-east-users", more).await;
        scene
            .until(Kind::Secret, "mqlink-us-east-users", move |it| {
                has("users.json")(it) && !has("zz.json")(it)
            })
            .await;
        scene.delete(Kind::Secret, "mqlink-us-east-settings").await;
        scene.until(Kind::Secret, "mqlink-us-east-settings", exists).await;
        let strip = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}});
        scene.merge(Kind::Secret, "mqlink-us-eu-link", strip).await;
        scene
            .until(Kind::Secret, "mqlink-us-eu-link", |object| {
                object.is_some_and(|it| it["metadata"]["labels"]["app.kubernetes.io/managed-by"].is_string())
            })
            .await;
    });
}

#[test]
fn what_is_not_wanted_any_more_is_swept() {
    play(async |scene| {
        scene.create_sample().await;
        let _operator = scene.operator();
        scene.until(Kind::Service, "us-east-mqtt", exists).await;
        let other = json!({"spec": {"listeners": [{"name": "other", "protocol": "MQTT", "port": 1884}]}});
        scene.merge(Kind::MqttCluster, "us-east", other).await;
        scene.until(Kind::Service, "us-east-other", exists).await;
        scene.until(Kind::Service, "us-east-mqtt", is_gone).await;
        scene.until(Kind::Secret, "mqlink-us-eu-link", exists).await;
        scene.delete(Kind::ClusterLink, "us-eu").await;
        scene.until(Kind::Secret, "mqlink-us-eu-link", is_gone).await;
        scene.delete(Kind::MqttCluster, "us-east").await;
        scene.until(Kind::StatefulSet, "us-east", is_gone).await;
        scene.until(Kind::Secret, "mqlink-us-east-minted", is_gone).await;
        scene.until(Kind::StatefulSet, "eu-west", exists).await;
    });
}

#[test]
fn a_refused_spec_touches_nothing_that_runs() {
    play(async |scene| {
        scene.create_sample().await;
        let mut operator = scene.operator();
        scene.until(Kind::StatefulSet, "us-east", exists).await;
        let refused = json!({"spec": {"replicas": 3, "image": "example.org/other:2"}});
        scene.merge(Kind::MqttCluster, "us-east", refused).await;
        let is_refused = |object: Option<&Value>| {
            condition(object, "Accepted") == Some(("False", "ReplicasUnsupported"))
                && condition(object, "Stalled").is_some()
        };
        scene.until(Kind::MqttCluster, "us-east", is_refused).await;
        operator.settles().await;
        let as_before = |object: Option<&Value>| {
            object.is_some_and(|object| {
                object["spec"]["replicas"] == 1
                    && object["spec"]["template"]["spec"]["containers"][0]["image"] == "example.org/mqlink:1"
            })
        };
        scene.until(Kind::StatefulSet, "us-east", as_before).await;
        let mended = json!({"spec": {"replicas": 1, "image": "example.org/other:2"}});
        scene.merge(Kind::MqttCluster, "us-east", mended).await;
        scene
            .until(Kind::StatefulSet, "us-east", |object| {
                object.is_some_and(|object| {
                    object["spec"]["template"]["spec"]["containers"][0]["image"] == "example.org/other:2"
                })
            })
            .await;
    });
}

/// A mistake that only the validation of the pods finds, in a cluster that is new and in one that runs.
#[test]
fn a_mistake_that_only_the_server_finds_is_told_in_its_words_and_mended() {
    play(async |scene| {
        let cluster = json!({
            "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": "us"},
            "spec": {"podTemplate": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}},
        });
        scene.create(Kind::MqttCluster, cluster).await;
        let mut operator = scene.operator();
        let stalls = |object: Option<&Value>| condition(object, "Stalled") == Some(("True", "ApplyRefused"));
        scene.until(Kind::MqttCluster, "us", stalls).await;
        let said = scene.get(Kind::MqttCluster, "us").await["status"]["conditions"].to_string();
        assert!(said.contains("must be less than or equal to cpu limit"), "{said}");
        operator.rests(&scene).await;
        let mended = json!({"spec": {"podTemplate": {"resources": {"limits": {"cpu": "2"}}}}});
        scene.merge(Kind::MqttCluster, "us", mended).await;
        scene.until(Kind::StatefulSet, "us", exists).await;
        let is_mended = |object: Option<&Value>| condition(object, "Stalled").is_none();
        scene.until(Kind::MqttCluster, "us", is_mended).await;
        // The name of a label is no name.
        let wrong = json!({"spec": {"podTemplate": {"metadata": {"labels": {"-": "a"}}}}});
        scene.merge(Kind::MqttCluster, "us", wrong).await;
        scene.until(Kind::MqttCluster, "us", stalls).await;
        let right = json!({"spec": {"podTemplate": {"metadata": {"labels": {"-": null}}}}});
        scene.merge(Kind::MqttCluster, "us", right).await;
        scene.until(Kind::MqttCluster, "us", is_mended).await;
    });
}

#[test]
fn an_object_of_somebody_else_is_left_alone() {
    play(async |scene| {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "us-east-mqtt"},
            "spec": {"ports": [{"port": 7}], "selector": {"app": "theirs"}},
        });
        scene.create(Kind::Service, service).await;
        let copy = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "copy", "labels": {"app.kubernetes.io/managed-by": "mqlink-operator"}},
        });
        scene.create(Kind::Secret, copy).await;
        scene.create_sample().await;
        let _operator = scene.operator();
        scene.until(Kind::StatefulSet, "us-east", exists).await;
        scene.until(Kind::Service, "us-east-link", exists).await;
        let theirs =
            |object: Option<&Value>| object.is_some_and(|it| it["spec"]["selector"]["app"] == "theirs");
        scene.until(Kind::Service, "us-east-mqtt", theirs).await;
        scene.delete(Kind::Service, "us-east-mqtt").await;
        let ours = |object: Option<&Value>| object.is_some_and(|it| it["spec"]["ports"][0]["port"] == 1883);
        scene.until(Kind::Service, "us-east-mqtt", ours).await;
        scene.until(Kind::Secret, "copy", exists).await;
    });
}

#[test]
fn a_secret_is_resolved_when_it_comes() {
    play(async |scene| {
        let cluster = json!({
            "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": "us-east"},
            "spec": {"authentication": {"usersSecretRef": {"name": "people"}}},
        });
        scene.create(Kind::MqttCluster, cluster).await;
        let _operator = scene.operator();
        let missing =
            |object: Option<&Value>| condition(object, "ResolvedRefs") == Some(("False", "SecretNotFound"));
        scene.until(Kind::MqttCluster, "us-east", missing).await;
        let people = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "people"},
            "stringData": {"users": "ann:plain:secret"},
        });
        scene.create(Kind::Secret, people).await;
        scene.until(Kind::StatefulSet, "us-east", exists).await;
    });
}

#[test]
fn without_definitions_it_says_what_to_do() {
    let Some(server) = Server::shared() else { return };
    server.block_on(async |_| {
        let client = server.client_below("/nowhere");
        let options =
            Options { scope: Scope::All, image: "i".to_owned(), lease: None, vitals: Vitals::default() };
        let error = crate::operator::run(client, options, std::future::pending()).await;
        let error = error.expect_err("there is nothing to operate").to_string();
        assert!(error.contains("mqlink crds | kubectl apply"), "{error}");
    });
}
