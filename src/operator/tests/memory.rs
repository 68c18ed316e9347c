//! What is decided, without a server: who owns what, what is written and what is told.

use std::time::{Duration, Instant};

use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::world::{World, id, two_regions};
use crate::operator::build::Kind;
use crate::operator::ledger::Part;
use crate::operator::picture::Picture;
use crate::operator::watch::{Scope, Source, sources};
use crate::operator::write::{Write, WriteError};

#[test]
fn nothing_is_decided_before_every_watch_has_told_its_list() {
    let mut picture = Picture::new(&sources(&Scope::All));
    assert_eq!(picture.world().operated, None);
    for source in sources(&Scope::All) {
        assert!(!picture.is_complete(Instant::now()));
        picture.see(&source, Event::Init);
        assert!(!picture.is_complete(Instant::now()));
        picture.see(&source, Event::InitDone);
    }
    assert!(picture.is_complete(Instant::now()));
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
    let world = picture.world();
    assert!(world.unreadable.namespaces.contains("b"));
    assert_eq!(world.operated, Some(["a", "b"].map(str::to_owned).into()));
    for (at, source) in barred.iter().enumerate() {
        assert!(picture.is_barred("b"), "{at} of {} lists are there", barred.len());
        list(&mut picture, source);
    }
    assert!(picture.is_listed() && !picture.is_barred("b"));
}

/// What one watch of two told would be forgotten when the other begins its list.
#[test]
fn a_namespace_that_is_named_twice_is_watched_once() {
    let watched = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        sources(&Scope::Namespaces(names)).len()
    };
    assert_eq!(watched(&["a", "b", "a"]), watched(&["a", "b"]));
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
    let writes = world.decide();
    assert!(writes.len() > 100 && !writes.iter().any(is_status), "{}", writes.len());
    // All of them hang: what is said of others waits for ten seconds, not longer.
    for seconds in [2, 4, 6, 8] {
        assert!(!world.decide().iter().any(is_status), "{seconds}");
    }
    assert_eq!(world.decide().iter().filter(|it| is_status(it)).count(), 10);
    // A few that hang hold nothing up.
    let mut world = World::new();
    (0..10).for_each(|number| world.cluster(&format!("region-{number}")));
    let mut writes = world.decide();
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
fn what_the_server_refuses_is_tried_again_when_it_is_something_else_or_after_a_while() {
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
    world.now += Duration::from_secs(60);
    assert_eq!(world.settle(), 0);
    // It may take the same later.
    world.now += Duration::from_secs(300);
    let writes: Vec<Write> = world.decide();
    assert_eq!(writes.iter().map(Write::id).collect::<Vec<_>>(), [&set]);
    world.end(set.clone(), Part::Object, Err(WriteError::Refused(set.clone(), "labels: no".to_owned())));
    assert_eq!(world.settle(), 0);
    assert!(world.condition("us-east", "Stalled").starts_with(said), "it is no news");
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
    let why = "spec.listeners[0].name would make Service mqtt/a-b-c, as spec.listeners[0].name of MqttCluster mqtt/a does; rename";
    assert!(refused.starts_with(&format!("NameConflict {why}")), "{refused}");
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
    // Once it is deleted the other one gets it, without being touched.
    world.delete(&id(Kind::MqttCluster, "a-b"));
    world.settle();
    assert!(world.condition("a", "Accepted").contains("Accepted The"));
    assert_eq!(world.objects[&service]["spec"]["ports"][0]["port"], 1883);
    // One whose name is the trouble is told which listener it is.
    world.own(Kind::MqttCluster, "a-b", json!({"linkListener": {"enabled": false}}));
    world.settle();
    world.own(Kind::MqttCluster, "a", listening("b-nodes", 1883));
    world.settle();
    let why = "spec.listeners[0].name would make Service mqtt/a-b-nodes, as metadata.name of MqttCluster mqtt/a-b does";
    assert!(world.condition("a", "Accepted").contains(why), "{}", world.condition("a", "Accepted"));
    world.delete(&id(Kind::MqttCluster, "a-b"));
    world.settle();
    world.cluster("a-b");
    world.settle();
    let why = "metadata.name would make Service mqtt/a-b-nodes, as spec.listeners[0].name of MqttCluster mqtt/a does";
    assert!(world.condition("a-b", "Accepted").contains(why), "{}", world.condition("a-b", "Accepted"));
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

/// Its Secret is gone, or was not read yet by an operator that starts, or its spec is refused, or another version wrote it: it
/// restarts all the same.
#[test]
fn a_cluster_that_restarts_holds_up_the_others_though_its_spec_is_of_no_use_meanwhile() {
    let nowhere = json!({"authentication": {"usersSecretRef": {"name": "nowhere"}}});
    for spec in [json!({"replicas": 3}), nowhere, json!({"listeners": 5})] {
        let mut world = World::new();
        ["a", "b"].iter().for_each(|name| world.cluster(name));
        world.settle();
        ["a", "b"].iter().for_each(|name| world.roll(name, true));
        world.settle();
        world.upgrade("example.org/mqlink:2");
        world.settle();
        world.roll("a", false);
        world.own(Kind::MqttCluster, "a", spec);
        world.settle();
        assert_eq!(world.image_of("b"), "example.org/mqlink:1");
        world.restart();
        world.settle();
        assert_eq!(world.image_of("b"), "example.org/mqlink:1");
        world.roll("a", true);
        world.settle();
        assert_eq!(world.image_of("b"), "example.org/mqlink:2");
    }
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
