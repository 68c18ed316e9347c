//! The core by scripts: packets in, packets out, time as a number.

pub(in crate::broker) mod world;
mod connecting;
mod durable;
mod crashes;
mod messages;
mod row_edges;
mod rows;
mod sessions;
mod wills;
mod options;
mod wishes;
mod exchanges;
mod letters;
mod others;
mod node;
mod shards;
mod shared;
mod groups;
mod limits;
mod floods;
mod waits;
mod pumping;
mod linked;
mod routing;
mod hostile;
mod access;
mod inspect;
