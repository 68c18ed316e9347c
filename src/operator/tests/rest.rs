//! An operator of nodes that have nothing to say: a real API server, real watches, and what is asked of it.

use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use super::nodes::{Pod, has_links};
use super::scene::{Operator, Scene, play, play_on};
use crate::operator::Options;
use crate::operator::build::Kind;

/// Reports, beats, and a report that would have been too old meanwhile.
const WHILE: Duration = Duration::from_secs(17);

impl Scene {
    /// Two linked nodes that have nothing more to say, and an operator that has nothing more to decide.
    async fn comes_to_rest(&self, operator: &mut Operator) -> (Pod, Pod) {
        self.create_two().await;
        let nodes = (self.start("us").await, self.start("eu").await);
        self.link_is("Ready", ("True", "Ready")).await;
        self.until(Kind::MqttCluster, "us", has_links(1, 1)).await;
        self.until(Kind::MqttCluster, "eu", has_links(1, 1)).await;
        // Statuses of the last second are looked at again first, each when its time has come.
        let mut tries = 0;
        while !operator.is_quiet(WHILE).await {
            tries += 1;
            assert!(tries < 12, "it decides again and again");
        }
        nodes
    }
}

fn without_rtt(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(local) = status["local"].as_object_mut() {
        local.remove("rtt");
    }
    status
}

#[test]
fn an_operator_of_idle_nodes_writes_nothing() {
    play(async |scene| {
        let mut operator = scene.operator();
        let _nodes = scene.comes_to_rest(&mut operator).await;
        let before = scene.versions().await;
        assert!(operator.is_quiet(WHILE).await, "beats are no reason to decide");
        assert_eq!(scene.versions().await, before);
    });
}

/// Each watch begins anew twice meanwhile, and the Lease is renewed: what is counted is what was asked of the server.
#[test]
#[ignore = "takes five minutes: `make test` runs it beside the others"]
fn an_operator_of_idle_nodes_writes_nothing_but_its_lease_for_five_minutes() {
    play_on(async |server, scene| {
        let (asked, seen) = std::sync::mpsc::channel();
        let client = server.client_through(move |request| {
            if request.method() != Method::GET {
                let _ = asked.send(format!("{} {}", request.method(), request.uri().path()));
            }
            request
        });
        let options = Options { lease: scene.lease("only"), ..scene.options() };
        let mut operator = Operator::start(client, options);
        let _nodes = scene.comes_to_rest(&mut operator).await;
        let (before, said) = (scene.versions().await, scene.statuses().await);
        seen.try_iter().for_each(drop);
        let five_minutes = Duration::from_secs(300);
        let _ = tokio::time::timeout(five_minutes, std::future::pending::<()>()).await;
        let (leases, others): (Vec<_>, Vec<_>) = seen.try_iter().partition(|line| line.contains("/leases/"));
        assert!(leases.len() > 100, "it is still there, and is heard: {}", leases.len());
        let says = scene.statuses().await;
        if says == said {
            assert_eq!(others, Vec::<String>::new());
            assert_eq!(scene.versions().await, before);
        }
        // A busy machine makes round trips longer, which is news.
        let but_time = |all: &[Value]| all.iter().map(without_rtt).collect::<Vec<_>>();
        assert_eq!(but_time(&says), but_time(&said), "{others:?}");
    });
}
