//! Whether a cluster lets links of a namespace point at it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::world::World;
use crate::api::MqttCluster;
use crate::api::cluster::LinkNamespaces;

/// The label that Kubernetes gives every namespace.
pub(super) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Whether `cluster` allows links that stand in `namespace`. Its own namespace is always allowed.
pub(super) fn allows(world: &World, cluster: &MqttCluster, namespace: &str) -> bool {
    if super::Key::of(cluster).namespace == namespace {
        return true;
    }
    let Some(allowed) = &cluster.spec.allowed_links else { return false };
    match allowed.namespaces.unwrap_or_default() {
        LinkNamespaces::Same => false,
        LinkNamespaces::All => true,
        LinkNamespaces::Selector => {
            let Some(selector) = &allowed.selector else { return false };
            // A label that nobody told us of is not one that is missing.
            let is_known = knows_labels(world, namespace) || keys(selector).all(|key| key == NAME_LABEL);
            let mut labels = world.namespaces.get(namespace).cloned().unwrap_or_default();
            labels.insert(NAME_LABEL.to_owned(), namespace.to_owned());
            is_known && selects(selector, &labels)
        }
    }
}

/// Whether more of a namespace is known than its name, which an operator of listed namespaces may not ask for.
pub(super) fn knows_labels(world: &World, namespace: &str) -> bool {
    world.namespaces.contains_key(namespace)
}

fn keys(selector: &LabelSelector) -> impl Iterator<Item = &String> {
    let expressions = selector.match_expressions.iter().flatten().map(|requirement| &requirement.key);
    selector.match_labels.iter().flatten().map(|(key, _)| key).chain(expressions)
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    selector.match_labels.iter().flatten().all(equal)
        && selector.match_expressions.iter().flatten().all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let listed = value.is_some_and(|value| requirement.values.iter().flatten().any(|each| each == value));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // An operator of a later Kubernetes: consent has to be given in words that are understood.
        _ => false,
    }
}
