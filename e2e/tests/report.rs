//! What a failed test leaves behind: everything that tells why, in a folder that is named on standard error.

use std::path::PathBuf;

use crate::process::run;
use crate::scene::{HOME, OPERATOR, Scene};

/// What is asked of the namespace, and the file for the answer. Secrets by name only.
const QUESTIONS: &[(&str, &[&str])] = &[
    ("mqtt.yaml", &["get", "mqttclusters,clusterlinks", "-o", "yaml"]),
    (
        "objects.yaml",
        &[
            "get",
            "statefulsets,pods,services,endpointslices,poddisruptionbudgets,serviceaccounts",
            "-o",
            "yaml",
        ],
    ),
    ("names.txt", &["get", "all,secrets,mqttclusters,clusterlinks", "-o", "wide"]),
    ("events.txt", &["events"]),
    ("pods.txt", &["describe", "pods"]),
];

/// Writes the report of a scene.
pub(crate) async fn leave(scene: &Scene) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("e2e").join(&scene.namespace);
    std::fs::create_dir_all(&folder).expect("the folder for reports can be made");
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).expect("the folder for reports can be written");
    };
    for (name, question) in QUESTIONS {
        let answer = scene.try_kubectl(question, "").await;
        write(name, answer.stdout + &answer.stderr);
    }
    let pods = scene.try_kubectl(&["get", "pods", "-o", "name"], "").await.stdout;
    for pod in pods.lines() {
        let name = pod.rsplit('/').next().unwrap_or(pod);
        for (ending, previous) in [("log", "--previous=false"), ("before.log", "--previous=true")] {
            let log = scene.try_kubectl(&["logs", pod, previous], "").await;
            if log.is_ok() {
                write(&format!("{name}.{ending}"), log.stdout);
            }
        }
    }
    let deployment = format!("deployment/{OPERATOR}");
    let log = run("kubectl", &["-n", HOME, "logs", &deployment], "").await;
    write("operator.log", log.stdout.clone());
    let conditions = "-o=custom-columns=KIND:.kind,NAME:.metadata.name,CONDITIONS:.status.conditions[*].type,STATUS:.status.conditions[*].status,REASON:.status.conditions[*].reason";
    let table = scene.try_kubectl(&["get", "mqttclusters,clusterlinks", conditions], "").await;
    let last: Vec<&str> = log.stdout.lines().rev().take(20).collect();
    eprintln!(
        "{}\nthe operator's last words:\n{}\nstatus, events and logs are in {}",
        table.stdout,
        last.into_iter().rev().collect::<Vec<_>>().join("\n"),
        folder.display()
    );
}
