//! Measures a cache hit without host calls, part by part. Run it natively with `cargo run --release -p pointsman-core
//! --example hit`, or build it for wasm32-wasip1 and run it in V8 (Node's `node:wasi`).

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod quiet;

use pointsman_core::cache::entry::Entry;
use pointsman_core::cache::key::Key;
use pointsman_core::cache::normal_form::{self, Reading};
use pointsman_core::dialect::client::ClientDialect;
use pointsman_core::exchange::{BodyPart, Exchange, RequestStep, ResponseHead};
use pointsman_core::memory::{Context, WorkerMemory};
use pointsman_core::policy::parse;
use pointsman_core::quota::rate::{Pace, Rate};
use pointsman_core::quota::store::Store;
use pointsman_core::quota::users::UserTable;
use pointsman_core::request::head::RequestHead;
use pointsman_core::routing::plan::Load;
use pointsman_core::store::shared_data::{NEW, SharedData};
use pointsman_core::tokens::Correction;
use quiet::Quiet;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

#[derive(Default)]
struct Memory(HashMap<String, (Vec<u8>, u32)>);

impl SharedData for Memory {
    fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
        self.0.get(name).cloned().unwrap_or((Vec::new(), NEW))
    }
    fn set(&mut self, name: &str, record: &[u8], _: u32) -> bool {
        self.0.insert(name.to_owned(), (record.to_vec(), 2));
        true
    }
}

impl Load for Memory {
    fn acquire(
        &mut self,
        _: &str,
        _: pointsman_core::routing::in_flight::Places,
    ) -> Result<(), pointsman_core::routing::in_flight::Full> {
        Ok(())
    }
    fn check(
        &mut self,
        _: &str,
        _: pointsman_core::routing::in_flight::Places,
    ) -> Result<(), pointsman_core::routing::in_flight::Full> {
        Ok(())
    }
}

impl Store for Memory {
    fn update(&mut self, _: &str, _: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        false
    }
    fn read(&mut self, _: &str) -> Vec<u8> {
        Vec::new()
    }
    fn users(&mut self) -> std::rc::Rc<UserTable> {
        std::rc::Rc::default()
    }
    fn now_ms(&mut self) -> u64 {
        NOW
    }
    fn correction(&mut self, _: &str) -> Correction {
        Correction::default()
    }
    fn learn(&mut self, _: &str, _: u64, _: u64) {}
    fn rate(&mut self, _: &str) -> Rate {
        Rate::default()
    }
    fn learn_rate(&mut self, _: &str, _: &Pace) {}
    fn unique(&mut self) -> u128 {
        0
    }
}

const NOW: u64 = 1_769_731_200_000;
const ROUNDS: u32 = 20_000;

const HEADERS: [(&str, &str); 16] = [
    (":method", "POST"),
    (":path", "/v1/chat/completions"),
    (":authority", "gateway.example"),
    (":scheme", "http"),
    ("x-jwt-tenant", "a"),
    ("accept-encoding", "gzip, deflate"),
    ("content-type", "application/json"),
    ("user-agent", "OpenAI/Python 1.109.1"),
    ("x-stainless-lang", "python"),
    ("x-stainless-package-version", "1.109.1"),
    ("x-stainless-os", "Linux"),
    ("x-stainless-arch", "x64"),
    ("x-stainless-runtime", "CPython"),
    ("x-forwarded-proto", "http"),
    ("x-request-id", "b7a5c1de-0f6c-4f3a-9b58-4f6f0d4f8b11"),
    ("content-length", "2300"),
];

fn ask(context: &mut Context, memory: &mut Memory, body: &[u8]) -> (Exchange, RequestStep) {
    let mut exchange = Exchange::new(NOW);
    let head = RequestHead::read(context.policy, HEADERS.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    black_box(exchange.on_request_headers(context, &head, memory));
    let next = exchange.on_request(context, body, memory);
    (exchange, next)
}

fn time(what: &str, mut act: impl FnMut()) {
    (0..ROUNDS / 10).for_each(|_| act());
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| act());
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(ROUNDS) / 1000.0);
    }
    println!("{best:6.2} µs  {what}");
}

fn main() {
    let document = json!({
        "identity": {"source": "header", "tenant": "x-jwt-tenant"},
        "providers": {"p": {"dialect": "openai", "data": "internal"}},
        "models": {"m": {"provider": "p", "model": "m-1", "level": "local", "context": 32768, "max_output_tokens": 2048,
            "price": {"input": 1, "output": 1}}},
        "tasks": {"cached": {"primary": "m", "cache": {"ttl": "1h", "requests": "any"}}},
        "tiers": {"t": {"models": ["m"]}},
        "tenants": {"a": {"tier": "t"}},
    });
    let policy = parse::from_value(&document).expect("is valid").1;
    let prompt = "The quick brown fox said \\\"no\\\" to the lazy dog.\\nIt was late, and everybody was tired of it. "
        .repeat(22);
    let body = format!(
        r#"{{"messages":[{{"role":"system","content":"You are a careful assistant."}},{{"role":"user","content":"{prompt}"}}],"model":"cached","max_tokens":256,"temperature":0.2}}"#
    );
    let body = body.as_bytes();
    for text in [400, 16_000] {
        let (mut memory, mut remembered) = (Memory::default(), WorkerMemory::new(&policy));
        let mut context = remembered.under(&policy);
        let (mut first, next) = ask(&mut context, &mut memory, body);
        assert!(matches!(next, RequestStep::Send(_)), "{next:?}");
        let answer = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m-1",
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "x".repeat(text)}}],
            "usage": {"prompt_tokens": 500, "completion_tokens": 100, "total_tokens": 600}});
        let head = ResponseHead { status: 200, content_type: b"application/json", ..ResponseHead::default() };
        first.on_response_headers(&mut context, &head, &Quiet);
        let answer = answer.to_string();
        let read = |_| answer.as_bytes().to_vec();
        let part = BodyPart { size: answer.len(), end_of_stream: true, read: &read, now_ms: &|| NOW };
        first.on_response_body(&mut context, &part, &mut memory);
        let (_, next) = ask(&mut context, &mut memory, body);
        let RequestStep::Reply(reply) = &next else { panic!("{next:?}") };
        assert_eq!(reply.status, 200);
        println!("a prompt of {} bytes, an answer of {}:", body.len(), reply.body.len());
        time("all but audit and metrics", || drop(black_box(ask(&mut context, &mut memory, black_box(body)))));
        time("all of it", || {
            let (hit, _) = ask(&mut context, &mut memory, black_box(body));
            black_box(hit.finish(&mut context, &mut memory, &Quiet));
        });
        time("read headers", || {
            black_box(RequestHead::read(&policy, HEADERS.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()))));
        });
        time("scan the request", || drop(black_box(ClientDialect::OpenAi.parse(black_box(body), 64))));
        let delivery = ClientDialect::OpenAi.delivery_members();
        let reading = Reading { max_depth: 64, nfc: false, delivery };
        let form = normal_form::request(body, reading).expect("has a form");
        time("its canonical form", || drop(black_box(normal_form::request(black_box(body), reading))));
        time("SHA-256 of that", || {
            black_box(Sha256::digest(black_box(&form)));
        });
        let entry = memory.0.values().map(|(record, _)| record).max_by_key(|r| r.len()).expect("is kept").clone();
        let key = Entry::peek(&entry).map_or(Key([0; 32]), |entry| entry.key);
        time("read the entry", || drop(black_box(Entry::decode(black_box(&entry), &key, "a"))));
        let read = Entry::decode(&entry, &key, "a").expect("is good");
        time("write the answer", || drop(black_box(read.answer.whole("chatcmpl-x", NOW))));
        time("the same streamed", || drop(black_box(read.answer.stream(&read.usage, "chatcmpl-x", NOW, true))));
    }
}
