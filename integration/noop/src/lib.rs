//! Filters that decide nothing: the bench's measure of what Wasm itself costs.
//!
//! Without a configuration the filter does nothing. As in a real module, it exports every callback of the ABI, and each
//! returns immediately. With the configuration of a gateway stage it makes the host calls that such a stage cannot
//! avoid, and decides nothing from what they return.

#![allow(missing_docs)] // The SDK's macro exports functions without any.

mod carrier;

use carrier::Carrier;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType};

#[derive(Default)]
struct Root {
    carries: bool,
}

struct Noop;

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let configuration = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, size).ok().flatten();
        let gateway = br#""role": "gateway""#;
        self.carries = configuration.is_some_and(|text| text.windows(gateway.len()).any(|part| part == gateway));
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(if self.carries { Box::new(Carrier::default()) } else { Box::new(Noop) })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Context for Noop {}

impl HttpContext for Noop {}

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}
