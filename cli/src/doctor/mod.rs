//! `pointsman doctor`: reads the configuration of a running Envoy and says what of Pointsman's needs it lacks.

mod admin;
mod bootstrap;
mod dump;
mod filter_chain;
mod finding;
mod logs;
mod plans;
mod providers;
mod routes;
mod stage;
#[cfg(test)]
mod tests;

use admin::Admin;
use dump::Dump;
use filter_chain::Chain;
use finding::Finding;
use pointsman_core::policy::Policy;
use pointsman_core::policy::parse;
use serde_json::Value;
use stage::Stage;
use std::path::PathBuf;
use std::process::ExitCode;

/// Say what a running Envoy lacks to be a gateway, and the line to add.
///
/// The policy is read from Envoy's own configuration. Nothing is changed.
#[derive(clap::Args)]
pub struct Args {
    /// Envoy's admin interface.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    admin: String,
    /// Read a saved answer of `/config_dump?include_eds` instead. The admin interface is then not looked at.
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    dump: Option<PathBuf>,
}

/// Runs `doctor`. Exit status: 0 if nothing is missing, 1 if something is, 2 if the configuration cannot be read.
pub fn run(args: &Args) -> ExitCode {
    let read = match &args.dump {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|e| e.to_string())
            .and_then(|text| Dump::read(&text, None))
            .map_err(|e| format!("{}: {e}", file.display())),
        None => Admin::new(&args.admin).dump().map_err(|e| format!("{}: {e}", args.admin)),
    };
    let dump = match read {
        Ok(dump) => dump,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let report = examine(&dump);
    report.findings.iter().for_each(|finding| println!("{finding}"));
    match report.findings.len() {
        0 => println!("{}: nothing is missing", report.seen),
        1 => println!("{}: 1 thing is missing", report.seen),
        count => println!("{}: {count} things are missing", report.seen),
    }
    if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// What was found.
struct Report {
    /// What was looked at.
    seen: String,
    findings: Vec<Finding>,
}

fn examine(dump: &Dump) -> Report {
    let mut findings = dump.rejected();
    let chains = filter_chain::with_gateway(dump);
    if chains.is_empty() {
        findings.push(Finding::new(
            "listeners",
            "no listener has the gateway stage",
            "no request reaches Pointsman",
            "the filter `pointsman.gateway` before the router: listeners[].filter_chains[].filters[].typed_config.\
             http_filters, as in bootstrap.yaml of `pointsman render`",
        ));
    }
    // A control plane may put the filter, switched off, into all listeners of a gateway.
    let is_used = |chain: &&Chain| !chain.is_disabled || routes::use_gateway(dump, chain);
    let used: Vec<&Chain> = chains.iter().filter(is_used).collect();
    let examined = if used.is_empty() { chains.iter().take(1).collect() } else { used };
    let mut policies: Vec<Policy> = Vec::new();
    for chain in &examined {
        findings.extend(chain.examine(dump.version));
        let Some(gateway) = &chain.gateway else { continue };
        match policy(gateway) {
            Ok(policy) => {
                findings.extend(routes::examine(dump, chain, &policy));
                findings.extend(plans::examine(dump, gateway, &policy));
                findings.extend(providers::examine(dump, &policy));
                policies.push(policy);
            }
            Err(why) => findings.push(Finding::new(
                &chain.place,
                &format!("the gateway stage has no valid policy: {why}"),
                "Envoy answers every request with 500, or serves an older policy",
                "configuration: {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: <policy as JSON>}",
            )),
        }
    }
    findings.extend(bootstrap::examine(dump));
    // Listeners with the same policy miss the same clusters.
    let mut distinct: Vec<Finding> = Vec::new();
    for finding in findings {
        if !distinct.contains(&finding) {
            distinct.push(finding);
        }
    }
    let plans: usize = policies.iter().map(|policy| pointsman_core::policy::clusters::plans(policy).len()).sum();
    let version = dump.version.map_or_else(|| "Envoy".to_owned(), |version| format!("Envoy {version}"));
    Report {
        seen: format!("{version}, {} with the gateway stage, {plans} plans", listeners(examined.len())),
        findings: distinct,
    }
}

fn listeners(count: usize) -> String {
    if count == 1 { "1 listener".to_owned() } else { format!("{count} listeners") }
}

/// Returns the policy of a gateway stage.
fn policy(gateway: &Stage) -> Result<Policy, String> {
    let configuration = gateway.configuration().ok_or("no configuration that is text")?;
    let plugin: Value = serde_json::from_str(configuration).map_err(|e| e.to_string())?;
    let document = plugin.get("policy").ok_or("no member \"policy\"")?;
    let problems = match parse::from_value(document) {
        Ok((_, policy)) => return Ok(policy),
        Err(problems) => problems,
    };
    Err(problems.first().map_or_else(|| "unknown".to_owned(), ToString::to_string))
}
