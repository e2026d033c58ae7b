//! How calls inside the mesh reach the gateway: a Service to which the host name belongs, and at an egress gateway the
//! way from the callers' sidecars to it.

use super::place::{EGRESS_PORT, port, selector};
use crate::render::mesh::args::{At, MeshArgs};
use crate::render::object::object;
use serde_json::{Value, json};

const API: &str = "networking.istio.io/v1";

/// Inside the mesh, a host is a Service.
const ONE_HOST: &str = "only one --host is possible with this --at";

/// Returns the domains of the gateway's virtual host.
///
/// # Errors
/// A host that is missing, given twice, or not possible there.
pub fn domains(args: &MeshArgs) -> Result<Vec<String>, String> {
    let hosts = args.hosts()?;
    match (args.at, hosts) {
        (At::Ingress | At::Egress, _) => Ok(hosts.to_vec()),
        (At::Sidecar, [host]) => names_of(host, &args.cluster_domain, args.namespace()?),
        (At::Sidecar, _) => Err(ONE_HOST.to_owned()),
    }
}

/// Returns the names by which workloads of a namespace may call a Service. A Service of another namespace may have the
/// short name.
///
/// # Errors
/// That the host is that of no Service.
fn names_of(host: &str, domain: &str, namespace: &str) -> Result<Vec<String>, String> {
    let (service, its_namespace) = service_of(host, domain)?;
    let mut names =
        vec![host.to_owned(), format!("{service}.{its_namespace}.svc"), format!("{service}.{its_namespace}")];
    if its_namespace == namespace {
        names.push(service.to_owned());
    }
    Ok(names)
}

/// Returns the objects and their files. At an ingress gateway, the operator's own Gateway has the certificate and
/// everything else.
///
/// # Errors
/// A host that belongs to no Service that could be written.
pub fn objects(args: &MeshArgs, namespace: &str) -> Result<Vec<(&'static str, Value)>, String> {
    if args.at == At::Ingress {
        return Ok(Vec::new());
    }
    let [host] = args.hosts()? else { return Err(ONE_HOST.to_owned()) };
    let (service, in_namespace) = service_of(host, &args.cluster_domain)?;
    // Without endpoints: a caller without a sidecar reaches no host, rather than a provider.
    let ports = json!({"ports": [{"name": "http", "port": port(args), "protocol": "TCP"}]});
    let mut objects = vec![("service.yaml", object("v1", "Service", in_namespace, service, ports))];
    if args.at == At::Egress {
        objects.extend(through_egress(args, namespace, host)?);
    }
    Ok(objects)
}

/// The way from the sidecars to the egress gateway, as Istio's documentation has it.
fn through_egress(args: &MeshArgs, namespace: &str, host: &str) -> Result<Vec<(&'static str, Value)>, String> {
    let name = &args.name;
    let standard = format!("istio-egressgateway.{namespace}.svc.{}", args.cluster_domain);
    let gateway = args.egress_service.as_deref().unwrap_or(&standard);
    let of = |kind: &str, spec: Value| object(API, kind, namespace, name, spec);
    let server = json!({
        "port": {"number": EGRESS_PORT, "name": format!("https-{name}"), "protocol": "HTTPS"},
        "hosts": [host],
        "tls": {"mode": "ISTIO_MUTUAL"},
    });
    let tls = json!({"port": {"number": EGRESS_PORT}, "tls": {"mode": "ISTIO_MUTUAL", "sni": host}});
    let route = json!({
        "match": [{"gateways": ["mesh"], "port": port(args)}],
        "route": [{"destination": {"host": gateway, "subset": name, "port": {"number": EGRESS_PORT}}}],
        // Istio's default of two would repeat a request that a provider has already been paid for.
        "retries": {"attempts": 0},
    });
    Ok(vec![
        ("gateway.yaml", of("Gateway", json!({"selector": selector(args)?, "servers": [server]}))),
        (
            "destinationrule.yaml",
            of(
                "DestinationRule",
                json!({
                    "host": gateway,
                    "subsets": [{"name": name, "trafficPolicy": {"portLevelSettings": [tls]}}],
                }),
            ),
        ),
        ("virtualservice.yaml", of("VirtualService", json!({"hosts": [host], "gateways": ["mesh"], "http": [route]}))),
    ])
}

/// Splits the host name of a Service into the Service's name and its namespace. `domain`: the cluster's.
fn service_of<'a>(host: &'a str, domain: &str) -> Result<(&'a str, &'a str), String> {
    let names = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix(".svc."));
    match names.and_then(|names| names.split_once('.')) {
        Some((service, _)) if service.starts_with(|first: char| first.is_ascii_digit()) => {
            Err(format!("the host \"{host}\" begins with a digit, and the name of a Service with a letter"))
        }
        Some((service, namespace)) if !namespace.contains('.') => Ok((service, namespace)),
        _ => Err(format!(
            "the host \"{host}\" is not SERVICE.NAMESPACE.svc.{domain}; inside the mesh, callers find Pointsman by the \
             name of a Service, which render writes. If the cluster has another domain, set --cluster-domain"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{names_of, service_of};

    #[test]
    fn a_host_inside_the_mesh_is_that_of_a_service() {
        const DOMAIN: &str = "cluster.local";
        assert_eq!(service_of("llm.ai.svc.cluster.local", DOMAIN), Ok(("llm", "ai")));
        assert_eq!(service_of("llm.ai.svc.corp.example", "corp.example"), Ok(("llm", "ai")));
        let names = |namespace: &str| names_of("llm.ai.svc.cluster.local", DOMAIN, namespace).unwrap().split_off(1);
        assert_eq!(names("shop"), ["llm.ai.svc", "llm.ai"]);
        assert_eq!(names("ai"), ["llm.ai.svc", "llm.ai", "llm"]);
        for wrong in [
            "llm.example.com",
            "llm",
            "llm.svc.cluster.local",
            "a.b.c.svc.cluster.local",
            "l.a.svc.x",
            "l.a.svc",
            "1.a.svc.cluster.local",
        ] {
            assert!(service_of(wrong, DOMAIN).is_err(), "{wrong}");
        }
    }
}
