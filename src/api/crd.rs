//! The CustomResourceDefinitions, as an API server returns them.
//!
//! What the derive generates is close to that but not equal: nullable fields would store nulls, on which server and local
//! evaluation of `has()` differ; formats and names are written otherwise; `metadata.name` has no bounds. [`crd`] puts
//! that right, so that applying `crds/` twice changes nothing and `kubectl diff` is empty.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::bounds::MAP_ENTRIES_MAX;
use super::schema::{DNS_LABEL, QUANTITY, SERVICE_LABEL, VARIABLE, metadata_name};
use super::{ClusterLink, MqttCluster};

/// A kind of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `MqttCluster`.
    MqttCluster,
    /// `ClusterLink`.
    ClusterLink,
}

impl Kind {
    /// Both kinds, in the order in which they are printed.
    pub const ALL: [Kind; 2] = [Kind::MqttCluster, Kind::ClusterLink];

    /// The kind as it stands in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::MqttCluster => "MqttCluster",
            Kind::ClusterLink => "ClusterLink",
        }
    }

    /// The file below `crds/` that holds the definition of this kind.
    pub const fn file_name(self) -> &'static str {
        match self {
            Kind::MqttCluster => "mqlink.dev_mqttclusters.yaml",
            Kind::ClusterLink => "mqlink.dev_clusterlinks.yaml",
        }
    }

    /// The kind that `apiVersion` and `kind` of a manifest name, if it is one of this API.
    pub fn of(api_version: &str, kind: &str) -> Option<Kind> {
        (api_version == super::API_VERSION).then_some(())?;
        Kind::ALL.into_iter().find(|candidate| candidate.as_str() == kind)
    }
}

/// Returns both definitions as one YAML text of two documents.
pub fn crds() -> String {
    Kind::ALL.map(yaml).join("---\n")
}

/// Returns the definition of one kind as YAML.
pub fn yaml(kind: Kind) -> String {
    serde_saphyr::to_string(&crd(kind)).expect("a definition is plain data")
}

/// Returns the definition of one kind.
pub fn crd(kind: Kind) -> Value {
    let generated = match kind {
        Kind::MqttCluster => MqttCluster::crd(),
        Kind::ClusterLink => ClusterLink::crd(),
    };
    let mut crd = serde_json::to_value(generated).expect("a definition is plain data");
    crd["spec"]["names"]["listKind"] = json!(format!("{}List", kind.as_str()));
    crd["spec"]["conversion"] = json!({ "strategy": "None" });
    let root = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    tidy_schema(root);
    root["properties"]["metadata"] = metadata_schema(kind);
    root["properties"]["apiVersion"] = json!({ "type": "string" });
    root["properties"]["kind"] = json!({ "type": "string" });
    for field in ["resources", "affinity", "tolerations", "topologySpread", "env"] {
        let pointer = format!("/properties/spec/properties/podTemplate/properties/{field}");
        for part in
            root.pointer_mut(&pointer).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
        {
            drop_descriptions(part);
            narrow(part, field);
        }
    }
    if let Some(selector) = root.pointer_mut("/properties/spec/properties/allowedLinks/properties/selector") {
        selector["properties"]["matchExpressions"]["maxItems"] = json!(MAP_ENTRIES_MAX);
        narrow(selector, "affinity");
    }
    crd
}

/// Returns the schema that objects of a kind are validated by.
pub fn schema(kind: Kind) -> &'static Value {
    static SCHEMAS: LazyLock<[Value; 2]> = LazyLock::new(|| {
        Kind::ALL.map(|kind| crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take())
    });
    &SCHEMAS[kind as usize]
}

/// Bounds and shape of `metadata.name`: in this form an old object with another name can still be changed.
fn metadata_schema(kind: Kind) -> Value {
    let pattern = match kind {
        Kind::MqttCluster => SERVICE_LABEL,
        Kind::ClusterLink => DNS_LABEL,
    };
    json!({ "type": "object", "properties": { "name": metadata_name(pattern) } })
}

/// Makes a generated schema what the server would return for it.
fn tidy_schema(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("nullable");
            if object.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                object.remove("format");
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            object.values_mut().for_each(tidy_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy_schema),
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) {
                *schema = json!(whole as i64);
            }
        }
        _ => {}
    }
}

/// Says of Kubernetes' own types what their schema leaves to those who read them: what is wrong is to be refused when it is
/// written, not when the pods are made. `field` is where they stand, which decides what an operator may be.
fn narrow(schema: &mut Value, field: &str) {
    let Value::Object(object) = schema else { return };
    for (name, inner) in object.iter_mut() {
        let own = match (name.as_str(), field) {
            ("effect", _) => json!({"enum": ["", "NoSchedule", "PreferNoSchedule", "NoExecute"]}),
            ("whenUnsatisfiable", _) => json!({"enum": ["DoNotSchedule", "ScheduleAnyway"]}),
            ("operator", "nodeAffinity") => {
                json!({"enum": ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]})
            }
            ("operator", "affinity" | "topologySpread") => {
                json!({"enum": ["In", "NotIn", "Exists", "DoesNotExist"]})
            }
            ("maxSkew", _) => json!({"minimum": 1}),
            ("name", "env") => json!({"pattern": VARIABLE}),
            ("additionalProperties", "resources") => json!({"pattern": QUANTITY}),
            _ => json!({}),
        };
        let own = own.as_object().expect("it is written as one").clone();
        let is_leaf = !own.is_empty();
        if let Some(leaf) = inner.as_object_mut().filter(|_| is_leaf) {
            leaf.extend(own);
            continue;
        }
        let field = match name.as_str() {
            "nodeAffinity" => "nodeAffinity",
            // The names of other things.
            "valueFrom" => "",
            _ => field,
        };
        narrow(inner, field);
    }
}

/// Drops the descriptions of Kubernetes' own types: they are in its own documentation, and are most of the size.
fn drop_descriptions(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    if object.get("description").is_some_and(Value::is_string) {
        object.remove("description");
    }
    object.values_mut().for_each(drop_descriptions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_in_crds_are_what_the_code_generates() {
        for kind in Kind::ALL {
            let path = format!("{}/crds/{}", env!("CARGO_MANIFEST_DIR"), kind.file_name());
            let expected = yaml(kind);
            if std::env::var_os("UPDATE_CRDS").is_some() {
                std::fs::write(&path, &expected).expect("crds/ is writable");
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == expected, "{path} is out of date: run `make crds`");
        }
    }

    #[test]
    fn yaml_reads_back_as_the_same_definition() {
        for kind in Kind::ALL {
            let back: Value = serde_saphyr::from_str(&yaml(kind)).expect("our own YAML is valid");
            assert_eq!(back, crd(kind));
        }
    }

    /// Defaults are resolved when a spec is read: in an object they would stay what they once were.
    #[test]
    fn the_definitions_write_no_default_into_objects_but_what_scaling_needs() {
        fn defaults(schema: &Value, path: &str, found: &mut Vec<String>) {
            if schema
                .get("default")
                .is_some_and(|default| schema["type"].is_string() && !default["type"].is_string())
            {
                found.push(path.to_owned());
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                defaults(property, &format!("{path}.{name}"), found);
            }
            if let Some(items) = schema.get("items") {
                defaults(items, path, found);
            }
        }
        let mut found = Vec::new();
        Kind::ALL.iter().for_each(|kind| defaults(schema(*kind), kind.as_str(), &mut found));
        assert_eq!(found, ["MqttCluster.spec.replicas"]);
    }

    #[test]
    fn schemas_are_structural() {
        for kind in Kind::ALL {
            check_structural(schema(kind), kind.as_str());
        }
    }

    fn check_structural(schema: &Value, path: &str) {
        for word in ["anyOf", "oneOf", "allOf", "not", "$ref", "nullable", "patternProperties", "definitions"]
        {
            assert!(schema.get(word).is_none(), "{path} has {word}");
        }
        let free_form = schema.get("x-kubernetes-int-or-string").is_some();
        assert!(free_form || schema["type"].is_string(), "{path} has no type: {schema}");
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            check_structural(property, &format!("{path}.{name}"));
        }
        for word in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(word) {
                check_structural(inner, &format!("{path}.{word}"));
            }
        }
    }
}
