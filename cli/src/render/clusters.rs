//! The plan clusters: one per sequence of providers that a request may try.

use super::settings::Settings;
use super::{access_log, credential, wasm};
use pointsman_core::policy::clusters::ProviderSequence;
use pointsman_core::policy::{Policy, Provider};
use pointsman_core::routing::dispatch::direct_cluster;
use serde_json::{Value, json};

/// Returns the cluster of one plan.
pub fn plan(settings: &Settings, policy: &Policy, plan: &ProviderSequence) -> Value {
    let providers: Vec<&Provider> = plan.providers(policy).collect();
    let mut http_filters = vec![wasm::model_stage(settings)];
    http_filters.extend(credential::filters(settings, &providers));
    cluster(settings, &plan.cluster(policy), &providers, http_filters)
}

/// Returns the cluster for requests to one provider that have one attempt and are not streams. It runs no module, which
/// would have nothing to decide, and only adds the provider's key. A provider without a key needs no such cluster:
/// these requests go to its own cluster, to which [`as_direct`] adds the same filters.
pub fn direct(settings: &Settings, provider: &Provider) -> Value {
    let mut http_filters = vec![access_log::honest_attempt()];
    http_filters.extend(credential::filters(settings, &[provider]));
    cluster(settings, &direct_cluster(provider), &[provider], http_filters)
}

/// Adds the direct filters to the cluster of a provider without a key, for requests that reach it without a plan. The
/// filters do not run when the cluster is a member of a plan.
pub fn as_direct(mut provider: Value) -> Value {
    let all = &mut provider["typed_extension_protocol_options"];
    if all.get(HTTP_OPTIONS).is_none() {
        all[HTTP_OPTIONS] = json!({"@type": HTTP_OPTIONS_TYPE, "explicit_http_config": {"http_protocol_options": {}}});
    }
    all[HTTP_OPTIONS]["http_filters"] = json!([access_log::honest_attempt(), codec()]);
    provider
}

fn cluster(settings: &Settings, name: &str, providers: &[&Provider], mut http_filters: Vec<Value>) -> Value {
    http_filters.push(codec());
    json!({
        // Envoy would cut a name at its dot in the metric label.
        "alt_stat_name": name.replace('.', "_"),
        "name": name,
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": members(settings, providers),
        // Envoy counts requests and connections at the provider's cluster, where the operator limits them, but counts
        // retries here. Its default of 3 at a time would make fallbacks fail just when many are needed.
        "circuit_breakers": {"thresholds": [{
            "max_connections": UNLIMITED, "max_pending_requests": UNLIMITED, "max_requests": UNLIMITED,
            "max_retries": UNLIMITED,
        }]},
        "typed_extension_protocol_options": {HTTP_OPTIONS: {
            "@type": HTTP_OPTIONS_TYPE,
            // Envoy's validation requires it. Each request uses the protocol of its provider's cluster.
            "explicit_http_config": {"http_protocol_options": {}},
            "http_filters": http_filters,
        }},
    })
}

/// The codec filter, which must come last.
fn codec() -> Value {
    json!({
        "name": "envoy.filters.http.upstream_codec",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
    })
}

/// The key of a cluster's HTTP options.
pub const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const HTTP_OPTIONS_TYPE: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

const UNLIMITED: u32 = 1_000_000;

fn members(settings: &Settings, providers: &[&Provider]) -> Value {
    if settings.has_composite_cluster() {
        let clusters: Vec<_> = providers.iter().map(|p| json!({"name": *p.name})).collect();
        return json!({
            "name": "envoy.clusters.composite",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.composite.v3.ClusterConfig",
                "clusters": clusters,
            },
        });
    }
    // The members of an aggregate are priority levels. A provider that appears twice is one level, to which the route's
    // retry priority returns once all levels have been tried.
    let mut clusters: Vec<&str> = Vec::new();
    for provider in providers {
        if !clusters.contains(&&*provider.name) {
            clusters.push(&provider.name);
        }
    }
    json!({
        "name": "envoy.clusters.aggregate",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
            "clusters": clusters,
        },
    })
}
