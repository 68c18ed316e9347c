//! Routing against a model that looks at every subscription of every client.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::{World, options, v5};
use crate::broker::core::ConnectionId;
use crate::mqtt::filter_matches;

#[derive(Clone, Debug)]
enum Step {
    Subscribe(usize, String, u8),
    Unsubscribe(usize, String),
    Publish(String, u8),
    Retain(String, bool),
    Leave(usize),
}

const CLIENTS: [&str; 3] = ["a", "b", "c"];

fn label() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "$x"])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(label(), 1..4)
        .prop_map(|labels| labels.join("/"))
        .prop_filter("not empty", |t| !t.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => label(), 2 => Just("+")];
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(mut levels, tail)| {
            if tail {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("not empty", |filter| !filter.is_empty())
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS.len();
    prop_oneof![
        5 => (client.clone(), filter(), 0..3_u8).prop_map(|(c, f, q)| Step::Subscribe(c, f, q)),
        2 => (client.clone(), filter()).prop_map(|(c, f)| Step::Unsubscribe(c, f)),
        6 => (topic(), 0..3_u8).prop_map(|(t, q)| Step::Publish(t, q)),
        2 => (topic(), any::<bool>()).prop_map(|(t, keep)| Step::Retain(t, keep)),
        1 => client.prop_map(Step::Leave),
    ]
}

/// What every client is subscribed to, and what is retained.
#[derive(Default)]
struct Model {
    subscriptions: Vec<BTreeMap<String, u8>>,
    retained: BTreeMap<String, String>,
}

impl Model {
    /// At which QoS a client gets a message.
    fn granted(&self, client: usize, topic: &str, qos: u8) -> Option<u8> {
        let matching = self.subscriptions[client].iter().filter(|(filter, _)| filter_matches(filter, topic));
        matching.map(|(_, granted)| qos.min(*granted)).max()
    }
}

struct Run {
    w: World,
    publisher: ConnectionId,
    clients: Vec<ConnectionId>,
    model: Model,
    count: usize,
}

impl Run {
    fn new() -> Run {
        let mut w = World::new();
        let publisher = w.connect(v5("publisher"));
        let clients = CLIENTS.map(|id| w.connect(v5(id))).to_vec();
        let model = Model { subscriptions: vec![BTreeMap::new(); CLIENTS.len()], ..Model::default() };
        Run { w, publisher, clients, model, count: 0 }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Subscribe(client, filter, qos) => self.subscribe(*client, filter, *qos),
            Step::Unsubscribe(client, filter) => {
                let was_there = self.model.subscriptions[*client].remove(filter).is_some();
                self.w.unsubscribe(self.clients[*client], filter);
                let expected = if was_there { "UNSUBACK [0]" } else { "UNSUBACK [17]" };
                assert_eq!(self.w.heard(self.clients[*client]), [expected]);
            }
            Step::Publish(topic, qos) => self.publish(topic, *qos, false),
            Step::Retain(topic, keep) => self.retain(topic, *keep),
            Step::Leave(client) => {
                self.w.lose(self.clients[*client]);
                self.clients[*client] = self.w.connect(v5(CLIENTS[*client]));
                self.model.subscriptions[*client].clear();
            }
        }
    }

    fn subscribe(&mut self, client: usize, filter: &str, qos: u8) {
        self.model.subscriptions[client].insert(filter.to_owned(), qos);
        self.w.subscribe_with(self.clients[client], filter, options(qos), None);
        let mut heard = self.w.heard(self.clients[client]);
        assert_eq!(heard.remove(0), format!("SUBACK [{qos}]"));
        heard.sort();
        let matching = self.model.retained.iter().filter(|(topic, _)| filter_matches(filter, topic));
        let mut expected: Vec<_> =
            matching.map(|(topic, payload)| format!("{topic}={payload} retain")).collect();
        expected.sort();
        assert_eq!(heard, expected, "retained for {filter}");
    }

    fn retain(&mut self, topic: &str, keep: bool) {
        if keep {
            self.publish(topic, 0, true);
            self.model.retained.insert(topic.to_owned(), self.count.to_string());
        } else {
            self.w.publish_with(self.publisher, topic, 0, "", true, &[]);
            self.clients.iter().for_each(|&client| drop(self.w.heard(client)));
            self.model.retained.remove(topic);
        }
    }

    fn publish(&mut self, topic: &str, qos: u8, retain: bool) {
        self.count += 1;
        let payload = self.count.to_string();
        self.w.publish_with(self.publisher, topic, qos, &payload, retain, &[]);
        if qos == 2 {
            self.w.pubrel(self.publisher, 1);
        }
        self.w.heard(self.publisher);
        for (n, &client) in self.clients.iter().enumerate() {
            let heard = self.w.heard(client);
            let plain: Vec<_> = heard.iter().map(|line| line.split(" #").next().unwrap_or(line)).collect();
            let expected = self.model.granted(n, topic, qos).map(|granted| match granted {
                0 => format!("{topic}={payload}"),
                granted => format!("{topic}={payload} q{granted}"),
            });
            assert_eq!(plain, Vec::from_iter(expected), "{topic} for {}", CLIENTS[n]);
        }
    }
}

proptest! {
    // [MQTT-3.3.2-3] [MQTT-4.5.0-1]
    #[test]
    fn whatever_is_subscribed_and_published_arrives_where_the_model_says(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut run = Run::new();
        steps.iter().for_each(|step| run.step(step));
        let left: usize = run.model.subscriptions.iter().map(BTreeMap::len).sum();
        prop_assert_eq!(run.w.core.levels().subscriptions, left);
        prop_assert_eq!(run.w.core.levels().retained, run.model.retained.len());
    }
}
