//! The StatefulSet that runs the nodes, and what stands around its pods.
//!
//! The template holds only what cannot change in a running process: image, resources, placement, ports of the operator's own.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource,
    SeccompProfile, SecretProjection, SecretVolumeSource, SecurityContext, ServiceAccount, Sysctl,
    TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::object::{Kind, Object};
use super::{meta, names};
use crate::api::MqttCluster;
use crate::api::MqttClusterSpec;
use crate::api::pods::PodTemplate;
use crate::settings::canonical_sha256;

/// Where a node serves the admin protocol over TLS.
pub(super) const ADMIN_PORT: i32 = 11_884;
/// Where a node answers the kubelet's probes.
const HEALTH_PORT: i32 = 11_885;
/// What no listener can have.
pub(in crate::operator) const RESERVED_PORTS: [(i32, &str); 2] =
    [(ADMIN_PORT, "the operator"), (HEALTH_PORT, "probes")];
/// Time for links to say Bye and clients to be told.
const GRACE_S: i64 = 30;
/// Where the settings are mounted.
const SETTINGS_DIR: &str = "/etc/mqlink/settings";
/// Where the certificate of the admin port is mounted.
const ADMIN_DIR: &str = "/etc/mqlink/admin";
/// Where people with a right to `exec` find the socket of `mqlink admin`.
const RUN_DIR: &str = "/run/mqlink";
/// The container that the pod template's resources and environment are for.
const CONTAINER: &str = "broker";

/// An account that may do nothing: pods without one run as `default`, to which people give rights.
pub(super) fn build_service_account(cluster: &MqttCluster) -> Object {
    let account = ServiceAccount {
        metadata: meta::of_cluster(cluster, names::service_account(meta::name(cluster))),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    Object::of(Kind::ServiceAccount, &account)
}

/// One node at a time may be evicted; one that is not ready stands in nobody's way.
pub(super) fn build_disruption_budget(cluster: &MqttCluster) -> Object {
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(1)),
        selector: Some(meta::selector(cluster)),
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    };
    let metadata = meta::of_cluster(cluster, meta::name(cluster).to_owned());
    Object::of(Kind::PodDisruptionBudget, &PodDisruptionBudget { metadata, spec: Some(spec), status: None })
}

pub(super) fn build_stateful_set(cluster: &MqttCluster, default_image: &str) -> Object {
    let spec = StatefulSetSpec {
        replicas: Some(cluster.spec.replicas.unwrap_or(1)),
        service_name: Some(names::nodes_service(meta::name(cluster))),
        selector: meta::selector(cluster),
        // Nodes need no order, and one that cannot start must not keep the others from it.
        pod_management_policy: Some("Parallel".to_owned()),
        revision_history_limit: Some(3),
        template: build_pod(cluster, default_image),
        ..StatefulSetSpec::default()
    };
    let mut metadata = meta::of_cluster(cluster, meta::name(cluster).to_owned());
    metadata.annotations = Some([(meta::POD_SPEC.to_owned(), pod_spec_hash(cluster))].into());
    Object::of(Kind::StatefulSet, &StatefulSet { metadata, spec: Some(spec), status: None })
}

/// The scheme before the hash is to be another once the same spec gives another hash.
fn pod_spec_hash(cluster: &MqttCluster) -> String {
    let MqttClusterSpec { image, pod_template, replicas, .. } = &cluster.spec;
    let own =
        json!({"image": own_image(image), "podTemplate": pod_template, "replicas": replicas.unwrap_or(1)});
    format!("1-{}", canonical_sha256(&own))
}

/// The image that a spec names; the empty name is none.
fn own_image(image: &Option<String>) -> Option<&String> {
    image.as_ref().filter(|image| !image.is_empty())
}

fn build_pod(cluster: &MqttCluster, default_image: &str) -> PodTemplateSpec {
    let template = cluster.spec.pod_template.clone().unwrap_or_default();
    let own = template.metadata.clone().unwrap_or_default();
    let mut labels = own.labels.unwrap_or_default();
    labels.extend(meta::cluster_labels(cluster));
    let metadata = ObjectMeta { labels: Some(labels), annotations: own.annotations, ..ObjectMeta::default() };
    let spec = PodSpec {
        service_account_name: Some(names::service_account(meta::name(cluster))),
        automount_service_account_token: Some(false),
        // Variables for every Service of the namespace: hundreds where there are many links, and never read.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_S),
        security_context: Some(pod_security()),
        affinity: template.affinity.clone(),
        tolerations: template.tolerations.clone(),
        priority_class_name: template.priority_class.clone(),
        topology_spread_constraints: Some(
            template
                .topology_spread
                .clone()
                .map_or_else(|| default_spread(cluster), |own| of_own_pods(cluster, own)),
        ),
        containers: vec![build_broker(cluster, template, default_image)],
        volumes: Some(vec![
            settings_volume(cluster),
            volume("admin", names::admin_secret(meta::name(cluster))),
            run_volume(),
        ]),
        ..PodSpec::default()
    };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

fn build_broker(cluster: &MqttCluster, template: PodTemplate, default_image: &str) -> Container {
    let arguments = [
        "broker",
        "--node=$(POD_NAME)",
        &format!("--config={SETTINGS_DIR}"),
        &format!("--admin-listen=[::]:{ADMIN_PORT}"),
        &format!("--admin-tls={ADMIN_DIR}"),
        &format!("--admin-socket={RUN_DIR}/admin.sock"),
        &format!("--probe-listen=[::]:{HEALTH_PORT}"),
    ];
    Container {
        name: CONTAINER.to_owned(),
        image: Some(own_image(&cluster.spec.image).map_or(default_image, String::as_str).to_owned()),
        args: Some(arguments.map(str::to_owned).to_vec()),
        env: Some(environment(template.env)),
        ports: Some(vec![port("admin", ADMIN_PORT), port("health", HEALTH_PORT)]),
        resources: template.resources,
        // A slow start is no reason to be killed: a node that loads many routes is alive all the while.
        startup_probe: Some(probe("/livez", 2, 60)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        // Why it does not start shows in the conditions of its cluster.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![
            mount("settings", SETTINGS_DIR),
            mount("admin", ADMIN_DIR),
            VolumeMount { read_only: None, ..mount("run", RUN_DIR) },
        ]),
        ..Container::default()
    }
}

/// The user's variables, and the pod's name, which none of them may replace.
fn environment(own: Option<Vec<EnvVar>>) -> Vec<EnvVar> {
    const POD_NAME: &str = "POD_NAME";
    let field =
        ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: "metadata.name".to_owned() };
    let pod_name = EnvVar {
        name: POD_NAME.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    };
    let own = own.into_iter().flatten().filter(|variable| variable.name != POD_NAME);
    std::iter::once(pod_name).chain(own).collect()
}

fn port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_s: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("health".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_s),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// The level `restricted`. No user is named: the image's is a number, and some platforms choose their own.
fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        // Listeners may have any port, and 443 is a usual one. It is of this pod's network alone, and `restricted` allows it.
        sysctls: Some(vec![Sysctl {
            name: "net.ipv4.ip_unprivileged_port_start".to_owned(),
            value: "0".to_owned(),
        }]),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        ..SecurityContext::default()
    }
}

/// A constraint that names no pods would count none; it means this cluster's.
fn of_own_pods(
    cluster: &MqttCluster,
    mut own: Vec<TopologySpreadConstraint>,
) -> Vec<TopologySpreadConstraint> {
    for constraint in &mut own {
        constraint.label_selector.get_or_insert_with(|| meta::selector(cluster));
    }
    own
}

/// Apart where there is room, together where there is none.
fn default_spread(cluster: &MqttCluster) -> Vec<TopologySpreadConstraint> {
    let over = |topology: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: topology.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(meta::selector(cluster)),
        ..TopologySpreadConstraint::default()
    };
    vec![over("kubernetes.io/hostname"), over("topology.kubernetes.io/zone")]
}

fn volume(name: &str, secret: String) -> Volume {
    let secret = SecretVolumeSource { secret_name: Some(secret), ..SecretVolumeSource::default() };
    Volume { name: name.to_owned(), secret: Some(secret), ..Volume::default() }
}

/// The one folder that the broker may write to: it goes with the pod.
fn run_volume() -> Volume {
    Volume { name: "run".to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

/// All pieces in one folder.
fn settings_volume(cluster: &MqttCluster) -> Volume {
    let source = |name| {
        let secret = SecretProjection { name, ..SecretProjection::default() };
        VolumeProjection { secret: Some(secret), ..VolumeProjection::default() }
    };
    let sources = names::settings_secrets(meta::name(cluster)).map(source);
    let projected =
        ProjectedVolumeSource { sources: Some(sources.into()), ..ProjectedVolumeSource::default() };
    Volume { name: "settings".to_owned(), projected: Some(projected), ..Volume::default() }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}
