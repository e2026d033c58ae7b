//! The proxy-wasm contexts: each forwards its callbacks to a plugin or to a stream of the stages.

use crate::proxy_wasm_host::{ProxyWasmHost, configuration};
use pointsman_stages::host::Action;
use pointsman_stages::plugin::{Plugin, Stream};
use pointsman_stages::stage::Stage;
use pointsman_stages::worker::Worker;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{self, ContextType};

thread_local! {
    static WORKER: Worker<ProxyWasmHost> = Worker::new(ProxyWasmHost::default());
}

/// The context of one plugin configuration.
pub struct Root(Plugin<ProxyWasmHost>);

impl Root {
    /// Creates the context with this id.
    pub fn new(id: u32) -> Self {
        Self(Plugin::new(id, WORKER.with(Worker::clone)))
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, call: u32, _: usize, size: usize, _: usize) {
        self.0.on_call_end(call, size);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        self.0.on_configure(&configuration(size))
    }

    fn on_tick(&mut self) {
        self.0.on_tick();
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match self.0.create_stream(id) {
            Stream::Gateway(stage) => Box::new(StreamContext(stage)),
            Stream::Parkable(stage) => Box::new(StreamContext(stage)),
            Stream::Model(stage) => Box::new(StreamContext(stage)),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct StreamContext<S>(S);

fn action(action: Action) -> types::Action {
    match action {
        Action::Continue => types::Action::Continue,
        Action::Pause => types::Action::Pause,
    }
}

impl<S: Stage> Context for StreamContext<S> {
    fn on_http_call_response(&mut self, call: u32, _: usize, size: usize, _: usize) {
        self.0.on_call_end(call, size);
    }

    fn on_done(&mut self) -> bool {
        self.0.on_done();
        true
    }
}

impl<S: Stage> HttpContext for StreamContext<S> {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> types::Action {
        action(self.0.on_request_headers(end_of_stream))
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> types::Action {
        action(self.0.on_request_body(size, end_of_stream))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> types::Action {
        action(self.0.on_request_trailers())
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> types::Action {
        action(self.0.on_response_headers(end_of_stream))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> types::Action {
        action(self.0.on_response_body(size, end_of_stream))
    }

    fn on_http_response_trailers(&mut self, _: usize) -> types::Action {
        action(self.0.on_response_trailers())
    }

    fn on_log(&mut self) {
        self.0.on_log();
    }
}
