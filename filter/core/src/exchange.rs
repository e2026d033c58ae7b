//! One request and its answer at the gateway stage: events in, effects out.
//!
//! The glue calls one method per callback of Envoy and applies what it returns. No method calls the host.
//!
//! # Calls while the request waits
//!
//! A decision may need something only a call can provide: a cache entry or a reservation in Redis. No decision blocks
//! on it. It stops and returns the call it needs. When the call has ended, the exchange **evaluates the request again
//! from the start**, with the results so far in a [`journal`]:
//!
//! ```text
//!  whole body ──► plan ──► cache entry? ── no result yet ──► call ─┐ the request is held
//!             ┌───────────────────────────────────────── record ◄──┘
//!             └─► plan ──► cache entry: none ──► reserve? ── no result yet ──► call ─┐
//!             ┌──────────────────────────────────────────────────────────── record ◄─┘
//!             └─► plan ──► cache entry: none ──► reserve: granted ──► upstream
//! ```
//!
//! Each decision reads as if its results were at hand: one function, top to bottom. A later decision that needs a call
//! (an embedding, a judge, a guardrail service) asks the same journal. Every pass decides the same, because a decision
//! depends only on the request, the policy and the journal; the first pass fixes the time, the request id and the
//! learned token corrections.

use crate::cache::local::response_memo::BodyLookup;
use crate::dialect::client::{ClientDialect, ClientRequest};
use crate::exchange::answer::Answer;
use crate::identity::keys::UserHash;
use crate::ids::ModelId;
use crate::memory::Context;
use crate::outcome::refusal::Refusal;
use crate::outcome::reply::Reply;
use crate::policy::Policy;
use crate::policy::output_limit::OutputLimit;
use crate::policy::resilience::{self, Deadline};
use crate::quota::demand;
use crate::quota::store::Store;
use crate::request::endpoint::Endpoint;
use crate::request::facts::{AskedOutput, Facts};
use crate::request::prompt;
use crate::request::splice::Splice;
use crate::request::uploads::Upload;
use crate::routing::dispatch::{self, Wanted};
use crate::routing::plan::{self, Hints, Load, Plan};
use crate::store::shared_data::SharedData;
use crate::wire::http_call::{HttpCall, HttpCallResult};

mod abandoned;
pub mod answer;
mod assembly;
mod cache;
mod caller;
mod cost;
mod events;
mod form;
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

use abandoned::state::Attempts;
use cache::state::Cached;
use caller::Caller;
pub use events::{
    BodyEdit, BodyPart, BodyStep, Finished, Observer, OnResponseBody, OnResponseHead, Outgoing, RequestStep,
    ResponseHead, ResponseStep, Whole,
};
use form::Form;
use journal::{Journal, Pending};
use quota::state::Quota;
use state::{Deciding, Reception, Routed, State, Upstream};

/// The state of one exchange.
#[derive(Debug)]
pub struct Exchange {
    started_ms: u64,
    trace_id: String,
    endpoint: Endpoint,
    /// The dialect of the list of models that the caller wants, if its headers say so.
    listing: Option<ClientDialect>,
    /// Whether the request already declares its content type.
    is_json: bool,
    caller: Option<Caller>,
    /// The prompt the request names, as far as the audit record may repeat it.
    prompt: prompt::Logged,
    quota: Quota,
    cache: Cached,
    journal: Journal,
    /// The length of its body in bytes, if the headers say it.
    length: Option<u64>,
    /// Its body, while that is arriving in pieces.
    upload: Option<Upload>,
    state: State,
}

/// Why a request does not go upstream, or not yet.
enum NotSent {
    /// Refuse it.
    Refuse(Refusal),
    /// Answer it here.
    Reply(Reply),
    /// Make this call first.
    Call(HttpCall),
    /// Wait: another request is asking the same.
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
            listing: None,
            is_json: false,
            caller: None,
            prompt: prompt::Logged::default(),
            quota: Quota::default(),
            cache: Cached::default(),
            journal: Journal::default(),
            length: None,
            upload: None,
            state: State::default(),
        }
    }

    /// Call this when the whole request has arrived, or when it need not wait any longer.
    pub fn on_request<S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context,
        body: &[u8],
        shared: &mut S,
    ) -> RequestStep {
        self.end_upload(context);
        match self.route(context, body, shared) {
            Ok(outgoing) => RequestStep::Send(Box::new(outgoing)),
            Err(NotSent::Refuse(refusal)) => RequestStep::Reply(self.refuse(&refusal)),
            Err(NotSent::Reply(reply)) => RequestStep::Reply(self.reply(reply)),
            Err(NotSent::Call(call)) => RequestStep::Call(call),
            Err(NotSent::Wait) => RequestStep::Park,
        }
    }

    /// The call the request waited for has ended. `body` is the request's body, unchanged.
    pub fn on_call_result<S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context,
        body: &[u8],
        shared: &mut S,
        result: &HttpCallResult,
    ) -> RequestStep {
        if !self.journal.record(result) {
            // No call is pending.
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
        // The deadline includes the time the request took to arrive.
        let (started_ms, mut total_ms) = (self.started_ms, caller.deadline_ms);
        let hints = Hints { task: caller.task.as_deref(), data_class: caller.data_class };
        let mut plan = plan::plan(policy, caller.tenant, facts, hints)?;
        if matches!(self.state, State::Deciding(Deciding { has_waited: true, .. })) {
            // Envoy starts the timeout when the request goes upstream, so the wait needs a deadline.
            let request_ms = plan.resilience(policy).request_ms();
            total_ms = Some(total_ms.map_or(request_ms, |ms| ms.min(request_ms)));
        }
        let deadline = total_ms.map(|total_ms| {
            let left_ms = total_ms.saturating_sub(shared.now_ms().saturating_sub(started_ms));
            Deadline { total_ms, left_ms }
        });
        match self.permit(context, (request, &lookup), &mut plan, deadline, shared) {
            Ok(output) => {
                let form = self.form(context, request, &plan, output);
                Ok(self.outgoing(policy, (request, form), plan, (deadline, output), shared.now_ms()))
            }
            Err(why) => {
                if let State::Deciding(deciding) = &mut self.state {
                    deciding.plan = Some(plan);
                }
                Err(why)
            }
        }
    }

    /// Whether a planned request may go upstream now, and with which output limit.
    fn permit<'p, S: Load + Store + SharedData>(
        &mut self,
        context: &mut Context<'p>,
        (request, lookup): (&ClientRequest, &BodyLookup),
        plan: &mut Plan,
        deadline: Option<Deadline>,
        shared: &mut S,
    ) -> Result<OutputLimit<'p>, NotSent> {
        if deadline.is_some_and(|deadline| deadline.left_ms == 0) {
            return Err(Refusal::DeadlinePassed.into());
        }
        let policy = context.policy;
        self.check_input(policy, request.facts(), plan)?;
        if let Some(reply) = self.look_up(context, (request, lookup), plan, shared)? {
            return Err(NotSent::Reply(reply));
        }
        let output = self.reserve(context, request.facts(), plan, shared)?;
        let tenant = self.caller.as_ref().ok_or(Refusal::Internal)?.tenant;
        plan.spill_over(policy, tenant, shared)?;
        Ok(output)
    }

    /// Builds the upstream request from its plan. `form`: in which form its whole answer is asked for.
    fn outgoing(
        &mut self,
        policy: &Policy,
        (request, form): (&ClientRequest, Option<Form>),
        plan: Plan,
        (deadline, output): (Option<Deadline>, OutputLimit<'_>),
        now_ms: u64,
    ) -> Outgoing {
        let resilience = plan.resilience(policy);
        let facts = request.facts();
        let is_assembled = form.as_ref().is_some_and(Form::is_assembled);
        let stream = facts.stream || is_assembled;
        let splice = request.upstream(policy, plan.task, &plan.models, output, is_assembled);
        let mut headers = resilience.headers(plan.models.len(), stream, deadline);
        let skips_model_stage = resilience::skips_model_stage(plan.models.len(), stream);
        let first = plan.models.first().map(|first| policy.provider_of(*first));
        if let Some(provider) = first {
            headers.push((":path", provider.path(facts.target.path).into()));
        }
        let (cluster, dispatch) = match first.filter(|_| skips_model_stage) {
            Some(provider) => (dispatch::direct_cluster(provider), None),
            None => (
                dispatch::plan_cluster(plan.models.iter().map(|id| &*policy.provider_of(*id).name)),
                Some(dispatch::encode(
                    policy,
                    self.caller.as_ref().map_or("", |caller| &policy.tenant(caller.tenant).name),
                    facts.target,
                    &plan.models,
                    &splice,
                    &resilience.retries(deadline, now_ms),
                    match stream {
                        true if resilience.has_early_headers() && !is_assembled => Wanted::EarlyStream,
                        true => Wanted::Stream,
                        false => Wanted::Whole,
                    },
                )),
            ),
        };
        if !self.is_json {
            headers.push(("content-type", "application/json".into()));
        }
        let own = self.caller.as_ref().map_or(&[][..], |caller| &caller.dialect_headers);
        let has = |name: &str| {
            own.split(|byte| *byte == b'\n')
                .any(|line| line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b":")))
        };
        let absent = self.dialect().default_headers().iter().filter(|(name, _)| !has(name));
        headers.extend(absent.map(|(name, value)| (*name, (*value).into())));
        let outgoing = Outgoing {
            cluster,
            dispatch,
            headers,
            content_length: splice.heads.first().map_or(0, Vec::len) + splice.rest_len(),
            edit: edit(splice, facts.body),
        };
        self.state = State::Upstream(Box::new(Upstream {
            routed: Routed {
                most_tokens: most_tokens(policy, facts, &plan),
                most_output: demand::most_output(policy, output, facts, plan.task, &plan.models),
                skips_model_stage,
                stream,
                form,
                ..Routed::of(facts, plan)
            },
            answer: Answer::Awaited,
            attempts: Attempts::sent(now_ms),
            answered_ms: None,
            reception: Reception::Awaited,
            is_body_envoys: false,
            cancelled: None,
        }));
        outgoing
    }

    /// The request's route to its model, if it went to one or something answered in the model's place.
    fn routed(&self) -> Option<&Routed> {
        match &self.state {
            State::Upstream(upstream) => Some(&upstream.routed),
            _ => self.cache.hit().map(|hit| &hit.routed),
        }
    }

    /// The plan chosen for the request.
    fn plan(&self) -> Option<&Plan> {
        self.routed().map(|routed| &routed.plan).or(self.state.plan())
    }

    /// The dialect the caller speaks.
    pub fn dialect(&self) -> ClientDialect {
        self.listing.unwrap_or(ClientDialect::of(self.endpoint))
    }

    fn refuse(&mut self, refusal: &Refusal) -> Reply {
        let mut reply = self.dialect().refusal(refusal, &self.trace_id);
        // Quota headers also help a caller refused for another reason.
        reply.headers.append(&mut self.quota.headers);
        self.reply(reply)
    }

    fn reply(&mut self, mut reply: Reply) -> Reply {
        self.state = std::mem::take(&mut self.state).answered(reply.status, reply.code);
        // Envoy sets these headers on a model's answer, and so also on a cached one.
        if self.saved().is_none() {
            reply.headers.push(("x-request-id", self.trace_id.clone().into()));
        }
        reply.headers.extend(self.dialect().id_header().map(|name| (name, self.trace_id.clone().into())));
        reply
    }
}

/// Returns the most tokens that any model of the plan can read or write for the request.
fn most_tokens(policy: &Policy, facts: &Facts, plan: &Plan) -> u64 {
    let of = |id: &ModelId| {
        let model = policy.model(*id);
        let AskedOutput { raised, beside, .. } = facts.output;
        let output = model.max_output_tokens.max(raised.min(model.context)).saturating_add(beside.min(model.context));
        output.saturating_mul(facts.generated).saturating_add(model.context)
    };
    plan.models.iter().map(of).max().unwrap_or(u64::MAX)
}

impl Routed {
    fn of(request: &Facts, plan: Plan) -> Self {
        Self {
            stream: request.stream,
            form: None,
            first_doubt: None,
            hide_usage: request.stream && !request.wants_usage,
            service_tier: request.service_tier,
            needs: request.needs,
            prompt_bytes: request.prompt_bytes(),
            choices: request.generated,
            most_output: Vec::new(),
            urls: request.urls(),
            tool_names: request.tool_names.iter().map(|name| prompt::logged_name(name)).collect(),
            most_tokens: u64::MAX,
            served: None,
            failed_as: None,
            corrected_type: None,
            skips_model_stage: false,
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
