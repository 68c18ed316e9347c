//! One side of a link, and what of it runs already.

use super::world::{Key, World};
use crate::api::link::{self, External};
use crate::settings::{Dial, Link};

/// One side of a link, in the cluster that runs it.
#[derive(Clone, Debug)]
pub(super) struct Half {
    pub(super) cluster: Key,
    pub(super) settings: Link,
}

/// Who dials: without a link listener nobody can be let in.
pub(super) fn dial(external: &External, listens: bool) -> Dial {
    match external.dial.unwrap_or_default() {
        link::Dial::In => Dial::In,
        link::Dial::Both if listens => Dial::Both,
        link::Dial::Both | link::Dial::Out => Dial::Out,
    }
}

/// The id of the half on the other side of a managed link.
pub(super) fn remote_id(link: &Key) -> String {
    format!("{link}.remote")
}

/// A half as it runs: links of settings are sorted.
pub(super) fn running<'w>(world: &'w World, cluster: &Key, id: &str) -> Option<&'w Link> {
    let links = &world.running.get(cluster)?.settings.links;
    links.binary_search_by(|link| link.id.as_str().cmp(id)).ok().map(|at| &links[at])
}

/// The halves of a link in the clusters that run them.
pub(super) fn as_they_run(world: &World, link: &Key) -> Vec<Half> {
    let runs = |id: String| {
        world.running.keys().filter_map(move |cluster| {
            Some(Half { cluster: cluster.clone(), settings: running(world, cluster, &id)?.clone() })
        })
    };
    runs(link.to_string()).chain(runs(remote_id(link))).collect()
}
