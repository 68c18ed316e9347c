//! What the codec costs: nanoseconds per message, the best of many rounds.
//!
//! `cargo bench --bench codec`. Decoding runs over a 64 KiB buffer full of packets, as a shard reads them; appending
//! fills such a buffer. The best round is shown because everything that disturbs makes it longer.

use mqlink::mqtt::{
    Filter, Frame, Limits, Packet, PacketId, PropertiesBuf, Property, Publish, QoS, Version, decode,
    encode_publish,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 64 * 1024;
const ROUNDS: usize = 2_000;

fn main() {
    let plain = PropertiesBuf::new();
    let expiry_and_user: PropertiesBuf =
        [Property::MessageExpiryInterval(60), Property::UserProperty(("origin", "plant-7"))]
            .into_iter()
            .collect();
    let alias: PropertiesBuf = [Property::TopicAlias(7)].into_iter().collect();

    println!("{:<44} {:>8} {:>8}", "", "ns", "bytes");
    decoding("decode, QoS 0", &message(QoS::AtMostOnce, &plain), Version::V5);
    decoding("decode, QoS 0, 3.1.1", &message(QoS::AtMostOnce, &plain), Version::V3);
    decoding("decode, QoS 1", &message(QoS::AtLeastOnce, &plain), Version::V5);
    decoding(
        "decode, QoS 0, expiry and user property",
        &message(QoS::AtMostOnce, &expiry_and_user),
        Version::V5,
    );
    let by_alias = Publish { topic: "", ..message(QoS::AtMostOnce, &alias) };
    decoding("decode, QoS 0, topic alias alone", &by_alias, Version::V5);
    let unicode = Publish { topic: "fabrik/größe/halle-7/sensor/ä", ..message(QoS::AtMostOnce, &plain) };
    decoding("decode, QoS 0, topic beyond ASCII", &unicode, Version::V5);
    puback();
    encoding("encode, QoS 0", &message(QoS::AtMostOnce, &plain));
    appending("append frame, QoS 0", &message(QoS::AtMostOnce, &plain));
    appending("append frame, QoS 1", &message(QoS::AtLeastOnce, &plain));
    matching();
}

/// 29 bytes of topic and 64 of payload.
fn message(qos: QoS, properties: &PropertiesBuf) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: "plant/7/hall/3/line/temp/0042",
        packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::MIN),
        properties: properties.as_properties(),
        payload: &[b'x'; 64],
    }
}

fn decoding(name: &str, publish: &Publish<'_>, version: Version) {
    let mut one = Vec::new();
    encode_publish(publish, version, &mut one);
    let count = BUFFER_BYTES / one.len();
    decode_all(name, &one.repeat(count), count, version);
}

fn puback() {
    let mut one = Vec::new();
    Packet::PubAck(mqlink::mqtt::Ack::success(PacketId::MIN)).encode(Version::V5, &mut one);
    decode_all("decode, PUBACK", &one.repeat(4096), 4096, Version::V5);
}

fn decode_all(name: &str, stream: &[u8], count: usize, version: Version) {
    let limits = Limits { packet_bytes_max: 1 << 20, ..Limits::default() };
    let best = best(|| {
        let mut rest = black_box(stream);
        let mut payload = 0;
        while let Ok(Some((packet, len))) = decode(rest, version, &limits) {
            if let Packet::Publish(publish) = packet {
                payload += publish.payload.len() + publish.topic.len();
            }
            rest = &rest[len..];
        }
        black_box(payload);
    });
    report(name, best, count, stream.len() / count);
}

fn encoding(name: &str, publish: &Publish<'_>) {
    let mut out = Vec::with_capacity(BUFFER_BYTES);
    encode_publish(publish, Version::V5, &mut out);
    let (len, count) = (out.len(), BUFFER_BYTES / out.len());
    let best = best(|| {
        out.clear();
        (0..count).for_each(|_| encode_publish(black_box(publish), Version::V5, &mut out));
    });
    report(name, best, count, len);
}

fn appending(name: &str, publish: &Publish<'_>) {
    let frame = Frame::publish(publish, Version::V5);
    let mut out = Vec::with_capacity(BUFFER_BYTES);
    let count = BUFFER_BYTES / frame.len();
    let best = best(|| {
        out.clear();
        (0..count as u16).for_each(|id| black_box(&frame).append_to(&mut out, PacketId::new(id + 1), false));
    });
    report(name, best, count, frame.len());
}

fn matching() {
    let filter = Filter::parse("plant/+/hall/+/line/#").expect("a valid filter");
    let best = best(|| {
        for _ in 0..1000 {
            black_box(black_box(&filter).matches(black_box("plant/7/hall/3/line/temp/0042")));
        }
    });
    report("match one filter with three wildcards", best, 1000, 0);
}

fn best(mut round: impl FnMut()) -> Duration {
    let timed = |round: &mut dyn FnMut()| {
        let start = Instant::now();
        round();
        start.elapsed()
    };
    (0..ROUNDS).map(|_| timed(&mut round)).min().expect("there is a round")
}

fn report(name: &str, best: Duration, count: usize, bytes: usize) {
    println!("{name:<44} {:>8.1} {bytes:>8}", best.as_nanos() as f64 / count as f64);
}
