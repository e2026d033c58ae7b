//! A request reaches the provider byte for byte as sent, except for the model's name and what the policy changes.

use crate::standard::{ask, gateway, scripted, streamed};
use pointsman_integration::call::Call;
use pointsman_integration::raw::Connection;
use serde_json::json;

const MESSAGES: &str = r#""messages" : [ {"role":"user","content":"h\u00e9llo \ud83d\ude00 é \/ \"x\""} ]"#;
const REST: &str = "\"temperature\":1.0e5,\t\"seed\": 12345678901234567890 , \
    \"x_unknown\":{\"b\":-0.0,\"a\":[1.50,null]}\n,\"zeta\":0.1000";
const ID: &str = r#"{"model":"qwen2.5-7b-instruct","#;

#[test]
#[ignore = "needs a real Envoy: make test"]
fn every_other_byte_is_the_callers() {
    let gateway = gateway();
    let cases = [
        (format!(r#"{{"model":"small",{MESSAGES},{REST}}}"#), format!("{ID}{MESSAGES},{REST}}}")),
        (format!(r#"{{{MESSAGES},"model":"small",{REST}}}"#), format!("{ID}{MESSAGES},{REST}}}")),
        (format!(r#"{{{MESSAGES},{REST},"model":"small"}}"#), format!("{ID}{MESSAGES},{REST}}}")),
        (format!(r#"{{ {MESSAGES},{REST} }}"#), format!("{ID} {MESSAGES},{REST} }}")),
        (format!("\n{{{REST} ,\"mod\\u0065l\" : \"sm\\u0061ll\",{MESSAGES}}}\n"), format!("{ID}{REST},{MESSAGES}}}\n")),
    ];
    for (sent, expected) in cases {
        for call in [
            Call::chat(&*sent),
            Call::chat("").pieces(sent.as_bytes().chunks(7).map(<[u8]>::to_vec)),
            Call::chat(&*sent).http2(),
        ] {
            let answer = gateway.send(call.key("sk-acme"));
            assert_eq!(answer.status, 200, "{sent}: {}", answer.text());
            let seen = gateway.upstream(&answer);
            assert_eq!(seen.text(), expected, "{sent}");
            assert_eq!(seen.header("content-length"), Some(expected.len().to_string().as_str()));
            assert_eq!(seen.header("transfer-encoding"), None);
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_is_no_chat_request_is_refused_and_the_field_named() {
    let gateway = gateway();
    let m = r#""messages":[{"role":"user","content":"not-for-a-provider"}]"#;
    let deep = |depth: usize| format!(r#"{{"model":"small",{m},"x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let invalid_utf8 =
        |body: String| body.into_bytes().into_iter().map(|b| if b == b'?' { 0xff } else { b }).collect::<Vec<_>>();
    let cases: Vec<(Vec<u8>, &str, Option<&str>)> = vec![
        (b"".to_vec(), "invalid_json", None),
        (b"  ".to_vec(), "invalid_json", None),
        (b"{".to_vec(), "invalid_json", None),
        (b"[]".to_vec(), "invalid_json", None),
        (b"\"text\"".to_vec(), "invalid_json", None),
        (b"model=small".to_vec(), "invalid_json", None),
        (format!(r#"{{"model":"small",{m}}}x"#).into_bytes(), "invalid_json", None),
        (format!(r#"{{"model":"small",{m},}}"#).into_bytes(), "invalid_json", None),
        (format!("\u{feff}{{\"model\":\"small\",{m}}}").into_bytes(), "invalid_json", None),
        (invalid_utf8(format!(r#"{{"model":"small",{}}}"#, m.replace("provider", "?"))), "invalid_json", None),
        (invalid_utf8(format!(r#"{{"model":"small",{m},"x":"?"}}"#)), "invalid_json", None),
        (invalid_utf8(format!(r#"{{"model":"small",{m},"user":"?"}}"#)), "invalid_value", Some("user")),
        (deep(25).into_bytes(), "invalid_json", None),
        (br#"{"model":"small"}"#.to_vec(), "missing_required_parameter", Some("messages")),
        (br#"{"model":"small","messages":[]}"#.to_vec(), "empty_array", Some("messages")),
        (br#"{"model":"small","messages":"hi"}"#.to_vec(), "invalid_type", Some("messages")),
        (br#"{"model":"small","messages":["hi"]}"#.to_vec(), "invalid_type", Some("messages[0]")),
        (
            br#"{"model":"small","messages":[{"content":"hi"}]}"#.to_vec(),
            "missing_required_parameter",
            Some("messages[0].role"),
        ),
        (format!(r#"{{"model":"small",{m},"model":"big"}}"#).into_bytes(), "invalid_value", Some("model")),
        (format!(r#"{{"model":"small",{m},"mod\u0065l":"big"}}"#).into_bytes(), "invalid_value", Some("model")),
        (format!(r#"{{"model":"small",{m},{m}}}"#).into_bytes(), "invalid_value", Some("messages")),
        (format!(r#"{{"model":7,{m}}}"#).into_bytes(), "invalid_type", Some("model")),
        (format!(r#"{{"model":"small",{m},"stream":"yes"}}"#).into_bytes(), "invalid_type", Some("stream")),
        (
            format!(r#"{{"model":"small",{m},"max_tokens":-2}}"#).into_bytes(),
            "integer_below_min_value",
            Some("max_tokens"),
        ),
        (format!(r#"{{"model":"small",{m},"max_tokens":1.5}}"#).into_bytes(), "invalid_type", Some("max_tokens")),
        (
            format!(r#"{{"model":"small",{m},"stream":true,"stream_options":{{"Include_Us\u0061ge":true}}}}"#)
                .into_bytes(),
            "unknown_parameter",
            Some("stream_options.Include_Usage"),
        ),
        (
            format!(r#"{{"model":"small",{m},"Service_Tier":"flex"}}"#).into_bytes(),
            "unknown_parameter",
            Some("Service_Tier"),
        ),
    ];
    for (body, code, param) in cases {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let answer = gateway.send(Call::chat(body).key("sk-acme"));
        answer.assert_refusal(400, code);
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert_eq!(answer.param().as_deref(), param, "{shown}: {}", answer.text());
    }
    assert!(gateway.simulator.with("not-for-a-provider").is_empty());
    let fine = gateway.send(Call::chat(deep(10)).key("sk-acme"));
    assert_eq!(fine.status, 200, "{}", fine.text());
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_request_without_a_body_is_refused() {
    let gateway = gateway();
    for call in [Call::new("POST", "/v1/chat/completions"), Call::new("POST", "/v1/chat/completions").http2()] {
        gateway.send(call.key("sk-acme")).assert_refusal(400, "invalid_json");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_encoded_body_is_refused_and_identity_is_not() {
    let gateway = gateway();
    let call = |coding: &str| Call::chat_json(&ask("small", "coded")).key("sk-acme").header("content-encoding", coding);
    for coding in ["gzip", "br", "identity, gzip", "x"] {
        gateway.send(call(coding)).assert_refusal(415, "unsupported_content_encoding");
    }
    assert_eq!(gateway.send(call("identity")).status, 200);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn trailers_of_a_request_end_its_body() {
    let gateway = gateway();
    let body = ask("small", "with trailers").to_string();
    let pieces = || body.as_bytes().chunks(9).map(<[u8]>::to_vec).collect::<Vec<_>>();
    for call in [
        Call::chat("").http2().pieces(pieces()).trailer("x-sum", "1"),
        Call::chat("").pieces(pieces()).trailer("x-sum", "1"),
    ] {
        let answer = gateway.send(call.key("sk-acme"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(gateway.upstream(&answer).json()["messages"][0]["content"], "with trailers");
    }
    let broken = Call::chat("").http2().pieces(["{\"model\":"]).trailer("x-sum", "1").key("sk-acme");
    gateway.send(broken).assert_refusal(400, "invalid_json");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_caller_that_waits_for_100_continue_gets_it() {
    let gateway = gateway();
    let body = ask("small", "after 100").to_string();
    let mut connection = Connection::to(gateway.address);
    connection.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    ));
    assert_eq!(connection.response().status, 100);
    let answer = connection.send(&body).response();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = gateway.simulator.only(answer.header("x-request-id").unwrap());
    assert_eq!((seen.json()["messages"][0]["content"].as_str(), seen.header("expect")), (Some("after 100"), None));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn requests_on_one_connection_are_answered_in_turn() {
    let gateway = gateway();
    let mut connection = Connection::to(gateway.address);
    let mut all = String::new();
    for i in 0..5 {
        // The gateway itself refuses every other one.
        let model = if i % 2 == 0 { "small" } else { "nothing" };
        let body = ask(model, &format!("[[sim:{}]]", json!({"content": format!("answer {i}")}))).to_string();
        all += &format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
    }
    connection.send(all);
    for i in 0..5 {
        let answer = connection.response();
        if i % 2 == 0 {
            assert!(answer.status == 200 && answer.text().contains(&format!("answer {i}")), "{i}: {answer:?}");
        } else {
            assert_eq!(answer.status, 404);
        }
    }
}

/// Edits change the body's length. If `content-length` did not follow, a provider would take the rest of one body for
/// the next request.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_body_can_not_smuggle_a_request() {
    let gateway = gateway();
    let inner = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    for (i, (model, extra)) in [
        ("small", json!({})),
        ("extract", json!({"max_tokens": 99999})),
        ("spare", json!({"seed": 123456789, "logit_bias": {"1": 2}})),
        ("strict", json!({"max_tokens": 1})),
        ("small", json!({"stream": true, "stream_options": {"include_usage": false, "x": "yyyyyyyyyyyyyyyyyy"}})),
    ]
    .into_iter()
    .enumerate()
    {
        let mark = format!("smuggler-{i}");
        let mut request = ask(model, &format!("{mark} {inner}"));
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        // White space after the JSON text still belongs to the body.
        let body = format!("{request}\r\n\r\n\r\n");
        let answer = gateway.send(Call::chat(body).key("sk-acme"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = gateway.upstream(&answer);
        assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()));
        assert_eq!(gateway.simulator.with(&mark).len(), 1);
    }
    let before = gateway.simulator.mark();
    let body = ask("small", "smuggler-of-headers").to_string();
    for framing in [
        format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", body.len()),
        format!("content-length: {}\r\ncontent-length: 4\r\n", body.len()),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        "content-length: +5\r\n".to_owned(),
    ] {
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\n{framing}\r\n");
        let answer = Connection::to(gateway.address).send(head + &body).response();
        assert!((400..500).contains(&answer.status) || answer.status == 501, "{framing}: {answer:?}");
    }
    assert!(gateway.simulator.requests(before).iter().all(|seen| !seen.text().contains("smuggler-of-headers")));
}

/// A provider may compress unless it is asked not to, whatever the caller accepts: as a direct request, in a plan, and
/// on a later attempt.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_provider_is_asked_not_to_compress() {
    let gateway = gateway();
    let behavior = json!({"content": "not compressed", "gzip": "unless_identity"});
    gateway.simulator.rule("vllm", "first fails, then not compressed", &json!({"status": 503}));
    let falls_back = json!({"content": "first fails, then not compressed", "gzip": "unless_identity"});
    for (model, behavior) in [("small", &behavior), ("chat", &behavior), ("big", &behavior), ("chat", &falls_back)] {
        for accepted in [None, Some("gzip"), Some("br, *;q=0.5"), Some("identity")] {
            for body in [scripted(model, behavior), streamed(model, behavior)] {
                let mut call = Call::chat_json(&body).key("sk-acme");
                if let Some(accepted) = accepted {
                    call = call.header("accept-encoding", accepted);
                }
                let answer = gateway.send(call);
                assert_eq!((answer.status, answer.header("content-encoding")), (200, None), "{answer:?}");
                assert!(answer.text().contains("not"), "{answer:?}");
                assert_eq!(
                    gateway.simulator.of(answer.trace_id()).pop().unwrap().header("accept-encoding"),
                    Some("identity")
                );
            }
        }
    }
}

/// What takes longer to read than text does is bounded, so that no body of the allowed size keeps a worker busy.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_body_that_is_made_to_be_slow_to_read_is_refused_early() {
    let gateway = gateway();
    let with = |before: &str, unit: &str, after: &str| {
        let mut body = before.to_owned();
        while body.len() < 12 << 20 {
            body.push_str(unit);
        }
        body + after
    };
    let asks = r#"{"model":"small","messages":[{"role":"user","content":"slow-to-read"}],"#;
    let part = r#"{"model":"small","messages":[{"role":"user","content":[{"type":"text","text":"slow-to-read""#;
    for (body, code) in [
        (with(part, r#","\u0069mage_ur\u006d":1"#, "}]}]}"), "invalid_json"),
        (with(&format!("{part}}}"), ",{}", "]}]}"), "invalid_json"),
        (with(&format!(r#"{asks}"metadata":{{"a":1"#), r#","\u0061":1"#, "}}"), "invalid_json"),
        (with(&format!(r#"{asks}"x":[1"#), ",1", "]}"), "invalid_json"),
        (with(&format!(r#"{asks}"user":""#), r"\u0061", "\"}"), "invalid_value"),
        (with(&format!(r#"{asks}"max_tokens":1"#), "0", "}"), "integer_above_max_value"),
    ] {
        gateway.send(Call::chat(body).key("sk-acme")).assert_refusal(400, code);
    }
    assert!(gateway.simulator.with("slow-to-read").is_empty());
}
