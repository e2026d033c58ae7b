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

use clap::{Parser, Subcommand};
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
    match Cli::parse().command {
        Command::Check(args) => check::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::HashKey(args) => hash_key::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}
