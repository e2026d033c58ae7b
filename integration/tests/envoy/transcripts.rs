//! OpenAI's own clients make the same of every answer of the corpus through the gateway as directly, or the file says
//! what differs and why.

use pointsman_integration::environment::{self, envoy_version};
use pointsman_integration::gateway::Gateway;
use pointsman_integration::simulator::Seen;
use pointsman_transcripts::answer::{self, Answer};
use pointsman_transcripts::pending::PENDING;
use pointsman_transcripts::{Outcome, Transcript};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A plan of two models, which get the same answers, and a cache for every request.
const POLICY: &str = "
default_task: chat
cache: {max_entry_bytes: 65536}
providers:
  vllm: {dialect: openai, local: true, data: regulated}
  openai: {dialect: openai, local: true, data: regulated}
models:
  small: {provider: vllm, model: qwen, level: local, context: 100000, max_output_tokens: 512}
  big: {provider: openai, model: gpt, level: local, context: 100000, max_output_tokens: 512}
tasks:
  chat: {primary: small, fallback: [big], cache: {ttl: 1h, requests: any}}
tiers:
  pro: {models: [small, big]}
tenants:
  acme: {tier: pro, keys: [<sk-acme>]}
";

/// The program of an official client.
struct Client {
    name: &'static str,
    program: PathBuf,
    script: &'static str,
}

/// What a client makes of one answer.
#[derive(Debug, PartialEq)]
struct Made {
    /// The answer, or the chunks of a stream.
    documents: Vec<Value>,
    /// The class of the exception that it ended with.
    error: Option<String>,
}

/// What a client makes of a file directly, through the gateway and, if the cache may keep it, from the cache in both
/// forms.
struct Read {
    direct: Made,
    gateway: Made,
    again: Vec<Made>,
}

/// By what the simulator tells the requests for a file apart.
fn mark(transcript: &Transcript) -> String {
    format!("[transcript {}]", transcript.name)
}

fn request(transcript: &Transcript, client: &Client, is_stream: bool) -> Value {
    let prompt = format!("{} {} {}", mark(transcript), client.name, "word ".repeat(transcript.prompt_bytes / 5));
    let mut request = json!({"model": "chat", "messages": [{"role": "user", "content": prompt}]});
    let members = transcript.request.clone();
    request.as_object_mut().expect("is an object").extend(members);
    if is_stream != transcript.is_stream() {
        request["stream"] = is_stream.into();
        request.as_object_mut().expect("is an object").remove("stream_options");
    }
    request
}

impl Client {
    /// Runs the program once, for the whole corpus.
    fn run(&self, gateway: &Gateway, all: &[Transcript], directory: &Path) -> Vec<Read> {
        let [direct, through] =
            [gateway.simulator.address("vllm"), gateway.address].map(|to| format!("http://{to}/v1"));
        let mut calls = Vec::new();
        for transcript in all {
            let is_stream = transcript.is_stream();
            let mut call =
                |url, is_stream| calls.push(json!({"url": url, "request": request(transcript, self, is_stream)}));
            call(&direct, is_stream);
            call(&through, is_stream);
            if transcript.expect.kept {
                call(&through, false);
                call(&through, true);
            }
        }
        let file = directory.join(format!("{}.json", self.name));
        std::fs::write(&file, Value::from(calls).to_string()).expect("writes a file");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(self.script);
        let mut command = Command::new(&self.program);
        command.arg(script).env("CALLS", file).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        let output = command.output().unwrap_or_else(|error| panic!("{}: {error}: run `make test`", self.name));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", self.name);
        let stdout = String::from_utf8(output.stdout).expect("prints UTF-8");
        let mut lines = stdout.lines().map(made);
        let mut next = || lines.next().unwrap_or_else(|| panic!("{} ended early: {stderr}", self.name));
        let read = all.iter().map(|transcript| Read {
            direct: next(),
            gateway: next(),
            again: (0..if transcript.expect.kept { 2 } else { 0 }).map(|_| next()).collect(),
        });
        read.collect()
    }
}

fn made(line: &str) -> Made {
    // Python's clients read and print it.
    let mut line: Value = serde_json::from_str(&line.replace(":NaN", ":null")).expect("is JSON");
    let documents = line["documents"].as_array_mut().map(std::mem::take).expect("is a list");
    Made { documents, error: line["error"].as_str().map(str::to_owned) }
}

impl Made {
    fn answer(&self, is_stream: bool) -> Answer {
        let events = || self.documents.iter().map(|document| format!("data: {document}\n\n")).collect::<String>();
        match self.documents.first() {
            None => Answer::default(),
            Some(_) if is_stream => answer::read(&events(), true),
            Some(whole) => answer::read(&whole.to_string(), false),
        }
    }
}

/// The class of the exception by which official clients report an error of the gateway.
fn exception(status: u16) -> &'static str {
    match status {
        400 => "BadRequestError",
        422 => "UnprocessableEntityError",
        429 => "RateLimitError",
        500.. => "InternalServerError",
        _ => "APIStatusError",
    }
}

/// Whether a client reads what the file expects.
fn is_as_expected(transcript: &Transcript, made: &Made, is_stream: bool) -> bool {
    let Answer { text, tool_calls, .. } = made.answer(is_stream);
    text == transcript.expect.text && tool_calls == transcript.expect.tool_calls
}

/// What is wrong with what a client makes of a file through the gateway.
fn problem(transcript: &Transcript, read: &Read) -> Option<String> {
    let expect = &transcript.expect;
    let Read { direct, gateway, again } = read;
    let expected = match expect.outcome {
        // What this client does not understand directly either is another client's to check.
        Outcome::Served if direct == gateway => direct.error.as_deref(),
        Outcome::Served => None,
        Outcome::ErrorEvent => Some("APIError"),
        Outcome::Failed => Some(exception(expect.status.unwrap_or(0))),
    };
    if gateway.error.as_deref() != expected {
        return Some(format!("raises {:?} in place of {expected:?}", gateway.error));
    }
    let is_checked = expect.outcome != Outcome::Failed && direct != gateway;
    if is_checked && !is_as_expected(transcript, gateway, transcript.is_stream()) {
        return Some(format!("makes this of it: {gateway:?}"));
    }
    let wrong =
        |(made, is_stream): &(&Made, bool)| made.error.is_some() || !is_as_expected(transcript, made, *is_stream);
    let wrong = again.iter().zip([false, true]).find(wrong);
    wrong.map(|(made, _)| format!("makes this of the cache's: {made:?}"))
}

/// How many of the requests that a client made for a file went to the provider of the plan's second model.
fn asked_next(requests: &[Seen], transcript: &Transcript, client: &Client) -> usize {
    let mark = format!("{} {} ", mark(transcript), client.name);
    requests.iter().filter(|seen| seen.provider == "openai" && seen.text().contains(&mark)).count()
}

/// Whether this Envoy cannot ask another model, because only the end of the answer proves that it is none.
fn is_told_at_its_end(transcript: &Transcript) -> bool {
    envoy_version() < (1, 38) && !transcript.is_stream() && transcript.response.status == 200
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn official_clients_make_the_same_of_every_transcript_through_the_gateway() {
    let all = pointsman_transcripts::all();
    let gateway = Gateway::start(POLICY);
    for transcript in &all {
        let response = &transcript.response;
        let mut respond = json!({"status": response.status, "content_type": response.content_type,
                                 "headers": response.headers, "body": response.body});
        if response.body.len() > 1 << 16 {
            respond["split"] = json!({"bytes": response.body.len().div_ceil(3), "ms": 20});
        }
        gateway.simulator.add_rule(&json!({"when": {"body_contains": mark(transcript)}, "respond": respond}));
    }
    let clients = [
        Client { name: "python", program: environment::path("POINTSMAN_PYTHON"), script: "python/transcripts.py" },
        Client { name: "node", program: "node".into(), script: "node/transcripts.mjs" },
    ];
    let directory = tempfile::tempdir().expect("makes a directory");
    let runs: Vec<Vec<Read>> = clients.iter().map(|client| client.run(&gateway, &all, directory.path())).collect();
    let requests = gateway.simulator.requests(0);
    let mut problems = Vec::new();
    for (at, transcript) in all.iter().enumerate() {
        let Transcript { name, expect, .. } = transcript;
        if PENDING.iter().any(|(pending, _)| pending == name) {
            continue;
        }
        let (mut differs, mut is_read) = (Vec::new(), expect.outcome == Outcome::Failed);
        for (client, run) in clients.iter().zip(&runs) {
            let (who, read) = (client.name, &run[at]);
            problems.extend(problem(transcript, read).map(|problem| format!("{name}: {who} {problem}")));
            let next = asked_next(&requests, transcript, client);
            if !is_told_at_its_end(transcript) && next != usize::from(expect.next == Some(true)) {
                problems.push(format!("{name}: {who}: the second model was asked {next} times"));
            }
            is_read |= is_as_expected(transcript, &read.gateway, transcript.is_stream());
            let Read { direct, gateway, .. } = read;
            if direct != gateway {
                differs.push(format!("{who} directly {direct:?}, through the gateway {gateway:?}"));
            }
        }
        if !is_read {
            problems.push(format!("{name}: no client reads what is expected"));
        }
        match (differs.is_empty(), &expect.difference) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => problems.push(format!("{name}: nothing differs")),
            (false, None) => problems.push(format!("{name} differs: {:.1000}", differs.join("; "))),
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
