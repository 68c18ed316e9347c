//! What the TLS port stands on: three files of one directory, read again when they change.
//!
//! `tls.crt` and `tls.key` are the node's own leaf and key, `ca.crt` the authorities whose client certificates are let
//! through to the question of their role. Where files are of no use (or half replaced), what was good before stays.
//!
//! TLS 1.3 only, and no resumption: each connection shows its certificate, and it is held against what is trusted now.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file is not there.
    #[error("failed to read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// Text that holds nothing of the kind.
    #[error("failed to read {0}: it holds no {1} in PEM")]
    Pem(String, &'static str),
    /// A key, certificate or authority of no use, or a key that belongs to another certificate.
    #[error("failed to set up TLS: {0}")]
    Unusable(String),
}

/// The files of one directory, and what was last made of them.
pub struct Trust {
    dir: PathBuf,
    current: watch::Sender<Arc<Material>>,
    /// What the last look complained about: each complaint is logged once.
    complaint: Option<String>,
}

/// What one reading of the files gives.
pub(super) struct Material {
    files: Files,
    pub(super) acceptor: TlsAcceptor,
}

#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

impl Trust {
    /// Reads `tls.crt`, `tls.key` and `ca.crt`.
    ///
    /// # Errors
    /// When one is missing or of no use.
    pub fn read(dir: &Path) -> Result<Self, TrustError> {
        let material = Material::make(Files::read(dir)?)?;
        Ok(Self { dir: dir.to_owned(), current: watch::Sender::new(Arc::new(material)), complaint: None })
    }

    /// Looks whether the files changed; what is of no use is complained about, and changes nothing.
    pub(super) fn look(&mut self) {
        match self.take() {
            Ok(false) => self.complaint = None,
            Ok(true) => {
                self.complaint = None;
                tracing::info!(dir = %self.dir.display(), "the admin protocol has new certificates");
            }
            Err(error) => {
                let complaint = error.to_string();
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::error!(%error, "the admin protocol keeps the certificates that it had");
                }
                self.complaint = Some(complaint);
            }
        }
    }

    fn take(&self) -> Result<bool, TrustError> {
        let files = Files::read(&self.dir)?;
        if files == self.current.borrow().files {
            return Ok(false);
        }
        self.current.send_replace(Arc::new(Material::make(files)?));
        Ok(true)
    }

    /// What is in force, now and later.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<Material>> {
        self.current.subscribe()
    }
}

impl Material {
    fn make(files: Files) -> Result<Self, TrustError> {
        let unusable = |error: &dyn std::fmt::Display| TrustError::Unusable(error.to_string());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(roots(&files.ca, "ca.crt")?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain(&files.certificate, "tls.crt")?, private_key(&files.key, "tls.key")?)
            .map_err(|error| unusable(&error))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { files, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Whether both let the same clients through.
    pub(super) fn trusts_as(&self, other: &Material) -> bool {
        self.files.ca == other.files.ca
    }
}

impl Files {
    fn read(dir: &Path) -> Result<Self, TrustError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|error| TrustError::Read(path, error))
        };
        Ok(Self { certificate: read("tls.crt")?, key: read("tls.key")?, ca: read("ca.crt")? })
    }
}

/// The authorities of a PEM text.
pub(super) fn roots(pem: &[u8], name: &str) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for authority in chain(pem, name)? {
        roots.add(authority).map_err(|error| TrustError::Unusable(format!("{name}: {error}")))?;
    }
    Ok(roots)
}

/// The certificates of a PEM text, in its order; at least one.
pub(super) fn chain(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let none = || TrustError::Pem(name.to_owned(), "certificate");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| none())?;
    if chain.is_empty() { Err(none()) } else { Ok(chain) }
}

/// The private key of a PEM text.
pub(super) fn private_key(pem: &[u8], name: &str) -> Result<PrivateKeyDer<'static>, TrustError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TrustError::Pem(name.to_owned(), "private key"))
}
