//! What a certificate says.
//!
//! Reading is not verifying: nothing here looks at signatures. The reader bounds nothing itself, as it is given
//! certificates that we made or that a user put into a Secret.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use super::Role;

/// Why a certificate or key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// There is no certificate.
    #[error("holds no PEM block; expected -----BEGIN CERTIFICATE-----")]
    Pem,
    /// What is in the PEM block is no certificate.
    #[error("holds a PEM block that is no X.509 certificate")]
    Certificate,
    /// The key is none, or of an unknown kind.
    #[error("holds no usable private key; expected PKCS #8 in PEM")]
    Key,
    /// The key is that of another certificate.
    #[error("holds the private key of another certificate")]
    OtherKey,
    /// A name that should go into a certificate is no name.
    #[error("cannot stand in a certificate")]
    Name,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Common name of the subject.
    pub common_name: String,
    /// Begin of its life.
    pub not_before: Timestamp,
    /// End of its life.
    pub not_after: Timestamp,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// DNS names, in its order.
    pub dns: Vec<String>,
    /// Addresses, in its order.
    pub ips: Vec<IpAddr>,
    /// URIs, in its order.
    pub uris: Vec<String>,
    /// SHA-256 of the certificate, lower-case hex.
    pub fingerprint: String,
    /// Identifier of its own key.
    pub key_id: Option<Vec<u8>>,
    /// Identifier of the key that signed it, as it claims.
    pub signed_by: Option<Vec<u8>>,
}

impl Inspection {
    /// The one role that it states; with none or several URIs it has none.
    pub fn role(&self) -> Option<Role> {
        match &self.uris[..] {
            [uri] => Role::parse(uri),
            _ => None,
        }
    }

    /// Whether it can be used at this time.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether less than a third of its life is left.
    pub fn wants_renewal(&self, now: Timestamp) -> bool {
        let life = self.not_after.as_second().saturating_sub(self.not_before.as_second());
        self.not_after.as_second().saturating_sub(now.as_second()) < life / 3
    }
}

/// What the certificate beside it says, read when that is first asked. A copy knows it too; nothing depends on whether it was
/// read.
#[derive(Clone, Default)]
pub(super) struct Once(OnceLock<Result<Box<Inspection>, Unreadable>>);

impl Once {
    /// What this certificate says: always the same one.
    pub(super) fn inspect(&self, pem: &str) -> Result<&Inspection, Unreadable> {
        let read = self.0.get_or_init(|| inspect(pem).map(Box::new));
        read.as_deref().map_err(|error| *error)
    }
}

impl PartialEq for Once {
    fn eq(&self, _: &Once) -> bool {
        true
    }
}

impl Eq for Once {}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

/// Whether the certificate and the key beside it belong together, found out when that is first asked: with an RSA key it takes
/// milliseconds. Copies share the answer; nothing depends on whether it is known.
#[derive(Clone, Debug, Default)]
pub struct Pair(Arc<OnceLock<Result<(), Unreadable>>>);

impl Pair {
    /// As [`check_pair`]: always asked of the same two.
    ///
    /// # Errors
    /// As there.
    pub fn check(&self, certificate_pem: &str, key_pem: &str) -> Result<(), Unreadable> {
        *self.0.get_or_init(|| check_pair(certificate_pem, key_pem))
    }
}

impl PartialEq for Pair {
    fn eq(&self, _: &Pair) -> bool {
        true
    }
}

impl Eq for Pair {}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn inspect(pem: &str) -> Result<Inspection, Unreadable> {
    let block = certificates(pem).next().ok_or(Unreadable::Pem)?;
    inspect_der(&block.contents)
}

/// Reads a certificate as it comes out of a handshake.
///
/// # Errors
/// When it cannot be read.
pub fn inspect_der(der: &[u8]) -> Result<Inspection, Unreadable> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Unreadable::Certificate)?;
    let mut inspection = Inspection {
        common_name: common_name(&certificate),
        not_before: timestamp(certificate.validity().not_before.timestamp())?,
        not_after: timestamp(certificate.validity().not_after.timestamp())?,
        is_authority: certificate.is_ca(),
        dns: Vec::new(),
        ips: Vec::new(),
        uris: Vec::new(),
        fingerprint: hex(&Sha256::digest(der)),
        key_id: None,
        signed_by: None,
    };
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                names.general_names.iter().for_each(|name| take_name(&mut inspection, name));
            }
            ParsedExtension::SubjectKeyIdentifier(id) => inspection.key_id = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                inspection.signed_by = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    Ok(inspection)
}

/// SHA-256 of the first certificate of a PEM text, in lower-case hex.
///
/// # Errors
/// When there is none.
pub fn fingerprint(pem: &str) -> Result<String, Unreadable> {
    let block = certificates(pem).next().ok_or(Unreadable::Pem)?;
    Ok(hex(&Sha256::digest(&block.contents)))
}

/// Whether a private key is that of the first certificate of a PEM text: asked as TLS asks, which would not serve with the two.
///
/// # Errors
/// When it is not, or they cannot be used.
pub fn check_pair(certificate_pem: &str, key_pem: &str) -> Result<(), Unreadable> {
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect::<Result<_, _>>();
    let chain = chain.map_err(|_| Unreadable::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| Unreadable::Key)?;
    match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(Unreadable::OtherKey),
        Err(rustls::Error::InvalidCertificate(_)) => Err(Unreadable::Certificate),
        Err(_) => Err(Unreadable::Key),
    }
}

/// Whether all certificates of a PEM text can be trusted as authorities: asked as TLS asks, which takes all of them or none.
///
/// # Errors
/// When one cannot be read, or there is none.
pub fn check_authorities(pem: &str) -> Result<(), Unreadable> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| Unreadable::Certificate)?;
        roots.add(certificate).map_err(|_| Unreadable::Certificate)?;
    }
    if roots.is_empty() { Err(Unreadable::Pem) } else { Ok(()) }
}

fn certificates(pem: &str) -> impl Iterator<Item = Pem> + '_ {
    Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok).filter(|block| block.label == "CERTIFICATE")
}

fn common_name(certificate: &X509Certificate<'_>) -> String {
    let first = certificate.subject().iter_common_name().next();
    first.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}

fn take_name(inspection: &mut Inspection, name: &GeneralName<'_>) {
    match name {
        GeneralName::DNSName(dns) => inspection.dns.push((*dns).to_owned()),
        GeneralName::URI(uri) => inspection.uris.push((*uri).to_owned()),
        GeneralName::IPAddress(bytes) => inspection.ips.extend(ip(bytes)),
        _ => {}
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    let v6 = <[u8; 16]>::try_from(bytes).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
    v4.or(v6).ok()
}

fn timestamp(seconds: i64) -> Result<Timestamp, Unreadable> {
    Timestamp::from_second(seconds).map_err(|_| Unreadable::Certificate)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
