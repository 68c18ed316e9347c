//! Performs one write.

use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::Status;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::build::{Object, ObjectId, Owner, matches_in, merging};
use super::events::News;
use super::ledger::Part;
use super::watch::api;
use super::words::words;

/// The one field manager of all that the operator writes.
pub(super) const MANAGER: &str = "mqlink-operator";

/// The longest wait for one write.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something to write.
#[derive(Clone, Debug)]
pub(super) enum Write {
    /// An object. One that is new to us must not be somebody else's.
    Apply { object: Object, before: Before, news: Option<News> },
    /// The status of an object.
    Status { id: ObjectId, body: Value, news: Option<News> },
    /// An object that should not be there, if it is still the one that was seen.
    Delete { id: ObjectId, uid: String },
}

/// What is known of an object before it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nobody has seen it.
    New,
    /// It was there, and is seen no longer: deleted, or without its label.
    Lost,
    /// It was seen in this version.
    Seen(String),
}

/// How a write ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: ObjectId,
    pub(super) part: Part,
    /// Whose object it is.
    pub(super) owner: Option<Owner>,
    /// What to tell, where something was changed.
    pub(super) news: Option<News>,
    /// The object as the server has it now, if it answered with one.
    pub(super) done: Result<Option<DynamicObject>, WriteError>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The API server refuses, or is not there.
    #[error("failed to {0} {1}: {words}", words = words(.2))]
    Api(&'static str, ObjectId, #[source] Box<kube::Error>),
    /// The API server does not answer.
    #[error("failed to {0} {1}: no answer in {2:?}")]
    TimedOut(&'static str, ObjectId, Duration),
    /// The API server has looked at it, and refuses it for what it is.
    #[error("the API server refuses {0}: {1}")]
    Refused(ObjectId, String),
    /// It was deleted, and must not be made again as it was.
    #[error("{0} was deleted")]
    Gone(ObjectId),
    /// Its namespace goes, or is gone.
    #[error("nothing is written to {0}: its namespace is being deleted")]
    Leaving(ObjectId),
    /// The name is taken by an object of somebody else.
    #[error("failed to create {0}: there is one already, which belongs to {1}; rename or delete one of them")]
    Taken(ObjectId, String),
}

impl Write {
    pub(super) fn id(&self) -> &ObjectId {
        match self {
            Write::Apply { object, .. } => &object.id,
            Write::Status { id, .. } | Write::Delete { id, .. } => id,
        }
    }

    /// Performs it.
    pub(super) async fn perform(self, client: Client) -> Ended {
        let (part, owner, before, news) = match &self {
            Write::Status { news, .. } => (Part::Status, None, None, news.clone()),
            Write::Apply { object, before, news } => {
                (Part::Object, Some(object.owner.clone()), Some(before.clone()), news.clone())
            }
            Write::Delete { .. } => (Part::Object, None, None, None),
        };
        let id = self.id().clone();
        let done = match timeout(PATIENCE, self.write(client)).await {
            Ok(done) => done,
            Err(_) => Err(WriteError::TimedOut("write", id.clone(), PATIENCE)),
        };
        let is_change = |stored: &DynamicObject| match (&before, &stored.metadata.resource_version) {
            (Some(Before::Seen(before)), Some(stored)) => before != stored,
            _ => true,
        };
        let news = news.filter(|_| matches!(&done, Ok(Some(stored)) if is_change(stored)));
        Ended { id, part, owner, news, done }
    }

    async fn write(self, client: Client) -> Result<Option<DynamicObject>, WriteError> {
        let id = self.id().clone();
        let api = api(&client, id.kind, Some(&id.namespace));
        let (verb, done) = match self {
            Write::Apply { object, before, .. } => {
                let is_there = matches!(before, Before::Seen(_)) || is_there(&api, &object).await?;
                if before == Before::Lost && !is_there {
                    return Err(WriteError::Gone(id));
                }
                ("apply", apply(&api, &id.name, &object.body, before).await.map(Some))
            }
            Write::Status { body, .. } => ("write the status of", publish(&api, &id.name, &body).await),
            Write::Delete { uid, .. } => ("delete", delete(&api, &id.name, uid).await),
        };
        done.map_err(|error| WriteError::of(verb, id, error))
    }
}

impl WriteError {
    fn of(verb: &'static str, id: ObjectId, error: kube::Error) -> WriteError {
        match &error {
            kube::Error::Api(status) if is_of_namespace(status) => WriteError::Leaving(id),
            kube::Error::Api(status) if is_final(status) => WriteError::Refused(id, status.message.clone()),
            _ => WriteError::Api(verb, id, Box::new(error)),
        }
    }
}

/// Whether the answer is that there is no such namespace, or not for long.
fn is_of_namespace(status: &Status) -> bool {
    let Some(details) = &status.details else { return false };
    let is_going = details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating");
    let is_gone = status.is_not_found() && details.kind == "namespaces";
    is_going || is_gone
}

/// Whether the answer would be the same again: a field that is invalid, or cannot be read at all. What webhooks and policies
/// for admission say may change.
fn is_final(status: &Status) -> bool {
    let is_of_admission =
        status.message.starts_with("admission webhook") || status.message.contains("AdmissionPolicy");
    (status.is_invalid() || status.code == 400) && !is_of_admission
}

async fn apply(
    api: &Api<DynamicObject>,
    name: &str,
    body: &Value,
    before: Before,
) -> kube::Result<DynamicObject> {
    let applied = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await;
    // What others put into a list or a map, server-side apply leaves to them.
    let Some(field) = ["spec", "data"].into_iter().find(|field| body[*field].is_object()) else {
        return applied;
    };
    let found = match applied {
        Ok(object) if matches_in(field, &body[field], &object.data[field]) => return Ok(object),
        Ok(object) => object.data[field].clone(),
        // It may be a list with theirs in it. A Secret has none: somebody sealed it.
        Err(kube::Error::Api(status))
            if status.is_invalid() && field == "spec" && matches!(before, Before::Seen(_)) =>
        {
            api.get(name).await?.data[field].clone()
        }
        Err(error) => return Err(error),
    };
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let merged = merging(field, &body[field], &found);
    api.patch(name, &parameters, &Patch::Merge(json!({field: merged}))).await
}

async fn publish(api: &Api<DynamicObject>, name: &str, body: &Value) -> kube::Result<Option<DynamicObject>> {
    let done = api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await;
    gone_is_fine(done.map(Some))
}

async fn delete(api: &Api<DynamicObject>, name: &str, uid: String) -> kube::Result<Option<DynamicObject>> {
    let only_this = Preconditions { uid: Some(uid), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(only_this), ..DeleteParams::background() };
    // What is answered is the object as it was.
    gone_is_fine(api.delete(name, &parameters).await.map(|_| None))
}

fn gone_is_fine(done: kube::Result<Option<DynamicObject>>) -> kube::Result<Option<DynamicObject>> {
    match done {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        done => done,
    }
}

/// Whether there is an object, of ours. Server-side apply would take over one of others without a word.
async fn is_there(api: &Api<DynamicObject>, object: &Object) -> Result<bool, WriteError> {
    let failed = |error| WriteError::of("look for", object.id.clone(), error);
    let Some(there) = api.get_metadata_opt(&object.id.name).await.map_err(failed)? else { return Ok(false) };
    let controller = there.owner_references().iter().find(|owner| owner.controller == Some(true));
    let own = &object.body["metadata"]["ownerReferences"][0]["uid"];
    match controller {
        Some(owner) if *own == owner.uid => Ok(true),
        Some(owner) => Err(WriteError::Taken(object.id.clone(), format!("{} {}", owner.kind, owner.name))),
        None => Err(WriteError::Taken(object.id.clone(), "nobody that we know".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::build::Kind;

    fn refused(message: &str) -> WriteError {
        let id = ObjectId { kind: Kind::StatefulSet, namespace: "mqtt".to_owned(), name: "a".to_owned() };
        let status = Status::failure(message, "Invalid").with_code(422);
        WriteError::of("apply", id, kube::Error::Api(status.boxed()))
    }

    #[test]
    fn what_admission_says_may_change_and_what_a_field_is_may_not() {
        let is_final = |message: &str| matches!(refused(message), WriteError::Refused(..));
        assert!(is_final("StatefulSet.apps \"a\" is invalid: spec.template: Invalid value"));
        assert!(!is_final("admission webhook \"x\" denied the request: no"));
        assert!(!is_final(
            "statefulsets.apps \"a\" is forbidden: ValidatingAdmissionPolicy 'x' with binding 'y' denied request: no"
        ));
        let told = refused("admission webhook \"x\" denied the request: no").to_string();
        assert_eq!(
            told,
            "failed to apply StatefulSet mqtt/a: admission webhook \"x\" denied the request: no"
        );
    }
}
