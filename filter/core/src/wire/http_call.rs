//! Calls that the gateway makes itself, to a cluster that the operator owns: while a caller's request waits, or after
//! it has ended.

use crate::wire::header::HeaderLine;

/// One call, to be sent by the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCall {
    /// Name of the Envoy cluster.
    pub cluster: String,
    /// Headers, including the request's pseudo headers.
    pub headers: Vec<HeaderLine>,
    /// Body.
    pub body: Vec<u8>,
    /// Timeout in milliseconds.
    pub timeout_ms: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpCallResult<'a> {
    /// HTTP status. If the call was not answered, Envoy's 503 or 504; 0 if there is no status.
    pub status: u16,
    /// Body.
    pub body: &'a [u8],
}

impl HttpCallResult<'_> {
    /// The result of a call that could not be sent, such as one to an unknown cluster.
    pub const NOT_SENT: Self = Self { status: 503, body: b"" };
}
