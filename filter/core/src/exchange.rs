//! One request and its answer at the gateway stage: events in, effects out.
//!
//! The glue calls one method per callback of Envoy and applies what it returns. No method calls the host.
//!
//! # Calls while the request waits
//!
//! A decision may need what only a call can tell: an entry of a cache in Redis, a reservation there. No decision waits for it
//! in the middle. It stops with the call that it needs, and once that has ended the request is **worked out anew from its
//! start**, with the results so far in a [`journal`]:
//!
//! ```text
//!  whole body ──► plan ──► cache entry? ── no result yet ──► call ─┐ the request is held
//!             ┌───────────────────────────────────────── record ◄──┘
//!             └─► plan ──► cache entry: none ──► reserve? ── no result yet ──► call ─┐
//!             ┌──────────────────────────────────────────────────────────── record ◄─┘
//!             └─► plan ──► cache entry: none ──► reserve: granted ──► upstream
//! ```
//!
//! Each decision is written as if results were there at once, in one function from top to bottom, and any later one that
//! needs a call (an embedding, a judge, a guardrail service) asks the same journal. It comes out the same each time because it
//! depends on nothing but the request, the policy and the journal: the moment, the request's id and what was learned of
//! tokenizers are taken down at the first pass.

use crate::cache::local::response_memo::BodyLookup;
use crate::dialect::client::{ClientDialect, ClientRequest};
use crate::exchange::answer::Answer;
use crate::identity::keys::UserHash;
use crate::memory::Context;
use crate::outcome::refusal::Refusal;
use crate::outcome::reply::Reply;
use crate::policy::Policy;
use crate::policy::output_limit::OutputLimit;
use crate::quota::store::Store;
use crate::request::endpoint::Endpoint;
use crate::request::facts::Facts;
use crate::request::prompt;
use crate::request::splice::Splice;
use crate::routing::dispatch;
use crate::routing::plan::{self, Hints, Load, Plan};
use crate::store::shared_data::SharedData;
use crate::wire::http_call::{HttpCall, HttpCallResult};

pub mod answer;
mod cache;
mod caller;
mod events;
mod hedge;
mod journal;
mod quota;
mod reception;
mod record;
mod request_head;
mod response;
mod state;
#[cfg(test)]
mod tests;

use cache::state::Cached;
use caller::Caller;
pub use events::{
    BodyEdit, BodyPart, BodyStep, Finished, Observer, OnResponseBody, OnResponseHead, Outgoing, RequestStep,
    ResponseHead, ResponseStep, Whole,
};
use journal::{Journal, Pending};
use quota::state::Quota;
use state::{Deciding, Reception, Routed, State, Upstream};

/// The state of one exchange.
#[derive(Debug)]
pub struct Exchange {
    started_ms: u64,
    trace_id: String,
    endpoint: Endpoint,
    /// Whether the request says already what its body is.
    is_json: bool,
    caller: Option<Caller>,
    /// The prompt that the request names, as far as the record may repeat it.
    prompt: prompt::Logged,
    quota: Quota,
    cache: Cached,
    journal: Journal,
    state: State,
}

/// Why a request does not go upstream, or not yet.
enum NotSent {
    /// It is refused.
    Refuse(Refusal),
    /// It is answered here.
    Reply(Reply),
    /// This call has to be made first.
    Call(HttpCall),
    /// Another request is asking the same.
    Wait,
}

impl From<Pending> for NotSent {
    fn from(Pending(call): Pending) -> Self {
        Self::Call(call)
    }
}

impl From<Refusal> for NotSent {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl Exchange {
    /// An exchange that starts at `now_ms` (milliseconds since the Unix epoch).
    pub fn new(now_ms: u64) -> Self {
        Self {
            started_ms: now_ms,
            trace_id: String::new(),
            endpoint: Endpoint::Unknown,
            is_json: false,
            caller: None,
            prompt: prompt::Logged::default(),
            quota: Quota::default(),
            cache: Cached::default(),
            journal: Journal::default(),
            state: State::default(),
        }
    }

    /// The whole request has come, or need not wait any longer.
    pub fn on_request<S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context,
        body: &[u8],
        shared: &mut S,
    ) -> RequestStep {
        match self.route(context, body, shared) {
            Ok(outgoing) => RequestStep::Send(Box::new(outgoing)),
            Err(NotSent::Refuse(refusal)) => RequestStep::Reply(self.refuse(&refusal)),
            Err(NotSent::Reply(reply)) => RequestStep::Reply(self.reply(reply)),
            Err(NotSent::Call(call)) => RequestStep::Call(call),
            Err(NotSent::Wait) => RequestStep::Park,
        }
    }

    /// The call that the request waited for has ended. `body` is the request's own, as it was.
    pub fn on_call_result<S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context,
        body: &[u8],
        shared: &mut S,
        result: &HttpCallResult,
    ) -> RequestStep {
        if !self.journal.record(result) {
            // Nothing waits.
            return RequestStep::Reply(self.refuse(&Refusal::Internal));
        }
        self.quota.restart();
        match self.endpoint {
            Endpoint::Usage => self.usage_reply(context, shared),
            _ => self.on_request(context, body, shared),
        }
    }

    fn route<S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context,
        body: &[u8],
        shared: &mut S,
    ) -> Result<Outgoing, NotSent> {
        let policy = context.policy;
        let caller = self.caller.as_mut().ok_or(Refusal::Internal)?;
        let lookup = match policy.has_cache {
            true => context.memory.cache.responses.lookup_body(self.endpoint, body),
            false => BodyLookup::default(),
        };
        let parsed;
        let request = match lookup.request() {
            Some(request) => request,
            None => {
                let dialect = ClientDialect::of(self.endpoint);
                parsed = dialect.parse(body, policy.request.max_nesting).map_err(Refusal::from)?;
                &parsed
            }
        };
        let facts = request.facts();
        self.prompt = facts.prompt.logged(body);
        if caller.user.is_none() {
            let tenant = &policy.tenant(caller.tenant).name;
            caller.user = facts.user.as_ref().map(|user| UserHash::new(tenant, user.as_bytes()));
        }
        // The time that the request took to arrive is part of its deadline.
        let (started_ms, own_ms) = (self.started_ms, caller.deadline_ms);
        let left = |ms: u64, now_ms: u64| ms.saturating_sub(now_ms.saturating_sub(started_ms));
        let mut deadline_ms = own_ms.map(|ms| left(ms, shared.now_ms()));
        let hints = Hints { task: caller.task.as_deref(), data_class: caller.data_class };
        let mut plan = plan::plan(policy, caller.tenant, facts, hints)?;
        if matches!(self.state, State::Deciding(Deciding { has_waited: true, .. })) {
            // So is what it has waited of its timeout, which otherwise begins when it goes upstream.
            let resilience = plan.task.map_or(&policy.resilience, |task| &policy.task(task).resilience);
            let left = left(resilience.request_ms(), shared.now_ms());
            deadline_ms = Some(deadline_ms.map_or(left, |ms| ms.min(left)));
        }
        match self.permit(context, (request, &lookup), &mut plan, deadline_ms, shared) {
            Ok(output) => Ok(self.outgoing(policy, request, plan, (deadline_ms, output), || shared.now_ms())),
            Err(why) => {
                if let State::Deciding(deciding) = &mut self.state {
                    deciding.plan = Some(plan);
                }
                Err(why)
            }
        }
    }

    /// Whether a request that has a plan may go upstream now: with this limit on its output.
    fn permit<'p, S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context<'p>,
        (request, lookup): (&ClientRequest, &BodyLookup),
        plan: &mut Plan,
        deadline_ms: Option<u64>,
        shared: &mut S,
    ) -> Result<OutputLimit<'p>, NotSent> {
        if deadline_ms == Some(0) {
            return Err(Refusal::DeadlinePassed.into());
        }
        let policy = context.policy;
        self.check_input(policy, request.facts(), plan)?;
        if let Some(reply) = self.look_up(context, (request, lookup), plan, shared)? {
            return Err(NotSent::Reply(reply));
        }
        let output = self.reserve(context, request.facts(), plan, shared)?;
        plan.spill_over(policy, shared)?;
        Ok(output)
    }

    /// The request as it goes upstream, by its plan.
    fn outgoing(
        &mut self,
        policy: &Policy,
        request: &ClientRequest,
        plan: Plan,
        (deadline_ms, output): (Option<u64>, OutputLimit<'_>),
        now_ms: impl FnOnce() -> u64,
    ) -> Outgoing {
        let resilience = plan.task.map_or(&policy.resilience, |task| &policy.task(task).resilience);
        let facts = request.facts();
        let splice = request.upstream(policy, plan.task, &plan.models, output);
        let mut headers = resilience.headers(plan.models.len(), facts.stream, deadline_ms);
        let is_direct = resilience.is_direct(plan.models.len(), facts.stream, deadline_ms);
        let direct = plan.models.first().filter(|_| is_direct).map(|only| policy.provider_of(*only));
        let (cluster, dispatch) = match direct {
            Some(provider) => {
                headers.push((":path", provider.dialect.path(provider).into()));
                (dispatch::direct_cluster(provider), None)
            }
            None => (
                dispatch::plan_cluster(plan.models.iter().map(|id| &*policy.provider_of(*id).name)),
                Some(dispatch::encode(
                    policy,
                    &plan.models,
                    &splice,
                    &resilience.retries(deadline_ms, now_ms()),
                    facts.stream,
                )),
            ),
        };
        if !self.is_json {
            headers.push(("content-type", "application/json".into()));
        }
        let outgoing = Outgoing {
            cluster,
            dispatch,
            headers,
            content_length: splice.heads.first().map_or(0, Vec::len) + splice.rest_len(),
            edit: edit(splice, facts.body),
        };
        self.state = State::Upstream(Box::new(Upstream {
            routed: Routed { is_direct, ..Routed::of(facts, plan) },
            answer: Answer::Awaited,
            reception: Reception::Awaited,
            cancelled: None,
        }));
        outgoing
    }

    /// The request's way to its model, if it went to one or was answered in its place.
    fn routed(&self) -> Option<&Routed> {
        match &self.state {
            State::Upstream(upstream) => Some(&upstream.routed),
            _ => self.cache.hit().map(|hit| &hit.routed),
        }
    }

    /// The plan that it has come to.
    fn plan(&self) -> Option<&Plan> {
        self.routed().map(|routed| &routed.plan).or(self.state.plan())
    }

    /// What the caller speaks.
    pub fn dialect(&self) -> ClientDialect {
        ClientDialect::of(self.endpoint)
    }

    fn refuse(&mut self, refusal: &Refusal) -> Reply {
        let mut reply = self.dialect().refusal(refusal);
        // How the quota stands, which is also of interest to a caller who is refused for something else.
        reply.headers.append(&mut self.quota.headers);
        self.reply(reply)
    }

    fn reply(&mut self, mut reply: Reply) -> Reply {
        self.state = std::mem::take(&mut self.state).answered(reply.status, reply.code);
        // What a model answers has it from Envoy alone, and so has what it once answered.
        if self.saved().is_none() {
            reply.headers.push(("x-request-id", self.trace_id.clone().into()));
        }
        reply
    }
}

impl Routed {
    fn of(request: &Facts, plan: Plan) -> Self {
        Self {
            stream: request.stream,
            hide_usage: request.stream && !request.wants_usage,
            prompt_bytes: request.prompt_bytes(),
            tool_names: request.tool_names.iter().map(|n| n.chars().take(64).collect()).collect(),
            served: None,
            failed_as: None,
            is_direct: false,
            plan,
        }
    }
}

fn edit(splice: Splice, body: &[u8]) -> BodyEdit {
    let prefix = splice.prefix_only(body.len());
    let head = splice.heads.into_iter().next().unwrap_or_default();
    match prefix {
        Some(prefix) => BodyEdit::Prefix(prefix, head),
        None => BodyEdit::Whole(head, splice.rest, splice.closing),
    }
}
