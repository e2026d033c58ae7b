//! The callers: they ask, leave, hurry, flood, and send what is no request.

use crate::numbers::Numbers;
use pointsman_integration::call::Call;
use pointsman_integration::gateway::Gateway;
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// The tenants of the policy. Their keys are `sk-NAME`.
pub const TENANTS: [&str; 5] = ["wide0", "wide1", "wide2", "tight0", "tight1"];

/// What callers did and got.
#[derive(Default)]
pub struct Tally {
    /// How often each thing was done.
    pub done: BTreeMap<&'static str, u64>,
    /// How many responses had each status.
    pub statuses: BTreeMap<u16, u64>,
    /// Responses that no caller should get.
    pub wrong: Vec<String>,
}

impl Tally {
    fn did(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Self) {
        for (what, count) in other.done {
            *self.done.entry(what).or_default() += count;
        }
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.wrong.extend(other.wrong);
    }

    fn note(&mut self, response: &Response, stream: bool) {
        *self.statuses.entry(response.status).or_default() += 1;
        if let Some(wrong) = fault(response, stream) {
            let text = String::from_utf8_lossy(&response.body);
            self.wrong.push(format!("{wrong}: {} {text:.300}", response.status));
        }
    }
}

/// Returns what is wrong with a response, if anything.
fn fault(response: &Response, stream: bool) -> Option<&'static str> {
    if !response.complete {
        // A stream that its provider reset is cut, and so is one whose time is up. A cut is no false end.
        return (!stream).then_some("a whole response was cut");
    }
    if response.status != 200 {
        let error = serde_json::from_slice::<Value>(&response.body).ok();
        let code = error.as_ref().and_then(|error| error.pointer("/error/code"));
        return (!code.is_some_and(Value::is_string)).then_some("an error without a code");
    }
    let text = String::from_utf8_lossy(&response.body);
    let whole = match stream {
        true => text.contains("data: [DONE]") || text.contains("\"error\":"),
        false => serde_json::from_str::<Value>(&text).is_ok(),
    };
    (!whole).then_some("a response without its end")
}

/// Keeps asking until `is_over`. Returns what happened.
pub fn ask_until(gateway: &Gateway, seed: u64, is_over: impl Fn() -> bool) -> Tally {
    let (mut numbers, mut tally) = (Numbers::new(seed), Tally::default());
    while !is_over() {
        match numbers.below(100) {
            0..40 => ask(gateway, &mut numbers, &mut tally),
            40..55 => leave(gateway, &mut numbers, &mut tally),
            55..62 => hurry(gateway, &mut numbers, &mut tally),
            62..66 => flood(gateway, &mut numbers, &mut tally),
            66..74 => misshape(gateway, &mut numbers, &mut tally),
            74..79 => break_off_an_upload(gateway, &mut numbers, &mut tally),
            79..84 => look(gateway, &mut numbers, &mut tally),
            _ => ask_again(gateway, &mut numbers, &mut tally),
        }
    }
    tally
}

/// How a provider answers: mostly well.
fn behavior(numbers: &mut Numbers) -> Value {
    let after = numbers.below(6);
    let error = json!({"error": {"message": "flagged by moderator"}});
    let all = [
        json!({"chunks": 3}),
        json!({"chunks": 1 + numbers.below(30), "chunk_ms": numbers.below(20)}),
        json!({"chunks": 2, "ttft_ms": numbers.below(200)}),
        json!({"chunks": 5, "split": {"bytes": 1 + numbers.below(40)}}),
        json!({"chunks": 5, "crlf": true, "comments": true}),
        json!({"chunks": 4, "chunk_bytes": 20_000}),
        json!({"chunks": 3, "usage": "omit"}),
        json!({"chunks": 2, "trailing_bytes": true}),
        json!({"status": *numbers.one_of(&[400, 401, 404, 408, 429, 500, 503, 529])}),
        json!({"fault": *numbers.one_of(&["reset_before_headers", "close_before_headers", "no_done", "empty_body",
            "wrong_content_type"])}),
        json!({"chunks": 8, "fault": {"reset_mid_stream": {"after_chunks": after}}}),
        json!({"chunks": 8, "fault": {"close_mid_stream": {"after_chunks": after}}}),
        json!({"chunks": 8, "fault": {"truncate_event": {"after_chunks": after}}}),
        json!({"chunks": 8, "fault": {"malformed_json": {"after_chunks": after}}}),
        json!({"chunks": 8, "fault": {"error_event": {"after_chunks": after, "json": error}}}),
        json!({"fault": *numbers.one_of(&["hang_before_headers", "hang_after_headers"])}),
    ];
    // Half of the answers are plain.
    all[numbers.below(2 * all.len()) % 24 % all.len()].clone()
}

fn request(numbers: &mut Numbers) -> (Value, bool) {
    let behavior = behavior(numbers);
    let stream = numbers.once_in(2);
    let model = *numbers.one_of(&["chat", "chat", "chat", "deadlines", "kept", "small", "changing-a", "changing-b"]);
    let padding = "word ".repeat(numbers.below(60));
    let mut request = json!({
        "model": model, "stream": stream,
        "messages": [{"role": "user", "content": format!("{padding}[[sim:{behavior}]]")}],
    });
    if numbers.once_in(2) {
        request["max_tokens"] = (8 + numbers.below(400)).into();
    }
    if numbers.once_in(3) {
        request["user"] = format!("user-{}", numbers.below(200)).into();
    }
    if numbers.once_in(6) {
        request["n"] = 2.into();
    }
    if stream && numbers.once_in(2) {
        request["stream_options"] = json!({"include_usage": true});
    }
    (request, stream)
}

fn call(numbers: &mut Numbers, body: impl Into<Vec<u8>>) -> Call {
    let call = Call::chat(body).key(&format!("sk-{}", numbers.one_of(&TENANTS)));
    if numbers.once_in(4) { call.http2() } else { call }
}

fn send(gateway: &Gateway, call: Call, stream: bool, tally: &mut Tally) {
    match call.try_open(gateway.address) {
        Ok(open) => tally.note(&open.finish(), stream),
        Err(error) => tally.wrong.push(format!("no response: {error}")),
    }
}

fn ask(gateway: &Gateway, numbers: &mut Numbers, tally: &mut Tally) {
    tally.did("requests");
    let (request, stream) = request(numbers);
    send(gateway, call(numbers, request.to_string()), stream, tally);
}

/// Asks one of a few questions, so that most answers come from the cache or are shared.
fn ask_again(gateway: &Gateway, numbers: &mut Numbers, tally: &mut Tally) {
    tally.did("repeated questions");
    let question = format!("question {} [[sim:{}]]", numbers.below(40), json!({"chunks": 4, "chunk_ms": 2}));
    let stream = numbers.once_in(2);
    let request = json!({"model": "kept", "stream": stream, "temperature": 0, "messages": [
        {"role": "user", "content": question}]});
    send(gateway, call(numbers, request.to_string()), stream, tally);
}

/// Reads some of the response, or none, and leaves.
fn leave(gateway: &Gateway, numbers: &mut Numbers, tally: &mut Tally) {
    tally.did("callers that left");
    let (request, _) = request(numbers);
    let body = request.to_string();
    if numbers.once_in(2) {
        let Ok(mut open) = call(numbers, body).try_open(gateway.address) else { return };
        for _ in 0..numbers.below(6) {
            if open.next_piece().is_none() {
                break;
            }
        }
        return;
    }
    let mut stream = TcpStream::connect(gateway.address).expect("connects");
    let head = head(numbers, body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
    std::thread::sleep(Duration::from_millis(numbers.below(60) as u64));
    let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
    let _ = stream.read(&mut vec![0; numbers.below(400)]);
}

fn head(numbers: &mut Numbers, length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-{}\r\ncontent-length: {length}\r\n\r\n",
        numbers.one_of(&TENANTS)
    )
}

fn hurry(gateway: &Gateway, numbers: &mut Numbers, tally: &mut Tally) {
    tally.did("short deadlines");
    let (request, stream) = request(numbers);
    let deadline = (1 + numbers.below(300)).to_string();
    let call = call(numbers, request.to_string()).header("x-pointsman-deadline-ms", deadline);
    // A stream may be cut at its deadline, and a whole answer that has begun too.
    match call.try_open(gateway.address) {
        Ok(open) => {
            let response = open.finish();
            if response.complete {
                tally.note(&response, stream);
            }
        }
        Err(error) => tally.wrong.push(format!("no response: {error}")),
    }
}

fn flood(gateway: &Gateway, numbers: &mut Numbers, tally: &mut Tally) {
    tally.did("floods");
    let key = format!("sk-{}", numbers.one_of(&TENANTS));
    let requests: Vec<_> = (0..12).map(|_| request(numbers)).collect();
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let send = |(request, stream): &(Value, bool)| {
            let (call, stream) = (Call::chat_json(request).key(&key), *stream);
            scope.spawn(move || {
                let mut tally = Tally::default();
                send(gateway, call, stream, &mut tally);
                tally
            })
        };
        let threads: Vec<_> = requests.iter().map(send).collect();
        threads.into_iter().map(|thread| thread.join().expect("ends well")).collect()
    });
    tallies.into_iter().for_each(|other| tally.add(other));
}

/// Sends a body that may be no request.
fn misshape(gateway: &Gateway, numbers: &mut Numbers, tally: &mut Tally) {
    tally.did("misshapen bodies");
    let (request, stream) = request(numbers);
    let mut body = request.to_string().into_bytes();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(body.len());
        match numbers.below(4) {
            0 => body[at] = numbers.below(256) as u8,
            1 => body.truncate(at),
            2 => drop(body.splice(at..at, b"{\"a\":[".repeat(numbers.below(100)))),
            _ => drop(body.splice(at..at, *b"\\ud800\"")),
        }
        if body.is_empty() {
            body.push(b'{');
        }
    }
    // The name or value of `stream` may be another now.
    let stream = serde_json::from_slice(&body).map_or(stream, |request: Value| request["stream"] == true);
    send(gateway, call(numbers, body), stream, tally);
}

fn break_off_an_upload(gateway: &Gateway, numbers: &mut Numbers, tally: &mut Tally) {
    tally.did("broken uploads");
    let mut stream = TcpStream::connect(gateway.address).expect("connects");
    let length = 1000 + numbers.below(900_000);
    let _ = stream.write_all(head(numbers, length).as_bytes());
    let _ = stream.write_all(&vec![b' '; numbers.below(length)]);
}

fn look(gateway: &Gateway, numbers: &mut Numbers, tally: &mut Tally) {
    tally.did("other requests");
    let path = *numbers.one_of(&["/v1/models", "/v1/usage", "/healthz", "/v1/nothing", "/v1/models/chat"]);
    let key = *numbers.one_of(&["sk-wide0", "sk-tight0", "sk-wrong"]);
    send(gateway, Call::new("GET", path).key(key), false, tally);
}
