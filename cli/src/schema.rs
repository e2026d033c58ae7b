//! `pointsman schema`: the JSON Schema of a policy, for editors.

use pointsman_core::config::Config;
use std::io::Write;
use std::process::ExitCode;

/// Print the JSON Schema of a policy, as checked in at policies/policy.schema.json.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the schema, followed by a newline.
pub fn run(Args {}: &Args) -> ExitCode {
    let schema = schemars::schema_for!(Config);
    match serde_json::to_string_pretty(&schema).map(|text| writeln!(std::io::stdout(), "{text}")) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // Standard output is closed.
        Ok(Err(_)) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("schema: {error}");
            ExitCode::FAILURE
        }
    }
}
