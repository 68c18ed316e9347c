//! Doors of a cluster: where clients and links come in, and how these ways are secured.

#![allow(unreachable_pub, reason = "the derive makes a private copy of each struct, `pub` included")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refs::{SecretRef, ServiceTemplate};
use super::schema;

/// One listener for MQTT clients.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.tls) == (self.protocol in ['MQTTS', 'WSS'])")
    .message("tls.secretRef is required for MQTTS and WSS, and tls is not allowed for MQTT and WS")
    .field_path(".tls"),
    validation = Rule::new("!has(self.path) || self.protocol in ['WS', 'WSS']")
    .message("is only for WS and WSS; remove it or change the protocol")
    .field_path(".path"),
    validation = Rule::new("!has(self.allowedOrigins) || self.protocol in ['WS', 'WSS']")
    .message("is only for WS and WSS; remove it or change the protocol")
    .field_path(".allowedOrigins"))]
pub struct Listener {
    /// Name of the listener, unique in the cluster.
    #[schemars(schema_with = "schema::listener_name")]
    pub name: String,
    /// What is spoken on the port.
    pub protocol: Protocol,
    /// TCP port.
    #[schemars(schema_with = "schema::port")]
    pub port: i32,
    /// The certificate to serve, for MQTTS and WSS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Path of the WebSocket, for WS and WSS; default /mqtt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub path: Option<String>,
    /// Origins of web pages whose scripts may connect, such as `https://app.example`, for WS and WSS; absent: those of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::origins")]
    pub allowed_origins: Option<Vec<String>>,
    /// Whether a load balancer says by the PROXY protocol whom it serves; absent: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Bounds on this listener's clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ListenerLimits>,
    /// The Service of this listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceTemplate>,
}

/// What is spoken on a listener.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// MQTT over TCP.
    #[default]
    Mqtt,
    /// MQTT over TLS.
    Mqtts,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
}

/// TLS of a client listener.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.clientCaRef) == (has(self.clientAuth) && self.clientAuth != 'None')")
    .message("clientCaRef is required when clientAuth is Request or Require, and not allowed without them")
    .field_path(".clientCaRef"),
    validation = Rule::new("!has(self.usernameFrom) || (has(self.clientAuth) && self.clientAuth != 'None')")
    .message("usernameFrom needs clientAuth: Require or Request")
    .field_path(".usernameFrom"))]
pub struct ListenerTls {
    /// Secret with tls.crt (the chain) and tls.key.
    pub secret_ref: SecretRef,
    /// Secrets with certificates for other server names; a client that asks for none of theirs gets the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub additional_secret_refs: Option<Vec<SecretRef>>,
    /// The lowest version of TLS; default TLS12.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// Whether clients present a certificate; default None.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// Secret with ca.crt that client certificates must chain to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_ref: Option<SecretRef>,
    /// Which name of a client's certificate is its user name; absent: a certificate lets nobody in by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_from: Option<CertificateName>,
}

/// Whether clients present a certificate; default None.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    None,
    /// They are asked; one that is presented must be valid.
    Request,
    /// They must present a valid one.
    Require,
}

/// The dedicated listener for links.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkListener {
    /// Whether the listener exists; default true. Without it this cluster can only dial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// TCP port; default 11883.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::port")]
    pub port: Option<i32>,
    /// How the listener is secured; default mode Auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<LinkListenerTls>,
    /// The Service of the link listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceTemplate>,
    /// What peers dial, host or host:port; default: from the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::address")]
    pub advertised_address: Option<String>,
}

/// TLS of the link listener.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) == (has(self.mode) && self.mode == 'Secret')")
    .message("secretRef is required for mode Secret, and not allowed for Auto and Plaintext")
    .field_path(".secretRef"))]
pub struct LinkListenerTls {
    /// Where the certificate comes from; default Auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<LinkTlsMode>,
    /// Secret with tls.crt, tls.key and ca.crt, for mode Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// Where the certificate of a link listener comes from; default Auto.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkTlsMode {
    /// Issued and renewed for you.
    #[default]
    Auto,
    /// From a Secret that you keep.
    Secret,
    /// No TLS: links authenticate by password, in the clear.
    Plaintext,
}

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
    #[schemars(schema_with = "schema::hours")]
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
