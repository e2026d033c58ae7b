//! How an attempt, an answer or a request ended, where it did not end well: one enum, its code, its metric label and
//! its number.

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident, $code:literal, $kind:ident;)*) => {
        /// How an attempt, an answer or a request ended, where it did not end well.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Outcome {
            /// The provider answered this status.
            Status(u16),
            $($(#[$doc])* $name,)*
        }

        impl Outcome {
            /// All that are no status.
            const NAMED: &[Self] = &[$(Self::$name),*];

            /// The word of the audit record and of the caller's error object: `status_503`, `stream_reset`, ….
            pub fn code(self) -> &'static str {
                match self {
                    Self::Status(status) => status_code(status),
                    $(Self::$name => $code,)*
                }
            }

            /// What kind of failure it is, for a metric's label.
            pub fn kind(self) -> Kind {
                match self {
                    Self::Status(429) => Kind::RateLimited,
                    Self::Status(408 | 504) => Kind::Timeout,
                    Self::Status(401 | 403) => Kind::RefusedGateway,
                    Self::Status(500..=599) => Kind::ServerError,
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
    /// A successful answer is compressed, which nobody asked for.
    EncodedBody, "encoded_body", InvalidResponse;
    /// A successful answer is of another type than was asked for.
    WrongContentType, "wrong_content_type", InvalidResponse;
    /// A stream ended, or grew too long, before its first event was complete.
    NoFirstEvent, "no_first_event", InvalidResponse;
    /// A stream consists of its end marker alone.
    EmptyStream, "empty_stream", InvalidResponse;
    /// The first event of a stream cannot be read.
    MalformedEvent, "malformed_event", InvalidResponse;
    /// The first event of a stream is no part of a completion.
    NotAChunk, "not_a_chunk", InvalidResponse;
    /// A whole answer cannot be read.
    MalformedBody, "malformed_body", InvalidResponse;
    /// A whole answer is no completion.
    NotACompletion, "not_a_completion", InvalidResponse;
    /// The first event of a stream is an error.
    ErrorEvent, "error_event", ErrorEvent;
    /// A successful status came with an error as its body.
    ErrorBody, "error_body", ErrorEvent;
    /// Nothing came: no answer, no reason.
    NoResponse, "no_response", Unreachable;
    /// The attempt did not answer in its time, so another one was begun beside it, and answered first.
    Hedged, "hedged", Timeout;
    /// The attempt was begun beside another one that answered first. It has not failed.
    Cancelled, "cancelled", NotTheProvider;
    /// No attempt at a stream began in time.
    FirstTokenTimeout, "first_token_timeout", Timeout;
    /// No attempt at an answer that is not streamed was done in time.
    AttemptTimeout, "attempt_timeout", Timeout;
    /// A stream fell silent.
    ChunkTimeout, "chunk_timeout", Timeout;
    /// The whole request was not done in time.
    DeadlineExceeded, "deadline_exceeded", Timeout;
    /// The caller left.
    ClientDisconnected, "client_disconnected", NotTheProvider;
    /// Every model that could serve is full.
    ModelOverloaded, "model_overloaded", Overloaded;
    /// The provider reset a response that had begun.
    StreamReset, "stream_reset", Unreachable;
    /// The provider reset the request, or could not be connected to.
    ProviderUnreachable, "provider_unreachable", Unreachable;
    /// No provider of the plan is healthy.
    NoHealthyProvider, "no_healthy_provider", Unreachable;
    /// Envoy does not know the plan: its configuration is being replaced.
    NoSuchPlan, "no_such_plan", NotTheProvider;
    /// The response is larger than Envoy takes.
    ResponseTooLarge, "response_too_large", InvalidResponse;
    /// The provider reported an error in the middle of a stream.
    StreamError, "stream_error", ErrorEvent;
    /// An event of a stream cannot be read.
    StreamMalformed, "stream_malformed", InvalidResponse;
    /// A stream ended before its end marker.
    StreamTruncated, "stream_truncated", InvalidResponse;
    /// A stream broke off.
    StreamAborted, "stream_aborted", InvalidResponse;
    /// A whole answer broke off, or is none.
    InvalidResponse, "invalid_response", InvalidResponse;
    /// The provider failed.
    ProviderError, "provider_error", InvalidResponse;
    /// The provider refused the request.
    ProviderRejectedRequest, "provider_rejected_request", InvalidResponse;
    /// The provider refused the gateway's credential.
    ProviderRefusedGateway, "provider_refused_gateway", InvalidResponse;
    /// The provider said that it did not answer in time.
    ProviderTimeout, "provider_timeout", InvalidResponse;
    /// The provider limits the gateway's rate.
    ProviderRateLimited, "provider_rate_limited", RateLimited;
    /// The provider is not available.
    ProviderUnavailable, "provider_unavailable", InvalidResponse;
    /// The provider answered a status that has no place here.
    ProviderUnexpectedStatus, "provider_unexpected_status", InvalidResponse;
    /// No path of the gateway.
    UnknownUrl, "unknown_url", NotTheProvider;
    /// A path of the gateway, with a method that it does not take.
    MethodNotAllowed, "method_not_allowed", NotTheProvider;
    /// The caller is not known.
    InvalidApiKey, "invalid_api_key", NotTheProvider;
    /// The request's body is compressed.
    UnsupportedContentEncoding, "unsupported_content_encoding", NotTheProvider;
    /// The request's body is too large.
    RequestTooLarge, "request_too_large", NotTheProvider;
    /// The request's body cannot be read.
    InvalidJson, "invalid_json", NotTheProvider;
    /// A field of the request has a wrong value.
    InvalidValue, "invalid_value", NotTheProvider;
    /// No model or task of this name.
    ModelNotFound, "model_not_found", NotTheProvider;
    /// The request names no model, and the policy has no default task.
    MissingModel, "missing_model", NotTheProvider;
    /// No task of this name.
    TaskNotFound, "task_not_found", NotTheProvider;
    /// The request names two tasks.
    TaskConflict, "task_conflict", NotTheProvider;
    /// The tenant's tier does not allow the model.
    ModelNotAllowed, "model_not_allowed", NotTheProvider;
    /// No model may see data of the request's class.
    DataClassNotAllowed, "data_class_not_allowed", NotTheProvider;
    /// No model can do what the request needs.
    UnsupportedCapability, "unsupported_capability", NotTheProvider;
    /// No model takes a field of the request.
    UnsupportedParameter, "unsupported_parameter", NotTheProvider;
    /// The prompt is too long.
    ContextLengthExceeded, "context_length_exceeded", NotTheProvider;
    /// A rate of the tenant or its user is used up.
    RateLimitExceeded, "rate_limit_exceeded", NotTheProvider;
    /// A budget of the tenant or its user is used up.
    InsufficientQuota, "insufficient_quota", NotTheProvider;
    /// More users are active than are counted apart.
    QuotaUsersFull, "quota_users_full", NotTheProvider;
    /// The store of quotas cannot be reached.
    QuotaUnavailable, "quota_unavailable", NotTheProvider;
    /// The gateway failed.
    InternalError, "internal_error", NotTheProvider;
    /// The request did not arrive in time.
    RequestTimeout, "request_timeout", NotTheProvider;
    /// The request's headers are too large.
    RequestHeadersTooLarge, "request_headers_too_large", NotTheProvider;
    /// Envoy could not read the request.
    BadRequest, "bad_request", NotTheProvider;
    /// Envoy failed.
    GatewayError, "gateway_error", NotTheProvider;
}

/// A kind of failure, as metrics count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The provider limits the gateway's rate.
    RateLimited,
    /// A timer ran out.
    Timeout,
    /// The provider refused the gateway's credential.
    RefusedGateway,
    /// The provider refused the request.
    RejectedRequest,
    /// The provider failed.
    ServerError,
    /// The provider could not be reached.
    Unreachable,
    /// Every model is full.
    Overloaded,
    /// The provider sent an error in place of an answer.
    ErrorEvent,
    /// The provider sent something that is no answer.
    InvalidResponse,
    /// The caller or the gateway itself brought it about, so no metric of providers counts it.
    NotTheProvider,
}

impl Kind {
    /// The value of the label `error_type`.
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

/// The first number that stands for an outcome without a status.
const FIRST_NAMED: u16 = 1000;

impl Outcome {
    /// The number that stands for it in a record.
    pub fn number(self) -> u16 {
        match self {
            Self::Status(status) => status.min(FIRST_NAMED - 1),
            named => {
                let place = Self::NAMED.iter().position(|other| *other == named).unwrap_or_default();
                FIRST_NAMED.saturating_add(u16::try_from(place).unwrap_or(u16::MAX))
            }
        }
    }

    /// What a number stands for, if anything.
    pub fn from_number(number: u16) -> Option<Self> {
        match number {
            status @ ..FIRST_NAMED => Some(Self::Status(status)),
            number => Self::NAMED.get(usize::from(number - FIRST_NAMED)).copied(),
        }
    }
}

const STATUSES: usize = FIRST_NAMED as usize;
const CODE_LEN: usize = "status_000".len();

/// `status_000` to `status_999`, one after the other.
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
            (404, Kind::RejectedRequest),
            (520, Kind::ServerError),
            (302, Kind::InvalidResponse),
        ] {
            assert_eq!(Outcome::Status(status).kind(), kind, "{status}");
        }
    }
}
