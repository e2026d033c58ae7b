//! Which flags of `render` belong to which target. A flag of another target is refused: ignored in silence, it would
//! leave its author with another gateway than the one that was asked for.

use super::mesh::args::{At, MeshArgs};
use super::target::Target;
use clap::ArgMatches;
use clap::parser::ValueSource;

/// The targets that take a flag.
#[derive(Clone, Copy)]
struct Takers(&'static [Target]);

const ENVOY: Takers = Takers(&[Target::Envoy]);
const ISTIO: Takers = Takers(&[Target::Istio]);
const ENVOY_GATEWAY: Takers = Takers(&[Target::EnvoyGateway]);
const MESHES: Takers = Takers(&[Target::Istio, Target::EnvoyGateway]);
/// Istio's agent fetches the module as an image, and from nowhere else.
const READS_FILES: Takers = Takers(&[Target::Envoy, Target::EnvoyGateway]);

/// The flags that not every target takes, by clap's ids, and what to do instead.
const FLAGS: [(&str, Takers, &str); 25] = [
    ("listen", ENVOY, "the mesh's own listeners are used"),
    ("admin", ENVOY, "the mesh sets it"),
    ("metrics", ENVOY, "the mesh offers them"),
    ("full_admin", ENVOY, "the mesh sets it"),
    ("max_heap", ENVOY, "the mesh sets it"),
    ("prefix", ENVOY, "the paths in the pods are fixed"),
    ("keep", ENVOY, "a mesh replaces clusters and routes by itself"),
    ("envoy_version", ENVOY, "use --target-version"),
    ("shared_listener", ENVOY, "a mesh's listeners are always shared"),
    ("wasm", READS_FILES, "use --image"),
    ("target_version", MESHES, "use --envoy-version"),
    ("host", MESHES, "use --listen"),
    ("namespace", MESHES, ""),
    ("name", MESHES, ""),
    ("before", MESHES, ""),
    ("image", MESHES, "use --wasm"),
    ("image_digest", MESHES, "use --wasm"),
    ("gateway", MESHES, ""),
    ("at", ISTIO, ""),
    ("selector", ISTIO, "it selects pods by their Gateway"),
    ("port", ISTIO, "the Gateway's listener has it"),
    ("egress_service", ISTIO, ""),
    ("cluster_domain", ISTIO, ""),
    ("listener", ENVOY_GATEWAY, "use --port"),
    ("proxy_namespace", ENVOY_GATEWAY, "use --namespace"),
];

/// Refuses the flags that have no effect with this target.
///
/// # Errors
/// Each such flag, and what to do instead.
pub fn check(target: Target, given: &ArgMatches, mesh: &MeshArgs) -> Result<(), String> {
    let is_given = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
    let mut refused: Vec<String> = Vec::new();
    for (id, takers, instead) in &FLAGS {
        if is_given(id) && !takers.0.contains(&target) {
            let instead = if instead.is_empty() { String::new() } else { format!(": {instead}") };
            refused.push(format!("{} has no effect with --target {target}{instead}", flag(id)));
        }
    }
    let mut without_effect = |id: &str, is_used: bool, when: &str| {
        if is_given(id) && !is_used {
            refused.push(format!("{} has no effect {when}", flag(id)));
        }
    };
    if target == Target::Istio {
        let ingress = mesh.at == At::Ingress;
        without_effect("egress_service", mesh.at == At::Egress, "without --at egress");
        without_effect("cluster_domain", !ingress, "with --at ingress, which has any host");
        without_effect("gateway", ingress, "with --at egress or sidecar: their pods are not made from a Gateway");
        without_effect("selector", mesh.gateway.is_none(), "with --gateway, which names the pods");
    }
    if target == Target::EnvoyGateway {
        without_effect("image", !is_given("wasm"), "with --wasm: the pods have the module");
    }
    if refused.is_empty() { Ok(()) } else { Err(refused.join("\nerror: ")) }
}

fn flag(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}
