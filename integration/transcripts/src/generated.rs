//! Transcripts too long to be files: an image as one event.

use crate::{Expect, Outcome, Response, Transcript, Usage};
use serde_json::{Value, json};

/// Returns them.
pub fn all() -> [Transcript; 2] {
    let image = |length: usize| {
        let url = format!("data:image/png;base64,{}", "A".repeat(length));
        chunk(
            &json!({"role": "assistant", "content": "", "images": [{"type": "image_url", "image_url": {"url": url}}]}),
        )
    };
    let start = chunk(&json!({"role": "assistant", "content": ""}));
    [
        stream("generated-image-event", "An image as one event of 1.6 MB.", &[start, image(1_600_000)]),
        stream("generated-first-event", "The first event has 700 KB.", &[image(700_000)]),
    ]
}

fn chunk(delta: &Value) -> Value {
    json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn stream(name: &str, about: &str, images: &[Value]) -> Transcript {
    let text = json!({"choices": [{"index": 0, "delta": {"content": "Look."}, "finish_reason": "stop"}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1290, "total_tokens": 1299}});
    let events: String = images.iter().chain([&text, &usage]).map(|chunk| format!("data: {chunk}\n\n")).collect();
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    Transcript {
        name: name.to_owned(),
        source: "OpenRouter's documentation, \"Image generation\"".to_owned(),
        about: about.to_owned(),
        prompt_bytes: 0,
        request: options.as_object().cloned().unwrap_or_default(),
        response: Response {
            status: 200,
            content_type: Some("text/event-stream".to_owned()),
            headers: Vec::new(),
            body: format!("{events}data: [DONE]\n\n"),
        },
        expect: Expect {
            outcome: Outcome::Served,
            code: None,
            status: None,
            next: None,
            attempt: None,
            says: Vec::new(),
            text: "Look.".to_owned(),
            tool_calls: Vec::new(),
            usage: Some(Usage { input: Some(9), output: Some(1290), ..Usage::default() }),
            kept: false,
            shows: Vec::new(),
            hides: Vec::new(),
            difference: None,
        },
    }
}
