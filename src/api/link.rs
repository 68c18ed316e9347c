//! `ClusterLink`: which messages cross between two clusters, and whether they do.

#![allow(unreachable_pub, reason = "the derive makes a private copy of each struct, `pub` included")]
#![allow(clippy::duplicated_attributes, reason = "printer columns are alike")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::TOKEN_BYTES_MAX;
use super::refs::{ClusterRef, LocalClusterRef, SecretRef};
use super::schema;

/// What a link should be.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "mqlink.dev",
    version = "v1alpha1",
    kind = "ClusterLink",
    namespaced,
    status = "ClusterLinkStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "clink",
    category = "mqtt",
    doc = "A link between two MQTT clusters: what each side wants to receive from the other.",
    printcolumn(name = "Local", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(
        name = "Remote",
        type_ = "string",
        json_path = ".spec.remote['clusterRef','external']['name','clusterName']"
    ),
    printcolumn(
        name = "Connected",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Connected")].status"#
    ),
    printcolumn(
        name = "Synced",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="RoutesSynced")].status"#
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Topics", type_ = "string", json_path = ".spec.topics", priority = 1),
    printcolumn(name = "RTT", type_ = "string", json_path = ".status.local.rtt", priority = 1),
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
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterLinkSpec {
    /// The local cluster, in the same namespace; immutable.
    #[x_kube(validation = ("self == oldSelf", "is immutable: make a new ClusterLink instead"))]
    pub cluster_ref: LocalClusterRef,
    /// What this side wants to receive from the other; `[]` receives nothing.
    #[schemars(schema_with = "schema::link_filters")]
    pub topics: Vec<String>,
    /// The other side.
    #[x_kube(
        validation = ("has(self.clusterRef) != has(self.external)", "exactly one of clusterRef and external is required"),
        validation = Rule::new("has(self.clusterRef) == has(self.topics)")
            .message("is required with clusterRef (what the other side wants to receive, may be []) and not allowed with external, whose own half says it")
            .field_path(".topics"),
        validation = ("has(self.clusterRef) == has(oldSelf.clusterRef)", "cannot change between clusterRef and external: make a new ClusterLink instead"),
    )]
    pub remote: Remote,
    /// Whether the link is in use; default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Beginning of this side's client identifiers; default: the own cluster name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::client_id_prefix")]
    pub client_id_prefix: Option<String>,
    /// How messages are forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// What may cross at all, whatever the other side asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
}

/// The other side of a link: exactly one of `clusterRef` and `external`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remote {
    /// A cluster that is managed here: both halves come from this one object; immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self == oldSelf", "is immutable: make a new ClusterLink instead"))]
    pub cluster_ref: Option<ClusterRef>,
    /// What the other side wants to receive, with `clusterRef`; `[]` receives nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::link_filters")]
    pub topics: Option<Vec<String>>,
    /// Any other cluster: this object is only the local half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// A cluster that is managed elsewhere.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.server) || (has(self.dial) && self.dial == 'In')")
        .message("is required unless dial is In: host:port of the peer's link listener")
        .field_path(".server"),
    validation = Rule::new("!(has(self.dialect) && self.dialect == 'Emqx' && has(self.dial))")
        .message("is for the Native dialect only: with Emqx each side dials the other; remove it")
        .field_path(".dial"),
    validation = Rule::new("!(has(self.tls) && has(self.server) && self.server.startsWith('mqtt://'))")
        .message("is not allowed with an mqtt:// server; write mqtts:// or remove tls")
        .field_path(".tls"),
)]
pub struct External {
    /// The name of the cluster, as its own side has it; immutable.
    #[schemars(schema_with = "schema::cluster_name")]
    #[x_kube(validation = ("self == oldSelf", "is immutable: make a new ClusterLink instead"))]
    pub cluster_name: String,
    /// Where the peer accepts links: host:port, mqtt://host:port or mqtts://host:port; required unless dial is In.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::server")]
    pub server: Option<String>,
    /// What is spoken on the link; default Native.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
    /// Which side opens connections; default Both; Native only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dial: Option<Dial>,
    /// Secret with what this side presents: username and password, or tls.crt and tls.key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretRef>,
    /// How the peer's certificate is verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExternalTls>,
    /// What the peer must present here; without it (Native) credentials are minted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
}

/// What is spoken on a link; default Native.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// mqlink's own.
    #[default]
    Native,
    /// That of EMQX 5.8 and later.
    Emqx,
}

/// Which side opens connections; default Both; Native only.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dial {
    /// Either.
    #[default]
    Both,
    /// This side only.
    Out,
    /// The other side only.
    In,
}

/// How the peer's certificate is verified.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalTls {
    /// Secret with ca.crt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<SecretRef>,
    /// The name to expect in the certificate; default: the host of `server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::host")]
    pub server_name: Option<String>,
}

/// What the peer must present.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inbound {
    /// Secret with username and password that the peer must present.
    pub credentials_ref: SecretRef,
}

/// How messages are forwarded.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forwarding {
    /// Connections that forward; default 1, with Emqx 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pool_size")]
    pub pool_size: Option<i32>,
    /// Unacknowledged messages; default 1000, with Emqx 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::inflight")]
    pub max_inflight: Option<i32>,
    /// What is kept while the peer is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// Whether frames are compressed; default Auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

/// What is kept while the peer is away.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Most bytes; default 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::byte_size")]
    pub max_bytes: Option<String>,
    /// Longest time; default 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub max_age: Option<String>,
}

/// Whether frames are compressed; default Auto.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Where both sides can and it saves.
    #[default]
    Auto,
    /// Never.
    None,
}

/// What may cross at all.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acl {
    /// What may leave; default everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::link_filters")]
    pub send: Option<Vec<String>>,
    /// What may come in; default everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::link_filters")]
    pub accept: Option<Vec<String>>,
}

/// What a link is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterLinkStatus {
    /// Generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Programmed, Connected, PeerAgrees, RoutesSynced, Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Option<Vec<Condition>>,
    /// This side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalStatus>,
    /// The other side, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteStatus>,
    /// The defaults as resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<Effective>,
    /// What to copy to the other side, for an external Native peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invitation: Option<Invitation>,
    /// Token of the last resync, asked for by the annotation mqlink.dev/resync, that is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_resync: Option<String>,
}

/// The annotation that asks for a resync: another token than before, and both sides tell each other all their routes anew.
pub const RESYNC: &str = "mqlink.dev/resync";

impl ClusterLink {
    /// The token of the resync that is asked for.
    ///
    /// # Errors
    /// Why the annotation is of no use: the API server takes any.
    pub fn resync(&self) -> Result<Option<&str>, &'static str> {
        let annotations = self.metadata.annotations.as_ref();
        match annotations.and_then(|annotations| annotations.get(RESYNC)) {
            Some(token) if token.is_empty() => Err("it is empty"),
            Some(token) if token.len() > TOKEN_BYTES_MAX => Err("it has more than 128 bytes"),
            token => Ok(token.map(String::as_str)),
        }
    }
}

/// This side of a link.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalStatus {
    /// Name of the local cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Connections that are open, of those that should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<String>,
    /// Round-trip time, bucketed so that it seldom changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt: Option<String>,
}

/// The other side of a link.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteStatus {
    /// Name of the other cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Whether its half is enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What it wants to receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub topics: Option<Vec<String>>,
    /// Its nodes that are known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<i32>,
}

/// The defaults of a link as resolved.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Effective {
    /// What this side receives: its topics without those that another one covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub topics: Option<Vec<String>>,
    /// What is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
    /// Which side opens connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dial: Option<Dial>,
    /// Where the peer is dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Beginning of this side's client identifiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id_prefix: Option<String>,
    /// How messages are forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
}

/// What to copy to the other side of a link.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invitation {
    /// Name of the Secret.
    pub secret_name: String,
}
