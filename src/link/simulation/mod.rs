//! Scripts on a virtual network: what a link promises, whatever the network and the nodes do.

mod world;
mod scripts;
mod random;
