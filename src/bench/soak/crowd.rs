//! A crowd: a process that holds connections to a broker and does to it what it is told, line by line.
//!
//! Nothing here fails but at the beginning of an act: who is refused or closed by the broker tries again, or lets it be.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::super::Options;
use super::super::client::{Client, Login, open_from, tls_trusting};
use super::super::run::BenchError;
use super::{Act, Part};
use crate::mqtt::{self, Packet, PacketId, Publish, QoS, Version};

/// How many connections are opened at a time.
const OPENING: usize = 256;
/// How many connections share a loopback address: fewer than there are ports.
const PER_ADDRESS: usize = 10_000;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long those who come back stay.
const STAY: Duration = Duration::from_secs(1);
/// How long a crowd waits that leaves at once: the bystander has begun by then.
const HEAD_START: Duration = Duration::from_millis(300);
/// The beginning of a CONNECT, and that of a ClientHello.
const HALVES: [&[u8]; 3] = [b"", b"\x10\x20\0\x04MQTT\x05", b"\x16\x03\x01\x02\0\x01"];

/// Does what the lines of standard input say, and answers each with how many connections are open.
pub(super) async fn run(options: &Options, part: &Part) -> Result<(), BenchError> {
    let address: Rc<str> = part.address.as_str().into();
    let tls = options.cafile.as_deref().map(tls_trusting).transpose()?;
    let login = Login { tls, ..Login::default() };
    let crowd = Rc::new(Crowd {
        address,
        login,
        size: Cell::new(options.connections),
        first: part.number << 22,
        next: Cell::default(),
        idle: RefCell::default(),
    });
    let mut busy = Busy::default();
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        drop(std::mem::take(&mut busy));
        let Ok(act) = serde_json::from_str(&line) else { break };
        busy = crowd.begin(act).await?;
        println!("{}", crowd.idle.borrow().len());
    }
    Ok(())
}

/// Standard input, line by line.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

struct Crowd {
    address: Rc<str>,
    login: Login,
    size: Cell<usize>,
    /// The first of this crowd's numbers; other crowds have others.
    first: usize,
    next: Cell<usize>,
    idle: RefCell<Vec<Client>>,
}

/// Tasks that end when this is dropped.
#[derive(Default)]
struct Busy(Vec<AbortHandle>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Busy {
    fn push(&mut self, task: impl Future<Output = ()> + 'static) {
        self.0.push(spawn_local(task).abort_handle());
    }
}

impl Crowd {
    async fn begin(self: &Rc<Self>, act: Act) -> Result<Busy, BenchError> {
        let mut busy = Busy::default();
        match act {
            Act::Come => {
                let crowd = Rc::clone(self);
                busy.push(async move { crowd.fill().await });
            }
            Act::Stay => self.fill().await,
            Act::Ping => {
                let crowd = Rc::clone(self);
                busy.push(async move { crowd.ping().await });
            }
            Act::Readers => self.slow_readers(&mut busy).await?,
            Act::Silence => self.silent_sockets(&mut busy),
            Act::Return => self.come_back(&mut busy),
            Act::Handshakes => self.handshakes(&mut busy),
            Act::Giants => self.giants(&mut busy).await?,
            Act::Searches => self.searches(&mut busy).await?,
            Act::Leave => {
                self.size.set(0);
                let crowd = Rc::clone(self);
                // Not before the bystander stands by.
                busy.push(async move {
                    sleep(HEAD_START).await;
                    drop(crowd.idle.take());
                });
            }
        }
        Ok(busy)
    }

    /// A share of the crowd.
    fn share(&self, part: usize) -> usize {
        self.size.get().div_ceil(part)
    }

    /// The next loopback address and a name.
    fn ticket(&self) -> (IpAddr, String) {
        let number = self.first + self.next.replace(self.next.get() + 1);
        let group = number / PER_ADDRESS;
        let ip = Ipv4Addr::new(127, 1 + (group / 50_000) as u8, (group / 200) as u8, (group % 200 + 1) as u8);
        (ip.into(), format!("soak-{number}"))
    }

    async fn open(&self) -> Result<Client, BenchError> {
        let (from, name) = self.ticket();
        let opened = timeout(PATIENCE, Client::connect_from(Some(from), &self.address, &name)).await;
        opened.unwrap_or(Err(BenchError::NotDelivered(PATIENCE)))
    }

    /// Opens idle connections until all are there; who is refused tries again, a few times.
    async fn fill(&self) {
        for _ in 0..3 {
            let missing = self.size.get().saturating_sub(self.idle.borrow().len());
            let mut opened = stream::iter(0..missing).map(|_| self.open()).buffer_unordered(OPENING);
            while let Some(client) = opened.next().await {
                self.idle.borrow_mut().extend(client);
            }
        }
    }

    /// Pings on all idle connections at once; those that are not answered are given up.
    async fn ping(&self) {
        let clients = self.idle.take();
        let ping = |mut client: Client| async move {
            client.send(&Packet::PingReq).await.ok()?;
            let mut answer = [0; 2];
            timeout(PATIENCE, client.read.read_exact(&mut answer)).await.ok()?.ok()?;
            (answer == [0xd0, 0]).then_some(client)
        };
        let answered = join_all(clients.into_iter().map(ping)).await;
        self.idle.borrow_mut().extend(answered.into_iter().flatten());
    }

    /// Subscribers that never read, and two publishers who send them much.
    async fn slow_readers(self: &Rc<Self>, busy: &mut Busy) -> Result<(), BenchError> {
        let mut readers = Vec::new();
        for _ in 0..self.share(500) {
            let mut client = self.open().await?;
            client.subscribe("soak/much", QoS::AtLeastOnce).await?;
            readers.push(client);
        }
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let mut publisher = self.open().await?;
            let frame = frame_of("soak/much", 8_000, qos, false);
            let frame = if qos == QoS::AtMostOnce { frame.repeat(4) } else { frame };
            let mut answers = vec![0; 4096];
            busy.push(async move {
                while publisher.send_bytes(&frame).await.is_ok() {
                    if qos == QoS::AtLeastOnce && !matches!(publisher.read.read(&mut answers).await, Ok(1..))
                    {
                        return;
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            });
        }
        busy.push(async move {
            let _readers = readers;
            std::future::pending().await
        });
        Ok(())
    }

    /// Sockets that are opened, say nothing or half a word, and are opened again.
    fn silent_sockets(self: &Rc<Self>, busy: &mut Busy) {
        for number in 0..self.share(20) {
            let crowd = Rc::clone(self);
            busy.push(async move {
                loop {
                    let socket = open_from(Some(crowd.ticket().0), &crowd.address).await;
                    if let Ok(mut socket) = socket {
                        let _ = socket.write_all(HALVES[number % HALVES.len()]).await;
                        sleep(Duration::from_secs(2)).await;
                    }
                    sleep(Duration::from_millis(10)).await;
                }
            });
        }
    }

    /// Half of all leave and come again, all at once, again and again; every second one is cut off.
    fn come_back(self: &Rc<Self>, busy: &mut Busy) {
        let half = self.size.get() / 2;
        self.idle.borrow_mut().truncate(half);
        let crowd = Rc::clone(self);
        busy.push(async move {
            loop {
                let began = Instant::now();
                let open = async |number: usize| {
                    let (from, name) = crowd.ticket();
                    let stream = open_from(Some(from), &crowd.address).await.ok()?;
                    if number.is_multiple_of(2) {
                        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok()?;
                    }
                    connect_on(stream, &name).await
                };
                let opening = (0..half).map(|number| timeout(PATIENCE, open(number)));
                let open: Vec<_> = join_all(opening).await.into_iter().flatten().flatten().collect();
                eprintln!("{} of {half} came back within {:.1} s", open.len(), began.elapsed().as_secs_f64());
                sleep(STAY).await;
            }
        });
    }

    /// Clients that do little but shake hands over TLS.
    fn handshakes(self: &Rc<Self>, busy: &mut Busy) {
        let Some(address) = tls_address(&self.address) else { return };
        for _ in 0..self.share(50) {
            let (crowd, address) = (Rc::clone(self), address.clone());
            busy.push(async move {
                loop {
                    let name = crowd.ticket().1;
                    let opened = Client::connect(&address, &name, &crowd.login).await;
                    sleep(Duration::from_millis(if opened.is_ok() { 1 } else { 100 })).await;
                }
            });
        }
    }

    /// Topics of 60 kB with thousands of levels, filters as deep as they may be, messages of a megabyte.
    async fn giants(self: &Rc<Self>, busy: &mut Busy) -> Result<(), BenchError> {
        let deep = "a/".repeat(30_000);
        let frames: Rc<[Vec<u8>; 3]> = Rc::new([
            frame_of(deep.trim_end_matches('/'), 100, QoS::AtMostOnce, false),
            frame_of(&"b".repeat(60_000), 100, QoS::AtMostOnce, false),
            frame_of("soak/giant", 1_000_000, QoS::AtMostOnce, false),
        ]);
        for _ in 0..20 {
            let mut client = self.open().await?;
            client.subscribe(&format!("{}#", "+/".repeat(100)), QoS::AtMostOnce).await?;
            let frames = Rc::clone(&frames);
            busy.push(async move {
                let mut turn = 0;
                while client.send_bytes(&frames[turn % frames.len()]).await.is_ok() {
                    turn += 1;
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
        Ok(())
    }

    /// Clients that ask for all retained messages again and again; there are many.
    async fn searches(self: &Rc<Self>, busy: &mut Busy) -> Result<(), BenchError> {
        let mut publisher = self.open().await?;
        for number in 0..self.size.get().min(10_000) {
            let topic = format!("soak/kept/{}/{number}", self.first);
            publisher.send_bytes(&frame_of(&topic, 64, QoS::AtMostOnce, true)).await?;
        }
        for _ in 0..20 {
            let mut client = self.open().await?;
            client.subscribe("soak/kept/#", QoS::AtMostOnce).await?;
            let mut frame = Vec::new();
            super::super::client::append_subscribe(&mut frame, PacketId::MIN, "soak/kept/#", QoS::AtMostOnce);
            let Client { mut read, mut write, .. } = client;
            busy.push(async move {
                while write.write_all(&frame).await.is_ok() {
                    sleep(Duration::from_millis(50)).await;
                }
            });
            busy.push(async move {
                let mut space = vec![0; 64 * 1024];
                while matches!(read.read(&mut space).await, Ok(1..)) {}
            });
        }
        Ok(())
    }
}

/// CONNECT on a socket that is there, and its answer.
async fn connect_on(mut stream: TcpStream, client_id: &str) -> Option<TcpStream> {
    let connect = mqtt::Connect::new(client_id);
    let mut frame = Vec::new();
    Packet::Connect(connect).encode(Version::V5, &mut frame);
    stream.write_all(&frame).await.ok()?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.ok()?;
    (answer[0] == 0x20 && answer[3] == 0).then_some(stream)
}

/// The listener over TLS, by the soak's rule: one port above.
fn tls_address(address: &str) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    Some(format!("{host}:{}", port.parse::<u16>().ok()?.checked_add(1)?))
}

fn frame_of(topic: &str, payload_bytes: usize, qos: QoS, retain: bool) -> Vec<u8> {
    let payload = vec![b'x'; payload_bytes];
    let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
    let properties = Default::default();
    let publish = Publish { dup: false, qos, retain, topic, packet_id, properties, payload: &payload };
    let mut frame = Vec::new();
    mqtt::encode_publish(&publish, Version::V5, &mut frame);
    frame
}
