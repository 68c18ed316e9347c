//! The smaller parts of listeners and of authentication.

#![allow(unreachable_pub, reason = "the derive makes a private copy of each struct, `pub` included")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refs::SecretRef;
use super::schema;

/// A load balancer in front of a listener, which says whom it serves by the PROXY protocol (version 1 or 2).
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocol {
    /// Networks that the load balancer connects from; connections from elsewhere are closed.
    #[schemars(schema_with = "schema::trusted_cidrs")]
    pub trusted_cidrs: Vec<String>,
}

/// Bounds on the clients of one listener of one pod; absent: the bounds of the cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerLimits {
    /// Connections at once; those above are closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub max_connections: Option<i64>,
    /// Connections accepted each second; those above wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub max_connect_rate: Option<i64>,
    /// How long PROXY header, TLS and WebSocket handshake may take together, in whole seconds; default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub handshake_timeout: Option<String>,
}

/// Which name of a client's certificate is its user name.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CertificateName {
    /// The subject's common name, if there is exactly one.
    CommonName,
    /// The first host name among the alternative names.
    Dns,
    /// The first e-mail address among the alternative names.
    Email,
    /// The first URI among the alternative names.
    Uri,
}

/// The lowest version of TLS; default TLS12.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "TLS12")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "TLS13")]
    Tls13,
}

/// Tokens as passwords: JSON Web Tokens that one of these keys signed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// Secret whose key `jwks.json` is a JWKS document: the public keys of the issuer, or shared secrets.
    pub jwks_secret_ref: SecretRef,
    /// The claim that names the user; default sub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim")]
    pub username_claim: Option<String>,
    /// What the claim iss must say; absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim")]
    pub issuer: Option<String>,
    /// What the claim aud must name; absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim")]
    pub audience: Option<String>,
    /// The claim that says what a bearer may do, as EMQX has it, such as acl; absent: tokens do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim")]
    pub acl_claim: Option<String>,
}
