//! Claude Code itself, unmodified, finishes a task with a tool call through the gateway. Only `make test-long` has it.

use pointsman_integration::gateway::Gateway;
use pointsman_integration::process;
use serde_json::{Value, json};
use std::process::Command;

#[test]
#[ignore = "needs Claude Code: make test-long"]
fn claude_code_finishes_a_task_with_a_tool_call() {
    let Some(claude) = std::env::var_os("POINTSMAN_CLAUDE") else { return };
    let gateway = Gateway::start(include_str!("messages.yaml"));
    let home = process::directory();
    let file = home.join("note.txt");
    std::fs::write(&file, "the points are set").expect("writes a file");
    // The first turn calls a tool; the next ones answer with its result.
    let call = json!({"name": "Read", "arguments": {"file_path": file}});
    gateway.simulator.add_rule(&json!({
        "when": {"path_suffix": "/messages", "body_contains": "read-the-note", "stream": true},
        "times": 1,
        "respond": {"tool_calls": [call]},
    }));
    let output = Command::new(claude)
        .args(["-p", "read-the-note", "--model", "ask", "--allowedTools", "Read", "--add-dir"])
        .arg(&*home)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", &*home)
        .env("TERM", "dumb")
        .env("ANTHROPIC_BASE_URL", format!("http://{}", gateway.address))
        .env("ANTHROPIC_API_KEY", "sk-acme")
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1")
        .current_dir(&*home)
        .output()
        .expect("runs Claude Code");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("the points are set"), "{said}");
    let turns: Vec<_> = gateway.simulator.requests(0).into_iter().filter(|seen| seen.path == "/v1/messages").collect();
    let last = turns.last().expect("asks the provider");
    assert!(last.text().contains("the points are set") && last.header("anthropic-beta").is_some(), "{:?}", last.path);
    for turn in &turns {
        let audit: Value = gateway.audit(turn.header("x-request-id").expect("has an id"));
        assert_eq!((&audit["endpoint"], &audit["tenant_id"]), (&json!("messages"), &json!("acme")), "{audit}");
        assert!(audit["error_code"].is_null() && audit["user_id_hash"].is_string(), "{audit}");
    }
}
