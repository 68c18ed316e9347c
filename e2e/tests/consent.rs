//! Links between namespaces: the other cluster has to allow them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::clients::{Door, crosses};
use crate::scene::{Kind, Scene, play};

fn cluster(name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: mqlink.dev/v1alpha1, kind: MqttCluster, metadata: {{name: {name}}}, \
         spec: {{authentication: {{anonymous: true}}{more}}}}}"
    )
}

fn link(there: &Scene) -> String {
    let namespace = &there.namespace;
    format!(
        "{{apiVersion: mqlink.dev/v1alpha1, kind: ClusterLink, metadata: {{name: across}}, spec: {{clusterRef: {{name: here}}, \
         topics: ['#'], remote: {{clusterRef: {{name: there, namespace: {namespace}}}, topics: ['#']}}}}}}"
    )
}

/// The settings of a cluster's links, as its Secret has them.
fn links_in(secret: &Value) -> String {
    let text = secret["data"]["links.json"].as_str().unwrap_or_default();
    String::from_utf8(STANDARD.decode(text).expect("a Secret is base64")).expect("settings are text")
}

#[test]
fn a_link_into_another_namespace_needs_consent() {
    play("consent", async |scene| {
        let there = scene.neighbour().await;
        scene.apply(&cluster("here", "")).await;
        there.apply(&cluster("there", "")).await;
        scene.apply(&link(&there)).await;
        scene.says(Kind::Link, "across", "ResolvedRefs", "False", "RefNotPermitted").await;
        scene.says(Kind::Link, "across", "Ready", "False", "RefNotPermitted").await;

        let consent = ", allowedLinks: {namespaces: Selector, selector: {matchLabels: {team: ours}}}";
        there.apply(&cluster("there", consent)).await;
        let label = async |label: &str| {
            scene.kubectl(&["label", "namespace", &scene.namespace, label]).await;
        };
        label("team=ours").await;
        scene.ready(Kind::Link, "across").await;
        let from = Door::open(scene, "service/here-mqtt", 1883).await;
        let to = Door::open(&there, "service/there-mqtt", 1883).await;
        crosses(&from, &to, "over/1").await;
        crosses(&to, &from, "over/2").await;

        label("team-").await;
        scene.says(Kind::Link, "across", "Ready", "False", "RefNotPermitted").await;
        label("team=ours").await;
        scene.ready(Kind::Link, "across").await;

        there.apply(&cluster("there", "")).await;
        scene.says(Kind::Link, "across", "Ready", "False", "RefNotPermitted").await;
        let mut listener = to.listen(&["over/3", "marker"]).await;
        assert!(from.publish("over/3", "stays").await.is_ok());
        assert!(to.publish("marker", "end").await.is_ok());
        assert_eq!(listener.line().await, "marker end");

        // What was made elsewhere for a link, its half in the settings there, goes with its namespace, whose labels consent needs
        // no more.
        there.apply(&cluster("there", ", allowedLinks: {namespaces: All}")).await;
        scene.ready(Kind::Link, "across").await;
        let has_links = |count: u64| {
            move |cluster: Option<&Value>| cluster.is_some_and(|it| it["status"]["links"]["total"] == count)
        };
        let has_half = |has: bool| {
            move |secret: Option<&Value>| secret.is_some_and(|it| links_in(it).contains("/across") == has)
        };
        there.until(Kind::Cluster, "there", "linked", has_links(1)).await;
        there.until(Kind::Secret, "mqlink-there-links", "linked", has_half(true)).await;
        scene.kubectl(&["delete", "namespace", &scene.namespace, "--wait=false"]).await;
        there.until(Kind::Cluster, "there", "without a link", has_links(0)).await;
        there.until(Kind::Secret, "mqlink-there-links", "without a link", has_half(false)).await;
        there.ready(Kind::Cluster, "there").await;
    });
}
