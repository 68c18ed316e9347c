//! Topic filters against naive versions, which try every topic over a small alphabet.

use super::super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::LazyLock;

/// Every topic of one to four levels over these; `$x` is there because of its rule, `` because levels may be empty.
static TOPICS: LazyLock<Vec<String>> = LazyLock::new(|| {
    const LEVELS: [&str; 4] = ["a", "b", "", "$x"];
    let mut all: Vec<String> = LEVELS.map(String::from).to_vec();
    let mut longest = all.clone();
    for _ in 1..4 {
        longest = longest.iter().flat_map(|head| LEVELS.map(|level| format!("{head}/{level}"))).collect();
        all.extend(longest.iter().cloned());
    }
    all.retain(|topic| check_topic_name(topic).is_ok());
    all
});

/// A filter of up to three levels, so that topics of four levels show everything that `#` can stand for.
fn filter() -> impl Strategy<Value = Filter> {
    let level = select(&["a", "b", "", "$x", "+", "+", "#"]);
    vec(level, 1..=3).prop_filter_map("not a filter", |levels| Filter::parse(&levels.join("/")).ok())
}

fn topic() -> impl Strategy<Value = &'static str> {
    (0..TOPICS.len()).prop_map(|at| TOPICS[at].as_str())
}

/// Matching as the specification tells it: by recursion over the levels.
fn matches_naively(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            ([], []) => true,
            (["#"], _) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
            ([level, filter @ ..], [other, topic @ ..]) => level == other && levels(filter, topic),
            _ => false,
        }
    }
    let wild = filter.starts_with('+') || filter.starts_with('#');
    !(wild && topic.starts_with('$'))
        && levels(&filter.split('/').collect::<Vec<_>>(), &topic.split('/').collect::<Vec<_>>())
}

fn matched_by(filter: &Filter) -> Vec<&'static str> {
    TOPICS.iter().map(String::as_str).filter(|topic| matches_naively(filter.as_str(), topic)).collect()
}

proptest! {
    #[test]
    fn matching_is_what_the_specification_says(filter in filter(), topic in topic()) {
        prop_assert_eq!(filter.matches(topic), matches_naively(filter.as_str(), topic));
        prop_assert_eq!(filter_matches(filter.as_str(), topic), filter.matches(topic));
    }

    #[test]
    fn a_filter_covers_another_if_it_matches_all_its_topics(one in filter(), two in filter()) {
        let (ones, twos) = (matched_by(&one), matched_by(&two));
        prop_assert_eq!(one.covers(&two), twos.iter().all(|topic| ones.contains(topic)), "{} {}", one, two);
    }

    #[test]
    fn an_intersection_matches_what_both_match(one in filter(), two in filter()) {
        let both: Vec<_> = matched_by(&one).into_iter().filter(|topic| two.matches(topic)).collect();
        let meet = one.intersect(&two);
        prop_assert_eq!(meet.as_ref().map(matched_by).unwrap_or_default(), both.clone(), "{} {}", one, two);
        prop_assert_eq!(meet.is_none(), both.is_empty());
        if let Some(meet) = meet {
            prop_assert_eq!(Filter::parse(meet.as_str()), Ok(meet));
        }
    }

    #[test]
    fn a_union_is_minimal_and_matches_the_same(filters in vec(filter(), 0..8)) {
        let minimal = union(filters.clone());
        for topic in TOPICS.iter() {
            let any = |list: &[Filter]| list.iter().any(|filter| filter.matches(topic));
            prop_assert_eq!(any(&minimal), any(&filters), "{}", topic);
        }
        prop_assert!(minimal.is_sorted());
        for (at, one) in minimal.iter().enumerate() {
            prop_assert!(filters.contains(one));
            let others = minimal.iter().enumerate().filter(|&(other, _)| other != at);
            prop_assert!(others.into_iter().all(|(_, other)| !other.covers(one)), "{} is covered", one);
        }
        let mut reversed = filters;
        reversed.reverse();
        prop_assert_eq!(union(reversed), minimal, "the order does not matter");
    }
}

#[track_caller]
fn check_match(filter: &str, topic: &str, expected: bool) {
    assert_eq!(Filter::parse(filter).unwrap().matches(topic), expected, "{filter} {topic}");
}

#[test]
fn the_examples_of_the_specification_hold() {
    for topic in
        ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"]
    {
        check_match("sport/tennis/player1/#", topic, true);
    }
    check_match("sport/#", "sport", true);
    check_match("sport/tennis/+", "sport/tennis/player1", true);
    check_match("sport/tennis/+", "sport/tennis/player1/ranking", false);
    check_match("sport/+", "sport", false);
    check_match("sport/+", "sport/", true);
    check_match("+/+", "/finance", true);
    check_match("/+", "/finance", true);
    check_match("+", "/finance", false);
    check_match("#", "$SYS/monitor", false);
    check_match("+/monitor/Clients", "$SYS/monitor/Clients", false);
    check_match("$SYS/#", "$SYS/monitor", true);
    check_match("$SYS/monitor/+", "$SYS/monitor/Clients", true);
    check_match("ACCOUNTS", "Accounts", false);
}

#[track_caller]
fn check_parse(filter: &str, expected: Result<(), FilterError>) {
    assert_eq!(parse_subscription(filter).map(|_| ()), expected, "{filter:?}");
}

#[test]
fn a_filter_is_refused_by_name() {
    use FilterError::*;
    check_parse("", Err(Empty)); // [MQTT-4.7.3-1]
    check_parse("a\0b", Err(Nul)); // [MQTT-4.7.3-2]
    check_parse(&"x".repeat(65_536), Err(TooLong)); // [MQTT-4.7.3-3]
    check_parse(&"x".repeat(65_535), Ok(()));
    for filter in ["a#", "a/#/b", "#/", "##", "a/b#", "#a"] {
        check_parse(filter, Err(HashMisplaced)); // [MQTT-4.7.1-1]
    }
    for filter in ["a+", "+a", "a/+b/c", "++"] {
        check_parse(filter, Err(PlusMisplaced)); // [MQTT-4.7.1-2]
    }
    for filter in ["/", "//", "a/", "+/+/#", "$SYS/#", "$share", "$shared/a", "$SHARE/g"] {
        check_parse(filter, Ok(()));
    }
    check_parse("$share/", Err(ShareNameEmpty)); // [MQTT-4.8.2-1]
    check_parse("$share//a", Err(ShareNameEmpty));
    check_parse("$share/g", Err(ShareFilterMissing)); // [MQTT-4.8.2-2]
    check_parse("$share/g/", Err(ShareFilterMissing));
    check_parse("$share/g+/a", Err(ShareNameInvalid));
    check_parse("$share/#/a", Err(ShareNameInvalid));
    check_parse("$share/g\0/a", Err(Nul));
    check_parse("$share/g/a#", Err(HashMisplaced));
    check_parse("$share/g/+/#", Ok(()));
    check_parse(&format!("$share/g/{}", "x".repeat(65_530)), Err(TooLong));
    assert_eq!(Filter::parse("$share/g/a"), Err(Shared));
}

#[test]
fn a_shared_filter_has_a_group_and_a_filter() {
    let (group, filter) = parse_subscription("$share/workers//jobs/+").unwrap();
    assert_eq!((group.as_deref(), filter.as_str()), (Some("workers"), "/jobs/+"));
    let shared = SharedFilter::parse("$share/workers//jobs/+").unwrap();
    assert_eq!(shared.to_string(), "$share/workers//jobs/+");
}

#[track_caller]
fn check_meet(one: &str, two: &str, expected: Option<&str>) {
    let meet = Filter::parse(one).unwrap().intersect(&Filter::parse(two).unwrap());
    assert_eq!(meet.as_ref().map(Filter::as_str), expected, "{one} {two}");
}

#[test]
fn an_intersection_of_two_long_filters_may_be_longer_than_any_topic() {
    let (one, two) = ("a".repeat(40_000) + "/+", "+/".to_owned() + &"b".repeat(40_000));
    check_meet(&one, &two, None);
    check_meet("a/+/#", "+/b/c", Some("a/b/c"));
    check_meet("a/#", "+/b/#", Some("a/b/#"));
    check_meet("#", "$SYS/#", None);
}

#[test]
fn a_topic_name_is_refused_by_name() {
    assert_eq!(check_topic_name(""), Err(Violation::EmptyTopicName));
    assert_eq!(check_topic_name("a\0"), Err(Violation::StringWithNul));
    assert_eq!(check_topic_name(&"x".repeat(65_536)), Err(Violation::TopicNameTooLong));
    assert_eq!(check_topic_name(&"x".repeat(65_535)), Ok(()));
    // Wherever it stands in the words of eight bytes, and whatever is around it.
    for padding in ["a", "é", "\u{7f}", "\u{1}", "*", "$", "\"", ","] {
        for (before, after) in (0..20).flat_map(|before| (0..10).map(move |after| (before, after))) {
            let topic = |special: &str| padding.repeat(before) + special + &padding.repeat(after);
            assert_eq!(check_topic_name(&topic("+")), Err(Violation::WildcardInTopicName));
            assert_eq!(check_topic_name(&topic("#")), Err(Violation::WildcardInTopicName));
            assert_eq!(check_topic_name(&topic("\0")), Err(Violation::StringWithNul));
            assert_eq!(check_topic_name(&topic("/")), Ok(()));
        }
    }
}
