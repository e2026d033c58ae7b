//! Starts the simulator and drives it over raw TCP: what a gateway would see, byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod answers;
mod control;
mod endpoints;
mod faults;
mod framing;
mod http2;
mod messages;
mod process;
mod raw;
mod responses;
mod tls;
