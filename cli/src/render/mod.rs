//! `pointsman render`: renders a policy and its providers to a complete Envoy configuration.

// Members are set by index on objects that `json!` made a few lines above; that does not panic.
#![allow(clippy::indexing_slicing)]

mod access_log;
mod bootstrap;
mod cluster_fields;
pub mod clusters;
pub mod credential;
mod duration;
pub mod files;
pub mod gateway_args;
pub mod inputs;
mod kept;
pub mod listener;
pub mod providers;
pub mod rendering;
pub mod route;
pub mod settings;
pub mod version;
pub mod wasm;
mod yaml;

use crate::module;
use crate::policy_file::Origin;
use gateway_args::GatewayArgs;
use inputs::Inputs;
use rendering::Rendering;
use settings::Settings;
use std::path::PathBuf;
use std::process::ExitCode;
use version::EnvoyVersion;

/// Write the Envoy configuration of a policy.
#[derive(clap::Args)]
pub struct Args {
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
}

/// Runs `render`. Exit status: 0 on success, 1 if the policy or the providers are refused, 2 if a file cannot be read
/// or written.
pub fn run(args: &Args) -> ExitCode {
    let inputs = match args.gateway.inputs(Origin::Any) {
        Ok(inputs) => inputs,
        Err(refused) => return refused.report(),
    };
    inputs.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    match args.write(&inputs) {
        Ok(()) => {
            args.module_is_missing().iter().for_each(|line| eprintln!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", args.out.display());
            ExitCode::from(2)
        }
    }
}

impl Args {
    fn write(&self, inputs: &Inputs) -> std::io::Result<()> {
        let settings = self.settings()?;
        let rendering = Rendering::new(&settings, inputs);
        let mut files = rendering.files();
        if let Some(earlier) = &self.keep {
            kept::add(&mut files, rendering.clusters(), earlier)?;
        }
        files.write(&self.out)
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
            full_admin: self.gateway.full_admin,
            max_heap: self.gateway.max_heap,
            access_log: self.gateway.access_log.clone(),
            watches_directory: true,
            shared: self.shared_listener,
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
