//! Limits as people write them: the same set for a tier, a tenant, a user and a model.

use crate::config::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// Limits of a tier or a tenant, of each of its users, or of its use of one model. The fields from `per_user` on are
/// allowed only in the limits of a tier or a tenant.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests per minute, 1 to 100000000000, as a token bucket that refills continuously: 6 per minute is one every
    /// 10 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Input and output tokens per minute, as such a bucket. Reserved tokens drain only after settlement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// How much of the per-minute limits may be used in one burst, given as the time in which it refills: 1ms to 1h.
    /// The default, `60s`, allows a full minute's worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Time>,
    /// Input and output tokens per calendar day, 1 to 100000000000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// US dollars per calendar day, with up to six decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_usd_per_day: Option<f64>,
    /// US dollars per calendar month, with up to six decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_usd_per_month: Option<f64>,
    /// Concurrent requests, 1 to 4294967295.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// Maximum estimated input tokens per request. A longer request gets 400 (`context_length_exceeded`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_input_tokens: Option<u64>,
    /// Maximum output tokens per request. A larger limit in a request is lowered to this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// Limits of each user of a tenant, in addition to the tenant's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_user: Option<Box<Limits>>,
    /// Limits of individual users, by user id. Each overrides the same limit in `per_user`. Only allowed for a tenant.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, Limits>,
    /// Limits of a tenant's use of individual models, in addition to the tenant's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub per_model: BTreeMap<String, Limits>,
    /// What happens when a daily or monthly window is full; `reject` by default. Rate limits always reject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<OnExhausted>,
    /// The share of such a window, 0.001 to 1, from which the `degrade` model serves requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degrade_at: Option<f64>,
    /// Up to 8 shares of such a window at which an alert is reported, once per window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_at: Option<Vec<f64>>,
    /// What happens to a request that would fit a window of tokens or money with a lower output limit. By default,
    /// `on_exhausted` decides (`refuse`); `clamp` comes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_tight: Option<OnTight>,
    /// The lowest output limit that `on_tight: clamp` may set, 1 to 100000000000; 256 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_output_tokens: Option<u64>,
    /// Shadow mode: enforce nothing, but count and report what would have been rejected or shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<bool>,
}

/// What happens to a request when a quota is exhausted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// The request gets 429.
    #[default]
    Reject,
    /// The model of this name serves the request.
    Degrade(String),
    /// The response is this text.
    Template(String),
}

/// What happens to a request that would fit a window with a lower output limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnTight {
    /// `on_exhausted` decides, as for any other request.
    #[default]
    Refuse,
    /// The request gets the highest output limit that fits. The response has it in `x-pointsman-output-limit`.
    Clamp,
}

impl Limits {
    /// These limits, and those of `general` where these have none: a tenant's and its tier's, a user's and those of all
    /// users.
    pub fn or(&self, general: &Self) -> Self {
        let mut per_model = general.per_model.clone();
        for (model, limits) in &self.per_model {
            let merged = per_model.get(model).map_or_else(|| limits.clone(), |general| limits.or(general));
            per_model.insert(model.clone(), merged);
        }
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
            per_user: match (&self.per_user, &general.per_user) {
                (Some(own), Some(general)) => Some(Box::new(own.or(general))),
                (own, general) => own.as_ref().or(general.as_ref()).cloned(),
            },
            users: self.users.clone(),
            per_model,
            on_exhausted: self.on_exhausted.clone().or_else(|| general.on_exhausted.clone()),
            // It belongs to the model that takes over, and goes with it.
            degrade_at: match &self.on_exhausted {
                None | Some(OnExhausted::Degrade(_)) => self.degrade_at.or(general.degrade_at),
                Some(OnExhausted::Reject | OnExhausted::Template(_)) => self.degrade_at,
            },
            on_tight: self.on_tight.or(general.on_tight),
            // It belongs to the clamp, and goes with it.
            min_output_tokens: match self.on_tight {
                None | Some(OnTight::Clamp) => self.min_output_tokens.or(general.min_output_tokens),
                Some(OnTight::Refuse) => self.min_output_tokens,
            },
            alert_at: self.alert_at.clone().or_else(|| general.alert_at.clone()),
            shadow: self.shadow.or(general.shadow),
        }
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether money is limited.
    pub fn has_budget(&self) -> bool {
        self.budget_usd_per_day.is_some() || self.budget_usd_per_month.is_some()
    }
}
