use std::path::PathBuf;

use super::files::{self, Text};
use super::{Manifests, load};

const CLUSTER: &str = "\
apiVersion: mqlink.dev/v1alpha1
kind: MqttCluster
metadata: {name: us, namespace: mqtt}
spec:
  authentication:
    anonymous: true
";
const LINK: &str = "\
apiVersion: mqlink.dev/v1alpha1
kind: ClusterLink
metadata:
  name: us-eu
spec:
  clusterRef: {name: us}
  topics: [\"#\"]
  remote:
    clusterRef: {name: eu}
    topics: []
";
const SECRET: &str = "\
apiVersion: v1
kind: Secret
metadata: {name: users}
data: {users: YTpwbGFpbjpi}
stringData:
  more: text
";

fn load_text(text: &str) -> Result<Manifests, Vec<String>> {
    let texts = [Text { path: "x.yaml".into(), text: text.to_owned() }];
    load(&texts, &Manifests::default()).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found = load_text(text).err().unwrap_or_default();
    let as_expected = found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.contains(e));
    assert!(as_expected, "{found:#?}");
}

fn change(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the test names something that is there");
    text.replace(from, to)
}

#[test]
fn several_documents_and_kinds_are_read() {
    let text = format!(
        "# a comment\n---\n{CLUSTER}---\n{LINK}---\n---\n{SECRET}---\napiVersion: v1\nkind: Namespace\n"
    );
    let manifests = load_text(&text).unwrap();
    assert_eq!(manifests.clusters[0].metadata.namespace.as_deref(), Some("mqtt"));
    assert_eq!(manifests.links[0].metadata.namespace.as_deref(), Some("default"));
    let secret = &manifests.secrets[0];
    assert_eq!((secret.namespace.as_str(), secret.name.as_str()), ("default", "users"));
    assert_eq!(secret.data["users"], b"a:plain:b");
    assert_eq!(secret.data["more"], b"text");
}

#[test]
fn every_mistake_names_its_place() {
    check(CLUSTER, &[]);
    check(
        &change(CLUSTER, "anonymous", "anonymus"),
        &["x.yaml:6:5: MqttCluster mqtt/us spec.authentication.anonymus is not a known field"],
    );
    check(
        &change(CLUSTER, "true", "\"true\""),
        &["x.yaml:6:5: MqttCluster mqtt/us spec.authentication.anonymous must be true or false"],
    );
    check(
        &change(CLUSTER, "spec:", "spce:"),
        &[
            "x.yaml:1:1: MqttCluster mqtt/us spec is required",
            "x.yaml:4:1: MqttCluster mqtt/us spce is not a known field",
        ],
    );
    check(
        &change(CLUSTER, "namespace", "namspace"),
        &[
            "x.yaml:3:22: MqttCluster default/us metadata.namspace is not a known field; did you mean namespace?",
        ],
    );
    check(
        &change(CLUSTER, "name: us,", "name: 5,"),
        &["x.yaml:3:12: MqttCluster mqtt/ metadata.name must be a string"],
    );
    check(
        &change(LINK, "  name: us-eu", "  name: us-eu\n  annotations: {mqlink.dev/resync: 5}"),
        &["metadata.annotations.mqlink.dev/resync must be a string (put it in quotes)"],
    );
    check(
        &change(CLUSTER, "namespace: mqtt", "namespace: ../mqtt"),
        &["x.yaml:3:22: MqttCluster ../mqtt/us metadata.namespace must be the name of a namespace"],
    );
    check(&change(CLUSTER, "name: us,", ""), &["x.yaml:3:1: MqttCluster mqtt/ metadata.name is required"]);
    check(
        &change(LINK, "[\"#\"]", "[a, \"b/#/c\"]"),
        &["x.yaml:7:15: ClusterLink default/us-eu spec.topics[1]"],
    );
    check(
        &change(LINK, "    topics: []\n", ""),
        &["x.yaml:8:3: ClusterLink default/us-eu spec.remote.topics"],
    );
}

#[test]
fn wrong_kinds_and_versions_are_explained() {
    check(
        &change(CLUSTER, "MqttCluster", "MqtCluster"),
        &[
            "x.yaml:2:1: kind is `MqtCluster`, which mqlink up does not know (did you mean MqttCluster?); it knows",
        ],
    );
    check(
        &change(CLUSTER, "v1alpha1", "v1"),
        &["x.yaml:1:1: apiVersion is `mqlink.dev/v1`, but MqttCluster has mqlink.dev/v1alpha1"],
    );
    check(&change(SECRET, "apiVersion: v1", "apiVersion: v2"), &["apiVersion is `v2`, but Secret has v1"]);
    check("apiVersion: v1\n", &["x.yaml:1:1: kind is missing"]);
    check(
        "apiVersion: apps/v1\nkind: Deployment\n",
        &["x.yaml:2:1: kind is `Deployment`, which mqlink up does not know; it knows"],
    );
    check("- a\n", &["x.yaml:1:1: this is no object"]);
}

#[test]
fn broken_yaml_names_its_line() {
    check("a: 1\nb: [1,\n", &["x.yaml:"]);
    check("a: 1\na: 2\n", &["x.yaml:2:1: this is no YAML: duplicate mapping key: a"]);
    check(&format!("{CLUSTER}  \tbad: x: y\n"), &["x.yaml:"]);
}

#[test]
fn objects_that_are_there_twice_are_refused() {
    check(
        &format!("{CLUSTER}---\n{CLUSTER}"),
        &["x.yaml:10:12: MqttCluster mqtt/us is there already, at x.yaml:1"],
    );
    check(&format!("{CLUSTER}---\n{}", change(CLUSTER, "mqtt}", "other}")), &[]);
}

#[test]
fn secrets_are_checked_as_well() {
    check(SECRET, &[]);
    check(
        &change(SECRET, "YTpwbGFpbjpi", "a:plain:b"),
        &["x.yaml:4:8: Secret default/users data.users must be base64; plain text belongs into stringData"],
    );
    check(
        &change(SECRET, "more: text", "more: 5"),
        &["x.yaml:6:3: Secret default/users stringData.more must be a string"],
    );
    check(
        &change(SECRET, "stringData", "stringdata"),
        &["x.yaml:5:1: Secret default/users stringdata is not a known field"],
    );
}

#[test]
fn directories_are_read_by_name_and_not_deeper() {
    let home = tempfile::tempdir().unwrap();
    for (name, text) in [("b.yaml", "b"), ("a.yml", "a"), ("c.json", "c"), ("d.txt", "d")] {
        std::fs::write(home.path().join(name), text).unwrap();
    }
    std::fs::create_dir(home.path().join("deeper.yaml")).unwrap();
    let read: Vec<String> =
        files::read(&[home.path().to_owned()]).unwrap().into_iter().map(|file| file.text).collect();
    assert_eq!(read, ["a", "b", "c"]);
    let missing = files::read(&[PathBuf::from("/nowhere/x.yaml")]).unwrap_err().to_string();
    assert!(missing.starts_with("failed to read /nowhere/x.yaml: "), "{missing}");
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let error = files::read(&[PathBuf::from("/dev/null")]).unwrap_err().to_string();
    assert!(error.contains("it is no regular file; save the manifest as one"), "{error}");
}

#[test]
fn an_edit_must_not_change_who_an_object_is() {
    let text = |text: &str| [Text { path: "x.yaml".into(), text: text.to_owned() }];
    let before = load(&text(LINK), &Manifests::default()).unwrap();
    assert!(load(&text(&change(LINK, "topics: []", "topics: [a]")), &before).is_ok());
    let problems = load(&text(&change(LINK, "name: us}", "name: other}")), &before).unwrap_err();
    assert_eq!((problems[0].line, problems[0].field.as_str()), (6, "spec.clusterRef"));
}
