//! Decisions without a server: writes land in a map, and the map is what the watches see.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use crate::operator::build::{Kind, ObjectId};
use crate::operator::decide::Decider;
use crate::operator::ledger::Part;
use crate::operator::picture::Picture;
use crate::operator::watch::{Scope, Source, sources};
use crate::operator::write::{Ended, Write, WriteError};
use crate::plan::Key;

/// An API server as far as decisions need one, and an operator.
pub(super) struct World {
    pub(super) objects: BTreeMap<ObjectId, Value>,
    pub(super) decider: Decider,
    pub(super) now: Instant,
    version: u64,
    random: u64,
}

pub(super) fn id(kind: Kind, name: &str) -> ObjectId {
    ObjectId { kind, namespace: "mqtt".to_owned(), name: name.to_owned() }
}

fn source(kind: Kind) -> Source {
    Source { kind, namespace: None }
}

fn new_decider() -> Decider {
    Decider::new(Picture::new(&sources(&Scope::All)), "example.org/mqlink:1".to_owned())
}

impl World {
    fn new() -> World {
        let mut world = World {
            objects: BTreeMap::new(),
            decider: new_decider(),
            now: Instant::now(),
            version: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        world.restart();
        world
    }

    /// An operator that knows nothing sees everything there is.
    pub(super) fn restart(&mut self) {
        self.decider = new_decider();
        for source in sources(&Scope::All) {
            self.decider.picture.see(&source, Event::Init);
            for (_, object) in self.objects.iter().filter(|(id, _)| id.kind == source.kind) {
                let object = serde_json::from_value(object.clone()).expect("an object");
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
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(id.clone(), object.clone());
        let object = serde_json::from_value(object).expect("an object");
        self.decider.picture.see(&source(id.kind), Event::Apply(object));
        self.decider.ledger.seen(&id);
    }

    pub(super) fn delete(&mut self, id: &ObjectId) {
        let object = self.objects.remove(id).unwrap_or_else(|| panic!("there is no {id}"));
        let object = serde_json::from_value(object).expect("an object");
        self.decider.picture.see(&source(id.kind), Event::Delete(object));
        self.decider.ledger.seen(id);
    }

    pub(super) fn change(&mut self, id: &ObjectId, change: impl FnOnce(&mut Value)) {
        let mut object = self.objects.get(id).unwrap_or_else(|| panic!("there is no {id}")).clone();
        change(&mut object);
        self.put(id.clone(), object);
    }

    fn cluster(&mut self, name: &str) {
        self.own(Kind::MqttCluster, name, json!({}));
    }

    fn link(&mut self, name: &str, from: &str, to: &str) {
        let remote = json!({"clusterRef": {"name": to}, "topics": ["#"]});
        self.own(
            Kind::ClusterLink,
            name,
            json!({"clusterRef": {"name": from}, "topics": ["#"], "remote": remote}),
        );
    }

    fn own(&mut self, kind: Kind, name: &str, spec: Value) {
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
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let writes = self.decider.decide(now, self.now, &mut random);
        self.random = state;
        writes
    }

    pub(super) fn perform(&mut self, write: Write) {
        let id = write.id().clone();
        let part = match write {
            Write::Apply { object, .. } => {
                let mut body = object.body;
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

    fn end(&mut self, id: ObjectId, part: Part, done: Result<(), WriteError>) {
        let cluster = id.name.contains("us-east").then(|| Key::new("mqtt", "us-east"));
        self.decider.ended(Ended { id, part, cluster, done }, self.now);
    }

    /// Lets time pass, and all writes of an object fail.
    fn fail(&mut self, name: &str, times: usize) {
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

    fn condition(&self, cluster: &str, type_: &str) -> String {
        let conditions = &self.objects[&id(Kind::MqttCluster, cluster)]["status"]["conditions"];
        let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == type_);
        found.map(|it| format!("{} {}", it["reason"], it["message"])).unwrap_or_default()
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

    fn children(&self) -> Vec<String> {
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

#[test]
fn nothing_is_decided_before_every_watch_has_told_its_list() {
    let mut picture = Picture::new(&sources(&Scope::All));
    for source in sources(&Scope::All) {
        assert!(!picture.is_complete());
        picture.see(&source, Event::Init);
        assert!(!picture.is_complete());
        picture.see(&source, Event::InitDone);
    }
    assert!(picture.is_complete());
}

#[test]
fn what_is_settled_stays_settled() {
    let mut world = two_regions();
    assert!(world.settle() > 20);
    assert_eq!(world.settle(), 0);
    world.restart();
    assert_eq!(world.settle(), 0);
}

#[test]
fn an_operator_that_stops_anywhere_is_followed_by_one_that_finishes() {
    let mut whole = two_regions();
    let all = whole.settle();
    for done in 0..all {
        let mut world = two_regions();
        let mut left = done;
        while left > 0 {
            let writes = world.decide();
            assert!(!writes.is_empty(), "there are {all} writes");
            for write in writes.into_iter().take(left) {
                world.perform(write);
                left -= 1;
            }
        }
        world.restart();
        world.settle();
        assert_eq!(world.children(), whole.children(), "stopped after {done} writes");
    }
}

#[test]
fn credentials_outlive_the_operator() {
    let mut world = two_regions();
    world.settle();
    let link = id(Kind::Secret, "mqlink-us-eu-link");
    let before = world.objects[&link]["data"].clone();
    world.restart();
    world.own(Kind::MqttCluster, "us-east", json!({"image": "other"}));
    world.settle();
    assert_eq!(world.objects[&link]["data"], before);
}

#[test]
fn a_cluster_made_anew_does_not_inherit() {
    let mut world = two_regions();
    world.settle();
    let minted = id(Kind::Secret, "mqlink-us-east-minted");
    let before = world.objects[&minted]["data"].clone();
    world.delete(&id(Kind::MqttCluster, "us-east"));
    world.restart();
    world.cluster("us-east");
    world.settle();
    assert_ne!(world.objects[&minted]["data"], before);
}

#[test]
fn children_of_a_cluster_that_is_being_deleted_are_left_to_the_garbage_collector() {
    let mut world = two_regions();
    world.settle();
    let cluster = id(Kind::MqttCluster, "us-east");
    let before = world.children();
    world
        .change(&cluster, |cluster| cluster["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    world.settle();
    let of_cluster = |name: &&String| name.contains("us-east");
    assert_eq!(world.children().iter().filter(of_cluster).count(), before.iter().filter(of_cluster).count());
    world.delete(&cluster);
    world.settle();
    assert_eq!(world.children().iter().filter(of_cluster).count(), 0);
}

#[test]
fn an_object_that_cannot_be_read_loses_nothing_and_stops_nobody() {
    let mut world = two_regions();
    world.settle();
    let children = world.children();
    let spec = world.objects[&id(Kind::MqttCluster, "us-east")]["spec"].clone();
    world.change(&id(Kind::MqttCluster, "us-east"), |cluster| cluster["spec"] = json!({"listeners": 5}));
    world.cluster("ap-south");
    world.settle();
    for child in &children {
        assert!(child.contains("us-eu-link") || world.children().contains(child), "{child} is gone");
    }
    assert!(world.children().iter().any(|child| child.contains("ap-south")));
    world.change(&id(Kind::MqttCluster, "us-east"), |cluster| cluster["spec"] = spec);
    world.settle();
    assert!(children.iter().all(|child| world.children().contains(child)));
}

#[test]
fn each_link_costs_one_secret_and_one_status() {
    let mut world = World::new();
    let names: Vec<String> = (0..10).map(|number| format!("region-{number}")).collect();
    names.iter().for_each(|name| world.cluster(name));
    world.settle();
    for (at, from) in names.iter().enumerate() {
        for to in &names[at + 1..] {
            world.link(&format!("{from}-{}", &to[7..]), from, to);
        }
    }
    let links = 45;
    // Two pieces of settings and a status more for each cluster, however many of its links are new.
    assert_eq!(world.settle(), 2 * links + 3 * names.len());
}

#[test]
fn a_write_that_goes_on_failing_is_a_condition_of_its_cluster() {
    let mut world = two_regions();
    world.fail("us-east-mqtt", 2);
    assert!(!world.condition("us-east", "Ready").contains("ApplyFailed"));
    world.fail("us-east-mqtt", 4);
    let ready = world.condition("us-east", "Ready");
    assert!(ready.contains("ApplyFailed") && ready.contains("Service mqtt/us-east-mqtt"), "{ready}");
    assert!(!world.condition("eu-west", "Ready").contains("ApplyFailed"));
    world.now += Duration::from_secs(60);
    world.settle();
    assert!(!world.condition("us-east", "Ready").contains("ApplyFailed"));
}
