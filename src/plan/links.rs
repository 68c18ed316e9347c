//! Which links are in force.
//!
//! Links are taken from the oldest to the youngest; each claims the pair (cluster, name of the peer) on every side that it
//! configures, and whoever comes to a pair that is taken is refused and told by whom. Only links whose clusters exist and consent
//! claim anything, so one that is broken does not stand in the way of one that works.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::clusters::{Cluster, check_settings, joined};
use super::consent;
use super::half::{self, Half};
use super::halves::{self, Peer, Sides};
use super::minted::Minted;
use super::notes;
use super::room::Rooms;
use super::world::{Key, Sealed, World};
use crate::api::conditions::State;
use crate::api::link::Dialect;
use crate::api::{ClusterLink, Finding, check};
use crate::pki::Random;
use crate::settings::Settings;

/// A link, and what became of its spec.
pub(super) struct Link<'a> {
    pub(super) key: Key,
    pub(super) object: &'a ClusterLink,
    pub(super) accepted: State,
    pub(super) resolved: State,
    /// The local cluster, where it exists.
    pub(super) local: Option<Key>,
    /// The peer's cluster name, where it is known.
    pub(super) peer: Option<String>,
    /// What goes into the settings of its clusters; empty unless it is in force.
    pub(super) halves: Vec<Half>,
    /// Why its settings stay as they run.
    pub(super) too_large: Option<Finding>,
    /// What to copy to an external peer.
    pub(super) invitation: Option<BTreeMap<String, String>>,
}

impl Link<'_> {
    pub(super) fn enabled(&self) -> bool {
        self.object.spec.enabled.unwrap_or(true)
    }

    /// Whether this link has a side in a cluster.
    pub(super) fn joins(&self, cluster: &Key) -> bool {
        self.halves.iter().any(|half| half.cluster == *cluster) || self.local.as_ref() == Some(cluster)
    }
}

type Clusters<'a> = BTreeMap<Key, Cluster<'a>>;
/// Who holds each (cluster, name of its peer).
type Claims = BTreeMap<(Key, String), Key>;

/// What a link is, in itself: the first that finds something refuses it.
const ACCEPT: &[fn(&ClusterLink) -> Option<Finding>] = &[spec_is_invalid, dialect_is_unsupported];

/// What a link is, between its two clusters.
const ACCEPT_SIDES: &[fn(&Sides<'_>) -> Option<Finding>] = &[clusters_are_the_same, nobody_can_dial];

/// What cannot be read may be there and as it was: a link that runs runs on.
const PASSING: &[&str] = &["SecretUnreadable", CLUSTER_UNREADABLE];
const CLUSTER_UNREADABLE: &str = "ClusterUnreadable";

pub(super) fn resolve_all<'w>(
    world: &'w World,
    clusters: &Clusters<'w>,
    minted: &mut Minted,
    now: Timestamp,
    random: Random<'_>,
) -> Vec<Link<'w>> {
    let mut claims = Claims::new();
    let mut rooms = Rooms::of(world);
    let mut links = Vec::new();
    for object in oldest_first(world) {
        let mut link = resolve(world, clusters, object, &mut claims, minted, now, &mut *random);
        (link.halves, link.too_large) = match rooms.admit(link.halves) {
            Ok(halves) => (halves, None),
            Err((finding, halves)) => (halves, Some(finding)),
        };
        links.push(link);
    }
    links.sort_by(|one, two| one.key.cmp(&two.key));
    links
}

/// Puts the halves of all links that are in force into the settings of their clusters, and seals these.
pub(super) fn add_to(world: &World, clusters: &mut BTreeMap<Key, Cluster<'_>>, links: &[Link<'_>]) {
    let unreadable = world.unreadable.links.iter().flat_map(|link| half::as_they_run(world, link));
    for half in links.iter().flat_map(|link| link.halves.iter().cloned()).chain(unreadable) {
        let Some(settings) = clusters.get_mut(&half.cluster).and_then(|cluster| cluster.settings.as_mut())
        else {
            continue;
        };
        // A link that runs on though it cannot be read claims no peer: another may have it by now.
        if settings.links.iter().all(|other| other.peer != half.settings.peer) {
            settings.links.push(half.settings);
        }
    }
    for cluster in clusters.values_mut() {
        let Some(mut settings) = cluster.settings.take() else { continue };
        settings.links.sort_by(|one, two| one.id.cmp(&two.id));
        let before = world.running.get(&cluster.key).filter(|running| *running.settings == settings);
        cluster.sealed = Some(before.cloned().unwrap_or_else(|| Sealed::new(settings)));
    }
}

/// By creation; those without a time in the order of the files, before those with one. Kubernetes counts whole seconds: of
/// those of one second, what runs came first.
fn oldest_first(world: &World) -> Vec<&ClusterLink> {
    let runs = |link: &ClusterLink| {
        let key = Key::of(link);
        let local = Key::new(&key.namespace, &link.spec.cluster_ref.name);
        half::running(world, &local, &key.to_string()).is_some()
    };
    let mut order: Vec<&ClusterLink> = world.links.iter().collect();
    order.sort_by_cached_key(|link| {
        (link.metadata.creation_timestamp.as_ref().map(|time| time.0), !runs(link))
    });
    order
}

fn resolve<'w>(
    world: &'w World,
    clusters: &Clusters<'w>,
    object: &'w ClusterLink,
    claims: &mut Claims,
    minted: &mut Minted,
    now: Timestamp,
    random: Random<'_>,
) -> Link<'w> {
    let key = Key::of(object);
    let sides = find_sides(world, clusters, object, &key);
    let refusal = ACCEPT
        .iter()
        .find_map(|check| check(object))
        .or_else(|| sides.as_ref().ok().and_then(|sides| ACCEPT_SIDES.iter().find_map(|check| check(sides))))
        .or_else(|| sides.as_ref().ok().and_then(|sides| claim(claims, &key, sides).err()));
    let rendered = match (&refusal, &sides) {
        (None, Ok(sides)) => {
            let own = minted.links.entry(key.clone()).or_default();
            let rendered = halves::render(world, object, &key, sides, own, &minted.clusters, now, random);
            Some(rendered.and_then(checked))
        }
        _ => None,
    };
    let unresolved = match (&sides, &rendered) {
        (Err(finding), _) | (_, Some(Err(finding))) => Some(finding.clone()),
        _ => None,
    };
    let (halves, invitation) = match rendered {
        Some(Ok(rendered)) => rendered,
        _ if unresolved.as_ref().is_some_and(|finding| PASSING.contains(&finding.reason)) => {
            (half::as_they_run(world, &key), None)
        }
        _ => Default::default(),
    };
    let local = Key::new(&key.namespace, &object.spec.cluster_ref.name);
    let listens = sides.as_ref().map_or(true, |sides| sides.local.endpoint.listens);
    Link {
        object,
        accepted: match refusal {
            Some(finding) => State::no(finding.reason, finding.message_with_path()),
            None => State::yes("Accepted", notes::link(object, listens)),
        },
        resolved: match unresolved {
            Some(finding) => State::no(finding.reason, finding.message_with_path()),
            None => State::yes("Resolved", "Every cluster, Secret and grant that it uses exists."),
        },
        local: clusters.contains_key(&local).then_some(local),
        peer: match (&sides, &object.spec.remote.external) {
            (Ok(sides), _) => Some(sides.peer.name().to_owned()),
            // Who may not link does not learn the name of what stands elsewhere.
            (Err(_), external) => external.as_ref().map(|external| external.cluster_name.clone()),
        },
        halves,
        too_large: None,
        invitation,
        key,
    }
}

/// A half that a node would refuse must not cost its cluster all the other links.
fn checked(rendered: halves::Rendered) -> Result<halves::Rendered, Finding> {
    for half in &rendered.0 {
        let mut alone = Settings::new("alone");
        alone.links.push(half.settings.clone());
        check_settings(&alone)?;
    }
    Ok(rendered)
}

fn spec_is_invalid(object: &ClusterLink) -> Option<Finding> {
    joined(check::link(object))
}

fn dialect_is_unsupported(object: &ClusterLink) -> Option<Finding> {
    let external = object.spec.remote.external.as_ref()?;
    (external.dialect == Some(Dialect::Emqx)).then(|| Finding {
        path: "spec.remote.external.dialect".to_owned(),
        reason: "DialectUnsupported",
        message: "is Emqx, which this version does not speak yet; link to an mqlink cluster (Native)"
            .to_owned(),
    })
}

/// Links know clusters by name alone, so two of one name cannot be told apart.
fn clusters_are_the_same(sides: &Sides<'_>) -> Option<Finding> {
    let own = sides.local;
    let message = match sides.peer {
        Peer::Managed(remote) if remote.key == own.key => {
            "names the local cluster itself; name another one".to_owned()
        }
        peer => format!(
            "is known to links as `{}`, as the local cluster is; the name of a cluster never changes: make one of the two anew \
             with a clusterName of its own",
            peer.name()
        ),
    };
    let path = "spec.remote".to_owned();
    (sides.peer.name() == own.name).then_some(Finding { path, reason: "SameCluster", message })
}

fn nobody_can_dial(sides: &Sides<'_>) -> Option<Finding> {
    use crate::api::link::Dial;
    let listens = sides.local.endpoint.listens;
    let problem = match sides.peer {
        Peer::Managed(remote) if !listens && !remote.endpoint.listens => {
            "neither cluster has a link listener"
        }
        Peer::External(external) if external.dial == Some(Dial::In) && !listens => {
            "dial is In, but the local cluster has no link listener"
        }
        _ => return None,
    };
    Some(Finding {
        path: "spec".to_owned(),
        reason: "NoLinkListener",
        message: format!("cannot work: {problem}; enable linkListener of a cluster"),
    })
}

/// Finds both clusters, and the consent of one that stands elsewhere.
fn find_sides<'a>(
    world: &World,
    clusters: &'a Clusters<'a>,
    object: &'a ClusterLink,
    key: &Key,
) -> Result<Sides<'a>, Finding> {
    let local = Key::new(&key.namespace, &object.spec.cluster_ref.name);
    let local = find_cluster(world, clusters, "spec.clusterRef", &local)?;
    let remote = &object.spec.remote;
    if let Some(external) = &remote.external {
        return Ok(Sides { local, peer: Peer::External(external) });
    }
    let path = "spec.remote.clusterRef";
    let target = remote.cluster_ref.clone().unwrap_or_default();
    let target = Key::new(target.namespace.unwrap_or_else(|| key.namespace.clone()), target.name);
    // Consent first: who may not link does not learn whether a cluster exists elsewhere.
    let cluster = clusters.get(&target);
    // Its half here runs, so it was permitted.
    let runs = || half::running(world, &local.key, &key.to_string()).is_some();
    if world.unreadable.has_cluster(&target) && (target.namespace == key.namespace || runs()) {
        return Err(unreadable(path, &target));
    }
    if target.namespace != key.namespace && !world.operates(&target.namespace) {
        return Err(Finding {
            path: path.to_owned(),
            reason: "NamespaceNotOperated",
            message: format!(
                "names MqttCluster {target}, in a namespace that this operator does not operate; add that to its --namespace, \
                 with the rights that it needs there, or use remote.external for a cluster of another operator"
            ),
        });
    }
    if target.namespace != key.namespace
        && !cluster.is_some_and(|cluster| consent::allows(world, cluster.object, &key.namespace))
    {
        let name_alone = match consent::knows_labels(world, &key.namespace) {
            true => String::new(),
            false => format!(
                " (by {} where it selects: no other label of the namespace is known here)",
                consent::NAME_LABEL
            ),
        };
        return Err(Finding {
            path: path.to_owned(),
            reason: "RefNotPermitted",
            message: format!(
                "names MqttCluster {target}, which does not exist or does not allow links from namespace {}; \
                 its allowedLinks has to permit them{name_alone}",
                key.namespace
            ),
        });
    }
    Ok(Sides { local, peer: Peer::Managed(find_cluster(world, clusters, path, &target)?) })
}

fn unreadable(path: &str, key: &Key) -> Finding {
    Finding {
        path: path.to_owned(),
        reason: CLUSTER_UNREADABLE,
        message: format!("names MqttCluster {key}, which this operator cannot read; its log says why"),
    }
}

fn find_cluster<'a>(
    world: &World,
    clusters: &'a Clusters<'a>,
    path: &str,
    key: &Key,
) -> Result<&'a Cluster<'a>, Finding> {
    let Some(cluster) = clusters.get(key) else {
        if world.unreadable.has_cluster(key) {
            return Err(unreadable(path, key));
        }
        let message = format!("names MqttCluster {key}, which does not exist; create it or correct the name");
        return Err(Finding { path: path.to_owned(), reason: "ClusterNotFound", message });
    };
    match cluster.settings {
        Some(_) => Ok(cluster),
        None => Err(Finding {
            path: path.to_owned(),
            reason: "ClusterNotAccepted",
            message: format!("names MqttCluster {key}, which cannot run as it is; see its conditions"),
        }),
    }
}

/// Claims both sides of a link, or neither.
fn claim(claims: &mut Claims, key: &Key, sides: &Sides<'_>) -> Result<(), Finding> {
    let mut wanted = vec![(sides.local.key.clone(), sides.peer.name().to_owned())];
    if let Peer::Managed(remote) = sides.peer {
        wanted.push((remote.key.clone(), sides.local.name.clone()));
    }
    if let Some((pair, holder)) = wanted.iter().find_map(|pair| claims.get_key_value(pair)) {
        let (cluster, peer) = pair;
        return Err(Finding {
            path: "spec".to_owned(),
            reason: "DuplicatePeer",
            message: format!(
                "links {cluster} with `{peer}`, and so does the older ClusterLink {holder}, which stays in force; \
                 delete one of them"
            ),
        });
    }
    claims.extend(wanted.into_iter().map(|pair| (pair, key.clone())));
    Ok(())
}
