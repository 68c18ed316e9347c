//! Scripts on a virtual network: what a link promises, whatever the network and the nodes do.
//!
//! The clock, the network and the brokers around the machines are values here: seconds pass in microseconds, and a
//! failure comes back with its seed. No socket and no thread takes part.

mod world;
mod scripts;
mod random;
