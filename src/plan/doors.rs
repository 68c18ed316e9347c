//! Listeners, authentication and authorization of a cluster, as its nodes will have them.

use super::secrets::Secrets;
use super::users::parse_users;
use super::world::Placement;
use crate::api::access::{AccessRule, Action, Authorization, Effect, Jwt};
use crate::api::doors::{self, CertificateName, ClientAuth, Listener, ListenerTls, Protocol, TlsVersion};
use crate::api::{Finding, MqttCluster, values};
use crate::settings::{self, CertificatePem, ServerTls};

pub(super) fn render_listener(
    index: usize,
    listener: &Listener,
    placement: &Placement,
    secrets: Secrets<'_>,
) -> Result<settings::Listener, Finding> {
    let protocol = match listener.protocol {
        Protocol::Mqtt => settings::Protocol::Mqtt,
        Protocol::Mqtts => settings::Protocol::Mqtts,
        Protocol::Ws => settings::Protocol::Ws,
        Protocol::Wss => settings::Protocol::Wss,
    };
    let own_port = placement.listener_ports.get(&listener.name).copied().unwrap_or(port(listener.port));
    let mut rendered = settings::Listener::new(&listener.name, protocol, own_port);
    let tls =
        listener.tls.as_ref().map(|tls| render_tls(&format!("spec.listeners[{index}].tls"), tls, secrets));
    rendered.tls = tls.transpose()?;
    if let Some(path) = &listener.path {
        rendered.path.clone_from(path);
    }
    rendered.allowed_origins.clone_from(&listener.allowed_origins);
    let proxy = listener.proxy_protocol.as_ref();
    rendered.proxy_protocol =
        proxy.map(|proxy| settings::ProxyProtocol { trusted_cidrs: proxy.trusted_cidrs.clone() });
    rendered.limits = listener.limits.as_ref().map(render_limits).unwrap_or_default();
    Ok(rendered)
}

fn render_limits(limits: &doors::ListenerLimits) -> settings::ListenerLimits {
    let handshake = limits.handshake_timeout.as_deref().and_then(values::duration);
    settings::ListenerLimits {
        connections_max: limits.max_connections.and_then(|max| usize::try_from(max).ok()),
        connects_per_s_max: limits.max_connect_rate.and_then(|max| u32::try_from(max).ok()),
        handshake_s_max: handshake.map(|time| u16::try_from(time.as_secs()).unwrap_or(u16::MAX).max(1)),
    }
}

fn render_tls(path: &str, tls: &ListenerTls, secrets: Secrets<'_>) -> Result<ServerTls, Finding> {
    let secret = secrets.get(&format!("{path}.secretRef"), &tls.secret_ref)?;
    let client_ca = tls
        .client_ca_ref
        .as_ref()
        .map(|reference| secrets.get(&format!("{path}.clientCaRef"), reference)?.authorities());
    let more = tls.additional_secret_refs.iter().flatten().enumerate().map(|(at, reference)| {
        let secret = secrets.get(&format!("{path}.additionalSecretRefs[{at}]"), reference)?;
        let (certificate_pem, key_pem) = secret.pair()?;
        Ok(CertificatePem { certificate_pem, key_pem })
    });
    let (certificate_pem, key_pem) = secret.pair()?;
    Ok(ServerTls {
        certificate_pem,
        key_pem,
        more: more.collect::<Result<_, Finding>>()?,
        version_min: match tls.min_version.unwrap_or_default() {
            TlsVersion::Tls12 => settings::TlsVersion::V1_2,
            TlsVersion::Tls13 => settings::TlsVersion::V1_3,
        },
        client_auth: match tls.client_auth.unwrap_or_default() {
            ClientAuth::None => settings::ClientAuth::None,
            ClientAuth::Request => settings::ClientAuth::Request,
            ClientAuth::Require => settings::ClientAuth::Require,
        },
        client_ca_pem: client_ca.transpose()?,
        username_from: tls.username_from.map(|name| match name {
            CertificateName::CommonName => settings::CertificateName::CommonName,
            CertificateName::Dns => settings::CertificateName::Dns,
            CertificateName::Email => settings::CertificateName::Email,
            CertificateName::Uri => settings::CertificateName::Uri,
        }),
    })
}

pub(super) fn render_authentication(
    object: &MqttCluster,
    secrets: Secrets<'_>,
) -> Result<settings::Authentication, Finding> {
    let Some(authentication) = &object.spec.authentication else { return Ok(Default::default()) };
    let users = authentication.users_secret_ref.as_ref().map(|reference| {
        let secret = secrets.get("spec.authentication.usersSecretRef", reference)?;
        parse_users(&secret.text("users")?)
            .map_err(|error| secret.finding(format!("has in `users` a mistake: {error}")))
    });
    let jwt = authentication.jwt.as_ref().map(|jwt| render_jwt(jwt, secrets));
    Ok(settings::Authentication {
        anonymous: authentication.anonymous.unwrap_or(false),
        users: users.transpose()?.unwrap_or_default(),
        jwt: jwt.transpose()?,
    })
}

fn render_jwt(jwt: &Jwt, secrets: Secrets<'_>) -> Result<settings::Jwt, Finding> {
    let secret = secrets.get("spec.authentication.jwt.jwksSecretRef", &jwt.jwks_secret_ref)?;
    Ok(settings::Jwt {
        jwks: secret.checked("jwks.json", |jwks| settings::token_keys(jwks).map(drop))?,
        username_claim: jwt.username_claim.clone().unwrap_or_else(|| "sub".to_owned()),
        issuer: jwt.issuer.clone(),
        audience: jwt.audience.clone(),
        acl_claim: jwt.acl_claim.clone(),
    })
}

pub(super) fn render_authorization(authorization: &Authorization) -> settings::Authorization {
    settings::Authorization {
        default_effect: render_effect(authorization.default_effect.unwrap_or_default()),
        rules: authorization.rules.iter().flatten().map(render_rule).collect(),
    }
}

fn render_rule(rule: &AccessRule) -> settings::AccessRule {
    let principals = rule.principals.clone().unwrap_or_default();
    settings::AccessRule {
        principals: settings::Principals {
            users: principals.users.unwrap_or_default(),
            client_ids: principals.client_ids.unwrap_or_default(),
            certificate_names: principals.certificate_names.unwrap_or_default(),
            cidrs: principals.cidrs.unwrap_or_default(),
        },
        action: match rule.action {
            Action::Publish => settings::Action::Publish,
            Action::Subscribe => settings::Action::Subscribe,
            Action::All => settings::Action::All,
        },
        filters: rule.filters.clone(),
        effect: render_effect(rule.effect),
    }
}

fn render_effect(effect: Effect) -> settings::Effect {
    match effect {
        Effect::Allow => settings::Effect::Allow,
        Effect::Deny => settings::Effect::Deny,
    }
}

/// The schema bounds ports; a spec that was never checked is refused before its settings are used.
pub(super) fn port(port: i32) -> u16 {
    u16::try_from(port).unwrap_or_default()
}
