//! What to write: the plan for the picture, and what differs from it. Synchronous, and pure but for what it remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde::Serialize;
use serde_json::{Value, json};

use super::build::{self, APPLIED, Kind, Object, ObjectId, Owner, link_secret, settings_secrets};
use super::events::News;
use super::ledger::{End, FIGHT, Ledger, Part};
use super::nodes::{Heard, NODES_MAX, NodeId, Order, Rendering};
use super::picture::{self, Found, Picture, Weight};
use super::rollout::{self, Step};
use super::turn::{Dips, Turn};
use super::watch::Source;
use super::write::{Before, Ended, Write, WriteError};
use crate::admin::Pass;
use crate::api::API_VERSION;
use crate::api::conditions::{self, ACCEPTED, RESOLVED_REFS};
use crate::plan::{self, Key, MintedCluster, NodeView, Plan, Random, Sealed, Trouble, World};

/// Decides, and remembers what was decided.
#[derive(Debug)]
pub(super) struct Decider {
    pub(super) picture: Picture,
    pub(super) ledger: Ledger,
    /// What should be there, by the last decision.
    wanted: Wanted,
    /// Why an object cannot be written, for those where that goes on.
    troubles: BTreeMap<ObjectId, (Owner, Trouble)>,
    /// Clusters that wait for others before they take over what is new in us.
    waits: BTreeMap<Key, String>,
    image: String,
    pub(super) heard: Heard,
    /// What is to be done with each node that can be reached.
    pub(super) orders: BTreeMap<NodeId, Order>,
    dips: Dips,
    /// Until when statuses wait for nodes that have not been heard by this operator, once it decides at all.
    acquaint_until: Option<Instant>,
    /// Since when there is a [`CROWD`].
    crowded_since: Option<Instant>,
}

/// How long statuses wait for the first word of nodes: an operator that starts over what another one left does not know yet
/// what is true, and what is written there is the best that anybody knows.
const ACQUAINT_MAX: Duration = Duration::from_secs(3);

/// While more objects than these are being written, statuses wait: they would be old before it was their turn.
const CROWD: usize = 64;
/// But for no longer than this: a crowd that stands still must not make what is said of others old.
const CROWD_MAX: Duration = Duration::from_secs(10);

/// From so many failures in a row on, one is worth a condition; before, the next try is likely to do.
const FAILURES: u32 = 3;

/// What should be there.
#[derive(Debug, Default)]
struct Wanted {
    objects: BTreeMap<ObjectId, Object>,
    /// The uids of owners whose children stay as they are, wanted or not.
    frozen: BTreeSet<String>,
}

impl Decider {
    /// Decides on a picture; `image` is that of clusters that name none.
    pub(super) fn new(picture: Picture, image: String) -> Decider {
        Decider {
            picture,
            ledger: Ledger::default(),
            wanted: Wanted::default(),
            troubles: BTreeMap::new(),
            waits: BTreeMap::new(),
            image,
            heard: Heard::default(),
            orders: BTreeMap::new(),
            dips: Dips::default(),
            acquaint_until: None,
            crowded_since: None,
        }
    }

    /// Takes in what a watch saw.
    pub(super) fn see(&mut self, source: &Source, event: Event<DynamicObject>) -> Weight {
        let id = match &event {
            Event::Init | Event::InitDone => {
                self.ledger.listed(source);
                None
            }
            Event::Delete(object) => {
                self.ledger.gone(&picture::id(source.kind, object));
                None
            }
            Event::Apply(object) | Event::InitApply(object) => Some(picture::id(source.kind, object)),
        };
        let weight = self.picture.see(source, event);
        id.iter().for_each(|id| self.share(id));
        weight
    }

    /// What is as it should be is not kept twice.
    fn share(&mut self, id: &ObjectId) {
        if let Some(wanted) = self.wanted.objects.get(id) {
            self.picture.has(wanted);
        }
    }

    /// Makes the plan for what is known; returns the writes that bring it about.
    pub(super) fn decide(&mut self, now: Timestamp, instant: Instant, random: Random<'_>) -> Vec<Write> {
        let mut plan = self.planned(now, instant, &mut *random);
        let waits = self.waits();
        if self.forget_troubles() | (waits != self.waits) {
            self.waits = waits;
            plan = self.planned(now, instant, random);
        }
        self.give_orders(&plan);
        let wanted = std::mem::take(&mut self.wanted);
        let mut writes = self.differing(&wanted, instant);
        writes.extend(self.needless(&wanted, instant));
        if self.knows_enough(instant) && !self.is_crowded(instant) {
            writes.extend(self.statuses(&plan, instant));
        }
        let picture = &self.picture;
        self.ledger.retain(|id| match id.kind {
            Kind::MqttCluster => picture.clusters.contains_key(&Key::new(&id.namespace, &id.name)),
            Kind::ClusterLink => picture.links.contains_key(&Key::new(&id.namespace, &id.name)),
            _ => picture.children.contains_key(id) || wanted.objects.contains_key(id),
        });
        self.wanted = wanted;
        writes
    }

    /// The plan for what is known; what follows from it should be there.
    fn planned(&mut self, now: Timestamp, instant: Instant, random: Random<'_>) -> Plan {
        let reports = self.reports(instant);
        let mut world = self.picture.world();
        world.troubles = self.troubles_of(false);
        world.link_troubles = self.troubles_of(true);
        world.reports = reports;
        world.waits.clone_from(&self.waits);
        let mut plan = plan::plan(&world, now, random);
        self.picture.remember(&mut world, &mut plan);
        self.wanted = self.wanted(&world, &plan);
        plan
    }

    /// Takes in how a write ended.
    pub(super) fn ended(&mut self, ended: Ended, now: Instant) -> Weight {
        let Ended { id, part, owner, done, .. } = ended;
        let end = match &done {
            Ok(stored) => End::Done(stored.as_ref().and_then(|it| it.metadata.resource_version.as_deref())),
            Err(WriteError::Refused(..)) => End::Refused,
            Err(_) => End::Failed,
        };
        let is_refused = end == End::Refused;
        let outcome = self.ledger.ended(&id, part, end, now);
        // Somebody put another one in the place of an invitation that was deleted.
        if matches!(&done, Err(WriteError::Taken(..))) && self.picture.has_lost(&id) {
            self.picture.revoke(&id);
        }
        match (done, owner) {
            // Nobody is left to read it.
            (Err(WriteError::Leaving(_)), _) => Weight::Later,
            (Err(WriteError::Gone(_)), _) => {
                self.picture.revoke(&id);
                Weight::Later
            }
            (Err(error), Some(owner)) if outcome.failures >= FAILURES || is_refused => {
                let trouble = Trouble { message: error.to_string(), is_refused };
                self.troubles.insert(id, (owner, trouble));
                Weight::Later
            }
            (Err(_), _) => Weight::Later,
            (Ok(stored), _) => {
                self.troubles.remove(&id);
                let stored = stored.filter(|_| outcome.is_current);
                let learnt = stored.map(|stored| self.picture.learn(id.clone(), stored));
                self.share(&id);
                learnt.filter(|weight| *weight == Weight::Now).unwrap_or(Weight::Later)
            }
        }
    }

    /// When to decide again although nobody tells anything: a write may be tried again then.
    pub(super) fn next(&mut self, now: Instant) -> Option<Instant> {
        let acquainted = self.acquaint_until.filter(|until| *until > now);
        let crowded = self.crowded_since.map(|since| since + CROWD_MAX).filter(|until| *until > now);
        self.ledger.next(now).into_iter().chain(acquainted).chain(crowded).chain(self.dips.next(now)).min()
    }

    /// Whether statuses wait until more objects are written.
    fn is_crowded(&mut self, now: Instant) -> bool {
        let is_crowd = self.ledger.objects_under_way() > CROWD;
        self.crowded_since = is_crowd.then(|| self.crowded_since.unwrap_or(now));
        self.crowded_since.is_some_and(|since| now < since + CROWD_MAX)
    }

    fn knows_enough(&mut self, now: Instant) -> bool {
        let until = *self.acquaint_until.get_or_insert(now + ACQUAINT_MAX);
        if self.heard.is_acquainted() && until > now {
            self.acquaint_until = Some(now);
        }
        self.acquaint_until <= Some(now)
    }

    fn reports(&self, now: Instant) -> BTreeMap<Key, BTreeMap<String, NodeView>> {
        let mut reports: BTreeMap<Key, BTreeMap<String, NodeView>> = BTreeMap::new();
        for (id, pod) in self.picture.pods() {
            let view = self.heard.view(&id, pod, now);
            reports.entry(id.cluster).or_default().insert(id.node, view);
        }
        reports
    }

    /// Orders for every pod that has an address, ready or not.
    fn give_orders(&mut self, plan: &Plan) {
        let mut orders = BTreeMap::new();
        let mut renderings: BTreeMap<&Key, Arc<Rendering>> = BTreeMap::new();
        for (id, pod) in self.picture.pods() {
            let Some(address) = pod.admin else { continue };
            let Some((key, settings)) = plan.settings.get_key_value(&id.cluster) else { continue };
            let Some(pass) = self.picture.minted.clusters.get(key).and_then(pass) else { continue };
            let last = self.orders.get(&id);
            let rendering = renderings.entry(key).or_insert_with(|| rendering(settings, last));
            let pass = match last {
                Some(last) if *last.pass == pass => Arc::clone(&last.pass),
                _ => Arc::new(pass),
            };
            orders.insert(id, Order { address, pass, rendering: Arc::clone(rendering) });
            if orders.len() == NODES_MAX {
                tracing::error!(
                    NODES_MAX,
                    "there are more pods than an operator follows; run one for each part of the namespaces"
                );
                break;
            }
        }
        self.heard.expect(&orders.iter().map(|(id, order)| (id.clone(), order.rendering.links)).collect());
        self.orders = orders;
    }

    /// The first trouble of each link, or of each cluster.
    fn troubles_of(&self, links: bool) -> BTreeMap<Key, Trouble> {
        let mut first = BTreeMap::new();
        for (owner, trouble) in self.troubles.values().filter(|(owner, _)| owner.is_link == links) {
            first.entry(owner.key.clone()).or_insert_with(|| trouble.clone());
        }
        first
    }

    /// Forgets troubles with what nobody wants any more, or is there as it should be; whether there were any.
    fn forget_troubles(&mut self) -> bool {
        let (before, wanted, picture) = (self.troubles.len(), &self.wanted.objects, &mut self.picture);
        self.troubles.retain(|id, _| wanted.get(id).is_some_and(|object| !picture.has(object)));
        self.troubles.len() != before
    }

    /// The upgrades that have to wait, also for a cluster that cannot be read.
    fn waits(&self) -> BTreeMap<Key, String> {
        let wanted = |key: &Key| {
            let Key { namespace, name } = key.clone();
            let id = ObjectId { kind: Kind::StatefulSet, namespace, name };
            self.wanted.objects.get(&id).map(|object| &*object.body)
        };
        let mut unreadable = self.picture.unreadable().clusters;
        unreadable.retain(|key| !self.picture.is_barred(&key.namespace));
        let clusters = self.picture.clusters().map(|(key, _)| key).chain(&unreadable);
        rollout::waits(clusters.filter_map(|key| Some((key, wanted(key), self.picture.stateful_set(key)?))))
    }

    /// What should be there; the large objects are those of the last decision where nothing in them has changed.
    fn wanted(&self, world: &World, plan: &Plan) -> Wanted {
        let mut wanted = Wanted { frozen: self.picture.untouched().cloned().collect(), ..Wanted::default() };
        let minted = &self.picture.minted;
        for (key, cluster) in self.picture.clusters() {
            let own = minted.clusters.get(key).map(|own| build::build_minted_cluster(cluster, own));
            wanted.add(own.into_iter().flatten());
            let Some(settings) = plan.settings.get(key) else {
                wanted.frozen.extend(uid(cluster));
                continue;
            };
            let is_same = world.running.get(key).is_some_and(|running| running.is(settings));
            let kept = is_same.then(|| self.wanted.secrets_of(cluster, settings_secrets(&key.name)));
            wanted.add(kept.flatten().unwrap_or_else(|| build::build_settings(cluster, settings)));
            match is_followed(plan.clusters.get(key).and_then(|status| status.conditions.as_deref())) {
                true => wanted.add(build::build_cluster(cluster, &self.image)),
                false => wanted.frozen.extend(uid(cluster)),
            }
        }
        for (key, link) in self.picture.links() {
            // An invitation that is deleted is revoked: a link that is in trouble for a moment must not cost it.
            if !is_followed(plan.links.get(key).and_then(|status| status.conditions.as_deref())) {
                wanted.frozen.extend(uid(link));
            }
            let invitation = plan.invitations.get(key);
            wanted.add(invitation.map(|invitation| build::build_invitation(link, invitation)));
            let Some(own) = minted.links.get(key) else { continue };
            let is_same = world.minted.links.get(key) == Some(own);
            let kept = is_same.then(|| self.wanted.secrets_of(link, [link_secret(&key.name)]));
            wanted.add(kept.flatten().unwrap_or_else(|| vec![build::build_minted_link(link, own)]));
        }
        wanted
    }

    fn differing(&mut self, wanted: &Wanted, now: Instant) -> Vec<Write> {
        let mut writes = Vec::new();
        for (id, object) in &wanted.objects {
            if self.picture.has(object) {
                continue;
            }
            let found = self.picture.children.get(id);
            let other = found.and_then(|found| found.owner.as_ref()).filter(|own| **own != object.owner.uid);
            let step = match id.kind {
                Kind::StatefulSet => rollout::step(&object.body, found),
                _ => Step::Quiet,
            };
            // What another one has no use for goes first; what waits, waits.
            let is_swept = other.is_some_and(|owner| !wanted.frozen.contains(owner));
            let is_held = step == Step::Upgrade && self.waits.contains_key(&object.owner.key);
            if is_swept || is_held {
                continue;
            }
            let version = found.map(|found| found.version.as_str());
            if let Some(repairs) = self.ledger.begins(id, Part::Object, &object.body, version, now) {
                let before = match version.filter(|_| other.is_none()) {
                    Some(version) => Before::Seen(version.to_owned()),
                    None if self.picture.has_lost(id) => Before::Lost,
                    None => Before::New,
                };
                let news = self.news(object, step, found, repairs);
                let mut object = object.clone();
                if id.kind == Kind::StatefulSet {
                    rollout::note_cause(Arc::make_mut(&mut object.body), step, found);
                }
                writes.push(Write::Apply { object, before, news });
            }
        }
        writes
    }

    /// What a write of an object tells to people.
    fn news(&self, object: &Object, step: Step, found: Option<&Found>, repairs: u32) -> Option<News> {
        let Owner { is_link, key, .. } = &object.owner;
        let tell = |reason: &str, action: &'static str, note: String| match is_link {
            true => Some(News::good(self.picture.links.get(key)?, reason, action, note)),
            false => Some(News::good(self.picture.clusters.get(key)?, reason, action, note)),
        };
        let applied = |body: &Value| body["metadata"]["annotations"][APPLIED].clone();
        let image = &object.body["spec"]["template"]["spec"]["containers"][0]["image"];
        let image = image.as_str().unwrap_or_default();
        match (object.id.kind, step, found) {
            _ if repairs >= FIGHT => {
                let who = found.map_or("", |found| found.other.as_deref().unwrap_or("somebody else"));
                let what = if found.is_some() {
                    format!("changed again and again by {who}")
                } else {
                    "deleted again and again".to_owned()
                };
                let note =
                    format!("{} is {what}. It is put back, but ever later: let one of us go.", object.id);
                tell("DriftRepeats", "Repair", note).map(News::warning)
            }
            (_, _, Some(found)) if applied(&found.body) == applied(&object.body) => {
                let who = found.other.as_deref().unwrap_or("somebody else");
                let note = format!("{} was changed by {who}, and was put back.", object.id);
                tell("DriftRepaired", "Repair", note)
            }
            (Kind::StatefulSet, _, None) => {
                tell("Created", "Create", format!("The nodes start with image {image}."))
            }
            (Kind::StatefulSet, Step::Asked, _) => {
                let note = format!("The nodes restart with image {image}, because the spec has changed.");
                tell("Restarting", "Update", note)
            }
            (Kind::StatefulSet, Step::Upgrade, _) => {
                let note = format!("The nodes restart with image {image}, which is this operator's version.");
                tell("Upgrading", "Update", note)
            }
            _ => None,
        }
    }

    /// What nothing wants any more: its owner is gone, or has no use for it. What has no owner of ours is not ours to delete,
    /// whatever its labels say.
    fn needless(&mut self, wanted: &Wanted, now: Instant) -> Vec<Write> {
        let mut writes = Vec::new();
        for (id, found) in &self.picture.children {
            let Some(owner) = &found.owner else { continue };
            let is_wanted = wanted.objects.get(id).is_some_and(|object| object.owner.uid == *owner);
            if is_wanted || wanted.frozen.contains(owner) || self.picture.is_barred(&id.namespace) {
                continue;
            }
            if self.ledger.begins(id, Part::Object, &Value::Null, Some(&found.version), now).is_some() {
                writes.push(Write::Delete { id: id.clone(), uid: found.uid.clone() });
            }
        }
        writes
    }

    /// What is being listed may be seen as it was before it was written last.
    fn is_listing(&self, kind: Kind, key: &Key) -> bool {
        let id = ObjectId { kind, namespace: key.namespace.clone(), name: key.name.clone() };
        self.picture.is_listing(&id)
    }

    fn statuses(&mut self, plan: &Plan, now: Instant) -> Vec<Write> {
        let mut writes = Vec::new();
        for (key, cluster) in self.picture.clusters() {
            let (before, Some(status)) = (cluster.status.as_ref(), plan.clusters.get(key)) else { continue };
            let conditions = before.and_then(|before| before.conditions.as_deref());
            let turn = Turn { object: cluster, before: conditions, after: status.conditions.as_deref() };
            if before != Some(status)
                && !self.is_listing(Kind::MqttCluster, key)
                && !self.dips.hold(Kind::MqttCluster, &turn, now)
            {
                writes.extend(publish(&mut self.ledger, Kind::MqttCluster, &turn, status, now));
            }
        }
        for (key, link) in self.picture.links() {
            let (before, Some(status)) = (link.status.as_ref(), plan.links.get(key)) else { continue };
            let conditions = before.and_then(|before| before.conditions.as_deref());
            let turn = Turn { object: link, before: conditions, after: status.conditions.as_deref() };
            if before != Some(status)
                && !self.is_listing(Kind::ClusterLink, key)
                && !self.dips.hold(Kind::ClusterLink, &turn, now)
            {
                writes.extend(publish(&mut self.ledger, Kind::ClusterLink, &turn, status, now));
            }
        }
        self.dips.forget_others(now);
        writes
    }
}

/// What opens the admin ports of a cluster's nodes.
fn pass(minted: &MintedCluster) -> Option<Pass> {
    let leaf = minted.admin_client.as_ref()?;
    Some(Pass {
        ca_pem: minted.authorities.bundle_pem(),
        certificate_pem: leaf.certificate_pem.clone(),
        key_pem: leaf.key_pem.clone(),
    })
}

/// Settings ready to be sent; those of before, where nothing changed.
fn rendering(settings: &Sealed, last: Option<&Order>) -> Arc<Rendering> {
    if let Some(last) = last.filter(|last| last.rendering.hash == *settings.hash) {
        return Arc::clone(&last.rendering);
    }
    let json = serde_json::to_vec(&*settings.settings).expect("settings are plain data").into();
    Arc::new(Rendering { hash: settings.hash.to_string(), json, links: settings.links.len() })
}

impl Wanted {
    fn add(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.objects.extend(objects.into_iter().map(|object| (object.id.clone(), object)));
    }

    /// Secrets of an object, if they are all here.
    fn secrets_of<const N: usize>(&self, owner: &impl Resource, names: [String; N]) -> Option<Vec<Object>> {
        let namespace = Key::of(owner).namespace;
        let secret = |name| {
            let id = ObjectId { kind: Kind::Secret, namespace: namespace.clone(), name };
            self.objects
                .get(&id)
                .filter(|object| Some(&object.owner.uid) == owner.meta().uid.as_ref())
                .cloned()
        };
        names.into_iter().map(secret).collect()
    }
}

fn publish(
    ledger: &mut Ledger,
    kind: Kind,
    turn: &Turn<'_, impl Resource<DynamicType = ()>>,
    status: &impl Serialize,
    now: Instant,
) -> Option<Write> {
    let meta = turn.object.meta();
    let Key { namespace, name } = Key::of(turn.object);
    let body = json!({
        "apiVersion": API_VERSION, "kind": format!("{kind:?}"), "status": status,
        "metadata": {"name": name, "namespace": namespace, "uid": meta.uid},
    });
    let id = ObjectId { kind, namespace, name };
    ledger.begins(&id, Part::Status, &body, meta.resource_version.as_deref(), now)?;
    Some(Write::Status { id, body, news: turn.news() })
}

/// Whether what runs follows the spec. Else nodes listen where they did, and nobody may be led elsewhere.
fn is_followed(conditions: Option<&[Condition]>) -> bool {
    [ACCEPTED, RESOLVED_REFS]
        .iter()
        .all(|it| conditions::find(conditions, it).is_some_and(|it| it.status == "True"))
}

fn uid<K: Resource>(object: &K) -> Option<String> {
    object.meta().uid.clone()
}
