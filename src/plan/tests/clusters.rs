//! Clusters by themselves.
//!
//! Refusals name the field and the remedy, and what ran goes on running.
//! What a spec says becomes settings, one to one.

use super::*;

fn cluster(spec: &str) -> String {
    format!("kind: MqttCluster\nmetadata: {{name: us}}\nspec: {spec}\n")
}

fn with_secret(spec: &str, data: &str) -> World {
    world(&format!("{}---\nkind: Secret\nmetadata: {{name: s}}\nstringData: {data}\n", cluster(spec)))
}

#[track_caller]
fn refused(world: &World, type_: &str, expected: &str, message: &str) {
    let plan = planned(world);
    check_cluster(&plan, "us", type_, expected);
    check_cluster(&plan, "us", "Ready", expected);
    let condition = cluster_condition(&plan, "us", type_);
    assert!(condition.message.contains(message), "{}", condition.message);
    assert!(plan.settings.is_empty(), "nothing ran before, so nothing runs");
}

#[test]
fn what_this_version_cannot_do_is_refused_and_never_ignored() {
    for (spec, reason, message) in [
        ("{replicas: 3}", "ReplicasUnsupported", "spec.replicas is 3"),
        ("{replicas: 0}", "InvalidSpec", "spec.replicas is 0"),
        ("{clusterName: a/b, image: x}", "InvalidSpec", "spec.clusterName must be letters"),
    ] {
        refused(&world(&cluster(spec)), "Accepted", &format!("False/{reason}"), message);
    }
    for (spec, in_vain) in [
        (
            "{monitoring: {podMonitor: true}}",
            " spec.monitoring.podMonitor has no effect yet: no PodMonitor is made.",
        ),
        (
            "{linkListener: {enabled: false, tls: {mode: Secret, secretRef: {name: no-such}}}}",
            " spec.linkListener.tls has no effect: linkListener.enabled is false.",
        ),
        (
            "{podTemplate: {env: [{name: POD_NAME, value: a}]}}",
            " spec.podTemplate.env POD_NAME has no effect: it is the name of the pod.",
        ),
        (
            "{podTemplate: {metadata: {labels: {mqlink.dev/cluster: a, team: b}}}}",
            " spec.podTemplate.metadata.labels mqlink.dev/cluster has no effect: it is the operator's.",
        ),
        ("{linkListener: {enabled: false}}", ""),
    ] {
        let plan = planned(&world(&cluster(spec)));
        check_cluster(&plan, "us", "ResolvedRefs", "True/Resolved");
        let message = cluster_condition(&plan, "us", "Accepted").message;
        assert_eq!(message, format!("The spec is valid.{in_vain}"));
    }
}

#[test]
fn secrets_that_are_missing_or_wrong_are_named() {
    let users = "{authentication: {usersSecretRef: {name: s}}}";
    let tls = "{listeners: [{name: a, protocol: MQTTS, port: 1, tls: {secretRef: {name: s}}}]}";
    refused(
        &world(&cluster(users)),
        "ResolvedRefs",
        "False/SecretNotFound",
        "usersSecretRef names Secret default/s",
    );
    for (spec, data, message) in [
        (users, "{passwords: ''}", "has no key `users`"),
        (users, "{users: \"ann:plain:a\\nbob\"}", "line 2 has no ':'"),
        (tls, "{tls.crt: '', tls.key: ''}", "has a `tls.crt` that holds no PEM block"),
        (
            "{linkListener: {tls: {mode: Secret, secretRef: {name: s}}}}",
            "{tls.crt: ''}",
            "has no key `ca.crt`",
        ),
    ] {
        refused(&with_secret(spec, data), "ResolvedRefs", "False/SecretInvalid", message);
    }
}

#[test]
fn doors_become_settings_as_they_are() {
    use crate::settings::{ListenerLimits, Protocol, ProxyProtocol};
    let spec = "{listeners: [{name: ws, protocol: WS, port: 80, path: /x, proxyProtocol: {trustedCidrs: ['10.0.0.0/8']},
        limits: {maxConnections: 5, maxConnectRate: 7, handshakeTimeout: 1500ms}}, {name: b, protocol: MQTT, port: 1}]}";
    let settings = planned(&world(&cluster(spec))).settings[&key("us")].clone();
    let [ws, plain] = &settings.listeners[..] else { panic!("two are wanted") };
    assert_eq!((ws.protocol, ws.port, ws.path.as_str()), (Protocol::Ws, 80, "/x"));
    assert_eq!(ws.proxy_protocol, Some(ProxyProtocol { trusted_cidrs: vec!["10.0.0.0/8".to_owned()] }));
    let limits =
        ListenerLimits { connections_max: Some(5), connects_per_s_max: Some(7), handshake_s_max: Some(1) };
    assert_eq!(ws.limits, limits);
    assert_eq!(*plain, crate::settings::Listener::new("b", Protocol::Mqtt, 1));

    let jwt = "{authentication: {jwt: {jwksSecretRef: {name: s}, audience: mqtt}}}";
    let jwks = r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2Vj"}]}"#;
    let world_of = |jwks: &str| with_secret(jwt, &format!("{{jwks.json: '{jwks}'}}"));
    let rendered =
        planned(&world_of(jwks)).settings[&key("us")].authentication.jwt.clone().expect("it is given");
    assert_eq!((rendered.jwks.as_str(), rendered.username_claim.as_str()), (jwks, "sub"));
    assert_eq!((rendered.issuer, rendered.audience.as_deref()), (None, Some("mqtt")));
    refused(&with_secret(jwt, "{a: b}"), "ResolvedRefs", "False/SecretInvalid", "has no key `jwks.json`");
    for (jwks, message) in [
        ("{}", "is no JWKS document"),
        (r#"{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}"#, "less than 32 bytes"),
    ] {
        let secret = "names Secret default/s, which has a `jwks.json` that is ";
        refused(&world_of(jwks), "ResolvedRefs", "False/SecretInvalid", secret);
        refused(&world_of(jwks), "ResolvedRefs", "False/SecretInvalid", message);
    }
}

/// TLS takes all authorities or none, and a node with one door that does not open is not ready.
#[test]
fn every_certificate_of_a_bundle_is_read() {
    let spec =
        "{listeners: [{name: a, protocol: MQTTS, port: 1, tls: {secretRef: {name: s}, clientCaRef: {name: s},
        clientAuth: Request}}]}";
    let key = rcgen::KeyPair::generate().expect("a key");
    let own = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
    let certificate = own.self_signed(&key).expect("a certificate").pem();
    let with = |more: &str| {
        let quoted = |pem: &str| serde_json::to_string(pem).expect("JSON");
        let (ca, own, key) = (format!("{certificate}{more}"), &certificate, key.serialize_pem());
        let data =
            format!("{{ca.crt: {}, tls.crt: {}, tls.key: {}}}", quoted(&ca), quoted(own), quoted(&key));
        with_secret(spec, &data)
    };
    check_cluster(&planned(&with(&certificate)), "us", "ResolvedRefs", "True/Resolved");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let message = "has a `ca.crt` that holds a PEM block that is no X.509 certificate";
    refused(&with(broken), "ResolvedRefs", "False/SecretInvalid", message);
}

#[test]
fn rules_become_settings_as_they_are() {
    use crate::settings::{AccessRule, Action, Effect, Principals};
    let of = |spec: &str| planned(&world(&cluster(spec))).settings[&key("us")].authorization.clone();
    assert_eq!(of("{}"), None);
    assert_eq!(of("{authorization: {}}"), Some(Default::default()));
    let rules = of("{authorization: {default: Allow, rules: [
        {principals: {users: [ann], cidrs: ['10.0.0.0/8']}, action: Publish, filters: ['a/${username}'], effect: Deny}]}}");
    let rules = rules.expect("it is given");
    assert_eq!(rules.default_effect, Effect::Allow);
    let principals = Principals {
        users: vec!["ann".to_owned()],
        cidrs: vec!["10.0.0.0/8".to_owned()],
        ..Principals::default()
    };
    let (action, effect) = (Action::Publish, Effect::Deny);
    let filters = vec!["a/${username}".to_owned()];
    assert_eq!(rules.rules, [AccessRule { principals, action, filters, effect }]);
}

#[test]
fn a_refused_cluster_keeps_what_it_runs() {
    let mut world = later(world(TWO));
    let before = planned(&world).settings;
    world.clusters[0].spec.replicas = Some(3);
    world.clusters[0].spec.limits =
        Some(crate::api::cluster::Limits { max_inflight: Some(7), ..Default::default() });
    let plan = planned(&world);
    check_cluster(&plan, "us", "Ready", "False/ReplicasUnsupported");
    assert_eq!(plan.settings, before, "its settings stay, its links too");
    check_link(&plan, "us-eu", "Ready", "True/Ready");
    check_cluster(&plan, "us", "ConfigApplied", "True/Applied");
}

#[test]
fn a_refused_cluster_is_reached_where_it_runs() {
    let mut world = later(world(TWO));
    let before = planned(&world).settings;
    for cluster in &mut world.clusters {
        // Neither can be rendered, and one would have no link listener any more.
        cluster.spec.authentication = serde_saphyr::from_str("{usersSecretRef: {name: gone}}").unwrap();
        cluster.spec.link_listener = Some(serde_saphyr::from_str("{port: 9, enabled: false}").unwrap());
    }
    for placement in world.placements.values_mut() {
        placement.link_port = Some(9);
        placement.link_address = Some("127.0.0.1:9".into());
        placement.listener_ports.insert("mqtt".into(), 8);
        placement.listener_addresses.insert("mqtt".into(), "127.0.0.1:8".into());
    }
    let plan = planned(&world);
    check_cluster(&plan, "us", "Ready", "False/SecretNotFound");
    assert_eq!(plan.settings, before, "the link stays, its addresses and credentials too");
    check_link(&plan, "us-eu", "Ready", "True/Ready");
    let us = &plan.clusters[&key("us")];
    assert_eq!(us.listeners.as_ref().unwrap()[0].address.as_deref(), Some("127.0.0.1:1883"));
    let link_listener = us.link_listener.as_ref().unwrap();
    assert_eq!(link_listener.address.as_deref(), Some("127.0.0.1:11883"));
    assert!(link_listener.not_after.is_some());
}

#[test]
fn peers_go_on_to_trust_a_cluster_whose_own_certificate_is_missing() {
    let mut world = world(TWO);
    let text = "{port: 11883, tls: {mode: Secret, secretRef: {name: own}}}";
    world.clusters[0].spec.link_listener = Some(serde_saphyr::from_str(text).unwrap());
    let authority = crate::pki::Authority::mint("elsewhere", at(0), &mut random(3));
    let leaf = crate::pki::LeafRequest {
        role: None,
        usage: crate::pki::Usage::Server,
        dns: Vec::new(),
        ips: vec!["127.0.0.1".parse().unwrap()],
    };
    let leaf = authority.issue(&leaf, at(0), &mut random(4)).unwrap();
    let data = [
        ("ca.crt", &authority.certificate_pem),
        ("tls.crt", &leaf.certificate_pem),
        ("tls.key", &leaf.key_pem),
    ];
    let data = data.map(|(name, text)| (name.to_owned(), text.clone().into_bytes())).into();
    world.put_secret(Secret { namespace: "default".into(), name: "own".into(), data, ..Secret::default() });
    let mut world = later(world);
    let before = planned(&world).settings;
    // No node could serve with a key that is another certificate's.
    let other = authority.key_pem.clone().into_bytes();
    world.secrets.get_mut(&key("own")).unwrap().data.insert("tls.key".into(), other);
    // A Secret that changed is another one: of the same, this is asked once.
    check_cluster(&planned(&world), "us", "ResolvedRefs", "True/Resolved");
    world.secrets.get_mut(&key("own")).unwrap().pair = Default::default();
    let plan = planned(&world);
    check_cluster(&plan, "us", "ResolvedRefs", "False/SecretInvalid");
    let message = cluster_condition(&plan, "us", "ResolvedRefs").message;
    assert!(
        message.contains("`tls.key` beside its `tls.crt` that holds the private key of another"),
        "{message}"
    );
    assert_eq!(plan.settings, before);
    world.secrets.clear();
    let plan = planned(&world);
    check_cluster(&plan, "us", "ResolvedRefs", "False/SecretNotFound");
    assert_eq!(plan.settings, before);
}

#[test]
fn a_spec_becomes_settings() {
    let world = with_secret(
        "{clusterName: c, authentication: {anonymous: true, usersSecretRef: {name: s}},
          listeners: [{name: a, protocol: MQTT, port: 1884}], linkListener: {enabled: false},
          limits: {maxPacketBytes: 1Mi, maxInflight: 9, maxQueuedMessages: 8, maxQueuedBytes: 2k, maxConnections: 7,
                   maxTotalQueuedMessages: 80, maxTotalQueuedBytes: 20k, maxSessionExpiry: 1m}}",
        "{users: 'ann:plain:secret'}",
    );
    let plan = planned(&world);
    let settings = &plan.settings[&key("us")];
    assert_eq!((settings.cluster.as_str(), settings.bind.as_str()), ("c", "127.0.0.1"));
    assert_eq!((settings.listeners[0].name.as_str(), settings.listeners[0].port), ("a", 1884));
    assert_eq!(settings.link_listener, None);
    assert!(settings.authentication.anonymous);
    assert_eq!(settings.authentication.users[0].secret, "plain:secret");
    let limits = &settings.limits;
    assert_eq!((limits.packet_bytes_max, limits.inflight_max, limits.queued_messages_max), (1 << 20, 9, 8));
    assert_eq!((limits.total_queued_messages_max, limits.total_queued_bytes_max), (80, 20_000));
    assert_eq!((limits.queued_bytes_max, limits.connections_max, limits.session_expiry_s_max), (2000, 7, 60));
}

#[test]
fn a_placement_moves_ports() {
    let mut world = world(TWO);
    let placement = world.placements.get_mut(&key("eu")).unwrap();
    placement.listener_ports.insert("mqtt".into(), 5000);
    placement.link_port = Some(5001);
    placement.link_address = Some("127.0.0.1:5001".into());
    let plan = planned(&world);
    let eu = &plan.settings[&key("eu")];
    assert_eq!((eu.listeners[0].port, eu.link_listener.as_ref().unwrap().port), (5000, 5001));
    assert_eq!(plan.settings[&key("us")].links[0].server.as_deref(), Some("127.0.0.1:5001"));
}

#[test]
fn an_empty_spec_lets_nobody_in_and_says_so() {
    let plan = planned(&later(world(&cluster("{}"))));
    check_cluster(&plan, "us", "Ready", "True/Ready");
    assert!(cluster_condition(&plan, "us", "Ready").message.starts_with("Nobody may connect"));
    let authentication = &plan.settings[&key("us")].authentication;
    assert!(!authentication.anonymous && authentication.users.is_empty());
}

#[test]
fn ready_says_so_when_nodes_do_not_keep_what_they_should() {
    let message =
        |spec: &str| cluster_condition(&planned(&later(world(&cluster(spec)))), "us", "Ready").message;
    for volume in ["{storage: {size: 1Gi}}", "{storage: {size: 1Gi, durability: None, retention: Delete}}"] {
        assert!(message(volume).contains("in memory: pods have no volumes"), "{volume}");
    }
    for fine in ["{}", "{storage: {ephemeral: true}}"] {
        assert!(!message(fine).contains("in memory"), "{fine}");
    }
}

#[test]
fn durability_is_for_clusters_with_a_volume() {
    use crate::settings::Durability;
    let rendered = |spec: &str| planned(&world(&cluster(spec))).settings[&key("us")].storage.durability;
    assert_eq!(rendered("{}"), Durability::None);
    assert_eq!(rendered("{storage: {ephemeral: true}}"), Durability::None);
    assert_eq!(rendered("{storage: {size: 1Gi}}"), Durability::Interval);
    assert_eq!(rendered("{storage: {size: 1Gi, durability: Always}}"), Durability::Always);
}

#[test]
fn what_cannot_be_applied_is_said() {
    let mut world = world(&cluster("{}"));
    let trouble = "failed to apply Service default/us-mqtt: quota";
    world.troubles.insert(key("us"), Trouble { message: trouble.to_owned(), is_refused: false });
    let plan = planned(&world);
    check_cluster(&plan, "us", "Progressing", "False/ApplyFailed");
    check_cluster(&plan, "us", "Ready", "False/ApplyFailed");
    assert_eq!(cluster_condition(&plan, "us", "Ready").message, trouble);
}

#[test]
fn users_that_no_secret_can_hold_are_refused() {
    let users: String = (0..40_000).map(|number| format!("user-{number}:plain:x\n")).collect();
    let mut world = world(
        "kind: MqttCluster\nmetadata: {name: us}\nspec: {authentication: {usersSecretRef: {name: people}}}",
    );
    let data = BTreeMap::from([("users".to_owned(), b"ann:plain:x".to_vec())]);
    world.put_secret(Secret {
        namespace: "default".into(),
        name: "people".into(),
        data,
        ..Secret::default()
    });
    world.placements.get_mut(&key("us")).unwrap().selector = Some("a=b".into());
    let first = planned(&world);
    publish(&mut world, first.clone());
    world.secrets.get_mut(&key("people")).unwrap().data.insert("users".into(), users.into_bytes());
    let second = planned(&world);
    check_cluster(&second, "us", "Stalled", "True/SettingsTooLarge");
    let message = cluster_condition(&second, "us", "Ready").message;
    assert!(
        message.contains("bytes in users.json, and a Secret holds 1048576; have fewer users"),
        "{message}"
    );
    assert_eq!(second.settings, first.settings, "what runs runs on");
}
