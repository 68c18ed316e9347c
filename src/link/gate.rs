//! Who may come in at the link listener. Pure: what was presented goes in, the half it opens comes out.
//!
//! A peer names its cluster and proves it by what that half asks for: a certificate with the half's URI, already
//! verified against the listener's CAs, or the half's user name and password. Nothing else opens a half, and a
//! half that asks for nothing lets nobody in.

use subtle::ConstantTimeEq;

use crate::settings::{Credentials, Link as Half};

use super::refusal::{Reason, Refusal};

/// What somebody presents who connects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presented {
    /// The cluster that it says it is.
    pub cluster: String,
    /// The URIs of its verified certificate.
    pub uris: Vec<String>,
    /// Its user name.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Vec<u8>>,
}

/// The half that is opened.
///
/// # Errors
/// The refusal; what a half that was named in vain may show is the caller's to judge.
pub fn admit<'h>(own_cluster: &str, halves: &'h [Half], presented: &Presented) -> Result<&'h Half, Refusal> {
    let cluster = &presented.cluster;
    if cluster == own_cluster {
        let text = format!("this address answers as {own_cluster}, which dialled it");
        return Err(Refusal::new(Reason::SelfDialled, text));
    }
    let Some(half) = halves.iter().find(|half| half.peer == *cluster) else {
        let text = format!("{own_cluster} has no link to {cluster:?}");
        return Err(Refusal::new(Reason::UnknownCluster, text));
    };
    let inbound = &half.inbound;
    if inbound.uri_san.is_none() && inbound.credentials.is_none() {
        let text = format!("the half for {cluster} at {own_cluster} lets nobody in");
        return Err(Refusal::new(Reason::NotAuthorized, text));
    }
    let by_certificate = inbound.uri_san.as_ref().is_some_and(|uri| presented.uris.contains(uri));
    let by_password = inbound.credentials.as_ref().is_some_and(|wanted| matches(wanted, presented));
    if by_certificate || by_password {
        return Ok(half);
    }
    let text = format!("what {cluster} presents is not what its half at {own_cluster} asks for");
    Err(Refusal::new(Reason::BadCredentials, text))
}

/// Compares in a time that does not depend on where the two differ.
fn matches(wanted: &Credentials, presented: &Presented) -> bool {
    let username = presented.username.as_deref().unwrap_or_default();
    let password = presented.password.as_deref().unwrap_or_default();
    let same =
        wanted.username.as_bytes().ct_eq(username.as_bytes()) & wanted.password.as_bytes().ct_eq(password);
    same.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_password(username: &str, password: &str) -> Presented {
        Presented {
            cluster: "eu".to_owned(),
            username: Some(username.to_owned()),
            password: Some(password.as_bytes().to_vec()),
            ..Presented::default()
        }
    }

    #[track_caller]
    fn check(presented: Presented, expected: Result<&str, Reason>) {
        let mut eu = Half::new("default/eu", "eu");
        eu.inbound.credentials = Some(Credentials { username: "eu".into(), password: "secret".into() });
        let mut asia = Half::new("default/asia", "asia");
        asia.inbound.uri_san = Some("mqlink:link:asia".to_owned());
        let halves = [eu, asia, Half::new("default/closed", "closed")];
        let found = admit("us", &halves, &presented).map(|half| half.peer.as_str());
        assert_eq!(found.map_err(|refusal| refusal.reason), expected);
    }

    #[test]
    fn a_half_opens_to_what_it_asks_for_only() {
        check(by_password("eu", "secret"), Ok("eu"));
        check(by_password("eu", "wrong"), Err(Reason::BadCredentials));
        check(by_password("us", "secret"), Err(Reason::BadCredentials));
        check(Presented { cluster: "eu".into(), ..Presented::default() }, Err(Reason::BadCredentials));
        let asia = |uri: &str| Presented {
            cluster: "asia".into(),
            uris: vec!["mqlink:other".into(), uri.into()],
            ..Presented::default()
        };
        check(asia("mqlink:link:asia"), Ok("asia"));
        check(asia("mqlink:link:eu"), Err(Reason::BadCredentials));
        check(Presented { cluster: "asia".into(), ..by_password("", "") }, Err(Reason::BadCredentials));
    }

    #[test]
    fn strangers_are_told_what_they_are() {
        check(Presented { cluster: "us".into(), ..by_password("eu", "secret") }, Err(Reason::SelfDialled));
        check(
            Presented { cluster: "mars".into(), ..by_password("eu", "secret") },
            Err(Reason::UnknownCluster),
        );
        check(Presented { cluster: "closed".into(), ..by_password("", "") }, Err(Reason::NotAuthorized));
    }
}
