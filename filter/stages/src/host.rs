//! What the stages need of their host, as one trait that names no ABI.
//!
//! Calls act on the *current* stream: the one whose callback the host is in, or the one that [`Host::enter`] chose.
//! None of them panics: the caller is told what the host refuses, or it has no effect.

use pointsman_core::outcome::reply::Reply;
use pointsman_core::telemetry::metrics::MetricKind;
use pointsman_core::wire::http_call::HttpCall;

/// How a callback ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// What the callback was about goes on.
    Continue,
    /// The host holds it.
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
    /// Headers of the answer to a call, while the host tells of it.
    CallHeaders,
}

/// Bytes that the host holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names say it.
pub enum Buffer {
    RequestBody,
    ResponseBody,
    /// Body of the answer to a call, while the host tells of it.
    CallBody,
}

/// What the host knows of the current stream besides headers and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Property {
    /// Envoy's `response.code`: a number.
    ResponseCode,
    /// Envoy's `response.code_details`: a text.
    CodeDetails,
    /// `pointsman.provider` of the chosen upstream host's metadata: a text.
    Provider,
    /// How often the router has tried, from 1: a number.
    AttemptCount,
}

/// How bad a line of the log is.
pub use log::Level as LogLevel;

/// A stream's or a plugin's number, as the host gives it.
pub type ContextId = u32;

/// A call's number, as the host gives it.
pub type CallId = u32;

/// Headers as the host handed them over.
pub trait HeaderMap {
    /// The headers, names in lower case. Neither names nor values need be UTF-8.
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])>;

    /// `:status`; 0 where there is none.
    fn status(&self) -> u16 {
        self.iter().find(|(name, _)| *name == b":status").map_or(0, |(_, value)| status_of(value))
    }
}

/// A status as a header has it; 0 where it is none.
pub fn status_of(value: &[u8]) -> u16 {
    std::str::from_utf8(value).ok().and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// One worker's host.
pub trait Host: 'static {
    /// Headers as this host hands them over.
    type Headers: HeaderMap;

    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// A number that no other request of any Envoy has been given.
    fn unique(&self) -> u128;
    /// Writes a line to the host's log. Never give it a prompt, an answer, a key or a user's id.
    fn log(&self, level: LogLevel, line: &str);

    /// All headers of a map.
    fn headers(&self, map: Map) -> Self::Headers;
    /// Sets a header to one value, whatever it had.
    fn set_header(&self, map: Map, name: &str, value: &str);
    /// Adds a header to those that there are: cheaper than setting one where there is none of that name.
    fn add_header(&self, map: Map, name: &str, value: &str);
    /// Removes a header, all its values.
    fn remove_header(&self, map: Map, name: &[u8]);
    /// Makes a map have these headers and no others.
    fn set_headers(&self, map: Map, headers: &[(&[u8], &[u8])]);

    /// The first `max` bytes of a buffer; empty if there are none.
    fn buffer(&self, buffer: Buffer, max: usize) -> Vec<u8>;
    /// Replaces the first `len` bytes of a buffer; `false` if the host would not.
    fn replace_prefix(&self, buffer: Buffer, len: usize, with: &[u8]) -> bool;
    /// Adds to the end of a buffer; `false` if the host would not.
    fn append(&self, buffer: Buffer, with: &[u8]) -> bool;

    /// A property that is a text; `None` where the host has it not.
    fn text(&self, property: Property) -> Option<Vec<u8>>;
    /// A property that is a number; `None` where the host has it not.
    fn number(&self, property: Property) -> Option<u64>;
    /// Filter state of the stream, which both stages and the access log can read.
    fn state(&self, name: &str) -> Option<Vec<u8>>;
    /// Sets filter state of the stream.
    fn set_state(&self, name: &str, value: &[u8]);

    /// Answers the request. The callback then returns [`Action::Pause`].
    fn reply(&self, reply: &Reply);
    /// Breaks the response off, so that its receiver cannot take what it has for the whole.
    fn reset_response(&self);
    /// Lets a request that was held go on.
    fn resume_request(&self);

    /// Sends a call; the host tells the context that it is in of the end, by this id. `None` if it could not be sent.
    fn call(&self, call: &HttpCall) -> Option<CallId>;
    /// Calls the plugin that it is in every so many milliseconds.
    fn set_tick(&self, ms: u64);
    /// Makes another context the current one; `false` if it has ended.
    fn enter(&self, context: ContextId) -> bool;

    /// A record of shared data (empty if there is none) with its version
    /// ([`NEW`](pointsman_core::store::shared_data::NEW) where there is none).
    fn shared(&self, name: &str) -> (Vec<u8>, u32);
    /// A record of shared data without its version.
    fn read_shared(&self, name: &str) -> Vec<u8> {
        self.shared(name).0
    }
    /// Writes a record of shared data if its version still is this one; `false` if it is not.
    fn set_shared(&self, name: &str, record: &[u8], version: u32) -> bool;

    /// Defines a metric and returns its id.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32>;
    /// Adds to a counter.
    fn increment(&self, metric: u32, by: u64);
    /// Records a value in a histogram, or sets a gauge.
    fn record(&self, metric: u32, value: u64);
}
