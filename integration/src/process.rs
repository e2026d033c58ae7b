//! A program that runs beside the test and ends with it.

use crate::deadline::PATIENCE;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Runs a program in its own process group until the guard's standard input closes. The input closes when the test
/// process ends, even by a crash, so no test leaves an Envoy behind. The guard then ends the program and removes the
/// directory of the run.
const GUARD: &str = r#"
set -m
directory=$1; shift
"$@" </dev/null &
child=$!
trap '' INT
echo "pid $child"
exec >&- 2>&-
cat >/dev/null
kill -TERM $child 2>/dev/null
for _ in $(seq 100); do kill -0 $child 2>/dev/null || break; sleep 0.05; done
kill -KILL -- -$child 2>/dev/null
wait $child
status=$?
[ -z "$directory" ] || rm -rf "$directory"
exit $status
"#;

/// Creates a directory for [`Process::start`], which removes it even if this process crashes.
///
/// # Panics
/// If it cannot be created.
pub fn directory() -> PathBuf {
    tempfile::Builder::new().prefix("pointsman-test-").tempdir().expect("makes a directory").keep()
}

/// A running program.
pub struct Process {
    name: String,
    guard: Child,
    input: Option<ChildStdin>,
    output: Arc<Output>,
    pid: u32,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    text: Vec<String>,
    /// How many of standard output and standard error are still open.
    open: usize,
}

impl Process {
    /// Starts `program`. When it has ended, `directory` is removed.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
        environment: &[(&str, &OsStr)],
        directory: Option<&Path>,
    ) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new("bash");
        command.args(["-c", GUARD, "guard"]).arg(directory.map_or(OsStr::new(""), Path::as_os_str));
        command.arg(program).args(args).envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut guard = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let output = Arc::new(Output::default());
        output.lock().open = 2;
        output.read(guard.stdout.take().expect("is piped"));
        output.read(guard.stderr.take().expect("is piped"));
        let mut process = Self { name, input: guard.stdin.take(), guard, output, pid: 0 };
        process.pid = process.await_line("its process id", |line| line.strip_prefix("pid ")?.parse().ok());
        process
    }

    /// Waits for an output line for which `found` returns a value. Lines that are already there count.
    ///
    /// # Panics
    /// If the program ends first, or no such line comes in time.
    pub fn await_line<T>(&self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        self.await_line_after(0, what, found).1
    }

    /// Waits for such a line after the first `seen` lines. Also returns how many lines there are up to that one.
    pub fn await_line_after<T>(&self, seen: usize, what: &str, found: impl Fn(&str) -> Option<T>) -> (usize, T) {
        let end = Instant::now() + PATIENCE;
        let mut lines = self.output.lock();
        let mut seen = seen;
        loop {
            while let Some(line) = lines.text.get(seen) {
                seen += 1;
                if let Some(value) = found(line) {
                    return (seen, value);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                lines.open > 0 && !left.is_zero(),
                "{}: waited in vain for {what}; it said:\n{}",
                self.name,
                lines.text.join("\n")
            );
            lines = self.output.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns every line of output so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().text.clone()
    }

    /// Prints the last lines of output.
    pub fn show_log(&self) {
        let lines = self.lines();
        eprintln!("--- {}, its last lines:", self.name);
        for line in lines.iter().skip(lines.len().saturating_sub(80)) {
            eprintln!("{line}");
        }
    }

    /// Returns whether the program still has standard output or standard error open.
    pub fn is_running(&self) -> bool {
        self.output.lock().open > 0
    }

    /// Sends a signal, named without `SIG`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid.to_string()]).status().expect("runs kill");
        assert!(status.success(), "kill -s {name}");
    }

    /// Sends a signal to the program's process group, as Ctrl-C in a terminal does.
    pub fn signal_group(&self, name: &str) {
        let status =
            Command::new("kill").args(["-s", name, "--", &format!("-{}", self.pid)]).status().expect("runs kill");
        assert!(status.success(), "kill -s {name}");
    }

    /// Returns the process ids of the program's direct children.
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Ends the program (SIGTERM, then SIGKILL), waits for it, and returns its exit status.
    pub fn end(&mut self) -> Option<i32> {
        drop(self.input.take());
        self.guard.wait().ok().and_then(|status| status.code())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(self: &Arc<Self>, from: impl Read + Send + 'static) {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                line.clear();
                output.lock().text.push(text);
                output.more.notify_all();
            }
            output.lock().open -= 1;
            output.more.notify_all();
        });
    }
}
