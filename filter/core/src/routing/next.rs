//! Whether the next model is asked after a failure that Envoy does not retry by its status.
//!
//! Envoy makes attempt N at the plan's model N, or at the next provider that is healthy. It cannot skip a model, so a
//! second model of a provider that has refused the gateway is asked on the way to the next provider.

use crate::outcome::blame::Blame;
use crate::outcome::outcome::{Kind, Outcome};
use crate::routing::dispatch::Dispatch;

/// Returns whether a model that has not been asked may serve, after the attempt at place `index` of the plan failed for
/// this reason. `failed`: the earlier failed attempts, by place in the plan.
pub fn may_serve(plan: &Dispatch, index: usize, failed: &[(usize, Outcome)], blame: Blame) -> bool {
    let Some(this) = plan.attempts.get(index).filter(|_| !plan.retries.on_status.is_empty()) else { return false };
    let has_failed = |at: usize| at == index || failed.iter().any(|(other, _)| *other == at);
    let refused = |provider: &str| {
        let has_refused = |(at, why): &(usize, Outcome)| {
            why.kind() == Kind::RefusedGateway && plan.attempts.get(*at).is_some_and(|one| one.provider == provider)
        };
        provider == this.provider || failed.iter().any(has_refused)
    };
    plan.attempts.iter().enumerate().filter(|(at, _)| !has_failed(*at)).any(|(_, other)| match blame {
        Blame::Request => false,
        Blame::Context => other.context > this.context,
        Blame::Gateway => !refused(other.provider),
        Blame::Provider => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Dialect;
    use crate::policy::resilience::Retries;
    use crate::routing::dispatch::{Attempt, Wanted};

    /// A plan of providers and contexts.
    fn plan(attempts: &[(&'static str, u64)], on_status: &'static str) -> Dispatch<'static> {
        let attempt = |(provider, context): &(&'static str, u64)| Attempt {
            provider,
            model: "m",
            path: "/",
            credential_header: "",
            counted: None,
            context: *context,
            dialect: Dialect::Openai,
            head: b"{",
        };
        let attempts = attempts.iter().map(attempt).collect();
        Dispatch { wanted: Wanted::Whole, rest_len: 0, retries: Retries { on_status, until_ms: 0 }, attempts }
    }

    const ONCE: Outcome = Outcome::Status(503);

    #[test]
    fn a_refusal_of_the_gateway_leads_to_another_provider() {
        let gateway =
            |attempts: &[_], index, failed: &[_]| may_serve(&plan(attempts, "429"), index, failed, Blame::Gateway);
        assert!(gateway(&[("a", 1), ("b", 1)], 0, &[]));
        assert!(gateway(&[("a", 1), ("a", 1), ("b", 1)], 0, &[]));
        assert!(!gateway(&[("a", 1), ("a", 1)], 0, &[]));
        assert!(!gateway(&[("a", 1)], 0, &[]));
        assert!(!gateway(&[("b", 1), ("a", 1)], 1, &[(0, ONCE)]));
        // The only provider that is left has refused the gateway, too.
        let plan = [("a", 1), ("b", 1), ("a", 1)];
        assert!(!gateway(&plan, 1, &[(0, Outcome::Status(401))]));
        assert!(!gateway(&plan, 1, &[(0, Outcome::ProviderRefusedGateway)]));
        assert!(gateway(&plan, 1, &[(0, ONCE)]));
    }

    #[test]
    fn a_prompt_that_is_too_long_leads_to_a_larger_window() {
        let context =
            |attempts: &[_], index, failed: &[_]| may_serve(&plan(attempts, "5xx"), index, failed, Blame::Context);
        assert!(context(&[("a", 8), ("a", 128)], 0, &[]));
        assert!(context(&[("a", 8), ("b", 8), ("c", 9)], 0, &[]));
        assert!(!context(&[("a", 8), ("b", 8), ("c", 4)], 0, &[]));
        // Before Envoy 1.40 the order may be another.
        assert!(context(&[("a", 8), ("a", 128), ("b", 8)], 2, &[(0, Outcome::ContextLengthExceeded)]));
        assert!(!context(&[("a", 128), ("b", 8)], 1, &[(0, ONCE)]));
    }

    #[test]
    fn a_refusal_of_the_request_leads_nowhere_and_a_failure_to_any_model() {
        let two = [("a", 1), ("b", 2)];
        assert!(!may_serve(&plan(&two, "5xx"), 0, &[], Blame::Request));
        assert!(may_serve(&plan(&two, "5xx"), 0, &[], Blame::Provider));
        assert!(!may_serve(&plan(&two, "5xx"), 1, &[(0, ONCE)], Blame::Provider));
        // The policy wants no attempt after a status.
        for blame in [Blame::Context, Blame::Gateway, Blame::Provider] {
            assert!(!may_serve(&plan(&two, ""), 0, &[], blame));
        }
        assert!(!may_serve(&plan(&two, "5xx"), 7, &[], Blame::Provider));
    }
}
