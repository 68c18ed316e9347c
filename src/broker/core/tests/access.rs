//! Rules: who may do what, and what happens to those who did what they no longer may.

use super::node::Node;
use super::world::{World, v3, v5};
use crate::broker::core::access::{Access, Principal, Rules};
use crate::broker::core::{Effect as CoreEffect, Fault, Grants, Origin, Verdict};
use crate::mqtt::{Filter, ReasonCode};
use crate::settings::{AccessRule, Action, Authorization, Effect, Principals};

pub(super) fn allow(action: Action, filters: &[&str]) -> AccessRule {
    let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
    AccessRule { principals: Principals::default(), action, filters, effect: Effect::Allow }
}

fn deny(action: Action, filters: &[&str]) -> AccessRule {
    AccessRule { effect: Effect::Deny, ..allow(action, filters) }
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

impl AccessRule {
    fn users(mut self, names: &[&str]) -> AccessRule {
        self.principals.users = list(names);
        self
    }
    fn client_ids(mut self, ids: &[&str]) -> AccessRule {
        self.principals.client_ids = list(ids);
        self
    }
    fn certificates(mut self, names: &[&str]) -> AccessRule {
        self.principals.certificate_names = list(names);
        self
    }
    fn cidrs(mut self, cidrs: &[&str]) -> AccessRule {
        self.principals.cidrs = list(cidrs);
        self
    }
}

pub(super) fn rules(rules: Vec<AccessRule>) -> Authorization {
    Authorization { default_effect: Effect::Deny, rules }
}

/// Who asks: user, client id, certificate name, address.
fn who(username: Option<&str>, client_id: &str) -> Principal {
    let origin = Origin {
        address: Some("10.1.2.3".parse().unwrap()),
        certificate_names: list(&["dev.example"]),
        ..Origin::default()
    };
    Principal::new(username.map(Into::into), client_id.into(), origin, None)
}

/// `publish t`, `subscribe f`: what ann, who is `c1`, may.
#[track_caller]
fn check(settings: &Authorization, table: &[(&str, bool)]) {
    check_as(settings, Some("ann"), "c1", table);
}

#[track_caller]
fn check_as(settings: &Authorization, username: Option<&str>, client_id: &str, table: &[(&str, bool)]) {
    let access = Access { rules: Some(Rules::new(settings, 7)), ..Access::default() };
    let who = who(username, client_id);
    for (line, expected) in table {
        let (verb, what) = line.split_once(' ').unwrap();
        let may = match verb {
            "publish" => access.may_publish(&who, what),
            _ => access.may_subscribe(&who, &Filter::parse(what).unwrap()),
        };
        assert_eq!(may, *expected, "{username:?} {client_id}: {line}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let settings = rules(vec![
        deny(Action::Publish, &["a/secret"]),
        allow(Action::All, &["a/#"]),
        deny(Action::All, &["a/b"]),
        allow(Action::Subscribe, &["s/+"]),
    ]);
    check(
        &settings,
        &[
            ("publish a/secret", false),
            ("subscribe a/secret", true),
            ("publish a/b", true),
            ("publish a", true),
            ("publish s/x", false),
            ("subscribe s/x", true),
            ("publish b", false),
        ],
    );
    check(&rules(Vec::new()), &[("publish a", false), ("subscribe a", false)]);
    let open =
        Authorization { default_effect: Effect::Allow, ..rules(vec![deny(Action::Publish, &["a/#"])]) };
    check(
        &open,
        &[("publish a/b", false), ("publish b", true), ("subscribe #", true), ("subscribe $SYS/#", true)],
    );
}

#[test]
fn a_filter_with_a_name_decides_as_one_in_which_the_name_is_written() {
    let (username, client_id) = ("ann", "c1");
    let with = ["", "x", "/", "+/", "a/+/", "a/x"].map(|before| {
        ["", "y", "/#", "/+", "/+/b", "/b/#"].map(|behind| {
            [format!("{before}${{username}}{behind}"), format!("{before}${{clientid}}/${{username}}{behind}")]
        })
    });
    let asked = ["", "x", "/", "q/", "+/", "a/q/", "a/+/", "a/x", "a/"].map(|before| {
        ["", "y", "/#", "/+", "/q", "/q/b", "/+/b", "/b/#", "/b/q", "/b"].map(|behind| {
            [
                format!("{before}ann{behind}"),
                format!("{before}c1/ann{behind}"),
                format!("{before}bob{behind}"),
            ]
        })
    });
    let mut count = 0;
    for template in with.iter().flatten().flatten().filter(|text| Filter::parse(text).is_ok()) {
        let written = template.replace("${username}", username).replace("${clientid}", client_id);
        for rule in [allow, deny] {
            let access = [&**template, &*written].map(|filter| {
                let settings = Authorization {
                    default_effect: if rule(Action::All, &[]).effect == Effect::Deny {
                        Effect::Allow
                    } else {
                        Effect::Deny
                    },
                    rules: vec![rule(Action::All, &[filter])],
                };
                Access { rules: Some(Rules::new(&settings, 7)), ..Access::default() }
            });
            for what in asked.iter().flatten().flatten() {
                let who = || who(Some(username), client_id);
                let [one, two] = access.each_ref().map(|access| access.may_publish(&who(), what));
                assert_eq!(one, two, "{template}: publish {what}");
                let Ok(filter) = Filter::parse(what) else { continue };
                let [one, two] = access.each_ref().map(|access| access.may_subscribe(&who(), &filter));
                assert_eq!(one, two, "{template}: subscribe {what}");
                count += 1;
            }
        }
    }
    assert!(count > 10_000, "{count}");
}

#[test]
fn a_subscription_needs_all_topics_of_its_filter() {
    let settings =
        rules(vec![deny(Action::All, &["a/secret/#", "+/+/private"]), allow(Action::All, &["a/#", "b/+"])]);
    check(
        &settings,
        &[
            ("subscribe a/b", true),
            ("subscribe a/b/c", true),
            ("subscribe a/b/private", false),
            ("subscribe a/#", false),
            ("subscribe a/+", false),
            ("subscribe a/secret", false),
            ("subscribe a/+/+", false),
            ("subscribe a/b/+", false),
            ("subscribe b/+", true),
            ("subscribe b/#", false),
            ("subscribe +/x", false),
            ("subscribe #", false),
        ],
    );
    let all = rules(vec![allow(Action::All, &["#"])]);
    check(
        &all,
        &[("subscribe #", true), ("subscribe +/+", true), ("subscribe $SYS/#", false), ("publish $a", false)],
    );
}

#[test]
fn each_list_of_principals_must_name_the_client() {
    let yes = [("publish t", true)];
    let no = [("publish t", false)];
    let any = || allow(Action::All, &["t"]);
    for (rule, expected) in [
        (any(), yes),
        (any().users(&["bob", "ann"]), yes),
        (any().users(&["bob"]), no),
        (any().client_ids(&["c1"]), yes),
        (any().client_ids(&["c2"]), no),
        (any().certificates(&["dev.example"]), yes),
        (any().certificates(&["example"]), no),
        (any().cidrs(&["192.168.0.0/16", "10.0.0.0/8"]), yes),
        (any().cidrs(&["10.2.0.0/16"]), no),
        (any().users(&["ann"]).client_ids(&["c1"]).cidrs(&["10.0.0.0/8"]), yes),
        (any().users(&["ann"]).client_ids(&["c2"]), no),
    ] {
        check(&rules(vec![rule]), &expected);
    }
    check_as(&rules(vec![any().users(&["ann"])]), None, "ann", &no);
}

#[test]
fn names_in_filters_are_the_clients_own_and_cannot_escape() {
    let own = || allow(Action::All, &["u/${username}/#", "c/x${clientid}y", "${username}/${clientid}"]);
    let settings = rules(vec![own()]);
    check(
        &settings,
        &[
            ("publish u/ann/x", true),
            ("subscribe u/ann/#", true),
            ("publish u/bob/x", false),
            ("subscribe u/+/x", false),
            ("publish c/xc1y", true),
            ("publish c/xc2y", false),
            ("publish ann/c1", true),
            ("publish u/${username}/x", false),
        ],
    );
    for name in ["+", "#", "a/b", "", "$SYS", "a+", "x#", "/", "\0"] {
        check_as(
            &settings,
            Some(name),
            name,
            &[
                ("publish u/bob/x", false),
                ("publish u/a/b/x", false),
                ("publish u//x", false),
                ("publish u", false),
                ("subscribe u/+/#", false),
                ("subscribe u/#", false),
                ("subscribe $SYS/#", false),
                ("subscribe $SYS/$SYS", false),
                ("publish c/xa/by", false),
                ("subscribe +/+", false),
            ],
        );
    }
    check_as(
        &settings,
        None,
        "c1",
        &[("publish u//x", false), ("publish u/ann/x", false), ("publish c/xc1y", true)],
    );
}

#[test]
fn no_name_narrows_what_is_denied() {
    let settings = rules(vec![
        deny(Action::All, &["u/x${username}/secret", "${username}/own"]),
        allow(Action::All, &["#", "$SYS/#"]),
    ]);
    check(
        &settings,
        &[("publish u/xann/secret", false), ("publish u/xbob/secret", true), ("publish ann/own", false)],
    );
    for name in ["+", "a/b", "", "x#"] {
        let denied =
            [("publish u/xbob/secret", false), ("subscribe u/a/secret", false), ("publish b/own", false)];
        check_as(&settings, Some(name), "c1", &denied);
    }
    check_as(&settings, Some("$SYS"), "c1", &[("publish $SYS/own", false), ("publish $SYS/other", true)]);
    check_as(&settings, None, "c1", &[("publish u/xbob/secret", false)]);
}

#[test]
fn settings_that_were_not_checked_deny_everything() {
    let bad = [
        allow(Action::All, &["a/#/b"]),
        allow(Action::All, &["${user}"]),
        allow(Action::All, &["#"]).cidrs(&["10.0.0.0"]),
    ];
    for rule in bad {
        check(
            &rules(vec![allow(Action::All, &["#"]), rule]),
            &[("publish t", false), ("subscribe t", false)],
        );
    }
    check(&rules(vec![allow(Action::All, &["#"]); 65]), &[("publish t", false)]);
    check(
        &rules(vec![deny(Action::All, &["x"]); 63].into_iter().chain([allow(Action::All, &["#"])]).collect()),
        &[("publish t", true)],
    );
}

pub(super) fn world(rules: &Authorization) -> World {
    let mut world = World::new();
    change(&mut world, Some(rules));
    world
}

fn change(world: &mut World, rules: Option<&Authorization>) {
    world.core.set_access(rules, false);
    world.settle();
}

#[test]
fn a_client_hears_what_it_may_not() {
    let mut w = world(&rules(vec![allow(Action::Publish, &["p/#"]), allow(Action::Subscribe, &["s/#"])]));
    let a = w.connect(v5("a"));
    for (filter, ack) in [("s/1", "SUBACK [1]"), ("p/1", "SUBACK [135]"), ("$share/g/s/2", "SUBACK [1]")] {
        w.subscribe_with(a, filter, super::world::options(1), None);
        assert_eq!(w.heard(a), [ack], "{filter}");
    }
    w.subscribe_with(a, "$share/g/p/2", super::world::options(1), None);
    assert_eq!(w.heard(a), ["SUBACK [135]"]);
    w.publish(a, "p/1", 1, "x");
    w.publish(a, "s/1", 1, "x");
    w.publish(a, "s/1", 2, "x");
    w.publish(a, "p/1", 2, "x");
    w.publish(a, "s/1", 0, "x");
    assert_eq!(
        w.heard(a),
        [
            "PUBACK 1 NoMatchingSubscribers",
            "PUBACK 1 NotAuthorized",
            "PUBREC 1 NotAuthorized",
            "PUBREC 1 NoMatchingSubscribers"
        ]
    );
    assert_eq!(w.core.counters().dropped_not_authorized, 3);
    let told: Vec<(_, &str)> = w.denied.iter().map(|(id, what)| (*id, what.as_str())).collect();
    let shared = "Subscribe $share/g/p/2";
    assert_eq!(
        told,
        ["Subscribe p/1", shared, "Publish s/1", "Publish s/1", "Publish s/1"].map(|what| (a, what))
    );

    // A flood is one line of the log: a few bytes with an alias in them may name a topic of many.
    w.denied.clear();
    w.send_bytes(a, &b"\x30\x07\0\x03s/2\0x".repeat(100));
    assert_eq!(w.denied, [(a, "Publish s/2".to_owned())]);

    // 3.1.1 cannot say it of a PUBLISH: the message is dropped, and acknowledged all the same.
    let b = w.connect(v3("b"));
    w.subscribe_with(b, "p/1", super::world::options(1), None);
    w.publish(b, "s/1", 1, "x");
    assert_eq!(w.heard(b), ["SUBACK [128]", "PUBACK 1"]);
    assert_eq!(w.core.counters().dropped_not_authorized, 104);
}

#[test]
fn a_will_is_checked_when_it_is_left_and_when_it_is_published() {
    let both = rules(vec![allow(Action::All, &["w/#"])]);
    let mut w = world(&both);
    let refused = w.hello(&v5("a").will("other", "gone", 0));
    assert_eq!(w.heard(refused), ["CONNACK NotAuthorized"]);
    let watcher = w.connect(v5("watcher"));
    w.subscribe(watcher, "w/+", 0);
    let (a, b) = (w.connect(v5("a").will("w/a", "gone", 0)), w.connect(v5("b").will("w/b", "gone", 0)));
    w.lose(a);
    assert_eq!(w.heard(watcher), ["w/a=gone"]);
    change(&mut w, Some(&rules(vec![allow(Action::Subscribe, &["w/#"])])));
    w.lose(b);
    assert_eq!(w.heard(watcher), Vec::<String>::new());
}

#[test]
fn changed_rules_hold_for_those_who_are_here_and_those_who_are_away() {
    let before = rules(vec![allow(Action::All, &["a/#", "b/#"])]);
    let after = rules(vec![allow(Action::All, &["a/#"])]);
    let mut w = world(&before);
    let names = ["stays", "loses", "away", "publisher"];
    let [stays, loses, away, publisher] = names.map(|name| w.connect(v5(name).expiry(100)));
    w.subscribe(stays, "a/1", 1);
    for id in [loses, away] {
        w.subscribe(id, "a/1", 1);
        w.subscribe(id, "b/1", 1);
    }
    w.publish(publisher, "b/1", 0, "before");
    assert_eq!(w.heard(loses), ["b/1=before"]);
    w.heard(away);
    w.lose(away);

    change(&mut w, Some(&after));
    assert_eq!(w.heard(loses), ["DISCONNECT NotAuthorized"]);
    assert_eq!(w.core.levels().subscriptions, 3);
    w.publish(publisher, "b/1", 1, "after");
    w.publish(publisher, "a/1", 1, "after");
    assert_eq!(w.heard(publisher), ["PUBACK 1 NotAuthorized", "PUBACK 1"]);
    assert_eq!(w.heard(stays), ["a/1=after q1 #1"]);
    let away = w.hello(&v5("away").resume().expiry(100));
    assert_eq!(w.heard(away), ["CONNACK Success present", "a/1=after q1 #1"]);

    // The same again changes nothing; no rules at all allow everything.
    change(&mut w, Some(&after));
    change(&mut w, None);
    w.subscribe(stays, "b/1", 1);
}

/// All that rules may go by is known of it: user, token, certificate and address.
#[test]
fn changed_rules_hold_for_those_who_were_away_over_a_restart() {
    let mine = |name: &str| allow(Action::All, &[name]);
    let before = rules(vec![
        mine("user").users(&["ann"]),
        mine("near").cidrs(&["10.0.0.0/8"]),
        mine("named").certificates(&["dev.example"]),
        mine("w"),
    ]);
    let after = rules(before.rules[..3].to_vec());
    let own = Grants { rules: vec![mine("token")], is_final: false };
    let ann = Verdict::Token { username: "ann".into(), until: None, key: 1, grants: Some(own) };
    let known = Origin {
        address: Some("10.0.0.1".parse().unwrap()),
        certificate_names: list(&["dev.example"]),
        ..Origin::default()
    };
    for while_down in [true, false] {
        let mut w = world(&before).with_store();
        let id = w.hello_from(known.clone(), &v5("away").expiry(100).user("ann", "x").will("w", "gone", 5));
        w.verdict(id, ann.clone());
        w.heard(id);
        for filter in ["user", "near", "named", "token", "w"] {
            w.subscribe(id, filter, 1);
        }
        w.lose(id);
        w.crash(1.0);
        assert_eq!(w.core.levels().subscriptions, 5);
        if while_down {
            w.core.set_access(Some(&after), false); // and it has no time to look who is away
            w.crash(1.0);
        } else {
            change(&mut w, Some(&after));
        }
        assert_eq!(w.core.levels().subscriptions, 4);
        change(&mut w, Some(&rules(vec![mine("w").users(&["bob"]), mine("user").users(&["ann"])])));
        assert_eq!(w.core.levels().subscriptions, 2);
        let bob = w.hello(&v5("bob").user("bob", "x"));
        w.verdict(bob, Verdict::Accepted);
        w.heard(bob);
        w.subscribe(bob, "w", 1);
        w.publish(bob, "w", 1, "denied");
        assert_eq!(w.heard(bob), ["w=denied q1 #1", "PUBACK 1"]);
        w.run_for(6.0);
        assert_eq!(w.heard(bob), Vec::<String>::new());
        let id = w.hello(&v5("away").resume().expiry(100).user("ann", "x"));
        w.verdict(id, ann.clone());
        assert_eq!(w.heard(id), ["CONNACK Success present"]);
    }
}

#[test]
fn to_ask_many_rules_is_work() {
    let mine = ["a/${clientid}/1", "a/${clientid}/2", "a/${clientid}/3"];
    let mut w = world(&rules(vec![allow(Action::All, &mine); 60]));
    let a = w.connect(v5("a"));
    let cost = |w: &mut World, topic: &str| {
        let before = w.core.routed();
        w.publish(a, topic, 0, "x");
        w.core.routed() - before
    };
    let (first, again) = (cost(&mut w, "a/a/3"), cost(&mut w, "a/a/3"));
    assert!(first - again >= 180 * 64, "{first} {again}");
    let before = w.core.routed();
    w.subscribe(a, "a/a/3", 0);
    assert!(w.core.routed() - before >= 180 * 64);
}

#[test]
fn a_session_is_checked_against_who_comes_back_to_it() {
    let mut w =
        world(&rules(vec![allow(Action::All, &["#"]).cidrs(&["10.0.0.0/8"]), allow(Action::All, &["a"])]));
    let near = Origin { address: Some("10.0.0.1".parse().unwrap()), ..Origin::default() };
    let first = w.hello_from(near, &v5("a").expiry(100));
    w.heard(first);
    w.subscribe(first, "a", 1);
    w.subscribe(first, "b", 1);
    w.lose(first);
    let far = Origin { address: Some("192.0.2.1".parse().unwrap()), ..Origin::default() };
    w.hello_from(far, &v5("a").resume());
    assert_eq!(w.core.levels().subscriptions, 1);
}

#[test]
fn a_client_id_belongs_to_its_user_while_the_session_lives() {
    let mut w = World::new();
    let login = |w: &mut World, name: &'static str, clean: bool| {
        let hello = v5("dev").expiry(10).user(name, "x");
        let id = w.hello(&if clean { hello } else { hello.resume() });
        w.verdict(id, Verdict::Accepted);
        (id, w.heard(id))
    };
    let (ann, heard) = login(&mut w, "ann", true);
    assert_eq!(heard, ["CONNACK Success"]);
    for clean in [true, false] {
        assert_eq!(login(&mut w, "bob", clean).1, ["CONNACK ClientIdentifierNotValid"]);
    }
    let nobody = w.hello(&v3("dev"));
    assert_eq!(w.heard(nobody), ["CONNACK ClientIdentifierNotValid"]);
    assert_eq!(w.heard(ann), Vec::<String>::new());
    w.lose(ann);
    assert_eq!(login(&mut w, "bob", false).1, ["CONNACK ClientIdentifierNotValid"]);
    let (ann, heard) = login(&mut w, "ann", false);
    assert_eq!(heard, ["CONNACK Success present"]);
    w.lose(ann);
    w.run_for(11.0);
    assert_eq!(login(&mut w, "bob", false).1, ["CONNACK Success"]);

    // What an anonymous client made is anyone's.
    let first = w.connect(v5("shared").expiry(10));
    let user = w.hello(&v5("shared").user("ann", "x").resume());
    w.verdict(user, Verdict::Accepted);
    assert_eq!(w.heard(user), ["CONNACK Success present"]);
    assert_eq!(w.heard(first), ["DISCONNECT SessionTakenOver"]);
}

#[test]
fn the_owner_of_a_session_survives_an_export() {
    let mut w = World::new();
    let ann = w.hello(&v5("dev").expiry(10).user("ann", "x"));
    w.verdict(ann, Verdict::Accepted);
    w.lose(ann);
    let exported = w.core.export_session("dev", w.now).unwrap();
    let mut other = World::new();
    other.core.import_session(&exported, other.now).unwrap();
    let bob = other.hello(&v5("dev").user("bob", "x"));
    other.verdict(bob, Verdict::Accepted);
    assert_eq!(other.heard(bob), ["CONNACK ClientIdentifierNotValid"]);
}

#[test]
fn a_certificate_says_who_the_client_is() {
    let mut w = world(&rules(vec![allow(Action::All, &["${username}/#"])]));
    w.core.set_policy(crate::settings::Limits::default(), false);
    let origin = Origin { certificate_user: Some("dev".into()), ..Origin::default() };
    let id = w.hello_from(origin, &v5("a").user("root", "whatever"));
    assert_eq!(w.heard(id), ["CONNACK Success"]);
    assert!(w.asked.is_empty());
    w.subscribe(id, "dev/x", 0);
    w.subscribe_with(id, "root/x", super::world::options(0), None);
    assert_eq!(w.heard(id), ["SUBACK [135]"]);
}

#[test]
fn a_token_names_the_user_and_ends_the_connection() {
    let mut w = world(&rules(vec![allow(Action::All, &["${username}/#"])]));
    w.core.set_policy(crate::settings::Limits::default(), false);
    let id = w.hello(&v5("a").keep_alive(3).user("", "token"));
    let until = Some(w.now + std::time::Duration::from_secs(2));
    w.verdict(id, Verdict::Token { username: "ann".into(), until, key: 1, grants: None });
    assert_eq!(w.heard(id), ["CONNACK Success"]);
    w.subscribe(id, "ann/x", 0);
    w.run_for(1.5);
    assert_eq!(w.closed(id), None);
    w.run_for(1.0);
    assert_eq!(w.closed(id), Some(Fault::TokenExpired));
    assert_eq!(w.heard(id), ["DISCONNECT MaximumConnectTime"]);
    assert!(ReasonCode::MaximumConnectTime.is_error());
}

#[test]
fn changed_rules_are_applied_a_part_at_a_time_and_hold_at_once_for_what_is_new() {
    let before = rules(vec![allow(Action::All, &["a/#", "b/#"])]);
    let after = rules(vec![allow(Action::All, &["a/#"])]);
    let mut w = world(&before);
    const EACH: usize = 500;
    let all: Vec<_> = (0..40).map(|n| w.connect(v5(format!("c{n}").leak()).expiry(100))).collect();
    for &id in &all {
        for n in 0..EACH {
            w.subscribe(id, &format!("b/{n}"), 0);
        }
        w.subscribe(id, "a/stays", 0);
    }
    assert!(w.core.is_granted(all[0], "b/x"));
    w.core.set_access(Some(&after), false);
    assert!(!w.core.is_granted(all[0], "b/x"), "new rules hold at once for what is new");

    let mut parts = 0;
    let mut left = w.core.levels().subscriptions;
    while w.core.has_work() {
        w.core.handle_work(w.now);
        let now = w.core.levels().subscriptions;
        assert!(left - now <= 2 * EACH, "a part removed {}", left - now);
        (left, parts) = (now, parts + 1);
    }
    assert!(parts > 10, "it took {parts} parts");
    assert_eq!(w.core.levels().subscriptions, all.len());
    w.settle();
    assert!(all.iter().all(|&id| w.closed(id) == Some(Fault::NotAuthorized)));
}

/// The SUBACK waits for other shards: it may be long in coming, and would say what is not so any more.
#[test]
fn who_is_in_the_midst_of_a_subscribe_that_new_rules_forbid_is_closed_without_an_answer() {
    let mut node = Node::new(2, 1);
    let client = node.connect_on(0, "client-");
    node.settle();
    let id = node.clients[client].id;
    node.subscribe(client, "t", 0);
    node.turn(0);
    node.cores[0].set_access(Some(&rules(vec![deny(Action::Subscribe, &["t"])])), false);
    let now = node.now;
    while node.cores[0].has_work() {
        node.cores[0].handle_work(now);
    }
    let ends = CoreEffect::Close { connection: id, fault: Fault::NotAuthorized };
    assert!(std::iter::from_fn(|| node.cores[0].poll_effect()).any(|effect| effect == ends));
    node.settle();
    assert!(node.clients[client].answers.is_empty(), "{:?}", node.clients[client].answers);
}

#[test]
fn who_comes_and_goes_during_a_review_keeps_nothing_that_is_denied() {
    let mut w = world(&rules(vec![allow(Action::All, &["#"])]));
    let [takes_over, ends, resubscribes] = ["takes-over", "ends", "resubscribes"].map(|name| {
        let id = w.connect(v5(name).expiry(if name == "ends" { 0 } else { 100 }));
        (0..3000).for_each(|n| w.subscribe(id, &format!("b/{n}"), 0));
        id
    });
    let none = rules(vec![allow(Action::All, &["a"])]);
    w.core.set_access(Some(&none), false);
    w.core.handle_work(w.now);
    for id in [takes_over, ends, resubscribes] {
        w.core.handle_closed(id, w.now);
    }
    // Other rules again, in the midst of it.
    w.core.set_access(Some(&rules(vec![allow(Action::All, &["a", "b/7"])])), false);
    w.core.handle_work(w.now);
    let back = w.hello(&v5("takes-over").resume().expiry(100));
    let other = w.connect(v5("ends"));
    w.subscribe(other, "a", 0);
    assert!(w.core.levels().subscriptions <= 3, "{:?}", w.core.levels());
    assert_eq!((w.closed(other), w.closed(back)), (None, None));
}

fn grants(rules: Vec<AccessRule>, is_final: bool) -> Option<Grants> {
    Some(Grants { rules, is_final })
}

#[test]
fn the_rules_of_a_token_come_first() {
    let ours = rules(vec![allow(Action::All, &["ours/#"]), deny(Action::All, &["#"])]);
    let own = vec![
        deny(Action::Publish, &["ours/not"]),
        allow(Action::All, &["own/${clientid}/#"]),
        allow(Action::Subscribe, &["s"]),
    ];
    for (settings, is_final, ours_too) in
        [(Some(&ours), false, true), (Some(&ours), true, false), (None, false, false), (None, true, false)]
    {
        let mut w = World::new();
        change(&mut w, settings);
        let id = w.hello(&v5("c1").user("", "token"));
        let grants = grants(own.clone(), is_final);
        w.verdict(id, Verdict::Token { username: "ann".into(), until: None, key: 1, grants });
        w.heard(id);
        let mut may = |topic: &str| {
            w.publish(id, topic, 1, "");
            w.heard(id) == ["PUBACK 1 NoMatchingSubscribers"]
        };
        let got = ["own/c1/x", "own/c2/x", "ours/x", "ours/not", "other", "s"].map(&mut may);
        assert_eq!(got, [true, false, ours_too, false, false, false], "{settings:?} {is_final}");
        for (filter, expected) in [("own/c1/#", 0), ("s", 0), ("own/#", 135), ("#", 135)] {
            w.subscribe_with(id, filter, super::world::options(0), None);
            assert_eq!(w.heard(id), [format!("SUBACK [{expected}]")], "{filter}");
        }
        // Who has no token is as before.
        let other = w.connect(v5("other"));
        w.publish(other, "other", 1, "");
        let word = if settings.is_some() { " NotAuthorized" } else { " NoMatchingSubscribers" };
        assert_eq!(w.heard(other), [format!("PUBACK 1{word}")]);
    }
}

#[test]
fn a_session_keeps_to_the_token_that_comes_back_to_it() {
    let mut w = World::new();
    let login = |w: &mut World, filter: &str| {
        let id = w.hello(&v5("c1").user("", "token").resume().expiry(100));
        let grants = grants(vec![allow(Action::Subscribe, &[filter])], true);
        w.verdict(id, Verdict::Token { username: "ann".into(), until: None, key: 1, grants });
        w.heard(id);
        id
    };
    let first = login(&mut w, "a/#");
    w.subscribe(first, "a/1", 0);
    login(&mut w, "a/#");
    assert_eq!(w.core.levels().subscriptions, 1);
    login(&mut w, "b/#");
    assert_eq!(w.core.levels().subscriptions, 0);
}
