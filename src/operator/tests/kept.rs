//! What outlives an operator, and what an object made anew inherits: all of it, or nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::world::{World, id, two_regions};
use crate::operator::build::{Kind, MANAGED_BY};
use crate::operator::shelf::Fetched;
use crate::operator::write::Write;
use crate::plan::Key;

#[test]
fn credentials_outlive_the_operator() {
    let mut world = two_regions();
    world.settle();
    let link = id(Kind::Secret, "mqlink-us-eu-link");
    let before = world.objects[&link]["data"].clone();
    world.restart();
    world.own(Kind::MqttCluster, "us-east", json!({"image": "other"}));
    world.settle();
    assert_eq!(world.objects[&link]["data"], before);
}

#[test]
fn a_cluster_made_anew_does_not_inherit() {
    let mut world = two_regions();
    world.settle();
    let minted = id(Kind::Secret, "mqlink-us-east-minted");
    let before = world.objects[&minted]["data"].clone();
    world.delete(&id(Kind::MqttCluster, "us-east"));
    world.restart();
    world.cluster("us-east");
    world.settle();
    assert_ne!(world.objects[&minted]["data"], before);
}

#[test]
fn an_object_made_anew_at_once_does_not_inherit_either() {
    for is_seen in [true, false] {
        let mut world = two_regions();
        world.settle();
        let (link, secret) = (id(Kind::ClusterLink, "us-eu"), id(Kind::Secret, "mqlink-us-eu-link"));
        let before = world.objects[&secret]["data"].clone();
        // Nothing is decided between the two; or the watch was interrupted, and the list has the new one only.
        match is_seen {
            true => world.delete(&link),
            false => drop(world.objects.remove(&link)),
        }
        world.link("us-eu", "us-east", "eu-west");
        world.settle();
        assert_ne!(world.objects[&secret]["data"], before);
    }
}

#[test]
fn a_service_that_is_made_anew_changes_nothing_else() {
    let mut world = two_regions();
    world.settle();
    world.delete(&id(Kind::Service, "us-east-link"));
    let writes: Vec<String> = world.decide().iter().map(|write| write.id().to_string()).collect();
    assert_eq!(writes, ["Service mqtt/us-east-link"]);
}

#[test]
fn a_load_balancer_that_is_made_anew_costs_no_certificate() {
    let mut world = two_regions();
    let spec = json!({"linkListener": {"service": {"type": "LoadBalancer"}}});
    world.own(Kind::MqttCluster, "us-east", spec);
    world.settle();
    let service = id(Kind::Service, "us-east-link");
    let has_address = |world: &mut World| {
        let ingress = json!({"loadBalancer": {"ingress": [{"ip": "2001:db8::7"}]}});
        world.change(&service, |service| service["status"] = ingress);
        world.settle();
        assert_eq!(
            world.objects[&id(Kind::MqttCluster, "us-east")]["status"]["linkListener"]["address"],
            "[2001:db8::7]:11883"
        );
    };
    has_address(&mut world);
    let minted = id(Kind::Secret, "mqlink-us-east-minted");
    let before = world.objects[&minted]["data"].clone();
    world.delete(&service);
    world.settle();
    has_address(&mut world);
    assert_eq!(world.objects[&minted]["data"], before);
}

#[test]
fn an_operator_that_dies_between_two_secrets_loses_nothing_that_runs() {
    let mut world = two_regions();
    for token in ["first", "second"] {
        let annotations = json!({"mqlink.dev/resync": token});
        world.change(&id(Kind::ClusterLink, "us-eu"), |link| link["metadata"]["annotations"] = annotations);
        world.settle();
    }
    let asked = |world: &World| {
        let links = &world.objects[&id(Kind::Secret, "mqlink-us-east-links")]["data"]["links.json"];
        let links = STANDARD.decode(links.as_str().expect("a text")).expect("base64");
        let links: Value = serde_json::from_slice(&links).expect("JSON");
        let links = links["links"].as_array().expect("links");
        links.iter().find(|link| link["id"] == "mqtt/us-eu").expect("it runs")["resync"].clone()
    };
    let before = asked(&world);
    assert!(before.as_str().is_some_and(|it| it.ends_with(" second")), "{before}");
    // The spec is refused, so what runs is known by the Secrets alone; then a link goes, and one Secret of two is written.
    world.change(&id(Kind::MqttCluster, "us-east"), |cluster| cluster["spec"]["replicas"] = json!(3));
    world.settle();
    world.cluster("ap-south");
    world.settle();
    world.link("us-ap", "us-east", "ap-south");
    let pieces = ["mqlink-us-east-settings", "mqlink-us-east-links"].map(|name| id(Kind::Secret, name));
    let writes: Vec<Write> = world.decide().into_iter().filter(|it| pieces.contains(it.id())).collect();
    assert_eq!(writes.len(), 2);
    for only in &writes {
        let mut world = World::of(world.objects.clone());
        world.perform(only.clone());
        world.restart();
        world.settle();
        for link in ["us-eu", "us-ap"] {
            assert!(
                world.condition_of(Kind::ClusterLink, link, "ResolvedRefs").starts_with("Resolved"),
                "{link}"
            );
        }
        assert!(world.condition("us-east", "Accepted").starts_with("ReplicasUnsupported"));
        assert_eq!(asked(&world), before, "nodes are asked nothing anew");
        world.restart();
        assert_eq!(world.settle(), 0);
    }
}

#[test]
fn what_somebody_puts_beside_what_runs_is_no_part_of_it_and_does_not_stay() {
    let mut world = two_regions();
    world.settle();
    world.change(&id(Kind::MqttCluster, "us-east"), |cluster| cluster["spec"]["replicas"] = json!(3));
    world.settle();
    let users = id(Kind::Secret, "mqlink-us-east-users");
    let before = world.objects[&users]["data"].clone();
    let eve = STANDARD.encode(r#"{"authentication": {"users": [{"name": "eve", "secret": "plain:x"}]}}"#);
    world.change(&users, |secret| secret["data"]["zz.json"] = json!(eve));
    world.restart();
    world.settle();
    assert_eq!(world.objects[&users]["data"], before);
}

#[test]
fn an_invitation_is_where_the_status_says_and_deleting_it_revokes_it() {
    let mut world = World::new();
    world.cluster("us-east");
    let remote = json!({"external": {"clusterName": "factory", "dial": "In"}});
    let spec = json!({"clusterRef": {"name": "us-east"}, "topics": ["#"], "remote": remote});
    world.own(Kind::ClusterLink, "inbound", spec);
    world.settle();
    let link = &world.objects[&id(Kind::ClusterLink, "inbound")];
    let name = link["status"]["invitation"]["secretName"].as_str().expect("it says where").to_owned();
    let secret = &world.objects[&id(Kind::Secret, &name)];
    assert!(secret["data"]["clusterName"].is_string(), "{secret}");
    let before = secret["data"]["tls.crt"].clone();
    let expects = |world: &World| world.objects[&id(Kind::Secret, "mqlink-us-east-links")]["data"].clone();
    // What nobody deleted stays; what somebody did is revoked, and there is another one.
    world.change(&id(Kind::Secret, &name), |secret| secret["data"]["tls.crt"] = json!("bm9uZQ=="));
    world.settle();
    let found = |world: &World| world.objects[&id(Kind::Secret, &name)]["data"]["tls.crt"].clone();
    assert_eq!(found(&world), before);
    for is_watched in [true, false] {
        world.unlabel(&id(Kind::Secret, &name));
        if !is_watched {
            world.restart();
        }
        world.settle();
        assert_eq!(found(&world), before, "a label says nothing");
        assert!(world.objects[&id(Kind::Secret, &name)]["metadata"]["labels"][MANAGED_BY].is_string());
    }
    for is_watched in [true, false] {
        let (before, expected) = (found(&world), expects(&world));
        world.delete(&id(Kind::Secret, &name));
        if !is_watched {
            world.restart();
        }
        world.settle();
        assert_ne!(found(&world), before);
        assert_ne!(expects(&world), expected, "the old one opens nothing any more");
    }
    world.delete(&id(Kind::ClusterLink, "inbound"));
    world.settle();
    assert!(!world.objects.contains_key(&id(Kind::Secret, &name)));
}

#[test]
fn trouble_of_a_link_does_not_revoke_its_invitation() {
    let mut world = World::new();
    world.cluster("us-east");
    let own = |world: &mut World, topic: &str| {
        let external = json!({"clusterName": "factory", "server": "factory.example.org:8883",
            "credentialsRef": {"name": "credentials"}});
        let remote = json!({"external": external});
        let spec = json!({"clusterRef": {"name": "us-east"}, "topics": [topic], "remote": remote});
        world.own(Kind::ClusterLink, "factory", spec);
        world.settle();
    };
    let answer = |world: &mut World, password: Option<&str>| {
        let secret = |password: &str| {
            let data = json!({"username": STANDARD.encode("us"), "password": STANDARD.encode(password)});
            serde_json::from_value(json!({"data": data})).expect("a Secret")
        };
        let fetched = Fetched { key: Key::new("mqtt", "credentials"), object: Ok(password.map(secret)) };
        world.decider.picture.refer(world.now);
        assert!(world.decider.picture.shelf.take(fetched, world.now));
        world.settle();
    };
    let is = |world: &World, type_: &str, reason: &str| {
        let condition = world.condition_of(Kind::ClusterLink, "factory", type_);
        assert!(condition.starts_with(reason), "{condition}");
    };
    own(&mut world, "#");
    answer(&mut world, Some("a long password"));
    is(&world, "ResolvedRefs", "Resolved");
    let link = &world.objects[&id(Kind::ClusterLink, "factory")];
    let name = link["status"]["invitation"]["secretName"].as_str().expect("it says where").to_owned();
    let invitation = |world: &World| world.objects[&id(Kind::Secret, &name)]["data"].clone();
    let before = invitation(&world);
    // A Secret that is deleted and made anew.
    answer(&mut world, None);
    is(&world, "ResolvedRefs", "SecretNotFound");
    answer(&mut world, Some("another long password"));
    is(&world, "ResolvedRefs", "Resolved");
    assert_eq!(invitation(&world), before);
    // One that is not read at once when the operator starts.
    world.restart();
    world.decider.picture.refer(world.now);
    world.settle();
    is(&world, "ResolvedRefs", "SecretUnreadable");
    answer(&mut world, Some("another long password"));
    assert_eq!(invitation(&world), before);
    // A mistake, and its correction.
    own(&mut world, "a/#/b");
    is(&world, "Accepted", "InvalidTopicFilter");
    own(&mut world, "#");
    is(&world, "Ready", "");
    assert_eq!(invitation(&world), before);
}

#[test]
fn a_cluster_made_anew_before_its_children_are_gone_gets_children_of_its_own() {
    let mut world = two_regions();
    world.settle();
    let (cluster, set) = (id(Kind::MqttCluster, "us-east"), id(Kind::StatefulSet, "us-east"));
    let before = world.objects[&set]["metadata"]["uid"].clone();
    world.delete(&cluster);
    world.cluster("us-east");
    world.settle();
    let (cluster, set) = (&world.objects[&cluster]["metadata"], &world.objects[&set]["metadata"]);
    assert_eq!(set["ownerReferences"][0]["uid"], cluster["uid"]);
    assert_ne!(set["uid"], before);
}
