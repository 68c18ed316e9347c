//! What all objects have in common: labels, the owner, the mark of what was applied, and when an object is as it should be.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::{ClusterLink, MqttCluster};

/// The label that all that we make has.
pub(in crate::operator) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub(in crate::operator) const OWN: &str = "mqlink-operator";
/// The annotation with the hash of what was applied: what was in it before and is no more shows by it.
pub(in crate::operator) const APPLIED: &str = "mqlink.dev/applied";

/// The annotation of a StatefulSet with the hash of what the cluster's own spec says about its pods: a restart that is not
/// because of that is because of us. It begins with how it is computed, so that none is taken for another.
pub(in crate::operator) const POD_SPEC: &str = "mqlink.dev/pod-spec";

const NAME: (&str, &str) = ("app.kubernetes.io/name", "mqlink");
const CLUSTER: &str = "mqlink.dev/cluster";
const LINK: &str = "mqlink.dev/link";

pub(super) type Labels = BTreeMap<String, String>;

/// By what the pods of a cluster are found. Immutable in a StatefulSet, so never to be changed.
pub(super) fn selector_labels(cluster: &MqttCluster) -> Labels {
    labels([NAME, (CLUSTER, name(cluster))])
}

/// The labels of what belongs to a cluster.
pub(super) fn cluster_labels(cluster: &MqttCluster) -> Labels {
    labels([NAME, (CLUSTER, name(cluster)), (MANAGED_BY, OWN)])
}

/// The same, as a text.
pub(in crate::operator) fn selector_text(cluster: &MqttCluster) -> String {
    let labels = selector_labels(cluster);
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

pub(super) fn selector(cluster: &MqttCluster) -> LabelSelector {
    LabelSelector { match_labels: Some(selector_labels(cluster)), ..LabelSelector::default() }
}

/// Metadata of a child of a cluster.
pub(super) fn of_cluster(cluster: &MqttCluster, child: String) -> ObjectMeta {
    of(cluster, child, cluster_labels(cluster))
}

/// Metadata of a child of a link.
pub(super) fn of_link(link: &ClusterLink, child: String) -> ObjectMeta {
    of(link, child, labels([NAME, (LINK, name(link)), (MANAGED_BY, OWN)]))
}

pub(super) fn name(object: &impl Resource) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

fn of<K: Resource<DynamicType = ()>>(owner: &K, child: String, labels: Labels) -> ObjectMeta {
    ObjectMeta {
        name: Some(child),
        namespace: owner.meta().namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![OwnerReference {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            name: name(owner).to_owned(),
            uid: owner.meta().uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Writes the hash of an object into it.
pub(super) fn mark(body: &mut Value) {
    body["metadata"]["annotations"][APPLIED] = json!(hash(&body.to_string()));
}

pub(super) fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Fields that are one value though they are maps: one key more leads clients nowhere, or is read by nodes.
const WHOLE: [&str; 3] = ["selector", "matchLabels", "data"];

/// Whether an object is as it should be: everything wanted is there. What others added does not count, but in a list,
/// where nobody can tell whose an entry is, and in [`WHOLE`].
pub(in crate::operator) fn matches(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            let empty = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
            wanted.iter().all(|(key, value)| match found.get(key) {
                Some(found) => matches_in(key, value, found),
                None => value.is_null() || empty(value),
            })
        }
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len()
                && wanted.iter().zip(found).all(|(wanted, found)| matches(wanted, found))
        }
        _ => wanted == found,
    }
}

/// The same of what stands in a field.
pub(in crate::operator) fn matches_in(field: &str, wanted: &Value, found: &Value) -> bool {
    let count = |value: &Value| value.as_object().map(serde_json::Map::len);
    (!WHOLE.contains(&field) || count(wanted) == count(found)) && matches(wanted, found)
}

/// What makes a field as it should be, merged into it: lists are replaced by that as a whole, and what is in [`WHOLE`] and
/// should not be is taken out.
pub(in crate::operator) fn merging(field: &str, wanted: &Value, found: &Value) -> Value {
    let Value::Object(own) = wanted else { return wanted.clone() };
    let mut merged: serde_json::Map<String, Value> =
        own.iter().map(|(key, value)| (key.clone(), merging(key, value, &found[key]))).collect();
    for key in
        found.as_object().into_iter().flat_map(serde_json::Map::keys).filter(|_| WHOLE.contains(&field))
    {
        merged.entry(key).or_insert(Value::Null);
    }
    Value::Object(merged)
}
