//! Starts and ends the processes of the bench, and provides the directory that they share.

use crate::Result;
use serde_json::Value;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A directory for configurations and logs, removed at the end.
pub struct Scratch {
    directory: TempDir,
    /// The size of a program's output file at its start, in MiB.
    log_mib: Cell<u64>,
}

impl Scratch {
    /// Creates the directory.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pointsman-bench-").tempdir();
        let directory = directory.map_err(|e| format!("cannot create a temporary directory: {e}"))?;
        let scratch = Self { directory, log_mib: Cell::new(0) };
        let providers = scratch.path("providers");
        fs::create_dir_all(&providers).map_err(|e| format!("{}: {e}", providers.display()))?;
        Ok(scratch)
    }

    /// Returns the path of a file in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file in the directory and returns its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    }

    /// Lets the output files of programs begin with this size, in MiB.
    pub fn fill_logs(&self, mib: u64) {
        self.log_mib.set(mib);
    }

    /// Opens a program's output file, filled as [`Self::fill_logs`] says.
    fn output(&self, name: &str) -> std::io::Result<File> {
        let mut file = File::options().create(true).append(true).open(self.path(name))?;
        for _ in 0..self.log_mib.get() {
            file.write_all(&[b'x'; 1 << 20])?;
        }
        Ok(file)
    }

    /// Prints the last lines of the logs, after a failed run.
    pub fn print_logs(&self) {
        for entry in fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "log") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                for line in lines.iter().skip(lines.len().saturating_sub(15)) {
                    eprintln!("{}: {line}", entry.file_name().to_string_lossy());
                }
            }
        }
    }
}

/// Returns a command whose process the kernel kills when this process ends, even by a crash (`setpriv` of util-linux).
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A child process that ends when this value does.
pub struct Process(Child);

impl Process {
    /// Starts `command`, with standard output in `NAME.out` and standard error in `NAME.log`.
    pub fn start(command: &mut Command, name: &str, scratch: &Scratch) -> Result<Self> {
        let log = scratch.path(&format!("{name}.log"));
        let log = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let output = scratch.output(&format!("{name}.out")).map_err(|e| format!("{name}.out: {e}"))?;
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let child = command.spawn().map_err(|e| format!("{}: {e}", command.get_program().to_string_lossy()))?;
        Ok(Self(child))
    }

    /// Waits until `ready` returns true. Fails if the process ends first, or after two minutes.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Err(format!("{what} ended at its start: {status}"));
            }
            if ready() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{what} was not ready in 120 s"))
    }

    /// Returns the resident memory in bytes, as the kernel counts it.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.0.id());
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| format!("{path}: no VmRSS"))
    }

    /// Returns the CPU time of all threads so far, in nanoseconds, from the kernel's scheduler statistics.
    pub fn cpu_ns(&self) -> Result<u64> {
        let tasks = format!("/proc/{}/task", self.0.id());
        let mut sum = 0;
        for task in fs::read_dir(&tasks).map_err(|e| format!("{tasks}: {e}"))?.flatten() {
            let path = task.path().join("schedstat");
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let first = text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
            sum += first.ok_or_else(|| format!("{}: no scheduler statistics", path.display()))?;
        }
        Ok(sum)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a port on which nothing listens at the moment.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| format!("a free port: {e}"))?;
    listener.local_addr().map(|a| a.port()).map_err(|e| format!("a free port: {e}"))
}

/// The scripted provider.
pub struct Simulator {
    /// The port on which it listens.
    pub port: u16,
    _process: Process,
}

impl Simulator {
    /// Starts the simulator.
    pub fn start(program: &Path, scratch: &Scratch) -> Result<Self> {
        let port = free_port()?;
        let mut command = command(program);
        command.args(["--no-record", "--listen", &format!("127.0.0.1:{port}")]);
        let mut process = Process::start(&mut command, "simulator", scratch)?;
        process.wait_until("the simulator", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
        Ok(Self { port, _process: process })
    }

    /// Adds rules for what to answer.
    pub fn add_rules(&self, rules: &Value) -> Result<()> {
        let body = rules.to_string();
        let head =
            format!("POST /_sim/rules HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-length: {}", body.len());
        let mut answer = String::new();
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .and_then(|mut stream| {
                stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
                stream.read_to_string(&mut answer)
            })
            .map_err(|e| format!("the simulator's rules: {e}"))?;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(format!("the simulator's rules: {answer}")) }
    }
}
