//! `pointsman render`: a policy and its providers as a complete configuration of Envoy.

// Members are set by index on objects that `json!` made a few lines before: those do not panic.
#![allow(clippy::indexing_slicing)]

mod access_log;
mod bootstrap;
mod clusters;
mod credential;
pub mod files;
pub mod inputs;
pub mod listener;
pub mod providers;
pub mod rendering;
pub mod route;
pub mod settings;
pub mod version;
mod wasm;
mod yaml;

use inputs::Inputs;
use rendering::Rendering;
use settings::{LogTarget, Settings};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use version::EnvoyVersion;

/// Write the Envoy configuration of a policy.
#[derive(clap::Args)]
pub struct Args {
    /// The policy.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Directory of the operator's clusters: `*.yaml`, one Envoy cluster each, named like the provider.
    #[arg(long, value_name = "DIR")]
    providers: PathBuf,
    /// Directory to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Directory in which Envoy will find the files, if it is not `--out` (in a container, say).
    #[arg(long, value_name = "DIR")]
    prefix: Option<String>,
    /// The module as Envoy will find it. Default: `pointsman.wasm` beside the files.
    #[arg(long, value_name = "FILE")]
    wasm: Option<String>,
    /// Envoy to write for: 1.36 to 1.40.
    #[arg(long, value_name = "VERSION", default_value_t = EnvoyVersion::NEWEST)]
    envoy_version: EnvoyVersion,
    /// Address for callers.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of Envoy's admin interface. Whoever reaches it can stop Envoy: keep it local.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Access log: a file, or - for Envoy's standard output.
    #[arg(long, value_name = "FILE", default_value = "-", value_parser = log_target)]
    access_log: LogTarget,
}

/// Reads `--access-log`.
///
/// # Errors
/// Never; clap wants to hear it.
pub fn log_target(text: &str) -> Result<LogTarget, std::convert::Infallible> {
    Ok(if text == "-" { LogTarget::Stdout } else { LogTarget::File(text.to_owned()) })
}

/// Runs `render`: 0, 1 if policy or providers are refused, 2 if a file cannot be read or written.
pub fn run(args: &Args) -> ExitCode {
    let inputs = match Inputs::load(&args.policy, &args.providers) {
        Ok(inputs) => inputs,
        Err(refused) => return refused.report(),
    };
    let written = args.settings().and_then(|settings| Rendering::new(&settings, &inputs).files().write(&args.out));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", args.out.display());
            ExitCode::from(2)
        }
    }
}

impl Args {
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
            listen: self.listen,
            admin: self.admin,
            access_log: self.access_log.clone(),
        })
    }
}

/// The command line, but for `--out`, which does not change what is written.
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
