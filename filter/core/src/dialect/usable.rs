//! The models and tasks that a tenant may use, for the lists of the dialects.

use crate::config::Dialect;
use crate::ids::{ModelId, TenantId};
use crate::policy::Policy;

/// Returns the ids of the tasks and models that the tenant may send its data to, each with its owner. `dialect`: only
/// those whose providers speak it.
pub fn usable(policy: &Policy, tenant: TenantId, dialect: Option<Dialect>) -> impl Iterator<Item = (&str, &str)> {
    let tenant = policy.tenant(tenant);
    let tier = policy.tier(tenant.tier);
    let usable = move |model: ModelId| {
        let provider = policy.provider_of(model);
        tier.allows(model) && tenant.data <= provider.data && dialect.is_none_or(|dialect| provider.speaks(dialect))
    };
    let tasks = policy
        .tasks()
        .filter(move |(_, task)| task.chain.iter().any(|model| usable(*model)))
        .map(|(_, task)| (&*task.name, "pointsman-task"));
    let models = policy
        .models()
        .filter(move |(id, _)| usable(*id))
        .map(|(id, model)| (&*model.name, &*policy.provider_of(id).name));
    tasks.chain(models)
}
