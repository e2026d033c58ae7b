//! Which callers may share an answer, and which requests count as the same.

use crate::cache::{POLICY, Store, assert_cache, cache, certain, gateways, start};
use crate::standard::ask;
use pointsman_integration::call::Call;

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nobody_gets_another_tenants_answer_nor_one_above_its_class_or_tier() {
    for (_, gateway) in gateways() {
        let request = certain("hosted", "whose is it");
        assert_cache(&gateway.chat("sk-acme", &request), "miss");
        assert_cache(&gateway.chat("sk-other", &request), "miss");
        assert_cache(&gateway.chat("sk-acme-second", &request), "hit");
        // The tier does not allow this model, and the data class does not allow this provider. A cached answer does not
        // change that.
        gateway.chat("sk-frugal", &request).assert_refusal(403, "model_not_allowed");
        let classed = |class: &str| {
            gateway.send(Call::chat_json(&request).key("sk-acme").header("x-pointsman-data-class", class))
        };
        classed("regulated").assert_refusal(403, "data_class_not_allowed");
        let local = certain("local", "classes");
        for (class, expected) in [("internal", ["miss", "hit"]), ("confidential", ["bypass", "bypass"])] {
            for expected in expected {
                let answer =
                    gateway.send(Call::chat_json(&local).key("sk-acme").header("x-pointsman-data-class", class));
                assert_cache(&answer, expected);
            }
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_same_meaning_hits_and_hostile_spellings_do_not() {
    for (_, gateway) in gateways() {
        let send = |body: &str| gateway.send(Call::chat(body).key("sk-acme"));
        let first = r#"{"model":"hosted","messages":[{"role":"user","content":"spelling é 1"}],"temperature":0,"top_p":1,"x":{"a":1,"b":[]}}"#;
        assert_cache(&send(first), "miss");
        for same in [
        first.to_owned(),
        r#" { "x" : { "b" : [ ] , "a" : 1.0 }, "top_p" : 1e0, "temperature":-0.0, "messages":[ { "content" : "spelling \u00e9 1", "role":"user"}], "model":"hosted" } "#.to_owned(),
        first.replace("\"top_p\":1", "\"top_p\":10E-1"),
        first.replace("\"temperature\"", "\"temp\\u0065rature\""),
    ] {
        assert_cache(&send(&same), "hit");
    }
        for other in [
            first.replace("é", "e\u{301}"),
            first.replace("spelling", "sp\u{435}lling"),
            first.replace("1\"}]", "1 \"}]"),
            first.replace("\"a\":1", "\"a\":\"1\""),
            first.replace("\"b\":[]", "\"b\":{}"),
            first.replace("\"x\":", "\"y\":"),
            first.replace("\"top_p\":1", "\"top_p\":1.0000001"),
            first.replace("\"user\"", "\"system\""),
            first.replace("\"temperature\":0", "\"temperature\":0,\"user\":\"u\""),
        ] {
            assert_cache(&send(&other), "miss");
        }
        // Parsers disagree about such a request, so its answer is never cached, and no cached answer serves it.
        let twice = first.replace("\"content\"", "\"content\":\"other\",\"content\"");
        assert_cache(&send(&twice), "bypass");
        assert_cache(&send(&first.replace("\"a\":1", "\"a\":1,\"\\u0061\":2")), "bypass");
        assert_eq!(send(&first.replace("\"top_p\":1", "\"top_p\":1,\"top_p\":2")).status, 400);
        let surrogate = send(&first.replace("spelling", "\\ud800"));
        assert_eq!(cache(&surrogate), "bypass", "{}", surrogate.text());
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn scopes_of_users_and_permissions_by_trusted_headers() {
    for store in [Store::Local, Store::Redis] {
        let policy = POLICY.replacen(
            "identity: {source: api_key}",
            "identity: {source: header, tenant: x-jwt-tenant, user: x-jwt-sub, permissions: x-jwt-scope}",
            1,
        );
        assert_ne!(policy, POLICY);
        let policy = policy.replace(
            "  # permission scope\n",
            "  shared: {primary: big, cache: {ttl: 1h, scope: permission, requests: any}}\n",
        );
        let gateway = start(&policy, store);
        let send = |task: &str, tenant: &str, user: &str, scope: &str| {
            let mut call = Call::chat_json(&ask(task, "who may see it")).header("x-jwt-tenant", tenant);
            for (name, value) in [("x-jwt-sub", user), ("x-jwt-scope", scope)] {
                if !value.is_empty() {
                    call = call.header(name, value);
                }
            }
            let answer = gateway.send(call);
            assert_eq!(answer.status, 200, "{}", answer.text());
            cache(&answer).to_owned()
        };
        assert_eq!(send("mine", "acme", "ann", ""), "miss");
        assert_eq!(send("mine", "acme", "ann", "other"), "hit");
        assert_eq!(send("mine", "acme", "bob", ""), "miss");
        assert_eq!(send("mine", "other", "ann", ""), "miss");
        assert_eq!(send("mine", "acme", "", ""), "bypass");
        assert_eq!(send("shared", "acme", "ann", "r1"), "miss");
        assert_eq!(send("shared", "acme", "bob", "r1"), "hit");
        assert_eq!(send("shared", "acme", "ann", "r2"), "miss");
        assert_eq!(send("shared", "acme", "ann", ""), "bypass");
        assert_eq!(send("shared", "other", "ann", "r1"), "miss");
    }
}
