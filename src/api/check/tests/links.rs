//! `ClusterLink`s.

use super::*;

/// A link that nothing is wrong with.
pub(super) const MANAGED: &str =
    "{clusterRef: {name: us}, topics: ['#'], remote: {clusterRef: {name: eu}, topics: ['#']}}";

fn check_links(cases: Vec<Case>) {
    check_all(Kind::ClusterLink, cases);
}

fn with(rest: &str) -> String {
    format!(
        "{{clusterRef: {{name: us}}, topics: ['#'], remote: {{clusterRef: {{name: eu}}, topics: []}}, {rest}}}"
    )
}

fn external(rest: &str) -> String {
    format!("{{clusterRef: {{name: us}}, topics: ['#'], remote: {{external: {{clusterName: eu{rest}}}}}}}")
}

fn topics(list: &str) -> String {
    format!(
        "{{clusterRef: {{name: us}}, topics: [{list}], remote: {{clusterRef: {{name: eu}}, topics: []}}}}"
    )
}

#[test]
fn whole_specs() {
    check_links(vec![
        accept(MANAGED),
        accept(with("enabled: true, clientIdPrefix: '', acl: {send: ['#'], accept: ['#']},
            forwarding: {poolSize: 1, maxInflight: 1000, queue: {maxBytes: 1Gi, maxAge: 1h}, compression: Auto}")),
        accept(external(
            ", server: 'mqtts://emqx.eu-west.myinfra.net:8883', dialect: Native, dial: Both,
             credentialsRef: {name: a}, tls: {caRef: {name: b}, serverName: ''}, inbound: {credentialsRef: {name: c}}",
        )),
        refuse(&["spec.clusterRef", "spec.remote", "spec.topics"], "{}"),
        refuse(&["spec.clusterRef.name"], "{clusterRef: {}, topics: [], remote: {clusterRef: {name: eu}, topics: []}}"),
        refuse(&["spec.clusterRef.namespace"], "{clusterRef: {name: a, namespace: b}, topics: [], remote: {clusterRef: {name: eu}, topics: []}}"),
        refuse(&["spec.topics"], "{clusterRef: {name: a}, remote: {clusterRef: {name: eu}, topics: []}}"),
        refuse(&["spec.topics"], "{clusterRef: {name: a}, topics: null, remote: {clusterRef: {name: eu}, topics: []}}"),
        refuse(&["spec.topics"], "{clusterRef: {name: a}, topics: '#', remote: {clusterRef: {name: eu}, topics: []}}"),
        refuse(&["spec.topic"], with("topic: []")),
        refuse(&["spec.enabled"], with("enabled: 'no'")),
    ]);
}

#[test]
fn topic_filters() {
    let many = |count: usize| topics(&(0..count).map(|n| format!("t/{n}")).collect::<Vec<_>>().join(","));
    let long = |bytes: usize| topics(&"x".repeat(bytes));
    check_links(vec![
        accept(topics("")),
        accept(topics("'#'")),
        accept(topics("'+', '+/+/#', '/', 'a//b', ' ', 'a b/é', 'a/#'")),
        accept(topics("'a/#', 'a/b'")), // redundant: merged and noted
        accept(many(32)),
        refuse(&["spec.topics"], many(33)),
        accept(long(1024)),
        refuse(&["spec.topics[0]"], long(1025)),
        refuse(&["spec.topics[0]"], topics(&"é".repeat(513))),
        accept(topics(&"é".repeat(512))),
        refuse(&["spec.topics[0]"], topics("''")),
        refuse(&["spec.topics[0]"], topics("'a#'")),
        refuse(&["spec.topics[0]"], topics("'#/a'")),
        refuse(&["spec.topics[0]"], topics("'a/#/b'")),
        refuse(&["spec.topics[0]"], topics("'a+/b'")),
        refuse(&["spec.topics[0]"], topics("'++'")),
        refuse(&["spec.topics[0]"], topics("'##'")),
        refuse(&["spec.topics[0]"], topics("\"a\\0b\"")),
        refuse(&["spec.topics[0]"], topics("\"a\\n#\"")),
        accept(topics("\"a\\n/#\"")),
        refuse(&["spec.topics[1]"], topics("a, 'b/+c'")),
        refuse(&["spec.topics[2]"], topics("a, b, a")),
        refuse(&["spec.topics[0]"], topics("'$SYS/#'")),
        refuse(&["spec.topics[0]"], topics("'$LINK'")),
        refuse(&["spec.topics[0]"], topics("'$LINK/#'")),
        refuse(&["spec.topics[0]"], topics("'$share/g/t'")),
        accept(topics("'a/$SYS'")),
        refuse(&["spec.topics[0]"], topics("1")),
        refuse(&["spec.topics[0]"], topics("null")),
    ]);
}

#[test]
fn the_other_side() {
    let remote = |remote: &str| format!("{{clusterRef: {{name: us}}, topics: [], remote: {{{remote}}}}}");
    check_links(vec![
        accept(remote("clusterRef: {name: eu, namespace: mqtt-eu}, topics: []")),
        accept(remote("clusterRef: {name: us}, topics: []")), // SameCluster is a condition
        refuse(&["spec.remote"], remote("")),
        refuse(&["spec.remote.topics"], remote("clusterRef: {name: eu}")),
        refuse(&["spec.remote.topics"], remote("external: {clusterName: eu, server: 'a:1'}, topics: []")),
        refuse(
            &["spec.remote"],
            remote("clusterRef: {name: eu}, topics: [], external: {clusterName: eu, server: 'a:1'}"),
        ),
        refuse(&["spec.remote", "spec.remote.topics"], remote("topics: []")),
        refuse(
            &["spec.remote.clusterRef.namespace"],
            remote("clusterRef: {name: eu, namespace: a.b}, topics: []"),
        ),
        refuse(
            &["spec.remote.clusterRef.namespace"],
            remote("clusterRef: {name: eu, namespace: ''}, topics: []"),
        ),
        refuse(&["spec.remote.clusterRef.name"], remote("clusterRef: {name: 'eu/west'}, topics: []")),
        refuse(&["spec.remote.topics[0]"], remote("clusterRef: {name: eu}, topics: ['a/#/b']")),
        refuse(&["spec.remote.topics[1]"], remote("clusterRef: {name: eu}, topics: ['a', 'a']")),
    ]);
}

#[test]
fn external_peers() {
    check_links(vec![
        accept(external(", server: 'h:1883'")),
        accept(external(", server: 'mqtt://h.example:1883'")),
        accept(external(", server: '[::1]:1883', dial: Out")),
        accept(external(", dial: In")),
        accept(external(", dial: In, server: 'h:1883'")),
        accept(external(", server: 'h:1', tls: {}")),
        accept(external(", server: 'h:1883', dialect: Emqx")),
        refuse(&["spec.remote.external.server"], external("")),
        refuse(&["spec.remote.external.server"], external(", dial: Out")),
        refuse(&["spec.remote.external.server"], external(", server: h")),
        refuse(&["spec.remote.external.server"], external(", server: ''")),
        refuse(&["spec.remote.external.server"], external(", server: 'h:0'")),
        refuse(&["spec.remote.external.server"], external(", server: 'h:65536'")),
        refuse(&["spec.remote.external.server"], external(", server: 'ws://h:80'")),
        refuse(&["spec.remote.external.server"], external(", server: 'mqtt://u@h:80'")),
        refuse(&["spec.remote.external.server"], external(", server: '::1:80'")),
        refuse(&["spec.remote.external.dial"], external(", server: 'h:1', dialect: Emqx, dial: Both")),
        refuse(&["spec.remote.external.dial"], external(", dialect: Emqx, dial: In")),
        refuse(&["spec.remote.external.dial"], external(", server: 'h:1', dial: out")),
        refuse(&["spec.remote.external.dialect"], external(", server: 'h:1', dialect: EMQX")),
        refuse(&["spec.remote.external.tls"], external(", server: 'mqtt://h:1', tls: {}")),
        refuse(
            &["spec.remote.external.tls.serverName"],
            external(", server: 'h:1', tls: {serverName: 'a:1'}"),
        ),
        refuse(
            &["spec.remote.external.tls.caRef.name"],
            external(", server: 'h:1', tls: {caRef: {name: A}}"),
        ),
        refuse(&["spec.remote.external.inbound.credentialsRef"], external(", server: 'h:1', inbound: {}")),
        refuse(
            &["spec.remote.external.credentialsRef.name"],
            external(", server: 'h:1', credentialsRef: {name: ''}"),
        ),
        refuse(
            &["spec.remote.external.clusterName"],
            "{clusterRef: {name: us}, topics: [], remote: {external: {server: 'h:1'}}}",
        ),
        refuse(
            &["spec.remote.external.clusterName"],
            "{clusterRef: {name: us}, topics: [], remote: {external: {clusterName: 'a+b', server: 'h:1'}}}",
        ),
    ]);
}

#[test]
fn forwarding_and_acl() {
    check_links(vec![
        accept(with("clientIdPrefix: us.east_1-a")),
        refuse(&["spec.clientIdPrefix"], with("clientIdPrefix: a/b")),
        refuse(&["spec.clientIdPrefix"], with(&format!("clientIdPrefix: {}", "a".repeat(64)))),
        accept(with("forwarding: {}")),
        accept(with("forwarding: {poolSize: 64, maxInflight: 65535}")),
        refuse(&["spec.forwarding.poolSize"], with("forwarding: {poolSize: 65}")),
        refuse(&["spec.forwarding.poolSize"], with("forwarding: {poolSize: 0}")),
        refuse(&["spec.forwarding.maxInflight"], with("forwarding: {maxInflight: 65536}")),
        refuse(&["spec.forwarding.queue.maxBytes"], with("forwarding: {queue: {maxBytes: 1gi}}")),
        refuse(&["spec.forwarding.queue.maxAge"], with("forwarding: {queue: {maxAge: 1}}")),
        refuse(&["spec.forwarding.queue.maxAge"], with("forwarding: {queue: {maxAge: 1w}}")),
        refuse(&["spec.forwarding.compression"], with("forwarding: {compression: Gzip}")),
        accept(with("acl: {send: [], accept: []}")),
        refuse(&["spec.acl.send[0]"], with("acl: {send: ['$SYS/#']}")),
        refuse(&["spec.acl.accept[0]"], with("acl: {accept: ['a#']}")),
    ]);
}

/// What the largest spec costs to judge: an API server would refuse an accepted definition here, not before.
#[test]
fn the_largest_link() {
    let filter = |n: usize| format!("'{n:04}{}'", "/abcdefgh".repeat(113));
    let full = (0..32).map(filter).collect::<Vec<_>>().join(",");
    check_links(vec![accept(format!(
        "{{clusterRef: {{name: us}}, topics: [{full}], remote: {{clusterRef: {{name: eu}}, topics: [{full}]}},
          acl: {{send: [{full}], accept: [{full}]}}}}"
    ))]);
}
