//! The scripts: one promise of the link each.

use std::time::Duration;

use crate::mqtt::{Filter, QoS};
use crate::settings::report::{Verdict, VerdictStatus};
use crate::settings::{Credentials, Dial};

use super::world::{Path, World, half, message};

const SECOND: Duration = Duration::from_secs(1);
/// Two probe periods.
const NOTICED: Duration = Duration::from_secs(10);

#[track_caller]
fn assert_verdict(verdict: &Verdict, status: VerdictStatus, reason: &str) {
    assert_eq!((verdict.status, verdict.reason.as_str()), (status, reason), "{}", verdict.message);
}

fn served(net: &World, at: &str, peer: &str) -> Vec<String> {
    net.clusters[at].served[peer].iter().map(|filter| filter.as_str().to_owned()).collect()
}

#[test]
fn two_clusters_find_each_other_and_messages_cross_where_they_are_wanted() {
    let mut net = World::two(1);
    net.subscribe("eu", "t/+");
    net.settle();
    net.publish("us", "t/1", "one", QoS::AtLeastOnce);
    net.publish("us", "other", "two", QoS::AtLeastOnce);
    net.publish("us", "t/2", "three", QoS::AtMostOnce);
    net.settle();
    assert_eq!(net.at("eu").got, ["one", "three"]);
    assert_eq!(net.the_link("us", "eu").counters().sent.matched, 2);
}

#[test]
fn of_two_connections_one_stays_and_nobody_dials_again() {
    let mut net = World::two(2);
    net.settle();
    let dialled = net.dialled;
    assert!(dialled >= 2, "both sides dialled at once");
    net.run_for(SECOND * 120);
    assert_eq!(net.dialled, dialled);
    let report = net.the_link("us", "eu").report(net.now);
    assert_eq!((report.connections.open, report.connected.status), (1, VerdictStatus::True));
}

#[test]
fn the_connection_that_stayed_keeps_its_routes_however_long_it_is_open() {
    let mut net = World::two(30);
    net.subscribe("us", "t");
    net.subscribe("eu", "t");
    net.settle();
    assert!(net.dialled >= 2, "one of two connections ended");
    net.run_for(SECOND * 600);
    for (at, peer) in [("us", "eu"), ("eu", "us")] {
        assert_eq!(served(&net, at, peer), ["t"]);
        let report = net.the_link(at, peer).report(net.now);
        assert_verdict(&report.routes_synced, VerdictStatus::True, "Synced");
    }
    net.subscribe("us", "u");
    net.subscribe("eu", "u");
    net.settle();
}

#[test]
fn overlapping_filters_cross_once_and_none_is_lost() {
    let mut net = World::two(3);
    net.configure("eu", "us", |half| half.topics = vec!["t/1".into(), "t/#".into(), "u/+".into()]);
    ["t/+", "t/1", "t/#", "u/#", "v"].iter().for_each(|filter| net.subscribe("eu", filter));
    net.settle();
    assert_eq!(served(&net, "us", "eu"), ["t/#", "u/+"]);
    net.publish("us", "t/1", "once", QoS::AtLeastOnce);
    net.unsubscribe("eu", "t/#");
    net.settle();
    assert_eq!(served(&net, "us", "eu"), ["t/+", "u/+"]);
    net.publish("us", "t/1/x", "not any more", QoS::AtLeastOnce);
    net.publish("us", "u/1", "other", QoS::AtLeastOnce);
    net.settle();
    assert_eq!(net.at("eu").got, ["once", "other"]);
}

#[test]
fn shared_subscriptions_are_in_a_bootstrap_and_leave_with_their_last_member() {
    let mut net = World::new(4);
    net.cluster("us");
    net.cluster("eu");
    net.subscribe_shared("eu", "workers", "jobs/#");
    net.subscribe_shared("eu", "others", "jobs/#");
    net.link("us", half("eu", &["#"]));
    net.link("eu", half("us", &["#"]));
    net.settle();
    assert_eq!(served(&net, "us", "eu"), ["jobs/#"]);
    net.publish("us", "jobs/1", "one", QoS::AtLeastOnce);
    net.settle();
    assert_eq!(net.at("eu").got, ["one"]);
    net.unsubscribe_shared("eu", "workers", "jobs/#");
    net.settle();
    assert_eq!(served(&net, "us", "eu"), ["jobs/#"]);
    net.unsubscribe_shared("eu", "others", "jobs/#");
    net.settle();
    assert!(served(&net, "us", "eu").is_empty());
}

#[test]
fn a_large_set_of_routes_is_bootstrapped_in_batches() {
    let mut net = World::new(5);
    net.cluster("us");
    net.cluster("eu");
    (0..20_000).for_each(|i| net.subscribe("eu", &format!("devices/{i}/state")));
    net.link("us", half("eu", &["#"]));
    net.link("eu", half("us", &["#"]));
    net.settle();
    assert_eq!(served(&net, "us", "eu").len(), 20_000);
    assert!(net.frames < 200, "{} frames", net.frames);
}

#[test]
fn a_resync_tells_everything_both_ways_and_is_reported_when_that_is_done() {
    let mut net = World::two(32);
    for i in 0..5_000 {
        net.subscribe("us", &format!("us/{i}"));
        net.subscribe("eu", &format!("eu/{i}"));
    }
    net.settle();
    let reported = |net: &World| net.the_link("us", "eu").report(net.now).resync;
    let ask =
        |net: &mut World, token: &str| net.configure("us", "eu", |half| half.resync = Some(token.into()));
    // Under a connection, and without one.
    for (token, path) in [("1", Path::Open), ("2", Path::Cut)] {
        net.set_path("us", "eu", path);
        let bytes = net.bytes;
        ask(&mut net, token);
        assert_eq!(reported(&net), None, "it is not done yet");
        if path == Path::Open {
            net.subscribe("eu", "eu/meanwhile");
            net.subscribe("us", "us/meanwhile");
        }
        net.publish("us", "eu/7", token, QoS::AtLeastOnce);
        net.publish("eu", "us/7", token, QoS::AtLeastOnce);
        net.set_path("us", "eu", Path::Open);
        net.settle();
        assert_eq!(reported(&net).as_deref(), Some(token));
        let told = net.bytes - bytes;
        assert!(told >= 2 * 5_000 * 3, "{told} bytes are not all routes of both sides");
        assert_eq!(net.at("eu").got.last().map(String::as_str), Some(token), "routes stay in force");
        assert_eq!(net.at("us").got.last().map(String::as_str), Some(token));
    }
    for (at, peer, mine) in [("us", "eu", "eu/meanwhile"), ("eu", "us", "us/meanwhile")] {
        assert_eq!(served(&net, at, peer).len(), 5_001);
        assert!(served(&net, at, peer).contains(&mine.to_owned()));
    }
    // The same token again, another field, and none any more: nothing is told.
    let bytes = net.bytes;
    ask(&mut net, "2");
    net.configure("us", "eu", |half| half.forwarding.max_inflight = 7);
    assert_eq!(reported(&net).as_deref(), Some("2"));
    net.configure("us", "eu", |half| half.resync = None);
    net.settle();
    assert!(net.bytes - bytes < 5_000, "{} bytes", net.bytes - bytes);
    // A node that starts with a token has told everything anyway.
    ask(&mut net, "3");
    net.restart("us");
    net.settle();
    assert_eq!(reported(&net).as_deref(), Some("3"));
}

#[test]
fn lag_shows_after_two_seconds_and_a_slow_line_is_no_lag() {
    let mut net = World::two(31);
    net.latency = SECOND / 4;
    net.settle();
    let synced = |net: &World| net.the_link("eu", "us").report(net.now).routes_synced;
    (0..5_000).for_each(|i| net.subscribe("eu", &format!("at/once/{i}")));
    for i in 0..1_000 {
        net.subscribe("eu", &format!("one/by/one/{i}"));
        net.run_for(SECOND / 100);
        assert_verdict(&synced(&net), VerdictStatus::True, "Synced");
    }
    net.run_for(SECOND);
    net.set_path("us", "eu", Path::Silent);
    net.subscribe("eu", "late");
    net.run_for(SECOND * 2 - SECOND / 1000);
    assert_verdict(&synced(&net), VerdictStatus::True, "Synced");
    net.run_for(SECOND / 1000);
    assert_verdict(&synced(&net), VerdictStatus::False, "Behind");
    net.set_path("us", "eu", Path::Open);
    net.settle();
    assert!(served(&net, "us", "eu").contains(&"late".to_owned()));
}

#[test]
fn what_was_published_while_the_network_was_cut_arrives_in_order() {
    let mut net = World::two(6);
    net.subscribe("eu", "t/#");
    net.settle();
    net.set_path("us", "eu", Path::Cut);
    (0..50).for_each(|i| net.publish("us", "t/1", &format!("{i}"), QoS::AtLeastOnce));
    net.publish("us", "t/1", "lost", QoS::AtMostOnce);
    net.run_for(SECOND * 20);
    assert_verdict(&net.the_link("us", "eu").report(net.now).connected, VerdictStatus::False, "DialFailed");
    net.set_path("us", "eu", Path::Open);
    net.settle();
    let expected: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    assert_eq!(net.at("eu").got, expected);
    assert_eq!(net.the_link("us", "eu").counters().sent.dropped.disconnected, 1);
}

#[test]
fn a_network_that_drops_silently_is_noticed_within_two_periods() {
    let mut net = World::two(7);
    net.subscribe("eu", "t");
    net.settle();
    net.run_for(SECOND * 7);
    net.set_path("us", "eu", Path::Silent);
    net.publish("us", "t", "under way", QoS::AtLeastOnce);
    net.run_for(NOTICED);
    for (at, peer) in [("us", "eu"), ("eu", "us")] {
        let report = net.the_link(at, peer).report(net.now);
        assert_verdict(&report.connected, VerdictStatus::False, "ProbeTimeout");
        assert_eq!(report.connections.open, 0);
    }
    net.set_path("us", "eu", Path::Open);
    net.settle();
    assert_eq!(net.at("eu").got, ["under way"]);
    let counters = net.the_link("us", "eu").counters();
    assert_eq!(counters.sent.dropped, Default::default(), "nothing counts as dropped that arrived");
}

#[test]
fn a_connection_that_is_lost_again_and_again_loses_and_repeats_nothing() {
    let mut net = World::two(8);
    net.subscribe("eu", "t");
    net.settle();
    for i in 0..200 {
        net.publish("us", "t", &format!("{i}"), QoS::AtLeastOnce);
        let pause = net.random.below(12);
        net.run_for(Duration::from_millis(pause));
        if i % 7 == 0 {
            net.reset("us", "eu");
        }
    }
    net.settle();
    let expected: Vec<String> = (0..200).map(|i| i.to_string()).collect();
    assert_eq!(net.at("eu").got, expected);
}

#[test]
fn a_receiver_that_restarted_gets_its_routes_and_messages_again() {
    let mut net = World::two(9);
    net.subscribe("eu", "t/#");
    net.subscribe("us", "u/#");
    net.settle();
    net.restart("eu");
    net.publish("us", "t/1", "across the restart", QoS::AtLeastOnce);
    net.settle();
    assert_eq!(served(&net, "eu", "us"), ["u/#"], "the one that lost everything was told again");
    assert_eq!(net.at("eu").got, ["across the restart"]);
    net.publish("eu", "u/1", "back", QoS::AtLeastOnce);
    net.settle();
    assert_eq!(net.at("us").got, ["back"]);
}

#[test]
fn a_restarted_node_that_wants_less_takes_its_old_routes_away() {
    let mut net = World::two(10);
    ["a", "b", "c"].iter().for_each(|filter| net.subscribe("eu", filter));
    net.settle();
    net.at("eu").subscriptions = [("b".to_owned(), None), ("d".to_owned(), None)].into();
    net.restart("eu");
    net.settle();
    assert_eq!(served(&net, "us", "eu"), ["b", "d"]);
}

#[test]
fn a_restart_while_the_network_is_cut_needs_no_more_than_a_mend() {
    let mut net = World::two(11);
    net.subscribe("eu", "t");
    net.settle();
    net.set_path("us", "eu", Path::Cut);
    net.restart("us");
    net.run_for(SECOND * 3);
    net.subscribe("eu", "u");
    net.unsubscribe("eu", "t");
    net.set_path("us", "eu", Path::Open);
    net.settle();
    assert_eq!(served(&net, "us", "eu"), ["u"]);
}

#[test]
fn a_cut_that_nobody_used_is_resumed_without_a_bootstrap() {
    let mut net = World::new(12);
    net.cluster("us");
    net.cluster("eu");
    (0..5_000).for_each(|i| net.subscribe("eu", &format!("devices/{i}")));
    net.link("us", half("eu", &["#"]));
    net.link("eu", half("us", &["#"]));
    net.settle();
    let bytes = net.bytes;
    net.reset("us", "eu");
    net.subscribe("eu", "one/more");
    net.settle();
    assert_eq!(served(&net, "us", "eu").len(), 5_001);
    assert!(net.bytes - bytes < 2_000, "{} bytes for one route", net.bytes - bytes);
}

#[test]
fn a_clock_that_went_back_costs_one_more_hello() {
    let mut net = World::two(13);
    net.subscribe("eu", "t");
    net.settle();
    net.at("eu").wrong_clock = Some(17);
    net.restart("eu");
    net.settle();
    assert_eq!(served(&net, "us", "eu"), ["t"]);
    net.publish("us", "t", "still here", QoS::AtLeastOnce);
    net.settle();
    assert_eq!(net.at("eu").got, ["still here"]);
    assert_eq!(net.the_link("eu", "us").counters().epoch, 17, "its counters began when it was made");
}

#[test]
fn of_three_clusters_one_dies_and_only_its_routes_go() {
    let mut net = World::two(14);
    net.cluster("asia");
    net.link("us", half("asia", &["#"]));
    net.link("asia", half("us", &["#"]));
    net.subscribe("eu", "t/#");
    net.subscribe("asia", "t/#");
    net.settle();
    net.kill("asia");
    net.run_for(SECOND * 30);
    assert_eq!(served(&net, "us", "asia"), ["t/#"], "within its time to live it may come back");
    net.run_for(SECOND * 31);
    assert!(served(&net, "us", "asia").is_empty());
    assert_eq!(served(&net, "us", "eu"), ["t/#"]);
    net.publish("us", "t/1", "for eu", QoS::AtLeastOnce);
    net.run_for(SECOND);
    assert_eq!(net.at("eu").got, ["for eu"]);
}

#[test]
fn messages_that_came_over_a_link_go_to_local_subscribers_only() {
    let mut net = World::two(15);
    net.cluster("asia");
    net.link("eu", half("asia", &["#"]));
    net.link("asia", half("eu", &["#"]));
    net.subscribe("asia", "#");
    net.subscribe("eu", "#");
    net.settle();
    net.publish("us", "t", "one", QoS::AtLeastOnce);
    net.settle();
    assert_eq!(net.at("eu").got, ["one"]);
    assert!(net.at("asia").got.is_empty(), "no transit");
}

#[test]
fn halves_are_disabled_and_enabled_in_any_order() {
    let mut net = World::two(16);
    net.subscribe("eu", "t");
    net.settle();
    for (first, second) in [("us", "eu"), ("eu", "us")] {
        net.configure(first, second, |half| half.enabled = false);
        net.run_for(SECOND);
        let report = net.the_link(second, first).report(net.now);
        assert_verdict(&report.connected, VerdictStatus::False, "LinkDisabled");
        assert_verdict(&report.peer_agrees, VerdictStatus::False, "LinkDisabled");
        net.configure(second, first, |half| half.enabled = false);
        net.run_for(SECOND * 10);
        let report = net.the_link(second, first).report(net.now);
        assert_verdict(&report.connected, VerdictStatus::False, "Disabled");
        assert!(served(&net, "us", "eu").is_empty(), "a disabled half serves nothing");
        net.configure(first, second, |half| half.enabled = true);
        net.run_for(SECOND * 10);
        net.configure(second, first, |half| half.enabled = true);
        net.settle();
        assert_eq!(served(&net, "us", "eu"), ["t"]);
    }
    net.publish("us", "t", "works again", QoS::AtLeastOnce);
    net.settle();
    assert_eq!(net.at("eu").got, ["works again"]);
}

#[test]
fn the_last_link_is_taken_away_and_made_again() {
    let mut net = World::two(17);
    net.subscribe("eu", "t");
    net.settle();
    net.publish("us", "t", "first", QoS::AtLeastOnce);
    net.settle();
    net.unlink("us", "eu");
    net.run_for(SECOND);
    let report = net.the_link("eu", "us").report(net.now);
    assert_verdict(&report.peer_agrees, VerdictStatus::False, "UnknownCluster");
    net.run_for(SECOND * 30);
    assert_verdict(
        &net.the_link("eu", "us").report(net.now).connected,
        VerdictStatus::False,
        "UnknownCluster",
    );
    net.link("us", half("eu", &["#"]));
    net.settle();
    net.publish("us", "t", "second", QoS::AtLeastOnce);
    net.settle();
    assert_eq!(net.at("eu").got, ["first", "second"], "new positions are no duplicates of old ones");
}

#[test]
fn a_peer_that_is_a_black_hole_is_deleted_at_once() {
    let mut net = World::new(18);
    net.cluster("us");
    net.cluster("eu");
    net.set_path("us", "eu", Path::Silent);
    net.link("us", half("eu", &["#"]));
    net.run_for(SECOND * 60);
    assert_verdict(&net.the_link("us", "eu").report(net.now).connected, VerdictStatus::False, "DialFailed");
    net.run_for(Duration::from_millis(4500));
    let dialled = net.dialled;
    net.unlink("us", "eu");
    assert_eq!(net.dials_under_way(), 0, "the attempt is given up");
    net.run_for(SECOND * 60);
    assert_eq!(net.dialled, dialled);
}

#[test]
fn with_no_topics_a_link_is_one_way_and_still_synced() {
    let mut net = World::two(19);
    net.configure("eu", "us", |half| half.topics.clear());
    net.subscribe("eu", "#");
    net.subscribe("us", "#");
    net.settle();
    assert!(served(&net, "us", "eu").is_empty());
    net.publish("us", "t", "nobody wants this", QoS::AtLeastOnce);
    net.publish("eu", "t", "for us", QoS::AtLeastOnce);
    net.settle();
    assert!(net.at("eu").got.is_empty());
    assert_eq!(net.at("us").got, ["for us"]);
    assert_eq!(net.the_link("us", "eu").counters().sent.matched, 0);
}

#[test]
fn topics_change_under_traffic_and_nothing_wanted_is_missed() {
    let mut net = World::two(20);
    net.subscribe("eu", "t/#");
    net.settle();
    let topics = [vec!["#"], vec!["t/+", "u"], vec!["t/#"], vec!["t/1", "t/2"], vec!["#", "t/1"]];
    for i in 0..100 {
        let topics: Vec<String> = topics[i % topics.len()].iter().map(|&t| t.to_owned()).collect();
        net.configure("eu", "us", |half| half.topics = topics);
        net.publish("us", "t/1", &format!("{i}"), QoS::AtLeastOnce);
        net.run_for(Duration::from_millis(3));
    }
    net.settle();
    let expected: Vec<String> = (0..100).map(|i| i.to_string()).collect();
    assert_eq!(net.at("eu").got, expected);
    let half = net.the_link("us", "eu").report(net.now).peer.expect("eu told its half");
    assert_eq!(half.topics, ["#", "t/1"], "status follows the peer's half");
}

#[test]
fn what_no_longer_matches_on_arrival_is_dropped_and_counted() {
    let mut net = World::two(21);
    net.subscribe("eu", "t");
    net.settle();
    net.publish("us", "t", "too late", QoS::AtLeastOnce);
    net.configure("eu", "us", |half| half.topics = vec!["u".into()]);
    net.settle();
    assert!(net.at("eu").got.is_empty());
    assert_eq!(net.the_link("eu", "us").counters().received.dropped.not_wanted, 1);
    net.configure("eu", "us", |half| half.topics = vec!["#".into()]);
    net.settle();
    net.publish("us", "t", "too late again", QoS::AtLeastOnce);
    net.unsubscribe("eu", "t");
    net.settle();
    assert_eq!(net.the_link("eu", "us").counters().received.dropped.no_route, 1);
}

#[test]
fn an_acl_narrows_use_and_not_what_is_compared() {
    let mut net = World::two(22);
    net.configure("us", "eu", |half| half.acl.send = vec!["public/#".into()]);
    net.configure("eu", "us", |half| half.acl.accept = vec!["public/+".into()]);
    net.subscribe("eu", "#");
    net.settle();
    assert_eq!(served(&net, "us", "eu"), ["public/#"]);
    let agrees = net.the_link("us", "eu").report(net.now).peer_agrees;
    assert!(agrees.message.contains("1 of its routes"), "{}", agrees.message);
    net.publish("us", "secret", "never", QoS::AtLeastOnce);
    net.publish("us", "public/a", "yes", QoS::AtLeastOnce);
    net.publish("us", "public/a/b", "not accepted", QoS::AtLeastOnce);
    net.settle();
    assert_eq!(net.at("eu").got, ["yes"]);
    assert_eq!(net.the_link("eu", "us").counters().received.dropped.not_wanted, 1);
}

#[test]
fn a_full_queue_drops_its_oldest_and_an_old_one_expires() {
    let mut net = World::two(23);
    net.configure("us", "eu", |half| half.forwarding.queue_bytes_max = 1_000);
    net.subscribe("eu", "t");
    net.settle();
    net.set_path("us", "eu", Path::Cut);
    (0..20).for_each(|i| net.publish("us", "t", &format!("{i}"), QoS::AtLeastOnce));
    let sent = net.the_link("us", "eu").counters().sent;
    assert_eq!(sent.queued + sent.dropped.overflow, 20);
    assert!(sent.dropped.overflow > 0 && sent.queued > 0, "{sent:?}");
    net.run_for(SECOND * 30);
    net.publish("us", "t", "young", QoS::AtLeastOnce);
    net.run_for(SECOND * 31);
    let sent = net.the_link("us", "eu").counters().sent;
    assert_eq!(sent.queued, 1, "{sent:?}");
    net.set_path("us", "eu", Path::Open);
    net.settle();
    assert_eq!(net.at("eu").got, ["young"]);
}

#[test]
fn a_message_that_expires_on_the_way_is_not_sent() {
    let mut net = World::two(24);
    net.subscribe("eu", "t");
    net.settle();
    net.set_path("us", "eu", Path::Cut);
    let mut brief = message("t", "brief", QoS::AtLeastOnce);
    brief.expires_at = Some(net.now + SECOND);
    net.publish_message("us", brief);
    net.run_for(SECOND * 2);
    net.set_path("us", "eu", Path::Open);
    net.settle();
    assert!(net.at("eu").got.is_empty());
    assert_eq!(net.the_link("us", "eu").counters().sent.dropped.expired, 1);
}

#[test]
fn more_than_may_be_in_flight_waits_and_arrives() {
    let mut net = World::two(25);
    net.configure("us", "eu", |half| half.forwarding.max_inflight = 10);
    net.subscribe("eu", "t");
    net.settle();
    (0..100).for_each(|i| net.publish("us", "t", &format!("{i}"), QoS::ExactlyOnce));
    assert_eq!(net.the_link("us", "eu").counters().sent.in_flight, 10);
    net.settle();
    assert_eq!(net.at("eu").got.len(), 100);
}

#[test]
fn a_wrong_name_shows_on_both_sides_and_mends_by_itself() {
    let mut net = World::new(26);
    net.cluster("us");
    net.cluster("eu");
    let mut europe = half("europe", &["#"]);
    europe.server = Some("eu:11883".to_owned());
    net.link("us", europe);
    let mut us = half("us", &["#"]);
    us.dial = Dial::In;
    net.link("eu", us);
    net.run_for(SECOND * 5);
    for (at, peer) in [("us", "europe"), ("eu", "us")] {
        let report = net.the_link(at, peer).report(net.now);
        assert_verdict(&report.connected, VerdictStatus::False, "BadClusterName");
        assert_verdict(&report.peer_agrees, VerdictStatus::False, "BadClusterName");
    }
    net.unlink("us", "europe");
    net.link("us", half("eu", &["#"]));
    net.settle();
}

#[test]
fn only_the_side_that_may_dial_dials() {
    for (us, eu) in [(Dial::Out, Dial::In), (Dial::In, Dial::Both), (Dial::Both, Dial::In)] {
        let mut net = World::two(27);
        net.configure("us", "eu", |half| half.dial = us);
        net.configure("eu", "us", |half| half.dial = eu);
        net.subscribe("us", "t");
        net.settle();
        net.publish("eu", "t", "either way", QoS::AtLeastOnce);
        net.settle();
        assert_eq!(net.at("us").got, ["either way"], "{us:?} {eu:?}");
    }
}

#[test]
fn subscription_churn_does_not_flap_the_verdict() {
    let mut net = World::two(28);
    net.settle();
    for i in 0..500 {
        net.subscribe("eu", &format!("churn/{}", i % 50));
        net.unsubscribe("eu", &format!("churn/{}", (i + 25) % 50));
        net.run_for(Duration::from_millis(2));
        let synced = net.the_link("eu", "us").report(net.now).routes_synced;
        assert_verdict(&synced, VerdictStatus::True, "Synced");
    }
    net.settle();
    let wanted: Vec<Filter> = net.the_link("eu", "us").wanted().cloned().collect();
    assert_eq!(served(&net, "us", "eu").len(), wanted.len());
}

#[test]
fn what_a_half_presents_changes_under_an_open_connection() {
    let mut net = World::two(29);
    net.settle();
    let dialled = net.dialled;
    let secret = |password: &str| Credentials { username: "us".into(), password: password.into() };
    net.configure("us", "eu", |half| half.credentials = Some(secret("new")));
    net.configure("us", "eu", |half| half.forwarding.max_inflight = 7);
    net.configure("us", "eu", |half| half.acl.accept = vec!["a/#".into()]);
    net.run_for(SECOND);
    assert_eq!(net.dialled, dialled, "nobody had to dial again");
    net.configure("us", "eu", |half| half.inbound.credentials = Some(secret("revoked")));
    net.configure("eu", "us", |half| half.inbound.credentials = Some(secret("revoked")));
    net.run_for(SECOND);
    assert!(net.dialled > dialled, "whoever was let in must show what counts now");
    net.settle();
}
