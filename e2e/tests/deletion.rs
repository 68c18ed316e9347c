//! Deleting everything at once never hangs, whether the operator is there or not.

use crate::regions::two_regions;
use crate::scene::{Kind, Scene, play, play_alone, stop_operator};

async fn delete_namespace(scene: &Scene) {
    scene.kubectl(&["delete", "namespace", &scene.namespace, "--wait=false"]).await;
    scene.until(Kind::Namespace, &scene.namespace, "gone", |namespace| namespace.is_none()).await;
}

#[test]
fn a_namespace_goes_with_everything_in_it() {
    play("namespace-goes", async |scene| {
        two_regions(scene).await;
        delete_namespace(scene).await;
    });
}

#[test]
fn a_namespace_goes_without_the_operator() {
    play_alone("namespace-alone", async |scene| {
        two_regions(scene).await;
        stop_operator(scene).await;
        delete_namespace(scene).await;
    });
}

#[test]
fn a_cluster_goes_with_all_that_it_had_and_its_link_says_so() {
    play("cluster-goes", async |scene| {
        two_regions(scene).await;
        scene.kubectl(&["delete", "mqttcluster", "eu-west"]).await;
        scene.says(Kind::Link, "us-eu", "Ready", "False", "ClusterNotFound").await;
        for (kind, name) in [
            (Kind::StatefulSet, "eu-west"),
            (Kind::Pod, "eu-west-0"),
            (Kind::Service, "eu-west-mqtt"),
            (Kind::Secret, "mqlink-eu-west-minted"),
            (Kind::ServiceAccount, "mqlink-eu-west"),
            (Kind::DisruptionBudget, "eu-west"),
        ] {
            scene.until(kind, name, "gone", |object| object.is_none()).await;
        }
        scene.ready(Kind::Cluster, "us-east").await;
    });
}
