//! A machine and a peer that says what it likes: frames in, what the machine does about them out.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::link::native::{Bye, Hello, MessagesAck, Probe, RoutesAck, decode};
use crate::settings::report::VerdictStatus;

const CONN: ConnId = ConnId(1);

/// The link of `us` to `eu`, which has accepted a connection.
struct Bench {
    link: Link,
    now: Instant,
    sent: Vec<Vec<u8>>,
    closed: bool,
    delivered: Vec<Message>,
    /// What is delivered is not safe at once.
    is_slow: bool,
    asked: Vec<u64>,
}

fn hello() -> Hello<'static> {
    Hello {
        version_min: 1,
        version_max: 1,
        cluster: "eu",
        target: "us",
        node: "eu-0",
        incarnation: 5,
        index: 0,
        features: 0,
        frame_bytes_max: 1 << 20,
        ttl_ms: 15_000,
    }
}

impl Bench {
    fn new() -> Bench {
        let mut half = Half::new("default/eu", "eu");
        half.topics = vec!["#".to_owned()];
        let own = Identity { cluster: "us".into(), node: "us-0".into(), incarnation: 7 };
        let now = Instant::now();
        let mut link = Link::new(half, own, 1 << 20, 1, now);
        link.handle_opened(CONN, false, now);
        Bench {
            link,
            now,
            sent: Vec::new(),
            closed: false,
            delivered: Vec::new(),
            is_slow: false,
            asked: Vec::new(),
        }
    }

    fn open() -> Bench {
        let mut bench = Bench::new();
        bench.say(Frame::Hello(hello()));
        bench
    }

    fn say(&mut self, frame: Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode_control(&mut bytes);
        self.say_bytes(&bytes);
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        self.link.handle_frame(CONN, bytes, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.link.poll_output(self.now) {
            match output {
                Output::Send { frame, .. } => self.sent.push(frame),
                Output::Close { .. } => self.closed = true,
                Output::Deliver(message) => {
                    self.delivered.push(message);
                    self.link.handle_delivered(1);
                }
                Output::Settle { number } if self.is_slow => self.asked.push(number),
                Output::Settle { number } => self.link.handle_settled(number),
                _ => {}
            }
        }
    }

    /// The core says that what was delivered before a question is safe.
    fn settle(&mut self, number: u64) {
        self.link.handle_settled(number);
        self.drain();
    }

    /// What ended the connection: the last frame, and what status makes of it.
    #[track_caller]
    fn assert_ended(&self, reason: Reason) {
        assert!(self.closed, "the connection is closed");
        let last = decode(self.sent.last().expect("something was said")).expect("a valid frame");
        let said = match last {
            Some(Frame::Refuse(refuse)) => refuse.reason,
            Some(Frame::Bye(bye)) => bye.reason,
            other => panic!("the last frame is {other:?}"),
        };
        assert_eq!(said, reason);
    }

    #[track_caller]
    fn assert_shows(&self, reason: &str) {
        let report = self.link.report(self.now);
        assert_eq!(report.connected.reason, reason);
        assert_eq!(report.connected.status, VerdictStatus::False);
    }
}

#[track_caller]
fn check_hello(hello: Hello<'_>, reason: Reason) {
    let mut bench = Bench::new();
    bench.say(Frame::Hello(hello));
    bench.assert_ended(reason);
    bench.assert_shows(reason.name());
}

#[test]
fn a_hello_that_does_not_fit_is_refused_by_name() {
    check_hello(Hello { cluster: "us", ..hello() }, Reason::SelfDialled);
    check_hello(Hello { target: "usa", ..hello() }, Reason::BadClusterName);
    check_hello(Hello { cluster: "asia", ..hello() }, Reason::NotAuthorized);
    check_hello(Hello { version_min: 2, version_max: 3, ..hello() }, Reason::ProtocolMismatch);
    check_hello(Hello { frame_bytes_max: 1000, ..hello() }, Reason::ProtocolMismatch);
}

#[test]
fn a_newer_peer_that_still_speaks_version_1_is_welcome() {
    let mut bench = Bench::new();
    bench.say(Frame::Hello(Hello { version_max: 9, features: 0xff, ..hello() }));
    assert!(!bench.closed);
    assert_eq!(bench.link.report(bench.now).connections.open, 1);
}

#[track_caller]
fn check_violation(bench: &mut Bench, bytes: &[u8]) {
    bench.say_bytes(bytes);
    bench.assert_ended(Reason::ProtocolMismatch);
}

#[test]
fn frames_out_of_place_end_the_connection() {
    let probe = [0x08, 0x03, 1, 1, 1];
    check_violation(&mut Bench::new(), &probe);
    let mut again = Vec::new();
    Frame::Hello(hello()).encode_control(&mut again);
    check_violation(&mut Bench::open(), &again);
    check_violation(&mut Bench::open(), &[0x7f, 0x00]);
    check_violation(&mut Bench::open(), &[0x04, 0x03, 1, 1, 1, 1, 0, 1, b'a', 0]); // a delta before a bootstrap
    check_violation(&mut Bench::open(), &[0x04, 0x06, 1, 1, 1, 2, 1, 3, 1, 0, 2, b'$', b'a', 0]);
    check_violation(&mut Bench::open(), &[0x04, 0x06, 1, 1, 1, 2, 1, 3, 1, 0, 2, b'#', b'a', 0]);
    check_violation(&mut Bench::open(), &[0x06, 0x03, 1, 1, 1, 0x01, 0, 2, b'$', b'a', 0]);
    check_violation(&mut Bench::open(), &[0x06, 0x03, 1, 1, 1, 0x01, 0, 1, b'+', 0]);
    check_violation(&mut Bench::open(), &[0x06, 0x00, 0x01, 0, 1, b'a', 0]); // QoS 1 without a position
    let alias = [0x06, 0x03, 1, 1, 1, 0x09, 0, 1, b'a', 0, 3, 0x23, 0, 1, 0];
    check_violation(&mut Bench::open(), &alias);
}

#[test]
fn answers_to_what_was_never_said_end_the_connection() {
    let mut bench = Bench::open();
    let ack = RoutesAck { number: 0, count: 0, digest: 0, need_bootstrap: true };
    bench.say(Frame::RoutesAck(ack));
    bench.say(Frame::RoutesAck(RoutesAck { number: 99, ..ack }));
    bench.assert_ended(Reason::ProtocolMismatch);
    let mut bench = Bench::open();
    bench.say(Frame::MessagesAck(MessagesAck { position: 0, stream: 0 }));
    bench.say(Frame::MessagesAck(MessagesAck { position: 1, stream: 0 }));
    bench.assert_ended(Reason::ProtocolMismatch);
}

#[test]
fn a_gap_in_positions_is_refused_and_repetitions_are_dropped() {
    let mut bench = Bench::open();
    let message = |position| [0x06, 0x03, 1, 1, position, 0x01, 0, 1, b'a', 1, position];
    bench.say_bytes(&message(5));
    bench.say_bytes(&message(6));
    bench.say_bytes(&message(5));
    let payloads: Vec<_> = bench.delivered.iter().map(|message| message.payload.to_vec()).collect();
    assert_eq!(payloads, [[5], [6]]);
    assert_eq!(bench.link.counters().received.dropped.duplicate, 1);
    assert_eq!(bench.sent.last(), Some(&vec![0x07, 0x03, 1, 1, 6]), "both are taken over");
    check_violation(&mut bench, &message(8));
}

#[test]
fn a_position_is_acknowledged_once_what_it_brought_is_safe() {
    let mut bench = Bench::open();
    bench.is_slow = true;
    let said = bench.sent.len();
    let message = |position| [0x06, 0x03, 1, 1, position, 0x01, 0, 1, b'a', 1, position];
    for position in 1..=3 {
        bench.say_bytes(&message(position));
    }
    let asked = std::mem::take(&mut bench.asked);
    assert_eq!(
        (bench.delivered.len(), bench.sent.len(), asked.len()),
        (3, said, 1),
        "one question at a time"
    );
    bench.settle(asked[0] - 1);
    assert_eq!(bench.sent.len(), said, "the answer to an earlier question says nothing");
    bench.settle(asked[0]);
    assert_eq!(bench.sent[said..], [vec![0x07, 0x03, 1, 1, 1]]);
    let asked = std::mem::take(&mut bench.asked);
    bench.settle(asked[0]);
    assert_eq!(bench.sent[said + 1..], [vec![0x07, 0x03, 1, 1, 3]], "all that came meanwhile");
}

#[test]
fn everything_a_message_carries_arrives() {
    let mut bench = Bench::open();
    let list = [0x03, 0x00, 0x01, b'x'];
    let mut frame = vec![0x06, 0x03, 1, 1, 1, 0x1d, 0, 3, b't', b'/', b'1', 0, 4];
    frame.extend(list);
    frame.extend([60, 2, b'h', b'i']);
    bench.say_bytes(&frame);
    let message = &bench.delivered[0];
    assert_eq!((&*message.topic, message.retain), ("t/1", true));
    assert_eq!((message.qos, &message.payload[..]), (crate::mqtt::QoS::AtLeastOnce, &b"hi"[..]));
    assert_eq!(message.properties.as_properties().content_type(), Some("x"));
    assert_eq!(message.expires_at, Some(bench.now + Duration::from_secs(60)));
}

#[test]
fn a_peer_that_says_bye_is_believed_and_silence_follows() {
    let mut bench = Bench::open();
    bench.say(Frame::Bye(Bye { reason: Reason::LinkDisabled, text: "off" }));
    assert!(bench.closed);
    bench.assert_shows("LinkDisabled");
    let said = bench.sent.len();
    bench.say(Frame::Probe(Probe { id: 9 }));
    assert_eq!(bench.sent.len(), said, "frames of a connection that is over count for nothing");
}

#[test]
fn an_outdated_incarnation_is_told_what_is_held() {
    let mut bench = Bench::open();
    bench.link.handle_opened(ConnId(2), false, bench.now);
    let mut bytes = Vec::new();
    Frame::Hello(Hello { incarnation: 4, ..hello() }).encode_control(&mut bytes);
    bench.link.handle_frame(ConnId(2), &bytes, bench.now);
    bench.drain();
    let last = decode(bench.sent.last().expect("something was said"));
    let Ok(Some(Frame::Refuse(refuse))) = last else { panic!("{last:?}") };
    assert_eq!((refuse.reason, refuse.held), (Reason::OutdatedIncarnation, Some(5)));
    assert_eq!(bench.link.report(bench.now).connections.open, 1, "the newer one stays");
}

#[test]
fn a_connection_that_somebody_else_takes_over_is_not_taken_back_at_once() {
    let bye = || Frame::Bye(Bye { reason: Reason::Superseded, text: "another one stays" });
    let mut bench = Bench::open();
    // The one that stays is ours too.
    bench.link.handle_opened(ConnId(2), true, bench.now);
    bench.say(bye());
    assert_eq!(bench.link.report(bench.now).connected.reason, "Connecting");
    let mut bench = Bench::open();
    bench.say(bye());
    bench.assert_shows("ClientIdConflict");
    let wait = bench.link.poll_timeout(bench.now).map(|at| at - bench.now);
    assert!(wait >= Some(Duration::from_secs(2)), "{wait:?}");
}

#[test]
fn strangers_show_only_while_there_is_nothing_better_to_say() {
    let mut bench = Bench::new();
    let refusal = Refusal::new(Reason::BadCredentials, "a stranger");
    bench.link.handle_stranger(&refusal, bench.now);
    bench.assert_shows("BadCredentials");
    let other = Refusal::new(Reason::NotAuthorized, "another");
    bench.link.handle_stranger(&other, bench.now);
    bench.assert_shows("BadCredentials");
    bench.say(Frame::Hello(hello()));
    bench.now += Duration::from_secs(2);
    bench.link.handle_stranger(&other, bench.now);
    assert_eq!(bench.link.report(bench.now).connected.reason, "Connecting");
}

#[test]
fn handshakes_are_few_and_short() {
    let mut bench = Bench::new();
    for number in 2..20 {
        bench.link.handle_opened(ConnId(number), false, bench.now);
    }
    assert!(bench.link.connections.len() <= HANDSHAKES_MAX + 1);
    bench.now += Duration::from_secs(5);
    bench.link.handle_timeout(bench.now);
    assert!(bench.link.connections.is_empty());
    assert_eq!(
        bench.link.report(bench.now).connected.reason,
        "Connecting",
        "strangers' silence is no trouble"
    );
}

#[test]
fn a_position_without_a_next_one_is_refused() {
    let mut first = vec![0x06, 0x0c, 1, 10];
    first.extend([0xff; 9]);
    first.extend([0x01, 0x01, 0, 1, b'a', 0]);
    check_violation(&mut Bench::open(), &first);
}

#[test]
fn what_references_stand_for_is_bounded_before_it_is_written_out() {
    let mut bench = Bench::open();
    let mut frame = vec![0x06, 0x00, 0x08, 0, 1, b'a', 0];
    let content_type = "x".repeat(60_000);
    let mut list = crate::mqtt::PropertiesBuf::new();
    list.push(crate::mqtt::Property::ContentType(&content_type));
    let list = list.as_properties().as_bytes().to_vec();
    assert_eq!(list.len(), 60_003);
    frame.extend([0xe3, 0xd4, 0x03]);
    frame.extend(list);
    frame.push(0);
    (0..10_000).for_each(|_| frame.extend([0x08, 1, 1, 0]));
    bench.say_bytes(&frame);
    bench.assert_ended(Reason::ProtocolMismatch);
    assert!(bench.delivered.len() < 20, "{} messages of 60,000 bytes each", bench.delivered.len());
    let mut bench = Bench::open();
    let mut frame = vec![0x06, 0x00, 0x00, 0, 1, b'a', 0];
    (0..40_000).for_each(|_| frame.extend([0x00, 1, 0]));
    bench.say_bytes(&frame);
    bench.assert_ended(Reason::ProtocolMismatch);
}

#[test]
fn what_a_frame_of_qos_0_follows_is_still_acknowledged() {
    let mut bench = Bench::open();
    let said = bench.sent.len();
    bench.link.handle_frame(CONN, &[0x06, 0x03, 1, 1, 1, 0x01, 0, 1, b'a', 0], bench.now);
    bench.link.handle_frame(CONN, &[0x06, 0x00, 0x00, 0, 1, b'a', 0], bench.now);
    bench.drain();
    assert_eq!(bench.sent[said..], [vec![0x07, 0x03, 1, 1, 1]]);
    bench.say_bytes(&[0x06, 0x00, 0x00, 0, 1, b'a', 0]);
    assert_eq!(bench.sent.len(), said + 1, "QoS 0 alone is not acknowledged");
}

fn qos_1() -> Rc<Message> {
    Rc::new(Message {
        topic: "a".into(),
        payload: bytes::Bytes::from_static(b"x"),
        qos: crate::mqtt::QoS::AtLeastOnce,
        retain: false,
        properties: crate::mqtt::PropertiesBuf::new(),
        expires_at: None,
    })
}

#[test]
fn a_peer_that_goes_back_behind_its_own_word_meets_a_new_incarnation() {
    let mut bench = Bench::open();
    bench.say(Frame::MessagesAck(MessagesAck { position: 0, stream: 0 }));
    (0..3).for_each(|_| bench.link.handle_message(qos_1(), bench.now));
    bench.drain();
    bench.say(Frame::MessagesAck(MessagesAck { position: 3, stream: 0 }));
    let mut incarnations = Vec::new();
    for (conn, position) in [(ConnId(2), 1), (ConnId(3), 0)] {
        bench.link.handle_opened(conn, false, bench.now);
        for frame in [Frame::Hello(hello()), Frame::MessagesAck(MessagesAck { position, stream: 0 })] {
            let mut bytes = Vec::new();
            frame.encode_control(&mut bytes);
            bench.link.handle_frame(conn, &bytes, bench.now);
            bench.drain();
        }
        let mut hellos = bench.sent.drain(..).filter_map(|frame| match decode(&frame) {
            Ok(Some(Frame::Hello(hello))) => Some(hello.incarnation),
            _ => None,
        });
        incarnations.extend(hellos.next_back());
    }
    assert_eq!(incarnations, [7, 8]);
    assert_eq!(bench.link.report(bench.now).connections.open, 1);
    assert_eq!(bench.link.counters().epoch, 7, "its counters go on");
}

impl Bench {
    /// A period goes by, and the peer answers what it was asked in it.
    fn pass_period(&mut self) {
        self.now += crate::link::probe::PERIOD;
        self.link.handle_timeout(self.now);
        self.drain();
        self.answer_probe();
    }

    fn answer_probe(&mut self) {
        let mut probes = self.sent.iter().filter_map(|frame| match decode(frame) {
            Ok(Some(Frame::Probe(probe))) => Some(probe),
            _ => None,
        });
        let last = probes.next_back().expect("it asks");
        self.say(Frame::ProbeAck(last));
    }

    fn connected(&self) -> String {
        self.link.report(self.now).connected.reason
    }
}

#[test]
fn a_peer_that_answers_and_takes_nothing_over_is_not_called_connected() {
    let mut bench = Bench::open();
    bench.answer_probe();
    assert_eq!(bench.connected(), "Connected");
    bench.pass_period();
    bench.pass_period();
    assert_eq!(bench.connected(), "NotAcknowledged", "it has not said what it holds");
    bench.say(Frame::MessagesAck(MessagesAck { position: 0, stream: 0 }));
    assert_eq!(bench.connected(), "Connected");
    (0..3).for_each(|_| bench.link.handle_message(qos_1(), bench.now));
    bench.drain();
    for position in 1..=2 {
        bench.pass_period();
        bench.pass_period();
        assert_eq!(bench.connected(), "Connected", "slow, but it goes on");
        bench.say(Frame::MessagesAck(MessagesAck { position, stream: 0 }));
    }
    (0..3).for_each(|_| bench.pass_period());
    bench.assert_shows("NotAcknowledged");
    assert!(!bench.closed, "it may mend itself");
    bench.say(Frame::MessagesAck(MessagesAck { position: 3, stream: 0 }));
    (0..3).for_each(|_| bench.pass_period());
    assert_eq!(bench.connected(), "Connected", "nothing is owed");
}

/// The link of `us` to `eu`, which dials.
fn dialler() -> (Link, Half, Instant) {
    let mut half = Half::new("default/eu", "eu");
    half.server = Some("eu:11883".to_owned());
    let own = Identity { cluster: "us".into(), node: "us-0".into(), incarnation: 7 };
    let now = Instant::now();
    (Link::new(half.clone(), own, 1 << 20, 1, now), half, now)
}

fn outputs(link: &mut Link, now: Instant) -> Vec<Output> {
    std::iter::from_fn(|| link.poll_output(now)).collect()
}

#[test]
fn an_attempt_to_dial_an_address_that_does_not_count_any_more_is_given_up() {
    let (mut link, mut half, now) = dialler();
    assert!(matches!(outputs(&mut link, now)[..], [Output::Dial]));
    half.forwarding.max_inflight = 5;
    link.handle_settings(half.clone(), now);
    assert!(outputs(&mut link, now).is_empty(), "nothing that an attempt is made of has changed");
    half.server = Some("elsewhere:11883".to_owned());
    link.handle_settings(half, now);
    assert!(matches!(outputs(&mut link, now)[..], [Output::CancelDial, Output::Dial]));
}

#[test]
fn two_mistakes_do_not_take_turns_in_status() {
    let (mut link, _, now) = dialler();
    let mut mistaken = Vec::new();
    Frame::Hello(Hello { target: "usa", ..hello() }).encode_control(&mut mistaken);
    for number in 1..=10 {
        link.handle_dial_failed("UnknownCluster", "eu does not know us", now);
        link.handle_opened(ConnId(number), false, now);
        link.handle_frame(ConnId(number), &mistaken, now);
        outputs(&mut link, now);
        let report = link.report(now);
        assert_eq!(report.connected.reason, "UnknownCluster");
        assert_eq!(report.peer_agrees.reason, "UnknownCluster");
        link.handle_stranger(&Refusal::new(Reason::BadCredentials, "a stranger"), now);
        assert_eq!(link.report(now), report);
    }
}

/// How often a minute somebody is dialled who does so with each connection.
fn dials_in_a_minute(mut end: impl FnMut(&mut Link, ConnId, Instant)) -> usize {
    let (mut link, _, start) = dialler();
    let mut now = start;
    let mut dials = 0;
    while now < start + Duration::from_secs(60) {
        let asked = outputs(&mut link, now).iter().filter(|o| matches!(o, Output::Dial)).count();
        dials += asked;
        if asked == 0 {
            now = link.poll_timeout(now).expect("it tries again").max(now);
            link.handle_timeout(now);
            continue;
        }
        let conn = ConnId(dials as u64);
        link.handle_opened(conn, true, now);
        end(&mut link, conn, now);
        assert!(dials < 60, "{dials} attempts in {:?}", now - start);
    }
    dials
}

fn bytes_of(frame: Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode_control(&mut bytes);
    bytes
}

#[test]
fn a_peer_that_always_holds_a_newer_incarnation_is_not_dialled_in_a_loop() {
    let refuse = native::Refuse { reason: Reason::OutdatedIncarnation, text: "", held: Some(9) };
    let refuse = bytes_of(Frame::Refuse(refuse));
    let dials = dials_in_a_minute(|link, conn, now| link.handle_frame(conn, &refuse, now));
    assert!(dials > 10, "{dials}");
}

#[test]
fn a_connection_that_ends_by_a_broken_rule_each_time_is_not_dialled_in_a_loop() {
    let bye = bytes_of(Frame::Bye(Bye { reason: Reason::ProtocolMismatch, text: "yours" }));
    for end in [vec![0x7f, 0], bye] {
        let dials = dials_in_a_minute(|link, conn, now| {
            for frame in [Frame::Hello(hello()), Frame::ProbeAck(Probe { id: 1 })] {
                link.handle_frame(conn, &bytes_of(frame), now);
            }
            assert!(link.report(now).rtt_ms.is_some(), "it began well");
            link.handle_frame(conn, &end, now);
        });
        assert!(dials > 10, "{dials}");
    }
}

/// Frames that mean something, and some that mean nothing.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let number = 0u8..6;
    prop_oneof![
        (number.clone(), 0u8..4).prop_map(|(n, flags)| vec![4, 6, 1, 1, n, 2, 1, flags, 1, 0, 1, b'a', 0]),
        number.clone().prop_map(|n| vec![4, 3, 1, 1, n, 0, 1, 0, 1, b'a']),
        (number.clone(), 0u8..3).prop_map(|(n, qos)| vec![6, 3, 1, 1, n, qos, 0, 1, b't', 0, qos, 1, 0]),
        number.clone().prop_map(|n| vec![7, 3, 1, 1, n]),
        number.clone().prop_map(|n| vec![5, 16, 1, 1, n, 2, 1, 0, 3, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        number.clone().prop_map(|n| vec![8, 3, 1, 1, n]),
        number.prop_map(|n| vec![9, 3, 1, 1, n]),
        prop::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #[test]
    fn whatever_a_peer_says_the_machine_stands_and_its_counters_balance(
        frames in prop::collection::vec((any_frame(), 0u64..3000), 0..40),
    ) {
        let mut bench = Bench::open();
        for (frame, pause) in frames {
            bench.say_bytes(&frame);
            let message = Message {
                topic: "a".into(),
                payload: bytes::Bytes::from_static(b"x"),
                qos: crate::mqtt::QoS::AtLeastOnce,
                retain: false,
                properties: crate::mqtt::PropertiesBuf::new(),
                expires_at: None,
            };
            bench.link.handle_message(Rc::new(message), bench.now);
            bench.now += Duration::from_millis(pause);
            if bench.link.poll_timeout(bench.now).is_some_and(|at| at <= bench.now) {
                bench.link.handle_timeout(bench.now);
            }
            bench.drain();
            let after = bench.link.poll_timeout(bench.now);
            prop_assert!(after.is_none_or(|at| at > bench.now), "what is due was done");
            let (sent, received) = (bench.link.counters().sent, bench.link.counters().received);
            prop_assert_eq!(sent.matched, sent.acknowledged + sent.queued + sent.in_flight);
            prop_assert_eq!(received.received, received.delivered + received.dropped.duplicate);
        }
    }
}
