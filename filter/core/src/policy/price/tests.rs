//! Tests of prices.

use super::*;

impl Price {
    /// The cost at the base price.
    fn usd(&self, usage: &Usage) -> MicroUsd {
        let cost = self.cost(usage, Asked::default(), None);
        assert!(!cost.is_guess);
        cost.usd
    }
}

fn price(input: f64, cached_input: Option<f64>, output: f64) -> Result<Price, Vec<Problem>> {
    let mut problems = Vec::new();
    Price::from_config(
        &config::Price { input, cached_input, output, ..Default::default() },
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
    let (cached_input, cache_write) = (Some(0.5), Some(2.5));
    let config = config::Price { input: 2.0, cached_input, cache_write, output: 8.0, ..Default::default() };
    let price = Price::from_config(&config, &Place::default(), &mut Vec::new()).unwrap();
    let usage = Usage { input: 1000, cached_input: 400, cache_write: 200, output: 100, ..Usage::default() };
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

fn of_tier(asked: &str) -> Asked {
    Asked { tier: ServiceTier::requested(asked), ..Asked::default() }
}

/// A price whose tiers are these, each with the same price for input and output.
fn tiered(tiers: &[(&str, f64)]) -> Result<Price, Vec<Problem>> {
    let of = |usd| config::TierPrice { input: usd, output: usd, ..Default::default() };
    let tiers = tiers.iter().map(|(name, usd)| ((*name).to_owned(), of(*usd))).collect();
    let config = config::Price { input: 4.0, cached_input: Some(1.0), output: 4.0, tiers, ..Default::default() };
    let mut problems = Vec::new();
    Price::from_config(&config, &"models.m.price".into(), &mut problems).filter(|_| problems.is_empty()).ok_or(problems)
}

#[test]
fn the_tier_that_served_counts_else_the_one_asked_for_but_never_below_the_base_price() {
    let price = tiered(&[("priority", 7.0), ("flex", 2.0), ("slow", 1.0)]).unwrap();
    let usage = Usage { input: 600, output: 400, ..Usage::default() };
    let cost = |asked: &str, served: &str| {
        let cost = price.cost(&usage, of_tier(asked), ServedTier::named(served));
        (cost.usd.0, cost.is_guess)
    };
    for (asked, served, usd, is_guess) in [
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
        assert_eq!(cost(asked, served), (usd, is_guess), "{asked} {served}");
    }
    // What is reserved is the larger of the base price and the one asked for.
    let worst = |asked: &str| price.worst(600, 400, of_tier(asked)).0;
    assert_eq!([worst("auto"), worst("flex"), worst("priority")], [4000, 4000, 7000]);
    // A tier may be cheaper than the base price for some tokens only: the sum counts.
    let cached = Usage { input: 1000, cached_input: 1000, ..Usage::default() };
    assert_eq!(price.cost(&cached, of_tier("flex"), None).usd, MicroUsd(2000));
    // Without prices of tiers all have the base price, and any other is a guess.
    let plain = tiered(&[]).unwrap();
    let scale = plain.cost(&usage, Asked::default(), ServedTier::named("scale"));
    assert_eq!(scale, Cost { usd: MicroUsd(4000), is_guess: true });
    // A model of our own is free at every tier.
    let free = Price::from_config(&config::Price::default(), &"models.m.price".into(), &mut Vec::new()).unwrap();
    assert!(free.has(ServiceTier::named("flex")) && !plain.has(ServiceTier::named("flex")));
    assert_eq!(free.cost(&usage, of_tier("flex"), None), Cost::default());
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

fn asked(needs: &[Need]) -> Asked {
    let mut all = Needs::default();
    needs.iter().for_each(|need| all.add(*need));
    Asked { needs: all, ..Asked::default() }
}

/// Audio at ten times the price of text, and 10 USD per thousand searches.
fn media() -> config::Price {
    let [audio_input, audio_output, web_search] = [20.0, 80.0, 10.0].map(Some);
    config::Price {
        input: 2.0,
        cached_input: Some(1.0),
        output: 8.0,
        audio_input,
        audio_output,
        web_search,
        ..Default::default()
    }
}

fn built(config: &config::Price) -> Price {
    Price::from_config(config, &Place::default(), &mut Vec::new()).unwrap()
}

#[test]
fn audio_is_part_of_the_tokens_and_priced_apart() {
    let price = built(&media());
    let usage = Usage { input: 1000, audio_input: 400, output: 100, audio_output: 50, ..Usage::default() };
    // 600 x 2 + 400 x 20 + 50 x 8 + 50 x 80 micro-dollars
    assert_eq!(price.usd(&usage), MicroUsd(1200 + 8000 + 400 + 4000));
    // What the prompt cache served may be the audio.
    let cached = Usage { cached_input: 700, ..usage };
    assert_eq!(price.usd(&cached), MicroUsd(600 + 8000 + 400 + 4000));
    // No report charges more than the tokens there are.
    let absurd = Usage { audio_input: u64::MAX, audio_output: u64::MAX, ..usage };
    assert_eq!(price.usd(&absurd), MicroUsd(20_000 + 8000));
    let many = Usage { input: 1 << 23, audio_input: 1 << 23, ..Usage::default() };
    assert_eq!(price.usd(&many), MicroUsd(20 << 23));
    // Without a price it costs what text does, and that is a guess, unless nothing costs anything.
    let plain = self::price(2.0, None, 8.0).unwrap();
    assert_eq!(plain.cost(&usage, Asked::default(), None), Cost { usd: MicroUsd(2800), is_guess: true });
    assert_eq!(self::price(0.0, None, 0.0).unwrap().cost(&usage, Asked::default(), None), Cost::default());
}

#[test]
fn a_search_costs_its_price_once() {
    let usage = Usage { input: 1000, output: 100, ..Usage::default() };
    let both = asked(&[Need::WebSearchOptions, Need::SearchTool]);
    assert_eq!(built(&media()).cost(&usage, both, None), Cost { usd: MicroUsd(2800 + 10_000), is_guess: false });
    let plain = price(2.0, None, 8.0).unwrap();
    assert_eq!(plain.cost(&usage, both, None), Cost { usd: MicroUsd(2800), is_guess: true });
    let cheap = built(&config::Price { web_search: Some(0.000001), ..media() });
    assert_eq!(cheap.cost(&Usage::default(), both, None).usd, MicroUsd(1));
}

#[test]
fn the_worst_case_is_the_dearest_that_the_request_asks_for() {
    let price = built(&media());
    let worst = |needs: &[Need]| price.worst(1000, 100, asked(needs)).0;
    assert_eq!(worst(&[]), 2800);
    assert_eq!(worst(&[Need::Image, Need::Tools]), 2800);
    for heard in [Need::AudioInput, Need::Video, Need::File, Need::OtherContent] {
        assert_eq!(worst(&[heard]), 20_800);
    }
    for spoken in [Need::AudioModality, Need::AudioVoice, Need::OtherModality] {
        assert_eq!(worst(&[spoken]), 10_000);
    }
    assert_eq!(worst(&[Need::AudioInput, Need::AudioVoice, Need::WebSearchOptions]), 38_000);
    // Audio may be cheaper than text.
    let cheap = built(&config::Price { audio_input: Some(0.5), audio_output: Some(0.0), ..media() });
    assert_eq!(cheap.worst(1000, 100, asked(&[Need::AudioInput, Need::AudioVoice])), MicroUsd(2800));
    let written = built(&config::Price { cache_write: Some(30.0), ..media() });
    assert_eq!(written.worst(1000, 100, asked(&[Need::AudioInput])), MicroUsd(30_800));
}

#[test]
fn a_price_covers_what_it_names_at_every_tier_that_may_serve() {
    let flex = ServiceTier::requested("flex");
    let tier = config::TierPrice { input: 1.0, output: 4.0, audio_output: Some(8.0), ..Default::default() };
    let price = built(&config::Price { tiers: [("flex".to_owned(), tier)].into(), ..media() });
    assert!(price.covers(Need::AudioInput, None) && !price.covers(Need::AudioInput, flex));
    assert!(price.covers(Need::AudioVoice, flex) && price.covers(Need::EnableSearch, flex));
    let plain = self::price(2.0, None, 8.0).unwrap();
    for need in [Need::AudioInput, Need::AudioModality, Need::WebSearchOptions, Need::SearchTool, Need::Plugins] {
        assert!(!plain.covers(need, None) && self::price(0.0, None, 0.0).unwrap().covers(need, None), "{need:?}");
    }
    for need in [Need::Image, Need::Video, Need::File, Need::Tools, Need::MediaOptions] {
        assert!(plain.covers(need, None), "{need:?}");
    }
    let mut problems = Vec::new();
    for wrong in [-1.0, 1e7, f64::NAN] {
        let config =
            config::Price { audio_input: Some(wrong), audio_output: Some(wrong), web_search: Some(wrong), ..media() };
        Price::from_config(&config, &"models.m.price".into(), &mut problems);
    }
    assert_eq!(problems.len(), 9, "{problems:?}");
}
