//! The Lease that one operator holds at a time: acquired, renewed, given back.
//!
//! A holder that has not renewed it for as long as it promised is taken to be dead. Clocks of machines are never compared:
//! whoever waits counts, on its own clock, from when it *saw* the Lease change; the holder counts from *before* it sent the
//! renewal that succeeded last, and stops a third of the life earlier. So there is a pause between two holders, never an overlap,
//! as long as both clocks run about equally fast.
//!
//! What holds:
//! - Every write names the resourceVersion that was read: of two that take the Lease at the same moment one fails.
//! - A [`Fence`] opens and closes with the Lease, and is asked before each write: a process that was stopped and goes on
//!   finds it closed, whatever it was about to do.
//! - Whoever waits counts on though the Lease is deleted, and its holder makes it anew at its next renewal. Only an operator
//!   that has never seen it takes it at once: then the holder finds at its next renewal that it is none.
//! - Each request is bounded in time; losing the Lease ends nothing but the work, and acquiring it is tried again for ever.
//! - What others wrote into the Lease is believed only within bounds.
//!
//! Does not know what the holder does with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};

use super::words::words;

/// The name of the Lease.
pub(super) const NAME: &str = "mqlink-operator";

/// The Lease that one operator holds at a time.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Where it is.
    pub namespace: String,
    /// Who we are, unlike all others that ever were.
    pub holder: String,
    /// How fast it goes.
    pub pace: Pace,
}

impl Lease {
    /// A Lease for the one who is called so. Names of pods come back, and so do process ids in them: chance tells two apart.
    pub fn new(namespace: String, name: &str) -> Lease {
        let mut bytes = [0; 8];
        super::run::random(&mut bytes);
        let holder = format!("{name}-{:016x}", u64::from_le_bytes(bytes));
        Lease { namespace, holder, pace: Pace::default() }
    }
}

/// How fast a Lease changes hands.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For so long nobody operates when an operator dies. The holder stops a third earlier.
    pub life: Duration,
    /// How often it is renewed, and asked for.
    pub beat: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { life: Duration::from_secs(15), beat: Duration::from_secs(3) }
    }
}

impl Pace {
    /// How long the holder may work after a renewal: what is left of its life is for writes that are under way.
    fn term(self) -> Duration {
        self.life * 2 / 3
    }

    /// No request may take longer: several have to fit into a term.
    fn patience(self) -> Duration {
        self.life / 5
    }
}

/// Tries to give the Lease back.
const RELEASE_ATTEMPTS: u32 = 2;
/// The longest time for that: without it the Lease ends by itself.
const RELEASE_MAX: Duration = Duration::from_secs(4);
/// The life of a Lease that another program wrote is believed up to this.
const FOREIGN_LIFE_MAX: Duration = Duration::from_secs(60);

/// Whether we may write at this moment. Closed until the Lease is held.
#[derive(Clone, Debug)]
pub(super) struct Fence(Arc<Mutex<Option<Until>>>);

#[derive(Clone, Copy, Debug)]
enum Until {
    Moment(Instant),
    Forever,
}

impl Fence {
    /// For an operator without a Lease.
    pub(super) fn open() -> Fence {
        Fence(Arc::new(Mutex::new(Some(Until::Forever))))
    }

    pub(super) fn closed() -> Fence {
        Fence(Arc::default())
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Until::Moment(end)) => now < end,
            Some(Until::Forever) => true,
            None => false,
        }
    }

    /// Opens it for a while.
    #[cfg(test)]
    pub(super) fn open_until(&self, end: Instant) {
        self.set(Some(Until::Moment(end)));
    }

    fn set(&self, until: Option<Until>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// A Lease as it was seen, and since when it has not changed.
#[derive(Clone, Debug, PartialEq)]
struct Sight {
    holder: Option<String>,
    version: Option<String>,
    life: Duration,
    acquired: Option<MicroTime>,
    transitions: i32,
    since: Instant,
}

impl Sight {
    fn of(object: &Object, now: Instant) -> Sight {
        let spec = object.spec.clone().unwrap_or_default();
        let life_s = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or_default();
        Sight {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            version: object.metadata.resource_version.clone(),
            life: Duration::from_secs(life_s).min(FOREIGN_LIFE_MAX),
            acquired: spec.acquire_time,
            transitions: spec.lease_transitions.unwrap_or_default(),
            since: now,
        }
    }

    /// What is found, or the sight before where nothing has changed since. Who deletes a Lease does not end its holder.
    fn found(object: Option<&Object>, before: Option<&Sight>, now: Instant) -> Sight {
        match (object.map(|object| Sight::of(object, now)), before) {
            (Some(found), Some(before)) if before.version == found.version => before.clone(),
            (Some(found), _) => found,
            (None, Some(before)) => Sight { version: None, ..before.clone() },
            (None, None) => Sight::of(&Object::default(), now),
        }
    }

    fn is_free(&self, own: &str, now: Instant) -> bool {
        match &self.holder {
            None => true,
            Some(holder) => holder == own || now >= self.since + self.life,
        }
    }
}

/// Why the Lease is not ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaseError {
    #[error("failed to {0} the Lease: {words}", words = words(.1))]
    Api(&'static str, #[source] Box<kube::Error>),
    #[error("failed to {0} the Lease: no answer in {1:?}")]
    TimedOut(&'static str, Duration),
    #[error("{0} holds the Lease")]
    Held(String),
}

/// Keeps one Lease for one holder.
pub(super) struct Keeper {
    api: Api<Object>,
    own: Lease,
    fence: Fence,
    seen: Option<Sight>,
}

impl Keeper {
    pub(super) fn new(client: &Client, own: Lease) -> Keeper {
        let api = Api::namespaced(client.clone(), &own.namespace);
        Keeper { api, own, fence: Fence::closed(), seen: None }
    }

    pub(super) fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Returns when the Lease is ours; tells after each attempt that failed whether somebody else holds it.
    pub(super) async fn acquire(&mut self, is_held: impl Fn(bool)) {
        let mut told = String::new();
        loop {
            match self.take().await {
                Ok(()) => return,
                Err(error) => {
                    let by_another = matches!(error, LeaseError::Held(_));
                    is_held(by_another);
                    let (namespace, text) = (&self.own.namespace, error.to_string());
                    match by_another {
                        _ if text == told => {}
                        true => tracing::info!(namespace, "{text}; waiting"),
                        false => tracing::warn!(namespace, "{text}; nothing is operated before that"),
                    }
                    told = text;
                }
            }
            sleep(self.own.pace.beat).await;
        }
    }

    /// Renews the Lease for as long as that is possible, and returns why it is not ours any more. The fence is closed then.
    pub(super) async fn keep(&mut self) -> LeaseError {
        loop {
            sleep(self.own.pace.beat).await;
            match self.take().await {
                Ok(()) => {}
                Err(error) if matches!(error, LeaseError::Held(_)) || !self.fence.is_open(Instant::now()) => {
                    self.fence.set(None);
                    return error;
                }
                Err(error) => tracing::warn!(%error, "it is tried again"),
            }
        }
    }

    /// Gives the Lease back, if it is ours: the next operator need not wait for its end.
    pub(super) async fn release(mut self) {
        self.fence.set(None);
        // A renewal that was cut short may land after we looked: then we look once more.
        let attempts = async {
            for _ in 0..RELEASE_ATTEMPTS {
                match self.give_back().await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "unless it is given back it ends by itself"),
                }
            }
        };
        drop(timeout(RELEASE_MAX, attempts).await);
    }

    async fn give_back(&mut self) -> Result<(), LeaseError> {
        let seen = match self.seen.take() {
            Some(seen) if self.is_ours(&seen) => seen,
            _ => self.look().await?,
        };
        match self.is_ours(&seen) {
            true => self.replace("give back", &self.object(&seen, None)).await.map(drop),
            false => Ok(()),
        }
    }

    fn is_ours(&self, seen: &Sight) -> bool {
        seen.holder.as_ref() == Some(&self.own.holder)
    }

    /// Takes or renews the Lease where that is allowed; the fence is open for a term from before that.
    async fn take(&mut self) -> Result<(), LeaseError> {
        let begun = Instant::now();
        // Our own last write is as good as a read, until it fails.
        let own = &self.own.holder;
        if let Some(ours) = self.seen.take_if(|seen| seen.holder.as_ref() == Some(own)) {
            match self.hold(&ours, begun).await {
                Err(LeaseError::Api(_, error)) if is_changed(&error) => {}
                done => return done,
            }
        }
        let found = self.look().await?;
        let seen = self.seen.insert(found).clone();
        if !seen.is_free(&self.own.holder, Instant::now()) {
            return Err(LeaseError::Held(seen.holder.unwrap_or_default()));
        }
        self.hold(&seen, begun).await
    }

    /// Writes that it is ours, where it is still as it was seen.
    async fn hold(&mut self, seen: &Sight, begun: Instant) -> Result<(), LeaseError> {
        let taken = self.object(seen, Some(&self.own.holder));
        let stored = self.replace("renew", &taken).await?;
        self.seen = Some(Sight::of(&stored, begun));
        self.fence.set(Some(Until::Moment(begun + self.own.pace.term())));
        Ok(())
    }

    /// The Lease as it is now; one that nobody holds where there is none.
    async fn look(&self) -> Result<Sight, LeaseError> {
        let found = self.bounded("read", self.api.get_opt(NAME)).await?;
        Ok(Sight::found(found.as_ref(), self.seen.as_ref(), Instant::now()))
    }

    fn object(&self, seen: &Sight, holder: Option<&String>) -> Object {
        let now = Timestamp::now();
        let changes_hands = holder.is_some() && seen.holder.as_ref() != holder;
        let life = if holder.is_some() { self.own.pace.life } else { Duration::from_secs(1) };
        Object {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                resource_version: seen.version.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: holder.cloned(),
                lease_duration_seconds: i32::try_from(life.as_secs().max(1)).ok(),
                lease_transitions: Some(seen.transitions.saturating_add(changes_hands.into())),
                // For people who read it; nobody counts on these.
                renew_time: Some(MicroTime(now)),
                acquire_time: if changes_hands { Some(MicroTime(now)) } else { seen.acquired.clone() },
                ..LeaseSpec::default()
            }),
        }
    }

    /// Writes the Lease where it is still as it was seen.
    async fn replace(&self, verb: &'static str, object: &Object) -> Result<Object, LeaseError> {
        let parameters = PostParams::default();
        match object.metadata.resource_version {
            Some(_) => self.bounded(verb, self.api.replace(NAME, &parameters, object)).await,
            None => self.bounded(verb, self.api.create(&parameters, object)).await,
        }
    }

    async fn bounded<T>(
        &self,
        verb: &'static str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, LeaseError> {
        let patience = self.own.pace.patience();
        let answer = timeout(patience, request).await.map_err(|_| LeaseError::TimedOut(verb, patience))?;
        answer.map_err(|error| LeaseError::Api(verb, Box::new(error)))
    }
}

/// Whether somebody wrote or deleted it meanwhile.
fn is_changed(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_not_found())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(15);

    fn sight(holder: Option<&str>, version: &str, since: Instant) -> Sight {
        let (holder, version) = (holder.map(str::to_owned), Some(version.to_owned()));
        Sight { holder, version, life: LIFE, acquired: None, transitions: 0, since }
    }

    fn lease(holder: &str, version: &str) -> Object {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(LIFE.as_secs()).ok(),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
        Object { metadata, spec: Some(spec) }
    }

    #[test]
    fn a_lease_is_free_when_its_holder_is_silent_for_its_life() {
        let start = Instant::now();
        let first = sight(Some("other"), "1", start);
        let again = |after_s: u64| {
            let now = start + Duration::from_secs(after_s);
            (Sight::found(Some(&lease("other", "1")), Some(&first), now), now)
        };
        let check = |after_s, expected: bool| {
            let (seen, now) = again(after_s);
            assert_eq!(seen.is_free("own", now), expected, "{after_s} s");
        };
        check(0, false);
        check(14, false);
        check(15, true);
    }

    #[test]
    fn a_renewal_begins_the_count_anew() {
        let start = Instant::now();
        let first = sight(Some("other"), "1", start);
        let later = start + Duration::from_secs(14);
        let renewed = Sight::found(Some(&lease("other", "2")), Some(&first), later);
        assert!(!renewed.is_free("own", later + Duration::from_secs(14)));
        assert!(renewed.is_free("own", later + LIFE));
    }

    #[test]
    fn a_lease_that_was_deleted_is_free_when_it_would_have_ended() {
        let start = Instant::now();
        let mut seen = sight(Some("other"), "1", start);
        for after_s in [0, 5, 14] {
            let now = start + Duration::from_secs(after_s);
            seen = Sight::found(None, Some(&seen), now);
            assert!(!seen.is_free("own", now), "{after_s} s");
        }
        assert!(seen.is_free("own", start + LIFE) && seen.version.is_none());
        assert!(Sight::found(None, None, start).is_free("own", start), "there never was one");
    }

    #[test]
    fn a_lease_that_was_given_back_or_is_ours_is_free_at_once() {
        let now = Instant::now();
        assert!(sight(None, "1", now).is_free("own", now));
        assert!(sight(Some("own"), "1", now).is_free("own", now));
        assert!(!sight(Some("other"), "1", now).is_free("own", now));
    }

    #[test]
    fn nonsense_in_a_lease_is_bounded() {
        let object = |life: i32| {
            let spec = LeaseSpec {
                holder_identity: Some("other".to_owned()),
                lease_duration_seconds: Some(life),
                ..LeaseSpec::default()
            };
            Object { spec: Some(spec), ..Object::default() }
        };
        let now = Instant::now();
        assert!(Sight::of(&object(i32::MAX), now).is_free("own", now + FOREIGN_LIFE_MAX));
        assert!(Sight::of(&object(-1), now).is_free("own", now));
        assert!(Sight::of(&Object::default(), now).is_free("own", now));
    }

    #[test]
    fn the_holder_stops_before_the_others_begin() {
        let pace = Pace::default();
        assert!(pace.term() + pace.patience() < pace.life);
        assert!((pace.beat + pace.patience()) < pace.term(), "a renewal may fail and be tried again");
    }

    #[test]
    fn a_fence_closes_by_itself() {
        let fence = Fence::closed();
        let now = Instant::now();
        assert!(!fence.is_open(now));
        fence.set(Some(Until::Moment(now + LIFE)));
        assert!(fence.is_open(now) && !fence.is_open(now + LIFE));
        assert!(Fence::open().is_open(now + LIFE));
    }
}
