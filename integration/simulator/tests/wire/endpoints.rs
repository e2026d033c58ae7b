//! The smaller endpoints on the wire: completions, embeddings, rerank, moderations, images and audio.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::process::Simulator;
use crate::raw::{Answer, End, exchange, post, post_with};

fn send(sim: &Simulator, path: &str, body: &Value) -> Answer {
    exchange(sim.address(), &post(path, &body.to_string()))
}

#[test]
fn embeddings_are_as_asked() {
    let sim = Simulator::start();
    let made = send(&sim, "/v1/embeddings", &json!({"model": "e", "input": [[1, 2], [3]], "dimensions": 3})).json();
    assert_eq!((&made["object"], &made["model"]), (&json!("list"), &json!("e")));
    assert_eq!(made["data"][1]["embedding"].as_array().unwrap().len(), 3);
    assert_eq!(made["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    let base64 = json!({"model": "e", "input": "a", "encoding_format": "base64"});
    assert!(send(&sim, "/v1/embeddings", &base64).json()["data"][0]["embedding"].is_string());
    assert_eq!(send(&sim, "/v1/embeddings", &json!({"model": "e"})).status, 400);
}

#[test]
fn a_completion_streams_and_fails_as_a_chat_does() {
    let sim = Simulator::start();
    let ask = |behavior: Value| {
        let prompt = format!("[[sim:{behavior}]]");
        send(&sim, "/v1/completions", &json!({"model": "m", "stream": true, "prompt": prompt}))
    };
    let text = |answer: &Answer| -> String {
        let documents = answer.events().into_iter().filter_map(|data| serde_json::from_str::<Value>(&data).ok());
        documents.filter_map(|document| document["choices"][0]["text"].as_str().map(str::to_owned)).collect()
    };
    let answer = ask(json!({"content": "a b c"}));
    assert_eq!((text(&answer).as_str(), answer.events().last().unwrap().as_str()), ("a b c", "[DONE]"));
    let cut = ask(json!({"content": "a b c", "fault": {"reset_mid_stream": {"after_chunks": 2}}}));
    assert_eq!((text(&cut).as_str(), cut.end), ("a b", End::Reset));
    assert_eq!(ask(json!({"status": 503})).json()["error"]["type"], "server_error");
    assert_eq!(send(&sim, "/v1/completions", &json!({"model": "m", "prompt": {}})).status, 400);
}

#[test]
fn rerank_speaks_coheres_form_and_jinas() {
    let sim = Simulator::start();
    let body = json!({"model": "r", "query": "red train", "documents": ["a car", "a red train"], "top_n": 1});
    let cohere = send(&sim, "/v2/rerank", &body).json();
    assert_eq!(cohere["results"], json!([{"index": 1, "relevance_score": 1.0}]));
    assert_eq!(cohere["meta"]["billed_units"]["search_units"], 1);
    let jina = send(&sim, "/v1/rerank", &body).json();
    assert_eq!(jina["results"][0]["document"]["text"], "a red train");
    assert!(jina["usage"]["total_tokens"].as_u64().unwrap() > 0);
    let scripted = json!({"model": "r", "query": r#"[[sim:{"status":429}]]"#, "documents": ["a"]});
    for (path, member) in [("/v2/rerank", "message"), ("/v1/rerank", "detail")] {
        let refused = send(&sim, path, &scripted);
        assert_eq!((refused.status, refused.json()[member].is_string()), (429, true), "{path}");
    }
}

#[test]
fn moderations_flag_one_word() {
    let sim = Simulator::start();
    let made = send(&sim, "/v1/moderations", &json!({"input": ["peace", "violence"]})).json();
    assert_eq!((&made["results"][0]["flagged"], &made["results"][1]["flagged"]), (&json!(false), &json!(true)));
}

#[test]
fn an_image_is_a_pixel() {
    let sim = Simulator::start();
    let made = send(&sim, "/v1/images/generations", &json!({"prompt": "a train", "n": 2})).json();
    assert!(made["data"][1]["b64_json"].as_str().unwrap().starts_with("iVBORw0KGgo"));
    let url = send(&sim, "/v1/images/generations", &json!({"prompt": "a train", "response_format": "url"})).json();
    assert_eq!(url["data"], json!([{"url": "https://images.simulator.invalid/0.png"}]));
}

#[test]
fn audio_is_silent_and_a_form_is_kept_byte_for_byte() {
    let sim = Simulator::start();
    let wav = send(
        &sim,
        "/v1/audio/speech",
        &json!({"model": "t", "voice": "alloy", "input": "hello", "response_format": "wav"}),
    );
    assert_eq!((wav.header("content-type"), wav.body.len()), (Some("audio/wav"), 4844));
    let form = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nw\r\n--b\r\nContent-Disposition: \
        form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\xff\x00\r\n--b--\r\n";
    let headers = "content-type: multipart/form-data; boundary=b\r\n";
    sim.control("POST", "rules", &json!({"when": {"model": "w"}, "times": 1, "respond": {"content": "hello"}}));
    let heard = exchange(sim.address(), &post_with("/v1/audio/transcriptions", headers, form));
    assert_eq!(heard.json()["text"], "hello");
    let kept = sim.requests().pop().unwrap();
    let body = STANDARD.decode(kept["body_base64"].as_str().unwrap()).unwrap();
    assert_eq!((&kept["body_text"], body.as_slice()), (&Value::Null, &form[..]));
    assert_eq!(exchange(sim.address(), &post("/v1/audio/transcriptions", "{}")).status, 400);
}
