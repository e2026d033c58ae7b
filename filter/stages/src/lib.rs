//! Pointsman's two stages and what they queue, written against one trait of the host: each callback gathers values,
//! calls the core, and applies what it returns.
//!
//! A host implements [`host::Host`], makes one [`worker::Worker`] a thread and one [`plugin::Plugin`] a configuration,
//! and forwards its callbacks to the plugin and to the [`stage::Stage`]s that it creates. The Wasm module does so for
//! proxy-wasm; the tests do so with a host of their own.

#![forbid(unsafe_code)]

pub mod gateway_stage;
pub mod generation;
pub mod host;
pub mod metrics;
pub mod model_stage;
pub mod parked;
pub mod plugin;
mod request_body;
mod response_headers;
pub mod settlements;
pub mod shared_data;
pub mod stage;
pub mod worker;
pub mod worker_host;
