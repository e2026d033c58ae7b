//! What a provider says of a failure, without what is nobody else's business: keys, ids, hosts, addresses, paths.

/// Whether a text can be where in a request something is: `messages[0].content`.
pub fn is_field_path(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'[' | b']');
    text.len() <= 200 && text.bytes().all(allowed) && !is_internal(text)
}

/// The message, at most 500 characters, without what looks like internals.
pub fn redact(message: &str) -> String {
    let mut out = String::with_capacity(message.len().min(512));
    for (i, word) in message.split(' ').enumerate() {
        if i > 0 {
            out.push(' ');
        }
        if out.len() > 500 {
            out.push('…');
            break;
        }
        let word: String = word.chars().filter(|c| !c.is_control()).take(200).collect();
        if word.contains("://") {
            out.push_str(REDACTED);
        } else {
            redact_parts(&mut out, &word);
        }
    }
    out
}

const REDACTED: &str = "[redacted]";

/// Appends a word, but for those parts of it that look like internals: in `(host='10.0.0.1')` the address.
fn redact_parts(out: &mut String, word: &str) {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | ':' | '_' | '-' | '/' | '@' | '%' | '+' | '~');
    for piece in word.split_inclusive(|c| !is_part(c)) {
        let part = piece.trim_end_matches(|c| !is_part(c)).trim_end_matches(['.', ':']);
        let rest = piece.get(part.len()..).unwrap_or_default();
        out.push_str(if is_internal(part) || part.split(':').any(is_internal) { REDACTED } else { part });
        out.push_str(rest);
    }
}

fn is_internal(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    let prefixes = ["sk-", "sk_", "org-", "org_", "proj-", "proj_", "key-", "pk-", "req_", "bearer"];
    prefixes.iter().any(|prefix| lower.contains(prefix))
        || part.contains('@')
        || part.parse::<std::net::IpAddr>().is_ok()
        || part.parse::<std::net::SocketAddr>().is_ok()
        || is_host(&lower)
        || is_file(part)
        || is_secret(part)
}

/// A path of a file, and none of the API.
fn is_file(part: &str) -> bool {
    let rooted = part.starts_with('/') || part.starts_with("~/");
    rooted && part.split('/').filter(|name| !name.is_empty()).count() > 1 && !part.starts_with("/v1/")
}

/// A long run of letters and digits, or of a key's or an id's characters: no name of a model, which has no capitals in it.
fn is_secret(part: &str) -> bool {
    let has = |test: fn(&u8) -> bool| part.as_bytes().iter().any(test);
    let is_word = part.bytes().all(|b| b.is_ascii_alphanumeric());
    let is_id = part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let is_key = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'/'))
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase);
    part.len() >= 24 && has(u8::is_ascii_digit) && (is_word || is_id || is_key)
}

/// `name.name.tld`, with or without a port: at least two dots, or one with a well-known internal ending.
fn is_host(word: &str) -> bool {
    let host = word.split([':', '/']).next().unwrap_or_default();
    let labels: Vec<&str> = host.split('.').collect();
    let label = |l: &&str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let alphabetic_end = labels.last().is_some_and(|l| l.len() >= 2 && l.bytes().all(|b| b.is_ascii_alphabetic()));
    let endings = ["com", "net", "org", "io", "ai", "dev", "local", "internal", "svc", "localhost"];
    // `messages.0.content` is a place in the request.
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
            ("https://a.b/c?token=short", "[redacted]"),
        ] {
            assert_eq!(redact(said), left);
        }
        for path in ["temperature", "messages[0].content", "messages.0.content", "tools.1.function-name"] {
            assert!(is_field_path(path), "{path}");
        }
        for other in ["/srv/secret/10.1.2.3", "10.1.2.3", "sk-proj-9", "two words", "gpu-7.cluster.local"] {
            assert!(!is_field_path(other), "{other}");
        }
    }

    #[test]
    fn ordinary_words_stay() {
        for name in ["claude-3-5-sonnet-20241022", "text-embedding-3-large:latest", "Use /v1/responses/compact."] {
            assert_eq!(redact(name), name);
        }
        let plain = "This model's maximum context length is 8192 tokens, e.g. 3.5 or gpt-4.1. See messages.0.content.";
        assert_eq!(redact(plain), plain);
    }
}
