//! Restarts that the operator's own version causes: one cluster at a time.
//!
//! A cluster whose own spec changed restarts at once, whatever others do: somebody asked for it. What a new version of the
//! operator changes (the default image, above all) concerns every cluster, and nobody may lose them all to one mistake:
//! - One cluster is restarted; the next when its restart is complete, which Kubernetes knows and an operator that starts anew
//!   reads there. One that does not come back stops the others for good, and their condition says which it is.
//! - Those that serve go first. One that does not serve as it is loses nothing by a restart, and stands in nobody's way.
//!
//! Pure: it looks at StatefulSets as they are and as they should be.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::build::{APPLIED, POD_SPEC, matches};
use super::picture::Found;
use crate::plan::Key;

/// The annotation of a StatefulSet that says who caused its last restart.
const CAUSE: &str = "mqlink.dev/restarted-by";
/// The operator's version did.
const OPERATOR: &str = "operator";
/// The cluster's own spec did, or it served nobody.
const OTHERS: &str = "spec";

/// What a write of a StatefulSet means to its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// They stay, or there are none yet.
    Quiet,
    /// They restart because of the spec, or because somebody else changed them.
    Asked,
    /// They restart because of the operator's version.
    Upgrade,
}

/// What a write would mean.
pub(super) fn step(wanted: &Value, found: Option<&Found>) -> Step {
    let Some(found) = found else { return Step::Quiet };
    if matches(&wanted["spec"]["template"], &found.body["spec"]["template"]) {
        return Step::Quiet;
    }
    let says = |annotation: &str| [wanted, &*found.body].map(|body| annotated(body, annotation));
    // The same object was applied before: what differs is somebody else's doing.
    let [wanted, found] = says(APPLIED);
    let is_drift = wanted == found;
    // Hashes of two schemes say nothing about each other, and one that is gone says nothing at all: then it is not the spec.
    let [wanted, found] = says(POD_SPEC);
    let scheme = |hash: &str| hash.split('-').next().map(str::to_owned);
    let is_other_spec = wanted != found && scheme(wanted) == scheme(found);
    match is_other_spec || is_drift {
        true => Step::Asked,
        false => Step::Upgrade,
    }
}

fn annotated<'a>(body: &'a Value, annotation: &str) -> &'a str {
    body["metadata"]["annotations"][annotation].as_str().unwrap_or_default()
}

/// Which upgrades wait, and in which words. What is wanted of a cluster is not known while its spec is of no use; it may be
/// restarting all the same.
pub(super) fn waits<'a>(
    sets: impl Iterator<Item = (&'a Key, Option<&'a Value>, &'a Found)>,
) -> BTreeMap<Key, String> {
    let mut blocker = None;
    let mut upgrades = Vec::new();
    for (key, wanted, found) in sets {
        if is_under_way(found) {
            blocker.get_or_insert(key);
        }
        if let Some(wanted) = wanted.filter(|wanted| step(wanted, Some(found)) == Step::Upgrade) {
            upgrades.push((!serves(found), key, wanted));
        }
    }
    upgrades.sort_by_key(|(is_down, key, _)| (*is_down, *key));
    let Some(before) = blocker.or(upgrades.first().map(|(_, key, _)| *key)) else { return BTreeMap::new() };
    // One that does not come back may be mended by a version after that, or by the one before: it waits for nobody.
    upgrades.iter().filter(|(_, key, _)| *key != before).map(|(_, key, wanted)| {
        let image = wanted["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        let message = format!(
            "The update to {image} waits until MqttCluster {before} is available after its own; look there if that takes long."
        );
        ((*key).clone(), message)
    }).collect()
}

/// Notes in a StatefulSet who causes a restart; what was noted before stays where there is none.
pub(super) fn note_cause(body: &mut Value, step: Step, found: Option<&Found>) {
    let cause = match (step, found) {
        (_, None) => return,
        (Step::Quiet, Some(found)) => match cause(found) {
            Some(before) => before.to_owned(),
            None => return,
        },
        (Step::Upgrade, Some(found)) if serves(found) || is_under_way(found) => OPERATOR.to_owned(),
        (Step::Upgrade | Step::Asked, Some(_)) => OTHERS.to_owned(),
    };
    body["metadata"]["annotations"][CAUSE] = json!(cause);
}

fn cause(found: &Found) -> Option<&str> {
    found.body["metadata"]["annotations"][CAUSE].as_str()
}

/// Whether a restart that the operator caused has not come to its end.
fn is_under_way(found: &Found) -> bool {
    cause(found) == Some(OPERATOR) && !is_complete(&found.body)
}

/// Whether all pods run what the StatefulSet says, and were ready at least once since.
fn is_complete(set: &Value) -> bool {
    let status = &set["status"];
    let observed = status["observedGeneration"].as_i64() >= set["metadata"]["generation"].as_i64();
    let revision = |name: &str| status[name].as_str().unwrap_or_default();
    observed && revision("currentRevision") == revision("updateRevision")
}

/// Whether all pods are ready.
fn serves(found: &Found) -> bool {
    let set = &found.body;
    is_complete(set) && set["status"]["readyReplicas"].as_i64() >= set["spec"]["replicas"].as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A StatefulSet as it is found.
    struct Set(Value);

    fn set(image: &str) -> Set {
        Set(json!({
            "metadata": {"generation": 1, "annotations": {POD_SPEC: "1-own", APPLIED: image}},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"image": image}]}}},
            "status": {"observedGeneration": 1, "readyReplicas": 1, "currentRevision": "r1", "updateRevision": "r1"},
        }))
    }

    impl Set {
        fn caused_by(mut self, cause: &str) -> Set {
            self.0["metadata"]["annotations"][CAUSE] = json!(cause);
            self
        }

        fn restarting(mut self) -> Set {
            self.0["status"]["updateRevision"] = json!("r2");
            self.0["status"]["readyReplicas"] = json!(0);
            self
        }

        fn down(mut self) -> Set {
            self.0["status"]["readyReplicas"] = json!(0);
            self
        }

        fn unobserved(mut self) -> Set {
            self.0["metadata"]["generation"] = json!(2);
            self
        }

        fn found(self) -> Found {
            Found {
                uid: "u".to_owned(),
                owner: None,
                version: "1".to_owned(),
                other: None,
                body: self.0.into(),
            }
        }
    }

    /// Which of these clusters, called by letters, waits for which when the operator wants image 2.
    #[track_caller]
    fn check<const N: usize>(sets: [Set; N], expected: &[(&str, &str)]) {
        let wanted = set("2").0;
        let keys: Vec<Key> = ('a'..).take(N).map(|name| Key::new("mqtt", name)).collect();
        let found: Vec<Found> = sets.into_iter().map(Set::found).collect();
        let waits = waits(keys.iter().zip(&found).map(|(key, found)| (key, Some(&wanted), found)));
        let told: Vec<(&str, &str)> = waits
            .iter()
            .map(|(key, message)| {
                let before = message.split("mqtt/").nth(1).and_then(|rest| rest.split(' ').next());
                (key.name.as_str(), before.unwrap_or_default())
            })
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn one_cluster_is_upgraded_at_a_time() {
        check([set("1"), set("1"), set("1")], &[("b", "a"), ("c", "a")]);
        check([set("2").caused_by(OPERATOR).unobserved(), set("1")], &[("b", "a")]);
        check([set("2").caused_by(OPERATOR).restarting(), set("1"), set("1")], &[("b", "a"), ("c", "a")]);
        check([set("2").caused_by(OPERATOR), set("1"), set("1")], &[("c", "b")]);
        check([set("2").caused_by(OPERATOR), set("2").caused_by(OPERATOR)], &[]);
    }

    #[test]
    fn an_upgrade_that_failed_is_replaced_by_the_next_while_the_others_wait() {
        check([set("1.5").caused_by(OPERATOR).restarting(), set("1")], &[("b", "a")]);
        check([set("1"), set("1.5").caused_by(OPERATOR).unobserved(), set("1")], &[("a", "b"), ("c", "b")]);
        let found = set("1.5").caused_by(OPERATOR).restarting().found();
        let mut wanted = set("2").0;
        note_cause(&mut wanted, Step::Upgrade, Some(&found));
        assert_eq!(annotated(&wanted, CAUSE), OPERATOR, "it goes on to hold up the others");
    }

    #[test]
    fn a_cluster_that_came_back_once_stops_nobody_when_it_fails_later() {
        check([set("2").caused_by(OPERATOR).down(), set("1")], &[]);
    }

    #[test]
    fn those_that_serve_go_first_and_those_that_do_not_stop_nobody() {
        check([set("1").down(), set("1"), set("1")], &[("a", "b"), ("c", "b")]);
        check([set("2").caused_by(OTHERS).restarting(), set("1")], &[]);
    }

    #[test]
    fn a_restart_that_was_asked_for_waits_for_nobody() {
        let wanted = set("2").0;
        let mut other = set("1");
        other.0["metadata"]["annotations"][POD_SPEC] = json!("1-before");
        assert_eq!(step(&wanted, Some(&other.found())), Step::Asked);
        let mut drifted = set("1");
        drifted.0["metadata"]["annotations"][APPLIED] = json!("2");
        assert_eq!(step(&wanted, Some(&drifted.found())), Step::Asked);
        assert_eq!(step(&wanted, Some(&set("1").found())), Step::Upgrade);
        assert_eq!(step(&wanted, Some(&set("2").found())), Step::Quiet);
        assert_eq!(step(&wanted, None), Step::Quiet);
    }

    #[test]
    fn a_spec_whose_hash_was_computed_otherwise_is_no_other_spec() {
        let wanted = set("2").0;
        for hash in [json!("0-other"), json!("other"), json!(null)] {
            let mut before = set("1");
            before.0["metadata"]["annotations"][POD_SPEC] = hash;
            assert_eq!(step(&wanted, Some(&before.found())), Step::Upgrade);
        }
    }

    #[test]
    fn who_causes_a_restart_is_noted_and_kept() {
        let noted = |step, found: Set| {
            let mut body = set("2").0;
            let found = found.found();
            note_cause(&mut body, step, Some(&found));
            body["metadata"]["annotations"][CAUSE].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(noted(Step::Upgrade, set("1")), OPERATOR);
        assert_eq!(noted(Step::Upgrade, set("1").down()), OTHERS);
        assert_eq!(noted(Step::Asked, set("1").caused_by(OPERATOR)), OTHERS);
        assert_eq!(noted(Step::Quiet, set("2").caused_by(OPERATOR)), OPERATOR);
        assert_eq!(noted(Step::Quiet, set("2")), "");
    }
}
