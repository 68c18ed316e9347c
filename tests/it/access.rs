//! Who may connect, and what nobody may touch.

use crate::clients::{Kind, Mosquitto, Paho, Post, Rumqttc, Who, refused_publish};
use crate::harness::{Node, SettingsExt, settings};

/// CONNACK's codes for a bad user name or password, and for not authorised: 4 and 5 in 3.1.1, which paho translates
/// to those of 5.0.
fn is_refusal(code: u8) -> bool {
    matches!(code, 4 | 5 | 0x86 | 0x87)
}

#[test]
fn only_users_with_their_password_get_in() {
    let node = Node::start(settings().users(&[("ada", "plain:engine")]));
    let clients: [&dyn Kind; 2] = [&Paho, &Rumqttc];
    for kind in clients {
        for v5 in [false, true] {
            let who = node.who().version(v5).named("visitor");
            let connect = |who: &Who| kind.connect(who).0;
            assert_eq!(connect(&who.clone().login("ada", "engine")), 0, "{}", kind.name());
            let strangers = [who.clone(), who.clone().login("ada", "motor"), who.login("eve", "engine")];
            for stranger in strangers {
                let code = connect(&stranger);
                assert!(is_refusal(code), "{}: {stranger:?} got {code}", kind.name());
            }
        }
    }
    Mosquitto.publish(&node.who().login("ada", "engine"), &[Post::new("a", "b", 1)]);
}

#[test]
fn nobody_gets_in_unless_somebody_may() {
    let node = Node::start(settings().users(&[]));
    let (code, _connection) = Paho.connect(&node.who());
    assert!(is_refusal(code), "{code}");
}

#[test]
fn link_topics_are_for_links() {
    let node = Node::start(settings());
    for v5 in [false, true] {
        let who = node.who().version(v5);
        let (_, mut client) = Paho.connect(&who);
        for filter in ["$LINK/#", "$LINK/cluster/msg/us", "$share/g/$LINK/#"] {
            let code = client.subscribe(filter, 1);
            assert!(code >= 0x80, "{filter} was granted: {code}");
        }
        let said = refused_publish(&who, &Post::new("$LINK/cluster/msg/us", "", 1));
        assert!(!said.is_empty() || !v5, "mosquitto_pub was not told");
        // 3.1.1 has no words for it; either way the broker goes on.
        let mut client = Paho.listen(&who, "fine");
        Mosquitto.publish(&who, &[Post::new("fine", "yes", 1)]);
        assert_eq!(client.next().payload, "yes");
    }
}
