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

    /// Corrects something of the half that dials, or spoils it.
    async fn out(&self, external: Value) {
        let patch = json!({"spec": {"remote": {"external": external}}}).to_string();
        self.here.edit("clusterlink/out", &patch).await;
    }

    async fn back(&self, external: Value) {
        let patch = json!({"spec": {"remote": {"external": external}}}).to_string();
        self.there.edit("clusterlink/back", &patch).await;
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

        // Both dial, and nobody answers.
        let here = format!("us-link.{}:11883", scene.namespace);
        let dials =
            json!({"dial": "Out", "server": here, "credentialsRef": {"name": "right"}, "inbound": null});
        owners.back(dials).await;
        scene.says(Kind::Link, "out", "Ready", "False", "NotAuthorized").await;
        owners.there.says(Kind::Link, "back", "Ready", "False", "NotAuthorized").await;
        let is_dialled = json!({
            "dial": "In", "server": null, "credentialsRef": null, "inbound": {"credentialsRef": {"name": "right"}},
        });
        owners.back(is_dialled).await;
        owners.are_linked().await;
        owners.out(json!({"server": here})).await;
        scene.says(Kind::Link, "out", "Ready", "False", "SelfDialled").await;
        // Where kubelets ask how the pod is.
        owners.out(json!({"server": format!("eu-nodes.{}:11885", owners.there.namespace)})).await;
        scene.says(Kind::Link, "out", "Ready", "False", "ProtocolMismatch").await;
        owners.out(json!({"server": server})).await;
        owners.are_linked().await;

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

/// What a user copies from one Kubernetes to another: the Secret that the other side keeps.
async fn copy(from: &Scene, name: &str, to: &Scene, copy: &str) {
    from.until(Kind::Secret, name, "there", |secret| secret.is_some()).await;
    let secret: Value =
        serde_json::from_str(&from.kubectl(&["get", "secret", name, "-o", "json"]).await).expect("JSON");
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": copy}, "data": secret["data"]});
    to.apply(&secret.to_string()).await;
}

#[test]
fn an_invitation_is_copied_and_the_wrong_one_is_told_apart() {
    play("invitations", async |scene| {
        let there = scene.neighbour().await;
        for (at, name) in [(scene, "us"), (&there, "eu")] {
            let mut secure = cluster(name);
            secure["spec"].as_object_mut().expect("a spec").remove("linkListener");
            at.apply(&secure.to_string()).await;
        }
        let invites = |from: &str| json!({"clusterName": from, "dial": "In"});
        there.apply(&half("back", "eu", &invites("us")).to_string()).await;
        there.apply(&half("other", "eu", &invites("asia")).to_string()).await;
        scene.apply(&half("spare", "us", &invites("asia")).to_string()).await;
        copy(&there, "back-invitation", scene, "right").await;
        copy(&there, "other-invitation", scene, "other").await;
        scene.ready(Kind::Cluster, "us").await;
        there.ready(Kind::Cluster, "eu").await;
        let dial = async |shown: &str, trusted: &str| {
            let external = json!({
                "clusterName": "eu", "server": format!("eu-link.{}.svc:11883", there.namespace), "dial": "Out",
                "credentialsRef": {"name": shown}, "tls": {"caRef": {"name": trusted}},
            });
            scene.apply(&half("out", "us", &external).to_string()).await;
        };
        dial("right", "spare-invitation").await;
        scene.says(Kind::Link, "out", "Ready", "False", "TLSFailed").await;
        dial("spare-invitation", "right").await;
        scene.says(Kind::Link, "out", "Ready", "False", "TLSFailed").await;
        dial("other", "right").await;
        scene.says(Kind::Link, "out", "Ready", "False", "BadCredentials").await;
        dial("right", "right").await;
        scene.ready(Kind::Link, "out").await;
        there.ready(Kind::Link, "back").await;
        let us = Door::open(scene, "service/us-mqtt", 1883).await;
        let eu = Door::open(&there, "service/eu-mqtt", 1883).await;
        crosses(&us, &eu, "invited/1").await;
        crosses(&eu, &us, "invited/2").await;
        // Deleting it revokes it; the other one is copied in its place.
        there.kubectl(&["delete", "secret", "back-invitation"]).await;
        scene.says(Kind::Link, "out", "Ready", "False", "BadCredentials").await;
        copy(&there, "back-invitation", scene, "right").await;
        scene.ready(Kind::Link, "out").await;
    });
}

/// Two clusters that call themselves alike, as when a manifest is copied to another place.
#[test]
fn two_clusters_of_one_name_are_told_that_there_are_two() {
    play("twins", async |scene| {
        let owners = Owners::meet(scene).await;
        owners.dial("eu", &owners.server(), "right").await;
        owners.are_linked().await;
        let mut twin = cluster("twin");
        twin["spec"]["clusterName"] = json!("us");
        scene.apply(&twin.to_string()).await;
        scene.ready(Kind::Cluster, "twin").await;
        let external = json!({
            "clusterName": "eu", "server": owners.server(), "dial": "Out", "credentialsRef": {"name": "right"},
        });
        scene.apply(&half("twin-out", "twin", &external).to_string()).await;
        scene.says(Kind::Link, "out", "Ready", "False", "ClientIdConflict").await;
        scene.says(Kind::Link, "twin-out", "Ready", "False", "ClientIdConflict").await;
        scene.kubectl(&["delete", "clusterlink", "twin-out"]).await;
        owners.are_linked().await;
        owners.exchange("alone/1").await;
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
