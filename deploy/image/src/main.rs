//! Packs the filter module as an OCI image layout, without Docker, in both variants of the Wasm image specification.

mod layer;
mod layout;
mod variants;

use clap::Parser;
use layout::Layout;
use std::path::PathBuf;
use std::process::ExitCode;

/// Packs a filter module as an OCI image, and prints the digests.
///
/// The layout holds the image twice: as an ordinary image `FROM scratch` with `plugin.wasm`, under the tag, and as an
/// artifact with media types of its own, under the tag with `-oci`.
#[derive(Parser)]
#[command(name = "pointsman-image", version)]
struct Args {
    /// The module.
    #[arg(long, value_name = "FILE")]
    wasm: PathBuf,
    /// The directory of the OCI layout. It is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The tag.
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<Vec<String>, String> {
    let named = |path: &PathBuf| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    let module = std::fs::read(&args.wasm).map_err(named(&args.wasm))?;
    if !module.starts_with(b"\0asm") {
        return Err(format!("{}: not a WebAssembly module", args.wasm.display()));
    }
    let mut layout = Layout::create(&args.out).map_err(named(&args.out))?;
    let images = [
        (args.tag.clone(), variants::compat(&mut layout, &module)),
        (format!("{}-oci", args.tag), variants::artifact(&mut layout, &module)),
    ];
    let mut lines = Vec::new();
    for (tag, manifest) in images {
        let manifest = manifest.map_err(named(&args.out))?;
        let digest = layout.add(&tag, &manifest).map_err(named(&args.out))?;
        lines.push(format!("{digest}  oci:{}:{tag}", args.out.display()));
    }
    layout.finish().map_err(named(&args.out))?;
    Ok(lines)
}
