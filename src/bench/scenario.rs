//! The shapes of load, as data.

use crate::mqtt::QoS;

/// One shape of load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// What one unit of the CPU column is.
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    /// Whether subscribers sit at the peer.
    pub(super) linked: bool,
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
    /// Messages that one publisher may have under way.
    pub(super) window: u32,
}

/// Who publishes to whom.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wiring {
    /// So many publishers, each with a topic and a subscriber of its own.
    Pairs(usize),
    /// One publisher, one topic, so many subscribers.
    FanOut(usize),
    /// So many publishers on topics of their own, one subscriber to all of them.
    FanIn(usize),
    /// One publisher takes turns over `topics`; one subscriber wants the first `wanted` of them.
    Choosy { topics: usize, wanted: usize },
}

const fn load(qos: QoS, wiring: Wiring, window: u32) -> Kind {
    Kind::Load(Load { qos, wiring, window })
}

const fn scenario(name: &'static str, unit: &'static str, linked: bool, kind: Kind) -> Scenario {
    Scenario { name, unit, kind, linked }
}

/// All of them, in the order of the report.
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("1:1 QoS 0", "message", false, load(QoS::AtMostOnce, Wiring::Pairs(1), 1000)),
    scenario("1:1 QoS 1", "message", false, load(QoS::AtLeastOnce, Wiring::Pairs(1), 1000)),
    scenario("50 pairs QoS 1", "message", false, load(QoS::AtLeastOnce, Wiring::Pairs(50), 100)),
    scenario("fan-in 50:1 QoS 1", "message", false, load(QoS::AtLeastOnce, Wiring::FanIn(50), 20)),
    scenario("fan-out 1:100 QoS 0", "delivery", false, load(QoS::AtMostOnce, Wiring::FanOut(100), 100)),
    scenario("1:1 QoS 1, one at a time", "message", false, load(QoS::AtLeastOnce, Wiring::Pairs(1), 1)),
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
