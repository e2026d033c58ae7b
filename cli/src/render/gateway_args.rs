//! The arguments that define a gateway, shared by `render` and `up`.

use super::inputs::{Inputs, Refused};
use super::settings::LogTarget;
use crate::policy_file::Origin;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A policy, its providers, and where Envoy listens and logs.
#[derive(clap::Args)]
pub struct GatewayArgs {
    /// The policy file.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Directory of the operator's provider clusters: `*.yaml` or `*.yml`, one Envoy cluster each, named like its
    /// provider.
    #[arg(long, value_name = "DIR")]
    pub providers: PathBuf,
    /// Listen address for clients. With port 0, Envoy picks a free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address of Envoy's admin interface. Anyone who can reach it can drain Envoy and read its configuration: keep it
    /// local.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    pub admin: SocketAddr,
    /// Offer all of the admin interface: also `/logging`, with which Envoy logs the keys of callers, and
    /// `/quitquitquit`. Before Envoy 1.37 it cannot be limited.
    #[arg(long)]
    pub full_admin: bool,
    /// Access log: a file, or - for standard output.
    #[arg(long, value_name = "FILE", default_value = "-", value_parser = log_target)]
    pub access_log: LogTarget,
}

impl GatewayArgs {
    /// Loads the policy and its providers.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn inputs(&self, origin: Origin) -> Result<Inputs, Refused> {
        Inputs::load(&self.policy, origin, &self.providers)
    }
}

/// Parses `--access-log`. It cannot fail, but clap expects a `Result`.
fn log_target(text: &str) -> Result<LogTarget, Infallible> {
    Ok(if text == "-" { LogTarget::Stdout } else { LogTarget::File(text.to_owned()) })
}
