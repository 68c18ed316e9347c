//! The doors: listeners, their certificates, and how clients show who they are.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::document::HIDDEN;

/// One port for MQTT clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Unique in the document.
    pub name: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The TCP port; never 0.
    pub port: u16,
    /// The server's certificate; given exactly when the protocol is over TLS.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// Where a WebSocket is opened, from the first slash.
    #[serde(default = "path")]
    pub path: String,
    /// The origins of web pages whose scripts may open a WebSocket; none: those of all.
    #[serde(default)]
    pub allowed_origins: Option<Vec<String>>,
    /// Whose word on the client's address counts; none: nobody's, and nobody says one.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What its clients may cost together.
    #[serde(default)]
    pub limits: ListenerLimits,
}

impl Listener {
    /// A listener with defaults.
    pub fn new(name: impl Into<String>, protocol: Protocol, port: u16) -> Listener {
        Listener {
            name: name.into(),
            protocol,
            port,
            tls: None,
            path: path(),
            allowed_origins: None,
            proxy_protocol: None,
            limits: ListenerLimits::default(),
        }
    }

    /// The same over TLS.
    pub fn with_tls(self, tls: ServerTls) -> Listener {
        Listener { tls: Some(tls), ..self }
    }
}

/// Where a WebSocket is opened unless the settings say otherwise.
fn path() -> String {
    "/mqtt".to_owned()
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// MQTT on TCP.
    Mqtt,
    /// MQTT on TLS.
    Mqtts,
    /// MQTT on WebSocket.
    Ws,
    /// MQTT on WebSocket on TLS.
    Wss,
}

impl Protocol {
    /// Tells whether a certificate is needed.
    pub const fn is_tls(self) -> bool {
        matches!(self, Protocol::Mqtts | Protocol::Wss)
    }

    /// Tells whether it begins with an HTTP request.
    pub const fn is_web_socket(self) -> bool {
        matches!(self, Protocol::Ws | Protocol::Wss)
    }
}

/// A load balancer in front of a listener that says whom it serves, by the PROXY protocol, version 1 or 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocol {
    /// The networks it connects from; whoever comes from elsewhere is closed.
    pub trusted_cidrs: Vec<String>,
}

/// What the clients of one listener may cost; nothing given: what the node allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerLimits {
    /// Connections at once; those above are closed.
    pub connections_max: Option<usize>,
    /// Connections accepted each second; those above wait in the system's queue.
    pub connects_per_s_max: Option<u32>,
    /// How long everything before MQTT may take: PROXY header, TLS, WebSocket.
    pub handshake_s_max: Option<u16>,
}

/// The server side of TLS.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerTls {
    /// The leaf and the intermediates after it, PEM.
    pub certificate_pem: String,
    /// The leaf's private key, PEM.
    pub key_pem: String,
    /// Certificates for other server names; who asks for none of theirs gets the first.
    #[serde(default)]
    pub more: Vec<CertificatePem>,
    /// The lowest version of TLS.
    #[serde(default)]
    pub version_min: TlsVersion,
    /// Whether clients are asked for a certificate.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// The CAs whose client certificates are accepted, PEM; required unless `client_auth` is `None`.
    #[serde(default)]
    pub client_ca_pem: Option<String>,
    /// Which name of a client's certificate is its user name; none: a certificate lets nobody in by itself.
    #[serde(default)]
    pub username_from: Option<CertificateName>,
}

impl ServerTls {
    /// A server that asks for no client certificates.
    pub fn new(certificate_pem: impl Into<String>, key_pem: impl Into<String>) -> ServerTls {
        ServerTls {
            certificate_pem: certificate_pem.into(),
            key_pem: key_pem.into(),
            more: Vec::new(),
            version_min: TlsVersion::default(),
            client_auth: ClientAuth::default(),
            client_ca_pem: None,
            username_from: None,
        }
    }
}

/// One certificate of several.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificatePem {
    /// The leaf and the intermediates after it, PEM.
    pub certificate_pem: String,
    /// The leaf's private key, PEM.
    pub key_pem: String,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Whether a TLS listener asks clients for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientAuth {
    /// Not asked for.
    #[default]
    None,
    /// Asked for, checked when given.
    Request,
    /// No connection without a valid one.
    Require,
}

/// A name in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CertificateName {
    /// The subject's common name.
    CommonName,
    /// The first alternative name that is a host name.
    Dns,
    /// The first alternative name that is an e-mail address.
    Email,
    /// The first alternative name that is a URI.
    Uri,
}

/// Who may connect as an MQTT client. The default is nobody.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    /// Clients without a user name may connect; and as such, with any name, if there are neither users nor tokens.
    pub anonymous: bool,
    /// Clients with a user name must be one of these, or show a token.
    pub users: Vec<User>,
    /// Whose tokens are accepted as passwords.
    pub jwt: Option<Jwt>,
}

/// Tokens as passwords: JWT, signed by a key of ours.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// The keys, as a JWKS document.
    pub jwks: String,
    /// The claim that names the user.
    #[serde(default = "subject")]
    pub username_claim: String,
    /// What the claim `iss` must say.
    #[serde(default)]
    pub issuer: Option<String>,
    /// What the claim `aud` must name.
    #[serde(default)]
    pub audience: Option<String>,
    /// The claim that says what a bearer may do; none: tokens do not say it.
    #[serde(default)]
    pub acl_claim: Option<String>,
}

fn subject() -> String {
    "sub".to_owned()
}

/// One user of a cluster.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The MQTT user name; unique in the document.
    pub name: String,
    /// See [`SecretKind`](super::SecretKind).
    pub secret: String,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("client_auth", &self.client_auth).field("key_pem", &HIDDEN).finish()
    }
}

impl fmt::Debug for CertificatePem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificatePem").field("key_pem", &HIDDEN).finish()
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("username_claim", &self.username_claim).field("jwks", &HIDDEN).finish()
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("secret", &HIDDEN).finish()
    }
}
