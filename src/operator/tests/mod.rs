//! The operator in memory, where every step can be looked at, and against a real API server.

mod memory;
mod real;
