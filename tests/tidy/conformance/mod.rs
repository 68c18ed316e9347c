//! `docs/conformance.md`, made of the tags in the source: each normative statement of MQTT 5.0 and 3.1.1, where it is
//! enforced and which test shows it. `UPDATE_CONFORMANCE=1 cargo test --test tidy conformance` writes it.
//!
//! A tag is `[MQTT-x.y.z-n]` of 5.0, or the same followed by ` v3` of 3.1.1, in a comment at the line that enforces a
//! statement and in the test that shows it. A statement that binds a server and lacks either makes this fail, and so does a
//! tag of a statement that does not exist.

mod v3;
mod v5;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::source::{Source, sources};
use crate::{check, root};

/// Number without brackets, whom it binds, what it says.
type Statement = (&'static str, Kind, &'static str);

/// Whom a statement binds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The broker: enforced here, and shown by a test.
    Broker,
    /// Clients only.
    Client,
    /// The same rule as this one of 5.0: one line enforces both.
    Like(&'static str),
    /// The broker, but what it is about does not come up here: why.
    Moot(&'static str),
}

const DOCUMENT: &str = "docs/conformance.md";
/// The list of what peers can do wrong names statements, but enforces none.
const LISTS: &[&str] = &["src/mqtt/violation.rs"];

/// Where a tag stands: file and function.
type Places = BTreeMap<String, BTreeSet<(String, String)>>;

/// All tags of the source.
#[derive(Default)]
struct Tags {
    lines: Places,
    tests: Places,
}

#[test]
fn conformance_is_complete_and_its_document_up_to_date() {
    let tags = Tags::read();
    let mut violations = tags.unknown();
    violations.extend(tags.missing(v5::STATEMENTS, ""));
    violations.extend(tags.missing(v3::STATEMENTS, " v3"));
    check("statements of the specification that nothing enforces or shows, and tags of none", violations);
    let path = root().join(DOCUMENT);
    let wanted = document(&tags);
    if std::env::var_os("UPDATE_CONFORMANCE").is_some() {
        std::fs::write(&path, &wanted).expect("the document can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let is_same = found == wanted;
    assert!(is_same, "{DOCUMENT} is old: UPDATE_CONFORMANCE=1 cargo test --test tidy conformance");
}

#[test]
fn each_statement_is_there_once_and_what_it_is_like_exists() {
    let numbers: BTreeSet<_> = v5::STATEMENTS.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers.len(), v5::STATEMENTS.len());
    let old: BTreeSet<_> = v3::STATEMENTS.iter().map(|(number, ..)| *number).collect();
    assert_eq!(old.len(), v3::STATEMENTS.len());
    let lost = v3::STATEMENTS.iter().filter_map(|(number, kind, _)| match kind {
        Kind::Like(other) if !numbers.contains(other) => Some(format!("{number} is like {other}")),
        _ => None,
    });
    check("3.1.1 leans on what 5.0 has not", lost.collect());
}

impl Tags {
    fn read() -> Tags {
        let mut tags = Tags::default();
        let all = ["src", "tests"].iter().flat_map(|folder| sources(folder));
        for source in all.filter(|source| !source.path.starts_with("tests/tidy/")) {
            let is_list = LISTS.contains(&source.path.as_str());
            for (line, tag) in found(&source) {
                let is_test = source.is_test_line(line);
                let places = if is_test { &mut tags.tests } else { &mut tags.lines };
                if is_test || !is_list {
                    let place = (source.path.clone(), source.function_at(line));
                    places.entry(tag).or_default().insert(place);
                }
            }
        }
        tags
    }

    fn unknown(&self) -> Vec<String> {
        let known: BTreeSet<String> = v5::STATEMENTS
            .iter()
            .map(|(number, ..)| (*number).to_owned())
            .chain(v3::STATEMENTS.iter().map(|(number, ..)| format!("{number} v3")))
            .collect();
        let all = self.lines.iter().chain(&self.tests);
        let unknown = all.filter(|(tag, _)| !known.contains(*tag));
        unknown.map(|(tag, places)| format!("[MQTT-{tag}] does not exist: {places:?}")).collect()
    }

    fn missing(&self, statements: &[Statement], suffix: &str) -> Vec<String> {
        let mut missing = Vec::new();
        for (number, _, text) in statements.iter().filter(|(_, kind, _)| *kind == Kind::Broker) {
            let tag = format!("{number}{suffix}");
            for (what, places) in [("line", &self.lines), ("test", &self.tests)] {
                if !places.contains_key(&tag) {
                    missing.push(format!("[MQTT-{number}]{suffix} has no {what}: {text}"));
                }
            }
        }
        missing
    }
}

/// The lines of a source with tags, as `x.y.z-n` or `x.y.z-n v3`.
fn found(source: &Source) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for (index, line) in source.raw.lines().enumerate() {
        for (at, _) in line.match_indices("[MQTT-") {
            let Some((number, rest)) = line[at + "[MQTT-".len()..].split_once(']') else { continue };
            let is_number = number.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
            if is_number && !number.is_empty() {
                let suffix = if rest.starts_with(" v3") { " v3" } else { "" };
                all.push((index + 1, format!("{number}{suffix}")));
            }
        }
    }
    all
}

fn document(tags: &Tags) -> String {
    let mut out = String::from(HEAD);
    out.push_str("\n## MQTT 5.0\n\n");
    table(&mut out, tags, v5::STATEMENTS, "");
    out.push_str("\n## MQTT 3.1.1\n\nWhere a statement is 5.0's too, one line enforces both, and its number there is given.\n\n");
    table(&mut out, tags, v3::STATEMENTS, " v3");
    out.push_str(TAIL);
    out
}

fn table(out: &mut String, tags: &Tags, statements: &[Statement], suffix: &str) {
    out.push_str("| statement | says | enforced in | shown by |\n|---|---|---|---|\n");
    for (number, kind, text) in statements {
        let tag = format!("{number}{suffix}");
        let (line, test) = match kind {
            Kind::Broker => (places(tags.lines.get(&tag)), places(tags.tests.get(&tag))),
            Kind::Like(other) => {
                let own = tags.tests.get(&tag);
                let like = format!("as {other}");
                let test = if own.is_some() { places(own) } else { like.clone() };
                (like, test)
            }
            Kind::Client => ("binds clients".to_owned(), String::new()),
            Kind::Moot(reason) => (format!("does not arise: {reason}"), String::new()),
        };
        writeln!(out, "| {number} | {text} | {line} | {test} |").expect("a string takes all");
    }
}

/// `function` in `file`, each file once.
fn places(places: Option<&BTreeSet<(String, String)>>) -> String {
    let mut by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, function) in places.into_iter().flatten() {
        by_file.entry(file).or_default().push(function);
    }
    let mut parts = Vec::new();
    for (file, functions) in by_file {
        let name = file.trim_start_matches("src/").trim_end_matches(".rs");
        parts.push(format!("`{}` in {name}", functions.join("`, `")));
    }
    parts.join("; ")
}

const HEAD: &str = "# Conformance

Every normative statement of MQTT 5.0 and 3.1.1, what it says in a few words of ours, the function that enforces it and the
test that shows it. Made from the tags in the source by `UPDATE_CONFORMANCE=1 cargo test --test tidy conformance`; the test
fails when a statement that binds a server has no line or no test. MQTT 3.1 clients (`MQIsdp`) are served by the rules of
3.1.1, except that what is sent again may have DUP in SUBSCRIBE, UNSUBSCRIBE and PUBREL, and CONNACK has no Session Present.
";

const TAIL: &str = "
## What others' suites find

What was run against a broker with anonymous clients allowed, with as many shards as said; nothing of it is in this repository.

| suite | from | shards | result |
|---|---|---|---|
| paho.mqtt.golang 1.5.1, all tests | Go | 1, 2, 4 | all pass |
| gmqtt 0.8.0, tests of MQTT 5 and session expiry | PyPI | 1, 2, 4 | 33 of 35; one wants TLS on port 8883, in one the client names itself and expects an assigned name |
| paho-mqtt 2.2.0, tests of MQTT 5 (those of Eclipse's interoperability suite) | PyPI | 1, 2, 4 | 20 of 24; three restart the suite's own broker, one wants 0x80 for a filter of its own |
| packets of mochi-mqtt 2.7.9, 101 | Go | not noted | as labelled, but for 18 that are a part of a packet only, 5 that MQTT forbids a client, an authentication method that is not ours, and a message to $SYS, which is dropped without a word |
| what the suites of Eclipse (paho.mqtt.testing), bromq-dev (testmqtt), LabOverWire (mqtt5-conformance) and EMQX expect, as 145 probes of ours | read | 1, 2, 4 | all pass, but for the list below |
| what 47 scripts of mosquitto's `test/broker` expect where ours did not look (`core/tests/others.rs`) | read | 1 | all pass, but for the list below |
| what mosquitto's byte tables (`test/broker/data`, about 700 cases, some parts not) expect | read | 2 | each refusal ends the connection there and here; reason codes and CONNACK's properties differ, see below |
| what the suites of RabbitMQ (v5, half of the shared one), VerneMQ (8), EMQX (v5), RMQTT, moquette, aedes and mqtt-cli's and HiveMQ's decoder tests (a part) expect | read, the doubtful probed | 2 | all pass, but for the list below, bridges' bit 7 of the protocol level, and what is of their own configuration |
| tables of bytes for 3.1.1 and 3.1 (379), options, expiry and aliases of 5.0 (106), sessions and wills by either and across (130), as probes of ours after the suites of IoT-Testware, vibemq and two others | read | 1, 2, 4 | all pass, but for the list below |
| what the suites of FlashMQ (wills, retained, shared, WebSocket and half of the rest), vibesrc (mqttconformance), ten files of LabOverWire's, EMQX (shared, take-over in part), the rest of RabbitMQ's shared one, mosquitto's 09-extended-auth and 13-malformed, and parts of Artemis' and MQTTnet's expect (some 330, about 150 of them probed) | read, the doubtful probed | 1, 2, 4 | all pass, but for the list below |

There is one deviation: SUBACK does not wait for what other shards retain, nor here for more than is found at once. What another client
publishes to a topic right then may reach the subscriber before an older message that is retained there (4.6.0-6 of 3.1.1). What the
subscriber itself publishes comes behind what it is shown (RabbitMQ's `subscribe_same_topic` wants that), up to a part of wide or many filters
([how much](limits.md)). A newer *retained* message is never followed by an older one, but where QoS 0 is delivered to a client that takes
no more for now (it is slow, or has not acknowledged what it was sent): what is retained waits for it, and new messages of QoS 0 do not.

Where suites and brokers differ and MQTT allows both, or a suite wants what MQTT does not say:

- A 3.1 client hears SUBACK 0x80 for a filter that it does not get, though its version knows no refusal (mosquitto: a grant that brings nothing).
- A password without a user name, which 5.0 allows, is not looked at where anonymous clients are let in (RabbitMQ: refused).
- Overlapping subscriptions bring one copy with all identifiers (Eclipse wants that; mqtt5-conformance wants one copy each).
- A QoS 2 message goes on to its subscribers when PUBLISH comes, as figure 4.3 has it (mqtt5-conformance: not before PUBREL).
- A `$share` without a proper name or filter is refused by SUBACK 0x8F; a misplaced `+` or `#`, also in a topic or a response
  topic, is malformed: 0x81 (EMQX: 0x90, 0x82).
- An own message may come before its PUBACK or PUBREC (VerneMQ and older mosquitto: after it).
- No Local is about messages that are published while one is subscribed: what SUBSCRIBE shows of retained messages may be one's own.
- Bytes of a packet that is not whole yet are no silence: a slow upload of a large one takes longer than the keep alive (3.1.2-22).
- The topics behind a client's aliases may take 1 MiB together; beyond that its connection ends with Quota exceeded (3.3.2-12).
- A packet identifier of 0 is malformed, and so is a property where it must not be: 0x81 (mosquitto: 0x82). SUBSCRIBE without a filter,
  with QoS 3, retain handling 3 or identifier 0 is a protocol error: 0x82 (mosquitto: 0x81).
- Control characters and non-characters in strings are taken (mosquitto and HiveMQ: refused; 1.5.4 lets both).
- Of two kept sessions, the will of the one that is taken over goes out, as section 3.1.4 has it (mosquitto: it does not).
- A packet identifier of QoS 2 stands for its first message until PUBREL, however often it comes (mosquitto: the last one counts,
  and the third ends the connection).
- A filter of more than 128 levels is refused by SUBACK 0x8F (mosquitto: it is malformed).
- PUBREC says too when nobody subscribed: 0x10 (mosquitto: PUBACK only).
- A session without expiry ends when it is taken over, and the newcomer finds none (EMQX: it does).
- A topic that is shorter than an alias gets none.
- A client that sends more than our Receive Maximum at once is disconnected, even if it would have been answered in time.
- To authenticate again by another method than CONNECT's is refused by 0x8C, as table 2-6 has it (mosquitto: 0x82).
- Nothing of QoS 0 waits for who is away (RabbitMQ keeps it).
- An acknowledgement of the wrong kind ends the connection (MQTTnet bears it).
";
