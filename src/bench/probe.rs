//! How long a new subscription takes until the first message arrives: over a link that is what it costs to tell
//! the peer, and the way back.

use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::io::AsyncReadExt;

use super::Target;
use super::client::{Client, Login, append_subscribe};
use super::flow::PRIMING;
use super::frame::{Heard, Stamp, Template, scan};
use super::run::{BenchError, Measured, histogram};
use crate::mqtt::{PacketId, QoS};

const PAYLOAD_BYTES: usize = 64;
/// The publisher repeats its message this often: the resolution of the figure.
const EVERY: Duration = Duration::from_micros(100);
const FIRST_DELIVERY_MAX: Duration = Duration::from_secs(30);

/// Subscribes to `times` new topics, one after the other, each while it is being published to.
pub(super) async fn first_delivery(
    target: &Target,
    label: &str,
    times: usize,
    login: &Login,
) -> Result<Measured, BenchError> {
    let there = target.peer.as_ref().unwrap_or(&target.broker);
    let mut subscriber = Client::connect(&there.address, "bench-first-sub", login).await?;
    let mut publisher = Client::connect(&target.broker.address, "bench-first-pub", login).await?;
    let began = Instant::now();
    let mut latency = histogram();
    for index in 0..times {
        let topic = format!("link/first/{label}/{index}");
        let took = until_delivered(&mut subscriber, &mut publisher, &topic).await?;
        latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
    let (units, took) = (times as u64, began.elapsed());
    Ok(Measured { units, took, cpu: None, generator_cpu: None, rss_kib: None, latency, stalls: 0, lost: 0 })
}

async fn until_delivered(
    subscriber: &mut Client,
    publisher: &mut Client,
    topic: &str,
) -> Result<Duration, BenchError> {
    let template = Template::new(topic, QoS::AtMostOnce, PAYLOAD_BYTES);
    let mut message = Vec::new();
    template.append_to(&mut message, 1, Stamp { sent_ns: 0, flow: PRIMING });
    let mut subscribe = Vec::new();
    append_subscribe(&mut subscribe, PacketId::MIN, topic, QoS::AtMostOnce);

    let began = Instant::now();
    subscriber.send_bytes(&subscribe).await?;
    let mut next = began;
    while !delivered(subscriber, topic)? {
        let now = Instant::now();
        if now - began > FIRST_DELIVERY_MAX {
            return Err(BenchError::NotDelivered(FIRST_DELIVERY_MAX));
        }
        if now >= next {
            publisher.send_bytes(&message).await?;
            next = now + EVERY;
        }
        // The generator has a core of its own: asking again beats a timer, which counts whole milliseconds.
        tokio::task::yield_now().await;
    }
    Ok(began.elapsed())
}

/// Whether a message of `topic` has come; late ones of earlier topics are passed over.
fn delivered(subscriber: &mut Client, topic: &str) -> Result<bool, BenchError> {
    let mut buffer = [0; 16 * 1024];
    match subscriber.read.read(&mut buffer).now_or_never() {
        None => return Ok(false),
        Some(Ok(0)) => return Err(BenchError::Peer("closed the connection".to_owned())),
        Some(Ok(count)) => subscriber.input.extend_from_slice(&buffer[..count]),
        Some(Err(error)) => return Err(BenchError::io("read from", "the broker", error)),
    }
    let mut found = false;
    while let Some((heard, length)) = scan(&subscriber.input, PAYLOAD_BYTES) {
        let packet = &subscriber.input[..length];
        let named = packet.windows(topic.len()).any(|bytes| bytes == topic.as_bytes());
        found |= named && matches!(heard, Heard::Message { .. });
        subscriber.input.drain(..length);
    }
    Ok(found)
}
