//! What people read and rely on, on a real API server: events, addresses, the scale subresource, names, grants.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::scene::{Operator, Scene, condition, exists, is_gone, play, play_on};
use crate::operator::build::{self, Kind, Object};
use crate::operator::watch::api;
use crate::operator::write::{Before, Write, WriteError};
use crate::operator::{Options, Scope};

impl Scene {
    async fn patch_status(&self, kind: Kind, name: &str, status: Value) {
        let api = api(&self.client, kind, Some(&self.namespace));
        let patch = Patch::Merge(json!({"status": status}));
        let done = api.patch_status(name, &PatchParams::default(), &patch).await;
        done.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn events(&self) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        events.list(&ListParams::default()).await.expect("they can be listed").items
    }

    /// Waits for an event, and returns it.
    async fn event(&self, object: &str, reason: &str) -> Event {
        let mut versions = Vec::new();
        for _ in 0..600 {
            let events = self.events().await;
            let is_it = |event: &&Event| {
                event.reason.as_deref() == Some(reason)
                    && event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(object)
            };
            if let Some(event) = events.iter().find(is_it) {
                return event.clone();
            }
            versions = events.into_iter().filter_map(|event| event.reason).collect();
            // As long as one request takes: nothing else tells that an event was told.
            let _ = self.versions().await;
        }
        panic!("no {reason} of {object} among {versions:?}");
    }
}

#[test]
fn events_tell_the_history() {
    play(async |scene| {
        let link = json!({
            "apiVersion": "mqlink.dev/v1alpha1", "kind": "ClusterLink", "metadata": {"name": "us-eu"},
            "spec": {"clusterRef": {"name": "us"}, "topics": [], "remote": {"clusterRef": {"name": "eu"}, "topics": []}},
        });
        scene.create(Kind::ClusterLink, link).await;
        let cluster = json!({
            "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": "us"}, "spec": {},
        });
        scene.create(Kind::MqttCluster, cluster).await;
        let _operator = scene.operator();
        let missing = scene.event("us-eu", "ClusterNotFound").await;
        assert_eq!(missing.type_.as_deref(), Some("Warning"));
        assert!(missing.note.is_some_and(|note| note.contains("names MqttCluster")));
        let created = scene.event("us", "Created").await;
        assert_eq!(created.type_.as_deref(), Some("Normal"));
        assert_eq!(created.reporting_controller.as_deref(), Some("mqlink.dev/operator"));
        let wrong = json!({"spec": {"ports": [{"name": "mqtt", "port": 1999}]}});
        scene.merge(Kind::Service, "us-mqtt", wrong).await;
        scene.event("us", "DriftRepaired").await;
        let restart = json!({"spec": {"podTemplate": {"priorityClass": "high"}}});
        scene.merge(Kind::MqttCluster, "us", restart).await;
        scene.event("us", "Restarting").await;
    });
}

#[test]
fn addresses_are_those_of_load_balancers_and_what_is_advertised() {
    play(async |scene| {
        let cluster = |name: &str, link: Value| {
            json!({
                "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": name},
                "spec": {
                    "listeners": [{"name": "mqtt", "protocol": "MQTT", "port": 1883, "service": {"type": "LoadBalancer"}}],
                    "linkListener": link,
                },
            })
        };
        scene.create(Kind::MqttCluster, cluster("us", json!({"service": {"type": "LoadBalancer"}}))).await;
        scene
            .create(Kind::MqttCluster, cluster("eu", json!({"advertisedAddress": "eu.example.org:9999"})))
            .await;
        let link = json!({
            "apiVersion": "mqlink.dev/v1alpha1", "kind": "ClusterLink", "metadata": {"name": "us-eu"},
            "spec": {"clusterRef": {"name": "us"}, "topics": [], "remote": {"clusterRef": {"name": "eu"}, "topics": []}},
        });
        scene.create(Kind::ClusterLink, link).await;
        let _operator = scene.operator();
        scene.until(Kind::Service, "us-mqtt", exists).await;
        scene.until(Kind::Service, "us-link", exists).await;
        scene
            .until(Kind::MqttCluster, "eu", |object| {
                object.is_some_and(|it| it["status"]["linkListener"]["address"] == "eu.example.org:9999")
            })
            .await;
        scene
            .until(Kind::ClusterLink, "us-eu", |object| {
                object.is_some_and(|it| it["status"]["effective"]["server"] == "eu.example.org:9999")
            })
            .await;
        let address = |ingress: Value| json!({"loadBalancer": {"ingress": [ingress]}});
        scene.patch_status(Kind::Service, "us-mqtt", address(json!({"hostname": "lb.example.org"}))).await;
        scene.patch_status(Kind::Service, "us-link", address(json!({"ip": "2001:db8::7"}))).await;
        scene
            .until(Kind::MqttCluster, "us", |object| {
                object.is_some_and(|it| {
                    it["status"]["listeners"][0]["address"] == "lb.example.org:1883"
                        && it["status"]["linkListener"]["address"] == "[2001:db8::7]:11883"
                })
            })
            .await;
    });
}

#[test]
fn the_scale_subresource_knows_the_pods() {
    play(async |scene| {
        scene.create_sample().await;
        let _operator = scene.operator();
        let selected = |object: Option<&Value>| {
            object.is_some_and(|it| {
                it["status"]["selector"].as_str().is_some_and(|it| it.contains("mqlink.dev/cluster=us-east"))
            })
        };
        scene.until(Kind::MqttCluster, "us-east", selected).await;
        let api = api(&scene.client, Kind::MqttCluster, Some(&scene.namespace));
        let scale = api.get_scale("us-east").await.expect("it has a scale");
        let selector = scale.status.and_then(|status| status.selector).unwrap_or_default();
        assert!(selector.contains("mqlink.dev/cluster=us-east"), "{selector}");
    });
}

#[test]
fn a_grant_that_is_revoked_tears_the_link_down() {
    play_on(async |server, scene| {
        let other = Scene { client: scene.client.clone(), namespace: server.namespace().await };
        let cluster = |name: &str, allowed: &str| {
            json!({
                "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": name},
                "spec": {"allowedLinks": {"namespaces": allowed}},
            })
        };
        scene.create(Kind::MqttCluster, cluster("us", "Same")).await;
        other.create(Kind::MqttCluster, cluster("eu", "Same")).await;
        let remote = json!({"clusterRef": {"name": "eu", "namespace": other.namespace}, "topics": []});
        let link = json!({
            "apiVersion": "mqlink.dev/v1alpha1", "kind": "ClusterLink", "metadata": {"name": "us-eu"},
            "spec": {"clusterRef": {"name": "us"}, "topics": [], "remote": remote},
        });
        scene.create(Kind::ClusterLink, link).await;
        let both = Scope::Namespaces(vec![scene.namespace.clone(), other.namespace.clone()]);
        let _operator = Operator::start(scene.client.clone(), Options { scope: both, ..scene.options() });
        let resolved = |status: &'static str, reason: &'static str| {
            move |object: Option<&Value>| condition(object, "ResolvedRefs") == Some((status, reason))
        };
        let links = |count: i64| {
            move |object: Option<&Value>| object.is_some_and(|it| it["status"]["links"]["total"] == count)
        };
        other.until(Kind::Secret, "mqlink-eu-links", exists).await;
        let without = other.get(Kind::Secret, "mqlink-eu-links").await["data"].clone();
        for _ in 0..2 {
            scene.until(Kind::ClusterLink, "us-eu", resolved("False", "RefNotPermitted")).await;
            other.until(Kind::MqttCluster, "eu", links(0)).await;
            other
                .merge(Kind::MqttCluster, "eu", json!({"spec": {"allowedLinks": {"namespaces": "All"}}}))
                .await;
            scene.until(Kind::ClusterLink, "us-eu", resolved("True", "Resolved")).await;
            other.until(Kind::MqttCluster, "eu", links(1)).await;
            other
                .merge(Kind::MqttCluster, "eu", json!({"spec": {"allowedLinks": {"namespaces": "Same"}}}))
                .await;
        }
        // What a link made elsewhere goes with it.
        let allowed = json!({"spec": {"allowedLinks": {"namespaces": "All"}}});
        other.merge(Kind::MqttCluster, "eu", allowed).await;
        other.until(Kind::MqttCluster, "eu", links(1)).await;
        scene.delete(Kind::ClusterLink, "us-eu").await;
        other.until(Kind::MqttCluster, "eu", links(0)).await;
        other.until(Kind::Secret, "mqlink-eu-links", |it| it.is_some_and(|it| it["data"] == without)).await;
    });
}

#[test]
fn everything_is_deleted_in_any_order() {
    const OWN: [(Kind, &str); 3] =
        [(Kind::MqttCluster, "us-east"), (Kind::MqttCluster, "eu-west"), (Kind::ClusterLink, "us-eu")];
    play(async |scene| {
        for first in 0..3 {
            scene.create_sample().await;
            let _operator = scene.operator();
            scene.until(Kind::StatefulSet, "us-east", exists).await;
            scene.until(Kind::StatefulSet, "eu-west", exists).await;
            scene.until(Kind::Secret, "mqlink-us-eu-link", exists).await;
            for step in 0..3 {
                let (kind, name) = OWN[(first + step) % 3];
                scene.delete(kind, name).await;
            }
            for (kind, name) in [
                (Kind::StatefulSet, "us-east"),
                (Kind::Service, "eu-west-mqtt"),
                (Kind::Secret, "mqlink-us-eu-link"),
                (Kind::Secret, "mqlink-us-east-minted"),
                (Kind::ServiceAccount, "mqlink-us-east"),
            ] {
                scene.until(kind, name, is_gone).await;
            }
        }
    });
}

#[test]
fn a_cluster_made_anew_at_once_gets_a_status_and_children_of_its_own() {
    play(async |scene| {
        scene.create_sample().await;
        let _operator = scene.operator();
        scene.until(Kind::StatefulSet, "us-east", exists).await;
        for _ in 0..3 {
            scene.delete(Kind::MqttCluster, "us-east").await;
            let cluster = json!({
                "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "metadata": {"name": "us-east"}, "spec": {},
            });
            scene.create(Kind::MqttCluster, cluster).await;
            let own = api(&scene.client, Kind::MqttCluster, Some(&scene.namespace));
            let uid = own.get_metadata("us-east").await.expect("it is there").metadata.uid;
            let owned = move |object: Option<&Value>| {
                object
                    .is_some_and(|it| it["metadata"]["ownerReferences"][0]["uid"].as_str() == uid.as_deref())
            };
            scene.until(Kind::StatefulSet, "us-east", owned).await;
            scene.until(Kind::MqttCluster, "us-east", |it| condition(it, "Accepted").is_some()).await;
        }
    });
}

#[test]
fn a_namespace_that_goes_is_no_failure() {
    play(async |scene| {
        let objects = |namespace: &str| -> Vec<Object> {
            let cluster = json!({
                "apiVersion": "mqlink.dev/v1alpha1", "kind": "MqttCluster", "spec": {},
                "metadata": {"name": "us", "namespace": namespace, "uid": "none"},
            });
            build::build_cluster(&serde_json::from_value(cluster).expect("a cluster"), "i")
        };
        let namespaces: Api<Namespace> = Api::all(scene.client.clone());
        namespaces.delete(&scene.namespace, &Default::default()).await.expect("it is there");
        for object in objects(&scene.namespace).into_iter().chain(objects("no-such-namespace")) {
            let write = Write::Apply { object, before: Before::New, news: None };
            let done = write.perform(scene.client.clone()).await.done;
            assert!(matches!(done, Err(WriteError::Leaving(_))), "{done:?}");
        }
    });
}
