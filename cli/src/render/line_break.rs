//! Key files that end in a line break. Envoy before 1.40 puts it into the header, and then answers every request to
//! that provider with 503 (`invalid header value`).

use super::version::EnvoyVersion;
use pointsman_core::policy::Policy;
use std::io::Read as _;

/// The key files of a policy that its Envoy does not trim.
#[derive(Debug, Default)]
pub struct UntrimmedKeys {
    /// Providers and paths.
    files: Vec<(String, String)>,
    /// What was said last.
    said: Vec<String>,
}

impl UntrimmedKeys {
    /// Collects the key files. None for an Envoy that trims. SDS files are the operator's own.
    pub fn of(policy: &Policy, version: EnvoyVersion) -> Self {
        if version.trims_keys() {
            return Self::default();
        }
        let file = |credential: &pointsman_core::config::Credential| credential.file.clone();
        let files = policy.providers().filter_map(|p| Some((p.name.to_string(), file(p.credential.as_ref()?)?)));
        Self { files: files.collect(), said: Vec::new() }
    }

    /// Returns one line per file that now ends in a line break. Files that cannot be read are not looked at. No line
    /// repeats a key.
    pub fn faults(&self) -> Vec<String> {
        let broken = self.files.iter().filter(|(_, path)| ends_in_line_break(path));
        broken
            .map(|(provider, path)| {
                format!(
                    "provider \"{provider}\": {path} ends in a line break, with which Envoy before 1.40 answers every \
                     request to it with 503; remove it: tr -d '\\r\\n' <{path} >{path}.new && mv {path}.new {path}"
                )
            })
            .collect()
    }

    /// Returns [`Self::faults`] if they differ from those of the previous call.
    pub fn news(&mut self) -> Vec<String> {
        let faults = self.faults();
        let is_news = faults != self.said;
        self.said = faults;
        if is_news { self.said.clone() } else { Vec::new() }
    }
}

fn ends_in_line_break(path: &str) -> bool {
    const LONGEST: u64 = 64 << 10;
    let mut bytes = Vec::new();
    // A FIFO would block.
    let is_file = std::fs::metadata(path).is_ok_and(|data| data.is_file());
    let is_read =
        is_file && std::fs::File::open(path).is_ok_and(|file| file.take(LONGEST).read_to_end(&mut bytes).is_ok());
    is_read && matches!(bytes.last(), Some(b'\n' | b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::policy::parse;

    fn policy(file: &str) -> Policy {
        let text = format!(
            r#"{{"providers": {{"a": {{"dialect": "openai", "data": "internal",
            "credential": {{"header": "authorization", "file": "{file}"}}}}}},
            "models": {{"m": {{"provider": "a", "model": "x", "context": 100, "max_output_tokens": 10}}}},
            "tasks": {{"t": {{"primary": "m"}}}}, "tiers": {{"pro": {{"models": ["m"]}}}},
            "tenants": {{"acme": {{"tier": "pro", "keys": ["sha256:{}"]}}}}}}"#,
            "0".repeat(64)
        );
        parse::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_line_break_is_a_fault_where_envoy_does_not_trim_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        let policy = policy(path.to_str().unwrap());
        for (key, minor, expected) in [
            ("sk-1", 36, false),
            ("sk-1", 39, false),
            ("sk-1\n", 36, true),
            ("sk-1\r\n", 39, true),
            ("sk-1\n", 40, false),
            ("", 36, false),
        ] {
            std::fs::write(&path, key).unwrap();
            let faults = UntrimmedKeys::of(&policy, EnvoyVersion::of_minor(minor)).faults();
            assert_eq!(!faults.is_empty(), expected, "{key:?} 1.{minor}");
            assert!(faults.iter().all(|line| !line.contains("sk-1")), "{faults:?}");
        }
    }

    #[test]
    fn a_change_of_the_file_is_said_once() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        let mut keys = UntrimmedKeys::of(&policy(path.to_str().unwrap()), EnvoyVersion::of_minor(38));
        assert!(keys.news().is_empty(), "there is no file yet");
        std::fs::write(&path, "sk-1").unwrap();
        assert!(keys.news().is_empty());
        std::fs::write(&path, "sk-2\n").unwrap();
        assert_eq!((keys.news().len(), keys.news().len()), (1, 0));
        std::fs::write(&path, "sk-3").unwrap();
        assert!(keys.news().is_empty());
        std::fs::write(&path, "sk-4\n").unwrap();
        assert_eq!(keys.news().len(), 1);
    }
}
