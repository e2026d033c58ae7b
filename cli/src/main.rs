//! The `pointsman` command: one subcommand per file, each with its `Args` and its `run`.

mod check;
mod doctor;
mod document;
mod excerpt;
mod finding;
mod hash_key;
mod module;
mod policy_file;
mod regular_file;
mod render;
mod schema;
mod secrets;
mod source;
mod syntax_message;
mod text_index;
mod text_report;
mod time_zone;
mod up;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::process::ExitCode;

/// Tools for the policies of the Pointsman LLM gateway.
#[derive(Parser)]
#[command(name = "pointsman", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Args),
    Schema(schema::Args),
    HashKey(hash_key::Args),
    Render(Box<render::Args>),
    Up(Box<up::Args>),
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    let given = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&given).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Check(args) => check::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::HashKey(args) => hash_key::run(&args),
        Command::Render(args) => render::run(&args, given.subcommand_matches("render").unwrap_or(&given)),
        Command::Up(args) => up::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}
