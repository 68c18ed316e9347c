//! The steady state: publishers that keep a window of messages under way, subscribers that count what arrives.
//!
//! A *flow* is one publisher's account. It lets the publisher go on when messages are confirmed: delivered to every
//! subscriber they should reach and, above QoS 0, acknowledged (at QoS 2 by PUBCOMP). What moves nothing for long is given up, so that the load goes on;
//! it counts as lost only if it never comes. Everything runs on one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::client::{Client, READ_BYTES, ReadHalf, WriteHalf};
use super::frame::{Heard, Stamp, Template, scan};
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
    /// Deliveries that nobody waits for any more, and when the last of them were given up. Those that come nevertheless are
    /// not among them.
    given_up: Cell<u64>,
    given_up_ns: Cell<u64>,
    /// Likewise acknowledgements, which come in order.
    given_up_acks: Cell<u64>,
    /// PUBRELs that are due.
    releases: RefCell<Vec<u8>>,
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
            given_up: zero(),
            given_up_ns: zero(),
            given_up_acks: zero(),
            releases: RefCell::default(),
            wake: Notify::new(),
        }
    }

    pub(super) fn confirmed(&self) -> u64 {
        // Of subscribers that are away only acknowledgements tell.
        let acked = self.acked.get() + self.given_up_acks.get();
        if self.deliveries == 0 {
            return acked;
        }
        let settled = (self.delivered.get() + self.given_up.get()) * self.messages / self.deliveries;
        if self.acknowledged { settled.min(acked) } else { settled }
    }

    /// How many messages did not come to all that they are for, or, where these are away, were not acknowledged.
    pub(super) fn missing(&self) -> u64 {
        match self.deliveries {
            0 => self.sent.get().saturating_sub(self.acked.get()),
            _ => (self.undelivered() * self.messages).div_ceil(self.deliveries),
        }
    }

    fn undelivered(&self) -> u64 {
        (self.sent.get() * self.deliveries / self.messages).saturating_sub(self.delivered.get())
    }

    fn room(&self) -> u64 {
        self.window.saturating_sub(self.sent.get().saturating_sub(self.confirmed()))
    }

    /// Takes a delivery of what was sent at a time.
    fn deliver(&self, sent_ns: u64) {
        self.delivered.set(self.delivered.get() + 1);
        if sent_ns < self.given_up_ns.get() {
            self.given_up.set(self.given_up.get().saturating_sub(1));
        }
    }

    /// Takes so many acknowledgements.
    fn acknowledge(&self, count: u64) {
        self.acked.set(self.acked.get() + count);
        self.given_up_acks.set(self.given_up_acks.get().saturating_sub(count));
    }

    /// Moves the PUBRELs that are due to what is written next.
    pub(super) fn release(&self, out: &mut Vec<u8>) {
        out.append(&mut self.releases.borrow_mut());
    }

    /// Waits no longer for what is under way: the broker stalls, or dropped it.
    pub(super) fn give_up(&self, now_ns: u64) {
        self.given_up.set(self.undelivered());
        self.given_up_ns.set(now_ns);
        self.given_up_acks.set(self.sent.get() - self.acked.get());
        self.wake.notify_one();
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
    /// Publishers send nothing more.
    pub(super) is_over: Cell<bool>,
}

impl Shared {
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.recorder.borrow().began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Publishes over `templates` in turn whenever an eighth of the window is free, as much as is free in one write with the
/// PUBRELs that are due.
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
        let room = if shared.is_over.get() { 0 } else { flow.room() };
        let room = if room < batch_min { 0 } else { room };
        out.clear();
        flow.release(&mut out);
        if room == 0 && out.is_empty() {
            flow.wake.notified().await;
            continue;
        }
        let stamp = Stamp { sent_ns: shared.now_ns(), flow: flow.index };
        for _ in 0..room {
            packet_id = packet_id % u16::MAX + 1;
            templates[turn].append_to(&mut out, packet_id, stamp);
            turn = (turn + 1) % templates.len();
        }
        flow.sent.set(flow.sent.get() + room);
        write.write_all(&out).await.map_err(|source| BenchError::io("write to", "the broker", source))?;
    }
}

/// Counts the acknowledgements that a publisher hears, and notes what it has to answer.
pub(super) async fn hear_acks(mut read: ReadHalf, shared: Rc<Shared>, flow: usize) -> Result<(), BenchError> {
    let mut input = Input::new(Vec::new());
    let flow = &shared.flows[flow];
    loop {
        input.fill(&mut read).await?;
        let mut acks = 0;
        while let Some(heard) = input.next(shared.payload_bytes) {
            match heard {
                Heard::Acknowledged => acks += 1,
                Heard::Step(release) => release.append_to(&mut flow.releases.borrow_mut()),
                other => return Err(BenchError::Peer(format!("sent a publisher {other:?}"))),
            }
        }
        flow.acknowledge(acks);
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
        let (answer, stamp) = match heard {
            Heard::Message { answer, stamp } => (answer, Some(stamp)),
            Heard::Step(completion) => (Some(completion), None),
            other => return Err(BenchError::Peer(format!("sent a subscriber {other:?}"))),
        };
        if let Some(answer) = answer {
            answer.append_to(acks);
        }
        let Some(stamp) = stamp else { continue };
        let Some(flow) = shared.flows.get(stamp.flow as usize) else {
            recorder.primed[index] = true;
            continue;
        };
        flow.deliver(stamp.sent_ns);
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

    #[tokio::test]
    async fn at_qos_2_a_message_is_under_way_until_its_last_packet() {
        let recorder = Recorder {
            began: Instant::now(),
            deliveries: 0,
            latency: super::super::run::histogram(),
            measuring: false,
            timed_every: 1,
            primed: Vec::new(),
        };
        let flows = vec![Flow::new(0, (1, 1), 2, true)];
        let (recorder, is_over) = (RefCell::new(recorder), Cell::new(false));
        let shared = Rc::new(Shared { flows, recorder, payload_bytes: 64, is_over });
        let flow = &shared.flows[0];
        flow.sent.set(2);
        (0..2).for_each(|_| flow.deliver(1));
        for (heard, room, answers) in [
            (&b"\x50\x02\0\x01\x50\x02\0\x02"[..], 0, &b"\x62\x02\0\x01\x62\x02\0\x02"[..]),
            (b"\x70\x02\0\x01", 1, b""),
            (b"\x70\x02\0\x02", 2, b""),
        ] {
            let ended = hear_acks(Box::new(heard), Rc::clone(&shared), 0).await;
            assert!(matches!(ended, Err(BenchError::Peer(why)) if why == "closed the connection"));
            let mut out = Vec::new();
            flow.release(&mut out);
            assert_eq!((flow.room(), &out[..]), (room, answers));
        }
    }

    #[test]
    fn what_is_given_up_opens_the_window_and_is_lost_only_if_it_never_comes() {
        let flow = Flow::new(0, (1, 1), 10, true);
        flow.sent.set(10);
        (0..4).for_each(|_| flow.deliver(1));
        flow.acknowledge(7);
        flow.give_up(5);
        assert_eq!((flow.room(), flow.missing()), (10, 6));
        flow.sent.set(20);
        assert_eq!((flow.room(), flow.missing()), (0, 16));
        (0..5).for_each(|_| flow.deliver(1)); // late, and no reason for more
        flow.acknowledge(3);
        assert_eq!((flow.room(), flow.missing()), (0, 11));
        (0..10).for_each(|_| flow.deliver(6));
        flow.acknowledge(10);
        assert_eq!((flow.room(), flow.missing()), (10, 1));
    }

    #[test]
    fn of_a_fan_out_each_message_counts_once_however_many_miss_it() {
        let flow = Flow::new(0, (100, 1), 10, false);
        flow.sent.set(10);
        (0..950).for_each(|_| flow.deliver(1));
        assert_eq!(flow.missing(), 1);
    }
}
