//! Envoy's admin interface: readiness, draining, listen addresses and counters.

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The admin interface of one Envoy.
pub struct Admin {
    base: String,
    agent: ureq::Agent,
}

impl Admin {
    /// Creates a client for `address`, as Envoy wrote it.
    pub fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).proxy(None).build();
        Self { base: format!("http://{}", address.trim()), agent: config.into() }
    }

    /// Returns the body of a GET, if it succeeds.
    fn get(&self, path: &str) -> Option<String> {
        self.agent.get(format!("{}{path}", self.base)).call().ok()?.body_mut().read_to_string().ok()
    }

    /// Returns whether Envoy is ready to serve.
    pub fn is_ready(&self) -> bool {
        self.get("/ready").is_some()
    }

    /// Closes the listener, and has every response close its connection: `connection: close` in HTTP/1.1, GOAWAY in
    /// HTTP/2. `/ready` is 503 from then on. Returns whether Envoy has confirmed it.
    pub fn drain(&self) -> bool {
        self.post("/healthcheck/fail") && self.post("/drain_listeners")
    }

    fn post(&self, path: &str) -> bool {
        self.agent.post(format!("{}{path}", self.base)).send_empty().is_ok()
    }

    /// Returns the address of the listener `name`.
    pub fn listener(&self, name: &str) -> Option<String> {
        let all: Value = serde_json::from_str(&self.get("/listeners?format=json")?).ok()?;
        let statuses = all.get("listener_statuses")?.as_array()?;
        let found = statuses.iter().find(|status| status.get("name").and_then(Value::as_str) == Some(name))?;
        let socket = found.pointer("/local_address/socket_address")?;
        let address = socket.get("address")?.as_str()?;
        let port = socket.get("port_value")?.as_u64()?;
        Some(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
    }

    /// Returns counters and gauges whose names start with `prefix`, without the prefix. `None` if Envoy does not
    /// answer.
    pub fn stats(&self, prefix: &str) -> Option<BTreeMap<String, u64>> {
        let filter = prefix.replace('.', "\\.");
        let text = self.get(&format!("/stats?filter=^{filter}"))?;
        let entry = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.strip_prefix(prefix)?.to_owned(), value.parse().ok()?))
        };
        Some(text.lines().filter_map(entry).collect())
    }
}
