//! YAML as values, with the place of every field.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// One document of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) value: Value,
    /// By path, as `spec.topics[2]`; the document itself under the empty path. A field's place is that of its name.
    places: BTreeMap<String, Place>,
}

impl Document {
    /// The place of a field; of the nearest one around it when it is not there.
    pub(super) fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            path = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
        }
    }
}

/// What is wrong with a text as YAML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) place: Place,
    pub(super) message: String,
}

/// Reads all documents of a text; empty ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let documents: Vec<Spanned<Tree>> = serde_saphyr::from_multiple(text).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().map(place).unwrap_or(Place { line: 1, column: 1 });
        let message = error.to_string();
        // The place stands before the message, once.
        let message = message.split(" at line ").next().unwrap_or(&message);
        // What follows is for who programs with it.
        let message = message.split(", set DuplicateKeyPolicy").next().unwrap_or(message).to_owned();
        SyntaxError { place, message }
    })?;
    Ok(documents.into_iter().map(flatten).collect())
}

fn flatten(document: Spanned<Tree>) -> Document {
    let mut places = BTreeMap::from([(String::new(), place(document.referenced))]);
    let value = document.value.flatten("", &mut places);
    Document { value, places }
}

fn place(location: serde_saphyr::Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

/// A value whose parts know where they are.
#[derive(Debug)]
enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Tree)>),
}

impl Tree {
    fn flatten(self, path: &str, places: &mut BTreeMap<String, Place>) -> Value {
        match self {
            Tree::Scalar(value) => value,
            Tree::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    places.insert(path.clone(), place(item.referenced));
                    list.push(item.value.flatten(&path, places));
                }
                Value::Array(list)
            }
            Tree::Map(fields) => {
                let mut map = Map::new();
                for (name, value) in fields {
                    let path = match path.is_empty() {
                        true => name.value.clone(),
                        false => format!("{path}.{}", name.value),
                    };
                    places.insert(path.clone(), place(name.referenced));
                    map.insert(name.value, value.flatten(&path, places));
                }
                Value::Object(map)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("no JSON has this number"))?;
        Ok(Tree::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        Ok(Tree::Map(map))
    }
}
