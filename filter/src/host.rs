//! Every call from the module to Envoy: the one file that names the Proxy-Wasm ABI.
//!
//! The SDK's own wrappers panic on a status that they do not expect, and on header names that are not UTF-8. These
//! never panic: what the host refuses is told to the caller, or has no effect. ABI: proxy-wasm v0.2.1.
#![allow(unsafe_code)] // Raw pointers are the ABI. Each block hands over a slice that lives for the call, or takes one.

use pointsman_core::outcome::reply::REPLY_DETAILS;
use pointsman_core::wire::header::HeaderLine;
use pointsman_core::wire::http_call::HttpCall;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, StreamType};
use std::ptr::null_mut;
use std::time::Duration;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: LogLevel, message: *const u8, len: usize) -> u32;
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

/// Calls `fill` with places for a pointer and a length, and takes ownership of the bytes that the host put there.
fn take(fill: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let (mut data, mut len) = (null_mut(), 0);
    if fill(&mut data, &mut len) != OK || data.is_null() {
        return None;
    }
    // SAFETY: the host allocated these bytes with the module's own allocator (proxy_on_memory_allocate), of this size.
    Some(unsafe { Vec::from_raw_parts(data, len, len) })
}

/// Writes a line to Envoy's log. Never give it a prompt, an answer, a key or a user's id.
pub fn log(level: LogLevel, message: &str) {
    unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

/// Milliseconds since the Unix epoch, by the host's clock.
pub fn now_ms() -> u64 {
    let mut nanoseconds = 0;
    unsafe { proxy_get_current_time_nanoseconds(&mut nanoseconds) };
    nanoseconds / 1_000_000
}

/// Bytes of a buffer from `start` on; empty if there are none.
pub fn buffer(kind: BufferType, start: usize, max: usize) -> Vec<u8> {
    take(|data, len| unsafe { proxy_get_buffer_bytes(kind, start, max, data, len) }).unwrap_or_default()
}

/// Replaces the first `len` bytes of a buffer.
pub fn replace_prefix(kind: BufferType, len: usize, with: &[u8]) -> bool {
    unsafe { proxy_set_buffer_bytes(kind, 0, len, with.as_ptr(), with.len()) == OK }
}

/// Adds to the end of a buffer.
pub fn append(kind: BufferType, with: &[u8]) -> bool {
    // The host takes any start behind the end for the end.
    with.is_empty() || unsafe { proxy_set_buffer_bytes(kind, usize::MAX, 0, with.as_ptr(), with.len()) == OK }
}

/// A header map as the host serializes it.
pub struct Headers(Vec<u8>);

impl Headers {
    /// All headers of a map.
    pub fn of(kind: MapType) -> Self {
        Self(take(|data, len| unsafe { proxy_get_header_map_pairs(kind, data, len) }).unwrap_or_default())
    }

    /// `:status`; 0 where there is none.
    pub fn status(&self) -> u16 {
        self.iter().find(|(name, _)| *name == b":status").map_or(0, |(_, value)| status_of(value))
    }

    /// The headers, names in lower case. Neither names nor values need be UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
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

/// A status as a header has it; 0 where it is none.
pub fn status_of(value: &[u8]) -> u16 {
    std::str::from_utf8(value).ok().and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// Sets a header to one value, whatever it had.
pub fn set_header(kind: MapType, name: &str, value: &str) {
    unsafe { proxy_replace_header_map_value(kind, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// Adds a header to those that there are: cheaper than setting one where there is none of that name.
pub fn add_header(kind: MapType, name: &str, value: &str) {
    unsafe { proxy_add_header_map_value(kind, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// Removes a header, all its values.
pub fn remove_header(kind: MapType, name: &[u8]) {
    unsafe { proxy_remove_header_map_value(kind, name.as_ptr(), name.len()) };
}

/// Makes a map have these headers and no others.
pub fn set_headers<'a>(kind: MapType, headers: &[(&'a [u8], &'a [u8])]) {
    let map = serialized(headers.iter().copied());
    unsafe { proxy_set_header_map_pairs(kind, map.as_ptr(), map.len()) };
}

/// Headers as the host takes them: their number, all lengths, then names and values, each with a NUL after it.
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

/// A property of Envoy; path segments are separated by NUL.
pub fn property(path: &str) -> Option<Vec<u8>> {
    take(|data, len| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, len) })
}

/// Sets filter state `wasm.NAME` of the stream, which both stages and the access log can read.
pub fn set_state(name: &str, value: &[u8]) {
    unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// Answers the request. Return `Action::Pause` after it.
pub fn reply(status: u16, headers: &[HeaderLine], body: &[u8]) {
    let map = serialized(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let details = REPLY_DETAILS;
    unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            map.as_ptr(),
            map.len(),
            -1,
        )
    };
}

/// Sends a call; its end comes to the callback of the context that is being called now, by this id. `None` if it could not
/// be sent.
pub fn call_with_id(call: &HttpCall) -> Option<u32> {
    let headers = call.headers.iter().map(|(name, value)| (*name, &**value)).collect();
    let timeout = Duration::from_millis(call.timeout_ms);
    // The SDK's own, because it keeps the list of whom an answer is for; it panics on no status that Envoy gives here.
    hostcalls::dispatch_http_call(&call.cluster, headers, Some(&call.body), Vec::new(), timeout).ok()
}

/// Asks for the root context's tick, every so many milliseconds.
pub fn set_tick(ms: u64) {
    let _ = hostcalls::set_tick_period(Duration::from_millis(ms));
}

/// Makes another context the one that what follows is done for; `false` if it is no more.
pub fn set_context(id: u32) -> bool {
    hostcalls::set_effective_context(id).is_ok()
}

/// Breaks the response off, so that its receiver cannot take what it has for the whole.
pub fn reset_response() {
    unsafe { proxy_close_stream(StreamType::HttpResponse) };
}

/// Lets a request that was held go on.
pub fn resume_request() {
    unsafe { proxy_continue_stream(StreamType::HttpRequest) };
}

/// A record of shared data; empty if there is none.
pub fn shared(key: &str) -> Vec<u8> {
    let mut cas = 0;
    take(|data, len| unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, len, &mut cas) }).unwrap_or_default()
}

/// A record of shared data with its version, which is `u32::MAX` where there is none.
pub fn versioned(key: &str) -> (Vec<u8>, u32) {
    let mut cas = 0;
    let record = take(|data, len| unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, len, &mut cas) });
    (record.unwrap_or_default(), if cas == 0 { u32::MAX } else { cas })
}

/// Writes a record of shared data if its version still is this one. `u32::MAX` is no record's: then only the first wins.
pub fn set_versioned(key: &str, record: &[u8], version: u32) -> bool {
    unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), record.as_ptr(), record.len(), version) == OK }
}

/// Defines a metric and returns its id.
pub fn define_metric(kind: MetricType, name: &str) -> Option<u32> {
    let mut id = 0;
    let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) };
    (status == OK).then_some(id)
}

/// Adds to a counter.
pub fn increment(id: u32, by: u64) {
    unsafe { proxy_increment_metric(id, i64::try_from(by).unwrap_or(i64::MAX)) };
}

/// Records a value in a histogram.
pub fn record(id: u32, value: u64) {
    unsafe { proxy_record_metric(id, value) };
}
