//! One worker of an Envoy with both stages: plugins, timers, ends of calls, and what is visible from outside.

use crate::fake_host::{Call, Context, FakeHost, Headers};
use crate::request::Request;
use pointsman_stages::host::{Buffer, ContextId, Map};
use pointsman_stages::plugin::{Plugin, Stream};
use pointsman_stages::worker::Worker;
use serde_json::{Value, json};
use std::rc::Rc;

/// The start time of the tests, in milliseconds since the Unix epoch: noon of a day.
pub const START_MS: u64 = 1_700_049_600_000;

/// One worker of an Envoy with both stages.
pub struct Envoy {
    pub host: FakeHost,
    worker: Worker<FakeHost>,
    gateway: (ContextId, Plugin<FakeHost>),
    model: (ContextId, Plugin<FakeHost>),
    last_context: ContextId,
}

impl Envoy {
    pub fn new(policy: &Value) -> Self {
        let host = FakeHost::default();
        host.state().now_ms = START_MS;
        Self::with_host(policy, host)
    }

    /// Returns another worker of the same Envoy.
    pub fn beside(&self, policy: &Value) -> Self {
        let host = FakeHost::default();
        host.state().now_ms = self.host.state().now_ms;
        host.state().records = Rc::clone(&self.host.state().records);
        Self::with_host(policy, host)
    }

    fn with_host(policy: &Value, host: FakeHost) -> Self {
        let worker = Worker::new(host.clone());
        let plugin = |id, text: Value| {
            host.context(id);
            let mut plugin = Plugin::new(id, worker.clone());
            let is_valid = host.call_back(id, || plugin.on_configure(text.to_string().as_bytes()));
            assert!(is_valid, "{:?}", host.state().logs);
            (id, plugin)
        };
        let gateway = plugin(1, json!({"role": "gateway", "policy": policy}));
        let model = plugin(2, json!({"role": "model", "fails_at_end": true}));
        Self { host, worker, gateway, model, last_context: 2 }
    }

    /// Applies another policy to requests that begin from now on. Returns the plugin of the previous policy.
    pub fn reload(&mut self, policy: &Value) -> (ContextId, Plugin<FakeHost>) {
        self.last_context += 1;
        let id = self.last_context;
        self.host.context(id);
        let mut plugin = Plugin::new(id, self.worker.clone());
        let text = json!({"role": "gateway", "policy": policy}).to_string();
        assert!(self.host.call_back(id, || plugin.on_configure(text.as_bytes())));
        std::mem::replace(&mut self.gateway, (id, plugin))
    }

    fn open(&mut self, plugin: ContextId, context: Context) -> ContextId {
        self.last_context += 1;
        *self.host.context(self.last_context) = Context { plugin: Some(plugin), ..context };
        self.last_context
    }

    /// Starts a request with these headers.
    pub fn request(&mut self, headers: &[(&str, &str)], end_of_stream: bool) -> Request {
        let mut context = Context::default();
        context.maps.insert(Map::RequestHeaders, Headers::of(headers));
        let state = Rc::clone(&context.state);
        let id = self.open(self.gateway.0, context);
        let stream = self.host.call_back(id, || self.gateway.1.create_stream(id));
        Request::new(&self.host, id, stream, state, end_of_stream)
    }

    /// Starts a stream of the model stage.
    pub fn attempt(&mut self, context: Context) -> (ContextId, Stream<FakeHost>) {
        let id = self.open(self.model.0, context);
        (id, self.host.call_back(id, || self.model.1.create_stream(id)))
    }

    /// Sends a whole chat request with this API key.
    pub fn chat(&mut self, key: &str, body: &Value) -> Request {
        self.chat_with(key, &[], body)
    }

    /// Sends a whole chat request with this API key and more headers.
    pub fn chat_with(&mut self, key: &str, headers: &[(&str, &str)], body: &Value) -> Request {
        let body = body.to_string();
        let (key, length) = (format!("Bearer {key}"), body.len().to_string());
        let own = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "gateway"),
            ("content-type", "application/json"),
            ("content-length", &length),
            ("authorization", &key),
            ("x-request-id", "trace-1"),
        ];
        let mut request = self.request(&[&own, headers].concat(), false);
        if request.client.headers.is_none() {
            request.body(body.as_bytes(), true);
        }
        request
    }

    /// Fires the plugin's timer, if it has one.
    pub fn tick(&mut self) {
        let (id, plugin) = &mut self.gateway;
        let tick_ms = self.host.context(*id).tick_ms;
        if tick_ms > 0 {
            let next = self.host.state().passed_ms + tick_ms;
            self.host.context(*id).next_tick_ms = next;
            self.host.call_back(*id, || plugin.on_tick());
        }
    }

    /// Advances time, and fires the timer as it comes due.
    pub fn pass(&mut self, ms: u64) {
        let end = self.host.state().passed_ms + ms;
        loop {
            let next = {
                let plugin = self.host.context(self.gateway.0);
                if plugin.tick_ms > 0 { plugin.next_tick_ms } else { u64::MAX }
            };
            let mut state = self.host.state();
            let step = next.min(end) - state.passed_ms;
            state.passed_ms += step;
            state.now_ms += step;
            drop(state);
            if next > end {
                return;
            }
            self.tick();
        }
    }

    /// Ends a call of the plugin.
    pub fn end_call(&mut self, call: &Call, status: u16, body: &[u8]) {
        let (id, plugin) = &mut self.gateway;
        assert_eq!(call.context, *id, "not the plugin's own");
        put_call(&self.host, *id, status, body);
        self.host.call_back(*id, || plugin.on_call_end(call.id, body.len()));
    }

    /// Returns the tick period of the plugin, in milliseconds; 0 for no tick.
    pub fn tick_ms(&self) -> u64 {
        self.host.context(self.gateway.0).tick_ms
    }

    /// Returns all lines that were logged.
    pub fn logs(&self) -> Vec<String> {
        self.host.state().logs.clone()
    }

    /// Returns the sum of all metrics whose names have this prefix.
    pub fn metric(&self, begins: &str) -> u64 {
        self.host.state().metrics.iter().filter(|(name, _)| name.starts_with(begins)).map(|(_, value)| value).sum()
    }

    /// Returns the tokens that a tenant has used and reserved today, as reported by `/v1/usage`.
    pub fn tokens_today(&mut self, key: &str) -> u64 {
        let key = format!("Bearer {key}");
        let request = self.request(&[(":method", "GET"), (":path", "/v1/usage"), ("authorization", &key)], true);
        let usage: Value = serde_json::from_slice(&request.client.body).unwrap();
        request.end();
        let windows = usage["windows"].as_array().unwrap_or_else(|| panic!("{usage}"));
        let window = windows.iter().find(|window| window["window"] == "tokens_per_day");
        window.unwrap_or_else(|| panic!("{usage}"))["used"].as_u64().unwrap()
    }
}

/// Puts the headers and body of a call's end into every context: the stage reads them in the context of the callback,
/// or in one that it enters.
pub fn put_call(host: &FakeHost, id: ContextId, status: u16, body: &[u8]) {
    let ids: Vec<ContextId> = host.state().contexts.keys().copied().collect();
    assert!(ids.contains(&id));
    for id in ids {
        let mut context = host.context(id);
        context.maps.insert(Map::CallHeaders, Headers::of(&[(":status", &status.to_string())]));
        context.buffers.insert(Buffer::CallBody, body.to_vec());
    }
}
