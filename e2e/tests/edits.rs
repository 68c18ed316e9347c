//! What a user changes while everything runs: no pod is restarted for it, and what is wrong is said where one looks.

use serde_json::Value;

use crate::clients::{Door, crosses, stays};
use crate::regions::{TWO_REGIONS, doors, two_regions};
use crate::scene::{Kind, play};

fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap_or_default()
}

#[test]
fn topics_change_under_a_running_link() {
    play("topics", async |scene| {
        two_regions(scene).await;
        let before = scene.pod("us-east").await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "fleet/1").await;
        scene.edit("clusterlink/us-eu", r#"{"spec": {"remote": {"topics": ["sensors/#"]}}}"#).await;
        scene.ready(Kind::Link, "us-eu").await;
        stays(&us, &eu, "fleet/1", "sensors/1").await;
        crosses(&eu, &us, "fleet/1").await;
        scene.edit("clusterlink/us-eu", r##"{"spec": {"topics": [], "remote": {"topics": ["#"]}}}"##).await;
        scene.ready(Kind::Link, "us-eu").await;
        crosses(&us, &eu, "fleet/1").await;
        assert_eq!(uid(&scene.pod("us-east").await), uid(&before), "the pod was replaced");
    });
}

#[test]
fn a_link_is_resynced_disabled_enabled_deleted_and_made_again() {
    play("switch", async |scene| {
        two_regions(scene).await;
        scene.kubectl(&["annotate", "clusterlink", "us-eu", "mqlink.dev/resync=now"]).await;
        let is_done =
            |link: Option<&Value>| link.is_some_and(|it| it["status"]["lastHandledResync"] == "now");
        scene.until(Kind::Link, "us-eu", "resynced", is_done).await;
        scene.ready(Kind::Link, "us-eu").await;
        scene.edit("clusterlink/us-eu", r#"{"spec": {"enabled": false}}"#).await;
        scene.says(Kind::Link, "us-eu", "Ready", "False", "Disabled").await;
        scene.condition(Kind::Link, "us-eu", "Suspended", "True").await;
        scene.edit("clusterlink/us-eu", r#"{"spec": {"enabled": true}}"#).await;
        scene.ready(Kind::Link, "us-eu").await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "again/1").await;
        scene.kubectl(&["delete", "clusterlink", "us-eu"]).await;
        scene.until(Kind::Secret, "mqlink-us-eu-link", "gone", |secret| secret.is_none()).await;
        scene.apply(TWO_REGIONS).await;
        scene.ready(Kind::Link, "us-eu").await;
        crosses(&us, &eu, "again/2").await;
    });
}

#[test]
fn a_listener_comes_and_goes_without_a_restart() {
    play("listener", async |scene| {
        two_regions(scene).await;
        let before = scene.pod("us-east").await;
        let two = r#"{"spec": {"listeners": [
            {"name": "mqtt", "protocol": "MQTT", "port": 1883}, {"name": "more", "protocol": "MQTT", "port": 1884}
        ]}}"#;
        scene.edit("mqttcluster/us-east", two).await;
        scene.ready(Kind::Cluster, "us-east").await;
        let more = Door::open(scene, "service/us-east-more", 1884).await;
        let (us, _) = doors(scene).await;
        crosses(&more, &us, "within/1").await;
        let one = r#"{"spec": {"listeners": [{"name": "mqtt", "protocol": "MQTT", "port": 1883}]}}"#;
        scene.edit("mqttcluster/us-east", one).await;
        scene.until(Kind::Service, "us-east-more", "gone", |service| service.is_none()).await;
        scene.ready(Kind::Cluster, "us-east").await;
        assert_eq!(uid(&scene.pod("us-east").await), uid(&before), "the pod was replaced");
    });
}

#[test]
fn a_mistake_is_refused_or_said_and_stops_nothing() {
    play("mistakes", async |scene| {
        two_regions(scene).await;
        let wrong =
            TWO_REGIONS.replace(r##"topics: ["#"] # What us-east"##, r##"topics: ["a/#/b"] # What us-east"##);
        let said = scene.refused(&wrong).await;
        assert!(said.contains("spec.topics"), "{said}");

        scene.edit("mqttcluster/us-east", r#"{"spec": {"replicas": 3}}"#).await;
        scene.says(Kind::Cluster, "us-east", "Accepted", "False", "ReplicasUnsupported").await;
        scene.condition(Kind::Cluster, "us-east", "Stalled", "True").await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "still/1").await;
        scene.edit("mqttcluster/us-east", r#"{"spec": {"replicas": 1}}"#).await;
        scene.ready(Kind::Cluster, "us-east").await;

        scene
            .edit(
                "mqttcluster/us-east",
                r#"{"spec": {"authentication": {"anonymous": true, "usersSecretRef": {"name": "nobody"}}}}"#,
            )
            .await;
        let refs = scene.says(Kind::Cluster, "us-east", "ResolvedRefs", "False", "SecretNotFound").await;
        assert!(refs["message"].as_str().is_some_and(|message| message.contains("nobody")), "{refs}");
        crosses(&us, &eu, "still/2").await;
    });
}
