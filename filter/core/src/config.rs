//! The policy as people write it: one serde type per section, nothing validated beyond its shape.
//!
//! `Config` becomes a [`Policy`](crate::policy::Policy) in one step, which checks every reference and value.
//! Unknown fields are errors. Users read the doc comments: the JSON Schema for editors and the tables of
//! `docs/src/reference/policy.md` are generated from these types.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(feature = "schema")]
use schemars::JsonSchema;

mod cache;
mod data_class;
mod identity;
mod limits;
pub mod place;
mod price;
pub mod problem;
mod quota;
mod statuses;
mod task;
mod time;
pub(crate) mod words;

pub use cache::{Cache, CacheRequests, CacheScope, CacheStore, TaskCache};
pub use data_class::DataClass;
pub use identity::{Identity, Key};
pub use limits::{Limits, OnExhausted, OnTight};
pub use price::{Price, TierPrice};
pub use quota::{Abandoned, FailureMode, Quota, StoreKind};
pub use statuses::Statuses;
pub use task::{Task, TaskResilience};
pub use time::Time;

/// One policy document.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How callers are identified; by API key if absent.
    #[serde(default)]
    pub identity: Identity,
    /// Bounds on each request.
    #[serde(default)]
    pub request: RequestBounds,
    /// Bounds on each response.
    #[serde(default)]
    pub response: ResponseBounds,
    /// Timeouts, retries and backoff.
    #[serde(default)]
    pub resilience: Resilience,
    /// The response cache, shared by all tasks that enable it.
    #[serde(default)]
    pub cache: Cache,
    /// The Redis bridge. Required if any store is `redis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// How quotas and budgets are counted.
    #[serde(default)]
    pub quota: Quota,
    /// The task used when a request names no model, or names `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_task: Option<String>,
    /// The servers that host models. Each name must match an Envoy cluster that you define.
    pub providers: BTreeMap<String, Provider>,
    /// The available models, by the name that callers use.
    pub models: BTreeMap<String, Model>,
    /// Kinds of work, each with a chain of models. Callers can name a task as the model: `"model": "extract"`.
    #[serde(default)]
    pub tasks: BTreeMap<String, Task>,
    /// Service levels: which models a tenant may use, and its limits.
    pub tiers: BTreeMap<String, Tier>,
    /// The organizations or teams that may call the gateway.
    pub tenants: BTreeMap<String, Tenant>,
}

/// Bounds on each request.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RequestBounds {
    /// Maximum request body, 1024 to 134217728 bytes (128 MiB). A larger body gets 413.
    pub max_body_bytes: u64,
    /// Maximum nesting depth of arrays and objects, 4 to 256. A deeper body gets 400.
    pub max_nesting: u32,
    /// How many bodies of one tenant may be arriving at one Envoy worker at a time, 1 to 1000000. More get 429. Bodies
    /// that arrive in one piece do not count.
    pub tenant_uploads: u32,
    /// How many bytes of bodies that are still arriving one Envoy worker may hold for one tenant, 1048576 (1 MiB) to
    /// 17179869184 (16 GiB), and at least `max_body_bytes`. More get 429.
    pub tenant_upload_bytes: u64,
    /// Whether to set the model's or task's `max_output_tokens` on a request that has no output limit.
    pub set_output_limit: bool,
}

impl Default for RequestBounds {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_nesting: 64,
            tenant_uploads: 256,
            tenant_upload_bytes: 256 << 20,
            set_output_limit: false,
        }
    }
}

/// Bounds on each response.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ResponseBounds {
    /// Longest event of a stream, 262144 to 134217728 bytes (128 MiB). A longer one ends the stream with an error. An
    /// image arrives as a single event.
    pub max_event_bytes: u64,
    /// The share of a worker's memory for assembled and long responses, 64 MiB, that one tenant may hold, from 0.001 to
    /// 1: one half if absent. If there is only one tenant, it may hold all of it. A request for which there is no room
    /// is not assembled (see `stream_upstream`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_share: Option<f64>,
}

impl Default for ResponseBounds {
    fn default() -> Self {
        Self { max_event_bytes: 16 << 20, max_share: None }
    }
}

/// Timeouts, retries and backoff. Durations are written like `250ms`, `30s` or `10m`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Resilience {
    /// Provider statuses that trigger the next attempt; `5xx` means 500 to 599. If the list is not empty, three other
    /// failures also trigger it: an invalid response body; a rejection of the gateway itself (401, 402, 403, 404 and so
    /// on), if a model of another provider is left; and a prompt that exceeds the context window, if a model with a
    /// larger one is left. 400, 413 and 422 are not allowed.
    pub retry_on_status: Statuses,
    /// How long a streaming attempt may take to send its first text, tool call or end. Events before it do not count.
    pub first_token_timeout: Time,
    /// How long a non-streaming attempt may take.
    pub attempt_timeout: Time,
    /// How long a stream may be idle between two chunks.
    pub chunk_timeout: Time,
    /// How long the whole request may take, including all attempts and the stream. A caller can shorten it with
    /// `x-pointsman-deadline-ms`.
    pub request_timeout: Time,
    /// The delay before the second attempt. It grows with each attempt, with jitter.
    pub backoff_base: Time,
    /// The maximum delay between two attempts.
    pub backoff_max: Time,
    /// The longest `retry-after` that Envoy honors before it retries the same provider.
    pub max_retry_after: Time,
}

impl Default for Resilience {
    fn default() -> Self {
        Self {
            retry_on_status: Statuses { listed: vec![408, 409, 429], all_5xx: true },
            first_token_timeout: Time(30_000),
            attempt_timeout: Time(120_000),
            chunk_timeout: Time(60_000),
            request_timeout: Time(600_000),
            backoff_base: Time(25),
            backoff_max: Time(250),
            max_retry_after: Time(5_000),
        }
    }
}

/// An HTTP bridge to Redis (webdis), reached through an Envoy cluster that you define.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// The Envoy cluster of the bridge, defined by a file in the providers directory.
    pub cluster: String,
    /// How long a command may take, 1ms to 10s. After that, Redis counts as unavailable.
    pub timeout: Time,
}

impl Default for Redis {
    fn default() -> Self {
        Self { cluster: "redis".to_owned(), timeout: Time(50) }
    }
}

/// A server, or a vendor's API, that hosts models.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The wire protocol of the provider, if it speaks one. Set exactly one of `dialect` and `dialects`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
    /// The wire protocols of the provider: it gets each request in the one in which the caller wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialects: Option<Vec<Dialect>>,
    /// Whether the provider runs on your own machines.
    #[serde(default)]
    pub local: bool,
    /// The most sensitive data class that may be sent to it.
    pub data: DataClass,
    /// Where it processes data. Informational only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The path before `/chat/completions` and `/messages`: empty, or starting with `/` and not ending with `/`.
    #[serde(default = "default_base_path")]
    pub base_path: String,
    /// Where Envoy finds the provider's API key. Never the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
}

fn default_base_path() -> String {
    "/v1".to_owned()
}

/// A provider's wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI chat completions, also supported by vLLM, Ollama and many other servers.
    Openai,
    /// Anthropic Messages, also supported by vLLM, Ollama, SGLang, llama.cpp and LM Studio.
    Anthropic,
}

/// Where Envoy finds a provider's API key, and the header that carries it. Set exactly one of `env`, `file` and `sds`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The header that carries the key, such as `authorization` or `api-key`.
    pub header: String,
    /// Text before the key, such as `"Bearer "` with the trailing space. Printable ASCII without `%`.
    #[serde(default)]
    pub prefix: String,
    /// The environment variable of the Envoy process that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// The absolute path of a file that contains only the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The absolute path of an Envoy SDS file with a generic secret that has the provider's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sds: Option<String>,
}

/// A model that a provider serves.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name of the provider that serves the model.
    pub provider: String,
    /// The provider's id for the model, 1 to 256 characters, such as `gpt-4.1`. Callers do not need it.
    pub model: String,
    /// A label for people: how capable and expensive the model is. It decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<ModelLevel>,
    /// What older policies call `level`.
    #[serde(default, skip_serializing)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub tier: Option<ModelLevel>,
    /// The context window, 1 to 100000000 tokens. A request whose messages certainly exceed it skips the model.
    pub context: u64,
    /// Maximum output tokens per request, 1 to 100000000. A larger limit in a request is lowered to this.
    pub max_output_tokens: u64,
    /// The price in US dollars per million tokens. Without it, the model's cost is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Maximum concurrent requests, at least 1, across all workers of one Envoy. When the model is at this limit, the
    /// next model serves the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    /// The share of `max_concurrent` that the requests of one tenant may hold, from 0.001 to 1: one half if absent,
    /// rounded up. A tenant that holds its share gets the next model. If only one tenant may use the model, it may hold
    /// all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_share: Option<f64>,
    /// What the model supports beyond text: nothing if the list is empty. If absent, everything but `routing`, and but
    /// `other` under a budget: these must be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// The only output limit field that the model accepts; the other one is renamed to it. If absent, the model accepts
    /// both. A quota then reserves the larger of the two, or the model's own limit if the caller sends only
    /// `max_completion_tokens`, because a server may not know that field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_param: Option<OutputParam>,
    /// Top-level request fields that the model does not accept. `model`, `messages` and `stream` cannot be listed.
    /// `stream_options` is never sent to a model that lists it, and the usage of its streams is estimated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported_params: Vec<String>,
    /// Whether to remove these fields from a request. If false, a request with such a field skips the model.
    #[serde(default)]
    pub drop_params: bool,
}

/// How capable and expensive a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ModelLevel {
    /// Small and nearby.
    Local,
    /// Hosted, moderately priced.
    Mid,
    /// The most capable and most expensive.
    Flagship,
}

/// A feature that not every model supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Function calling (`tools`).
    Tools,
    /// Output that follows a JSON Schema (`response_format.type: json_schema`).
    JsonSchema,
    /// Images in messages.
    Vision,
    /// Audio in messages, and audio output (`modalities`, `audio`).
    Audio,
    /// Video in messages.
    Video,
    /// Files in messages.
    Files,
    /// Web search by the provider: `web_search_options`, `search_parameters`, `enable_search`, `plugins`, `web_search`,
    /// `search_mode`, a tool.
    WebSearch,
    /// Options that change what an image or a video becomes: `mm_processor_kwargs` and `media_io_kwargs` of vLLM.
    MediaOptions,
    /// Content parts, `tools`, `modalities` and top-level fields that Pointsman does not know. Under a budget, only a
    /// model that lists it, or that costs nothing, gets them: it is charged for their tokens alone.
    Other,
    /// Fields with which the provider chooses another model or host: OpenRouter's `models`, `route`, `provider` and
    /// `preset`, `fallbacks`, and so on. Only a model that lists it gets them, at its own price and data class.
    Routing,
}

/// The request field that limits a model's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OutputParam {
    /// The older name, which most servers accept.
    MaxTokens,
    /// OpenAI's newer name.
    MaxCompletionTokens,
}

/// A service level.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// The models that its tenants may use; at least one.
    pub models: Vec<String>,
    /// The limits that apply to each tenant of the tier.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// A tenant.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// The name of the tenant's tier.
    pub tier: String,
    /// The tenant's API keys, as SHA-256 hashes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// The data class of the tenant's requests. A request can raise it but not lower it.
    #[serde(default = "default_tenant_data")]
    pub data: DataClass,
    /// Increase it to invalidate the tenant's cached responses.
    #[serde(default)]
    pub cache_revision: u64,
    /// The tenant's limits. Each overrides the same limit of its tier.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

fn default_tenant_data() -> DataClass {
    DataClass::Internal
}
