//! Storing the answer, and releasing the requests that wait for it.

use crate::cache::coalesce::{self, Outcome};
use crate::cache::entry::Entry;
use crate::cache::local::recording::{FULL, Recording};
use crate::cache::local::table::Table;
use crate::cache::redis;
use crate::config::CacheStore;
use crate::dialect::answer::NotKept;
use crate::exchange::Exchange;
use crate::exchange::answer::Answer;
use crate::exchange::cache::question::share_key;
use crate::exchange::cache::state::Cached;
use crate::exchange::state::State;
use crate::memory::Context;
use crate::outcome::provider_error;
use crate::policy::Policy;
use crate::policy::price::MicroUsd;
use crate::store::shared_data::SharedData;
use crate::wire::http_call::HttpCall;

impl Exchange {
    /// Whether to store the answer; then [`Exchange::keep`] must learn of its end.
    pub(in crate::exchange) fn keeps(&self) -> bool {
        matches!(self.cache, Cached::Miss(..))
    }

    /// How to record a stream, if its answer is to be stored.
    pub(in crate::exchange) fn stored_recording(&self, context: &Context) -> Option<Recording> {
        let max_bytes = usize::try_from(context.policy.cache.max_entry_bytes).unwrap_or(usize::MAX);
        let budget = || context.memory.cache.recordings.guard();
        (self.keeps() && !self.is_fallback()).then(|| Recording { max_bytes, budget: budget(), is_for_caller: false })
    }

    /// Parses a whole answer, if it is to be stored.
    pub(in crate::exchange) fn note_whole(&mut self, policy: &Policy, body: &[u8]) {
        let dialect = self.dialect();
        if self.keeps()
            && !self.is_fallback()
            && body.len() as u64 <= policy.cache.max_entry_bytes
            && let Cached::Miss(_, pending) = &mut self.cache
        {
            pending.kept = dialect.keep(body, pending.choices).ok();
        }
    }

    /// The answer has ended. Stores it if it is whole and from the plan's first model, and releases the requests
    /// waiting for it. The returned call tells a remote store; nothing waits for its end.
    pub(in crate::exchange) fn keep(
        &mut self,
        context: &mut Context,
        shared: &mut dyn SharedData,
        now_ms: u64,
    ) -> Option<HttpCall> {
        let policy = context.policy;
        let entry = self.entry(policy, now_ms);
        let Cached::Miss(_, pending) = &mut self.cache else { return None };
        let (mut call, mut is_kept) = (None, false);
        if let Some((entry, bytes)) = &entry {
            let bridge = policy.redis.as_ref().filter(|_| policy.cache.store == CacheStore::Redis);
            call = bridge.map(|bridge| redis::set(bridge, &policy.cache.key_prefix, entry, bytes));
            // Waiting requests, and those that asked the remote store too early, find the answer here, whichever store
            // is configured.
            let is_local = call.is_none() || pending.ticket.is_some();
            is_kept = is_local && policy.cache.table.insert(shared, &pending.key, bytes, now_ms);
            if let Some(slot) = pending.slot {
                context.memory.cache.responses.evict_answer(slot);
            }
            let is_new = !pending.is_shared && (is_kept || call.is_some());
            if let Some(fingerprint) = pending.fingerprint.as_ref().filter(|_| is_new) {
                share_key(policy, shared, fingerprint, &pending.key);
            }
            pending.held = is_local.then(|| Table::occupancy(shared).bytes());
        }
        self.finish_leading(shared, is_kept, now_ms);
        call
    }

    /// Whether others may wait for this request, or it waits for another; then [`Exchange::leave`] has work to do.
    pub(in crate::exchange) fn is_in_flight(&self) -> bool {
        match &self.cache {
            Cached::Miss(_, pending) => pending.ticket.is_some(),
            Cached::Coalesced(..) => true,
            _ => false,
        }
    }

    /// The exchange is over. If it led, ends the flight, so that the requests that wait for it continue. If it waited
    /// itself, frees its place for another one.
    pub(in crate::exchange) fn leave(&mut self, shared: &mut dyn SharedData, now_ms: u64) {
        match &self.cache {
            Cached::Coalesced(pending, line) => coalesce::withdraw(shared, &pending.key, line.ticket),
            _ => self.finish_leading(shared, false, now_ms),
        }
    }

    /// Ends the flight it leads, if any.
    fn finish_leading(&mut self, shared: &mut dyn SharedData, is_kept: bool, now_ms: u64) {
        let outcome = match self.state.outcome() {
            _ if is_kept => Outcome::Over,
            // The policy's own text is for this caller, whose quota is used up, and says nothing about the others.
            _ if matches!(&self.state, State::Answered(answered) if answered.refusal.is_none()) => Outcome::Over,
            Some(_) if !self.fails_everybody() => Outcome::Over,
            _ => Outcome::NotKept,
        };
        if let Cached::Miss(_, pending) = &mut self.cache
            && let Some(ticket) = pending.ticket.take()
        {
            coalesce::finish(shared, &pending.key, ticket, outcome, now_ms);
        }
    }

    /// Whether the same request would fail again in the same way.
    fn fails_everybody(&self) -> bool {
        let answer = self.state.upstream().map(|upstream| &upstream.answer);
        matches!(answer, Some(Answer::Failed { status, code: Some(code) }) if provider_error::is_final(*status, *code))
    }

    /// The answer in stored form, with its bytes; `None` if it is not to be stored.
    fn entry(&mut self, policy: &Policy, now_ms: u64) -> Option<(Entry, Vec<u8>)> {
        let served = self.routed()?.served?.model;
        let tenant = self.caller.as_ref()?.tenant;
        let (usage, usage_estimated) = self.usage()?;
        let cost = self.cost(policy, &usage).map_or(MicroUsd::default(), |cost| cost.usd);
        // An entry stores no status, so only 200 qualifies: a 206 is partial, and a 203 was altered by a proxy.
        let is_good = self.state.outcome().is_none() && self.state.status() == Some(200);
        let Cached::Miss(why, pending) = &mut self.cache else { return None };
        let rules = policy.task(pending.task).cache.as_ref()?;
        let from_stream = match self.state.upstream_mut().map(|upstream| &mut upstream.answer) {
            Some(Answer::Stream(stream)) => stream.take_kept(pending.choices),
            _ => None,
        };
        if let Some(Err(NotKept(FULL))) = from_stream {
            *why = FULL;
        }
        let answer = pending.kept.take().or(from_stream.and_then(Result::ok))?;
        // Without the quota's limit, the answer might have been longer.
        if !is_good || served != pending.model || self.quota.output_limit.is_some() {
            return None;
        }
        let entry = Entry {
            key: pending.key,
            created_ms: now_ms,
            expires_ms: now_ms.saturating_add(rules.ttl_ms),
            usage,
            usage_estimated,
            cost_micro_usd: cost.0,
            tenant: policy.tenant(tenant).name.to_string(),
            provider: policy.provider_of(served).name.to_string(),
            model: policy.model(served).name.to_string(),
            prompt: pending.prompt.clone(),
            policy: policy.revision,
            answer,
        };
        let bytes = entry.encode();
        (bytes.len() as u64 <= policy.cache.max_entry_bytes).then_some((entry, bytes))
    }
}
