//! Turns a request and a behavior into a response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, SERVER};
use hyper::{Response, StatusCode};

use crate::answer::{Ask, Stamp};
use crate::behavior::{Behavior, ContentType, ErrorStrike, Fault, PingStrike, Strike};
use crate::body::SimBody;
use crate::dialect::Dialect;
use crate::player::{self, Due, Score, Trouble};
use crate::record::Exchange;
use crate::refusal::Refusal;
use crate::speech::{JSON, Speech};
use crate::sse::{Event, Framing, Kind};
use crate::wire::{Cut, Line};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const PAGE: &str =
    "<html><head><title>502 Bad Gateway</title></head><body>The simulated provider's proxy speaks.</body></html>\n";

/// A request to answer, with everything its answer needs.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The dialect in which it is asked.
    pub dialect: Dialect,
    /// What identifies the answer.
    pub stamp: Stamp,
    /// What is asked.
    pub ask: &'a Ask,
    /// How to answer.
    pub behavior: &'a Behavior,
    /// Whether to encode the body with gzip.
    pub gzip: bool,
    /// The connection.
    pub line: &'a Arc<Line>,
    /// The default delays in milliseconds, before the first token and between chunks. A behavior can override them.
    pub pace: (u64, u64),
}

/// Returns a response of one JSON document.
pub fn json_response(status: StatusCode, document: impl Into<Bytes>, exchange: Option<Exchange>) -> Response<SimBody> {
    respond(status, JSON, SimBody::whole(document, exchange))
}

/// Returns a response with the headers that every response has.
pub fn respond(status: StatusCode, content_type: HeaderValue, body: SimBody) -> Response<SimBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(SERVER, HeaderValue::from_static("pointsman-simulator"));
    response
}

/// Refuses a request as its provider does.
pub fn refuse(dialect: Dialect, stamp: Stamp, refusal: &Refusal, exchange: Exchange) -> Response<SimBody> {
    let document = dialect.refusal(refusal, stamp).to_string();
    let mut response = json_response(refusal.status, document, Some(exchange));
    response.headers_mut().extend(dialect.headers(stamp));
    response
}

/// Answers as the behavior says. `say` makes the answer of a well-behaved provider, if one is needed.
pub async fn reply(call: Call<'_>, mut exchange: Exchange, say: impl FnOnce(Framing) -> Speech) -> Response<SimBody> {
    let Call { dialect, stamp, ask, behavior, gzip, line, pace } = call;
    match behavior.fault {
        Some(Fault::ResetBeforeHeaders) => return cut(&mut exchange, line, Cut::Rst).await,
        Some(Fault::CloseBeforeHeaders) => return cut(&mut exchange, line, Cut::Fin).await,
        Some(Fault::HangBeforeHeaders) => return std::future::pending().await,
        _ => {}
    }
    sleep(behavior.delay_headers_ms).await;
    let status = behavior.status.unwrap_or(StatusCode::OK);
    let first = behavior.ttft_ms.unwrap_or(pace.0);
    let between = behavior.chunk_ms.unwrap_or(pace.1);
    let framing = Framing {
        crlf: behavior.crlf,
        comments: behavior.comments,
        no_event_lines: behavior.no_event_lines,
        no_space: behavior.no_space,
    };
    let fixed = content(dialect, stamp, ask, behavior, status).map(|(content_type, bytes)| Speech::Document {
        content_type,
        bytes,
        chunks: 0,
    });
    let mut response = match fixed.unwrap_or_else(|| say(framing)) {
        Speech::Document { content_type, bytes, chunks } => {
            if chunks > 0 {
                sleep(first.saturating_add(between.saturating_mul(chunks as u64 - 1))).await;
            }
            document(content_type, bytes, &call, exchange)
        }
        Speech::Events(events) => {
            let score = Score {
                events,
                trouble: trouble(&call, framing),
                no_done: behavior.fault == Some(Fault::NoDone),
                trailing: behavior.trailing_bytes.then_some(&b": unfinished"[..]),
                first_delay: Duration::from_millis(first),
                chunk_delay: Duration::from_millis(between),
                end_delay: Duration::from_millis(behavior.end_ms),
                gzip,
                split: behavior.split,
            };
            let body = SimBody::played(player::play(score, Arc::clone(line), exchange), behavior.trailers);
            respond(status, EVENT_STREAM, body)
        }
    };
    *response.status_mut() = status;
    response.headers_mut().extend(dialect.headers(stamp));
    finish_headers(&mut response, behavior, gzip);
    response
}

async fn sleep(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

async fn cut(exchange: &mut Exchange, line: &Line, how: Cut) -> Response<SimBody> {
    exchange.give_up();
    line.cut(how);
    // The connection's task drops this future with the connection.
    std::future::pending().await
}

/// Returns the document that a behavior fixes, if any.
fn content(
    dialect: Dialect,
    stamp: Stamp,
    ask: &Ask,
    behavior: &Behavior,
    status: StatusCode,
) -> Option<(HeaderValue, Vec<u8>)> {
    if let Some(body) = &behavior.body {
        let content_type = match &behavior.content_type {
            ContentType::Given(given) => given.clone(),
            ContentType::Own | ContentType::Omit => JSON,
        };
        return Some((content_type, body.clone().into_bytes()));
    }
    if let Some(json) = &behavior.json {
        return Some((JSON, json.to_string().into_bytes()));
    }
    match behavior.fault {
        Some(Fault::WrongContentType) => return Some((HTML, PAGE.as_bytes().to_vec())),
        Some(Fault::EmptyBody) => return Some((JSON, Vec::new())),
        _ => {}
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Some((JSON, Vec::new()));
    }
    let error = || dialect.error_document(status, &ask.model, stamp).to_string().into_bytes();
    (!status.is_success()).then(|| (JSON, error()))
}

/// Returns what a fault does to a stream, and when.
fn trouble(call: &Call<'_>, framing: Framing) -> Option<Due> {
    let Call { dialect, stamp, ask, behavior, .. } = *call;
    let cut = |strike: &Strike, trouble: Trouble| {
        let Strike { after_chunks, after_head } = *strike;
        Due { after_chunks, after_head, trouble }
    };
    Some(match behavior.fault.as_ref()? {
        Fault::HangAfterHeaders => Due::after(0, Trouble::Hang),
        Fault::ResetMidStream(strike) => cut(strike, Trouble::Cut(Cut::Rst)),
        Fault::CloseMidStream(strike) => cut(strike, Trouble::Cut(Cut::Fin)),
        Fault::HangMidStream(strike) => cut(strike, Trouble::Hang),
        Fault::TruncateEvent(strike) => cut(strike, Trouble::Truncate),
        Fault::ErrorEvent(ErrorStrike { after_chunks, after_head, json }) => {
            let trouble = Trouble::Last(dialect.error_event(json.as_ref(), framing, stamp));
            Due { after_chunks: *after_chunks, after_head: *after_head, trouble }
        }
        Fault::Failed(ErrorStrike { after_chunks, after_head, json }) => {
            let trouble = Trouble::Last(dialect.failure(json.as_ref(), framing, stamp, ask));
            Due { after_chunks: *after_chunks, after_head: *after_head, trouble }
        }
        Fault::PingOnly(PingStrike { after_chunks, after_head, every_ms }) => {
            let every = Duration::from_millis(if *every_ms == 0 { 100 } else { *every_ms });
            let trouble = Trouble::Pings(dialect.ping(framing), every);
            Due { after_chunks: *after_chunks, after_head: *after_head, trouble }
        }
        Fault::MalformedJson(strike) => cut(strike, Trouble::Aside(dialect.malformed(framing))),
        Fault::ResetBeforeHeaders
        | Fault::CloseBeforeHeaders
        | Fault::HangBeforeHeaders
        | Fault::NoDone
        | Fault::WrongContentType
        | Fault::EmptyBody
        | Fault::OversizedHeaders => return None,
    })
}

/// Returns a response of one document. It has no chunks, so a fault in the middle occurs after half of it.
fn document(content_type: HeaderValue, bytes: Vec<u8>, call: &Call<'_>, exchange: Exchange) -> Response<SimBody> {
    let Call { dialect, stamp, ask, behavior, gzip, line, .. } = *call;
    let mut bytes = bytes;
    let mut trouble = None;
    match &behavior.fault {
        Some(Fault::HangAfterHeaders) => trouble = Some(Due::after(0, Trouble::Hang)),
        Some(Fault::ResetMidStream(_)) => trouble = Some(Due::after(1, Trouble::Cut(Cut::Rst))),
        Some(Fault::CloseMidStream(_)) => trouble = Some(Due::after(1, Trouble::Cut(Cut::Fin))),
        Some(Fault::HangMidStream(_) | Fault::PingOnly(_)) => trouble = Some(Due::after(1, Trouble::Hang)),
        Some(Fault::TruncateEvent(_) | Fault::MalformedJson(_)) => bytes.truncate(bytes.len() / 2),
        Some(Fault::ErrorEvent(strike)) => {
            let error = strike.json.clone().unwrap_or_else(|| dialect.server_error(stamp));
            bytes = error.to_string().into_bytes();
        }
        Some(Fault::Failed(strike)) => {
            bytes = dialect.failed_document(strike.json.as_ref(), stamp, ask).into_bytes();
        }
        _ => {}
    }
    if behavior.trailing_bytes {
        bytes.extend_from_slice(b"\n\n\n");
    }
    if gzip {
        bytes = compressed(&bytes);
    }
    let is_stream = content_type.as_bytes().starts_with(b"text/event-stream");
    if trouble.is_none() && behavior.split.is_none() && !is_stream {
        return respond(StatusCode::OK, content_type, SimBody::whole(bytes, Some(exchange)));
    }
    let length = bytes.len();
    let mut first = Bytes::from(bytes);
    let second = first.split_off(length / 2);
    let halves = [first, second].map(|bytes| Event { kind: Kind::Content, bytes });
    let score = Score {
        events: Box::new(halves.into_iter()),
        trouble,
        no_done: false,
        trailing: None,
        first_delay: Duration::ZERO,
        chunk_delay: Duration::ZERO,
        end_delay: Duration::from_millis(behavior.end_ms),
        gzip: false,
        split: behavior.split,
    };
    let body = SimBody::played(player::play(score, Arc::clone(line), exchange), behavior.trailers);
    let mut response = respond(StatusCode::OK, content_type, body);
    if !is_stream {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn finish_headers(response: &mut Response<SimBody>, behavior: &Behavior, gzip: bool) {
    let headers = response.headers_mut();
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    match &behavior.content_type {
        ContentType::Own => {}
        ContentType::Given(given) => drop(headers.insert(CONTENT_TYPE, given.clone())),
        ContentType::Omit => drop(headers.remove(CONTENT_TYPE)),
    }
    if behavior.fault == Some(Fault::OversizedHeaders)
        && let Ok(value) = HeaderValue::try_from("x".repeat(100 << 10))
    {
        headers.insert(HeaderName::from_static("x-simulator-oversized"), value);
    }
    for (index, (name, value)) in behavior.headers.iter().enumerate() {
        let again = behavior.headers.iter().take(index).any(|(before, _)| before == name);
        if again {
            headers.append(name.clone(), value.clone());
        } else {
            headers.insert(name.clone(), value.clone());
        }
    }
}
