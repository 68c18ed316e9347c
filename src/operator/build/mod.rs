//! The Kubernetes objects that follow from a cluster or a link. Pure: the same input gives the same objects.
//!
//! Each `build_*` makes one object whole, as it is handed to server-side apply: what stands in it is ours and is put back
//! when somebody changes it, what does not stand in it is left to others.
//!
//! What holds:
//! - Labels and selectors are made from fixed keys, never copied from the user's object; the pod template's own labels and
//!   annotations come first and ours win.
//! - Every object is owned by its `MqttCluster` or `ClusterLink` in the same namespace and goes with it. No finalizers.
//! - Names are bounded by those of the objects (40 characters) and of listeners (15). Two kinds of child never meet in one
//!   name; where two clusters do (`a` with listener `b-c`, `a-b` with `c`), the plan refuses one of them.
//! - Settings, users, certificates and listeners are not in the pod template: a change of them restarts nothing.
//! - Broker pods have no rights in the Kubernetes API, and pass the Pod Security level `restricted`.

mod names;
mod meta;
mod object;
mod pods;
mod services;
mod secrets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::api::{ClusterLink, MqttCluster};
use crate::plan::{MintedCluster, MintedLink};
use crate::settings::Settings;

pub(super) use meta::{APPLIED, MANAGED_BY, OWN, POD_SPEC, matches, matches_in, merging, selector_text};
pub(super) use names::{
    link_secret, link_service, listener_service, minted_secret, node_name, nodes_service, settings_secrets,
};
pub(super) use object::{Kind, Object, ObjectId, Owner};
pub(super) use pods::RESERVED_PORTS;
pub(super) use secrets::MINTED;

/// Everything that runs a cluster; the settings and what was minted apart, which outlive a spec that is refused.
pub(super) fn build_cluster(cluster: &MqttCluster, default_image: &str) -> Vec<Object> {
    let mut objects = vec![
        pods::build_service_account(cluster),
        services::build_nodes(cluster),
        pods::build_disruption_budget(cluster),
        pods::build_stateful_set(cluster, default_image),
    ];
    objects.extend(cluster.spec.client_listeners().iter().map(|it| services::build_listener(cluster, it)));
    objects.extend(services::build_link_listener(cluster));
    objects
}

/// What the nodes of a cluster run on, in pieces.
pub(super) fn build_settings(cluster: &MqttCluster, settings: &Settings) -> Vec<Object> {
    secrets::build_settings(cluster, settings)
}

/// What was minted for a cluster: all of it for the operator, and what the nodes need of it.
pub(super) fn build_minted_cluster(cluster: &MqttCluster, minted: &MintedCluster) -> Vec<Object> {
    let whole = secrets::build_minted_cluster(cluster, minted);
    std::iter::once(whole).chain(secrets::build_admin(cluster, minted)).collect()
}

/// What to copy to the other side of a link.
pub(super) fn build_invitation(link: &ClusterLink, invitation: &BTreeMap<String, String>) -> Object {
    secrets::build_invitation(link, invitation)
}

/// What was minted for a link.
pub(super) fn build_minted_link(link: &ClusterLink, minted: &MintedLink) -> Object {
    secrets::build_minted_link(link, minted)
}
