//! The policy as people write it: one serde type per section, nothing validated beyond its shape.
//!
//! `Config` becomes a [`Policy`](crate::policy::Policy) in one step, which checks every reference and value.
//! Unknown fields are errors. `policies/README.md` documents every field for users; the JSON Schema for editors is
//! generated from these types.

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
    /// How a caller proves which tenant it is. API keys by default.
    #[serde(default)]
    pub identity: Identity,
    /// Bounds on what a request may look like.
    #[serde(default)]
    pub request: RequestBounds,
    /// Timers, retries and backoff.
    #[serde(default)]
    pub resilience: Resilience,
    /// The cache of answers; which tasks use it is said there.
    #[serde(default)]
    pub cache: Cache,
    /// The bridge to Redis, where a store of the policy is `redis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// How quotas and budgets are counted.
    #[serde(default)]
    pub quota: Quota,
    /// The task of a request that names none, or whose `model` is `auto`. Without it such a request must name a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_task: Option<String>,
    /// Where models are served. Each name is also the name of an Envoy cluster that the operator owns.
    pub providers: BTreeMap<String, Provider>,
    /// The models that callers may be given, by the name that callers use.
    pub models: BTreeMap<String, Model>,
    /// Kinds of work, each with its chain of models. A task is also a virtual model: `"model": "extract"`.
    #[serde(default)]
    pub tasks: BTreeMap<String, Task>,
    /// Service levels: which models a tenant may use.
    pub tiers: BTreeMap<String, Tier>,
    /// Who may call.
    pub tenants: BTreeMap<String, Tenant>,
}

/// Bounds on a request.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RequestBounds {
    /// Largest request body, in bytes. A larger one is answered with 413.
    pub max_body_bytes: u64,
    /// Deepest nesting of arrays and objects in a request. A deeper one is answered with 400.
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
    /// Statuses of a provider after which the next attempt is made. A connection that fails, a reset and a timeout of an
    /// attempt always lead to it.
    pub retry_on_status: Statuses,
    /// How long an attempt at a stream may take to its first event.
    pub first_token_timeout: Time,
    /// How long an attempt at an answer that is not streamed may take.
    pub attempt_timeout: Time,
    /// How long a stream may be silent between two chunks.
    pub chunk_timeout: Time,
    /// How long a request may take in all. A caller's `x-pointsman-deadline-ms` shortens it.
    pub request_timeout: Time,
    /// The wait before the second attempt; it grows with every attempt, with jitter.
    pub backoff_base: Time,
    /// The longest wait between two attempts.
    pub backoff_max: Time,
    /// The longest `retry-after` of a provider that is waited for, before the same provider is tried again.
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
    /// Name of the cluster.
    pub cluster: String,
    /// How long a command may take; after it the store counts as away.
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
    /// Whether the provider runs on the operator's own machines.
    #[serde(default)]
    pub local: bool,
    /// The most sensitive class of data that the provider may see.
    pub data: DataClass,
    /// Where the provider processes data, for people and for the audit record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Path before `/chat/completions`.
    #[serde(default = "default_base_path")]
    pub base_path: String,
    /// The provider's key: where Envoy finds it, never the key itself.
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
    /// OpenAI chat completions, and the many servers that speak it (vLLM, Ollama's `/v1`, …).
    Openai,
}

/// Where Envoy finds a provider's key, and the header it puts it into. Exactly one of `env`, `file`, `sds`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Header that carries the key, for example `authorization` or `api-key`.
    pub header: String,
    /// Text before the key, for example `"Bearer "`.
    #[serde(default)]
    pub prefix: String,
    /// Environment variable of the Envoy process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// File that holds the key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Path of an Envoy SDS file with a generic secret named like the provider; replaced by rename, it rotates live.
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
    /// The provider's own id of the model, for example `gpt-4.1`.
    pub model: String,
    /// What kind of model it is.
    pub tier: ModelTier,
    /// Context window, in tokens.
    pub context: u64,
    /// Most output tokens a request may ask of it.
    pub max_output_tokens: u64,
    /// Price; without it the model has none and its cost is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Most requests that it serves at a time, over all workers of one Envoy; when it is full, the next model serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    /// What it can do beyond text; all of it if the field is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// The one field of an output limit that the model takes; either if the field is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_param: Option<OutputParam>,
    /// Top-level request fields that the model does not take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported_params: Vec<String>,
    /// Whether a field of `unsupported_params` is dropped; a request that has one is answered with 400 otherwise.
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
    /// The best and dearest.
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
    /// `max_tokens`
    MaxTokens,
    /// `max_completion_tokens`
    MaxCompletionTokens,
}

/// A kind of work.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The model that serves it first.
    pub primary: String,
    /// The models that serve it when the ones before have failed, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
    /// Most output tokens a request of this task may ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// Whether and how answers are kept; without it the task's requests pass the cache by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<TaskCache>,
    /// What is different for this task; a field that is absent is that of `resilience`.
    #[serde(default)]
    pub resilience: TaskResilience,
}

/// Timers and retries of one task.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TaskResilience {
    /// Statuses of a provider after which the next attempt is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_on_status: Option<Statuses>,
    /// How long an attempt at a stream may take to its first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_timeout: Option<Time>,
    /// How long an attempt at an answer that is not streamed may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_timeout: Option<Time>,
    /// How long a request may take in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Time>,
    /// When an attempt times out, start the next one and keep waiting for both: the first answer is taken.
    pub hedge: bool,
}

/// A service level.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// The models that its tenants may use.
    pub models: Vec<String>,
    /// What limits each of its tenants.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// A tenant.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its service level.
    pub tier: String,
    /// Its API keys, as SHA-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// The class of the data it sends, unless a request says that its data is more sensitive.
    #[serde(default = "default_tenant_data")]
    pub data: DataClass,
    /// Raised to forget the answers that the cache keeps for the tenant.
    #[serde(default)]
    pub cache_revision: u64,
    /// What limits it: each field replaces that of its tier.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

fn default_tenant_data() -> DataClass {
    DataClass::Internal
}
