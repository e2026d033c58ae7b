//! Why a model that a request asks for cannot serve it.

use crate::config::DataClass;
use crate::ids::ModelId;
use crate::outcome::refusal::Refusal;
use crate::policy::Policy;
use crate::request::facts::Facts;
use crate::request::needs::Need;
use crate::request::strange::Strange;

/// Why a model of the chain is not in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ineligible {
    /// Its provider does not speak the caller's dialect.
    Dialect,
    /// The tenant's tier does not allow it.
    Tier,
    /// Its provider may not receive data of the request's class.
    DataClass,
    /// It lacks a capability that the request needs.
    Capability(Need),
    /// It has no price for something that the request needs, and a budget applies.
    Price(Need),
    /// The gateway does not know this field of the request, and a budget applies.
    UnknownField(String),
    /// It does not accept a parameter of the request.
    Param(String),
    /// The prompt is longer than its context window.
    Context,
    /// It already serves its maximum number of requests.
    Overloaded,
    /// The tenant already holds its share of the model's places.
    Share,
    /// A quota has no room for it.
    Quota,
}

impl Ineligible {
    /// Returns the code for `left_out` of the audit record.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Dialect => "dialect",
            Self::Tier => "tier",
            Self::DataClass => "data_class",
            Self::Capability(_) => "capability",
            Self::Price(_) | Self::UnknownField(_) => "price",
            Self::Param(_) => "parameter",
            Self::Context => "context",
            Self::Overloaded => "overloaded",
            Self::Share => "tenant_share",
            Self::Quota => "quota",
        }
    }
}

/// Checks that the model can and may serve the request, whose data has this class. `has_budget`: whether a budget of
/// the tenant bounds its cost.
///
/// # Errors
/// Why it cannot or may not.
pub fn fits(
    policy: &Policy,
    id: ModelId,
    request: &Facts,
    data: DataClass,
    has_budget: bool,
) -> Result<(), Ineligible> {
    let model = policy.model(id);
    if !policy.provider_of(id).speaks(request.target.dialect) {
        return Err(Ineligible::Dialect);
    }
    if data > policy.provider_of(id).data {
        return Err(Ineligible::DataClass);
    }
    let asked = model.asked(request.service_tier, request.needs, has_budget);
    if let Some(missing) = model.lacks(asked.needs) {
        return Err(Ineligible::Capability(missing));
    }
    if let Some(member) = request.members.iter().find(|m| model.refuses(&m.name)) {
        return Err(Ineligible::Param(member.name.to_string()));
    }
    let barred = |(name, strange): &(&str, Strange)| model.takes(name) && model.bars(*strange, has_budget);
    if let Some((name, strange)) = request.strange_fields().filter(|_| !model.drop_params).find(barred) {
        return Err(match strange {
            Strange::Routing => Ineligible::Param(name.to_owned()),
            Strange::Unknown => Ineligible::UnknownField(name.to_owned()),
        });
    }
    if model.refuses_tier(request.service_tier, has_budget) {
        return Err(Ineligible::Param("service_tier".to_owned()));
    }
    if has_budget && let Some(unpriced) = model.unpriced(asked) {
        return Err(Ineligible::Price(unpriced));
    }
    if certainly_longer(request, model.context) {
        return Err(Ineligible::Context);
    }
    Ok(())
}

/// Returns whether the messages are certainly longer than `context` tokens.
///
/// Common tokenizers spend at least one token on 16 characters of running text, so this never rejects what would fit.
/// If a prompt that passes is too long after all, the provider rejects it. A request with images or parts of unknown
/// kinds always passes. Audio and files are not counted, because their bytes say little.
fn certainly_longer(request: &Facts, context: u64) -> bool {
    let least = |length: usize| length as u64 / 16;
    // The characters are counted only if they can matter.
    let is_text = !request.needs.has(Need::Image) && !request.needs.has(Need::OtherContent);
    is_text && least(request.prompt_bytes()) > context && least_tokens(request) > context
}

/// Returns the least number of tokens that the messages can have.
fn least_tokens(request: &Facts) -> u64 {
    request.prompt_bytes().min(request.prompt_characters()) as u64 / 16
}

/// Returns the refusal for a chain with no model left. What the caller can change comes first.
pub fn refusal(policy: &Policy, request: &Facts, ineligible: &[(ModelId, Ineligible)]) -> Refusal {
    let pick = |wanted: fn(&Ineligible) -> bool| ineligible.iter().map(|(_, why)| why).find(|why| wanted(why));
    let why = pick(|why| matches!(why, Ineligible::Param(_)))
        .or_else(|| pick(|why| matches!(why, Ineligible::UnknownField(_))))
        .or_else(|| pick(|why| matches!(why, Ineligible::Price(_))))
        .or_else(|| pick(|why| matches!(why, Ineligible::Capability(_))))
        .or_else(|| pick(|why| *why == Ineligible::Context))
        .or_else(|| pick(|why| *why == Ineligible::DataClass))
        .or_else(|| pick(|why| *why == Ineligible::Dialect));
    match why {
        Some(Ineligible::Param(param)) => Refusal::UnsupportedParam(param.clone()),
        Some(Ineligible::Capability(missing)) => Refusal::MissingCapability(*missing),
        Some(Ineligible::UnknownField(field)) => Refusal::UnknownField(field.clone()),
        Some(Ineligible::Price(unpriced)) => Refusal::MissingPrice(*unpriced),
        Some(Ineligible::Context) => {
            let too_small = ineligible.iter().filter(|(_, why)| *why == Ineligible::Context);
            let context = too_small.map(|(id, _)| policy.model(*id).context).max().unwrap_or_default();
            Refusal::ContextTooLong { context, tokens: least_tokens(request) }
        }
        Some(Ineligible::DataClass) => Refusal::DataClass,
        Some(Ineligible::Dialect) => Refusal::UnsupportedApi,
        Some(Ineligible::Overloaded) => Refusal::Overloaded,
        Some(Ineligible::Share) => Refusal::ShareTaken,
        Some(Ineligible::Tier | Ineligible::Quota) | None => {
            Refusal::ModelNotAllowed(request.model.as_deref().unwrap_or("auto").to_owned())
        }
    }
}
