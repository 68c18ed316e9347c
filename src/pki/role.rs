//! What the holder of a certificate is: the URI in its subject alternative names.
//!
//! One certificate, one role. The URI of a link names the link and the direction, so that a certificate for one link opens no
//! other, and not even the same one the other way. It ends in a nonce: with a new one, the certificates before it open nothing
//! any more, however long they last.

use std::fmt;

const SCHEME: &str = "mqlink://";

/// What the holder of a certificate is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Manages clusters: may push settings to nodes and read their status.
    Operator,
    /// Is a node of a cluster.
    Node {
        /// Namespace of the cluster.
        namespace: String,
        /// Name of the cluster's object.
        cluster: String,
        /// Name of the node; for what all nodes of a cluster share, `*`.
        node: String,
    },
    /// Dials along a link.
    Link {
        /// Namespace of the link.
        namespace: String,
        /// Name of the link's object.
        link: String,
        /// Name of the cluster that dials.
        from: String,
        /// Name of the cluster that is dialled.
        to: String,
        /// A word of this credential's own.
        nonce: String,
    },
}

impl Role {
    /// The role that a URI states, if it is one of ours.
    pub fn parse(uri: &str) -> Option<Role> {
        let parts: Vec<&str> = uri.strip_prefix(SCHEME)?.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        let own = |part: &str| part.to_owned();
        match parts[..] {
            ["operator"] => Some(Role::Operator),
            ["node", namespace, cluster, node] => {
                Some(Role::Node { namespace: own(namespace), cluster: own(cluster), node: own(node) })
            }
            ["link", namespace, link, from, to, nonce] => Some(Role::Link {
                namespace: own(namespace),
                link: own(link),
                from: own(from),
                to: own(to),
                nonce: own(nonce),
            }),
            _ => None,
        }
    }
}

/// The URI, as it stands in a certificate.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Operator => write!(f, "{SCHEME}operator"),
            Role::Node { namespace, cluster, node } => write!(f, "{SCHEME}node/{namespace}/{cluster}/{node}"),
            Role::Link { namespace, link, from, to, nonce } => {
                write!(f, "{SCHEME}link/{namespace}/{link}/{from}/{to}/{nonce}")
            }
        }
    }
}
