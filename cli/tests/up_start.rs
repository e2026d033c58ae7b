//! What `pointsman up` refuses before it says that it listens.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use support::running::{ANY_KEY, Port, SHA256_OF_K, Up, ends, inputs, up, up_at};
use support::{Scratch, cluster, envoy, policy, text, wasm};

#[test]
fn a_missing_key_is_named_with_its_provider() {
    let scratch = inputs("up-key", "POINTSMAN_TEST_UNSET");
    let output = up(&scratch).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output),
        "provider \"b\": the environment variable POINTSMAN_TEST_UNSET is not set\n\
         (use --allow-missing-credentials to start anyway)\n"
    );
}

/// What follows a warning here is an error, which ends `up`.
#[test]
fn a_key_that_would_be_sent_in_the_wrong_form_is_a_warning() {
    let scratch = inputs("up-form", "POINTSMAN_TEST_KEY");
    let without_space = policy("POINTSMAN_TEST_KEY").replace("prefix: \"Bearer \"", "prefix: Bearer");
    scratch.write("policy.yaml", &without_space);
    let mut command = up(&scratch);
    command.args(["--envoy", "/nonexistent/envoy"]).env("POINTSMAN_TEST_KEY", "Bearer sk-live");
    let said = scratch.hide(&text(&command.output().unwrap()));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "HERE/policy.yaml:4:84: warning: providers.b.credential.prefix: \"Bearer\" is not followed by exactly one \
             space before the key; use \"Bearer \"",
            "warning: provider \"b\": the key in POINTSMAN_TEST_KEY already starts with the prefix",
        ]
    );
    assert!(!said.contains("sk-live"), "{said}");
}

#[test]
fn a_missing_or_old_envoy_is_named() {
    let scratch = inputs("up-envoy", "PATH");
    let output = up(&scratch).args(["--envoy", "/nonexistent/envoy"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).starts_with("/nonexistent/envoy: No such file"), "{}", text(&output));
    let old = scratch.write("envoy", "#!/bin/sh\necho \"$0  version: 0123abc/1.35.9/Clean/RELEASE/BoringSSL\"\n");
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = up(&scratch).arg("--envoy").arg(&old).output().unwrap();
    assert_eq!(
        scratch.hide(&text(&output)),
        "HERE/envoy: unsupported version 1.35.9: expected Envoy version 1.36 or later, such as 1.40\n"
    );
}

/// Writes an Envoy of this version that accepts everything, says what key it was given, and ends.
fn talking_envoy(scratch: &Scratch, version: &str) -> PathBuf {
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n--version) echo \"$0  version: 0123abc/{version}/Clean/RELEASE/BoringSSL\" ;;\n\
         *validate*) ;;\n*) printf 'given: %s.\\n' \"$POINTSMAN_TEST_KEY\" >&2; exit 3 ;;\nesac\n"
    );
    let path = scratch.write("envoy", &script);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_key_file_with_a_line_break_is_refused_for_an_envoy_that_does_not_trim_it() {
    let scratch = inputs("up-line-break", "PATH");
    let key = scratch.path("b.key");
    let file = policy("PATH").replace("env: PATH", &format!("file: {}", key.display()));
    scratch.write("policy.yaml", &file);
    let run = |version: &str, flags: &[&str]| {
        let mut command = up(&scratch);
        command.args(flags).args(["--wasm", "/nonexistent"]).arg("--envoy").arg(talking_envoy(&scratch, version));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        scratch.hide(&text(&output))
    };
    scratch.write("b.key", "sk-live\n");
    let said = run("1.39.3", &[]);
    assert_eq!(
        said,
        "provider \"b\": HERE/b.key ends in a line break, with which Envoy before 1.40 answers every request to it \
         with 503; remove it: tr -d '\\r\\n' <HERE/b.key >HERE/b.key.new && mv HERE/b.key.new HERE/b.key\n"
    );
    // The next thing that is wrong.
    for (version, flags) in [("1.40.0", &[][..]), ("1.39.3", &["--allow-missing-credentials"])] {
        let said = run(version, flags);
        assert!(said.contains("no filter module at /nonexistent"), "{version}: {said}");
    }
    scratch.write("b.key", "sk-live");
    assert!(run("1.36.4", &[]).contains("no filter module at /nonexistent"));
}

#[test]
fn envoy_is_given_a_key_of_the_environment_without_its_line_break() {
    for (key, given) in [("sk-1\r\n", "given: sk-1.\n"), ("sk-1", "given: sk-1.\n"), ("a\nb", "given: a\nb.\n")] {
        let scratch = inputs("up-environment", "POINTSMAN_TEST_KEY");
        let module = scratch.path("module.wasm");
        std::fs::write(&module, b"\0asm\x01\0\0\0\0\x0f\x09pointsman9.9.9").unwrap();
        let mut command = up(&scratch);
        command.arg("--wasm").arg(&module).arg("--envoy").arg(talking_envoy(&scratch, "1.38.2"));
        let output = command.env("POINTSMAN_TEST_KEY", key).output().unwrap();
        assert!(text(&output).contains(given), "{}", text(&output));
    }
}

/// The first start is held to what a reload is held to.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_mistake_in_a_providers_file_is_refused_at_the_first_start_too() {
    let scratch = inputs("up-mistakes", "POINTSMAN_TEST_KEY");
    let tls = "transport_socket:\n  name: envoy.transport_sockets.tls\n  typed_config:\n    \
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n    \
        common_tls_context: {validation_contex: {trusted_ca: {filename: /etc/ssl/certs/ca-certificates.crt}}}\n";
    let a = cluster("a", 1);
    for (file, message) in [
        (
            format!("{a}{tls}"),
            "13:26: transport_socket.typed_config.common_tls_context: unknown field \"validation_contex\"",
        ),
        (a.replace("connect_timeout", "connect_timeot"), "3:1: unknown field \"connect_timeot\""),
        (a.replace("STATIC", "STATICAL"), "2:7: unknown enum value: 'STATICAL'"),
        (a.replace("timeout: 1s", "timeout: 0s"), " connect_timeout: value must be greater than 0s"),
        (a.replace("timeout: 1s", "timeout: fast"), " connect_timeout: duration must start with an integer"),
    ] {
        scratch.write("providers/a.yaml", &file);
        let (status, said) = ends(up(&scratch), &scratch);
        let said: String = said.split_inclusive('\n').filter(|line| !line.contains(": warning: ")).collect();
        assert_eq!(scratch.hide(&said), format!("HERE/providers/a.yaml:{message} (reported by Envoy)\n"));
        assert_eq!(status, Some(1), "{said}");
    }
    // Each file with a mistake, and only those.
    scratch.write("providers/a.yaml", &a.replace("STATIC", "STATICAL"));
    scratch.write("providers/b.yaml", &cluster("b", 2).replace("STATIC", "STATICALLY"));
    let (_, said) = ends(up(&scratch), &scratch);
    let lines: Vec<_> = said.lines().map(|line| scratch.hide(line)).collect();
    assert_eq!(
        lines,
        [
            "HERE/providers/a.yaml:2:7: unknown enum value: 'STATICAL' (reported by Envoy)",
            "HERE/providers/b.yaml:2:7: unknown enum value: 'STATICALLY' (reported by Envoy)",
        ]
    );
}

/// Envoy would start on it, and answer every request with 500.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_file_that_is_not_the_module_is_refused() {
    let scratch = inputs("up-module", "POINTSMAN_TEST_KEY");
    let whole = std::fs::read(wasm()).unwrap();
    let other = wasm().with_file_name("noop.wasm");
    for (content, message) in [
        (&b"no module"[..], "not a WebAssembly module"),
        (b"", "not a WebAssembly module"),
        (&whole[..whole.len() / 2], "truncated WebAssembly module"),
        (&std::fs::read(other).unwrap(), "a WebAssembly module, but not Pointsman's"),
    ] {
        let file = scratch.path("module.wasm");
        std::fs::write(&file, content).unwrap();
        let mut command = up(&scratch);
        command.arg("--wasm").arg(&file);
        let (status, said) = ends(command, &scratch);
        assert_eq!((status, scratch.hide(&said)), (Some(2), format!("HERE/module.wasm: {message}\n")));
    }
}

/// Envoy's word counts, not only that of the checks before it: here a module that has the mark and does not load.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_envoy_does_not_load_is_not_served() {
    let scratch = inputs("up-unloadable", "POINTSMAN_TEST_KEY");
    let mut module = b"\0asm\x01\0\0\0\0\x0f\x09pointsman9.9.9".to_vec();
    module.extend_from_slice(b"\x01\x01\xff");
    let file = scratch.path("module.wasm");
    std::fs::write(&file, module).unwrap();
    let mut command = up(&scratch);
    command.arg("--wasm").arg(&file);
    let (status, said) = ends(command, &scratch);
    let said = scratch.hide(&said);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.starts_with("warning: HERE/module.wasm: built from version 9.9.9, but this command is version "),
        "{said}"
    );
    assert!(said.ends_with("Envoy rejected cds.yaml and ecds.yaml; see its messages above\n"), "{said}");
    assert!(!said.contains("listening"), "{said}");
}

/// Envoy would share an address that is in use, and each of the two would get a part of the requests.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_address_that_is_in_use_is_refused() {
    let scratch = inputs("up-taken", "POINTSMAN_TEST_KEY");
    let (listen, admin, free) = (Port::reserve(), Port::reserve(), Port::reserve());
    let first = Up::run(up_at(&scratch, listen.address, admin.address), &scratch, &envoy());
    let in_use =
        "address in use, possibly by another `pointsman up`; stop that process or choose another address".to_owned();
    let (one, other) =
        (format!("--listen {}: {in_use}\n", listen.address), format!("--admin {}: {in_use}\n", admin.address));
    for (second, message) in [
        (up_at(&scratch, listen.address, free.address), one.clone()),
        (up_at(&scratch, free.address, admin.address), other.clone()),
        (up_at(&scratch, listen.address, admin.address), format!("{one}{other}")),
    ] {
        assert_eq!(ends(second, &scratch), (Some(2), message));
    }
    assert!(first.get("/healthz").starts_with("HTTP/1.1 200"));
    drop(first);

    // By a program of another kind.
    let taken = TcpListener::bind(listen.address).unwrap();
    let second = up_at(&scratch, listen.address, free.address);
    assert_eq!(ends(second, &scratch), (Some(2), one));
    drop(taken);
    // And none of that is left: it starts again at once.
    let again = Up::run(up_at(&scratch, listen.address, admin.address), &scratch, &envoy());
    assert!(again.get("/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn of_several_that_start_at_once_on_one_address_one_starts() {
    let listen = Port::reserve();
    let scratches: Vec<Scratch> = (0..3).map(|_| inputs("up-race", "POINTSMAN_TEST_KEY")).collect();
    let admins: Vec<Port> = scratches.iter().map(|_| Port::reserve()).collect();
    let mut started: Vec<Up> = Vec::new();
    let mut refused = Vec::new();
    std::thread::scope(|scope| {
        let run = |(scratch, admin): (_, &Port)| {
            let command = up_at(scratch, listen.address, admin.address);
            scope.spawn(move || Up::try_run(command, scratch, &envoy()))
        };
        let all: Vec<_> = scratches.iter().zip(&admins).map(run).collect();
        for thread in all {
            match thread.join().unwrap() {
                Ok(up) => started.push(up),
                Err(said) => refused.push(said),
            }
        }
    });
    assert_eq!(started.len(), 1, "{refused:?}");
    assert!(refused.iter().all(|said| said.contains("address in use")), "{refused:?}");
}

/// An Envoy that drains no longer listens, so the next one can.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn while_one_drains_the_next_starts_on_its_address() {
    let scratch = inputs("up-next", "POINTSMAN_TEST_KEY");
    scratch.write("policy.yaml", &policy("POINTSMAN_TEST_KEY").replace(ANY_KEY, SHA256_OF_K));
    let (listen, admin, other) = (Port::reserve(), Port::reserve(), Port::reserve());
    let mut first = Up::run(up_at(&scratch, listen.address, admin.address), &scratch, &envoy());
    // A request in flight: its body does not come.
    let mut unfinished = TcpStream::connect(listen.address).unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\ncontent-length: 9\r\n\r\n";
    unfinished.write_all(head.as_bytes()).unwrap();
    // An answer to a later request shows that Envoy has seen it: both are in one worker.
    assert!(first.get("/healthz").starts_with("HTTP/1.1 200"));
    first.signal("-TERM");
    first.says("draining: 1 request in flight; waiting for up to 60 s");
    let next = Up::run(up_at(&scratch, listen.address, other.address), &scratch, &envoy());
    assert!(next.get("/healthz").starts_with("HTTP/1.1 200"));
    drop(unfinished);
    assert_eq!(first.ends(), Some(0));
    assert!(next.get("/healthz").starts_with("HTTP/1.1 200"));
}
