//! One running Envoy per variant.

use crate::Result;
use crate::process::{self, Process, Scratch, free_port};
use crate::settings::{self, Modules};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Instant;

/// What stands between the caller and the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Listener, route, cluster, and a JSON access log.
    Bare,
    /// The same without the access log.
    BareNoLog,
    /// Bare, with the no-op Wasm filter both as downstream and as upstream filter.
    Noop,
    /// What `pointsman render` writes, with a gateway stage that decides nothing and makes only the host calls that no
    /// gateway stage can avoid.
    Carry,
    /// Both stages of Pointsman.
    Pointsman,
    /// The same, with budgets and a concurrency limit on its one tenant: limits that are checked and charged, but not
    /// reported to callers.
    Budgets,
    /// The same, with every kind of limit on its one tenant, headers and gauges included.
    Limited,
    /// The same, with 100,000 tenants.
    Tenants,
}

impl Variant {
    /// The variants of the usual run, in the order in which they are measured.
    pub const ALL: [Self; 5] = [Self::Bare, Self::BareNoLog, Self::Noop, Self::Carry, Self::Pointsman];

    /// Returns its name in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareNoLog => "no log",
            Self::Noop => "noop",
            Self::Carry => "carry",
            Self::Pointsman => "pointsman",
            Self::Budgets => "budgets",
            Self::Limited => "limited",
            Self::Tenants => "100,000 tenants",
        }
    }
}

/// A running Envoy.
pub struct Envoy {
    /// The variant that it runs.
    pub variant: Variant,
    /// The port on which it accepts requests.
    pub port: u16,
    /// Seconds from the start of the process until it listens, with its policy loaded.
    pub start_s: f64,
    process: Process,
}

impl Envoy {
    /// Starts an Envoy and waits until it listens, with its modules compiled.
    pub fn start(
        variant: Variant,
        program: &Path,
        modules: &Modules,
        upstream: u16,
        scratch: &Scratch,
        workers: u32,
    ) -> Result<Self> {
        let port = free_port()?;
        let config = settings::write(variant, modules, port, upstream, scratch)?;
        let mut command = process::command(program);
        command.arg("-c").arg(config).args([
            "--concurrency",
            &workers.to_string(),
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ]);
        command.env("POINTSMAN_BENCH_KEY", "sk-bench-upstream");
        let start = Instant::now();
        let mut running = Process::start(&mut command, &variant.name().replace([' ', ','], "-"), scratch)?;
        let what = format!("Envoy ({})", variant.name());
        running.wait_until(&what, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
        Ok(Self { variant, port, start_s: start.elapsed().as_secs_f64(), process: running })
    }

    /// Returns its resident memory, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// Returns its CPU time so far, in nanoseconds.
    pub fn cpu_ns(&self) -> Result<u64> {
        self.process.cpu_ns()
    }
}
