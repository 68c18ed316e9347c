//! A broker that does as little as a broker can: the floor under every figure.
//!
//! It matches topics exactly (a filter `prefix/+` too, for the fan-in), keeps no state, acknowledges at once, copies
//! frames as they came with the packet id patched, and writes once per connection and turn. It checks nothing and loses
//! everything: what it costs is what the sockets cost. Only for scenarios within one broker.

use std::cell::RefCell;
use std::collections::HashMap as StdHashMap;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};

use super::client::READ_BYTES;
use super::frame::{append_puback, packet_at};
use super::run::BenchError;
use crate::mqtt::{self, ConnAck, Packet, ReasonCode, SubAck, Version};

/// Serves until the process ends.
pub(super) async fn serve(port: u16) -> Result<(), BenchError> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    let listener = listener.map_err(|source| BenchError::io("listen on", &port.to_string(), source))?;
    let floor = Rc::new(RefCell::new(Floor::default()));
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
    outputs: HashMap<usize, Output>,
    recipients: HashMap<Vec<u8>, Vec<usize>>,
    dirty: Vec<usize>,
    connections: usize,
}

struct Output {
    stream: Rc<TcpStream>,
    bytes: Vec<u8>,
    packet_id: u16,
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
                floor.borrow_mut().flush();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    floor.borrow_mut().close(id);
}

impl Floor {
    fn open(&mut self, stream: &Rc<TcpStream>) -> usize {
        self.connections += 1;
        let output = Output { stream: Rc::clone(stream), bytes: Vec::new(), packet_id: 0 };
        self.outputs.insert(self.connections, output);
        self.connections
    }

    fn close(&mut self, id: usize) {
        self.outputs.remove(&id);
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
                4 => {} // nothing waits for it
                _ => self.control(id, packet),
            }
            used += total;
        }
        used
    }

    fn publish(&mut self, from: usize, packet: &[u8], body_at: usize) {
        let topic_bytes = usize::from(u16::from_be_bytes([packet[body_at], packet[body_at + 1]]));
        let topic = &packet[body_at + 2..][..topic_bytes];
        let acknowledged = packet[0] & 0b110 != 0;
        let packet_id_at = body_at + 2 + topic_bytes;
        if acknowledged {
            let packet_id = u16::from_be_bytes([packet[packet_id_at], packet[packet_id_at + 1]]);
            append_puback(output(&mut self.outputs, &mut self.dirty, from), packet_id);
        }
        let parent = topic.iter().rposition(|byte| *byte == b'/').map_or(topic, |at| &topic[..at]);
        for recipients in [self.recipients.get(topic), self.recipients.get(parent)].into_iter().flatten() {
            for to in recipients {
                let out = output(&mut self.outputs, &mut self.dirty, *to);
                let at = out.len();
                out.extend_from_slice(packet);
                if acknowledged {
                    let output = self.outputs.get_mut(to).expect("a recipient is open");
                    output.packet_id = output.packet_id % u16::MAX + 1;
                    output.bytes[at + packet_id_at..][..2].copy_from_slice(&output.packet_id.to_be_bytes());
                }
            }
        }
    }

    /// CONNECT and SUBSCRIBE; everything else goes unanswered.
    fn control(&mut self, from: usize, packet: &[u8]) {
        let out = output(&mut self.outputs, &mut self.dirty, from);
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

    fn flush(&mut self) {
        let mut late = Vec::new();
        for id in self.dirty.drain(..) {
            let Some(output) = self.outputs.get_mut(&id) else { continue };
            if let Ok(count) = output.stream.try_write(&output.bytes) {
                output.bytes.drain(..count);
            }
            late.extend((!output.bytes.is_empty()).then_some(id));
        }
        self.dirty = late;
    }
}

/// The bytes that wait for a connection, which is marked as having some.
fn output<'a>(outputs: &'a mut HashMap<usize, Output>, dirty: &mut Vec<usize>, id: usize) -> &'a mut Vec<u8> {
    let output = outputs.get_mut(&id).expect("it is open");
    if output.bytes.is_empty() {
        dirty.push(id);
    }
    &mut output.bytes
}
