//! Names the providers that cannot serve when Envoy starts.

use super::admin::Admin;
use pointsman_core::policy::Policy;

/// Returns one line per provider without a healthy host. Call it once Envoy is ready: it has then resolved every name
/// and finished every host's first health check.
pub fn unavailable(admin: &Admin, policy: &Policy) -> Vec<String> {
    let reason = |name: &str| {
        let stats = admin.stats(&format!("cluster.{name}."))?;
        match (stats.get("membership_total")?, stats.get("membership_healthy")?) {
            (0, _) => Some("no host: its host name does not resolve"),
            (_, 0) => Some("no healthy host: its health check fails"),
            _ => None,
        }
    };
    let line = |name: &str| Some(format!("provider \"{name}\": {}", reason(name)?));
    policy.providers().filter_map(|provider| line(&provider.name)).collect()
}
