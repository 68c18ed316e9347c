//! What should run, and what is true: manifests, Secrets and node reports in; settings, credentials and conditions out.
//!
//! Pure: one [`World`], a time and random bytes make one [`Plan`]. Whoever applies it (`mqlink up`, the operator) keeps
//! [`Plan::minted`] and hands it in with the next world, so that credentials stay as they are between runs.
//!
//! A module imports only from those above it in the list below. `clusters` makes the settings of each cluster by itself,
//! `links` decides which links are in force and renders their halves into them, `link_status` and `cluster_status` say what is
//! true, from the nodes' reports.
//!
//! What holds:
//! - A refused object is a plan too: its cluster keeps the settings that it runs, and its conditions say why.
//! - No condition is True without a fresh report of a node, but for `Accepted` and `ResolvedRefs`, which need none.
//! - The same world gives the same plan: lists are sorted, times move only when a status flips, nothing ticks.
//! - What nodes took over shows: `ConfigApplied` and `Programmed` name it, also where only a Secret changed.
//! - What is as it was is the same: settings that ran before are shared with the world, not made again ([`Sealed::is`]).
//!
//! Does not know who applies a plan, where Secrets are kept, or what a link sends.

mod world;
mod minted;
mod secrets;
mod users;
mod names;
mod half;
mod notes;
mod room;
mod doors;
mod clusters;
mod consent;
mod halves;
mod links;
mod reports;
mod link_status;
mod cluster_status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::cluster::MqttClusterStatus;
use crate::api::link::ClusterLinkStatus;
pub use crate::pki::Random;

pub use halves::{INVITATION, invitation_name};
pub use link_status::rtt_bucket;
pub use minted::{Minted, MintedCluster, MintedCredential, MintedLink};
pub use users::{UsersError, parse_users};
pub use world::{
    Key, NodeView, Placement, Pushed, REPORT_AGE_MAX, Sealed, Secret, Service, Trouble, Unreadable, World,
};

/// What should run, and what is true.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What each cluster's nodes should run. A cluster that is refused and never ran has none.
    pub settings: BTreeMap<Key, Sealed>,
    /// Everything minted so far: keep it, and hand it in with the next world.
    pub minted: Minted,
    /// The Secret to keep for each link to an external peer: copied to the other side, it makes the other half.
    pub invitations: BTreeMap<Key, BTreeMap<String, String>>,
    /// The status of each cluster.
    pub clusters: BTreeMap<Key, MqttClusterStatus>,
    /// The status of each link.
    pub links: BTreeMap<Key, ClusterLinkStatus>,
}

/// Makes the plan for a world.
pub fn plan(world: &World, now: Timestamp, random: Random<'_>) -> Plan {
    let mut minted = world.minted.kept_for(world);
    let mut clusters = clusters::resolve_all(world, &mut minted, now, &mut *random);
    let links = links::resolve_all(world, &clusters, &mut minted, now, &mut *random);
    links::add_to(world, &mut clusters, &links);
    let link_statuses: BTreeMap<Key, ClusterLinkStatus> = links
        .iter()
        .map(|link| (link.key.clone(), link_status::status(world, &clusters, link, &minted, now)))
        .collect();
    let cluster_statuses = clusters
        .values()
        .map(|cluster| {
            let status = cluster_status::status(world, cluster, &links, &link_statuses, &minted, now);
            (cluster.key.clone(), status)
        })
        .collect();
    Plan {
        settings: clusters.into_iter().filter_map(|(key, cluster)| Some((key, cluster.sealed?))).collect(),
        minted,
        invitations: links.into_iter().filter_map(|link| Some((link.key, link.invitation?))).collect(),
        clusters: cluster_statuses,
        links: link_statuses,
    }
}
