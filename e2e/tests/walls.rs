//! A link between two pods whose packets vanish without an answer, while all else gets through.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::clients::crosses;
use crate::regions::{TWO_REGIONS, doors, two_regions};
use crate::scene::{Kind, Scene, condition, needs_own_cluster, play};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/cluster/wall.sh");

/// Between two pods nothing gets through, until this is dropped.
struct Wall {
    cluster: String,
    sides: [String; 2],
}

impl Wall {
    async fn between(scene: &Scene, cluster: &str, one: &str, other: &str) -> Wall {
        let sides = [scene.address(one).await, scene.address(other).await];
        let wall = Wall { cluster: cluster.to_owned(), sides };
        assert!(wall.turns("up"), "{SCRIPT} fails");
        wall
    }

    fn turns(&self, verb: &str) -> bool {
        let mut script = Command::new(SCRIPT);
        script.args([verb, &self.cluster, &self.sides[0], &self.sides[1]]).stdin(Stdio::null());
        script.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        self.turns("down");
    }
}

/// Waits until the link says why it is not connected: nobody answers who did, or nobody who is dialled.
async fn is_cut(scene: &Scene) {
    let reasons = ["ProbeTimeout", "DialFailed"];
    let is_cut = |link: Option<&Value>| {
        ["Connected", "Ready"].iter().all(|type_| {
            let said = condition(link, type_);
            said.is_some_and(|it| it["status"] == "False" && reasons.iter().any(|why| it["reason"] == *why))
        })
    };
    scene.until(Kind::Link, "us-eu", "seen to be cut", is_cut).await;
}

#[test]
fn what_is_published_behind_a_wall_arrives_when_it_falls() {
    play("wall", async |scene| {
        let Some(cluster) = needs_own_cluster() else { return };
        two_regions(scene).await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "walled/before").await;
        let mut listener = eu.listen(&["walled/#"]).await;
        crosses(&us, &eu, "walled/now").await;

        let wall = Wall::between(scene, &cluster, "us-east", "eu-west").await;
        is_cut(scene).await;
        for name in ["us-east", "eu-west"] {
            scene.ready(Kind::Cluster, name).await;
        }
        let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        for number in &numbers {
            assert!(us.publish("walled/number", number).await.is_ok());
        }
        drop(wall);
        scene.ready(Kind::Link, "us-eu").await;
        // At least once, and in order.
        let mut heard: Vec<String> = Vec::new();
        while heard.last() != numbers.last() {
            let line = listener.line().await;
            if let Some(number) = line.strip_prefix("walled/number ") {
                heard.push(number.to_owned());
            }
        }
        heard.dedup();
        assert_eq!(heard, numbers);
        crosses(&eu, &us, "walled/after").await;
    });
}

/// T2.
#[test]
fn nobody_waits_for_a_peer_behind_a_wall() {
    play("wall-edits", async |scene| {
        let Some(cluster) = needs_own_cluster() else { return };
        two_regions(scene).await;
        let wall = Wall::between(scene, &cluster, "us-east", "eu-west").await;
        is_cut(scene).await;
        scene.edit("clusterlink/us-eu", r#"{"spec": {"enabled": false}}"#).await;
        scene.says(Kind::Link, "us-eu", "Ready", "False", "Disabled").await;
        scene.condition(Kind::Link, "us-eu", "Programmed", "True").await;
        scene.edit("clusterlink/us-eu", r#"{"spec": {"enabled": true}}"#).await;
        scene.condition(Kind::Link, "us-eu", "Programmed", "True").await;
        is_cut(scene).await;
        scene.kubectl(&["delete", "clusterlink", "us-eu"]).await;
        scene.until(Kind::Secret, "mqlink-us-eu-link", "gone", |secret| secret.is_none()).await;
        for name in ["us-east", "eu-west"] {
            let has_no_link = |cluster: Option<&Value>| {
                condition(cluster, "ConfigApplied").is_some_and(|it| it["status"] == "True")
                    && cluster.is_some_and(|cluster| cluster["status"]["links"]["total"] == 0)
            };
            scene.until(Kind::Cluster, name, "without the link", has_no_link).await;
        }
        scene.apply(TWO_REGIONS).await;
        is_cut(scene).await;
        drop(wall);
        scene.ready(Kind::Link, "us-eu").await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "unwalled/1").await;
        crosses(&eu, &us, "unwalled/2").await;
    });
}
