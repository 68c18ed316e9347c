//! Decisions without a server: writes land in a map, and the map is what the watches see.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use crate::operator::build::{Kind, ObjectId, Owner};
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
    image: String,
    pub(super) now: Instant,
    version: u64,
    random: u64,
    /// Reasons of what was told, with the name of the object.
    told: Vec<String>,
}

pub(super) fn id(kind: Kind, name: &str) -> ObjectId {
    ObjectId { kind, namespace: "mqtt".to_owned(), name: name.to_owned() }
}

fn source(kind: Kind) -> Source {
    Source { kind, namespace: None }
}

fn new_decider(image: &str) -> Decider {
    Decider::new(Picture::new(&sources(&Scope::All)), image.to_owned())
}

impl World {
    pub(super) fn new() -> World {
        let mut world = World {
            objects: BTreeMap::new(),
            decider: new_decider(""),
            image: "example.org/mqlink:1".to_owned(),
            now: Instant::now(),
            version: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            told: Vec::new(),
        };
        world.restart();
        world
    }

    /// The same after an operator that is no more.
    pub(super) fn of(objects: BTreeMap<ObjectId, Value>) -> World {
        let mut world = World { objects, version: 1_000_000, ..World::new() };
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
        self.decider.see(&source(id.kind), Event::Apply(object));
    }

    pub(super) fn delete(&mut self, id: &ObjectId) {
        let object = self.objects.remove(id).unwrap_or_else(|| panic!("there is no {id}"));
        let object = serde_json::from_value(object).expect("an object");
        self.decider.see(&source(id.kind), Event::Delete(object));
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
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
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

    fn end(&mut self, id: ObjectId, part: Part, done: Result<(), WriteError>) {
        let of =
            |is_link, name: &str| Some(Owner { is_link, key: Key::new("mqtt", name), uid: String::new() });
        let owner = match &*id.name {
            "mqlink-us-eu-link" => of(true, "us-eu"),
            name if name.contains("us-east") => of(false, "us-east"),
            _ => None,
        };
        self.decider.ended(Ended { id, part, owner, news: None, done }, self.now);
    }

    /// What was told since this was asked last, sorted.
    fn told(&mut self) -> Vec<String> {
        let mut told = std::mem::take(&mut self.told);
        told.sort();
        told
    }

    /// An operator of another version takes over.
    fn upgrade(&mut self, image: &str) {
        self.image = image.to_owned();
        self.restart();
    }

    /// Kubernetes restarts the pods of a cluster; they come back, or do not.
    fn roll(&mut self, cluster: &str, comes_back: bool) {
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

    fn image_of(&self, cluster: &str) -> &str {
        let set = &self.objects[&id(Kind::StatefulSet, cluster)];
        set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
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
    for (kind, name) in
        [(Kind::MqttCluster, "us-east"), (Kind::MqttCluster, "eu-west"), (Kind::ClusterLink, "us-eu")]
    {
        let mut world = two_regions();
        world.settle();
        let children = world.children();
        let running = |world: &World| {
            ["us-east", "eu-west"]
                .map(|it| world.objects[&id(Kind::Secret, &format!("mqlink-{it}-links"))]["data"].clone())
        };
        let before = running(&world);
        assert!(before.iter().all(|links| *links != Value::Null));
        let spec = world.objects[&id(kind, name)]["spec"].clone();
        world.change(&id(kind, name), |object| object["spec"] = json!({"listeners": 5, "topics": 5}));
        world.cluster("ap-south");
        world.settle();
        for child in &children {
            assert!(world.children().contains(child), "{child} is gone");
        }
        assert!(world.children().iter().any(|child| child.contains("ap-south")));
        assert_eq!(running(&world), before, "the link runs on");
        if kind == Kind::MqttCluster {
            let why = world.condition_of(Kind::ClusterLink, "us-eu", "ResolvedRefs");
            assert!(why.starts_with("ClusterUnreadable"), "{why}");
        }
        world.change(&id(kind, name), |object| object["spec"] = spec);
        world.settle();
        assert!(children.iter().all(|child| world.children().contains(child)));
        assert_eq!(running(&world), before);
    }
}

#[test]
fn a_namespace_that_must_not_be_read_is_left_alone_until_it_may() {
    let sources = sources(&Scope::Namespaces(vec!["a".to_owned(), "b".to_owned()]));
    let (ours, barred): (Vec<_>, Vec<_>) =
        sources.iter().partition(|source| source.namespace.as_deref() == Some("a"));
    let mut picture = Picture::new(&sources);
    let list = |picture: &mut Picture, source: &Source| {
        picture.see(source, Event::Init);
        picture.see(source, Event::InitDone);
    };
    ours.iter().for_each(|source| list(&mut picture, source));
    assert!(!picture.is_listed() && !picture.bar(ours[0]), "that one has told its list");
    assert!(picture.bar(barred[0]) && !picture.bar(barred[1]), "it is news once");
    assert!(picture.is_listed() && picture.is_barred("b"));
    assert!(picture.world().unreadable.namespaces.contains("b"));
    for (at, source) in barred.iter().enumerate() {
        assert!(picture.is_barred("b"), "{at} of {} lists are there", barred.len());
        list(&mut picture, source);
    }
    assert!(picture.is_listed() && !picture.is_barred("b"));
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
fn statuses_wait_while_many_objects_are_being_written() {
    let mut world = World::new();
    (0..10).for_each(|number| world.cluster(&format!("region-{number}")));
    let is_status = |write: &Write| matches!(write, Write::Status { .. });
    let mut writes = world.decide();
    assert!(writes.len() > 100 && !writes.iter().any(is_status), "{}", writes.len());
    // A few that hang hold nothing up.
    let hanging = writes.split_off(writes.len() - 10);
    writes.into_iter().for_each(|write| world.perform(write));
    let statuses = world.decide().into_iter().filter(is_status).count();
    assert_eq!((statuses, hanging.len()), (10, 10));
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

#[test]
fn what_the_server_refuses_is_not_tried_again_until_it_is_something_else() {
    let mut world = two_regions();
    world.settle();
    let set = id(Kind::StatefulSet, "us-east");
    let with_label = |world: &mut World, value: &str| {
        let cluster = id(Kind::MqttCluster, "us-east");
        let labels = json!({"metadata": {"labels": {"a": value}}});
        world.change(&cluster, |cluster| cluster["spec"]["podTemplate"] = labels);
    };
    // Which labels there may be, only the server knows.
    with_label(&mut world, "none");
    let writes: Vec<Write> = world.decide().into_iter().filter(|write| *write.id() == set).collect();
    assert_eq!(writes.len(), 1);
    world.end(set.clone(), Part::Object, Err(WriteError::Refused(set.clone(), "labels: no".to_owned())));
    world.settle();
    let said = "ApplyRefused the API server refuses StatefulSet mqtt/us-east: labels: no; correct";
    assert!(
        world.condition("us-east", "Stalled").starts_with(said),
        "{}",
        world.condition("us-east", "Stalled")
    );
    // The pods that run go on, and move the version of their set.
    world.change(&set, |set| set["status"] = json!({"readyReplicas": 1}));
    world.now += Duration::from_secs(3600);
    assert_eq!(world.settle(), 0);
    // What is there is what is wanted again, so nothing is written that could take the trouble away.
    world.change(&id(Kind::MqttCluster, "us-east"), |cluster| {
        cluster["spec"].as_object_mut().expect("a spec").remove("podTemplate");
    });
    world.settle();
    assert_eq!(world.condition("us-east", "Stalled"), "");
    with_label(&mut world, "value");
    world.settle();
    assert_eq!(world.objects[&set]["spec"]["template"]["metadata"]["labels"]["a"], "value");
}

#[test]
fn a_links_secret_that_cannot_be_written_is_a_condition_of_the_link() {
    let mut world = two_regions();
    world.fail("mqlink-us-eu-link", 6);
    let programmed = world.condition_of(Kind::ClusterLink, "us-eu", "Programmed");
    assert!(programmed.contains("ApplyFailed") && programmed.contains("mqlink-us-eu-link"), "{programmed}");
    assert!(!world.condition("us-east", "Progressing").contains("ApplyFailed"));
    world.now += Duration::from_secs(60);
    world.settle();
    assert!(!world.condition_of(Kind::ClusterLink, "us-eu", "Programmed").contains("ApplyFailed"));
}

fn listening(name: &str, port: i32) -> Value {
    json!({"listeners": [{"name": name, "protocol": "MQTT", "port": port}]})
}

#[test]
fn two_clusters_do_not_fight_for_a_name() {
    let mut world = World::new();
    world.own(Kind::MqttCluster, "a", listening("b-c", 1883));
    world.settle();
    world.own(Kind::MqttCluster, "a-b", listening("c", 1884));
    world.settle();
    let service = id(Kind::Service, "a-b-c");
    assert_eq!(world.objects[&service]["spec"]["ports"][0]["port"], 1883);
    let refused = world.condition("a-b", "Accepted");
    assert!(refused.contains("NameConflict") && refused.contains("mqtt/a's"), "{refused}");
    assert!(world.condition("a", "Accepted").contains("Accepted"));
    world.own(Kind::MqttCluster, "a", listening("other", 1883));
    world.settle();
    assert!(world.condition("a-b", "Accepted").contains("Accepted The"));
    assert_eq!(world.objects[&service]["spec"]["ports"][0]["port"], 1884);
    // Who has a name keeps it, though the other one is older.
    world.own(Kind::MqttCluster, "a", listening("b-c", 1883));
    world.settle();
    assert!(world.condition("a", "Accepted").contains("NameConflict"));
    assert_eq!(world.objects[&service]["spec"]["ports"][0]["port"], 1884);
}

#[test]
fn ports_that_pods_need_are_refused() {
    let mut world = World::new();
    world.own(Kind::MqttCluster, "a", listening("mqtt", 11_884));
    world.own(Kind::MqttCluster, "b", json!({"linkListener": {"port": 11_885}}));
    world.settle();
    let (a, b) = (world.condition("a", "Accepted"), world.condition("b", "Accepted"));
    assert!(a.contains("PortReserved spec.listeners[0].port is 11884"), "{a}");
    assert!(b.contains("PortReserved spec.linkListener.port is 11885"), "{b}");
    assert!(!world.children().iter().any(|child| child.contains("StatefulSet")));
}

#[test]
fn a_new_version_restarts_one_cluster_at_a_time() {
    let mut world = World::new();
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| world.cluster(name));
    world.settle();
    names.iter().for_each(|name| world.roll(name, true));
    world.settle();
    world.told();
    world.upgrade("example.org/mqlink:2");
    let images = |world: &World| names.map(|name| world.image_of(name).ends_with(":2"));
    world.settle();
    assert_eq!(images(&world), [true, false, false]);
    assert_eq!(world.told(), ["a Upgrading"]);
    world.roll("a", false);
    world.restart();
    world.settle();
    assert_eq!(images(&world), [true, false, false], "one that is stuck stops the others");
    // A spec that changes waits for nobody.
    world.own(Kind::MqttCluster, "c", json!({"podTemplate": {"priorityClass": "high"}}));
    world.settle();
    assert_eq!(images(&world), [true, false, true]);
    assert_eq!(world.told(), ["c Restarting"]);
    world.roll("a", true);
    world.settle();
    assert_eq!(images(&world), [true, true, true]);
    assert_eq!(world.told(), ["b Upgrading"]);
    names.iter().for_each(|name| world.roll(name, true));
    assert_eq!(world.settle(), 0);
}

#[test]
fn what_happened_is_told_once() {
    let mut world = World::new();
    world.cluster("us-east");
    world.link("us-eu", "us-east", "eu-west");
    world.settle();
    assert_eq!(world.told(), ["us-east Created", "us-eu !ClusterNotFound"]);
    world.restart();
    world.settle();
    assert!(world.told().is_empty());
    world.change(&id(Kind::Service, "us-east-mqtt"), |it| it["spec"]["ports"][0]["port"] = json!(7));
    world.settle();
    assert_eq!(world.told(), ["us-east DriftRepaired"]);
}

#[test]
fn an_empty_image_is_none() {
    let mut world = World::new();
    world.own(Kind::MqttCluster, "a", json!({"image": ""}));
    world.settle();
    assert_eq!(world.image_of("a"), "example.org/mqlink:1");
}
