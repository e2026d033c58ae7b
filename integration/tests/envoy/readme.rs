//! The README's commands work as pasted, and print what it shows.

use crate::demo::{Demo, paste};
use pointsman_integration::call::Call;
use pointsman_integration::environment;
use serde_json::Value;
use std::process::Command;

const README: &str = include_str!("../../../README.md");

/// Returns the text of a section.
fn section(heading: &str) -> &'static str {
    let section = README.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}")).1;
    section.split("\n## ").next().unwrap()
}

/// Returns the code blocks of a section.
fn blocks(heading: &str) -> Vec<&'static str> {
    section(heading).split("```\n").skip(1).step_by(2).collect()
}

/// A command and the output that is shown below it.
struct Shown {
    command: String,
    output: Vec<String>,
}

/// Returns the commands of a block; none if it shows none.
fn commands(block: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => all.push(Shown { command: command.to_owned(), output: Vec::new() }),
            // The lines of one command end in a backslash, but for the last.
            (None, Some(shown)) if shown.command.ends_with('\\') => shown.command.push_str(&format!("\n{line}")),
            (None, Some(shown)) => shown.output.push(line.to_owned()),
            (None, None) => return Vec::new(),
        }
    }
    all
}

/// Hides what differs from run to run: ids, times of day, and how long to wait.
fn steady(line: &str) -> String {
    let line = line.trim_end();
    for header in ["x-request-id", "retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "date"] {
        if line.split_once(": ").is_some_and(|(name, _)| name == header) {
            return format!("{header}: (varies)");
        }
    }
    match line.split_once("chatcmpl-sim-") {
        Some((before, after)) => {
            format!("{before}chatcmpl-sim-{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line.to_owned(),
    }
}

/// Whether a line that is shown stands for this one: `…` is any text, and a note may follow.
fn stands_for(shown: &str, line: &str) -> bool {
    let shown = shown.split("  # ").next().unwrap_or(shown);
    let (shown, line) = (steady(shown), steady(line));
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|start| line.strip_prefix(start)) else { return false };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    rest.is_empty() || open
}

/// Compares an output with what is shown. A line of `…` stands for any number of lines.
fn compare(shown: &Shown, output: &str) {
    let context = || format!("$ {}\n--- shown\n{}\n--- printed\n{output}", shown.command, shown.output.join("\n"));
    let mut lines = output.lines();
    let mut skips = false;
    // Blocks may have blank lines between commands.
    let expected = shown.output.join("\n");
    for line in expected.trim_end().lines() {
        if line == "…" {
            skips = true;
            continue;
        }
        let found = if skips { lines.find(|printed| stands_for(line, printed)) } else { lines.next() };
        let found = found.unwrap_or_else(|| panic!("not printed: {line}\n{}", context()));
        assert!(stands_for(line, found), "shown: {line}\nprinted: {found}\n{}", context());
        skips = false;
    }
    assert!(skips || lines.next().is_none(), "more is printed than shown\n{}", context());
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_it_shows_of_the_demo_is_what_one_sees() {
    let demo = Demo::start();
    let mut compared = 0;
    for shown in blocks("Try it").into_iter().flat_map(commands) {
        if shown.command.starts_with("git clone ") || shown.command == "make demo" {
            assert!(shown.output.is_empty());
            continue;
        }
        compare(&shown, &paste(&demo.at_its_ports(&shown.command)));
        compared += 1;
    }
    assert_eq!(compared, 9, "commands of the section");
    let python = "OpenAI(base_url=\"http://localhost:8080/v1\", api_key=\"sk-demo-pro\")";
    assert!(section("Try it").contains(python));
}

/// The block without a command shows the audit record of a request.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_log_line_it_shows_is_one_that_is_written() {
    let demo = Demo::start();
    let records: Vec<_> = blocks("Try it").into_iter().filter(|block| block.starts_with('{')).collect();
    let [record] = records[..] else { panic!("one record: {records:?}") };
    let shown: Value = serde_json::from_str(record).unwrap();
    let body = serde_json::json!({"model": shown["task"], "messages": [{"role": "user", "content": "hello"}]});
    let answer = Call::chat_json(&body).key("sk-demo-acme").send(demo.address());
    assert_eq!(answer.status, 200, "{answer:?}");
    let written = demo.audit(answer.trace_id());
    let steady = |record: &Value| {
        let mut record = record.clone();
        for varies in ["start_time", "trace_id", "latency_ms"] {
            let value = &mut record[varies];
            assert!(!value.is_null(), "{varies}");
            *value = Value::Null;
        }
        record
    };
    assert_eq!(steady(&shown), steady(&written));
}

/// The commands that need nothing else are run as they are. `make install` has a test of its own.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn its_first_commands_work() {
    let [block] = blocks("Use it")[..] else { panic!("one block") };
    let programs = environment::path("POINTSMAN_BIN");
    let (mut run, mut left) = (0, Vec::new());
    for shown in commands(block) {
        let command = shown.command.split("  # ").next().unwrap().trim_end();
        match command.split(' ').take(2).collect::<Vec<_>>()[..] {
            ["pointsman", "check" | "hash-key"] => {
                let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
                let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
                let output =
                    Command::new("bash").args(["-c", command]).current_dir(root).env("PATH", path).output().unwrap();
                assert!(output.status.success() && !output.stdout.is_empty(), "{command}: {output:?}");
                run += 1;
            }
            _ => left.push(command.to_owned()),
        }
    }
    assert_eq!(run, 2);
    // Of these, the flags and the files exist.
    let help = |name: &str| {
        let output = Command::new(programs.join("pointsman")).args([name, "--help"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for command in left.iter().filter_map(|command| command.strip_prefix("pointsman ")) {
        let mut words = command.split_whitespace();
        let help = help(words.next().unwrap());
        for word in words {
            match word.starts_with("--") {
                true => assert!(help.contains(&format!("{word} <")), "{command}: {word}"),
                false if word.contains('/') => {
                    assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(word).exists(), "{word}");
                }
                false => {}
            }
        }
    }
    assert_eq!(left.iter().filter(|command| command.starts_with("pointsman ")).count(), 2, "{left:?}");
    assert!(left.contains(&"make install".to_owned()), "{left:?}");
}
