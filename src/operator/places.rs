//! Where a cluster runs, by the objects that it has: names of nodes, addresses of Services.

use std::collections::BTreeMap;

use serde_json::Value;

use super::build::{
    Kind, ObjectId, RESERVED_PORTS, link_service, listener_service, node_name, nodes_service, selector_text,
};
use super::picture::{Found, Picture};
use crate::api::refs::{ServiceTemplate, ServiceType};
use crate::api::{MqttCluster, values};
use crate::plan::{Key, Placement, Service};

/// The address that listeners bind in pods: every one, of both families.
const BIND: &str = "::";

impl Picture {
    pub(super) fn placement(&self, key: &Key, cluster: &MqttCluster) -> Placement {
        let listeners = cluster.spec.client_listeners();
        let of_listener = |listener: &crate::api::doors::Listener| {
            let service = listener_service(&key.name, &listener.name);
            let address = self.address(&key.namespace, service, listener.port, listener.service.as_ref())?;
            Some((listener.name.clone(), address))
        };
        let link = cluster.spec.link_listener.as_ref();
        let is_advertised =
            link.is_some_and(|link| link.advertised_address.as_ref().is_some_and(|it| !it.is_empty()));
        let link_port = cluster.spec.link_port().filter(|_| !is_advertised);
        let link_address = link_port.and_then(|port| {
            let template = link.and_then(|link| link.service.as_ref());
            self.address(&key.namespace, link_service(&key.name), port, template)
        });
        Placement {
            bind: BIND.to_owned(),
            listener_addresses: listeners.iter().filter_map(of_listener).collect(),
            link_address,
            admin: true,
            nodes: self.node_names(key, cluster),
            selector: Some(selector_text(cluster)),
            has_set: self.stateful_set(key).is_some(),
            services: self.services(key, cluster),
            reserved_ports: RESERVED_PORTS.to_vec(),
            ..Placement::default()
        }
    }

    /// The nodes that there should be: as many as were asked for when the spec was last accepted.
    pub(super) fn node_names(&self, key: &Key, cluster: &MqttCluster) -> Vec<String> {
        let applied = self.stateful_set(key).and_then(|found| found.body["spec"]["replicas"].as_i64());
        let wanted = cluster.spec.replicas.unwrap_or(1);
        let count = applied.and_then(|count| i32::try_from(count).ok()).unwrap_or(wanted);
        (0..count).map(|index| node_name(&key.name, index)).collect()
    }

    pub(super) fn stateful_set(&self, cluster: &Key) -> Option<&Found> {
        let id = ObjectId {
            kind: Kind::StatefulSet,
            namespace: cluster.namespace.clone(),
            name: cluster.name.clone(),
        };
        self.children.get(&id)
    }

    /// The Services that a cluster asks for.
    fn services(&self, key: &Key, cluster: &MqttCluster) -> BTreeMap<String, Service> {
        let listeners = cluster.spec.client_listeners();
        let listeners = listeners.iter().enumerate().map(|(index, listener)| {
            (listener_service(&key.name, &listener.name), format!("spec.listeners[{index}].name"))
        });
        let nodes = (nodes_service(&key.name), "metadata.name".to_owned());
        let link =
            cluster.spec.link_port().map(|_| (link_service(&key.name), "spec.linkListener".to_owned()));
        let of_field = |(name, field): (String, String)| {
            let id = ObjectId { kind: Kind::Service, namespace: key.namespace.clone(), name: name.clone() };
            let owner = self.children.get(&id).and_then(|found| found.owner.as_ref());
            let is_there = owner.is_some() && owner == cluster.metadata.uid.as_ref();
            (name, Service { field, is_there })
        };
        listeners.chain([nodes]).chain(link).map(of_field).collect()
    }

    /// Where a Service is reached: behind a load balancer once that has an address, else by its name. One that is not there (yet,
    /// or because somebody deleted it) is reached as the one will be that takes its place.
    fn address(
        &self,
        namespace: &str,
        name: String,
        port: i32,
        template: Option<&ServiceTemplate>,
    ) -> Option<String> {
        let port = u16::try_from(port).ok()?;
        let id = ObjectId { kind: Kind::Service, namespace: namespace.to_owned(), name };
        let service = self.children.get(&id).map_or(&Value::Null, |found| &*found.body);
        let is_balanced = match service["spec"]["type"].as_str() {
            Some(type_) => type_ == "LoadBalancer",
            None => template.and_then(|it| it.type_) == Some(ServiceType::LoadBalancer),
        };
        if !is_balanced {
            return Some(values::join_host_port(&format!("{}.{namespace}.svc", id.name), port));
        }
        let ingress = &service["status"]["loadBalancer"]["ingress"][0];
        Some(values::join_host_port(ingress["hostname"].as_str().or(ingress["ip"].as_str())?, port))
    }
}
