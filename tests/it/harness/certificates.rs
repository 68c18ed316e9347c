//! A CA and a server certificate for `localhost`, made for one case.

use std::path::PathBuf;

use mqlink::settings::ServerTls;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// The CA's file and what a listener needs.
pub(crate) struct Certificates {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

impl Certificates {
    pub(crate) fn new() -> Certificates {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("no names");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "mqlink tests");
        let ca_certificate = ca.self_signed(&ca_key).expect("a CA");

        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let issuer = Issuer::new(ca, ca_key);
        let certificate = leaf.signed_by(&key, &issuer).expect("a leaf");

        let folder = TempDir::new().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.crt"), ca_certificate.pem()).expect("writable");
        Certificates { folder, issuer, certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    pub(crate) fn ca_pem(&self) -> String {
        std::fs::read_to_string(self.ca()).expect("it was written")
    }

    /// The files of a client's certificate with this common name, and of its key.
    pub(crate) fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let mut leaf = CertificateParams::new(Vec::new()).expect("no names");
        leaf.distinguished_name = DistinguishedName::new();
        leaf.distinguished_name.push(DnType::CommonName, name);
        let certificate = leaf.signed_by(&key, &self.issuer).expect("a leaf");
        let file = |extension: &str| self.folder.path().join(format!("{name}.{extension}"));
        std::fs::write(file("crt"), certificate.pem()).expect("writable");
        std::fs::write(file("key"), key.serialize_pem()).expect("writable");
        (file("crt"), file("key"))
    }

    pub(crate) fn server(&self) -> ServerTls {
        ServerTls::new(&self.certificate_pem, &self.key_pem)
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
