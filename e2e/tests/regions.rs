//! The samples, as a user meets them.

use futures::pin_mut;
use kube::api::ListParams;

use crate::clients::{Door, PodClient, crosses};
use crate::process::Running;
use crate::scene::{Kind, Scene, play};

pub(crate) const TWO_REGIONS: &str = include_str!("../../config/samples/two-regions.yaml");
const ONE_WAY: &str = include_str!("../../config/samples/one-way.yaml");

/// The sample with two clusters and a link, all of them ready.
pub(crate) async fn two_regions(scene: &Scene) {
    scene.apply(TWO_REGIONS).await;
    scene.ready(Kind::Cluster, "us-east").await;
    scene.ready(Kind::Cluster, "eu-west").await;
    scene.ready(Kind::Link, "us-eu").await;
}

/// The ways from outside to both.
pub(crate) async fn doors(scene: &Scene) -> (Door, Door) {
    let us = Door::open(scene, "service/us-east-mqtt", 1883).await;
    (us, Door::open(scene, "service/eu-west-mqtt", 2883).await)
}

const US: [&str; 4] = ["-h", "us-east-mqtt", "-p", "1883"];
const EU: [&str; 4] = ["-h", "eu-west-mqtt", "-p", "2883"];

/// A client in a pod hears what another one says to the other cluster.
async fn crosses_between_pods(scene: &Scene, from: [&str; 4], to: [&str; 4], names: [&str; 2]) {
    let [says, hears] = names;
    let listen = [&["sub"][..], &to, &["-t", "linked/#", "-C", "1", "-W", "60s", "--ready"]].concat();
    let listener = PodClient::start(scene, hears, &listen).await;
    listener.says("ready").await;
    let heard = listener.succeeds();
    pin_mut!(heard);
    // The wish reaches the other side a moment after it was granted here.
    for number in 1.. {
        let say = [&["pub"][..], &from, &["-t", "linked/42", "-m", "hello", "-q", "1"]].concat();
        let speaker = PodClient::start(scene, &format!("{says}-{number}"), &say).await;
        tokio::select! {
            heard = &mut heard => return assert_eq!(heard, "ready\nlinked/42 hello\n"),
            _ = speaker.succeeds() => {}
        }
    }
}

#[test]
fn two_regions_exchange_messages() {
    play("two-regions", async |scene| {
        // Where the network heeds it, nothing that follows may be kept out by it.
        scene.kubectl(&["apply", "-k", concat!(env!("CARGO_MANIFEST_DIR"), "/config/network-policy")]).await;
        two_regions(scene).await;
        crosses_between_pods(scene, US, EU, ["us-says", "eu-hears"]).await;
        crosses_between_pods(scene, EU, US, ["eu-says", "us-hears"]).await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "from/outside").await;
        crosses(&eu, &us, "from/outside").await;
        let table = scene.kubectl(&["get", "clusterlinks"]).await;
        let (head, row) = table.split_once('\n').expect("a table");
        for column in ["NAME", "LOCAL", "REMOTE", "CONNECTED", "SYNCED", "READY", "AGE"] {
            assert!(head.contains(column), "{table}");
        }
        assert_eq!(row.matches("True").count(), 3, "{table}");
        // Who may `exec` may ask a node, and somebody is here.
        let _here = us.listen(&["here"]).await;
        let ask = [
            "exec",
            "us-east-0",
            "--",
            "/usr/bin/mqlink",
            "admin",
            "--socket=/run/mqlink/admin.sock",
            "clients",
        ];
        let clients = scene.kubectl(&ask).await;
        assert!(clients.starts_with("CLIENT ") && clients.lines().count() > 1, "{clients}");
    });
}

#[test]
fn every_sample_becomes_ready() {
    play("samples", async |scene| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/samples");
        for file in std::fs::read_dir(folder).expect("there are samples") {
            let file = file.expect("readable").path();
            if file.ends_with("doors.yaml") {
                continue; // its certificates are the user's to make
            }
            scene.kubectl(&["apply", "-f", &file.display().to_string()]).await;
            for kind in [Kind::Cluster, Kind::Link] {
                for object in scene.api(kind).list(&ListParams::default()).await.expect("it can be listed") {
                    scene.ready(kind, &object.metadata.name.expect("it has a name")).await;
                }
            }
        }
    });
}

#[test]
fn a_one_way_link_carries_one_way() {
    play("one-way", async |scene| {
        scene.apply(ONE_WAY).await;
        scene.ready(Kind::Link, "us-eu").await;
        let (us, eu) = doors(scene).await;
        let mut listener: Running = eu.listen(&["#"]).await;
        let published = us.publish("us/only", "stays").await;
        assert!(published.is_ok(), "{}", published.stderr);
        crosses(&eu, &us, "eu/for-all").await;
        // What was said over there before that has had its time; a word from here ends the wait.
        let published = eu.publish("marker", "end").await;
        assert!(published.is_ok(), "{}", published.stderr);
        loop {
            let line = listener.line().await;
            assert!(!line.starts_with("us/only"), "it has crossed");
            if line == "marker end" {
                break;
            }
        }
    });
}
