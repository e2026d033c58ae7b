//! Which facts are read from a request, and what is rejected as invalid.

use super::*;
use crate::quota::demand;

fn parse(body: &str) -> Result<MessagesRequest<'_>, InvalidRequest> {
    MessagesRequest::parse(Asks::Answer, body.as_bytes(), 16)
}

fn refused(body: &str) -> String {
    match parse(body).unwrap_err() {
        InvalidRequest::Field(invalid) => invalid.param,
        InvalidRequest::Json(e) => e.message(),
    }
}

const M: &str = r#""max_tokens":100,"messages":[{"role":"user","content":"x"}]"#;

fn needs(body: &str) -> Vec<Need> {
    parse(body).unwrap().facts.needs.iter().collect()
}

#[test]
fn the_fields_that_decisions_need_are_found() {
    let body = r#"{"model":"claude","max_tokens":1024,"system":[{"type":"text","text":"Be brief.","cache_control":{"type":
        "ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"stream":true,
        "metadata":{"user_id":"ann"},"temperature":0,"tools":[{"name":"f","input_schema":{"type":"object"}}],
        "service_tier":"auto","thinking":{"type":"enabled","budget_tokens":1000},"top_k":5}"#;
    let request = parse(body).unwrap();
    let facts = &request.facts;
    assert_eq!((facts.model.as_deref(), facts.user.as_deref(), facts.stream), (Some("claude"), Some("ann"), true));
    assert_eq!((facts.output.least, facts.choices, facts.service_tier), (Some(1024), 1, None));
    assert_eq!(
        (&facts.tool_names[..], facts.number(&facts.temperature.clone().unwrap())),
        (&["f".into()][..], Some(0.0))
    );
    assert!(
        facts.bytes(&facts.system).starts_with(b"[{\"type\":\"text\"") && facts.bytes(&facts.messages).ends_with(b"}]")
    );
    assert_eq!(facts.needs.iter().collect::<Vec<_>>(), [Need::Tools]);
    assert_eq!((facts.target.path, facts.wants_usage), ("/messages", true));
    assert_eq!(facts.members.len(), 11);
}

#[test]
fn what_is_missing_or_of_another_type_is_named() {
    assert_eq!(refused(r#"{"messages":[{"role":"user","content":"x"}]}"#), "max_tokens");
    assert_eq!(refused(r#"{"max_tokens":5}"#), "messages");
    assert_eq!(refused(r#"{"max_tokens":5,"messages":[]}"#), "messages[0]");
    assert_eq!(refused(r#"{"max_tokens":5,"messages":[{"content":"x"}]}"#), "messages[0].role");
    assert_eq!(refused(r#"{"max_tokens":5,"messages":["x"]}"#), "messages[0]");
    assert_eq!(refused(&format!(r#"{{{M},"system":5}}"#)), "system");
    assert_eq!(refused(&format!(r#"{{{M},"max_tokens":5}}"#)), "max_tokens");
    assert_eq!(refused(&format!(r#"{{{M},"Max_Tokens":5}}"#)), "Max_Tokens");
    assert_eq!(refused(&format!(r#"{{{M},"stream":"yes"}}"#)), "stream");
    for bad in ["0", "-1", "1.5", "\"5\""] {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"max_tokens":{bad}}}"#);
        assert_eq!(refused(&body), "max_tokens", "{bad}");
    }
}

#[test]
fn media_are_found_wherever_they_are() {
    let with = |block: &str| format!(r#"{{"max_tokens":5,"messages":[{{"role":"user","content":[{block}]}}]}}"#);
    let image = r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBOR"}}"#;
    let body = with(image);
    let facts = parse(&body).unwrap().facts;
    assert_eq!((facts.images.len(), facts.bytes(&facts.images[0])), (1, &b"\"iVBOR\""[..]));
    let url = with(r#"{"type":"image","source":{"type":"url","url":"https://x.example/a.png"}}"#);
    assert_eq!(parse(&url).unwrap().facts.urls(), [Box::from("https://x.example/a.png")]);
    let result = format!(r#"{{"type":"tool_result","tool_use_id":"t","content":[{image}]}}"#);
    assert_eq!(needs(&with(&result)), [Need::Image]);
    let document = r#"{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}"#;
    assert_eq!(needs(&with(document)), [Need::File]);
    let parts = format!(r#"{{"type":"document","source":{{"type":"content","content":[{image}]}}}}"#);
    assert_eq!(needs(&with(&parts)), [Need::Image, Need::File]);
    assert_eq!(needs(&with(r#"{"type":"video","source":{}}"#)), [Need::OtherContent]);
    assert_eq!(needs(&with(r#"{"text":"no type"}"#)), [Need::OtherContent]);
    assert_eq!(needs(&with(r#"{"type":"text","type":"image","source":{}}"#)), [Need::Image]);
    for text in [
        r#"{"type":"text","text":"x"}"#,
        r#"{"type":"thinking","thinking":"x","signature":"s"}"#,
        r#"{"type":"tool_use","id":"t","name":"f","input":{"type":"image"}}"#,
        r#"{"type":"tool_result","tool_use_id":"t","content":"x"}"#,
        r#"{"type":"web_search_tool_result","tool_use_id":"t","content":[]}"#,
    ] {
        assert_eq!(needs(&with(text)), [], "{text}");
    }
}

#[test]
fn a_tool_that_the_provider_runs_is_told_from_the_callers_own() {
    let with = |tool: &str| needs(&format!(r#"{{{M},"tools":[{tool}]}}"#));
    for own in [
        r#"{"name":"f","input_schema":{}}"#,
        r#"{"type":"custom","name":"f"}"#,
        r#"{"type":"bash_20250124","name":"bash"}"#,
        r#"{"type":"text_editor_20250728","name":"e"}"#,
        r#"{"type":"tool_search_tool_regex_20251119","name":"t"}"#,
    ] {
        assert_eq!(with(own), [Need::Tools], "{own}");
    }
    assert_eq!(with(r#"{"type":"web_search_20250305","name":"web_search"}"#), [Need::Tools, Need::SearchTool]);
    for other in [r#"{"type":"code_execution_20250825","name":"c"}"#, r#"{"type":"web_fetch_20250910"}"#, "{}"] {
        assert_eq!(with(other), [Need::Tools, Need::OtherTool], "{other}");
    }
    assert_eq!(needs(&format!(r#"{{{M},"mcp_servers":[{{"type":"url"}}]}}"#)), [Need::OtherTool]);
    assert_eq!(needs(&format!(r#"{{{M},"mcp_servers":[],"container":null}}"#)), []);
    assert_eq!(needs(&format!(r#"{{{M},"output_config":{{"format":{{"type":"json_schema"}}}}}}"#)), [Need::JsonSchema]);
    assert_eq!(needs(&format!(r#"{{{M},"output_format":{{"type":"json_schema"}}}}"#)), [Need::JsonSchema]);
    assert_eq!(needs(&format!(r#"{{{M},"output_config":{{"effort":"low"}}}}"#)), []);
}

#[test]
fn another_price_for_the_same_tokens_is_a_service_tier() {
    let tier = |fields: &str| {
        let body = format!("{{{M},{fields}}}");
        parse(&body).unwrap().facts.service_tier.map(|tier| tier.name().to_owned())
    };
    assert_eq!(tier(r#""service_tier":"standard_only""#), None);
    assert_eq!(tier(r#""service_tier":"auto""#), None);
    assert_eq!(tier(r#""speed":"fast""#), Some("fast".to_owned()));
    assert_eq!(tier(r#""speed":"fast","service_tier":"auto""#), Some("fast".to_owned()));
    assert_eq!(tier(r#""speed":"standard""#), None);
}

#[test]
fn a_count_needs_no_output_limit_and_makes_no_output() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;
    let facts = MessagesRequest::parse(Asks::Count, body, 16).unwrap().facts;
    assert_eq!((facts.choices, facts.stream, facts.output.least), (0, false, None));
    assert_eq!(facts.target.path, "/messages/count_tokens");
    // Nor does a limit on tokens stand in its way.
    let answer =
        MessagesRequest::parse(Asks::Answer, br#"{"max_tokens":1,"messages":[{"role":"user","content":"x"}]}"#, 16);
    assert_eq!(demand::input_tokens(&facts), 0);
    assert!(demand::input_tokens(&answer.unwrap().facts) > 0);
}

#[test]
fn an_empty_user_is_none() {
    let user = |id: &str| {
        let body = format!(r#"{{{M},"metadata":{{"user_id":"{id}"}}}}"#);
        parse(&body).unwrap().facts.user.map(|user| user.into_owned())
    };
    assert_eq!((user(""), user("ann")), (None, Some("ann".to_owned())));
}
