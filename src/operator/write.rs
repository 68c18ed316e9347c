//! Performs one write.

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::build::{Object, ObjectId, matches};
use super::ledger::Part;
use super::watch::api;
use crate::plan::Key;

/// The one field manager of all that the operator writes.
const MANAGER: &str = "mqlink-operator";

/// Something to write.
#[derive(Clone, Debug)]
pub(super) enum Write {
    /// An object. One that is new to us must not be somebody else's.
    Apply { object: Object, is_new: bool },
    /// The status of an object.
    Status { id: ObjectId, body: Value },
    /// An object that should not be there, if it is still the one that was seen.
    Delete { id: ObjectId, uid: String },
}

/// How a write ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: ObjectId,
    pub(super) part: Part,
    /// The cluster whose object it is.
    pub(super) cluster: Option<Key>,
    pub(super) done: Result<(), WriteError>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The API server refuses, or is not there.
    #[error("failed to {0} {1}: {2}")]
    Api(&'static str, ObjectId, #[source] Box<kube::Error>),
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
        let (part, cluster) = match &self {
            Write::Status { .. } => (Part::Status, None),
            Write::Apply { object, .. } => (Part::Object, object.cluster.clone()),
            Write::Delete { .. } => (Part::Object, None),
        };
        Ended { id: self.id().clone(), part, cluster, done: self.write(client).await }
    }

    async fn write(self, client: Client) -> Result<(), WriteError> {
        let id = self.id().clone();
        let api = api(&client, id.kind, Some(&id.namespace));
        let (verb, done) = match self {
            Write::Apply { object, is_new } => {
                if is_new {
                    check_free(&api, &object).await?;
                }
                ("apply", apply(&api, &id.name, &object.body).await)
            }
            Write::Status { body, .. } => ("write the status of", publish(&api, &id.name, &body).await),
            Write::Delete { uid, .. } => ("delete", delete(&api, &id.name, uid).await),
        };
        done.map_err(|error| WriteError::Api(verb, id, Box::new(error)))
    }
}

async fn apply(api: &Api<DynamicObject>, name: &str, body: &Value) -> kube::Result<()> {
    let applied = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await;
    match &applied {
        Ok(object) if is_as_wanted(body, object) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_invalid() => mend(api, name, body).await,
        Err(_) => applied.map(drop),
        Ok(_) => mend(api, name, body).await,
    }
}

fn is_as_wanted(body: &Value, object: &DynamicObject) -> bool {
    serde_json::to_value(object).is_ok_and(|object| matches(body, &object))
}

/// Replaces lists as a whole: what others put into a list, server-side apply leaves to them.
async fn mend(api: &Api<DynamicObject>, name: &str, body: &Value) -> kube::Result<()> {
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(name, &parameters, &Patch::Merge(json!({"spec": body["spec"]}))).await.map(drop)
}

async fn publish(api: &Api<DynamicObject>, name: &str, body: &Value) -> kube::Result<()> {
    let done = api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await;
    gone_is_fine(done.map(drop))
}

async fn delete(api: &Api<DynamicObject>, name: &str, uid: String) -> kube::Result<()> {
    let only_this = Preconditions { uid: Some(uid), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(only_this), ..DeleteParams::background() };
    gone_is_fine(api.delete(name, &parameters).await.map(drop))
}

fn gone_is_fine(done: kube::Result<()>) -> kube::Result<()> {
    match done {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        done => done,
    }
}

/// Server-side apply would take an object over without a word.
async fn check_free(api: &Api<DynamicObject>, object: &Object) -> Result<(), WriteError> {
    let failed = |error| WriteError::Api("look for", object.id.clone(), Box::new(error));
    let Some(there) = api.get_metadata_opt(&object.id.name).await.map_err(failed)? else { return Ok(()) };
    let controller = there.owner_references().iter().find(|owner| owner.controller == Some(true));
    let own = &object.body["metadata"]["ownerReferences"][0]["uid"];
    match controller {
        Some(owner) if *own == owner.uid => Ok(()),
        Some(owner) => Err(WriteError::Taken(object.id.clone(), format!("{} {}", owner.kind, owner.name))),
        None => Err(WriteError::Taken(object.id.clone(), "nobody we know".to_owned())),
    }
}
