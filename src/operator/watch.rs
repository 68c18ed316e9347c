//! The watches: everything that a decision can depend on, as one stream.
//!
//! Interrupted watches begin again by themselves, slower each time; a list that is told anew replaces what was seen before.

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client};

use super::build::{Kind, MANAGED_BY, OWN};

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

/// Something that a watch saw.
pub(super) type Sight = (Source, Result<Event<DynamicObject>, watcher::Error>);

/// Secrets that nobody can mean, and that are many or large.
const OTHER_SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";

/// The watches that a scope needs.
pub(super) fn sources(scope: &Scope) -> Vec<Source> {
    let kinds = [Kind::MqttCluster, Kind::ClusterLink, Kind::Pod].into_iter().chain(Kind::CHILDREN);
    let source = |kind, namespace: Option<&String>| Source { kind, namespace: namespace.cloned() };
    match scope {
        Scope::All => kinds.chain([Kind::Namespace]).map(|kind| source(kind, None)).collect(),
        Scope::Namespaces(names) => {
            kinds.flat_map(|kind| names.iter().map(move |name| source(kind, Some(name)))).collect()
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
        Kind::Secret => config.fields(OTHER_SECRETS),
        _ => config.labels(&format!("{MANAGED_BY}={OWN}")),
    };
    let api = api(client, source.kind, source.namespace.as_deref());
    let stream = watch_objects(api, config).default_backoff();
    stream.map(move |event| (source.clone(), event)).boxed()
}

/// Access to the objects of a kind.
pub(super) fn api(client: &Client, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind.resource()),
        None => Api::all_with(client.clone(), &kind.resource()),
    }
}
