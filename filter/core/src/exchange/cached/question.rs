//! The question that a request asks the cache: its key, or why it has none.

use super::{Exchange, Pending};
use crate::cache::canonical::{self as meaning, Reading};
use crate::cache::eligible::{Bypass, Credentials, sharing};
use crate::cache::key::Fields;
use crate::canonical;
use crate::chat_request::ChatRequest;
use crate::config::Identity;
use crate::json::{InvalidJson, Kind, Scanner, unquote};
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
        let (prompt, prompt_revision) = prompt_of(policy, request)?;
        let tenant = policy.tenant(caller.tenant);
        let fields = Fields {
            tenant: &tenant.name,
            sharing,
            task: &policy.task(task).name,
            data: plan.data,
            provider: &policy.provider_of(*model).name,
            model: &policy.model(*model).name,
            request: &meaning,
            revisions: [policy.cache.revision, tenant.cache_revision, rules.revision, prompt_revision],
        };
        Ok(Pending {
            key: fields.key(),
            task,
            model: *model,
            choices: request.choices,
            prompt,
            completion: None,
            held: None,
            ticket: None,
        })
    }
}

/// The prompt and its version that the request names in `metadata.prompt_id` and `metadata.prompt_version`, as `id@version`, and
/// the revision that the policy has raised it to. What could be written in another way too, and so escape it, is kept out.
fn prompt_of(policy: &Policy, request: &ChatRequest) -> Result<(String, u64), Bypass> {
    let (mut id, mut version) = (String::new(), String::new());
    let Some(metadata) = request.member("metadata").filter(|member| member.value.kind == Kind::Object) else {
        return Ok((String::new(), 0));
    };
    let mut has_other_forms = false;
    let mut scanner = Scanner::new(request.bytes(&metadata.value.span), policy.limits.max_nesting);
    // It has been scanned once, so it is an object.
    let _ = scanner.object(|s, key| {
        let name = unquote(s.bytes(&key)).unwrap_or_default();
        let value = s.value()?;
        let mut text = || {
            let bytes = s.bytes(&value.span);
            let (text, is_plain) = match value.kind {
                Kind::String => (unquote(bytes).unwrap_or_default().into_owned(), true),
                // 3 is 3.0 and 3e0 as well.
                _ => (String::from_utf8_lossy(bytes).into_owned(), bytes.iter().all(u8::is_ascii_digit)),
            };
            has_other_forms |= !is_plain || policy.cache.nfc && !text.is_ascii();
            text
        };
        match &*name {
            "prompt_id" => id = text(),
            "prompt_version" => version = text(),
            _ => {}
        }
        Ok::<_, InvalidJson>(())
    });
    if has_other_forms {
        return Err(Bypass::Ambiguous);
    }
    Ok(match id.is_empty() {
        true => (String::new(), 0),
        false => (format!("{id}@{version}"), policy.cache.prompt_revision(&id, &version)),
    })
}
