//! The rules that a document must keep before a node runs it.
//!
//! Topic filters are not looked at: what a filter is, the codec knows. A node checks them as it takes a document.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashSet;
use std::fmt;

use super::access::{Authorization, Cidr, RULES_MAX, has_known_placeholders};
use super::jwks::token_keys;
use super::{
    ClientAuth, ClientTls, Dial, Jwt, Limits, Link, Listener, SCHEMA, SecretKind, ServerTls, Settings,
};

/// A mistake in a document: where it is, and what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field's path, as `links[0].server`.
    pub path: String,
    /// What is wrong and what is expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Every mistake of a document, in its order; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid(pub Vec<Problem>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl Settings {
    /// Checks every rule that the types do not hold.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut found = Problems::default();
        self.check_head(&mut found);
        self.check_listeners(&mut found);
        self.check_users(&mut found);
        if let Some(authorization) = &self.authorization {
            check_authorization(authorization, &mut found);
        }
        check_limits(&self.limits, &mut found);
        self.check_links(&mut found);
        if found.0.is_empty() { Ok(()) } else { Err(Invalid(found.0)) }
    }

    fn check_head(&self, found: &mut Problems) {
        if self.schema != SCHEMA {
            found.add("schema", format!("is {}; this version reads schema {SCHEMA} only", self.schema));
        }
        check_name(&self.cluster, "cluster", found);
        if let Some(shards) = self.shards.filter(|shards| !(1..=64).contains(shards)) {
            found.add("shards", format!("is {shards}; expected 1 to 64, or nothing for one for each core"));
        }
        if self.bind.parse::<IpAddr>().is_err() {
            found.add(
                "bind",
                format!("`{}` is not an IP address; expected one as 127.0.0.1 or ::", self.bind),
            );
        }
    }

    fn check_listeners(&self, found: &mut Problems) {
        let mut names = HashSet::new();
        let mut ports = HashSet::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            let path = format!("listeners[{index}]");
            check_name(&listener.name, &format!("{path}.name"), found);
            if !names.insert(&listener.name) {
                found.add(format!("{path}.name"), format!("`{}` is used twice", listener.name));
            }
            check_port(listener.port, &format!("{path}.port"), &mut ports, found);
            check_listener(listener, &path, found);
        }
        if let Some(listener) = &self.link_listener {
            check_port(listener.port, "linkListener.port", &mut ports, found);
            if let Some(tls) = &listener.tls {
                check_server_tls(tls, "linkListener.tls", found);
            }
        }
    }

    fn check_users(&self, found: &mut Problems) {
        let mut names = HashSet::new();
        for (index, user) in self.authentication.users.iter().enumerate() {
            let path = format!("authentication.users[{index}]");
            if user.name.is_empty() {
                found.add(format!("{path}.name"), "is empty");
            }
            if !names.insert(&user.name) {
                found.add(format!("{path}.name"), format!("`{}` is used twice", user.name));
            }
            if let Err(problem) = SecretKind::check(&user.secret) {
                found.add(format!("{path}.secret"), problem);
            }
        }
        if let Some(jwt) = &self.authentication.jwt {
            check_jwt(jwt, found);
        }
    }

    fn check_links(&self, found: &mut Problems) {
        let mut ids = HashSet::new();
        let mut peers = HashSet::new();
        for (index, link) in self.links.iter().enumerate() {
            let path = format!("links[{index}]");
            if link.id.is_empty() {
                found.add(format!("{path}.id"), "is empty");
            }
            if !ids.insert(&link.id) {
                found.add(format!("{path}.id"), format!("`{}` is used twice", link.id));
            }
            check_name(&link.peer, &format!("{path}.peer"), found);
            if !peers.insert(&link.peer) {
                found.add(
                    format!("{path}.peer"),
                    format!("`{}` is linked twice; one link per peer", link.peer),
                );
            }
            if link.peer == self.cluster {
                found.add(format!("{path}.peer"), "is this cluster itself");
            }
            check_link(link, &path, found);
        }
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }
}

fn check_listener(listener: &Listener, path: &str, found: &mut Problems) {
    match (listener.protocol.is_tls(), &listener.tls) {
        (true, None) => found.add(format!("{path}.tls"), "is missing; MQTTS and WSS need a certificate"),
        (false, Some(_)) => {
            let message = "is not over TLS, but tls is given; expected MQTTS or WSS, or no tls";
            found.add(format!("{path}.protocol"), message);
        }
        (true, Some(tls)) => check_server_tls(tls, &format!("{path}.tls"), found),
        (false, None) => {}
    }
    let is_path = listener.path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    if !listener.path.starts_with('/') || !is_path {
        found.add(format!("{path}.path"), "is no path; expected one as /mqtt");
    }
    if listener.allowed_origins.is_some() && !listener.protocol.is_web_socket() {
        found.add(
            format!("{path}.allowedOrigins"),
            "is only for WS and WSS; remove it or change the protocol",
        );
    }
    for (at, origin) in listener.allowed_origins.iter().flatten().enumerate() {
        let host = origin.split_once("://").map(|(_, host)| host);
        if host.is_none_or(|host| host.is_empty() || host.contains('/')) {
            let message =
                format!("`{origin}` is no origin of a web page; expected one as https://app.example");
            found.add(format!("{path}.allowedOrigins[{at}]"), message);
        }
    }
    if let Some(proxy) = &listener.proxy_protocol {
        let path = format!("{path}.proxyProtocol.trustedCidrs");
        if proxy.trusted_cidrs.is_empty() {
            found.add(&path, "is empty; name the networks of the load balancer");
        }
        for (at, cidr) in proxy.trusted_cidrs.iter().enumerate() {
            if let Err(error) = cidr.parse::<Cidr>() {
                found.add(format!("{path}[{at}]"), format!("`{cidr}` {error}"));
            }
        }
    }
    let limits = &listener.limits;
    for (name, is_zero) in [
        ("connectionsMax", limits.connections_max == Some(0)),
        ("connectsPerSMax", limits.connects_per_s_max == Some(0)),
        ("handshakeSMax", limits.handshake_s_max == Some(0)),
    ] {
        if is_zero {
            found.add(format!("{path}.limits.{name}"), "is 0; expected at least 1, or nothing for no limit");
        }
    }
}

fn check_jwt(jwt: &Jwt, found: &mut Problems) {
    if let Err(error) = token_keys(&jwt.jwks) {
        found.add("authentication.jwt.jwks", error.to_string());
    }
    if jwt.username_claim.is_empty() {
        found.add("authentication.jwt.usernameClaim", "is empty; name a claim, such as sub");
    }
}

fn check_link(link: &Link, path: &str, found: &mut Problems) {
    match (&link.server, link.dial) {
        (None, Dial::Both | Dial::Out) => {
            found.add(format!("{path}.server"), "is missing; expected host:port, or dial: In");
        }
        (Some(server), _) if !is_host_port(server) => {
            let message = format!("`{server}` is no host:port; expected one as eu.example:8883");
            found.add(format!("{path}.server"), message);
        }
        _ => {}
    }
    if let Some(tls) = &link.tls {
        check_client_tls(tls, &format!("{path}.tls"), found);
    }
    if link.forwarding.max_inflight == 0 {
        found.add(format!("{path}.forwarding.maxInflight"), "is 0; expected at least 1");
    }
}

fn check_authorization(authorization: &Authorization, found: &mut Problems) {
    let count = authorization.rules.len();
    if count > RULES_MAX {
        found.add(
            "authorization.rules",
            format!("has {count} rules; expected at most {RULES_MAX}: merge some"),
        );
    }
    for (index, rule) in authorization.rules.iter().enumerate() {
        let path = format!("authorization.rules[{index}]");
        if rule.filters.is_empty() {
            found.add(format!("{path}.filters"), "is empty; name a filter, such as `#`");
        }
        for (at, filter) in rule.filters.iter().enumerate() {
            if !has_known_placeholders(filter) {
                let message = "has a `${` that is neither ${username} nor ${clientid}; correct it";
                found.add(format!("{path}.filters[{at}]"), message);
            }
        }
        for (at, cidr) in rule.principals.cidrs.iter().enumerate() {
            if let Err(error) = cidr.parse::<Cidr>() {
                found.add(format!("{path}.principals.cidrs[{at}]"), format!("`{cidr}` {error}"));
            }
        }
    }
}

fn check_limits(limits: &Limits, found: &mut Problems) {
    if !(1_024..=256 * 1_024 * 1_024).contains(&limits.packet_bytes_max) {
        found.add("limits.packetBytesMax", "is out of range; expected 1024 to 268435456");
    }
    if limits.inflight_max == 0 {
        found.add("limits.inflightMax", "is 0; expected at least 1");
    }
    for (name, is_zero) in
        [("connectionsMax", limits.connections_max == 0), ("sessionsMax", limits.sessions_max == 0)]
    {
        if is_zero {
            found.add(format!("limits.{name}"), "is 0, so nobody could connect; expected at least 1");
        }
    }
    if limits.connect_timeout_s == 0 {
        found.add("limits.connectTimeoutS", "is 0; expected at least 1");
    }
    if limits.keep_alive_s_max == 0 {
        found.add("limits.keepAliveSMax", "is 0; expected at least 1, or 65535 for what clients want");
    }
}

fn check_server_tls(tls: &ServerTls, path: &str, found: &mut Problems) {
    check_pem(&tls.certificate_pem, "CERTIFICATE", &format!("{path}.certificatePem"), found);
    check_pem(&tls.key_pem, "PRIVATE KEY", &format!("{path}.keyPem"), found);
    for (at, one) in tls.more.iter().enumerate() {
        check_pem(&one.certificate_pem, "CERTIFICATE", &format!("{path}.more[{at}].certificatePem"), found);
        check_pem(&one.key_pem, "PRIVATE KEY", &format!("{path}.more[{at}].keyPem"), found);
    }
    if tls.username_from.is_some() && tls.client_auth == ClientAuth::None {
        found.add(
            format!("{path}.usernameFrom"),
            "needs client certificates; set clientAuth to Require or Request",
        );
    }
    match &tls.client_ca_pem {
        Some(pem) => check_pem(pem, "CERTIFICATE", &format!("{path}.clientCaPem"), found),
        None if tls.client_auth != ClientAuth::None => {
            found.add(format!("{path}.clientCaPem"), "is missing; clientAuth needs to know whom to trust");
        }
        None => {}
    }
}

fn check_client_tls(tls: &ClientTls, path: &str, found: &mut Problems) {
    check_pem(&tls.ca_pem, "CERTIFICATE", &format!("{path}.caPem"), found);
    if tls.server_name.is_empty() {
        found.add(format!("{path}.serverName"), "is empty");
    }
    match (&tls.certificate_pem, &tls.key_pem) {
        (Some(certificate), Some(key)) => {
            check_pem(certificate, "CERTIFICATE", &format!("{path}.certificatePem"), found);
            check_pem(key, "PRIVATE KEY", &format!("{path}.keyPem"), found);
        }
        (None, None) => {}
        _ => found.add(path, "certificatePem and keyPem belong together; one is missing"),
    }
}

/// A PEM block's label ends with `kind` (keys are `PRIVATE KEY`, `EC PRIVATE KEY`, `RSA PRIVATE KEY`).
fn check_pem(pem: &str, kind: &str, path: &str, found: &mut Problems) {
    let is_block = |line: &str| line.starts_with("-----BEGIN ") && line.ends_with(&format!("{kind}-----"));
    if !pem.lines().any(|line| is_block(line.trim())) {
        found.add(path, format!("holds no PEM block; expected -----BEGIN {kind}-----"));
    }
}

fn check_port(port: u16, path: &str, ports: &mut HashSet<u16>, found: &mut Problems) {
    if port == 0 {
        found.add(path, "is 0; expected 1 to 65535");
    } else if !ports.insert(port) {
        found.add(path, format!("{port} is used twice"));
    }
}

fn check_name(name: &str, path: &str, found: &mut Problems) {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(good) {
        found.add(path, format!("`{name}` is no name; expected 1 to 63 letters, digits, `-`, `_` and `.`"));
    }
}

/// Tells whether a text is `host:port`.
pub fn is_host_port(server: &str) -> bool {
    let Some((host, port)) = server.rsplit_once(':') else { return false };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_good = match bare {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains(|c: char| ":/ @".contains(c) || c.is_control()),
    };
    host_is_good && port.parse::<u16>().is_ok_and(|port| port > 0)
}
