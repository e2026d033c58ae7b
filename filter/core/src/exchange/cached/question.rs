//! The question that a request asks the cache: its key, or why it has none.

use super::{Exchange, Pending};
use crate::cache::canonical::{self as meaning, Reading};
use crate::cache::eligible::{Bypass, Credentials, sharing};
use crate::cache::key::Fields;
use crate::canonical;
use crate::chat_request::ChatRequest;
use crate::config::Identity;
use crate::policy::{Policy, TaskId};
use crate::route::Plan;

impl Exchange {
    /// The key of the request, and what else its answer is kept with.
    pub(super) fn pending(
        &self,
        policy: &Policy,
        request: &ChatRequest,
        plan: &Plan,
        task: TaskId,
    ) -> Result<Pending, Bypass> {
        let (Some(caller), Some(rules), Some(model)) = (&self.caller, &policy.task(task).cache, plan.models.first())
        else {
            return Err(Bypass::Ambiguous);
        };
        let wishes = &caller.wishes;
        let credentials = Credentials {
            user: wishes.user.as_deref(),
            names_users: matches!(&policy.identity, Identity::Header { user: Some(_), .. }),
            permissions: wishes.permissions.as_deref(),
        };
        let takes = |name: &str| policy.model(*model).takes(name);
        let sharing = sharing(&policy.cache, rules, request, plan.data, wishes.control, credentials, takes)?;
        // The key is of the request as the model gets it, so what the policy changes in it changes the key as well.
        let output = policy.output_limit_of(caller.tenant);
        let sent = canonical::build(policy, request, plan.task, &[*model], output).assemble(request.body);
        let reading = Reading { max_depth: policy.limits.max_nesting, nfc: policy.cache.nfc };
        let meaning = meaning::request(&sent, reading).map_err(|_| Bypass::Ambiguous)?;
        let prompt = request.prompt.exact(request).ok_or(Bypass::Ambiguous)?;
        // Unicode writes some texts in several ways, and the policy calls them equal: the name of the raised one may be another.
        if policy.cache.nfc && !(prompt.id.is_ascii() && prompt.version.is_ascii() && prompt.schema.is_ascii()) {
            return Err(Bypass::Ambiguous);
        }
        let prompt_revision = policy.cache.prompt_revision(&prompt.id, &prompt.version);
        let tenant = policy.tenant(caller.tenant);
        let fields = Fields {
            tenant: &tenant.name,
            sharing,
            task: &policy.task(task).name,
            data: plan.data,
            provider: &policy.provider_of(*model).name,
            model: &policy.model(*model).name,
            prompt: &prompt,
            nfc: policy.cache.nfc,
            request: &meaning,
            revisions: [policy.cache.revision, tenant.cache_revision, rules.revision, prompt_revision],
        };
        Ok(Pending {
            key: fields.key(),
            task,
            model: *model,
            choices: request.choices,
            prompt: if prompt.id.is_empty() { String::new() } else { format!("{}@{}", prompt.id, prompt.version) },
            completion: None,
            held: None,
            ticket: None,
        })
    }
}
