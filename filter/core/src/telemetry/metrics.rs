//! The metrics of one exchange, with their labels and increments.
//!
//! A metric's labels are part of its name (`llm_requests_total|tenant_tier=pro|…`); Envoy's stats tags split them off.
//! Every label value comes from the policy or is one of a few constants, so a caller cannot create an unbounded number
//! of metrics.

use crate::ids::{ModelId, TaskId, TenantId, TierId};
use crate::policy::Policy;

/// One metric with its labels. It is cheap to compare and hash, so its name has to be built only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The fields are the labels.
pub enum Metric {
    /// `llm_requests_total{tenant_tier,task,provider,model,status}`
    Requests { tier: Option<TierId>, task: Option<TaskId>, model: Option<ModelId>, status: u16 },
    /// `llm_latency_ms{task,provider,model}`
    Latency { task: Option<TaskId>, model: ModelId },
    /// `llm_time_to_first_token_ms{task,provider,model}`
    TimeToFirstToken { task: Option<TaskId>, model: ModelId },
    /// `llm_retries_total{provider,task}`: the provider that finally served.
    Retries { task: Option<TaskId>, model: ModelId },
    /// `llm_fallbacks_total{task,from_model,to_model}`
    Fallbacks { task: Option<TaskId>, from: ModelId, to: ModelId },
    /// `llm_provider_errors_total{provider,error_type}`
    ProviderErrors { model: ModelId, error: &'static str },
    /// `llm_provider_refused_gateway_total{provider}`: attempts at which the provider refused the gateway itself.
    ProviderRefusedGateway { model: ModelId },
    /// `llm_not_assembled_total{task,reason}`: whole responses of tasks with `stream_upstream`, not or not for certain
    /// assembled from a stream.
    NotAssembled { task: Option<TaskId>, reason: &'static str },
    /// `llm_cache_hits_total{task,cache_type}`: the store that answered.
    CacheHits { task: Option<TaskId>, cache_type: &'static str },
    /// `llm_cache_misses_total{task,reason}`
    CacheMisses { task: Option<TaskId>, reason: &'static str },
    /// `llm_cache_bypasses_total{task,reason}`
    CacheBypasses { task: Option<TaskId>, reason: &'static str },
    /// `llm_cache_saved_microusd_total{task,cache_type}`
    CacheSaved { task: Option<TaskId>, cache_type: &'static str },
    /// `llm_cache_bytes`: the size of the local store.
    CacheBytes,
    /// `llm_quota_rejections_total{tenant_id,reason}`: the full window.
    QuotaRejections { tenant: TenantId, reason: &'static str },
    /// `llm_quota_shadow_rejections_total{tenant_id,reason}`: requests that only `shadow` let through.
    QuotaShadowed { tenant: TenantId, reason: &'static str },
    /// `llm_quota_degraded_total{tenant_id,reason}`
    QuotaDegraded { tenant: TenantId, reason: &'static str },
    /// `llm_quota_clamped_total{tenant_id,reason}`: requests that got a lower output limit.
    QuotaClamped { tenant: TenantId, reason: &'static str },
    /// `llm_quota_templates_total{tenant_id,reason}`
    QuotaTemplates { tenant: TenantId, reason: &'static str },
    /// `llm_quota_alerts_total{tenant_id,window,share}`: share in thousandths.
    QuotaAlerts { tenant: TenantId, window: &'static str, share: u64 },
    /// `llm_quota_users_evicted_total{tenant_id}`: users whose counters made room for another user's.
    QuotaUsersEvicted { tenant: TenantId },
    /// `llm_quota_remaining{tenant_id,window}`: remaining tokens or micro-USD.
    QuotaRemaining { tenant: TenantId, window: &'static str },
    /// `llm_input_tokens_total{tenant_id,task,model}`
    InputTokens { tenant: TenantId, task: Option<TaskId>, model: ModelId },
    /// `llm_output_tokens_total{tenant_id,task,model}`
    OutputTokens { tenant: TenantId, task: Option<TaskId>, model: ModelId },
    /// `llm_estimated_cost_microusd_total{tenant_id,task,model}`: Envoy's counters are integers.
    Cost { tenant: TenantId, task: Option<TaskId>, model: ModelId },
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Adds values up.
    Counter,
    /// Records every value.
    Histogram,
    /// Holds the last value.
    Gauge,
}

/// Every label name, for the stats tags of Envoy's configuration.
pub const LABELS: [&str; 13] = [
    "tenant_tier",
    "tenant_id",
    "task",
    "provider",
    "model",
    "status",
    "from_model",
    "to_model",
    "error_type",
    "reason",
    "window",
    "share",
    "cache_type",
];

impl Metric {
    /// Returns its kind.
    pub fn kind(&self) -> MetricKind {
        match self {
            Self::Latency { .. } | Self::TimeToFirstToken { .. } => MetricKind::Histogram,
            Self::QuotaRemaining { .. } | Self::CacheBytes => MetricKind::Gauge,
            _ => MetricKind::Counter,
        }
    }

    /// Returns its name with its labels.
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
            Self::ProviderRefusedGateway { model: m } => {
                format!("llm_provider_refused_gateway_total|provider={}", provider(m))
            }
            Self::NotAssembled { task: t, reason } => {
                format!("llm_not_assembled_total|task={}|reason={reason}", task(t))
            }
            Self::CacheHits { task: t, cache_type } => {
                format!("llm_cache_hits_total|task={}|cache_type={cache_type}", task(t))
            }
            Self::CacheMisses { task: t, reason } => format!("llm_cache_misses_total|task={}|reason={reason}", task(t)),
            Self::CacheBypasses { task: t, reason } => {
                format!("llm_cache_bypasses_total|task={}|reason={reason}", task(t))
            }
            Self::CacheSaved { task: t, cache_type } => {
                format!("llm_cache_saved_microusd_total|task={}|cache_type={cache_type}", task(t))
            }
            Self::CacheBytes => "llm_cache_bytes".to_owned(),
            Self::QuotaRejections { tenant: id, reason } => {
                format!("llm_quota_rejections_total|tenant_id={}|reason={reason}", tenant(id))
            }
            Self::QuotaShadowed { tenant: id, reason } => {
                format!("llm_quota_shadow_rejections_total|tenant_id={}|reason={reason}", tenant(id))
            }
            Self::QuotaDegraded { tenant: id, reason } => {
                format!("llm_quota_degraded_total|tenant_id={}|reason={reason}", tenant(id))
            }
            Self::QuotaClamped { tenant: id, reason } => {
                format!("llm_quota_clamped_total|tenant_id={}|reason={reason}", tenant(id))
            }
            Self::QuotaTemplates { tenant: id, reason } => {
                format!("llm_quota_templates_total|tenant_id={}|reason={reason}", tenant(id))
            }
            Self::QuotaAlerts { tenant: id, window, share } => {
                format!("llm_quota_alerts_total|tenant_id={}|window={window}|share={share}", tenant(id))
            }
            Self::QuotaUsersEvicted { tenant: id } => format!("llm_quota_users_evicted_total|tenant_id={}", tenant(id)),
            Self::QuotaRemaining { tenant: id, window } => {
                format!("llm_quota_remaining|tenant_id={}|window={window}", tenant(id))
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
