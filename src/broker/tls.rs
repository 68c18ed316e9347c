//! TLS for listeners: settings in, an acceptor out; and what a client's certificate says of it.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::settings::{CertificateName, ClientAuth, ServerTls, TlsVersion};

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
    let resolver = Certificates::new(tls, &provider)?;
    let versions: &[&rustls::SupportedProtocolVersion] = match tls.version_min {
        TlsVersion::V1_2 => &[&rustls::version::TLS12, &rustls::version::TLS13],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let config = match tls.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Request | ClientAuth::Require => {
            builder.with_client_cert_verifier(verifier(tls, provider)?)
        }
    };
    Ok(TlsAcceptor::from(Arc::new(config.with_cert_resolver(Arc::new(resolver)))))
}

fn verifier(tls: &ServerTls, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
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

/// The certificates of a listener, by the server names that they carry.
#[derive(Debug)]
struct Certificates {
    /// In the order of the settings; the first is for everyone else.
    all: Vec<(Vec<String>, Arc<CertifiedKey>)>,
}

impl Certificates {
    fn new(tls: &ServerTls, provider: &CryptoProvider) -> Result<Certificates, TlsError> {
        let first = (tls.certificate_pem.as_str(), tls.key_pem.as_str());
        let more = tls.more.iter().map(|one| (one.certificate_pem.as_str(), one.key_pem.as_str()));
        let read = |(certificate, key)| read_certificate(certificate, key, provider);
        Ok(Certificates { all: std::iter::once(first).chain(more).map(read).collect::<Result<_, _>>()? })
    }

    /// The certificate for a server name: one that has it, else one whose wildcard has it, else the first.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let parent = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let has = |wanted: &str| {
            self.all.iter().find(|(names, _)| names.iter().any(|one| one.eq_ignore_ascii_case(wanted)))
        };
        has(name).or_else(|| has(&parent?)).or(self.all.first()).map(|(_, key)| key)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name().unwrap_or_default()).cloned()
    }
}

fn read_certificate(
    certificate_pem: &str,
    key_pem: &str,
    provider: &CryptoProvider,
) -> Result<(Vec<String>, Arc<CertifiedKey>), TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(TlsError::Certificates)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(TlsError::Key)?;
    let names = chain.first().map(|leaf| names_in(leaf)).unwrap_or_default();
    Ok((names.dns, Arc::new(CertifiedKey::from_der(chain, key, provider)?)))
}

/// The names in a certificate, by kind, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    common: Vec<String>,
    dns: Vec<String>,
    email: Vec<String>,
    uri: Vec<String>,
}

impl Names {
    /// All of them.
    pub(super) fn all(&self) -> Vec<String> {
        [&self.common[..], &self.dns, &self.email, &self.uri].concat()
    }

    /// The one of a kind that says who a client is. Of several common names none says it.
    pub(super) fn one(&self, kind: CertificateName) -> Option<&str> {
        let names = match kind {
            CertificateName::CommonName => &self.common[..],
            CertificateName::Dns => &self.dns,
            CertificateName::Email => &self.email,
            CertificateName::Uri => &self.uri,
        };
        let is_unclear = kind == CertificateName::CommonName && names.len() > 1;
        names.first().map(String::as_str).filter(|_| !is_unclear)
    }
}

/// Reads the names of a certificate that was verified. What is empty, or holds what no user name may hold, is left out.
pub(super) fn names_in(certificate: &CertificateDer) -> Names {
    let mut names = Names::default();
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return names };
    let is_name = |text: &&str| !text.is_empty() && !text.contains(char::is_control);
    let commons = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    names.common = commons.filter(is_name).map(str::to_owned).collect();
    let extension = parsed.subject_alternative_name().ok().flatten();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        let (list, text) = match name {
            GeneralName::DNSName(text) => (&mut names.dns, *text),
            GeneralName::RFC822Name(text) => (&mut names.email, *text),
            GeneralName::URI(text) => (&mut names.uri, *text),
            _ => continue,
        };
        if is_name(&text) {
            list.push(text.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common: &[&str], sans: Vec<SanType>) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.distinguished_name = rcgen::DistinguishedName::new();
        common.iter().for_each(|name| params.distinguished_name.push(DnType::CommonName, *name));
        params.subject_alt_names = sans;
        let key = KeyPair::generate().expect("a key");
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().expect("a name"))
    }

    #[test]
    fn a_client_is_who_its_certificate_names() {
        let sans = vec![
            dns("dev.example"),
            SanType::Rfc822Name("dev@example".try_into().expect("a name")),
            SanType::URI("urn:dev:1".try_into().expect("a name")),
            dns("other.example"),
        ];
        let (pem, _) = certificate(&["device 1"], sans);
        let names = names_in(&CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"));
        assert_eq!(names.one(CertificateName::CommonName), Some("device 1"));
        assert_eq!(names.one(CertificateName::Dns), Some("dev.example"));
        assert_eq!(names.one(CertificateName::Email), Some("dev@example"));
        assert_eq!(names.one(CertificateName::Uri), Some("urn:dev:1"));
        assert_eq!(names.all().len(), 5);
        assert_eq!(names_in(&CertificateDer::from(vec![1, 2, 3])), Names::default());
    }

    #[test]
    fn names_that_are_no_user_names_are_left_out() {
        let (pem, _) = certificate(&["a\0b"], Vec::new());
        let names = names_in(&CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"));
        assert_eq!((names.one(CertificateName::CommonName), names.one(CertificateName::Dns)), (None, None));
    }

    #[test]
    fn the_server_name_chooses_the_certificate() {
        let [first, second, wild] = ["a.example", "b.example", "*.c.example"].map(|name| {
            let (certificate_pem, key_pem) = certificate(&[], vec![dns(name)]);
            crate::settings::CertificatePem { certificate_pem, key_pem }
        });
        let mut tls = ServerTls::new(first.certificate_pem, first.key_pem);
        tls.more = vec![second, wild];
        let certificates = Certificates::new(&tls, &aws_lc_rs::default_provider()).expect("valid");
        for (name, expected) in [
            ("a.example", 0),
            ("b.example", 1),
            ("B.Example", 1),
            ("x.c.example", 2),
            ("x.y.c.example", 0),
            ("c.example", 0),
            ("unknown", 0),
            ("", 0),
        ] {
            let found = certificates.find(name).expect("there is a first");
            assert!(Arc::ptr_eq(found, &certificates.all[expected].1), "{name}");
        }
    }
}
