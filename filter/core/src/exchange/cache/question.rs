//! The question that a request asks the cache: its key, or why it has none.

use crate::cache::eligibility::{Bypass, Credentials, sharing};
use crate::cache::key::{Fields, Key};
use crate::cache::local::key_memo::Fingerprint;
use crate::cache::local::response_memo::BodyLookup;
use crate::cache::local::table::Table;
use crate::cache::normal_form::{self as meaning, Reading};
use crate::cache::question::Question;
use crate::config::Identity;
use crate::dialect::client::{ClientDialect, ClientRequest};
use crate::exchange::Exchange;
use crate::exchange::cache::state::Pending;
use crate::ids::TaskId;
use crate::memory::Context;
use crate::policy::Policy;
use crate::policy::output_limit::OutputLimit;
use crate::request::facts::Facts;
use crate::request::prompt::PromptName;
use crate::routing::plan::Plan;
use crate::store::shared_data::SharedData;

impl Exchange {
    /// The request's key, and what else is stored with its answer.
    pub(super) fn pending(
        &self,
        context: &Context,
        (request, lookup): (&ClientRequest, &BodyLookup),
        plan: &Plan,
        task: TaskId,
        shared: &mut dyn SharedData,
        now_ms: u64,
    ) -> Result<Pending, Bypass> {
        let (policy, memory) = (context.policy, &context.memory.cache);
        let facts = request.facts();
        let question = self.question(policy, facts, plan, task)?;
        let prompt = facts.prompt.exact(facts.body).ok_or(Bypass::Ambiguous)?;
        // With `unicode_nfc`, different encodings of the same text are equal, but a raised revision is looked up by the
        // prompt's exact name. Only an ASCII name has a single encoding.
        if policy.cache.nfc && !(prompt.id.is_ascii() && prompt.version.is_ascii() && prompt.schema.is_ascii()) {
            return Err(Bypass::Ambiguous);
        }
        let (slot, hot) = memory.responses.lookup(lookup, &question, now_ms);
        let (is_hot, answer) = (hot.is_some(), hot.as_ref().and_then(|hot| hot.answer.clone()));
        let (known, fingerprint, is_known) = match hot.map_or_else(|| memory.keys.key(&question), |hot| Ok(hot.key)) {
            Ok(key) => (Some(key), None, true),
            Err(print) => (print.as_ref().and_then(|print| policy.cache.keys.lookup(shared, print)), print, false),
        };
        let is_shared = known.is_some();
        let key = known.map_or_else(|| key(policy, request, &question, &prompt), Ok)?;
        Ok(Pending {
            key,
            fingerprint,
            is_shared,
            slot,
            is_known,
            is_hot,
            answer,
            is_read: false,
            task,
            model: question.model,
            choices: facts.choices,
            prompt: if prompt.id.is_empty() { String::new() } else { format!("{}@{}", prompt.id, prompt.version) },
            kept: None,
            held: None,
            ticket: None,
        })
    }

    pub(super) fn question<'a>(
        &'a self,
        policy: &Policy,
        request: &'a Facts,
        plan: &Plan,
        task: TaskId,
    ) -> Result<Question<'a>, Bypass> {
        let (Some(caller), Some(rules), Some(model)) = (&self.caller, &policy.task(task).cache, plan.models.first())
        else {
            return Err(Bypass::Ambiguous);
        };
        let cache_request = &caller.cache_request;
        let credentials = Credentials {
            user: cache_request.user.as_deref(),
            names_users: matches!(&policy.identity, Identity::Header { user: Some(_), .. }),
            permissions: cache_request.permissions.as_deref(),
        };
        let takes = |name: &str| policy.model(*model).takes(name);
        let sharing = sharing(&policy.cache, rules, request, plan.data, cache_request.control, credentials, takes)?;
        let (tenant, data, model, body) = (caller.tenant, plan.data, *model, request.body);
        let max_output = policy.output_limit_of(tenant, caller.user.as_ref()).max;
        let headers = &*caller.dialect_headers;
        Ok(Question { endpoint: self.endpoint, tenant, sharing, task, data, model, max_output, headers, body })
    }
}

/// Shares the key of an answered question with the other workers.
pub(super) fn share_key(policy: &Policy, shared: &mut dyn SharedData, fingerprint: &Fingerprint, key: &Key) {
    if policy.cache.keys.insert(shared, fingerprint, key) {
        Table::count_bucket(shared);
    }
}

/// The key of a question. Every input must come from the question, its body or the policy.
fn key(policy: &Policy, request: &ClientRequest, question: &Question, prompt: &PromptName) -> Result<Key, Bypass> {
    let Question { endpoint, tenant, sharing, task, data, model, max_output, headers, body } = *question;
    // The key covers the request as the model gets it, so any change the policy makes also changes the key.
    let output = OutputLimit { max: max_output, ..policy.output_limit_of(tenant, None) };
    let sent = request.upstream(policy, Some(task), &[model], output, false).assemble(body);
    let delivery = ClientDialect::of(endpoint).delivery_members();
    let reading = Reading { max_depth: policy.request.max_nesting, nfc: policy.cache.nfc, delivery };
    let meaning = meaning::request(&sent, reading).map_err(|_| Bypass::Ambiguous)?;
    let (tenant, task) = (policy.tenant(tenant), policy.task(task));
    let fields = Fields {
        endpoint,
        tenant: &tenant.name,
        sharing,
        task: &task.name,
        data,
        provider: &policy.provider_of(model).name,
        model: &policy.model(model).name,
        prompt,
        nfc: policy.cache.nfc,
        request: &meaning,
        headers,
        revisions: [
            policy.cache.revision,
            tenant.cache_revision,
            task.cache.as_ref().map_or(0, |rules| rules.revision),
            policy.cache.prompt_revision(&prompt.id, &prompt.version),
        ],
    };
    Ok(fields.key())
}
