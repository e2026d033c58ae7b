//! A credential's prefix that would not be accepted by a provider.

use crate::config::place::Place;
use crate::config::problem::{Problem, quoted};
use crate::config::{Config, Credential};

/// Reports prefixes that are no authentication scheme and one space.
pub(super) fn check(config: &Config, warnings: &mut Vec<Problem>) {
    for (name, provider) in &config.providers {
        if let Some(message) = provider.credential.as_ref().and_then(suspicious_prefix) {
            warnings.push(Problem::new(Place::of(&["providers", name, "credential", "prefix"]), message));
        }
    }
}

/// Authentication schemes that provider APIs use.
const SCHEMES: [&str; 5] = ["bearer", "basic", "token", "api-key", "apikey"];

/// An `authorization` header is a scheme, one space and the key (RFC 9110, section 11.4). Other headers usually carry
/// the key alone.
fn suspicious_prefix(credential: &Credential) -> Option<String> {
    let Credential { header, prefix, .. } = credential;
    let carries_scheme = ["authorization", "proxy-authorization"].contains(&header.as_str());
    let scheme = prefix.trim_end_matches([' ', ':', '=']);
    let is_known = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if prefix.is_empty() || !(carries_scheme || is_known) {
        return None;
    }
    let is_token =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if is_token(scheme) {
        let right = format!("{scheme} ");
        return (*prefix != right).then(|| {
            format!("{} is not followed by exactly one space before the key; use {}", quoted(prefix), quoted(&right))
        });
    }
    // `Token token=` also precedes a key.
    let is_parameter = |(scheme, rest): (&str, &str)| is_token(scheme) && rest.strip_suffix('=').is_some_and(is_token);
    let is_right = prefix.split_once(' ').is_some_and(is_parameter);
    (!is_right).then(|| "expected an authentication scheme and one space, such as \"Bearer \"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::document;
    use crate::policy::parse::from_value;
    use serde_json::json;

    fn of(header: &str, prefix: &str) -> Vec<String> {
        let mut policy = document();
        policy["providers"]["hosted"]["credential"] = json!({"header": header, "prefix": prefix, "env": "KEY"});
        let (config, _) = from_value(&policy).unwrap();
        let mut warnings = Vec::new();
        check(&config, &mut warnings);
        warnings.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a_scheme_without_its_space_is_suspicious() {
        for (header, prefix) in [
            ("authorization", "Bearer"),
            ("proxy-authorization", "bearer:"),
            ("authorization", "Bearer  "),
            ("x-auth", "Bearer"),
        ] {
            let right = format!("{} ", prefix.trim_end_matches([' ', ':']));
            let message = format!("{prefix:?} is not followed by exactly one space before the key; use {right:?}");
            assert_eq!(of(header, prefix), [format!("providers.hosted.credential.prefix: {message}")]);
        }
    }

    #[test]
    fn a_key_in_place_of_a_prefix_is_suspicious_and_not_repeated() {
        for prefix in ["Bearer sk-live-0123456789abcdef", "sk-live-0123456789abcdef", " ", "a b "] {
            let warnings = of("authorization", prefix);
            assert_eq!(warnings.len(), 1, "{prefix}");
            assert!(!warnings[0].contains("sk-live"), "{warnings:?}");
        }
    }

    #[test]
    fn what_providers_want_is_not_suspicious() {
        for (header, prefix) in [
            ("authorization", "Bearer "),
            ("authorization", "Token "),
            ("authorization", "Token token="),
            ("authorization", ""),
            ("api-key", ""),
            ("x-api-key", "key-"),
            ("x-auth", "Bearer "),
        ] {
            assert_eq!(of(header, prefix), [""; 0], "{header}: {prefix}");
        }
    }
}
