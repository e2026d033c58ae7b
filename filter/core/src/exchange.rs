//! One request and its answer at the gateway stage: events in, effects out.
//!
//! The glue calls one method per callback of Envoy and applies what it returns. No method calls the host.

use crate::answer::Answer;
use crate::attempt::{self, OnHead};
use crate::cache::table::SharedData;
use crate::call::{Answered, Call};
use crate::canonical::{self, Canonical};
use crate::chat_request::{ChatRequest, InvalidRequest};
use crate::config::DataClass;
use crate::dispatch;
use crate::identity::{InvalidIdentity, UserHash};
use crate::json::Span;
use crate::policy::{ModelId, Policy, TenantId};
use crate::provider_error;
use crate::quota::ledger::Store;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request_head::RequestHead;
use crate::route::{self, Hints, Load, Plan};
use crate::usage::Usage;

mod cached;
mod hedge;
mod quota;
mod report;
#[cfg(test)]
mod tests;

/// The state of one exchange.
#[derive(Debug)]
pub struct Exchange {
    started_ms: u64,
    trace_id: String,
    endpoint: &'static str,
    /// Whether the request says already what its body is.
    is_json: bool,
    caller: Option<Caller>,
    routed: Option<Routed>,
    /// The plan of a request that was refused although a model could have served it.
    refused: Option<Plan>,
    answer: Answer,
    /// The model of an attempt that was under way when another one answered.
    cancelled: Option<ModelId>,
    quota: quota::Quota,
    cache: cached::Cached,
}

#[derive(Debug)]
struct Caller {
    tenant: TenantId,
    user: Option<UserHash>,
    task: Option<String>,
    data_class: Option<DataClass>,
    deadline_ms: Option<u64>,
    wishes: cached::Wishes,
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
    failed_as: Option<&'static str>,
    /// Whether it went without a model stage.
    is_direct: bool,
    /// Whether its one timer is the attempt's, not the request's.
    attempt_ends_first: bool,
}

/// Who answered in the end.
#[derive(Debug, Clone, Copy)]
struct Served {
    model: ModelId,
    attempts: u32,
    /// Whether the model stage has told the caller already, in headers.
    told: bool,
}

/// What the request's headers led to.
#[derive(Debug)]
pub enum OnRequestHead {
    /// Answer now.
    Reply(Reply),
    /// Read the whole body, then call [`Exchange::request_body`].
    AwaitBody,
    /// Answer with [`Exchange::usage_reply`].
    Usage,
}

/// Why a request is answered here.
enum Denied {
    Refusal(Refusal),
    /// With an answer of the policy's.
    Reply(Reply),
    /// Not yet: this call has to be made first.
    Call(Call),
    /// Not yet: another request is asking the same.
    Wait,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

/// What the whole request led to, or the answer to a call that it waited for.
#[derive(Debug)]
pub enum OnRequestBody {
    /// Send it on.
    Send(Box<Outgoing>),
    /// Answer now.
    Reply(Reply),
    /// Hold it, make this call, and tell [`Exchange::answered`] how it ended.
    Call(Call),
    /// Hold it, and call [`Exchange::request_body`] again once [`Exchange::is_awake`].
    Wait,
}

/// How the request goes upstream.
#[derive(Debug)]
pub struct Outgoing {
    /// Name of the plan cluster.
    pub cluster: String,
    /// The record for the model stage, if there is one.
    pub dispatch: Option<Vec<u8>>,
    /// Headers that tell Envoy's router about attempts and timers.
    pub headers: Vec<(&'static str, String)>,
    /// Length of the new body, in bytes.
    pub content_length: usize,
    /// How to make the new body.
    pub edit: BodyEdit,
}

/// An edit of the request body.
#[derive(Debug)]
pub enum BodyEdit {
    /// Replace this many bytes at the start.
    Prefix(usize, Vec<u8>),
    /// Replace everything: by these bytes, then these parts of the old body with commas between them, then this last part.
    Whole(Vec<u8>, Vec<Span>, Span),
}

/// What is known when a response's headers come.
#[derive(Debug, Default, Clone, Copy)]
pub struct ResponseHead<'a> {
    /// `:status`
    pub status: u16,
    /// `content-type`
    pub content_type: &'a [u8],
    /// `x-pointsman-model`, which the model stage has set; empty where Envoy answered itself.
    pub model: &'a [u8],
    /// `x-pointsman-attempts`, likewise.
    pub attempts: &'a [u8],
    /// The last attempt (its place in the plan, its number) by the model stage's record, where there are no such headers.
    pub last_attempt: Option<(usize, u32)>,
    /// Whether it has a `content-encoding`.
    pub is_encoded: bool,
    /// Whether the response has no body.
    pub end_of_stream: bool,
    /// Envoy's `response.code_details`, which say why Envoy answered itself; needed only where the status is no success.
    pub details: &'a str,
}

/// What the response's headers led to.
#[derive(Debug)]
pub enum OnResponseHead {
    /// It is the module's own reply: leave it alone.
    Own,
    /// Send the headers with these set, and give every chunk to [`Exchange::stream_chunk`].
    Stream(Vec<(&'static str, String)>),
    /// Hold headers and body, then call [`Exchange::whole_body`].
    Hold,
    /// Answer this instead.
    Replace(Reply),
}

/// How a held response goes on.
#[derive(Debug)]
pub struct Whole {
    /// Headers to set.
    pub headers: Vec<(&'static str, String)>,
    /// The status and body to put in place of the provider's.
    pub replace: Option<(u16, Vec<u8>)>,
}

impl Exchange {
    /// An exchange that starts at `now_ms` (milliseconds since the Unix epoch).
    pub fn new(now_ms: u64) -> Self {
        Self {
            started_ms: now_ms,
            trace_id: String::new(),
            endpoint: "unknown",
            is_json: false,
            caller: None,
            routed: None,
            refused: None,
            answer: Answer::None,
            cancelled: None,
            quota: quota::Quota::default(),
            cache: cached::Cached::default(),
        }
    }

    /// The request's headers have come.
    pub fn request_head(&mut self, policy: &Policy, head: &RequestHead) -> OnRequestHead {
        self.trace_id = head.trace_id();
        self.is_json = head.is_json;
        match self.admit(policy, head) {
            Ok(None) if self.endpoint == "usage" => OnRequestHead::Usage,
            Ok(None) => OnRequestHead::AwaitBody,
            Ok(Some(reply)) => OnRequestHead::Reply(self.reply(reply)),
            Err(refusal) => OnRequestHead::Reply(self.refuse(&refusal)),
        }
    }

    fn admit(&mut self, policy: &Policy, head: &RequestHead) -> Result<Option<Reply>, Refusal> {
        let allow = |method: &'static str| match head.method {
            m if m == method.as_bytes() => Ok(()),
            _ => Err(Refusal::WrongMethod(method)),
        };
        match head.path {
            b"/healthz" => {
                self.endpoint = "healthz";
                allow("GET")?;
                Ok(Some(Reply::healthy()))
            }
            b"/v1/models" => {
                self.endpoint = "models";
                allow("GET")?;
                let tenant = self.identify(policy, head)?;
                Ok(Some(Reply::models(policy, tenant)))
            }
            b"/v1/usage" => {
                self.endpoint = "usage";
                allow("GET")?;
                self.identify(policy, head)?;
                Ok(None)
            }
            b"/v1/chat/completions" => {
                self.endpoint = "chat";
                allow("POST")?;
                self.identify(policy, head)?;
                if head.is_encoded {
                    return Err(Refusal::ContentEncoding);
                }
                let limit = policy.limits.max_body_bytes;
                if head.content_length.is_some_and(|length| length > limit) {
                    return Err(Refusal::TooLarge(limit));
                }
                Ok(None)
            }
            _ => Err(Refusal::UnknownPath),
        }
    }

    fn identify(&mut self, policy: &Policy, head: &RequestHead) -> Result<TenantId, Refusal> {
        let tenant = head.tenant(policy, self.started_ms).map_err(|why| match (why, &policy.identity) {
            (InvalidIdentity::Missing, _) => Refusal::MissingKey,
            (InvalidIdentity::Expired, _) => Refusal::ExpiredKey,
            (InvalidIdentity::Unknown, crate::config::Identity::ApiKey) => Refusal::UnknownKey,
            (InvalidIdentity::Unknown, crate::config::Identity::Header { .. }) => Refusal::UnknownTenant,
        })?;
        self.caller = Some(Caller {
            tenant,
            user: head.user().map(|user| UserHash::new(&policy.tenant(tenant).name, user)),
            task: None,
            data_class: None,
            deadline_ms: None,
            wishes: cached::Wishes::of(policy, head),
        });
        let text = |name: &str, value: &[u8]| match std::str::from_utf8(value) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Refusal::InvalidField(name.to_owned(), format!("The header '{name}' is not UTF-8."))),
        };
        let task = head.task.map(|task| text("x-pointsman-task", task)).transpose()?;
        let class = match head.data_class {
            None => None,
            Some(class) => Some(class.map_err(|()| {
                let message =
                    "The header 'x-pointsman-data-class' is one of public, internal, confidential, regulated.";
                Refusal::InvalidField("x-pointsman-data-class".to_owned(), message.to_owned())
            })?),
        };
        let deadline_ms = match head.deadline {
            None => None,
            Some(value) => {
                let ms = std::str::from_utf8(value).ok().and_then(|ms| ms.parse::<u64>().ok()).filter(|ms| *ms > 0);
                Some(ms.ok_or_else(|| {
                    let message = "The header 'x-pointsman-deadline-ms' is a positive whole number of milliseconds.";
                    Refusal::InvalidField("x-pointsman-deadline-ms".to_owned(), message.to_owned())
                })?)
            }
        };
        if let Some(caller) = &mut self.caller {
            caller.deadline_ms = deadline_ms;
            caller.task = task;
            caller.data_class = class;
        }
        Ok(tenant)
    }

    /// So many bytes of the body have come; an answer if that is too much.
    pub fn request_body_size(&mut self, policy: &Policy, bytes: usize) -> Option<Reply> {
        let limit = policy.limits.max_body_bytes;
        (bytes as u64 > limit).then(|| self.refuse(&Refusal::TooLarge(limit)))
    }

    /// The whole body has come.
    pub fn request_body<S: Load + Store + SharedData>(
        &mut self,
        policy: &Policy,
        body: &[u8],
        shared: &mut S,
    ) -> OnRequestBody {
        match self.route(policy, body, shared) {
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
        policy: &Policy,
        body: &[u8],
        shared: &mut S,
        answered: &Answered,
    ) -> OnRequestBody {
        if self.quota.take_answer(answered) {
            return match self.endpoint {
                "usage" => self.usage_reply(policy, shared),
                // All is worked out anew, with the answer.
                _ => self.request_body(policy, body, shared),
            };
        }
        if self.take_entry(answered) {
            return self.request_body(policy, body, shared);
        }
        // Nothing waits.
        OnRequestBody::Reply(self.refuse(&Refusal::Internal))
    }

    /// The exchange is over: the calls to make now, whose answers nobody waits for.
    pub fn parting_calls(&mut self) -> Vec<Call> {
        Vec::new()
    }

    fn route<S: Load + Store + SharedData>(
        &mut self,
        policy: &Policy,
        body: &[u8],
        shared: &mut S,
    ) -> Result<Outgoing, Denied> {
        let caller = self.caller.as_mut().ok_or(Refusal::Internal)?;
        let request = ChatRequest::parse(body, policy.limits.max_nesting).map_err(|why| match why {
            InvalidRequest::Json(error) => Refusal::InvalidJson(error.message()),
            InvalidRequest::Field(param, message) => Refusal::InvalidField(param, message),
        })?;
        if caller.user.is_none() {
            let tenant = &policy.tenant(caller.tenant).name;
            caller.user = request.user.as_ref().map(|user| UserHash::new(tenant, user.as_bytes()));
        }
        let hints = Hints { task: caller.task.as_deref(), data_class: caller.data_class };
        let mut plan = route::plan(policy, caller.tenant, &request, hints)?;
        // The time that the request took to arrive is part of its deadline.
        let deadline_ms = match caller.deadline_ms {
            None => None,
            Some(ms) => Some(ms.saturating_sub(shared.now_ms().saturating_sub(self.started_ms))),
        };
        if deadline_ms == Some(0) {
            return Err(Refusal::DeadlinePassed.into());
        }
        self.check_input(policy, &request)?;
        if let Some(reply) = self.look_up(policy, &request, &plan, shared)? {
            return Err(Denied::Reply(reply));
        }
        let reserved = self.reserve(policy, &request, &mut plan, shared);
        let admitted = reserved.and_then(|output| Ok(plan.spill_over(policy, shared).map(|()| output)?));
        let output = match admitted {
            Ok(output) => output,
            Err(denied) => {
                self.refused = Some(plan);
                return Err(denied);
            }
        };
        self.refused = None;
        let resilience = plan.task.map_or(&policy.resilience, |task| &policy.task(task).resilience);

        let canonical = canonical::build(policy, &request, plan.task, &plan.models, output);
        let mut headers = resilience.headers(plan.models.len(), request.stream, deadline_ms);
        let direct = match plan.models.as_slice() {
            [only] if !request.stream => Some(policy.provider_of(*only)),
            _ => None,
        };
        let (cluster, dispatch) = match direct {
            Some(provider) => {
                headers.push((":path", dispatch::path(provider)));
                (dispatch::direct_cluster(provider), None)
            }
            None => (
                dispatch::plan_cluster(plan.models.iter().map(|id| &*policy.provider_of(*id).name)),
                Some(dispatch::encode(
                    policy,
                    &plan.models,
                    &canonical,
                    &resilience.retries(deadline_ms, shared.now_ms()),
                )),
            ),
        };
        if !self.is_json {
            headers.push(("content-type", "application/json".to_owned()));
        }
        let outgoing = Outgoing {
            cluster,
            dispatch,
            headers,
            content_length: canonical.heads.first().map_or(0, Vec::len) + canonical.rest_len(),
            edit: edit(canonical, body),
        };
        self.routed = Some(Routed {
            is_direct: direct.is_some(),
            attempt_ends_first: resilience.attempt_ends_first(deadline_ms),
            ..Routed::of(&request, plan)
        });
        Ok(outgoing)
    }

    /// The response's headers have come.
    pub fn response_head(&mut self, policy: &Policy, head: &ResponseHead) -> OnResponseHead {
        let Some(routed) = &mut self.routed else { return OnResponseHead::Own };
        if matches!(self.answer, Answer::Own { .. }) {
            return OnResponseHead::Own;
        }
        routed.served = match (routed.plan.find(policy, head.model), parse(head.attempts)) {
            // Nobody has overwritten what the provider may have sent under these names.
            _ if routed.is_direct => routed.last_attempt(Some((0, 1))),
            (Some(model), Some(attempts)) => Some(Served { model, attempts, told: true }),
            _ => routed.last_attempt(head.last_attempt),
        };
        let judged = attempt::head(head.status, head.content_type, head.is_encoded, head.end_of_stream);
        let status = match judged {
            OnHead::HoldEvent => {
                let hide_usage = routed.hide_usage;
                self.answer = Answer::stream(head.status, hide_usage, self.transcript(policy));
                return OnResponseHead::Stream(self.response_headers(policy));
            }
            OnHead::HoldWhole => {
                self.answer = Answer::whole(head.status);
                return OnResponseHead::Hold;
            }
            OnHead::Pass => head.status,
            OnHead::Fail(failure) => failure.status,
        };
        let cause = provider_error::cause(head.details).map(|why| routed.which_timer(why));
        routed.failed_as = match judged {
            OnHead::Fail(failure) => Some(failure.code),
            _ if cause.is_some() => None,
            _ => Some(provider_error::status_reason(head.status)),
        };
        self.answer = Answer::failed(status, cause);
        if head.end_of_stream {
            // The answer that replaces this one has none of its headers.
            if let Some(served) = self.routed.as_mut().and_then(|routed| routed.served.as_mut()) {
                served.told = false;
            }
            let Whole { headers, replace } = self.whole_body(policy, b"");
            let (status, body) = replace.unwrap_or((502, Vec::new()));
            return OnResponseHead::Replace(Reply { status, headers, body, code: None });
        }
        OnResponseHead::Hold
    }

    /// Whether the request went without a model stage, which would have left word of its attempts.
    pub fn is_direct(&self) -> bool {
        self.routed.as_ref().is_some_and(|routed| routed.is_direct)
    }

    /// Whether another model than the plan's first one serves.
    pub fn is_fallback(&self) -> bool {
        let routed = self.routed.as_ref();
        routed.is_some_and(|r| r.served.is_some_and(|s| r.plan.models.first() != Some(&s.model)))
    }

    /// A chunk of a stream has come. `Some` replaces it.
    pub fn stream_chunk(&mut self, chunk: &[u8], end_of_stream: bool, now_ms: u64) -> Option<Vec<u8>> {
        let elapsed = now_ms.saturating_sub(self.started_ms);
        self.answer.stream_chunk(chunk, end_of_stream, elapsed)
    }

    /// The whole body of a held response has come.
    pub fn whole_body(&mut self, policy: &Policy, body: &[u8]) -> Whole {
        let mut replace = None;
        if let Err(failure) = self.answer.whole_body(body) {
            self.answer = Answer::failed(failure.status, None);
            if let Some(routed) = &mut self.routed {
                routed.failed_as = Some(failure.code);
            }
        } else {
            self.note_whole(policy, body);
        }
        let (mut final_for_caller, mut retry_after) = (false, None);
        if let Answer::Failed { status, code } = &mut self.answer {
            let words = provider_error::words(*status, *code, body);
            *status = words.status;
            *code = Some(words.code);
            final_for_caller = !provider_error::may_retry(&words);
            retry_after = provider_error::retry_after(&words);
            replace = Some((words.status, words.openai_body()));
        }
        let mut headers = self.response_headers(policy);
        if let Some((usage, _)) = self.usage()
            && let Some(cost) = self.served_price(policy).map(|price| price.cost(&usage))
        {
            headers.push(("x-pointsman-cost-usd", cost.to_decimal()));
        }
        if replace.is_some() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        headers.extend(retry_after);
        if final_for_caller {
            headers.push(("x-should-retry", "false".to_owned()));
        }
        Whole { headers, replace }
    }

    /// The whole body of a response that was too long to hold has passed.
    pub fn passed_body(&mut self, body: &[u8]) {
        // What is no completion is known by the record alone: the caller has it already, and is charged for it.
        if self.answer.whole_body(body).is_err() {
            self.answer.whole_cut(body.len());
        }
    }

    /// A response that was too long to hold has broken off, after `bytes` of its body.
    pub fn whole_cut(&mut self, bytes: usize) {
        self.answer.whole_cut(bytes);
    }

    /// The whole body of a response has passed, `bytes` of it, too many to be read: its usage is estimated.
    pub fn whole_uncopied(&mut self, bytes: usize) {
        self.answer.whole_uncopied(bytes);
    }

    /// A held response has become too long to hold: send its headers, and give what follows to [`Exchange::whole_chunk`].
    pub fn release(&mut self, policy: &Policy) -> Vec<(&'static str, String)> {
        self.response_headers(policy)
    }

    fn served_price<'p>(&self, policy: &'p Policy) -> Option<&'p crate::price::Price> {
        let served = self.routed.as_ref()?.served?;
        policy.model(served.model).price.as_ref()
    }

    /// What is charged, and whether it is an estimate; `None` where nothing is.
    fn usage(&self) -> Option<(Usage, bool)> {
        // An answer of the cache takes no tokens.
        if self.saved().is_some() {
            return Some((Usage::default(), false));
        }
        let routed = self.routed.as_ref()?;
        let (mut usage, estimated) = self.answer.usage(routed.messages_bytes)?;
        if let Some(input) = self.estimated_input().filter(|_| estimated) {
            usage.input = input;
        }
        Some((usage, estimated))
    }

    fn response_headers(&self, policy: &Policy) -> Vec<(&'static str, String)> {
        let mut headers = Vec::with_capacity(8);
        headers.push(("x-pointsman-cache", self.cache_header().to_owned()));
        headers.extend(self.quota.headers.iter().cloned());
        if let Some(Routed { plan, served: Some(served), .. }) = &self.routed {
            let model = policy.model(served.model);
            headers.push(("x-pointsman-provider", policy.provider(model.provider).name.to_string()));
            headers.push(("x-pointsman-fallback", (plan.models.first() != Some(&served.model)).to_string()));
            if !served.told {
                headers.push(("x-pointsman-model", model.name.to_string()));
                headers.push(("x-pointsman-attempts", served.attempts.to_string()));
            }
        }
        headers
    }

    fn refuse(&mut self, refusal: &Refusal) -> Reply {
        self.reply(Reply::refusal(refusal))
    }

    fn reply(&mut self, mut reply: Reply) -> Reply {
        self.answer = Answer::Own { status: reply.status, code: reply.code };
        reply.headers.push(("x-request-id", self.trace_id.clone()));
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
            attempt_ends_first: false,
            plan,
        }
    }

    fn last_attempt(&self, recorded: Option<(usize, u32)>) -> Option<Served> {
        let (index, attempts) = recorded?;
        let model = *self.plan.models.get(index)?;
        Some(Served { model, attempts: attempts.max(1), told: false })
    }

    /// Which of its timers ran out, where Envoy knows only that one did.
    fn which_timer(&self, why: &'static str) -> &'static str {
        match why {
            "deadline_exceeded" if self.is_direct && self.attempt_ends_first => "attempt_timeout",
            "first_token_timeout" if !self.stream => "attempt_timeout",
            other => other,
        }
    }
}

fn parse(number: &[u8]) -> Option<u32> {
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn edit(canonical: Canonical, body: &[u8]) -> BodyEdit {
    let prefix = canonical.prefix_only(body.len());
    let head = canonical.heads.into_iter().next().unwrap_or_default();
    match prefix {
        Some(prefix) => BodyEdit::Prefix(prefix, head),
        None => BodyEdit::Whole(head, canonical.rest, canonical.closing),
    }
}
