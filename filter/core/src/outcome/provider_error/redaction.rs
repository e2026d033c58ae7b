//! Removes internals from a provider's error message: keys, ids, hosts, addresses, paths.

/// Returns whether a text can be the path of a request field: `messages[0].content`.
pub fn is_field_path(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'[' | b']');
    text.len() <= 200 && text.bytes().all(allowed) && !is_internal(text)
}

/// Returns the message without what looks like internals. Cuts a word after 200 characters, and ends the message with
/// `…` after the word that exceeds 500 bytes.
pub fn redact(message: &str) -> String {
    let mut out = String::with_capacity(message.len().min(512));
    // Whether the previous word was `Basic` or `Bearer`, so that this one is a credential.
    let mut is_credential = false;
    for (i, word) in message.split(|c: char| c.is_whitespace() || c.is_control()).enumerate() {
        if i > 0 {
            out.push(' ');
        }
        if out.len() > 500 {
            out.push('…');
            break;
        }
        let word: String = word.chars().take(200).collect();
        if word.contains("://") || is_credential && word.len() > 5 {
            out.push_str(REDACTED);
        } else {
            redact_parts(&mut out, &word);
        }
        is_credential = matches!(word.to_ascii_lowercase().trim_end_matches(':'), "basic" | "bearer");
    }
    out
}

const REDACTED: &str = "[redacted]";

/// Appends a word, with its parts that look like internals redacted: in `(host='10.0.0.1')`, the address.
fn redact_parts(out: &mut String, word: &str) {
    let is_part =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | ':' | '_' | '-' | '/' | '@' | '%' | '+' | '~' | '\\');
    // Whether the last part names a credential, and whether the next part is its value. Punctuation may stand between
    // them.
    let (mut named, mut is_value) = (false, false);
    for piece in word.split_inclusive(|c| !is_part(c)) {
        let part = piece.trim_end_matches(|c| !is_part(c)).trim_end_matches(['.', ':']);
        let rest = piece.get(part.len()..).unwrap_or_default();
        if !part.is_empty() {
            let is_internal = is_value || is_internal(part) || part.split(':').any(is_internal);
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
    ["password", "passwd", "pwd", "secret", "token", "apikey", "api_key", "api-key"]
        .iter()
        .any(|end| name.ends_with(end))
}

fn is_internal(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    let anywhere = ["sk-", "sk_", "org-", "org_", "proj-", "proj_", "key-", "pk-", "req_", "hf_", "bearer"];
    let prefixes = ["arn:", "xoxa-", "xoxb-", "xoxp-", "ghp_", "gho_", "ghs_", "glpat-"];
    anywhere.iter().any(|prefix| lower.contains(prefix))
        || prefixes.iter().any(|prefix| lower.starts_with(prefix))
        || part.contains('@')
        || has_address(part)
        || is_host(&lower)
        || has_port(&lower)
        || is_file(part)
        || is_secret(part)
}

/// Returns whether it contains an IP address.
fn has_address(part: &str) -> bool {
    let is_v4 = |run: &str| run.trim_matches('.').parse::<std::net::Ipv4Addr>().is_ok();
    let is_v6 = |run: &str| run.matches(':').count() > 1 && run.parse::<std::net::Ipv6Addr>().is_ok();
    part.split(|c: char| !c.is_ascii_digit() && c != '.').any(is_v4) || part.split(['/', '%', '-']).any(is_v6)
}

/// Returns whether it is `name:8000`, or `localhost` without a port: a host in a private network.
fn has_port(word: &str) -> bool {
    let is_name = |name: &str| {
        name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
            && name.bytes().any(|b| b.is_ascii_alphabetic())
    };
    let host = word.split('/').next().unwrap_or_default();
    match host.split_once(':') {
        Some((name, port)) => is_name(name) && port.len() >= 2 && port.parse::<u16>().is_ok(),
        None => host == "localhost",
    }
}

/// Returns whether it is a file's path, and not one of the API.
fn is_file(part: &str) -> bool {
    let is_drive = matches!(part.as_bytes(), [drive, b':', b'\\', ..] if drive.is_ascii_alphabetic());
    if is_drive || part.starts_with("\\\\") {
        return true;
    }
    let rooted = part.starts_with('/') || part.starts_with("~/");
    rooted && part.split('/').filter(|name| !name.is_empty()).count() > 1 && !part.starts_with("/v1/")
}

/// Returns whether it looks like a key or an id: an AWS key id, or a long run of letters and digits. Names of models do
/// not match, because they have no capitals.
fn is_secret(part: &str) -> bool {
    let has = |test: fn(&u8) -> bool| part.as_bytes().iter().any(test);
    let is_word = part.bytes().all(|b| b.is_ascii_alphanumeric());
    let is_id = part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let is_key = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'/'))
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase);
    let is_aws = (part.starts_with("AKIA") || part.starts_with("ASIA")) && part.len() >= 16 && is_word;
    // In a word in camel case, small letters rarely precede a capital more than four times.
    let turns = part
        .as_bytes()
        .windows(2)
        .filter(|two| matches!(two, [a, b] if a.is_ascii_lowercase() && b.is_ascii_uppercase()));
    is_aws
        || part.len() >= 24 && has(u8::is_ascii_digit) && (is_word || is_id || is_key)
        || part.len() >= 32 && is_word && turns.count() > 4
}

/// Returns whether it is a host, with or without a port: at least three labels, or two of which the last is a common or
/// internal domain.
fn is_host(word: &str) -> bool {
    let host = word.split([':', '/']).next().unwrap_or_default();
    let labels: Vec<&str> = host.split('.').collect();
    let label = |l: &&str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let alphabetic_end = labels.last().is_some_and(|l| l.len() >= 2 && l.bytes().all(|b| b.is_ascii_alphabetic()));
    let endings = [
        "com",
        "net",
        "org",
        "io",
        "ai",
        "dev",
        "cloud",
        "local",
        "internal",
        "intranet",
        "lan",
        "corp",
        "home",
        "svc",
        "localhost",
    ];
    // `messages.0.content` is a field of the request.
    let has_index = labels.iter().any(|l| l.len() <= 3 && l.bytes().all(|b| b.is_ascii_digit()));
    labels.iter().all(label)
        && !has_index
        && alphabetic_end
        && (labels.len() >= 3 || labels.len() == 2 && labels.last().is_some_and(|l| endings.contains(l)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert_eq!(redact(said), left);
        }
        for path in ["temperature", "messages[0].content", "messages.0.content", "tools.1.function-name"] {
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
            assert_eq!(redact(name), name);
        }
        for plain in
            ["max_tokens=4096 is too large: max_tokens must be at most 2048", "std::vec at 12:30, 3:2", "Tokens: 12"]
        {
            assert_eq!(redact(plain), plain);
        }
        let plain = "This model's maximum context length is 8192 tokens, e.g. 3.5 or gpt-4.1. See messages.0.content.";
        assert_eq!(redact(plain), plain);
    }
}
