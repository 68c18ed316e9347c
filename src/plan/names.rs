//! Names of Services that two clusters of one namespace would both give: cluster `a` with listener `b-c`, and `a-b` with `c`;
//! or `a` with listener `b-nodes`, and `a-b` with any.
//!
//! Who has the name keeps it, else the older cluster gets it; the other one is refused, and told by whom. A cluster that is
//! refused for another reason, and does not have the name, stands in nobody's way.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::world::{Key, World};
use crate::api::Finding;

/// A cluster that would give a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim<'a> {
    /// False sorts first: who has the name.
    has_not: bool,
    created: Option<Timestamp>,
    cluster: &'a Key,
    /// The field that asks for it.
    field: &'a str,
}

/// The clusters that are refused, and why; `valid` are those that nothing else is wrong with.
pub(super) fn conflicts(world: &World, valid: impl Fn(&Key) -> bool) -> BTreeMap<Key, Finding> {
    let mut claims: BTreeMap<(&str, &str), Vec<Claim<'_>>> = BTreeMap::new();
    for object in &world.clusters {
        let key = Key::of(object);
        let Some((cluster, placement)) = world.placements.get_key_value(&key) else { continue };
        let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
        for (name, service) in &placement.services {
            if service.is_there || valid(cluster) {
                let claim = Claim { has_not: !service.is_there, created, cluster, field: &service.field };
                claims.entry((&cluster.namespace, name)).or_default().push(claim);
            }
        }
    }
    let mut found = BTreeMap::new();
    for ((namespace, service), claims) in claims {
        let Some(holder) = claims.iter().min() else { continue };
        for claim in claims.iter().filter(|claim| claim.cluster != holder.cluster) {
            found.entry(claim.cluster.clone()).or_insert_with(|| Finding {
                path: claim.field.to_owned(),
                reason: "NameConflict",
                message: format!(
                    "would make Service {namespace}/{service}, as {} of MqttCluster {} does; rename a listener of one of them",
                    holder.field, holder.cluster
                ),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::{Placement, Service};

    /// Clusters with the second of their creation, and the Services they make; `!` before those they have.
    fn world(clusters: &[(&str, i64, &[&str])]) -> World {
        let mut world = World::default();
        for (name, second, services) in clusters {
            let created = Timestamp::from_second(*second).expect("a time");
            let object = json!({
                "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "spec": {},
                "metadata": {"name": name, "namespace": "mqtt", "creationTimestamp": created.to_string()},
            });
            world.clusters.push(serde_json::from_value(object).expect("a cluster"));
            let service = |name: &&str| {
                let service = Service { field: String::new(), is_there: name.starts_with('!') };
                (name.trim_start_matches('!').to_owned(), service)
            };
            let services = services.iter().map(service).collect();
            world.placements.insert(Key::new("mqtt", *name), Placement { services, ..Placement::default() });
        }
        world
    }

    #[track_caller]
    fn check(clusters: &[(&str, i64, &[&str])], valid: &str, refused: &[&str]) {
        let found = conflicts(&world(clusters), |key| valid.split(' ').any(|name| name == key.name));
        let names: Vec<&str> = found.keys().map(|key| key.name.as_str()).collect();
        assert_eq!(names, refused);
    }

    #[test]
    fn who_has_a_name_keeps_it_else_the_older_one_gets_it() {
        check(&[("a", 1, &["a-b-c"]), ("a-b", 2, &["a-b-c"])], "a a-b", &["a-b"]);
        check(&[("a", 2, &["a-b-c"]), ("a-b", 1, &["a-b-c"])], "a a-b", &["a"]);
        check(&[("a", 1, &["a-b-c"]), ("a-b", 2, &["!a-b-c"])], "a a-b", &["a"]);
        check(&[("a", 1, &["a-x"]), ("a-b", 2, &["a-b-c"])], "a a-b", &[]);
    }

    #[test]
    fn one_that_is_refused_anyway_stands_in_nobodys_way_unless_it_has_the_name() {
        check(&[("a", 1, &["a-b-c"]), ("a-b", 2, &["a-b-c"])], "a-b", &[]);
        check(&[("a", 1, &["!a-b-c"]), ("a-b", 2, &["a-b-c"])], "a-b", &["a-b"]);
    }
}
