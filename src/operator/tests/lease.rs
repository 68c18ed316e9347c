//! Two operators and one Lease on a real API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::http::Request;
use k8s_openapi::api::coordination::v1::Lease as Object;
use kube::Api;
use kube::client::Body;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::scene::{Operator, Scene, WAIT_MAX, exists, is_gone, play, play_on};
use crate::operator::build::Kind;
use crate::operator::{Lease, Options, Pace};
use crate::testing::Relay;

impl Scene {
    async fn holder(&self) -> Option<String> {
        let leases: Api<Object> = Api::namespaced(self.client.clone(), &self.namespace);
        let lease = leases.get_opt("mqlink-operator").await.expect("the server answers")?;
        lease.spec?.holder_identity
    }

    /// Breaks something that an operator that works puts right.
    async fn is_operated(&self) {
        self.delete(Kind::Service, "us-east-mqtt").await;
        self.until(Kind::Service, "us-east-mqtt", exists).await;
    }
}

#[test]
fn one_operator_works_at_a_time_and_another_follows_when_it_dies() {
    play(async |scene| {
        scene.create_sample().await;
        let first = scene.operator_with(scene.lease("first"));
        scene.until(Kind::StatefulSet, "us-east", exists).await;
        let mut second = scene.operator_with(scene.lease("second"));
        assert_eq!(scene.holder().await.as_deref(), Some("first"));
        assert!(!second.progress.has_changed().expect("it waits"), "it must not decide");
        drop(first);
        second.settles().await;
        assert_eq!(scene.holder().await.as_deref(), Some("second"));
        scene.is_operated().await;
    });
}

#[test]
fn an_operator_that_ends_gives_the_lease_back() {
    play(async |scene| {
        scene.create_sample().await;
        let (end, ended) = oneshot::channel::<()>();
        let options = Options { lease: scene.lease("first"), ..scene.options() };
        let mut first = Operator::start_until(scene.client.clone(), options, async {
            drop(ended.await);
        });
        first.settles().await;
        end.send(()).expect("it listens");
        timeout(WAIT_MAX, &mut first.task).await.expect("in time").expect("it ends").expect("well");
        assert_eq!(scene.holder().await, None);
        let mut second = scene.operator_with(scene.lease("second"));
        second.settles().await;
        scene.is_operated().await;
    });
}

#[test]
fn an_operator_that_cannot_reach_the_server_stops_and_another_takes_over() {
    play_on(async |server, scene| {
        scene.create_sample().await;
        let relay = Relay::to(server.port()).await;
        let options = Options { lease: scene.lease("first"), ..scene.options() };
        let vitals = options.vitals.clone();
        let mut first = Operator::start(server.client_at(relay.port()), options);
        first.settles().await;
        let mut second = scene.operator_with(scene.lease("second"));
        relay.cut();
        second.settles().await;
        assert_eq!(scene.holder().await.as_deref(), Some("second"));
        assert!(!vitals.leads(), "the first one knows that it does not lead");
        // What it had on its way arrives now, and changes nothing: who leads is written with the version that was seen.
        relay.mend();
        scene.delete(Kind::ClusterLink, "us-eu").await;
        scene.until(Kind::Secret, "mqlink-us-eu-link", is_gone).await;
        assert_eq!(scene.holder().await.as_deref(), Some("second"));
        drop(second);
        let until_first = async {
            while scene.holder().await.as_deref() != Some("first") {
                let pause = first.progress.changed();
                let _ = timeout(Duration::from_millis(200), pause).await;
            }
        };
        timeout(WAIT_MAX, until_first).await.expect("the first one comes back");
        scene.is_operated().await;
    });
}

#[test]
fn a_lease_that_somebody_deletes_stays_with_its_holder() {
    play_on(async |server, scene| {
        scene.create_sample().await;
        // Who waits looks many times between two renewals.
        let lease = |holder: &str, beat_ms| {
            let pace = Pace { life: Duration::from_secs(6), beat: Duration::from_millis(beat_ms) };
            Some(Lease { namespace: scene.namespace.clone(), holder: holder.to_owned(), pace })
        };
        let options = Options { lease: lease("first", 1_500), ..scene.options() };
        let vitals = options.vitals.clone();
        let mut first = Operator::start(scene.client.clone(), options);
        first.settles().await;
        let looks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&looks);
        let client = server.client_through(move |request: Request<Body>| {
            counted.fetch_add(1, Relaxed);
            request
        });
        let options = Options { lease: lease("second", 50), ..scene.options() };
        let waits = options.vitals.clone();
        let _second = Operator::start(client, options);
        let leases: Api<Object> = Api::namespaced(scene.client.clone(), &scene.namespace);
        for round in 0..3 {
            // The second one has seen it.
            let enough = looks.load(Relaxed) + 4;
            while looks.load(Relaxed) < enough {
                let _ = scene.holder().await;
            }
            leases.delete("mqlink-operator", &Default::default()).await.expect("it is there");
            while scene.holder().await.is_none() {}
            assert_eq!(scene.holder().await.as_deref(), Some("first"), "round {round}");
            assert!(vitals.leads() && !waits.leads(), "round {round}");
        }
        scene.is_operated().await;
    });
}

#[test]
fn an_operator_that_cannot_reach_the_server_ends_soon() {
    play_on(async |server, scene| {
        let relay = Relay::to(server.port()).await;
        let lease =
            Lease { namespace: scene.namespace.clone(), holder: "first".to_owned(), pace: Pace::default() };
        let options = Options { lease: Some(lease), ..scene.options() };
        let (end, ended) = oneshot::channel::<()>();
        let mut first = Operator::start_until(server.client_at(relay.port()), options, async {
            drop(ended.await);
        });
        first.settles().await;
        relay.cut();
        let begun = Instant::now();
        end.send(()).expect("it listens");
        timeout(WAIT_MAX, &mut first.task).await.expect("in time").expect("it ends").expect("well");
        assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    });
}
