//! The `tasks` section: chains of models, with the options of each kind of work.

use crate::config::cache::TaskCache;
use crate::config::statuses::Statuses;
use crate::config::time::Time;
use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// A kind of work.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The model to try first.
    pub primary: String,
    /// Up to 7 models to try next, in order, when the previous ones fail or may not be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
    /// Maximum output tokens per request of this task, 1 to 100000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// Whether and how to cache responses. If absent, the task's requests bypass the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<TaskCache>,
    /// Whether to request a stream from the provider even if the caller does not stream, and to assemble the whole
    /// response from it. An abandoned request then costs what was generated.
    #[serde(default)]
    pub stream_upstream: bool,
    /// Timeouts and retries of this task.
    #[serde(default)]
    pub resilience: TaskResilience,
}

/// Timeouts and retries of one task.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TaskResilience {
    /// Overrides the value in the top-level `resilience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_on_status: Option<Statuses>,
    /// Overrides the value in the top-level `resilience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_timeout: Option<Time>,
    /// Overrides the value in the top-level `resilience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_timeout: Option<Time>,
    /// Overrides the value in the top-level `resilience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Time>,
    /// When an attempt times out, start the next one without canceling it and use the first response.
    pub hedge: bool,
    /// Whether to pass on the response headers of a stream, and its comments, as soon as the provider sends them, so
    /// that no load balancer cuts an idle connection. From then on no other model can serve the request.
    pub early_headers: bool,
}
