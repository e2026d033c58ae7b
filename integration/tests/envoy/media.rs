//! Media and web search go only to models that can serve them, are charged at their own prices, and under a budget none
//! goes out that has no price.

use crate::standard::scripted;
use pointsman_integration::call::Call;
use pointsman_integration::gateway::{Gateway, Shared};
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::sync::LazyLock;

fn gateway() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| Gateway::start(include_str!("media.yaml")));
    Shared::of(&GATEWAY)
}

/// A request of 1,000 input tokens, 400 of them audio, and 100 output tokens, 50 of them audio.
fn request(model: &str, members: &Value) -> Value {
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100,
        "prompt_tokens_details": {"audio_tokens": 400}, "completion_tokens_details": {"audio_tokens": 50}});
    let mut request = scripted(
        model,
        &json!({"json": {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": usage, "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}]}}),
    );
    for (name, value) in members.as_object().unwrap() {
        match name.as_str() {
            // The script of the answer is the last message.
            "part" => {
                let message = json!({"role": "user", "content": [{"type": "text", "text": "x"}, value]});
                request["messages"].as_array_mut().unwrap().insert(0, message);
            }
            "message" => request["messages"].as_array_mut().unwrap().insert(0, value.clone()),
            name => request[name] = value.clone(),
        }
    }
    request
}

/// What a request asks for, the words of the refusal, and the field at fault.
fn needs() -> Vec<(Value, &'static str, &'static str)> {
    let part = |part: Value| json!({"part": part});
    let url = json!({"url": "https://example.com/a"});
    let tool = |tool: Value| json!({"tools": [{"type": "function", "function": {"name": "f"}}, tool]});
    vec![
        (part(json!({"type": "image_url", "image_url": url})), "images", "messages"),
        (part(json!({"image_url": url})), "images", "messages"),
        (part(json!({"type": null, "image_url": url})), "images", "messages"),
        (part(json!({"type": "text", "text": "x", "IMAGE_URL": url})), "images", "messages"),
        (part(json!({"type": "image", "image": "https://example.com/a"})), "images", "messages"),
        (
            part(json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a"}})),
            "images",
            "messages",
        ),
        (part(json!({"type": "image_pil", "image_pil": "x"})), "images", "messages"),
        (part(json!({"type": "image_embeds", "image_embeds": "AAAA"})), "images", "messages"),
        (part(json!({"type": "tool_result", "content": [{"type": "image"}]})), "images", "messages"),
        (json!({"message": {"role": "user", "content": {"type": "image"}}}), "images", "messages"),
        (part(json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})), "audio", "messages"),
        (part(json!({"type": "audio_url", "audio_url": url})), "audio", "messages"),
        (json!({"message": {"role": "assistant", "content": "x", "audio": {"id": "a"}}}), "audio", "messages"),
        (part(json!({"type": "video_url", "video_url": url})), "video", "messages"),
        (part(json!({"type": "video", "video": ["a", "b"]})), "video", "messages"),
        (part(json!({"type": "file", "file": {"file_id": "f"}})), "files", "messages"),
        (part(json!({"type": "hologram", "hologram": "x"})), "content parts of this type", "messages"),
        (part(json!({"type": "hologram", "text": "x"})), "content parts of this type", "messages"),
        (part(json!({"type": null, "hologram": "x"})), "content parts of this type", "messages"),
        (part(json!({"type": 7, "text": "x"})), "content parts of this type", "messages"),
        (json!({"modalities": ["text", "audio"]}), "audio output", "modalities"),
        (json!({"audio": {"voice": "alloy", "format": "wav"}}), "audio output", "audio"),
        (json!({"modalities": ["text", "image"]}), "these output modalities", "modalities"),
        (json!({"web_search_options": {}}), "web search", "web_search_options"),
        (json!({"search_parameters": {"mode": "on"}}), "web search", "search_parameters"),
        (json!({"enable_search": true}), "web search", "enable_search"),
        (json!({"plugins": [{"id": "web"}]}), "plugins", "plugins"),
        (json!({"mm_processor_kwargs": {"num_crops": 16}}), "options of the media processor", "mm_processor_kwargs"),
        (
            json!({"media_io_kwargs": {"video": {"num_frames": 999}}}),
            "options of the media processor",
            "media_io_kwargs",
        ),
        (tool(json!({"type": "web_search_preview"})), "tools", "tools"),
        (tool(json!({"type": "code_interpreter"})), "tools", "tools"),
    ]
}

fn assert_refused(answer: &Response, words: &str, param: &str) {
    answer.assert_refusal(400, "unsupported_capability");
    assert_eq!(answer.param().as_deref(), Some(param), "{}", answer.text());
    assert!(answer.text().contains(words), "{words}: {}", answer.text());
}

/// Sends the request with the letters of this word as escapes.
fn escaped(gateway: &Gateway, key: &str, request: &Value, word: &str) -> Response {
    let code: String = word.chars().map(|c| format!("\\u{:04x}", c as u32)).collect();
    let text = request.to_string();
    assert!(text.contains(&format!("\"{word}\"")), "{text}");
    gateway.send(Call::chat(text.replace(&format!("\"{word}\""), &format!("\"{code}\""))).key(key))
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn each_kind_goes_only_to_a_model_that_can_serve_it() {
    let gateway = gateway();
    for (members, what, param) in needs() {
        let answer = gateway.chat("sk-free", &request("text", &members));
        assert_refused(&answer, &format!("supports {what}."), param);
        // The model that lists it, and the one that lists nothing, get it as it is.
        for model in ["priced", "open"] {
            let sent = request(model, &members);
            let answer = gateway.chat("sk-free", &sent);
            assert_eq!(answer.status, 200, "{model} {members}: {}", answer.text());
            let upstream = gateway.upstream(&answer).json();
            assert_eq!((&upstream["messages"], &upstream[param]), (&sent["messages"], &sent[param]));
        }
    }
    // A null, false or empty value asks for nothing, and text is text.
    let none = json!({"modalities": ["text"], "audio": null, "web_search_options": null, "enable_search": false,
        "plugins": [], "mm_processor_kwargs": null,
        "part": {"type": "text", "text": "x", "image_url": null, "file": null}});
    let texts = ["text", "input_text", "thinking", "refusal"].map(|kind| json!({"type": kind, "text": "x"}));
    let all = json!({"message": {"role": "user", "content": texts, "audio": null, "images": []}});
    for members in [none, all] {
        let answer = gateway.chat("sk-acme", &request("text", &members));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn no_spelling_gets_around_it() {
    let gateway = gateway();
    for (members, word, what) in [
        (json!({"part": {"type": "video", "x": "y"}}), "video", "video"),
        (json!({"part": {"type": "input_audio", "input_audio": {}}}), "input_audio", "audio"),
        (json!({"part": {"type": null, "image_pil": "x"}}), "image_pil", "images"),
        (json!({"modalities": ["audio"]}), "audio", "audio output"),
        (json!({"modalities": ["audio"]}), "modalities", "audio output"),
        (json!({"web_search_options": {}}), "web_search_options", "web search"),
        (json!({"tools": [{"type": "web_search"}]}), "web_search", "tools"),
    ] {
        let answer = escaped(&gateway, "sk-free", &request("text", &members), word);
        answer.assert_refusal(400, "unsupported_capability");
        assert!(answer.text().contains(what), "{word}: {}", answer.text());
    }
    // Servers in Go read any case of a name.
    for members in [json!({"Modalities": ["audio"]}), json!({"WEB_SEARCH_OPTIONS": {}}), json!({"Audio": {}})] {
        gateway.chat("sk-free", &request("text", &members)).assert_refusal(400, "unknown_parameter");
    }
    gateway.chat("sk-free", &request("open", &json!({"modalities": "audio"}))).assert_refusal(400, "invalid_type");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_costs_apart_and_has_no_price_is_refused_under_a_budget() {
    let gateway = gateway();
    let costs_apart = |what: &str| what.contains("audio") || what.contains("search") || what == "plugins";
    let is_unknown = |what: &str, members: &Value| {
        what.contains("this type") || what.contains("these") || members.to_string().contains("code_interpreter")
    };
    for (members, what, param) in needs() {
        let answer = gateway.chat("sk-acme", &request("open", &members));
        if costs_apart(what) || is_unknown(what, &members) || members.to_string().contains("web_search_preview") {
            assert_refused(&answer, "has a price for", param);
            // The next model of the chain that can has a price.
            let answer = gateway.chat("sk-acme", &request("chain", &members));
            assert_eq!(answer.header("x-pointsman-model"), Some("priced"), "{}", answer.text());
            let left_out = gateway.audit(answer.trace_id())["left_out"].clone();
            assert_eq!(left_out[0], json!({"model": "open", "reason": "price"}));
        } else {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        // What costs nothing needs no price.
        for model in ["priced", "free"] {
            let answer = gateway.chat("sk-acme", &request(model, &members));
            assert_eq!(answer.status, 200, "{model} {members}: {}", answer.text());
        }
    }
    // A search can be dropped where the model says so; audio cannot.
    for field in ["web_search_options", "search_parameters", "plugins"] {
        let answer = gateway.chat("sk-acme", &request("lenient", &json!({field: [{"mode": "on"}]})));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(gateway.upstream(&answer).json().get(field), None);
        let audit = gateway.audit(answer.trace_id());
        assert_eq!(audit["estimated_cost_usd"], json!(0.0028), "{audit}");
        let answer = gateway.chat("sk-free", &request("lenient", &json!({field: [{"mode": "on"}]})));
        assert!(gateway.upstream(&answer).json().get(field).is_some());
    }
    let answer = gateway.chat("sk-acme", &request("lenient", &json!({"modalities": ["audio"]})));
    assert_refused(&answer, "has a price for audio output", "modalities");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_field_that_may_cost_anything_is_refused_under_a_budget() {
    let gateway = gateway();
    for field in ["extra_body", "parameters", "text", "chat_template", "data_sources"] {
        let members = json!({field: {"web_search_options": {}}});
        let answer = gateway.chat("sk-acme", &request("open", &members));
        assert_refused(&answer, "A budget applies", field);
        // Without a budget, for nothing, or where the policy takes it upon itself, it passes.
        for (key, model) in [("sk-free", "open"), ("sk-acme", "free"), ("sk-acme", "priced")] {
            let answer = gateway.chat(key, &request(model, &members));
            assert_eq!(answer.status, 200, "{model} {field}: {}", answer.text());
            assert_eq!(gateway.upstream(&answer).json()[field], members[field]);
        }
        let answer = gateway.chat("sk-acme", &request("lenient", &members));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(gateway.upstream(&answer).json().get(field), None);
    }
    // What chooses another model or host goes to no model that does not list it.
    for field in ["models", "route", "provider", "preset", "fallbacks"] {
        for (key, model) in [("sk-free", "open"), ("sk-acme", "priced"), ("sk-acme", "free")] {
            let answer = gateway.chat(key, &request(model, &json!({field: ["x"]})));
            answer.assert_refusal(400, "unsupported_parameter");
            assert_eq!(answer.param().as_deref(), Some(field));
        }
        let answer = gateway.chat("sk-free", &request("lenient", &json!({field: ["x"]})));
        assert_eq!((answer.status, gateway.upstream(&answer).json().get(field)), (200, None));
        let answer = gateway.chat("sk-acme", &request("routed", &json!({field: ["x"]})));
        assert_eq!((answer.status, &gateway.upstream(&answer).json()[field]), (200, &json!(["x"])));
    }
    // The usual parameters pass.
    let usual = json!({"top_k": 3, "min_p": 0.1, "best_of": 1, "chat_template_kwargs": {"enable_thinking": false},
        "reasoning": {"effort": "low"}, "tool_choice": "auto", "user": "ann", "seed": 1, "stop": ["x"]});
    let answer = gateway.chat("sk-acme", &request("open", &usual));
    assert_eq!(answer.status, 200, "{}", answer.text());
    // A search is one by any name.
    for members in [
        json!({"tools": [{"type": "openrouter:web_search"}]}),
        json!({"tools": [{"googleSearch": {}}]}),
        json!({"tool_choice": {"type": "web_search_preview"}}),
        json!({"web_search": true}),
        json!({"search_mode": "web"}),
    ] {
        let answer = gateway.chat("sk-acme", &request("open", &members));
        answer.assert_refusal(400, "unsupported_capability");
        assert!(answer.text().contains("has a price for web search"), "{members}: {}", answer.text());
        let answer = gateway.chat("sk-acme", &request("priced", &members));
        let audit = gateway.audit(answer.trace_id());
        // 10,000 micro-dollars for the search, besides the tokens.
        assert!(audit["estimated_cost_usd"].as_f64() > Some(0.01), "{members}: {audit}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_multiplies_or_raises_the_output_is_reserved() {
    let gateway = gateway();
    let with = |name: &str, value: Value| json!({name: value, "max_tokens": 100});
    // This tenant has room for a thousand tokens at the price of text, but not for ten thousand.
    assert_eq!(gateway.chat("sk-poor", &request("priced", &with("best_of", json!(1)))).status, 200);
    for (name, value) in [
        ("n", json!(100)),
        ("best_of", json!(100)),
        ("num_return_sequences", json!(100)),
        ("min_tokens", json!(10_000)),
        ("num_predict", json!(10_000)),
        ("num_predict", json!(-1)),
        ("thinking", json!({"type": "enabled", "budget_tokens": 10_000})),
    ] {
        let answer = gateway.chat("sk-poor", &request("priced", &with(name, value)));
        answer.assert_refusal(429, "insufficient_quota");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn audio_and_searches_are_charged_at_their_prices() {
    let gateway = gateway();
    let audio =
        json!({"modalities": ["text", "audio"], "part": {"type": "input_audio", "input_audio": {"data": "AA"}}});
    let search = json!({"web_search_options": {}});
    for (key, model, members, usd, guess) in [
        // 600 x 2 + 400 x 20 + 50 x 8 + 50 x 80 micro-dollars, and 10,000 for the search
        ("sk-acme", "priced", &audio, 0.0136, false),
        ("sk-acme", "priced", &search, 0.0236, false),
        ("sk-free", "open", &audio, 0.0028, true),
        ("sk-free", "open", &search, 0.0028, true),
        ("sk-acme", "free", &search, 0.0, false),
    ] {
        let answer = gateway.chat(key, &request(model, members));
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["estimated_cost_usd"], &audit["price_estimated"]), (&json!(usd), &json!(guess)), "{audit}");
        assert_eq!((&audit["input_tokens"], &audit["output_tokens"]), (&json!(1000), &json!(100)));
        assert_eq!(answer.header("x-pointsman-cost-usd"), Some(&*format!("{usd:.6}")));
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn their_prices_are_reserved() {
    let gateway = gateway();
    let part = |name: &str| json!({"part": {"type": name, name: {"url": "https://example.com/a"}}, "max_tokens": 100});
    for members in [part("audio_url"), part("video_url"), json!({"modalities": ["audio"], "max_tokens": 1000})] {
        gateway.chat("sk-poor", &request("priced", &members)).assert_refusal(429, "insufficient_quota");
    }
    let image = gateway.chat("sk-poor", &request("priced", &part("image_url")));
    assert_eq!(image.status, 200, "{}", image.text());
}
