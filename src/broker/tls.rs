//! TLS for listeners: settings in, an acceptor out.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio_rustls::TlsAcceptor;

use crate::settings::{ClientAuth, ServerTls};

/// Why TLS settings are of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("failed to read the certificates: {0}")]
    Certificates(rustls::pki_types::pem::Error),
    #[error("failed to read the private key: {0}")]
    Key(rustls::pki_types::pem::Error),
    #[error("failed to read the client CAs: {0}")]
    ClientCa(rustls::pki_types::pem::Error),
    #[error("client certificates are asked for, but no client CA is given")]
    NoClientCa,
    #[error("failed to use the client CAs: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("failed to set up TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Builds the acceptor of a listener.
pub(super) fn acceptor(tls: &ServerTls) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(tls.certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(TlsError::Certificates)?;
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes()).map_err(TlsError::Key)?;
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let config = match tls.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Request | ClientAuth::Require => {
            builder.with_client_cert_verifier(verifier(tls, provider)?)
        }
    };
    Ok(TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key)?)))
}

fn verifier(
    tls: &ServerTls,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let pem = tls.client_ca_pem.as_deref().ok_or(TlsError::NoClientCa)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(TlsError::ClientCa)?)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder =
        if tls.client_auth == ClientAuth::Request { builder.allow_unauthenticated() } else { builder };
    Ok(builder.build()?)
}
