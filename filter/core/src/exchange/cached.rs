//! The exchange's dealings with the cache: it looks an answer up before anything is reserved, and keeps the one that comes.

use super::{Denied, Exchange, Routed, Served};
use crate::answer::Answer;
use crate::cache::canonical::{self as meaning, Reading};
use crate::cache::completion::Completion;
use crate::cache::control::CacheControl;
use crate::cache::eligible::{Bypass, Credentials, sharing};
use crate::cache::entry::Entry;
use crate::cache::flight::{self, Join, Outcome, Ticket};
use crate::cache::key::{Fields, Key};
use crate::cache::remote::{self, UNREACHABLE};
use crate::cache::table::{SharedData, Table};
use crate::cache::transcript::Transcript;
use crate::call::{Answered, Call};
use crate::canonical;
use crate::chat_request::ChatRequest;
use crate::config::{CacheStore, Identity};
use crate::json::{InvalidJson, Kind, Scanner, unquote};
use crate::metrics::Metric;
use crate::policy::{ModelId, Policy, TaskId};
use crate::price::MicroUsd;
use crate::quota::ledger::Store;
use crate::reply::Reply;
use crate::request_head::RequestHead;
use crate::route::Plan;
use crate::usage::Usage;

/// What the cache was to the request.
#[derive(Debug, Default)]
pub(super) enum Cached {
    /// Nothing: its task has none.
    #[default]
    Off,
    /// The request passes it by.
    Bypass(Bypass),
    /// The store is being asked.
    Asked(Box<Pending>),
    /// The store has answered.
    Looked(Box<Pending>, Result<Box<Entry>, &'static str>),
    /// It waits for another request with the same question, since then.
    InLine(Box<Pending>, u64),
    /// It has an answer, so many milliseconds old, perhaps after a wait; it is given once the quota has counted it.
    Found(Box<Entry>, u64, bool),
    /// No answer, for this reason; the one that comes is kept.
    Miss(&'static str, Box<Pending>),
    /// It answered.
    Hit(Box<Hit>),
}

/// An answer that is to be kept.
#[derive(Debug)]
pub(super) struct Pending {
    key: Key,
    task: TaskId,
    /// The plan's first model: no other one's answer is kept.
    model: ModelId,
    choices: u64,
    prompt: String,
    completion: Option<Completion>,
    /// Bytes that the local store holds after it.
    held: Option<u64>,
    /// Others wait for it.
    ticket: Option<Ticket>,
}

/// An answer of the cache.
#[derive(Debug)]
pub(super) struct Hit {
    store: CacheStore,
    waited: bool,
    usage: Usage,
    cost: MicroUsd,
}

/// What the cache needs to know of the caller.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    control: CacheControl,
    user: Option<Box<[u8]>>,
    permissions: Option<Box<[u8]>>,
}

/// An event has this much around its text, so a stream is this much longer than its completion at the most.
const STREAM_TO_WHOLE: usize = 64;

impl Wishes {
    /// Of a request's headers.
    pub(super) fn of(policy: &Policy, head: &RequestHead) -> Self {
        if !policy.has_cache {
            return Self::default();
        }
        Self {
            control: head.cache_control,
            user: head.user().map(Into::into),
            permissions: head.permissions().map(Into::into),
        }
    }
}

impl Exchange {
    /// Looks for an answer. `None`: there is none, and the request goes its way.
    pub(super) fn look_up<S: Store + SharedData>(
        &mut self,
        policy: &Policy,
        request: &ChatRequest,
        plan: &Plan,
        shared: &mut S,
    ) -> Result<Option<Reply>, Denied> {
        let Some(task) = plan.task.filter(|task| policy.task(*task).cache.is_some()) else { return Ok(None) };
        let (pending, found, since_ms) = match std::mem::take(&mut self.cache) {
            Cached::Off => {
                let pending = match self.pending(policy, request, plan, task) {
                    Ok(pending) => Box::new(pending),
                    Err(why) => {
                        self.cache = Cached::Bypass(why);
                        return Ok(None);
                    }
                };
                if self.control().no_cache {
                    self.cache = Cached::Miss("no_cache", pending);
                    return Ok(None);
                }
                if let (CacheStore::Redis, Some(bridge)) = (policy.cache.store, &policy.redis) {
                    let call = remote::get(bridge, &pending.key);
                    self.cache = Cached::Asked(pending);
                    return Err(Denied::Call(call));
                }
                let found = table(policy).find(shared, &pending.key).ok_or("absent");
                (pending, found, None)
            }
            Cached::Looked(pending, found) => (pending, found.map(|entry| *entry), None),
            // Whoever was waited for has left the answer here, whichever store it is kept in.
            Cached::InLine(pending, since_ms) => {
                let found = table(policy).find(shared, &pending.key).ok_or("absent");
                (pending, found, Some(since_ms))
            }
            Cached::Found(entry, age, waited) => {
                return self.answer_with(policy, request, plan, shared, (entry, age, waited));
            }
            other => {
                self.cache = other;
                return Ok(None);
            }
        };
        let now_ms = shared.now_ms();
        let ttl_ms = policy.task(task).cache.as_ref().map_or(0, |rules| rules.ttl_ms);
        let max_age = self.control().max_age;
        let good = found.and_then(|entry| {
            let age = entry.age_ms(now_ms, ttl_ms, max_age);
            age.map(|age| (entry, age)).ok_or("too_old")
        });
        match good {
            Ok((entry, age)) => {
                self.answer_with(policy, request, plan, shared, (Box::new(entry), age, since_ms.is_some()))
            }
            Err(why) => self.missed(policy, shared, pending, (why, since_ms, now_ms)),
        }
    }

    /// Answers with an entry: the same one, however often the request is worked out anew before the quota has counted it.
    fn answer_with(
        &mut self,
        policy: &Policy,
        request: &ChatRequest,
        plan: &Plan,
        store: &mut dyn Store,
        (entry, age_ms, waited): (Box<Entry>, u64, bool),
    ) -> Result<Option<Reply>, Denied> {
        let answer = self.hit(policy, request, plan, store, (&entry, age_ms, waited));
        if matches!(answer, Err(Denied::Call(_))) {
            self.cache = Cached::Found(entry, age_ms, waited);
        }
        answer.map(Some)
    }

    /// There is no answer: asks the model, or waits for who asks it the same.
    fn missed(
        &mut self,
        policy: &Policy,
        shared: &mut dyn SharedData,
        mut pending: Box<Pending>,
        (why, since_ms, now_ms): (&'static str, Option<u64>, u64),
    ) -> Result<Option<Reply>, Denied> {
        let since_ms = since_ms.unwrap_or(now_ms);
        if now_ms.saturating_sub(since_ms) >= self.most_wait_ms(policy) {
            self.cache = Cached::Miss("waited_in_vain", pending);
            return Ok(None);
        }
        // Who cannot be told what came of it must not be kept waiting.
        let join = match why {
            UNREACHABLE => Join::Alone,
            _ => policy.cache.flights.join(shared, &pending.key, now_ms),
        };
        match join {
            Join::Wait => {
                self.cache = Cached::InLine(pending, since_ms);
                return Err(Denied::Wait);
            }
            Join::Lead(ticket) => pending.ticket = Some(ticket),
            Join::Alone => {}
        }
        self.cache = Cached::Miss(why, pending);
        Ok(None)
    }

    fn control(&self) -> CacheControl {
        self.caller.as_ref().map_or(CacheControl::default(), |caller| caller.wishes.control)
    }

    fn most_wait_ms(&self, policy: &Policy) -> u64 {
        let deadline_ms = self.caller.as_ref().and_then(|caller| caller.deadline_ms);
        policy.cache.flights.wait_ms.min(deadline_ms.unwrap_or(u64::MAX))
    }

    /// Takes the store's answer, if it is what the request waits for.
    pub(super) fn take_entry(&mut self, answered: &Answered) -> bool {
        match std::mem::take(&mut self.cache) {
            Cached::Asked(pending) => {
                let found = remote::entry(answered, &pending.key);
                self.cache = Cached::Looked(pending, found.map(Box::new));
                true
            }
            other => {
                self.cache = other;
                false
            }
        }
    }

    /// Whether the request that waits for another one need not wait any longer: then call [`Exchange::request_body`] again.
    pub fn is_awake(&self, policy: &Policy, shared: &mut dyn SharedData, now_ms: u64) -> bool {
        match &self.cache {
            Cached::InLine(pending, since_ms) => {
                flight::is_over(shared, &pending.key, now_ms)
                    || now_ms.saturating_sub(*since_ms) >= self.most_wait_ms(policy)
            }
            _ => true,
        }
    }

    /// The key of the request, and what else its answer is kept with.
    fn pending(&self, policy: &Policy, request: &ChatRequest, plan: &Plan, task: TaskId) -> Result<Pending, Bypass> {
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

    /// Answers from the cache, if the tenant may ask at all.
    fn hit(
        &mut self,
        policy: &Policy,
        request: &ChatRequest,
        plan: &Plan,
        store: &mut dyn Store,
        (entry, age_ms, waited): (&Entry, u64, bool),
    ) -> Result<Reply, Denied> {
        let Some(model) = plan.models.first().copied() else { return Err(crate::refusal::Refusal::Internal.into()) };
        self.reserve_hit(policy, model, store)?;
        let id: String = self.trace_id.chars().filter(char::is_ascii_alphanumeric).collect();
        let id = format!("chatcmpl-{id}");
        let (content_type, body) = match request.stream {
            true => ("text/event-stream; charset=utf-8", entry.stream(&id, store.now_ms(), request.include_usage)),
            false => ("application/json", entry.whole(&id, store.now_ms())),
        };
        let mut headers = vec![
            ("content-type", content_type.to_owned()),
            ("x-pointsman-cache", "hit".to_owned()),
            ("age", (age_ms / 1000).to_string()),
            ("x-pointsman-model", policy.model(model).name.to_string()),
            ("x-pointsman-provider", policy.provider_of(model).name.to_string()),
            ("x-pointsman-fallback", "false".to_owned()),
            ("x-pointsman-attempts", "0".to_owned()),
            ("x-pointsman-cost-usd", MicroUsd(0).to_decimal()),
        ];
        headers.extend(self.quota.headers.iter().cloned());
        self.cache = Cached::Hit(Box::new(Hit {
            store: policy.cache.store,
            waited,
            usage: entry.usage,
            cost: MicroUsd(entry.cost_micro_usd),
        }));
        self.routed = Some(Routed {
            served: Some(Served { model, attempts: 1, told: false }),
            ..Routed::of(request, plan.clone())
        });
        Ok(Reply { status: 200, headers, body, code: None })
    }

    /// Whether the answer is to be kept, so that [`Exchange::keep`] must hear of its end.
    pub fn keeps(&self) -> bool {
        matches!(self.cache, Cached::Miss(..))
    }

    /// A stream to record, if its answer is to be kept.
    pub(super) fn transcript(&self, policy: &Policy) -> Option<Box<Transcript>> {
        let most = usize::try_from(policy.cache.max_entry_bytes).unwrap_or(usize::MAX).saturating_mul(STREAM_TO_WHOLE);
        (self.keeps() && !self.is_fallback()).then(|| Box::new(Transcript::new(most)))
    }

    /// Takes a whole answer apart, if it is to be kept.
    pub(super) fn note_whole(&mut self, policy: &Policy, body: &[u8]) {
        if self.keeps()
            && !self.is_fallback()
            && body.len() as u64 <= policy.cache.max_entry_bytes
            && let Cached::Miss(_, pending) = &mut self.cache
        {
            let read = serde_json::from_slice(body).ok();
            pending.completion = read.and_then(|whole| Completion::from_whole(whole, pending.choices).ok());
        }
    }

    /// The answer has ended: keeps it if it is whole, and the plan's first model's, and lets those go on who wait for it. A
    /// store that is elsewhere is told by the call that is returned, whose end nobody waits for.
    pub fn keep(&mut self, policy: &Policy, shared: &mut dyn SharedData, now_ms: u64) -> Option<Call> {
        let entry = self.entry(policy, now_ms);
        let has_failed = self.answer.error_code().is_some();
        let Cached::Miss(_, pending) = &mut self.cache else { return None };
        let mut call = None;
        if let Some((entry, bytes)) = &entry {
            let bridge = policy.redis.as_ref().filter(|_| policy.cache.store == CacheStore::Redis);
            call = bridge.map(|bridge| remote::set(bridge, entry, bytes));
            // Those who wait find it here, whichever store it is kept in.
            if call.is_none() || pending.ticket.is_some() && flight::is_waited_for(shared, &pending.key) {
                table(policy).keep(shared, &pending.key, bytes, now_ms);
                pending.held = Some(Table::held(shared).bytes);
            }
        }
        if let Some(ticket) = pending.ticket.take() {
            let outcome = if entry.is_some() || has_failed { Outcome::Over } else { Outcome::NotKept };
            flight::leave(shared, &pending.key, ticket, outcome, now_ms);
        }
        call
    }

    /// Whether others may still wait for this request, so that [`Exchange::leave`] has something to do.
    pub fn leads(&self) -> bool {
        matches!(&self.cache, Cached::Miss(_, pending) if pending.ticket.is_some())
    }

    /// The exchange is over without an answer: one of those who wait goes on.
    pub fn leave(&mut self, shared: &mut dyn SharedData, now_ms: u64) {
        if let Cached::Miss(_, pending) = &mut self.cache
            && let Some(ticket) = pending.ticket.take()
        {
            flight::leave(shared, &pending.key, ticket, Outcome::Over, now_ms);
        }
    }

    /// The answer as it is kept, with its bytes; `None` if it is not.
    fn entry(&mut self, policy: &Policy, now_ms: u64) -> Option<(Entry, Vec<u8>)> {
        let served = self.routed.as_ref()?.served?.model;
        let (usage, usage_estimated) = self.usage()?;
        let cost = self.served_price(policy).map_or(MicroUsd::default(), |price| price.cost(&usage));
        let transcript = match &mut self.answer {
            Answer::Stream(stream) => stream.take_transcript(),
            _ => None,
        };
        let is_good = self.answer.error_code().is_none();
        let Cached::Miss(_, pending) = &mut self.cache else { return None };
        let rules = policy.task(pending.task).cache.as_ref()?;
        let from_stream = || transcript.and_then(|t| Completion::from_whole(t.finish().ok()?, pending.choices).ok());
        let completion = pending.completion.take().or_else(from_stream)?;
        if !is_good || served != pending.model {
            return None;
        }
        let entry = Entry {
            key: pending.key,
            created_ms: now_ms,
            expires_ms: now_ms.saturating_add(rules.ttl_ms),
            usage,
            usage_estimated,
            cost_micro_usd: cost.0,
            provider: policy.provider_of(served).name.to_string(),
            model: policy.model(served).name.to_string(),
            prompt: pending.prompt.clone(),
            policy: policy.revision,
            completion,
        };
        let bytes = entry.encode();
        (bytes.len() as u64 <= policy.cache.max_entry_bytes).then_some((entry, bytes))
    }

    /// What the response's header says.
    pub(super) fn cache_header(&self) -> &'static str {
        match self.cache {
            Cached::Miss(..) => "miss",
            Cached::Hit(_) => "hit",
            _ => "bypass",
        }
    }

    /// What the audit record says: `hit`, `miss` or `bypass`, and why.
    pub(super) fn cache_record(&self) -> (Option<&'static str>, Option<&'static str>) {
        match &self.cache {
            Cached::Bypass(why) => (Some("bypass"), Some(why.word())),
            Cached::Miss(why, _) => (Some("miss"), Some(why)),
            Cached::Hit(hit) => (Some("hit"), hit.waited.then_some("waited")),
            // It never came so far.
            Cached::InLine(..) => (Some("miss"), Some("waited")),
            _ => (None, None),
        }
    }

    /// What an answer of the cache saved, if it is one.
    pub(super) fn saved(&self) -> Option<(Usage, MicroUsd)> {
        match &self.cache {
            Cached::Hit(hit) => Some((hit.usage, hit.cost)),
            _ => None,
        }
    }

    /// What the cache adds to the metrics.
    pub(super) fn cache_metrics(&self, task: Option<TaskId>, all: &mut Vec<(Metric, u64)>) {
        match &self.cache {
            Cached::Bypass(why) => all.push((Metric::CacheBypasses { task, reason: why.word() }, 1)),
            Cached::Miss(reason, pending) => {
                all.push((Metric::CacheMisses { task, reason }, 1));
                all.extend(pending.held.map(|bytes| (Metric::CacheBytes, bytes)));
            }
            Cached::Hit(hit) => {
                let cache_type = match hit.store {
                    CacheStore::Local => "local",
                    CacheStore::Redis => "redis",
                };
                all.push((Metric::CacheHits { task, cache_type }, 1));
                all.push((Metric::CacheSaved { task, cache_type }, hit.cost.0));
            }
            _ => {}
        }
    }
}

fn table(policy: &Policy) -> Table {
    Table { limit: policy.cache.memory_bytes }
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
