//! Frames against the golden vectors of docs/link-protocol.md, and against hostile bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::link::refusal::Reason;
use crate::mqtt::Filter;

const DOCUMENT: &str = include_str!("../../../docs/link-protocol.md");

/// The vectors of the document: lines `name = hex` in its blocks marked `vectors`.
fn vectors() -> BTreeMap<&'static str, Vec<u8>> {
    let blocks = DOCUMENT.split("```vectors\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (name, hex) = line.split_once('=').expect("name = hex");
            let bytes = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hex"));
            (name.trim(), bytes.collect())
        })
        .collect()
}

fn filters(texts: &[&str]) -> Vec<Filter> {
    texts.iter().map(|text| Filter::parse(text).expect("a valid filter")).collect()
}

fn control(frame: Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode_control(&mut bytes);
    assert_eq!(decode(&bytes), Ok(Some(frame)), "what was written is read again");
    bytes
}

fn routes(number: u64, marks: (bool, bool), add: &[&str], delete: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_routes(number, marks, &filters(add), &filters(delete), &mut bytes);
    let Ok(Some(Frame::Routes(read))) = decode(&bytes) else { panic!("not read again: {bytes:?}") };
    assert_eq!((read.number, read.begin, read.end), (number, marks.0, marks.1));
    assert_eq!((texts(&read.add), texts(&read.delete)), (owned(add), owned(delete)));
    bytes
}

fn texts(list: &FilterList<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    list.for_each(|text| texts.push(text.to_owned()));
    texts
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn messages(first: u64, records: &[Record<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = MessagesWriter::new(first, 0, &mut bytes);
    records.iter().for_each(|record| writer.push(record));
    let Ok(Some(Frame::Messages(read))) = decode(&bytes) else { panic!("not read again: {bytes:?}") };
    assert_eq!(read.first, first);
    assert_eq!(read.records().collect::<Result<Vec<_>, _>>().as_deref(), Ok(records));
    bytes
}

fn record<'a>(topic: Entry<'a>, payload: &'a [u8]) -> Record<'a> {
    Record { acknowledged: true, retain: false, topic, properties: None, expiry_s: None, payload }
}

#[test]
fn every_vector_of_the_document_is_what_is_written_and_read() {
    let mut vectors = vectors();
    let mut check = |name: &str, written: Vec<u8>| {
        let expected = vectors.remove(name).unwrap_or_else(|| panic!("the document has no vector {name}"));
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
        assert_eq!(hex(&written), hex(&expected), "{name}");
    };
    check(
        "hello",
        control(Frame::Hello(Hello {
            version_min: 1,
            version_max: 1,
            cluster: "us",
            target: "eu",
            node: "us-0",
            incarnation: 300,
            index: 0,
            features: 0,
            frame_bytes_max: 131_072,
            ttl_ms: 15_000,
        })),
    );
    let refuse = Refuse { reason: Reason::LinkDisabled, text: "off", held: None };
    check("refuse", control(Frame::Refuse(refuse)));
    let outdated = Refuse { reason: Reason::OutdatedIncarnation, text: "", held: Some(301) };
    check("refuse-outdated", control(Frame::Refuse(outdated)));
    check("half", control(Frame::Half(Half { enabled: true, topics: vec!["a/#", "b"], nodes: 1 })));
    check("half-one-way", control(Frame::Half(Half { enabled: true, topics: vec![], nodes: 1 })));
    check("routes-bootstrap", routes(1, (true, true), &["t/+", "t/1/x", "u"], &[]));
    check("routes-empty", routes(1, (true, true), &[], &[]));
    check("routes-delta", routes(2, (false, false), &["v/#"], &["t/+", "u"]));
    let nothing = RoutesAck { number: 0, count: 0, digest: 0, need_bootstrap: true };
    check("routes-ack-nothing", control(Frame::RoutesAck(nothing)));
    let mut digest = crate::link::digest::Digest::default();
    ["t/+", "t/1/x", "u"].iter().for_each(|filter| digest.add(filter));
    let held = RoutesAck { number: 1, count: digest.count, digest: digest.sum, need_bootstrap: false };
    check("routes-ack", control(Frame::RoutesAck(held)));
    check("messages-one", messages(7, &[record(Entry::New(b"t/1"), b"hi")]));
    let content_type = [0x03, 0x00, 0x01, b'x'];
    let batch = [
        Record {
            properties: Some(Entry::New(&content_type)),
            expiry_s: Some(60),
            ..record(Entry::New(b"t/1"), b"a")
        },
        Record { acknowledged: false, retain: true, ..record(Entry::Known(0), b"") },
        Record { properties: Some(Entry::Known(0)), ..record(Entry::New(b"u"), b"b") },
    ];
    check("messages-batch", messages(8, &batch));
    check("messages-ack", control(Frame::MessagesAck(MessagesAck { position: 300, stream: 0 })));
    check("probe", control(Frame::Probe(Probe { id: 1 })));
    check("probe-ack", control(Frame::ProbeAck(Probe { id: 1 })));
    check("bye", control(Frame::Bye(Bye { reason: Reason::ShuttingDown, text: "" })));
    assert!(vectors.is_empty(), "vectors that no test knows: {:?}", vectors.keys());
}

#[test]
fn what_is_new_is_skipped_when_it_may_be_and_refused_when_it_must_be() {
    assert_eq!(decode(&[0xff, 0x00, 1, 2, 3]), Ok(None), "an optional frame");
    assert_eq!(decode(&[0x7f, 0x00]), Err(Violation::UnknownFrame(0x7f)));
    let probe = Frame::Probe(Probe { id: 1 });
    assert_eq!(decode(&[0x08, 0x06, 1, 1, 1, 0xf0, 1, 9]), Ok(Some(probe)), "an optional field");
    let unknown = Violation::UnknownField { frame: 8, tag: 0x70 };
    assert_eq!(decode(&[0x08, 0x06, 1, 1, 1, 0x70, 1, 9]), Err(unknown));
}

#[track_caller]
fn refuse(bytes: &[u8], violation: Violation) {
    assert_eq!(decode(bytes), Err(violation), "{bytes:02x?}");
}

#[test]
fn malformed_frames_are_named() {
    refuse(&[], Violation::EmptyFrame);
    refuse(&[0x08], Violation::Truncated);
    refuse(&[0x08, 0x04, 1, 1, 1], Violation::Truncated);
    refuse(&[0x08, 0x03, 1, 2, 0x80], Violation::Truncated);
    refuse(&[0x08, 0x04, 1, 2, 0x80, 0x00], Violation::BadVarint);
    refuse(&[0x08, 0x03, 1, 1, 1, 0], Violation::TrailingBytes);
    refuse(&[0x08, 0x04, 1, 2, 1, 0], Violation::TrailingBytes);
    refuse(&[0x08, 0x00], Violation::MissingField { frame: 8, tag: 1 });
    refuse(&[0x08, 0x06, 1, 1, 1, 1, 1, 1], Violation::RepeatedField { frame: 8, tag: 1 });
    refuse(&[0x03, 0x03, 1, 1, 2], Violation::BadValue { frame: 3, tag: 1 });
    refuse(&[0x03, 0x03, 2, 1, 0xff], Violation::NotUtf8);
    refuse(&[0x04, 0x03, 1, 1, 1, 1, 0, 1, b'b', 0, 9], Violation::TrailingBytes);
    refuse(&[0x04, 0x03, 1, 1, 1, 2, 0, 1, b'b', 0, 1, b'a', 0], Violation::Unsorted);
    refuse(&[0x04, 0x03, 1, 1, 1, 2, 0, 1, b'b', 1, 0, 0], Violation::Unsorted);
    refuse(&[0x04, 0x03, 1, 1, 1, 1, 1, 1, b'b', 0], Violation::BadPrefix);
    refuse(&[0x04, 0x03, 1, 1, 1, 0xff, 0xff, 0x7f], Violation::TooMany);
}

#[test]
fn few_bytes_cannot_stand_for_very_many() {
    let mut bytes = vec![0x04, 0x03, 1, 1, 1];
    bytes.extend([0xa0, 0x1f]); // 4,000 filters
    bytes.extend([0x00, 0x80, 0x80, 0x02]); // the first: 32,768 bytes of its own
    bytes.extend([b'a'; 32_768]);
    for more in 0..3_999 {
        wire::put_varint(&mut bytes, 32_768 + more); // the others: all of the one before
        bytes.extend([0x01, b'b']); // and one more byte
    }
    bytes.push(0);
    assert!(bytes.len() < 64 * 1024, "and yet it would expand to 128 MiB");
    assert_eq!(decode(&bytes), Err(Violation::TooMany));
}

#[track_caller]
fn refuse_record(body: &[u8], violation: Violation) {
    let mut bytes = vec![0x06, 0x03, 1, 1, 1];
    bytes.extend(body);
    let Ok(Some(Frame::Messages(messages))) = decode(&bytes) else { panic!("the head is valid") };
    assert_eq!(messages.records().last(), Some(Err(violation)), "{body:02x?}");
}

#[test]
fn malformed_messages_are_named() {
    refuse_record(&[0x01], Violation::Truncated);
    refuse_record(&[0x01, 0, 1, b't', 5, 1], Violation::Truncated);
    refuse_record(&[0x02, 0, 1, b't', 0], Violation::ReservedFlags);
    refuse_record(&[0x20, 0, 1, b't', 0], Violation::ReservedFlags);
    refuse_record(&[0x01, 1, 0], Violation::BadReference);
    refuse_record(&[0x01, 0, 1, b't', 0, 0x01, 2, 0], Violation::BadReference);
    refuse_record(&[0x09, 0, 1, b't', 1, 0], Violation::BadReference);
    refuse_record(&[0x11, 0, 1, b't', 0xff, 0xff, 0xff, 0xff, 0x1f, 0], Violation::BadVarint);
}

/// Reads everything that a frame has, as the machine does.
fn read_all(bytes: &[u8]) {
    match decode(bytes) {
        Ok(Some(Frame::Messages(messages))) => {
            messages.records().last();
        }
        Ok(Some(Frame::Routes(routes))) => {
            routes.add.for_each(|_| {});
            routes.delete.for_each(|_| {});
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }

    #[test]
    fn nearly_valid_bytes_neither(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
                                  byte: u8, cut in any::<prop::sample::Index>()) {
        let vectors = vectors();
        let (_, bytes) = vectors.iter().nth(which.index(vectors.len())).unwrap();
        let mut changed = bytes.clone();
        changed[at.index(bytes.len())] = byte;
        read_all(&changed);
        changed.truncate(cut.index(bytes.len()));
        read_all(&changed);
    }

    #[test]
    fn a_truncated_frame_is_never_taken_for_a_whole_one(which in any::<prop::sample::Index>(),
                                                        cut in any::<prop::sample::Index>()) {
        let vectors = vectors();
        let (_, bytes) = vectors.iter().nth(which.index(vectors.len())).unwrap();
        let part = &bytes[..cut.index(bytes.len())];
        let whole = match decode(part) {
            // Messages end where the packet ends: a part that ends between two of them is a shorter batch.
            Ok(Some(Frame::Messages(messages))) => messages.records().all(|record| record.is_ok()),
            other => other.is_ok(),
        };
        let is_batch = bytes[0] == 0x06;
        prop_assert!(!whole || is_batch, "{:02x?}", part);
    }

    #[test]
    fn routes_survive_the_wire(add in prop::collection::btree_set("[a-c/]{1,12}", 0..50),
                               delete in prop::collection::btree_set("[a-c/+é]{1,6}", 0..20), number in 1u64..) {
        let valid = |texts: &std::collections::BTreeSet<String>| -> Vec<String> {
            texts.iter().filter(|text| Filter::parse(text).is_ok()).cloned().collect()
        };
        let (add, delete) = (valid(&add), valid(&delete));
        let add: Vec<&str> = add.iter().map(String::as_str).collect();
        let delete: Vec<&str> = delete.iter().map(String::as_str).collect();
        routes(number, (false, false), &add, &delete);
    }
}
