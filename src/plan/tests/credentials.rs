//! What is minted: one credential per link and direction, the same from run to run.
//!
//! What one half shows is what the other half expects; nothing opens two links, or one link both ways.
//! Certificates are judged by what they say, handshakes with them are tested in `pki`.

use super::*;
use crate::pki::{Role, inspect};
use crate::settings::{ClientAuth, Link};

const PLAINTEXT: &str = "{enabled: true, tls: {mode: Plaintext}}";

fn halves(plan: &Plan) -> (&Link, &Link) {
    (&plan.settings[&key("us")].links[0], &plan.settings[&key("eu")].links[0])
}

fn plaintext(world: &mut World) {
    for cluster in &mut world.clusters {
        let port = cluster.spec.link_port();
        cluster.spec.link_listener = Some(serde_saphyr::from_str(PLAINTEXT).unwrap());
        cluster.spec.link_listener.as_mut().unwrap().port = port;
    }
}

#[test]
fn each_direction_shows_a_certificate_that_names_the_link() {
    let plan = planned(&world(TWO));
    let (us, eu) = halves(&plan);
    let minted = &plan.minted.links[&key("us-eu")];
    for (shows, expects, from, to, credential) in
        [(us, eu, "us", "eu", &minted.outward), (eu, us, "eu", "us", &minted.inward)]
    {
        let tls = shows.tls.as_ref().unwrap();
        let own = inspect(tls.certificate_pem.as_ref().unwrap()).unwrap();
        let role = Role::Link {
            namespace: "default".into(),
            link: "us-eu".into(),
            from: from.into(),
            to: to.into(),
            nonce: credential.nonce.clone().unwrap(),
        };
        assert_eq!(own.role(), Some(role.clone()));
        assert_eq!(expects.inbound.uri_san, Some(role.to_string()));
        assert_eq!((&shows.credentials, &expects.inbound.credentials), (&None, &None));

        let listener = plan.settings[&key(to)].link_listener.as_ref().unwrap().tls.as_ref().unwrap();
        let served = inspect(&listener.certificate_pem).unwrap();
        let authority = inspect(&tls.ca_pem).unwrap();
        assert!(served.dns.contains(&tls.server_name), "{served:?}");
        assert_eq!(served.ips, ["127.0.0.1".parse::<core::net::IpAddr>().unwrap()]);
        assert_eq!((&own.signed_by, &served.signed_by), (&authority.key_id, &authority.key_id));
        assert_eq!(
            (listener.client_auth, listener.client_ca_pem.as_ref()),
            (ClientAuth::Request, Some(&tls.ca_pem))
        );
    }
    assert_ne!(us.tls.as_ref().unwrap().key_pem, eu.tls.as_ref().unwrap().key_pem);
    assert_ne!(us.tls.as_ref().unwrap().ca_pem, eu.tls.as_ref().unwrap().ca_pem);
}

#[test]
fn in_plaintext_each_direction_has_a_long_password() {
    let mut world = world(TWO);
    plaintext(&mut world);
    let plan = planned(&world);
    let (us, eu) = halves(&plan);
    assert_eq!((&us.tls, &eu.tls), (&None, &None));
    assert_eq!(us.credentials, eu.inbound.credentials);
    assert_eq!(eu.credentials, us.inbound.credentials);
    let (out, back) = (us.credentials.as_ref().unwrap(), eu.credentials.as_ref().unwrap());
    assert!(out.password.len() == 64 && out.password != back.password && out.username != back.username);
}

#[test]
fn everything_minted_stays_from_run_to_run() {
    for plain in [false, true] {
        let mut world = world(TWO);
        if plain {
            plaintext(&mut world);
        }
        let first = planned(&world);
        world.minted = first.minted.clone();
        let second = plan(&world, at(3600), &mut random(99));
        assert_eq!((&second.settings, &second.minted), (&first.settings, &first.minted));
        let text = serde_json::to_string(&first.minted).unwrap();
        assert_eq!(serde_json::from_str::<Minted>(&text).unwrap(), first.minted);
    }
}

#[test]
fn revoking_one_credential_leaves_the_others() {
    let mut world = world(TWO);
    let first = planned(&world);
    world.minted = first.minted.clone();
    world.minted.links.get_mut(&key("us-eu")).unwrap().outward = MintedCredential::default();
    let second = plan(&world, at(1), &mut random(7));
    let ((us, eu), (us_now, eu_now)) = (halves(&first), halves(&second));
    assert_ne!(us.tls.as_ref().unwrap().key_pem, us_now.tls.as_ref().unwrap().key_pem);
    assert_ne!(us.revision, us_now.revision);
    let old = inspect(us.tls.as_ref().unwrap().certificate_pem.as_ref().unwrap()).unwrap();
    let expects = |half: &Link| half.inbound.uri_san.clone().unwrap();
    assert_eq!(old.uris, [expects(eu)]);
    assert_ne!(old.uris, [expects(eu_now)], "the old certificate is valid and opens nothing");
    assert_eq!((&eu.tls, &us.inbound), (&eu_now.tls, &us_now.inbound), "the other direction is untouched");
}

#[test]
fn leaves_are_renewed_before_they_end() {
    let mut world = world(TWO);
    let first = planned(&world);
    world.minted = first.minted.clone();
    let two_months = 61 * 24 * 3600;
    let second = plan(&world, at(two_months), &mut random(7));
    let end =
        |plan: &Plan| plan.clusters[&key("eu")].link_listener.as_ref().unwrap().not_after.clone().unwrap();
    assert!(end(&second) > end(&first));
    assert_ne!(
        halves(&first).0.tls.as_ref().unwrap().key_pem,
        halves(&second).0.tls.as_ref().unwrap().key_pem
    );
    assert_eq!(halves(&first).0.tls.as_ref().unwrap().ca_pem, halves(&second).0.tls.as_ref().unwrap().ca_pem);
}

#[test]
fn the_revision_covers_all_that_a_link_runs_on() {
    let first = planned(&world(TWO));
    let (us, _) = halves(&first);
    assert_eq!(us.revision.len(), 64);
    assert_eq!(us.revision, us.compute_revision());
    let mut moved = world(TWO);
    moved.minted = first.minted.clone();
    moved.placements.get_mut(&key("eu")).unwrap().link_address = Some("127.0.0.1:7".into());
    assert_ne!(halves(&planned(&moved)).0.revision, us.revision);
}

#[test]
fn an_invitation_makes_the_other_half() {
    for plain in [false, true] {
        let mut here = world(
            "kind: MqttCluster\nmetadata: {name: us}\nspec: {}\n---\nkind: ClusterLink\nmetadata: {name: out}\n\
             spec: {clusterRef: {name: us}, topics: ['#'], remote: {external: {clusterName: eu, dial: In}}}\n",
        );
        let mut there = world(
            "kind: MqttCluster\nmetadata: {name: eu}\nspec: {}\n---\nkind: ClusterLink\nmetadata: {name: back}\n\
             spec: {clusterRef: {name: eu}, topics: ['#'], remote: {external: {clusterName: us, dial: Out,\n\
             server: '127.0.0.1:11883', credentialsRef: {name: invitation}}}}\n",
        );
        if plain {
            plaintext(&mut here);
        }
        let plan = planned(&here);
        let invitation = &plan.invitations[&key("out")];
        assert_eq!(
            (invitation["clusterName"].as_str(), invitation["server"].as_str()),
            ("us", "127.0.0.1:11883")
        );
        let data = invitation.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes())).collect();
        there.put_secret(Secret {
            namespace: "default".into(),
            name: "invitation".into(),
            data,
            ..Secret::default()
        });
        let expects = &plan.settings[&key("us")].links[0].inbound;
        let other = planned(&there);
        let shows = &other.settings[&key("eu")].links[0];
        match plain {
            true => assert_eq!(shows.credentials, expects.credentials),
            false => {
                let tls = shows.tls.as_ref().unwrap();
                assert_eq!(
                    inspect(tls.certificate_pem.as_ref().unwrap()).unwrap().uris,
                    expects.uri_san.clone().into_iter().collect::<Vec<_>>()
                );
                assert_eq!(tls.ca_pem, invitation["ca.crt"]);
            }
        }
        let status = &plan.links[&key("out")];
        assert_eq!(status.invitation.as_ref().unwrap().secret_name, "out-invitation");
    }
}

#[test]
fn what_the_user_gives_is_used() {
    let world = world(
        "kind: MqttCluster\nmetadata: {name: us}\nspec: {}\n---\nkind: ClusterLink\nmetadata: {name: l}\n\
         spec: {clusterRef: {name: us}, topics: ['#'], remote: {external: {clusterName: eu, server: 'h:1',\n\
         credentialsRef: {name: out}, inbound: {credentialsRef: {name: in}}}}}\n---\n\
         kind: Secret\nmetadata: {name: out}\nstringData: {username: a, password: \"b\\n\"}\n---\n\
         kind: Secret\nmetadata: {name: in}\nstringData: {username: c, password: d}\n",
    );
    let plan = planned(&world);
    let link = &plan.settings[&key("us")].links[0];
    let (shown, expected) = (link.credentials.as_ref().unwrap(), link.inbound.credentials.as_ref().unwrap());
    assert_eq!((shown.username.as_str(), shown.password.as_str()), ("a", "b"));
    assert_eq!((expected.username.as_str(), expected.password.as_str()), ("c", "d"));
    assert!(plan.invitations.is_empty() && link.tls.is_none());
}

#[test]
fn a_certificate_is_never_dropped_in_silence() {
    let authority = crate::pki::Authority::mint("x", at(0), &mut random(3));
    let pem = serde_json::json!({"tls.crt": authority.certificate_pem, "tls.key": authority.key_pem, "ca.crt": authority.certificate_pem});
    let of = |server: &str, with_password: bool| {
        let mut world = world(&format!(
            "kind: MqttCluster\nmetadata: {{name: us}}\nspec: {{}}\n---\nkind: ClusterLink\nmetadata: {{name: l}}\n\
             spec: {{clusterRef: {{name: us}}, topics: ['#'], remote: {{external: {{clusterName: eu, server: '{server}',\n\
             credentialsRef: {{name: s}}}}}}}}\n"
        ));
        let mut data = pem.clone();
        if with_password {
            data["username"] = "a".into();
            data["password"] = "b".into();
        }
        world.put_secret(secret(&serde_json::json!({"metadata": {"name": "s"}, "stringData": data})));
        planned(&world)
    };
    let shown = |plan: &Plan| {
        let link = &plan.settings[&key("us")].links[0];
        let has_certificate = link.tls.as_ref().is_some_and(|tls| tls.certificate_pem.is_some());
        (has_certificate, link.credentials.is_some())
    };
    assert_eq!(shown(&of("mqtts://h:1", false)), (true, false));
    assert_eq!(shown(&of("h:1", true)), (true, true), "each opens what asks for it");
    assert_eq!(shown(&of("mqtt://h:1", true)), (false, true));
    let plan = of("mqtt://h:1", false);
    check_link(&plan, "l", "ResolvedRefs", "False/SecretInvalid");
    let message = link_condition(&plan, "l", "Ready").message;
    assert!(message.contains("a certificate, which mqtt:// cannot show; write mqtts://"), "{message}");
}

#[test]
fn debug_shows_no_secret() {
    let mut world = world(TWO);
    plaintext(&mut world);
    let plan = planned(&world);
    let password = plan.minted.links[&key("us-eu")].outward.password.clone().unwrap();
    world.minted = plan.minted.clone();
    let text = format!("{plan:?}{world:?}");
    assert!(!text.contains(&password) && !text.contains("PRIVATE KEY"));
}
