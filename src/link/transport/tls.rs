//! TLS of links: PEM in, rustls configurations out. Reads no file.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::settings::{ClientAuth, ClientTls, ServerTls};

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// PEM that is none, or that holds nothing of the kind.
    #[error("failed to read {0}")]
    Pem(&'static str),
    /// A key, certificate or CA that rustls does not take.
    #[error("failed to use {0}: {1}")]
    Unusable(&'static str, String),
}

/// The configuration to dial with, and the name that the server must have.
pub(super) fn build_client(tls: &ClientTls) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsError> {
    let name = ServerName::try_from(tls.server_name.clone())
        .map_err(|error| TlsError::Unusable("the server's name", error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Unusable("the protocol versions", error.to_string()))?
        .with_root_certificates(roots(&tls.ca_pem)?);
    let config = match (&tls.certificate_pem, &tls.key_pem) {
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(chain(certificate)?, private_key(key)?)
            .map_err(|error| TlsError::Unusable("the client certificate", error.to_string()))?,
        _ => builder.with_no_client_auth(),
    };
    Ok((Arc::new(config), name))
}

/// The configuration of a listener.
pub(super) fn build_server(tls: &ServerTls) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Unusable("the protocol versions", error.to_string()))?;
    let builder = match (tls.client_auth, &tls.client_ca_pem) {
        (ClientAuth::None, _) => builder.with_no_client_auth(),
        (_, None) => return Err(TlsError::Pem("the CAs of clients")),
        (asked, Some(ca)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
            let verifier = match asked {
                ClientAuth::Request => verifier.allow_unauthenticated(),
                ClientAuth::None | ClientAuth::Require => verifier,
            };
            let verifier = verifier
                .build()
                .map_err(|error| TlsError::Unusable("the CAs of clients", error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder
        .with_single_cert(chain(&tls.certificate_pem)?, private_key(&tls.key_pem)?)
        .map_err(|error| TlsError::Unusable("the server certificate", error.to_string()))?;
    Ok(Arc::new(config))
}

/// The URIs that a verified certificate carries.
pub(super) fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in chain(pem)? {
        roots.add(ca).map_err(|error| TlsError::Unusable("a CA", error.to_string()))?;
    }
    Ok(roots)
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::Pem("a certificate"))?;
    if chain.is_empty() { Err(TlsError::Pem("a certificate")) } else { Ok(chain) }
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| TlsError::Pem("a private key"))
}
