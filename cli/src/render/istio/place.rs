//! Where in the mesh the gateway is: its pods and its ports.

use crate::render::mesh::args::{At, MeshArgs};
use serde_json::{Map, Value};

/// The egress gateway's port: Istio's own mutual TLS, so that the callers' keys do not cross the network in plain text.
pub const EGRESS_PORT: u16 = 443;

/// Returns the port at which callers reach the host.
pub fn port(args: &MeshArgs) -> u16 {
    args.port.unwrap_or(match args.at {
        At::Ingress => 443,
        At::Egress | At::Sidecar => 80,
    })
}

/// Returns the port of the gateway's listener for the host.
pub fn gateway_port(args: &MeshArgs) -> u16 {
    if args.at == At::Egress { EGRESS_PORT } else { port(args) }
}

/// Returns the labels of the pods.
///
/// # Errors
/// That workloads, unlike Istio's gateways, have no usual label, or that one label is given twice.
pub fn selector(args: &MeshArgs) -> Result<Map<String, Value>, String> {
    let of = |value: &str| Map::from_iter([("istio".to_owned(), Value::from(value))]);
    let given: Map<_, _> = args.selector.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    if given.len() < args.selector.len() {
        return Err("--selector has the same label twice".to_owned());
    }
    match args.at {
        _ if !given.is_empty() => Ok(given),
        At::Ingress if args.gateway.is_some() => {
            let name = args.gateway.as_deref().unwrap_or_default();
            Ok(Map::from_iter([("gateway.networking.k8s.io/gateway-name".to_owned(), name.into())]))
        }
        At::Ingress => Ok(of("ingressgateway")),
        At::Egress => Ok(of("egressgateway")),
        At::Sidecar => Err("--selector is required with --at sidecar: the labels of the calling workload".to_owned()),
    }
}
