//! Pointsman's Wasm module: host glue only. Each callback gathers values, calls the core, applies what it returns.
//!
//! One module, two roles: `gateway` (a downstream HTTP filter, once per request) and `model` (an upstream HTTP filter of
//! every plan cluster, once per attempt). The plugin configuration says which: `{"role": "gateway", "policy": {…}}` or
//! `{"role": "model"}`.

#![allow(missing_docs)] // The macro below defines `_initialize`, without documentation.

mod gateway;
mod host;
mod load;
mod metrics;
mod model;
mod request_body;
mod response_headers;
mod root;
mod shared;
mod unsettled;
mod waiting;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
