//! What the server answers to a write counts at once; what watches show of it later is no news. And whoever changes what is ours
//! again and again finds us patient.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::world::{World, id, source, two_regions};
use crate::operator::build::{Kind, ObjectId};
use crate::operator::ledger::Part;
use crate::operator::picture::Weight;
use crate::operator::shelf::Fetched;
use crate::operator::write::{Ended, Write};
use crate::plan::Key;

fn object(value: &Value) -> DynamicObject {
    serde_json::from_value(value.clone()).expect("an object")
}

#[test]
fn watches_that_lag_make_no_write_and_no_decision() {
    let mut quick = two_regions();
    let count = quick.settle();
    let mut world = two_regions();
    let mut kinds = Kind::CHILDREN.to_vec();
    kinds.extend([Kind::MqttCluster, Kind::ClusterLink]);
    world.lag(&kinds);
    assert_eq!(world.settle(), count);
    let weights = world.catch_up();
    assert_eq!(weights.len(), count);
    assert!(weights.iter().all(|weight| *weight == Weight::Nothing), "{weights:?}");
    assert_eq!(world.settle(), 0);
}

#[test]
fn a_status_neither_flaps_nor_stays_while_its_watch_lags() {
    let mut world = two_regions();
    world.settle();
    world.lag(&[Kind::ClusterLink]);
    let resolved = |world: &World| world.condition_of(Kind::ClusterLink, "us-eu", "ResolvedRefs");
    world.delete(&id(Kind::MqttCluster, "eu-west"));
    world.settle();
    assert!(resolved(&world).starts_with("ClusterNotFound"));
    for _ in 0..3 {
        assert_eq!(world.decide().len(), 0, "what is published stays");
    }
    world.cluster("eu-west");
    world.settle();
    assert!(resolved(&world).starts_with("Resolved"), "{}", resolved(&world));
    world.catch_up();
    assert_eq!(world.settle(), 0);
    assert!(resolved(&world).starts_with("Resolved"));
}

#[test]
fn an_edit_that_an_answer_shows_first_is_news() {
    let mut world = two_regions();
    world.settle();
    let link = id(Kind::ClusterLink, "us-eu");
    let echo = world.objects[&link].clone();
    world.lag(&[Kind::ClusterLink]);
    world.change(&link, |link| {
        link["spec"]["topics"] = json!(["other/#"]);
        link["metadata"]["generation"] = json!(2);
    });
    let edited = world.objects[&link].clone();
    assert_eq!(world.decider.picture.learn(link.clone(), object(&echo)), Weight::Nothing);
    assert_eq!(world.decider.picture.learn(link, object(&edited)), Weight::Now);
}

#[test]
fn a_status_that_somebody_else_wrote_is_no_reason_to_hurry() {
    let mut world = two_regions();
    world.settle();
    world.lag(&[Kind::ClusterLink]);
    world.change(&id(Kind::ClusterLink, "us-eu"), |link| link["status"]["conditions"] = json!([]));
    assert_eq!(world.catch_up(), [Weight::Later]);
    assert_eq!(world.settle(), 1, "it is put right");
}

#[test]
fn what_was_made_and_deleted_before_the_answer_is_made_again() {
    let mut world = two_regions();
    world.settle();
    let service = id(Kind::Service, "us-east-mqtt");
    world.delete(&service);
    let made = |world: &mut World| {
        world.decide().into_iter().find_map(|write| match write {
            Write::Apply { object, .. } if object.id == service => Some(object.body.as_ref().clone()),
            _ => None,
        })
    };
    let body = made(&mut world).expect("it is made");
    world.put(service.clone(), body);
    let stored = object(&world.objects[&service]);
    world.delete(&service);
    let ended =
        Ended { id: service.clone(), part: Part::Object, owner: None, news: None, done: Ok(Some(stored)) };
    world.decider.ended(ended, world.now);
    assert!(made(&mut world).is_some());
}

#[test]
fn what_was_made_anew_is_not_deleted_by_what_the_watch_shows_of_before() {
    let mut world = two_regions();
    world.settle();
    let service = id(Kind::Service, "us-east-mqtt");
    let before = object(&world.objects[&service]);
    world.lag(&[Kind::Service]);
    world.change(&service, |it| it["metadata"]["labels"]["theirs"] = json!("new"));
    let answer = object(&world.objects[&service]);
    world.decider.picture.learn(service.clone(), answer);
    assert_eq!(world.decider.see(&source(Kind::Service), Event::Delete(before)), Weight::Nothing);
    assert!(world.decider.picture.children.contains_key(&service));
}

#[test]
fn a_list_counts_though_it_is_older() {
    let mut world = two_regions();
    world.settle();
    let service = id(Kind::Service, "us-east-mqtt");
    let source = source(Kind::Service);
    let mut of_before = world.objects[&service].clone();
    of_before["metadata"]["resourceVersion"] = json!("1");
    world.decider.see(&source, Event::Init);
    world.decider.see(&source, Event::InitApply(object(&of_before)));
    // Answers wait for what the watch shows: nobody knows which of the two is newer.
    world.decider.picture.learn(service.clone(), object(&world.objects[&service]));
    world.decider.see(&source, Event::InitDone);
    assert_eq!(world.decider.picture.children[&service].version, "1");
}

/// Lets somebody change an object whenever it is as it should be; how often it was put back, and what was told last.
fn fight(world: &mut World, disputed: &ObjectId, decisions: usize) -> (usize, String) {
    let (mut count, mut told) = (0, String::new());
    for _ in 0..decisions {
        world.change(disputed, |it| {
            it["spec"]["ports"][0]["port"] = json!(7);
            it["metadata"]["managedFields"] = json!([
                {"manager": "mqlink-operator", "operation": "Apply", "time": "2026-01-01T00:00:02Z"},
                {"manager": "helm", "operation": "Update", "time": "2026-01-01T00:00:01Z"},
            ]);
        });
        for write in world.decide() {
            let Write::Apply { news: Some(news), .. } = &write else { continue };
            (count, told) = (count + 1, format!("{} {}", news.reason, news.note));
            world.perform(write);
        }
    }
    (count, told)
}

#[test]
fn a_fight_for_an_object_is_slow_and_says_who_fights() {
    let mut world = two_regions();
    world.settle();
    let service = id(Kind::Service, "us-east-mqtt");
    let (count, told) = fight(&mut world, &service, 1);
    assert_eq!(count, 1);
    assert!(told.starts_with("DriftRepaired Service mqtt/us-east-mqtt was changed by helm"), "{told}");
    // Each decision is two seconds later: ten minutes.
    let (count, told) = fight(&mut world, &service, 300);
    assert!((15..=30).contains(&count), "{count} repairs in ten minutes");
    assert!(told.starts_with("DriftRepeats") && told.contains("again and again by helm"), "{told}");
    // What we want ourselves does not wait.
    world.change(&id(Kind::MqttCluster, "us-east"), |cluster| {
        cluster["spec"]["listeners"] = json!([{"name": "mqtt", "protocol": "MQTT", "port": 1884}]);
    });
    assert!(world.decide().iter().any(|write| *write.id() == service));
}

#[test]
fn a_secret_that_nobody_could_read_yet_stops_only_who_needs_it() {
    let mut world = World::new();
    let users = json!({"authentication": {"usersSecretRef": {"name": "people"}}});
    world.own(Kind::MqttCluster, "us-east", users);
    world.cluster("eu-west");
    let begun = world.now;
    let picture = &mut world.decider.picture;
    picture.refer(begun);
    assert_eq!(picture.shelf.due(begun, 9).len(), 1);
    assert!(!picture.is_complete(begun), "it may come in a moment");
    let patience = picture.shelf.next(begun).expect("not for ever");
    assert!(patience <= begun + Duration::from_secs(1) && picture.is_complete(patience));
    world.settle();
    let has = |world: &World, name| world.objects.contains_key(&id(Kind::StatefulSet, name));
    assert!(has(&world, "eu-west") && !has(&world, "us-east"));
    assert!(world.condition("us-east", "ResolvedRefs").starts_with("SecretUnreadable"));
    let secret = json!({"data": {"users": STANDARD.encode("ann:plain:secret")}});
    let object = Ok(Some(serde_json::from_value(secret).expect("a Secret")));
    assert!(world.decider.picture.shelf.take(Fetched { key: Key::new("mqtt", "people"), object }, world.now));
    world.settle();
    assert!(has(&world, "us-east"));
}
