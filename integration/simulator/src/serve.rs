//! Dispatches each request to its endpoint.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio_rustls::TlsAcceptor;

use crate::answer::{Ask, Circumstances, compose};
use crate::behavior::Behavior;
use crate::body::SimBody;
use crate::health::Health;
use crate::holds::Holds;
use crate::listen::Peer;
use crate::openai::{self, Refusal, Stamp};
use crate::record::{Exchange, Record};
use crate::reply::{self, Call, json_response};
use crate::rules::{Facts, Rules};
use crate::{control, directive};

/// The maximum size of a request body, in bytes.
const LARGEST_BODY: usize = 64 << 20;

/// What the flags set.
pub struct Settings {
    /// The provider it poses as.
    pub name: String,
    /// The models it lists.
    pub models: Vec<String>,
    /// Whether requests are kept.
    pub record: bool,
    /// The delay before the first token.
    pub ttft_ms: u64,
    /// The delay between chunks.
    pub chunk_ms: u64,
    /// The number of listeners.
    pub listeners: usize,
    /// The TLS acceptor, if TLS is enabled.
    pub tls: Option<TlsAcceptor>,
}

/// The simulator: everything that its requests share.
pub struct Sim {
    settings: Settings,
    obliging: Arc<Behavior>,
    /// The rules set by tests.
    pub rules: Rules,
    /// The log of requests.
    pub record: Arc<Record>,
    /// The answers to health checks.
    pub health: Health,
    /// The responses that wait to be released.
    pub holds: Holds,
}

impl Sim {
    /// Creates a simulator without rules, with every listener healthy.
    pub fn new(settings: Settings) -> Self {
        Self {
            obliging: Arc::default(),
            rules: Rules::default(),
            record: Arc::new(Record::new(settings.record)),
            health: Health::new(settings.listeners),
            holds: Holds::default(),
            settings,
        }
    }

    /// Returns the TLS acceptor, if TLS is enabled.
    pub fn tls(&self) -> Option<&TlsAcceptor> {
        self.settings.tls.as_ref()
    }
}

/// The endpoints of a provider, under any prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    ChatCompletions,
    Models,
    Health,
    Version,
    Unknown,
}

impl Endpoint {
    fn of(method: &Method, path: &str) -> Result<Self, StatusCode> {
        const KNOWN: [(&str, Method, Endpoint); 4] = [
            ("/chat/completions", Method::POST, Endpoint::ChatCompletions),
            ("/models", Method::GET, Endpoint::Models),
            ("/health", Method::GET, Endpoint::Health),
            ("/api/version", Method::GET, Endpoint::Version),
        ];
        match KNOWN.iter().find(|(suffix, ..)| path.ends_with(suffix)) {
            Some((_, expected, endpoint)) if expected == method => Ok(*endpoint),
            Some(_) => Err(StatusCode::METHOD_NOT_ALLOWED),
            None => Ok(Self::Unknown),
        }
    }
}

/// Answers one request.
pub async fn handle(
    sim: Arc<Sim>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<SimBody>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if let Some(path) = path.strip_prefix("/_sim/") {
        let body = Limited::new(body, LARGEST_BODY).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        return Ok(control::answer(&sim, &head.method, path, head.uri.query().unwrap_or_default(), &body));
    }
    let endpoint = Endpoint::of(&head.method, path);
    let listener = peer.place.index;
    if matches!(endpoint, Ok(Endpoint::Health | Endpoint::Version)) {
        return Ok(probe(&sim, listener, endpoint == Ok(Endpoint::Version)));
    }

    let mut exchange = sim.record.begin();
    let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await.map(|body| body.to_bytes()) else {
        exchange.keep(&peer, head, Bytes::new());
        let document = openai::error_document(StatusCode::PAYLOAD_TOO_LARGE, "").to_string();
        return Ok(json_response(StatusCode::PAYLOAD_TOO_LARGE, document, Some(exchange)));
    };
    exchange.keep(&peer, head.clone(), body.clone());
    let read = match endpoint {
        Ok(Endpoint::ChatCompletions) => Some(openai::read(&body)),
        _ => None,
    };
    let facts = Facts {
        looks: matches!(head.method, Method::GET | Method::HEAD),
        path,
        model: read.as_ref().and_then(|read| read.as_ref().ok()).map_or("", |ask| &ask.model),
        body: &body,
        listener,
        stream: matches!(&read, Some(Ok(Ask { stream: true, .. }))),
    };
    let rule = sim.rules.take(facts);
    let (ask, behavior) = match (read, rule) {
        (read, Some(behavior)) => (read.and_then(Result::ok).unwrap_or_default(), behavior),
        (Some(Ok(ask)), None) => match directive::find(&ask.last_text) {
            Ok(asked) => (ask, asked.map_or_else(|| Arc::clone(&sim.obliging), Arc::new)),
            Err(message) => {
                let refusal = Refusal { message, param: Some("messages"), code: Some("invalid_simulator_directive") };
                return Ok(refuse(StatusCode::BAD_REQUEST, &refusal, exchange));
            }
        },
        (Some(Err(refusal)), None) => return Ok(refuse(StatusCode::BAD_REQUEST, &refusal, exchange)),
        (None, None) => return Ok(other(&sim, &head.method, path, endpoint, exchange)),
    };
    let stamp = Stamp { id: format!("chatcmpl-sim-{:010}", exchange.number()), created: now() };
    let around = Circumstances {
        name: &sim.settings.name,
        number: exchange.number(),
        path: head.uri.path_and_query().map_or("", |path| path.as_str()),
        headers: &head.headers,
        body: &body,
    };
    if let Some(name) = &behavior.hold {
        sim.holds.released(name).await;
    }
    let call = Call {
        ask: &ask,
        behavior: &behavior,
        gzip: behavior.gzip.encodes(&head.headers),
        line: &peer.line,
        pace: (sim.settings.ttft_ms, sim.settings.chunk_ms),
    };
    Ok(reply::reply(call, stamp, exchange, || compose(&ask, &behavior, around)).await)
}

/// Answers a health check. The check is not recorded, and only `/_sim/health` sets its answer, not a rule.
fn probe(sim: &Sim, listener: usize, version: bool) -> Response<SimBody> {
    let status = sim.health.check(listener);
    json_response(status, if version && status.is_success() { r#"{"version":"0.0.0-sim"}"# } else { "" }, None)
}

/// Answers a request that is not a completion.
fn other(
    sim: &Sim,
    method: &Method,
    path: &str,
    endpoint: Result<Endpoint, StatusCode>,
    exchange: Exchange,
) -> Response<SimBody> {
    let (status, message) = match endpoint {
        Ok(Endpoint::Models) => {
            let document = openai::models(&sim.settings.models, now()).to_string();
            return json_response(StatusCode::OK, document, Some(exchange));
        }
        Ok(_) => (StatusCode::NOT_FOUND, format!("Invalid URL ({method} {path})")),
        Err(status) => {
            (status, format!("Not allowed to {method} on {path} (HINT: Perhaps you meant to use another method?)"))
        }
    };
    refuse(status, &Refusal { message, param: None, code: None }, exchange)
}

fn refuse(status: StatusCode, refusal: &Refusal, exchange: Exchange) -> Response<SimBody> {
    json_response(status, refusal.document().to_string(), Some(exchange))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
