//! Every decision of the Pointsman LLM gateway, as pure functions over data.
//!
//! The core makes no host call, reads no clock and does no I/O. Its only randomness is the [`store::secret`] of memos,
//! on which no decision depends. The Wasm module, the command line and the tests all run this same code.
//!
//! To find your way, read [`config`] (what people write), [`policy`] (what the program uses), [`exchange`] (one request
//! and its answer at the gateway stage) and [`routing::dispatch`] (what the model stage receives). Each of the other
//! modules decides one thing.

#![forbid(unsafe_code)]

pub mod cache;
pub mod config;
pub mod dialect;
pub mod exchange;
#[cfg(test)]
mod fixture;
pub mod identity;
pub mod ids;
pub mod memory;
pub mod outcome;
pub mod policy;
pub mod quota;
pub mod request;
pub mod routing;
pub mod service_tier;
pub mod store;
pub mod telemetry;
pub mod tokens;
pub mod usage;
pub mod wire;
