//! A status that changes: what it tells to people, and whether it is worth writing yet.
//!
//! An edit reaches nodes in a moment. A status that says only that they are taking it over would be old before it is read, and
//! the true one would have to wait for its turn after it: so it is held back, and written when it stays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::build::{Kind, ObjectId};
use super::events::News;
use crate::api::conditions::{self, READY};
use crate::plan::Key;

/// How long a status is held back that says that nodes take something over: they need less.
const DIP: Duration = Duration::from_millis(500);

/// A status that changes.
pub(super) struct Turn<'a, K> {
    pub(super) object: &'a K,
    pub(super) before: Option<&'a [Condition]>,
    pub(super) after: Option<&'a [Condition]>,
}

impl<K: kube::Resource<DynamicType = ()>> Turn<'_, K> {
    fn was_ready(&self) -> bool {
        conditions::find(self.before, READY).is_some_and(|ready| ready.status == "True")
    }

    /// Whether nodes that did what they should are taking something over.
    fn is_dip(&self) -> bool {
        self.was_ready()
            && conditions::find(self.after, READY).is_some_and(|ready| ready.reason == "PodsPending")
    }

    /// What the history of the object needs to know: that it became ready, why it is not, that nobody knows any more.
    pub(super) fn news(&self) -> Option<News> {
        let (before, ready) = (conditions::find(self.before, READY), conditions::find(self.after, READY)?);
        if before.is_some_and(|before| (&before.status, &before.reason) == (&ready.status, &ready.reason)) {
            return None;
        }
        let news = News::good(self.object, &ready.reason, "Report", &ready.message);
        match &*ready.status {
            "True" => Some(news),
            "False" if ready.reason == "Disabled" => Some(news),
            // What is being made is not ready yet.
            "False" if ready.reason == "PodsPending" && !self.was_ready() => None,
            "False" => Some(news.warning()),
            _ => self.was_ready().then(|| news.warning()),
        }
    }
}

/// Statuses that say that nodes take something over, which is over before anybody can read it: until when each is held back,
/// and when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Dips(BTreeMap<ObjectId, (Instant, Instant)>);

impl Dips {
    /// Whether a status is held back for now.
    pub(super) fn hold<K: kube::Resource<DynamicType = ()>>(
        &mut self,
        kind: Kind,
        turn: &Turn<'_, K>,
        now: Instant,
    ) -> bool {
        if !turn.is_dip() {
            return false;
        }
        let Key { namespace, name } = Key::of(turn.object);
        let (until, seen) = self.0.entry(ObjectId { kind, namespace, name }).or_insert((now + DIP, now));
        *seen = now;
        now < *until
    }

    /// When one is held back no longer.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|(until, _)| *until).filter(|until| *until > now).min()
    }

    /// Forgets those that were not looked at now.
    pub(super) fn forget_others(&mut self, now: Instant) {
        self.0.retain(|_, (_, seen)| *seen == now);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::MqttCluster;

    fn ready(status: &str, reason: &str) -> Vec<Condition> {
        let condition = json!({"type": READY, "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        vec![serde_json::from_value(condition).expect("a condition")]
    }

    fn is_held(dips: &mut Dips, before: &[Condition], after: &[Condition], now: Instant) -> bool {
        let object = MqttCluster::new("a", Default::default());
        dips.hold(Kind::MqttCluster, &Turn { object: &object, before: Some(before), after: Some(after) }, now)
    }

    #[test]
    fn that_nodes_take_something_over_is_said_when_it_lasts() {
        let (mut dips, now) = (Dips::default(), Instant::now());
        let (good, pending) = (ready("True", "Ready"), ready("False", "PodsPending"));
        assert!(is_held(&mut dips, &good, &pending, now));
        assert_eq!(dips.next(now), Some(now + DIP));
        assert!(is_held(&mut dips, &good, &pending, now + DIP / 2));
        assert!(!is_held(&mut dips, &good, &pending, now + DIP));
        assert_eq!(dips.next(now + DIP), None);
    }

    #[test]
    fn one_that_is_over_counts_anew() {
        let (mut dips, now) = (Dips::default(), Instant::now());
        let (good, pending) = (ready("True", "Ready"), ready("False", "PodsPending"));
        assert!(is_held(&mut dips, &good, &pending, now));
        dips.forget_others(now + DIP);
        assert!(is_held(&mut dips, &good, &pending, now + DIP));
    }

    #[test]
    fn whatever_else_changes_is_said_at_once() {
        let (mut dips, now) = (Dips::default(), Instant::now());
        let (good, pending) = (ready("True", "Ready"), ready("False", "PodsPending"));
        for (before, after) in [
            (&good, &ready("False", "PeerUnreachable")),
            (&good, &ready("Unknown", "NoReport")),
            (&pending, &good),
            (&pending, &pending),
        ] {
            assert!(!is_held(&mut dips, before, after, now), "{after:?}");
        }
    }
}
