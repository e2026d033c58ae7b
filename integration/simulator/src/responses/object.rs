//! Writes the `response` object: in progress, finished, or failed.

use serde_json::Value;

use super::item::items;
use crate::answer::{Answer, Ask, Ending, Stamp, Usage};
use crate::write::{array, quoted};

const SERVER_ERROR: &str =
    r#"{"code":"server_error","message":"The server had an error while processing your request. Sorry about that!"}"#;

/// A state of a response, by its members that differ from state to state.
struct State {
    status: &'static str,
    error: String,
    incomplete: String,
    output: String,
    service_tier: String,
    usage: Option<String>,
}

/// Returns the object of a response that has only begun.
pub fn begun(stamp: Stamp, ask: &Ask) -> String {
    object(stamp, ask, &bare("in_progress", "null".to_owned()))
}

/// Returns the object of a response that failed, with this error or the provider's own.
pub fn failed(stamp: Stamp, ask: &Ask, error: Option<&Value>) -> String {
    object(stamp, ask, &bare("failed", error.map_or_else(|| SERVER_ERROR.to_owned(), Value::to_string)))
}

fn bare(status: &'static str, error: String) -> State {
    State {
        status,
        error,
        incomplete: "null".to_owned(),
        output: "[]".to_owned(),
        service_tier: "auto".to_owned(),
        usage: Some("null".to_owned()),
    }
}

/// Returns the object of a response that has ended, and its status.
pub fn finished(stamp: Stamp, ask: &Ask, answer: &Answer) -> (String, &'static str) {
    let (status, reason) = match &answer.ending {
        Ending::Natural => ("completed", None),
        Ending::Limit => ("incomplete", Some("max_output_tokens")),
        Ending::Given(reason) => match reason.as_str() {
            "completed" | "stop" | "tool_calls" => ("completed", None),
            "failed" => ("failed", None),
            "length" => ("incomplete", Some("max_output_tokens")),
            reason => ("incomplete", Some(reason)),
        },
    };
    let output = items(answer).iter().enumerate().map(|(index, item)| item.whole(stamp, index)).collect::<Vec<_>>();
    let state = State {
        status,
        error: if status == "failed" { SERVER_ERROR.to_owned() } else { "null".to_owned() },
        incomplete: reason.map_or_else(|| "null".to_owned(), |reason| format!(r#"{{"reason":{}}}"#, quoted(reason))),
        output: array(output),
        service_tier: answer.service_tier.clone(),
        usage: usage(&answer.usage),
    };
    (object(stamp, ask, &state), status)
}

fn usage(usage: &Usage) -> Option<String> {
    match usage {
        Usage::Tokens { input, output, cached, cache_write, reasoning } => Some(format!(
            r#"{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":{cached},"cache_write_tokens":{cache_write}}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":{reasoning}}},"total_tokens":{}}}"#,
            input + output
        )),
        Usage::Given(value) => Some(value.to_string()),
        Usage::Omit => None,
    }
}

/// Writes the object. It repeats what the request set.
fn object(stamp: Stamp, ask: &Ask, state: &State) -> String {
    let State { status, error, incomplete, output, service_tier, usage } = state;
    let echo = |path: &str, default: &str| match ask.asked.pointer(path) {
        None | Some(Value::Null) => default.to_owned(),
        Some(value) => value.to_string(),
    };
    let tier = if service_tier.is_empty() { "null".to_owned() } else { quoted(service_tier) };
    let usage = usage.as_ref().map_or_else(String::new, |usage| format!(r#""usage":{usage},"#));
    [
        format!(r#"{{"id":{},"object":"response","created_at":{},"#, quoted(&id(stamp)), stamp.created),
        format!(r#""status":"{status}","background":false,"error":{error},"incomplete_details":{incomplete},"#),
        format!(r#""instructions":{},"#, echo("/instructions", "null")),
        format!(r#""max_output_tokens":{},"max_tool_calls":null,"#, echo("/max_output_tokens", "null")),
        format!(r#""model":{},"output":{output},"#, quoted(&ask.model)),
        format!(r#""parallel_tool_calls":{},"#, echo("/parallel_tool_calls", "true")),
        format!(r#""previous_response_id":{},"#, echo("/previous_response_id", "null")),
        format!(r#""prompt_cache_key":{},"#, echo("/prompt_cache_key", "null")),
        format!(r#""reasoning":{{"effort":{},"#, echo("/reasoning/effort", "null")),
        format!(r#""summary":{}}},"#, echo("/reasoning/summary", "null")),
        format!(r#""safety_identifier":{},"service_tier":{tier},"#, echo("/safety_identifier", "null")),
        format!(r#""store":{},"temperature":{},"#, echo("/store", "true"), echo("/temperature", "1.0")),
        format!(r#""text":{{"format":{},"#, echo("/text/format", r#"{"type":"text"}"#)),
        format!(r#""verbosity":{}}},"#, echo("/text/verbosity", r#""medium""#)),
        format!(r#""tool_choice":{},"tools":{},"#, echo("/tool_choice", r#""auto""#), echo("/tools", "[]")),
        format!(r#""top_logprobs":{},"top_p":{},"#, echo("/top_logprobs", "0"), echo("/top_p", "1.0")),
        format!(r#""truncation":{},{usage}"#, echo("/truncation", r#""disabled""#)),
        format!(r#""user":{},"metadata":{}}}"#, echo("/user", "null"), echo("/metadata", "{}")),
    ]
    .concat()
}

/// Returns the id of a response.
pub fn id(stamp: Stamp) -> String {
    stamp.id("resp_sim")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::answer::Said;
    use crate::chunked::Chunked;

    fn made(ending: Ending) -> Value {
        let asked = json!({"instructions": "Be brief.", "store": false, "text": {"verbosity": "low"},
            "tools": [{"type": "function", "name": "f"}], "reasoning": {"effort": "low"}});
        let ask = Ask { model: "m".to_owned(), asked, ..Ask::default() };
        let answer = Answer {
            reasoning: None,
            lead: None,
            said: Said::Text(Chunked::words("Hé".to_owned())),
            ending,
            service_tier: "default".to_owned(),
            usage: Usage::Tokens { input: 12, output: 9, cached: 3, cache_write: 1, reasoning: 2 },
        };
        serde_json::from_str(&finished(Stamp { number: 1, created: 5 }, &ask, &answer).0).unwrap()
    }

    #[test]
    fn it_repeats_what_was_set() {
        let made = made(Ending::Natural);
        assert_eq!((&made["status"], &made["object"]), (&json!("completed"), &json!("response")));
        assert_eq!((&made["instructions"], &made["store"]), (&json!("Be brief."), &json!(false)));
        assert_eq!(made["text"], json!({"format": {"type": "text"}, "verbosity": "low"}));
        assert_eq!(made["reasoning"], json!({"effort": "low", "summary": null}));
        assert_eq!((&made["tools"][0]["name"], &made["tool_choice"]), (&json!("f"), &json!("auto")));
        assert_eq!(made["output"][0]["content"][0]["text"], "Hé");
        let usage = &made["usage"];
        assert_eq!((&usage["total_tokens"], &usage["input_tokens_details"]["cached_tokens"]), (&json!(21), &json!(3)));
    }

    #[test]
    fn an_ending_has_its_status() {
        let given = |reason: &str| made(Ending::Given(reason.to_owned()));
        assert_eq!(made(Ending::Limit)["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(made(Ending::Limit)["output"][0]["status"], "incomplete");
        assert_eq!(given("content_filter")["incomplete_details"]["reason"], "content_filter");
        assert_eq!(given("failed")["error"]["code"], "server_error");
        assert_eq!(given("stop")["status"], "completed");
    }

    #[test]
    fn what_has_begun_or_failed_says_nothing() {
        let ask = Ask::default();
        let stamp = Stamp { number: 1, created: 5 };
        let begun: Value = serde_json::from_str(&begun(stamp, &ask)).unwrap();
        assert_eq!((&begun["status"], &begun["output"]), (&json!("in_progress"), &json!([])));
        let failed: Value = serde_json::from_str(&failed(stamp, &ask, Some(&json!({"code": "x"})))).unwrap();
        assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("x")));
    }
}
