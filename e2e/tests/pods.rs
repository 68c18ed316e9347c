//! Pods that end and are replaced, those of brokers and the operator's own.

use serde_json::Value;

use crate::clients::crosses;
use crate::process::Running;
use crate::regions::{doors, two_regions};
use crate::scene::{Kind, condition, needs_own_cluster, play, play_alone, start_operator, stop_operator};

const MQLINK: &str = env!("CARGO_BIN_EXE_mqlink");

/// Whether this is another pod than before, and it is ready.
pub(crate) fn is_ready_again(before: &Value, pod: Option<&Value>) -> bool {
    pod.is_some_and(|it| it["metadata"]["uid"] != before["metadata"]["uid"])
        && condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
}

#[test]
fn a_killed_pod_comes_back_and_so_does_its_link() {
    play("killed", async |scene| {
        two_regions(scene).await;
        let before = scene.pod("eu-west").await;
        scene.kubectl(&["delete", "pod", "eu-west-0", "--grace-period=0", "--force"]).await;
        let is_down =
            |link: Option<&Value>| condition(link, "Ready").is_some_and(|ready| ready["status"] != "True");
        scene.until(Kind::Link, "us-eu", "seen to be down", is_down).await;
        scene.until(Kind::Pod, "eu-west-0", "ready again", |pod| is_ready_again(&before, pod)).await;
        scene.ready(Kind::Link, "us-eu").await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "after/1").await;
        crosses(&eu, &us, "after/2").await;
    });
}

#[test]
fn a_change_of_resources_or_image_replaces_the_pod() {
    play("rolls", async |scene| {
        two_regions(scene).await;
        let first = scene.pod("us-east").await;
        let resources = r#"{"spec": {"podTemplate": {"resources": {"requests": {"memory": "24Mi"}}}}}"#;
        scene.edit("mqttcluster/us-east", resources).await;
        scene.until(Kind::Pod, "us-east-0", "replaced", |pod| is_ready_again(&first, pod)).await;
        scene.ready(Kind::Cluster, "us-east").await;
        let second = scene.pod("us-east").await;
        assert_eq!(second["spec"]["containers"][0]["resources"]["requests"]["memory"], "24Mi");
        // The same image under another name, which every node has: its id.
        let image = second["status"]["containerStatuses"][0]["imageID"].as_str().expect("it runs");
        let patch = serde_json::json!({"spec": {"image": image}}).to_string();
        scene.edit("mqttcluster/us-east", &patch).await;
        let third = scene.until(Kind::Pod, "us-east-0", "replaced", |pod| is_ready_again(&second, pod)).await;
        assert_eq!(third["spec"]["containers"][0]["image"], image);
        scene.ready(Kind::Cluster, "us-east").await;
        scene.ready(Kind::Link, "us-eu").await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "rolled/1").await;
    });
}

#[test]
fn an_image_that_does_not_exist_is_said_and_mended() {
    play("no-image", async |scene| {
        two_regions(scene).await;
        scene.edit("mqttcluster/us-east", r#"{"spec": {"image": "localhost/mqlink:no-such"}}"#).await;
        scene.condition(Kind::Cluster, "us-east", "Ready", "False").await;
        scene.edit("mqttcluster/us-east", r#"{"spec": {"image": null}}"#).await;
        scene.ready(Kind::Cluster, "us-east").await;
        scene.ready(Kind::Link, "us-eu").await;
    });
}

#[test]
fn messages_cross_without_the_operator_and_it_takes_up_where_it_left() {
    play_alone("operator-away", async |scene| {
        two_regions(scene).await;
        let pods = [scene.pod("us-east").await, scene.pod("eu-west").await];
        stop_operator(scene).await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "away/1").await;
        // A pod that starts now has what is mounted, and nobody who tells it anything.
        scene.kubectl(&["delete", "pod", "eu-west-0"]).await;
        let [us_pod, eu_pod] = pods;
        let eu_pod =
            scene.until(Kind::Pod, "eu-west-0", "ready again", |pod| is_ready_again(&eu_pod, pod)).await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "mounted/1").await;
        crosses(&eu, &us, "mounted/2").await;
        // What is changed meanwhile is done when it is back.
        scene.edit("clusterlink/us-eu", r#"{"spec": {"remote": {"topics": ["back/#"]}}}"#).await;
        start_operator().await;
        scene.ready(Kind::Link, "us-eu").await;
        crate::clients::stays(&us, &eu, "away/2", "back/1").await;
        for (name, before) in [("us-east", us_pod), ("eu-west", eu_pod)] {
            assert_eq!(
                scene.pod(name).await["metadata"]["uid"],
                before["metadata"]["uid"],
                "{name} was restarted"
            );
        }
    });
}

/// A version that no node can get, and the one after it: of both operators this process has the network.
#[test]
fn a_version_that_does_not_come_up_costs_one_cluster_and_the_next_one_mends_it() {
    play_alone("upgrade", async |scene| {
        let Some(_) = needs_own_cluster() else { return };
        two_regions(scene).await;
        let (us, eu) = (scene.pod("us-east").await, scene.pod("eu-west").await);
        stop_operator(scene).await;
        let operator = |image: &str| {
            let namespace = &*scene.namespace;
            let arguments =
                ["--log", "error", "operator", "--no-lease", "--namespace", namespace, "--image", image];
            Running::start(MQLINK, &arguments)
        };
        let first = operator("localhost/mqlink:no-such");
        let is_gone =
            |pod: Option<&Value>| pod.is_some_and(|it| it["metadata"]["uid"] != eu["metadata"]["uid"]);
        scene.until(Kind::Pod, "eu-west-0", "replaced", is_gone).await;
        let waits = scene.says(Kind::Cluster, "us-east", "Progressing", "True", "UpdateWaiting").await;
        assert!(waits["message"].as_str().is_some_and(|it| it.contains("/eu-west ")), "{waits}");
        drop(first);
        // The same image under another name, which every node has: its id.
        let image = us["status"]["containerStatuses"][0]["imageID"].as_str().expect("it runs");
        let _second = operator(image);
        scene.until(Kind::Pod, "us-east-0", "replaced", |pod| is_ready_again(&us, pod)).await;
        let eu_now = scene.pod("eu-west").await;
        assert_eq!(eu_now["spec"]["containers"][0]["image"], image);
        let ready_at = condition(Some(&eu_now), "Ready").and_then(|it| it["lastTransitionTime"].as_str());
        let us_began = scene.pod("us-east").await["status"]["startTime"].clone();
        assert!(ready_at <= us_began.as_str(), "both were away at a time: {ready_at:?}, {us_began}");
        scene.ready(Kind::Link, "us-eu").await;
    });
}
