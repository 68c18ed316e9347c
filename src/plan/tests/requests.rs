//! Requests: tokens in annotations, given to nodes, and shown in status when those have answered.

use super::*;
use crate::api::link::RESYNC;

fn ask(world: &mut World, token: &str) {
    let annotations = &mut world.links[0].metadata.annotations;
    annotations.get_or_insert_default().insert(RESYNC.to_owned(), token.to_owned());
}

fn handled(plan: &Plan) -> Option<&str> {
    plan.links[&key("us-eu")].last_handled_resync.as_deref()
}

/// What the nodes of the local side are to answer, and the token in it.
fn asked(plan: &Plan) -> Option<(&str, &str)> {
    let answer = plan.settings[&key("us")].links[0].resync.as_deref()?;
    Some((answer, answer.split_once(' ').unwrap().1))
}

fn accepted(plan: &Plan) -> String {
    link_condition(plan, "us-eu", "Accepted").message
}

#[test]
fn a_resync_is_shown_when_all_ready_nodes_of_the_local_side_have_answered() {
    let mut world = later(world(TWO));
    let revisions =
        |plan: &Plan| ["us", "eu"].map(|cluster| plan.settings[&key(cluster)].links[0].revision.clone());
    let before = planned(&world);
    assert_eq!(handled(&before), None);
    ask(&mut world, "one");
    let after = planned(&world);
    let (answer, token) = asked(&after).unwrap();
    assert_eq!(token, "one");
    let ([us, eu], [us_before, eu_before]) = (revisions(&after), revisions(&before));
    assert!(us != us_before && eu == eu_before, "one side is enough: it tells, and asks");
    check_link(&after, "us-eu", "Programmed", "False/PodsPending");
    assert_eq!(handled(&after), None, "no node has answered");
    // A node that takes the settings over and has not done it says nothing yet.
    let mut world = later(world);
    report(&mut world, "us").links[0].resync = None;
    assert_eq!(handled(&planned(&world)), None);
    report(&mut world, "us").links[0].resync = Some(answer.into());
    assert_eq!(handled(&planned(&world)), Some("one"));
    let plan = planned(&world);
    publish(&mut world, plan);
    // What is done stays done, whatever nodes say later, and when the annotation goes.
    report(&mut world, "us").links[0].resync = None;
    assert_eq!(handled(&planned(&world)), Some("one"));
    view(&mut world, "us").age = REPORT_AGE_MAX * 2;
    assert_eq!(handled(&planned(&world)), Some("one"));
    world.links[0].metadata.annotations = None;
    assert_eq!(handled(&planned(&world)), Some("one"));
    // Another token, of which the node knows nothing yet.
    ask(&mut world, "two");
    assert_eq!(handled(&planned(&world)), Some("one"));
    assert_eq!(handled(&planned(&later(world))), Some("two"));
}

#[test]
fn a_token_that_goes_and_comes_back_is_none_anew() {
    let mut world = later(world(TWO));
    let asked = |world: &World| asked(&planned(world)).map(|(answer, _)| answer.to_owned());
    ask(&mut world, "one two");
    world = later(world);
    let before = asked(&world);
    world.links[0].metadata.annotations = None;
    assert_eq!(asked(&world), before, "nodes have nothing to do when it goes");
    world = later(world);
    ask(&mut world, "one two");
    assert_eq!(asked(&world), before, "nor when it comes back");
    // Nor does one that is of no use take it away.
    ask(&mut world, "");
    assert_eq!(asked(&world), before);
}

#[test]
fn no_report_of_before_answers_a_token_that_was_asked_for_again_after_another() {
    let mut world = later(world(TWO));
    let mut seed = 1;
    let mut given = |world: &mut World, token: &str| {
        ask(world, token);
        seed += 1;
        let plan = plan(world, at(0), &mut random(seed));
        publish(world, plan.clone());
        plan.settings[&key("us")].links[0].resync.clone()
    };
    let first = given(&mut world, "x");
    given(&mut world, "y");
    let second = given(&mut world, "x");
    // The node has done the first of the three, and has not seen the others.
    report(&mut world, "us").links[0].resync = first;
    assert_eq!(handled(&planned(&world)), None);
    report(&mut world, "us").links[0].resync = second;
    assert_eq!(handled(&planned(&world)), Some("x"));
}

#[test]
fn what_runs_may_be_lost_and_nodes_are_asked_nothing_anew() {
    let mut world = later(world(TWO));
    for token in ["one", "two", "two and more"] {
        ask(&mut world, token);
        world = later(world);
    }
    let before = planned(&world);
    assert_eq!(asked(&before).unwrap().1, "two and more");
    // An operator died between two Secrets.
    world.running.clear();
    assert_eq!(asked(&plan(&world, at(0), &mut random(2))), asked(&before));
    ask(&mut world, "more");
    assert_eq!(asked(&planned(&world)).unwrap().1, "more");
}

#[test]
fn no_report_of_a_link_of_the_same_name_before_answers() {
    let mut world = world(TWO);
    ask(&mut world, "one");
    world = later(world);
    assert_eq!(handled(&planned(&world)), Some("one"));
    // It is made anew before its node has heard that it is gone.
    let mut link = world.links.remove(0);
    let gone = plan(&world, at(0), &mut random(2));
    publish(&mut world, gone);
    link.status = None;
    world.links.push(link);
    let plan = plan(&world, at(0), &mut random(3));
    assert_eq!((asked(&plan).unwrap().1, handled(&plan)), ("one", None));
}

#[test]
fn each_ready_node_has_to_answer() {
    let mut world = world(TWO);
    ask(&mut world, "one");
    let mut world = later(world);
    let mut other = view(&mut world, "us").clone();
    Arc::make_mut(other.report.as_mut().unwrap()).links[0].resync = None;
    world.placements.get_mut(&key("us")).unwrap().nodes.push("us-1".into());
    world.reports.get_mut(&key("us")).unwrap().insert("us-1".into(), other);
    for link in &mut world.links {
        link.status = None;
    }
    assert_eq!(handled(&planned(&world)), None);
    // One that is not ready is not waited for: it will tell everything when it comes.
    world.reports.get_mut(&key("us")).unwrap().get_mut("us-1").unwrap().pending = Some("it starts".into());
    assert_eq!(handled(&planned(&world)), Some("one"));
}

#[test]
fn an_external_link_is_resynced_by_its_own_half_and_a_link_that_is_not_in_force_by_none() {
    let external = TWO.replace(
        "remote: {clusterRef: {name: eu}, topics: [b]}",
        "remote: {external: {clusterName: x, dial: In}}",
    );
    let mut world = world(&external);
    ask(&mut world, "one");
    assert_eq!(handled(&planned(&later(world.clone()))), Some("one"));
    world.links[0].spec.topics = vec!["a#".into()];
    assert_eq!(handled(&planned(&later(world))), None);
}

#[test]
fn a_token_that_is_of_no_use_is_said_to_be() {
    let mut world = world(TWO);
    ask(&mut world, &"x".repeat(128));
    assert_eq!(
        planned(&world).settings[&key("us")].links[0].resync.as_ref().unwrap().len(),
        "0123456789abcdef ".len() + 128
    );
    assert!(!accepted(&planned(&world)).contains("resync"));
    for (token, why) in [(String::new(), "it is empty"), ("x".repeat(129), "it has more than 128 bytes")] {
        ask(&mut world, &token);
        let plan = planned(&world);
        assert_eq!(plan.settings[&key("us")].links[0].resync, None);
        let note = format!(" The annotation mqlink.dev/resync has no effect: {why}.");
        assert!(accepted(&plan).ends_with(&note), "{}", accepted(&plan));
    }
}

#[test]
fn links_that_nobody_asks_anything_of_have_the_settings_they_always_had() {
    let link = serde_json::to_value(&planned(&world(TWO)).settings[&key("us")].links[0]).unwrap();
    assert!(link.get("resync").is_none(), "{link}");
}
