//! A policy and its providers put together: Envoy's resources, and the files that hold them.

use super::bootstrap::{Clusters, bootstrap};
use super::files::Files;
use super::inputs::Inputs;
use super::listener::{self, Source, listener};
use super::settings::Settings;
use super::{clusters, credential, route, wasm};
use pointsman_core::routing::dispatch::direct_cluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Resources of one policy, under one set of settings.
pub struct Rendering<'a> {
    settings: &'a Settings,
    inputs: &'a Inputs,
    policy: Value,
}

impl<'a> Rendering<'a> {
    /// Puts them together.
    pub fn new(settings: &'a Settings, inputs: &'a Inputs) -> Self {
        // A policy was read from a tree, so it is one; maps have text for keys and every value is finite.
        let policy = serde_json::to_value(&inputs.config).unwrap_or_default();
        Self { settings, inputs, policy }
    }

    /// All clusters by name: the providers' and the plans'.
    pub fn clusters(&self) -> BTreeMap<String, Value> {
        let policy = &self.inputs.policy;
        let mut all = self.inputs.providers.clone();
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

    /// The files of a running Envoy, and `validate.yaml` with all of it in one.
    pub fn files(&self) -> Files {
        let (settings, inputs) = (self.settings, self.inputs);
        let mut files = self.secrets();
        files.discovery("cds.yaml", self.clusters().into_values().collect());
        files.discovery("rds.yaml", vec![route::configuration(settings, &inputs.policy)]);
        let filter = json!({
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": listener::FILTER,
            "typed_config": wasm::gateway_stage(settings, &self.policy),
        });
        files.discovery("ecds.yaml", vec![filter]);
        let listener = listener(settings, &inputs.policy, Source::Files);
        files.document("bootstrap.yaml", &bootstrap(settings, listener, Clusters::File));
        files.document("validate.yaml", &self.in_one());
        files
    }

    /// Everything that `envoy --mode validate` can tell quickly: all but the module, which takes Envoy a second to
    /// compile and whose policy has been checked by the same code.
    pub fn without_module(&self) -> Files {
        let mut files = self.secrets();
        let mut all = self.in_one();
        take_out_module(&mut all);
        files.document("validate.yaml", &all);
        files
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

    /// A bootstrap that refers to no file but those of the secrets and the module.
    fn in_one(&self) -> Value {
        let (settings, policy) = (self.settings, &self.inputs.policy);
        let filter = wasm::gateway_stage(settings, &self.policy);
        let routes = route::configuration(settings, policy);
        let listener = listener(settings, policy, Source::Inline { filter, routes });
        bootstrap(settings, listener, Clusters::Inline(self.clusters().into_values().collect()))
    }
}

/// Takes the module's filters out of every list of filters.
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
