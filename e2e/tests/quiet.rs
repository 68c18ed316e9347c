//! Where nothing changes, nothing is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::select_all;
use futures::{StreamExt, pin_mut};
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use tokio::time::{Instant, interval, timeout_at};

use crate::process::run;
use crate::regions::{TWO_REGIONS, two_regions};
use crate::scene::{HOME, Kind, Scene, own_cluster, play};

/// How long nothing may be written; the variable MQLINK_E2E_IDLE_S asks for longer.
const IDLE_S: u64 = 30;

/// The operator, as the API server knows it.
const ACCOUNT: &str = "system:serviceaccount:mqlink-system:mqlink-operator";

/// What the operator asked the API server to write in a namespace or in its own, by the audit log: also what changed nothing, and
/// events. Another cluster than one of this repository shows no log.
struct Witness<'a> {
    namespace: &'a str,
    log: Option<PathBuf>,
}

impl Witness<'_> {
    fn of(scene: &Scene) -> Witness<'_> {
        let base = std::env::var("MQLINK_E2E").unwrap_or_else(|_| "/var/tmp/mqlink-e2e".to_owned());
        let log = own_cluster().map(|cluster| Path::new(&base).join(cluster).join("log/audit.log"));
        Witness { namespace: &scene.namespace, log }
    }

    fn saw(&self) -> Vec<String> {
        let Some(log) = &self.log else { return Vec::new() };
        let text = std::fs::read_to_string(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let requests = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_ours = |request: &Value| {
            let namespace = request["objectRef"]["namespace"].as_str().unwrap_or_default();
            request["user"]["username"] == ACCOUNT && [HOME, self.namespace].contains(&namespace)
        };
        let line = |request: Value| format!("{} {}", request["verb"], request["requestURI"]);
        requests.filter(is_ours).map(line).collect()
    }

    /// Waits until nothing was written for three seconds: events are told after what they are about.
    async fn rests(&self) -> usize {
        let mut ticks = interval(Duration::from_secs(1));
        let (mut seen, mut calm) = (self.saw().len(), 0);
        for _ in 0..60 {
            ticks.tick().await;
            let now = self.saw().len();
            calm = if now == seen { calm + 1 } else { 0 };
            seen = now;
            if calm > 3 {
                return seen;
            }
        }
        panic!("it does not come to rest: {:#?}", self.saw());
    }
}

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
        let witness = Witness::of(scene);
        let written = witness.rests().await;
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
        assert_eq!(witness.saw()[written..], [] as [String; 0], "writes that changed nothing");
        // The witness sees what there is to see.
        scene.edit("clusterlink/us-eu", r#"{"spec": {"topics": ["sensors/#"]}}"#).await;
        scene.ready(Kind::Link, "us-eu").await;
        assert!(witness.log.is_none() || witness.saw().len() > written);
    });
}
