//! A broker that does as little as a broker can: the floor under every figure.
//!
//! It matches topics exactly (a filter `prefix/+` too, for the fan-in), keeps no state, acknowledges at once, copies
//! frames as they came with the packet id patched, and writes once per connection and turn: after all sockets that were
//! ready have been read. It checks nothing and loses everything: what it costs is what the sockets cost. Only for scenarios
//! within one broker.

use std::cell::RefCell;
use std::collections::HashMap as StdHashMap;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::client::READ_BYTES;
use super::frame::{Answer, packet_at};
use super::run::BenchError;
use crate::mqtt::{self, ConnAck, Packet, ReasonCode, SubAck, Version};

/// Serves until the process ends.
pub(super) async fn serve(port: u16) -> Result<(), BenchError> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    let listener = listener.map_err(|source| BenchError::io("listen on", &port.to_string(), source))?;
    let floor = Rc::new(RefCell::new(Floor::default()));
    tokio::task::spawn_local(write(Rc::clone(&floor)));
    loop {
        let (stream, _) = listener
            .accept()
            .await
            .map_err(|source| BenchError::io("accept on", &port.to_string(), source))?;
        let _ = stream.set_nodelay(true);
        tokio::task::spawn_local(connection(Rc::clone(&floor), Rc::new(stream)));
    }
}

type HashMap<K, V> = StdHashMap<K, V, foldhash::fast::RandomState>;

#[derive(Default)]
struct Floor {
    /// By connection; those that ended stay empty.
    outputs: Vec<Option<Output>>,
    recipients: HashMap<Vec<u8>, Vec<usize>>,
    /// Who has something to send.
    dirty: Vec<usize>,
    /// There is something to write.
    ready: Rc<Notify>,
}

struct Output {
    stream: Rc<TcpStream>,
    bytes: Vec<u8>,
    packet_id: u16,
}

/// Writes what all have to send. The first of a turn to read something wakes it, so it comes behind all that were ready.
async fn write(floor: Rc<RefCell<Floor>>) {
    let ready = Rc::clone(&floor.borrow().ready);
    loop {
        ready.notified().await;
        let full = floor.borrow_mut().flush();
        for (id, stream) in full {
            let floor = Rc::clone(&floor);
            tokio::task::spawn_local(async move {
                let _ = stream.writable().await;
                floor.borrow_mut().dirty.push(id);
                floor.borrow().ready.notify_one();
            });
        }
    }
}

async fn connection(floor: Rc<RefCell<Floor>>, stream: Rc<TcpStream>) {
    let id = floor.borrow_mut().open(&stream);
    let mut input = vec![0; READ_BYTES];
    let mut end = 0;
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut input[end..]) {
            Ok(0) => break,
            Ok(count) => {
                end += count;
                let used = floor.borrow_mut().handle(id, &input[..end]);
                input.copy_within(used..end, 0);
                end -= used;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    floor.borrow_mut().close(id);
}

impl Floor {
    fn open(&mut self, stream: &Rc<TcpStream>) -> usize {
        self.outputs.push(Some(Output { stream: Rc::clone(stream), bytes: Vec::new(), packet_id: 0 }));
        self.outputs.len() - 1
    }

    fn close(&mut self, id: usize) {
        self.outputs[id] = None;
        self.recipients.values_mut().for_each(|recipients| recipients.retain(|recipient| *recipient != id));
        self.recipients.retain(|_, recipients| !recipients.is_empty());
    }

    /// Takes whole packets off the front; returns how many bytes they were.
    fn handle(&mut self, id: usize, input: &[u8]) -> usize {
        let mut used = 0;
        while let Some((body_at, total)) = packet_at(&input[used..]) {
            let packet = &input[used..used + total];
            match packet[0] >> 4 {
                3 => self.publish(id, packet, body_at),
                4 | 7 => {} // nothing waits for it
                5 | 6 => self.step(id, packet, body_at),
                _ => self.control(id, packet),
            }
            used += total;
        }
        if !self.dirty.is_empty() {
            self.ready.notify_one();
        }
        used
    }

    fn publish(&mut self, from: usize, packet: &[u8], body_at: usize) {
        let topic_bytes = usize::from(u16::from_be_bytes([packet[body_at], packet[body_at + 1]]));
        let topic = &packet[body_at + 2..][..topic_bytes];
        let packet_id_at = (packet[0] & 0b110 != 0).then_some(body_at + 2 + topic_bytes);
        if let Some(at) = packet_id_at
            && let Some(output) = output(&mut self.outputs, &mut self.dirty, from)
        {
            let packet_id = u16::from_be_bytes([packet[at], packet[at + 1]]);
            Answer::to_publish(packet[0], packet_id).append_to(&mut output.bytes);
        }
        let parent = || &topic[..topic.iter().rposition(|byte| *byte == b'/').unwrap_or(topic.len())];
        let recipients = self.recipients.get(topic).or_else(|| self.recipients.get(parent()));
        for to in recipients.into_iter().flatten() {
            let Some(output) = output(&mut self.outputs, &mut self.dirty, *to) else { continue };
            let start = output.bytes.len();
            output.bytes.extend_from_slice(packet);
            if let Some(at) = packet_id_at {
                output.packet_id = output.packet_id % u16::MAX + 1;
                output.bytes[start + at..][..2].copy_from_slice(&output.packet_id.to_be_bytes());
            }
        }
    }

    /// PUBREC and PUBREL.
    fn step(&mut self, from: usize, packet: &[u8], body_at: usize) {
        if let Some(answer) = Answer::to_step(packet[0], &packet[body_at..])
            && let Some(output) = output(&mut self.outputs, &mut self.dirty, from)
        {
            answer.append_to(&mut output.bytes);
        }
    }

    /// CONNECT and SUBSCRIBE; everything else goes unanswered.
    fn control(&mut self, from: usize, packet: &[u8]) {
        let Some(Output { bytes: out, .. }) = output(&mut self.outputs, &mut self.dirty, from) else {
            return;
        };
        match mqtt::decode(packet, Version::V5, &mqtt::Limits::default()) {
            Ok(Some((Packet::Connect(_), _))) => {
                let ack = ConnAck {
                    session_present: false,
                    reason: ReasonCode::Success,
                    properties: Default::default(),
                };
                Packet::ConnAck(ack).encode(Version::V5, out);
            }
            Ok(Some((Packet::Subscribe(subscribe), _))) => {
                let reasons: Vec<u8> =
                    subscribe.filters.iter().map(|(_, options)| options.qos as u8).collect();
                let (packet_id, properties) = (subscribe.packet_id, Default::default());
                Packet::SubAck(SubAck { packet_id, properties, reasons: &reasons }).encode(Version::V5, out);
                for (filter, _) in subscribe.filters.iter() {
                    let key = filter.strip_suffix("/+").unwrap_or(filter).as_bytes().to_vec();
                    self.recipients.entry(key).or_default().push(from);
                }
            }
            _ => {}
        }
    }

    /// Returns whose sockets took less than there was.
    fn flush(&mut self) -> Vec<(usize, Rc<TcpStream>)> {
        let mut full = Vec::new();
        for id in self.dirty.drain(..) {
            let Some(output) = &mut self.outputs[id] else { continue };
            match output.stream.try_write(&output.bytes) {
                Ok(count) if count == output.bytes.len() => output.bytes.clear(),
                Ok(count) => drop(output.bytes.drain(..count)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => output.bytes.clear(), // its reader ends it
            }
            if !output.bytes.is_empty() {
                full.push((id, Rc::clone(&output.stream)));
            }
        }
        full
    }
}

/// A connection that is there and is about to get something to send.
fn output<'a>(
    outputs: &'a mut [Option<Output>],
    dirty: &mut Vec<usize>,
    id: usize,
) -> Option<&'a mut Output> {
    let output = outputs[id].as_mut()?;
    if output.bytes.is_empty() {
        dirty.push(id);
    }
    Some(output)
}
