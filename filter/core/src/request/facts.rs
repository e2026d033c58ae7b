//! What decisions need to know of a request, in no dialect: the reader of each dialect fills it in.
//!
//! Nothing of the prompt is decoded or copied: texts are where they stand in the body.

use crate::request::prompt::PromptFields;
use crate::wire::json::{self, InvalidJson, Scanned, Span};
use std::borrow::Cow;
use std::sync::OnceLock;

/// A top-level member of the request.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Its name, escapes decoded.
    pub name: Cow<'a, str>,
    /// Where its key is, quotes included.
    pub key: Span,
    /// Its value.
    pub value: Scanned,
}

/// What a request says.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The whole body.
    pub body: &'a [u8],
    /// The top-level members, in order: their names are the parameters that a model takes or does not.
    pub members: Vec<Member<'a>>,
    /// The model or the task that is asked for by name.
    pub model: Option<Cow<'a, str>>,
    /// The task that the request names besides.
    pub task: Option<Cow<'a, str>>,
    /// The prompt that the request names.
    pub prompt: PromptFields,
    /// The end user, as the caller names it.
    pub user: Option<Cow<'a, str>>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the caller of a stream wants to be told its usage.
    pub wants_usage: bool,
    /// The limits that it sets to the output.
    pub output: AskedOutput,
    /// How many answers are asked for.
    pub choices: u64,
    /// Names of the tools offered, at most [`MAX_TOOL_NAMES`].
    pub tool_names: Vec<Cow<'a, str>>,
    /// Whether any tool is offered.
    pub has_tools: bool,
    /// Whether the answer must follow a JSON Schema.
    pub wants_json_schema: bool,
    /// Whether a message has an image.
    pub has_image: bool,
    /// Where the images are: their addresses, or they themselves.
    pub images: Vec<Span>,
    /// Where sound, films and files are: they themselves, or their addresses.
    pub files: Vec<Span>,
    /// Where the system prompt is; empty where the messages hold it.
    pub system: Span,
    /// Where the messages are.
    pub messages: Span,
    /// `temperature`, where it is a number.
    pub temperature: Option<Span>,
    /// `seed`, where it is a number.
    pub seed: Option<Span>,
    characters: OnceLock<usize>,
}

/// The output limits of a request, in tokens of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AskedOutput {
    /// What the caller asked for: the smaller one where it sent two.
    pub least: Option<u64>,
    /// The most that a server may take the request to ask for which gets the limits under the names that the caller
    /// used; `None` where it may see no limit.
    pub as_written: Option<u64>,
}

/// Tool names kept for the audit record.
pub const MAX_TOOL_NAMES: usize = 32;

/// Why a body is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidRequest {
    /// It is no JSON.
    Json(InvalidJson),
    /// A field is wrong: its name, and a message.
    Field(String, String),
}

impl From<InvalidJson> for InvalidRequest {
    fn from(error: InvalidJson) -> Self {
        Self::Json(error)
    }
}

impl<'a> Facts<'a> {
    /// Of a body in which nothing has been found yet.
    pub fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            members: Vec::with_capacity(16),
            model: None,
            task: None,
            prompt: PromptFields::default(),
            user: None,
            stream: false,
            wants_usage: false,
            output: AskedOutput::default(),
            choices: 1,
            tool_names: Vec::new(),
            has_tools: false,
            wants_json_schema: false,
            has_image: false,
            images: Vec::new(),
            files: Vec::new(),
            system: 0..0,
            messages: 0..0,
            temperature: None,
            seed: None,
            characters: OnceLock::new(),
        }
    }

    /// About how many bytes what was found takes, besides the body and `Self`.
    pub fn bytes_found(&self) -> usize {
        // With escapes a text is not as it stands in the body.
        let owned = |text: &Cow<'_, str>| match text {
            Cow::Owned(text) => text.len(),
            Cow::Borrowed(_) => 0,
        };
        let names = self.members.iter().map(|member| &member.name).chain(&self.tool_names);
        let texts = names.chain([&self.model, &self.task, &self.user].into_iter().flatten());
        self.members.capacity() * size_of::<Member<'_>>()
            + self.tool_names.capacity() * size_of::<Cow<'_, str>>()
            + (self.images.capacity() + self.files.capacity()) * size_of::<Span>()
            + texts.map(owned).sum::<usize>()
    }

    /// The top-level member of this name.
    pub fn member(&self, name: &str) -> Option<&Member<'a>> {
        self.members.iter().find(|m| m.name == name)
    }

    /// The bytes of `span`.
    pub fn bytes(&self, span: &Span) -> &'a [u8] {
        self.body.get(span.clone()).unwrap_or_default()
    }

    /// Bytes of the prompt: system prompt and messages.
    pub fn prompt_bytes(&self) -> usize {
        self.system.len() + self.messages.len()
    }

    /// Characters of the prompt: white space around its members, and what escapes are longer than what they stand for,
    /// are none; nor is what a part of a message has besides text.
    pub fn prompt_characters(&self) -> usize {
        let characters = |span: &Span| json::characters(self.bytes(span));
        *self.characters.get_or_init(|| {
            let all = characters(&self.system) + characters(&self.messages);
            all.saturating_sub(self.files.iter().map(characters).sum())
        })
    }

    /// The number at `span`.
    pub fn number(&self, span: &Span) -> Option<f64> {
        std::str::from_utf8(self.bytes(span)).ok()?.parse().ok()
    }
}
