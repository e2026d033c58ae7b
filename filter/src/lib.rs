//! Pointsman's Wasm module: host glue only. Each callback gathers values, calls the core, applies what it returns.
//!
//! One module, two roles: `gateway` (a downstream HTTP filter, once per request) and `model` (an upstream HTTP filter of
//! every plan cluster, once per attempt). The plugin configuration says which: `{"role": "gateway", "policy": {…}}` or
//! `{"role": "model"}`.

#![allow(missing_docs)] // The macro below defines `_initialize`, without documentation.

mod gateway_stage;
mod generation;
mod host;
mod metrics;
mod model_stage;
mod parked;
mod request_body;
mod response_headers;
mod root;
mod settlements;
mod shared_data;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
