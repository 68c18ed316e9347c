//! Certificates are held against rustls, which shares no code with the maker.
//!
//! Time is a number and randomness a counter, so every run makes the same certificates.
//! Handshakes run in memory: what one side writes, the other reads.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::*;

const START: i64 = 1_800_000_000;

fn at(offset: Duration) -> Timestamp {
    Timestamp::from_second(START).unwrap() + offset
}

fn random(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut state = seed;
    move |buffer| {
        for byte in buffer {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 33) as u8;
        }
    }
}

fn server_request() -> LeafRequest {
    let role = Role::Node { namespace: "mqtt".into(), cluster: "eu".into(), node: "*".into() };
    LeafRequest {
        role: Some(role),
        usage: Usage::Server,
        dns: vec!["eu.mqtt.mqlink.internal".into()],
        ips: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
    }
}

fn link_role(from: &str, to: &str) -> Role {
    Role::Link {
        namespace: "mqtt".into(),
        link: "us-eu".into(),
        from: from.into(),
        to: to.into(),
        nonce: "1".into(),
    }
}

fn client_request() -> LeafRequest {
    LeafRequest { role: Some(link_role("us", "eu")), usage: Usage::Client, dns: vec![], ips: vec![] }
}

#[test]
fn a_certificate_says_what_was_requested() {
    let authority = Authority::mint("eu", at(Duration::ZERO), &mut random(1));
    let leaf = authority.issue(&server_request(), at(Duration::ZERO), &mut random(2)).unwrap();
    let own = inspect(&leaf.certificate_pem).unwrap();
    assert_eq!((own.dns.clone(), own.ips.clone()), (server_request().dns, server_request().ips));
    assert_eq!(own.role(), server_request().role);
    assert!(!own.is_authority && inspect(&authority.certificate_pem).unwrap().is_authority);
    assert_eq!(own.not_after, at(LEAF_LIFE));
    assert_eq!(own.not_before, at(Duration::ZERO) - CLOCK_SKEW);
    assert_eq!(own.fingerprint, fingerprint(&leaf.certificate_pem).unwrap());
    assert_eq!(own.fingerprint.len(), 64);
}

#[test]
fn the_same_arguments_give_the_same_certificates() {
    let make = |seed| Authority::mint("eu", at(Duration::ZERO), &mut random(seed));
    assert_eq!(make(1), make(1));
    assert_ne!(make(1), make(2));
    let issue = || make(1).issue(&client_request(), at(Duration::ZERO), &mut random(3)).unwrap();
    assert_eq!(issue(), issue());
}

#[test]
fn roles_read_back_and_nothing_else_is_one() {
    let node = Role::Node { namespace: "mqtt".into(), cluster: "us".into(), node: "us-0".into() };
    for role in [Role::Operator, node, link_role("a.b_c", "d")] {
        assert_eq!(Role::parse(&role.to_string()), Some(role));
    }
    for uri in [
        "",
        "mqlink://",
        "mqlink://link/a/b/c",
        "mqlink://node/a//c",
        "mqlink://operator/x",
        "http://operator",
    ] {
        assert_eq!(Role::parse(uri), None, "{uri}");
    }
}

#[test]
fn a_chain_alone_gives_no_role() {
    let authority = Authority::mint("eu", at(Duration::ZERO), &mut random(1));
    let request = LeafRequest { role: None, ..client_request() };
    let leaf = authority.issue(&request, at(Duration::ZERO), &mut random(2)).unwrap();
    assert_eq!(inspect(&leaf.certificate_pem).unwrap().role(), None);
    let mut two = inspect(&leaf.certificate_pem).unwrap();
    two.uris = vec![Role::Operator.to_string(), link_role("us", "eu").to_string()];
    assert_eq!(two.role(), None);
}

#[test]
fn leaves_are_renewed_in_time_and_when_anything_changes() {
    let authority = Authority::mint("eu", at(Duration::ZERO), &mut random(1));
    let other = Authority::mint("eu", at(Duration::ZERO), &mut random(9));
    let leaf = authority.issue(&server_request(), at(Duration::ZERO), &mut random(2)).unwrap();
    assert!(leaf.serves(&server_request(), &authority, at(Duration::ZERO)));
    assert!(leaf.serves(&server_request(), &authority, at(59 * DAY)));
    assert!(!leaf.serves(&server_request(), &authority, at(61 * DAY)));
    assert!(!leaf.serves(&server_request(), &other, at(Duration::ZERO)));
    let moved = LeafRequest { dns: vec!["new.example".into()], ..server_request() };
    assert!(!leaf.serves(&moved, &authority, at(Duration::ZERO)));
    let early = authority.issue(&server_request(), at(5 * DAY), &mut random(2)).unwrap();
    assert!(!early.serves(&server_request(), &authority, at(3 * DAY)), "a clock was wrong when it was made");
    let garbage = Leaf::new("x".into(), String::new());
    assert!(!garbage.serves(&server_request(), &authority, at(Duration::ZERO)));
}

#[test]
fn authorities_overlap() {
    let mut authorities = Authorities::default();
    assert!(authorities.signer(at(Duration::ZERO)).is_none());
    authorities.tend("eu", at(Duration::ZERO), &mut random(1));
    let first = authorities.signer(at(Duration::ZERO)).cloned();
    authorities.tend("eu", at(AUTHORITY_LIFE / 2), &mut random(2));
    assert_eq!((authorities.len(), authorities.signer(at(AUTHORITY_LIFE / 2)).cloned()), (1, first.clone()));

    let renewal = AUTHORITY_LIFE * 2 / 3 + DAY;
    authorities.tend("eu", at(renewal), &mut random(3));
    assert_eq!(authorities.bundle_pem().matches("BEGIN CERTIFICATE").count(), 2, "trusted before it signs");
    assert_eq!(authorities.signer(at(renewal)).cloned(), first);
    let second = authorities.signer(at(renewal + OVERLAP)).cloned();
    assert_ne!(second, first, "it signs once it is known");

    authorities.tend("eu", at(renewal + OVERLAP + LEAF_LIFE - DAY), &mut random(4));
    assert_eq!(authorities.len(), 2, "leaves of the first may still be about");
    authorities.tend("eu", at(renewal + OVERLAP + LEAF_LIFE + DAY), &mut random(5));
    assert_eq!((authorities.len(), authorities.signer(at(renewal + LEAF_LIFE * 2)).cloned()), (1, second));
}

#[test]
fn what_cannot_be_read_is_minted_anew() {
    let text = r#"[{"certificatePem": "rubbish", "keyPem": ""}]"#;
    let mut authorities: Authorities = serde_json::from_str(text).unwrap();
    authorities.tend("eu", at(Duration::ZERO), &mut random(1));
    assert_eq!(authorities.len(), 1);
    assert!(authorities.bundle_pem().starts_with("-----BEGIN CERTIFICATE"));
}

#[test]
fn debug_shows_no_key() {
    let authority = Authority::mint("eu", at(Duration::ZERO), &mut random(1));
    let leaf = authority.issue(&client_request(), at(Duration::ZERO), &mut random(2)).unwrap();
    assert!(!format!("{authority:?}{leaf:?}").contains("PRIVATE"));
}

/// Runs one mutual TLS handshake: the server trusts `server_trusts`, the client `client_trusts`.
fn handshake(
    server: &Leaf,
    server_trusts: &str,
    client: Option<&Leaf>,
    client_trusts: &str,
    name: &str,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clock = Arc::new(Fixed);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(server_trusts), provider.clone());
    let server_config = ServerConfig::builder_with_details(provider.clone(), clock.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(chain(server), key(server))?;
    let client_config = ClientConfig::builder_with_details(provider, clock)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(client_trusts));
    let client_config = match client {
        Some(leaf) => client_config.with_client_auth_cert(chain(leaf), key(leaf))?,
        None => client_config.with_no_client_auth(),
    };
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client_side = ClientConnection::new(Arc::new(client_config), name)?;
    let mut server_side = ServerConnection::new(Arc::new(server_config))?;
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client_side.wants_write() {
            client_side.write_tls(&mut wire).unwrap();
        }
        server_side.read_tls(&mut &wire[..]).unwrap();
        server_side.process_new_packets()?;
        wire.clear();
        while server_side.wants_write() {
            server_side.write_tls(&mut wire).unwrap();
        }
        client_side.read_tls(&mut &wire[..]).unwrap();
        client_side.process_new_packets()?;
    }
    assert!(!server_side.is_handshaking() && !client_side.is_handshaking());
    assert_eq!(server_side.peer_certificates().is_some(), client.is_some());
    Ok(())
}

#[derive(Debug)]
struct Fixed;

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(START as u64)))
    }
}

fn roots(pem: &str) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(certificate.unwrap()).unwrap();
    }
    Arc::new(store)
}

fn chain(leaf: &Leaf) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(leaf.certificate_pem.as_bytes()).map(Result::unwrap).collect()
}

fn key(leaf: &Leaf) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap()
}

#[test]
fn handshakes_succeed_with_the_right_certificates_only() {
    let now = at(Duration::ZERO);
    let eu = Authority::mint("eu", now, &mut random(1));
    let other = Authority::mint("other", now, &mut random(2));
    let server = eu.issue(&server_request(), now, &mut random(3)).unwrap();
    let client = eu.issue(&client_request(), now, &mut random(4)).unwrap();
    let stranger = other.issue(&client_request(), now, &mut random(5)).unwrap();
    let trust = &eu.certificate_pem;
    let name = "eu.mqtt.mqlink.internal";

    assert!(handshake(&server, trust, Some(&client), trust, name).is_ok());
    assert!(handshake(&server, trust, Some(&client), trust, "127.0.0.1").is_ok());
    assert!(handshake(&server, trust, None, trust, name).is_ok(), "certificates are requested, not required");
    assert!(handshake(&server, trust, Some(&stranger), trust, name).is_err(), "another cluster's client");
    assert!(
        handshake(&server, trust, Some(&client), &other.certificate_pem, name).is_err(),
        "another authority"
    );
    assert!(
        handshake(&server, trust, Some(&client), trust, "us.mqtt.mqlink.internal").is_err(),
        "another name"
    );
    assert!(handshake(&client, trust, None, trust, name).is_err(), "a client's certificate does not serve");
    assert!(handshake(&server, trust, Some(&server), trust, name).is_err(), "a server's does not dial");
}

#[test]
fn handshakes_fail_with_expired_certificates_and_succeed_with_bundles() {
    let now = at(Duration::ZERO);
    let eu = Authority::mint("eu", now - LEAF_LIFE * 2, &mut random(1));
    let expired = eu.issue(&server_request(), now - LEAF_LIFE - DAY, &mut random(2)).unwrap();
    assert!(handshake(&expired, &eu.certificate_pem, None, &eu.certificate_pem, "127.0.0.1").is_err());

    let next = Authority::mint("eu", now, &mut random(3));
    let bundle = format!("{}{}", eu.certificate_pem, next.certificate_pem);
    let old_server = eu.issue(&server_request(), now, &mut random(4)).unwrap();
    let new_client = next.issue(&client_request(), now, &mut random(5)).unwrap();
    assert!(handshake(&old_server, &bundle, Some(&new_client), &bundle, "127.0.0.1").is_ok());
}
