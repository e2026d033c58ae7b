//! The policy as people write it: one serde type per section, nothing validated beyond its shape.
//!
//! `Config` becomes a [`Policy`](crate::policy::Policy) in one step, which checks every reference and value.
//! Unknown fields are errors. Users read the doc comments: the JSON Schema for editors and the tables of
//! `docs/src/reference/policy.md` are generated from these types.

use crate::config::problem::quoted;
use serde::de::{self, Deserializer};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(feature = "schema")]
use schemars::JsonSchema;

mod cache;
mod data_class;
mod identity;
mod limits;
mod price;
pub mod problem;
mod quota;
mod time;

pub use cache::{Cache, CacheRequests, CacheScope, CacheStore, TaskCache};
pub use data_class::DataClass;
pub use identity::{Identity, Key};
pub use limits::{Limits, OnExhausted};
pub use price::Price;
pub use quota::{FailureMode, Quota, StoreKind};
pub use time::Time;

/// One policy document.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How a caller proves which tenant it is; API keys by default.
    #[serde(default)]
    pub identity: Identity,
    /// Bounds on a request.
    #[serde(default)]
    pub request: RequestBounds,
    /// Timers, retries and backoff.
    #[serde(default)]
    pub resilience: Resilience,
    /// The cache of answers, for all tasks that use it.
    #[serde(default)]
    pub cache: Cache,
    /// The bridge to Redis; needed where a store is `redis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// How quotas and budgets are counted.
    #[serde(default)]
    pub quota: Quota,
    /// The task of a request that names no model, or the model `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_task: Option<String>,
    /// Where models are served. Each name is also the name of an Envoy cluster that you own.
    pub providers: BTreeMap<String, Provider>,
    /// The models that callers may get, by the name that callers use.
    pub models: BTreeMap<String, Model>,
    /// Kinds of work, each with its chain of models. A task is also a virtual model: `"model": "extract"`.
    #[serde(default)]
    pub tasks: BTreeMap<String, Task>,
    /// Service levels: models and limits.
    pub tiers: BTreeMap<String, Tier>,
    /// Who may call.
    pub tenants: BTreeMap<String, Tenant>,
}

/// Bounds on a request.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RequestBounds {
    /// Largest request body, 1024 to 134217728 bytes (128 MiB). A larger one gets 413.
    pub max_body_bytes: u64,
    /// Deepest nesting of arrays and objects, 4 to 256. A deeper body gets 400.
    pub max_nesting: u32,
    /// Whether a request without an output limit gets the model's or task's `max_output_tokens`.
    pub set_output_limit: bool,
}

impl Default for RequestBounds {
    fn default() -> Self {
        Self { max_body_bytes: 32 << 20, max_nesting: 64, set_output_limit: false }
    }
}

/// Timers, retries and backoff. Times are written like `250ms`, `30s` or `10m`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Resilience {
    /// Provider statuses that lead to the next attempt; `5xx` means 500 to 599. If the list has any entry, a body
    /// that is no answer leads to the next attempt too. 400, 401, 403, 404, 413 and 422 are not allowed.
    pub retry_on_status: Statuses,
    /// How long an attempt at a stream may take to its first event.
    pub first_token_timeout: Time,
    /// How long an attempt at an answer that is not streamed may take.
    pub attempt_timeout: Time,
    /// How long a stream may be silent between two chunks.
    pub chunk_timeout: Time,
    /// How long a request may take in all, its attempts and its stream included. A caller's `x-pointsman-deadline-ms`
    /// shortens it.
    pub request_timeout: Time,
    /// The wait before the second attempt; it grows with each attempt, with jitter.
    pub backoff_base: Time,
    /// The longest wait between two attempts.
    pub backoff_max: Time,
    /// The longest `retry-after` that Envoy waits for before it tries the same provider again.
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

/// HTTP statuses: numbers, and `5xx` for all from 500 to 599.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statuses {
    /// Those that are named one by one.
    pub listed: Vec<u16>,
    /// Whether `5xx` is among them.
    pub all_5xx: bool,
}

/// One of [`Statuses`].
enum Status {
    One(u16),
    All5xx,
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Status;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a status like 503, or 5xx")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Status, E> {
                let wrong = || de::Error::custom(format!("{number} is not a status like 503, or 5xx"));
                u16::try_from(number).ok().filter(|status| *status < 1000).map(Status::One).ok_or_else(wrong)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Status, E> {
                let wrong = || de::Error::custom(format!("{} is not a status like 503, or 5xx", quoted(text)));
                if text == "5xx" { Ok(Status::All5xx) } else { Err(wrong()) }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::default();
        for status in Vec::<Status>::deserialize(deserializer)? {
            match status {
                Status::One(status) => all.listed.push(status),
                Status::All5xx => all.all_5xx = true,
            }
        }
        Ok(all)
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_seq(None)?;
        self.listed.iter().try_for_each(|status| all.serialize_element(status))?;
        if self.all_5xx {
            all.serialize_element("5xx")?;
        }
        all.end()
    }
}

#[cfg(feature = "schema")]
impl JsonSchema for Statuses {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Statuses".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "HTTP statuses: numbers, and 5xx for all from 500 to 599.",
            "type": "array",
            "items": {"anyOf": [{"type": "integer", "minimum": 408, "maximum": 599}, {"const": "5xx"}]}
        })
    }
}

/// An HTTP bridge to Redis (webdis), as an Envoy cluster that the operator owns.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Envoy cluster of the bridge: a file in the providers' folder.
    pub cluster: String,
    /// How long a command may take, 1ms to 10s; then Redis counts as away.
    pub timeout: Time,
}

impl Default for Redis {
    fn default() -> Self {
        Self { cluster: "redis".to_owned(), timeout: Time(50) }
    }
}

/// A place that serves models.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Wire protocol of the provider.
    pub dialect: Dialect,
    /// Whether it runs on your own machines.
    #[serde(default)]
    pub local: bool,
    /// The most sensitive class of data that it may see.
    pub data: DataClass,
    /// Where it processes data, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Path before `/chat/completions`. It starts with `/`, does not end with `/`, and may be empty.
    #[serde(default = "default_base_path")]
    pub base_path: String,
    /// Where Envoy finds the provider's key; never the key itself.
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
    /// OpenAI chat completions, which vLLM, Ollama and many other servers speak too.
    Openai,
}

/// Where Envoy finds a provider's key, and the header it puts it into. Exactly one of `env`, `file`, `sds`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Header that carries the key: `authorization`, `api-key`, …
    pub header: String,
    /// Text before the key: `"Bearer "` with its space. Printable ASCII without `%`.
    #[serde(default)]
    pub prefix: String,
    /// Environment variable of the Envoy process that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// Absolute path of a file that holds the key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Absolute path of an Envoy SDS file with a generic secret named like the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sds: Option<String>,
}

/// A model that a provider serves.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name of the provider that serves it.
    pub provider: String,
    /// The provider's own id of the model, 1 to 256 characters, for example `gpt-4.1`. Callers need not know it.
    pub model: String,
    /// What kind of model it is.
    pub tier: ModelTier,
    /// Context window, 1 to 100000000 tokens. Messages that are certainly longer leave the model out.
    pub context: u64,
    /// Most output tokens of a request, 1 to 100000000. A caller who asks for more gets this.
    pub max_output_tokens: u64,
    /// US dollars per million tokens; without it the cost of the model is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Most requests that it serves at a time, at least 1, over all workers of one Envoy. When it is full, the next
    /// model serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    /// What it can do beyond text: all of it if the field is absent, nothing if the list is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// The one output limit that the model takes; the other is renamed. Without it the model takes both, and a quota
    /// reserves the larger of two that a caller sends, or the model's own limit where the caller sends only
    /// `max_completion_tokens`, which a server may not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_param: Option<OutputParam>,
    /// Top-level request fields that the model does not take. Not allowed: `model`, `messages`, `stream`,
    /// `stream_options`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported_params: Vec<String>,
    /// Whether the model serves a request with such a field, without the field. Otherwise the model leaves the plan.
    #[serde(default)]
    pub drop_params: bool,
}

/// What kind of model a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ModelTier {
    /// Small and near.
    Local,
    /// Hosted, moderately priced.
    Mid,
    /// The best and most expensive.
    Flagship,
}

/// Something that not every model can do.
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
}

/// The request field that limits a model's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OutputParam {
    /// The older name, which most servers know.
    MaxTokens,
    /// OpenAI's newer name.
    MaxCompletionTokens,
}

/// A kind of work.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The model that serves it first.
    pub primary: String,
    /// Up to 7 models that serve it, in order, when those before failed or may not be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
    /// Most output tokens of a request of this task, 1 to 100000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// Whether and how answers are kept; without it the task's requests bypass the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<TaskCache>,
    /// Timers and retries of this task.
    #[serde(default)]
    pub resilience: TaskResilience,
}

/// Timers and retries of one task.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TaskResilience {
    /// Replaces that of `resilience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_on_status: Option<Statuses>,
    /// Replaces that of `resilience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_timeout: Option<Time>,
    /// Replaces that of `resilience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_timeout: Option<Time>,
    /// Replaces that of `resilience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Time>,
    /// When an attempt times out, start the next one and wait for both; the first answer is taken.
    pub hedge: bool,
}

/// A service level.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// The models that its tenants may use, at least one.
    pub models: Vec<String>,
    /// Limits of each of its tenants.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// A tenant.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Name of its tier.
    pub tier: String,
    /// Its API keys, as SHA-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// The class of the data that it sends, unless a request raises it.
    #[serde(default = "default_tenant_data")]
    pub data: DataClass,
    /// Raise it to forget the tenant's cached answers.
    #[serde(default)]
    pub cache_revision: u64,
    /// Its limits; each one given replaces that of its tier.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

fn default_tenant_data() -> DataClass {
    DataClass::Internal
}
