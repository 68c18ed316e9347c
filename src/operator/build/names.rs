//! What children are called. `us-east` has the StatefulSet `us-east` with the pod `us-east-0`, the Services `us-east-nodes`,
//! `us-east-link` and `us-east-LISTENER`, the ServiceAccount `mqlink-us-east`, and the Secrets `mqlink-us-east-settings`,
//! `-users`, `-links`,
//! `-admin` and `-minted`.
//!
//! Secrets have a prefix because people make Secrets beside them, and a last word of their own per use: with a fixed word
//! before and behind, two names are only the same when the objects' names are.

/// The account of the nodes: `default` is a good name for a cluster, and every namespace has an account of that name.
pub(super) fn service_account(cluster: &str) -> String {
    format!("mqlink-{cluster}")
}

/// The headless Service; a listener cannot be called so.
pub(in crate::operator) fn nodes_service(cluster: &str) -> String {
    format!("{cluster}-nodes")
}

/// The Service of the link listener; a client listener cannot be called so.
pub(in crate::operator) fn link_service(cluster: &str) -> String {
    format!("{cluster}-link")
}

/// The Service of a client listener.
pub(in crate::operator) fn listener_service(cluster: &str, listener: &str) -> String {
    format!("{cluster}-{listener}")
}

/// The Secrets with the settings document: one for each of its pieces.
pub(in crate::operator) fn settings_secrets(cluster: &str) -> [String; 3] {
    ["settings", "users", "links"].map(|piece| format!("mqlink-{cluster}-{piece}"))
}

/// The Secret with the certificate of the admin port.
pub(super) fn admin_secret(cluster: &str) -> String {
    format!("mqlink-{cluster}-admin")
}

/// The Secret with what was minted for a cluster.
pub(in crate::operator) fn minted_secret(cluster: &str) -> String {
    format!("mqlink-{cluster}-minted")
}

/// The Secret with what was minted for a link.
pub(in crate::operator) fn link_secret(link: &str) -> String {
    format!("mqlink-{link}-link")
}

/// The name of a node, which is its pod's.
pub(in crate::operator) fn node_name(cluster: &str, index: i32) -> String {
    format!("{cluster}-{index}")
}
