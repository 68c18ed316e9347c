//! What is accepted of a peer, and what that has served: batches in, changes out.

use super::*;

const TTL: Duration = Duration::from_secs(60);

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("a valid filter")
}

fn filters(texts: &[&str]) -> Vec<Filter> {
    texts.iter().map(|text| filter(text)).collect()
}

fn receiver() -> RouteReceiver {
    let mut receiver = RouteReceiver::default();
    receiver.handle_allowed(Some(filters(&["#"])), &mut Vec::new());
    receiver
}

/// Has an actor say Hello and bootstrap; gives what changed, `+` for served.
fn bootstrap(receiver: &mut RouteReceiver, node: &str, incarnation: u64, add: &[&str]) -> Vec<String> {
    let held = receiver.handle_hello(node, incarnation, TTL).expect("it is welcome");
    assert!(held.need_bootstrap);
    let batch =
        ReceivedBatch { number: 1, begin: true, end: true, add: filters(add), ..ReceivedBatch::default() };
    apply(receiver, node, batch).expect("in order")
}

fn apply(receiver: &mut RouteReceiver, node: &str, batch: ReceivedBatch) -> Result<Vec<String>, Violation> {
    let mut changes = Vec::new();
    receiver.handle_batch(node, batch, &mut changes)?;
    Ok(told(&changes))
}

fn told(changes: &[RouteChange]) -> Vec<String> {
    let sign = |change: &RouteChange| if change.served { '+' } else { '-' };
    changes.iter().map(|change| format!("{}{}", sign(change), change.filter.as_str())).collect()
}

#[test]
fn a_route_stands_while_any_actor_wants_it() {
    let mut receiver = receiver();
    assert_eq!(bootstrap(&mut receiver, "eu-0", 1, &["a", "b"]), ["+a", "+b"]);
    assert_eq!(bootstrap(&mut receiver, "eu-1", 1, &["b", "c"]), ["+c"]);
    let now = Instant::now();
    receiver.handle_disconnected("eu-0", now);
    let mut changes = Vec::new();
    receiver.handle_timeout(now + TTL - Duration::from_millis(1), &mut changes);
    assert!(changes.is_empty());
    assert_eq!(receiver.poll_timeout(), Some(now + TTL));
    receiver.handle_timeout(now + TTL, &mut changes);
    assert_eq!(told(&changes), ["-a"], "only its own");
}

#[test]
fn a_newer_incarnation_replaces_and_an_older_one_is_told_what_is_held() {
    let mut receiver = receiver();
    bootstrap(&mut receiver, "eu-0", 5, &["a", "b"]);
    assert_eq!(receiver.handle_hello("eu-0", 4, TTL), Err(Rejected::Outdated(5)));
    receiver.handle_hello("eu-0", 6, TTL).expect("it is newer");
    let first = ReceivedBatch { number: 1, begin: true, add: filters(&["c"]), ..Default::default() };
    assert_eq!(apply(&mut receiver, "eu-0", first), Ok(vec!["+c".to_owned()]), "nothing goes yet");
    let last = ReceivedBatch { number: 2, end: true, add: filters(&["b"]), ..Default::default() };
    assert_eq!(apply(&mut receiver, "eu-0", last), Ok(vec!["-a".to_owned()]));
    let mut digest = Digest::default();
    ["b", "c"].iter().for_each(|filter| digest.add(filter));
    let answer = receiver.answer("eu-0").expect("it is held");
    assert_eq!((answer.number, answer.digest, answer.need_bootstrap), (2, digest, false));
}

#[test]
fn a_resync_is_asked_for_until_it_begins_and_what_comes_meanwhile_is_in_order() {
    let mut receiver = receiver();
    bootstrap(&mut receiver, "eu-0", 1, &["a", "b"]);
    receiver.handle_resync();
    let needs = |receiver: &RouteReceiver| receiver.answer("eu-0").expect("it is held").need_bootstrap;
    assert!(needs(&receiver) && !receiver.is_complete("eu-0"));
    let delta = ReceivedBatch { number: 2, add: filters(&["c"]), ..Default::default() };
    assert_eq!(apply(&mut receiver, "eu-0", delta), Ok(vec!["+c".to_owned()]), "it left before");
    assert!(needs(&receiver) && !receiver.is_complete("eu-0"));
    let first = ReceivedBatch { number: 3, begin: true, add: filters(&["a"]), ..Default::default() };
    assert_eq!(apply(&mut receiver, "eu-0", first), Ok(vec![]));
    assert!(!needs(&receiver) && !receiver.is_complete("eu-0"));
    let last = ReceivedBatch { number: 4, end: true, add: filters(&["c"]), ..Default::default() };
    assert_eq!(apply(&mut receiver, "eu-0", last), Ok(vec!["-b".to_owned()]));
    assert!(receiver.is_complete("eu-0"));
}

#[test]
fn the_digest_covers_what_was_received_whatever_is_used() {
    let mut receiver = receiver();
    bootstrap(&mut receiver, "eu-0", 1, &["#", "public/a", "secret"]);
    let before = receiver.answer("eu-0");
    let mut changes = Vec::new();
    receiver.handle_allowed(Some(filters(&["public/#"])), &mut changes);
    let mut told = told(&changes);
    assert_eq!(told.remove(0), "+public/#", "first what comes");
    assert_eq!((receiver.answer("eu-0"), receiver.narrowed()), (before, 2));
    changes.clear();
    receiver.handle_allowed(None, &mut changes);
    assert_eq!(receiver.served().count(), 0);
    receiver.handle_allowed(Some(filters(&["#"])), &mut changes);
    assert_eq!(receiver.served().count(), 3);
}

#[test]
fn batches_out_of_order_or_place_are_refused() {
    let mut receiver = receiver();
    receiver.handle_hello("eu-0", 1, TTL).expect("it is welcome");
    let delta = |number| ReceivedBatch { number, add: filters(&["x"]), ..Default::default() };
    assert_eq!(apply(&mut receiver, "eu-0", delta(1)), Err(Violation::RoutesOutOfPlace));
    bootstrap(&mut receiver, "eu-0", 2, &["a"]);
    assert_eq!(apply(&mut receiver, "eu-0", delta(3)), Err(Violation::RoutesOutOfOrder));
    assert_eq!(apply(&mut receiver, "eu-0", delta(2)), Ok(vec!["+x".to_owned()]));
    let delete = ReceivedBatch { number: 3, delete: filters(&["never"]), ..Default::default() };
    assert_eq!(apply(&mut receiver, "eu-0", delete), Ok(vec![]), "what is not there cannot go");
}

#[test]
fn more_routes_than_may_be_held_are_refused_whole_and_collected_like_others() {
    let mut receiver = receiver();
    receiver.bound = Amount { routes: 4, bytes: 10 };
    bootstrap(&mut receiver, "eu-0", 1, &["a", "b"]);
    bootstrap(&mut receiver, "eu-1", 1, &["c"]);
    let delta = |number, add: &[&str]| ReceivedBatch { number, add: filters(add), ..Default::default() };
    assert_eq!(
        apply(&mut receiver, "eu-0", delta(2, &["d", "e"])),
        Err(Violation::RoutesFull),
        "five of four"
    );
    assert_eq!(apply(&mut receiver, "eu-0", delta(2, &["12345678"])), Err(Violation::RoutesFull), "11 bytes");
    assert_eq!(receiver.answer("eu-0").expect("it is held").number, 1, "nothing changed");
    assert_eq!(apply(&mut receiver, "eu-0", delta(2, &["a", "b", "d"])), Ok(vec!["+d".to_owned()]));
    let now = Instant::now();
    ["eu-0", "eu-1"].iter().for_each(|node| receiver.handle_disconnected(node, now));
    receiver.handle_timeout(now + TTL, &mut Vec::new());
    assert_eq!((receiver.served().count(), receiver.held), (0, Amount::default()));
}

#[test]
fn routes_take_no_more_memory_than_there_is_room_for_and_what_is_there_stays() {
    let mut receiver = receiver();
    let delta = |number, add: &[&str], delete: &[&str]| ReceivedBatch {
        number,
        add: filters(add),
        delete: filters(delete),
        ..Default::default()
    };
    receiver.handle_room(2 * ROUTE_BYTES + 2);
    bootstrap(&mut receiver, "eu-0", 1, &["a", "b"]);
    assert_eq!(apply(&mut receiver, "eu-0", delta(2, &["c"], &[])), Err(Violation::RoutesFull));
    receiver.handle_room(0);
    assert_eq!(apply(&mut receiver, "eu-0", delta(2, &["a"], &[])), Ok(vec![]), "it is there");
    bootstrap(&mut receiver, "eu-0", 2, &["a", "b"]);
    assert_eq!(apply(&mut receiver, "eu-0", delta(2, &[], &["a"])), Ok(vec!["-a".to_owned()]));
    assert_eq!(receiver.memory(), ROUTE_BYTES + 1);
}

#[test]
fn a_filter_costs_the_nodes_that_it_makes() {
    let mut receiver = receiver();
    receiver.bound = Amount { routes: 1_000, bytes: 10_000 };
    let deep = format!("1{}+", "/".repeat(200));
    let delta = |number, add: &[&str]| ReceivedBatch { number, add: filters(add), ..Default::default() };
    bootstrap(&mut receiver, "eu-0", 1, &["a/+"]);
    assert_eq!(apply(&mut receiver, "eu-0", delta(2, &[&deep])), Err(Violation::RoutesFull));
    let plain = format!("1{}", "/".repeat(200));
    let told = apply(&mut receiver, "eu-0", delta(2, &[&plain])).expect("it makes no node");
    assert_eq!(told.len(), 1);
}

#[test]
fn the_last_of_all_numbers_has_no_next_one() {
    let mut receiver = receiver();
    receiver.handle_hello("eu-0", 1, TTL).expect("it is welcome");
    let all = ReceivedBatch { number: u64::MAX, begin: true, end: true, ..Default::default() };
    assert_eq!(apply(&mut receiver, "eu-0", all), Ok(vec![]));
    let next = ReceivedBatch { number: 0, ..Default::default() };
    assert_eq!(apply(&mut receiver, "eu-0", next), Err(Violation::RoutesOutOfOrder));
}

#[test]
fn a_peer_cannot_invent_nodes_without_end() {
    let mut receiver = receiver();
    for number in 0..ACTORS_MAX {
        receiver.handle_hello(&format!("eu-{number}"), 1, TTL).expect("it is welcome");
    }
    assert_eq!(receiver.handle_hello("eu-more", 1, TTL), Err(Rejected::TooManyActors));
    receiver.handle_hello("eu-0", 1, TTL).expect("a known one is always welcome");
}
