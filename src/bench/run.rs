//! Rounds of scenarios against targets: wiring, priming, warming up, measuring.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use super::client::{Client, Login};
use super::flow::{self, Flow, PRIMING, Recorder, Shared};
use super::frame::{Stamp, Template};
use super::paced::{self, Schedule};
use super::scenario::{Kind, Load, Pace, Scenario, Wiring};
use super::{Options, Target, probe, process};
use crate::mqtt::QoS;

/// How long a subscription may take to be in force at the publisher's broker.
const PRIMING_MAX: Duration = Duration::from_secs(30);
/// A load that moves nothing for so long stalls.
const STALL: Duration = Duration::from_millis(500);
/// What has not come when nothing came for so long after the last message was sent is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// A scenario is played once unmeasured in each round, against whom it meets last. Its sockets need more memory than those of
/// the scenario before, and memory that lay free for seconds can be slow to touch: whoever met it first would pay for that.
const REHEARSAL_S: f64 = 1.0;

/// How long sessions are kept whose subscriber is away: until the next run begins them anew.
const AWAY_S: u32 = 3_600;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A socket or file failed.
    #[error("failed to {what}: {source}")]
    Io {
        /// What was tried, and on what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A broker did what it should not.
    #[error("the broker {0}")]
    Peer(String),
    /// Nobody said whom to trust.
    #[error("{0} speaks TLS: name the certificates to trust with --cafile")]
    Untrusted(String),
    /// No scenario has such a name.
    #[error("the name of no scenario contains `{0}`: see `mqlink bench --help`")]
    Nothing(String),
    /// Nothing arrived while a run was being set up.
    #[error("nothing was delivered within {0:?}")]
    NotDelivered(Duration),
    /// Some runs failed; there is a report of the others.
    #[error("{}", .0.iter().map(|error| error.to_string()).collect::<Vec<_>>().join("; "))]
    Some(Vec<BenchError>),
    /// In which run it happened.
    #[error("{scenario}, {target}: {error}")]
    In {
        /// The scenario's name.
        scenario: String,
        /// The target's name.
        target: String,
        /// What happened.
        error: Box<BenchError>,
    },
}

impl BenchError {
    pub(super) fn io(verb: &str, object: &str, source: io::Error) -> BenchError {
        BenchError::Io { what: format!("{verb} {object}"), source }
    }
}

/// One scenario against one target, once.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Run {
    pub(super) scenario: String,
    pub(super) target: String,
    pub(super) round: usize,
    /// What the CPU column counts: messages or deliveries.
    pub(super) units: u64,
    pub(super) seconds: f64,
    pub(super) units_per_second: f64,
    /// Messages a second that were due, in an open loop.
    pub(super) due_per_second: Option<u32>,
    /// None where no load was measured, or the process is not known.
    pub(super) cpu_us_per_unit: Option<f64>,
    /// What the generator itself paid.
    pub(super) generator_cpu_us_per_unit: Option<f64>,
    pub(super) latency_p50_us: f64,
    pub(super) latency_p99_us: f64,
    pub(super) latency_p999_us: f64,
    pub(super) latency_max_us: f64,
    /// Memory of the target's processes that is resident at the end.
    pub(super) rss_kib: Option<u64>,
    /// How many times nothing moved for half a second.
    pub(super) stalls: u64,
    /// Messages that never came.
    pub(super) lost: u64,
}

/// Everything that `options` ask for, round by round. Who fails in a scenario is left out of its other rounds.
pub(super) async fn all(options: &Options) -> (Vec<Run>, Vec<BenchError>) {
    let (mut runs, mut failures) = (Vec::new(), Vec::new());
    let mut failed = HashSet::new();
    let rehearsal = Options { seconds: options.seconds.min(REHEARSAL_S), ..options.clone() };
    for round in 0..options.rounds {
        for scenario in &options.scenarios() {
            let targets =
                || options.targets.iter().filter(|target| target.peer.is_some() || !scenario.linked);
            if let Some(target) = targets().next_back() {
                // What fails here fails again where it is told.
                let _ = one(&rehearsal, scenario, target, round, "rehearsal").await;
            }
            for target in targets() {
                let name = (scenario.name.to_string(), target.name.clone());
                if failed.contains(&name) {
                    continue;
                }
                let label = format!("{}/{}", std::process::id(), runs.len());
                let run = match one(options, scenario, target, round, &label).await {
                    Ok(run) => run,
                    Err(error) => {
                        let (scenario, target) = name.clone();
                        failed.insert(name);
                        failures.push(BenchError::In { scenario, target, error: Box::new(error) });
                        continue;
                    }
                };
                eprintln!(
                    "{round} {:<38} {:<10} {:>8.3} µs CPU {:>10.0}/s p50 {:>8.0} µs p99 {:>8.0} µs p99.9 {:>8.0} µs lost {}",
                    run.scenario,
                    run.target,
                    run.cpu_us_per_unit.unwrap_or(f64::NAN),
                    run.units_per_second,
                    run.latency_p50_us,
                    run.latency_p99_us,
                    run.latency_p999_us,
                    run.lost
                );
                runs.push(run);
            }
        }
    }
    (runs, failures)
}

async fn one(
    options: &Options,
    scenario: &Scenario,
    target: &Target,
    round: usize,
    label: &str,
) -> Result<Run, BenchError> {
    let measured = match scenario.kind {
        Kind::Load(load) => steady(options, scenario, load, target, label).await?,
        Kind::FirstDelivery { times } => {
            probe::first_delivery(target, label, times, &options.login(target)?).await?
        }
    };
    let per_unit = |cpu: Duration| cpu.as_secs_f64() * 1e6 / measured.units.max(1) as f64;
    let us = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Run {
        scenario: scenario.name.to_string(),
        target: target.name.clone(),
        round,
        units: measured.units,
        seconds: measured.took.as_secs_f64(),
        units_per_second: measured.units as f64 / measured.took.as_secs_f64(),
        due_per_second: match scenario.kind {
            Kind::Load(Load { pace: Pace::Rate(rate), .. }) => Some(rate),
            _ => None,
        },
        cpu_us_per_unit: measured.cpu.map(per_unit),
        generator_cpu_us_per_unit: measured.generator_cpu.map(per_unit),
        latency_p50_us: us(0.5),
        latency_p99_us: us(0.99),
        latency_p999_us: us(0.999),
        latency_max_us: measured.latency.max() as f64 / 1e3,
        rss_kib: measured.rss_kib,
        stalls: measured.stalls,
        lost: measured.lost,
    })
}

/// What one run found.
pub(super) struct Measured {
    pub(super) units: u64,
    pub(super) took: Duration,
    pub(super) cpu: Option<Duration>,
    pub(super) generator_cpu: Option<Duration>,
    pub(super) rss_kib: Option<u64>,
    pub(super) latency: Histogram<u64>,
    pub(super) stalls: u64,
    pub(super) lost: u64,
}

/// Latencies up to a minute, to three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid")
}

/// The topics that publishers use and the filters that subscribers ask for.
struct Wires {
    /// Per publisher.
    topics: Vec<Vec<String>>,
    /// Per subscriber.
    filters: Vec<Vec<String>>,
    /// Deliveries that are due for so many messages of one publisher.
    ratio: (u64, u64),
}

impl Wires {
    fn new(wiring: Wiring, prefix: &str) -> Wires {
        let topic = |index: usize| format!("{prefix}/{index}");
        let each = |count| (0..count).map(|index| vec![topic(index)]).collect::<Vec<_>>();
        match wiring {
            Wiring::Offline(count) => Wires { topics: each(count), filters: each(count), ratio: (0, 1) },
            Wiring::Pairs(count) => Wires { topics: each(count), filters: each(count), ratio: (1, 1) },
            Wiring::FanOut(count) => {
                Wires { topics: each(1), filters: vec![vec![topic(0)]; count], ratio: (count as u64, 1) }
            }
            Wiring::FanIn(count) => {
                Wires { topics: each(count), filters: vec![vec![format!("{prefix}/+")]], ratio: (1, 1) }
            }
            Wiring::Choosy { topics, wanted } => Wires {
                topics: vec![(0..topics).map(topic).collect()],
                filters: vec![(0..topics).step_by(topics / wanted).map(topic).collect()],
                ratio: (wanted as u64, topics as u64),
            },
        }
    }
}

type Tasks = JoinSet<Result<(), BenchError>>;

async fn steady(
    options: &Options,
    scenario: &Scenario,
    load: Load,
    target: &Target,
    label: &str,
) -> Result<Measured, BenchError> {
    let prefix = format!("{}/{label}", if scenario.linked { "link" } else { "bench" });
    let wires = Wires::new(load.wiring, &prefix);
    let login = options.login(target)?;
    let (publishers, subscribers) = connect(scenario, load, target, &wires, &login).await?;
    let receive_max = publishers.iter().map(|client| u32::from(client.receive_max)).min().unwrap_or(1);
    let wanted = match load.pace {
        Pace::Window(window) => window,
        Pace::Rate(_) => u32::MAX,
    };
    let window = if load.qos == QoS::AtMostOnce { wanted } else { wanted.min(receive_max) };
    let flows = (0..publishers.len() as u32)
        .map(|index| Flow::new(index, wires.ratio, u64::from(window), load.qos != QoS::AtMostOnce));
    let recorder = Recorder {
        began: Instant::now(),
        deliveries: 0,
        latency: histogram(),
        measuring: false,
        timed_every: if window == 1 || matches!(load.pace, Pace::Rate(_)) { 1 } else { 8 },
        primed: vec![false; subscribers.len()],
    };
    let payload_bytes = options.payload as usize;
    let (flows, recorder, is_over) = (flows.collect(), RefCell::new(recorder), Cell::new(false));
    let shared = Rc::new(Shared { flows, recorder, payload_bytes, is_over });

    let mut tasks = Tasks::new();
    for (index, client) in subscribers.into_iter().enumerate() {
        tasks.spawn_local(flow::receive(client, Rc::clone(&shared), index));
    }
    prime(target, &wires, &shared, &mut tasks, &login).await?;
    let count = publishers.len();
    for (index, client) in publishers.into_iter().enumerate() {
        let mut templates: Vec<_> =
            wires.topics[index].iter().map(|topic| Template::new(topic, load.qos, payload_bytes)).collect();
        let own = Rc::clone(&shared);
        tasks.spawn_local(flow::hear_acks(client.read, Rc::clone(&shared), index));
        match load.pace {
            Pace::Window(_) => tasks.spawn_local(flow::publish(client.write, templates, own, index)),
            Pace::Rate(rate) => {
                let schedule = Schedule::new(rate, index, count);
                tasks.spawn_local(paced::publish(client.write, templates.remove(0), own, index, schedule))
            }
        };
    }
    measure(options, scenario, load, target, &shared, &mut tasks).await
}

async fn connect(
    scenario: &Scenario,
    load: Load,
    target: &Target,
    wires: &Wires,
    login: &Login,
) -> Result<(Vec<Client>, Vec<Client>), BenchError> {
    let there = if scenario.linked { target.peer.as_ref().unwrap_or(&target.broker) } else { &target.broker };
    let clients = &scenario.clients;
    let mut subscribers = Vec::new();
    for (index, filters) in wires.filters.iter().enumerate() {
        let (name, is_away) = (format!("{clients}-sub-{index}"), matches!(load.wiring, Wiring::Offline(_)));
        let expiry_s = if is_away { AWAY_S } else { 0 };
        let mut client = Client::connect_lasting(&there.address, &name, login, expiry_s).await?;
        for filter in filters {
            client.subscribe(filter, load.qos).await?;
        }
        if !is_away {
            subscribers.push(client);
        }
    }
    let mut publishers = Vec::new();
    for index in 0..wires.topics.len() {
        let name = format!("{clients}-pub-{index}");
        publishers.push(Client::connect(&target.broker.address, &name, login).await?);
    }
    Ok((publishers, subscribers))
}

/// Publishes unmeasured messages until every subscriber has got one: its subscription is in force, over a link too.
async fn prime(
    target: &Target,
    wires: &Wires,
    shared: &Rc<Shared>,
    tasks: &mut Tasks,
    login: &Login,
) -> Result<(), BenchError> {
    let mut client = Client::connect(&target.broker.address, "bench-prime", login).await?;
    let mut out = Vec::new();
    for topic in wires.topics.iter().flatten() {
        let template = Template::new(topic, QoS::AtMostOnce, shared.payload_bytes);
        template.append_to(&mut out, 1, Stamp { sent_ns: 0, flow: PRIMING });
    }
    let deadline = Instant::now() + PRIMING_MAX;
    let mut beat = tokio::time::interval(Duration::from_millis(5));
    while !shared.recorder.borrow().primed.iter().all(|primed| *primed) {
        if Instant::now() > deadline {
            return Err(BenchError::NotDelivered(PRIMING_MAX));
        }
        client.send_bytes(&out).await?;
        pass(tasks, beat.tick()).await?;
    }
    Ok(())
}

async fn measure(
    options: &Options,
    scenario: &Scenario,
    load: Load,
    target: &Target,
    shared: &Shared,
    tasks: &mut Tasks,
) -> Result<Measured, BenchError> {
    let peer = target.peer.as_ref().filter(|_| scenario.linked);
    // One that is not known leaves the sum without meaning.
    let pids: Option<Vec<u32>> =
        std::iter::once(&target.broker).chain(peer).map(|endpoint| endpoint.pid).collect();
    let pids = pids.as_deref();
    let used = |pids: &[u32]| {
        process::used(pids).map_err(|source| BenchError::io("read CPU times of", "processes", source))
    };
    let units = || match load.wiring {
        Wiring::Choosy { .. } => shared.flows.iter().map(|flow| flow.sent.get()).sum(),
        Wiring::Offline(_) => shared.flows.iter().map(|flow| flow.acked.get()).sum(),
        _ => shared.recorder.borrow().deliveries,
    };

    steady_for(options.warmed(), load.pace, shared, tasks).await?;
    shared.recorder.borrow_mut().measuring = true;
    let own = [std::process::id()];
    let (began, cpu, generator_cpu, units_before): (_, _, _, u64) =
        (Instant::now(), pids.map(used).transpose()?, used(&own)?, units());
    let stalls = steady_for(options.measured(), load.pace, shared, tasks).await?;
    let measured = Measured {
        units: units() - units_before,
        took: began.elapsed(),
        cpu: pids.map(used).transpose()?.zip(cpu).map(|(after, before)| after - before),
        generator_cpu: Some(used(&own)? - generator_cpu),
        rss_kib: pids
            .map(process::resident_kib)
            .transpose()
            .map_err(|source| BenchError::io("read the memory of", "processes", source))?,
        latency: histogram(),
        stalls,
        lost: 0,
    };
    let lost = missing(shared, tasks).await?;
    // What came late counts as well: leaving it out would make a broker that stalls look fast.
    let latency = shared.recorder.borrow().latency.clone();
    Ok(Measured { latency, lost, ..measured })
}

/// How many messages never came; what is under way has some time yet.
async fn missing(shared: &Shared, tasks: &mut Tasks) -> Result<u64, BenchError> {
    shared.is_over.set(true);
    let missing = || shared.flows.iter().map(Flow::missing).sum::<u64>();
    let (mut before, mut moved) = (u64::MAX, Instant::now());
    while missing() > 0 && moved.elapsed() < PATIENCE {
        if missing() < before {
            (before, moved) = (missing(), Instant::now());
        }
        pass(tasks, tokio::time::sleep(Duration::from_millis(10))).await?;
    }
    Ok(missing())
}

/// Lets the load run; returns how many times nothing moved for [`STALL`].
async fn steady_for(
    time: Duration,
    pace: Pace,
    shared: &Shared,
    tasks: &mut Tasks,
) -> Result<u64, BenchError> {
    let deadline = Instant::now() + time;
    let mut stalls = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(stalls);
        }
        let moved = || shared.flows.iter().map(Flow::confirmed).sum::<u64>();
        let before = moved();
        pass(tasks, tokio::time::sleep(left.min(STALL))).await?;
        if left >= STALL && moved() == before {
            stalls += 1;
            // An open loop goes on by itself.
            if matches!(pace, Pace::Window(_)) {
                shared.flows.iter().for_each(|flow| flow.give_up(shared.now_ns()));
            }
        }
    }
}

/// Waits for `time` to pass; a task that ends meanwhile ends the run.
async fn pass<T>(tasks: &mut Tasks, time: impl Future<Output = T>) -> Result<T, BenchError> {
    tokio::select! {
        passed = time => Ok(passed),
        Some(ended) = tasks.join_next() => Err(match ended {
            Ok(Err(error)) => error,
            Ok(Ok(())) => BenchError::Peer("ended a run early".to_owned()),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }),
    }
}
