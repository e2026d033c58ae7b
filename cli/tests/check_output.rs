//! What `pointsman check` prints in each format, for one file and many, and with which exit status it ends.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use support::{Scratch, cluster, policy};

/// Runs `pointsman check` in the directory. Returns the exit status, standard output and standard error.
fn check(scratch: &Scratch, arguments: &[&str], stdin: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("check").args(arguments).current_dir(scratch.path(""));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A file is checked without reading standard input.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const OK: &str = "ok: 1 provider, 1 model, 0 tasks, 1 tier, 1 tenant\n";

fn minimal() -> String {
    let hash = format!("sha256:{}", "0a".repeat(32));
    format!(
        "providers:\n  vllm: {{dialect: openai, local: true, data: regulated}}\nmodels:\n  small:\n    \
         provider: vllm\n    \
         model: qwen\n    context: 8192\n    max_output_tokens: 512\ntiers:\n  free: {{models: [small]}}\ntenants:\n  \
         acme:\n    tier: free\n    keys: [\"{hash}\"]\n"
    )
}

#[test]
fn the_worst_of_several_files_decides_the_exit_status() {
    let scratch = Scratch::new("check-many");
    scratch.write("good.yaml", &minimal());
    scratch.write("bad.yaml", &minimal().replace("tier: free", "tier: gold"));
    scratch.write("broken.yaml", &minimal().replace("[small]", "[small"));
    let bad = "bad.yaml:13:11: error: tenants.acme.tier: unknown tier \"gold\"; known tiers: free\n\
               13 |     tier: gold\n   |           ^^^^\nbad.yaml: invalid: 1 error\n";
    assert_eq!(check(&scratch, &["good.yaml"], ""), (0, format!("good.yaml: {OK}"), String::new()));
    assert_eq!(check(&scratch, &["bad.yaml", "good.yaml"], ""), (1, format!("good.yaml: {OK}"), bad.to_owned()));
    let (status, _, stderr) = check(&scratch, &["bad.yaml", "broken.yaml", "nowhere.yaml"], "");
    assert_eq!(status, 2);
    let rest = stderr.strip_prefix(bad).unwrap();
    assert!(rest.starts_with("broken.yaml:10:"), "{rest}");
    assert!(
        rest.ends_with(
            "nowhere.yaml: error: no such file; check the path, or begin with a copy of \
        policies/minimal.yaml\n"
        ),
        "{rest}"
    );
    assert_eq!(check(&scratch, &[], "").0, 2, "no file is a mistake in the command");
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_the_remedy() {
    let scratch = Scratch::new("check-unreadable");
    std::fs::create_dir_all(scratch.path("directory")).unwrap();
    std::fs::write(scratch.path("latin1.yaml"), b"a: \xe9\n").unwrap();
    let message = "directory: error: is a directory; name the policy file in it\n\
        latin1.yaml: error: is not UTF-8 text; save it as UTF-8\n";
    assert_eq!(check(&scratch, &["directory", "latin1.yaml"], ""), (2, String::new(), message.to_owned()));
}

#[test]
fn standard_input_is_a_file_in_either_format() {
    let scratch = Scratch::new("check-stdin");
    assert_eq!(check(&scratch, &["-"], &minimal()), (0, format!("stdin: {OK}"), String::new()));
    let yaml = "{providers: {}, models: {}, tiers: {}, tenants: {}}";
    assert!(check(&scratch, &["-"], yaml).2.starts_with("stdin:1:2: error: providers: at least one"));
    let json = json!({"providers": 1}).to_string();
    let (status, _, stderr) = check(&scratch, &["-"], &json);
    assert_eq!(status, 1);
    assert!(stderr.contains("stdin:1:14: error: providers: "), "{stderr}");
}

#[test]
fn ten_problems_are_enough_unless_all_are_wanted() {
    let scratch = Scratch::new("check-ten");
    let tenants: String = (0..13).map(|i| format!("  t{i}: {{tier: gold{i}}}\n")).collect();
    scratch.write("policy.yaml", &(minimal() + &tenants));
    let (_, _, stderr) = check(&scratch, &["policy.yaml"], "");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.contains(": error: ")).count(), 10);
    assert_eq!(
        lines[30..],
        ["policy.yaml: ... and 3 errors more; `pointsman check --all` shows them", "policy.yaml: invalid: 13 errors"]
    );
    let (_, _, all) = check(&scratch, &["--all", "policy.yaml"], "");
    assert_eq!(all.lines().filter(|line| line.contains(": error: ")).count(), 13);
    assert!(!all.contains("more"), "{all}");
    let (_, json, _) = check(&scratch, &["--format", "json", "policy.yaml"], "");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["errors"], 13);
}

#[test]
fn a_warning_is_an_error_if_it_is_to_be_strict() {
    let scratch = Scratch::new("check-strict");
    scratch.write("policy.yaml", &minimal().replace("max_output_tokens: 512", "max_output_tokens: 9000"));
    let finding = |severity: &str| {
        format!(
            "policy.yaml:8:24: {severity}: models.small.max_output_tokens: 9000 is above the model's context of 8192 \
             tokens, which prompt and output share\n8 |     max_output_tokens: 9000\n  |                        ^^^^\n"
        )
    };
    assert_eq!(
        check(&scratch, &["policy.yaml"], ""),
        (0, format!("policy.yaml: {}", OK.replace("ok", "ok, with 1 warning")), finding("warning"))
    );
    assert_eq!(
        check(&scratch, &["--strict", "policy.yaml"], ""),
        (1, String::new(), finding("error") + "policy.yaml: invalid: 1 error\n")
    );
    scratch.write("policy.yaml", &minimal());
    assert_eq!(check(&scratch, &["--strict", "policy.yaml"], "").0, 0);
}

#[test]
fn json_for_programs() {
    let scratch = Scratch::new("check-json");
    scratch.write("good.yaml", &minimal());
    scratch.write("bad.yaml", &minimal().replace("tier: free", "tier: gold"));
    let (status, stdout, stderr) = check(&scratch, &["--format", "json", "good.yaml", "bad.yaml", "nowhere.yaml"], "");
    assert_eq!((status, stderr.as_str()), (2, ""));
    assert_eq!(
        serde_json::from_str::<Value>(&stdout).unwrap(),
        json!({
            "files": [
                {"file": "good.yaml", "status": "ok"},
                {"file": "bad.yaml", "status": "invalid"},
                {"file": "nowhere.yaml", "status": "unreadable"},
            ],
            "problems": [
                {
                    "file": "bad.yaml", "line": 13, "column": 11, "end_line": 13, "end_column": 15, "severity": "error",
                    "rule": "invalid-policy", "place": "tenants.acme.tier",
                    "message": "tenants.acme.tier: unknown tier \"gold\"; known tiers: free",
                },
                {
                    "file": "nowhere.yaml", "severity": "error", "rule": "unreadable-file", "place": "",
                    "message": "no such file; check the path, or begin with a copy of policies/minimal.yaml",
                },
            ],
            "errors": 2,
            "warnings": 0,
        })
    );
}

/// The properties that SARIF 2.1.0 requires, and those that GitHub's code scanning does.
#[test]
fn sarif_for_code_scanning() {
    let scratch = Scratch::new("check-sarif");
    let suspicious = minimal().replace("max_output_tokens: 512", "max_output_tokens: 9000");
    scratch.write("a b.yaml", &suspicious);
    scratch.write("bad.yaml", &minimal().replace("tier: free", "tier: gold"));
    let (status, stdout, stderr) = check(&scratch, &["--format", "sarif", "a b.yaml", "bad.yaml", "nowhere.yaml"], "");
    assert_eq!((status, stderr.as_str()), (2, ""));
    let log: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().unwrap().ends_with("/sarif-schema-2.1.0.json"));
    let [run] = log["runs"].as_array().unwrap().as_slice() else { panic!("{log}") };
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "pointsman");
    let rules = driver["rules"].as_array().unwrap();
    assert!(rules.iter().all(|rule| rule["id"].is_string() && rule["shortDescription"]["text"].is_string()));
    let results = run["results"].as_array().unwrap();
    let seen: Vec<_> = results
        .iter()
        .map(|result| {
            let rule = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[rule]["id"], result["ruleId"]);
            assert!(!result["message"]["text"].as_str().unwrap().is_empty());
            let place = &result["locations"][0]["physicalLocation"];
            let number = |name: &str| place["region"][name].as_u64().unwrap();
            assert!(number("startLine") >= 1 && number("startColumn") >= 1);
            assert!((number("endLine"), number("endColumn")) >= (number("startLine"), number("startColumn")));
            (
                result["level"].as_str().unwrap(),
                result["ruleId"].as_str().unwrap(),
                place["artifactLocation"]["uri"].as_str().unwrap(),
                number("startLine"),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("warning", "suspicious-setting", "a%20b.yaml", 8),
            ("error", "invalid-policy", "bad.yaml", 13),
            ("error", "unreadable-file", "nowhere.yaml", 1),
        ]
    );
}

#[test]
fn the_clusters_of_the_providers_are_checked_with_the_policy() {
    let scratch = Scratch::new("check-providers");
    scratch.write("policy.yaml", &policy("KEY"));
    let providers = ["--providers", "providers", "policy.yaml"];
    assert_eq!(
        check(&scratch, &providers, ""),
        (2, String::new(), "providers: error: no such directory; it holds one Envoy cluster per provider\n".to_owned())
    );
    scratch.write("providers/a.yaml", &cluster("a", 1));
    let tls = "transport_socket:\n  typed_config:\n    \
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n    \
        common_tls_context: {validation_contex: {trusted_ca: {filename: /ca.crt}}}\n";
    let remote = cluster("b", 2).replace("127.0.0.1", "api.b.example");
    scratch.write("providers/b.yaml", &format!("{remote}conect_timeout: 5s\n"));
    let (status, _, stderr) = check(&scratch, &providers, "");
    let lines = remote.lines().count();
    assert_eq!(
        stderr,
        format!(
            "providers/b.yaml:{}:1: warning: unknown field \"conect_timeout\" of an Envoy cluster; Envoy would reject \
             it\nproviders/b.yaml:{}:1: warning: no `transport_socket`, so prompts and keys of this provider, which is \
             not `local`, go over the network without TLS\n",
            lines + 1,
            remote.lines().position(|line| line.starts_with("load_assignment")).unwrap() + 1
        )
    );
    assert_eq!(status, 0);
    scratch.write("providers/b.yaml", &format!("{remote}{tls}"));
    assert_eq!(
        check(&scratch, &providers, "").2,
        format!(
            "providers/b.yaml:{}:1: warning: transport_socket: TLS without `trusted_ca` accepts any certificate; set \
             `common_tls_context.validation_context.trusted_ca`\n",
            lines + 1
        )
    );
    scratch.write("providers/b.yaml", &format!("{remote}{}", tls.replace("contex:", "context:")));
    assert_eq!(check(&scratch, &providers, "").2, "");
    // A file that cannot be used is the only problem of its provider.
    scratch.write("providers/b.yaml", "name: [b\n");
    let (status, _, stderr) = check(&scratch, &providers, "");
    assert_eq!((status, stderr.lines().count()), (2, 1), "{stderr}");
    scratch.write("providers/b.yaml", "type: STATIC\n");
    let (status, _, stderr) = check(&scratch, &providers, "");
    assert_eq!((status, stderr.lines().count()), (1, 2), "{stderr}");
    scratch.write("providers/b.yaml", &cluster("bb", 2));
    assert_eq!(
        check(&scratch, &providers, "").2,
        "providers/b.yaml:1:7: error: name: no provider has this name; write b if this is the cluster of \
         that provider\n\
         policy.yaml: invalid: 1 error\n"
    );
    std::fs::remove_file(scratch.path("providers/b.yaml")).unwrap();
    scratch.write("providers/c.yml", &cluster("c", 2));
    assert_eq!(
        check(&scratch, &providers, ""),
        (
            1,
            String::new(),
            "providers: error: no cluster for provider \"b\"; add a *.yaml file that begins with `name: b`\n\
             policy.yaml: invalid: 1 error\n"
                .to_owned()
        )
    );
}

#[test]
fn standard_input_is_read_once() {
    let scratch = Scratch::new("check-stdin-twice");
    let (status, _, stderr) = check(&scratch, &["-", "-"], &minimal());
    assert_eq!((status, &*stderr), (2, "error: `-` is given twice; standard input can be read only once\n"));
}

#[test]
fn no_excerpt_shows_what_may_be_a_key() {
    let scratch = Scratch::new("check-secrets");
    let hostile = minimal().replace("keys: [\"", "keys: [hunter2, \"").replace("tier: free", "tier: gold # hunter2");
    for (file, text) in [
        ("block.yaml", hostile.clone()),
        ("broken.yaml", format!("{hostile}    - hunter2\n")),
        ("flow.yaml", hostile.replace("tier: gold # hunter2\n    keys", "{tier: gold, keys").replace("\"]", "\"]}")),
        ("misspelt.yaml", hostile.replace("keys:", "kyes:")),
        ("other.yaml", hostile.replace("keys:", "x: {api_key: hunter2}\n    keys:")),
        ("broken.json", "{\"tenants\": {\"a\": {\"keys\": [\"hunter2\"],, }}}".to_owned()),
    ] {
        scratch.write(file, &text);
        for format in ["text", "json", "sarif"] {
            let (status, stdout, stderr) = check(&scratch, &["--format", format, file], "");
            assert_ne!(status, 0, "{file}");
            assert!(!format!("{stdout}{stderr}").contains("hunter2"), "{file}: {stdout}{stderr}");
        }
    }
}

#[test]
fn the_page_about_check_shows_what_it_prints() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/operate/check.md");
    let page = std::fs::read_to_string(page).unwrap();
    let block = |start: &str| page.split_once(start).unwrap().1.split_once("```").unwrap().0.to_owned();
    let scratch = Scratch::new("check-page");
    scratch.write("policy.yaml", &block("```yaml\n"));
    let shown = block("```console\n$ pointsman check policy.yaml\n");
    assert_eq!(check(&scratch, &["policy.yaml"], ""), (1, String::new(), shown));
    let help = check(&scratch, &["--help"], "").1;
    for option in help.split(|c: char| c.is_whitespace() || ";,".contains(c)).filter(|word| word.starts_with("--")) {
        let option = option.strip_suffix("`").unwrap_or(option);
        if option == "--help" {
            continue;
        }
        assert!(page.contains(&format!("`{option}")), "{option}");
    }
}
