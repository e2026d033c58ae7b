//! What `pointsman up` reads and writes: which files it takes for a policy, and which changes it notices.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use rustix::fs::{FlockOperation, flock};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use support::running::{PATIENCE, Port, Up, await_some, inputs, up, up_at};
use support::{Scratch, policy, text};

/// Runs `up` with this `--policy` by a shell, which knows `<(…)`. Returns its exit status and what it said.
fn refused(scratch: &Scratch, path: &str) -> (Option<i32>, String) {
    let plain = up(scratch);
    let mut arguments: Vec<_> = plain.get_args().map(|word| word.to_str().unwrap()).collect();
    let at = arguments.iter().position(|word| *word == "--policy").unwrap();
    arguments[at + 1] = path;
    let line = format!("exec '{}' {}", plain.get_program().display(), arguments.join(" "));
    let output = Command::new("bash").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), scratch.hide(&text(&output)))
}

#[test]
fn a_policy_that_cannot_be_read_again_is_refused() {
    let scratch = inputs("up-fifo", "PATH");
    let _socket = UnixListener::bind(scratch.path("socket")).unwrap();
    assert!(Command::new("mkfifo").arg(scratch.path("fifo")).status().unwrap().success());
    let here = scratch.path("").display().to_string();
    let here = here.trim_end_matches('/');
    let not_again = "which cannot be read again; name a regular file";
    for (path, said) in [
        (format!("{here}/fifo"), format!("HERE/fifo: error: is a FIFO, {not_again}\n")),
        (format!("{here}/socket"), format!("HERE/socket: error: is a socket, {not_again}\n")),
        ("/dev/zero".to_owned(), format!("/dev/zero: error: is a device, {not_again}\n")),
        ("-".to_owned(), format!("stdin: error: is standard input, {not_again}\n")),
        (format!("{here}/providers"), "HERE/providers: error: is a directory; name the policy file in it\n".to_owned()),
    ] {
        assert_eq!(refused(&scratch, &path), (Some(2), said), "{path}");
    }
    let (status, said) = refused(&scratch, &format!("<(cat '{here}/policy.yaml')"));
    assert!(said.starts_with("/dev/fd/") && said.ends_with(&format!(": error: is a FIFO, {not_again}\n")), "{said}");
    assert_eq!(status, Some(2));
}

/// A provider's file is read again too; and a FIFO without a writer would keep `up` from starting.
#[test]
fn a_provider_file_that_cannot_be_read_again_is_refused() {
    let scratch = inputs("up-provider-fifo", "PATH");
    std::fs::remove_file(scratch.path("providers/a.yaml")).unwrap();
    assert!(Command::new("mkfifo").arg(scratch.path("providers/a.yaml")).status().unwrap().success());
    let output = up(&scratch).output().unwrap();
    let said = scratch.hide(&text(&output));
    let expected = "HERE/providers/a.yaml: error: is a FIFO, which cannot be read again; name a regular file\n";
    assert!(output.status.code() == Some(1) && said.contains(expected), "{said}");
}

#[test]
fn check_reads_what_can_be_read_once() {
    let scratch = inputs("check-once", "PATH");
    let program = env!("CARGO_BIN_EXE_pointsman");
    let line = format!("exec '{program}' check <(cat '{}')", scratch.path("policy.yaml").display());
    let output = Command::new("bash").args(["-c", &line]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_policy_replaced_by_one_of_the_same_size_and_time_is_applied() {
    let scratch = inputs("up-same-time", "POINTSMAN_TEST_KEY");
    let file = scratch.path("policy.yaml");
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let up = Up::start(&scratch);
    let other = policy("POINTSMAN_TEST_KEY").replace("chat", "talk");
    assert_eq!(other.len(), policy("POINTSMAN_TEST_KEY").len());
    let new = scratch.write("next.yaml", &other);
    std::fs::File::options().write(true).open(&new).unwrap().set_modified(time).unwrap();
    std::fs::rename(&new, &file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), time);
    up.says("policy applied: ");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_policy_that_becomes_a_fifo_is_refused_and_up_goes_on() {
    let scratch = inputs("up-becomes-fifo", "POINTSMAN_TEST_KEY");
    let file = scratch.path("policy.yaml");
    let up = Up::start(&scratch);
    std::fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    up.says(&format!("{}: error: is a FIFO, which cannot be read again", file.display()));
    std::fs::remove_file(&file).unwrap();
    scratch.write("policy.yaml", &policy("POINTSMAN_TEST_KEY").replace("chat", "talk"));
    up.says("policy applied: ");
}

/// Envoy counts what it cannot write, and says nothing.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_access_log_that_cannot_be_written_is_reported() {
    let scratch = inputs("up-full", "POINTSMAN_TEST_KEY");
    let plain = up(&scratch);
    let mut command = Command::new(plain.get_program());
    command.args(plain.get_args().map(|word| if word == "-" { "/dev/full".as_ref() } else { word }));
    let up = Up::run(command, &scratch, &support::envoy());
    assert!(up.get("/v1/models").starts_with("HTTP/1.1 401"));
    up.says("warning: access log /dev/full: Envoy cannot write to it (");
}

/// Envoy goes on to write to the file that has no name any more.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_access_log_that_is_removed_is_reported_and_can_be_made_anew() {
    let scratch = inputs("up-log-removed", "POINTSMAN_TEST_KEY");
    let (any, port) = ("127.0.0.1:0".parse().unwrap(), Port::reserve());
    let plain = up_at(&scratch, any, port.address);
    let log = scratch.path("access.log");
    let mut command = Command::new(plain.get_program());
    command.args(plain.get_args().map(|word| if word == "-" { log.as_os_str() } else { word }));
    let up = Up::run(command, &scratch, &support::envoy());
    std::fs::remove_file(&log).unwrap();
    up.says(&format!("warning: access log {}: the file was removed", log.display()));
    assert_eq!(admin(&port, "POST", "/reopen_logs"), "200");
    let is_written = || {
        up.get("/v1/models");
        std::fs::read_to_string(&log).is_ok_and(|text| !text.is_empty()).then_some(())
    };
    await_some(is_written, || "no record after reopening".to_owned());
}

/// Sends a request to the admin interface of an Envoy, and returns its status.
fn admin(of: &Port, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(of.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Envoy's own log would have the keys of callers.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_admin_interface_changes_no_log_level() {
    let scratch = inputs("up-admin", "POINTSMAN_TEST_KEY");
    let hidden = [
        ("POST", "/logging?level=debug"),
        ("POST", "/logging?level=debug&x=/ready"),
        ("POST", "//logging?level=debug"),
        ("POST", "/ready/../logging?level=debug"),
        ("GET", "/heap_dump"),
        ("POST", "/runtime_modify?a=b"),
        ("GET", "/"),
        ("POST", "/quitquitquit"),
    ];
    let can_hide = !support::envoy_version().starts_with("1.36");
    for full in [false, true] {
        let (any, port) = ("127.0.0.1:0".parse().unwrap(), Port::reserve());
        let mut command = up_at(&scratch, any, port.address);
        if full {
            command.arg("--full-admin");
        }
        let mut up = Up::run(command, &scratch, &support::envoy());
        for path in ["/ready", "/stats?filter=x", "/stats/prometheus", "/clusters", "/config_dump?resource=x"] {
            assert_ne!(admin(&port, "GET", path), "403", "{path}");
        }
        if can_hide && !full {
            for (method, path) in hidden {
                assert_ne!(admin(&port, method, path), "200", "{path}");
            }
            up.signal("-TERM");
            assert_eq!(up.ends(), Some(0));
        } else {
            assert_eq!(admin(&port, "POST", "/logging?level=warning"), "200");
            assert_eq!(admin(&port, "POST", "/quitquitquit"), "200");
            assert_eq!(up.ends(), Some(1));
        }
    }
}

/// Returns the only directory in a directory.
fn only_in(parent: PathBuf) -> PathBuf {
    let mut all: Vec<_> = std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn files_that_are_cleaned_away_are_put_back() {
    let scratch = inputs("up-cleaned", "POINTSMAN_TEST_KEY");
    let up = Up::start(&scratch);
    let run = only_in(scratch.path("tmp"));
    for file in ["cds.yaml", "ecds.yaml", "rds.yaml", "sds-b.yaml"] {
        std::fs::remove_file(run.join(file)).unwrap();
        up.says(&format!("warning: {} was removed; put back", run.join(file).display()));
    }
    scratch.write("policy.yaml", &policy("POINTSMAN_TEST_KEY").replace("chat", "talk"));
    up.says("policy applied: ");
}

/// Envoy watches the directory, not its name, so a new one is of no use.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn when_the_directory_is_gone_it_says_so_and_serves_on() {
    let scratch = inputs("up-gone", "POINTSMAN_TEST_KEY");
    let mut up = Up::start(&scratch);
    let run = only_in(scratch.path("tmp"));
    // At once: file by file, `up` would put some back meanwhile.
    let away = run.with_extension("away");
    std::fs::rename(&run, &away).unwrap();
    std::fs::remove_dir_all(&away).unwrap();
    let removed = format!("{} was removed, and Envoy sees no new files; restart `pointsman up`", run.display());
    up.says(&format!("warning: {removed}. Requests are still served"));
    scratch.write("policy.yaml", &policy("POINTSMAN_TEST_KEY").replace("chat", "talk"));
    up.says(&format!("policy rejected, still serving the previous one: {removed}"));
    assert!(up.get("/healthz").starts_with("HTTP/1.1 200"));
    up.signal("-TERM");
    assert_eq!(up.ends(), Some(0));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn under_systemd_the_files_are_in_the_services_own_directory_and_everywhere_they_are_locked() {
    let scratch = inputs("up-runtime", "POINTSMAN_TEST_KEY");
    std::fs::create_dir(scratch.path("run")).unwrap();
    let plain = up(&scratch);
    let mut command = Command::new("env");
    command.arg(format!("RUNTIME_DIRECTORY={}:/another", scratch.path("run").display()));
    command.arg(plain.get_program()).args(plain.get_args());
    let mut up = Up::run(command, &scratch, &support::envoy());
    let run = only_in(scratch.path("run"));
    assert!(run.join("cds.yaml").is_file());
    let directory = std::fs::File::open(&run).unwrap();
    assert!(flock(&directory, FlockOperation::NonBlockingLockShared).is_err());
    up.signal("-TERM");
    assert_eq!(up.ends(), Some(0));
    assert_eq!(std::fs::read_dir(scratch.path("run")).unwrap().count(), 0, "it is gone");
}
