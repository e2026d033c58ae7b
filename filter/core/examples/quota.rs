//! Measures what limits cost a request, without host calls: `cargo run --release -p pointsman-core --example quota`.
//! With a name (`none`, `concurrent`, `all`) it only runs requests of one kind, to be counted by an instrument.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod quiet;

use pointsman_core::exchange::{BodyPart, Exchange, RequestStep, ResponseHead};
use pointsman_core::memory::{Context, WorkerMemory};
use pointsman_core::policy::Policy;
use pointsman_core::policy::calendar::{CalendarMemo, Zone};
use pointsman_core::policy::parse;
use pointsman_core::quota::local;
use pointsman_core::quota::rate::{Pace, Rate};
use pointsman_core::quota::reservation::{Ask, Charge};
use pointsman_core::quota::store::Store;
use pointsman_core::quota::users::UserTable;
use pointsman_core::quota::window::{Amount, Moment};
use pointsman_core::request::head::RequestHead;
use pointsman_core::routing::plan::Load;
use pointsman_core::store::shared_data::{NEW, SharedData};
use pointsman_core::tokens::Correction;
use quiet::Quiet;
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::Instant;

/// A store with one record.
#[derive(Default)]
struct One(Vec<u8>, u64);

impl Store for One {
    fn update(&mut self, _: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        // The host returns a copy.
        let record = self.0.clone();
        change(&record).map(|new| self.0 = new).is_some()
    }
    fn read(&mut self, _: &str) -> Vec<u8> {
        self.0.clone()
    }
    fn users(&mut self) -> std::rc::Rc<UserTable> {
        std::rc::Rc::default()
    }
    fn now_ms(&mut self) -> u64 {
        self.1 += 1;
        NOW + self.1
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

impl SharedData for One {
    fn get(&mut self, _: &str) -> (Vec<u8>, u32) {
        (Vec::new(), NEW)
    }
    fn set(&mut self, _: &str, _: &[u8], _: u32) -> bool {
        false
    }
}

impl Load for One {
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

const NOW: u64 = 1_769_731_200_000;
const ROUNDS: u64 = 20_000;

fn policy(limits: &[(&str, Value)]) -> Policy {
    let mut document = json!({
        "identity": {"source": "header", "tenant": "x-jwt-tenant"},
        "providers": {"p": {"dialect": "openai", "data": "internal"}},
        "models": {"m": {"provider": "p", "model": "m", "level": "local", "context": 32768, "max_output_tokens": 100,
            "price": {"input": 1, "output": 1}}},
        "tiers": {"t": {"models": ["m"]}},
        "tenants": {"a": {"tier": "t"}},
    });
    for (name, limit) in limits {
        document["tiers"]["t"]["limits"][name] = limit.clone();
    }
    parse::from_value(&document).expect("is valid").1
}

fn request(context: &mut Context, store: &mut One, body: &[u8], answer: &[u8]) {
    let mut exchange = Exchange::new(NOW);
    let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("x-jwt-tenant", "a")];
    let head = RequestHead::read(context.policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    black_box(exchange.on_request_headers(context, &head, store));
    let next = exchange.on_request(context, body, store);
    assert!(matches!(next, RequestStep::Send(_)), "{next:?}");
    let head = ResponseHead { status: 200, content_type: b"application/json", ..ResponseHead::default() };
    black_box(exchange.on_response_headers(context, &head, &Quiet));
    let read = |_| answer.to_vec();
    let part = BodyPart { size: answer.len(), end_of_stream: true, read: &read, now_ms: &|| NOW };
    black_box(exchange.on_response_body(context, &part, store));
    black_box(exchange.finish(context, store, &Quiet));
}

/// Returns the microseconds per call: the best of five runs.
fn each(mut act: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| act());
        best = best.min(start.elapsed().as_nanos() as f64 / ROUNDS as f64 / 1000.0);
    }
    best
}

fn main() {
    let concurrent = ("concurrent", json!(1000));
    let all = [
        ("requests_per_minute", json!(1_000_000_000)),
        ("tokens_per_minute", json!(10_000_000_000_u64)),
        ("tokens_per_day", json!(100_000_000_000_u64)),
        ("budget_usd_per_day", json!(1_000_000_000)),
        ("budget_usd_per_month", json!(1_000_000_000)),
        concurrent.clone(),
    ];
    let kinds = [("none", policy(&[])), ("concurrent", policy(&[concurrent])), ("all", policy(&all))];
    let prompt = "The quick brown fox said \\\"no\\\" to the lazy dog.\\nIt was late, and everybody was tired of it. "
        .repeat(22);
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{prompt}"}}],"model":"m","max_tokens":256}}"#);
    let answer = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Good day."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 500, "completion_tokens": 6, "total_tokens": 506}})
    .to_string();
    let wanted = std::env::args().nth(1);
    for (name, policy) in &kinds {
        let mut store = One::default();
        let mut memory = WorkerMemory::new(policy);
        let mut context = memory.under(policy);
        let mut act = || request(&mut context, &mut store, black_box(body.as_bytes()), answer.as_bytes());
        match &wanted {
            Some(wanted) if wanted == name => (0..1000).for_each(|_| act()),
            Some(_) => {}
            None => println!("{:6.2} µs  a request of {} bytes, limits: {name}", each(act), body.len()),
        }
    }
    if wanted.is_some() {
        return;
    }
    let policy = policy(&all);
    let limits = policy.quota_of(policy.find_tenant("a").expect("is there")).expect("has limits");
    let (zone, mut memo, mut store) = (Zone::fixed(3600), CalendarMemo::default(), One::default());
    let models = [(policy.find_model("m").expect("is there"), Amount::new(500, 500))];
    let ask = Ask {
        tenant: "a",
        user: &[0; 32],
        models: &models,
        lease_ms: Some(660_000),
        adds_up: false,
        stop_at_degrade_threshold: true,
        is_rough: false,
    };
    let charge = [Charge { model: models[0].0, used: Amount::new(300, 300) }];
    let took = each(|| {
        let moment = Moment::remembered(&zone, store.now_ms(), &mut memo);
        let grant = local::reserve(&mut store, limits, &ask, &moment).expect("has room");
        let moment = Moment::remembered(&zone, store.now_ms(), &mut memo);
        black_box(local::settle(&mut store, limits, &grant.reservation, &charge, &moment));
    });
    println!("{took:6.2} µs  reserve and settle over six windows, a record of {} bytes", store.0.len());
}
