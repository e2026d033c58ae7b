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
use crate::dialect::openai::request::{ChatRequest, InvalidRequest};
use crate::dialect::openai::upstream::{self, Canonical};
use crate::exchange::answer::Answer;
use crate::identity::keys::UserHash;
use crate::ids::ModelId;
use crate::memory::Context;
use crate::outcome::outcome::Outcome;
use crate::outcome::refusal::Refusal;
use crate::outcome::reply::Reply;
use crate::policy::Policy;
use crate::policy::output_limit::OutputLimit;
use crate::quota::store::Store;
use crate::request::endpoint::Endpoint;
use crate::request::prompt;
use crate::routing::dispatch;
use crate::routing::plan::{self, Hints, Load, Plan};
use crate::store::shared_data::SharedData;
use crate::wire::http_call::{HttpCall, HttpCallResult};

pub mod answer;
mod cache;
mod events;
mod hedge;
mod journal;
mod quota;
mod record;
mod request_head;
mod response;
#[cfg(test)]
mod tests;

pub use events::{BodyEdit, OnRequestBody, OnRequestHead, OnResponseHead, Outgoing, ResponseHead, Whole};
use journal::{Journal, Pending};
use request_head::Caller;

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
    routed: Option<Routed>,
    /// The plan of a request that has not gone upstream.
    unsent: Option<Plan>,
    answer: Answer,
    /// The model of an attempt that was under way when another one answered.
    cancelled: Option<ModelId>,
    quota: quota::Quota,
    cache: cache::Cached,
    journal: Journal,
    /// Whether it has waited for another request's answer.
    has_waited: bool,
}

/// What is remembered of a request that went upstream.
#[derive(Debug)]
struct Routed {
    plan: Plan,
    stream: bool,
    hide_usage: bool,
    messages_bytes: usize,
    tool_names: Vec<String>,
    served: Option<Served>,
    /// What the last attempt failed with, where the gateway stage judged it.
    failed_as: Option<Outcome>,
    /// Whether it went without a model stage.
    is_direct: bool,
}

/// Who answered in the end.
#[derive(Debug, Clone, Copy)]
struct Served {
    model: ModelId,
    attempts: u32,
    /// Whether the model stage has told the caller already, in headers.
    told: bool,
}

/// Why a request is answered here.
enum Denied {
    Refusal(Refusal),
    /// With an answer of the policy's.
    Reply(Reply),
    /// Not yet: this call has to be made first.
    Call(HttpCall),
    /// Not yet: another request is asking the same.
    Wait,
}

impl From<Pending> for Denied {
    fn from(Pending(call): Pending) -> Self {
        Self::Call(call)
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
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
            routed: None,
            unsent: None,
            answer: Answer::None,
            cancelled: None,
            quota: quota::Quota::default(),
            cache: cache::Cached::default(),
            journal: Journal::default(),
            has_waited: false,
        }
    }

    /// The whole body has come.
    pub fn request_body<S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context,
        body: &[u8],
        shared: &mut S,
    ) -> OnRequestBody {
        match self.route(context, body, shared) {
            Ok(outgoing) => OnRequestBody::Send(Box::new(outgoing)),
            Err(Denied::Refusal(refusal)) => OnRequestBody::Reply(self.refuse(&refusal)),
            Err(Denied::Reply(reply)) => OnRequestBody::Reply(self.reply(reply)),
            Err(Denied::Call(call)) => OnRequestBody::Call(call),
            Err(Denied::Wait) => OnRequestBody::Wait,
        }
    }

    /// The call that the request waited for has ended. `body` is the request's own, as it was.
    pub fn answered<S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context,
        body: &[u8],
        shared: &mut S,
        answered: &HttpCallResult,
    ) -> OnRequestBody {
        if !self.journal.record(answered) {
            // Nothing waits.
            return OnRequestBody::Reply(self.refuse(&Refusal::Internal));
        }
        self.quota.restart();
        match self.endpoint {
            Endpoint::Usage => self.usage_reply(context, shared),
            _ => self.request_body(context, body, shared),
        }
    }

    fn route<S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context,
        body: &[u8],
        shared: &mut S,
    ) -> Result<Outgoing, Denied> {
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
                parsed = ChatRequest::parse(body, policy.limits.max_nesting).map_err(|why| match why {
                    InvalidRequest::Json(error) => Refusal::InvalidJson(error.message()),
                    InvalidRequest::Field(param, message) => Refusal::InvalidField(param, message),
                })?;
                &parsed
            }
        };
        self.prompt = request.prompt.logged(request);
        if caller.user.is_none() {
            let tenant = &policy.tenant(caller.tenant).name;
            caller.user = request.user.as_ref().map(|user| UserHash::new(tenant, user.as_bytes()));
        }
        // The time that the request took to arrive is part of its deadline.
        let (started_ms, own_ms) = (self.started_ms, caller.deadline_ms);
        let left = |ms: u64, now_ms: u64| ms.saturating_sub(now_ms.saturating_sub(started_ms));
        let mut deadline_ms = own_ms.map(|ms| left(ms, shared.now_ms()));
        let hints = Hints { task: caller.task.as_deref(), data_class: caller.data_class };
        let mut plan = plan::plan(policy, caller.tenant, request, hints)?;
        if self.has_waited {
            // So is what it has waited of its timeout, which otherwise begins when it goes upstream.
            let resilience = plan.task.map_or(&policy.resilience, |task| &policy.task(task).resilience);
            let left = left(resilience.request_ms(), shared.now_ms());
            deadline_ms = Some(deadline_ms.map_or(left, |ms| ms.min(left)));
        }
        match self.permit(context, (request, &lookup), &mut plan, deadline_ms, shared) {
            Ok(output) => {
                self.unsent = None;
                Ok(self.outgoing(policy, request, plan, (deadline_ms, output), || shared.now_ms()))
            }
            Err(denied) => {
                self.unsent = Some(plan);
                Err(denied)
            }
        }
    }

    /// Whether a request that has a plan may go upstream now: with this limit on its output.
    fn permit<'p, S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context<'p>,
        (request, lookup): (&ChatRequest, &BodyLookup),
        plan: &mut Plan,
        deadline_ms: Option<u64>,
        shared: &mut S,
    ) -> Result<OutputLimit<'p>, Denied> {
        if deadline_ms == Some(0) {
            return Err(Refusal::DeadlinePassed.into());
        }
        let policy = context.policy;
        self.check_input(policy, request, plan)?;
        if let Some(reply) = self.look_up(context, (request, lookup), plan, shared)? {
            return Err(Denied::Reply(reply));
        }
        let output = self.reserve(context, request, plan, shared)?;
        plan.spill_over(policy, shared)?;
        Ok(output)
    }

    /// The request as it goes upstream, by its plan.
    fn outgoing(
        &mut self,
        policy: &Policy,
        request: &ChatRequest,
        plan: Plan,
        (deadline_ms, output): (Option<u64>, OutputLimit<'_>),
        now_ms: impl FnOnce() -> u64,
    ) -> Outgoing {
        let resilience = plan.task.map_or(&policy.resilience, |task| &policy.task(task).resilience);
        let canonical = upstream::build(policy, request, plan.task, &plan.models, output);
        let mut headers = resilience.headers(plan.models.len(), request.stream, deadline_ms);
        let is_direct = resilience.is_direct(plan.models.len(), request.stream, deadline_ms);
        let direct = plan.models.first().filter(|_| is_direct).map(|only| policy.provider_of(*only));
        let (cluster, dispatch) = match direct {
            Some(provider) => {
                headers.push((":path", dispatch::path(provider).into()));
                (dispatch::direct_cluster(provider), None)
            }
            None => (
                dispatch::plan_cluster(plan.models.iter().map(|id| &*policy.provider_of(*id).name)),
                Some(dispatch::encode(
                    policy,
                    &plan.models,
                    &canonical,
                    &resilience.retries(deadline_ms, now_ms()),
                    request.stream,
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
            content_length: canonical.heads.first().map_or(0, Vec::len) + canonical.rest_len(),
            edit: edit(canonical, request.body),
        };
        self.routed = Some(Routed { is_direct, ..Routed::of(request, plan) });
        outgoing
    }

    fn refuse(&mut self, refusal: &Refusal) -> Reply {
        let mut reply = Reply::refusal(refusal);
        // How the quota stands, which is also of interest to a caller who is refused for something else.
        reply.headers.append(&mut self.quota.headers);
        self.reply(reply)
    }

    fn reply(&mut self, mut reply: Reply) -> Reply {
        self.answer = Answer::Own { status: reply.status, code: reply.code };
        // What a model answers has it from Envoy alone, and so has what it once answered.
        if self.saved().is_none() {
            reply.headers.push(("x-request-id", self.trace_id.clone().into()));
        }
        reply
    }
}

impl Routed {
    fn of(request: &ChatRequest, plan: Plan) -> Self {
        Self {
            stream: request.stream,
            hide_usage: request.stream && !request.include_usage,
            messages_bytes: request.messages_bytes,
            tool_names: request.tool_names.iter().map(|n| n.chars().take(64).collect()).collect(),
            served: None,
            failed_as: None,
            is_direct: false,
            plan,
        }
    }

    /// The model that what was used is charged to: who answered, or was to be asked first.
    fn charged_model(&self) -> Option<ModelId> {
        self.served.map(|served| served.model).or_else(|| self.plan.models.first().copied())
    }
}

fn edit(canonical: Canonical, body: &[u8]) -> BodyEdit {
    let prefix = canonical.prefix_only(body.len());
    let head = canonical.heads.into_iter().next().unwrap_or_default();
    match prefix {
        Some(prefix) => BodyEdit::Prefix(prefix, head),
        None => BodyEdit::Whole(head, canonical.rest, canonical.closing),
    }
}
