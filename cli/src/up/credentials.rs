//! Checks that the keys that a policy names exist.

use pointsman_core::policy::Policy;

/// Returns one line per key that Envoy will not find. Envoy answers requests to a provider without its key with 401.
pub fn missing(policy: &Policy) -> Vec<String> {
    let mut lines = Vec::new();
    for provider in policy.providers() {
        let Some(credential) = &provider.credential else { continue };
        if let Some(variable) = &credential.env
            && std::env::var_os(variable).is_none_or(|value| value.is_empty())
        {
            lines.push(format!("provider \"{}\": the environment variable {variable} is not set", provider.name));
        }
        for path in [&credential.file, &credential.sds].into_iter().flatten() {
            if let Err(error) = std::fs::File::open(path) {
                lines.push(format!("provider \"{}\": {path}: {error}", provider.name));
            }
        }
    }
    lines
}
