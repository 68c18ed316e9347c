//! The operator without a server, and against a real one.

mod world;
mod answers;
mod heard;
mod memory;
mod kept;
mod nodes;
mod refusals;
mod pushes;
mod scene;
mod real;
mod deaths;
mod rest;
mod upgrades;
mod rights;
mod beside;
mod edges;
mod lease;
mod faults;
