//! Attempts that are abandoned before anything of their answer is seen: each is charged once, to its own model.

use crate::envoy::Envoy;
use crate::policy;
use crate::request::{Event, Request};
use serde_json::{Value, json};

/// How abandoned attempts are charged.
const SETTINGS: [&str; 3] = ["worst_case", "elapsed", "prompt"];

fn envoy(setting: &str, task: &Value) -> Envoy {
    let mut document = policy::document();
    document["quota"] = json!({"abandoned": setting});
    document["tasks"]["chat"]["resilience"] = task.clone();
    document["tasks"]["alone"]["resilience"] = task.clone();
    for model in ["small", "big"] {
        document["models"][model]["max_output_tokens"] = json!(4000);
    }
    document["tiers"]["metered"]["limits"] = json!({"tokens_per_day": 1_000_000_000, "budget_usd_per_day": 1000});
    Envoy::new(&document)
}

fn question(model: &str, more: &Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4000});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn completion() -> Value {
    json!({"choices": [{"message": {"content": "Hi"}}],
           "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}})
}

/// What the audit record says was charged: the tokens of all attempts, the output tokens of the last one, and the cost
/// of all attempts in millionths of a dollar.
fn charged(audit: &Value) -> (u64, u64, u64) {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let tokens = |of: &Value| number(&of["input_tokens"]) + number(&of["output_tokens"]);
    let others = audit["abandoned_attempts"].as_array().cloned().unwrap_or_default();
    let cost = |name: &str| (audit[name].as_f64().unwrap_or(0.0) * 1e6).round() as u64;
    let sum = others.iter().map(|one| (one["cost_usd"].as_f64().unwrap() * 1e6).round() as u64).sum::<u64>();
    assert_eq!(cost("abandoned_cost_usd"), sum, "{audit}");
    let all = tokens(audit) + others.iter().map(tokens).sum::<u64>();
    (all, number(&audit["output_tokens"]), cost("estimated_cost_usd") + sum)
}

/// Ends a request, and checks that the counters, the metrics and the audit record agree.
#[track_caller]
fn end(envoy: &mut Envoy, request: Request) -> (Value, u64, u64) {
    let audit = request.end();
    let (tokens, output, cost) = charged(&audit);
    assert_eq!(envoy.tokens_today("sk-acme"), tokens, "{audit}");
    assert_eq!(envoy.metric("llm_estimated_cost_microusd_total|"), cost, "{audit}");
    let all = ["llm_input_tokens_total|", "llm_output_tokens_total|"].map(|name| envoy.metric(name));
    assert_eq!(all.iter().sum::<u64>(), tokens, "{audit}");
    (audit, output, tokens)
}

#[test]
fn a_caller_that_leaves_is_charged_for_the_time_that_passed() {
    for (setting, n, expected) in [
        ("elapsed", 1, 190),
        ("elapsed", 100, 19_000),
        ("worst_case", 1, 4000),
        ("worst_case", 100, 400_000),
        ("prompt", 1, 0),
        ("prompt", 100, 0),
    ] {
        // With one model there is no model stage, with two there is.
        for model in ["alone", "chat"] {
            let mut envoy = envoy(setting, &json!({}));
            let mut request = envoy.chat("sk-acme", &question(model, &json!({"n": n})));
            let attempt = (model == "chat").then(|| request.attempt(&mut envoy, "vllm"));
            request.has_connection(true);
            envoy.pass(1900);
            request.cut("downstream_remote_disconnect", 0);
            let (audit, output, tokens) = end(&mut envoy, request);
            attempt.into_iter().for_each(|attempt| attempt.end());
            assert_eq!(output, expected, "{setting}, {model}, n: {n}: {audit}");
            assert!(tokens > output, "the prompt, too: {audit}");
            assert_eq!((&audit["usage_estimated"], &audit["status"]), (&json!(true), &json!(499)), "{audit}");
        }
    }
}

#[test]
fn no_more_is_charged_than_was_reserved() {
    let mut envoy = envoy("elapsed", &json!({}));
    let mut request = envoy.chat("sk-acme", &question("alone", &json!({"n": 2})));
    request.has_connection(true);
    envoy.pass(100_000);
    request.cut("downstream_remote_disconnect", 0);
    let (_, output, _) = end(&mut envoy, request);
    assert_eq!(output, 8000);
}

#[test]
fn a_request_that_never_reached_a_provider_costs_nothing() {
    for setting in SETTINGS {
        let mut envoy = envoy(setting, &json!({}));
        let mut request = envoy.chat("sk-acme", &question("alone", &json!({})));
        envoy.pass(1900);
        request.cut("downstream_remote_disconnect", 0);
        let (audit, ..) = end(&mut envoy, request);
        assert!(audit["estimated_cost_usd"].is_null(), "{audit}");
    }
}

#[test]
fn a_timer_that_passes_is_no_reason_to_charge_nothing() {
    for (setting, expected) in [("elapsed", 150), ("worst_case", 4000), ("prompt", 0)] {
        let mut envoy = envoy(setting, &json!({"attempt_timeout": "1500ms", "request_timeout": "10s"}));
        let mut request = envoy.chat("sk-acme", &question("alone", &json!({})));
        request.has_connection(true);
        envoy.pass(1500);
        request.cut("response_timeout", 504);
        request.respond(Event::answer(504, &json!("upstream request timeout")));
        assert_eq!(request.client.status(), 504);
        let told = request.client.header("x-pointsman-cost-usd").map(str::to_owned);
        let (audit, output, tokens) = end(&mut envoy, request);
        assert_eq!((&audit["error_code"], output), (&json!("attempt_timeout"), expected), "{audit}");
        assert_eq!(tokens == 0, setting == "prompt", "a timeout of the policy: {audit}");
        assert_eq!(told.map(|told| told.parse::<f64>().unwrap()), audit["estimated_cost_usd"].as_f64(), "{audit}");
    }
}

#[test]
fn a_timed_out_attempt_is_charged_to_its_model_beside_the_answer_of_the_next() {
    for (setting, expected) in [("elapsed", Some(150)), ("worst_case", Some(4000)), ("prompt", None)] {
        for stream in [false, true] {
            let timers = json!({"attempt_timeout": "1500ms", "first_token_timeout": "1500ms"});
            let mut envoy = envoy(setting, &timers);
            let mut request = envoy.chat("sk-acme", &question("chat", &json!({"stream": stream})));
            let first = request.attempt(&mut envoy, "vllm");
            envoy.pass(1500);
            first.end();
            envoy.pass(25);
            let mut second = request.attempt(&mut envoy, "openai");
            envoy.pass(500);
            second.respond(answer(stream));
            request.relay(&mut second);
            second.end();
            assert_eq!(request.client.status(), 200);
            let (audit, output, _) = end(&mut envoy, request);
            assert_eq!((&audit["model"], output), (&json!("big"), 3), "{audit}");
            assert_eq!(audit["usage_estimated"], false, "of the answer: {audit}");
            let first = &audit["abandoned_attempts"][0];
            assert_eq!(first["output_tokens"].as_u64(), expected, "{setting}: {audit}");
            assert!(expected.is_none() || first["model"] == "small", "{audit}");
            let of_first = envoy.metric("llm_output_tokens_total|tenant_id=acme|task=chat|model=small");
            assert_eq!(of_first, expected.unwrap_or(0));
        }
    }
}

fn answer(stream: bool) -> Vec<Event> {
    let chunk = "data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"Hi\"}}]}\n\n";
    let usage = "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 9, \"completion_tokens\": 3}}\n\n";
    match stream {
        false => Event::answer(200, &completion()),
        true => vec![
            Event::head(200, "text/event-stream"),
            Event::Body([chunk, usage, "data: [DONE]\n\n"].concat().into(), false),
            Event::Body(Vec::new(), true),
        ],
    }
}

#[test]
fn an_attempt_that_the_provider_refused_or_broke_off_costs_nothing() {
    for setting in SETTINGS {
        for how in ["refused", "reset", "status"] {
            let mut envoy = envoy(setting, &json!({"attempt_timeout": "1500ms"}));
            let mut request = envoy.chat("sk-acme", &question("chat", &json!({})));
            let mut first = request.attempt(&mut envoy, "vllm");
            envoy.pass(700);
            match how {
                // Envoy gives up connecting, even if that takes longer than an attempt may.
                "refused" => {
                    envoy.pass(4300);
                    first.end_unconnected();
                }
                "reset" => first.end(),
                _ => {
                    first.respond(Event::answer(503, &json!({"error": {"message": "busy"}})));
                    first.end();
                }
            }
            envoy.pass(25);
            let mut second = request.attempt(&mut envoy, "openai");
            second.respond(answer(false));
            request.relay(&mut second);
            second.end();
            let (audit, _, tokens) = end(&mut envoy, request);
            assert_eq!(tokens, 12, "{setting}, {how}: {audit}");
        }
    }
}

#[test]
fn of_hedged_attempts_the_one_that_loses_is_charged_too() {
    for (setting, of_first, of_second) in
        [("elapsed", Some(170), Some(20)), ("worst_case", Some(4000), Some(4000)), ("prompt", None, None)]
    {
        for first_wins in [false, true] {
            let mut envoy = envoy(setting, &json!({"attempt_timeout": "1500ms", "hedge": true}));
            let mut request = envoy.chat("sk-acme", &question("chat", &json!({})));
            let mut first = request.attempt(&mut envoy, "vllm");
            envoy.pass(1500);
            let mut second = request.attempt(&mut envoy, "openai");
            envoy.pass(200);
            let (mut winner, loser) = match first_wins {
                true => (first, second),
                false => {
                    std::mem::swap(&mut first, &mut second);
                    (first, second)
                }
            };
            winner.respond(answer(false));
            // Envoy resets the others before it passes the answer on.
            loser.end();
            request.relay(&mut winner);
            winner.end();
            let (audit, output, _) = end(&mut envoy, request);
            assert_eq!(output, 3, "{audit}");
            let expected = if first_wins { of_second } else { of_first };
            assert_eq!(audit["abandoned_attempts"][0]["output_tokens"].as_u64(), expected, "{setting}: {audit}");
        }
    }
}

#[test]
fn both_attempts_are_charged_if_the_caller_leaves_during_the_second() {
    for (setting, first, second) in [("elapsed", Some(150), 30), ("worst_case", Some(4000), 4000), ("prompt", None, 0)]
    {
        let mut envoy = envoy(setting, &json!({"attempt_timeout": "1500ms"}));
        let mut request = envoy.chat("sk-acme", &question("chat", &json!({})));
        let one = request.attempt(&mut envoy, "vllm");
        envoy.pass(1500);
        one.end();
        let two = request.attempt(&mut envoy, "openai");
        envoy.pass(300);
        request.cut("downstream_remote_disconnect", 0);
        let (audit, output, _) = end(&mut envoy, request);
        two.end();
        assert_eq!((&audit["model"], output), (&json!("big"), second), "{audit}");
        assert_eq!(audit["abandoned_attempts"][0]["output_tokens"].as_u64(), first, "{setting}: {audit}");
    }
}

#[test]
fn a_stream_of_comments_is_charged_for_its_time_and_one_that_began_for_what_was_seen() {
    for (setting, expected) in [("elapsed", Some(300)), ("worst_case", Some(4000)), ("prompt", None)] {
        let mut envoy = envoy(setting, &json!({"early_headers": true, "request_timeout": "3s"}));
        let mut request = envoy.chat("sk-acme", &question("chat", &json!({"stream": true})));
        let mut attempt = request.attempt(&mut envoy, "vllm");
        attempt.respond([Event::head(200, "text/event-stream"), Event::Body(b": wait\n\n".to_vec(), false)]);
        request.relay(&mut attempt);
        envoy.pass(3000);
        request.cut("response_timeout", 200);
        attempt.end();
        let (audit, ..) = end(&mut envoy, request);
        assert_eq!(audit["output_tokens"].as_u64(), expected, "{setting}: {audit}");

        let mut envoy = self::envoy(setting, &json!({}));
        let mut request = envoy.chat("sk-acme", &question("chat", &json!({"stream": true})));
        let mut attempt = request.attempt(&mut envoy, "vllm");
        attempt.respond(answer(true).into_iter().take(1));
        let chunk = b"data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"one two\"}}]}\n\n";
        attempt.respond([Event::Body(chunk.to_vec(), false)]);
        request.relay(&mut attempt);
        envoy.pass(3000);
        request.cut("downstream_remote_disconnect", 0);
        attempt.end();
        let (audit, output, _) = end(&mut envoy, request);
        assert!((1..10).contains(&output), "{setting}: {audit}");
    }
}

#[test]
fn a_models_rate_is_learned_from_its_answers() {
    let mut envoy = envoy("elapsed", &json!({}));
    // 1,000 tokens in a second.
    let fast = json!({"choices": [{"message": {"content": "Hi"}}],
                      "usage": {"prompt_tokens": 9, "completion_tokens": 2000, "total_tokens": 2009}});
    for _ in 0..60 {
        let mut request = envoy.chat("sk-other", &question("alone", &json!({})));
        envoy.pass(2000);
        request.respond(Event::answer(200, &fast));
        request.end();
    }
    let abandon = |envoy: &mut Envoy| {
        let mut request = envoy.chat("sk-acme", &question("alone", &json!({})));
        request.has_connection(true);
        envoy.pass(1000);
        request.cut("downstream_remote_disconnect", 0);
        request.end()["output_tokens"].as_u64().unwrap()
    };
    assert_eq!(abandon(&mut envoy), 100, "a tenant without limits teaches nothing");
    for _ in 0..60 {
        let mut request = envoy.chat("sk-acme", &question("alone", &json!({})));
        envoy.pass(2000);
        request.respond(Event::answer(200, &fast));
        request.end();
    }
    let learned = abandon(&mut envoy);
    assert!((930..=1010).contains(&learned), "{learned}");
}
