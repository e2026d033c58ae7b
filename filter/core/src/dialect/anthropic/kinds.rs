//! Anthropic's kinds of errors, and the statuses that they stand for.
//!
//! Source: Anthropic's documentation, "Errors".

/// Each kind with its status. A status without a kind of its own is of the last kind with a lower or equal one.
const KINDS: [(&str, u16); 10] = [
    ("invalid_request_error", 400),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("request_too_large", 413),
    ("rate_limit_error", 429),
    ("api_error", 500),
    ("timeout_error", 504),
    ("overloaded_error", 529),
];

/// Returns the kind of an error with this status.
pub fn of_status(status: u16) -> &'static str {
    match status {
        405..=412 | 414..=428 | 430..=499 => "invalid_request_error",
        501..=503 | 505..=528 | 530.. => "api_error",
        status => KINDS.iter().rfind(|(_, least)| *least <= status).map_or("api_error", |(kind, _)| kind),
    }
}

/// Returns the status that an error of this kind stands for.
pub fn status(kind: &str) -> Option<u16> {
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, status)| *status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_status_and_every_status_a_kind() {
        for (kind, code) in KINDS {
            assert_eq!((of_status(code), status(kind)), (kind, Some(code)));
        }
        for (code, kind) in
            [(405, "invalid_request_error"), (415, "invalid_request_error"), (502, "api_error"), (200, "api_error")]
        {
            assert_eq!(of_status(code), kind, "{code}");
        }
        assert_eq!(status("server_error"), None);
    }
}
