//! Users from a Secret, and what happens when it changes.

use std::time::{Duration, Instant};

use crate::clients::Door;
use crate::scene::{Kind, Scene, condition, play};

/// So soon the running pod has to know: 2 s are promised, and a busy machine is not to be judged.
const SOON: Duration = Duration::from_secs(10);

const CLUSTER: &str = "{apiVersion: mqlink.dev/v1alpha1, kind: MqttCluster, metadata: {name: guarded}, \
                       spec: {authentication: {usersSecretRef: {name: people}}}}";

async fn set_password(scene: &Scene, password: &str) {
    let secret = format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: people}}, stringData: {{users: 'ann:plain:{password}'}}}}"
    );
    scene.apply(&secret).await;
}

#[test]
fn a_rotated_password_is_in_force_within_seconds_and_without_a_restart() {
    play("rotation", async |scene| {
        set_password(scene, "old").await;
        scene.apply(CLUSTER).await;
        scene.ready(Kind::Cluster, "guarded").await;
        let before = scene.pod("guarded").await;
        let door = async || Door::open(scene, "service/guarded-mqtt", 1883).await;
        let (old, new, nobody) = (door().await.of("ann", "old"), door().await.of("ann", "new"), door().await);
        assert!(old.publish("a", "1").await.is_ok());
        assert!(!new.publish("a", "1").await.is_ok());
        assert!(!nobody.publish("a", "1").await.is_ok());

        let confirmed = scene.condition(Kind::Cluster, "guarded", "ConfigApplied", "True").await;
        set_password(scene, "new").await;
        let begun = Instant::now();
        while !new.publish("a", "2").await.is_ok() {
            assert!(begun.elapsed() < SOON, "the new password is not taken");
        }
        println!("the new password is taken after {:.1?}", begun.elapsed());
        assert!(!old.publish("a", "2").await.is_ok(), "the old password is still taken");
        let shows = |cluster: Option<&serde_json::Value>| {
            condition(cluster, "ConfigApplied")
                .is_some_and(|it| it["status"] == "True" && it["message"] != confirmed["message"])
        };
        scene.until(Kind::Cluster, "guarded", "confirming the new password", shows).await;
        assert_eq!(scene.pod("guarded").await["metadata"]["uid"], before["metadata"]["uid"]);
        assert_eq!(scene.pod("guarded").await["status"]["containerStatuses"][0]["restartCount"], 0);

        // The next pod starts with it.
        scene.kubectl(&["delete", "pod", "guarded-0"]).await;
        scene.pod("guarded").await;
        assert!(door().await.of("ann", "new").publish("a", "3").await.is_ok());
        assert!(!door().await.of("ann", "old").publish("a", "3").await.is_ok());
    });
}

#[test]
fn a_mistake_in_the_users_names_its_line_and_changes_nothing() {
    play("users", async |scene| {
        set_password(scene, "good").await;
        scene.apply(CLUSTER).await;
        scene.ready(Kind::Cluster, "guarded").await;
        let secret = "{apiVersion: v1, kind: Secret, metadata: {name: people}, stringData: {users: 'ann'}}";
        scene.apply(secret).await;
        let refs = scene.condition(Kind::Cluster, "guarded", "ResolvedRefs", "False").await;
        assert!(refs["message"].as_str().is_some_and(|message| message.contains("line 1")), "{refs}");
        let door = Door::open(scene, "service/guarded-mqtt", 1883).await.of("ann", "good");
        assert!(door.publish("a", "1").await.is_ok());
    });
}
