//! An operator for a list of namespaces, as `config/namespaces` installs it: Roles in these, and no right in any other.

use crate::clients::crosses;
use crate::process::run;
use crate::regions::{TWO_REGIONS, doors, two_regions};
use crate::scene::{Kind, OPERATOR, Scene, kubectl, play_alone, stop_operator};

/// Installs it in a namespace of its own, for that of the scene.
async fn install(scene: &Scene, home: &Scene) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/namespaces");
    let manifest = kubectl(&["kustomize", folder])
        .await
        .replace("mqlink-system", &home.namespace)
        .replace("namespace: mqtt\n", &format!("namespace: {}\n", scene.namespace))
        .replace("--namespace=mqtt\n", &format!("--namespace={}\n", scene.namespace))
        .replace("localhost/mqlink:dev", &scene.image);
    let applied =
        run("kubectl", &["apply", "--server-side", "--force-conflicts", "-f", "-"], &manifest).await;
    assert!(applied.is_ok(), "{}", applied.stderr);
    home.kubectl(&["rollout", "status", &format!("deployment/{OPERATOR}"), "--timeout=60s"]).await;
}

#[test]
fn an_operator_of_one_namespace_works_there_and_nowhere_else() {
    play_alone("roles", async |scene| {
        stop_operator(scene).await;
        let home = scene.neighbour().await;
        install(scene, &home).await;
        home.apply(TWO_REGIONS).await;
        two_regions(scene).await;
        let (us, eu) = doors(scene).await;
        crosses(&us, &eu, "roles/1").await;
        crosses(&eu, &us, "roles/2").await;
        // It came later here, and was served; there it is not even seen.
        let elsewhere = home.api(Kind::Cluster).get("us-east").await.expect("it was made");
        assert!(elsewhere.data["status"].is_null(), "{}", elsewhere.data["status"]);

        let account = format!("system:serviceaccount:{}:{OPERATOR}", home.namespace);
        let may = async |here: &Scene, verb: &str, resource: &str| {
            let asked = here.try_kubectl(&["auth", "can-i", verb, resource, "--as", &account], "").await;
            asked.stdout.trim() == "yes"
        };
        assert!(may(scene, "create", "statefulsets.apps").await && may(scene, "list", "secrets").await);
        assert!(!may(&home, "create", "statefulsets.apps").await && !may(&home, "list", "secrets").await);
        assert!(!may(scene, "list", "namespaces").await);
    });
}
