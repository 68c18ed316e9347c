//! Services: one for the nodes among themselves, one per listener, one for links.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::object::{Kind, Object};
use super::{meta, names, pods};
use crate::api::MqttCluster;
use crate::api::doors::Listener;
use crate::api::refs::{ServiceTemplate, ServiceType};

/// The headless Service: a name for each node, ready or not.
pub(super) fn build_nodes(cluster: &MqttCluster) -> Object {
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        ..spec(cluster, "admin", pods::ADMIN_PORT)
    };
    service(cluster, names::nodes_service(meta::name(cluster)), spec, None)
}

/// Where MQTT clients connect.
pub(super) fn build_listener(cluster: &MqttCluster, listener: &Listener) -> Object {
    let name = names::listener_service(meta::name(cluster), &listener.name);
    exposed(cluster, name, &listener.name, listener.port, listener.service.as_ref())
}

/// Where linked clusters connect, unless this one only dials.
pub(super) fn build_link_listener(cluster: &MqttCluster) -> Option<Object> {
    let port = cluster.spec.link_port()?;
    let template = cluster.spec.link_listener.as_ref().and_then(|listener| listener.service.as_ref());
    Some(exposed(cluster, names::link_service(meta::name(cluster)), "link", port, template))
}

fn exposed(
    cluster: &MqttCluster,
    name: String,
    port_name: &str,
    port: i32,
    template: Option<&ServiceTemplate>,
) -> Object {
    let type_ = match template.and_then(|template| template.type_).unwrap_or_default() {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let spec = ServiceSpec { type_: Some(type_.to_owned()), ..spec(cluster, port_name, port) };
    service(cluster, name, spec, template)
}

fn service(
    cluster: &MqttCluster,
    name: String,
    spec: ServiceSpec,
    template: Option<&ServiceTemplate>,
) -> Object {
    let mut metadata = meta::of_cluster(cluster, name);
    metadata.annotations = template.and_then(|template| template.annotations.clone());
    Object::of(Kind::Service, &Service { metadata, spec: Some(spec), status: None })
}

fn spec(cluster: &MqttCluster, port_name: &str, port: i32) -> ServiceSpec {
    ServiceSpec {
        selector: Some(meta::selector_labels(cluster)),
        ip_family_policy: Some("PreferDualStack".to_owned()),
        ports: Some(vec![ServicePort {
            name: Some(port_name.to_owned()),
            port,
            target_port: Some(IntOrString::Int(port)),
            protocol: Some("TCP".to_owned()),
            ..ServicePort::default()
        }]),
        ..ServiceSpec::default()
    }
}
