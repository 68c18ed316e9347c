//! Open loop: publishers that send when a message is due, whatever became of those before.
//!
//! A message's stamp says when it was due. Where the generator comes late (it looks again and again, so that is when the broker's
//! socket is full or, above QoS 0, when all that the broker takes at once is under way), the wait is part of the latency.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::client::WriteHalf;
use super::flow::Shared;
use super::frame::{Stamp, Template};
use super::run::BenchError;

/// The most messages of one write: what is due after a long wait goes out in turns with reading.
const BATCH_MAX: u64 = 1_000;

/// When one publisher's messages are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Between two of them.
    every: Duration,
    /// Before the first one, so that many publishers do not send at once.
    offset: Duration,
}

impl Schedule {
    /// That of one of so many publishers, who send `rate` messages a second together.
    pub(super) fn new(rate: u32, publisher: usize, publishers: usize) -> Schedule {
        let step = Duration::from_secs(1) / rate;
        Schedule { every: step * publishers as u32, offset: step * publisher as u32 }
    }

    /// When message `number` is due, in ns since the first publisher began.
    fn due_ns(&self, number: u64) -> u64 {
        (self.offset.as_nanos() + self.every.as_nanos() * u128::from(number)) as u64
    }
}

/// Publishes until the run is over, and answers until it is dropped.
pub(super) async fn publish(
    mut write: WriteHalf,
    template: Template,
    shared: Rc<Shared>,
    flow: usize,
    schedule: Schedule,
) -> Result<(), BenchError> {
    let flow = &shared.flows[flow];
    let (began_ns, mut out, mut packet_id) = (shared.now_ns(), Vec::new(), 0_u16);
    loop {
        let now_ns = shared.now_ns();
        let sent = flow.sent.get();
        let room = if shared.is_over.get() {
            0 // what is under way must still be heard and answered
        } else if flow.acknowledged {
            flow.window - (sent - flow.acked.get())
        } else {
            BATCH_MAX
        };
        let stamps = (sent..sent + room.min(BATCH_MAX)).map(|number| began_ns + schedule.due_ns(number));
        out.clear();
        flow.release(&mut out);
        let mut count = 0;
        for sent_ns in stamps.take_while(|due_ns| *due_ns <= now_ns) {
            packet_id = packet_id % u16::MAX + 1;
            template.append_to(&mut out, packet_id, Stamp { sent_ns, flow: flow.index });
            count += 1;
        }
        flow.sent.set(sent + count);
        if !out.is_empty() {
            write.write_all(&out).await.map_err(|source| BenchError::io("write to", "the broker", source))?;
        }
        // The generator has a core of its own: looking again beats a timer, which counts whole milliseconds.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_take_turns_at_the_rate_of_all_together() {
        let schedules = [0, 1].map(|publisher| Schedule::new(1_000, publisher, 2));
        let due: Vec<_> =
            (0..2).flat_map(|number| schedules.map(|schedule| schedule.due_ns(number))).collect();
        assert_eq!(due, [0, 1_000_000, 2_000_000, 3_000_000]);
    }
}
