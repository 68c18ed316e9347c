//! What a real API server says of a manifest, where one is at hand. Without one this judge abstains.

use serde_json::{Value, json};

use crate::api::crd::Kind;
use crate::testing::{Server, send, url};

const DRY: &str = "dryRun=All&fieldValidation=Strict";

/// The server's complaints, or `None` where no server is at hand. A new object is offered for creation; a changed one
/// is offered in place of the old one, which is really there.
pub(super) fn complaints(kind: Kind, manifest: &Value, old: Option<&Value>) -> Option<Vec<String>> {
    let server = Server::shared()?;
    let verdict = server.block_on(async |client| {
        let namespace = server.namespace().await;
        let object = |manifest: &Value| {
            let mut manifest = manifest.clone();
            manifest["metadata"]["namespace"] = json!(namespace);
            manifest
        };
        let url = url(kind, &namespace);
        let Some(old) = old else {
            return send(&client, "POST", &format!("{url}?{DRY}"), &object(manifest)).await;
        };
        let kept = send(&client, "POST", &url, &object(old)).await;
        let kept = kept.unwrap_or_else(|error| panic!("the old object is refused: {error}\n{old}"));
        let mut next = object(manifest);
        next["metadata"]["resourceVersion"] = kept["metadata"]["resourceVersion"].clone();
        let name = old["metadata"]["name"].as_str().expect("it has a name");
        send(&client, "PUT", &format!("{url}/{name}?{DRY}"), &next).await
    });
    Some(verdict.err().into_iter().collect())
}
