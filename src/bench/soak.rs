//! Hostile crowds and one bystander: `mqlink bench --soak`. It says what a client that does nothing wrong feels meanwhile.
//!
//! The bystander publishes to itself at QoS 1, 200 messages a second, all the time; each phase adds a kind of crowd, from
//! many loopback addresses: idle connections, readers that do not read, sockets that say nothing, everybody coming back at
//! once, giant topics and filters. A figure is the time from the moment when a message was due to the moment when it arrived,
//! so a broker that stalls is charged for all that waited (no coordinated omission). The bystander has a thread of its own: how
//! busy the crowds keep the generator is not the broker's fault.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use hdrhistogram::Histogram;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::client::{Client, Login, open_from};
use super::flow::Input;
use super::frame::{Heard, Stamp, Template, append_puback};
use super::process;
use super::run::{BenchError, histogram};
use super::target::Endpoint;
use crate::mqtt::{self, PacketId, Publish, QoS, Version};

const PAYLOAD_BYTES: usize = 64;
/// The bystander's pace.
const EVERY: Duration = Duration::from_millis(5);
/// How long its last messages may take.
const LATE_MAX: Duration = Duration::from_secs(10);
/// How many connections are opened at a time.
const OPENING: usize = 256;
/// How many connections share a loopback address: fewer than there are ports.
const PER_ADDRESS: usize = 10_000;

/// The head of the table.
pub(super) const HEAD: &str = "| meanwhile | messages | lost | p50 ms | p99 ms | p99.9 ms | most ms | broker's RSS MiB |\n\
                               |---|---|---|---|---|---|---|---|";

/// What the bystander felt in one phase.
#[derive(Debug, serde::Serialize)]
pub(super) struct Phase {
    name: &'static str,
    sent: u64,
    lost: u64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    /// At the end of it; none: the broker's process is not known.
    rss_kib: Option<u64>,
}

/// Runs all phases against a broker that lets anonymous clients in.
///
/// # Errors
/// When the bystander is refused or closed: everybody else may be.
pub(super) async fn run(
    broker: &Endpoint,
    connections: usize,
    phase: Duration,
) -> Result<Vec<Phase>, BenchError> {
    allow_files();
    let crowd = Crowd { address: broker.address.as_str().into(), size: connections, next: Rc::default() };
    let mut phases = vec![observe("nobody else", broker, phase).await?];

    let opening = Instant::now();
    let mut idle = crowd.open_all(connections).await;
    eprintln!("{} of {connections} idle connections in {:.1} s", idle.len(), opening.elapsed().as_secs_f64());
    phases.push(observe("idle connections", broker, phase).await?);

    let busy = crowd.slow_readers(connections.div_ceil(500)).await?;
    phases.push(observe("and readers that do not read", broker, phase).await?);
    drop(busy);

    let busy = crowd.silent_sockets(connections.div_ceil(20));
    phases.push(observe("and sockets that say nothing", broker, phase).await?);
    drop(busy);

    idle.truncate(connections / 2);
    let busy = crowd.come_back(connections / 2);
    phases.push(observe("and half of all come back at once", broker, phase).await?);
    drop(busy);

    let busy = crowd.giants(20).await?;
    phases.push(observe("and giant topics and filters", broker, phase).await?);
    drop((busy, idle));
    Ok(phases)
}

/// As many files as the system lets us have.
fn allow_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        eprintln!("the limit of open files stays as it is: {error}");
    }
}

/// Lets the bystander go on for a while, and says how it was.
async fn observe(name: &'static str, broker: &Endpoint, phase: Duration) -> Result<Phase, BenchError> {
    let broker = broker.clone();
    let run = move || -> Result<Phase, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| BenchError::io("start", "the bystander's runtime", source))?;
        LocalSet::new().block_on(&runtime, stand_by(name, &broker, phase))
    };
    match tokio::task::spawn_blocking(run).await {
        Ok(phase) => phase,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn stand_by(name: &'static str, broker: &Endpoint, phase: Duration) -> Result<Phase, BenchError> {
    let topic = format!("bystander/{}/{}", std::process::id(), name.len());
    let mut client = Client::connect(&broker.address, &topic, &Login::default()).await?;
    client.subscribe(&topic, QoS::AtLeastOnce).await?;
    let template = Template::new(&topic, QoS::AtLeastOnce, PAYLOAD_BYTES);
    let Client { mut read, mut write, input, .. } = client;
    let (began, mut latency) = (Instant::now(), histogram());
    let count = (phase.as_nanos() / EVERY.as_nanos()) as u64;
    let (acks, mut to_ack) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    let sender = spawn_local(async move {
        let mut due = tokio::time::interval(EVERY);
        let mut sent = 0;
        while sent < count {
            let mut out = Vec::new();
            tokio::select! {
                at = due.tick() => {
                    // Stamped with the time at which it was due.
                    let sent_ns = at.into_std().saturating_duration_since(began).as_nanos() as u64;
                    template.append_to(&mut out, (sent % 60_000 + 1) as u16, Stamp { sent_ns, flow: 0 });
                    sent += 1;
                }
                Some(acks) = to_ack.recv() => out = acks,
            }
            if write.write_all(&out).await.is_err() {
                return;
            }
        }
        while let Some(acks) = to_ack.recv().await {
            if write.write_all(&acks).await.is_err() {
                return;
            }
        }
    });
    let mut input = Input::new(input);
    let mut heard = 0;
    let all = async {
        while heard < count {
            heard += hear(&mut input, began, &mut latency, &acks);
            if heard < count {
                input.fill(&mut read).await?;
            }
        }
        Ok::<(), BenchError>(())
    };
    if let Ok(done) = timeout(phase + LATE_MAX, all).await {
        done?;
    }
    sender.abort();
    // A broker that is gone shows soon enough.
    let rss_kib = broker.pid.and_then(|pid| process::resident_kib(&[pid]).ok());
    Ok(Phase::of(name, count, heard, &latency, rss_kib))
}

fn hear(
    input: &mut Input,
    began: Instant,
    latency: &mut Histogram<u64>,
    acks: &tokio::sync::mpsc::UnboundedSender<Vec<u8>>,
) -> u64 {
    let now_ns = began.elapsed().as_nanos() as u64;
    let (mut heard, mut out) = (0, Vec::new());
    while let Some(packet) = input.next(PAYLOAD_BYTES) {
        if let Heard::Message { packet_id, stamp } = packet {
            heard += 1;
            latency.saturating_record(now_ns.saturating_sub(stamp.sent_ns));
            packet_id.into_iter().for_each(|id| append_puback(&mut out, id));
        }
    }
    if !out.is_empty() {
        let _ = acks.send(out); // its other end is gone when all is over
    }
    heard
}

impl Phase {
    fn of(
        name: &'static str,
        sent: u64,
        heard: u64,
        latency: &Histogram<u64>,
        rss_kib: Option<u64>,
    ) -> Phase {
        let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1e6;
        let (p50_ms, p99_ms, p999_ms, max_ms) = (ms(0.5), ms(0.99), ms(0.999), ms(1.0));
        let phase = Phase { name, sent, lost: sent - heard, p50_ms, p99_ms, p999_ms, max_ms, rss_kib };
        let rss = rss_kib.map_or_else(|| "–".to_owned(), |kib| format!("{:.0}", kib as f64 / 1024.0));
        println!(
            "| {name} | {sent} | {} | {p50_ms:.2} | {p99_ms:.2} | {p999_ms:.2} | {max_ms:.2} | {rss} |",
            phase.lost
        );
        phase
    }
}

/// What is done to the broker. Nothing here fails: who is refused or closed tries again or lets it be.
struct Crowd {
    address: Rc<str>,
    size: usize,
    next: Rc<Cell<usize>>,
}

/// Tasks that end when this is dropped.
struct Busy(Vec<AbortHandle>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Crowd {
    /// The next loopback address and a name.
    fn ticket(&self) -> (IpAddr, String) {
        let number = self.next.replace(self.next.get() + 1);
        let group = number / PER_ADDRESS;
        let ip = Ipv4Addr::new(127, 1, (group / 200) as u8, (group % 200 + 1) as u8);
        (ip.into(), format!("soak-{}-{number}", std::process::id()))
    }

    async fn open_all(&self, count: usize) -> Vec<Client> {
        let one = |_| async {
            let (from, name) = self.ticket();
            Client::connect_from(Some(from), &self.address, &name).await.ok()
        };
        stream::iter(0..count)
            .map(one)
            .buffer_unordered(OPENING)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    /// Subscribers that never read, and a publisher who sends them much.
    async fn slow_readers(&self, count: usize) -> Result<Busy, BenchError> {
        let mut readers = Vec::new();
        for _ in 0..count {
            let (from, name) = self.ticket();
            let mut client = Client::connect_from(Some(from), &self.address, &name).await?;
            client.subscribe("soak/much", QoS::AtLeastOnce).await?;
            readers.push(client);
        }
        let (from, name) = self.ticket();
        let mut publisher = Client::connect_from(Some(from), &self.address, &name).await?;
        let frame = frame_of("soak/much", 8_000, QoS::AtMostOnce);
        let task = spawn_local(async move {
            while publisher.send_bytes(&frame).await.is_ok() {
                sleep(Duration::from_millis(1)).await;
            }
            drop(readers);
        });
        Ok(Busy(vec![task.abort_handle()]))
    }

    /// Sockets that are opened, say nothing, and are opened again.
    fn silent_sockets(&self, count: usize) -> Busy {
        let sockets = (0..count).map(|_| {
            let (address, (from, _)) = (Rc::clone(&self.address), self.ticket());
            let task = spawn_local(async move {
                loop {
                    let socket = open_from(Some(from), &address).await;
                    sleep(Duration::from_secs(2)).await;
                    drop(socket);
                }
            });
            task.abort_handle()
        });
        Busy(sockets.collect())
    }

    /// Clients that come, stay a moment and come again.
    fn come_back(&self, count: usize) -> Busy {
        let each = self.size.div_ceil(OPENING).max(1);
        let tasks = (0..count.div_ceil(each)).map(|_| {
            let address = Rc::clone(&self.address);
            let tickets: Vec<_> = (0..each).map(|_| self.ticket()).collect();
            let task = spawn_local(async move {
                loop {
                    let mut open = Vec::new();
                    for (from, name) in &tickets {
                        open.push(Client::connect_from(Some(*from), &address, name).await);
                    }
                    drop(open);
                }
            });
            task.abort_handle()
        });
        Busy(tasks.collect())
    }

    /// Topics of 60 kB with thousands of levels, filters as deep as they may be, messages of a megabyte.
    async fn giants(&self, count: usize) -> Result<Busy, BenchError> {
        let deep = "a/".repeat(30_000);
        let frames = [
            frame_of(deep.trim_end_matches('/'), 100, QoS::AtMostOnce),
            frame_of(&"b".repeat(60_000), 100, QoS::AtMostOnce),
            frame_of("soak/giant", 1_000_000, QoS::AtMostOnce),
        ];
        let frames: Rc<[Vec<u8>; 3]> = Rc::new(frames);
        let mut tasks = Vec::new();
        for _ in 0..count {
            let (from, name) = self.ticket();
            let mut client = Client::connect_from(Some(from), &self.address, &name).await?;
            client.subscribe(&format!("{}#", "+/".repeat(100)), QoS::AtMostOnce).await?;
            let frames = Rc::clone(&frames);
            let task = spawn_local(async move {
                let mut turn = 0;
                while client.send_bytes(&frames[turn % frames.len()]).await.is_ok() {
                    turn += 1;
                    sleep(Duration::from_millis(20)).await;
                }
            });
            tasks.push(task.abort_handle());
        }
        Ok(Busy(tasks))
    }
}

fn frame_of(topic: &str, payload_bytes: usize, qos: QoS) -> Vec<u8> {
    let payload = vec![b'x'; payload_bytes];
    let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
    let properties = Default::default();
    let publish = Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload: &payload };
    let mut frame = Vec::new();
    mqtt::encode_publish(&publish, Version::V5, &mut frame);
    frame
}
