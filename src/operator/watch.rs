//! The watches: everything that a decision can depend on, as one stream.
//!
//! Interrupted watches begin again by themselves, slower each time; a list that is told anew replaces what was seen before.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client};
use serde_json::Value;

use super::build::{Kind, MANAGED_BY, OWN, ObjectId};

/// Where the operator works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In all namespaces.
    All,
    /// In these alone: it needs no rights in any other. Labels of namespaces are not known then, but for their names.
    Namespaces(Vec<String>),
}

/// One watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source {
    pub(super) kind: Kind,
    /// `None`: all namespaces.
    pub(super) namespace: Option<String>,
}

impl Source {
    /// Whether it tells of an object.
    pub(super) fn tells_of(&self, id: &ObjectId) -> bool {
        self.kind == id.kind && self.namespace.as_ref().is_none_or(|namespace| *namespace == id.namespace)
    }
}

/// Something that a watch saw.
pub(super) type Sight = (Source, Result<Event<DynamicObject>, watcher::Error>);

/// Secrets that nobody can mean, and that are many.
const OTHER_SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";

/// The server ends a watch after so long, and it begins again where it was. One whose server is gone without a word is noticed
/// soon after, by a client that waits little longer for a word ([`SILENCE_MAX`]).
const WATCH_S: u32 = 120;
/// Objects in one answer to a list: it is held in memory as it came and as it is read.
const PAGE: u32 = 100;
/// How long a connection to the API server may be silent.
pub const SILENCE_MAX: Duration = Duration::from_secs(WATCH_S as u64 + 15);

/// The watches that a scope needs.
pub(super) fn sources(scope: &Scope) -> Vec<Source> {
    let kinds = [Kind::MqttCluster, Kind::ClusterLink, Kind::Pod, Kind::AnySecret];
    let kinds = kinds.into_iter().chain(Kind::CHILDREN);
    let source = |kind, namespace: Option<&String>| Source { kind, namespace: namespace.cloned() };
    match scope {
        Scope::All => kinds.chain([Kind::Namespace]).map(|kind| source(kind, None)).collect(),
        Scope::Namespaces(names) => {
            // Lists are told apart by their source: one is there once.
            let names: BTreeSet<&String> = names.iter().collect();
            kinds
                .flat_map(|kind| names.iter().map(|name| source(kind, Some(name))).collect::<Vec<_>>())
                .collect()
        }
    }
}

/// Opens all watches.
pub(super) fn open(client: &Client, sources: &[Source]) -> SelectAll<BoxStream<'static, Sight>> {
    select_all(sources.iter().map(|source| open_one(client, source.clone())))
}

fn open_one(client: &Client, source: Source) -> BoxStream<'static, Sight> {
    let config = watcher::Config::default();
    let config = match source.kind {
        Kind::MqttCluster | Kind::ClusterLink | Kind::Namespace => config,
        Kind::AnySecret => config.fields(OTHER_SECRETS),
        _ => config.labels(&format!("{MANAGED_BY}={OWN}")),
    };
    let config = config.timeout(WATCH_S).page_size(PAGE);
    let api = api(client, source.kind, source.namespace.as_deref());
    if source.kind == Kind::AnySecret {
        let stream = watch_objects(metadata_api(client, &source), config).default_backoff();
        return stream.map(move |event| (source.clone(), event.map(without_content))).boxed();
    }
    let stream = watch_objects(api, config).default_backoff();
    stream.map(move |event| (source.clone(), event)).boxed()
}

fn metadata_api(client: &Client, source: &Source) -> Api<PartialObjectMeta<DynamicObject>> {
    match &source.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &source.kind.resource()),
        None => Api::all_with(client.clone(), &source.kind.resource()),
    }
}

fn without_content(event: Event<PartialObjectMeta<DynamicObject>>) -> Event<DynamicObject> {
    let object =
        |PartialObjectMeta { types, metadata, .. }| DynamicObject { types, metadata, data: Value::Null };
    match event {
        Event::Apply(partial) => Event::Apply(object(partial)),
        Event::Delete(partial) => Event::Delete(object(partial)),
        Event::InitApply(partial) => Event::InitApply(object(partial)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

/// Access to the objects of a kind.
pub(super) fn api(client: &Client, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind.resource()),
        None => Api::all_with(client.clone(), &kind.resource()),
    }
}
