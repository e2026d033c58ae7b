//! `pointsman render`: renders a policy and its providers to a complete Envoy configuration.

// Members are set by index on objects that `json!` made a few lines above; that does not panic.
#![allow(clippy::indexing_slicing)]

mod access_log;
mod bootstrap;
mod cluster_fields;
pub mod clusters;
pub mod credential;
mod duration;
mod envoy_gateway;
pub mod files;
mod flags;
pub mod gateway_args;
pub mod inputs;
mod istio;
mod kept;
pub mod line_break;
pub mod listener;
mod local_replies;
pub mod mesh;
mod metrics;
mod object;
pub mod providers;
pub mod rendering;
pub mod route;
pub mod settings;
mod stale;
mod target;
pub mod version;
pub mod wasm;
mod yaml;

use crate::module;
use crate::policy_file::Origin;
use clap::ArgMatches;
use envoy_gateway::EnvoyGateway;
use files::Files;
use gateway_args::GatewayArgs;
use inputs::Inputs;
use istio::Istio;
use line_break::UntrimmedKeys;
use mesh::args::MeshArgs;
use mesh::pod::{Keys, RENDERED, Volume};
use mesh::reserved;
use mesh::version::{Mesh, MeshVersion};
use rendering::Rendering;
use settings::{MeshSettings, Settings};
use std::path::PathBuf;
use std::process::ExitCode;
use target::Target;
use version::EnvoyVersion;

/// Write the Envoy configuration of a policy.
#[derive(clap::Args)]
pub struct Args {
    /// What applies the files. For a mesh they are Kubernetes objects. A flag without effect is refused: those about
    /// listeners, the admin interface, memory and files are for `envoy`.
    #[arg(long, value_enum, default_value = "envoy")]
    target: Target,
    /// Version of the target: Istio 1.28 to 1.31, Envoy Gateway 1.6 to 1.9.
    #[arg(long, value_name = "VERSION")]
    target_version: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Directory to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Directory in which Envoy finds the files, if it is not `--out` (in a container, for example).
    #[arg(long, value_name = "DIR")]
    prefix: Option<String>,
    /// Directory of an earlier rendering, whose clusters stay beside the new ones. Requests of its policy need them.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Path at which Envoy finds the module. Default: `pointsman.wasm` beside the files.
    #[arg(long, value_name = "FILE")]
    wasm: Option<String>,
    /// Envoy version to render for: 1.36 to 1.40.
    #[arg(long, value_name = "VERSION", default_value_t = EnvoyVersion::NEWEST)]
    envoy_version: EnvoyVersion,
    /// Render for a listener that also has routes of your own. The gateway then serves paths below `/v1/`.
    /// Its filter is off on all other routes, and its logs and error responses leave other requests alone.
    #[arg(long)]
    shared_listener: bool,
    #[command(flatten)]
    mesh: MeshArgs,
}

/// Runs `render`. Exit status: 0 on success, 1 if the policy or the providers are refused, 2 if a file cannot be read
/// or written, or if a flag is missing or has no effect. `given`: the flags as they were given.
pub fn run(args: &Args, given: &ArgMatches) -> ExitCode {
    if let Err(message) = flags::check(args.target, given, &args.mesh) {
        eprintln!("error: {message}");
        return ExitCode::from(2);
    }
    let inputs = match args.gateway.inputs(Origin::Any) {
        Ok(inputs) => inputs,
        Err(refused) => return refused.report(),
    };
    inputs.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let files = match args.files(&inputs) {
        Ok(files) => files,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    let written = || {
        stale::check(&files, &args.out)?;
        let mut said = stale::replaced(&files, &args.out);
        files.write(&args.out)?;
        said.extend(stale::remove(&files, &args.out)?);
        Ok::<_, std::io::Error>(said)
    };
    match written() {
        Ok(said) => {
            said.iter().chain(&args.notes(&inputs)).for_each(|line| eprintln!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", args.out.display());
            ExitCode::from(2)
        }
    }
}

impl Args {
    /// Renders for the target.
    fn files(&self, inputs: &Inputs) -> Result<Files, String> {
        let args = &self.mesh;
        let mesh = match self.target {
            Target::Envoy => return self.envoy_files(inputs),
            Target::Istio => Mesh::Istio,
            Target::EnvoyGateway => Mesh::EnvoyGateway,
        };
        let version = mesh.version(self.target_version.as_deref().unwrap_or_default())?;
        reserved::check(mesh, inputs.providers.keys().map(String::as_str))?;
        let mut settings = self.mesh_settings(version)?;
        match mesh {
            Mesh::Istio => {
                if let Some(mesh) = &mut settings.mesh {
                    mesh.image = Some(args.image()?);
                }
                Istio { version, args, settings: &settings, inputs }.files()
            }
            // Its control plane serves no configuration of extensions, and fetches no image for patches.
            Mesh::EnvoyGateway => {
                let module = match self.wasm {
                    Some(_) => None,
                    None => Some(Volume::of_image(&args.name, &args.image()?)),
                };
                if let Some(volume) = &module {
                    settings.wasm = volume.file("plugin.wasm");
                }
                EnvoyGateway { args, settings: &settings, inputs, module }.files()
            }
        }
    }

    /// Renders for an Envoy that reads files.
    fn envoy_files(&self, inputs: &Inputs) -> Result<Files, String> {
        self.gateway.check()?;
        let settings = self.settings().map_err(|error| error.to_string())?;
        let rendering = Rendering::new(&settings, inputs);
        let mut files = rendering.files();
        if let Some(earlier) = &self.keep {
            kept::add(&mut files, rendering.clusters(), earlier).map_err(|error| error.to_string())?;
        }
        Ok(files)
    }

    /// What the operator still has to do, or may have missed.
    fn notes(&self, inputs: &Inputs) -> Vec<String> {
        let (namespace, config_maps, patch) = match (self.target, &self.mesh.namespace) {
            (Target::Istio, Some(namespace)) => {
                let of_gateway = self.mesh.gateway.is_some();
                let patch = if of_gateway { "patch/gateway.yaml" } else { "patch/deployment.yaml" };
                (namespace, "configmap-*.yaml", patch)
            }
            (Target::EnvoyGateway, _) => {
                let patch = "envoyproxy.yaml and the Gateway's parametersRef";
                (&self.mesh.proxy_namespace, "configmap-sds.yaml", patch)
            }
            _ => {
                let keys = UntrimmedKeys::of(&inputs.policy, self.envoy_version).faults();
                let keys = keys.into_iter().map(|line| format!("warning: {line}"));
                return self.module_is_missing().into_iter().chain(keys).collect();
            }
        };
        let alone = inputs.policy.redis.is_none().then(|| {
            let each = "each pod counts its own quotas and budgets and has its own cache";
            format!("warning: the policy has no `redis`, so {each}")
        });
        let keys = Keys::of(&inputs.policy).ok();
        let hint = keys.as_ref().and_then(|keys| keys.hint(namespace, &self.mesh.name));
        let order = keys.as_ref().and_then(|keys| keys.order(config_maps, patch));
        alone.into_iter().chain(self.alone_at_its_port()).chain(hint).chain(order).collect()
    }

    /// Envoy Gateway gives listeners of one port one name, that of the first, and refuses a policy for one of them.
    fn alone_at_its_port(&self) -> Option<String> {
        let (gateway, listener) = (self.mesh.gateway.as_ref()?, self.mesh.listener.as_ref()?);
        (self.target == Target::EnvoyGateway).then(|| {
            format!(
                "note: the listener \"{listener}\" of the Gateway \"{gateway}\" must be the only one at its port, and \
                 the EnvoyProxy must not set mergeGateways; otherwise the patches do not apply"
            )
        })
    }

    fn mesh_settings(&self, version: MeshVersion) -> Result<Settings, String> {
        let mesh = MeshSettings {
            // At Envoy Gateway, as at an ingress gateway: the hosts.
            hosts: istio::domains(&self.mesh)?,
            image: None,
            // Istio's build of Envoy has no composite cluster, whatever its version.
            has_composite_cluster: false,
        };
        Ok(Settings {
            command: command(std::env::args().skip(1)),
            version: version.envoy(),
            wasm: self.wasm.clone().unwrap_or_default(),
            prefix: RENDERED.to_owned(),
            listen: self.gateway.listen,
            admin: self.gateway.admin,
            metrics: None,
            full_admin: self.gateway.full_admin,
            max_heap: self.gateway.max_heap,
            access_log: self.gateway.access_log.clone(),
            watches_directory: true,
            shared: true,
            mesh: Some(mesh),
        })
    }

    /// Returns a warning if the rendered files name a module in their own directory and the module is missing.
    fn module_is_missing(&self) -> Option<String> {
        let path = self.out.join(module::FILE);
        if self.wasm.is_some() || self.prefix.is_some() || path.exists() {
            return None;
        }
        let remedy = match module::find(None) {
            Ok((found, _)) => format!("copy {found} there, or set --wasm"),
            Err(_) => "put it there, or set --wasm".to_owned(),
        };
        Some(format!("warning: no filter module at {}; {remedy}", path.display()))
    }

    fn settings(&self) -> std::io::Result<Settings> {
        let prefix = match &self.prefix {
            Some(prefix) => prefix.clone(),
            None => std::path::absolute(&self.out)?.display().to_string(),
        };
        let prefix = prefix.trim_end_matches('/').to_owned();
        Ok(Settings {
            command: command(std::env::args().skip(1)),
            version: self.envoy_version,
            wasm: self.wasm.clone().unwrap_or_else(|| format!("{prefix}/pointsman.wasm")),
            prefix,
            listen: self.gateway.listen,
            admin: self.gateway.admin,
            metrics: self.gateway.metrics,
            full_admin: self.gateway.full_admin,
            max_heap: self.gateway.max_heap,
            access_log: self.gateway.access_log.clone(),
            watches_directory: true,
            shared: self.shared_listener,
            mesh: None,
        })
    }
}

/// Returns the command line without `--out`, which does not change the content.
fn command(mut arguments: impl Iterator<Item = String>) -> String {
    let mut words = vec!["pointsman".to_owned()];
    while let Some(argument) = arguments.next() {
        if argument == "--out" {
            arguments.next();
        } else if !argument.starts_with("--out=") {
            words.push(argument);
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_head_of_a_file_names_the_command_but_not_where_it_wrote() {
        let command = |line: &str| super::command(line.split(' ').map(str::to_owned));
        assert_eq!(command("render --policy p --out x --prefix /p"), "pointsman render --policy p --prefix /p");
        assert_eq!(command("render --out=x --policy=p"), "pointsman render --policy=p");
    }
}
