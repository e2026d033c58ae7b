//! All plans that a policy can need: the Envoy clusters that must exist before the first request.

use crate::config::place::Place;
use crate::config::problem::Problem;
use crate::ids::ProviderId;
use crate::policy::{Model, Policy, Provider, Task};
use crate::routing::dispatch::plan_cluster;
use std::collections::BTreeSet;

/// Maximum number of plan clusters of a policy. Each costs Envoy memory in every worker. A chain of eight models can
/// need 255.
pub const MAX_CLUSTERS: usize = 2000;

/// Maximum number of models in a task's chain.
pub const MAX_ATTEMPTS: usize = 8;

/// The providers of a plan: attempt 1, attempt 2, …
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProviderSequence(Vec<ProviderId>);

impl ProviderSequence {
    /// Returns the providers in order, at least one. A provider that serves two models of the plan appears twice.
    pub fn providers<'p>(&self, policy: &'p Policy) -> impl Iterator<Item = &'p Provider> {
        self.0.iter().map(|id| policy.provider(*id))
    }

    /// Returns the name of the plan's cluster.
    pub fn cluster(&self, policy: &Policy) -> String {
        plan_cluster(self.providers(policy).map(|provider| &*provider.name))
    }
}

/// Returns all plans without duplicates: every model alone, because callers may name it, and every task's chain with
/// any of its models left out, because routing drops models that a request may not use. `check` has ensured that there
/// are at most [`MAX_CLUSTERS`].
pub fn plans(policy: &Policy) -> BTreeSet<ProviderSequence> {
    let mut plans = Plans::of_models(&policy.models);
    for task in &policy.tasks {
        plans.add(&policy.models, task);
    }
    plans.all
}

/// Refuses the task whose chain takes a policy past [`MAX_CLUSTERS`].
pub(crate) fn check(models: &[Model], tasks: &[Task], problems: &mut Vec<Problem>) {
    let mut plans = Plans::of_models(models);
    // A chain that is too long has already been reported, and expanding it would take forever.
    for task in tasks.iter().filter(|task| task.chain.len() <= MAX_ATTEMPTS) {
        plans.add(models, task);
        if plans.all.len() > MAX_CLUSTERS {
            let message = format!(
                "this chain of {} models takes the policy past {MAX_CLUSTERS} provider sequences, each of \
                 which needs an Envoy cluster; shorten the chains",
                task.chain.len()
            );
            problems.push(Problem::new(Place::of(&["tasks", &task.name]), message));
            return;
        }
    }
}

/// Collects plans.
struct Plans {
    all: BTreeSet<ProviderSequence>,
    /// Chains that have already been expanded. Many tasks have the same one.
    chains: BTreeSet<Vec<ProviderId>>,
}

impl Plans {
    fn of_models(models: &[Model]) -> Self {
        let all = models.iter().map(|model| ProviderSequence(vec![model.provider])).collect();
        Self { all, chains: BTreeSet::new() }
    }

    fn add(&mut self, models: &[Model], task: &Task) {
        let chain = task.chain.iter().filter_map(|id| models.get(id.0 as usize));
        let chain: Vec<ProviderId> = chain.map(|model| model.provider).collect();
        if !self.chains.insert(chain.clone()) {
            return;
        }
        let mut of_task: BTreeSet<Vec<ProviderId>> = BTreeSet::new();
        for provider in chain {
            let longer: Vec<_> = of_task.iter().map(|shorter| [shorter.as_slice(), &[provider]].concat()).collect();
            of_task.extend(longer);
            of_task.insert(vec![provider]);
        }
        self.all.extend(of_task.into_iter().map(ProviderSequence));
    }
}

/// Returns the number of attempts in the longest plan.
pub fn longest(policy: &Policy) -> usize {
    policy.tasks().map(|(_, task)| task.chain.len()).max().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse::from_value;
    use serde_json::{Value, json};

    fn policy(providers_of_models: &[&str], chains: &[&[usize]]) -> Policy {
        from_value(&document(providers_of_models, chains)).unwrap().1
    }

    /// Returns a policy with model `m0` at the first provider, and so on, and one task per chain.
    fn document(providers_of_models: &[&str], chains: &[&[usize]]) -> Value {
        let name = |i: usize| format!("m{i}");
        let providers: serde_json::Map<_, _> = providers_of_models
            .iter()
            .map(|provider| ((*provider).to_owned(), json!({"dialect": "openai", "data": "regulated"})))
            .collect();
        let model = |provider: &str| {
            json!({"provider": provider, "model": "x", "level": "mid", "context": 1000,
            "max_output_tokens": 10})
        };
        let models: serde_json::Map<_, _> =
            providers_of_models.iter().enumerate().map(|(i, provider)| (name(i), model(provider))).collect();
        let tasks: serde_json::Map<_, _> = chains
            .iter()
            .enumerate()
            .map(|(i, chain)| {
                let names: Vec<String> = chain.iter().map(|m| name(*m)).collect();
                (format!("t{i}"), json!({"primary": names[0], "fallback": names[1..]}))
            })
            .collect();
        json!({
            "providers": providers, "models": models, "tasks": tasks, "tiers": {"pro": {"models": ["m0"]}},
            "tenants": {"acme": {"tier": "pro", "keys": [format!("sha256:{}", "0".repeat(64))]}}
        })
    }

    fn clusters(policy: &Policy) -> Vec<String> {
        plans(policy).iter().map(|plan| plan.cluster(policy)).collect()
    }

    #[test]
    fn every_model_alone_and_every_rest_of_a_chain() {
        let policy = policy(&["a", "b", "c", "d"], &[&[2, 0, 1]]);
        assert_eq!(
            clusters(&policy),
            ["plan.a", "plan.a+b", "plan.b", "plan.c", "plan.c+a", "plan.c+a+b", "plan.c+b", "plan.d"]
        );
        assert_eq!(longest(&policy), 3);
    }

    #[test]
    fn models_of_one_provider_share_clusters() {
        let policy = policy(&["a", "a", "b"], &[&[0, 1, 2], &[1, 0]]);
        assert_eq!(clusters(&policy), ["plan.a", "plan.a+a", "plan.a+a+b", "plan.a+b", "plan.b"]);
    }

    #[test]
    fn without_tasks_every_model_is_a_plan() {
        let policy = policy(&["a", "b"], &[]);
        assert_eq!(clusters(&policy), ["plan.a", "plan.b"]);
        assert_eq!(longest(&policy), 1);
    }

    #[test]
    fn too_many_chains_are_refused_before_they_cost_memory() {
        let names: Vec<String> = (0..96).map(|i| format!("p{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let chains: Vec<Vec<usize>> = (0..12).map(|task| (task * 8..task * 8 + 8).collect()).collect();
        let chains: Vec<&[usize]> = chains.iter().map(Vec::as_slice).collect();
        assert_eq!(plans(&policy(&names[..56], &chains[..7])).len(), 7 * 255);
        let problems = from_value(&document(&names, &chains)).unwrap_err();
        let problems: Vec<_> = problems.iter().map(Problem::to_string).collect();
        // Sorted by name: t0, t1, t10, t11, t2, …
        assert_eq!(
            problems,
            ["tasks.t5: this chain of 8 models takes the policy past 2000 provider sequences, each of \
                 which needs an Envoy cluster; shorten the chains"]
        );
        // It is reported along with the other mistakes, and a chain that is too long is not expanded.
        let mut document = document(&names, &chains);
        document["tasks"]["t0"]["fallback"] = Value::from(vec!["m0"; 40]);
        document["tiers"]["pro"]["models"] = json!(["nowhere"]);
        let problems = from_value(&document).unwrap_err();
        let mut places: Vec<_> = problems.iter().map(|problem| problem.place.to_string()).collect();
        places.sort_unstable();
        assert_eq!(places, ["tasks.t0.fallback", "tasks.t6", "tiers.pro.models[0]"]);
        // Eight models of one provider make only eight plans, in any number of tasks.
        assert_eq!(plans(&policy(&["a"; 96], &chains)).len(), 8);
    }
}
