//! T1: every refusal of the data path is the reason of `Ready`, on the side that sees it, and its correction is enough.
//!
//! Real nodes, whose links are to external peers: each side is configured by its own mistakes.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::nodes::{cluster, credentials, external, is};
use super::scene::{Scene, condition, exists, play};
use crate::operator::build::Kind;

const PASSWORD: &str = "s3cret-s3cret-s3cret";

fn plaintext(name: &str) -> Value {
    let mut cluster = cluster(name);
    cluster["spec"]["linkListener"]["tls"] = json!({"mode": "Plaintext"});
    cluster
}

fn address(cluster: &Value) -> &Value {
    &cluster["spec"]["linkListener"]["advertisedAddress"]
}

/// A half that dials, and presents what is in a Secret.
fn out(to: &str, server: &Value, secret: &str) -> Value {
    json!({"clusterName": to, "server": server, "dial": "Out", "credentialsRef": {"name": secret}})
}

/// A half that is dialled by who knows the password.
fn inward(from: &str) -> Value {
    json!({"clusterName": from, "dial": "In", "inbound": {"credentialsRef": {"name": "right"}}})
}

/// A port where something else is spoken.
async fn web_server() -> (JoinHandle<()>, Value) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let task = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            // Whoever hangs up does not read it.
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    (task, json!(address))
}

impl Scene {
    /// Waits until a link is not connected for a reason, which is that of Ready.
    async fn refuses(&self, link: &str, reason: &'static str) {
        let says = |object: Option<&Value>| {
            ["Connected", "Ready"].iter().all(|type_| condition(object, type_) == Some(("False", reason)))
        };
        self.until(Kind::ClusterLink, link, says).await;
    }

    async fn ready(&self, links: &[&str]) {
        for link in links {
            self.until(Kind::ClusterLink, link, is("Ready", ("True", "Ready"))).await;
        }
    }

    async fn external(&self, link: &str, change: Value) {
        self.merge(Kind::ClusterLink, link, json!({"spec": {"remote": {"external": change}}})).await;
    }
}

#[test]
fn every_refusal_is_the_reason_and_its_correction_is_enough() {
    play(async |scene| {
        let (us, eu) = (plaintext("us"), plaintext("eu"));
        let (here, there) = (address(&us).clone(), address(&eu).clone());
        scene.create(Kind::Secret, credentials("right", PASSWORD)).await;
        scene.create(Kind::MqttCluster, us).await;
        scene.create(Kind::MqttCluster, eu).await;
        scene.create(Kind::ClusterLink, external("us-eu", "us", out("eu", &there, "right"))).await;
        let _operator = scene.operator();
        let _nodes = (scene.start("us").await, scene.start("eu").await);
        scene.refuses("us-eu", "UnknownCluster").await;
        scene.until(Kind::ClusterLink, "us-eu", is("PeerAgrees", ("False", "UnknownCluster"))).await;

        // Both only dial.
        scene.create(Kind::ClusterLink, external("eu-us", "eu", out("us", &here, "right"))).await;
        scene.refuses("us-eu", "NotAuthorized").await;
        scene.refuses("eu-us", "NotAuthorized").await;
        scene.external("eu-us", inward("us")).await;
        scene.ready(&["us-eu", "eu-us"]).await;

        scene.merge(Kind::ClusterLink, "eu-us", json!({"spec": {"enabled": false}})).await;
        scene.refuses("us-eu", "LinkDisabled").await;
        scene.until(Kind::ClusterLink, "us-eu", is("PeerAgrees", ("False", "LinkDisabled"))).await;
        scene.merge(Kind::ClusterLink, "eu-us", json!({"spec": {"enabled": true}})).await;
        scene.ready(&["us-eu", "eu-us"]).await;

        scene.external("us-eu", json!({"server": here})).await;
        scene.refuses("us-eu", "SelfDialled").await;
        let (_web, web) = web_server().await;
        scene.external("us-eu", json!({"server": web})).await;
        scene.refuses("us-eu", "ProtocolMismatch").await;
        scene.external("us-eu", json!({"server": there})).await;
        scene.ready(&["us-eu", "eu-us"]).await;
    });
}

#[test]
fn certificates_of_the_wrong_authority_are_told_apart() {
    play(async |scene| {
        let (us, eu) = (cluster("us"), cluster("eu"));
        let there = address(&eu).clone();
        scene.create(Kind::MqttCluster, us).await;
        scene.create(Kind::MqttCluster, eu).await;
        // Two invitations: that of eu for us is the right one, that of us for somebody else is mistaken for it.
        let invites = |from: &str| json!({"clusterName": from, "dial": "In"});
        scene.create(Kind::ClusterLink, external("eu-us", "eu", invites("us"))).await;
        scene.create(Kind::ClusterLink, external("us-asia", "us", invites("asia"))).await;
        let dials = |server: String, shown: &str, trusted: &str| {
            json!({
                "clusterName": "eu", "server": server, "dial": "Out", "credentialsRef": {"name": shown},
                "tls": {"caRef": {"name": trusted}},
            })
        };
        let (right, wrong) = ("eu-us-invitation", "us-asia-invitation");
        let server = |scheme: &str| format!("{scheme}{}", there.as_str().expect("an address"));
        let first = dials(server("mqtts://"), right, wrong);
        scene.create(Kind::ClusterLink, external("us-eu", "us", first)).await;
        let _operator = scene.operator();
        let _nodes = (scene.start("us").await, scene.start("eu").await);
        scene.until(Kind::Secret, right, exists).await;
        scene.refuses("us-eu", "TLSFailed").await;
        // Now eu is believed, and does not believe.
        scene.external("us-eu", dials(server("mqtts://"), wrong, right)).await;
        let said = |object: Option<&Value>| {
            let text = object.map(|it| it["status"]["conditions"].to_string()).unwrap_or_default();
            condition(object, "Connected") == Some(("False", "TLSFailed")) && text.contains("UnknownCA")
        };
        scene.until(Kind::ClusterLink, "us-eu", said).await;
        scene.external("us-eu", dials(server("mqtts://"), right, right)).await;
        scene.ready(&["us-eu", "eu-us"]).await;
        // Without TLS, to who speaks nothing else.
        scene.create(Kind::Secret, credentials("right", PASSWORD)).await;
        scene
            .external(
                "us-eu",
                json!({"server": server("mqtt://"), "credentialsRef": {"name": "right"}, "tls": null}),
            )
            .await;
        scene.refuses("us-eu", "ProtocolMismatch").await;
    });
}

/// Two clusters of one name, each with a link to the same third: that one can be linked to one of them only.
#[test]
fn two_clusters_of_one_name_are_told_that_there_are_two() {
    play(async |scene| {
        let (mut twin, eu) = (plaintext("twin"), plaintext("eu"));
        let there = address(&eu).clone();
        twin["spec"]["clusterName"] = json!("us");
        scene.create(Kind::Secret, credentials("right", PASSWORD)).await;
        for cluster in [plaintext("us"), twin, eu] {
            scene.create(Kind::MqttCluster, cluster).await;
        }
        scene.create(Kind::ClusterLink, external("eu-us", "eu", inward("us"))).await;
        scene.create(Kind::ClusterLink, external("us-eu", "us", out("eu", &there, "right"))).await;
        let _operator = scene.operator();
        let _nodes = (scene.start("us").await, scene.start("eu").await);
        scene.ready(&["us-eu", "eu-us"]).await;
        scene.create(Kind::ClusterLink, external("twin-eu", "twin", out("eu", &there, "right"))).await;
        let _twin = scene.start("twin").await;
        scene.refuses("us-eu", "ClientIdConflict").await;
        scene.refuses("twin-eu", "ClientIdConflict").await;
        scene.delete(Kind::ClusterLink, "twin-eu").await;
        scene.ready(&["us-eu", "eu-us"]).await;
    });
}
