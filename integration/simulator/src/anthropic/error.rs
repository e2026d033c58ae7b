//! The error documents that Anthropic answers with.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::headers::request_id;
use crate::answer::Stamp;
use crate::refusal::Refusal;

/// Returns the error document for a request that is refused.
pub fn refusal(refusal: &Refusal, stamp: Stamp) -> Value {
    error(kind(refusal.status), &refusal.message, stamp)
}

/// Returns the error of a provider that is overloaded, which is how most streams fail.
pub fn overloaded(stamp: Stamp) -> Value {
    error("overloaded_error", "Overloaded", stamp)
}

fn error(kind: &str, message: &str, stamp: Stamp) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id(stamp)})
}

/// Returns the type of the error for a status.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

/// Returns the error document for a status, in the provider's wording. Those for 401 and 429 name an organization, and
/// that for 401 part of a key: a gateway must not pass these on.
pub fn error_document(status: StatusCode, model: &str, stamp: Stamp) -> Value {
    let message = match status.as_u16() {
        400 => "The simulator was told to refuse this request.".to_owned(),
        401 => "invalid x-api-key: sk-ant-api03-****************9xQk (organization org-SimSecretTenant42)".to_owned(),
        402 => "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade \
                or purchase credits."
            .to_owned(),
        403 => "Request not allowed".to_owned(),
        404 => format!("model: {model}"),
        413 => "Request exceeds the maximum size".to_owned(),
        429 => "This request would exceed the rate limit for your organization (org-SimSecretTenant42) of 50 requests \
                per minute."
            .to_owned(),
        504 => "Request timed out".to_owned(),
        529 => "Overloaded".to_owned(),
        _ if status.is_client_error() => "The request was refused.".to_owned(),
        _ => "Internal server error".to_owned(),
    };
    error(kind(status), &message, stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { number: 7, created: 5 };

    #[test]
    fn a_status_has_its_type() {
        let kind = |status| error_document(StatusCode::from_u16(status).unwrap(), "m", STAMP)["error"]["type"].clone();
        assert_eq!([kind(400), kind(429)], ["invalid_request_error", "rate_limit_error"]);
        assert_eq!([kind(529), kind(500), kind(503)], ["overloaded_error", "api_error", "api_error"]);
    }

    #[test]
    fn secrets_are_there_to_be_leaked() {
        let text = error_document(StatusCode::UNAUTHORIZED, "m", STAMP).to_string();
        assert!(text.contains("org-SimSecretTenant42") && text.contains("9xQk"));
    }

    #[test]
    fn a_refusal_has_the_request_id() {
        let document = refusal(&Refusal::bad("max_tokens: Field required"), STAMP);
        assert_eq!(document["type"], "error");
        assert_eq!(document["error"]["type"], "invalid_request_error");
        assert_eq!(document["request_id"], "req_sim0000000007");
    }
}
