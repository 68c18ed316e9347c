//! A server as far as decisions need one: writes land in a map, and the map is what the watches see, at once or later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use crate::operator::build::{Kind, ObjectId, Owner};
use crate::operator::decide::Decider;
use crate::operator::ledger::Part;
use crate::operator::picture::{Picture, Weight};
use crate::operator::watch::{Scope, Source, sources};
use crate::operator::write::{Before, Ended, Write, WriteError};
use crate::plan::Key;

/// An API server as far as decisions need one, and an operator.
pub(super) struct World {
    pub(super) objects: BTreeMap<ObjectId, Value>,
    pub(super) decider: Decider,
    image: String,
    pub(super) now: Instant,
    version: u64,
    random: u64,
    /// Reasons of what was told, with the name of the object.
    told: Vec<String>,
    /// The kinds of which the watches lag, and what they will show.
    lagging: Vec<Kind>,
    late: Vec<(Source, Event<DynamicObject>)>,
    start: Instant,
}

pub(super) fn id(kind: Kind, name: &str) -> ObjectId {
    ObjectId { kind, namespace: "mqtt".to_owned(), name: name.to_owned() }
}

pub(super) fn source(kind: Kind) -> Source {
    Source { kind, namespace: None }
}

fn new_decider(image: &str) -> Decider {
    Decider::new(Picture::new(&sources(&Scope::All)), image.to_owned())
}

impl World {
    pub(super) fn new() -> World {
        World::of(BTreeMap::new())
    }

    /// A world in which there is something before the operator comes.
    pub(super) fn of(objects: BTreeMap<ObjectId, Value>) -> World {
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str()?.parse().ok();
        let version = objects.values().filter_map(version).max().unwrap_or_default();
        let mut world = World {
            objects,
            decider: new_decider(""),
            image: "example.org/mqlink:1".to_owned(),
            now: Instant::now(),
            version,
            random: 0x9e37_79b9_7f4a_7c15,
            told: Vec::new(),
            lagging: Vec::new(),
            late: Vec::new(),
            start: Instant::now(),
        };
        world.restart();
        world
    }

    /// An operator that knows nothing sees everything there is.
    pub(super) fn restart(&mut self) {
        self.decider = new_decider(&self.image);
        for source in sources(&Scope::All) {
            self.decider.picture.see(&source, Event::Init);
            for (_, object) in self.objects.iter().filter(|(id, _)| id.kind == source.kind) {
                let mut object: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
                // In a list, the server says once of what kind all are.
                object.types = None;
                self.decider.picture.see(&source, Event::InitApply(object));
            }
            self.decider.picture.see(&source, Event::InitDone);
        }
    }

    pub(super) fn put(&mut self, id: ObjectId, mut object: Value) {
        self.version += 1;
        let uid = match self.objects.get(&id) {
            Some(before) => before["metadata"]["uid"].clone(),
            None => json!(format!("uid-{}", self.version)),
        };
        if id.kind == Kind::StatefulSet {
            let before = self.objects.get(&id);
            let generation = before.and_then(|before| before["metadata"]["generation"].as_i64()).unwrap_or(0);
            let is_new = before.is_none_or(|before| before["spec"] != object["spec"]);
            object["metadata"]["generation"] = json!(generation + i64::from(is_new));
        }
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(id.clone(), object.clone());
        let object = serde_json::from_value(object).expect("an object");
        self.show(id.kind, Event::Apply(object));
    }

    pub(super) fn delete(&mut self, id: &ObjectId) {
        let mut object = self.objects.remove(id).unwrap_or_else(|| panic!("there is no {id}"));
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = serde_json::from_value(object).expect("an object");
        self.show(id.kind, Event::Delete(object));
    }

    /// Somebody takes the label by which we watch: that looks as if it was deleted.
    pub(super) fn unlabel(&mut self, id: &ObjectId) {
        self.version += 1;
        let object = self.objects.get_mut(id).unwrap_or_else(|| panic!("there is no {id}"));
        let before = object.clone();
        object["metadata"]["labels"] = json!({});
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let mut shown: DynamicObject = serde_json::from_value(before).expect("an object");
        shown.metadata.resource_version = Some(self.version.to_string());
        self.show(id.kind, Event::Delete(shown));
    }

    fn show(&mut self, kind: Kind, event: Event<DynamicObject>) {
        if self.lagging.contains(&kind) {
            self.late.push((source(kind), event));
        } else {
            self.decider.see(&source(kind), event);
        }
    }

    /// From now on the watches of some kinds lag.
    pub(super) fn lag(&mut self, kinds: &[Kind]) {
        self.lagging = kinds.to_vec();
    }

    /// The watches catch up; what each event means to decisions.
    pub(super) fn catch_up(&mut self) -> Vec<Weight> {
        self.lagging.clear();
        let late = std::mem::take(&mut self.late);
        late.into_iter().map(|(source, event)| self.decider.see(&source, event)).collect()
    }

    pub(super) fn change(&mut self, id: &ObjectId, change: impl FnOnce(&mut Value)) {
        let mut object = self.objects.get(id).unwrap_or_else(|| panic!("there is no {id}")).clone();
        change(&mut object);
        self.put(id.clone(), object);
    }

    pub(super) fn cluster(&mut self, name: &str) {
        self.own(Kind::MqttCluster, name, json!({}));
    }

    pub(super) fn link(&mut self, name: &str, from: &str, to: &str) {
        let remote = json!({"clusterRef": {"name": to}, "topics": ["#"]});
        self.own(
            Kind::ClusterLink,
            name,
            json!({"clusterRef": {"name": from}, "topics": ["#"], "remote": remote}),
        );
    }

    pub(super) fn own(&mut self, kind: Kind, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "mqlink.dev/v1alpha1", "kind": format!("{kind:?}"), "spec": spec,
            "metadata": {"name": name, "namespace": "mqtt", "generation": 1},
        });
        self.put(id(kind, name), object);
    }

    /// What is decided now.
    pub(super) fn decide(&mut self) -> Vec<Write> {
        let mut state = self.random;
        let mut random = |bytes: &mut [u8]| {
            for byte in bytes {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state.to_le_bytes()[3];
            }
        };
        self.now += Duration::from_secs(2);
        let passed = i64::try_from((self.now - self.start).as_secs()).expect("a short time");
        let now = Timestamp::from_second(1_800_000_000 + passed).expect("a time");
        let writes = self.decider.decide(now, self.now, &mut random);
        self.random = state;
        writes
    }

    pub(super) fn perform(&mut self, write: Write) {
        let id = write.id().clone();
        if let Write::Apply { news: Some(news), .. } | Write::Status { news: Some(news), .. } = &write {
            let sign = if news.is_warning { "!" } else { "" };
            self.told.push(format!("{} {sign}{}", news.about.name.clone().unwrap_or_default(), news.reason));
        }
        let part = match write {
            Write::Apply { before: Before::Lost, .. } if !self.objects.contains_key(&id) => {
                return self.end(id.clone(), Part::Object, Err(WriteError::Gone(id)));
            }
            Write::Apply { object, .. } => {
                let mut body = object.body.as_ref().clone();
                if let Some(status) = self.objects.get(&id).map(|before| before["status"].clone()) {
                    body["status"] = status;
                }
                self.put(id.clone(), body);
                Part::Object
            }
            Write::Status { body, .. } => {
                self.change(&id, |object| object["status"] = body["status"].clone());
                Part::Status
            }
            Write::Delete { .. } => {
                self.delete(&id);
                Part::Object
            }
        };
        self.end(id, part, Ok(()));
    }

    pub(super) fn end(&mut self, id: ObjectId, part: Part, done: Result<(), WriteError>) {
        let of =
            |is_link, name: &str| Some(Owner { is_link, key: Key::new("mqtt", name), uid: String::new() });
        let owner = match &*id.name {
            "mqlink-us-eu-link" => of(true, "us-eu"),
            name if name.contains("us-east") => of(false, "us-east"),
            _ => None,
        };
        let stored = self.objects.get(&id).cloned();
        let stored = stored.map(|stored| serde_json::from_value(stored).expect("an object"));
        self.decider.ended(Ended { id, part, owner, news: None, done: done.map(|()| stored) }, self.now);
    }

    /// What was told since this was asked last, sorted.
    pub(super) fn told(&mut self) -> Vec<String> {
        let mut told = std::mem::take(&mut self.told);
        told.sort();
        told
    }

    /// An operator of another version takes over.
    pub(super) fn upgrade(&mut self, image: &str) {
        self.image = image.to_owned();
        self.restart();
    }

    /// Kubernetes restarts the pods of a cluster; they come back, or do not.
    pub(super) fn roll(&mut self, cluster: &str, comes_back: bool) {
        self.change(&id(Kind::StatefulSet, cluster), |set| {
            let revision = set["spec"]["template"].to_string();
            let before = set["status"]["currentRevision"].as_str().unwrap_or_default().to_owned();
            set["status"] = json!({
                "observedGeneration": set["metadata"]["generation"],
                "currentRevision": if comes_back { revision.clone() } else { before },
                "updateRevision": revision,
                "readyReplicas": i32::from(comes_back),
            });
        });
    }

    pub(super) fn image_of(&self, cluster: &str) -> &str {
        let set = &self.objects[&id(Kind::StatefulSet, cluster)];
        set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
    }

    /// Lets time pass, and all writes of an object fail.
    pub(super) fn fail(&mut self, name: &str, times: usize) {
        for _ in 0..times {
            self.now += Duration::from_secs(60);
            for write in self.decide() {
                let id = write.id().clone();
                match id.name == name {
                    true => self.end(id.clone(), Part::Object, Err(WriteError::Taken(id, "Helm".to_owned()))),
                    false => self.perform(write),
                }
            }
        }
    }

    pub(super) fn condition(&self, cluster: &str, type_: &str) -> String {
        self.condition_of(Kind::MqttCluster, cluster, type_)
    }

    pub(super) fn condition_of(&self, kind: Kind, name: &str, type_: &str) -> String {
        let conditions = &self.objects[&id(kind, name)]["status"]["conditions"];
        let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == type_);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        found.map(|it| format!("{} {}", text(&it["reason"]), text(&it["message"]))).unwrap_or_default()
    }

    /// Decides and performs until there is nothing more to do; returns the number of writes.
    pub(super) fn settle(&mut self) -> usize {
        let mut count = 0;
        for _ in 0..10 {
            let writes = self.decide();
            if writes.is_empty() {
                return count;
            }
            count += writes.len();
            writes.into_iter().for_each(|write| self.perform(write));
        }
        panic!("it does not settle: {:?}", self.decide());
    }

    pub(super) fn children(&self) -> Vec<String> {
        let is_child = |id: &&ObjectId| Kind::CHILDREN.contains(&id.kind);
        self.objects.keys().filter(is_child).map(ToString::to_string).collect()
    }
}

pub(super) fn two_regions() -> World {
    let mut world = World::new();
    world.cluster("us-east");
    world.cluster("eu-west");
    world.link("us-eu", "us-east", "eu-west");
    world
}
