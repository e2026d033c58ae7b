//! What `make install` installs works from any directory: the command finds its module.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::running::{Up, inputs};
use support::{Scratch, envoy, root, text, wasm};

/// Installs this build with `module`. Returns the command.
fn install(scratch: &Scratch, module: &Path) -> PathBuf {
    let programs = Path::new(env!("CARGO_BIN_EXE_pointsman")).parent().unwrap();
    let mut install = Command::new(root().join("cli/install.sh"));
    let output = install.arg(programs).arg(module).arg(scratch.path("prefix")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = scratch.hide(&text(&output));
    assert_eq!(
        said,
        "installed HERE/prefix/bin/pointsman; providers and policies to start from are in HERE/prefix/share/pointsman\n\
         HERE/prefix/bin is not in your PATH: export PATH=HERE/prefix/bin:$PATH\n"
    );
    scratch.path("prefix/bin/pointsman")
}

/// Returns the arguments of `command`, run from the root directory without any of the variables that name a module.
fn run(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").env_remove("POINTSMAN_WASM");
    command
}

#[test]
fn the_installed_command_finds_its_module_and_the_files_to_start_from() {
    let scratch = Scratch::new("install");
    let module = scratch.path("module.wasm");
    let mark = format!("\x09pointsman{}", env!("CARGO_PKG_VERSION"));
    let length = u8::try_from(mark.len()).unwrap();
    std::fs::write(&module, [b"\0asm\x01\0\0\0\0", &[length][..], mark.as_bytes()].concat()).unwrap();
    let program = install(&scratch, &module);

    let share = scratch.path("prefix/share/pointsman");
    let (policy, providers) = (share.join("policies/hybrid.yaml"), share.join("providers"));
    let mut render = run(&program, &["render", "--policy"]);
    render.arg(&policy).arg("--providers").arg(&providers).arg("--out").arg(scratch.path("out"));
    let output = render.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(
        scratch.hide(&text(&output)),
        "warning: no filter module at HERE/out/pointsman.wasm; copy HERE/prefix/share/pointsman/pointsman.wasm there, \
         or set --wasm\n"
    );
    // Once it is there, there is nothing to say.
    std::fs::copy(&module, scratch.path("out/pointsman.wasm")).unwrap();
    assert_eq!(text(&render.output().unwrap()), "");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn up_runs_the_installed_module() {
    let scratch = inputs("install-up", "POINTSMAN_TEST_KEY");
    let program = install(&scratch, &wasm());
    let mut command = run(&program, &["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policy"]);
    command.arg(scratch.path("policy.yaml")).arg("--providers").arg(scratch.path("providers"));
    let up = Up::without_module(command, &scratch);
    assert!(up.get("/healthz").starts_with("HTTP/1.1 200"));
    drop(up);

    // A module that is named is the only one that counts.
    let mut command = run(&program, &["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policy"]);
    command.arg(scratch.path("policy.yaml")).arg("--providers").arg(scratch.path("providers"));
    command.arg("--envoy").arg(envoy()).env("POINTSMAN_TEST_KEY", "k").env("POINTSMAN_WASM", scratch.path("none.wasm"));
    let output = command.output().unwrap();
    let message = "no filter module at HERE/none.wasm; build it with `make wasm`, or set --wasm or $POINTSMAN_WASM\n";
    assert_eq!((output.status.code(), &*scratch.hide(&text(&output))), (Some(2), message));
}
