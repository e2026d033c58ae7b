//! The log lines about providers that refuse the gateway itself: loud, but not one per request.

use crate::ids::ModelId;
use crate::outcome::outcome::Outcome;
use crate::policy::Policy;
use std::collections::HashMap;

/// Least time between two lines of one worker about one model, in milliseconds.
const QUIET_MS: u64 = 60_000;

/// When the last line about each model was logged, in milliseconds since the Unix epoch.
#[derive(Debug, Default)]
pub struct RefusalLog {
    logged_ms: HashMap<ModelId, u64>,
}

impl RefusalLog {
    /// Returns the line about a refusal at `now_ms` (milliseconds since the Unix epoch), unless one was logged
    /// recently.
    pub fn line(&mut self, policy: &Policy, model: ModelId, why: Outcome, now_ms: u64) -> Option<String> {
        match self.logged_ms.get(&model) {
            Some(last) if now_ms.saturating_sub(*last) < QUIET_MS => return None,
            _ => self.logged_ms.insert(model, now_ms),
        };
        Some(format!(
            "pointsman: provider {} refused the gateway ({}) at model {}: check the provider's credential and account, \
             and the policy's base_path and model id. Requests go on to other providers of their chain, if there are \
             any. llm_provider_refused_gateway_total counts the refusals; this line is logged once a minute.",
            policy.provider_of(model).name,
            why.code(),
            policy.model(model).name,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn each_model_has_a_line_a_minute() {
        let policy = fixture::policy();
        let model = |name| policy.find_model(name).unwrap();
        let mut log = RefusalLog::default();
        let line = log.line(&policy, model("big"), Outcome::Status(401), 1_000_000).unwrap();
        assert!(line.contains("provider hosted refused the gateway (status_401) at model big"), "{line}");
        assert_eq!(log.line(&policy, model("big"), Outcome::Status(401), 1_059_999), None);
        assert!(log.line(&policy, model("small"), Outcome::Status(404), 1_059_999).is_some());
        assert!(log.line(&policy, model("big"), Outcome::Status(401), 1_060_000).is_some());
        // A clock that jumps back delays the next line, but loses none for good.
        assert_eq!(log.line(&policy, model("big"), Outcome::Status(401), 0), None);
    }
}
