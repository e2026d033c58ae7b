//! Builds Envoy's resources, and the files that hold them, from a policy and its providers.

use super::bootstrap::{Clusters, bootstrap, cluster_bootstrap};
use super::files::Files;
use super::inputs::Inputs;
use super::listener::{Source, listener};
use super::settings::Settings;
use super::{clusters, credential, route, wasm};
use pointsman_core::routing::dispatch::direct_cluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The resources of one policy under one set of settings.
pub struct Rendering<'a> {
    settings: &'a Settings,
    inputs: &'a Inputs,
    policy: Value,
}

impl<'a> Rendering<'a> {
    /// Combines settings and inputs.
    pub fn new(settings: &'a Settings, inputs: &'a Inputs) -> Self {
        // Cannot fail: the policy was read from a tree, its maps have text keys, and its numbers are finite.
        let policy = serde_json::to_value(&inputs.config).unwrap_or_default();
        Self { settings, inputs, policy }
    }

    /// Returns all clusters by name: the providers', the plans' and the direct ones.
    pub fn clusters(&self) -> BTreeMap<String, Value> {
        let policy = &self.inputs.policy;
        let own = self.inputs.providers.iter().map(|(name, own)| (name.clone(), own.cluster.clone()));
        let mut all: BTreeMap<_, _> = own.collect();
        let plans =
            self.inputs.plans.iter().map(|plan| (plan.cluster(policy), clusters::plan(self.settings, policy, plan)));
        let direct = policy.providers().filter(|p| p.credential.is_some());
        let direct = direct.map(|p| (direct_cluster(p), clusters::direct(self.settings, p)));
        for (name, mut cluster) in plans.chain(direct) {
            cluster["@type"] = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
            all.insert(name, cluster);
        }
        all
    }

    /// Returns the files of a running Envoy, and `validate.yaml`, which holds all of them in one.
    pub fn files(&self) -> Files {
        let (settings, inputs) = (self.settings, self.inputs);
        let mut files = self.secrets();
        files.discovery("cds.yaml", self.clusters().into_values().collect());
        files.discovery("rds.yaml", vec![route::configuration(settings, &inputs.policy)]);
        let filter = json!({
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": wasm::FILTER,
            "typed_config": wasm::gateway_stage(settings, &self.policy),
        });
        files.discovery("ecds.yaml", vec![filter]);
        let listener = listener(settings, &inputs.policy, Source::Files);
        files.document("bootstrap.yaml", &bootstrap(settings, listener, Clusters::File));
        files.document("validate.yaml", &self.in_one());
        files
    }

    /// Returns everything that `envoy --mode validate` can check quickly. That excludes the module, which Envoy needs a
    /// second to compile; the same code has already checked its policy.
    pub fn without_module(&self) -> Files {
        let mut files = self.secrets();
        let mut all = self.in_one();
        take_out_module(&mut all);
        files.document("validate.yaml", &all);
        files
    }

    /// Returns the configuration of the gateway stage.
    pub fn gateway_stage(&self) -> Value {
        wasm::gateway_stage(self.settings, &self.policy)
    }

    fn secrets(&self) -> Files {
        let mut files = Files::new(&self.settings.command);
        for provider in self.inputs.policy.providers() {
            if let Some(secret) = provider.credential.as_ref().and_then(|c| credential::secret(&provider.name, c)) {
                files.discovery(&credential::sds_file(&provider.name), vec![secret]);
            }
        }
        files
    }

    /// Returns a bootstrap that refers to no files except the secrets and the module.
    fn in_one(&self) -> Value {
        let (settings, policy) = (self.settings, &self.inputs.policy);
        let filter = wasm::gateway_stage(settings, &self.policy);
        let routes = route::configuration(settings, policy);
        let listener = listener(settings, policy, Source::Inline { filter, routes });
        bootstrap(settings, listener, Clusters::Inline(self.clusters().into_values().collect()))
    }
}

/// Returns `validate.yaml` with one cluster of the operator's and nothing else. `command`: as in [`Files::new`].
pub fn cluster_alone(command: &str, cluster: &Value) -> Files {
    let mut files = Files::new(command);
    files.document("validate.yaml", &cluster_bootstrap(cluster.clone()));
    files
}

/// Removes the module's filters from every list of filters.
fn take_out_module(value: &mut Value) {
    match value {
        Value::Array(list) => {
            list.retain(|item| item.pointer("/typed_config/@type").and_then(Value::as_str) != Some(wasm::TYPE));
            list.iter_mut().for_each(take_out_module);
        }
        Value::Object(map) => map.values_mut().for_each(take_out_module),
        _ => {}
    }
}
