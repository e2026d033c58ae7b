//! The answers of a well-behaved provider.

use serde_json::{Value, json};

use crate::process::{Simulator, question};
use crate::raw::{End, exchange, get, post};

#[test]
fn a_completion_is_one_document_of_known_length() {
    let sim = Simulator::with(1, &["--name", "vllm"]);
    let answer = sim.chat(&json!({"model": "qwen", "messages": [{"role": "user", "content": "hello"}]}));
    assert_eq!((answer.status, answer.complete, answer.end), (200, true, End::Closed));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("server"), Some("pointsman-simulator"));
    assert!(answer.header("content-length").is_some());
    let document = answer.json();
    assert!(document["id"].as_str().unwrap().starts_with("chatcmpl-sim-"));
    assert_eq!((&document["object"], &document["model"]), (&json!("chat.completion"), &json!("qwen")));
    let message = &document["choices"][0]["message"];
    assert!(message["content"].as_str().unwrap().starts_with("This is the Pointsman simulator, not a model: vllm"));
    assert_eq!((&message["role"], &message["refusal"]), (&json!("assistant"), &Value::Null));
    assert_eq!(document["usage"]["prompt_tokens"], 5);
}

#[test]
fn a_stream_is_chunked_and_ends_with_done() {
    let sim = Simulator::start();
    let mut question = question(true, &json!({"content": "one two three"}));
    question["stream_options"] = json!({"include_usage": true});
    let answer = sim.chat(&question);
    assert_eq!((answer.status, answer.complete), (200, true));
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let events = answer.events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(answer.chunks.len(), events.len(), "an event is a chunk");
    assert_eq!(answer.streamed_text(), "one two three");
    let usage: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(3)));
}

#[test]
fn tools_are_called_then_their_result_is_told() {
    let sim = Simulator::start();
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}}, "required": ["city"]}}}]);
    let user = json!({"role": "user", "content": "?"});
    let call = sim.chat(&json!({"model": "m", "tools": tools, "messages": [user]})).json();
    let function = &call["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(
        (&function["name"], &function["arguments"]),
        (&json!("weather"), &json!(r#"{"city":"sim","unit":"C"}"#))
    );
    assert_eq!(call["choices"][0]["finish_reason"], "tool_calls");
    let tool = json!({"role": "tool", "tool_call_id": "x", "content": "21 degrees"});
    let told = sim.chat(&json!({"model": "m", "tools": tools, "messages": [user, tool]})).json();
    assert!(told["choices"][0]["message"]["content"].as_str().unwrap().contains("21 degrees"));
    let streamed = sim.chat(&json!({"model": "m", "stream": true, "tools": tools, "messages": [user]}));
    let arguments: String = streamed
        .events()
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|event| {
            event.pointer("/choices/0/delta/tool_calls/0/function/arguments")?.as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(arguments, r#"{"city":"sim","unit":"C"}"#);
}

#[test]
fn a_schema_is_satisfied() {
    let sim = Simulator::start();
    let schema = json!({"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let messages = json!([{"role": "user", "content": "?"}]);
    let answer = sim.chat(&json!({"model": "m", "response_format": format, "messages": messages})).json();
    assert_eq!(answer["choices"][0]["message"]["content"], r#"{"total":1}"#);
}

#[test]
fn a_bad_request_is_refused_as_the_provider_does() {
    let sim = Simulator::start();
    for (body, message) in [("{", "We could not parse the JSON body"), ("{}", "Missing required parameter: 'messages'")]
    {
        let answer = exchange(sim.address(), &post("/openai/v1/chat/completions", body));
        assert_eq!(answer.status, 400);
        assert!(answer.json()["error"]["message"].as_str().unwrap().starts_with(message));
    }
    assert_eq!(exchange(sim.address(), &get("/v1/chat/completions")).status, 405);
    assert_eq!(exchange(sim.address(), &get("/v1/nothing")).status, 404);
}

#[test]
fn models_health_and_version() {
    let sim = Simulator::with(1, &["--model", "qwen", "--model", "phi"]);
    let models = exchange(sim.address(), &get("/v1/models")).json();
    assert_eq!((&models["data"][0]["id"], &models["data"][1]["id"]), (&json!("qwen"), &json!("phi")));
    let health = exchange(sim.address(), &get("/health"));
    assert_eq!((health.status, health.body.len()), (200, 0));
    assert_eq!(exchange(sim.address(), &get("/api/version")).json(), json!({"version": "0.0.0-sim"}));
}

#[test]
fn a_body_is_sent_as_it_is_with_the_type_that_was_asked_for() {
    let sim = Simulator::start();
    let body = "\u{feff}data: {\"choices\":NaN}\r\n\rerror: x";
    for content_type in [Value::Null, json!("text/plain"), json!("text/event-stream")] {
        let answer = sim.ask(true, &json!({"body": body, "content_type": content_type}));
        assert_eq!((answer.status, answer.text()), (200, body));
        assert_eq!(answer.header("content-type"), content_type.as_str());
    }
}

#[test]
fn an_echo_repeats_body_or_credentials() {
    let sim = Simulator::start();
    let body = sim.ask(false, &json!({"echo": true})).json();
    let repeated: Value = serde_json::from_str(body["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert_eq!(repeated["model"], "m");
    let user = sim.ask(true, &json!({"echo": "user"})).streamed_text();
    let user: Value = serde_json::from_str(&user).unwrap();
    assert_eq!(user["headers"]["authorization"], "Bearer sk-test");
}

#[test]
fn a_connection_is_kept_alive() {
    use std::io::{Read as _, Write as _};
    let sim = Simulator::start();
    let mut stream = std::net::TcpStream::connect(sim.address()).unwrap();
    let request = b"GET /health HTTP/1.1\r\nhost: s\r\n\r\n";
    for _ in 0..2 {
        stream.write_all(request).unwrap();
        let mut bytes = vec![0; 4096];
        let count = stream.read(&mut bytes).unwrap();
        assert!(bytes[..count].starts_with(b"HTTP/1.1 200"));
    }
}

#[test]
fn reasoning_and_text_may_come_before_a_call() {
    let sim = Simulator::start();
    let behavior =
        json!({"reasoning": "hm", "content": "I look.", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]});
    let choice = sim.ask(false, &behavior).json()["choices"][0].clone();
    let message = &choice["message"];
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("hm"), &json!("I look.")));
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], r#"{"a":1}"#);
    let streamed = sim.ask(true, &behavior);
    assert_eq!(streamed.streamed_text(), "I look.");
    let deltas: Vec<Value> = streamed
        .events()
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .map(|event| event["choices"][0]["delta"].clone())
        .collect();
    assert_eq!(deltas[1], json!({"reasoning_content": "hm"}));
    assert_eq!(deltas[4]["tool_calls"][0]["function"]["name"], "f");
}
