//! The scripted providers: sets what they answer, and returns the exact requests they received.

use crate::call::Call;
use crate::deadline::await_some;
use crate::environment;
use crate::process::Process;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The providers of every test, by the index of the simulator's listener.
pub const PROVIDERS: [&str; 4] = ["vllm", "ollama", "openai", "azure"];

/// A simulator that stands in for all [`PROVIDERS`].
pub struct Simulator {
    process: Process,
    addresses: Vec<SocketAddr>,
}

/// A request as a provider received it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its number.
    pub seq: u64,
    /// The provider that received it.
    pub provider: &'static str,
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
    /// Whether the whole response was handed to the connection.
    pub finished: bool,
    /// Whether the other side went away before that.
    pub aborted: bool,
    /// Content chunks sent.
    pub chunks_sent: u64,
}

impl Seen {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the names of its headers in alphabetical order.
    pub fn header_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Returns the body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

impl Simulator {
    /// Starts a simulator with one listener per provider.
    pub fn start() -> Self {
        let mut args = Vec::new();
        for _ in PROVIDERS {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        let process = Process::start(&environment::program("simulator"), args, &[], None);
        let mut seen = 0;
        let addresses = PROVIDERS.map(|provider| {
            let address = |line: &str| line.strip_prefix("listening on ")?.parse().ok();
            let (lines, address) = process.await_line_after(seen, provider, address);
            seen = lines;
            address
        });
        Self { process, addresses: addresses.into() }
    }

    /// Returns the address of a provider.
    pub fn address(&self, provider: &str) -> SocketAddr {
        self.addresses[listener(provider)]
    }

    /// Sets how `provider` answers requests whose body contains `mark`, from now on.
    pub fn rule(&self, provider: &str, mark: &str, respond: &Value) {
        self.add_rule(&json!({"when": {"listener": listener(provider), "body_contains": mark}, "respond": respond}));
    }

    /// Adds a rule in the form that the simulator's README describes.
    pub fn add_rule(&self, rule: &Value) {
        self.control("POST", "rules", rule);
    }

    /// Releases every response whose behavior has this `hold`, including later ones.
    pub fn release(&self, hold: &str) {
        self.control("POST", "release", &json!({"hold": hold}));
    }

    /// Returns how many requests there were since [`Self::forget`]. Without one, that is the number of the last
    /// request.
    pub fn mark(&self) -> u64 {
        self.control("GET", "requests/count", &Value::Null)["count"].as_u64().expect("is a number")
    }

    /// Returns how many requests all providers are answering now, and the maximum since [`Self::forget`].
    pub fn active(&self) -> (u64, u64) {
        let counts = self.control("GET", "requests/count", &Value::Null);
        let number = |name: &str| counts[name].as_u64().expect("is a number");
        (number("active"), number("max_active"))
    }

    /// Forgets all requests.
    pub fn forget(&self) {
        self.control("DELETE", "requests", &Value::Null);
    }

    /// Sets the status with which `provider` answers health checks, from now on.
    pub fn health(&self, provider: &str, status: u16) {
        self.control("POST", "health", &json!({"listener": listener(provider), "status": status}));
    }

    /// Returns the requests after number `since`.
    pub fn requests(&self, since: u64) -> Vec<Seen> {
        self.wanted(&json!({"since": since}))
    }

    /// Returns the requests with this trace id, in order.
    pub fn of(&self, trace_id: &str) -> Vec<Seen> {
        self.wanted(&json!({"header": ["x-request-id", trace_id]}))
    }

    /// Returns the only request with this trace id.
    ///
    /// # Panics
    /// If there is none, or more than one.
    #[track_caller]
    pub fn only(&self, trace_id: &str) -> Seen {
        let mut all = self.of(trace_id);
        assert_eq!(all.len(), 1, "requests of {trace_id}: {all:?}");
        all.remove(0)
    }

    /// Returns the requests whose body contains `mark`.
    pub fn with(&self, mark: &str) -> Vec<Seen> {
        self.wanted(&json!({"body_contains": mark}))
    }

    /// The simulator itself looks for them: the bodies of all requests of a shared gateway are tens of megabytes.
    fn wanted(&self, conditions: &Value) -> Vec<Seen> {
        let listed = self.control("POST", "requests", conditions);
        listed.as_array().expect("is a list").iter().map(seen).collect()
    }

    /// Waits until a request whose body contains `mark` satisfies `holds`, and returns it.
    pub fn await_request(&self, mark: &str, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        await_some(what, || self.with(mark).into_iter().find(&holds))
    }

    fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = Call::new(method, &format!("/_sim/{path}")).body(body).send(self.addresses[0]);
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    }

    /// Prints the last lines of the simulator's output.
    pub fn show_log(&self) {
        self.process.show_log();
    }
}

fn listener(provider: &str) -> usize {
    PROVIDERS.iter().position(|known| *known == provider).unwrap_or_else(|| panic!("no provider {provider}"))
}

fn seen(value: &Value) -> Seen {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let header = |pair: &Value| {
        let part = |at: usize| pair[at].as_str().unwrap_or_default().to_owned();
        (part(0), part(1))
    };
    Seen {
        seq: value["seq"].as_u64().unwrap_or_default(),
        provider: PROVIDERS[value["listener"].as_u64().unwrap_or_default() as usize],
        method: text("method"),
        path: text("path"),
        headers: value["headers"].as_array().into_iter().flatten().map(header).collect(),
        body: STANDARD.decode(text("body_base64")).expect("is base64"),
        finished: value["finished"] == true,
        aborted: value["aborted"] == true,
        chunks_sent: value["chunks_sent"].as_u64().unwrap_or_default(),
    }
}
