//! The shape of a manifest: unknown fields, types, required fields, words of an enum, keys of a list.
//!
//! Reads the same schema that an API server reads, and says what the server would say before any rule runs. It does not
//! look at bounds and patterns: [`super::check`] states these, on the typed object. `metadata` and `status` are not looked
//! into: the first belongs to Kubernetes, the second is not the user's to write.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::check::Finding;
use super::crd::{self, Kind};

/// Checks the shape of one manifest of a kind.
pub fn check(kind: Kind, manifest: &Value) -> Vec<Finding> {
    let schema = crd::schema(kind);
    let mut findings = Vec::new();
    let Some(object) = manifest.as_object() else {
        return vec![Finding::invalid("", format!("must be a {} object", kind.as_str()))];
    };
    for field in object.keys() {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&field.as_str()) {
            findings.push(unknown_field(field, &["metadata", "spec"]));
        }
    }
    match object.get("spec") {
        None | Some(Value::Null) => findings.push(Finding::invalid("spec", "is required")),
        Some(spec) => walk(&schema["properties"]["spec"], spec, "spec", &mut findings),
    }
    findings
}

fn walk(schema: &Value, value: &Value, path: &str, findings: &mut Vec<Finding>) {
    if schema["x-kubernetes-int-or-string"] == true {
        if !(value.is_string() || value.is_i64() || value.is_u64()) {
            findings.push(wrong_type(path, "a string or a whole number", value));
        }
        return;
    }
    match (schema["type"].as_str().unwrap_or_default(), value) {
        ("object", Value::Object(object)) => walk_object(schema, object, path, findings),
        ("array", Value::Array(items)) => walk_list(schema, items, path, findings),
        ("string", Value::String(text)) => check_word(schema, text, path, findings),
        ("boolean", Value::Bool(_)) => {}
        ("integer", number) if number.is_i64() || number.is_u64() => {}
        ("object", other) => findings.push(wrong_type(path, "a map", other)),
        ("array", other) => findings.push(wrong_type(path, "a list", other)),
        ("string", other) => findings.push(wrong_type(path, "a string (put it in quotes)", other)),
        ("boolean", other) => findings.push(wrong_type(path, "true or false", other)),
        (_, other) => findings.push(wrong_type(path, "a whole number (without a decimal point)", other)),
    }
}

fn walk_object(schema: &Value, object: &Map<String, Value>, path: &str, findings: &mut Vec<Finding>) {
    for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if object.get(field).is_none_or(Value::is_null) {
            findings.push(Finding::invalid(format!("{path}.{field}"), "is required"));
        }
    }
    let known = schema["properties"].as_object();
    for (field, value) in object {
        let inner = format!("{path}.{field}");
        match known.and_then(|properties| properties.get(field)).or(schema.get("additionalProperties")) {
            // The server drops a null, as if the field were not there.
            Some(_) if value.is_null() => {}
            Some(schema) => walk(schema, value, &inner, findings),
            None => {
                let names: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                findings.push(unknown_field(&inner, &names));
            }
        }
    }
}

fn walk_list(schema: &Value, items: &[Value], path: &str, findings: &mut Vec<Finding>) {
    for (index, item) in items.iter().enumerate() {
        walk(&schema["items"], item, &format!("{path}[{index}]"), findings);
    }
    let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate().filter(|_| !keys.is_empty()) {
        let key: Vec<String> = keys.iter().map(|key| item[*key].to_string()).collect();
        if !seen.insert(key.clone()) {
            let message =
                format!("repeats the {} {}; entries must differ in it", keys.join(", "), key.join(", "));
            findings.push(Finding::invalid(format!("{path}[{index}]"), message));
        }
    }
}

fn check_word(schema: &Value, text: &str, path: &str, findings: &mut Vec<Finding>) {
    let Some(words) = schema["enum"].as_array() else { return };
    if !words.iter().any(|word| word == text) {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        findings
            .push(Finding::invalid(path, format!("is `{text}`, but must be one of {}", words.join(", "))));
    }
}

fn unknown_field(path: &str, known: &[&str]) -> Finding {
    let message = match known.is_empty() {
        true => "is not a known field; remove it".to_owned(),
        false => format!("is not a known field; known here: {}", known.join(", ")),
    };
    Finding { path: path.to_owned(), reason: "UnknownField", message }
}

fn wrong_type(path: &str, expected: &str, found: &Value) -> Finding {
    let found = match found {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    };
    Finding::invalid(path, format!("must be {expected}, but is {found}"))
}
