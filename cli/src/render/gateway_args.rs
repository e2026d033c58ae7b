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
    /// Address at which `GET /stats/prometheus` is offered to others, and nothing else of the admin interface. The
    /// metrics name tenants. Default: the admin interface alone has them.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
    /// Offer all of the admin interface: also `/logging`, with which Envoy logs the keys of callers, and
    /// `/quitquitquit`. Before Envoy 1.37 it cannot be limited.
    #[arg(long)]
    pub full_admin: bool,
    /// Memory that Envoy may allocate, such as 512MiB or 4GiB, not counting the module's VMs. As it fills, Envoy resets
    /// the HTTP/2 streams that hold the most, then refuses requests with 503. 0: no bound.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = memory)]
    pub max_heap: u64,
    /// Access log: a file, or - for standard output.
    #[arg(long, value_name = "FILE", default_value = "-", value_parser = log_target)]
    pub access_log: LogTarget,
}

impl GatewayArgs {
    /// Checks the flags whose values depend on each other.
    ///
    /// # Errors
    /// That the metrics come from an admin interface whose port is not known, or that another listener has their port:
    /// Envoy would accept that, and either would get some of the connections.
    pub fn check(&self) -> Result<(), String> {
        let Some(metrics) = self.metrics else { return Ok(()) };
        let taken = |flag: &str| Err(format!("--metrics {metrics}: {flag} has the same port"));
        match metrics.port() {
            _ if self.admin.port() == 0 => Err("--metrics needs an --admin address with a port, not 0".to_owned()),
            0 => Ok(()),
            port if port == self.admin.port() => taken("--admin"),
            port if port == self.listen.port() => taken("--listen"),
            _ => Ok(()),
        }
    }

    /// Loads the policy and its providers.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn inputs(&self, origin: Origin) -> Result<Inputs, Refused> {
        Inputs::load(&self.policy, origin, &self.providers)
    }
}

/// Parses a size: bytes, or a number with `MiB` or `GiB`, of at least 64 MiB.
fn memory(text: &str) -> Result<u64, String> {
    let units = [("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
    let size = units.iter().find_map(|(unit, bytes)| {
        let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*bytes)
    });
    match size {
        Some(0) => Ok(0),
        Some(size) if size >= 64 << 20 => Ok(size),
        Some(_) => Err("less than 64MiB, with which Envoy would refuse every request".to_owned()),
        None => Err("expected a size such as 512MiB or 2GiB, or 0 for no bound".to_owned()),
    }
}

/// Parses `--access-log`. It cannot fail, but clap expects a `Result`.
fn log_target(text: &str) -> Result<LogTarget, Infallible> {
    Ok(if text == "-" { LogTarget::Stdout } else { LogTarget::File(text.to_owned()) })
}
