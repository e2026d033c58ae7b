//! The price of a model, as people write it.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// Price in US dollars per million tokens, with up to six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
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
}
