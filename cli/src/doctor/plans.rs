//! The plan clusters, and the filters that run once per attempt.

use super::dump::{Dump, items, number, unwrapped};
use super::finding::Finding;
use super::stage::{self, Filter, Stage};
use crate::render::clusters::HTTP_OPTIONS;
use pointsman_core::policy::clusters::{ProviderSequence, plans};
use pointsman_core::policy::{Policy, Provider};
use pointsman_core::routing::dispatch::direct_cluster;
use serde_json::Value;

/// Returns what the plan clusters of a policy lack.
pub fn examine(dump: &Dump, gateway: &Stage, policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    for plan in plans(policy) {
        let name = plan.cluster(policy);
        match dump.clusters.get(&name) {
            Some(cluster) => findings.extend(of_plan(dump, gateway, policy, &plan, &name, cluster)),
            None => findings.push(absent(&name)),
        }
    }
    for provider in policy.providers().filter(|provider| provider.credential.is_some()) {
        let name = direct_cluster(provider);
        match dump.clusters.get(&name) {
            Some(cluster) => findings.extend(without_key(dump, &name, cluster, &[provider])),
            None => findings.push(absent(&name)),
        }
    }
    findings
}

fn absent(name: &str) -> Finding {
    Finding::new(
        &format!("cluster {name}"),
        "there is no such cluster",
        "Envoy answers 503 to requests along this plan",
        &format!("- <the cluster {name} of cds.yaml>"),
    )
}

fn of_plan(
    dump: &Dump,
    gateway: &Stage,
    policy: &Policy,
    plan: &ProviderSequence,
    name: &str,
    cluster: &Value,
) -> Vec<Finding> {
    let place = format!("cluster {name}");
    let providers: Vec<&Provider> = plan.providers(policy).collect();
    let mut findings = without_key(dump, name, cluster, &providers);
    let stages: Vec<Stage> = filters(cluster)
        .filter_map(|filter| match stage::filter(dump, filter) {
            Filter::Stage(stage) if !stage.is_gateway() => Some(stage),
            _ => None,
        })
        .collect();
    match stages.first() {
        None => findings.push(Finding::new(
            &place,
            "no model stage",
            "providers receive the caller's model and path, and no failed stream leads to the next model",
            &format!(
                "the filter `pointsman.model`, first in typed_extension_protocol_options.{HTTP_OPTIONS}.http_filters"
            ),
        )),
        Some(model) => {
            findings.extend(model.examine(&format!("{place}: pointsman.model")));
            if model.vm() != gateway.vm() {
                findings.push(Finding::new(
                    &format!("{place}: pointsman.model"),
                    "`vm_config` differs from the gateway stage's",
                    "the stages run in two VMs, and the gateway stage does not see attempts",
                    &format!("vm_config: {}", gateway.vm()),
                ));
            }
        }
    }
    let last = filters(cluster).last().map(|filter| stage::filter(dump, filter));
    if !matches!(last, Some(Filter::Other(kind)) if kind.ends_with(".UpstreamCodec")) {
        findings.push(Finding::new(
            &place,
            "the last of `http_filters` is not the codec",
            "no request leaves Envoy",
            "- {name: envoy.filters.http.upstream_codec, typed_config: {\"@type\": \
             type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec}}",
        ));
    }
    findings.extend(members(&place, &providers, cluster));
    const FEW: u64 = 3;
    let retries = items(cluster, "/circuit_breakers/thresholds").filter_map(|one| number(one.get("max_retries"))).max();
    if providers.len() > 1 && retries.unwrap_or(FEW) <= FEW {
        findings.push(Finding::new(
            &place,
            "`max_retries` is 3, Envoy's default",
            "only three requests at a time can fall back to their next model",
            "circuit_breakers: {thresholds: [{max_retries: 1000000}]}",
        ));
    }
    findings
}

/// Returns the upstream filters of a cluster.
fn filters(cluster: &Value) -> impl Iterator<Item = &Value> {
    let options = cluster.get("typed_extension_protocol_options").and_then(|all| all.get(HTTP_OPTIONS));
    options.into_iter().flat_map(|options| items(options, "/http_filters"))
}

/// Returns the finding that nothing adds the providers' keys.
fn without_key(dump: &Dump, name: &str, cluster: &Value, providers: &[&Provider]) -> Vec<Finding> {
    let needs = providers.iter().any(|provider| provider.credential.is_some());
    let injects = |filter: &Value| {
        let typed = dump.typed(filter);
        typed.is_some_and(|(_, typed)| typed.to_string().contains("credential_injector.v3.CredentialInjector"))
            || typed.is_some_and(|(kind, _)| kind.ends_with(".CredentialInjector"))
    };
    if !needs || filters(cluster).any(injects) {
        return Vec::new();
    }
    vec![Finding::new(
        &format!("cluster {name}"),
        "no credential injector",
        "the provider receives no key and answers 401",
        &format!("the filters `pointsman.credential` of the cluster {name} in cds.yaml, before the codec"),
    )]
}

/// Returns a finding if the cluster does not have the plan's providers, in their order.
fn members(place: &str, providers: &[&Provider], cluster: &Value) -> Option<Finding> {
    let typed = cluster.pointer("/cluster_type/typed_config").map(unwrapped);
    let (kind, config) = typed.unwrap_or(("", &Value::Null));
    let name = |member: &Value| member.as_str().or_else(|| member.get("name")?.as_str()).map(str::to_owned);
    let listed: Vec<String> = items(config, "/clusters").filter_map(name).collect();
    let mut wanted: Vec<String> = providers.iter().map(|provider| provider.name.to_string()).collect();
    if kind.contains(".aggregate.") {
        // Its members are priorities: each provider is one.
        let mut distinct = Vec::new();
        wanted.retain(|name| {
            !distinct.contains(name) && {
                distinct.push(name.clone());
                true
            }
        });
    }
    if listed == wanted {
        return None;
    }
    Some(Finding::new(
        place,
        &format!("its members are [{}]", listed.join(", ")),
        "attempts go to other providers than the gateway stage has planned",
        &format!("cluster_type: {{typed_config: {{clusters: [{}]}}}}", wanted.join(", ")),
    ))
}
