//! The metrics of one exchange: which, with which labels, by how much.
//!
//! A metric's labels are part of its name (`llm_requests_total|tier=pro|…`); Envoy's stats tags take them apart. Every
//! label value comes from the policy or is one of a few constants, so that no caller can create metrics without bound.

use crate::policy::{ModelId, Policy, TaskId, TenantId, TierId};

/// One metric with its labels, cheap to compare and hash, so that its name is built once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The fields are the labels.
pub enum Metric {
    /// `llm_requests_total{tenant_tier,task,provider,model,status}`
    Requests { tier: Option<TierId>, task: Option<TaskId>, model: Option<ModelId>, status: u16 },
    /// `llm_latency_ms{task,provider,model}`
    Latency { task: Option<TaskId>, model: ModelId },
    /// `llm_time_to_first_token_ms{task,provider,model}`
    TimeToFirstToken { task: Option<TaskId>, model: ModelId },
    /// `llm_retries_total{provider,task}`: the provider that served in the end.
    Retries { task: Option<TaskId>, model: ModelId },
    /// `llm_fallbacks_total{task,from_model,to_model}`
    Fallbacks { task: Option<TaskId>, from: ModelId, to: ModelId },
    /// `llm_provider_errors_total{provider,error_type}`
    ProviderErrors { model: ModelId, error: &'static str },
    /// `llm_input_tokens_total{tenant_id,task,model}`
    InputTokens { tenant: TenantId, task: Option<TaskId>, model: ModelId },
    /// `llm_output_tokens_total{tenant_id,task,model}`
    OutputTokens { tenant: TenantId, task: Option<TaskId>, model: ModelId },
    /// `llm_estimated_cost_microusd_total{tenant_id,task,model}`: Envoy's counters are integers.
    Cost { tenant: TenantId, task: Option<TaskId>, model: ModelId },
}

/// How a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Adds up.
    Counter,
    /// Records a value.
    Histogram,
}

/// Every label name, for the stats tags of Envoy's configuration.
pub const LABELS: [&str; 9] =
    ["tenant_tier", "tenant_id", "task", "provider", "model", "status", "from_model", "to_model", "error_type"];

impl Metric {
    /// How it counts.
    pub fn kind(&self) -> MetricKind {
        match self {
            Self::Latency { .. } | Self::TimeToFirstToken { .. } => MetricKind::Histogram,
            _ => MetricKind::Counter,
        }
    }

    /// Its name with its labels.
    pub fn name(&self, policy: &Policy) -> String {
        let task = |id: Option<TaskId>| id.map_or("none", |id| &policy.task(id).name);
        let model = |id: ModelId| &*policy.model(id).name;
        let provider = |id: ModelId| &*policy.provider_of(id).name;
        let tenant = |id: TenantId| &*policy.tenant(id).name;
        match *self {
            Self::Requests { tier, task: t, model: m, status } => format!(
                "llm_requests_total|tenant_tier={}|task={}|provider={}|model={}|status={status}",
                tier.map_or("none", |id| &policy.tier(id).name),
                task(t),
                m.map_or("none", provider),
                m.map_or("none", model),
            ),
            Self::Latency { task: t, model: m } => {
                format!("llm_latency_ms|task={}|provider={}|model={}", task(t), provider(m), model(m))
            }
            Self::TimeToFirstToken { task: t, model: m } => {
                format!("llm_time_to_first_token_ms|task={}|provider={}|model={}", task(t), provider(m), model(m))
            }
            Self::Retries { task: t, model: m } => {
                format!("llm_retries_total|provider={}|task={}", provider(m), task(t))
            }
            Self::Fallbacks { task: t, from, to } => {
                format!("llm_fallbacks_total|task={}|from_model={}|to_model={}", task(t), model(from), model(to))
            }
            Self::ProviderErrors { model: m, error } => {
                format!("llm_provider_errors_total|provider={}|error_type={error}", provider(m))
            }
            Self::InputTokens { tenant: id, task: t, model: m } => {
                format!("llm_input_tokens_total|tenant_id={}|task={}|model={}", tenant(id), task(t), model(m))
            }
            Self::OutputTokens { tenant: id, task: t, model: m } => {
                format!("llm_output_tokens_total|tenant_id={}|task={}|model={}", tenant(id), task(t), model(m))
            }
            Self::Cost { tenant: id, task: t, model: m } => {
                format!(
                    "llm_estimated_cost_microusd_total|tenant_id={}|task={}|model={}",
                    tenant(id),
                    task(t),
                    model(m)
                )
            }
        }
    }
}
