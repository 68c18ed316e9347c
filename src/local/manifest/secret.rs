//! Secrets as manifests: `data` in base64, `stringData` as it is; the latter wins, as on a server.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::Value;

use crate::api::Finding;

/// The fields that a Secret may have.
const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"];
/// What all values of a Secret may come to: a server's own limit.
const SECRET_BYTES_MAX: usize = 1_024 * 1_024;

/// Reads the entries of a Secret.
pub(super) fn read(manifest: &Value) -> Result<BTreeMap<String, Vec<u8>>, Vec<Finding>> {
    let mut findings = Vec::new();
    for field in manifest.as_object().into_iter().flat_map(|object| object.keys()) {
        if !FIELDS.contains(&field.as_str()) {
            findings.push(Finding {
                path: field.clone(),
                reason: "UnknownField",
                message: format!("is not a known field; known here: {}", FIELDS.join(", ")),
            });
        }
    }
    let mut entries = BTreeMap::new();
    for field in ["data", "stringData"] {
        match &manifest[field] {
            Value::Null => {}
            Value::Object(given) => {
                for (key, value) in given {
                    match read_entry(field, value) {
                        Ok(bytes) => drop(entries.insert(key.clone(), bytes)),
                        Err(expected) => findings.push(Finding::invalid(format!("{field}.{key}"), expected)),
                    }
                }
            }
            _ => findings.push(Finding::invalid(field, "must be a map from key to value")),
        }
    }
    if entries.values().map(Vec::len).sum::<usize>() > SECRET_BYTES_MAX {
        findings.push(Finding::invalid("data", format!("is larger than {SECRET_BYTES_MAX} bytes")));
    }
    if findings.is_empty() { Ok(entries) } else { Err(findings) }
}

fn read_entry(field: &str, value: &Value) -> Result<Vec<u8>, &'static str> {
    let Some(text) = value.as_str() else {
        return Err("must be a string (put it in quotes)");
    };
    if field == "stringData" {
        return Ok(text.as_bytes().to_vec());
    }
    serde_json::from_value::<ByteString>(value.clone())
        .map(|ByteString(bytes)| bytes)
        .map_err(|_| "must be base64; plain text belongs into stringData")
}
