//! The scripts.

use crate::mqtt::QoS;

use super::world::World;

#[test]
fn two_clusters_find_each_other_and_messages_cross_where_they_are_wanted() {
    let mut net = World::two(1);
    net.subscribe("eu", "t/+");
    net.settle();
    net.publish("us", "t/1", "one", QoS::AtLeastOnce);
    net.publish("us", "other", "two", QoS::AtLeastOnce);
    net.publish("us", "t/2", "three", QoS::AtMostOnce);
    net.settle();
    assert_eq!(net.at("eu").got, ["one", "three"]);
    assert_eq!(net.the_link("us", "eu").counters().sent.matched, 2);
}
