//! Whether a cluster lets links of a namespace point at it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::world::World;
use crate::api::MqttCluster;
use crate::api::cluster::LinkNamespaces;

/// The label that Kubernetes gives every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

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
            let mut labels = world.namespaces.get(namespace).cloned().unwrap_or_default();
            labels.insert(NAME_LABEL.to_owned(), namespace.to_owned());
            allowed.selector.as_ref().is_some_and(|selector| selects(selector, &labels))
        }
    }
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
