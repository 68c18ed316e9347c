//! A CA and a server certificate for `localhost`, made for one case.

use std::path::PathBuf;

use mqlink::settings::{ClientAuth, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// The CA's file and what a listener needs.
pub(crate) struct Certificates {
    folder: TempDir,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

impl Certificates {
    pub(crate) fn new() -> Certificates {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("no names");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "mqlink tests");
        let ca_certificate = ca.self_signed(&ca_key).expect("a CA");

        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a leaf");

        let folder = TempDir::new().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.crt"), ca_certificate.pem()).expect("writable");
        Certificates { folder, certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    pub(crate) fn server(&self) -> ServerTls {
        ServerTls {
            certificate_pem: self.certificate_pem.clone(),
            key_pem: self.key_pem.clone(),
            client_auth: ClientAuth::None,
            client_ca_pem: None,
        }
    }

    /// As a Secret of a manifest.
    pub(crate) fn secret(&self, namespace: &str, name: &str) -> String {
        let block = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{namespace: {namespace}, name: {name}}}\ntype: kubernetes.io/tls\n\
             stringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
            block(&self.certificate_pem),
            block(&self.key_pem)
        )
    }
}
