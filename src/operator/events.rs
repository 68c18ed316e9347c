//! What happened, for people who ask `kubectl describe` and `kubectl events`: conditions hold the state, events the history.
//!
//! One CamelCase reason per situation. The same again becomes a series of the event that is there. Events are told by a task
//! of their own, as well as it can: they are bounded in number and rate, lost when there are too many of them, and nothing
//! waits for them.
//!
//! [`Series`] decides what is told, without a clock or a server; [`Teller`] tells it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

/// Who tells.
const CONTROLLER: &str = "mqlink.dev/operator";
/// Events that wait to be told.
const OPEN_MAX: usize = 256;
/// Different events that are remembered.
const KNOWN_MAX: usize = 1_024;
/// For so long the same again belongs to the same series.
const SERIES_LIFE: Duration = Duration::from_secs(600);
/// The time between two writes of one series.
const SERIES_CALM: Duration = Duration::from_secs(30);
/// Events in a row; then one each [`REFILL`].
const BURST: u32 = 64;
const REFILL: Duration = Duration::from_secs(2);
/// The longest note that Kubernetes takes, in bytes.
const NOTE_BYTES_MAX: usize = 1_024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct News {
    pub(super) about: ObjectReference,
    pub(super) is_warning: bool,
    /// One CamelCase word.
    pub(super) reason: String,
    /// What the operator did about it, one CamelCase word.
    pub(super) action: &'static str,
    /// A sentence for people.
    pub(super) note: String,
}

impl News {
    /// Nothing is wrong.
    pub(super) fn good(
        about: &impl Resource<DynamicType = ()>,
        reason: impl Into<String>,
        action: &'static str,
        note: impl Into<String>,
    ) -> News {
        let about = about.object_ref(&());
        News { about, is_warning: false, reason: reason.into(), action, note: note.into() }
    }

    /// Somebody should look.
    pub(super) fn warning(self) -> News {
        News { is_warning: true, ..self }
    }

    fn key(&self) -> Key {
        let uid = self.about.uid.clone().unwrap_or_default();
        (uid, self.reason.clone(), self.note.clone())
    }
}

type Key = (String, String, String);

/// What is to be told.
#[derive(Debug, PartialEq)]
enum Telling {
    First {
        name: String,
        news: Box<News>,
    },
    Again {
        namespace: String,
        name: String,
        count: i32,
    },
    /// Nothing, or not yet.
    Nothing,
    /// Something new, in too large a crowd.
    Lost,
}

/// The events of late, and how often each happened.
#[derive(Debug)]
struct Series {
    known: BTreeMap<Key, Known>,
    tokens: u32,
    refilled: Instant,
    number: u64,
}

#[derive(Debug)]
struct Known {
    namespace: String,
    name: String,
    count: i32,
    /// The count that was told last.
    told: i32,
    told_at: Instant,
    seen: Instant,
}

impl Series {
    fn new(now: Instant) -> Series {
        Series { known: BTreeMap::new(), tokens: BURST, refilled: now, number: 0 }
    }

    /// Takes what happened; what to tell of it now.
    fn take(&mut self, news: News, start: &str, now: Instant) -> Telling {
        self.known.retain(|_, known| now < known.seen + SERIES_LIFE);
        if let Some(known) = self.known.get_mut(&news.key()) {
            known.count = known.count.saturating_add(1);
            known.seen = now;
            return self.due(now).unwrap_or(Telling::Nothing);
        }
        if self.known.len() >= KNOWN_MAX || !self.spend(now) {
            return Telling::Lost;
        }
        self.number += 1;
        let namespace = news.about.namespace.clone().unwrap_or_default();
        let name = format!("{}.{start}.{}", news.about.name.as_deref().unwrap_or_default(), self.number);
        let known = Known { namespace, name: name.clone(), count: 1, told: 1, told_at: now, seen: now };
        self.known.insert(news.key(), known);
        Telling::First { name, news: Box::new(news) }
    }

    /// A series whose count is to be told.
    fn due(&mut self, now: Instant) -> Option<Telling> {
        let known = self.known.values_mut().find(|known| known.is_open() && known.due_at() <= now)?;
        (known.told, known.told_at) = (known.count, now);
        Some(Telling::Again {
            namespace: known.namespace.clone(),
            name: known.name.clone(),
            count: known.count,
        })
    }

    /// When the next series is due.
    fn next(&self) -> Option<Instant> {
        self.known.values().filter(|known| known.is_open()).map(Known::due_at).min()
    }

    fn spend(&mut self, now: Instant) -> bool {
        let refills = now.saturating_duration_since(self.refilled).as_secs() / REFILL.as_secs();
        let refills = u32::try_from(refills).unwrap_or(BURST).min(BURST);
        if refills > 0 {
            (self.tokens, self.refilled) = ((self.tokens + refills).min(BURST), now);
        }
        let may = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        may
    }
}

impl Known {
    fn is_open(&self) -> bool {
        self.count > self.told
    }

    /// The second time is told at once, as what makes a series of it.
    fn due_at(&self) -> Instant {
        if self.told == 1 { self.told_at } else { self.told_at + SERIES_CALM }
    }
}

/// What became of events.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) told: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// Tells events until it is dropped.
#[derive(Debug)]
pub(super) struct Teller {
    open: mpsc::Sender<News>,
    tally: Arc<Tally>,
    task: JoinHandle<()>,
}

impl Teller {
    /// Begins to tell; `instance` is who we are.
    pub(super) fn new(client: Client, instance: String, tally: Arc<Tally>) -> Teller {
        let (open, heard) = mpsc::channel(OPEN_MAX);
        let task = tokio::spawn(tell_all(client, instance, heard, Arc::clone(&tally)));
        Teller { open, tally, task }
    }

    /// Tells something, some time.
    pub(super) fn tell(&self, news: News) {
        if self.open.try_send(news).is_err() {
            self.tally.lost.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tell_all(client: Client, instance: String, mut heard: mpsc::Receiver<News>, tally: Arc<Tally>) {
    let mut series = Series::new(Instant::now());
    let start = format!("{:x}", Timestamp::now().as_nanosecond());
    loop {
        let next = series.next();
        let telling = tokio::select! {
            news = heard.recv() => match news {
                Some(news) => series.take(news, &start, Instant::now()),
                None => return,
            },
            () = until(next) => series.due(Instant::now()).unwrap_or(Telling::Nothing),
        };
        if let Some(is_told) = tell(&client, &instance, telling).await {
            let count = if is_told { &tally.told } else { &tally.lost };
            count.fetch_add(1, Relaxed);
        }
    }
}

/// Whether it was told, where there was something to tell. What fails is not tried again: the condition says it all.
async fn tell(client: &Client, instance: &str, telling: Telling) -> Option<bool> {
    let done = match telling {
        Telling::First { name, news } => {
            let event = event(name, *news, instance);
            let namespace = event.namespace().unwrap_or_default();
            let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
            timeout(PATIENCE, async move { api.create(&PostParams::default(), &event).await.map(drop) }).await
        }
        Telling::Again { namespace, name, count } => {
            let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
            let series = json!({"count": count, "lastObservedTime": MicroTime(Timestamp::now())});
            let patch = Patch::Merge(json!({"series": series}));
            timeout(
                PATIENCE,
                async move { api.patch(&name, &PatchParams::default(), &patch).await.map(drop) },
            )
            .await
        }
        Telling::Nothing => return None,
        Telling::Lost => return Some(false),
    };
    if let Ok(Err(error)) = &done {
        tracing::debug!(%error, "an event is lost");
    }
    Some(matches!(done, Ok(Ok(()))))
}

fn event(name: String, news: News, instance: &str) -> Event {
    let mut note = news.note;
    let end = (0..=NOTE_BYTES_MAX.min(note.len())).rev().find(|&end| note.is_char_boundary(end));
    note.truncate(end.unwrap_or_default());
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: news.about.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        regarding: Some(news.about),
        reason: Some(news.reason),
        action: Some(news.action.to_owned()),
        note: Some(note),
        type_: Some(if news.is_warning { "Warning" } else { "Normal" }.to_owned()),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.chars().take(128).collect()),
        ..Event::default()
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(name: &str, reason: &str) -> News {
        let about = ObjectReference {
            name: Some(name.to_owned()),
            namespace: Some("mqtt".to_owned()),
            uid: Some(format!("uid of {name}")),
            ..ObjectReference::default()
        };
        News { about, is_warning: false, reason: reason.to_owned(), action: "Reconcile", note: String::new() }
    }

    fn count(telling: Telling) -> i32 {
        match telling {
            Telling::First { .. } => 1,
            Telling::Again { count, .. } => count,
            Telling::Nothing => 0,
            Telling::Lost => -1,
        }
    }

    #[test]
    fn the_same_again_is_a_series() {
        let now = Instant::now();
        let mut series = Series::new(now);
        let mut take = |after_s| count(series.take(news("a", "A"), "0", now + Duration::from_secs(after_s)));
        assert_eq!([take(0), take(1), take(2), take(3), take(31), take(32)], [1, 2, 0, 0, 5, 0]);
        let due = series.next().expect("the last one is still to be told");
        assert_eq!(due, now + Duration::from_secs(61));
        assert!(matches!(series.due(due), Some(Telling::Again { count: 6, .. })));
        assert_eq!(series.next(), None);
        assert_eq!(count(series.take(news("a", "A"), "0", due + SERIES_LIFE)), 1, "that was long ago");
    }

    #[test]
    fn what_differs_is_told_apart() {
        let now = Instant::now();
        let mut series = Series::new(now);
        for each in [news("a", "A"), news("b", "A"), news("a", "B")] {
            assert_eq!(count(series.take(each, "0", now)), 1);
        }
    }

    #[test]
    fn a_crowd_is_cut_and_its_memory_bounded() {
        let now = Instant::now();
        let mut series = Series::new(now);
        let mut told = 0;
        for number in 0..10_000 {
            told += u32::from(series.take(news(&number.to_string(), "A"), "0", now) != Telling::Lost);
        }
        assert_eq!(told, BURST);
        assert_eq!(count(series.take(news("late", "A"), "0", now + REFILL)), 1);
        assert_eq!(count(series.take(news("later", "A"), "0", now + REFILL)), -1);
        for number in 0..10_000u32 {
            series.take(news(&number.to_string(), "B"), "0", now + REFILL * (2 + number / 100));
        }
        assert!(series.known.len() <= KNOWN_MAX);
    }

    #[test]
    fn an_event_is_one_that_kubernetes_takes() {
        let mut long = news("a", "A");
        long.note = "é".repeat(2_000);
        let event = event("a.1".to_owned(), long.warning(), &"i".repeat(500));
        assert_eq!(event.note.expect("a note").len(), NOTE_BYTES_MAX);
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert!(event.reporting_instance.is_some_and(|it| it.len() <= 128));
    }
}
