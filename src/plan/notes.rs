//! What of a valid spec has no effect: it is said beside `Accepted`, so that nothing is ignored in silence.
//!
//! A field that is named in vain is no mistake: halves are turned round and listeners turned off by one field, and the others
//! may wait for the day they are turned back. What they refer to is not looked for.

use std::collections::BTreeSet;

use super::half;
use crate::api::link::{Compression, External, RESYNC};
use crate::api::pods::OWN_LABELS;
use crate::api::{ClusterLink, MqttCluster, check};
use crate::settings::Dial;

const VALID: &str = "The spec is valid.";

/// What to say of a cluster that is accepted.
pub(super) fn cluster(object: &MqttCluster) -> String {
    let mut notes = vec![VALID.to_owned()];
    if object.spec.monitoring.as_ref().and_then(|one| one.pod_monitor).unwrap_or(false) {
        notes.push("spec.monitoring.podMonitor has no effect yet: no PodMonitor is made.".to_owned());
    }
    let env =
        object.spec.pod_template.as_ref().and_then(|template| template.env.as_deref()).unwrap_or_default();
    if env.iter().any(|variable| variable.name == "POD_NAME") {
        notes.push("spec.podTemplate.env POD_NAME has no effect: it is the name of the pod.".to_owned());
    }
    let labels =
        object.spec.pod_template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let ours =
        labels.into_iter().flat_map(|labels| labels.keys()).filter(|key| OWN_LABELS.contains(&key.as_str()));
    notes.extend(
        ours.map(|key| {
            format!("spec.podTemplate.metadata.labels {key} has no effect: it is the operator's.")
        }),
    );
    if let Some(listener) = object.spec.link_listener.as_ref().filter(|_| object.spec.link_port().is_none()) {
        let fields = [
            ("port", listener.port.is_some()),
            ("tls", listener.tls.is_some()),
            ("service", listener.service.is_some()),
            ("advertisedAddress", listener.advertised_address.is_some()),
        ];
        notes.extend(in_vain("spec.linkListener", &fields, "linkListener.enabled is false"));
    }
    notes.join(" ")
}

/// What to say of a link that is accepted. `listens`: whether the local cluster has a link listener.
pub(super) fn link(object: &ClusterLink, listens: bool) -> String {
    let spec = &object.spec;
    let mut notes = vec![VALID.to_owned()];
    let acl = spec.acl.clone().unwrap_or_default();
    let lists = [
        ("spec.topics", Some(&spec.topics)),
        ("spec.remote.topics", spec.remote.topics.as_ref()),
        ("spec.acl.send", acl.send.as_ref()),
        ("spec.acl.accept", acl.accept.as_ref()),
    ];
    for (path, filters) in lists {
        let redundant = check::redundant_filters(filters.map(Vec::as_slice).unwrap_or_default());
        let redundant: BTreeSet<(String, String)> = redundant.into_iter().collect();
        for (filter, by) in redundant {
            notes.push(format!("In {path}, `{by}` covers `{filter}`."));
        }
    }
    if let Some(external) = &spec.remote.external {
        notes.extend(directions(external, listens));
    }
    let forwarding = spec.forwarding.clone().unwrap_or_default();
    if forwarding.pool_size.is_some_and(|size| size > 1) {
        notes.push(
            "spec.forwarding.poolSize has no effect yet: one connection carries both directions.".to_owned(),
        );
    }
    if forwarding.compression == Some(Compression::Auto) {
        notes.push("spec.forwarding.compression Auto has no effect yet: nothing is compressed.".to_owned());
    }
    if let Err(why) = object.resync() {
        notes.push(format!("The annotation {RESYNC} has no effect: {why}."));
    }
    if spec.client_id_prefix.as_ref().is_some_and(|prefix| !prefix.is_empty()) {
        notes.push("spec.clientIdPrefix has no effect with the Native dialect.".to_owned());
    }
    notes.join(" ")
}

/// What is for a direction that is not dialled.
fn directions(external: &External, listens: bool) -> Vec<String> {
    let (fields, why) = match half::dial(external, listens) {
        Dial::Both => return Vec::new(),
        Dial::In => (
            vec![
                ("server", external.server.is_some()),
                ("credentialsRef", external.credentials_ref.is_some()),
                ("tls", external.tls.is_some()),
            ],
            "only the peer dials (dial: In)",
        ),
        Dial::Out => (
            vec![("inbound", external.inbound.is_some())],
            match listens {
                true => "only this side dials (dial: Out)",
                false => "the local cluster has no link listener",
            },
        ),
    };
    in_vain("spec.remote.external", &fields, why)
}

fn in_vain(path: &str, fields: &[(&str, bool)], why: &str) -> Vec<String> {
    let named = fields.iter().filter(|(_, is_named)| *is_named);
    named.map(|(field, _)| format!("{path}.{field} has no effect: {why}.")).collect()
}
