//! A running `pointsman up`, and what its tests start it with.

#![allow(clippy::unwrap_used, clippy::panic, dead_code, missing_docs)]

use super::{Scratch, cluster, envoy, pointsman, policy, text, wasm};
use rustix::net;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Writes a policy and its providers to a scratch directory.
pub fn inputs(name: &str, variable: &str) -> Scratch {
    let scratch = Scratch::new(name);
    scratch.write("policy.yaml", &policy(variable));
    scratch.write("providers/a.yaml", &cluster("a", 1));
    scratch.write("providers/b.yaml", &cluster("b", 2));
    scratch
}

pub fn up(scratch: &Scratch) -> Command {
    let any = "127.0.0.1:0".parse().unwrap();
    up_at(scratch, any, any)
}

/// Like [`up`], listening at these addresses.
pub fn up_at(scratch: &Scratch, listen: SocketAddr, admin: SocketAddr) -> Command {
    let mut command = pointsman();
    command.args(["up", "--access-log", "-", "--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    command.arg("--policy").arg(scratch.path("policy.yaml")).arg("--providers").arg(scratch.path("providers"));
    command
}

/// A port of this machine that no other process is given.
pub struct Port {
    pub address: SocketAddr,
    _held: OwnedFd,
}

impl Port {
    pub fn reserve() -> Self {
        // A socket that is bound and never listens does not hinder one that sets SO_REUSEADDR, as Envoy's do.
        let held = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).unwrap();
        net::sockopt::set_socket_reuseaddr(&held, true).unwrap();
        net::bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = net::getsockname(&held).unwrap();
        Self { address: address.try_into().unwrap(), _held: held }
    }
}

/// The time limit of every wait. It is generous, because test machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `found` returns a value. Panics with `why` if it never does.
pub fn await_some<T>(mut found: impl FnMut() -> Option<T>, why: impl Fn() -> String) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "{}", why());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running `up`, stopped when it is dropped.
pub struct Up {
    pub child: Child,
    pub address: String,
    pub errors: Arc<Mutex<String>>,
}

/// Returns `pointsman` as the tests run it: with a key and a temporary directory of its own.
fn equipped(pointsman: &Command, scratch: &Scratch) -> Command {
    // The test runner may ignore SIGHUP (`nohup`); the child must not.
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").arg(pointsman.get_program()).args(pointsman.get_args());
    command.args(["--concurrency", "1"]).current_dir("/").env_remove("POINTSMAN_WASM");
    std::fs::create_dir_all(scratch.path("tmp")).unwrap();
    command.env("TMPDIR", scratch.path("tmp")).env("POINTSMAN_TEST_KEY", "k");
    command
}

/// Runs an `up` that ends by itself, on the real Envoy. Returns its exit status and all that it said.
pub fn ends(mut pointsman: Command, scratch: &Scratch) -> (Option<i32>, String) {
    pointsman.arg("--envoy").arg(envoy());
    if !pointsman.get_args().any(|argument| argument == "--wasm") {
        pointsman.arg("--wasm").arg(wasm());
    }
    let mut command = equipped(&pointsman, scratch);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
            panic!("it runs: {}", text(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), text(&output))
}

impl Up {
    pub fn start(scratch: &Scratch) -> Self {
        Self::start_on(scratch, &envoy())
    }

    pub fn start_on(scratch: &Scratch, envoy: &Path) -> Self {
        Self::run(up(scratch), scratch, envoy)
    }

    pub fn run(pointsman: Command, scratch: &Scratch, envoy: &Path) -> Self {
        Self::try_run(pointsman, scratch, envoy).unwrap_or_else(|said| panic!("{said}"))
    }

    /// Starts it. Returns what it said if it ends without listening.
    pub fn try_run(pointsman: Command, scratch: &Scratch, envoy: &Path) -> Result<Self, String> {
        Self::try_run_with(pointsman, scratch, envoy, Some(&wasm()))
    }

    /// Starts one that finds its module by itself.
    pub fn without_module(pointsman: Command, scratch: &Scratch) -> Self {
        Self::try_run_with(pointsman, scratch, &envoy(), None).unwrap_or_else(|said| panic!("{said}"))
    }

    fn try_run_with(
        pointsman: Command,
        scratch: &Scratch,
        envoy: &Path,
        module: Option<&Path>,
    ) -> Result<Self, String> {
        let mut command = equipped(&pointsman, scratch);
        command.arg("--envoy").arg(envoy);
        if let Some(module) = module {
            command.arg("--wasm").arg(module);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let (mut stderr, all) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&errors));
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|n| n > 0) {
                all.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Some(address) = line.trim().strip_prefix("listening on http://").map(str::to_owned) else {
            let _ = child.wait();
            reader.join().unwrap();
            return Err(format!("{line}{}", errors.lock().unwrap()));
        };
        // Access log lines follow, and the pipe must be drained.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Ok(Self { child, address, errors })
    }

    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    /// Waits until standard error contains `words`.
    pub fn says(&self, words: &str) {
        await_some(
            || self.errors.lock().unwrap().contains(words).then_some(()),
            || format!("not said: {words}\n{}", self.errors.lock().unwrap()),
        );
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Returns the process id of its Envoy.
    pub fn envoy(&self) -> String {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id())).unwrap();
        children.split_whitespace().next().unwrap().to_owned()
    }

    pub fn ends(&mut self) -> Option<i32> {
        let (child, errors) = (&mut self.child, &self.errors);
        let status = || format!("it has not ended\n{}", errors.lock().unwrap());
        await_some(|| child.try_wait().unwrap(), status).code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // SIGTERM first, so that Envoy ends too.
        if self.child.try_wait().unwrap().is_none() {
            self.signal("-TERM");
            let _ = self.child.wait();
        }
    }
}

/// Writes a wrapper around the real Envoy. `script` may exit; otherwise Envoy runs.
pub fn before_envoy(scratch: &Scratch, script: &str) -> PathBuf {
    let path = scratch.write("envoy", &format!("#!/bin/sh\n{script}\nexec '{}' \"$@\"\n", envoy().display()));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Returns a script that runs `script` only for `--mode validate`.
pub fn when_validating(script: &str) -> String {
    format!("case \" $* \" in *' --mode validate '*) {script} ;; esac")
}

/// Returns such a script that lets the first validation, of the start, pass.
pub fn when_reloading(scratch: &Scratch, script: &str) -> String {
    let mark = scratch.path("started");
    when_validating(&format!("if [ -e '{0}' ]; then {script}; else : >'{0}'; fi", mark.display()))
}

/// Waits until a process is gone.
pub fn gone(pid: &str) {
    // A zombie that has not been reaped counts as gone.
    let runs = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && !line.contains("zombie"))
    };
    await_some(|| (!runs()).then_some(()), || format!("{pid} still runs"));
}

pub const ANY_KEY: &str = "3a1cdbbac5d6b86d15c4bfb2e6d5bd0c3d2b1a8e6f74d5c6b7a89f0e1d2c3b4a";
pub const SHA256_OF_K: &str = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a";
