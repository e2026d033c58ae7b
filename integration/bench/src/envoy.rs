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
    /// Bare, with the Wasm filter that does nothing as downstream filter and as upstream filter.
    Noop,
    /// What `pointsman render` writes, with a gateway stage that decides nothing: the calls of the host that one cannot
    /// do without.
    Carry,
    /// Both stages of Pointsman.
    Pointsman,
    /// The same, with budgets and a limit of concurrency on its one tenant: what is checked and charged, and told
    /// nobody.
    Budgets,
    /// The same, with every kind of limit on its one tenant, headers and gauges included.
    Limited,
    /// The same, with 100,000 tenants.
    Tenants,
}

impl Variant {
    /// Those of the usual run, in the order in which they are measured.
    pub const ALL: [Self; 5] = [Self::Bare, Self::BareNoLog, Self::Noop, Self::Carry, Self::Pointsman];

    /// Its name in files and tables.
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
    /// What it runs.
    pub variant: Variant,
    /// Where it takes requests.
    pub port: u16,
    /// Seconds from its start to the listener's, its policy loaded.
    pub start_s: f64,
    process: Process,
}

impl Envoy {
    /// Starts it and waits until it listens, its modules compiled.
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

    /// Bytes of memory that it holds.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// CPU time so far, in nanoseconds.
    pub fn cpu_ns(&self) -> Result<u64> {
        self.process.cpu_ns()
    }
}
