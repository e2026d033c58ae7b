//! Quotas and budgets as people write them: limits of tiers, tenants, users and models, and how they are counted.

use crate::config::price::Price;
use crate::config::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// Limits of each user of a tenant, or of one model's use by a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LimitSet {
    /// Requests per minute, by a bucket that refills smoothly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Input and output tokens per minute, by a bucket that refills smoothly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// How much of the minute limits may be used at once, as the time in which it refills: `60s` is the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Time>,
    /// Input and output tokens per calendar day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// US dollars per calendar day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_usd_per_day: Option<f64>,
    /// US dollars per calendar month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_usd_per_month: Option<f64>,
    /// Requests at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// Input tokens of one request, by estimate. A longer request is answered with 400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_input_tokens: Option<u64>,
    /// Output tokens of one request. A caller who asks for more is given this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
}

impl LimitSet {
    /// These limits, and those of `general` where these have none.
    pub fn or(&self, general: &Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(general.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(general.tokens_per_minute),
            burst: self.burst.or(general.burst),
            tokens_per_day: self.tokens_per_day.or(general.tokens_per_day),
            budget_usd_per_day: self.budget_usd_per_day.or(general.budget_usd_per_day),
            budget_usd_per_month: self.budget_usd_per_month.or(general.budget_usd_per_month),
            concurrent: self.concurrent.or(general.concurrent),
            max_input_tokens: self.max_input_tokens.or(general.max_input_tokens),
            max_output_tokens: self.max_output_tokens.or(general.max_output_tokens),
        }
    }
}

/// What happens to a request when a quota is used up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// It is answered with 429.
    #[default]
    Reject,
    /// This model serves it instead.
    Degrade(String),
    /// It is answered with this text.
    Template(String),
}

/// Everything that a tier or a tenant says of its quota.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limited {
    /// Its own limits.
    pub own: LimitSet,
    /// Those of each of its users.
    pub per_user: LimitSet,
    /// Those of single users, by their id.
    pub users: BTreeMap<String, LimitSet>,
    /// Those of its use of single models.
    pub per_model: BTreeMap<String, LimitSet>,
    /// What happens when a quota is used up.
    pub on_exhausted: Option<OnExhausted>,
    /// Share of a day's or month's quota from which the degraded model serves.
    pub degrade_at: Option<f64>,
    /// Shares of a budget at which it is reported, once in each window.
    pub alert_at: Option<Vec<f64>>,
    /// Whether nothing is refused, only reported.
    pub shadow: Option<bool>,
}

impl Limited {
    /// What a tenant says, and its tier's word where it says nothing.
    pub fn or(&self, tier: &Self) -> Self {
        let mut per_model = tier.per_model.clone();
        for (model, limits) in &self.per_model {
            let general = per_model.get(model).copied().unwrap_or_default();
            per_model.insert(model.clone(), limits.or(&general));
        }
        Self {
            own: self.own.or(&tier.own),
            per_user: self.per_user.or(&tier.per_user),
            users: self.users.clone(),
            per_model,
            on_exhausted: self.on_exhausted.clone().or_else(|| tier.on_exhausted.clone()),
            // It is of the model that takes over, and goes with it.
            degrade_at: match &self.on_exhausted {
                None | Some(OnExhausted::Degrade(_)) => self.degrade_at.or(tier.degrade_at),
                Some(OnExhausted::Reject | OnExhausted::Template(_)) => self.degrade_at,
            },
            alert_at: self.alert_at.clone().or_else(|| tier.alert_at.clone()),
            shadow: self.shadow.or(tier.shadow),
        }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A section with fields of its own, and all those of [`Limited`] beside them.
macro_rules! limited_section {
    ($(#[$meta:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        pub struct $name {
            $($own)*
            /// Requests per minute, by a bucket that refills smoothly.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub requests_per_minute: Option<u64>,
            /// Input and output tokens per minute, by a bucket that refills smoothly.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub tokens_per_minute: Option<u64>,
            /// How much of the minute limits may be used at once, as the time in which it refills: `60s` is the whole.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub burst: Option<Time>,
            /// Input and output tokens per calendar day.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub tokens_per_day: Option<u64>,
            /// US dollars per calendar day.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub budget_usd_per_day: Option<f64>,
            /// US dollars per calendar month.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub budget_usd_per_month: Option<f64>,
            /// Requests at a time.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub concurrent: Option<u32>,
            /// Input tokens of one request, by estimate. A longer request is answered with 400.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub max_input_tokens: Option<u64>,
            /// Output tokens of one request. A caller who asks for more is given this.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub max_output_tokens: Option<u64>,
            /// Limits of each user of a tenant.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub per_user: Option<Box<LimitSet>>,
            /// Limits of a tenant's use of single models, by the model's name.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            pub per_model: BTreeMap<String, LimitSet>,
            /// What happens when a quota of a day or a month is used up. Limits of rates always refuse.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub on_exhausted: Option<OnExhausted>,
            /// Share of a day's or month's quota from which the model of `degrade` serves.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub degrade_at: Option<f64>,
            /// Shares of a day's or month's quota at which it is reported, once in each window.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub alert_at: Option<Vec<f64>>,
            /// Whether nothing is refused: what would have been is counted and reported.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub shadow: Option<bool>,
        }

        impl $name {
            /// What it says of quotas.
            pub fn limited(&self) -> Limited {
                Limited {
                    own: LimitSet {
                        requests_per_minute: self.requests_per_minute,
                        tokens_per_minute: self.tokens_per_minute,
                        burst: self.burst,
                        tokens_per_day: self.tokens_per_day,
                        budget_usd_per_day: self.budget_usd_per_day,
                        budget_usd_per_month: self.budget_usd_per_month,
                        concurrent: self.concurrent,
                        max_input_tokens: self.max_input_tokens,
                        max_output_tokens: self.max_output_tokens,
                    },
                    per_user: self.per_user.as_deref().copied().unwrap_or_default(),
                    users: BTreeMap::new(),
                    per_model: self.per_model.clone(),
                    on_exhausted: self.on_exhausted.clone(),
                    degrade_at: self.degrade_at,
                    alert_at: self.alert_at.clone(),
                    shadow: self.shadow,
                }
            }
        }
    };
}
pub(super) use limited_section;
