//! Every decision of the Pointsman LLM gateway, as pure functions over data.
//!
//! No host call, no clock, no I/O, and no randomness but the [`secret`]s of memos, which decide nothing: the Wasm module, the
//! command line and the tests all run this same code.
//! A newcomer reads [`config`] (what people write), [`policy`] (what the program uses), [`exchange`] (one request and its
//! answer at the gateway stage) and [`dispatch`] (what the model stage is told); the other modules each decide one thing.

#![forbid(unsafe_code)]

pub mod answer;
pub mod attempt;
pub mod audit;
pub mod cache;
pub mod call;
pub mod canonical;
pub mod chat_request;
pub mod config;
pub mod dispatch;
pub mod exchange;
#[cfg(test)]
mod fixture;
pub mod identity;
pub mod inflight;
pub mod json;
pub mod load;
pub mod metrics;
pub mod plans;
pub mod policy;
pub mod price;
pub mod problem;
pub mod prompt_name;
pub mod provider_error;
pub mod quick_hash;
pub mod quota;
pub mod redis;
pub mod refusal;
pub mod reply;
pub mod request_head;
pub mod resilience;
pub mod route;
pub mod secret;
pub mod sse;
pub mod unasked;
pub mod usage;
pub mod written;
