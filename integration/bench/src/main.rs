//! `bench`: Envoy's CPU time per request through Pointsman, compared with bare Envoy in one interleaved run.
//!
//! README.md describes what is measured and how to read it.

mod burst;
mod client;
mod envoy;
mod load;
mod pace;
mod policy;
mod process;
mod prompt;
mod quotas;
mod report;
mod scenario;
mod settings;
mod statistics;

use crate::envoy::{Envoy, Variant};
use crate::load::{Cost, Plan, Target};
use crate::process::Scratch;
use crate::scenario::Scenario;
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The error is a message, printed once at the end of the program.
type Result<T> = std::result::Result<T, String>;

/// Measures the CPU time of Envoy per request: bare, with a Wasm filter that does nothing, and with Pointsman.
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// The Envoy binary.
    #[arg(long)]
    envoy: PathBuf,
    /// Pointsman's module.
    #[arg(long)]
    wasm: PathBuf,
    /// The no-op module (pointsman-noop).
    #[arg(long)]
    noop_wasm: PathBuf,
    /// The `pointsman` command, which renders the configuration. Default: beside this program.
    #[arg(long)]
    pointsman: Option<PathBuf>,
    /// The simulator, which is the upstream of every variant. Default: beside this program.
    #[arg(long)]
    simulator: Option<PathBuf>,
    /// How often to start all Envoys.
    #[arg(long, default_value_t = 3)]
    starts: usize,
    /// Rounds per start, variant and scenario.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Run the main scenarios once as a smoke test; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Measure what quotas cost instead of the usual run.
    #[arg(long)]
    quotas: bool,
    /// Measure latency at 500 requests a second instead, for this many seconds per Envoy.
    #[arg(long)]
    pace: Option<usize>,
    /// With `--pace`: the size of the access logs at the start, in MiB.
    #[arg(long, default_value_t = 0)]
    log_mib: u64,
    /// Run only the scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let scratch = match Scratch::new() {
        Ok(scratch) => scratch,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run(&options, &scratch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            scratch.print_logs();
            ExitCode::FAILURE
        }
    }
}

fn beside_this(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|e| format!("the path of this program: {e}"))?;
    Ok(own.with_file_name(name))
}

fn run(options: &Options, scratch: &Scratch) -> Result<()> {
    let given = |path: &Option<PathBuf>, name| path.clone().map_or_else(|| beside_this(name), Ok);
    let simulator = given(&options.simulator, "simulator")?;
    let pointsman = given(&options.pointsman, "pointsman")?;
    let upstream = process::Simulator::start(&simulator, scratch)?;
    upstream.add_rules(&scenario::rules())?;

    let start = |variant: Variant, workers: u32| {
        let modules = settings::Modules { pointsman: &pointsman, wasm: &options.wasm, noop: &options.noop_wasm };
        Envoy::start(variant, &options.envoy, &modules, upstream.port, scratch, workers)
    };
    let plan = Plan::new(options.starts.max(1), options.rounds.max(1), options.quick);
    if options.quotas {
        report::print_setting(&options.wasm, module_size(&options.wasm)?, &plan);
        return quotas::run(start, &plan);
    }
    if let Some(seconds) = options.pace {
        scratch.fill_logs(options.log_mib);
        let scenario = scenario::all().into_iter().find(|s| s.latency).ok_or("no scenario")?;
        return pace::run(|variant| start(variant, 1), &scenario, seconds, options.log_mib);
    }
    let wanted = |s: &Scenario| s.name.contains(&options.only) && !(options.quick && s.information);
    let scenarios: Vec<Scenario> = scenario::all().into_iter().filter(wanted).collect();
    report::print_setting(&options.wasm, module_size(&options.wasm)?, &plan);
    let (mut all, mut envoys): (Vec<Vec<Cost>>, Vec<Envoy>) = (Vec::new(), Vec::new());
    for _ in 0..plan.starts {
        envoys.clear();
        envoys = Variant::ALL.into_iter().map(|variant| start(variant, 1)).collect::<Result<_>>()?;
        let costs = |scenario: &Scenario| {
            load::measure_cpu(&mut Target::open(&envoys, scenario)?, scenario, &plan.for_scenario(scenario))
        };
        all = load::joined(all, scenarios.iter().map(costs).collect::<Result<_>>()?);
    }
    report::print_cpu_heading();
    let rows = scenarios.iter().zip(&all).map(|(scenario, costs)| (scenario, report::print_cpu(scenario, costs)));
    let ratios: Vec<String> = rows.filter(|(scenario, _)| !scenario.information).map(|(_, ratio)| ratio).collect();
    report::print_latency_heading();
    for scenario in scenarios.iter().filter(|s| s.latency) {
        let mut targets = Target::open_single(&envoys)?;
        let times = load::measure_latency(&mut targets, scenario, &plan)?;
        report::print_latency(scenario, &times);
    }
    if "burst".contains(&options.only) {
        report::print_burst(&burst::measure(&envoys, &plan)?);
    }
    println!();
    for ratio in ratios {
        println!("{ratio}");
    }
    Ok(())
}

fn module_size(path: &Path) -> Result<u64> {
    std::fs::metadata(path).map(|m| m.len()).map_err(|e| format!("{}: {e}", path.display()))
}
