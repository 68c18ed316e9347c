//! The operator without a server, and against a real one.

mod heard;
mod memory;
mod nodes;
mod real;
mod rights;
