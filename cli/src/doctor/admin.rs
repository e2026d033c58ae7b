//! Reads what Envoy's admin interface shows, and changes nothing.

use super::dump::{Dump, Logging};
use serde_json::Value;
use std::time::Duration;

/// The admin interface of an Envoy.
pub struct Admin {
    base: String,
    agent: ureq::Agent,
}

impl Admin {
    /// Creates a client. A URL without a scheme is HTTP.
    pub fn new(url: &str) -> Self {
        let url = url.trim_end_matches('/');
        let base = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let config = ureq::Agent::config_builder()
            // A mesh's configuration has megabytes.
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Self { base, agent: config.into() }
    }

    /// Reads the whole configuration.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn dump(&self) -> Result<Dump, String> {
        let info = self.get("/server_info")?;
        let info: Value = serde_json::from_str(&info).map_err(|e| format!("/server_info: {e}"))?;
        let version = info.get("version").and_then(Value::as_str).unwrap_or_default();
        // "COMMIT/1.40.0/Clean/RELEASE/BoringSSL"
        let version = version.split('/').find_map(|part| part.parse().ok());
        let mut dump = Dump::read(&self.get("/config_dump?include_eds")?, version)?;
        dump.logging = self.logging();
        Ok(dump)
    }

    /// Returns whether `/logging` is offered. Without a parameter, it only lists the levels.
    fn logging(&self) -> Logging {
        match self.agent.post(format!("{}/logging", self.base)).send_empty() {
            Ok(answer) if answer.status().is_success() => Logging::Offered,
            Ok(_) => Logging::Refused,
            Err(_) => Logging::Unknown,
        }
    }

    fn get(&self, path: &str) -> Result<String, String> {
        const LARGEST: u64 = 1 << 30;
        let mut answer = self.agent.get(format!("{}{path}", self.base)).call().map_err(|e| e.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("{path}: {}; is this Envoy's admin interface?", answer.status()));
        }
        answer.body_mut().with_config().limit(LARGEST).read_to_string().map_err(|e| format!("{path}: {e}"))
    }
}
