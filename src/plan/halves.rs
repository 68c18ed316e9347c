//! What one side of a link runs: the entry in a cluster's settings, with its credentials.
//!
//! A managed link has two halves from one object. Each direction of dialling has a credential of its own: a certificate by
//! the dialled cluster's authority where that one speaks TLS, a long password where it does not.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::clusters::Cluster;
use super::half::{Half, dial, remote_id, running};
use super::minted::{MintedCluster, MintedCredential, MintedLink};
use super::secrets::Secrets;
use super::world::{Key, World};
use crate::api::link::External;
use crate::api::{ClusterLink, Finding, values};
use crate::mqtt::{Filter, union};
use crate::pki::{LeafRequest, Random, Role, Usage};
use crate::settings::{Acl, ClientTls, Credentials, Dial, Forwarding, Inbound, Link};

/// The two sides of a link, found and allowed.
pub(super) struct Sides<'a> {
    pub(super) local: &'a Cluster<'a>,
    pub(super) peer: Peer<'a>,
}

/// The other side of a link.
#[derive(Clone, Copy)]
pub(super) enum Peer<'a> {
    /// A cluster that is managed here.
    Managed(&'a Cluster<'a>),
    /// Any other one.
    External(&'a External),
}

impl Peer<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Peer::Managed(cluster) => &cluster.name,
            Peer::External(external) => &external.cluster_name,
        }
    }
}

/// Both halves, or the local one and what to copy to the other side.
pub(super) type Rendered = (Vec<Half>, Option<BTreeMap<String, String>>);

#[expect(clippy::too_many_arguments, reason = "the world, one link, and what comes in from outside")]
pub(super) fn render(
    world: &World,
    object: &ClusterLink,
    key: &Key,
    sides: &Sides<'_>,
    minted: &mut MintedLink,
    authorities: &BTreeMap<Key, MintedCluster>,
    now: Timestamp,
    random: Random<'_>,
) -> Result<Rendered, Finding> {
    let mut mint = Mint { key, authorities, now, random };
    match sides.peer {
        Peer::Managed(remote) => {
            Ok((render_managed(world, object, sides.local, remote, minted, &mut mint), None))
        }
        Peer::External(external) => render_external(world, object, sides.local, external, minted, &mut mint),
    }
}

fn render_managed(
    world: &World,
    object: &ClusterLink,
    local: &Cluster<'_>,
    remote: &Cluster<'_>,
    minted: &mut MintedLink,
    mint: &mut Mint<'_>,
) -> Vec<Half> {
    let outward = mint.credential(&mut minted.outward, &local.name, remote);
    let inward = mint.credential(&mut minted.inward, &remote.name, local);
    let mut near = half(object, mint.key.to_string(), &remote.name);
    // One side is enough: it tells, and asks.
    near.resync = minted.resync(object, &mut *mint.random);
    near.topics = merged(&object.spec.topics);
    near.acl = acl(object);
    let mut far = half(object, remote_id(mint.key), &local.name);
    far.topics = merged(object.spec.remote.topics.as_deref().unwrap_or_default());
    present(&mut near, remote, &outward);
    present(&mut far, local, &inward);
    near.inbound = inward.inbound();
    far.inbound = outward.inbound();
    (near.dial, far.dial) = match (near.server.is_some(), far.server.is_some()) {
        (true, false) => (Dial::Out, Dial::In),
        (false, true) => (Dial::In, Dial::Out),
        (true, true) => (Dial::Both, Dial::Both),
        // No address is known yet: both wait to be dialled, and the next plan knows more.
        (false, false) => (Dial::In, Dial::In),
    };
    vec![finished(world, &local.key, near), finished(world, &remote.key, far)]
}

/// How the name of the Secret ends with what to copy to the other side of a link.
pub const INVITATION: &str = "-invitation";

/// The name of that Secret.
pub fn invitation_name(link: &str) -> String {
    format!("{link}{INVITATION}")
}

fn render_external(
    world: &World,
    object: &ClusterLink,
    local: &Cluster<'_>,
    external: &External,
    minted: &mut MintedLink,
    mint: &mut Mint<'_>,
) -> Result<Rendered, Finding> {
    let secrets = Secrets::of(world, &mint.key.namespace);
    let mut near = half(object, mint.key.to_string(), &external.cluster_name);
    near.resync = minted.resync(object, &mut *mint.random);
    near.topics = merged(&object.spec.topics);
    near.acl = acl(object);
    near.dial = dial(external, local.endpoint.listens);
    if near.dial != Dial::In {
        dial_external(&mut near, external, secrets)?;
    }
    let mut invitation = None;
    if near.dial != Dial::Out {
        match &external.inbound {
            Some(inbound) => {
                let path = "spec.remote.external.inbound.credentialsRef";
                near.inbound.credentials = Some(secrets.get(path, &inbound.credentials_ref)?.password()?);
            }
            None => {
                let inward = mint.credential(&mut minted.inward, &external.cluster_name, local);
                near.inbound = inward.inbound();
                invitation = Some(invite(local, &inward));
            }
        }
    }
    Ok((vec![finished(world, &local.key, near)], invitation))
}

/// Where an external peer is dialled, how it is verified, and what it is shown.
fn dial_external(near: &mut Link, external: &External, secrets: Secrets<'_>) -> Result<(), Finding> {
    let path = "spec.remote.external";
    let Some(server) = external.server.as_deref().and_then(values::server) else {
        return Err(Finding::invalid(format!("{path}.server"), "must be host:port"));
    };
    near.server = Some(server.address());
    let reference = external.credentials_ref.as_ref();
    let secret = reference.map(|name| secrets.get(&format!("{path}.credentialsRef"), name)).transpose()?;
    let mut certificate = (None, None);
    if let Some(secret) = &secret {
        let has_certificate = secret.optional("tls.crt")?.is_some();
        let has_password = secret.optional("username")?.and(secret.optional("password")?).is_some();
        let is_plaintext = server.tls == Some(false);
        if is_plaintext && has_certificate && !has_password {
            let problem = "holds a certificate, which mqtt:// cannot show; write mqtts://, or add `username` and `password`";
            return Err(secret.finding(problem));
        }
        if has_certificate && !is_plaintext {
            let (certificate_pem, key_pem) = secret.pair()?;
            certificate = (Some(certificate_pem), Some(key_pem));
        }
        if has_password || !has_certificate {
            near.credentials = Some(secret.password()?);
        }
    }
    if server.tls.unwrap_or(external.tls.is_some() || certificate.0.is_some()) {
        let tls = external.tls.clone().unwrap_or_default();
        let ca =
            tls.ca_ref.as_ref().map(|name| secrets.get(&format!("{path}.tls.caRef"), name)).transpose()?;
        // An invitation holds both, so naming it once is enough.
        let Some(ca) = ca.or(secret) else {
            return Err(Finding {
                path: format!("{path}.tls.caRef"),
                reason: "CaRequired",
                message: "is required with TLS: a Secret whose ca.crt verifies the peer's certificate"
                    .to_owned(),
            });
        };
        let server_name = tls.server_name.filter(|name| !name.is_empty()).unwrap_or(server.host);
        let (certificate_pem, key_pem) = certificate;
        near.tls = Some(ClientTls { ca_pem: ca.authorities()?, server_name, certificate_pem, key_pem });
    }
    Ok(())
}

/// The keys that `credentialsRef` and `caRef` of the other side read.
fn invite(local: &Cluster<'_>, inward: &Shown) -> BTreeMap<String, String> {
    let mut secret = BTreeMap::from([("clusterName".to_owned(), local.name.clone())]);
    let mut put = |key: &str, value: Option<&String>| {
        secret.extend(value.map(|value| (key.to_owned(), value.clone())));
    };
    put("server", local.endpoint.address.as_ref());
    put("ca.crt", local.endpoint.tls.as_ref().map(|tls| &tls.ca_pem));
    match inward {
        Shown::Certificate { certificate_pem, key_pem, .. } => {
            put("tls.crt", Some(certificate_pem));
            put("tls.key", Some(key_pem));
        }
        Shown::Password(credentials) => {
            put("username", Some(&credentials.username));
            put("password", Some(&credentials.password));
        }
        Shown::Nothing => {}
    }
    secret
}

/// What a dialler shows, and thereby what the dialled side expects.
enum Shown {
    Certificate {
        certificate_pem: String,
        key_pem: String,
        uri: String,
    },
    Password(Credentials),
    /// The dialled side has no listener.
    Nothing,
}

impl Shown {
    fn inbound(&self) -> Inbound {
        match self {
            Shown::Certificate { uri, .. } => Inbound { uri_san: Some(uri.clone()), credentials: None },
            Shown::Password(credentials) => Inbound { uri_san: None, credentials: Some(credentials.clone()) },
            Shown::Nothing => Inbound::default(),
        }
    }
}

/// What minting needs.
struct Mint<'a> {
    key: &'a Key,
    authorities: &'a BTreeMap<Key, MintedCluster>,
    now: Timestamp,
    random: Random<'a>,
}

impl Mint<'_> {
    /// What the cluster `from` shows when it dials `to` along this link.
    fn credential(&mut self, slot: &mut MintedCredential, from: &str, to: &Cluster<'_>) -> Shown {
        if !to.endpoint.listens {
            return Shown::Nothing;
        }
        if to.endpoint.tls.is_none() {
            let username = format!("{}/{from}", self.key);
            let password = slot.password(&mut *self.random).to_owned();
            return Shown::Password(Credentials { username, password });
        }
        let role = Role::Link {
            namespace: self.key.namespace.clone(),
            link: self.key.name.clone(),
            from: from.to_owned(),
            to: to.name.clone(),
            nonce: slot.nonce(&mut *self.random).to_owned(),
        };
        let uri = role.to_string();
        let request =
            LeafRequest { role: Some(role), usage: Usage::Client, dns: Vec::new(), ips: Vec::new() };
        let by = self.authorities.get(&to.key);
        let leaf = by.and_then(|by| slot.leaf(&request, &by.authorities, self.now, &mut *self.random));
        leaf.map_or(Shown::Nothing, |leaf| Shown::Certificate {
            certificate_pem: leaf.certificate_pem.clone(),
            key_pem: leaf.key_pem.clone(),
            uri,
        })
    }
}

fn half(object: &ClusterLink, id: String, peer: &str) -> Link {
    let forwarding = object.spec.forwarding.clone().unwrap_or_default();
    let queue = forwarding.queue.unwrap_or_default();
    let default = Forwarding::default();
    let inflight = forwarding.max_inflight.and_then(|max| u32::try_from(max).ok());
    let age = queue.max_age.as_deref().and_then(values::duration);
    let mut half = Link::new(id, peer);
    half.enabled = object.spec.enabled.unwrap_or(true);
    half.forwarding = Forwarding {
        max_inflight: inflight.unwrap_or(default.max_inflight),
        queue_bytes_max: queue
            .max_bytes
            .as_deref()
            .and_then(values::bytes)
            .unwrap_or(default.queue_bytes_max),
        queue_age_s_max: age
            .map_or(default.queue_age_s_max, |age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX).max(1)),
    };
    half
}

fn acl(object: &ClusterLink) -> Acl {
    let acl = object.spec.acl.clone().unwrap_or_default();
    let default = Acl::default();
    Acl {
        send: acl.send.map_or(default.send, |filters| merged(&filters)),
        accept: acl.accept.map_or(default.accept, |filters| merged(&filters)),
    }
}

/// Puts into a half where and how it dials the other cluster.
fn present(half: &mut Link, to: &Cluster<'_>, shown: &Shown) {
    half.server.clone_from(&to.endpoint.address);
    half.tls = to.endpoint.tls.clone().map(|tls| {
        let (certificate_pem, key_pem) = match shown {
            Shown::Certificate { certificate_pem, key_pem, .. } => {
                (Some(certificate_pem.clone()), Some(key_pem.clone()))
            }
            _ => (None, None),
        };
        ClientTls { ca_pem: tls.ca_pem, server_name: tls.server_name, certificate_pem, key_pem }
    });
    if let Shown::Password(credentials) = shown {
        half.credentials = Some(credentials.clone());
    }
}

/// Gives a half its revision: that of what runs, where nothing has changed.
fn finished(world: &World, cluster: &Key, mut half: Link) -> Half {
    if let Some(running) = running(world, cluster, &half.id) {
        half.revision.clone_from(&running.revision);
        if half != *running {
            half.revision = String::new();
        }
    }
    if half.revision.is_empty() {
        half.revision = half.compute_revision();
    }
    Half { cluster: cluster.clone(), settings: half }
}

/// The filters without those that another one covers.
fn merged(filters: &[String]) -> Vec<String> {
    let parsed = filters.iter().filter_map(|filter| Filter::parse(filter).ok());
    union(parsed).iter().map(|filter| filter.as_str().to_owned()).collect()
}
