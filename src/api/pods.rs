//! Pods of a cluster: what they keep, where they run, and what is added to them.

#![allow(unreachable_pub, reason = "the derive makes a private copy of each struct, `pub` included")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Where sessions and retained messages are kept.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.size) != (has(self.ephemeral) && self.ephemeral)")
        .message("exactly one of size and ephemeral: true is required"),
    validation = Rule::new("has(self.size) || !(has(self.storageClassName) || has(self.retention) || has(self.durability))")
        .message("storageClassName, retention and durability are only for a volume; set size or remove them"),
    validation = Rule::new("(has(self.storageClassName) ? self.storageClassName : '') == (has(oldSelf.storageClassName) ? oldSelf.storageClassName : '')")
        .message("is immutable: volumes keep their class; make a new MqttCluster instead")
        .field_path(".storageClassName")
)]
pub struct Storage {
    /// Size of each pod's volume; it grows and never shrinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::storage_size")]
    pub size: Option<String>,
    /// Class of the volumes; default: the Kubernetes cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reference")]
    pub storage_class_name: Option<String>,
    /// What happens to the volumes when the cluster is deleted; default Retain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// No volume: sessions and retained messages end with the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<bool>,
    /// What an acknowledgement of a message to a persistent session means; default Interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
}

/// What an acknowledgement of a message to a persistent session means; default Interval.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// It is in memory.
    None,
    /// The operating system has it, and the disk soon: it survives the death of the broker.
    #[default]
    Interval,
    /// The disk has it: it survives the loss of power.
    Always,
}

/// What happens to the volumes when the cluster is deleted; default Retain.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retention {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted.
    Delete,
}

/// Labels of a pod that are the operator's: by them pods are found.
pub const OWN_LABELS: [&str; 3] =
    ["app.kubernetes.io/managed-by", "app.kubernetes.io/name", "mqlink.dev/cluster"];

/// Additions to the broker pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations; the operator's own win.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PodMetadata>,
    /// Resources of the broker container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Where pods should run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Taints that pods tolerate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tolerations: Option<Vec<Toleration>>,
    /// How pods spread; default: over nodes and zones, softly.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub topology_spread: Option<Vec<TopologySpreadConstraint>>,
    /// Name of the pods' PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reference")]
    pub priority_class: Option<String>,
    /// Environment variables of the broker container.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub env: Option<Vec<EnvVar>>,
}

/// Labels and annotations of the broker pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string_map")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Additions for monitoring.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Whether a PodMonitor is made; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_monitor: Option<bool>,
    /// How often `$SYS` topics are published, in whole seconds; default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hours")]
    pub sys_interval: Option<String>,
}
