//! One authority, and the leaves that it signs.

use core::net::IpAddr;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};

use super::inspect::{Inspection, Once, Unreadable};
use super::{AUTHORITY_LIFE, CLOCK_SKEW, LEAF_LIFE, Random, Role};

/// A certificate authority with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PEM.
    pub key_pem: String,
    /// What the certificate says.
    #[serde(skip)]
    read: Once,
}

/// A leaf certificate with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaf {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PEM.
    pub key_pem: String,
    /// What the certificate says.
    #[serde(skip)]
    read: Once,
}

/// What a leaf should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRequest {
    /// What its holder is; `None` for no role at all.
    pub role: Option<Role>,
    /// Which side of a connection it is for.
    pub usage: Usage,
    /// Names under which it is dialled, sorted.
    pub dns: Vec<String>,
    /// Addresses under which it is dialled, sorted.
    pub ips: Vec<IpAddr>,
}

/// Which side of a connection a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// It accepts connections.
    Server,
    /// It dials.
    Client,
    /// Both.
    Both,
}

impl Authority {
    /// Mints an authority for a cluster.
    pub fn mint(cluster: &str, now: Timestamp, random: Random<'_>) -> Authority {
        let key = mint_key(random);
        let serial = mint_serial(random);
        let label: String = serial[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut params = authority_params(&format!("mqlink {cluster} {label}"));
        valid_for(&mut params, now, AUTHORITY_LIFE);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.self_signed(&key).expect("our own parameters make a certificate");
        Authority { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), read: Once::default() }
    }

    /// What its certificate says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn says(&self) -> Result<&Inspection, Unreadable> {
        self.read.inspect(&self.certificate_pem)
    }

    /// Signs a leaf with a key of its own.
    ///
    /// # Errors
    /// When the authority itself cannot be read, or a name of the request is no name.
    pub fn issue(
        &self,
        request: &LeafRequest,
        now: Timestamp,
        random: Random<'_>,
    ) -> Result<Leaf, Unreadable> {
        self.issue_for(LEAF_LIFE, request, now, random)
    }

    /// As [`Authority::issue`], with another life than usual.
    ///
    /// # Errors
    /// As there.
    pub fn issue_for(
        &self,
        life: Duration,
        request: &LeafRequest,
        now: Timestamp,
        random: Random<'_>,
    ) -> Result<Leaf, Unreadable> {
        let own = self.says()?;
        let own_key = KeyPair::from_pem(&self.key_pem).map_err(|_| Unreadable::Key)?;
        let issuer = Issuer::new(authority_params(&own.common_name), own_key);
        let key = mint_key(random);
        let mut params = leaf_params(request)?;
        valid_for(&mut params, now, life);
        params.serial_number = Some(SerialNumber::from_slice(&mint_serial(random)));
        let certificate = params.signed_by(&key, &issuer).map_err(|_| Unreadable::Key)?;
        Ok(Leaf::new(certificate.pem(), key.serialize_pem()))
    }
}

impl Leaf {
    /// A leaf of its two parts, PEM.
    pub fn new(certificate_pem: String, key_pem: String) -> Leaf {
        Leaf { certificate_pem, key_pem, read: Once::default() }
    }

    /// What its certificate says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn says(&self) -> Result<&Inspection, Unreadable> {
        self.read.inspect(&self.certificate_pem)
    }

    /// Whether this leaf still says what is requested, was signed by `signer`, and has a third of its life before it. One that is
    /// not valid yet was made by a clock that was wrong.
    pub fn serves(&self, request: &LeafRequest, signer: &Authority, now: Timestamp) -> bool {
        let (Ok(own), Ok(signer)) = (self.says(), signer.says()) else { return false };
        own.dns == request.dns
            && own.ips == request.ips
            && own.role() == request.role
            && own.signed_by == signer.key_id
            && own.is_valid_at(now)
            && !own.wants_renewal(now)
    }
}

fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = named(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(request: &LeafRequest) -> Result<CertificateParams, Unreadable> {
    let role = request.role.as_ref().map(Role::to_string);
    let mut params = named("mqlink");
    for name in &request.dns {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.as_str().try_into().map_err(|_| Unreadable::Name)?));
    }
    params.subject_alt_names.extend(request.ips.iter().copied().map(SanType::IpAddress));
    if let Some(uri) = role {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(|_| Unreadable::Name)?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match request.usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn named(common_name: &str) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params
}

fn valid_for(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let now = Duration::from_secs(now.as_second().max(0).unsigned_abs());
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + life;
}

/// A PKCS #8 wrapping of 32 random bytes: that is all an Ed25519 key is.
fn mint_key(random: Random<'_>) -> KeyPair {
    const PREFIX: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let mut der = PREFIX.to_vec();
    let mut seed = [0; 32];
    random(&mut seed);
    der.extend_from_slice(&seed);
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &rcgen::PKCS_ED25519)
        .expect("any 32 bytes are an Ed25519 key")
}

/// Positive and of full length, as RFC 5280 §4.1.2.2 wants serial numbers.
fn mint_serial(random: Random<'_>) -> [u8; 16] {
    let mut serial = [0; 16];
    random(&mut serial);
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}
