//! What a failed test leaves behind: everything that tells why, in a folder that is named on standard error.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::process::run;
use crate::regions::two_regions;
use crate::scene::{HOME, OPERATOR, Scene, play_alone, stop_operator};

/// What is asked of a namespace, and the file for the answer. Secrets by name only.
const QUESTIONS: [(&str, &[&str]); 5] = [
    ("mqtt.yaml", &["get", "mqttclusters,clusterlinks", "-o", "yaml"]),
    ("objects.yaml", &["get", OBJECTS, "-o", "yaml"]),
    ("names.txt", &["get", "all,secrets,mqttclusters,clusterlinks", "-o", "wide"]),
    ("events.txt", &["events"]),
    ("pods.txt", &["describe", "pods"]),
];

const OBJECTS: &str = "statefulsets,pods,services,endpointslices,poddisruptionbudgets,serviceaccounts";

/// What is printed at once.
const CONDITIONS: &str = "-o=custom-columns=KIND:.kind,NAME:.metadata.name,CONDITIONS:.status.conditions[*].type,\
                          STATUS:.status.conditions[*].status,REASON:.status.conditions[*].reason";

/// How much of the operator's log is printed.
const WORDS_MAX: usize = 10;

/// Writes the report of a scene.
pub(crate) async fn leave(scene: &Scene) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("e2e").join(&scene.namespace);
    for namespace in [&scene.namespace, &scene.beside()] {
        if run("kubectl", &["get", "namespace", namespace], "").await.is_ok() {
            leave_namespace(namespace, &folder.join(namespace)).await;
        }
    }
    let mut log = scene.said.take();
    log += &run("kubectl", &["-n", HOME, "logs", &format!("deployment/{OPERATOR}")], "").await.stdout;
    let about = log.lines().rev().filter(|line| line.contains(&scene.namespace));
    let mut last: Vec<&str> = about.take(WORDS_MAX).collect();
    last.reverse();
    eprintln!("the operator's last words about it:\n{}", last.join("\n"));
    write(&folder, "operator.log", log);
    eprintln!("status, events and logs are in {}", folder.display());
}

async fn leave_namespace(namespace: &str, folder: &Path) {
    let kubectl =
        async |arguments: &[&str]| run("kubectl", &[&["-n", namespace], arguments].concat(), "").await;
    for (name, question) in QUESTIONS {
        let answer = kubectl(question).await;
        write(folder, name, answer.stdout + &answer.stderr);
    }
    for pod in kubectl(&["get", "pods", "-o", "name"]).await.stdout.lines() {
        let name = pod.rsplit('/').next().unwrap_or(pod);
        for (ending, previous) in [("log", "--previous=false"), ("before.log", "--previous=true")] {
            let log = kubectl(&["logs", pod, previous]).await;
            if log.is_ok() {
                write(folder, &format!("{name}.{ending}"), log.stdout);
            }
        }
    }
    eprintln!("{}", kubectl(&["get", "mqttclusters,clusterlinks", CONDITIONS]).await.stdout);
}

fn write(folder: &Path, name: &str, text: String) {
    std::fs::create_dir_all(folder).expect("the folder for reports can be made");
    std::fs::write(folder.join(name), text).expect("the folder for reports can be written");
}

#[test]
fn a_scene_that_fails_leaves_its_report() {
    let namespace = Mutex::new(String::new());
    let fails = || {
        play_alone("fails", async |scene| {
            namespace.lock().expect("no panic").clone_from(&scene.namespace);
            two_regions(scene).await;
            stop_operator(scene).await; // what it said is not lost with its pod
            panic!("on purpose");
        });
    };
    std::panic::catch_unwind(AssertUnwindSafe(fails)).expect_err("it fails");
    let namespace = namespace.into_inner().expect("no panic");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("e2e").join(&namespace);
    for (file, word) in [
        ("mqtt.yaml", "us-eu"),
        ("objects.yaml", "kind: StatefulSet"),
        ("names.txt", "secret/mqlink-us-eu-link"),
        ("events.txt", "us-east"),
        ("pods.txt", "us-east-0"),
        ("us-east-0.log", "INFO"),
        ("../operator.log", "INFO"),
    ] {
        let path = folder.join(&namespace).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(word), "{file} has no {word}: {text}");
    }
    std::fs::remove_dir_all(folder).expect("it was ours");
}
