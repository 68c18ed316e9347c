//! The table of accepted and refused objects, and the two judges that must agree on each.
//!
//! One judge is ours ([`super`] with the shape before it), the other one stands for the API server (`server.rs`).

mod changes;
mod clusters;
mod links;
mod server;
mod real;

use serde_json::{Value, json};

use super::*;
use crate::api::crd::Kind;
use crate::api::{ClusterLink, MqttCluster, structure};

/// One object of the table: a spec, and the fields in which it is refused (none: accepted).
struct Case {
    spec: String,
    refused: &'static [&'static str],
}

fn accept(spec: impl Into<String>) -> Case {
    Case { spec: spec.into(), refused: &[] }
}

fn refuse(refused: &'static [&'static str], spec: impl Into<String>) -> Case {
    Case { spec: spec.into(), refused }
}

fn manifest(kind: Kind, name: &str, spec: &str) -> Value {
    let spec: Value = serde_saphyr::from_str(spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
    json!({
        "apiVersion": "mqlink.dev/v1alpha1", "kind": kind.as_str(),
        "metadata": { "name": name, "namespace": "default" }, "spec": spec,
    })
}

/// What we say: the shape first, then the rules on the typed object.
fn findings(kind: Kind, manifest: &Value, old: Option<&Value>) -> Vec<Finding> {
    let shape = structure::check(kind, manifest);
    if !shape.is_empty() {
        return shape;
    }
    fn read<T: serde::de::DeserializeOwned>(manifest: &Value) -> T {
        serde_json::from_value(manifest.clone()).unwrap_or_else(|error| panic!("{manifest}: {error}"))
    }
    match kind {
        Kind::MqttCluster => {
            let new: MqttCluster = read(manifest);
            let change = old.map(|old| cluster_change(&read(old), &new)).unwrap_or_default();
            [cluster(&new), change].concat()
        }
        Kind::ClusterLink => {
            let new: ClusterLink = read(manifest);
            let change = old.map(|old| link_change(&read(old), &new)).unwrap_or_default();
            [link(&new), change].concat()
        }
    }
}

/// Both judges on one object: the same verdict, the expected one, at the expected fields.
#[track_caller]
fn check(kind: Kind, manifest: &Value, old: Option<&Value>, refused: &[&str]) {
    let ours = findings(kind, manifest, old);
    let theirs = server::complaints(kind, manifest, old);
    assert_eq!(ours.is_empty(), theirs.is_empty(), "{manifest}\nours: {ours:#?}\nserver's: {theirs:#?}");
    if let Some(real) = real::complaints(kind, manifest, old) {
        assert_eq!(ours.is_empty(), real.is_empty(), "{manifest}\nours: {ours:#?}\nAPI server's: {real:#?}");
        let said = real.concat();
        for path in refused {
            assert!(real::names(&said, path), "{manifest}\n{path} is not in {said}");
            // Kubernetes' own types have patterns that say nothing; there may be too many of them for rules.
            assert!(path.starts_with("spec.podTemplate.") || !said.contains("should match"), "{said}");
        }
    }
    let mut paths: Vec<&str> = ours.iter().map(|finding| finding.path.as_str()).collect();
    paths.dedup();
    assert_eq!(paths, refused, "{manifest}\n{ours:#?}");
    assert!(
        !theirs.iter().any(|complaint| complaint.contains("EvaluationError")),
        "a rule failed: {theirs:#?}"
    );
}

#[track_caller]
fn check_all(kind: Kind, cases: Vec<Case>) {
    for case in cases {
        check(kind, &manifest(kind, "us", &case.spec), None, case.refused);
    }
}

#[test]
fn names_of_objects() {
    for (kind, spec) in [(Kind::MqttCluster, "{}"), (Kind::ClusterLink, links::MANAGED)] {
        let forty = "a".repeat(40);
        for name in ["a", "us-east", "x1", &forty] {
            check(kind, &manifest(kind, name, spec), None, &[]);
        }
        for name in ["-a", "a-", "A", "a.b", "a_b", "é", &"a".repeat(41)] {
            check(kind, &manifest(kind, name, spec), None, &["metadata.name"]);
        }
    }
    check(Kind::ClusterLink, &manifest(Kind::ClusterLink, "1a", links::MANAGED), None, &[]);
    check(Kind::MqttCluster, &manifest(Kind::MqttCluster, "1a", "{}"), None, &["metadata.name"]);
}

#[test]
fn what_is_beside_the_spec() {
    let mut object = manifest(Kind::MqttCluster, "us", "{}");
    object["status"] = json!({ "anything": true });
    assert_eq!(findings(Kind::MqttCluster, &object, None), vec![]);
    object["spce"] = json!({});
    assert_eq!(findings(Kind::MqttCluster, &object, None)[0].path, "spce");
    object.as_object_mut().unwrap().remove("spec");
    let paths: Vec<String> = findings(Kind::MqttCluster, &object, None).into_iter().map(|f| f.path).collect();
    assert_eq!(paths, ["spce", "spec"]);
    assert_eq!(structure::check(Kind::ClusterLink, &json!([])).len(), 1);
}

#[test]
fn redundant_filters_are_named_not_refused() {
    let check = |filters: &[&str], redundant: &[(&str, &str)]| {
        let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
        let named = redundant_filters(&filters);
        let named: Vec<_> = named.iter().map(|(filter, by)| (filter.as_str(), by.as_str())).collect();
        assert_eq!(named, redundant, "{filters:?}");
    };
    check(&["a/#", "a/b", "c", "a/+/x"], &[("a/b", "a/#"), ("a/+/x", "a/#")]);
    check(&["+/#", "#"], &[("+/#", "#")]);
    check(&["a/+", "+/b"], &[]);
}

#[test]
fn findings_name_the_value_and_the_remedy() {
    let cases = [
        (
            Kind::ClusterLink,
            "{clusterRef: {name: a}, topics: ['a/#/b'], remote: {clusterRef: {name: b}, topics: []}}",
        ),
        (Kind::ClusterLink, "{clusterRef: {name: a}, topics: [a, b, a], remote: {clusterRef: {name: b}}}"),
        (Kind::MqttCluster, "{replicas: 0, listeners: [{name: link, protocol: MQTT, port: 11883}]}"),
        (Kind::MqttCluster, "{listeners: [{name: a, protocol: TCP, port: '1'}], linkListner: {}}"),
    ];
    let texts = cases.map(|(kind, spec)| findings(kind, &manifest(kind, "us", spec), None));
    let texts: Vec<String> = texts.into_iter().flatten().map(|finding| finding.to_string()).collect();
    insta::assert_snapshot!(texts.join("\n"));
}

/// What people read who are refused by `kubectl`. Without a server this abstains.
#[test]
fn a_server_names_the_field_and_the_remedy() {
    let external = |rest: &str| {
        format!("{{clusterRef: {{name: a}}, topics: [], remote: {{external: {{clusterName: b, {rest}}}}}}}")
    };
    let managed = |rest: &str| {
        format!(
            "{{clusterRef: {{name: a}}, topics: [], remote: {{clusterRef: {{name: b}}, topics: []}}, {rest}}}"
        )
    };
    let listener = |rest: &str| format!("{{listeners: [{{name: a, protocol: WS, port: 1, {rest}}}]}}");
    let secure = |rest: &str| {
        format!(
            "{{listeners: [{{name: a, protocol: WSS, port: 1, tls: {{secretRef: {{name: a}}, {rest}}}}}]}}"
        )
    };
    let rule = |rest: &str| format!("{{authorization: {{rules: [{{action: All, effect: Allow, {rest}}}]}}}}");
    let links = [
        ("a.b", links::MANAGED.to_owned()),
        ("l", "{clusterRef: {name: A}, topics: ['a/#/b', '$SYS/#'], remote: {clusterRef: {name: b, namespace: c.d}, topics: [a, a]}}".to_owned()),
        ("l", "{clusterRef: {name: a}, topics: [], remote: {clusterRef: {name: b}}}".to_owned()),
        ("l", "{clusterRef: {name: a}, topics: [], remote: {}}".to_owned()),
        ("l", managed("clientIdPrefix: a/b, forwarding: {queue: {maxBytes: 1gi, maxAge: 1w}}")),
        ("l", external("dial: Out, tls: {caRef: {name: a_b}, serverName: 'a:1'}")),
        ("l", external("server: 'mqtt://h:1', tls: {}, credentialsRef: {name: A}")),
        ("l", external("server: h, dialect: Emqx, dial: Both")),
        ("l", external("server: 'h:1'").replace("clusterName: b", "clusterName: a+b")),
    ];
    let clusters = [
        ("1a", "{}".to_owned()),
        (
            "c",
            "{clusterName: a/b, image: '', linkListener: {port: 1883, advertisedAddress: 'mqtt://a'}}"
                .to_owned(),
        ),
        (
            "c",
            "{listeners: [{name: link, protocol: MQTTS, port: 1}, {name: 1a, protocol: MQTT, port: 1}]}"
                .to_owned(),
        ),
        ("c", listener("path: '/a b', allowedOrigins: [app.example], proxyProtocol: {trustedCidrs: [lb]}")),
        ("c", listener("path: /a, allowedOrigins: []").replace("WS", "MQTT")),
        ("c", secure("clientCaRef: {name: A}, usernameFrom: Dns")),
        (
            "c",
            "{linkListener: {tls: {mode: Secret}}, allowedLinks: {namespaces: Selector}, storage: {}}"
                .to_owned(),
        ),
        (
            "c",
            "{storage: {ephemeral: true, retention: Delete}, limits: {maxPacketBytes: 1k, maxKeepAlive: 0s}}"
                .to_owned(),
        ),
        ("c", rule("filters: ['a/#/b', '${user}', '$share/g/a'], principals: {cidrs: ['10.0.0.1']}")),
        ("c", "{podTemplate: {metadata: {labels: {a: -a}}, priorityClass: A}}".to_owned()),
    ];
    let links = links.map(|(name, spec)| manifest(Kind::ClusterLink, name, &spec)).to_vec();
    let clusters = clusters.map(|(name, spec)| manifest(Kind::MqttCluster, name, &spec)).to_vec();
    let said = |(kind, manifests): (Kind, Vec<Value>)| {
        let complaints = manifests.into_iter().filter_map(move |it| real::complaints(kind, &it, None));
        complaints.map(|complaints| sorted(&complaints.concat()))
    };
    let both = [(Kind::ClusterLink, links), (Kind::MqttCluster, clusters)];
    let said: Vec<String> = both.into_iter().flat_map(said).collect();
    if !said.is_empty() {
        insta::assert_snapshot!(said.join("\n\n"));
    }
}

/// One finding a line: the server tells them in any order.
fn sorted(said: &str) -> String {
    let (about, findings) = said.split_once(" is invalid: ").expect("it was refused for what it is");
    let list = findings.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
    let findings = list.unwrap_or(findings).replace(", spec.", "\nspec.");
    let mut lines: Vec<&str> = findings.lines().collect();
    lines.sort_unstable();
    [&[about], &lines[..]].concat().join("\n")
}
