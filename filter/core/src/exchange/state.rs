//! How far an exchange is, and the data of each step.

use crate::cache::local::recording::BudgetGuard;
use crate::exchange::abandoned::state::Attempts;
use crate::exchange::answer::Answer;
use crate::exchange::form::Form;
use crate::ids::ModelId;
use crate::outcome::outcome::Outcome;
use crate::outcome::provider_error;
use crate::request::needs::Needs;
use crate::routing::plan::Plan;
use crate::service_tier::ServiceTier;

/// How far an exchange is.
#[derive(Debug)]
pub(super) enum State {
    /// The request is being read, decided on, or held.
    Deciding(Deciding),
    /// Answered here: refused, or given a document, the policy's own text or a cached answer.
    Answered(Answered),
    /// Sent upstream.
    Upstream(Box<Upstream>),
    /// The caller left, or Envoy answered, before any decision.
    Ended {
        /// The plan chosen by then.
        plan: Option<Plan>,
        /// Status that Envoy answered; 0 if it could not.
        status: u16,
        outcome: Outcome,
    },
}

/// Status in record and metrics of an exchange whose caller left before its end, whatever it had got by then: nginx's
/// "client closed request".
const CALLER_LEFT: u16 = 499;

/// A request without a decision yet.
#[derive(Debug, Default)]
pub(super) struct Deciding {
    /// The plan chosen, while the request is held.
    pub(super) plan: Option<Plan>,
    /// Whether it has waited for another request's answer.
    pub(super) has_waited: bool,
}

/// A request answered here.
#[derive(Debug)]
pub(super) struct Answered {
    /// The plan chosen by then.
    plan: Option<Plan>,
    pub(super) status: u16,
    /// Why it was refused, if it was.
    pub(super) refusal: Option<Outcome>,
}

/// A request sent upstream.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) routed: Routed,
    pub(super) answer: Answer,
    pub(super) attempts: Attempts,
    /// When a whole answer was complete, in milliseconds since the Unix epoch.
    pub(super) answered_ms: Option<u64>,
    pub(super) reception: Reception,
    /// Whether Envoy wrote the body of the response, which then says nothing of the provider's.
    pub(super) is_body_envoys: bool,
    /// The model of an attempt still running when another one answered.
    pub(super) cancelled: Option<ModelId>,
}

/// A request's route to its model.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) plan: Plan,
    /// Whether the provider is asked for a stream.
    pub(super) stream: bool,
    /// In which form the answer is asked for, where the task has a choice.
    pub(super) form: Option<Form>,
    /// The model of which this stream was the first to leave a doubt to the tenant what the whole answer is.
    pub(super) first_doubt: Option<ModelId>,
    pub(super) hide_usage: bool,
    /// The service tier that the request asks for, other than the base one.
    pub(super) service_tier: Option<ServiceTier>,
    /// What the request needs beyond text.
    pub(super) needs: Needs,
    pub(super) prompt_bytes: usize,
    /// How many choices the request asks for.
    pub(super) choices: u64,
    /// The most output tokens of each model of the plan, for all choices.
    pub(super) most_output: Vec<u64>,
    /// The most input or output tokens that an answer can have used. A report of more is wrong.
    pub(super) most_tokens: u64,
    pub(super) tool_names: Vec<String>,
    /// URLs in the request, which a provider's error may repeat.
    pub(super) urls: Vec<Box<str>>,
    pub(super) served: Option<Served>,
    /// The last attempt's failure, where the gateway stage judged it.
    pub(super) failed_as: Option<Outcome>,
    /// Whether it bypassed the model stage.
    pub(super) skips_model_stage: bool,
    /// The media type of the answer, where its provider labels it otherwise.
    pub(super) corrected_type: Option<&'static str>,
}

/// Who answered in the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    pub(super) model: ModelId,
    pub(super) attempts: u32,
    /// Whether the model stage has already set the headers.
    pub(super) headers_already_sent: bool,
}

/// How the body of a response is received.
#[derive(Debug)]
pub(super) enum Reception {
    /// Its headers have not arrived.
    Awaited,
    /// A stream, event by event.
    Stream,
    /// A stream, of which a whole answer is put together.
    Assembled,
    /// Held until it is whole.
    Held,
    /// Too long to hold: it passes, and this copy is kept to read the usage.
    Copied(Vec<u8>, BudgetGuard),
    /// Too long even to copy; this many bytes have passed.
    Counted(usize),
    /// Nothing more of it is read.
    Over,
}

impl Default for State {
    fn default() -> Self {
        Self::Deciding(Deciding::default())
    }
}

impl State {
    /// The state of a request answered here.
    pub(super) fn answered(self, status: u16, refusal: Option<Outcome>) -> Self {
        Self::Answered(Answered { plan: self.into_plan(), status, refusal })
    }

    /// The state of a request that ended before it was decided.
    pub(super) fn ended(self, status: u16, outcome: Outcome) -> Self {
        Self::Ended { plan: self.into_plan(), status, outcome }
    }

    fn into_plan(self) -> Option<Plan> {
        match self {
            Self::Deciding(Deciding { plan, .. })
            | Self::Answered(Answered { plan, .. })
            | Self::Ended { plan, .. } => plan,
            Self::Upstream(upstream) => Some(upstream.routed.plan),
        }
    }

    /// The plan chosen for it.
    pub(super) fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Deciding(Deciding { plan, .. })
            | Self::Answered(Answered { plan, .. })
            | Self::Ended { plan, .. } => plan.as_ref(),
            Self::Upstream(upstream) => Some(&upstream.routed.plan),
        }
    }

    /// The upstream request, if any.
    pub(super) fn upstream(&self) -> Option<&Upstream> {
        match self {
            Self::Upstream(upstream) => Some(upstream),
            _ => None,
        }
    }

    /// The same, mutable.
    pub(super) fn upstream_mut(&mut self) -> Option<&mut Upstream> {
        match self {
            Self::Upstream(upstream) => Some(upstream),
            _ => None,
        }
    }

    /// Status the caller gets, or [`CALLER_LEFT`]; `None` if there was no answer.
    pub(super) fn status(&self) -> Option<u16> {
        if matches!(self.outcome(), Some(Outcome::ClientDisconnected | Outcome::ClientSlow)) {
            return Some(CALLER_LEFT);
        }
        match self {
            Self::Deciding(_) => None,
            Self::Answered(answered) => Some(answered.status),
            Self::Upstream(upstream) => upstream.answer.status(),
            Self::Ended { status, .. } => Some(*status),
        }
    }

    /// What went wrong, if anything did.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Deciding(_) => Some(Outcome::NoResponse),
            Self::Answered(answered) => answered.refusal,
            Self::Upstream(upstream) => upstream.answer.error_code(),
            Self::Ended { outcome, .. } => Some(*outcome),
        }
    }
}

impl Routed {
    /// Whether the caller gets a whole answer that is put together from a stream.
    pub(super) fn is_assembled(&self) -> bool {
        self.form.as_ref().is_some_and(Form::is_assembled)
    }

    /// The model charged for the usage: the one that answered, or the first in the plan.
    pub(super) fn charged_model(&self) -> Option<ModelId> {
        self.served.map(|served| served.model).or_else(|| self.plan.models.first().copied())
    }

    /// Whether a model other than the plan's first serves.
    pub(super) fn is_fallback(&self) -> bool {
        self.served.is_some_and(|served| self.plan.models.first() != Some(&served.model))
    }

    /// Who serves, from the model stage's record: the attempt's place in the plan, and its number.
    pub(super) fn last_attempt(&self, recorded: Option<(usize, u32)>) -> Option<Served> {
        let (index, attempts) = recorded?;
        let model = *self.plan.models.get(index)?;
        Some(Served { model, attempts: attempts.max(1), headers_already_sent: false })
    }

    /// Why Envoy answered itself or cut off an answer, from its `response.code_details`. Envoy only knows that a timer
    /// fired, not what for.
    pub(super) fn cause(&self, details: &str) -> Option<Outcome> {
        Some(match provider_error::cause(details)? {
            Outcome::DeadlineExceeded if self.skips_model_stage && !provider_error::is_deadline(details) => {
                Outcome::AttemptTimeout
            }
            Outcome::FirstTokenTimeout if !self.stream => Outcome::AttemptTimeout,
            other => other,
        })
    }
}
