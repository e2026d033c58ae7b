//! Reads the request of each endpoint, and says what a well-behaved provider answers there.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Ask, Circumstances, Said, Stamp, compose};
use crate::anthropic::{self, Purpose};
use crate::behavior::Behavior;
use crate::dialect::Dialect;
use crate::endpoint::Endpoint;
use crate::openai;
use crate::refusal::Refusal;
use crate::rerank;
use crate::responses::{self, Response, Store};
use crate::sse::{Event, Framing};

/// The content type of a JSON document.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is answered, before faults.
pub enum Speech {
    /// A document.
    Document {
        /// Its type.
        content_type: HeaderValue,
        /// Its bytes.
        bytes: Vec<u8>,
        /// The number of content chunks that its stream would have.
        chunks: usize,
    },
    /// The events of a stream.
    Events(Box<dyn Iterator<Item = Event> + Send>),
}

impl Speech {
    fn json(bytes: impl Into<Vec<u8>>, chunks: usize) -> Self {
        Self::Document { content_type: JSON, bytes: bytes.into(), chunks }
    }
}

/// Reads what a request asks for at an endpoint. `models` are those that the provider lists, `store` has its responses.
pub fn read(
    endpoint: Result<Endpoint, StatusCode>,
    models: &[String],
    store: &Store,
    head: &Parts,
    body: &[u8],
    place: usize,
) -> Result<Ask, Refusal> {
    let (method, path) = (&head.method, head.uri.path());
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match endpoint {
        Ok(Endpoint::ChatCompletions) => openai::read(body),
        Ok(Endpoint::Messages) => anthropic::read(&head.headers, body, place, Purpose::Answer),
        Ok(Endpoint::CountTokens) => {
            anthropic::read(&head.headers, body, place, Purpose::Count).map(|ask| Ask { stream: false, ..ask })
        }
        Ok(Endpoint::Completions) => openai::completions::read(body),
        Ok(Endpoint::Embeddings) => openai::embeddings::read(body),
        Ok(Endpoint::Moderations) => openai::moderations::read(body),
        Ok(Endpoint::Images) => openai::images::read(content_type, body),
        Ok(Endpoint::Speech) => openai::audio::read_speech(body),
        Ok(Endpoint::Transcriptions) => openai::audio::read_transcription(content_type, body),
        Ok(Endpoint::Rerank(form)) => rerank::read(form, body),
        Ok(Endpoint::Responses) => responses::read(store, body, place, responses::Purpose::Answer),
        Ok(Endpoint::InputTokens) => responses::read(store, body, place, responses::Purpose::Count),
        Ok(Endpoint::Response) => responses::find(store, place, path).map(|_| Ask::default()),
        Ok(Endpoint::Models) => Ok(Ask::default()),
        Ok(Endpoint::Model) => model(models, path),
        Ok(Endpoint::Health | Endpoint::Version | Endpoint::Unknown) => {
            Err(Refusal::with(StatusCode::NOT_FOUND, format!("Invalid URL ({method} {path})")))
        }
        Err(status) => Err(Refusal::with(status, not_allowed(method, path))),
    }
}

fn not_allowed(method: &Method, path: &str) -> String {
    format!("Not allowed to {method} on {path} (HINT: Perhaps you meant to use another method?)")
}

/// Reads which of the listed models a path names.
fn model(models: &[String], path: &str) -> Result<Ask, Refusal> {
    let name = path.split_once("/models/").map_or("", |(_, name)| name);
    if models.iter().any(|model| model == name) {
        return Ok(Ask { model: name.to_owned(), ..Ask::default() });
    }
    let refusal = Refusal::with(StatusCode::NOT_FOUND, format!("The model '{name}' does not exist"));
    Err(Refusal { param: Some("model".to_owned()), code: Some("model_not_found"), ..refusal })
}

/// Who answers what, and where.
pub struct Scene<'a> {
    /// Where it was asked. A rule can make any path answer, and one that is unknown answers as chat completions.
    pub endpoint: Endpoint,
    /// The dialect of the answer.
    pub dialect: Dialect,
    /// The models that the provider lists.
    pub models: &'a [String],
    /// The responses that the providers stored.
    pub store: &'a Store,
    /// What identifies the answer.
    pub stamp: Stamp,
    /// What is asked.
    pub ask: &'a Ask,
    /// How to answer.
    pub behavior: &'a Behavior,
    /// The rest of the request.
    pub around: Circumstances<'a>,
}

/// Says what a well-behaved provider answers.
pub fn say(scene: &Scene<'_>, framing: Framing) -> Speech {
    let Scene { endpoint, dialect, models, store, stamp, ask, behavior, around } = *scene;
    match endpoint {
        Endpoint::CountTokens => Speech::json(json!({"input_tokens": ask.prompt_tokens}).to_string(), 1),
        Endpoint::Models if dialect == Dialect::Anthropic => Speech::json(anthropic::models(models).to_string(), 1),
        Endpoint::Models => Speech::json(openai::models(models, stamp.created).to_string(), 1),
        Endpoint::Model if dialect == Dialect::Anthropic => Speech::json(anthropic::model(&ask.model).to_string(), 1),
        Endpoint::Model => Speech::json(openai::model(&ask.model, stamp.created).to_string(), 1),
        Endpoint::Messages => {
            let answer = compose(ask, behavior, around);
            if ask.stream {
                let start = behavior.usage_start.as_ref();
                return Speech::Events(Box::new(anthropic::events(stamp, ask, answer, start, framing)));
            }
            Speech::json(anthropic::document(stamp, ask, &answer), answer.chunks().max(1))
        }
        Endpoint::Completions => {
            let answer = compose(ask, behavior, around);
            if ask.stream {
                return Speech::Events(Box::new(openai::completions::events(stamp, ask, answer, framing)));
            }
            Speech::json(openai::completions::document(stamp, ask, &answer), answer.chunks().max(1))
        }
        Endpoint::Embeddings
        | Endpoint::Moderations
        | Endpoint::Images
        | Endpoint::Speech
        | Endpoint::Transcriptions
        | Endpoint::Rerank(_) => single(scene),
        Endpoint::InputTokens => {
            let counted = json!({"object": "response.input_tokens", "input_tokens": ask.prompt_tokens});
            Speech::json(counted.to_string(), 1)
        }
        Endpoint::Responses => response(scene, framing),
        Endpoint::Response => {
            let path = around.path.split('?').next().unwrap_or_default();
            let Ok(found) = responses::find(store, around.place, path) else { return Speech::json("{}", 1) };
            if around.method == Method::GET {
                return Speech::json(found.document.clone(), 1);
            }
            store.forget(around.place, &found.id);
            let deleted = json!({"id": found.id, "object": "response.deleted", "deleted": true});
            Speech::json(deleted.to_string(), 1)
        }
        Endpoint::ChatCompletions | Endpoint::Health | Endpoint::Version | Endpoint::Unknown => {
            let answer = compose(ask, behavior, around);
            if ask.stream {
                return Speech::Events(Box::new(openai::events(&stamp, ask, answer, framing)));
            }
            Speech::json(openai::document(&stamp, ask, &answer), answer.chunks().max(1))
        }
    }
}

/// Says a response, and stores it unless the request forbids that.
fn response(scene: &Scene<'_>, framing: Framing) -> Speech {
    let Scene { store, stamp, ask, behavior, around, .. } = *scene;
    let answer = compose(ask, behavior, around);
    let chunks = answer.chunks().max(1);
    let (document, status) = responses::finished(stamp, ask, &answer);
    if ask.asked.get("store") != Some(&Value::Bool(false)) {
        let (document, place) = (document.clone(), around.place);
        let tokens = ask.prompt_tokens + chunks as u64;
        store.keep(Response { place, id: responses::id(stamp), document, tokens });
    }
    if ask.stream {
        return Speech::Events(Box::new(responses::events(stamp, ask, answer, (document, status), framing)));
    }
    Speech::json(document, chunks)
}

/// Says what an endpoint answers that never streams.
fn single(scene: &Scene<'_>) -> Speech {
    let Scene { endpoint, stamp, ask, behavior, around, .. } = *scene;
    let answer = compose(ask, behavior, around);
    let usage = &answer.usage;
    match endpoint {
        Endpoint::Embeddings => Speech::json(openai::embeddings::document(ask, usage), 1),
        Endpoint::Moderations => Speech::json(openai::moderations::document(stamp, ask).to_string(), 1),
        Endpoint::Images => Speech::json(openai::images::document(stamp, ask, usage).to_string(), 1),
        Endpoint::Rerank(form) => Speech::json(rerank::document(form, stamp, ask, usage).to_string(), 1),
        Endpoint::Speech => {
            let (content_type, bytes) = openai::audio::speech(ask);
            Speech::Document { content_type, bytes, chunks: 1 }
        }
        _ => {
            let text = match &answer.said {
                Said::Text(text) => text.text(),
                Said::Calls(_) => "",
            };
            let (content_type, text) = openai::audio::transcription(ask, text, usage);
            Speech::Document { content_type, bytes: text.into_bytes(), chunks: 1 }
        }
    }
}
