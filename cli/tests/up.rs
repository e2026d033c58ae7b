//! `pointsman up`: how it starts, reloads and ends with a real Envoy.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::PathBuf;
use std::process::Command;
use support::running::{
    ANY_KEY, SHA256_OF_K, Up, await_some, before_envoy, gone, inputs, up, when_reloading, when_validating,
};
use support::{cluster, envoy, policy};

#[test]
#[ignore = "needs a real Envoy: make test"]
fn it_serves_reloads_and_ends_without_a_trace() {
    let scratch = inputs("up-serve", "POINTSMAN_TEST_KEY");
    let with_key = |text: String| text.replace(ANY_KEY, SHA256_OF_K);
    scratch.write("policy.yaml", &with_key(policy("POINTSMAN_TEST_KEY")));
    let mut up = Up::start(&scratch);
    assert!(up.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(up.get("/v1/models").contains("\"near\""));

    // A new model, task and plan.
    let more = policy("POINTSMAN_TEST_KEY")
        .replace(
            "tasks:",
            "  nearer: {provider: a, model: z, level: local, context: 9, max_output_tokens: 9}\n\
            tasks:\n  quick: {primary: nearer, fallback: [near, far]}",
        )
        .replace("[near, far]}\ntenants", "[near, far, nearer]}\ntenants");
    scratch.write("policy.yaml", &with_key(more.clone()));
    up.says("policy applied: ");
    assert!(up.get("/v1/models").contains("\"quick\""));

    // First the policy's rules refuse it, then Envoy: the old policy keeps serving.
    scratch.write("policy.yaml", &with_key(more.replace("primary: nearer", "primary: nowhere")));
    up.says("policy rejected, still serving the previous one: ");
    up.says(": error: tasks.quick.primary: unknown model \"nowhere\"; known models: far, near, nearer");
    scratch.write("providers/a.yaml", &cluster("a", 1).replace("STATIC", "STATICAL"));
    scratch.write("policy.yaml", &with_key(more.clone()));
    let places = format!("{}:2:7: unknown enum value: 'STATICAL'", scratch.path("providers/a.yaml").display());
    up.says(&format!("policy rejected, still serving the previous one: {places}"));
    assert!(up.get("/v1/models").contains("\"quick\""));

    up.signal("-TERM");
    assert_eq!(up.ends(), Some(0));
    assert_eq!(std::fs::read_dir(scratch.path("tmp")).unwrap().count(), 0, "the temporary directory is gone");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn it_ends_when_envoy_does() {
    let scratch = inputs("up-dies", "POINTSMAN_TEST_KEY");
    let mut up = Up::start(&scratch);
    assert!(Command::new("kill").args(["-KILL", &up.envoy()]).status().unwrap().success());
    assert_eq!(up.ends(), Some(1));
    up.says("Envoy exited: signal: 9");
    assert_eq!(std::fs::read_dir(scratch.path("tmp")).unwrap().count(), 0, "the temporary directory is gone");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn each_signal_that_ends_programs_ends_envoy_too() {
    for signal in ["-TERM", "-INT", "-QUIT", "-HUP"] {
        let scratch = inputs("up-signals", "POINTSMAN_TEST_KEY");
        let mut up = Up::start(&scratch);
        let envoy = up.envoy();
        up.signal(signal);
        assert_eq!(up.ends(), Some(0), "{signal}");
        gone(&envoy);
        assert_eq!(std::fs::read_dir(scratch.path("tmp")).unwrap().count(), 0, "{signal}: its directory is gone");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_kill_that_it_cannot_see_ends_envoy_too() {
    let scratch = inputs("up-kill", "POINTSMAN_TEST_KEY");
    let mut up = Up::start(&scratch);
    let envoy = up.envoy();
    up.signal("-KILL");
    assert_eq!(up.ends(), None);
    gone(&envoy);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn under_nohup_it_outlives_its_terminal() {
    let scratch = inputs("up-nohup", "POINTSMAN_TEST_KEY");
    let valid = policy("POINTSMAN_TEST_KEY");
    let plain = up(&scratch);
    let mut command = Command::new("nohup");
    command.arg(plain.get_program()).args(plain.get_args());
    let mut up = Up::run(command, &scratch, &envoy());
    up.signal("-HUP");
    // A reload after the signal shows that `up` is still running.
    scratch.write("policy.yaml", &valid.replace("chat", "talk"));
    up.says("policy applied: ");
    assert!(up.get("/healthz").starts_with("HTTP/1.1 200"));
    up.signal("-TERM");
    assert_eq!(up.ends(), Some(0));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nobody_need_read_what_it_says() {
    let scratch = inputs("up-unread", "POINTSMAN_TEST_KEY");
    let valid = policy("POINTSMAN_TEST_KEY").replace(ANY_KEY, SHA256_OF_K);
    scratch.write("policy.yaml", &valid);
    // Standard error is a pipe whose reader exits immediately.
    let plain = up(&scratch);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>\"$0\""]).arg(scratch.path("errors"));
    assert!(Command::new("mkfifo").arg(scratch.path("errors")).status().unwrap().success());
    let errors = scratch.path("errors");
    let reader = std::thread::spawn(move || drop(std::fs::File::open(errors).unwrap()));
    command.arg(plain.get_program()).args(plain.get_args());
    let looks = scratch.path("looks");
    let counting = before_envoy(&scratch, &when_validating(&format!("echo look >>'{}'", looks.display())));
    let mut up = Up::run(command, &scratch, &counting);
    reader.join().unwrap();

    let serves = |up: &Up, task: &str| {
        let name = format!("\"{task}\"");
        await_some(|| up.get("/v1/models").contains(&name).then_some(()), || format!("{task} is not served"));
    };
    scratch.write("policy.yaml", &valid.replace("chat", "talk"));
    serves(&up, "talk");
    // Envoy refuses the next policy, and the message has no reader. The policy after it is accepted.
    scratch.write("providers/a.yaml", &cluster("a", 1).replace("STATIC", "STATICAL"));
    scratch.write("policy.yaml", &valid.replace("chat", "mumble"));
    await_some(
        || std::fs::read_to_string(&looks).is_ok_and(|text| text.lines().count() == 3).then_some(()),
        || "it does not look at the policy".to_owned(),
    );
    scratch.write("providers/a.yaml", &cluster("a", 1));
    scratch.write("policy.yaml", &valid.replace("chat", "whisper"));
    serves(&up, "whisper");
    assert!(up.child.try_wait().unwrap().is_none(), "it still runs");
    up.signal("-TERM");
    assert_eq!(up.ends(), Some(0));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn it_ends_at_once_in_the_middle_of_a_reload() {
    let scratch = inputs("up-busy", "POINTSMAN_TEST_KEY");
    let mark = scratch.path("validating");
    let script = when_reloading(&scratch, &format!("echo $$ >'{}'; exec sleep 600", mark.display()));
    let mut up = Up::start_on(&scratch, &before_envoy(&scratch, &script));
    scratch.write("policy.yaml", &policy("POINTSMAN_TEST_KEY").replace("chat", "talk"));
    await_some(
        || std::fs::read_to_string(&mark).is_ok_and(|text| text.ends_with('\n')).then_some(()),
        || "it does not look at the policy".to_owned(),
    );
    // Validation would take longer than the test waits.
    up.signal("-TERM");
    assert_eq!(up.ends(), Some(0));
    gone(std::fs::read_to_string(&mark).unwrap().trim());
    assert!(!up.errors.lock().unwrap().contains("refused"), "it was not the policy");
}

/// Validation always succeeds here, so the running Envoy is what refuses.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_envoy_refuses_leaves_every_file_as_it_was() {
    let scratch = inputs("up-back", "POINTSMAN_TEST_KEY");
    let up = Up::start_on(&scratch, &before_envoy(&scratch, &when_validating("exit 0")));
    let files = || {
        let run = std::fs::read_dir(scratch.path("tmp")).unwrap().next().unwrap().unwrap().path();
        let secret = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("sds-");
        let secrets = std::fs::read_dir(&run).unwrap().map(|file| file.unwrap().path()).filter(secret);
        let mut all: Vec<_> =
            secrets.chain(["cds", "rds", "ecds"].map(|name| run.join(format!("{name}.yaml")))).collect();
        all.sort();
        all.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect::<Vec<_>>()
    };
    let before = files();
    assert_eq!(before.len(), 4);
    // Another key for `b`, a first key for `a`, and a cluster that Envoy refuses.
    scratch.write("providers/a.yaml", &cluster("a", 1).replace("connect_timeout: 1s", "connect_timeout: 0s"));
    let new = policy("PATH").replace(
        "a: {dialect: openai, local: true, data: regulated}",
        "a: {dialect: openai, local: true, data: regulated, credential: {header: authorization, env: HOME}}",
    );
    assert_ne!(new, policy("PATH"));
    scratch.write("policy.yaml", &new);
    up.says("policy rejected, still serving the previous one: ");
    let after = files();
    assert!(before == after, "{before:#?}\n{after:#?}");
}
