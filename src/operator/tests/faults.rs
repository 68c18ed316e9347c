//! The operator and a world that misbehaves: other writers, watches that expire, a server that dies; and one that is at rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::http::{Method, Request};
use kube::api::{Patch, PatchParams};
use kube::client::Body;
use serde_json::{Value, json};

use super::scene::{Operator, Scene, condition, exists, play, play_on};
use crate::operator::Options;
use crate::operator::build::Kind;
use crate::operator::watch::api;
use crate::testing::Server;

fn port(port: i32) -> impl Fn(Option<&Value>) -> bool {
    move |object| object.is_some_and(|object| object["spec"]["ports"][0]["port"] == port)
}

#[test]
fn another_field_manager_does_not_keep_what_is_ours() {
    play(async |scene| {
        scene.create_sample().await;
        let _operator = scene.operator();
        scene.until(Kind::Service, "us-east-mqtt", port(1883)).await;
        scene.until(Kind::StatefulSet, "us-east", exists).await;
        let selector = json!({"app.kubernetes.io/name": "mqlink", "mqlink.dev/cluster": "us-east"});
        let services = api(&scene.client, Kind::Service, Some(&scene.namespace));
        let grab = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "us-east-mqtt", "labels": {"theirs": "stays"}},
            "spec": {"ports": [{"name": "stolen", "port": 1999, "protocol": "TCP"}], "selector": {"app": "theirs"}},
        });
        for _ in 0..3 {
            let grabbed = services
                .patch("us-east-mqtt", &PatchParams::apply("thief").force(), &Patch::Apply(&grab))
                .await;
            grabbed.unwrap_or_else(|error| panic!("{error}"));
            let mended = |object: Option<&Value>| {
                port(1883)(object)
                    && object.is_some_and(|it| it["spec"]["ports"].as_array().is_some_and(|it| it.len() == 1))
                    && object.is_some_and(|it| it["metadata"]["labels"]["theirs"] == "stays")
                    && object.is_some_and(|it| it["spec"]["selector"] == selector)
            };
            scene.until(Kind::Service, "us-east-mqtt", mended).await;
        }
        let sealed = json!({"immutable": true});
        scene.merge(Kind::Secret, "mqlink-us-east-settings", sealed).await;
        let other = json!({"spec": {"listeners": [{"name": "mqtt", "protocol": "MQTT", "port": 1884}]}});
        scene.merge(Kind::MqttCluster, "us-east", other).await;
        let troubled =
            |object: Option<&Value>| condition(object, "Progressing") == Some(("False", "ApplyRefused"));
        scene.until(Kind::MqttCluster, "us-east", troubled).await;
        scene.delete(Kind::Secret, "mqlink-us-east-settings").await;
        scene.until(Kind::MqttCluster, "us-east", move |it| !troubled(it)).await;
    });
}

#[test]
fn a_watch_that_expired_begins_anew() {
    play_on(async |server, scene| {
        scene.create_sample().await;
        let (is_armed, hits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (armed, counted) = (Arc::clone(&is_armed), Arc::clone(&hits));
        // Whoever asks for what happened since the first version of all is told that nobody remembers: 410 Gone.
        let client = server.client_through(move |mut request: Request<Body>| {
            let uri = request.uri().to_string();
            let is_watch = uri.contains("watch=true") && uri.contains("resourceVersion=");
            if is_watch && armed.load(Relaxed) {
                counted.fetch_add(1, Relaxed);
                let old = regex::Regex::new("resourceVersion=[0-9]+").expect("a pattern");
                let uri = old.replace(&uri, "resourceVersion=1").into_owned();
                *request.uri_mut() = uri.parse().expect("a URI");
            }
            // Watches end after a second, so that they begin again.
            let uri = request.uri().to_string();
            if is_watch {
                let long = regex::Regex::new("timeoutSeconds=[0-9]+").expect("a pattern");
                let uri = long.replace(&uri, "timeoutSeconds=1").into_owned();
                *request.uri_mut() = uri.parse().expect("a URI");
            }
            request
        });
        let mut operator = Operator::start(client, scene.options());
        operator.settles().await;
        is_armed.store(true, Relaxed);
        while hits.load(Relaxed) < 8 {
            // Each look takes as long as a request.
            let _ = scene.versions().await;
        }
        is_armed.store(false, Relaxed);
        scene.delete(Kind::Service, "us-east-mqtt").await;
        scene.until(Kind::Service, "us-east-mqtt", exists).await;
    });
}

#[test]
fn an_operator_at_rest_writes_nothing_but_its_lease() {
    play_on(async |server, scene| {
        scene.create_sample().await;
        let (others, leases) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (other, lease) = (Arc::clone(&others), Arc::clone(&leases));
        let client = server.client_through(move |request: Request<Body>| {
            let is_write = request.method() != Method::GET;
            let count = if request.uri().path().contains("/leases") { &lease } else { &other };
            count.fetch_add(u64::from(is_write), Relaxed);
            request
        });
        let options = Options { lease: scene.lease("only"), ..scene.options() };
        let mut operator = Operator::start(client, options);
        operator.settles().await;
        // Until nothing was written for as long as four renewals take, then for as long as ten take.
        let calm = |renewals: u64| {
            let (others, leases) = (Arc::clone(&others), Arc::clone(&leases));
            let scene = &scene;
            async move {
                let (before, begun) = (others.load(Relaxed), leases.load(Relaxed));
                while leases.load(Relaxed) < begun + renewals {
                    let _ = scene.versions().await;
                }
                others.load(Relaxed) == before
            }
        };
        while !calm(4).await {}
        assert!(calm(10).await, "it wrote something");
        // Events that change nothing are no reason to write either.
        let before = others.load(Relaxed);
        let label = json!({"metadata": {"labels": {"new": "one"}}});
        operator.settles_after(scene.merge(Kind::Service, "us-east-mqtt", label)).await;
        assert_eq!(others.load(Relaxed), before);
    });
}

#[test]
fn an_operator_outlives_the_api_server() {
    let Some(mut server) = Server::own() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (scene, mut operator) = runtime.block_on(async {
        let scene = Scene { client: server.client(), namespace: server.namespace().await };
        scene.create_sample().await;
        let options = Options { lease: scene.lease("first"), ..scene.options() };
        let mut operator = Operator::start(scene.client.clone(), options);
        operator.settles().await;
        (scene, operator)
    });
    let before = runtime.block_on(operator.rests(&scene));
    server.kill_api();
    // Long enough to lose the Lease, with every request refused.
    let lost = async {
        let far_away = std::future::pending::<()>();
        let _ = tokio::time::timeout(Duration::from_secs(6), far_away).await;
    };
    runtime.block_on(lost);
    server.start_api();
    runtime.block_on(async {
        operator.settles().await;
        assert_eq!(scene.versions().await, before, "nothing is new, so nothing is written");
        scene.delete(Kind::Service, "us-east-mqtt").await;
        scene.until(Kind::Service, "us-east-mqtt", exists).await;
    });
}

#[test]
fn an_operator_that_starts_before_the_api_server_waits_for_it() {
    play_on(async |server, scene| {
        let nobody =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
        let mut operator = Operator::start(server.client_at(nobody.port()), scene.options());
        let waits = tokio::time::timeout(Duration::from_secs(3), &mut operator.task).await;
        assert!(waits.is_err(), "it ended: {waits:?}");
    });
}
