//! Which requests for a whole answer can be asked as a stream, so that the answer put together from it is the same.
//!
//! Only what is known to be the same in both forms: a field or a tool that the gateway does not know may add to an
//! answer what no stream has, or has in another form.

use crate::request::facts::Facts;
use crate::request::needs::Need;
use crate::wire::json::{InvalidJson, Kind, Scanner, unquote};

/// The fields of OpenAI's API that change nothing about the form of an answer, or change it in a known way, and the
/// usual parameters for sampling of vLLM and others.
const FIELDS: [&str; 35] = [
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "min_p",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
];

/// Returns whether a stream tells all that the whole answer to this request would.
pub fn is_streamable(facts: &Facts) -> bool {
    let mut members = facts.members.iter();
    members.all(|member| member.value.kind == Kind::Null || FIELDS.contains(&&*member.name))
        && facts.needs.iter().all(is_same_in_both)
        && facts.member("tools").is_none_or(|tools| are_functions(facts.bytes(&tools.value.span)))
}

/// Returns whether a need concerns the prompt alone, or what a stream has in a known form.
fn is_same_in_both(need: Need) -> bool {
    match need {
        Need::Tools | Need::JsonSchema | Need::Image | Need::AudioInput | Need::Video | Need::File => true,
        Need::OtherContent
        | Need::SearchTool
        | Need::OtherTool
        | Need::AudioModality
        | Need::AudioVoice
        | Need::OtherModality
        | Need::WebSearchOptions
        | Need::SearchParameters
        | Need::EnableSearch
        | Need::Plugins
        | Need::ProcessorOptions
        | Need::MediaOptions
        | Need::WebSearch
        | Need::SearchMode => false,
    }
}

/// Returns whether all tools are functions. OpenAI's custom tools have no documented form in a stream.
fn are_functions(tools: &[u8]) -> bool {
    let mut all = true;
    let mut scanner = Scanner::new(tools, u32::MAX);
    let read = match scanner.peek() {
        Ok(Kind::Array) => scanner.array(|s, _| {
            if s.peek()? != Kind::Object {
                all = false;
                return s.value().map(drop);
            }
            s.object(|s, key| {
                let name = s.folded_name(&key)?;
                let value = s.value()?;
                if &*name == b"type" {
                    all &= unquote(s.bytes(&value.span)).is_some_and(|kind| kind == "function");
                }
                Ok::<_, InvalidJson>(())
            })
        }),
        other => other.map(drop),
    };
    all && read.is_ok()
}

#[cfg(test)]
mod tests {
    use crate::dialect::client::ClientDialect;

    fn is_streamable(members: &str) -> bool {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}]{members}}}"#);
        ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap().is_streamable()
    }

    #[test]
    fn what_is_known_to_be_the_same_in_both_forms_and_nothing_else() {
        for yes in [
            "",
            r#","stream":false,"stream_options":null,"n":3,"logprobs":true,"top_logprobs":5,"verbosity":"low""#,
            r#","tools":[{"type":"function","function":{"name":"f"}},{"function":{"name":"g"}}],"tool_choice":"auto""#,
            r#","modalities":["text"],"audio":null,"response_format":{"type":"json_schema"},"top_k":3"#,
        ] {
            assert!(is_streamable(yes), "{yes}");
        }
        for no in [
            r#","stream_options":{"include_usage":true}"#,
            r#","modalities":["text","audio"]"#,
            r#","audio":{"voice":"alloy"}"#,
            r#","web_search_options":{}"#,
            r#","tools":[{"type":"custom","custom":{"name":"c"}}]"#,
            r#","tools":[{"type":"web_search_preview"}]"#,
            r#","tools":[{"type":"function","function":{"name":"f"}},{"type":"\u0063ustom"}]"#,
            r#","tools":[1]"#,
            r#","use_beam_search":true"#,
            r#","prompt_logprobs":1"#,
            r#","best_of":2"#,
        ] {
            assert!(!is_streamable(no), "{no}");
        }
    }
}
