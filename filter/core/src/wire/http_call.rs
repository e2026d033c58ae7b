//! A request of the gateway's own: to a cluster that the operator owns, while a caller's request waits, or after its
//! end.

use crate::wire::header::HeaderLine;

/// One call, for the glue to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCall {
    /// Name of the Envoy cluster.
    pub cluster: String,
    /// Headers, the pseudo headers of the request included.
    pub headers: Vec<HeaderLine>,
    /// Body.
    pub body: Vec<u8>,
    /// Milliseconds after which it has failed.
    pub timeout_ms: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpCallResult<'a> {
    /// HTTP status; of a call that was not answered, Envoy's: 503 or 504; 0 where there is none.
    pub status: u16,
    /// Body.
    pub body: &'a [u8],
}

impl HttpCallResult<'_> {
    /// A call that could not be sent: there is no such cluster.
    pub const NOT_SENT: Self = Self { status: 503, body: b"" };
}
