//! What looks like internals in a provider's error message, and what only seems to.

/// Returns whether a word is the URL of a public page without a query. A query might hold a key.
pub fn is_documentation(word: &str) -> bool {
    let Some(rest) = word.split_once("https://").filter(|(before, _)| !before.contains(|c: char| c.is_alphanumeric()))
    else {
        return false;
    };
    let (host, path) = rest.1.split_once('/').unwrap_or((rest.1, ""));
    let host = host.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    PUBLIC_HOSTS.contains(&host) && !path.contains(['?', '@', '%']) && !path.split('/').any(is_internal)
}

/// Hosts of public documentation and public models, which providers name in their messages.
const PUBLIC_HOSTS: [&str; 31] = [
    "platform.openai.com",
    "help.openai.com",
    "openai.com",
    "docs.vllm.ai",
    "docs.sglang.ai",
    "docs.anthropic.com",
    "docs.claude.com",
    "platform.claude.com",
    "ai.google.dev",
    "cloud.google.com",
    "docs.mistral.ai",
    "docs.cohere.com",
    "console.groq.com",
    "docs.x.ai",
    "docs.fireworks.ai",
    "docs.together.ai",
    "api-docs.deepseek.com",
    "openrouter.ai",
    "inference-docs.cerebras.ai",
    "docs.litellm.ai",
    "learn.microsoft.com",
    "go.microsoft.com",
    "aka.ms",
    "docs.aws.amazon.com",
    "github.com",
    "huggingface.co",
    "hf.co",
    "ollama.com",
    "registry.ollama.ai",
    "json-schema.org",
    "errors.pydantic.dev",
];

/// Returns whether a part of a word looks like a key, an id, a host, an address or a file's path.
pub fn is_internal(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    let anywhere = ["sk-", "sk_", "org-", "org_", "proj-", "proj_", "key-", "pk-", "req_", "hf_", "bearer"];
    let prefixes = ["arn:", "xoxa-", "xoxb-", "xoxp-", "ghp_", "gho_", "ghs_", "glpat-"];
    anywhere.iter().any(|prefix| has_key(&lower, prefix))
        || prefixes.iter().any(|prefix| lower.starts_with(prefix))
        || part.contains('@')
        || has_address(part)
        || is_host(&lower)
        || has_port(&lower)
        || is_file(part)
        || is_secret(part)
}

/// Returns whether a key or id with this prefix is in a part: at the start of a word, or within one if it is as long as
/// a key. So `task-specific` has no key.
fn has_key(part: &str, prefix: &str) -> bool {
    part.match_indices(prefix).any(|(at, _)| {
        let begins = !part.get(..at).unwrap_or_default().ends_with(|c: char| c.is_ascii_alphanumeric());
        let rest = part.get(at + prefix.len()..).unwrap_or_default();
        begins || rest.len() >= 12 && rest.bytes().any(|b| b.is_ascii_digit())
    })
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

/// Returns whether it looks like a key or an id: an AWS key id, or a long run of letters and digits. The ids of tool
/// calls do not, because the caller sent them, nor do names of models.
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
        || part.len() >= 24
            && has(u8::is_ascii_digit)
            && (is_word || is_id || is_key && !is_model_name(part))
            && !is_call_id(part)
        || part.len() >= 32 && is_word && turns.count() > 4
}

/// Returns whether it is the id of a tool call, as OpenAI, Anthropic, Bedrock, vLLM and others make them. A caller
/// sends them back with the results.
fn is_call_id(part: &str) -> bool {
    ["call_", "toolu_", "tooluse_", "tool_call_", "chatcmpl-tool-", "fc_", "functions."]
        .iter()
        .any(|prefix| part.starts_with(prefix))
}

/// Returns whether it is composed as names of models are: `Qwen/Qwen2.5-VL-72B-Instruct`. Each of their pieces is
/// short, and a word, a number, or a word and a number. Of the pieces of a key, at least one is neither.
fn is_model_name(part: &str) -> bool {
    let mut pieces = part.split(['-', '_', '.', '/']).filter(|piece| !piece.is_empty()).peekable();
    let is_plain = |piece: &str| {
        let bytes = piece.as_bytes();
        let changes =
            |test: fn(&u8, &u8) -> bool| bytes.windows(2).filter(|w| matches!(w, [a, b] if test(a, b))).count();
        let kinds = changes(|a, b| a.is_ascii_digit() != b.is_ascii_digit());
        let turns = changes(|a, b| a.is_ascii_lowercase() && b.is_ascii_uppercase());
        bytes.len() <= 16 && kinds <= 2 && turns + kinds <= 3
    };
    pieces.peek().is_some() && part.contains(['-', '/']) && pieces.all(is_plain)
}

/// Common and internal top-level domains.
const DOMAINS: [&str; 24] = [
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
    "app",
    "host",
    "site",
    "tech",
    "xyz",
    "eu",
    "us",
    "cn",
    "de",
];

/// Request fields that have fields of their own, in the dialects that providers speak.
const FIELDS: [&str; 34] = [
    "messages",
    "message",
    "content",
    "tools",
    "tool",
    "tool_choice",
    "functions",
    "function",
    "function_call",
    "tool_calls",
    "response_format",
    "json_schema",
    "schema",
    "stream_options",
    "metadata",
    "thinking",
    "reasoning",
    "text",
    "input",
    "output_config",
    "output_format",
    "system",
    "audio",
    "prediction",
    "web_search_options",
    "generation_config",
    "generationconfig",
    "contents",
    "parameters",
    "extra_body",
    "chat_template_kwargs",
    "guided_json",
    "structured_outputs",
    "cache_control",
];

/// Returns whether these labels, in lower case, are the path of a request field, such as `thinking.adaptive.display`. A
/// name that may be a host, public or private, is not.
fn is_field(labels: &[&str]) -> bool {
    let names = |l: &&str| l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_root = |l: &&str| FIELDS.contains(&l.split('[').next().unwrap_or_default());
    labels.first().is_some_and(is_root)
        && labels.iter().skip(1).all(names)
        && !labels.last().is_some_and(|l| DOMAINS.contains(l))
}

/// Returns whether it is a host, with or without a port: at least three labels, or two of which the last is a common or
/// internal domain.
fn is_host(word: &str) -> bool {
    let host = word.split([':', '/']).next().unwrap_or_default();
    let labels: Vec<&str> = host.split('.').collect();
    let label = |l: &&str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let alphabetic_end = labels.last().is_some_and(|l| l.len() >= 2 && l.bytes().all(|b| b.is_ascii_alphabetic()));
    if is_field(&labels) || PUBLIC_HOSTS.contains(&host) {
        return false;
    }
    // `messages.0.content` is a field of the request.
    let has_index = labels.iter().any(|l| l.len() <= 3 && l.bytes().all(|b| b.is_ascii_digit()));
    labels.iter().all(label)
        && !has_index
        && alphabetic_end
        && (labels.len() >= 3 || labels.len() == 2 && labels.last().is_some_and(|l| DOMAINS.contains(l)))
}
