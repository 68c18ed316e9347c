//! What a plan is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use kube::Resource;
use serde::{Deserialize, Serialize};

use super::minted::Minted;
use crate::api::conditions::State;
use crate::api::{ClusterLink, MqttCluster};
use crate::pki::Pair;
use crate::settings::Settings;
use crate::settings::report::NodeReport;

/// A report older than this says nothing any more.
pub const REPORT_AGE_MAX: Duration = Duration::from_secs(15);

/// Everything that a plan depends on, at one moment.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// All clusters; statuses included, for the times of their conditions.
    pub clusters: Vec<MqttCluster>,
    /// All links; statuses included. Without creation timestamps the order decides which of two is the older.
    pub links: Vec<ClusterLink>,
    /// The Secrets that clusters and links name.
    pub secrets: BTreeMap<Key, Secret>,
    /// Why some of these cannot be read, though they may be there.
    pub unreadable_secrets: BTreeMap<Key, String>,
    /// What is there and cannot be read: what runs of it runs on.
    pub unreadable: Unreadable,
    /// The namespaces in which clusters are known at all; `None`: all.
    pub operated: Option<BTreeSet<String>>,
    /// Labels of namespaces, for `allowedLinks` by selector.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Where each cluster runs.
    pub placements: BTreeMap<Key, Placement>,
    /// What the nodes of each cluster say, by the node's name.
    pub reports: BTreeMap<Key, BTreeMap<String, NodeView>>,
    /// What keeps the objects of a cluster from being brought about, where something does.
    pub troubles: BTreeMap<Key, Trouble>,
    /// The same for links.
    pub link_troubles: BTreeMap<Key, Trouble>,
    /// Why nodes still run what an earlier version of us made them run, where that is meant to be.
    pub waits: BTreeMap<Key, String>,
    /// What each cluster ran before: stays in force where the new spec is refused.
    pub running: BTreeMap<Key, Sealed>,
    /// [`super::Plan::minted`] of the last plan.
    pub minted: Minted,
}

/// What keeps an object from being brought about, or a node from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened, in a sentence without its full stop.
    pub message: String,
    /// Whether it was looked at and refused for what it is: trying again changes nothing, and a person has to.
    pub is_refused: bool,
}

impl Trouble {
    /// As a condition: what does not hold, and what to do.
    pub(super) fn state(&self) -> State {
        match self.is_refused {
            true => State::no(
                "ApplyRefused",
                format!(
                    "{}; correct the part of the spec that it follows from, or delete the object if somebody sealed or changed it",
                    self.message
                ),
            ),
            false => State::no("ApplyFailed", &self.message),
        }
    }
}

/// What is there and cannot be read.
#[derive(Clone, Debug, Default)]
pub struct Unreadable {
    /// Clusters that this version does not understand.
    pub clusters: BTreeSet<Key>,
    /// Links that it does not understand.
    pub links: BTreeSet<Key>,
    /// Namespaces that must not be read.
    pub namespaces: BTreeSet<String>,
}

impl Unreadable {
    /// Whether a cluster may be there.
    pub(super) fn has_cluster(&self, key: &Key) -> bool {
        self.clusters.contains(key) || self.namespaces.contains(&key.namespace)
    }
}

impl World {
    /// Whether clusters of a namespace are known, if it has any.
    pub(super) fn operates(&self, namespace: &str) -> bool {
        self.operated.as_ref().is_none_or(|names| names.contains(namespace))
            && !self.unreadable.namespaces.contains(namespace)
    }

    /// Puts a Secret in, in the place of one of the same name.
    pub fn put_secret(&mut self, secret: Secret) {
        self.secrets.insert(secret.key(), secret);
    }
}

/// Settings that do not change any more, with their hash. Those of a plan that are what ran before are the same in memory:
/// what was made of them need not be made again.
#[derive(Clone, Debug, PartialEq)]
pub struct Sealed {
    /// The settings.
    pub settings: Arc<Settings>,
    /// [`Settings::hash`] of them.
    pub hash: Arc<str>,
}

impl Sealed {
    /// Seals settings.
    pub fn new(settings: Settings) -> Sealed {
        Sealed { hash: settings.hash().into(), settings: Arc::new(settings) }
    }

    /// Whether these are the same in memory.
    pub fn is(&self, other: &Sealed) -> bool {
        Arc::ptr_eq(&self.settings, &other.settings)
    }
}

impl Deref for Sealed {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

/// Namespace and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// The namespace of manifests that name none.
    pub const DEFAULT_NAMESPACE: &str = "default";

    /// A key of its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of(object: &impl Resource) -> Key {
        let meta = object.meta();
        Key {
            namespace: meta.namespace.clone().unwrap_or_else(|| Key::DEFAULT_NAMESPACE.to_owned()),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for Key {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Key, Self::Error> {
        let (namespace, name) = text.split_once('/').ok_or("must be namespace/name")?;
        Ok(Key::new(namespace, name))
    }
}

/// A Secret, decoded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its values.
    pub data: BTreeMap<String, Vec<u8>>,
    /// What is known of its certificate and key.
    pub pair: Pair,
}

impl Secret {
    /// Its namespace and name.
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.data.keys().collect();
        f.debug_struct("Secret")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("keys", &keys)
            .finish()
    }
}

/// Where a cluster runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The address that listeners bind.
    pub bind: String,
    /// Ports of listeners, by name, where they differ from the spec's.
    pub listener_ports: BTreeMap<String, u16>,
    /// Where clients reach each listener, by name, host:port.
    pub listener_addresses: BTreeMap<String, String>,
    /// Port of the link listener where it differs from the spec's.
    pub link_port: Option<u16>,
    /// Where peers dial the link listener, host:port; wins over the spec's `advertisedAddress`.
    pub link_address: Option<String>,
    /// Whether its nodes are managed over the network: then both sides get certificates for that.
    pub admin: bool,
    /// The Services that its spec asks for, by name.
    pub services: BTreeMap<String, Service>,
    /// Ports that its nodes need for something else, and for what.
    pub reserved_ports: Vec<(i32, &'static str)>,
    /// Names of the nodes that there should be.
    pub nodes: Vec<String>,
    /// By what the pods of these nodes are found, where nodes are pods.
    pub selector: Option<String>,
    /// Whether there is what makes its pods.
    pub has_set: bool,
}

/// A Service that a spec asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The field that asks for it.
    pub field: String,
    /// Whether the cluster has it.
    pub is_there: bool,
}

/// What is known of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// Its last report, if it ever gave one.
    pub report: Option<Arc<NodeReport>>,
    /// Since when nothing was heard of it.
    pub age: Duration,
    /// Why it does not run, where that is known.
    pub trouble: Option<Trouble>,
    /// Why it is not ready, where somebody else than itself says so.
    pub pending: Option<String>,
    /// Whether it may run all the same, as who says so does not know.
    pub is_lost: bool,
    /// Why it could not be asked when that was last tried.
    pub unreachable: Option<String>,
    /// What became of the settings that it was last given.
    pub pushed: Option<Pushed>,
}

/// Settings that a node was given while it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Their hash.
    pub settings_hash: String,
    /// The hash by which the node calls them, which differs where it does not know every field; or why it did not take them.
    pub outcome: Result<String, String>,
}
