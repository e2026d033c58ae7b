//! Dispatches each request to its endpoint.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio_rustls::TlsAcceptor;

use crate::answer::{Ask, Circumstances, Stamp};
use crate::behavior::Behavior;
use crate::body::SimBody;
use crate::endpoint::Endpoint;
use crate::health::Health;
use crate::holds::Holds;
use crate::listen::Peer;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::reply::{self, Call, json_response};
use crate::responses::Store;
use crate::rules::{Facts, Rules};
use crate::speech::{self, Scene};
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
    /// The responses that the providers stored.
    pub responses: Store,
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
            responses: Store::default(),
            settings,
        }
    }

    /// Returns the TLS acceptor, if TLS is enabled.
    pub fn tls(&self) -> Option<&TlsAcceptor> {
        self.settings.tls.as_ref()
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
    let dialect = Endpoint::dialect(path, &head.headers);
    let stamp = Stamp { number: exchange.number(), created: now() };
    let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await.map(|body| body.to_bytes()) else {
        exchange.keep(&peer, head, Bytes::new());
        let document = dialect.error_document(StatusCode::PAYLOAD_TOO_LARGE, "", stamp).to_string();
        let mut response = json_response(StatusCode::PAYLOAD_TOO_LARGE, document, Some(exchange));
        response.headers_mut().extend(dialect.headers(stamp));
        return Ok(response);
    };
    exchange.keep(&peer, head.clone(), body.clone());
    let read = speech::read(endpoint, &sim.settings.models, &sim.responses, &head, &body, listener);
    let facts = Facts {
        looks: matches!(head.method, Method::GET | Method::HEAD),
        path,
        model: read.as_ref().map_or("", |ask| &ask.model),
        body: &body,
        listener,
        stream: matches!(&read, Ok(Ask { stream: true, .. })),
    };
    let rule = sim.rules.take(facts);
    let (ask, behavior) = match (read, rule) {
        (read, Some(behavior)) => (read.unwrap_or_default(), behavior),
        (Ok(ask), None) => match directive::find(&ask.last_text) {
            Ok(asked) => (ask, asked.map_or_else(|| Arc::clone(&sim.obliging), Arc::new)),
            Err(message) => {
                let refusal = Refusal::of("messages", Some("invalid_simulator_directive"), message);
                return Ok(reply::refuse(dialect, stamp, &refusal, exchange));
            }
        },
        (Err(refusal), None) => return Ok(reply::refuse(dialect, stamp, &refusal, exchange)),
    };
    let around = Circumstances {
        name: &sim.settings.name,
        place: listener,
        number: exchange.number(),
        method: &head.method,
        path: head.uri.path_and_query().map_or("", |path| path.as_str()),
        headers: &head.headers,
        body: &body,
    };
    if let Some(name) = &behavior.hold {
        sim.holds.released(name).await;
    }
    let call = Call {
        dialect,
        stamp,
        ask: &ask,
        behavior: &behavior,
        gzip: behavior.gzip.encodes(&head.headers),
        line: &peer.line,
        pace: (sim.settings.ttft_ms, sim.settings.chunk_ms),
    };
    let endpoint = endpoint.unwrap_or(Endpoint::Unknown);
    let (models, store) = (&sim.settings.models, &sim.responses);
    let scene = Scene { endpoint, dialect, models, store, stamp, ask: &ask, behavior: &behavior, around };
    Ok(reply::reply(call, exchange, |framing| speech::say(&scene, framing)).await)
}

/// Answers a health check. The check is not recorded, and only `/_sim/health` sets its answer, not a rule.
fn probe(sim: &Sim, listener: usize, version: bool) -> Response<SimBody> {
    let status = sim.health.check(listener);
    json_response(status, if version && status.is_success() { r#"{"version":"0.0.0-sim"}"# } else { "" }, None)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
