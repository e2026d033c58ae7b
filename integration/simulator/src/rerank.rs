//! Rerank, in Cohere's form and in Jina's: a document's relevance is the share of the query's words that it has.

use std::collections::HashSet;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Ask, Stamp, Usage};
use crate::refusal::Refusal;

/// Whose form it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Cohere's, at `/v2/rerank`.
    Cohere,
    /// Jina's, which vLLM and others share, at any other path.
    Jina,
}

/// Reads a request.
pub fn read(form: Form, body: &[u8]) -> Result<Ask, Refusal> {
    let status = if form == Form::Cohere { StatusCode::BAD_REQUEST } else { StatusCode::UNPROCESSABLE_ENTITY };
    let refuse = |message: &str| Refusal::with(status, message);
    let document: Value = serde_json::from_slice(body).map_err(|_| refuse("invalid json syntax"))?;
    let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
    let query = text("query").ok_or_else(|| refuse("invalid request: query is required"))?;
    let model = text("model").ok_or_else(|| refuse("invalid request: model is required"))?;
    let documents = document.get("documents").and_then(Value::as_array).filter(|documents| !documents.is_empty());
    let documents = documents.ok_or_else(|| refuse("invalid request: list of documents must not be empty"))?;
    let bytes = documents.iter().map(|document| words(document).len() as u64).sum::<u64>() + query.len() as u64;
    let prompt_tokens = bytes.div_ceil(4);
    Ok(Ask { model, last_text: query, prompt_tokens, asked: document, ..Ask::default() })
}

fn words(document: &Value) -> &str {
    document.as_str().or_else(|| document.get("text").and_then(Value::as_str)).unwrap_or_default()
}

/// Returns the documents' places in the order of their relevance.
pub fn document(form: Form, stamp: Stamp, ask: &Ask, usage: &Usage) -> Value {
    let given = ask.asked.get("documents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let asked: HashSet<String> = ask.last_text.split_whitespace().map(str::to_lowercase).collect();
    let score = |text: &str| {
        let has: HashSet<String> = text.split_whitespace().map(str::to_lowercase).collect();
        asked.intersection(&has).count() as f64 / asked.len().max(1) as f64
    };
    let mut ranked: Vec<(usize, f64)> =
        given.iter().enumerate().map(|(index, document)| (index, score(words(document)))).collect();
    ranked.sort_by(|one, other| other.1.total_cmp(&one.1));
    let top = ask.asked.get("top_n").and_then(Value::as_u64).and_then(|top| usize::try_from(top).ok());
    ranked.truncate(top.unwrap_or(usize::MAX));
    let returned = ask.asked.get("return_documents").and_then(Value::as_bool).unwrap_or(form == Form::Jina);
    let result = |(index, score): &(usize, f64)| {
        let mut result = json!({"index": index, "relevance_score": score});
        if let Some(document) = given.get(*index).filter(|_| returned && form == Form::Jina)
            && let Some(members) = result.as_object_mut()
        {
            members.insert("document".to_owned(), json!({"text": words(document)}));
        }
        result
    };
    let results: Vec<Value> = ranked.iter().map(result).collect();
    match (form, usage) {
        (Form::Cohere, Usage::Omit) => json!({"id": stamp.id("rerank-sim-"), "results": results}),
        (Form::Cohere, Usage::Given(meta)) => {
            json!({"id": stamp.id("rerank-sim-"), "results": results, "meta": meta})
        }
        (Form::Cohere, Usage::Tokens { .. }) => {
            let meta = json!({"api_version": {"version": "2"}, "billed_units": {"search_units": 1}});
            json!({"id": stamp.id("rerank-sim-"), "results": results, "meta": meta})
        }
        (Form::Jina, Usage::Omit) => json!({"model": ask.model, "object": "list", "results": results}),
        (Form::Jina, Usage::Given(usage)) => {
            json!({"model": ask.model, "object": "list", "usage": usage, "results": results})
        }
        (Form::Jina, Usage::Tokens { input, .. }) => {
            json!({"model": ask.model, "object": "list", "usage": {"total_tokens": input}, "results": results})
        }
    }
}

/// Returns the error document.
pub fn error(form: Form, message: &str) -> Value {
    match form {
        Form::Cohere => json!({"message": message}),
        Form::Jina => json!({"detail": message}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_relevant_comes_first() {
        let body = json!({"model": "r", "query": "red train", "top_n": 2,
            "documents": ["a blue car", {"text": "the red train"}, "a Red car"]});
        let ask = read(Form::Jina, body.to_string().as_bytes()).unwrap();
        let made = document(Form::Jina, Stamp { number: 1, created: 5 }, &ask, &Usage::Omit);
        assert_eq!(
            made["results"],
            json!([{"index": 1, "relevance_score": 1.0, "document": {"text": "the red train"}},
                {"index": 2, "relevance_score": 0.5, "document": {"text": "a Red car"}}])
        );
        let made = document(Form::Cohere, Stamp { number: 1, created: 5 }, &ask, &Usage::Omit);
        assert_eq!(made["results"][0], json!({"index": 1, "relevance_score": 1.0}));
    }

    #[test]
    fn what_is_required_is_missed() {
        let body = br#"{"model":"r","query":"q","documents":[]}"#;
        assert_eq!(read(Form::Cohere, body).unwrap_err().status, StatusCode::BAD_REQUEST);
        assert_eq!(read(Form::Jina, b"{}").unwrap_err().status, StatusCode::UNPROCESSABLE_ENTITY);
    }
}
