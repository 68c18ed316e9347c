//! Worlds made from manifests, and the plans that follow.
//!
//! Times are numbers and randomness is a counter, so every plan can be told beforehand.
//! Manifests are YAML as users write it; what nodes report is made from the settings that they were planned to run.

use super::*;

#[test]
fn nothing_makes_an_empty_plan() {
    let plan = plan(&World::default(), Timestamp::UNIX_EPOCH, &mut |_| {});
    assert!(plan.settings.is_empty() && plan.clusters.is_empty() && plan.links.is_empty());
}
