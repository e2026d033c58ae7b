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
    /// Where days and months begin: `UTC`, a fixed offset like `+07:00`, or an IANA name like `Europe/Berlin`.
    pub time_zone: String,
    /// Changes of an IANA zone's offset, as `[seconds since 1970, offset in seconds]`; `pointsman` fills this in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub time_zone_changes: Vec<(i64, i32)>,
    /// Where counters are kept.
    pub store: StoreKind,
    /// What happens to requests while Redis is away.
    pub failure_mode: FailureMode,
    /// The price of models that have none. Without it, a model without a price is refused where a budget applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_price: Option<Price>,
    /// Users that are counted apart in each tenant whose users have limits.
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
    /// In Redis: for many Envoys, and beyond their end.
    Redis,
}

/// What happens to requests while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureMode {
    /// They are answered with 503.
    Deny,
    /// They pass, and are charged when Redis is back.
    Allow,
    /// They are counted in Envoy's shared data against the same limits, and charged when Redis is back.
    Local,
}
