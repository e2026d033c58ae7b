//! The headers of Anthropic's answers: the request's id, the organization, and its rate limits.

use std::time::{Duration, UNIX_EPOCH};

use hyper::header::{HeaderName, HeaderValue};

use crate::answer::Stamp;

/// The limits that it states, with what remains of each. They never change: no request is refused for them.
const LIMITS: [(&str, u64, u64); 4] = [
    ("requests", 4000, 3999),
    ("tokens", 480_000, 479_000),
    ("input-tokens", 400_000, 399_000),
    ("output-tokens", 80_000, 79_000),
];

/// Returns the id of a request, which errors repeat in their body.
pub fn request_id(stamp: Stamp) -> String {
    stamp.id("req_sim")
}

/// Returns a time as RFC 3339 has it, in whole seconds.
pub fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// Returns the headers that every response has. The organization's is there to be leaked: a gateway must not pass it
/// on.
pub fn headers(stamp: Stamp) -> Vec<(HeaderName, HeaderValue)> {
    let reset = rfc3339(stamp.created + 60);
    let mut all = vec![
        ("request-id".to_owned(), request_id(stamp)),
        ("anthropic-organization-id".to_owned(), "org-SimSecretTenant42".to_owned()),
    ];
    for (name, limit, remaining) in LIMITS {
        all.push((format!("anthropic-ratelimit-{name}-limit"), limit.to_string()));
        all.push((format!("anthropic-ratelimit-{name}-remaining"), remaining.to_string()));
        all.push((format!("anthropic-ratelimit-{name}-reset"), reset.clone()));
    }
    all.into_iter()
        .filter_map(|(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_reset_at_a_date() {
        let headers = headers(Stamp { number: 7, created: 0 });
        let value = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        assert_eq!(value("request-id").unwrap(), "req_sim0000000007");
        assert_eq!(value("anthropic-ratelimit-input-tokens-reset").unwrap(), "1970-01-01T00:01:00Z");
        assert_eq!(headers.len(), 14);
    }
}
