//! The bystander: a process that publishes to itself at QoS 1, and now and then a newcomer that just wants in.
//!
//! It is a process of its own, which the soak puts ahead of the crowds, with plain threads and sockets that block: no timer that
//! rounds, no runtime that the crowds keep busy. A figure is the time from the moment when a message was due to the moment
//! when it arrived, so a broker that stalls is charged for all that waited (no coordinated omission).

use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::frame::{Heard, Stamp, Template, scan};
use super::super::run::BenchError;
use crate::mqtt::{Connect, Packet, PacketId, QoS, Version};

const PAYLOAD_BYTES: usize = 64;
/// The bystander's pace.
const EVERY: Duration = Duration::from_millis(5);
/// A newcomer's.
const NEWCOMERS: Duration = Duration::from_millis(250);
/// How long the last messages, and a newcomer's way in, may take.
const LATE_MAX: Duration = Duration::from_secs(10);

/// What a bystander felt for a while.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Felt {
    pub(super) sent: u64,
    /// How long each message took that arrived.
    pub(super) took_us: Vec<u64>,
    /// How long each newcomer took until its CONNACK; who did not get in, the longest there is.
    pub(super) in_us: Vec<u64>,
}

/// Stands by whenever a line on standard input says for how many seconds, and answers with what it felt.
pub(super) fn run(address: &str) -> Result<(), BenchError> {
    let topic = format!("bystander/{}", std::process::id());
    let stream = connect(address, &topic).map_err(|source| BenchError::io("connect to", address, source))?;
    for (round, line) in io::stdin().lock().lines().enumerate() {
        let line = line.map_err(|source| BenchError::io("read", "standard input", source))?;
        let Ok(seconds) = line.parse() else { break };
        let felt = Watch { stream: &stream, topic: &topic, round: round as u32 };
        let felt = felt
            .run(address, Duration::from_secs_f64(seconds))
            .map_err(|source| BenchError::io("stay with", address, source))?;
        println!("{}", serde_json::to_string(&felt).expect("figures are plain data"));
    }
    Ok(())
}

/// Connects, and subscribes to its own topic.
fn connect(address: &str, topic: &str) -> io::Result<TcpStream> {
    let stream = open(address, topic)?;
    let mut frame = Vec::new();
    super::super::client::append_subscribe(&mut frame, PacketId::MIN, topic, QoS::AtLeastOnce);
    (&stream).write_all(&frame)?;
    await_packet(&stream, 0x90)?;
    Ok(stream)
}

/// Connects, and waits until it is let in.
fn open(address: &str, client_id: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LATE_MAX))?;
    let connect = Connect::new(client_id);
    let mut frame = Vec::new();
    Packet::Connect(connect).encode(Version::V5, &mut frame);
    (&stream).write_all(&frame)?;
    await_packet(&stream, 0x20)?;
    Ok(stream)
}

/// Reads up to the end of one packet, which must begin with `first`.
fn await_packet(mut stream: &TcpStream, first: u8) -> io::Result<()> {
    let mut input = Vec::new();
    loop {
        match scan(&input, PAYLOAD_BYTES) {
            Some((Heard::Other(byte), _)) if byte == first => return Ok(()),
            Some(other) => return Err(io::Error::other(format!("the broker answered {other:?}"))),
            None => {}
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        input.push(byte[0]);
    }
}

/// One stretch of standing by.
struct Watch<'a> {
    stream: &'a TcpStream,
    topic: &'a str,
    /// Which it is: what arrives late is of an earlier one.
    round: u32,
}

impl Watch<'_> {
    fn run(&self, address: &str, period: Duration) -> io::Result<Felt> {
        let (began, writing) = (Instant::now(), Mutex::new(self.stream));
        let count = (period.as_nanos() / EVERY.as_nanos()) as u64;
        thread::scope(|scope| {
            let sender = scope.spawn(|| self.send(&writing, began, count));
            let newcomers = scope.spawn(|| come_in(address, began, period));
            let took_us = self.hear(&writing, began, count, period + LATE_MAX)?;
            sender.join().expect("a sender does not panic")?;
            let in_us = newcomers.join().expect("a newcomer does not panic");
            Ok(Felt { sent: count, took_us, in_us })
        })
    }

    fn send(&self, writing: &Mutex<&TcpStream>, began: Instant, count: u64) -> io::Result<()> {
        let template = Template::new(self.topic, QoS::AtLeastOnce, PAYLOAD_BYTES);
        let mut out = Vec::new();
        for number in 0..count {
            let due = EVERY * number as u32;
            thread::sleep(due.saturating_sub(began.elapsed()));
            out.clear();
            let stamp = Stamp { sent_ns: due.as_nanos() as u64, flow: self.round };
            template.append_to(&mut out, (number % 60_000 + 1) as u16, stamp);
            write(writing, &out)?;
        }
        Ok(())
    }

    /// Takes what arrives until that is all, or for so long.
    fn hear(
        &self,
        writing: &Mutex<&TcpStream>,
        began: Instant,
        count: u64,
        patience: Duration,
    ) -> io::Result<Vec<u64>> {
        let (mut stream, mut input, mut took_us) = (self.stream, Vec::new(), Vec::new());
        while (took_us.len() as u64) < count {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            stream.set_read_timeout(Some(left))?;
            let mut space = [0; 16 * 1024];
            match stream.read(&mut space) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => input.extend_from_slice(&space[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            let (now_ns, mut acks, mut used) = (began.elapsed().as_nanos() as u64, Vec::new(), 0);
            while let Some((heard, length)) = scan(&input[used..], PAYLOAD_BYTES) {
                used += length;
                let Heard::Message { answer, stamp } = heard else { continue };
                answer.into_iter().for_each(|answer| answer.append_to(&mut acks));
                if stamp.flow == self.round {
                    took_us.push(now_ns.saturating_sub(stamp.sent_ns) / 1_000);
                }
            }
            input.drain(..used);
            write(writing, &acks)?;
        }
        Ok(took_us)
    }
}

fn write(writing: &Mutex<&TcpStream>, bytes: &[u8]) -> io::Result<()> {
    writing.lock().expect("nobody panics with it").write_all(bytes)
}

/// Newcomers, one after the other.
fn come_in(address: &str, began: Instant, period: Duration) -> Vec<u64> {
    let mut in_us = Vec::new();
    let mut due = Duration::ZERO;
    while due < period {
        thread::sleep(due.saturating_sub(began.elapsed()));
        let asked = Instant::now();
        let name = format!("newcomer/{}/{}", std::process::id(), in_us.len());
        let took = match open(address, &name) {
            Ok(stream) => {
                let took = asked.elapsed();
                let _ = stream.shutdown(Shutdown::Both); // it may be gone
                took
            }
            Err(_) => LATE_MAX,
        };
        in_us.push(took.as_micros() as u64);
        due = (due + NEWCOMERS).max(began.elapsed());
    }
    in_us
}
