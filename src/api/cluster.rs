//! `MqttCluster`: one named MQTT cluster, who may link to it, and how much its clients may use.
//!
//! Its parts stand beside it: [`super::doors`], [`super::access`], [`super::pods`].

#![allow(unreachable_pub, reason = "the derive makes a private copy of each struct, `pub` included")]
#![allow(clippy::duplicated_attributes, reason = "printer columns are alike")]

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{Authentication, Authorization};
use super::doors::{LinkListener, LinkTlsMode, Listener};
use super::pods::{Monitoring, PodTemplate, Storage};
use super::schema;

/// What a cluster should be.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "mqlink.dev",
    version = "v1alpha1",
    kind = "MqttCluster",
    namespaced,
    status = "MqttClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "mqc",
    category = "mqtt",
    doc = "An MQTT cluster: its listeners, its users, and who may link to it.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".status.clusterName",
        description = "The name links know"
    ),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Up", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Links", type_ = "integer", json_path = ".status.links.total"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    validation = Rule::new(
        "(has(self.spec.clusterName) ? self.spec.clusterName : self.metadata.name) == (has(oldSelf.spec.clusterName) ? oldSelf.spec.clusterName : oldSelf.metadata.name)"
    )
    .message("is immutable: other clusters know this one by its name (default: metadata.name); make a new MqttCluster instead")
    .field_path(".spec.clusterName")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "has(self.linkListener) && has(self.linkListener.enabled) && !self.linkListener.enabled ? true : (has(self.listeners) ? self.listeners.all(l, l.port != (has(self.linkListener) && has(self.linkListener.port) ? self.linkListener.port : 11883)) : (has(self.linkListener) && has(self.linkListener.port) ? self.linkListener.port != 1883 : true))"
    )
    .message("the port of linkListener (default 11883) is also a listener's port (default 1883); give one of them another port")
    .field_path(".linkListener"),
    validation = Rule::new(
        "(has(self.storage) && has(self.storage.size)) == (has(oldSelf.storage) && has(oldSelf.storage.size))"
    )
    .message("cannot change between a volume (size) and none (ephemeral: true, or unset); make a new MqttCluster instead")
    .field_path(".storage")
)]
pub struct MqttClusterSpec {
    /// The name by which links know this cluster, unique among all clusters that are linked; default metadata.name; immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::cluster_name")]
    pub cluster_name: Option<String>,
    /// Number of broker pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::replicas")]
    pub replicas: Option<i32>,
    /// Image of the broker; default: the operator's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::image")]
    pub image: Option<String>,
    /// Where MQTT clients connect; default: one listener `mqtt`, MQTT on 1883.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".to_owned()]),
        validation = ("self.all(a, self.exists_one(b, a.port == b.port))", "two listeners have the same port; give each its own"),
    )]
    pub listeners: Option<Vec<Listener>>,
    /// The dedicated listener for links, on by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_listener: Option<LinkListener>,
    /// Who may connect; absent: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// What those may do who connected; absent: everything but `$LINK/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// Where sessions and retained messages are kept; absent: in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Bounds on what clients may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Who may point a ClusterLink of another namespace here; default: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_links: Option<AllowedLinks>,
    /// Additions to the broker pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Additions for monitoring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
}

impl MqttCluster {
    /// The name by which links know this cluster.
    pub fn cluster_name(&self) -> &str {
        let own = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.cluster_name.as_deref().unwrap_or(own)
    }
}

impl MqttClusterSpec {
    /// Port of the link listener unless the spec says otherwise.
    pub const LINK_PORT: i32 = 11_883;

    /// The listeners, with the default where none are given.
    pub fn client_listeners(&self) -> Cow<'_, [Listener]> {
        let default = || Listener { name: "mqtt".to_owned(), port: 1883, ..Listener::default() };
        self.listeners.as_deref().map_or_else(|| Cow::Owned(vec![default()]), Cow::Borrowed)
    }

    /// The port of the link listener; `None` when it is turned off.
    pub fn link_port(&self) -> Option<i32> {
        let listener = self.link_listener.as_ref();
        let enabled = listener.and_then(|listener| listener.enabled).unwrap_or(true);
        enabled.then(|| listener.and_then(|listener| listener.port).unwrap_or(Self::LINK_PORT))
    }

    /// How the link listener is secured.
    pub fn link_tls_mode(&self) -> LinkTlsMode {
        let tls = self.link_listener.as_ref().and_then(|listener| listener.tls.as_ref());
        tls.and_then(|tls| tls.mode).unwrap_or_default()
    }
}

/// Bounds on what clients may use; each has a default that `status` does not repeat.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Largest packet accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::packet_size")]
    pub max_packet_bytes: Option<String>,
    /// Unacknowledged messages to one client; the client's Receive Maximum rules when it is smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::inflight")]
    pub max_inflight: Option<i32>,
    /// Messages kept for one session that is away or slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub max_queued_messages: Option<i64>,
    /// Bytes kept for one session that is away or slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::byte_size")]
    pub max_queued_bytes: Option<String>,
    /// Messages kept for all sessions of one node; without it as many as its memory has room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub max_total_queued_messages: Option<i64>,
    /// Bytes kept for all sessions of one node, counted for each session; without it as many as its memory has room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::byte_size")]
    pub max_total_queued_bytes: Option<String>,
    /// Connections to one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub max_connections: Option<i64>,
    /// Sessions of one node, connected or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub max_sessions: Option<i64>,
    /// Longest life of a session without a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub max_session_expiry: Option<String>,
    /// Subscriptions of one session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub max_subscriptions: Option<i64>,
    /// Retained messages of one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub max_retained_messages: Option<i64>,
    /// Bytes of the retained messages of one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::byte_size")]
    pub max_retained_bytes: Option<String>,
    /// Topic aliases of one connection, in each direction; 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::topic_aliases")]
    pub max_topic_aliases: Option<i32>,
    /// Memory that a broker may hold before it sheds load; default: three quarters of what its container has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::memory_size")]
    pub max_memory: Option<String>,
    /// How long a client may take to its CONNECT, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hours")]
    pub connect_timeout: Option<String>,
    /// Longest keep alive, in whole seconds: MQTT 5 clients that want a longer one, or none, are told this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hours")]
    pub max_keep_alive: Option<String>,
}

/// Who may point a ClusterLink of another namespace here.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.selector) == (has(self.namespaces) && self.namespaces == 'Selector')")
    .message("selector is required for namespaces: Selector, and not allowed for Same and All")
    .field_path(".selector"))]
#[x_kube(validation = Rule::new("!has(self.selector) || !has(self.selector.matchExpressions) || self.selector.matchExpressions.all(it, \
    (it.operator in ['In', 'NotIn']) == (has(it.values) && it.values.size() > 0))")
    .message("In and NotIn need values, Exists and DoesNotExist have none; correct matchExpressions")
    .field_path(".selector"))]
pub struct AllowedLinks {
    /// Which namespaces; default Same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LinkNamespaces>,
    /// The namespaces by their labels, for Selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Which namespaces may link; default Same.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkNamespaces {
    /// The cluster's own.
    #[default]
    Same,
    /// Every one.
    All,
    /// Those whose labels match `selector`.
    Selector,
}

/// What a cluster is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MqttClusterStatus {
    /// Generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Progressing, Available, ConfigApplied, Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Option<Vec<Condition>>,
    /// Broker pods that exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Broker pods that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Label selector of the broker pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The name that links know, as resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Version of the brokers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where clients reach each listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub listeners: Option<Vec<ListenerStatus>>,
    /// Where peers reach the link listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_listener: Option<LinkListenerStatus>,
    /// How many links this cluster has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<LinkCounts>,
}

/// Where clients reach a listener.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Name of the listener.
    pub name: String,
    /// host:port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Where peers reach the link listener, and by what they know it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkListenerStatus {
    /// host:port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// SHA-256 of the CA certificate that peers must trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_fingerprint: Option<String>,
    /// End of the listener certificate's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
}

/// How many links a cluster has.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkCounts {
    /// Links that name this cluster on either side.
    pub total: i32,
    /// Those that are Ready.
    pub ready: i32,
}
