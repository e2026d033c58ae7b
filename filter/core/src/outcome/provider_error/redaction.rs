//! Removes internals from a provider's error message: keys, ids, hosts, addresses, paths.

mod internals;
use internals::{is_documentation, is_internal};

/// What the caller may see in a provider's message although it looks like internals.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallersOwn<'a> {
    /// URLs that the caller sent itself.
    pub urls: &'a [Box<str>],
    /// The ids of the model: that of the policy, and the provider's, which answers carry too.
    pub models: [&'a str; 2],
}

/// Returns whether a text can be the path of a request field: `messages[0].content`.
pub fn is_field_path(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'[' | b']');
    text.len() <= 200 && text.bytes().all(allowed) && !is_internal(text)
}

/// Returns the message without what looks like internals, unless it is the caller's own. Cuts a word after 200
/// characters, and ends the message with `…` after the word that exceeds 500 bytes.
pub fn redact(message: &str, own: &CallersOwn) -> String {
    let mut out = String::with_capacity(message.len().min(512));
    let mut credential = Credential::No;
    for (i, word) in message.split(|c: char| c.is_whitespace() || c.is_control()).enumerate() {
        if i > 0 {
            out.push(' ');
        }
        if out.len() > 500 {
            out.push('…');
            break;
        }
        let cut: String = word.chars().take(200).collect();
        if own.has_url(word) || is_documentation(word) {
            out.push_str(&cut);
        } else if cut.contains("://") || credential == Credential::Scheme && cut.len() > 5 {
            out.push_str(REDACTED);
        } else if credential.is_value(&cut) {
            let value = cut.trim_matches(|c: char| !c.is_alphanumeric());
            out.push_str(&cut.replacen(value, REDACTED, 1));
        } else {
            redact_parts(&mut out, &cut, own);
        }
        credential = credential.after(&cut);
    }
    out
}

impl CallersOwn<'_> {
    /// Returns whether a word is one of the URLs, with punctuation around it.
    fn has_url(&self, word: &str) -> bool {
        let around =
            |c: char| matches!(c, '\'' | '"' | '`' | '(' | ')' | '<' | '>' | '[' | ']' | ',' | '.' | ':' | ';');
        let trimmed = word.trim_matches(around);
        self.urls.iter().any(|url| trimmed == url.trim_end_matches(around))
    }

    fn has_model(&self, part: &str) -> bool {
        !part.is_empty() && self.models.contains(&part)
    }
}

/// Whether the next word is a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    No,
    /// The last word was `Basic` or `Bearer`.
    Scheme,
    /// The last word was `API`: `key` may follow.
    Kind,
    /// The last words were `API key`, or another name of a credential: it may follow.
    Named,
}

impl Credential {
    fn is_value(self, word: &str) -> bool {
        // A word of a sentence: `API key is`, `API key: none`.
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_punctuation() && !matches!(b, b'-' | b'_');
        self == Self::Named && word.len() > 5 && !word.bytes().all(is_plain)
    }

    fn after(self, word: &str) -> Self {
        let lower = word.to_ascii_lowercase();
        let name = lower.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        // The scheme may follow its name without a space: `Authorization=Bearer`.
        if matches!(name.rsplit(|c: char| !c.is_ascii_alphanumeric()).next(), Some("basic" | "bearer")) {
            return Self::Scheme;
        }
        match name {
            "api" | "access" | "secret" => Self::Kind,
            "key" if self == Self::Kind => Self::Named,
            "credential" | "credentials" => Self::Named,
            // `Incorrect API key provided: …`
            "provided" | "is" | "was" | "given" | "of" if self == Self::Named => Self::Named,
            name if names_credential(name) && word.ends_with([':', '=']) => Self::Named,
            _ => Self::No,
        }
    }
}

const REDACTED: &str = "[redacted]";

/// Appends a word, with its parts that look like internals redacted: in `(host='10.0.0.1')`, the address.
fn redact_parts(out: &mut String, word: &str, own: &CallersOwn) {
    let is_part =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | ':' | '_' | '-' | '/' | '@' | '%' | '+' | '~' | '\\');
    // Whether the last part names a credential, and whether the next part is its value. Punctuation may stand between
    // them.
    let (mut named, mut is_value) = (false, false);
    for piece in word.split_inclusive(|c| !is_part(c)) {
        let part = piece.trim_end_matches(|c| !is_part(c)).trim_end_matches(['.', ':']);
        let rest = piece.get(part.len()..).unwrap_or_default();
        if !part.is_empty() {
            let is_internal = || is_internal(part) || part.split(':').any(is_internal);
            let is_internal = is_value || !own.has_model(part) && is_internal();
            out.push_str(if is_internal { REDACTED } else { part });
            (named, is_value) = (names_credential(part), false);
        }
        out.push_str(rest);
        is_value |= named && rest.contains(['=', ':']);
    }
}

/// Returns whether a name is that of a credential, whose value is then redacted.
fn names_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "pwd", "secret", "token", "apikey", "api_key", "api-key", "-key", "authorization"]
        .iter()
        .any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_redacted_wherever_its_scheme_stands() {
        for message in [
            "headers {'Authorization': 'Bearer token-abc123'}",
            "{\"authorization\": \"Bearer token-abc123\"}",
            "(Bearer token-abc123)",
            "Authorization=Bearer token-abc123",
            "header x-good-key: token-abc123",
        ] {
            let redacted = redact(message, &CallersOwn::default());
            assert!(!redacted.contains("token-abc123"), "{redacted}");
        }
    }

    #[test]
    fn internals_are_found_within_a_word_and_in_the_field_that_is_named() {
        for (said, left) in [
            ("HTTPConnectionPool(host='10.20.30.40', port=8000)", "HTTPConnectionPool(host='[redacted]', port=8000)"),
            ("(host=vllm-0.vllm.svc.cluster.local:8000)", "(host=[redacted])"),
            ("no model in /srv/models/llama.", "no model in [redacted]."),
            ("ask root@gpu7.internal", "ask [redacted]"),
            ("key:AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY", "[redacted]"),
            ("request 6b1ec73d-6db0-4082-920c-ebdfb7626c9a", "request [redacted]"),
            ("at [fe80::1]:80", "at [[redacted]]:80"),
            ("refused\n10.20.30.40\nretry", "refused [redacted] retry"),
            ("at 10.20.30.40/health now", "at [redacted] now"),
            ("10.20.30.40-10.20.30.50", "[redacted]"),
            ("2001:db8::1/64 fe80::1%eth0", "[redacted] [redacted]"),
            ("AKIAIOSFODNN7EXAMPLE xoxb-1-2 hf_abcdefgh", "[redacted] [redacted] [redacted]"),
            ("arn:aws:bedrock:us-east-1:123456789012:model", "[redacted]"),
            ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted]"),
            ("password=hunter2, api_key: 'abc'", "password=[redacted], api_key: 'abc'"),
            (r#"{"token":"abc"}"#, r#"{"token":"[redacted]"}"#),
            ("gpu-7:8000 and localhost:8000 or prod-db-01.corp", "[redacted] and [redacted] or [redacted]"),
            (r"C:\models\llama and \\files\share", "[redacted] and [redacted]"),
            ("AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEf", "[redacted]"),
            ("https://a.b/c?token=short", "[redacted]"),
            ("Incorrect API key provided: secret-of-azure-91be.", "Incorrect API key provided: [redacted]."),
            ("The API key secret-of-azure-91be is wrong", "The API key [redacted] is wrong"),
            ("'api_key': Zx9-short is wrong", "'api_key': [redacted] is wrong"),
            ("api_key= Zx9-short", "api_key= [redacted]"),
            ("token: abc123def", "token: [redacted]"),
            ("call_sk-proj-9 toolu_org-1", "[redacted] [redacted]"),
            ("thinking.adaptive.example.com text.vllm.svc messages.gpu-7.prod.lan", "[redacted] [redacted] [redacted]"),
            ("mysk-0123456789abc", "[redacted]"),
            ("https://docs.vllm.ai/keys?key=abc", "[redacted]"),
            ("https://docs.vllm.ai:8000/x http://docs.vllm.ai/", "[redacted] [redacted]"),
            ("https://docs.vllm.ai.internal.corp/x", "[redacted]"),
            ("https://docs.vllm.ai@gpu-7.corp/", "[redacted]"),
            ("https://platform.openai.com/settings/org-AbC123/x", "[redacted]"),
            ("xhttps://docs.vllm.ai/", "[redacted]"),
            ("Qwen/9tSrke72PouQMnMXa7eZSW0jkFMBWY", "[redacted]"),
        ] {
            assert_eq!(redact(said, &CallersOwn::default()), left);
        }
        for path in [
            "temperature",
            "messages[0].content",
            "messages.0.content",
            "tools.1.function-name",
            "thinking.adaptive.display",
            "response_format.json_schema.schema",
            "messages.3.content.0.tool_use.id",
        ] {
            assert!(is_field_path(path), "{path}");
        }
        for other in [
            "models.10.20.30.40",
            "AKIAIOSFODNN7EXAMPLE",
            "/srv/secret/10.1.2.3",
            "10.1.2.3",
            "sk-proj-9",
            "two words",
            "gpu-7.cluster.local",
        ] {
            assert!(!is_field_path(other), "{other}");
        }
    }

    #[test]
    fn ordinary_words_stay() {
        for name in ["claude-3-5-sonnet-20241022", "text-embedding-3-large:latest", "Use /v1/responses/compact."] {
            assert_eq!(redact(name, &CallersOwn::default()), name);
        }
        for id in [
            "toolu_01A09q90qw90lq917835lq9",
            "call_uCzNsYLrbc4TbTzXmZ4Bsm3c",
            "chatcmpl-tool-6b1ec73d6db04082920cebdfb7626c9a",
            "Qwen/Qwen2.5-VL-72B-Instruct",
            "meta-llama/Llama-3.3-70B-Instruct",
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
        ] {
            let said = format!("thinking.adaptive.display: Extra inputs are not permitted, `{id}`.");
            assert_eq!(redact(&said, &CallersOwn::default()), said);
        }
        for plain in
            ["max_tokens=4096 is too large: max_tokens must be at most 2048", "std::vec at 12:30, 3:2", "Tokens: 12"]
        {
            assert_eq!(redact(plain, &CallersOwn::default()), plain);
        }
        for plain in [
            "See https://docs.vllm.ai/en/latest/features/.",
            "(https://platform.openai.com/docs/guides/vision)",
            "https://errors.pydantic.dev/2.7/v/missing",
            "registry.ollama.ai/library/gemma:2b does not support tools",
            "task-specific",
            "a risk-averse model",
            "the disk-cache",
            "Unrecognized key: 'tool_choices'",
            "The API key is missing.",
        ] {
            assert_eq!(redact(plain, &CallersOwn::default()), plain);
        }
        let plain = "This model's maximum context length is 8192 tokens, e.g. 3.5 or gpt-4.1. See messages.0.content.";
        assert_eq!(redact(plain, &CallersOwn::default()), plain);
    }
    #[test]
    fn the_callers_own_urls_and_the_models_ids_stay() {
        let urls = ["https://example.com/cats/1.png?size=2".into(), "https://10.1.2.3:8000/a.".into()];
        let own = CallersOwn { urls: &urls, models: ["big", "my-org-model-of-team-0123456789"] };
        for said in [
            "Error while downloading https://example.com/cats/1.png?size=2.",
            "Cannot read 'https://example.com/cats/1.png?size=2': 404",
            "Cannot read (https://10.1.2.3:8000/a).",
            "The model `my-org-model-of-team-0123456789` cannot see.",
        ] {
            assert_eq!(redact(said, &own), said);
        }
        for (said, left) in [
            ("https://example.com/cats/2.png", "[redacted]"),
            ("https://example.com/", "[redacted]"),
            ("via https://proxy.internal/https://example.com/cats/1.png?size=2", "via [redacted]"),
            ("my-org-model-of-team-0123456780", "[redacted]"),
        ] {
            assert_eq!(redact(said, &own), left);
        }
        let long: [Box<str>; 1] = [format!("https://a.b/{}", "x".repeat(2000)).into()];
        let cut = redact(&long[0], &CallersOwn { urls: &long, ..CallersOwn::default() });
        assert_eq!(cut, long[0][..200]);
    }
}
