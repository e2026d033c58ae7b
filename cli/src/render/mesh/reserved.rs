//! The clusters that a mesh's Envoys have anyway. A provider with such a name would not be reached: Envoy refuses a
//! cluster that its bootstrap already has and keeps the old one, so prompts and keys would go there.

use super::version::Mesh;

/// Istio: those of its bootstrap (`envoy_bootstrap.json`), with every tracer and service that it can name there, and
/// those that istiod makes for every proxy.
const ISTIO: [&str; 20] = [
    "agent",
    "datadog_agent",
    "envoy_accesslog_service",
    "envoy_metrics_service",
    "lightstep",
    "prometheus_stats",
    "sds-external",
    "sds-grpc",
    "xds-grpc",
    "zipkin",
    "BlackHoleCluster",
    "InboundPassthroughCluster",
    "InboundPassthroughClusterIpv4",
    "InboundPassthroughClusterIpv6",
    "PassthroughCluster",
    "connect_originate",
    "encap",
    "inner_connect_originate",
    "main_internal",
    "outer_connect_originate",
];

/// Envoy Gateway: those of its bootstrap (`bootstrap.yaml.tpl`), and those that its features make.
const ENVOY_GATEWAY: [&str; 5] =
    ["local_cluster", "prometheus_stats", "ratelimit_cluster", "wasm_cluster", "xds_cluster"];

/// What such names of Envoy Gateway's begin with; a number follows.
const NUMBERED: [&str; 3] = ["accesslog_", "otel_metric_sink_", "tracing-"];

/// Refuses the clusters of a policy that the mesh's Envoys would not take.
///
/// # Errors
/// The first such name, and why.
pub fn check<'a>(mesh: Mesh, names: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let is_taken = |name: &&str| match mesh {
        Mesh::Istio => ISTIO.contains(name),
        Mesh::EnvoyGateway => ENVOY_GATEWAY.contains(name) || NUMBERED.iter().any(|start| name.starts_with(start)),
    };
    match names.into_iter().find(is_taken) {
        Some(name) => Err(format!(
            "the Envoys of {mesh} have a cluster \"{name}\" of their own, which prompts and keys would be sent to; \
             give the provider or the Redis bridge of this name another one"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_meshs_own_is_refused_there_only() {
        let is_taken = |mesh: Mesh, name: &str| check(mesh, ["openai", name]).is_err();
        for (name, istio, gateway) in [
            ("agent", true, false),
            ("BlackHoleCluster", true, false),
            ("xds-grpc", true, false),
            ("prometheus_stats", true, true),
            ("xds_cluster", false, true),
            ("otel_metric_sink_0", false, true),
            ("Agent", false, false),
            ("agent2", false, false),
            ("vllm", false, false),
        ] {
            assert_eq!((is_taken(Mesh::Istio, name), is_taken(Mesh::EnvoyGateway, name)), (istio, gateway), "{name}");
        }
        assert!(check(Mesh::Istio, ["agent"]).unwrap_err().contains("\"agent\""));
    }
}
