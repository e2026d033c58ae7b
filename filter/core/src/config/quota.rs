//! How quotas and budgets are counted, as people write it.

use crate::config::price::Price;
use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// How quotas and budgets are counted.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// The time zone in which days and months begin: `UTC`, an offset like `+07:00`, or an IANA name like
    /// `Europe/Berlin`.
    pub time_zone: String,
    /// Offset changes of an IANA zone, as `[seconds since 1970, offset in seconds]`. Omit it: `pointsman` fills it in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub time_zone_changes: Vec<(i64, i32)>,
    /// Where counters are kept.
    pub store: StoreKind,
    /// What happens to requests while Redis is unavailable.
    pub failure_mode: FailureMode,
    /// What is charged for an attempt that is abandoned before anything of its answer is seen: its caller leaves, or a
    /// timeout or a deadline passes.
    pub abandoned: Abandoned,
    /// The price of models that set none. If absent, a budget that covers such a model is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_price: Option<Price>,
    /// The number of active users per tenant that the local store has room for, where users have limits: 16 to 65536.
    /// If there are more, the counters of those who used the least begin anew.
    pub users: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            time_zone: "UTC".to_owned(),
            time_zone_changes: Vec::new(),
            store: StoreKind::Local,
            failure_mode: FailureMode::Deny,
            abandoned: Abandoned::Elapsed,
            default_price: None,
            users: 1024,
        }
    }
}

/// Where counters are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// In Envoy's shared data: shared by all workers of one Envoy, lost when it stops.
    Local,
    /// In Redis: shared by many Envoys, kept across restarts.
    Redis,
}

/// What happens to requests while Redis is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureMode {
    /// Requests of tenants with limits get 503.
    Deny,
    /// Requests pass without limits and are charged once Redis is back.
    Allow,
    /// Each Envoy applies the same limits with local counters and charges Redis once it is back.
    Local,
}

/// What is charged for an attempt that is abandoned before anything of its answer is seen. The provider may have worked
/// on it all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Abandoned {
    /// What was reserved for its model. A plan reserves the sum of its models, so no window is passed.
    WorstCase,
    /// The prompt, and the output that its model makes in the time that passed, at the rate measured for that model.
    Elapsed,
    /// The prompt, and only if the caller left or its own deadline passed. A timed-out attempt costs nothing.
    Prompt,
}
