//! The providers' clusters: whether there are endpoints, and what marks them.

use super::dump::{Dump, items};
use super::finding::Finding;
use pointsman_core::policy::Policy;
use serde_json::Value;

/// Returns what the providers' clusters of a policy lack, and whether that of the Redis bridge is there.
pub fn examine(dump: &Dump, policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    for provider in policy.providers() {
        let place = format!("cluster {}", provider.name);
        let Some(cluster) = dump.clusters.get(&*provider.name) else {
            findings.push(Finding::new(
                &place,
                "there is no such cluster",
                "its plans have no host",
                &format!("- <the cluster {} of cds.yaml>", provider.name),
            ));
            continue;
        };
        // By EDS, endpoints are not in the cluster.
        let own = cluster.get("load_assignment").or_else(|| dump.endpoints.get(&*provider.name));
        let endpoints: Vec<&Value> = own
            .into_iter()
            .flat_map(|assignment| items(assignment, "/endpoints"))
            .flat_map(|locality| items(locality, "/lb_endpoints"))
            .collect();
        let marked = |endpoint: &&Value| {
            let name = endpoint.pointer("/metadata/filter_metadata/pointsman/provider").and_then(Value::as_str);
            name == Some(&*provider.name)
        };
        if !endpoints.iter().all(marked) {
            findings.push(Finding::new(
                &place,
                "an endpoint does not name its provider",
                "the model stage cannot tell whose it is, and rejects the attempt",
                &format!("metadata: {{filter_metadata: {{pointsman: {{provider: {}}}}}}}", provider.name),
            ));
        }
        let named = |endpoint: &&Value| endpoint.pointer("/endpoint/hostname").and_then(Value::as_str).is_some();
        if !endpoints.iter().all(named) {
            findings.push(Finding::new(
                &place,
                "an endpoint has no `hostname`",
                "the provider receives the caller's Host",
                "endpoint: {hostname: <the provider's host name>}",
            ));
        }
    }
    if let Some(bridge) = &policy.redis
        && !dump.clusters.contains_key(&*bridge.cluster)
    {
        findings.push(Finding::new(
            &format!("cluster {}", bridge.cluster),
            "there is no such cluster",
            "quotas and budgets cannot be counted in Redis",
            &format!("- <the cluster {} of cds.yaml>", bridge.cluster),
        ));
    }
    findings
}
