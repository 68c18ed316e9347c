//! Tests of the codec and of topic filters.
//!
//! The packets that property tests work on come from `arbitrary`, the malformed ones from the table in `malformed`;
//! `differential` holds both up to two codecs that others wrote.

mod arbitrary;
mod differential;
mod frames;
mod malformed;
mod round_trip;
mod topics;
