use serde_json::{Value, json};

use super::*;

fn cluster(spec: &str) -> MqttCluster {
    let spec: Value = serde_saphyr::from_str(spec).expect("valid YAML");
    let manifest = json!({
        "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "spec": spec,
        "metadata": {"name": "us-east", "namespace": "mqtt", "uid": "3c2f", "labels": {"argocd": "tracks"}},
    });
    serde_json::from_value(manifest).expect("a valid cluster")
}

fn find(objects: &[Object], kind: Kind, name: &str) -> Value {
    let found = objects.iter().find(|object| object.id.kind == kind && object.id.name == name);
    found.unwrap_or_else(|| panic!("no {kind:?} {name}")).body.as_ref().clone()
}

fn yaml(objects: &[Object]) -> String {
    let texts = objects.iter().map(|object| serde_saphyr::to_string(&*object.body).expect("plain data"));
    texts.collect::<Vec<_>>().join("---\n")
}

#[test]
fn the_smallest_cluster() {
    insta::assert_snapshot!(yaml(&build_cluster(&cluster("{}"), "example.org/mqlink:1")));
}

#[test]
fn a_cluster_with_everything() {
    let objects = build_cluster(
        &cluster(
            r#"
            image: example.org/own:2
            listeners:
            - {name: mqtt, protocol: MQTT, port: 1883, service: {type: NodePort}}
            - name: mqtts
              protocol: MQTTS
              port: 8883
              tls: {secretRef: {name: own}}
              service: {type: LoadBalancer, annotations: {lb.example.org/kind: fast}}
            linkListener: {port: 12883, service: {type: LoadBalancer}}
            podTemplate:
              metadata:
                labels: {team: iot, mqlink.dev/cluster: stolen}
                annotations: {example.org/scrape: "yes"}
              resources: {limits: {memory: 512Mi}}
              affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: Exists}]}]}}}
              tolerations: [{key: dedicated, operator: Exists}]
              topologySpread: [{maxSkew: 2, topologyKey: rack, whenUnsatisfiable: DoNotSchedule}]
              priorityClass: high
              env: [{name: TZ, value: UTC}, {name: POD_NAME, value: stolen}]
            "#,
        ),
        "example.org/mqlink:1",
    );
    insta::assert_snapshot!(yaml(&objects));
}

#[test]
fn a_cluster_that_only_dials_has_no_link_service() {
    let objects = build_cluster(&cluster("linkListener: {enabled: false}"), "i");
    assert!(objects.iter().all(|object| object.id.name != "us-east-link"));
}

#[test]
fn what_restarts_nothing_is_not_in_the_pod_template() {
    let template = |spec: &str| {
        let objects = build_cluster(&cluster(spec), "i");
        find(&objects, Kind::StatefulSet, "us-east")["spec"]["template"].clone()
    };
    let before = template("{}");
    for spec in [
        "listeners: [{name: other, protocol: MQTT, port: 1999}]",
        "linkListener: {port: 12000}",
        "authentication: {anonymous: true}",
        "limits: {maxConnections: 5}",
        "allowedLinks: {namespaces: All}",
    ] {
        assert_eq!(template(spec), before, "{spec}");
    }
    assert_ne!(template("image: other"), before);
}

/// Who sees another hash here has to give it another scheme: else the next version restarts every cluster at once.
#[test]
fn what_a_spec_says_of_pods_has_the_same_hash_in_every_version() {
    let hash = |spec: &str| {
        let objects = build_cluster(&cluster(spec), "i");
        let set = find(&objects, Kind::StatefulSet, "us-east");
        set["metadata"]["annotations"][POD_SPEC].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(hash("{}"), "1-2d22169807306132147cf5dd675d1e8865dad3563e3674dde844e7a9e0f36fd4");
    let whole = "{image: 'example.org/mqlink:2', podTemplate: {priorityClass: high, metadata: {labels: {team: iot}}, \
                 env: [{name: A, value: b}], resources: {requests: {cpu: '1'}}}}";
    assert_eq!(hash(whole), "1-5b688cd062eddac5dc12093bf90e5e188c123491ea98893aef6bd77789d8275d");
    assert_eq!(hash("{image: '', listeners: [], authentication: {anonymous: true}}"), hash("{}"));
}

#[test]
fn the_longest_names_are_names() {
    let name = "n".repeat(crate::api::bounds::NAME_CHARS_MAX);
    let mut longest = cluster("listeners: [{name: fifteenletters1, protocol: MQTT, port: 1}]");
    longest.metadata.name = Some(name.clone());
    for object in build_cluster(&longest, "i") {
        assert!(object.id.name.len() <= 63, "{}", object.id);
    }
    // The label that a StatefulSet gives its pods: the name, a dash and a hash of ten characters.
    assert!(name.len() + 11 <= 63);
}

#[test]
fn nobody_gets_the_labels_of_the_users_object() {
    for object in build_cluster(&cluster("{}"), "i") {
        assert!(!object.body.to_string().contains("argocd"), "{}", object.id);
    }
}

#[test]
fn the_labels_of_pods_that_are_ours_are_those_that_we_say_are() {
    let ours: Vec<String> = meta::cluster_labels(&cluster("{}")).into_keys().collect();
    assert_eq!(ours, crate::api::pods::OWN_LABELS);
}

#[test]
fn secrets_hold_what_nodes_read() {
    let settings = Settings::new("us-east");
    let objects = build_settings(&cluster("{}"), &settings);
    let names: Vec<&str> = objects.iter().map(|object| object.id.name.as_str()).collect();
    assert_eq!(names, ["mqlink-us-east-settings", "mqlink-us-east-users", "mqlink-us-east-links"]);
    let mut pieces = Vec::new();
    for object in objects {
        let typed: k8s_openapi::api::core::v1::Secret =
            serde_json::from_value(object.body.as_ref().clone()).expect("a Secret");
        pieces.extend(typed.data.expect("it has data").into_iter().map(|(file, bytes)| (file, bytes.0)));
    }
    let named = pieces.iter().map(|(file, json)| (file.clone(), json.as_slice()));
    let merged = crate::settings::merge(named).expect("they are of one rendering");
    assert_eq!(serde_json::from_slice::<Settings>(&merged).expect("the document"), settings);
}

#[test]
fn an_object_matches_when_all_that_is_wanted_is_there() {
    let wanted = json!({"a": {"b": 1}, "list": [{"x": 1}], "none": {}});
    let check = |found: Value, expected: bool| assert_eq!(matches(&wanted, &found), expected, "{found}");
    check(json!({"a": {"b": 1, "default": 2}, "list": [{"x": 1, "default": 2}], "status": {}}), true);
    check(json!({"a": {"b": 2}, "list": [{"x": 1}]}), false);
    check(json!({"a": {}, "list": [{"x": 1}]}), false);
    check(json!({"a": {"b": 1}, "list": [{"x": 1}, {"x": 2}]}), false);
}

#[test]
fn one_key_more_in_a_map_that_is_one_value_is_taken_out() {
    let wanted = json!({"spec": {"selector": {"app": "ours"}, "labels": {"a": "b"}}});
    let check = |found: Value, expected: Option<Value>| {
        let merged = (!matches(&wanted, &found)).then(|| merging("", &wanted, &found));
        assert_eq!(merged, expected, "{found}");
    };
    check(json!({"spec": {"selector": {"app": "ours"}, "labels": {"a": "b", "c": "d"}}}), None);
    let out = json!({"spec": {"selector": {"app": "ours", "other": null}, "labels": {"a": "b"}}});
    check(json!({"spec": {"selector": {"app": "ours", "other": "theirs"}, "labels": {"c": "d"}}}), Some(out));
    assert!(!matches(&json!({"data": {"a": "b"}}), &json!({"data": {"a": "b", "c": "d"}})));
    assert_eq!(merging("data", &json!({"a": "b"}), &json!({"c": "d"})), json!({"a": "b", "c": null}));
}
