//! What `config/` has for use beside the operator, held to what it makes: it names pods, ports and labels.

use serde_json::{Value, json};

use super::scene::play;
use super::world::{World, id};
use crate::operator::build::{Kind, RESERVED_PORTS};
use crate::testing::send;

const POLICY: &str = include_str!("../../../config/network-policy/brokers.yaml");
const MONITOR: &str = include_str!("../../../config/monitoring/pod-monitor.yaml");
const OPERATOR: &str = include_str!("../../../config/manager/deployment.yaml");

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("it is YAML")
}

/// The pod of the smallest cluster, and the port of its link listener.
fn broker() -> (Value, i64) {
    let mut world = World::new();
    world.cluster("us-east");
    world.settle();
    let port = world.objects[&id(Kind::Service, "us-east-link")]["spec"]["ports"][0]["port"].as_i64();
    let set = world.objects[&id(Kind::StatefulSet, "us-east")].clone();
    (set["spec"]["template"].clone(), port.expect("a port"))
}

/// Whether a selector finds an object.
fn finds(selector: &Value, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let wanted = selector["matchLabels"].as_object().into_iter().flatten();
    let named = selector["matchExpressions"].as_array().into_iter().flatten();
    wanted.into_iter().all(|(key, value)| labels[key] == *value)
        && named
            .into_iter()
            .all(|it| it["operator"] == "Exists" && labels[it["key"].as_str().unwrap_or("")].is_string())
}

/// Whom a policy lets in to a port: `Null` is everybody.
fn let_in(policy: &Value, port: i64) -> Vec<Value> {
    let has = |rule: &&Value| {
        rule["ports"].as_array().into_iter().flatten().any(|range| {
            let first = range["port"].as_i64().expect("a number");
            (first..=range["endPort"].as_i64().unwrap_or(first)).contains(&port)
        })
    };
    let rules = policy["spec"]["ingress"].as_array().expect("rules");
    rules.iter().filter(has).map(|rule| rule["from"][0].clone()).collect()
}

#[test]
fn the_network_policy_lets_in_who_has_to_come_in() {
    let (policy, operator, (broker, link)) = (yaml(POLICY), yaml(OPERATOR), broker());
    assert!(
        finds(&policy["spec"]["podSelector"], &broker) && !finds(&policy["spec"]["podSelector"], &operator)
    );
    let [(admin, _), (health, _)] = RESERVED_PORTS;
    for port in [1883, 8883, i64::from(health), 65_535] {
        assert_eq!(let_in(&policy, port), [Value::Null], "{port}");
    }
    let [only] = &let_in(&policy, i64::from(admin))[..] else { panic!("one rule") };
    assert!(
        finds(&only["podSelector"], &operator["spec"]["template"]) && !finds(&only["podSelector"], &broker)
    );
    let home = json!({"kubernetes.io/metadata.name": operator["metadata"]["namespace"]});
    assert_eq!(only["namespaceSelector"]["matchLabels"], home);
    let [only] = &let_in(&policy, link)[..] else { panic!("one rule") };
    assert!(
        finds(&only["podSelector"], &broker) && !finds(&only["podSelector"], &operator["spec"]["template"])
    );
}

#[test]
fn a_server_takes_the_network_policy() {
    play(async |scene| {
        let url = format!("/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies", scene.namespace);
        let strict = format!("{url}?fieldValidation=Strict");
        let stored = send(&scene.client, "POST", &strict, &yaml(POLICY))
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let said = yaml(POLICY)["spec"]["ingress"].as_array().expect("rules").len();
        assert_eq!(stored["spec"]["ingress"].as_array().map(Vec::len), Some(said));
    });
}

#[test]
fn the_pod_monitor_finds_the_metrics_of_brokers() {
    let (monitor, (broker, _)) = (yaml(MONITOR), broker());
    assert!(finds(&monitor["spec"]["selector"], &broker));
    let port = &monitor["spec"]["podMetricsEndpoints"][0]["port"];
    let ports = broker["spec"]["containers"][0]["ports"].as_array().expect("ports");
    let found = ports.iter().find(|it| it["name"] == *port).expect("the port has this name");
    assert_eq!(found["containerPort"], RESERVED_PORTS[1].0);
}
