//! Everything that is known: what the watches saw, and what the last plan made.
//!
//! What was minted for an object, and what it ran, is read from the operator's own Secrets when the object is new to us; from
//! then on memory is the truth and the Secrets follow it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::build::{
    Kind, MANAGED_BY, MINTED, OWN, Object, ObjectId, link_secret, matches, minted_secret, settings_secrets,
};
use super::nodes::{NodeId, Pod};
use super::shelf::{Shelf, named_in};
use super::watch::Source;
use super::write::MANAGER;
use crate::api::{API_VERSION, ClusterLink, MqttCluster};
use crate::plan::{
    self, INVITATION, Key, Minted, MintedCredential, MintedLink, Plan, Sealed, Unreadable, World,
};
use crate::settings::{self, Pieces};

/// An object that the operator made, as it is.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) uid: String,
    /// The uid of the object of ours that it belongs to.
    pub(super) owner: Option<String>,
    pub(super) version: String,
    /// The field manager of somebody else that wrote to it last, if any did.
    pub(super) other: Option<String>,
    /// A Secret that is as it should be shares this with what it should be.
    pub(super) body: Arc<Value>,
}

/// What something new means to decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// It is known already, or was overtaken.
    Nothing,
    /// It follows from what was written: the next decision is soon enough that is made when no write waits.
    Later,
    /// Somebody wants something.
    Now,
}

/// Everything known.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) clusters: BTreeMap<Key, MqttCluster>,
    pub(super) links: BTreeMap<Key, ClusterLink>,
    /// Objects of our kinds, with their uid, that keep what they have: those that this version cannot read, and those that are
    /// being deleted, whose children are the garbage collector's to delete or to leave.
    untouched: BTreeMap<ObjectId, Untouched>,
    /// The Secrets that these name …
    pub(super) shelf: Shelf,
    /// … by the object that names them.
    named: BTreeMap<ObjectId, BTreeSet<String>>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) children: BTreeMap<ObjectId, Found>,
    /// Invitations that are seen no longer: deleted, or somebody took their label. Who writes them finds out.
    lost: BTreeSet<ObjectId>,
    /// By namespace and name.
    pods: BTreeMap<Key, Pod>,
    /// Of the objects that are in the picture: those of their names before them left nothing here.
    pub(super) minted: Minted,
    running: BTreeMap<Key, Sealed>,
    /// The lists that are being told, by source: what was in them so far.
    lists: BTreeMap<Source, BTreeSet<ObjectId>>,
    /// The sources that have not told their first list.
    awaited: BTreeSet<Source>,
    /// The namespaces that are watched; `None`: all.
    watched: Option<BTreeSet<String>>,
    /// Namespaces of these where a list is refused: left alone until it is not.
    barred: BTreeSet<String>,
}

/// An object that keeps what it has.
#[derive(Debug)]
struct Untouched {
    uid: String,
    is_going: bool,
}

impl Picture {
    /// A picture that is complete once all sources have told their list.
    pub(super) fn new(sources: &[Source]) -> Picture {
        let watched = sources.iter().map(|source| source.namespace.clone()).collect();
        Picture { awaited: sources.iter().cloned().collect(), watched, ..Picture::default() }
    }

    /// Whether every watch has told what there is.
    pub(super) fn is_listed(&self) -> bool {
        let is_barred =
            |source: &Source| source.namespace.as_ref().is_some_and(|namespace| self.is_barred(namespace));
        self.awaited.iter().all(is_barred)
    }

    /// A source has not told its first list, because it must not: its namespace is left alone, as no half of it is known.
    /// Whether that is news.
    pub(super) fn bar(&mut self, source: &Source) -> bool {
        match &source.namespace {
            Some(namespace) if self.awaited.contains(source) => self.barred.insert(namespace.clone()),
            _ => false,
        }
    }

    /// Whether a namespace is left alone.
    pub(super) fn is_barred(&self, namespace: &str) -> bool {
        self.barred.contains(namespace)
    }

    /// Whether enough is known for a decision.
    pub(super) fn is_complete(&self, now: Instant) -> bool {
        self.is_listed() && self.shelf.is_complete(now)
    }

    /// Tells the shelf which Secrets are named.
    pub(super) fn refer(&mut self, now: Instant) {
        let keys = |(id, names): (&ObjectId, &BTreeSet<String>)| {
            names.iter().map(|name| Key::new(&id.namespace, name)).collect::<Vec<_>>()
        };
        self.shelf.refer(self.named.iter().flat_map(keys).collect(), now);
    }

    /// Takes in what a watch saw. A list is right even where it is older than what was known: somebody may have gone back to
    /// a copy of the server's data.
    pub(super) fn see(&mut self, source: &Source, event: Event<DynamicObject>) -> Weight {
        match event {
            Event::Init => {
                self.lists.insert(source.clone(), BTreeSet::new());
                Weight::Nothing
            }
            Event::InitApply(object) => {
                let id = id(source.kind, &object);
                self.lists.entry(source.clone()).or_default().insert(id.clone());
                self.put(id, object);
                Weight::Nothing
            }
            Event::InitDone => {
                let told = self.lists.remove(source).unwrap_or_default();
                let is_gone = |id: &ObjectId| source.tells_of(id) && !told.contains(id);
                let gone: Vec<ObjectId> = self.ids().into_iter().filter(is_gone).collect();
                gone.iter().for_each(|id| self.forget(id));
                self.awaited.remove(source);
                if self.awaited.iter().all(|other| other.namespace != source.namespace)
                    && let Some(namespace) = &source.namespace
                {
                    self.barred.remove(namespace);
                }
                Weight::Now
            }
            Event::Apply(object) => self.renew(id(source.kind, &object), object),
            Event::Delete(object) => {
                let id = id(source.kind, &object);
                match self.version(&id) {
                    // It was made anew meanwhile.
                    Some(known) if is_before(&object, known) => return Weight::Nothing,
                    _ => self.forget(&id),
                }
                if Kind::CHILDREN.contains(&id.kind) { Weight::Later } else { Weight::Now }
            }
        }
    }

    /// Takes in what the server answered to a write, which a watch may show much later: an object that was written, or whose
    /// status was. While a list is told, that is what counts.
    pub(super) fn learn(&mut self, id: ObjectId, object: DynamicObject) -> Weight {
        let is_there = self.version(&id).is_some() || Kind::CHILDREN.contains(&id.kind);
        match is_there && !self.is_listing(&id) {
            true => self.renew(id, object),
            false => Weight::Nothing,
        }
    }

    /// Whether a list is being told that an object may be in.
    pub(super) fn is_listing(&self, id: &ObjectId) -> bool {
        self.lists.keys().any(|source| source.tells_of(id))
    }

    /// Takes in an object, unless what is known of it is as new.
    fn renew(&mut self, id: ObjectId, object: DynamicObject) -> Weight {
        let known = self.version(&id);
        if known.is_some_and(|known| {
            Some(known) == object.metadata.resource_version.as_deref() || is_before(&object, known)
        }) {
            return Weight::Nothing;
        }
        let before = self.wish(&id);
        self.put(id.clone(), object);
        let is_wish = before.is_none() || before != self.wish(&id);
        match id.kind {
            Kind::MqttCluster | Kind::ClusterLink if !is_wish => Weight::Later,
            kind if Kind::CHILDREN.contains(&kind) => Weight::Later,
            _ => Weight::Now,
        }
    }

    /// The version in which a cluster, a link or an object of ours is known.
    fn version(&self, id: &ObjectId) -> Option<&str> {
        match self.meta(id) {
            Some(meta) => meta.resource_version.as_deref(),
            None => self.children.get(id).map(|found| found.version.as_str()),
        }
    }

    /// The metadata of a cluster or link that can be read.
    fn meta(&self, id: &ObjectId) -> Option<&ObjectMeta> {
        let key = Key::new(&id.namespace, &id.name);
        match id.kind {
            Kind::MqttCluster => Some(&self.clusters.get(&key)?.metadata),
            Kind::ClusterLink => Some(&self.links.get(&key)?.metadata),
            _ => None,
        }
    }

    /// A cluster or link without what we write ourselves, told by its metadata.
    fn wish(&self, id: &ObjectId) -> Option<ObjectMeta> {
        let meta = self.meta(id)?;
        Some(ObjectMeta { resource_version: None, managed_fields: None, ..meta.clone() })
    }

    fn put(&mut self, id: ObjectId, object: DynamicObject) {
        if self.meta(&id).is_some_and(|known| known.uid != object.metadata.uid) {
            self.forget(&id);
        }
        // What is on its way out is gone already, for everything that is decided; but for a pod that nobody ends.
        let is_going = object.metadata.deletion_timestamp.is_some();
        if is_going && id.kind != Kind::Pod {
            self.drop(&id);
            if matches!(id.kind, Kind::MqttCluster | Kind::ClusterLink) {
                let uid = object.uid().unwrap_or_default();
                self.untouched.insert(id, Untouched { uid, is_going: true });
            }
            return;
        }
        let key = Key::new(&id.namespace, &id.name);
        match id.kind {
            Kind::MqttCluster => self.put_own(id, object, |picture, cluster| {
                picture.clusters.insert(key, cluster);
            }),
            Kind::ClusterLink => self.put_own(id, object, |picture, link| {
                picture.links.insert(key, link);
            }),
            Kind::AnySecret => self.shelf.saw(&key, object.resource_version().as_deref()),
            Kind::Namespace => {
                self.namespaces.insert(id.name, object.metadata.labels.unwrap_or_default());
            }
            Kind::Pod => match object.try_parse() {
                Ok(pod) => match Pod::of(&pod) {
                    pod if is_going && !pod.is_lost() => self.drop(&id),
                    pod => drop(self.pods.insert(key, pod)),
                },
                Err(error) => tracing::warn!(pod = %id, %error, "this pod cannot be read"),
            },
            _ if object.labels().get(MANAGED_BY).is_some_and(|by| by == OWN) => {
                self.lost.remove(&id);
                self.children.insert(id.clone(), found(id.kind, object));
            }
            _ => {}
        }
    }

    fn put_own<K: DeserializeOwned + kube::Resource>(
        &mut self,
        id: ObjectId,
        mut object: DynamicObject,
        insert: impl FnOnce(&mut Picture, K),
    ) {
        let uid = object.uid().unwrap_or_default();
        object.metadata.managed_fields = None;
        self.drop(&id);
        let named = named_in(&object.data["spec"]);
        match object.try_parse::<K>() {
            Ok(own) => {
                self.named.insert(id, named);
                insert(self, own);
            }
            Err(error) => {
                tracing::error!(object = %id, %error, "this object cannot be read and is left as it is");
                self.untouched.insert(id, Untouched { uid, is_going: false });
            }
        }
    }

    /// Drops an object with all that was its own: the next one of its name inherits nothing.
    fn forget(&mut self, id: &ObjectId) {
        let key = Key::new(&id.namespace, &id.name);
        match id.kind {
            Kind::MqttCluster => {
                self.minted.clusters.remove(&key);
                self.running.remove(&key);
            }
            Kind::ClusterLink => {
                self.minted.links.remove(&key);
                self.lost.remove(&invitation(&key));
            }
            _ => {}
        }
        self.drop(id);
    }

    fn drop(&mut self, id: &ObjectId) {
        let key = Key::new(&id.namespace, &id.name);
        match id.kind {
            Kind::MqttCluster => drop(self.clusters.remove(&key)),
            Kind::ClusterLink => drop(self.links.remove(&key)),
            Kind::Namespace => drop(self.namespaces.remove(&id.name)),
            Kind::AnySecret => self.shelf.saw(&key, None),
            Kind::Pod => drop(self.pods.remove(&key)),
            _ => {}
        }
        if self.children.remove(id).is_some() && self.invited(id).is_some() {
            self.lost.insert(id.clone());
        }
        self.named.remove(id);
        self.untouched.remove(id);
    }

    /// What a Secret invites to present, if it is an invitation.
    fn invited(&mut self, id: &ObjectId) -> Option<&mut MintedCredential> {
        let name = id.name.strip_suffix(INVITATION).filter(|_| id.kind == Kind::Secret)?;
        self.minted.links.get_mut(&Key::new(&id.namespace, name)).map(|minted| &mut minted.inward)
    }

    /// Whether an invitation was there, and is seen no longer.
    pub(super) fn has_lost(&self, id: &ObjectId) -> bool {
        self.lost.contains(id)
    }

    /// Whoever deletes an invitation wants it to open nothing any more.
    pub(super) fn revoke(&mut self, gone: &ObjectId) {
        self.lost.remove(gone);
        if let Some(inward) = self.invited(gone) {
            *inward = MintedCredential::default();
        }
    }

    /// Whether an object is there as it should be.
    pub(super) fn has(&mut self, wanted: &Object) -> bool {
        let Some(found) = self.children.get_mut(&wanted.id) else { return false };
        let has = Arc::ptr_eq(&wanted.body, &found.body) || matches(&wanted.body, &found.body);
        if has && wanted.id.kind == Kind::Secret {
            // All of it is ours, and large.
            found.body = Arc::clone(&wanted.body);
        }
        has
    }

    fn ids(&self) -> Vec<ObjectId> {
        let named = |kind: Kind, key: &Key| ObjectId {
            kind,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        };
        let namespace =
            |name: &String| ObjectId { kind: Kind::Namespace, namespace: String::new(), name: name.clone() };
        let clusters = self.clusters.keys().map(|key| named(Kind::MqttCluster, key));
        let links = self.links.keys().map(|key| named(Kind::ClusterLink, key));
        let secrets = self.shelf.keys().map(|key| named(Kind::AnySecret, key));
        let pods = self.pods.keys().map(|key| named(Kind::Pod, key));
        let others = self.children.keys().chain(self.untouched.keys()).cloned();
        clusters
            .chain(links)
            .chain(secrets)
            .chain(pods)
            .chain(self.namespaces.keys().map(namespace))
            .chain(others)
            .collect()
    }

    /// The uids of objects whose children stay as they are.
    pub(super) fn untouched(&self) -> impl Iterator<Item = &String> {
        self.untouched.values().map(|it| &it.uid)
    }

    /// What is there and cannot be read.
    pub(super) fn unreadable(&self) -> Unreadable {
        let of = |kind: Kind| {
            let there = self.untouched.iter().filter(move |(id, it)| id.kind == kind && !it.is_going);
            there.map(|(id, _)| Key::new(&id.namespace, &id.name)).collect()
        };
        Unreadable {
            clusters: of(Kind::MqttCluster),
            links: of(Kind::ClusterLink),
            namespaces: self.barred.clone(),
        }
    }

    /// The clusters that can be operated.
    pub(super) fn clusters(&self) -> impl Iterator<Item = (&Key, &MqttCluster)> {
        self.clusters.iter().filter(|(key, _)| !self.is_barred(&key.namespace))
    }

    /// The links that can be operated.
    pub(super) fn links(&self) -> impl Iterator<Item = (&Key, &ClusterLink)> {
        self.links.iter().filter(|(key, _)| !self.is_barred(&key.namespace))
    }

    /// What the next plan is made from. The clusters and links that can be operated move there: [`Picture::remember`] takes
    /// them back.
    pub(super) fn world(&mut self) -> World {
        self.restore();
        let placements = self.clusters().map(|(key, own)| (key.clone(), self.placement(key, own))).collect();
        let is_barred = |key: &Key| self.barred.contains(&key.namespace);
        let clusters = self.clusters.extract_if(.., |key, _| !is_barred(key)).map(|(_, own)| own).collect();
        let links = self.links.extract_if(.., |key, _| !is_barred(key)).map(|(_, own)| own).collect();
        World {
            placements,
            clusters,
            links,
            unreadable: self.unreadable(),
            secrets: self.shelf.secrets().into_iter().map(|secret| (secret.key(), secret)).collect(),
            unreadable_secrets: self.shelf.unreadable(),
            operated: self.watched.clone(),
            namespaces: self.namespaces.clone(),
            running: self.running.clone(),
            minted: std::mem::take(&mut self.minted),
            ..World::default()
        }
    }

    /// Takes back what was given, and what the next plan needs of this one.
    pub(super) fn remember(&mut self, world: &mut World, plan: &mut Plan) {
        self.clusters.extend(std::mem::take(&mut world.clusters).into_iter().map(|own| (Key::of(&own), own)));
        self.links.extend(std::mem::take(&mut world.links).into_iter().map(|own| (Key::of(&own), own)));
        self.minted = std::mem::take(&mut plan.minted);
        self.running = plan.settings.clone();
    }

    /// Reads what was minted for objects that are new to us, and what they ran: an operator before this one may have known
    /// them.
    fn restore(&mut self) {
        for (key, cluster) in &self.clusters {
            if !self.minted.clusters.contains_key(key)
                && let Some(minted) = self.read(cluster, minted_secret(&key.name), MINTED)
            {
                self.minted.clusters.insert(key.clone(), minted);
            }
            if !self.running.contains_key(key)
                && let Some(settings) = self.read_settings(cluster, &key.name)
            {
                self.running.insert(key.clone(), settings);
            }
        }
        for (key, link) in &self.links {
            if !self.minted.links.contains_key(key)
                && let Some(minted) = self.read::<MintedLink>(link, link_secret(&key.name), MINTED)
            {
                if self.lost_its_invitation(link) {
                    self.lost.insert(invitation(key));
                }
                self.minted.links.insert(key.clone(), minted);
            }
        }
    }

    /// Whether an invitation was lost while nobody watched: the link's status says that there was one.
    fn lost_its_invitation(&self, link: &ClusterLink) -> bool {
        let said = link.status.as_ref().and_then(|status| status.invitation.as_ref());
        said.is_some_and(|said| self.child_of(link, Kind::Secret, said.secret_name.clone()).is_none())
    }

    /// What a cluster's nodes run. An operator may have died between two of its Secrets: links of another rendering than the
    /// rest are left out, as each decision renders them anew; other mixtures are nothing that ever ran.
    fn read_settings(&self, owner: &MqttCluster, name: &str) -> Option<Sealed> {
        let [base, users, links] = settings_secrets(name);
        let [base_file, users_file, links_file] = Pieces::FILES;
        let base = self.file_in(owner, base, base_file)?;
        let users = self.file_in(owner, users, users_file)?;
        let links = self.file_in(owner, links, links_file);
        let merge = |base: &[u8], links: Option<&[u8]>| {
            let files = [(base_file, Some(base)), (users_file, Some(&users)), (links_file, links)];
            settings::merge(files.into_iter().filter_map(|(file, json)| Some((file.to_owned(), json?))))
        };
        let linked = merge(&base, links.as_deref());
        let merged = linked.ok().or_else(|| merge(&settings::without_links(&base)?, None).ok())?;
        serde_json::from_slice(&merged).ok().map(Sealed::new)
    }

    /// A file in a Secret of a cluster. What else somebody put there is none of ours.
    fn file_in(&self, owner: &MqttCluster, secret: String, file: &str) -> Option<Vec<u8>> {
        let found = self.child_of(owner, Kind::Secret, secret)?;
        STANDARD.decode(found.body["data"][file].as_str()?).ok()
    }

    fn child_of(&self, owner: &impl kube::Resource, kind: Kind, name: String) -> Option<&Found> {
        let meta = owner.meta();
        let id = ObjectId { kind, namespace: meta.namespace.clone()?, name };
        self.children.get(&id).filter(|found| found.owner == meta.uid)
    }

    /// The content of an object's Secret; nothing where it is lost, or was changed beyond recognition, or belonged to an
    /// object of the same name before this one.
    fn read<T: DeserializeOwned>(&self, owner: &impl kube::Resource, name: String, key: &str) -> Option<T> {
        let found = self.child_of(owner, Kind::Secret, name)?;
        let text = found.body["data"][key].as_str()?;
        serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()
    }

    /// The pods that the StatefulSets of clusters made, with the nodes in them.
    pub(super) fn pods(&self) -> impl Iterator<Item = (NodeId, &Pod)> {
        self.clusters.iter().flat_map(move |(key, cluster)| {
            let own = self.stateful_set(key).map(|found| &found.uid);
            self.node_names(key, cluster).into_iter().filter_map(move |node| {
                let pod = self.pods.get(&Key::new(&key.namespace, &node))?;
                let id = NodeId { cluster: key.clone(), node, uid: pod.uid.clone() };
                (pod.owner.is_some() && pod.owner.as_ref() == own).then_some((id, pod))
            })
        })
    }
}

/// Whether an object is older than what is known. Versions count up; what is no number is as new as can be.
fn is_before(object: &DynamicObject, known: &str) -> bool {
    let version = object.metadata.resource_version.as_deref().and_then(|version| version.parse::<u64>().ok());
    matches!((version, known.parse::<u64>()), (Some(version), Ok(known)) if version < known)
}

fn invitation(link: &Key) -> ObjectId {
    let (namespace, name) = (link.namespace.clone(), plan::invitation_name(&link.name));
    ObjectId { kind: Kind::Secret, namespace, name }
}

pub(super) fn id(kind: Kind, object: &DynamicObject) -> ObjectId {
    ObjectId { kind, namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// An object as it was seen. Objects in a list do not say of what kind they are: the list does.
fn found(kind: Kind, mut object: DynamicObject) -> Found {
    let others = object.metadata.managed_fields.take().unwrap_or_default();
    let others =
        others.into_iter().filter(|it| it.manager.as_deref() != Some(MANAGER) && it.subresource.is_none());
    let other = others.max_by(|one, two| one.time.cmp(&two.time)).and_then(|it| it.manager);
    let is_ours =
        |owner: &&OwnerReference| owner.controller == Some(true) && owner.api_version == API_VERSION;
    let owner = object.owner_references().iter().find(is_ours).map(|owner| owner.uid.clone());
    let resource = kind.resource();
    let mut body = object.data;
    body["apiVersion"] = Value::String(resource.api_version);
    body["kind"] = Value::String(resource.kind);
    body["metadata"] = serde_json::to_value(&object.metadata).expect("metadata is plain data");
    Found {
        uid: object.metadata.uid.unwrap_or_default(),
        owner,
        version: object.metadata.resource_version.unwrap_or_default(),
        other,
        body: Arc::new(body),
    }
}
