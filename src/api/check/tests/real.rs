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
    Some(verdict.err().into_iter().map(words).collect())
}

/// An error as people see it: without the structure that repeats it.
fn words(error: String) -> String {
    let words = error.split(" (Status {").next().unwrap_or_default();
    words.trim_start_matches("ApiError: ").trim_end_matches(": Invalid").to_owned()
}

/// Whether the server names a field; what is wrong between items of a list is said of the list.
pub(super) fn names(said: &str, path: &str) -> bool {
    let (map, key) = path.rsplit_once('.').unwrap_or_default();
    let list = path.rsplit_once('[').map_or(path, |(list, _)| list);
    let names = |name: &str| said.contains(name);
    names(path) || names(&format!("{map}[{key}]")) || names(&format!("{list}: Invalid value: \"array\""))
}
