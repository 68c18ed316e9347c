//! `MqttCluster`s.

use super::*;

fn check_clusters(cases: Vec<Case>) {
    check_all(Kind::MqttCluster, cases);
}

#[test]
fn whole_specs() {
    check_clusters(vec![
        accept("{}"),
        accept(
            "{clusterName: cluster-us-east, replicas: 3, image: '', listeners: [
              {name: mqtt, protocol: MQTT, port: 1883, service: {type: ClusterIP}},
              {name: mqtts, protocol: MQTTS, port: 8883, tls: {secretRef: {name: us-east-tls}, clientAuth: None},
               service: {type: LoadBalancer, annotations: {}}}],
             linkListener: {port: 11883, tls: {mode: Auto}, service: {type: ClusterIP}, advertisedAddress: ''},
             authentication: {anonymous: false, usersSecretRef: {name: us-east-users}},
             authorization: {default: Deny, rules: [{principals: {users: [], clientIds: [], certificateNames: [],
               cidrs: []}, action: Subscribe, filters: ['sensors/#'], effect: Allow}]},
             storage: {size: 10Gi, storageClassName: fast, retention: Retain}, limits: {},
             allowedLinks: {namespaces: Same}, podTemplate: {}, monitoring: {podMonitor: false}}",
        ),
        refuse(&["spec.lisener"], "{lisener: []}"),
        refuse(&["spec.image"], "{image: 7}"),
        accept("{image: null}"),
        accept("{listeners: null, storage: null, podTemplate: {affinity: null}}"),
        refuse(&["spec.listeners[0]"], "{listeners: [null]}"),
        refuse(&["spec.replicas"], "{replicas: 1.0}"),
    ]);
}

#[test]
fn names_and_counts() {
    check_clusters(vec![
        accept("{clusterName: A.b_c-9}"),
        accept(format!("{{clusterName: {}}}", "x".repeat(63))),
        refuse(&["spec.clusterName"], format!("{{clusterName: {}}}", "x".repeat(64))),
        refuse(&["spec.clusterName"], "{clusterName: ''}"),
        refuse(&["spec.clusterName"], "{clusterName: a/b}"),
        refuse(&["spec.clusterName"], "{clusterName: -a}"),
        refuse(&["spec.clusterName"], "{clusterName: \"a\\n\"}"),
        refuse(&["spec.clusterName"], "{clusterName: [a]}"),
        accept("{replicas: 64}"),
        refuse(&["spec.replicas"], "{replicas: 0}"),
        refuse(&["spec.replicas"], "{replicas: 65}"),
        refuse(&["spec.replicas"], "{replicas: '3'}"),
        refuse(&["spec.replicas"], "{replicas: 1.5}"),
        refuse(&["spec.image"], format!("{{image: {}}}", "i".repeat(513))),
    ]);
    let digest = format!("@sha256:{}", "0".repeat(64));
    let named = |name: &str| format!("{{image: '{name}'}}");
    for good in [
        "",
        "mqlink",
        "mqlink:1_A.b-",
        "my_org/a__b--c",
        "localhost/mqlink:dev",
        "Registry.example.org:5000/a/b/c.d:x",
        &format!("r/m{digest}"),
        &format!("r/m:1{digest}"),
    ] {
        check_clusters(vec![accept(named(good))]);
    }
    for bad in [
        "not an image",
        " a",
        "Mqlink",
        "a/B",
        "a//b",
        "/a",
        "a/",
        "a:",
        "a:b:c",
        "a-",
        "r:x/a",
        "a@sha256:0",
        "a:-",
        "https://r/a",
        "é",
    ] {
        check_clusters(vec![refuse(&["spec.image"], named(bad))]);
    }
}

#[test]
fn listeners() {
    let many = |count: u32| {
        let each = |n: u32| format!("{{name: l{n}, protocol: MQTT, port: {}}}", 2000 + n);
        format!("{{listeners: [{}]}}", (0..count).map(each).collect::<Vec<_>>().join(","))
    };
    check_clusters(vec![
        accept(many(16)),
        refuse(&["spec.listeners"], many(17)),
        refuse(&["spec.listeners"], "{listeners: []}"),
        refuse(&["spec.listeners[0].name"], "{listeners: [{protocol: MQTT, port: 1}]}"),
        refuse(&["spec.listeners[0].protocol"], "{listeners: [{name: a, port: 1}]}"),
        refuse(&["spec.listeners[0].port"], "{listeners: [{name: a, protocol: MQTT}]}"),
        refuse(&["spec.listeners[0].protocol"], "{listeners: [{name: a, protocol: mqtt, port: 1}]}"),
        refuse(&["spec.listeners[0].port"], "{listeners: [{name: a, protocol: MQTT, port: 0}]}"),
        refuse(&["spec.listeners[0].port"], "{listeners: [{name: a, protocol: MQTT, port: 65536}]}"),
        refuse(&["spec.listeners[0].port"], "{listeners: [{name: a, protocol: MQTT, port: '1883'}]}"),
        accept("{listeners: [{name: abcdefghijklmno, protocol: MQTT, port: 65535}]}"),
        refuse(
            &["spec.listeners[0].name"],
            "{listeners: [{name: abcdefghijklmnop, protocol: MQTT, port: 1}]}",
        ),
        refuse(&["spec.listeners[0].name"], "{listeners: [{name: 1a, protocol: MQTT, port: 1}]}"),
        refuse(&["spec.listeners[0].name"], "{listeners: [{name: a-, protocol: MQTT, port: 1}]}"),
        refuse(&["spec.listeners[0].name"], "{listeners: [{name: '', protocol: MQTT, port: 1}]}"),
        refuse(&["spec.listeners[0].name"], "{listeners: [{name: link, protocol: MQTT, port: 1}]}"),
        refuse(&["spec.listeners[0].name"], "{listeners: [{name: admin, protocol: MQTT, port: 1}]}"),
        refuse(
            &["spec.listeners[1]"],
            "{listeners: [{name: a, protocol: MQTT, port: 1}, {name: a, protocol: MQTT, port: 2}]}",
        ),
        refuse(
            &["spec.listeners[1].port"],
            "{listeners: [{name: a, protocol: MQTT, port: 1}, {name: b, protocol: WS, port: 1}]}",
        ),
        refuse(
            &["spec.listeners[0].service.type"],
            "{listeners: [{name: a, protocol: WS, port: 1, service: {type: X}}]}",
        ),
        refuse(
            &["spec.listeners[0].service.annotations.a"],
            "{listeners: [{name: a, protocol: WS, port: 1, service: {annotations: {a: 1}}}]}",
        ),
    ]);
}

#[test]
fn tls_of_listeners() {
    let with = |protocol: &str, tls: &str| {
        format!("{{listeners: [{{name: a, protocol: {protocol}, port: 1{tls}}}]}}")
    };
    check_clusters(vec![
        accept(with("MQTTS", ", tls: {secretRef: {name: a}}")),
        accept(with("WSS", ", tls: {secretRef: {name: a}, clientAuth: Require, clientCaRef: {name: ca.x}}")),
        accept(with("WSS", ", tls: {secretRef: {name: a}, clientAuth: Request, clientCaRef: {name: ca}}")),
        refuse(&["spec.listeners[0].tls"], with("MQTTS", "")),
        refuse(&["spec.listeners[0].tls"], with("WSS", "")),
        refuse(&["spec.listeners[0].tls"], with("MQTT", ", tls: {secretRef: {name: a}}")),
        refuse(&["spec.listeners[0].tls"], with("WS", ", tls: {secretRef: {name: a}}")),
        refuse(&["spec.listeners[0].tls.secretRef"], with("MQTTS", ", tls: {}")),
        refuse(&["spec.listeners[0].tls.secretRef.name"], with("MQTTS", ", tls: {secretRef: {}}")),
        refuse(&["spec.listeners[0].tls.secretRef.name"], with("MQTTS", ", tls: {secretRef: {name: ''}}")),
        refuse(&["spec.listeners[0].tls.secretRef.name"], with("MQTTS", ", tls: {secretRef: {name: A}}")),
        refuse(&["spec.listeners[0].tls.secretRef.name"], with("MQTTS", ", tls: {secretRef: {name: a..b}}")),
        refuse(
            &["spec.listeners[0].tls.clientCaRef"],
            with("MQTTS", ", tls: {secretRef: {name: a}, clientAuth: Require}"),
        ),
        refuse(
            &["spec.listeners[0].tls.clientCaRef"],
            with("MQTTS", ", tls: {secretRef: {name: a}, clientCaRef: {name: b}}"),
        ),
        refuse(
            &["spec.listeners[0].tls.clientCaRef"],
            with("MQTTS", ", tls: {secretRef: {name: a}, clientAuth: None, clientCaRef: {name: b}}"),
        ),
    ]);
}

#[test]
fn doors_of_listeners() {
    let with = |protocol: &str, rest: &str| {
        let tls =
            if protocol.ends_with('S') && protocol != "WS" { ", tls: {secretRef: {name: a}}" } else { "" };
        format!("{{listeners: [{{name: a, protocol: {protocol}, port: 1{tls}, {rest}}}]}}")
    };
    let tls = |rest: &str| {
        format!(
            "{{listeners: [{{name: a, protocol: WSS, port: 1, tls: {{secretRef: {{name: a}}, {rest}}}}}]}}"
        )
    };
    const PATH: &str = "spec.listeners[0].path";
    let secrets = |count: usize| format!("additionalSecretRefs: [{}]", "{name: b},".repeat(count));
    check_clusters(vec![
        accept(with("WS", "path: /")),
        accept(with("WSS", "path: '/a/b-c~!\"$%'")),
        refuse(&[PATH], with("WS", "path: mqtt")),
        refuse(&[PATH], with("WS", "path: ''")),
        refuse(&[PATH], with("WS", "path: /a?b")),
        refuse(&[PATH], with("WS", "path: '/a#b'")),
        refuse(&[PATH], with("WS", "path: '/a b'")),
        refuse(&[PATH], with("WS", "path: /ä")),
        refuse(&[PATH], with("WS", &format!("path: /{}", "a".repeat(256)))),
        refuse(&[PATH], with("MQTT", "path: /mqtt")),
        refuse(&[PATH], with("MQTTS", "path: /mqtt")),
        accept(with("WS", "allowedOrigins: []")),
        accept(with(
            "WSS",
            "allowedOrigins: ['https://app.example', 'http://localhost:8080', 'app+x://[::1]']",
        )),
        refuse(&["spec.listeners[0].allowedOrigins"], with("MQTT", "allowedOrigins: ['https://a']")),
        refuse(&["spec.listeners[0].allowedOrigins[0]"], with("WS", "allowedOrigins: [app.example]")),
        refuse(&["spec.listeners[0].allowedOrigins[0]"], with("WS", "allowedOrigins: ['https://a/b']")),
        refuse(&["spec.listeners[0].allowedOrigins[0]"], with("WS", "allowedOrigins: ['https://a?b']")),
        refuse(&["spec.listeners[0].allowedOrigins[0]"], with("WS", "allowedOrigins: ['https://']")),
        refuse(&["spec.listeners[0].allowedOrigins[0]"], with("WS", "allowedOrigins: ['HTTPS://a']")),
        refuse(&["spec.listeners[0].allowedOrigins[0]"], with("WS", "allowedOrigins: ['']")),
        accept(with("MQTT", "proxyProtocol: {trustedCidrs: ['10.0.0.0/8', '::/0']}")),
        refuse(&["spec.listeners[0].proxyProtocol.trustedCidrs"], with("MQTT", "proxyProtocol: {}")),
        refuse(
            &["spec.listeners[0].proxyProtocol.trustedCidrs"],
            with("MQTT", "proxyProtocol: {trustedCidrs: []}"),
        ),
        refuse(
            &["spec.listeners[0].proxyProtocol.trustedCidrs[0]"],
            with("MQTT", "proxyProtocol: {trustedCidrs: [lb]}"),
        ),
        accept(with("MQTT", "limits: {}")),
        accept(with("MQTT", "limits: {maxConnections: 1, maxConnectRate: 100, handshakeTimeout: 5s}")),
        refuse(&["spec.listeners[0].limits.maxConnections"], with("MQTT", "limits: {maxConnections: 0}")),
        refuse(&["spec.listeners[0].limits.maxConnectRate"], with("MQTT", "limits: {maxConnectRate: 0}")),
        refuse(&["spec.listeners[0].limits.handshakeTimeout"], with("MQTT", "limits: {handshakeTimeout: 5}")),
        refuse(
            &["spec.listeners[0].limits.handshakeTimeout"],
            with("MQTT", "limits: {handshakeTimeout: 0s}"),
        ),
        accept(tls("minVersion: TLS13")),
        refuse(&["spec.listeners[0].tls.minVersion"], tls("minVersion: '1.3'")),
        accept(tls(&secrets(16))),
        refuse(&["spec.listeners[0].tls.additionalSecretRefs"], tls(&secrets(17))),
        refuse(
            &["spec.listeners[0].tls.additionalSecretRefs[0].name"],
            tls("additionalSecretRefs: [{name: A}]"),
        ),
        accept(tls("clientAuth: Require, clientCaRef: {name: ca}, usernameFrom: CommonName")),
        accept(tls("clientAuth: Request, clientCaRef: {name: ca}, usernameFrom: Uri")),
        refuse(&["spec.listeners[0].tls.usernameFrom"], tls("usernameFrom: Dns")),
        refuse(&["spec.listeners[0].tls.usernameFrom"], tls("clientAuth: None, usernameFrom: Dns")),
        refuse(
            &["spec.listeners[0].tls.usernameFrom"],
            tls("clientAuth: Require, clientCaRef: {name: ca}, usernameFrom: CN"),
        ),
    ]);
}

#[test]
fn tokens_and_placeholders() {
    let jwt = |rest: &str| format!("{{authentication: {{jwt: {{{rest}}}}}}}");
    let filter = |filter: &str| {
        format!("{{authorization: {{rules: [{{action: All, effect: Allow, filters: ['{filter}']}}]}}}}")
    };
    let mut cases = vec![
        accept(jwt("jwksSecretRef: {name: keys}")),
        accept(jwt("jwksSecretRef: {name: keys}, usernameClaim: name, issuer: 'https://id', audience: mqtt")),
        refuse(&["spec.authentication.jwt.jwksSecretRef"], jwt("issuer: a")),
        refuse(&["spec.authentication.jwt.jwksSecretRef.name"], jwt("jwksSecretRef: {name: ''}")),
        refuse(
            &["spec.authentication.jwt.usernameClaim"],
            jwt("jwksSecretRef: {name: keys}, usernameClaim: ''"),
        ),
        refuse(&["spec.authentication.jwt.issuer"], jwt("jwksSecretRef: {name: keys}, issuer: ''")),
        refuse(&["spec.authentication.jwt.audience"], jwt("jwksSecretRef: {name: keys}, audience: ''")),
        accept(jwt("jwksSecretRef: {name: keys}, aclClaim: acl")),
        refuse(&["spec.authentication.jwt.aclClaim"], jwt("jwksSecretRef: {name: keys}, aclClaim: ''")),
    ];
    for good in [
        "${username}",
        "a/${clientid}/#",
        "x${username}-${clientid}y/+",
        "$${username}$",
        "a$/$b/$SYS/{x}",
        "$",
        "/$/",
        "a/{/#",
        "{${clientid}}",
    ] {
        cases.push(accept(filter(good)));
    }
    for wrong in [
        "${user}",
        "${username",
        "a/${Username}",
        "${}",
        "${${username}}",
        "${user${username}name}",
        "$${x}",
        "a${",
        "${username}#",
        "+${username}",
        "$${username}{x}",
    ] {
        cases.push(refuse(&["spec.authorization.rules[0].filters[0]"], filter(wrong)));
    }
    check_clusters(cases);
}

#[test]
fn link_listeners() {
    check_clusters(vec![
        accept("{linkListener: {}}"),
        accept("{linkListener: {enabled: false, port: 1883}}"),
        accept(
            "{linkListener: {port: 12883, tls: {mode: Plaintext}, advertisedAddress: 'eu.example.net:443'}}",
        ),
        accept("{linkListener: {advertisedAddress: '[fd00::1]:11883'}}"),
        accept("{linkListener: {advertisedAddress: 'host'}}"),
        refuse(&["spec.linkListener.advertisedAddress"], "{linkListener: {advertisedAddress: 'a:0'}}"),
        refuse(&["spec.linkListener.advertisedAddress"], "{linkListener: {advertisedAddress: 'mqtt://a'}}"),
        refuse(&["spec.linkListener.advertisedAddress"], "{linkListener: {advertisedAddress: 'a b'}}"),
        refuse(&["spec.linkListener.port"], "{linkListener: {port: 65536}}"),
        refuse(&["spec.linkListener"], "{linkListener: {port: 1883}}"),
        refuse(&["spec.linkListener"], "{listeners: [{name: a, protocol: MQTT, port: 11883}]}"),
        refuse(
            &["spec.linkListener"],
            "{listeners: [{name: a, protocol: MQTT, port: 7}], linkListener: {port: 7}}",
        ),
        accept("{listeners: [{name: a, protocol: MQTT, port: 11883}], linkListener: {port: 1883}}"),
        accept("{linkListener: {tls: {}}}"),
        accept("{linkListener: {tls: {mode: Secret, secretRef: {name: a}}}}"),
        refuse(&["spec.linkListener.tls.secretRef"], "{linkListener: {tls: {mode: Secret}}}"),
        refuse(
            &["spec.linkListener.tls.secretRef"],
            "{linkListener: {tls: {mode: Auto, secretRef: {name: a}}}}",
        ),
        refuse(&["spec.linkListener.tls.secretRef"], "{linkListener: {tls: {secretRef: {name: a}}}}"),
        refuse(&["spec.linkListener.tls.mode"], "{linkListener: {tls: {mode: auto}}}"),
    ]);
}

#[test]
fn who_may_connect_and_what_they_may_do() {
    let rule = |rest: &str| format!("{{authorization: {{rules: [{{{rest}}}]}}}}");
    let rules = |count: usize| {
        let one = "{action: All, filters: ['#'], effect: Allow},";
        format!("{{authorization: {{rules: [{}]}}}}", one.repeat(count))
    };
    check_clusters(vec![
        accept("{authentication: {}}"),
        accept("{authentication: {anonymous: true}}"),
        refuse(&["spec.authentication.anonymous"], "{authentication: {anonymous: 'yes'}}"),
        refuse(
            &["spec.authentication.usersSecretRef.name"],
            "{authentication: {usersSecretRef: {name: a_b}}}",
        ),
        accept("{authorization: {}}"),
        accept("{authorization: {default: Allow}}"),
        accept(rules(64)),
        refuse(&["spec.authorization.rules"], rules(65)),
        accept(rule("action: Publish, filters: ['$SYS/#', 'a/+'], effect: Deny")),
        refuse(&["spec.authorization.rules[0].action"], rule("filters: ['#'], effect: Deny")),
        refuse(&["spec.authorization.rules[0].effect"], rule("action: All, filters: ['#'], effect: deny")),
        refuse(&["spec.authorization.rules[0].filters"], rule("action: All, filters: [], effect: Deny")),
        refuse(
            &["spec.authorization.rules[0].filters[0]"],
            rule("action: All, filters: ['a/#/b'], effect: Deny"),
        ),
        refuse(&["spec.authorization.rules[0].filters[0]"], rule("action: All, filters: [''], effect: Deny")),
        refuse(
            &["spec.authorization.rules[0].filters[0]"],
            rule("action: All, filters: ['$share/g/a'], effect: Deny"),
        ),
        refuse(
            &["spec.authorization.rules[0].filters[0]"],
            rule("action: All, filters: ['$LINK/#'], effect: Deny"),
        ),
        accept(rule(
            "principals: {cidrs: ['10.0.0.0/8', 'fd00::/8']}, action: All, filters: ['#'], effect: Deny",
        )),
        refuse(
            &["spec.authorization.rules[0].principals.cidrs[0]"],
            rule("principals: {cidrs: ['10.0.0.1']}, action: All, filters: ['#'], effect: Deny"),
        ),
        refuse(
            &["spec.authorization.rules[0].principals.users[0]"],
            rule("principals: {users: ['']}, action: All, filters: ['#'], effect: Deny"),
        ),
        refuse(
            &["spec.authorization.rules[0].principals.groups"],
            rule("principals: {groups: []}, action: All, filters: ['#'], effect: Deny"),
        ),
    ]);
}

#[test]
fn storage_and_limits() {
    check_clusters(vec![
        accept("{storage: {ephemeral: true}}"),
        accept("{storage: {size: 1Gi}}"),
        accept("{storage: {size: 1Gi, durability: None}}"),
        accept("{storage: {size: 1Gi, durability: Interval}}"),
        accept("{storage: {size: 1Gi, durability: Always}}"),
        refuse(&["spec.storage.durability"], "{storage: {size: 1Gi, durability: always}}"),
        refuse(&["spec.storage"], "{storage: {ephemeral: true, durability: Always}}"),
        accept("{storage: {size: 1Gi, ephemeral: false}}"),
        refuse(&["spec.storage"], "{storage: {}}"),
        refuse(&["spec.storage"], "{storage: {ephemeral: false}}"),
        refuse(&["spec.storage"], "{storage: {size: 1Gi, ephemeral: true}}"),
        refuse(&["spec.storage"], "{storage: {ephemeral: true, retention: Delete}}"),
        refuse(&["spec.storage"], "{storage: {ephemeral: true, storageClassName: a}}"),
        refuse(&["spec.storage.size"], "{storage: {size: 10Gb}}"),
        refuse(&["spec.storage.size"], "{storage: {size: 10}}"),
        refuse(&["spec.storage.size"], "{storage: {size: '0'}}"),
        refuse(&["spec.storage.retention"], "{storage: {size: 1Gi, retention: Recycle}}"),
        refuse(&["spec.storage.storageClassName"], "{storage: {size: 1Gi, storageClassName: A}}"),
        accept(
            "{limits: {maxPacketBytes: 1Mi, maxInflight: 65535, maxQueuedMessages: 100000000,
              maxQueuedBytes: 64M, maxConnections: 1, maxSessionExpiry: 168h}}",
        ),
        accept(
            "{limits: {maxSessions: 5, maxSubscriptions: 100, maxRetainedMessages: 1000, maxRetainedBytes: 64Mi,
              maxTopicAliases: 0, maxMemory: 1Gi, connectTimeout: 5s, maxKeepAlive: 10m,
              maxTotalQueuedMessages: 1000, maxTotalQueuedBytes: 1Gi}}",
        ),
        refuse(&["spec.limits.maxSessions"], "{limits: {maxSessions: 0}}"),
        refuse(&["spec.limits.maxSubscriptions"], "{limits: {maxSubscriptions: -1}}"),
        refuse(&["spec.limits.maxRetainedMessages"], "{limits: {maxRetainedMessages: 100000001}}"),
        refuse(&["spec.limits.maxRetainedBytes"], "{limits: {maxRetainedBytes: 1 GB}}"),
        refuse(&["spec.limits.maxTopicAliases"], "{limits: {maxTopicAliases: 65536}}"),
        refuse(&["spec.limits.maxTopicAliases"], "{limits: {maxTopicAliases: -1}}"),
        refuse(&["spec.limits.maxMemory"], "{limits: {maxMemory: '0'}}"),
        refuse(&["spec.limits.maxMemory"], "{limits: {maxMemory: 63Mi}}"),
        refuse(&["spec.limits.maxMemory"], "{limits: {maxMemory: 1 GB}}"),
        accept("{limits: {maxMemory: 64Mi}}"),
        refuse(&["spec.limits.connectTimeout"], "{limits: {connectTimeout: 5}}"),
        refuse(&["spec.limits.maxKeepAlive"], "{limits: {maxKeepAlive: 0s}}"),
        accept("{monitoring: {sysInterval: 1m}}"),
        refuse(&["spec.monitoring.sysInterval"], "{monitoring: {sysInterval: often}}"),
        accept("{limits: {maxPacketBytes: '1024'}}"),
        accept("{limits: {maxPacketBytes: 256Mi}}"),
        refuse(&["spec.limits.maxPacketBytes"], "{limits: {maxPacketBytes: '1023'}}"),
        refuse(&["spec.limits.maxPacketBytes"], "{limits: {maxPacketBytes: 257Mi}}"),
        refuse(&["spec.limits.maxPacketBytes"], "{limits: {maxPacketBytes: 1 MB}}"),
        refuse(&["spec.limits.maxInflight"], "{limits: {maxInflight: 65536}}"),
        refuse(&["spec.limits.maxInflight"], "{limits: {maxInflight: 0}}"),
        refuse(&["spec.limits.maxQueuedMessages"], "{limits: {maxQueuedMessages: 100000001}}"),
        refuse(&["spec.limits.maxTotalQueuedMessages"], "{limits: {maxTotalQueuedMessages: 0}}"),
        refuse(&["spec.limits.maxTotalQueuedBytes"], "{limits: {maxTotalQueuedBytes: 64 MB}}"),
        refuse(&["spec.limits.maxQueuedBytes"], "{limits: {maxQueuedBytes: ''}}"),
        refuse(&["spec.limits.maxConnections"], "{limits: {maxConnections: 0}}"),
        refuse(&["spec.limits.maxSessionExpiry"], "{limits: {maxSessionExpiry: 7d}}"),
        refuse(&["spec.limits.maxSessionExpiry"], "{limits: {maxSessionExpiry: 0s}}"),
        refuse(&["spec.limits.maxSessionExpiry"], "{limits: {maxSessionExpiry: 999ms}}"),
        accept("{limits: {maxSessionExpiry: 99999h, connectTimeout: 1000ms, maxKeepAlive: 18h}}"),
        refuse(&["spec.limits.connectTimeout"], "{limits: {connectTimeout: 18h1ms}}"),
        refuse(&["spec.limits.maxKeepAlive"], "{limits: {maxKeepAlive: 1ms}}"),
        refuse(&["spec.limits.maxSessionExpiry"], "{limits: {maxSessionExpiry: ''}}"),
    ]);
}

#[test]
fn who_may_link_and_how_pods_look() {
    let labels = |count: usize| {
        let each = |n: usize| format!("l{n}: x");
        let all = (0..count).map(each).collect::<Vec<_>>().join(",");
        format!("{{podTemplate: {{metadata: {{labels: {{{all}}}}}}}}}")
    };
    let selecting = |how: &str| {
        let selector = format!("{{matchExpressions: [{{key: team, operator: {how}}}]}}");
        format!("{{allowedLinks: {{namespaces: Selector, selector: {selector}}}}}")
    };
    check_clusters(vec![
        accept("{allowedLinks: {}}"),
        accept("{allowedLinks: {namespaces: All}}"),
        accept("{allowedLinks: {namespaces: Selector, selector: {matchLabels: {a: b}}}}"),
        refuse(&["spec.allowedLinks.selector"], "{allowedLinks: {namespaces: Selector}}"),
        refuse(&["spec.allowedLinks.selector"], "{allowedLinks: {namespaces: All, selector: {}}}"),
        refuse(&["spec.allowedLinks.selector"], "{allowedLinks: {selector: {}}}"),
        refuse(&["spec.allowedLinks.namespaces"], "{allowedLinks: {namespaces: Some}}"),
        accept(selecting("In, values: [a]")),
        accept(selecting("DoesNotExist")),
        refuse(&["spec.allowedLinks.selector"], selecting("NotIn")),
        refuse(&["spec.allowedLinks.selector"], selecting("In, values: []")),
        refuse(&["spec.allowedLinks.selector"], selecting("Exists, values: [a]")),
        refuse(&["spec.allowedLinks.selector.matchExpressions[0].operator"], selecting("Equals")),
        accept(labels(64)),
        refuse(&["spec.podTemplate.metadata.labels"], labels(65)),
        accept("{podTemplate: {resources: {requests: {cpu: 1, memory: 64Mi}}, env: [{name: A, value: b}]}}"),
        refuse(&["spec.podTemplate.env[1]"], "{podTemplate: {env: [{name: A}, {name: A}]}}"),
        refuse(&["spec.podTemplate.env[0].name"], "{podTemplate: {env: [{value: b}]}}"),
        refuse(
            &["spec.podTemplate.resources.requests.cpu"],
            "{podTemplate: {resources: {requests: {cpu: true}}}}",
        ),
        refuse(&["spec.podTemplate.priorityClass"], "{podTemplate: {priorityClass: ''}}"),
        accept(
            "{podTemplate: {tolerations: [{operator: Exists}], topologySpread: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]}}",
        ),
        refuse(
            &["spec.podTemplate.topologySpread[0].topologyKey"],
            "{podTemplate: {topologySpread: [{maxSkew: 1, whenUnsatisfiable: ScheduleAnyway}]}}",
        ),
        refuse(&["spec.monitoring.podMonitor"], "{monitoring: {podMonitor: 1}}"),
    ]);
}

/// What else only the validation of the StatefulSet would find.
#[test]
fn mistakes_in_pods_are_found_in_the_template() {
    let label = |value: &str| format!("{{podTemplate: {{metadata: {{labels: {{a: '{value}'}}}}}}}}");
    let memory = |value: &str| format!("{{podTemplate: {{resources: {{limits: {{memory: {value}}}}}}}}}");
    let variable = |name: &str| format!("{{podTemplate: {{env: [{{name: '{name}'}}]}}}}");
    let toleration = |effect: &str| format!("{{podTemplate: {{tolerations: [{{effect: {effect}}}]}}}}");
    let spread = |skew: i32, when: &str| {
        format!(
            "{{podTemplate: {{topologySpread: [{{maxSkew: {skew}, topologyKey: zone, whenUnsatisfiable: {when}}}]}}}}"
        )
    };
    let on_nodes = |operator: &str| {
        let terms = format!("[{{matchExpressions: [{{key: a, operator: {operator}, values: ['1']}}]}}]");
        format!(
            "{{podTemplate: {{affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: {terms}}}}}}}}}}}"
        )
    };
    let beside_pods = |operator: &str| {
        let selector = format!("{{matchExpressions: [{{key: a, operator: {operator}, values: ['1']}}]}}");
        format!(
            "{{podTemplate: {{affinity: {{podAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: [{{topologyKey: zone, labelSelector: {selector}}}]}}}}}}}}"
        )
    };
    check_clusters(vec![
        accept(label("")),
        accept(label("A.b_c-9")),
        accept(label(&"x".repeat(63))),
        refuse(&["spec.podTemplate.metadata.labels.a"], label(&"x".repeat(64))),
        refuse(&["spec.podTemplate.metadata.labels.a"], label("two words")),
        refuse(&["spec.podTemplate.metadata.labels.a"], label("-a")),
        accept(memory("64Mi")),
        accept(memory("1.5Gi")),
        accept(memory(".5G")),
        accept(memory("'1e3'")),
        accept(memory("1000")),
        refuse(&["spec.podTemplate.resources.limits.memory"], memory("64MB")),
        refuse(&["spec.podTemplate.resources.limits.memory"], memory("much")),
        refuse(&["spec.podTemplate.resources.limits.memory"], memory("'-1'")),
        refuse(&["spec.podTemplate.resources.limits.memory"], memory("'.'")),
        refuse(&["spec.podTemplate.resources.limits.memory"], memory("''")),
        accept(variable("A_b.c-1")),
        refuse(&["spec.podTemplate.env[0].name"], variable("a=b")),
        refuse(&["spec.podTemplate.env[0].name"], variable("")),
        refuse(&["spec.podTemplate.env[0].name"], variable("é")),
        accept("{podTemplate: {env: [{name: A, valueFrom: {secretKeyRef: {name: a.b, key: c}}}]}}"),
        accept(toleration("NoExecute")),
        refuse(&["spec.podTemplate.tolerations[0].effect"], toleration("Never")),
        accept(spread(1, "DoNotSchedule")),
        refuse(&["spec.podTemplate.topologySpread[0].maxSkew"], spread(0, "DoNotSchedule")),
        refuse(&["spec.podTemplate.topologySpread[0].whenUnsatisfiable"], spread(1, "Never")),
        accept(on_nodes("Gt")),
        refuse(
            &[
                "spec.podTemplate.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator",
            ],
            on_nodes("Is"),
        ),
        accept(beside_pods("NotIn")),
        refuse(
            &[
                "spec.podTemplate.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].operator",
            ],
            beside_pods("Gt"),
        ),
    ]);
}

/// What the largest spec costs to judge, within the bytes that one object may have.
#[test]
fn the_largest_cluster() {
    let filter = |n: usize| format!("'{n:04}{}'", "/abcdefgh".repeat(100));
    let filters = (0..16).map(filter).collect::<Vec<_>>().join(",");
    let rule = format!("{{action: All, effect: Deny, filters: [{filters}]}},");
    let listener = |n: u32| format!("{{name: l{n}, protocol: MQTT, port: {}}}", 2000 + n);
    let listeners = (0..16).map(listener).collect::<Vec<_>>().join(",");
    check_clusters(vec![accept(format!(
        "{{listeners: [{listeners}], authorization: {{rules: [{}]}}}}",
        rule.repeat(64)
    ))]);
}
