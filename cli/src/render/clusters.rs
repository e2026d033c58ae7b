//! The plan clusters: one per sequence of providers that a request may be sent along.

use super::settings::Settings;
use super::{credential, wasm};
use pointsman_core::dispatch::direct_cluster;
use pointsman_core::plans::ProviderSequence;
use pointsman_core::policy::{Policy, Provider};
use serde_json::{Value, json};

/// The cluster of one plan.
pub fn plan(settings: &Settings, policy: &Policy, plan: &ProviderSequence) -> Value {
    let providers: Vec<&Provider> = plan.providers(policy).collect();
    let mut http_filters = vec![wasm::model_stage(settings)];
    http_filters.extend(credential::filters(settings, &providers));
    cluster(settings, &plan.cluster(policy), &providers, http_filters)
}

/// The cluster of requests to one provider that have one attempt and are no streams: no module, which would have nothing
/// to decide, only the provider's key. A provider without a key needs none: such requests go to its own cluster.
pub fn direct(settings: &Settings, provider: &Provider) -> Value {
    cluster(settings, &direct_cluster(provider), &[provider], credential::filters(settings, &[provider]))
}

fn cluster(settings: &Settings, name: &str, providers: &[&Provider], mut http_filters: Vec<Value>) -> Value {
    http_filters.push(json!({
        "name": "envoy.filters.http.upstream_codec",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
    }));
    json!({
        // A name with a dot would be cut at it in the label of Envoy's metrics.
        "alt_stat_name": name.replace('.', "_"),
        "name": name,
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": members(settings, providers),
        // Envoy counts requests and connections at the provider's cluster, where the operator limits them, but retries
        // here: its default of 3 at a time would make fallbacks fail just when many are needed.
        "circuit_breakers": {"thresholds": [{
            "max_connections": UNLIMITED, "max_pending_requests": UNLIMITED, "max_requests": UNLIMITED,
            "max_retries": UNLIMITED,
        }]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            // Needed by Envoy's validation; each request is sent in the protocol of its provider's cluster.
            "explicit_http_config": {"http_protocol_options": {}},
            "http_filters": http_filters,
        }},
    })
}

const UNLIMITED: u32 = 1_000_000;

fn members(settings: &Settings, providers: &[&Provider]) -> Value {
    if settings.version.has_composite_cluster() {
        let clusters: Vec<_> = providers.iter().map(|p| json!({"name": *p.name})).collect();
        return json!({
            "name": "envoy.clusters.composite",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.composite.v3.ClusterConfig",
                "clusters": clusters,
            },
        });
    }
    // Members of an aggregate are levels of priority: a provider that comes twice is one level, to which the route's
    // retry priority returns once all have been tried.
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
