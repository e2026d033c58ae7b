//! The request as it goes upstream: the caller's bytes, with a short head that alone differs between attempts.
//!
//! `{"model":"ID",…` comes first, with every member that the gateway changes or that not all models of the plan take
//! alike. What follows is what the caller sent, byte for byte. So the model stage turns one attempt's request into
//! another's by replacing the head, and its cost does not grow with the prompt.

use crate::chat_request::{ChatRequest, Member};
use crate::config::OutputParam;
use crate::json::{Kind, Span, quote_into};
use crate::policy::{Model, ModelId, Policy, TaskId};

/// A request ready to go upstream.
#[derive(Debug, PartialEq, Eq)]
pub struct Canonical {
    /// The head of each attempt, in the plan's order: from `{` to the comma before the rest.
    pub heads: Vec<Vec<u8>>,
    /// The parts of the caller's body that follow the head, to be joined by commas.
    pub rest: Vec<Span>,
}

impl Canonical {
    /// The length of what follows the head, in bytes.
    pub fn rest_len(&self) -> usize {
        self.rest.iter().map(ExactSizeIterator::len).sum::<usize>() + self.rest.len().saturating_sub(1)
    }

    /// If the rest is one piece that runs to the end of the body, where it starts: then only a prefix has to be replaced.
    pub fn prefix_only(&self, body_len: usize) -> Option<usize> {
        match self.rest.as_slice() {
            [only] if only.end == body_len => Some(only.start),
            _ => None,
        }
    }

    /// The whole request of the first attempt.
    pub fn assemble(&self, body: &[u8]) -> Vec<u8> {
        let head = self.heads.first().map_or(&[][..], Vec::as_slice);
        let mut out = Vec::with_capacity(head.len() + self.rest_len());
        out.extend_from_slice(head);
        for (i, span) in self.rest.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(body.get(span.clone()).unwrap_or_default());
        }
        out
    }
}

/// Builds the request for the plan's `models`.
pub fn build(policy: &Policy, request: &ChatRequest, task: Option<TaskId>, models: &[ModelId]) -> Canonical {
    let models: Vec<&Model> = models.iter().map(|id| policy.model(*id)).collect();
    let task_limit = task.and_then(|task| policy.task(task).max_output_tokens);
    let limit_of = |model: &Model| task_limit.map_or(model.max_output_tokens, |t| t.min(model.max_output_tokens));
    let set = policy.limits.set_output_limit;

    let limits_change = models.iter().any(|model| output_changes(request, model, limit_of(model), set));
    let ask_usage = request.stream && !request.include_usage;
    let moves = |member: &Member| match &*member.name {
        "model" => true,
        "stream_options" => ask_usage,
        "max_tokens" | "max_completion_tokens" => limits_change,
        name => models.iter().any(|model| !model.takes(name)),
    };
    let moved: Vec<&Member> = request.members.iter().filter(|m| moves(m)).collect();

    let heads = models
        .iter()
        .map(|model| {
            let mut head = Vec::with_capacity(96);
            head.extend_from_slice(b"{\"model\":");
            quote_into(&mut head, &model.upstream_id);
            if ask_usage {
                stream_options_into(&mut head, request);
            }
            if limits_change {
                output_limits_into(&mut head, request, model, limit_of(model), set);
            }
            for member in &moved {
                let rewritten =
                    matches!(&*member.name, "model" | "stream_options" | "max_tokens" | "max_completion_tokens");
                if !rewritten && model.takes(&member.name) {
                    head.push(b',');
                    head.extend_from_slice(request.bytes(&(member.key.start..member.value.span.end)));
                }
            }
            head.push(b',');
            head
        })
        .collect();
    Canonical { heads, rest: rest(request, moves) }
}

/// The caller's bytes without the members that move: runs of kept members, commas and white space between them included.
fn rest(request: &ChatRequest, moves: impl Fn(&Member) -> bool) -> Vec<Span> {
    let mut rest: Vec<Span> = Vec::with_capacity(2);
    let mut open: Option<Span> = None;
    for (i, member) in request.members.iter().enumerate() {
        if moves(member) {
            rest.extend(open.take());
            continue;
        }
        let start = match i.checked_sub(1).and_then(|before| request.members.get(before)) {
            // After the comma that follows the member before.
            Some(before) => after_comma(request, before.value.span.end, member.key.start),
            None => request.body.iter().position(|b| *b == b'{').map_or(0, |brace| brace + 1),
        };
        open = Some(open.map_or(start, |span| span.start)..member.value.span.end);
    }
    // `messages` never moves, so there is at least one kept member; the closing brace and what follows belongs to the last.
    match open {
        Some(last) => rest.push(last.start..request.body.len()),
        None => {
            let end = request.members.last().map_or(0, |m| m.value.span.end);
            if let Some(last) = rest.last_mut() {
                let closing = request.body.get(end..).unwrap_or_default();
                // The brace directly after the last kept member joins it where nothing was between them.
                if last.end == end {
                    last.end += closing.len();
                } else {
                    rest.push(end..request.body.len());
                }
            }
        }
    }
    rest
}

fn after_comma(request: &ChatRequest, from: usize, to: usize) -> usize {
    let between = request.bytes(&(from..to));
    between.iter().position(|b| *b == b',').map_or(to, |comma| from + comma + 1)
}

/// Whether the model needs another output limit than the caller sent.
fn output_changes(request: &ChatRequest, model: &Model, limit: u64, set_where_absent: bool) -> bool {
    let too_much = |asked: Option<u64>| asked.is_some_and(|asked| asked > limit);
    let absent = request.max_tokens.is_none() && request.max_completion_tokens.is_none();
    let other_name = match model.output_param {
        Some(OutputParam::MaxTokens) => request.max_completion_tokens.is_some(),
        Some(OutputParam::MaxCompletionTokens) => request.max_tokens.is_some(),
        None => false,
    };
    too_much(request.max_tokens) || too_much(request.max_completion_tokens) || other_name || absent && set_where_absent
}

fn output_limits_into(head: &mut Vec<u8>, request: &ChatRequest, model: &Model, limit: u64, set_where_absent: bool) {
    let mut write = |name: &str, value: u64| head.extend(format!(",\"{name}\":{value}").into_bytes());
    match (model.output_param, request.asked_output()) {
        (_, None) if !set_where_absent => {}
        (Some(OutputParam::MaxCompletionTokens), asked) => {
            write("max_completion_tokens", asked.map_or(limit, |a| a.min(limit)))
        }
        (Some(OutputParam::MaxTokens), asked) => write("max_tokens", asked.map_or(limit, |a| a.min(limit))),
        (None, None) => write("max_tokens", limit),
        (None, Some(_)) => {
            if let Some(asked) = request.max_tokens {
                write("max_tokens", asked.min(limit));
            }
            if let Some(asked) = request.max_completion_tokens {
                write("max_completion_tokens", asked.min(limit));
            }
        }
    }
}

/// `"stream_options"` as the caller sent it, with `include_usage` made true.
fn stream_options_into(head: &mut Vec<u8>, request: &ChatRequest) {
    head.extend_from_slice(b",\"stream_options\":{\"include_usage\":true");
    if let Some(member) = request.member("stream_options").filter(|m| m.value.kind == Kind::Object) {
        let mut scanner = crate::json::Scanner::new(request.bytes(&member.value.span), u32::MAX);
        // Scanned once already, so it cannot fail; if it did, the caller's other options would be left out.
        let _ = scanner.object(|s, key| {
            let value = s.value()?;
            if crate::json::unquote(s.bytes(&key)).as_deref() != Some("include_usage") {
                head.push(b',');
                head.extend_from_slice(s.bytes(&(key.start..value.span.end)));
            }
            Ok::<_, crate::json::InvalidJson>(())
        });
    }
    head.push(b'}');
}
