//! The message of each mistake of shape: what was meant, what is missing, and what would be right.

use super::foreign::{Meant, meant};
use super::mistake::{Kind, Mistake, put};
use super::moved;
use super::sections::{home, names, refers_to, sections, singular, value_at};
use super::spelling::{nearest, proposal};
use super::values::{UNITS, Wrong, example, some_of};
use crate::config::place::Step;
use crate::config::problem::{Problem, looks_secret, quoted};
use serde_json::{Value, json};

/// Describes a mistake in a tree.
pub(super) fn explain(mistake: &Mistake, tree: &Value) -> Problem {
    if let Some(problem) = moved::explain(mistake, tree) {
        return problem;
    }
    let place = mistake.place();
    let (last, parents) = match mistake.place.split_last() {
        Some((Step::Name(name), parents)) => (name.as_str(), parents),
        _ => ("", &[][..]),
    };
    let found = value_at(tree, &mistake.place).unwrap_or(&Value::Null);
    let wrong = Wrong { place: &mistake.place, value: found, tree };
    match &mistake.kind {
        Kind::UnknownField(known) => Problem::of_field(parents, last, unknown_field(parents, last, known)),
        Kind::MissingField => Problem::of_field(parents, last, missing(&mistake.place, last, tree)),
        Kind::UnknownVariant(variant, allowed) => {
            Problem::new(place, unknown_variant(&mistake.place, variant, allowed))
        }
        Kind::WrongType(..) if mistake.place.is_empty() => Problem::new("", whole(found)),
        Kind::WrongType(_, expected) if expected == "a name" => {
            let allowed = mistake.allowed(tree);
            let noun = noun(&mistake.place);
            Problem::new(place, format!("expected {noun}, found {}; {}", shown(&wrong), choice(&allowed)))
        }
        Kind::WrongType(_, expected) if expected == ONE_NAME => {
            Problem::new(place, "more than one action; write only one of reject, degrade and template")
        }
        Kind::WrongType(_, expected) if expected == "the name alone" => {
            Problem::new(place, format!("\"{last}\" has no value; write `{}`", alone(&mistake.place, last)))
        }
        Kind::WrongType(_, expected) if expected == "a value" => {
            let value =
                if last == "degrade" { names(tree, "models").first().copied().unwrap_or("MODEL") } else { "TEXT" };
            let field = outer(&mistake.place);
            Problem::new(place, format!("\"{last}\" needs a value; write `{field}: {{{last}: {value}}}`"))
        }
        Kind::WrongType(_, expected) => Problem::new(place, wrong.message(expected)),
        Kind::Other(message) if message.ends_with(IS_NO_DURATION) => {
            let remedy = wrong.duration().unwrap_or_else(|| UNITS.to_owned());
            let said = found.as_str().map_or("(not shown)".to_owned(), quoted);
            Problem::new(place, format!("{said} is not a duration; {remedy}"))
        }
        Kind::Other(message) if message.ends_with(IS_NO_STATUS) => Problem::new(place, status(message, found)),
        Kind::DuplicateField | Kind::Other(_) => mistake.problem(),
    }
}

/// What serde expects where a choice has a value.
const ONE_NAME: &str = "map with a single key";
/// The end of the message of a text that is no time.
const IS_NO_DURATION: &str = "is not a duration like 250ms, 30s or 10m";
/// The end of the message of a text or a number that is no status.
const IS_NO_STATUS: &str = "is not a status like 503, or 5xx";

/// The document as a whole is wrong.
pub(super) fn whole(found: &Value) -> String {
    match found {
        Value::Null => {
            "the policy is empty; it needs at least the sections providers, models, tiers and tenants".into()
        }
        Value::Array(_) => "expected the sections of a policy, found a list; remove the `- ` before them".into(),
        Value::String(_) => "expected the sections of a policy, found a string; is a colon missing?".into(),
        _ => "expected the sections of a policy, found a value".into(),
    }
}

/// Returns the field that an unknown one stands for: another name for it, or its misspelling.
pub(super) fn meant_field(place: &[Step], known: &[String]) -> Option<String> {
    let (Step::Name(last), parents) = place.split_last()? else { return None };
    let parents: Vec<&str> = parents.iter().filter_map(Step::as_name).collect();
    match nearest(last, known.iter().map(String::as_str)).as_slice() {
        [one] => return Some((*one).to_owned()),
        [] => {}
        _ => return None,
    }
    match meant(&parents, last, known)? {
        Meant::Field(field) => Some(field.to_owned()),
        Meant::Elsewhere(_) => None,
    }
}

fn unknown_field(parents: &[Step], last: &str, known: &[String]) -> String {
    let what = if parents.is_empty() { "section" } else { "field" };
    let start = format!("unknown {what} {}", field_name(parents, last));
    if let Some((field, text)) = without_space(last, known) {
        let hides = crate::config::place::Place::from(parents).holds_secrets() || looks_secret(last);
        let text = if hides { "..." } else { text };
        return format!("a space is missing after the colon; write `{field}: {text}`");
    }
    let names: Vec<&str> = parents.iter().filter_map(Step::as_name).collect();
    if let ("sha256", ["tenants", _, "keys"]) = (last, names.as_slice()) {
        return format!("{start}; write `sha256:` and the digits as one word, without a space");
    }
    if let Some(proposal) = proposal(last, known.iter().map(String::as_str)) {
        return format!("{start}; {proposal}");
    }
    match meant(&names, last, known) {
        Some(Meant::Field(field)) => return format!("{start}; here it is called \"{field}\""),
        Some(Meant::Elsewhere(remedy)) => return format!("{start}; {remedy}"),
        None => {}
    }
    if sections().iter().any(|section| section == last) {
        return format!("{start}; `{last}` is a section of its own, at the start of a line");
    }
    let list = match known {
        [] => "no fields are allowed here".to_owned(),
        known => format!("known {what}s: {}", known.join(", ")),
    };
    match home(last) {
        Some(home) => format!("{start}; it belongs to {home}"),
        None => format!("{start}; {list}"),
    }
}

/// Splits `input:0`, which YAML takes for a name, into a field and its value.
pub(super) fn without_space<'a>(name: &'a str, known: &[String]) -> Option<(&'a str, &'a str)> {
    let (field, text) = name.split_once(':')?;
    known.iter().any(|known| known == field).then_some((field, text)).filter(|(_, text)| !text.is_empty())
}

/// A field's name is shown, unless it is where a key may be and is not the kind of name that fields have.
fn field_name(parents: &[Step], last: &str) -> String {
    let is_plain = last == "sha256" || last.len() <= 24 && last.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let holds_secrets = crate::config::place::Place::from(parents).holds_secrets();
    if holds_secrets && !is_plain { "(not shown)".to_owned() } else { quoted(last) }
}

fn missing(place: &[Step], last: &str, tree: &Value) -> String {
    if place.len() == 1 {
        let singular = singular(last).unwrap_or("entry");
        return format!("missing section \"{last}\"; it needs at least one {singular}");
    }
    match example(place, tree) {
        Some(example) => format!("missing field \"{last}\"; for example `{example}`"),
        None => format!("missing field \"{last}\""),
    }
}

/// What the names at a place are.
fn noun(place: &[Step]) -> &'static str {
    match place.iter().rev().find_map(Step::as_name).unwrap_or_default() {
        "dialect" => "a dialect",
        "data" | "max_data" => "a data class",
        "level" | "tier" => "a level",
        "capabilities" => "a capability",
        "output_param" => "an output parameter",
        "scope" => "a cache scope",
        "requests" => "a kind of request",
        "store" => "a store",
        "failure_mode" => "a failure mode",
        "abandoned" => "a charge",
        "source" => "a source of identity",
        "on_exhausted" | "on_tight" => "an action",
        _ => "a known name",
    }
}

/// "use a, b or c".
fn choice(allowed: &[String]) -> String {
    match allowed {
        [] => "see the reference".to_owned(),
        [one] => format!("the only one is {one}"),
        [others @ .., last] => format!("use {} or {last}", others.join(", ")),
    }
}

fn unknown_variant(place: &[Step], variant: &str, allowed: &[String]) -> String {
    let hides = crate::config::place::Place::from(place).holds_secrets();
    let said = if hides { "(not shown)".to_owned() } else { quoted(variant) };
    let noun = noun(place);
    let start = format!("{said} is not {noun}");
    if let Some(proposal) = proposal(variant, allowed.iter().map(String::as_str)) {
        return format!("{start}; {proposal}");
    }
    let plain = variant.to_ascii_lowercase();
    let remedy = match (noun, plain.as_str()) {
        (
            "a dialect",
            "vllm" | "ollama" | "azure" | "azure_openai" | "groq" | "mistral" | "deepseek" | "together" | "openrouter"
            | "lmstudio" | "llamacpp" | "llama.cpp" | "llama_cpp" | "sglang" | "tgi" | "litellm" | "xai" | "fireworks",
        ) => "it speaks openai: write `dialect: openai`".to_owned(),
        ("a dialect", "claude" | "messages") => "write `dialect: anthropic`".to_owned(),
        ("a dialect", "gemini" | "google" | "vertex" | "vertex_ai" | "bedrock" | "cohere") => {
            "only an API that is compatible with openai or anthropic can be used: write `dialect: openai` or \
             `dialect: anthropic` for it"
                .to_owned()
        }
        ("a source of identity", "jwt" | "oidc" | "oauth" | "oauth2" | "ext_authz") => {
            "let Envoy's filter verify it and set a header: `identity: {source: header, tenant: x-tenant}`".to_owned()
        }
        ("an action", "fallback" | "downgrade") => "write `on_exhausted: {degrade: MODEL}`".to_owned(),
        ("an action", "deny" | "block" | "refuse" | "error" | "429") => "write `on_exhausted: reject`".to_owned(),
        ("a failure mode", "open" | "fail_open" | "ignore") => "write allow".to_owned(),
        ("a failure mode", "closed" | "fail_closed" | "block" | "reject") => "write deny".to_owned(),
        ("a store", "memory" | "in_memory" | "inmemory") => "write local".to_owned(),
        ("a capability", "images" | "image") => "write vision".to_owned(),
        ("a capability", "file" | "documents" | "document" | "pdf") => "write files".to_owned(),
        ("a capability", "search" | "web_search_options" | "online") => "write web_search".to_owned(),
        ("a capability", "mm_processor_kwargs" | "media_io_kwargs") => "write media_options".to_owned(),
        ("a capability", "function_calling" | "functions") => "write tools".to_owned(),
        ("a capability", "structured_output" | "structured_outputs" | "response_format" | "json") => {
            "write json_schema".to_owned()
        }
        _ => choice(allowed),
    };
    format!("{start}; {remedy}")
}

/// The value in place of a name from a list.
fn shown(wrong: &Wrong) -> String {
    match wrong.value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// The field in which a choice with a value stands: the step before the choice.
fn outer(place: &[Step]) -> &str {
    place.iter().rev().filter_map(Step::as_name).nth(1).unwrap_or_default()
}

fn alone(place: &[Step], last: &str) -> String {
    format!("{}: {last}", outer(place))
}

/// A status in quotes, or a range.
fn status(message: &str, found: &Value) -> String {
    let text = found.as_str().unwrap_or_default().trim();
    let remedy = match text {
        "500-599" | "5XX" | "5**" | "500+" | "5*" => Some("write 5xx".to_owned()),
        "4xx" | "4XX" | "400-499" => Some("name each one, such as 408, 409 and 429".to_owned()),
        "retriable-4xx" | "gateway-error" | "connect-failure" | "reset" => {
            Some("these are Envoy's; failed connections always lead to the next model".to_owned())
        }
        number if number.parse::<u16>().is_ok() => Some(format!("remove the quotes: {number}")),
        _ => None,
    };
    match remedy {
        Some(remedy) if !looks_secret(text) => format!("{} is not a status; {remedy}", quoted(text)),
        _ => message.to_owned(),
    }
}

/// How many known names are compared with one that is not.
const MOST_KNOWN: usize = 1000;

/// Returns a message for a name that refers to nothing.
pub(super) fn unknown_reference(place: &[Step], tree: &Value) -> Option<String> {
    let section = refers_to(place)?;
    let name = match value_at(tree, place) {
        Some(Value::String(name)) => name.as_str(),
        // A name before a colon refers to something too.
        _ => place.last()?.as_name()?,
    };
    let has = |section: &str| tree.get(section).is_some_and(|section| section.get(name).is_some());
    if has(section) {
        return None;
    }
    // A name is compared with every known one, which must not take long where both are many.
    let mut known = names(tree, section);
    known.truncate(MOST_KNOWN);
    let singular = singular(section)?;
    let start = format!("unknown {singular} {}", quoted(name));
    let other = sections().iter().find(|other| *other != section && has(other));
    let other = other.and_then(|other| super::sections::singular(other).map(|noun| format!("{name} is a {noun}")));
    let upstream = tree.get("models").and_then(Value::as_object).into_iter().flatten().take(MOST_KNOWN);
    let upstream = upstream.filter(|(_, model)| model.get("model").and_then(Value::as_str) == Some(name));
    let upstream = upstream.map(|(own, _)| format!("that is the provider's id of \"{own}\"; write {own}")).next();
    let remedy = proposal(name, known.iter().copied())
        .or(if section == "models" { upstream } else { None })
        .or(other.map(|other| match some_of(section, &known) {
            Some(known) => format!("{other}; {known}"),
            None => other,
        }))
        .or_else(|| some_of(section, &known))
        .unwrap_or_else(|| format!("the section {section} has no entry"));
    Some(format!("{start}; {remedy}"))
}

impl Mistake {
    /// Returns the names that the place accepts: serde lists them for one that it does not know.
    fn allowed(&self, tree: &Value) -> Vec<String> {
        let mut copy = tree.clone();
        match put(&mut copy, &self.place, Some(json!(""))).map(|()| Self::after_repair(&self.place, &copy)) {
            Some(Err(Self { kind: Kind::UnknownVariant(_, names), .. })) => names,
            _ => Vec::new(),
        }
    }
}
