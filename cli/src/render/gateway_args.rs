//! The arguments that say what gateway it is: the same for whoever renders it and for whoever runs it.

use super::inputs::{Inputs, Refused};
use super::settings::LogTarget;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A policy, its providers, and where Envoy listens and logs.
#[derive(clap::Args)]
pub struct GatewayArgs {
    /// The policy.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Directory of the operator's clusters: `*.yaml`, one Envoy cluster each, named like the provider.
    #[arg(long, value_name = "DIR")]
    pub providers: PathBuf,
    /// Address for callers; Envoy takes a free port for port 0.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address of Envoy's admin interface. Whoever reaches it can stop Envoy: keep it local.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    pub admin: SocketAddr,
    /// Access log: a file, or - for standard output.
    #[arg(long, value_name = "FILE", default_value = "-", value_parser = log_target)]
    pub access_log: LogTarget,
}

impl GatewayArgs {
    /// Reads the policy and its providers.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn inputs(&self) -> Result<Inputs, Refused> {
        Inputs::load(&self.policy, &self.providers)
    }
}

/// Reads `--access-log`. Never fails; clap wants to hear it.
fn log_target(text: &str) -> Result<LogTarget, Infallible> {
    Ok(if text == "-" { LogTarget::Stdout } else { LogTarget::File(text.to_owned()) })
}
