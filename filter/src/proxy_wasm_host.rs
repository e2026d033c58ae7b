//! Implements the stages' host on the Proxy-Wasm ABI. Every call from the module to Envoy is here; no other file names
//! the ABI.
//!
//! The SDK's own wrappers panic on statuses that they do not expect and on header names that are not UTF-8. These
//! functions never panic: they report a refusal of the host to the caller, or ignore it. ABI: proxy-wasm v0.2.1.
#![allow(unsafe_code)] // The ABI uses raw pointers. Each block passes a slice that outlives the call, or takes one.

use pointsman_core::outcome::reply::{REPLY_DETAILS, Reply};
use pointsman_core::store::secret::Secret;
use pointsman_core::store::shared_data::NEW;
use pointsman_core::telemetry::metrics::MetricKind;
use pointsman_core::wire::http_call::HttpCall;
use pointsman_stages::host::{Buffer, CallId, ContextId, HeaderMap, Host, LogLevel, Map, Property};
use proxy_wasm::hostcalls;
use proxy_wasm::types::{self, BufferType, MapType, MetricType, StreamType};
use std::cell::Cell;
use std::ptr::null_mut;
use std::time::Duration;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: types::LogLevel, message: *const u8, len: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_buffer_bytes(kind: BufferType, start: usize, max: usize, data: *mut *mut u8, len: *mut usize) -> u32;
    fn proxy_set_buffer_bytes(kind: BufferType, start: usize, len: usize, data: *const u8, data_len: usize) -> u32;
    fn proxy_get_header_map_pairs(kind: MapType, data: *mut *mut u8, len: *mut usize) -> u32;
    fn proxy_set_header_map_pairs(kind: MapType, data: *const u8, len: usize) -> u32;
    fn proxy_replace_header_map_value(
        kind: MapType,
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        kind: MapType,
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(kind: MapType, key: *const u8, key_len: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_len: usize, data: *mut *mut u8, len: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_len: usize, value: *const u8, value_len: usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_len: usize,
        body: *const u8,
        body_len: usize,
        headers: *const u8,
        headers_len: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_continue_stream(stream: StreamType) -> u32;
    fn proxy_close_stream(stream: StreamType) -> u32;
    fn proxy_get_shared_data(key: *const u8, key_len: usize, data: *mut *mut u8, len: *mut usize, cas: *mut u32)
    -> u32;
    fn proxy_set_shared_data(key: *const u8, key_len: usize, value: *const u8, value_len: usize, cas: u32) -> u32;
    fn proxy_define_metric(kind: MetricType, name: *const u8, len: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

const OK: u32 = 0;

/// Calls `fill` with a place for a pointer and a length. Takes ownership of the bytes that the host put there.
fn take(fill: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let (mut data, mut len) = (null_mut(), 0);
    if fill(&mut data, &mut len) != OK || data.is_null() {
        return None;
    }
    // SAFETY: the host allocated these bytes with the module's own allocator (proxy_on_memory_allocate), of this size.
    Some(unsafe { Vec::from_raw_parts(data, len, len) })
}

/// A header map as the host serializes it.
pub struct Headers(Vec<u8>);

impl HeaderMap for Headers {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let number = |at: usize| {
            let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
        };
        let count = number(0);
        let mut data = 4 + count * 8;
        (0..count).map_while(move |i| {
            let (name_len, value_len) = (number(4 + i * 8), number(8 + i * 8));
            let name = self.0.get(data..data + name_len)?;
            let value = self.0.get(data + name_len + 1..data + name_len + 1 + value_len)?;
            data += name_len + value_len + 2;
            Some((name, value))
        })
    }
}

/// Serializes headers as the host expects them: the count, all lengths, then names and values, each followed by a NUL.
fn serialized<'a>(headers: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    let bytes: usize = headers.clone().map(|(name, value)| 10 + name.len() + value.len()).sum();
    let mut map = Vec::with_capacity(4 + bytes);
    map.extend_from_slice(&(headers.len() as u32).to_le_bytes());
    for (name, value) in headers.clone() {
        map.extend_from_slice(&(name.len() as u32).to_le_bytes());
        map.extend_from_slice(&(value.len() as u32).to_le_bytes());
    }
    for (name, value) in headers {
        map.extend_from_slice(name);
        map.push(0);
        map.extend_from_slice(value);
        map.push(0);
    }
    map
}

fn map_type(map: Map) -> MapType {
    match map {
        Map::RequestHeaders => MapType::HttpRequestHeaders,
        Map::RequestTrailers => MapType::HttpRequestTrailers,
        Map::ResponseHeaders => MapType::HttpResponseHeaders,
        Map::ResponseTrailers => MapType::HttpResponseTrailers,
        Map::CallHeaders => MapType::HttpCallResponseHeaders,
    }
}

fn buffer_type(buffer: Buffer) -> BufferType {
    match buffer {
        Buffer::RequestBody => BufferType::HttpRequestBody,
        Buffer::ResponseBody => BufferType::HttpResponseBody,
        Buffer::CallBody => BufferType::HttpCallResponseBody,
    }
}

/// Returns the path of a property, its segments separated by NUL.
fn path(property: Property) -> &'static str {
    match property {
        Property::ResponseCode => "response\0code",
        Property::CodeDetails => "response\0code_details",
        Property::Provider => "xds\0upstream_host_metadata\0filter_metadata\0pointsman\0provider",
        Property::AttemptCount => "upstream\0request_attempt_count",
        Property::LocalAddress => "upstream\0local_address",
    }
}

fn get_buffer(kind: BufferType, max: usize) -> Vec<u8> {
    take(|data, len| unsafe { proxy_get_buffer_bytes(kind, 0, max, data, len) }).unwrap_or_default()
}

/// Returns the plugin configuration. Call it while the host delivers the configuration.
pub fn configuration(size: usize) -> Vec<u8> {
    get_buffer(BufferType::PluginConfiguration, size)
}

/// Envoy, or another host of proxy-wasm.
pub struct ProxyWasmHost {
    /// Starts at a random number from the host, so workers differ, and counts up with each request.
    unique: Cell<u128>,
}

impl Default for ProxyWasmHost {
    fn default() -> Self {
        Self { unique: Cell::new(u128::from_be_bytes(Secret::default().to_bytes())) }
    }
}

impl Host for ProxyWasmHost {
    type Headers = Headers;

    fn now_ms(&self) -> u64 {
        let mut nanoseconds = 0;
        unsafe { proxy_get_current_time_nanoseconds(&mut nanoseconds) };
        nanoseconds / 1_000_000
    }

    fn unique(&self) -> u128 {
        self.unique.set(self.unique.get().wrapping_add(1));
        self.unique.get()
    }

    fn log(&self, level: LogLevel, line: &str) {
        let level = match level {
            LogLevel::Trace => types::LogLevel::Trace,
            LogLevel::Debug => types::LogLevel::Debug,
            LogLevel::Info => types::LogLevel::Info,
            LogLevel::Warn => types::LogLevel::Warn,
            LogLevel::Error => types::LogLevel::Error,
        };
        unsafe { proxy_log(level, line.as_ptr(), line.len()) };
    }

    fn headers(&self, map: Map) -> Headers {
        let map = map_type(map);
        Headers(take(|data, len| unsafe { proxy_get_header_map_pairs(map, data, len) }).unwrap_or_default())
    }

    fn set_header(&self, map: Map, name: &str, value: &str) {
        let map = map_type(map);
        unsafe { proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    }

    fn add_header(&self, map: Map, name: &str, value: &str) {
        let map = map_type(map);
        unsafe { proxy_add_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    }

    fn remove_header(&self, map: Map, name: &[u8]) {
        unsafe { proxy_remove_header_map_value(map_type(map), name.as_ptr(), name.len()) };
    }

    fn set_headers(&self, map: Map, headers: &[(&[u8], &[u8])]) {
        let pairs = serialized(headers.iter().copied());
        unsafe { proxy_set_header_map_pairs(map_type(map), pairs.as_ptr(), pairs.len()) };
    }

    fn buffer(&self, buffer: Buffer, max: usize) -> Vec<u8> {
        get_buffer(buffer_type(buffer), max)
    }

    fn replace_prefix(&self, buffer: Buffer, len: usize, with: &[u8]) -> bool {
        unsafe { proxy_set_buffer_bytes(buffer_type(buffer), 0, len, with.as_ptr(), with.len()) == OK }
    }

    fn append(&self, buffer: Buffer, with: &[u8]) -> bool {
        let buffer = buffer_type(buffer);
        // The host treats any start past the end as the end.
        with.is_empty() || unsafe { proxy_set_buffer_bytes(buffer, usize::MAX, 0, with.as_ptr(), with.len()) == OK }
    }

    fn text(&self, property: Property) -> Option<Vec<u8>> {
        get_property(path(property))
    }

    fn number(&self, property: Property) -> Option<u64> {
        let bytes = get_property(path(property))?;
        u64::try_from(i64::from_le_bytes(*bytes.first_chunk::<8>()?)).ok()
    }

    fn state(&self, name: &str) -> Option<Vec<u8>> {
        get_property(name)
    }

    fn set_state(&self, name: &str, value: &[u8]) {
        unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    }

    fn reply(&self, reply: &Reply) {
        let headers = serialized(reply.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        unsafe {
            proxy_send_local_response(
                u32::from(reply.status),
                REPLY_DETAILS.as_ptr(),
                REPLY_DETAILS.len(),
                reply.body.as_ptr(),
                reply.body.len(),
                headers.as_ptr(),
                headers.len(),
                -1,
            )
        };
    }

    fn reset_response(&self) {
        unsafe { proxy_close_stream(StreamType::HttpResponse) };
    }

    fn resume_request(&self) {
        unsafe { proxy_continue_stream(StreamType::HttpRequest) };
    }

    fn call(&self, call: &HttpCall) -> Option<CallId> {
        let headers = call.headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let timeout = Duration::from_millis(call.timeout_ms);
        // The SDK's own function, because the SDK tracks which context each response belongs to. It does not panic on
        // any status that Envoy returns here.
        hostcalls::dispatch_http_call(&call.cluster, headers, Some(&call.body), Vec::new(), timeout).ok()
    }

    fn set_tick(&self, ms: u64) {
        let _ = hostcalls::set_tick_period(Duration::from_millis(ms));
    }

    fn enter(&self, context: ContextId) -> bool {
        hostcalls::set_effective_context(context).is_ok()
    }

    fn shared(&self, name: &str) -> (Vec<u8>, u32) {
        let (record, version) = get_shared(name);
        (record, if version == 0 { NEW } else { version })
    }

    fn set_shared(&self, name: &str, record: &[u8], version: u32) -> bool {
        unsafe { proxy_set_shared_data(name.as_ptr(), name.len(), record.as_ptr(), record.len(), version) == OK }
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        let kind = match kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Histogram => MetricType::Histogram,
            MetricKind::Gauge => MetricType::Gauge,
        };
        let mut id = 0;
        let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) };
        (status == OK).then_some(id)
    }

    fn increment(&self, metric: u32, by: u64) {
        unsafe { proxy_increment_metric(metric, i64::try_from(by).unwrap_or(i64::MAX)) };
    }

    fn record(&self, metric: u32, value: u64) {
        unsafe { proxy_record_metric(metric, value) };
    }
}

fn get_property(path: &str) -> Option<Vec<u8>> {
    take(|data, len| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, len) })
}

/// Returns a record of shared data and its version. The version is 0 if there is no record.
fn get_shared(name: &str) -> (Vec<u8>, u32) {
    let mut version = 0;
    let record = take(|data, len| unsafe { proxy_get_shared_data(name.as_ptr(), name.len(), data, len, &mut version) });
    (record.unwrap_or_default(), version)
}
