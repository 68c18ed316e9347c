//! JSON Web Tokens as passwords: who signed them, for how long, for whom (RFC 7515, 7517, 7519).
//!
//! A key verifies the algorithms of its own kind only, and the one that it names if it names one, so a token cannot choose to
//! be checked in another way. A token without an end is none. What a token says is believed only after its signature.
//!
//! A token may say what its bearer may do, where the settings name a claim for that, in the two forms that EMQX knows. What is
//! not understood there could mean anything: such a token is none.

use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::core::Grants;
use crate::mqtt::Filter;
use crate::settings::{
    AccessRule, Action, Effect, Jwt, KeyKind, KeysError, Principals, RULES_MAX, TokenKey,
    has_known_placeholders, token_keys,
};

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How much the clocks of issuer and broker may differ.
const LEEWAY_S: u64 = 60;
/// The keys of one version of the settings.
pub(super) struct Tokens {
    keys: Vec<Key>,
    username_claim: String,
    issuer: Option<String>,
    audience: Option<String>,
    /// The claim that says what a bearer may do.
    acl_claim: Option<String>,
}

/// What a valid token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) username: String,
    /// When it ends, in seconds since 1970.
    pub(super) expires_s: u64,
    /// Tells the key that signed it from others.
    pub(super) key: u64,
    pub(super) grants: Option<Grants>,
}

/// One rule of an access list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    permission: Permission,
    action: Deed,
    topic: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Permission {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Deed {
    Publish,
    Subscribe,
    All,
}

/// The older form: lists of what is allowed, and nothing else is.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Lists {
    #[serde(rename = "pub")]
    publish: Vec<String>,
    #[serde(rename = "sub")]
    subscribe: Vec<String>,
    all: Vec<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<Value>,
}

impl Tokens {
    pub(super) fn new(settings: &Jwt) -> Result<Tokens, KeysError> {
        let keys = token_keys(&settings.jwks)?.into_iter().map(Key::from).collect();
        Ok(Tokens {
            keys,
            username_claim: settings.username_claim.clone(),
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            acl_claim: settings.acl_claim.clone(),
        })
    }

    /// True if one of its keys is this one.
    pub(super) fn has_key(&self, mark: u64) -> bool {
        self.keys.iter().any(|key| key.mark == mark)
    }

    /// What a token says, if it is valid at this time.
    pub(super) fn verify(&self, token: &[u8], now_s: u64) -> Option<Claims> {
        let [header, payload, signature] = parts(token)?;
        let message = &token[..header.len() + 1 + payload.len()];
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        let signature = decode(signature)?;
        let fits = |key: &&Key| header.kid.is_none() || key.own.id.is_none() || header.kid == key.own.id;
        let mut candidates = self.keys.iter().filter(fits).filter(|_| header.crit.is_none());
        let key = candidates.find(|key| key.verify(&header.alg, message, &signature))?;
        self.read_claims(&serde_json::from_slice(&decode(payload)?).ok()?, key.mark, now_s)
    }

    fn read_claims(&self, claims: &Value, key: u64, now_s: u64) -> Option<Claims> {
        let time_s = |name: &str| Some(claims.get(name)?.as_f64());
        let begins_s = time_s("nbf").unwrap_or(Some(0.0))?.max(0.0) as u64;
        let ends_s = (time_s("exp")??.max(0.0) as u64).saturating_add(LEEWAY_S);
        let is_now = begins_s.saturating_sub(LEEWAY_S) <= now_s && now_s < ends_s;
        let says = |name: &str, wanted: &Option<String>| match (wanted, claims.get(name)) {
            (None, _) => true,
            (Some(wanted), Some(Value::Array(all))) if name == "aud" => all.iter().any(|one| one == wanted),
            (Some(wanted), given) => given.is_some_and(|given| given == wanted),
        };
        let is_ours = says("iss", &self.issuer) && says("aud", &self.audience);
        let username = claims.get(&self.username_claim)?.as_str()?;
        let is_name = !username.is_empty() && username.len() <= u16::MAX.into() && !username.contains('\0');
        if !(is_now && is_ours && is_name) {
            return None;
        }
        let acl = self.acl_claim.as_ref().and_then(|name| claims.get(name));
        let grants = match acl.map(read_grants).transpose() {
            Ok(grants) => grants,
            Err(problem) => {
                tracing::debug!(username, problem, "a token is refused for its access list");
                return None;
            }
        };
        Some(Claims { username: username.to_owned(), expires_s: ends_s, key, grants })
    }
}

/// Reads an access list: rules in order, or lists of what is allowed.
fn read_grants(claim: &Value) -> Result<Grants, &'static str> {
    let (rules, is_final) = match claim {
        Value::Array(_) => {
            let entries = Vec::<Entry>::deserialize(claim)
                .map_err(|_| "a rule has more or less than permission, action and topic")?;
            (entries.into_iter().map(Entry::rule).collect::<Vec<_>>(), false)
        }
        Value::Object(_) => {
            let lists = Lists::deserialize(claim).map_err(|_| "it has other lists than pub, sub and all")?;
            let all =
                [(Deed::Publish, lists.publish), (Deed::Subscribe, lists.subscribe), (Deed::All, lists.all)];
            let lists = all.into_iter().filter(|(_, filters)| !filters.is_empty());
            (lists.map(|(deed, filters)| rule(Effect::Allow, deed, filters)).collect(), true)
        }
        _ => return Err("it is neither a list nor an object"),
    };
    let is_known = |filter: &String| {
        Filter::parse(filter).is_ok() && has_known_placeholders(filter) && !filter.starts_with("eq ")
    };
    if !rules.iter().flat_map(|rule| &rule.filters).all(is_known) {
        return Err("a topic is no filter, or has `eq ` or a placeholder that is not known here");
    }
    if rules.len() > RULES_MAX {
        return Err("it has more than 64 rules");
    }
    Ok(Grants { rules, is_final })
}

impl Entry {
    fn rule(self) -> AccessRule {
        let effect = match self.permission {
            Permission::Allow => Effect::Allow,
            Permission::Deny => Effect::Deny,
        };
        rule(effect, self.action, vec![self.topic])
    }
}

fn rule(effect: Effect, deed: Deed, filters: Vec<String>) -> AccessRule {
    let action = match deed {
        Deed::Publish => Action::Publish,
        Deed::Subscribe => Action::Subscribe,
        Deed::All => Action::All,
    };
    AccessRule { principals: Principals::default(), action, filters, effect }
}

/// True if a password has the form of a token.
pub(super) fn looks_like_token(password: &[u8]) -> bool {
    parts(password).is_some()
}

/// The three parts of a token, in base64.
fn parts(token: &[u8]) -> Option<[&[u8]; 3]> {
    let is_part = |part: &[u8]| {
        !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
    };
    let mut parts = token.split(|&byte| byte == b'.');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    let fits = token.len() <= TOKEN_BYTES_MAX && parts.next().is_none() && three.into_iter().all(is_part);
    fits.then_some(three)
}

fn decode(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

struct Key {
    /// Tells it from keys that are made of something else.
    mark: u64,
    own: TokenKey,
}

impl From<TokenKey> for Key {
    fn from(own: TokenKey) -> Key {
        Key { mark: mark(&own.kind), own }
    }
}

impl Key {
    fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        self.own.is_for(algorithm) && verify(&self.own.kind, algorithm, message, signature)
    }
}

fn mark(kind: &KeyKind) -> u64 {
    let mut hash = digest::Context::new(&digest::SHA256);
    let (number, parts): (u8, [&[u8]; 2]) = match kind {
        KeyKind::Rsa { n, e } => (0, [n, e]),
        KeyKind::P256(point) => (1, [point, &[]]),
        KeyKind::P384(point) => (2, [point, &[]]),
        KeyKind::Ed25519(key) => (3, [key, &[]]),
        KeyKind::Secret(secret) => (4, [secret, &[]]),
    };
    hash.update(&[number]);
    parts.iter().for_each(|part| hash.update(part));
    let hash = hash.finish();
    let (first, _) = hash.as_ref().split_first_chunk().expect("a hash of SHA-256 is longer than 8 bytes");
    u64::from_be_bytes(*first)
}

/// Verifies by an algorithm of this kind of key.
fn verify(kind: &KeyKind, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
    let with = |algorithm, key| UnparsedPublicKey::new(algorithm, key).verify(message, signature);
    let verified = match kind {
        KeyKind::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(rsa(algorithm), message, signature),
        KeyKind::P256(point) => with(&signature::ECDSA_P256_SHA256_FIXED, point),
        KeyKind::P384(point) => with(&signature::ECDSA_P384_SHA384_FIXED, point),
        KeyKind::Ed25519(key) => with(&signature::ED25519, key),
        KeyKind::Secret(secret) => hmac::verify(&hmac::Key::new(hash(algorithm), secret), message, signature),
    };
    verified.is_ok()
}

fn rsa(algorithm: &str) -> &'static RsaParameters {
    match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        _ => &signature::RSA_PSS_2048_8192_SHA512,
    }
}

fn hash(algorithm: &str) -> hmac::Algorithm {
    match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA512,
    }
}

#[cfg(test)]
pub(super) mod tests;
