//! Who may connect to a cluster, and what they may do there.

#![allow(unreachable_pub, reason = "the derive makes a private copy of each struct, `pub` included")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refs::SecretRef;
use super::schema;

/// Who may connect.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// Whether clients without a user name may connect; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
    /// Secret whose key `users` has a line `name:secret` for each user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_secret_ref: Option<SecretRef>,
    /// Whose tokens are accepted as passwords; absent: nobody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
}

/// Tokens as passwords: JSON Web Tokens that one of these keys signed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// Secret whose key `jwks.json` is a JWKS document: the public keys of the issuer, or shared secrets.
    pub jwks_secret_ref: SecretRef,
    /// The claim that names the user; default sub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim")]
    pub username_claim: Option<String>,
    /// What the claim iss must say; absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim")]
    pub issuer: Option<String>,
    /// What the claim aud must name; absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim")]
    pub audience: Option<String>,
    /// The claim that says what a bearer may do, as EMQX has it, such as acl; absent: tokens do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim")]
    pub acl_claim: Option<String>,
}

/// What clients may do; the first rule that matches decides.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// What happens when no rule matches; default Deny.
    #[serde(rename = "default", skip_serializing_if = "Option::is_none")]
    pub default_effect: Option<Effect>,
    /// Rules, tried in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub rules: Option<Vec<AccessRule>>,
}

/// One authorization rule.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessRule {
    /// Whom the rule is for; absent or empty: everyone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principals: Option<Principals>,
    /// What they do.
    pub action: Action,
    /// On which topics; `${username}` and `${clientid}` stand for the client's own.
    #[schemars(schema_with = "schema::rule_filters")]
    pub filters: Vec<String>,
    /// Whether they may.
    pub effect: Effect,
}

/// Clients, by what is known of them. A list that is given must contain the client.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Principals {
    /// User names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::principals")]
    pub users: Option<Vec<String>>,
    /// Client identifiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::principals")]
    pub client_ids: Option<Vec<String>>,
    /// Names in the client's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::principals")]
    pub certificate_names: Option<Vec<String>>,
    /// Networks the client connects from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::cidrs")]
    pub cidrs: Option<Vec<String>>,
}

/// What a client does.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It publishes.
    Publish,
    /// It subscribes.
    Subscribe,
    /// Either.
    #[default]
    All,
}

/// Whether something is allowed; what no rule matches is denied by default.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// It is.
    Allow,
    /// It is not.
    #[default]
    Deny,
}
