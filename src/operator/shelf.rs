//! The Secrets that clusters and links name: these are read, and kept for as long as they are named. Of all others not even the
//! names are kept.
//!
//! The watch of Secrets brings no content. One that is named is fetched once, and again whenever the watch saw it change;
//! what was fetched last counts until then. One that is there must not look as if it were not: decisions wait for those that
//! were never read, but not long, and then these count as unreadable.
//!
//! Does not fetch: it says what is [`Shelf::due`], and takes what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret as Object;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::time::timeout;

use super::words::words;
use crate::plan::{Key, Secret};

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// For so long decisions wait for one that is being read for the first time …
const FIRST_MAX: Duration = Duration::from_secs(1);
/// The longest wait for one Secret; and … for those whose turn it is not yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// The Secrets that are named.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    entries: BTreeMap<Key, Entry>,
}

#[derive(Debug)]
struct Entry {
    content: Content,
    /// Whether it may have changed since it was last asked for.
    is_stale: bool,
    /// Since when it is named.
    named: Instant,
    /// Since when it is being read, if it is.
    begun: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
enum Content {
    Unknown,
    Missing,
    Known { version: Option<String>, secret: Secret },
    Unreadable(String),
}

/// What came of a fetch.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) key: Key,
    pub(super) object: Result<Option<Object>, String>,
}

impl Shelf {
    /// Takes note of what is named now, and forgets what is not.
    pub(super) fn refer(&mut self, named: BTreeSet<Key>, now: Instant) {
        self.entries.retain(|key, _| named.contains(key));
        for key in named {
            self.entries.entry(key).or_insert_with(|| Entry::new(now));
        }
    }

    /// The watch saw a Secret, or that there is none any more.
    pub(super) fn saw(&mut self, key: &Key, version: Option<&str>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let is_known = match &entry.content {
            Content::Known { version: known, .. } => version.is_some() && known.as_deref() == version,
            Content::Missing => version.is_none(),
            Content::Unknown | Content::Unreadable(_) => false,
        };
        if !is_known || entry.begun.is_some() {
            entry.is_stale = true;
            entry.not_before = None;
        }
    }

    /// Whether a Secret is named.
    pub(super) fn names(&self, secret: &impl ResourceExt) -> bool {
        let key = Key::new(secret.namespace().unwrap_or_default(), secret.name_any());
        self.entries.contains_key(&key)
    }

    /// Everything that is named.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.entries.keys()
    }

    /// Whether there is none that decisions wait for.
    pub(super) fn is_complete(&self, now: Instant) -> bool {
        self.entries.values().filter_map(Entry::awaited_until).all(|until| until <= now)
    }

    /// What to fetch now, at most so many; they count as under way.
    pub(super) fn due(&mut self, now: Instant, most: usize) -> Vec<Key> {
        let is_due = |entry: &Entry| {
            entry.is_stale && entry.begun.is_none() && entry.not_before.is_none_or(|time| time <= now)
        };
        let due = self.entries.iter_mut().filter(|(_, entry)| is_due(entry)).take(most);
        due.map(|(key, entry)| {
            (entry.is_stale, entry.begun) = (false, Some(now));
            key.clone()
        })
        .collect()
    }

    /// Takes what was fetched; whether that changes anything.
    pub(super) fn take(&mut self, fetched: Fetched, now: Instant) -> bool {
        let Fetched { key, object } = fetched;
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        entry.begun = None;
        match object {
            Ok(object) => {
                (entry.failures, entry.not_before) = (0, None);
                // One that is on its way out is gone already.
                let object = object.filter(|object| object.metadata.deletion_timestamp.is_none());
                entry.content = object.map_or(Content::Missing, |object| known(&key, object));
            }
            Err(problem) => {
                tracing::warn!(secret = %key, problem, "it is tried again");
                let wait = (RETRY_MIN * 2u32.saturating_pow(entry.failures.min(16))).min(RETRY_MAX);
                (entry.is_stale, entry.not_before) = (true, Some(now + wait));
                entry.failures = entry.failures.saturating_add(1);
                if !matches!(entry.content, Content::Known { .. }) {
                    entry.content = Content::Unreadable(problem);
                }
            }
        }
        true
    }

    /// When something that failed may be tried again, or is waited for no longer.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let times = self.entries.values().flat_map(|entry| [entry.not_before, entry.awaited_until()]);
        times.flatten().filter(|time| *time > now).min()
    }

    /// Those that are there.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let known = |entry: &Entry| match &entry.content {
            Content::Known { secret, .. } => Some(secret.clone()),
            _ => None,
        };
        self.entries.values().filter_map(known).collect()
    }

    /// Why those that nobody has seen cannot be read.
    pub(super) fn unreadable(&self) -> BTreeMap<Key, String> {
        let problem = |(key, entry): (&Key, &Entry)| match &entry.content {
            Content::Unreadable(problem) => Some((key.clone(), problem.clone())),
            Content::Unknown => Some((key.clone(), "the API server has not answered yet".to_owned())),
            _ => None,
        };
        self.entries.iter().filter_map(problem).collect()
    }
}

impl Entry {
    fn new(now: Instant) -> Entry {
        Entry {
            content: Content::Unknown,
            is_stale: true,
            named: now,
            begun: None,
            failures: 0,
            not_before: None,
        }
    }

    /// Until when decisions wait for it.
    fn awaited_until(&self) -> Option<Instant> {
        let until = self.begun.map_or(self.named + PATIENCE, |begun| begun + FIRST_MAX);
        matches!(self.content, Content::Unknown).then_some(until)
    }
}

fn known(key: &Key, object: Object) -> Content {
    let data = object.data.unwrap_or_default();
    let secret = Secret {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        data: data.into_iter().map(|(key, value)| (key, value.0)).collect(),
        ..Secret::default()
    };
    Content::Known { version: object.metadata.resource_version, secret }
}

/// Fetches a Secret.
pub(super) async fn fetch(client: Client, key: Key) -> Fetched {
    let api: Api<Object> = Api::namespaced(client, &key.namespace);
    let object = match timeout(PATIENCE, api.get_opt(&key.name)).await {
        Ok(answer) => answer.map_err(|error| words(&error)),
        Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
    };
    Fetched { key, object }
}

/// The names of the Secrets that a spec names: each field that is called after a reference holds one, but for references to
/// clusters, and what the pod template says to the kubelet.
pub(super) fn named_in(spec: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(spec, &mut names);
    names
}

fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let is_other = |field: &str| matches!(field, "podTemplate" | "clusterRef");
            for (field, value) in fields.iter().filter(|(field, _)| !is_other(field)) {
                match field.ends_with("Ref") || field.ends_with("Refs") {
                    true => names.extend(named_by(value)),
                    false => collect(value, names),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}

/// What a reference names, or a list of them.
fn named_by(value: &Value) -> Vec<String> {
    let references = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    references.iter().filter_map(|reference| Some(reference["name"].as_str()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("mqtt", name)
    }

    fn named(name: &str) -> Shelf {
        let mut shelf = Shelf::default();
        shelf.refer(BTreeSet::from([key(name)]), Instant::now());
        shelf
    }

    fn object(version: &str) -> Object {
        let mut object =
            Object { data: Some([("k".to_owned(), ByteString(version.into()))].into()), ..Object::default() };
        object.metadata.resource_version = Some(version.to_owned());
        object
    }

    fn fetched(name: &str, object: Result<Option<Object>, String>) -> Fetched {
        Fetched { key: key(name), object }
    }

    #[test]
    fn what_is_named_is_fetched_once_and_again_when_it_changed() {
        let (mut shelf, now) = (named("a"), Instant::now());
        assert!(!shelf.is_complete(now));
        assert_eq!(shelf.due(now, 9), [key("a")]);
        assert!(shelf.due(now, 9).is_empty(), "it is under way");
        shelf.take(fetched("a", Ok(Some(object("1")))), now);
        assert!(shelf.is_complete(now) && shelf.due(now, 9).is_empty());
        shelf.saw(&key("a"), Some("1"));
        assert!(shelf.due(now, 9).is_empty(), "this is what was fetched");
        shelf.saw(&key("a"), Some("2"));
        assert_eq!(shelf.due(now, 9), [key("a")]);
        shelf.take(fetched("a", Ok(Some(object("2")))), now);
        assert_eq!(shelf.secrets()[0].data["k"], b"2");
    }

    #[test]
    fn what_changes_while_it_is_fetched_is_fetched_again() {
        let (mut shelf, now) = (named("a"), Instant::now());
        shelf.due(now, 9);
        shelf.saw(&key("a"), Some("2"));
        shelf.take(fetched("a", Ok(Some(object("1")))), now);
        assert_eq!(shelf.due(now, 9), [key("a")]);
        shelf.saw(&key("a"), None);
        shelf.take(fetched("a", Ok(Some(object("2")))), now);
        assert_eq!(shelf.due(now, 9), [key("a")], "it was deleted meanwhile");
        shelf.take(fetched("a", Ok(None)), now);
        assert!(shelf.secrets().is_empty() && shelf.is_complete(now));
    }

    #[test]
    fn what_cannot_be_read_says_so_and_takes_nothing_away() {
        let (mut shelf, now) = (named("a"), Instant::now());
        shelf.due(now, 9);
        shelf.take(fetched("a", Err("forbidden".to_owned())), now);
        assert!(shelf.is_complete(now));
        assert_eq!(shelf.unreadable()[&key("a")], "forbidden");
        assert!(shelf.due(now, 9).is_empty(), "it waits");
        let later = shelf.next(now).expect("it is tried again");
        shelf.due(later, 9);
        shelf.take(fetched("a", Ok(Some(object("1")))), later);
        shelf.saw(&key("a"), Some("2"));
        shelf.due(later, 9);
        shelf.take(fetched("a", Err("forbidden".to_owned())), later);
        assert_eq!(shelf.secrets().len(), 1);
        assert!(shelf.unreadable().is_empty());
    }

    #[test]
    fn what_nobody_names_is_not_kept() {
        let (mut shelf, now) = (named("a"), Instant::now());
        shelf.saw(&key("b"), Some("1"));
        assert_eq!(shelf.due(now, 9), [key("a")]);
        shelf.refer(BTreeSet::new(), now);
        shelf.take(fetched("a", Ok(Some(object("1")))), now);
        assert!(shelf.secrets().is_empty() && shelf.is_complete(now));
    }

    #[test]
    fn references_are_found_by_what_they_are_called() {
        let spec = json!({
            "clusterRef": {"name": "us"},
            "remote": {"external": {"credentialsRef": {"name": "own"}, "tls": {"caRef": {"name": "ca"}}, "inbound": {"credentialsRef": {"name": "in"}}}},
            "listeners": [{"name": "mqtts", "tls": {"secretRef": {"name": "tls"}, "additionalSecretRefs": [{"name": "more"}], "clientCaRef": {"name": "clients"}}}],
            "authentication": {"usersSecretRef": {"name": "users"}},
            "podTemplate": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}}]},
        });
        let names: Vec<String> = named_in(&spec).into_iter().collect();
        assert_eq!(names, ["ca", "clients", "in", "more", "own", "tls", "users"]);
    }
}
