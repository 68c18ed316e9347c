//! `mqlink up` on a manifest.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use mqlink::settings::report::LinkReport;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::{self, Process};
use super::status::{is_up, socket_of};
use super::{MQLINK, Status, free_port, until};
use crate::clients::{Kind, Post, Rumqttc, Subscriber, Who};

/// A manifest of clusters and links, on ports of its own.
#[derive(Clone, Default)]
pub(crate) struct Clusters {
    clusters: Vec<Cluster>,
    links: Vec<String>,
    more: Vec<String>,
}

#[derive(Clone)]
struct Cluster {
    name: &'static str,
    port: u16,
    tls_port: u16,
    link_port: u16,
    tls_secret: Option<&'static str>,
    link_tls: &'static str,
}

impl Clusters {
    /// `us-east` and `eu-west` and a managed link: what each side wants to receive, as YAML lists.
    pub(crate) fn linked(us_east: &str, eu_west: &str) -> Clusters {
        Clusters::default()
            .cluster("us-east")
            .cluster("eu-west")
            .link("us-eu", "us-east", us_east, "eu-west", eu_west)
    }

    pub(crate) fn cluster(mut self, name: &'static str) -> Clusters {
        let (port, tls_port, link_port) = (free_port(), free_port(), free_port());
        self.clusters.push(Cluster { name, port, tls_port, link_port, tls_secret: None, link_tls: "Auto" });
        self
    }

    /// A managed link from one cluster to another.
    pub(crate) fn link(
        mut self,
        name: &str,
        from: &str,
        topics: &str,
        to: &str,
        to_topics: &str,
    ) -> Clusters {
        self.links.push(format!(
            "apiVersion: mqlink.dev/v1alpha1\nkind: ClusterLink\nmetadata: {{name: {name}, namespace: mqtt}}\nspec:\n  \
             clusterRef: {{name: {from}}}\n  topics: {topics}\n  remote:\n    clusterRef: {{name: {to}}}\n    \
             topics: {to_topics}\n"
        ));
        self
    }

    /// The same clusters without their links.
    pub(crate) fn unlinked(mut self) -> Clusters {
        self.links.clear();
        self
    }

    /// Every cluster also listens for MQTT over TLS, with the certificate of this Secret.
    pub(crate) fn tls(mut self, secret: &'static str, document: String) -> Clusters {
        self.clusters.iter_mut().for_each(|cluster| cluster.tls_secret = Some(secret));
        self.more.push(document);
        self
    }

    /// Links without TLS.
    pub(crate) fn plaintext_links(mut self) -> Clusters {
        self.clusters.iter_mut().for_each(|cluster| cluster.link_tls = "Plaintext");
        self
    }

    fn yaml(&self) -> String {
        let clusters = self.clusters.iter().map(Cluster::yaml);
        clusters
            .chain(self.links.iter().cloned())
            .chain(self.more.iter().cloned())
            .collect::<Vec<_>>()
            .join("---\n")
    }

    fn port(&self, cluster: &str, over_tls: bool) -> u16 {
        let found =
            self.clusters.iter().find(|candidate| candidate.name == cluster).expect("a cluster of the case");
        if over_tls { found.tls_port } else { found.port }
    }
}

impl Cluster {
    fn yaml(&self) -> String {
        let Cluster { name, port, tls_port, link_port, tls_secret, link_tls } = self;
        let mqtts = tls_secret.map_or(String::new(), |secret| {
            format!(
                "    - {{name: mqtts, protocol: MQTTS, port: {tls_port}, tls: {{secretRef: {{name: {secret}}}}}}}\n"
            )
        });
        format!(
            "apiVersion: mqlink.dev/v1alpha1\nkind: MqttCluster\nmetadata: {{name: {name}, namespace: mqtt}}\nspec:\n  \
             listeners:\n    - {{name: mqtt, protocol: MQTT, port: {port}}}\n{mqtts}  \
             linkListener: {{port: {link_port}, tls: {{mode: {link_tls}}}}}\n  authentication: {{anonymous: true}}\n  \
             storage: {{ephemeral: true}}\n"
        )
    }
}

/// A running `mqlink up`; ended with its nodes when dropped.
pub(crate) struct Up {
    child: Child,
    clusters: Clusters,
    manifest: PathBuf,
    said: Arc<Mutex<String>>,
    /// How many marks `link` has left in each cluster.
    marks: Mutex<BTreeMap<String, u64>>,
    folder: TempDir,
}

impl Up {
    /// Starts and waits until every link is up.
    #[track_caller]
    pub(crate) fn start(clusters: Clusters) -> Up {
        Up::start_with(clusters, false)
    }

    /// The same, where [`Up::data`] is.
    #[track_caller]
    pub(crate) fn start_kept(clusters: Clusters) -> Up {
        Up::start_with(clusters, true)
    }

    #[track_caller]
    fn start_with(clusters: Clusters, is_kept: bool) -> Up {
        let folder = TempDir::new().expect("a temporary folder");
        let data = folder.path().join("data");
        let data = if is_kept { vec!["--data".as_ref(), data.as_os_str()] } else { Vec::new() };
        let manifest = folder.path().join("clusters.yaml");
        std::fs::write(&manifest, clusters.yaml()).expect("writable");
        let mut child = Command::new(MQLINK)
            .args(["up", "-f"])
            .arg(&manifest)
            .args(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let said = Arc::<Mutex<String>>::default();
        let sink = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let mut said = sink.lock().expect("nobody panics with it");
                said.push_str(&line);
                said.push('\n');
            }
        });
        let up = Up { child, clusters, manifest, said, marks: Mutex::default(), folder };
        up.ready();
        up
    }

    /// Waits until every node runs and every link of it is up.
    #[track_caller]
    pub(crate) fn ready(&self) {
        for cluster in &self.clusters.clusters {
            let named = |link: &String| link.contains(&format!("name: {}}}", cluster.name));
            let links = self.clusters.links.iter().filter(|link| named(link)).count();
            let status = self.status(cluster.name);
            status.until("its links", |report| report.links.len() == links && report.links.iter().all(is_up));
        }
    }

    /// A client of the cluster's plain listener.
    pub(crate) fn at(&self, cluster: &str) -> Who {
        Who::at(self.clusters.port(cluster, false))
    }

    /// A client of the cluster's TLS listener.
    pub(crate) fn over_tls_at(&self, cluster: &str) -> Who {
        Who::at(self.clusters.port(cluster, true))
    }

    /// Subscribes, and waits until `from` knows: what is published there from now on crosses.
    #[track_caller]
    pub(crate) fn subscribed(&self, kind: &dyn Kind, who: &Who, filter: &str, from: &str) -> Subscriber {
        let subscriber = kind.subscribe(who, filter, 2);
        let ports = |cluster: &&Cluster| [cluster.port, cluster.tls_port].contains(&who.port);
        let here = self.clusters.clusters.iter().find(ports).expect("a client of a cluster");
        self.interest_is_known(here.name, from);
        subscriber
    }

    /// Waits until `from` serves every subscription that `to` has now. Interests travel in order, so it is enough
    /// that one made now is served.
    #[track_caller]
    pub(crate) fn interest_is_known(&self, to: &str, from: &str) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let topic = format!("interest/{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut subscriber = Rumqttc.subscribe(&self.at(to), &topic, 0);
        until("interest to be known", || {
            Rumqttc.publish(&self.at(from), &[Post::new(&topic, "known?", 1)]);
            subscriber.has_heard().then_some(())
        });
    }

    /// Replaces the manifest that `up` follows.
    pub(crate) fn edit(&mut self, change: impl FnOnce(Clusters) -> Clusters) {
        self.clusters = change(self.clusters.clone());
        std::fs::write(&self.manifest, self.clusters.yaml()).expect("writable");
    }

    /// Where it keeps its state, if it was told to.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The cluster's one node.
    #[track_caller]
    pub(crate) fn node(&self, cluster: &str) -> Process {
        until(&format!("a node of {cluster}"), || self.nodes().into_iter().find(|node| is_of(node, cluster)))
    }

    /// All nodes that run.
    pub(crate) fn nodes(&self) -> Vec<Process> {
        process::children(self.child.id())
    }

    /// What the cluster's one node reports, from now on.
    #[track_caller]
    pub(crate) fn status(&self, cluster: &str) -> Status {
        until(&format!("the status of {cluster}"), || {
            Status::follow(&socket_of(self.nodes().iter().find(|node| is_of(node, cluster))?)?)
        })
    }

    /// What the cluster's one link reports of everything that happened there before this call.
    ///
    /// Reports come a little later than what they count. A retained message that nobody wants is counted too: a report
    /// that knows it is new enough. Not for cases that retain messages of their own.
    #[track_caller]
    pub(crate) fn link(&self, cluster: &str) -> LinkReport {
        let mut marks = self.marks.lock().expect("nobody panics with it");
        let count = marks.entry(cluster.to_owned()).or_default();
        *count += 1;
        let mark = Post::new(&format!("mark/{count}"), "x", 1).retained();
        Rumqttc.publish(&self.at(cluster), &[mark]);
        let idle = |link: &LinkReport| link.counters.sent.queued + link.counters.sent.in_flight == 0;
        let what = "a report after the mark, and nothing under way";
        let mut report = self.status(cluster).until(what, |report| {
            report.retained >= *count && report.links.len() == 1 && report.links.iter().all(idle)
        });
        report.links.remove(0)
    }

    /// What `up` has printed so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("nobody panics with it").clone()
    }

    /// Sends `up` a signal and waits for its end.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        process::signal(self.child.id(), signal);
        until("the end of `up`", || self.child.try_wait().expect("our child"))
    }
}

fn is_of(node: &Process, cluster: &str) -> bool {
    node.option("--node").is_some_and(|name| name.contains(cluster))
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            process::signal(self.child.id(), Signal::SIGTERM);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("`up` said:\n{}", self.said());
        }
    }
}
