//! The algebra of filters on arbitrary strings: three lines of input are two filters and a topic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqlink_fuzz::mqtt::{Filter, check_topic_name, parse_subscription, union};

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(3, '\n');
    let (one, two) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let topic = lines.next().unwrap_or("");
    let (Ok((_, one)), Ok((_, two))) = (parse_subscription(one), parse_subscription(two)) else { return };
    let meet = one.intersect(&two);
    if let Some(meet) = &meet {
        assert_eq!(Filter::parse(meet.as_str()).as_ref(), Ok(meet), "an intersection is a filter");
        assert!(one.covers(meet) && two.covers(meet));
    }
    assert_eq!(meet.is_some(), two.intersect(&one).is_some());
    assert!(one.covers(&one) && two.covers(&two));
    let minimal = union([one.clone(), two.clone()]);
    if check_topic_name(topic).is_ok() {
        let (by_one, by_two) = (one.matches(topic), two.matches(topic));
        assert_eq!(meet.is_some_and(|meet| meet.matches(topic)), by_one && by_two);
        assert_eq!(minimal.iter().any(|filter| filter.matches(topic)), by_one || by_two);
        assert!(!(one.covers(&two) && by_two) || by_one);
    }
});
