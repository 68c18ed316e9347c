//! Enhanced authentication: who may send AUTH when, and what becomes of it.

use super::world::{World, v3, v5};
use crate::broker::core::{Answer, ConnectionId, Fault};
use crate::mqtt::{Auth, Packet, PropertiesBuf, Property, ReasonCode, Violation};

const METHOD: Property = Property::AuthenticationMethod("M");

fn auth(w: &mut World, id: ConnectionId, reason: ReasonCode, method: &str, data: &str) {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::AuthenticationMethod(method));
    properties.push(Property::AuthenticationData(data.as_bytes()));
    w.send(id, &Packet::Auth(Auth { reason, properties: properties.as_properties() }));
}

fn go_on(w: &mut World, id: ConnectionId, reason: ReasonCode, data: &str) {
    auth(w, id, reason, "M", data);
}

fn answer(w: &mut World, id: ConnectionId, answer: Answer) {
    let now = w.now;
    w.core.handle_exchange(id, answer, now);
    w.settle();
}

fn more(data: &'static str) -> Answer {
    Answer::Continue { data: data.into(), context: "kept".into() }
}

fn accepted(username: &str) -> Answer {
    Answer::Accepted { username: username.into(), data: "proof".into() }
}

/// A client that is let in after one question.
fn let_in(w: &mut World) -> ConnectionId {
    let id = w.hello(&v5("a").with(METHOD).with(Property::AuthenticationData(b"first")));
    answer(w, id, more("question"));
    go_on(w, id, ReasonCode::ContinueAuthentication, "last");
    answer(w, id, accepted("ann"));
    id
}

#[test]
fn a_client_is_asked_and_let_in() {
    let mut w = World::new();
    let id = let_in(&mut w);
    assert_eq!(w.exchanged, [(id, "M [] first".to_owned()), (id, "M [kept] last".to_owned())]);
    let lines = w.heard_in_full(id);
    // [MQTT-4.12.0-2] [MQTT-4.12.0-5]
    assert!(lines[0].contains("ContinueAuthentication") && lines[0].contains("AuthenticationMethod(\"M\")"));
    assert!(lines[1].starts_with("CONNACK Success"), "{lines:?}");
    assert!(lines[1].contains("AuthenticationMethod(\"M\") AuthenticationData("), "{lines:?}");
    assert_eq!(lines.len(), 2); // [MQTT-3.2.0-1] [MQTT-3.2.0-2]
}

#[test]
fn who_fails_or_names_a_method_that_is_not_known_stays_outside() {
    let cases = [
        (Answer::Refused, "CONNACK NotAuthorized", Fault::NotAuthorized), // [MQTT-4.12.0-4]
        (Answer::Unsupported, "CONNACK BadAuthenticationMethod", Fault::BadAuthenticationMethod), // [MQTT-4.12.0-1]
    ];
    for (verdict, expected, fault) in cases {
        let mut w = World::new();
        let id = w.hello(&v5("a").with(METHOD));
        answer(&mut w, id, verdict);
        assert_eq!(w.heard(id), [expected]);
        assert_eq!(w.closed(id), Some(fault)); // [MQTT-3.2.2-7] [MQTT-4.13.2-1]
        assert_eq!(w.core.levels().sessions, 0);
    }
    let mut w = World::new();
    let id = w.hello(&v5("a").with(METHOD).user("bob", ""));
    answer(&mut w, id, accepted("ann"));
    assert_eq!(w.heard(id), ["CONNACK NotAuthorized"], "CONNECT names another user");
}

#[test]
fn until_it_is_in_a_client_sends_auth_and_disconnect_only() {
    let asked = |w: &mut World| {
        let id = w.hello(&v5("a").with(METHOD));
        answer(w, id, more("question"));
        w.heard(id);
        id
    };
    let mut w = World::new();
    let id = asked(&mut w);
    w.send(id, &Packet::PingReq);
    assert_eq!(w.closed(id), Some(Fault::Violation(Violation::UnexpectedPacket))); // [MQTT-3.1.2-30]
    let id = asked(&mut w);
    go_on(&mut w, id, ReasonCode::ReAuthenticate, "last");
    assert_eq!(w.closed(id), Some(Fault::Violation(Violation::UnexpectedPacket))); // [MQTT-4.12.0-3]
    let id = asked(&mut w);
    auth(&mut w, id, ReasonCode::ContinueAuthentication, "other", "last");
    assert_eq!(w.closed(id), Some(Fault::BadAuthenticationMethod));
    let id = asked(&mut w);
    w.disconnect(id, ReasonCode::Success);
    assert_eq!(w.closed(id), Some(Fault::ClientLeft));
    assert!(w.heard(id).is_empty(), "a CONNACK here would say that it is let in");
    let id = asked(&mut w);
    w.run_for(11.0);
    assert_eq!(w.closed(id), Some(Fault::ConnectTimeout));
}

#[test]
fn who_named_no_method_neither_gets_nor_sends_auth() {
    let mut w = World::new();
    let id = w.hello(&v5("a"));
    assert!(!w.heard_in_full(id).concat().contains("Authentication")); // [MQTT-4.12.0-6]
    go_on(&mut w, id, ReasonCode::ReAuthenticate, "first");
    assert_eq!(w.closed(id), Some(Fault::Violation(Violation::UnexpectedPacket))); // [MQTT-4.12.0-7]
    let old = w.connect(v3("old"));
    w.send_bytes(old, b"\xf0\x00");
    assert_eq!(w.closed(old), Some(Fault::Violation(Violation::ReservedPacketType)));
}

#[test]
fn a_client_authenticates_again_and_goes_on_meanwhile() {
    let mut w = World::new();
    let id = let_in(&mut w);
    w.heard(id);
    go_on(&mut w, id, ReasonCode::ReAuthenticate, "again");
    answer(&mut w, id, more("question"));
    w.send(id, &Packet::PingReq);
    go_on(&mut w, id, ReasonCode::ContinueAuthentication, "last");
    answer(&mut w, id, accepted("ann"));
    let lines = w.heard(id);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("ContinueAuthentication") && lines[1] == "PingResp");
    assert!(lines[2].contains("Success"));
    assert_eq!(w.closed(id), None);
}

#[test]
fn who_fails_to_authenticate_again_is_sent_away() {
    for verdict in [Answer::Refused, accepted("bob")] {
        let mut w = World::new();
        let id = let_in(&mut w);
        w.heard(id);
        go_on(&mut w, id, ReasonCode::ReAuthenticate, "again");
        answer(&mut w, id, verdict);
        assert_eq!(w.heard(id), ["DISCONNECT NotAuthorized"]); // [MQTT-4.12.1-2]
        assert_eq!(w.closed(id), Some(Fault::NotAuthorized));
    }
    let mut w = World::new();
    let id = let_in(&mut w);
    auth(&mut w, id, ReasonCode::ReAuthenticate, "other", "again");
    assert_eq!(w.closed(id), Some(Fault::BadAuthenticationMethod)); // [MQTT-4.12.1-1]
}
