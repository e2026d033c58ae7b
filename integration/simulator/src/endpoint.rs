//! The endpoints of a provider, under any prefix.

use hyper::{HeaderMap, Method, StatusCode};

use crate::dialect::Dialect;
use crate::rerank::Form;

/// An endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// OpenAI's chat completions.
    ChatCompletions,
    /// Anthropic's Messages.
    Messages,
    /// Anthropic's count of a request's tokens.
    CountTokens,
    /// OpenAI's Responses.
    Responses,
    /// OpenAI's count of a response's input tokens.
    InputTokens,
    /// One response that was stored: to get, or to delete.
    Response,
    /// Completions of a bare prompt.
    Completions,
    /// Embeddings.
    Embeddings,
    /// Moderations.
    Moderations,
    /// Images, made or edited.
    Images,
    /// Speech.
    Speech,
    /// Transcriptions and translations of recordings.
    Transcriptions,
    /// Rerank, in either form.
    Rerank(Form),
    /// The models, in the dialect that the headers tell.
    Models,
    /// One model.
    Model,
    /// vLLM's health.
    Health,
    /// Ollama's version.
    Version,
    /// No endpoint.
    Unknown,
}

/// The endpoints by the end of their path. The first that fits wins.
const KNOWN: [(&str, Method, Endpoint); 18] = [
    ("/chat/completions", Method::POST, Endpoint::ChatCompletions),
    ("/completions", Method::POST, Endpoint::Completions),
    ("/embeddings", Method::POST, Endpoint::Embeddings),
    ("/moderations", Method::POST, Endpoint::Moderations),
    ("/images/generations", Method::POST, Endpoint::Images),
    ("/images/edits", Method::POST, Endpoint::Images),
    ("/audio/speech", Method::POST, Endpoint::Speech),
    ("/audio/transcriptions", Method::POST, Endpoint::Transcriptions),
    ("/audio/translations", Method::POST, Endpoint::Transcriptions),
    ("/v2/rerank", Method::POST, Endpoint::Rerank(Form::Cohere)),
    ("/rerank", Method::POST, Endpoint::Rerank(Form::Jina)),
    ("/messages", Method::POST, Endpoint::Messages),
    ("/messages/count_tokens", Method::POST, Endpoint::CountTokens),
    ("/responses", Method::POST, Endpoint::Responses),
    ("/responses/input_tokens", Method::POST, Endpoint::InputTokens),
    ("/models", Method::GET, Endpoint::Models),
    ("/health", Method::GET, Endpoint::Health),
    ("/api/version", Method::GET, Endpoint::Version),
];

impl Endpoint {
    /// Returns the endpoint of a path, or the status for a method that it does not take.
    pub fn of(method: &Method, path: &str) -> Result<Self, StatusCode> {
        match KNOWN.iter().find(|(suffix, ..)| path.ends_with(suffix)) {
            Some((_, expected, endpoint)) if expected == method => Ok(*endpoint),
            Some(_) => Err(StatusCode::METHOD_NOT_ALLOWED),
            None if method == Method::GET && path.contains("/models/") => Ok(Self::Model),
            None if matches!(*method, Method::GET | Method::DELETE) && names_response(path) => Ok(Self::Response),
            None => Ok(Self::Unknown),
        }
    }

    /// Returns what is spoken at a path, whatever the method.
    pub fn dialect(path: &str, headers: &HeaderMap) -> Dialect {
        match KNOWN.iter().find(|(suffix, ..)| path.ends_with(suffix)) {
            Some((.., Self::Messages | Self::CountTokens)) => Dialect::Anthropic,
            Some((.., Self::Responses | Self::InputTokens)) => Dialect::Responses,
            Some((.., Self::Rerank(form))) => Dialect::Rerank(*form),
            Some((.., endpoint)) if *endpoint != Self::Models => Dialect::OpenAi,
            _ if headers.contains_key("anthropic-version") => Dialect::Anthropic,
            _ => Dialect::OpenAi,
        }
    }
}

/// Returns whether a path is that of one response, and not of a part of it.
fn names_response(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(before, id)| before.ends_with("/responses") && !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_by_its_end() {
        let of = |method, path| Endpoint::of(&method, path);
        assert_eq!(of(Method::POST, "/openai/v1/chat/completions"), Ok(Endpoint::ChatCompletions));
        assert_eq!(of(Method::POST, "/v1/messages/count_tokens"), Ok(Endpoint::CountTokens));
        assert_eq!(of(Method::GET, "/v1/messages"), Err(StatusCode::METHOD_NOT_ALLOWED));
        assert_eq!(of(Method::GET, "/v1/models/org/model"), Ok(Endpoint::Model));
        assert_eq!(of(Method::POST, "/v1/completions"), Ok(Endpoint::Completions));
        assert_eq!(of(Method::POST, "/v2/rerank"), Ok(Endpoint::Rerank(Form::Cohere)));
        assert_eq!(of(Method::POST, "/v1/rerank"), Ok(Endpoint::Rerank(Form::Jina)));
        assert_eq!(of(Method::POST, "/openai/responses"), Ok(Endpoint::Responses));
        assert_eq!(of(Method::DELETE, "/v1/responses/resp_1"), Ok(Endpoint::Response));
        assert_eq!(of(Method::GET, "/v1/responses/resp_1/input_items"), Ok(Endpoint::Unknown));
        assert_eq!(of(Method::POST, "/v1/nothing"), Ok(Endpoint::Unknown));
    }

    #[test]
    fn the_models_are_listed_in_the_callers_dialect() {
        let version = HeaderMap::from_iter([("anthropic-version".parse().unwrap(), "2023-06-01".parse().unwrap())]);
        assert_eq!(Endpoint::dialect("/v1/models", &version), Dialect::Anthropic);
        assert_eq!(Endpoint::dialect("/v1/models", &HeaderMap::new()), Dialect::OpenAi);
        assert_eq!(Endpoint::dialect("/v1/messages", &HeaderMap::new()), Dialect::Anthropic);
        assert_eq!(Endpoint::dialect("/v1/chat/completions", &version), Dialect::OpenAi);
    }
}
