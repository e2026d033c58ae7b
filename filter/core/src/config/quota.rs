//! How quotas and budgets are counted, as people write it.

use crate::config::price::Price;
use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// How quotas are counted, for the whole policy.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Where days and months begin: `UTC`, an offset like `+07:00`, or an IANA name like `Europe/Berlin`.
    pub time_zone: String,
    /// Changes of an IANA zone's offset, as `[seconds since 1970, offset in seconds]`. Leave it out: `pointsman`
    /// fills it in for the module.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub time_zone_changes: Vec<(i64, i32)>,
    /// Where counters are kept.
    pub store: StoreKind,
    /// What happens to requests while Redis is away.
    pub failure_mode: FailureMode,
    /// The price of models that have none. Without it, a budget over such a model is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_price: Option<Price>,
    /// Users that are counted apart in each tenant whose users have limits, 16 to 65536; only of the local store.
    pub users: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            time_zone: "UTC".to_owned(),
            time_zone_changes: Vec::new(),
            store: StoreKind::Local,
            failure_mode: FailureMode::Deny,
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
    /// In Envoy's shared data: for all workers of one Envoy, until it ends.
    Local,
    /// In Redis: for many Envoys, and across restarts.
    Redis,
}

/// What happens to requests while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureMode {
    /// Requests of tenants with limits get 503.
    Deny,
    /// Requests pass, and are charged when Redis is back.
    Allow,
    /// Each Envoy applies the same limits by local counters, and charges Redis when it is back.
    Local,
}
