//! Each cluster by itself: is its spec one that we can run, do its Secrets exist, and what settings follow.
//!
//! A cluster that is refused keeps the settings that it runs. Links come afterwards, from [`super::links`].

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::doors;
use super::minted::{Minted, MintedCluster, tend_leaf, tend_leaf_for};
use super::names;
use super::notes;
use super::room;
use super::secrets::Secrets;
use super::world::{Key, Placement, Sealed, World};
use crate::api::conditions::State;
use crate::api::doors::LinkTlsMode;
use crate::api::pods::Durability;
use crate::api::{Finding, MqttCluster, check, values};
use crate::pki::{Leaf, LeafRequest, OPERATOR_LEAF_LIFE, Random, Role, Usage};
use crate::settings::{self, Limits, LinkListener, ServerTls, Settings};

/// A cluster, and what became of its spec.
pub(super) struct Cluster<'a> {
    pub(super) key: Key,
    pub(super) object: &'a MqttCluster,
    /// The name that links know.
    pub(super) name: String,
    pub(super) accepted: State,
    pub(super) resolved: State,
    /// What its nodes should run, links apart; `None` where it is refused and never ran.
    pub(super) settings: Option<Settings>,
    /// The same with its links.
    pub(super) sealed: Option<Sealed>,
    /// How peers reach its link listener.
    pub(super) endpoint: Endpoint,
}

/// How peers reach a link listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoint {
    /// host:port; `None` where there is no listener, or its address is not known yet.
    pub(super) address: Option<String>,
    /// Whether there is a listener at all.
    pub(super) listens: bool,
    /// How its certificate is verified; `None` in plaintext.
    pub(super) tls: Option<EndpointTls>,
    /// End of the listener certificate's life, and the fingerprint of the authority to trust, where we minted them.
    pub(super) not_after: Option<Timestamp>,
}

/// How the certificate of a link listener is verified.
#[derive(Clone, Debug)]
pub(super) struct EndpointTls {
    pub(super) ca_pem: String,
    pub(super) server_name: String,
}

/// The first that finds something refuses the spec.
const ACCEPT: &[fn(&MqttCluster) -> Option<Finding>] = &[spec_is_invalid, replicas_are_unsupported];

pub(super) fn resolve_all<'a>(
    world: &'a World,
    minted: &mut Minted,
    now: Timestamp,
    random: Random<'_>,
) -> BTreeMap<Key, Cluster<'a>> {
    let mut clusters = BTreeMap::new();
    let mut refusals = refusals(world);
    for object in &world.clusters {
        let key = Key::of(object);
        let own = minted.clusters.entry(key.clone()).or_default();
        own.authorities.tend(object.cluster_name(), now, &mut *random);
        if world.placements.get(&key).is_some_and(|placement| placement.admin) {
            tend_admin(&key, own, now, &mut *random);
        }
        let refusal = refusals.remove(&key);
        let cluster = resolve(world, object, key.clone(), refusal, own, now, &mut *random);
        clusters.insert(key, cluster);
    }
    clusters
}

fn resolve<'a>(
    world: &'a World,
    object: &'a MqttCluster,
    key: Key,
    refusal: Option<Finding>,
    minted: &mut MintedCluster,
    now: Timestamp,
    random: Random<'_>,
) -> Cluster<'a> {
    let mut rendered = render(world, object, &key, minted, now, random);
    if let (None, Ok((settings, _))) = (&refusal, &rendered) {
        let lie_in_secrets = world.placements.get(&key).is_some_and(|placement| placement.selector.is_some());
        let room = || if lie_in_secrets { room::check_cluster(&key, settings) } else { Ok(()) };
        if let Err(finding) = check_settings(settings).and_then(|()| room()) {
            rendered = Err(finding);
        }
    }
    let accepted = match &refusal {
        Some(finding) => State::no(finding.reason, finding.message_with_path()),
        None => State::yes("Accepted", notes::cluster(object)),
    };
    let resolved = match &rendered {
        Err(finding) => State::no(finding.reason, finding.message_with_path()),
        Ok(_) => State::yes("Resolved", "Every Secret that it uses exists."),
    };
    let (settings, endpoint) = match (rendered, world.running.get(&key)) {
        (Ok((settings, endpoint)), _) if refusal.is_none() => (Some(settings), endpoint),
        (_, Some(running)) => {
            let settings = Settings { links: Vec::new(), ..Settings::clone(running) };
            let endpoint = running_endpoint(world, object, &key, &settings, minted);
            (Some(settings), endpoint)
        }
        (_, None) => (None, Endpoint::default()),
    };
    Cluster {
        name: object.cluster_name().to_owned(),
        key,
        object,
        accepted,
        resolved,
        settings,
        sealed: None,
        endpoint,
    }
}

/// The specs that are refused, each by itself, then beside the others.
fn refusals(world: &World) -> BTreeMap<Key, Finding> {
    let own = |object: &MqttCluster| {
        let key = Key::of(object);
        let placement = world.placements.get(&key);
        let finding = ACCEPT
            .iter()
            .find_map(|check| check(object))
            .or_else(|| port_is_reserved(object, &placement?.reserved_ports))?;
        Some((key, finding))
    };
    let mut refusals: BTreeMap<Key, Finding> = world.clusters.iter().filter_map(own).collect();
    for (key, finding) in names::conflicts(world, |key| !refusals.contains_key(key)) {
        refusals.entry(key).or_insert(finding);
    }
    refusals
}

fn port_is_reserved(object: &MqttCluster, reserved: &[(i32, &'static str)]) -> Option<Finding> {
    let listeners = object.spec.client_listeners();
    let ports = listeners
        .iter()
        .enumerate()
        .map(|(index, listener)| (format!("spec.listeners[{index}].port"), listener.port))
        .chain(object.spec.link_port().map(|port| ("spec.linkListener.port".to_owned(), port)));
    let taken = |port: i32| reserved.iter().find(|(own, _)| *own == port);
    ports.filter_map(|(path, port)| Some((path, taken(port)?))).next().map(|(path, (port, purpose))| {
        Finding {
            path,
            reason: "PortReserved",
            message: format!("is {port}, which every pod needs for {purpose}; choose another port"),
        }
    })
}

fn spec_is_invalid(object: &MqttCluster) -> Option<Finding> {
    joined(check::cluster(object))
}

fn replicas_are_unsupported(object: &MqttCluster) -> Option<Finding> {
    let replicas = object.spec.replicas.unwrap_or(1);
    (replicas > 1).then(|| Finding {
        path: "spec.replicas".to_owned(),
        reason: "ReplicasUnsupported",
        message: format!(
            "is {replicas}, but this version runs one node per cluster; set it to 1. What ran before keeps running"
        ),
    })
}

/// All findings as one: the reason of the first, every message.
pub(super) fn joined(findings: Vec<Finding>) -> Option<Finding> {
    let reason = findings.first()?.reason;
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    Some(Finding { path: String::new(), reason, message: all.join("; ") })
}

/// The settings of a cluster without its links, or the first reference that leads nowhere.
fn render(
    world: &World,
    object: &MqttCluster,
    key: &Key,
    minted: &mut MintedCluster,
    now: Timestamp,
    random: Random<'_>,
) -> Result<(Settings, Endpoint), Finding> {
    let secrets = Secrets::of(world, &key.namespace);
    let default_placement = Placement::default();
    let placement = world.placements.get(key).unwrap_or(&default_placement);
    let mut settings = Settings::new(object.cluster_name());
    if !placement.bind.is_empty() {
        settings.bind.clone_from(&placement.bind);
    }
    for (index, listener) in object.spec.client_listeners().iter().enumerate() {
        settings.listeners.push(doors::render_listener(index, listener, placement, secrets)?);
    }
    settings.authentication = doors::render_authentication(object, secrets)?;
    settings.authorization = object.spec.authorization.as_ref().map(doors::render_authorization);
    settings.limits = render_limits(object);
    settings.storage.durability = render_durability(object);
    if let Some(every) = object.spec.monitoring.as_ref().and_then(|one| one.sys_interval.as_deref()) {
        settings.monitoring.sys_interval_s = seconds(every).unwrap_or(settings.monitoring.sys_interval_s);
    }
    let (listener, endpoint) = render_link_listener(object, key, placement, secrets, minted, now, random)?;
    settings.link_listener = listener;
    Ok((settings, endpoint))
}

/// Holds settings against the rules that a node will hold them against.
pub(super) fn check_settings(settings: &Settings) -> Result<(), Finding> {
    settings.check().map_err(|invalid| Finding {
        path: String::new(),
        reason: "SettingsInvalid",
        message: format!("The settings that follow would be refused: {invalid}"),
    })
}

/// Without a volume there is nowhere to keep anything.
fn render_durability(object: &MqttCluster) -> settings::Durability {
    let Some(storage) = object.spec.storage.as_ref().filter(|storage| storage.size.is_some()) else {
        return settings::Durability::None;
    };
    match storage.durability.unwrap_or_default() {
        Durability::None => settings::Durability::None,
        Durability::Interval => settings::Durability::Interval,
        Durability::Always => settings::Durability::Always,
    }
}

/// Whole seconds, at least one.
fn seconds(text: &str) -> Option<u16> {
    Some(u16::try_from(values::duration(text)?.as_secs()).unwrap_or(u16::MAX).max(1))
}

fn render_limits(object: &MqttCluster) -> Limits {
    let default = Limits::default();
    let Some(limits) = &object.spec.limits else { return default };
    let bytes = |text: &Option<String>, default: usize| {
        let bytes = text.as_deref().and_then(values::bytes);
        bytes.map_or(default, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    };
    let count = |count: Option<i64>, default: usize| {
        count.and_then(|count| usize::try_from(count).ok()).unwrap_or(default)
    };
    let expiry = limits.max_session_expiry.as_deref().and_then(values::duration);
    let seconds = |text: &Option<String>, default: u16| text.as_deref().and_then(seconds).unwrap_or(default);
    Limits {
        packet_bytes_max: bytes(&limits.max_packet_bytes, default.packet_bytes_max),
        inflight_max: limits
            .max_inflight
            .and_then(|max| u16::try_from(max).ok())
            .unwrap_or(default.inflight_max),
        queued_messages_max: count(limits.max_queued_messages, default.queued_messages_max),
        queued_bytes_max: bytes(&limits.max_queued_bytes, default.queued_bytes_max),
        total_queued_messages_max: count(limits.max_total_queued_messages, default.total_queued_messages_max),
        total_queued_bytes_max: bytes(&limits.max_total_queued_bytes, default.total_queued_bytes_max),
        connections_max: count(limits.max_connections, default.connections_max),
        session_expiry_s_max: expiry.map_or(default.session_expiry_s_max, |expiry| {
            u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX).max(1)
        }),
        sessions_max: count(limits.max_sessions, default.sessions_max),
        subscriptions_max: count(limits.max_subscriptions, default.subscriptions_max),
        retained_messages_max: count(limits.max_retained_messages, default.retained_messages_max),
        retained_bytes_max: bytes(&limits.max_retained_bytes, default.retained_bytes_max),
        topic_alias_max: limits
            .max_topic_aliases
            .and_then(|max| u16::try_from(max).ok())
            .unwrap_or(default.topic_alias_max),
        memory_bytes_max: bytes(&limits.max_memory, default.memory_bytes_max),
        connect_timeout_s: seconds(&limits.connect_timeout, default.connect_timeout_s),
        keep_alive_s_max: seconds(&limits.max_keep_alive, default.keep_alive_s_max),
    }
}

fn render_link_listener(
    object: &MqttCluster,
    key: &Key,
    placement: &Placement,
    secrets: Secrets<'_>,
    minted: &mut MintedCluster,
    now: Timestamp,
    random: Random<'_>,
) -> Result<(Option<LinkListener>, Endpoint), Finding> {
    let Some(spec_port) = object.spec.link_port() else { return Ok((None, Endpoint::default())) };
    let own_port = placement.link_port.unwrap_or(doors::port(spec_port));
    let address = link_address(object, placement, own_port);
    let host = address.as_deref().and_then(values::host_and_port).map(|(host, _)| host);
    let mut endpoint = Endpoint { address, listens: true, ..Endpoint::default() };
    let tls = match object.spec.link_tls_mode() {
        LinkTlsMode::Plaintext => None,
        LinkTlsMode::Auto => {
            let request = server_request(key, host, minted.link_server.as_ref());
            let leaf = tend_leaf(&mut minted.link_server, &request, &minted.authorities, now, random);
            let leaf = leaf.ok_or_else(|| unnameable(&request))?;
            endpoint.not_after = leaf.says().ok().map(|own| own.not_after);
            let ca_pem = minted.authorities.bundle_pem();
            endpoint.tls = Some(EndpointTls { ca_pem, server_name: stable_name(key) });
            Some((leaf.certificate_pem.clone(), leaf.key_pem.clone()))
        }
        LinkTlsMode::Secret => {
            let tls = object.spec.link_listener.as_ref().and_then(|listener| listener.tls.as_ref());
            let reference = tls.and_then(|tls| tls.secret_ref.clone()).unwrap_or_default();
            let secret = secrets.get("spec.linkListener.tls.secretRef", &reference)?;
            let ca_pem = secret.authorities()?;
            let (certificate, key) = secret.pair()?;
            endpoint.not_after = crate::pki::inspect(&certificate).ok().map(|own| own.not_after);
            endpoint.tls = Some(EndpointTls { ca_pem, server_name: host.unwrap_or_default() });
            Some((certificate, key))
        }
    };
    // Certificates are requested, not required: a password is as good. The chain opens nothing without the URI of a link.
    let tls = tls.map(|(certificate_pem, key_pem)| ServerTls {
        client_auth: settings::ClientAuth::Request,
        client_ca_pem: Some(minted.authorities.bundle_pem()),
        ..ServerTls::new(certificate_pem, key_pem)
    });
    Ok((Some(LinkListener { port: own_port, tls }), endpoint))
}

/// How peers reach a cluster whose spec is refused: by what it runs, whatever the spec says.
fn running_endpoint(
    world: &World,
    object: &MqttCluster,
    key: &Key,
    running: &Settings,
    minted: &MintedCluster,
) -> Endpoint {
    let Some(listener) = &running.link_listener else { return Endpoint::default() };
    let placement = world.placements.get(key).cloned().unwrap_or_default();
    let address = link_address(object, &placement, listener.port);
    let host = address.as_deref().and_then(values::host_and_port).map(|(host, _)| host);
    let address = host.map(|host| values::join_host_port(&host, listener.port));
    let own = listener.tls.as_ref().and_then(|tls| crate::pki::inspect(&tls.certificate_pem).ok());
    let minted_name = Some(stable_name(key)).filter(|name| own.iter().any(|own| own.dns.contains(name)));
    let tls = match (&listener.tls, minted_name) {
        (None, _) => None,
        (_, Some(server_name)) => Some(EndpointTls { ca_pem: minted.authorities.bundle_pem(), server_name }),
        // The Secret with the CA may be what is missing: its peers know it.
        (Some(_), None) => dialled_with(world, &running.cluster, address.as_deref()),
    };
    Endpoint { address, listens: true, tls, not_after: own.map(|own| own.not_after) }
}

/// How a link that runs verifies the cluster at an address.
fn dialled_with(world: &World, cluster: &str, address: Option<&str>) -> Option<EndpointTls> {
    let mut links = world.running.values().flat_map(|settings| &settings.links);
    let link = links.find(|link| link.peer == cluster && link.server.as_deref() == address)?;
    let tls = link.tls.clone()?;
    Some(EndpointTls { ca_pem: tls.ca_pem, server_name: tls.server_name })
}

/// What peers dial: where the cluster was placed, else what its spec advertises.
fn link_address(object: &MqttCluster, placement: &Placement, own_port: u16) -> Option<String> {
    if let Some(address) = &placement.link_address {
        return Some(address.clone());
    }
    let listener = object.spec.link_listener.as_ref()?;
    let (host, port) = values::host_and_port(listener.advertised_address.as_deref()?)?;
    Some(values::join_host_port(&host, port.unwrap_or(own_port)))
}

/// A name that stays while addresses change, so that a move needs no new certificate.
fn stable_name(key: &Key) -> String {
    format!("{}.{}.mqlink.internal", key.name, key.namespace)
}

/// The certificates of the admin protocol. The cluster's own authority signs both, so that what opens one cluster's nodes
/// opens no other's.
fn tend_admin(key: &Key, minted: &mut MintedCluster, now: Timestamp, random: Random<'_>) {
    let request = |role, usage| LeafRequest { role: Some(role), usage, dns: Vec::new(), ips: Vec::new() };
    let MintedCluster { authorities, admin_server, admin_client, .. } = minted;
    let server = request(nodes_role(key), Usage::Server);
    tend_leaf(admin_server, &server, authorities, now, &mut *random);
    let client = request(Role::Operator, Usage::Client);
    tend_leaf_for(OPERATOR_LEAF_LIFE, admin_client, &client, authorities, now, random);
}

fn nodes_role(key: &Key) -> Role {
    Role::Node { namespace: key.namespace.clone(), cluster: key.name.clone(), node: "*".to_owned() }
}

/// While an address is not known, a certificate keeps the one it has: a load balancer that is made anew may get it again.
fn server_request(key: &Key, host: Option<String>, before: Option<&Leaf>) -> LeafRequest {
    let role = nodes_role(key);
    let mut request =
        LeafRequest { role: Some(role), usage: Usage::Server, dns: vec![stable_name(key)], ips: Vec::new() };
    match host.map(|host| host.parse().map_err(|_| host)) {
        Some(Ok(ip)) => request.ips.push(ip),
        Some(Err(name)) => request.dns.push(name),
        None => {
            if let Some(said) = before.and_then(|leaf| leaf.says().ok()) {
                (request.dns, request.ips) = (said.dns.clone(), said.ips.clone());
            }
        }
    }
    request
}

fn unnameable(request: &LeafRequest) -> Finding {
    Finding {
        path: "spec.linkListener.advertisedAddress".to_owned(),
        reason: "CertificateFailed",
        message: format!("cannot stand in a certificate: {}; correct it", request.dns.join(", ")),
    }
}

impl Finding {
    /// The message as a sentence of its own.
    pub(super) fn message_with_path(&self) -> String {
        match self.path.is_empty() {
            true => format!("{}.", self.message),
            false => format!("{} {}.", self.path, self.message),
        }
    }
}
