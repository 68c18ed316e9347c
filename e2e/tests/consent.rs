//! Links between namespaces: the other cluster has to allow them.

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

#[test]
fn a_link_into_another_namespace_needs_consent() {
    play("consent", async |scene| {
        let there = scene.neighbour().await;
        scene.apply(&cluster("here", "")).await;
        there.apply(&cluster("there", "")).await;
        scene.apply(&link(&there)).await;
        scene.says(Kind::Link, "across", "ResolvedRefs", "False", "RefNotPermitted").await;
        scene.says(Kind::Link, "across", "Ready", "False", "RefNotPermitted").await;

        let label = format!("kubernetes.io/metadata.name: {}", scene.namespace);
        let consent =
            format!(", allowedLinks: {{namespaces: Selector, selector: {{matchLabels: {{{label}}}}}}}");
        there.apply(&cluster("there", &consent)).await;
        scene.ready(Kind::Link, "across").await;
        let from = Door::open(scene, "service/here-mqtt", 1883).await;
        let to = Door::open(&there, "service/there-mqtt", 1883).await;
        crosses(&from, &to, "over/1").await;
        crosses(&to, &from, "over/2").await;

        there.apply(&cluster("there", "")).await;
        scene.says(Kind::Link, "across", "Ready", "False", "RefNotPermitted").await;
        let mut listener = to.listen(&["over/3", "marker"]).await;
        assert!(from.publish("over/3", "stays").await.is_ok());
        assert!(to.publish("marker", "end").await.is_ok());
        assert_eq!(listener.line().await, "marker end");
    });
}
