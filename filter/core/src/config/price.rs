//! The price of a model, as people write it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// Price in US dollars per million tokens, with up to six decimals.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Price of input tokens.
    pub input: f64,
    /// Price of input tokens that the provider read from its own prompt cache. Default: the `input` price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<f64>,
    /// Price of input tokens that the provider wrote into its own prompt cache. Default: the `input` price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
    /// Price of output tokens.
    pub output: f64,
    /// Price of input tokens that are audio. If a budget applies, a request with audio needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_input: Option<f64>,
    /// Price of output tokens that are audio. If a budget applies, a request for audio output needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_output: Option<f64>,
    /// Price of 1,000 requests that search the web, in addition to their tokens. If a budget applies, such a request
    /// needs it, or is sent without the field that asks for the search if the model has `drop_params`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_search: Option<f64>,
    /// Prices of the provider's other service tiers, such as `priority` and `flex`, by the name that requests and
    /// responses have in `service_tier`. A response that names another tier costs the highest of all these prices. If a
    /// budget applies, a request for a tier without a price is refused, or sent without `service_tier` if the model has
    /// `drop_params`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<String, TierPrice>,
}

/// Price of a service tier in US dollars per million tokens, with up to six decimals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TierPrice {
    /// Price of input tokens.
    pub input: f64,
    /// Price of input tokens that the provider read from its own prompt cache. Default: this tier's `input` price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<f64>,
    /// Price of input tokens that the provider wrote into its own prompt cache. Default: this tier's `input` price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
    /// Price of output tokens.
    pub output: f64,
    /// Price of input tokens that are audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_input: Option<f64>,
    /// Price of output tokens that are audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_output: Option<f64>,
}
