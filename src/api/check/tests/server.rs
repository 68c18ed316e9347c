//! What an API server would say of a manifest, from the definition alone: shape, then bounds and patterns, then CEL.
//!
//! Shape is [`structure::check`]'s; bounds, patterns (crate `regex`) and CEL (`kube-cel`) share no code with
//! [`crate::api::check`].

use kube::core::cel::Validator;
use regex::Regex;
use serde_json::Value;

use crate::api::crd::{self, Kind};
use crate::api::structure;

/// The server's complaints; none for a manifest that it takes.
pub(super) fn complaints(kind: Kind, manifest: &Value, old: Option<&Value>) -> Vec<String> {
    let shape: Vec<String> = structure::check(kind, manifest).iter().map(ToString::to_string).collect();
    if !shape.is_empty() {
        return shape;
    }
    let schema = crd::schema(kind);
    let mut bounds = Vec::new();
    walk(schema, manifest, "", &mut bounds);
    if !bounds.is_empty() {
        return bounds;
    }
    match Validator::new().validate(schema, &without_nulls(manifest), old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| format!("{:?} {error}", error.kind)).collect(),
    }
}

/// The server drops nulls of maps before it looks at rules.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let kept = object.iter().filter(|(_, value)| !value.is_null());
            kept.map(|(field, value)| (field.clone(), without_nulls(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

fn walk(schema: &Value, value: &Value, path: &str, complaints: &mut Vec<String>) {
    let size = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => Some(text.chars().count() as f64),
        Value::Array(items) => Some(items.len() as f64),
        Value::Object(object) => Some(object.len() as f64),
        _ => None,
    };
    let bounds: &[(&str, bool)] = match value {
        Value::Number(_) => &[("minimum", true), ("maximum", false)],
        Value::String(_) => &[("minLength", true), ("maxLength", false)],
        Value::Array(_) => &[("minItems", true), ("maxItems", false)],
        _ => &[("minProperties", true), ("maxProperties", false)],
    };
    for (word, lower) in bounds {
        if let (Some(bound), Some(size)) = (schema[*word].as_f64(), size)
            && if *lower { size < bound } else { size > bound }
        {
            complaints.push(format!("{path}: {size} against {word} {bound}"));
        }
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !Regex::new(pattern).expect("the schema's patterns are valid").is_match(text)
    {
        complaints.push(format!("{path}: does not match {pattern}"));
    }
    match value {
        Value::Object(object) => {
            for (field, value) in object.iter().filter(|(_, value)| !value.is_null()) {
                let inner = schema["properties"].get(field).unwrap_or(&schema["additionalProperties"]);
                walk(inner, value, &format!("{path}.{field}"), complaints);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&schema["items"], item, &format!("{path}[{index}]"), complaints);
            }
        }
        _ => {}
    }
}
