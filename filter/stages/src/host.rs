//! The host interface of the stages: one trait that names no ABI.
//!
//! Calls act on the *current* stream: the stream of the callback that the host is in, or the one that [`Host::enter`]
//! selected. No call panics: it reports a refusal of the host to the caller, or has no effect.

use pointsman_core::outcome::reply::Reply;
use pointsman_core::telemetry::metrics::MetricKind;
use pointsman_core::wire::http_call::HttpCall;

/// The result of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The headers, body or trailers go on.
    Continue,
    /// The host holds them.
    Pause,
}

/// A map of headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names say it.
pub enum Map {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    /// Response headers of a call, in the callback that ends it.
    CallHeaders,
}

/// A body buffer of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names say it.
pub enum Buffer {
    RequestBody,
    ResponseBody,
    /// Response body of a call, in the callback that ends it.
    CallBody,
}

/// A property of the current stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Property {
    /// Envoy's `response.code`: a number.
    ResponseCode,
    /// Envoy's `response.code_details`: text.
    CodeDetails,
    /// `pointsman.provider` in the metadata of the chosen upstream host: text.
    Provider,
    /// The router's attempt count, from 1: a number.
    AttemptCount,
    /// Envoy's `upstream.local_address`: text. Envoy has it once the request has a connection to the provider.
    LocalAddress,
}

/// The severity of a log line.
pub use log::Level as LogLevel;

/// The host's id of a stream or a plugin.
pub type ContextId = u32;

/// The host's id of a call.
pub type CallId = u32;

/// Headers as the host returned them.
pub trait HeaderMap {
    /// Returns the headers, with names in lower case. Neither names nor values need be UTF-8.
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])>;

    /// Returns `:status`, or 0 if there is none.
    fn status(&self) -> u16 {
        self.iter().find(|(name, _)| *name == b":status").map_or(0, |(_, value)| status_of(value))
    }
}

/// Parses the value of a status header. Returns 0 if it is not a number.
pub fn status_of(value: &[u8]) -> u16 {
    std::str::from_utf8(value).ok().and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The host of one worker.
pub trait Host: 'static {
    /// Headers as this host returns them.
    type Headers: HeaderMap;

    /// Returns the time in milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// Returns a number that is unique among the requests of all Envoys.
    fn unique(&self) -> u128;
    /// Writes a line to the host's log. The line must not contain a prompt, an answer, a key or a user id.
    fn log(&self, level: LogLevel, line: &str);

    /// Returns all headers of a map.
    fn headers(&self, map: Map) -> Self::Headers;
    /// Sets a header to one value and drops its previous values.
    fn set_header(&self, map: Map, name: &str, value: &str);
    /// Adds a header without removing others of that name. Cheaper than setting a header that is not there yet.
    fn add_header(&self, map: Map, name: &str, value: &str);
    /// Removes a header with all its values.
    fn remove_header(&self, map: Map, name: &[u8]);
    /// Replaces all headers of a map.
    fn set_headers(&self, map: Map, headers: &[(&[u8], &[u8])]);

    /// Returns the first `max` bytes of a buffer; empty if there are none.
    fn buffer(&self, buffer: Buffer, max: usize) -> Vec<u8>;
    /// Replaces the first `len` bytes of a buffer. Returns `false` if the host refused.
    fn replace_prefix(&self, buffer: Buffer, len: usize, with: &[u8]) -> bool;
    /// Appends to a buffer. Returns `false` if the host refused.
    fn append(&self, buffer: Buffer, with: &[u8]) -> bool;

    /// Returns a text property; `None` if the host does not have it.
    fn text(&self, property: Property) -> Option<Vec<u8>>;
    /// Returns a number property; `None` if the host does not have it.
    fn number(&self, property: Property) -> Option<u64>;
    /// Returns filter state of the stream, which both stages and the access log can read.
    fn state(&self, name: &str) -> Option<Vec<u8>>;
    /// Sets filter state of the stream.
    fn set_state(&self, name: &str, value: &[u8]);

    /// Answers the request with a local reply. The callback then returns [`Action::Pause`].
    fn reply(&self, reply: &Reply);
    /// Resets the response stream, so that the client cannot mistake a partial response for a complete one.
    fn reset_response(&self);
    /// Resumes a request that was held.
    fn resume_request(&self);

    /// Sends a call and returns its id; `None` if the host could not send it. The host reports the end of the call to
    /// the current context.
    fn call(&self, call: &HttpCall) -> Option<CallId>;
    /// Calls the current plugin every `ms` milliseconds.
    fn set_tick(&self, ms: u64);
    /// Makes another context the current one. Returns `false` if it has ended.
    fn enter(&self, context: ContextId) -> bool;

    /// Returns a record of shared data (empty if there is none) and its version
    /// ([`NEW`](pointsman_core::store::shared_data::NEW) if there is no record).
    fn shared(&self, name: &str) -> (Vec<u8>, u32);
    /// Returns a record of shared data without its version.
    fn read_shared(&self, name: &str) -> Vec<u8> {
        self.shared(name).0
    }
    /// Writes a record of shared data if it still has this version. Returns `false` if it does not.
    fn set_shared(&self, name: &str, record: &[u8], version: u32) -> bool;

    /// Defines a metric and returns its id.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32>;
    /// Adds to a counter.
    fn increment(&self, metric: u32, by: u64);
    /// Records a value in a histogram, or sets a gauge.
    fn record(&self, metric: u32, value: u64);
}
