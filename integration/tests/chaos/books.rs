//! What must add up once everything is quiet: the audit log, the counters, the metrics and Envoy's own statistics.

use crate::callers::TENANTS;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::Gateway;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A tenant's own windows by name.
fn windows(gateway: &Gateway, tenant: &str) -> Option<BTreeMap<String, Value>> {
    let answer = gateway.send(Call::new("GET", "/v1/usage").key(&format!("sk-{tenant}")));
    let all = answer.json()["windows"].as_array()?.clone();
    let of_tenant = all.into_iter().filter(|window| window["scope"] == "tenant");
    Some(of_tenant.map(|window| (window["window"].as_str().unwrap_or_default().to_owned(), window)).collect())
}

fn micro(value: &Value) -> u64 {
    (value.as_f64().unwrap_or(0.0) * 1e6).round() as u64
}

/// What the audit log says of one tenant.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Input and output tokens.
    pub tokens: u64,
    /// Millionths of a dollar.
    pub cost: u64,
}

impl Used {
    fn add(&mut self, tokens: u64, cost: u64) {
        self.tokens += tokens;
        self.cost += cost;
    }
}

fn tokens(of: &Value) -> u64 {
    ["input_tokens", "output_tokens"].iter().filter_map(|name| of[name].as_u64()).sum()
}

/// Waits until nothing is under way, and checks the books of a gateway. Returns what each tenant used, and the number
/// of audit records.
pub fn balance(gateway: &Gateway, store: &str) -> (BTreeMap<String, Used>, usize) {
    await_true("the last request to end", || gateway.under_way() == 0);
    let is_quiet = |tenant: &str| {
        let all = windows(gateway, tenant)?;
        Some(all.values().all(|window| window["reserved"].as_f64() == Some(0.0)) && all["concurrent"]["used"] == 0)
    };
    for tenant in TENANTS {
        await_true(&format!("{store}: {tenant}'s reservations to be settled"), || is_quiet(tenant) == Some(true));
    }
    every_request_has_one_record(gateway, store);
    let lines = gateway.access_log().lines();
    let records: Vec<&Value> = lines.iter().filter(|line| line.get("attempt_provider").is_none()).collect();
    // The attempts that were abandoned before another one are charged on top of what was reserved.
    let (mut used, mut on_top): (BTreeMap<String, Used>, BTreeMap<String, Used>) = Default::default();
    for record in &records {
        let Some(tenant) = record["tenant_id"].as_str() else { continue };
        let abandoned: u64 = record["abandoned_attempts"].as_array().into_iter().flatten().map(tokens).sum();
        let abandoned_cost = micro(&record["abandoned_cost_usd"]);
        let sum = used.entry(tenant.to_owned()).or_default();
        sum.add(tokens(record) + abandoned, micro(&record["estimated_cost_usd"]) + abandoned_cost);
        on_top.entry(tenant.to_owned()).or_default().add(abandoned, abandoned_cost);
    }
    for tenant in TENANTS {
        let audited = used.get(tenant).copied().unwrap_or_default();
        let all = windows(gateway, tenant).unwrap_or_else(|| panic!("{store}: no usage of {tenant}"));
        let (day, budget) = (&all["tokens_per_day"], &all["budget_usd_per_day"]);
        let counted = Used { tokens: day["used"].as_u64().unwrap_or_default(), cost: micro(&budget["used"]) };
        assert_eq!(counted, audited, "{store}: {tenant}: the counters and the audit log differ");
        let on_top = on_top.get(tenant).copied().unwrap_or_default();
        let limit = Used { tokens: day["limit"].as_u64().unwrap_or_default(), cost: micro(&budget["limit"]) };
        let is_kept = counted.tokens <= limit.tokens + on_top.tokens && counted.cost <= limit.cost + on_top.cost;
        assert!(is_kept, "{store}: {tenant}: {counted:?} and {on_top:?} pass {limit:?}");
        assert_eq!(metrics(gateway, tenant), audited, "{store}: {tenant}: the metrics and the audit log differ");
    }
    (used, records.len())
}

fn every_request_has_one_record(gateway: &Gateway, store: &str) {
    let records = || {
        let lines = gateway.access_log().lines();
        let ids = lines.iter().filter(|line| line.get("attempt_provider").is_none());
        ids.map(|line| line["trace_id"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    await_true(&format!("{store}: one record for each request"), || {
        let (before, records) = (gateway.stat("http.gateway.downstream_rq_total"), records().len() as u64);
        assert!(records <= before.max(gateway.stat("http.gateway.downstream_rq_total")), "{store}: {records} records");
        records == before
    });
    let ids = records();
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "{store}: a trace id appears twice");
}

fn metrics(gateway: &Gateway, tenant: &str) -> Used {
    let label = format!("tenant_id=\"{tenant}\"");
    let sum = |name: &str| -> u64 {
        let lines = gateway.metrics();
        let of = lines.iter().filter(|line| line.starts_with(name) && line.contains(&label));
        of.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).map(|value| value as u64).sum()
    };
    Used {
        tokens: sum("llm_input_tokens_total{") + sum("llm_output_tokens_total{"),
        cost: sum("llm_estimated_cost_microusd_total{"),
    }
}

/// Checks that the model with six places has all of them again, and no more.
pub fn places_are_free(gateway: &Gateway, store: &str) {
    let fault = json!({"fault": {"hang_mid_stream": {"after_chunks": 1}}, "chunks": 2});
    let request = json!({"model": "chat", "stream": true, "max_tokens": 8, "messages": [
        {"role": "user", "content": format!("[[sim:{fault}]]")}]});
    let open = |tenant: &str| Call::chat_json(&request).key(&format!("sk-{tenant}")).open(gateway.address);
    let held = ["wide0", "wide0", "wide1", "wide1", "wide2", "wide2"].map(open);
    for stream in &held {
        assert_eq!(stream.header("x-pointsman-model"), Some("small"), "{store}: a place was lost");
    }
    assert_ne!(open("wide0").header("x-pointsman-model"), Some("small"), "{store}: a seventh place");
}

/// Checks that the module never trapped.
pub fn nothing_trapped(gateway: &Gateway, store: &str) {
    assert!(gateway.process.is_running(), "{store}: it ended");
    let lines = gateway.process.lines();
    let trap = lines.iter().find(|line| line.contains("panicked") || line.contains("Uncaught"));
    assert_eq!(trap, None, "{store}");
    let stats = gateway.stats();
    let failed = stats.iter().find(|(name, value)| name.contains("vm_failed") && **value > 0);
    assert_eq!(failed, None, "{store}");
}

/// Returns the resident memory of a gateway's Envoy in MiB.
pub fn memory_mib(gateway: &Gateway) -> u64 {
    let resident = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    gateway.process.children().into_iter().filter_map(resident).max().unwrap_or_default() / 1024
}
