//! The samples that we ship are taken by every check, and their plan is what their comments say.
//!
//! They are read as a user's tool would read them: several documents, each of one kind.
//! Certificates are left out of what is compared; tests of credentials look at these.

use super::*;
use crate::api::crd::Kind;
use crate::api::{check, structure};

const TWO_REGIONS: &str = include_str!("../../../config/samples/two-regions.yaml");
const DOORS: &str = include_str!("../../../config/samples/doors.yaml");
const ONE_WAY: &str = include_str!("../../../config/samples/one-way.yaml");

#[test]
fn samples_are_valid() {
    for (sample, objects) in [(TWO_REGIONS, 3), (ONE_WAY, 3), (DOORS, 1)] {
        let mut documents: Vec<Value> = serde_saphyr::from_multiple(sample).unwrap();
        documents.retain(|document| document["kind"] != "Secret");
        assert_eq!(documents.len(), objects);
        for document in documents {
            let text = |field: &str| document[field].as_str().unwrap().to_owned();
            let kind = Kind::of(&text("apiVersion"), &text("kind")).unwrap();
            assert_eq!(structure::check(kind, &document), vec![], "{document}");
            let findings = match kind {
                Kind::MqttCluster => check::cluster(&serde_json::from_value(document).unwrap()),
                Kind::ClusterLink => check::link(&serde_json::from_value(document).unwrap()),
            };
            assert_eq!(findings, vec![]);
        }
    }
}

#[test]
fn two_regions_become_ready() {
    let world = later(world(TWO_REGIONS));
    let plan = planned(&world);
    insta::assert_snapshot!(table(&plan));
}

#[test]
fn one_way_wants_nothing_on_the_other_side() {
    let plan = planned(&world(ONE_WAY));
    let topics = |cluster: &str| plan.settings[&key(cluster)].links[0].topics.clone();
    assert_eq!(topics("us-east"), ["#"]);
    assert_eq!(topics("eu-west"), [""; 0]);
}

#[test]
fn the_settings_of_two_regions() {
    let plan = planned(&world(TWO_REGIONS));
    let mut text = String::new();
    for settings in plan.settings.values() {
        let mut json = serde_json::to_value(&**settings).unwrap();
        hide_pem(&mut json);
        text += &serde_json::to_string_pretty(&json).unwrap();
        text += "\n";
    }
    insta::assert_snapshot!(text);
}

fn hide_pem(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("-----BEGIN") => *text = "(PEM)".to_owned(),
        Value::Object(object) => {
            object.remove("revision");
            object.values_mut().for_each(hide_pem);
        }
        Value::Array(items) => items.iter_mut().for_each(hide_pem),
        _ => {}
    }
}
