//! What Envoy answers before the module was asked, or without it: the codes that caller, record and metric have for it.

/// `code` of an error that Envoy answers by itself with this status. `pointsman render` writes it into the answer.
pub fn code(status: u16) -> &'static str {
    match status {
        408 => "request_timeout",
        413 => "request_too_large",
        431 => "request_headers_too_large",
        400..500 => "bad_request",
        _ => "gateway_error",
    }
}
