//! If the module traps, the request fails closed, the caller gets the gateway's error, and the next request finds a new
//! VM. No input is known that makes Pointsman's module trap, so these tests load another module that does.

use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::Gateway;
use serde_json::json;

const POLICY: &str = include_str!("standard.yaml");

/// Returns a module that passes for Pointsman's. It answers a request without a body with 200, and runs `with_body` for
/// a request with a body. `with_body` runs on each call; `$calls` counts the calls of this VM.
fn module(with_body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
        (@custom "pointsman" "a stand-in")
        (import "env" "proxy_send_local_response"
            (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (data (i32.const 0) "x-pointsman-cluster")
        (data (i32.const 64) "plan.vllm+openai")
        (global $calls (mut i32) (i32.const 0))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (if (result i32) (local.get 2)
                (then
                    (drop (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                        (i32.const 1024) (i32.const 4) (i32.const -1)))
                    (i32.const 1))
                (else
                    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                    {with_body}
                    (i32.const 0)))))"#
    );
    wat::parse_str(text).expect("is a module")
}

/// Sends two requests that trap, with a request that does not trap before and after each.
fn traps(with_body: &str) {
    let gateway = Gateway::start_with_module(POLICY, &module(with_body));
    let lives = || gateway.send(Call::new("GET", "/anything")).status == 200;
    for _ in 0..2 {
        await_true("a VM", lives);
        let answer = gateway.chat("sk-pro", &ask("small", "x"));
        answer.assert_refusal(503, "gateway_error");
        assert!(gateway.simulator.of(answer.trace_id()).is_empty(), "nothing went out");
        let line = gateway.audit(answer.trace_id());
        let said = (&line["status"], &line["error_code"], &line["policy_decision"]);
        assert_eq!(said, (&json!(503), &json!("wasm_fail_stream"), &json!("none")), "{line}");
    }
    await_true("a VM", lives);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_trap_of_the_gateway_stage_fails_closed_and_the_next_request_finds_a_new_vm() {
    traps("unreachable");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn so_does_a_trap_of_the_model_stage() {
    // The first call is the gateway stage's, the second the upstream filter's.
    traps(
        "(drop (call $add (i32.const 0) (i32.const 0) (i32.const 19) (i32.const 64) (i32.const 16)))
         (if (i32.eq (global.get $calls) (i32.const 2)) (then unreachable))",
    );
}
