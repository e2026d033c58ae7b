//! Which facts are read from a request, and what is rejected as invalid.

use super::*;
use crate::request::facts::InvalidField;
use crate::request::field::MAX_MEMBERS;
use crate::request::strange::Strange;

fn parse(body: &str) -> Result<ChatRequest<'_>, InvalidRequest> {
    ChatRequest::parse(body.as_bytes(), 16)
}

fn refused(body: &str) -> String {
    match parse(body).unwrap_err() {
        InvalidRequest::Field(invalid) => invalid.param,
        InvalidRequest::Json(e) => e.message(),
    }
}

#[test]
fn a_name_in_another_case_is_no_other_name() {
    let with = |name: &str| format!(r#"{{"model":"a","messages":[{{"role":"user","content":"x"}}],"{name}":1}}"#);
    for name in [
        "Model",
        "MAX_TOKENS",
        "Max_Completion_Tokens",
        "N",
        "Messages",
        "\u{17f}tream",
        "max_to\u{212a}ens",
        "mod\\u0045l",
    ] {
        let body = with(name);
        let InvalidRequest::Field(InvalidField { param, message, .. }) = parse(&body).unwrap_err() else {
            panic!("{name}")
        };
        assert!(
            message.contains("use '") && param.chars().count() == name.replace("\\u0045", "E").chars().count(),
            "{message}"
        );
    }
    for name in ["Models", "logprobs", "Temperature", "stre\u{e4}m"] {
        assert!(parse(&with(name)).is_ok(), "{name}");
    }
}

#[test]
fn finds_what_the_decisions_need() {
    let body = r#"{"mod\u0065l":"auto","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}],
        "stream":true,"stream_options":{"include_usage":true},"max_tokens":9,"n":2,"user":"u-1","metadata":{"task":"chat"},
        "tools":[{"type":"function","function":{"name":"look_up"}}],"response_format":{"type":"json_schema"}}"#;
    let request = parse(body).unwrap();
    assert_eq!(request.facts.model.as_deref(), Some("auto"));
    assert_eq!(request.facts.task.as_deref(), Some("chat"));
    assert_eq!(request.facts.user.as_deref(), Some("u-1"));
    assert!(
        request.facts.stream
            && request.facts.wants_usage
            && request.facts.needs.has(Need::Image)
            && request.facts.needs.has(Need::Tools)
    );
    assert!(request.facts.needs.has(Need::JsonSchema));
    assert_eq!((request.max_tokens, request.facts.choices), (Some(9), 2));
    assert_eq!(request.facts.tool_names, ["look_up"]);
}

/// A decision follows what a provider would decode, regardless of escapes.
#[test]
fn escapes_hide_nothing_from_the_decisions() {
    let full = r#"{"messages":[{"\u0072ole":"user","c\u006fntent":[{"t\u0079pe":"image\u005furl"},{"image\u005furl":{"url":"x"}}]}],
        "tools":[{"f\u0075nction":{"n\u0061me":"look_up"}}],"response_format":{"typ\u0065":"json\u005fschema"}}"#;
    let request = parse(full).unwrap();
    assert!(request.facts.needs.has(Need::Image) && request.facts.needs.has(Need::JsonSchema));
    assert_eq!((request.facts.images.len(), &request.facts.tool_names[..]), (2, &["look_up".into()][..]));
    let by_type = parse(r#"{"messages":[{"role":"user","content":[{"type":"\u0069mage_url","text":"a"}]}]}"#).unwrap();
    assert!(by_type.facts.needs.has(Need::Image));
    let other = r#"{"messages":[{"role":"user","content":[{"type":"text","te\u0078t":"image_url","image\u005ffile":1}]}],
        "response_format":{"type":"\u006ason_object"}}"#;
    let request = parse(other).unwrap();
    assert!(
        !request.facts.needs.has(Need::Image)
            && !request.facts.needs.has(Need::JsonSchema)
            && request.facts.images.is_empty()
    );
    assert_eq!(refused(r#"{"messages":[{"r\u006fl":"user"}]}"#), "messages[0].role");
}

#[test]
fn refuses_what_is_no_chat_request_and_names_the_field() {
    let m = r#""messages":[{"role":"user","content":"x"}]"#;
    assert_eq!(refused(r#"{"model":"a"}"#), "messages");
    assert_eq!(refused(r#"{"messages":[]}"#), "messages");
    assert_eq!(refused(r#"{"messages":{}}"#), "messages");
    assert_eq!(refused(r#"{"messages":[1]}"#), "messages[0]");
    assert_eq!(refused(r#"{"messages":[{"role":"user"},{"content":"x"}]}"#), "messages[1].role");
    assert_eq!(refused(&format!(r#"{{"model":"a",{m},"model":"b"}}"#)), "model");
    assert_eq!(refused(&format!(r#"{{"model":"a",{m},"mod\u0065l":"b"}}"#)), "model");
    assert_eq!(refused(&format!(r#"{{{m},"stream":"yes"}}"#)), "stream");
    for number in ["0", "-2", "-1.5", "1.5", "1e-1", "1e99", "\"5\"", "99999999999999999999", "-99999999999999999999"] {
        assert_eq!(refused(&format!(r#"{{{m},"max_tokens":{number}}}"#)), "max_tokens");
    }
    for number in ["-1", "0", "0.0", "1.5", "-1.0"] {
        assert_eq!(refused(&format!(r#"{{{m},"n":{number}}}"#)), "n");
    }
    assert_eq!(refused(&format!(r#"{{{m},"metadata":{{"task":"a","t\u0061sk":"b"}}}}"#)), "metadata.task");
    assert!(refused("[]").starts_with("invalid JSON"));
    assert!(refused("").starts_with("unexpected end of JSON"));
    assert!(parse(&format!(r#"{{{m},"max_tokens":null}}"#)).is_ok());
}

#[test]
fn a_duplicate_among_many_members_is_found_and_too_many_are_none_too_late() {
    let members = |count: usize| (0..count).map(|i| format!(r#""k{i}":0,"#)).collect::<String>();
    assert_eq!(refused(&format!(r#"{{{}"k7":1}}"#, members(MAX_MEMBERS - 1))), "k7");
    let most = format!(r#"{{{}"messages":[{{"role":"user","content":"x"}}]}}"#, members(MAX_MEMBERS - 1));
    assert!(ChatRequest::parse(most.as_bytes(), 16).is_ok());
    // Nothing after the first excess member is read.
    let more = format!("{{{}{}", members(MAX_MEMBERS + 1), "x".repeat(1 << 20));
    assert_eq!(refused(&more), format!("k{MAX_MEMBERS}"));
}

#[test]
fn a_part_that_has_null_for_an_image_has_none() {
    let part = |url: &str| {
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"x","image_url":{url},"file":null}}]}}]}}"#
        );
        let request = ChatRequest::parse(body.as_bytes(), 16).unwrap();
        (request.facts.needs.has(Need::Image), request.facts.images.len(), request.facts.files.len())
    };
    assert_eq!((part("null"), part(r#"{"url":"x"}"#)), ((false, 0, 0), (true, 1, 0)));
}

#[test]
fn invalid_utf8_and_depth() {
    let body = b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}";
    assert!(
        matches!(ChatRequest::parse(body, 16), Err(InvalidRequest::Json(e)) if e.why == Why::Utf8 && body[e.at] == 0xff)
    );
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(16), "]".repeat(16));
    assert!(refused(&deep).contains("nested too deeply"));
}

#[test]
fn the_worst_case_is_what_a_server_may_take_the_request_to_ask_for() {
    let asked = |rest: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{rest}}}"#);
        let AskedOutput { least, as_written, .. } = parse(&body).unwrap().facts.output;
        (as_written, least)
    };
    assert_eq!(asked(r#""max_tokens":1,"max_completion_tokens":10000"#), (Some(10_000), Some(1)));
    assert_eq!(asked(r#""max_completion_tokens":1"#), (None, Some(1)));
    assert_eq!(asked(r#""max_tokens":5"#), (Some(5), Some(5)));
    assert_eq!(asked(r#""n":1"#), (None, None));
}

#[test]
fn a_whole_number_may_be_written_with_a_point_or_an_exponent_and_minus_one_is_no_limit() {
    let read = |members: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{members}}}"#);
        let request = parse(&body).unwrap();
        (request.max_tokens, request.max_completion_tokens, request.facts.choices)
    };
    assert_eq!(read(r#""max_tokens":100.0,"n":2e0"#), (Some(100), None, 2));
    assert_eq!(read(r#""max_completion_tokens":1e2"#), (None, Some(100), 1));
    for minus_one in ["-1", "-1.0", "-1e0"] {
        assert_eq!(read(&format!(r#""max_tokens":{minus_one},"max_completion_tokens":{minus_one}"#)), (None, None, 1));
        assert_eq!(read(&format!(r#""max_tokens":{minus_one},"max_completion_tokens":5"#)), (None, Some(5), 1));
    }
}

#[test]
fn a_mistake_has_openais_code_and_words() {
    let m = r#""messages":[{"role":"user","content":"x"}]"#;
    for (body, code, message) in [
        (r#"{"model":"a"}"#.to_owned(), "missing_required_parameter", "Missing required parameter: 'messages'."),
        (
            r#"{"messages":[{}]}"#.to_owned(),
            "missing_required_parameter",
            "Missing required parameter: 'messages[0].role'.",
        ),
        (
            r#"{"messages":[]}"#.to_owned(),
            "empty_array",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        ),
        (
            r#"{"messages":"x"}"#.to_owned(),
            "invalid_type",
            "Invalid type for 'messages': expected an array of objects, but got a string instead.",
        ),
        (
            r#"{"messages":[null]}"#.to_owned(),
            "invalid_type",
            "Invalid type for 'messages[0]': expected an object, but got null instead.",
        ),
        (
            r#"{"messages":[{"role":7}]}"#.to_owned(),
            "invalid_type",
            "Invalid type for 'messages[0].role': expected a string, but got a number instead.",
        ),
        (
            format!(r#"{{"model":5,{m}}}"#),
            "invalid_type",
            "Invalid type for 'model': expected a string, but got a number instead.",
        ),
        (
            format!(r#"{{{m},"stream":"yes"}}"#),
            "invalid_type",
            "Invalid type for 'stream': expected a boolean, but got a string instead.",
        ),
        (
            format!(r#"{{{m},"tools":{{}}}}"#),
            "invalid_type",
            "Invalid type for 'tools': expected an array of objects, but got an object instead.",
        ),
        (
            format!(r#"{{{m},"max_tokens":"5"}}"#),
            "invalid_type",
            "Invalid type for 'max_tokens': expected an integer, but got a string instead.",
        ),
        (
            format!(r#"{{{m},"max_tokens":1.5}}"#),
            "invalid_type",
            "Invalid type for 'max_tokens': expected an integer, but got a decimal number instead.",
        ),
        (
            format!(r#"{{{m},"n":0}}"#),
            "integer_below_min_value",
            "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        ),
        (
            format!(r#"{{{m},"max_tokens":-7}}"#),
            "integer_below_min_value",
            "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got -7 instead.",
        ),
        (
            format!(r#"{{{m},"max_tokens":99999999999999999999}}"#),
            "integer_above_max_value",
            "Invalid 'max_tokens': integer above maximum value. Expected a value <= 18446744073709551615, but got \
             99999999999999999999 instead.",
        ),
        (format!(r#"{{{m},"Stream":true}}"#), "unknown_parameter", "Unknown parameter: 'Stream'; use 'stream'."),
        (format!(r#"{{{m},"n":1,"n":1}}"#), "invalid_value", "Duplicate field 'n'."),
    ] {
        let InvalidRequest::Field(invalid) = parse(&body).unwrap_err() else { panic!("{body}") };
        assert_eq!((invalid.code.code(), &*invalid.message), (code, message), "{body}");
    }
}

#[test]
fn every_kind_of_media_is_found_however_it_is_written() {
    let read = |content: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
        let request = ChatRequest::parse(body.as_bytes(), 16).unwrap();
        let (images, files) = (&request.facts.images, &request.facts.files);
        assert!([images, files].iter().all(|all| all.is_sorted_by(|a, b| a.end <= b.start)), "{content}");
        (request.facts.needs.iter().collect::<Vec<_>>(), images.len(), files.len())
    };
    let other = || (vec![Need::OtherContent], 0, 1);
    for (part, need) in [
        ("image_url", Need::Image),
        ("image", Need::Image),
        ("image_embeds", Need::Image),
        ("image_pil", Need::Image),
        ("input_image", Need::Image),
        ("audio_url", Need::AudioInput),
        ("input_audio", Need::AudioInput),
        ("video", Need::Video),
        ("video_url", Need::Video),
        ("file", Need::File),
        ("document_url", Need::File),
    ] {
        let found = if need == Need::Image { (vec![need], 1, 0) } else { (vec![need], 0, 1) };
        let upper = part.to_uppercase();
        for content in [
            format!(r#"[{{"type":"{part}","{part}":{{"url":"x"}}}}]"#),
            format!(r#"[{{"type":"{upper}","{upper}":"x"}}]"#),
            format!(r#"[{{"type":"{part}","{part}":null}}]"#),
            format!(r#"[{{"{part}":"x"}}]"#),
            format!(r#"[{{"type":null,"{part}":"x"}}]"#),
            format!(r#"[{{"type":"text","text":"x","{part}":"x"}}]"#),
            format!(r#"[{{"source":{{"data":"x"}},"type":"{part}"}}]"#),
            format!(r#"{{"type":"{part}"}}"#),
            format!(r#"[{{"type":"tool_result","content":[{{"type":"{part}"}}]}}]"#),
        ] {
            assert_eq!(read(&content), found, "{content}");
        }
        assert_eq!(read(&format!(r#"[{{"type":"image","type":"{part}"}}]"#)).0.last(), Some(&need));
    }
    // What is inside comes before what is around it.
    let nested = r#"[{"source":"x","type":"image","content":[{"type":"image"},{"image_url":"y"}]},{"image":"z"}]"#;
    assert_eq!(read(nested), (vec![Need::Image], 4, 0));
    for unknown in [
        r#"{"type":"hologram","text":"x"}"#,
        r#"{"type":"","text":"x"}"#,
        r#"{"type":7}"#,
        r#"{"type":{"x":1},"text":"x"}"#,
        r#"{"blob":"x"}"#,
        "{}",
        "[[1]]",
        "7",
    ] {
        assert_eq!(read(&format!("[{unknown}]")), other(), "{unknown}");
    }
    let long = format!(r#"[{{"type":"{}"}}]"#, "\\u0061".repeat(1000));
    assert_eq!(read(&long), other());
    for text in [
        r#"[{"type":"text","text":"x"},"y",null]"#,
        r#"[{"text":"x"},{"type":null,"text":"image_url"},{"type":"\u0074ext"}]"#,
        r#"[{"type":"thinking","thinking":"x","signature":"y"},{"type":"tool_result","content":"x"}]"#,
        "null",
        "\"image_url\"",
    ] {
        assert_eq!(read(text), (vec![], 0, 0), "{text}");
    }
}

#[test]
fn fields_and_tools_say_what_they_need() {
    let needs = |members: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{members}}}"#);
        parse(&body).unwrap().facts.needs.iter().collect::<Vec<_>>()
    };
    for (members, need) in [
        (r#""modalities":["text","audio"]"#, Need::AudioModality),
        (r#""modalities":["\u0041udio"]"#, Need::AudioModality),
        (r#""modalities":["text","image"]"#, Need::OtherModality),
        (r#""modalities":[null]"#, Need::OtherModality),
        (r#""audio":{"voice":"alloy"}"#, Need::AudioVoice),
        (r#""web_search_options":{}"#, Need::WebSearchOptions),
        (r#""web_\u0073earch_options":{}"#, Need::WebSearchOptions),
        (r#""search_parameters":{"mode":"auto"}"#, Need::SearchParameters),
        (r#""enable_search":1"#, Need::EnableSearch),
        (r#""plugins":[{"id":"web"}]"#, Need::Plugins),
        (r#""mm_processor_kwargs":{"num_crops":4}"#, Need::ProcessorOptions),
        (r#""media_io_kwargs":{}"#, Need::MediaOptions),
        (r#""web_search":true"#, Need::WebSearch),
        (r#""search_mode":"academic""#, Need::SearchMode),
        (r#""tool_choice":{"type":"web_search_preview"}"#, Need::SearchTool),
        (r#""tool_choice":{"type":"Openrouter:web_search"}"#, Need::SearchTool),
        (
            r#""tool_choice":{"type":"allowed_tools","tools":[{"type":"function","name":"f"},{"type":"google_search"}]}"#,
            Need::SearchTool,
        ),
        (
            r#""tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"mcp"}]}}"#,
            Need::OtherTool,
        ),
        (r#""tool_choice":{"googleSearch":{}}"#, Need::SearchTool),
        (r#""tool_choice":"web_search_preview""#, Need::SearchTool),
    ] {
        assert_eq!(needs(members), [need], "{members}");
    }
    for (tool, need) in [
        (r#"{"type":"function","function":{"name":"f"}}"#, None),
        (r#"{"type":"custom","custom":{"name":"f"}}"#, None),
        (r#"{"function":{"name":"f"}}"#, None),
        (r#"{"type":null,"name":"f"}"#, None),
        (r#"{"type":"web_search_preview_2025_03_11"}"#, Some(Need::SearchTool)),
        (r#"{"TYPE":"Web_Search"}"#, Some(Need::SearchTool)),
        (r#"{"type":"openrouter:web_search"}"#, Some(Need::SearchTool)),
        (r#"{"type":"googleSearch"}"#, Some(Need::SearchTool)),
        (r#"{"googleSearch":{}}"#, Some(Need::SearchTool)),
        (r#"{"type":"function","function":{"name":"f"},"google_search_retrieval":{}}"#, Some(Need::SearchTool)),
        (r#"{"type":"function","function":{"name":"$web_search"}}"#, Some(Need::SearchTool)),
        (r#"{"type":"function","function":{"name":"$code"}}"#, Some(Need::OtherTool)),
        (r#"{"type":"file_search"}"#, Some(Need::OtherTool)),
        (r#"{"type":"tool_search_tool_regex"}"#, Some(Need::OtherTool)),
        (r#"{"type":"function","function":{"name":"web_search"}}"#, None),
        (r#"{"type":"function","type":"mcp"}"#, Some(Need::OtherTool)),
        (r#"{"google_search":{}}"#, Some(Need::SearchTool)),
        (r#"{"type":7,"function":{"name":"f"}}"#, Some(Need::OtherTool)),
    ] {
        assert_eq!(needs(&format!(r#""tools":[{tool}]"#))[1..], need.into_iter().collect::<Vec<_>>(), "{tool}");
    }
    assert!(needs(r#""modalities":["text"],"audio":null,"plugins":[ ],"enable_search":false"#).is_empty());
    assert!(needs(r#""web_search":false,"search_mode":null,"tool_choice":"auto""#).is_empty());
    for choice in [
        r#""required""#,
        r#""search_docs""#,
        r#"{"type":"function","function":{"name":"web_search"}}"#,
        r#"{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]}"#,
        r#"{"type":"any"}"#,
        "null",
    ] {
        assert!(needs(&format!(r#""tool_choice":{choice}"#)).is_empty(), "{choice}");
    }
    for wrong in [r#""modalities":"audio""#, r#""modalities":{}"#, r#""Modalities":["audio"]"#, r#""Enable_Search":1"#]
    {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{wrong}}}"#);
        assert_eq!(refused(&body).to_lowercase(), wrong.split('"').nth(1).unwrap().to_lowercase());
    }
    let message = |members: &str| {
        parse(&format!(r#"{{"messages":[{{"role":"assistant",{members}}}]}}"#)).unwrap().facts.needs.iter().next()
    };
    assert_eq!(message(r#""audio":{"id":"a"}"#), Some(Need::AudioInput));
    assert_eq!(message(r#""images":["x"]"#), Some(Need::Image));
    assert_eq!(message(r#""images":[],"audio":null"#), None);
    assert_eq!(message(r#""content":"x","parts":[{"type":"input_audio","input_audio":{}}]"#), Some(Need::AudioInput));
    assert_eq!(message(r#""content":[{"type":"text","text":{"type":"input_audio"}}]"#), Some(Need::AudioInput));
    assert_eq!(message(r#""content":[{"type":"text","text":{"value":"x"}}]"#), Some(Need::OtherContent));
    assert_eq!(message(r#""content":[{"type":"thinking","thinking":[{"type":"text","text":"x"}]}]"#), None);
    assert_eq!(message(r#""content":"x","attachments":[{}]"#), Some(Need::File));
    assert_eq!(message(r#""content":"x","input_audio":{}"#), Some(Need::AudioInput));
}

#[test]
fn a_field_that_the_gateway_does_not_know_is_noted_and_one_that_chooses_the_model_too() {
    let strange = |members: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{members}}}"#);
        let request = parse(&body).unwrap();
        request.facts.strange_fields().map(|(name, strange)| (name.to_owned(), strange)).collect::<Vec<_>>()
    };
    for routing in ["models", "route", "provider", "preset", "fallbacks", "api_base", "Models", "\\u0070rovider"] {
        assert_eq!(strange(&format!(r#""{routing}":["x"]"#))[0].1, Strange::Routing, "{routing}");
    }
    let unknown = ["extra_body", "parameters", "chat_template", "text", "data_sources", "Best_Of", "Seed", "x"];
    for name in unknown {
        assert_eq!(strange(&format!(r#""{name}":{{}}"#)), [(name.to_owned(), Strange::Unknown)]);
        assert_eq!(strange(&format!(r#""{name}":null"#)), []);
    }
    // A number that cannot be read may be any number to a server.
    for odd in [r#""best_of":"4""#, r#""num_predict":{}"#, r#""thinking":{"budget_tokens":"9"}"#, r#""min_tokens":1.5"#]
    {
        assert_eq!(strange(odd)[0].1, Strange::Unknown, "{odd}");
    }
    let usual = r#""top_k":3,"min_p":0.1,"guided_json":{},"chat_template_kwargs":{},"reasoning":{"effort":"low"},
        "thinking":{"type":"enabled","budget_tokens":9},"best_of":2,"enable_search":true,"tools":[],"prediction":{}"#;
    assert_eq!(strange(usual), []);
}

#[test]
fn an_empty_user_is_no_user() {
    let user = |members: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{members}}}"#);
        parse(&body).unwrap().facts.user.as_deref().map(str::to_owned)
    };
    assert_eq!(user(r#""user":"ann""#).as_deref(), Some("ann"));
    assert_eq!(user(r#""user":"""#), None);
    assert_eq!(user(r#""user":"","safety_identifier":"bob""#).as_deref(), Some("bob"));
    assert_eq!(user(r#""user":null,"safety_identifier":"""#), None);
}
