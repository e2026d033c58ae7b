//! The cost of tokens, in integers.

use crate::config;
use crate::config::Capability;
use crate::config::place::Place;
use crate::config::problem::{Problem, quoted};
use crate::request::needs::{Need, Needs};
use crate::service_tier::{self, MAX_LEN, ServedTier, ServiceTier};
use crate::usage::Usage;
use std::borrow::Cow;

/// Millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroUsd(pub u64);

impl MicroUsd {
    /// Formats the amount as dollars with six decimals, for example `0.000123`: a JSON number and a header value
    /// without rounding.
    pub fn to_decimal(self) -> Cow<'static, str> {
        // The common case of local models and cache hits.
        if self.0 == 0 {
            return Cow::Borrowed("0.000000");
        }
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(self.0);
        let zeros = "0000000".get(digits.len()..).unwrap_or_default();
        let mut decimal = String::with_capacity(zeros.len() + digits.len() + 1);
        decimal.push_str(zeros);
        decimal.push_str(digits);
        decimal.insert(decimal.len() - 6, '.');
        Cow::Owned(decimal)
    }
}

/// The highest price, in USD per million tokens: 10¹² × 10⁻¹² USD per token.
const MAX_USD: f64 = 1_000_000.0;

/// A model's price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    base: Rates,
    /// The prices of the provider's other service tiers, sorted.
    tiers: Box<[(ServiceTier, Rates)]>,
    /// The price of a request that searches the web.
    web_search: Option<MicroUsd>,
}

/// The price of a service tier in 10⁻¹² USD per token, so that USD per million tokens with six decimals is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rates {
    input: u64,
    cached_input: u64,
    cache_write: u64,
    output: u64,
    audio_input: Option<u64>,
    audio_output: Option<u64>,
}

/// What a request asks a model for, as far as the price depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// The service tier, other than the base one.
    pub tier: Option<ServiceTier>,
    /// What it needs beyond text.
    pub needs: Needs,
}

/// What some tokens cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// The amount.
    pub usd: MicroUsd,
    /// Whether it is a guess, because the service tier, its audio or the web search has no price. The tier counts at
    /// the highest price of all, audio as text, and the search not at all.
    pub is_guess: bool,
}

impl Price {
    /// Validates a price and reports its problems.
    pub(crate) fn from_config(price: &config::Price, place: &Place, problems: &mut Vec<Problem>) -> Option<Self> {
        let config::Price {
            input,
            cached_input,
            cache_write,
            output,
            audio_input,
            audio_output,
            web_search,
            ref tiers,
        } = *price;
        let base = config::TierPrice { input, cached_input, cache_write, output, audio_input, audio_output };
        let base = Rates::from_config(&base, place, problems);
        let mut built = Vec::with_capacity(tiers.len());
        for (name, price) in tiers {
            let place = place.name("tiers").name(name);
            match ServiceTier::valid(name) {
                _ if service_tier::is_base(name) => {
                    let message = format!("{} is not priced apart: it has the price outside `tiers`", quoted(name));
                    problems.push(Problem::of_name(&place, message));
                }
                Some(tier) if tier != ServiceTier::STRANGE && tier.name() == name => {
                    built.extend(Rates::from_config(price, &place, problems).map(|rates| (tier, rates)));
                }
                _ => {
                    let message =
                        format!("a service tier must be 1 to {MAX_LEN} lower-case letters, digits or any of _-");
                    problems.push(Problem::of_name(&place, message));
                }
            }
        }
        built.sort_unstable_by_key(|(tier, _)| *tier);
        // A thousandth of the price of 1,000 requests, rounded up. The price is exact in millionths of a dollar.
        let web_search = web_search.and_then(|usd| {
            let exact = picousd_per_token(usd);
            if exact.is_none() {
                let message = format!(
                    "{usd} is not a price in USD per 1,000 requests from 0 to 1000000 with at most six decimals"
                );
                problems.push(Problem::new(place.name("web_search"), message));
            }
            exact.map(|exact| MicroUsd(exact.div_ceil(1000)))
        });
        Some(Self { base: base?, tiers: built.into(), web_search })
    }

    /// Returns whether tokens of this tier have a price. What costs nothing costs nothing at every tier.
    pub fn has(&self, tier: ServiceTier) -> bool {
        self.of(tier).is_some() || self.is_free()
    }

    /// Returns whether the price covers this need of a request for the tier. What costs nothing covers everything.
    pub fn covers(&self, need: Need, tier: Option<ServiceTier>) -> bool {
        // The provider may serve the base tier instead.
        let mut all = std::iter::once(&self.base).chain(tier.and_then(|tier| self.of(tier)));
        self.is_free()
            || match need.capability() {
                Capability::Audio if need == Need::AudioInput => all.all(|rates| rates.audio_input.is_some()),
                Capability::Audio => all.all(|rates| rates.audio_output.is_some()),
                Capability::WebSearch => self.web_search.is_some(),
                _ => true,
            }
    }

    /// Returns whether everything costs nothing.
    pub fn is_free(&self) -> bool {
        let Rates { input, cached_input, cache_write, output, audio_input, audio_output } = self.base;
        let beside = [audio_input.unwrap_or(0), audio_output.unwrap_or(0), self.web_search.map_or(0, |fee| fee.0)];
        self.tiers.is_empty() && [input, cached_input, cache_write, output] == [0; 4] && beside == [0; 3]
    }

    fn of(&self, tier: ServiceTier) -> Option<&Rates> {
        self.tiers.binary_search_by_key(&tier, |(tier, _)| *tier).ok().and_then(|at| self.tiers.get(at)).map(|(_, r)| r)
    }

    /// Returns the most that so many tokens may cost: those of the input may be new, in the provider's prompt cache, or
    /// audio, and those of the output audio.
    pub fn worst(&self, input: u64, output: u64, asked: Asked) -> MicroUsd {
        let usage = Usage { input, output, ..Usage::default() };
        let cached = Usage { cached_input: input, ..usage };
        let written = Usage { cache_write: input, ..usage };
        let heard = asked.needs.may_hear().then_some(Usage { audio_input: input, ..usage });
        let of_input = [usage, cached, written].into_iter().chain(heard);
        let spoken = |usage| asked.needs.may_speak().then_some(Usage { audio_output: output, ..usage });
        let all = of_input.flat_map(|usage| std::iter::once(usage).chain(spoken(usage)));
        all.map(|usage| self.cost(&usage, asked, None).usd).max().unwrap_or_default()
    }

    /// Returns the cost of `usage`. `served`: the tier that the provider says served it. What it does not say is the
    /// one asked for, but never cheaper than the base price.
    pub fn cost(&self, usage: &Usage, asked: Asked, served: Option<ServedTier>) -> Cost {
        let mut cost = self.cost_of_tokens(usage, asked.tier, served);
        if asked.needs.searches() {
            cost.usd.0 = cost.usd.0.saturating_add(self.web_search.unwrap_or_default().0);
            cost.is_guess |= self.web_search.is_none() && !self.is_free();
        }
        cost
    }

    fn cost_of_tokens(&self, usage: &Usage, asked: Option<ServiceTier>, served: Option<ServedTier>) -> Cost {
        let base = self.base.cost(usage);
        let known = |usd, rates: &Rates| Cost { usd, is_guess: !rates.knows(usage) && !self.is_free() };
        let (tier, least) = match (served, asked) {
            (Some(ServedTier::Base), _) | (None, None) => return known(base, &self.base),
            (Some(ServedTier::Other(tier)), _) => (tier, MicroUsd(0)),
            (None, Some(tier)) => (tier, base),
        };
        match self.of(tier) {
            Some(rates) => known(rates.cost(usage).max(least), rates),
            None => {
                let all = self.tiers.iter().map(|(_, rates)| rates.cost(usage));
                Cost { usd: all.fold(base, MicroUsd::max), is_guess: !self.is_free() }
            }
        }
    }
}

impl Rates {
    fn from_config(price: &config::TierPrice, place: &Place, problems: &mut Vec<Problem>) -> Option<Self> {
        let config::TierPrice { input, cached_input, cache_write, output, audio_input, audio_output } = *price;
        let mut field = |name: &str, usd: f64| match picousd_per_token(usd) {
            Some(exact) => Some(exact),
            None => {
                problems.push(Problem::new(
                    place.name(name),
                    format!(
                        "{usd} is not a price in USD per million tokens from 0 to 1000000 with at most six decimals"
                    ),
                ));
                None
            }
        };
        let input_price = field("input", input);
        let cached_price = cached_input.map_or(input_price, |usd| field("cached_input", usd));
        let write_price = cache_write.map_or(input_price, |usd| field("cache_write", usd));
        let output_price = field("output", output);
        Some(Self {
            input: input_price?,
            cached_input: cached_price?,
            cache_write: write_price?,
            output: output_price?,
            audio_input: audio_input.and_then(|usd| field("audio_input", usd)),
            audio_output: audio_output.and_then(|usd| field("audio_output", usd)),
        })
    }

    /// Returns whether all of `usage` has a price of its own.
    fn knows(&self, usage: &Usage) -> bool {
        (usage.audio_input == 0 || self.audio_input.is_some())
            && (usage.audio_output == 0 || self.audio_output.is_some())
    }

    /// Returns the cost of `usage`, rounded up to a whole micro-dollar. Saturates instead of wrapping.
    fn cost(&self, usage: &Usage) -> MicroUsd {
        let Usage { input, output, .. } = *usage;
        // Audio in the provider's prompt cache counts as audio. Without a price of its own, it costs what text does.
        let of_audio = |price: Option<u64>, audio: u64, all: u64| price.map_or((0, 0), |price| (audio.min(all), price));
        let (heard, heard_price) = of_audio(self.audio_input, usage.audio_input, input);
        let (spoken, spoken_price) = of_audio(self.audio_output, usage.audio_output, output);
        let text = Usage { input: input - heard, output: output - spoken, ..*usage }.limit_parts();
        let plain = text.input - text.cached_input - text.cache_write;
        // The common case, in 64 bits: no price has more than 40 bits ([`MAX_USD`]), so no sum has more than 63. Wasm
        // has no 128-bit multiplication.
        let parts = [
            (plain, self.input),
            (text.cached_input, self.cached_input),
            (text.cache_write, self.cache_write),
            (text.output, self.output),
            (heard, heard_price),
            (spoken, spoken_price),
        ];
        if input.max(output) < 1 << 22 {
            let pico: u64 = parts.iter().map(|(tokens, price)| tokens * price).sum();
            return MicroUsd(pico.div_ceil(1_000_000));
        }
        let pico: u128 = parts.iter().map(|(tokens, price)| u128::from(*tokens) * u128::from(*price)).sum();
        MicroUsd(u64::try_from(pico.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}

fn picousd_per_token(usd_per_million: f64) -> Option<u64> {
    if !(0.0..=MAX_USD).contains(&usd_per_million) {
        return None;
    }
    let exact = (usd_per_million * 1e6).round();
    // Six decimals of a number of this size survive the conversion to f64 and back. More decimals leave a difference.
    ((exact / 1e6 - usd_per_million).abs() <= f64::EPSILON * usd_per_million.max(1.0)).then_some(exact as u64)
}

#[cfg(test)]
mod tests;
