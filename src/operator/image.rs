//! The image of clusters that name none: the one that the operator itself runs, so that both have the same version.
//!
//! Read off the operator's own pod, because a tool that sets images (kustomize, Helm, an admission webhook) sets them there,
//! and knows of no argument that had to follow.

use futures::TryFutureExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

use super::OperatorError;
use super::run::until_answered;

/// The container of the operator in its pod; others may have been put beside it.
const CONTAINER: &str = "operator";

/// The image that a pod of the operator runs. Waits for an API server that answers.
///
/// # Errors
/// When the pod cannot be read.
pub async fn own_image(client: &Client, namespace: &str, pod: &str) -> Result<String, OperatorError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let failed = |error| OperatorError::Api("read the image of the operator's pod", Box::new(error));
    let pod = until_answered(|| api.get(pod).map_err(failed)).await?;
    let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
    let own = containers.iter().find(|container| container.name == CONTAINER).or(containers.first());
    Ok(own.and_then(|container| container.image.clone()).unwrap_or_default())
}
