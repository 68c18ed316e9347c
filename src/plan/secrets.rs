//! Looks Secrets up, and says what is missing in the words of the one who has to add it.

use super::world::{Key, World};
use crate::api::Finding;
use crate::api::refs::SecretRef;
use crate::pki::{check_authorities, inspect};

/// The Secrets of one namespace: an object may name no others.
#[derive(Clone, Copy)]
pub(super) struct Secrets<'a> {
    world: &'a World,
    namespace: &'a str,
}

/// One Secret, and the field that names it.
pub(super) struct Named<'a> {
    path: String,
    key: Key,
    secret: &'a super::Secret,
}

impl<'a> Secrets<'a> {
    pub(super) fn of(world: &'a World, namespace: &'a str) -> Secrets<'a> {
        Secrets { world, namespace }
    }

    /// The Secret that a field names.
    pub(super) fn get(&self, path: &str, reference: &SecretRef) -> Result<Named<'a>, Finding> {
        let key = Key::new(self.namespace, &reference.name);
        if let Some(secret) = self.world.secrets.get(&key) {
            return Ok(Named { path: path.to_owned(), key, secret });
        }
        let (reason, message) = match self.world.unreadable_secrets.get(&key) {
            Some(problem) => (
                "SecretUnreadable",
                format!("names Secret {key}, which cannot be read, and is tried again: {problem}"),
            ),
            None => (
                "SecretNotFound",
                format!("names Secret {key}, which does not exist; create it or correct the name"),
            ),
        };
        Err(Finding { path: path.to_owned(), reason, message })
    }
}

impl Named<'_> {
    /// A value that has to be there, as text.
    pub(super) fn text(&self, key: &str) -> Result<String, Finding> {
        let missing = || self.finding(format!("has no key `{key}`; add it"));
        self.optional(key)?.ok_or_else(missing)
    }

    /// A value that may be there, as text.
    pub(super) fn optional(&self, key: &str) -> Result<Option<String>, Finding> {
        let Some(bytes) = self.secret.data.get(key) else { return Ok(None) };
        let text = String::from_utf8(bytes.clone());
        text.map(Some).map_err(|_| self.finding(format!("has a key `{key}` that is not UTF-8 text")))
    }

    /// Authorities that have to be there, PEM.
    pub(super) fn authorities(&self) -> Result<String, Finding> {
        self.checked("ca.crt", check_authorities)
    }

    /// A text that has to be there, and of use.
    pub(super) fn checked<E: std::fmt::Display>(
        &self,
        key: &str,
        check: impl Fn(&str) -> Result<(), E>,
    ) -> Result<String, Finding> {
        let text = self.text(key)?;
        check(&text).map_err(|error| self.finding(format!("has a `{key}` that {error}")))?;
        Ok(text)
    }

    /// A certificate, with those that lead to its authority, and its private key, PEM: the keys of a Secret for TLS.
    pub(super) fn pair(&self) -> Result<(String, String), Finding> {
        let (certificate, key) =
            (self.checked("tls.crt", |pem| inspect(pem).map(drop))?, self.private_key("tls.key")?);
        let pair = self.secret.pair.check(&certificate, &key);
        pair.map_err(|error| self.finding(format!("has a `tls.key` beside its `tls.crt` that {error}")))?;
        Ok((certificate, key))
    }

    /// A private key that has to be there, PEM.
    fn private_key(&self, key: &str) -> Result<String, Finding> {
        let text = self.text(key)?;
        let is_begin =
            |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with("PRIVATE KEY-----");
        match text.lines().any(is_begin) {
            true => Ok(text),
            false => {
                Err(self
                    .finding(format!("has a `{key}` that holds no PEM block -----BEGIN PRIVATE KEY-----")))
            }
        }
    }

    /// A user name and password that have to be there.
    pub(super) fn password(&self) -> Result<crate::settings::Credentials, Finding> {
        // `kubectl create secret --from-file` keeps the line end of a file.
        let line = |key| Ok(self.text(key)?.trim_end_matches(['\r', '\n']).to_owned());
        Ok(crate::settings::Credentials { username: line("username")?, password: line("password")? })
    }

    /// Says what is wrong with this Secret.
    pub(super) fn finding(&self, problem: impl std::fmt::Display) -> Finding {
        Finding {
            path: self.path.clone(),
            reason: "SecretInvalid",
            message: format!("names Secret {}, which {problem}", self.key),
        }
    }
}
