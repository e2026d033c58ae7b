//! The `simulator` command: flags, listeners and a clean stop.
//!
//! The simulator speaks an LLM provider's wire protocol; only the model is simulated. Tests script it through `/_sim/`,
//! and a prompt can ask it for a fault with `[[sim:{…}]]`. It identifies itself as a simulator in the `server` header
//! and in the text of every default answer. `README.md` beside this crate describes all of it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod answer;
mod anthropic;
mod behavior;
mod body;
mod chunked;
mod control;
mod dialect;
mod directive;
mod endpoint;
mod health;
mod holds;
mod listen;
mod openai;
mod player;
mod record;
mod refusal;
mod reply;
mod rerank;
mod responses;
mod rules;
mod schema;
mod seal;
mod serve;
mod speech;
mod sse;
mod tls;
mod wire;
mod write;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// A simulated LLM provider: the wire protocol is real, the model is not.
#[derive(Debug, Parser)]
#[command(name = "simulator", version)]
struct Flags {
    /// The address to listen on; may be repeated, to pose as several providers. Port 0 picks a free port.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: Vec<SocketAddr>,
    /// The provider it poses as, named in its default answers.
    #[arg(long, default_value = "simulator")]
    name: String,
    /// A model that `GET /v1/models` lists; may be repeated.
    #[arg(long = "model", default_values = ["sim-small", "sim-large"])]
    models: Vec<String>,
    /// Keep no log of requests (for benchmarks).
    #[arg(long)]
    no_record: bool,
    /// Milliseconds before the first token, unless a behavior says otherwise.
    #[arg(long, default_value_t = 0)]
    ttft_ms: u64,
    /// Milliseconds between chunks, unless a behavior says otherwise.
    #[arg(long, default_value_t = 0)]
    chunk_ms: u64,
    /// Worker threads; one is cheapest, and enough for most gateways.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// A PEM certificate chain: every listener then accepts TLS as well as plain connections.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let mut builder = if flags.threads > 1 {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    if flags.threads > 1 {
        builder.worker_threads(flags.threads);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("simulator: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(flags));
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGTERM or SIGINT.
async fn run(flags: Flags) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tls = match flags.tls_cert.as_deref().zip(flags.tls_key.as_deref()) {
        Some((certificate, key)) => Some(tls::load(certificate, key)?),
        None => None,
    };
    let sim = Arc::new(serve::Sim::new(serve::Settings {
        name: flags.name,
        models: flags.models,
        record: !flags.no_record,
        ttft_ms: flags.ttft_ms,
        chunk_ms: flags.chunk_ms,
        listeners: flags.listen.len(),
        tls,
    }));
    for (index, address) in flags.listen.iter().enumerate() {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|error| std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
        let local = listener.local_addr()?;
        tokio::spawn(listen::accept(Arc::clone(&sim), listener, listen::Place { index, port: local.port() }));
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening on {local}")?;
        out.flush()?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
