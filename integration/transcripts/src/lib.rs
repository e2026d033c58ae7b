//! The corpus of transcripts: its files, read strictly, and what a careful client makes of an answer.
//!
//! The format is in the README beside the files. Tests replay each file through the stages and through a real Envoy.

pub mod answer;
mod generated;
pub mod pending;
mod sse;

use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// One answer of a provider, and what is to come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    /// Name of its file, without the ending.
    #[serde(skip)]
    pub name: String,
    /// Where the shape is documented or reported.
    pub source: String,
    /// What is special about it.
    pub about: String,
    /// Length of the prompt in bytes, where it matters.
    #[serde(default)]
    pub prompt_bytes: usize,
    /// Members of the request besides `model` and `messages`.
    #[serde(default)]
    pub request: Map<String, Value>,
    /// The provider's response.
    pub response: Response,
    /// What comes of it.
    pub expect: Expect,
}

/// A response as it is on the wire.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `content-type`, if there is one.
    pub content_type: Option<String>,
    /// Other headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// What comes of a response.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// How it ends.
    pub outcome: Outcome,
    /// The error's code, as the caller and the audit record have it.
    pub code: Option<String>,
    /// Status that the caller gets if every model fails in this way.
    pub status: Option<u16>,
    /// Whether the next model is asked.
    pub next: Option<bool>,
    /// Why the attempt failed, as the audit record has it.
    pub attempt: Option<String>,
    /// Texts that the caller's error message contains.
    #[serde(default)]
    pub says: Vec<String>,
    /// Content of the choices, in order of their index, separated by LF.
    #[serde(default)]
    pub text: String,
    /// Tool calls of the choices.
    #[serde(default)]
    pub tool_calls: Vec<ToolCall>,
    /// What is charged; of a failed answer nothing is.
    pub usage: Option<Usage>,
    /// Whether the cache may keep it.
    #[serde(default)]
    pub kept: bool,
    /// Texts that the caller's body contains.
    #[serde(default)]
    pub shows: Vec<String>,
    /// Texts that the caller's body does not contain.
    #[serde(default)]
    pub hides: Vec<String>,
    /// How official clients see it differently through the gateway, if they do, and why that is intended.
    pub difference: Option<String>,
}

/// How a response ends for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The caller gets it.
    Served,
    /// The caller gets an error with a status of its own.
    Failed,
    /// The caller gets the beginning of a stream, then an error event and no end marker.
    ErrorEvent,
}

/// A tool call, put together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Its id; empty if it has none, as the legacy `function_call`.
    #[serde(default)]
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments, as JSON text.
    pub arguments: String,
}

/// What is charged: exact numbers, and lower bounds for estimates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Input tokens.
    pub input: Option<u64>,
    /// Output tokens.
    pub output: Option<u64>,
    /// Input tokens read from the provider's cache.
    pub cached: u64,
    /// Input tokens written to the provider's cache.
    pub cache_write: Option<u64>,
    /// Whether any of it is marked as an estimate.
    pub estimated: bool,
    /// Least input tokens.
    pub min_input: Option<u64>,
    /// Least output tokens.
    pub min_output: Option<u64>,
}

impl Transcript {
    /// Whether the request asks for a stream.
    pub fn is_stream(&self) -> bool {
        self.request.get("stream") == Some(&Value::Bool(true))
    }

    /// Reads one file.
    ///
    /// # Errors
    /// What cannot be understood, or contradicts itself.
    pub fn read(name: &str, text: &str) -> Result<Self, String> {
        let fail = |problem: String| format!("{name}: {problem}");
        let mut read: Self = serde_saphyr::from_str(text).map_err(|error| fail(error.to_string()))?;
        read.name = name.to_owned();
        read.check().map(|()| read).map_err(fail)
    }

    fn check(&self) -> Result<(), String> {
        let Self { source, about, response, expect, .. } = self;
        let must = |holds: bool, problem: &str| if holds { Ok(()) } else { Err(problem.to_owned()) };
        must(!source.trim().is_empty() && !about.trim().is_empty(), "source and about say something")?;
        must((200..600).contains(&response.status), "response.status is between 200 and 599")?;
        let reserved = ["model", "messages"].iter().any(|name| self.request.contains_key(*name));
        must(!reserved, "request has neither model nor messages")?;
        let is_error = expect.outcome != Outcome::Served;
        must(expect.code.is_some() == is_error, "expect.code goes with the outcomes failed and error_event")?;
        let failed = expect.outcome == Outcome::Failed;
        must(
            expect.status.is_some() == failed && expect.next.is_some() == failed,
            "expect.status and expect.next go with the outcome failed",
        )?;
        must(expect.usage.is_some() != failed, "expect.usage goes with the outcomes served and error_event")?;
        must(!failed || expect.text.is_empty() && expect.tool_calls.is_empty(), "a failed answer has no text")?;
        must(!expect.kept || !is_error, "only what is served is kept")?;
        must(expect.attempt.is_none() && expect.says.is_empty() || failed, "expect.attempt and says go with failed")?;
        must(expect.outcome != Outcome::ErrorEvent || self.is_stream(), "only a stream has an error event")?;
        let said = expect.difference.as_ref().is_none_or(|difference| difference.trim().ends_with('.'));
        must(said, "expect.difference is a sentence")
    }
}

/// The whole corpus: every file, by name, and those that are too long to be files.
///
/// # Panics
/// If a file cannot be read or understood.
pub fn all() -> Vec<Transcript> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(folder).expect("reads the folder").map(|entry| entry.expect("reads the folder"));
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(|path| !path.is_dir()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml"));
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("the name is UTF-8");
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Transcript::read(name, &text).unwrap_or_else(|problem| panic!("{problem}"))
    };
    files.iter().map(read).chain(generated::all()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SERVED: &str = "
source: nowhere
about: A test.
response: {status: 200, body: '{}'}
expect: {outcome: served, usage: {input: 1, output: 2}}
";

    #[test]
    fn the_corpus_is_as_broad_as_promised() {
        let all = all();
        assert!(all.len() >= 45, "{}", all.len());
        let providers: BTreeSet<_> = all.iter().filter_map(|one| one.name.split_once('-')).map(|(p, _)| p).collect();
        assert!(providers.len() >= 15, "{providers:?}");
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused() {
        let read = |text: &str| Transcript::read("x-y", text).map(drop);
        assert_eq!(read(SERVED), Ok(()));
        for (from, to, problem) in [
            ("about:", "abuot:", "unknown field"),
            ("status: 200", "status: 99", "response.status"),
            ("outcome: served", "outcome: fine", "unknown variant"),
            ("outcome: served", "outcome: served, code: x", "expect.code"),
            ("outcome: served", "outcome: failed, code: x", "expect.status and expect.next"),
            ("outcome: served", "outcome: error_event, code: x", "only a stream"),
            (", usage: {input: 1, output: 2}", "", "expect.usage"),
            ("response:", "request: {model: x}\nresponse:", "neither model nor messages"),
        ] {
            assert!(SERVED.contains(from));
            let error = read(&SERVED.replace(from, to)).unwrap_err();
            assert!(error.contains(problem), "{to}: {error}");
        }
    }
}
