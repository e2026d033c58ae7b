//! Puts a provider's key into the requests to that provider, and into no others, with Envoy's credential injector.

use super::settings::Settings;
use pointsman_core::config::Credential;
use pointsman_core::policy::Provider;
use pointsman_core::routing::dispatch::STATE_PROVIDER;
use serde_json::{Map, Value, json};

/// Returns the path, below the prefix, of the file with a provider's secret.
pub fn sds_file(provider: &str) -> String {
    format!("{SDS}{provider}.yaml")
}

/// Returns whether a path, below the prefix, is that of a file with a secret.
pub fn is_sds_file(path: &str) -> bool {
    path.starts_with(SDS)
}

/// What the names of files with secrets begin with. They have no directory of their own: the keys of a ConfigMap have
/// no slash, and a directory in a mounted volume would be a symbolic link, through which Envoy sees no change.
const SDS: &str = "sds-";

/// Returns the secret resource that Pointsman writes for a provider, unless the operator has an SDS file. It names the
/// source of the key, never the key.
pub fn secret(provider: &str, credential: &Credential) -> Option<Value> {
    let source = match (&credential.env, &credential.file) {
        (Some(variable), _) => json!({"environment_variable": variable}),
        // Mounted from a Secret, the file is never renamed: the directory is what changes.
        (None, Some(file)) => json!({"filename": file, "watched_directory": {"path": directory(file)}}),
        (None, None) => return None,
    };
    Some(json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": provider,
        "generic_secret": {"secret": source},
    }))
}

/// Returns the directory of a file.
fn directory(file: &str) -> String {
    match file.rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((directory, _)) => directory.to_owned(),
        None => ".".to_owned(),
    }
}

/// Returns the upstream filters that set an attempt's header to the key of its provider.
///
/// With several providers, the module names the provider in filter state, which no caller can set. A provider without a
/// credential matches no filter, and the module removes what the previous attempt left.
pub fn filters(settings: &Settings, providers: &[&Provider]) -> Vec<Value> {
    let distinct: Vec<_> = providers
        .iter()
        .enumerate()
        .filter(|(i, p)| !providers.iter().take(*i).any(|before| before.name == p.name))
        .map(|(_, p)| *p)
        .collect();
    type Build = fn(&Settings, &Provider, &Credential) -> Option<Value>;
    let steps: [(&str, Build); 2] = [("pointsman.credential", injector), ("pointsman.credential_prefix", prefix)];
    let mut filters = Vec::new();
    for (name, build) in steps {
        let built: Vec<_> =
            distinct.iter().filter_map(|p| Some((*p, build(settings, p, p.credential.as_ref()?)?))).collect();
        match (distinct.as_slice(), built.as_slice()) {
            (_, []) => {}
            ([_], [(_, filter)]) => filters.push(json!({"name": name, "typed_config": filter})),
            _ => filters.push(by_provider(name, &built)),
        }
    }
    filters
}

/// Wraps several filters into one that picks by the provider of the attempt.
fn by_provider(name: &str, filters: &[(&Provider, Value)]) -> Value {
    let action = |filter: &Value| {
        json!({"action": {
            "name": name,
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
                "typed_config": {"name": name, "typed_config": filter},
            },
        }})
    };
    let map: Map<_, _> = filters.iter().map(|(provider, filter)| (provider.name.to_string(), action(filter))).collect();
    json!({
        "name": name,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            "extension_config": {
                "name": "envoy.filters.http.composite",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.composite.v3.Composite"},
            },
            "xds_matcher": {"matcher_tree": {
                "input": {
                    "name": "provider",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.FilterStateInput",
                        "key": format!("wasm.{STATE_PROVIDER}"),
                    },
                },
                "exact_match_map": {"map": map},
            }},
        },
    })
}

/// Returns the filter that sets the header to the key.
fn injector(settings: &Settings, provider: &Provider, credential: &Credential) -> Option<Value> {
    let source = match &credential.sds {
        // The operator's file may be mounted from a Secret.
        Some(file) => {
            let source = json!({"path": file, "watched_directory": {"path": directory(file)}});
            json!({"path_config_source": source})
        }
        None => settings.source(&sds_file(&provider.name)),
    };
    let mut generic = json!({
        "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
        "credential": {"name": *provider.name, "sds_config": source},
        "header": credential.header,
    });
    if settings.version.has_credential_prefix() && !credential.prefix.is_empty() {
        generic["header_value_prefix"] = credential.prefix.as_str().into();
    }
    Some(json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": true,
        // Without its key, the request gets the provider's 401, which leads to the next provider. Envoy's own does not.
        "allow_request_without_credential": true,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": generic},
    }))
}

/// Before Envoy 1.37 an injector has no prefix option. This filter runs after it and adds the prefix.
fn prefix(settings: &Settings, _: &Provider, credential: &Credential) -> Option<Value> {
    let Credential { header, prefix, .. } = credential;
    let needed = !settings.version.has_credential_prefix() && !prefix.is_empty();
    needed.then(|| {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [{"append": {
                "header": {"key": header, "value": format!("{prefix}%REQ({header})%")},
                "append_action": "OVERWRITE_IF_EXISTS",
            }}]},
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_watched_where_its_volume_is_mounted() {
        for (file, expected) in [("/etc/keys/openai", "/etc/keys"), ("/key", "/"), ("key", "."), ("keys/a", "keys")] {
            assert_eq!(directory(file), expected);
        }
        assert!(is_sds_file(&sds_file("openai")) && !is_sds_file("cds.yaml"));
    }
}
