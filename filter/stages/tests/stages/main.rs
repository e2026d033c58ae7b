//! The two stages and their queues on a host whose clock, answers and silences the test controls: no Envoy, no waiting.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod abandoned;
mod assembled;
mod clock;
mod coalescing;
mod cut_streams;
mod early_headers;
mod envoy;
mod fake_host;
mod fallback;
mod lingering;
mod policy;
mod redis;
mod refusals;
mod request;
mod settlements;
mod transcripts;
mod unanswered_calls;
mod whole_request;
