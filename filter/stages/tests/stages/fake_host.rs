//! A fake host: tests can inspect what the stages do to it, and nothing happens unless a test causes it.

use pointsman_core::outcome::reply::Reply;
use pointsman_core::store::shared_data::NEW;
use pointsman_core::telemetry::metrics::MetricKind;
use pointsman_core::wire::http_call::HttpCall;
use pointsman_stages::host::{Buffer, CallId, ContextId, HeaderMap, Host, LogLevel, Map, Property};
use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Header lines, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(Vec<u8>, Vec<u8>)>);

impl Headers {
    pub fn of(lines: &[(&str, &str)]) -> Self {
        Self(lines.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect())
    }

    /// Returns all values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.0.iter().filter(|(other, _)| other == name.as_bytes());
        lines.map(|(_, value)| std::str::from_utf8(value).unwrap()).collect()
    }

    /// Returns the value of a header that occurs at most once.
    #[track_caller]
    pub fn one(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name}: {all:?}");
        all.first().copied()
    }

    fn remove(&mut self, name: &[u8]) {
        self.0.retain(|(other, _)| other != name);
    }
}

impl HeaderMap for Headers {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Filter state of one stream, shared with its attempts.
pub type FilterState = Rc<RefCell<HashMap<String, Vec<u8>>>>;

/// The host's data of one stream or plugin.
#[derive(Default)]
pub struct Context {
    pub maps: HashMap<Map, Headers>,
    pub buffers: HashMap<Buffer, Vec<u8>>,
    pub texts: HashMap<Property, Vec<u8>>,
    pub numbers: HashMap<Property, u64>,
    pub state: FilterState,
    pub reply: Option<Reply>,
    pub is_reset: bool,
    pub is_resumed: bool,
    /// The stream's plugin; `None` for a plugin itself.
    pub plugin: Option<ContextId>,
    /// The plugin's tick period in milliseconds (0 for no tick), and the elapsed time of its next tick.
    pub tick_ms: u64,
    pub next_tick_ms: u64,
}

/// A pending call, and the context whose callback ends it.
#[derive(Debug, Clone)]
pub struct Call {
    pub id: CallId,
    pub context: ContextId,
    pub call: HttpCall,
}

/// Records that all workers of one Envoy share. One counter provides the versions of all records.
#[derive(Default)]
pub struct Records {
    pub records: HashMap<String, (Vec<u8>, u32)>,
    last: u32,
}

impl Records {
    fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
        if self.records.get(name).is_some_and(|(_, now)| version != 0 && *now != version) {
            return false;
        }
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.records.insert(name.to_owned(), (record.to_vec(), self.last));
        true
    }
}

#[derive(Default)]
pub struct State {
    /// The wall clock, which can be set. Timers use the elapsed time, `passed_ms`.
    pub now_ms: u64,
    pub passed_ms: u64,
    unique: u128,
    /// The context of the running callback, and the context that calls act on.
    callback: ContextId,
    current: ContextId,
    pub contexts: HashMap<ContextId, Context>,
    pub records: Rc<RefCell<Records>>,
    pub calls: Vec<Call>,
    last_call: CallId,
    /// Whether calls fail because there is no cluster.
    pub refuses_calls: bool,
    pub logs: Vec<String>,
    /// By name: the sum of a counter, or the last value recorded.
    pub metrics: BTreeMap<String, u64>,
    names: Vec<String>,
}

/// The host of one worker. Clones share its state.
#[derive(Clone, Default)]
pub struct FakeHost(Rc<RefCell<State>>);

impl FakeHost {
    pub fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Returns the data of a stream or a plugin.
    pub fn context(&self, id: ContextId) -> RefMut<'_, Context> {
        RefMut::map(self.state(), |state| state.contexts.entry(id).or_default())
    }

    /// Runs a callback of this stream or plugin: host calls act on it.
    pub fn call_back<T>(&self, id: ContextId, act: impl FnOnce() -> T) -> T {
        let mut state = self.state();
        assert!(state.contexts.contains_key(&id), "context {id} has ended");
        (state.callback, state.current) = (id, id);
        drop(state);
        act()
    }

    /// Takes the pending calls.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    fn current(&self) -> RefMut<'_, Context> {
        let id = self.state().current;
        self.context(id)
    }
}

impl Host for FakeHost {
    type Headers = Headers;

    fn now_ms(&self) -> u64 {
        self.state().now_ms
    }

    fn unique(&self) -> u128 {
        let mut state = self.state();
        state.unique += 1;
        state.unique
    }

    fn log(&self, _: LogLevel, line: &str) {
        self.state().logs.push(line.to_owned());
    }

    fn headers(&self, map: Map) -> Headers {
        self.current().maps.get(&map).cloned().unwrap_or_default()
    }

    fn set_header(&self, map: Map, name: &str, value: &str) {
        let mut current = self.current();
        let headers = current.maps.entry(map).or_default();
        // At the position of the first value, as Envoy does.
        let place = headers.0.iter().position(|(other, _)| other == name.as_bytes()).unwrap_or(headers.0.len());
        headers.remove(name.as_bytes());
        headers.0.insert(place, (name.into(), value.into()));
    }

    fn add_header(&self, map: Map, name: &str, value: &str) {
        self.current().maps.entry(map).or_default().0.push((name.into(), value.into()));
    }

    fn remove_header(&self, map: Map, name: &[u8]) {
        self.current().maps.entry(map).or_default().remove(name);
    }

    fn set_headers(&self, map: Map, headers: &[(&[u8], &[u8])]) {
        let headers = headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        self.current().maps.insert(map, Headers(headers));
    }

    fn buffer(&self, buffer: Buffer, max: usize) -> Vec<u8> {
        let current = self.current();
        let bytes = current.buffers.get(&buffer).map_or(&[][..], Vec::as_slice);
        bytes[..bytes.len().min(max)].to_vec()
    }

    fn replace_prefix(&self, buffer: Buffer, len: usize, with: &[u8]) -> bool {
        let mut current = self.current();
        let bytes = current.buffers.entry(buffer).or_default();
        let len = len.min(bytes.len());
        bytes.splice(..len, with.iter().copied());
        true
    }

    fn append(&self, buffer: Buffer, with: &[u8]) -> bool {
        self.current().buffers.entry(buffer).or_default().extend_from_slice(with);
        true
    }

    fn text(&self, property: Property) -> Option<Vec<u8>> {
        self.current().texts.get(&property).cloned()
    }

    fn number(&self, property: Property) -> Option<u64> {
        self.current().numbers.get(&property).copied()
    }

    fn state(&self, name: &str) -> Option<Vec<u8>> {
        self.current().state.borrow().get(name).cloned()
    }

    fn set_state(&self, name: &str, value: &[u8]) {
        self.current().state.borrow_mut().insert(name.to_owned(), value.to_vec());
    }

    fn reply(&self, reply: &Reply) {
        let mut current = self.current();
        assert!(current.reply.is_none(), "answered twice: {reply:?}");
        current.reply = Some(reply.clone());
    }

    fn reset_response(&self) {
        self.current().is_reset = true;
    }

    fn resume_request(&self) {
        self.current().is_resumed = true;
    }

    fn call(&self, call: &HttpCall) -> Option<CallId> {
        let mut state = self.state();
        if state.refuses_calls {
            return None;
        }
        state.last_call += 1;
        // Not the current context: the end of a call is reported to the context of the callback.
        let (id, context) = (state.last_call, state.callback);
        state.calls.push(Call { id, context, call: call.clone() });
        Some(id)
    }

    fn set_tick(&self, ms: u64) {
        // The timer belongs to the plugin, whichever of its streams sets it.
        let current = self.state().current;
        let next = self.state().passed_ms + ms;
        let plugin = self.context(current).plugin.unwrap_or(current);
        let mut plugin = self.context(plugin);
        (plugin.tick_ms, plugin.next_tick_ms) = (ms, next);
    }

    fn enter(&self, context: ContextId) -> bool {
        let mut state = self.state();
        let is_there = state.contexts.contains_key(&context);
        if is_there {
            state.current = context;
        }
        is_there
    }

    fn shared(&self, name: &str) -> (Vec<u8>, u32) {
        let records = Rc::clone(&self.state().records);
        let found = records.borrow().records.get(name).cloned();
        found.unwrap_or((Vec::new(), NEW))
    }

    fn set_shared(&self, name: &str, record: &[u8], version: u32) -> bool {
        let records = Rc::clone(&self.state().records);
        records.borrow_mut().set(name, record, version)
    }

    fn define_metric(&self, _: MetricKind, name: &str) -> Option<u32> {
        let mut state = self.state();
        state.metrics.entry(name.to_owned()).or_default();
        state.names.push(name.to_owned());
        Some(state.names.len() as u32 - 1)
    }

    fn increment(&self, metric: u32, by: u64) {
        let mut state = self.state();
        let name = state.names[metric as usize].clone();
        *state.metrics.get_mut(&name).unwrap() += by;
    }

    fn record(&self, metric: u32, value: u64) {
        let mut state = self.state();
        let name = state.names[metric as usize].clone();
        state.metrics.insert(name, value);
    }
}
