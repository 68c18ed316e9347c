//! Hashes that two writers of the same content agree on, whatever order their fields come in.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Link, Settings};

/// SHA-256, in lower-case hex, of the canonical JSON of a value: keys sorted, no spaces.
pub fn canonical_sha256(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("settings hold nothing that JSON cannot");
    let mut text = String::new();
    write_canonical(&value, &mut text);
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Settings {
    /// The hash that a node reports of the settings it runs.
    pub fn hash(&self) -> String {
        canonical_sha256(self)
    }
}

impl Link {
    /// The hash of everything in the link but `revision` itself.
    pub fn compute_revision(&self) -> String {
        canonical_sha256(&Link { revision: String::new(), ..self.clone() })
    }
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                comma(index, out);
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, field)) in sorted.into_iter().enumerate() {
                comma(index, out);
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write_canonical(field, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn comma(index: usize, out: &mut String) {
    if index > 0 {
        out.push(',');
    }
}
