//! The requests of each scenario, and the upstream's answers.

use crate::policy::{CACHED, MODEL, TASK};
use crate::prompt::Text;
use serde_json::{Value, json};

/// The API that a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's Messages.
    Messages,
}

/// One kind of request.
pub struct Scenario {
    /// Its name in the table.
    pub name: &'static str,
    /// The API that it uses.
    pub api: Api,
    /// The number of requests in flight.
    pub connections: usize,
    /// Whether the answer is a stream.
    pub stream: bool,
    /// Whether it is informational only: not one of the ratios, and left out of a quick run.
    pub information: bool,
    /// Whether latency is measured too.
    pub latency: bool,
    /// The JSON bodies, sent in turn.
    pub bodies: Vec<String>,
}

impl Scenario {
    /// Returns the complete requests, to be sent in turn.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.bodies.iter().map(|body| request(self.api, body, self.stream)).collect()
    }
}

/// Content chunks of the stream.
pub const STREAM_CHUNKS: usize = 200;

/// Content chunks of each stream of a burst.
pub const BURST_CHUNKS: usize = 40;

/// The end of a prompt that is answered with the stream of a burst.
const BURST: &str = " Give the short stream.";

/// The end of a prompt that is answered with 16 KB.
const LONG: &str = " Give the long answer.";

/// The key that the caller sends.
pub const CALLER_KEY: &str = "sk-bench-caller-0123456789abcdef0123456789abcdef";

/// Returns all scenarios, those with the main figures first.
pub fn all() -> Vec<Scenario> {
    let chat = |name, connections, bytes, order, text: Text| Scenario {
        name,
        api: Api::Chat,
        connections,
        stream: false,
        information: order == ModelAt::Start || text == Text::Asian,
        latency: name == "chat_2k",
        bodies: vec![chat_body(&text.escaped(bytes), MODEL, order, false)],
    };
    let with_fallback = |name, connections, bytes| Scenario {
        name,
        api: Api::Chat,
        connections,
        stream: false,
        information: true,
        latency: false,
        bodies: vec![chat_body(&English.escaped(bytes), TASK, AfterMessages, false)],
    };
    let cached = |name, prompt: String, questions: u32| Scenario {
        name,
        api: Api::Chat,
        connections: 16,
        stream: false,
        information: false,
        latency: true,
        bodies: (0..questions)
            .map(|number| chat_body(&format!("{prompt} {number:04}"), CACHED, AfterMessages, false))
            .collect(),
    };
    let messages = |name, stream| Scenario {
        name,
        api: Api::Messages,
        connections: 16,
        stream,
        information: false,
        latency: false,
        bodies: vec![chat_body(&English.escaped(2_000), MODEL, AfterMessages, stream)],
    };
    use ModelAt::{AfterMessages, Start};
    use Text::{Asian, English};
    vec![
        chat("chat_2k", 16, 2_000, AfterMessages, English),
        chat("chat_100k", 8, 100_000, AfterMessages, English),
        chat("chat_1m", 4, 1_000_000, AfterMessages, English),
        Scenario {
            name: "stream_200",
            api: Api::Chat,
            connections: 16,
            stream: true,
            information: false,
            latency: true,
            bodies: vec![chat_body(&English.escaped(2_000), MODEL, AfterMessages, true)],
        },
        messages("messages_2k", false),
        messages("messages_stream_200", true),
        cached("cache_hit_2k", English.escaped(2_000), 1),
        cached("cache_hit_2k, 16k out", English.escaped(2_000) + LONG, 1),
        cached("cache_hit_2k, many", English.escaped(2_000), 1000),
        // So many that a worker remembers none of their keys when they are asked again.
        cached("cache_hit_2k, first", English.escaped(2_000), 10_000),
        with_fallback("chat_2k, fallback", 16, 2_000),
        with_fallback("chat_1m, fallback", 4, 1_000_000),
        chat("chat_2k, model first", 16, 2_000, Start, English),
        chat("chat_100k, model first", 8, 100_000, Start, English),
        chat("chat_1m, model first", 4, 1_000_000, Start, English),
        chat("chat_1m, Asian text", 4, 1_000_000, AfterMessages, Asian),
    ]
}

/// Returns the request of a burst: a stream from a task of two models.
pub fn burst_request() -> Vec<u8> {
    let prompt = Text::English.escaped(2_000) + BURST;
    request(Api::Chat, &chat_body(&prompt, TASK, ModelAt::AfterMessages, true), true)
}

/// Where the client puts `model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ModelAt {
    /// As OpenAI's Python client does.
    AfterMessages,
    /// As most hand-written callers do.
    Start,
}

fn chat_body(prompt: &str, model: &str, order: ModelAt, stream: bool) -> String {
    let system = r#"{"role":"system","content":"You are a careful assistant. Answer in plain words."}"#;
    let messages = format!(r#""messages":[{system},{{"role":"user","content":"{prompt}"}}]"#);
    let model = format!(r#""model":"{model}""#);
    let stream = if stream { r#","stream":true"# } else { "" };
    match order {
        ModelAt::AfterMessages => format!(r#"{{{messages},{model},"max_tokens":256{stream},"temperature":0.2}}"#),
        ModelAt::Start => format!(r#"{{{model},{messages},"max_tokens":256{stream},"temperature":0.2}}"#),
    }
}

/// Returns the complete request, with the headers of OpenAI's Python client, which are those of Anthropic's but for a
/// version.
fn request(api: Api, body: &str, stream: bool) -> Vec<u8> {
    let (path, version) = match api {
        Api::Chat => ("/v1/chat/completions", ""),
        Api::Messages => ("/v1/messages", "anthropic-version: 2023-06-01\r\n"),
    };
    let custom = if stream { "x-stainless-helper-method: stream\r\n" } else { "" };
    format!(
        "POST {path} HTTP/1.1\r\nhost: gateway.example\r\naccept-encoding: gzip, deflate\r\n\
         connection: keep-alive\r\naccept: application/json\r\ncontent-type: application/json\r\n\
         user-agent: OpenAI/Python 1.109.1\r\nx-stainless-lang: python\r\nx-stainless-package-version: 1.109.1\r\n\
         x-stainless-os: Linux\r\nx-stainless-arch: x64\r\nx-stainless-runtime: CPython\r\n\
         x-stainless-runtime-version: 3.12.3\r\nx-stainless-async: false\r\nx-stainless-retry-count: 0\r\n\
         x-stainless-read-timeout: 600\r\n{version}{custom}authorization: Bearer {CALLER_KEY}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Returns what the simulator answers: about 400 bytes or 16 KB at once, or a stream of chunks a millisecond apart, as
/// from a fast model.
pub fn rules() -> Value {
    let completion = json!({
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 1_700_000_000, "model": "bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "The points are set.", "refusal": null},
                     "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 500, "completion_tokens": 6, "total_tokens": 506,
                  "prompt_tokens_details": {"cached_tokens": 0}},
    });
    let mut long = completion.clone();
    if let Some(content) = long.pointer_mut("/choices/0/message/content") {
        *content = format!("The points are set. {}", "All trains run. ".repeat(1000)).into();
    }
    let message = json!({
        "id": "msg_bench", "type": "message", "role": "assistant", "model": "bench",
        "content": [{"type": "text", "text": "The points are set."}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 500, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                  "output_tokens": 6},
    });
    json!([
        {"when": {"path_suffix": "/messages", "stream": false}, "respond": {"json": message}},
        {"when": {"body_contains": LONG}, "respond": {"json": long}},
        {"when": {"body_contains": BURST}, "respond": {"chunks": BURST_CHUNKS, "chunk_ms": 5}},
        {"when": {"stream": true}, "respond": {"chunks": STREAM_CHUNKS, "chunk_ms": 1}},
        {"when": {"stream": false}, "respond": {"json": completion}},
    ])
}
