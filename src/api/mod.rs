//! The custom resources `MqttCluster` and `ClusterLink` (`mqlink.dev/v1alpha1`).
//!
//! Owns the types, the schema and CEL rules that an API server enforces ([`crds`]), and every one of those
//! rules once more in Rust ([`check`]) for where no API server stands in front: `mqlink up`. A table of
//! accepted and refused objects holds both statements to the same verdict.
//!
//! Does not know how the resources are reconciled, which Secrets exist, or what time it is. What needs a second
//! object to be judged is a condition and belongs to [`crate::plan`].
//!
//! Invariants: `spec: {}` of an `MqttCluster` is valid and lets nobody in; defaults are resolved at run time and
//! are not written into objects (`replicas` excepted, the scale subresource needs it); a rule never raises an
//! error while it is evaluated.

pub mod refs;
pub mod doors;
pub mod access;
pub mod pods;
pub mod cluster;
pub mod link;
pub mod values;
mod schema;
pub mod crd;
pub mod structure;
pub mod check;
pub mod conditions;

pub use check::Finding;
pub use cluster::{MqttCluster, MqttClusterSpec, MqttClusterStatus};
pub use crd::crds;
pub use link::{ClusterLink, ClusterLinkSpec, ClusterLinkStatus};

/// The API group of both kinds.
pub const GROUP: &str = "mqlink.dev";
/// The one version that is served and stored.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of both kinds.
pub const API_VERSION: &str = "mqlink.dev/v1alpha1";

/// The bounds that schema, CEL and [`check`] share.
pub mod bounds {
    /// Characters of `metadata.name`: names of children are made from it.
    pub const NAME_CHARS_MAX: usize = 40;
    /// Characters of a listener's name: with the cluster's name before it, a Service name of at most 63.
    pub const LISTENER_NAME_CHARS_MAX: usize = 15;
    /// Characters of a cluster name as links know it.
    pub const CLUSTER_NAME_CHARS_MAX: usize = 63;
    /// Characters of the name of another object.
    pub const REFERENCE_CHARS_MAX: usize = 253;
    /// Client listeners of one cluster.
    pub const LISTENERS_MAX: usize = 16;
    /// Certificates of one listener besides its first.
    pub const CERTIFICATES_MAX: usize = 16;
    /// Origins of web pages that one listener may name.
    pub const ORIGINS_MAX: usize = 32;
    /// Characters of a WebSocket's path, or of an origin.
    pub const PATH_CHARS_MAX: usize = 256;
    /// Topic filters in one list.
    pub const FILTERS_MAX: usize = 32;
    /// Bytes of one topic filter.
    pub const FILTER_BYTES_MAX: usize = 1024;
    /// Nodes of one cluster.
    pub const REPLICAS_MAX: i32 = 64;
    /// Authorization rules of one cluster.
    pub const RULES_MAX: usize = 64;
    /// Users, client ids, names or networks in one principal list.
    pub const PRINCIPALS_MAX: usize = 64;
    /// Characters of one entry of a principal list.
    pub const PRINCIPAL_CHARS_MAX: usize = 256;
    /// Characters of free text: image, advertised address, server name.
    pub const TEXT_CHARS_MAX: usize = 512;
    /// Entries of a map of labels or annotations.
    pub const MAP_ENTRIES_MAX: usize = 64;
    /// Characters of a label's value.
    pub const LABEL_CHARS_MAX: usize = 63;
    /// Bytes of the token of a request in an annotation.
    pub const TOKEN_BYTES_MAX: usize = 128;
    /// Connections of a forwarding pool.
    pub const POOL_SIZE_MAX: i32 = 64;
    /// Largest value of any packet window: packet ids have 16 bits.
    pub const INFLIGHT_MAX: i32 = 65_535;
    /// Bytes of the largest packet that a broker can be told to take.
    pub const PACKET_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=256 << 20;
    /// The least memory to hold: with less a broker would shed load before anybody comes.
    pub const MEMORY_BYTES_MIN: u64 = 64 << 20;
    /// Largest count of anything else that is counted.
    pub const COUNT_MAX: i64 = 100_000_000;
}
