//! From text to checked objects.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::files::Text;
use super::secret;
use super::yaml::{self, Document, Place};
use crate::api::crd::Kind;
use crate::api::{ClusterLink, Finding, MqttCluster, check, structure};
use crate::plan::{Key, Secret};

/// The fields that `metadata` may have.
const METADATA_FIELDS: &[&str] = &[
    "name",
    "namespace",
    "labels",
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// What the manifests say, in their order.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// The clusters; each has a namespace.
    pub clusters: Vec<MqttCluster>,
    /// The links; each has a namespace.
    pub links: Vec<ClusterLink>,
    /// The Secrets.
    pub secrets: Vec<Secret>,
}

/// A mistake in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// The object, as `ClusterLink mqtt/us-eu`; empty when it is not known.
    pub object: String,
    /// The field's path; empty for the object itself.
    pub field: String,
    /// What is wrong and what is expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{part} ")?;
            }
        }
        f.write_str(&self.message)
    }
}

/// Reads the objects of all files; `before` is what was in force so far, of which some must not change.
///
/// # Errors
/// Every mistake that can be found, sorted by place.
pub fn load(texts: &[Text], before: &Manifests) -> Result<Manifests, Vec<Problem>> {
    let mut loader =
        Loader { before, manifests: Manifests::default(), problems: Vec::new(), seen: HashMap::new() };
    for Text { path, text } in texts {
        match yaml::parse(text) {
            Ok(documents) => documents.iter().for_each(|document| loader.take(path, document)),
            Err(error) => {
                loader.problem(path, error.place, "", "", &format!("this is no YAML: {}", error.message))
            }
        }
    }
    if !loader.problems.is_empty() {
        loader.problems.sort();
        return Err(loader.problems);
    }
    Ok(loader.manifests)
}

struct Loader<'a> {
    before: &'a Manifests,
    manifests: Manifests,
    problems: Vec<Problem>,
    /// Where each object was seen first.
    seen: HashMap<String, String>,
}

impl Loader<'_> {
    fn problem(&mut self, file: &Path, place: Place, object: &str, field: &str, message: &str) {
        self.problems.push(Problem {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            object: object.to_owned(),
            field: field.to_owned(),
            message: message.to_owned(),
        });
    }

    fn take(&mut self, file: &Path, document: &Document) {
        let value = &document.value;
        if !value.is_object() {
            let message = "this is no object; expected apiVersion, kind, metadata and spec";
            return self.problem(file, document.place(""), "", "", message);
        }
        let (api_version, kind) = (text(value, "apiVersion"), text(value, "kind"));
        match (api_version, kind, Kind::of(api_version, kind)) {
            (_, _, Some(kind)) => self.take_resource(file, document, kind),
            ("v1", "Secret", None) => self.take_secret(file, document),
            // Kubernetes needs it in the manifest; here a namespace is but a name.
            ("v1", "Namespace", None) => {}
            _ => {
                let (field, message) = explain_kind(api_version, kind);
                self.problem(file, document.place(field), "", field, &message);
            }
        }
    }

    fn take_resource(&mut self, file: &Path, document: &Document, kind: Kind) {
        let object = self.open(file, document, kind.as_str());
        let mut findings = check_metadata(&document.value);
        findings.extend(structure::check(kind, &document.value));
        if findings.is_empty() {
            let taken = match kind {
                Kind::MqttCluster => self.take_cluster(&document.value),
                Kind::ClusterLink => self.take_link(&document.value),
            };
            findings = taken.err().unwrap_or_default();
        }
        self.report(file, document, &object, &findings);
    }

    fn take_cluster(&mut self, value: &Value) -> Result<(), Vec<Finding>> {
        let mut cluster: MqttCluster = typed(value)?;
        cluster.metadata.namespace.get_or_insert_with(|| Key::DEFAULT_NAMESPACE.to_owned());
        let mut findings = check::cluster(&cluster);
        if let Some(old) = self.before.clusters.iter().find(|old| Key::of(*old) == Key::of(&cluster)) {
            findings.extend(check::cluster_change(old, &cluster));
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        self.manifests.clusters.push(cluster);
        Ok(())
    }

    fn take_link(&mut self, value: &Value) -> Result<(), Vec<Finding>> {
        let mut link: ClusterLink = typed(value)?;
        link.metadata.namespace.get_or_insert_with(|| Key::DEFAULT_NAMESPACE.to_owned());
        let mut findings = check::link(&link);
        if let Some(old) = self.before.links.iter().find(|old| Key::of(*old) == Key::of(&link)) {
            findings.extend(check::link_change(old, &link));
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        self.manifests.links.push(link);
        Ok(())
    }

    fn take_secret(&mut self, file: &Path, document: &Document) {
        let object = self.open(file, document, "Secret");
        let mut findings = check_metadata(&document.value);
        match secret::read(&document.value) {
            Ok(data) => {
                let (namespace, name) = names(&document.value);
                if name.is_empty() {
                    findings.push(Finding::invalid("metadata.name", "is required"));
                }
                self.manifests.secrets.push(Secret { namespace, name, data, ..Secret::default() });
            }
            Err(found) => findings.extend(found),
        }
        self.report(file, document, &object, &findings);
    }

    /// Names an object, and notes that it was seen.
    fn open(&mut self, file: &Path, document: &Document, kind: &str) -> String {
        let (namespace, name) = names(&document.value);
        let object = format!("{kind} {namespace}/{name}");
        let place = document.place("");
        let here = format!("{}:{}", file.display(), place.line);
        if let Some(first) = self.seen.insert(object.clone(), here).filter(|_| !name.is_empty()) {
            let message = format!("is there already, at {first}; rename or remove one");
            self.problem(file, document.place("metadata.name"), &object, "", &message);
        }
        object
    }

    fn report(&mut self, file: &Path, document: &Document, object: &str, findings: &[Finding]) {
        for finding in findings {
            self.problem(file, document.place(&finding.path), object, &finding.path, &finding.message);
        }
    }
}

fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Vec<Finding>> {
    serde_json::from_value(value.clone()).map_err(|error| vec![Finding::invalid("spec", error.to_string())])
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn names(value: &Value) -> (String, String) {
    let metadata = &value["metadata"];
    let namespace =
        metadata["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or(Key::DEFAULT_NAMESPACE);
    (namespace.to_owned(), text(metadata, "name").to_owned())
}

fn check_metadata(value: &Value) -> Vec<Finding> {
    let Some(metadata) = value["metadata"].as_object() else {
        return vec![Finding::invalid("metadata", "is required, with at least a name")];
    };
    let mut findings = Vec::new();
    for field in metadata.keys().filter(|field| !METADATA_FIELDS.contains(&field.as_str())) {
        let nearest = nearest(field, METADATA_FIELDS).unwrap_or("name, namespace, labels or annotations");
        findings.push(Finding {
            path: format!("metadata.{field}"),
            reason: "UnknownField",
            message: format!("is not a known field; did you mean {nearest}?"),
        });
    }
    for field in ["name", "namespace"] {
        if metadata.get(field).is_some_and(|value| !value.is_string()) {
            findings
                .push(Finding::invalid(format!("metadata.{field}"), "must be a string (put it in quotes)"));
        }
    }
    for field in ["labels", "annotations"] {
        for (name, value) in metadata.get(field).and_then(Value::as_object).into_iter().flatten() {
            if !value.is_string() {
                let path = format!("metadata.{field}.{name}");
                findings.push(Finding::invalid(path, "must be a string (put it in quotes)"));
            }
        }
    }
    findings
}

/// Says which of `apiVersion` and `kind` is wrong, and what was probably meant.
fn explain_kind(api_version: &str, kind: &str) -> (&'static str, String) {
    const OURS: &[&str] = &["MqttCluster", "ClusterLink"];
    const KNOWN: &[&str] = &["MqttCluster", "ClusterLink", "Secret", "Namespace"];
    let api_of = |kind: &str| if OURS.contains(&kind) { crate::api::API_VERSION } else { "v1" };
    if kind.is_empty() {
        return ("kind", format!("is missing; expected one of {}", KNOWN.join(", ")));
    }
    if KNOWN.contains(&kind) {
        return ("apiVersion", format!("is `{api_version}`, but {kind} has {}", api_of(kind)));
    }
    let meant = nearest(kind, KNOWN).map(|kind| format!(" (did you mean {kind}?)")).unwrap_or_default();
    ("kind", format!("is `{kind}`, which mqlink up does not know{meant}; it knows {}", KNOWN.join(", ")))
}

/// The word that is at most two letters away.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let by_distance =
        known.iter().map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), *candidate));
    by_distance.filter(|(distance, _)| *distance <= 2).min().map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out or changed to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
