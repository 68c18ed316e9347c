//! What who runs the broker sees and does.

use super::world::{World, v3, v5};
use crate::broker::core::{Fault, Kicked, Verdict};
use crate::mqtt::Filter;
use crate::settings::inventory::{RetainedQuery, SessionQuery};

fn all_sessions(w: &World, query: &SessionQuery) -> Vec<String> {
    let (mut names, mut place) = (Vec::new(), Some(0));
    while let Some(at) = place {
        let (page, next) = w.core.sessions_from(at, query, w.now);
        assert!(page.len() <= query.limit);
        names.extend(page.into_iter().map(|entry| entry.client_id));
        place = next;
    }
    names.sort();
    names
}

#[test]
fn pages_show_each_session_once() {
    let mut w = World::new();
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        ids.push(w.connect(v5(name).expiry(60)));
    }
    w.lose(ids[1]);
    let query = SessionQuery { limit: 2, ..SessionQuery::default() };
    assert_eq!(all_sessions(&w, &query), ["a", "b", "c", "d", "e"]);
    let connected = SessionQuery { connected: true, ..query.clone() };
    assert_eq!(all_sessions(&w, &connected), ["a", "c", "d", "e"]);
    let one = SessionQuery { client_id: Some("b".to_owned()), ..query.clone() };
    assert_eq!(all_sessions(&w, &one), ["b"]);
    let gone = SessionQuery { connected: true, ..one };
    assert_eq!(all_sessions(&w, &gone), [""; 0]);
}

#[test]
fn an_entry_says_how_a_session_is() {
    let mut w = World::new();
    let (a, b) = (w.connect(v5("a")), w.hello(&v3("b").resume().user("bob", "secret")));
    w.verdict(b, Verdict::Accepted);
    assert_eq!(w.heard(b), ["CONNACK Success"]);
    w.subscribe(b, "t/#", 1);
    w.run_for(7.0);
    w.publish(a, "t/1", 1, "sent");
    w.lose(b);
    w.publish(a, "t/1", 1, "waits");
    let query = SessionQuery { client_id: Some("b".to_owned()), ..SessionQuery::default() };
    let (page, next) = w.core.sessions_from(0, &query, w.now);
    assert_eq!(next, None);
    let entry = &page[0];
    assert_eq!((entry.connected, &*entry.protocol, entry.subscriptions), (false, "3.1.1", 1));
    assert_eq!(entry.queued + entry.in_flight, 2);
    assert!(entry.ends_in_s.is_some());
}

#[test]
fn who_is_kicked_is_told_and_may_come_back_to_its_session() {
    let mut w = World::new();
    let a = w.connect(v5("a").expiry(60));
    assert_eq!(w.core.kick("nobody", false, w.now), Kicked::Unknown);
    assert_eq!(w.core.kick("a", false, w.now), Kicked::Ends);
    assert_eq!(w.heard(a), ["DISCONNECT AdministrativeAction"]);
    w.lose(a);
    assert_eq!(w.closed(a), Some(Fault::Kicked));
    assert_eq!(w.core.kick("a", false, w.now), Kicked::Away);
    let a = w.hello(&v5("a").resume().expiry(60));
    assert_eq!(w.heard(a), ["CONNACK Success present"]);
    assert_eq!(w.core.kick("a", true, w.now), Kicked::Ends);
    w.lose(a);
    let a = w.hello(&v5("a").resume());
    assert_eq!(w.heard(a), ["CONNACK Success"]);
}

#[test]
fn a_forgotten_session_is_gone_also_when_nobody_is_connected() {
    let mut w = World::new();
    let a = w.connect(v5("a").expiry(60));
    w.lose(a);
    assert_eq!(w.core.kick("a", true, w.now), Kicked::Away);
    assert_eq!(w.core.levels().sessions, 0);
}

#[test]
fn retained_messages_are_listed_without_their_payloads_and_within_bounds() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    for topic in ["r/1", "r/2", "s/1"] {
        w.publish_with(a, topic, 0, "12345", true, &[]);
    }
    let query =
        |filter: &str, limit| RetainedQuery { filter: filter.to_owned(), limit, ..RetainedQuery::default() };
    let (entries, next) = w.core.retained_from(0, &query("r/#", 10), w.now);
    let mut topics: Vec<_> = entries.iter().map(|entry| (&*entry.topic, entry.bytes)).collect();
    topics.sort_unstable();
    assert_eq!((topics, next), (vec![("r/1", 5), ("r/2", 5)], None));
    let (entries, next) = w.core.retained_from(0, &query("#", 2), w.now);
    assert!(entries.len() == 2 && next.is_some());
    let (entries, next) = w.core.retained_from(0, &query("s/1", 2), w.now);
    assert_eq!((entries.len(), next), (1, None));
}

#[test]
fn what_is_retained_all_the_time_is_listed_once_though_pages_are_short_and_much_changes() {
    let mut w = World::new();
    let a = w.connect(v5("a"));
    let retain = |w: &mut World, topic: &str, payload: &str| w.publish_with(a, topic, 0, payload, true, &[]);
    for n in 0..300 {
        retain(&mut w, &format!("stays/{n}"), "x");
        retain(&mut w, &format!("goes/{n}"), "x");
    }
    let query = RetainedQuery { limit: 7, ..RetainedQuery::default() };
    let (mut seen, mut place, mut pages) = (Vec::new(), Some(0), 0);
    while let Some(at) = place {
        let (entries, next) = w.core.retained_from(at, &query, w.now);
        assert!(entries.len() <= 7 && pages < 1_000);
        seen.extend(entries.into_iter().map(|entry| entry.topic).filter(|topic| topic.starts_with("stays/")));
        retain(&mut w, &format!("goes/{pages}"), "");
        retain(&mut w, &format!("comes/{pages}/deep"), "x");
        retain(&mut w, &format!("stays/{}", pages % 300), "again");
        (place, pages) = (next, pages + 1);
    }
    seen.sort_unstable();
    let all = seen.len();
    seen.dedup();
    assert_eq!((all, seen.len()), (300, 300));
}

#[test]
fn the_brokers_own_topics_are_seen_by_who_names_them_only() {
    let mut w = World::new();
    let (all, own) = (w.connect(v5("all")), w.connect(v5("own")));
    w.subscribe(all, "#", 0);
    w.subscribe(own, "$SYS/#", 0);
    let peer = w.core.peer_open("eu");
    w.core.peer_route_add(peer, &Filter::parse("$SYS/#").expect("a filter"));
    w.core.publish_own("$SYS/broker/version", "1".to_owned(), w.now);
    assert_eq!(w.heard(own), ["$SYS/broker/version=1"]);
    assert_eq!(w.heard(all), [""; 0]);
    assert!(!w.core.has_port_events(), "it does not cross links");
    // They take no room from clients', and go when they are taken back.
    let own_again = w.connect(v5("again"));
    w.subscribe_with(own_again, "$SYS/#", super::world::options(0), None);
    assert_eq!(w.heard(own_again), ["SUBACK [0]", "$SYS/broker/version=1 retain"]);
    assert_eq!(w.core.levels().retained, 0);
    w.core.publish_own("$SYS/broker/version", String::new(), w.now);
    let late = w.connect(v5("late"));
    w.subscribe(late, "$SYS/#", 0);
    assert_eq!(w.heard(late), [""; 0]);
    w.heard(own);
    // Nor may clients publish there.
    w.publish(all, "$SYS/broker/version", 0, "2");
    assert_eq!(w.heard(own), [""; 0]);
}
