//! A running gateway: a real Envoy with the module, started by `pointsman up`, in front of scripted providers.

use crate::access_log::AccessLog;
use crate::call::Call;
use crate::clock::{Clock, Stopwatch};
use crate::environment;
use crate::port::Port;
use crate::process::{self, Process};
use crate::response::Response;
use crate::simulator::{PROVIDERS, Seen, Simulator};
use crate::turn;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The API key that the gateway sends to OpenAI.
pub const OPENAI_SECRET: &str = "sk-secret-of-openai-0c5f";
/// The API key that the gateway sends to Azure.
pub const AZURE_SECRET: &str = "secret-of-azure-91be";

/// A gateway and its providers. It ends when dropped, and prints its logs if the test panicked.
pub struct Gateway {
    /// The simulated providers.
    pub simulator: Simulator,
    /// The address that callers use.
    pub address: SocketAddr,
    /// The address of Envoy's admin interface.
    pub admin: SocketAddr,
    /// The process of `pointsman up`.
    pub process: Process,
    policy: PathBuf,
    log: AccessLog,
    _admin: Port,
}

/// How to start a gateway, apart from its policy and its providers.
#[derive(Default)]
pub struct Setup<'a> {
    /// Additional flags for `pointsman up`.
    pub flags: &'a [&'a str],
    /// The clock from which Envoy reads the time of day.
    pub clock: Option<&'a Clock>,
    /// The clock with which `pointsman up` measures its timeouts.
    pub stopwatch: Option<&'a Stopwatch>,
    /// A module to load instead of the one under test.
    pub module: Option<&'a [u8]>,
}

impl Setup<'_> {
    fn module_in(&self, directory: &Path) -> PathBuf {
        let Some(module) = self.module else { return environment::wasm() };
        let path = directory.join("module.wasm");
        fs::write(&path, module).expect("writes a file");
        path
    }
}

impl Gateway {
    /// Starts a gateway with this policy and waits until it is ready. In the policy, `<sk-NAME>` stands for the hash of
    /// the key `sk-NAME`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(policy: &str) -> Self {
        Self::start_with(policy, &[])
    }

    /// Starts a gateway with additional flags for `pointsman up`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(policy: &str, flags: &[&str]) -> Self {
        Self::start_over(policy, flags, |_| Vec::new())
    }

    /// Starts a gateway with providers added to [`PROVIDERS`], or replacing some of them. Each has a name and its
    /// [`cluster`].
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_over(
        policy: &str,
        flags: &[&str],
        clusters: impl FnOnce(&Simulator) -> Vec<(&'static str, String)>,
    ) -> Self {
        Self::start_as(policy, &Setup { flags, ..Setup::default() }, clusters)
    }

    /// Starts a gateway whose Envoy uses this clock.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_by(policy: &str, clock: &Clock) -> Self {
        Self::start_as(policy, &Setup { clock: Some(clock), ..Setup::default() }, |_| Vec::new())
    }

    /// Starts a gateway with another module instead of Pointsman's.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with_module(policy: &str, module: &[u8]) -> Self {
        Self::start_as(policy, &Setup { module: Some(module), ..Setup::default() }, |_| Vec::new())
    }

    /// Starts a gateway with this setup.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_as(
        policy: &str,
        setup: &Setup,
        clusters: impl FnOnce(&Simulator) -> Vec<(&'static str, String)>,
    ) -> Self {
        let directory = process::directory();
        let simulator = Simulator::start();
        let providers = directory.join("providers");
        fs::create_dir_all(&providers).expect("makes a directory");
        for provider in PROVIDERS {
            let file = providers.join(format!("{provider}.yaml"));
            fs::write(file, cluster(provider, simulator.address(provider), "")).expect("writes a file");
        }
        // Nothing listens on this port.
        fs::write(providers.join("dead.yaml"), cluster("dead", SocketAddr::from(([127, 0, 0, 1], 1)), ""))
            .expect("writes a file");
        for (provider, cluster) in clusters(&simulator) {
            fs::write(providers.join(format!("{provider}.yaml")), cluster).expect("writes a file");
        }
        let azure_key = directory.join("azure.key");
        fs::write(&azure_key, AZURE_SECRET).expect("writes a file");
        let path = directory.join("policy.yaml");
        fs::write(&path, fill(policy, &azure_key)).expect("writes a file");
        let (log, admin) = (directory.join("access.log"), Port::reserve());
        let (envoy, wasm, admin_text) =
            (impatient_envoy(&directory, setup.clock), setup.module_in(&directory), admin.address.to_string());
        let mut args: Vec<&OsStr> = ["up", "--listen", "127.0.0.1:0", "--concurrency", "2"].map(OsStr::new).into();
        for (flag, value) in [
            ("--policy", path.as_os_str()),
            ("--providers", providers.as_os_str()),
            ("--admin", OsStr::new(&admin_text)),
            ("--access-log", log.as_os_str()),
            ("--envoy", envoy.as_os_str()),
            ("--wasm", wasm.as_os_str()),
        ] {
            args.extend([OsStr::new(flag), value]);
        }
        if !setup.flags.contains(&"--drain") {
            // A test that ends in the middle of a stream must not wait for it.
            args.extend(["--drain", "0s"].map(OsStr::new));
        }
        args.extend(setup.flags.iter().map(OsStr::new));
        let stopwatch = setup.stopwatch.map(Stopwatch::variables);
        let mut variables = vec![("OPENAI_API_KEY", OsStr::new(OPENAI_SECRET))];
        variables.extend(stopwatch.iter().flatten().map(|(name, value)| (*name, value.as_os_str())));
        let turn = turn::take();
        let process = Process::start(&environment::program("pointsman"), args, &variables, Some(&directory));
        let address = process.await_line("its address", |line| {
            line.strip_prefix("listening on http://")?.trim_end_matches('/').parse().ok()
        });
        drop(turn);
        let log = AccessLog::at(log);
        Self { simulator, address, admin: admin.address, process, policy: path, log, _admin: admin }
    }

    /// Sends a request and reads the whole response.
    pub fn send(&self, call: Call) -> Response {
        call.send(self.address)
    }

    /// Sends a chat completion with this key and document, and reads the whole response.
    pub fn chat(&self, key: &str, body: &Value) -> Response {
        self.send(Call::chat_json(body).key(key))
    }

    /// Waits for the audit record of a request and returns it.
    pub fn audit(&self, trace_id: &str) -> Value {
        self.log.audit(trace_id)
    }

    /// Waits for the audit record of a request and returns the lines of its attempts.
    pub fn attempts(&self, trace_id: &str) -> Vec<Value> {
        self.audit(trace_id);
        self.log.attempts(trace_id)
    }

    /// Returns the access log.
    pub fn access_log(&self) -> &AccessLog {
        &self.log
    }

    /// Returns the only upstream request made for this response.
    #[track_caller]
    pub fn upstream(&self, response: &Response) -> Seen {
        self.simulator.only(response.trace_id())
    }

    /// Replaces the policy file as editors do: writes a new file and renames it over the old one.
    pub fn replace_policy(&self, policy: &str) {
        let key = self.policy.with_file_name("azure.key");
        let new = self.policy.with_file_name("policy.new");
        fs::write(&new, fill(policy, &key)).expect("writes a file");
        fs::rename(new, &self.policy).expect("renames a file");
    }

    /// Replaces the file with Azure's key: writes a new file and renames it over the old one.
    pub fn replace_azure_key(&self, key: &str) {
        let new = self.policy.with_file_name("azure.new");
        fs::write(&new, key).expect("writes a file");
        fs::rename(new, self.policy.with_file_name("azure.key")).expect("renames a file");
    }

    /// Returns Envoy's counters and gauges by name.
    pub fn stats(&self) -> BTreeMap<String, u64> {
        let text = Call::new("GET", "/stats").send(self.admin);
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.text().lines().filter_map(pair).collect()
    }

    /// Returns one of Envoy's counters and gauges; 0 while there is none of this name.
    pub fn stat(&self, name: &str) -> u64 {
        let filter = name.replace('.', "\\.");
        let answer = Call::new("GET", &format!("/stats?filter=^{filter}$")).send(self.admin);
        let text = answer.text();
        text.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")?.parse().ok()).unwrap_or(0)
    }

    /// Returns how many downstream requests are active.
    pub fn under_way(&self) -> u64 {
        self.stat("http.gateway.downstream_rq_active")
    }

    /// Returns the module's own metrics in Prometheus's text format, line by line.
    pub fn metrics(&self) -> Vec<String> {
        let text = Call::new("GET", "/stats/prometheus").send(self.admin);
        text.text().lines().filter(|line| line.starts_with("llm_")).map(str::to_owned).collect()
    }

    /// Sets the level at which Envoy logs what it does with the module and what the module logs. Start it with
    /// `--full-admin`.
    pub fn log_module_at(&self, level: &str) {
        let response = Call::new("POST", &format!("/logging?wasm={level}")).send(self.admin);
        assert_eq!(response.status, 200, "{}", response.text());
    }

    fn show_logs(&self) {
        self.process.show_log();
        self.simulator.show_log();
        let lines = self.log.text();
        let lines: Vec<_> = lines.lines().collect();
        eprintln!("--- access log, its last lines:\n{}", lines[lines.len().saturating_sub(8)..].join("\n"));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

/// A gateway that several tests share, held by one of them. Prints its logs if that test fails.
pub struct Shared {
    gateway: &'static Gateway,
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Shared {
    /// Borrows the gateway for one test.
    pub fn of(gateway: &'static Gateway) -> Self {
        Self { gateway, _alone: None }
    }

    /// Borrows the gateway for one test, when those before it have ended that hold the same lock: for tests that count
    /// all requests under way.
    pub fn alone(gateway: &'static Gateway, lock: &'static Mutex<()>) -> Self {
        // A test that panicked holds the lock no longer.
        let alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        Self { gateway, _alone: Some(alone) }
    }
}

impl Deref for Shared {
    type Target = Gateway;
    fn deref(&self) -> &Gateway {
        self.gateway
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.gateway.show_logs();
        }
    }
}

/// Returns the hash of a key, as a policy writes it.
pub fn key_hash(key: &str) -> String {
    let hex: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Replaces `<sk-NAME>` with the hash of that key, and `AZURE_KEY_FILE` with the path of Azure's key.
fn fill(policy: &str, azure_key: &Path) -> String {
    let mut filled = String::with_capacity(policy.len());
    let mut rest = policy;
    while let Some((before, after)) = rest.split_once("<sk-") {
        let (name, after) = after.split_once('>').expect("a key's name ends with >");
        filled.push_str(before);
        filled.push_str(&format!("\"{}\"", key_hash(&format!("sk-{name}"))));
        rest = after;
    }
    filled.push_str(rest);
    filled.replace("AZURE_KEY_FILE", &azure_key.display().to_string())
}

/// Returns an Envoy cluster of one host, as an operator would write it, with the additional lines `more`.
pub fn cluster(name: &str, address: SocketAddr, more: &str) -> String {
    let (ip, port) = (address.ip(), address.port());
    let limits = match more.contains("circuit_breakers:") {
        true => "",
        false => {
            "circuit_breakers: {thresholds: [{max_connections: 1000, max_pending_requests: 1000, \
             max_requests: 1000}]}\n"
        }
    };
    format!(
        "name: {name}\n\
         type: STATIC\n\
         connect_timeout: 2s\n\
         {limits}{more}\
         load_assignment:\n  cluster_name: {name}\n  endpoints:\n  - lb_endpoints:\n    - endpoint:\n        \
         address: {{socket_address: {{address: {ip}, port_value: {port}}}}}\n"
    )
}

/// Writes a script that runs Envoy with its access log flushed every 20 ms. `pointsman up` asks for half a second, for
/// which every test would wait at each of its audit records.
fn impatient_envoy(directory: &Path, clock: Option<&Clock>) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let clock: String = clock
        .iter()
        .flat_map(|clock| clock.variables())
        .map(|(name, value)| format!("export {name}='{}'\n", value.display()))
        .collect();
    // Envoy does not inherit the clocks of `pointsman up`.
    let script = format!(
        "#!/bin/sh\nunset LD_PRELOAD\n{clock}before=\nfor argument; do\n  shift\n  \
         [ \"$before\" != --file-flush-interval-msec ] || argument=20\n  \
         set -- \"$@\" \"$argument\"\n  before=$argument\ndone\n\
         exec '{}' \"$@\"\n",
        environment::envoy().display(),
    );
    let path = directory.join("envoy");
    fs::write(&path, script).expect("writes a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("makes it executable");
    path
}
