//! The cost of tokens, in integers.

use crate::config;
use crate::config::place::Place;
use crate::config::problem::{Problem, quoted};
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
}

/// The price of a service tier in 10⁻¹² USD per token, so that USD per million tokens with six decimals is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rates {
    input: u64,
    cached_input: u64,
    cache_write: u64,
    output: u64,
}

/// What some tokens cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// The amount.
    pub usd: MicroUsd,
    /// Whether it is the highest that it may be, because the price of the service tier is not known.
    pub is_highest: bool,
}

impl Price {
    /// Validates a price and reports its problems.
    pub(crate) fn from_config(price: &config::Price, place: &Place, problems: &mut Vec<Problem>) -> Option<Self> {
        let config::Price { input, cached_input, cache_write, output, ref tiers } = *price;
        let base = config::TierPrice { input, cached_input, cache_write, output };
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
        Some(Self { base: base?, tiers: built.into() })
    }

    /// Returns whether tokens of this tier have a price. What costs nothing costs nothing at every tier.
    pub fn has(&self, tier: ServiceTier) -> bool {
        self.of(tier).is_some() || self.is_free()
    }

    fn is_free(&self) -> bool {
        let Rates { input, cached_input, cache_write, output } = self.base;
        self.tiers.is_empty() && [input, cached_input, cache_write, output] == [0; 4]
    }

    fn of(&self, tier: ServiceTier) -> Option<&Rates> {
        self.tiers.binary_search_by_key(&tier, |(tier, _)| *tier).ok().and_then(|at| self.tiers.get(at)).map(|(_, r)| r)
    }

    /// Returns what `usage` may cost at most where `asked` is the tier that the request asks for.
    pub fn worst(&self, usage: &Usage, asked: Option<ServiceTier>) -> MicroUsd {
        self.cost(usage, asked, None).usd
    }

    /// Returns the cost of `usage`. `asked`: the tier that the request asked for; `served`: the one that the provider
    /// says served it. What it does not say is the one asked for, but never cheaper than the base price.
    pub fn cost(&self, usage: &Usage, asked: Option<ServiceTier>, served: Option<ServedTier>) -> Cost {
        let base = self.base.cost(usage);
        let known = |usd| Cost { usd, is_highest: false };
        let (tier, least) = match (served, asked) {
            (Some(ServedTier::Base), _) | (None, None) => return known(base),
            (Some(ServedTier::Other(tier)), _) => (tier, MicroUsd(0)),
            (None, Some(tier)) => (tier, base),
        };
        match self.of(tier) {
            Some(rates) => known(rates.cost(usage).max(least)),
            None => {
                let all = self.tiers.iter().map(|(_, rates)| rates.cost(usage));
                Cost { usd: all.fold(base, MicroUsd::max), is_highest: !self.is_free() }
            }
        }
    }
}

impl Rates {
    fn from_config(price: &config::TierPrice, place: &Place, problems: &mut Vec<Problem>) -> Option<Self> {
        let config::TierPrice { input, cached_input, cache_write, output } = *price;
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
        })
    }

    /// Returns the cost of `usage`, rounded up to a whole micro-dollar. Saturates instead of wrapping.
    fn cost(&self, usage: &Usage) -> MicroUsd {
        let Usage { input, cached_input, cache_write, output } = usage.limit_cached();
        let plain = input - cached_input - cache_write;
        // The common case, in 64 bits: no price has more than 40 bits ([`MAX_USD`]), so no sum has more than 63. Wasm
        // has no 128-bit multiplication.
        if input.max(output) < 1 << 22 {
            let pico = plain * self.input
                + cached_input * self.cached_input
                + cache_write * self.cache_write
                + output * self.output;
            return MicroUsd(pico.div_ceil(1_000_000));
        }
        let product = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let pico = product(plain, self.input)
            + product(cached_input, self.cached_input)
            + product(cache_write, self.cache_write)
            + product(output, self.output);
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
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl Price {
        /// The cost at the base price.
        fn usd(&self, usage: &Usage) -> MicroUsd {
            let cost = self.cost(usage, None, None);
            assert!(!cost.is_highest && self.worst(usage, None) == cost.usd);
            cost.usd
        }
    }

    fn price(input: f64, cached_input: Option<f64>, output: f64) -> Result<Price, Vec<Problem>> {
        let mut problems = Vec::new();
        Price::from_config(
            &config::Price { input, cached_input, cache_write: None, output, tiers: BTreeMap::new() },
            &Place::of(&["models", "m", "price"]),
            &mut problems,
        )
        .ok_or(problems)
    }

    #[test]
    fn cached_tokens_are_part_of_the_input_and_priced_apart() {
        let usage = Usage { input: 1000, cached_input: 400, output: 100, ..Usage::default() };
        // 600 × 2.00 + 400 × 0.50 + 100 × 8.00 micro-dollars
        assert_eq!(price(2.0, Some(0.5), 8.0).unwrap().usd(&usage), MicroUsd(2200));
        assert_eq!(price(2.0, None, 8.0).unwrap().usd(&usage), MicroUsd(2800));
    }

    #[test]
    fn what_the_provider_writes_into_its_prompt_cache_has_a_price_of_its_own() {
        let tiers = BTreeMap::new();
        let config = config::Price { input: 2.0, cached_input: Some(0.5), cache_write: Some(2.5), output: 8.0, tiers };
        let price = Price::from_config(&config, &Place::default(), &mut Vec::new()).unwrap();
        let usage = Usage { input: 1000, cached_input: 400, cache_write: 200, output: 100 };
        // 400 x 2.00 + 400 x 0.50 + 200 x 2.50 + 100 x 8.00 micro-dollars
        assert_eq!(price.usd(&usage), MicroUsd(2300));
        assert_eq!(price.usd(&Usage { cache_write: u64::MAX, ..usage }), MicroUsd(400 / 2 + 600 * 25 / 10 + 800));
    }

    #[test]
    fn a_fraction_of_a_microdollar_is_rounded_up_and_nothing_wraps() {
        let one = Usage { input: 1, ..Usage::default() };
        assert_eq!(price(0.075, None, 0.0).unwrap().usd(&one), MicroUsd(1));
        assert_eq!(price(0.0, None, 0.0).unwrap().usd(&one), MicroUsd(0));
        let absurd = Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() };
        assert_eq!(price(1e6, None, 1e6).unwrap().usd(&absurd), MicroUsd(u64::MAX));
        let more_cached_than_input = Usage { input: 1, cached_input: 100, ..Usage::default() };
        assert_eq!(price(5.0, Some(1.0), 0.0).unwrap().usd(&more_cached_than_input), MicroUsd(1));
    }

    #[test]
    fn many_tokens_at_the_highest_price_cost_what_each_of_them_does() {
        let dearest = price(1e6, Some(1e6), 1e6).unwrap();
        for tokens in [1, (1 << 22) - 1, 1 << 22, (1 << 22) + 1] {
            for cached_input in [0, 1, tokens] {
                let usage = Usage { input: tokens, cached_input, output: tokens, ..Usage::default() };
                assert_eq!(dearest.usd(&usage), MicroUsd(2 * tokens * 1_000_000));
            }
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        assert!(price(0.000001, None, 0.123456).is_ok());
        for wrong in [-1.0, 1e7, f64::NAN, f64::INFINITY, 0.0000001] {
            assert!(price(wrong, None, 0.0).is_err(), "{wrong}");
        }
    }

    /// A price whose tiers are these, each with the same price for input and output.
    fn tiered(tiers: &[(&str, f64)]) -> Result<Price, Vec<Problem>> {
        let of = |usd| config::TierPrice { input: usd, cached_input: None, cache_write: None, output: usd };
        let tiers = tiers.iter().map(|(name, usd)| ((*name).to_owned(), of(*usd))).collect();
        let config = config::Price { input: 4.0, cached_input: Some(1.0), cache_write: None, output: 4.0, tiers };
        let mut problems = Vec::new();
        Price::from_config(&config, &"models.m.price".into(), &mut problems)
            .filter(|_| problems.is_empty())
            .ok_or(problems)
    }

    #[test]
    fn the_tier_that_served_counts_else_the_one_asked_for_but_never_below_the_base_price() {
        let price = tiered(&[("priority", 7.0), ("flex", 2.0), ("slow", 1.0)]).unwrap();
        let usage = Usage { input: 600, output: 400, ..Usage::default() };
        let cost = |asked: &str, served: &str| {
            let cost = price.cost(&usage, ServiceTier::requested(asked), ServedTier::named(served));
            (cost.usd.0, cost.is_highest)
        };
        for (asked, served, usd, is_highest) in [
            // The provider says nothing, or only repeats the caller's wish.
            ("auto", "", 4000, false),
            ("auto", "auto", 4000, false),
            ("default", "", 4000, false),
            ("priority", "", 7000, false),
            ("priority", "auto", 7000, false),
            ("flex", "", 4000, false),
            ("scale", "", 7000, true),
            // It says what served.
            ("auto", "default", 4000, false),
            ("auto", "priority", 7000, false),
            ("auto", "scale", 7000, true),
            ("auto", "a tier", 7000, true),
            ("priority", "priority", 7000, false),
            ("priority", "PRIORITY", 7000, false),
            ("priority", "default", 4000, false),
            ("priority", "flex", 2000, false),
            ("flex", "flex", 2000, false),
            ("flex", "default", 4000, false),
            ("flex", "priority", 7000, false),
            ("scale", "default", 4000, false),
        ] {
            assert_eq!(cost(asked, served), (usd, is_highest), "{asked} {served}");
        }
        // What is reserved is the larger of the base price and the one asked for.
        let worst = |asked: &str| price.worst(&usage, ServiceTier::requested(asked)).0;
        assert_eq!([worst("auto"), worst("flex"), worst("priority")], [4000, 4000, 7000]);
        // A tier may be cheaper than the base price for some tokens only: the sum counts.
        let cached = Usage { input: 1000, cached_input: 1000, ..Usage::default() };
        assert_eq!(price.worst(&cached, ServiceTier::requested("flex")), MicroUsd(2000));
        // Without prices of tiers all have the base price, and any other is a guess.
        let plain = tiered(&[]).unwrap();
        let scale = plain.cost(&usage, None, ServedTier::named("scale"));
        assert_eq!(scale, Cost { usd: MicroUsd(4000), is_highest: true });
        // A model of our own is free at every tier.
        let free =
            config::Price { input: 0.0, cached_input: None, cache_write: None, output: 0.0, tiers: BTreeMap::new() };
        let free = Price::from_config(&free, &"models.m.price".into(), &mut Vec::new()).unwrap();
        assert!(free.has(ServiceTier::named("flex")) && !plain.has(ServiceTier::named("flex")));
        assert_eq!(free.cost(&usage, ServiceTier::requested("flex"), None), Cost::default());
    }

    #[test]
    fn a_tier_has_a_name_as_requests_write_it() {
        for base in service_tier::BASE {
            assert!(tiered(&[(base, 1.0)]).is_err(), "{base}");
        }
        for wrong in ["", "Priority", "a b", "unrecognized", "a-name-of-twenty-4-bytes"] {
            assert!(tiered(&[(wrong, 1.0)]).is_err(), "{wrong}");
        }
        let problems = tiered(&[("flex", -1.0), ("Default", 1.0)]).unwrap_err();
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("Default") && problems[1].contains("models.m.price.tiers.flex.input"));
    }

    #[test]
    fn decimal_form() {
        assert_eq!(MicroUsd(0).to_decimal(), "0.000000");
        assert_eq!(MicroUsd(1).to_decimal(), "0.000001");
        assert_eq!(MicroUsd(2200).to_decimal(), "0.002200");
        assert_eq!(MicroUsd(12_000_001).to_decimal(), "12.000001");
    }
}
