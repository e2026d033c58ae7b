//! Pointsman's Wasm module: binds the stages to proxy-wasm. It forwards callbacks to the stages, and their calls to the
//! host.
//!
//! One module, two roles: `gateway` (a downstream HTTP filter, once per request) and `model` (an upstream HTTP filter
//! of every plan cluster, once per attempt). The plugin configuration selects the role: `{"role": "gateway", "policy":
//! {…}}` or `{"role": "model"}`.

#![allow(missing_docs)] // The macro below defines `_initialize`, without documentation.

mod mark;
mod proxy_wasm_host;
mod root;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
