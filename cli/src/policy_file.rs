//! Loads a policy file into the configuration and the validated policy, or reports every problem.

use crate::document::{self, InvalidDocument};
use crate::finding::{Finding, Located, Rule};
use crate::regular_file;
use crate::source::Source;
use crate::text_report;
use crate::time_zone;
use pointsman_core::config::Config;
use pointsman_core::config::problem::MORE;
use pointsman_core::policy::Policy;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

/// The path that stands for standard input.
const STDIN: &str = "-";

/// A valid policy file.
#[derive(Debug)]
pub struct ValidPolicyFile {
    /// The policy as written.
    pub config: Config,
    /// The policy as validated.
    pub policy: Policy,
    /// What is valid and probably not meant, from top to bottom.
    pub warnings: Vec<Finding>,
}

/// Why a policy file cannot be used.
#[derive(Debug)]
pub struct InvalidPolicyFile {
    /// From top to bottom; at least one.
    pub findings: Vec<Finding>,
    /// The exit status: 1 if the policy is invalid, 2 if the file cannot be read or parsed.
    pub status: u8,
}

/// What a policy may be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Also standard input, a FIFO or another file that can be read only once.
    Any,
    /// A regular file, which can be read again when it changes.
    RegularFile,
}

#[derive(Clone, Copy)]
enum Format {
    Json,
    Yaml,
}

/// Returns whether a path stands for standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// Returns how messages name a policy file.
pub fn name(path: &Path) -> String {
    if path.as_os_str() == STDIN { "stdin".to_owned() } else { path.display().to_string() }
}

/// Reads and validates a policy: JSON if the file's name ends in `.json`, YAML otherwise. `-` is standard input, in
/// either format, for [`Origin::Any`].
///
/// # Errors
/// Every problem found.
pub fn load(path: &Path, origin: Origin) -> Result<ValidPolicyFile, InvalidPolicyFile> {
    let name = name(path);
    match read(path, origin) {
        Ok(text) => of_text(path, &name, text),
        Err(error) => Err(InvalidPolicyFile::unusable(Finding::of_file(&name, Rule::Unreadable, unreadable(&error)))),
    }
}

fn of_text(path: &Path, name: &str, text: String) -> Result<ValidPolicyFile, InvalidPolicyFile> {
    let (format, parsed) = parse(path, &text);
    let mut tree = match parsed {
        Ok(tree) => tree,
        Err(InvalidDocument { at, message }) => {
            return Err(InvalidPolicyFile::unusable(located(name, format, text).at(at, Rule::Syntax, message)));
        }
    };
    time_zone::fill(&mut tree);
    let (result, rule) = match pointsman_core::policy::parse::from_value(&tree) {
        Ok((config, policy)) => {
            let problems = pointsman_core::policy::warnings::warnings(&config, &policy);
            (Ok((config, policy, problems)), Rule::Suspicious)
        }
        Err(problems) => (Err(problems), Rule::Policy),
    };
    let problems = match &result {
        Ok((.., problems)) | Err(problems) => problems,
    };
    // The text is parsed again only if there is something to find in it.
    let findings = if problems.is_empty() {
        Vec::new()
    } else {
        let source = located(name, format, text);
        let mut findings: Vec<_> = problems.iter().map(|problem| Finding::of_problem(&source, rule, problem)).collect();
        // What is nowhere is first, except for the note that there is more.
        findings.sort_by_key(|finding| (finding.message == MORE, finding.region));
        findings
    };
    match result {
        Ok((config, policy, _)) => {
            let warnings = findings.into_iter().map(Finding::into_warning).collect();
            Ok(ValidPolicyFile { config, policy, warnings })
        }
        Err(_) => Err(InvalidPolicyFile { findings, status: 1 }),
    }
}

fn read(path: &Path, origin: Origin) -> io::Result<String> {
    if origin == Origin::RegularFile {
        return match path.as_os_str() == STDIN {
            true => Err(regular_file::standard_input()),
            false => regular_file::read_to_string(path),
        };
    }
    if path.as_os_str() != STDIN {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map(|_| text)
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "no such file; check the path, or begin with a copy of policies/minimal.yaml".to_owned()
        }
        io::ErrorKind::IsADirectory => "is a directory; name the policy file in it".to_owned(),
        io::ErrorKind::InvalidData => "is not UTF-8 text; save it as UTF-8".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied; make the file readable for this user".to_owned(),
        _ if regular_file::is_not_regular(error) => error.to_string(),
        _ => format!("cannot be read: {error}"),
    }
}

fn parse(path: &Path, text: &str) -> (Format, Result<serde_json::Value, InvalidDocument>) {
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    if is_json {
        return (Format::Json, document::from_json(text));
    }
    if path.as_os_str() == STDIN
        && text.trim_start().starts_with('{')
        && let Ok(tree) = document::from_json(text)
    {
        return (Format::Json, Ok(tree));
    }
    (Format::Yaml, document::from_yaml(text))
}

fn located(name: &str, format: Format, text: String) -> Located {
    let source = match format {
        Format::Json => Source::of_json(text),
        Format::Yaml => Source::of_yaml(text),
    };
    Located::new(name, source)
}

impl InvalidPolicyFile {
    fn unusable(finding: Finding) -> Self {
        Self { findings: vec![finding], status: 2 }
    }

    /// Prints the problems to standard error and returns the exit status.
    pub fn report(&self) -> ExitCode {
        text_report::lines(&self.findings, false).iter().for_each(|line| eprintln!("{line}"));
        ExitCode::from(self.status)
    }
}

/// One line per problem, each starting with the file name.
impl fmt::Display for InvalidPolicyFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&text_report::log_lines(&self.findings).join("\n"))
    }
}

impl std::error::Error for InvalidPolicyFile {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns everything that can be printed about a text.
    fn printed(path: &str, text: String) -> String {
        let findings = match of_text(Path::new(path), path, text) {
            Ok(valid) => valid.warnings,
            Err(invalid) => invalid.findings,
        };
        text_report::lines(&findings, true).join("\n") + &format!("{findings:?}")
    }

    /// Inserts a syntax character at every position of a policy that holds keys in plain text, with a well-known prefix
    /// and without.
    #[test]
    fn nothing_that_is_printed_repeats_what_may_be_a_key() {
        let yaml = "tenants:\n  acme: {tier: x, keys: [sk-live-0123456789, hunter2]}\n  b:\n    keys:\n    \
            - hunter2\n    \
            - hash: hunter2\n    tier: y # hunter2\nproviders:\n  p: {credential: {prefix: hunter2, env: hunter2}}\n";
        let json = "{\"tenants\": {\"acme\": {\"tier\": 1, \"keys\": [\"hunter2\"]}}}";
        for (path, good) in [("p.yaml", yaml), ("p.json", json), ("-", json)] {
            for at in 0..good.len() {
                for inserted in ["\"", "'", "{", "]", ": ", "\t", "*a", "!", "|", "\n- ", "\n", " #", "\u{0}", "é"] {
                    let (before, after) = good.split_at(at);
                    // A comment that is broken in two is no longer one.
                    if inserted.contains('\n') && before.rsplit('\n').next().is_some_and(|line| line.contains('#')) {
                        continue;
                    }
                    // What is cut in two is no longer recognised.
                    if before.ends_with(|c: char| c.is_ascii_alphanumeric()) && after.starts_with(char::is_alphanumeric)
                    {
                        continue;
                    }
                    let said = printed(path, format!("{before}{inserted}{after}"));
                    assert!(!said.contains("hunter2") && !said.contains("live"), "{path} {at} {inserted:?}: {said}");
                }
            }
        }
    }

    #[test]
    fn a_hostile_text_is_refused_without_a_crash() {
        // The command has the main thread's stack, which is larger than that of a test.
        let hostile = std::thread::Builder::new().stack_size(8 << 20).spawn(refuse_hostile).unwrap();
        hostile.join().unwrap();
    }

    fn refuse_hostile() {
        for text in ["[".repeat(100_000), "{\"a\":".repeat(100_000), "a: &a [*a]".to_owned(), "\u{feff}".to_owned()] {
            for path in ["p.yaml", "p.json", "-"] {
                assert!(of_text(Path::new(path), path, text.clone()).is_err());
            }
        }
    }

    #[test]
    fn many_problems_take_no_longer_each() {
        let tenants: String = (0..20_000).map(|i| format!("  t{i}: {{tier: gone{i}}}\n")).collect();
        let text = format!(
            "providers: {{p: {{dialect: openai, data: public}}}}\nmodels: {{m: {{provider: p, model: m, \
            context: 10, max_output_tokens: 5}}}}\ntiers: {{a: {{models: [m]}}}}\ntenants:\n{tenants}"
        );
        let invalid = of_text(Path::new("p.yaml"), "p", text).unwrap_err();
        assert!(invalid.findings.len() >= 20_000);
        assert!(invalid.findings.iter().filter(|finding| finding.excerpt.is_some()).count() >= 20_000);
    }

    /// A problem takes as long as its words, however long its line is and however many keys there are.
    #[test]
    fn many_problems_of_one_line_or_of_one_key_take_no_longer_each() {
        let key = |n: usize| format!("\"keys\": [\"sha256:{n:064x}\"]");
        let of = |tenants: String| {
            format!(
                "{{\"providers\": {{\"p\": {{\"dialect\": \"openai\", \"data\": \"public\"}}}}, \"models\": {{\"m\": \
                 {{\"provider\": \"p\", \"model\": \"m\", \"context\": 10, \"max_output_tokens\": 5}}}}, \"tiers\": \
                 {{\"a\": {{\"models\": [\"m\"]}}}}, \"tenants\": {{{tenants}}}}}"
            )
        };
        let tenants: Vec<_> = (0..20_000).map(|i| format!("\"t{i}\": {{\"tier\": \"gone{i}\", {}}}", key(i))).collect();
        let invalid = of_text(Path::new("p.json"), "p", of(tenants.join(", "))).unwrap_err();
        assert_eq!(invalid.findings.len(), 20_000);
        let tenants: Vec<_> = (0..20_000).map(|i| format!("\"t{i}\": {{\"tier\": \"a\", {}}}", key(1))).collect();
        let invalid = of_text(Path::new("p.json"), "p", of(tenants.join(", "))).unwrap_err();
        let [finding] = invalid.findings.as_slice() else { panic!("{}", invalid.findings.len()) };
        assert!(finding.message.ends_with("(19998 more places have it)"), "{finding}");
    }

    #[test]
    fn what_is_not_counted_is_said() {
        let tenants: String = (0..200).map(|i| format!("  t{i}: {{teir: a}}\n")).collect();
        let invalid = of_text(Path::new("p.yaml"), "p", format!("tenants:\n{tenants}")).unwrap_err();
        assert_eq!(invalid.findings.last().map(|last| &*last.message), Some(MORE));
        let count = text_report::counts(&invalid.findings);
        assert_eq!(count, format!("at least {} errors", invalid.findings.len() - 1));
    }
}
