//! The error documents that OpenAI answers with.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::refusal::Refusal;

/// Returns the error document for a request that is refused.
pub fn refusal(refusal: &Refusal) -> Value {
    error(&refusal.message, "invalid_request_error", refusal.param.as_deref(), refusal.code)
}

fn error(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

/// Returns the error that a provider sends inside a stream when it fails in the middle.
pub fn server_error() -> Value {
    error("The server had an error while processing your request. Sorry about that!", "server_error", None, None)
}

/// Returns the error document for a status, in the provider's wording. Those for 401 and 429 name an organization, and
/// that for 401 part of a key, as the real ones do: a gateway must not pass these on.
pub fn error_document(status: StatusCode, model: &str) -> Value {
    const INVALID: &str = "invalid_request_error";
    match status.as_u16() {
        400 => error("Invalid request: the simulator was told to refuse it.", INVALID, None, None),
        401 => error(
            "Incorrect API key provided: sk-proj-********************************************9xQk (organization \
             org-SimSecretTenant42). You can find your API key at https://platform.openai.com/account/api-keys.",
            INVALID,
            None,
            Some("invalid_api_key"),
        ),
        403 => error(
            "Country, region, or territory not supported",
            "request_forbidden",
            None,
            Some("unsupported_country_region_territory"),
        ),
        404 => error(
            &format!("The model `{model}` does not exist or you do not have access to it."),
            INVALID,
            None,
            Some("model_not_found"),
        ),
        408 => error("Request timed out.", "timeout", None, None),
        413 => error("Maximum content size limit (26214400) exceeded.", INVALID, None, None),
        422 => error("Unprocessable entity.", INVALID, None, None),
        429 => error(
            &format!(
                "Rate limit reached for {model} in organization org-SimSecretTenant42 on requests per min (RPM): \
                 Limit 3, Used 3, Requested 1. Please try again in 20s."
            ),
            "requests",
            None,
            Some("rate_limit_exceeded"),
        ),
        502 => error("Bad gateway.", "server_error", None, None),
        503 => error(
            "The server is currently overloaded with other requests. Sorry about that! You can retry your request.",
            "server_error",
            None,
            None,
        ),
        504 => error("Gateway timeout.", "server_error", None, None),
        529 => error("Overloaded", "overloaded_error", None, None),
        _ if status.is_client_error() => error("The request was refused.", INVALID, None, None),
        _ => server_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_there_to_be_leaked() {
        let text = error_document(StatusCode::UNAUTHORIZED, "m").to_string();
        assert!(text.contains("org-SimSecretTenant42") && text.contains("9xQk"));
    }

    #[test]
    fn a_status_has_its_code() {
        let code = |status| error_document(StatusCode::from_u16(status).unwrap(), "m")["error"]["code"].clone();
        assert_eq!(code(429), "rate_limit_exceeded");
        assert_eq!(code(404), "model_not_found");
        assert_eq!(code(599), Value::Null);
    }
}
