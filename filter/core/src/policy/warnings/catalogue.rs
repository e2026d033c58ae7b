//! Prices and context windows that are far from those of well-known models.
//!
//! A price per token or per thousand tokens in place of one per million is off by a factor of a thousand or more. A
//! price that is merely out of date is not reported.

use crate::config::place::Place;
use crate::config::problem::Problem;
use crate::config::{Config, Model};

/// The list: see its first lines.
const LIST: &str = include_str!("catalogue.csv");

/// How far off a price must be.
const FACTOR: f64 = 10.0;

/// A well-known model.
#[derive(Debug, PartialEq)]
struct Known<'a> {
    /// The provider's id for the model.
    id: &'a str,
    /// USD per million tokens.
    input: f64,
    output: f64,
    /// Tokens.
    context: u64,
}

/// Reports models of hosted providers. What runs on one's own machines has no list price.
pub(super) fn check(config: &Config, warnings: &mut Vec<Problem>) {
    for (name, model) in &config.models {
        let is_hosted = config.providers.get(&model.provider).is_some_and(|provider| !provider.local);
        if let Some(known) = find(&model.model).filter(|_| is_hosted) {
            compare(&Place::of(&["models", name]), model, &known, warnings);
        }
    }
}

fn compare(place: &Place, model: &Model, known: &Known, warnings: &mut Vec<Problem>) {
    if model.context > known.context {
        let message = format!("{} is above the context of {}, {} tokens", model.context, known.id, known.context);
        warnings.push(Problem::new(place.name("context"), message));
    }
    let Some(price) = &model.price else { return };
    for (field, usd, list) in [("input", price.input, known.input), ("output", price.output, known.output)] {
        if usd > list * FACTOR || usd < list / FACTOR {
            let message = format!(
                "{usd} is far from the list price of {}, {list}; prices are in USD per million tokens",
                known.id
            );
            warnings.push(Problem::new(place.name("price").name(field), message));
        }
    }
    for (tier, rates) in &price.tiers {
        let place = place.name("price").name("tiers").name(tier);
        for (field, usd, base) in [("input", rates.input, price.input), ("output", rates.output, price.output)] {
            if base > 0.0 && (usd > base * FACTOR || usd < base / FACTOR) {
                let message = format!(
                    "{usd} is far from the price outside `tiers`, {base}; prices are in USD per million tokens"
                );
                warnings.push(Problem::new(place.name(field), message));
            }
        }
    }
}

fn find(id: &str) -> Option<Known<'static>> {
    all().find(|known| known.id == id)
}

fn all() -> impl Iterator<Item = Known<'static>> {
    LIST.lines().filter(|line| !line.starts_with('#')).filter_map(parse)
}

fn parse(line: &str) -> Option<Known<'_>> {
    let mut fields = line.split(',');
    let mut next = || fields.next().map(str::trim);
    Some(Known {
        id: next()?,
        input: next()?.parse().ok()?,
        output: next()?.parse().ok()?,
        context: next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_a_model() {
        let lines = LIST.lines().filter(|line| !line.starts_with('#')).count();
        let mut ids: Vec<_> = all().map(|known| known.id).collect();
        assert_eq!(ids.len(), lines);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), lines, "each model once");
        assert!(all().all(|known| known.input > 0.0 && known.output >= known.input && known.context >= 4096));
        let known = Known { id: "gpt-4.1-mini", input: 0.4, output: 1.6, context: 1_047_576 };
        assert_eq!(find("gpt-4.1-mini"), Some(known));
    }
}
