//! The standard traffic: chat, stream, fallback, quota, cache, a large body, a reload under a stream.

use super::POLICY;
use crate::doctor::doctor;
use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::OPENAI_SECRET;
use pointsman_integration::mesh::envoy::Running;
use pointsman_integration::response::Response;
use pointsman_integration::simulator::Simulator;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// An Envoy of a mesh, and who calls it.
pub struct Mesh<'a> {
    pub envoy: &'a Running,
    pub simulator: &'a Simulator,
    /// Where callers of the gateway connect.
    pub address: SocketAddr,
    /// The host that they name.
    pub host: &'a str,
    /// What the control plane pushes for another policy.
    pub push: &'a dyn Fn(&str),
}

impl Mesh<'_> {
    fn call(&self, body: &Value, key: &str) -> Call {
        Call::chat_json(body).header("host", self.host).key(key)
    }

    fn send(&self, body: &Value, key: &str) -> Response {
        self.call(body, key).send(self.address)
    }

    /// Runs everything.
    pub fn check(&self) {
        self.chat();
        self.fallback();
        self.refusals();
        self.quota();
        self.cache();
        self.large_body();
        self.records();
        self.broken_answers();
        self.other_spellings();
        self.reload();
        self.check_doctor(&[]);
    }

    /// Checks what `pointsman doctor` says of this Envoy.
    fn check_doctor(&self, expected: &[&str]) {
        let (status, mut lines) = doctor(&["--admin", &self.envoy.admin.to_string()]);
        let last = lines.pop().unwrap();
        assert_eq!(
            (status, lines),
            (Some(i32::from(!expected.is_empty())), expected.iter().map(|line| (*line).to_owned()).collect()),
            "{last}"
        );
        let listeners = if expected.is_empty() { ", 1 listener with the gateway stage" } else { ", 0 listeners" };
        assert!(last.contains(listeners), "{last}");
    }

    fn chat(&self) {
        let answer = self.send(&ask("chat", "hello"), "sk-acme");
        assert_eq!((answer.status, answer.header("x-pointsman-model")), (200, Some("far")), "{answer:?}");
        let seen = self.simulator.with("hello").remove(0);
        assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {OPENAI_SECRET}")), "{seen:?}");
        assert_eq!(seen.header("host"), Some(&*self.simulator.address("openai").to_string()), "{seen:?}");
        // Nothing of the mesh reaches the provider.
        let strange = |name: &&str| name.starts_with("x-envoy") || name.starts_with("x-pointsman");
        assert_eq!(seen.header_names().into_iter().find(strange), None, "{seen:?}");
        let mut stream = ask("chat", "stream");
        stream["stream"] = true.into();
        let answer = self.send(&stream, "sk-acme");
        assert!(answer.status == 200 && answer.text().trim_end().ends_with("data: [DONE]"), "{answer:?}");
    }

    /// The next model, with its own host and without the key of the first.
    fn fallback(&self) {
        self.simulator.rule("openai", "fail-over", &json!({"status": 503}));
        for stream in [false, true] {
            let mut body = ask("chat", "fail-over");
            body["stream"] = stream.into();
            let answer = self.send(&body, "sk-acme");
            assert_eq!((answer.status, answer.header("x-pointsman-attempts")), (200, Some("2")), "{answer:?}");
            assert_eq!(answer.header("x-pointsman-model"), Some("near"), "{answer:?}");
            let served = self.simulator.with("fail-over").into_iter().rfind(|seen| seen.provider == "vllm").unwrap();
            assert_eq!(served.header("authorization"), None, "{served:?}");
        }
    }

    fn refusals(&self) {
        self.send(&ask("chat", "x"), "sk-nobody").assert_refusal(401, "invalid_api_key");
        // Who sends the gateway's own headers gains nothing by it.
        let chosen = self.call(&ask("chat", "x"), "sk-nobody").header("x-pointsman-cluster", "openai");
        chosen.send(self.address).assert_refusal(401, "invalid_api_key");
    }

    fn quota(&self) {
        let statuses: Vec<_> = (0..3).map(|_| self.send(&ask("near", "few"), "sk-tiny").status).collect();
        assert_eq!(statuses, [200, 200, 429]);
    }

    fn cache(&self) {
        let caches = ["miss", "hit"];
        for expected in caches {
            let answer = self.send(&ask("kept", "keep this"), "sk-acme");
            assert_eq!((answer.status, answer.header("x-pointsman-cache")), (200, Some(expected)), "{answer:?}");
        }
    }

    /// A prompt above the buffer that a mesh gives a connection.
    fn large_body(&self) {
        let prompt = "word ".repeat(60_000);
        self.simulator.rule("openai", "word word word", &json!({"status": 503}));
        for call in [self.call(&ask("chat", &prompt), "sk-acme"), self.call(&ask("chat", &prompt), "sk-acme").http2()] {
            let answer = call.send(self.address);
            assert_eq!((answer.status, answer.header("x-pointsman-attempts")), (200, Some("2")), "{answer:?}");
        }
    }

    /// The log has the gateway's requests and their attempts. The metrics have labels.
    fn records(&self) {
        let answer = self.send(&ask("chat", "to be logged"), "sk-acme");
        let audit = self.envoy.log.audit(answer.trace_id());
        assert_eq!((&audit["tenant_id"], &audit["model"]), (&json!("acme"), &json!("far")), "{audit}");
        assert_eq!(self.envoy.log.attempts(answer.trace_id()).len(), 1);
        let labels = ["tenant_tier=\"pro\"", "task=\"chat\"", "provider=\"vllm\"", "model=\"near\"", "status=\"200\""];
        await_true("the metrics", || {
            let metrics = Call::new("GET", "/stats/prometheus").send(self.envoy.admin);
            let counted = |line: &str| {
                let has_labels = labels.iter().all(|label| line.contains(label));
                line.starts_with("llm_requests_total{") && has_labels && line.ends_with("} 4")
            };
            metrics.text().lines().any(counted)
        });
    }

    /// Envoy's own replies are the gateway's even after the request has got the host and the path of a provider.
    fn broken_answers(&self) {
        let cases = [
            (
                "breaks",
                json!({"content": "one two three four", "fault": {"close_mid_stream": {"after_chunks": 2}}}),
                503,
                "provider_unreachable",
            ),
            ("waits", json!({"fault": "hang_after_headers"}), 504, "deadline_exceeded"),
        ];
        for (mark, behavior, status, code) in cases {
            self.simulator.rule("openai", mark, &behavior);
            for call in [self.call(&ask("far", mark), "sk-acme"), self.call(&ask("far", mark), "sk-acme").http2()] {
                let call = if status == 504 { call.header("x-pointsman-deadline-ms", "500") } else { call };
                let answer = call.send(self.address);
                answer.assert_refusal(status, code);
                let audit = self.envoy.log.audit(answer.trace_id());
                assert_eq!((&audit["tenant_id"], &audit["error_code"]), (&json!("acme"), &json!(code)), "{audit}");
            }
        }
    }

    /// Names of the host that Envoy takes for the same. A request that the module never sees is logged all the same.
    fn other_spellings(&self) {
        let upper = self.host.to_uppercase();
        for host in [&*upper, &format!("{}:", self.host), &format!("{}:8443", self.host), &format!("{upper}:abc")] {
            let to = || Call::new("GET", "/v1/models").header("host", host).key("sk-acme");
            assert_eq!(to().send(self.address).status, 200, "{host}");
            // Envoy itself refuses a path with a fragment, before it gives the request an id.
            let refusals =
                || self.envoy.log.text().lines().filter(|line| line.contains("\"policy_decision\":\"none\"")).count();
            let before = refusals();
            let mut connection = TcpStream::connect(self.address).unwrap();
            let request = format!("GET /v1/models#x HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            connection.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"bad_request\""), "{host}: {answer}");
            await_true("the line of a request that the module never saw", || refusals() > before);
        }
    }

    /// A pushed policy is in force, and a stream that began before ends as it should.
    fn reload(&self) {
        self.send(&ask("chat", "early"), "sk-late").assert_refusal(401, "invalid_api_key");
        let mut slow = ask("chat", "[[sim:{\"content\": \"one two three four five\", \"chunk_ms\": 400}]]");
        slow["stream"] = true.into();
        let mut open = self.call(&slow, "sk-acme").open(self.address);
        open.read_until("one");
        (self.push)(&format!("{POLICY}  late: {{tier: pro, keys: [<sk-late>]}}\n"));
        await_true("the new policy", || self.send(&ask("near", "late"), "sk-late").status == 200);
        let rest = open.finish();
        assert!(rest.complete && rest.text().contains("five") && rest.text().contains("[DONE]"), "{}", rest.text());
        // What was counted before still counts.
        assert_eq!(self.send(&ask("near", "few"), "sk-tiny").status, 429);
    }

    /// Checks that no request reaches a provider where the filter is missing, whatever cluster its headers name.
    pub fn check_without_filter(&self) {
        let call = || self.call(&ask("chat", "no filter"), "sk-acme");
        // Each worker takes the new listener by itself.
        let gone = || (0..8).all(|_| call().send(self.address).status == 500);
        await_true("the filter to be gone", gone);
        let before = self.simulator.mark();
        let mut answers = vec![call().send(self.address)];
        for name in ["openai", "direct.openai", "plan.openai", "plan.openai+vllm", "vllm"] {
            let named = || call().header("x-pointsman-cluster", name);
            answers.push(named().send(self.address));
            answers.push(named().header("x-pointsman-idle-ms", "60000").http2().send(self.address));
        }
        for answer in answers {
            assert_eq!((answer.status, answer.text().contains("gateway_error")), (500, true), "{answer:?}");
        }
        self.check_doctor(&["listeners: no listener has the gateway stage"]);
        let seen = self.simulator.requests(before);
        assert!(!seen.iter().any(|seen| seen.path.contains("chat")), "{seen:?}");
    }

    /// The mesh's own traffic is as it was: neither logged by Pointsman nor changed. `unknown_host`: how it answers
    /// calls to a host that it does not know.
    pub fn check_site(&self, address: SocketAddr, unknown_host: u16) {
        let send = |path: &str, host: &str| Call::new("GET", path).header("host", host).send(address);
        let answer = send("/v1/models", "shop.example.com");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("x-pointsman")), "{answer:?}");
        // An error of the site at a path like the gateway's stays its own.
        let failed = send("/v1/nothing", "shop.example.com");
        assert!(failed.status == 404 && !failed.text().contains("gateway_error"), "{failed:?}");
        let unknown = send("/v1/models", "other.example.com");
        assert_eq!((unknown.status, unknown.body.is_empty()), (unknown_host, true), "{unknown:?}");
        let last = self.send(&ask("near", "after the site"), "sk-acme");
        self.envoy.log.audit(last.trace_id());
        let log = self.envoy.log.text();
        for answer in [answer, failed, unknown] {
            let id = answer.header("x-request-id");
            assert!(id.is_none_or(|id| !log.contains(id)), "{answer:?}");
        }
    }
}
