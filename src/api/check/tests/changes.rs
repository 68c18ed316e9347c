//! Changes from one object to another.

use super::*;

#[track_caller]
fn change(kind: Kind, old: &str, new: &str, refused: &[&str]) {
    let (old, new) = (manifest(kind, "us", old), manifest(kind, "us", new));
    check(kind, &new, Some(&old), refused);
}

#[test]
fn a_cluster_keeps_its_name() {
    let cluster = |old, new, refused| change(Kind::MqttCluster, old, new, refused);
    cluster("{}", "{}", &[]);
    cluster("{}", "{clusterName: us}", &[]);
    cluster("{clusterName: us}", "{}", &[]);
    cluster("{clusterName: a}", "{clusterName: a, replicas: 2}", &[]);
    cluster("{}", "{clusterName: other}", &["spec.clusterName"]);
    cluster("{clusterName: other}", "{}", &["spec.clusterName"]);
    cluster("{clusterName: a}", "{clusterName: b}", &["spec.clusterName"]);
}

#[test]
fn a_cluster_keeps_its_kind_of_storage() {
    let cluster = |old, new, refused| change(Kind::MqttCluster, old, new, refused);
    cluster("{}", "{storage: {ephemeral: true}}", &[]);
    cluster("{storage: {ephemeral: true}}", "{}", &[]);
    cluster("{storage: {size: 1Gi}}", "{storage: {size: 1Gi, retention: Delete}}", &[]);
    cluster("{storage: {size: 1Gi}}", "{storage: {size: 1025Mi}}", &[]);
    cluster("{storage: {size: 1Gi}}", "{storage: {size: 1024Mi}}", &[]);
    cluster("{storage: {size: 1Gi}}", "{storage: {size: 1G}}", &["spec.storage.size"]);
    cluster("{storage: {size: 1Gi}}", "{}", &["spec.storage"]);
    cluster("{}", "{storage: {size: 1Gi}}", &["spec.storage"]);
    cluster("{storage: {ephemeral: true}}", "{storage: {size: 1Gi}}", &["spec.storage"]);
    cluster(
        "{storage: {size: 1Gi}}",
        "{storage: {size: 1Gi, storageClassName: a}}",
        &["spec.storage.storageClassName"],
    );
    cluster(
        "{storage: {size: 1Gi, storageClassName: a}}",
        "{storage: {size: 1Gi}}",
        &["spec.storage.storageClassName"],
    );
    cluster(
        "{replicas: 1}",
        "{replicas: 3, limits: {maxInflight: 9}, authentication: {anonymous: true}}",
        &[],
    );
}

#[test]
fn a_link_keeps_its_two_clusters() {
    let link = |old: &str, new: &str, refused: &[&str]| {
        let spec = |part: &str| format!("{{topics: [], {part}}}");
        change(Kind::ClusterLink, &spec(old), &spec(new), refused);
    };
    let managed = "clusterRef: {name: us}, remote: {clusterRef: {name: eu}, topics: []}";
    let external = "clusterRef: {name: us}, remote: {external: {clusterName: eu, server: 'a:1'}}";
    link(managed, managed, &[]);
    link(
        managed,
        "clusterRef: {name: us}, remote: {clusterRef: {name: eu}, topics: [a]}, enabled: false",
        &[],
    );
    link(
        managed,
        "clusterRef: {name: as}, remote: {clusterRef: {name: eu}, topics: []}",
        &["spec.clusterRef"],
    );
    link(
        managed,
        "clusterRef: {name: us}, remote: {clusterRef: {name: as}, topics: []}",
        &["spec.remote.clusterRef"],
    );
    link(
        managed,
        "clusterRef: {name: us}, remote: {clusterRef: {name: eu, namespace: other}, topics: []}",
        &["spec.remote.clusterRef"],
    );
    link(managed, external, &["spec.remote"]);
    link(external, managed, &["spec.remote"]);
    link(
        external,
        "clusterRef: {name: us}, remote: {external: {clusterName: eu, server: 'b:2', dial: Out}}",
        &[],
    );
    link(
        external,
        "clusterRef: {name: us}, remote: {external: {clusterName: as, server: 'a:1'}}",
        &["spec.remote.external.clusterName"],
    );
}
