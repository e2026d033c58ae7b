//! A whole answer that is put together from a stream: however that arrives, and wherever it breaks off, the caller gets
//! the whole answer or an error, and is charged for what was made.

use crate::envoy::Envoy;
use crate::policy;
use crate::request::{Attempt, Event, Request};
use serde_json::{Value, json};

const EVENTS: [&str; 6] = [
    "data: {\"id\":\"c\",\"created\":7,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null}]}\n\n",
    "data: {\"id\":\"c\",\"created\":7,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once upon a time\"}}]}\r\n\r\n",
    ": comment\n\n",
    "data: {\"id\":\"c\",\"created\":7,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" \\ud83d\\ude82 é\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"c\",\"created\":7,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":30,\"total_tokens\":39}}\n\n",
    "data: [DONE]\n\n",
];

fn answer(with_usage: bool) -> Value {
    let mut answer = json!({"id": "c", "object": "chat.completion", "created": 7, "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Once upon a time 🚂 é"}, "logprobs": null,
         "finish_reason": "stop"}]});
    if with_usage {
        answer["usage"] = json!({"prompt_tokens": 9, "completion_tokens": 30, "total_tokens": 39});
    }
    answer
}

fn envoy() -> Envoy {
    let mut document = policy::document();
    for task in ["chat", "alone"] {
        document["tasks"][task]["stream_upstream"] = json!(true);
    }
    Envoy::new(&document)
}

fn question() -> Value {
    json!({"messages": [{"role": "user", "content": "Tell"}], "stream": false})
}

/// Begins a request, and its first attempt at a provider that answers with these pieces.
fn begin(envoy: &mut Envoy, question: &Value, pieces: impl Iterator<Item = Vec<u8>>) -> (Request, Attempt) {
    let mut request = envoy.chat("sk-acme", question);
    let mut attempt = request.attempt(envoy, "vllm");
    attempt.sent.check_length();
    assert_eq!(attempt.sent.json()["stream"], true);
    assert_eq!(attempt.sent.json()["stream_options"], json!({"include_usage": true}));
    let head = Event::head(200, "text/event-stream");
    attempt.respond([head].into_iter().chain(pieces.map(|piece| Event::Body(piece, false))));
    (request, attempt)
}

/// Checks a whole answer, and ends the request.
fn check_answer(request: Request, with_usage: bool, place: &str) -> Value {
    let client = &request.client;
    assert_eq!((client.status(), client.json()), (200, answer(with_usage)), "{place}");
    assert_eq!(client.header("content-type"), Some("application/json"), "{place}");
    assert_eq!(client.header("x-pointsman-model"), Some("small"), "{place}");
    assert_eq!(client.header("x-pointsman-attempts"), Some("1"), "{place}");
    assert!(client.header("x-pointsman-cost-usd").is_some(), "{place}");
    let audit = request.end();
    assert_eq!((&audit["stream"], &audit["status"], &audit["error_code"]), (&json!(false), &json!(200), &json!(null)));
    assert!(audit["time_to_first_token_ms"].is_u64(), "{place}: {audit}");
    audit
}

#[test]
fn every_split_of_the_stream_is_the_same_answer() {
    let (stream, mut envoy) = (EVENTS.concat().into_bytes(), envoy());
    for at in 0..=stream.len() {
        let pieces = [stream[..at].to_vec(), stream[at..].to_vec()];
        let (mut request, mut attempt) = begin(&mut envoy, &question(), pieces.into_iter());
        request.relay(&mut attempt);
        // It is answered with the end marker. What follows goes nowhere.
        assert_eq!(request.client.json(), answer(true), "after {at} bytes");
        let length = request.client.body.len().to_string();
        assert_eq!(request.client.header("content-length"), Some(&*length));
        attempt.respond([Event::Body(b": more\n\ndata: {}\n\n".to_vec(), false), Event::Body(Vec::new(), true)]);
        request.relay(&mut attempt);
        attempt.end();
        assert!(request.client.is_whole);
        let audit = check_answer(request, true, &format!("after {at} bytes"));
        assert_eq!((&audit["input_tokens"], &audit["output_tokens"]), (&json!(9), &json!(30)), "{audit}");
        assert_eq!(envoy.tokens_today("sk-acme"), 39 * (at as u64 + 1));
    }
    let (mut request, mut attempt) = begin(&mut envoy, &question(), stream.iter().map(|byte| vec![*byte]));
    request.relay(&mut attempt);
    attempt.end();
    check_answer(request, true, "byte by byte");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Ended,
    Trailers,
    Reset,
    Left,
}

/// Cuts the stream after each byte.
fn check_cut(cut: Cut) {
    let stream = EVENTS.concat();
    let role = EVENTS[0].len();
    let first = EVENTS[..2].concat().len();
    let finished = EVENTS[..4].concat().len();
    let counted = EVENTS[..5].concat().len();
    let mut envoy = envoy();
    let (mut charged, mut before) = (0, 0);
    for at in 0..stream.len() {
        let place = format!("{cut:?} after {at} of {} bytes", stream.len());
        let pieces = stream.as_bytes()[..at].chunks(40).map(<[u8]>::to_vec);
        let (mut request, mut attempt) = begin(&mut envoy, &question(), pieces);
        match cut {
            Cut::Ended => attempt.respond([Event::Body(Vec::new(), true)]),
            Cut::Trailers => attempt.respond([Event::Trailers]),
            Cut::Reset | Cut::Left => {}
        }
        let is_failed = attempt.status() != Some(200);
        assert_eq!(is_failed, at < first, "{place}");
        if !is_failed {
            request.relay(&mut attempt);
        }
        attempt.end();
        if is_failed && cut != Cut::Left {
            // Nothing was made, as far as anyone knows: the next model serves, as if it were a whole answer.
            let mut second = request.attempt(&mut envoy, "openai");
            assert_eq!(
                (&second.sent.json()["stream"], &second.sent.json()["model"]),
                (&json!(true), &json!("gpt-4.1-long-name"))
            );
            second.respond([Event::head(200, "text/event-stream"), Event::Body(stream.clone().into_bytes(), true)]);
            request.relay(&mut second);
            second.end();
            assert_eq!((request.client.status(), request.client.json()), (200, answer(true)), "{place}");
        }
        match cut {
            Cut::Reset if !is_failed => request.cut("upstream_reset_after_response_started{remote_reset}", 503),
            Cut::Left => request.cut("downstream_remote_disconnect", 0),
            _ => {}
        }
        // The end marker counts without an empty line after it, and after the end of its only choice it is not needed.
        let is_marked = at > counted && stream[counted..at].starts_with("data: [DONE]");
        let is_complete =
            !is_failed && matches!(cut, Cut::Ended | Cut::Trailers) && (is_marked || at == finished || at == counted);
        let (told, has_answer) = (request.client.text(), request.client.headers.is_some());
        let status = if has_answer { request.client.status() } else { 0 };
        let audit = if is_complete { check_answer(request, at >= counted, &place) } else { request.end() };
        let tokens = |name: &str| audit[name].as_u64().unwrap_or(0);
        charged += tokens("input_tokens") + tokens("output_tokens");
        assert_eq!(envoy.tokens_today("sk-acme"), charged, "{place}: {audit}");
        let code = audit["error_code"].as_str();
        match cut {
            Cut::Ended | Cut::Trailers if !is_failed && !is_complete => {
                let error: Value = serde_json::from_str(&told).unwrap();
                assert_eq!((status, &error["error"]["code"]), (502, &json!("stream_truncated")), "{place}");
                assert_eq!(error["error"]["type"], "server_error");
                assert_eq!((code, &audit["status"]), (Some("stream_truncated"), &json!(502)), "{place}: {audit}");
            }
            // Envoy answers in the place of the module.
            Cut::Reset if !is_failed => {
                assert!(!has_answer, "{place}");
                assert_eq!((code, &audit["status"]), (Some("provider_unreachable"), &json!(503)), "{place}: {audit}");
            }
            Cut::Left => {
                assert!(!has_answer, "{place}");
                assert_eq!((code, &audit["status"]), (Some("client_disconnected"), &json!(499)), "{place}: {audit}");
            }
            _ => {}
        }
        if at >= first {
            // More bytes never cost less, and the provider's own count wins.
            assert!(tokens("output_tokens") >= before, "{place}: {audit}");
            before = tokens("output_tokens");
            assert_eq!(audit["usage_estimated"], at < counted, "{place}: {audit}");
        }
        assert!(role < first);
    }
}

#[test]
fn a_provider_that_ends_early_at_any_byte() {
    check_cut(Cut::Ended);
}

#[test]
fn a_provider_that_ends_early_by_trailers_at_any_byte() {
    check_cut(Cut::Trailers);
}

#[test]
fn a_provider_that_breaks_off_at_any_byte() {
    check_cut(Cut::Reset);
}

#[test]
fn a_caller_that_leaves_at_any_byte() {
    check_cut(Cut::Left);
}

#[test]
fn an_error_in_the_middle_is_an_error_with_a_status() {
    for (error, code) in [
        ("data: {\"error\":{\"message\":\"secret-host-7 is on fire\"}}\n\n", "stream_error"),
        ("event: error\ndata: {}\n\n", "stream_error"),
        ("data: {\"choices\":[{]}\n\n", "stream_malformed"),
        ("data: {\"choices\":[7]}\n\n", "stream_malformed"),
    ] {
        let mut envoy = envoy();
        let pieces = [EVENTS[..2].concat(), error.to_owned()].map(String::into_bytes);
        let (mut request, mut attempt) = begin(&mut envoy, &question(), pieces.into_iter());
        request.relay(&mut attempt);
        attempt.end();
        // At once, although the provider has not ended the response.
        assert!(request.client.is_whole);
        let client = &request.client;
        assert_eq!((client.status(), &client.json()["error"]["code"]), (502, &json!(code)));
        assert_eq!(client.header("content-type"), Some("application/json"));
        assert_eq!(client.header("x-pointsman-model"), Some("small"));
        assert!(client.header("x-pointsman-cost-usd").is_some());
        assert!(!client.text().contains("secret"), "{}", client.text());
        let audit = request.end();
        assert_eq!((&audit["error_code"], &audit["status"]), (&json!(code), &json!(502)), "{audit}");
        assert!(audit["output_tokens"].as_u64() > Some(0) && audit["usage_estimated"] == true, "{audit}");
        assert_eq!(envoy.metric("llm_provider_errors_total|"), 1);
    }
}

#[test]
fn a_request_whose_answer_may_differ_goes_as_it_is_and_so_does_every_one_after_a_doubt() {
    let mut envoy = envoy();
    let stream_of = |envoy: &mut Envoy, key: &str, more: Value| {
        let mut question = question();
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut request = envoy.chat(key, &question);
        let sent = request.attempt(envoy, "vllm");
        let stream = sent.sent.json()["stream"].clone();
        sent.end();
        request.cut("downstream_remote_disconnect", 0);
        (stream, request.end()["assembly"].clone())
    };
    let (streams, whole) = ((json!(true), json!("assembled")), (json!(false), json!("request")));
    assert_eq!(stream_of(&mut envoy, "sk-acme", json!({"n": 2, "logprobs": true})), streams);
    assert_eq!(stream_of(&mut envoy, "sk-acme", json!({"best_of": 2})), whole);
    assert_eq!(stream_of(&mut envoy, "sk-acme", json!({"stream_options": {"include_usage": true}})), whole);
    assert_eq!(envoy.metric("llm_not_assembled_total|task=chat|reason=request"), 2);

    // A doubt beside the answer leaves the answer. One about the answer does not: it is asked for again.
    for (chunk, status) in [
        (r#"data: {"choices":[{"delta":{}}],"citations":["VALUE"]}"#, 200),
        (r#"data: {"choices":[{"delta":{"note":"VALUE"}}]}"#, 502),
    ] {
        let mut envoy = self::envoy();
        let twice = ["a", "b"].map(|value| chunk.replace("VALUE", value) + "\n\n").concat();
        let pieces = [EVENTS[1], &twice, EVENTS[3], EVENTS[5]].map(|event| event.as_bytes().to_vec());
        let (mut request, mut attempt) = begin(&mut envoy, &question(), pieces.into_iter());
        request.relay(&mut attempt);
        attempt.end();
        assert_eq!(request.client.status(), status, "{}", request.client.text());
        let audit = request.end();
        assert_eq!((&audit["assembly"], &audit["status"]), (&json!("doubtful"), &json!(status)), "{audit}");
        let is_told = |line: &String| line.contains("did not say for certain what the whole response is");
        assert_eq!(envoy.logs().iter().filter(|line| is_told(line)).count(), 1);
        assert_eq!(envoy.metric("llm_not_assembled_total|task=chat|reason=doubtful"), 1);
        assert_eq!(stream_of(&mut envoy, "sk-acme", json!({})), (json!(false), json!("doubted")));
        // The request of one tenant switches nothing for another.
        assert_eq!(stream_of(&mut envoy, "sk-other", json!({})), (json!(true), json!("assembled")));
    }
    // A caller's own stream is one as before.
    let request = envoy.chat("sk-acme", &json!({"messages": [{"role": "user", "content": "x"}], "stream": true}));
    assert_eq!(request.sent.as_ref().unwrap().json()["stream"], true);
    request.end_without_answer();
}

#[test]
fn an_answer_of_any_length_up_to_the_limit_is_held() {
    let mut envoy = envoy();
    let long =
        |bytes: usize| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(bytes));
    let run = |envoy: &mut Envoy, events: Vec<String>| {
        let pieces = events.into_iter().chain([EVENTS[5].to_owned()]).map(String::into_bytes);
        let (mut request, mut attempt) = begin(envoy, &question(), pieces);
        request.relay(&mut attempt);
        attempt.end();
        let (status, body) = (request.client.status(), request.client.json());
        request.end();
        (status, body)
    };
    // One event that is too long for a caller's stream to be held, and many short ones.
    for events in [vec![long(3 << 20)], vec![long(100_000); 40]] {
        let bytes = events.len() * (events[0].len() - long(0).len());
        let (status, body) = run(&mut envoy, events);
        let content = body["choices"][0]["message"]["content"].as_str().map(str::len);
        assert_eq!((status, content), (200, Some(bytes)), "{}", body["error"]);
    }
    let (status, body) = run(&mut envoy, vec![long(100_000); 90]);
    assert_eq!((status, &body["error"]["code"]), (502, &json!("response_too_large")));
}

#[test]
fn a_tenant_that_fills_the_memory_takes_none_of_another_tenants() {
    let mut document = policy::document();
    for name in ["small", "big"] {
        document["models"][name]["max_output_tokens"] = json!(50_000);
        document["models"][name].as_object_mut().unwrap().remove("max_concurrent");
    }
    document["tiers"]["metered"]["limits"] = json!({"tokens_per_day": 100_000_000});
    document["tenants"]["third"] = json!({"tier": "free", "keys": [policy::hash("sk-third")]});
    document["tasks"]["chat"]["stream_upstream"] = json!(true);
    let mut envoy = Envoy::new(&document);
    // Three million bytes each: ten are a half.
    let begin = |envoy: &mut Envoy, key: &str| {
        let mut request = envoy.chat(key, &question());
        let attempt = request.attempt(envoy, "vllm");
        (request, attempt)
    };
    let is_stream = |attempt: &Attempt| attempt.sent.json()["stream"] == true;
    let mut held: Vec<_> = (0..10).map(|_| begin(&mut envoy, "sk-acme")).collect();
    assert!(held.iter().all(|(_, attempt)| is_stream(attempt)));
    // Its next one goes as it is. Other tenants have the other half.
    let (mut next, mut attempt) = begin(&mut envoy, "sk-acme");
    assert!(!is_stream(&attempt));
    attempt.respond([Event::head(200, "application/json"), Event::Body(answer(true).to_string().into_bytes(), true)]);
    next.relay(&mut attempt);
    attempt.end();
    assert_eq!((next.client.status(), next.client.json()), (200, answer(true)));
    assert_eq!(next.end()["assembly"], "no_room");
    let others: Vec<_> = (0..10).map(|_| begin(&mut envoy, "sk-other")).collect();
    assert!(others.iter().all(|(_, attempt)| is_stream(attempt)));
    let (third, attempt) = begin(&mut envoy, "sk-third");
    assert!(!is_stream(&attempt), "there is no room left, so it is asked as without the option");
    attempt.end();
    third.end_without_answer();
    assert_eq!(envoy.metric("llm_not_assembled_total|task=chat|reason=no_room"), 2);
    // An answer that is whole holds no memory any more, even while its response lingers.
    let (mut first, mut attempt) = held.remove(0);
    attempt.respond([Event::head(200, "text/event-stream"), Event::Body(EVENTS.concat().into_bytes(), false)]);
    first.relay(&mut attempt);
    assert_eq!((first.client.status(), first.client.json()), (200, answer(true)));
    let (again, attempt_again) = begin(&mut envoy, "sk-acme");
    assert!(is_stream(&attempt_again));
    held.push((again, attempt_again));
    attempt.end();
    first.end();
    // What was begun is put together, however much others hold; and then there is room again.
    for (mut request, mut attempt) in held.drain(..5).chain(others) {
        attempt.respond([Event::head(200, "text/event-stream"), Event::Body(EVENTS.concat().into_bytes(), false)]);
        request.relay(&mut attempt);
        assert_eq!((request.client.status(), request.client.json()), (200, answer(true)));
        attempt.end();
        assert_eq!(request.end()["assembly"], "assembled");
    }
    for (third, attempt) in [begin(&mut envoy, "sk-third"), begin(&mut envoy, "sk-acme")] {
        assert!(is_stream(&attempt));
        attempt.end();
        third.end_without_answer();
    }
    for (request, attempt) in held {
        attempt.end();
        request.end_without_answer();
    }
}

#[test]
fn envoys_own_reply_in_place_of_an_answer_knows_its_model_and_its_cost() {
    let mut envoy = envoy();
    let pieces = EVENTS[..2].iter().map(|event| event.as_bytes().to_vec());
    let (mut request, mut attempt) = begin(&mut envoy, &question(), pieces);
    request.relay(&mut attempt);
    attempt.end();
    let state = |name: &str| request.state(name).map(|value| String::from_utf8(value).unwrap());
    assert_eq!(state("pointsman_model").as_deref(), Some("small"));
    let told: f64 = state("pointsman_cost").unwrap().parse().unwrap();
    request.cut("upstream_reset_after_response_started{remote_reset}", 503);
    assert_eq!(request.end()["estimated_cost_usd"].as_f64(), Some(told));
}
