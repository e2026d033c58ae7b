//! A running gateway: a real Envoy with the module, started by `pointsman up`, before scripted providers.

use crate::access_log::AccessLog;
use crate::call::Call;
use crate::clock::{Clock, Stopwatch};
use crate::environment;
use crate::port::Port;
use crate::process::{self, Process};
use crate::response::Response;
use crate::simulator::{PROVIDERS, Seen, Simulator};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// What OpenAI's cluster is given as its key.
pub const OPENAI_SECRET: &str = "sk-secret-of-openai-0c5f";
/// What Azure's cluster is given as its key.
pub const AZURE_SECRET: &str = "secret-of-azure-91be";

/// A gateway and its providers. Ends when dropped, and shows its logs if that is by a panic.
pub struct Gateway {
    /// The providers behind it.
    pub simulator: Simulator,
    /// Where callers reach it.
    pub address: SocketAddr,
    /// Envoy's admin interface.
    pub admin: SocketAddr,
    /// `pointsman up`.
    pub process: Process,
    policy: PathBuf,
    log: AccessLog,
    _admin: Port,
}

/// How a gateway is started, besides its policy and its providers.
#[derive(Default)]
pub struct Setup<'a> {
    /// More flags for `pointsman up`.
    pub flags: &'a [&'a str],
    /// The time of day that Envoy goes by.
    pub clock: Option<&'a Clock>,
    /// What `pointsman up` measures its timeouts with.
    pub stopwatch: Option<&'a Stopwatch>,
    /// In place of the module under test.
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
    /// Starts one with this policy and waits until it is ready. `<KEY>` in place of a hash stands for the hash of
    /// `KEY`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(policy: &str) -> Self {
        Self::start_with(policy, &[])
    }

    /// Starts one with more flags for `pointsman up`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(policy: &str, flags: &[&str]) -> Self {
        Self::start_over(policy, flags, |_| Vec::new())
    }

    /// Starts one over more providers than [`PROVIDERS`], or in place of some: each a name and its [`cluster`].
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

    /// Starts one whose Envoy goes by this clock.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_by(policy: &str, clock: &Clock) -> Self {
        Self::start_as(policy, &Setup { clock: Some(clock), ..Setup::default() }, |_| Vec::new())
    }

    /// Starts one with another module in place of Pointsman's.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with_module(policy: &str, module: &[u8]) -> Self {
        Self::start_as(policy, &Setup { module: Some(module), ..Setup::default() }, |_| Vec::new())
    }

    /// Starts one like this.
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
        // Nobody listens there.
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
        args.extend(setup.flags.iter().map(OsStr::new));
        let stopwatch = setup.stopwatch.map(Stopwatch::variables);
        let mut variables = vec![("OPENAI_API_KEY", OsStr::new(OPENAI_SECRET))];
        variables.extend(stopwatch.iter().flatten().map(|(name, value)| (*name, value.as_os_str())));
        let process = Process::start(&environment::program("pointsman"), args, &variables, Some(&directory));
        let address = process.await_line("its address", |line| {
            line.strip_prefix("listening on http://")?.trim_end_matches('/').parse().ok()
        });
        let log = AccessLog::at(log);
        Self { simulator, address, admin: admin.address, process, policy: path, log, _admin: admin }
    }

    /// Sends a request and reads the whole response.
    pub fn send(&self, call: Call) -> Response {
        call.send(self.address)
    }

    /// A chat completion with this key and document.
    pub fn chat(&self, key: &str, body: &Value) -> Response {
        self.send(Call::chat_json(body).key(key))
    }

    /// The audit record of a request, awaited.
    pub fn audit(&self, trace_id: &str) -> Value {
        self.log.audit(trace_id)
    }

    /// The lines of a request's attempts, once it has been audited.
    pub fn attempts(&self, trace_id: &str) -> Vec<Value> {
        self.audit(trace_id);
        self.log.attempts(trace_id)
    }

    /// The access log.
    pub fn access_log(&self) -> &AccessLog {
        &self.log
    }

    /// The one request that a provider got for this response.
    #[track_caller]
    pub fn upstream(&self, response: &Response) -> Seen {
        self.simulator.only(response.trace_id())
    }

    /// Replaces the policy file as editors do: a new file, renamed over the old one.
    pub fn replace_policy(&self, policy: &str) {
        let key = self.policy.with_file_name("azure.key");
        let new = self.policy.with_file_name("policy.new");
        fs::write(&new, fill(policy, &key)).expect("writes a file");
        fs::rename(new, &self.policy).expect("renames a file");
    }

    /// Replaces the file with Azure's key, by a new file that is renamed over the old one.
    pub fn replace_azure_key(&self, key: &str) {
        let new = self.policy.with_file_name("azure.new");
        fs::write(&new, key).expect("writes a file");
        fs::rename(new, self.policy.with_file_name("azure.key")).expect("renames a file");
    }

    /// Envoy's counters and gauges, by name.
    pub fn stats(&self) -> BTreeMap<String, u64> {
        let text = Call::new("GET", "/stats").send(self.admin);
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.text().lines().filter_map(pair).collect()
    }

    /// One of Envoy's counters and gauges; 0 while it has none of this name.
    pub fn stat(&self, name: &str) -> u64 {
        let filter = name.replace('.', "\\.");
        let answer = Call::new("GET", &format!("/stats?filter=^{filter}$")).send(self.admin);
        let text = answer.text();
        text.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")?.parse().ok()).unwrap_or(0)
    }

    /// How many requests of callers are under way.
    pub fn under_way(&self) -> u64 {
        self.stat("http.gateway.downstream_rq_active")
    }

    /// Metrics in Prometheus's text format, the module's only.
    pub fn metrics(&self) -> Vec<String> {
        let text = Call::new("GET", "/stats/prometheus").send(self.admin);
        text.text().lines().filter(|line| line.starts_with("llm_")).map(str::to_owned).collect()
    }

    /// Makes Envoy log at this level what it does with the module, and what the module says.
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

/// A gateway that several tests use, for the time of one of them: shows its logs if that one fails.
pub struct Shared(&'static Gateway);

impl Shared {
    /// For one test.
    pub fn of(gateway: &'static Gateway) -> Self {
        Self(gateway)
    }
}

impl Deref for Shared {
    type Target = Gateway;
    fn deref(&self) -> &Gateway {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.show_logs();
        }
    }
}

/// The hash of a key, as a policy writes it.
pub fn key_hash(key: &str) -> String {
    let hex: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Puts hashes in place of `<KEY>`, and the path of Azure's key in place of `AZURE_KEY_FILE`.
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

/// An Envoy cluster of one host, as an operator would write it; `more` are lines that it has besides.
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

/// Envoy, made to write its access log at once: by itself it may wait for ten seconds.
fn impatient_envoy(directory: &Path, clock: Option<&Clock>) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let clock: String = clock
        .iter()
        .flat_map(|clock| clock.variables())
        .map(|(name, value)| format!("export {name}='{}'\n", value.display()))
        .collect();
    // The clocks of `pointsman up` are its own.
    let script = format!(
        "#!/bin/sh\nunset LD_PRELOAD\n{clock}case \" $* \" in\n*--file-flush-interval-msec*) ;;\n\
         *) set -- \"$@\" --file-flush-interval-msec 20 ;;\nesac\nexec '{}' \"$@\"\n",
        environment::envoy().display(),
    );
    let path = directory.join("envoy");
    fs::write(&path, script).expect("writes a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("makes it executable");
    path
}
