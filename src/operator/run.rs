//! The loop, and what has to be true before it begins.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use kube::Client;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::build::Kind;
use super::decide::Decider;
use super::events::Teller;
use super::lease::{Fence, Keeper, Lease};
use super::nodes::Nodes;
use super::picture::{Picture, Weight};
use super::queue::Queue;
use super::shelf::{Fetched, fetch};
use super::vitals::{Phase, Vitals};
use super::watch::{Scope, Sight, Source, api, open, sources};
use super::words::words;
use super::write::{Ended, WriteError};

/// The least time between two decisions: one change comes as several events.
const CALM: Duration = Duration::from_millis(50);
/// So many times longer than a decision took no other is made: a large picture leaves time for the writes.
const REST: u32 = 4;
/// The longest time between two: certificates are renewed although nothing happens.
const LOOK: Duration = Duration::from_secs(600);
/// The time between two looks whether the Lease is still ours.
const FENCED: Duration = Duration::from_secs(1);
/// Writes at a time.
const WRITES_MAX: usize = 20;
/// What follows from our own writes waits no longer for others of them.
const FOLLOW_MAX: Duration = Duration::from_secs(2);
/// Secrets read at a time.
const READS_MAX: usize = 16;
/// The time between two looks for an API server that is not there when the operator starts.
const KNOCK: Duration = Duration::from_secs(2);

/// What to operate, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where.
    pub scope: Scope,
    /// The image of clusters that name none.
    pub image: String,
    /// How to make sure that there is one operator; `None`: somebody else does.
    pub lease: Option<Lease>,
    /// Where it counts what it does.
    pub vitals: Vitals,
}

/// Why the operator ends.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The definitions are not there.
    #[error(
        "Kubernetes does not know {0}: apply the definitions (mqlink crds | kubectl apply --server-side -f -), \
         then start the operator again"
    )]
    NoDefinitions(&'static str),
    /// The API server refuses, or is not there.
    #[error("failed to {0}: {words}", words = words(.1))]
    Api(&'static str, #[source] Box<kube::Error>),
}

/// How far the loop has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Decisions that left nothing to write, with nothing under way.
    pub(super) settled: u64,
}

/// Operates until it is told to end.
///
/// # Errors
/// When it cannot begin, or must not go on.
pub async fn run(
    client: Client,
    options: Options,
    end: impl Future<Output = ()>,
) -> Result<(), OperatorError> {
    operate(client, options, watch::Sender::default(), end).await
}

/// The same, and tells how far it has come.
pub(super) async fn operate(
    client: Client,
    options: Options,
    progress: watch::Sender<Progress>,
    end: impl Future<Output = ()>,
) -> Result<(), OperatorError> {
    tokio::pin!(end);
    tokio::select! {
        () = &mut end => return Ok(()),
        found = until_answered(|| check_definitions(&client, &options.scope)) => found?,
    }
    let Some(lease) = &options.lease else {
        return tokio::select! {
            () = end => Ok(()),
            ended = follow(client.clone(), &options, &progress, Fence::open()) => ended,
        };
    };
    let mut keeper = Keeper::new(&client, lease.clone());
    let ended = tokio::select! {
        () = end => Ok(()),
        ended = lead(&client, &options, &progress, &mut keeper) => ended,
    };
    keeper.release().await;
    ended
}

/// Works whenever the Lease is ours.
async fn lead(
    client: &Client,
    options: &Options,
    progress: &watch::Sender<Progress>,
    keeper: &mut Keeper,
) -> Result<(), OperatorError> {
    loop {
        options.vitals.enter(Phase::Waits);
        let enter = |is_held| options.vitals.enter(if is_held { Phase::StandsBy } else { Phase::Waits });
        keeper.acquire(enter).await;
        tracing::info!("this operator leads");
        let fence = keeper.fence();
        let lost = tokio::select! {
            lost = keeper.keep() => lost,
            ended = follow(client.clone(), options, progress, fence) => return ended,
        };
        tracing::warn!(%lost, "this operator leads no longer; what it knew is forgotten");
    }
}

/// Asks again and again, for as long as there is no API server that answers.
pub(super) async fn until_answered<T, F>(ask: impl Fn() -> F) -> Result<T, OperatorError>
where
    F: Future<Output = Result<T, OperatorError>>,
{
    loop {
        match ask().await {
            Err(error) if error.is_passing() => tracing::warn!(%error, "waiting for the API server"),
            done => return done,
        }
        sleep(KNOCK).await;
    }
}

impl OperatorError {
    /// Whether the API server is likely to answer otherwise soon.
    fn is_passing(&self) -> bool {
        let OperatorError::Api(_, error) = self else { return false };
        match &**error {
            kube::Error::Api(status) => status.code >= 500 || status.code == 429,
            kube::Error::Service(_) | kube::Error::HyperError(_) => true,
            _ => false,
        }
    }
}

/// One namespace of several that must not be read says nothing: the others may.
async fn check_definitions(client: &Client, scope: &Scope) -> Result<(), OperatorError> {
    let Scope::Namespaces(names) = scope else { return check_definitions_in(client, None).await };
    let mut refused = None;
    for name in names {
        match check_definitions_in(client, Some(name)).await {
            Err(OperatorError::Api(verb, error)) if is_forbidden(&error) => {
                refused = Some(OperatorError::Api(verb, error));
            }
            done => return done,
        }
    }
    refused.map_or(Ok(()), Err)
}

async fn check_definitions_in(client: &Client, namespace: Option<&str>) -> Result<(), OperatorError> {
    for (kind, name) in [(Kind::MqttCluster, "MqttCluster"), (Kind::ClusterLink, "ClusterLink")] {
        match api(client, kind, namespace).list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Err(OperatorError::NoDefinitions(name));
            }
            Err(error) => return Err(OperatorError::Api("list the objects to operate", Box::new(error))),
        }
    }
    Ok(())
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether a watch may not even list.
fn is_refused(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(error) if is_forbidden(error))
}

async fn follow(
    client: Client,
    options: &Options,
    progress: &watch::Sender<Progress>,
    fence: Fence,
) -> Result<(), OperatorError> {
    let sources = sources(&options.scope);
    let mut sights = open(&client, &sources);
    let picture = Picture::new(&sources);
    let decider = Decider::new(picture, options.image.clone());
    let (nodes, mut said) = Nodes::new(fence.clone());
    let vitals = options.vitals.clone();
    vitals.enter(Phase::Learns);
    let instance = options.lease.as_ref().map_or("operator", |lease| lease.holder.as_str()).to_owned();
    let teller = Teller::new(client.clone(), instance, vitals.events());
    let mut operator = Operator {
        client,
        decider,
        nodes,
        fence,
        teller,
        vitals,
        reads: FuturesUnordered::new(),
        open: Queue::default(),
        under_way: FuturesUnordered::new(),
    };
    let mut decide_at = None;
    // Whether something came of our own writes, which is decided on once no more of them wait.
    let mut follows = false;
    let mut calm_until = Instant::now();
    // When a report grows old, unless something is heard before.
    let mut turn_at = None;
    let mut decided_at = Instant::now();
    loop {
        tokio::select! {
            Some(sight) = sights.next() => {
                match operator.see(sight) {
                    Weight::Now => decide_at = Some(calm_until),
                    Weight::Later => follows = true,
                    Weight::Nothing => {}
                }
            }
            Some((node, sight)) = said.recv() => {
                if operator.decider.heard.hear(&node, sight, Instant::now()) {
                    decide_at = Some(calm_until);
                }
            }
            Some(ended) = operator.under_way.next() => {
                match operator.note(ended) {
                    Weight::Now => decide_at = Some(calm_until),
                    Weight::Later | Weight::Nothing => follows = true,
                }
            }
            () = at(turn_at) => {
                let now = Instant::now();
                if operator.decider.heard.has_turned(decided_at, now) {
                    decide_at = Some(calm_until);
                }
                turn_at = operator.decider.heard.next_turn(now);
            }
            Some(fetched) = operator.reads.next() => {
                if operator.decider.picture.shelf.take(fetched, Instant::now()) {
                    decide_at = Some(calm_until);
                }
            }
            () = at(decide_at) => {
                let begun = Instant::now();
                follows = false;
                decide_at = operator.decide(begun);
                decided_at = begun;
                turn_at = operator.decider.heard.next_turn(begun);
                calm_until = Instant::now() + CALM.max(begun.elapsed() * REST);
                decide_at = decide_at.map(|due| due.max(calm_until));
                if operator.is_settled() {
                    progress.send_modify(|progress| progress.settled += 1);
                }
            }
        }
        operator.begin_writes();
        if follows {
            let patience = if operator.is_writing() { decided_at + FOLLOW_MAX } else { calm_until };
            let then = calm_until.max(patience);
            decide_at = Some(decide_at.map_or(then, |soon| soon.min(then)));
        }
    }
}

struct Operator {
    client: Client,
    decider: Decider,
    /// Closed once somebody else may operate.
    fence: Fence,
    nodes: Nodes,
    teller: Teller,
    vitals: Vitals,
    /// At most one for each Secret.
    reads: FuturesUnordered<BoxFuture<'static, Fetched>>,
    /// Writes that have not begun.
    open: Queue,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
}

impl Operator {
    /// Takes in what a watch saw. Most Secrets are nobody's business.
    fn see(&mut self, (source, event): Sight) -> Weight {
        if source.kind == Kind::AnySecret
            && let Ok(Event::Apply(secret) | Event::Delete(secret)) = &event
            && !self.decider.picture.shelf.names(secret)
        {
            return Weight::Nothing;
        }
        match event {
            Ok(event) => self.decider.see(&source, event),
            Err(error) => {
                self.vitals.interrupted();
                let Source { kind, namespace } = &source;
                let namespace = namespace.as_deref().unwrap_or("all namespaces");
                if is_refused(&error) && self.decider.picture.bar(&source) {
                    tracing::error!(
                        namespace,
                        %error,
                        "this namespace is left alone until the operator may read it: bind the Role mqlink-operator there, \
                         as config/namespaces does, or take the namespace from --namespace"
                    );
                    return Weight::Now;
                }
                tracing::warn!(?kind, namespace, %error, "a watch was interrupted and begins again");
                Weight::Nothing
            }
        }
    }

    /// Decides what to write, and returns when to look again.
    fn decide(&mut self, now: Instant) -> Option<Instant> {
        if !self.decider.picture.is_listed() {
            return None;
        }
        self.begin_reads(now);
        let read_next = self.decider.picture.shelf.next(now);
        if !self.decider.picture.is_complete(now) {
            return read_next;
        }
        if !self.fence.is_open(now) {
            self.nodes.keep(&BTreeMap::new());
            return Some(now + FENCED);
        }
        let writes = self.decider.decide(Timestamp::now(), now, &mut random);
        self.open.extend(writes);
        self.nodes.keep(&self.decider.orders);
        self.vitals.enter(Phase::Operates);
        self.vitals.holds("MqttCluster", self.decider.picture.clusters.len());
        self.vitals.holds("ClusterLink", self.decider.picture.links.len());
        self.vitals.decided(now.elapsed());
        Some(self.decider.next(now).into_iter().chain(read_next).min().unwrap_or(now + LOOK))
    }

    fn is_settled(&self) -> bool {
        self.decider.picture.is_complete(Instant::now())
            && self.open.is_empty()
            && self.under_way.is_empty()
            && self.reads.is_empty()
    }

    /// Whether writes wait for others to end.
    fn is_writing(&self) -> bool {
        !self.open.is_empty() && self.fence.is_open(Instant::now())
    }

    fn begin_reads(&mut self, now: Instant) {
        let picture = &mut self.decider.picture;
        picture.refer(now);
        for key in picture.shelf.due(now, READS_MAX.saturating_sub(self.reads.len())) {
            self.reads.push(Box::pin(fetch(self.client.clone(), key)));
        }
    }

    fn begin_writes(&mut self) {
        while self.under_way.len() < WRITES_MAX
            && self.fence.is_open(Instant::now())
            && let Some(write) = self.open.take()
        {
            self.under_way.push(Box::pin(write.perform(self.client.clone())));
        }
    }

    fn note(&mut self, mut ended: Ended) -> Weight {
        self.open.ended(&ended.id.namespace);
        match &ended.done {
            Ok(_) => {}
            Err(error @ (WriteError::Leaving(_) | WriteError::Gone(_))) => tracing::debug!("{error}"),
            Err(error) => tracing::warn!(%error, "it is tried again"),
        }
        self.vitals.wrote(ended.id.kind.name(), ended.done.is_ok());
        if let Some(news) = ended.news.take() {
            self.teller.tell(news);
        }
        self.decider.ended(ended, Instant::now())
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Random bytes that nobody can guess.
pub(super) fn random(bytes: &mut [u8]) {
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(bytes)
        .expect("the system gives random numbers");
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use futures::stream::FuturesUnordered;
    use kube::Client;

    use super::{Operator, WRITES_MAX};
    use crate::operator::Vitals;
    use crate::operator::build::{Kind, ObjectId};
    use crate::operator::decide::Decider;
    use crate::operator::events::Teller;
    use crate::operator::lease::Fence;
    use crate::operator::ledger::Part;
    use crate::operator::nodes::Nodes;
    use crate::operator::picture::Picture;
    use crate::operator::queue::Queue;
    use crate::operator::write::{Ended, Write};

    /// Writes begin when somebody looks at them, which nobody does here: no server is asked.
    #[tokio::test]
    async fn so_many_writes_are_under_way_at_a_time_and_none_where_another_operator_may_lead() {
        let config = kube::Config::new("http://localhost:1".parse().expect("a URL"));
        let client = Client::try_from(config).expect("a client");
        let (fence, vitals) = (Fence::closed(), Vitals::default());
        let mut operator = Operator {
            client: client.clone(),
            decider: Decider::new(Picture::new(&[]), String::new()),
            nodes: Nodes::new(fence.clone()).0,
            fence: fence.clone(),
            teller: Teller::new(client, "test".to_owned(), vitals.events()),
            vitals,
            reads: FuturesUnordered::new(),
            open: Queue::default(),
            under_way: FuturesUnordered::new(),
        };
        let id = |namespace: &str| ObjectId {
            kind: Kind::Service,
            namespace: namespace.to_owned(),
            name: "n".to_owned(),
        };
        let delete = |namespace: &str| Write::Delete { id: id(namespace), uid: String::new() };
        operator.open.extend((0..WRITES_MAX * 2).map(|number| delete(&number.to_string())));
        operator.begin_writes();
        assert_eq!(operator.under_way.len(), 0);
        fence.open_until(Instant::now() + Duration::from_secs(600));
        operator.begin_writes();
        operator.begin_writes();
        assert_eq!(operator.under_way.len(), WRITES_MAX);
        // A namespace where one ends has room again.
        operator.under_way.clear();
        operator.open = Queue::default();
        operator.open.extend((0..WRITES_MAX).map(|_| delete("a")));
        operator.begin_writes();
        let places = operator.under_way.len();
        operator.note(Ended { id: id("a"), part: Part::Object, owner: None, news: None, done: Ok(None) });
        operator.begin_writes();
        assert_eq!(operator.under_way.len(), places + 1);
    }
}
