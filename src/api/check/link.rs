//! The rules of `ClusterLink`.

use super::Finding;
use super::fields::Findings;
use crate::api::bounds::*;
use crate::api::link::*;
use crate::api::values;

/// Checks a link by itself.
pub fn link(link: &ClusterLink) -> Vec<Finding> {
    let mut found = Findings::default();
    found.metadata_name(link.metadata.name.as_deref(), false);
    if let Some(namespace) = &link.metadata.namespace {
        found.namespace("metadata.namespace", namespace);
    }
    let spec = &link.spec;
    found.reference("spec.clusterRef.name", &spec.cluster_ref.name);
    found.link_filters("spec.topics", &spec.topics);
    check_remote(&mut found, &spec.remote);
    found.client_id_prefix("spec.clientIdPrefix", spec.client_id_prefix.as_deref().unwrap_or_default());
    if let Some(forwarding) = &spec.forwarding {
        check_forwarding(&mut found, forwarding);
    }
    if let Some(acl) = &spec.acl {
        found.link_filters("spec.acl.send", acl.send.as_deref().unwrap_or_default());
        found.link_filters("spec.acl.accept", acl.accept.as_deref().unwrap_or_default());
    }
    found.0
}

/// Checks a change of a link: which two clusters it joins cannot change.
pub fn link_change(old: &ClusterLink, new: &ClusterLink) -> Vec<Finding> {
    const REMEDY: &str = "is immutable: put it back, or make a new ClusterLink";
    let mut found = Findings::default();
    let (before, after) = (&old.spec, &new.spec);
    if before.cluster_ref != after.cluster_ref {
        found.add("spec.clusterRef", REMEDY);
    }
    if before.remote.cluster_ref.is_some() != after.remote.cluster_ref.is_some() {
        let message = "cannot change between clusterRef and external: make a new ClusterLink instead";
        found.add("spec.remote", message);
    }
    if let (Some(before), Some(after)) = (&before.remote.cluster_ref, &after.remote.cluster_ref)
        && before != after
    {
        found.add("spec.remote.clusterRef", REMEDY);
    }
    if let (Some(before), Some(after)) = (&before.remote.external, &after.remote.external)
        && before.cluster_name != after.cluster_name
    {
        found.add("spec.remote.external.clusterName", REMEDY);
    }
    found.0
}

fn check_remote(found: &mut Findings, remote: &Remote) {
    if remote.cluster_ref.is_some() == remote.external.is_some() {
        found.add("spec.remote", "exactly one of clusterRef and external is required");
    }
    if remote.cluster_ref.is_some() != remote.topics.is_some() {
        let message = "is required with clusterRef (what the other side wants to receive, may be []) \
                       and not allowed with external, whose own half says it";
        found.add("spec.remote.topics", message);
    }
    if let Some(target) = &remote.cluster_ref {
        found.reference("spec.remote.clusterRef.name", &target.name);
        if let Some(namespace) = &target.namespace {
            found.namespace("spec.remote.clusterRef.namespace", namespace);
        }
    }
    found.link_filters("spec.remote.topics", remote.topics.as_deref().unwrap_or_default());
    if let Some(external) = &remote.external {
        check_external(found, external);
    }
}

fn check_external(found: &mut Findings, external: &External) {
    let path = "spec.remote.external";
    found.cluster_name(format!("{path}.clusterName"), &external.cluster_name);
    match &external.server {
        Some(server) => found.server(format!("{path}.server"), server),
        None if external.dial == Some(Dial::In) => {}
        None => found.add(
            format!("{path}.server"),
            "is required unless dial is In: host:port of the peer's link listener",
        ),
    }
    if external.dialect == Some(Dialect::Emqx) && external.dial.is_some() {
        let message = "is for the Native dialect only: with Emqx each side dials the other; remove it";
        found.add(format!("{path}.dial"), message);
    }
    found.secret(format!("{path}.credentialsRef"), external.credentials_ref.as_ref());
    found.secret(
        format!("{path}.inbound.credentialsRef"),
        external.inbound.as_ref().map(|i| &i.credentials_ref),
    );
    if let Some(tls) = &external.tls {
        found.secret(format!("{path}.tls.caRef"), tls.ca_ref.as_ref());
        found.host(format!("{path}.tls.serverName"), tls.server_name.as_deref().unwrap_or_default());
        let server = external.server.as_deref().and_then(values::server);
        if server.is_some_and(|server| server.tls == Some(false)) {
            let message = "is not allowed with an mqtt:// server; write mqtts:// or remove tls";
            found.add(format!("{path}.tls"), message);
        }
    }
}

fn check_forwarding(found: &mut Findings, forwarding: &Forwarding) {
    if let Some(size) = forwarding.pool_size {
        found.range("spec.forwarding.poolSize", size, POOL_SIZE_MAX);
    }
    if let Some(inflight) = forwarding.max_inflight {
        found.range("spec.forwarding.maxInflight", inflight, INFLIGHT_MAX);
    }
    if let Some(queue) = &forwarding.queue {
        found.byte_size("spec.forwarding.queue.maxBytes", queue.max_bytes.as_ref());
        found.duration("spec.forwarding.queue.maxAge", queue.max_age.as_ref());
    }
}
