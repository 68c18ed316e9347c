//! The steady state: publishers that keep a window of messages under way, subscribers that count what arrives.
//!
//! A *flow* is one publisher's account. It lets the publisher go on when messages are confirmed: delivered to every
//! subscriber they should reach and, above QoS 0, acknowledged. Everything runs on one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::client::{Client, READ_BYTES, ReadHalf, WriteHalf};
use super::frame::{Heard, Stamp, Template, append_puback, scan};
use super::run::BenchError;

/// The flow of messages that only show that a subscription is in force.
pub(super) const PRIMING: u32 = u32::MAX;

/// One publisher's account.
pub(super) struct Flow {
    pub(super) index: u32,
    /// So many deliveries …
    pub(super) deliveries: u64,
    /// … are due for so many messages.
    pub(super) messages: u64,
    pub(super) window: u64,
    pub(super) acknowledged: bool,
    pub(super) sent: Cell<u64>,
    pub(super) acked: Cell<u64>,
    delivered: Cell<u64>,
    lost: Cell<u64>,
    wake: Notify,
}

impl Flow {
    pub(super) fn new(
        index: u32,
        (deliveries, messages): (u64, u64),
        window: u64,
        acknowledged: bool,
    ) -> Flow {
        let zero = || Cell::new(0);
        Flow {
            index,
            deliveries,
            messages,
            window,
            acknowledged,
            sent: zero(),
            acked: zero(),
            delivered: zero(),
            lost: zero(),
            wake: Notify::new(),
        }
    }

    pub(super) fn confirmed(&self) -> u64 {
        // Of subscribers that are away only acknowledgements tell.
        if self.deliveries == 0 {
            return self.acked.get();
        }
        let delivered = self.delivered.get() * self.messages / self.deliveries + self.lost.get();
        if self.acknowledged { delivered.min(self.acked.get()) } else { delivered }
    }

    fn room(&self) -> u64 {
        self.window.saturating_sub(self.sent.get().saturating_sub(self.confirmed()))
    }

    /// Gives up what is under way: the broker dropped it. Returns how many messages that were.
    pub(super) fn forgive(&self) -> u64 {
        let missing = self.sent.get().saturating_sub(self.confirmed());
        self.lost.set(self.lost.get() + missing);
        self.acked.set(self.sent.get());
        self.wake.notify_one();
        missing
    }
}

/// What the subscribers of a run have seen.
pub(super) struct Recorder {
    pub(super) began: Instant,
    pub(super) deliveries: u64,
    /// Publish-to-delivery times in ns; only while `measuring`.
    pub(super) latency: Histogram<u64>,
    pub(super) measuring: bool,
    /// Every so many deliveries one is timed: timing all would cost more than receiving them.
    pub(super) timed_every: u64,
    /// Which subscribers have seen a priming message.
    pub(super) primed: Vec<bool>,
}

impl Recorder {
    fn take(&mut self, stamp: Stamp, now_ns: u64) {
        self.deliveries += 1;
        if self.measuring && self.deliveries.is_multiple_of(self.timed_every) {
            self.latency.saturating_record(now_ns.saturating_sub(stamp.sent_ns));
        }
    }
}

/// What the tasks of one run share.
pub(super) struct Shared {
    pub(super) flows: Vec<Flow>,
    pub(super) recorder: RefCell<Recorder>,
    pub(super) payload_bytes: usize,
    /// Publishers at a rate send nothing more.
    pub(super) is_over: Cell<bool>,
}

impl Shared {
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.recorder.borrow().began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Publishes over `templates` in turn whenever an eighth of the window is free, as much as is free in one write.
pub(super) async fn publish(
    mut write: WriteHalf,
    templates: Vec<Template>,
    shared: Rc<Shared>,
    flow: usize,
) -> Result<(), BenchError> {
    let flow = &shared.flows[flow];
    let batch_min = (flow.window / 8).max(1);
    let mut out = Vec::new();
    let (mut packet_id, mut turn) = (0_u16, 0);
    loop {
        let room = flow.room();
        if room < batch_min {
            flow.wake.notified().await;
            continue;
        }
        let stamp = Stamp { sent_ns: shared.now_ns(), flow: flow.index };
        out.clear();
        for _ in 0..room {
            packet_id = packet_id % u16::MAX + 1;
            templates[turn].append_to(&mut out, packet_id, stamp);
            turn = (turn + 1) % templates.len();
        }
        flow.sent.set(flow.sent.get() + room);
        write.write_all(&out).await.map_err(|source| BenchError::io("write to", "the broker", source))?;
    }
}

/// Counts the acknowledgements that a publisher hears.
pub(super) async fn hear_acks(mut read: ReadHalf, shared: Rc<Shared>, flow: usize) -> Result<(), BenchError> {
    let mut input = Input::new(Vec::new());
    let flow = &shared.flows[flow];
    loop {
        input.fill(&mut read).await?;
        let mut acks = 0;
        while let Some(heard) = input.next(shared.payload_bytes) {
            match heard {
                Heard::Acknowledged => acks += 1,
                other => return Err(BenchError::Peer(format!("sent a publisher {other:?}"))),
            }
        }
        flow.acked.set(flow.acked.get() + acks);
        flow.wake.notify_one();
    }
}

/// Counts and acknowledges what one subscriber gets; `index` is its place in `Recorder::primed`.
pub(super) async fn receive(client: Client, shared: Rc<Shared>, index: usize) -> Result<(), BenchError> {
    let Client { mut read, mut write, input, .. } = client;
    let mut input = Input::new(input);
    let mut acks = Vec::new();
    loop {
        hear(&mut input, &shared, index, &mut acks)?;
        if !acks.is_empty() {
            write
                .write_all(&acks)
                .await
                .map_err(|source| BenchError::io("write to", "the broker", source))?;
            acks.clear();
        }
        input.fill(&mut read).await?;
    }
}

fn hear(input: &mut Input, shared: &Shared, index: usize, acks: &mut Vec<u8>) -> Result<(), BenchError> {
    let now_ns = shared.now_ns();
    let mut recorder = shared.recorder.borrow_mut();
    let mut touched: Option<&Flow> = None;
    while let Some(heard) = input.next(shared.payload_bytes) {
        let Heard::Message { packet_id, stamp } = heard else {
            return Err(BenchError::Peer(format!("sent a subscriber {heard:?}")));
        };
        if let Some(packet_id) = packet_id {
            append_puback(acks, packet_id);
        }
        let Some(flow) = shared.flows.get(stamp.flow as usize) else {
            recorder.primed[index] = true;
            continue;
        };
        flow.delivered.set(flow.delivered.get() + 1);
        recorder.take(stamp, now_ns);
        if let Some(before) = touched.replace(flow).filter(|before| !std::ptr::eq(*before, flow)) {
            before.wake.notify_one();
        }
    }
    if let Some(flow) = touched {
        flow.wake.notify_one();
    }
    Ok(())
}

/// Bytes as they come in: `bytes[begin..end]` are not understood yet.
pub(super) struct Input {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Input {
    pub(super) fn new(read_ahead: Vec<u8>) -> Input {
        let end = read_ahead.len();
        let mut bytes = read_ahead;
        bytes.resize(READ_BYTES.max(2 * end), 0);
        Input { bytes, begin: 0, end }
    }

    pub(super) fn next(&mut self, payload_bytes: usize) -> Option<Heard> {
        let (heard, length) = scan(&self.bytes[self.begin..self.end], payload_bytes)?;
        self.begin += length;
        Some(heard)
    }

    pub(super) async fn fill(&mut self, read: &mut ReadHalf) -> Result<(), BenchError> {
        self.bytes.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        if self.end == self.bytes.len() {
            self.bytes.resize(2 * self.bytes.len(), 0);
        }
        let count = read.read(&mut self.bytes[self.end..]).await;
        match count.map_err(|source| BenchError::io("read from", "the broker", source))? {
            0 => Err(BenchError::Peer("closed the connection".to_owned())),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_as_messages_are_confirmed() {
        let flow = Flow::new(0, (2, 1), 10, true);
        assert_eq!(flow.room(), 10);
        flow.sent.set(10);
        flow.acked.set(10);
        flow.delivered.set(6); // two deliveries make one message
        assert_eq!(flow.room(), 3);
        flow.acked.set(1);
        assert_eq!(flow.room(), 1);
    }

    #[test]
    fn what_is_given_up_is_counted_and_opens_the_window() {
        let flow = Flow::new(0, (1, 1), 10, true);
        flow.sent.set(10);
        flow.delivered.set(4);
        flow.acked.set(10);
        assert_eq!(flow.forgive(), 6);
        assert_eq!(flow.room(), 10);
    }
}
