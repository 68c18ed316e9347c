//! How one object names another, and the small parts both kinds share.

#![allow(unreachable_pub, reason = "the derive makes a private copy of each struct, `pub` included")]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Names a Secret in the namespace of the object that refers to it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRef {
    /// Name of the Secret, in the same namespace.
    #[schemars(schema_with = "schema::reference")]
    pub name: String,
}

/// Names an MqttCluster in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalClusterRef {
    /// Name of the MqttCluster, in the same namespace.
    #[schemars(schema_with = "schema::reference")]
    pub name: String,
}

/// Names an MqttCluster, here or in another namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRef {
    /// Name of the MqttCluster.
    #[schemars(schema_with = "schema::reference")]
    pub name: String,
    /// Its namespace; default: the referring object's own. Another namespace's cluster has to allow it
    /// (`allowedLinks`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespace")]
    pub namespace: Option<String>,
}

/// How a Service is made for a listener.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTemplate {
    /// Type of the Service; default ClusterIP.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// Annotations of the Service, for load balancer controllers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string_map")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Type of a Service; default ClusterIP.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// Reachable inside the Kubernetes cluster.
    #[default]
    ClusterIP,
    /// Also reachable on a port of every Kubernetes node.
    NodePort,
    /// Also reachable from outside through a load balancer.
    LoadBalancer,
}
