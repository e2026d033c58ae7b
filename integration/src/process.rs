//! A program that runs beside the test, and ends with it.

use crate::deadline::PATIENCE;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Runs a program in a process group of its own until our end of its input closes, which it does when the test process
/// ends, even by a crash: no test leaves an Envoy behind. Then it removes the directory of the run.
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

/// A new directory for [`Process::start`], which has it removed even if this process crashes.
///
/// # Panics
/// If none can be made.
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
    /// Of standard output and standard error.
    open: usize,
}

impl Process {
    /// Starts `program`. `directory` is removed when it has ended.
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

    /// Waits for a line of output of which `found` makes something; lines that came before count.
    ///
    /// # Panics
    /// If the program ends first or the line does not come in time.
    pub fn await_line<T>(&self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        self.await_line_after(0, what, found).1
    }

    /// Waits for such a line after the first `seen` ones; also tells how many there are up to it.
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

    /// Every line of output so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().text.clone()
    }

    /// Shows the last lines of output.
    pub fn show_log(&self) {
        let lines = self.lines();
        eprintln!("--- {}, its last lines:", self.name);
        for line in lines.iter().skip(lines.len().saturating_sub(80)) {
            eprintln!("{line}");
        }
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.output.lock().open > 0
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid.to_string()]).status().expect("runs kill");
        assert!(status.success(), "kill -s {name}");
    }

    /// The programs that it has started itself.
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Ends it (SIGTERM, then SIGKILL) and waits for that. Returns its exit status.
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
