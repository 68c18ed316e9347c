//! What a plan mints, and keeps from one run to the next.
//!
//! One authority per cluster; one credential per link and direction, revocable alone: whoever forgets one entry gets a new one in
//! the next plan, and the old one opens nothing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::world::{Key, World};
use crate::api::ClusterLink;
use crate::pki::{Authorities, LEAF_LIFE, Leaf, LeafRequest, Random};
use crate::settings::canonical_sha256;

/// Everything minted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Minted {
    /// By cluster.
    pub clusters: BTreeMap<Key, MintedCluster>,
    /// By link.
    pub links: BTreeMap<Key, MintedLink>,
}

/// What was minted for a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MintedCluster {
    /// The authorities that its peers trust.
    pub authorities: Authorities,
    /// The certificate of its link listener.
    pub link_server: Option<Leaf>,
    /// The certificate of its nodes' admin ports, where [`super::Placement::admin`] asks for one.
    pub admin_server: Option<Leaf>,
    /// What the operator shows to these nodes, and to no others. Short-lived, so not kept: who starts anew makes a new one.
    #[serde(skip)]
    pub admin_client: Option<Leaf>,
}

/// What was minted for a link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MintedLink {
    /// What the local cluster presents when it dials.
    pub outward: MintedCredential,
    /// What the peer presents when it dials here.
    pub inward: MintedCredential,
    /// What nodes are to answer to the last request for a resync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resync: Option<String>,
}

/// What one side presents when it dials the other.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MintedCredential {
    /// What its certificates carry, and none before it did.
    pub nonce: Option<String>,
    /// A certificate, where the other side speaks TLS.
    pub leaf: Option<Leaf>,
    /// A password, where it does not.
    pub password: Option<String>,
}

impl Minted {
    /// Without what belongs to objects that are gone.
    pub(super) fn kept_for(&self, world: &World) -> Minted {
        let clusters: BTreeSet<Key> = world.clusters.iter().map(Key::of).collect();
        let links: BTreeSet<Key> = world.links.iter().map(Key::of).collect();
        let mut kept = self.clone();
        kept.clusters.retain(|key, _| clusters.contains(key));
        kept.links.retain(|key, _| links.contains(key));
        kept
    }

    /// Eight characters that change with what a hash stands for. More people read statuses than Secrets: without the key of
    /// the cluster's authority nobody can find a password by trying which one gives the same.
    pub(super) fn mark(&self, cluster: &Key, hash: &str, now: Timestamp) -> String {
        let signer = self.clusters.get(cluster).and_then(|own| own.authorities.signer(now));
        let mut mark = canonical_sha256(&(signer.map(|authority| &authority.key_pem), hash));
        mark.truncate(8);
        mark
    }
}

impl MintedLink {
    /// What nodes are to answer: a nonce and the token, so that no report answers another request with the same token, be it that
    /// of a link of this name before. When the token goes, the last one stays in force, so that it is none anew when it comes back.
    /// Of one that is of no use there is a note.
    pub(super) fn resync(&mut self, object: &ClusterLink, random: Random<'_>) -> Option<String> {
        if let Ok(Some(token)) = object.resync()
            && self.resync.as_deref().map(resync_token) != Some(token)
        {
            self.resync = Some(format!("{} {token}", hex::<8>(random)));
        }
        self.resync.clone()
    }
}

/// The token of what nodes are to answer.
pub(super) fn resync_token(answer: &str) -> &str {
    answer.split_once(' ').map_or(answer, |(_, token)| token)
}

impl MintedCredential {
    /// The certificate, minted where there is none that serves.
    pub(super) fn leaf(
        &mut self,
        request: &LeafRequest,
        by: &Authorities,
        now: Timestamp,
        random: Random<'_>,
    ) -> Option<&Leaf> {
        tend_leaf(&mut self.leaf, request, by, now, random)
    }

    /// The nonce, minted where there is none.
    pub(super) fn nonce(&mut self, random: Random<'_>) -> &str {
        self.nonce.get_or_insert_with(|| hex::<8>(random))
    }

    /// The password, minted where there is none.
    pub(super) fn password(&mut self, random: Random<'_>) -> &str {
        self.password.get_or_insert_with(|| hex::<32>(random))
    }
}

fn hex<const N: usize>(random: Random<'_>) -> String {
    let mut bytes = [0; N];
    random(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps a leaf that serves, and issues it anew where it does not.
pub(super) fn tend_leaf<'a>(
    slot: &'a mut Option<Leaf>,
    request: &LeafRequest,
    by: &Authorities,
    now: Timestamp,
    random: Random<'_>,
) -> Option<&'a Leaf> {
    tend_leaf_for(LEAF_LIFE, slot, request, by, now, random)
}

/// The same, of another life than usual.
pub(super) fn tend_leaf_for<'a>(
    life: Duration,
    slot: &'a mut Option<Leaf>,
    request: &LeafRequest,
    by: &Authorities,
    now: Timestamp,
    random: Random<'_>,
) -> Option<&'a Leaf> {
    let signer = by.signer(now)?;
    if !slot.as_ref().is_some_and(|leaf| leaf.serves(request, signer, now)) {
        *slot = signer.issue_for(life, request, now, random).ok();
    }
    slot.as_ref()
}

impl fmt::Debug for MintedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MintedCredential").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}
