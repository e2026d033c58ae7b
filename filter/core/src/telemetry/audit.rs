//! The audit record: one JSON object per request, without prompt, answer, key or raw user id.

use crate::policy::price::MicroUsd;
use crate::usage::Usage;
use crate::wire::json::quote_into;
use std::io::Write as _;

/// The text before a member's value: a comma, its name and a colon.
macro_rules! member {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// The contents of the record. Numbers are written as JSON numbers, unknown values as `null`.
#[derive(Debug, Default)]
#[allow(missing_docs)] // The names are the record's own, and documented in docs/src/reference/audit.md.
pub struct Record<'a> {
    pub started_ms: u64,
    pub trace_id: &'a str,
    pub tenant_id: Option<&'a str>,
    pub user_id_hash: Option<&'a str>,
    pub tier: Option<&'a str>,
    pub endpoint: &'a str,
    pub task: Option<&'a str>,
    pub prompt_id: Option<&'a str>,
    pub prompt_version: Option<&'a str>,
    pub schema_version: Option<&'a str>,
    pub data_class: Option<&'a str>,
    pub provider: Option<&'a str>,
    pub model: Option<&'a str>,
    pub plan: Vec<&'a str>,
    pub route_reason: Option<&'a str>,
    pub left_out: &'a [(&'a str, &'a str)],
    pub stream: bool,
    /// How the whole answer of a task with `stream_upstream` was asked for.
    pub assembly: Option<&'a str>,
    pub status: Option<u16>,
    pub usage: Option<Usage>,
    pub usage_estimated: bool,
    pub service_tier: Option<&'a str>,
    pub price_estimated: bool,
    pub cost: Option<MicroUsd>,
    /// The output limit of one choice, where a quota lowered it.
    pub output_limit: Option<u64>,
    /// The other attempts that were abandoned: model, usage and cost of each. And what they cost together.
    pub abandoned: &'a [(&'a str, Usage, Option<MicroUsd>)],
    pub abandoned_cost: Option<MicroUsd>,
    pub latency_ms: u64,
    pub time_to_first_token_ms: Option<u64>,
    /// The cache's part in the request, and the reason.
    pub cache: (Option<&'a str>, Option<&'a str>),
    /// The usage and cost saved by an answer from the cache.
    pub saved: Option<(Usage, MicroUsd)>,
    pub retry_count: u32,
    pub failed: &'a [(&'a str, &'a str)],
    pub fallback_used: bool,
    pub fallback_from: Option<&'a str>,
    pub tool_names: &'a [String],
    pub policy_decision: &'a str,
    pub quota_window: Option<&'a str>,
    pub error_code: Option<&'a str>,
}

impl Record<'_> {
    /// Returns the record as a line of JSON, newline included. The access log's format is only this line, so a request
    /// that never reached the module does not leave a partial line.
    pub fn line(&self) -> Vec<u8> {
        // List every field, so that a new one does not compile until it is written.
        let Self {
            started_ms,
            trace_id,
            tenant_id,
            user_id_hash,
            tier,
            endpoint,
            task,
            prompt_id,
            prompt_version,
            schema_version,
            data_class,
            provider,
            model,
            plan,
            route_reason,
            left_out,
            stream,
            assembly,
            status,
            usage,
            usage_estimated,
            service_tier,
            price_estimated,
            cost,
            output_limit,
            abandoned,
            abandoned_cost,
            latency_ms,
            time_to_first_token_ms,
            cache,
            saved,
            retry_count,
            failed,
            fallback_used,
            fallback_from,
            tool_names,
            policy_decision,
            quota_window,
            error_code,
        } = self;
        let mut out = Members(Vec::with_capacity(1024));
        let started = std::time::UNIX_EPOCH + std::time::Duration::from_millis((*started_ms).min(MAX_MS));
        out.raw("{\"start_time\":\"");
        // Writing to memory cannot fail.
        let _ = write!(out.0, "{}", humantime::format_rfc3339_millis(started));
        out.raw("\"");
        out.text(member!("trace_id"), Some(trace_id));
        out.text(member!("tenant_id"), *tenant_id);
        out.text(member!("user_id_hash"), *user_id_hash);
        out.text(member!("tier"), *tier);
        out.text(member!("endpoint"), Some(endpoint));
        out.text(member!("task"), *task);
        out.text(member!("prompt_id"), *prompt_id);
        out.text(member!("prompt_version"), *prompt_version);
        out.text(member!("schema_version"), *schema_version);
        out.text(member!("data_class"), *data_class);
        out.text(member!("provider"), *provider);
        out.text(member!("model"), *model);
        out.list(member!("plan"), plan.iter().copied());
        out.text(member!("route_reason"), *route_reason);
        out.reasons(member!("left_out"), left_out);
        out.flag(member!("stream"), *stream);
        // Written only for tasks that assemble answers, to keep other records short.
        if assembly.is_some() {
            out.text(member!("assembly"), *assembly);
        }
        out.number(member!("status"), status.map(u64::from));
        out.number(member!("input_tokens"), usage.map(|u| u.input));
        out.number(member!("cached_input_tokens"), usage.map(|u| u.cached_input));
        out.number(member!("cache_write_tokens"), usage.map(|u| u.cache_write));
        out.number(member!("output_tokens"), usage.map(|u| u.output));
        out.flag(member!("usage_estimated"), *usage_estimated);
        out.text(member!("service_tier"), *service_tier);
        out.flag(member!("price_estimated"), *price_estimated);
        out.cost(member!("estimated_cost_usd"), *cost);
        // Written only where there are any, to keep other records short.
        if output_limit.is_some() {
            out.number(member!("output_limit"), *output_limit);
        }
        if !abandoned.is_empty() {
            out.abandoned(member!("abandoned_attempts"), abandoned);
            out.cost(member!("abandoned_cost_usd"), *abandoned_cost);
        }
        out.number(member!("latency_ms"), Some(*latency_ms));
        out.number(member!("time_to_first_token_ms"), *time_to_first_token_ms);
        out.flag(member!("cache_hit"), saved.is_some());
        // Written only for tasks with a cache, to keep other records short.
        if let (Some(cache), reason) = cache {
            out.text(member!("cache"), Some(cache));
            out.text(member!("cache_reason"), *reason);
        }
        if let Some((usage, cost)) = saved {
            out.number(member!("saved_input_tokens"), Some(usage.input));
            out.number(member!("saved_output_tokens"), Some(usage.output));
            out.cost(member!("saved_usd"), Some(*cost));
        }
        out.number(member!("retry_count"), Some(u64::from(*retry_count)));
        out.reasons(member!("failed_attempts"), failed);
        out.flag(member!("fallback_used"), *fallback_used);
        out.text(member!("fallback_from"), *fallback_from);
        out.text(member!("fallback_to"), fallback_from.and(*model));
        out.list(member!("tool_names"), tool_names.iter().map(String::as_str));
        out.text(member!("policy_decision"), Some(policy_decision));
        out.text(member!("quota_window"), *quota_window);
        out.text(member!("error_code"), *error_code);
        out.0.extend_from_slice(b"}\n");
        out.0
    }
}

/// The last millisecond that RFC 3339 can write: the end of the year 9999.
const MAX_MS: u64 = 253_402_300_799_999;

/// A JSON object under construction. Each member's name comes with the text around it.
struct Members(Vec<u8>);

impl Members {
    /// Inlined into its callers, so that the compiler knows each name's length: in Wasm, a copy of unknown length is
    /// slow to start.
    #[inline(always)]
    fn raw(&mut self, text: &'static str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    #[inline(always)]
    fn flag(&mut self, name: &'static str, value: bool) {
        self.raw(name);
        match value {
            true => self.raw("true"),
            false => self.raw("false"),
        }
    }

    #[inline(always)]
    fn text(&mut self, name: &'static str, value: Option<&str>) {
        self.raw(name);
        match value {
            Some(text) => quote_into(&mut self.0, text),
            None => self.raw("null"),
        }
    }

    #[inline(always)]
    fn number(&mut self, name: &'static str, value: Option<u64>) {
        self.raw(name);
        match value {
            Some(number) => self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            None => self.raw("null"),
        }
    }

    fn cost(&mut self, name: &'static str, cost: Option<MicroUsd>) {
        self.raw(name);
        match cost {
            Some(cost) => self.0.extend_from_slice(cost.to_decimal().as_bytes()),
            None => self.raw("null"),
        }
    }

    /// Writes models with a reason each: `[{"model":…,"reason":…}]`.
    fn reasons(&mut self, name: &'static str, models: &[(&str, &str)]) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'[');
        for (i, (model, reason)) in models.iter().enumerate() {
            self.0.extend_from_slice(if i > 0 { b",{\"model\":" } else { b"{\"model\":" });
            quote_into(&mut self.0, model);
            self.0.extend_from_slice(b",\"reason\":");
            quote_into(&mut self.0, reason);
            self.0.push(b'}');
        }
        self.0.push(b']');
    }

    /// Writes attempts: `[{"model":…,"input_tokens":…,"output_tokens":…,"cost_usd":…}]`.
    fn abandoned(&mut self, name: &'static str, attempts: &[(&str, Usage, Option<MicroUsd>)]) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'[');
        for (i, (model, usage, cost)) in attempts.iter().enumerate() {
            self.0.extend_from_slice(if i > 0 { b",{\"model\":" } else { b"{\"model\":" });
            quote_into(&mut self.0, model);
            self.number(member!("input_tokens"), Some(usage.input));
            self.number(member!("output_tokens"), Some(usage.output));
            self.cost(member!("cost_usd"), *cost);
            self.0.push(b'}');
        }
        self.0.push(b']');
    }

    fn list<'a>(&mut self, name: &'static str, values: impl Iterator<Item = &'a str>) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'[');
        for (i, value) in values.enumerate() {
            if i > 0 {
                self.0.push(b',');
            }
            quote_into(&mut self.0, value);
        }
        self.0.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page has one row for every field, in the record's order, and no other rows.
    #[test]
    fn every_field_is_documented() {
        let page = include_str!("../../../../docs/src/reference/audit.md");
        let (page, _) = page.split_once("## Other lines").unwrap();
        let documented: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
            .flat_map(|names| names.split(", ").map(|name| name.trim_matches('`')))
            .collect();
        let saved = Some((Usage::default(), MicroUsd(0)));
        let abandoned = [("m", Usage::default(), None)];
        let record = Record {
            cache: (Some("hit"), None),
            saved,
            output_limit: Some(1),
            assembly: Some("assembled"),
            abandoned: &abandoned,
            ..Record::default()
        };
        let fields = |record: &Record| {
            let text = String::from_utf8(record.line()).unwrap();
            let members =
                text.trim().trim_matches(|c| c == '{' || c == '}').split("\",\"").flat_map(|m| m.split(",\""));
            members.map(|m| m.trim_start_matches('"').split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (all, plain) = (fields(&record), fields(&Record::default()));
        // The price of a single attempt is no field of the record.
        let cached: Vec<_> = all.iter().filter(|name| !plain.contains(name) && *name != "cost_usd").collect();
        let expected: Vec<_> = plain.iter().chain(cached).collect();
        assert_eq!(documented, expected);

        let sample = include_str!("../../../../README.md").split_once("{\"start_time\"").unwrap().1;
        let sample = format!("{{\"start_time\"{}", sample.split_once("```").unwrap().0);
        let sample: serde_json::Value = serde_json::from_str(&sample).expect("the README's sample is a record");
        let mut shown: Vec<_> = sample.as_object().unwrap().keys().collect();
        let mut written: Vec<_> = plain.iter().collect();
        shown.sort();
        written.sort();
        assert_eq!(shown, written);
    }

    #[test]
    fn the_record_is_json_with_numbers_as_numbers() {
        let tools = ["look \"up\"\n".to_owned()];
        let record = Record {
            trace_id: "t",
            started_ms: u64::MAX,
            tenant_id: Some("acme"),
            endpoint: "chat",
            plan: vec!["a", "b"],
            usage: Some(Usage { input: 10, cached_input: 2, cache_write: 1, output: 3, ..Usage::default() }),
            cost: Some(MicroUsd(2200)),
            latency_ms: 12,
            failed: &[("a", "status_503")],
            tool_names: &tools,
            policy_decision: "allow",
            ..Record::default()
        };
        let text = String::from_utf8(record.line()).unwrap();
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["input_tokens"], 10);
        assert_eq!(value["start_time"], "9999-12-31T23:59:59.999Z");
        assert_eq!(value["failed_attempts"][0]["reason"], "status_503");
        assert_eq!(value["estimated_cost_usd"], 0.0022);
        assert_eq!(value["tool_names"][0], "look \"up\"\n");
        assert!(value["model"].is_null() && value["prompt_id"].is_null());
    }
}
