//! The cost of tokens, in integers.

use crate::config;
use crate::config::place::Place;
use crate::config::problem::Problem;
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

/// A model's price in 10⁻¹² USD per token, so that USD per million tokens with six decimals is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    input: u64,
    cached_input: u64,
    cache_write: u64,
    output: u64,
}

impl Price {
    /// Validates a price and reports its problems.
    pub(crate) fn from_config(price: &config::Price, place: &Place, problems: &mut Vec<Problem>) -> Option<Self> {
        let config::Price { input, cached_input, cache_write, output } = *price;
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
    pub fn cost(&self, usage: &Usage) -> MicroUsd {
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

    fn price(input: f64, cached_input: Option<f64>, output: f64) -> Result<Price, Vec<Problem>> {
        let mut problems = Vec::new();
        Price::from_config(
            &config::Price { input, cached_input, cache_write: None, output },
            &Place::of(&["models", "m", "price"]),
            &mut problems,
        )
        .ok_or(problems)
    }

    #[test]
    fn cached_tokens_are_part_of_the_input_and_priced_apart() {
        let usage = Usage { input: 1000, cached_input: 400, output: 100, ..Usage::default() };
        // 600 × 2.00 + 400 × 0.50 + 100 × 8.00 micro-dollars
        assert_eq!(price(2.0, Some(0.5), 8.0).unwrap().cost(&usage), MicroUsd(2200));
        assert_eq!(price(2.0, None, 8.0).unwrap().cost(&usage), MicroUsd(2800));
    }

    #[test]
    fn what_the_provider_writes_into_its_prompt_cache_has_a_price_of_its_own() {
        let config = config::Price { input: 2.0, cached_input: Some(0.5), cache_write: Some(2.5), output: 8.0 };
        let price = Price::from_config(&config, &Place::default(), &mut Vec::new()).unwrap();
        let usage = Usage { input: 1000, cached_input: 400, cache_write: 200, output: 100 };
        // 400 x 2.00 + 400 x 0.50 + 200 x 2.50 + 100 x 8.00 micro-dollars
        assert_eq!(price.cost(&usage), MicroUsd(2300));
        assert_eq!(price.cost(&Usage { cache_write: u64::MAX, ..usage }), MicroUsd(400 / 2 + 600 * 25 / 10 + 800));
    }

    #[test]
    fn a_fraction_of_a_microdollar_is_rounded_up_and_nothing_wraps() {
        let one = Usage { input: 1, ..Usage::default() };
        assert_eq!(price(0.075, None, 0.0).unwrap().cost(&one), MicroUsd(1));
        assert_eq!(price(0.0, None, 0.0).unwrap().cost(&one), MicroUsd(0));
        let absurd = Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() };
        assert_eq!(price(1e6, None, 1e6).unwrap().cost(&absurd), MicroUsd(u64::MAX));
        let more_cached_than_input = Usage { input: 1, cached_input: 100, ..Usage::default() };
        assert_eq!(price(5.0, Some(1.0), 0.0).unwrap().cost(&more_cached_than_input), MicroUsd(1));
    }

    #[test]
    fn many_tokens_at_the_highest_price_cost_what_each_of_them_does() {
        let dearest = price(1e6, Some(1e6), 1e6).unwrap();
        for tokens in [1, (1 << 22) - 1, 1 << 22, (1 << 22) + 1] {
            for cached_input in [0, 1, tokens] {
                let usage = Usage { input: tokens, cached_input, output: tokens, ..Usage::default() };
                assert_eq!(dearest.cost(&usage), MicroUsd(2 * tokens * 1_000_000));
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

    #[test]
    fn decimal_form() {
        assert_eq!(MicroUsd(0).to_decimal(), "0.000000");
        assert_eq!(MicroUsd(1).to_decimal(), "0.000001");
        assert_eq!(MicroUsd(2200).to_decimal(), "0.002200");
        assert_eq!(MicroUsd(12_000_001).to_decimal(), "12.000001");
    }
}
