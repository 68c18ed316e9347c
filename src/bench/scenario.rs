//! The shapes of load, as data: those of the report, and those that a user writes.

use std::borrow::Cow;
use std::str::FromStr;

use crate::mqtt::QoS;

/// One shape of load.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub(super) name: Cow<'static, str>,
    /// What one unit of the CPU column is.
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    /// Whether subscribers sit at the peer.
    pub(super) linked: bool,
    /// How client ids begin: brokers that share clients among threads do so by their ids.
    pub(super) clients: Cow<'static, str>,
}

/// What a scenario measures.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// CPU time and throughput under a steady load.
    Load(Load),
    /// The time from SUBSCRIBE to the first delivery of what is being published, so many times in a run.
    FirstDelivery { times: usize },
}

/// A steady load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) qos: QoS,
    pub(super) wiring: Wiring,
    pub(super) pace: Pace,
}

/// When publishers publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Closed loop: a publisher may have so many messages under way.
    Window(u32),
    /// Open loop: so many messages a second, of all publishers together, whatever comes of them. Latency counts from when
    /// a message was due, so a broker that falls behind does not thereby hide it.
    Rate(u32),
}

/// Who publishes to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wiring {
    /// So many publishers, each with a topic and a subscriber of its own.
    Pairs(usize),
    /// One publisher, one topic, so many subscribers.
    FanOut(usize),
    /// So many publishers on topics of their own, one subscriber to all of them.
    FanIn(usize),
    /// So many publishers, each with a topic and a subscriber of its own that is away: messages wait in its session.
    Offline(usize),
    /// One publisher takes turns over `topics`; one subscriber wants the first `wanted` of them.
    Choosy { topics: usize, wanted: usize },
}

const fn load(qos: QoS, wiring: Wiring, window: u32) -> Kind {
    Kind::Load(Load { qos, wiring, pace: Pace::Window(window) })
}

const fn paced(qos: QoS, wiring: Wiring, rate: u32) -> Kind {
    Kind::Load(Load { qos, wiring, pace: Pace::Rate(rate) })
}

const fn scenario(name: &'static str, unit: &'static str, linked: bool, kind: Kind) -> Scenario {
    Scenario { name: Cow::Borrowed(name), unit, kind, linked, clients: CLIENTS }
}

const CLIENTS: Cow<'static, str> = Cow::Borrowed("bench");

/// All of them, in the order of the report.
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("1:1 QoS 0", "message", false, load(QoS::AtMostOnce, Wiring::Pairs(1), 1000)),
    scenario("1:1 QoS 1", "message", false, load(QoS::AtLeastOnce, Wiring::Pairs(1), 1000)),
    scenario("50 pairs QoS 1", "message", false, load(QoS::AtLeastOnce, Wiring::Pairs(50), 100)),
    scenario("fan-in 50:1 QoS 1", "message", false, load(QoS::AtLeastOnce, Wiring::FanIn(50), 20)),
    scenario("fan-out 1:100 QoS 0", "delivery", false, load(QoS::AtMostOnce, Wiring::FanOut(100), 100)),
    scenario("1:1 QoS 1, one at a time", "message", false, load(QoS::AtLeastOnce, Wiring::Pairs(1), 1)),
    scenario("1:1 QoS 1, 5,000 a second", "message", false, paced(QoS::AtLeastOnce, Wiring::Pairs(1), 5_000)),
    scenario("link 1:1 QoS 0", "message", true, load(QoS::AtMostOnce, Wiring::Pairs(1), 1000)),
    scenario("link 1:1 QoS 1", "message", true, load(QoS::AtLeastOnce, Wiring::Pairs(1), 1000)),
    scenario("link 50 pairs QoS 1", "message", true, load(QoS::AtLeastOnce, Wiring::Pairs(50), 20)),
    scenario(
        "link, 10 of 1,000 topics wanted, QoS 0",
        "published message",
        true,
        load(QoS::AtMostOnce, Wiring::Choosy { topics: 1000, wanted: 10 }, 2000),
    ),
    scenario("link 1:1 QoS 1, one at a time", "message", true, load(QoS::AtLeastOnce, Wiring::Pairs(1), 1)),
    scenario("link, subscribe to first delivery", "message", true, Kind::FirstDelivery { times: 100 }),
];

impl FromStr for Scenario {
    type Err = String;

    /// Words with commas between them, as `pairs=50,qos=1,rate=5000`.
    fn from_str(text: &str) -> Result<Scenario, String> {
        let (mut wiring, mut qos, mut pace, mut linked) = (None, QoS::AtMostOnce, None, false);
        let mut clients = CLIENTS;
        for word in text.split(',') {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number = |max: u32| match value.parse::<u32>() {
                Ok(number) if (1..=max).contains(&number) => Ok(number),
                _ => Err(format!("`{word}`: expected {name}=NUMBER, 1 to {max}")),
            };
            match name {
                "pairs" => put(&mut wiring, word, Wiring::Pairs(number(CLIENTS_MAX)? as usize))?,
                "fan-out" => put(&mut wiring, word, Wiring::FanOut(number(CLIENTS_MAX)? as usize))?,
                "fan-in" => put(&mut wiring, word, Wiring::FanIn(number(CLIENTS_MAX)? as usize))?,
                "offline" => put(&mut wiring, word, Wiring::Offline(number(CLIENTS_MAX)? as usize))?,
                "window" => put(&mut pace, word, Pace::Window(number(65_535)?))?,
                "rate" => put(&mut pace, word, Pace::Rate(number(100_000_000)?))?,
                "link" if value.is_empty() => linked = true,
                "clients" if !value.is_empty() => clients = Cow::Owned(value.to_owned()),
                "qos" => {
                    qos = match value {
                        "0" => QoS::AtMostOnce,
                        "1" => QoS::AtLeastOnce,
                        "2" => QoS::ExactlyOnce,
                        _ => return Err(format!("`{word}`: expected qos=0, qos=1 or qos=2")),
                    }
                }
                _ => return Err(format!("`{word}` is unknown; {WORDS}")),
            }
        }
        let wiring = wiring
            .ok_or_else(|| format!("nobody publishes: name pairs, fan-out, fan-in or offline; {WORDS}"))?;
        if matches!(wiring, Wiring::Offline(_)) && qos == QoS::AtMostOnce {
            return Err("nothing waits at QoS 0 for who is away: add qos=1 or qos=2".to_owned());
        }
        let unit = if matches!(wiring, Wiring::FanOut(_)) { "delivery" } else { "message" };
        let kind = Kind::Load(Load { qos, wiring, pace: pace.unwrap_or(Pace::Window(100)) });
        Ok(Scenario { name: Cow::Owned(text.to_owned()), unit, kind, linked, clients })
    }
}

/// The most publishers or subscribers of one scenario.
const CLIENTS_MAX: u32 = 10_000;
const WORDS: &str = "the words are pairs=N, fan-out=N, fan-in=N, offline=N, qos=0|1|2, window=N (closed loop), rate=N (open loop), clients=NAME and link";

fn put<T>(place: &mut Option<T>, word: &str, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("`{word}` says again what another word says already")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_a_few_words() {
        let scenario: Scenario = "pairs=50,qos=1,rate=5000,link,clients=x".parse().expect("it is one");
        let Kind::Load(load) = scenario.kind else { panic!("a load") };
        assert_eq!(
            (load.wiring, load.qos, load.pace),
            (Wiring::Pairs(50), QoS::AtLeastOnce, Pace::Rate(5_000))
        );
        assert!(scenario.linked && scenario.clients == "x");
        for (text, why) in [
            ("qos=1", "nobody publishes"),
            ("pairs=1,fan-in=2", "says again"),
            ("pairs=0", "1 to 10000"),
            ("pairs=1,qos=3", "qos=1 or qos=2"),
            ("offline=1", "add qos=1"),
            ("pairs=1,speed=3", "is unknown"),
        ] {
            let error = text.parse::<Scenario>().expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }
}
