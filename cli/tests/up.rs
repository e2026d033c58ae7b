//! `pointsman up`: what it refuses before it starts, and how it starts, reloads and ends with a real Envoy.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Scratch, cluster, envoy, pointsman, policy, text, wasm};

/// Writes a policy and its providers to a scratch directory.
fn inputs(name: &str, variable: &str) -> Scratch {
    let scratch = Scratch::new(name);
    scratch.write("policy.yaml", &policy(variable));
    scratch.write("providers/a.yaml", &cluster("a", 1));
    scratch.write("providers/b.yaml", &cluster("b", 2));
    scratch
}

fn up(scratch: &Scratch) -> Command {
    let mut command = pointsman();
    command.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--access-log", "-", "--policy"]);
    command.arg(scratch.path("policy.yaml")).arg("--providers").arg(scratch.path("providers"));
    command
}

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

/// The time limit of every wait. It is generous, because test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `found` returns a value. Panics with `why` if it never does.
fn await_some<T>(mut found: impl FnMut() -> Option<T>, why: impl Fn() -> String) -> T {
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
struct Up {
    child: Child,
    address: String,
    errors: Arc<Mutex<String>>,
}

impl Up {
    fn start(scratch: &Scratch) -> Self {
        Self::start_on(scratch, &envoy())
    }

    fn start_on(scratch: &Scratch, envoy: &Path) -> Self {
        Self::run(up(scratch), scratch, envoy)
    }

    fn run(pointsman: Command, scratch: &Scratch, envoy: &Path) -> Self {
        // The test runner may ignore SIGHUP (`nohup`); the child must not.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=HUP")
            .arg(pointsman.get_program())
            .args(pointsman.get_args())
            .env("TMPDIR", scratch.path("tmp"))
            .env("POINTSMAN_TEST_KEY", "k")
            .arg("--envoy")
            .arg(envoy)
            .arg("--wasm")
            .arg(wasm());
        std::fs::create_dir_all(scratch.path("tmp")).unwrap();
        let mut child =
            command.args(["--concurrency", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let (mut stderr, all) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&errors));
        std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|n| n > 0) {
                all.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        // Access log lines follow, and the pipe must be drained.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        let address = line.trim().strip_prefix("listening on http://").map(str::to_owned);
        let address = address.unwrap_or_else(|| panic!("{line}{}", errors.lock().unwrap()));
        Self { child, address, errors }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    /// Waits until standard error contains `words`.
    fn says(&self, words: &str) {
        await_some(
            || self.errors.lock().unwrap().contains(words).then_some(()),
            || format!("not said: {words}\n{}", self.errors.lock().unwrap()),
        );
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Returns the process id of its Envoy.
    fn envoy(&self) -> String {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id())).unwrap();
        children.split_whitespace().next().unwrap().to_owned()
    }

    fn ends(&mut self) -> Option<i32> {
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

#[test]
#[ignore = "needs a real Envoy: make test"]
fn it_serves_reloads_and_ends_without_a_trace() {
    let scratch = inputs("up-serve", "POINTSMAN_TEST_KEY");
    let with_key = |text: String| text.replace(ANY_KEY, SHA256_OF_K);
    scratch.write("policy.yaml", &with_key(policy("POINTSMAN_TEST_KEY")));
    let mut up = Up::start(&scratch);
    assert!(up.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(up.get("/v1/models").contains("\"near\""));

    // A new model, task and plan.
    let more = policy("POINTSMAN_TEST_KEY")
        .replace(
            "tasks:",
            "  nearer: {provider: a, model: z, tier: local, context: 9, max_output_tokens: 9}\n\
            tasks:\n  quick: {primary: nearer, fallback: [near, far]}",
        )
        .replace("[near, far]}\ntenants", "[near, far, nearer]}\ntenants");
    scratch.write("policy.yaml", &with_key(more.clone()));
    up.says("policy applied: ");
    assert!(up.get("/v1/models").contains("\"quick\""));

    // First the policy's rules refuse it, then Envoy: the old policy keeps serving.
    scratch.write("policy.yaml", &with_key(more.replace("primary: nearer", "primary: nowhere")));
    up.says("policy rejected, still serving the previous one: ");
    up.says("policy.yaml: tasks.quick.primary: unknown model \"nowhere\"; known models: far, near, nearer");
    scratch.write("providers/a.yaml", &cluster("a", 1).replace("STATIC", "STATICAL"));
    scratch.write("policy.yaml", &with_key(more.clone()));
    up.says("STATICAL");
    assert!(up.get("/v1/models").contains("\"quick\""));

    up.signal("-TERM");
    assert_eq!(up.ends(), Some(0));
    assert_eq!(std::fs::read_dir(scratch.path("tmp")).unwrap().count(), 0, "the temporary directory is gone");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn it_ends_when_envoy_does() {
    let scratch = inputs("up-dies", "POINTSMAN_TEST_KEY");
    let mut up = Up::start(&scratch);
    assert!(Command::new("kill").args(["-KILL", &up.envoy()]).status().unwrap().success());
    assert_eq!(up.ends(), Some(1));
    up.says("Envoy exited: signal: 9");
    assert_eq!(std::fs::read_dir(scratch.path("tmp")).unwrap().count(), 0, "the temporary directory is gone");
}

/// Writes a wrapper around the real Envoy. `script` may exit; otherwise Envoy runs.
fn before_envoy(scratch: &Scratch, script: &str) -> PathBuf {
    let path = scratch.write("envoy", &format!("#!/bin/sh\n{script}\nexec '{}' \"$@\"\n", envoy().display()));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Returns a script that runs `script` only for `--mode validate`.
fn when_validating(script: &str) -> String {
    format!("case \" $* \" in *' --mode validate '*) {script} ;; esac")
}

/// Waits until a process is gone.
fn gone(pid: &str) {
    // A zombie that has not been reaped counts as gone.
    let runs = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && !line.contains("zombie"))
    };
    await_some(|| (!runs()).then_some(()), || format!("{pid} still runs"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn each_signal_that_ends_programs_ends_envoy_too() {
    for signal in ["-TERM", "-INT", "-QUIT", "-HUP"] {
        let scratch = inputs("up-signals", "POINTSMAN_TEST_KEY");
        let mut up = Up::start(&scratch);
        let envoy = up.envoy();
        up.signal(signal);
        assert_eq!(up.ends(), Some(0), "{signal}");
        gone(&envoy);
        assert_eq!(std::fs::read_dir(scratch.path("tmp")).unwrap().count(), 0, "{signal}: its directory is gone");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_kill_that_it_cannot_see_ends_envoy_too() {
    let scratch = inputs("up-kill", "POINTSMAN_TEST_KEY");
    let mut up = Up::start(&scratch);
    let envoy = up.envoy();
    up.signal("-KILL");
    assert_eq!(up.ends(), None);
    gone(&envoy);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn under_nohup_it_outlives_its_terminal() {
    let scratch = inputs("up-nohup", "POINTSMAN_TEST_KEY");
    let valid = policy("POINTSMAN_TEST_KEY");
    let plain = up(&scratch);
    let mut command = Command::new("nohup");
    command.arg(plain.get_program()).args(plain.get_args());
    let mut up = Up::run(command, &scratch, &envoy());
    up.signal("-HUP");
    // A reload after the signal shows that `up` is still running.
    scratch.write("policy.yaml", &valid.replace("chat", "talk"));
    up.says("policy applied: ");
    assert!(up.get("/healthz").starts_with("HTTP/1.1 200"));
    up.signal("-TERM");
    assert_eq!(up.ends(), Some(0));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nobody_need_read_what_it_says() {
    let scratch = inputs("up-unread", "POINTSMAN_TEST_KEY");
    let valid = policy("POINTSMAN_TEST_KEY").replace(ANY_KEY, SHA256_OF_K);
    scratch.write("policy.yaml", &valid);
    // Standard error is a pipe whose reader exits immediately.
    let plain = up(&scratch);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>\"$0\""]).arg(scratch.path("errors"));
    assert!(Command::new("mkfifo").arg(scratch.path("errors")).status().unwrap().success());
    let errors = scratch.path("errors");
    let reader = std::thread::spawn(move || drop(std::fs::File::open(errors).unwrap()));
    command.arg(plain.get_program()).args(plain.get_args());
    let looks = scratch.path("looks");
    let counting = before_envoy(&scratch, &when_validating(&format!("echo look >>'{}'", looks.display())));
    let mut up = Up::run(command, &scratch, &counting);
    reader.join().unwrap();

    let serves = |up: &Up, task: &str| {
        let name = format!("\"{task}\"");
        await_some(|| up.get("/v1/models").contains(&name).then_some(()), || format!("{task} is not served"));
    };
    scratch.write("policy.yaml", &valid.replace("chat", "talk"));
    serves(&up, "talk");
    // Envoy refuses the next policy, and the message has no reader. The policy after it is accepted.
    scratch.write("providers/a.yaml", &cluster("a", 1).replace("STATIC", "STATICAL"));
    scratch.write("policy.yaml", &valid.replace("chat", "mumble"));
    await_some(
        || std::fs::read_to_string(&looks).is_ok_and(|text| text.lines().count() == 2).then_some(()),
        || "it does not look at the policy".to_owned(),
    );
    scratch.write("providers/a.yaml", &cluster("a", 1));
    scratch.write("policy.yaml", &valid.replace("chat", "whisper"));
    serves(&up, "whisper");
    assert!(up.child.try_wait().unwrap().is_none(), "it still runs");
    up.signal("-TERM");
    assert_eq!(up.ends(), Some(0));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn it_ends_at_once_in_the_middle_of_a_reload() {
    let scratch = inputs("up-busy", "POINTSMAN_TEST_KEY");
    let mark = scratch.path("validating");
    let script = when_validating(&format!("echo $$ >'{}'; exec sleep 600", mark.display()));
    let mut up = Up::start_on(&scratch, &before_envoy(&scratch, &script));
    scratch.write("policy.yaml", &policy("POINTSMAN_TEST_KEY").replace("chat", "talk"));
    await_some(
        || std::fs::read_to_string(&mark).is_ok_and(|text| text.ends_with('\n')).then_some(()),
        || "it does not look at the policy".to_owned(),
    );
    // Validation would take longer than the test waits.
    up.signal("-TERM");
    assert_eq!(up.ends(), Some(0));
    gone(std::fs::read_to_string(&mark).unwrap().trim());
    assert!(!up.errors.lock().unwrap().contains("refused"), "it was not the policy");
}

/// Validation always succeeds here, so the running Envoy is what refuses.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_envoy_refuses_leaves_every_file_as_it_was() {
    let scratch = inputs("up-back", "POINTSMAN_TEST_KEY");
    let up = Up::start_on(&scratch, &before_envoy(&scratch, &when_validating("exit 0")));
    let files = || {
        let run = std::fs::read_dir(scratch.path("tmp")).unwrap().next().unwrap().unwrap().path();
        let secrets = std::fs::read_dir(run.join("sds")).unwrap().map(|file| file.unwrap().path());
        let mut all: Vec<_> =
            secrets.chain(["cds", "rds", "ecds"].map(|name| run.join(format!("{name}.yaml")))).collect();
        all.sort();
        all.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect::<Vec<_>>()
    };
    let before = files();
    assert_eq!(before.len(), 4);
    // Another key for `b`, a first key for `a`, and a cluster that Envoy refuses.
    scratch.write("providers/a.yaml", &cluster("a", 1).replace("connect_timeout: 1s", "connect_timeout: 0s"));
    let new = policy("PATH").replace(
        "a: {dialect: openai, local: true, data: regulated}",
        "a: {dialect: openai, local: true, data: regulated, credential: {header: authorization, env: HOME}}",
    );
    assert_ne!(new, policy("PATH"));
    scratch.write("policy.yaml", &new);
    up.says("policy rejected, still serving the previous one: ");
    let after = files();
    assert!(before == after, "{before:#?}\n{after:#?}");
}

const ANY_KEY: &str = "3a1cdbbac5d6b86d15c4bfb2e6d5bd0c3d2b1a8e6f74d5c6b7a89f0e1d2c3b4a";
const SHA256_OF_K: &str = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a";
