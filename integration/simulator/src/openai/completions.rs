//! Completions of a bare prompt: requests in, documents and streams out.

use std::sync::Arc;

use serde_json::Value;

use super::request::{NOT_JSON, missing};
use super::whole::finish_reason;
use super::{put_usage, tokens};
use crate::answer::{Answer, Ask, Said, Stamp, Usage};
use crate::refusal::Refusal;
use crate::sse::{Event, Framing, Kind};
use crate::write::{put_string, quoted};

/// Reads a request. Each prompt of several has its own choices.
pub fn read(body: &[u8]) -> Result<Ask, Refusal> {
    let document: Value = serde_json::from_slice(body).map_err(|_| Refusal::bad(NOT_JSON))?;
    let prompt = document.get("prompt").ok_or_else(|| missing("prompt"))?;
    let Some(inputs) = tokens::inputs(prompt) else {
        let message = "Invalid type for 'prompt': expected one of a string, array of strings, array of integers, or \
                       array of integer arrays.";
        return Err(Refusal::of("prompt", Some("invalid_type"), message));
    };
    let number = |name: &str| document.get(name).and_then(Value::as_u64);
    let each = number("n").map_or(1, |n| n.clamp(1, 128) as usize);
    Ok(Ask {
        model: document.get("model").and_then(Value::as_str).unwrap_or_default().to_owned(),
        stream: document.get("stream").and_then(Value::as_bool).unwrap_or(false),
        include_usage: document.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false),
        choices: (each * inputs.len()).clamp(1, 1024),
        max_tokens: number("max_tokens").and_then(|most| usize::try_from(most).ok()),
        last_role: "user".to_owned(),
        last_text: inputs.last().map(|input| input.text.to_owned()).unwrap_or_default(),
        user: document.get("user").and_then(Value::as_str).map(str::to_owned),
        prompt_tokens: inputs.iter().map(|input| input.tokens).sum(),
        ..Ask::default()
    })
}

/// Returns the `text_completion` document.
pub fn document(stamp: Stamp, ask: &Ask, answer: &Answer) -> Vec<u8> {
    let mut out = before(stamp, ask);
    for index in 0..ask.choices.max(1) {
        if index > 0 {
            out.push(b',');
        }
        choice(&mut out, index, text(answer), Some(finish_reason(answer)));
    }
    out.push(b']');
    if !matches!(answer.usage, Usage::Omit) {
        out.extend_from_slice(b",\"usage\":");
        put_usage(&mut out, &answer.usage);
    }
    out.push(b'}');
    out
}

/// Returns the events of a stream: content, finish reasons, usage if asked for, `[DONE]`.
pub fn events(stamp: Stamp, ask: &Ask, answer: Answer, framing: Framing) -> impl Iterator<Item = Event> + use<> {
    let choices = ask.choices.max(1);
    let before = before(stamp, ask);
    let after: &[u8] = if ask.include_usage { b"],\"usage\":null}" } else { b"]}" };
    let usage = (ask.include_usage && !matches!(answer.usage, Usage::Omit)).then(|| {
        framing.event(Kind::Tail, |out| {
            out.extend_from_slice(&before);
            out.extend_from_slice(b"],\"usage\":");
            put_usage(out, &answer.usage);
            out.push(b'}');
        })
    });
    let answer = Arc::new((answer, before));
    let event = move |kind: Kind, index: usize, text: &str, reason: Option<&str>, before: &[u8]| {
        framing.event(kind, |out| {
            out.extend_from_slice(before);
            choice(out, index, text, reason);
            out.extend_from_slice(after);
        })
    };
    let ends = Arc::clone(&answer);
    let content = (0..answer.0.chunks()).flat_map(move |at| (0..choices).map(move |index| (at, index)));
    let content = content.map(move |(at, index)| {
        let Said::Text(text) = &answer.0.said else { return event(Kind::Content, index, "", None, &answer.1) };
        event(Kind::Content, index, text.chunk(at), None, &answer.1)
    });
    let ends = (0..choices).map(move |index| event(Kind::Tail, index, "", Some(finish_reason(&ends.0)), &ends.1));
    let done = std::iter::once_with(move || framing.event(Kind::Done, |out| out.extend_from_slice(b"[DONE]")));
    content.chain(ends).chain(usage).chain(done)
}

fn before(stamp: Stamp, ask: &Ask) -> Vec<u8> {
    let (id, model) = (quoted(&stamp.id("cmpl-sim-")), quoted(&ask.model));
    let created = stamp.created;
    format!(r#"{{"id":{id},"object":"text_completion","created":{created},"model":{model},"choices":["#).into_bytes()
}

fn text(answer: &Answer) -> &str {
    match &answer.said {
        Said::Text(text) => text.text(),
        Said::Calls(_) => "",
    }
}

fn choice(out: &mut Vec<u8>, index: usize, text: &str, reason: Option<&str>) {
    out.extend_from_slice(b"{\"text\":");
    put_string(out, text);
    out.extend_from_slice(format!(r#","index":{index},"logprobs":null,"finish_reason":"#).as_bytes());
    match reason {
        Some(reason) => put_string(out, reason),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}
