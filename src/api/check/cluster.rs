//! The rules of `MqttCluster`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

use super::Finding;
use super::fields::Findings;
use crate::api::access::{Authorization, Jwt};
use crate::api::bounds::*;
use crate::api::cluster::*;
use crate::api::doors::*;
use crate::api::pods::*;
use crate::api::schema::LISTENER_NAMES_TAKEN;
use crate::api::values;

/// Checks a cluster by itself.
pub fn cluster(cluster: &MqttCluster) -> Vec<Finding> {
    let mut found = Findings::default();
    found.metadata_name(cluster.metadata.name.as_deref(), true);
    if let Some(namespace) = &cluster.metadata.namespace {
        found.namespace("metadata.namespace", namespace);
    }
    let spec = &cluster.spec;
    if let Some(name) = &spec.cluster_name {
        found.cluster_name("spec.clusterName", name);
    }
    if let Some(replicas) = spec.replicas {
        found.range("spec.replicas", replicas, REPLICAS_MAX);
    }
    found.image("spec.image", spec.image.as_deref().unwrap_or_default());
    if let Some(listeners) = &spec.listeners {
        check_listeners(&mut found, listeners);
    }
    if let Some(listener) = &spec.link_listener {
        check_link_listener(&mut found, listener);
    }
    check_ports_differ(&mut found, spec);
    if let Some(authentication) = &spec.authentication {
        found.secret("spec.authentication.usersSecretRef", authentication.users_secret_ref.as_ref());
        if let Some(jwt) = &authentication.jwt {
            check_jwt(&mut found, jwt);
        }
    }
    if let Some(authorization) = &spec.authorization {
        check_authorization(&mut found, authorization);
    }
    if let Some(storage) = &spec.storage {
        check_storage(&mut found, storage);
    }
    if let Some(limits) = &spec.limits {
        check_limits(&mut found, limits);
    }
    if let Some(allowed) = &spec.allowed_links {
        check_allowed_links(&mut found, allowed);
    }
    if let Some(monitoring) = &spec.monitoring {
        found.hours("spec.monitoring.sysInterval", monitoring.sys_interval.as_ref());
    }
    if let Some(template) = &spec.pod_template {
        check_pod_template(&mut found, template);
    }
    found.0
}

/// Checks a change of a cluster: what it is known by and where it keeps its data cannot change.
pub fn cluster_change(old: &MqttCluster, new: &MqttCluster) -> Vec<Finding> {
    let mut found = Findings::default();
    let (before, after) = (old.cluster_name(), new.cluster_name());
    if before != after {
        let message = format!(
            "is immutable: other clusters know this one as `{before}`; put it back, or make a new MqttCluster"
        );
        found.add("spec.clusterName", message);
    }
    let size = |cluster: &MqttCluster| cluster.spec.storage.as_ref().and_then(|storage| storage.size.clone());
    let class = |cluster: &MqttCluster| {
        let storage = cluster.spec.storage.clone();
        storage.map(|storage| storage.storage_class_name.unwrap_or_default())
    };
    match (size(old), size(new)) {
        (Some(before), Some(after)) if values::bytes(&after) < values::bytes(&before) => found.add(
            "spec.storage.size",
            format!("a volume grows and never shrinks; keep {before} or choose a larger size"),
        ),
        (Some(_), None) | (None, Some(_)) => found.add(
            "spec.storage",
            "cannot change between a volume (size) and none (ephemeral: true, or unset); make a new MqttCluster instead",
        ),
        _ => {}
    }
    if let (Some(before), Some(after)) = (class(old), class(new))
        && before != after
    {
        let message = "is immutable: volumes keep their class; make a new MqttCluster instead";
        found.add("spec.storage.storageClassName", message);
    }
    found.0
}

fn check_listeners(found: &mut Findings, listeners: &[Listener]) {
    found.items("spec.listeners", listeners.len(), 1, LISTENERS_MAX);
    for (index, listener) in listeners.iter().enumerate() {
        let path = format!("spec.listeners[{index}]");
        check_listener(found, &path, listener);
        let earlier = &listeners[..index];
        if earlier.iter().any(|other| other.name == listener.name) {
            found.add(
                format!("{path}.name"),
                format!("`{}` is taken by another listener; rename one", listener.name),
            );
        }
        if let Some(other) = earlier.iter().find(|other| other.port == listener.port) {
            let message =
                format!("{} is also the port of `{}`; give each its own", listener.port, other.name);
            found.add(format!("{path}.port"), message);
        }
    }
}

fn check_listener(found: &mut Findings, path: &str, listener: &Listener) {
    let name = listener.name.as_str();
    let name_path = format!("{path}.name");
    found.chars(&name_path, name, 1, LISTENER_NAME_CHARS_MAX);
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits =
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(inner) && !name.ends_with('-');
    if !name.is_empty() && !fits {
        let message =
            "must be lower-case letters, digits and '-', beginning with a letter and not ending with '-'";
        found.add(&name_path, message);
    }
    if LISTENER_NAMES_TAKEN.contains(&name) {
        found.add(&name_path, "link, admin and nodes name other ports of a cluster; choose another name");
    }
    found.port(format!("{path}.port"), listener.port);
    let secure = matches!(listener.protocol, Protocol::Mqtts | Protocol::Wss);
    if secure != listener.tls.is_some() {
        let message = "tls.secretRef is required for MQTTS and WSS, and tls is not allowed for MQTT and WS";
        found.add(format!("{path}.tls"), message);
    }
    if let Some(tls) = &listener.tls {
        found.secret(format!("{path}.tls.secretRef"), Some(&tls.secret_ref));
        found.secret(format!("{path}.tls.clientCaRef"), tls.client_ca_ref.as_ref());
        let more = tls.additional_secret_refs.as_deref().unwrap_or_default();
        found.items(format!("{path}.tls.additionalSecretRefs"), more.len(), 0, CERTIFICATES_MAX);
        for (at, secret) in more.iter().enumerate() {
            found.secret(format!("{path}.tls.additionalSecretRefs[{at}]"), Some(secret));
        }
        if tls.username_from.is_some() && tls.client_auth.unwrap_or_default() == ClientAuth::None {
            let message = "usernameFrom needs clientAuth: Require or Request";
            found.add(format!("{path}.tls.usernameFrom"), message);
        }
        let asks = tls.client_auth.unwrap_or_default() != ClientAuth::None;
        if asks != tls.client_ca_ref.is_some() {
            let message =
                "clientCaRef is required when clientAuth is Request or Require, and not allowed without them";
            found.add(format!("{path}.tls.clientCaRef"), message);
        }
    }
    found.service(format!("{path}.service"), listener.service.as_ref());
    check_web_socket(found, path, listener);
    if let Some(proxy) = &listener.proxy_protocol {
        let path = format!("{path}.proxyProtocol.trustedCidrs");
        if proxy.trusted_cidrs.is_empty() {
            found.add(&path, "must not be empty; name the networks of the load balancer");
        }
        found.cidrs(&path, Some(&proxy.trusted_cidrs));
    }
    if let Some(limits) = &listener.limits {
        let path = format!("{path}.limits");
        for (name, value) in
            [("maxConnections", limits.max_connections), ("maxConnectRate", limits.max_connect_rate)]
        {
            value.into_iter().for_each(|value| found.range(format!("{path}.{name}"), value, COUNT_MAX));
        }
        found.hours(format!("{path}.handshakeTimeout"), limits.handshake_timeout.as_ref());
    }
}

fn check_web_socket(found: &mut Findings, path: &str, listener: &Listener) {
    let is_web_socket = matches!(listener.protocol, Protocol::Ws | Protocol::Wss);
    for (name, is_given) in
        [("path", listener.path.is_some()), ("allowedOrigins", listener.allowed_origins.is_some())]
    {
        if is_given && !is_web_socket {
            found.add(format!("{path}.{name}"), "is only for WS and WSS; remove it or change the protocol");
        }
    }
    if let Some(value) = &listener.path {
        found.path(format!("{path}.path"), value);
    }
    found.origins(&format!("{path}.allowedOrigins"), listener.allowed_origins.as_ref());
}

fn check_jwt(found: &mut Findings, jwt: &Jwt) {
    found.secret("spec.authentication.jwt.jwksSecretRef", Some(&jwt.jwks_secret_ref));
    found.claim("spec.authentication.jwt.usernameClaim", jwt.username_claim.as_ref());
    found.claim("spec.authentication.jwt.issuer", jwt.issuer.as_ref());
    found.claim("spec.authentication.jwt.audience", jwt.audience.as_ref());
    found.claim("spec.authentication.jwt.aclClaim", jwt.acl_claim.as_ref());
}

fn check_link_listener(found: &mut Findings, listener: &LinkListener) {
    if let Some(port) = listener.port {
        found.port("spec.linkListener.port", port);
    }
    found.address(
        "spec.linkListener.advertisedAddress",
        listener.advertised_address.as_deref().unwrap_or_default(),
    );
    if let Some(tls) = &listener.tls {
        found.secret("spec.linkListener.tls.secretRef", tls.secret_ref.as_ref());
        let wants_secret = tls.mode.unwrap_or_default() == LinkTlsMode::Secret;
        if wants_secret != tls.secret_ref.is_some() {
            let message = "secretRef is required for mode Secret, and not allowed for Auto and Plaintext";
            found.add("spec.linkListener.tls.secretRef", message);
        }
    }
    found.service("spec.linkListener.service", listener.service.as_ref());
}

fn check_ports_differ(found: &mut Findings, spec: &MqttClusterSpec) {
    let Some(port) = spec.link_port() else { return };
    if spec.client_listeners().iter().any(|listener| listener.port == port) {
        let message = format!("port {port} is also a listener's port; give one of them another port");
        found.add("spec.linkListener", message);
    }
}

fn check_authorization(found: &mut Findings, authorization: &Authorization) {
    let rules = authorization.rules.as_deref().unwrap_or_default();
    found.items("spec.authorization.rules", rules.len(), 0, RULES_MAX);
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("spec.authorization.rules[{index}]");
        found.rule_filters(&format!("{path}.filters"), &rule.filters);
        if let Some(principals) = &rule.principals {
            let path = format!("{path}.principals");
            found.principals(&format!("{path}.users"), principals.users.as_ref());
            found.principals(&format!("{path}.clientIds"), principals.client_ids.as_ref());
            found.principals(&format!("{path}.certificateNames"), principals.certificate_names.as_ref());
            found.cidrs(&format!("{path}.cidrs"), principals.cidrs.as_ref());
        }
    }
}

fn check_storage(found: &mut Findings, storage: &Storage) {
    found.byte_size("spec.storage.size", storage.size.as_ref());
    if let Some(class) = &storage.storage_class_name {
        found.reference("spec.storage.storageClassName", class);
    }
    if storage.size.is_some() == storage.ephemeral.unwrap_or(false) {
        found.add("spec.storage", "exactly one of size and ephemeral: true is required");
    }
    let is_for_a_volume =
        storage.storage_class_name.is_some() || storage.retention.is_some() || storage.durability.is_some();
    if storage.size.is_none() && is_for_a_volume {
        let message =
            "storageClassName, retention and durability are only for a volume; set size or remove them";
        found.add("spec.storage", message);
    }
}

fn check_limits(found: &mut Findings, limits: &Limits) {
    if let Some(size) = &limits.max_packet_bytes
        && !values::bytes(size).is_some_and(|bytes| PACKET_BYTES.contains(&bytes))
    {
        found.add("spec.limits.maxPacketBytes", "must be a number of bytes from 1Ki to 256Mi, such as 1Mi");
    }
    if let Some(size) = &limits.max_memory
        && values::bytes(size).is_none_or(|bytes| bytes < MEMORY_BYTES_MIN)
    {
        found.add("spec.limits.maxMemory", "must be a number of bytes from 64Mi on, such as 1Gi");
    }
    for (name, size) in [
        ("maxQueuedBytes", &limits.max_queued_bytes),
        ("maxTotalQueuedBytes", &limits.max_total_queued_bytes),
        ("maxRetainedBytes", &limits.max_retained_bytes),
    ] {
        found.byte_size(format!("spec.limits.{name}"), size.as_ref());
    }
    found.duration("spec.limits.maxSessionExpiry", limits.max_session_expiry.as_ref());
    found.hours("spec.limits.connectTimeout", limits.connect_timeout.as_ref());
    found.hours("spec.limits.maxKeepAlive", limits.max_keep_alive.as_ref());
    if let Some(inflight) = limits.max_inflight {
        found.range("spec.limits.maxInflight", inflight, INFLIGHT_MAX);
    }
    if let Some(aliases) = limits.max_topic_aliases.filter(|&aliases| aliases != 0) {
        found.range("spec.limits.maxTopicAliases", aliases, INFLIGHT_MAX);
    }
    for (name, count) in [
        ("maxQueuedMessages", limits.max_queued_messages),
        ("maxTotalQueuedMessages", limits.max_total_queued_messages),
        ("maxConnections", limits.max_connections),
        ("maxSessions", limits.max_sessions),
        ("maxSubscriptions", limits.max_subscriptions),
        ("maxRetainedMessages", limits.max_retained_messages),
    ] {
        if let Some(count) = count {
            found.range(format!("spec.limits.{name}"), count, COUNT_MAX);
        }
    }
}

fn check_allowed_links(found: &mut Findings, allowed: &AllowedLinks) {
    let by_selector = allowed.namespaces.unwrap_or_default() == LinkNamespaces::Selector;
    if by_selector != allowed.selector.is_some() {
        let message = "selector is required for namespaces: Selector, and not allowed for Same and All";
        found.add("spec.allowedLinks.selector", message);
    }
    let expressions = allowed.selector.as_ref().and_then(|selector| selector.match_expressions.as_deref());
    let expressions = expressions.unwrap_or_default();
    let lists = |it: &LabelSelectorRequirement| matches!(it.operator.as_str(), "In" | "NotIn");
    if expressions.iter().any(|it| lists(it) == it.values.as_deref().unwrap_or_default().is_empty()) {
        let message = "In and NotIn need values, Exists and DoesNotExist have none; correct matchExpressions";
        found.add("spec.allowedLinks.selector", message);
    }
    if expressions.len() > MAP_ENTRIES_MAX {
        let message =
            format!("has {} entries, but {MAP_ENTRIES_MAX} are the most; remove some", expressions.len());
        found.add("spec.allowedLinks.selector.matchExpressions", message);
    }
}

fn check_pod_template(found: &mut Findings, template: &PodTemplate) {
    if let Some(metadata) = &template.metadata {
        found.labels("spec.podTemplate.metadata.labels", metadata.labels.as_ref());
        found.entries("spec.podTemplate.metadata.annotations", metadata.annotations.as_ref());
    }
    if let Some(class) = &template.priority_class {
        found.reference("spec.podTemplate.priorityClass", class);
    }
    let resources = template.resources.clone().unwrap_or_default();
    for (field, quantities) in [("requests", resources.requests), ("limits", resources.limits)] {
        for (name, quantity) in quantities.into_iter().flatten() {
            found.quantity(format!("spec.podTemplate.resources.{field}.{name}"), &quantity.0);
        }
    }
    for (index, variable) in template.env.iter().flatten().enumerate() {
        found.variable(format!("spec.podTemplate.env[{index}].name"), &variable.name);
    }
    for (index, constraint) in template.topology_spread.iter().flatten().enumerate() {
        let path = format!("spec.podTemplate.topologySpread[{index}].maxSkew");
        found.range(path, constraint.max_skew, i32::MAX);
    }
}
