//! The request as it goes upstream: the caller's bytes behind a short head, the only part that differs between
//! attempts.
//!
//! The head is `{"model":"ID",…`, with every member that the gateway changes or that some model of the plan does not
//! accept. The rest is what the caller sent, byte for byte. The model stage turns one attempt's request into another's
//! by replacing the head, so its cost does not grow with the prompt.

use crate::config::OutputParam;
use crate::dialect::openai::request::ChatRequest;
use crate::ids::{ModelId, TaskId};
use crate::policy::limits::Limits;
use crate::policy::output_limit::OutputLimit;
use crate::policy::{Model, Policy};
use crate::request::facts::{Facts, Member};
use crate::request::integer::{self, Rewritten};
use crate::request::splice::Splice;
use crate::wire::json::{Kind, quote_into};

/// Builds the request for the plan's `models`. `is_assembled`: they are asked for a stream, although the caller is not.
pub fn build(
    policy: &Policy,
    request: &ChatRequest,
    task: Option<TaskId>,
    models: &[ModelId],
    output: OutputLimit,
    is_assembled: bool,
) -> Splice {
    let task_limit = task.and_then(|task| policy.task(task).max_output_tokens);
    let always = policy.request.set_output_limit || output.always;
    // Each model with its limit, and whether to set the limit if the caller has none.
    let models: Vec<(&Model, u64, bool)> = models
        .iter()
        .map(|id| {
            let (model, own) = (policy.model(*id), output.of(*id));
            let least = own.into_iter().chain(task_limit).min();
            (model, least.map_or(model.max_output_tokens, |t| t.min(model.max_output_tokens)), always || own.is_some())
        })
        .collect();

    let limits_change = models.iter().any(|(model, limit, set)| output_changes(request, model, *limit, *set));
    let facts = &request.facts;
    let ask_usage = is_assembled || facts.stream && !facts.wants_usage;
    let has_budget = output.limits.is_some_and(Limits::has_budget);
    let takes = |model: &Model, name: &str| {
        model.takes(name)
            && !model.drops_for_price(name, facts.service_tier, facts.needs, has_budget)
            && !model.drops_strange(facts.strange(name), has_budget)
    };
    let moves = |member: &Member| match &*member.name {
        "model" => true,
        "stream" if is_assembled => true,
        "stream_options" if ask_usage => true,
        "max_tokens" | "max_completion_tokens" if limits_change => true,
        _ if integer::rewritten(facts, member).is_some() => true,
        name => models.iter().any(|(model, ..)| !takes(model, name)),
    };
    let moved: Vec<&Member> = facts.members.iter().filter(|m| moves(m)).collect();

    let heads = models
        .iter()
        .map(|(model, limit, set)| {
            let mut head = Vec::with_capacity(96);
            head.extend_from_slice(b"{\"model\":");
            quote_into(&mut head, &model.upstream_id);
            if is_assembled {
                head.extend_from_slice(b",\"stream\":true");
            }
            if ask_usage && model.takes("stream_options") {
                stream_options_into(&mut head, request);
            }
            if limits_change {
                output_limits_into(&mut head, request, model, *limit, *set);
            }
            for member in &moved {
                let is_written = match &*member.name {
                    "model" => true,
                    "stream" => is_assembled,
                    "max_tokens" | "max_completion_tokens" => limits_change,
                    "stream_options" => ask_usage,
                    _ => false,
                };
                if !is_written && takes(model, &member.name) {
                    member_into(&mut head, facts, member);
                }
            }
            head.push(b',');
            head
        })
        .collect();
    Splice::new(facts, heads, moves)
}

/// Appends a member as the caller sent it, apart from the spelling of a whole number.
fn member_into(head: &mut Vec<u8>, facts: &Facts, member: &Member) {
    let (until, number) = match integer::rewritten(facts, member) {
        Some(Rewritten::Dropped) => return,
        Some(Rewritten::Digits { negative, value }) => (member.value.span.start, Some((negative, value))),
        None => (member.value.span.end, None),
    };
    head.push(b',');
    head.extend_from_slice(facts.bytes(&(member.key.start..until)));
    if let Some((negative, value)) = number {
        head.extend_from_slice(if negative { b"-" } else { b"" });
        head.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

/// Returns whether the model needs a different output limit from the caller's.
fn output_changes(request: &ChatRequest, model: &Model, limit: u64, set_where_absent: bool) -> bool {
    let too_much = |asked: Option<u64>| asked.is_some_and(|asked| asked > limit);
    let absent = request.max_tokens.is_none() && request.max_completion_tokens.is_none();
    let other_name = match model.output_param {
        Some(OutputParam::MaxTokens) => request.max_completion_tokens.is_some(),
        Some(OutputParam::MaxCompletionTokens) => request.max_tokens.is_some(),
        None => false,
    };
    too_much(request.max_tokens) || too_much(request.max_completion_tokens) || other_name || absent && set_where_absent
}

fn output_limits_into(head: &mut Vec<u8>, request: &ChatRequest, model: &Model, limit: u64, set_where_absent: bool) {
    let mut write = |name: &str, value: u64| {
        for part in [",\"", name, "\":", itoa::Buffer::new().format(value)] {
            head.extend_from_slice(part.as_bytes());
        }
    };
    match (model.output_param, request.facts.output.least) {
        (_, None) if !set_where_absent => {}
        (Some(OutputParam::MaxCompletionTokens), asked) => {
            write("max_completion_tokens", asked.map_or(limit, |a| a.min(limit)))
        }
        (Some(OutputParam::MaxTokens), asked) => write("max_tokens", asked.map_or(limit, |a| a.min(limit))),
        (None, None) => write("max_tokens", limit),
        (None, Some(_)) => {
            if let Some(asked) = request.max_tokens {
                write("max_tokens", asked.min(limit));
            }
            if let Some(asked) = request.max_completion_tokens {
                write("max_completion_tokens", asked.min(limit));
            }
        }
    }
}

/// Appends the caller's `"stream_options"`, with `include_usage` set to true.
fn stream_options_into(head: &mut Vec<u8>, request: &ChatRequest) {
    head.extend_from_slice(b",\"stream_options\":{\"include_usage\":true");
    if let Some(member) = request.facts.member("stream_options").filter(|m| m.value.kind == Kind::Object) {
        let mut scanner = crate::wire::json::Scanner::new(request.facts.bytes(&member.value.span), u32::MAX);
        // It was scanned before, so it cannot fail. If it did, the caller's other options would be dropped.
        let _ = scanner.object(|s, key| {
            let name = s.folded_name(&key)?;
            let value = s.value()?;
            // Without `include_usage` vLLM ignores the wish for usage in every chunk, so it must not come with ours.
            if !matches!(&*name, b"include_usage" | b"continuous_usage_stats") {
                head.push(b',');
                head.extend_from_slice(s.bytes(&(key.start..value.span.end)));
            }
            Ok::<_, crate::wire::json::InvalidJson>(())
        });
    }
    head.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse::from_value;
    use serde_json::{Value, json};

    fn policy(models: Value) -> Policy {
        let names: Vec<&String> = models.as_object().unwrap().keys().collect();
        let document = json!({
            "providers": {"p": {"dialect": "openai", "data": "regulated"}},
            "tiers": {"t": {"models": names}},
            "tenants": {"x": {"tier": "t", "keys": [format!("sha256:{}", "0".repeat(64))]}},
            "models": models,
        });
        from_value(&document).unwrap().1
    }

    fn model(max: u64) -> Value {
        json!({"provider": "p", "model": "real-\"id\"", "level": "mid", "context": 1000, "max_output_tokens": max})
    }

    /// Returns every attempt's body as the model stage makes it, and checks the first against the assembled request.
    fn bodies(policy: &Policy, body: &str) -> Vec<String> {
        bodies_of(policy, body, false)
    }

    fn bodies_of(policy: &Policy, body: &str, is_assembled: bool) -> Vec<String> {
        let request = ChatRequest::parse(body.as_bytes(), 16).unwrap();
        let models: Vec<ModelId> = policy.models().map(|(id, _)| id).collect();
        let canonical = build(policy, &request, None, &models, OutputLimit::default(), is_assembled);
        let first = String::from_utf8(canonical.assemble(body.as_bytes())).unwrap();
        let rest = &first[canonical.heads[0].len()..];
        assert_eq!(rest.len(), canonical.rest_len());
        if let Some(prefix) = canonical.prefix_only(body.len()) {
            assert_eq!(&body[prefix..], rest);
        }
        canonical.heads.iter().map(|head| format!("{}{rest}", std::str::from_utf8(head).unwrap())).collect()
    }

    fn one(body: &str) -> String {
        bodies(&policy(json!({"m": model(100)})), body).remove(0)
    }

    const M: &str = r#""messages": [ {"role":"user","content":"h\u00e9 1.0e5"} ]"#;
    const ID: &str = r#"{"model":"real-\"id\"","#;

    #[test]
    fn every_other_byte_is_the_callers_wherever_the_model_stands() {
        assert_eq!(one(&format!(r#"{{"model":"m",{M},"x":1.50 }} "#)), format!(r#"{ID}{M},"x":1.50 }} "#));
        assert_eq!(one(&format!("{{ {M} ,\n\"model\":\"m\" }}")), format!("{ID} {M} }}"));
        assert_eq!(
            one(&format!(r#"{{ "a":1, "model" : "m" , {M}, "b" : [ ] }}"#)),
            format!(r#"{ID} "a":1, {M}, "b" : [ ] }}"#)
        );
        assert_eq!(one(&format!("{{{M}}}")), format!("{ID}{M}}}"));
        assert_eq!(one(&format!("\n {{\t{M}\n}}\n")), format!("{ID}\t{M}\n}}\n"));
    }

    #[test]
    fn usage_is_always_asked_of_a_stream() {
        let ask = r#""stream_options":{"include_usage":true"#;
        assert_eq!(one(&format!(r#"{{{M},"stream":true}}"#)), format!(r#"{ID}{ask}}},{M},"stream":true}}"#));
        let with_other = format!(r#"{{{M},"stream_options":{{"x":[1],"include_usage":false}},"stream":true}}"#);
        assert_eq!(one(&with_other), format!(r#"{ID}{ask},"x":[1]}},{M},"stream":true}}"#));
        let each = format!(r#"{{{M},"stream":true,"stream_options":{{"continuous_usage_stats":true}}}}"#);
        assert!(one(&each).contains(&format!("{ask}}}")), "{}", one(&each));
        let asked = format!(r#"{{{M},"stream":true,"stream_options":{{"include_usage":true}}}}"#);
        assert_eq!(one(&asked), format!(r#"{ID}{}"#, &asked[1..]));
        let null = format!(r#"{{{M},"stream_options":null,"stream":true}}"#);
        assert_eq!(one(&null), format!(r#"{ID}{ask}}},{M},"stream":true}}"#));
    }

    #[test]
    fn a_whole_answer_that_is_put_together_is_asked_for_as_a_stream() {
        let ask = r#""stream":true,"stream_options":{"include_usage":true}"#;
        let plain = policy(json!({"m": model(100)}));
        for (body, rest) in [
            (format!("{{{M}}}"), format!("{M}}}")),
            (format!(r#"{{{M},"stream":false}}"#), format!("{M}}}")),
            (format!(r#"{{"stream":false,{M},"stream_options":null,"seed":1}}"#), format!(r#"{M},"seed":1}}"#)),
        ] {
            assert_eq!(bodies_of(&plain, &body, true), [format!("{ID}{ask},{rest}")]);
        }
    }

    #[test]
    fn each_attempt_gets_its_own_output_limit() {
        let mut strict = model(50);
        strict["output_param"] = json!("max_completion_tokens");
        let both = policy(json!({"a": model(100), "b": strict}));
        let all = bodies(&both, &format!(r#"{{{M},"max_tokens":80}}"#));
        assert_eq!(all, [format!(r#"{ID}"max_tokens":80,{M}}}"#), format!(r#"{ID}"max_completion_tokens":50,{M}}}"#)]);
        // A limit within every model's own stays where it was.
        let loose = policy(json!({"a": model(100), "b": model(90)}));
        let all = bodies(&loose, &format!(r#"{{{M},"max_tokens":80}}"#));
        assert_eq!(all, [format!(r#"{ID}{M},"max_tokens":80}}"#), format!(r#"{ID}{M},"max_tokens":80}}"#)]);
        assert_eq!(
            one(&format!(r#"{{{M},"max_completion_tokens":101}}"#)),
            format!(r#"{ID}"max_completion_tokens":100,{M}}}"#)
        );
    }

    #[test]
    fn a_whole_number_goes_up_in_digits_and_a_limit_of_minus_one_not_at_all() {
        let with = |members: &str| one(&format!("{{{M},{members}}}"));
        assert_eq!(with(r#""max_tokens": -1"#), format!("{ID}{M}}}"));
        assert_eq!(with(r#""max_completion_tokens":-1.0,"z":1"#), format!(r#"{ID}{M},"z":1}}"#));
        assert_eq!(
            with(r#""max_tokens":-1,"max_completion_tokens":7"#),
            format!(r#"{ID}{M},"max_completion_tokens":7}}"#)
        );
        assert_eq!(
            with(r#""max_tokens":-1,"max_completion_tokens":700"#),
            format!(r#"{ID}"max_completion_tokens":100,{M}}}"#)
        );
        assert_eq!(with(r#""max_tokens":5e1"#), format!(r#"{ID}"max_tokens":50,{M}}}"#));
        assert_eq!(with(r#""max_tokens":100.0,"n": 2.0"#), format!(r#"{ID}"max_tokens":100,"n": 2,{M}}}"#));
        assert_eq!(with(r#""max_tokens":101.0"#), format!(r#"{ID}"max_tokens":100,{M}}}"#));
        assert_eq!(with(r#""seed":-7.0,"top_logprobs":0.0"#), format!(r#"{ID}"seed":-7,"top_logprobs":0,{M}}}"#));
        // Digits, what is no whole number, and numbers that need not be whole stay as they are.
        let as_they_are = r#""seed":-1,"top_k":-1,"top_logprobs":1.5,"top_p":1.0,"temperature":1e0,"x":2.0"#;
        assert_eq!(with(as_they_are), format!("{ID}{M},{as_they_are}}}"));
        // The gateway's own limit, as for a caller without one.
        let mut policy = policy(json!({"m": model(100)}));
        policy.request.set_output_limit = true;
        let body = format!(r#"{{{M},"max_tokens":-1}}"#);
        assert_eq!(bodies(&policy, &body), [format!(r#"{ID}"max_tokens":100,{M}}}"#)]);
    }

    #[test]
    fn a_dropped_field_goes_only_to_models_that_take_it() {
        let mut strict = model(100);
        strict["unsupported_params"] = json!(["seed"]);
        strict["drop_params"] = json!(true);
        let both = policy(json!({"a": model(100), "b": strict}));
        let all = bodies(&both, &format!(r#"{{"seed":  7,{M}}}"#));
        assert_eq!(all, [format!(r#"{ID}"seed":  7,{M}}}"#), format!("{ID}{M}}}")]);
    }

    #[test]
    fn a_model_that_refuses_stream_options_gets_none() {
        let mut strict = model(100);
        strict["unsupported_params"] = json!(["stream_options"]);
        let both = policy(json!({"a": model(100), "b": strict}));
        let ask = r#""stream_options":{"include_usage":true}"#;
        let all = bodies(&both, &format!(r#"{{{M},"stream":true}}"#));
        assert_eq!(all, [format!(r#"{ID}{ask},{M},"stream":true}}"#), format!(r#"{ID}{M},"stream":true}}"#)]);
        let all = bodies(&both, &format!(r#"{{{M},"stream":true,{ask}}}"#));
        assert_eq!(all, [format!(r#"{ID}{ask},{M},"stream":true}}"#), format!(r#"{ID}{M},"stream":true}}"#)]);
    }

    #[test]
    fn every_order_of_members_gives_valid_json_with_the_same_meaning() {
        let members = [M, r#""model":"m""#, r#""stream":true"#, r#""max_tokens":500"#, r#""z":{}"#];
        let mut orders = vec![Vec::new()];
        for _ in 0..members.len() {
            orders = orders
                .into_iter()
                .flat_map(|order: Vec<usize>| {
                    (0..members.len())
                        .filter(|i| !order.contains(i))
                        .map(|i| [order.clone(), vec![i]].concat())
                        .collect::<Vec<_>>()
                })
                .collect();
        }
        let expected: Value = serde_json::from_str(&format!(
            r#"{{"model":"real-\"id\"",{M},"stream":true,"stream_options":{{"include_usage":true}},"max_tokens":100,"z":{{}}}}"#
        ))
        .unwrap();
        for order in orders {
            let body = format!("{{{}}}", order.iter().map(|i| members[*i]).collect::<Vec<_>>().join(" , "));
            assert_eq!(serde_json::from_str::<Value>(&one(&body)).unwrap(), expected, "{body}");
        }
    }
}
