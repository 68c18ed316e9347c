//! Secrets: the settings that nodes run on, and what was minted, so that it outlives the operator.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::object::{Kind, Object};
use super::{meta, names};
use crate::api::{ClusterLink, MqttCluster};
use crate::plan::{MintedCluster, MintedLink, invitation_name};
use crate::settings::{Pieces, Settings};

/// The key of what was minted.
pub(in crate::operator) const MINTED: &str = "minted.json";

/// One Secret for each piece; the key is the name of the file in the pods.
pub(super) fn build_settings(cluster: &MqttCluster, settings: &Settings) -> Vec<Object> {
    let names = names::settings_secrets(meta::name(cluster));
    let pieces = Pieces::of(settings).named();
    let build = |(name, (file, content)): (String, (&str, Vec<u8>))| {
        opaque(meta::of_cluster(cluster, name), BTreeMap::from([(file.to_owned(), ByteString(content))]))
    };
    names.into_iter().zip(pieces).map(build).collect()
}

pub(super) fn build_minted_cluster(cluster: &MqttCluster, minted: &MintedCluster) -> Object {
    secret(meta::of_cluster(cluster, names::minted_secret(meta::name(cluster))), MINTED, minted)
}

pub(super) fn build_minted_link(link: &ClusterLink, minted: &MintedLink) -> Object {
    secret(meta::of_link(link, names::link_secret(meta::name(link))), MINTED, minted)
}

/// What to copy to the other side of a link.
pub(super) fn build_invitation(link: &ClusterLink, invitation: &BTreeMap<String, String>) -> Object {
    let data = invitation.iter().map(|(key, value)| (key.clone(), ByteString(value.clone().into_bytes())));
    opaque(meta::of_link(link, invitation_name(meta::name(link))), data.collect())
}

/// What a node's admin port stands on: its certificate, and the authorities of who may knock. `None` before it was minted.
pub(super) fn build_admin(cluster: &MqttCluster, minted: &MintedCluster) -> Option<Object> {
    let leaf = minted.admin_server.as_ref()?;
    let files = [
        ("ca.crt", minted.authorities.bundle_pem()),
        ("tls.crt", leaf.certificate_pem.clone()),
        ("tls.key", leaf.key_pem.clone()),
    ];
    let data = files.map(|(name, pem)| (name.to_owned(), ByteString(pem.into_bytes())));
    Some(opaque(meta::of_cluster(cluster, names::admin_secret(meta::name(cluster))), data.into()))
}

fn secret(metadata: ObjectMeta, key: &str, content: &impl Serialize) -> Object {
    let content = serde_json::to_vec(content).expect("settings and credentials are plain data");
    opaque(metadata, BTreeMap::from([(key.to_owned(), ByteString(content))]))
}

fn opaque(metadata: ObjectMeta, data: BTreeMap<String, ByteString>) -> Object {
    let secret = Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() };
    Object::of(Kind::Secret, &secret)
}
