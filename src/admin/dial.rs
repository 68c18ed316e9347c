//! How the operator reaches a node over TLS, and makes sure that it is that node.
//!
//! Nodes are dialled by the pod's address, which no certificate can know beforehand. What must be in the certificate is the
//! node's role: its one URI, `mqlink://node/<namespace>/<cluster>/<node>` (or `*`, for what all nodes of a cluster share). It is
//! asked for during the handshake, so an impostor gets neither our certificate nor a byte of the settings.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::socket::notice_vanished;
use super::trust::{TrustError, chain, private_key, roots};
use crate::pki::{Role, inspect_der};

/// What the operator shows, and whom it trusts.
#[derive(Clone, PartialEq, Eq)]
pub struct Pass {
    /// The authorities that nodes' certificates come from, PEM.
    pub ca_pem: String,
    /// Our certificate, whose role is the operator's, PEM.
    pub certificate_pem: String,
    /// Its key, PEM.
    pub key_pem: String,
}

/// Which node is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// Namespace of its cluster.
    pub namespace: String,
    /// Name of the cluster's object.
    pub cluster: String,
    /// Its own name.
    pub node: String,
}

/// Where a node is, and how to tell that it is the one.
#[derive(Clone)]
pub(super) struct Door {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Door {
    pub(super) fn new(address: SocketAddr, node: NodeName, pass: &Pass) -> Result<Self, TrustError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let roots = roots(pass.ca_pem.as_bytes(), "the nodes' authorities")?;
        let certificate = chain(pass.certificate_pem.as_bytes(), "the operator's certificate")?;
        let key = private_key(pass.key_pem.as_bytes(), "the operator's key")?;
        let mut config = builder(provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(IsNode { node, roots, algorithms }))
            .with_client_auth_cert(certificate, key)
            .map_err(|error| TrustError::Unusable(error.to_string()))?;
        config.resumption = Resumption::disabled();
        Ok(Self { address, config: Arc::new(config) })
    }

    pub(super) async fn open(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        notice_vanished(&tcp)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await
    }
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TrustError> {
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TrustError::Unusable(error.to_string()))
}

/// Takes a trusted certificate with the role of one node, whatever address it is dialled by.
struct IsNode {
    node: NodeName,
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for IsNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let role = inspect_der(end_entity).map_err(|_| CertificateError::BadEncoding)?.role();
        match role.as_ref() {
            Some(role) if self.node.has(role) => Ok(ServerCertVerified::assertion()),
            _ => {
                let impostor = Impostor { wanted: self.node.clone(), shown: role };
                Err(rustls::Error::Other(OtherError(Arc::new(impostor))))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl NodeName {
    fn has(&self, role: &Role) -> bool {
        let Role::Node { namespace, cluster, node } = role else { return false };
        (namespace, cluster) == (&self.namespace, &self.cluster) && (node == "*" || *node == self.node)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, cluster, node } = self.clone();
        Role::Node { namespace, cluster, node }.fmt(f)
    }
}

/// Somebody else with a good certificate.
#[derive(Debug)]
struct Impostor {
    wanted: NodeName,
    shown: Option<Role>,
}

impl std::error::Error for Impostor {}

impl fmt::Display for Impostor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shown {
            Some(role) => write!(f, "the certificate is for {role}, not for {}", self.wanted),
            None => write!(f, "the certificate states no role, not that of {}", self.wanted),
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for IsNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IsNode").field("node", &self.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}
