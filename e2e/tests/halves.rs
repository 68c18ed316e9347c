//! A link of two objects, each with an owner of its own, in two namespaces: what one gets wrong the other sees, and its
//! correction is enough.

use serde_json::{Value, json};

use crate::clients::{Door, crosses};
use crate::scene::{Kind, Scene, play};

const PASSWORD: &str = "shared-by-two-owners";

/// The two namespaces, each with a cluster and the half that leads to the other: `out` dials, `back` is dialled.
struct Owners<'a> {
    here: &'a Scene,
    there: Scene,
}

fn cluster(name: &str) -> Value {
    json!({
        "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": name},
        "spec": {"authentication": {"anonymous": true}, "linkListener": {"tls": {"mode": "Plaintext"}}},
    })
}

fn half(name: &str, local: &str, external: &Value) -> Value {
    json!({
        "apiVersion": "mqlink.dev/v1alpha1", "kind": "ClusterLink", "metadata": {"name": name},
        "spec": {"clusterRef": {"name": local}, "topics": ["#"], "remote": {"external": external}},
    })
}

fn credentials(name: &str, password: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"username": "us", "password": password},
    })
}

impl<'a> Owners<'a> {
    /// Everything is there but the half that dials.
    async fn meet(here: &'a Scene) -> Owners<'a> {
        let there = here.neighbour().await;
        here.apply(&cluster("us").to_string()).await;
        here.apply(&credentials("right", PASSWORD).to_string()).await;
        here.apply(&credentials("wrong", "guessed").to_string()).await;
        there.apply(&cluster("eu").to_string()).await;
        there.apply(&credentials("right", PASSWORD).to_string()).await;
        let dialled =
            json!({"clusterName": "us", "dial": "In", "inbound": {"credentialsRef": {"name": "right"}}});
        there.apply(&half("back", "eu", &dialled).to_string()).await;
        here.ready(Kind::Cluster, "us").await;
        there.ready(Kind::Cluster, "eu").await;
        Owners { here, there }
    }

    fn server(&self) -> String {
        format!("eu-link.{}:11883", self.there.namespace)
    }

    async fn dial(&self, name: &str, server: &str, secret: &str) {
        let external =
            json!({"clusterName": name, "server": server, "dial": "Out", "credentialsRef": {"name": secret}});
        self.here.apply(&half("out", "us", &external).to_string()).await;
    }

    async fn are_linked(&self) {
        self.here.ready(Kind::Link, "out").await;
        self.there.ready(Kind::Link, "back").await;
    }

    async fn pods(&self) -> [Value; 2] {
        [self.here.pod("us").await, self.there.pod("eu").await].map(|pod| pod["metadata"]["uid"].clone())
    }

    async fn exchange(&self, topic: &str) {
        let us = Door::open(self.here, "service/us-mqtt", 1883).await;
        let eu = Door::open(&self.there, "service/eu-mqtt", 1883).await;
        crosses(&us, &eu, topic).await;
        crosses(&eu, &us, topic).await;
    }
}

/// T1.
#[test]
fn each_mistake_is_the_reason_and_its_correction_is_enough() {
    play("refusals", async |scene| {
        let owners = Owners::meet(scene).await;
        let pods = owners.pods().await;
        let server = owners.server();
        owners.dial("eu", &format!("nobody.{}:11883", owners.there.namespace), "wrong").await;
        scene.says(Kind::Link, "out", "Ready", "False", "DialFailed").await;
        owners.dial("eu", &server, "wrong").await;
        scene.says(Kind::Link, "out", "Ready", "False", "BadCredentials").await;
        scene.condition(Kind::Link, "out", "Programmed", "True").await;
        owners.dial("eu", &server, "right").await;
        owners.are_linked().await;
        owners.exchange("corrected/1").await;

        // The name of a peer is for good: another object takes this one's place.
        scene.kubectl(&["delete", "clusterlink", "out"]).await;
        owners.dial("ue", &server, "right").await;
        scene.says(Kind::Link, "out", "Ready", "False", "BadClusterName").await;
        scene.kubectl(&["delete", "clusterlink", "out"]).await;
        owners.dial("eu", &server, "right").await;
        owners.are_linked().await;
        owners.exchange("corrected/2").await;
        assert_eq!(owners.pods().await, pods, "a pod was replaced");
    });
}

/// T2.
#[test]
fn halves_are_disabled_enabled_and_deleted_in_any_order() {
    play("halves", async |scene| {
        let owners = Owners::meet(scene).await;
        let pods = owners.pods().await;
        owners.dial("eu", &owners.server(), "right").await;
        owners.are_linked().await;
        let (out, back) = ((scene, "out"), (&owners.there, "back"));
        let set = async |(at, name): (&Scene, &str), enabled: bool| {
            let patch = json!({"spec": {"enabled": enabled}}).to_string();
            at.edit(&format!("clusterlink/{name}"), &patch).await;
        };
        let says = async |(at, name): (&Scene, &str), status: &str, reason: &str| {
            at.says(Kind::Link, name, "Ready", status, reason).await;
        };
        // Who dials is told why not; who is dialled waits.
        for (first, second, status, reason) in
            [(out, back, "False", "LinkDisabled"), (back, out, "Unknown", "Connecting")]
        {
            set(first, false).await;
            says(first, "False", "Disabled").await;
            says(second, "False", "LinkDisabled").await;
            set(second, false).await;
            says(second, "False", "Disabled").await;
            set(first, true).await;
            says(first, status, reason).await;
            set(second, true).await;
            owners.are_linked().await;
        }
        owners.there.kubectl(&["delete", "clusterlink", "back"]).await;
        says(out, "False", "UnknownCluster").await;
        let dialled =
            json!({"clusterName": "us", "dial": "In", "inbound": {"credentialsRef": {"name": "right"}}});
        owners.there.apply(&half("back", "eu", &dialled).to_string()).await;
        owners.are_linked().await;
        owners.exchange("again/1").await;
        assert_eq!(owners.pods().await, pods, "a pod was replaced");
    });
}
