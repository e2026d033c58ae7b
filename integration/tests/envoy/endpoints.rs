//! The gateway serves three paths, each with its method. Everything else is refused in OpenAI's shape.

use crate::standard::{ask, gateway};
use pointsman_integration::call::Call;
use pointsman_integration::raw::Connection;
use serde_json::{Value, json};

#[test]
#[ignore = "needs a real Envoy: make test"]
fn health_needs_no_key_and_reaches_no_provider() {
    let gateway = gateway();
    let before = gateway.simulator.mark();
    for path in ["/healthz", "/healthz?deep=1"] {
        let answer = gateway.send(Call::new("GET", path));
        assert_eq!((answer.status, answer.json()), (200, json!({"status": "ok"})));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let health = |seen: &pointsman_integration::simulator::Seen| seen.path.contains("healthz");
    assert!(!gateway.simulator.requests(before).iter().any(health));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_tenant_is_shown_the_models_and_tasks_it_may_use() {
    let gateway = gateway();
    let list = |key: &str| {
        let answer = gateway.send(Call::new("GET", "/v1/models?limit=9").key(key));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let document = answer.json();
        assert_eq!(document["object"], "list");
        let mut ids: Vec<String> = Vec::new();
        for model in document["data"].as_array().unwrap() {
            assert_eq!(model["object"], "model");
            assert!(model["created"].is_u64() && model["owned_by"].is_string(), "{model}");
            ids.push(model["id"].as_str().unwrap().to_owned());
        }
        ids.sort();
        ids
    };
    let tasks = ["away", "chat", "extract", "reasoning", "two-local"];
    let mut free: Vec<_> = [&tasks[..], &["small", "spare"]].concat();
    let mut pro: Vec<_> =
        [&tasks[..], &["hosted", "hub/small:latest", "small", "spare", "strict", "big", "regional"]].concat();
    // These exist only for fault tests.
    pro.extend(["gone", "unreachable"]);
    free.push("unreachable");
    free.sort_unstable();
    pro.sort_unstable();
    assert_eq!(list("sk-frugal"), free);
    assert_eq!(list("sk-acme"), pro);
    // OpenAI may not see the clinic's data, whatever its tier allows. A task whose only model is at OpenAI does not
    // exist for the clinic.
    pro.retain(|name| *name != "big");
    assert_eq!(list("sk-clinic"), pro);
    gateway.send(Call::new("GET", "/v1/models")).assert_refusal(401, "invalid_api_key");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn each_listed_model_can_be_retrieved_by_its_id_and_no_other() {
    let gateway = gateway();
    let get = |id: &str, key: &str| gateway.send(Call::new("GET", &format!("/v1/models/{id}")).key(key));
    let listed = gateway.send(Call::new("GET", "/v1/models").key("sk-acme")).json();
    for model in listed["data"].as_array().unwrap() {
        let id = model["id"].as_str().unwrap();
        // As curl sends it, and as OpenAI's clients do.
        for id in [id.to_owned(), id.replace('/', "%2F").replace(':', "%3A"), format!("{id}?limit=1")] {
            let answer = get(&id, "sk-acme");
            assert_eq!((answer.status, &answer.json()), (200, model), "{id}");
        }
    }
    // Unknown ones, and one that the tenant may not use.
    for (id, key) in [("nothing", "sk-acme"), ("small/", "sk-acme"), ("%ff", "sk-acme"), ("big", "sk-frugal")] {
        let answer = get(id, key);
        answer.assert_refusal(404, "model_not_found");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.ends_with("does not exist or you do not have access to it."), "{message}");
    }
    get("small", "sk-nobody").assert_refusal(401, "invalid_api_key");
    let audit = gateway.audit(get("small", "sk-acme").trace_id());
    assert_eq!((&audit["endpoint"], &audit["tenant_id"]), (&json!("model"), &json!("acme")), "{audit}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn every_listed_name_can_be_called() {
    let gateway = gateway();
    let listed: Value = gateway.send(Call::new("GET", "/v1/models").key("sk-frugal")).json();
    for model in listed["data"].as_array().unwrap() {
        let id = model["id"].as_str().unwrap();
        let answer = gateway.chat("sk-frugal", &ask(id, "listed"));
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_unknown_path_is_404_and_a_wrong_method_405() {
    let gateway = gateway();
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/embeddings",
        "/v1/models/",
        "/v1%2fmodels/small",
        "/v1/chat/completions/x",
        "/V1/models",
        "/health",
    ] {
        for method in ["GET", "POST"] {
            let answer = gateway.send(Call::new(method, path).key("sk-acme"));
            answer.assert_refusal(404, "unknown_url");
        }
    }
    for (method, path, allowed) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/small", "GET"),
        ("POST", "/v1/models/nothing", "GET"),
        ("POST", "/healthz", "GET"),
        ("OPTIONS", "/healthz", "GET"),
    ] {
        let answer = gateway.send(Call::new(method, path).key("sk-acme"));
        answer.assert_refusal(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn head_is_answered_without_a_body() {
    let gateway = gateway();
    for (path, status) in [("/healthz", 405), ("/v1/models", 405), ("/nothing", 404)] {
        let mut connection = Connection::to(gateway.address);
        connection.send(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\n\r\n"));
        assert_eq!(connection.response_to_head().status, status, "{path}");
        // No body came, so the connection is still in sync.
        connection.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(connection.response().status, 200, "after HEAD {path}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_query_is_ignored_and_does_not_go_upstream() {
    let gateway = gateway();
    let body = ask("small", "with a query").to_string();
    let call = Call::new("POST", "/v1/chat/completions?api-version=1&key=canary").key("sk-acme").body(body);
    let answer = gateway.send(call);
    assert_eq!(answer.status, 200);
    assert_eq!(gateway.upstream(&answer).path, "/v1/chat/completions");
}

/// A path in another spelling is either that path or refused. No spelling takes a request past the gateway stage.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_path_in_disguise_is_the_path_or_refused() {
    let gateway = gateway();
    let body = ask("small", "disguised-path").to_string();
    let send = |path: &str, key: &str| {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n", body.len());
        Connection::to(gateway.address).send(head + &body).response()
    };
    for path in [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/../v1/chat/completions",
        "/v1/./chat/completions",
        "/healthz/../v1/chat/completions",
        "/v1/chat/%63ompletions",
        "/v1\\chat\\completions",
        "http://elsewhere.example/v1/chat/completions",
    ] {
        let (with, without) = (send(path, "sk-acme"), send(path, "sk-nobody"));
        assert!(
            matches!((with.status, without.status), (200, 401) | (404, 404) | (400, 400)),
            "{path}: {} {}",
            with.status,
            without.status
        );
    }
    for path in [
        "/v1/chat/completions/",
        "/v1%2fchat%2fcompletions",
        "/v1/chat%2Fcompletions",
        "/v1/chat/completions%00",
        "/v1/chat/completions;x=1",
        "/v1/chat/completions%3f",
        "/../v1/chat/completions/..",
    ] {
        let answer = send(path, "sk-acme");
        assert!(matches!(answer.status, 400 | 404), "{path}: {} {}", answer.status, answer.text());
    }
    for seen in gateway.simulator.with("disguised-path") {
        assert_eq!(seen.path, "/v1/chat/completions");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn http_1_0_is_served() {
    let gateway = gateway();
    let post = |body: &Value, host: &str| {
        let body = body.to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.0\r\n{host}authorization: Bearer sk-acme\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Connection::to(gateway.address).send(head + &body).response_to_end()
    };
    for host in ["", "host: gateway.example\r\n"] {
        let whole = post(&ask("small", "one point zero"), host);
        assert_eq!(whole.status, 200, "{whole:?}");
        assert!(whole.text().contains("\"object\":\"chat.completion\""), "{whole:?}");
        // A stream has no chunks there: it ends with the connection.
        let mut body = ask("small", "one point zero");
        body["stream"] = true.into();
        let stream = post(&body, host);
        assert_eq!((stream.status, stream.header("transfer-encoding")), (200, None), "{stream:?}");
        let text = stream.text();
        assert!(text.starts_with("data: ") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    let models = Connection::to(gateway.address)
        .send("GET /v1/models HTTP/1.0\r\nauthorization: Bearer sk-acme\r\n\r\n")
        .response_to_end();
    assert_eq!(models.status, 200, "{models:?}");
    // A caller gains nothing by it.
    let nobody = Connection::to(gateway.address).send("GET /v1/models HTTP/1.0\r\n\r\n").response_to_end();
    assert_eq!((nobody.status, nobody.text().contains("invalid_api_key")), (401, true), "{nobody:?}");
    // Chunks have no place there (RFC 9112, section 6.1). What follows them is never a second request.
    let body = ask("small", "chunks of one point zero").to_string();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\nPOST /v1/chat/completions HTTP/1.0\r\n", body.len());
    let head = "POST /v1/chat/completions HTTP/1.0\r\nauthorization: Bearer sk-acme\r\ntransfer-encoding: chunked\r\n";
    let answer = Connection::to(gateway.address).send(format!("{head}\r\n{chunked}")).response_to_end();
    assert!([200, 400].contains(&answer.status), "{answer:?}");
    let seen = gateway.simulator.with("chunks of one point zero");
    assert_eq!(seen.len(), usize::from(answer.status == 200), "{seen:?}");
    assert!(!answer.text().contains("HTTP/1"), "one response: {answer:?}");
}
