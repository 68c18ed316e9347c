//! Where nothing changes, nothing is written.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::select_all;
use futures::{StreamExt, pin_mut};
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::{Instant, timeout_at};

use crate::process::run;
use crate::regions::{TWO_REGIONS, two_regions};
use crate::scene::{Kind, Scene, play};

/// How long nothing may be written; the variable MQLINK_E2E_IDLE_S asks for longer.
const IDLE_S: u64 = 30;

/// Everything that the operator writes, with its version.
async fn versions(scene: &Scene) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for kind in Kind::WRITTEN {
        for object in scene.api(kind).list(&ListParams::default()).await.expect("it can be listed") {
            let name = object.metadata.name.unwrap_or_default();
            versions.insert(format!("{kind:?} {name}"), object.metadata.resource_version.unwrap_or_default());
        }
    }
    versions
}

#[test]
fn the_same_manifest_twice_changes_nothing_and_an_idle_operator_writes_nothing() {
    play("quiet", async |scene| {
        two_regions(scene).await;
        let before = versions(scene).await;
        let said = scene.apply(TWO_REGIONS).await;
        assert!(said.lines().all(|line| line.ends_with(" unchanged")), "{said}");
        let diff = run("kubectl", &["-n", &scene.namespace, "diff", "-f", "-"], TWO_REGIONS).await;
        assert_eq!((diff.code, diff.stdout.as_str()), (Some(0), ""), "{}", diff.stderr);

        let idle_s = std::env::var("MQLINK_E2E_IDLE_S").ok().and_then(|it| it.parse().ok()).unwrap_or(IDLE_S);
        let until = Instant::now() + Duration::from_secs(idle_s);
        let changes = select_all(Kind::WRITTEN.map(|kind| {
            let seen = watcher(scene.api(kind), watcher::Config::default()).applied_objects();
            seen.map(move |object| (kind, object)).boxed()
        }));
        pin_mut!(changes);
        // What is there already comes first, at the version that is known.
        while let Ok(Some((kind, object))) = timeout_at(until, changes.next()).await {
            let Ok(object) = object else { continue };
            let name = format!("{kind:?} {}", object.metadata.name.clone().unwrap_or_default());
            let version = object.metadata.resource_version.clone();
            assert_eq!(
                before.get(&name),
                version.as_ref(),
                "{name} was written: {:#}",
                object.data["status"]
            );
        }
        assert_eq!(versions(scene).await, before);
    });
}
