//! The facts about a request that decisions are based on, independent of dialects. Each dialect's reader fills them in.
//!
//! The prompt is neither decoded nor copied: its texts are spans of the body.

use crate::config::Dialect;
use crate::outcome::outcome::Outcome;
use crate::request::needs::{Need, Needs};
use crate::request::prompt::PromptFields;
use crate::request::strange::{Strange, StrangeField};
use crate::service_tier::ServiceTier;
use crate::wire::json::{self, InvalidJson, Kind, Scanned, Scanner, Span, unquote};
use std::borrow::Cow;
use std::sync::OnceLock;

/// A top-level member of the request.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Its name, with escapes decoded.
    pub name: Cow<'a, str>,
    /// Span of its key, quotes included.
    pub key: Span,
    /// Its value.
    pub value: Scanned,
}

/// Where a request goes at a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The dialect that the provider must speak.
    pub dialect: Dialect,
    /// The path after the provider's base path.
    pub path: &'static str,
}

/// The contents of a request.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Where it goes at a provider.
    pub target: Target,
    /// The whole body.
    pub body: &'a [u8],
    /// The top-level members, in order. Their names are the parameters that a model accepts or rejects.
    pub members: Vec<Member<'a>>,
    /// The requested model or task.
    pub model: Option<Cow<'a, str>>,
    /// The task that is named separately from the model.
    pub task: Option<Cow<'a, str>>,
    /// Why what the request calls a task cannot be one.
    pub invalid_task: Option<Box<InvalidField>>,
    /// The prompt that the request names.
    pub prompt: PromptFields,
    /// The end user, as named by the caller.
    pub user: Option<Cow<'a, str>>,
    /// Whether to stream the answer.
    pub stream: bool,
    /// Whether the caller of a stream asks for its usage.
    pub wants_usage: bool,
    /// The service tier that the caller asks for, other than the base one.
    pub service_tier: Option<ServiceTier>,
    /// The output limits that the caller set.
    pub output: AskedOutput,
    /// The number of answers requested.
    pub choices: u64,
    /// The number of answers that are generated: more than requested if the best of them are chosen.
    pub generated: u64,
    /// Names of the offered tools, up to [`MAX_TOOL_NAMES`].
    pub tool_names: Vec<Cow<'a, str>>,
    /// What a model must be able to do beyond text.
    pub needs: Needs,
    /// Top-level fields that may change what the request costs in a way that no price covers.
    pub strange: Vec<StrangeField>,
    /// Spans of the images, in order: inline data or URLs. One that only the type of its part reveals is empty.
    pub images: Vec<Span>,
    /// Spans of audio, video, files and media of unknown kinds, in order: inline data or references.
    pub files: Vec<Span>,
    /// Span of the system prompt; empty if the messages contain it.
    pub system: Span,
    /// Span of the messages.
    pub messages: Span,
    /// `temperature`, if it is a number.
    pub temperature: Option<Span>,
    /// `seed`, if it is a number.
    pub seed: Option<Span>,
    characters: OnceLock<usize>,
}

/// The output limits of a request, in tokens per answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AskedOutput {
    /// The caller's limit: the smaller one if it sent two.
    pub least: Option<u64>,
    /// The highest limit that a server may apply if it gets the limits under the caller's names for them; `None` if it
    /// may see no limit.
    pub as_written: Option<u64>,
    /// Tokens that an answer may have whatever its limit says, because a server may go by another field.
    pub raised: u64,
    /// Tokens that an answer may have besides those that its limit covers.
    pub beside: u64,
}

/// Most tool names kept for the audit record.
pub const MAX_TOOL_NAMES: usize = 32;

/// So many top-level members as few requests exceed.
pub const COMMON_MEMBERS: usize = 16;

/// Most URLs of a request that are kept until its answer.
pub const MAX_URLS: usize = 16;

/// Longest of them, in bytes.
const MAX_URL: usize = 2048;

/// Why a body is not a valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidRequest {
    /// It is not valid JSON.
    Json(InvalidJson),
    /// A field is wrong.
    Field(InvalidField),
}

/// What is wrong with a field or a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    /// Its name or path.
    pub param: String,
    /// The code for callers: OpenAI's, where its API has one.
    pub code: Outcome,
    /// A message for people.
    pub message: String,
}

impl From<InvalidJson> for InvalidRequest {
    fn from(error: InvalidJson) -> Self {
        Self::Json(error)
    }
}

impl<'a> Facts<'a> {
    /// Creates empty facts about a body.
    pub fn new(target: Target, body: &'a [u8]) -> Self {
        Self {
            target,
            body,
            members: Vec::with_capacity(COMMON_MEMBERS),
            model: None,
            task: None,
            invalid_task: None,
            prompt: PromptFields::default(),
            user: None,
            stream: false,
            wants_usage: false,
            service_tier: None,
            output: AskedOutput::default(),
            choices: 1,
            generated: 1,
            tool_names: Vec::new(),
            needs: Needs::default(),
            strange: Vec::new(),
            images: Vec::new(),
            files: Vec::new(),
            system: 0..0,
            messages: 0..0,
            temperature: None,
            seed: None,
            characters: OnceLock::new(),
        }
    }

    /// Returns the approximate memory of the facts in bytes, besides the body and `Self`.
    pub fn bytes_found(&self) -> usize {
        // Texts with escapes are decoded into separate memory.
        let owned = |text: &Cow<'_, str>| match text {
            Cow::Owned(text) => text.len(),
            Cow::Borrowed(_) => 0,
        };
        let names = self.members.iter().map(|member| &member.name).chain(&self.tool_names);
        let texts = names.chain([&self.model, &self.task, &self.user].into_iter().flatten());
        self.members.capacity() * size_of::<Member<'_>>()
            + self.tool_names.capacity() * size_of::<Cow<'_, str>>()
            + self.strange.capacity() * size_of::<StrangeField>()
            + (self.images.capacity() + self.files.capacity()) * size_of::<Span>()
            + texts.map(owned).sum::<usize>()
    }

    /// Adds an image, or another medium, at `span`.
    pub fn add_medium(&mut self, need: Need, span: Span) {
        self.needs.add(need);
        let all = if need == Need::Image { &mut self.images } else { &mut self.files };
        // Almost always the last place.
        let place = all.partition_point(|before| before.start <= span.start);
        all.insert(place, span);
    }

    /// Returns the top-level member with this name.
    pub fn member(&self, name: &str) -> Option<&Member<'a>> {
        self.members.iter().find(|m| m.name == name)
    }

    /// Returns why the field of this name does not simply pass; `None` if it does.
    pub fn strange(&self, name: &str) -> Option<Strange> {
        // Nearly every request has none.
        self.strange_fields().find(|(other, _)| *other == name).map(|(_, strange)| strange)
    }

    /// Returns the names of the fields that do not simply pass, with the reasons.
    pub fn strange_fields(&self) -> impl Iterator<Item = (&str, Strange)> {
        self.strange.iter().filter_map(|field| Some((&*self.members.get(field.member)?.name, field.strange)))
    }

    /// Returns the bytes of `span`.
    pub fn bytes(&self, span: &Span) -> &'a [u8] {
        self.body.get(span.clone()).unwrap_or_default()
    }

    /// Returns the bytes of the prompt: system prompt and messages.
    pub fn prompt_bytes(&self) -> usize {
        self.system.len() + self.messages.len()
    }

    /// Returns the characters of the JSON strings in system prompt and messages, names of members included. An escape
    /// counts as one character. Audio, video and files do not count.
    pub fn prompt_characters(&self) -> usize {
        let characters = |span: &Span| json::characters(self.bytes(span));
        *self.characters.get_or_init(|| {
            let all = characters(&self.system) + characters(&self.messages);
            all.saturating_sub(self.files.iter().map(characters).sum())
        })
    }

    /// Returns the URLs of images, audio, video and files, at most [`MAX_URLS`] that are not too long to be repeated in
    /// an error. Inline data does not count.
    pub fn urls(&self) -> Vec<Box<str>> {
        let mut urls = Vec::new();
        for span in self.images.iter().chain(&self.files) {
            let mut scanner = Scanner::new(self.bytes(span), u32::MAX);
            let mut note = |s: &Scanner, value: &Scanned| {
                let text = s.bytes(&value.span);
                if value.kind == Kind::String && text.starts_with(b"\"http") && text.len() <= MAX_URL {
                    urls.extend(unquote(text).filter(|_| urls.len() < MAX_URLS).map(|url| Box::from(&*url)));
                }
            };
            // It was scanned before, so it cannot fail. If it did, an error would not repeat the URL.
            let _: Result<(), InvalidJson> = match scanner.peek() {
                Ok(Kind::Object) => scanner.object(|s, _| s.value().map(|value| note(s, &value))),
                Ok(_) => scanner.value().map(|value| note(&scanner, &value)),
                Err(error) => Err(error),
            };
        }
        urls
    }

    /// Returns the number at `span`.
    pub fn number(&self, span: &Span) -> Option<f64> {
        std::str::from_utf8(self.bytes(span)).ok()?.parse().ok()
    }
}
