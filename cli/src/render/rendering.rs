//! A policy and its providers put together: Envoy's resources, and the files that hold them.

use super::bootstrap::{Clusters, bootstrap};
use super::files::Files;
use super::inputs::Inputs;
use super::listener::{self, Source, listener};
use super::settings::Settings;
use super::{clusters, credential, route, wasm};
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
        for plan in &self.inputs.plans {
            let mut cluster = clusters::plan(self.settings, policy, plan);
            cluster["@type"] = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
            all.insert(plan.cluster(policy), cluster);
        }
        all
    }

    /// The files of a running Envoy, and `validate.yaml` with all of it in one.
    pub fn files(&self) -> Files {
        let (settings, inputs) = (self.settings, self.inputs);
        let clusters = self.clusters();
        let filter = wasm::gateway_stage(settings, &self.policy);
        let routes = route::configuration(settings, &inputs.policy);

        let mut files = Files::default();
        for provider in inputs.policy.providers() {
            if let Some(secret) = provider.credential.as_ref().and_then(|c| credential::secret(&provider.name, c)) {
                files.discovery(&credential::sds_file(&provider.name), vec![secret]);
            }
        }
        files.discovery("cds.yaml", clusters.values().cloned().collect());
        files.discovery("rds.yaml", vec![routes.clone()]);
        files.discovery(
            "ecds.yaml",
            vec![json!({
                "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
                "name": listener::FILTER,
                "typed_config": filter,
            })],
        );
        let from_files = listener(settings, &inputs.policy, Source::Files);
        files.document("bootstrap.yaml", &bootstrap(settings, from_files, Clusters::File));
        let inline = listener(settings, &inputs.policy, Source::Inline { filter, routes });
        let inline = bootstrap(settings, inline, Clusters::Inline(clusters.into_values().collect()));
        files.document("validate.yaml", &inline);
        files
    }
}
