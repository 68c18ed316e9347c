//! An operator that dies in the middle of something, on a real API server, and the one that follows it: it finishes what was
//! begun, and mints nothing anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::http::{Method, Request, Uri};
use futures::StreamExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::scene::{Operator, Scene, play_on};
use crate::operator::build::Kind;
use crate::testing::Server;

/// Writes from one place where it dies to the next.
const STRIDE: usize = 3;
/// Lives that are watched at a time.
const BESIDE: usize = 4;

/// An operator lets so many writes go, and dies of the next: neither that one nor any other leaves. Some of those that left
/// may still be under way. How many it wanted to write, where it came to its end.
async fn dies_after(server: &'static Server, scene: &Scene, writes_max: usize) -> usize {
    let (count, death) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, dies) = (Arc::clone(&count), Arc::clone(&death));
    let client = server.client_through(move |mut request: Request<Body>| {
        if request.method() != Method::GET && counted.fetch_add(1, Relaxed) >= writes_max {
            *request.uri_mut() = Uri::from_static("/nowhere");
            dies.notify_one();
        }
        request
    });
    let mut operator = Operator::start(client, scene.options());
    tokio::select! {
        () = death.notified() => {}
        () = operator.settles() => {}
    }
    count.load(Relaxed)
}

/// What was minted, by the Secret that keeps it.
async fn minted(scene: &Scene) -> Vec<(String, Value)> {
    let mut minted = Vec::new();
    for line in scene.names().await {
        let Some(name) = line.strip_prefix("Secret ") else { continue };
        let data = scene.get(Kind::Secret, name).await["data"]["minted.json"].clone();
        if !data.is_null() {
            minted.push((name.to_owned(), data));
        }
    }
    minted
}

/// Does a work whole, then again and again with a death in the middle: the end is the same, and is told.
async fn finishes_whatever_dies(
    server: &'static Server,
    whole: Scene,
    begin: impl AsyncFn(&Scene),
) -> Vec<String> {
    begin(&whole).await;
    let all = dies_after(server, &whole, usize::MAX).await;
    assert!(all > 5 * STRIDE, "there is a middle: {all} writes");
    let end = whole.names().await;
    let (client, names, begin) = (&whole.client, &end, &begin);
    let lives = futures::stream::iter((0..all).step_by(STRIDE)).map(|writes| async move {
        let scene = Scene { client: client.clone(), namespace: server.namespace().await };
        begin(&scene).await;
        dies_after(server, &scene, writes).await;
        let kept = minted(&scene).await;
        scene.operator().settles().await;
        assert_eq!(scene.names().await, *names, "it died after {writes} of {all} writes");
        let now = minted(&scene).await;
        // A link's credentials are worth no more than the authorities that issued them.
        let lasts = |name: &str| name.ends_with("-minted") || kept.len() == 3;
        for secret in kept.iter().filter(|(name, _)| names.contains(&format!("Secret {name}")) && lasts(name))
        {
            assert!(now.contains(secret), "{} was minted anew; it died after {writes} writes", secret.0);
        }
    });
    lives.buffer_unordered(BESIDE).collect::<()>().await;
    end
}

#[test]
fn what_an_operator_makes_is_finished_by_the_next() {
    play_on(async |server, scene| {
        finishes_whatever_dies(server, scene, async |scene: &Scene| scene.create_sample().await).await;
    });
}

#[test]
fn what_an_operator_changes_and_sweeps_is_finished_by_the_next() {
    play_on(async |server, scene| {
        let end = finishes_whatever_dies(server, scene, async |scene: &Scene| {
            scene.create_sample().await;
            scene.operator().settles().await;
            scene.delete(Kind::ClusterLink, "us-eu").await;
            scene.delete(Kind::MqttCluster, "eu-west").await;
            let other = json!({"spec": {"listeners": [{"name": "other", "protocol": "MQTT", "port": 1884}]}});
            scene.merge(Kind::MqttCluster, "us-east", other).await;
            let new = json!({
                "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": "ap-south"}, "spec": {},
            });
            scene.create(Kind::MqttCluster, new).await;
        });
        for name in end.await {
            assert!(!name.contains("eu-west") && !name.contains("us-eu"), "{name} is not swept");
        }
    });
}
