//! An object on its way to the API server: what it is, and its body.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::api::ApiResource;
use serde::Serialize;
use serde_json::Value;

use crate::api::{ClusterLink, MqttCluster};
use crate::plan::Key;

/// A kind that the operator watches or writes, in the order in which writes begin: what others need comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::operator) enum Kind {
    MqttCluster,
    ClusterLink,
    Namespace,
    Pod,
    /// A Secret of anybody, of which only the metadata is watched.
    AnySecret,
    Secret,
    ServiceAccount,
    Service,
    PodDisruptionBudget,
    StatefulSet,
}

impl Kind {
    /// What the operator makes.
    pub(in crate::operator) const CHILDREN: [Kind; 5] =
        [Kind::Secret, Kind::ServiceAccount, Kind::Service, Kind::PodDisruptionBudget, Kind::StatefulSet];

    /// What it is called in counts.
    pub(in crate::operator) fn name(self) -> &'static str {
        match self {
            Kind::MqttCluster => "MqttCluster",
            Kind::ClusterLink => "ClusterLink",
            Kind::Namespace => "Namespace",
            Kind::Pod => "Pod",
            Kind::AnySecret | Kind::Secret => "Secret",
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Service => "Service",
            Kind::PodDisruptionBudget => "PodDisruptionBudget",
            Kind::StatefulSet => "StatefulSet",
        }
    }

    pub(in crate::operator) fn resource(self) -> ApiResource {
        match self {
            Kind::MqttCluster => ApiResource::erase::<MqttCluster>(&()),
            Kind::ClusterLink => ApiResource::erase::<ClusterLink>(&()),
            Kind::Namespace => ApiResource::erase::<Namespace>(&()),
            Kind::Pod => ApiResource::erase::<Pod>(&()),
            Kind::AnySecret | Kind::Secret => ApiResource::erase::<Secret>(&()),
            Kind::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Kind::Service => ApiResource::erase::<Service>(&()),
            Kind::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        }
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::operator) struct ObjectId {
    pub(in crate::operator) kind: Kind,
    /// Empty for a Namespace.
    pub(in crate::operator) namespace: String,
    pub(in crate::operator) name: String,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// The cluster or link that an object belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::operator) struct Owner {
    pub(in crate::operator) is_link: bool,
    pub(in crate::operator) key: Key,
    pub(in crate::operator) uid: String,
}

/// An object as it should be.
#[derive(Clone, Debug)]
pub(in crate::operator) struct Object {
    pub(in crate::operator) id: ObjectId,
    /// The cluster or link that it belongs to.
    pub(in crate::operator) owner: Owner,
    /// What is handed to server-side apply.
    pub(in crate::operator) body: Arc<Value>,
}

impl Object {
    /// An object of a typed one, which has an owner, marked with the hash of what it is.
    pub(super) fn of<K: Serialize + Resource>(kind: Kind, object: &K) -> Object {
        let meta = object.meta();
        let id = ObjectId {
            kind,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        };
        let owner = meta.owner_references.iter().flatten().next().expect("all that is built has an owner");
        let owner = Owner {
            is_link: owner.kind != MqttCluster::kind(&()),
            key: Key::new(&id.namespace, &owner.name),
            uid: owner.uid.clone(),
        };
        let mut body = serde_json::to_value(object).expect("an object is plain data");
        super::meta::mark(&mut body);
        Object { id, owner, body: Arc::new(body) }
    }
}
