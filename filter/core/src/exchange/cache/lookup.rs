//! The cache lookup: an answer, a wait for an identical request, or the way to the model.

use crate::cache::coalesce::{self, Join, Outcome};
use crate::cache::entry::Entry;
use crate::cache::local::response_memo::BodyLookup;
use crate::cache::redis::{self, UNREACHABLE};
use crate::config::CacheStore;
use crate::dialect::client::ClientRequest;
use crate::exchange::cache::question::share_key;
use crate::exchange::cache::state::{Cached, Coalesced, Hit, Pending};
use crate::exchange::journal::{Pending as Unanswered, Purpose};
use crate::exchange::state::{Routed, Served, State};
use crate::exchange::{Exchange, NotSent};
use crate::memory::Context;
use crate::outcome::refusal::Refusal;
use crate::outcome::reply::Reply;
use crate::policy::Policy;
use crate::policy::price::MicroUsd;
use crate::quota::store::Store;
use crate::request::cache_control::CacheControl;
use crate::routing::plan::Plan;
use crate::store::shared_data::SharedData;
use crate::wire::header::HeaderLine;
use crate::wire::redis::Bridge;
use std::sync::Arc;

/// The result of a lookup.
enum Look {
    /// An answer, and its age in milliseconds.
    Answer(Arc<Entry>, u64),
    /// No answer, with a one-word reason.
    Nothing(&'static str),
}

impl Exchange {
    /// Looks for an answer. `None`: the cache has none, and the request proceeds.
    pub(in crate::exchange) fn look_up<S: Store + SharedData>(
        &mut self,
        context: &mut Context,
        (request, lookup): (&ClientRequest, &BodyLookup),
        plan: &Plan,
        shared: &mut S,
    ) -> Result<Option<Reply>, NotSent> {
        let policy = context.policy;
        let Some(task) = plan.task.filter(|task| policy.task(*task).cache.is_some()) else { return Ok(None) };
        let now_ms = shared.now_ms();
        let (mut pending, look, line) = match std::mem::take(&mut self.cache) {
            Cached::Off => {
                let mut pending = match self.pending(context, (request, lookup), plan, task, shared, now_ms) {
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
                    let (pending, look) = self.ask_redis(policy, bridge, pending, now_ms)?;
                    (pending, look, None)
                } else {
                    let look = self.look_first(policy, shared, &mut pending, now_ms);
                    (pending, look, None)
                }
            }
            Cached::Asked(pending) => {
                let Some(bridge) = &policy.redis else { return Err(Refusal::Internal.into()) };
                let (pending, look) = self.ask_redis(policy, bridge, pending, now_ms)?;
                (pending, look, None)
            }
            // The request we waited for left its answer here, whichever store is configured.
            Cached::Coalesced(pending, line) => {
                let look = self.look(policy, shared, &pending, now_ms);
                (pending, look, Some(line))
            }
            Cached::Found(entry, age, waited) => {
                return self.answer_with(context, request, plan, shared, (entry, age, waited));
            }
            other => {
                self.cache = other;
                return Ok(None);
            }
        };
        let found = match look {
            Look::Answer(entry, age) => {
                // The key has an answer, so it is worth remembering.
                let memory = &mut context.memory.cache;
                let (fingerprint, is_shared) = (pending.fingerprint.take(), pending.is_shared);
                if let Some(fingerprint) = fingerprint {
                    if !is_shared {
                        share_key(policy, shared, &fingerprint, &pending.key);
                    }
                    memory.keys.insert(fingerprint, pending.key);
                }
                if let Some(slot) = pending.slot.filter(|_| pending.is_known && !pending.is_hot)
                    && let Ok(question) = self.question(policy, request.facts(), plan, task)
                {
                    memory.responses.insert(lookup, slot, &question, pending.key, policy.request.max_nesting);
                }
                if let Some(slot) = pending.slot.filter(|_| pending.is_read) {
                    memory.responses.insert_answer(slot, &entry, now_ms);
                }
                Ok((entry, age))
            }
            Look::Nothing(why) => self.missed(policy, shared, pending, (why, line, now_ms)),
        };
        match found {
            Ok((entry, age)) => self.answer_with(context, request, plan, shared, (entry, age, line.is_some())),
            Err(None) => Ok(None),
            Err(Some(wait)) => Err(wait),
        }
    }

    /// Looks in this worker's recent entries, then in the table.
    fn look_first(&self, policy: &Policy, shared: &mut dyn SharedData, pending: &mut Pending, now_ms: u64) -> Look {
        if let Some(entry) = pending.answer.take()
            && let answer @ Look::Answer(..) = self.judge(policy, pending, Ok(entry), now_ms)
        {
            return answer;
        }
        pending.is_read = true;
        self.look(policy, shared, pending, now_ms)
    }

    /// Looks in the table that all workers of this Envoy share.
    fn look(&self, policy: &Policy, shared: &mut dyn SharedData, pending: &Pending, now_ms: u64) -> Look {
        let found = policy.cache.table.lookup(shared, &pending.key, self.tenant_name(policy)).map(Arc::new);
        self.judge(policy, pending, found.ok_or("absent"), now_ms)
    }

    /// Whether the entry found is fresh enough for the caller.
    fn judge(&self, policy: &Policy, pending: &Pending, found: Result<Arc<Entry>, &'static str>, now_ms: u64) -> Look {
        let ttl_ms = policy.task(pending.task).cache.as_ref().map_or(0, |rules| rules.ttl_ms);
        match found {
            // An entry stored after the caller asked is as new as anything the model would say now.
            Ok(entry) => match entry.age_ms(now_ms, ttl_ms, self.control().max_age, self.started_ms) {
                Some(age) => Look::Answer(entry, age),
                None => Look::Nothing("too_old"),
            },
            Err(why) => Look::Nothing(why),
        }
    }

    /// Answers with an entry. Every pass uses the same entry until the quota has counted it.
    fn answer_with(
        &mut self,
        context: &mut Context,
        request: &ClientRequest,
        plan: &Plan,
        store: &mut dyn Store,
        (entry, age_ms, waited): (Arc<Entry>, u64, bool),
    ) -> Result<Option<Reply>, NotSent> {
        let answer = self.hit(context, request, plan, store, (&entry, age_ms, waited));
        if matches!(answer, Err(NotSent::Call(_))) {
            self.cache = Cached::Found(entry, age_ms, waited);
        }
        answer.map(Some)
    }

    /// Handles a miss: asks the model (`Err(None)`) or waits for an identical request, unless an answer has arrived
    /// meanwhile.
    fn missed(
        &mut self,
        policy: &Policy,
        shared: &mut dyn SharedData,
        mut pending: Box<Pending>,
        (why, line, now_ms): (&'static str, Option<Coalesced>, u64),
    ) -> Result<(Arc<Entry>, u64), Option<NotSent>> {
        if let Some(line) = line.filter(|line| now_ms >= self.waits_until_ms(policy, &pending, line)) {
            coalesce::withdraw(shared, &pending.key, line.ticket);
            self.cache = Cached::Miss("waited_in_vain", pending);
            return Err(None);
        }
        // A request that cannot be told the outcome must not be kept waiting.
        let join = match why {
            UNREACHABLE => Join::Alone,
            _ if policy.cache.coalescer.wait_ms == 0 => Join::Alone,
            _ => policy.cache.coalescer.join(shared, &pending.key, now_ms),
        };
        match join {
            Join::Follower(ticket) => {
                let since_ms = line.map_or(now_ms, |line| line.since_ms);
                if let State::Deciding(deciding) = &mut self.state {
                    deciding.has_waited = true;
                }
                self.cache = Cached::Coalesced(pending, Coalesced { since_ms, ticket });
                return Err(Some(NotSent::Wait));
            }
            Join::Leader { ticket, again } => {
                // The previous leader may have stored its answer after this lookup and before this request took the
                // lead.
                if again && let Look::Answer(entry, age) = self.look(policy, shared, &pending, now_ms) {
                    let is_new = entry.created_ms.saturating_add(NEW_MS) >= self.started_ms;
                    if is_new {
                        coalesce::finish(shared, &pending.key, ticket, Outcome::Over, now_ms);
                        return Ok((entry, age));
                    }
                }
                pending.ticket = Some(ticket);
            }
            Join::Alone => {}
        }
        self.cache = Cached::Miss(why, pending);
        Err(None)
    }

    fn tenant_name<'p>(&self, policy: &'p Policy) -> &'p str {
        self.caller.as_ref().map_or("", |caller| &policy.tenant(caller.tenant).name)
    }

    fn control(&self) -> CacheControl {
        self.caller.as_ref().map_or(CacheControl::default(), |caller| caller.cache_request.control)
    }

    /// Latest end of the wait, in milliseconds since the Unix epoch: the policy's wait limit, or all the time the
    /// request has, counted from its first byte.
    fn waits_until_ms(&self, policy: &Policy, pending: &Pending, line: &Coalesced) -> u64 {
        let deadline_ms = self.caller.as_ref().and_then(|caller| caller.deadline_ms);
        let request_ms = policy.task(pending.task).resilience.request_ms();
        let own_ms = deadline_ms.map_or(request_ms, |ms| ms.min(request_ms));
        let wait = line.since_ms.saturating_add(policy.cache.coalescer.wait_ms);
        wait.min(self.started_ms.saturating_add(own_ms))
    }

    /// Asks Redis for the question's entry.
    fn ask_redis(
        &mut self,
        policy: &Policy,
        bridge: &Bridge,
        pending: Box<Pending>,
        now_ms: u64,
    ) -> Result<(Box<Pending>, Look), NotSent> {
        let call = |_| redis::get(bridge, &policy.cache.key_prefix, &pending.key);
        let tenant = self.caller.as_ref().map_or("", |caller| &policy.tenant(caller.tenant).name);
        let found = match self.journal.ask(Purpose::CacheEntry, call, |_| false) {
            Ok(result) => redis::entry(&result, &pending.key, tenant).map(Arc::new),
            Err(Unanswered(call)) => {
                self.cache = Cached::Asked(pending);
                return Err(NotSent::Call(call));
            }
        };
        let look = self.judge(policy, &pending, found, now_ms);
        Ok((pending, look))
    }

    /// Whether a request waiting for another need not wait any longer; then call [`Exchange::on_request`] again.
    pub fn is_awake(&self, policy: &Policy, shared: &mut dyn SharedData, now_ms: u64) -> bool {
        match &self.cache {
            Cached::Coalesced(pending, line) => {
                now_ms >= self.waits_until_ms(policy, pending, line) || coalesce::is_over(shared, &pending.key, now_ms)
            }
            _ => true,
        }
    }

    /// Answers from the cache, if the tenant's quota allows the request.
    fn hit(
        &mut self,
        context: &mut Context,
        request: &ClientRequest,
        plan: &Plan,
        store: &mut dyn Store,
        (entry, age_ms, waited): (&Entry, u64, bool),
    ) -> Result<Reply, NotSent> {
        let Some(model) = plan.models.first().copied() else {
            return Err(Refusal::Internal.into());
        };
        self.reserve_hit(context, model, store)?;
        let policy = context.policy;
        let id = entry.answer.dialect().answer_id(&self.trace_id);
        let facts = request.facts();
        let now_ms = store.now_ms();
        let (content_type, body) = match facts.stream {
            true => {
                let body = entry.answer.stream(&entry.usage, &id, now_ms, facts.wants_usage);
                ("text/event-stream; charset=utf-8", body)
            }
            false => ("application/json", entry.answer.whole(&id, now_ms)),
        };
        let mut headers: Vec<HeaderLine> = vec![
            ("content-type", content_type.into()),
            ("x-pointsman-cache", "hit".into()),
            ("age", (age_ms / 1000).to_string().into()),
            ("x-pointsman-model", (*policy.model(model).name).to_owned().into()),
            ("x-pointsman-provider", (*policy.provider_of(model).name).to_owned().into()),
            ("x-pointsman-fallback", "false".into()),
            ("x-pointsman-attempts", "0".into()),
            ("x-pointsman-cost-usd", MicroUsd(0).to_decimal()),
        ];
        headers.extend(self.quota.headers.iter().cloned());
        self.cache = Cached::Hit(Box::new(Hit {
            store: policy.cache.store,
            waited,
            usage: entry.usage,
            cost: MicroUsd(entry.cost_micro_usd),
            routed: Routed {
                served: Some(Served { model, attempts: 1, headers_already_sent: false }),
                ..Routed::of(facts, plan.clone())
            },
        }));
        Ok(Reply { status: 200, headers, body, code: None })
    }
}

/// With Redis configured, local entries serve only requests made at about the same time; Redis decides about older
/// ones.
const NEW_MS: u64 = 250;
