//! The model stage: an upstream HTTP filter of every plan cluster, once per attempt.
//!
//! Envoy keeps header edits of one attempt for the next, so each attempt sets or removes everything that depends on the
//! provider, whatever it finds. The body comes anew each time.

use crate::host;
use pointsman_core::dispatch::{self, STATE_DISPATCH, STATE_PROVIDER, STATE_SERVED, encode_served};
use pointsman_core::refusal::Refusal;
use pointsman_core::reply::Reply;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, LogLevel, MapType};

/// One attempt.
#[derive(Default)]
pub struct ModelStage {
    body: Body,
    /// Model and number of the attempt, for its log line.
    served: Option<(String, usize)>,
}

/// What is left to do with the request body.
#[derive(Default)]
enum Body {
    /// Nothing: it passes.
    #[default]
    Pass,
    /// Replace its first bytes.
    Replace { prefix: usize, head: Vec<u8> },
    /// The request was refused.
    Refused,
}

impl ModelStage {
    fn refuse(&mut self, why: &str) -> Action {
        host::log(LogLevel::Error, why);
        let reply = Reply::refusal(&Refusal::Internal);
        host::reply(reply.status, &reply.headers, &reply.body);
        self.body = Body::Refused;
        Action::Pause
    }
}

const PROVIDER: &str = "xds\0upstream_host_metadata\0filter_metadata\0pointsman\0provider";

impl Context for ModelStage {}

impl HttpContext for ModelStage {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let record = host::property(STATE_DISPATCH).unwrap_or_default();
        let Some(plan) = dispatch::decode(&record) else {
            return self.refuse("pointsman: a request came to the model stage without the gateway stage before it");
        };
        let provider = host::property(PROVIDER).unwrap_or_default();
        let count = match plan.attempts.len() {
            1 => 1,
            _ => host::property("upstream\0request_attempt_count")
                .and_then(|bytes| bytes.first_chunk::<8>().map(|n| i64::from_le_bytes(*n)))
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(1),
        };
        let Some((index, attempt)) = std::str::from_utf8(&provider).ok().and_then(|name| plan.choose(name, count))
        else {
            return self
                .refuse("pointsman: the chosen host's metadata pointsman.provider is not a provider of the plan");
        };

        let map = MapType::HttpRequestHeaders;
        host::set_header(map, ":path", attempt.path);
        host::remove_header(map, b"x-pointsman-cluster");
        host::remove_header(map, b"x-forwarded-proto");
        host::set_header(map, "content-length", &plan.content_length(attempt).to_string());
        for other in plan.attempts.iter().filter(|other| !other.credential_header.is_empty()) {
            host::remove_header(map, other.credential_header.as_bytes());
        }
        if attempt.head != plan.canonical_head() {
            self.body = Body::Replace { prefix: plan.canonical_head().len(), head: attempt.head.to_vec() };
        }
        if plan.attempts.len() > 1 {
            host::set_state(STATE_PROVIDER, attempt.provider.as_bytes());
        }
        host::set_state(STATE_SERVED, &encode_served(index, count));
        self.served = Some((attempt.model.to_owned(), count));
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, _: bool) -> Action {
        match &self.body {
            Body::Pass => Action::Continue,
            Body::Refused => Action::Pause,
            // The head is not all here yet.
            Body::Replace { prefix, .. } if size < *prefix => Action::Pause,
            Body::Replace { prefix, head } => {
                host::replace_prefix(BufferType::HttpRequestBody, *prefix, head);
                self.body = Body::Pass;
                Action::Continue
            }
        }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        // The router's upstream_log can see headers, but no filter state. The gateway stage sets these anew.
        if let Some((model, count)) = &self.served {
            host::set_header(MapType::HttpResponseHeaders, "x-pointsman-model", model);
            host::set_header(MapType::HttpResponseHeaders, "x-pointsman-attempts", &count.to_string());
        }
        Action::Continue
    }
}
