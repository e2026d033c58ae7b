//! Pointsman's two stages and their queues, written against one host trait. Each callback collects values, calls the
//! core and applies the result.
//!
//! A host implements [`host::Host`], creates one [`worker::Worker`] per thread and one [`plugin::Plugin`] per
//! configuration, and forwards its callbacks to the plugin and to the [`stage::Stage`]s that the plugin creates. The
//! Wasm module is such a host for proxy-wasm; the tests bring their own.

#![forbid(unsafe_code)]

mod attempt_places;
pub mod gateway_stage;
pub mod generation;
pub mod host;
mod lingering;
pub mod metrics;
pub mod model_stage;
pub mod parked;
pub mod plugin;
mod request_body;
mod response_headers;
pub mod settlements;
pub mod shared_data;
pub mod stage;
pub mod timer;
pub mod worker;
pub mod worker_host;
