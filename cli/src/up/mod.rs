//! `pointsman up`: renders a policy, runs Envoy on it, and applies policy changes to the running Envoy.

mod address;
mod admin;
mod child;
mod credentials;
mod drain;
mod envoy;
mod health;
mod log_writes;
mod objection;
mod reload;
mod retired;
mod run_directory;
mod say;
mod stop;
mod validation;
mod watch;

use crate::module;
use crate::policy_file::Origin;
use crate::render::gateway_args::GatewayArgs;
use crate::render::inputs::Inputs;
use crate::render::line_break::UntrimmedKeys;
use crate::render::settings::Settings;
use address::NotClaimed;
use envoy::{NotReady, Program};
use log_writes::LogWrites;
use pointsman_core::config::Time;
use reload::{NotApplied, RunningConfig};
use run_directory::{Removal, RunDirectory};
use say::say;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use stop::Stop;
use validation::Validation;
use watch::Watch;

/// Run Envoy on a policy. Apply changes of the policy and its providers without a restart.
///
/// SIGTERM, SIGINT, SIGQUIT and SIGHUP stop the command and Envoy once the requests in flight have ended, or after
/// `--drain`. A second signal stops them at once.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Worker threads of Envoy. Default: one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// The Envoy program, 1.36 or later. Default: $ENVOY, else `envoy` in the PATH.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// The filter module. Default: $POINTSMAN_WASM, else `pointsman.wasm` beside this program, in `../share/pointsman`,
    /// or where `make wasm` put it.
    #[arg(long, value_name = "FILE")]
    wasm: Option<PathBuf>,
    /// How long requests in flight may take to end after the first signal to stop: `60s`, `10m`, or `0s` to stop at
    /// once.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    drain: Duration,
    /// Start even if a provider's key is missing. Its requests then fail with 401 or go to the next model.
    #[arg(long)]
    allow_missing_credentials: bool,
}

/// Time for Envoy to become ready, including the time to compile the module.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The delay before a refused policy is tried again: the initial delay and the maximum. It grows because each try may
/// run Envoy.
const TRY_AGAIN: Duration = Duration::from_secs(10);
const TRY_AGAIN_LATEST: Duration = Duration::from_secs(300);
/// Time for Envoy to exit before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Runs `up`. Exit status: 0 if a signal stops it, 1 if Envoy exits or the policy or the providers are refused, 2 if
/// `up` cannot start.
pub fn run(args: &Args) -> ExitCode {
    // Created before anything is read, so that no change in between is missed.
    let watch = Watch::new(&args.gateway.policy, &args.gateway.providers);
    let inputs = match args.gateway.inputs(Origin::RegularFile) {
        Ok(inputs) => inputs,
        Err(refused) => return refused.report(),
    };
    match serve(args, &inputs, watch) {
        Ok(code) => code,
        Err(message) => {
            say(message);
            ExitCode::from(2)
        }
    }
}

fn serve(args: &Args, inputs: &Inputs, mut watch: Watch) -> Result<ExitCode, String> {
    inputs.warnings.iter().for_each(say);
    credentials::suspicious(&inputs.policy).iter().for_each(|line| say(format_args!("warning: {line}")));
    let missing = credentials::missing(&inputs.policy);
    if !missing.is_empty() {
        if !args.allow_missing_credentials {
            return Err(format!("{}\n(use --allow-missing-credentials to start anyway)", missing.join("\n")));
        }
        missing.iter().for_each(|line| say(format_args!("warning: {line}")));
    }
    let program = Program::find(args.envoy.as_deref())?;
    let untrimmed = UntrimmedKeys::of(&inputs.policy, program.version).faults();
    if !untrimmed.is_empty() && !args.allow_missing_credentials {
        return Err(untrimmed.join("\n"));
    }
    let (wasm, warning) = module::find(args.wasm.as_deref())?;
    warning.iter().for_each(|line| say(format_args!("warning: {line}")));
    let stop = Stop::on_signals().map_err(|e| e.to_string())?;
    let stopped = || stop.is_told();
    args.gateway.check()?;
    let mut addresses = vec![("--listen", args.gateway.listen), ("--admin", args.gateway.admin)];
    addresses.extend(args.gateway.metrics.map(|address| ("--metrics", address)));
    let claim = match address::claim(&addresses, START_LIMIT, &stopped) {
        Ok(claim) => claim,
        Err(NotClaimed::Stopped) => return Ok(ExitCode::SUCCESS),
        Err(NotClaimed::Taken(lines)) => return Err(lines.join("\n")),
    };
    let directory = RunDirectory::create().map_err(|e| format!("cannot create a temporary directory: {e}"))?;
    let settings = Settings {
        command: "pointsman up".to_owned(),
        version: program.version,
        prefix: directory.path().display().to_string(),
        wasm,
        listen: args.gateway.listen,
        admin: args.gateway.admin,
        metrics: args.gateway.metrics,
        full_admin: args.gateway.full_admin,
        max_heap: args.gateway.max_heap,
        access_log: args.gateway.access_log.clone(),
        // `up` renames each file, and waits for Envoy to load it: no other file's rename may count.
        watches_directory: false,
        shared: false,
        mesh: None,
    };
    let validation =
        Validation { envoy: &program, settings: &settings, directory: directory.path(), policy: &args.gateway.policy };
    if let Err(lines) = validation.run(inputs, &stopped) {
        lines.iter().for_each(say);
        return Ok(if stopped() { ExitCode::SUCCESS } else { ExitCode::from(1) });
    }
    let mut live = RunningConfig::start(directory.path(), settings, inputs, args.allow_missing_credentials)
        .map_err(|e| e.to_string())?;

    let mut process = program.start(directory.path(), args.concurrency)?;
    let (admin, address) = match process.ready(START_LIMIT, &stopped) {
        Ok(ready) => ready,
        Err(NotReady::Stopped) => {
            process.stop(STOP_LIMIT);
            return Ok(ExitCode::SUCCESS);
        }
        Err(NotReady::Ended(status)) => return Err(format!("Envoy did not start: {status}")),
        Err(NotReady::Timeout) => return Err(format!("Envoy was not ready after {} s", START_LIMIT.as_secs())),
    };
    drop(claim);
    if let Err(line) = reload::applied(&admin) {
        process.stop(STOP_LIMIT);
        say(line);
        return Ok(ExitCode::from(1));
    }
    health::unavailable(&admin, &inputs.policy).iter().for_each(|line| say(format_args!("warning: {line}")));
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "listening on http://{address}").and_then(|()| stdout.flush());

    let mut log_writes = LogWrites::new(&args.gateway.access_log);
    let mut removal = Removal::default();
    let mut next_look = Instant::now();
    // The last refusal, and when to try again: its cause need not be in the watched files.
    let mut refused: Option<(Vec<String>, Instant)> = None;
    let mut pause = TRY_AGAIN;
    loop {
        if stopped() {
            stop.acknowledge();
            drain::drain(&mut process, &admin, live.awaits_redis(), args.drain, &|| stop.is_told_again());
            process.stop(STOP_LIMIT);
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(status) = process.ended() {
            say(format_args!("Envoy exited: {status}"));
            return Ok(ExitCode::from(1));
        }
        if next_look <= Instant::now() {
            next_look = Instant::now() + Duration::from_millis(250);
            removal.look(&directory, &live).iter().for_each(say);
            let start = Instant::now();
            let is_due = refused.as_ref().is_some_and(|(_, at)| *at <= start);
            let is_changed = watch.changed();
            if is_changed || is_due {
                pause = if is_changed { TRY_AGAIN } else { TRY_AGAIN_LATEST.min(pause * 2) };
                let applied = match removal.is_of_directory {
                    true => Err(NotApplied::Refused(vec![directory.removed()])),
                    false => live.reload(&program, &admin, &args.gateway, &stopped),
                };
                match applied {
                    Ok(()) => {
                        refused = None;
                        say(format_args!("policy applied: {} ms", start.elapsed().as_millis()));
                    }
                    Err(NotApplied::Refused(lines)) => {
                        // Repeated reasons are reported only once.
                        if is_changed || refused.as_ref().is_none_or(|(before, _)| *before != lines) {
                            let say_one =
                                |line| say(format_args!("policy rejected, still serving the previous one: {line}"));
                            lines.iter().for_each(say_one);
                        }
                        refused = Some((lines, Instant::now() + pause));
                    }
                    Err(NotApplied::Stopped) => continue,
                }
            }
            if !removal.is_of_directory {
                live.prune(&admin, &stopped);
            }
            live.keys.news().iter().for_each(|line| say(format_args!("warning: {line}")));
            log_writes.look(&admin).iter().for_each(say);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Parses a length of time, as in a policy.
fn time(text: &str) -> Result<Duration, String> {
    let time = Time::deserialize(text.into_deserializer()).map_err(|e: serde::de::value::Error| e.to_string())?;
    Ok(Duration::from_millis(time.0))
}
