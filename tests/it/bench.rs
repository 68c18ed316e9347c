//! The load generator against brokers and networks that are not at their best: what it says of them must be true.

use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use mqlink::settings::Settings;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::harness::{Certificates, MQLINK, Node, SettingsExt, free_port, settings, until};
use crate::relay::Relay;

/// What is between generator and broker: it passes everything, then nothing, and so on.
struct Stutter {
    port: u16,
    _end: oneshot::Sender<()>,
}

impl Stutter {
    /// In tenths of a second.
    fn to(target: u16, passes: usize, stalls: usize) -> Stutter {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let relay = runtime.block_on(Relay::to(target));
        let (port, (_end, ended)) = (relay.port(), oneshot::channel());
        let stutter = async move {
            let mut beat = tokio::time::interval(Duration::from_millis(100));
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for at in (0..passes + stalls).cycle() {
                beat.tick().await;
                match at < passes {
                    true => relay.mend(),
                    false => relay.cut(),
                }
            }
        };
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! { () = stutter => (), _ = ended => () }
            })
        });
        Stutter { port, _end }
    }
}

/// One round of scenarios, as JSON.
fn bench(scenarios: &[&str], options: &[&str]) -> Vec<Value> {
    let folder = TempDir::new().expect("a temporary folder");
    let json = folder.path().join("runs.json");
    let mut command = Command::new(MQLINK);
    command.args(["bench", "--rounds", "1", "--warm-up", "0.1", "--json"]).arg(&json);
    command.args(scenarios.iter().flat_map(|words| ["--scenario", words]));
    let output = command.args(options).output().expect("the binary is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("p50 / p99 / p99.9"),
        "the table is on the terminal"
    );
    read(&json)
}

fn read(json: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(json).expect("it was written");
    serde_json::from_str(&text).expect("a list of runs")
}

fn ms(run: &Value, figure: &str) -> f64 {
    run[figure].as_f64().expect("a number") / 1e3
}

#[test]
fn who_had_to_wait_to_be_sent_counts_from_when_it_was_due() {
    // The broker takes ten messages at once: in a stall the other hundreds cannot even be sent.
    let mut settings = settings();
    settings.limits.inflight_max = 10;
    let port = settings.listeners[0].port;
    let _node = Node::start(settings);
    let stutter = Stutter::to(port, 2, 3);
    let target = format!("it=127.0.0.1:{}", stutter.port);
    let runs = bench(&["pairs=1,qos=1,rate=1000"], &["--target", &target, "--seconds", "2"]);
    let run = &runs[0];
    assert_eq!(run["duePerSecond"], 1000, "{run}");
    // Three of five are due in a stall, and wait for the rest of it: a sixth of them for less than 50 ms.
    assert!(ms(run, "latencyP50Us") >= 20.0 && ms(run, "latencyP99Us") >= 200.0, "{run}");
    assert_eq!(run["lost"], 0, "{run}");
}

#[test]
fn what_comes_late_is_not_lost() {
    let settings = settings();
    let port = settings.listeners[0].port;
    let _node = Node::start(settings);
    let stutter = Stutter::to(port, 2, 11);
    let target = format!("it=127.0.0.1:{}", stutter.port);
    let scenarios = ["pairs=2,qos=1,window=10", "pairs=1,window=10", "offline=1,qos=1,window=10"];
    for run in bench(&scenarios, &["--target", &target, "--seconds", "3"]) {
        assert!(run["stalls"].as_u64() >= Some(1), "{run}");
        assert_eq!(run["lost"], 0, "{run}");
        assert!(run["units"].as_u64() >= Some(10), "{run}");
    }
}

/// The broker with which others are compared.
struct Floor(Child, u16);

impl Floor {
    fn start() -> Floor {
        let port = free_port();
        let serve = ["bench", "--serve-floor", &port.to_string()].map(str::to_owned);
        let floor = Floor(Command::new(MQLINK).args(serve).spawn().expect("the binary is built"), port);
        until("the floor", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        floor
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_load_meets_every_broker_in_turn() {
    let certificates = Certificates::new();
    let settings: Settings = settings().users(&[("bench", "plain:secret")]).tls(certificates.server());
    let (plain, safe) = (settings.listeners[0].port, settings.listeners[1].port);
    let node = Node::start(settings);
    let floor = Floor::start();
    let targets = [
        format!("plain=127.0.0.1:{plain}@{}", node.pid()),
        format!("tls=mqtts://localhost:{safe}@{}", node.pid()),
        format!("floor=127.0.0.1:{}@{}", floor.1, floor.0.id()),
    ];
    let ca = certificates.ca();
    let mut options = vec!["--seconds", "0.3", "--user", "bench", "--password", "secret"];
    options.extend(["--cafile", ca.to_str().expect("text")]);
    targets.iter().for_each(|target| options.extend(["--target", target]));
    let scenarios = [
        "pairs=3,qos=0,window=50",
        "pairs=3,qos=1,window=50,clients=others",
        "fan-in=5,qos=1,window=20",
        "fan-out=5,window=20",
        "pairs=2,qos=1,rate=500",
        "pairs=2,qos=2,window=5",
        "fan-in=3,qos=2,rate=500",
        "offline=2,qos=2,window=5",
    ];
    let runs = bench(&scenarios, &options);
    let names =
        |key: &str| runs.iter().map(|run| run[key].as_str().expect("text").to_owned()).collect::<Vec<_>>();
    assert_eq!(names("scenario"), scenarios.map(|name| [name; 3]).concat());
    assert_eq!(names("target"), ["plain", "tls", "floor"].repeat(scenarios.len()));
    for run in &runs {
        assert!(run["units"].as_u64() >= Some(20), "{run}");
        assert_eq!(run["lost"], 0, "{run}");
        assert!(run["rssKib"].as_u64() > Some(0) && run["cpuUsPerUnit"].is_number(), "{run}");
    }
    let safe = &targets[1];
    let output =
        Command::new(MQLINK).args(["bench", "--target", safe]).output().expect("the binary is built");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--cafile"), "it says whom to trust");
}
