//! From JSON to a document, with the fields that this version does not know.

use serde::Deserializer;
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

/// Reads a JSON settings document.
///
/// # Errors
/// When it is not JSON, lacks `cluster`, or a field has the wrong type; the field is named, and line and column.
pub fn parse(json: &[u8]) -> Result<Parsed, ParseError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let settings: Settings = typed(&mut reader).map_err(ParseError)?;
    let fail = |error: serde_json::Error| ParseError(error.to_string());
    reader.end().map_err(fail)?;
    let given: Value = serde_json::from_slice(json).map_err(fail)?;
    let known = serde_json::to_value(&settings).map_err(fail)?;
    let mut unknown_fields = Vec::new();
    collect_unknown(&given, &known, "", &mut unknown_fields);
    unknown_fields.sort();
    Ok(Parsed { settings, unknown_fields })
}

/// Makes a document of JSON, or says which field is wrong.
pub(super) fn typed<'de>(
    json: impl Deserializer<'de, Error = serde_json::Error>,
) -> Result<Settings, String> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = match error.path().to_string() {
            path if matches!(&path[..], "." | "?") => String::new(),
            path => path + ": ",
        };
        path + &without_values(&error.into_inner().to_string())
    })
}

/// An error's text without what was found where something else was expected, but for its kind: it may be a password in the
/// wrong place, or one without its quotes, and the text goes to logs and into status.
pub(super) fn without_values(text: &str) -> String {
    match (text.find(['`', '"']), text.rfind(", expected")) {
        (Some(from), Some(to)) if from < to => format!("{}{}", text[..from].trim_end(), &text[to..]),
        _ => text.to_owned(),
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
