//! Checks what the comments of `policies/hybrid.yaml` promise: which models serve whom, and whose data stays at home.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used)]

use pointsman_core::dialect::client::ClientDialect;
use pointsman_core::policy::Policy;
use pointsman_core::routing::plan::{Hints, plan};

fn hybrid() -> Policy {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/hybrid.yaml");
    let tree: serde_json::Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    pointsman_core::policy::parse::from_value(&tree).unwrap().1
}

/// Returns the models that serve a tenant's request for a task, in order.
fn models<'p>(policy: &'p Policy, tenant: &str, task: &str) -> Vec<&'p str> {
    let body = format!(r#"{{"model":"{task}","messages":[{{"role":"user","content":"x"}}]}}"#);
    let request = ClientDialect::OpenAi.parse(body.as_bytes(), policy.request.max_nesting).unwrap();
    let hints = Hints { task: None, data_class: None };
    let plan = plan(policy, policy.find_tenant(tenant).unwrap(), request.facts(), hints).unwrap();
    plan.models.iter().map(|id| &*policy.model(*id).name).collect()
}

#[test]
fn a_tier_is_served_by_its_models_in_the_order_of_the_task() {
    let policy = hybrid();
    assert_eq!(models(&policy, "demo-free", "extract"), ["local-small", "local-spare"]);
    assert_eq!(models(&policy, "demo-pro", "extract"), ["local-small", "local-spare", "hosted-mid"]);
    assert_eq!(models(&policy, "demo-pro", "reasoning"), ["hosted-mid", "local-small"]);
    assert_eq!(models(&policy, "demo-enterprise", "reasoning"), ["hosted-flagship", "hosted-mid", "local-small"]);
    assert_eq!(models(&policy, "demo-enterprise", "auto"), models(&policy, "demo-enterprise", "chat"));
}

#[test]
fn every_task_serves_every_tenant_and_confidential_data_stays_local() {
    let policy = hybrid();
    for (_, task) in policy.tasks() {
        for tenant in ["demo-free", "demo-pro", "demo-enterprise"] {
            assert!(!models(&policy, tenant, &task.name).is_empty());
        }
        for model in models(&policy, "acme", &task.name) {
            assert!(policy.provider_of(policy.find_model(model).unwrap()).local, "{}: {model}", task.name);
        }
    }
}
