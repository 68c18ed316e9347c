//! What a peer is told: changes and answers in, batches out.

use super::*;

const NOTHING: RouteAnswer =
    RouteAnswer { number: 0, digest: Digest { count: 0, sum: 0 }, need_bootstrap: true };

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("a valid filter")
}

/// A sender that is online with these routes, and the time.
fn online(subscriptions: &[&str]) -> (RouteSender, Instant) {
    let now = Instant::now();
    let mut sender = RouteSender::default();
    sender.handle_topics(vec![filter("#")], now);
    subscriptions.iter().for_each(|text| sender.handle_subscription(filter(text), None, true, now));
    sender.handle_connected();
    sender.handle_answer(NOTHING, now).expect("the first answer");
    while let Some(batch) = sender.poll_batch(now) {
        let answer = answer(&sender, batch.number);
        sender.handle_answer(answer, now).expect("it was sent");
    }
    assert_eq!(sender.synced(now), Synced::Yes);
    (sender, now)
}

fn answer(sender: &RouteSender, number: u64) -> RouteAnswer {
    RouteAnswer { number, digest: sender.told, need_bootstrap: false }
}

#[test]
fn an_idle_sender_tells_a_change_at_once_and_a_busy_one_gathers() {
    let (mut sender, now) = online(&["a"]);
    sender.handle_subscription(filter("b"), None, true, now);
    assert_eq!(sender.poll_batch(now).expect("at once").add, [filter("b")]);
    sender.handle_subscription(filter("c"), None, true, now);
    sender.handle_subscription(filter("d"), None, true, now + GATHER / 2);
    assert_eq!(sender.poll_batch(now + GATHER / 2), None);
    assert_eq!(sender.poll_timeout(now), Some(now + GATHER));
    assert_eq!(sender.poll_batch(now + GATHER).expect("together").add, [filter("c"), filter("d")]);
}

#[test]
fn what_comes_and_goes_while_it_cannot_be_told_leaves_nothing() {
    let (mut sender, now) = online(&["a"]);
    sender.handle_disconnected();
    for text in ["x", "y", "z"] {
        sender.handle_subscription(filter(text), None, true, now);
        sender.handle_subscription(filter(text), None, false, now);
    }
    sender.handle_connected();
    let answer = answer(&sender, sender.number);
    sender.handle_answer(answer, now).expect("the first answer");
    assert_eq!((sender.poll_batch(now), sender.synced(now)), (None, Synced::Yes));
}

#[test]
fn a_wrong_answer_makes_everything_go_again() {
    let (mut sender, now) = online(&["a", "b"]);
    sender.handle_subscription(filter("c"), None, true, now);
    let batch = sender.poll_batch(now).expect("a delta");
    let mut wrong = answer(&sender, batch.number);
    wrong.digest.sum ^= 1;
    sender.handle_answer(wrong, now).expect("it was sent");
    assert_eq!(sender.synced(now), Synced::Bootstrapping);
    let batch = sender.poll_batch(now).expect("a bootstrap");
    assert!(batch.begin && batch.end);
    assert_eq!(batch.add, [filter("a"), filter("b"), filter("c")]);
}

#[test]
fn a_peer_that_lost_what_it_confirmed_is_told_everything_again() {
    let (mut sender, now) = online(&["a"]);
    sender.handle_answer(NOTHING, now).expect("it may say so at any time");
    let batch = sender.poll_batch(now).expect("a bootstrap");
    assert!(batch.begin && batch.add == [filter("a")]);
    let stale = RouteAnswer { number: batch.number - 1, need_bootstrap: true, ..NOTHING };
    sender.handle_answer(stale, now).expect("it was sent");
    assert_eq!(sender.poll_batch(now), None, "an answer to what was before the bootstrap starts no other");
}

#[test]
fn a_resync_begins_anew_wherever_it_stands() {
    let (mut sender, now) = online(&["a", "b"]);
    sender.handle_resync(now);
    assert_eq!(sender.synced(now), Synced::Bootstrapping);
    let batch = sender.poll_batch(now).expect("a bootstrap");
    assert!(batch.begin && batch.end && batch.add == [filter("a"), filter("b")]);
    // In the midst of one, and the answer to that one comes.
    let stale = answer(&sender, batch.number);
    sender.handle_resync(now);
    sender.handle_answer(stale, now).expect("it was sent");
    assert_eq!(sender.synced(now), Synced::Bootstrapping);
    assert!(sender.poll_batch(now).expect("another").begin);
    // Without a connection, and before the peer's first word: what that one holds is not asked any more.
    for connects_first in [false, true] {
        let held = answer(&sender, sender.number);
        sender.handle_disconnected();
        if connects_first {
            sender.handle_connected();
        }
        sender.handle_resync(now);
        sender.handle_connected();
        sender.handle_answer(held, now).expect("the first answer");
        assert!(sender.poll_batch(now).expect("a bootstrap").begin);
    }
}

#[test]
fn a_change_that_cannot_leave_is_behind_in_the_end() {
    let (mut sender, now) = online(&["a"]);
    sender.handle_subscription(filter("b"), None, true, now);
    assert_eq!(sender.synced(now + ANSWER / 2), Synced::Yes);
    assert_eq!(sender.synced(now + ANSWER), Synced::Behind, "though nothing waits for an answer");
}

#[test]
fn what_did_not_fit_into_a_batch_goes_with_the_next_one_at_once() {
    let (mut sender, now) = online(&[]);
    for i in 0..2 * BATCH_FILTERS_MAX {
        sender.handle_subscription(filter(&format!("t/{i}")), None, true, now);
    }
    let batches = std::iter::from_fn(|| sender.poll_batch(now + GATHER)).count();
    assert_eq!(batches, 2);
}

#[test]
fn an_overdue_answer_is_behind_and_one_that_comes_mends_it() {
    let (mut sender, now) = online(&["a"]);
    sender.handle_subscription(filter("b"), None, true, now);
    let batch = sender.poll_batch(now).expect("a delta");
    assert_eq!(sender.synced(now + ANSWER / 2), Synced::Yes, "churn does not flap");
    assert_eq!(sender.poll_timeout(now), Some(now + ANSWER));
    assert_eq!(sender.synced(now + ANSWER), Synced::Behind);
    let answer = answer(&sender, batch.number);
    sender.handle_answer(answer, now).expect("it was sent");
    assert_eq!(sender.synced(now + ANSWER), Synced::Yes);
}

#[test]
fn unanswered_batches_are_bounded() {
    let (mut sender, now) = online(&[]);
    for i in 0..1000 {
        sender.handle_subscription(filter(&format!("t/{i}")), None, true, now);
        while sender.poll_batch(now + GATHER * i).is_some() {}
    }
    assert_eq!(sender.unanswered.len(), UNANSWERED_MAX);
    assert_eq!(sender.poll_timeout(now + GATHER), Some(now + ANSWER), "nothing else can be due");
}

#[test]
fn the_longest_filters_fit_into_a_frame_that_everybody_takes() {
    let (mut sender, now) = online(&[]);
    let long = |letter: &str| filter(&letter.repeat(65_535));
    for letter in ["a", "b"] {
        sender.handle_subscription(long(letter), None, true, now);
        sender.poll_batch(now + GATHER);
    }
    for letter in ["a", "b"] {
        sender.handle_subscription(long(letter), None, false, now);
    }
    sender.handle_subscription(filter(&"c".repeat(BATCH_BYTES_MAX - 1)), None, true, now);
    let mut frames = 0;
    while let Some(batch) = sender.poll_batch(now + GATHER * (2 + frames)) {
        frames += 1;
        let mut frame = Vec::new();
        crate::link::native::encode_routes(
            batch.number,
            (false, false),
            &batch.add,
            &batch.delete,
            &mut frame,
        );
        assert!(frame.len() <= crate::link::native::FRAME_BYTES_MIN, "{}", frame.len());
    }
    assert!(sender.delete.is_empty());
}

#[test]
fn with_no_topics_the_empty_set_is_told_and_confirmed() {
    let now = Instant::now();
    let mut sender = RouteSender::default();
    sender.handle_connected();
    sender.handle_answer(NOTHING, now).expect("the first answer");
    let batch = sender.poll_batch(now).expect("the empty set is told too");
    assert!(batch.begin && batch.end && batch.add.is_empty());
    assert_eq!(sender.synced(now), Synced::Bootstrapping);
    let answer = answer(&sender, batch.number);
    sender.handle_answer(answer, now).expect("it was sent");
    assert_eq!(sender.synced(now), Synced::Yes);
}
