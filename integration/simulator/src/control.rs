//! The control API under `/_sim/`.

use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::body::SimBody;
use crate::record::Wanted;
use crate::reply::json_response;
use crate::serve::Sim;

/// Answers one control request. `path` is the part after `/_sim/`.
pub fn answer(sim: &Sim, method: &Method, path: &str, query: &str, body: &[u8]) -> Response<SimBody> {
    let answered = match (method.as_str(), path) {
        ("POST", "rules") => sim.rules.add(body).map(|added| json!({"added": added})),
        ("GET", "rules") => Ok(sim.rules.list()),
        ("DELETE", "rules") => Ok(json!({"removed": sim.rules.clear()})),
        ("GET", "requests") => since(query).map(|since| sim.record.list(&Wanted::after(since))),
        ("POST", "requests") => wanted(body).map(|wanted| sim.record.list(&wanted)),
        ("GET", "requests/count") => Ok(sim.record.counts()),
        ("DELETE", "requests") => {
            sim.record.clear();
            Ok(json!({}))
        }
        ("POST", "release") => sim.holds.release(body),
        ("POST", "health") => sim.health.set(body).map(|()| sim.health.list()),
        ("GET", "health") => Ok(sim.health.list()),
        _ => return respond(StatusCode::NOT_FOUND, &refusal(&format!("no {method} /_sim/{path}"))),
    };
    match answered {
        Ok(document) => respond(StatusCode::OK, &document),
        Err(message) => respond(StatusCode::BAD_REQUEST, &refusal(&message)),
    }
}

fn respond(status: StatusCode, document: &Value) -> Response<SimBody> {
    json_response(status, document.to_string(), None)
}

fn refusal(message: &str) -> Value {
    json!({"error": message})
}

/// Returns the number in `?since=N`; 0 without one.
fn since(query: &str) -> Result<u64, String> {
    match query.split('&').find_map(|pair| pair.strip_prefix("since=")) {
        None => Ok(0),
        Some(number) => number.parse().map_err(|_| format!("since: {number:?} is not a number")),
    }
}

/// Reads which requests are wanted.
fn wanted(body: &[u8]) -> Result<Wanted, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_number_or_nothing() {
        assert_eq!(since(""), Ok(0));
        assert_eq!(since("a=1&since=12"), Ok(12));
        assert_eq!(since("since=x").unwrap_err(), "since: \"x\" is not a number");
    }
}
