//! How an attempt, an answer or a request failed: one enum with its code, its metric label and its number.

use crate::outcome::blame::Blame;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident, $code:literal, $kind:ident;)*) => {
        /// How an attempt, an answer or a request failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Outcome {
            /// The provider answered this status.
            Status(u16),
            $($(#[$doc])* $name,)*
        }

        impl Outcome {
            /// All except `Status`.
            const NAMED: &[Self] = &[$(Self::$name),*];

            /// Returns the code in the audit record and in the caller's error object: `status_503`, `stream_reset`, ….
            pub fn code(self) -> &'static str {
                match self {
                    Self::Status(status) => status_code(status),
                    $(Self::$name => $code,)*
                }
            }

            /// Returns the one of `all` with this code.
            pub fn of_code(all: &[Self], code: &str) -> Option<Self> {
                all.iter().copied().find(|outcome| outcome.code() == code)
            }

            /// Returns the kind of failure, for a metric's label.
            pub fn kind(self) -> Kind {
                match self {
                    Self::Status(429) => Kind::RateLimited,
                    Self::Status(408 | 504) => Kind::Timeout,
                    Self::Status(500..=599) => Kind::ServerError,
                    Self::Status(status) if Blame::of_status(status) == Blame::Gateway => Kind::RefusedGateway,
                    Self::Status(400..=499) => Kind::RejectedRequest,
                    Self::Status(_) => Kind::InvalidResponse,
                    $(Self::$name => Kind::$kind,)*
                }
            }
        }
    };
}

outcomes! {
    /// A successful answer has no body.
    EmptyBody, "empty_body", InvalidResponse;
    /// A successful answer is compressed although no compression was requested.
    EncodedBody, "encoded_body", InvalidResponse;
    /// A successful answer has a content type other than the requested one.
    WrongContentType, "wrong_content_type", InvalidResponse;
    /// A stream ended, or grew too long, before its first event was complete.
    NoFirstEvent, "no_first_event", InvalidResponse;
    /// A stream consists of its end marker alone.
    EmptyStream, "empty_stream", InvalidResponse;
    /// The first event of a stream cannot be read.
    MalformedEvent, "malformed_event", InvalidResponse;
    /// The first event of a stream is not part of a completion.
    /// A whole answer cannot be read.
    MalformedBody, "malformed_body", InvalidResponse;
    /// A whole answer is not a completion.
    NotACompletion, "not_a_completion", InvalidResponse;
    /// The first event of a stream is an error.
    ErrorEvent, "error_event", ErrorEvent;
    /// A successful status came with an error as its body.
    ErrorBody, "error_body", ErrorEvent;
    /// Neither an answer nor a reason arrived.
    NoResponse, "no_response", Unreachable;
    /// The attempt exceeded its time limit, so another was started in parallel and answered first.
    Hedged, "hedged", Timeout;
    /// The attempt was started in parallel with another one, which answered first. It did not fail.
    Cancelled, "cancelled", NotTheProvider;
    /// No attempt started its stream in time.
    FirstTokenTimeout, "first_token_timeout", Timeout;
    /// No attempt at an answer that is not streamed finished in time.
    AttemptTimeout, "attempt_timeout", Timeout;
    /// A stream sent no data for too long.
    ChunkTimeout, "chunk_timeout", Timeout;
    /// The request exceeded its deadline.
    DeadlineExceeded, "deadline_exceeded", Timeout;
    /// The caller disconnected.
    ClientDisconnected, "client_disconnected", NotTheProvider;
    /// The caller did not read its response.
    ClientSlow, "client_slow", NotTheProvider;
    /// The gateway closed the connection to the caller, because it stops.
    GatewayShutdown, "gateway_shutdown", NotTheProvider;
    /// Every model that could serve is at its limit.
    ModelOverloaded, "model_overloaded", Overloaded;
    /// The provider reset a response after it had begun.
    StreamReset, "stream_reset", Unreachable;
    /// The provider reset the request, or a connection to it could not be made.
    ProviderUnreachable, "provider_unreachable", Unreachable;
    /// No provider of the plan is available.
    NoHealthyProvider, "no_healthy_provider", Unreachable;
    /// Envoy does not know the plan: its configuration is being replaced.
    NoSuchPlan, "no_such_plan", NotTheProvider;
    /// The response's headers or body exceed Envoy's limits.
    ResponseTooLarge, "response_too_large", InvalidResponse;
    /// The provider reported an error in the middle of a stream.
    StreamError, "stream_error", ErrorEvent;
    /// A stream event cannot be read.
    StreamMalformed, "stream_malformed", InvalidResponse;
    /// A stream ended before its end marker.
    StreamTruncated, "stream_truncated", InvalidResponse;
    /// A stream was cut off.
    StreamAborted, "stream_aborted", InvalidResponse;
    /// A whole answer was cut off.
    InvalidResponse, "invalid_response", InvalidResponse;
    /// The provider failed.
    ProviderError, "provider_error", InvalidResponse;
    /// The provider refused the request.
    ProviderRejectedRequest, "provider_rejected_request", InvalidResponse;
    /// The provider refused the gateway's own credential, account or configuration.
    ProviderRefusedGateway, "provider_refused_gateway", RefusedGateway;
    /// The provider reported a timeout.
    ProviderTimeout, "provider_timeout", InvalidResponse;
    /// The provider limits the gateway's rate.
    ProviderRateLimited, "provider_rate_limited", RateLimited;
    /// The provider is unavailable.
    ProviderUnavailable, "provider_unavailable", InvalidResponse;
    /// The provider answered with a status that is unexpected here.
    ProviderUnexpectedStatus, "provider_unexpected_status", InvalidResponse;
    /// The path is not one of the gateway's.
    UnknownUrl, "unknown_url", NotTheProvider;
    /// The path exists, but does not allow this method.
    MethodNotAllowed, "method_not_allowed", NotTheProvider;
    /// The caller is unknown.
    InvalidApiKey, "invalid_api_key", NotTheProvider;
    /// The request body is compressed.
    UnsupportedContentEncoding, "unsupported_content_encoding", NotTheProvider;
    /// The request body is too large.
    RequestTooLarge, "request_too_large", NotTheProvider;
    /// Too many request bodies of the tenant are arriving.
    TooManyUploads, "too_many_uploads", NotTheProvider;
    /// The request body cannot be read.
    InvalidJson, "invalid_json", NotTheProvider;
    /// A field of the request has an invalid value.
    InvalidValue, "invalid_value", NotTheProvider;
    /// There is no model or task with this name.
    ModelNotFound, "model_not_found", NotTheProvider;
    /// The request names no model, and the policy has no default task.
    MissingModel, "missing_model", NotTheProvider;
    /// There is no task with this name.
    TaskNotFound, "task_not_found", NotTheProvider;
    /// The request names two different tasks.
    TaskConflict, "task_conflict", NotTheProvider;
    /// The tenant's tier does not allow the model.
    ModelNotAllowed, "model_not_allowed", NotTheProvider;
    /// No model may see data of the request's class.
    DataClassNotAllowed, "data_class_not_allowed", NotTheProvider;
    /// No model can do what the request needs.
    UnsupportedCapability, "unsupported_capability", NotTheProvider;
    /// No model that could serve the request is served by this API.
    UnsupportedApi, "unsupported_api", NotTheProvider;
    /// No model accepts a field of the request.
    UnsupportedParameter, "unsupported_parameter", NotTheProvider;
    /// The prompt is too long.
    ContextLengthExceeded, "context_length_exceeded", RejectedRequest;
    /// A rate limit of the tenant or its user is used up.
    RateLimitExceeded, "rate_limit_exceeded", NotTheProvider;
    /// A budget of the tenant or its user is used up.
    InsufficientQuota, "insufficient_quota", NotTheProvider;
    /// The quota store is unreachable.
    QuotaUnavailable, "quota_unavailable", NotTheProvider;
    /// The gateway failed.
    InternalError, "internal_error", NotTheProvider;
    /// The request did not arrive in time.
    RequestTimeout, "request_timeout", NotTheProvider;
    /// The request headers are too large.
    RequestHeadersTooLarge, "request_headers_too_large", NotTheProvider;
    /// Envoy could not read the request.
    BadRequest, "bad_request", NotTheProvider;
    /// Envoy failed.
    GatewayError, "gateway_error", NotTheProvider;
    /// A required field of the request is missing.
    MissingRequiredParameter, "missing_required_parameter", RejectedRequest;
    /// A field of the request has the wrong type.
    InvalidType, "invalid_type", RejectedRequest;
    /// A list in the request is empty.
    EmptyArray, "empty_array", RejectedRequest;
    /// A list in the request is too long.
    ArrayAboveMaxLength, "array_above_max_length", RejectedRequest;
    /// A text in the request is too long.
    StringAboveMaxLength, "string_above_max_length", RejectedRequest;
    /// An integer in the request is too small.
    IntegerBelowMinValue, "integer_below_min_value", RejectedRequest;
    /// An integer in the request is too large.
    IntegerAboveMaxValue, "integer_above_max_value", RejectedRequest;
    /// A number in the request is too small.
    DecimalBelowMinValue, "decimal_below_min_value", RejectedRequest;
    /// A number in the request is too large.
    DecimalAboveMaxValue, "decimal_above_max_value", RejectedRequest;
    /// The request has a field that does not exist.
    UnknownParameter, "unknown_parameter", RejectedRequest;
    /// The model does not accept this value of a field.
    UnsupportedValue, "unsupported_value", RejectedRequest;
    /// The prompt is refused for its content.
    ContentFilter, "content_filter", RejectedRequest;
    /// The prompt is refused for its content.
    ContentPolicyViolation, "content_policy_violation", RejectedRequest;
    /// The prompt is refused.
    InvalidPrompt, "invalid_prompt", RejectedRequest;
    /// The JSON Schema for the answer is invalid.
    InvalidJsonSchema, "invalid_json_schema", RejectedRequest;
    /// The JSON Schema of a tool is invalid.
    InvalidFunctionParameters, "invalid_function_parameters", RejectedRequest;
    /// An image is invalid.
    InvalidImage, "invalid_image", RejectedRequest;
    /// An image has an unknown format.
    InvalidImageFormat, "invalid_image_format", RejectedRequest;
    /// An image's URL is invalid, or cannot be read.
    InvalidImageUrl, "invalid_image_url", RejectedRequest;
    /// An image is not valid base64.
    InvalidBase64Image, "invalid_base64_image", RejectedRequest;
    /// An image has a color mode that is not supported.
    InvalidImageMode, "invalid_image_mode", RejectedRequest;
    /// An image has too many pixels.
    ImageTooLarge, "image_too_large", RejectedRequest;
    /// An image has too few pixels.
    ImageTooSmall, "image_too_small", RejectedRequest;
    /// An image has too many bytes.
    ImageFileTooLarge, "image_file_too_large", RejectedRequest;
    /// An image cannot be decoded.
    ImageParseError, "image_parse_error", RejectedRequest;
    /// An image is refused for its content.
    ImageContentPolicyViolation, "image_content_policy_violation", RejectedRequest;
    /// An image has a media type that is not supported.
    UnsupportedImageMediaType, "unsupported_image_media_type", RejectedRequest;
    /// An image is empty.
    EmptyImageFile, "empty_image_file", RejectedRequest;
    /// An image could not be fetched.
    FailedToDownloadImage, "failed_to_download_image", RejectedRequest;
    /// An image was not found.
    ImageFileNotFound, "image_file_not_found", RejectedRequest;
}

/// A kind of failure, as counted in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The provider limits the gateway's rate.
    RateLimited,
    /// A timeout expired.
    Timeout,
    /// The provider refused the gateway's own credential, account or configuration.
    RefusedGateway,
    /// The provider refused the request.
    RejectedRequest,
    /// The provider failed.
    ServerError,
    /// The provider could not be reached.
    Unreachable,
    /// Every model is at its limit.
    Overloaded,
    /// The provider sent an error in place of an answer.
    ErrorEvent,
    /// The provider sent something other than an answer.
    InvalidResponse,
    /// The caller or the gateway caused it, so no provider metric counts it.
    NotTheProvider,
}

impl Kind {
    /// Returns the value of the label `error_type`.
    pub fn label(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Timeout => "timeout",
            Self::RefusedGateway => "refused_gateway",
            Self::RejectedRequest => "rejected_request",
            Self::ServerError => "server_error",
            Self::Unreachable => "unreachable",
            Self::Overloaded => "overloaded",
            Self::ErrorEvent => "error_event",
            Self::InvalidResponse => "invalid_response",
            Self::NotTheProvider => "none",
        }
    }
}

/// The first number of an outcome that is not a status.
const FIRST_NAMED: u16 = 1000;

impl Outcome {
    /// Returns whether the connection to the caller ended early, by the caller or by the gateway. The provider
    /// is not to blame.
    pub fn has_lost_caller(self) -> bool {
        matches!(self, Self::ClientDisconnected | Self::ClientSlow | Self::GatewayShutdown)
    }

    /// Returns its number in a record.
    pub fn number(self) -> u16 {
        match self {
            Self::Status(status) => status.min(FIRST_NAMED - 1),
            named => {
                let place = Self::NAMED.iter().position(|other| *other == named).unwrap_or_default();
                FIRST_NAMED.saturating_add(u16::try_from(place).unwrap_or(u16::MAX))
            }
        }
    }

    /// Returns the outcome with this number, if any.
    pub fn from_number(number: u16) -> Option<Self> {
        match number {
            status @ ..FIRST_NAMED => Some(Self::Status(status)),
            number => Self::NAMED.get(usize::from(number - FIRST_NAMED)).copied(),
        }
    }
}

const STATUSES: usize = FIRST_NAMED as usize;
const CODE_LEN: usize = "status_000".len();

/// `status_000` to `status_999`, concatenated.
static STATUS_CODES: [u8; STATUSES * CODE_LEN] = status_codes();

#[allow(clippy::indexing_slicing)] // Evaluated by the compiler, which would refuse an index out of bounds.
const fn status_codes() -> [u8; STATUSES * CODE_LEN] {
    let prefix = b"status_";
    let mut all = [0; STATUSES * CODE_LEN];
    let mut status = 0;
    while status < STATUSES {
        let mut i = 0;
        while i < prefix.len() {
            all[status * CODE_LEN + i] = prefix[i];
            i += 1;
        }
        all[status * CODE_LEN + i] = b'0' + (status / 100) as u8;
        all[status * CODE_LEN + i + 1] = b'0' + (status / 10 % 10) as u8;
        all[status * CODE_LEN + i + 2] = b'0' + (status % 10) as u8;
        status += 1;
    }
    all
}

fn status_code(status: u16) -> &'static str {
    let start = usize::from(status) * CODE_LEN;
    let code = STATUS_CODES.get(start..start + CODE_LEN).and_then(|code| std::str::from_utf8(code).ok());
    code.unwrap_or("status_unexpected")
}

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_outcome_is_read_back_from_its_bytes_and_has_a_code_of_its_own() {
        let statuses = (0..FIRST_NAMED).map(Outcome::Status);
        let all: Vec<_> = statuses.chain(Outcome::NAMED.iter().copied()).collect();
        for outcome in &all {
            assert_eq!(Outcome::from_number(outcome.number()), Some(*outcome));
        }
        let codes: BTreeSet<_> = all.iter().map(|outcome| outcome.code()).collect();
        assert_eq!(codes.len(), all.len());
        assert_eq!(Outcome::from_number(u16::MAX), None);
    }

    #[test]
    fn every_code_is_documented() {
        let pages = ["api.md", "audit.md"].map(|page| {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/reference/");
            std::fs::read_to_string(format!("{folder}{page}")).unwrap()
        });
        for code in Outcome::NAMED.iter().map(|outcome| outcome.code()) {
            assert!(pages.iter().any(|page| page.contains(&format!("`{code}`"))), "no page documents {code}");
        }
    }

    #[test]
    fn a_status_without_a_name_of_its_own_keeps_its_number() {
        for status in [418, 425, 501, 505, 507, 520, 530, 599] {
            let outcome = Outcome::Status(status);
            assert_eq!(outcome.code(), format!("status_{status}"));
            assert_eq!(Outcome::from_number(outcome.number()), Some(outcome));
        }
    }

    #[test]
    fn kinds_are_few() {
        for (status, kind) in [
            (429, Kind::RateLimited),
            (408, Kind::Timeout),
            (504, Kind::Timeout),
            (403, Kind::RefusedGateway),
            (404, Kind::RefusedGateway),
            (302, Kind::RefusedGateway),
            (400, Kind::RejectedRequest),
            (409, Kind::RejectedRequest),
            (520, Kind::ServerError),
            (200, Kind::InvalidResponse),
        ] {
            assert_eq!(Outcome::Status(status).kind(), kind, "{status}");
        }
    }
}
