//! How far an exchange is, and what it has by then.

use crate::exchange::answer::Answer;
use crate::ids::ModelId;
use crate::outcome::outcome::Outcome;
use crate::routing::plan::Plan;

/// How far an exchange is.
#[derive(Debug)]
pub(super) enum State {
    /// The request is being read, decided on, or held.
    Deciding(Deciding),
    /// It was answered here: refused, or given a document, the policy's own words or an answer of the cache.
    Answered(Answered),
    /// It went upstream.
    Upstream(Box<Upstream>),
    /// The caller left, or Envoy answered, before anything was decided.
    Ended {
        /// The plan that it had come to.
        plan: Option<Plan>,
        /// What Envoy answered; 0 where it could not.
        status: u16,
        outcome: Outcome,
    },
}

/// A request that is not decided yet.
#[derive(Debug, Default)]
pub(super) struct Deciding {
    /// The plan that it has come to, while it is held.
    pub(super) plan: Option<Plan>,
    /// Whether it has waited for another request's answer.
    pub(super) has_waited: bool,
}

/// A request that was answered here.
#[derive(Debug)]
pub(super) struct Answered {
    /// The plan that it had come to.
    plan: Option<Plan>,
    pub(super) status: u16,
    /// Why it was refused, if it was.
    pub(super) refusal: Option<Outcome>,
}

/// A request that went upstream.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) routed: Routed,
    pub(super) answer: Answer,
    pub(super) reception: Reception,
    /// The model of an attempt that was under way when another one answered.
    pub(super) cancelled: Option<ModelId>,
}

/// What is remembered of a request's way to its model.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) plan: Plan,
    pub(super) stream: bool,
    pub(super) hide_usage: bool,
    pub(super) prompt_bytes: usize,
    pub(super) tool_names: Vec<String>,
    pub(super) served: Option<Served>,
    /// What the last attempt failed with, where the gateway stage judged it.
    pub(super) failed_as: Option<Outcome>,
    /// Whether it went without a model stage.
    pub(super) is_direct: bool,
}

/// Who answered in the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    pub(super) model: ModelId,
    pub(super) attempts: u32,
    /// Whether the model stage has put them into headers already.
    pub(super) headers_already_sent: bool,
}

/// How the body of a response is received.
#[derive(Debug)]
pub(super) enum Reception {
    /// Its headers have not come.
    Awaited,
    /// A stream, event by event.
    Stream,
    /// It is held until it is whole.
    Held,
    /// It was too long to hold: it passes, and this copy is kept to read the usage from.
    Copied(Vec<u8>),
    /// It is too long even for a copy; so many bytes of it have passed.
    Counted(usize),
    /// Nothing of it is looked at any more.
    Over,
}

impl Default for State {
    fn default() -> Self {
        Self::Deciding(Deciding::default())
    }
}

impl State {
    /// The state of a request that is answered here.
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

    /// The plan that it has come to.
    pub(super) fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Deciding(Deciding { plan, .. })
            | Self::Answered(Answered { plan, .. })
            | Self::Ended { plan, .. } => plan.as_ref(),
            Self::Upstream(upstream) => Some(&upstream.routed.plan),
        }
    }

    /// The request that went upstream, if it did.
    pub(super) fn upstream(&self) -> Option<&Upstream> {
        match self {
            Self::Upstream(upstream) => Some(upstream),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn upstream_mut(&mut self) -> Option<&mut Upstream> {
        match self {
            Self::Upstream(upstream) => Some(upstream),
            _ => None,
        }
    }

    /// The status that the caller gets; `None` where nothing has been answered.
    pub(super) fn status(&self) -> Option<u16> {
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
    /// The model that what was used is charged to: who answered, or was to be asked first.
    pub(super) fn charged_model(&self) -> Option<ModelId> {
        self.served.map(|served| served.model).or_else(|| self.plan.models.first().copied())
    }

    /// Whether another model than the plan's first one serves.
    pub(super) fn is_fallback(&self) -> bool {
        self.served.is_some_and(|served| self.plan.models.first() != Some(&served.model))
    }

    /// Who serves by the model stage's record: the attempt's place in the plan, and its number.
    pub(super) fn last_attempt(&self, recorded: Option<(usize, u32)>) -> Option<Served> {
        let (index, attempts) = recorded?;
        let model = *self.plan.models.get(index)?;
        Some(Served { model, attempts: attempts.max(1), headers_already_sent: false })
    }

    /// Which of its timers ran out, where Envoy knows only that one did.
    pub(super) fn which_timer(&self, why: Outcome) -> Outcome {
        match why {
            Outcome::DeadlineExceeded if self.is_direct => Outcome::AttemptTimeout,
            Outcome::FirstTokenTimeout if !self.stream => Outcome::AttemptTimeout,
            other => other,
        }
    }
}
