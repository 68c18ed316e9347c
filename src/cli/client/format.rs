//! How `sub` prints a message: a pattern with `%` words, the letters of mosquitto_sub where they mean the same.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::session::Incoming;
use crate::cli::Failure;

/// What each word stands for; `--help` shows it.
pub(super) const HELP: &str = "\
Words of --format:
  %t  topic                    %C  content type
  %p  payload as it is         %R  response topic
  %x  payload in hex           %D  correlation data
  %l  payload length           %P  user properties
  %q  QoS                      %E  seconds until it expires
  %r  1 if retained, else 0    %j  everything as JSON
  %%  a percent sign           \\n \\t  line end, tab";

/// A pattern, parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Format(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Word(char),
}

impl Format {
    pub(super) fn parse(pattern: &str) -> Result<Self, Failure> {
        if pattern == "json" {
            return Ok(Self(vec![Part::Word('j')]));
        }
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match (c, chars.clone().next()) {
                ('%', Some('%')) => text.push('%'),
                ('\\', Some('n')) => text.push('\n'),
                ('\\', Some('t')) => text.push('\t'),
                ('\\', Some('\\')) => text.push('\\'),
                ('%', Some(word)) if "tpxlqrCRDPEj".contains(word) => {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                    parts.push(Part::Word(word));
                }
                ('%', word) => {
                    let word = word.map(String::from).unwrap_or_default();
                    return Err(Failure::usage(format!(
                        "`%{word}` is no word of --format; see mqlink sub --help"
                    )));
                }
                _ => {
                    text.push(c);
                    continue;
                }
            }
            chars.next();
        }
        parts.push(Part::Text(text));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// Writes one message, without a line end.
    pub(super) fn write(&self, message: &Incoming, out: &mut impl Write) -> std::io::Result<()> {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.write_all(text.as_bytes())?,
                Part::Word(word) => write_word(*word, message, out)?,
            }
        }
        Ok(())
    }
}

fn write_word(word: char, message: &Incoming, out: &mut impl Write) -> std::io::Result<()> {
    let properties = &message.properties;
    match word {
        't' => out.write_all(&message.topic),
        'p' => out.write_all(&message.payload),
        'x' => write!(out, "{}", hex(&message.payload)),
        'l' => write!(out, "{}", message.payload.len()),
        'q' => write!(out, "{}", message.qos),
        'r' => write!(out, "{}", u8::from(message.retain)),
        'C' => write!(out, "{}", properties.content_type.as_deref().unwrap_or_default()),
        'R' => write!(out, "{}", properties.response_topic.as_deref().unwrap_or_default()),
        'D' => out.write_all(properties.correlation_data.as_deref().unwrap_or_default()),
        'P' => {
            let pairs: Vec<_> = properties.user_properties.iter().map(|(k, v)| format!("{k}={v}")).collect();
            write!(out, "{}", pairs.join(" "))
        }
        'E' => match properties.message_expiry_interval {
            Some(seconds) => write!(out, "{seconds}"),
            None => Ok(()),
        },
        _ => write!(out, "{}", to_json(message)),
    }
}

/// Bytes that are no UTF-8 go into a field of their own, in hex.
fn to_json(message: &Incoming) -> Value {
    let mut fields = Map::new();
    fields.insert("topic".into(), json!(String::from_utf8_lossy(&message.topic)));
    fields.insert("qos".into(), json!(message.qos));
    fields.insert("retain".into(), json!(message.retain));
    insert_bytes(&mut fields, "payload", &message.payload);
    let properties = &message.properties;
    if properties.payload_format_indicator == Some(1) {
        fields.insert("utf8".into(), json!(true));
    }
    if let Some(text) = &properties.content_type {
        fields.insert("contentType".into(), json!(text));
    }
    if let Some(text) = &properties.response_topic {
        fields.insert("responseTopic".into(), json!(text));
    }
    if let Some(data) = &properties.correlation_data {
        insert_bytes(&mut fields, "correlationData", data);
    }
    if let Some(seconds) = properties.message_expiry_interval {
        fields.insert("expiry".into(), json!(seconds));
    }
    if !properties.user_properties.is_empty() {
        fields.insert("userProperties".into(), json!(properties.user_properties));
    }
    Value::Object(fields)
}

fn insert_bytes(fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => fields.insert(name.to_owned(), json!(text)),
        Err(_) => fields.insert(format!("{name}Hex"), json!(hex(bytes))),
    };
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
