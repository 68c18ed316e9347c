//! From JSON to a document, with the fields that this version does not know.

use serde_json::Value;

use super::Settings;

/// A document as read.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The document, not checked yet.
    pub settings: Settings,
    /// Paths of the fields that were ignored, as `links[0].colour`, sorted.
    pub unknown_fields: Vec<String>,
}

/// Why a text is no settings document, without a value of it.
#[derive(Debug, thiserror::Error)]
#[error("failed to parse the settings document: {0}")]
pub struct ParseError(String);

impl From<serde_json::Error> for ParseError {
    fn from(error: serde_json::Error) -> Self {
        Self(without_values(&error))
    }
}

/// Reads a JSON settings document.
///
/// # Errors
/// When it is not JSON, lacks `cluster`, or a field has the wrong type; line and column are named.
pub fn parse(json: &[u8]) -> Result<Parsed, ParseError> {
    let settings: Settings = serde_json::from_slice(json)?;
    let given: Value = serde_json::from_slice(json)?;
    let known = serde_json::to_value(&settings)?;
    let mut unknown_fields = Vec::new();
    collect_unknown(&given, &known, "", &mut unknown_fields);
    unknown_fields.sort();
    Ok(Parsed { settings, unknown_fields })
}

/// The error's text without the string that was found where something else was expected: it may be a password in the wrong
/// place, and the text goes to logs and into status.
pub(super) fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.find("string \""), text.rfind("\", expected")) {
        (Some(from), Some(to)) if from < to => format!("{}string{}", &text[..from], &text[to + 1..]),
        _ => text,
    }
}

/// What was read writes out every field it knows, so a field that is given and not written is unknown.
fn collect_unknown(given: &Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(known) => collect_unknown(value, known, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                collect_unknown(given, known, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}
