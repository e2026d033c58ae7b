//! Pointsman's Wasm module: the stages for hosts of proxy-wasm. It forwards callbacks one way and host calls the other.
//!
//! One module, two roles: `gateway` (a downstream HTTP filter, once per request) and `model` (an upstream HTTP filter
//! of every plan cluster, once per attempt). The plugin configuration says which: `{"role": "gateway", "policy": {…}}`
//! or `{"role": "model"}`.

#![allow(missing_docs)] // The macro below defines `_initialize`, without documentation.

mod proxy_wasm_host;
mod root;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
